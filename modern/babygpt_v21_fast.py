"""BabyGPT v21：同样的数，算得更快

模型一个参数也没有变，变的是怎么算。一，注意力交给 F.scaled_dot_product_attention：一块一块地算，T × T 的得分从不整张存下来
（FlashAttention，Dao 等 2022，第 3 节），训练要存的数于是随 T 增长，不再随 T² 增长。在 CPU 上，dropout 是 0 才这样；
不是 0，得分就和 v20 一样整张存下来。二，autocast：训练时矩阵乘法用 bfloat16，它的指数和 float32 一样长，
尾数只存 7 位，float32 存 23 位；参数、优化器、评估仍是 float32。有的处理器这样快，有的反而慢，所以不猜：
开始时在真的模型、真的一批词上各试一秒，用快的那一种，打印出来。三，--compile：torch.compile 把模型编译成更大块的运算。
四，--preset：按机器给出一组大小，modern/README.md 里有各组的参数和内存。

你会看到：两核的 CPU 上，一步从 v20 的 129.3 毫秒到 127.9 毫秒，用 bfloat16 是 345.1 毫秒；--compile 没有测过。
一行 2,048 字，训练的峰值内存从 1,463 MB 到 633 MB。用 --precision float32，前几十步的损失和 v20 的相差不到 1e-3。

运行（CPU 约 10 分钟）：python modern/babygpt_v21_fast.py
换一组大小：python modern/babygpt_v21_fast.py --preset gpu8 --compile
看曲线：wandb leet
和上一级对照：git diff --no-index modern/babygpt_v20_tied_embedding.py modern/babygpt_v21_fast.py
"""

import argparse
import io
import os
import re
import signal
import sys
import time
from pathlib import Path

import torch
import wandb
from torch import nn
from torch.nn import functional as F

device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else 'cpu'

# 超参数：CPU 上取十分钟训练得完的一组，加速器上取大得多的模型；命令行可以改任何一个，行末的注释就是 --help 里的说明
on_cpu = device == 'cpu'
batch_size = 8 if on_cpu else 64  # 每一步同时看多少首词
block_size = 128 if on_cpu else 256  # 一首词最多看多少个字，再长的截去后面
n_embd = 192 if on_cpu else 384  # 每个字用多少个数表示
n_head = 6  # 注意力分成几个头
n_kv_head = 2  # 几个头的 key 和 value，几个 query 头合用一个
n_layer = 3 if on_cpu else 6  # 叠几层 Block
dropout = 0.0 if on_cpu else 0.2  # 训练时随机丢掉多大比例的数
learning_rate = 2e-3 if on_cpu else 3e-4  # 优化器每一步走多大
max_iters = 7600 if on_cpu else 5000  # 一共训练多少步
warmup_iters = 100  # 学习率用多少步升到最高
eval_interval = 1000 if on_cpu else 500  # 每隔多少步评估一次
eval_iters = 50  # 每次评估取多少批求平均
train_ratio = 0.9  # 前面多大比例的文本用来训练，其余用来验证
max_new_tokens = 100  # 续写多少个字
seed = 1337  # 随机种子：种子相同，结果相同
precision = 'auto'  # 训练时矩阵乘法的精度：float32、bfloat16，或者 auto，各试一秒，用快的
# --preset 的几组：没有显卡的笔记本电脑，苹果的处理器，8 GB 和 24 GB 的显卡，以及和 GPT-2 的 small、medium 一样深、一样宽的
preset_columns = ['batch_size', 'block_size', 'n_embd', 'n_head', 'n_kv_head', 'n_layer', 'precision']
presets = {
    'laptop': [8, 128, 192, 6, 2, 3, 'auto'],
    'mac': [32, 256, 256, 8, 2, 6, 'auto'],
    'gpu8': [64, 256, 384, 6, 2, 6, 'auto'],
    'gpu24': [96, 256, 512, 8, 2, 8, 'bfloat16'],
    'small': [32, 512, 768, 12, 4, 12, 'bfloat16'],
    'medium': [32, 512, 1024, 16, 4, 24, 'bfloat16'],
}
prompts = ['浣溪沙', '菩萨蛮']  # 从这些字开始续写
data_path = Path(__file__).parent.with_name('ci.txt')
model_path = Path(__file__).with_name('model.pth')  # 验证损失最低的模型存在这里
# 填充不是字。F.cross_entropy 遇到 -100 就不计，既没有损失，也没有梯度
padding = -100


