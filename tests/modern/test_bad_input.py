"""Bad input, as a user gives it: clear text, an exit code that is not 0, no traceback, nothing written."""

import re
import signal
import sys
from itertools import count

import pytest
import torch

from kit.scripts import install, load, losses, run, start
from tests.modern.models import ALL, LADDER, POEMS, TUNES
from tests.root.test_bad_input import IMPOSSIBLE, POSIX, assert_clear, wait_for

V13, V20, V21 = LADDER['v13'], LADDER['v20'], LADDER['v21']
TEXT = ''.join(POEMS)
SMALL = ['--batch_size', 8, '--block_size', 24, '--n_embd', 24, '--n_head', 6, '--n_layer', 1, '--max_iters', 8,
         '--eval_interval', 4, '--eval_iters', 2, '--max_new_tokens', 20]
WARM = ['--warmup_iters', 2]


def options_of(rung):
    return SMALL + (WARM if rung.reached('v14') else []) + (['--precision', 'float32'] if rung.reached('v21') else [])


class Told:
    """What main() printed and ended with, in this process: that is enough where it must stop before anything happens."""

    def __init__(self, path, monkeypatch, capfd, *options):
        monkeypatch.setattr(sys, 'argv', [path.name, *map(str, options)])
        monkeypatch.setenv('WANDB_MODE', 'disabled')
        self.returncode = 0
        before = signal.getsignal(signal.SIGINT)
        try:
            load(path).main()
        except SystemExit as error:
            self.returncode = error.code if isinstance(error.code, int) else 1
            if isinstance(error.code, str):
                print(error.code, file=sys.stderr)
        finally:
            signal.signal(signal.SIGINT, before)
        self.stdout, self.stderr = capfd.readouterr()


@pytest.fixture
def tell(monkeypatch, capfd, tmp_path):
    """Ask a rung, in a folder of its own, with this text: nothing, bytes, or a folder in its place, too."""
    folders = count()

    def ask(rung, *options, text=TEXT):
        folder = tmp_path / str(next(folders))
        path, corpus = install(rung.path, folder, corpus=text if isinstance(text, str) else ''), folder / 'ci.txt'
        if not isinstance(text, str):
            corpus.unlink()
        if isinstance(text, bytes):
            corpus.write_bytes(text)
        if text is list:
            corpus.mkdir()
        told = Told(path, monkeypatch, capfd, *options)
        told.files = {file.relative_to(folder).as_posix() for file in folder.rglob('*') if file.is_file() and '__pycache__' not in file.parts}
        return told
    return ask


def assert_stopped(told, rung, *words):
    assert_clear(told, *words)
    assert not told.stdout and told.files <= {rung.path, 'ci.txt'}


@pytest.mark.parametrize('since, options, word', [
    ('v13', ['--n_embd', 30, '--n_head', 4], 'n_embd'),
    ('v14', ['--warmup_iters', 8, '--max_iters', 8], 'warmup_iters'),
    ('v14', ['--warmup_iters', 0], 'warmup_iters'),
    ('v16', ['--n_embd', 30, '--n_head', 6], '奇数'),
    ('v18', ['--n_kv_head', 4], 'n_kv_head'),
    ('v18', ['--n_kv_head', 12], 'n_kv_head'),
    ('v18', ['--n_kv_head', 0], 'n_kv_head'),
], ids=str)
def test_sizes_that_do_not_fit(since, options, word, tell):
    for rung in LADDER.since(since):
        assert_stopped(tell(rung, *options_of(rung), *options), rung, word)


@pytest.mark.parametrize('options, word', IMPOSSIBLE,
                         ids=lambda value: ''.join(map(str, value))[:30])
def test_impossible_hyperparameters(options, word, tell):
    """The root's list; a block of that length is a fault where its mask does not fit into memory."""
    for rung in (V13, V20):
        assert_stopped(tell(rung, *options), rung, word)


