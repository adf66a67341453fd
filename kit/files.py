"""Where things are, and how a file is written: whole, or not at all."""

import hashlib
import json
import os
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT / 'ci.txt'
DOCS = ROOT / 'docs'


def read(path):
    """The text of a file; a relative path starts at the root of the repository."""
    return (ROOT / path).read_text(encoding='utf-8')


def file_hash(path):
    """A hash of a file's bytes; a relative path starts at the root of the repository."""
    return hashlib.sha256((ROOT / path).read_bytes()).hexdigest()[:16]


def as_json(data):
    """The data as JSON, a list of numbers in one line."""
    text = json.dumps(data, indent=1, ensure_ascii=False)
    return re.sub(r'\[[^][{}"]*\]', lambda numbers: ' '.join(numbers[0].split()), text) + '\n'


def write(path, text):
    """Write a text file under another name and move it into place: nobody ever finds half of it."""
    path = ROOT / path
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    temporary.write_text(text, encoding='utf-8', newline='\n')
    os.replace(temporary, path)
