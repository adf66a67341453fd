"""The shape comments of the root's scripts, each run in parts and as a whole, with sizes that all differ."""

import ast
import inspect
import runpy
import sys

import numpy as np
import pytest
import torch

from kit.files import ROOT
from kit.ladders import LADDERS
from kit.scripts import load
from kit.shapes import Tracer

LADDER = LADDERS['root']
SIZES = LADDER.contract['sizes']
B, T, START = 8, 2, 3
SYMBOLS = {'B': B, 'T': T, 'V': SIZES['vocab_size'], 'S': START + T, 'head_size': SIZES['n_embd'] // SIZES['n_head']} | SIZES


def sized(model):
    """A model of that class at the test's sizes."""
    return model(**{name: SIZES[name] for name in inspect.signature(model).parameters})


class Vocabulary:
    """Stands in for a tokenizer whose prompt has T characters."""

    vocab_size = SIZES['vocab_size']

    def encode(self, text):
        return list(range(T))

    def decode(self, ids):
        return ''


def trace_main(module, tracer, monkeypatch, tmp_path):
    """Run a rung's own main() for one step, on a text with V distinct characters."""
    chars = '春江往事' + ''.join(map(chr, range(0x4e00, 0x4e00 + SIZES['vocab_size'] - 4)))
    module.data_path = tmp_path / 'ci.txt'
    module.data_path.write_text(chars * 20, encoding='utf-8')
    small = SIZES | {'batch_size': B, 'block_size': T, 'max_iters': 1, 'eval_interval': 1, 'eval_iters': 1,
                     'max_new_tokens': 1, 'prompts': [chars[:T]]}
    for name, value in small.items():
        if hasattr(module, name):
            monkeypatch.setattr(module, name, value)
    monkeypatch.setenv('WANDB_MODE', 'disabled')
    monkeypatch.setattr(module, 'model_path', tmp_path / 'model.pth', raising=False)
    monkeypatch.setattr(sys, 'argv', ['script'])
    with tracer:
        module.main()


def trace_parts(module, tracer):
    """Call the parts of a rung with sizes that all differ: here block_size is not T."""
    model = sized(module.BabyGPT)
    ids = torch.randint(SIZES['vocab_size'], (B, T))
    with tracer:
        model(ids, ids)
        model.eval().generate(ids, 1)
        module.get_batch(torch.arange(100), B, T)
        module.write(model, Vocabulary(), 'prompt', 1)


@pytest.mark.parametrize('rung', LADDER.numbered)
def test_rungs(rung, monkeypatch, tmp_path):
    module = load(rung.path)
    tracer = Tracer(module.__file__)
    trace_parts(module, tracer)
    trace_main(module, tracer, monkeypatch, tmp_path)
    assert not tracer.faults(SYMBOLS)
    assert_attention_is_commented(tracer, rung.reached('v3'))


def assert_attention_is_commented(tracer, expected):
    """q, k, v, the scores, the weights and what comes out: a script that says nothing there must not pass."""
    names = {ast.unparse(tracer.statements[line].targets[0]) for line in tracer.comments
             if isinstance(tracer.statements[line], ast.Assign)}
    assert ({'q', 'k', 'v', 'scores', 'weights'} <= names) == expected


def test_sampler():
    module = load('babygpt_sample_with_kvcache.py')
    model = sized(module.BabyGPT).eval()
    ids = torch.randint(SIZES['vocab_size'], (B, START + T))
    tracer = Tracer(module.__file__)
    cache = model.empty_cache(B)
    model(ids[:, :START], cache, 0)
    with tracer:
        model(ids[:, START:], cache, START)
        list(model.generate(ids[:, :T], 1, top_k=3))
        args = type('Args', (), {'num_samples': 1, 'max_new_tokens': 1, 'temperature': 1.0, 'top_k': None})
        module.write(model, Vocabulary(), 'prompt', args)
    assert not tracer.faults(SYMBOLS)
    assert_attention_is_commented(tracer, expected=True)


@pytest.mark.parametrize('name', ['simplebigrammodel.py', 'simplebigrammodel_with_comments.py',
                                  'simplebigrammodel_torch.py'])
def test_bigram_models(name, monkeypatch, tmp_path):
    module = load(name)
    array = torch.tensor if name.endswith('torch.py') else np.array
    model, tracer = module.BigramLanguageModel(SIZES['vocab_size']), Tracer(module.__file__)
    ids = array(np.random.randint(SIZES['vocab_size'], size=(B, T)))
    with tracer:
        model.forward(ids, ids)
        model.generate(ids, 1)
        module.get_batch(array(np.arange(100)), B, T)
        module.write(model, Vocabulary(), 'prompt', 1)
    trace_main(module, tracer, monkeypatch, tmp_path)
    assert not tracer.faults(SYMBOLS)


def test_pytorch_5min():
    tracer = Tracer(ROOT / 'pytorch_5min.py')
    with tracer:
        runpy.run_path(tracer.path)
    assert len(tracer.comments) >= 6
    assert not tracer.faults(SYMBOLS)


@pytest.mark.parametrize('right, wrong', [
    ('v = self.value(x)  # (B, T, n_embd)', 'v = self.value(x)  # (T, B, n_embd)'),
    ('return weights @ v  # (B, T, n_embd)', 'return weights @ v  # (B, T, T)'),
    ("self.future[:T, :T]  # (B, T, T)", "self.future[:T, :T]"),
])
def test_a_wrong_or_missing_comment_is_found(right, wrong, tmp_path):
    """The checker itself: make one comment lie, and it names that line."""
    source = LADDER['v3'].source
    line = source[:source.index(right)].count('\n') + 1
    path = tmp_path / 'wrong.py'
    path.write_text(source.replace(right, wrong), encoding='utf-8')
    module = load(path)
    tracer = Tracer(module.__file__)
    trace_parts(module, tracer)
    assert [fault for fault in tracer.faults(SYMBOLS) if fault.startswith(f'line {line} ')]
