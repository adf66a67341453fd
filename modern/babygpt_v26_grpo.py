"""BabyGPT v26：自己写的每一首都学，每个位置按比同组好多少来学

上一级只学赢家，输掉的词里有什么教训，一首里又是哪一个字写错了，都没有用上。这一级全都学：写出来的词，每个位置都从模型自己的概率再抽一组字，
写上去以后还能写成合句式的词，奖励是 1，不能是 0；减去同组的平均，比平均好的，写它的概率升高，不如平均的降低，好多少就升多少，
这个差叫优势（advantage）。平均就是基准，不用另外训练一个网络来估计：这就是 GRPO（DeepSeekMath，Shao 等 2024，4.1 节）。

论文里一组是同一个问题的几个完整的回答，这里的问题是词牌和写到这里的字，回答只有下一个字：对不对当场就知道，不用等到写完，
错在哪个字，就只有那个字受罚。写错了一个字，后面怎么写都合不上，不再评，也不再学。
同组全对或者全错，没有谁更好，优势都是 0，什么也学不到，所以常写错的词牌多写：近来合句式的越少，抽到它的机会越大。
论文里还有几处不同。优势还除以同组的标准差，这里不除：除了，只有一个字出错的那些组，分量就太重（Liu 等 2025，3.1 节）。
先在一个回答里平均，再各个回答平均，这里加起来，除以首数，所有的位置一样看待。离出发的模型的距离，论文用抽到的字来估计，
这里每个字的概率都在手上，照 KL 散度的定义算。抽出来只学一步，抽的和学的是同一个模型，论文里限制新旧概率之比的那一项（clip）就用不着。

防线有两道：损失里加上离出发的模型的距离（kl_weight 倍的 KL），还有真词的损失（real_weight 倍）。

你会看到：从带着的模型出发，练过的词牌合句式的从 54 % 到 93 %，没练过的从 56 % 到 76 %；验证损失从 3.64 到 3.66（一个种子）。

从 modern/model.pth 出发，没有就从 pretrained/model_v20.pth；学成的模型存进 modern/model_v26.pth，写词的脚本用 --model 读它。
被打断了，加上 --resume 再运行，从最近一次评估接着走，和 v22 一样。

运行：python modern/babygpt_v26_grpo.py
接着学：python modern/babygpt_v26_grpo.py --resume
写词：python modern/babygpt_sample.py --model modern/model_v26.pth --tune 浣溪沙
看曲线：wandb leet
和上一级对照：git diff --no-index modern/babygpt_v25_expert_iteration.py modern/babygpt_v26_grpo.py
"""

import argparse
import copy
import hashlib
import io
import os
import re
import signal
import sys
import time
from collections import Counter
from itertools import takewhile
from pathlib import Path
from statistics import mean, median

import torch
import wandb
from torch import nn
from torch.nn import functional as F

device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else 'cpu'

# 超参数：命令行可以改任何一个，行末的注释就是 --help 里的说明
n_tunes = 16  # 每一轮写几个词牌
num_samples = 4  # 每个词牌写几首
group_size = 16  # 每个位置抽几个字，是一组
batch_size = 16  # 训练时几首一批，也是每一轮看几首真词
learning_rate = 4e-4  # 优化器每一步走多大
kl_weight = 0.03  # 离出发的模型的距离，在损失里占多少
real_weight = 0.01  # 真词的损失，占多少
max_iters = 200  # 一共多少轮，每一轮走一步
warmup_iters = 10  # 学习率用多少轮升到最高
eval_interval = 20  # 每隔多少轮评估一次
eval_iters = 20  # 每次评估取多少批真词求平均
eval_samples = 5  # 每次评估，每个词牌写几首
max_new_tokens = 120  # 每首最多写多少个字
seed = 1337  # 随机种子：种子相同，结果相同
data_path = Path(__file__).parent.with_name('ci.txt')
model_path = Path(__file__).with_name('model.pth')
pretrained_path = data_path.with_name('pretrained') / 'model_v20.pth'
own_path = Path(__file__).with_name('model_v26.pth')  # 学成的模型存在这里
checkpoint_path = own_path.with_name('checkpoint_v26.pth')  # 接着学要的一切
train_ratio = 0.9  # 前面多大比例的词是训练集，句式只从里面数
# 填充不是字。F.cross_entropy 遇到 -100 就不计，既没有损失，也没有梯度
padding = -100


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


