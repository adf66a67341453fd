"""How much a rung of this ladder changes: small enough to read as one thought."""

import difflib
from statistics import median

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
