"""Several processes train one model: what a user sees of it."""

import os
import pickle
import signal

import pytest
import torch

from kit.scripts import install, losses
from tests.modern.forked import Life, environment_of, free_port, lived, team
from tests.modern.models import LADDER, POEMS
from tests.modern.test_bad_input import options_of
from tests.modern.test_fast import out_of_memory
from tests.modern.test_resume import at_call
from tests.root.test_bad_input import POSIX

V23 = LADDER['v23']
pytestmark = POSIX
# 33 poems to train on: the last batch of an epoch has one, and the second process none
CORPUS = ''.join(POEMS[:37])
EACH, BOTH = ([*options_of(V23), '--max_iters', 8, '--batch_size', size] for size in (8, 16))


def weights_of(path):
    return torch.load(path.with_name('checkpoint.pth'), weights_only=True)['model']


def near(mine, theirs):
    return all(torch.allclose(value, theirs[name], atol=1e-4) for name, value in mine.items())


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    """One process, twice the batch."""
    path = install(V23.path, tmp_path_factory.mktemp('alone'), corpus=CORPUS)
    life = lived(path, *BOTH)
    assert life.status == 0, life.printed
    return losses(life.printed), weights_of(path)


def test_two_processes_give_the_losses_of_one_and_only_the_first_speaks(alone, tmp_path):
    path = install(V23.path, tmp_path, corpus=CORPUS)
    first, second = team(path, 2, *EACH)
    assert (first.status, second.status) == (0, 0), first.printed + second.printed
    assert second.printed == '' and '2 个进程' in first.printed
    assert [step for step, *_ in losses(first.printed)] == [step for step, *_ in alone[0]]
    for mine, theirs in zip(losses(first.printed), alone[0], strict=True):
        assert mine == pytest.approx(theirs, abs=1.1e-4)
    assert near(weights_of(path), alone[1])


def test_what_was_not_saved_is_not_promised(tmp_path):
    """One dies before the first checkpoint, and the other is told to stop as torchrun tells it."""
    path = install(V23.path, tmp_path, corpus=CORPUS)
    first, _ = team(path, 2, *EACH, dies_at=1, dies=lambda module: at_call(module, 'get_lr', 3))
    assert '第 0 个进程停了（通信断了，' in first.printed and '--resume' not in first.printed

    def told(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)
        return 1e-3
    first, second = team(path, 2, *EACH, dies_at=1, dies=lambda module: at_call(module, 'get_lr', 3, told))
    assert first.status == second.status == 1
    said = second.printed.strip()
    assert said.startswith('第 1 个进程停了（torchrun 让它停下：') and 'Ctrl-C' in said and '--resume' not in said and '\n' not in said


def test_an_epoch_is_sent_as_its_row_numbers(tmp_path):
    """Not as views, each of which is pickled with all that it is a view of."""
    path, sent = install(V23.path, tmp_path, corpus=CORPUS), tmp_path / 'sent'
    sent.mkdir()

    def keep(values):
        sent.joinpath(str(len([*sent.iterdir()]))).write_bytes(pickle.dumps(values))
        return real(values)

    def watch(module):
        nonlocal real
        real, module.dist.broadcast_object_list = module.dist.broadcast_object_list, keep

    real = None
    first, second = team(path, 2, *EACH, '--max_iters', 4, dies_at=0, dies=watch)
    assert (first.status, second.status) == (0, 0), first.printed + second.printed
    epochs = [file.read_bytes() for file in sent.iterdir() if isinstance(pickle.loads(file.read_bytes())[0], list)]
    assert len(epochs) == 2 and all(sorted(row for rows in pickle.loads(each)[0] for row in rows) == [*range(33)] for each in epochs)
    assert all(len(each) < 16 * 33 for each in epochs)


