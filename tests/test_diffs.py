"""The diff between neighbours is the lesson: what each rung changes, and that it changes nothing else.

A script is cut into named pieces (imports, constants, functions, methods), each with the comments and blank lines
above it. Everything not named in the table below must be the same in both neighbours, to the byte.
"""

import ast
import difflib

import pytest
from ladder import ROOT, RUNGS, SAMPLER

# What a rung does to the rung before it: + adds, - removes, ~ changes.
CHANGES = {
    2: '~BabyGPT.__init__ ~BabyGPT.forward ~BabyGPT.generate ~main',
    3: '+SelfAttention ~BabyGPT.__init__ ~BabyGPT.forward',
    4: '+n_head -SelfAttention +MultiHeadAttention ~BabyGPT.__init__ ~main',
    5: '+FeedForward ~BabyGPT.__init__ ~BabyGPT.forward',
    6: '+n_layer +Block ~BabyGPT.__init__ ~BabyGPT.forward ~main',
    7: '~Block.forward',
    8: '~MultiHeadAttention.__init__ ~MultiHeadAttention.forward',
    9: '~Block.__init__ ~Block.forward ~BabyGPT.__init__ ~BabyGPT.forward',
    10: '+dropout ~MultiHeadAttention.__init__ ~MultiHeadAttention.forward ~FeedForward.__init__ ~Block.__init__ '
        '~BabyGPT.__init__ ~main',
    11: '+argparse +on_cpu ~batch_size ~block_size ~n_embd ~n_head ~n_layer ~dropout ~learning_rate ~max_iters '
        '~eval_interval +parse_args ~main',
    12: '+io +os +signal +wandb +model_path +start_tracking +save +pack ~main',
}
# The lines that may go from main, and the words that each new line of main must have one of.
MODEL = 'model = BabyGPT('
MAIN = {2: [MODEL], 4: [MODEL], 6: [MODEL], 10: [MODEL], 11: ['args']}


def source(number):
    return (ROOT / RUNGS[number]).read_text(encoding='utf-8')


def names(node):
    """The name of a top-level piece: what it defines, or the text of anything that defines nothing."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return node.names[0].asname or node.names[0].name
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0])
    if isinstance(node, ast.If):
        return ast.unparse(node.test)
    return node.name


def pieces(text):
    """{name: text} in order; a class is cut into 'Class' (its head) and 'Class.method'. The docstring is left out."""
    lines = text.splitlines(keepends=True)
    found = {}

    def cut(nodes, start, prefix=''):
        for node in nodes:
            if isinstance(node, ast.ClassDef):
                body = [member for member in node.body if isinstance(member, ast.FunctionDef)]
                head_end = node.body[0].end_lineno
                found[prefix + node.name] = ''.join(lines[start:head_end])
                cut(body, head_end, node.name + '.')
            else:
                first = node.lineno - 1 if isinstance(node, ast.Import | ast.ImportFrom) else start
                found[prefix + names(node)] = ''.join(lines[first:node.end_lineno])
            start = node.end_lineno

    tree = ast.parse(text)
    assert ast.get_docstring(tree), 'a rung opens with a docstring'
    cut(tree.body[1:], tree.body[0].end_lineno)
    return found


def changes(before, after):
    """The table's notation for two texts; a whole class that comes or goes is one name."""
    a, b = pieces(before), pieces(after)
    gone, new = a.keys() - b.keys(), b.keys() - a.keys()
    marks = {f'-{name}' for name in gone if name.split('.')[0] not in gone or '.' not in name}
    marks |= {f'+{name}' for name in new if name.split('.')[0] not in new or '.' not in name}
    marks |= {f'~{name}' for name in a.keys() & b.keys() if a[name] != b[name]}
    order = [name for name in a if name in b], [name for name in b if name in a]
    assert order[0] == order[1], 'a piece moved'
    return marks


