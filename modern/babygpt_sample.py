"""用 v20 训练出的模型写词：KV 缓存，几首一起写，写完就停

缓存和根目录的那一个是同一个想法：算过的 key 和 value 存起来，每步只算新来的一个字。换成 v20 的结构，有三点不同：
一，GQA：缓存里只有 n_kv_head 个头，是 query 头的三分之一。
二，RoPE：key 进缓存之前转好，只转这一次；以后不管隔多远，和 query 的点积里都只剩下相对的位置。
三，所以写满了不用重建：位置接着往下数，新的一格盖掉最旧的一格，每个字看得到的总是最近的 block_size 个字，这叫滑动窗口。

几首词的开头不一样长，就在左边填充到一样长，填充的格子谁也不看。怎样从得分里挑出下一个字，有几种筛法，各有一个函数，
一次可以用几种；都不用，就是按模型的概率抽。

--constrain 让首首合句式：每一处只许写词牌最常见的句式许可的，句式从训练集里数出。该写字的地方，只在字里抽；该有标点、换行的地方，
照这种句式最常见的写法，没有别的可选。模型一个数也不改，只是有的字不是它自己最想写的；差多少，最后一行说。

运行（读 modern/ 里的 model.pth；还没有，就用 pretrained/ 里训练好的）：python modern/babygpt_sample.py --tune 浣溪沙
每个词牌写三首：python modern/babygpt_sample.py --tune 浣溪沙 水调歌头 --author 苏轼 --num_samples 3 --temperature 0.8 --top_p 0.9
首首合句式：python modern/babygpt_sample.py --tune 浣溪沙 --num_samples 3 --constrain
和 v20 对照：git diff --no-index modern/babygpt_v20_tied_embedding.py modern/babygpt_sample.py
"""

import argparse
import io
import re
import sys
import time
from collections import Counter
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else 'cpu'

data_path = Path(__file__).parent.with_name('ci.txt')
model_path = Path(__file__).with_name('model.pth')
pretrained_path = data_path.with_name('pretrained') / 'model_v20.pth'


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
    def generate(self, idx, max_new_tokens, padding=None, form=None, **options):
        """逐字续写 idx (B, T)：写出一个，就交出一个 (B, 1)。padding (B, T) 说哪些是左边的填充；form 见 Form，options 见 pick。"""
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
            idx = pick(form.keep(logits) if form else logits, seen, **options)  # (B, 1)
            seen.scatter_(1, idx, True)
            if form:
                form.advance(logits, idx)
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


class Form:
    """一批词各写到了句式的哪一处，那一处许可哪些字；还记着这样写的代价。"""

    def __init__(self, title, forms, tokenizer, device):
        """每首先写 title，再照它在 forms 里的句式写，最后是空行。「字」是一个字，「名」是字或者换行，别的照写。"""
        plans = [f'{title}{form}\n\n' for form in forms]
        kinds = sorted(set(''.join(plans)))  # 有 K 种：同一种的各处，许可的字相同
        letters = [char for char in tokenizer.chars if char.isalpha()]
        choices = {'字': letters, '名': [*letters, '\n']}
        self.allowed = torch.zeros(len(kinds), tokenizer.vocab_size, dtype=torch.bool, device=device)  # (K, V)
        for kind, row in zip(kinds, self.allowed):
            row[tokenizer.encode(choices.get(kind, kind))] = True
        self.longest = max(map(len, plans))
        # 先写完的，后面一直换行，等别的写完
        rows = [[kinds.index(kind) for kind in plan.ljust(self.longest + 1, '\n')] for plan in plans]
        self.plan = torch.tensor(rows, device=device)  # (B, P)
        self.lengths = torch.tensor([[len(plan)] for plan in plans], device=device)  # (B, 1)
        self.place = torch.zeros_like(self.lengths)  # (B, 1)
        self.body, self.newline = len(title), tokenizer.ids['\n']
        self.loss = self.cost = 0

    def keep(self, logits):
        """只留这一处许可的字。"""
        kind = self.plan.gather(1, self.place)[:, 0]  # (B,)
        return logits.masked_fill(~self.allowed[kind], float('-inf'))  # (B, V)

    def advance(self, logits, idx):
        """这一处写下了 idx (B, 1)：照不受约束的得分，记下它的损失和许可的字合起来的损失（什么都许可，就是 0）；走到下一处。"""
        log_probs = F.log_softmax(logits, dim=-1)  # (B, V)
        writing = self.place < self.lengths  # (B, 1)
        self.loss -= (log_probs.gather(1, idx) * writing).sum()
        self.cost -= (self.keep(log_probs).logsumexp(dim=-1, keepdim=True) * writing).sum()
        place = self.place + 1  # (B, 1)
        place = torch.where(idx == self.newline, place.clamp(min=self.body), place)  # 作者可长可短，换了行就是正文
        self.place = place.clamp(max=self.longest)


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


def make_prompts(args):
    """每个词牌（和作者）是一个开头。语料里没有的词牌和作者，模型没有学过，先指出来。"""
    try:
        poems = data_path.read_text(encoding='utf-8').split('\n\n')
    except (OSError, UnicodeDecodeError):
        sys.exit(f'读不了 {data_path}，查不了词牌和作者：用 git checkout ci.txt 找回，或者改用 --prompt。')
    tunes, authors = (Counter(names) for names in zip(*[poem.split('\n')[0].split(' ')[:2] for poem in poems]))
    for kind, known, name in [*[('词牌', tunes, tune) for tune in args.tune], *[('作者', authors, args.author)] * bool(args.author)]:
        if name not in known:
            common = '、'.join(each for each, _ in known.most_common(8))
            sys.exit(f'语料里没有{kind}「{name}」，有的比如：{common}。想从别的字写起，用 --prompt。')
    return [f'{tune} {args.author}\n' if args.author else f'{tune} ' for tune in args.tune]


