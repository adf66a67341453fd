"""The rungs stand on numpy: nothing else is imported but what serves and reads files, from v8 on."""

import ast
import sys

import pytest

from kit.scripts import clean_environment, continuations, install, run
from tests.scratch.models import LADDER, TINY, WRITING, save_model, training

EACH = pytest.mark.parametrize('rung', LADDER.rungs)


def allowed(rung):
    later = {'v8': {'safetensors'}, 'v9': {'fastapi', 'pydantic', 'uvicorn'}}
    return {'numpy'}.union(*(names for since, names in later.items() if rung.reached(since)))


@EACH
def test_nothing_but_numpy_is_imported(rung):
    nodes = list(ast.walk(ast.parse(rung.source)))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.split('.')[0] for name in names} - sys.stdlib_module_names <= allowed(rung)


NO_TORCH = """
import pickle, runpy, sys
for name in ('torch', 'scipy', 'wandb'):
    sys.modules[name] = None  # an import of it fails
pickle.load = pickle.loads = pickle.Unpickler = None  # and so does unpickling
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name='__main__')
finally:
    assert not [name for name in sys.modules if name.split('.')[0] in ('torch', 'scipy') and sys.modules[name]]
"""


def run_alone(path, *args):
    """Run a script where there is no torch; its stdout, if it ends well and says nothing on stderr."""
    alone = path.with_name('alone.py')
    alone.write_text(NO_TORCH, encoding='utf-8')
    result = run(alone, path, *args, env=clean_environment(OMP_NUM_THREADS='1'), fresh=True)
    assert result.returncode == 0 and not result.stderr, result.stderr
    return result.stdout


@pytest.mark.parametrize('rung', [rung for rung in LADDER.rungs if rung not in WRITING])
def test_it_trains_to_its_end_where_there_is_no_torch(rung, tmp_path, small_corpus):
    """The whole program, shortened: its last lines are there."""
    trains = rung in training('v3')
    small = {'max_iters': 2, 'eval_interval': 1, 'eval_iters': 1, 'max_new_tokens': 5} if trains else {}
    output = run_alone(install(rung.path, tmp_path, small_corpus, **small))
    if trains:
        assert output.count('验证损失') == 3
        assert [len(text) for text in continuations(output)] == [7, 8]
    else:
        assert output.count('第 ') == 11 and output.count('真值') == {'v1': 3, 'v2': 4}[str(rung)]


def test_it_writes_where_there_is_no_torch(tmp_path):
    path = install(LADDER['v8'].path, tmp_path, '')
    save_model(tmp_path / 'pretrained' / 'model.safetensors', **TINY)
    assert '春江' in run_alone(path, '--prompts', '春江', '--max_new_tokens', 3)
