"""The scripts at work: load one as a module, build its model, run it as a user does, read what it prints."""

import importlib.util
import inspect
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from kit import warm
from kit.files import CORPUS, ROOT, read
from kit.source import constants_of, with_constants

MINE = {}  # {rung: a learner's file that is judged in its place}; see judge.py


def module_name(path):
    """The name that a script is loaded under, made of its whole path: two ladders may have files of one name."""
    path = ROOT / path
    inside = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    return re.sub(r'\W', '_', str(inside.with_suffix('')))


def load(path, source=None):
    """Import the script at `path` (from the root, or any path) as a fresh module, or that source in its place."""
    spec = importlib.util.spec_from_file_location(module_name(path), ROOT / path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where a dataclass looks for the module that it is defined in
    if source is not None:
        spec.loader.get_code = lambda _: compile(source, spec.origin, 'exec')
    spec.loader.exec_module(module)
    return module


def script_of(rung):
    """The file that stands for a rung: ours, or the learner's that is being judged."""
    return MINE.get(rung, rung.file)


@cache
def module_of(rung):
    """The module of a rung, loaded once."""
    return load(script_of(rung))


def build(rung, seed=0, **sizes):
    """A model of that rung in eval mode, with random weights and those of the ladder's test sizes that it takes."""
    import torch
    torch.manual_seed(seed)
    model = getattr(module_of(rung), rung.contract['model'])
    sizes = rung.contract['sizes'] | sizes
    return model(**{name: sizes[name] for name in inspect.signature(model).parameters if name in sizes}).eval()


def install(path, folder, corpus=None, **constants):
    """Copy a script into `folder`, with smaller constants and the corpus (or that text) where it looks for it.

    It runs on the CPU: an accelerator need not repeat a run to the digit. Return its path there: the folders between
    the root and the script are kept.
    """
    source, copy = read(path), Path(folder, path)
    if 'device' in constants_of(source):
        constants = {'device': 'cpu'} | constants
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text(with_constants(source, **constants), encoding='utf-8')
    text = Path(folder, CORPUS.name)
    if corpus is not None:
        text.write_text(corpus, encoding='utf-8')
    elif not text.exists():
        shutil.copy(CORPUS, text)
    return copy


def clean_environment(**extra):
    """The environment of a user with no wandb account."""
    env = {key: value for key, value in os.environ.items() if not key.startswith('WANDB')}
    return env | {'PYTHONUTF8': '1', 'HOME': str(extra.pop('home', '/nonexistent'))} | extra


def run(path, *args, text=None, timeout=600, env=None, fresh=not warm.POSSIBLE):
    """Run a script as a user does, in its own folder; unless `fresh`, in a process that has imported PyTorch already."""
    command = [str(path), *map(str, args)]
    options = {'cwd': Path(path).parent, 'env': env or clean_environment(), 'input': text, 'timeout': timeout}
    if not fresh:
        return warm.run(command, **options)
    return subprocess.run([sys.executable, *command], capture_output=True, encoding='utf-8', check=False, **options)


# A test run started in the background ignores SIGINT, and its children would too; a learner's terminal does not.
HEAR_CTRL_C = '''
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, '-u', *sys.argv[1:]])
'''


def start(path, *args):
    """Start a script as in a terminal, where it can be spoken to and stopped with Ctrl-C. Return the process."""
    return subprocess.Popen(
        [sys.executable, '-c', HEAR_CTRL_C, path, *map(str, args)], cwd=path.parent, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, stdin=subprocess.PIPE, encoding='utf-8', env=clean_environment())


LINE = re.compile(r'第 +(\d+) \S  训练损失 ([\d.]+|nan|inf)  验证损失 ([\d.]+|nan|inf)'
                  r'(?:  每秒 +([\d,]+) 字  还要 +(\d+|\?) 秒)?')


def losses(output):
    """[(step, train, val), ...] as printed."""
    return [(int(step), float(train), float(val)) for step, train, val, *_ in LINE.findall(output)]


def speeds(output):
    """[characters per second, ...] as printed."""
    return [int(speed.replace(',', '')) for *_, speed, _ in LINE.findall(output) if speed]


def continuations(output, prompts=('春江', '往事')):
    """What a run wrote from each prompt: what follows the last line of losses, cut at the prompts."""
    tail = output[output.rindex(' 秒\n') + 3:]
    first, second = (tail.index(f'\n{prompt}') + 1 for prompt in prompts)
    return tail[first:second].rstrip('\n'), tail[second:]
