"""The model that only writes: v12's logits at every position, from a file that nothing unpickles; and its command."""

import json
import re
import struct

import numpy as np
import pytest
import torch

from kit.files import ROOT
from kit.ladders import LADDERS
from kit.scripts import install, load, module_of, run
from tests.scratch.models import LADDER, TINY, VOCABULARY, WRITING, save_model

EACH = pytest.mark.parametrize('rung', WRITING)
PRETRAINED = ROOT / 'pretrained' / 'model.safetensors'
COMMAND = LADDER['v8']
V = len(VOCABULARY)
SIZES = [{'block_size': 7, 'n_embd': 24, 'n_head': 4, 'n_layer': 2}, {'block_size': 8, 'n_embd': 24, 'n_head': 1, 'n_layer': 3},
         {'block_size': 1, 'n_embd': 8, 'n_head': 2, 'n_layer': 1}]


def ids(*shape, seed=0):
    return np.random.RandomState(seed).randint(V, size=shape)


@pytest.fixture(params=[(rung, sizes) for rung in WRITING for sizes in SIZES],
                ids=lambda param: f'{param[0]}-{"-".join(map(str, param[1].values()))}')
def pair(request, tmp_path):
    """v12's model and ours with the same random weights."""
    rung, sizes = request.param
    theirs = save_model(tmp_path / 'model.safetensors', **sizes)
    return module_of(rung).load_model(tmp_path / 'model.safetensors')[0], theirs


@torch.no_grad()
def full(theirs, idx):
    """The logits of v12's full pass."""
    return theirs(torch.tensor(idx))[0].numpy()


# The file

def parts_of(content):
    """The header of a safetensors file, and the numbers behind it."""
    size, = struct.unpack('<Q', content[:8])
    return json.loads(content[8:8 + size]), content[8 + size:]


def test_the_pretrained_file_is_what_the_tool_makes_of_model_pth():
    checkpoint = torch.load(ROOT / 'pretrained' / 'model.pth', weights_only=True)
    made = load('tools/export_safetensors.py').as_safetensors(checkpoint)
    assert parts_of(PRETRAINED.read_bytes()) == parts_of(made)
    assert PRETRAINED.stat().st_size < 13_000_000


@EACH
def test_pretrained_logits_are_those_of_pytorch_at_every_position(rung, corpus):
    checkpoint = torch.load(ROOT / 'pretrained' / 'model.pth', weights_only=True)
    theirs = module_of(LADDERS['root']['v12']).BabyGPT(len(checkpoint['vocabulary']), **checkpoint['hyper_params']).eval()
    theirs.load_state_dict(checkpoint['model'])
    ours, tokenizer = module_of(rung).load_model(PRETRAINED)
    assert ''.join(tokenizer.chars) == checkpoint['vocabulary']
    size = ours.block_size
    idx = np.array([tokenizer.encode(corpus[start:start + size]) for start in (0, len(corpus) - size)])
    expected = full(theirs, idx)
    np.testing.assert_allclose(ours(idx, ours.empty_cache(2), 0), expected, atol=1e-4)
    cache = ours.empty_cache(2)
    for t in range(size):
        np.testing.assert_allclose(ours(idx[:, t:t + 1], cache, t)[:, 0], expected[:, t], atol=1e-4)


# The cache

def test_any_split_into_pieces_gives_the_logits_of_the_full_pass(pair):
    ours, theirs = pair
    idx = ids(2, ours.block_size)
    expected = full(theirs, idx)
    for first in range(1, ours.block_size + 1):
        cache = ours.empty_cache(2)
        pieces = [ours(idx[:, :first], cache, 0)]
        pieces += [ours(idx[:, first:], cache, first)] if first < ours.block_size else []
        np.testing.assert_allclose(np.concatenate(pieces, axis=1), expected, atol=1e-4)


def test_each_step_writes_its_own_place_and_reads_none_that_is_empty(pair):
    ours, _ = pair
    cache = ours.empty_cache(2)
    arrays = [array for layer in cache for array in layer]
    assert len(cache) == len(ours.blocks) and all(array.shape[2] == ours.block_size for array in arrays)
    for array in arrays:
        array.fill(np.nan)
    for step in range(ours.block_size):
        assert np.isfinite(ours(ids(2, 1, seed=step), cache, step)).all()
        for array in arrays:
            assert np.isfinite(array[:, :, :step + 1]).all() and np.isnan(array[:, :, step + 1:]).all()