@pytest.mark.parametrize('options, word', [
    (['--block_size', 10 ** 12], 'GB'), (['--precision', 'float16'], 'float16'), (['--preset', 'gpu9'], 'gpu24'), (['--preset'], 'preset'),
    (['--compile', 3], '3'), (['--preset', 'gpu8', '--n_head', 5], 'n_head'),
], ids=str)
def test_what_v21_can_not_do(options, word, tell):
    for rung in LADDER.since('v21'):
        assert_stopped(tell(rung, *options), rung, word)


@pytest.mark.parametrize('text, words', [
    (None, []), (list, []), (b'', ['太少']), (TEXT.encode('gbk'), ['UTF-8']), (POEMS[0], ['太少']), ('\n\n\n', ['太少']), ('春', ['太少']),
], ids=['missing', 'a folder', 'empty', 'not UTF-8', 'one poem', 'blank', 'one character'])
def test_unusable_texts(text, words, tell):
    for rung in (V13, V20):
        assert_stopped(tell(rung, text=text), rung, 'ci.txt', *words)


def test_a_prompt_that_the_text_does_not_know(tell):
    assert_stopped(tell(V20, *options_of(V20), '--prompts', '浣溪沙', '春Z'), V20, 'Z')


@pytest.mark.parametrize('rung', [V13, LADDER['v17'], V20])
def test_a_model_too_large_for_the_memory(rung, tell):
    """It says about how much it would need: 16 bytes for each parameter."""
    given = {'n_embd': 60_000_000, 'n_head': 6, 'n_layer': 1}
    told = tell(rung, *[word for name, value in given.items() for word in (f'--{name}', value)])
    assert_stopped(told, rung, 'GB')
    sizes = {'vocab_size': len(set(TEXT)), 'block_size': 24, 'dropout': 0.0, 'n_kv_head': 2} | given
    with torch.device('meta'):
        model = load(rung.path).BabyGPT(**{name: sizes[name] for name in rung.arguments})
    needed = 16 * sum(p.numel() for p in model.parameters()) / 1e9
    assert float(re.search(r'([\d,]+) GB', told.stderr)[1].replace(',', '')) == pytest.approx(needed, rel=0.01)


@ALL
def test_help_lists_every_hyperparameter(rung, tell):
    told = tell(rung, '--help')
    assert told.returncode == 0 and not told.stderr
    names = [*re.findall(r'--([a-z_]+) 值', told.stdout)]
    expected = {'batch_size', 'block_size', 'n_embd', 'n_head', 'n_layer', 'dropout', 'learning_rate', 'max_iters', 'eval_interval',
                'eval_iters', 'train_ratio', 'max_new_tokens', 'seed', *['warmup_iters'] * rung.reached('v14'), *['n_kv_head'] * rung.reached('v18')}
    assert len(names) == len(set(names)) and set(names) == expected


# What is unusual, and works

