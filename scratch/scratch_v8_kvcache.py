"""没有 PyTorch v8：KV 缓存，算过的不再算

v7 的 generate 每写一个字，都把前面所有的字重算一遍。其实前面的字看不到后面的字，
它们的 key 和 value 一经算出就不再变：存起来（KV 缓存），每步只算新来的一个字，
用它的 query 去对缓存里的 key 和 value。block_size 字以内，结果和重算相同，只是快得多；
写满之后每个字的位置都该变，缓存作废，就用后一半文本重建，接着往下写。

写作不求导，图、梯度、优化器都不要了，Tensor 也就不要了：numpy 的数组就够用。
参数来自 pretrained/model.safetensors，是 PyTorch 训练的 v12。safetensors 文件只是一张写着名字、形状和位置的表，
后面是一串数：读它不像读 pickle，不会运行文件里带的代码；词表和超参数也写在那张表里。

你会看到：不等 PyTorch 装入，一运行就开始写；根目录的采样脚本用的是同样的参数。

运行：python scratch/scratch_v8_kvcache.py
写两首：python scratch/scratch_v8_kvcache.py --prompts 春江 往事 --temperature 0.8 --top_k 50 --top_p 0.95 --seed 1
和上一级对照：git diff --no-index scratch/scratch_v7_fused.py scratch/scratch_v8_kvcache.py
"""

import argparse
import json
import sys
import time
from functools import reduce
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

model_path = Path(__file__).parent.with_name('pretrained') / 'model.safetensors'


def linear(x, weight, bias):
    """x @ weight.T + bias；x 的最后一维和 weight 的最后一维一样宽，bias 可以是 None。"""
    rows = x.reshape(-1, weight.shape[1])
    out = rows @ weight.T
    if bias is not None:
        out += bias
    return out.reshape(*x.shape[:-1], len(weight))


def layer_norm(x, weight, bias, eps):
    """x 的最后一维减去均值，除以标准差，再乘 weight、加 bias（Ba 等 2016，第 3 节）。"""
    normal = x - x.mean(axis=-1, keepdims=True)
    scale = ((normal * normal).mean(axis=-1, keepdims=True) + eps) ** -0.5
    normal *= scale
    return normal * weight + bias


class Module:
    """模型的零件。属性里的数组是它的参数，属性里的 Module 是它的零件；forward 里写怎样从输入算出输出。"""

    def __call__(self, *args, **kwargs):
        return self.forward(*args, **kwargs)

    def named_parameters(self, prefix=''):
        """一对一对给出参数的名字和参数，零件里的也在内；名字是找到它的路，如 lm_head.weight。"""
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                yield prefix + name, value
            elif isinstance(value, Module):
                yield from value.named_parameters(f'{prefix}{name}.')

    def load_state_dict(self, state):
        """装入 {名字: 数组}；名字或形状对不上就引发 ValueError，什么也不装。"""
        parameters = dict(self.named_parameters())
        if parameters.keys() != state.keys():
            raise ValueError(f'参数的名字对不上，只有一边有的：{" ".join(sorted(parameters.keys() ^ state.keys()))}')
        arrays = {name: np.asarray(state[name]).astype(p.dtype) for name, p in parameters.items()}
        for name, p in parameters.items():
            if arrays[name].shape != p.shape:
                raise ValueError(f'{name} 的形状应是 {p.shape}，给的却是 {arrays[name].shape}')
        for name, p in parameters.items():
            p[...] = arrays[name]


class ModuleList(Module):
    """一列零件，名字是 0、1、2……"""

    def __init__(self, modules):
        for i, module in enumerate(modules):
            setattr(self, str(i), module)

    def __iter__(self):
        return (value for value in vars(self).values() if isinstance(value, Module))

    def __len__(self):
        return sum(1 for _ in self)

    def __getitem__(self, i):
        return list(self)[i]


class Sequential(ModuleList):
    """一个接一个地算：前一个的输出是后一个的输入。"""

    def __init__(self, *modules):
        super().__init__(modules)

    def forward(self, x):
        return reduce(lambda x, module: module(x), self, x)


