"""The KV cache is exact: the same logits as v12's full pass, and the same text with the same seed."""

import pytest
import torch

from kit.ladders import LADDERS
from kit.scripts import load, module_of
from tests.root.models import BLOCK_SIZE, random_ids

sampler = load('babygpt_sample_with_kvcache.py')
v12 = module_of(LADDERS['root']['v12'])


@pytest.fixture(params=[(7, 24, 4, 2), (8, 24, 1, 3), (1, 8, 2, 1)], ids=str)
def pair(request):
    """v12's model and the sampler's with the same weights, all of them random (norms and biases too)."""
    block_size, n_embd, n_head, n_layer = request.param
    sizes = {'vocab_size': 29, 'block_size': block_size, 'n_embd': n_embd, 'n_head': n_head, 'n_layer': n_layer}
    torch.manual_seed(0)
    full, cached = v12.BabyGPT(**sizes, dropout=0.3).eval(), sampler.BabyGPT(**sizes)
    with torch.no_grad():
        for parameter in full.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    cached.load_state_dict(full.state_dict())
    return full, cached


def test_weights_fit_without_renaming(pair):
    full, cached = pair
    assert full.state_dict().keys() == cached.state_dict().keys()


def test_nothing_is_dropped_where_nothing_trains(pair):
    _, cached = pair
    assert not any(isinstance(module, torch.nn.Dropout) for module in cached.train().modules())


def test_token_by_token_logits_equal_the_full_pass(pair):
    full, cached = pair
    idx = random_ids(3, full.block_size)
    expected = full(idx)[0]
    cache = cached.empty_cache(3)
    for t in range(full.block_size):
        logits = cached(idx[:, t:t + 1], cache, t)
        assert torch.allclose(logits[:, 0], expected[:, t], atol=1e-4)


def test_any_split_into_pieces_gives_the_logits_of_the_full_pass(pair):
    full, cached = pair
    idx = random_ids(2, full.block_size)
    expected = full(idx)[0]
    for first in range(1, full.block_size + 1):
        cache = cached.empty_cache(2)
        pieces = [cached(idx[:, :first], cache, 0)]
        if first < full.block_size:
            pieces.append(cached(idx[:, first:], cache, first))
        assert torch.allclose(torch.cat(pieces, dim=1), expected, atol=1e-4)


@torch.no_grad()
def test_the_cache_is_one_tensor_pair_per_layer_written_in_place(pair):
    """Each step writes its own position and reads none that has not been written."""
    _, cached = pair
    cache = cached.empty_cache(2)
    assert len(cache) == len(cached.blocks)
    tensors = [tensor.fill_(float('nan')) for layer in cache for tensor in layer]
    assert all(tensor.size(2) == cached.block_size for tensor in tensors)
    for step in range(cached.block_size):
        assert cached(random_ids(2, 1, seed=step), cache, step).isfinite().all()
        for tensor in tensors:
            assert tensor[:, :, :step + 1].isfinite().all() and tensor[:, :, step + 1:].isnan().all()


def spy_on_logits(model):
    """Record, for every pass of the model, how many tokens it was given, and its last logits."""
    seen = []

    def record(_, args, output):
        seen.append((args[0].size(1), output[:, -1]))

    model.register_forward_hook(record)
    return seen


@pytest.mark.parametrize('length', [1, 2, 5])
def test_same_text_as_v12_while_it_fits(pair, length):
    full, cached = pair
    length = min(length, full.block_size)
    prompt, new = random_ids(1, length), full.block_size - length + 1
    for seed in range(5):
        torch.manual_seed(seed)
        expected = full.generate(prompt, new)[0, length:].tolist()
        torch.manual_seed(seed)
        assert [idx.item() for idx in cached.generate(prompt, new)] == expected


@pytest.mark.parametrize('length', [1, 4, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, 3 * BLOCK_SIZE])
def test_every_step_equals_the_full_pass_on_what_the_cache_holds(pair, length):
    """Also past block_size, and for prompts longer than it: nothing the model is shown or forgets is off by one."""
    full, cached = pair
    size = full.block_size
    prompt, seen = random_ids(1, length), spy_on_logits(cached)
    text = prompt
    held = given = min(length, size)  # how many tokens the cache holds, and how many this step adds
    for step, idx in enumerate(cached.generate(prompt, 3 * size + 2)):
        if step and held < size:
            held, given = held + 1, 1
        elif step:
            held = given = (size + 1) // 2
        count, logits = seen[step]
        assert count == given
        assert torch.allclose(logits, full(text[:, -held:])[0][:, -1], atol=1e-4)
        text = torch.cat([text, idx], dim=1)
    assert len(seen) == 3 * size + 2


def test_long_prompts_begin_as_v12_does(pair):
    full, cached = pair
    prompt = random_ids(1, 3 * full.block_size)
    torch.manual_seed(1)
    expected = full.generate(prompt, 1)[0, -1].item()
    torch.manual_seed(1)
    assert next(iter(cached.generate(prompt, 1))).item() == expected


def frequencies(model, prompt, count, **options):
    torch.manual_seed(0)
    drawn = torch.cat(list(model.generate(prompt.expand(count, -1), 1, **options)))
    return torch.bincount(drawn.flatten(), minlength=29) / count


def test_temperature_and_top_k_shape_the_distribution(pair):
    full, cached = pair
    prompt = random_ids(1, 1)
    logits = full(prompt)[0][0, -1]
    assert torch.allclose(frequencies(cached, prompt, 20_000), logits.softmax(-1), atol=0.02)
    cold = frequencies(cached, prompt, 20_000, temperature=0.5)
    assert torch.allclose(cold, (logits / 0.5).softmax(-1), atol=0.02)
    best = logits.topk(3).indices
    expected = torch.zeros(29)
    expected[best] = logits[best].softmax(-1)
    assert torch.allclose(frequencies(cached, prompt, 20_000, top_k=3), expected, atol=0.02)
    assert frequencies(cached, prompt, 50, top_k=1)[logits.argmax()] == 1
    everything = frequencies(cached, prompt, 2_000, top_k=10_000)
    assert torch.equal(everything, frequencies(cached, prompt, 2_000))


def test_generate_gives_each_token_as_soon_as_it_is_made(pair):
    _, cached = pair
    seen = spy_on_logits(cached)
    stream = cached.generate(random_ids(1, 1), 50)
    assert not seen
    next(stream)
    assert len(seen) == 1
    next(stream)
    assert len(seen) == 2
