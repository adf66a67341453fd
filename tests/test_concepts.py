"""The last column of the ladder's table: what is true from a rung on, and false one rung below."""

import math

import pytest
import torch
from ladder import RUNGS, SIZES, build, random_ids, rung
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

ALL = list(RUNGS)
T = SIZES['block_size']


def from_rung(first):
    """Parametrize over the rung below (where the property must be false) and every rung from `first` on."""
    return pytest.mark.parametrize('number, expected', [(n, n >= first) for n in ALL if n >= first - 1])


class Spy(TorchFunctionMode):
    """Records what a torch function is given and returns, however the model spells the call."""

    def __init__(self, name):
        super().__init__()
        self.name, self.calls = name, []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if getattr(func, '__name__', '') == self.name and isinstance(result, torch.Tensor):
            self.calls.append((args[0], result))
        return result


def copy_weights(source, target, rename=lambda name: name):
    """Load every weight of `source` into `target`; whatever `target` has beyond them keeps its own."""
    missing, unexpected = target.load_state_dict(
        {rename(name): value for name, value in source.state_dict().items()}, strict=False)
    assert not unexpected, unexpected
    return missing


def changed_positions(model, idx, position):
    """Which positions get other logits when the token at `position` is replaced."""
    other = idx.clone()
    other[:, position] = (other[:, position] + 1) % SIZES['vocab_size']
    difference = (model(idx)[0] - model(other)[0]).abs().amax(dim=(0, 2))
    return (difference > 1e-6).nonzero().flatten().tolist()


# v1: embedding + linear

@pytest.mark.parametrize('number', ALL)
def test_forward_keeps_its_contract(number):
    model, idx = build(number), random_ids(3, T)
    logits, loss = model(idx)
    assert logits.shape == (3, T, SIZES['vocab_size']) and loss is None
    targets = random_ids(3, T, seed=2)
    logits, loss = model(idx, targets)
    probability = logits.softmax(-1).gather(-1, targets[..., None])
    assert torch.allclose(loss, -probability.log().mean(), atol=1e-6)


@pytest.mark.parametrize('number', ALL)
def test_generate_appends_tokens(number):
    model, idx = build(number), random_ids(2, 3)
    out = model.generate(idx, 2 * T)
    assert out.shape == (2, 3 + 2 * T) and torch.equal(out[:, :3], idx)
    assert out.dtype == torch.int64 and out.min() >= 0 and out.max() < SIZES['vocab_size']
    assert not out.requires_grad


@pytest.mark.parametrize('number', ALL)
def test_generate_samples_what_the_last_position_predicts(number):
    """Not the first position, and not always the likeliest token: drawn often enough, tokens show their probability."""
    model, idx = build(number), random_ids(1, 3)
    with torch.no_grad():
        model.lm_head.weight.mul_(4)  # far from uniform, so that the positions differ
    probability = model(idx)[0][0].softmax(-1)
    torch.manual_seed(0)
    drawn = model.generate(idx.expand(20_000, -1), 1)[:, -1]
    frequency = torch.bincount(drawn, minlength=SIZES['vocab_size']) / 20_000
    assert (frequency - probability[-1]).abs().max() < 0.02
    if number not in (5, 6):  # without residuals, all positions predict nearly the same
        assert (frequency - probability[0]).abs().max() > 0.04


@pytest.mark.parametrize('number', ALL)
def test_loss_starts_near_ln_vocab(number):
    model = build(number, vocab_size=1000, n_embd=64, n_layer=3)
    _, loss = model(random_ids(32, T, vocab_size=1000), random_ids(32, T, seed=2, vocab_size=1000))
    assert abs(loss.item() - math.log(1000)) < 0.8


@pytest.mark.parametrize('number', [1, 2])
def test_v1_and_v2_see_one_token_only(number):
    model, idx = build(number), random_ids(2, T)
    for position in range(T):
        assert changed_positions(model, idx, position) == [position]


# v2: position

