"""What every rung shares: tokenizer, batches, evaluation; and the bigram models before the ladder."""

import math
import re
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from kit.judge import hint
from kit.ladders import LADDERS
from kit.scripts import build, load, module_of, script_of

LADDER = LADDERS['root']


@pytest.mark.idea('字和编号互换')
@pytest.mark.parametrize('rung', LADDER.numbered)
def test_tokenizer(rung):
    tokenizer = module_of(rung).Tokenizer('往事知多少，往事。\n')
    assert tokenizer.vocab_size == 8, f'「往事知多少，往事。」加一个换行，有 8 个不同的字，vocab_size 却是 {tokenizer.vocab_size}。'
    assert tokenizer.decode(range(8)) == ''.join(sorted('往事知多少，。\n')), '编号应按字的 Unicode 次序，从 0 开始。'
    ids = tokenizer.encode('少多\n')
    assert all(type(i) is int for i in ids), 'encode 应返回整数（int）的列表。'
    assert tokenizer.decode(ids) == '少多\n', 'encode 再 decode，应得到原来的文字。'
    assert tokenizer.encode('') == [] and tokenizer.decode([]) == '', '空的文字对应空的列表。'


@pytest.mark.idea('遇到不认识的字，说出是哪些')
@pytest.mark.parametrize('rung', LADDER.numbered)
def test_tokenizer_names_the_characters_it_does_not_know(rung):
    try:
        module_of(rung).Tokenizer('往事').encode('往A事Z')
    except ValueError as error:
        said = str(error)
    else:
        said = ''
    assert 'A' in said and 'Z' in said and '往' not in said, (
        '词表里只有「往事」，encode 遇到「往A事Z」应引发 ValueError，说出不认识的是 A 和 Z。')


@pytest.mark.idea('y 是 x 往后错一个字')
@pytest.mark.parametrize('rung', LADDER.numbered)
def test_batches_are_pieces_of_the_data_with_the_next_token_as_target(rung):
    data = torch.randperm(100)  # each value once, so a token tells its place
    place = torch.empty_like(data)
    place[data] = torch.arange(100)
    x, y = module_of(rung).get_batch(data, 64, 9)
    assert x.shape == y.shape == (64, 9) and x.dtype == y.dtype == torch.int64, (
        f'x 和 y 都应是 (batch_size, block_size) 的 int64，这里是 (64, 9)，却是 {tuple(x.shape)} 和 {tuple(y.shape)}。'
        'y 的每个位置都是 x 同一位置的下一个字。')
    assert (place[x].diff(dim=1) == 1).all(), 'x 的每一行应是文本里连续的一段。'
    shifts = place[y] - place[x]
    shift = shifts.unique().tolist()
    assert shift != [-1], 'x 和 y 对调了：y 的每个位置是 x 的前一个字，应是下一个字。'
    assert shift != [0], 'y 和 x 一样：y 的每个位置应是 x 同一位置的下一个字，要往后错一个字。不错开，模型只学会照抄。'
    wrong = [i for i, column in enumerate(shifts.unbind(1)) if (column != 1).any()]
    which = '' if len(wrong) in (0, 9) else f'只有第 {"、".join(str(i + 1) for i in wrong)} 个位置不对：'
    copied = [j for j in range(9) if wrong and (y[:, wrong[0]] == x[:, j]).all()]
    assert shift == [1], (
        f'y 的每个位置应是 x 同一位置的下一个字（往后 1 个），一段有 9 个字，{which}却是往后 '
        f'{"、".join(map(str, shifts[:, wrong].unique().tolist()[:5]))} 个'
        + (f'（放的是 x 的第 {copied[0] + 1} 个字，应是文本里这一段之后的字）' if which and copied else '') + '。')


