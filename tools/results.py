"""docs/results.json, where every number of the documents comes from: what the tools keep there, and how."""

import ast
import hashlib
import json
import os
import platform
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / 'docs' / 'results.json'
SEEDS = [1337, 1338, 1339]


def code_hash(script, constants=()):
    """A hash of what the script does with those constants given: its code without them, comments and docstrings."""
    tree = ast.parse((ROOT / script).read_text(encoding='utf-8'))
    tree.body = [node for node in tree.body
                 if not (isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', None) in constants)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            del node.body[0]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


def machine():
    """What the numbers were measured on."""
    cpu = Path('/proc/cpuinfo')
    model = re.search('model name\\s*: (.*)', cpu.read_text())[1] if cpu.exists() else platform.processor()
    return {'cpu': model, 'cores': os.cpu_count(), 'python': platform.python_version()}


def load():
    return json.loads(RESULTS.read_text(encoding='utf-8')) if RESULTS.exists() else {'runs': {}}


def keep(section, key, value):
    """Store one result, at once and whole: an interrupted tool loses nothing that was finished."""
    results = load()  # read again: another tool may be at work
    results['machine'] = machine()
    results.setdefault(section, {})[key] = value
    text = json.dumps(results, indent=1, ensure_ascii=False)
    text = re.sub(r'\[[^][{}"]*\]', lambda numbers: ' '.join(numbers[0].split()), text)  # a list of numbers: one line
    temporary = RESULTS.with_suffix('.tmp')
    temporary.write_text(text + '\n', encoding='utf-8')
    os.replace(temporary, RESULTS)


def key(script, constants):
    """The name of a run of that script with those constants changed."""
    return f'{script} {json.dumps(constants, sort_keys=True)}'