@pytest.mark.parametrize('length', [1, 4, 7, 8, 9, 30])
def test_every_step_equals_the_full_pass_on_what_the_cache_holds(pair, length, monkeypatch):
    """Also past block_size, and for prompts longer than it: only what is new is computed, nothing is off by one."""
    ours, theirs = pair
    size, text, seen = ours.block_size, ids(2, length), []
    forward = type(ours).forward

    def record(self, idx, cache, start):
        out = forward(self, idx, cache, start)
        seen.append((idx.shape[1], out[:, -1]))
        return out

    monkeypatch.setattr(type(ours), 'forward', record)
    held = given = min(length, size)  # how many characters the cache holds, and how many this step adds
    for step, next_idx in enumerate(ours.generate(text, 3 * size + 2)):
        if step and held < size:
            held, given = held + 1, 1
        elif step:
            held = given = (size + 1) // 2
        assert len(seen) == step + 1 and seen[step][0] == given  # each is given as soon as it is made
        np.testing.assert_allclose(seen[step][1], full(theirs, text[:, -held:])[:, -1], atol=1e-4)
        assert next_idx.shape == (2,)
        text = np.concatenate([text, next_idx[:, None]], axis=1)
    assert len(seen) == 3 * size + 2


def test_same_text_as_v7_while_it_fits(pair):
    ours, theirs = pair
    below = LADDER['v7']
    sizes = (V, theirs.block_size, theirs.lm_head.in_features, theirs.blocks[0].sa.n_head, len(theirs.blocks), 0.0)
    slow = module_of(below).BabyGPT(*sizes).eval()
    slow.load_state_dict(theirs.state_dict())
    prompt = ids(2, min(3, ours.block_size))
    new = ours.block_size - prompt.shape[1] + 1
    for seed in range(5):
        np.random.seed(seed)
        expected = slow.generate(prompt, new)[:, prompt.shape[1]:]
        np.random.seed(seed)
        assert (np.stack(list(ours.generate(prompt, new)), axis=1) == expected).all()


# What is drawn

def frequencies(model, prompt, count, **options):
    np.random.seed(0)
    [drawn] = model.generate(np.tile(prompt, (count, 1)), 1, **options)
    return np.bincount(drawn, minlength=V) / count


def test_temperature_and_filters_shape_the_distribution(pair):
    """Against their definitions, computed here from v12's logits."""
    ours, theirs = pair
    prompt = ids(1, 1)
    logits = torch.tensor(full(theirs, prompt)[0, -1])

    def assert_drawn(expected, **options):
        np.testing.assert_allclose(frequencies(ours, prompt, 5000, **options), expected, atol=0.03)

    probs = logits.softmax(-1)
    assert_drawn(probs)
    assert_drawn((logits / 0.5).softmax(-1), temperature=0.5)
    order = probs.argsort(descending=True)
    for count in (1, 3):
        kept = torch.zeros(V).index_fill(0, order[:count], 1)
        just_enough = float(probs[order[:count]].sum()) - 1e-3
        for options in ({'top_k': count}, {'top_p': just_enough}):
            assert_drawn(kept * probs / (kept * probs).sum(), **options)
    everything = frequencies(ours, prompt, 500)
    for options in ({'top_k': 10_000}, {'top_p': 1.0}):
        np.testing.assert_array_equal(frequencies(ours, prompt, 500, **options), everything)


@EACH
def test_filters_keep_what_those_of_the_modern_sampler_keep(rung):
    """Row by row; of scores that are equal top-k keeps all."""
    module, theirs = module_of(rung), module_of(LADDERS['modern']['babygpt_sample'])
    logits = np.random.RandomState(0).randn(5, V).astype(np.float32) * 3
    logits[0, :4] = logits[0].max() + 1
    for k in (1, 2, 4, 5, V, V + 7):
        np.testing.assert_array_equal(module.keep_top_k(logits, k), theirs.keep_top_k(torch.tensor(logits), k))
    for p in (1e-9, 0.1, 0.5, 0.9, 0.999):
        np.testing.assert_array_equal(np.isinf(module.keep_top_p(logits[1:], p)),
                                      theirs.keep_top_p(torch.tensor(logits[1:]), p).isinf())
    assert module.keep_top_p(logits, 0.5).dtype == module.keep_top_k(logits, 2).dtype == np.float32


# The command

@pytest.fixture(scope='module')
def script(tmp_path_factory):
    folder = tmp_path_factory.mktemp('writer')
    save_model(folder / 'pretrained' / 'model.safetensors', **TINY)
    return install(COMMAND.path, folder, '')


def poems_of(result):
    """[text] of the poems that a run printed, the lines on speed taken off."""
    assert result.returncode == 0 and not result.stderr, result.stderr
    return re.split(r'\n（\d+ 字，每秒 [\d,]+ 字）\n\n', result.stdout)[:-1]


