"""What a script does, as a hash: comments, docstrings and blank lines do not count, every character of code does."""

import glob
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kit.files import ROOT
from kit.ladders import RUNGS
from kit.source import changes, code_hash, significant, with_constants

SCRIPT = '''"""What it is."""

import sys  # a comment

n_head = 4  # how many
name = 'not a # comment'


class Model:
    """A docstring
    of two lines.
    """

    def forward(self, x):
        """Another."""
        # a comment of its own line

        text = """kept

  # to the last blank"""
        return f'{x:>{n_head}} {name!r} {{}} # kept'


if __name__ == '__main__':
    sys.exit(Model().forward(1))
'''
SAME = [('"""What it is."""', '"""What it was,\n\nand is."""'), ('  # a comment', ''), ('  # how many', '  # 头数'),
        ('import sys', 'import sys\n\n'), ('    """A docstring\n    of two lines.\n    """\n\n', ''),
        ('        """Another."""\n', ''), ('        # a comment of its own line\n\n', ''),
        ('\n\nif __name__', '\n\n# the end\n\nif __name__')]


@pytest.mark.parametrize('old, new', SAME)
def test_comments_docstrings_and_blank_lines_do_not_count(old, new):
    assert old in SCRIPT
    assert code_hash(SCRIPT.replace(old, new, 1)) == code_hash(SCRIPT)


def test_every_other_change_counts():
    """Also in strings that hold what looks like a comment or a blank line, and of space within a line."""
    kept = significant(SCRIPT)
    assert significant(kept) == kept and '"""kept\n\n  # to the last blank"""' in kept and "{{}} # kept'" in kept
    hashes = set()
    for old, new in [('4', '5'), ('not a #', 'not a'), ('Model', 'Modell'), ('x:>', 'x:<'), ('kept\n\n', 'kept\n'),
                     ('blank"""', 'blank """'), ("# kept'", "# keep'"), ('return f', 'return  f'), ('(1)', '(2)')]:
        assert old in SCRIPT
        hashes.add(code_hash(SCRIPT.replace(old, new)))
    assert len(hashes) == 9 and code_hash(SCRIPT) not in hashes


def test_constants_that_are_given_do_not_count():
    other = with_constants(SCRIPT, n_head=8)
    assert code_hash(other) != code_hash(SCRIPT)
    assert code_hash(other, ['n_head']) == code_hash(SCRIPT, ['n_head']) != code_hash(SCRIPT)
    assert code_hash(SCRIPT, ['name']) != code_hash(SCRIPT, ['n_head'])


def pythons():
    """Every Python here from 3.11 on, one of each version: on the path, and among those of pyenv."""
    found = {shutil.which(f'python3.{minor}') for minor in range(11, 30)}
    found |= set(glob.glob(str(Path.home() / '.pyenv/versions/3.1[1-9].*/bin/python3'))) | {sys.executable}
    versions = {path: subprocess.run([path, '-c', 'import sys; print(sys.version)'], capture_output=True, check=False).stdout
                for path in filter(None, found)}  # pyenv puts commands on the path that only fail
    return sorted({version: path for path, version in versions.items() if version}.values())


def test_all_versions_of_python_find_the_same_hash():
    """The scripts as they are, and one that has what tokenizers disagree on; with one Python here it shows little."""
    code = ('import json, sys; from kit.source import code_hash\n'
            'print(json.dumps([code_hash(text, without) for text, without in json.load(sys.stdin)]))')
    asked = [(rung.source, without) for rung in RUNGS for without in ((), ('n_head', 'seed'))] + [(SCRIPT, ())]
    expected = [code_hash(*each) for each in asked]
    for python in pythons():
        told = subprocess.run([python, '-c', code], input=json.dumps(asked), cwd=ROOT, capture_output=True, check=True,
                              encoding='utf-8').stdout
        assert json.loads(told) == expected, python


def test_changes_are_told_by_piece():
    after = SCRIPT.replace('n_head = 4', 'n_head = 5').replace('class Model', 'class Big').replace('import sys  #', 'import os  #')
    assert changes(SCRIPT, after) == {'~n_head', '-Model', '+Big', '-sys', '+os'}
    assert changes(SCRIPT, SCRIPT.replace('return f', 'return  f')) == {'~Model.forward'}
    assert changes(SCRIPT, SCRIPT.replace('it is', 'it was')) == set()
    lines = SCRIPT.splitlines(keepends=True)
    with pytest.raises(AssertionError, match='moved'):
        changes(SCRIPT, ''.join([*lines[:4], lines[5], lines[4], *lines[6:]]))
