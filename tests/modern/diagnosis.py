"""What is wrong with a learner's part, as in the root: the usual mistakes of this ladder, beside those of the root."""

import math
from types import SimpleNamespace

import torch
from torch.nn import functional as F

from tests.modern.models import GROUP, reached
from tests.root.diagnosis import attend, attention_mistakes, differs
from tests.root.models import BLOCK_SIZE, SIZES, attention_of, merge, noise, shaken, split

WIDTH, N_HEAD = SIZES['n_embd'], SIZES['n_head']
EPS = 1e-6


# Padding and the mean over characters

def evaluation_mistakes(batches):
    """{what to say: the loss that the mistake gives}, from [(loss, its characters, its places)] of the batches."""
    losses, characters, places = map(torch.tensor, zip(*batches, strict=True))
    return {
        '各批的损失直接平均了：各批的字数不同，先各自乘上字数加起来，最后才除以总的字数。': lambda: losses.mean(),
        '填充也算进了字数：只数 y 里不是 padding 的，(y != padding).sum()。': lambda: (losses * places).sum() / places.sum(),
        '填充算进了总的字数：分子和分母都只数 y 里不是 padding 的。': lambda: (losses * characters).sum() / places.sum(),
        '损失加起来之后没有除以字数：要的是每字的平均。': lambda: (losses * characters).sum(),
        '损失加起来之后没有除以字数，也没有乘：各批先乘上字数加起来，最后除以总的字数。': lambda: losses.sum(),
        '损失没有先乘上各批的字数，就除以了总的字数。': lambda: losses.sum() / characters.sum(),
    }


# Schedule

def schedule(rate, warmup, steps):
    """The rate of each step: up to the highest in `warmup` steps, then down by the same amount at each."""
    return torch.tensor([rate * min((step + 1) / warmup, (steps - step) / (steps - warmup)) for step in range(steps)], dtype=torch.double)