def read_text(path, train_ratio, block_size):
    """读出整个文本；读不了，或者不够切出训练集和验证集，就说明原因并退出。"""
    try:
        text = path.read_text(encoding='utf-8-sig')  # 有没有 BOM 都读得对
    except OSError as error:
        sys.exit(f'读不到 {path}（{error.strerror}）：请把这个文件放到这里再运行。')
    except UnicodeDecodeError:
        sys.exit(f'{path} 不是 UTF-8 文本：请另存为 UTF-8 编码再运行。')
    if int(train_ratio * len(split_poems(text, block_size))) == 0:
        sys.exit(f'{path} 里的词太少：训练集和验证集各要有一首以上。')
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


def split_poems(text, block_size):
    """一首词一行，从标题到结尾的空行。没有空行的文本，每 block_size 个字一行，前一行的末字就是后一行的首字。"""
    poems = re.split(r'\n\s*\n', text.strip())
    if len(poems) > 1:
        return [f'{poem}\n\n' for poem in poems]
    return [text[i:i + block_size + 1] for i in range(0, len(text) - 1, block_size)]


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


@torch.no_grad()
def estimate_loss(model, train_poems, val_poems, eval_iters, batch_size):
    """训练集和验证集上每字的平均损失。每次都看同样的词，曲线才平滑、可比。"""
    model.eval()
    losses = {}
    for name, poems in [('train', train_poems), ('val', val_poems)]:
        generator = torch.Generator().manual_seed(0)  # 单独的随机源，不打乱训练用的那一个
        batches = [get_batch(poems, rows) for rows in make_batches(poems[:eval_iters * batch_size], batch_size, generator)]
        sizes = [(y != padding).sum().item() for _, y in batches]  # 各批的字数不同，先加起来，最后才平均
        losses[name] = sum(n * model(x, y)[1].item() for n, (x, y) in zip(sizes, batches)) / sum(sizes)
    model.train()
    return losses


class RMSNorm(nn.Module):
    """把每个位置的数除以它们的均方根：只管大小，不减均值，也没有偏置（Zhang、Sennrich 2019，第 4 节）。"""

    def __init__(self, n_embd):
        super().__init__()
        self.eps = 1e-6  # 全是 0 时也不除以 0
        self.weight = nn.Parameter(torch.ones(n_embd))

    def forward(self, x):
        scale = torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.eps)  # (B, T, 1)
        return self.weight * (x * scale)  # (B, T, n_embd)


def rotary(block_size, head_size, base=10000.0):
    """每个位置上，每一对数该转的角度的余弦和正弦：第 t 个位置转 t 份，各对快慢不同（Su 等 2021，3.4.2 节）。half 是 head_size 的一半。"""
    speeds = base ** (-torch.arange(0, head_size, 2) / head_size)  # (half,)
    angles = torch.arange(block_size)[:, None] * speeds  # (block_size, half)
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    """前一半的每个数和后一半的对应的数是平面上的一点 (x1, x2)，按它的位置转一个角度。"""
    x1, x2 = x.chunk(2, dim=-1)  # (B, n_head, T, half)
    return torch.cat([x1 * cos - x2 * sin, x2 * cos + x1 * sin], dim=-1)  # (B, n_head, T, head_size)


