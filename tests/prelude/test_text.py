"""v5 and v6: what a recurrent network carries from character to character, how that fades, and what an embedding is.

Tests that are marked with an idea judge a learner's rung, too, and say in Chinese what a failure means. Those at the
end are about our scripts alone.
"""

import copy
import re
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from kit.ladders import LADDERS
from kit.scripts import build, continuations, install, load, losses, module_of, run
from kit.shapes import Tracer
from kit.source import pieces, with_constants
from tests.root import models, test_concepts, test_skeleton
from tests.root.diagnosis import alike, differs
from tests.root.models import BLOCK_SIZE, noise, random_ids, shaken

LADDER = LADDERS['prelude']
V1, V5, V6 = LADDERS['root']['v1'], LADDER['v5'], LADDER['v6']
BOTH = pytest.mark.parametrize('rung', [V5, V6])
SIZES = V6.contract['sizes']
V = SIZES['vocab_size']
assert all(random_ids(9, 9).unique().numel() <= rung.contract['sizes']['vocab_size'] == V for rung in (V5, V6))


# What v1 has already

class AsV1(models.Guest):
    """It has what v1 has, and nothing that comes after."""

    def reached(self, name):
        return name == 'v1'


def shared(test, rungs=(V5, V6)):
    """A test of the root, of the rungs here."""
    return models.shared(test, rungs, AsV1)


test_tokenizer = shared(test_skeleton.test_tokenizer)
test_tokenizer_names_the_characters_it_does_not_know = shared(test_skeleton.test_tokenizer_names_the_characters_it_does_not_know)
test_batches_are_pieces_of_the_data_with_the_next_token_as_target = shared(
    test_skeleton.test_batches_are_pieces_of_the_data_with_the_next_token_as_target)
test_batches_reach_both_ends_of_the_data_and_differ = shared(test_skeleton.test_batches_reach_both_ends_of_the_data_and_differ)


@pytest.mark.idea('每次读，都从头读起')
@BOTH
def test_calls_are_strangers(rung):
    """What is the same for copies of a model, and not for one model that is asked twice, is kept in the model."""
    model, idx = build(rung), random_ids(3, BLOCK_SIZE)
    first, other = (copy.deepcopy(model)(idx)[0] for _ in range(2))
    model(idx)
    assert not alike(first, other) or alike(model(idx)[0], first), (
        '同样的文字读两次，得分不同：隐藏状态从上一次留到了这一次。h 是 forward 里的一个变量，每次从 0 开始，不要存成 self.……。')


test_deterministic_in_eval_mode = shared(test_concepts.test_deterministic_in_eval_mode)


# Each part, from the inside out

def shapes_of(rung):
    """{name: shape} of every parameter."""
    sizes = rung.contract['sizes']
    width, hidden = sizes.get('n_embd', V), sizes['n_hidden']
    table = {'token_embedding_table.weight': (V, width)} if rung is V6 else {}
    return table | {'cell.input.weight': (hidden, width), 'cell.input.bias': (hidden,), 'cell.hidden.weight': (hidden, hidden),
                    'lm_head.weight': (V, hidden), 'lm_head.bias': (V,)}


@pytest.mark.idea('各个部分各有自己的参数，一个不多，一个不少')
@BOTH
def test_parameters_are_those_of_the_rung(rung):
    there, expected = {name: tuple(value.shape) for name, value in build(rung).named_parameters()}, shapes_of(rung)
    what = dict(rung.parts)
    for name, shape in expected.items():
        owner, kind = name.rsplit('.', 1)
        assert name in there, f'少了参数 {name}：{owner} 应是{what[owner]}，带着可学的 {kind}。'
        assert there[name] == shape, f'{name} 的形状应是 {shape}，却是 {there[name]}：{owner} 应是{what[owner]}。'
    more = sorted(there.keys() - expected.keys())
    assert not more, f'多出了参数 {"、".join(more)}：hidden 没有偏置，一个偏置够了，在 input 里；别的也不需要。'


def inputs_of(model, idx):
    """What the cell reads: one-hot characters, or rows of the table."""
    table = getattr(model, 'token_embedding_table', None)
    return F.one_hot(idx, V).float() if table is None else table.weight[idx]


