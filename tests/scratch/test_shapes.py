"""Shape comments hold when a rung runs: its main, and before that its generate with more than one row."""

import inspect
import sys

import numpy as np
import pytest

from kit.scripts import load
from kit.shapes import Tracer
from tests.scratch.models import VOCABULARY, WRITING, save_model, training
from tests.test_shapes import text_of

B, T, V = 2, 3, 31
CONSTANTS = {'batch_size': B, 'block_size': T, 'n_embd': 20, 'n_head': 4, 'n_layer': 1, 'max_iters': 1, 'eval_iters': 1,
             'max_new_tokens': 1, 'prompts': ['春江往']}
SYMBOLS = {'B': B, 'T': T, 'V': V, 'N': B * T, 'n_embd': 20, 'n_head': 4, 'head_size': 5}


@pytest.mark.parametrize('rung', training('v3'))
def test_shapes_are_as_the_comments_say(rung, monkeypatch, tmp_path):
    module, corpus = load(rung.path), tmp_path / 'ci.txt'
    corpus.write_text(text_of(V) * 20, encoding='utf-8')
    for name, value in (CONSTANTS | {'data_path': corpus}).items():
        if hasattr(module, name):
            monkeypatch.setattr(module, name, value)
    sizes = SYMBOLS | {'vocab_size': V, 'block_size': T, 'n_layer': 1, 'dropout': 0.5}
    model = module.BabyGPT(*[sizes[name] for name in inspect.signature(module.BabyGPT).parameters])
    tracer = Tracer(module.__file__)
    with tracer:
        model.generate(np.zeros((B, T), int), 1)
        module.main()
    assert len(tracer.comments) > 8 and not tracer.faults(SYMBOLS)


@pytest.mark.parametrize('rung', WRITING)
def test_shapes_of_what_writes_are_as_the_comments_say(rung, monkeypatch, tmp_path):
    """First behind two places of the cache that are filled already, so that S is not T."""
    module, path = load(rung.path), tmp_path / 'model.safetensors'
    save_model(path, block_size=7, n_embd=20, n_head=4, n_layer=1)
    model, tokenizer = module.load_model(path)
    monkeypatch.setattr(sys, 'argv', ['', '--prompts', '春江往', '--max_new_tokens', '1', '--model', str(path)])
    tracer = Tracer(module.__file__)
    with tracer:
        model(np.zeros((B, T), int), [np.zeros((2, B, *model.cache_shape), np.float32)], 2)
        list(model.generate(np.zeros((B, T), int), 1, top_k=5, top_p=0.9))
        if rung.reached('v9'):
            module.begin(model, tokenizer, module.PoemRequest(prompt='春江往'), B)
        else:
            module.main()
    assert len(tracer.comments) > 20 and not tracer.faults(SYMBOLS | {'V': len(VOCABULARY), 'S': T + 2, 'block_size': 7})
