"""The rungs stand on numpy and nothing else."""

import ast
import sys

import pytest

from kit.scripts import clean_environment, continuations, install, run
from tests.scratch.models import LADDER

EACH = pytest.mark.parametrize('rung', LADDER.rungs)


@EACH
def test_nothing_but_numpy_is_imported(rung):
    nodes = list(ast.walk(ast.parse(rung.source)))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.split('.')[0] for name in names} - sys.stdlib_module_names <= {'numpy'}


NO_TORCH = """
import runpy, sys
for name in ('torch', 'scipy', 'wandb'):
    sys.modules[name] = None  # an import of it fails
runpy.run_path(sys.argv[1], run_name='__main__')
assert not [name for name in sys.modules if name.split('.')[0] in ('torch', 'scipy') and sys.modules[name]]
"""


@EACH
def test_it_runs_to_its_end_where_there_is_no_torch(rung, tmp_path, small_corpus):
    """The whole program, shortened: its last lines are there, and nothing is said on stderr."""
    small = {'max_iters': 2, 'eval_interval': 1, 'eval_iters': 1, 'max_new_tokens': 5} if rung.reached('v3') else {}
    path = install(rung.path, tmp_path, small_corpus, **small)
    (tmp_path / 'alone.py').write_text(NO_TORCH, encoding='utf-8')
    result = run(tmp_path / 'alone.py', path, env=clean_environment(OMP_NUM_THREADS='1'), fresh=True)
    assert result.returncode == 0 and not result.stderr, result.stderr
    if rung.reached('v3'):
        assert result.stdout.count('验证损失') == 3
        assert [len(text) for text in continuations(result.stdout)] == [7, 8]
    else:
        assert result.stdout.count('第 ') == 11 and result.stdout.count('真值') == {'v1': 3, 'v2': 4}[str(rung)]
