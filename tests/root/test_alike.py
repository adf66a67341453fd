"""What every rung has in common and a reader relies on: the same settings, the same errors, speeds that are speeds."""

import re
import time

import pytest
import torch

from kit.experiments import own_constants
from kit.ladders import LADDERS
from kit.scripts import build, install, module_of, run

LADDER = LADDERS['root']
PLAIN = [rung for rung in LADDER.numbered if not rung.reached('v11')]
RUNGS = pytest.mark.parametrize('rung', LADDER.numbered, ids=str)


@pytest.mark.parametrize('rung', PLAIN[1:], ids=str)
def test_settings_are_those_of_the_rung_below(rung):
    """Or the losses of the ladder could not be compared."""
    below, own = own_constants(rung.below), own_constants(rung)
    assert {name: own[name] for name in below} == below


def test_settings_are_those_that_the_ladder_is_designed_for():
    assert {name: value for name, value in own_constants(PLAIN[-1]).items() if name != 'prompts'} == {
        'batch_size': 8, 'block_size': 32, 'n_embd': 64, 'n_head': 4, 'n_layer': 3, 'dropout': 0.1,
        'learning_rate': 4e-3, 'max_iters': 3000, 'eval_interval': 500, 'eval_iters': 100, 'train_ratio': 0.9,
        'max_new_tokens': 100, 'seed': 1337}


@RUNGS
def test_a_text_that_cannot_be_used_is_refused(rung, tmp_path):
    read_text, path = module_of(rung).read_text, tmp_path / 'text.txt'
    with pytest.raises(SystemExit, match=r'text\.txt'):
        read_text(path, 0.9, 32)
    path.write_bytes('春江潮水连海平。'.encode('gb18030') * 100)
    with pytest.raises(SystemExit, match='UTF-8'):
        read_text(path, 0.9, 32)
    path.write_text('春' * 320, encoding='utf-8')
    with pytest.raises(SystemExit, match='320'):
        read_text(path, 0.9, 32)
    path.write_text('春' * 330, encoding='utf-8-sig')
    assert read_text(path, 0.9, 32) == '春' * 330


@RUNGS
def test_only_what_is_learned_is_stored(rung):
    model = build(rung)
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


def test_the_speed_of_the_sampler_is_characters_by_seconds():
    started = time.perf_counter()
    output = run(LADDER['babygpt_sample_with_kvcache'].file, '--prompt', '春江', '--max_new_tokens', 30).stdout
    said = int(re.search(r'（30 字，每秒 ([\d,]+) 字）', output)[1].replace(',', ''))
    assert 30 / (time.perf_counter() - started) - 1 <= said < 1e5


@pytest.mark.parametrize('name', ['v11', 'v12'])
def test_options_are_not_abbreviated(name, tmp_path):
    result = run(install(LADDER[name].path, tmp_path), '--n_lay', '1')
    assert result.returncode == 2 and '--n_lay' in result.stderr


@pytest.mark.parametrize('name', ['v11', 'v12'])
@pytest.mark.parametrize('option', ['--dropout', '--train_ratio'])
def test_a_share_above_one_is_refused(name, option, tmp_path):
    result = run(install(LADDER[name].path, tmp_path), option, '1.5')
    assert result.returncode == 2 and option in result.stderr


def test_the_smallest_seed_that_is_too_large_is_refused(tmp_path):
    result = run(install(LADDER['babygpt_sample_with_kvcache'].path, tmp_path), '--seed', 2 ** 63)
    assert result.returncode == 2 and '--seed' in result.stderr
    assert torch.manual_seed(2 ** 63 - 1)
