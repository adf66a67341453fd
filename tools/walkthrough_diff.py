"""Code as HTML: the diff of two scripts, with unchanged stretches folded, changed words marked, and notes beside it.

The HTML holds every line once. Unified and side by side are two layouts of the same elements (see style.css); only
the unchanged lines are doubled for the second, by script.js.
"""

import difflib
import re
from functools import cache
from itertools import groupby, pairwise

from markupsafe import Markup, escape
from pygments.lexers import PythonLexer
from pygments.token import Comment, Keyword, Name, Number, Operator, String

CONTEXT = 3  # unchanged lines shown on either side of a change
MANY = 12  # more removed lines than this in a row are folded
FAR = 12  # a note does not wait for a change further below than this many lines
ALIKE = 0.5  # two lines less alike than this are not shown as one line that changed
CLASSES = [(Comment, 'tc'), (String, 'ts'), (Number, 'tm'), (Operator.Word, 'tk'), (Keyword, 'tk'),
           (Name.Decorator, 'tf'), (Name.Function, 'tf'), (Name.Class, 'tf'), (Name.Builtin, 'tb')]


@cache
def css_class(kind):
    return next((css for token, css in CLASSES if kind in token), '')


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


def line_html(tokens, marked=()):
    """One line, with the marked character positions in <mark>."""
    characters, position = [], 0
    for css, text in tokens:
        for character in text:
            characters.append((position in marked, css, character))
            position += 1
    html = ''
    for mark, run in groupby(characters, key=lambda item: item[0]):
        inner = ''
        for css, piece in groupby(run, key=lambda item: item[1]):
            text = str(escape(''.join(character for *_, character in piece)))
            inner += f'<span class="{css}">{text}</span>' if css else text
        html += f'<mark>{inner}</mark>' if mark else inner
    return Markup(html)


def words(line):
    return re.findall(r'\w+|\s+|[^\w\s]', line)


def changed_words(old, new):
    """The character positions of the words that differ, in the old and in the new line."""
    a, b = words(old), words(new)
    marks = set(), set()
    for kind, *ends in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if kind == 'equal':
            continue
        for mark, parts, start, end in ((marks[0], a, *ends[:2]), (marks[1], b, *ends[2:])):
            before = sum(map(len, parts[:start]))
            mark |= set(range(before, before + sum(map(len, parts[start:end]))))
    return marks


def likeness(old, new):
    """How alike two lines are; what surrounds the code does not count."""
    old, new = old.strip(), new.strip()
    return difflib.SequenceMatcher(None, words(old), words(new), autojunk=False).ratio() if old and new else 0.0


def paired(old, new):
    """Pairs of line numbers of a changed stretch: a line and what it became, or one of them None."""
    best = {(len(old), j): (0.0, None) for j in range(len(new) + 1)}
    best |= {(i, len(new)): (0.0, None) for i in range(len(old) + 1)}
    for i in reversed(range(len(old))):
        for j in reversed(range(len(new))):
            alike = likeness(old[i], new[j])
            choices = [(best[i + 1, j][0], 'old'), (best[i, j + 1][0], 'new')]
            if alike >= ALIKE:
                choices.append((alike + best[i + 1, j + 1][0], 'both'))
            best[i, j] = max(choices, key=lambda choice: choice[0])
    i = j = 0
    while i < len(old) or j < len(new):
        step = best[i, j][1] or ('old' if i < len(old) else 'new')
        yield (i if step != 'new' else None), (j if step != 'old' else None)
        i, j = i + (step != 'new'), j + (step != 'old')


class Note:
    """A remark on the one changed line that contains `key`."""

    def __init__(self, key, html):
        self.key, self.html, self.number = key, html, None


