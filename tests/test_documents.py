"""The documents and pictures show docs/results.json as it is, and its results are of the scripts as they are."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from functools import cache

import pytest

from kit import documents, pictures, results
from kit.experiments import EXPERIMENTS, NOT_IN_A_STEP, jobs_of, source_of
from kit.files import ROOT, read
from kit.ladders import LADDERS, RUNGS
from kit.source import code_hash

RESULTS = json.loads(read('docs/results.json'))
DOCUMENTS = list(documents.documents())
READMES = [name for name in DOCUMENTS if name.endswith('README.md')]


def links(text):
    return set(re.findall(r'\]\(([^)#:]+)[^):]*\)', text))


@pytest.fixture
def changed(tmp_path, monkeypatch):
    """A function that puts other results in the place of docs/results.json."""
    def change(new):
        monkeypatch.setattr(results, 'RESULTS', tmp_path / 'results.json')
        results.RESULTS.write_text(json.dumps(new), encoding='utf-8')
    return change


@pytest.mark.parametrize('path', DOCUMENTS)
def test_a_document_is_what_its_template_makes_of_the_results(path):
    assert documents.documents()[path]() == read(path), 'run python tools/measure.py documents'


@pytest.mark.parametrize('path', DOCUMENTS)
def test_links_lead_to_files(path):
    assert all(((ROOT / path).parent / link).exists() for link in links(read(path)))


@pytest.mark.parametrize('path', [f'{ladder.folder / name}' for ladder in LADDERS.values()
                                  for name in ('README.md', 'README.en.md')])
def test_a_readme_has_every_script_and_no_empty_block(path):
    text = read(path)
    ladder = next(ladder for ladder in LADDERS.values() if ROOT / ladder.folder == (ROOT / path).parent)
    assert {rung.file.name for rung in ladder.rungs} <= links(text)
    assert all(block[2].strip() for block in documents.BLOCK.findall(text))


@pytest.mark.parametrize('path', READMES)
def test_both_languages_have_the_same_commands_tables_and_links(path):
    chinese, english = read(path), read(path.replace('.md', '.en.md'))
    assert re.findall('```.*?```', chinese, flags=re.DOTALL) == re.findall('```.*?```', english, flags=re.DOTALL)
    assert chinese.count('\n## ') == english.count('\n## ')
    assert chinese.count('\n| ') == english.count('\n| ')
    assert links(chinese.replace('.en.', '.')) == links(english.replace('.en.', '.'))


def test_a_missing_result_is_named_with_the_command_that_makes_it(changed):
    gone = next(key for key in RESULTS['runs'])
    changed(RESULTS | {'runs': {key: run for key, run in RESULTS['runs'].items() if key != gone}})
    found = documents.problems(lambda path, text: None)
    assert any(gone in problem and 'python tools/measure.py' in problem for problem in found)
    changed({'runs': RESULTS['runs']})
    assert any('python tools/bench.py' in problem for problem in documents.problems(lambda path, text: None))


def test_a_claim_that_no_longer_holds_stops_its_document_only(changed):
    """Were the losses of all runs the same, every comparison would be untrue, but tables need no claim."""
    runs = {key: run | {'curve': [[step, 5.0, 5.0] for step, *_ in run['curve']]}
            for key, run in RESULTS['runs'].items()}
    changed(RESULTS | {'runs': runs})
    written = []
    found = documents.problems(lambda path, text: written.append(path))
    assert {problem.split(':')[0] for problem in found} | set(written) == set(DOCUMENTS)
    assert all('no longer true' in problem for problem in found)
    assert {'README.md', 'README.en.md'} <= set(written)  # these have tables only
    assert {path for path in DOCUMENTS if path.startswith('docs/')}.isdisjoint(written)


@pytest.mark.parametrize('file', sorted(pictures.shown()))
def test_a_picture_shows_the_results(file):
    """It carries the hash of the numbers that it was drawn from."""
    name, _ = pictures.picture_of(file)
    data = pictures.pictures()[name].data()
    assert pictures.drawn_from(pictures.FOLDER / file) == hashlib.sha256(json.dumps(data).encode()).hexdigest()[:16]


def test_no_picture_lies_about():
    assert {str(path.relative_to(pictures.FOLDER)) for path in pictures.FOLDER.rglob('*.*')} == pictures.shown()


@pytest.mark.parametrize('experiment', EXPERIMENTS)
def test_runs_are_of_the_scripts_as_they_are(experiment):
    """Every run of an experiment is there; one of a script whose code has changed since is none."""
    for script, constants in jobs_of(experiment):
        run = RESULTS['runs'][f'{script} {json.dumps(constants, sort_keys=True)}']
        assert run['code'] == code_hash(source_of(script, constants), constants), (script, constants)


def test_no_run_is_left_over():
    known = {f'{script} {json.dumps(constants, sort_keys=True)}' for name in EXPERIMENTS
             for script, constants in jobs_of(name)}
    assert set(RESULTS['runs']) == known


@cache
def codes(rung):
    """The hashes of a rung's code: of all of it, of a step, and of a step with other sizes."""
    sizes = {'batch_size', 'block_size', 'n_embd', 'n_head', 'n_layer', 'dropout'}
    return {code_hash(rung.source, without) for without in ((), ('seed',), NOT_IN_A_STEP, {*sizes, *NOT_IN_A_STEP})}


