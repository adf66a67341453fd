"""What is true from each rung on: judged with a learner's own file in the place of ours."""

import math
import random

import pytest

from kit.scripts import module_of
from tests.scratch.models import LADDER

V1, V2 = LADDER['v1'], LADDER['v2']


@pytest.mark.parametrize('rung', [V1])
def test_the_chain_rule_agrees_with_differences(rung):
    module = module_of(rung)
    for point in [(0.0, 0.0), (1.5, -2.0), (2.0, 1.0)]:
        w, b = point
        by_difference = [module.difference(lambda w, b=b: module.get_loss(w, b, module.examples), w),
                         module.difference(lambda b, w=w: module.get_loss(w, b, module.examples), b)]
        assert module.gradient(*point, module.examples) == pytest.approx(by_difference, abs=1e-6)
    assert module.difference(math.sin, 1.0) == pytest.approx(math.cos(1.0), abs=1e-9)


@pytest.mark.parametrize('rung', [V2])
def test_backward_gives_the_gradient_of_any_expression(rung):
    """Random graphs of numbers that are used again and again, against PyTorch."""
    import torch
    steps = [lambda a, b: a + b, lambda a, b: a * b.tanh(), lambda a, b: a - b, lambda a, b: a / (b * b + 1), lambda a, b: a.tanh(),
             lambda a, b: (a * a + 1) ** -0.5 * b, lambda a, b: 2 * a - b, lambda a, b: 1 - a, lambda a, b: 3 / (a * a + 2), lambda a, b: -a]

    def run(made, choices):
        for step, i, j in choices:
            made.append(steps[step](made[i % len(made)], made[-1 - j % 3]))
        return sum(made)

    for seed in range(20):
        draw = random.Random(seed)
        numbers = [draw.uniform(-2, 2) for _ in range(3)]
        choices = [(draw.randrange(len(steps)), draw.randrange(99), draw.randrange(99)) for _ in range(20)]
        ours = [module_of(rung).Value(x) for x in numbers]
        theirs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in numbers]
        found, expected = run(list(ours), choices), run(list(theirs), choices)
        found.backward()
        expected.backward()
        assert found.data == pytest.approx(expected.item())
        assert [x.grad for x in ours] == pytest.approx([x.grad.item() for x in theirs])
