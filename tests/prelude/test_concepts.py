"""What is true of v1 to v4, from the parts to the whole: lines, boundaries, digits.

Each test is marked with its idea in Chinese, and says in Chinese what a failure means: the judge shows it to a learner.
What begins with a rung is false one rung below.
"""

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, make_circles
from sklearn.linear_model import LogisticRegression

from kit.scripts import build, losses, module_of
from tests.prelude.mistakes import logits_mistakes, logits_of, loss_mistakes, loss_of, shapes_of
from tests.prelude.points import (
    ALL,
    DIGITS,
    V1,
    V2,
    V3,
    V4,
    answers_for,
    begins_with,
    fitted,
    inputs_for,
    noise,
    rows,
    run_of,
)
from tests.root.diagnosis import differs

WEIGHT, BIAS = [1.0, 2.0], -0.5


# Data and batches

@pytest.mark.idea('答案照真正的概率抽出来')
@pytest.mark.parametrize('rung', [V2])
def test_answers_are_drawn_with_their_probability(rung):
    (x, y), (val_x, val_y) = module_of(rung).make_data(WEIGHT, BIAS, 5000, 0.8)
    for name, points, number in (('x', x, 4000), ('y', y, 4000), ('验证集的 x', val_x, 1000), ('验证集的 y', val_y, 1000)):
        shape = (number, 2) if 'x' in name else (number,)
        assert points.shape == shape, (
            f'造 5000 个点，train_ratio 是 0.8，{name} 的形状应是 {shape}，却是 {tuple(points.shape)}：前 4000 个用来训练，其余的用来验证。')
    assert y.dtype == torch.float32, f'y 应是小数 0.0 和 1.0，F.binary_cross_entropy_with_logits 才能用，却是 {y.dtype}。'
    score = x @ torch.tensor(WEIGHT) + BIAS
    for said, wrong in {
        'y 还是直线上的数，不是是或否：先用 sigmoid 变成概率，再用 torch.bernoulli 照概率抽成 0 或 1。': score,
        'y 是概率，还没有抽成是或否：用 torch.bernoulli 照概率抽成 0 或 1。': score.sigmoid(),
        'y 没有照概率抽，得分大于 0 的全是「是」：概率七成的，抽出来也该有三成是「否」。': (score > 0).float(),
    }.items():
        assert not torch.allclose(y, wrong, atol=1e-5), said
    assert set(y.tolist()) == {0.0, 1.0}, f'y 应只有 0（否）和 1（是）两种，却有 {len(y.unique()):,} 种不同的数：照概率抽，用 torch.bernoulli。'
    for low in (-9, -2, -1, 0, 1, 2):
        here = (score > low) & (score <= (9 if low == 2 else low + 1 if low > -9 else -2))
        expected, spread = score[here].sigmoid(), (score[here].sigmoid() * (1 - score[here].sigmoid())).sum().sqrt() / here.sum()
        assert abs(y[here].mean() - expected.mean()) < 5 * spread, (
            f'得分比 {low} 大一些的点，「是」应约占 {expected.mean():.0%}，却占 {y[here].mean():.0%}：概率是 sigmoid(得分)。')


@pytest.mark.idea('手写的数字：从 0 到 1，次序打乱，验证集另外留着')
@DIGITS
def test_digits_are_scaled_shuffled_and_split(rung):
    digits = load_digits()
    truth = {tuple(image.flatten() / 16): answer for image, answer in zip(digits.images, digits.target, strict=True)}
    torch.manual_seed(3)
    train, val = module_of(rung).read_data(None, 0.8)
    for name, (x, y), number in (('训练集', train, 1437), ('验证集', val, 360)):
        assert x.shape == (number, 8, 8) and y.shape == (number,), (
            f'{name}应是 {number} 幅 8 × 8 的图和 {number} 个答案，却是 {tuple(x.shape)} 和 {tuple(y.shape)}：'
            '前 train_ratio 用来训练，其余的用来验证，验证集里的不能拿来训练。')
        assert y.dtype == torch.int64, f'答案应是 int64 的编号，F.cross_entropy 才能用，却是 {y.dtype}。'
    x, y = (torch.cat(both) for both in zip(train, val, strict=True))
    assert x.max() == 1 and x.min() == 0, (
        f'图上的点应从 0 到 1，这里最大的是 {x.max():g}：scikit-learn 给的是 0 到 16，要除以 16，不然第一步就走得太远。')
    assert all(row in truth for row in rows(x)), '有的图不是 scikit-learn 里的任何一幅：除了除以 16，别的都不要改。'
    wrong = [i for i, row in enumerate(rows(x)) if truth[row] != y[i]]
    assert not wrong, f'第 {wrong[0] + 1} 幅图的答案不是它的：图和答案要用同样的次序打乱。'
    assert len(set(rows(x))) == len(truth), '有的图在训练集和验证集里都有，有的一次也没有：每一幅恰好在其中一个里。'
    original = [tuple(image.flatten() / 16) for image in digits.images]
    assert rows(val[0]) != original[-360:] and rows(val[0]) != original[:360], (
        '次序没有打乱，验证集就是最后写的那些人的字：先用 torch.randperm 打乱，再切开。')