def commonest_form(tune):
    """训练集里这个词牌最常见的句式：标点和换行照写，字都写成「字」。没有两首相同，就引发 ValueError。"""
    text = data_path.read_text(encoding='utf-8')
    poems = text[:int(0.9 * len(text))].split('\n\n')[:-1]  # 前九成是训练集，最后一首切断了
    bodies = [poem.partition('\n')[2] for poem in poems if poem.startswith(f'{tune} ')]
    forms = [re.sub('[^。，、！？；：\n]', '字', body) for body in bodies]
    clauses = [re.findall('字+', form) for form in forms]
    # 句式是各句的字数；字数最常见的几种写法里，再取标点最常见的
    count = Counter(map(tuple, clauses))
    if max(count.values(), default=0) < 2:
        raise ValueError(f'训练集里没有两首「{tune}」句式相同，定不出它的句式：换一个词牌，或者去掉 --constrain。')
    commonest = list(max(count, key=count.get))
    return Counter(form for form, each in zip(forms, clauses) if each == commonest).most_common(1)[0][0]


def write(model, tokenizer, prompts, args):
    """从每个开头写 num_samples 首，所有的一批写完；只有一首，就写一个字打印一个字。最后报告速度，和合句式的代价。"""
    texts = [prompt for prompt in prompts for _ in range(args.num_samples)]
    ids = [tokenizer.encode(text) for text in texts]
    longest = max(map(len, ids))
    idx = torch.tensor([row[:1] * (longest - len(row)) + row for row in ids], device=device)  # (B, T)
    padding = torch.tensor([[i < longest - len(row) for i in range(longest)] for row in ids], device=device)  # (B, T)
    options = {name: getattr(args, name) for name in ['temperature', 'top_k', 'top_p', 'min_p', 'repetition_penalty']}
    form = None
    if args.constrain:
        title = '' if args.author else '字名名名名\n'  # 作者由模型定，一到五个字
        forms = [form for tune in args.tune for form in [commonest_form(tune)] * args.num_samples]
        form = Form(title, forms, tokenizer, device)
        if args.max_new_tokens < form.longest:
            raise ValueError(f'照句式最多要写 {form.longest} 个字（连同标点）：--max_new_tokens 至少要这么大')

    started = time.perf_counter()
    print(texts[0] if len(texts) == 1 else '', end='', flush=True)
    for next_idx in model.generate(idx, args.max_new_tokens, padding, form, **options):
        chars = tokenizer.decode(next_idx[:, 0].tolist())
        texts = [text if text.endswith('\n\n') else text + char for text, char in zip(texts, chars)]
        if all(text.endswith('\n\n') for text in texts):
            break
        print(chars if len(texts) == 1 else '', end='', flush=True)
    n_chars = sum(map(len, texts)) - sum(map(len, ids))
    speed = n_chars / (time.perf_counter() - started)
    print('' if len(texts) == 1 else '\n\n'.join(text.rstrip('\n') for text in texts))
    print(f'（{len(texts)} 首，{n_chars} 字，每秒 {speed:,.0f} 字）\n')
    if form:
        print(f'（不受约束的模型看这些字，损失是每字 {form.loss / n_chars:.2f} nat，其中 {form.cost / n_chars:.2f} 是句式的代价）\n')


def parse_args():
    parser = argparse.ArgumentParser(
        usage='%(prog)s [--名称 值 ...]', description='用 v20 训练好的模型写词。', add_help=False, allow_abbrev=False)
    group = parser.add_argument_group('选项')
    group.add_argument('--tune', nargs='+', metavar='词牌', help='写这些词牌；不给就逐次询问')
    group.add_argument('--author', metavar='作者', help='照这位作者的样子写（默认由模型自己定）')
    group.add_argument('--prompt', metavar='文字', help='不按词牌，从这些字写起')
    group.add_argument('--constrain', action='store_true', help='只照词牌最常见的句式写，首首合句式（要和 --tune 一起给）')
    group.add_argument('--num_samples', type=int, default=1, metavar='值', help='每个词牌写几首（默认 1）')
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
    if args.prompt == '':
        parser.error('--prompt 不能是空的')
    if args.prompt and args.tune:
        parser.error('--prompt 和 --tune 只能给一个')
    for name in ['author', 'constrain']:
        if getattr(args, name) and not args.tune:
            parser.error(f'--{name} 要和 --tune 一起给')
    return args


def main():
    args = parse_args()
    prompts = [args.prompt] if args.prompt else make_prompts(args) if args.tune else []
    path = args.model or model_path
    if args.model is None and not path.exists():
        print('没有 modern/model.pth，先用训练好的 pretrained/model_v20.pth；想用自己的，'
              '运行 python modern/babygpt_v20_tied_embedding.py。\n')
        path = pretrained_path
    model, tokenizer = load_model(path)
    if args.seed is not None:
        torch.manual_seed(args.seed)
    if prompts:
        try:
            write(model, tokenizer, prompts, args)
        except ValueError as error:
            sys.exit(str(error))
        return
    while prompt := input('词牌，或者开头几个字（直接回车结束）：'):
        try:
            write(model, tokenizer, [prompt], args)
        except ValueError as error:
            print(f'{error}，换几个字再试。')


if __name__ == '__main__':
    try:
        main()
    except (KeyboardInterrupt, EOFError):
        print()
