"""What every rung shares: tokenizer, batches, evaluation; and the bigram models before the ladder."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from ladder import RUNGS, SAMPLER, build, load, rung
from torch.nn import functional as F

ALL = list(RUNGS)


@pytest.mark.parametrize('number', ALL)
def test_tokenizer(number):
    tokenizer = rung(number).Tokenizer('往事知多少，往事。\n')
    assert tokenizer.vocab_size == 8
    assert tokenizer.decode(range(8)) == ''.join(sorted('往事知多少，。\n'))
    ids = tokenizer.encode('少多\n')
    assert all(type(i) is int for i in ids)
    assert tokenizer.decode(ids) == '少多\n'
    assert tokenizer.encode('') == [] and tokenizer.decode([]) == ''


@pytest.mark.parametrize('number', ALL)
def test_tokenizer_names_the_characters_it_does_not_know(number):
    with pytest.raises(ValueError, match='A.*Z') as error:
        rung(number).Tokenizer('往事').encode('往A事Z')
    assert '往' not in str(error.value)


@pytest.mark.parametrize('number', ALL)
def test_batches_are_pieces_of_the_data_with_the_next_token_as_target(number):
    data = torch.randperm(100)  # each value once, so a token tells its place
    place = torch.empty_like(data)
    place[data] = torch.arange(100)
    x, y = rung(number).get_batch(data, 64, 9)
    assert x.shape == y.shape == (64, 9) and x.dtype == y.dtype == torch.int64
    assert (place[x].diff(dim=1) == 1).all()
    assert torch.equal(place[y], place[x] + 1)


@pytest.mark.parametrize('number', ALL)
def test_batches_reach_both_ends_of_the_data_and_differ(number):
    data = torch.arange(12)
    x, y = rung(number).get_batch(data, 500, 9)
    assert x.min() == 0 and y.max() == 11
    assert set(x[:, 0].tolist()) == {0, 1, 2}
    x, y = rung(number).get_batch(torch.arange(10), 5, 9)  # one place only
    assert (x[:, 0] == 0).all() and (y[:, -1] == 9).all()


def evaluate(number, model, train, val):
    return rung(number).estimate_loss(model, train, val, eval_iters=3, batch_size=4, block_size=5)


@pytest.mark.parametrize('number', ALL)
def test_evaluation_is_repeatable_and_leaves_training_alone(number):
    model = build(number, dropout=0.5).train()
    train, val = torch.randint(29, (2, 300))
    torch.manual_seed(4)
    before = torch.random.get_rng_state()
    first = evaluate(number, model, train, val)
    assert torch.equal(before, torch.random.get_rng_state())
    assert model.training
    torch.manual_seed(5)
    assert evaluate(number, model, train, val) == first
    assert set(first) == {'train', 'val'} and all(type(value) is float for value in first.values())
    assert first['train'] != first['val']
    assert evaluate(number, model, val, train) == {'train': first['val'], 'val': first['train']}


@pytest.mark.parametrize('number', ALL)
def test_evaluation_is_the_mean_loss_in_eval_mode_without_gradients(number):
    model = build(number, dropout=0.5).train()
    data, seen = torch.randint(29, (300,)), []

    def record(module, args, output):
        seen.append((module.training, torch.is_grad_enabled(), output[1].item()))

    model.register_forward_hook(record)
    losses = evaluate(number, model, data, data)
    assert len(seen) == 6 and not any(training or grad for training, grad, _ in seen)
    assert losses['train'] == pytest.approx(sum(loss for *_, loss in seen[:3]) / 3)


# Before the ladder

TEXT = '往事只堪哀，对景难排。往事知多少。'


def test_counting_batches_counts_every_pair():
    """One model in numpy, one in torch, the same counts: the same probabilities, and what add-one smoothing gives."""
    plain, bridge = load('simplebigrammodel.py'), load('simplebigrammodel_torch.py')
    ids = plain.Tokenizer(TEXT).encode(TEXT)
    size = plain.Tokenizer(TEXT).vocab_size
    x, y = np.array([ids[:-1]] * 3), np.array([ids[1:]] * 3)  # repeated pairs in one batch must all count
    numpy_model, torch_model = plain.BigramLanguageModel(size), bridge.BigramLanguageModel(size)
    numpy_model.count(x, y)
    torch_model.count(torch.tensor(x), torch.tensor(y))

    counts = np.ones((size, size))
    for a, b in pairwise(ids):
        counts[a, b] += 3
    expected = np.log(counts / counts.sum(axis=1, keepdims=True))
    everything = np.arange(size)[None]
    assert np.allclose(numpy_model.forward(everything)[0][0], expected, atol=1e-6)
    assert np.allclose(torch_model(torch.tensor(everything))[0][0], expected, atol=1e-6)

    loss = -np.mean([expected[a, b] for a, b in pairwise(ids)])
    assert numpy_model.forward(x, y)[1] == pytest.approx(loss, abs=1e-6)
    assert torch_model(torch.tensor(x), torch.tensor(y))[1].item() == pytest.approx(loss, abs=1e-6)


def test_bigram_models_generate_what_they_counted():
    for name in ['simplebigrammodel.py', 'simplebigrammodel_torch.py']:
        module = load(name)
        array = np.array if name == 'simplebigrammodel.py' else torch.tensor
        model = module.BigramLanguageModel(5)
        np.random.seed(0)
        torch.manual_seed(0)
        for _ in range(400):  # a ring: 0 → 1 → 2 → 3 → 4 → 0, so often that smoothing hardly matters
            model.count(array([[0, 1, 2, 3, 4]] * 20), array([[1, 2, 3, 4, 0]] * 20))
        out = model.generate(array([[3], [0]]), 4)
        assert out.tolist() == [[3, 4, 0, 1, 2], [0, 1, 2, 3, 4]]


def test_bigram_sampling_follows_the_probabilities():
    for name in ['simplebigrammodel.py', 'simplebigrammodel_torch.py']:
        module = load(name)
        array = np.array if name == 'simplebigrammodel.py' else torch.tensor
        model = module.BigramLanguageModel(3)
        model.count(array([[0] * 6]), array([[1] * 5 + [2]]))  # plus one each: 1, 6, 2 of 9
        np.random.seed(0)
        torch.manual_seed(0)
        drawn = [row[1] for row in model.generate(array([[0]] * 9000), 1).tolist()]
        assert [drawn.count(i) / 1000 for i in range(3)] == pytest.approx([1, 6, 2], abs=0.25)


# Learning

def entropy_of_bigrams(ids):
    """Conditional entropy in nats per token of what follows given one token: no bigram model does better."""
    counts = np.zeros((max(ids) + 1,) * 2)
    for a, b in pairwise(ids):
        counts[a, b] += 1
    rows = counts.sum(axis=1, keepdims=True)
    used = counts > 0
    return -(counts[used] * np.log((counts / np.maximum(rows, 1))[used])).sum() / counts.sum()


def fit(model, x, y, steps, rate):
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for _ in range(steps):
        loss = model(x, y)[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def test_v1_reaches_the_entropy_of_its_bigrams_and_no_lower(corpus):
    ids = rung(1).Tokenizer(corpus[:600]).encode(corpus[:600])
    data = torch.tensor(ids)[None]
    model = build(1, vocab_size=max(ids) + 1, n_embd=64)
    loss, bound = fit(model, data[:, :-1], data[:, 1:], steps=400, rate=3e-2), entropy_of_bigrams(ids)
    assert bound > 0.3
    assert bound - 1e-4 < loss < bound + 0.05


@pytest.mark.parametrize('number', ALL[6:])
def test_from_v7_on_a_small_model_overfits_one_batch(number, corpus):
    """What v1 can't: with context, every next token of one batch becomes certain."""
    ids = rung(1).Tokenizer(corpus[:600]).encode(corpus[:600])
    x, y = (torch.tensor(part).view(8, 32) for part in (ids[:256], ids[1:257]))
    model = build(number, vocab_size=max(ids) + 1, block_size=32, n_embd=64)
    assert fit(model.train(), x, y, steps=300, rate=3e-3) < 0.05
    assert model.eval()(x, y)[1].item() < 0.05


@pytest.mark.parametrize('number', ALL)
def test_every_parameter_gets_a_gradient(number):
    """A table or layer that is made but not used is a bug no loss shows at this size."""
    model = build(number).train()
    ids = torch.arange(7)[None]
    model(ids, (ids + 1) % 29)[1].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_sampler_has_the_tokenizer_of_the_ladder():
    assert load(SAMPLER).Tokenizer('往事').encode('事往') == rung(12).Tokenizer('往事').encode('事往')


def test_untrained_loss_is_ln_of_the_vocabulary_for_counts():
    model = load('simplebigrammodel_torch.py').BigramLanguageModel(50)
    ids = torch.arange(50)[None]
    assert model(ids, ids)[1].item() == pytest.approx(math.log(50), abs=1e-5)
    assert torch.allclose(F.softmax(model(ids)[0], -1).sum(-1), torch.ones(1, 50))