class Diff:
    """The diff of two sources as HTML. `words` are the words of the page's language."""

    def __init__(self, old, new, notes=(), words=None):
        self.old, self.new = old.split('\n')[:-1], new.split('\n')[:-1]
        self.old_tokens, self.new_tokens = highlight(old), highlight(new)
        self.notes, self.words = list(notes), words or {}
        self.added = self.removed = 0

    def row(self, css, i, j, tokens, marked=()):
        numbers = ''.join(f'<span class="n">{"" if n is None else n + 1}</span>' for n in (i, j))
        indent = len(text := ''.join(text for _, text in tokens)) - len(text.lstrip())
        style = f' style="--i:{indent}"' if indent else ''
        return Markup(f'<div class="l {css}">{numbers}<code{style}>{line_html(tokens, marked)}</code></div>')

    def same(self, i, j):
        return self.row('same', i, j, self.new_tokens[j])

    def changed(self, i1, i2, j1, j2, notes):
        """A changed stretch; the notes on its lines are collected in `notes`."""
        html = Markup('')
        empty = Markup('<div class="l none"></div>')
        pairs = [(None if i is None else i1 + i, None if j is None else j1 + j)
                 for i, j in paired(self.old[i1:i2], self.new[j1:j2])]
        for gone, stretch in groupby(pairs, key=lambda pair: pair[1] is None):
            stretch = list(stretch)
            rows = self.pairs(stretch, empty, notes)
            if gone and len(stretch) > MANY:
                names = [re.match(r'(?:class|def) (\w+)', self.old[i]) for i, _ in stretch]
                rows = self.fold(self.label('removed', len(stretch), names), rows)
            html += rows
        return Markup('<div class="g">') + html + Markup('</div>')

    def pairs(self, pairs, empty, notes):
        html = Markup('')
        for i, j in pairs:
            marks = changed_words(self.old[i], self.new[j]) if None not in (i, j) else (set(), set())
            left = empty if i is None else self.row('del', i, None, self.old_tokens[i], marks[0])
            right = empty if j is None else self.row('add', None, j, self.new_tokens[j], marks[1])
            self.removed += i is not None
            self.added += j is not None
            for note in self.notes:
                if note.number is None and note.key in (self.new[j] if j is not None else self.old[i]):
                    notes.append(note)
                    note.number = sum(other.number is not None for other in self.notes) + 1
                    tag = Markup(f'<a class="ref" href="#note{note.number}" id="ref{note.number}" '
                                 f'aria-label="{self.words["note"]} {note.number}">{note.number}</a></div>')
                    if j is not None:
                        right = Markup(right.removesuffix('</div>')) + tag
                    else:
                        left = Markup(left.removesuffix('</div>')) + tag
            html += Markup('<div class="p">') + left + right + Markup('</div>')
        return html

    def label(self, what, count, names):
        """What a folded stretch holds: how many lines, and the names of what is defined there."""
        names = [name[1] for name in names if name]
        return self.words[what].format(count) + (self.words['colon'] + self.words['comma'].join(names) if names else '')

    def fold(self, label, html):
        return Markup('<details class="fold"><summary>{}</summary>{}</details>').format(label, html)

    def unchanged(self, i, j, count):
        """A folded stretch, with the names of what is defined in it."""
        names = [re.match(r'(?:class|def) (\w+)', line) for line in self.new[j:j + count]]
        return self.fold(self.label('unchanged', count, names), Markup('').join(self.same(i + n, j + n) for n in range(count)))

    def place(self, j):
        """Which class and function line j of the new source is in."""
        names, indent = [], 1000
        for line in reversed(self.new[:j + 1]):
            found = re.match(r'( *)(?:class|def) (\w+)', line)
            own = len(line) - len(line.lstrip())
            if found and own < indent:
                names.insert(0, found[2])
            if line.strip() and own < indent:
                indent = own
        return '.'.join(names)

    def html(self):
        head = docstring_end(self.old), docstring_end(self.new)
        parts = []
        if self.old[:head[0]] != self.new[:head[1]]:
            inner = Markup('')
            for kind, i1, i2, j1, j2 in opcodes(self.old[:head[0]], self.new[:head[1]]):
                inner += (Markup('').join(self.same(i1 + n, j1 + n) for n in range(i2 - i1)) if kind == 'equal'
                          else self.changed(i1, i2, j1, j2, []))
            parts.append(Markup('<div class="hunk"><div class="lines">')
                         + self.fold(self.words['docstring'], inner) + Markup('</div></div>'))
            self.added = self.removed = 0
        hunks, codes = [], [(kind, i1 + head[0], i2 + head[0], j1 + head[1], j2 + head[1])
                            for kind, i1, i2, j1, j2 in opcodes(self.old[head[0]:], self.new[head[1]:])]
        lines, notes, place, noted = Markup(''), [], None, 0

        def close():
            nonlocal lines, notes, place
            if lines:
                hunks.append((place, lines, notes))
            lines, notes, place = Markup(''), [], None
        for number, (kind, i1, i2, j1, j2) in enumerate(codes):
            if kind != 'equal':
                if notes and j1 - noted > FAR:
                    close()
                if place is None:
                    place = self.place(j1 if kind != 'delete' else j1 - 1)
                before = len(notes)
                lines += self.changed(i1, i2, j1, j2, notes)
                noted = j2 if len(notes) > before else noted
                continue
            before = CONTEXT if number else 0
            after = CONTEXT if number < len(codes) - 1 else 0
            if i2 - i1 <= before + after + CONTEXT:
                lines += Markup('').join(self.same(i1 + n, j1 + n) for n in range(i2 - i1))
                continue
            lines += Markup('').join(self.same(i1 + n, j1 + n) for n in range(before))
            close()
            hunks.append((None, self.unchanged(i1 + before, j1 + before, i2 - i1 - before - after), []))
            lines += Markup('').join(self.same(n + i2, n + j2) for n in range(-after, 0))
        close()
        for place, lines, notes in hunks:
            caption = Markup('<p class="place">{}</p>').format(place) if place else ''
            asides = Markup('').join(
                Markup('<aside class="note" id="note{0}"><a class="ref" href="#ref{0}" aria-label="{1} {0}">{0}</a>'
                       '<div>{2}</div></aside>').format(note.number, self.words['note'], note.html) for note in notes)
            column = Markup('<div class="notes">{}</div>').format(asides) if notes else ''
            parts.append(Markup('<div class="hunk{}"><div class="lines">{}{}</div>{}</div>').format(
                ' noted' if notes else '', caption, lines, column))
        lost = [note.key for note in self.notes if note.number is None]
        if lost:
            raise SystemExit(f'No changed line contains {lost!r}: a note has lost its hunk.')
        return Markup('').join(parts)