@pytest.mark.idea('取批时，文本的头和尾都取得到')
@pytest.mark.parametrize('rung', LADDER.numbered)
def test_batches_reach_both_ends_of_the_data_and_differ(rung):
    data = torch.arange(12)
    starts = [module_of(rung).get_batch(torch.arange(10_000), 32, 9)[0][:, 0] for _ in range(2)]
    assert len(starts[0].unique()) > 1, '一批里的每一行都从同一个起点取：每一行要有自己随机的起点。'
    assert not torch.equal(*starts), '每次取到的起点都一样：起点要随机（torch.randint），训练才看得到文本的各处。'
    with hint('文本只比 block_size 长一点时，取批出错：能取的起点有 len(data) - block_size 个。'):
        x, y = module_of(rung).get_batch(data, 500, 9)
    assert set(x[:, 0].tolist()) == {0, 1, 2} and y.max() == 11, (
        '12 个字里取 9 个字的一段（y 还要多一个），起点可以是 0、1、2，'
        f'却取到了 {"、".join(map(str, x[:, 0].unique().tolist()))}：torch.randint 的上限不包括在内。')
    with hint('只有一个起点可取时出错：能取的起点有 len(data) - block_size 个。'):
        x, y = module_of(rung).get_batch(torch.arange(10), 5, 9)
    assert (x[:, 0] == 0).all() and (y[:, -1] == 9).all(), '只有一个起点可取时，应都从头取。'


def ignored_generator(module):
    """That get_batch takes a generator and draws without it, in Chinese, or nothing."""
    try:
        first, again = (module.get_batch(torch.arange(10_000), 8, 9, torch.Generator().manual_seed(0))[0] for _ in range(2))
    except TypeError:
        return ''
    return '' if torch.equal(first, again) else (
        '\n看到的是：get_batch 收下了一个 generator，种子相同，取出的批却不同，它没有用上：torch.randint(……, generator=generator)。')


def evaluate(rung, model, train, val):
    return module_of(rung).estimate_loss(model, train, val, eval_iters=3, batch_size=4, block_size=5)


@pytest.mark.idea('评估是 eval 模式下几批的平均，不求导')
@pytest.mark.parametrize('rung', LADDER.numbered)
def test_evaluation_is_the_mean_loss_in_eval_mode_without_gradients(rung):
    model = build(rung, dropout=0.5).train()
    data, seen, batches = torch.randint(29, (300,), generator=torch.Generator().manual_seed(1)), [], []

    def record(module, args, output):
        batches.append(args[0].tolist())
        seen.append((module.training, torch.is_grad_enabled(), output[1].item()))

    model.register_forward_hook(record)
    losses = evaluate(rung, model, data, data)
    assert len(seen) == 6, f'eval_iters=3，训练集和验证集各看 3 批，模型应算 6 次，却算了 {len(seen)} 次。'
    assert not any(training for training, *_ in seen), '评估时模型还在 train 模式：先 model.eval()，dropout 才会停下。'
    assert not any(grad for _, grad, _ in seen), '评估时还在为求导做准备：加上 @torch.no_grad()，又快又省内存。'
    assert all(len(batch) == 4 and len(batch[0]) == 5 for batch in batches), (
        'batch_size=4、block_size=5 时，评估的每一批应是 4 段、每段 5 个字，却有 '
        f'{len(batches[0])} 段、{len(batches[0][0])} 个字的：get_batch 要给这两个参数。')
    assert batches[0] != batches[1], (
        '一次评估里看的是同一批，看了 eval_iters 遍：要取 eval_iters 个不同的批，再求平均。生成器在循环之前建一次。')
    each = [loss for *_, loss in seen[:3]]
    assert losses['train'] == pytest.approx(sum(each) / 3), (
        f'应是 eval_iters 批损失的平均。这几批的损失是 {"、".join(f"{loss:.4f}" for loss in each)}，平均是 {sum(each) / 3:.4f}，'
        f'estimate_loss 给的却是 {losses["train"]:.4f}：要先加起来，再除以 eval_iters。')


@pytest.mark.idea('评估不改变训练')
@pytest.mark.parametrize('rung', LADDER.numbered)
def test_evaluation_is_repeatable_and_leaves_training_alone(rung):
    model = build(rung, dropout=0.5).train()
    train, val = torch.randint(29, (2, 300), generator=torch.Generator().manual_seed(1))
    torch.manual_seed(4)
    before = torch.random.get_rng_state()
    first = evaluate(rung, model, train, val)
    assert isinstance(first, dict) and set(first) == {'train', 'val'} and all(
        type(value) is float for value in first.values()), "estimate_loss 应返回 {'train': 小数, 'val': 小数}。"
    assert torch.equal(before, torch.random.get_rng_state()), (
        '评估用掉了训练的随机数：评估得勤一些，训练就变样了。评估取批要用自己的 torch.Generator。' + ignored_generator(module_of(rung)))
    assert model.training, '评估之后模型停在 eval 模式：要回到 train 模式，不然后面的训练就没有 dropout 了。'
    torch.manual_seed(5)
    assert evaluate(rung, model, train, val) == first, (
        '同一个模型评估两次，结果不同：每次要看同样的几批（种子固定的 Generator），曲线才可比；评估时不能有 dropout。')
    assert first['train'] != first['val'], '训练集和验证集的损失一样：是不是都从同一份数据取的？'
    assert evaluate(rung, model, val, train) == {'train': first['val'], 'val': first['train']}, (
        '把训练集和验证集对调，两个损失应跟着对调：两边要用同样的办法取批。')


