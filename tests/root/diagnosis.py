"""What is wrong with a learner's attention: found by what it computes, asked only when something has failed."""

import torch

from tests.root.models import BLOCK_SIZE, SIZES, attention_of, merge, noise, split


def attend(q, k, v, scale=None, dim=-1, diagonal=1, fill=-1e9, mask_late=False):
    """Softmax attention as it should be by default (Vaswani et al. 2017, eq. 1), and as learners get it wrong."""
    scores = q @ k.transpose(-2, -1) * (q.size(-1) ** -0.5 if scale is None else scale)
    future = torch.ones(BLOCK_SIZE, BLOCK_SIZE).triu(diagonal).bool()
    if mask_late:
        return scores.softmax(dim).masked_fill(future, 0) @ v
    return scores.masked_fill(future, fill).softmax(dim) @ v


def attention_mistake(model, rung):
    """The usual mistake that gives exactly what this model's attention gives, in Chinese, or None."""
    sa, heads = attention_of(model), 1 if rung is rung.ladder['v3'] else SIZES['n_head']
    x = noise(3, BLOCK_SIZE, SIZES['n_embd'])
    for name in ['query', 'key', 'value'] + ['proj'] * (rung.reached('v8')):
        shape = tuple(getattr(sa, name).weight.shape)
        if shape != (SIZES['n_embd'],) * 2:
            return f'{name} 应是 nn.Linear(n_embd, n_embd)，这里 n_embd 是 {SIZES["n_embd"]}，它的权重却是 {shape}。'
    out, flat = sa(x), [layer(x) for layer in (sa.query, sa.key, sa.value)]
    if out.isnan().any():
        return ('注意力的输出里有 NaN：softmax 的某一组得分全被盖成了 -inf。每个字至少要看得到自己（掩码的对角线留着），'
                'softmax 要在 key 那一维上做（dim=-1），也不能漏掉。')
    q, k, v = (split(part, heads) for part in flat)
    width, size = SIZES['n_embd'], SIZES['n_embd'] // heads
    wrong_split = [part.reshape(3, heads, BLOCK_SIZE, size) for part in flat]
    results = {
        '得分没有缩放：softmax 之前，点积要除以 query 维数的平方根。': merge(attend(q, k, v, scale=1)),
        '缩放忘了开平方：应除以维数的平方根，不是除以维数。': merge(attend(q, k, v, scale=1 / size)),
        '缩放的方向反了：应除以维数的平方根，不是乘。': merge(attend(q, k, v, scale=size ** 0.5)),
        'softmax 的方向反了：每个 query 对各个 key 的权重加起来应是 1，也就是 dim=-1。': merge(attend(q, k, v, dim=-2)),
        '掩码错了一格：每个字能看到它的下一个字，而那正是要猜的。要从对角线上面那一格开始盖。':
            merge(attend(q, k, v, diagonal=2)),
        '掩码错了一格：连自己也盖住了，第 1 个字就什么也看不到。对角线是自己，要留着。':
            merge(attend(q, k, v, diagonal=0)),
        '没有掩码，或者掩码没有用上：softmax 之前，要把未来位置的得分换成 -inf。': merge(attend(q, k, v, diagonal=BLOCK_SIZE)),
        '盖住的得分换成了 0，而 e 的 0 次方是 1，仍会分到权重：要换成 -inf，softmax 之后才是 0。':
            merge(attend(q, k, v, fill=0)),
        '掩码用得太晚：softmax 之后再把权重改成 0，剩下的加起来就不是 1 了。要在 softmax 之前把得分换成 -inf。':
            merge(attend(q, k, v, mask_late=True)),
        '掩码的方向反了：盖住的是过去，留下的是未来。':
            merge((q @ k.transpose(-2, -1) * size ** -0.5).masked_fill(torch.ones(BLOCK_SIZE, BLOCK_SIZE).tril(-1).bool(), -1e9)
                  .softmax(-1) @ v),
        'query 和 key 用反了：得分应是 q @ k 的转置，行是 query，列是 key。': merge(attend(k, q, v)),
        '按权重加起来的不是 value：权重应乘 value(x)。': merge(attend(q, k, split(x, heads))),
    }
    if heads > 1:
        results |= {
            '缩放用错了宽度：应除以一个头的宽度 head_size 的平方根，不是 n_embd 的。':
                merge(attend(q, k, v, scale=width ** -0.5)),
            '分头时形状拆错了，把不同位置的数混到了一起：先拆成 (B, T, n_head, head_size)，再交换中间两维。':
                merge(attend(*wrong_split)),
            '分头和合并时形状都拆错了，把不同位置的数混到了一起：'
            '先拆成 (B, T, n_head, head_size)，再交换中间两维；合并时先换回来。': attend(*wrong_split).reshape(x.shape),
            '合并各个头时没有先换回来：(B, n_head, T, head_size) 要先交换中间两维，再合成 (B, T, n_embd)，'
            '否则不同位置的数混到了一起。': attend(q, k, v).reshape(x.shape),
            '头数和头的宽度弄反了：应是 n_head 个头，每个头宽 head_size。':
                merge(attend(*(split(part, size) for part in flat))),
            '没有分头：只有一组权重，所有的维数一起算。': merge(attend(*(split(part, 1) for part in flat))),
        }
    for said, result in results.items():
        if torch.allclose(out, sa.proj(result) if rung.reached('v8') else result, atol=1e-5):
            return said
    if rung.reached('v8') and torch.allclose(out, merge(attend(q, k, v)), atol=1e-5):
        return 'proj 没有用上：各个头合到一起之后，还要经过 proj。'
    return None


def where_to_look(model, rung):
    """What to check when positions see what they should not see, or do not see what they should."""
    if mistake := attention_mistake(model, rung):
        return f'检查{"掩码" if "掩码" in mistake else "注意力"}。\n{mistake}'
    sa, x = attention_of(model), noise(1, BLOCK_SIZE, SIZES['n_embd'])
    other = x.clone()
    other[:, -1] += 1
    if torch.allclose(sa(x)[:, :-1], sa(other)[:, :-1], atol=1e-6):
        return '但不是从注意力漏的，检查它之外的各步：有没有哪一步把不同位置的数混到了一起（比如归一化只该在最后一维上做）。'
    return '检查掩码，也检查 softmax 的方向（dim=-1）和各次改变形状的地方。'