def pad(poems, tokenizer):
    """各首词排成一张表，一首一行，短的后面填上 padding。"""
    ids = torch.tensor(tokenizer.encode(''.join(poems)))
    rows = ids.split([len(poem) for poem in poems])
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding)  # (N, L)


def make_batches(poems, batch_size, generator=None):
    """一轮的各批，每批是几个行号 (B,)：每首词恰好在一批里，同批的长短相近，填充就少；次序每轮不同。"""
    lengths = (poems != padding).sum(dim=1).cpu()  # (N,)
    batches = (lengths + torch.rand(len(poems), generator=generator)).argsort().split(batch_size)
    return [batches[i] for i in torch.randperm(len(batches), generator=generator)]


def get_batch(poems, rows):
    """取这几行的词 x，以及往后错一个字的 y：x 每个位置的下一个字就是答案。

    注释里的形状：N 是词的首数，L 是表的宽度，B 是一批几首，T 是其中最长的一首的字数，V 是词表大小。
    """
    chunks = poems[rows]  # (B, L)
    chunks = chunks[:, :(chunks != padding).sum(dim=1).max()]  # (B, T+1)
    # 填充排在词的后面，词里的字看不到它：在 x 里读成几号字都一样，在 y 里它不算答案
    return chunks[:, :-1].clamp(min=0), chunks[:, 1:]


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
    def generate(self, idx, max_new_tokens, padding=None):
        """逐字续写 idx (B, T)：写出一个，就交出一个 (B, 1)。padding (B, T) 说哪些是左边的填充。"""
        idx = idx[:, -self.block_size:]  # (B, T)
        held = torch.zeros(len(idx), self.block_size, dtype=torch.bool, device=idx.device)  # (B, block_size)
        if padding is not None:
            held[:, :idx.size(1)] = padding[:, -self.block_size:]
        cache, start = self.empty_cache(len(idx)), 0
        for _ in range(max_new_tokens):
            logits = self(idx, cache, start, held)[:, -1]  # (B, V)
            start += idx.size(1)
            held[:, start % self.block_size] = False  # 轮到下一个字的那一格，不再是填充
            idx = pick(logits)  # (B, 1)
            yield idx


def pick(logits, n=1):
    """从每个位置的得分 (..., V) 里挑出下一个字，各挑 n 次 (..., n)：不筛，就按模型的概率抽，要学的正是这样写出来的词。"""
    # 概率一段接一段排成一条线，在线上随机点一点，落在谁那一段就是谁：只要一个随机数，torch.multinomial 给每个字都抽一个
    cumulative = F.softmax(logits, dim=-1).cumsum(dim=-1)
    draw = 1 - torch.rand(*logits.shape[:-1], n, device=logits.device)
    return torch.searchsorted(cumulative, draw * cumulative[..., -1:])


def load_model(path):
    """读出 v20 存下的模型、分词器和超参数；读不出来，或者是别的结构的模型，就说明原因并退出。"""
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
        sizes = {name: value for name, value in hyper_params.items() if name != 'dropout'}  # 这里不用 dropout
        model = BabyGPT(tokenizer.vocab_size, **sizes).to(device)
        model.load_state_dict(checkpoint['model'])
    except KeyError as part:
        sys.exit(f'{path} 里没有 {part}，不是 v20 存的模型：{retrain}')
    except Exception as error:
        reason = str(error).split('\n')[-1].strip()  # 几行里的最后一行说的是哪个参数
        raise SystemExit(f'{path} 里的参数、超参数和词表对不上（{reason}）：{retrain}') from error
    return model, tokenizer, hyper_params


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


