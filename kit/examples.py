"""The worked examples of the pages: docs/examples.json, as pages/examples.py of each ladder computed them.

Pages are built from what is kept, so that they are the same wherever they are built: the last digits that a processor
computes are its own, and a test recomputes the examples with a tolerance.
"""

import json

import numpy as np

from kit.files import DOCS, as_json, read, write
from kit.ladders import LADDERS
from kit.scripts import load as load_module

EXAMPLES = DOCS / 'examples.json'


def plain(value):
    """What JSON holds of a value: tensors and tuples as lists, floats to 7 digits, −∞ as null."""
    if hasattr(value, 'tolist'):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float):
        return None if value == float('-inf') else float(f'{value:.7g}')
    return value


def with_arrays(value):
    """The value that a page works with: a list of floats, or of such lists, is an array."""
    if isinstance(value, dict):
        return {key: with_arrays(each) for key, each in value.items()}
    if not isinstance(value, list):
        return value
    if is_floats(value):
        return np.nan_to_num(np.array(value, dtype=float), nan=float('-inf'))
    return [with_arrays(each) for each in value]


def is_floats(value):
    """Whether there is nothing but floats in a list, however deep, and there is one."""
    if isinstance(value, list):
        return bool(value) and all(map(is_floats, value))
    return value is None or isinstance(value, float)


def compute(ladder):
    """{page: what its example shows} of a ladder, anew."""
    file = ladder.pages / 'examples.py'
    functions = load_module(file).EXAMPLES if file.exists() else {}
    return {page: plain(function()) for page, function in functions.items()}


def collect():
    """Compute the examples of all ladders, and keep them."""
    computed = {name: compute(ladder) for name, ladder in LADDERS.items()}
    write(EXAMPLES, as_json({name: found for name, found in computed.items() if found}))


def load():
    return json.loads(read(EXAMPLES)) if EXAMPLES.exists() else {}


def example(ladder, page):
    """What is kept of the example of a page, {} where it has none; that of 'shared' is for all pages of the ladder."""
    return with_arrays(load().get(ladder.name, {}).get(page, {}))
