"""What is wrong with a learner's part: the usual mistakes are computed too, and the one that gives exactly what the
part gives is named. Asked only when something differs from what it should be.
"""

from itertools import chain, combinations

import torch
from torch.nn import functional as F

from tests.root.models import BLOCK_SIZE, SIZES, attention_of, layers_of, merge, noise, shaken, split

INF = float('inf')


def alike(a, b, atol=1e-5):
    """Whether two results are equal to rounding, NaN included: tensors, or what was said where there is none."""
    if isinstance(a, str) or isinstance(b, str):
        return isinstance(a, str) and a == b
    return a.shape == b.shape and torch.allclose(a, b, atol=atol, rtol=1e-4, equal_nan=True)


def outcome(compute):
    """What a computation returns, or what it says when it breaks."""
    try:
        return compute()
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:  # all that torch raises
        return str(error)


def differs(part, compute, expected, mistakes, look):
    """What to say of a part that does not give what is expected, or None: first of shapes, if no mistake is known.

    `compute` gives what the part returns, `mistakes` are {what to say: how to compute what it leads to}, and `look`
    finds where to look when none fits.
    """
    out, right = outcome(compute), expected()
    if alike(out, right):
        return None
    for said, result in mistakes.items():
        if alike(out, outcome(result)):
            return said.strip()
    if isinstance(out, str):
        compute()  # an error that we know nothing of: let it speak
    if not isinstance(out, torch.Tensor):
        return f'{part}应返回一个张量，却返回了 {type(out).__name__}。'
    if out.shape != right.shape:
        return f'{part}的输出形状应是 {tuple(right.shape)}，却是 {tuple(out.shape)}。{look()}'
    return f'{part}的输出{"里有 NaN" if out.isnan().any() else "和应有的不同"}。{look()}'


