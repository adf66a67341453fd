"""认数字：多层感知机，中间加一层，从十个答案里选一个

新的一点：v2 的界线永远是直的，圈里是「是」、圈外是「否」，它就分不开。在中间加一层：先加权求和出几百个数，负的改成 0（ReLU），
再从它们加权求和。少了改成 0 这一步，两次求和合起来还是一次，界线仍是直的；有了它，中间够宽，界线就能弯成各种形状。
答案有十个，得分就有十个，哪个最高就答哪个；softmax 把十个得分变成加起来等于 1 的概率，F.cross_entropy 把它和取对数合在一起算。
循环一个字也没有改，数据换成真的：scikit-learn 带着的手写数字，每幅 8 × 8 个点。MNIST 是更大的一套，有它的四个文件的，用 --mnist。

你会看到：训练损失一路往下，验证损失降到半路就停住，两个差得越来越远，这就是过拟合。验证集的数字大多认得，
可是整幅图往右移一格，答对的就少了一大截：对它来说，每个点是单独的一个数，移一格，每个数都变了。

运行（几秒，不用 GPU）：python prelude/prelude_v3_mlp.py
画成图：python prelude/prelude_v3_mlp.py --plot digits.png
用 MNIST：python prelude/prelude_v3_mlp.py --mnist 放着四个文件的文件夹
和上一级对照：git diff --no-index prelude/prelude_v2_logistic_regression.py prelude/prelude_v3_mlp.py
"""

import argparse
import gzip
import math
import sys
import zlib
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

n_hidden = 256  # 中间一层有多少个数
batch_size = 32  # 每一步看多少幅图
learning_rate = 0.3  # 每一步走多大
max_iters = 1000  # 一共训练多少步
eval_interval = 100  # 每隔多少步评估一次
eval_size = 2000  # 评估时最多看多少幅图
train_ratio = 0.8  # 前面多大比例的图用来训练，其余用来验证
seed = 1337  # 随机种子：种子相同，结果相同


def read_idx(folder, name):
    """读 MNIST 的一个文件，压缩过的也行：开头说有几维、各维多大，后面每个字节是一个数。"""
    path = folder / name
    try:
        if not path.is_file():
            path = folder / f'{name}.gz'
        data = gzip.decompress(path.read_bytes()) if path.suffix == '.gz' else path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        sys.exit(f'{folder} 里没有 {name}，也没有 {name}.gz：MNIST 的四个文件都要在。')
    except (OSError, EOFError, zlib.error) as error:
        sys.exit(f'{path} 读不出来（{error}）：它可能不完整，或者不让读；请重新下载，或者换一个文件夹。')
    n_dims = 3 if 'images' in name else 1
    shape = [int.from_bytes(data[i:i + 4]) for i in range(4, 4 * n_dims + 4, 4)]
    values = data[4 * n_dims + 4:]
    if data[:4] != bytes([0, 0, 8, n_dims]) or len(values) != math.prod(shape) or not values:
        sys.exit(f'{path} 不是 MNIST 的文件，或者不完整：请重新下载。')
    return torch.frombuffer(bytearray(values), dtype=torch.uint8).view(shape)


def read_data(mnist, train_ratio):
    """训练集和验证集，各是 (图 (N, S, S)，数字 (N,))：图上一点从 0（空白）到 1（最深）。mnist 是文件夹，或者 None。"""
    if mnist:
        data = []
        for name in ('train', 't10k'):
            x, y = read_idx(mnist, f'{name}-images-idx3-ubyte') / 255, read_idx(mnist, f'{name}-labels-idx1-ubyte').long()
            if len(x) != len(y) or y.max() > 9:
                sys.exit(f'{mnist} 里 {name} 的图和答案对不上：{len(x):,} 幅图，{len(y):,} 个答案，最大的是 {y.max()}。')
            data.append((x, y))
        return data
    if not find_spec('sklearn'):
        sys.exit('手写数字在 scikit-learn 里，还没有安装：请先运行 pip install -r prelude/requirements.txt')
    from sklearn.datasets import load_digits
    digits = load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32) / 16  # (N, S, S)
    y = torch.tensor(digits.target)  # (N,)
    order = torch.randperm(len(x))  # (N,)
    x, y = x[order], y[order]  # (N, S, S)
    n_train = int(train_ratio * len(x))
    return (x[:n_train], y[:n_train]), (x[n_train:], y[n_train:])


def get_batch(data, batch_size):
    """随机取 batch_size 个 x，以及它们各自的答案 y。"""
    x, y = data
    rows = torch.randint(len(x), (batch_size,))  # (B,)
    return x[rows], y[rows]


