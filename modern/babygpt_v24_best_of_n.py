"""BabyGPT v24：写几首，留下最合句式的一首

一首词合不合句式，程序自己就数得出来：一个词牌，每句几个字是定好的，训练集里至少有两首的各句字数正是这样，就算合。
把它变成一个分数，叫奖励（reward）：写完了，句式也合，是 1；不合，看从头数起连着对了几句，最多 0.5。

有了奖励，不用再训练，就能让模型写得更好：从同一个词牌写 n 首，算出各首的奖励，留下最高的一首（best of n）。
每首合句式的机会是 p，n 首里至少有一首合的机会就是 1 - (1 - p)^n：p 是一半的时候，8 首就有 99.6 %。
代价是写 n 倍的字。以后两级把这个代价变成训练：模型向自己写得好的学，往后写一首就够。

你会看到：带着的模型写四十个词牌，一首就合句式的占 54 %；十首里留一首，留下的合句式的占 91 %（有的词牌难，p 小，不如上面算的多）。

运行（读 modern/ 里的 model.pth；还没有，就用 pretrained/ 里训练好的）：python modern/babygpt_v24_best_of_n.py --tune 浣溪沙
每个词牌写十六首：python modern/babygpt_v24_best_of_n.py --tune 鹊桥仙 水调歌头 --num_samples 16
和采样对照：git diff --no-index modern/babygpt_sample.py modern/babygpt_v24_best_of_n.py
"""

import argparse
import io
import re
import sys
from collections import Counter
from itertools import takewhile
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else 'cpu'

data_path = Path(__file__).parent.with_name('ci.txt')
model_path = Path(__file__).with_name('model.pth')
pretrained_path = data_path.with_name('pretrained') / 'model_v20.pth'
train_ratio = 0.9  # 前面多大比例的词是训练集，句式只从里面数


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


class RMSNorm(nn.Module):
    """把每个位置的数除以它们的均方根：只管大小，不减均值，也没有偏置（Zhang、Sennrich 2019，第 4 节）。"""

    def __init__(self, n_embd):
        super().__init__()
        self.eps = 1e-6  # 全是 0 时也不除以 0
        self.weight = nn.Parameter(torch.ones(n_embd))

    def forward(self, x):
        scale = torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.eps)  # (B, T, 1)
        return self.weight * (x * scale)  # (B, T, n_embd)


def rotary(positions, head_size, base=10000.0):
    """这些位置 (T,) 上，每一对数该转的角度的余弦和正弦：第 t 个位置转 t 份，各对快慢不同（Su 等 2021，3.4.2 节）。"""
    speeds = base ** (-torch.arange(0, head_size, 2, device=positions.device) / head_size)  # (half,)
    angles = positions[:, None] * speeds  # (T, half)
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    """前一半的每个数和后一半的对应的数是平面上的一点 (x1, x2)，按它的位置转一个角度。"""
    x1, x2 = x.chunk(2, dim=-1)  # (B, n_head, T, half)
    return torch.cat([x1 * cos - x2 * sin, x2 * cos + x1 * sin], dim=-1)  # (B, n_head, T, head_size)


