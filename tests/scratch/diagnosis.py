"""What is wrong with a learner's part, in Chinese, or None: the usual mistakes are computed too, and the one that gives
exactly what the part gives is named.
"""

import numpy as np
import torch
from torch.nn import functional as F


def gradients(make, f, values):
    """(the gradients that ours gives, PyTorch's) of f of numbers."""
    ours, theirs = [make(value) for value in values], [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in values]
    f(*ours).backward()
    f(*theirs).backward()
    return [0.0 if x.grad is None else float(x.grad) for x in ours], [x.grad.item() for x in theirs]


def close(a, b):
    return np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=1e-5, atol=1e-8)


def gradient_mistake(make, name, f, values):
    """What is wrong with the value or the gradients of one operation on two numbers."""
    value, expected = f(*map(make, values)).data, f(*(torch.tensor(value, dtype=torch.float64) for value in values)).item()
    where = f'a = {values[0]}，b = {values[1]} 时，{name} '
    if not close(value, expected):
        return f'{where}应是 {expected:.4f}，却是 {float(value):.4f}。'
    found, right = gradients(make, f, values)
    if close(found, right):
        chained, right_chained = gradients(make, lambda a, b: f(a, b) * 3, values)
        if close(chained, right_chained):
            return None
        if not any(chained):
            return f'{name} 再乘 3，就没有一份传到 a 和 b：次序反了，要从最后算出的数开始，用到别人的在前，被用到的在后。'
        return (f'{name} 没有把传来的梯度乘进去：结果再乘 3，a、b 的梯度都该是 3 倍，应是 {np.round(right_chained, 4).tolist()}，'
                f'却是 {np.round(chained, 4).tolist()}。链式法则是一环一环乘起来。')
    said = ('没有一份传到 a 和 b：backward() 开始时，要让它自己的 grad 是 1，再从它开始往回走，次序是用到别人的在前。' if not any(found) else
            'a 和 b 的那两份给反了。' if close(found, right[::-1]) else
            '正负号反了。' if close(found, np.negative(right)) else
            '每个运算由自己的梯度 grad 算出用到的每个数的那一份，写在纸上求一次导再对照。')
    return f'{where}对 a、b 的导数应是 {np.round(right, 4).tolist()}，却是 {np.round(found, 4).tolist()}。{said}'


def order_mistake(make):
    """Whether a number passes its gradient on before it has all of it: graphs with a short way and a long way to the same number."""
    shapes = {
        'c = b * b，d = c + b': lambda b: b * b + b, 'c = b * b，d = b + c': lambda b: b + b * b,
        'c = b * b * b，d = c * b': lambda b: b * b * b * b, 'c = b + 1，d = c * b + b': lambda b: (b + 1) * b + b,
        'c = b.tanh() * b，d = c * c + b': lambda b: (b.tanh() * b) ** 2 + b,
    }
    for name, f in shapes.items():
        (found,), (right,) = gradients(make, lambda a, f=f: f(a * 2), [1.5])
        if not close(found, right):
            return (f'b = a * 2，{name}：a = 1.5 时，a 的梯度应是 {right:g}，却是 {found:g}。b 从长短两条路收到梯度，只收到一条就往回传了，或者传了两遍：'
                    '要按拓扑排序，用到它的都轮过了，才轮到它，每个只轮一次。')
    return None


def weights_of(shape):
    return np.array(np.random.RandomState(3).randn(*shape))


def how_far(found, right):
    """What can be said of wrong numbers: their sign, or a factor that they all have."""
    with np.errstate(all='ignore'):
        ratio = np.ravel(found) / np.ravel(right)
    if not np.isfinite(ratio).all() or np.ptp(ratio) > 1e-6 * abs(ratio).max():
        return '用几个数在纸上算一遍，再对照。'
    return '正负号反了。' if close(ratio[0], -1) else (
        f'每个数都是应有的 {ratio[0]:.4g} 倍：' + ('平均要除以加起来的那几个数的个数，只数这一维，不是全部的个数。' if ratio[0] < 1 else '多乘了，或者少除了。'))


