"""The shape comments of the rungs, each rung run in parts and as a whole, with sizes that all differ."""

import inspect
import sys

import pytest
import torch

from kit.scripts import load
from kit.shapes import Tracer
from tests.modern.models import ALL, LADDER

SIZES = LADDER.contract['sizes'] | {'block_size': 13, 'n_layer': 3}
B, T, L, N = 5, 10, SIZES['block_size'] + 1, 17
HEAD_SIZE = SIZES['n_embd'] // SIZES['n_head']
SYMBOLS = {name: SIZES[name] for name in ('block_size', 'n_embd', 'n_head', 'n_kv_head')} | {
    'B': B, 'T': T, 'L': L, 'N': N, 'V': SIZES['vocab_size'], 'head_size': HEAD_SIZE, 'half': HEAD_SIZE // 2,
    'hidden': 8 * SIZES['n_embd'] // 3}
assert len({*SYMBOLS.values(), 1, T + 1}) == len(SYMBOLS) + 2

CHARS = ''.join(map(chr, range(0x4e00, 0x4e00 + SIZES['vocab_size'] - 1)))  # and the line end
SHORT = [f'{"".join(CHARS[(i + j) % len(CHARS)] for j in range(T - 1))}\n\n' for i in range(15)]
LONG = [f'{CHARS[:20]}\n\n', f'{CHARS[15:]}\n\n']  # for validation: as long as the table is wide, or longer
assert len(SHORT + LONG) == N and int(0.9 * N) % B == 0 and {len(poem) for poem in SHORT} == {T + 1}


def trace_parts(module, tracer):
    """Call the parts of a rung with sizes that all differ: here block_size is not T, and the table is wider than a batch."""
    model = module.BabyGPT(**{name: SIZES[name] for name in inspect.signature(module.BabyGPT).parameters})
    ids, tokenizer = torch.randint(SIZES['vocab_size'], (B, T)), module.Tokenizer(''.join(SHORT + LONG))
    with tracer:
        model(ids, ids)
        model.eval().generate(ids, 1)
        table = module.pad([poem[:L] for poem in SHORT + LONG], tokenizer)
        module.make_batches(table, B)
        module.get_batch(table, torch.arange(B))
        module.write(model, tokenizer, CHARS[:T], 1)


def trace_main(module, tracer, monkeypatch, tmp_path):
    """Run a rung's own main() for one step."""
    module.data_path = tmp_path / 'ci.txt'
    module.data_path.write_text(''.join(SHORT + LONG), encoding='utf-8')
    small = SIZES | {'batch_size': B, 'max_iters': 2, 'warmup_iters': 1, 'eval_interval': 2, 'eval_iters': 1, 'max_new_tokens': 1,
                     'prompts': [CHARS[:T]], 'precision': 'float32', 'model_path': tmp_path / 'model.pth', 'checkpoint_path': tmp_path / 'checkpoint.pth'}
    for name, value in small.items():
        if hasattr(module, name):
            monkeypatch.setattr(module, name, value)
    monkeypatch.setenv('WANDB_MODE', 'disabled')
    monkeypatch.setattr(sys, 'argv', ['script'])
    with tracer:
        module.main()


@ALL
def test_rungs(rung, monkeypatch, tmp_path):
    module = load(rung.path)
    tracer = Tracer(module.__file__)
    trace_parts(module, tracer)
    trace_main(module, tracer, monkeypatch, tmp_path)
    assert not tracer.faults(SYMBOLS)


@pytest.mark.parametrize('right, wrong', [
    ('chunks = poems[rows]  # (B, L)', 'chunks = poems[rows]  # (B, T+1)'),
    ('# (B, n_kv_head, T, head_size)', '# (B, n_head, T, head_size)'),
    ('* self.up(x)  # (B, T, hidden)', '* self.up(x)'),
    ('x.chunk(2, dim=-1)  # (B, n_head, T, half)', 'x.chunk(2, dim=-1)  # (B, T, n_head, half)'),
])
def test_a_wrong_or_missing_comment_is_found(right, wrong, tmp_path):
    """One comment of the last rung lies, and it is named."""
    source = LADDER.numbered[-1].source
    line, path = source[:source.index(right)].count('\n') + 1, tmp_path / 'wrong.py'
    path.write_text(source.replace(right, wrong), encoding='utf-8')
    module = load(path)
    tracer = Tracer(module.__file__)
    trace_parts(module, tracer)
    assert [fault for fault in tracer.faults(SYMBOLS) if fault.startswith(f'line {line} ')]