@from_rung(2)
def test_same_token_differs_by_position(number, expected):
    model = build(number)
    idx = torch.full((1, T), 5)
    logits = model(idx)[0][0]
    different = any((logits[0] - logits[t]).abs().max() > 1e-6 for t in range(1, T))
    assert different == expected


@pytest.mark.parametrize('number', ALL[1:])
def test_generate_crops_the_context_to_block_size(number):
    """Beyond block_size there is no position to give a token; what lies before the last block_size is not seen."""
    model, long = build(number), random_ids(1, 3 * T)
    torch.manual_seed(3)
    from_long = model.generate(long, 5)[:, -5:]
    torch.manual_seed(3)
    from_end = model.generate(long[:, -T:], 5)[:, -5:]
    assert torch.equal(from_long, from_end)


@pytest.mark.parametrize('number', ALL[1:])
def test_generate_uses_the_whole_block(number):
    """The crop must not throw away more than it has to: forward is given block_size tokens."""
    model, seen = build(number), []
    model.token_embedding_table.register_forward_pre_hook(lambda _, args: seen.append(args[0].size(1)))
    model.generate(random_ids(1, T - 2), 6)
    assert seen == [T - 2, T - 1, T, T, T, T]


# v3: causal self-attention

@from_rung(3)
def test_logits_depend_on_earlier_tokens(number, expected):
    model, idx = build(number), random_ids(2, T)
    for position in range(T):
        changed = changed_positions(model, idx, position)
        assert (changed == list(range(position, T))) == (expected or position == T - 1), changed


@pytest.mark.parametrize('number', ALL)
@pytest.mark.parametrize('mode', ['eval', 'train'])
def test_logits_never_depend_on_later_tokens(number, mode):
    model, idx = build(number), random_ids(2, T)
    model.train(mode == 'train')
    for position in range(T):
        assert min(changed_positions(model, idx, position)) >= position


def attention_of(model):
    return model.sa if hasattr(model, 'sa') else model.blocks[0].sa


@pytest.mark.parametrize('number', ALL[2:])
def test_attention_is_scaled_dot_product_attention(number):
    """Held against PyTorch's own (Vaswani et al. 2017, eq. 1): scale by head size, mask, softmax over the keys."""
    model = build(number, n_head=1 if number == 3 else SIZES['n_head'])
    sa, heads = attention_of(model), 1 if number == 3 else SIZES['n_head']
    x = torch.randn(3, T, SIZES['n_embd'], generator=torch.Generator().manual_seed(1))
    q, k, v = (layer(x).view(3, T, heads, -1).transpose(1, 2) for layer in (sa.query, sa.key, sa.value))
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(x.shape)
    if number >= 8:
        expected = sa.proj(expected)
    assert torch.allclose(sa(x), expected, atol=1e-5)


@pytest.mark.parametrize('number', ALL[2:])
def test_queries_keys_values_have_no_bias(number):
    sa = attention_of(build(number))
    assert [layer.bias for layer in (sa.query, sa.key, sa.value)] == [None] * 3


@pytest.mark.parametrize('number', ALL[2:])
def test_short_and_single_token_contexts(number):
    """A prefix gives the logits it gives inside a longer text."""
    model, idx = build(number), random_ids(2, T)
    whole = model(idx)[0]
    for length in range(1, T):
        assert torch.allclose(model(idx[:, :length])[0], whole[:, :length], atol=1e-5)


# v4: heads

def test_v4_with_one_head_equals_v3():
    v3, v4 = build(3), build(4, seed=9, n_head=1)
    assert not copy_weights(v3, v4)
    idx = random_ids(3, T)
    assert torch.allclose(v3(idx)[0], v4(idx)[0], atol=1e-6)


@from_rung(4)
def test_attends_in_as_many_patterns_as_heads(number, expected):
    sa = attention_of(build(number))
    with Spy('softmax') as spy:
        sa(torch.randn(1, T, SIZES['n_embd'], generator=torch.Generator().manual_seed(1)))
    [(_, weights)] = spy.calls
    patterns = weights.reshape(-1, T, T)
    assert torch.allclose(patterns.sum(-1), torch.ones(len(patterns), T))
    assert (len(patterns) == SIZES['n_head']) == expected
    distances = torch.cdist(patterns.flatten(1), patterns.flatten(1)) + torch.eye(len(patterns))
    assert distances.min() > 1e-3


