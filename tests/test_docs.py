"""What the documents say is true: facts from ci.txt, numbers from docs/results.json, the two languages the same."""

import re
import subprocess
import sys

import pytest
from ladder import BEFORE, ROOT, RUNGS, SAMPLER, load

sys.path.insert(0, str(ROOT / 'tools'))
import pictures
import report
import results

README = (ROOT / 'README.md').read_text(encoding='utf-8')
ENGLISH = (ROOT / 'README.en.md').read_text(encoding='utf-8')


@pytest.mark.parametrize('text', [README, ENGLISH], ids=['zh', 'en'])
def test_facts_of_the_corpus(text, corpus):
    for fact in (corpus.count('\n\n') + 1, len(corpus), len(set(corpus)), len(corpus.encode())):
        assert f'| {fact:,}' in text


@pytest.mark.parametrize('name', report.BLOCKS)
def test_numbers_are_what_the_tool_writes(name):
    text = (ROOT / name).read_text(encoding='utf-8')
    assert report.filled(name, text) == text
    assert all(len(write().splitlines()) >= 3 for write in report.BLOCKS[name].values())


@pytest.mark.parametrize('language', ['', '.en'])
@pytest.mark.parametrize('name', pictures.PICTURES)
def test_pictures_show_the_results(name, language):
    """A picture carries a hash of the numbers it was drawn from."""
    read, _, _ = pictures.PICTURES[name]
    picture = (pictures.FOLDER / f'{name}{language}.svg').read_text(encoding='utf-8')
    assert pictures.data_hash(read()) in re.search('<dc:description>(.*?)</dc:description>', picture)[1]
    assert (pictures.FOLDER / f'{name}{language}.png').read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize('experiment', report.EXPERIMENTS)
def test_results_are_of_the_scripts_as_they_are(experiment):
    """Every run of an experiment is there, and a result of a script whose code has changed since is no result."""
    runs = results.load()['runs']
    for script, constants in report.EXPERIMENTS[experiment]():
        assert runs[results.key(script, constants)]['code'] == results.code_hash(script, constants), (script, constants)


@pytest.mark.parametrize('section', ['training', 'sampling', 'candidates', 'variants', 'memory', 'gradients', 'attention'])
def test_speeds_are_of_the_scripts_as_they_are(section):
    codes = {results.code_hash(path.name) for path in ROOT.glob('*.py')}
    codes.add(results.code_hash(report.TUNED, report.GIVEN))
    for name, row in results.load()[section].items():
        if not name.startswith(('gpt2', 'layer')):
            assert row['code'] in codes, name


def test_the_chosen_settings_are_those_of_v11():
    tuned = load(report.TUNED)
    assert not tuned.on_cpu or report.CHOSEN == {name: getattr(tuned, name) for name in report.NAMES}


def test_no_result_is_left_over():
    known = {results.key(*job) for jobs in report.EXPERIMENTS.values() for job in jobs()}
    assert set(results.load()['runs']) == known


def test_both_languages_have_the_same_commands_tables_and_links():
    assert re.findall('```.*?```', README, flags=re.DOTALL) == re.findall('```.*?```', ENGLISH, flags=re.DOTALL)
    assert README.count('\n## ') == ENGLISH.count('\n## ')
    assert README.count('\n| ') == ENGLISH.count('\n| ')
    links = [set(re.findall(r'\]\((.*?)\)', text.replace('.en.', '.'))) for text in (README, ENGLISH)]
    assert links[0] == links[1]


@pytest.mark.parametrize('text', [README, ENGLISH], ids=['zh', 'en'])
def test_links_lead_to_files_and_every_script_is_linked(text):
    links = set(re.findall(r'\]\((.*?)\)', text))
    assert all((ROOT / link).exists() for link in links)
    assert {*BEFORE, *RUNGS.values(), SAMPLER} <= links


def test_the_diff_shown_is_the_diff():
    shown = re.search('```diff\n(.*?)```', README, flags=re.DOTALL)[1]
    real = subprocess.run(['git', 'diff', '--no-index', RUNGS[6], RUNGS[7]], cwd=ROOT, capture_output=True,
                          encoding='utf-8', check=False).stdout
    assert shown in real


@pytest.mark.parametrize('name', [*RUNGS.values(), SAMPLER])
def test_docstrings_name_commands_that_exist(name):
    text = (ROOT / name).read_text(encoding='utf-8').split('"""')[1]
    assert f'python {name}' in text
    for script in re.findall(r'\w+\.py', text):
        assert (ROOT / script).exists(), script


def test_losses_in_docstrings_are_the_measured_ones():
    """Each 验证损失约 N in the docstrings of v1 to v11 is the mean of docs/results.json, to two digits."""
    for number in range(1, 12):
        text = (ROOT / RUNGS[number]).read_text(encoding='utf-8').split('"""')[1]
        said = float(re.search('(?:验证损失|降到)约 ([\\d.]+)', text.split('你会看到')[1])[1])
        values = [run['curve'][-1][2] for run in report.seeds_of(RUNGS[number])]
        assert said == pytest.approx(sum(values) / len(values), abs=0.0051), RUNGS[number]
