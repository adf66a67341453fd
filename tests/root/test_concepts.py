"""The last column of the ladder's table: what is true from a rung on, and false one rung below.

Each test is marked with its idea in Chinese, and says in Chinese what a failure means: the judge shows it to a learner.
"""

import math
import re

import pytest
import torch
from torch.nn import functional as F

from kit.judge import hint
from kit.ladders import LADDERS
from kit.scripts import build
from tests.root.diagnosis import (
    attention_mistake,
    block_mistake,
    differs,
    feed_forward_mistake,
    heads_of,
    loss_mistakes,
    loss_pulls,
    model_mistake,
    norm_mistake,
    where_to_look,
)
from tests.root.models import (
    BLOCK_SIZE,
    HEAD_SIZE,
    SIZES,
    attention_of,
    feed_forward_of,
    layers_of,
    merge,
    noise,
    random_ids,
    shaken,
    split,
    zero,
    zero_sublayers,
)

LADDER = LADDERS['root']


def from_rung(name):
    """Parametrize over the rung below (where the property must be false) and every rung from that one on."""
    rungs = LADDER.since(name)
    return pytest.mark.parametrize('rung, expected', [(rungs[0].below, False), *((rung, True) for rung in rungs)])


SIZES_IN_WORDS = '、'.join(f'{name} 是 {size}' for name, size in SIZES.items() if name != 'dropout')


def parameters_of(model):
    """{name: parameter}; in a feed-forward net the layers that have parameters are counted, whatever lies between."""
    layers = {}

    def count(match):
        known = layers.setdefault(match[1], [])
        if match[2] not in known:
            known.append(match[2])
        return f'{match[1]}{known.index(match[2])}'

    return {re.sub(r'^(.*ffwd\.net\.)([^.]+)', count, name): value for name, value in model.named_parameters()}


def copy_weights(source, target, rename=lambda name: name):
    """Load every weight of `source` into `target`. Return the names of those that `target` has beyond them."""
    own = parameters_of(target)
    given = {rename(name): value for name, value in parameters_of(source).items()}
    for name, value in given.items():
        assert name in own, f'上一级的参数 {name} 不见了：这一级应保留它，名字不变。'
        assert own[name].shape == value.shape, (
            f'参数 {name} 的形状是 {tuple(own[name].shape)}，按上一级应是 {tuple(value.shape)}。')
    with torch.no_grad():
        for name, value in given.items():
            own[name].copy_(value)
    return own.keys() - given.keys()


def changed_positions(model, idx, position):
    """Which positions get other logits when the token at `position` is replaced."""
    other = idx.clone()
    other[:, position] = (other[:, position] + 1) % SIZES['vocab_size']
    difference = (model(idx)[0] - model(other)[0]).abs().amax(dim=(0, 2))
    return (difference > 1e-6).nonzero().flatten().tolist()


# Each part for itself, from the inside out: the first that is wrong is the nearest to the cause.

def shapes_of(rung):
    """{name: shape} of every parameter that a rung has, but for those of the feed-forward networks: they have a test."""
    vocab_size, block_size, n_embd = (SIZES[name] for name in ('vocab_size', 'block_size', 'n_embd'))
    shapes = {'token_embedding_table.weight': (vocab_size, n_embd), 'lm_head.weight': (vocab_size, n_embd), 'lm_head.bias': (vocab_size,)}
    if rung.reached('v2'):
        shapes['position_embedding_table.weight'] = (block_size, n_embd)
    layers = [f'blocks.{i}.' for i in range(SIZES['n_layer'])] if rung.reached('v6') else ['']
    for layer in layers if rung.reached('v3') else []:
        shapes |= {f'{layer}sa.{name}.weight': (n_embd, n_embd) for name in ('query', 'key', 'value', *['proj'] * rung.reached('v8'))}
        shapes |= {f'{layer}sa.proj.bias': (n_embd,)} if rung.reached('v8') else {}
    for norm in [f'{layer}{name}' for layer in layers for name in ('ln1', 'ln2')] + ['ln_f'] if rung.reached('v9') else []:
        shapes |= {f'{norm}.weight': (n_embd,), f'{norm}.bias': (n_embd,)}
    return shapes


def twice_in(named):
    """The first two names of one and the same thing, or None."""
    names = {}
    for name, value in named:
        if names.setdefault(id(value), name) != name:
            return names[id(value)], name
    return None


def too_early(rung, name):
    """Which rung brings a parameter that this one does not have yet, in Chinese, or nothing."""
    for part in rung.ladder.contract['parts']:
        if part['path'].split('.')[-1] in name.split('.') and not rung.reached(part['since']):
            return f'{part["path"].split(".")[-1]} 是 {part["since"]} 的内容，这里还没有。'
    return '计算里不学的数（比如掩码）用 register_buffer，不用 nn.Parameter。'


@pytest.mark.idea('各个部分各有自己的参数，一个不多，一个不少')
@pytest.mark.parametrize('rung', LADDER.numbered)
def test_parameters_are_those_of_the_rung(rung):
    model = build(rung)
    shared = twice_in((name, module) for name, module in model.named_modules(remove_duplicate=False)
                      if list(module.parameters())) or twice_in(model.named_parameters(remove_duplicate=False))
    assert not shared, f'{shared[0]} 和 {shared[1]} 是同一个东西，共用同一组参数：要各建各的，每一处写一次 nn.……(……)。'
    there, expected = dict(model.named_parameters()), shapes_of(rung)
    if rung.reached('v6'):
        assert len(model.blocks) == SIZES['n_layer'], f'n_layer={SIZES["n_layer"]} 时应有 {SIZES["n_layer"]} 个 Block，却有 {len(model.blocks)} 个。'
    for name, shape in expected.items():
        owner, kind = name.rsplit('.', 1)
        what = next((f'它应是{what}。' for path, what in rung.parts if re.sub(r'\.\d+\.', '.0.', owner) == path), '')
        assert name in there, f'少了参数 {name}：{owner} 应带着可学的 {kind}。{what}' + (
            'nn.Linear 默认就有偏置（bias），不要关掉。' if kind == 'bias' and 'ln' not in owner else '')
        given = tuple(there[name].shape)
        assert given == shape, (
            f'{owner} 的大小不对：{name} 的形状应是 {shape}，却是 {given}。{what}'
            + ('多了一倍：是不是把两个张量拼在了一起（torch.cat）？它们应相加。' if given[-1] == 2 * shape[-1] else '')
            + f'检查时 {SIZES_IN_WORDS}。')
    for name, parameter in there.items():
        if not re.search(r'(^|\.)ffwd\.net\.', name):
            assert not re.search(r'(query|key|value)\.bias$', name), (
                f'{name.split(".")[-2]} 带着偏置：写成 nn.Linear(n_embd, n_embd, bias=False)。')
            assert name in expected, f'多出了参数 {name}，形状是 {tuple(parameter.shape)}：{too_early(rung, name)}'
        assert parameter.requires_grad, f'{name} 收不到梯度：requires_grad 关掉了，它永远停在初始的值。'
        assert parameter.dim() < 2 or parameter.std() > 0, (
            f'{name} 的初始值全一样（都是 {parameter.flatten()[0]:g}）：各行分不出彼此，要从随机的小数开始，nn.Linear 和 nn.Embedding 默认就是这样。')


