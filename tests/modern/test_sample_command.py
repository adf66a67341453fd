"""The sampler as a user runs it: by tune and author, several poems at once, and clear words for what it can't do."""

import re
import signal
import sys

import pytest
import torch

from kit.files import CORPUS, ROOT
from kit.ladders import LADDERS
from kit.scripts import install, load, module_of, run, start

SAMPLER = 'modern/babygpt_sample.py'
SIZES = {'block_size': 16, 'n_embd': 8, 'n_head': 2, 'n_kv_head': 1, 'n_layer': 1, 'dropout': 0.1}
VOCABULARY = ''.join(sorted('\n 浣溪沙菩萨蛮苏轼一。'))


def checkpoint(rung='babygpt_v20_tied_embedding', **changes):
    """A model that has learned nothing and writes each of its characters equally often: a blank line comes soon."""
    torch.manual_seed(0)
    model = module_of(LADDERS['modern']['v20']).BabyGPT(len(VOCABULARY), **SIZES)
    torch.nn.init.zeros_(model.ln_f.weight)
    return {'rung': rung, 'model': model.state_dict(), 'hyper_params': SIZES, 'vocabulary': VOCABULARY} | changes


@pytest.fixture(scope='module')
def sampler(tmp_path_factory):
    path = install(SAMPLER, tmp_path_factory.mktemp('sampler'))
    torch.save(checkpoint(), path.with_name('model.pth'))
    return path


def poems_of(result):
    """[poem] that a run printed, and how many poems and characters it says it wrote."""
    assert result.returncode == 0 and not result.stderr, result.stderr
    text, poems, chars = re.fullmatch(r'([\s\S]*)\n（(\d+) 首，([\d,]+) 字，每秒 [\d,]+ 字）\n\n', result.stdout).groups()
    return text.strip('\n').split('\n\n'), int(poems), int(chars)


def test_a_poem_begins_with_its_title_and_ends_at_the_blank_line(sampler):
    [poem], poems, chars = poems_of(run(sampler, '--tune', '浣溪沙', '--max_new_tokens', 5000, '--seed', 1))
    assert poem.startswith('浣溪沙 ') and poems == 1
    assert len(poem) - len('浣溪沙 ') <= chars < 5000  # beyond it only the blank line
    [poem], *_ = poems_of(run(sampler, '--tune', '浣溪沙', '--author', '苏轼', '--max_new_tokens', 5000, '--seed', 2))
    assert poem.startswith('浣溪沙 苏轼\n')


def test_several_tunes_and_samples_are_written_in_one_batch(sampler):
    options = ['--tune', '浣溪沙', '菩萨蛮', '--num_samples', 3, '--max_new_tokens', 5000]
    first, second, other = (poems_of(run(sampler, *options, '--seed', seed)) for seed in (1, 1, 2))
    assert [poem[:4] for poem in first[0]] == ['浣溪沙 '] * 3 + ['菩萨蛮 '] * 3 and first[1] == 6
    assert first == second and first != other and len(set(first[0])) > 3
    lost = first[2] - sum(len(poem) - len('浣溪沙 ') for poem in first[0])
    assert lost >= 2 * 6  # each of the six came to its blank line, which is not printed


def test_the_filters_are_heard(sampler):
    """Only the likeliest is left: whatever the seed, the same text."""
    model = checkpoint()
    model['model']['ln_f.weight'] = torch.ones(8)  # now one is likelier than the others
    torch.save(model, sampler.with_name('other.pth'))
    for options in (['--top_k', 1], ['--top_p', 1e-9]):
        a, b = (poems_of(run(sampler, '--model', sampler.with_name('other.pth'), '--tune', '浣溪沙', '--max_new_tokens', 20,
                             '--seed', seed, *options))[0] for seed in (1, 2))
        assert a == b


def test_any_text_can_be_a_beginning(sampler):
    [poem], *_ = poems_of(run(sampler, '--prompt', '一。浣', '--max_new_tokens', 3))
    assert poem.startswith('一。浣')


def test_it_asks_until_an_empty_line(sampler):
    result = run(sampler, '--max_new_tokens', 5, text='浣溪沙\n浣Z\n菩萨蛮 苏轼\n\n')
    assert result.returncode == 0 and not result.stderr
    assert result.stdout.count('（1 首，') == 2 and 'Z' in result.stdout and result.stdout.count('直接回车') == 4


def assert_clear(result, *words):
    assert result.returncode not in (0, None) and 'Traceback' not in result.stderr + result.stdout
    assert_said(result.stderr, words)


def assert_said(text, words):
    assert 0 < len(text.strip().splitlines()) <= 2, text
    assert all(word in text for word in words), text


@pytest.fixture
def refused(sampler, monkeypatch, capsys):
    """Run main() with those options in this process: it must leave, and say no more than two lines with these words."""
    def run_main(options, words):
        monkeypatch.setattr(sys, 'argv', ['babygpt_sample.py', *map(str, options)])
        with pytest.raises(SystemExit) as left:
            load(sampler).main()
        assert left.value.code not in (0, None)
        assert_said(capsys.readouterr().err + (left.value.code if isinstance(left.value.code, str) else ''), words)
    return run_main


