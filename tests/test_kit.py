"""The kit's house rules: imports run one way, each module says what it is for, and a new ladder is only data."""

import ast
import re
import shutil
import subprocess
import sys

import pytest

from kit import warm
from kit.files import ROOT, read
from kit.ladders import RUNGS
from kit.scripts import clean_environment, run
from kit.source import significant

TABLE = re.findall(r'^\| `(\w+)` \| (.+) \|$', read('kit/README.md'), flags=re.MULTILINE)
MODULES = [name for name, _ in TABLE]


def imported(path):
    """What a Python file imports, as dotted names."""
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f'{node.module}.{alias.name}' for alias in node.names)


def test_every_module_is_in_the_table():
    assert sorted(MODULES) == sorted(path.stem for path in (ROOT / 'kit').glob('*.py') if path.stem != '__init__')


@pytest.mark.parametrize('name', MODULES)
def test_modules_import_only_those_above_them(name):
    used = {match[1] for dotted in imported(ROOT / 'kit' / f'{name}.py') if (match := re.match(r'kit\.(\w+)', dotted))}
    assert used <= set(MODULES[:MODULES.index(name)])
    assert not [dotted for dotted in imported(ROOT / 'kit' / f'{name}.py') if re.match('tests|tools', dotted)]


@pytest.mark.parametrize('name', MODULES)
def test_modules_name_no_rung(name):
    """What is true of one ladder only stands in its own folder."""
    assert not re.findall(r"babygpt_\w+|['\"]v\d+['\"]", significant(read(f'kit/{name}.py')))


def test_commands_and_tests_do_not_import_each_other():
    names = {path.stem for folder in ('tests', 'tools') for path in (ROOT / folder).rglob('*.py')}
    for folder in ('tests', 'tools'):
        for path in (ROOT / folder).rglob('*.py'):
            used = {dotted.split('.')[0] for dotted in imported(path)} & names
            assert not used, (path, used)


# Scripts that run warm

ASKED = """
import atexit, os, random, sys, neighbour
if not sys.argv[1:]:
    while True:
        pass
atexit.register(print, 'at the end')
print(__name__, __file__, sys.argv, os.getcwd(), neighbour.__file__, sorted(os.environ), sys.stdin.read(), flush=True)
sys.exit(eval(sys.argv[1]))
"""


@pytest.mark.skipif(not warm.POSSIBLE, reason='needs fork')
def test_a_warm_script_does_what_a_fresh_one_does(tmp_path):
    (tmp_path / 'neighbour.py').touch()
    (tmp_path / 'asked.py').write_text(ASKED, encoding='utf-8')
    for code in ('0', '3', '"没有"', 'os.kill(os.getpid(), 9)', 'os._exit(4)'):
        fresh, again = (run(tmp_path / 'asked.py', code, text='春\n', env=clean_environment(COLOR='red'), fresh=fresh)
                        for fresh in (True, False))
        assert (fresh.returncode, fresh.stdout, fresh.stderr) == (again.returncode, again.stdout, again.stderr)
        assert 'COLOR' in fresh.stdout and '春' in fresh.stdout
    failed = run(tmp_path / 'asked.py', '1 / 0')
    assert failed.returncode == 1 and failed.stderr.startswith('Traceback') and failed.stderr.endswith('division by zero\n')


@pytest.mark.skipif(not warm.POSSIBLE, reason='needs fork')
def test_a_warm_script_that_does_not_end_is_stopped_and_draws_are_its_own(tmp_path):
    (tmp_path / 'neighbour.py').touch()
    (tmp_path / 'asked.py').write_text(ASKED, encoding='utf-8')
    with pytest.raises(subprocess.TimeoutExpired):
        run(tmp_path / 'asked.py', timeout=0.5)
    (tmp_path / 'draws.py').write_text('import random, numpy; print(random.random(), numpy.random.rand())', encoding='utf-8')
    first, second = (run(tmp_path / 'draws.py').stdout.split() for _ in range(2))
    assert first[0] != second[0] and first[1] != second[1]


# A made-up ladder of two rungs

ONE = '''"""一遍。

运行：python madeup/madeup_v1.py
"""

times = 1  # 几遍


def main():
    for _ in range(times):
        print('春江')


if __name__ == '__main__':
    main()
'''
TWO = ONE.replace('一遍。', '两遍。').replace('madeup/madeup_v1.py\n', 'madeup/madeup_v2_twice.py\n'
                                              '对照：git diff --no-index madeup/madeup_v1.py madeup/madeup_v2_twice.py\n')
