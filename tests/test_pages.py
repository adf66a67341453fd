"""The pages in docs/: they are what is built from the scripts and numbers as they are, and they work in a browser."""

import json
import math
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

import pytest

from kit import diff, examples, results, samples, site
from kit.files import DOCS, ROOT
from kit.highlight import highlight, remark
from kit.ladders import LADDERS

EDITIONS = {language: [(site.folder_of(ladder, language) / page.name).relative_to(DOCS).as_posix()
                       for ladder in LADDERS.values() for page in site.pages_of(ladder)] for language in site.LANGUAGES}
PAGES = [name for names in EDITIONS.values() for name in names]
PAIRS = list(zip(*EDITIONS.values(), strict=True))


@cache
class Parsed(HTMLParser):
    """What a page links to and what can be linked to in it."""

    def __init__(self, name):
        super().__init__()
        self.ids, self.links, self.headings, self.tags = [], [], [], []
        self.text = (DOCS / f'{name}.html').read_text(encoding='utf-8')
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append((tag, found))
        if 'id' in found:
            self.ids.append(found['id'])
        self.links += [found[name] for name in ('href', 'src') if name in found]
        if re.fullmatch('h[1-6]', tag):
            self.headings.append(int(tag[1]))


BUILD = """
import json, sys
from kit import site
print(json.dumps({str(path): text for path, text in site.contents().items()}))
assert 'torch' not in sys.modules, 'a page hangs on what is computed while it is built'
"""


def test_the_committed_pages_are_what_is_built():
    """In a process of its own, as on the command line: what other tests left in this one must not tell."""
    result = subprocess.run([sys.executable, '-c', BUILD], cwd=ROOT, capture_output=True, encoding='utf-8', check=False)
    assert result.returncode == 0, result.stderr
    built = json.loads(result.stdout)
    for path, text in built.items():
        assert Path(path).read_text(encoding='utf-8') == text, f'{path} is stale: run python tools/walkthrough.py'
    assert {str(path) for path in DOCS.rglob('*.html')} == {path for path in built if path.endswith('.html')}


def assert_same(kept, computed, where):
    if isinstance(kept, dict):
        assert kept.keys() == computed.keys(), where
        for key in kept:
            assert_same(kept[key], computed[key], f'{where}, {key}')
    elif isinstance(kept, list):
        assert len(kept) == len(computed), where
        for pair in zip(kept, computed, strict=True):
            assert_same(*pair, where)
    else:
        computed = pytest.approx(computed, rel=1e-3, abs=1e-6) if isinstance(computed, float) else computed
        assert kept == computed, f'{where}: run python tools/walkthrough.py examples'


def test_examples_are_what_the_scripts_compute():
    """Up to the last digits, which are the processor's own."""
    kept = examples.load()
    computed = {name: examples.compute(ladder) for name, ladder in LADDERS.items()}
    assert kept.keys() == {name for name, found in computed.items() if found}
    for name, found in kept.items():
        assert_same(found, computed[name], name)


def test_samples_are_of_the_scripts_as_they_are():
    for rung in samples.sampled():
        assert samples.is_kept(rung), f'{rung.path}: run python tools/walkthrough.py samples'
    assert set(samples.load()) == {rung.path for rung in samples.sampled()}


def test_poems_that_are_kept_are_shown_and_are_those_of_the_output():
    """In both languages, on the page of their rung; those of a rung without one, on some page of the ladder."""
    with_poems = [rung for rung, kinds in samples.sampled().items() if 'poems' in kinds]
    assert {'root', 'prelude'} <= {rung.ladder.name for rung in with_poems}
    for rung in with_poems:
        kept = samples.sample(rung)
        assert 'output' not in kept or samples.first_and_second(kept['output']) == kept['poems']
        for language in site.LANGUAGES:
            folder = site.folder_of(rung.ladder, language)
            pages = [rung.page] if rung.number else [page.name for page in site.pages_of(rung.ladder)]
            shown = unescape('\n'.join((folder / f'{page}.html').read_text(encoding='utf-8') for page in pages))
            assert all(f'<pre lang="zh-CN">{poem}</pre>' in shown for poem in kept['poems']), f'{rung}, {language}'