def theirs(model, kind=nn.RNN):
    """PyTorch's own layer with the weights of a model's cell."""
    own = model.cell
    layer = kind(own.input.in_features, own.hidden.in_features, batch_first=True)
    zeros = torch.zeros_like(layer.bias_hh_l0)
    given = {'weight_ih_l0': own.input.weight, 'bias_ih_l0': own.input.bias, 'weight_hh_l0': own.hidden.weight,
             'bias_hh_l0': zeros if own.hidden.bias is None else own.hidden.bias}
    return lambda x: torch.func.functional_call(layer, given, (x,))[0]


def carried(cell, x, step=lambda wx, uh: torch.tanh(wx + uh), weight=None, before=False, keep=False, rows=False, detached=False):
    """The states of a recurrent network as they should be by default (Elman 1990); each argument can be got wrong."""
    wx = cell.input(x)  # (B, T, n_hidden)
    weight = cell.hidden.weight.T if weight is None else weight
    h, found = torch.zeros_like(wx[:1, 0] if rows else wx[:, 0]), []
    for row in wx.split(1) if rows else [wx]:
        states = []
        for t in range(row.size(1)):
            new = step(row[:, t], (h.detach() if detached else h) @ weight)
            new = h + new if keep else new
            states.append(h if before else new)
            h = new
        found.append(torch.stack(states, 1))
    return torch.cat(found)


def recurrence_mistakes(model, idx):
    """{what to say: what the mistake predicts}"""
    cell, x = model.cell, inputs_of(model, idx).detach()
    states = {
        '隐藏状态没有带下去：每个字都从全是 0 的 h 读起，读过的全忘了。h 只在循环之前设一次，循环里用上一步得到的 h。':
            lambda: torch.tanh(cell.input(x)),
        '隐藏状态从上一段带到了下一段：一批里的各段互不相干，h 的形状是 (B, n_hidden)，每段各有自己的 h，都从 0 开始。':
            partial(carried, cell, x, rows=True),
        '循环走错了方向：沿着批走，把第 1 段的 h 交给了第 2 段。循环要沿着 T 走，每一步取 wx[:, t]，一次读各段的第 t 个字。':
            lambda: carried(cell, x.transpose(0, 1)).transpose(0, 1),
        '从右往左读了：猜下一个字时，已经看过了后面的字。循环从第 0 个字走到最后一个。': lambda: carried(cell, x.flip(1)).flip(1),
        '从右往左读，放回去时又没有倒过来：循环从第 0 个字走到最后一个。': lambda: carried(cell, x.flip(1)),
        '存下来的是读这个字之前的 h，晚了一步：先算出新的 h，再存。': partial(carried, cell, x, before=True),
        '各个位置用的都是最后的 h：每读一个字存一个 h，lm_head 读的是 (B, T, n_hidden)。':
            lambda: carried(cell, x)[:, -1:].expand(-1, x.size(1), -1),
        '少了 tanh：没有它，读多少个字都只是一个线性变换，h 也会越来越大。': partial(carried, cell, x, step=lambda wx, uh: wx + uh),
        'tanh 换成了 sigmoid：h 只能是正的，和这里的公式不同。': partial(carried, cell, x, step=lambda wx, uh: torch.sigmoid(wx + uh)),
        'tanh 换成了 ReLU，和这里的公式不同。': partial(carried, cell, x, step=lambda wx, uh: torch.relu(wx + uh)),
        'tanh 只套在 hidden(h) 上：应是 tanh(input(x) + hidden(h))，加好了再 tanh。': partial(carried, cell, x, step=lambda wx, uh: wx + torch.tanh(uh)),
        'tanh 只套在 input(x) 上：应是 tanh(input(x) + hidden(h))，加好了再 tanh。': partial(carried, cell, x, step=lambda wx, uh: torch.tanh(wx) + uh),
        'input(x) 和 hidden(h) 应相加，却乘在了一起。': partial(carried, cell, x, step=lambda wx, uh: torch.tanh(wx * uh)),
        '旧的 h 又直接加了一遍：新的 h 就是 tanh(input(x) + hidden(h))，旧的 h 只经过 hidden。': partial(carried, cell, x, keep=True),
        'hidden 的矩阵乘反了：nn.Linear 乘的是 weight 的转置，直接调用 self.hidden(h) 就行。': partial(carried, cell, x, weight=cell.hidden.weight),
    }
    return {said: lambda compute=compute: model.lm_head(compute()) for said, compute in states.items()}


