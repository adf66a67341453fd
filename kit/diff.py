"""What is shown of the diff of two scripts, and of a script with notes: lines, changes, folds and notes, as plain data.

How they look is the matter of kit/templates/diff.html.
"""

import ast
import difflib
import re
from dataclasses import dataclass, field
from itertools import groupby, pairwise

from kit.highlight import highlight, segments
from kit.source import docstring_end

CONTEXT = 3  # unchanged lines shown on either side of a change
MANY = 12  # more removed lines than this in a row are folded
FAR = 12  # a note does not wait for a change further below than this many lines
ALIKE = 0.5  # two lines less alike than this are not shown as one line that changed


@dataclass
class Note:
    """A remark on the first line shown that contains `key`; numbered once that line is found."""

    key: str
    text: str
    number: int | None = None


@dataclass
class Line:
    """`kind` is same, del, add, or only where nothing is compared. `old` and `new` number it in the two scripts."""

    kind: str
    old: int | None
    new: int | None
    segments: list
    notes: list = field(default_factory=list)

    @property
    def indent(self):
        text = ''.join(text for _, pieces in self.segments for _, text in pieces)
        return len(text) - len(text.lstrip())


@dataclass
class Change:
    """A line and what it became; one of them is None where it was only added or removed."""

    old: Line | None
    new: Line | None
    kind = 'change'


@dataclass
class Changes:
    """A changed stretch: its changes, those that remove a lot in a fold."""

    rows: list
    kind = 'changes'


@dataclass
class Fold:
    """Rows that are shown when asked for: unchanged or removed lines, the docstring, a function; and what they define."""

    kind: str
    rows: list
    names: list = field(default_factory=list)

    @property
    def added(self):
        return sum(change.new is not None for change in changes_in(self.rows))

    @property
    def removed(self):
        return sum(change.old is not None for change in changes_in(self.rows))


@dataclass
class Hunk:
    """Rows with the notes on them. `place` is the class and function that they are in."""

    rows: list = field(default_factory=list)
    notes: list = field(default_factory=list)
    place: str | None = None


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


def opcodes(old, new):
    return difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()


def definitions(nodes):
    """[(name, first line, line behind the last, the nodes inside)] of the classes and functions among the nodes."""
    return [(node.name, min(part.lineno for part in (node, *node.decorator_list)) - 1, node.end_lineno, node.body)
            for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef)]


def scope(nodes, line):
    """The class and the function around a line and where they begin: ('Block.forward', 153), ('', line) outside of all."""
    for name, first, end, inside in definitions(nodes):
        if first <= line < end:
            inner, start = scope(inside, line)
            return (f'{name}.{inner}', start) if inner else (name, first)
    return '', line


def opcodes_by_name(old, new, old_places, new_places):
    """As `opcodes`, but what has a place in both is compared with its namesake only; a place is (name, start, end)."""
    names = [[name for name, *_ in places] for places in (old_places, new_places)]
    matches = difflib.SequenceMatcher(None, *names, autojunk=False).get_matching_blocks()
    pairs = [(old_places[a + n], new_places[b + n]) for a, b, size in matches for n in range(size)]
    cuts = [0, *(cut for (_, *place), _ in pairs for cut in place), len(old)], [
        0, *(cut for _, (_, *place) in pairs for cut in place), len(new)]
    codes = []
    for (i1, i2), (j1, j2) in zip(*map(pairwise, cuts), strict=True):
        for kind, *ends in opcodes(old[i1:i2], new[j1:j2]):
            a, b, c, d = ends[0] + i1, ends[1] + i1, ends[2] + j1, ends[3] + j1
            if codes and codes[-1][0] == kind == 'equal':
                _, a, _, c, _ = codes.pop()
            codes.append((kind, a, b, c, d))
    return codes


def defined(lines):
    """The names of the classes and functions that begin in those lines."""
    found = [re.match(r'(?:class|def) (\w+)', line) for line in lines]
    return [match[1] for match in found if match]