def opcodes(old, new):
    return difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()


def docstring_end(lines):
    """How many lines the docstring at the top takes."""
    if not lines[0].startswith('"""'):
        return 0
    return next(n for n, line in enumerate(lines) if n and line == '"""') + 1


class Listing(Diff):
    """A whole script, with notes: the diff against itself, unfolded."""

    def __init__(self, source, notes=(), words=None):
        super().__init__(source, source, notes, words)

    def html(self):
        """Cut before every noted line, so that a note stands beside its line."""
        at = {}
        for note in self.notes:
            lines = [n for n, line in enumerate(self.new) if note.key in line]
            if not lines:
                raise SystemExit(f'No line contains {note.key!r}: a note has lost its line.')
            at.setdefault(lines[0], []).append(note)
        cuts = sorted({0, *at, len(self.new)})
        number, html = 0, Markup('')
        for start, end in pairwise(cuts):
            asides = Markup('')
            for note in at.get(start, []):
                number += 1
                asides += Markup('<aside class="note" id="note{}"><div>{}</div></aside>').format(number, note.html)
            rows = Markup('').join(self.row('same one', None, n, self.new_tokens[n]) for n in range(start, end))
            column = Markup('<div class="notes">{}</div>').format(asides) if asides else ''
            html += Markup('<div class="hunk{}"><div class="lines">{}</div>{}</div>').format(
                ' noted' if asides else '', rows, column)
        return html