@pytest.mark.parametrize('name', PAGES)
def test_links_lead_somewhere_and_nothing_comes_from_outside(name):
    page = Parsed(name)
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        if link == 'data:,':  # no icon
            continue
        target, anchor = urldefrag(link)
        assert not urlparse(link).scheme and not link.startswith('/'), link
        path = (DOCS / f'{name}.html').parent / unquote(target) if target else DOCS / f'{name}.html'
        assert path.exists(), link
        if anchor:
            assert anchor in Parsed(str(path.resolve().relative_to(DOCS)).removesuffix('.html')).ids, link


@pytest.mark.parametrize('name', PAGES)
def test_headings_and_drawings_can_be_read_aloud(name):
    page = Parsed(name)
    assert page.headings.count(1) == 1 and page.headings[0] == 1
    assert all(after - before <= 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    for tag, attributes in page.tags:
        if tag == 'svg' and 'aria-hidden' not in attributes:
            assert attributes['aria-label'] and attributes['role'] in ('img', 'group')


@pytest.mark.parametrize('names', PAIRS)
def test_both_editions_have_the_same_parts(names):
    zh, en = map(Parsed, names)
    assert zh.ids == en.ids and zh.headings == en.headings
    for tag in ('svg', 'table', 'aside', 'math', 'details', 'li', 'pre'):
        assert [t for t, _ in zh.tags].count(tag) == [t for t, _ in en.tags].count(tag), tag
    name = Path(names[0]).name
    assert f'en/{name}.html' in zh.links and f'../{name}.html' in en.links


TOY = {
    'ladder.toml': 'name = "root"\nrungs = []\n',
    'toy/ladder.toml': """
name = "toy"
title = {zh = "玩具", en = "A toy"}
[[rungs]]
path = "toy/toy_v1.py"
title = {zh = "一", en = "One"}
line = {zh = "一步", en = "a step"}
[[rungs]]
path = "toy/toy_v2_twice.py"
below = "toy/toy_v1.py"
title = {zh = "二", en = "Two"}
line = {zh = "两步", en = "two steps"}
""",
    'toy/toy_v1.py': '"""One."""\nx = 1\ny = 2\n',
    'toy/toy_v2_twice.py': '"""Two."""\nx = 1\ny = 2 * x\n',
    'toy/pages/examples.py': "EXAMPLES = {'v2': lambda: {'third': 1 / 3}}\n",
    'toy/pages/{}/index.html': "{% extends 'base.html' %}{% block main %}{% from 'macros.html' import ladder with context %}"
                               '{{ ladder(0, 1, lang) }}{% endblock %}',
    'toy/pages/{}/v1.html': "{% extends 'page.html' %}{% block text %}{{ listing('v1') }}{% endblock %}",
    'toy/pages/{}/v2.html': "{% extends 'rung.html' %}{% block example %}{{ n(ex.third) }}{% endblock %}"
                            "{% block notes %}{% call note('y = ') %}NOTED{% endcall %}{% endblock %}"}


def test_another_ladder_needs_nothing_but_its_own_files(tmp_path):
    """Nor numbers, samples and drawings, as long as it has none."""
    for name in ('kit', 'tools'):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name, text in TOY.items():
        for path in {tmp_path / name.format(language) for language in site.LANGUAGES}:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding='utf-8')
    for what in ('examples', 'pages'):
        subprocess.run([sys.executable, 'tools/walkthrough.py', what], cwd=tmp_path, check=True)
    docs = tmp_path / 'docs'
    assert {path.relative_to(docs).as_posix() for path in docs.rglob('*.html')} == {
        f'toy/{folder}{name}.html' for folder in ('', 'en/') for name in ('index', 'v1', 'v2')}
    for folder, up in (('toy', '..'), ('toy/en', '../..')):
        text = (docs / folder / 'v2.html').read_text(encoding='utf-8')
        assert f'href="{up}/style.css"' in text and 'href="v1.html"' in text and '0.33' in text and 'NOTED' in text
        assert re.search('<mark> \\* x</mark>', re.sub('</?span[^>]*>', '', text))
        assert 'id="loss"' not in text and 'id="sample"' not in text and 'id="flow"' not in text


