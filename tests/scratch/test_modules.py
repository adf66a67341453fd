"""Modules, the loss and the optimiser: PyTorch's, by name and by number."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kit.ladders import by_path
from kit.scripts import module_of
from tests.scratch.models import LADDER, exact, training, weigh, weigh_torch

MODULES = pytest.mark.parametrize('rung', training('v4'))
TRAINED = pytest.mark.parametrize('rung', training('v5'))
LAYERS = {
    'Linear': (lambda m: m.Linear(4, 3), lambda: nn.Linear(4, 3)),
    'Linear without bias': (lambda m: m.Linear(4, 3, bias=False), lambda: nn.Linear(4, 3, bias=False)),
    'LayerNorm': (lambda m: m.LayerNorm(4), lambda: nn.LayerNorm(4)),
    'ReLU': (lambda m: m.ReLU(), lambda: nn.ReLU()),
    'GELU': (lambda m: m.GELU(), lambda: nn.GELU()),
    'Dropout': (lambda m: m.Dropout(0.0), lambda: nn.Dropout(0.0)),
}


def noise(*shape, seed=0):
    return np.random.RandomState(seed).randn(*shape)


def both(rung, name):
    """A layer of ours and PyTorch's with the same weights, none of them as they are made."""
    ours, theirs = LAYERS[name][0](exact(rung)), LAYERS[name][1]().double()
    for i, p in enumerate(theirs.parameters()):
        p.data += torch.tensor(noise(*p.shape, seed=i))
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize('shape', [(4,), (2, 4), (2, 3, 4), (0, 4), (2, 1, 3, 4)], ids=str)
@pytest.mark.parametrize('name', LAYERS)
@MODULES
def test_layers_are_those_of_pytorch(rung, name, shape):
    if name.startswith('Linear') and len(shape) == 1:
        return  # a vector is no matrix, as test_tensor.py says
    (ours, theirs), array = both(rung, name), noise(*shape) + 0.01
    x, y = exact(rung).Tensor(array), torch.tensor(array, requires_grad=True)
    out, expected = ours(x), theirs(y)
    np.testing.assert_allclose(out.data, expected.detach(), rtol=1e-6, atol=1e-9)
    weigh(out).backward()
    weigh_torch(expected).backward()
    pairs = [(x, y), *zip(ours.parameters(), theirs.parameters(), strict=True)]
    for a, b in pairs:
        np.testing.assert_allclose(a.grad, b.grad, rtol=1e-6, atol=1e-9)


@MODULES
def test_embedding_is_that_of_pytorch(rung):
    """A character that comes more than once gets the gradient of each time, one that never comes gets none."""
    ours, theirs = exact(rung).Embedding(5, 3), nn.Embedding(5, 3).double()
    ours.load_state_dict(theirs.state_dict())
    idx = np.array([[1, 3, 1], [1, 0, 4]])
    out, expected = ours(idx), theirs(torch.tensor(idx))
    np.testing.assert_array_equal(out.data, expected.detach())
    weigh(out).backward()
    weigh_torch(expected).backward()
    np.testing.assert_allclose(ours.weight.grad, theirs.weight.grad, rtol=1e-9)


@MODULES
def test_layers_start_as_those_of_pytorch(rung):
    """The spread of what is drawn; a uniform one never leaves its bounds."""
    module = exact(rung)
    linear, embedding, norm = module.Linear(100, 300), module.Embedding(300, 100), module.LayerNorm(7)
    assert [p.shape for p in linear.parameters()] == [(300, 100), (300,)]
    for p in linear.parameters():
        assert abs(p.data).max() <= 0.1 and p.data.std() == pytest.approx(0.1 / 3 ** 0.5, rel=0.1)
    assert embedding.weight.data.std() == pytest.approx(1, rel=0.03) and abs(embedding.weight.data.mean()) < 0.02
    assert (norm.weight.data == 1).all() and (norm.bias.data == 0).all()
    assert linear.weight.data.std() != exact(rung).Linear(100, 300).weight.data.std()


@MODULES
def test_dropout_drops_in_training_and_only_there(rung):
    module = exact(rung)
    dropout, x = module.Dropout(0.3), module.Tensor(np.ones((200, 200)))
    out = dropout(x)
    np.testing.assert_allclose(np.unique(out.data), [0, 1 / 0.7], rtol=1e-6)
    assert (out.data == 0).mean() == pytest.approx(0.3, abs=0.01)
    assert (dropout(x).data != out.data).any()
    out.sum().backward()
    np.testing.assert_array_equal(x.grad, out.data)  # what was dropped has no gradient, the rest was enlarged
    np.testing.assert_array_equal(dropout.eval()(x).data, x.data)


def model_of(library):
    """A model of parts within parts, of ours or of PyTorch's."""
    class Model(library.Module):
        def __init__(self):
            super().__init__()
            self.first = library.Embedding(5, 4)
            self.parts = library.ModuleList([library.Linear(4, 4), library.ReLU(), library.LayerNorm(4)])
            self.note = 'no part'
            self.last = library.Linear(4, 5, bias=False)
    return Model()


@MODULES
def test_state_dict_has_the_names_of_pytorch(rung):
    """The weights go over to PyTorch, and back, under the same names and in the same order."""
    module = exact(rung)
    ours, theirs = model_of(module), model_of(nn)
    assert list(ours.state_dict()) == list(theirs.state_dict()) == [name for name, _ in ours.named_parameters()]
    theirs.load_state_dict({name: torch.tensor(array) for name, array in ours.state_dict().items()})
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.data, q.detach(), rtol=1e-6)
    with torch.no_grad():
        for p in theirs.parameters():
            p += 1
    ours.load_state_dict(theirs.state_dict())
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_array_equal(p.data, q.detach())


