"""What is true from each rung on: judged with a learner's own file in the place of ours."""

import contextlib
import math
import random
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kit.judge import hint
from kit.scripts import module_of
from tests.scratch.diagnosis import (
    adamw_mistake,
    cross_entropy_mistake,
    gradient_mistake,
    gradients,
    order_mistake,
    tensor_mistake,
)
from tests.scratch.models import LADDER

V1, V2, V3, V4, V5 = (LADDER[f'v{number}'] for number in range(1, 6))
NUMBERS = pytest.mark.parametrize('rung', [V2])
ARRAYS = pytest.mark.parametrize('rung', [V3])
NODES = pytest.mark.parametrize('rung', [V2, V3])
MODULES = pytest.mark.parametrize('rung', [V4])
TRAINED = pytest.mark.parametrize('rung', [V5])


def node(rung):
    """The class of the nodes of the graph."""
    module = module_of(rung)
    return module.Value if rung is V2 else module.Tensor


# v1

@pytest.mark.parametrize('rung', [V1])
def test_the_chain_rule_agrees_with_differences(rung):
    module = module_of(rung)
    for point in [(0.0, 0.0), (1.5, -2.0), (2.0, 1.0)]:
        w, b = point
        by_difference = [module.difference(lambda w, b=b: module.get_loss(w, b, module.examples), w),
                         module.difference(lambda b, w=w: module.get_loss(w, b, module.examples), b)]
        assert module.gradient(*point, module.examples) == pytest.approx(by_difference, abs=1e-6)
    assert module.difference(math.sin, 1.0) == pytest.approx(math.cos(1.0), abs=1e-9)


# v2 and v3: the graph

OPERATIONS = {
    'a * b': lambda a, b: a * b, 'a + b': lambda a, b: a + b, 'a ** 2': lambda a, b: a ** 2 + 0 * b, 'a ** 3': lambda a, b: a ** 3 + 0 * b,
    'a.tanh()': lambda a, b: a.tanh() + 0 * b, '-a': lambda a, b: -a + 0 * b, 'a - b': lambda a, b: a - b, 'a / b': lambda a, b: a / b,
    'a + 2': lambda a, b: a + 2 + 0 * b, '2 + a': lambda a, b: 2 + a + 0 * b, '2 - a': lambda a, b: 2 - a + 0 * b,
    'a * 2': lambda a, b: a * 2 + 0 * b, '2 * a': lambda a, b: 2 * a + 0 * b, '2 / a': lambda a, b: 2 / a + 0 * b,
}


@pytest.mark.idea('每个运算的值和梯度')
@pytest.mark.parametrize('name', OPERATIONS)
@NODES
def test_each_operation_has_its_gradient(rung, name):
    with hint(f'{name} 算不出来，或者求不了导。'):
        mistake = gradient_mistake(node(rung), name, OPERATIONS[name], [1.5, -0.7])
    assert mistake is None, mistake


@pytest.mark.idea('一个数用了几次，就收到几份梯度')
@NODES
def test_gradients_of_several_uses_are_added(rung):
    for name, f, once in [('a + a', lambda a: a + a, 1.0), ('a * a', lambda a: a * a, 3.0), ('a * a * a', lambda a: a * a * a, None)]:
        (found,), (expected,) = gradients(node(rung), f, [3.0])
        assert found == pytest.approx(expected), (
            f'y = {name}，a = 3 时，a 的梯度应是 {expected:g}，却是 {found:g}。'
            + ('a 用了两次，只剩下一份：后收到的盖住了先收到的，应相加，parent.grad += grad。' if found == once else
               'a 用了几次，就收到几份，都要加起来。'))


@pytest.mark.idea('收齐了才往回传')
@NODES
def test_a_node_passes_its_gradient_on_when_it_has_all_of_it(rung):
    mistake = order_mistake(node(rung))
    assert mistake is None, mistake