class Linear(Module):
    """线性层：一层权重 weight，一层偏置 bias；bias=False 时没有偏置。"""

    def __init__(self, in_features, out_features, bias=True):
        self.weight = np.empty((out_features, in_features), np.float32)  # 先留出地方，load_state_dict 再装入
        self.bias = np.empty(out_features, np.float32) if bias else None

    def forward(self, x):
        return linear(x, self.weight, self.bias)


class Embedding(Module):
    """一张表，第 i 行是 i 号字的嵌入。"""

    def __init__(self, num_embeddings, embedding_dim):
        self.weight = np.empty((num_embeddings, embedding_dim), np.float32)

    def forward(self, idx):
        return self.weight[idx]


class LayerNorm(Module):
    """归一化：每个位置的数变成均值 0、方差 1，再由 weight 和 bias 定出新的大小。"""

    def __init__(self, size, eps=1e-5):
        self.eps = eps
        self.weight = np.empty(size, np.float32)
        self.bias = np.empty(size, np.float32)

    def forward(self, x):
        return layer_norm(x, self.weight, self.bias, self.eps)


class ReLU(Module):
    """负数变成 0。"""

    def forward(self, x):
        return np.maximum(x, 0)


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


def softmax(x, dim):
    """把 dim 那一维的得分变成概率：都是正数，加起来是 1。"""
    e = np.exp(x - x.max(axis=dim, keepdims=True))
    return e / e.sum(axis=dim, keepdims=True)


def attention(q, k, v, future):
    """每个头里 softmax(q @ k.T / √head_size + future) @ v；q 是 (B, n_head, T, head_size)，k、v 是 (B, n_head, S, head_size)。"""
    scores = (q * q.shape[-1] ** -0.5) @ k.swapaxes(-2, -1) + future  # (B, n_head, T, S)
    return softmax(scores, dim=-1) @ v  # (B, n_head, T, head_size)


def keep_top_k(logits, k):
    """只留得分最高的 k 个（和第 k 个一样高的都留）。"""
    lowest = np.sort(logits, axis=-1)[:, -min(k, logits.shape[-1]), None]  # (B, 1)
    return np.where(logits < lowest, -np.inf, logits)  # (B, V)


def keep_top_p(logits, p):
    """从最可能的往下留，留到概率加起来够 p 为止（Holtzman 等 2020，3.1 节）。"""
    order = (-logits).argsort(axis=-1)  # (B, V)
    probs = softmax(np.take_along_axis(logits, order, axis=-1), dim=-1)  # (B, V)
    enough = probs.cumsum(axis=-1) - probs >= p  # (B, V)
    return np.where(np.take_along_axis(enough, order.argsort(axis=-1), axis=-1), -np.inf, logits)  # (B, V)


class MultiHeadAttention(Module):
    """多头注意力：同样的宽度切成几个头，每头宽 head_size，按自己的 query、key、value 看上文（Vaswani 等 2017，3.2.2 节）。"""

    def __init__(self, n_embd, n_head):
        self.n_head = n_head
        self.query = Linear(n_embd, n_embd, bias=False)
        self.key = Linear(n_embd, n_embd, bias=False)
        self.value = Linear(n_embd, n_embd, bias=False)
        self.proj = Linear(n_embd, n_embd)

    def forward(self, x, cache, start):
        # 前 start 个位置的 key 和 value 已经在缓存里，x 只是新来的 T 个位置，算好了接着往里写；S = start + T
        keys, values = cache  # (B, n_head, block_size, head_size)
        B, T, n_embd = x.shape
        end = start + T
        q = self.query(x).reshape(B, T, self.n_head, -1).swapaxes(1, 2)  # (B, n_head, T, head_size)
        k = self.key(x).reshape(B, T, self.n_head, -1).swapaxes(1, 2)  # (B, n_head, T, head_size)
        v = self.value(x).reshape(B, T, self.n_head, -1).swapaxes(1, 2)  # (B, n_head, T, head_size)
        keys[:, :, start:end] = k
        values[:, :, start:end] = v
        k = keys[:, :, :end]  # (B, n_head, S, head_size)
        v = values[:, :, :end]  # (B, n_head, S, head_size)
        future = np.triu(np.full((T, end), float('-inf'), np.float32), k=start + 1)  # (T, S)
        out = attention(q, k, v, future)  # (B, n_head, T, head_size)
        out = out.swapaxes(1, 2).reshape(B, T, n_embd)  # (B, T, n_embd)
        return self.proj(out)  # (B, T, n_embd)


