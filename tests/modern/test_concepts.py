"""What is true from a rung of this ladder on, and false one rung below; then each part, and the whole, for itself.

Each test is marked with its idea in Chinese, and says in Chinese what a failure means: the judge shows it to a learner.
"""

import contextlib
import math
import os
import pickle
import tempfile
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from kit.judge import hint
from kit.scripts import build, module_of
from tests.modern.diagnosis import (
    attention_mistake,
    clipping_mistake,
    gated_mistake,
    norm_mistake,
    rotary_mistake,
    rotate_mistake,
    schedule,
    schedule_mistakes,
)
from tests.modern.forked import environment_of, free_port
from tests.modern.models import (
    ALL,
    CONSTANTS,
    GROUP,
    LADDER,
    N_KV_HEAD,
    POEMS,
    TRAINING,
    TUNES,
    Killed,
    Run,
    from_rung,
    reached,
    run_of,
    shared,
)
from tests.root import test_concepts as root
from tests.root.diagnosis import differs, feed_forward_mistake
from tests.root.models import BLOCK_SIZE, HEAD_SIZE, SIZES, layers_of, noise, random_ids, shaken, zero

N_EMBD, N_HEAD, VOCAB = SIZES['n_embd'], SIZES['n_head'], SIZES['vocab_size']


# v13: rows that are poems

@pytest.mark.idea('一首词一行，从标题到空行')
@ALL
def test_a_text_is_split_into_poems(rung):
    poems = ['题甲\n春江。\n\n', '题乙\n花月。\n夜。\n\n', '题丙\n往事。\n\n']
    found = module_of(rung).split_poems(f'\n{"".join(poems[:2])}\n{poems[2].rstrip()}\n', 5)
    assert isinstance(found, list) and len(found) == len(poems), (
        f'文本里有 {len(poems)} 首词，split_poems 却给了 {len(found)} 行：按空行切，几个空行连在一起也只切一次。')
    for given, poem in zip(found, poems, strict=True):
        assert given.startswith(poem[:2]), f'每一行应从标题开始，「{poem[:2]}」却不见了，这一行是「{given}」。'
        assert given.endswith('\n\n'), ('每一行的结尾应是空行（两个换行），它说明这首写完了，写的时候才知道在哪里停，'
                                        f'这一行的最后却是「{given[-3:]}」。')
        assert given == poem, f'这一行应是「{poem}」，却是「{given}」：除了切开，别的都不变。'


@pytest.mark.idea('没有空行的文本，每 block_size 个字一行')
@ALL
def test_a_text_without_blank_lines_is_cut_into_rows(rung):
    text = 'abcdefghijk\nlmn'
    rows = module_of(rung).split_poems(text, 4)
    assert all(a[-1] == b[0] for a, b in pairwise(rows)), (
        f'没有空行的文本，前一行的末字就是后一行的首字，不然有的字从不当答案。这里的各行是 {"、".join(rows)}。')
    assert rows[0] == 'abcde', f'block_size 是 4，没有空行的文本，第一行应是前 5 个字（x 和错开一个字的 y），却是「{rows[0]}」。'
    assert rows[0] + ''.join(row[1:] for row in rows[1:]) == text and all(len(row) <= 5 for row in rows), (
        f'没有空行的文本，各行接起来应是整个文本，每行最多 block_size + 1 个字；这里的各行是 {"、".join(rows)}。')


def table_of(module, poems):
    """The table of these poems, and what its padding is."""
    tokenizer = module.Tokenizer(''.join(poems))
    table = module.pad(poems, tokenizer)
    lengths = [len(poem) for poem in poems]
    assert isinstance(table, torch.Tensor) and table.shape == (len(poems), max(lengths)) and table.dtype == torch.int64, (
        f'pad 应给出一张 int64 的表 (N, L)：{len(poems)} 首词，最长的 {max(lengths)} 字，就是 {(len(poems), max(lengths))}，'
        f'却是 {tuple(getattr(table, "shape", ()))}。')
    short = min(range(len(poems)), key=lambda i: lengths[i])
    ids = torch.tensor(tokenizer.encode(poems[short]))
    assert not table[short, -lengths[short]:].equal(ids), (
        '填充放到了词的前面：要放在后面，词里的字才看不到它，第 t 个位置才总是一首词的第 t 个字。')
    for row, poem in zip(table, poems, strict=True):
        assert row[:len(poem)].tolist() == tokenizer.encode(poem), f'表里的这一行应从「{poem}」的编号开始，却是 {row.tolist()}。'
    padding = {*table[torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None]].tolist()}
    assert len(padding) == 1 and not 0 <= min(padding) < tokenizer.vocab_size, (
        f'填充应是同一个数，而且不是任何一个字的编号，不然就分不出哪里是词，哪里是填充；这里填的是 {"、".join(map(str, padding))}。')
    return table, padding.pop()


@pytest.mark.idea('填充在词的后面')
@ALL
def test_padding_stands_behind_the_poem(rung):
    table_of(module_of(rung), ['春江花\n\n', '春\n\n', '春江花月夜\n\n'])


@pytest.mark.idea('x 是这几首词，y 往后错一个字')
@ALL
def test_a_batch_is_poems_with_the_next_character_as_answer(rung):
    module, poems = module_of(rung), ['春江花\n\n', '春\n\n', '江花月夜往事\n\n', '月夜\n\n']
    table, padding = table_of(module, poems)
    x, y = module.get_batch(table, torch.tensor([1, 0]))
    assert x.shape == y.shape and x.shape[0] == 2, f'取了 2 首，x 和 y 应各有 2 行、一样宽，却是 {tuple(x.shape)} 和 {tuple(y.shape)}。'
    assert x.shape[1] == 4, (
        f'这一批里最长的有 5 字，x 和 y 应是 4 个字宽（错开一个字），却是 {x.shape[1]}：'
        '表按所有的词里最长的排，取出一批之后，要截到这一批里最长的一首，后面全是填充的列不要算。')
    assert x.min() >= 0 and x.max() < module.Tokenizer(''.join(poems)).vocab_size, (
        f'x 里的填充要换成一个字的编号（0 就行），模型查得到它的嵌入；这里却有 {x.min()}。')
    for row, i in enumerate([1, 0]):
        n = len(poems[i])
        assert x[row, :n - 1].equal(table[i, :n - 1]), f'x 的第 {row + 1} 行应是第 {i + 1} 首词（去掉最后一个字），却不是：按 rows 里的行号取。'
        assert not y[row, :n - 1].equal(table[i, :n - 1]), 'y 和 x 一样：y 的每个位置应是 x 同一位置的下一个字，要往后错一个字。'
        assert y[row, :n - 1].equal(table[i, 1:n]), 'y 的每个位置应是 x 同一位置的下一个字，一直到空行的末尾。'
        assert (y[row, n - 1:] == padding).all(), (
            f'y 里，词后面的填充应仍是 {padding}，它不算答案，F.cross_entropy 才不计它；这里却是 {y[row, n - 1:].tolist()}。')


