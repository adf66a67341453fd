"""Form as a reward: what a poem is worth, the best of several, and what a model learns from its own poems."""

import re
import signal
import sys
from pathlib import Path

import pytest
import torch

from kit import form
from kit.files import CORPUS, ROOT, read
from kit.ladders import LADDERS, by_path
from kit.scripts import install, load, module_of, run, start
from kit.shapes import Tracer
from tests.modern.forked import lived
from tests.modern.test_resume import at_call, half_written
from tests.modern.test_sample_command import assert_clear, assert_said, checkpoint
from tests.root.test_bad_input import POSIX

RUNGS = LADDERS['modern'].rungs
REWARDED = [rung for rung in RUNGS if re.search(r'_v2[4-6]_', rung.path)]
TRAINED = REWARDED[1:]
EACH = pytest.mark.parametrize('rung', REWARDED, ids=lambda rung: rung.stem)
LEARNS = pytest.mark.parametrize('rung', TRAINED, ids=lambda rung: rung.stem)
BEST = 'modern/babygpt_v24_best_of_n.py'
PRETRAINED = ROOT / 'pretrained' / 'model_v20.pth'
TWO_FORMS = ['题 甲\n春江。\n花月夜，往事。\n\n'] * 2 + ['题 乙\n春江花，月夜。\n\n'] * 2 + ['题 丙\n春。\n\n', '别 丁\n春。\n\n']


@pytest.fixture(scope='module')
def poems():
    return [f'{poem}\n\n' for poem in read(CORPUS).strip().split('\n\n')]


def broken(poem):
    """A poem and what can go wrong with it: its end missing, a clause too much or too few, a character, a mark in the middle."""
    title, _, body = poem.partition('\n')
    lines = body.strip().split('\n')
    return [poem, poem[:-1], poem[:-2], f'{title}\n\n', title, f'{title}\n' + '\n'.join(lines[1:]) + '\n\n', poem[:-2] + '\n春江。\n\n',
            f'{title}\n春{body}', f'{title}\n{body[1:]}', f'{title}\n{body[:1]}，{body[1:]}', poem.replace('。', '，', 1)]


@EACH
def test_the_reward_is_1_where_the_kit_says_that_the_form_is_kept(rung, poems):
    """Of real poems of the validation part and what can be wrong with them; the forms are counted over the training part."""
    module, cut = module_of(rung), int(0.9 * len(poems))
    forms, known = module.count_forms(poems[:cut]), form.Forms(map(form.parsed, poems[:cut]))
    kept = 0
    for poem in (each for real in poems[cut:cut + 600] if real.split(' ')[0] in forms for each in broken(real)):
        expected = known.keeps(*form.finished(poem))
        value = module.reward(poem, forms)
        assert (value == 1) == expected and 0 <= value <= (1 if expected else 0.5), poem
        kept += expected
    assert kept > 500
    assert set(forms) == {tune for tune, counts in known.counts.items() if max(counts.values()) >= 2}


@EACH
@pytest.mark.parametrize('poem, expected', [
    ('题 甲\n江春。\n事往夜，江花。\n\n', 1), ('题 甲\n江春花，事往。\n\n', 1),
    ('题 甲\n江春。\n事往夜，江花。\n', 0.5), ('题 甲\n江春。\n事往夜，江花。\n春。\n\n', 0.5),
    ('题 甲\n江春。\n事往夜。\n\n', 0.5 * 2 / 3), ('题 甲\n江春。\n事，江花。\n\n', 0.5 * 1 / 3), ('题 甲\n江春花，事。\n\n', 0.5 * 1 / 2),
    ('题 甲\n春。\n\n', 0), ('题 甲\n春。\n花月夜，往事。\n\n', 0), ('题 甲\n\n', 0), ('题 甲', 0),
], ids=repr)
def test_a_poem_off_the_form_is_worth_its_leading_clauses(rung, poem, expected):
    """Of the form that it follows longest; a form that stands only once among the poems is none."""
    module = module_of(rung)
    forms = module.count_forms(TWO_FORMS)
    assert {tune: sorted(each) for tune, each in forms.items()} == {'题': [(2, 3, 2), (3, 2)]}
    assert module.reward(poem, forms) == pytest.approx(expected)


# v24: the best of n

def small_corpus():
    """Poems of one clause each, which the model without a mind, that writes a blank line soon, may well get right."""
    poems = ['浣溪沙 苏轼\n一。', '浣溪沙 苏轼\n苏。', '菩萨蛮 苏轼\n一一。', '菩萨蛮 苏轼\n轼轼。']
    return '\n\n'.join(poems * 5 + ['无题 苏轼\n一。', '水调歌头 苏轼\n一。'] * 2) + '\n'


