"""只靠数数能做到的最好：看前面四个字来猜，拿不准就多听只看三个、两个、一个字的，叫插值的 Kneser–Ney 平滑。

新的一点：二元模型只看前面一个字。看得多，猜得准；可是验证集里四个字的上文，七成在训练集里没见过，只能去问看得少的。
为什么行：见过的组合各扣掉一点次数，这是折扣；扣下的份额交给少看一个字的低一阶去分，一阶一阶往下，直到什么都不看。没见过的也分得到一点，这就是平滑。
低阶只在高阶拿不准时才说话，所以它不数出现过多少次，而是数前面接过多少种字：「鸪」和「美」在训练集里都出现过六百多次，
「美」前面有过 166 种字，「鸪」前面只有过 3 种，几乎总是「鹧」；上文不是「鹧」，就不该猜「鸪」。

你会看到：第 1 阶到第 5 阶的验证损失是 6.17、4.64、4.31、4.28、4.27，越往后省得越少：五个字的组合，95 % 以上只见过一次。
训练损失却一路降到 1.75：数的就是这段文字，答案早已看过，当不得真，这就是过拟合。模型好不好，只看验证损失。
根目录的 v1 到 v10 训练之后，验证损失最低的也有 4.80 上下，全都输给它。它写的东西像词的样子，意思不通：最远只记得四个字。

运行（约 10 秒，不用 GPU）：python prelude/prelude_v7_ngram.py
画成图：python prelude/prelude_v7_ngram.py --plot orders.png
和二元模型对照：git diff --no-index simplebigrammodel.py prelude/prelude_v7_ngram.py
出处：Kneser 和 Ney（1995）；Chen 和 Goodman（1999）第 3 节。
"""

import argparse
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

block_size = 4  # 最多看前面多少个字：看 4 个字，加上要猜的一共 5 个，叫第 5 阶
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


def pack(data, k, vocab_size):
    """每 k 个相邻的字合成一个 V 进制的 k 位数：N 个字得到 N - k + 1 个数，数相等，就是组合相同。

    注释里的形状：N 是文本的字数，V 是词表大小，B 是段数，T 是每段的字数。
    """
    if vocab_size ** k >= 2 ** 63:
        data = data.astype(object)  # 64 位整数装不下，改用 Python 的大整数：慢得多，但不会错
    n = len(data) - k + 1
    return sum(data[i:n + i] * vocab_size ** (k - 1 - i) for i in range(k))


def look_up(keys, values, wanted, missing):
    """keys 从小到大，和 values 一一对应：查出 wanted 的每个数对应的值，查不到的算 missing。"""
    places = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)  # 比 keys 都大的，位置会出界
    return np.where(keys[places] == wanted, values[places], missing)


def discounts(counts):
    """出现 1 次、2 次、3 次以上的组合，每种扣掉多少次，依次放在第 1、2、3 项。

    公式出自 Chen 和 Goodman（1999），只用到训练集里恰好出现 1、2、3、4 次的组合各有几种，不看验证集；
    其中的 y 出自 Ney、Essen 和 Kneser（1994），是不分次数、只用一个折扣时的扣法。
    文本太小时，公式会除以零，或者算出负数，所以种数至少算 1，折扣至少是 y。
    """
    n1, n2, n3, n4 = (max(1, np.count_nonzero(counts == count)) for count in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2)
    return np.array([0, y, max(y, 2 - 3 * y * n3 / n2), max(y, 3 - 4 * y * n4 / n3)])