class MultiHeadAttention(nn.Module):
    """多头注意力：同样的宽度切成几个头，每头宽 head_size，按自己的 query、key、value 看上文（Vaswani 等 2017，3.2.2 节）。"""

    def __init__(self, n_embd, n_head, n_kv_head):
        super().__init__()
        self.n_head, self.n_kv_head, head_size = n_head, n_kv_head, n_embd // n_head
        self.query = nn.Linear(n_embd, n_embd, bias=False)
        self.key = nn.Linear(n_embd, n_kv_head * head_size, bias=False)
        self.value = nn.Linear(n_embd, n_kv_head * head_size, bias=False)
        self.proj = nn.Linear(n_embd, n_embd, bias=False)
        self.q_norm = RMSNorm(head_size)
        self.k_norm = RMSNorm(head_size)

    def forward(self, x, cache, columns, cos, sin, mask):
        # x 是新来的 T 个字，它们的 key 和 value 写进缓存的 columns 这几格；S 是缓存里用到的格数，G 是几个 query 头一组，Q = G × T
        keys, values = cache  # (B, n_kv_head, block_size, head_size)
        T, S = mask.shape[-2:]
        q = self.query(x).unflatten(2, (self.n_head, -1)).transpose(1, 2)  # (B, n_head, T, head_size)
        k = self.key(x).unflatten(2, (self.n_kv_head, -1)).transpose(1, 2)  # (B, n_kv_head, T, head_size)
        v = self.value(x).unflatten(2, (self.n_kv_head, -1)).transpose(1, 2)  # (B, n_kv_head, T, head_size)
        keys[:, :, columns] = rotate(self.k_norm(k), cos, sin)
        values[:, :, columns] = v
        k, v = keys[:, :, :S], values[:, :, :S]  # (B, n_kv_head, S, head_size)
        # 一组的几个 query 头排成一列，一起和它们共用的 key 头相乘：缓存不用复制
        q = rotate(self.q_norm(q), cos, sin).unflatten(1, (self.n_kv_head, -1)).flatten(2, 3)  # (B, n_kv_head, Q, head_size)
        # 点积的方差随维数增长，除以维数的平方根，softmax 才不会一开始就饱和
        scores = (q * k.size(-1) ** -0.5) @ k.transpose(-2, -1)  # (B, n_kv_head, Q, S)
        scores = scores.unflatten(2, (-1, T)) + mask  # (B, n_kv_head, G, T, S)
        weights = F.softmax(scores, dim=-1)  # (B, n_kv_head, G, T, S)
        out = weights.flatten(2, 3) @ v  # (B, n_kv_head, Q, head_size)
        out = out.unflatten(2, (-1, T)).flatten(1, 2)  # (B, n_head, T, head_size)
        out = out.transpose(1, 2).flatten(2)  # (B, T, n_embd)
        return self.proj(out)  # (B, T, n_embd)


class FeedForward(nn.Module):
    """前馈网络：每个位置单独加工取来的信息，先放宽到 8/3 倍，一半当闸门，开多大由它定（SwiGLU，Shazeer 2020，第 2 节）。"""

    def __init__(self, n_embd):
        super().__init__()
        hidden = 8 * n_embd // 3  # 三个矩阵，合起来和原来的两个 4 倍宽的一样大
        self.gate = nn.Linear(n_embd, hidden, bias=False)
        self.up = nn.Linear(n_embd, hidden, bias=False)
        self.down = nn.Linear(hidden, n_embd, bias=False)

    def forward(self, x):
        x = F.silu(self.gate(x)) * self.up(x)  # (B, T, hidden)
        return self.down(x)  # (B, T, n_embd)


class Block(nn.Module):
    """一层：先用注意力互相交流，再用前馈网络各自加工。"""

    def __init__(self, n_embd, n_head, n_kv_head):
        super().__init__()
        self.sa = MultiHeadAttention(n_embd, n_head, n_kv_head)
        self.ffwd = FeedForward(n_embd)
        self.ln1 = RMSNorm(n_embd)
        self.ln2 = RMSNorm(n_embd)

    def forward(self, x, cache, columns, cos, sin, mask):
        x = x + self.sa(self.ln1(x), cache, columns, cos, sin, mask)  # (B, T, n_embd)
        x = x + self.ffwd(self.ln2(x))  # (B, T, n_embd)
        return x


