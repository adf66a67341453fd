"""What v21 chooses by itself: the precision that is faster here, a compiled model, a preset."""

import sys

import pytest
import torch

from kit.scripts import install, load
from tests.modern.forked import lived
from tests.modern.models import LADDER, POEMS
from tests.modern.test_bad_input import Told, options_of
from tests.modern.test_concepts import kept_for_backward
from tests.modern.test_resume import at_call
from tests.root.test_bad_input import POSIX

V21 = LADDER['v21']
SINCE = pytest.mark.parametrize('rung', LADDER.since('v21'))


@pytest.fixture
def module(tmp_path):
    return load(install(V21.path, tmp_path, corpus=''.join(POEMS)))


def model_of(module, **sizes):
    sizes = {'vocab_size': 29, 'block_size': 16, 'n_embd': 24, 'n_head': 4, 'n_kv_head': 2, 'n_layer': 2, 'dropout': 0.5} | sizes
    return module.BabyGPT(**sizes).train()


@pytest.mark.parametrize('dropout, bends', [(0.0, False), (0.2, True)])
def test_on_a_cpu_scores_are_not_stored_only_without_dropout(dropout, bends, module):
    """As its docstring says: with dropout, what is kept grows with the square of the length."""
    model = model_of(module, block_size=192, dropout=dropout)
    kept = [kept_for_backward(model, torch.randint(29, (2, length))) for length in (64, 128, 192)]
    assert ((kept[2] - kept[1]) / (kept[1] - kept[0]) > 1.1) == bends, kept


def test_the_trial_times_both_and_leaves_weights_and_random_numbers_alone(module):
    model, ids, seen = model_of(module), torch.randint(29, (3, 16)), []
    before, weights = torch.random.get_rng_state(), {name: value.clone() for name, value in model.state_dict().items()}
    model.lm_head.register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled('cpu')))
    seconds = module.time_steps(model, ids, ids, seconds=0)
    assert set(seconds) == {'float32', 'bfloat16'} and all(0 < value < 60 for value in seconds.values())
    assert seen.count(True) == seen.count(False) >= 2
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert next(model.parameters()).grad is not None  # it measures the way back, too


@pytest.mark.parametrize('faster', ['float32', 'bfloat16'])
def test_auto_trains_in_what_is_faster_and_says_so(faster, module, monkeypatch, capfd):
    """And the random numbers are those of a run that was told."""
    monkeypatch.setattr(module, 'time_steps', lambda *_: {'float32': 2.0, 'bfloat16': 3.0} | {faster: 1.5})
    monkeypatch.setenv('WANDB_MODE', 'disabled')
    said, cast = {}, {}
    init = module.BabyGPT.__init__

    def hooked(model, *args):
        init(model, *args)
        model.register_forward_hook(lambda *_: cast[precision].append(torch.is_autocast_enabled('cpu')) if model.training else None)

    monkeypatch.setattr(module.BabyGPT, '__init__', hooked)
    for precision in ('auto', faster):
        cast[precision] = []
        monkeypatch.setattr(sys, 'argv', ['script', *map(str, [*options_of(V21), '--precision', precision, '--dropout', 0.2])])
        module.main()
        said[precision] = capfd.readouterr().out.splitlines()
    chosen = [line for line in said['auto'] if '毫秒' in line]
    assert len(chosen) == 1 and chosen[0].endswith(f'用 {faster}') and '1500.0 毫秒' in chosen[0]
    assert {*cast['auto']} == {faster == 'bfloat16'} and len(cast['auto']) == 8
    losses = [[line.split('每秒')[0] for line in said[precision] if line.startswith('第')] for precision in said]
    assert losses[0] == losses[1] and len(losses[0]) == 3


def test_a_compiled_model_has_the_same_weights_and_leaves_random_numbers_alone(module, monkeypatch):
    """Whatever compiles: what is asked is what v21 makes of it."""
    given = []
    monkeypatch.setattr(torch, 'compile', lambda model, dynamic: given.append(dynamic) or model)
    model, ids = model_of(module), torch.randint(29, (3, 16))
    before = torch.random.get_rng_state()
    assert module.compile_model(model, ids, ids) is model and given == [True]
    assert torch.equal(before, torch.random.get_rng_state())


def test_no_compiler_is_said_in_one_line(module, tmp_path, monkeypatch, capfd):
    """What torch raises where it finds none, and where it can't even begin."""
    from torch._inductor.exc import InvalidCxxCompiler

    def fail(*args, **kwargs):
        raise InvalidCxxCompiler

    monkeypatch.setattr(torch, 'compile', lambda model, dynamic: fail)
    told = Told(tmp_path / V21.path, monkeypatch, capfd, *options_of(V21), '--compile')
    assert told.returncode == 1 and '--compile' in told.stderr and 'C++ compiler' in told.stderr
    assert len(told.stderr.strip().splitlines()) == 1
    assert not (tmp_path / 'modern/model.pth').exists()


def out_of_memory(*_, **__):
    raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 MiB.\nOf the allocated memory …')


@POSIX
@pytest.mark.parametrize('options', [[], ['--compile']], ids=['while it trains', 'while it compiles'])
@pytest.mark.parametrize('rung', [*LADDER.since('v21'), LADDER['babygpt_bpe']], ids=str)
def test_too_little_memory_is_said_in_one_line(rung, options, tmp_path):
    """And not taken for a missing compiler, though that is told of the first pass, too."""
    path = install(rung.path, tmp_path, corpus=''.join(POEMS))

    def fills(module):
        at_call(module, 'get_lr', 3, out_of_memory)
        if options:
            module.torch.compile = lambda model, dynamic: out_of_memory
    told = lived(path, *options_of(V21), *options, dies=fills)
    assert told.status == 1 and 'Traceback' not in told.printed
    said = told.printed.strip().splitlines()[-1]
    assert '--batch_size' in said and '--preset' in said and '编译器' not in told.printed


def parsed(module, monkeypatch, *options):
    monkeypatch.setattr(sys, 'argv', ['script', *map(str, options)])
    return module.parse_args()[0]


@SINCE
def test_presets_set_sizes_batch_and_precision(rung, monkeypatch, tmp_path):
    """Each can be built and trained; what is given beside it counts; laptop is what a CPU gets by default."""
    module = load(install(rung.path, tmp_path, corpus=''.join(POEMS)))
    plain, names = parsed(module, monkeypatch), module.preset_columns
    assert [getattr(plain, name) for name in names] == module.presets['laptop']
    for preset, values in module.presets.items():
        args = parsed(module, monkeypatch, '--preset', preset)
        assert [getattr(args, name) for name in names] == values
        with torch.device('meta'):
            module.BabyGPT(100, args.block_size, args.n_embd, args.n_head, args.n_kv_head, args.n_layer, 0.0)
    args = parsed(module, monkeypatch, '--n_embd', 48, '--preset', 'gpu8', '--precision', 'float32')
    assert (args.n_embd, args.precision, args.n_layer) == (48, 'float32', 6)