@pytest.mark.idea('求两次导，叶子的梯度累加')
@NODES
def test_leaves_add_up_and_what_is_between_starts_again(rung):
    for again in ('loss', 'other'):
        x = node(rung)(3.0)
        shared = x * 2
        loss = shared * shared
        with hint('对同一张图求两次导时出错。'):
            loss.backward()
            (loss if again == 'loss' else shared * 1).backward()
        right = 24 + (24 if again == 'loss' else 2)
        wrong = {24 if again == 'loss' else 2: '第二次求导把叶子的 grad 清掉了：叶子累加，清零是训练循环的事。'}
        assert float(x.grad) == pytest.approx(right), (
            f'{"对同一个损失求两次导" if again == "loss" else "两个损失合用一段图，各求一次导"}，x 的梯度应是 {right}，却是 {float(x.grad):g}。'
            + wrong.get(float(x.grad), '图中间的值上一次的梯度还留着，又传了一遍：每次求导，它们都从 0 开始。'))


@pytest.mark.idea('任何算式的梯度都对')
@NODES
def test_backward_gives_the_gradient_of_any_expression(rung):
    """Random graphs of numbers that are used again and again, against PyTorch."""
    steps = [lambda a, b: a + b, lambda a, b: a * b.tanh(), lambda a, b: a - b, lambda a, b: a / (b * b + 1), lambda a, b: a.tanh(),
             lambda a, b: (a * a + 1) ** -0.5 * b, lambda a, b: 2 * a - b, lambda a, b: 1 - a, lambda a, b: 3 / (a * a + 2), lambda a, b: -a]
    for seed in range(20):
        draw = random.Random(seed)
        numbers = [draw.uniform(-2, 2) for _ in range(3)]
        choices = [(draw.randrange(len(steps)), draw.randrange(99), draw.randrange(99)) for _ in range(20)]

        def run(*leaves, choices=choices):
            made = list(leaves)
            for step, i, j in choices:
                made.append(steps[step](made[i % len(made)], made[-1 - j % 3]))
            return sum(made)

        found, expected = gradients(node(rung), run, numbers)
        assert found == pytest.approx(expected), '一张 20 个运算的随机的图，梯度和 PyTorch 的不同：先看每个运算单独对不对；都对，就看运算连起来时的次序和累加。'


@pytest.mark.idea('图再深也求得了导')
@NODES
def test_a_graph_may_be_deeper_than_the_stack(rung):
    x = node(rung)(1.0)
    out = x
    for _ in range(3000):
        out = out + 1
    with hint('3000 个数连成一串，求导时出错：递归太深。用一个列表当栈，循环着走，不要递归。'):
        out.backward()
    assert float(x.grad) == 1.0, '3000 个加 1 连成一串，x 的梯度应是 1。'


@pytest.mark.idea('很大的数，0 次方，也求得了导')
@NODES
def test_large_numbers_and_the_power_of_0(rung):
    for said, f, value, right in (
            ('tanh() 从 exp 算出来，大的数会溢出：用现成的 tanh', lambda x: x.tanh(), 1000.0, (1.0, 0.0)), ('tanh() 从 exp 算出来，大的数会溢出：用现成的 tanh', lambda x: x.tanh(), -1000.0, (-1.0, 0.0)),
            ('x ** 0 总是 1，它的导数是 0；n * x ** (n - 1) 在 x = 0 时除以了 0', lambda x: x ** 0, 0.0, (1.0, 0.0)),
            ('x ** 1 的导数总是 1', lambda x: x ** 1, 0.0, (0.0, 1.0))):
        x = node(rung)(value)
        with hint(f'x = {value:g} 时算不出来，或者求不了导：{said}。'), np.errstate(all='ignore'):
            out = f(x)
            out.backward()
        found = float(out.data), float(x.grad)
        assert found == pytest.approx(right), f'x = {value:g} 时，值和导数应是 {right}，却是 {found}：{said}。'


@pytest.mark.idea('学会异或')
@NUMBERS
def test_it_learns_exclusive_or(rung, capsys):
    with hint('main() 没有跑完。'):
        module_of(rung).main()
    lines = re.findall(r'预测 +(-?[\d.]+|nan) +真值 +(-?[\d.]+)', capsys.readouterr().out)
    assert len(lines) == 4, 'main() 最后应打印四行：x = …  预测 …  真值 …，四种输入各一行。'
    assert all(abs(float(guess) - float(truth)) < 0.2 for guess, truth in lines), (
        f'训练之后还没有学会异或，预测是 {"、".join(guess for guess, _ in lines)}：每步要把 grad 清零，再 backward()，再逆着梯度走。')


# v3