# Before the ladder

TEXT = '往事只堪哀，对景难排。往事知多少。'


def test_counting_batches_counts_every_pair():
    """One model in numpy, one in torch, the same counts: the same probabilities, and what add-one smoothing gives."""
    plain, bridge = load('simplebigrammodel.py'), load('simplebigrammodel_torch.py')
    ids = plain.Tokenizer(TEXT).encode(TEXT)
    size = plain.Tokenizer(TEXT).vocab_size
    x, y = np.array([ids[:-1]] * 3), np.array([ids[1:]] * 3)  # repeated pairs in one batch must all count
    numpy_model, torch_model = plain.BigramLanguageModel(size), bridge.BigramLanguageModel(size)
    numpy_model.count(x, y)
    torch_model.count(torch.tensor(x), torch.tensor(y))

    counts = np.ones((size, size))
    for a, b in pairwise(ids):
        counts[a, b] += 3
    expected = np.log(counts / counts.sum(axis=1, keepdims=True))
    everything = np.arange(size)[None]
    assert np.allclose(numpy_model.forward(everything)[0][0], expected, atol=1e-6)
    assert np.allclose(torch_model(torch.tensor(everything))[0][0], expected, atol=1e-6)

    loss = -np.mean([expected[a, b] for a, b in pairwise(ids)])
    assert numpy_model.forward(x, y)[1] == pytest.approx(loss, abs=1e-6)
    assert torch_model(torch.tensor(x), torch.tensor(y))[1].item() == pytest.approx(loss, abs=1e-6)


def test_bigram_models_generate_what_they_counted():
    for name in ['simplebigrammodel.py', 'simplebigrammodel_torch.py']:
        module = load(name)
        array = np.array if name == 'simplebigrammodel.py' else torch.tensor
        model = module.BigramLanguageModel(5)
        np.random.seed(0)
        torch.manual_seed(0)
        for _ in range(400):  # a ring: 0 → 1 → 2 → 3 → 4 → 0, so often that smoothing hardly matters
            model.count(array([[0, 1, 2, 3, 4]] * 20), array([[1, 2, 3, 4, 0]] * 20))
        out = model.generate(array([[3], [0]]), 4)
        assert out.tolist() == [[3, 4, 0, 1, 2], [0, 1, 2, 3, 4]]


def test_bigram_sampling_follows_the_probabilities():
    for name in ['simplebigrammodel.py', 'simplebigrammodel_torch.py']:
        module = load(name)
        array = np.array if name == 'simplebigrammodel.py' else torch.tensor
        model = module.BigramLanguageModel(3)
        model.count(array([[0] * 6]), array([[1] * 5 + [2]]))  # plus one each: 1, 6, 2 of 9
        np.random.seed(0)
        torch.manual_seed(0)
        drawn = [row[1] for row in model.generate(array([[0]] * 9000), 1).tolist()]
        assert [drawn.count(i) / 1000 for i in range(3)] == pytest.approx([1, 6, 2], abs=0.25)


# Learning

def entropy_of_bigrams(ids):
    """Conditional entropy in nats per token of what follows given one token: no bigram model does better."""
    counts = np.zeros((max(ids) + 1,) * 2)
    for a, b in pairwise(ids):
        counts[a, b] += 1
    rows = counts.sum(axis=1, keepdims=True)
    used = counts > 0
    return -(counts[used] * np.log((counts / np.maximum(rows, 1))[used])).sum() / counts.sum()


