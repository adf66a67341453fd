"""Bad input, given as a user would: clear text on stderr, an exit code that is not 0, no traceback, nothing lost."""

import os
import pickle
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kit.ladders import LADDERS
from kit.scripts import clean_environment, install, load, losses, run, start

V1, V11, V12 = 'babygpt_v1.py', 'babygpt_v11_hyper_params.py', 'babygpt_v12_wandb.py'
SAMPLER = 'babygpt_sample_with_kvcache.py'

FOUR_STEPS = ['--batch_size', 2, '--block_size', 8, '--n_embd', 8, '--n_head', 2, '--n_layer', 1, '--max_iters', 4,
        '--eval_interval', 2, '--eval_iters', 1, '--max_new_tokens', 4]
FOREVER = [*FOUR_STEPS, '--max_iters', 10_000_000, '--eval_interval', 1000]
POSIX = pytest.mark.skipif(os.name != 'posix', reason='needs the signals and limits of POSIX')
TEXT = '春江花月夜，往事知多少。\n' * 30


def assert_clear(result, *words, lines=2):
    assert result.returncode not in (0, None)
    assert 'Traceback' not in result.stderr and 'Traceback' not in result.stdout
    said = result.stderr.strip()
    assert said and len(said.splitlines()) <= lines, result.stderr
    for word in words:
        assert word in said, said


# ci.txt

CORPORA = {'missing': None, 'empty': b'', 'not UTF-8': TEXT.encode('gbk'), 'too short': '春江往事。\n'.encode() * 5,
           'a folder': 'folder'}
READERS = ['simplemodel.py', 'simplebigrammodel.py', 'simplebigrammodel_torch.py', V1]
# read_text is the same in all rungs, to the byte (test_diffs.py): one fault shows that each of them calls it
UNUSABLE = [(script, fault) for script in READERS for fault in CORPORA
            if (script, fault) != ('simplemodel.py', 'too short')]  # two characters are enough for counting
UNUSABLE += [(script, 'too short') for script in (rung.path for rung in LADDERS['root'].numbered)]


@pytest.mark.parametrize('script, fault', UNUSABLE)
def test_unusable_corpus(script, fault, tmp_path):
    path = install(script, tmp_path)
    corpus = tmp_path / 'ci.txt'
    corpus.unlink()
    if CORPORA[fault] == 'folder':
        corpus.mkdir()
    elif CORPORA[fault] is not None:
        corpus.write_bytes(CORPORA[fault])
    assert_clear(run(path), 'ci.txt')


# Hyperparameters

IMPOSSIBLE = [
    (['--n_lair', 3], 'n_lair'),
    (['--n_lay', 3], 'n_lay'),  # an abbreviation is not a name
    (['7'], '7'),
    (['--n_layer', 'many'], 'n_layer'),
    (['--n_layer', '2.5'], 'n_layer'),
    (['--n_layer'], 'n_layer'),
    (['--n_layer', 0], 'n_layer'),
    (['--n_layer', -1], 'n_layer'),
    (['--n_head', 0], 'n_head'),
    (['--n_embd', 0], 'n_embd'),
    (['--n_embd', 30, '--n_head', 4], 'n_embd'),
    (['--batch_size', 0], 'batch_size'),
    (['--block_size', 0], 'block_size'),
    (['--block_size', 200_000], 'block_size'),
    (['--dropout', 1], 'dropout'),
    (['--dropout', -0.1], 'dropout'),
    (['--dropout', 'nan'], 'dropout'),
    (['--learning_rate', 0], 'learning_rate'),
    (['--learning_rate', 'nan'], 'learning_rate'),
    (['--learning_rate', 10], 'learning_rate'),
    (['--max_iters', 0], 'max_iters'),
    (['--eval_interval', 0], 'eval_interval'),
    (['--eval_iters', 0], 'eval_iters'),
    (['--train_ratio', 1], 'train_ratio'),
    (['--train_ratio', 0], 'train_ratio'),
    (['--max_new_tokens', 0], 'max_new_tokens'),
    (['--seed', 'x'], 'seed'),
    (['--seed', 2 ** 70], 'seed'),
    (['--data', 'no_such_file.txt'], 'no_such_file.txt'),
    (['--prompts', '春Z'], 'Z'),
    (['--prompts', ''], 'prompts'),
]