TWO = TWO.replace('times = 1', 'times = 2')
LADDER = '''
name = "madeup"
judged = ["test_twice.py"]

[[rungs]]
path = "madeup/madeup_v1.py"

[[rungs]]
path = "madeup/madeup_v2_twice.py"
below = "madeup/madeup_v1.py"
changes = "~times"

[rungs.practice]
name = "两遍"
task = "打印两遍。"
truth = "打印两遍。"

[rungs.contract]
calls = {main = []}
'''
CONCEPTS = '''
import pytest
from kit.ladders import LADDERS
from kit.scripts import module_of

@pytest.mark.idea('打印两遍')
@pytest.mark.parametrize('rung, expected', [(rung, rung.reached('v2')) for rung in LADDERS['madeup'].numbered])
def test_twice(rung, expected, capsys):
    module_of(rung).main()
    assert (capsys.readouterr().out.count('春江') == 2) == expected, '没有打印两遍。'
'''


@pytest.fixture
def house(tmp_path):
    """A copy of the repository, as far as its ladders need it, with a new one in it."""
    for name in ('kit', 'tests', 'tools'):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns('__pycache__'))
    for path in (*[rung.file for rung in RUNGS], *ROOT.glob('*.toml'), *ROOT.glob('*/ladder.toml')):
        (tmp_path / path.relative_to(ROOT)).parent.mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / path.relative_to(ROOT))
    files = {'madeup/madeup_v1.py': ONE, 'madeup/madeup_v2_twice.py': TWO, 'madeup/ladder.toml': LADDER,
             'tests/madeup/test_twice.py': CONCEPTS}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding='utf-8')
    return tmp_path


def run_pytest(house, *options):
    return subprocess.run([sys.executable, '-m', 'pytest', '-p', 'no:cacheprovider', '-n', '0', *options], cwd=house,
                          capture_output=True, encoding='utf-8', check=False, env=clean_environment())


def test_a_new_ladder_is_tested_by_the_shared_tests(house):
    """They all pass, each applies to it, and they fail when its data does not hold."""
    tests = ['tests/test_contract.py', 'tests/test_diffs.py', 'tests/test_practice.py', 'tests/madeup', '-k', 'madeup']
    result = run_pytest(house, *tests, '-vv')
    assert result.returncode == 0, result.stdout
    for name in ('importing_trains_nothing[madeup/v1]', 'only_the_concept_changes[madeup/v2]', 'in_the_list[madeup]',
                 'marks_and_no_answer[madeup/v2]', 'have_their_names[madeup/v2]', 'twice[madeup/v1-False]'):
        assert name in result.stdout, result.stdout
    script = house / 'madeup/madeup_v2_twice.py'
    script.write_text(TWO.replace("print('春江')", "print('往事')"), encoding='utf-8')
    result = run_pytest(house, *tests)
    assert 'test_only_the_concept_changes[madeup/v2]' in result.stdout and 'test_twice[madeup/v2-True]' in result.stdout


def test_a_new_ladder_has_practice_files_and_a_judge(house):
    written = subprocess.run([sys.executable, 'tools/practice.py', 'madeup/2'], cwd=house, capture_output=True, check=True,
                             encoding='utf-8', env=clean_environment()).stdout
    assert 'madeup/my_v2.py' in written and '1 处' in written
    judged = run_pytest(house, 'tests', '--rung', 'madeup/2', '--mine', 'madeup/my_v2.py')
    assert judged.returncode == 1 and '没有打印两遍。' in judged.stdout, judged.stdout + judged.stderr
    (house / 'madeup/my_v2.py').write_text(TWO.replace('main', 'start'), encoding='utf-8')
    judged = run_pytest(house, 'tests', '--rung', 'madeup/2', '--mine', 'madeup/my_v2.py')
    assert judged.returncode == 1 and '没有 main' in judged.stdout, judged.stdout + judged.stderr
    (house / 'madeup/my_v2.py').write_text(TWO, encoding='utf-8')
    judged = run_pytest(house, 'tests', '--rung', 'madeup/2', '--mine', 'madeup/my_v2.py')
    assert judged.returncode == 0 and '不成立 0 项' in judged.stdout, judged.stdout + judged.stderr
    (house / 'my_v1.py').write_text(ONE, encoding='utf-8')
    judged = run_pytest(house, 'tests', '--rung', 'madeup/1', '--mine', 'my_v1.py')  # a rung that nobody practises
    assert judged.returncode == 0 and '不成立 0 项' in judged.stdout, judged.stdout + judged.stderr