def same(a, b):
    """Equal to the last bit, NaN included: that is for another test to find."""
    return torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def where_random(model, idx):
    """The first module that gives something else when a model is called again, in Chinese, or nothing."""
    runs = []
    hooks = [module.register_forward_hook(lambda _, args, out, name=name: runs[-1].append((name, args[0], out)))
             for name, module in model.named_modules() if name and not list(module.children())]
    for _ in range(2):
        runs.append([])
        model(idx)
    for hook in hooks:
        hook.remove()
    for (name, read, out), (_, again, other) in zip(*runs, strict=False):
        if not same(read, again):
            return f'看到的是：{name} 读到的就已经不同，随机的一步在它之前。'
        if not same(out, other):
            return f'看到的是：{name} 读到的一样，出来的不同，随机的一步在它里面。'
    return '看到的是：各个部分每次都一样，随机的一步在它们之后。'


@pytest.mark.idea('评估时没有随机性')
@pytest.mark.parametrize('rung', LADDER.numbered)
def test_deterministic_in_eval_mode(rung):
    model, idx = build(rung, dropout=0.5), random_ids(3, BLOCK_SIZE)
    early = '这一级的计算里没有随机数，dropout 是 v10 的内容。'
    assert same(model(idx)[0], model(idx)[0]), 'eval 模式下，同样的输入得到不同的得分。' + where_random(model, idx) + (
        '评估和写作时什么也不能丢：用 nn.Dropout，或者 F.dropout(x, p, training=self.training)，它们才知道现在是哪种模式。'
        if rung.reached('v10') else early)
    model = build(rung, dropout=0.0).train()
    assert same(model(idx)[0], model(idx)[0]), (
        '参数 dropout 是 0，训练模式下却仍有随机性：比例要来自参数 dropout，不能写死。' if rung.reached('v10') else
        f'训练模式下，同样的输入得到不同的得分：{early}') + where_random(model, idx)


@pytest.mark.idea('注意力的公式：缩放、掩码、softmax、加权')
@pytest.mark.parametrize('rung', LADDER.since('v3'))
def test_attention_is_scaled_dot_product_attention(rung):
    """Held against PyTorch's own (Vaswani et al. 2017, eq. 1): scale by head size, mask, softmax over the keys."""
    mistake = attention_mistake(rung)
    assert not mistake, mistake
    sa = attention_of(shaken(rung))
    x = noise(3, BLOCK_SIZE, SIZES['n_embd'])
    q, k, v = (split(layer(x), heads_of(rung)) for layer in (sa.query, sa.key, sa.value))
    expected = merge(F.scaled_dot_product_attention(q, k, v, is_causal=True))
    assert torch.allclose(sa(x), sa.proj(expected) if rung.reached('v8') else expected, atol=1e-5), '和 PyTorch 自己的注意力不同。'


@pytest.mark.idea('前馈网络：放宽到 4 倍，ReLU，再收回来')
@pytest.mark.parametrize('rung', LADDER.since('v5'))
def test_feed_forward_is_two_layers_four_times_wide_with_relu(rung):
    ffwd, n_embd = feed_forward_of(shaken(rung)), SIZES['n_embd']
    layers = layers_of(ffwd)
    others = [type(layer).__name__ for layer in layers if layer.weight.dim() != 2]
    assert not others, f'net 里多了 {"、".join(others)}：只应有线性层和 ReLU（归一化是 v9 的内容，放在 Block 里）。'
    assert len(layers) == 2, f'net 里应有两个线性层，却有 {len(layers)} 个。'
    first, second = layers
    assert first.weight.shape == (4 * n_embd, n_embd) and second.weight.shape == (n_embd, 4 * n_embd), (
        f'net 里的两个线性层应是 n_embd → 4 × n_embd → n_embd，这里 n_embd 是 {n_embd}，'
        f'却是 {first.weight.size(1)} → {first.weight.size(0)} 和 {second.weight.size(1)} → {second.weight.size(0)}。')
    assert first.bias is not None and second.bias is not None, 'net 里的线性层没有偏置：nn.Linear 默认就有（bias），不要关掉。'
    mistake = feed_forward_mistake(ffwd)
    assert not mistake, mistake


@pytest.mark.idea('归一化：每个位置减去均值，除以标准差')
@pytest.mark.parametrize('rung', LADDER.since('v9'))
def test_norms_are_layer_norms(rung):
    model = shaken(rung)
    for name, norm in [('ln1', model.blocks[0].ln1), ('ln2', model.blocks[0].ln2), ('ln_f', model.ln_f)]:
        mistake = norm_mistake(norm, name)
        assert not mistake, mistake


@pytest.mark.idea('Block 里先注意力，后前馈网络')
@pytest.mark.parametrize('rung', LADDER.since('v6'))
def test_block_puts_its_parts_together(rung):
    mistake = block_mistake(shaken(rung).blocks[0], rung)
    assert not mistake, mistake


@pytest.mark.idea('从嵌入到得分，一步接一步')
@pytest.mark.parametrize('rung', LADDER.numbered)
def test_model_puts_its_parts_together(rung):
    """Nothing goes past the parts, nothing is used twice."""
    mistake = model_mistake(shaken(rung, n_layer=3), rung, random_ids(3, BLOCK_SIZE))
    assert not mistake, mistake