@pytest.mark.idea('一轮里每首恰好一次，同批的长短相近，次序每轮不同')
@ALL
def test_batches_are_an_epoch_in_another_order(rung):
    make_batches, padding = module_of(rung).make_batches, getattr(module_of(rung), 'padding', None)
    assert isinstance(padding, int), '文件顶部没有 padding：它是短的词后面填的数，-100，F.cross_entropy 遇到它就不计。'
    lengths = torch.randint(10, 60, (101,), generator=torch.Generator().manual_seed(1))
    table = torch.where(torch.arange(60) < lengths[:, None], 1, padding)
    epochs = [make_batches(table, 8) for _ in range(3)]
    for batches in epochs:
        rows = torch.cat([torch.as_tensor(batch) for batch in batches]).tolist()
        missing, twice = set(range(101)) - set(rows), sorted({row for row in rows if rows.count(row) > 1})
        assert not twice, f'一轮里每首应恰好一次，这里有 {len(twice)} 首不止一次（比如第 {twice[0]} 行）：不要随机地抽，把行号排好再分批。'
        assert not missing, f'一轮里每首应恰好一次，这里有 {len(missing)} 首一次也没有：最后一批不满 batch_size 也要留着。'
        assert max(map(len, batches)) <= 8 and len(batches) == 13, (
            f'101 首，batch_size 是 8，应有 13 批，最后一批 5 首，却有 {len(batches)} 批，最大的 {max(map(len, batches))} 首。')
        waste = sum(len(batch) * lengths[batch].max() for batch in batches) / lengths.sum() - 1
        assert waste < 0.15, (f'同批的词长短差得太远，填充比字多出 {waste:.0%}：先按长短排好，再切成批，长短相近的在一批，填充就少。')
    orders = [[lengths[batch].max().item() for batch in batches] for batches in epochs]
    assert not any(order in (sorted(order), sorted(order, reverse=True)) for order in orders), (
        '各批的次序是从短到长（或从长到短），没有打乱：分好批之后，批的次序要随机（torch.randperm）。')
    assert len({str(order) for order in orders}) == len(orders), (
        '每次调用，各批的次序都一样：次序要每轮不同，从随机数里来，里面不要设种子。')


class Scripted(torch.nn.Module):
    """A model that writes this text, whatever it is asked, by its own generate."""

    def __init__(self, model, text, tokenizer):
        super().__init__()
        self.model, self.ids, self.size, self.block_size = model, tokenizer.encode(text), tokenizer.vocab_size, len(text) + 1

    def forward(self, idx, targets=None):
        following = torch.tensor([[*self.ids[1:], 0][:idx.size(1)]])
        return 1e4 * F.one_hot(following, self.size).float().expand(len(idx), -1, -1), None

    def generate(self, *args, **kwargs):
        return type(self.model).generate(self, *args, **kwargs)


@pytest.mark.idea('写到空行就停')
@from_rung('v13')
def test_what_is_written_for_a_tune_stops_by_itself(rung, expected):
    module, poem = module_of(rung), '浣溪沙 甲\n春江。\n花月夜。'
    text = f'{poem}\n\n浣溪沙 乙\n往事。\n\n浣溪沙'
    tokenizer = module.Tokenizer(text)
    said = module.write(Scripted(build(rung), text, tokenizer), tokenizer, '浣溪沙', len(text) - 3)
    if not expected:
        assert said.rstrip('\n') != poem, '写到空行就停了：那是 v13 的内容。'
        return
    assert said.startswith('浣溪沙'), f'write 应把 prompt（词牌）也还回来，从原来的开头起，却是「{said}」。'
    assert len(said.rstrip()) >= len(poem), (
        f'没有写到空行就停了，只写了「{said}」：一个换行只是一行完了，连着两个换行（空行）才是一首完了。')
    assert said.rstrip('\n') == poem, f'写到空行没有停，又写了下一首「{said[len(poem):].strip()}」：最后两个字是换行时，一首就完了。'
    short = module.write(Scripted(build(rung), text, tokenizer), tokenizer, '浣溪沙', 4)
    assert short == text[:7], f'max_new_tokens 是 4，还没有到空行，应写 4 个字，「{text[:7]}」，却是「{short}」。'


# v14: how big a step may be

@pytest.mark.idea('学习率的公式：升到最高，再降到 0')
@pytest.mark.parametrize('rung', LADDER.since('v14'))
def test_the_schedule_is_a_line_up_and_a_line_down(rung):
    rate, warmup, steps = 0.4, 10, 60
    given = torch.tensor([module_of(rung).get_lr(step, rate, warmup, steps) for step in range(steps)], dtype=torch.double)
    expected = schedule(rate, warmup, steps)
    wrong = (given - expected).abs() > 1e-9
    mistake = differs('get_lr ', lambda: given, lambda: expected, schedule_mistakes(rate, warmup, steps),
                      lambda: f'learning_rate={rate}、warmup_iters={warmup}、max_iters={steps} 时，step 是 {wrong.nonzero()[0].item()} '
                      f'的学习率应是 {expected[wrong][0]:.4g}，却是 {given[wrong][0]:.4g}。')
    assert not mistake, mistake
    assert given.max() == pytest.approx(rate, rel=1e-12), f'最高的学习率应正好是 learning_rate，{rate}，却是 {given.max()}。'


# Each part for itself, from the inside out: the first that is wrong is the nearest to the cause.

def shapes_of(rung):
    """{name: shape} of every parameter that a rung has, in the order of the parts."""
    hidden = 8 * N_EMBD // 3 if reached(rung, 'v17') else 4 * N_EMBD
    bias, narrow = not reached(rung, 'v15'), (HEAD_SIZE * (N_KV_HEAD if reached(rung, 'v18') else N_HEAD), N_EMBD)
    shapes = {'token_embedding_table.weight': (VOCAB, N_EMBD)}
    if not reached(rung, 'v16'):
        shapes['position_embedding_table.weight'] = (BLOCK_SIZE, N_EMBD)
    for block in [f'blocks.{i}.' for i in range(SIZES['n_layer'])]:
        shapes |= {f'{block}sa.query.weight': (N_EMBD, N_EMBD), f'{block}sa.key.weight': narrow, f'{block}sa.value.weight': narrow,
                   f'{block}sa.proj.weight': (N_EMBD, N_EMBD)} | ({f'{block}sa.proj.bias': (N_EMBD,)} if bias else {})
        if reached(rung, 'v19'):
            shapes |= {f'{block}sa.{name}.weight': (HEAD_SIZE,) for name in ('q_norm', 'k_norm')}
        if reached(rung, 'v17'):
            shapes |= {f'{block}ffwd.{name}.weight': (hidden, N_EMBD) for name in ('gate', 'up')} | {f'{block}ffwd.down.weight': (N_EMBD, hidden)}
        else:
            shapes |= {f'{block}ffwd.net.0.weight': (hidden, N_EMBD), f'{block}ffwd.net.1.weight': (N_EMBD, hidden)}
            shapes |= {f'{block}ffwd.net.0.bias': (hidden,), f'{block}ffwd.net.1.bias': (N_EMBD,)} if bias else {}
        shapes |= {f'{block}{name}.{kind}': (N_EMBD,) for name in ('ln1', 'ln2') for kind in ['weight', *['bias'] * bias]}
    shapes |= {f'ln_f.{kind}': (N_EMBD,) for kind in ['weight', *['bias'] * bias]}
    shapes |= {'lm_head.weight': (VOCAB, N_EMBD)} if not reached(rung, 'v20') else {}
    return shapes | ({'lm_head.bias': (VOCAB,)} if bias else {})


def what_it_is(rung, owner):
    """What ladder.toml says of a part, whatever its block, or nothing."""
    path = '.'.join('0' if part.isdecimal() else part for part in owner.split('.'))
    return next((f'它应是{what}。' for part, what in rung.parts if part == path), '')


