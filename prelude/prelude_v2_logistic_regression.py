"""是或否：逻辑回归，在平面上找一条界线

新的一点：答案不是一个数，而是「是」或「否」。仍是加权求和，得到的叫得分（logit）；sigmoid 把得分变成 0 到 1 之间的概率，
得分 0 就是一半一半，得分是 0 的那些点连起来，就是界线。
为什么换损失：概率猜得好不好，用交叉熵来量：给正确答案的概率，取自然对数，再取负，单位叫 nat。越有把握却猜错，罚得越重，
没有上限；平方误差最多罚 1。F.binary_cross_entropy_with_logits 把 sigmoid 和取对数合在一起算，所以给它的是得分。

你会看到：损失降下来，停住，同样到不了 0：界线附近的点，本来就有的是、有的否。找到的界线和真正的界线几乎重合，
概率也是真的：模型说可能性八成的那些点，大约八成是「是」。

运行（几秒，不用 GPU）：python prelude/prelude_v2_logistic_regression.py
画成图：python prelude/prelude_v2_logistic_regression.py --plot boundary.png
和上一级对照：git diff --no-index prelude/prelude_v1_linear_regression.py prelude/prelude_v2_logistic_regression.py
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

true_weight = [1.0, 2.0]  # 真正的 weight，要学的就是它们
true_bias = -0.5  # 真正的 bias，也要学
n_points = 1000  # 造多少个点
batch_size = 32  # 每一步看多少个点
learning_rate = 0.1  # 每一步走多大
max_iters = 1000  # 一共训练多少步
eval_interval = 100  # 每隔多少步评估一次
train_ratio = 0.8  # 前面多大比例的点用来训练，其余用来验证
seed = 1337  # 随机种子：种子相同，结果相同


def make_data(true_weight, true_bias, n_points, train_ratio):
    """造出训练集和验证集，各是 (x (N, n_in), y (N,))：y 是 1（是）或 0（否），照真正的概率抽出来。"""
    x = 6 * torch.rand(n_points, len(true_weight)) - 3  # (N, n_in)
    y = x @ torch.tensor(true_weight) + true_bias  # (N,)
    y = torch.bernoulli(torch.sigmoid(y))  # (N,)
    n_train = int(train_ratio * n_points)
    return (x[:n_train], y[:n_train]), (x[n_train:], y[n_train:])


def get_batch(data, batch_size):
    """随机取 batch_size 个 x，以及它们各自的答案 y。"""
    x, y = data
    rows = torch.randint(len(x), (batch_size,))  # (B,)
    return x[rows], y[rows]


@torch.no_grad()
def estimate_loss(model, train_data, val_data):
    """训练集和验证集上的平均损失。"""
    model.eval()
    losses = {}
    for name, (x, y) in [('train', train_data), ('val', val_data)]:
        losses[name] = model(x, y)[1].item()
    model.train()
    return losses


class LogisticRegression(nn.Module):
    """加权求和，再加一个数：n_in 个 weight、一个 bias 从随便的数开始，等着被学出来。

    注释里的形状：B 是一次看几个点，n_in 是每个点有几个数。
    """

    def __init__(self, n_in):
        super().__init__()
        self.linear = nn.Linear(n_in, 1)

    def forward(self, x, targets=None):
        """x 是 (B, n_in)，targets 是 (B,)；返回得分 (B,) 和交叉熵（nat），没有 targets 时损失是 None。"""
        logits = self.linear(x).squeeze(1)  # (B,)
        if targets is None:
            return logits, None
        return logits, F.binary_cross_entropy_with_logits(logits, targets)


def draw(layers, width=64, height=20):
    """在终端里画几组点，layers 是 [(名称, 记号, 横坐标, 纵坐标)]：画在同一处的，后面的盖住前面的。"""
    rows = [[' '] * width for _ in range(height)]
    left, right = torch.cat([x for *_, x, _ in layers]).aminmax()
    bottom, top = torch.cat([y for *_, y in layers]).aminmax()
    for _, mark, x, y in layers:
        columns = ((x - left) / (right - left) * (width - 1)).round().long()
        heights = ((y - bottom) / (top - bottom) * (height - 1)).round().long()
        for column, row in zip(columns.tolist(), heights.tolist()):
            rows[height - 1 - row][column] = mark
    print('\n'.join(''.join(row).rstrip() for row in rows))


def plot(path, layers):
    """用 matplotlib 把同样的几组点画进文件。"""
    from matplotlib.figure import Figure
    figure = Figure()
    axes = figure.subplots()
    for name, mark, x, y in layers:
        axes.plot(x, y, mark, label=name)
    axes.legend()
    try:
        figure.savefig(path)
    except OSError as error:
        sys.exit(f'图存不进 {path}：{error}')


@torch.no_grad()
def show(model, data, path):
    """打印真正的界线、找到的界线和答对多少，画在 data 的点上；path 不是 None，就再画成图。"""
    x, y = data
    logits, _ = model(x)
    weight, bias = model.linear.weight[0].tolist(), model.linear.bias.item()
    print(f'\n真正的界线（o）：{true_weight[0]:.3f} x1 {true_weight[1]:+.3f} x2 {true_bias:+.3f} = 0')
    print(f'找到的界线（*）：{weight[0]:.3f} x1 {weight[1]:+.3f} x2 {bias:+.3f} = 0')
    print(f'验证集答对 {((logits > 0) == y).float().mean():.1%}\n')
    line = torch.linspace(-3, 3, 64)
    layers = [('no', '.', x[y == 0, 0], x[y == 0, 1]), ('yes', '+', x[y == 1, 0], x[y == 1, 1]),
              ('true boundary', 'o', line, -(true_weight[0] * line + true_bias) / true_weight[1]),
              ('found boundary', '*', line, -(weight[0] * line + bias) / weight[1])]
    draw(layers)
    if path:
        plot(path, layers)


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
    train_data, val_data = make_data(true_weight, true_bias, n_points, train_ratio)

    model = LogisticRegression(len(true_weight))
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