@pytest.mark.idea('损失是交叉熵')
@pytest.mark.parametrize('rung', LADDER.numbered)
def test_forward_keeps_its_contract(rung):
    model, idx, targets = shaken(rung), random_ids(3, BLOCK_SIZE), random_ids(3, BLOCK_SIZE, seed=2)
    logits, loss = model(idx, targets)
    assert same(logits, model(idx)[0]), '有没有 targets，得分应当一样。'
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    mistake = differs('损失', lambda: loss, lambda: expected, loss_mistakes(logits, targets),
                      lambda: f'损失是 {loss:.4f}，而这些得分的交叉熵是 {expected:.4f}。{loss_pulls(logits, loss, targets)}'
                      '应拿每个位置的得分和同一位置的 targets 求交叉熵，再平均（错一个字是 get_batch 的事，这里不要再错）。', dict(model.named_parameters()))
    assert not mistake, mistake


# v1: embedding + linear

@pytest.mark.idea('generate 在后面添字')
@pytest.mark.parametrize('rung', LADDER.numbered)
def test_generate_appends_tokens(rung):
    model, idx = build(rung), random_ids(2, 3)
    with hint('从 3 个字往下写时出错。' + ('上文可以比 block_size 短：位置、掩码都要按实际的字数 T 截取。'
                                 if rung.reached('v2') else '')):
        out = model.generate(idx, BLOCK_SIZE - 3)
    assert out.shape == (2, BLOCK_SIZE), (
        f'从 3 个字写 {BLOCK_SIZE - 3} 个，应得到 (B, {BLOCK_SIZE})（原来的字在前），却是 {tuple(out.shape)}。'
        '新的字要接在后面：idx = torch.cat([idx, next_idx], dim=1)。')
    assert torch.equal(out[:, :3], idx), '写出来的开头应是原来的字：新的字接在后面。'
    assert out.dtype == torch.int64 and out.min() >= 0 and out.max() < SIZES['vocab_size'], (
        'generate 应返回字的编号（int64，小于 vocab_size）。')


@pytest.mark.idea('generate 按最后一个位置的概率抽字')
@pytest.mark.parametrize('rung', LADDER.numbered)
def test_generate_samples_what_the_last_position_predicts(rung):
    """Not the first position, and not always the likeliest token: drawn often enough, tokens show their probability."""
    model, idx = build(rung), random_ids(1, 3)
    with torch.no_grad():  # far from uniform, so that the positions differ
        factor = 2 / model(idx)[0].std()
        for parameter in model.lm_head.parameters():
            parameter.mul_(factor)
        probability = model(idx)[0][0].softmax(-1)
        logits = model(idx)[0][0]
    torch.manual_seed(0)
    given = []
    hook = getattr(model, 'token_embedding_table', model).register_forward_pre_hook(lambda _, args: given.append(args[0].size(1)))
    drawn = model.generate(idx.expand(20_000, -1), 1)[:, -1]
    hook.remove()
    frequency = torch.bincount(drawn, minlength=SIZES['vocab_size']) / 20_000

    def follows(expected):
        return (frequency - expected).abs().max() < 0.02

    if follows(probability[-1]):
        assert not torch.equal(model.generate(idx, 50), model.generate(idx, 50)), (
            '从同样的开头写两次，每个字都一样：抽字要接着用同一个随机源，generate 里不要设种子。')
        return
    assert frequency.max() < 1, '每次都写同一个字：应按概率抽取（torch.multinomial），不是取概率最大的那个。'
    uniform = torch.full_like(probability[0], 1 / SIZES['vocab_size'])
    assert not follows(uniform), (
        '每个字抽到的机会一样多，和得分无关：softmax 要在词表那一维上做（dim=-1），不是在批那一维上（dim=0）。')
    assert not follows(probability[0]), '用了第一个位置的得分：下一个字由最后一个位置（logits[:, -1]）预测。'
    assert given[-1:] in ([], [3]), f'一共 3 个字，交给模型的却有 {given[-1]} 个：要把前面的字（最后 block_size 个）都给它，不是只给最后一个字。'
    assert not follows(logits.mean(0).softmax(-1)), '用了各个位置的得分的平均：下一个字由最后一个位置（logits[:, -1]）预测。'
    centred, weight = logits[-1] - frequency @ logits[-1], frequency
    log = frequency.clamp(min=1e-4).log()
    factor = (weight * centred) @ log / ((weight * centred) @ centred)
    assert not follows((factor * logits[-1]).softmax(-1)), (
        f'抽字之前，得分先乘了 {factor:.2g}（温度是 {1 / factor:.2g}）：这里直接对 logits[:, -1] 做 softmax，不乘不除。')
    raise AssertionError('抽到的字，频率和最后一个位置的概率不符：'
                         '应取 logits[:, -1]，在词表那一维上做 softmax，再按这个概率抽取。')


@pytest.mark.idea('每个位置只看自己这个字')
@pytest.mark.parametrize('rung', [LADDER['v1'], LADDER['v2']])
def test_v1_and_v2_see_one_token_only(rung):
    model, idx = build(rung), random_ids(2, BLOCK_SIZE)
    for position in range(BLOCK_SIZE):
        changed = changed_positions(model, idx, position)
        others = [other for other in changed if other != position]
        assert not others, (f'第 {others[0] + 1} 个字的预测随第 {position + 1} 个字变化：这一级还看不到别的字，'
                            '检查 forward 里有没有哪一步把不同位置的数混到了一起。')
        assert changed, f'换掉第 {position + 1} 个字，它的预测却不变：字的嵌入没有用上。'


# v2: position

@pytest.mark.idea('同一个字在不同的位置，预测不同')
@from_rung('v2')
def test_same_token_differs_by_position(rung, expected):
    model = build(rung)
    logits = model(torch.full((1, BLOCK_SIZE), 5))[0][0]
    same = [t for t in range(1, BLOCK_SIZE) if (logits[0] - logits[t]).abs().max() <= 1e-6]
    if expected:
        assert not same, (f'7 个相同的字，第 1 个和第 {same[0] + 1} 个位置的得分一样：位置没有加进去，'
                          '每个位置要加上它自己那一行位置嵌入。')
    else:
        assert len(same) == BLOCK_SIZE - 1, '同一个字在不同的位置，得分不同：v1 还没有位置，那是 v2 的内容。'


@pytest.mark.idea('位置嵌入全是零时，就是 v1', rung='v2')
def test_v2_with_zero_positions_equals_v1():
    v1, v2 = build(LADDER['v1']), build(LADDER['v2'], seed=9)
    assert copy_weights(v1, v2) == {'position_embedding_table.weight'}, '比 v1 只应多出位置嵌入这一组参数。'
    with torch.no_grad():
        v2.position_embedding_table.weight.zero_()
    idx = random_ids(3, BLOCK_SIZE)
    assert torch.allclose(v1(idx)[0], v2(idx)[0], atol=1e-6), (
        '位置嵌入全是零时，得分应和 v1 相同，却不同：位置是加在字的嵌入上的，别的都不变。')