@pytest.mark.idea('往右移八分之一')
@DIGITS
def test_shift_moves_pictures_to_the_right(rung):
    x = noise(3, 16, 16).abs() + 1
    right = torch.cat([torch.zeros(3, 16, 2), x[:, :, :-2]], dim=2)
    down = torch.cat([torch.zeros(3, 2, 16), x[:, :-2]], dim=1)
    mistake = differs('shift ', lambda: module_of(rung).shift(x), lambda: right, {
        '移出去的又从左边回来了（roll）：右边的切掉，左边补 0。': lambda: x.roll(2, 2),
        '移的是左边：应往右移，左边补 0。': lambda: torch.cat([x[:, :, 2:], torch.zeros(3, 16, 2)], dim=2),
        '移的是下面：应往右移，就是最后一维。': lambda: down,
        '移出去的又从上面回来了（roll），移的还是下面：应往右移，左边补 0。': lambda: x.roll(2, 1),
        '补上了空白，却没有切掉右边，图变宽了。': lambda: torch.cat([torch.zeros(3, 16, 2), x], dim=2),
        '只移了一格：应移边长的八分之一，这里的边长是 16，要移 2 格。': lambda: torch.cat([torch.zeros(3, 16, 1), x[:, :, :-1]], dim=2),
    }, lambda: '')
    assert not mistake, mistake


@pytest.mark.idea('每一步随机取一批，答案各归各的')
@ALL
def test_a_batch_is_drawn_at_random_with_its_answers(rung):
    x = torch.arange(20.0).view(-1, *[1] * (len(rung.contract['input']) - 1)).expand(-1, *rung.contract['input'][1:])
    y = torch.arange(20.0)
    batches = [module_of(rung).get_batch((x, y), 7) for _ in range(60)]
    for xs, ys in batches:
        assert xs.shape == (7, *x.shape[1:]) and ys.shape == (7,), (
            f'batch_size 是 7，一批应是 {(7, *x.shape[1:])} 的 x 和 (7,) 的 y，却是 {tuple(xs.shape)} 和 {tuple(ys.shape)}。')
        assert xs.flatten(1)[:, 0].equal(ys), 'y 不是这些 x 的答案：x 和 y 要用同样的行号取，x[rows] 和 y[rows]。'
    drawn = [ys.tolist() for _, ys in batches]
    assert any(batch != drawn[0] for batch in drawn), '每次取的都是同样的几个：每一步要随机取新的一批，不然只学得到这几个。'
    ordered = [batch for batch in drawn if all(b - a in (1, -19) for a, b in pairwise(batch))]
    assert len(ordered) < len(drawn) / 2, '取的是连着的几个，没有打乱：用 torch.randint 随机取行号。'
    missing = set(range(20)) - {int(row) for batch in drawn for row in batch}
    assert not missing, f'有 20 个，取了 60 批，第 {min(missing) + 1} 个却一次也没有取到：行号从 0 到 len(x) - 1，每个都要可能取到。'


# The model, and how wrong it is

def depends_on_the_batch(model, x):
    """What is wrong where the same x alone has another answer, or nothing."""
    together, alone = model(x)[0], torch.cat([model(each[None])[0] for each in x])
    return '' if torch.allclose(together, alone, atol=1e-5) else (
        '同一个 x，单独给和一批一起给，得分不同：有一步在批的那一维上求了和、平均、最大或者 softmax。')


