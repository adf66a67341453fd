"""用训练好的模型写词：KV 缓存，算过的不再算

v12 的 generate 每写一个字，都把前面所有的字重算一遍。其实前面的字看不到后面的字，
它们的 key 和 value 一经算出就不再变：存起来（KV 缓存），每步只算新来的一个字，
用它的 query 去对缓存里的 key 和 value。block_size 字以内，结果和重算相同，只是快得多。

文本写满 block_size 之后，每个字的位置编号都该变，缓存作废（学出来的绝对位置不能平移）：
就用后一半文本重建缓存，接着往下写，所以从这里起和 v12 写的不同。

运行（读 v12 存下的 model.pth；还没有，就用 pretrained/ 里训练好的）：python babygpt_sample_with_kvcache.py
一次写三首：python babygpt_sample_with_kvcache.py --prompt 春江 --num_samples 3 --temperature 0.8 --top_k 50
和上一级对照：git diff --no-index babygpt_v12_wandb.py babygpt_sample_with_kvcache.py
"""

import argparse
import io
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else 'cpu'
model_path = Path(__file__).with_name('model.pth')
pretrained_path = model_path.with_name('pretrained') / 'model.pth'


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


class MultiHeadAttention(nn.Module):
    """多头注意力：同样的宽度切成几个头，每头宽 head_size，按自己的 query、key、value 看上文（Vaswani 等 2017，3.2.2 节）。"""

    def __init__(self, block_size, n_embd, n_head):
        super().__init__()
        self.n_head = n_head
        self.query = nn.Linear(n_embd, n_embd, bias=False)
        self.key = nn.Linear(n_embd, n_embd, bias=False)
        self.value = nn.Linear(n_embd, n_embd, bias=False)
        self.proj = nn.Linear(n_embd, n_embd)
        future = torch.full((block_size, block_size), float('-inf')).triu(diagonal=1)
        self.register_buffer('future', future, persistent=False)  # 第 t 行里，t 之后的位置是 -inf，其余是 0

    def forward(self, x, cache, start):
        # 前 start 个位置的 key 和 value 已经在缓存里，x 只是新来的 T 个位置，算好了接着往里写；S = start + T
        keys, values = cache  # (B, n_head, block_size, head_size)
        end = start + x.size(1)
        q = self.query(x).unflatten(2, (self.n_head, -1)).transpose(1, 2)  # (B, n_head, T, head_size)
        k = self.key(x).unflatten(2, (self.n_head, -1)).transpose(1, 2)  # (B, n_head, T, head_size)
        v = self.value(x).unflatten(2, (self.n_head, -1)).transpose(1, 2)  # (B, n_head, T, head_size)
        keys[:, :, start:end] = k
        values[:, :, start:end] = v
        k = keys[:, :, :end]  # (B, n_head, S, head_size)
        v = values[:, :, :end]  # (B, n_head, S, head_size)
        # 点积的方差随维数增长，除以维数的平方根，softmax 才不会一开始就饱和
        scores = (q * k.size(-1) ** -0.5) @ k.transpose(-2, -1)  # (B, n_head, T, S)
        scores = scores + self.future[start:end, :end]  # (B, n_head, T, S)
        weights = F.softmax(scores, dim=-1)  # (B, n_head, T, S)
        out = weights @ v  # (B, n_head, T, head_size)
        out = out.transpose(1, 2).flatten(2)  # (B, T, n_embd)
        return self.proj(out)  # (B, T, n_embd)


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
        self.ln1 = nn.LayerNorm(n_embd)
        self.ln2 = nn.LayerNorm(n_embd)

    def forward(self, x, cache, start):
        x = x + self.sa(self.ln1(x), cache, start)  # (B, T, n_embd)
        x = x + self.ffwd(self.ln2(x))  # (B, T, n_embd)
        return x


