"""Each script run as a learner runs it: a subprocess, unmodified but for smaller constants."""

import re
import shutil
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import pytest
import torch

from kit.experiments import own_constants
from kit.files import ROOT
from kit.ladders import LADDERS
from kit.scripts import LINE, clean_environment, continuations, install, load, losses, module_of, run, speeds

LADDER = LADDERS['root']
V11, V12 = LADDER['v11'], LADDER['v12']
SAMPLER = 'babygpt_sample_with_kvcache.py'

SIXTY_STEPS = {'max_iters': 60, 'eval_interval': 20, 'eval_iters': 4, 'max_new_tokens': 30}
SMALL_MODEL = ['--batch_size', 4, '--block_size', 16, '--n_embd', 32, '--n_head', 2, '--n_layer', 2, '--max_iters', 60,
              '--eval_interval', 20, '--eval_iters', 4, '--max_new_tokens', 30]


def assert_trained(output, corpus, new_tokens):
    printed = losses(output)
    assert [step for step, _, _ in printed] == [0, 20, 40, 60]
    assert printed[-1][1] < printed[0][1] - 0.3 and printed[-1][2] < printed[0][2] - 0.3
    told = [(speed, left) for *_, speed, left in LINE.findall(output)]
    assert len(told) == 4 and told[0] == ('0', '?') and told[-1][1] == '0'
    assert all(int(speed.replace(',', '')) > 0 for speed, _ in told[1:])
    for prompt, poem in zip(('春江', '往事'), continuations(output), strict=True):
        assert poem.startswith(prompt)
        assert len(poem) >= 2 + new_tokens - 3  # trailing newlines can't be told from the layout
        assert set(poem) <= set(corpus)


@pytest.mark.parametrize('rung', [rung for rung in LADDER.numbered if not rung.reached('v11')])
def test_rungs_learn_and_write_and_repeat(rung, tmp_path, corpus, small_corpus):
    path, started = install(rung.path, tmp_path, **SIXTY_STEPS), time.perf_counter()
    result = run(path)
    seconds, constants = time.perf_counter() - started, own_constants(rung)
    assert result.returncode == 0 and not result.stderr, result.stderr
    assert_trained(result.stdout, corpus, SIXTY_STEPS['max_new_tokens'])
    assert '4,543' in result.stdout and '1,563,996' in result.stdout and '173,778' in result.stdout
    assert {path.name for path in tmp_path.iterdir()} == {rung.path, 'ci.txt'}

    # the speed: no slower than all characters in all seconds of the process, and not faster than they could be touched
    assert 60 * constants['batch_size'] * constants['block_size'] / seconds - 1 <= speeds(result.stdout)[-1] < 1e7

    install(rung.path, tmp_path, corpus=small_corpus, **SIXTY_STEPS | {'max_iters': 20})
    first, again = (run(path).stdout for _ in range(2))  # same seed, same losses, same poems
    assert losses(first) == losses(again) and continuations(first) == continuations(again)


def test_v11_learns_and_writes(tmp_path, corpus):
    result = run(install(V11.path, tmp_path), *SMALL_MODEL)
    assert result.returncode == 0 and not result.stderr, result.stderr
    assert_trained(result.stdout, corpus, 30)


def add_one_loss(corpus):
    """Validation loss of the bigram model that has counted the whole training part once, with add-one smoothing."""
    chars = sorted(set(corpus))
    ids = np.searchsorted(np.array(chars), np.array(list(corpus)))
    cut = int(0.9 * len(ids))
    train, val = ids[:cut], ids[cut:]
    pair = val[:-1] * len(chars) + val[1:]
    counts = np.bincount(train[:-1] * len(chars) + train[1:], minlength=len(chars) ** 2)
    totals = np.bincount(train[:-1], minlength=len(chars))
    return -np.log((counts[pair] + 1) / (totals[val[:-1]] + len(chars))).mean()


# The scripts with more comments have the same code (test_ladder.py): they need not run again.
@pytest.mark.parametrize('name', ['simplebigrammodel.py', 'simplebigrammodel_torch.py'])
def test_bigram_models_learn_and_write(name, tmp_path, corpus):
    result = run(install(name, tmp_path))
    assert result.returncode == 0 and not result.stderr, result.stderr
    printed = losses(result.stdout)
    assert printed[0][1:] == (8.4213, 8.4213)  # nothing counted yet: ln 4543
    assert printed[-1][2] == pytest.approx(add_one_loss(corpus), abs=0.1)
    for poem in continuations(result.stdout):
        assert len(poem) > 98 and set(poem) <= set(corpus)


