"""What is wrong with a learner's part: the usual mistakes are computed too, and the one that gives exactly what the
part gives is named. Asked only when something differs from what it should be.
"""

from contextlib import suppress
from itertools import chain, combinations

import torch
from torch.nn import functional as F

from tests.root.models import BLOCK_SIZE, SIZES, attention_of, layers_of, merge, noise, shaken, split

INF = float('inf')
WIDTH = SIZES['n_embd']


def alike(a, b, atol=1e-5):
    """Whether two results are equal to rounding, NaN included: tensors, or what was said where there is none."""
    if isinstance(a, str) or isinstance(b, str):
        return isinstance(a, str) and a == b
    return a.shape == b.shape and torch.allclose(a, b, atol=atol, rtol=1e-4, equal_nan=True)


BREAKS = (RuntimeError, LookupError, TypeError, ValueError, AttributeError)  # all that torch raises


def outcome(compute):
    """What a computation returns, or what it says when it breaks."""
    try:
        return compute()
    except BREAKS as error:
        return str(error)


def differs(part, compute, expected, mistakes, look, wrt=()):
    """What to say of a part that does not give what is expected, or None: of known mistakes, then of what can be seen.

    `compute` gives what the part returns, `mistakes` are {what to say: how to compute what it leads to}, and `look`
    finds where to look when none fits. The derivatives in `wrt` must be the same, too.
    """
    out, right = outcome(compute), expected()
    if alike(out, right):
        return cut_off(part, out, right, wrt)
    for said, result in mistakes.items():
        if alike(out, outcome(result)):
            return said.strip()
    if isinstance(out, str):
        compute()  # an error that we know nothing of: let it speak
    if not isinstance(out, torch.Tensor):
        return f'{part}应返回一个张量，却返回了 {type(out).__name__}。'
    said = ''
    with suppress(*BREAKS):  # what is looked at may be missing, or of another size
        said = moved(out, right) or look()
    if out.shape != right.shape:
        return f'{part}的输出形状应是 {in_letters(right.shape)}，却是 {in_letters(out.shape)}。{said}'
    return f'{part}的输出{"里有 NaN" if out.isnan().any() else "和应有的不同"}。{said}'


def cut_off(part, out, right, wrt):
    """Whether the way back to some of `wrt` ({name: tensor}) is cut off or another one, though the output is right."""
    wrt = {name: tensor for name, tensor in dict(wrt).items() if tensor is not None and tensor.requires_grad}
    push = noise(*right.shape)
    found = [torch.autograd.grad((value * push).sum(), [*wrt.values()], retain_graph=True, allow_unused=True)
             if wrt and value.requires_grad else [None] * len(wrt) for value in (out, right)]
    for name, mine, theirs in zip(wrt, *found, strict=True):
        if theirs is not None and not alike(torch.zeros_like(theirs) if mine is None else mine, theirs, atol=1e-4):
            return (f'{part}的输出是对的，对 {name} 求的导却{"是零" if mine is None or not mine.any() else "不对"}：有一步断开了求导，'
                    '它就学不到。看看有没有 detach()、.data、.item()、torch.no_grad()。')
    return None