def test_a_note_without_its_line_stops_the_build():
    old, new = 'a = 1\nb = 2\n', 'a = 1\nb = 3\n'
    [hunk] = diff.Diff(old, new, [diff.Note('b = 3', 'here')]).hunks
    assert [note.text for note in hunk.notes] == ['here']
    for key in ('a = 1', 'c = 1'):
        with pytest.raises(SystemExit, match='lost its hunk'):
            diff.Diff(old, new, [diff.Note(key, 'here')])
    with pytest.raises(SystemExit, match='lost its line'):
        diff.Listing(old, [diff.Note('c = 1', 'here')])


def test_a_claim_that_is_false_and_a_test_that_is_gone_stop_the_build():
    with pytest.raises(results.Untrue, match='the claim'):
        results.check(False, 'the claim')
    for file in ('test_pages', 'test_that_was_moved'):
        with pytest.raises(SystemExit, match='has no test'):
            site.test_source(f'tests/{file}.py::test_that_was_renamed')


def test_changed_words_are_marked():
    line = 'x = x + self.sa(x)'
    old, new = diff.changed_words('x = self.sa(x)', line)
    assert not old and ''.join(line[i] for i in sorted(new)).strip() == 'x +'


COMPARED = [page.rung for ladder in LADDERS.values() for page in site.pages_of(ladder) if page.rung and page.rung.below]


def lines_in(rows):
    for row in rows:
        if isinstance(row, diff.Line):
            yield row
        else:
            yield from lines_in(row.rows if hasattr(row, 'rows') else filter(None, (row.old, row.new)))


def around(lines, line):
    """What a line is in, read off the indentation: 'Block.forward'."""
    names, indent = [], 1000
    line += next(n for n, text in enumerate(lines[line:]) if not text.lstrip().startswith('@'))
    for text in reversed(lines[:line + 1]):
        own = len(text) - len(text.lstrip())
        if text.strip() and own < indent and (own == 0 or not text.lstrip().startswith(')')):
            found = re.match(r'(?:class|def) (\w+)', text.lstrip())
            if found:
                names.insert(0, found[1])
            indent = own
    return '.'.join(names)


@pytest.mark.parametrize('rung', COMPARED, ids=repr)
def test_each_hunk_names_the_function_it_is_in(rung):
    made = diff.Diff(rung.below.source, rung.source, folded=rung.data.get('folded', ()))
    for hunk in made.hunks:
        changed = [line for line in lines_in(hunk.rows) if line.kind in ('add', 'del') and any(
            text.strip() for _, pieces in line.segments for _, text in pieces)]
        if hunk.place is None:
            assert not changed or hunk is made.hunks[0]  # the docstring
            continue
        first = next((line for line in changed if line.new), None)
        first, lines, at = ((first, made.new, first.new) if first else (changed[0], made.old, changed[0].old))
        assert around(lines, at - 1) == hunk.place


def test_a_change_stays_under_its_function_when_the_next_is_in_the_one_around_it():
    old = 'def outer():\n    def inner():\n        return 1\n    a = 2\n    b = 3\n    return 4\n'
    made = diff.Diff(old, old.replace('1', '5').replace('4', '6'))
    assert [(hunk.place, [line.new for line in lines_in(hunk.rows) if line.kind == 'add']) for hunk in made.hunks] == [
        ('outer.inner', [3]), ('outer', [6])]


def test_what_has_one_name_in_both_is_compared_with_its_namesake():
    old = 'def a():\n    return 1\n\n\ndef gone():\n    return 2\n\n\ndef b():\n    return 2\n'
    new = 'def a():\n    return 1\n\n\ndef b():\n    return 3\n'
    made = diff.Diff(old, new, folded=['b'])
    assert [hunk.place for hunk in made.hunks if hunk.place] == ['gone', 'b']
    [fold] = [row for row in made.hunks[-1].rows if isinstance(row, diff.Fold)]
    assert (fold.kind, fold.names, fold.added, fold.removed) == ('piece', ['b'], 1, 1)


