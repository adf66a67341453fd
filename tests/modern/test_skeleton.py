"""What every rung of this ladder shares: tokenizer, evaluation, gradients, and a short run of main."""

import re

import pytest
import torch

from kit.scripts import build, module_of
from tests.modern.diagnosis import evaluation_mistakes
from tests.modern.models import ALL, CONSTANTS, LADDER, POEMS, printed_poems, run_of, shared
from tests.root import test_skeleton as root
from tests.root.diagnosis import differs

test_tokenizer = shared(root.test_tokenizer)
test_tokenizer_names_the_characters_it_does_not_know = shared(root.test_tokenizer_names_the_characters_it_does_not_know)
test_every_parameter_gets_a_gradient = shared(root.test_every_parameter_gets_a_gradient)
test_a_small_model_overfits_one_batch = shared(root.test_from_v7_on_a_small_model_overfits_one_batch, LADDER.numbered[-1:])


def tables(rung):
    """A table of training poems, one of validation poems, and the vocabulary that they share."""
    module, tokenizer = module_of(rung), module_of(rung).Tokenizer(''.join(POEMS))
    return module.pad(POEMS[:23], tokenizer), module.pad(POEMS[23:], tokenizer)


def evaluate(rung, model, train, val, eval_iters=5):
    return module_of(rung).estimate_loss(model, train, val, eval_iters=eval_iters, batch_size=7)


@pytest.mark.idea('验证损失是每字的平均，eval 模式，不求导')
@ALL
def test_evaluation_is_the_mean_over_characters(rung):
    model, seen = build(rung, block_size=80, dropout=0.5).train(), []
    train, val = tables(rung)

    def record(module, args, output):
        x, y = args if len(args) > 1 else (args[0], None)
        loss = None if y is None else output[1].item()
        seen.append((module.training, torch.is_grad_enabled(), loss, x, y))

    hook = model.register_forward_hook(record)
    losses = evaluate(rung, model, train, val)
    hook.remove()
    assert seen, 'estimate_loss 没有用模型算损失。'
    assert not any(training for training, *_ in seen), '评估时模型还在 train 模式：先 model.eval()，dropout 才会停下。'
    assert not any(grad for _, grad, *_ in seen), '评估时还在为求导做准备：加上 @torch.no_grad()，又快又省内存。'
    assert isinstance(losses, dict) and set(losses) == {'train', 'val'} and all(
        type(value) is float for value in losses.values()), "estimate_loss 应返回 {'train': 小数, 'val': 小数}。"
    model.eval()
    for name, table in (('train', train), ('val', val)):  # one poem after the other, no padding
        total = n_chars = 0
        for row in table:
            poem = row[row >= 0][None]
            total += (len(poem[0]) - 1) * model(poem[:, :-1], poem[:, 1:])[1].item()
            n_chars += len(poem[0]) - 1
        own, count = [], 0
        for *_, loss, x, y in seen[:len(seen) // 2] if name == 'train' else seen[len(seen) // 2:]:
            own += [(loss, (y >= 0).sum().item(), y.numel())] if y is not None and loss is not None else []
            count += len(x)
        assert count == len(table), f'{len(table)} 首都该看一次（eval_iters × batch_size 是 35，够看完），estimate_loss 却看了 {count} 首。'
        mistake = differs('estimate_loss ', lambda name=name: torch.tensor(losses[name]), lambda total=total, n=n_chars: torch.tensor(total / n),
                          evaluation_mistakes(own) if own else {},
                          lambda name=name, right=total / n_chars: f'{name} 的每字平均损失应是 {right:.4f}，却是 {losses[name]:.4f}：'
                          '各批的损失先乘上各批的字数（填充不算）加起来，最后除以总的字数。')
        assert not mistake, mistake


@pytest.mark.idea('每次评估看同样的词，不改变训练')
@ALL
def test_evaluation_is_repeatable_and_leaves_training_alone(rung):
    model = build(rung, block_size=80, dropout=0.5).train()
    train, val = tables(rung)
    torch.manual_seed(4)
    before = torch.random.get_rng_state()
    first = evaluate(rung, model, train, val, eval_iters=2)
    assert torch.equal(before, torch.random.get_rng_state()), (
        '评估用掉了训练的随机数：评估得勤一些，训练就变样了。评估取批要用自己的 torch.Generator。')
    assert model.training, '评估之后模型停在 eval 模式：要回到 train 模式，不然后面的训练就没有 dropout 了。'
    torch.manual_seed(5)
    again = evaluate(rung, model, train, val, eval_iters=2)
    assert again == pytest.approx(first, abs=1e-6), (
        '同一个模型评估两次，结果不同：每次要看同样的词（种子固定的 Generator，或者总是前几首），曲线才可比；评估时不能有 dropout。')
    assert first['train'] != first['val'], '训练集和验证集的损失一样：是不是都从同一份数据取的？'
    assert evaluate(rung, model, val, train, eval_iters=2) == pytest.approx({'train': first['val'], 'val': first['train']}, abs=1e-6), (
        '把训练集和验证集对调，两个损失应跟着对调：两边要用同样的办法取批。')


@pytest.mark.idea('main 训练、打印损失、写词')
@ALL
def test_main_trains_prints_and_writes(rung):
    """What the short run learned is seen in the losses that backward is called on."""
    run = run_of(rung)
    seen, losses = run.seen, run.seen['losses']
    assert losses, 'main() 没有训练：没有调用过 loss.backward()。'
    assert all(training for training, *_ in seen['batches'][1:]), (
        '训练的时候模型在 eval 模式：dropout 不起作用。评估和写作之后要回到 model.train()。')
    assert len(set(seen['optimizers'])) <= 1, '每一步都用了一个新的优化器：优化器要在循环之前建一次，它记着前面各步的梯度。'
    assert not seen['missing'], f'优化器里没有 {"、".join(sorted(seen["missing"]))}：要给它 model.parameters()，全部的参数。'
    first, last = sum(losses[:5]) / 5, sum(losses[-5:]) / 5
    assert last < first - 0.3, (
        f'训练 {len(losses)} 步，损失从 {first:.2f} 到 {last:.2f}，应明显下降：每一步要 optimizer.zero_grad()、loss.backward()、optimizer.step()。')
    for name, said in (('train', '训练损失'), ('val', '验证损失')):
        assert not seen['evaluated'] or any(abs(float(number) - value[name]) <= 0.5 * 10.0 ** -len(number.split('.')[1])
                                            for number in re.findall(r'\d+\.\d+', run.printed) for value in seen['evaluated']), (
            f'没有打印{said}：estimate_loss 算出了它，两个损失都要打印，才看得出有没有过拟合。')
    assert re.search(r'\d\.\d\d', run.printed), '没有打印损失：每隔 eval_interval 步评估一次，打印训练损失和验证损失。'
    written = seen['written']
    for _, training, model, _ in written:
        assert not training, '写的时候模型在 train 模式，dropout 还在随机丢：写之前先 model.eval()，写完再 model.train()。'
        assert model is seen['models'][-1], '写的是另一个模型，不是训练好的那一个：不要再建一个新的。'
    assert not written or written[-1][0] == len(losses), '写词在训练之前，用的是还没有训练好的模型：要放到训练循环之后。'
    poems = printed_poems(run.printed)
    for prompt in CONSTANTS['prompts']:
        assert any(poem.strip('\n').startswith(prompt) for poem in poems), f'训练之后，没有从「{prompt}」往下写：打印写出来的，各占一段。'