LETTERS = {SIZES['vocab_size']: 'vocab_size', WIDTH: 'n_embd', BLOCK_SIZE: 'T', SIZES['n_head']: 'n_head', WIDTH // SIZES['n_head']: 'head_size'}


def in_letters(shape):
    """A shape as it is written in comments, and its numbers."""
    shape = tuple(shape)
    return f'({", ".join(["B", *(LETTERS.get(size, str(size)) for size in shape[1:])])})（这里是 {shape}）' if len(shape) > 1 else f'{shape}'


def moved(out, right):
    """Whether everything is there but in another place: which place holds what belongs to which, or nothing."""
    for axis, name in ((1, '个字'), (2, '维'), (0, '段文本')) if out.dim() == 3 and out.shape == right.shape else ():
        mine, theirs = out.movedim(axis, 0), right.movedim(axis, 0)
        there = [[alike(a, b) for b in theirs] for a in mine]
        if all(map(any, there)):
            i, j = next((i, row.index(True)) for i, row in enumerate(there) if not row[i])
            return f'看到的是：数都算对了，放错了地方：第 {i + 1} {name}的地方，放的是应在第 {j + 1} {name}的数。'
    return ''


STEPS = {'ReLU': torch.relu, 'softmax': lambda x: x.softmax(-1), 'tanh': torch.tanh, 'sigmoid': torch.sigmoid, 'GELU': F.gelu,
         'GELU（tanh 近似）': lambda x: F.gelu(x, approximate='tanh'), 'SiLU': F.silu, 'ELU': F.elu, 'LeakyReLU': F.leaky_relu,
         'abs': torch.abs, '平方': torch.square, 'exp': torch.exp, '归一化（layer norm）': lambda x: F.layer_norm(x, x.shape[-1:]),
         '归一化（长度变成 1）': lambda x: F.normalize(x, dim=-1), '各个位置求平均': lambda x: x.mean(1, keepdim=True).expand_as(x),
         '从前面累加': lambda x: x.cumsum(1), '位置往后挪一格': lambda x: x.roll(1, 1), '位置往前挪一格': lambda x: x.roll(-1, 1)}


def spaced(name):
    """A name as it stands before a Chinese word."""
    return f'{name} ' if name[-1].isascii() else name


def described(value, known, right, what):
    """What a tensor is that should be `right`: one that is known ({name: tensor}), with a step more, or a sum. Else nothing."""
    with suppress(RuntimeError):
        value = value.expand_as(right)
    known = {name: other for name, other in known.items() if isinstance(other, torch.Tensor) and other.shape == value.shape}
    for name, other in [*known.items(), *[(what, right)] * (right.shape == value.shape)]:
        if alike(value, other):
            return name
        for step, function in STEPS.items():
            if alike(value, function(other)):
                return f'{spaced(name)}再经过 {step}'
    if not known or value.isnan().any():
        return ''
    columns = torch.stack([other.flatten() for other in known.values()], 1).double()
    factors = torch.linalg.lstsq(columns, value.flatten().double()[:, None], driver='gelsd').solution[:, 0]
    if not alike((columns @ factors).float(), value.flatten(), atol=1e-4):
        return ''
    return ' + '.join(name if abs(factor - 1) < 1e-3 else f'{factor:.2g} × {name}'
                      for name, factor in zip(known, factors.tolist(), strict=True) if abs(factor) > 1e-3) or '零'


def matters(run, module):
    """Whether a result depends on the weights of a module."""
    with torch.no_grad():
        results = [outcome(run)]
        for shift in (1, -1):
            for parameter in module.parameters():
                parameter.add_(shift)
            results.append(outcome(run))
    return not alike(*results[:2])


def located(run, steps, known, result=None):
    """Where a computation leaves its way first, in Chinese, or nothing.

    `steps` are [(name, module, what it should read, what that is called)], `known` the tensors that it starts from,
    and `result` is (what it should return, what that is called).
    """
    calls = []
    hooks = [module.register_forward_hook(with_kwargs=True, hook=lambda _, args, named, out, name=name: calls.append(
        (name, [*args, *named.values()][0].clone(), out.clone()))) for name, module, *_ in steps]
    with torch.no_grad():
        out = outcome(run)
    for hook in hooks:
        hook.remove()
    for name, module, right, what in steps:
        reads = []
        for i, (called, read, _) in enumerate(calls):
            if called == name:
                before = known | {f'{spaced(other)}的输出': out for other, _, out in calls[:i]}
                reads.append((read, described(read, before, right, what)))
        if not reads:  # a call of the layer is not the only way to use its weights
            if matters(run, module):
                continue
            return f'看到的是：{spaced(name)}没有用上。'
        if len(reads) > 1:
            each = '，'.join(f'第 {i + 1} 次读的是{f"「{found}」" if found else "别的东西"}' for i, (_, found) in enumerate(reads))
            return f'看到的是：{spaced(name)}调用了 {len(reads)} 次，应是 1 次：{each}。'
        [(read, found)] = reads
        if not alike(read, right):
            shape = '' if read.shape == right.shape else f'（形状是 {in_letters(read.shape)}，应是 {in_letters(right.shape)}）'
            return (f'看到的是：{spaced(name)}读到的{f"是「{found}」，应是" if found else "不是"}「{what}」{shape}'
                    f'{"" if found else "，在它之前多了或少了一步"}。')
    if result is None or alike(out, result[0]) or isinstance(out, str):
        return ''
    found = described(out, known | {f'{spaced(name)}的输出': out for name, _, out in calls}, *result)
    return f'看到的是：各部分读到的都对，最后返回的{f"是「{found}」，应是" if found else "却不是"}「{result[1]}」。'


# Attention

def ahead(diagonal=1):
    return torch.ones(BLOCK_SIZE, BLOCK_SIZE).triu(diagonal).bool()


def parted(x, heads):
    return split(x, heads) if heads > 1 else x


def joined(out):
    return merge(out) if out.dim() == 4 else out


def attend(sa, x, heads, q='query', k='key', v='value', scale=lambda size: size ** -0.5, late=1, masked=None, fill=-INF,
           mask='before', softmax=lambda scores: scores.softmax(-1), apart=parted, together=joined,
           turn=lambda k: k.transpose(-2, -1), proj=lambda proj, out, x: proj(out), once=lambda weights: weights):
    """Softmax attention as it should be by default (Vaswani et al. 2017, eq. 1); each argument can be got wrong."""
    given = x
    if proj is FIRST:
        x = sa.proj(x)
    if v == 'projected':
        q, k, v = sa.query(x), sa.key(x), sa.proj(sa.value(x))
    else:
        q, k, v = (x if name == 'x' else getattr(sa, name)(x) for name in (q, k, v))
    q, k, v = (apart(part, heads) for part in (q, k, v))
    scores = q @ turn(k) * scale(q.size(-1))
    masked = ahead()[:scores.size(-2), :scores.size(-1)] if masked is None else masked
    if mask == 'before':
        scores = scores.masked_fill(masked, fill)
    if mask == 'product':
        scores = scores + torch.where(masked, -INF, torch.nan)
    weights = softmax(scores)
    if mask == 'after':
        weights = weights.masked_fill(masked, 0 if fill == -INF else INF * fill)
    out = together(once(weights * late) @ v)
    return proj(sa.proj, out, given) if hasattr(sa, 'proj') else out


def FIRST(proj, out, x):
    """Not behind attention, but before it."""
    return out


NAMES = ('query', 'key', 'value', 'x')
MISTAKES = {  # {what to say: the arguments of `attend` that make the mistake}
    '匹配度没有缩放：softmax 之前，点积要除以 query 维数的平方根。': {'scale': lambda size: 1},
    '缩放忘了开平方：应除以维数的平方根，不是除以维数。': {'scale': lambda size: 1 / size},
    '缩放的方向反了：应除以维数的平方根，不是乘。': {'scale': lambda size: size ** 0.5},
    '缩放时除以了字数（block_size 或 T）的平方根：应是 query 维数的平方根，和有几个字无关。':
        {'scale': lambda size: BLOCK_SIZE ** -0.5},
    '缩放放到了 softmax 之后：要在 softmax 之前缩放匹配度，之后再乘，权重加起来就不是 1 了。':
        {'scale': lambda size: 1, 'late': WIDTH ** -0.5},
    'query 和 key 没有用上：匹配度全一样，权重是平均分的。匹配度应是 q @ k 的转置。': {'scale': lambda size: 0},
    'softmax 的方向反了：每个 query 对各个 key 的权重加起来应是 1，也就是 dim=-1。':
        {'softmax': lambda scores: scores.softmax(-2)},
    '没有 softmax：匹配度没有变成加起来是 1 的权重，就拿去乘 value 了。': {'softmax': lambda scores: scores},
    '没有 softmax：权重应是 softmax(匹配度)，这里只是把匹配度除以了它们的和。':
        {'softmax': lambda scores: scores / scores.sum(-1, keepdim=True)},
    '掩码错了一格：每个字能看到它的下一个字，而那正是要猜的。要从对角线上面那一格开始盖。': {'masked': ahead(2)},
    '掩码错了一格：连自己也盖住了，第 1 个字就什么也看不到（一行全是 -inf，softmax 得 NaN）。对角线是自己，要留着。':
        {'masked': ahead(0)},
    '没有掩码，或者掩码没有用上：softmax 之前，要把未来位置的匹配度换成 -inf。'
    'masked_fill 返回新的张量，要接住它：scores = scores.masked_fill(……)。': {'masked': ahead(BLOCK_SIZE)},
    '掩码的方向反了：盖住的是过去，留下的是未来。': {'masked': ahead().T},
    '掩码的意思反了：盖住的是该看的（自己和过去），留下的是未来。': {'masked': ~ahead()},
    '盖住的匹配度换成了 0，而 e 的 0 次方是 1，仍会分到权重：要换成 -inf，softmax 之后才是 0。': {'fill': 0},
    '盖住的匹配度换成了 1e-9，差不多是 0，仍会分到权重：要换成 -inf（或很大的负数 -1e9）。': {'fill': 1e-9},
    '盖住的匹配度换成了 -1，softmax 之后仍会分到权重：要换成 -inf。': {'fill': -1},
    '掩码里有 NaN：0 乘 -inf 得 NaN。先做好 0 和 1 的三角，再用 masked_fill 换成 -inf，'
    '不要拿它去乘 -inf。': {'mask': 'product'},
    '掩码用得太晚：softmax 之后再把权重改成 0，剩下的加起来就不是 1 了。要在 softmax 之前把匹配度换成 -inf。':
        {'mask': 'after'},
    '掩码用得太晚：要在 softmax 之前把匹配度换成 -inf，softmax 之后的权重里不该有 -inf。': {'mask': 'after', 'fill': -1},
    'k 没有转置：匹配度应是 q @ k.transpose(-2, -1)。': {'turn': lambda k: k},
    'k 换错了两维：转置要换最后两维，q @ k.transpose(-2, -1)。': {'turn': lambda k: k.transpose(0, 1)},
    'k 换错了两维：转置要换最后两维，k.transpose(-2, -1)，第 1 维和第 2 维不是它们。': {'turn': lambda k: k.transpose(1, 2)},
    'k 的转置写成了 view 或 reshape：它们只是把同样的次序重新分行，不换行和列。要用 k.transpose(-2, -1)。':
        {'turn': lambda k: k.reshape(*k.shape[:-2], k.size(-1), k.size(-2))},
    '除了 value，还把别的东西归一化了：这一级的注意力里没有 LayerNorm，归一化是 v9 的内容。':
        {'together': lambda out: F.layer_norm(joined(out), (WIDTH,))},
}
WITH_HEADS = {
    '缩放用错了宽度：应除以一个头的宽度 head_size 的平方根，不是 n_embd 的。': {'scale': lambda size: WIDTH ** -0.5},
    '缩放时除以了头数 n_head 的平方根：应是一个头的宽度 head_size 的平方根。': {'scale': lambda size: SIZES['n_head'] ** -0.5},
    '分头时形状拆错了，把不同位置的数混到了一起：先拆成 (B, T, n_head, head_size)，再交换中间两维。':
        {'apart': lambda x, heads: x.reshape(len(x), heads, BLOCK_SIZE, -1)},
    '分头和合并时形状都拆错了，把不同位置的数混到了一起：先拆成 (B, T, n_head, head_size)，再交换中间两维；合并时先换回来。':
        {'apart': lambda x, heads: x.reshape(len(x), heads, BLOCK_SIZE, -1), 'together': lambda out: out.reshape(len(out), BLOCK_SIZE, -1)},
    '合并各个头时没有先换回来：(B, n_head, T, head_size) 要先交换中间两维，再合成 (B, T, n_embd)，否则不同位置的数混到了一起。':
        {'together': lambda out: out.reshape(len(out), BLOCK_SIZE, -1)},
    '头数和头的宽度弄反了：应是 n_head 个头，每个头宽 head_size。': {'apart': lambda x, heads: split(x, x.size(-1) // heads)},
    '没有分头：只有一组权重，所有的维数一起算。': {'apart': lambda x, heads: split(x, 1)},
    '分头之后没有交换中间两维，注意力就在一个位置的各个头之间算，不在各个位置之间：'
    '(B, T, n_head, head_size) 要先 transpose(1, 2)。': {'apart': lambda x, heads: x.unflatten(-1, (heads, -1)), 'together': lambda out: out.flatten(2)},
    '分头之后没有交换中间两维，注意力就在各个头之间算，掩码 (T, T) 也对不上：'
    '(B, T, n_head, head_size) 要先 transpose(1, 2)。': {'apart': lambda x, heads: x.unflatten(-1, (heads, -1)), 'masked': ahead()},
    '每个头取的维数不相邻（隔 n_head 个取一个）：拆成 (n_head, head_size)，不是 (head_size, n_head)，每个头才是相邻的一段。':
        {'apart': lambda x, heads: x.unflatten(-1, (-1, heads)).permute(0, 3, 1, 2), 'together': lambda out: out.permute(0, 2, 3, 1).flatten(2)},
    '所有的头用了同一组权重（第 1 个头的）：每个头要按自己的 query 和 key 算。': {'once': lambda weights: weights[:, :1]},
    'softmax 的方向不对，做在了各个头之间：要在 key 那一维上做（dim=-1）。': {'softmax': lambda scores: scores.softmax(1)},
    'softmax 把各个头放在一起做了：每个头的权重各自加起来是 1，在 key 那一维上做（dim=-1）。':
        {'softmax': lambda scores: scores.transpose(1, 2).flatten(2).softmax(-1).unflatten(2, (SIZES['n_head'], -1)).transpose(1, 2)},
    '各个头的结果加到了一起：应并排放（合并），宽度回到 n_embd。': {'together': lambda out: out.sum(1).repeat(1, 1, out.size(1))},
    '各个头的结果求了平均，宽度只剩一个头：应并排放（合并），宽度回到 n_embd。': {'together': lambda out: out.mean(1)},
    '各个头的结果加到了一起，宽度只剩一个头：应并排放（合并），宽度回到 n_embd。': {'together': lambda out: out.sum(1)},
    'transpose 之后张量在内存里不连续，不能 view：用 flatten 或 reshape，或者先 .contiguous()。':
        {'together': lambda out: out.transpose(1, 2).view(len(out), BLOCK_SIZE, -1)},
}
WITH_PROJ = {
    'proj 没有用上：各个头合到一起之后，还要经过 proj。': {'proj': lambda proj, out, x: out},
    'proj 用了两次：各个头合并之后经过它一次就够了。': {'proj': lambda proj, out, x: proj(proj(out))},
    'proj 的输入又加到了它的输出上：直接返回 proj(out)，残差在 Block 里加。': {'proj': lambda proj, out, x: out + proj(out)},
    'x 加到了 proj 的输出上：残差在 Block 里加，MultiHeadAttention 里不加。': {'proj': lambda proj, out, x: x + proj(out)},
    'proj 读的是注意力的输入 x，不是各个头合并之后的结果。': {'proj': lambda proj, out, x: proj(x)},
    'proj 放在了注意力的开头：它要接在各个头合并之后。': {'proj': FIRST},
    'proj 之后又有一个 ReLU：合并之后再经过 proj，别的都没有。': {'proj': lambda proj, out, x: proj(out).relu()},
    'proj 用在了 value 上：各个头合并之后再经过 proj。': {'v': 'projected', 'proj': lambda proj, out, x: out},
    'proj 用在了还没有合并的各个头上：先 transpose，再 flatten 成 n_embd 宽（合并），再经过 proj。':
        {'together': lambda out: out.transpose(1, 2)},
}
ROUNDED = {'': {'fill': -1e9}}  # as good as -inf, unless a whole row is masked


def taken(q, k, v):
    """What to say when these are taken for query, key and value."""
    if (q, k, v) == ('key', 'query', 'value'):
        return 'query 和 key 用反了：匹配度应是 q @ k 的转置，行是 query，列是 key。'
    wrong = [f'{right} 的地方用的是 {"x 本身" if name == "x" else name}'
             for right, name in zip(NAMES, (q, k, v), strict=False) if right != name]
    more = '按权重加起来的不是 value：权重应乘 value(x)。' if v != 'value' else ''
    return f'{more}该用 {"，该用 ".join(wrong)}。三个线性层各用各的：q = query(x)，k = key(x)，v = value(x)。'


def attention_mistakes(sa, x, heads):
    """Every usual mistake, then every two of them together."""
    known = MISTAKES | {taken(q, k, v): {'q': q, 'k': k, 'v': v} for q in NAMES for k in NAMES for v in NAMES
                        if (q, k, v) != NAMES[:3]}
    known |= (WITH_HEADS if heads > 1 else {}) | (WITH_PROJ if hasattr(sa, 'proj') else {}) | ROUNDED
    if heads == 1:
        known['x 加到了注意力的输出上：残差连接是 v7 的内容，这里直接返回 weights @ v。'] = {'together': lambda out: joined(out) + x}
    else:
        known['x 加到了 MultiHeadAttention 的输出上：注意力只返回取来的东西，残差在 Block 里加（从 v7 起）。'] = {
            'together': lambda out: joined(out) + x}
    pairs = [(a, b) for a, b in combinations(known, 2) if not known[a].keys() & known[b].keys()]
    return {'\n'.join(said): lambda said=said: attend(
        sa, x, heads, **{name: value for each in said for name, value in known[each].items()})
        for said in chain(((said,) for said in known if said), pairs)}


def heads_of(rung):
    return 1 if rung is rung.ladder['v3'] else SIZES['n_head']


def attention_mistake(rung, **sizes):
    """What is wrong with the attention of a rung, in Chinese, or None; its weights are shaken, so that it shows."""
    sa, heads = attention_of(shaken(rung, **sizes)), heads_of(rung)
    x = noise(3, BLOCK_SIZE, WIDTH).requires_grad_()
    steps = [(name, getattr(sa, name), x, '注意力的输入 x') for name in NAMES[:3]]
    return differs('注意力', lambda: sa(x), lambda: attend(sa, x, heads), attention_mistakes(sa, x, heads),
                   lambda: (located(lambda: sa(x), steps, {'x': x}) or across_pieces(sa, x) or measured(sa, heads))
                   + '\n一步一步和公式 softmax(q @ k 的转置 / √维数 + 掩码) @ v 对照。', {**dict(sa.named_parameters()), 'x': x})


def across_pieces(sa, x):
    alone = outcome(lambda: torch.cat([sa(x[i:i + 1]) for i in range(len(x))]))
    return '' if alike(alone, sa(x)) else '看到的是：一段文本的输出取决于同一批里别的段，不同的文本混到了一起。'


def measured(sa, heads):
    """What the weights of attention are, and where they leave their formula first, or nothing.

    They show when the value of each place is a one in a column of its own, in every head, and nothing is projected.
    """
    size = WIDTH // heads
    length = min(BLOCK_SIZE, size)
    x = noise(1, length, WIDTH)
    with torch.no_grad():
        sa.value.weight.copy_((torch.linalg.pinv(x[0]) @ torch.eye(length, size).repeat(1, heads)).T)
        if hasattr(sa, 'proj'):
            sa.proj.weight.copy_(torch.eye(WIDTH))
            sa.proj.bias.zero_()

        def weights():
            return sa(x)[0].unflatten(-1, (heads, -1))[..., :length].transpose(0, 1)

        there = outcome(weights)
        if isinstance(there, str) or there.shape != (heads, length, length) or sa(x).shape != x.shape:
            return ''
        scores = attend_scores(sa, x, heads)
        sa.value.weight.mul_(2)
        twice = weights()
        sa.value.weight.div_(2)
        sa.query.weight.mul_(2)
        sharper = weights()
    past = torch.ones(length, length).tril().bool()
    one = '' if heads == 1 else '某个头里，'

    def first(wrong):
        head, i, j = wrong.nonzero()[0].tolist()
        return f'看到的是：{one}第 {i + 1} 个字分给第 {j + 1} 个字的权重是 {there[head, i, j]:.2g}'

    if there.isnan().any():
        return f'{first(there.isnan())}：一整行的匹配度都是 -inf，softmax 就得 NaN。'
    if not alike(twice, 2 * there):
        return '看到的是：把 value 放大一倍，输出没有跟着放大一倍：输出应是 value 按权重加起来，前后没有别的（tanh、ReLU、归一化）。'
    if (ahead := (there.abs() > 1e-6) & ~past).any():
        return f'{first(ahead)}，应是 0：后面的字看不得，softmax 之前要把它的匹配度换成 -inf，掩码要落在行（query）之后的列（key）上。'
    sums = there.sum(-1)
    if (negative := there < -1e-4).any():
        return f'{first(negative)}，是负数：匹配度没有经过 softmax。'
    if (wrong := (sums - 1).abs() > 1e-3).any():
        head, i = wrong.nonzero()[0].tolist()
        return (f'看到的是：掩码是对的，但{one}第 {i + 1} 个字的权重加起来是 {sums[head, i]:.2g}，应是 1：'
                '权重应是 softmax(匹配度)，在 key 那一维上做（dim=-1），之后不再改。')
    if (blind := (there < 1e-6) & past).any():
        return f'{first(blind)}：自己和前面所有的字都该看得到，掩码盖多了。'
    if alike(there, scores.masked_fill(~past, -INF).softmax(-1), atol=1e-4):
        return '看到的是：权重是对的，要查的是乘上权重的是不是 value、之后怎么合到一起。'
    for step, function in STEPS.items():
        if alike(there, function(scores).masked_fill(~past, -INF).softmax(-1), atol=1e-4):
            return f'看到的是：匹配度 q @ k 的转置 / √维数又经过了 {step}，才做 softmax：中间只有掩码。'
    if alike(sharper, there):
        return '看到的是：把 query 放大一倍，权重却不变：匹配度应是 q @ k 的转置，q 和 k 之前不归一化。'
    right, mine = (value - (value * past).sum(-1, keepdim=True) / past.sum(-1, keepdim=True)
                   for value in (scores, there.clamp(min=1e-30).log()))
    right, mine = right[past.expand_as(right)], mine[past.expand_as(mine)]
    factor = right @ mine / (right @ right)
    if torch.allclose(mine, factor * right, atol=1e-3):
        return (f'看到的是：掩码和 softmax 是对的，匹配度却是应有的 {factor:.3g} 倍，像是 q @ k 的转置除以了 {size ** 0.5 / factor:.3g}；'
                f'应除以 query 维数的平方根，这里是 √{size} ≈ {size ** 0.5:.3g}。')
    return ('看到的是：每个字都只看得到自己和前面的字，权重加起来也是 1，所以掩码和 softmax 是对的，匹配度却不是 q @ k 的转置 / √维数：'
            '查 query、key 各是从哪里来的，相乘之前之后有没有多做什么。')


def attend_scores(sa, x, heads):
    q, k = (parted(layer(x), heads)[0] for layer in (sa.query, sa.key))
    return (q @ k.transpose(-2, -1) * q.size(-1) ** -0.5).view(heads, x.size(1), x.size(1))


# The other parts

def feed_forward_mistake(ffwd):
    x = noise(2, BLOCK_SIZE, WIDTH).requires_grad_()
    first, second = layers_of(ffwd)
    return differs('前馈网络', lambda: ffwd(x), lambda: second(first(x).relu()), {
        '两个线性层之间没有 ReLU：那样它们就等于一个线性层。': lambda: second(first(x)),
        '第二个线性层之后又有一个 ReLU：输出就没有负数了，ReLU 只放在两层之间。': lambda: second(first(x).relu()).relu(),
        'ReLU 放错了地方：应在两个线性层之间，不在最后。': lambda: second(first(x)).relu(),
        'ReLU 放错了地方：应在两个线性层之间，不在最前。': lambda: second(first(x.relu())),
        '前馈网络里又加了它的输入：残差连接从 v7 起放在 Block 里，这里只返回 net(x)。': lambda: x + second(first(x).relu()),
        '前馈网络里多了一个 softmax：最后应是线性层。': lambda: second(first(x).relu()).softmax(-1),
    }, lambda: located(lambda: ffwd(x), [
        ('第一个线性层', first, x, '前馈网络的输入 x'), ('第二个线性层', second, first(x).relu(), 'ReLU 的输出')],
        {'x': x}, (second(first(x).relu()), '第二个线性层的输出')) + '应是：线性层，ReLU，线性层，别的都没有（eval 模式下）。',
        {**dict(ffwd.named_parameters()), 'x': x})


def norm_mistake(norm, name):
    """What is wrong with a norm in itself, or None; a learner may have written it by hand."""
    x = (3 * noise(3, BLOCK_SIZE, WIDTH) + 1).requires_grad_()
    weight, bias = norm.weight, norm.bias

    def normal(axes, centre=True, spread=lambda x, axes: (x.var(axes, keepdim=True, unbiased=False) + 1e-5).sqrt()):
        return (x - x.mean(axes, keepdim=True) if centre else x) / spread(x, axes) * weight + bias

    each = '每个位置只看自己，在最后一维（n_embd 个数）上求均值和方差：dim=-1'
    def look():
        z = (norm(x) - bias) / weight
        return (f'看到的是：除去 weight 和 bias，每个位置的均值在 {z.mean(-1).min():.2g} 和 {z.mean(-1).max():.2g} 之间，应是 0；'
                f'标准差在 {z.std(-1, unbiased=False).min():.3g} 和 {z.std(-1, unbiased=False).max():.3g} 之间，应是 1。\n'
                '归一化应是：减去均值，除以标准差（方差加 1e-5 再开平方），乘 weight，加 bias，都在最后一维上，和 nn.LayerNorm 一样。')

    return differs(f'{name} ', lambda: norm(x), lambda: F.layer_norm(x, x.shape[-1:], weight, bias), {
        f'{name} 在字的位置那一维（dim=1）上求了均值和方差，前面的字就看到了后面的。{each}。': lambda: normal(1),
        f'{name} 在一批文本之间（dim=0）求了均值和方差，各段就混到了一起。{each}。': lambda: normal(0),
        f'{name} 把一段里各个位置混到了一起。{each}。': lambda: normal((1, 2)),
        f'{name} 把一批里各段、各个位置混到了一起（像 BatchNorm）。{each}。': lambda: normal((0, 1)),
        f'{name} 把一批里所有的数混到了一起。{each}。': lambda: normal((0, 1, 2)),
        f'{name} 没有减去均值：先减去均值，再除以标准差（不减的是 RMSNorm）。': lambda: normal(
            -1, False, lambda x, _: (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()),
        f'{name} 没有减去均值，只除以了标准差：先减去均值，再除以标准差。': lambda: normal(-1, False),
        f'{name} 没有除以标准差：先减去均值，再除以标准差。': lambda: normal(-1, spread=lambda *_: 1),
        f'{name} 除以的是方差：应是标准差，方差的平方根。': lambda: normal(-1, spread=lambda x, _: x.var(-1, keepdim=True, unbiased=False) + 1e-5),
        f'{name} 的方差除以了 n - 1：这里除以 n，写 unbiased=False。': lambda: normal(-1, spread=lambda x, _: (x.var(-1, keepdim=True) + 1e-5).sqrt()),
        f'{name} 的标准差除以了 n - 1：这里除以 n，写 unbiased=False，1e-5 加在方差上。': lambda: normal(-1, spread=lambda x, _: x.std(-1, keepdim=True) + 1e-5),
        f'{name} 没有用上 weight 和 bias：归一化之后乘 weight，再加 bias。': lambda: F.layer_norm(x, x.shape[-1:]),
        f'{name} 没有用上 weight：归一化之后乘 weight，再加 bias。': lambda: F.layer_norm(x, x.shape[-1:], None, bias),
        f'{name} 没有用上 bias：归一化之后乘 weight，再加 bias。': lambda: F.layer_norm(x, x.shape[-1:], weight),
    }, look, {'weight': weight, 'bias': bias, 'x': x})


def same(x):
    return x


def block_mistake(block, rung):
    """What is wrong in a block whose parts are right, or None."""
    sa, ffwd, x = block.sa, block.ffwd, noise(2, BLOCK_SIZE, WIDTH).requires_grad_()
    given = x.clone()
    outcome(lambda: block(given))
    if not torch.equal(given, x):
        return 'Block 改动了传给它的 x（比如写了 x += ……），求导时还要用原来的：写成 x = x + ……。'
    ln1, ln2 = (block.ln1, block.ln2) if rung.reached('v9') else (same, same)

    def residual(a=1, b=1, n1=ln1, n2=ln2, f=sa, g=ffwd):
        y = x + a * f(n1(x))
        return y + b * g(n2(y))

    def second(y, start=same):
        return start(y) + ffwd(ln2(y))

    def normal(x):
        return (x - x.mean((0, 1))) / (x.var((0, 1)) + 1e-5).sqrt()

    attended = sa(ln1(x))
    mistakes = {
        'Block 里的前馈网络没有用上。': lambda: sa(x),
        'Block 里的注意力没有用上：sa(x) 的结果要接住，再交给 ffwd。': lambda: ffwd(x),
        'Block 里的次序反了：先用注意力交流，再用前馈网络加工。': lambda: sa(ffwd(x)),
        'Block 里的注意力用了两次。': lambda: ffwd(sa(sa(x))),
        'Block 里的前馈网络用了两次。': lambda: ffwd(ffwd(sa(x))),
        'Block 里的前馈网络读的不是注意力的输出，两者的结果加到了一起：应一先一后，ffwd(sa(x))。': lambda: sa(x) + ffwd(x),
    }
    if not rung.reached('v7'):
        early = 'Block 的输入又加到了它的输出上：残差连接是 v7 的内容，这里直接用 sa(x) 和 ffwd(x)。'
        for i, wrong in enumerate((lambda: x + ffwd(sa(x)), residual, lambda: ffwd(x + sa(x)), lambda: sa(x) + ffwd(sa(x)))):
            mistakes[early + ' ' * i] = wrong
        return differs('Block ', lambda: block(x.clone()), lambda: ffwd(sa(x)), mistakes, lambda: located(
            lambda: block(given), [('sa', sa, x, 'Block 的输入 x'), ('ffwd', ffwd, sa(x), '注意力的输出')], {'x': x}, (ffwd(sa(x)), 'ffwd 的输出'))
            + '一个 Block 应是 ffwd(sa(x))，前后没有别的。', {'x': x})
    mistakes = {
        '没有残差：x 自己没有传下去。每个子层的输出要加到它的输入 x 上。': lambda: ffwd(ln2(sa(ln1(x)))),
        '只有前馈网络有残差，注意力没有：x 自己没有传下去。写成 x = x + sa(……)。': lambda: attended + ffwd(ln2(attended)),
        '只有注意力有残差，前馈网络没有：x 自己没有传下去。写成 x = x + ffwd(……)。': lambda: ffwd(ln2(x + attended)),
        '两个子层合用了一条残差：两个子层要各有一条残差。': lambda: x + ffwd(ln2(attended)),
        '第二条残差加的是原来的 x，不是加过注意力之后的：两个子层要各有一条残差，一条接一条。': lambda: x + ffwd(ln2(x + attended)),
        '两个子层读的是同一个 x：两个子层要一先一后，前馈网络读的是加过注意力之后的 x。': lambda: x + attended + ffwd(ln2(x)),
        '次序反了：先用注意力交流，再用前馈网络加工。': lambda: residual(f=ffwd, g=sa),
        '前馈网络没有用上：它的结果没有加到 x 上。': lambda: x + attended,
        '注意力没有用上：它的结果没有加到 x 上。': lambda: x + ffwd(ln2(x)),
        '前馈网络 ffwd 没有用上：两次用的都是注意力 sa。': lambda: residual(g=sa),
        '注意力 sa 没有用上：两次用的都是前馈网络 ffwd。': lambda: residual(f=ffwd),
        '减去了注意力的输出：残差连接是加，x + sa(……)。': lambda: residual(a=-1),
        '减去了前馈网络的输出：残差连接是加，x + ffwd(……)。': lambda: residual(b=-1),
        '注意力的输出加了两次（比如在 sa 里加过 x，Block 里又加）。': lambda: residual(a=2),
        **{f'{name}的输出只加了 {share} 倍：残差连接就是 x + f(x)，不乘别的数。': lambda a=a, b=b: residual(a, b)
           for share in (0.5, 0.1) for name, a, b in (('前馈网络', 1, share), ('注意力', share, 1), ('两个子层', share, share))},
        '残差的主路上多了一步：x 加了两次。每个子层的输出只加到一个 x 上。': lambda: residual() + x + attended,
        '残差的主路上多了一步：x 加了两次。每个子层的输出只加到一个 x 上。 ': lambda: second(x + x + attended),
        '残差的主路上多了一步：和除以了 2。只是 x + f(x)，不求平均。': lambda: residual() / 2,
        '残差的主路上多了一步：加好之后又经过 ReLU，负数就传不下去了。': lambda: residual().relu(),
        '残差的主路上多了一步：Block 的输出又加了一次它的输入。': lambda: x + residual(),
        'x 自己没有传下去：是乘，不是加。残差连接是 x + f(x)。': lambda: second(x * attended),
        '子层的输出拼到了 x 后面：残差连接是相加，x + f(x)，宽度不变，不用 torch.cat。':
            lambda: second(torch.cat([x, attended], -1)),
    }
    if rung.reached('v9'):
        where = '归一化只放在子层读 x 之前（pre-norm），x 自己那条路上什么也不做。'
        mistakes |= {
            f'归一化放在了相加之后：放在相加之后是 post-norm。{where}': lambda: ln2(
                ln1(x + sa(x)) + ffwd(ln1(x + sa(x)))),
            f'残差的主路上多了一步：x 自己被归一化了，加的也是归一化之后的。{where}': lambda: second(ln1(x) + attended, start=ln2),
            f'注意力的残差从归一化之后的 ln1(x) 出发：主路上的 x 被归一化了。{where}': lambda: second(ln1(x) + attended),
            f'前馈网络的残差从归一化之后的 ln2(x) 出发：主路上的 x 被归一化了。{where}': lambda: second(x + attended, start=ln2),
            f'归一化的是子层的输出：加的是子层的输入 x，不是别的；{where}': lambda: (
                x + ln1(sa(x)) + ln2(ffwd(x + ln1(sa(x))))),
            'Block 里没有用上 ln1 和 ln2：写成 x + sa(ln1(x))、x + ffwd(ln2(x))。': lambda: residual(n1=same, n2=same),
            'Block 里没有用上 ln1：注意力读的应是 ln1(x)。': lambda: residual(n1=same),
            'Block 里没有用上 ln2：前馈网络读的应是 ln2(x)。': lambda: residual(n2=same),
            'Block 里没有用上 ln2：两个子层用的都是 ln1，应各用各的。': lambda: residual(n2=ln1),
            'Block 里没有用上 ln1：两个子层用的都是 ln2，应各用各的。': lambda: residual(n1=ln2),
            'ln1 和 ln2 用反了：ln1 在注意力之前，ln2 在前馈网络之前。': lambda: residual(n1=ln2, n2=ln1),
            '归一化混了不同的位置（不是从注意力漏的）：只该在每个位置的最后一维（n_embd）上做。': lambda: residual(n1=normal, n2=normal),
        }
    middle, reads = x + attended, ('ln1(x)', 'ln2(x)') if rung.reached('v9') else ('x', '加过注意力的 x')
    steps = [('sa', sa, ln1(x), reads[0]), ('ffwd', ffwd, ln2(middle), reads[1])]
    if rung.reached('v9'):
        steps = [('ln1', ln1, x, 'Block 的输入 x'), steps[0], ('ln2', ln2, middle, '加过注意力的 x'), steps[1]]
    return differs('Block ', lambda: block(x.clone()), residual, mistakes, lambda: located(
        lambda: block(given), steps, {'x': x}, (residual(), 'x + sa 的输出 + ffwd 的输出'))
        + ('应先 x = x + sa(ln1(x))，再 x = x + ffwd(ln2(x))，前后没有别的。' if rung.reached('v9') else
           '应先 x = x + sa(……)，再 x = x + ffwd(……)，前后没有别的。'), {'x': x})


def model_mistake(model, rung, idx):
    """What is wrong between the parts of a model whose parts are right, or None."""
    tokens, head = model.token_embedding_table, model.lm_head
    norm = model.ln_f if rung.reached('v9') else same
    layers = list(model.blocks) if rung.reached('v6') else [
        *([model.sa] if rung.reached('v3') else []), *([model.ffwd] if rung.reached('v5') else [])]
    places = (lambda numbers: model.position_embedding_table(numbers)) if rung.reached('v2') else lambda numbers: 0
    token, place = tokens(idx), places(torch.arange(idx.size(1)))
    x = token + place

    def through(x, layers=layers, each=lambda x, out: out):
        for layer in layers:
            x = each(x, layer(x))
        return x

    def scores(x):
        return head(norm(x))

    mistakes = {'得分已经是概率：最后多了一步 softmax。模型应返回 lm_head 的输出，F.cross_entropy 和 generate 自己会做 softmax。':
                lambda: scores(through(x)).softmax(-1),
                '得分最后多了一步 log_softmax：模型应返回 lm_head 的输出。': lambda: scores(through(x)).log_softmax(-1),
                '得分在各个位置之间做了 softmax（dim=1）：那一维是字的位置，不是词表；这里也不需要，直接返回 lm_head 的输出。':
                lambda: scores(through(x)).softmax(1),
                '得分在各个位置之间做了 log_softmax（dim=1）：那一维是字的位置，不是词表；这里也不需要，直接返回 lm_head 的输出。':
                lambda: scores(through(x)).log_softmax(1),
                'lm_head 没有用上。': lambda: through(x),
                'lm_head 之前多了一步 softmax：应直接经过 lm_head。': lambda: scores(through(x).softmax(-1)),
                'lm_head 之前多了一步 ReLU：应直接经过 lm_head。': lambda: scores(through(x).relu()),
                '字的嵌入在各个位置之间求了平均：这一级还看不到别的字。': lambda: scores(x.mean(1, keepdim=True).expand_as(x))}
    if rung.reached('v2'):
        numbers = torch.arange(idx.size(1))
        mistakes |= {
            '位置没有加进去，位置嵌入没有用上：x = x + position_embedding_table(positions)，相加的结果要接住。':
                lambda: scores(through(token)),
            '位置没有加进去：每个位置加的都是第 1 行位置嵌入，应加它自己那一行。': lambda: scores(through(token + places(numbers * 0))),
            '位置没有加进去：拿字的编号当位置去查了，应查 0、1、2……。': lambda: scores(through(token + places(idx % BLOCK_SIZE))),
            '字的嵌入没有用上，只有位置。': lambda: scores(through(place.expand_as(token))),
            '位置是乘上去的：位置是加在字的嵌入上的。': lambda: scores(through(token * place)),
            '位置嵌入加了两次。': lambda: scores(through(x + place)),
            '位置倒着数了：位置从 0 数起，第 1 个字是 0。': lambda: scores(through(token + place.flip(0))),
            '位置从 1 数起，最后一个就超出了表：位置从 0 数起，torch.arange(T)。': lambda: scores(through(token + places(numbers + 1))),
            '位置是按批里的第几段数的：应按第几个字数，torch.arange(T)，T 是 idx.size(1)。':
                lambda: scores(through(token + places(torch.arange(len(idx)) % BLOCK_SIZE)[:, None])),
            '位置的个数是批里的段数（idx.size(0)）：应是字数 T，torch.arange(idx.size(1))。':
                lambda: scores(through(token + places(torch.arange(len(idx))))),
            '位置嵌入拼到了字的嵌入后面：两者宽度相同，应相加。': lambda: head(norm(through(torch.cat([token, place.expand_as(token)], -1)))),
            'position_embedding_table 没有用上：位置是到 token_embedding_table 里查的。': lambda: scores(through(token + tokens(numbers))),
        }
    if rung.reached('v3'):
        name = 'Block' if rung.reached('v6') else '注意力'
        mistakes |= {
            f'位置加得太晚，加在了{name}之后：要在它之前加，它才知道谁在哪里。': lambda: scores(through(token) + place),
            f'位置加了两次：在{name}之前加过，之后又加。': lambda: scores(through(x) + place),
            f'{"blocks" if rung.reached("v6") else "注意力 sa"} 没有用上：它的结果要接住，写成 x = ……(x)。': lambda: scores(x),
            f'{name}的输入又加到了它的输出上：残差连接{"在 Block 里" if rung.reached("v7") else "要到 v7 才有"}，'
            f'这里直接用 {"blocks(x)" if rung.reached("v6") else "sa(x)"}。': lambda: scores(x + through(x)),
            '注意力做在了批那一维上：各段文本混到了一起。它的输入是 (B, T, n_embd)，不要换 B 和 T。':
                lambda: scores(through(x.transpose(0, 1)).transpose(0, 1)),
        }
    if rung.reached('v3') and not rung.reached('v6'):
        sa, ffwd = model.sa, model.ffwd if rung.reached('v5') else same
        mistakes |= {'注意力 sa 用了两次：经过它一次就够了。': lambda: scores(ffwd(sa(sa(x)))),
                     '注意力的输入又加到了它的输出上：残差连接要到 v7 才有，这里直接用 sa(x)。': lambda: scores(ffwd(x + sa(x)))}
    if rung.reached('v5') and not rung.reached('v6'):
        both = '前馈网络的输入又加到了它的输出上：残差连接要到 v7 才有，这里直接用 ffwd(x)。'
        mistakes |= {'前馈网络没有用上：接在注意力之后，x = ffwd(x)。': lambda: scores(sa(x)),
                     '注意力没有用上：sa(x) 的结果要接住，再交给前馈网络。': lambda: scores(ffwd(x)),
                     '次序反了：先用注意力取来信息，再用前馈网络加工。': lambda: scores(sa(ffwd(x))),
                     '前馈网络用了两次：经过它一次就够了。': lambda: scores(ffwd(ffwd(sa(x)))),
                     both: lambda: scores(sa(x) + ffwd(sa(x))),
                     '注意力和前馈网络的结果都加到了它们的输入上：残差连接要到 v7 才有。':
                         lambda: scores(through(x, each=lambda x, out: x + out))}
    if rung.reached('v6'):
        chain_of = '各个 Block 要首尾相接：上一层的输出是下一层的输入。'
        mistakes |= {
            'blocks 用了两次（两遍）：从头到尾经过一遍就够了。': lambda: scores(through(through(x))),
            'Block 的次序倒了：从 blocks[0] 开始，一层接一层。': lambda: scores(through(x, layers[::-1])),
            f'每一层读的都是嵌入，结果加到了一起。{chain_of}': lambda: scores(sum(layer(x) for layer in layers)),
            f'每一层读的都是嵌入，只有最后一层的结果用上了。{chain_of}': lambda: scores(layers[-1](x)),
            'forward 里没有经过这一层：只有第 1 个 Block 用上了。': lambda: scores(layers[0](x)),
            f'每一层用的都是第 1 个 Block。{chain_of}': lambda: scores(through(x, layers[:1] * len(layers))),
            'Block 之外又加了一次残差：每一层的输入又加到了它的输出上。残差连接在 Block 里面，模型里直接用 x = block(x)。':
                lambda: scores(through(x, each=lambda x, out: x + out)),
            'Block 之外又加了一次残差：每一层的输出都加上了嵌入。模型里直接用 x = block(x)。':
                lambda: scores(through(x, each=lambda _, out: out + x)),
            '所有的 Block 之后又用了一次注意力：blocks 之后直接是 lm_head（v9 起先经过 ln_f）。': lambda: scores(layers[0].sa(through(x))),
            '所有的 Block 之后又用了一次前馈网络：blocks 之后直接是 lm_head（v9 起先经过 ln_f）。': lambda: scores(layers[0].ffwd(through(x))),
        }
    if rung.reached('v9'):
        mistakes |= {
            'ln_f 没有用上：所有的 Block 之后、lm_head 之前，先 x = ln_f(x)，不然 lm_head 读到的没有归一化。': lambda: head(through(x)),
            'ln_f 放在了所有的 Block 之前：要放在它们之后、lm_head 之前。': lambda: head(through(norm(x))),
            'ln_f 用了两次：只在所有的 Block 之后、lm_head 之前用一次，进 Block 之前不用。': lambda: scores(through(norm(x))),
            'ln_f 放在了 lm_head 之后：归一化的是 lm_head 读的 x，不是得分。': lambda: norm(head(through(x))),
            'ln_f 在每一层之后都用了：只在所有的 Block 之后用一次。': lambda: head(through(x, each=lambda _, out: norm(out))),
        }
    order = ['字的嵌入' + ('加位置的嵌入' if rung.reached('v2') else ''),
             *(['各个 Block，一层接一层'] if rung.reached('v6') else ['注意力'] * rung.reached('v3') + ['前馈网络'] * rung.reached('v5')),
             *['ln_f'] * rung.reached('v9'), 'lm_head']
    names = [f'blocks[{i}]' for i in range(len(layers))] if rung.reached('v6') else ['sa', 'ffwd'][:len(layers)]
    steps, stream, what = [], x, order[0]
    for name, part in [*zip(names, layers, strict=True), *[('ln_f', norm)] * rung.reached('v9'), ('lm_head', head)]:
        steps.append((name, part, stream, what))
        stream, what = part(stream), f'{name} 的输出'
    known = {'字的嵌入': token} | ({'位置的嵌入': place.expand_as(token)} if rung.reached('v2') else {})
    return differs('模型', lambda: model(idx)[0], lambda: scores(through(x)), mistakes, lambda: located(
        lambda: model(idx)[0], steps, known, (stream, what)) + f'得分应是：{" → ".join(order)}，中间没有别的。'
        '这几个部分单独看没有查出错，查 forward 里怎么把它们连起来。', dict(model.named_parameters()))


def loss_mistakes(logits, targets):
    """{what to say: the loss that the mistake gives}"""
    flat, answers = logits.flatten(0, 1), targets.flatten()
    every = '应拿每个位置的得分和同一位置的 targets 求交叉熵，再平均'
    return {
        '损失对概率又做了一次 softmax：F.cross_entropy 要的是得分 logits，它自己会做 softmax。': lambda: F.cross_entropy(flat.softmax(-1), answers),
        '损失是所有位置加起来的，应当平均：不然它随批的大小变。': lambda: F.cross_entropy(flat, answers, reduction='sum'),
        '损失的正负反了，少了负号：是正确的字的 log 概率，取负号再平均。': lambda: -F.cross_entropy(flat, answers),
        'F.nll_loss 要的是 log 概率，给它的却是得分：用 F.cross_entropy，或者先 F.log_softmax。': lambda: F.nll_loss(flat, answers),
        '交叉熵少了取 log：nll_loss 要的是 log 概率，不是概率，用 F.cross_entropy。': lambda: F.nll_loss(flat.softmax(-1), answers),
        f'损失只算了最后一个位置：{every}。': lambda: F.cross_entropy(logits[:, -1], targets[:, -1]),
        f'损失只算了第一个位置：{every}。': lambda: F.cross_entropy(logits[:, 0], targets[:, 0]),
        f'损失里又错了一个字：{every}（错一个字是 get_batch 的事，这里不要再错）。':
            lambda: F.cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten()),
        '求损失之前，用 view 或 reshape 换维：它们只把同样的次序重新分行，得分就对不上位置了。换维要用 transpose(1, 2)，'
        '或者用 flatten(0, 1) 合并前两维。': lambda: F.cross_entropy(logits.reshape(logits.size(0), logits.size(2), -1), targets),
        '求损失时，得分和 targets 的次序对不上：一个换了 B 和 T，另一个没有。两边都按 (B, T) 的次序摊平。':
            lambda: F.cross_entropy(logits.transpose(0, 1).flatten(0, 1), answers),
    }


def loss_pulls(logits, loss, targets):
    """What the derivative of a loss says: which positions count, and what it wants to have in them."""
    [slope] = torch.autograd.grad(loss, logits, retain_graph=True, allow_unused=True)
    if slope is None:
        return ''
    right = F.one_hot(targets, logits.size(-1)).float()
    wanted = logits.softmax(-1) - right
    factor = (slope * wanted).sum(-1, keepdim=True) / wanted.square().sum(-1, keepdim=True)
    if alike(slope, factor * wanted, atol=1e-6):
        out = (factor.squeeze(-1).abs() < 1e-8).nonzero().tolist()
        if out:
            return f'看到的是：{targets.numel()} 个位置里，有 {len(out)} 个没有算进损失，比如第 {out[0][0] + 1} 段的第 {out[0][1] + 1} 个字。'
        ratio = factor.flatten() * targets.numel()
        return f'看到的是：各个位置在损失里的分量是应有的 {ratio.min():.2g} 到 {ratio.max():.2g} 倍，应一样重，再平均。'
    pulled = (logits.softmax(-1) - slope * targets.numel()).flatten(0, 1)
    share = pulled.gather(1, targets.flatten()[:, None]).mean()
    return f'看到的是：损失要正确的字占的概率平均是 {share:.2g}，应是 1，别的字是 0。'


def where_to_look(rung):
    """What to check when positions see what they should not see, or do not see what they should."""
    if mistake := attention_mistake(rung):
        return f'检查{"掩码" if "掩码" in mistake else "注意力"}。\n{mistake}'
    return '但不是从注意力漏的，检查它之外的各步：有没有哪一步把不同位置的数混到了一起（比如归一化只该在最后一维上做）。'