@pytest.mark.idea('从 x 到得分')
@ALL
def test_output_is_what_the_formula_says(rung):
    model, x = build(rung), inputs_for(rung, 3)
    for name, what in rung.parts:
        layer, shape = getattr(model, name), shapes_of(rung)[name]
        assert layer.weight.shape == shape, (
            f'{name} 应是 {what}，weight 的形状应是 {shape}，却是 {tuple(layer.weight.shape)}。'
            + '整个摊平了再算，位置就又有了关系：每个通道要先在整幅图上只留最大的一个数。' * (rung is V4 and name == 'out'))
        assert layer.bias is not None, f'{name} 少了 bias：加权求和之后还要再加一个数，不然 x 全是 0 时，得分也只能是 0。'
    mistake = differs('forward ', lambda: model(x)[0], lambda: logits_of(rung, model, x), logits_mistakes(rung, model, x),
                      lambda: depends_on_the_batch(model, x) or '对照公式，一步一步打印形状看。', dict(model.named_parameters()))
    assert not mistake, mistake


@pytest.mark.idea('损失：预测错得有多远')
@ALL
def test_loss_is_what_the_formula_says(rung):
    model, x, y = build(rung), inputs_for(rung, 6), answers_for(rung, 6)
    assert model(x)[1] is None, '没有 targets 时损失应是 None。'
    logits, loss = model(x, y)
    assert loss is not None, '给了 targets，损失却是 None。'
    mistake = differs('损失', lambda: loss, lambda: loss_of(rung, logits, y), loss_mistakes(rung, logits, y),
                      lambda: f'应是 {loss_of(rung, logits, y):.4f}，却是 {loss:.4f}。', dict(model.named_parameters()))
    assert not mistake, mistake


@pytest.mark.idea('一个答案只看自己的 x，不看同批的')
@ALL
def test_an_answer_does_not_depend_on_the_rest_of_the_batch(rung):
    mistake = depends_on_the_batch(build(rung), inputs_for(rung, 4))
    assert not mistake, mistake


@pytest.mark.idea('评估：训练集和验证集各自的平均，不求导')
@ALL
def test_evaluation_is_the_mean_over_each_part(rung):
    model, seen = build(rung).train(), []
    data = {name: (inputs_for(rung, number), answers_for(rung, number)) for name, number in (('train', 30), ('val', 11))}
    hook = model.register_forward_hook(lambda *_: seen.append((model.training, torch.is_grad_enabled())))
    before = torch.random.get_rng_state()
    found = module_of(rung).estimate_loss(model, data['train'], data['val'])
    hook.remove()
    assert isinstance(found, dict) and set(found) == {'train', 'val'} and all(type(value) is float for value in found.values()), (
        "estimate_loss 应返回 {'train': 小数, 'val': 小数}。")
    for name, (x, y) in data.items():
        right = model(x, y)[1].item()
        assert abs(found[name] - right) < 1e-5, f'estimate_loss 的 {name} 应是那一部分全部的平均损失 {right:.4f}，却是 {found[name]:.4f}。'
    assert not any(grad for _, grad in seen), '评估时还在为求导做准备：加上 @torch.no_grad()。'
    assert not any(training for training, _ in seen) and model.training, '评估时要在 eval 模式，之后回到 train 模式。'
    assert torch.equal(before, torch.random.get_rng_state()), '评估用掉了训练的随机数：评估得勤一些，训练就变样了。'


# What training finds

@pytest.mark.idea('训练不看验证集')
@ALL
def test_training_never_sees_the_validation_part(rung):
    run = run_of(rung)
    train, val = ({*rows(x)} for x, _ in run.parts)
    seen = [set(rows(x)) for x, _ in run.batches]
    assert not train & val, (
        f'训练集里有 {len(train & val)} 个也在验证集里：一个只能在其中一边，不然验证损失说的就不是没见过的。')
    assert not set.union(*seen) & val, '训练的批里有验证集的：训练只能从训练集里取，不然验证损失说的就不是没见过的。'
    assert len(set.union(*seen)) > len(train) / 2, f'训练了 {len(seen)} 步，训练集里却有一半以上一次也没有看：每一步都要随机取新的一批。'


