"""The sampler as a user runs it: by tune and author, several poems at once, and clear words for what it can't do."""

import math
import re
import signal
import sys

import pytest
import torch

from kit.files import CORPUS, ROOT, read
from kit.form import Forms, form, parsed, split
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


def constrained(*args):
    """[poem] that a run with --constrain printed, the loss of what it wrote in the model's eyes, and how much the form costs."""
    result = run(*args, '--constrain')
    assert result.returncode == 0 and not result.stderr, result.stderr
    result.stdout, loss, cost = re.fullmatch(r'([\s\S]*\n\n)（[^（]*每字 ([\d.]+) nat，其中 ([\d.]+) .*）\n\n', result.stdout).groups()
    return poems_of(result)[0], float(loss), float(cost)


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


@pytest.fixture(scope='module')
def marks(sampler):
    """A model that writes each of 24 characters equally often; ten of them are none that a clause is made of."""
    return saved(sampler, '\n ·《》、。！，？浣溪沙菩萨蛮水调歌头苏轼一花')


def saved(sampler, vocabulary):
    path = sampler.with_name(f'{len(vocabulary)}.pth')
    torch.manual_seed(0)
    model = module_of(LADDERS['modern']['v20']).BabyGPT(len(vocabulary), **SIZES)
    torch.nn.init.zeros_(model.ln_f.weight)
    torch.save(checkpoint(model=model.state_dict(), vocabulary=''.join(sorted(vocabulary))), path)
    return path


@pytest.fixture(scope='module')
def forms():
    text = read(CORPUS)
    return Forms(split(text[:int(0.9 * len(text))]))


@pytest.mark.parametrize('options', [
    [], ['--author', '苏轼'], ['--temperature', 100], ['--temperature', 0.01, '--top_k', 3], ['--top_p', 0.1], ['--min_p', 1.0],
    ['--repetition_penalty', 100], ['--max_new_tokens', 130]],
    ids=lambda options: ' '.join(map(str, options)))
def test_with_constrain_every_poem_keeps_the_commonest_form(options, sampler, marks, forms):
    """However little the model knows: here each of its poems would break the form."""
    tunes = ['浣溪沙', '水调歌头', '菩萨蛮']
    poems, *_ = constrained(sampler, '--model', marks, '--tune', *tunes, '--num_samples', 10, '--seed', len(str(options)), *options)
    assert [parsed(poem)[0] for poem in poems] == [tune for tune in tunes for _ in range(10)] and len(set(poems)) > 20
    for poem in poems:
        tune, body = parsed(poem)
        assert forms.keeps(tune, body) and form(body) == forms.counts[tune].most_common(1)[0][0]
        assert re.fullmatch(r'\w+ \w{1,5}(\n(\w+[，、])*\w+[。！？])+', poem), poem


def test_one_poem_alone_is_constrained_too(sampler, marks, forms):
    [poem], loss, cost = constrained(sampler, '--model', marks, '--tune', '浣溪沙', '--temperature', 30)
    assert forms.keeps(*parsed(poem)) and 0 < cost < loss


def test_what_the_form_costs_is_what_the_model_gave_to_the_rest(sampler, marks):
    """A model that has learned nothing gives each of V characters 1 / V, so that both numbers can be worked out by hand."""
    size = len(torch.load(marks, weights_only=True)['vocabulary'])
    poems, loss, cost = constrained(sampler, '--model', marks, '--tune', '菩萨蛮', '--author', '苏轼', '--num_samples', 2)
    bodies = [f'{parsed(poem)[1]}\n\n' for poem in poems]
    letters = sum(char.isalpha() for body in bodies for char in body)
    others = sum(map(len, bodies)) - letters
    assert abs(loss - math.log(size)) < 0.006
    assert abs(cost - (letters * math.log(size / (size - 10)) + others * math.log(size)) / (letters + others)) < 0.006


CLAUSES = ['一一，花花花。', '一花。\n一一，花一。', '花、一。\n一，花花。']


def commonest_form(training, monkeypatch, tmp_path):
    """What the sampler finds where the training part of a corpus has those poems of the tune, beside others."""
    module = load(SAMPLER)
    monkeypatch.setattr(module, 'data_path', tmp_path / 'ci.txt')
    poems = [f'浣溪沙 苏轼\n{body if isinstance(body, str) else CLAUSES[body]}\n\n' for body in training]
    others = [f'{tune} 苏轼\n花花花花花花花花花花花花。\n\n' for tune in ['浣溪沙慢'] * 65 + ['浣溪沙'] * 7]
    text = ''.join(poems + others)
    assert sum(map(len, others[65:])) < 0.1 * len(text)
    module.data_path.write_text(text.rstrip('\n'), encoding='utf-8')
    return module.commonest_form('浣溪沙')


@pytest.mark.parametrize('training, expected', [
    ([1, 0, 1, 2, 0, 1], '字字。\n字字，字字。'),
    ([1, 0, 0, 0, 1, 2], '字字，字字字。'),
    ([2, 1, 1, 2, 2, 0], '字、字。\n字，字字。'),
    (['一一。', '一一。', '一，一。', '一。\n一。', '一。\n一。'], '字。\n字。'),  # the form counts, then how it is punctuated
], ids=str)
def test_the_commonest_form_is_that_of_the_training_part(training, expected, monkeypatch, tmp_path):
    """Not that of the poems after it, nor that of a tune whose name begins alike."""
    assert commonest_form(training, monkeypatch, tmp_path) == expected


@pytest.mark.parametrize('training', [[], [0], [0, 1, 2]], ids=str)
def test_a_tune_no_two_of_whose_poems_agree_has_no_form(training, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match='「浣溪沙」.*--constrain'):
        commonest_form(training, monkeypatch, tmp_path)


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
    (['--constrain'], ['--constrain', '--tune']),
    (['--constrain', '--prompt', '一'], ['--constrain', '--tune']),
    (['--constrain', '--tune', '无此调'], ['词牌「无此调」', '浣溪沙']),
    (['--constrain', '--tune', '菩萨蛮', '--max_new_tokens', 50], ['--max_new_tokens', '句式']),
    (['--constrain', '--tune', '浣溪沙'], ['，']),  # its mark is none that this model knows
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
    (checkpoint('babygpt_bpe'), ['babygpt_bpe', 'v20']),
    ({name: value for name, value in checkpoint().items() if name != 'rung'}, ['v12', 'v20']),
    ([1], ['没有模型的参数']),
    (checkpoint(vocabulary=VOCABULARY[1:]), ['对不上', 'lm_head']),
    (checkpoint(hyper_params={}), ["没有 'dropout'"]),
    (b'', ['残缺']),
    (b'no model', ['残缺']),
    (None, ['找不到']),
], ids=['v19', 'bpe', 'v12', 'list', 'short vocabulary', 'no sizes', 'empty', 'text', 'missing'])
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
