"""What every other test takes for granted: the names of a rung, and that importing it trains nothing."""

import contextlib
import inspect

import pytest
import torch

from kit.ladders import LADDERS
from kit.scripts import build, load, module_of, script_of

JUDGED = [rung for ladder in LADDERS.values() for rung in ladder.judged]
ALL = pytest.mark.parametrize('rung', JUDGED)
WITH_A_CONTRACT = pytest.mark.parametrize('rung', [rung for rung in JUDGED if rung.contract])
WITH_A_MODEL = pytest.mark.parametrize('rung', [rung for rung in JUDGED if 'model' in rung.contract])
OF_TEXT = pytest.mark.parametrize('rung', [rung for rung in JUDGED if 'vocab_size' in rung.contract.get('sizes', {})])


@pytest.mark.idea('能导入，导入时不训练')
@ALL
def test_importing_trains_nothing(rung, monkeypatch, capsys):
    def backward(*args, **kwargs):
        raise AssertionError('导入时就开始训练了：训练要放进 main()，'
                             "文件末尾写 if __name__ == '__main__': 再调用 main()，别的程序才能只用其中的类。")

    monkeypatch.setattr(torch.Tensor, 'backward', backward)
    load(script_of(rung))
    assert not capsys.readouterr().out, '导入时打印了东西：导入只定义函数和类，要做的事都放进 main()。'


@pytest.mark.idea('该有的函数和类都有')
@WITH_A_CONTRACT
def test_functions_and_classes_have_their_names(rung):
    module = module_of(rung)
    calls = rung.contract['calls']
    for name in [*calls, *filter(None, [rung.contract.get('model')])]:
        assert callable(getattr(module, name, None)), f'没有 {name}：这一级仍要有它，名字不能改。'
    for name, arguments in calls.items():
        try:
            inspect.signature(getattr(module, name)).bind(**dict.fromkeys(arguments))
        except TypeError:
            raise AssertionError(f'{name} 的参数应是 ({", ".join(arguments)})，多出来的要有默认值；'
                                 f'现在是 {inspect.signature(getattr(module, name))}。') from None


@pytest.mark.idea('模型的参数和次序')
@WITH_A_MODEL
def test_model_takes_its_sizes_in_order(rung):
    expected, name = rung.arguments, rung.contract['model']
    parameters = list(inspect.signature(getattr(module_of(rung), name)).parameters.values())
    more = parameters[len(expected):]
    assert ([parameter.name for parameter in parameters[:len(expected)]] == expected
            and all(parameter.default is not parameter.empty for parameter in more)), (
        f'这一级的 {name} 应这样建：{name}({", ".join(expected)})，'
        f'现在是 {name}({", ".join(parameter.name for parameter in parameters)})。')


def input_of(rung):
    """What its model takes: numbers of the shape that the contract says, or ids of characters."""
    return torch.randn(rung.contract['input']) if 'input' in rung.contract else torch.zeros(2, 3, dtype=torch.long)


def made_in_forward(model, x):
    """The names of the layers with weights, or with dropout, that a call of the model makes."""
    made, init = [], torch.nn.Module.__init__

    def record(module, *args, **kwargs):
        made.append(module)
        init(module, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Exception):  # what breaks is for other tests
        patch.setattr(torch.nn.Module, '__init__', record)
        model(x)
    return [type(module).__name__ for module in made
            if isinstance(module, torch.nn.modules.dropout._DropoutNd) or list(module.parameters(recurse=False))]


@pytest.mark.idea('模型的各个部分都有')
@WITH_A_MODEL
def test_parts_of_the_model_have_their_names(rung):
    made = made_in_forward(build(rung), input_of(rung))
    assert not made, (
        f'forward 里新建了 {"、".join(dict.fromkeys(made))}：在 __init__ 里建一次，存成 self.……，forward 里只用它。'
        '在 forward 里建，每次调用都是一组新的随机参数，优化器训练不到；nn.Dropout 则不知道现在是 eval 模式。')
    model = build(rung)
    for path, what in rung.parts:
        *parents, name = path.split('.')
        owner = model
        for parent in parents:
            owner = owner[int(parent)] if parent.isdecimal() else getattr(owner, parent)
        there = len(owner) > 0 if name.isdecimal() else hasattr(owner, name)
        assert there, f'{type(owner).__name__} 里没有 {name}（{what}）：这一级应有它，名字不能改。'
        part = owner[int(name)] if name.isdecimal() else getattr(owner, name)
        assert isinstance(part, (torch.nn.Module, list, tuple, dict)), (
            f'{path} 应是{what}，是一个 nn 里的模块，参数才学得到；这里却是 {type(part).__name__}。')
    kept = {name for name, _ in model.named_modules(remove_duplicate=False)}
    for path, _ in rung.parts:
        assert path in kept, (
            f'model.parameters() 里没有 {path} 的参数，优化器训练不到它：{path.split(".")[0]} 要是 nn 里的模块，'
            '装几层用 nn.Sequential 或 nn.ModuleList，不能是普通的列表。')


@pytest.mark.idea('给出编号，得到得分和损失')
@OF_TEXT
def test_model_maps_ids_to_logits_and_loss(rung):
    sizes = rung.contract['sizes']
    model, shape = build(rung), (3, sizes.get('block_size', 5), sizes['vocab_size'])
    idx, answers = torch.randint(sizes['vocab_size'], (2, *shape[:2]), generator=torch.Generator().manual_seed(1))
    for targets in (None, answers):
        out = model(idx) if targets is None else model(idx, targets)
        assert isinstance(out, tuple) and len(out) == 2, 'forward 要返回两样东西：得分 logits 和损失 loss。'
        logits, loss = out
        assert isinstance(logits, torch.Tensor) and logits.shape == shape, (
            f'得分的形状应是 (B, T, V)，不论有没有 targets。这里应是 {shape}，'
            f'却是 {tuple(getattr(logits, "shape", ()))}{"" if targets is None else "（有 targets 时）"}。')
        assert (loss is None) == (targets is None), '没有 targets 时损失是 None，有 targets 时是一个数。'
        assert loss is None or loss.shape == (), '损失应是一个数：所有位置的平均。'
