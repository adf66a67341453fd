"""没有 PyTorch v5：AdamW，每个参数自己的步子

SGD 对所有参数用同一个学习率，常见的字梯度大，少见的字梯度小，步子却只有一种。Adam 记着每个参数近来梯度的平均
和梯度平方的平均，步子取两者之比，梯度是大是小，一步都差不多是 learning_rate（Kingma 和 Ba 2015，算法 1）。
两个平均从 0 开始，头几步偏小，要修正：第 t 步除以 1 - beta ** t。AdamW 另外让参数每步往 0 缩一点，
缩的那一点不经过平均，和梯度分开（Loshchilov 和 Hutter 2019，算法 2）。

损失也换了算法。先算概率再取对数，得分过千，exp 就溢出；-log softmax 展开是 log(sum(exp(x))) - x[答案]，
先减去最大的得分，exp 里最大的是 0，就不会溢出（log-sum-exp）。

你会看到：三千步到约 5.07，和 babygpt_v1.py 用 PyTorch 学到的一样。

运行（几分钟）：python scratch/scratch_v5_adamw.py
和上一级对照：git diff --no-index scratch/scratch_v4_module.py scratch/scratch_v5_adamw.py
"""

import math
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np

batch_size = 8  # 每一步同时看多少段文本
block_size = 32  # 每段文本有多少个字
n_embd = 64  # 每个字用多少个数表示
learning_rate = 4e-3  # 每一步走多大
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

    def relu(self):
        a = self.data
        return Tensor(np.maximum(a, 0), (self,), lambda grad: (grad * (a > 0),))

    def erf(self):
        a = self.data
        out = np.vectorize(math.erf, otypes=[float])(a)  # numpy 里没有 erf，一个数一个数地算
        return Tensor(out, (self,), lambda grad: (grad * 2 / math.pi ** 0.5 * np.exp(-a ** 2),))

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


def linear(x, weight, bias):
    """x @ weight.T + bias；x 的最后一维和 weight 的最后一维一样宽，bias 可以是 None。"""
    out = x @ weight.transpose(0, 1)
    return out if bias is None else out + bias


def layer_norm(x, weight, bias, eps):
    """x 的最后一维减去均值，除以标准差，再乘 weight、加 bias（Ba 等 2016，第 3 节）。"""
    x = x - x.mean(-1, keepdim=True)
    variance = (x ** 2).mean(-1, keepdim=True)
    return x * (variance + eps) ** -0.5 * weight + bias


class Parameter(Tensor):
    """要学的张量：Module 凭这个名字认出它。"""


class Module:
    """模型的零件。属性里的 Parameter 是它的参数，属性里的 Module 是它的零件；forward 里写怎样从输入算出输出。"""

    training = True  # train() 和 eval() 改它

    def __call__(self, *args, **kwargs):
        return self.forward(*args, **kwargs)

    def named_parameters(self, prefix=''):
        """一对一对给出参数的名字和参数，零件里的也在内；名字是找到它的路，如 lm_head.weight。"""
        for name, value in vars(self).items():
            if isinstance(value, Parameter):
                yield prefix + name, value
            elif isinstance(value, Module):
                yield from value.named_parameters(f'{prefix}{name}.')

    def parameters(self):
        return [p for _, p in self.named_parameters()]

    def state_dict(self):
        """{名字: 数组}，每个都是抄出来的一份。"""
        return {name: p.data.copy() for name, p in self.named_parameters()}

    def load_state_dict(self, state):
        """装入 state_dict 给出的数；名字或形状对不上就引发 ValueError，什么也不装。"""
        parameters = dict(self.named_parameters())
        if parameters.keys() != state.keys():
            raise ValueError(f'参数的名字对不上，只有一边有的：{" ".join(sorted(parameters.keys() ^ state.keys()))}')
        arrays = {name: np.asarray(state[name]).astype(p.data.dtype) for name, p in parameters.items()}
        for name, p in parameters.items():
            if arrays[name].shape != p.shape:
                raise ValueError(f'{name} 的形状应是 {p.shape}，给的却是 {arrays[name].shape}')
        for name, p in parameters.items():
            p.data = arrays[name]

    def train(self, mode=True):
        """进入训练模式；mode 是 False 就进入评估模式。零件也一起。"""
        self.training = mode
        for value in vars(self).values():
            if isinstance(value, Module):
                value.train(mode)
        return self

    def eval(self):
        return self.train(False)


class ModuleList(Module):
    """一列零件，名字是 0、1、2……"""

    def __init__(self, modules):
        for i, module in enumerate(modules):
            setattr(self, str(i), module)

    def __iter__(self):
        return (value for value in vars(self).values() if isinstance(value, Module))

    def __len__(self):
        return sum(1 for _ in self)

    def __getitem__(self, i):
        return list(self)[i]


class Linear(Module):
    """线性层：一层权重 weight，一层偏置 bias；bias=False 时没有偏置。"""

    def __init__(self, in_features, out_features, bias=True):
        bound = in_features ** -0.5
        self.weight = Parameter(np.random.uniform(-bound, bound, size=(out_features, in_features)))
        self.bias = Parameter(np.random.uniform(-bound, bound, size=out_features)) if bias else None

    def forward(self, x):
        return linear(x, self.weight, self.bias)