def split_tunes(poems):
    """五十首以上的词牌里最短的四十个，由短到长，分成两组：每四个里有一个从不拿来练，只用来考。"""
    lengths = {}
    for poem in poems:
        lengths.setdefault(tune_of(poem), []).append(len(poem.partition('\n')[2]))
    lengths.pop('失调名', None)  # 词牌已经失传的，不是一个词牌
    common = [tune for tune in lengths if len(lengths[tune]) >= 50]
    common = sorted(common, key=lambda tune: (median(lengths[tune]), tune))[:40]
    return [tune for i, tune in enumerate(common) if i % 4 != 2], common[2::4]


def kind_of(char):
    """一个字是哪一类：0 是字，1 是标点，2 是换行。句式只管类，不管是哪个字。"""
    return 2 if char == '\n' else int(char in '。，、！？；：')


def judge(poem, forms):
    """评一首词，到第一个写错的字为止：返回这一段，和每个位置上写哪一类字还合得上句式 (字数, 3)，合是 1，不合是 0；标题不评，都是 0。"""
    title, newline, body = poem.partition('\n')
    rewards = [[0.0, 0.0, 0.0] for _ in title + newline]
    done, length, last = (), 0, None  # 写完的各句多长，没写完的一句多长，上一个字是哪一类
    for char in body:
        rest = [form[len(done):] for form in forms[tune_of(poem)] if form[:len(done)] == done]
        lengths = [form[0] for form in rest if form]  # 这一句可以有几个字
        due = length in lengths
        # 一个标点之后可以换行；换了行，词写完了，才再换一行，就是结尾的空行
        rewards.append([any(length < most for most in lengths), due, due or last == 1 or last == 2 and () in rest])
        last = kind_of(char)
        if not rewards[-1][last]:
            break
        if last == 0:
            length += 1
        elif length:
            done, length = (*done, length), 0
    return poem[:len(rewards)], torch.tensor(rewards, dtype=torch.float)


def advantages(rewards):
    """每个位置的一组字的奖励 (B, T, K)，减去这一组的平均。"""
    return rewards - rewards.mean(dim=-1, keepdim=True)  # (B, T, K)


def write(model, tokenizer, prompts, num_samples, max_new_tokens):
    """从每个开头写 num_samples 首，所有的一批写完，返回这些词，同一个开头的在一起。"""
    texts = [prompt for prompt in prompts for _ in range(num_samples)]
    ids = [tokenizer.encode(text) for text in texts]
    longest = max(map(len, ids))
    idx = torch.tensor([row[:1] * (longest - len(row)) + row for row in ids], device=device)  # (B, T)
    padding = torch.tensor([[i < longest - len(row) for i in range(longest)] for row in ids], device=device)  # (B, T)

    for next_idx in model.generate(idx, max_new_tokens, padding):
        chars = tokenizer.decode(next_idx[:, 0].tolist())
        texts = [text if text.endswith('\n\n') else text + char for text, char in zip(texts, chars)]
        if all(text.endswith('\n\n') for text in texts):
            break
    return texts


def own_batch(poems, tokenizer, block_size):
    """模型写的几首，排成 x 和 y (B, T)。词牌和空格是给它的，不是它写的，和填充一样不算答案。"""
    table = pad([poem[:block_size + 1] for poem in poems], tokenizer).to(device)  # (B, L)
    x, y = get_batch(table, torch.arange(len(poems)))  # (B, T)
    given = torch.tensor([len(tune_of(poem)) for poem in poems], device=device)  # (B,)
    return x, y.masked_fill(torch.arange(y.size(1), device=device) < given[:, None], padding)


def scores_of(model, x):
    """x (B, T) 的每个位置之后，模型给每个字的得分 (B, T, V)。"""
    return model(x, model.empty_cache(len(x)), 0, torch.zeros(len(x), model.block_size, dtype=torch.bool, device=device))  # (B, T, V)


def log_probs(model, x, y):
    """x (B, T) 之后，模型给答案 y 的每个字多大的概率，取对数 (B, T)；填充和给定的字是 0，没有梯度。"""
    return -F.cross_entropy(scores_of(model, x).flatten(0, 1), y.flatten(), reduction='none').view(y.shape)  # (B, T)