def fit(model, x, y, steps, rate):
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for _ in range(steps):
        loss = model(x, y)[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.idea('学得到二元模型能学到的一切，也只有这些', rung='v1')
def test_v1_reaches_the_entropy_of_its_bigrams_and_no_lower(corpus):
    ids = module_of(LADDER['v1']).Tokenizer(corpus[:600]).encode(corpus[:600])
    data = torch.tensor(ids)[None]
    model = build(LADDER['v1'], vocab_size=max(ids) + 1, n_embd=64)
    loss, bound = fit(model, data[:, :-1], data[:, 1:], steps=400, rate=3e-2), entropy_of_bigrams(ids)
    assert bound > 0.3
    assert loss > bound - 1e-4, (
        f'在 600 个字上反复训练，损失是 {loss:.3f}，低于只看一个字能达到的最低值 {bound:.3f}：模型看到了不该看的字。')
    assert loss < bound + 0.05, (
        f'在 600 个字上反复训练，损失停在 {loss:.3f}；只看一个字，能达到 {bound:.3f}：'
        '得分应是字的嵌入直接经过 lm_head，中间没有别的。')


@pytest.mark.idea('学得会一小批文本')
@pytest.mark.parametrize('rung', LADDER.since('v7'))
def test_from_v7_on_a_small_model_overfits_one_batch(rung, corpus):
    """What v1 can't: with context, every next token of one batch becomes certain."""
    ids = module_of(LADDER['v1']).Tokenizer(corpus[:600]).encode(corpus[:600])
    x, y = (torch.tensor(part).view(8, 32) for part in (ids[:256], ids[1:257]))
    model = build(rung, vocab_size=max(ids) + 1, block_size=32, n_embd=64)
    loss = fit(model.train(), x, y, steps=300, rate=3e-3)
    assert loss < 0.05, f'反复学同样的 8 段文本，300 步之后损失还有 {loss:.2f}，应能背下来（低于 0.05）：模型有哪一步学不动。'
    assert model.eval()(x, y)[1].item() < 0.05, '训练时背下来了，eval 模式下却又不会了：两种模式的计算不一样。'


@pytest.mark.idea('每个参数都收得到梯度')
@pytest.mark.parametrize('rung', LADDER.numbered)
def test_every_parameter_gets_a_gradient(rung):
    """A table or layer that is made but not used is a bug no loss shows at this size."""
    model = build(rung).train()
    ids = torch.arange(7)[None]
    model(ids, (ids + 1) % 29)[1].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, (
            f'{name} 收不到梯度：forward 里没有用上它，或者用上了却断开了求导。')


STEPS = 60


def watched(module, monkeypatch, request, rung):
    """What main does with its model, its optimizer and its batches, written down while it runs."""
    seen = {'losses': [], 'batches': [], 'optimizers': [], 'written': [], 'evaluated': [], 'missing': set(), 'models': []}
    stepped, backward, estimate = [], torch.Tensor.backward, module.estimate_loss
    model_class = getattr(module, rung.contract['model'])
    forward, generate = model_class.forward, model_class.generate

    def before_step(optimizer, *_):
        given = [p for group in optimizer.param_groups for p in group['params']]
        assert not seen['losses'] or any(p.grad is not None and p.grad.any() for p in given), (
            'optimizer.step() 时梯度全是空的：zero_grad() 放在了 backward() 之后，把刚算出的梯度清掉了。'
            '每一步先 zero_grad()，再 backward()，再 step()。')
        seen['optimizers'].append(id(optimizer))
        seen['groups'] = [(group['lr'], group.get('maximize', False)) for group in optimizer.param_groups]
        kept.append(optimizer)
        if seen['models']:
            ids = {id(p) for p in given}
            seen['missing'] |= {name for name, p in seen['models'][-1].named_parameters() if id(p) not in ids}

    kept = []  # an optimizer that is gone could leave its id to the next
    for hook in (register_optimizer_step_pre_hook(before_step),
                 register_optimizer_step_post_hook(lambda optimizer, *_: stepped.append(optimizer))):
        request.addfinalizer(hook.remove)

    def record(loss, *args, **kwargs):
        seen['losses'].append(loss.item())
        assert len(seen['losses']) < 3 * STEPS, f'max_iters 是 {STEPS}，训练却不停：循环的次数要由 max_iters 决定。'
        stale = [p for optimizer in stepped for group in optimizer.param_groups for p in group['params']
                 if p.grad is not None and p.grad.any()]
        assert not stale, '上一步的梯度没有清零，会和这一步的加在一起：每一步先 optimizer.zero_grad()，再 loss.backward()。'
        stepped.clear()
        backward(loss, *args, **kwargs)
        assert not seen['models'] or any(p.grad is not None and p.grad.any() for p in seen['models'][-1].parameters()), (
            'loss.backward() 之后，模型没有一个参数有梯度：损失和模型之间断开了。应直接对 model(x, y) 返回的损失求导，'
            '中间不能有 .item()、detach()，也不能把它重新包成一个张量。')

    def run(model, idx, targets=None, *args, **kwargs):
        if torch.is_grad_enabled() and targets is not None:
            seen['batches'].append((model.training, idx.tolist(), targets.tolist()))
            seen['models'].append(model)
        return forward(model, idx, targets, *args, **kwargs)

    def write(model, idx, *args, **kwargs):
        seen['written'].append((len(seen['losses']), model.training, model, idx[0].tolist()))
        return generate(model, idx, *args, **kwargs)

    def evaluate(*args, **kwargs):
        seen['evaluated'].append(estimate(*args, **kwargs))
        return seen['evaluated'][-1]

    monkeypatch.setattr(torch.Tensor, 'backward', record)
    monkeypatch.setattr(model_class, 'forward', run)
    monkeypatch.setattr(model_class, 'generate', write)
    monkeypatch.setattr(module, 'estimate_loss', evaluate)
    return seen


def why_not_learned(seen, rate):
    """What can be seen of an optimizer that does not bring the loss down."""
    losses, steps = seen['losses'], len(seen['optimizers'])
    if steps < len(losses):
        return (f'看到的是：loss.backward() 调用了 {len(losses)} 次，optimizer.step() 却只有 {steps} 次：'
                '每一步都要 optimizer.step()，它按梯度改参数；放在循环里，和 backward() 缩进一样。')
    [rates, maximize] = zip(*seen['groups'], strict=True)
    if any(maximize):
        return '看到的是：优化器用了 maximize=True，每一步都往损失变大的方向走，方向反了。'
    return (f'看到的是：优化器每一步都走了，学习率是 {rates[0]:g}（检查时 learning_rate 是 {rate:g}）：' + (
        '损失在上升，多半是学习率太大，或者方向反了。' if losses[-1] > losses[0] + 0.5 else '损失几乎不动，多半是学习率太小，或者梯度没有算对。'))


def check_training(seen, text):
    """Each step sees another batch of the training part, in train mode; one optimizer has every parameter."""
    chars = sorted(set(text))
    rows = [(''.join(chars[i] for i in x), ''.join(chars[i] for i in y))
            for _, xs, ys in seen['batches'] for x, y in zip(xs, ys, strict=True)]
    assert all(training for training, *_ in seen['batches'][1:]), (
        '训练的时候模型在 eval 模式：dropout 不起作用。评估和写作之后要回到 model.train()。')
    assert not rows or len({len(x) for x, _ in rows}) == 1 and len(rows[0][0]) == 16, (
        f'block_size 是 16，训练用的每段却有 {len(rows[0][0])} 个字：get_batch 要给 block_size，写死了别的数，后面的位置就学不到。')
    ends = {x[1:] + y[-1] == y for x, y in rows}
    assert ends != {False}, ('训练时，targets 不是 x 每个位置的下一个字：模型和损失该用 model(x, y)，'
                             'x 和 y 不要对调（那是猜前一个字），也不要都用 x（那是照抄）。')
    assert len(seen['batches']) < 2 or any(batch[1] != seen['batches'][0][1] for batch in seen['batches']), (
        '每一步用的都是同一批，反复学同样的几段：get_batch 要放在循环里，每一步取新的一批。')
    training = text[:int(0.9 * len(text))]
    assert all(x + y[-1] in training for x, y in rows), (
        '训练用到了验证集里的字：训练的批只从训练集（前 train_ratio）里取，不然验证损失就不说明问题了。')
    assert len(set(seen['optimizers'])) <= 1, (
        '每一步都用了一个新的优化器：优化器要在循环之前建一次，它记着前面各步的梯度。')
    assert not seen['missing'], f'优化器里没有 {"、".join(sorted(seen["missing"]))}：要给它 model.parameters()，全部的参数。'


def check_writing(seen, text):
    """The trained model writes, in eval mode, from the prompts."""
    chars, written = sorted(set(text)), seen['written']
    if not written:  # a loop of its own
        return
    assert written[-1][0] == len(seen['losses']), '写作在训练之前，用的是还没有训练好的模型：要放到训练循环之后。'
    for _, training, model, idx in written:
        assert not training, '写的时候模型在 train 模式，dropout 还在随机丢：写之前先 model.eval()，写完再 model.train()。'
        assert not seen['models'] or model is seen['models'][-1], '写的是另一个模型，不是训练好的那一个：不要再建一个新的。'
    given = [''.join(chars[i] for i in idx) for *_, idx in written]
    for prompt in ('春江', '往事'):
        assert any(prompt in said for said in given), (
            f'交给 generate 的开头里没有「{prompt}」，而是「{given[-1]}」：要把 encode(prompt) 得到的编号作为上文给它，'
            '不然写出来的和开头无关。')


@pytest.mark.idea('main 训练、打印损失、续写')
@pytest.mark.parametrize('rung', LADDER.numbered)
def test_main_trains_prints_and_writes(rung, monkeypatch, tmp_path, capsys, small_corpus, request):
    """A short run on a small text; what is learned is seen in the losses that backward is called on."""
    module = load(script_of(rung))
    (tmp_path / 'ci.txt').write_text(small_corpus, encoding='utf-8')
    constants = {'batch_size': 8, 'block_size': 16, 'n_embd': 32, 'n_head': 2, 'n_layer': 2, 'max_iters': STEPS,
                 'eval_interval': 20, 'eval_iters': 2, 'max_new_tokens': 20, 'learning_rate': 4e-3,
                 'data_path': tmp_path / 'ci.txt', 'model_path': tmp_path / 'model.pth'}
    for name, value in constants.items():
        if hasattr(module, name):
            monkeypatch.setattr(module, name, value)
    monkeypatch.setenv('WANDB_MODE', 'disabled')
    monkeypatch.setattr(sys, 'argv', [str(script_of(rung))])
    seen = watched(module, monkeypatch, request, rung)
    module.main()
    printed = capsys.readouterr().out
    losses = seen['losses']
    assert losses, 'main() 没有训练：没有调用过 loss.backward()。'
    check_training(seen, small_corpus)
    first, last = sum(losses[:5]) / 5, sum(losses[-5:]) / 5
    assert last < first - 0.3, (
        f'训练 {len(losses)} 步，损失从 {first:.2f} 到 {last:.2f}，应明显下降。\n'
        + why_not_learned(seen, constants['learning_rate']))
    assert re.search(r'\d\.\d\d', printed), (
        '没有打印损失：每隔 eval_interval 步评估一次，打印训练损失和验证损失。')
    for name, said in (('train', '训练损失'), ('val', '验证损失')):
        assert not seen['evaluated'] or any(abs(float(number) - value[name]) <= 0.5 * 10.0 ** -len(number.split('.')[1])
                                            for number in re.findall(r'\d+\.\d+', printed) for value in seen['evaluated']), (
            f'没有打印{said}：estimate_loss 算出了它，两个损失都要打印，才看得出有没有过拟合。')
    check_writing(seen, small_corpus)
    for prompt in ('春江', '往事'):
        written = re.search(rf'^{prompt}([\s\S]{{5,}})', printed, flags=re.MULTILINE)
        assert written, f'训练之后，没有从「{prompt}」往下写：打印「{prompt}」和写出来的字，各占一段。'


def test_sampler_has_the_tokenizer_of_the_ladder():
    assert load('babygpt_sample_with_kvcache.py').Tokenizer('往事').encode('事往') == module_of(LADDER['v12']).Tokenizer('往事').encode('事往')


def test_untrained_loss_is_ln_of_the_vocabulary_for_counts():
    """Nothing counted, every token alike: the logits of the counting models are log-probabilities already."""
    model = load('simplebigrammodel_torch.py').BigramLanguageModel(50)
    ids = torch.arange(50)[None]
    logits, loss = model(ids, ids)
    assert loss.item() == pytest.approx(math.log(50), abs=1e-5)
    assert torch.allclose(logits.exp(), torch.full((1, 50, 50), 1 / 50))