@pytest.fixture(scope='module')
def best(tmp_path_factory):
    path = install(BEST, tmp_path_factory.mktemp('best'), corpus=small_corpus())
    torch.save(checkpoint(), path.with_name('model.pth'))
    return path


def told(result):
    """[(poem, its group's rewards, which one it is)] as printed."""
    assert result.returncode == 0 and not result.stderr, result.stderr
    found = re.findall(r'([\s\S]*?)\n（(\d+) 首的奖励：([\d. ]+)，留下第 (\d+) 首）\n\n', result.stdout)
    return [(poem, [*map(float, rewards.split())], int(number), int(kept)) for poem, number, rewards, kept in found]


def test_what_is_kept_has_the_highest_reward(best):
    """And it is the poem that this reward is of: counted again here, with and without the blank line, which is not printed."""
    options = ['--tune', '浣溪沙', '菩萨蛮', '--num_samples', 20, '--max_new_tokens', 60]
    groups = told(run(best, *options, '--seed', 1))
    assert [poem.split(' ')[0] for poem, *_ in groups] == ['浣溪沙', '菩萨蛮']
    module = load(BEST)
    forms = module.count_forms([f'{poem}\n\n' for poem in small_corpus().strip().split('\n\n')][:20])
    for poem, rewards, number, kept in groups:
        assert number == len(rewards) == 20 and len(set(rewards)) > 1
        assert rewards[kept - 1] == max(rewards)
        assert any(rewards[kept - 1] == pytest.approx(module.reward(poem + end, forms), abs=0.005) for end in ('', '\n\n'))
    assert told(run(best, *options, '--seed', 1)) == groups != told(run(best, *options, '--seed', 2))


@pytest.mark.parametrize('options, words', [
    (['--tune', '无此调'], ['词牌「无此调」', '浣溪沙']), (['--tune', '浣溪沙', '--author', '李白甫'], ['作者「李白甫」']),
    (['--tune', '无题'], ['「无题」', '句式']), ([], ['--tune']), (['--tune', '浣溪沙', '--num_samples', 0], ['num_samples']),
    (['--tune', '浣溪沙', '--prompt', '一'], ['--prompt']), (['--tune', '浣溪沙', '--temperature', 0], ['temperature']),
], ids=str)
def test_what_it_cannot_do_it_says(best, options, words):
    """无题 stands only in the validation part here: it has no form."""
    assert_clear(run(best, *options), *words)


def test_without_the_corpus_or_a_model_it_says_so(tmp_path):
    path = install(BEST, tmp_path, corpus=small_corpus())
    assert_clear(run(path, '--tune', '浣溪沙'), 'model_v20.pth')
    torch.save(checkpoint('babygpt_v19_qk_norm'), path.with_name('model.pth'))
    assert_clear(run(path, '--tune', '浣溪沙'), 'babygpt_v19_qk_norm', 'v20')
    (tmp_path / CORPUS.name).unlink()
    assert_clear(run(path, '--tune', '浣溪沙'), 'ci.txt')


def test_eight_of_the_pretrained_model_keep_the_form_more_often_than_one(poems):
    """The concept: of several, one is more often right than any one of them alone."""
    module = load(BEST)
    model, tokenizer = module.load_model(PRETRAINED)
    forms = module.count_forms(poems[:int(0.9 * len(poems))])
    args = type('Args', (), {'num_samples': 4, 'max_new_tokens': 100, 'temperature': 1.0, 'top_k': None, 'top_p': None, 'min_p': None,
                             'repetition_penalty': 1.0})
    texts = module.write(model, tokenizer, ['鹊桥仙 ', '长相思 ', '谒金门 ', '如梦令 '], args)
    rewards = torch.tensor([module.reward(poem, forms) for poem in texts]).view(4, 4)
    assert rewards.amax(dim=1).mean() > rewards.mean() + 0.2
    assert [poem[:3] for poem in texts[::4]] == ['鹊桥仙', '长相思', '谒金门', '如梦令']


SIZES = {'vocab_size': len(checkpoint()['vocabulary']), 'block_size': 19, 'n_embd': 24, 'n_head': 3, 'n_kv_head': 3, 'n_layer': 1}