@pytest.mark.idea('没有一个参数叫 bias')
@from_rung('v15')
def test_nothing_has_a_bias(rung, expected):
    found = [name.removesuffix('.bias') for name in dict(build(rung).named_parameters()) if name.endswith('bias')]
    assert (not found) == expected, (
        f'{"、".join(found)} 还有偏置：从 v15 起，线性层都写 bias=False，lm_head 也一样；归一化用 RMSNorm，它没有偏置。'
        + ''.join(what_it_is(rung, name) for name in found[:1]) if expected else '已经没有偏置了：那是 v15 的内容。')


@pytest.mark.idea('各个部分各有自己的参数，一个不多，一个不少')
@ALL
def test_parameters_are_those_of_the_rung(rung):
    model = build(rung)
    tied = reached(rung, 'v20')
    names = [(name, module) for name, module in model.named_modules(remove_duplicate=False) if list(module.parameters())]
    twice = root.twice_in(names) or root.twice_in((name, parameter) for name, parameter in model.named_parameters(remove_duplicate=False)
                                                  if not (tied and name == 'lm_head.weight'))
    assert not twice, f'{twice[0]} 和 {twice[1]} 是同一个东西，共用同一组权重：要各建各的，每一处写一次 nn.……(……)。'
    there, expected = root.parameters_of(model), shapes_of(rung)
    if tied:
        there.pop('lm_head.weight', None)  # whether it is the embedding is a test of its own
    sizes = '、'.join(f'{name} 是 {size}' for name, size in (SIZES | {'n_kv_head': N_KV_HEAD}).items() if name in rung.arguments and name != 'dropout')
    for name, shape in expected.items():
        owner, kind = name.rsplit('.', 1)
        assert name in there, f'少了参数 {name}：{owner} 应带着可学的 {kind}。{what_it_is(rung, owner)}'
        assert tuple(there[name].shape) == shape, (
            f'{owner} 的大小不对：{name} 的形状应是 {shape}，却是 {tuple(there[name].shape)}。{what_it_is(rung, owner)}检查时 {sizes}。')
    for name, parameter in there.items():
        owner, kind = name.rpartition('.')[::2]
        assert name in expected, (
            f'多出了参数 {name}，形状是 {tuple(parameter.shape)}。' + what_it_is(rung, owner) + (
                '位置从 v16 起不用参数表示。' if 'position' in name and reached(rung, 'v16') else
                f'{owner} 带着偏置，这里不要。' if kind == 'bias' else
                root.too_early(rung, name)))
        assert parameter.requires_grad, f'{name} 收不到梯度：requires_grad 关掉了，它永远停在初始的值。'
        assert parameter.dim() < 2 or parameter.std() > 0, f'{name} 的初始值全一样：各行分不出彼此，要从随机的小数开始。'
        assert parameter.dim() > 1 or kind != 'weight' or (parameter == 1).all(), f'{name} 应从 1 开始，却从 {parameter[0]:g} 开始：还没有训练时，归一化不放大也不缩小。'


@pytest.mark.idea('读进来和写出去用同一个矩阵')
@from_rung('v20')
def test_one_matrix_reads_and_writes(rung, expected):
    model = build(rung)
    table, head = model.token_embedding_table.weight, model.lm_head.weight
    if not expected:
        assert table is not head, '已经是同一个矩阵了：那是 v20 的内容。'
        return
    if table is not head:
        copied = table.equal(head)
        raise AssertionError('token_embedding_table.weight 和 lm_head.weight 应是同一个 nn.Parameter，却是两个：' + (
            '只是把数复制了过去（.data、clone、copy_），训练一步之后就各走各的。写 token_embedding_table.weight = lm_head.weight，不带 .data。'
            if copied else '写 self.token_embedding_table.weight = self.lm_head.weight。'))
    untied = LADDER['v19']
    saved = sum(p.numel() for p in build(untied).parameters()) - sum(p.numel() for p in model.parameters())
    assert saved == VOCAB * N_EMBD, f'参数应比 v19 少 V × n_embd，{VOCAB * N_EMBD} 个，却少了 {saved} 个。'
    idx = random_ids(2, BLOCK_SIZE)
    model(idx, idx)[1].backward()
    read, written = torch.zeros(VOCAB).index_fill(0, idx.flatten(), 1).bool(), table.grad.abs().amax(1) > 0
    assert written[~read].all(), '没有读到的字，那一行收不到梯度：lm_head 那一头断开了求导，看看有没有 detach() 或 .data。'
    with torch.no_grad():
        apart = build(untied)
        for name, parameter in apart.named_parameters():
            parameter.copy_(dict(model.named_parameters(remove_duplicate=False))[name])
    apart(idx, idx)[1].backward()
    both = apart.token_embedding_table.weight.grad + apart.lm_head.weight.grad
    elsewhere = not torch.allclose(model(idx)[0], apart(idx)[0], atol=1e-4)  # what is wrong there is told by other tests
    assert elsewhere or torch.allclose(table.grad, both, atol=1e-5), '这个矩阵的梯度应是首尾两处的梯度加起来，却不是：读和写都要用它，都不能断开求导。'


test_deterministic_in_eval_mode = shared(root.test_deterministic_in_eval_mode)


@pytest.mark.idea('RMSNorm 的公式：除以均方根，乘 weight')
@pytest.mark.parametrize('rung', LADDER.since('v15'))
def test_rms_norm_divides_by_the_root_of_the_mean_square(rung):
    """Held against PyTorch's own F.rms_norm."""
    model = shaken(rung)
    for name, norm in [('ln1', model.blocks[0].ln1), ('ln2', model.blocks[-1].ln2), ('ln_f', model.ln_f)]:
        mistake = norm_mistake(norm, name)
        assert not mistake, mistake
    zeros = norm(torch.zeros(1, 2, N_EMBD))
    assert not zeros.any(), f'x 全是 0 时，RMSNorm 的输出应全是 0，却有 {zeros.flatten()[0]:g}：eps 要加在开方之前。'


@pytest.mark.idea('x 放大，归一化的输出不变；x 加上一个数，就变')
@from_rung('v15')
def test_the_norm_ignores_the_scale_of_its_input_but_not_its_mean(rung, expected):
    norm, x = shaken(rung).blocks[0].ln1, noise(2, BLOCK_SIZE, N_EMBD)
    assert torch.allclose(norm(100 * x), norm(x), atol=1e-3), '把 x 放大 100 倍，归一化的输出应不变，却变了：要除以 x 的均方根。'
    moved = not torch.allclose(norm(x + 1), norm(x), atol=1e-2)
    assert moved == expected, (
        'x 的每个数都加上 1，归一化的输出应当变，却没有变：RMSNorm 不减均值。' if expected else
        'x 的每个数都加上 1，归一化的输出变了：LayerNorm 减去了均值，不该变；不减均值是 v15 的内容。')


@pytest.mark.idea('rotary：每个位置、每一对数转多少')
@pytest.mark.parametrize('rung', LADDER.since('v16'))
def test_rotary_gives_cosine_and_sine_of_each_angle(rung):
    mistake = rotary_mistake(module_of(rung).rotary)
    assert not mistake, mistake


@pytest.mark.idea('rotate：前一半和后一半配成对，转一个角度')
@pytest.mark.parametrize('rung', LADDER.since('v16'))
def test_rotate_turns_the_halves_as_complex_numbers(rung):
    mistake = rotate_mistake(module_of(rung).rotate)
    assert not mistake, mistake


@pytest.mark.idea('注意力的公式：缩放、掩码、softmax、加权')
@ALL
def test_attention_is_that_of_the_rung(rung):
    """Held against softmax attention on queries, keys and values that are normed, turned and repeated by other code."""
    mistake = attention_mistake(rung)
    assert not mistake, mistake