A, B = np.arange(6.0).reshape(2, 3) / 3 - 0.7, np.array([0.5, -1.5, 2.0])
SHAPED = {
    '指数 x.exp()': (lambda x: x.exp(), [A]), '对数 x.log()': (lambda x: x.log(), [A ** 2 + 0.5]),
    '全部求和 x.sum()': (lambda x: x.sum(), [A]), '沿 dim=0 求和': (lambda x: x.sum(dim=0), [A]),
    '沿 dim=-1 求和，keepdim=True': (lambda x: x.sum(dim=-1, keepdim=True), [A]), '沿 dim=1 求平均': (lambda x: x.mean(dim=1), [A]),
    '全部求平均 x.mean()': (lambda x: x.mean(), [A]),
    'reshape(3, 2)': (lambda x: x.reshape(3, 2), [A]), 'transpose(0, 1)': (lambda x: x.transpose(0, 1), [A]),
    'transpose(1, 2)，三维': (lambda x: x.transpose(1, 2), [np.arange(24.0).reshape(2, 3, 4)]),
    '矩阵乘法 (2, 3) @ (3, 4)': (lambda x, y: x @ y, [A, np.sin(np.arange(12.0)).reshape(3, 4)]),
    '成批的矩阵乘法 (2, 2, 3) @ (2, 3, 2)': (lambda x, y: x @ y, [np.cos(np.arange(12.0)).reshape(2, 2, 3), np.sin(np.arange(12.0)).reshape(2, 3, 2)]),
    '取一行 x[1]': (lambda x: x[1], [A]), '取几列 x[:, 1:]': (lambda x: x[:, 1:], [A]),
}
BROADCAST = {
    '(2, 3) + (3,)': (lambda x, y: x + y, [A, B]), '(2, 3) * (3,)': (lambda x, y: x * y, [A, B]),
    '(2, 3) * (2, 1)': (lambda x, y: x * y, [A, B[:2, None]]), '(2, 3) * ()': (lambda x, y: x * y, [A, np.array(0.3)]),
    '(3,) - (2, 3)': (lambda x, y: x - y, [B, A]), '(2, 3) / (1, 3)': (lambda x, y: x / y, [A, B[None]]),
    '(1, 3) * (2, 1)': (lambda x, y: x * y, [B[None], B[:2, None]]),
    '(2, 2, 3) @ (3, 2)': (lambda x, y: x @ y, [np.cos(np.arange(12.0)).reshape(2, 2, 3), A.reshape(3, 2)]),
}


@pytest.mark.idea('形状一样时的运算')
@pytest.mark.parametrize('name', SHAPED)
@ARRAYS
def test_operations_on_arrays(rung, name):
    f, arrays = SHAPED[name]
    with hint(f'{name} 算不出来，或者求不了导。'):
        mistake = tensor_mistake(module_of(rung), name, f, arrays)
    assert mistake is None, mistake


@pytest.mark.idea('广播和它的反面')
@pytest.mark.parametrize('name', BROADCAST)
@ARRAYS
def test_broadcasting_is_undone(rung, name):
    f, arrays = BROADCAST[name]
    with hint(f'{name} 求不了导：广播过的一边收到的梯度，形状要先变回去。'):
        mistake = tensor_mistake(module_of(rung), name, f, arrays)
    assert mistake is None, mistake


@pytest.mark.idea('取出几次，就放回几份')
@ARRAYS
def test_an_entry_taken_twice_gets_two_gradients(rung):
    x = module_of(rung).Tensor(np.zeros((3, 2)))
    with hint('用一列编号取行 x[idx] 时出错：numpy 的数组可以用整数的数组作编号。'):
        x[np.array([[2, 0], [2, 2]])].sum().backward()
    assert np.shape(x.grad) == (3, 2), f'x 是 (3, 2)，x[idx] 求导之后 x.grad 的形状却是 {np.shape(x.grad)}。'
    assert np.allclose(x.grad, [[1, 1], [0, 0], [3, 3]]), (
        f'idx 里 2 出现了三次，第 2 行的梯度应是 3，却是 {x.grad[2][0]:g}。'
        + ('whole[idx] += grad 遇到重复的编号只加一次：用 np.add.at(whole, idx, grad)。' if x.grad[2][0] == 1 else ''))


