"""How much a rung of this ladder changes: small enough to read as one thought."""

import difflib
import re
import tomllib
from statistics import mean, median

import pytest

from kit import results
from kit.experiments import settings_of
from kit.files import read
from kit.source import significant
from tests.modern.models import LADDER


def changed_lines(rung):
    """How many lines of code a rung adds to the one below or removes from it, whichever are more; comments don't count."""
    before, after = (significant(each.source).splitlines() for each in (rung.below, rung))
    marks = [line[0] for line in difflib.unified_diff(before, after, lineterm='', n=0) if not line.startswith(('+++', '---', '@@'))]
    return max(marks.count('+'), marks.count('-'))


def test_each_rung_is_a_small_diff():
    changed = {str(rung): changed_lines(rung) for rung in LADDER.numbered}
    large = {'v13', 'v21', 'v22', 'v23'}  # what they change is the program around the model
    assert all(count <= (80 if name in large else 40) for name, count in changed.items()), changed
    assert min(changed.values()) > 0 and median(count for name, count in changed.items() if name not in large) <= 12, changed


@pytest.mark.parametrize('rung', [rung for rung in LADDER.numbered if not rung.reached('v21')])
def test_the_docstring_tells_the_measured_losses_and_forms(rung):
    """Of the rung itself and of the one below: the mean loss to two digits, the share of poems in whole per cent."""
    said = re.search(r'你会看到：.*约 ([\d.]+)，(v\d+) 是 ([\d.]+)；合句式的约 (\d+) %，\2 是 (\d+) %（三个种子的平均）', rung.source)
    assert said[2] == str(rung.below)
    for each, loss, share in ((rung, said[1], said[4]), (rung.below, said[3], said[5])):
        form = settings_of('modern/ladder')[str(each), 'base'].form
        assert len(form) == 3
        assert loss == f'{mean(row["loss"] for row in form):.2f}'
        assert share == f'{mean(100 * row["kept"] / row["poems"] for row in form):.0f}'


def test_the_docstring_of_v21_tells_the_measured_steps_and_memory():
    """And so do the English words for it, which are found by the Chinese line."""
    fast, v20, v21 = results.section('fast'), 'babygpt_v20_tied_embedding', 'babygpt_v21_fast'
    steps = [fast[name] for name in (f'{v20} step', f'{v21} step float32', f'{v21} step bfloat16')]
    right = [f'{row["milliseconds"]:.1f}' for row in steps] + [f'{fast[f"{rung} length 2048"]["megabytes"]:,}' for rung in (v20, v21)]
    assert all(', 2 cores,' in row['machine'] for row in steps)
    lines = re.search('你会看到：.*\n.*', LADDER['v21'].source)[0]
    words = tomllib.loads(read('modern/pages/en/comments.toml'))
    english = ' '.join(words[line] for line in lines.splitlines())
    said = re.search(r'从 v20 的 ([\d.]+) 毫秒到 ([\d.]+) 毫秒，用 bfloat16 是 ([\d.]+) 毫秒；.*\n一行 2,048 字，.*从 ([\d,]+) MB 到 ([\d,]+) MB', lines)
    assert [*said.groups()] == right, f'write {right} into the docstring of v21, and into its lines in modern/pages/en/comments.toml'
    assert re.findall(r'(?<![\dv])\d[\d.,]*\d(?= ms| MB)', english) == right
