"""What the scripts print when they are really run, kept in docs/samples.json for the walkthrough."""

import json
import os
import re
import subprocess
import sys

from results import ROOT, code_hash
from tqdm import tqdm

SAMPLES = ROOT / 'docs' / 'samples.json'
PROMPTS, LENGTH = ('春江', '往事'), 102  # every script writes 100 characters after each prompt


def load():
    return json.loads(SAMPLES.read_text(encoding='utf-8')) if SAMPLES.exists() else {}


def poems_of(output):
    """The two poems at the end of the output. They hold blank lines themselves, so they are cut by their length."""
    start = re.search(r'(?:^第.*\n)*\s*(?=春江)', output, flags=re.MULTILINE).end()
    poems = [output[start:start + LENGTH], output[start + LENGTH:].lstrip('\n')[:LENGTH]]
    for poem, prompt in zip(poems, PROMPTS, strict=True):
        assert poem.startswith(prompt) and len(poem) == LENGTH, output
    return poems


def collect(scripts):
    """Run each script whose code has changed since its sample was taken, and keep the sample at once."""
    with tqdm([name for name in scripts if load().get(name, {}).get('code') != code_hash(name)], unit='run') as todo:
        for name in todo:
            todo.set_postfix_str(name)
            output = subprocess.run([sys.executable, name], cwd=ROOT, check=True, capture_output=True,
                                    encoding='utf-8', env=os.environ | {'PYTHONUTF8': '1'}).stdout
            found = {'output': output} if name == 'pytorch_5min.py' else {'poems': poems_of(output)}
            kept = load() | {name: {'code': code_hash(name)} | found}
            temporary = SAMPLES.with_suffix('.tmp')
            temporary.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
            os.replace(temporary, SAMPLES)
