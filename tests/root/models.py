"""Parts of a model by where they stand on its rung, and what goes into them."""

import inspect
from functools import wraps

import pytest
import torch

from kit.ladders import LADDERS
from kit.scripts import build

SIZES = LADDERS['root'].contract['sizes']
BLOCK_SIZE = SIZES['block_size']
HEAD_SIZE = SIZES['n_embd'] // SIZES['n_head']


def random_ids(batch, time, seed=1, vocab_size=SIZES['vocab_size']):
    return torch.randint(vocab_size, (batch, time), generator=torch.Generator().manual_seed(seed))


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def shaken(rung, **sizes):
    """A model whose weights and biases are noise, however they were initialized: what differs shows."""
    model, generator = build(rung, **sizes), torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            size = parameter.size(-1) ** -0.5 if parameter.dim() > 1 else 0.5
            parameter.copy_(size * torch.randn(parameter.shape, generator=generator) + (parameter.dim() == 1))
    return model


def attention_of(model):
    return model.sa if hasattr(model, 'sa') else model.blocks[0].sa


def feed_forward_of(model):
    return model.ffwd if hasattr(model, 'ffwd') else model.blocks[0].ffwd


def layers_of(ffwd):
    """The layers of a feed-forward network that have weights, in order."""
    return [layer for layer in ffwd.net if hasattr(layer, 'weight')]


def split(x, heads):
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge(x):
    return x.transpose(1, 2).flatten(2)


def zero(*parameters):
    """Set parameters to zero; None stands for a bias that is not there."""
    with torch.no_grad():
        for parameter in parameters:
            if parameter is not None:
                parameter.zero_()


def zero_sublayers(block):
    """Zero what each sublayer computes: the value matrix kills attention, all weights the feed-forward part."""
    zero(*block.sa.parameters(), *block.ffwd.parameters())


class Guest:
    """A rung of another ladder as the tests of the root see it. What it is not beyond, `reached` says."""

    def __init__(self, rung):
        self.rung = rung

    def __getattr__(self, name):
        return getattr(self.rung, name)

    def __eq__(self, other):
        return self.rung is getattr(other, 'rung', other)

    def __hash__(self):
        return hash(self.rung)


def shared(test, rungs, seen_as):
    """A test of the root, of rungs of another ladder; `seen_as` makes a Guest of each."""
    @wraps(test)
    def run(rung, **others):
        test(seen_as(rung), **others)

    names = 'rung, expected' if 'expected' in inspect.signature(test).parameters else 'rung'
    marks = [mark for mark in test.pytestmark if mark.name != 'parametrize' or 'rung' not in mark.args[0]]
    run.pytestmark = [*marks, pytest.mark.parametrize(names, [(rung, True) if ',' in names else rung for rung in rungs]).mark]
    return run
