"""v12's tracking: it works with no account, no key and no network, and wandb's own reader finds what was printed."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kit.scripts import clean_environment, install, losses, run, speeds

V12 = 'babygpt_v12_wandb.py'

OPTIONS = {'batch_size': 4, 'block_size': 16, 'n_embd': 32, 'n_head': 2, 'n_layer': 3, 'dropout': 0.1,
           'learning_rate': 0.002, 'max_iters': 40, 'eval_interval': 20, 'eval_iters': 2, 'train_ratio': 0.8,
           'max_new_tokens': 30, 'seed': 7}
ARGS = [word for name, value in OPTIONS.items() for word in (f'--{name}', value)]


@pytest.fixture(scope='module')
def tracked(tmp_path_factory, small_corpus):
    """What a run without an account printed, and its folder."""
    folder = tmp_path_factory.mktemp('tracked')
    result = run(install(V12, folder, corpus=small_corpus), *ARGS)
    assert result.returncode == 0, result.stderr
    return result.stdout, folder


@pytest.fixture(scope='module')
def records(tracked):
    """The records of the offline run, as `wandb leet inspect` reads them."""
    _, folder = tracked
    [log] = (folder / 'wandb').glob('offline-run-*/*.wandb')
    wandb = Path(sys.executable).with_name('wandb')
    output = subprocess.run([wandb, 'leet', 'inspect', '--json', log], capture_output=True, encoding='utf-8',
                            check=True, env=clean_environment(home=folder)).stdout
    return [json.loads(line) for line in output.splitlines()]


def history(records):
    return [record['history'] for record in records if record['type'] == 'history']


def flat(item):
    """{name: value} of one history record, whatever nesting the reader prints."""
    found = {}

    def walk(value, path):
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, [*path, key])
        else:
            found['/'.join(path)] = value

    walk(item, [])
    return found


def value_of(item, name):
    [value] = [value for key, value in flat(item).items() if key.endswith(name)]
    return value


def test_the_config_holds_every_hyperparameter_the_device_and_the_size(tracked, records):
    output, _ = tracked
    [config] = [record['run']['config']['update'] for record in records if record['type'] == 'run']
    assert {name: config[name] for name in OPTIONS} == OPTIONS
    assert config['device'] == re.search('设备 (.+?)，', output)[1]
    assert f'{config["n_params"]:,} 个参数' in output


def test_the_curves_are_the_printed_losses(tracked, records):
    output, _ = tracked
    logged = [(round(value_of(item, 'train/loss'), 4), round(value_of(item, 'val/loss'), 4))
              for item in history(records)]
    assert logged == [(train, val) for _, train, val in losses(output)]
    assert [value_of(item, '_step') for item in history(records)] == [0, 20, 40]


def test_the_speed_is_the_printed_one(tracked, records):
    output, _ = tracked
    assert [round(value_of(item, 'tokens_per_second')) for item in history(records)] == speeds(output)


def test_poems_are_logged_as_the_run_goes(tracked, records):
    _, folder = tracked
    tables = [json.loads(path.read_text(encoding='utf-8')) for path in (folder / 'wandb').rglob('*.table.json')
              if 'latest-run' not in path.parts]
    rows = sorted((step, poem) for table in tables for step, poem in table['data'])
    assert [step for step, _ in rows] == [0, 0, 20, 20, 40, 40]
    assert all(poem[:2] in ('春江', '往事') and len(poem) == 32 for _, poem in rows)


def test_it_says_where_the_run_lies_and_how_to_see_it(tracked):
    output, folder = tracked
    for command in ['wandb leet', 'wandb sync']:
        assert Path(re.search(rf'{command} (\S+)', output)[1]).parent == folder / 'wandb'


@pytest.mark.parametrize('environment, runs', [
    ({'WANDB_MODE': 'disabled'}, 0),
    ({'WANDB_MODE': 'offline', 'WANDB_API_KEY': 'a' * 40}, 1),
    ({'WANDB_API_KEY': 'not-a-key'}, 1),
], ids=['disabled', 'offline', 'no key'])
def test_wandb_mode_wins_and_a_bad_key_is_no_obstacle(environment, runs, tmp_path, small_corpus):
    path = install(V12, tmp_path, corpus=small_corpus)
    result = run(path, *ARGS, env=clean_environment(**environment))
    assert result.returncode == 0, result.stderr
    assert len(list(tmp_path.glob('wandb/offline-run-*'))) == runs
    assert ('wandb sync' in result.stdout) == bool(runs)


def test_no_network_is_no_obstacle(tmp_path, small_corpus):
    """A key, but a server that can't be reached."""
    path = install(V12, tmp_path, corpus=small_corpus)
    environment = clean_environment(WANDB_API_KEY='a' * 40, WANDB_BASE_URL='http://127.0.0.1:9')
    result = run(path, *ARGS, env=environment)
    assert result.returncode == 0, result.stderr
    assert len(list(tmp_path.glob('wandb/offline-run-*'))) == 1


def test_a_mode_that_cannot_work_is_a_clear_error(tmp_path, small_corpus):
    path = install(V12, tmp_path, corpus=small_corpus)
    for mode in ['online', 'sideways']:
        result = run(path, *ARGS, env=clean_environment(WANDB_MODE=mode))
        assert result.returncode != 0
        assert 'Traceback' not in result.stderr and f'WANDB_MODE={mode}' in result.stderr
    assert not (tmp_path / 'model.pth').exists()