@pytest.mark.idea('续写时只看最后 block_size 个字')
@pytest.mark.parametrize('rung', LADDER.since('v2'))
def test_generate_crops_the_context_to_block_size(rung):
    """Beyond block_size there is no position to give a token; what lies before the last block_size is not seen."""
    model, long, seen = build(rung), random_ids(1, 3 * BLOCK_SIZE), []
    model.token_embedding_table.register_forward_pre_hook(lambda _, args: seen.append(args[0].size(1)))

    def say():
        given = f'这里 block_size 是 {BLOCK_SIZE}，交给模型的却有 {"、".join(map(str, seen))} 个字。'
        return ('上文比 block_size 长时出错：只有 block_size 个位置，generate 每次要把上文截到最后 block_size 个字。' + given
                + ('没有截，或者截错了维：idx[-n:] 截的是批，截字要写 idx[:, -n:]。' if seen[0] > BLOCK_SIZE else
                   '只截了一次：要在循环里每次都截，因为每次都添了一个字。'))

    written = []
    with hint(say):
        for idx in (long, long[:, -BLOCK_SIZE:]):
            torch.manual_seed(3)
            written.append(model.generate(idx, 5)[:, -5:])
    torch.manual_seed(3)
    whole = model.generate(long, 5)
    assert whole.shape == (1, 3 * BLOCK_SIZE + 5) and torch.equal(whole[:, :3 * BLOCK_SIZE], long), (
        f'从 {3 * BLOCK_SIZE} 个字写 5 个，应得到 {3 * BLOCK_SIZE + 5} 个，原来的字都在，却是 {whole.size(1)} 个：'
        '截下来的只交给模型，不要拿它换掉 idx，不然前面的字就丢了。')
    assert torch.equal(*written), (
        '上文比 block_size 长时，写出来的和只给最后 block_size 个字时不同：要留下最后的 block_size 个字，不是最前的。')


@pytest.mark.idea('续写时看满 block_size 个字')
@pytest.mark.parametrize('rung', LADDER.since('v2'))
def test_generate_uses_the_whole_block(rung):
    """The crop must not throw away more than it has to: forward is given block_size tokens."""
    model, seen = build(rung), []
    model.token_embedding_table.register_forward_pre_hook(lambda _, args: seen.append(args[0].size(1)))
    model.generate(random_ids(1, BLOCK_SIZE - 2), 6)
    assert seen == [BLOCK_SIZE - 2, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE, BLOCK_SIZE, BLOCK_SIZE], (
        f'block_size 是 {BLOCK_SIZE}，从 {BLOCK_SIZE - 2} 个字往下写，每次交给模型的应是 {BLOCK_SIZE - 2}、{BLOCK_SIZE - 1}、{BLOCK_SIZE}、{BLOCK_SIZE}…… 个字，'
        f'却是 {"、".join(map(str, seen))} 个：截多了或截少了。')


# v3: causal self-attention

@pytest.mark.idea('看不到后面的字')
@pytest.mark.parametrize('mode', ['eval', 'train'])
@pytest.mark.parametrize('rung', LADDER.numbered)
def test_logits_never_depend_on_later_tokens(rung, mode):
    model, idx = build(rung), random_ids(2, BLOCK_SIZE)
    model.train(mode == 'train')
    for position in range(BLOCK_SIZE):
        leaks = [other for other in changed_positions(model, idx, position) if other < position]
        assert not leaks, (f'第 {leaks[0] + 1} 个字的预测随第 {position + 1} 个字变化：未来泄漏了'
                           + (f'，{where_to_look(rung)}' if rung.reached('v3') else '。'))


@pytest.mark.idea('看得到前面的字')
@from_rung('v3')
def test_logits_depend_on_earlier_tokens(rung, expected):
    model, idx = build(rung), random_ids(2, BLOCK_SIZE)
    for position in range(BLOCK_SIZE):
        changed = changed_positions(model, idx, position)
        if not expected:
            assert changed == [position], 'v2 还看不到前面的字，那是 v3 的内容。'
            continue
        blind = [other for other in range(position, BLOCK_SIZE) if other not in changed]
        assert not blind, (
            f'第 {blind[0] + 1} 个字的预测不随{"它自己" if blind[0] == position else f"第 {position + 1} 个字"}变化：'
            '每个字都应看得到自己和前面所有的字。\n' + (
                attention_mistake(rung) or '注意力单独看没有错：查它的结果用上了没有，之前之后的各步丢掉了什么。'))


@pytest.mark.idea('上文短一些，前面的预测不变')
@pytest.mark.parametrize('rung', LADDER.since('v2'))
def test_short_and_single_token_contexts(rung):
    """A prefix gives the logits it gives inside a longer text."""
    model, idx = build(rung), random_ids(2, BLOCK_SIZE)
    whole = model(idx)[0]
    for length in range(1, BLOCK_SIZE):
        with hint(f'只有 {length} 个字时出错：掩码和位置都要按实际的字数 T 截取。'):
            logits = model(idx[:, :length])[0]
        assert logits.shape[1] == length, (
            f'只给前 {length} 个字，应得到 {length} 个位置的得分，却得到 {logits.shape[1]} 个：位置的个数应是这一次的字数 T = idx.size(1)，'
            f'torch.arange(T)，不总是 block_size（{BLOCK_SIZE}）。')
        assert torch.allclose(logits, whole[:, :length], atol=1e-5), (
            f'只给前 {length} 个字，得分和给全 {BLOCK_SIZE} 个字时前 {length} 个位置的不同：前面的预测不应取决于后面还有没有字。'
            '位置从 0 数起' + ('，掩码取前 T 行、前 T 列' if rung.reached('v3') else '') + '，都要按实际的字数 T 截取。')


# v4: heads

@pytest.mark.idea('只有一个头时，就是 v3', rung='v4')
def test_v4_with_one_head_equals_v3():
    v3, v4 = build(LADDER['v3']), build(LADDER['v4'], seed=9, n_head=1)
    assert not copy_weights(v3, v4), '比 v3 多出了参数：分头只是把同样的宽度切开，不添参数（投影是 v8 的内容）。'
    idx = random_ids(3, BLOCK_SIZE)
    assert torch.allclose(v3(idx)[0], v4(idx)[0], atol=1e-6), (
        'n_head=1、参数相同时，得分应和 v3 相同，却不同：除了分头，计算不应有别的变化。')