@pytest.mark.idea('前馈网络的公式')
@ALL
def test_feed_forward_is_that_of_the_rung(rung):
    ffwd = shaken(rung).blocks[0].ffwd
    if reached(rung, 'v17'):
        mistake = gated_mistake(ffwd)
    else:
        others = [type(layer).__name__ for layer in layers_of(ffwd) if layer.weight.dim() != 2]
        assert not others and len(layers_of(ffwd)) == 2, 'net 里应有两个线性层，中间一个 ReLU，最后 dropout，别的都没有。'
        mistake = feed_forward_mistake(ffwd)
    assert not mistake, mistake


test_block_puts_its_parts_together = shared(root.test_block_puts_its_parts_together)
test_model_puts_its_parts_together = shared(root.test_model_puts_its_parts_together)
test_forward_keeps_its_contract = shared(root.test_forward_keeps_its_contract)
test_generate_appends_tokens = shared(root.test_generate_appends_tokens)
test_generate_samples_what_the_last_position_predicts = shared(root.test_generate_samples_what_the_last_position_predicts)
test_generate_crops_the_context_to_block_size = shared(root.test_generate_crops_the_context_to_block_size)
test_generate_uses_the_whole_block = shared(root.test_generate_uses_the_whole_block)
test_short_and_single_token_contexts = shared(root.test_short_and_single_token_contexts)
test_depth_is_a_number = shared(root.test_depth_is_a_number)
test_every_layer_is_used = shared(root.test_every_layer_is_used)
test_stochastic_in_train_mode = shared(root.test_stochastic_in_train_mode)
test_dropout_never_falls_on_the_residual_stream = shared(root.test_dropout_never_falls_on_the_residual_stream)


@pytest.mark.idea('看得到自己和前面所有的字，看不到后面的')
@pytest.mark.parametrize('mode', ['eval', 'train'])
@ALL
def test_logits_depend_on_all_earlier_tokens_and_no_later_one(rung, mode):
    model, idx = build(rung).train(mode == 'train'), random_ids(2, BLOCK_SIZE)
    for position in range(BLOCK_SIZE):
        changed = root.changed_positions(model, idx, position)
        assert changed == [*range(position, BLOCK_SIZE)], (
            f'换掉第 {position + 1} 个字，预测变了的应是第 {position + 1} 个字到最后，却是 {"、".join(str(i + 1) for i in changed) or "没有"}：'
            f'{"未来泄漏了。" if changed and changed[0] < position else "它没有被看到。"}'
            + (attention_mistake(rung) or '注意力单独看没有错，查它之外的各步：有没有哪一步把不同位置的数混到了一起，或者丢掉了什么。'))


