"""The judge, judged: wrong attempts get the right answer first, right ones pass, and bad input a clear answer."""

import ast
import contextlib
import io
import re
import subprocess
import sys
import tomllib

import pytest

from kit import judge
from kit.files import ROOT
from kit.ladders import LADDERS, by_address
from kit.practice import practice_file
from kit.scripts import clean_environment
from kit.source import with_constants

QUICK = ['-k', 'not overfits']  # all but the longest test, which ours pass in test_skeleton.py
WRONG, RIGHT = [], []
for ladder in LADDERS.values():
    file = ROOT / 'tests' / ladder.name / 'attempts.toml'
    attempts = tomllib.loads(file.read_text(encoding='utf-8')) if file.exists() else {}
    for kind, collected in (('wrong', WRONG), ('right', RIGHT)):
        collected += [attempt | {'rung': by_address(f'{ladder.name}/{attempt["rung"]}')} for attempt in attempts.get(kind, [])]
PRACTISED = [rung for ladder in LADDERS.values() for rung in ladder.judged if rung.practice]


def each(attempts):
    """Every twelfth of them, and every sixth of ours; the others are slow."""
    return pytest.mark.parametrize('attempt', [
        pytest.param(attempt, id=f'{attempt["rung"]!r} {attempt["name"]}',
                     marks=pytest.mark.slow if i % (6 if attempt['name'] == 'ours' else 12) else ())
        for i, attempt in enumerate(attempts)])


def is_named(attempt, printed):
    """Whether what is said first has all the words that the attempt asks for."""
    said, says = first_said(printed), attempt['says']
    return all(re.search(word, said) for word in ([re.escape(says)] if isinstance(says, str) else says))


def written(attempt):
    """What the learner hands in: our rung with the attempt's changes, or with definitions that replace ours."""
    source = attempt['rung'].source
    for old, new in attempt.get('changes', []):
        assert old in source, old
        source = source.replace(old, new)
    return source.replace('\ndef main(', f'{attempt.get("adds", "")}\n\ndef main(')


def judged(folder, rung, source, *options):
    """(exit code, what is printed) of the learner's command, in this process and without its slow garbage collections."""
    mine = f'my_v{rung.version}.py'
    (folder / mine).write_text(source, encoding='utf-8')
    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = pytest.main([str(ROOT / 'tests'), '--rung', rung.address, '--mine', mine, '-s',
                            '-p', 'no:cacheprovider', '-p', 'no:unraisableexception', *options])
    return code, printed.getvalue()


def first_said(printed):
    """What a learner reads first about what is wrong: the idea, and what is said of it."""
    return printed.split('\n\n')[2]


@each(WRONG)
def test_wrong_attempts_get_the_right_answer_first(attempt, tmp_path):
    code, printed = judged(tmp_path, attempt['rung'], written(attempt), '-x', *QUICK)
    assert code == 1 and '不成立' in printed
    assert is_named(attempt, printed) != attempt.get('vague', False), printed


def test_nine_of_ten_wrong_attempts_are_named():
    assert sum(attempt.get('vague', False) for attempt in WRONG) <= len(WRONG) / 10


@each(RIGHT + [{'rung': rung, 'name': 'ours'} for rung in PRACTISED])
def test_right_solutions_pass(attempt, tmp_path):
    code, printed = judged(tmp_path, attempt['rung'], written(attempt), *QUICK)
    assert code == 0 and '不成立 0 项' in printed, printed


def test_every_rung_has_three_wrong_attempts():
    assert all(sum(attempt['rung'] is rung for attempt in WRONG) >= 3 for rung in PRACTISED)


@pytest.mark.parametrize('file', sorted({file for ladder in LADDERS.values() for file in judge.files_of(ladder)
                                         if file.exists()}), ids=lambda file: str(file.relative_to(ROOT)))
def test_every_judged_assertion_says_what_it_means(file):
    for test in ast.parse(file.read_text(encoding='utf-8')).body:
        if isinstance(test, ast.FunctionDef) and 'mark.idea' in ''.join(map(ast.unparse, test.decorator_list)):
            silent = [node.lineno for node in ast.walk(test) if isinstance(node, ast.Assert) and not node.msg]
            assert not silent or test.name == 'test_v1_reaches_the_entropy_of_its_bigrams_and_no_lower', silent


# Files that are no rung at all

RUNG_3 = {'rung': by_address('3'), 'name': 'ours'}
START = "if __name__ == '__main__':"


def assert_lines_are_right(printed, source):
    """Every line of the file that an answer quotes stands where the answer says."""
    for number, text in re.findall(r'第 (\d+) 行：(.*)', printed):
        assert source.splitlines()[int(number) - 1].strip() == text


