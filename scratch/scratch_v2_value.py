"""没有 PyTorch v2：Value，记得自己怎么来的数

v1 的导数是手算的，算式一变就得重算。这里让每个数记住自己是用哪些数、怎么算出来的，这些记录连成一张图；
backward() 从损失出发，沿着图往回走，一环一环地用链式法则，每个运算只要知道自己那一环。
次序要紧：一个数被几处用到，就从几处收到梯度，加在一起，收齐了才能再往回传；拓扑排序排的就是这个次序。

你会看到：十三个参数学会异或，两个数不同才是 1，一条直线分不开它；梯度全由 backward() 算出，没有一个是手算的。

运行（不到一秒，只用标准库）：python scratch/scratch_v2_value.py
和上一级对照：git diff --no-index scratch/scratch_v1_derivative.py scratch/scratch_v2_value.py
"""

import math
import random

learning_rate = 0.2  # 每一步走多大
max_iters = 200  # 一共训练多少步
eval_interval = 20  # 每隔多少步打印一次
seed = 1337  # 随机种子：种子相同，结果相同
examples = [((0, 0), 0), ((0, 1), 1), ((1, 0), 1), ((1, 1), 0)]  # 异或：两个数不同才是 1


class Value:
    """一个数，记得自己是怎么算出来的：parents 是算它用到的数，grad_fn 由它的梯度算出它们各自的那一份。"""

    def __init__(self, data, parents=(), grad_fn=None):
        self.data, self.parents, self.grad_fn = data, parents, grad_fn
        self.grad = 0.0  # 损失对它的导数

    def __add__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        return Value(self.data + other.data, (self, other), lambda grad: (grad, grad))

    def __mul__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        a, b = self.data, other.data
        return Value(a * b, (self, other), lambda grad: (grad * b, grad * a))

    def __pow__(self, n):
        a = self.data
        return Value(a ** n, (self,), lambda grad: (grad * n * a ** (n - 1) if n else 0.0,))

    def tanh(self):
        out = math.tanh(self.data)
        return Value(out, (self,), lambda grad: (grad * (1 - out ** 2),))

    def __neg__(self):
        return self * -1

    def __sub__(self, other):
        return self + -other

    def __rsub__(self, other):
        return -self + other

    def __truediv__(self, other):
        return self * other ** -1

    def __rtruediv__(self, other):
        return self ** -1 * other

    __radd__, __rmul__ = __add__, __mul__  # 2 + x 就是 x + 2

    def backward(self):
        """求它对图里每个数的导数，放进 grad。叶子（不是算出来的数）的 grad 累加在原来的上面，由训练循环清零。"""
        nodes = topological_order(self)
        for node in nodes:
            node.grad = 0.0 if node.grad_fn else node.grad
        self.grad += 1.0
        for node in nodes:
            if node.grad_fn:
                for parent, grad in zip(node.parents, node.grad_fn(node.grad)):
                    parent.grad += grad


def topological_order(root):
    """root 的图里的每个数，排在算它用到的数之前：轮到一个数时，用到它的都已轮过，它的梯度收齐了。"""
    nodes, seen, stack = [], set(), [(root, False)]
    while stack:
        node, parents_done = stack.pop()
        if parents_done:
            nodes.append(node)
        elif node not in seen:
            seen.add(node)
            stack += [(node, True), *((parent, False) for parent in node.parents)]
    return nodes[::-1]


def predict(p, x):
    """x 处的预测：三个隐藏的数各看一遍输入，再合起来；p 是 13 个参数。"""
    h1, h2, h3 = ((p[i] * x[0] + p[i + 1] * x[1] + p[i + 2]).tanh() for i in (0, 3, 6))
    return p[9] * h1 + p[10] * h2 + p[11] * h3 + p[12]


def get_loss(p, examples):
    """平均的平方误差：预测错得有多远，越小越好。"""
    return sum((predict(p, x) - y) ** 2 for x, y in examples) / len(examples)


def main():
    random.seed(seed)
    parameters = [Value(random.uniform(-1, 1)) for _ in range(13)]
    for step in range(max_iters + 1):
        loss = get_loss(parameters, examples)
        for p in parameters:
            p.grad = 0.0
        loss.backward()
        if step % eval_interval == 0:
            print(f'第 {step:5d} 步  损失 {loss.data:.6f}')
        for p in parameters:
            p.data -= learning_rate * p.grad

    print()
    for x, y in examples:
        print(f'x = {x}  预测 {predict(parameters, x).data:7.3f}  真值 {y}')


if __name__ == '__main__':
    main()
