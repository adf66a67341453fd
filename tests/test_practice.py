"""The practice files: the rung below, marked where it changes, with no word of the answer."""

import re
import subprocess
import sys

import pytest

from kit.files import CORPUS, ROOT
from kit.ladders import RUNGS, by_address
from kit.practice import practice_file
from kit.scripts import clean_environment, losses, run
from kit.source import body, docstring, with_constants

PRACTISED = pytest.mark.parametrize('rung', [rung for rung in RUNGS if rung.practice])


# Practice

def test_a_rung_beside_the_numbered_ones_can_be_practised():
    """It is found by the N of its _vN, and has no contract but its own."""
    beside = [rung for rung in RUNGS if rung.practice and rung.number is None]
    assert beside and all(by_address(rung.address) is rung and practice_file(rung)[0].endswith(f'my_v{rung.version}.py') for rung in beside)
    assert all(rung.contract == rung.data['contract'] for rung in beside)
    with pytest.raises(LookupError):
        by_address('scratch/10')


@PRACTISED
def test_practice_is_the_rung_below_with_marks_and_no_answer(rung):
    name, text, todos = practice_file(rung)
    below, answer = rung.below.source, rung.source
    lines = body(text)
    marks = [int(match[1]) for line in lines if (match := re.fullmatch(r' *# TODO (\d+)：.+', line))]
    assert marks == list(range(1, todos + 1))
    assert [line for line in lines if not re.fullmatch(r' *# TODO \d+：.+', line)] == body(below)
    new = set(map(str.strip, body(answer))) - set(map(str.strip, below.splitlines()))
    assert not new & set(map(str.strip, text.splitlines()))
    assert f'--rung {rung.address} --mine {name}' in docstring(text) and rung.path in docstring(text)


def practise(folder, *options):
    return subprocess.run([sys.executable, str(ROOT / 'tools' / 'practice.py'), *options], cwd=folder, check=False,
                          capture_output=True, encoding='utf-8', env=clean_environment())


def test_practice_runs_as_it_is_and_is_never_overwritten(tmp_path):
    path = tmp_path / 'my_v3.py'
    first = practise(tmp_path, '3')
    assert first.returncode == 0 and '把它放在 ci.txt 旁边' in first.stdout
    text = path.read_text(encoding='utf-8')
    small = with_constants(text, max_iters=20, eval_interval=10, eval_iters=1, max_new_tokens=5)
    path.write_text(small, encoding='utf-8')
    (tmp_path / 'ci.txt').write_text(CORPUS.read_text(encoding='utf-8')[:20_000], encoding='utf-8')
    result = run(path)
    assert len(losses(result.stdout)) == 3 and not result.stderr, result.stderr

    again = practise(tmp_path, '3')
    assert again.returncode == 1 and again.stderr.startswith('已经有 my_v3.py 了') and not again.stdout
    assert path.read_text(encoding='utf-8') == small
    assert practise(tmp_path, '3', '--force').returncode == 0
    assert path.read_text(encoding='utf-8') == text
    wrong = practise(tmp_path, '13')
    assert wrong.returncode == 1 and wrong.stderr == '没有这一级：应是 1 到 12 的整数，不能是 13\n'


