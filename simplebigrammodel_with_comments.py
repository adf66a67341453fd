"""simplebigrammodel.py 的逐行讲解：程序完全相同，只多了注释。

simplemodel.py 已经会数相邻的字、会续写了。这里做的是同一件事，但写成后面每一级都沿用的样子，
因为从 v1 起，只有中间的模型会变，四周的部件一直是这几样：

    Tokenizer        文字 ↔ 编号：模型只会算数，不认识字
    get_batch        从长长的文本里随机取几段，配上答案
    模型              forward：读进一批字，给每个字打分，看谁会是下一个；generate：反复取下一个字
    estimate_loss    考试：模型对没见过的文本猜得有多准
    main             训练循环：取一批，学一步，隔一阵考一次，最后写两段

还多了两件 simplemodel.py 没有的东西。一是考试：把文本的最后一成留着不学，专门用来考，
分得清「学会了」和「背下来了」。二是分数，也就是损失，它让我们能比较两个模型谁更好。

运行（约 5 秒）：python simplebigrammodel_with_comments.py
"""

import sys
import time
from pathlib import Path

import numpy as np

# 超参数：不是学出来的，而是人定的数。
batch_size = 8  # 每一步同时看多少段文本
# 二元模型只看前一个字，段的长短对它没有影响；从 v3 起，这是模型能看多远。
block_size = 32  # 每段文本有多少个字
max_iters = 6400  # 一共训练多少步
eval_interval = 1600  # 每隔多少步评估一次
eval_iters = 100  # 每次评估取多少批求平均
# 一成不学，只用来考。
train_ratio = 0.9  # 前面多大比例的文本用来训练，其余用来验证
max_new_tokens = 100  # 续写多少个字
seed = 1337  # 随机种子：种子相同，结果相同
prompts = ['春江', '往事']  # 从这些字开始续写
data_path = Path(__file__).with_name('ci.txt')


def read_text(path, train_ratio, block_size):
    """读出整个文本；读不了，或者不够切出训练集和验证集，就说明原因并退出。

    x 和错开一个字的 y 合起来要 block_size + 1 个字，所以两部分都要比 block_size 长。
    """
    try:
        text = path.read_text(encoding='utf-8-sig')  # 有没有 BOM 都读得对
    except OSError as error:
        sys.exit(f'读不到 {path}（{error.strerror}）：请把这个文件放到这里再运行。')
    except UnicodeDecodeError:
        sys.exit(f'{path} 不是 UTF-8 文本：请另存为 UTF-8 编码再运行。')
    # 前九成训练，后一成验证。词的先后已经打乱，所以后一成和前九成是同一种文本
    n_train = int(train_ratio * len(text))
    if min(n_train, len(text) - n_train) <= block_size:
        sys.exit(f'{path} 只有 {len(text)} 字，太短：训练集和验证集各要比 block_size（{block_size}）长。')
    return text