@pytest.mark.parametrize('old, new, words', [
    ('import sys\n', 'import sys\nimport no_such_thing\n', ['行：import no_such_thing\n', 'ModuleNotFoundError']),
    ('def main():', 'def main()', ['行：def main()\n', 'SyntaxError']),
    ('v = self.value(x)', 'v = self.valve(x)', ['行：v = self.valve(x)', 'AttributeError', 'SelfAttention']),
    (START, 'if True:', ['导入', 'main()', '__main__']),
    (START, 'sys.exit("再见")\n\n' + START, ['行：sys.exit', 'SystemExit: 再见']),
    ('def get_batch(', 'def get_a_batch(', ['没有 get_batch']),
    ('(model, train_data, val_data, eval_iters,', '(model, train_data, val_data, times,', ['estimate_loss', 'eval_iters']),
    ('class BabyGPT(', 'class GPT(', ['没有 BabyGPT']),
    ('def decode(', 'def to_text(', ['Tokenizer', '没有 decode']),
    ('self.sa', 'self.attention', ['BabyGPT', '没有 sa']),
    ('            return logits, None\n', '            return logits\n', ['forward', '两样东西']),
], ids=lambda value: value.strip()[:30] if isinstance(value, str) else '')
def test_files_that_break_the_contract_get_a_clear_answer(old, new, words, tmp_path, small_corpus):
    (tmp_path / 'ci.txt').write_text(small_corpus, encoding='utf-8')
    source = with_constants(written(RUNG_3 | {'changes': [(old, new)]}), eval_iters=1)
    code, printed = judged(tmp_path, RUNG_3['rung'], source, '-x')
    assert code == 1 and all(word in printed for word in words), printed
    assert 'Traceback' not in printed
    assert_lines_are_right(printed, source)


@pytest.mark.parametrize('options, says', [
    (['--rung', '3'], '--mine'),
    (['--mine', 'my_v3.py'], '--rung'),
    (['--rung', '13', '--mine', 'my_v3.py'], '1 到 12'),
    (['--rung', 'three', '--mine', 'my_v3.py'], 'three'),
    (['--rung', 'no_such_ladder/3', '--mine', 'my_v3.py'], 'no_such_ladder'),
    (['--rung', '3', '--mine', 'other.py'], 'other.py'),
    (['--rung', '3', '--mine', '.'], '找不到 .'),
])
def test_wrong_options_are_one_line(options, says, tmp_path):
    (tmp_path / 'my_v3.py').write_text('')
    printed = io.StringIO()
    with contextlib.chdir(tmp_path), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = pytest.main([str(ROOT / 'tests'), '-p', 'no:cacheprovider', *options])
    assert code == 4 and says in printed.getvalue()
    assert len(printed.getvalue().strip().splitlines()) == 1


def command(folder, *options, source):
    """The learner's command as it is typed."""
    (folder / 'my_v3.py').write_text(source, encoding='utf-8')
    return subprocess.run([sys.executable, '-m', 'pytest', str(ROOT / 'tests'), '-p', 'no:cacheprovider', *options],
                          cwd=folder, capture_output=True, encoding='utf-8', timeout=120, check=False,
                          env=clean_environment())


@pytest.mark.parametrize('old, new', [
    (START, 'while True:\n    pass\n\n' + START),
    ('        for _ in range(max_new_tokens):', '        while True:'),
], ids=['on import', 'in generate'])
def test_endless_loops_are_stopped_and_named(old, new, tmp_path):
    source = written(RUNG_3 | {'changes': [(old, new)]})
    result = command(tmp_path, '--rung', '3', '--mine', 'my_v3.py', '--time-limit', '3', source=source)
    assert result.returncode == 1 and not result.stderr, result.stderr
    assert re.search(r'3 秒还没有结束，停在第 \d+ 行：', result.stdout)
    assert re.search(r'还有 \d+ 项要等改好之后再检查', result.stdout)
    assert_lines_are_right(result.stdout, source)


@pytest.mark.parametrize('rung', [
    rung for rung in PRACTISED if {ROOT / test.split('::')[0] for test in rung.tests} & {*judge.files_of(rung.ladder)}])
def test_practice_is_not_yet_the_solution(rung, tmp_path):
    code, printed = judged(tmp_path, rung, practice_file(rung)[1], '-x')
    assert code == 1, printed


def test_the_session_in_the_readme_is_real(tmp_path):
    """Commands and what they print; …… stands for lines left out."""
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    (first, wrote), (second, answered) = re.findall(r'```\n\$ (.*)\n([^`]*)```', text)
    (tmp_path / 'ci.txt').touch()
    practised = subprocess.run([sys.executable, ROOT / first.split()[1], '3'], cwd=tmp_path, capture_output=True,
                               encoding='utf-8', check=True, env=clean_environment()).stdout
    assert first == 'python tools/practice.py 3' and practised == wrote
    [attempt] = [attempt for attempt in WRONG if attempt['name'] == 'mask one too far']
    printed = command(tmp_path, *second.split()[4:], source=written(attempt)).stdout
    assert second == 'python -m pytest tests --rung 3 --mine my_v3.py'
    parts = answered.split('……\n')
    assert printed.startswith(parts[0]) and printed.endswith(parts[-1])
    assert re.fullmatch('.*'.join(map(re.escape, parts)), printed, flags=re.DOTALL)