@pytest.mark.parametrize('section', [name for name in RESULTS if name not in ('runs', 'poems')])
def test_speeds_are_of_the_scripts_as_they_are(section):
    for name, row in RESULTS[section].items():
        script, _, constants = name.partition(' {')
        if constants:  # a run of an experiment, or a step of one
            constants = json.loads('{' + constants)
            ignored = {*constants, *NOT_IN_A_STEP} if section == 'candidates' else constants
            assert row['code'] == code_hash(source_of(script, constants), ignored), name
        elif not name.startswith(('gpt2', 'layer ')):  # these are not ours
            rungs = [rung for rung in RUNGS if rung.stem in name] or RUNGS
            assert any(row['code'] in codes(rung) for rung in rungs), name


def test_every_result_says_on_what_machine():
    rows = [row for section in RESULTS.values() for row in section.values()]
    assert all(re.search(r', \d+ cores, Python 3', row['machine']) for row in rows)


def test_poems_are_of_the_sampler_and_the_model_as_they_are():
    written = [ladder.data['poems'] for ladder in LADDERS.values() if 'poems' in ladder.data]
    kept = {f'python {each["script"]} {options}': each for each in written for options in each['options']}
    assert set(RESULTS['poems']) == set(kept)
    for command, row in RESULTS['poems'].items():
        assert row['code'] == code_hash(read(kept[command]['script'])), 'run python tools/measure.py poems'
        model = (ROOT / kept[command]['model']).read_bytes()
        assert row['model'] == hashlib.sha256(model).hexdigest()[:16], 'run python tools/measure.py poems'


TOY = {
    'toy/ladder.toml': 'name = "toy"\n[[rungs]]\npath = "toy/toy_v1.py"\n'
                       '[[experiments]]\nname = "losses"\nrungs = ["v1"]\n'
                       'seeds = [1, 2]\nchanges = [{}, {times = 3}]\n',
    'toy/toy_v1.py': '"""一遍。"""\n\ntimes = 1\n',
    'toy/README.md': '前\n<!-- losses -->\n旧\n<!-- /losses -->\n后\n',
    'toy/README.en.md': 'before\n<!-- losses -->\n<!-- /losses -->\nafter\n',
    'toy/pages/readme/losses.md': '{% for setting in settings("losses").values() %}\n'
                                  '{{ language }} {{ setting["times"] }} {{ spread(setting.val) }}\n{% endfor %}\n',
    'toy/pages/documents/results.md': '{% do check(mean(settings("losses")["v1", "times 3"].val) < 2, "三遍更好") %}\n好\n',
}


def test_a_new_ladder_has_a_readme_and_documents(tmp_path):
    shutil.copytree(ROOT / 'kit', tmp_path / 'kit')
    shutil.copy(ROOT / 'ladder.toml', tmp_path)
    losses = {'{"seed": 1}': 3.0, '{"seed": 2}': 5.0, '{"seed": 1, "times": 3}': 1.0, '{"seed": 2, "times": 3}': 1.5}
    runs = {f'toy/toy_v1.py {constants}': {'curve': [[0, 9.0, 9.0], [1, 1.0, value]]}
            for constants, value in losses.items()}
    for name, text in TOY.items() | {('docs/results.json', json.dumps({'runs': runs}))}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding='utf-8')
    write = [sys.executable, '-c', 'from kit import documents, files; print(documents.problems(files.write))']
    assert subprocess.run(write, cwd=tmp_path, capture_output=True, encoding='utf-8', check=True).stdout == '[]\n'
    readme = (tmp_path / 'toy/README.md').read_text(encoding='utf-8')
    assert readme == '前\n<!-- losses -->\nzh 1 4.000 ± 1.414\nzh 3 1.250 ± 0.354\n<!-- /losses -->\n后\n'
    assert 'en 3 1.250 ± 0.354\n' in (tmp_path / 'toy/README.en.md').read_text(encoding='utf-8')
    assert (tmp_path / 'docs/toy/results.md').read_text(encoding='utf-8') == '好\n'