def test_what_is_to_be_folded_is_folded_wherever_it_stands_in_an_added_stretch():
    bodies = {name: f'def {name}():\n    return {n}\n' for n, name in enumerate('abcdez')}
    made = diff.Diff('\n\n'.join(bodies[name] for name in 'az'), '\n\n'.join(bodies.values()), folded=['c', 'd'])
    assert [(hunk.place, any(isinstance(row, diff.Fold) for row in hunk.rows)) for hunk in made.hunks if hunk.place] == [
        ('b', False), ('c', True), ('d', True), ('e', False)]
    folds = [row for hunk in made.hunks for row in hunk.rows if isinstance(row, diff.Fold)]
    assert [fold.names for fold in folds] == [['c'], ['d']]
    for fold, name in zip(folds, 'cd', strict=True):
        assert diff.defined([made.new[line.new - 1] for line in lines_in([fold])]) == [name]
    added = [line.new for hunk in made.hunks for line in lines_in(hunk.rows) if line.kind == 'add']
    assert added == sorted(added) and made.added == len(added) == len(made.new) - len(made.old)


def test_the_english_pages_say_what_every_comment_says():
    glosses, said = site.glosses_of(LADDERS['root'], 'en'), set()
    for rung in {rung for page in site.pages_of(LADDERS['root']) if page.rung for rung in (page.rung, page.rung.below) if rung}:
        said |= set(filter(None, map(remark, highlight(rung.source))))
    said |= set(filter(None, map(remark, highlight(LADDERS['root']['simplemodel'].source))))  # shown, and no page's own
    assert said - glosses.keys() == set(), 'pages/en/comments.toml lacks these'
    assert glosses.keys() - said == set(), 'pages/en/comments.toml has these, and no script does'


@pytest.mark.parametrize('name', EDITIONS['en'])
def test_every_line_in_chinese_on_an_english_page_says_what_it_means(name):
    """Comments and docstrings, wherever the page shows them; what is only printed needs no translation."""
    for line in re.findall('<div class="line .*?</code>', Parsed(name).text):
        text = re.sub('<span class="s[^d].*?</span>', '', line)
        assert '<i class="gloss">' in text or not re.search('[\u4e00-\u9fff]', text), line


def test_a_number_is_the_same_in_the_words_of_both_languages():
    for said, meaning in site.glosses_of(LADDERS['root'], 'en').items():
        assert sorted(re.findall(r'\d+[.,]\d+', said)) == sorted(re.findall(r'\d+[.,]\d+', meaning))


def test_the_english_pages_say_what_every_poem_says():
    told = {poem: said for ladder in LADDERS.values() for poem, said in (site.translations_of(ladder, 'en') or {}).items()}
    texts = [Parsed(name).text for name in EDITIONS['en']]
    for poem, said in re.findall('<pre lang="zh-CN">(.*?)</pre>(<p class="said">.*?</p>)?', '\n'.join(texts), re.DOTALL):
        assert unescape(said) == f'<p class="said">{told[unescape(poem)]}</p>'
    assert [poem for poem, said in told.items() if not any(said in unescape(text) for text in texts)] == []


def test_a_poem_that_changes_stops_the_build():
    ladder = LADDERS['root']
    edition = site.Edition(site.pages_of(ladder)[0], 'en', site.environment_of(ladder))
    poem = next(iter(edition.translations))
    assert edition.translated(poem) == edition.translations[poem]
    with pytest.raises(SystemExit, match='does not say what this means'):
        edition.translated(poem + '。')