def test_heads_cost_no_parameters():
    assert len({sum(p.numel() for p in build(4, n_head=n).parameters()) for n in (1, 2, 4, 8)}) == 1


# v5: feed-forward

def is_affine_after_attention(model):
    """Whether the way from what attention returns to the logits is affine: the middle goes to the middle."""
    returned = []
    model.sa.register_forward_hook(lambda *_: returned[-1])
    values = torch.randn(2, 1, T, SIZES['n_embd'], generator=torch.Generator().manual_seed(1))
    logits = []
    for value in (values[0], values[1], values.mean(dim=0)):
        returned.append(value)
        logits.append(model(random_ids(1, T))[0])
    return torch.allclose((logits[0] + logits[1]) / 2, logits[2], atol=1e-5)


def test_attention_output_passes_a_non_linearity_from_v5_on():
    assert is_affine_after_attention(build(4))
    assert not is_affine_after_attention(build(5))


@pytest.mark.parametrize('number', ALL[4:])
def test_feed_forward_is_two_layers_four_times_wide_with_relu(number):
    model, n_embd = build(number), SIZES['n_embd']
    ffwd = model.ffwd if number == 5 else model.blocks[0].ffwd
    first, second = (layer for layer in ffwd.net if hasattr(layer, 'weight'))
    assert first.weight.shape == (4 * n_embd, n_embd) and second.weight.shape == (n_embd, 4 * n_embd)
    x = torch.randn(2, T, n_embd)
    assert torch.allclose(ffwd(x), second(first(x).clamp(min=0)), atol=1e-6)


@pytest.mark.parametrize('number', ALL[4:])
def test_feed_forward_works_on_each_position_alone(number):
    model = build(number)
    ffwd = model.ffwd if number == 5 else model.blocks[0].ffwd
    x = torch.randn(2, T, SIZES['n_embd'])
    assert torch.allclose(ffwd(x)[:, 2:3], ffwd(x[:, 2:3]), atol=1e-6)


# v6: depth

def test_v6_with_one_layer_equals_v5():
    v5, v6 = build(5), build(6, seed=9, n_layer=1)
    assert not copy_weights(v5, v6, lambda name: f'blocks.0.{name}' if name.startswith(('sa.', 'ffwd.')) else name)
    idx = random_ids(3, T)
    assert torch.allclose(v5(idx)[0], v6(idx)[0], atol=1e-6)


@pytest.mark.parametrize('number', ALL[5:])
def test_depth_is_a_number(number):
    counts = [sum(p.numel() for p in build(number, n_layer=n).parameters()) for n in (1, 2, 5)]
    assert counts[2] - counts[0] == 4 * (counts[1] - counts[0]) > 0


@pytest.mark.parametrize('number', ALL[5:])
@pytest.mark.parametrize('position', range(3))
def test_every_layer_is_used(number, position):
    model, idx = build(number, n_layer=3), random_ids(2, T)
    before = model(idx)[0]
    with torch.no_grad():
        for parameter in model.blocks[position].parameters():
            parameter.zero_()
    assert not torch.allclose(before, model(idx)[0], atol=1e-4)


# v7: residual connections

def zero_sublayers(block):
    """Zero what each sublayer computes: the value matrix kills attention, all weights the feed-forward part."""
    with torch.no_grad():
        for parameter in [*block.sa.parameters(), *block.ffwd.parameters()]:
            parameter.zero_()


@from_rung(7)
@pytest.mark.parametrize('scale', [1.0, 100.0])
def test_block_with_zeroed_sublayers_is_the_identity(number, expected, scale):
    """Also what tells pre-norm from post-norm: after a norm, the stream would not be the identity."""
    block = build(number).blocks[0]
    zero_sublayers(block)
    x = scale * torch.randn(2, T, SIZES['n_embd'])
    assert torch.equal(block(x), x) == expected