@pytest.mark.parametrize('options, word', IMPOSSIBLE, ids=lambda value: ''.join(map(str, value))[:30])
def test_impossible_hyperparameters(options, word, tmp_path):
    assert_stops_before_anything_happens(V11, options, word, tmp_path)


@pytest.mark.parametrize('options, word', IMPOSSIBLE[::8], ids=lambda value: ''.join(map(str, value))[:30])
def test_impossible_hyperparameters_are_not_tracked(options, word, tmp_path):
    assert_stops_before_anything_happens(V12, options, word, tmp_path)


def assert_stops_before_anything_happens(script, options, word, tmp_path, lines=2):
    result = run(install(script, tmp_path), *options)
    assert_clear(result, word, lines=lines)
    assert not result.stdout  # before anything is trained
    assert {item.name for item in tmp_path.iterdir()} == {script, 'ci.txt'}
    return result.stderr


@pytest.mark.parametrize('script', [V11, V12])
@pytest.mark.parametrize('options', [[], ['--n_layer', 7, '--n_head', 8]], ids=['wide', 'deep'])
def test_a_model_too_large_for_the_memory(script, options, tmp_path):
    """Four numbers of 4 bytes for each parameter: weights, gradients and the two moments of AdamW."""
    said = assert_stops_before_anything_happens(script, ['--n_embd', 60_000_000, *options], 'GB', tmp_path, lines=1)
    given, module = dict(zip(options[::2], options[1::2], strict=True)), load(script)
    with torch.device('meta'):  # shapes only
        model = module.BabyGPT(4543, module.block_size, 60_000_000, given.get('--n_head', module.n_head),
                               given.get('--n_layer', module.n_layer), 0.0)
    needed = 16 * sum(p.numel() for p in model.parameters()) / 1e9
    assert float(re.search(r'([\d,]+) GB', said)[1].replace(',', '')) == pytest.approx(needed, rel=0.01)


def test_a_size_past_all_integers_is_too_large_too(tmp_path):
    assert_stops_before_anything_happens(V11, ['--n_embd', 6 * 10 ** 17], 'GB', tmp_path, lines=1)


# The sampler

@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """The bytes of a model.pth that v12 made."""
    folder = tmp_path_factory.mktemp('checkpoint')
    result = run(install(V12, folder, corpus=TEXT), *FOUR_STEPS)
    assert result.returncode == 0, result.stderr
    return (folder / 'model.pth').read_bytes()


@pytest.fixture
def sampler(tmp_path, checkpoint):
    path = install(SAMPLER, tmp_path)
    (tmp_path / 'model.pth').write_bytes(checkpoint)
    return path


def test_sampler_works_on_this_checkpoint(sampler):
    assert run(sampler, '--prompt', '春江', '--max_new_tokens', 3).returncode == 0


def test_no_model_at_all_says_what_to_run(sampler):
    (sampler.parent / 'model.pth').unlink()
    assert_clear(run(sampler, '--prompt', '春江'), 'pretrained', 'model.pth', 'babygpt_v12_wandb.py')


def test_a_broken_pretrained_model_is_named(sampler, checkpoint):
    (sampler.parent / 'model.pth').unlink()
    (sampler.parent / 'pretrained').mkdir()
    (sampler.parent / 'pretrained' / 'model.pth').write_bytes(checkpoint[:1000])
    assert_clear(run(sampler, '--prompt', '春江'), str(Path('pretrained', 'model.pth')))


class Evil:
    def __reduce__(self):
        return os.mkdir, ('owned',)


def with_sizes(**sizes):
    def change(checkpoint):
        checkpoint['hyper_params'].update(sizes)
        return checkpoint
    return change


def without(key):
    def change(checkpoint):
        del checkpoint[key]
        return checkpoint
    return change


