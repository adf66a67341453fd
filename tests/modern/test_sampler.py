"""The sampler of v20's architecture: its cache is exact, within the window and past it, alone and in a batch; its filters
keep what their definitions say."""

import math
import re

import pytest
import torch
from torch.nn import functional as F
from transformers.generation import logits_process as processors

from kit.ladders import LADDERS
from kit.scripts import load, module_of
from tests.root.models import random_ids

sampler = load('modern/babygpt_sample.py')
v20 = module_of(LADDERS['modern']['v20'])
VOCAB_SIZE = 29


@pytest.fixture(params=[(7, 24, 4, 2, 2), (8, 24, 4, 4, 3), (9, 24, 6, 1, 1), (1, 8, 2, 1, 1)], ids=str)
def pair(request):
    """v20's model and the sampler's with the same weights, all of them random (norms too)."""
    block_size, n_embd, n_head, n_kv_head, n_layer = request.param
    sizes = {'vocab_size': VOCAB_SIZE, 'block_size': block_size, 'n_embd': n_embd, 'n_head': n_head, 'n_kv_head': n_kv_head,
             'n_layer': n_layer}
    torch.manual_seed(0)
    full, cached = v20.BabyGPT(**sizes, dropout=0.3).eval(), sampler.BabyGPT(**sizes)
    with torch.no_grad():
        for parameter in full.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    cached.load_state_dict(full.state_dict())
    return full, cached, sizes


def windowed(full, sizes, length):
    """v20's model with the same weights on texts of that length, each token seeing the last block_size ones."""
    model = v20.BabyGPT(**sizes | {'block_size': length}, dropout=0.0).eval()
    model.load_state_dict(full.state_dict())
    place = torch.arange(length)
    hidden = (place > place[:, None]) | (place <= place[:, None] - full.block_size)
    for block in model.blocks:
        block.sa.future.copy_(torch.zeros(length, length).masked_fill(hidden, float('-inf')))
    return model


def nothing(cached, batch_size):
    return torch.zeros(batch_size, cached.block_size, dtype=torch.bool)


def test_weights_fit_without_renaming_and_stay_tied(pair):
    full, cached, _ = pair
    assert full.state_dict().keys() == cached.state_dict().keys()
    assert cached.lm_head.weight is cached.token_embedding_table.weight


@torch.no_grad()
def test_token_by_token_logits_equal_the_full_pass(pair):
    """Also far past block_size: there it is the full pass with a sliding window."""
    full, cached, sizes = pair
    length = 4 * full.block_size + 3
    idx = random_ids(3, length)
    expected = windowed(full, sizes, length)(idx)[0]
    cache = cached.empty_cache(3)
    for t in range(length):
        logits = cached(idx[:, t:t + 1], cache, t, nothing(cached, 3))
        assert torch.allclose(logits[:, 0], expected[:, t], atol=1e-4), t
    assert torch.allclose(expected[:, :full.block_size], full(idx[:, :full.block_size])[0], atol=1e-4)


@torch.no_grad()
def test_any_split_into_pieces_gives_the_logits_of_the_full_pass(pair):
    full, cached, _ = pair
    idx = random_ids(2, full.block_size)
    expected = full(idx)[0]
    for first in range(1, full.block_size + 1):
        cache, padding = cached.empty_cache(2), nothing(cached, 2)
        pieces = [cached(idx[:, :first], cache, 0, padding)]
        if first < full.block_size:
            pieces.append(cached(idx[:, first:], cache, first, padding))
        assert torch.allclose(torch.cat(pieces, dim=1), expected, atol=1e-4)


@torch.no_grad()
def test_the_cache_holds_the_heads_of_keys_only_and_each_step_writes_one_column(pair):
    """No more heads than n_kv_head, nothing read that was not written, the oldest column overwritten."""
    full, cached, sizes = pair
    cache = cached.empty_cache(2)
    assert len(cache) == sizes['n_layer']
    tensors = [tensor.fill_(float('nan')) for layer in cache for tensor in layer]
    head_size = sizes['n_embd'] // sizes['n_head']
    assert all(tensor.shape == (2, sizes['n_kv_head'], full.block_size, head_size) for tensor in tensors)
    for step in range(2 * full.block_size + 1):
        before = [tensor.clone() for tensor in tensors]
        assert cached(random_ids(2, 1, seed=step), cache, step, nothing(cached, 2)).isfinite().all()
        for old, new in zip(before, tensors, strict=True):
            changed = ~((old == new) | (old.isnan() & new.isnan())).all(dim=(0, 1, 3))
            assert changed.nonzero().flatten().tolist() == [step % full.block_size]


