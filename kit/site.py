"""The pages of every ladder that has a folder pages/: its texts in the layout of kit/templates, as files of docs/."""

import ast
import os
import re
import tomllib
from functools import cache
from pathlib import Path

import jinja2

from kit import examples, formats, origins, results, samples, summaries, svg
from kit.diff import Diff, Listing, Note
from kit.experiments import mean, settings_of, spread
from kit.files import DOCS, ROOT, read
from kit.highlight import highlight, remark, segments
from kit.ladders import LADDERS, Rung
from kit.scripts import load

TEMPLATES = ROOT / 'kit' / 'templates'
LANGUAGES = {'zh': 'zh-CN', 'en': 'en'}
ORIGINAL = 'zh'  # its pages lie in the ladder's folder of docs/, those of the others in folders there
CURVE = {'zh': ('验证损失随步数的变化', '步数'), 'en': ('Validation loss over the steps', 'steps')}


class Page:
    """The page of a rung, or the index of its ladder. `stage`: before the first numbered rung, on the ladder, or after."""

    def __init__(self, ladder, rung=None, stage=None):
        self.ladder, self.rung, self.stage = ladder, rung, stage
        self.name = rung.page if rung else 'index'
        self.number = rung and rung.number
        self.title = rung.title if rung else ladder.data['title']
        self.line = rung.line if rung else {}


@cache
def pages_of(ladder):
    """The pages of a ladder in the order in which they are read; none where it has no folder for their texts."""
    if not (ladder.pages / ORIGINAL).is_dir():
        return []
    pages, stage = [Page(ladder)], 'before'
    for rung in ladder.rungs:
        stage = 'on' if rung.number else 'before' if stage == 'before' else 'after'
        if rung.page:
            pages.append(Page(ladder, rung, stage))
    return pages


@cache
def drawings_of(ladder):
    """The module that draws what is special about a ladder, or None."""
    file = ladder.pages / 'drawings.py'
    return load(file) if file.exists() else None


@cache
def test_source(test):
    """(file, name, its lines as pieces) of a test, which must exist; `test` is 'tests/test_file.py::test_name'."""
    path, name = test.split('::')
    text = read(path) if (ROOT / path).exists() else ''
    found = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef) and node.name == name]
    if not found:
        raise SystemExit(f'{path} has no test {name}.')
    start = min([found[0].lineno, *(each.lineno for each in found[0].decorator_list)]) - 1
    lines = highlight('\n'.join(text.split('\n')[start:found[0].end_lineno]))
    return Path(path).name, name, [segments(line) for line in lines]


def from_below(read, ladder, language):
    """What the ladders say that this one goes on from, and the root."""
    below = {LADDERS['root'], *(rung.below.ladder for rung in ladder.rungs if rung.below)} - {ladder}
    return {said: meaning for each in below for said, meaning in (read(each, language) or {}).items()}


@cache
def glosses_of(ladder, language):
    """{remark: what it says} of the Chinese comments in the ladder's scripts, None where they need not be told.

    What a ladder says holds for those that go on from it, and what the root says for all.
    """
    file = ladder.pages / language / 'comments.toml'
    if not file.exists():
        return None
    return from_below(glosses_of, ladder, language) | tomllib.loads(file.read_text(encoding='utf-8'))


@cache
def translations_of(ladder, language):
    """{poem: what it says} of the poems that the ladder's pages show, None where they need not be told.

    What a ladder says holds for those that go on from it.
    """
    file = ladder.pages / language / 'poems.toml'
    if not file.exists():
        return None
    own = {each['poem']: each['says'] for each in tomllib.loads(file.read_text(encoding='utf-8'))['poems']}
    return from_below(translations_of, ladder, language) | own