@pytest.mark.idea('几个头就有几组权重')
@from_rung('v4')
def test_attends_in_as_many_patterns_as_heads(rung, expected):
    """The weights show in what attention returns, when the value of each place is a one in a column of its own."""
    sa, length = attention_of(build(rung)), HEAD_SIZE
    x = noise(1, length, SIZES['n_embd'])
    ones = torch.eye(length).repeat(1, SIZES['n_head'])
    with torch.no_grad():
        sa.value.weight.copy_((torch.linalg.pinv(x[0]) @ ones).T)
        if rung.reached('v8'):
            sa.proj.weight.copy_(torch.eye(SIZES['n_embd']))
            zero(sa.proj.bias)
    patterns = sa(x)[0].unflatten(-1, (SIZES['n_head'], length)).transpose(0, 1)
    assert torch.allclose(patterns.sum(-1), torch.ones(SIZES['n_head'], length), atol=1e-4), (
        '一个头里，每个字分给各个位置的权重加起来应是 1：softmax 要在 key 那一维上做，各个头取相邻的 head_size 维。')
    same = torch.cdist(patterns.flatten(1), patterns.flatten(1)) < 1e-3
    groups = len(same.unique(dim=0))
    assert groups == (SIZES['n_head'] if expected else 1), (
        f'n_head={SIZES["n_head"]}，却只有 {groups} 组不同的权重：每个头要用自己那一段 query 和 key 算出自己的权重。'
        if expected else 'v3 只有一个头，权重只应有一组；分头是 v4 的内容。')


@pytest.mark.idea('分头不添参数', rung='v4')
def test_heads_cost_no_parameters():
    counts = [sum(p.numel() for p in build(LADDER['v4'], n_head=n).parameters()) for n in (1, 2, 4, 8)]
    assert len(set(counts)) == 1, (
        f'n_head 是 1、2、4、8 时，参数有 {"、".join(map(str, counts))} 个：应当一样多。'
        '每个头的宽度是 n_embd // n_head，合起来还是 n_embd。')


# v5: feed-forward

def is_affine_after_attention(model):
    """Whether the way from what attention returns to the logits is affine: the middle goes to the middle."""
    returned = []
    model.sa.register_forward_hook(lambda *_: returned[-1])
    values = noise(2, 1, BLOCK_SIZE, SIZES['n_embd'])
    logits = []
    for value in (values[0], values[1], values.mean(dim=0)):
        returned.append(value)
        logits.append(model(random_ids(1, BLOCK_SIZE))[0])
    return torch.allclose((logits[0] + logits[1]) / 2, logits[2], atol=1e-5)


@pytest.mark.idea('取来的信息经过了非线性的加工')
@pytest.mark.parametrize('rung, expected', [(LADDER['v4'], False), (LADDER['v5'], True)])
def test_attention_output_passes_a_non_linearity_from_v5_on(rung, expected):
    assert is_affine_after_attention(build(rung)) != expected, (
        '从注意力的输出到得分，仍然只是线性的：两个线性层之间没有 ReLU，就等于一个线性层。' if expected else
        '从注意力的输出到得分，应当只有线性的 lm_head：前馈网络是 v5 的内容。')


@pytest.mark.idea('前馈网络单独加工每个位置')
@pytest.mark.parametrize('rung', LADDER.since('v5'))
def test_feed_forward_works_on_each_position_alone(rung):
    ffwd, x = feed_forward_of(build(rung)), noise(2, BLOCK_SIZE, SIZES['n_embd'])
    assert torch.allclose(ffwd(x)[:, 2:3], ffwd(x[:, 2:3]), atol=1e-6), (
        '前馈网络对一个位置的输出，取决于别的位置：交流是注意力的事，这里每个位置单独加工。')


# v6: depth

@pytest.mark.idea('只有一层时，就是 v5', rung='v6')
def test_v6_with_one_layer_equals_v5():
    v5, v6 = build(LADDER['v5']), build(LADDER['v6'], seed=9, n_layer=1)
    more = copy_weights(v5, v6, lambda name: f'blocks.0.{name}' if name.startswith(('sa.', 'ffwd.')) else name)
    assert not more, f'n_layer=1 时，参数应和 v5 一样多，却多出了 {"、".join(sorted(more))}。'
    idx = random_ids(3, BLOCK_SIZE)
    assert torch.allclose(v5(idx)[0], v6(idx)[0], atol=1e-6), (
        'n_layer=1、参数相同时，得分应和 v5 相同，却不同：一个 Block 应是 ffwd(sa(x))，前后没有别的。')


@pytest.mark.idea('深度是一个数')
@pytest.mark.parametrize('rung', LADDER.since('v6'))
def test_depth_is_a_number(rung):
    for layers in (1, 2, 5):
        there = len(build(rung, n_layer=layers).blocks)
        assert there == layers, f'n_layer={layers} 时应有 {layers} 个 Block，却有 {there} 个。'
    counts = [sum(p.numel() for p in build(rung, n_layer=n).parameters()) for n in (1, 2, 5)]
    assert counts[2] - counts[0] == 4 * (counts[1] - counts[0]) > 0, (
        f'n_layer 是 1、2、5 时，参数有 {"、".join(map(str, counts))} 个：每加一层应添同样多的参数。'
        '几层是不是共用了同一个 Block？每一层要新建一个。')


@pytest.mark.idea('每一层都用上了')
@pytest.mark.parametrize('position', range(3))
@pytest.mark.parametrize('rung', LADDER.since('v6'))
def test_every_layer_is_used(rung, position):
    model, idx = build(rung, n_layer=3), random_ids(2, BLOCK_SIZE)
    before = model(idx)[0]
    zero(*model.blocks[position].parameters())
    assert not torch.allclose(before, model(idx)[0], atol=1e-4), (
        f'一共 3 层，把第 {position + 1} 层的参数都换成零，得分却不变：forward 里没有经过这一层。')


# v7: residual connections

@pytest.mark.idea('子层什么也不做时，Block 原样放过 x')
@pytest.mark.parametrize('scale', [1.0, 100.0])
@from_rung('v7')
def test_block_with_zeroed_sublayers_is_the_identity(rung, expected, scale):
    """Also what tells pre-norm from post-norm: after a norm, the stream would not be the identity."""
    block = build(rung).blocks[0]
    zero_sublayers(block)
    x = scale * noise(2, BLOCK_SIZE, SIZES['n_embd'])
    out = block(x)
    if not expected:
        assert not torch.equal(out, x), '子层归零时，Block 仍放过了 x：残差连接是 v7 的内容。'
        return
    where = ('每个子层的输出要加到它的输入 x 上。' if not rung.reached('v9') else
             '归一化只放在子层读 x 之前（pre-norm），x 自己那条路上什么也不做；放在相加之后是 post-norm。')
    assert out.abs().max() > 0, f'两个子层的参数都是零时，Block 的输出也全是零：x 自己没有传下去。{where}'
    assert torch.equal(out, x), f'两个子层的参数都是零时，Block 应原样放过 x，出来的却变了：残差的主路上多了一步。{where}'