def spied(cached):
    """The last logits of every pass of the model, as it generates."""
    seen = []
    cached.register_forward_hook(lambda _, args, output: seen.append(output[:, -1]))
    return seen


def padded(prompts):
    longest = max(map(len, prompts))
    ids = torch.stack([torch.cat([prompt[:1].expand(longest - len(prompt)), prompt]) for prompt in prompts])
    return ids, torch.tensor([[i < longest - len(prompt) for i in range(longest)] for prompt in prompts])


@torch.no_grad()
def test_prompts_of_different_lengths_in_one_batch_are_each_exact(pair):
    """Every row equals the full pass on its own text alone, past block_size too; padding is seen by nobody."""
    full, cached, sizes = pair
    lengths = sorted({1, max(1, full.block_size // 2), full.block_size, full.block_size + 3})
    prompts = [random_ids(1, length, seed=length)[0] for length in lengths]
    seen, new = spied(cached), 2 * full.block_size + 3
    written = torch.cat(list(cached.generate(*padded(prompts)[:1], new, padded(prompts)[1])), dim=1)
    for row, prompt in enumerate(prompts):
        prompt = prompt[-full.block_size:]  # of a longer one only the end is read
        text = torch.cat([prompt, written[row]])
        expected = windowed(full, sizes, len(text))(text[None])[0][0]
        for step in range(new):
            assert torch.allclose(seen[step][row], expected[len(prompt) - 1 + step], atol=1e-4), (row, step)


def test_what_is_in_the_padding_changes_nothing(pair):
    _, cached, _ = pair
    idx, padding = padded([random_ids(1, length)[0] for length in (1, cached.block_size)])
    seen = spied(cached)
    for filling in (0, 7):
        torch.manual_seed(1)
        list(cached.generate(idx.masked_fill(padding, filling), 3, padding))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(seen[:3], seen[3:], strict=True))


@pytest.mark.parametrize('extra', [1, 5, 30])
def test_a_prompt_longer_than_the_block_counts_with_its_end(pair, extra):
    full, cached, _ = pair
    prompt, seen = random_ids(1, full.block_size + extra), spied(cached)
    next(iter(cached.generate(prompt, 1)))
    assert torch.allclose(seen[0], full(prompt[:, -full.block_size:])[0][:, -1], atol=1e-4)


@torch.no_grad()
def test_the_text_is_what_is_drawn_from_the_full_pass_with_the_same_seed_while_it_fits(pair):
    full, cached, _ = pair
    prompt = random_ids(1, 1)
    for seed in range(5):
        torch.manual_seed(seed)
        expected = prompt
        while expected.size(1) <= full.block_size:
            expected = torch.cat([expected, sampler.pick(full(expected)[0][:, -1], None)], dim=1)
        torch.manual_seed(seed)
        assert [idx.item() for idx in cached.generate(prompt, full.block_size)] == expected[0, 1:].tolist()


def test_the_ends_of_the_line_of_probabilities_are_drawn_rightly(monkeypatch):
    """Nothing that a filter left out is drawn, and nothing beyond the last, whatever the random number."""
    logits = torch.tensor([[float('-inf'), 0.0, float('-inf'), 1.0, float('-inf')]])
    for number, expected in [(0.0, 3), (1 - 2 ** -24, 1)]:
        monkeypatch.setattr(torch, 'rand', lambda *size, number=number, **_: torch.full(size, number))
        assert sampler.pick(logits, None).tolist() == [[expected]]


# The form, as a constraint

TITLE, FORMS = '字名名名名\n', ['字字，字。\n字字字。', '字、字字。', '字。\n字。\n字。\n字字字。']
TOKENIZER = sampler.Tokenizer('\n ·。，、！《春江花月夜往事知多少小楼昨又东风故国回首堪')
LETTERS = {char for char in TOKENIZER.chars if char not in '\n ·。，、！《'}
assert TOKENIZER.vocab_size == VOCAB_SIZE


def due(plan, text):
    """What may come after a text whose title has a place for an author of one to five characters."""
    author, end, body = text.partition('\n')
    if not end:
        return LETTERS if not author else {'\n'} if len(author) == 5 else LETTERS | {'\n'}
    place = f'{plan}\n\n'[len(body):len(body) + 1] or '\n'  # what is done waits
    return LETTERS if place == '字' else {place}


@pytest.mark.parametrize('seed', range(5))
def test_a_place_allows_what_the_form_has_there_and_never_nothing(seed):
    """Of each poem by itself, however long its author, until the last of them is done."""
    form, texts = sampler.Form(TITLE, FORMS, TOKENIZER, 'cpu'), [''] * len(FORMS)
    torch.manual_seed(seed)
    logits = torch.randn(len(FORMS), TOKENIZER.vocab_size)
    logits[:, TOKENIZER.ids['\n']] += seed  # shorter and shorter authors
    for _ in range(form.longest):
        kept = form.keep(logits)
        for plan, text, row in zip(FORMS, texts, kept, strict=True):
            assert {char for char, score in zip(TOKENIZER.chars, row.tolist(), strict=True) if score > float('-inf')} == due(plan, text)
        assert torch.equal(kept[kept.isfinite()], logits[kept.isfinite()])
        idx = sampler.pick(kept, None)
        form.advance(logits, idx)
        texts = [text + char for text, char in zip(texts, TOKENIZER.decode(idx[:, 0].tolist()), strict=True)]
    assert all(re.sub(r'\w', '字', text.split('\n', 1)[1]).rstrip('\n') == plan for plan, text in zip(FORMS, texts, strict=True))


def test_with_an_author_the_body_comes_at_once():
    form = sampler.Form('', FORMS, TOKENIZER, 'cpu')
    assert form.longest == max(map(len, FORMS)) + 2
    kept = form.keep(torch.zeros(len(FORMS), TOKENIZER.vocab_size)).isfinite()
    assert all({TOKENIZER.chars[i] for i in row.nonzero().flatten()} == LETTERS for row in kept)


def test_a_mark_that_the_model_does_not_know_is_named():
    with pytest.raises(ValueError, match='？'):
        sampler.Form(TITLE, ['字？'], TOKENIZER, 'cpu')


def test_a_form_that_allows_everything_changes_nothing_and_costs_nothing(pair):
    """It draws no random number and touches no score: the same seed, the same text."""
    _, cached, _ = pair
    form = sampler.Form('', FORMS, TOKENIZER, 'cpu')
    form.allowed.fill_(True)
    written = []
    for each in (None, form):
        torch.manual_seed(3)
        written.append(list(cached.generate(random_ids(len(FORMS), 2), 20, form=each, temperature=1.5, top_k=20)))
    assert all(map(torch.equal, *written)) and abs(form.cost) < 1e-4 < form.loss


def test_the_loss_and_the_cost_are_those_of_the_free_model_on_what_was_written(pair):
    """With p the free model's: the mean of -ln p of each character, and what is missing to 1 in that of all that was allowed."""
    _, cached, _ = pair
    seen, form = spied(cached), sampler.Form(TITLE, FORMS, TOKENIZER, 'cpu')
    written = torch.cat(list(cached.generate(random_ids(len(FORMS), 3), form.longest + 4, form=form, temperature=2.0)), dim=1)
    loss = cost = 0
    for row, (plan, ids) in enumerate(zip(FORMS, written.tolist(), strict=True)):
        text = TOKENIZER.decode(ids)
        for step in range(text.index('\n\n') + 2):
            probs = dict(zip(TOKENIZER.chars, seen[step][row].double().softmax(-1).tolist(), strict=True))
            loss -= math.log(probs[text[step]])
            cost -= math.log(sum(probs[char] for char in due(plan, text[:step])))
    assert form.loss.item() == pytest.approx(loss, rel=1e-4) and form.cost.item() == pytest.approx(cost, rel=1e-4)
    assert 0 < cost < loss


# The filters, against their definitions

def logits_of(seed, rows=4, size=50):
    return 3 * torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize('k', [1, 3, 50, 1000])
def test_top_k_keeps_the_k_highest(k):
    logits = logits_of(1)
    kept = sampler.keep_top_k(logits, k).isfinite()
    assert (kept.sum(dim=1) == min(k, 50)).all()
    assert torch.where(kept, logits, 100.0).amin(dim=1).ge(torch.where(kept, -100.0, logits).amax(dim=1)).all()


@pytest.mark.parametrize('p', [1e-6, 0.3, 0.5, 0.9, 0.999, 1.0])
def test_top_p_keeps_the_smallest_set_of_the_likeliest_that_reaches_p(p):
    logits = logits_of(2)
    for row, kept in zip(logits.double().softmax(-1), sampler.keep_top_p(logits, p).isfinite(), strict=True):
        best = row.argsort(descending=True).tolist()
        needed = next((n for n in range(1, 51) if row[best[:n]].sum() >= p - 1e-9), 50)
        assert set(kept.nonzero().flatten().tolist()) == set(best[:needed])


@pytest.mark.parametrize('p', [0.01, 0.3, 1.0])
def test_min_p_keeps_what_reaches_its_share_of_the_likeliest(p):
    logits = logits_of(3)
    probs = logits.double().softmax(-1)
    expected = probs >= p * probs.amax(dim=-1, keepdim=True) - 1e-9
    assert torch.equal(sampler.keep_min_p(logits, p).isfinite(), expected)


def test_what_a_filter_keeps_it_leaves_as_it_was():
    logits = logits_of(4)
    for out in (sampler.keep_top_k(logits, 5), sampler.keep_top_p(logits, 0.5), sampler.keep_min_p(logits, 0.1)):
        assert torch.equal(out[out.isfinite()], logits[out.isfinite()]) and (out[~out.isfinite()] == float('-inf')).all()


def test_repetition_makes_what_was_seen_less_likely_and_leaves_the_rest():
    logits = torch.tensor([[2.0, -2.0, 1.0, -1.0]])
    seen = torch.tensor([[True, True, False, False]])
    assert sampler.penalize_repetition(logits, seen, 2.0).tolist() == [[1.0, -4.0, 1.0, -1.0]]


def drawn(logits, **options):
    torch.manual_seed(0)
    picked = sampler.pick(logits.expand(20_000, -1), torch.zeros(20_000, logits.size(-1), dtype=torch.bool), **options)
    return torch.bincount(picked.flatten(), minlength=logits.size(-1)) / 20_000


def test_what_is_drawn_follows_the_filtered_probabilities():
    """The order is that of Hugging Face: temperature, then top_k, top_p and min_p, each on what the one before left."""
    logits = logits_of(5, rows=1, size=12)
    assert torch.allclose(drawn(logits), logits[0].softmax(-1), atol=0.015)
    assert torch.allclose(drawn(logits, temperature=2.0), (logits[0] / 2).softmax(-1), atol=0.015)
    every = sampler.keep_min_p(sampler.keep_top_p(sampler.keep_top_k(logits / 9, 8), 0.9), 0.5)
    assert 1 < every.isfinite().sum() < sampler.keep_top_p(sampler.keep_top_k(logits / 9, 8), 0.9).isfinite().sum()
    assert torch.allclose(drawn(logits, temperature=9.0, top_k=8, top_p=0.9, min_p=0.5), every[0].softmax(-1), atol=0.015)


def test_repetition_counts_what_is_written_and_the_prompt_row_by_row(monkeypatch, pair):
    _, cached, _ = pair
    asked = []

    def pick(logits, seen, **options):
        asked.append((seen.clone(), options))
        return torch.tensor([[3], [4]])
    monkeypatch.setattr(sampler, 'pick', pick)
    idx, padding = padded([torch.tensor([5]), torch.tensor([6, 7])])
    list(cached.generate(idx[:, -cached.block_size:], 2, padding[:, -cached.block_size:], repetition_penalty=1.5))
    prompt = [{5}, {6, 7}] if cached.block_size > 1 else [{5}, {7}]
    for seen, written in zip([seen for seen, _ in asked], ([set(), set()], [{3}, {4}]), strict=True):
        assert [set(row.nonzero().flatten().tolist()) for row in seen] == [a | b for a, b in zip(prompt, written, strict=True)]
    assert asked[0][1] == {'repetition_penalty': 1.5}


def test_generate_gives_each_token_as_soon_as_it_is_made(pair):
    _, cached, _ = pair
    seen = spied(cached)
    stream = cached.generate(random_ids(1, 1), 50)
    assert not seen
    next(stream)
    assert len(seen) == 1
    next(stream)
    assert len(seen) == 2


def test_the_filters_of_hugging_face_keep_the_same():
    """A second witness: transformers' own processors, in the order in which its generate applies them."""
    for seed in range(20):
        logits, ids = logits_of(seed), torch.randint(50, (4, 6), generator=torch.Generator().manual_seed(seed))
        seen = F.one_hot(ids, 50).amax(dim=1).bool()
        for mine, theirs in [
            (sampler.penalize_repetition(logits, seen, 1.3), processors.RepetitionPenaltyLogitsProcessor(1.3)),
            (sampler.keep_top_k(logits, 7), processors.TopKLogitsWarper(7)),
            (sampler.keep_top_p(logits, 0.8), processors.TopPLogitsWarper(0.8)),
            (sampler.keep_min_p(logits, 0.1), processors.MinPLogitsWarper(0.1)),
        ]:
            assert torch.allclose(mine, theirs(ids, logits))
