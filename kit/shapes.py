"""Shape comments are checked, not believed: a line trace compares each `# (B, T, ...)` with what its line made.

A comment is checked by running its script with sizes that all differ. It speaks of the first value that its line
assigns or returns; symbols are bound once, for the whole script, so that a swapped axis can't pass.
"""

import ast
import io
import re
import sys
import tokenize
from pathlib import Path

SHAPE = re.compile(r'#.*?(\([\w+ ]+,[\w+, ]*\))$')


def shape_comments(source):
    """{line: text of the shape} for every comment behind code that ends in a shape."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: match[1] for token in tokens
            if token.type == tokenize.COMMENT and token.line.strip() != token.string
            and (match := SHAPE.search(token.string))}


def statements(source):
    """{line: statement} for all statements of one line that assign or return."""
    return {node.lineno: node for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Assign | ast.Return) and node.lineno == node.end_lineno}


class Tracer:
    """While active, records the shape that each line of `path` makes when it first runs."""

    def __init__(self, path):
        source = Path(path).read_text(encoding='utf-8')
        self.path, self.comments, self.statements = str(path), shape_comments(source), statements(source)
        self.pending, self.seen, self.silent = {}, {}, set()

    def check(self, frame, returned=None):
        line = self.pending.pop(frame, None)
        node = self.statements.get(line)
        if node is None or line in self.seen:
            return
        if isinstance(node, ast.Assign):
            target = node.targets[0]
            target = target.elts[0] if isinstance(target, ast.Tuple) else target
            value = eval(ast.unparse(target), frame.f_globals, frame.f_locals) if isinstance(target, ast.Name) else None
        else:
            value = returned[0] if isinstance(returned, tuple) and returned else returned
        if hasattr(value, 'shape'):  # a tensor or an array
            self.seen[line] = tuple(value.shape)
            if isinstance(node, ast.Assign) and frame.f_code.co_name == 'forward' and line not in self.comments:
                self.silent.add(line)

    def __call__(self, frame, event, arg):
        if frame.f_code.co_filename != self.path or re.match('<(?!module)', frame.f_code.co_name):
            return None
        if event == 'line' and self.pending.get(frame) != frame.f_lineno:  # a comprehension comes by its line again
            self.check(frame)
            self.pending[frame] = frame.f_lineno
        elif event == 'return':
            self.check(frame, arg)
        return self

    def __enter__(self):
        sys.settrace(self)
        return self

    def __exit__(self, *exc):
        sys.settrace(None)

    def faults(self, symbols):
        """What each wrong or unchecked comment says, and the lines of a forward that make a tensor and say nothing."""
        found = [f'line {line} makes a tensor and has no shape' for line in sorted(self.silent)]
        for line, text in self.comments.items():
            says = tuple(eval(part, {}, symbols) for part in text.strip('()').split(',') if part.strip())
            if self.seen.get(line) != says:
                found.append(f'line {line} says {text} = {says}, is {self.seen.get(line)}')
        return found