def schedule_mistakes(rate, warmup, steps):
    step, right = torch.arange(steps, dtype=torch.double), schedule(rate, warmup, steps)
    up, down = (step + 1) / warmup, (steps - step) / (steps - warmup)
    done = ((step - warmup) / (steps - warmup)).clamp(min=0)

    def least(up, down):
        return rate * torch.minimum(up, down)

    return {
        '学习率没有变：每一步都是 learning_rate。': lambda: torch.full_like(right, rate),
        '没有升，从第 1 步起就往下降：前 warmup_iters 步要从 learning_rate / warmup_iters 升到 learning_rate。': lambda: rate * (steps - step) / steps,
        '没有降：升到 learning_rate 之后就停在那里，应每步降得一样多，到 max_iters 降到 0。': lambda: rate * up.clamp(max=1),
        '第 1 步（step 是 0）的学习率是 0，那一步就白走了：从 learning_rate / warmup_iters 升起，是 (step + 1) / warmup_iters。':
            lambda: least(step / warmup, down),
        '第 1 步的学习率是 0，又升得慢了一格：从 learning_rate / warmup_iters 升起，是 (step + 1) / warmup_iters。':
            lambda: torch.where(step < warmup, rate * step / warmup, rate * down),
        '升不到最高：最高应正好是 learning_rate。降的时候，从第 warmup_iters 步的 learning_rate 开始，除以的是 max_iters - warmup_iters。':
            lambda: least(up, (steps - step) / steps),
        '升不到最高：最高应正好是 learning_rate。升和降应分开，第 warmup_iters 步之前只有升。':
            lambda: rate * up.clamp(max=1) * (steps - step) / steps,
        '降得不是每步一样多，像是余弦（cos）：这里每步降得一样多，是一条直线。': lambda: rate * torch.where(
            step < warmup, up, (1 + (math.pi * done).cos()) / 2),
        '降得不是每步一样多，像是余弦（cos），停在十分之一：这里是一条直线，降到 0。': lambda: rate * torch.where(
            step < warmup, up, 0.1 + 0.45 * (1 + (math.pi * done).cos())),
        '降得不是每步一样多，像是平方根的倒数：这里每步降得一样多，是一条直线。': lambda: rate * torch.where(step < warmup, up, (warmup / (step + 1)).sqrt()),
        '没有降到 0，停在了 learning_rate 的十分之一（0.1）：到第 max_iters 步应降到 0。': lambda: least(up, down.clamp(min=0.1)),
        '没有降到 0，一路降到 learning_rate 的十分之一（0.1）：到第 max_iters 步应降到 0。': lambda: rate * torch.where(step < warmup, up, 1 - 0.9 * done),
        '用了整除 //：商只剩整数，前面各步的学习率成了 0。要用 /。': lambda: least((step + 1) // warmup, down),
        '用了整除 //：商只剩整数，后面各步的学习率成了 0。要用 /。': lambda: least(up, (steps - step) // (steps - warmup)),
        '升反了：应从小升到 learning_rate。': lambda: rate * torch.where(step < warmup, 1 - step / warmup, down),
        '整个除以了 learning_rate：最高应正好是 learning_rate。': lambda: right / rate,
    }


def clipping_mistake(raw, applied, sizes):
    """What is wrong with the gradient that a step applies, given the one that backward left, or None."""
    for given, used in zip(raw, applied, strict=True):
        length, is_now = given.norm(), used.norm()
        pieces = given.split(sizes)
        if length <= 1 and not torch.allclose(given, used, rtol=1e-3):
            return (f'梯度合起来的长度是 {length:.2g}，不到 1，却被改成了 {is_now:.2g}：短的原样不动，'
                    '长过 1 的才缩短到 1。')
        if length <= 1 or torch.allclose(used, given / length, rtol=1e-3, atol=1e-5):
            continue
        if torch.equal(given, used):
            return (f'梯度合起来的长度是 {length:.0f}，原样就用来更新参数了：nn.utils.clip_grad_norm_(model.parameters(), 1.0) '
                    '要放在 loss.backward() 之后、optimizer.step() 之前。')
        for said, wrong in {
            '每个数各自截到了 1 以内（clip_grad_value_），方向就变了：要的是所有梯度合起来的长度不超过 1，用 clip_grad_norm_。': given.clamp(-1, 1),
            '每个参数的梯度各自缩短了：要把所有的梯度合起来算一个长度，一起缩短，方向才不变。一次交给 clip_grad_norm_ 全部参数。':
                torch.cat([piece / max(1, piece.norm()) for piece in pieces]),
        }.items():
            if torch.allclose(used, wrong, rtol=1e-3, atol=1e-6):
                return said
        if is_now > 1.001:
            return f'用来更新参数的梯度，合起来的长度有 {is_now:.2g}，应不超过 1（原来是 {length:.0f}）：clip_grad_norm_(model.parameters(), 1.0)。'
        return f'梯度合起来的长度从 {length:.0f} 改成了 {is_now:.2g}，应正好是 1，方向和原来一样。'
    return None


# Norms

def rms(x, weight, eps=EPS):
    """RMSNorm (Zhang and Sennrich 2019, section 4), as PyTorch has it."""
    return F.rms_norm(x, x.shape[-1:], weight, eps)


def norm_mistake(norm, name):
    """What is wrong with a norm, or None; its places are of all sizes, so that eps shows."""
    x = (noise(3, BLOCK_SIZE, WIDTH) + 0.5) * torch.logspace(-4, 1, BLOCK_SIZE)[:, None]
    weight = norm.weight

    def over(square, axes=-1, add=EPS):
        return x / (square.mean(axes, keepdim=True) + add).sqrt() * weight

    squares, centred = x.square(), x - x.mean(-1, keepdim=True)
    each = '每个位置只看自己，在最后一维（n_embd 个数）上求平均：mean(dim=-1, keepdim=True)。'
    return differs(f'{name} ', lambda: norm(x), lambda: rms(x, weight), {
        f'{name} 减去了均值：RMSNorm 不减均值，只除以均方根。': lambda: rms(centred, weight),
        f'{name} 减去了均值，像 LayerNorm（eps 也是它的 1e-5）：RMSNorm 不减均值，只除以均方根。': lambda: rms(centred, weight, 1e-5),
        f'{name} 除以的是标准差，求方差时减去了均值：应除以均方根，平方的平均再开方。': lambda: over(centred.square()),
        f'{name} 忘了开方：应除以平方的平均的平方根。': lambda: x / (squares.mean(-1, keepdim=True) + EPS) * weight,
        f'{name} 开了方，乘的却是均方根，应是除以它。': lambda: x * (squares.mean(-1, keepdim=True) + EPS).sqrt() * weight,
        f'{name} 里平方加起来（sum）之后没有除以个数：应是平方的平均，mean。': lambda: x / (squares.sum(-1, keepdim=True) + EPS).sqrt() * weight,
        f'{name} 在字的位置那一维（dim=1）上求了平均，应是最后一维，dim=-1：前面的字就看到了后面的。': lambda: over(squares, 1),
        f'{name} 在一批之间（dim=0）求了平均，应是最后一维，dim=-1：各首词就混到了一起。': lambda: over(squares, 0),
        f'{name} 把一段里各个位置混到了一起。{each}应是 dim=-1。': lambda: over(squares, (1, 2)),
        f'{name} 把一批里所有的数混到了一起。{each}应是 dim=-1。': lambda: over(squares, (0, 1, 2)),
        f'{name} 没有用上 weight：除以均方根之后，再乘 weight。': lambda: rms(x, None),
        f'{name} 的 weight 是加上去的，应是乘。': lambda: rms(x, None) + weight,
        f'{name} 乘的是 1 + weight：weight 从 1 开始，乘它自己。': lambda: rms(x, 1 + weight),
        f'{name} 的 eps 加在了开方之后：应加在平方的平均上，再开方。': lambda: x / (squares.mean(-1, keepdim=True).sqrt() + EPS) * weight,
        f'{name} 没有 eps：全是 0 时就除以 0 了。开方之前，在平方的平均上加 1e-6。': lambda: over(squares, add=0),
        f'{name} 的 eps 是 1e-5，应是 1e-6。': lambda: over(squares, add=1e-5),
        f'{name} 的 eps 是 1e-8，应是 1e-6。': lambda: over(squares, add=1e-8),
        f'{name} 什么也没有做。': lambda: x,
    }, lambda: 'RMSNorm 应是 x / sqrt(平方的平均 + 1e-6) * weight，平均在最后一维上做，前后没有别的。')


# Rotary positions

def angles(length, size, base=10000.0, exponent=lambda i, size: -2 * i / size, start=0):
    """The angle of each place and pair (Su et al. 2021, equation 15)."""
    speeds = base ** exponent(torch.arange(size // 2, dtype=torch.double), size)
    return torch.arange(start, start + length, dtype=torch.double)[:, None] * speeds


def turned(x, by):
    """x with its halves as complex numbers, turned by these angles."""
    z = torch.complex(*x.double().chunk(2, dim=-1)) * torch.polar(torch.ones_like(by), by)
    return torch.cat([z.real, z.imag], dim=-1).to(x.dtype)


def by_place(x, by=None):
    """Queries or keys (B, n_head, T, head_size) turned as they should be."""
    return turned(x, angles(x.size(-2), x.size(-1)) if by is None else by)


def turned_back(x):
    return by_place(x, -angles(x.size(-2), x.size(-1)))


def neighbours(x, by=None):
    """Numbers that stand side by side taken for a pair, instead of one of each half."""
    return by_place(x.unflatten(-1, (-1, 2)).transpose(-2, -1).flatten(-2), by).unflatten(-1, (2, -1)).transpose(-2, -1).flatten(-2)


def rotary_mistake(rotary):
    length, size, base = 9, 8, 500.0

    def both(by):
        return torch.cat([by.cos(), by.sin()]).float()

    right = angles(length, size, base)
    given = rotary(length, size, base)
    if not (isinstance(given, tuple | list) and len(given) == 2):
        return 'rotary 要返回两样东西：cos 和 sin。'
    if any(part.shape != right.shape for part in given):
        return (f'rotary({length}, {size}, {base}) 返回的 cos 和 sin，形状都应是 (block_size, half)，half 是 head_size 的一半，'
                f'这里是 {tuple(right.shape)}，却是 {"、".join(str(tuple(part.shape)) for part in given)}。')
    return differs('rotary ', lambda: torch.cat([*given]), lambda: both(right), {
        'cos 和 sin 对调了（反了）：先返回余弦 cos，再返回正弦 sin。': lambda: both(right).roll(length, 0),
        '指数少了负号：第 i 对数的快慢是 base ** (-2 * i / head_size)，越往后转得越慢。': lambda: both(angles(length, size, base, lambda i, size: 2 * i / size)),
        '指数少了一个 2：第 i 对数的快慢是 base ** (-2 * i / head_size)，i 从 0 到 half - 1。': lambda: both(angles(length, size, base, lambda i, size: -i / size)),
        '指数多了一个 2：torch.arange(0, head_size, 2) 已经是 2 * i 了。': lambda: both(angles(length, size, base, lambda i, size: -4 * i / size)),
        '指数从 1 数起了：i 从 0 数起，第一对数每个位置正好转 1。': lambda: both(angles(length, size, base, lambda i, size: -2 * (i + 1) / size)),
        '位置从 1 数起了：从 0 数起，第 0 个位置不转。': lambda: both(angles(length, size, base, start=1)),
        '没有用上参数 base，总是 10000。': lambda: both(angles(length, size)),
        '每一对转得一样快：第 i 对数的快慢是 base ** (-2 * i / head_size)。': lambda: both(angles(length, size, 1.0)),
        '返回的是角度本身，要的是它们的余弦和正弦。': lambda: torch.cat([right, right]).float(),
        '每个位置转得一样多：第 t 个位置转 t 份。': lambda: both(right[1:2].expand_as(right)),
    }, lambda: '第 t 个位置、第 i 对数转的角度是 t * base ** (-2 * i / head_size)，返回它的余弦和正弦。')


def rotate_mistake(rotate):
    x, by = noise(2, 3, 5, 8), angles(5, 8, 7.0)
    c, s = by.cos().float(), by.sin().float()
    x1, x2 = x.chunk(2, dim=-1)
    even, odd = x[..., ::2], x[..., 1::2]
    pairs = '前一半的每个数和后一半的对应的数配成一对，x1, x2 = x.chunk(2, dim=-1)'
    signs = '(x1, x2) 转成 (x1 cos - x2 sin, x2 cos + x1 sin)'

    def halves(a, b):
        return torch.cat([a, b], -1)

    return differs('rotate ', lambda: rotate(x, c, s), lambda: turned(x, by), {
        f'相邻的两个数配成了一对：{pairs}（Hugging Face 的 Llama 和 Qwen 也是这样）。': lambda: neighbours(x, by),
        f'相邻的两个数配成了一对，转完又放成了前一半、后一半：{pairs}。': lambda: halves(even * c - odd * s, odd * c + even * s),
        f'{pairs}，转完也要放回前一半、后一半，用 torch.cat，不要交错着放。': lambda: torch.stack([x1 * c - x2 * s, x2 * c + x1 * s], -1).flatten(-2),
        f'转的方向反了，sin 的正负反了：{signs}。': lambda: turned(x, -by),
        f'不是旋转：x2 的那一半里，sin 的符号错了，应是加。{signs}。': lambda: halves(x1 * c - x2 * s, x2 * c - x1 * s),
        f'不是旋转：x1 的那一半里，sin 的符号错了，应是减。{signs}。': lambda: halves(x1 * c + x2 * s, x2 * c + x1 * s),
        f'cos 和 sin 用反了：{signs}。': lambda: halves(x1 * s - x2 * c, x2 * s + x1 * c),
        f'转完之后，前一半和后一半放反了：{signs}。': lambda: halves(x2 * c + x1 * s, x1 * c - x2 * s),
        f'后一半用的不是 x1：{signs}。': lambda: halves(x1 * c - x2 * s, x2 * c + x2 * s),
        f'后一半里的 x1 已经是转过的：两半都要用转之前的 x1、x2。{signs}。': lambda: halves(x1 * c - x2 * s, x2 * c + (x1 * c - x2 * s) * s),
        f'只有 cos，没有 sin：{signs}。': lambda: halves(x1 * c, x2 * c),
        '什么也没有转。': lambda: x,
    }, lambda: f'{signs}，别的都不变。')


# Attention: the rung's own steps come before those of the root, which are the same as there

def as_it_is(x, norm=None):
    return x


def normed(x, norm):
    return rms(x, norm.weight)


def repeated(x):
    return x.repeat_interleave(GROUP, 1)


def in_turns(x):
    return x.repeat(1, GROUP, 1, 1)


def prepared(sa, rung, turn='qk', how=by_place, norms=('q', 'k', ''), norm=normed, late=False, whole=False, spread=None, back=''):
    """A stand-in for attention in which query, key and value are as softmax attention takes them; it can be got wrong."""
    grouped = reached(rung, 'v18')
    spread = spread or (repeated,) * 2
    how = how if reached(rung, 'v16') else as_it_is
    norms = norms if reached(rung, 'v19') else ('', '', '')

    def part(name, layer, of, spread):
        def run(x):
            out = layer(x)
            if whole and name in turn:
                out = merge(by_place(out[:, None]))
            out = split(out, N_HEAD // GROUP if grouped and name != 'q' else N_HEAD)
            steps = [(lambda out: norm(out, getattr(sa, f'{of}_norm'))) if of else as_it_is,
                     turned_back if name in back else how if name in turn and not whole else as_it_is]
            for step in steps[::-1] if late else steps:
                out = step(out)
            return merge(spread(out) if grouped and name != 'q' else out)
        return run

    return SimpleNamespace(query=part('q', sa.query, norms[0], None), key=part('k', sa.key, norms[1], spread[0]),
                           value=part('v', sa.value, norms[2], spread[1]), proj=sa.proj)


def layer_norm(x, norm):
    return F.layer_norm(x, x.shape[-1:], norm.weight)


def only(index):
    return lambda x: x[:, index:index + 1].expand(-1, N_HEAD, -1, -1)


def averaged(x):
    return x.mean(1, keepdim=True).expand(-1, N_HEAD, -1, -1)


def backwards(x):
    return repeated(x.flip(1))


ROTATION = {  # {what to say: the arguments of `prepared` that make the mistake}
    'v 也转了：value 不转，只转 q 和 k，取来的东西不该随位置变。': {'turn': 'qkv'},
    'k 没有转：q 和 k 都要转，点积里才只剩下两个角度的差。': {'turn': 'q'},
    'q 没有转：q 和 k 都要转，点积里才只剩下两个角度的差。': {'turn': 'k'},
    'q 没有转，v 却转了：转的是 q 和 k，v 不转。': {'turn': 'kv'},
    '位置没有用上：q 和 k 没有转，或者一段里的字转的都是同一个角度（按第 0 个位置，或者按批里的第几段）。应按第几个字转，cos[:T] 和 sin[:T]，T 是字数。':
        {'turn': ''},
    'k 转的方向和 q 相反：两个都照同一个方向转（同样的 cos 和 sin），点积里才只剩下角度的差，不然剩下的是和，也就是两个位置加起来。': {'back': 'k'},
    'q 转的方向和 k 相反：两个都照同一个方向转（同样的 cos 和 sin），点积里才只剩下角度的差，不然剩下的是和，也就是两个位置加起来。': {'back': 'q'},
    '在分头之前就转了：要先分头，每个头里的前一半和后一半配成对，按一个头的宽度 head_size 算角度，再转。': {'whole': True},
    '相邻的两个数配成了一对：前一半的每个数和后一半的对应的数配成一对。': {'how': neighbours},
    '转的方向反了，sin 的正负反了。': {'how': lambda x: turned(x, -angles(x.size(-2), x.size(-1)))},
    '转的角度是按 n_embd 算的：应按一个头的宽度，rotary(block_size, n_embd // n_head)。':
        {'how': lambda x: turned(x, angles(x.size(-2), WIDTH)[:, :x.size(-1) // 2])},
    '位置数到了头那一维上：第几个头就转几份，应是第几个字。转之前，形状要是 (B, n_head, T, head_size)。':
        {'how': lambda x: turned(x, angles(x.size(1), x.size(-1))[:, None])},
}
GROUPING = {
    'key 和 value 的头一轮一轮地重复了（repeat）：第 h 个 query 头用第 h // (n_head / n_kv_head) 个，'
    '相邻的 query 头合用一个，用 repeat_interleave(……, dim=1)。': {'spread': (in_turns, in_turns)},
    'value 的头和 key 的头排得不一样：两者都要相邻的 query 头合用一个，用 repeat_interleave(……, dim=1)，value 用了 repeat。': {'spread': (repeated, in_turns)},
    'key 的头和 value 的头排得不一样：两者都要相邻的 query 头合用一个，用 repeat_interleave(……, dim=1)，key 用了 repeat。': {'spread': (in_turns, repeated)},
    'key 和 value 的各个头求了平均：每个 query 头用的是自己那一组的一个头，不是平均。': {'spread': (averaged, averaged)},
    '所有的 query 头用的都是第 1 个 key 头和 value 头：第 h 个 query 头用第 h // (n_head / n_kv_head) 个。': {'spread': (only(0), only(0))},
    'key 的头次序倒了：第 h 个 query 头用第 h // (n_head / n_kv_head) 个。': {'spread': (backwards, repeated)},
    'key 和 value 的头次序倒了：第 h 个 query 头用第 h // (n_head / n_kv_head) 个。': {'spread': (backwards, backwards)},
}
NORMS = {
    '先旋转、后归一化了：要先归一化，再旋转。weight 在一对数里不一样时，次序就有分别。': {'late': True},
    '没有归一化：q_norm 和 k_norm 没有用上，每个头的 q 和 k 要先归一化，再旋转。': {'norms': ('', '', '')},
    'key 没有归一化：k_norm 没有用上。': {'norms': ('q', '', '')},
    'query 没有归一化：q_norm 没有用上。': {'norms': ('', 'k', '')},
    'key 用的是 q_norm：k_norm 没有用上，q 和 k 各用各的。': {'norms': ('q', 'q', '')},
    'query 用的是 k_norm：q_norm 没有用上，q 和 k 各用各的。': {'norms': ('k', 'k', '')},
    'q_norm 和 k_norm 用反了。': {'norms': ('k', 'q', '')},
    'v 也归一化了：value 不归一化，只有 q 和 k。': {'norms': ('q', 'k', 'k')},
    'v 也归一化了：value 不归一化，只有 q 和 k。 ': {'norms': ('q', 'k', 'q')},
    '归一化时减去了均值（LayerNorm）：q_norm 和 k_norm 是 RMSNorm。': {'norm': layer_norm},
    'q_norm 和 k_norm 的 weight 没有用上。': {'norm': lambda x, norm: rms(x, None)},
}


def attention_mistake(rung, **sizes):
    """What is wrong with the attention of a rung, in Chinese, or None; its weights are shaken, so that it shows."""
    sa, x = attention_of(shaken(rung, **sizes)), noise(3, BLOCK_SIZE, WIDTH)
    own = (ROTATION if reached(rung, 'v16') else {}) | (GROUPING if reached(rung, 'v18') else {}) | (NORMS if reached(rung, 'v19') else {})
    right = prepared(sa, rung)
    steps = ['分头', *['q 和 k 归一化'] * reached(rung, 'v19'), *['q 和 k 旋转'] * reached(rung, 'v16'),
             *['k 和 v 按组重复'] * reached(rung, 'v18'), 'q @ k 的转置 / √head_size', '掩码', 'softmax', '乘 v', '合并', 'proj']
    return differs('注意力', lambda: sa(x), lambda: attend(right, x, N_HEAD), {
        said: lambda wrong=wrong: attend(prepared(sa, rung, **wrong), x, N_HEAD) for said, wrong in own.items()
    } | attention_mistakes(right, x, N_HEAD), lambda: f'一步一步对照：{"，".join(steps)}。')


# Feed-forward network with a gate

def gated_mistake(ffwd):
    x = noise(2, BLOCK_SIZE, WIDTH)
    gate, up, down = ffwd.gate, ffwd.up, ffwd.down
    others = [('ReLU', F.relu), ('GELU', F.gelu), ('GELU（tanh 近似）', lambda x: F.gelu(x, approximate='tanh')), ('sigmoid', torch.sigmoid), ('tanh', torch.tanh)]
    return differs('前馈网络', lambda: ffwd(x), lambda: down(F.silu(gate(x)) * up(x)), {
        **{f'闸门用的是 {name}：应是 silu(gate(x))。': lambda f=f: down(f(gate(x)) * up(x)) for name, f in others},
        '闸门少了 silu：应是 silu(gate(x)) * up(x)，没有它，闸门只是一个数，不能关上。': lambda: down(gate(x) * up(x)),
        'gate 和 up 用反了：silu 应在 gate 上，silu(gate(x)) * up(x)。': lambda: down(gate(x) * F.silu(up(x))),
        'gate 和 up 上都用了 silu：只在 gate 上。': lambda: down(F.silu(gate(x)) * F.silu(up(x))),
        'silu 用在了乘好之后：应是 silu(gate(x)) * up(x)。': lambda: down(F.silu(gate(x) * up(x))),
        '闸门是加上去的：应是乘，silu(gate(x)) * up(x)。': lambda: down(F.silu(gate(x)) + up(x)),
        'up 没有用上：应是 silu(gate(x)) * up(x)。': lambda: down(F.silu(gate(x))),
        'gate 没有用上：应是 silu(gate(x)) * up(x)。': lambda: down(F.silu(up(x))),
        'gate 没有用上：应是 silu(gate(x)) * up(x)，用的都是 up。': lambda: down(F.silu(up(x)) * up(x)),
        'up 没有用上：应是 silu(gate(x)) * up(x)，用的都是 gate。': lambda: down(F.silu(gate(x)) * gate(x)),
        '前馈网络里又加了它的输入：残差连接在 Block 里，这里只返回 down(……)。': lambda: x + down(F.silu(gate(x)) * up(x)),
        'down 之后又有一个 silu：输出应直接是 down(……)。': lambda: F.silu(down(F.silu(gate(x)) * up(x))),
    }, lambda: '应是 down(silu(gate(x)) * up(x))，别的都没有（eval 模式下）。')