@pytest.mark.parametrize('options, words', [
    (['--tune', '无此调'], ['词牌「无此调」', '浣溪沙']),
    (['--tune', '浣溪沙', '无此调'], ['词牌「无此调」']),
    (['--tune', '浣溪沙', '--author', '李白甫'], ['作者「李白甫」']),
    (['--tune', '水调歌头'], ['头 歌 水 调']),  # known to the corpus, not to this model
    (['--author', '苏轼'], ['--tune']),
    (['--tune', '浣溪沙', '--prompt', '一'], ['--prompt', '--tune']),
    (['--prompt', ''], ['--prompt']),
    (['--prompt', '一Q'], ['Q']),
    (['--tune'], ['--tune']),
    (['--num_samples', 0], ['num_samples']),
    (['--max_new_tokens', 0], ['max_new_tokens']),
    (['--top_k', 0], ['top_k']),
    (['--top_p', 0], ['top_p']),
    (['--top_p', 1.1], ['top_p']),
    (['--top_p', 'nan'], ['top_p']),
    (['--min_p', -0.1], ['min_p']),
    (['--temperature', 0], ['temperature']),
    (['--repetition_penalty', 0], ['repetition_penalty']),
    (['--repetition_penalty', 'nan'], ['repetition_penalty']),
    (['--seed', -1], ['seed']),
    (['--top', 3], ['--top']),
], ids=lambda value: ' '.join(map(str, value))[:30])
def test_what_it_cannot_do_it_says(refused, options, words):
    refused(options, words)


def test_it_says_so_on_stderr_and_with_an_exit_code(sampler):
    assert_clear(run(sampler, '--tune', '无此调'), '词牌「无此调」')
    assert_clear(run(sampler, '--tune', '浣溪沙', '--top_p', 2), 'top_p')


@pytest.mark.parametrize('content, words', [
    (checkpoint('babygpt_v19_qk_norm'), ['babygpt_v19_qk_norm', 'v20']),
    ({name: value for name, value in checkpoint().items() if name != 'rung'}, ['v12', 'v20']),
    ([1], ['没有模型的参数']),
    (checkpoint(vocabulary=VOCABULARY[1:]), ['对不上', 'lm_head']),
    (checkpoint(hyper_params={}), ["没有 'dropout'"]),
    (b'', ['残缺']),
    (b'no model', ['残缺']),
    (None, ['找不到']),
], ids=['v19', 'v12', 'list', 'short vocabulary', 'no sizes', 'empty', 'text', 'missing'])
def test_a_model_of_another_kind_is_named(refused, content, words, tmp_path):
    path = tmp_path / 'model.pth'
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    refused(['--model', path, '--tune', '浣溪沙'], ['model.pth', *words])


def test_the_model_of_the_root_is_named_as_such(refused):
    refused(['--model', ROOT / 'pretrained' / 'model.pth', '--tune', '浣溪沙'], ['v12', 'v20'])


def test_without_a_model_of_ones_own_the_pretrained_one_writes_and_without_both_it_says_so(tmp_path):
    path = install(SAMPLER, tmp_path)
    assert_clear(run(path, '--prompt', '一'), 'model_v20.pth', 'babygpt_v20_tied_embedding.py')
    (tmp_path / 'pretrained').mkdir()
    torch.save(checkpoint(), tmp_path / 'pretrained' / 'model_v20.pth')
    result = run(path, '--prompt', '一', '--max_new_tokens', 3)
    assert result.returncode == 0 and 'pretrained/model_v20.pth' in result.stdout.splitlines()[0]


def test_without_the_corpus_it_says_how_to_go_on(tmp_path):
    path = install(SAMPLER, tmp_path)
    (tmp_path / CORPUS.name).unlink()
    torch.save(checkpoint(), path.with_name('model.pth'))
    assert_clear(run(path, '--tune', '浣溪沙'), 'ci.txt', '--prompt')
    assert run(path, '--prompt', '一', '--max_new_tokens', 3).returncode == 0


def test_it_streams_and_stops_quietly_at_ctrl_c(tmp_path):
    path = install(SAMPLER, tmp_path)
    vocabulary = VOCABULARY.replace('\n', '花')  # no blank line ever comes
    torch.save(checkpoint(vocabulary=vocabulary), path.with_name('model.pth'))
    process = start(path, '--prompt', '一', '--max_new_tokens', 10_000_000)
    try:
        assert process.stdout.read(30).startswith('一') and process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0 and not err, err


@pytest.mark.parametrize('rung, kept', [
    *((rung, {}) for rung in LADDERS['modern'].since('v20')),
    *((rung, {'optimizer': {'state': {}}, 'step': 3}) for rung in LADDERS['modern'].since('v22'))])
def test_what_the_rungs_from_v20_on_save_is_read(rung, kept, sampler, monkeypatch, tmp_path):
    """As they pack it; a checkpoint has more in it, which the sampler and the export leave alone."""
    module, export = load(rung.path), load('modern/export_hf.py')
    for name, value in SIZES.items():
        monkeypatch.setattr(module, name, value)
    model, path = module.BabyGPT(len(VOCABULARY), **SIZES), tmp_path / 'saved.pth'
    path.write_bytes(module.pack(model, module.Tokenizer(VOCABULARY), **kept))
    read, tokenizer = load(sampler).load_model(path)
    assert tokenizer.chars == [*VOCABULARY]
    assert all(torch.equal(value, read.state_dict()[name]) for name, value in model.state_dict().items())
    assert export.load_checkpoint(path)['rung'] == rung.stem