@pytest.mark.parametrize('change, cause', [
    (with_sizes(n_embd=16), '对不上（size mismatch for lm_head.weight'),
    (with_sizes(n_layer=2), '对不上（Missing key(s) in state_dict: "blocks.1.'),
    (with_sizes(n_head=0), 'by zero'),
    (with_sizes(n_embd='wide'), 'str'),
    (without('model'), "里没有 'model'"),
    (without('vocabulary'), "里没有 'vocabulary'"),
    (without('hyper_params'), "里没有 'hyper_params'"),
    (lambda checkpoint: checkpoint | {'hyper_params': {}}, "里没有 'dropout'"),
    (lambda checkpoint: checkpoint | {'hyper_params': 7}, 'int'),
    (lambda checkpoint: checkpoint | {'vocabulary': 7}, 'int'),
    (lambda checkpoint: checkpoint | {'vocabulary': checkpoint['vocabulary'][1:]}, '对不上（size mismatch for lm_head.bias'),
    (lambda checkpoint: [checkpoint], 'list'),
    (lambda checkpoint: checkpoint['model'], "里没有 'vocabulary'"),
], ids=['other width', 'other depth', 'no heads', 'odd width', 'no weights', 'no vocabulary', 'no sizes', 'empty sizes',
        'odd sizes', 'odd vocabulary', 'short vocabulary', 'a list', 'weights only'])
def test_models_of_another_kind(sampler, change, cause):
    path = sampler.parent / 'model.pth'
    torch.save(change(torch.load(path, weights_only=True)), path)
    assert_clear(run(sampler, '--prompt', '春江'), 'model.pth', 'babygpt_v12_wandb.py', cause, lines=1)


@pytest.mark.parametrize('share', [0, 0.01, 0.5, 0.99])
def test_truncated_model(sampler, checkpoint, share):
    (sampler.parent / 'model.pth').write_bytes(checkpoint[:int(share * len(checkpoint))])
    assert_clear(run(sampler, '--prompt', '春江'), 'model.pth', '残缺', lines=1)


@pytest.mark.parametrize('write', [
    lambda path: path.write_bytes(pickle.dumps(Evil())),
    lambda path: torch.save({'model': Evil()}, path),
    lambda path: path.write_text('not a model'),
], ids=['pickle', 'torch', 'text'])
def test_a_pickle_that_tries_to_run_code_does_not_run(sampler, write):
    write(sampler.parent / 'model.pth')
    assert_clear(run(sampler, '--prompt', '春江'), 'model.pth', '残缺', lines=3)  # torch warns of a pickle on a line of its own
    assert not (sampler.parent / 'owned').exists()


@pytest.mark.parametrize('options, word', [
    (['--prompt', '春Q江R'], 'Q R'),
    (['--prompt', ''], 'prompt'),
    (['--num_samples', 0], 'num_samples'),
    (['--max_new_tokens', 0], 'max_new_tokens'),
    (['--temperature', 0], 'temperature'),
    (['--temperature', -1], 'temperature'),
    (['--temperature', 'nan'], 'temperature'),
    (['--top_k', 0], 'top_k'),
    (['--seed', 2 ** 70], 'seed'),
    (['--color', 'red'], 'color'),
], ids=lambda value: ''.join(map(str, value))[:30])
def test_sampler_options(sampler, options, word):
    assert_clear(run(sampler, '--prompt', '春江', *options), word)


def wait_for(process, words):
    """Read the process' output up to the line that has `words`."""
    lines = []
    while line := process.stdout.readline():
        lines.append(line)
        if words in line:
            return ''.join(lines)
    raise AssertionError(f'ended without {words}: {"".join(lines)} {process.stderr.read()}')


@POSIX
def test_ctrl_c_ends_the_sampler_quietly(sampler):
    for options in (['--prompt', '春江', '--max_new_tokens', 10_000_000], []):
        process = start(sampler, *options)
        process.stdout.read(5)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
        assert process.returncode == 0 and not stderr


@POSIX
def test_ctrl_c_ends_a_rung_without_a_traceback(tmp_path):
    process = start(install(V1, tmp_path, max_iters=10_000_000))
    wait_for(process, '第     0 步')
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode not in (0, None)
    assert '中断' in stderr and 'Traceback' not in stderr


# Saving