@pytest.mark.idea('backward() 从一个数开始')
@ARRAYS
def test_backward_starts_from_one_number(rung):
    x = module_of(rung).Tensor(A)
    for out in (x * 2, x[0]):
        try:
            out.backward()
        except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
            assert str(error), '对不是一个数的张量求导，报的错要有一句话，说出形状和怎么办。'
        else:
            raise AssertionError('对一整块数（不是一个数）调用 backward()，应报错：损失是一个数，才谈得上导数。')


@pytest.mark.idea('存下的数不会被悄悄改掉')
@ARRAYS
def test_saved_values_are_not_changed_behind_its_back(rung):
    for what in ('外面的数组', 'x.data'):
        array = np.array([1.0, 2.0])
        x = module_of(rung).Tensor(array)
        out = (x * x).sum()
        try:
            if what == 'x.data':
                x.data *= 10
            else:
                array *= 10
        except ValueError:
            continue
        out.backward()
        assert np.allclose(x.grad, [2, 4]), (
            f'算好损失之后就地改了{what}，求出的梯度就错了，也没有报错。外面来的数组要抄一份；'
            '算过的数设成只读（flags.writeable = False），谁改谁当场出错。')


@pytest.mark.idea('no_grad() 里不记图')
@ARRAYS
def test_no_grad_records_nothing(rung):
    module = module_of(rung)
    x = module.Tensor([1.0, 2.0])
    with module.no_grad():
        inside = x * x
    (x * inside).sum().backward()
    assert np.allclose(x.grad, [1, 4]), f'no_grad() 里算出的数应是普通的数，求导不再往里走：x.grad 应是 [1, 4]，却是 {np.round(x.grad, 3)}。'
    x.grad = None
    (x * x).sum().backward()
    assert x.grad is not None and np.allclose(x.grad, [2, 4]), '出了 no_grad()，应照常记图。'
    with module.no_grad():
        with module.no_grad():
            pass
        inside = x * x
    x.grad = None
    (x * inside).sum().backward()
    assert np.allclose(x.grad, [1, 4]), 'no_grad() 里又有一个 no_grad()，出了里面的那个，还在外面的那个里，仍不记图：出来时恢复成进去之前的样子，不是一律记图。'
    with contextlib.suppress(ZeroDivisionError), module.no_grad():
        raise ZeroDivisionError
    x.grad = None
    with hint('no_grad() 里出了错，之后的运算就不记图了：恢复的那一行要放在 finally 里。'):
        (x * x).sum().backward()
    assert x.grad is not None and np.allclose(x.grad, [2, 4]), 'no_grad() 里出了错，之后的运算就不记图了：恢复的那一行要放在 finally 里。'


@pytest.mark.idea('模型就是 v1 的二元模型')
@ARRAYS
def test_the_model_is_the_bigram_network(rung):
    module = module_of(rung)
    with hint('BabyGPT(vocab_size, n_embd) 建不起来，或者 parameters() 给不出参数。'):
        model = module.BabyGPT(11, 4)
        shapes = sorted(p.data.shape for p in model.parameters())
    assert shapes == [(11,), (11, 4), (11, 4)], f'参数应是 (11, 4) 的嵌入、(11, 4) 的权重和 (11,) 的偏置，却是 {shapes}。'
    x, y = np.random.RandomState(0).randint(11, size=(2, 3, 5))
    with hint('model(x, y) 应返回得分和损失。'):
        logits, loss = model(x, y)
    assert logits.shape == (3, 5, 11), f'得分的形状应是 (B, T, V)，这里是 (3, 5, 11)，却是 {logits.shape}。'
    expected = F.cross_entropy(torch.tensor(np.array(logits.data)).flatten(0, 1), torch.tensor(y.copy()).flatten()).item()
    assert loss.item() == pytest.approx(expected, rel=1e-5), f'损失应是每个位置 -log softmax(得分)[答案] 的平均，这里是 {expected:.4f}，却是 {loss.item():.4f}。'
    with hint('损失求不了导。'):
        loss.backward()
    assert all(p.grad is not None and np.any(p.grad) for p in model.parameters()), '有的参数没有收到梯度：从它到损失，每一步都要记在图里。'


# v4

def parts(library, list_of):
    class Model(library.Module):
        def __init__(self):
            super().__init__()
            self.first = library.Embedding(5, 4)
            self.parts = library.ModuleList([library.Linear(4, 4), library.ReLU(), library.LayerNorm(4)])
            self.last = library.Linear(4, 5, bias=False)
    return Model()