def tensor_mistake(module, name, f, arrays):
    """What is wrong with an operation on arrays: its value, or the gradient of one of its arguments."""
    ours, theirs = [module.Tensor(array) for array in arrays], [torch.tensor(array, requires_grad=True) for array in arrays]
    out, expected = f(*ours), f(*theirs)
    if np.shape(out.data) != tuple(expected.shape):
        return f'{name} 的结果，形状应是 {tuple(expected.shape)}，却是 {np.shape(out.data)}。'
    if not close(out.data, expected.detach()):
        return f'{name} 的结果不对。{how_far(out.data, expected.detach().numpy())}'
    weights = weights_of(expected.shape)
    (out * weights).sum().backward()
    (expected * torch.tensor(weights)).sum().backward()
    for i, (x, y) in enumerate(zip(ours, theirs, strict=True)):
        side = f'{name}：{["左边", "右边"][i] if len(ours) > 1 else ""}的梯度'
        right = y.grad.numpy()
        if x.grad is None:
            return f'{side}没有收到。'
        if np.shape(x.grad) != right.shape:
            return f'{side}，形状应是 {right.shape}，却是 {np.shape(x.grad)}：广播之后一个数当几个用，收到的几份要加起来，变回它自己的形状。'
        if not close(x.grad, right):
            copies = expected.numel() / max(right.size, 1)
            said = ('几份要相加，不是平均。' if copies > 1 and close(np.array(x.grad) * copies, right) else
                    '平均的每一份要除以个数。' if copies < 1 and close(np.array(x.grad) * copies, right) else
                    '正负号反了。' if close(-np.array(x.grad), right) else
                    '只取了其中一份，应把几份都加起来。' if copies > 1 else
                    '用一个很小的差商对照着检查。')
            return f'{side}不对。{said}'
    return None


# The loss and the optimiser

def cross_entropy_mistake(module):
    array, targets = np.random.RandomState(0).randn(6, 5) * 2, np.array([0, 4, 2, 2, 1, 0])
    x, y, t = module.Tensor(array), torch.tensor(array, requires_grad=True), torch.tensor(targets)
    loss, expected = module.cross_entropy(x, targets), F.cross_entropy(y, t)
    if np.shape(loss.data) != ():
        return f'损失应是一个数，却是 {np.shape(loss.data)} 的张量：各个位置要求平均。'
    if not close(loss.item(), expected.item()):
        log_probs = F.log_softmax(y, -1).detach()
        wrong = {
            '是各个位置的和，应求平均。': F.cross_entropy(y, t, reduction='sum'),
            '正负号反了：损失是 -log 概率，不会是负的。': -expected,
            '用的是概率，没有取对数。': -log_probs.exp()[range(6), targets].mean(),
            '又做了一次 softmax：logits 是得分，不是概率。': F.cross_entropy(F.softmax(y, -1), t),
            '取的是最大的得分，应取答案的得分。': -log_probs.max(-1).values.mean(),
            '减掉了最大的得分，没有加回来：log(sum(exp(x - 最大))) 要再加上最大，或者答案的得分也减去它。':
                ((y - y.max(-1, keepdim=True).values).logsumexp(-1) - y[range(6), targets]).mean(),
            '只有答案的得分，没有 log(sum(exp)) 那一项。': -y[range(6), targets].mean(),
        }
        said = next((said for said, value in wrong.items() if close(loss.item(), value.item())), '')
        return f'损失应是 {expected.item():.4f}，却是 {loss.item():.4f}。{said}'
    loss.backward()
    expected.backward()
    if x.grad is None or not close(x.grad, y.grad):
        return '损失的值对，对得分的梯度不对：应是 (softmax 的概率 - 答案处的 1) / 个数。看看是不是有一步绕过了 Tensor，直接在 .data 上算。'
    return None


GRADS = [np.array([3.0, -0.02, 0.5]) * scale for scale in (1.0, -0.3, 2.0, 0.1, 1.0)]
START = np.array([1.0, -2.0, 0.5])


