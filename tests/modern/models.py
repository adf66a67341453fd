"""The rungs of this ladder for the tests: beside those of the root, and in a short run of main."""

import contextlib
import io
import random
import re
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from kit.ladders import LADDERS
from kit.scripts import load, module_of, script_of
from tests.root import models, test_skeleton
from tests.root.models import SIZES

LADDER = LADDERS['modern']
N_KV_HEAD = LADDER.contract['sizes']['n_kv_head']
GROUP = SIZES['n_head'] // N_KV_HEAD
assert LADDER.contract['sizes'] == SIZES | {'n_kv_head': N_KV_HEAD}  # what is made for the root serves here, too

ALL = pytest.mark.parametrize('rung', LADDER.numbered)


def from_rung(name):
    """Parametrize over the rung below (where the property must be false) and every rung from that one on."""
    rungs = LADDER.since(name)
    return pytest.mark.parametrize('rung, expected', [(rungs[0].below, False), *((rung, True) for rung in rungs)])


def reached(rung, name):
    """Whether a rung, of this ladder or below it, is the one of that name or a later one."""
    return rung.number >= LADDER[name].number


class AsRoot(models.Guest):
    """It has all that v12 has, but for the positions, which v16 drops."""

    def reached(self, name):
        return name != 'v2' or not reached(self.rung, 'v16')


def shared(test, rungs=LADDER.numbered):
    """A test of the root, of the rungs of this ladder."""
    return models.shared(test, rungs, AsRoot)


# A short run of main

TUNES = ['浣溪沙', '菩萨蛮', '如梦令', '忆江南']
CONSTANTS = {'batch_size': 8, 'block_size': 24, 'n_embd': 24, 'n_head': 4, 'n_kv_head': 2, 'n_layer': 1, 'max_iters': 36,
             'warmup_iters': 6, 'eval_interval': 18, 'eval_iters': 2, 'max_new_tokens': 12, 'learning_rate': 5e-3,
             'prompts': TUNES[:2], 'precision': 'float32'}


def poems_of(number):
    """That many different poems of 10 to 40 characters: a title, clauses and a blank line."""
    draw = random.Random(0)
    poems = []
    for i in range(number):
        lines = [''.join(draw.choices('春江花月夜往事知多少', k=draw.choice([3, 5, 7]))) + '。' for _ in range(draw.randint(1, 4))]
        poems.append(f'{TUNES[i % 4]} {"甲乙丙丁"[i // 4 % 4]}\n' + '\n'.join(lines) + '\n\n')
    return poems


POEMS = poems_of(46)
TRAINING = POEMS[:41]  # nine in ten
assert len(set(POEMS)) == len(POEMS) and len(TRAINING) % CONSTANTS['batch_size'] and max(map(len, POEMS)) > 25


def row_text(x, y):
    """What a row of a batch says, without its padding."""
    chars = sorted(set(''.join(POEMS)))
    return ''.join(chars[i] for i in [x[0], *y] if 0 <= i < len(chars))


class Killed(BaseException):
    """What ends a run in the middle of a step, in this process."""


class Run:
    """What main did: `seen` of the root's tests, and of each step the rate, the gradient and what was made of it.

    It can be given options, a folder to leave its files in, and the number of a step to be killed in. Gradients are as a hundred times the loss would give, at every fourth step as a thousandth would: AdamW does not mind.
    """

    def __init__(self, rung, options=(), folder=None, killed_in=None, poems=POEMS, **constants):
        module, real = load(script_of(rung)), torch.Tensor.backward
        self.error, self.rates, self.raw, self.applied, self.autocast = None, [], [], [], []

        def backward(loss, *args, **kwargs):
            real(loss * (1e-3 if len(self.raw) % 4 == 3 else 100), *args, **kwargs)
            self.raw.append(self.gradient())

        def step(optimizer, *_):
            if len(self.rates) == killed_in:
                raise Killed
            self.rates.append({group['lr'] for group in optimizer.param_groups})
            self.applied.append(self.gradient())

        printed = io.StringIO()
        with (contextlib.ExitStack() as after, tempfile.TemporaryDirectory() as own, pytest.MonkeyPatch.context() as patch,
              contextlib.redirect_stdout(printed)):
            after.enter_context(torch.random.fork_rng())
            path = Path(folder or own, 'ci.txt')
            path.write_text(''.join(poems), encoding='utf-8')
            paths = {f'{name}_path': path.with_name(f'{name}.pth') for name in ('model', 'checkpoint')} | {'data_path': path}
            for name, value in (CONSTANTS | constants | paths).items():
                if hasattr(module, name):
                    patch.setattr(module, name, value)
            patch.setenv('WANDB_MODE', 'disabled')
            patch.setattr(sys, 'argv', [str(script_of(rung)), *options])
            patch.setattr(torch.Tensor, 'backward', backward)
            after.callback(register_optimizer_step_pre_hook(step).remove)
            request = type('Request', (), {'addfinalizer': staticmethod(after.callback)})
            self.seen = test_skeleton.watched(module, patch, request, rung)
            forward = module.BabyGPT.forward

            def casting(model, *args, **kwargs):
                self.autocast.append((model.training and torch.is_grad_enabled(), torch.is_autocast_enabled('cpu')))
                return forward(model, *args, **kwargs)

            patch.setattr(module.BabyGPT, 'forward', casting)
            with contextlib.suppress(Exception, SystemExit, Killed):  # raised again for each test
                try:
                    module.main()
                finally:
                    self.error = sys.exc_info()[1]
        self.printed = printed.getvalue()
        self.rows = [[row_text(x, y) for x, y in zip(xs, ys, strict=True)] for _, xs, ys in self.seen['batches']]

    def gradient(self):
        """All gradients of the model as one vector."""
        return torch.cat([p.grad.flatten() for p in self.seen['models'][-1].parameters() if p.grad is not None])


@cache
def run_of_module(module, rung, constants):
    return Run(rung, **dict(constants))


def run_of(rung, **constants):
    """A short run of main, once for each rung and constants, or for the learner's file in its place; what broke is raised."""
    run = run_of_module(module_of(rung), rung, tuple(constants.items()))
    if run.error:
        raise run.error
    return run


def printed_poems(printed):
    """What a run wrote in the end."""
    return re.split(r'\n\n', printed[printed.rindex(' 秒\n') + 3:])