class MultiHeadAttention(nn.Module):
    """多头注意力：同样的宽度切成几个头，每头宽 head_size，按自己的 query、key、value 看上文（Vaswani 等 2017，3.2.2 节）。"""

    def __init__(self, block_size, n_embd, n_head, n_kv_head, dropout):
        super().__init__()
        self.n_head, self.n_kv_head, head_size = n_head, n_kv_head, n_embd // n_head
        self.query = nn.Linear(n_embd, n_embd, bias=False)
        self.key = nn.Linear(n_embd, n_kv_head * head_size, bias=False)
        self.value = nn.Linear(n_embd, n_kv_head * head_size, bias=False)
        self.proj = nn.Linear(n_embd, n_embd, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.q_norm = RMSNorm(head_size)
        self.k_norm = RMSNorm(head_size)
        cos, sin = rotary(block_size, head_size)  # (block_size, half)
        self.register_buffer('cos', cos, persistent=False)
        self.register_buffer('sin', sin, persistent=False)

    def forward(self, x):
        T = x.size(1)
        q = self.query(x).unflatten(2, (self.n_head, -1)).transpose(1, 2)  # (B, n_head, T, head_size)
        k = self.key(x).unflatten(2, (self.n_kv_head, -1)).transpose(1, 2)  # (B, n_kv_head, T, head_size)
        v = self.value(x).unflatten(2, (self.n_kv_head, -1)).transpose(1, 2)  # (B, n_kv_head, T, head_size)
        q, k = self.q_norm(q), self.k_norm(k)  # (B, n_head, T, head_size)
        # q 和 k 各转了自己的角度，点积里只剩下两个角度的差：相隔几个字
        q, k = rotate(q, self.cos[:T], self.sin[:T]), rotate(k, self.cos[:T], self.sin[:T])  # (B, n_head, T, head_size)
        # 缩放、掩码、softmax、加权一次算完；enable_gqa：相邻的几个 query 头合用同一个 key 头和 value 头，不用复制
        p = self.dropout.p if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True, enable_gqa=True)  # (B, n_head, T, head_size)
        out = out.transpose(1, 2).flatten(2)  # (B, T, n_embd)
        return self.dropout(self.proj(out))  # (B, T, n_embd)


class FeedForward(nn.Module):
    """前馈网络：每个位置单独加工取来的信息，先放宽到 8/3 倍，一半当闸门，开多大由它定（SwiGLU，Shazeer 2020，第 2 节）。"""

    def __init__(self, n_embd, dropout):
        super().__init__()
        hidden = 8 * n_embd // 3  # 三个矩阵，合起来和原来的两个 4 倍宽的一样大
        self.gate = nn.Linear(n_embd, hidden, bias=False)
        self.up = nn.Linear(n_embd, hidden, bias=False)
        self.down = nn.Linear(hidden, n_embd, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        x = F.silu(self.gate(x)) * self.up(x)  # (B, T, hidden)
        return self.dropout(self.down(x))  # (B, T, n_embd)


class Block(nn.Module):
    """一层：先用注意力互相交流，再用前馈网络各自加工。"""

    def __init__(self, block_size, n_embd, n_head, n_kv_head, dropout):
        super().__init__()
        self.sa = MultiHeadAttention(block_size, n_embd, n_head, n_kv_head, dropout)
        self.ffwd = FeedForward(n_embd, dropout)
        self.ln1 = RMSNorm(n_embd)
        self.ln2 = RMSNorm(n_embd)

    def forward(self, x):
        x = x + self.sa(self.ln1(x))  # (B, T, n_embd)
        x = x + self.ffwd(self.ln2(x))  # (B, T, n_embd)
        return x


class BabyGPT(nn.Module):
    """从每个位置的字算出下一个字的得分；反复取下一个字，就是写作。"""

    def __init__(self, vocab_size, block_size, n_embd, n_head, n_kv_head, n_layer, dropout):
        super().__init__()
        self.block_size = block_size
        self.token_embedding_table = nn.Embedding(vocab_size, n_embd)
        self.blocks = nn.Sequential(*[Block(block_size, n_embd, n_head, n_kv_head, dropout) for _ in range(n_layer)])
        self.ln_f = RMSNorm(n_embd)
        self.lm_head = nn.Linear(n_embd, vocab_size, bias=False)
        self.token_embedding_table.weight = self.lm_head.weight  # 同一个矩阵：读进来和写出去，一个字都是同样的 n_embd 个数

    def forward(self, idx, targets=None):
        """idx 和 targets 是 (B, T) 的编号；返回得分 (B, T, V) 和每字平均损失（nat），没有 targets 时损失是 None。"""
        x = self.token_embedding_table(idx)  # (B, T, n_embd)
        x = self.blocks(x)  # (B, T, n_embd)
        x = self.ln_f(x)  # (B, T, n_embd)
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
    """从 prompt（词牌，或者整个标题）写起，写到空行，就是一首；最多写 max_new_tokens 个字。"""
    idx = torch.tensor([tokenizer.encode(prompt)], device=device)  # (1, T)
    model.eval()
    for _ in range(max_new_tokens):
        idx = model.generate(idx, 1)  # (1, T+1)
        if tokenizer.decode(idx[0, -2:].tolist()) == '\n\n':
            break
    model.train()
    return tokenizer.decode(idx[0].tolist()).rstrip('\n')


def get_lr(step, learning_rate, warmup_iters, max_iters):
    """第 step 步的学习率：前 warmup_iters 步从小升到 learning_rate，此后每步降得一样多，到 max_iters 降到 0。"""
    return learning_rate * min((step + 1) / warmup_iters, (max_iters - step) / (max_iters - warmup_iters))


def compile_model(model, x, y):
    """torch.compile 过的模型，和原来的是同一组参数；这里没有它要的编译器，就说明原因并退出。x 和 y 是 (B, T)。"""
    compiled = torch.compile(model, dynamic=True)  # 各批的 T 不同，dynamic 让一次编译管所有的 T
    try:
        with torch.random.fork_rng():
            compiled(x, y)[1].backward()  # 算第一次的时候才编译
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # 缺的东西不同，torch 报的错就不同
        reason = str(error).strip().split('\n')[0]
        raise SystemExit(f'这里用不了 --compile（{reason}）：装好 C++ 编译器（显卡还要 triton）再试，或者用 --no-compile。') from error
    return compiled


def time_steps(forward, x, y, seconds=1.0):
    """同一批词 (B, T)，float32 和 bfloat16 轮流算损失和梯度，各算 seconds 秒，返回各自最快的一步用了几秒。参数不变，随机数还回去。"""
    fastest = {'float32': float('inf'), 'bfloat16': float('inf')}
    n_rounds, started = 0, time.perf_counter()
    with torch.random.fork_rng():
        while n_rounds < 3 or time.perf_counter() - started < len(fastest) * seconds:
            for name, best in fastest.items():
                began = time.perf_counter()
                with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=name == 'bfloat16'):
                    _, loss = forward(x, y)
                loss.backward()
                if device != 'cpu':
                    torch.accelerator.synchronize()
                fastest[name] = min(best, time.perf_counter() - began)
            n_rounds += 1
    return fastest