@pytest.mark.idea('参数的名字是找到它的路')
@MODULES
def test_parameters_have_the_names_of_pytorch(rung):
    module = module_of(rung)
    with hint('由零件搭成的模型建不起来，或者 state_dict() 出错。'):
        names = list(parts(module, list).state_dict())
    expected = list(parts(nn, list).state_dict())
    missing, more = [name for name in expected if name not in names], [name for name in names if name not in expected]
    assert not missing, f'state_dict() 里少了 {"、".join(missing)}：属性里的 Parameter 和 Module 都要找，ModuleList 里的零件名字是 0、1、2……，一层一层找下去。'
    assert not more, f'state_dict() 里多了 {"、".join(more)}：名字是属性名用点连起来，如 parts.0.weight；没有偏置就没有 bias。'
    assert names == expected, f'次序应和建的时候一样：{expected}。'


@pytest.mark.idea('train() 和 eval() 传到每个零件')
@MODULES
def test_the_mode_reaches_every_part(rung):
    model = parts(module_of(rung), list)
    inside = [model, model.first, model.parts, *model.parts, model.last]
    for mode, go in ((False, model.eval), (True, model.train)):
        with hint('eval() 或 train() 出错。'):
            go()
        reached = [part.training is mode for part in inside]
        assert all(reached), f'{go.__name__}() 之后，{"模型自己" if not reached[0] else "有的零件"}的 training 不是 {mode}：零件里的零件也要告诉到，ModuleList 里的也是。'


@pytest.mark.idea('每种零件和 PyTorch 的一样')
@pytest.mark.parametrize('name', ['Linear', 'LayerNorm', 'ReLU', 'GELU'])
@MODULES
def test_parts_are_those_of_pytorch(rung, name):
    module, arguments = module_of(rung), {'Linear': (4, 3), 'LayerNorm': (4,)}.get(name, ())
    theirs = getattr(nn, name)(*arguments).double()
    for i, p in enumerate(theirs.parameters()):
        p.data += torch.tensor(np.random.RandomState(i).randn(*p.shape))
    with hint(f'{name} 建不起来，或者装不进参数。'):
        ours = getattr(module, name)(*arguments)
        ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    array = np.random.RandomState(9).randn(2, 3, 4) * 2 + 0.5
    with hint(f'{name} 算不出来。'):
        out = ours(module.Tensor(array))
    x = torch.tensor(array)
    expected = theirs(x).detach().numpy()
    usual = {
        'Linear': {'没有加上 bias。': lambda: F.linear(x, theirs.weight)},
        'LayerNorm': {
            '方差除以的是 n - 1：LayerNorm 除以 n，就是平方的平均。': lambda: (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-5) ** 0.5 * theirs.weight + theirs.bias,
            '没有减去均值。': lambda: x / ((x - x.mean(-1, keepdim=True)).square().mean(-1, keepdim=True) + 1e-5) ** 0.5 * theirs.weight + theirs.bias,
            'weight 和 bias 没有用上。': lambda: F.layer_norm(x, (4,)),
            'eps 加在了开方之后：应加在方差上，再开方。': lambda: (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) ** 0.5 + 1e-5) * theirs.weight + theirs.bias,
            '没有 eps：方差上应加 1e-5，再开方。': lambda: (x - x.mean(-1, keepdim=True)) / x.var(-1, keepdim=True, correction=0) ** 0.5 * theirs.weight + theirs.bias,
            '没有开方：应除以标准差，不是方差。': lambda: (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-5) * theirs.weight + theirs.bias,
        },
        'ReLU': {'小于 0 的应变成 0。': lambda: x.abs()},
        'GELU': {
            '用的是 tanh 近似：这里要准确的，x 乘以标准正态分布在 x 以下的概率，用 erf 算。': lambda: F.gelu(x, approximate='tanh'),
            'erf 里没有除以 √2：x 以下的概率是 (1 + erf(x / √2)) / 2。': lambda: x * 0.5 * (1 + torch.erf(x)),
            'erf 里乘了 √2，应是除以它。': lambda: x * 0.5 * (1 + torch.erf(x * 2 ** 0.5)),
            '少了一半：x 以下的概率是 (1 + erf(x / √2)) / 2。': lambda: x * (1 + torch.erf(x / 2 ** 0.5)),
            'erf 没有加 1：x 以下的概率是 (1 + erf(x / √2)) / 2。': lambda: x * 0.5 * torch.erf(x / 2 ** 0.5),
            '只是那个概率，没有乘 x。': lambda: 0.5 * (1 + torch.erf(x / 2 ** 0.5)),
            '用的是 sigmoid：这里要准确的，用 erf 算。': lambda: F.silu(x), '用的是 sigmoid 近似：这里要准确的，用 erf 算。': lambda: x * torch.sigmoid(1.702 * x),
        },
    }[name]
    said = next((said for said, wrong in usual.items() if np.shape(out.data) == expected.shape
                 and np.allclose(out.data, wrong().detach().numpy(), atol=1e-9)), '')
    assert np.shape(out.data) == expected.shape and np.allclose(out.data, expected, atol=1e-6), f'{name} 的输出和 nn.{name} 的不同。{said}'


