"""The modules of the ladder, and the same computation done by ours and by PyTorch."""

from functools import cache

import numpy as np
import torch

from kit.ladders import LADDERS
from kit.scripts import load, module_of

LADDER = LADDERS['scratch']
WRITING = LADDER.since('v8')  # these only write; those before them train


def training(since):
    """The rungs from that one on that train."""
    return [rung for rung in LADDER.since(since) if rung not in WRITING]


@cache
def exact(rung):
    """The module of a rung in double precision, so that what differs is wrong and not rounded."""
    return load(rung.path, rung.source.replace('float32', 'float64')) if 'float32' in rung.source else module_of(rung)


def ours_and_theirs(module, f, *arrays):
    """f of Tensors and of torch's tensors that hold the same numbers, each with what they were made of."""
    ours = [module.Tensor(array) for array in arrays]
    theirs = [torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in arrays]
    return (f(*ours), ours), (f(*theirs), theirs)


def weigh(out, seed=1):
    """One number that depends on every entry of `out`, on each in its own way."""
    return (out * np.random.RandomState(seed).randn(*out.shape)).sum()


def weigh_torch(out, seed=1):
    return (out * torch.tensor(np.random.RandomState(seed).randn(*out.shape), dtype=torch.float64)).sum()


def assert_same_values_and_gradients(module, f, *arrays, rtol=1e-9, atol=1e-11):
    """What f makes, and the gradient of each of its arguments, are PyTorch's."""
    (out, ours), (expected, theirs) = ours_and_theirs(module, f, *arrays)
    assert out.shape == tuple(expected.shape)
    np.testing.assert_allclose(out.data, expected.detach(), rtol, atol)
    weigh(out).backward()
    weigh_torch(expected).backward()
    for a, b in zip(ours, theirs, strict=True):
        assert a.grad.shape == a.shape == tuple(b.shape)
        np.testing.assert_allclose(a.grad, b.grad, rtol, atol)


def slope(f, arrays, directions, h=1e-6):
    """How fast the number f changes when each array moves in its direction: a difference, no derivative."""
    there, back = ([a + step * d for a, d in zip(arrays, directions, strict=True)] for step in (h, -h))
    return (f(*there) - f(*back)) / (2 * h)


VOCABULARY = ''.join(sorted('\n ，。一春江往事浣溪沙苏轼天人风月花山水云'))
TINY = {'block_size': 8, 'n_embd': 12, 'n_head': 3, 'n_layer': 2}


def save_model(path, vocabulary=VOCABULARY, seed=0, **sizes):
    """Write a model with random weights (norms and biases too) as tools/export_safetensors.py writes those of v12; return v12's."""
    torch.manual_seed(seed)
    sizes = sizes | {'dropout': 0.1}
    model = module_of(LADDERS['root']['v12']).BabyGPT(len(vocabulary), **sizes).eval()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.3 * torch.randn(p.shape)
        model.lm_head.weight *= 0.3  # or some characters would never come
    checkpoint = {'model': model.state_dict(), 'hyper_params': sizes, 'vocabulary': vocabulary}
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(load('tools/export_safetensors.py').as_safetensors(checkpoint))
    return model