def test_the_shapes_of_v24_are_as_its_comments_say():
    """As many heads of keys as of queries: the line that rotates both speaks of the queries."""
    module = load(BEST)
    tracer, tokenizer, (B, T, head_size) = Tracer(module.__file__), module.Tokenizer(checkpoint()['vocabulary']), (5, 4, 8)
    args = type('Args', (), {'num_samples': B, 'max_new_tokens': 3, 'temperature': 1.0, 'top_k': 9, 'top_p': 0.9, 'min_p': 0.01,
                             'repetition_penalty': 1.1})
    with tracer:
        module.write(module.BabyGPT(**SIZES), tokenizer, ['浣溪沙 '], args)
    assert not tracer.faults(SIZES | {'B': B, 'T': T, 'S': T, 'G': 1, 'Q': T, 'V': SIZES['vocab_size'], 'head_size': head_size,
                                      'half': head_size // 2, 'hidden': 8 * SIZES['n_embd'] // 3})


# v25 and v26: learning from one's own poems

TINY = {'block_size': 24, 'n_embd': 12, 'n_head': 3, 'n_kv_head': 1, 'n_layer': 1}
SMALL = ['--n_tunes', 2, '--num_samples', 6, '--batch_size', 4, '--max_iters', 4, '--warmup_iters', 1, '--eval_interval', 2, '--eval_iters', 2,
         '--eval_samples', 2, '--max_new_tokens', 14, '--learning_rate', 0.01]


def corpus_of_tunes(tunes='甲乙丙丁戊', each=60):
    """Tunes of one form each, a first clause of one to five characters."""
    poems = [f'{tune}调 某\n{"春江花月夜往事"[i % 7] * (number + 1)}。\n' for i in range(each) for number, tune in enumerate(tunes)]
    return '\n'.join(poems)


def tiny_checkpoint(seed=0, **sizes):
    torch.manual_seed(seed)
    sizes = TINY | sizes
    vocabulary = ''.join(sorted(set(corpus_of_tunes())))
    model = module_of(LADDERS['modern']['v20']).BabyGPT(len(vocabulary), **sizes, dropout=0.1)
    return {'rung': 'babygpt_v20_tied_embedding', 'model': model.state_dict(), 'hyper_params': sizes | {'dropout': 0.1}, 'vocabulary': vocabulary}


def installed(rung, folder):
    path = install(rung.path, folder, corpus=corpus_of_tunes())
    torch.save(tiny_checkpoint(), path.with_name('model.pth'))
    return path


def played(path, monkeypatch, *options, change=lambda module: None):
    """main() in this process: the module, after `change` was made to it."""
    module, before = load(path), signal.getsignal(signal.SIGINT)
    monkeypatch.setenv('WANDB_MODE', 'disabled')
    monkeypatch.setattr(sys, 'argv', [path.name, *map(str, [*SMALL, *options])])
    change(module)
    try:
        module.main()
    finally:
        signal.signal(signal.SIGINT, before)
    return module


def models_of(module, seed=0):
    """The tiny model in its cached form, v20's with the same weights, and their tokenizer."""
    kept = tiny_checkpoint(seed)
    tokenizer = module.Tokenizer(kept['vocabulary'])
    cached = module.BabyGPT(tokenizer.vocab_size, **TINY)
    full = module_of(LADDERS['modern']['v20']).BabyGPT(tokenizer.vocab_size, **TINY, dropout=0.0).eval()
    for model in (cached, full):
        model.load_state_dict(kept['model'])
    return cached, full, tokenizer


OWN = ['甲调 某\n春江。\n\n', '乙调 某\n花月夜往事。春。\n\n', '丙调 某\n江']


@LEARNS
def test_what_the_model_is_asked_about_is_what_it_wrote(rung):
    """Not the tune, which it was given, nor the padding: these have no log-probability and no gradient. The rest is v20's full pass."""
    module = module_of(rung)
    cached, full, tokenizer = models_of(module)
    x, y = module.own_batch(OWN, tokenizer, TINY['block_size'])
    for row, poem in zip(y, OWN, strict=True):
        assert tokenizer.decode(row[row >= 0].tolist()) == poem[3:], 'all that follows the name of the tune and the space'
    seen = []
    cached.register_forward_hook(lambda _, args, output: (output.retain_grad(), seen.append(output))[0])
    found = module.log_probs(cached, x, y)
    expected = full(x)[0].log_softmax(-1).gather(2, y.clamp(min=0)[..., None])[..., 0].masked_fill(y < 0, 0)
    assert torch.allclose(found, expected, atol=1e-5) and found.shape == y.shape
    found.sum().backward()
    assert torch.equal(seen[0].grad.abs().sum(-1) > 0, y >= 0)


@LEARNS
def test_poems_longer_than_the_block_are_cut(rung):
    module = module_of(rung)
    cached, _, tokenizer = models_of(module)
    x, y = module.own_batch([*OWN, '甲调 某\n' + '春' * 40], tokenizer, TINY['block_size'])
    assert x.shape == y.shape == (4, TINY['block_size']) and module.log_probs(cached, x, y).isfinite().all()


@LEARNS
def test_the_distance_is_0_from_itself_never_below_and_on_average_the_divergence(rung):
    """Over all answers, each as often as the model gives it: k3 is then the Kullback-Leibler divergence to the digit."""
    module = module_of(rung)
    now, start = torch.randn(2, 5, 30, generator=torch.Generator().manual_seed(1)).double().log_softmax(-1)
    assert (module.divergence(now, now) == 0).all() and (module.divergence(now, start) > 0).all()
    expected = (now.exp() * (now - start)).sum(-1)
    assert torch.allclose((now.exp() * module.divergence(now, start)).sum(-1), expected)


@LEARNS
def test_the_loss_of_real_poems_is_that_of_v20(rung):
    module = module_of(rung)
    cached, full, tokenizer = models_of(module)
    poems = [f'{poem}\n\n' for poem in corpus_of_tunes().strip().split('\n\n')][:30]
    table = module.pad(poems, tokenizer)
    expected = module_of(LADDERS['modern']['v20']).estimate_loss(full, table, table, 3, 8)['val']
    assert module.estimate_loss(cached, table, 3, 8) == pytest.approx(expected, abs=1e-5)


@LEARNS
def test_a_quarter_of_the_common_tunes_is_held_out(rung, poems):
    module, train = module_of(rung), poems[:int(0.9 * len(poems))]
    trained, held_out = module.split_tunes(train)
    assert not set(trained) & set(held_out) and len(held_out) == 10
    assert {*trained, *held_out} == set(form.Forms(map(form.parsed, train)).common()[:40])


@LEARNS
def test_held_out_tunes_are_never_written_for_to_learn_from(rung, monkeypatch, tmp_path):
    """Nor does any but the four that are asked for get a batch of its own; evaluation asks for both, and learns from none."""
    asked = []

    def spy(module):
        write, own_batch = module.write, module.own_batch
        module.write = lambda model, tokenizer, prompts, each, longest: (
            asked.append((each, {prompt.strip() for prompt in prompts})), write(model, tokenizer, prompts, each, longest))[1]
        module.own_batch = lambda poems, *rest: (
            torch.is_grad_enabled() and asked.append((6, {module.tune_of(poem) for poem in poems})), own_batch(poems, *rest))[1]
        module.reward = lambda poem, forms: 1.0  # all are learned from

    module = played(installed(rung, tmp_path), monkeypatch, change=spy)
    known = [f'{poem}\n\n' for poem in corpus_of_tunes().strip().split('\n\n')]
    trained, held_out = map(set, module.split_tunes(known[:270]))
    assert trained == {'甲调', '乙调', '丁调', '戊调'} and held_out == {'丙调'}
    learned = [tunes for each, tunes in asked if each == 6]
    assert len(learned) >= 4 * 2 and set().union(*learned) == trained
    assert held_out in [tunes for each, tunes in asked if each == 2]


@LEARNS
def test_it_leaves_the_model_that_it_came_from_and_saves_one_that_the_sampler_reads(rung, monkeypatch, tmp_path, capsys):
    path = installed(rung, tmp_path)
    before = path.with_name('model.pth').read_bytes()
    module = played(path, monkeypatch)
    said = capsys.readouterr().out
    assert str(path.with_name('model.pth')) in said.splitlines()[0] and len(re.findall('^第 ', said, re.MULTILINE)) == 3
    assert path.with_name('model.pth').read_bytes() == before
    assert {file.name for file in path.parent.glob('*pth*')} == {'model.pth', module.own_path.name, module.checkpoint_path.name}
    model, _ = load('modern/babygpt_sample.py').load_model(module.own_path)
    assert not torch.equal(model.lm_head.weight, tiny_checkpoint()['model']['lm_head.weight'])


@LEARNS
def test_the_same_seed_does_the_same(rung, monkeypatch, tmp_path, capsys):
    said = []
    for name in 'ab':
        (tmp_path / name).mkdir()
        played(installed(rung, tmp_path / name), monkeypatch)
        said.append(re.findall('^第 .*离出发 [\\d.]+', capsys.readouterr().out, re.MULTILINE))
    assert said[0] == said[1] and len(said[0]) == 3


@LEARNS
def test_ctrl_c_saves_and_ends(rung, tmp_path):
    """Sent once the first line is printed: it ends long before its rounds do, without a word on stderr, and what it saved is whole."""
    path = installed(rung, tmp_path)
    process = start(path, *map(str, SMALL), '--max_iters', '100000')
    try:
        while not process.stdout.readline().startswith('第 '):
            assert process.poll() is None, process.stderr.read()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0 and 'Ctrl-C' in out and 'Traceback' not in err
    load('modern/babygpt_sample.py').load_model(load(path).own_path)


@LEARNS
@pytest.mark.parametrize('options, words', [
    (['--tune', '无此调'], ['「无此调」', '句式']), (['--tune', '甲调', '丙调'], ['没有留下']), (['--num_samples', 0], ['num_samples']),
    (['--learning_rate', 0], ['learning_rate']), (['--warmup_iters', 4], ['warmup_iters']), (['--seed', -1], ['seed']),
    (['--model', 'none.pth'], ['none.pth']), (['--top', 3], ['--top']),
], ids=str)
def test_what_they_cannot_do_they_say(rung, options, words, monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        played(installed(rung, tmp_path), monkeypatch, *options)
    said = capsys.readouterr().err + (left.value.code if isinstance(left.value.code, str) else '')
    assert left.value.code not in (0, None)
    assert_said(said, words)


@LEARNS
def test_a_model_of_another_text_is_named(rung, monkeypatch, tmp_path):
    path = installed(rung, tmp_path)
    torch.save(checkpoint(), path.with_name('model.pth'))
    with pytest.raises(SystemExit, match='model.pth.*词表里没有'):
        played(path, monkeypatch)


@LEARNS
def test_a_reward_that_is_easily_had_rises(rung, monkeypatch, tmp_path, capsys):
    """1 for a poem with at least three 春 in it, whatever else it says."""
    def easy(module):
        module.reward = lambda poem, forms: float(poem.count('春') >= 3)
        module.judge_clauses = lambda poem, forms: ([len(poem)], [module.reward(poem, forms)])

    played(installed(rung, tmp_path), monkeypatch, '--max_iters', 40, '--eval_interval', 40, '--eval_samples', 20, '--num_samples', 16,
           '--learning_rate', 0.02, change=easy)
    first, last = map(float, re.findall(r'奖励 ([\d.]+)', capsys.readouterr().out))
    assert last > first + 0.2


@LEARNS
def test_their_shapes_are_as_the_comments_say(rung, monkeypatch, tmp_path):
    """In a run that writes, and in one whose poems are all of one length; a line may be without a tensor in one of them only."""
    path, (B, width, head_size) = installed(rung, tmp_path), (6, 12, 4)
    alike = [f'{tune}调 某\n{clause}。\n\n' for clause in ('春江花月夜往', '月夜往事春江', '江花月夜往事') for tune in '甲乙丙丁戊']
    text, seen, silent = ''.join(alike * 20), [], []
    path.parent.with_name('ci.txt').write_text(text, encoding='utf-8')
    kept = {'B': B, 'V': len(tiny_checkpoint()['vocabulary']), 'K': 2, 'G': 1, 'hidden': 8 * width // 3, 'head_size': head_size,
            'half': head_size // 2, 'block_size': TINY['block_size'], 'n_embd': width, 'n_head': 3, 'n_kv_head': 3}
    checkpoint = tiny_checkpoint(n_kv_head=3)
    torch.save(checkpoint, path.with_name('model.pth'))

    def fixed(module):
        module.write = lambda model, tokenizer, prompts, each, longest: [
            alike['甲乙丙丁戊'.index(prompt[0]) + 5 * (i % 3)] for prompt in prompts for i in range(each)]

    for change, T, length in ((fixed, len(alike[0]) - 1, len(alike[0])), (lambda module: None, 3, None)):
        tracer = Tracer(path)
        with tracer:
            played(path, monkeypatch, '--num_samples', B, '--batch_size', B, '--n_tunes', 1, '--eval_samples', 6, '--max_new_tokens', 2,
                   '--max_iters', 2, '--eval_iters', 5, change=change)
        faults = tracer.faults(kept | {'T': T, 'S': T, 'Q': T, 'L': length or T, 'N': 30})
        seen.append({fault for fault in faults if not fault.endswith('is None')})
        silent.append({fault.split(' says')[0] for fault in faults if fault.endswith('is None')})
    assert not seen[0] and not silent[0] & silent[1], (seen[0], silent[0] & silent[1])


# Killed at any moment and started again

MOMENTS = {  # SMALL has four rounds and is evaluated, and saved, at 0, 2 and 4, each time for two sets of tunes; at 0 there is no model yet
    'before the first checkpoint': lambda module: at_call(module, 'estimate_form', 1),
    'in a round': lambda module: at_call(torch.optim.AdamW, 'step', 4),
    'in an evaluation': lambda module: at_call(module, 'estimate_form', 6),
    'while the model is written': lambda module: at_call(Path, 'write_bytes', 4, half_written),
    'while the checkpoint is written': lambda module: at_call(Path, 'write_bytes', 5, half_written),
}


def lines_of(printed):
    """What is told of each round, but for how long it takes, with the poem below it."""
    found = re.findall(r'^第 +(\d+) 轮  (.*离出发 [\d.]+)  .*\n([\s\S]*?)\n\n', printed, re.MULTILINE)
    return {step: (told, poem) for step, told, poem in found}


@pytest.fixture(scope='module', params=TRAINED, ids=lambda rung: rung.stem)
def whole(request, tmp_path_factory):
    path = installed(request.param, tmp_path_factory.mktemp('whole'))
    life = lived(path, *SMALL)
    assert life.status == 0, life.printed
    return request.param, lines_of(life.printed), torch.load(load(path).own_path, weights_only=True)['model']


@POSIX
@pytest.mark.parametrize('moment', MOMENTS)
def test_killed_and_started_again_it_ends_the_same(moment, whole, tmp_path):
    rung, never, model = whole
    path = installed(rung, tmp_path)
    first = lived(path, *SMALL, dies=MOMENTS[moment])
    assert first.status == -signal.SIGKILL, first.printed
    second = lived(path, *(SMALL if 'before the first' in moment else []), '--resume')  # it knows its options
    assert second.status == 0, second.printed
    assert len(never) == 3 and lines_of(first.printed) | lines_of(second.printed) == never
    assert ('0' in lines_of(second.printed)) == ('before the first' in moment)
    module = load(path)
    left = torch.load(module.own_path, weights_only=True)['model']
    assert all(torch.equal(model[name], value) for name, value in left.items())
    assert {file.name for file in path.parent.glob('*pth*')} == {'model.pth', module.own_path.name, module.checkpoint_path.name}


@POSIX
@LEARNS
def test_what_does_not_fit_is_refused_and_nothing_is_lost(rung, tmp_path):
    path = installed(rung, tmp_path)
    assert lived(path, *SMALL).status == 0
    module = load(path)
    kept = {file: file.read_bytes() for file in (module.own_path, module.checkpoint_path)}
    torch.save(tiny_checkpoint(seed=1), path.with_name('other.pth'))
    for options, words in ((['--seed', 3], '--seed'), (['--tune', '甲调'], '--tune'), (['--model', path.with_name('other.pth')], '--model')):
        refused = lived(path, '--resume', *options)
        assert refused.status == 1 and '接不上' in refused.printed and words in refused.printed, refused.printed
    corpus = path.parent.with_name('ci.txt')
    text = corpus.read_text(encoding='utf-8')
    corpus.write_text(text.replace('甲', '乙', 1), encoding='utf-8')
    assert '接不上' in lived(path, '--resume').printed
    corpus.write_text(text, encoding='utf-8')
    assert {file: file.read_bytes() for file in kept} == kept
    assert [*lines_of(lived(path, '--resume', '--max_iters', 6).printed)] == ['6']
    kept = {file: file.read_bytes() for file in kept}
    assert lived(path, *SMALL, dies=MOMENTS['before the first checkpoint']).status < 0  # a fresh run
    assert all(file.with_name(f'{file.stem}.prev.pth').read_bytes() == content and not file.exists() for file, content in kept.items())


@LEARNS
@pytest.mark.parametrize('content', [b'', b'not a model', 'a model', 'another rung'], ids=str)
def test_what_is_no_checkpoint_is_refused(rung, content, tmp_path, monkeypatch):
    path = installed(rung, tmp_path)
    file = load(path).checkpoint_path
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save({'rung': path.stem, 'model': {}} if content == 'a model' else {'rung': 'babygpt_v22_resume', 'optimizer': {}}, file)
    with pytest.raises(SystemExit) as told:
        played(path, monkeypatch, '--resume')
    assert file.name in str(told.value) and '--resume' in str(told.value) and '\n' not in str(told.value)


# v25: winners

EXPERT = 'modern/babygpt_v25_expert_iteration.py'


def test_winners_keep_the_form_and_are_no_copies():
    """14 characters in a row of a training poem, its title aside, are a copy; 13 are none. A copy of another winner is not looked for."""
    module = load(EXPERT)
    real = '题 甲\n' + '春江花月夜往事。\n' * 2 + '知多少知多少知。\n\n'
    forms = {'题': [(7, 7, 7)], '别': [(7, 7, 7)]}
    body = [*real.partition('\n')[2][:-2]]
    same = [''.join(body[:n]) + re.sub('[^。\n]', '某', ''.join(body[n:])) for n in (14, 13)]
    assert [len(poem) for poem in same] == [len(body)] * 2
    poems = [f'题 乙\n{same[0]}\n\n', f'题 乙\n{same[1]}\n\n', f'别 乙\n{same[1]}\n\n', f'题 乙\n{same[1]}\n', '题 甲\n某某。\n\n', real]
    assert module.winners_of(poems, forms, set(module.runs_of(real))) == poems[1:3]
    known = form.copies([poem.partition('\n')[2].rstrip('\n') for poem in poems[:3]], f'\n\n{real}')
    assert known['copies'] == 1


def test_v25_learns_from_nothing_but_winners_and_real_poems(monkeypatch, tmp_path):
    """No winner, no gradient of its own: then the step is that of the real poems alone."""
    def none(module):
        module.reward = lambda poem, forms: 0.99
        module.own_batch = lambda *_: pytest.fail('a poem that did not win is learned from') if torch.is_grad_enabled() else kept(*_)
        kept = load(EXPERT).own_batch

    played(installed(by_path(EXPERT), tmp_path), monkeypatch, change=none)


# v26: advantages

GROUP = 'modern/babygpt_v26_grpo.py'
FORMS = {'题': [(2, 3, 2), (3, 2)]}


@pytest.mark.parametrize('poem, pieces, rewards', [
    ('题 甲\n江春。\n事往夜，江花。\n\n', ['江春。', '\n事往夜，', '江花。', '\n\n'], [1, 1, 1, 1]),
    ('题 甲\n江春花，事往。\n\n', ['江春花，', '事往。', '\n\n'], [1, 1, 1]),
    ('题 甲\n江春\n事往夜，江花\n\n', ['江春\n', '事往夜，', '江花\n', '\n'], [1, 1, 1, 1]),
    ('题 甲\n江春。\n事往，江花。\n\n', ['江春。', '\n事往，'], [1, 0]),
    ('题 甲\n江春。\n事往夜。\n\n', ['江春。', '\n事往夜。', '\n\n'], [1, 1, 0]),
    ('题 甲\n江春。\n事往夜，江花。\n春，夜。\n\n', ['江春。', '\n事往夜，', '江花。', '\n春，'], [1, 1, 1, 0]),
    ('题 甲\n江春。\n事往', ['江春。'], [1]), ('题 甲\n江', [], []), ('题 甲', [], []), ('题 甲\n\n', ['\n'], [0]),
], ids=repr)
def test_a_poem_is_judged_clause_by_clause_up_to_the_first_that_is_wrong(poem, pieces, rewards):
    ends, found = load(GROUP).judge_clauses(poem, FORMS)
    assert found == rewards
    starts = [poem.find('\n') + 1, *ends]
    assert [poem[start:end] for start, end in zip(starts, ends, strict=False)] == pieces


def test_all_clauses_are_right_exactly_where_the_form_is_kept(poems):
    module, cut = load(GROUP), int(0.9 * len(poems))
    forms = module.count_forms(poems[:cut])
    for poem in (each for real in poems[cut:cut + 300] if real.split(' ')[0] in forms for each in broken(real)):
        ends, rewards = module.judge_clauses(poem, forms)
        assert (0 not in rewards and poem.endswith('\n\n')) == (module.reward(poem, forms) == 1), poem
        assert 0 not in rewards[:-1] and ends == sorted(set(ends)) and (not ends or ends[-1] <= len(poem))


def test_advantages_are_measured_from_the_mean_of_those_that_came_so_far():
    """At each clause they sum to 0; one that all got right, or all wrong, or that one poem alone came to, has none."""
    nan = float('nan')
    values = load(GROUP).advantages(torch.tensor([[1, 1, 1, 1], [1, 0, nan, nan], [1, 1, 0, nan], [1, 1, 1, nan]]))
    assert torch.allclose(values, torch.tensor([[0, 1 / 4, 1 / 3, 0], [0, -3 / 4, 0, 0], [0, 1 / 4, -2 / 3, 0], [0, 1 / 4, 1 / 3, 0]]))
    assert torch.allclose(values.sum(dim=0), torch.zeros(4), atol=1e-6)


def test_an_advantage_is_given_to_the_characters_of_its_clause_and_no_others():
    group = ['题 甲\n江春。\n事往夜，江花。\n\n', '题 某乙\n江春花，事往。\n\n', '题 甲\n江春。\n事往，江花。\n\n', '题 甲\n江']
    found = load(GROUP).group_advantages(group, FORMS)
    assert [len(values) for values in found] == [*map(len, group)]
    expected = [[0] * 4 + [0] * 3 + [1 / 3] * 5 + [0] * 3 + [0] * 2, [0] * 5 + [0] * 4 + [1 / 3] * 3 + [0] * 2, [0] * 4 + [0] * 3 + [-2 / 3] * 4 + [0] * 5, [0] * 5]
    for values, right in zip(found, expected, strict=True):
        assert torch.allclose(values, torch.tensor(right, dtype=torch.float)), (values, right)


def steps_of(rung, monkeypatch, folder, change, *options):
    """The gradients of each step, before they are clipped, as one vector a step."""
    seen = []

    def spy(module):
        change(module)
        clip = module.nn.utils.clip_grad_norm_

        def recorded(parameters, most):
            parameters = [*parameters]
            seen.append(torch.cat([p.grad.flatten() for p in parameters]))
            return clip(parameters, most)

        monkeypatch.setattr(module.nn.utils, 'clip_grad_norm_', recorded)

    played(installed(rung, folder), monkeypatch, *options, change=spy)
    return seen


def test_a_group_with_equal_rewards_has_no_gradient(monkeypatch, tmp_path):
    """At the first step, where the model is the one it came from, and with no real poems; a group with better and worse has one."""
    def equal(module):
        module.judge_clauses = lambda poem, forms: ([len(poem)], [1.0])

    def unequal(module):
        module.judge_clauses = lambda poem, forms: ([len(poem)], [float('春' in poem)])

    rung, options = by_path(GROUP), ['--real_weight', 0.0, '--kl_weight', 0.5]
    for change, name in ((equal, 'a'), (unequal, 'b')):
        (tmp_path / name).mkdir()
        first = steps_of(rung, monkeypatch, tmp_path / name, change, *options)[0]
        assert (first.norm() == 0) == (change is equal)


def test_the_gradient_is_at_the_characters_that_the_advantage_is_for(monkeypatch, tmp_path):
    """Only the sixth of each poem is judged: the fifth answer, for the first character is no answer."""
    seen = []

    def sixth(module):
        module.judge_clauses = lambda poem, forms: ([5, 6], [1.0, float(poem[5:6] in [*'春江花月夜'])])
        log_probs = module.log_probs

        def recorded(*given):
            found = log_probs(*given)
            if found.requires_grad:
                found.register_hook(seen.append)
            return found
        module.log_probs = recorded

    played(installed(by_path(GROUP), tmp_path), monkeypatch, '--kl_weight', 0.0, '--real_weight', 0.0, change=sixth)
    own = [gradient for gradient in seen if gradient.any()]
    assert len(own) >= 4 and {column for gradient in own for column in gradient.any(dim=0).nonzero().flatten().tolist()} == {4}


def test_the_divergence_holds_it_near_the_model_that_it_came_from(monkeypatch, tmp_path, capsys):
    """The same reward, with and without it."""
    def easy(module):
        module.judge_clauses = lambda poem, forms: ([len(poem)], [float('春' in poem)])

    distances = []
    for weight in (0.0, 0.9):
        (tmp_path / str(weight)).mkdir()
        played(installed(by_path(GROUP), tmp_path / str(weight)), monkeypatch, '--kl_weight', weight, '--real_weight', 0.0, '--max_iters', 30,
               '--eval_interval', 30, change=easy)
        distances += [float(re.findall(r'离出发 ([\d.]+)', capsys.readouterr().out)[-1])]
    assert distances[1] < distances[0] / 2


def test_real_poems_hold_the_loss(monkeypatch, tmp_path, capsys):
    """With nothing to gain from its own poems, a step is one on real poems, and their loss falls."""
    def equal(module):
        module.judge_clauses = lambda poem, forms: ([len(poem)], [1.0])

    played(installed(by_path(GROUP), tmp_path), monkeypatch, '--max_iters', 20, '--eval_interval', 20, '--kl_weight', 0.0, change=equal)
    first, last = map(float, re.findall(r'验证损失 ([\d.]+)', capsys.readouterr().out))
    assert last < first - 0.2
