"""What the tests know about the ladder: where the scripts are, how to build their models, how to run them."""

import importlib.util
import inspect
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT / 'ci.txt'
RUNGS = {
    1: 'babygpt_v1.py',
    2: 'babygpt_v2_position.py',
    3: 'babygpt_v3_self_attention.py',
    4: 'babygpt_v4_multihead_attention.py',
    5: 'babygpt_v5_feedforward.py',
    6: 'babygpt_v6_block.py',
    7: 'babygpt_v7_residual_connection.py',
    8: 'babygpt_v8_projection.py',
    9: 'babygpt_v9_layer_norm.py',
    10: 'babygpt_v10_dropout.py',
    11: 'babygpt_v11_hyper_params.py',
    12: 'babygpt_v12_wandb.py',
}
SAMPLER = 'babygpt_sample_with_kvcache.py'
BEFORE = ['simplemodel.py', 'simplemodel_with_comments.py', 'simplebigrammodel.py',
          'simplebigrammodel_with_comments.py', 'simplebigrammodel_torch.py', 'pytorch_5min.py']

# {rung: a learner's file that is judged in place of ours}; see judge.py.
MINE = {}

# Sizes that all differ, so that no wrong shape or wrong axis can pass by accident.
SIZES = {'vocab_size': 29, 'block_size': 7, 'n_embd': 24, 'n_head': 4, 'n_layer': 2, 'dropout': 0.0}


def load(path):
    """Import the script at `path` (a name in the root, or any path) as a fresh module."""
    path = ROOT / path
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # where a dataclass looks for the module that it is defined in
    spec.loader.exec_module(module)
    return module


def script(number):
    """The file that stands for a rung: ours, or the learner's that is being judged."""
    return MINE.get(number, ROOT / RUNGS[number])


@cache
def rung(number):
    return load(script(number))


def build(number, seed=0, **sizes):
    """A model of that rung in eval mode, with random weights and the sizes its constructor asks for."""
    torch.manual_seed(seed)
    cls = rung(number).BabyGPT
    sizes = SIZES | sizes
    return cls(**{name: sizes[name] for name in inspect.signature(cls).parameters if name in sizes}).eval()


def random_ids(batch, time, seed=1, vocab_size=SIZES['vocab_size']):
    return torch.randint(vocab_size, (batch, time), generator=torch.Generator().manual_seed(seed))


@contextmanager
def hint(text):
    """Whatever breaks inside is what `text` speaks of."""
    try:
        yield
    except Exception as error:
        raise AssertionError(text) from error


def with_constants(source, **constants):
    """The script's text with some of its module-level constants replaced."""
    for name, value in constants.items():
        source, found = re.subn(rf'^{name} = .*?(?=  #|$)', f'{name} = {value!r}', source, flags=re.MULTILINE)
        assert found == 1, f'{name} is set {found} times'
    return source


def install(script, folder, corpus=None, **constants):
    """Copy a script into `folder` with smaller constants, and a corpus beside it. Return its path there."""
    path = folder / script
    path.write_text(with_constants((ROOT / script).read_text(encoding='utf-8'), **constants), encoding='utf-8')
    if corpus is not None:
        (folder / 'ci.txt').write_text(corpus, encoding='utf-8')
    elif not (folder / 'ci.txt').exists():
        (folder / 'ci.txt').symlink_to(CORPUS)
    return path


def clean_environment(**extra):
    """The environment of a user with no wandb account."""
    env = {key: value for key, value in os.environ.items() if not key.startswith('WANDB')}
    return env | {'PYTHONUTF8': '1', 'HOME': str(extra.pop('home', '/nonexistent'))} | extra


def run(path, *args, text=None, timeout=120, env=None):
    """Run a script as a user does, in its own folder."""
    return subprocess.run([sys.executable, str(path), *map(str, args)], cwd=Path(path).parent, input=text, check=False,
                          capture_output=True, encoding='utf-8', timeout=timeout, env=env or clean_environment())


def losses(output):
    """[(step, train, val), ...] as printed."""
    return [(int(step), float(train), float(val)) for step, train, val in
            re.findall(r'第 +(\d+) 步  训练损失 ([\d.]+)  验证损失 ([\d.]+)', output)]