@pytest.mark.idea('main 训练，边训练边打印损失')
@ALL
def test_main_learns_and_prints_its_losses(rung):
    run = run_of(rung)
    printed = [(train, val) for _, train, val in losses(run.printed)]
    piled = [torch.stack(run.alone[:i + 1]).sum(dim=0) for i in range(len(run.alone))]
    assert len(piled) < 2 or torch.allclose(run.applied[1], run.alone[1], rtol=1e-3, atol=1e-6) or not torch.allclose(run.applied[1], piled[1], rtol=1e-3, atol=1e-5), (
        '第 2 步用的梯度，是第 1 步的和第 2 步的加在一起：每一步 loss.backward() 之前要 optimizer.zero_grad()，不然前面各步的梯度都堆在里面。')
    assert len(printed) >= 3, '没有边训练边打印损失：每隔 eval_interval 步打印一行「第 N 步  训练损失 …  验证损失 …」。'
    first, last = printed[0], printed[-1]
    for i, name in enumerate(('训练', '验证')):
        assert last[i] < 0.6 * first[i], (
            f'{name}损失从 {first[i]:.3f} 到 {last[i]:.3f}，应明显下降：循环里每一步 zero_grad、backward、step 都要有，学习率要合适。')


@pytest.mark.idea('找到的就是最小二乘的那条线')
@pytest.mark.parametrize('seed', [1337, 1, 2])
@pytest.mark.parametrize('rung', [V1])
def test_the_line_is_that_of_least_squares(rung, seed):
    """Within three standard errors, those that the residual variance gives; which is also how far the truth may be."""
    run = run_of(rung, seed)
    x, y = (part.double().numpy() for part in run.parts[0])
    columns = np.column_stack([x[:, 0], np.ones(len(x))])
    best, [squares], *_ = np.linalg.lstsq(columns, y)
    errors = np.sqrt(squares / (len(x) - 2) * np.linalg.inv(columns.T @ columns).diagonal())
    found = [run.model.linear.weight.item(), run.model.linear.bias.item()]
    for name, mine, right, error in zip(('斜率', '截距'), found, best, errors, strict=True):
        assert abs(mine - right) < 3 * error, f'{name}是 {mine:.3f}，最小二乘的是 {right:.3f}，标准误差只有 {error:.3f}：训练得不够，或者走偏了。'
    assert (abs(best - [2, 1]) < 4 * errors).all(), f'点不在 y = 2 x + 1 的上下：用公式算出来的是 {best.tolist()}。'


def yes_or_no(number, seed):
    """Points of two numbers, and answers drawn with the probabilities of a logistic model."""
    x = 2 * noise(number, 2, seed=seed)
    probs = (x @ torch.tensor(WEIGHT) + BIAS).sigmoid()
    return x, torch.bernoulli(probs, generator=torch.Generator().manual_seed(seed))


@pytest.mark.idea('界线在逻辑回归的地方')
@begins_with(V2)
def test_the_boundary_is_that_of_logistic_regression(rung, expected):
    """scikit-learn's, without a penalty, on the same points: what the model has at its least loss."""
    x, y = yes_or_no(1000, 1)
    model = fitted(build(rung, n_in=2), x, y)
    right = LogisticRegression(C=np.inf, tol=1e-8).fit(x, y)
    mine = np.append(model.linear.weight.detach().numpy(), model.linear.bias.item())
    same = np.allclose(mine, np.append(right.coef_, right.intercept_), atol=0.02)
    assert same == expected, f'在同样的点上练到底，weight 和 bias 应是 {right.coef_[0].round(2)}、{right.intercept_.round(2)}，却是 {mine.round(2)}。'


@pytest.mark.idea('概率是真的：说八成的，八成是「是」')
@begins_with(V2)
def test_probabilities_are_calibrated(rung, expected):
    model = fitted(build(rung, n_in=2), *yes_or_no(4000, 1))
    x, y = yes_or_no(20_000, 2)
    probs = model(x)[0].detach().sigmoid()
    off = {}
    for i in range(10):
        here = (probs >= i / 10) & (probs < (i + 1) / 10)
        if here.sum() > 100:
            off[i] = (abs(probs[here].mean() - y[here].mean()) - 4 * (0.25 / here.sum()).sqrt()).item()
    assert (max(off.values()) < 0.02) == expected, (
        '得分经过 sigmoid 之后不是真的概率：说八成是「是」的点，实际的比例差得远。损失应是交叉熵，得分不要先做 sigmoid。')