class BabyGPT(nn.Module):
    """从每个位置的字算出下一个字的得分；反复取下一个字，就是写作。"""

    def __init__(self, vocab_size, block_size, n_embd, n_head, n_layer):
        super().__init__()
        self.block_size = block_size
        self.token_embedding_table = nn.Embedding(vocab_size, n_embd)
        self.position_embedding_table = nn.Embedding(block_size, n_embd)
        self.blocks = nn.Sequential(*[Block(block_size, n_embd, n_head) for _ in range(n_layer)])
        self.ln_f = nn.LayerNorm(n_embd)
        self.lm_head = nn.Linear(n_embd, vocab_size)
        self.cache_shape = (n_head, block_size, n_embd // n_head)

    def empty_cache(self, batch_size):
        """每层一份缓存：给 key 和 value 各留出 block_size 个位置，和参数在同一个设备上，算出来再往里写。"""
        shape, weight = (batch_size, *self.cache_shape), self.lm_head.weight
        return [(weight.new_empty(shape), weight.new_empty(shape)) for _ in self.blocks]

    def forward(self, idx, cache, start):
        """idx (B, T) 是排在缓存里 start 个字后面的字；把它们也写进缓存，返回它们的得分 (B, T, V)。"""
        x = self.token_embedding_table(idx)  # (B, T, n_embd)
        positions = torch.arange(start, start + idx.size(1), device=idx.device)  # (T,)
        x = x + self.position_embedding_table(positions)  # (B, T, n_embd)
        for block, block_cache in zip(self.blocks, cache):
            x = block(x, block_cache, start)  # (B, T, n_embd)
        x = self.ln_f(x)  # (B, T, n_embd)
        return self.lm_head(x)  # (B, T, V)

    @torch.inference_mode()
    def generate(self, idx, max_new_tokens, temperature=1.0, top_k=None):
        """逐字续写 idx (B, T)：写出一个，就交出一个 (B, 1)。"""
        cache, start = self.empty_cache(idx.size(0)), 0
        unseen = idx[:, -self.block_size:]  # (B, T)
        for _ in range(max_new_tokens):
            if start + unseen.size(1) > self.block_size:  # 写满了：留后一半文本，从头重建缓存
                start, unseen = 0, idx[:, -self.block_size // 2:]
            logits = self(unseen, cache, start)  # (B, T, V)
            start += unseen.size(1)
            logits = logits[:, -1] / temperature  # (B, V)
            if top_k is not None:
                lowest = logits.topk(min(top_k, logits.size(-1))).values[:, -1:]  # (B, 1)
                logits = logits.masked_fill(logits < lowest, float('-inf'))  # (B, V)
            probs = F.softmax(logits, dim=-1)  # (B, V)
            next_idx = torch.multinomial(probs, num_samples=1)  # (B, 1)
            idx = torch.cat([idx, next_idx], dim=1)  # (B, T+1)
            yield next_idx
            unseen = next_idx


def load_model():
    """读出 v12 存下的模型和分词器，没有就用训练好的那一个；读不出来就说明原因并退出。"""
    path = model_path
    if not path.exists():
        print('没有 model.pth，先用训练好的 pretrained/model.pth；想用自己的，运行 python babygpt_v12_wandb.py。\n')
        path = pretrained_path
    retrain = '请重新运行 python babygpt_v12_wandb.py。'
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        sys.exit(f'也找不到 {path}：用 git checkout pretrained 找回，或者运行 python babygpt_v12_wandb.py 训练一个。')
    except OSError as error:
        sys.exit(f'读不了 {path}（{error.strerror}）。')
    try:
        checkpoint = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except Exception as error:  # 坏在不同的地方，torch 报的错就不同
        raise SystemExit(f'{path} 残缺，或者根本不是模型：{retrain}') from error
    try:
        tokenizer = Tokenizer(checkpoint['vocabulary'])
        hyper_params = checkpoint['hyper_params']
        hyper_params.pop('dropout')  # 只在训练时用
        model = BabyGPT(tokenizer.vocab_size, **hyper_params).to(device)
        model.load_state_dict(checkpoint['model'])
    except KeyError as part:
        sys.exit(f'{path} 里没有 {part}，不是 v12 存的模型：{retrain}')
    except Exception as error:
        reason = str(error).split('\n')[-1].strip()  # 几行里的最后一行说的是哪个参数
        raise SystemExit(f'{path} 里的权重、超参数和词表对不上（{reason}）：{retrain}') from error
    return model, tokenizer


def write(model, tokenizer, prompt, args):
    """从 prompt 往下写 num_samples 首，写一个字打印一个字，每首最后报告速度。"""
    idx = torch.tensor([tokenizer.encode(prompt)], device=device)  # (1, T)
    for _ in range(args.num_samples):
        print(prompt, end='', flush=True)
        started = time.perf_counter()
        for next_idx in model.generate(idx, args.max_new_tokens, args.temperature, args.top_k):
            print(tokenizer.decode(next_idx[0].tolist()), end='', flush=True)
        speed = args.max_new_tokens / (time.perf_counter() - started)
        print(f'\n（{args.max_new_tokens} 字，每秒 {speed:,.0f} 字）\n')


def parse_args():
    parser = argparse.ArgumentParser(
        usage='%(prog)s [--名称 值 ...]', description='用 v12 训练好的模型写词。', add_help=False, allow_abbrev=False)
    group = parser.add_argument_group('选项')
    group.add_argument('--prompt', metavar='文字', help='从这些字开始续写；不给就逐次询问')
    group.add_argument('--num_samples', type=int, default=1, metavar='值', help='同一个开头写几首（默认 1）')
    group.add_argument('--max_new_tokens', type=int, default=200, metavar='值', help='每首续写多少个字（默认 200）')
    group.add_argument('--temperature', type=float, default=1.0, metavar='值', help='小于 1 更稳，大于 1 更出人意料（默认 1.0）')
    group.add_argument('--top_k', type=int, metavar='值', help='只在得分最高的几个字里抽（默认不限）')
    group.add_argument('--seed', type=int, metavar='值', help='随机种子：种子相同，写的相同（默认每次不同）')
    group.add_argument('-h', '--help', action='help', help='显示这段说明')
    args = parser.parse_args()
    for name in ['num_samples', 'max_new_tokens', 'top_k']:
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f'--{name} 必须大于 0')
    if args.seed is not None and not 0 <= args.seed < 2 ** 63:
        parser.error('--seed 必须在 0 和 2^63 之间')
    if args.prompt == '':
        parser.error('--prompt 不能是空的')
    if not 0.01 <= args.temperature <= 100:
        parser.error('--temperature 必须在 0.01 和 100 之间')
    return args


def main():
    args = parse_args()
    model, tokenizer = load_model()
    if args.seed is not None:
        torch.manual_seed(args.seed)
    if args.prompt is not None:
        try:
            write(model, tokenizer, args.prompt, args)
        except ValueError as error:
            sys.exit(str(error))
        return
    while prompt := input('开头几个字（直接回车结束）：'):
        try:
            write(model, tokenizer, prompt, args)
        except ValueError as error:
            print(f'{error}，换几个字再试。')


if __name__ == '__main__':
    try:
        main()
    except (KeyboardInterrupt, EOFError):
        print()