@pytest.mark.idea('初始值和 torch.nn 的一样')
@MODULES
def test_parts_begin_as_those_of_pytorch(rung):
    module = module_of(rung)
    with hint('Linear、Embedding 或 LayerNorm 建不起来。'):
        linear, embedding, norm = module.Linear(400, 300), module.Embedding(300, 200), module.LayerNorm(5)
    bound = 400 ** -0.5
    for name, p in (('weight', linear.weight), ('bias', linear.bias)):
        largest, spread = abs(p.data).max(), p.data.std()
        assert largest <= bound and abs(spread - bound / 3 ** 0.5) < 0.1 * bound, (
            f'Linear(400, 300) 的 {name} 应在 ±1/√400 = ±{bound:g} 之间均匀地抽，标准差约 {bound / 3 ** 0.5:.3f}，却最大 {largest:.3g}，标准差 {spread:.3g}：bound 是 in_features ** -0.5。')
    values = embedding.weight.data
    assert abs(values.std() - 1) < 0.05 and abs(values.mean()) < 0.05 and 2.5 < abs(values).max() < 7, (
        f'Embedding 的初始值应从标准正态分布里抽，均值 0、标准差 1，却是均值 {values.mean():.3g}、标准差 {values.std():.3g}。')
    assert (norm.weight.data == 1).all() and (norm.bias.data == 0).all(), 'LayerNorm 的 weight 应从 1 开始，bias 从 0 开始。'


@pytest.mark.idea('state_dict 抄一份，装入时名字和形状都要对上')
@MODULES
def test_what_is_kept_is_a_copy_and_what_does_not_fit_is_refused(rung):
    module = module_of(rung)
    model = parts(module, list)
    state = model.state_dict()
    kept = {name: np.array(value) for name, value in state.items()}
    for value in state.values():
        with contextlib.suppress(ValueError):  # arrays that can't be written to are no copy either, but do no harm
            value += 1
    assert all(np.array_equal(value, kept[name]) for name, value in model.state_dict().items()), (
        'state_dict() 给出的数组一改，模型也跟着变了：每个都要抄一份，p.data.copy()。')
    first = next(iter(kept))
    for what, wrong in (('少了一个名字', {name: value for name, value in kept.items() if name != first}), ('多了一个名字', kept | {'other': np.zeros(2)}),
                        ('一个的形状不对', kept | {first: np.zeros((2, 3))}), ('一个的形状不对，但能广播', kept | {first: np.zeros(kept[first].shape[-1])})):
        try:
            model.load_state_dict(wrong)
        except (KeyError, RuntimeError, ValueError):
            continue
        raise AssertionError(f'load_state_dict 收下了对不上的 state：{what}。名字和形状都要先对一遍，对不上就报错，什么也不装。')
    assert all(np.array_equal(value, kept[name]) for name, value in model.state_dict().items()), '对不上的 state 没有装，参数却变了：先全部对一遍，再装。'


