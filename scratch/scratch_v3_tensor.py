"""没有 PyTorch v3：Tensor，记得自己怎么来的一块数

v2 的图里一个数是一个节点，一个语言模型有几百万个数，这样走太慢。这里一个节点是一整块数（numpy 数组），道理不变：
每个运算知道由自己的梯度怎样算出它用到的各块的梯度，backward() 照样沿着图往回走。
新的只有形状：广播时一个数当许多个用，它的梯度就是那许多份的和（unbroadcast）；求和反过来是广播，取出反过来是放回，
矩阵乘法反过来是另外两个矩阵乘法，a @ b 的梯度 g 分给 a 的是 g @ b.T，分给 b 的是 a.T @ g。

你会看到：babygpt_v1.py 的二元模型，一行 PyTorch 也没有，损失从 ln 4543 ≈ 8.42 附近降下来。
它每步只把参数朝梯度的反方向挪一小步（SGD），学得比 AdamW 慢得多，等到 v5 再追上。

运行（几分钟）：python scratch/scratch_v3_tensor.py
和上一级对照：git diff --no-index scratch/scratch_v2_value.py scratch/scratch_v3_tensor.py
"""

import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np

batch_size = 8  # 每一步同时看多少段文本
block_size = 32  # 每段文本有多少个字
n_embd = 64  # 每个字用多少个数表示
learning_rate = 10.0  # 每一步走多大
max_iters = 3000  # 一共训练多少步
eval_interval = 500  # 每隔多少步评估一次
eval_iters = 100  # 每次评估取多少批求平均
train_ratio = 0.9  # 前面多大比例的文本用来训练，其余用来验证
max_new_tokens = 100  # 续写多少个字
seed = 1337  # 随机种子：种子相同，结果相同
prompts = ['春江', '往事']  # 从这些字开始续写
data_path = Path(__file__).parent.with_name('ci.txt')