@pytest.mark.idea('循环：h = tanh(W x + U h + b)')
@BOTH
def test_it_is_the_recurrent_network_of_pytorch(rung):
    """Held against nn.RNN with the same weights, derivatives included."""
    model, idx = shaken(rung), random_ids(3, BLOCK_SIZE)
    mistake = differs('模型', lambda: model(idx)[0], lambda: model.lm_head(theirs(model)(inputs_of(model, idx))),
                      recurrence_mistakes(model, idx),
                      lambda: '应从全是 0 的 h 开始，每读一个字，h = tanh(cell.input(x) + cell.hidden(h))；读完这个字的 h，经过 lm_head 就是得分。'
                      + ('' if rung is V5 else 'x 是这个字在 token_embedding_table 里的那一行。'), dict(model.named_parameters()))
    assert not mistake, mistake


@pytest.mark.idea('各段互不相干，各次也互不相干')
@BOTH
def test_rows_and_calls_are_strangers(rung):
    model, idx = shaken(rung), random_ids(3, BLOCK_SIZE)
    together = model(idx)[0]
    assert alike(model(idx)[0], together), (
        '同样的文字读两次，得分不同：隐藏状态从上一次留到了这一次。h 是 forward 里的一个变量，每次从 0 开始，不要存成 self.……。')
    for row in range(3):
        assert alike(model(idx[row:row + 1])[0], together[row:row + 1]), (
            f'第 {row + 1} 段单独读，和放在一批里读，得分不同：各段之间漏了东西，每一段要有自己的 h，都从 0 开始。')
    assert alike(model(idx[:, :4])[0], together[:, :4]), '只给前 4 个字，前 4 个预测应当不变。'


@pytest.mark.idea('同一个字，前面读过的不同，预测就不同')
@pytest.mark.parametrize('rung, expected', [(V1, False), (V5, True), (V6, True)])
def test_the_same_character_after_two_histories_gives_two_predictions(rung, expected):
    """Two texts that end alike; however far back they differ, the last prediction knows it, and in v1 never does."""
    model, idx = build(rung), random_ids(2, BLOCK_SIZE)
    for position in range(BLOCK_SIZE - 1):
        other = idx.clone()
        other[:, position] = (other[:, position] + 1) % V
        difference = (model(idx)[0][:, -1] - model(other)[0][:, -1]).abs().max()
        assert (difference > 1e-6) == expected, (
            f'一段 {BLOCK_SIZE} 个字，换掉第 {position + 1} 个，最后一个预测却不变：h 没有从那里一路带到最后。' if expected
            else 'v1 只看最后一个字。')


test_logits_never_depend_on_later_tokens = shared(test_concepts.test_logits_never_depend_on_later_tokens)
test_forward_keeps_its_contract = shared(test_concepts.test_forward_keeps_its_contract)
test_loss_starts_near_ln_vocab = shared(test_concepts.test_loss_starts_near_ln_vocab)
test_every_parameter_gets_a_gradient = shared(test_skeleton.test_every_parameter_gets_a_gradient)
test_generate_appends_tokens = shared(test_concepts.test_generate_appends_tokens)
test_generate_samples_what_the_last_position_predicts = shared(test_concepts.test_generate_samples_what_the_last_position_predicts)


# v6: characters as learned vectors

@pytest.mark.idea('每个字有自己的一行数')
@pytest.mark.parametrize('rung, expected', [(V5, False), (V6, True)])
def test_a_character_is_a_row_of_a_table(rung, expected):
    """Change the row of one character: the predictions change from where it was read on, and nowhere else."""
    model, idx = build(rung), random_ids(3, BLOCK_SIZE)
    table = getattr(model, 'token_embedding_table', None)
    assert (table is not None) == expected, '还没有嵌入，那是 v6 的内容。' if not expected else '没有 token_embedding_table。'
    if not expected:
        return
    before = model(idx)[0].detach()
    for i in idx.unique().tolist():
        with torch.no_grad():
            kept = table.weight[i].clone()
            table.weight[i] += 1
            changed = ((model(idx)[0] - before).abs().amax(-1) > 1e-6)
            table.weight[i] = kept
        read = (idx == i).cumsum(1) > 0
        assert torch.equal(changed, read), (
            f'改动 token_embedding_table 的第 {i} 行，应只有读过第 {i} 号字之后的预测会变，却不是：'
            '交给 cell 的，应是按字的编号取出的那一行，token_embedding_table(idx)。')