def located(run, steps, ends=True):
    """Where a computation leaves its way first, in Chinese, or nothing.

    `steps` are [(name, module, what it should read, what that is called)]; `ends` tells whether the last gives the result.
    """
    calls = []
    hooks = [module.register_forward_hook(lambda _, args, out, name=name: calls.append((name, args[0], out)))
             for name, module, *_ in steps]
    out = outcome(run)
    for hook in hooks:
        hook.remove()
    for name, _, right, what in steps:
        mine = [(read, out) for called, read, out in calls if called == name]
        if len(mine) != 1:
            return f'看到的是：{name} 调用了 {len(mine)} 次，应是 1 次。'
        if not alike(mine[0][0], right):
            return f'看到的是：{name} 读到的不是{what}，在它之前多了或少了一步。'
    return '' if not ends or alike(out, calls[-1][2]) else f'看到的是：{steps[-1][0]} 读到的是对的，在它之后又多了一步。'


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
WIDTH = SIZES['n_embd']
MISTAKES = {  # {what to say: the arguments of `attend` that make the mistake}
    '得分没有缩放：softmax 之前，点积要除以 query 维数的平方根。': {'scale': lambda size: 1},
    '缩放忘了开平方：应除以维数的平方根，不是除以维数。': {'scale': lambda size: 1 / size},
    '缩放的方向反了：应除以维数的平方根，不是乘。': {'scale': lambda size: size ** 0.5},
    '缩放时除以了字数（block_size 或 T）的平方根：应是 query 维数的平方根，和有几个字无关。':
        {'scale': lambda size: BLOCK_SIZE ** -0.5},
    '缩放放到了 softmax 之后：要在 softmax 之前缩放得分，之后再乘，权重加起来就不是 1 了。':
        {'scale': lambda size: 1, 'late': WIDTH ** -0.5},
    'query 和 key 没有用上：得分全一样，权重是平均分的。得分应是 q @ k 的转置。': {'scale': lambda size: 0},
    'softmax 的方向反了：每个 query 对各个 key 的权重加起来应是 1，也就是 dim=-1。':
        {'softmax': lambda scores: scores.softmax(-2)},
    '没有 softmax：得分没有变成加起来是 1 的权重，就拿去乘 value 了。': {'softmax': lambda scores: scores},
    '没有 softmax：权重应是 softmax(得分)，这里只是把得分除以了它们的和。':
        {'softmax': lambda scores: scores / scores.sum(-1, keepdim=True)},
    '掩码错了一格：每个字能看到它的下一个字，而那正是要猜的。要从对角线上面那一格开始盖。': {'masked': ahead(2)},
    '掩码错了一格：连自己也盖住了，第 1 个字就什么也看不到（一行全是 -inf，softmax 得 NaN）。对角线是自己，要留着。':
        {'masked': ahead(0)},
    '没有掩码，或者掩码没有用上：softmax 之前，要把未来位置的得分换成 -inf。'
    'masked_fill 返回新的张量，要接住它：scores = scores.masked_fill(……)。': {'masked': ahead(BLOCK_SIZE)},
    '掩码的方向反了：盖住的是过去，留下的是未来。': {'masked': ahead().T},
    '掩码的意思反了：盖住的是该看的（自己和过去），留下的是未来。': {'masked': ~ahead()},
    '盖住的得分换成了 0，而 e 的 0 次方是 1，仍会分到权重：要换成 -inf，softmax 之后才是 0。': {'fill': 0},
    '盖住的得分换成了 1e-9，差不多是 0，仍会分到权重：要换成 -inf（或很大的负数 -1e9）。': {'fill': 1e-9},
    '盖住的得分换成了 -1，softmax 之后仍会分到权重：要换成 -inf。': {'fill': -1},
    '掩码里有 NaN：0 乘 -inf 得 NaN。先做好 0 和 1 的三角，再用 masked_fill 换成 -inf，'
    '不要拿它去乘 -inf。': {'mask': 'product'},
    '掩码用得太晚：softmax 之后再把权重改成 0，剩下的加起来就不是 1 了。要在 softmax 之前把得分换成 -inf。':
        {'mask': 'after'},
    '掩码用得太晚：要在 softmax 之前把得分换成 -inf，softmax 之后的权重里不该有 -inf。': {'mask': 'after', 'fill': -1},
    'k 没有转置：得分应是 q @ k.transpose(-2, -1)。': {'turn': lambda k: k},
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
        return 'query 和 key 用反了：得分应是 q @ k 的转置，行是 query，列是 key。'
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
    x = noise(3, BLOCK_SIZE, SIZES['n_embd'])
    steps = [(name, getattr(sa, name), x, '注意力的输入 x') for name in NAMES[:3]]
    return differs('注意力', lambda: sa(x), lambda: attend(sa, x, heads), attention_mistakes(sa, x, heads),
                   lambda: '一步一步和公式 softmax(q @ k 的转置 / √维数 + 掩码) @ v 对照。'
                           + located(lambda: sa(x), steps, ends=False) + seen_by(sa, x))


def seen_by(sa, x):
    """Which positions see what they should not, or do not see what they should."""
    before = outcome(lambda: sa(x))
    if isinstance(before, str) or before.shape[:2] != x.shape[:2]:
        return ''
    for position in range(BLOCK_SIZE):
        other = x.clone()
        other[:, position] += 1
        moved = (sa(other) - before).abs().amax(dim=(0, 2)) > 1e-6
        if moved[:position].any():
            return f'看到的是：第 {moved.nonzero()[0].item() + 1} 个字的输出随它后面的第 {position + 1} 个字变化，未来泄漏了。'
        if not moved[position:].all():
            blind = position + (~moved[position:]).nonzero()[0].item()
            return f'看到的是：第 {blind + 1} 个字的输出不随{"它自己" if blind == position else f"它前面的第 {position + 1} 个字"}变化。'
    alone = torch.cat([sa(x[i:i + 1]) for i in range(len(x))])
    if not alike(alone, before):
        return '看到的是：一段文本的输出取决于同一批里别的段。'
    return '看到的是：每个字都只看得到自己和前面的字，所以掩码是对的，要查的是缩放、权重和加起来的东西。'


# The other parts

def feed_forward_mistake(ffwd):
    x = noise(2, BLOCK_SIZE, WIDTH)
    first, second = layers_of(ffwd)
    return differs('前馈网络', lambda: ffwd(x), lambda: second(first(x).relu()), {
        '两个线性层之间没有 ReLU：那样它们就等于一个线性层。': lambda: second(first(x)),
        **{f'用的是 {name}：梯子上用 ReLU，后面各级才能对照。': lambda f=f: second(f(first(x)))
           for name, f in [('GELU', F.gelu), ('GELU（tanh 近似）', lambda x: F.gelu(x, approximate='tanh')), ('tanh', torch.tanh),
                           ('sigmoid', torch.sigmoid), ('SiLU', F.silu), ('LeakyReLU', F.leaky_relu)]},
        '第二个线性层之后又有一个 ReLU：输出就没有负数了，ReLU 只放在两层之间。': lambda: second(first(x).relu()).relu(),
        'ReLU 放错了地方：应在两个线性层之间，不在最后。': lambda: second(first(x)).relu(),
        'ReLU 放错了地方：应在两个线性层之间，不在最前。': lambda: second(first(x.relu())),
        '前馈网络里又加了它的输入：残差连接从 v7 起放在 Block 里，这里只返回 net(x)。': lambda: x + second(first(x).relu()),
        '前馈网络里多了一个 softmax：最后应是线性层。': lambda: second(first(x).relu()).softmax(-1),
    }, lambda: '应是：线性层，ReLU，线性层，别的都没有（eval 模式下）。' + located(lambda: ffwd(x), [
        ('第一个线性层', first, x, '前馈网络的输入 x'), ('第二个线性层', second, first(x).relu(), 'ReLU 的输出')]))


def same(x):
    return x


def block_mistake(block, rung):
    """What is wrong in a block whose parts are right, or None."""
    sa, ffwd, x = block.sa, block.ffwd, noise(2, BLOCK_SIZE, WIDTH)
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
        return differs('Block ', lambda: block(given), lambda: ffwd(sa(x)), mistakes, lambda: '一个 Block 应是 ffwd(sa(x))，前后没有别的。'
                       + located(lambda: block(given), [('sa', sa, x, ' Block 的输入 x'), ('ffwd', ffwd, sa(x), '注意力的输出')]))
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
    middle = x + attended
    steps = [('sa', sa, ln1(x), ' ln1(x)' if rung.reached('v9') else ' x'),
             ('ffwd', ffwd, ln2(middle), ' ln2(x)' if rung.reached('v9') else '加过注意力的 x')]
    if rung.reached('v9'):
        steps = [('ln1', ln1, x, ' Block 的输入 x'), steps[0], ('ln2', ln2, middle, '加过注意力的 x'), steps[1]]
    return differs('Block ', lambda: block(given), residual, mistakes, lambda: located(lambda: block(given), steps, ends=False)
                   + ('应先 x = x + sa(ln1(x))，再 x = x + ffwd(ln2(x))，前后没有别的。' if rung.reached('v9') else
                    '应先 x = x + sa(……)，再 x = x + ffwd(……)，前后没有别的。'))


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
        stream, what = part(stream), f' {name} 的输出'
    return differs('模型', lambda: model(idx)[0], lambda: scores(through(x)), mistakes, lambda: located(lambda: model(idx)[0], steps)
                   + f'得分应是：{" → ".join(order)}，中间没有别的。这几个部分单独看没有查出错，查 forward 里怎么把它们连起来。')


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


def where_to_look(rung):
    """What to check when positions see what they should not see, or do not see what they should."""
    if mistake := attention_mistake(rung):
        return f'检查{"掩码" if "掩码" in mistake else "注意力"}。\n{mistake}'
    return '但不是从注意力漏的，检查它之外的各步：有没有哪一步把不同位置的数混到了一起（比如归一化只该在最后一维上做）。'