def test_a_text_without_blank_lines_is_rows_of_block_size(tell):
    text = 'To be, or not to be, that is the question:\n' * 40
    for rung in (V13, V20):
        told = tell(rung, *options_of(rung), text=text)
        assert told.returncode == 0 and not told.stderr, told.stderr
        rows = -(-(len(text) - 1) // 24)
        train = int(0.9 * rows)
        assert f'训练集 {train:,} 首，验证集 {rows - train:,} 首，0 首太长' in told.stdout
        assert told.stdout.count('\nTo') == 1  # the prompts of ci.txt are not in this text: it starts as the text does


def test_poems_longer_than_the_block_are_counted(tell):
    for rung in (V13, V20):
        long = sum(len(poem) > 25 for poem in POEMS)
        assert f'{long} 首太长，只看前 24 字' in tell(rung, *options_of(rung)).stdout and long > 5
        assert '，0 首太长' in tell(rung, *options_of(rung), '--block_size', max(map(len, POEMS)) - 1).stdout


def test_prompts_can_be_chosen(tell):
    told = tell(V20, *options_of(V20), '--prompts', TUNES[2], f'{TUNES[3]} 甲')
    assert told.returncode == 0 and all(f'\n\n{prompt}' in told.stdout for prompt in (TUNES[2], f'{TUNES[3]} 甲'))


@ALL
def test_the_same_seed_gives_the_same_losses(rung, tell):
    first, second, other = (tell(rung, *options_of(rung), '--dropout', 0.1, '--seed', seed) for seed in (5, 5, 6))
    assert [step for step, *_ in losses(first.stdout)] == [0, 4, 8]
    assert losses(first.stdout) == losses(second.stdout) != losses(other.stdout)


# As a user runs it

@pytest.mark.parametrize('rung', [V13, V20])
def test_a_run_saves_a_model_that_says_its_rung_and_can_be_rebuilt(rung, tmp_path):
    path = install(rung.path, tmp_path, corpus=TEXT)
    first = run(path, *options_of(rung))
    assert first.returncode == 0 and 'Traceback' not in first.stderr, first.stderr
    saved, module = path.with_name('model.pth'), load(path)
    before, checkpoint = saved.read_bytes(), torch.load(saved, weights_only=True)
    assert checkpoint['rung'] == path.stem
    tokenizer = module.Tokenizer(checkpoint['vocabulary'])
    assert tokenizer.chars == sorted(set(TEXT))
    model = module.BabyGPT(tokenizer.vocab_size, **checkpoint['hyper_params'])
    model.load_state_dict(checkpoint['model'])
    table = module.pad([poem[:25] for poem in POEMS], tokenizer)
    cut = int(0.9 * len(table))
    assert module.estimate_loss(model, table[:cut], table[cut:], 2, 8)['val'] == pytest.approx(min(val for *_, val in losses(first.stdout)[1:]), abs=1e-4)
    assert 'wandb sync' in first.stdout and len([*path.parent.glob('wandb/offline-run-*')]) == 1

    assert run(path, *options_of(rung), '--seed', 2).returncode == 0
    assert path.with_name('model.prev.pth').read_bytes() == before != saved.read_bytes()


@POSIX
def test_ctrl_c_evaluates_saves_and_stops(tmp_path):
    path = install(V20.path, tmp_path, corpus=TEXT)
    process = start(path, *options_of(V20), '--max_iters', 10_000_000, '--eval_interval', 100)
    wait_for(process, '第   100 步')
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0 and 'Traceback' not in stderr, stderr
    assert len(losses(stdout[stdout.index('Ctrl-C'):])) == 1  # it is evaluated once more, and then stops
    assert torch.load(path.with_name('model.pth'), weights_only=True)['rung'] == path.stem


def test_a_fault_ends_the_process_without_a_traceback(tmp_path):
    path = install(V20.path, tmp_path, corpus=POEMS[0])
    assert_clear(run(path), 'ci.txt', lines=1)
    assert {file.name for file in tmp_path.iterdir()} == {'modern', 'ci.txt'}


@pytest.mark.parametrize('rung', [V13, V20])
def test_what_is_tracked_is_what_is_printed(rung, monkeypatch, capfd, tmp_path):
    """The tracking itself is v12's, to the byte (test_diffs.py)."""
    module, records = load(install(rung.path, tmp_path, corpus=TEXT)), []
    tracking = type('Run', (), {'log': lambda _, values, step: records.append((step, values)), 'finish': lambda _: None, 'offline': False})
    monkeypatch.setattr(module, 'start_tracking', lambda config: records.append(config) or tracking())
    monkeypatch.setattr(sys, 'argv', [module.__file__, *map(str, options_of(rung))])
    monkeypatch.setattr(module.wandb, 'Table', lambda columns, data: data)
    before = signal.getsignal(signal.SIGINT)
    module.main()
    signal.signal(signal.SIGINT, before)
    printed = capfd.readouterr().out
    config, *logged = records
    assert {'batch_size', 'block_size', 'n_embd', 'seed', 'device', 'n_params', *['warmup_iters', 'n_kv_head'] * (rung is V20)} <= config.keys()
    assert f'{config["n_params"]:,} 个参数' in printed
    assert [(step, round(values['train/loss'], 4), round(values['val/loss'], 4)) for step, values in logged] == losses(printed)
    for step, values in logged:
        assert [row[0] for row in values['poems']] == [step] * 2 and all(row[1].startswith(tune) for row, tune in zip(values['poems'], TUNES, strict=False))
        assert all('\n\n' not in row[1] for row in values['poems'])
