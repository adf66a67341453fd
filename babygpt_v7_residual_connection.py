"""BabyGPT v7：残差连接，x + f(x)

每个子层不再取代它的输入，而是在输入上添一点东西：x 变成 x + f(x)。这样的 x 是一条直通到底的主路（残差流，residual stream）。
加法的导数是 1，梯度沿着这条直路一直通到最底层，不随深度衰减（He 等 2016，Identity Mappings in Deep Residual Networks，第 2 节）；
子层还没学好时，添上的东西再乱，原来的信息也还留在 x 里。

你会看到：两行改动，验证损失从 v6 的 6.20 降到约 4.95，也低于此前的每一级。

运行（约 35 秒）：python babygpt_v7_residual_connection.py
和上一级对照：git diff --no-index babygpt_v6_block.py babygpt_v7_residual_connection.py
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
n_head = 4  # 注意力分成几个头
n_layer = 3  # 叠几层 Block
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


class MultiHeadAttention(nn.Module):
    """多头注意力：同样的宽度切成几个头，每头宽 head_size，按自己的 query、key、value 看上文（Vaswani 等 2017，3.2.2 节）。"""

    def __init__(self, block_size, n_embd, n_head):
        super().__init__()
        self.n_head = n_head
        self.query = nn.Linear(n_embd, n_embd, bias=False)
        self.key = nn.Linear(n_embd, n_embd, bias=False)
        self.value = nn.Linear(n_embd, n_embd, bias=False)
        future = torch.full((block_size, block_size), float('-inf')).triu(diagonal=1)
        self.register_buffer('future', future, persistent=False)  # 第 t 行里，t 之后的位置是 -inf，其余是 0

    def forward(self, x):
        T = x.size(1)
        q = self.query(x).unflatten(2, (self.n_head, -1)).transpose(1, 2)  # (B, n_head, T, head_size)
        k = self.key(x).unflatten(2, (self.n_head, -1)).transpose(1, 2)  # (B, n_head, T, head_size)
        v = self.value(x).unflatten(2, (self.n_head, -1)).transpose(1, 2)  # (B, n_head, T, head_size)
        # 点积的方差随维数增长，除以维数的平方根，softmax 才不会一开始就饱和
        scores = (q * k.size(-1) ** -0.5) @ k.transpose(-2, -1)  # (B, n_head, T, T)
        scores = scores + self.future[:T, :T]  # (B, n_head, T, T)
        weights = F.softmax(scores, dim=-1)  # (B, n_head, T, T)
        out = weights @ v  # (B, n_head, T, head_size)
        return out.transpose(1, 2).flatten(2)  # (B, T, n_embd)


class FeedForward(nn.Module):
    """前馈网络：每个位置单独加工取来的信息，先放宽到 4 倍，ReLU 之后再收回来。"""

    def __init__(self, n_embd):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(n_embd, 4 * n_embd),
            nn.ReLU(),
            nn.Linear(4 * n_embd, n_embd),
        )

    def forward(self, x):
        return self.net(x)  # (B, T, n_embd)


class Block(nn.Module):
    """一层：先用注意力互相交流，再用前馈网络各自加工。"""

    def __init__(self, block_size, n_embd, n_head):
        super().__init__()
        self.sa = MultiHeadAttention(block_size, n_embd, n_head)
        self.ffwd = FeedForward(n_embd)

    def forward(self, x):
        x = x + self.sa(x)  # (B, T, n_embd)
        x = x + self.ffwd(x)  # (B, T, n_embd)
        return x


class BabyGPT(nn.Module):
    """从每个位置的字算出下一个字的得分；反复取下一个字，就是写作。"""

    def __init__(self, vocab_size, block_size, n_embd, n_head, n_layer):
        super().__init__()
        self.block_size = block_size
        self.token_embedding_table = nn.Embedding(vocab_size, n_embd)
        self.position_embedding_table = nn.Embedding(block_size, n_embd)
        self.blocks = nn.Sequential(*[Block(block_size, n_embd, n_head) for _ in range(n_layer)])
        self.lm_head = nn.Linear(n_embd, vocab_size)

    def forward(self, idx, targets=None):
        """idx 和 targets 是 (B, T) 的编号；返回得分 (B, T, V) 和每字平均损失（nat），没有 targets 时损失是 None。"""
        x = self.token_embedding_table(idx)  # (B, T, n_embd)
        positions = torch.arange(idx.size(1), device=idx.device)  # (T,)
        x = x + self.position_embedding_table(positions)  # (B, T, n_embd)
        x = self.blocks(x)  # (B, T, n_embd)
        logits = self.lm_head(x)  # (B, T, V)
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    @torch.no_grad()
    def generate(self, idx, max_new_tokens):
        """在 idx (B, T) 后面逐字续写，返回 (B, T + max_new_tokens)。"""
        for _ in range(max_new_tokens):
            logits, _ = self(idx[:, -self.block_size:])  # (B, T, V)
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

    model = BabyGPT(tokenizer.vocab_size, block_size, n_embd, n_head, n_layer).to(device)
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