class BabyGPT(nn.Module):
    """从每个位置的字算出下一个字的得分；反复取下一个字，就是写作。"""

    def __init__(self, vocab_size, block_size, n_embd, n_head, n_kv_head, n_layer):
        super().__init__()
        self.block_size, self.head_size = block_size, n_embd // n_head
        self.token_embedding_table = nn.Embedding(vocab_size, n_embd)
        self.blocks = nn.Sequential(*[Block(n_embd, n_head, n_kv_head) for _ in range(n_layer)])
        self.ln_f = RMSNorm(n_embd)
        self.lm_head = nn.Linear(n_embd, vocab_size, bias=False)
        self.token_embedding_table.weight = self.lm_head.weight  # 同一个矩阵：读进来和写出去，一个字都是同样的 n_embd 个数

        self.cache_shape = (n_kv_head, block_size, n_embd // n_head)

    def empty_cache(self, batch_size):
        """每层一份缓存：给 key 和 value 各留出 block_size 格，和参数在同一个设备上，算出来再往里写。"""
        shape, weight = (batch_size, *self.cache_shape), self.lm_head.weight
        return [(weight.new_empty(shape), weight.new_empty(shape)) for _ in self.blocks]

    def forward(self, idx, cache, start, padding):
        """idx (B, T) 接在 start 个字后面；把它们也写进缓存，返回它们的得分 (B, T, V)。

        padding (B, block_size) 说缓存的哪几格是填充。写满 block_size 格之后，一次只能来一个字。
        """
        T = idx.size(1)
        positions = torch.arange(start, start + T, device=idx.device)  # (T,)
        columns = positions % self.block_size  # (T,)
        S = min(start + T, self.block_size)
        # 看不到的有两种：后面的字；还有填充，不过填充自己什么都看，不然它的 softmax 里全是 -inf
        hidden = torch.arange(S, device=idx.device) > positions[:, None]  # (T, S)
        hidden = hidden | padding[:, None, :S] & ~padding[:, columns, None]  # (B, T, S)
        x = self.token_embedding_table(idx)  # (B, T, n_embd)
        mask = x.new_zeros(hidden.shape).masked_fill(hidden, float('-inf'))[:, None, None]  # (B, 1, 1, T, S)
        cos, sin = rotary(positions, self.head_size)  # (T, half)
        for block, block_cache in zip(self.blocks, cache):
            x = block(x, block_cache, columns, cos, sin, mask)  # (B, T, n_embd)
        x = self.ln_f(x)  # (B, T, n_embd)
        return self.lm_head(x)  # (B, T, V)

    @torch.inference_mode()
    def generate(self, idx, max_new_tokens, padding=None, **options):
        """逐字续写 idx (B, T)：写出一个，就交出一个 (B, 1)。padding (B, T) 说哪些是左边的填充；options 见 pick。"""
        idx = idx[:, -self.block_size:]  # (B, T)
        held = torch.zeros(len(idx), self.block_size, dtype=torch.bool, device=idx.device)  # (B, block_size)
        if padding is not None:
            held[:, :idx.size(1)] = padding[:, -self.block_size:]
        seen = torch.zeros(len(idx), self.lm_head.out_features, dtype=torch.bool, device=idx.device)  # (B, V)
        seen.scatter_(1, idx, True)
        cache, start = self.empty_cache(len(idx)), 0
        for _ in range(max_new_tokens):
            logits = self(idx, cache, start, held)[:, -1]  # (B, V)
            start += idx.size(1)
            held[:, start % self.block_size] = False  # 轮到下一个字的那一格，不再是填充
            idx = pick(logits, seen, **options)  # (B, 1)
            seen.scatter_(1, idx, True)
            yield idx


def penalize_repetition(logits, seen, penalty):
    """已经出现过的字（seen）降低得分：正的除以 penalty，负的乘 penalty（Keskar 等 2019，4.1 节）。"""
    lowered = torch.where(logits > 0, logits / penalty, logits * penalty)  # (B, V)
    return torch.where(seen, lowered, logits)  # (B, V)


def keep_top_k(logits, k):
    """只留得分最高的 k 个（和第 k 个一样高的都留）。"""
    lowest = logits.topk(min(k, logits.size(-1))).values[:, -1:]  # (B, 1)
    return logits.masked_fill(logits < lowest, float('-inf'))  # (B, V)


def keep_top_p(logits, p):
    """从最可能的往下留，留到概率加起来够 p 为止（Holtzman 等 2020，3.1 节）。"""
    probs, order = F.softmax(logits, dim=-1).sort(descending=True)  # (B, V)
    enough = probs.cumsum(dim=-1) - probs >= p  # (B, V)
    return logits.masked_fill(enough.gather(1, order.argsort(dim=-1)), float('-inf'))  # (B, V)


def keep_min_p(logits, p):
    """只留概率不低于最高者 p 倍的（Nguyen 等 2024，第 3 节）。"""
    probs = F.softmax(logits, dim=-1)  # (B, V)
    return logits.masked_fill(probs < p * probs.amax(dim=-1, keepdim=True), float('-inf'))  # (B, V)


def pick(logits, seen, temperature=1.0, top_k=None, top_p=None, min_p=None, repetition_penalty=1.0):
    """从得分 (B, V) 里挑出下一个字 (B, 1)：先改得分，再一层一层筛，最后按剩下的概率抽。"""
    if repetition_penalty != 1:
        logits = penalize_repetition(logits, seen, repetition_penalty)
    logits = logits / temperature  # (B, V)
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if top_p is not None:
        logits = keep_top_p(logits, top_p)
    if min_p is not None:
        logits = keep_min_p(logits, min_p)
    # 概率一段接一段排成一条线，在线上随机点一点，落在谁那一段就是谁：只要一个随机数，torch.multinomial 给每个字都抽一个
    cumulative = F.softmax(logits, dim=-1).cumsum(dim=-1)  # (B, V)
    draw = 1 - torch.rand(len(logits), 1, device=logits.device)  # (B, 1)
    return torch.searchsorted(cumulative, draw * cumulative[:, -1:])  # (B, 1)


def load_model(path):
    """读出 v20 存下的模型和分词器；读不出来，或者是别的结构的模型，就说明原因并退出。"""
    retrain = '请重新运行 python modern/babygpt_v20_tied_embedding.py。'
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        sys.exit(f'找不到 {path}：运行 python modern/babygpt_v20_tied_embedding.py 训练一个，或者用 git checkout pretrained 找回。')
    except OSError as error:
        sys.exit(f'读不了 {path}（{error.strerror}）。')
    try:
        checkpoint = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except Exception as error:  # 坏在不同的地方，torch 报的错就不同
        raise SystemExit(f'{path} 残缺，或者根本不是模型：{retrain}') from error
    if not isinstance(checkpoint, dict) or 'model' not in checkpoint:
        sys.exit(f'{path} 里没有模型的参数，不是 v20 存的：{retrain}')
    rung = checkpoint.get('rung', '根目录的 v12')
    if not re.fullmatch(r'babygpt_v2\d_\w+', rung):
        sys.exit(f'{path} 是 {rung} 存的，结构和 v20 不同，这里读不了：{retrain}')
    try:
        tokenizer = Tokenizer(checkpoint['vocabulary'])
        hyper_params = checkpoint['hyper_params']
        hyper_params.pop('dropout')  # 只在训练时用
        model = BabyGPT(tokenizer.vocab_size, **hyper_params).to(device)
        model.load_state_dict(checkpoint['model'])
    except KeyError as part:
        sys.exit(f'{path} 里没有 {part}，不是 v20 存的模型：{retrain}')
    except Exception as error:
        reason = str(error).split('\n')[-1].strip()  # 几行里的最后一行说的是哪个参数
        raise SystemExit(f'{path} 里的参数、超参数和词表对不上（{reason}）：{retrain}') from error
    return model, tokenizer


def read_poems():
    """读出语料里的各首词，从标题到结尾的空行；读不了，就说明原因并退出。"""
    try:
        text = data_path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError):
        sys.exit(f'读不了 {data_path}，数不出各个词牌的句式：用 git checkout ci.txt 找回。')
    return [f'{poem}\n\n' for poem in text.strip().split('\n\n')]


