"""What holds between the rungs of the root ladder beyond what its ladder.toml says."""

import ast
import difflib

import pytest

from kit.ladders import LADDERS
from kit.source import constants_of, pieces, significant

LADDER = LADDERS['root']


def lines_of(rung, piece='main'):
    return pieces(rung.source)[piece].splitlines()


def test_residual_connection_is_two_lines():
    before, after = lines_of(LADDER['v6'], 'Block.forward'), lines_of(LADDER['v7'], 'Block.forward')
    assert [line for line in difflib.ndiff(before, after) if line[0] == '-'] == [f'- {before[-3]}', f'- {before[-2]}']
    assert len(before) == len(after)


def test_v12_only_adds_lines_to_main():
    """Tracking and saving, nothing else: the only line of v11's main that goes is the one that ends the training."""
    diff = difflib.ndiff(lines_of(LADDER['v11']), lines_of(LADDER['v12']))
    assert [line[2:].strip() for line in diff if line[0] == '-'] == ['last = step == max_iters']


@pytest.mark.parametrize('name', ['simplemodel', 'simplebigrammodel'])
def test_the_explained_program_differs_only_in_comments_and_docstrings(name):
    plain, explained = (LADDER[f'{name}{end}'].source for end in ('', '_with_comments'))
    assert significant(plain) == significant(explained)


def test_constants_are_the_same_from_v1_to_v10():
    """Same values, same seed, so that the losses of the ladder can be compared."""
    values = {}
    for rung in LADDER.numbered:
        if not rung.reached('v11'):
            for name, node in constants_of(rung.source).items():
                values.setdefault(name, set()).add(ast.unparse(node.value))
    assert {*LADDER.contract['arguments'], 'batch_size', 'learning_rate', 'max_iters', 'eval_interval', 'eval_iters',
            'train_ratio', 'max_new_tokens', 'seed'} - {'vocab_size'} <= values.keys()
    assert all(len(value) == 1 for value in values.values())


def test_counting_and_v1_are_evaluated_on_the_same_batches():
    """Their losses stand in one table."""
    bridge, v1 = (constants_of(LADDER[name].source) for name in ('simplebigrammodel_torch', 'v1'))
    for name in ('batch_size', 'block_size', 'eval_iters', 'train_ratio', 'seed'):
        assert ast.unparse(bridge[name].value) == ast.unparse(v1[name].value), name
    texts = [pieces(LADDER[name].source) for name in ('simplebigrammodel_torch', 'v1')]
    assert all(texts[0][name] == texts[1][name] for name in ('get_batch', 'estimate_loss'))