def test_it_writes_from_each_beginning_and_repeats_itself_with_the_seed(script):
    options = ['--prompts', '春江', '往事', '--num_samples', 2, '--max_new_tokens', 20]
    first, second, other = (poems_of(run(script, *options, '--seed', seed)) for seed in (1, 1, 2))
    assert [poem[:2] for poem in first] == ['春江', '春江', '往事', '往事'] and {len(poem) for poem in first} == {22}
    assert first == second != other and len(set(first)) == 4
    assert first != poems_of(run(script, *options, '--seed', 1, '--temperature', 5))
    for likeliest in (['--top_k', 1], ['--top_p', 1e-9]):
        a, b = (poems_of(run(script, *options, '--seed', seed, *likeliest)) for seed in (1, 2))
        assert a == b and a[0] == a[1]


def test_it_asks_until_an_empty_line(script):
    result = run(script, '--max_new_tokens', 5, text='春江\n春Z\n往事\n\n')
    assert result.returncode == 0 and not result.stderr
    assert result.stdout.count('（5 字，') == 2 and 'Z' in result.stdout and result.stdout.count('直接回车') == 4


def assert_refused(script, args, *words, code=1):
    result = run(script, *args)
    lines = result.stderr.splitlines()
    assert result.returncode == code and not result.stdout and len(lines) == (1 if code == 1 else 2), result.stderr
    assert all(word in lines[-1] for word in words), result.stderr


@pytest.mark.parametrize('args, word', [
    (['--prompts', ''], '空'), (['--prompts', '春', ''], '空'), (['--max_new_tokens', 0], '--max_new_tokens'),
    (['--num_samples', -1], '--num_samples'), (['--top_k', 0], '--top_k'), (['--top_p', 0], '--top_p'), (['--top_p', 1.01], '--top_p'),
    (['--top_p', 'nan'], '--top_p'), (['--temperature', 0], '--temperature'), (['--temperature', 'nan'], '--temperature'),
    (['--seed', -1], '--seed'), (['--seed', 2 ** 32], '--seed'), (['--temp', 1], '--temp')], ids=str)
def test_bad_options_are_named(script, args, word):
    assert_refused(script, args, word, code=2)


def test_unknown_characters_are_named(script):
    assert_refused(script, ['--prompts', '春Z江Q'], 'Q Z')


def header_changed(content, change):
    """A safetensors file with its header changed by a function."""
    header, numbers = parts_of(content)
    change(header)
    text = json.dumps(header).encode()
    return struct.pack('<Q', len(text)) + text + numbers


def test_bad_files_are_explained(script, tmp_path):
    """One line that names the file and what to do, for each way in which it may be bad."""
    content, path = (script.parent.parent / 'pretrained' / 'model.safetensors').read_bytes(), tmp_path / 'bad.safetensors'

    def metadata(**changes):
        return header_changed(content, lambda header: header['__metadata__'].update(changes))

    bad = {
        '残缺': [b'', content[:5], content[:100], content[:-1], b'PK' + content, (ROOT / 'LICENSE').read_bytes()],
        'vocabulary': [header_changed(content, lambda header: header.pop('__metadata__')),
                       header_changed(content, lambda header: header['__metadata__'].pop('vocabulary'))],
        'hyper_params': [header_changed(content, lambda header: header['__metadata__'].pop('hyper_params'))],
        '对不上': [metadata(hyper_params='{'), metadata(hyper_params='3'), metadata(hyper_params=json.dumps(TINY | {'n_embd': 24})),
                metadata(hyper_params=json.dumps(TINY | {'n_layer': 1})), metadata(hyper_params=json.dumps(TINY | {'n_head': 0})),
                metadata(hyper_params=json.dumps(TINY | {'n_heads': 1})), metadata(vocabulary=VOCABULARY[1:])],
    }
    for says, contents in bad.items():
        for each in contents:
            path.write_bytes(each)
            assert_refused(script, ['--prompts', '春', '--model', path], says, str(path), 'tools/export_safetensors.py')
    assert_refused(script, ['--prompts', '春', '--model', tmp_path / 'none'], '找不到', 'tools/export_safetensors.py')
    assert_refused(script, ['--prompts', '春', '--model', tmp_path], '读不了')


def test_the_tool_says_what_is_wrong_and_leaves_what_is_there(tmp_path):
    tool, target = ROOT / 'tools/export_safetensors.py', tmp_path / 'model.safetensors'
    target.write_bytes(b'old')
    (tmp_path / 'bad.pth').write_bytes(PRETRAINED.read_bytes())
    for source, says in (('none.pth', '读不了'), ('bad.pth', '残缺')):
        result = run(tool, tmp_path / source, target)
        assert result.returncode == 1 and says in result.stderr and 'Traceback' not in result.stderr
    result = run(tool, ROOT / 'pretrained/model.pth', tmp_path / 'no' / 'folder')
    assert result.returncode == 1 and '写不了' in result.stderr and target.read_bytes() == b'old'
    assert sorted(path.name for path in tmp_path.iterdir()) == ['bad.pth', 'model.safetensors']
