"""The diff between neighbours is the lesson: what each rung changes, and that it changes nothing else.

A script is cut into named pieces (see kit/source.py). What its ladder.toml does not name must be the same in both
neighbours, to the byte.
"""

import ast
import difflib

import pytest

from kit.files import ROOT
from kit.ladders import LADDERS, RUNGS
from kit.source import changes, constants_of, pieces

COMPARED = [rung for rung in RUNGS if 'changes' in rung.data]


def changed_lines(rung, piece):
    """The lines of a piece that go and those that come, as difflib marks them."""
    before, after = (pieces(each.source)[piece].splitlines() for each in (rung.below, rung))
    return [line for line in difflib.ndiff(before, after) if line[0] in '+-' and line[1:].strip()]


@pytest.mark.parametrize('rung', COMPARED)
def test_only_the_concept_changes(rung):
    assert changes(rung.below.source, rung.source) == set(rung.data['changes'].split())


@pytest.mark.parametrize('rung', [rung for rung in COMPARED if 'main' in rung.data])
def test_main_changes_only_where_the_concept_needs_it(rung):
    diff = changed_lines(rung, 'main')
    assert diff and all(any(word in line for word in rung.data['main']) for line in diff), diff


@pytest.mark.parametrize('rung', RUNGS)
def test_classes_read_no_global_constants(rung):
    constants = constants_of(rung.source).keys()
    for cls in (node for node in ast.parse(rung.source).body if isinstance(node, ast.ClassDef)):
        for function in (node for node in cls.body if isinstance(node, ast.FunctionDef)):
            bound = {arg.arg for arg in function.args.args}
            bound |= {node.id for node in ast.walk(function)
                      if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
            read = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)} - bound
            assert not read & constants, (cls.name, function.name)


@pytest.mark.parametrize('rung', [rung for rung in RUNGS if rung.below])
def test_the_docstring_says_how_to_run_and_how_to_compare(rung):
    """The commands name files that exist: this script, and the one that it is compared with."""
    text = ast.get_docstring(ast.parse(rung.source))
    assert f'python {rung.path}' in text
    assert f'git diff --no-index {rung.below.path} {rung.path}' in text


@pytest.mark.parametrize('ladder', LADDERS.values(), ids=LADDERS)
def test_every_script_of_the_folder_is_in_the_list(ladder):
    """ladder.toml is the one list of scripts: none is missing, none is listed that is not there."""
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / ladder.folder).glob('*.py')
             if not path.name.startswith('my_v')}
    assert {rung.path for rung in ladder.rungs} == there