def tune_of(poem):
    """一首词的词牌：标题里空格之前的字。"""
    return poem.split('\n')[0].split(' ')[0]


def form_of(poem):
    """一首词的句式：标题以下，每句几个字。标点和换行都隔开两句。"""
    return tuple(len(clause) for clause in re.split('[。，、！？；：\n]', poem.partition('\n')[2]) if clause)


def count_forms(poems):
    """每个词牌有哪几种句式：这些词里至少有两首是这样写的，才算一种。"""
    counts = Counter((tune_of(poem), form_of(poem)) for poem in poems)
    forms = {}
    for (tune, form), n in counts.items():
        if n >= 2:
            forms.setdefault(tune, []).append(form)
    return forms


def reward(poem, forms):
    """一首词的奖励：写完了，句式也合，是 1；不然，看从头数起连着对了几句，占最像的那种句式的多少，最多 0.5。"""
    clauses, known = form_of(poem), forms[tune_of(poem)]
    if poem.endswith('\n\n') and clauses in known:
        return 1.0
    return max(0.5 * len([*takewhile(lambda pair: pair[0] == pair[1], zip(clauses, form))]) / len(form) for form in known)


def make_prompts(args, poems, forms):
    """每个词牌（和作者）是一个开头。语料里没有的词牌和作者，模型没有学过，没有句式的，算不出奖励，先指出来。"""
    tunes, authors = (Counter(names) for names in zip(*[poem.split('\n')[0].split(' ')[:2] for poem in poems]))
    for kind, known, name in [*[('词牌', tunes, tune) for tune in args.tune], *[('作者', authors, args.author)] * bool(args.author)]:
        if name not in known:
            common = '、'.join(each for each, _ in known.most_common(8))
            sys.exit(f'语料里没有{kind}「{name}」，有的比如：{common}。')
    for tune in args.tune:
        if tune not in forms:
            sys.exit(f'词牌「{tune}」在训练集里没有两首句式相同的，合不合算不出来，请换一个。')
    return [f'{tune} {args.author}\n' if args.author else f'{tune} ' for tune in args.tune]


