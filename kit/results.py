"""docs/results.json, where every number of the documents comes from: what is kept there, and how."""

import json
import os
import platform
import re
from functools import lru_cache
from pathlib import Path

from filelock import FileLock

from kit.files import DOCS, as_json, read, write

RESULTS = DOCS / 'results.json'
COMMANDS = {'candidates': 'bench.py candidates', 'training': 'bench.py train', 'sampling': 'bench.py sample',
            'writing': 'bench.py sample', 'variants': 'bench.py variants', 'memory': 'bench.py memory', 'poems': 'measure.py poems',
            'fast': 'bench.py fast'}


class Missing(LookupError):
    """A result that is not there; the message says which command makes it."""


class Untrue(Exception):
    """A text no longer agrees with the numbers."""


def check(claim, text):
    """A claim of a text about measured or computed numbers: it must hold, or the text is not written."""
    if not claim:
        raise Untrue(f'no longer true: {text}')
    return ''


def machine():
    """What a number was measured on."""
    cpu = Path('/proc/cpuinfo')
    found = re.search('model name\\s*: (.*)', cpu.read_text()) if cpu.exists() else None  # ARM names none
    return f'{found[1] if found else platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}'


def load():
    return parsed(RESULTS, RESULTS.stat().st_mtime_ns) if RESULTS.exists() else {'runs': {}}


@lru_cache(maxsize=1)
def parsed(path, changed):
    """The file as it was written at that time: it is asked for thousands of times."""
    return json.loads(read(path))


def section(name):
    """{key: row} of one kind of results; those without a command of their own are what `inside` looks at."""
    found = load().get(name)
    if not found:
        raise Missing(f'docs/results.json has no {name}: run `python tools/{COMMANDS.get(name, "measure.py inside")}`')
    return found


def keep(section, key, value):
    """Store one result, at once and whole: an interrupted tool loses nothing that was finished.

    Several tools may be at work: what is there is read again, changed and written under a lock.
    """
    with FileLock(RESULTS.with_suffix('.lock')):
        results = load()
        results.setdefault(section, {})[key] = value | {'machine': machine()}
        write(RESULTS, as_json(results))


def key(script, constants):
    """The name of a run of that script with those constants changed."""
    return f'{script} {json.dumps(constants, sort_keys=True)}'