@pytest.mark.parametrize('name', PAGES)
def test_what_a_number_is_said_to_be_made_of_makes_it(name):
    """To the last digit shown: an example goes on from the numbers that the reader sees."""
    found = re.findall('<td[^>]* title="(.*?) ≈ (.*?)"', Parsed(name).text)
    assert found or Path(name).name not in ('v1', 'v2', 'v3', 'v4', 'v5', 'v7', 'v9', 'v10')
    for text, shown in found:
        code = unescape(text).replace(',', '').replace('e^', 'e ** ').translate(str.maketrans('−×÷', '-*/'))
        value = eval(re.sub(r'(√|ln )([\d.]+)', lambda match: f'{"sqrt" if match[1] == "√" else "log"}({match[2]})', code), dict(vars(math)))
        digits = len(shown.partition('.')[2])
        assert value == pytest.approx(float(shown.replace(',', '').replace('−', '-')), abs=0.5 * 10 ** -digits + 1e-6), text


@pytest.mark.parametrize('name', PAGES)
def test_a_page_with_a_practice_says_how_to_write_and_judge_it(name):
    rung = next((rung for rung in COMPARED if name.removeprefix('en/') == rung.page), None)
    if rung and rung.practice:
        text = Parsed(name).text
        assert f'python tools/practice.py {rung.address}\npython -m pytest tests --rung {rung.address} --mine my_v{rung.version}.py' in text
        assert '<details class="practice">' in text


@pytest.mark.parametrize('name', PAGES)
def test_what_a_page_asks_to_try_is_answered(name):
    for part in Parsed(name).text.split('id="try"')[1:]:
        wishes = re.findall('<li>.*?</li>', part, re.DOTALL)
        assert wishes and all(re.search(r'<details class="answer"><summary>.*?</summary><p>.*\d', wish) for wish in wishes), wishes


@pytest.mark.parametrize('name', [name for name, ladder in LADDERS.items() if name != 'root' and site.glosses_of(ladder, 'en')])
def test_a_ladder_says_what_its_comments_say_and_goes_on_from_the_words_of_the_root(name):
    ladder = LADDERS[name]
    own = tomllib.loads((ladder.pages / 'en' / 'comments.toml').read_text(encoding='utf-8'))
    said = [text for rung in ladder.rungs for text in map(remark, highlight(rung.source)) if text]
    assert [key for key in own if not any(text.startswith(key) for text in said)] == []
    assert site.glosses_of(LADDERS['root'], 'en').items() <= site.glosses_of(ladder, 'en').items()


@pytest.mark.parametrize('language', site.LANGUAGES)
def test_the_bars_of_the_ladder_start_at_nothing(language):
    text = (site.folder_of(LADDERS['root'], language) / 'index.html').read_text(encoding='utf-8')
    bars = re.findall(r'class="value">([\d.]+)<.*?width:([\d.]+)%', text)
    scales = [float(percent) / float(loss) for loss, percent in bars]
    assert len(bars) > 10 and max(scales) - min(scales) < 0.1


# In a browser

def width(browser, pixels):
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', {
        'width': pixels, 'height': 800, 'deviceScaleFactor': 1, 'mobile': pixels < 600})


def visit(browser, name):
    browser.get((DOCS / f'{name}.html').as_uri())


def wait_for(browser, address):
    wait_until(browser, lambda driver: driver.current_url == address.as_uri())


def wait_until(browser, holds):
    from selenium.webdriver.support.ui import WebDriverWait
    WebDriverWait(browser, 60, poll_frequency=0.05).until(holds)


@pytest.mark.browser
@pytest.mark.parametrize('name', PAGES)
def test_page_opens_clean_from_the_disk_and_fits_a_phone(browser, name):
    browser.get_log('performance'), browser.get_log('browser')
    for pixels in (1280, 360):
        width(browser, pixels)
        visit(browser, name)
        for view in ('unified', 'split'):
            browser.execute_script('document.querySelectorAll(`[data-set=${arguments[0]}]`).forEach(b => b.click())', view)
            browser.execute_script('document.querySelectorAll("details").forEach(d => d.open = true)')
            wide = browser.execute_script('return document.documentElement.scrollWidth')  # innerWidth would grow too
            assert wide <= pixels, (wide, view)
            cut = browser.execute_script(
                'return [...document.querySelectorAll(".line code")].filter(c => c.scrollWidth > c.clientWidth + 8).length')
            assert not cut, (pixels, view)
        browser.execute_script('localStorage.clear()')
    assert browser.get_log('browser') == []
    messages = [json.loads(entry['message'])['message'] for entry in browser.get_log('performance')]
    requests = [message['params']['request']['url'] for message in messages
                if message['method'] == 'Network.requestWillBeSent']
    assert requests and all(url.startswith(('file:', 'data:')) for url in requests)