@pytest.mark.idea('每个子层各有一条残差')
@pytest.mark.parametrize('sublayer', ['sa', 'ffwd'])
@pytest.mark.parametrize('rung', LADDER.since('v7'))
def test_each_sublayer_has_its_own_residual(rung, sublayer):
    """With the other sublayer zeroed, the block adds to x exactly what this one returned."""
    block = build(rung).blocks[0]
    zero(*(block.ffwd if sublayer == 'sa' else block.sa).parameters())
    returned = []
    getattr(block, sublayer).register_forward_hook(lambda _, __, out: returned.append(out))
    x, name = noise(2, BLOCK_SIZE, SIZES['n_embd']), {'sa': '注意力', 'ffwd': '前馈网络'}[sublayer]
    out = block(x)
    assert returned, f'Block 里没有调用 {sublayer}。'
    assert torch.allclose(out, x + returned[0], atol=1e-6), (
        f'让另一个子层归零，Block 的输出应是 x 加上{name}的输出，却不是：两个子层要各有一条残差，'
        f'不是合用一条，加的是子层的输入 x，不是别的。')


@pytest.mark.idea('前馈网络读的是加过注意力之后的 x')
@pytest.mark.parametrize('rung', LADDER.since('v7'))
def test_feed_forward_reads_what_attention_has_added(rung):
    block, seen = build(rung).blocks[0], {}
    block.sa.register_forward_hook(lambda _, __, out: seen.update(added=out))
    reader = block.ln2 if rung.reached('v9') else block.ffwd
    reader.register_forward_pre_hook(lambda _, args: seen.update(read=args[0]))
    x = noise(2, BLOCK_SIZE, SIZES['n_embd'])
    block(x)
    name = ' ln2 ' if rung.reached('v9') else '前馈网络'
    assert 'read' in seen, f'Block 里没有用上{name.rstrip()}。'
    assert not torch.allclose(seen['read'], seen['added'], atol=1e-6), (
        f'{name.lstrip()}读到的只是注意力的输出，应是 x 加上它之后的和：第一条残差先加好，再给下一个子层。')
    assert not torch.equal(seen['read'], x), f'{name.lstrip()}读到的还是原来的 x：注意力加上去的东西它没有看到，两个子层要一先一后。'
    assert torch.allclose(seen['read'], x + seen['added'], atol=1e-6), f'{name.lstrip()}读到的应是 x 加上注意力的输出。'


@pytest.mark.idea('穿过 16 层，梯度还到得了最底层')
@from_rung('v7')
def test_gradient_of_the_first_layer_survives_16_blocks(rung, expected):
    model = build(rung, n_layer=16)
    model(random_ids(8, BLOCK_SIZE), random_ids(8, BLOCK_SIZE, seed=2))[1].backward()
    first, last = (layers_of(model.blocks[i].ffwd)[0].weight.grad.norm() for i in (0, -1))
    if expected:
        assert first > 0.1 * last, (
            f'叠 16 层时，最底层的梯度只有最上层的 {first / last:.1g} 倍：梯度没有直路可走，检查每个子层的 x + f(x)。')
    else:
        assert first < 1e-3 * last, 'v6 还没有残差连接，梯度应随深度消失；那是 v7 的内容。'


# v8: projection

@pytest.mark.idea('投影是恒等时，就是 v7', rung='v8')
def test_v8_with_identity_projection_equals_v7():
    v7, v8 = build(LADDER['v7']), build(LADDER['v8'], seed=9)
    missing = copy_weights(v7, v8)
    assert missing and all('.proj.' in name for name in missing), '比 v7 只应多出每个 Block 里 sa.proj 的参数。'
    with torch.no_grad():
        for block in v8.blocks:
            block.sa.proj.weight.copy_(torch.eye(SIZES['n_embd']))
            zero(block.sa.proj.bias)
    idx = random_ids(3, BLOCK_SIZE)
    assert torch.allclose(v7(idx)[0], v8(idx)[0], atol=1e-5), (
        'proj 是恒等变换（单位矩阵、零偏置）时，得分应和 v7 相同，却不同：'
        'proj 接在各个头合并之后、加到残差上之前，前后没有别的。')


@pytest.mark.idea('各个头的结果混到一起')
@from_rung('v8')
def test_heads_can_mix(rung, expected):
    """Change what the first head fetches: below v8 only its own slice of the output moves, from v8 on all of it."""
    sa = attention_of(build(rung))
    x = noise(2, BLOCK_SIZE, SIZES['n_embd'])
    before = sa(x)
    with torch.no_grad():
        sa.value.weight[:HEAD_SIZE] += 1
    moved = (sa(x) - before).abs().amax(dim=(0, 1)) > 1e-5
    if expected:
        assert moved.all(), ('改变第 1 个头取来的东西，输出里别的头那几段不动：各个头还是并排放着。'
                             'proj 要接在各个头合并之后，宽 n_embd，而且真的用上。')
    else:
        assert moved[:HEAD_SIZE].all() and not moved[HEAD_SIZE:].any(), (
            '改变第 1 个头取来的东西，只应动输出的前 head_size 维：混合各个头是 v8 的内容。')


# v9: layer norm

