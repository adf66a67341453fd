"""Means and spreads, the constants of scripts, and the numbers of steps that hang on timings."""

import json

import pytest

from kit import results
from kit.experiments import (
    EXPERIMENTS,
    Experiment,
    apart,
    clearly_below,
    deviation,
    jobs_of,
    ladder_setting,
    made_of,
    own_constants,
    source_of,
    spread,
)
from kit.ladders import LADDERS, RUNGS
from kit.results import Missing
from kit.scripts import load
from kit.summaries import compared


def test_mean_and_spread():
    assert spread([1.0, 3.0]) == '2.000 ± 1.414'
    assert spread([2.0]) == '2.000' and deviation([2.0]) == 0


def test_how_far_apart_two_means_lie():
    assert apart([2.0, 4.0], [1.0, 1.0]) == pytest.approx(2.0)  # 2 apart, and the standard error is 1
    assert apart([1.0, 1.0], [2.0, 4.0]) == pytest.approx(-2.0)
    assert clearly_below([1.0, 1.1, 1.2], [2.0, 2.1, 2.2])
    assert not clearly_below([1.0, 1.5, 2.0], [2.1, 2.6, 3.1])  # no overlap, and yet perhaps an accident


def test_constants_of_a_script():
    class Rung:
        source = 'import torch\n\ndevice = torch.device()\non_cpu = device == 1\nwide = 8 if on_cpu else 64\nhalf = wide / 2\n'
    assert own_constants(Rung, on_cpu=True) == {'on_cpu': True, 'wide': 8, 'half': 4}
    assert own_constants(Rung, on_cpu=False)['half'] == 32
    assert own_constants(Rung, wide=10) == {'wide': 10, 'half': 5}


@pytest.mark.parametrize('rung', [rung for rung in RUNGS if rung.number])
def test_a_script_has_the_constants_that_experiments_change(rung):
    for data in rung.ladder.data.get('experiments', []):
        if str(rung) in data['rungs']:
            changed = set(data.get('constants', {})).union(*data.get('changes', [])) - {'decay', 'edit'}
            assert changed <= set(own_constants(rung, on_cpu=True))


def test_an_edit_takes_the_place_of_what_stands_there(monkeypatch):
    ladder = LADDERS['root']
    rung = next(rung for rung in ladder.rungs if rung.number)
    edits = {'doubled': [['max_iters', 'iters'], [' = 3000', ' = 6000']], 'lost': [['no such line', '']]}
    monkeypatch.setitem(ladder.data, 'edits', edits)
    [(script, constants)] = Experiment(ladder, 'try', [str(rung)], changes=[{'edit': 'doubled'}]).jobs()
    assert source_of(script, constants) == rung.source.replace('max_iters', 'iters').replace(' = 3000', ' = 6000')
    assert source_of(script, {}) == rung.source and made_of(script, constants) != made_of(script)
    assert load(script, source_of(script, constants)).iters == 6000
    with pytest.raises(AssertionError, match='lost'):
        rung.edited('lost')


def test_steps_hang_on_timings(tmp_path, monkeypatch):
    ladder = LADDERS['root']
    rung = next(rung for rung in ladder.rungs if rung.number)
    monkeypatch.setattr(results, 'RESULTS', tmp_path / 'results.json')
    timed = Experiment(ladder, 'timed', [str(rung)], constants={'n_embd': 8}, changes=[{}, {'n_embd': 16}], steps=1000)
    with pytest.raises(Missing, match=r'bench\.py candidates'):
        timed.jobs()
    rows = {f'{rung.path} {{"n_embd": {size}}}': {'milliseconds': 5.0 * ratio, 'ratio': ratio} for size, ratio in
            ((8, 1.0), (16, 4.0))}
    results.RESULTS.write_text(json.dumps({'candidates': rows}), encoding='utf-8')
    assert [constants['max_iters'] for _, constants in timed.jobs()] == [1000, 250]
    minute = Experiment(ladder, 'minute', [str(rung)], constants={'n_embd': 16}, seconds=60)
    assert [constants['max_iters'] for _, constants in minute.jobs()] == [3000]


def test_losses_that_mean_something_else_are_not_compared(tmp_path, monkeypatch):
    timings = results.load()['candidates']
    monkeypatch.setattr(results, 'RESULTS', tmp_path / 'results.json')
    kept = {'candidates': timings}
    results.RESULTS.write_text(json.dumps(kept), encoding='utf-8')  # the numbers of steps
    jobs = [job for name in EXPERIMENTS if name.endswith('ladder') for job in jobs_of(name)]
    results.RESULTS.write_text(json.dumps(kept | {'runs': {results.key(*job): {} for job in jobs}}), encoding='utf-8')
    rungs = [rung for rung in RUNGS if rung.below and rung.measured == rung and ladder_setting(rung.below.measured)]
    alone = {rung for rung in rungs if rung.data.get('own_loss')}
    assert alone and len(rungs) > 10 and {rung for rung in rungs if compared(rung) is None} == alone