def start_tracking(config):
    """开始一次 wandb 记录：登录过就同步到网上，否则记在本地；设了 WANDB_MODE 就照它办。"""
    try:
        mode = os.environ.get('WANDB_MODE') or ('online' if wandb.login(prompt=False) else 'offline')
        return wandb.init(project='babygpt', config=config, mode=mode)
    except (wandb.Error, ValueError) as error:
        if 'WANDB_MODE' in os.environ:
            sys.exit(f'按 WANDB_MODE={os.environ["WANDB_MODE"]} 启动不了 wandb：{error}')
        print(f'连不上 wandb，改为离线记录：{error}')
        return wandb.init(project='babygpt', config=config, mode='offline')


def save(path, content):
    """先写成临时文件再改名：写到一半被打断，或者磁盘满了，原来的文件都完好。"""
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        sys.exit(f'写不了 {path}（{error.strerror}）：请腾出空间或改好权限再运行，原来的文件没有动。')


def pack(model, tokenizer):
    """把参数、重建模型要用的超参数和词表打包成一段字节：写词的脚本只需要这些。"""
    hyper_params = {'block_size': block_size, 'n_embd': n_embd, 'n_head': n_head, 'n_kv_head': n_kv_head, 'n_layer': n_layer,
                    'dropout': dropout}
    vocabulary = ''.join(tokenizer.chars)
    buffer = io.BytesIO()
    torch.save({'rung': Path(__file__).stem, 'model': model.state_dict(), 'hyper_params': hyper_params,
                'vocabulary': vocabulary}, buffer)
    return buffer.getvalue()