@pytest.mark.idea('查表，不再乘独热')
@pytest.mark.parametrize('rung, expected', [(V5, False), (V6, True)])
def test_reading_costs_nothing_that_grows_with_the_vocabulary(rung, expected):
    """Multiplications of one pass, lm_head aside: with twice the characters they are as many as before, or more."""
    counts = []
    for size in (40, 80):
        model = build(rung, vocab_size=size)
        model.lm_head = nn.Linear(model.lm_head.in_features, V)  # it costs more, too, but on every rung
        with FlopCounterMode(display=False) as counter:
            model(random_ids(3, BLOCK_SIZE))
        counts.append(counter.get_total_flops())
    assert (counts[0] == counts[1]) == expected, (
        f'词表大一倍，读同样的字，乘法从 {counts[0]:,} 次变成了 {counts[1]:,} 次：还在拿 V 个数乘矩阵。'
        '查表，token_embedding_table(idx)，取的是一行，词表多大都一样快。' if expected else 'v5 用的是独热，还没有查表。')


@pytest.mark.idea('近邻：余弦最大的几个，不算它自己', rung='v6')
def test_neighbours_are_those_of_the_largest_cosine():
    neighbours, table = module_of(V6).neighbours, noise(12, 5)
    with torch.no_grad():
        table *= torch.arange(1, 13)[:, None]  # long and short ones: the product is not the cosine
    cosines = F.cosine_similarity(table[:, None], table[None], dim=-1)
    measures = {  # {what to say: by what the rows were ordered, the largest first}
        '余弦越大越近，这里却把最小的排在前面。': -cosines,
        '除以的是每一列的长度（dim=0）：一个字是一行，每一行除以自己的长度，F.normalize(table, dim=-1)。': F.normalize(table, dim=0) @ F.normalize(table, dim=0).T,
        '只有一边除以了长度，除的还是自己的，别的行没有除：两边都要除。': F.normalize(table, dim=-1) @ table.T,
        '找的是内积最大的：长的向量内积就大，和方向无关。先各除以自己的长度（F.normalize），再求内积。': table @ table.T,
        '找的是距离最小的：长短不同，方向再接近，距离也大。这里要的是余弦。': -torch.cdist(table, table),
        '把它自己也算进去了：和自己的余弦总是 1，要去掉。': cosines,
    }
    for i in (0, 3, 11):
        found = list(map(int, neighbours(table, i, 4)))
        right = cosines[i].argsort(descending=True)[1:5].tolist()
        said = '两行的余弦，是各除以自己的长度之后的内积，在 n_embd 个数上求和；从大到小排，取前 k 个别的行。'
        for what, measure in measures.items():
            order = measure[i].argsort(descending=True).tolist()
            if found in (order[:4], order[1:5], [j for j in order if j != i][:4]):
                said = what
        assert found == right, f'第 {i} 行的 4 个近邻应是 {right}，却是 {found}。{said}'


# A short run

@pytest.mark.idea('main 训练、打印损失、续写')
@BOTH
def test_main_trains_prints_and_writes(rung, monkeypatch, tmp_path, capsys, small_corpus, request):
    test_skeleton.test_main_trains_prints_and_writes(AsV1(rung), monkeypatch, tmp_path, capsys, small_corpus, request)


test_evaluation_is_the_mean_loss_in_eval_mode_without_gradients = shared(
    test_skeleton.test_evaluation_is_the_mean_loss_in_eval_mode_without_gradients)
test_evaluation_is_repeatable_and_leaves_training_alone = shared(
    test_skeleton.test_evaluation_is_repeatable_and_leaves_training_alone)


# Our scripts: the cells

def with_gru(rung):
    """A model of a rung with the one line switched."""
    module = load(rung.path, rung.edited('GRU'))
    torch.manual_seed(0)
    model = module.CharRNN(**rung.contract['sizes'])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * (parameter.size(-1) ** -0.5 if parameter.dim() > 1 else 0.5))
    return module, model


@BOTH
def test_the_switch_of_one_line_makes_it_the_gru_of_pytorch(rung):
    """Derivatives included."""
    module, model = with_gru(rung)
    assert type(model.cell) is module.GRUCell and type(module_of(rung).CharRNN(**rung.contract['sizes']).cell) is not module.GRUCell
    idx = random_ids(3, BLOCK_SIZE)
    losses = [F.cross_entropy(logits.flatten(0, 1), idx.flatten()) for logits in
              (model(idx)[0], model.lm_head(theirs(model, nn.GRU)(inputs_of(model, idx))))]
    torch.testing.assert_close(*losses, atol=1e-5, rtol=0)
    torch.testing.assert_close(model(idx)[0], model.lm_head(theirs(model, nn.GRU)(inputs_of(model, idx))), atol=1e-5, rtol=0)
    gradients = [torch.autograd.grad(loss, [*model.parameters()], retain_graph=True) for loss in losses]
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=0)


