"""The Markdown documents: which there are, and how they are rendered, with every number from docs/results.json.

A document in docs/ is a Jinja template of its ladder, pages/documents/*.md; a README of a ladder is its own text, with
blocks between `<!-- name -->` and `<!-- /name -->` that are rendered from pages/readme/name.md. Where a text makes a
claim about numbers, it states it with check(), and is not written when the claim no longer holds.
"""

import re
from functools import cache, partial

import jinja2

from kit import experiments, form, results
from kit.files import CORPUS, DOCS, ROOT, read
from kit.ladders import LADDERS
from kit.results import Missing, Untrue, check

BLOCK = re.compile(r'(<!-- (\w+) -->\n)(.*?)(<!-- /\2 -->)', flags=re.DOTALL)


def grouped(value, digits=0):
    return f'{value:,.{digits}f}'


def signed(value):
    return f'{value:+.3f}'


def machines(rows):
    """What the rows were measured on, without the version of Python."""
    return {row['machine'].rsplit(', ', 1)[0] for row in rows}


@cache
def environment(ladder):
    """What a template may use. In a template of modern/, 'ladder' is the experiment modern/ladder, 'root/ladder' the root's."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROOT / ladder.folder / 'pages'), undefined=jinja2.StrictUndefined,
        extensions=['jinja2.ext.do'], trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    def settings(name):
        own = name if '/' in name else f'{ladder.name}/{name}'
        return experiments.settings_of(own.removeprefix('root/'))

    found.globals |= {
        'ladder': ladder, 'settings': settings, 'section': results.section,
        'check': check, 'mean': experiments.mean, 'deviation': experiments.deviation, 'spread': experiments.spread,
        'clearly_below': experiments.clearly_below, 'n': grouped, 'signed': signed, 'machines': machines, 'read': read, 'abs': abs,
        'min': min, 'max': max, 'zip': zip, 'real': partial(form.real, CORPUS)}
    found.filters |= {'mean': experiments.mean, 'deviation': experiments.deviation}
    return found


def filled(readme, ladder):
    """The README with each of its blocks written anew."""
    language = 'en' if '.en.' in readme else 'zh'

    def write(block):
        start, name, _, end = block.groups()
        return start + environment(ladder).get_template(f'readme/{name}.md').render(language=language) + end
    return BLOCK.sub(write, read(readme))


def documents():
    """{path: function that renders it} of every document."""
    found = {}
    for ladder in LADDERS.values():
        for readme in sorted((ROOT / ladder.folder).glob('README*.md')):
            path = str(readme.relative_to(ROOT))
            found[path] = partial(filled, path, ladder)
        for template in sorted((ROOT / ladder.folder / 'pages' / 'documents').glob('*.md')):
            path = (DOCS / ladder.folder / template.name).relative_to(ROOT)
            found[str(path)] = environment(ladder).get_template(f'documents/{template.name}').render
    return found


def problems(write):
    """Render every document and give it to write(path, text). Return what stood in the way of some."""
    found = []
    for path, render in documents().items():
        try:
            write(path, render())
        except (Missing, Untrue) as problem:
            found.append(f'{path}: {problem}')
    return found