@pytest.mark.parametrize('number', ALL[6:])
@pytest.mark.parametrize('sublayer', ['sa', 'ffwd'])
def test_each_sublayer_has_its_own_residual(number, sublayer):
    """With the other sublayer zeroed, the block adds to x exactly what this one returned."""
    block = build(number).blocks[0]
    other = block.ffwd if sublayer == 'sa' else block.sa
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    returned = []
    getattr(block, sublayer).register_forward_hook(lambda _, __, out: returned.append(out))
    x = torch.randn(2, T, SIZES['n_embd'])
    assert torch.allclose(block(x), x + returned[0], atol=1e-6)


@from_rung(7)
def test_gradient_of_the_first_layer_survives_16_blocks(number, expected):
    model = build(number, n_layer=16)
    model(random_ids(8, T), random_ids(8, T, seed=2))[1].backward()
    first, last = (model.blocks[i].ffwd.net[0].weight.grad.norm() for i in (0, -1))
    assert (first > 0.1 * last) == expected
    if not expected:
        assert first < 1e-3 * last  # not merely small: gone


# v8: projection

def test_v8_with_identity_projection_equals_v7():
    v7, v8 = build(7), build(8, seed=9)
    missing = copy_weights(v7, v8)
    assert missing and all('.proj.' in name for name in missing)
    with torch.no_grad():
        for block in v8.blocks:
            block.sa.proj.weight.copy_(torch.eye(SIZES['n_embd']))
            block.sa.proj.bias.zero_()
    idx = random_ids(3, T)
    assert torch.allclose(v7(idx)[0], v8(idx)[0], atol=1e-5)


@from_rung(8)
def test_heads_can_mix(number, expected):
    """Change what the first head fetches: below v8 only its own slice of the output moves, from v8 on all of it."""
    sa = attention_of(build(number))
    head_size = SIZES['n_embd'] // SIZES['n_head']
    x = torch.randn(2, T, SIZES['n_embd'])
    before = sa(x)
    with torch.no_grad():
        sa.value.weight[:head_size] += 1
    moved = (sa(x) - before).abs().amax(dim=(0, 1)) > 1e-5
    assert moved[:head_size].all()
    assert moved[head_size:].all() == expected and moved[head_size:].any() == expected


# v9: layer norm

@from_rung(9)
@pytest.mark.parametrize('scale', [0.1, 100.0])
def test_sublayers_see_mean_0_and_variance_1_whatever_the_scale(number, expected, scale):
    model, seen = build(number), []
    for block in model.blocks:
        for sublayer in (block.sa, block.ffwd):
            sublayer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.lm_head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model.token_embedding_table.weight.mul_(scale)
        model.position_embedding_table.weight.mul_(scale)
    model(random_ids(3, T))
    assert len(seen) == 2 * SIZES['n_layer'] + 1
    for x in seen:
        normal = (x.mean(-1).abs().max() < 1e-3
                  and (x.var(-1, unbiased=False) - 1).abs().max() < 0.05)
        assert bool(normal) == expected


@pytest.mark.parametrize('number', ALL[8:])
def test_attention_and_feed_forward_have_norms_of_their_own(number):
    block = build(number).blocks[0]
    with torch.no_grad():
        block.ln1.weight.fill_(2)
        block.ln2.weight.fill_(3)
    seen = []
    for sublayer in (block.sa, block.ffwd):
        sublayer.register_forward_pre_hook(lambda _, args: seen.append(args[0].std(-1, unbiased=False).mean().item()))
    block(torch.randn(4, T, SIZES['n_embd']))
    assert seen == pytest.approx([2, 3], rel=1e-2)


# v10: dropout

@from_rung(10)
def test_stochastic_in_train_mode(number, expected):
    model, idx = build(number, dropout=0.5).train(), random_ids(3, T)
    assert (not torch.equal(model(idx)[0], model(idx)[0])) == expected