@BOTH
def test_a_gate_can_leave_the_state_as_it_is(rung):
    """What the GRU can do and the plain cell can't: with z at 1, nothing that is read gets in."""
    _, model = with_gru(rung)
    n, h = SIZES['n_hidden'], noise(3, SIZES['n_hidden'])
    with torch.no_grad():
        model.cell.input.bias[n:2 * n] = 50
    wx = model.cell.input(inputs_of(model, random_ids(3, 1)[:, 0]))
    torch.testing.assert_close(model.cell(wx, h), h)
    plain = build(rung).cell
    assert (plain(wx[:, :n], h) - h).abs().max() > 0.1


# Our scripts: how far the gradient reaches

@BOTH
def test_gradient_norms_are_those_of_each_row_alone(rung):
    """Row by row, through PyTorch's own network."""
    model, idx, targets = shaken(rung), random_ids(4, 9), random_ids(4, 9, seed=2)
    norms = []
    for row in range(4):
        x = inputs_of(model, idx[row:row + 1]).detach().requires_grad_()
        loss = F.cross_entropy(model.lm_head(theirs(model)(x)[:, -1]), targets[row:row + 1, -1])
        norms.append(torch.autograd.grad(loss, x)[0][0].norm(dim=-1))
    found = module_of(rung).gradient_norms(model, idx, targets)
    torch.testing.assert_close(found, torch.stack(norms).mean(0), atol=1e-6, rtol=1e-4)
    assert all(parameter.grad is None for parameter in model.parameters())


@BOTH
def test_the_gradient_fades_with_distance(rung):
    """Each step back it is shorter, at the beginning and when the network has learned that the past matters."""
    model = build(rung, vocab_size=12)
    module, text = module_of(rung), torch.randint(12, (2000,))
    for start in range(2, 2000):
        if start % 3:
            text[start] = (text[start - 2] + 1) % 12  # two of three characters follow from the last but one
    for _ in range(2):
        norms = module.gradient_norms(model, *module.get_batch(text, 64, 16)).flip(0)  # from near to far
        assert norms.shape == (16,) and (norms > 0).all()
        far = norms[3:]
        assert (far[1:] < far[:-1]).all() and norms[15] < norms[:3].max() / 30, norms
        learn(model, module, text, steps=60)