CUT = """
    const cut = [], wide = document.documentElement.clientWidth;
    for (const each of document.querySelectorAll('body *:not(svg *, .skip, .defs, math *)')) {
        if (!each.checkVisibility()) continue;
        let scroller = each;
        while (scroller && !/auto|scroll/.test(getComputedStyle(scroller).overflowX)) scroller = scroller.parentElement;
        const box = each.getBoundingClientRect(), own = !['PRE', 'DIV'].includes((scroller || each).tagName);
        if (!scroller && box.right > wide + 1) cut.push(['over the edge', each.outerHTML.slice(0, 80)]);
        if (scroller === each && each.scrollWidth > each.clientWidth + 1 && (own || each.matches('.scroll:has(.numbers, .matrix)')))
            cut.push(['to be scrolled', each.outerHTML.slice(0, 80)]);
    }
    for (const badge of document.querySelectorAll('.line > .ref')) {
        const a = badge.getBoundingClientRect(), range = document.createRange();
        range.selectNodeContents(badge.parentElement.querySelector('code:not(.twin)'));
        if (a.width && [...range.getClientRects()].some(b => b.width && b.right > a.left && b.left < a.right && b.bottom > a.top + 1 && b.top < a.bottom - 1))
            cut.push(['under a badge', badge.parentElement.textContent]);
    }
    return cut"""


@pytest.mark.browser
@pytest.mark.parametrize('name', PAGES)
def test_nothing_is_cut_off_or_covered_at_any_width(browser, name):
    """Code and what is printed may be scrolled; formulas, tables and the way to other pages need not be."""
    width(browser, 1280)
    visit(browser, name)
    browser.execute_script('document.querySelectorAll("details").forEach(d => d.open = true)')
    for pixels in (1280, 760, 720, 380):
        width(browser, pixels)
        assert browser.execute_script(CUT) == [], pixels


@pytest.mark.browser
def test_a_wide_window_is_used(browser):
    """Text to the left, what it speaks of to the right."""
    width(browser, 1280)
    for name in ('v3', 'en/v9'):
        visit(browser, name)
        right = browser.execute_script('return document.querySelector(".drawn figure").getBoundingClientRect().right')
        top = browser.execute_script('return ["#problem", "#flow"].map(id => document.querySelector(id).getBoundingClientRect().top)')
        assert right > 1000 and top[0] == top[1]


@pytest.mark.browser
def test_arrow_keys_do_not_turn_the_page_while_something_is_scrolled(browser):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    width(browser, 500)
    visit(browser, 'v7')
    browser.find_element(By.CSS_SELECTOR, '[data-set=split]').click()
    next(each for each in browser.find_elements(By.CSS_SELECTOR, '.change .del code') if each.is_displayed()).click()
    ActionChains(browser).send_keys(Keys.ARROW_RIGHT).perform()
    assert browser.current_url.endswith('v7.html')
    browser.execute_script('localStorage.clear()')
    visit(browser, 'v7')
    browser.execute_script('document.querySelector(".test").open = true')
    for setup in ('getSelection().removeAllRanges()', 'document.querySelector(".test pre").tabIndex = 0',
                  'document.querySelector(".test pre").focus()'):
        browser.execute_script(setup)
    browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert browser.current_url.endswith('v7.html')