@torch.no_grad()
def showing(model):
    """The attention of the first block, turned so that its output shows its weights.

    The first numbers of a token are a tag that query and key don't read and that value hands on as it is: in the output
    of a head, number s of token t is the weight that t gives to s.
    """
    sa = model.blocks[0].sa
    for layer in (sa.query, sa.key):
        layer.weight[:, :HEAD_SIZE] = 0
    sa.value.weight.copy_(torch.eye(HEAD_SIZE, N_EMBD).repeat(len(sa.value.weight) // HEAD_SIZE, 1))
    sa.proj.weight.copy_(torch.eye(N_EMBD))
    zero(sa.proj.bias)
    return sa


def weights_in(out):
    """(B, n_head, T, places) of what such an attention returned."""
    return out.unflatten(-1, (N_HEAD, HEAD_SIZE)).transpose(1, 2)


def tagged(x):
    """x (B, T, n_embd) with a tag at each of its HEAD_SIZE places."""
    return torch.cat([torch.eye(HEAD_SIZE).expand(len(x), -1, -1), x[..., HEAD_SIZE:]], -1)


@pytest.mark.idea('dropout 落在注意力的权重上，和两个子层的输出上')
@ALL
def test_dropout_falls_on_attention_weights_and_both_sublayer_outputs(rung):
    p = 0.3
    ffwd, x = shaken(rung, dropout=p).blocks[0].ffwd, noise(100, 3, N_EMBD)
    full, dropped = ffwd(x), ffwd.train()(x)
    gone = dropped == 0
    assert abs(gone.float().mean() - p) < 0.03, (
        f'dropout={p} 时，前馈网络的输出丢掉了 {gone.float().mean():.0%}，应是 {p:.0%}：dropout 在最后，比例来自参数 dropout，只丢一次。')
    assert torch.allclose(dropped[~gone], full[~gone] / (1 - p), atol=1e-4), (
        f'前馈网络的输出里，留下的应正好放大到 1 / (1 - {p}) 倍，却不是：dropout 放在了别处（比如乘好之后、down 之前），应只在最后。')

    sa, x = showing(shaken(rung, dropout=p)), noise(1, HEAD_SIZE, N_EMBD)
    x = tagged(torch.cat([x[..., :HEAD_SIZE], x[..., HEAD_SIZE:]], -1))
    with torch.no_grad():  # the same weight twice, in the first half of a head and in the second
        sa.value.weight.copy_(torch.eye(HEAD_SIZE // 2, N_EMBD).repeat(len(sa.value.weight) // (HEAD_SIZE // 2), 1))
    x = x.expand(200, -1, -1)
    full, dropped = (weights_in(out).unflatten(-1, (2, -1)) for out in (sa(x), sa.train()(x)))
    past, gone = full[..., 0, :] > 1e-4, dropped == 0
    either, both = (gone.any(-2)[past].float().mean(), gone.all(-2)[past].float().mean())
    assert either > 0.1, '注意力里没有 dropout：softmax 之后的权重上、proj 之后的输出上，各丢一次。'
    # a number is gone with its weight, or by itself
    assert abs(both - (p + (1 - p) * p ** 2)) < 0.03, (
        f'同一个权重乘出来的两个数，一起丢掉的有 {both:.0%}，应是 {p + (1 - p) * p ** 2:.0%}：dropout 要落在注意力的权重上，softmax 之后、乘 value 之前，只丢一次。')
    assert abs(either - (p + (1 - p) * (1 - (1 - p) ** 2))) < 0.03, (
        f'同一个权重乘出来的两个数，至少丢一个的有 {either:.0%}，应是 {p + (1 - p) * (1 - (1 - p) ** 2):.0%}：注意力的输出在 proj 之后也要经过 dropout，只丢一次。')
    left = ~gone & past[..., None, :]
    assert torch.allclose(dropped[left], full[left] / (1 - p) ** 2, atol=1e-4), '注意力里，留下的应正好放大到 1 / (1 - dropout) 倍，两处各一次，却不是。'


# v16: positions as angles

@pytest.mark.idea('得分只取决于两个字相隔多远')
@from_rung('v16')
def test_scores_depend_only_on_how_far_apart_two_tokens_stand(rung, expected):
    """All tokens alike, the weights of one token tell how its scores differ from place to place."""
    model = shaken(rung)
    sa, x = showing(model), noise(1, 1, N_EMBD).expand(-1, HEAD_SIZE, -1)
    if not reached(rung, 'v16'):
        x = x + model.position_embedding_table.weight[:HEAD_SIZE]
    scores = weights_in(sa(tagged(x)))[0].log()
    far = [[(scores[:, t, t - d] - scores[:, t, t]).tolist() for t in range(d, HEAD_SIZE)] for d in range(1, HEAD_SIZE)]
    same = all(row == pytest.approx(rows[0], abs=1e-3) for rows in far for row in rows)
    assert same == expected, (
        '同样的两个字，相隔一样远，放在不同的位置，得分却不同：q 和 k 都要按自己的位置转，位置不再用别的办法加进去。'
        if expected else '得分只取决于相隔多远：那是 v16 的内容。')
    assert not expected or max(abs(value) for rows in far for value in rows[0]) > 1e-2, (
        '同样的字，相隔多远得分都一样：位置没有用上，q 和 k 没有按位置转。')


@pytest.mark.idea('模型里没有位置的参数')
@from_rung('v16')
def test_the_model_has_no_parameter_for_position(rung, expected):
    small, large = build(rung), build(rung, seed=9, block_size=50)
    shapes = [{name: parameter.shape for name, parameter in model.named_parameters()} for model in (small, large)]
    differing = [name for name in shapes[0] if shapes[0][name] != shapes[1].get(name)]
    assert (not differing) == expected, (
        f'换一个 block_size，{"、".join(differing)} 的形状就变了：位置不用参数表示，cos 和 sin 是算出来的，不是学的。'
        if expected else '换一个 block_size，参数都不变：那是 v16 的内容。')
    if expected:
        with torch.no_grad():
            for mine, theirs in zip(large.parameters(), small.parameters(), strict=True):
                mine.copy_(theirs)
        idx = random_ids(2, BLOCK_SIZE)
        assert torch.allclose(small(idx)[0], large(idx)[0], atol=1e-5), (
            '同样的参数，block_size 是 7 和是 50，前 7 个字的得分应一样，却不同：角度只和第几个字有关，不该和 block_size 有关。')


# v17: a gate

@pytest.mark.idea('gate 全是 0 时，前馈网络的输出是 0')
@from_rung('v17')
def test_a_gate_at_0_closes_the_feed_forward_network(rung, expected):
    ffwd, x = shaken(rung).blocks[0].ffwd, noise(2, BLOCK_SIZE, N_EMBD)
    assert hasattr(ffwd, 'gate') == expected, '前馈网络里没有 gate。' if expected else '前馈网络里有 gate：那是 v17 的内容。'
    if expected:
        assert ffwd(x).any(), '前馈网络的输出全是 0：gate 没有打开。'
        zero(ffwd.gate.weight)
        assert not ffwd(x).any(), 'gate 的权重全是 0 时，闸门关上了，前馈网络的输出应全是 0，却不是：silu(gate(x)) 要乘到 up(x) 上，没有别的路绕过它。'


@pytest.mark.idea('有了闸门，参数也和 v16 的差不到 2 %')
@pytest.mark.parametrize('rung', LADDER.since('v17')[:1])
def test_the_gate_costs_no_parameters(rung):
    mine, below = (sum(p.numel() for p in build(each, n_embd=96, n_head=6, vocab_size=500).parameters()) for each in (rung, rung.below))
    assert abs(mine / below - 1) < 0.02, (
        f'参数有 {mine:,} 个，v16 有 {below:,} 个，差了 {abs(mine / below - 1):.0%}，应不到 2 %：三个矩阵，中间的宽度是 8 * n_embd // 3。')


# v18: heads of keys and values that several heads of queries share

@pytest.mark.idea('n_kv_head 等于 n_head 时，就是 v17')
@pytest.mark.parametrize('rung', LADDER.since('v18')[:1])
def test_as_many_key_heads_as_query_heads_equal_v17(rung):
    with hint('n_kv_head 等于 n_head 时出错：每组就只有一个 query 头。'):
        mine, below = build(rung, n_kv_head=N_HEAD, seed=9), build(rung.below)
        more = root.copy_weights(below, mine)
        assert not more, f'n_kv_head 等于 n_head 时，参数应和 v17 一样，却多出了 {"、".join(sorted(more))}。'
        idx = random_ids(3, BLOCK_SIZE)
        assert torch.allclose(below(idx)[0], mine(idx)[0], atol=1e-5), 'n_kv_head 等于 n_head、权重相同时，得分应和 v17 相同，却不同。'


@pytest.mark.idea('要缓存的 key 和 value 缩小到 n_kv_head / n_head')
@from_rung('v18')
def test_the_cache_shrinks_by_the_ratio_of_heads(rung, expected):
    rows = {n: [len(getattr(build(rung, n_kv_head=n).blocks[0].sa, name).weight) for name in ('key', 'value')] for n in (1, 2, 4)}
    right = {n: [n * HEAD_SIZE] * 2 for n in (1, 2, 4)}
    assert (rows == right) == expected, (
        f'n_head 是 {N_HEAD}，n_kv_head 是 1、2、4 时，key 和 value 各应有 {"、".join(str(n * HEAD_SIZE) for n in right)} 个数，'
        f'却有 {"、".join(str(both) for both in rows.values())}：宽度是 n_kv_head * head_size，n_kv_head 要从参数传进来。'
        if expected else 'key 和 value 的宽度随 n_kv_head 变：那是 v18 的内容。')


@pytest.mark.idea('第 h 个 query 头用第 h // (n_head / n_kv_head) 个 key 头和 value 头')
@pytest.mark.parametrize('rung', LADDER.since('v18'))
def test_neighbouring_query_heads_share_a_head_of_keys_and_values(rung):
    for name in ('key', 'value'):
        for j in range(N_KV_HEAD):
            sa, x = showing(shaken(rung)), tagged(noise(1, HEAD_SIZE, N_EMBD))
            before = weights_in(sa(x))[0]
            with torch.no_grad():  # only the half of a pair: a norm would take a factor away again
                getattr(sa, name).weight[j * HEAD_SIZE] += 1
            moved = [h for h in range(N_HEAD) if not torch.allclose(before[h], weights_in(sa(x))[0, h], atol=1e-4)]
            assert moved == [*range(j * GROUP, (j + 1) * GROUP)], (
                f'n_head 是 {N_HEAD}，n_kv_head 是 {N_KV_HEAD}，改动第 {j} 个 {name} 头，应动第 {j * GROUP} 到 {(j + 1) * GROUP - 1} 个 query 头，'
                f'动的却是第 {"、".join(map(str, moved)) or "没有"} 个：相邻的 query 头合用一个，用 repeat_interleave。')


# v19: scores that stay bounded

@pytest.mark.idea('query 和 key 的矩阵放大多少倍，注意力的输出都不变')
@from_rung('v19')
def test_scores_stay_bounded_whatever_the_scale_of_query_and_key(rung, expected):
    for name in ('query', 'key'):
        sa, x = shaken(rung).blocks[0].sa, noise(2, BLOCK_SIZE, N_EMBD)
        before = sa(x)
        with torch.no_grad():
            getattr(sa, name).weight.mul_(100)
        same = torch.allclose(before, sa(x), atol=1e-3)
        assert same == expected, (
            f'{name} 的矩阵放大 100 倍，注意力的输出应不变，却变了：每个头的 q 和 k 都要先归一化，再旋转、点积。' if expected else
            f'{name} 的矩阵放大 100 倍，注意力的输出不变：那是 v19 的内容。')


@pytest.mark.idea('刚建好时，损失接近 ln V')
@ALL
def test_loss_starts_near_ln_vocab(rung):
    model = build(rung, vocab_size=1000, n_embd=64, n_layer=3)
    _, loss = model(random_ids(32, BLOCK_SIZE, vocab_size=1000), random_ids(32, BLOCK_SIZE, seed=2, vocab_size=1000))
    tied = model.lm_head.weight is model.token_embedding_table.weight and model.lm_head.weight.std() > 0.5
    assert abs(loss.item() - math.log(1000)) < 0.8, (
        f'1,000 个字的词表，还没有训练，损失应接近 ln 1000 ≈ 6.91（每个字一样可能），却是 {loss:.2f}：得分一开始就太大了。\n' + (
            f'合用的矩阵初始值太大，标准差是 {model.lm_head.weight.std():.2g}：那是 nn.Embedding 默认的。要用 nn.Linear 的，'
            '写 token_embedding_table.weight = lm_head.weight，不是反过来。' if tied else root.too_large(model)))


# v21: the same numbers, sooner

def kept_for_backward(model, idx):
    """How many bytes a training pass keeps until backward, beside the model itself; what is kept twice counts once."""
    kept, own = {}, {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        held.append(tensor)
        return tensor

    held = []  # so that no address is used twice
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(idx, idx)
    return sum(kept.values())


@pytest.mark.idea('训练时存下来的数随 T 增长，不随 T² 增长')
@from_rung('v21')
def test_what_training_keeps_grows_with_the_length_not_with_its_square(rung, expected):
    """Over equal steps of T, what is kept grows by equal steps where it is a line."""
    model = build(rung, block_size=192).train()
    kept = [kept_for_backward(model, random_ids(2, length)) for length in (64, 128, 192)]
    bend = (kept[2] - kept[1]) / (kept[1] - kept[0]) - 1
    assert (bend < 0.01) == expected, (
        f'一批 2 首，T 是 64、128、192 时，算到损失为止存下来等着求导的数有 {"、".join(f"{n:,}" for n in kept)} 字节：T 每多 64，应多出一样多，'
        f'后一次却比前一次多出 {bend:.0%}。T × T 的得分或者掩码还整张存着：注意力用 F.scaled_dot_product_attention，is_causal=True，不要自己给掩码。'
        if expected else '训练时存下来的数已经不随 T² 增长：那是 v21 的内容。')


@pytest.mark.idea('用 float32，损失和 v20 的一样')
@pytest.mark.parametrize('rung', LADDER.since('v21'))
def test_in_float32_the_losses_are_those_of_v20(rung):
    """All losses of a short run of main: the same characters, the same weights, the same steps."""
    mine, right = run_of(rung), run_of(LADDER['v20'])
    assert not any(on for _, on in mine.autocast), "precision 是 'float32' 时，训练仍在 autocast 里：enabled 要随 precision 而定。"
    assert mine.rows == right.rows, '每一步看的词和 v20 的不同：试速度用掉了随机数，要还回去（torch.random.fork_rng），或者取批变了。'
    far = max(abs(a - b) for a, b in zip(mine.seen['losses'], right.seen['losses'], strict=True))
    assert far < 1e-3, f'同样的种子，用 float32，各步的损失应和 v20 的相差不到 1e-3，却差到 {far:.2g}：先改好前面不成立的性质，再看 main 里有没有多走、少走一步。'


@pytest.mark.idea('用 bfloat16，训练在 autocast 里，评估和写词不在')
@from_rung('v21')
def test_in_bfloat16_only_training_is_cast(rung, expected):
    run = run_of(rung, precision='bfloat16')
    cast = {training: {on for trains, on in run.autocast if trains is training} for training in (True, False)}
    if not expected:
        assert cast[True] == {False}, '训练已经在 autocast 里：那是 v21 的内容。'
        return
    weights = {str(p.dtype) for p in run.seen['models'][-1].parameters()} - {'torch.float32'}
    assert not weights, f'参数成了 {"、".join(weights)}：参数和优化器仍是 float32，只有训练时的矩阵乘法在 torch.autocast 里换成 bfloat16，不要转换模型。'
    assert cast[True] == {True}, "precision 是 'bfloat16' 时，训练的 model(x, y) 应放在 with torch.autocast(……, torch.bfloat16) 里，却没有。"
    assert cast[False] == {False}, '评估或写词也放进了 autocast：它们仍用 float32，不同精度训练出的模型，损失才可比。'
    far = abs(run.seen['losses'][-1] - run_of(rung).seen['losses'][-1])
    assert far < 0.05, f'用 bfloat16，最后的训练损失和 float32 的差了 {far:.2g}，应几乎一样：只有精度不同，别的都不变。'


# v22: killed, and on it goes

OFTEN = {'eval_interval': 8, 'max_iters': 36}  # an epoch has six batches: a checkpoint falls into the middle of one


@cache
def killed_and_resumed(module, rung, options):
    """A run that is killed in its step 20, the run after it, and one that is never killed."""
    with tempfile.TemporaryDirectory() as folder:
        killed = Run(rung, folder=folder, killed_in=20, **OFTEN)
        return killed, Run(rung, options=options, folder=folder, **OFTEN), Run(rung, **OFTEN)


@pytest.mark.idea('被杀掉，再接着训练，和没有断过的一样')
@from_rung('v22')
def test_killed_and_resumed_it_does_what_it_would_have_done(rung, expected):
    """From the last checkpoint on: the same rates, rows and losses, and each tells what was not kept."""
    killed, resumed, whole = killed_and_resumed(module_of(rung), rung, ('--resume',) if expected else ())
    for run in (killed, resumed, whole):
        if run.error and not isinstance(run.error, Killed):
            raise AssertionError('接着训练的那一次没有走到最后：运行时加上 --resume，应从 checkpoint_path 那里的文件接着训练。') from run.error
    assert len(whole.rates) == OFTEN['max_iters'], f'没有断过的一次应走 max_iters = {OFTEN["max_iters"]} 步，却走了 {len(whole.rates)} 步。'
    assert isinstance(killed.error, Killed), '训练到第 20 步该被杀掉，却没有走到那里，或者把停下的信号咽了下去。'
    steps = len(resumed.rates)
    if not expected:
        assert steps == len(whole.rates), '接着训练，没有从头走：那是 v22 的内容。'
        return
    assert steps, '接着训练，一步也没有走：应从存下来的那一步走到 max_iters。'
    assert steps < len(whole.rates), f'加了 --resume，却从头走了 {steps} 步：应从 checkpoint 里记的那一步走起。'
    assert steps == 20, (f'每 8 步评估一次，第 20 步被杀，最近的 checkpoint 是第 16 步的，一共 36 步，应再走 20 步，却走了 {steps} 步：'
                         '每次评估之后都存 checkpoint，step 记的是走到了第几步。')
    assert resumed.rates == whole.rates[16:], '接着训练，学习率和没有断过的不一样：step 要接着数，get_lr 才接得上。'
    left = 2  # of the six batches of the third epoch
    assert resumed.rows[:left] == whole.rows[16:16 + left], (
        '接着训练，看的词和没有断过的不一样：这一轮里还没有看的各批（batches）也要存下来，不然有的词看两遍，有的一遍也没有。')
    first = abs(resumed.seen['losses'][0] - whole.seen['losses'][16])
    assert first < 1e-6, f'接着训练的第一步，同样的词，损失却和没有断过的差了 {first:.2g}：参数没有存对，或者没有装回去。'
    wrong = [i for i in range(left) if resumed.seen['losses'][i] != whole.seen['losses'][16 + i]]
    assert not wrong, ('接着训练的第二步，损失就和没有断过的不一样了：优化器为每个参数记的数也要存下来，optimizer.state_dict()，'
                       '再 load_state_dict() 装回去。')
    assert resumed.rows == whole.rows[16:], (
        '这一轮看完，下一轮的次序就和没有断过的不一样了：随机数生成器的状态也要存下来（torch.get_rng_state），在循环之前装回去，'
        '在它之后、循环之前不能再用随机数。')
    assert resumed.seen['losses'] == whole.seen['losses'][16:], '接着训练，后来的损失和没有断过的不一样，要一位不差：看看还有什么没有存下来。'
    assert resumed.seen['evaluated'] == whole.seen['evaluated'][-len(resumed.seen['evaluated']):], '接着训练，评估的损失和没有断过的不一样。'


@pytest.mark.idea('没有 checkpoint，就从头开始')
@pytest.mark.parametrize('rung', LADDER.since('v22'))
def test_without_a_checkpoint_it_begins_at_the_beginning(rung):
    run = Run(rung, options=['--resume'], **OFTEN)
    if run.error:
        raise AssertionError('还没有 checkpoint 就加了 --resume，没有走到最后：应说一句，从头开始，也许第一次存之前就被杀了。') from run.error
    assert len(run.rates) == OFTEN['max_iters'], f'还没有 checkpoint，加了 --resume，应从头走 {OFTEN["max_iters"]} 步，却走了 {len(run.rates)} 步。'


# v23: several processes, one model

SHARED = {'max_iters': 6, 'warmup_iters': 2, 'eval_interval': 6}
ODD = POEMS[:37]  # 33 to train on: 16, 16 and 1


def member(rung, folder, rank, number, port, batch_size):
    """Fork off a process of a run; what it did is left in a file."""
    file = Path(folder, f'{batch_size} {rank}')
    process = os.fork()
    if not process:
        with contextlib.suppress(BaseException):
            os.environ |= environment_of(rank, number, port) if number > 1 else {}
            own = Path(folder, f'{number} {rank}')
            own.mkdir()
            done = Run(rung, folder=own, poems=ODD, batch_size=batch_size, **SHARED)
            error = done.error and f'{type(done.error).__name__}: {done.error}'
            file.write_bytes(pickle.dumps((error, done.rows, done.raw, done.printed)))
        os._exit(0)
    return process, file


@cache
def two_and_one(module, rung):
    """[(error, rows, gradients, printed)] of two processes with batches of 8, and of one with batches of 16."""
    with tempfile.TemporaryDirectory() as folder:
        port, found = free_port(), []
        members = [member(rung, folder, 0, 2, port, 8), member(rung, folder, 1, 2, port, 8), member(rung, folder, 0, 1, port, 16)]
        for process, file in members:
            os.waitpid(process, 0)
            found.append(pickle.loads(file.read_bytes()) if file.exists() else ('一个进程没有走到最后', [], [], ''))
        return found


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='processes are forked off')
@pytest.mark.idea('两个进程各看 8 首，走的是一个进程看 16 首的每一步')
@from_rung('v23')
def test_two_processes_take_the_steps_of_one(rung, expected):
    """Of each step: the rows of both, the gradients of both, and those of one process with twice the batch."""
    (*_, rows, gradients, printed), (other_error, other_rows, other_gradients, other_printed), (error, alone, right, _) = two_and_one(module_of(rung), rung)
    if not expected:
        assert rows == other_rows, '两个进程看的词不同：那是 v23 的内容。'
        return
    first_error = two_and_one(module_of(rung), rung)[0][0]
    assert not error, f'不用 torchrun，应是一个进程，从头走到尾，却出了错：{error}'
    for step, (one, two, both) in enumerate(zip(rows, other_rows, alone, strict=False)):  # as far as they came
        together = sorted(one + two)
        if len(both) > 1:
            assert sorted(one) != sorted(two), f'第 {step + 1} 步，两个进程看的是同样的词，各算了一遍：每个进程只取自己的那一份，rows[rank::n_processes]。'
            assert together == sorted(both), (
                f'第 {step + 1} 步，两个进程合起来看的词，和一个进程看 16 首时的不同：一轮的批按 batch_size 乘进程数来排，次序由第 0 个进程定，'
                '每一行恰好在一个进程里。')
    apart = [step for step, (mine, theirs) in enumerate(zip(gradients, other_gradients, strict=False)) if not torch.allclose(mine, theirs, rtol=1e-3, atol=1e-5)]
    assert not apart, f'第 {apart[0] + 1} 步，两个进程的梯度不一样，模型就各走各的了：训练时要用 DistributedDataParallel 包起来的模型来算，它在 backward 时把梯度合起来。'
    assert not first_error and not other_error, (f'两个进程一起训练，没有走到最后：{first_error or other_error}。一轮的最后一批只有 1 首，'
                                                 '第二个进程一首也没有，也要跟着算、跟着通信，不然就停在那里。')
    wrong = [step for step, (mine, theirs) in enumerate(zip(gradients, right, strict=True))
             if not torch.allclose(mine, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())]
    times = (gradients[wrong[0]].norm() / right[wrong[0]].norm()).item() if wrong else 1
    assert not wrong, (f'第 {wrong[0] + 1} 步，梯度和一个进程看 16 首时的不同（长度是 {times:.2f} 倍）：各进程的字数不同，DDP 把各进程的梯度直接平均，要的是每个字的平均。'
                       '损失先乘上自己的字数 × 进程数 ÷ 总的字数，再 backward；一首也没有分到的进程，字数是 0。')
    assert '验证损失' in printed and '验证损失' not in other_printed, '打印、评估、保存只由第 0 个进程做，另一个进程也打印了损失。'


# The whole, held against an independent implementation of the same architecture.

def reference_logits(model, idx, rung):
    """From GPT-2's decoder (Radford et al. 2019, section 2.3) to Qwen3's (2025, section 2), as functions of the weights."""
    def norm(x, of):
        if reached(rung, 'v15'):
            return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * of.weight
        return F.layer_norm(x, x.shape[-1:], of.weight, of.bias)

    def linear(x, layer):
        return torch.einsum('...c,dc->...d', x, layer.weight) + (0 if layer.bias is None else layer.bias)

    def turn(x):
        """Each pair by its angle, place by place (Su et al. 2021, equation 34)."""
        if not reached(rung, 'v16'):
            return x
        half, out = HEAD_SIZE // 2, x.clone()
        for t in range(x.size(1)):
            for i in range(half):
                angle = t / 10000 ** (2 * i / HEAD_SIZE)
                out[:, t, :, i] = x[:, t, :, i] * math.cos(angle) - x[:, t, :, i + half] * math.sin(angle)
                out[:, t, :, i + half] = x[:, t, :, i + half] * math.cos(angle) + x[:, t, :, i] * math.sin(angle)
        return out

    x = model.token_embedding_table.weight[idx]
    if not reached(rung, 'v16'):
        x = x + model.position_embedding_table.weight[:idx.size(1)]
    for block in model.blocks:
        sa, ffwd, h = block.sa, block.ffwd, norm(x, block.ln1)
        q, k, v = (linear(h, layer).unflatten(-1, (-1, HEAD_SIZE)) for layer in (sa.query, sa.key, sa.value))
        if reached(rung, 'v19'):
            q, k = norm(q, sa.q_norm), norm(k, sa.k_norm)
        q, k = turn(q), turn(k)
        heads = []
        for head in range(N_HEAD):
            other = head * k.size(2) // N_HEAD
            heads.append(F.scaled_dot_product_attention(q[:, :, head], k[:, :, other], v[:, :, other], is_causal=True))
        x = x + linear(torch.cat(heads, -1), sa.proj)
        h = norm(x, block.ln2)
        if reached(rung, 'v17'):
            x = x + linear(F.silu(linear(h, ffwd.gate)) * linear(h, ffwd.up), ffwd.down)
        else:
            first, second = layers_of(ffwd)
            x = x + linear(torch.relu(linear(h, first)), second)
    return linear(norm(x, model.ln_f), model.lm_head)


@pytest.mark.idea('整个模型和另一种写法的一致')
@ALL
def test_model_equals_an_independent_implementation(rung):
    model, idx = shaken(rung, n_layer=3, dropout=0.5), random_ids(3, BLOCK_SIZE)
    with torch.no_grad():
        expected = reference_logits(model, idx, rung)
    assert torch.allclose(model(idx)[0], expected, atol=1e-4), '得分和照论文另写的模型不同：先改好前面不成立的性质，再看每一步是不是都用上了，而且只用了一次。'


# What main does with them

@pytest.mark.idea('每一行都从标题开始')
@from_rung('v13')
def test_every_row_begins_with_a_title(rung, expected):
    """The rows that main trains on; one that is longer than the block loses its end."""
    rows = [row for batch in run_of(rung).rows for row in batch]
    begins = [row.startswith(tuple(f'{tune} ' for tune in TUNES)) for row in rows]
    if not expected:
        assert not all(begins), '训练的每一行都从标题开始：那是 v13 的内容。'
        return
    wrong = next((row for row, right in zip(rows, begins, strict=True) if not right), '')
    cut = any(poem.endswith(wrong) for poem in POEMS)
    assert all(begins), f'训练的每一行都应从标题开始，却有一行从「{wrong[:8]}」开始：' + (
        '这首太长，截去了开头。太长的要截去后面，poem[:block_size + 1]。' if cut else '一行就是一首词。')
    longest = CONSTANTS['block_size'] + 1
    assert {row for row in rows} <= {poem[:longest] for poem in POEMS}, '训练的一行不是一首词：每一行应是从标题到空行的整首，太长的只留前 block_size + 1 个字。'


@pytest.mark.idea('填充里是什么，损失和梯度都不变')
@from_rung('v13')
def test_padding_changes_neither_loss_nor_gradient(rung, expected):
    """In batches that main trains on, put other characters behind the blank line that ends a poem."""
    model, same = build(rung, block_size=CONSTANTS['block_size']), []
    line_end = torch.tensor(sorted({*''.join(POEMS)}).index('\n'))
    for _, x, y in run_of(rung).seen['batches'][:6]:
        x, y = torch.tensor(x), torch.tensor(y)
        ended = (y[:, 1:] == line_end) & (y[:, :-1] == line_end)
        behind = F.pad(ended.long().cumsum(1) > 0, (2, 0))[:, :-1]
        if not behind.any():
            continue
        other = torch.where(behind, torch.randint(VOCAB - 1, x.shape), x)
        results = []
        for given in (x, other):
            loss = model(given, y)[1]
            results.append((loss.item(), torch.cat([part.flatten() for part in torch.autograd.grad(loss, [*model.parameters()])])))
        same.append(torch.allclose(results[0][1], results[1][1], atol=1e-6) and abs(results[0][0] - results[1][0]) < 1e-5)
    assert same, '训练的各批里，没有一行是写完一首、后面还有填充的：每一行应从标题到空行，短的后面填充到最长的一首。'
    assert all(same) == expected, (
        '空行之后换成别的字，损失或者梯度就变了：填充在 y 里应是 padding（F.cross_entropy 不计 -100），在 x 里排在词的后面，词里的字看不到它。'
        if expected else '空行之后换成别的字，损失和梯度都不变：那是 v13 的内容。')


@pytest.mark.idea('一轮里每首恰好看一次，下一轮换个次序')
@from_rung('v13')
def test_an_epoch_shows_each_poem_once(rung, expected):
    batches = run_of(rung).rows
    whole = {poem[:CONSTANTS['block_size'] + 1] for poem in TRAINING}
    size = -(-len(TRAINING) // CONSTANTS['batch_size'])
    epochs = [[row for batch in batches[i:i + size] for row in batch] for i in range(0, len(batches) - size + 1, size)]
    once = all(sorted(epoch) == sorted(whole) for epoch in epochs)
    if not expected:
        assert not once, '一轮里每首恰好看了一次：那是 v13 的内容。'
        return
    assert len({str(batch) for batch in batches[:3]}) > 1, '每一步用的都是同一批，反复学同样的几首：每一步要取下一批，batches.pop()。'
    strange = {row for batch in batches for row in batch} - whole
    assert not strange, f'训练用到了训练集之外的词（{next(iter(strange))[:6]}……），那是验证集的：训练的批只从 train_poems 里取，不然验证损失就不说明问题了。'
    assert once, (f'训练集有 {len(TRAINING)} 首，batch_size 是 {CONSTANTS["batch_size"]}，一轮有 {size} 批：每一轮里每首应恰好看一次，'
                  '却有的看了几次，有的没有看到。一轮的批都看完了，再排下一轮：batches = batches or make_batches(……)，每步 batches.pop()。')
    assert len({str(epoch) for epoch in epochs}) == len(epochs), '每一轮的次序都一样：下一轮要换个次序，make_batches 里不要设种子。'


@pytest.mark.idea('学习率先升后降')
@from_rung('v14')
def test_the_rate_rises_and_falls(rung, expected):
    """The rates that the optimizer is given at each step of main."""
    rate, warmup, steps = (CONSTANTS[name] for name in ('learning_rate', 'warmup_iters', 'max_iters'))
    rates = run_of(rung).rates
    assert all(len(each) == 1 for each in rates), '优化器里各组参数的学习率不一样：每一步都要设成 get_lr(……)，一组也不漏。'
    given, right = torch.tensor([max(each) for each in rates], dtype=torch.double), schedule(rate, warmup, steps)
    if not expected:
        assert (given == rate).all(), '每一步的学习率不一样：那是 v14 的内容。'
        return
    assert len(given) == steps, f'max_iters 是 {steps}，optimizer.step() 应调用 {steps} 次，却调用了 {len(given)} 次。'
    late = torch.cat([given.new_tensor([rate]), right[:-1]])
    mistake = differs('main 里的学习率', lambda: given / rate, lambda: right / rate, {
        '学习率一直没有变，每一步都是 learning_rate：更新参数之前，要把优化器每一组的 lr 设成 get_lr(step, ……)。': lambda: torch.ones_like(right),
        '学习率设得晚了一步：要在 optimizer.step() 之前设成这一步的 get_lr(step, ……)，第 1 步才不会用最高的学习率。': lambda: late / rate,
        '学习率早了一步：第 step 步用的应是 get_lr(step, ……)，step 从 0 数起。': lambda: torch.cat([right[1:], right.new_zeros(1)]) / rate,
        '学习率一直是 get_lr 在第 0 步的值：每一步都要重新设。': lambda: (right[:1] / rate).expand_as(right),
    }, lambda: f'第 0 步应是 {right[0]:.2g}，最高 {rate:.2g}，最后一步 {right[-1]:.2g}；看到的是 {given[0]:.2g}、{given.max():.2g}、{given[-1]:.2g}。'
        '每一步更新参数之前，设成 get_lr(step, learning_rate, warmup_iters, max_iters)。')
    assert not mistake, mistake


@pytest.mark.idea('用来更新的梯度，长度从不超过 1')
@from_rung('v14')
def test_no_gradient_applied_is_longer_than_1(rung, expected):
    """The gradients of main, made longer and shorter than they are: what the optimizer applies is never longer than 1."""
    run = run_of(rung)
    long = [used.norm() for used in run.applied if used.norm() > 1.001]
    if not expected:
        assert long, '用来更新的梯度，长度从不超过 1：那是 v14 的内容。'
        return
    mistake = clipping_mistake(run.raw, run.applied, [p.numel() for p in run.seen['models'][-1].parameters()])
    assert not mistake, mistake
    assert not long, f'用来更新参数的梯度，合起来的长度有 {max(long):.2g}，应不超过 1。'