def adamw(lr=0.1, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, correct=(True, True), coupled=False, decay=1.0,
          root=True, first=0, momentum=True, squares=True, sign=-1, outside=True, late=False):
    """Five steps of AdamW (Loshchilov and Hutter 2019, algorithm 2), which can be got wrong."""
    p, m, v = START.copy(), 0.0, 0.0
    for t, grad in enumerate(GRADS, 1 - first):
        g = grad + weight_decay * p if coupled else grad
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * (g * g if squares else g)
        with np.errstate(all='ignore'):
            a = (m if momentum else g) / (1 - betas[0] ** t if correct[0] else 1)
            b = v / (1 - betas[1] ** t if correct[1] else 1)
            update = a / ((b ** 0.5 + eps if outside else (b + eps) ** 0.5) if root else b + eps)
        shrink = 1 - decay * (0 if coupled else lr * weight_decay)
        p = (p + sign * lr * update) * shrink if late else p * shrink + sign * lr * update
    return p


WRONG_STEPS = {
    '两个平均都没有修正：它们从 0 开始，第 t 步要除以 1 - beta ** t，头几步才不会太小。': {'correct': (False, False)},
    '梯度的平均没有修正：第 t 步除以 1 - beta1 ** t。': {'correct': (False, True)},
    '梯度平方的平均没有修正：第 t 步除以 1 - beta2 ** t。': {'correct': (True, False)},
    '步数从 0 数起了：第一步的 t 是 1。': {'first': 1},
    '衰减和梯度混在一起了：weight_decay * p 不能加进梯度（那是 Adam 加 L2），要单独减，p 乘以 1 - lr * weight_decay。': {'coupled': True},
    '没有衰减：每步 p 还要乘以 1 - lr * weight_decay，默认的 weight_decay 是 0.01。': {'decay': 0.0},
    '衰减没有乘 lr：每步 p 乘以 1 - lr * weight_decay。': {'decay': 10.0},
    '没有开方：要除以梯度平方的平均的平方根。': {'root': False},
    '没有用梯度的平均，用的是这一步的梯度。': {'momentum': False},
    '两个 beta 用反了：betas[0] 是梯度的，betas[1] 是梯度平方的。': {'betas': (0.999, 0.9)},
    '第二个平均里没有平方：它是梯度平方的平均。': {'squares': False},
    '方向反了：应逆着梯度走。': {'sign': 1},
    '先走了步子再缩，把步子也缩了：缩的是走之前的参数，p * (1 - lr * weight_decay) - lr * 步子。': {'late': True},
    'eps 加在了根号里：先开方，再加 eps。': {'outside': False},
}


def adamw_mistake(module):
    """Options that make the mistakes visible; then the defaults."""
    for options in ({'lr': 0.1, 'weight_decay': 0.5, 'eps': 1e-3}, {'lr': 0.1}):
        p = module.Parameter(START)
        optimizer = module.AdamW([p], **options)
        for grad in GRADS:
            p.grad = grad.copy()
            with np.errstate(all='ignore'):
                optimizer.step()
        if not close(p.data, adamw(**options)):
            said = next((said for said, wrong in WRONG_STEPS.items()
                         if np.allclose(p.data, adamw(**(options | wrong)), rtol=1e-7, equal_nan=True)), None)
            if said is None and np.allclose(p.data, START):
                said = 'step() 之后参数没有变。'
            named = '，'.join(f'{name}={value}' for name, value in options.items())
            return f'AdamW(…, {named}) 走了五步，参数应是 {np.round(adamw(**options), 4)}，却是 {np.round(p.data, 4)}。{said or ""}'
    return together_mistake(module)


def together_mistake(module):
    """Whether parameters that are optimised together take the steps that each takes alone."""
    parts = [START, -2 * START, START[:1]]
    together, alone = [module.Parameter(part) for part in parts], [module.Parameter(part) for part in parts]
    for optimizer, parameters in [(module.AdamW(together, lr=0.1), together), *((module.AdamW([p], lr=0.1), [p]) for p in alone)]:
        for grad in GRADS:
            for p in parameters:
                p.grad = grad[:p.data.size].copy()
            optimizer.step()
    for i, (mine, right) in enumerate(zip(together, alone, strict=True)):
        if not close(mine.data, right.data):
            return (f'三个参数交给同一个 AdamW，第 {i + 1} 个走五步到了 {np.round(mine.data, 4)}，它自己单独走却是 {np.round(right.data, 4)}：'
                    '每个参数各记各的两个平均；步数 t 一步只加 1，不是每个参数加 1。')
    return None