def divergence(now, start):
    """写出的每个字，模型离出发的模型多远 (B, T)：now 和 start 是两个模型的 log_probs，照 DeepSeekMath（Shao 等 2024）的式 4 估计。

    它的平均是 KL 散度；两个模型一样，它处处是 0，不一样，处处大于 0。
    """
    ratio = start - now  # (B, T)
    return ratio.exp() - ratio - 1  # (B, T)


@torch.no_grad()
def estimate_loss(model, val_poems, eval_iters, batch_size):
    """验证集的真词上每字的平均损失。每次都看同样的词，曲线才平滑、可比。"""
    generator = torch.Generator().manual_seed(0)  # 单独的随机源，不打乱训练用的那一个
    batches = [get_batch(val_poems, rows) for rows in make_batches(val_poems[:eval_iters * batch_size], batch_size, generator)]
    return -sum(log_probs(model, x, y).sum().item() for x, y in batches) / sum((y != padding).sum().item() for _, y in batches)


@torch.no_grad()
def estimate_form(model, start, tokenizer, tunes, forms):
    """从每个词牌写几首，返回这些词、平均的奖励、多大比例合句式、每字离出发的模型 start 多远。每次用同样的随机数。"""
    with torch.random.fork_rng():  # 写词用掉的随机数要还回去，训练不受影响
        torch.manual_seed(seed)
        poems = write(model, tokenizer, [f'{tune} ' for tune in tunes], eval_samples, max_new_tokens)
    rewards = [reward(poem, forms) for poem in poems]
    distance, n_chars = 0.0, 0
    for i in range(0, len(poems), batch_size):
        x, y = own_batch(poems[i:i + batch_size], tokenizer, model.block_size)  # (B, T)
        distance += divergence(log_probs(model, x, y), log_probs(start, x, y)).sum().item()
        n_chars += (y != padding).sum().item()
    return poems, mean(rewards), mean(each == 1 for each in rewards), distance / n_chars


def get_lr(step, learning_rate, warmup_iters, max_iters):
    """第 step 步的学习率：前 warmup_iters 步从小升到 learning_rate，此后每步降得一样多，到 max_iters 降到 0。"""
    return learning_rate * min((step + 1) / warmup_iters, (max_iters - step) / (max_iters - warmup_iters))


def start_tracking(config, run_id):
    """开始一次 wandb 记录，或者接着 run_id 的那一次：登录过就同步到网上，否则记在本地；设了 WANDB_MODE 就照它办。"""
    try:
        mode = os.environ.get('WANDB_MODE') or ('online' if wandb.login(prompt=False) else 'offline')
        return wandb.init(project='babygpt', config=config, mode=mode, id=run_id, resume='allow')
    except (wandb.Error, ValueError) as error:
        if 'WANDB_MODE' in os.environ:
            sys.exit(f'按 WANDB_MODE={os.environ["WANDB_MODE"]} 启动不了 wandb：{error}')
        print(f'连不上 wandb，改为离线记录：{error}')
        return wandb.init(project='babygpt', config=config, mode='offline', id=run_id, resume='allow')


def save(path, content):
    """先写成临时文件再改名：写到一半被打断，或者磁盘满了，原来的文件都完好。"""
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        sys.exit(f'写不了 {path}（{error.strerror}）：请腾出空间或改好权限再运行，原来的文件没有动。')


def set_aside(path):
    """从头学之前，上一次的文件改名留着：它的模型也许更好，它也许还没有学完。"""
    try:
        if path.exists():
            kept = path.with_name(f'{path.stem}.prev.pth')
            os.replace(path, kept)
            print(f'从头学：上一次的 {path.name} 改名为 {kept.name}')
    except OSError as error:
        sys.exit(f'给 {path} 改不了名（{error.strerror}）：请改好权限再运行。')


