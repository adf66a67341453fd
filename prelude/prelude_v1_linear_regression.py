"""一条直线：用梯度下降，从一些点学出 y = w x + b

训练就是这件事：先随便猜一条线，量一量它错得有多远，这个数叫损失；再看 w 和 b（参数）各往哪边挪，损失会变小，挪一小步；反复几百次。
往哪边挪，由导数说，PyTorch 替我们求。后面每一级，一直到 BabyGPT，训练都是这同一个循环，变的只是数据和模型。
点是造出来的：真正的线是 y = 2 x + 1，每个点上下偏离一些，所以最后可以拿找到的线和真正的线对照。
五个点里留下一个，训练时不看，叫验证集：模型好不好，要看没见过的点。

你会看到：损失先快后慢地降下来，然后停住。它降不到 0，剩下的就是那些偏离，没有规律，学不会。
找到的线和真正的线几乎重合。差的那一点也来自偏离：换一批点，直接用公式（最小二乘）算出的线也会变，通常变多少，叫标准误差；
训练找到的和公式算出的，相差在三个标准误差以内。

运行（几秒，不用 GPU）：python prelude/prelude_v1_linear_regression.py
画成图：python prelude/prelude_v1_linear_regression.py --plot line.png
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

true_weight = [2.0]  # 真正的斜率，要学的就是它
true_bias = 1.0  # 真正的截距，也要学
n_points = 1000  # 造多少个点
batch_size = 32  # 每一步看多少个点
learning_rate = 0.01  # 每一步走多大
max_iters = 500  # 一共训练多少步
eval_interval = 50  # 每隔多少步评估一次
train_ratio = 0.8  # 前面多大比例的点用来训练，其余用来验证
seed = 1337  # 随机种子：种子相同，结果相同


def make_data(true_weight, true_bias, n_points, train_ratio):
    """造出训练集和验证集，各是 (x (N, n_in), y (N,))：y 在真正的线上下偏离一些。"""
    x = 6 * torch.rand(n_points, len(true_weight)) - 3  # (N, n_in)
    y = x @ torch.tensor(true_weight) + true_bias  # (N,)
    y = y + torch.randn(n_points)  # (N,)
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


class LinearRegression(nn.Module):
    """加权求和，再加一个数：n_in 个 weight、一个 bias 从随便的数开始，等着被学出来。

    注释里的形状：B 是一次看几个点，n_in 是每个点有几个数。
    """

    def __init__(self, n_in):
        super().__init__()
        self.linear = nn.Linear(n_in, 1)

    def forward(self, x, targets=None):
        """x 是 (B, n_in)，targets 是 (B,)；返回预测 (B,) 和损失：错多远的平方，再平均。没有 targets 时损失是 None。"""
        prediction = self.linear(x).squeeze(1)  # (B,)
        if targets is None:
            return prediction, None
        return prediction, F.mse_loss(prediction, targets)


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
    """打印找到的线和真正的线，画在 data 的点上；path 不是 None，就再画成图。"""
    x, y = data
    weight, bias = model.linear.weight.item(), model.linear.bias.item()
    print(f'\n真正的线（o）：y = {true_weight[0]:.3f} x {true_bias:+.3f}')
    print(f'找到的线（*）：y = {weight:.3f} x {bias:+.3f}\n')
    line = torch.linspace(-3, 3, 64)
    layers = [('data', '.', x[:, 0], y), ('true line', 'o', line, true_weight[0] * line + true_bias),
              ('found line', '*', line, weight * line + bias)]
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

    model = LinearRegression(len(true_weight))
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