class Diff:
    """The diff of two sources: its hunks, and how many lines below the docstring it adds and removes.

    What changed inside the functions named in `folded` is shown when asked for.
    """

    def __init__(self, old, new, notes=(), folded=()):
        self.old, self.new, self.notes, self.folded = old.splitlines(), new.splitlines(), list(notes), folded
        self.old_nodes, self.new_nodes = ast.parse(old).body, ast.parse(new).body
        self.old_pieces, self.new_pieces = highlight(old), highlight(new)
        head = docstring_end(old), docstring_end(new)
        below = list(self.hunks_below(*head))
        changes = [change for hunk in below for change in changes_in(hunk.rows)]
        self.hunks = [*self.docstring_hunks(*head), *below]
        self.added = sum(change.new is not None for change in changes)
        self.removed = sum(change.old is not None for change in changes)
        lost = [note.key for note in self.notes if note.number is None]
        if lost:
            raise SystemExit(f'No changed line contains {lost!r}: a note has lost its hunk.')

    def same(self, i, j, count):
        return [Line('same', i + n + 1, j + n + 1, segments(self.new_pieces[j + n])) for n in range(count)]

    def changed(self, i1, i2, j1, j2):
        """The changes of a stretch."""
        rows = []
        changes = [self.change(None if i is None else i1 + i, None if j is None else j1 + j)
                   for i, j in paired(self.old[i1:i2], self.new[j1:j2])]
        for gone, stretch in groupby(changes, key=lambda change: change.new is None):
            stretch = list(stretch)
            if gone and len(stretch) > MANY:
                names = defined(self.old[change.old.old - 1] for change in stretch)
                stretch = [Fold('removed', stretch, names)]
            rows += stretch
        return Changes(rows)

    def change(self, i, j):
        marks = changed_words(self.old[i], self.new[j]) if None not in (i, j) else (set(), set())
        old = None if i is None else Line('del', i + 1, None, segments(self.old_pieces[i], marks[0]))
        new = None if j is None else Line('add', None, j + 1, segments(self.new_pieces[j], marks[1]))
        return Change(old, new)

    def take_notes(self, changes):
        """Number the notes that have found their lines, put them there, and return them."""
        taken = []
        for change in changes_in([changes]):
            line = change.new or change.old
            text = self.new[line.new - 1] if change.new else self.old[line.old - 1]
            for note in self.notes:
                if note.number is None and note.key in text:
                    note.number = sum(other.number is not None for other in self.notes) + 1
                    line.notes.append(note)
                    taken.append(note)
        return taken

    def place(self, i1, i2, j1, j2):
        """The class and the function that a changed stretch begins in, and their first line; blank lines aside."""
        for nodes, lines, start, end in ((self.new_nodes, self.new, j1, j2), (self.old_nodes, self.old, i1, i2)):
            for line in range(start, end):
                if lines[line].strip():
                    name, first = scope(nodes, line)
                    return name, first if nodes is self.new_nodes else j2
        return None, j2

    def parted(self, codes):
        """The same codes; one that only adds is cut where a function to be folded begins or ends, so that it has its own."""
        ends = {end for name, *place, _ in definitions(self.new_nodes) if name in self.folded for end in place}
        for kind, i1, i2, j1, j2 in codes:
            cuts = [end for end in ends if j1 < end < j2] if kind == 'insert' else []
            yield from ((kind, i1, i2, start, end) for start, end in pairwise(sorted([j1, *cuts, j2])))

    def put(self, hunk, changes):
        """Add a changed stretch to a hunk. One fold takes all that it has of a function that is to be folded."""
        if (hunk.place or '').split('.')[0] not in self.folded:
            hunk.rows.append(changes)
            return
        start = next((n for n, row in enumerate(hunk.rows) if isinstance(row, Fold)), len(hunk.rows))
        rows = [row for each in hunk.rows[start:] for row in (each.rows if isinstance(each, Fold) else [each])]
        hunk.rows[start:] = [Fold('piece', [*rows, changes], [hunk.place])]

    def docstring_hunks(self, old, new):
        """A fold with the diff of the docstrings, where they differ."""
        if self.old[:old] == self.new[:new]:
            return []
        rows = []
        for kind, i1, i2, j1, j2 in opcodes(self.old[:old], self.new[:new]):
            rows += self.same(i1, j1, i2 - i1) if kind == 'equal' else [self.changed(i1, i2, j1, j2)]
        return [Hunk([Fold('docstring', rows)])]

    def hunks_below(self, old, new):
        """The hunks below the docstrings: changes with some lines around them, and folds of what is unchanged between."""
        places = ([(name, first - head, end - head) for name, first, end, _ in definitions(nodes)]
                  for nodes, head in ((self.old_nodes, old), (self.new_nodes, new)))
        codes = list(self.parted((kind, i1 + old, i2 + old, j1 + new, j2 + new)
                                 for kind, i1, i2, j1, j2 in opcodes_by_name(self.old[old:], self.new[new:], *places)))
        hunk, noted = Hunk(), 0
        for number, (kind, i1, i2, j1, j2) in enumerate(codes):
            if kind != 'equal':
                if hunk.notes and j1 - noted > FAR:
                    yield hunk
                    hunk = Hunk()
                place, first = self.place(i1, i2, j1, j2)
                if None not in (place, hunk.place) and place != hunk.place:
                    changed = max((n for n, row in enumerate(hunk.rows) if not isinstance(row, Line)), default=-1)
                    own = next((n for n, row in enumerate(hunk.rows) if n > changed and row.new > first), len(hunk.rows))
                    hunk.rows, rest = hunk.rows[:own], hunk.rows[own:]
                    yield hunk
                    hunk = Hunk(rest)
                hunk.place = place if hunk.place is None else hunk.place
                changes = self.changed(i1, i2, j1, j2)
                notes = self.take_notes(changes)
                self.put(hunk, changes)
                hunk.notes += notes
                noted = j2 if notes else noted
                continue
            before = CONTEXT if number else 0
            after = CONTEXT if number < len(codes) - 1 else 0
            folded = i2 - i1 - before - after
            if folded <= CONTEXT:
                hunk.rows += self.same(i1, j1, i2 - i1)
                continue
            hunk.rows += self.same(i1, j1, before)
            if hunk.rows:
                yield hunk
            i, j = i1 + before, j1 + before
            yield Hunk([Fold('unchanged', self.same(i, j, folded), defined(self.new[j:j + folded]))])
            hunk = Hunk(self.same(i2 - after, j2 - after, after))
        if hunk.rows:
            yield hunk


def changes_in(rows):
    for row in rows:
        if isinstance(row, Change):
            yield row
        elif isinstance(row, Changes | Fold):
            yield from changes_in(row.rows)


class Listing:
    """A whole script, unfolded, cut before every noted line so that a note stands beside its line."""

    def __init__(self, source, notes=()):
        lines, pieces, at = source.splitlines(), highlight(source), {}
        for note in notes:
            found = [n for n, line in enumerate(lines) if note.key in line]
            if not found:
                raise SystemExit(f'No line contains {note.key!r}: a note has lost its line.')
            at.setdefault(found[0], []).append(note)
        for number, note in enumerate((note for n in sorted(at) for note in at[n]), 1):
            note.number = number
        self.hunks = [Hunk([Line('only', None, n + 1, segments(pieces[n])) for n in range(start, end)], at.get(start, []))
                      for start, end in pairwise(sorted({0, *at, len(lines)}))]
