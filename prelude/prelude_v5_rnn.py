"""循环神经网络（RNN）：从左到右一个字一个字地读，把读过的一切记在一串数里

新的一点：隐藏状态 h。每读一个字 x，就和旧的 h 合成新的 h：h = tanh(W x + U h + b)，tanh 把每个数压到 -1 和 1 之间；猜下一个字，只看 h。
根目录的 v1 只看最后一个字；这里同一个字，前面读过的不同，h 就不同，预测也不同。h 的大小不随读了多少变，所以读多长都行。
字用独热（one-hot）交给网络：词表有 V 个字，就是 V 个数，这个字的那一个是 1，其余都是 0，乘 W 就只留下 W 的一列。
代价有两个。每一步都要等上一步，一段文字不能各个位置同时算；求导也要一步一步往回传，每退一步就乘一次 U 和 tanh 的导数，
隔得越远，得到的导数（合起来叫梯度）越小，远处的字就难学到。把 RNNCell 换成 GRUCell（模型里改一个词）：它的门能让旧的 h 原样留下。

你会看到：损失从 ln 4543 ≈ 8.42（在 4,543 个字里瞎猜）附近降到根目录的 v1 的下面；最后一个预测对前面各个字的梯度，往前数得越远越小。

运行（不到一分钟）：python prelude/prelude_v5_rnn.py
画成图：python prelude/prelude_v5_rnn.py --plot gradient.png
和 v1 对照：git diff --no-index babygpt_v1.py prelude/prelude_v5_rnn.py
出处：RNN，Elman（1990）；GRU，Cho 等（2014），其中 r 乘在 U h 之后，和 PyTorch 的一样。
"""

import argparse
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else 'cpu'

# 超参数：v1 到 v10 的取值相同，损失才能互相比较
batch_size = 8  # 每一步同时看多少段文本
block_size = 32  # 每段文本有多少个字
n_hidden = 64  # 隐藏状态有多少个数：读过的一切都记在这里
learning_rate = 4e-3  # 优化器每一步走多大
max_iters = 3000  # 一共训练多少步
eval_interval = 500  # 每隔多少步评估一次
eval_iters = 100  # 每次评估取多少批求平均
train_ratio = 0.9  # 前面多大比例的文本用来训练，其余用来验证
max_new_tokens = 100  # 续写多少个字
seed = 1337  # 随机种子：种子相同，结果相同
prompts = ['春江', '往事']  # 从这些字开始续写
data_path = Path(__file__).parent.with_name('ci.txt')


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


class RNNCell(nn.Module):
    """读一个字：h = tanh(W x + U h + b)，新的隐藏状态由这个字 x 和旧的隐藏状态 h 合成（Elman 1990）。"""

    def __init__(self, n_input, n_hidden):
        super().__init__()
        self.input = nn.Linear(n_input, n_hidden)  # W 和 b
        self.hidden = nn.Linear(n_hidden, n_hidden, bias=False)  # U

    def forward(self, wx, h):
        """wx 是 self.input(x)，(B, n_hidden)；h 和返回的新 h 也是 (B, n_hidden)。"""
        return torch.tanh(wx + self.hidden(h))  # (B, n_hidden)


class GRUCell(nn.Module):
    """带门的写法：门是 0 到 1 之间的数，r 决定旧的 h 有多少进得了草稿 n，z 决定 h 留下多少、换成 n 多少（Cho 等 2014）。"""

    def __init__(self, n_input, n_hidden):
        super().__init__()
        self.input = nn.Linear(n_input, 3 * n_hidden)  # r、z、n 的 W 和 b 叠在一起
        self.hidden = nn.Linear(n_hidden, 3 * n_hidden)  # r、z、n 的 U 和 b 叠在一起

    def forward(self, wx, h):
        """wx 是 self.input(x)，(B, 3 * n_hidden)；h 和返回的新 h 是 (B, n_hidden)。"""
        wr, wz, wn = wx.chunk(3, dim=-1)  # (B, n_hidden)
        ur, uz, un = self.hidden(h).chunk(3, dim=-1)  # (B, n_hidden)
        r = torch.sigmoid(wr + ur)  # (B, n_hidden)
        z = torch.sigmoid(wz + uz)  # (B, n_hidden)
        n = torch.tanh(wn + r * un)  # (B, n_hidden)
        return z * h + (1 - z) * n  # (B, n_hidden)


