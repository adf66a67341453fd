"""The rungs of points and digits, v1 to v4, for the tests: a short run of main, watched, and what goes into a model."""

import contextlib
import io
import sys
from functools import cache

import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook

from kit.ladders import LADDERS
from kit.scripts import load, module_of, script_of

LADDER = LADDERS['prelude']
V1, V2, V3, V4 = FOUR = [LADDER[f'v{number}'] for number in range(1, 5)]
ALL = pytest.mark.parametrize('rung', FOUR)
DIGITS = pytest.mark.parametrize('rung', [V3, V4])


def begins_with(rung):
    """Parametrize over the rung below, where the property must be false, and the rung where it begins."""
    return pytest.mark.parametrize('rung, expected', [(rung.below, False), (rung, True)])


def noise(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def answers_for(rung, number, n_classes=5):
    """That many answers of the kind that a rung has: a number, yes or no, a class."""
    draw = torch.Generator().manual_seed(2)
    if rung is V1:
        return torch.randn(number, generator=draw)
    classes = torch.randint(2 if rung is V2 else n_classes, (number,), generator=draw)
    return classes.float() if rung is V2 else classes


def inputs_for(rung, number):
    return noise(number, *rung.contract['input'][1:])


def fitted(model, x, y, steps=100):
    """The model, brought to the least loss on all of these points."""
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=steps, line_search_fn='strong_wolfe')

    def loss():
        optimizer.zero_grad()
        value = model(x, y)[1]
        value.backward()
        return value

    optimizer.step(loss)
    return model.eval()


class Run:
    """What main did: its model, the points it trained on, the two parts it evaluated, and what it printed."""

    def __init__(self, rung, constants):
        module = load(script_of(rung))
        estimate, model_class = module.estimate_loss, getattr(module, rung.contract['model'])
        self.error, self.model, self.batches, self.parts, self.evaluated = None, None, [], None, []
        self.alone, self.applied, looking = [], [], False  # of the first steps: the gradient of the batch by itself, and what was applied

        def forward(model, args, output):
            if type(model) is model_class and not looking:
                self.model = model
                if torch.is_grad_enabled() and len(args) > 1:
                    self.batches.append(args)

        def step(*_):
            nonlocal looking
            if len(self.alone) < 3 and self.batches and all(p.grad is not None for p in self.model.parameters()):
                looking = True
                loss = self.model(*self.batches[-1])[1]
                self.alone.append(torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, [*self.model.parameters()])]))
                self.applied.append(torch.cat([p.grad.flatten() for p in self.model.parameters()]))
                looking = False

        def evaluate(model, train_data, val_data):
            self.parts = train_data, val_data
            self.evaluated.append(estimate(model, train_data, val_data))
            return self.evaluated[-1]

        printed = io.StringIO()
        with contextlib.ExitStack() as after, pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
            after.enter_context(torch.random.fork_rng())
            after.callback(register_module_forward_hook(forward).remove)
            after.callback(register_optimizer_step_pre_hook(step).remove)
            for name, value in (constants | {'estimate_loss': evaluate}).items():
                patch.setattr(module, name, value)
            patch.setattr(sys, 'argv', [str(script_of(rung))])
            with contextlib.suppress(Exception, SystemExit):  # raised again for each test
                try:
                    module.main()
                finally:
                    self.error = sys.exc_info()[1]
        self.printed = printed.getvalue()


@cache
def run_of_module(module, rung, seed):
    return Run(rung, {'seed': seed} | ({'max_iters': 600, 'eval_interval': 200} if rung in (V3, V4) else {}))


def run_of(rung, seed=1337):
    """A run of main, once for each rung, or for the learner's file in its place; what broke in it is raised."""
    run = run_of_module(module_of(rung), rung, seed)
    if run.error:
        raise run.error
    assert run.batches, 'main() 没有训练：没有一次是在求导的情况下，把 x 和 y 交给模型算损失。'
    assert run.parts, 'main() 没有评估：每隔 eval_interval 步要用 estimate_loss 看一次训练损失和验证损失。'
    return run


def rows(x):
    """Each point or picture as something that can be looked up."""
    return [tuple(row) for row in x.flatten(1).tolist()]