@pytest.mark.parametrize('number', CHANGES)
def test_only_the_concept_changes(number):
    assert changes(source(number - 1), source(number)) == set(CHANGES[number].split())


@pytest.mark.parametrize('number', MAIN)
def test_main_changes_only_where_the_model_is_made(number):
    before, after = (pieces(source(n))['main'].splitlines() for n in (number - 1, number))
    diff = [line for line in difflib.ndiff(before, after) if line[0] in '+-']
    assert diff and all(any(word in line for word in MAIN[number]) for line in diff), diff


def test_residual_connection_is_two_lines():
    before, after = (pieces(source(n))['Block.forward'].splitlines() for n in (6, 7))
    assert [line for line in difflib.ndiff(before, after) if line[0] == '-'] == [f'- {before[-3]}', f'- {before[-2]}']
    assert len(before) == len(after)


def test_v12_only_adds_lines_to_main():
    """Tracking and saving, nothing else: the only line of v11's main that goes is the one that ends the training."""
    before, after = (pieces(source(n))['main'].splitlines() for n in (11, 12))
    gone = [line[2:].strip() for line in difflib.ndiff(before, after) if line[0] == '-']
    assert gone == ['last = step == max_iters']


def test_sampler_changes_only_what_carries_the_cache():
    a, b = pieces(source(12)), pieces((ROOT / SAMPLER).read_text(encoding='utf-8'))
    model = {name for name in a if name.split('.')[0] in
             {'Tokenizer', 'MultiHeadAttention', 'FeedForward', 'Block', 'BabyGPT'}}
    assert {name for name in model if a[name] != b.get(name)} == {
        'MultiHeadAttention.forward', 'Block.forward', 'BabyGPT.__init__', 'BabyGPT.forward', 'BabyGPT.generate'}
    assert not {'get_batch', 'estimate_loss', 'start_tracking', 'save', 'pack'} & b.keys()


def test_the_bridge_to_v1_changes_the_model_and_its_training():
    bridge = (ROOT / 'simplebigrammodel_torch.py').read_text(encoding='utf-8')
    assert changes(bridge, source(1)) == {
        '-BigramLanguageModel', '+BabyGPT', '+n_embd', '+learning_rate', '~batch_size', '~max_iters',
        '~eval_interval', '~eval_iters', '~main'}


@pytest.mark.parametrize('name', ['simplemodel', 'simplebigrammodel'])
def test_the_explained_program_differs_only_in_comments_and_docstrings(name):
    def code(path):
        tree = ast.parse(path.read_text(encoding='utf-8'))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
                del node.body[0]
        return ast.dump(tree)

    plain, explained = ROOT / f'{name}.py', ROOT / f'{name}_with_comments.py'
    assert code(plain) == code(explained)


def test_constants_are_the_same_from_v1_to_v10():
    """Same values, same seed, so that the losses of the ladder can be compared."""
    values = {}
    for number in range(1, 11):
        for node in ast.parse(source(number)).body:
            if isinstance(node, ast.Assign):
                values.setdefault(names(node), set()).add(ast.unparse(node.value))
    assert {'batch_size', 'block_size', 'n_embd', 'n_head', 'n_layer', 'dropout', 'learning_rate', 'max_iters',
            'eval_interval', 'eval_iters', 'train_ratio', 'max_new_tokens', 'seed'} <= values.keys()
    assert all(len(value) == 1 for value in values.values())


@pytest.mark.parametrize('number', RUNGS)
def test_classes_read_no_global_constants(number):
    tree = ast.parse(source(number))
    constants = {names(node) for node in tree.body if isinstance(node, ast.Assign)}
    for cls in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for function in (node for node in cls.body if isinstance(node, ast.FunctionDef)):
            bound = {arg.arg for arg in function.args.args}
            bound |= {node.id for node in ast.walk(function)
                      if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
            read = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)} - bound
            assert not read & constants, (cls.name, function.name)