def write(model, tokenizer, prompts, args):
    """从每个开头写 num_samples 首，所有的一批写完，返回这些词，同一个开头的在一起。"""
    texts = [prompt for prompt in prompts for _ in range(args.num_samples)]
    ids = [tokenizer.encode(text) for text in texts]
    longest = max(map(len, ids))
    idx = torch.tensor([row[:1] * (longest - len(row)) + row for row in ids], device=device)  # (B, T)
    padding = torch.tensor([[i < longest - len(row) for i in range(longest)] for row in ids], device=device)  # (B, T)
    options = {name: getattr(args, name) for name in ['temperature', 'top_k', 'top_p', 'min_p', 'repetition_penalty']}

    for next_idx in model.generate(idx, args.max_new_tokens, padding, **options):
        chars = tokenizer.decode(next_idx[:, 0].tolist())
        texts = [text if text.endswith('\n\n') else text + char for text, char in zip(texts, chars)]
        if all(text.endswith('\n\n') for text in texts):
            break
    return texts


def parse_args():
    parser = argparse.ArgumentParser(
        usage='%(prog)s [--名称 值 ...]', description='用 v20 训练好的模型写词，每个词牌写几首，留下最合句式的。', add_help=False, allow_abbrev=False)
    group = parser.add_argument_group('选项')
    group.add_argument('--tune', nargs='+', metavar='词牌', required=True, help='写这些词牌')
    group.add_argument('--author', metavar='作者', help='照这位作者的样子写（默认由模型自己定）')
    group.add_argument('--num_samples', type=int, default=8, metavar='值', help='每个词牌写几首，留下一首（默认 8）')
    group.add_argument('--max_new_tokens', type=int, default=300, metavar='值', help='每首最多写多少个字（默认 300）')
    group.add_argument('--temperature', type=float, default=1.0, metavar='值', help='小于 1 更稳，大于 1 更出人意料（默认 1.0）')
    group.add_argument('--top_k', type=int, metavar='值', help='只在得分最高的几个字里抽（默认不限）')
    group.add_argument('--top_p', type=float, metavar='值', help='只在最可能的、概率加起来够这么多的字里抽（默认不限）')
    group.add_argument('--min_p', type=float, metavar='值', help='只在概率不低于最高者这么多倍的字里抽（默认不限）')
    group.add_argument('--repetition_penalty', type=float, default=1.0, metavar='值', help='大于 1，写过的字就少写（默认 1.0）')
    group.add_argument('--seed', type=int, metavar='值', help='随机种子：种子相同，写的相同（默认每次不同）')
    group.add_argument('--model', type=Path, metavar='文件', help='用这个模型（默认 modern/model.pth，没有就用训练好的）')
    group.add_argument('-h', '--help', action='help', help='显示这段说明')
    args = parser.parse_args()
    for name in ['num_samples', 'max_new_tokens', 'top_k']:
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f'--{name} 必须大于 0')
    for name in ['top_p', 'min_p']:
        value = getattr(args, name)
        if value is not None and not 0 < value <= 1:
            parser.error(f'--{name} 必须大于 0，不大于 1')
    for name in ['temperature', 'repetition_penalty']:
        if not 0.01 <= getattr(args, name) <= 100:
            parser.error(f'--{name} 必须在 0.01 和 100 之间')
    if args.seed is not None and not 0 <= args.seed < 2 ** 63:
        parser.error('--seed 必须在 0 和 2^63 之间')
    return args


def main():
    args = parse_args()
    poems = read_poems()
    forms = count_forms(poems[:int(train_ratio * len(poems))])
    prompts = make_prompts(args, poems, forms)
    path = args.model or model_path
    if args.model is None and not path.exists():
        print('没有 modern/model.pth，先用训练好的 pretrained/model_v20.pth；想用自己的，'
              '运行 python modern/babygpt_v20_tied_embedding.py。\n')
        path = pretrained_path
    model, tokenizer = load_model(path)
    if args.seed is not None:
        torch.manual_seed(args.seed)
    try:
        texts = write(model, tokenizer, prompts, args)
    except ValueError as error:
        sys.exit(str(error))
    for i in range(0, len(texts), args.num_samples):
        group = texts[i:i + args.num_samples]  # 同一个开头的几首
        rewards = [reward(poem, forms) for poem in group]
        best = rewards.index(max(rewards))
        print(group[best].rstrip('\n'))
        print(f'（{len(group)} 首的奖励：{" ".join(f"{each:.2f}" for each in rewards)}，留下第 {best + 1} 首）\n')


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        print()