class Embedding(Module):
    """一张表，第 i 行是 i 号字的嵌入。"""

    def __init__(self, num_embeddings, embedding_dim):
        self.weight = Parameter(np.random.randn(num_embeddings, embedding_dim))

    def forward(self, idx):
        return self.weight[idx]


class LayerNorm(Module):
    """归一化：每个位置的数变成均值 0、方差 1，再由 weight 和 bias 定出新的大小。"""

    def __init__(self, size, eps=1e-5):
        self.eps = eps
        self.weight = Parameter(np.ones(size))
        self.bias = Parameter(np.zeros(size))

    def forward(self, x):
        return layer_norm(x, self.weight, self.bias, self.eps)


class Dropout(Module):
    """训练时每个数有 p 的机会变成 0，其余的放大到 1 / (1 - p) 倍，平均不变；评估时原样（Srivastava 等 2014，第 2 节）。"""

    def __init__(self, p):
        self.p = p

    def forward(self, x):
        if not self.training or self.p == 0:
            return x
        return x * ((np.random.rand(*x.shape) >= self.p) / (1 - self.p))


class ReLU(Module):
    """负数变成 0。"""

    def forward(self, x):
        return x.relu()


class GELU(Module):
    """平滑的 ReLU：x 乘以标准正态分布在 x 以下的概率（Hendrycks 和 Gimpel 2016，第 2 节）。"""

    def forward(self, x):
        return x * 0.5 * (1 + (x * 0.5 ** 0.5).erf())


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
    e = (x - x.data.max(axis=dim, keepdims=True)).exp()
    return e / e.sum(dim, keepdim=True)


def cross_entropy(logits, targets):
    """logits 是 (N, V) 的得分，targets 是 (N,) 的编号；返回每字平均的 -log softmax(logits)[targets]。"""
    shifted = logits - logits.data.max(axis=-1, keepdims=True)  # (N, V)
    log_sum_exp = shifted.exp().sum(dim=-1).log()  # (N,)
    return (log_sum_exp - shifted[np.arange(len(targets)), targets]).mean()


class AdamW:
    """AdamW 优化器，默认值和 PyTorch 的一样。"""

    def __init__(self, parameters, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        self.parameters = list(parameters)
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self.states = [(0, 0.0, 0.0) for _ in self.parameters]  # 走过几步，梯度的平均，梯度平方的平均

    def zero_grad(self):
        for p in self.parameters:
            p.grad = None

    def step(self):
        """每个有梯度的参数走一步。"""
        beta1, beta2 = self.betas
        for i, p in enumerate(self.parameters):
            if p.grad is None:
                continue
            t, mean, square = self.states[i]
            t += 1
            mean = beta1 * mean + (1 - beta1) * p.grad
            square = beta2 * square + (1 - beta2) * p.grad ** 2
            self.states[i] = t, mean, square
            update = mean / (1 - beta1 ** t) / ((square / (1 - beta2 ** t)) ** 0.5 + self.eps)
            p.data = p.data * (1 - self.lr * self.weight_decay) - self.lr * update


@no_grad()
def estimate_loss(model, train_data, val_data, eval_iters, batch_size, block_size):
    """训练集和验证集上的平均损失。每次都看同样的几批，曲线才平滑、可比。"""
    model.eval()
    losses = {}
    for name, data in [('train', train_data), ('val', val_data)]:
        random = np.random.RandomState(0)  # 单独的随机源，不打乱训练用的那一个
        batches = [get_batch(data, batch_size, block_size, random) for _ in range(eval_iters)]
        losses[name] = sum(model(x, y)[1].item() for x, y in batches) / eval_iters
    model.train()
    return losses


class BabyGPT(Module):
    """从每个位置的字算出下一个字的得分；反复取下一个字，就是写作。"""

    def __init__(self, vocab_size, n_embd):
        self.token_embedding_table = Embedding(vocab_size, n_embd)
        self.lm_head = Linear(n_embd, vocab_size)

    def forward(self, idx, targets=None):
        """idx 和 targets 是 (B, T) 的编号；返回得分 (B, T, V) 和每字平均损失（nat），没有 targets 时损失是 None。"""
        x = self.token_embedding_table(idx)  # (B, T, n_embd)
        logits = self.lm_head(x)  # (B, T, V)
        if targets is None:
            return logits, None
        return logits, cross_entropy(logits.reshape(targets.size, -1), targets.flatten())

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
    model.eval()
    idx = model.generate(idx, max_new_tokens)
    model.train()
    return tokenizer.decode(idx[0].tolist())


def main():
    np.random.seed(seed)
    text = read_text(data_path, train_ratio, block_size)
    tokenizer = Tokenizer(text)
    data = np.array(tokenizer.encode(text))
    n_train = int(train_ratio * len(data))
    train_data, val_data = data[:n_train], data[n_train:]

    model = BabyGPT(tokenizer.vocab_size, n_embd)
    # 没写 weight_decay，就是默认的 0.01：每走一步，每个参数还往 0 缩一点，乘以 1 - 0.01 × learning_rate
    optimizer = AdamW(model.parameters(), lr=learning_rate)
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
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    for prompt in prompts:
        print(f'\n{write(model, tokenizer, prompt, max_new_tokens)}')


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\n已中断。')
