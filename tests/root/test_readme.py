"""What the root's README and documents say, against ci.txt, the scripts, and results.json."""

import json
import re
import statistics
import subprocess

import pytest

from kit import pictures
from kit.files import ROOT, read
from kit.ladders import LADDERS

LADDER = LADDERS['root']
LANGUAGES = {'zh': 'README.md', 'en': 'README.en.md'}
RUNS = [(script, json.loads(constants), run) for key, run in json.loads(read('docs/results.json'))['runs'].items()
        for script, constants in [key.split(' ', 1)]]


def ends(rung, column=2, **constants):
    """The losses at the end (1: training, 2: validation) of the runs with those constants and any seed."""
    return [run['curve'][-1][column] for script, given, run in RUNS
            if script == LADDER[rung].path and {**given, 'seed': None} == {**constants, 'seed': None}]


def told(values):
    """As a table tells it."""
    return f'{statistics.mean(values):.3f}' + (f' ± {statistics.stdev(values):.3f}' if len(values) > 1 else '')


def cells(path, first):
    """[[cell, ...]] of the table lines in a document that begin with that cell."""
    return [line.strip('| ').split(' | ') for line in read(path).splitlines() if line.startswith(f'| {first} |')]


@pytest.mark.parametrize('path', LANGUAGES.values(), ids=LANGUAGES)
def test_facts_of_the_corpus(path, corpus):
    for fact in (corpus.count('\n\n') + 1, len(corpus), len(set(corpus)), len(corpus.encode())):
        assert f'| {fact:,}' in read(path)


@pytest.mark.parametrize('path', LANGUAGES.values(), ids=LANGUAGES)
def test_the_table_of_the_ladder_is_the_results(path):
    for rung in [*LADDER.numbered[:11], LADDER['simplebigrammodel_torch']]:
        [row] = cells(path, f'`{rung.stem.removeprefix("babygpt_")}`')
        values = ends(str(rung), 1), ends(str(rung), 2)
        assert row[2:5] == [f'{len(values[0])}', told(values[0]), told(values[1])]
        assert len(values[0]) == 3


@pytest.mark.parametrize('path', LANGUAGES.values(), ids=LANGUAGES)
def test_the_ladder_was_measured_on_the_machines_that_are_named(path):
    counting = LADDER['simplebigrammodel_torch'].path
    for maker, scripts in (('Intel(R) Xeon(R)', [rung.path for rung in LADDER.numbered]), ('AMD EPYC', [counting])):
        machines = {run['machine'] for script, constants, run in RUNS if script in scripts and set(constants) == {'seed'}}
        assert len(machines) == 1 and machines.pop().startswith(maker)
        assert re.sub(r'\(R\)', '', maker) in read(path)


def test_tables_of_the_documents_are_the_results():
    """A cell or two of each table that is made of runs."""
    for rung in ('v6', 'v7', 'v8', 'v9'):
        row = cells('docs/results.md', f'`{LADDER[rung].stem.removeprefix("babygpt_")}`')[1]
        depths = [ends(rung, n_layer=1), ends(rung), ends(rung, n_layer=6), ends(rung, n_layer=12)]
        assert row[1:] == [told(values) for values in depths]
        assert {len(values) for values in depths} == {3}
    gain = cells('docs/results.md', '`v9_layer_norm`')[0]
    assert gain[1] == f'{statistics.mean(ends("v9")):.3f}'
    assert gain[2] == f'{statistics.mean(ends("v9")) - statistics.mean(ends("v8")):+.3f}'
    overfit = cells('docs/results.md', '`v10_dropout`')[1]
    assert overfit[2] == told(ends('v10', train_ratio=0.09, max_iters=12000, eval_interval=1000))
    chosen = cells('docs/hyper_params.md', '8')[-1]
    [first] = [run['curve'][-1][2] for script, given, run in RUNS if script == LADDER['v11'].path and given == {'seed': 1337}]
    assert chosen[-1] == told([first])  # beside others with one seed


def test_pictures_show_the_results():
    drawn = pictures.pictures()
    assert drawn['ladder'].data()[0][9] == pytest.approx(('v9', statistics.mean(ends('v9')), statistics.stdev(ends('v9'))))
    assert drawn['curves'].data()['v5'][-1] == (3000, pytest.approx(statistics.mean(ends('v5'))))
    assert [depth for depth, *_ in drawn['depth'].data()['v7']] == [1, 3, 6, 12]
    deepest = ends('v7', n_layer=12)
    assert drawn['depth'].data()['v7'][-1][1:] == pytest.approx((statistics.mean(deepest), statistics.stdev(deepest)))
    long = ends('v10', train_ratio=0.09, max_iters=12000, eval_interval=1000)
    assert drawn['overfit'].data()['v10'][1][-1] == pytest.approx((12000, statistics.mean(long), statistics.stdev(long)))
    [decayed] = [run['curve'] for script, given, run in RUNS if given.get('decay') and given['max_iters'] == 12000]
    assert [val for _, val in drawn['finals'].data()[3][1]] == [val for *_, val in decayed]


def test_the_chosen_settings_are_those_of_v11_on_a_cpu():
    """The last table of docs/hyper_params.md, against the text of the script: the value before `if on_cpu`."""
    names = [cell.strip('`') for cell in cells('docs/hyper_params.md', '`batch_size`')[-1]][:7]
    row = [cell.strip('*') for cell in cells('docs/hyper_params.md', '8')[-1]]
    assert len(names) == 7
    for name, cell in zip(names, row, strict=False):
        said = re.search(rf'^{name} = (\S+)', LADDER['v11'].source, flags=re.MULTILINE)[1]
        assert float(cell) == float(said), name
    steps = re.search(r'^max_iters = (\d+) if on_cpu', LADDER['v11'].source, flags=re.MULTILINE)[1]
    assert row[8] == f'{int(steps):,}'


def test_the_diff_shown_is_the_diff():
    shown = re.search('```diff\n(.*?)```', read('README.md'), flags=re.DOTALL)[1]
    real = subprocess.run(['git', 'diff', '--no-index', LADDER['v6'].path, LADDER['v7'].path], cwd=ROOT,
                          capture_output=True, encoding='utf-8', check=False).stdout
    assert shown in real


@pytest.mark.parametrize('rung', [*LADDER.numbered, LADDER['babygpt_sample_with_kvcache']])
def test_docstrings_name_commands_that_exist(rung):
    text = rung.source.split('"""')[1]
    assert f'python {rung.path}' in text
    for script in re.findall(r'\w+\.py', text):
        assert (ROOT / script).exists(), script


@pytest.mark.parametrize('rung', LADDER.numbered[:11])
def test_losses_in_docstrings_are_the_measured_ones(rung):
    """验证损失约 N in a docstring is the mean of the measured losses, to two digits."""
    text = rung.source.split('"""')[1]
    said = float(re.search('(?:验证损失|降到)约 ([\\d.]+)', text.split('你会看到')[1])[1])
    assert said == pytest.approx(statistics.mean(ends(str(rung))), abs=0.0051)