@torch.no_grad()
def estimate_loss(model, train_data, val_data):
    """训练集和验证集上的平均损失，最多看前 eval_size 幅。"""
    model.eval()
    losses = {}
    for name, (x, y) in [('train', train_data), ('val', val_data)]:
        losses[name] = model(x[:eval_size], y[:eval_size])[1].item()
    model.train()
    return losses


class MLP(nn.Module):
    """多层感知机：加权求和出 n_hidden 个数，负的改成 0，再从它们加权求和出每一类的得分。

    注释里的形状：B 是一次看几幅图，S 是图的边长，n_in 是一幅图有几个点，S × S。
    """

    def __init__(self, n_in, n_hidden, n_classes):
        super().__init__()
        self.hidden = nn.Linear(n_in, n_hidden)
        self.out = nn.Linear(n_hidden, n_classes)

    def forward(self, x, targets=None):
        """x 是 (B, S, S)，targets 是 (B,)；返回得分 (B, n_classes) 和交叉熵（nat），没有 targets 时损失是 None。"""
        x = x.flatten(1)  # (B, n_in)
        x = F.relu(self.hidden(x))  # (B, n_hidden)
        logits = self.out(x)  # (B, n_classes)
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits, targets)


def shift(x):
    """把图往右移八分之一：右边的切掉，左边补上空白。"""
    return F.pad(x, (x.size(2) // 8, 0))[:, :, :x.size(2)]


def draw(images, answers, truths):
    """在终端里并排画几幅图，下面是模型的答案和真正的答案。"""
    if images.size(2) > 16:
        images = F.avg_pool2d(images, images.size(2) // 8)  # 太大的缩小些，并排才放得下
    shades = ' .:+*#@'
    for row in (images * (len(shades) - 1)).round().int().transpose(0, 1).tolist():
        print('  '.join(''.join(2 * shades[i] for i in line) for line in row))
    pad = ' ' * (2 * images.size(2) - 9)
    print('  '.join(f'答 {answer} 是 {truth}{pad}' for answer, truth in zip(answers.tolist(), truths.tolist())))


def plot(path, images, answers, truths):
    """用 matplotlib 把几排这样的图画进文件，标题是模型的答案，括号里是真正的答案，答错的是红色。"""
    from matplotlib.figure import Figure
    figure = Figure(layout='constrained')
    for i, axes in enumerate(figure.subplots(len(images) // 4, 4).flat):
        axes.imshow(images[i], cmap='gray_r')
        axes.set_title(f'{answers[i]} ({truths[i]})', color='black' if answers[i] == truths[i] else 'red')
        axes.set(xticks=[], yticks=[])
    try:
        figure.savefig(path)
    except OSError as error:
        sys.exit(f'图存不进 {path}：{error}')


@torch.no_grad()
def show(model, data, path):
    """打印 data 上答对多少，移动之后又是多少，各画四幅；path 不是 None，就再画成图。"""
    x, y = data
    both = [('验证集', x), ('右移之后', shift(x))]
    answers = [model(images)[0].argmax(dim=1) for _, images in both]
    for (name, images), given in zip(both, answers):
        print(f'\n{name}答对 {(given == y).float().mean():.1%}，前四幅：')
        draw(images[:4], given[:4], y[:4])
    if path:
        plot(path, torch.cat([images[:4] for _, images in both]), torch.cat([given[:4] for given in answers]), y[:4].repeat(2))


def parse_args():
    """命令行上的选项；不能用的，训练之前就指出来。"""
    parser = argparse.ArgumentParser(usage='%(prog)s [选项]', add_help=False, allow_abbrev=False)
    options = parser.add_argument_group('选项')
    options.add_argument('--plot', type=Path, metavar='文件', help='用 matplotlib 把结果画成图，存进这个文件，例如 picture.png')
    options.add_argument('--mnist', type=Path, metavar='文件夹', help='改用这里的 MNIST，四个文件，压缩没压缩都行')
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
    train_data, val_data = read_data(args.mnist, train_ratio)

    model = MLP(train_data[0][0].numel(), n_hidden, n_classes=10)
    # 梯度下降：每一步，每个参数减去 learning_rate × 损失对它的导数
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    n_params = sum(p.numel() for p in model.parameters())
    print(f'训练集 {len(train_data[1]):,} 个，验证集 {len(val_data[1]):,} 个，模型 {n_params:,} 个参数')

    for step in range(max_iters + 1):
        last = step == max_iters
        if step % eval_interval == 0 or last:
            losses = estimate_loss(model, train_data, val_data)
            print(f'第 {step:5d} 步  训练损失 {losses["train"]:.4f}  验证损失 {losses["val"]:.4f}')
        if last:
            break
        x, y = get_batch(train_data, batch_size)
        _, loss = model(x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    show(model, val_data, args.plot)


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\n已中断。')
