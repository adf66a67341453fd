"""Python source as lines of pieces, each with the class that Pygments gives its kind: k, s2, c1, nf, …"""

import re
from functools import cache
from itertools import groupby

from pygments.lexers import PythonLexer
from pygments.token import STANDARD_TYPES

PLAIN = {'n', 'o', 'p', 'w'}  # names, operators, punctuation and space look like any text


def css_class(kind):
    """Pygments' short name of a kind of token, '' for what looks like any text."""
    while kind not in STANDARD_TYPES:
        kind = kind.parent
    return '' if STANDARD_TYPES[kind] in PLAIN else STANDARD_TYPES[kind]


@cache
def highlight(source):
    """The lines of the source, each a list of (class, text)."""
    lines = [[]]
    for kind, value in PythonLexer(stripnl=False, ensurenl=False).get_tokens(source):
        css = css_class(kind)
        first, *others = value.split('\n')
        lines[-1].append((css, first))
        lines += [[(css, part)] for part in others]
    assert [''.join(text for _, text in line) for line in lines] == source.split('\n')
    return lines


def segments(pieces, marked=()):
    """[(whether it is marked, [(class, text)])] of a line, cut where a mark begins or ends."""
    characters = [(css, character) for css, text in pieces for character in text]
    numbered = [(position in marked, css, character) for position, (css, character) in enumerate(characters)]
    return [(mark, [(css, ''.join(character for *_, character in piece))
                    for css, piece in groupby(part, key=lambda each: each[1])])
            for mark, part in groupby(numbered, key=lambda each: each[0])]


def remark(pieces):
    """The Chinese that a line of source says to its reader, in a comment or a docstring, or None.

    A command behind it needs no translation.
    """
    text = ''.join(text for css, text in pieces if css[:1] == 'c' or css == 'sd').strip(' #"')
    text = re.sub('：(?:python|git|wandb) .*$', '', text)
    return text if re.search('[\u4e00-\u9fff]', text) else None