def learn(model, module, data, steps, rate=1e-2):
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for _ in range(steps):
        loss = model(*module.get_batch(data, 16, 16))[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


# Our scripts: the embedding

def test_the_table_gives_the_numbers_of_the_one_hot_product():
    """A row of the table is the product of a one-hot character with it; v5 with both matrices in one is v6."""
    v5, v6, idx, targets = build(V5), shaken(V6), random_ids(3, BLOCK_SIZE), random_ids(3, BLOCK_SIZE, seed=2)
    table = v6.token_embedding_table.weight
    torch.testing.assert_close(v6.token_embedding_table(idx), F.one_hot(idx, V).float() @ table, atol=1e-6, rtol=0)
    given = {name: value for name, value in v6.state_dict().items() if name != 'token_embedding_table.weight'}
    given['cell.input.weight'] = (v6.cell.input.weight @ table.T).detach()
    v5.load_state_dict(given)
    for mine, other in zip(v5(idx, targets), v6(idx, targets), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=0)


def test_characters_used_alike_become_neighbours():
    """Characters 0 to 9 come in a ring, and each is written now as i, now as i + 10: after training i + 10 is next to i."""
    torch.manual_seed(0)
    data = torch.arange(4000) % 10 + 10 * torch.randint(2, (4000,))
    module, model = module_of(V6), build(V6, vocab_size=20)

    def pairs():
        return sum(module.neighbours(model.token_embedding_table.weight.detach(), i, 1) == [(i + 10) % 20] for i in range(20))

    assert pairs() < 5
    learn(model, module, data, steps=80)
    assert pairs() == 20


# Our scripts: run

@BOTH
def test_what_is_kept_of_v1_is_kept_to_the_byte(rung):
    """The classes have another name, but these parts are the same."""
    ours, root = pieces(rung.source), pieces(V1.source)
    assert ours['CharRNN'].replace('CharRNN', 'BabyGPT') == root['BabyGPT'] and ours['CharRNN.generate'] == root['BabyGPT.generate']
    assert set(ours['CharRNN.forward'].splitlines()) >= set(root['BabyGPT.forward'].splitlines()) - {
        '        x = self.token_embedding_table(idx)  # (B, T, n_embd)'}


SHORT = {'max_iters': 4, 'eval_interval': 2, 'eval_iters': 1, 'max_new_tokens': 10}


@pytest.mark.parametrize('rung, cell', [(V5, 'RNN'), (V6, 'GRU')])
def test_a_run_ends_with_what_there_is_to_see(rung, cell, tmp_path, small_corpus):
    script = install(rung.path, tmp_path, 8 * small_corpus, **SHORT)  # so that characters occur often enough
    if cell == 'GRU':
        script.write_text(with_constants(rung.edited('GRU'), **SHORT), encoding='utf-8')
    result = run(script, '--plot', tmp_path / 'gradient.png')
    assert result.returncode == 0 and not result.stderr, result.stderr
    assert (tmp_path / 'gradient.png').read_bytes().startswith(b'\x89PNG')
    printed = result.stdout
    assert [step for step, *_ in losses(printed)] == [0, 2, 4]
    norms = re.findall(r'^往前数第 +(\d+) 个字  (\d\.\d{6})$', printed, flags=re.MULTILINE)
    assert [int(distance) for distance, _ in norms] == [1, 2, 4, 8, 16, 32]
    assert float(norms[0][1]) > float(norms[2][1]) > 0
    near = re.findall(r'^([春酒江])  (.(?: .){7})$', printed, flags=re.MULTILINE)
    assert ''.join(char for char, _ in near) == ('春酒江' if rung is V6 else '')
    often = {char for char in set(small_corpus) if 8 * small_corpus.count(char) >= 200}
    assert all(char not in others[::2] and len(set(others[::2])) == 8 and set(others[::2]) <= often for char, others in near)
    assert [poem[:2] for poem in continuations(printed)] == ['春江', '往事']
    assert {len(poem.rstrip('\n')) for poem in continuations(printed)} <= {10, 11, 12}


@pytest.mark.parametrize('rung, fault', [(V5, 'missing'), (V5, 'too short'), (V6, 'too short')])
def test_a_corpus_that_cannot_be_used_is_explained(rung, fault, tmp_path):
    """read_text is that of v1, to the byte (tests/test_diffs.py): this shows that it is called, with the right path."""
    script, corpus = install(rung.path, tmp_path, '春江往事。\n' * 8), tmp_path / 'ci.txt'
    if fault == 'missing':
        corpus.unlink()
    result = run(script)
    assert result.returncode not in (0, None) and not result.stdout
    [line] = result.stderr.splitlines()
    assert str(corpus) in line


# Our scripts: shapes

B, T = 8, 2
SYMBOLS = {'B': B, 'T': T} | {'V': V} | SIZES


@BOTH
def test_shapes_are_as_the_comments_say(rung, monkeypatch, tmp_path):
    """With both cells, first in parts and then as a whole; the switch moves no line."""
    monkeypatch.setattr('sys.argv', [rung.path])
    tracer, chars = None, '春江往事酒' + ''.join(map(chr, range(0x4e00, 0x4e00 + V - 5)))
    (tmp_path / 'ci.txt').write_text(chars * 20, encoding='utf-8')
    for source in (rung.source, rung.edited('GRU')):
        module = load(rung.path, source)
        tracer = tracer or Tracer(module.__file__)
        small = SIZES | {'batch_size': B, 'block_size': T, 'max_iters': 1, 'eval_interval': 1, 'eval_iters': 1,
                         'max_new_tokens': 1, 'prompts': [chars[:T]], 'data_path': tmp_path / 'ci.txt'}
        for name, value in small.items():
            if hasattr(module, name):
                setattr(module, name, value)
        model, ids = module.CharRNN(**rung.contract['sizes']), torch.randint(V, (B, T))
        with tracer:
            module.gradient_norms(model, ids, ids)
            model.generate(ids, 1)
            module.main()
    assert not tracer.faults(SYMBOLS)