@pytest.mark.browser
def test_a_number_says_how_it_was_made(browser):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    width(browser, 1280)
    visit(browser, 'v3')
    cells = browser.find_elements(By.CSS_SELECTOR, '.matrix:has(td[data-why])')[1].find_elements(By.CSS_SELECTOR, 'td[data-why]')

    def said():
        return browser.find_elements(By.CSS_SELECTOR, '.why')[1].text
    browser.execute_script('arguments[0].focus()', cells[0])
    assert said() == cells[0].get_attribute('data-why')
    cells[0].send_keys(Keys.ARROW_RIGHT)
    assert said() == cells[1].get_attribute('data-why') != cells[0].get_attribute('data-why')
    assert browser.current_url.endswith('v3.html')
    cells[2].click()
    assert said() == cells[2].get_attribute('data-why')


@pytest.mark.browser
@pytest.mark.parametrize('ladder', [name for name, ladder in LADDERS.items() if site.pages_of(ladder)])
@pytest.mark.parametrize('language', site.LANGUAGES)
def test_arrow_keys_walk_through_all_pages_and_back(browser, ladder, language):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    width(browser, 1280)
    folder, pages = site.folder_of(LADDERS[ladder], language), site.pages_of(LADDERS[ladder])
    addresses = [folder / f'{page.name}.html' for page in pages]
    browser.get(addresses[0].as_uri())
    for key, order in ((Keys.ARROW_RIGHT, addresses), (Keys.ARROW_LEFT, addresses[::-1])):
        for address in [*order[1:], order[-1]]:  # at the end a key does nothing
            browser.find_element(By.TAG_NAME, 'body').send_keys(key)
            wait_for(browser, address)


@pytest.mark.browser
def test_the_switch_lays_out_the_diff_and_is_remembered(browser):
    from selenium.webdriver.common.by import By
    width(browser, 1280)
    visit(browser, 'v7')

    def sides():
        """Where the first changed pair of lines stands: (left edges, tops)."""
        return browser.execute_script("""
            const pair = [...document.querySelectorAll('.change')].find(p => p.querySelector('.del') && p.querySelector('.add')
                && p.getClientRects().length + p.querySelector('.del').getClientRects().length);
            return ['del', 'add'].map(c => pair.querySelector('.' + c).getBoundingClientRect()).map(r => [r.left, r.top])""")
    (old, new) = sides()
    assert old[0] == new[0] and old[1] < new[1]
    browser.find_element(By.CSS_SELECTOR, '[data-set=split]').click()
    (old, new) = sides()
    assert old[0] < new[0] and old[1] == new[1]
    visit(browser, 'v8')
    assert browser.execute_script('return document.documentElement.dataset.view') == 'split'
    browser.find_element(By.CSS_SELECTOR, '[data-set=unified]').click()
    visit(browser, 'v7')
    assert browser.execute_script('return document.documentElement.dataset.view') == 'unified'


@pytest.mark.browser
def test_unchanged_code_is_folded_and_unfolds(browser):
    from selenium.webdriver.common.by import By
    width(browser, 1280)
    visit(browser, 'v7')

    def shown():
        return browser.execute_script('''return [...document.querySelectorAll(".diff .line code")]
            .filter(line => line.checkVisibility()).map(line => line.textContent).join("\\n")''')
    assert 'class Tokenizer' not in shown() and 'x = x + self.sa(x)' in shown()
    fold = next(each for each in browser.find_elements(By.CSS_SELECTOR, '.diff .fold > summary')
                if 'Tokenizer' in each.text)
    fold.click()
    assert 'class Tokenizer' in shown()
    fold.click()
    assert 'class Tokenizer' not in shown()
    button = browser.find_element(By.CSS_SELECTOR, '.switch .all')
    for _ in range(2):
        assert button.text == '全部展开'
        button.click()
        assert 'class Tokenizer' in shown() and 'def main' in shown()
        wait_until(browser, lambda _: button.text == '全部折叠')
        button.click()
        assert 'def main' not in shown()
        wait_until(browser, lambda _: button.text == '全部展开')
    browser.execute_script('document.querySelectorAll(".diff .fold").forEach(fold => fold.open = true)')  # by hand
    wait_until(browser, lambda _: button.text == '全部折叠')
    button.click()
    assert 'def main' not in shown()