@pytest.mark.parametrize('number', ALL)
def test_deterministic_in_eval_mode(number):
    model, idx = build(number, dropout=0.5), random_ids(3, T)
    assert torch.equal(model(idx)[0], model(idx)[0])


@pytest.mark.parametrize('number', ALL[9:])
def test_eval_mode_equals_v9(number):
    v9, model = build(9), build(number, seed=9, dropout=0.5)
    assert not copy_weights(v9, model)
    idx = random_ids(3, T)
    assert torch.allclose(v9(idx)[0], model(idx)[0], atol=1e-6)


@pytest.mark.parametrize('number', ALL[9:])
def test_dropout_falls_on_attention_weights_and_both_sublayer_outputs(number):
    model, sizes = build(number, dropout=0.5).train(), SIZES
    with Spy('dropout') as spy:
        model(random_ids(3, T))
    shapes = [tuple(result.shape) for _, result in spy.calls]
    weights, stream = (3, sizes['n_head'], T, T), (3, T, sizes['n_embd'])
    assert shapes == [weights, stream, stream] * sizes['n_layer']
    for given, result in spy.calls[::3]:  # what is dropped are weights, after the softmax
        assert torch.allclose(given.sum(-1), torch.ones(3, sizes['n_head'], T))
        kept = result != 0
        assert torch.allclose(result[kept], 2 * given[kept])


@pytest.mark.parametrize('number', ALL[9:])
def test_dropout_never_falls_on_the_residual_stream(number):
    block = build(number, dropout=0.9).train().blocks[0]
    zero_sublayers(block)
    x = torch.randn(2, T, SIZES['n_embd'])
    assert torch.equal(block(x), x)


@pytest.mark.parametrize('number', ALL)
def test_importing_trains_nothing_and_defines_the_contract(number):
    module = rung(number)
    for name in ['Tokenizer', 'get_batch', 'estimate_loss', 'BabyGPT', 'main']:
        assert callable(getattr(module, name))


# The whole, held against an independent implementation of the same architecture.

def reference_logits(state, idx, n_head, n_layer):
    """GPT-2's pre-norm decoder (Radford et al. 2019, section 2.3) written as functions of the saved weights."""
    w = state.__getitem__
    x = w('token_embedding_table.weight')[idx] + w('position_embedding_table.weight')[:idx.size(1)]
    width = x.size(-1)
    for layer in range(n_layer):
        name = f'blocks.{layer}.'
        h = F.layer_norm(x, (width,), w(name + 'ln1.weight'), w(name + 'ln1.bias'))
        heads = [torch.einsum('btc,dc->btd', h, w(f'{name}sa.{part}.weight')).split(width // n_head, dim=-1)
                 for part in ('query', 'key', 'value')]
        fetched = [F.scaled_dot_product_attention(q, k, v, is_causal=True) for q, k, v in zip(*heads, strict=True)]
        x = x + torch.cat(fetched, dim=-1) @ w(name + 'sa.proj.weight').T + w(name + 'sa.proj.bias')
        h = F.layer_norm(x, (width,), w(name + 'ln2.weight'), w(name + 'ln2.bias'))
        h = torch.relu(h @ w(name + 'ffwd.net.0.weight').T + w(name + 'ffwd.net.0.bias'))
        x = x + h @ w(name + 'ffwd.net.2.weight').T + w(name + 'ffwd.net.2.bias')
    x = F.layer_norm(x, (width,), w('ln_f.weight'), w('ln_f.bias'))
    return x @ w('lm_head.weight').T + w('lm_head.bias')


@pytest.mark.parametrize('number', ALL[8:])
def test_final_model_equals_an_independent_implementation(number):
    model, idx = build(number, n_layer=3, dropout=0.5), random_ids(3, T)
    with torch.no_grad():
        for parameter in model.parameters():  # norms start as the identity: shake everything
            parameter.add_(0.1 * torch.randn(parameter.shape))
    expected = reference_logits(model.state_dict(), idx, SIZES['n_head'], 3)
    assert torch.allclose(model(idx)[0], expected, atol=1e-4)
