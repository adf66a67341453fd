"""The pictures: which are shown, and how one is drawn from its numbers, with a hash of these in the file.

What a ladder draws is in its pages/pictures.py: PICTURES, {name: Picture}. A file is drawn where a README, a document
or a page of docs/ shows it: docs/pictures/depth.en.png is 'depth' with English words, docs/pictures/modern/depth.png is
that of another ladder. The Chinese font comes with the package mplfonts; matplotlib and it are imported where
something is drawn, so that the rest works without them.
"""

import hashlib
import json
import re
from collections.abc import Callable
from itertools import chain
from typing import NamedTuple

from kit.files import DOCS, ROOT, read
from kit.ladders import LADDERS
from kit.results import Missing
from kit.scripts import load

FOLDER = DOCS / 'pictures'
FONTS = {'zh': 'Noto Sans CJK SC', 'en': 'DejaVu Sans'}


class Picture(NamedTuple):
    """`data()` are its numbers, `draw(figure, data, t)` draws them with the words t('in Chinese', 'in English')."""
    data: Callable
    draw: Callable
    size: tuple


def shown():
    """The files, relative to docs/pictures, that a document shows."""
    readmes = [path for ladder in LADDERS.values() for path in (ROOT / ladder.folder).glob('README*.md')]
    link = re.compile(r'pictures/([\w./-]+\.(?:png|svg))')
    documents = chain(readmes, DOCS.rglob('*.md'), DOCS.rglob('*.html'))
    return {name for path in documents for name in link.findall(read(path))}


def pictures():
    """{name: Picture} of all ladders: a bare name in the root, modern/name elsewhere."""
    found = {}
    for ladder in LADDERS.values():
        path = ladder.folder / 'pages' / 'pictures.py'
        if (ROOT / path).exists():
            found |= {str(ladder.folder / name): picture for name, picture in load(path).PICTURES.items()}
    return found


def picture_of(file):
    """(name, language) of a file: depth.en.png shows 'depth' in English."""
    name, language = re.fullmatch(r'(.*?)(?:\.(en))?\.\w+', file).groups()
    return name, language or 'zh'


def data_hash(data):
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()[:16]


def drawn_from(path):
    """The hash of the numbers that a picture was drawn from: the text chunk Description of a PNG, or that of an SVG."""
    found = re.search(rb'(?:tEXtDescription\0|<dc:description>)([0-9a-f]{16})', path.read_bytes())
    return found and found[1].decode()


def draw(path, picture, data, language):
    import matplotlib
    from matplotlib import font_manager
    from matplotlib.figure import Figure
    from mplfonts.conf import FONT_DIR
    font_manager.fontManager.addfont(f'{FONT_DIR}/NotoSansCJKsc-Regular.otf')
    style = {'svg.hashsalt': 'babygpt', 'axes.spines.top': False, 'axes.spines.right': False,
             'font.family': FONTS[language]}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=picture.size, layout='constrained')
        figure.colormaps = matplotlib.colormaps
        picture.draw(figure, data, lambda *words: words[list(FONTS).index(language)])
        path.parent.mkdir(parents=True, exist_ok=True)
        unchanging = {'.png': {'Software': None}, '.svg': {'Date': None}}[path.suffix]
        figure.savefig(path, dpi=150, metadata=unchanging | {'Description': data_hash(data)})


def draw_all():
    """Draw every picture that is shown. Return what stood in the way of some."""
    drawable, found = pictures(), []
    for file in sorted(shown()):
        name, language = picture_of(file)
        if name not in drawable:
            found.append(f'docs/pictures/{file}: no pages/pictures.py draws it')
            continue
        try:
            draw(FOLDER / file, drawable[name], drawable[name].data(), language)
        except Missing as problem:
            found.append(f'docs/pictures/{file}: {problem}')
        except ModuleNotFoundError as problem:
            return [*found, f'docs/pictures: {problem}: the pictures need requirements-docs.txt']
    return found
