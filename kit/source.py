"""A script as text: its docstring, its body, its named pieces, its constants, and a hash of what it does."""

import ast
import hashlib
import io
import re
import tokenize


def docstring(source):
    """The docstring that a script opens with."""
    return ast.get_docstring(ast.parse(source), clean=False)


def docstring_end(source):
    """How many lines the docstring at the top takes, 0 if there is none."""
    tree = ast.parse(source)
    return tree.body[0].end_lineno if ast.get_docstring(tree) is not None else 0


def body(source):
    """The lines of a script below its docstring."""
    return source.splitlines()[docstring_end(source):]


def documented(tree):
    """The modules, classes and functions of a syntax tree that have a docstring."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None]


def constants_of(source):
    """{name: the node that sets it} of the module-level constants."""
    return {ast.unparse(node.targets[0]): node for node in ast.parse(source).body if isinstance(node, ast.Assign)}


def with_constants(source, **constants):
    """The script's text with some of its module-level constants replaced."""
    for name, value in constants.items():
        source, found = re.subn(rf'^{name} = .*?(?=  #|$)', f'{name} = {value!r}', source, flags=re.MULTILINE)
        assert found == 1, f'{name} is set {found} times'
    return source


def significant(source, without=()):
    """The source without comments, docstrings and blank lines, and without the module-level constants `without`.

    It is text, not a syntax tree or a list of tokens: those differ between versions of Python.
    """
    tree, lines = ast.parse(source), source.splitlines()
    docstrings = {(node.body[0].lineno, node.body[0].col_offset) for node in documented(tree)}
    given = {line for node in tree.body if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', None) in without
             for line in range(node.lineno, node.end_lineno + 1)}
    used = set()
    for token in reversed(list(tokenize.generate_tokens(io.StringIO(source).readline))):
        (first, start), (last, end) = token.start, token.end
        if token.type == tokenize.COMMENT or token.start in docstrings:
            lines[first - 1:last] = [(lines[first - 1][:start] + lines[last - 1][end:]).rstrip()] + [''] * (last - first)
        elif token.type not in (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER):
            used |= set(range(first, last + 1))
    return '\n'.join(lines[number - 1] for number in sorted(used - given))


def code_hash(source, without=()):
    """A hash of what a script does once the constants `without` are given: of its significant text."""
    return hashlib.sha256(significant(source, without).encode()).hexdigest()[:16]


def name_of(node):
    """The name of a top-level piece: what it defines, or the text of anything that defines nothing."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return node.names[0].asname or node.names[0].name
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0])
    if isinstance(node, ast.If):
        return ast.unparse(node.test).replace(' ', '')
    return node.name


def pieces(source):
    """{name: text} in order: imports, constants, functions, and classes, cut into 'Class' (its head) and 'Class.method'.

    Each has the comments and blank lines above it. The docstring at the top is left out.
    """
    lines = source.splitlines(keepends=True)
    found = {}

    def cut(nodes, start, prefix=''):
        for node in nodes:
            if isinstance(node, ast.ClassDef):
                methods = [member for member in node.body if isinstance(member, ast.FunctionDef)]
                head_end = node.body[0].end_lineno
                found[prefix + node.name] = ''.join(lines[start:head_end])
                cut(methods, head_end, node.name + '.')
            else:
                first = node.lineno - 1 if isinstance(node, ast.Import | ast.ImportFrom) else start
                found[prefix + name_of(node)] = ''.join(lines[first:node.end_lineno])
            start = node.end_lineno

    tree = ast.parse(source)
    assert ast.get_docstring(tree), 'a rung opens with a docstring'
    cut(tree.body[1:], tree.body[0].end_lineno)
    return found


def changes(before, after):
    """What a text does to the one before: {'+added', '-removed', '~changed'} by piece; a whole class is one name."""
    a, b = pieces(before), pieces(after)
    gone, new = a.keys() - b.keys(), b.keys() - a.keys()
    marks = {f'-{name}' for name in gone if name.split('.')[0] not in gone or '.' not in name}
    marks |= {f'+{name}' for name in new if name.split('.')[0] not in new or '.' not in name}
    marks |= {f'~{name}' for name in a.keys() & b.keys() if a[name] != b[name]}
    order = [name for name in a if name in b], [name for name in b if name in a]
    assert order[0] == order[1], 'a piece moved'
    return marks