@pytest.mark.parametrize('dead', [0, 1])
def test_a_process_that_dies_ends_the_run_and_any_number_goes_on(dead, alone, tmp_path):
    """The one that is left says so; what was kept is whole, and one process with their batch ends as it would have."""
    path = install(V23.path, tmp_path, corpus=CORPUS)
    lives = team(path, 2, *EACH, dies_at=dead, dies=lambda module: at_call(torch.optim.AdamW, 'step', 7))
    left = lives[1 - dead]
    assert lives[dead].status == -signal.SIGKILL and left.status == 1
    assert f'第 {1 - dead} 个进程停了（通信断了，' in left.printed and 'Traceback' not in left.printed
    assert 'checkpoint.pth 是完整的，加 --resume' in left.printed
    assert torch.load(path.with_name('checkpoint.pth'), weights_only=True)['step'] == 4
    on = lived(path, '--resume', '--batch_size', 16)
    assert on.status == 0 and [step for step, *_ in losses(on.printed)] == [8], on.printed
    assert near(weights_of(path), alone[1])


def two_machines(path, *options, second=()):
    """A process on each of two machines: both are the first on theirs; the second has these options, too."""
    port = free_port()
    lives = [Life(path, *options, *more, rank=rank, **environment_of(rank, 2, port) | {'LOCAL_RANK': '0'}) for rank, more in ((0, ()), (1, second))]
    return [life.ended() for life in lives]


def test_two_machines_with_the_same_text_train_and_only_the_first_speaks(tmp_path):
    path = install(V23.path, tmp_path, corpus=CORPUS)
    first, second = two_machines(path, *EACH, '--max_iters', 4)
    assert (first.status, second.status) == (0, 0), first.printed + second.printed
    assert [step for step, *_ in losses(first.printed)] == [0, 4] and second.printed == ''


@pytest.mark.parametrize('text', [None, CORPUS.replace('春', '秋')], ids=['no text', 'another text'])
def test_a_second_machine_that_lacks_the_text_says_so(text, tmp_path):
    path, other = install(V23.path, tmp_path, corpus=CORPUS), tmp_path / 'other.txt'
    if text:
        other.write_text(text, encoding='utf-8')
    first, second = two_machines(path, *EACH, second=['--data', other])
    assert first.status == second.status == 1 and 'other.txt' in second.printed, first.printed + second.printed
    assert len(second.printed.strip().splitlines()) == 1 and ('第 0 个进程' in second.printed) == bool(text)
    assert 'Traceback' not in first.printed and not path.with_name('checkpoint.pth').exists()


def test_too_little_memory_is_told_by_the_process_that_has_it(tmp_path):
    path = install(V23.path, tmp_path, corpus=CORPUS)
    first, second = team(path, 2, *EACH, dies_at=1, dies=lambda module: at_call(module, 'get_lr', 3, out_of_memory))
    assert first.status == second.status == 1
    assert '显存放不下' in second.printed and '个进程停了' not in second.printed and '第 0 个进程停了' in first.printed


def test_ctrl_c_stops_all_in_the_same_step(tmp_path):
    """It comes to the second only, and twice, as torchrun hands it on."""
    path = install(V23.path, tmp_path, corpus=CORPUS)

    def interrupt(*_, **__):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return 1e-3

    first, second = team(path, 2, *EACH, '--max_iters', 1000, '--eval_interval', 500, dies_at=1,
                         dies=lambda module: at_call(module, 'get_lr', 3, interrupt))
    assert (first.status, second.status) == (0, 0), first.printed + second.printed
    assert 'Ctrl-C' in first.printed and [step for step, *_ in losses(first.printed)] == [0, 3]


def test_a_fault_is_told_once(tmp_path):
    path = install(V23.path, tmp_path, corpus=CORPUS)
    first, second = team(path, 2, '--n_layer', 0)
    assert first.status and second.status and 'n_layer' in first.printed
    said = second.printed.strip()
    assert said in ('', '2') or '第 1 个进程停了' in said and '\n' not in said  # the first may be gone before it has connected