@pytest.mark.idea('dropout 训练时丢，评估时不丢')
@MODULES
def test_dropout_drops_and_enlarges(rung):
    module = module_of(rung)
    dropout, x = module.Dropout(0.25), module.Tensor(np.ones((200, 100)))
    with hint('Dropout 算不出来。'):
        out = np.array(dropout(x).data)
        still = np.array(dropout.eval()(x).data)
    assert (still == 1).all(), '评估时（eval()）dropout 还在改动输入：那时应原样返回。'
    dropped = (out == 0).mean()
    assert not ((out == 0).all(axis=0) | (out != 0).all(axis=0)).any() and not ((out == 0).all(axis=1) | (out != 0).all(axis=1)).any(), (
        '整行或者整列一起丢、一起留：每个数各抽各的，随机数的形状要和 x 一样。')
    assert abs(dropped - 0.25) < 0.02, f'Dropout(0.25) 丢掉的应是四分之一，却丢了 {dropped:.2f}。' + ('p 是丢掉的比例，不是留下的。' if abs(dropped - 0.75) < 0.02 else '')
    assert np.allclose(out[out != 0], 1 / 0.75), '留下的数应放大到 1 / (1 - p) 倍，平均才不变。'


# v5

@pytest.mark.idea('交叉熵：平均的 -log softmax')
@TRAINED
def test_cross_entropy(rung):
    with hint('cross_entropy(logits, targets) 算不出来，或者求不了导。'):
        mistake = cross_entropy_mistake(module_of(rung))
    assert mistake is None, mistake


@pytest.mark.idea('得分再大也不溢出')
@TRAINED
def test_large_scores_do_not_overflow(rung):
    for shift in (5000, -5000):
        with np.errstate(all='ignore'):
            loss = module_of(rung).cross_entropy(module_of(rung).Tensor(np.array([[1.0, 2.0, 3.0]]) + shift), np.array([1])).item()
        assert math.isfinite(loss) and abs(loss - 1.4076) < 1e-3, (
            f'三个得分是 {shift + 1}、{shift + 2}、{shift + 3} 时，损失应是 1.4076，和 1、2、3 的一样，却是 {loss:g}：先减去最大的得分，再 exp。')
    module = module_of(rung)
    rows = np.array([[1.0, 2.0, 3.0], [5001.0, 5002.0, 5003.0]])
    with np.errstate(all='ignore'):
        x = module.Tensor(rows)
        loss = module.cross_entropy(x, np.array([1, 1]))
        loss.backward()
        probs = np.array(module.softmax(module.Tensor(rows), -1).data) if hasattr(module, 'softmax') else np.array([[0.0900, 0.2447, 0.6652]] * 2)
    each = '每一行减去自己那一行最大的（axis=-1, keepdims=True），不是整批里最大的，不然小的那几行 exp 之后全是 0。'
    assert math.isfinite(loss.item()) and abs(loss.item() - 1.4076) < 1e-3, (
        f'两行得分，一行是 1、2、3，一行是 5001、5002、5003，损失应是 1.4076，却是 {loss.item():g}：{each}')
    assert np.isfinite(x.grad).all() and np.allclose(x.grad[0], x.grad[1]), f'两行得分，一行是 1、2、3，一行是 5001、5002、5003，两行的梯度应一样：{each}'
    assert np.allclose(probs, [[0.0900, 0.2447, 0.6652]] * 2, atol=1e-3), (
        f'softmax 的两行得分是 1、2、3 和 5001、5002、5003，概率应一样，却是 {np.round(probs, 3).tolist()}：{each}')


@pytest.mark.idea('AdamW 的每一步')
@TRAINED
def test_adamw(rung):
    with hint('AdamW 建不起来，或者走不了一步。'):
        mistake = adamw_mistake(module_of(rung))
    assert mistake is None, mistake


@pytest.mark.idea('zero_grad() 清掉上一步的梯度')
@TRAINED
def test_zero_grad_takes_the_gradients_away(rung):
    module = module_of(rung)
    p = module.Parameter(np.ones(3))
    optimizer = module.AdamW([p], lr=0.1)
    (p * 2).sum().backward()
    optimizer.zero_grad()
    assert p.grad is None or not np.any(p.grad), 'zero_grad() 之后参数的梯度还在：下一步的会加在它上面。'
    other = [module.Parameter(np.ones(3)) for _ in range(3)]
    several = module.AdamW(other, lr=0.1)
    sum((each * 2).sum() for each in other).backward()
    several.zero_grad()
    assert all(each.grad is None or not np.any(each.grad) for each in other), '三个参数，zero_grad() 之后有的梯度还在：每个参数都要清。'
    with hint('有的参数没有梯度（这一步没有用到它），step() 就出错：这样的参数跳过。'):
        optimizer.step()
    (p * 2).sum().backward()
    assert np.allclose(p.grad, 2), f'清零之后再求导，梯度应是 2，却是 {p.grad}。'