@MODULES
def test_a_state_dict_is_a_copy_and_a_wrong_one_changes_nothing(rung):
    layer = exact(rung).Linear(2, 3)
    state = layer.state_dict()
    state['weight'] += 1
    assert (layer.state_dict()['weight'] != state['weight']).all()
    for wrong, says in (({'weight': state['weight']}, 'bias'), (state | {'more': 1}, 'more'),
                        (state | {'bias': np.zeros(4)}, r'bias.*\(3,\).*\(4,\)')):
        before = layer.state_dict()
        with pytest.raises(ValueError, match=says):
            layer.load_state_dict(wrong)
        assert all((layer.state_dict()[name] == before[name]).all() for name in before)
    layer.load_state_dict(state)
    state['weight'] += 1
    assert (layer.state_dict()['weight'] != state['weight']).all()


@MODULES
def test_train_and_eval_reach_every_part(rung):
    model = model_of(exact(rung))
    parts = [model, model.first, model.parts, *model.parts, model.last]
    assert len(model.parts) == 3 and model.parts[1] is parts[4]
    assert all(part.training for part in parts)
    assert model.eval() is model and not any(part.training for part in parts)
    assert model.train() is model and all(part.training for part in parts)


# The loss and the optimiser

@pytest.mark.parametrize('scale', [1, 30, 3000])
@TRAINED
def test_cross_entropy_is_that_of_pytorch(rung, scale):
    array, targets = noise(6, 5) * scale, np.array([0, 4, 2, 2, 1, 0])
    x, y = exact(rung).Tensor(array), torch.tensor(array, requires_grad=True)
    loss, expected = exact(rung).cross_entropy(x, targets), F.cross_entropy(y, torch.tensor(targets))
    np.testing.assert_allclose(loss.item(), expected.item(), rtol=1e-9)
    (loss * 3).backward()
    (expected * 3).backward()
    np.testing.assert_allclose(x.grad, y.grad, rtol=1e-7, atol=1e-12)


@TRAINED
def test_large_scores_do_not_overflow(rung):
    """Nor small ones: only differences count. The rung below makes something that is not a number of them."""
    for shift in (-5000, 0, 5000):
        loss = exact(rung).cross_entropy(exact(rung).Tensor(np.array([[1.0, 2.0, 3.0]]) + shift), np.array([1]))
        assert loss.item() == pytest.approx(np.log(np.exp([-1, 0, 1]).sum()))


@pytest.mark.parametrize('options', [{}, {'weight_decay': 0.5}, {'betas': (0.5, 0.8), 'eps': 0.1}, {'weight_decay': 0.0}], ids=str)
@TRAINED
def test_adamw_takes_the_steps_of_pytorch(rung, options):
    """Over steps with gradients of very different sizes, one without any, and one parameter that has none at first."""
    module = exact(rung)
    ours = [module.Parameter(noise(3, 2, seed=i)) for i in range(2)]
    theirs = [nn.Parameter(torch.tensor(p.data.copy())) for p in ours]
    optimizer, expected = module.AdamW(ours, lr=0.1, **options), torch.optim.AdamW(theirs, lr=0.1, **options)
    for step in range(8):
        optimizer.zero_grad()
        expected.zero_grad()
        assert all(p.grad is None for p in ours)
        for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            if step != 4 and (i == 0 or step > 2):
                grad = noise(3, 2, seed=step) * 10.0 ** (step - 4)
                p.grad, q.grad = grad.copy(), torch.tensor(grad)
        optimizer.step()
        expected.step()
        for p, q in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(p.data, q.detach(), rtol=1e-9)


# The bigram network of the root

@pytest.mark.parametrize('name', ['v3', 'v4', 'v5'])
def test_the_network_is_that_of_the_root(name):
    """With the same weights, on the same batch: v1's logits, loss and gradients."""
    root, module = module_of(by_path('babygpt_v1.py')), module_of(LADDER[name])
    theirs, ours = root.BabyGPT(29, 6).double(), module.BabyGPT(29, 6)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        p.data = q.detach().numpy().copy()
    x, y = np.random.RandomState(0).randint(29, size=(2, 3, 4))
    (logits, loss), (expected, expected_loss) = ours(x, y), theirs(torch.tensor(x), torch.tensor(y))
    np.testing.assert_allclose(logits.data, expected.detach(), rtol=1e-9)
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-12) and ours(x)[1] is None
    loss.backward()
    expected_loss.backward()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad, q.grad, rtol=1e-7, atol=1e-12)


def train(model, optimizer, data, steps):
    """The losses of `steps` steps on batches of `data` that are the same for ours and PyTorch's."""
    losses, random = [], np.random.RandomState(5)
    for _ in range(steps):
        starts = random.randint(len(data) - 9, size=(4, 1))
        chunks = data[starts + np.arange(9)]
        _, loss = model(chunks[:, :-1], chunks[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_v5_learns_as_v1_does(small_corpus):
    """The same weights, batches and constants: v1's losses at every step, so at the last as well."""
    root, module = module_of(by_path('babygpt_v1.py')), module_of(LADDER['v5'])
    tokenizer = module.Tokenizer(small_corpus)
    data = np.array(tokenizer.encode(small_corpus))
    theirs, ours = root.BabyGPT(tokenizer.vocab_size, 16).double(), module.BabyGPT(tokenizer.vocab_size, 16)
    ours.load_state_dict(theirs.state_dict())
    lr = module.learning_rate
    assert lr == root.learning_rate
    found = train(ours, module.AdamW(ours.parameters(), lr=lr), data, 60)
    expected = train(theirs, torch.optim.AdamW(theirs.parameters(), lr=lr), torch.tensor(data), 60)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found[-1] < found[0] - 0.5
