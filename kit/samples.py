"""What the scripts print when they are really run: docs/samples.json, for the pages."""

import json
import re

from tqdm import tqdm

from kit.files import DOCS, as_json, read, write
from kit.ladders import LADDERS
from kit.scripts import run
from kit.source import code_hash

SAMPLES = DOCS / 'samples.json'
PROMPTS, LENGTH = ('春江', '往事'), 102  # a script writes 100 characters after each prompt


def sampled():
    """{rung: {'poems', 'output'} or one of them}: the scripts that a ladder.toml wants samples of, and what is kept of each."""
    found = {}
    for ladder in LADDERS.values():
        for kind, names in ladder.data.get('samples', {}).items():
            for name in names:
                found.setdefault(ladder[name], set()).add(kind)
    return found


def load():
    return json.loads(read(SAMPLES)) if SAMPLES.exists() else {}


def sample(rung):
    """What is kept of the rung, or of the one that was measured for it; None if it is still to be run."""
    return load().get(rung.measured.path)


def is_kept(rung):
    """Whether the sample of a script is there, all that is wanted of it, and of the script as it is."""
    kept = load().get(rung.path, {})
    return kept.get('code') == code_hash(rung.source) and sampled()[rung] == kept.keys() - {'code'}


def first_and_second(output):
    """The two poems at the end of the output. They hold blank lines themselves, so they are cut by their length."""
    start = re.search(rf'(?:^第.*\n)*\s*(?={PROMPTS[0]})', output, flags=re.MULTILINE).end()
    poems = [output[start:start + LENGTH], output[start + LENGTH:].lstrip('\n')[:LENGTH]]
    for poem, prompt in zip(poems, PROMPTS, strict=True):
        assert poem.startswith(prompt) and len(poem) == LENGTH, output
    return poems


def cut(output, kinds):
    """What is kept of an output."""
    return {kind: first_and_second(output) if kind == 'poems' else output for kind in sorted(kinds)}


def collect():
    """Run each script whose code has changed since its sample was taken, and keep the sample at once."""
    with tqdm([rung for rung in sampled() if not is_kept(rung)], unit='run') as todo:
        for rung in todo:
            todo.set_postfix_str(rung.path)
            result = run(rung.file, timeout=None, fresh=True)
            if result.returncode:
                raise SystemExit(result.stderr)
            kept = load() | {rung.path: {'code': code_hash(rung.source)} | cut(result.stdout, sampled()[rung])}
            write(SAMPLES, as_json(kept))