class Tensor:
    """一块数，记得自己是怎么算出来的：parents 是算它用到的张量，grad_fn 由它的梯度算出它们各自的那一份。"""

    __array_ufunc__ = None  # numpy 的数组写在左边时，也由这里的运算来算
    recording = True  # 在 no_grad() 里是 False

    def __init__(self, data, parents=(), grad_fn=None):
        self.data = np.asarray(data, np.float64) if parents else np.array(data, np.float64)  # 从外面来的就抄一份，不怕外面再改
        self.parents, self.grad_fn = (parents, grad_fn) if self.recording else ((), None)
        self.grad = None  # 损失对它的导数，形状和它一样
        for tensor in (self, *parents):
            tensor.data.flags.writeable = False  # 求导时还要用这些数：就地改它们，numpy 会当场报错

    def __repr__(self):
        return f'Tensor({self.data})'

    @property
    def shape(self):
        return self.data.shape

    def item(self):
        return self.data.item()

    def __add__(self, other):
        other = other if isinstance(other, Tensor) else Tensor(other)
        return Tensor(self.data + other.data, (self, other), lambda grad: (grad, grad))

    def __mul__(self, other):
        other = other if isinstance(other, Tensor) else Tensor(other)
        a, b = self.data, other.data
        return Tensor(a * b, (self, other), lambda grad: (grad * b, grad * a))

    def __pow__(self, n):
        a = self.data
        return Tensor(a ** n, (self,), lambda grad: (grad * n * a ** (n - 1) if n else 0.0 * grad,))

    def exp(self):
        out = np.exp(self.data)
        return Tensor(out, (self,), lambda grad: (grad * out,))

    def log(self):
        a = self.data
        return Tensor(np.log(a), (self,), lambda grad: (grad / a,))

    def tanh(self):
        out = np.tanh(self.data)
        return Tensor(out, (self,), lambda grad: (grad * (1 - out ** 2),))

    def __matmul__(self, other):
        other = other if isinstance(other, Tensor) else Tensor(other)
        a, b = self.data, other.data
        if a.ndim < 2 or b.ndim < 2:
            raise ValueError(f'@ 的两边至少要有两维，这里是 {a.shape} 和 {b.shape}：先用 reshape 变成矩阵。')
        return Tensor(a @ b, (self, other), lambda grad: (grad @ b.swapaxes(-2, -1), a.swapaxes(-2, -1) @ grad))

    def sum(self, dim=None, keepdim=False):
        shape = self.shape

        def grad_fn(grad):
            grad = grad if dim is None or keepdim else np.expand_dims(grad, dim)
            return (np.broadcast_to(grad, shape),)

        return Tensor(self.data.sum(axis=dim, keepdims=keepdim), (self,), grad_fn)

    def mean(self, dim=None, keepdim=False):
        total = self.sum(dim, keepdim)
        return total / (self.data.size // max(total.data.size, 1))

    def reshape(self, *shape):
        before = self.shape
        return Tensor(self.data.reshape(*shape), (self,), lambda grad: (grad.reshape(before),))

    def transpose(self, dim0, dim1):
        return Tensor(self.data.swapaxes(dim0, dim1), (self,), lambda grad: (grad.swapaxes(dim0, dim1),))

    def __getitem__(self, index):
        shape = self.shape

        def grad_fn(grad):
            whole = np.zeros(shape, grad.dtype)
            np.add.at(whole, index, grad)  # 同一个数可能取出了几次，都要加上
            return (whole,)

        return Tensor(self.data[index], (self,), grad_fn)

    def __neg__(self):
        return self * -1

    def __sub__(self, other):
        return self + -other

    def __rsub__(self, other):
        return -self + other

    def __truediv__(self, other):
        other = other if isinstance(other, Tensor) else Tensor(other)
        a, b = self.data, other.data
        return Tensor(a / b, (self, other), lambda grad: (grad / b, -grad * a / b ** 2))

    def __rtruediv__(self, other):
        return Tensor(other) / self

    __radd__, __rmul__ = __add__, __mul__  # 2 + x 就是 x + 2

    def backward(self):
        """求它对图里每块数的导数，放进 grad。叶子（不是算出来的数）的 grad 累加在原来的上面，由训练循环清零。"""
        if self.data.size != 1:
            raise RuntimeError(f'backward() 要从一个数开始，这里的形状是 {self.shape}：先用 sum() 或 mean() 变成一个数。')
        nodes = topological_order(self)
        for node in nodes:
            node.grad = None if node.grad_fn else node.grad
        self.add_grad(np.ones_like(self.data))
        for node in nodes:
            if node.grad_fn:
                for parent, grad in zip(node.parents, node.grad_fn(node.grad)):
                    parent.add_grad(grad)

    def add_grad(self, grad):
        """收到一份梯度，加到已有的上面。"""
        self.grad = (0.0 if self.grad is None else self.grad) + unbroadcast(grad, self.shape)


def unbroadcast(grad, shape):
    """广播的反面：形状为 shape 的数广播之后收到梯度 grad，一个数用了几次，就把那几份加起来。"""
    if grad.shape == shape:
        return grad
    grad = grad.sum(axis=tuple(range(grad.ndim - len(shape))))
    return grad.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)


def topological_order(root):
    """root 的图里的每块数，排在算它用到的数之前：轮到一块数时，用到它的都已轮过，它的梯度收齐了。"""
    nodes, seen, stack = [], set(), [(root, False)]
    while stack:
        node, parents_done = stack.pop()
        if parents_done:
            nodes.append(node)
        elif node not in seen:
            seen.add(node)
            stack += [(node, True), *((parent, False) for parent in node.parents)]
    return nodes[::-1]


@contextmanager
def no_grad():
    """里面的运算不记录图：评估和写作不求导，不必记。"""
    before, Tensor.recording = Tensor.recording, False
    try:
        yield
    finally:
        Tensor.recording = before


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