class Level:
    """一阶的概率：P(字 | 上文) = (次数 - 折扣) / 上文的总次数 + 扣下的份额 × 低一阶的 P(字 | 短一个字的上文)。"""

    def __init__(self, grams, counts, vocab_size):
        self.vocab_size = vocab_size
        self.grams = grams  # V 进制：末位是要猜的字，去掉末位就是上文
        self.contexts, owners = np.unique(grams // vocab_size, return_inverse=True)
        totals = np.bincount(owners, counts)
        taken = discounts(counts)[np.minimum(counts, 3)]
        self.kept = (counts - taken) / totals[owners]  # 每种组合扣完还剩多大份额
        self.left = np.bincount(owners, taken) / totals  # 每种上文扣下了多大份额

    def mix(self, grams, lower):
        """各个组合的概率，lower 是低一阶给的概率；上文没见过，就全听低一阶的。"""
        kept = look_up(self.grams, self.kept, grams, 0)
        left = look_up(self.contexts, self.left, grams // self.vocab_size, 1)
        return kept + left * lower


class KneserNey:
    """order 个阶，一阶垫一阶；第 1 阶下面垫的是均匀分布，训练集里没有的字也分得到一点。"""

    def __init__(self, data, order, vocab_size):
        self.vocab_size = vocab_size
        self.levels = []  # 第 1 阶到第 order 阶
        for k in range(1, order + 1):
            grams, counts = np.unique(pack(data, min(k + 1, order), vocab_size), return_counts=True)
            if k < order:  # 低阶多取一个字：每种组合去掉首位再数，就是前面接过多少种字
                grams, counts = np.unique(grams % vocab_size ** k, return_counts=True)
            self.levels.append(Level(grams, counts, vocab_size))

    def losses(self, data):
        """data (N,) 里每个字的损失 (N,)，单位是 nat。上文是它前面真正的字，开头的几个字上文短一些。"""
        probs = np.full(len(data), 1 / self.vocab_size)  # (N,)
        for k, level in enumerate(self.levels[:len(data)], 1):
            probs[k - 1:] = level.mix(pack(data, k, self.vocab_size), probs[k - 1:])
        return -np.log(probs)  # (N,)

    def probabilities(self, context):
        """上文 context (T,) 后面，词表里每个字的概率 (V,)。上文可以是空的。"""
        probs = np.full(self.vocab_size, 1 / self.vocab_size)  # (V,)
        for k, level in enumerate(self.levels[:len(context) + 1], 1):
            last = context[len(context) - k + 1:]
            grams = pack(np.append(last, 0), k, self.vocab_size) + np.arange(self.vocab_size)  # (V,)
            probs = level.mix(grams, probs)  # (V,)
        return probs

    def generate(self, idx, max_new_tokens):
        """在 idx (B, T) 后面逐字续写，返回 (B, T + max_new_tokens)。"""
        for _ in range(max_new_tokens):
            probs = np.stack([self.probabilities(context) for context in idx])  # (B, V)
            cumulative = probs.cumsum(axis=-1)  # (B, V)
            draw = np.random.rand(len(idx), 1) * cumulative[:, -1:]  # (B, 1)
            next_idx = (cumulative > draw).argmax(axis=-1)  # (B,)
            idx = np.concatenate([idx, next_idx[:, None]], axis=1)  # (B, T+1)
        return idx


def write(model, tokenizer, prompt, max_new_tokens):
    """从 prompt 往下写 max_new_tokens 个字。"""
    idx = np.array([tokenizer.encode(prompt)])  # (1, T)
    idx = model.generate(idx, max_new_tokens)
    return tokenizer.decode(idx[0].tolist())


def plot(path, curve):
    """用 matplotlib 把各阶的损失画进文件，curve 是 [(训练损失, 验证损失)]。"""
    from matplotlib.figure import Figure
    figure = Figure()
    axes = figure.subplots()
    axes.plot(range(1, len(curve) + 1), curve, 'o-', label=['train', 'validation'])
    axes.set(xlabel='order', ylabel='loss (nats per character)', xticks=range(1, len(curve) + 1))
    axes.legend()
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
    np.random.seed(seed)
    text = read_text(data_path, train_ratio, block_size)
    tokenizer = Tokenizer(text)
    data = np.array(tokenizer.encode(text))
    n_train = int(train_ratio * len(data))
    train_data, val_data = data[:n_train], data[n_train:]

    print(f'词表 {tokenizer.vocab_size:,} 字，训练集 {len(train_data):,} 字，'
          f'验证集 {len(val_data):,} 字')

    curve = []
    for order in range(1, block_size + 2):
        started = time.perf_counter()
        model = KneserNey(train_data, order, tokenizer.vocab_size)
        losses = model.losses(data)  # (N,)
        seconds = time.perf_counter() - started
        curve.append((losses[:n_train].mean(), losses[n_train:].mean()))
        print(f'第 {order} 阶  训练损失 {curve[-1][0]:.4f}  验证损失 {curve[-1][1]:.4f}'
              f'  见过 {len(model.levels[-1].grams):9,} 种  用时 {seconds:4.1f} 秒')

    for prompt in prompts:
        print(f'\n{write(model, tokenizer, prompt, max_new_tokens)}')
    if args.plot:
        plot(args.plot, curve)


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\n已中断。')
