"""Shape comments hold when a rung runs; a ladder whose rungs need more than main() has a test of its own."""

import sys

import pytest

from kit.ladders import RUNGS
from kit.scripts import load
from kit.shapes import Tracer


def text_of(size):
    """A text with that many distinct characters, among them those of the usual prompts."""
    return '春江往事' + ''.join(map(chr, range(0x4e00, 0x4e00 + size - 4)))


@pytest.mark.parametrize('rung', [rung for rung in RUNGS if rung.shapes])
def test_shapes_are_as_the_comments_say(rung, monkeypatch, tmp_path):
    shapes, module, constants = rung.shapes, load(rung.path), rung.shapes['constants']
    if 'copies' in shapes:
        corpus = tmp_path / 'ci.txt'
        corpus.write_text(text_of(shapes['symbols']['V']) * shapes['copies'], encoding='utf-8')
        constants = constants | {'data_path': corpus}
    for name, value in constants.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(sys, 'argv', [rung.path])
    tracer = Tracer(module.__file__)
    with tracer:
        module.main()
    assert tracer.comments and not tracer.faults(shapes['symbols'])


SCRIPT = """
import numpy as np

def forward(x):
    y = x.sum(axis=1)  # (B, V)
    z = y.T  # (V, B)
    w = z @ y
    return w

def main():
    forward(np.ones((2, 3, 5)))
"""


@pytest.mark.parametrize('right, wrong, line', [
    ('# (B, V)', '# (V, B)', 5), ('# (B, V)', '# (B, T)', 5), ('y = x.sum(axis=1)', 'y = x.sum(axis=2)', 5),
    ('z = y.T  # (V, B)', 'z = y.T', 6),
])
def test_a_wrong_or_missing_comment_is_found(right, wrong, line, tmp_path):
    """The checker itself: make one comment lie, and it names that line; w has none, and it says so always."""
    (tmp_path / 'script.py').write_text(SCRIPT.replace(right, wrong), encoding='utf-8')
    module = load(tmp_path / 'script.py')
    tracer = Tracer(module.__file__)
    with tracer:
        module.main()
    found = tracer.faults({'B': 2, 'T': 3, 'V': 5})
    assert any(f'line {line} ' in fault for fault in found) and any('line 7 ' in fault for fault in found)
