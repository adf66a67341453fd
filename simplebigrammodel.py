"""二元模型，写成后面每一级都沿用的样子：分词器、取批、模型、训练循环、续写。

学习就是计数：每一步取一批字，把看到的字对记进表里。损失是交叉熵，单位是每字多少 nat：
模型给正确答案的概率越大，损失越小；在 4,543 个字里瞎猜，损失是 ln 4543 ≈ 8.42。

运行（约 5 秒）：python simplebigrammodel.py
逐行讲解：simplebigrammodel_with_comments.py
"""

import sys
import time
from pathlib import Path

import numpy as np

batch_size = 8  # 每一步同时看多少段文本
block_size = 32  # 每段文本有多少个字
max_iters = 6400  # 一共训练多少步
eval_interval = 1600  # 每隔多少步评估一次
eval_iters = 100  # 每次评估取多少批求平均
train_ratio = 0.9  # 前面多大比例的文本用来训练，其余用来验证
max_new_tokens = 100  # 续写多少个字
seed = 1337  # 随机种子：种子相同，结果相同
prompts = ['春江', '往事']  # 从这些字开始续写
data_path = Path(__file__).with_name('ci.txt')


def read_text(path, train_ratio, block_size):
    """读出整个文本；读不了，或者不够切出训练集和验证集，就说明原因并退出。"""
    try:
        text = path.read_text(encoding='utf-8-sig')  # 有没有 BOM 都读得对
    except OSError as error:
        sys.exit(f'读不到 {path}（{error.strerror}）：请把这个文件放到这里再运行。')
    except UnicodeDecodeError:
        sys.exit(f'{path} 不是 UTF-8 文本：请另存为 UTF-8 编码再运行。')
    n_train = int(train_ratio * len(text))
    if min(n_train, len(text) - n_train) <= block_size:
        sys.exit(f'{path} 只有 {len(text)} 字，太短：训练集和验证集各要比 block_size（{block_size}）长。')
    return text


class Tokenizer:
    """字和编号互换：一个字就是一个 token，编号是它按 Unicode 排序后的位置。"""

    def __init__(self, text):
        self.chars = sorted(set(text))
        self.ids = {char: i for i, char in enumerate(self.chars)}
        self.vocab_size = len(self.chars)

    def encode(self, text):
        """文字变成编号的列表；有词表里没有的字，就引发 ValueError，说出是哪些字。"""
        unknown = set(text) - self.ids.keys()
        if unknown:
            raise ValueError(f'词表里没有这些字：{" ".join(sorted(unknown))}')
        return [self.ids[char] for char in text]

    def decode(self, ids):
        """编号变回文字。"""
        return ''.join(self.chars[i] for i in ids)


def get_batch(data, batch_size, block_size, random=np.random):
    """随机取 batch_size 段文本 x，以及往后错一个字的 y：x 每个位置的下一个字就是答案。

    注释里的形状：B 是段数，T 是每段的字数，V 是词表大小。
    """
    starts = random.randint(len(data) - block_size, size=(batch_size, 1))
    chunks = data[starts + np.arange(block_size + 1)]  # (B, T+1)
    return chunks[:, :-1], chunks[:, 1:]


def estimate_loss(model, train_data, val_data, eval_iters, batch_size, block_size):
    """训练集和验证集上的平均损失。每次都看同样的几批，曲线才平滑、可比。"""
    losses = {}
    for name, data in [('train', train_data), ('val', val_data)]:
        random = np.random.RandomState(0)  # 单独的随机源，不打乱训练用的那一个
        batches = [get_batch(data, batch_size, block_size, random) for _ in range(eval_iters)]
        losses[name] = sum(model.forward(x, y)[1] for x, y in batches) / eval_iters
    return losses


class BigramLanguageModel:
    """counts[i, j] 是 j 号字跟在 i 号字后面的次数；每个都加一，再按行归一，就是概率。"""

    def __init__(self, vocab_size):
        self.counts = np.zeros((vocab_size, vocab_size), dtype=np.float32)

    def count(self, x, y):
        """x 里的每个字，后面跟着 y 里同一位置的字：各记一次。"""
        np.add.at(self.counts, (x, y), 1)

    def forward(self, idx, targets=None):
        """idx 和 targets 是 (B, T) 的编号；返回得分 (B, T, V) 和每字平均损失（nat），没有 targets 时损失是 None。"""
        counts = self.counts[idx] + 1  # (B, T, V)
        logits = np.log(counts / counts.sum(axis=-1, keepdims=True))  # (B, T, V)
        if targets is None:
            return logits, None
        return logits, -np.take_along_axis(logits, targets[..., None], axis=-1).mean()

    def generate(self, idx, max_new_tokens):
        """在 idx (B, T) 后面逐字续写，返回 (B, T + max_new_tokens)。"""
        for _ in range(max_new_tokens):
            logits, _ = self.forward(idx)  # (B, T, V)
            cumulative = np.exp(logits[:, -1]).cumsum(axis=-1)  # (B, V)
            draw = np.random.rand(len(idx), 1) * cumulative[:, -1:]  # (B, 1)
            next_idx = (cumulative > draw).argmax(axis=-1)  # (B,)
            idx = np.concatenate([idx, next_idx[:, None]], axis=1)  # (B, T+1)
        return idx


def write(model, tokenizer, prompt, max_new_tokens):
    """从 prompt 往下写 max_new_tokens 个字。"""
    idx = np.array([tokenizer.encode(prompt)])  # (1, T)
    idx = model.generate(idx, max_new_tokens)
    return tokenizer.decode(idx[0].tolist())


def main():
    np.random.seed(seed)
    text = read_text(data_path, train_ratio, block_size)
    tokenizer = Tokenizer(text)
    data = np.array(tokenizer.encode(text))
    n_train = int(train_ratio * len(data))
    train_data, val_data = data[:n_train], data[n_train:]

    model = BigramLanguageModel(tokenizer.vocab_size)
    print(f'词表 {tokenizer.vocab_size:,} 字，训练集 {len(train_data):,} 字，'
          f'验证集 {len(val_data):,} 字，计数表 {model.counts.size:,} 格')

    started = resumed = time.perf_counter()
    train_seconds = 0.0
    for step in range(max_iters + 1):
        last = step == max_iters
        if step % eval_interval == 0 or last:
            train_seconds += time.perf_counter() - resumed
            losses = estimate_loss(model, train_data, val_data, eval_iters, batch_size, block_size)
            speed = step * batch_size * block_size / train_seconds
            seconds = time.perf_counter() - started
            left = f'{seconds / step * (max_iters - step):.0f}' if step else '?'
            print(f'第 {step:5d} 步  训练损失 {losses["train"]:.4f}  验证损失 {losses["val"]:.4f}'
                  f'  每秒 {speed:7,.0f} 字  还要 {left:>4} 秒')
            resumed = time.perf_counter()
        if last:
            break
        x, y = get_batch(train_data, batch_size, block_size)  # (B, T)
        model.count(x, y)

    for prompt in prompts:
        print(f'\n{write(model, tokenizer, prompt, max_new_tokens)}')


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\n已中断。')