@pytest.mark.idea('不管 x 多大，子层读到的均值是 0、方差是 1')
@pytest.mark.parametrize('scale', [0.1, 100.0])
@from_rung('v9')
def test_sublayers_see_mean_0_and_variance_1_whatever_the_scale(rung, expected, scale):
    model, seen = build(rung), []

    def watch(module, name):
        module.register_forward_pre_hook(lambda _, args: seen.append((name, args[0])))

    for i, block in enumerate(model.blocks):
        watch(block.sa, f'第 {i + 1} 层的注意力')
        watch(block.ffwd, f'第 {i + 1} 层的前馈网络')
    watch(model.lm_head, 'lm_head ')
    with torch.no_grad():
        model.token_embedding_table.weight.normal_(std=scale)
        model.position_embedding_table.weight.normal_(std=scale)
    model(random_ids(3, BLOCK_SIZE))
    assert len(seen) == 2 * SIZES['n_layer'] + 1, '每个 Block 的 sa、ffwd，和最后的 lm_head，应各调用一次。'
    for name, x in seen:
        normal = x.mean(-1).abs().max() < 1e-3 and (x.var(-1, unbiased=False) - 1).abs().max() < 0.05
        if expected:
            assert x.mean(-1).abs().max() < 1e-3, (
                f'{name}读到的每个位置，均值应是 0，却有 {x.mean(-1).abs().max():.2g}：归一化要先减去均值，再除以标准差；'
                '没有归一化，或者不是在最后一维（n_embd）上做的，也会这样。')
            assert normal, (f'让嵌入的标准差是 {scale:g}，{name}读到的每个位置，均值应是 0、方差应是 1，'
                            f'却有方差是 {x.var(-1, unbiased=False).max():.2g} 的：它读之前没有归一化，'
                            '或者除以的不是标准差（方差的平方根，不是方差），或者不是在最后一维（n_embd）上做的。')
        else:
            assert not normal, f'{name}读到的已经归一化了：那是 v9 的内容。'


@pytest.mark.idea('注意力和前馈网络各有自己的归一化')
@pytest.mark.parametrize('rung', LADDER.since('v9'))
def test_attention_and_feed_forward_have_norms_of_their_own(rung):
    block = build(rung).blocks[0]
    with torch.no_grad(), hint('ln1 和 ln2 应是 nn.LayerNorm(n_embd)，带着可学的 weight 和 bias。'):
        block.ln1.weight.fill_(2)
        block.ln2.weight.fill_(3)
    seen = []
    for sublayer in (block.sa, block.ffwd):
        sublayer.register_forward_pre_hook(lambda _, args: seen.append(args[0].std(-1, unbiased=False).mean().item()))
    block(noise(4, BLOCK_SIZE, SIZES['n_embd']))
    assert seen == pytest.approx([2, 3], rel=1e-2), (
        'ln1 应在注意力之前，ln2 应在前馈网络之前，各用各的：让 ln1 放大 2 倍、ln2 放大 3 倍，'
        f'两个子层读到的却放大了 {"、".join(f"{value:.2g}" for value in seen)} 倍。')


# v10: dropout

@pytest.mark.idea('训练时有随机性')
@from_rung('v10')
def test_stochastic_in_train_mode(rung, expected):
    model, idx = build(rung, dropout=0.5).train(), random_ids(3, BLOCK_SIZE)
    assert (not torch.equal(model(idx)[0], model(idx)[0])) == expected, (
        '训练模式下，同样的输入得到同样的得分：dropout 没有用上。' if expected else
        '训练模式下，同样的输入得到不同的得分：dropout 是 v10 的内容。')


@pytest.mark.idea('评估时就是 v9')
@pytest.mark.parametrize('rung', LADDER.since('v10'))
def test_eval_mode_equals_v9(rung):
    v9, model = build(LADDER['v9']), build(rung, seed=9, dropout=0.5)
    assert not copy_weights(v9, model), '比 v9 多出了参数：dropout 没有参数。'
    idx = random_ids(3, BLOCK_SIZE)
    assert torch.allclose(v9(idx)[0], model(idx)[0], atol=1e-6), (
        'eval 模式下，参数相同时得分应和 v9 相同，却不同：除了 dropout，计算不应有别的变化；评估时不必再按比例缩放。')


@pytest.mark.idea('dropout 不落在残差的主路上')
@pytest.mark.parametrize('rung', LADDER.since('v10'))
def test_dropout_never_falls_on_the_residual_stream(rung):
    model, idx = build(rung, dropout=0.9).train(), random_ids(3, BLOCK_SIZE)
    for block in model.blocks:
        zero_sublayers(block)
    x = noise(2, BLOCK_SIZE, SIZES['n_embd'])
    out = model.blocks[0](x)
    assert not out.isnan().any(), (
        '训练模式下出现了 NaN：dropout 落在了盖成 -inf 的匹配度上（0 乘 -inf 没有意义），'
        '它应落在 softmax 之后的注意力的权重上。')
    assert torch.equal(out, x), (
        '两个子层的参数都是零时，Block 在训练模式下应原样放过 x，却没有：dropout 落在了残差的主路上，'
        '应只丢子层的输出，丢完再加到 x 上。')
    assert torch.equal(model(idx)[0], model(idx)[0]), (
        '子层都归零之后，训练模式下的得分还有随机性：dropout 落在了 Block 之外（嵌入或最后的输出），这里只丢子层里的。')


def often(nothing, p):
    """What the share of what is dropped tells."""
    share = nothing.float().mean()
    return ('：这里丢了两次（比如注意力里丢过，Block 里又丢）' if abs(share - (1 - (1 - p) ** 2)) < 0.02 else
            '：这里用的是 1 - dropout，nn.Dropout 的参数是丢掉的比例，不是留下的' if abs(share - (1 - p)) < 0.02 else '')


def dropped_together(nothing):
    """Along which axis what is dropped is always the same, in Chinese, or nothing."""
    for axis, said in enumerate(('一批里的各段丢的都一样', '一段里的各个位置丢的都一样', '一个位置的各个数要么全丢，要么全留')):
        if torch.equal(nothing, nothing.narrow(axis, 0, 1).expand_as(nothing)):
            return said
    return ''


def added(block, x):
    """What a block adds to the stream, and where that is exactly nothing."""
    out = block(x)
    return out - x, out == x