class CharRNN(nn.Module):
    """从每个位置的字算出下一个字的得分；反复取下一个字，就是写作。"""

    def __init__(self, vocab_size, n_hidden):
        super().__init__()
        self.vocab_size = vocab_size
        self.n_hidden = n_hidden
        self.cell = RNNCell(vocab_size, n_hidden)  # 换成 GRUCell，就是 GRU
        self.lm_head = nn.Linear(n_hidden, vocab_size)

    def read(self, x):
        """从左到右读 x (B, T, V)，返回读完每个字之后的隐藏状态 (B, T, n_hidden)。"""
        wx = self.cell.input(x)  # 和 h 无关，各个位置一次算完
        h = x.new_zeros(len(x), self.n_hidden)  # (B, n_hidden)
        states = []
        for t in range(x.size(1)):  # 每一步都要等上一步的 h，所以只能逐字往前
            h = self.cell(wx[:, t], h)  # (B, n_hidden)
            states.append(h)
        return torch.stack(states, dim=1)  # (B, T, n_hidden)

    def forward(self, idx, targets=None):
        """idx 和 targets 是 (B, T) 的编号；返回得分 (B, T, V) 和每字平均损失（nat），没有 targets 时损失是 None。"""
        x = F.one_hot(idx, self.vocab_size).float()  # (B, T, V)
        x = self.read(x)  # (B, T, n_hidden)
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


def gradient_norms(model, idx, targets):
    """最后一个预测的损失对每个位置的输入求导，返回梯度的长度 (T,)：越短，那个字对这个预测越说不上话。"""
    x = F.one_hot(idx, model.vocab_size).float().requires_grad_()  # (B, T, V)
    logits = model.lm_head(model.read(x)[:, -1])  # (B, V)
    loss = F.cross_entropy(logits, targets[:, -1], reduction='sum')  # 各段互不相干，加起来求导，还是各是各的
    gradient, = torch.autograd.grad(loss, x)  # (B, T, V)
    return gradient.norm(dim=-1).mean(dim=0)  # (T,)


def plot(path, norms):
    """用 matplotlib 把梯度的长度画进文件：横轴是往前数第几个字，纵轴取对数。"""
    from matplotlib.figure import Figure
    figure = Figure()
    axes = figure.subplots()
    axes.semilogy(range(1, len(norms) + 1), norms, 'o-')
    axes.set(xlabel='characters back', ylabel='gradient norm')
    try:
        figure.savefig(path)
    except OSError as error:
        sys.exit(f'图存不进 {path}：{error}')


def parse_args():
    """命令行上的选项；不能用的，训练之前就指出来。"""
    parser = argparse.ArgumentParser(usage='%(prog)s [选项]', add_help=False, allow_abbrev=False)
    options = parser.add_argument_group('选项')
    options.add_argument('--plot', type=Path, metavar='文件', help='用 matplotlib 把结果画成图，存进这个文件，例如 picture.png')
    options.add_argument('-h', '--help', action='help', help='显示这段说明')
    args = parser.parse_args()
    if args.plot:
        if not find_spec('matplotlib'):
            parser.error('--plot 要用 matplotlib，还没有安装：请先运行 pip install -r prelude/requirements.txt')
        if args.plot.suffix.lower() not in ('.png', '.jpg', '.svg', '.pdf'):
            parser.error(f'--plot {args.plot} 不知道是哪种图：文件名请用 .png、.jpg、.svg 或 .pdf 结尾')
        try:
            if not args.plot.parent.is_dir():
                parser.error(f'--plot 的文件夹 {args.plot.parent} 不存在：请先建好它，或者换一个')
            new = not args.plot.exists()
            args.plot.open('ab').close()  # 打得开，就写得进；原来有的内容不动
            if new:
                args.plot.unlink()
        except OSError as error:
            parser.error(f'--plot 写不进 {args.plot}（{error.strerror}）：请换一个')
    return args


def main():
    args = parse_args()
    torch.manual_seed(seed)
    text = read_text(data_path, train_ratio, block_size)
    tokenizer = Tokenizer(text)
    data = torch.tensor(tokenizer.encode(text), device=device)
    n_train = int(train_ratio * len(data))
    train_data, val_data = data[:n_train], data[n_train:]

    model = CharRNN(tokenizer.vocab_size, n_hidden).to(device)
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

    norms = gradient_norms(model, *get_batch(val_data, 100, block_size)).flip(0).tolist()  # 从近到远
    print('\n最后一个预测对前面各个字的梯度有多长')
    for distance in [2 ** i for i in range(block_size.bit_length())]:
        print(f'往前数第 {distance:2d} 个字  {norms[distance - 1]:.6f}')

    for prompt in prompts:
        print(f'\n{write(model, tokenizer, prompt, max_new_tokens)}')
    if args.plot:
        plot(args.plot, norms)


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\n已中断。')