def test_pytorch_5min_finds_the_line():
    result = run(ROOT / 'pytorch_5min.py')
    assert result.returncode == 0 and not result.stderr, result.stderr
    w, b = map(float, re.findall(r'w (\S+)  b (\S+)', result.stdout)[-1])
    assert abs(w - 2) < 0.05 and abs(b - 1) < 0.05
    points = [tuple(map(float, point)) for point in
              re.findall(r'x = +(\S+)  模型说 +(\S+)  真值 +(\S+)', result.stdout)]
    assert len(points) == 3
    for x, said, truth in points:
        assert truth == 2 * x + 1 and abs(said - truth) < 0.3


def test_minimal_model_writes_only_pairs_it_has_seen(corpus):
    output = run(ROOT / 'simplemodel.py').stdout
    pairs = set(pairwise(corpus))
    first, second = output.index('春江'), output.index('\n\n往事')
    for poem in (output[first:second], output[second + 2:-2]):
        assert len(poem) == 102 and set(pairwise(poem)) <= pairs


# Seeds

def test_another_seed_gives_other_losses(tmp_path, small_corpus):
    path = install(V11.path, tmp_path, corpus=small_corpus)
    first, second = (losses(run(path, *SMALL_MODEL, '--seed', seed).stdout) for seed in (1, 2))
    assert first[-1] != second[-1]


def test_v12_prints_the_losses_and_poems_of_v11(tmp_path, small_corpus):
    options = [*SMALL_MODEL, '--dropout', 0.2]
    eleven = run(install(V11.path, tmp_path, corpus=small_corpus), *options)
    twelve = run(install(V12.path, tmp_path), *options)
    assert losses(eleven.stdout) == losses(twelve.stdout) != []
    for poem in continuations(eleven.stdout):
        assert poem.rstrip('\n') in twelve.stdout


# Hyperparameters

HYPER_PARAMS = ['batch_size', 'block_size', 'n_embd', 'n_head', 'n_layer', 'dropout', 'learning_rate', 'max_iters',
                'eval_interval', 'eval_iters', 'train_ratio', 'max_new_tokens', 'seed']


@pytest.mark.parametrize('rung', [V11, V12])
def test_help_lists_every_hyperparameter_with_its_default(rung):
    result = run(rung.file, '--help')
    assert result.returncode == 0
    for name in HYPER_PARAMS:
        [line] = re.findall(rf'--{name} .*?（默认 (.*?)）', result.stdout, flags=re.DOTALL)
        assert line == str(getattr(module_of(rung), name))
    assert '--data' in result.stdout and re.search('[\u4e00-\u9fff]', result.stdout)


def test_help_says_what_stands_at_the_top(tmp_path):
    """The meaning of a hyperparameter is written once: in the comment behind it."""
    path = install(V11.path, tmp_path, n_layer=5)
    path.write_text(path.read_text(encoding='utf-8').replace('叠几层 Block', '楼有几层', 1), encoding='utf-8')
    assert '楼有几层（默认 5）' in run(path, '--help').stdout


@pytest.mark.parametrize('rung', [V11, V12])
def test_the_corpus_is_read_once(rung, monkeypatch, tmp_path, small_corpus):
    module = load(install(rung.path, tmp_path, corpus=small_corpus))
    real, calls = module.read_text, []
    monkeypatch.setattr(module, 'read_text', lambda *args: calls.append(args) or real(*args))
    monkeypatch.setattr(sys, 'argv', ['script', *map(str, SMALL_MODEL), '--max_iters', '1'])
    monkeypatch.setenv('WANDB_MODE', 'disabled')
    module.main()
    assert len(calls) == 1


def test_hyperparameters_reach_the_model_and_the_training(tmp_path, small_corpus):
    path = install(V11.path, tmp_path, corpus=small_corpus)
    options = ['--batch_size', 2, '--block_size', 8, '--n_embd', 12, '--n_head', 3, '--n_layer', 5, '--max_iters', 7,
               '--eval_interval', 3, '--eval_iters', 1, '--max_new_tokens', 5, '--train_ratio', 0.5]
    output = run(path, *options).stdout
    assert [step for step, _, _ in losses(output)] == [0, 3, 6, 7]
    size = len(set(small_corpus))
    model = module_of(V11).BabyGPT(size, 8, 12, 3, 5, 0.0)
    assert f'{sum(p.numel() for p in model.parameters()):,} 个参数' in output
    half = len(small_corpus) // 2
    assert f'训练集 {half:,} 字，验证集 {len(small_corpus) - half:,} 字' in output
    for name, value in [('learning_rate', 1e-5), ('dropout', 0.9)]:
        assert losses(run(path, *options, f'--{name}', value).stdout)[-1] != losses(output)[-1]


def test_data_trains_on_any_text(tmp_path):
    text = tmp_path / 'my.txt'
    text.write_text('To be, or not to be, that is the question:\n' * 100, encoding='utf-8')
    path = install(V11.path, tmp_path, corpus='不是这个文件。\n' * 100)
    result = run(path, *SMALL_MODEL, '--data', text)
    assert result.returncode == 0, result.stderr
    assert '词表 17 字' in result.stdout
    assert losses(result.stdout)[-1][2] < 2
    assert result.stdout.count('\nTo') == 1  # the prompts of ci.txt are not in this text: it starts as the text does