class Edition:
    """A page in one language: what its template may use."""

    def __init__(self, page, language, environment):
        self.page, self.language, self.environment, self.notes = page, language, environment, []
        self.layout = environment.get_template('diff.html').make_module({'lang': language, 'gloss': self.gloss})
        self.folder = folder_of(page.ladder, language)
        self.glosses, self.translations = glosses_of(page.ladder, language), translations_of(page.ladder, language)
        self.example, self.drawings = examples.example(page.ladder, page.name), drawings_of(page.ladder)
        self.say = self.drawings.SAY[language] if self.drawings else {}

    def rung(self, name):
        """A rung by the name of its page or script; one of another ladder with that ladder's name before it: root/v12."""
        if isinstance(name, Rung):
            return name
        *ladder, own = name.split('/')
        ladder = LADDERS[ladder[0]] if ladder else self.page.ladder
        found = [rung for rung in ladder.rungs if own in (rung.page, str(rung))]
        if not found:
            raise SystemExit(f'The ladder {ladder.name} has no rung {own}.')
        return found[0]

    def label(self, rung):
        """What a rung is called where there is little room."""
        return rung.short.get(self.language, str(rung))

    def note(self, key, caller):
        """{% call note('piece of code') %}…{% endcall %}: a margin note for the changed line with that piece."""
        self.notes.append(Note(key, caller().strip()))
        return ''

    def take_notes(self):
        notes, self.notes = self.notes, []
        return notes

    def diff(self):
        """The diff of this rung with the one below; the notes made so far stand beside it."""
        rung = self.page.rung
        made = Diff(rung.below.source, rung.source, self.take_notes(), rung.data.get('folded', ()))
        return {'html': self.layout.hunks(made.hunks, True), 'added': made.added, 'removed': made.removed}

    def listing(self, name):
        """A whole script; the notes made so far stand beside it."""
        return self.layout.hunks(Listing(self.rung(name).source, self.take_notes()).hunks, False)

    def gloss(self, line):
        """What a line of a script remarks in Chinese, in the language of the page."""
        said = remark([piece for _, pieces in line.segments for piece in pieces])
        return self.told(self.glosses, 'comments', said) if said else ''

    def translated(self, poem):
        """What exactly this poem says, in the language of the page."""
        return self.told(self.translations, 'poems', poem)

    def told(self, meanings, name, text):
        if meanings is None:
            return ''
        if text not in meanings:
            raise SystemExit(f'{self.page.ladder.pages / self.language}/{name}.toml does not say what this means: {text}')
        return meanings[text]

    def tests(self):
        """(file, name, highlighted source) of the tests of what is true from this rung on."""
        for file, name, lines in map(test_source, self.page.rung.tests):
            yield file, name, self.layout.source(lines)

    def compared(self):
        """The rung below where it has numbers of its own to show beside those of this one, or None."""
        return self.page.rung and summaries.compared(self.page.rung)

    def to(self, path):
        """The way from this page to a path in docs/."""
        return Path(os.path.relpath(DOCS / path, self.folder)).as_posix()

    def curve(self, levels=()):
        """The validation loss over the steps, that of the rung below where it has one of its own, and levels: (name, loss)."""
        rung, below = self.page.rung, self.compared()
        own, lines = summaries.mean_curve(rung), []
        name = self.label(rung) if rung.measured == rung else f'{self.label(rung.measured)} = {self.label(rung)}'
        if below and below.data.get('level'):
            lines = [(self.label(below), [(step, summaries.mean_validation(below)) for step in (own[0][0], own[-1][0])], 'old')]
        elif below:
            lines = [(self.label(below), summaries.mean_curve(below), 'old')]
        lines += [(level, [(own[0][0], loss), (own[-1][0], loss)], 'old level') for level, loss in levels]
        return svg.curves([*lines, (name, own, 'own')], *CURVE[self.language])

    def course(self, setting, column):
        """[(step, loss averaged over the seeds)] of a setting: column 1 is the loss in training, 2 in validation."""
        return [(points[0][0], mean(point[column] for point in points))
                for points in zip(*(run['curve'] for run in setting.runs), strict=True)][1:]

    def loss_rows(self):
        """Measured numbers of the rung below and of this one."""
        for rung in filter(None, (self.compared(), self.page.rung)):
            runs, forms, time = summaries.measured_runs(rung), summaries.forms(rung), summaries.step_time(rung)
            yield {'name': self.label(rung), 'own': rung == self.page.rung, 'parameters': runs[0]['parameters'],
                   'seeds': len(runs), 'train': spread(summaries.training(rung)), 'val': spread(summaries.validation(rung)),
                   'time': time, 'steps': runs[0]['curve'][-1][0], 'speed': runs[0]['tokens_per_second'],
                   'form': forms and mean(row['kept'] / row['poems'] for row in forms)}

    def flow(self):
        return self.drawings.flow(self.page.number, self.say, self.example) if self.drawings else []

    def variables(self):
        page, language, pages = self.page, self.language, pages_of(self.page.ladder)
        place = pages.index(page)
        other = next(each for each in LANGUAGES if each != language)
        return {
            'page': page, 'pages': pages, 'lang': language, 'code_lang': LANGUAGES[language],
            'previous': pages[place - 1] if place else None, 'next': pages[place + 1] if place + 1 < len(pages) else None,
            'to': self.to, 'label': self.label, 'other': self.to(folder_of(page.ladder, other) / f'{page.name}.html'),
            'home': self.to(Path('' if language == ORIGINAL else language, 'index.html')),
            'title': page.title[language], 'line': page.line.get(language),
            'note': self.note, 'diff': self.diff, 'listing': self.listing, 'flow': self.flow, 'curve': self.curve,
            'course': self.course, 'made': origins, 'steps': CURVE[language][1],
            'loss_rows': self.loss_rows, 'compared': self.compared(), 'tests': self.tests,
            'measured': summaries.is_measured, 'clearly_worse': summaries.clearly_worse,
            'forms': summaries.forms, 'mean': lambda name: summaries.mean_validation(self.rung(name)),
            'spread': lambda name: spread(summaries.validation(self.rung(name))),
            'translated': self.translated, 'sampled': samples.sampled(), 'sample': lambda name: samples.sample(self.rung(name)),
            'results': results.load(),
            'settings': lambda name: settings_of((name if '/' in name else f'{page.ladder.name}/{name}').removeprefix('root/')),
            'check': results.check, 'n': formats.number, 'power': formats.power, 'table': formats.table, 'crop': formats.crop, 'times': formats.times,
            'abs': abs, 'min': min, 'svg': svg, 'drawings': self.drawings, 'say': self.say,
            'ex': self.example} | examples.example(page.ladder, 'shared')

    def html(self):
        try:
            html = self.environment.get_template(f'{self.language}/{self.page.name}.html').render(self.variables())
        except jinja2.TemplateNotFound as missing:
            raise SystemExit(f'{self.page.ladder.pages} has no {missing}.') from None
        if self.notes:
            raise SystemExit(f'{self.page.name}: notes, but no code that they could stand beside.')
        parts = re.split('(<pre.*?</pre>|<p class="said">.*?</p>)', html, flags=re.DOTALL)
        parts[::2] = [re.sub(r'\s*\n\s*', '\n', part) for part in parts[::2]]  # blank lines count only in code and poems
        return ''.join(parts).strip() + '\n'


def folder_of(ladder, language):
    """Where the pages of a ladder are in a language."""
    return DOCS / ladder.folder / ('' if language == ORIGINAL else language)


def environment_of(ladder):
    """What the templates of a ladder's pages are rendered in."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([ladder.pages, TEMPLATES]), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {'average': mean, 'spread': spread}
    return environment


def contents():
    """{path: content} of every file of the site."""
    files = {DOCS / name: (TEMPLATES / name).read_text(encoding='utf-8') for name in ('style.css', 'script.js')}
    for ladder in LADDERS.values():
        environment = environment_of(ladder)
        for page in pages_of(ladder):
            for language in LANGUAGES:
                file = folder_of(ladder, language) / f'{page.name}.html'
                files[file] = Edition(page, language, environment).html()
    return files