class Tokenizer:
    """字和编号互换：一个字就是一个 token，编号是它按 Unicode 排序后的位置。

    大模型的 token 往往是一个词或半个词，词表有几万到二十万项。我们用最简单的切法：一个字一个 token。
    标点、空格、换行也各占一个编号。词表就是语料里出现过的 4,543 个字，别的字模型没有见过。
    """

    def __init__(self, text):
        # 排序之后，同一份文本总是得到同一套编号
        self.chars = sorted(set(text))
        self.ids = {char: i for i, char in enumerate(self.chars)}
        self.vocab_size = len(self.chars)

    def encode(self, text):
        """文字变成编号的列表；有词表里没有的字，就引发 ValueError，说出是哪些字。"""
        # 没见过的字没有编号，与其报一个看不懂的 KeyError，不如说清楚是哪个字
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

    文本是「问君能有几多愁」、block_size 是 4 时，取到的一段可能是

        x:  问  君  能  有
        y:  君  能  有  几

    4 个位置就是 4 道题：看到「问」答「君」，看到「君」答「能」……答案全在文本里，不用人标注。
    random 是随机数从哪里来：训练时用全局的，考试时用单独的。
    """
    # 每段从哪里开始。形状是 (B, 1)，加上 (T+1,) 的 0、1、2、…，就广播成 (B, T+1) 个位置
    starts = random.randint(len(data) - block_size, size=(batch_size, 1))
    # 用位置的数组去取，一次取出所有段，不需要循环
    chunks = data[starts + np.arange(block_size + 1)]  # (B, T+1)
    return chunks[:, :-1], chunks[:, 1:]


def estimate_loss(model, train_data, val_data, eval_iters, batch_size, block_size):
    """训练集和验证集上的平均损失。每次都看同样的几批，曲线才平滑、可比。

    训练损失低、验证损失高，说明模型在背书；两个都低，才是学会了。
    """
    losses = {}
    for name, data in [('train', train_data), ('val', val_data)]:
        random = np.random.RandomState(0)  # 单独的随机源，不打乱训练用的那一个
        batches = [get_batch(data, batch_size, block_size, random) for _ in range(eval_iters)]
        losses[name] = sum(model.forward(x, y)[1] for x, y in batches) / eval_iters
    return losses


class BigramLanguageModel:
    """counts[i, j] 是 j 号字跟在 i 号字后面的次数；每个都加一，再按行归一，就是概率。

    为什么加一？考试时总会遇到训练时没出现过的字对。次数是 0，概率就是 0，而 -ln 0 是无穷大：
    只要碰上一次，整张卷子的损失就是无穷。加一（拉普拉斯平滑）给每个字对都留一点余地。
    代价是，两千多万个格子绝大多数是空的，每格加一，就把许多机会分给了从不相连的字，
    所以下面写出来的东西比 simplemodel.py 更不成话：那里只在跟过的字里抽。
    平滑不足会考砸，平滑过头会写砸；v1 起不再数数，这个问题就换了样子。
    """

    def __init__(self, vocab_size):
        # 一行是一个字，一列是它后面的一个字：4,543 × 4,543，两千多万格，80 MB
        self.counts = np.zeros((vocab_size, vocab_size), dtype=np.float32)

    def count(self, x, y):
        """x 里的每个字，后面跟着 y 里同一位置的字：各记一次。"""
        # x[b, t] 后面跟着 y[b, t]，这一格加一。一批里同一对可能出现多次，所以用 np.add.at：
        # self.counts[x, y] += 1 会把重复的只算一次
        np.add.at(self.counts, (x, y), 1)

    def forward(self, idx, targets=None):
        """idx 和 targets 是 (B, T) 的编号；返回得分 (B, T, V) 和每字平均损失（nat），没有 targets 时损失是 None。"""
        # 查出每个字那一行。idx 是 (B, T)，每个编号换成一行 V 个数，得 (B, T, V)
        counts = self.counts[idx] + 1  # (B, T, V)
        # 概率的对数。从 v1 起，logits 不再是数出来的，而是算出来的得分，经 softmax 才是概率：取 e 的幂，再除以总和
        logits = np.log(counts / counts.sum(axis=-1, keepdims=True))  # (B, T, V)
        if targets is None:
            return logits, None
        # 交叉熵：取出正确答案的对数概率，变号，求平均。答案的概率是 1，损失是 0；概率越小，损失越大。
        # 损失 5.5 nat 相当于每个字都在 e^5.5 ≈ 245 个字里猜；什么都没学时，在 4,543 个字里猜，是 8.42
        return logits, -np.take_along_axis(logits, targets[..., None], axis=-1).mean()

    def generate(self, idx, max_new_tokens):
        """在 idx (B, T) 后面逐字续写，返回 (B, T + max_new_tokens)。"""
        for _ in range(max_new_tokens):
            # 二元模型其实只用得上最后一个字；把上文都给它，是后面各级的写法
            logits, _ = self.forward(idx)  # (B, T, V)
            # 按概率抽签：把概率首尾相接排成一条线，随机投一个点，落在谁那一段就是谁
            cumulative = np.exp(logits[:, -1]).cumsum(axis=-1)  # (B, V)
            draw = np.random.rand(len(idx), 1) * cumulative[:, -1:]  # (B, 1)
            # 第一个超过投点的位置。argmax 在真假数组上返回第一个真
            next_idx = (cumulative > draw).argmax(axis=-1)  # (B,)
            idx = np.concatenate([idx, next_idx[:, None]], axis=1)  # (B, T+1)
        return idx


def write(model, tokenizer, prompt, max_new_tokens):
    """从 prompt 往下写 max_new_tokens 个字。"""
    idx = np.array([tokenizer.encode(prompt)])  # (1, T)
    idx = model.generate(idx, max_new_tokens)
    return tokenizer.decode(idx[0].tolist())


def main():
    # 从这里起，随机数由种子决定，每次运行的结果都一样
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
        # 第 0 步还没学就考一次：损失应当正好是 ln 4543，这是个好检查
        last = step == max_iters
        if step % eval_interval == 0 or last:
            train_seconds += time.perf_counter() - resumed
            losses = estimate_loss(model, train_data, val_data, eval_iters, batch_size, block_size)
            speed = step * batch_size * block_size / train_seconds
            seconds = time.perf_counter() - started
            # 按到现在为止的快慢，估计还要多久
            left = f'{seconds / step * (max_iters - step):.0f}' if step else '?'
            print(f'第 {step:5d} 步  训练损失 {losses["train"]:.4f}  验证损失 {losses["val"]:.4f}'
                  f'  每秒 {speed:7,.0f} 字  还要 {left:>4} 秒')
            resumed = time.perf_counter()
        if last:
            break
        x, y = get_batch(train_data, batch_size, block_size)  # (B, T)
        # 二元模型的「学一步」就是数一数；从 v1 起，这一行换成梯度下降
        model.count(x, y)

    for prompt in prompts:
        print(f'\n{write(model, tokenizer, prompt, max_new_tokens)}')


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\n已中断。')