def get_batch(data, batch_size, block_size, random=np.random):
    """随机取 batch_size 段文本 x，以及往后错一个字的 y：x 每个位置的下一个字就是答案。

    注释里的形状：B 是段数，T 是每段的字数，V 是词表大小。
    """
    starts = random.randint(len(data) - block_size, size=(batch_size, 1))
    chunks = data[starts + np.arange(block_size + 1)]  # (B, T+1)
    return chunks[:, :-1], chunks[:, 1:]


def softmax(x, dim):
    """把 dim 那一维的得分变成概率：都是正数，加起来是 1。"""
    e = x.exp()
    return e / e.sum(dim, keepdim=True)


@no_grad()
def estimate_loss(model, train_data, val_data, eval_iters, batch_size, block_size):
    """训练集和验证集上的平均损失。每次都看同样的几批，曲线才平滑、可比。"""
    losses = {}
    for name, data in [('train', train_data), ('val', val_data)]:
        random = np.random.RandomState(0)  # 单独的随机源，不打乱训练用的那一个
        batches = [get_batch(data, batch_size, block_size, random) for _ in range(eval_iters)]
        losses[name] = sum(model(x, y)[1].item() for x, y in batches) / eval_iters
    return losses


class BabyGPT:
    """从每个位置的字算出下一个字的得分；反复取下一个字，就是写作。"""

    def __init__(self, vocab_size, n_embd):
        bound = n_embd ** -0.5
        self.token_embedding_table = Tensor(np.random.randn(vocab_size, n_embd))
        self.weight = Tensor(np.random.uniform(-bound, bound, size=(vocab_size, n_embd)))
        self.bias = Tensor(np.random.uniform(-bound, bound, size=vocab_size))

    def parameters(self):
        return [self.token_embedding_table, self.weight, self.bias]

    def __call__(self, idx, targets=None):
        """idx 和 targets 是 (B, T) 的编号；返回得分 (B, T, V) 和每字平均损失（nat），没有 targets 时损失是 None。"""
        x = self.token_embedding_table[idx]  # (B, T, n_embd)
        logits = x @ self.weight.transpose(0, 1) + self.bias  # (B, T, V)
        if targets is None:
            return logits, None
        probs = softmax(logits, dim=-1).reshape(targets.size, -1)  # 各段接成一列，(N, V)
        return logits, -probs[np.arange(targets.size), targets.flatten()].log().mean()

    @no_grad()
    def generate(self, idx, max_new_tokens):
        """在 idx (B, T) 后面逐字续写，返回 (B, T + max_new_tokens)。"""
        for _ in range(max_new_tokens):
            logits, _ = self(idx)  # (B, T, V)
            probs = softmax(logits[:, -1], dim=-1)  # (B, V)
            cumulative = probs.data.cumsum(axis=-1)  # (B, V)
            draw = np.random.rand(len(idx), 1) * cumulative[:, -1:]  # (B, 1)
            next_idx = (cumulative > draw).argmax(axis=-1)  # (B,)
            idx = np.concatenate([idx, next_idx[:, None]], axis=1)  # (B, T+1)
        return idx


def write(model, tokenizer, prompt, max_new_tokens):
    """从 prompt 往下写 max_new_tokens 个字。"""
    idx = np.array([tokenizer.encode(prompt)])  # (1, T)
    idx = model.generate(idx, max_new_tokens)
    return tokenizer.decode(idx[0].tolist())


def main():
    np.random.seed(seed)
    text = read_text(data_path, train_ratio, block_size)
    tokenizer = Tokenizer(text)
    data = np.array(tokenizer.encode(text))
    n_train = int(train_ratio * len(data))
    train_data, val_data = data[:n_train], data[n_train:]

    model = BabyGPT(tokenizer.vocab_size, n_embd)
    n_params = sum(p.data.size for p in model.parameters())
    print(f'词表 {tokenizer.vocab_size:,} 字，训练集 {len(train_data):,} 字，'
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
        for p in model.parameters():
            p.grad = None
        loss.backward()
        for p in model.parameters():
            p.data = p.data - learning_rate * p.grad

    for prompt in prompts:
        print(f'\n{write(model, tokenizer, prompt, max_new_tokens)}')


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\n已中断。')