def test_prompts_can_be_chosen(tmp_path, small_corpus):
    result = run(install(V11.path, tmp_path, corpus=small_corpus), *SMALL_MODEL, '--prompts', '明月', '东风', '酒')
    assert result.returncode == 0, result.stderr
    assert all(f'\n{prompt}' in result.stdout for prompt in ['明月', '东风', '酒'])


# The sampler, asked in a terminal and on the command line

@pytest.fixture(scope='module')
def trained(tmp_path_factory, small_corpus):
    """A folder with the sampler and a model.pth that v12 has trained."""
    folder = tmp_path_factory.mktemp('trained')
    result = run(install(V12.path, folder, corpus=small_corpus), *SMALL_MODEL)
    assert result.returncode == 0, result.stderr
    install(SAMPLER, folder)
    (folder / 'ci.txt').unlink()  # the sampler must not need it
    return folder


def test_sampler_writes_samples_with_a_seed(trained, small_corpus):
    options = ['--prompt', '春江', '--num_samples', 3, '--max_new_tokens', 50, '--temperature', 0.8, '--top_k', 20]
    first, second = (run(trained / SAMPLER, *options, '--seed', 7) for _ in range(2))
    assert first.returncode == 0 and not first.stderr, first.stderr
    poems = re.findall(r'(春江.{50})\n（50 字，每秒 [\d,]+ 字）\n', first.stdout, flags=re.DOTALL)
    assert len(poems) == len(set(poems)) == 3
    assert set(''.join(poems)) <= set(small_corpus)
    assert poems == re.findall(r'(春江.{50})\n（50 字，每秒 [\d,]+ 字）\n', second.stdout, flags=re.DOTALL)
    assert poems[0] not in run(trained / SAMPLER, *options, '--seed', 8).stdout


def test_sampler_writes_what_v12_generates_with_the_same_seed(trained):
    module = module_of(V12)
    checkpoint = torch.load(trained / 'model.pth', weights_only=True)
    tokenizer = module.Tokenizer(checkpoint['vocabulary'])
    model = module.BabyGPT(tokenizer.vocab_size, **checkpoint['hyper_params']).eval()
    model.load_state_dict(checkpoint['model'])
    torch.manual_seed(7)
    new = model.block_size - 2 + 1  # the whole block, and the token it predicts
    expected = tokenizer.decode(model.generate(torch.tensor([tokenizer.encode('往事')]), new)[0].tolist())
    result = run(trained / SAMPLER, '--prompt', '往事', '--max_new_tokens', new, '--seed', 7)
    assert result.stdout.startswith(f'{expected}\n（')


@pytest.mark.parametrize('end', ['\n', ''])
def test_sampler_asks_until_an_empty_line_or_the_end_of_input(trained, end):
    result = run(trained / SAMPLER, '--max_new_tokens', 5, text=f'春江\n往Z事\n往事\n{end}')
    assert result.returncode == 0 and not result.stderr
    assert result.stdout.count('（5 字，') == 2
    assert 'Z' in result.stdout and result.stdout.count('开头') == 4


def test_sampler_falls_back_to_the_pretrained_model_and_says_so(trained, tmp_path):
    options = ['--prompt', '春江', '--max_new_tokens', 20, '--seed', 7]
    own = run(trained / SAMPLER, *options).stdout
    path = install(SAMPLER, tmp_path)
    (tmp_path / 'pretrained').mkdir()
    shutil.copy(trained / 'model.pth', tmp_path / 'pretrained')
    result = run(path, *options)
    assert result.returncode == 0 and not result.stderr, result.stderr
    notice, poem = result.stdout.split('\n\n', 1)
    assert 'pretrained/model.pth' in notice and 'babygpt_v12_wandb.py' in notice
    assert poem.split('（20 字')[0] == own.split('（20 字')[0] and 'pretrained' not in own


def test_a_model_of_ones_own_comes_before_the_pretrained_one(trained, tmp_path):
    path = install(SAMPLER, tmp_path)
    (tmp_path / 'pretrained').mkdir()
    (tmp_path / 'pretrained' / 'model.pth').write_text('never read')
    shutil.copy(trained / 'model.pth', tmp_path)
    assert run(path, '--prompt', '春江', '--max_new_tokens', 3).returncode == 0


def test_sampler_streams(trained):
    """The first characters are on the screen long before the last one is made."""
    process = subprocess.Popen([sys.executable, trained / SAMPLER, '--prompt', '春江', '--max_new_tokens', '10000000'],
                               stdout=subprocess.PIPE, env=clean_environment())
    try:
        assert process.stdout.read(30).decode('utf-8', 'ignore').startswith('春江')
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