def pack(model, tokenizer, hyper_params, **more):
    """把参数、重建模型要用的超参数和词表打包成一段字节：写词的脚本只需要这些。接着学还要的，都在 more 里。"""
    vocabulary = ''.join(tokenizer.chars)
    buffer = io.BytesIO()
    torch.save({'rung': Path(__file__).stem, 'model': model.state_dict(), 'hyper_params': hyper_params,
                'vocabulary': vocabulary, **more}, buffer)
    return buffer.getvalue()


def random_sources():
    """学习用到的随机源：处理器的；用加速器，还有它的。"""
    return {'cpu': torch} if device == 'cpu' else {'cpu': torch, device.type: torch.get_device_module(device)}


def read_checkpoint(path):
    """读出 checkpoint；没有就返回 None，从头开始；读不出来，或者不是这个脚本存的，就说明原因并退出。"""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        print(f'没有 {path.name}，从头开始。')
        return None
    except OSError as error:
        sys.exit(f'读不了 {path}（{error.strerror}）。')
    try:
        checkpoint = torch.load(io.BytesIO(content), map_location='cpu', weights_only=True)
    except Exception as error:  # 坏在不同的地方，torch 报的错就不同
        raise SystemExit(f'{path} 残缺，或者根本不是 checkpoint：去掉 --resume，从头开始。') from error
    rung = checkpoint.get('rung') if isinstance(checkpoint, dict) else None
    if rung != Path(__file__).stem or 'optimizer' not in checkpoint:
        sys.exit(f'{path} 不是 {Path(__file__).name} 存的 checkpoint：用存它的那个脚本接着学，或者去掉 --resume，从头开始。')
    return checkpoint


def hash_of(*pieces):
    """几段字节合起来的哈希值：换了一个字节，就完全不同。"""
    return hashlib.sha256(b''.join(pieces)).hexdigest()


def parse_args():
    """命令行上给了的超参数用给的值，没给的用顶部的默认值；说不通的值，训练之前就指出来。"""
    parser = argparse.ArgumentParser(
        usage='%(prog)s [--名称 值 ...]', description='让 v20 训练好的模型学着把词写合句式。', add_help=False, allow_abbrev=False)
    options = parser.add_argument_group('选项')
    # 顶部的每个数都是一个选项，行末的注释就是它的说明
    source = Path(__file__).read_text(encoding='utf-8')
    for name, meaning in re.findall(r'^(\w+) = .+  # (.+)$', source, flags=re.MULTILINE):
        default = globals()[name]
        if isinstance(default, (int, float)):
            options.add_argument(f'--{name}', type=type(default), default=default, metavar='值',
                                 help=f'{meaning}（默认 {default}）')
    options.add_argument('--tune', nargs='+', metavar='词牌', help='只练这些词牌（默认三十个常见的）')
    options.add_argument('--model', type=Path, metavar='文件', help='从这个模型出发（默认 modern/model.pth，没有就用训练好的）')
    options.add_argument('--resume', action='store_true', help=f'从 {checkpoint_path.name} 接着学，没有它就从头开始；超参数照它记的')
    options.add_argument('-h', '--help', action='help', help='显示这段说明')
    checkpoint = read_checkpoint(checkpoint_path) if parser.parse_known_args()[0].resume else None
    if checkpoint:
        parser.set_defaults(**checkpoint['args'])
    args = parser.parse_args()
    for name, value in vars(args).items():
        if type(value) is int and not (0 < value < 2 ** 63 or (name, value) == ('seed', 0)):
            parser.error(f'--{name} 必须大于 0，小于 2^63')
        if isinstance(value, float) and not (0 < value < 1 or value == 0 and name.endswith('_weight')):
            parser.error(f'--{name} 必须在 0 和 1 之间')
    if args.warmup_iters >= args.max_iters:
        parser.error(f'--warmup_iters {args.warmup_iters} 必须小于 --max_iters {args.max_iters}，否则学习率升不到最高')
    for name in ['tune', 'seed'] if checkpoint else []:
        if getattr(args, name) != checkpoint['args'][name]:  # 换了这些，就不是同一次
            parser.error(f'--{name} 接不上：{checkpoint_path.name} 用的是 {checkpoint["args"][name] or "默认的"}')
    return args, checkpoint


