"""What every other test takes for granted: the names of a rung, and that importing it trains nothing."""

import inspect

import pytest
import torch
from ladder import RUNGS, SIZES, build, load, random_ids, rung, script

ALL = list(RUNGS)

# Functions and classes, with the arguments that the tests (and main) give them.
CALLS = {
    'Tokenizer': ['text'],
    'get_batch': ['data', 'batch_size', 'block_size'],
    'estimate_loss': ['model', 'train_data', 'val_data', 'eval_iters', 'batch_size', 'block_size'],
    'main': [],
}
# The arguments of BabyGPT in their order, and the rungs that have them.
ARGUMENTS = {'vocab_size': ALL, 'block_size': ALL[1:], 'n_embd': ALL, 'n_head': ALL[3:], 'n_layer': ALL[5:],
             'dropout': ALL[9:]}
# The parts of a model by path, the rungs that have them, and what they are.
PARTS = [
    ('token_embedding_table', ALL, '字的嵌入，nn.Embedding(vocab_size, n_embd)'),
    ('position_embedding_table', ALL[1:], '位置的嵌入，nn.Embedding(block_size, n_embd)'),
    ('lm_head', ALL, '从 n_embd 维到 vocab_size 个得分的 nn.Linear'),
    ('sa', ALL[2:5], '自注意力'),
    ('sa.query', ALL[2:5], '自注意力的 query，没有偏置的 nn.Linear(n_embd, n_embd)'),
    ('sa.key', ALL[2:5], '自注意力的 key，没有偏置的 nn.Linear(n_embd, n_embd)'),
    ('sa.value', ALL[2:5], '自注意力的 value，没有偏置的 nn.Linear(n_embd, n_embd)'),
    ('ffwd', ALL[4:5], '前馈网络'),
    ('ffwd.net', ALL[4:5], '前馈网络的各层，nn.Sequential'),
    ('blocks', ALL[5:], 'n_layer 个 Block，nn.Sequential 或 nn.ModuleList'),
    ('blocks.0', ALL[5:], '第一个 Block'),
    ('blocks.0.sa', ALL[5:], 'Block 里的注意力'),
    ('blocks.0.sa.query', ALL[5:], '注意力的 query，没有偏置的 nn.Linear(n_embd, n_embd)'),
    ('blocks.0.sa.key', ALL[5:], '注意力的 key，没有偏置的 nn.Linear(n_embd, n_embd)'),
    ('blocks.0.sa.value', ALL[5:], '注意力的 value，没有偏置的 nn.Linear(n_embd, n_embd)'),
    ('blocks.0.sa.proj', ALL[7:], '各个头合到一起之后的投影，nn.Linear(n_embd, n_embd)'),
    ('blocks.0.ffwd', ALL[5:], 'Block 里的前馈网络'),
    ('blocks.0.ffwd.net', ALL[5:], '前馈网络的各层，nn.Sequential'),
    ('blocks.0.ln1', ALL[8:], '注意力之前的 nn.LayerNorm'),
    ('blocks.0.ln2', ALL[8:], '前馈网络之前的 nn.LayerNorm'),
    ('ln_f', ALL[8:], 'lm_head 之前的最后一次 nn.LayerNorm'),
]


@pytest.mark.idea('能导入，导入时不训练')
@pytest.mark.parametrize('number', ALL)
def test_importing_trains_nothing(number, monkeypatch):
    def backward(*args, **kwargs):
        raise AssertionError('导入时就开始训练了：训练要放进 main()，'
                             "文件末尾写 if __name__ == '__main__': 再调用 main()，别的程序才能只用其中的类。")

    monkeypatch.setattr(torch.Tensor, 'backward', backward)
    load(script(number))


@pytest.mark.idea('该有的函数和类都有')
@pytest.mark.parametrize('number', ALL)
def test_functions_and_classes_have_their_names(number):
    module = rung(number)
    for name in [*CALLS, 'BabyGPT']:
        assert callable(getattr(module, name, None)), f'没有 {name}：这一级仍要有它，名字不能改。'
    for name, arguments in CALLS.items():
        try:
            inspect.signature(getattr(module, name)).bind(**dict.fromkeys(arguments))
        except TypeError:
            raise AssertionError(f'{name} 的参数应是 ({", ".join(arguments)})，多出来的要有默认值；'
                                 f'现在是 {inspect.signature(getattr(module, name))}。') from None


@pytest.mark.idea('BabyGPT 的参数和次序')
@pytest.mark.parametrize('number', ALL)
def test_model_takes_its_sizes_in_order(number):
    expected = [name for name, rungs in ARGUMENTS.items() if number in rungs]
    parameters = list(inspect.signature(rung(number).BabyGPT).parameters.values())
    more = parameters[len(expected):]
    assert ([parameter.name for parameter in parameters[:len(expected)]] == expected
            and all(parameter.default is not parameter.empty for parameter in more)), (
        f'这一级的 BabyGPT 应这样建：BabyGPT({", ".join(expected)})，'
        f'现在是 BabyGPT({", ".join(parameter.name for parameter in parameters)})。')


@pytest.mark.idea('模型的各个部分都有')
@pytest.mark.parametrize('number', ALL)
def test_parts_of_the_model_have_their_names(number):
    model = build(number)
    for path, rungs, what in PARTS:
        if number not in rungs:
            continue
        *parents, name = path.split('.')
        owner = model
        for parent in parents:
            owner = owner[int(parent)] if parent.isdecimal() else getattr(owner, parent)
        there = len(owner) > 0 if name.isdecimal() else hasattr(owner, name)
        assert there, f'{type(owner).__name__} 里没有 {name}（{what}）：这一级应有它，名字不能改。'
    kept = {name for name, _ in model.named_modules()}
    assert number < 6 or 'blocks.0' in kept, (
        'model.parameters() 里没有各层 Block 的参数，优化器训练不到它们：blocks 要用 nn.Sequential 或 nn.ModuleList，'
        '不能是普通的列表。')


@pytest.mark.idea('给出编号，得到得分和损失')
@pytest.mark.parametrize('number', ALL)
def test_model_maps_ids_to_logits_and_loss(number):
    model, idx = build(number), random_ids(3, SIZES['block_size'])
    shape = (3, SIZES['block_size'], SIZES['vocab_size'])
    for targets in (None, random_ids(3, SIZES['block_size'], seed=2)):
        out = model(idx) if targets is None else model(idx, targets)
        assert isinstance(out, tuple) and len(out) == 2, 'forward 要返回两样东西：得分 logits 和损失 loss。'
        logits, loss = out
        assert isinstance(logits, torch.Tensor) and logits.shape == shape, (
            f'得分的形状应是 (B, T, V)，不论有没有 targets。这里应是 {shape}，'
            f'却是 {tuple(getattr(logits, "shape", ()))}{"" if targets is None else "（有 targets 时）"}。')
        assert (loss is None) == (targets is None), '没有 targets 时损失是 None，有 targets 时是一个数。'
        assert loss is None or loss.shape == (), '损失应是一个数：所有位置的平均。'