@pytest.mark.idea('训练找到的界线')
@pytest.mark.parametrize('seed', [1337, 1, 2])
@pytest.mark.parametrize('rung', [V2])
def test_training_finds_the_boundary(rung, seed):
    """Within three standard errors of scikit-learn's, those that the curvature of the log-likelihood gives."""
    run = run_of(rung, seed)
    x, y = (part.double().numpy() for part in run.parts[0])
    right = LogisticRegression(C=np.inf, tol=1e-8).fit(x, y)
    probs, columns = right.predict_proba(x)[:, 1], np.column_stack([x, np.ones(len(x))])
    errors = np.sqrt(np.linalg.inv(columns.T @ (columns * (probs * (1 - probs))[:, None])).diagonal())
    mine = np.append(run.model.linear.weight.detach().numpy(), run.model.linear.bias.item())
    best = np.append(right.coef_, right.intercept_)
    assert (abs(mine - best) < 3 * errors).all(), (
        f'训练出的 weight 和 bias 是 {mine.round(2)}，逻辑回归应是 {best.round(2)}，差得比误差 {errors.round(2)} 的三倍还多：训练得不够，或者损失不对。')


@pytest.mark.idea('分得开圈里圈外')
@begins_with(V3)
def test_rings_are_told_apart(rung, expected):
    """One ring inside the other: no straight boundary does better than guessing by much."""
    points, inside = make_circles(400, noise=0.08, factor=0.4, random_state=0)
    x, y = torch.tensor(points, dtype=torch.float32), torch.tensor(inside)
    model = fitted(build(rung, n_in=2, n_hidden=32, n_classes=2), x, y.float() if rung is V2 else y)
    logits = model(x)[0]
    answers = logits > 0 if rung is V2 else logits.argmax(dim=1)
    share = (answers == y).float().mean().item()
    assert (share > 0.95) == expected, f'一圈套着一圈的点，练到底也只答对 {share:.0%}：界线还是直的，中间一层少了 ReLU，或者没有用上。'


def shifted_score(rung):
    """The share of the validation pictures that the trained model still knows when they are moved."""
    run = run_of(rung)
    x, y = run.parts[1]
    moved = module_of(V3).shift(x)
    run.model.eval()
    with torch.no_grad():
        return [(run.model(images)[0].argmax(dim=1) == y).float().mean().item() for images in (x, moved)]


@pytest.mark.idea('训练之后认得数字')
@DIGITS
def test_digits_are_recognised(rung):
    share, _ = shifted_score(rung)
    assert share > 0.9, f'验证集只答对 {share:.0%}，应在九成以上：训练得不够，或者模型没有学到东西。'


@pytest.mark.idea('东西在哪里不要紧')
@begins_with(V4)
def test_where_a_thing_stands_does_not_matter(rung, expected):
    """By two columns, the step of the pooling, and away from the edges."""
    model = build(rung, n_in=256)
    x = torch.zeros(2, 16, 16)
    x[0, 5:9, 4:8] = x[1, 5:9, 6:10] = noise(4, 4)
    here, there = model(x)[0]
    assert torch.allclose(here, there, atol=1e-5) == expected, '同一个图案往右移两格，离边还远，得分却变了：最后每个通道要在整幅图上留最大的。'


@pytest.mark.idea('十分之一的参数')
@begins_with(V4)
def test_a_tenth_of_the_parameters(rung, expected):
    mine, before = (sum(p.numel() for p in run_of(each).model.parameters()) for each in (rung, V3))
    assert (mine <= before / 10) == expected, f'有 {mine:,} 个参数，v3 有 {before:,} 个，应不到十分之一：最后的一层只看每个通道的最大值。'


@pytest.mark.idea('移了位置，也比 v3 认得多')
@begins_with(V4)
def test_moved_digits_are_recognised_better(rung, expected):
    (_, mine), (_, before) = shifted_score(rung), shifted_score(V3)
    assert (mine > before + 0.1) == expected, f'往右移一格，答对 {mine:.0%}，v3 也有 {before:.0%}：卷积和最后留最大的，应让位置不要紧。'
