"""Shape comments are checked, not believed: a line trace compares each `# (B, T, ...)` with what the line made.

A comment is checked by running its script with sizes that all differ. It speaks of the first value that its line
assigns or returns; symbols are bound once, for the whole script, so a swapped axis can't pass.
"""

import ast
import inspect
import io
import re
import runpy
import sys
import tokenize
from pathlib import Path

import numpy as np
import pytest
import torch
from ladder import ROOT, RUNGS, SAMPLER, load

B, T, START = 3, 5, 2
SIZES = {'vocab_size': 31, 'block_size': 11, 'n_embd': 28, 'n_head': 4, 'n_layer': 1, 'dropout': 0.0}
SYMBOLS = {'B': B, 'T': T, 'V': SIZES['vocab_size'], 'S': START + T,
           'head_size': SIZES['n_embd'] // SIZES['n_head']} | SIZES
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
            value = returned[0] if isinstance(returned, tuple) else returned
        if isinstance(value, torch.Tensor | np.ndarray):
            self.seen[line] = tuple(value.shape)
            if isinstance(node, ast.Assign) and frame.f_code.co_name == 'forward' and line not in self.comments:
                self.silent.add(line)

    def __call__(self, frame, event, arg):
        if frame.f_code.co_filename != self.path or re.match('<(?!module)', frame.f_code.co_name):
            return None
        if event == 'line':
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

    def faults(self):
        """What each wrong or unchecked comment says, and the lines of a forward that make a tensor and say nothing."""
        found = [f'line {line} makes a tensor and has no shape' for line in sorted(self.silent)]
        for line, text in self.comments.items():
            says = tuple(eval(part, {}, SYMBOLS) for part in text.strip('()').split(',') if part.strip())
            if self.seen.get(line) != says:
                found.append(f'line {line} says {text} = {says}, is {self.seen.get(line)}')
        return found


class Vocabulary:
    """Stands in for a tokenizer whose prompt has T characters."""

    vocab_size = SIZES['vocab_size']

    def encode(self, text):
        return list(range(T))

    def decode(self, ids):
        return ''


def trace_main(module, tracer, monkeypatch, tmp_path):
    """Run a rung's own main() for one step, on a text with V distinct characters."""
    chars = '春江往事' + ''.join(map(chr, range(0x4e00, 0x4e00 + SIZES['vocab_size'] - 4)))
    module.data_path = tmp_path / 'ci.txt'
    module.data_path.write_text(chars * 20, encoding='utf-8')
    small = SIZES | {'batch_size': B, 'block_size': T, 'max_iters': 1, 'eval_interval': 1, 'eval_iters': 1,
                     'max_new_tokens': 1, 'prompts': [chars[:T]]}
    for name, value in small.items():
        if hasattr(module, name):
            monkeypatch.setattr(module, name, value)
    monkeypatch.setenv('WANDB_MODE', 'disabled')
    monkeypatch.setattr(module, 'model_path', tmp_path / 'model.pth', raising=False)
    monkeypatch.setattr(sys, 'argv', ['script'])
    with tracer:
        module.main()


def trace_parts(module, tracer):
    """Call the parts of a rung with sizes that all differ: here block_size is not T."""
    model = module.BabyGPT(**{name: SIZES[name] for name in inspect.signature(module.BabyGPT).parameters})
    ids = torch.randint(SIZES['vocab_size'], (B, T))
    with tracer:
        model(ids, ids)
        model.eval().generate(ids, 1)
        module.get_batch(torch.arange(100), B, T)
        module.write(model, Vocabulary(), 'prompt', 1)


@pytest.mark.parametrize('number', RUNGS)
def test_rungs(number, monkeypatch, tmp_path):
    module = load(RUNGS[number])
    tracer = Tracer(module.__file__)
    trace_parts(module, tracer)
    trace_main(module, tracer, monkeypatch, tmp_path)
    assert not tracer.faults()
    assert_attention_is_commented(tracer, number >= 3)


def assert_attention_is_commented(tracer, expected):
    """q, k, v, the scores, the weights and what comes out: a script that says nothing there must not pass."""
    names = {ast.unparse(tracer.statements[line].targets[0]) for line in tracer.comments
             if isinstance(tracer.statements[line], ast.Assign)}
    assert ({'q', 'k', 'v', 'scores', 'weights'} <= names) == expected


def test_sampler():
    module = load(SAMPLER)
    model = module.BabyGPT(**SIZES).eval()
    ids = torch.randint(SIZES['vocab_size'], (B, START + T))
    tracer = Tracer(module.__file__)
    _, cache = model(ids[:, :START], model.empty_cache(B))
    with tracer:
        model(ids[:, START:], cache)
        list(model.generate(ids[:, :T], 1, top_k=3))
        args = type('Args', (), {'num_samples': 1, 'max_new_tokens': 1, 'temperature': 1.0, 'top_k': None})
        module.write(model, Vocabulary(), 'prompt', args)
    assert not tracer.faults()
    assert_attention_is_commented(tracer, expected=True)


@pytest.mark.parametrize('name', ['simplebigrammodel.py', 'simplebigrammodel_with_comments.py',
                                  'simplebigrammodel_torch.py'])
def test_bigram_models(name, monkeypatch, tmp_path):
    module = load(name)
    array = torch.tensor if name.endswith('torch.py') else np.array
    model, tracer = module.BigramLanguageModel(SIZES['vocab_size']), Tracer(module.__file__)
    ids = array(np.random.randint(SIZES['vocab_size'], size=(B, T)))
    with tracer:
        model.forward(ids, ids)
        model.generate(ids, 1)
        module.get_batch(array(np.arange(100)), B, T)
        module.write(model, Vocabulary(), 'prompt', 1)
    trace_main(module, tracer, monkeypatch, tmp_path)
    assert not tracer.faults()


def test_pytorch_5min():
    tracer = Tracer(ROOT / 'pytorch_5min.py')
    with tracer:
        runpy.run_path(tracer.path)
    assert len(tracer.comments) >= 6
    assert not tracer.faults()


@pytest.mark.parametrize('right, wrong', [
    ('v = self.value(x)  # (B, T, n_embd)', 'v = self.value(x)  # (T, B, n_embd)'),
    ('return weights @ v  # (B, T, n_embd)', 'return weights @ v  # (B, T, T)'),
    ("self.future[:T, :T]  # (B, T, T)", "self.future[:T, :T]"),
])
def test_a_wrong_or_missing_comment_is_found(right, wrong, tmp_path):
    """The checker itself: make one comment lie, and it names that line."""
    source = (ROOT / RUNGS[3]).read_text(encoding='utf-8')
    line = source[:source.index(right)].count('\n') + 1
    path = tmp_path / 'wrong.py'
    path.write_text(source.replace(right, wrong), encoding='utf-8')
    module = load(path)
    tracer = Tracer(module.__file__)
    trace_parts(module, tracer)
    assert [fault for fault in tracer.faults() if fault.startswith(f'line {line} ')]
