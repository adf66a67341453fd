"""The judge, judged: wrong attempts get the right answer, right ones pass; and the practice files it all starts from."""

import ast
import contextlib
import io
import re
import subprocess
import sys
import tomllib

import judge as judge_module
import pytest
from ladder import CORPUS, ROOT, RUNGS, clean_environment, losses, run, with_constants

sys.path.insert(0, str(ROOT / 'tools'))
import practice

QUICK = ['-k', 'not overfits']  # all but the longest test, which ours pass in test_skeleton.py
ATTEMPTS = tomllib.loads((ROOT / 'tests' / 'attempts.toml').read_text(encoding='utf-8'))


def each(attempts):
    return pytest.mark.parametrize('attempt', [
        pytest.param(attempt, id=f'v{attempt["rung"]} {attempt["name"]}') for attempt in attempts])


def written(attempt):
    """What the learner hands in: our rung with the attempt's changes, or with definitions that replace ours."""
    source = (ROOT / RUNGS[attempt['rung']]).read_text(encoding='utf-8')
    for old, new in attempt.get('changes', []):
        assert old in source, old
        source = source.replace(old, new)
    return source.replace('\ndef write(', f'{attempt.get("adds", "")}\n\ndef write(')


def judge(folder, rung, source, *options):
    """(exit code, what is printed) of the learner's command, in this process and without its slow garbage collections."""
    (folder / f'my_v{rung}.py').write_text(source, encoding='utf-8')
    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = pytest.main([str(ROOT / 'tests'), '--rung', str(rung), '--mine', f'my_v{rung}.py', '-s',
                            '-p', 'no:cacheprovider', '-p', 'no:unraisableexception', *options])
    return code, printed.getvalue()


@each(ATTEMPTS['wrong'])
def test_wrong_attempts_get_the_right_answer_first(attempt, tmp_path):
    code, printed = judge(tmp_path, attempt['rung'], written(attempt), '-x', *QUICK)
    assert code == 1 and '不成立' in printed
    assert attempt['says'] in printed, printed


@each(ATTEMPTS['right'] + [{'rung': number, 'name': 'ours'} for number in RUNGS])
def test_right_solutions_pass(attempt, tmp_path):
    code, printed = judge(tmp_path, attempt['rung'], written(attempt), *QUICK)
    assert code == 0 and '不成立 0 项' in printed, printed


def test_every_rung_has_three_wrong_attempts():
    assert all(sum(attempt['rung'] == number for attempt in ATTEMPTS['wrong']) >= 3 for number in RUNGS)


@pytest.mark.parametrize('file', judge_module.FILES)
def test_every_judged_assertion_says_what_it_means(file):
    for test in ast.parse((ROOT / 'tests' / file).read_text(encoding='utf-8')).body:
        if isinstance(test, ast.FunctionDef) and 'mark.idea' in ''.join(map(ast.unparse, test.decorator_list)):
            silent = [node.lineno for node in ast.walk(test) if isinstance(node, ast.Assert) and not node.msg]
            assert not silent or test.name == 'test_v1_reaches_the_entropy_of_its_bigrams_and_no_lower', silent


# Files that are no rung at all

RUNG_3 = {'rung': 3, 'name': 'ours'}
START = "if __name__ == '__main__':"


def assert_lines_are_right(printed, source):
    """Every line of the file that an answer quotes stands where the answer says."""
    for number, text in re.findall(r'第 (\d+) 行：(.*)', printed):
        assert source.splitlines()[int(number) - 1].strip() == text


