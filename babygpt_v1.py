"""BabyGPT v1：嵌入加线性层，用梯度下降来学

给每个字一串可以学的数（嵌入），再用一个线性层把这串数换成下一个字的得分（logits）。不再数数：
先算出损失，再求出损失对每个参数的导数，把每个参数朝损失变小的方向挪一小步，如此三千步。

它仍是二元模型，每个字只看自己来猜下一个；但 4,543 个字共用 64 维的空间，用法相近的字可以学得相近，
见过的搭配有机会帮到没见过的。它低于加一平滑的计数（验证损失约 5.52），但加一是很粗的平滑：
同样只看前面一个字，平滑得讲究些（Kneser–Ney，见 prelude/），数数就有 4.64，比 v1 到 v10 都低。

你会看到：损失从 ln 4543 ≈ 8.42 附近降到约 5.07。写出来的相邻两字像样，句子不成话，不是程序坏了。

运行（约 20 秒）：python babygpt_v1.py
和计数的写法对照：git diff --no-index simplebigrammodel_torch.py babygpt_v1.py
"""

import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else 'cpu'

# 超参数：v1 到 v10 的取值相同，损失才能互相比较
batch_size = 8  # 每一步同时看多少段文本
block_size = 32  # 每段文本有多少个字
n_embd = 64  # 每个字用多少个数表示
learning_rate = 4e-3  # 优化器每一步走多大
max_iters = 3000  # 一共训练多少步
eval_interval = 500  # 每隔多少步评估一次
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


def get_batch(data, batch_size, block_size, generator=None):
    """随机取 batch_size 段文本 x，以及往后错一个字的 y：x 每个位置的下一个字就是答案。

    注释里的形状：B 是段数，T 是每段的字数，V 是词表大小。
    """
    starts = torch.randint(len(data) - block_size, (batch_size, 1), generator=generator)
    chunks = data[starts + torch.arange(block_size + 1)]  # (B, T+1)
    return chunks[:, :-1], chunks[:, 1:]


@torch.no_grad()
def estimate_loss(model, train_data, val_data, eval_iters, batch_size, block_size):
    """训练集和验证集上的平均损失。每次都看同样的几批，曲线才平滑、可比。"""
    model.eval()
    losses = {}
    for name, data in [('train', train_data), ('val', val_data)]:
        generator = torch.Generator().manual_seed(0)  # 单独的随机源，不打乱训练用的那一个
        batches = [get_batch(data, batch_size, block_size, generator) for _ in range(eval_iters)]
        losses[name] = sum(model(x, y)[1].item() for x, y in batches) / eval_iters
    model.train()
    return losses


class BabyGPT(nn.Module):
    """从每个位置的字算出下一个字的得分；反复取下一个字，就是写作。"""

    def __init__(self, vocab_size, n_embd):
        super().__init__()
        self.token_embedding_table = nn.Embedding(vocab_size, n_embd)
        self.lm_head = nn.Linear(n_embd, vocab_size)

    def forward(self, idx, targets=None):
        """idx 和 targets 是 (B, T) 的编号；返回得分 (B, T, V) 和每字平均损失（nat），没有 targets 时损失是 None。"""
        x = self.token_embedding_table(idx)  # (B, T, n_embd)
        logits = self.lm_head(x)  # (B, T, V)
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    @torch.no_grad()
    def generate(self, idx, max_new_tokens):
        """在 idx (B, T) 后面逐字续写，返回 (B, T + max_new_tokens)。"""
        for _ in range(max_new_tokens):
            logits, _ = self(idx)  # (B, T, V)
            probs = F.softmax(logits[:, -1], dim=-1)  # (B, V)
            next_idx = torch.multinomial(probs, num_samples=1)  # (B, 1)
            idx = torch.cat([idx, next_idx], dim=1)  # (B, T+1)
        return idx


def write(model, tokenizer, prompt, max_new_tokens):
    """从 prompt 往下写 max_new_tokens 个字。"""
    idx = torch.tensor([tokenizer.encode(prompt)], device=device)  # (1, T)
    model.eval()
    idx = model.generate(idx, max_new_tokens)
    model.train()
    return tokenizer.decode(idx[0].tolist())


def main():
    torch.manual_seed(seed)
    text = read_text(data_path, train_ratio, block_size)
    tokenizer = Tokenizer(text)
    data = torch.tensor(tokenizer.encode(text), device=device)
    n_train = int(train_ratio * len(data))
    train_data, val_data = data[:n_train], data[n_train:]

    model = BabyGPT(tokenizer.vocab_size, n_embd).to(device)
    # 没写 weight_decay，就是默认的 0.01：每走一步，每个参数还往 0 缩一点，乘以 1 - 0.01 × learning_rate
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, fused=True)
    n_params = sum(p.numel() for p in model.parameters())
    print(f'设备 {device}，词表 {tokenizer.vocab_size:,} 字，训练集 {len(train_data):,} 字，'
          f'验证集 {len(val_data):,} 字，模型 {n_params:,} 个参数')

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
        _, loss = model(x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    for prompt in prompts:
        print(f'\n{write(model, tokenizer, prompt, max_new_tokens)}')


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\n已中断。')