@POSIX
def test_ctrl_c_saves_the_model(tmp_path):
    process = start(install(V12, tmp_path, corpus=TEXT), *FOREVER)
    wait_for(process, '第  1000 步')
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0 and 'Traceback' not in stderr, stderr
    assert len(losses(stdout[stdout.index('Ctrl-C'):])) == 1  # it is evaluated once more, and then stops
    sampler = install(SAMPLER, tmp_path)
    assert run(sampler, '--prompt', '春江', '--max_new_tokens', 3).returncode == 0


def test_a_worse_model_never_replaces_a_better_one_of_the_run(tmp_path):
    """With a rate far too high the loss gets worse and worse: the file must hold the best that was printed."""
    path = install(V12, tmp_path, corpus=TEXT)
    result = run(path, *FOUR_STEPS, '--learning_rate', 0.9, '--max_iters', 12, '--eval_interval', 1)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    values = [val for *_, val in losses(result.stdout)]
    saved = [losses(lines[i - 1])[0][-1] for i, line in enumerate(lines) if '已存到' in line]
    assert saved == sorted(saved, reverse=True) and saved[-1] == min(values[1:])
    assert values[-1] > saved[-1]

    module = load(path)
    checkpoint = torch.load(tmp_path / 'model.pth', weights_only=True)
    tokenizer = module.Tokenizer(TEXT)
    model = module.BabyGPT(tokenizer.vocab_size, **checkpoint['hyper_params'])
    model.load_state_dict(checkpoint['model'])
    data = torch.tensor(tokenizer.encode(TEXT))
    cut = int(0.9 * len(data))
    assert module.estimate_loss(model, data[:cut], data[cut:], 1, 2, 8)['val'] == pytest.approx(saved[-1], abs=1e-4)


def test_the_model_of_the_run_before_is_kept(tmp_path, checkpoint):
    path = install(V12, tmp_path, corpus=TEXT)
    (tmp_path / 'model.pth').write_bytes(checkpoint)
    assert run(path, *FOUR_STEPS, '--seed', 2).returncode == 0
    assert (tmp_path / 'model.prev.pth').read_bytes() == checkpoint
    assert (tmp_path / 'model.pth').read_bytes() != checkpoint


def limit_file_size():
    """Every write past 4 kB fails, as on a full disk."""
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


@POSIX
def test_disk_full_while_saving(tmp_path, checkpoint):
    (tmp_path / 'model.pth').write_bytes(checkpoint)
    path = install(V12, tmp_path, corpus=TEXT)
    result = subprocess.run(
        [sys.executable, path, *map(str, FOUR_STEPS)], cwd=tmp_path, capture_output=True, encoding='utf-8', check=False,
        env=clean_environment(WANDB_MODE='disabled'), preexec_fn=limit_file_size, timeout=60)
    assert_clear(result, 'model', lines=1)
    assert (tmp_path / 'model.pth').read_bytes() == checkpoint
    assert not list(tmp_path.glob('*.tmp'))


KILLED_WHILE_WRITING = '''
import os, pathlib, signal, sys
sys.path.insert(0, {folder!r})
sys.argv = ['script', *{options!r}]
real = pathlib.Path.write_bytes
def write_half(self, content):
    if self.name.startswith('model.pth'):
        real(self, content[:len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, content)
pathlib.Path.write_bytes = write_half
import babygpt_v12_wandb
babygpt_v12_wandb.main()
'''


@POSIX
def test_killed_while_saving(tmp_path, checkpoint):
    """The process dies in the middle of writing: the old model.pth still loads."""
    (tmp_path / 'model.pth').write_bytes(checkpoint)
    install(V12, tmp_path, corpus=TEXT)
    script = tmp_path / 'killed.py'
    script.write_text(KILLED_WHILE_WRITING.format(folder=str(tmp_path), options=[str(word) for word in FOUR_STEPS]))
    result = run(script, env=clean_environment(WANDB_MODE='disabled'))
    assert result.returncode == -signal.SIGKILL
    assert (tmp_path / 'model.pth').read_bytes() == checkpoint
    assert run(install(SAMPLER, tmp_path), '--prompt', '春江', '--max_new_tokens', 3).returncode == 0