def main():
    args, checkpoint = parse_args()
    globals().update(vars(args))  # 从这里起，顶部的常量就是这一次的取值
    poems = read_poems()
    n_train = int(train_ratio * len(poems))
    forms = count_forms(poems[:n_train])
    trained, held_out = split_tunes(poems[:n_train])
    if args.tune:
        trained, held_out = args.tune, [tune for tune in held_out if tune not in args.tune]
    for tune in trained:
        if tune not in forms:
            sys.exit(f'词牌「{tune}」在训练集里没有两首句式相同的，合不合算不出来，请换一个，比如浣溪沙。')
    if not held_out:
        sys.exit('没有留下不练的词牌，考不了：语料里要有五十首以上的词牌至少三个，--tune 也不能把留着考的都拿来练。')
    path = args.model or model_path
    if args.model is None and not path.exists():
        path = pretrained_path
    model, tokenizer, hyper_params = load_model(path)
    start = copy.deepcopy(model)  # 出发的模型，不再变
    origin = hash_of(path.read_bytes(), data_path.read_bytes())
    if checkpoint and origin != checkpoint['origin']:
        sys.exit(f'接不上：{checkpoint_path.name} 是从另一个模型出发的，或者用的是另一份语料；出发的模型用 --model 给出。')
    try:
        val_poems = pad([poem[:model.block_size + 1] for poem in poems[n_train:]], tokenizer).to(device)
        train_poems = pad([poem[:model.block_size + 1] for poem in poems[:n_train]], tokenizer).to(device)
    except ValueError as error:
        sys.exit(f'{path} 不是用这份语料训练的，{error}')
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0, fused=True)
    print(f'设备 {device}，从 {path} 出发，练 {len(trained)} 个词牌，留 {len(held_out)} 个不练，只用来考：{"、".join(held_out)}')

    tracked = start_tracking({**vars(args), 'start': str(path), 'device': str(device)}, checkpoint and checkpoint['run_id'])
    interrupted = False

    def interrupt(*_):
        """第一次按 Ctrl-C：走完这一轮，评估、保存，然后收尾；再按一次：立刻退出。"""
        nonlocal interrupted
        interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, interrupt)
    started = time.perf_counter()
    batches = []
    kinds = torch.tensor([kind_of(char) for char in tokenizer.chars], device=device)  # (V,)
    shares = dict.fromkeys(trained, 0.5)  # 各词牌近来合句式的比例：越低，写得越多
    kept_args = {**vars(args), 'model': str(path.resolve())}  # 接着学时的默认值
    first, evaluated = 0, None  # 从第几轮走起；哪一轮已经评估过
    if checkpoint:
        model.load_state_dict(checkpoint['model'])
        optimizer.load_state_dict(checkpoint['optimizer'])
        first = evaluated = checkpoint['step']
        batches, started = checkpoint['batches'], started - checkpoint['seconds']
        shares = checkpoint['shares']
        for name, source in random_sources().items():
            if name in checkpoint['random']:  # 换了一种设备，就没有它的
                source.set_rng_state(checkpoint['random'][name])
        for file in [own_path, checkpoint_path]:
            for unfinished in file.parent.glob(f'{file.name}.*.tmp'):  # 保存到一半被杀，剩下的
                unfinished.unlink(missing_ok=True)
        print(f'从 {checkpoint_path.name} 接着学：第 {first} 轮')
    else:
        set_aside(own_path)
        set_aside(checkpoint_path)
    for step in range(first, max_iters + 1):
        last = step == max_iters or interrupted
        if interrupted:
            print('收到 Ctrl-C，评估、保存之后停下；再按一次立刻退出。')
        if (step % eval_interval == 0 or last) and step != evaluated:
            val_loss = estimate_loss(model, val_poems, eval_iters, batch_size)
            _, trained_reward, trained_form, distance = estimate_form(model, start, tokenizer, trained, forms)
            written, _, held_out_form, _ = estimate_form(model, start, tokenizer, held_out, forms)
            seconds = time.perf_counter() - started
            left = f'{seconds / step * (max_iters - step):.0f}' if step else '?'
            print(f'第 {step:4d} 轮  奖励 {trained_reward:.3f}  合句式 {trained_form:6.1%}，没练的词牌 {held_out_form:6.1%}'
                  f'  验证损失 {val_loss:.4f}  离出发 {distance:.4f}  还要 {left:>4} 秒\n{written[0].rstrip()}\n')
            tracked.log({'reward': trained_reward, 'form/trained': trained_form, 'form/held_out': held_out_form, 'val/loss': val_loss,
                         'distance': distance, 'poems': wandb.Table(columns=['step', 'poem'], data=[[step, written[0]]])}, step=step)
            if step:
                save(own_path, pack(model, tokenizer, hyper_params))
            state = {'step': step, 'optimizer': optimizer.state_dict(), 'batches': batches, 'shares': shares, 'run_id': tracked.id, 'seconds': seconds,
                     'random': {name: source.get_rng_state() for name, source in random_sources().items()},
                     'origin': origin, 'args': kept_args}
            save(checkpoint_path, pack(model, tokenizer, hyper_params, **state))
        if last:
            break
        chances = torch.tensor([1.1 - shares[tune] for tune in trained])
        tunes = [trained[i] for i in chances.multinomial(min(n_tunes, len(trained)))]
        written = write(model, tokenizer, [f'{tune} ' for tune in tunes], num_samples, max_new_tokens)
        for tune, i in zip(tunes, range(0, len(written), num_samples)):
            shares[tune] = 0.7 * shares[tune] + 0.3 * mean(reward(poem, forms) == 1 for poem in written[i:i + num_samples])
        judged = sorted([judge(poem, forms) for poem in written], key=lambda pair: len(pair[0]))  # 由短到长，同批的填充就少
        optimizer.zero_grad()
        for i in range(0, len(judged), batch_size):  # 一批一批地算，梯度加在一起：内存里只放一批
            texts, rewards = zip(*judged[i:i + batch_size])
            x, y = own_batch(texts, tokenizer, model.block_size)  # (B, T)
            rewards = nn.utils.rnn.pad_sequence(rewards, batch_first=True)[:, 1:y.size(1) + 1].to(device)  # (B, T, 3)
            scores = scores_of(model, x)  # (B, T, V)
            now = scores.log_softmax(dim=-1)  # (B, T, V)
            with torch.no_grad():
                before = scores_of(start, x).log_softmax(dim=-1)  # (B, T, V)
            group = pick(scores.detach(), group_size)  # (B, T, K)
            value = advantages(rewards.gather(2, kinds[group]))  # (B, T, K)
            gain = (value * now.gather(2, group)).mean(dim=-1)  # (B, T)
            distance = F.kl_div(before, now, reduction='none', log_target=True).sum(dim=-1)  # (B, T)
            loss = (kl_weight * distance - gain)[y != padding].sum() / len(written)
            loss.backward()
        batches = batches or make_batches(train_poems, batch_size)  # 一轮看完，再开始一轮
        x, y = get_batch(train_poems, batches.pop())  # (B, T)
        loss = -real_weight * log_probs(model, x, y).sum() / len(x)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # 所有梯度合成一个向量，长过 1 就缩到 1
        for group in optimizer.param_groups:
            group['lr'] = get_lr(step, learning_rate, warmup_iters, max_iters)
        optimizer.step()

    signal.signal(signal.SIGINT, signal.default_int_handler)
    if step:
        print(f'学成的模型存在 {own_path}，写词：python modern/babygpt_sample.py --model {own_path} --tune 浣溪沙')
    if tracked.offline:
        folder = Path(tracked.dir).parent
        print(f'\n这次训练离线记录在 {folder}\n看曲线：wandb leet {folder}\n以后上传：wandb sync {folder.parent}/*-{tracked.id}')
    tracked.finish()


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\n已中断。')