def parse_args():
    """命令行上给了的超参数用给的值，没给的用顶部的默认值；说不通的值，训练之前就指出来。返回这些值和读出的文本。"""
    parser = argparse.ArgumentParser(
        usage='%(prog)s [--名称 值 ...]', description='训练 BabyGPT。', add_help=False, allow_abbrev=False)
    options = parser.add_argument_group('选项（默认值随设备而定）')
    # 顶部的每个数都是一个选项，行末的注释就是它的说明
    source = Path(__file__).read_text(encoding='utf-8')
    for name, meaning in re.findall(r'^(\w+) = .+  # (.+)$', source, flags=re.MULTILINE):
        default = globals()[name]
        if isinstance(default, (int, float)):
            options.add_argument(f'--{name}', type=type(default), default=default, metavar='值',
                                 help=f'{meaning}（默认 {default}）')
    options.add_argument('--prompts', nargs='+', metavar='文字', help=f'从这些字开始续写（默认 {" ".join(prompts)}）')
    options.add_argument('--data', type=Path, default=data_path, metavar='文件', dest='data_path',
                         help=f'用来训练的 UTF-8 文本（默认 {data_path.name}）')
    options.add_argument('--precision', choices=['auto', 'float32', 'bfloat16'], default=precision, metavar='精度',
                         help='训练时矩阵乘法用 float32 还是 bfloat16；auto 各试一秒，用快的（默认 auto）')
    options.add_argument('--compile', action=argparse.BooleanOptionalAction, help='用 torch.compile，要有 C++ 编译器，显卡还要 triton')
    options.add_argument('--preset', metavar='名称', help=f'用一组现成的大小、批和精度：{"、".join(presets)}')
    options.add_argument('-h', '--help', action='help', help='显示这段说明')
    preset = parser.parse_known_args()[0].preset
    if preset not in [None, *presets]:
        parser.error(f'没有 --preset {preset}：有的是 {"、".join(presets)}')
    parser.set_defaults(**dict(zip(preset_columns, presets.get(preset, []))))  # 命令行上另外给了的，仍用给的值
    args = parser.parse_args()

    for name, value in vars(args).items():
        zero = value == 0 and name in ['dropout', 'seed']  # 只有这两个可以是 0
        if type(value) is int and not (zero or 0 < value < 2 ** 63):
            parser.error(f'--{name} 必须大于 0，小于 2^63')
        if isinstance(value, float) and not (zero or 0 < value < 1):
            parser.error(f'--{name} 必须在 0 和 1 之间')
    if args.n_embd % args.n_head:
        parser.error(f'--n_embd {args.n_embd} 不能被 --n_head {args.n_head} 整除，分不成一样宽的头')
    if args.n_head % args.n_kv_head:
        parser.error(f'--n_head {args.n_head} 不能被 --n_kv_head {args.n_kv_head} 整除，query 头分不成一样大的组')
    if args.n_embd // args.n_head % 2:
        parser.error(f'--n_embd {args.n_embd} 分成 {args.n_head} 个头，每头 {args.n_embd // args.n_head} 个数，是奇数，配不成对来旋转')
    if args.warmup_iters >= args.max_iters:
        parser.error(f'--warmup_iters {args.warmup_iters} 必须小于 --max_iters {args.max_iters}，否则学习率升不到最高')

    text = read_text(args.data_path, args.train_ratio, args.block_size)
    if args.prompts is None:  # 别人的文本里不一定有这两个词牌
        args.prompts = prompts if set(text).issuperset(''.join(prompts)) else [text[:2]]
    if '' in args.prompts:
        parser.error('--prompts 不能是空的')
    unknown = set().union(*args.prompts) - set(text)
    if unknown:
        parser.error(f'--prompts 里有 {args.data_path} 中没有的字：{" ".join(sorted(unknown))}')

    # 首尾合用的一张按字的表，每层 10 个 n_embd × n_embd 的方阵（query、proj，前馈网络 8 个），key 和 value 小一些，别的参数很少
    n_squares = 10 + 2 * args.n_kv_head / args.n_head
    n_params = len(set(text)) * args.n_embd + int(n_squares * args.n_layer * args.n_embd ** 2)
    n_angles = args.n_layer * args.block_size * args.n_embd // args.n_head
    n_numbers = 4 * n_params + n_angles  # 参数、梯度、AdamW 为每个参数记的两个数，每层旋转用的余弦和正弦
    try:
        torch.empty(n_numbers, device=device)  # 先试试放不放得下
    except (RuntimeError, TypeError):
        sys.exit(f'模型太大，内存放不下：约 {n_params:,} 个参数，连同梯度、AdamW 记的数和角度要 {4 * n_numbers / 1e9:,.0f} GB。'
                 '请调小 --n_embd、--n_layer 或 --block_size。')
    return args, text