@pytest.mark.parametrize('old, new, says', [
    ('import sys\n', 'import sys\nimport no_such_thing\n',
     "行：import no_such_thing\n    ModuleNotFoundError: No module named 'no_such_thing'\n"),
    ('def main():', 'def main()', "行：def main()\n    SyntaxError: expected ':'\n"),
    ('v = self.value(x)', 'v = self.valve(x)',
     "行：v = self.valve(x)  # (B, T, n_embd)\n    AttributeError: 'SelfAttention' object has no attribute 'valve'\n"),
    (START, 'if True:', '导入时就开始训练了：训练要放进 main()'),
    (START, 'sys.exit("再见")\n\n' + START, 'SystemExit: 再见'),
    ('def get_batch(', 'def get_a_batch(', '没有 get_batch：这一级仍要有它，名字不能改。'),
    ('(model, train_data, val_data, eval_iters,', '(model, train_data, val_data, times,',
     'estimate_loss 的参数应是 (model, train_data, val_data, eval_iters, batch_size, block_size)'),
    ('class BabyGPT(', 'class GPT(', '没有 BabyGPT：这一级仍要有它，名字不能改。'),
    ('def decode(', 'def to_text(', 'Tokenizer 里没有 decode：这一级应有它，名字不能改。'),
    ('self.sa', 'self.attention', 'BabyGPT 里没有 sa（自注意力）：这一级应有它，名字不能改。'),
    ('            return logits, None\n', '            return logits\n', 'forward 要返回两样东西'),
], ids=lambda value: value.strip()[:30])
def test_files_that_break_the_contract_get_a_clear_answer(old, new, says, tmp_path, small_corpus):
    (tmp_path / 'ci.txt').write_text(small_corpus, encoding='utf-8')
    source = with_constants(written(RUNG_3 | {'changes': [(old, new)]}), eval_iters=1)
    code, printed = judge(tmp_path, 3, source, '-x')
    assert code == 1 and says in printed, printed
    assert 'Traceback' not in printed
    assert_lines_are_right(printed, source)


@pytest.mark.parametrize('options, says', [
    (['--rung', '3'], '--rung 和 --mine 要一起用'),
    (['--mine', 'my_v3.py'], '--rung 和 --mine 要一起用'),
    (['--rung', '13', '--mine', 'my_v3.py'], '--rung 应是 1 到 12 的整数，不能是 13'),
    (['--rung', 'three', '--mine', 'my_v3.py'], '不能是 three'),
    (['--rung', '3', '--mine', 'other.py'], '找不到 other.py'),
    (['--rung', '3', '--mine', '.'], '找不到 .：'),
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


# Practice

@pytest.mark.parametrize('number', RUNGS)
def test_practice_is_the_rung_before_with_marks_and_no_answer(number):
    text, todos = practice.practice(number)
    before, after = ((ROOT / practice.script(n)).read_text(encoding='utf-8') for n in (number - 1, number))
    opening = ast.get_docstring(ast.parse(text), clean=False)
    code = text[text.index('"""\n', 3) + 4:]
    marks = re.findall(r'^ *# TODO (\d+)：.+\n', code, flags=re.MULTILINE)
    assert list(map(int, marks)) == list(range(1, todos + 1))
    assert re.sub(r'^ *# TODO \d+：.+\n', '', code, flags=re.MULTILINE) == before[before.index('"""\n', 3) + 4:]
    new = {line.strip() for line in after[after.index('"""\n', 3):].splitlines()} - set(map(str.strip, before.splitlines()))
    assert not new & set(map(str.strip, text.splitlines()))
    assert f'--rung {number} --mine my_v{number}.py' in opening and RUNGS[number] in opening


@pytest.mark.parametrize('number', range(1, 11))
def test_practice_is_not_yet_the_solution(number, tmp_path):
    code, printed = judge(tmp_path, number, practice.practice(number)[0], '-x')
    assert code == 1, printed


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
    assert wrong.returncode == 1 and wrong.stderr == '没有 v13：可以自己写的是 1 到 12。\n'


def test_the_session_in_the_readme_is_real(tmp_path):
    """Commands and what they print; …… stands for lines left out."""
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    (first, wrote), (second, judged) = re.findall(r'```\n\$ (.*)\n([^`]*)```', text)
    (tmp_path / 'ci.txt').touch()
    assert first == 'python tools/practice.py 3' and practise(tmp_path, '3').stdout == wrote
    [attempt] = [attempt for attempt in ATTEMPTS['wrong'] if attempt['name'] == 'mask one too far']
    printed = command(tmp_path, *second.split()[4:], source=written(attempt)).stdout
    assert second == 'python -m pytest tests --rung 3 --mine my_v3.py'
    parts = judged.split('……\n')
    assert printed.startswith(parts[0]) and printed.endswith(parts[-1])
    assert re.fullmatch('.*'.join(map(re.escape, parts)), printed, flags=re.DOTALL)
