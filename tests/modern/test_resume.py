"""Killed at any moment, v22 goes on as if nothing had happened; what does not fit is refused by its name."""

import os
import re
import signal
import sys
from pathlib import Path

import pytest
import torch

from kit.scripts import install, load, losses, run
from tests.modern.forked import lived
from tests.modern.models import LADDER, POEMS
from tests.modern.test_bad_input import options_of
from tests.root.test_bad_input import POSIX, assert_clear

V22 = LADDER['v22']
OPTIONS = [*options_of(V22), '--max_iters', 16, '--dropout', 0.1]


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(owner, name, number, end=die):
    """Die in that call of a function, counted from 1; `end` says how."""
    calls, real = [], getattr(owner, name)

    def called(*args, **kwargs):
        calls.append(1)
        return end(*args, **kwargs) if len(calls) == number else real(*args, **kwargs)

    setattr(owner, name, called)


def half_written(path, content):
    path.open('wb').write(content[:len(content) // 2])
    die()


MOMENTS = {  # every evaluation draws two batches of the training part and one of the rest; 16 steps, checkpoints at 4, 8, …
    'before the first checkpoint': lambda module: at_call(module, 'estimate_loss', 1),
    'in a step': lambda module: at_call(torch.optim.AdamW, 'step', 11),
    'in an evaluation': lambda module: at_call(module, 'write', 6),
    'while the best model is written': lambda module: at_call(Path, 'write_bytes', 3, half_written),
    'while the checkpoint is written': lambda module: at_call(Path, 'write_bytes', 4, half_written),
}


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    path = install(V22.path, tmp_path_factory.mktemp('whole'), corpus=''.join(POEMS))
    life = lived(path, *OPTIONS)
    assert life.status == 0, life.printed
    return life, torch.load(path.with_name('model.pth'), weights_only=True)['model']


@POSIX
@pytest.mark.parametrize('moment', MOMENTS)
def test_killed_and_started_again_it_ends_the_same(moment, whole, tmp_path):
    path = install(V22.path, tmp_path, corpus=''.join(POEMS))
    first = lived(path, *OPTIONS, dies=MOMENTS[moment])
    assert first.status == -signal.SIGKILL, first.printed
    second = lived(path, *(OPTIONS if 'before the first' in moment else []), '--resume')  # it knows its options
    assert second.status == 0, second.printed
    never, model = whole
    told = {step: rest for step, *rest in [*losses(first.printed), *losses(second.printed)]}
    assert told == {step: rest for step, *rest in losses(never.printed)}
    assert losses(second.printed) == losses(never.printed)[-len(losses(second.printed)):]
    assert second.printed.partition('\n\n')[2] == never.printed.partition('\n\n')[2]  # the poems
    assert all(torch.equal(model[name], value) for name, value in torch.load(path.with_name('model.pth'), weights_only=True)['model'].items())
    assert {file.name for file in path.parent.glob('*pth*')} == {'model.pth', 'checkpoint.pth'}  # nothing half written is left


@POSIX
def test_what_a_resumed_run_may_change_and_what_not(tmp_path):
    path = install(V22.path, tmp_path, corpus=''.join(POEMS))
    assert lived(path, *OPTIONS, '--max_iters', 4).status == 0
    kept = path.with_name('checkpoint.pth').read_bytes()
    for option, value in (('n_embd', 48), ('n_layer', 2), ('n_head', 12), ('n_kv_head', 1), ('block_size', 25), ('train_ratio', 0.8), ('seed', 3)):
        refused = lived(path, '--resume', f'--{option}', value)
        assert refused.status == 1 and f'--{option} {value}' in refused.printed and '接不上' in refused.printed, refused.printed
    refused = lived(path, '--resume', '--max_iters', 3)  # it has taken four
    assert refused.status == 1 and '--max_iters 3' in refused.printed and '第 4 步' in refused.printed, refused.printed
    again = lived(path, '--resume')  # has ended, and writes its poems again
    assert again.status == 0 and not losses(again.printed), again.printed
    other = tmp_path / 'other.txt'
    other.write_text(''.join(POEMS).replace('春', '秋'), encoding='utf-8')
    refused = lived(path, '--resume', '--data', other)
    assert refused.status == 1 and 'other.txt' in refused.printed and 'Traceback' not in refused.printed
    assert path.with_name('checkpoint.pth').read_bytes() == kept
    longer = lived(path, '--resume', '--max_iters', 8, '--data', tmp_path / 'ci.txt')
    assert [step for step, *_ in losses(longer.printed)] == [8], longer.printed


@pytest.mark.parametrize('content', [b'', b'not a model', 'a model', 'another rung'], ids=str)
def test_what_is_no_checkpoint_is_refused(content, tmp_path, monkeypatch):
    path = install(V22.path, tmp_path, corpus=''.join(POEMS))
    file = path.with_name('checkpoint.pth')
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save({'rung': path.stem, 'model': {}} if content == 'a model' else {'rung': 'babygpt_v23_ddp', 'optimizer': {}}, file)
    monkeypatch.setattr(sys, 'argv', [path.name, '--resume'])
    with pytest.raises(SystemExit) as told:
        load(path).main()
    assert 'checkpoint.pth' in str(told.value) and '--resume' in str(told.value) and '\n' not in str(told.value)


def test_what_another_script_saved_is_refused_without_a_guess(tmp_path, monkeypatch):
    """Its rung may be any text, and a model that this one saved is not called another's."""
    path = install(V22.path, tmp_path, corpus=''.join(POEMS))
    for saved in ({'rung': path.stem, 'model': {}}, {'rung': 'babygpt_v23_ddp', 'optimizer': {}}, {'state': 1}, [1]):
        torch.save(saved, path.with_name('checkpoint.pth'))
        monkeypatch.setattr(sys, 'argv', [path.name, '--resume'])
        with pytest.raises(SystemExit) as told:
            load(path).main()
        said = str(told.value)
        assert said.count('babygpt_v22_resume') == 1 and 'babygpt_v23' not in said and 'None' not in said and '用存它的那个脚本' in said


@POSIX
def test_a_fresh_run_keeps_what_the_last_one_left(tmp_path):
    path = install(V22.path, tmp_path, corpus=''.join(POEMS))
    assert lived(path, *OPTIONS, '--max_iters', 4).status == 0
    before = {name: path.with_name(f'{name}.pth').read_bytes() for name in ('model', 'checkpoint')}
    assert lived(path, *OPTIONS, '--max_iters', 4, '--seed', 2, dies=MOMENTS['before the first checkpoint']).status < 0
    for name, content in before.items():
        assert path.with_name(f'{name}.prev.pth').read_bytes() == content and not path.with_name(f'{name}.pth').exists()


@POSIX
def test_compiling_is_remembered_and_can_be_taken_back(tmp_path):
    """Where there is no compiler any more, what is said names the option that helps."""
    path = install(V22.path, tmp_path, corpus=''.join(POEMS))

    def compiles(module):
        module.torch.compile = lambda model, dynamic: model

    def fails(module):
        module.torch.compile = lambda model, dynamic: lambda *_: {}['no compiler']
    assert lived(path, *OPTIONS, '--max_iters', 4, '--compile', dies=compiles).status == 0
    refused = lived(path, '--resume', '--max_iters', 8, dies=fails)
    assert refused.status == 1 and '--no-compile' in refused.printed and 'Traceback' not in refused.printed, refused.printed
    on = lived(path, '--resume', '--max_iters', 8, '--no-compile', dies=fails)
    assert on.status == 0 and [step for step, *_ in losses(on.printed)] == [8], on.printed


@POSIX
def test_forgetting_to_resume_is_told_and_twice_loses_nothing(tmp_path):
    """Each time it is stopped before it has trained."""
    path = install(V22.path, tmp_path, corpus=''.join(POEMS))
    assert '.prev.pth' not in lived(path, *OPTIONS, '--max_iters', 4).printed
    before = {name: path.with_name(f'{name}.pth').read_bytes() for name in ('model', 'checkpoint')}
    first, second = (lived(path, *OPTIONS, dies=lambda module: at_call(module, 'get_lr', 1)) for _ in range(2))
    assert losses(first.printed) == losses(second.printed) != []
    for name, content in before.items():
        assert f'{name}.pth 改名为 {name}.prev.pth' in first.printed and f'{name}.prev.pth' not in second.printed
        assert path.with_name(f'{name}.prev.pth').read_bytes() == content


@POSIX
def test_wandb_shows_one_run(tmp_path):
    """Offline: two folders of one run, and the second is told how both are uploaded."""
    path = install(V22.path, tmp_path, corpus=''.join(POEMS))
    path.write_text(path.read_text(encoding='utf-8').replace('        optimizer.step()\n', '        optimizer.step()\n'
                    '        if step == 5 and not checkpoint:\n            os.kill(os.getpid(), signal.SIGKILL)\n'), encoding='utf-8')
    assert run(path, *options_of(V22)).returncode == -signal.SIGKILL
    second = run(path, '--resume')
    assert second.returncode == 0 and 'Traceback' not in second.stderr, second.stderr
    folders = [folder.name for folder in path.parent.glob('wandb/offline-run-*')]
    assert len(folders) == 2 and len({name.rpartition('-')[2] for name in folders}) == 1
    assert re.search(rf'wandb sync .*\*-{folders[0].rpartition("-")[2]}\n', second.stdout)
    assert [step for step, *_ in losses(second.stdout)] == [8]


def test_help_and_refusal_are_short(tmp_path):
    path = install(V22.path, tmp_path, corpus=POEMS[0])
    assert_clear(run(path, '--resume'), 'ci.txt', lines=1)