def main():
    args, text = parse_args()
    globals().update(vars(args))  # 从这里起，顶部的常量就是这一次的取值
    torch.manual_seed(seed)
    tokenizer = Tokenizer(text)
    poems = split_poems(text, block_size)
    n_cut = sum(len(poem) > block_size + 1 for poem in poems)
    poems = pad([poem[:block_size + 1] for poem in poems], tokenizer).to(device)  # (N, L)
    n_train = int(train_ratio * len(poems))
    train_poems, val_poems = poems[:n_train], poems[n_train:]

    model = BabyGPT(tokenizer.vocab_size, block_size, n_embd, n_head, n_kv_head, n_layer, dropout).to(device)
    # 没写 weight_decay，就是默认的 0.01：每走一步，每个参数还往 0 缩一点，乘以 1 - 0.01 × learning_rate
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, fused=True)
    n_params = sum(p.numel() for p in model.parameters())
    print(f'设备 {device}，词表 {tokenizer.vocab_size:,} 字，训练集 {len(train_poems):,} 首，'
          f'验证集 {len(val_poems):,} 首，{n_cut:,} 首太长，只看前 {block_size} 字，模型 {n_params:,} 个参数')

    with torch.random.fork_rng():  # 试用的一批词是随机取的，随机数要还回去
        x, y = get_batch(train_poems, make_batches(train_poems, batch_size)[0])  # (B, T)
    forward = compile_model(model, x, y) if args.compile else model
    if precision == 'auto':
        seconds = time_steps(forward, x, y)
        args.precision = min(seconds, key=seconds.get)
        print(f'各试一秒，一步 float32 {seconds["float32"] * 1000:.1f} 毫秒，bfloat16 {seconds["bfloat16"] * 1000:.1f} 毫秒：'
              f'用 {args.precision}')

    run = start_tracking({**vars(args), 'device': str(device), 'n_params': n_params})
    best_val = float('inf')
    interrupted = False

    def interrupt(*_):
        """第一次按 Ctrl-C：走完这一步，评估、保存，然后收尾；再按一次：立刻退出。"""
        nonlocal interrupted
        interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, interrupt)
    started = resumed = time.perf_counter()
    train_seconds = 0.0
    batches, n_chars = [], 0
    for step in range(max_iters + 1):
        last = step == max_iters or interrupted
        if interrupted:
            print('收到 Ctrl-C，评估、保存之后停下；再按一次立刻退出。')
        if step % eval_interval == 0 or last:
            train_seconds += time.perf_counter() - resumed
            losses = estimate_loss(model, train_poems, val_poems, eval_iters, batch_size)
            speed = n_chars / train_seconds
            seconds = time.perf_counter() - started
            left = f'{seconds / step * (max_iters - step):.0f}' if step else '?'
            print(f'第 {step:5d} 步  训练损失 {losses["train"]:.4f}  验证损失 {losses["val"]:.4f}'
                  f'  每秒 {speed:7,.0f} 字  还要 {left:>4} 秒')
            with torch.random.fork_rng():  # 写词用掉的随机数要还回去，训练不受影响
                poems = [[step, write(model, tokenizer, prompt, max_new_tokens)] for prompt in prompts]
            run.log({'train/loss': losses['train'], 'val/loss': losses['val'], 'tokens_per_second': speed,
                     'poems': wandb.Table(columns=['step', 'poem'], data=poems)}, step=step)
            if step and losses['val'] < best_val:
                if best_val == float('inf') and model_path.exists():  # 上一次训练的模型也许更好，留一份
                    save(model_path.with_name('model.prev.pth'), model_path.read_bytes())
                best_val = losses['val']
                save(model_path, pack(model, tokenizer))
                print(f'        验证损失是目前最低，已存到 {model_path.name}')
            resumed = time.perf_counter()
        if last:
            break
        batches = batches or make_batches(train_poems, batch_size)  # 一轮看完，再开始一轮
        x, y = get_batch(train_poems, batches.pop())  # (B, T)
        n_chars += (y != padding).sum().item()
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=args.precision == 'bfloat16'):
            _, loss = forward(x, y)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # 所有梯度合成一个向量，长过 1 就缩到 1
        for group in optimizer.param_groups:
            group['lr'] = get_lr(step, learning_rate, warmup_iters, max_iters)
        optimizer.step()

    signal.signal(signal.SIGINT, signal.default_int_handler)
    for prompt in prompts:
        print(f'\n{write(model, tokenizer, prompt, max_new_tokens)}')
    if run.offline:
        folder = Path(run.dir).parent
        print(f'\n这次训练离线记录在 {folder}\n看曲线：wandb leet {folder}\n以后上传：wandb sync {folder}')
    run.finish()


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\n已中断。')
    except torch.OutOfMemoryError:
        sys.exit('显存放不下：请调小 --batch_size 或 --block_size，或者换小一些的 --preset。')