class FeedForward(Module):
    """前馈网络：每个位置单独加工取来的信息，先放宽到 4 倍，ReLU 之后再收回来。"""

    def __init__(self, n_embd):
        self.net = Sequential(
            Linear(n_embd, 4 * n_embd),
            ReLU(),
            Linear(4 * n_embd, n_embd),
        )

    def forward(self, x):
        return self.net(x)  # (B, T, n_embd)


class Block(Module):
    """一层：先用注意力互相交流，再用前馈网络各自加工。"""

    def __init__(self, n_embd, n_head):
        self.sa = MultiHeadAttention(n_embd, n_head)
        self.ffwd = FeedForward(n_embd)
        self.ln1 = LayerNorm(n_embd)
        self.ln2 = LayerNorm(n_embd)

    def forward(self, x, cache, start):
        x = x + self.sa(self.ln1(x), cache, start)  # (B, T, n_embd)
        x = x + self.ffwd(self.ln2(x))  # (B, T, n_embd)
        return x


class BabyGPT(Module):
    """从每个位置的字算出下一个字的得分；反复取下一个字，就是写作。"""

    def __init__(self, vocab_size, block_size, n_embd, n_head, n_layer):
        self.block_size = block_size
        self.token_embedding_table = Embedding(vocab_size, n_embd)
        self.position_embedding_table = Embedding(block_size, n_embd)
        self.blocks = Sequential(*[Block(n_embd, n_head) for _ in range(n_layer)])
        self.ln_f = LayerNorm(n_embd)
        self.lm_head = Linear(n_embd, vocab_size)
        self.cache_shape = (n_head, block_size, n_embd // n_head)

    def empty_cache(self, batch_size):
        """每层一份缓存：给 key 和 value 各留出 block_size 个位置，算出来再往里写。"""
        shape = (batch_size, *self.cache_shape)
        return [(np.empty(shape, np.float32), np.empty(shape, np.float32)) for _ in self.blocks]

    def forward(self, idx, cache, start):
        """idx (B, T) 是排在缓存里 start 个字后面的字；把它们也写进缓存，返回它们的得分 (B, T, V)。"""
        x = self.token_embedding_table(idx)  # (B, T, n_embd)
        positions = np.arange(start, start + idx.shape[1])  # (T,)
        x = x + self.position_embedding_table(positions)  # (B, T, n_embd)
        for block, block_cache in zip(self.blocks, cache):
            x = block(x, block_cache, start)  # (B, T, n_embd)
        x = self.ln_f(x)  # (B, T, n_embd)
        return self.lm_head(x)  # (B, T, V)

    def generate(self, idx, max_new_tokens, temperature=1.0, top_k=None, top_p=None):
        """逐字续写 idx (B, T)：写出一个，就交出一个 (B,)。"""
        cache, start = self.empty_cache(len(idx)), 0
        unseen = idx[:, -self.block_size:]  # (B, T)
        for _ in range(max_new_tokens):
            if start + unseen.shape[1] > self.block_size:  # 写满了：留后一半文本，从头重建缓存
                start, unseen = 0, idx[:, -self.block_size // 2:]
            logits = self(unseen, cache, start)  # (B, T, V)
            start += unseen.shape[1]
            logits = logits[:, -1] / temperature  # (B, V)
            if top_k is not None:
                logits = keep_top_k(logits, top_k)
            if top_p is not None:
                logits = keep_top_p(logits, top_p)
            probs = softmax(logits, dim=-1)  # (B, V)
            cumulative = probs.cumsum(axis=-1)  # (B, V)
            draw = np.random.rand(len(idx), 1) * cumulative[:, -1:]  # (B, 1)
            next_idx = (cumulative > draw).argmax(axis=-1)  # (B,)
            idx = np.concatenate([idx, next_idx[:, None]], axis=1)  # (B, T+1)
            yield next_idx
            unseen = next_idx[:, None]


def load_model(path):
    """读出模型和分词器；读不出来就说明原因并退出。"""
    again = '用 git checkout pretrained 找回，或者用 python tools/export_safetensors.py 从 v12 存的 model.pth 转一个。'
    try:
        with safe_open(path, framework='np') as file:
            metadata, state = file.metadata() or {}, {name: file.get_tensor(name) for name in file.offset_keys()}
    except FileNotFoundError:
        sys.exit(f'找不到 {path}：{again}')
    except OSError as error:
        sys.exit(f'读不了 {path}（{error.strerror or error}）。')
    except SafetensorError:
        sys.exit(f'{path} 残缺，或者根本不是 safetensors 文件：{again}')
    try:
        tokenizer = Tokenizer(metadata['vocabulary'])
        hyper_params = json.loads(metadata['hyper_params'])
        hyper_params.pop('dropout', None)  # 只在训练时用
        model = BabyGPT(tokenizer.vocab_size, **hyper_params)
        model.load_state_dict(state)
    except KeyError as part:
        sys.exit(f'{path} 的元数据里没有 {part}，建不起模型：{again}')
    except Exception as error:  # 错在不同的地方，报的错就不同
        raise SystemExit(f'{path} 里的参数、超参数和词表对不上（{error}）：{again}') from error
    return model, tokenizer


def write(model, tokenizer, prompt, args):
    """从 prompt 往下写 num_samples 首，写一个字打印一个字，每首最后报告速度。"""
    idx = np.array([tokenizer.encode(prompt)])  # (1, T)
    for _ in range(args.num_samples):
        print(prompt, end='', flush=True)
        started = time.perf_counter()
        for next_idx in model.generate(idx, args.max_new_tokens, args.temperature, args.top_k, args.top_p):
            print(tokenizer.decode(next_idx.tolist()), end='', flush=True)
        speed = args.max_new_tokens / (time.perf_counter() - started)
        print(f'\n（{args.max_new_tokens} 字，每秒 {speed:,.0f} 字）\n')


def parse_args():
    parser = argparse.ArgumentParser(
        usage='%(prog)s [--名称 值 ...]', description='用训练好的模型写词，不用 PyTorch。', add_help=False, allow_abbrev=False)
    group = parser.add_argument_group('选项')
    group.add_argument('--prompts', nargs='+', default=[], metavar='文字', help='从这些字开始续写，一个一首；不给就逐次询问')
    group.add_argument('--num_samples', type=int, default=1, metavar='值', help='同一个开头写几首（默认 1）')
    group.add_argument('--max_new_tokens', type=int, default=200, metavar='值', help='每首续写多少个字（默认 200）')
    group.add_argument('--temperature', type=float, default=1.0, metavar='值', help='小于 1 更稳，大于 1 更出人意料（默认 1.0）')
    group.add_argument('--top_k', type=int, metavar='值', help='只在得分最高的几个字里抽（默认不限）')
    group.add_argument('--top_p', type=float, metavar='值', help='只在最可能的、概率加起来够这么多的字里抽（默认不限）')
    group.add_argument('--seed', type=int, metavar='值', help='随机种子：种子相同，写的相同（默认每次不同）')
    group.add_argument('--model', type=Path, default=model_path, metavar='文件', help='用这个模型（默认 pretrained/model.safetensors）')
    group.add_argument('-h', '--help', action='help', help='显示这段说明')
    args = parser.parse_args()
    for name in ['num_samples', 'max_new_tokens', 'top_k']:
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f'--{name} 必须大于 0')
    if args.top_p is not None and not 0 < args.top_p <= 1:
        parser.error('--top_p 必须大于 0，不大于 1')
    if not 0.01 <= args.temperature <= 100:
        parser.error('--temperature 必须在 0.01 和 100 之间')
    if args.seed is not None and not 0 <= args.seed < 2 ** 32:
        parser.error('--seed 必须在 0 和 2^32 之间')
    if '' in args.prompts:
        parser.error('--prompts 里不能有空的')
    return args


def main():
    args = parse_args()
    model, tokenizer = load_model(args.model)
    if args.seed is not None:
        np.random.seed(args.seed)
    if args.prompts:
        try:
            for prompt in args.prompts:
                write(model, tokenizer, prompt, args)
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