@pytest.mark.idea('dropout 落在注意力的权重上，和两个子层的输出上')
@pytest.mark.parametrize('rung', LADDER.since('v10'))
def test_dropout_falls_on_attention_weights_and_both_sublayer_outputs(rung):
    """Seen from outside: what a block adds to x in train mode is what it adds in eval mode, or a multiple, or nothing."""
    p = 0.3
    keep, x = 1 - p, noise(100, 3, SIZES['n_embd'])
    for number, block in enumerate(build(rung, dropout=p).blocks, 1):
        zero(*block.sa.parameters())
        full, _ = added(block, x)
        dropped, nothing = added(block.train(), x)
        assert nothing.any(), f'第 {number} 个 Block 里，前馈网络的输出没有经过 dropout：在它的最后、加到 x 上之前。'
        assert not dropped_together(nothing), f'前馈网络的输出里，{dropped_together(nothing)}：每个数各自随机丢，交给 nn.Dropout。'
        assert abs(nothing.float().mean() - p) < 0.03, (
            f'dropout={p} 时，前馈网络的输出丢掉了 {nothing.float().mean():.0%}，应是 {p:.0%}：'
            f'比例要来自参数 dropout，而且只丢一次{often(nothing, p)}。')
        assert torch.allclose(dropped[~nothing], full[~nothing] / keep, atol=1e-5), (
            f'前馈网络的输出里，留下的应正好放大到 1 / (1 - {p}) 倍，却不是：dropout 放在了别处（比如两个线性层之间），'
            '应只在最后。')

    # Attention over three places; the value of each is a one in two columns of its own, in every head.
    x = noise(1, 3, SIZES['n_embd'])
    ones = torch.eye(3).repeat(1, 2 * SIZES['n_head'])
    for number, block in enumerate(build(rung, dropout=p).blocks, 1):
        zero(*block.ffwd.parameters())
        with torch.no_grad():
            block.sa.value.weight.copy_((torch.linalg.pinv(block.ln1(x[0])) @ ones).T)
            block.sa.proj.weight.copy_(torch.eye(SIZES['n_embd']))
            block.sa.proj.bias.fill_(1)  # tells a dropped output (0) from a dropped weight (1)
        many = x.expand(200, -1, -1)
        weights = added(block, many)[0] - 1
        dropped, nothing = added(block.train(), many)
        assert nothing.any(), f'第 {number} 个 Block 里，注意力的输出没有经过 dropout：在 proj 之后、加到 x 上之前。'
        assert not dropped_together(nothing), f'注意力的输出里，{dropped_together(nothing)}：每个数各自随机丢，交给 nn.Dropout。'
        assert abs(nothing.float().mean() - p) < 0.03, (
            f'dropout={p} 时，注意力的输出丢掉了 {nothing.float().mean():.0%}，应是 {p:.0%}：'
            f'在 proj 之后丢一次，比例来自参数 dropout{often(nothing, p)}。')
        dropped = dropped * keep - 1
        past = (weights > 1e-6) & ~nothing
        lost = past & (dropped.abs() < 1e-4)
        assert lost.any(), f'第 {number} 个 Block 里，注意力的权重没有经过 dropout：在 softmax 之后、乘 value 之前。'
        assert torch.allclose(dropped[past & ~lost], weights[past & ~lost] / keep, atol=1e-4), (
            f'注意力的权重里，留下的应正好放大到 1 / (1 - {p}) 倍，却不是：dropout 应在 softmax 之后，不在之前，之后也不再改权重。')
        first, second = (part.flatten() for part in lost.unflatten(-1, (-1, 2, 3)).unbind(-2))
        both = ~nothing.unflatten(-1, (-1, 2, 3)).any(-2).flatten()
        assert torch.equal(first[both], second[both]), (
            '同一个权重乘出来的几个数，有的丢了有的没丢：dropout 应落在注意力的权重上（乘 value 之前），不是乘出来的结果上。')
        assert abs(lost.sum() / past.sum() - p) < 0.03, (
            f'dropout={p} 时，注意力的权重丢掉了 {lost.sum() / past.sum():.0%}，应是 {p:.0%}：比例要来自参数 dropout，只丢一次。')


# The whole, held against an independent implementation of the same architecture.

def reference_logits(model, idx, n_head):
    """GPT-2's pre-norm decoder (Radford et al. 2019, section 2.3) written as functions of the model's weights."""
    x = model.token_embedding_table.weight[idx] + model.position_embedding_table.weight[:idx.size(1)]
    width = x.size(-1)

    def norm(x, ln):
        return F.layer_norm(x, (width,), ln.weight, ln.bias)

    def linear(x, layer):
        return torch.einsum('btc,dc->btd', x, layer.weight) + (0 if layer.bias is None else layer.bias)

    for block in model.blocks:
        h = norm(x, block.ln1)
        heads = [linear(h, part).split(width // n_head, dim=-1) for part in (block.sa.query, block.sa.key, block.sa.value)]
        fetched = [F.scaled_dot_product_attention(q, k, v, is_causal=True) for q, k, v in zip(*heads, strict=True)]
        x = x + linear(torch.cat(fetched, dim=-1), block.sa.proj)
        first, second = layers_of(block.ffwd)
        x = x + linear(torch.relu(linear(norm(x, block.ln2), first)), second)
    return linear(norm(x, model.ln_f), model.lm_head)


@pytest.mark.idea('整个模型和另一种写法的 GPT 一致')
@pytest.mark.parametrize('rung', LADDER.since('v9'))
def test_final_model_equals_an_independent_implementation(rung):
    model, idx = build(rung, n_layer=3, dropout=0.5), random_ids(3, BLOCK_SIZE)
    with torch.no_grad():
        for parameter in model.parameters():  # norms start as the identity: shake everything
            parameter.add_(0.1 * torch.randn(parameter.shape))
    expected = reference_logits(model, idx, SIZES['n_head'])
    assert torch.allclose(model(idx)[0], expected, atol=1e-4), (
        '得分和照论文另写的 pre-norm GPT 不同：先改好前面不成立的性质；都成立的话，'
        '查 ln_f 是不是在所有 Block 之后，每一步是不是都用上了，而且只用了一次。')


def too_large(model):
    """Which weights start out of proportion to the number of what they add up, in Chinese."""
    for name, weight in model.named_parameters():
        usual = 1 if 'embedding' in name else weight.size(-1) ** -0.5
        if weight.dim() == 2 and weight.std() > 2.5 * usual:
            return (f'{name} 的初始值太大：标准差是 {weight.std():.2g}，'
                    f'{"nn.Embedding" if "embedding" in name else "nn.Linear"} 默认不超过 {usual:.2g}。')
    return '各组参数的初始值都不大，检查各步有没有多乘什么。'


@pytest.mark.idea('刚建好时，损失接近 ln V')
@pytest.mark.parametrize('rung', LADDER.numbered)
def test_loss_starts_near_ln_vocab(rung):
    model = build(rung, vocab_size=1000, n_embd=64, n_layer=3)
    _, loss = model(random_ids(32, BLOCK_SIZE, vocab_size=1000), random_ids(32, BLOCK_SIZE, seed=2, vocab_size=1000))
    assert abs(loss.item() - math.log(1000)) < 0.8, (
        f'1,000 个字的词表，还没有训练，损失应接近 ln 1000 ≈ 6.91（每个字一样可能），却是 {loss:.2f}：得分一开始就太大了。\n'
        + too_large(model))
