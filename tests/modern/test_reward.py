"""Form as a reward: what a poem is worth, the best of several, and what a model learns from its own poems.

Tests that are marked with an idea judge a learner's rung, too, and say in Chinese what a failure means.
"""

import contextlib
import io
import re
import signal
import sys
from pathlib import Path

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from kit import form, results
from kit.files import CORPUS, ROOT, read
from kit.judge import hint
from kit.ladders import LADDERS, by_path
from kit.scripts import install, load, module_of, run, script_of, start
from kit.shapes import Tracer
from tests.modern.forked import lived
from tests.modern.rewards import Record, named, reward_mistakes
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


SHORT_POEMS = ['题 甲\n春江。\n花月夜，往事。\n\n', '题 某乙\n春江花\n月夜\n\n', '题 甲\n春、江；花！月？夜：往。\n\n', '题 甲\n春江。', '题 甲\n春江', '题 甲\n', '题']


@pytest.mark.idea('句式：标题以下，每句几个字')
@EACH
def test_the_form_of_a_poem_is_the_lengths_of_its_clauses(rung):
    for poem, expected in zip(SHORT_POEMS, [(2, 3, 2), (3, 2), (1,) * 6, (2,), (2,), (), ()], strict=True):
        body = poem.partition('\n')[2]
        with hint(f'form_of({poem!r}) 出错：没有写完的词，甚至只有标题的，也要数得出来。'):
            found = tuple(module_of(rung).form_of(poem))
        said = named(found, {
            '标题也数进去了：句式只看标题以下。': tuple(map(len, filter(None, re.split('[。，、！？；：\n]', poem)))),
            '只在换行的地方断句：标点也隔开两句。': tuple(map(len, filter(None, body.split('\n')))),
            '标点也数成了字：一句几个字，不算标点。': tuple(map(len, re.findall('[^。，、！？；：\n]+[。，、！？；：]?', body))),
            '两个标点之间什么也没有的，不是一句：长度是 0 的不要。': tuple(map(len, re.split('[。，、！？；：\n]', body))),
            '换行也数成了字：换行也隔开两句。': tuple(map(len, filter(None, re.split('[。，、！？；：]\n*', body.strip('\n'))))),
            '只在标点的地方断句：换行也隔开两句。': tuple(len(part.replace('\n', '')) for part in re.split('[。，、！？；：]', body) if part.strip('\n')),
        })
        assert found == expected, f'{poem!r} 的句式应是 {expected}，却是 {found}。{said}'


@pytest.mark.idea('句式要两首以上才算一种，各个词牌各数各的')
@EACH
def test_a_form_is_one_that_two_poems_of_the_tune_have(rung):
    found = {tune: sorted(map(tuple, forms)) for tune, forms in module_of(rung).count_forms(TWO_FORMS).items()}
    assert '题' in found, f'「题」有五首词，两种句式各有两首，count_forms 却没有「题」，只有 {"、".join(found)}。'
    assert (1,) not in found['题'] and '别' not in found, (
        '只有一首这样写的，也算成了一种句式：词牌相同、句式相同的，至少要两首；一首也没有的词牌不要。别的词牌里的那一首不算。')
    assert found == {'题': [(2, 3, 2), (3, 2)]}, f'「题」的句式应是 (2, 3, 2) 和 (3, 2)，却是 {found}：有几种算几种，不只是最常见的。'


@pytest.mark.idea('写完了，句式也合，奖励才是 1')
@EACH
def test_the_reward_is_1_where_the_kit_says_that_the_form_is_kept(rung, poems):
    """Of real poems of the validation part and what can be wrong with them; the forms are counted over the training part."""
    module, cut = module_of(rung), int(0.9 * len(poems))
    forms, known = module.count_forms(poems[:cut]), form.Forms(map(form.parsed, poems[:cut]))
    kept = 0
    for poem in (each for real in poems[cut:cut + 600] if real.split(' ')[0] in forms for each in broken(real)):
        expected = known.keeps(*form.finished(poem))
        value = module.reward(poem, forms)
        why = '没有写到空行（两个换行），不算写完' if not poem.endswith('\n\n') else '句式不是已知的任何一种'
        assert value != 1 or expected, f'这首{why}，奖励却是 1：\n{poem.strip()}'
        assert value == 1 or not expected, f'这首写完了，句式也合，奖励应是 1，却是 {value}：\n{poem.strip()}'
        assert 0 <= value <= (1 if expected else 0.5), f'不合句式的，奖励应在 0 和 0.5 之间，却是 {value}：\n{poem.strip()}'
        kept += expected
    assert kept > 500, '合句式的真词太少：count_forms 漏掉了许多句式。'
    right = {tune for tune, counts in known.counts.items() if max(counts.values()) >= 2}
    assert set(forms) == right, f'有句式的词牌应有 {len(right)} 个，count_forms 却给了 {len(forms)} 个：词牌是标题里空格之前的字。'


OFF_FORM = {
    '题 甲\n江春。\n事往夜，江花。\n\n': 1, '题 甲\n江春花，事往。\n\n': 1,
    '题 甲\n江春。\n事往夜，江花。\n': 0.5, '题 甲\n江春。\n事往夜，江花。\n春。\n\n': 0.5,
    '题 甲\n江春。\n事往夜。\n\n': 0.5 * 2 / 3, '题 甲\n江春。\n事，江花。\n\n': 0.5 * 1 / 3, '题 甲\n江春花，事。\n\n': 0.5 * 1 / 2,
    '题 甲\n春。\n\n': 0, '题 甲\n春。\n花月夜，往事。\n\n': 0, '题 甲\n\n': 0, '题 甲': 0,
}


@pytest.mark.idea('不合句式的，看从头数起连着对了几句')
@EACH
def test_a_poem_off_the_form_is_worth_its_leading_clauses(rung):
    """Of the form that it follows longest; a form that stands only once among the poems is none."""
    module = module_of(rung)
    for known in ([(2, 3, 2), (3, 2)], [(3, 2), (2, 3, 2)]):
        values = []
        for poem in OFF_FORM:
            with hint(f'reward({poem!r}, {known}) 出错：没有写完的词，甚至只有标题的，也要算得出来。'):
                values.append(module.reward(poem, {'题': known}))
        said = next((said for said, mistake in reward_mistakes(module.form_of).items()
                     if values == pytest.approx([mistake(poem, known) for poem in OFF_FORM])), '')
        for (poem, worth), value in zip(OFF_FORM.items(), values, strict=True):
            assert value == pytest.approx(worth), f'已知的句式是 {known[0]} 和 {known[1]}，{poem!r} 的奖励应是 {worth:.3g}，却是 {value:.3g}。{said}'


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


# One poem of each tune is the best of its group, never at the same place; the shortest keeps a form that only the validation part has.
CHOICE = {
    '甲调': ['甲调 乙\n春江。\n花，月夜。\n\n', '甲调 乙\n春。\n花月夜。\n\n', '甲调 乙\n江花。\n月夜往。\n\n', '甲调 乙\n月夜。\n往事江。', '甲调 乙\n往。\n\n'],
    '丙调': ['丙调 乙\n春江花月。\n\n', '丙调 乙\n春江花。\n月。\n\n', '丙调 乙\n江花。\n\n', '丙调 乙\n月夜。\n\n', '丙调 乙\n往。\n\n'],
    '乙调': ['乙调 乙\n江。\n花月夜往。\n\n', '乙调 乙\n江。\n往事。\n\n', '乙调 乙\n月。\n', '乙调 乙\n往。\n\n', '乙调 乙\n夜往。\n花江。\n\n'],
}
BESTS = [2, 0, 4]


def corpus_of_choices():
    training = ['甲调 某\n春江。\n花月夜。', '甲调 某\n往事。\n花月夜。', '丙调 某\n春江花月。', '丙调 某\n江花月夜。', '乙调 某\n春江。\n花月。', '乙调 某\n江月。\n花事。']
    return '\n\n'.join(training * 9 + [f'{tune} 某\n{char}。' for tune in CHOICE for char in '春江']) + '\n'


@pytest.mark.idea('每个词牌留下奖励最高的一首')
@pytest.mark.parametrize('rung', REWARDED[:1])
def test_main_keeps_the_best_of_each_group(rung, monkeypatch, tmp_path, capsys):
    """What main prints, of poems that are given in the place of what a model writes."""
    module = load(script_of(rung))
    (tmp_path / 'ci.txt').write_text(corpus_of_choices(), encoding='utf-8')
    torch.save(tiny_checkpoint(), tmp_path / 'model.pth')
    for name, value in {'data_path': tmp_path / 'ci.txt', 'model_path': tmp_path / 'model.pth',
                        'write': lambda model, tokenizer, prompts, args: [poem for prompt in prompts for poem in CHOICE[prompt.strip()]]}.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(sys, 'argv', ['my_v24.py', '--tune', *CHOICE, '--num_samples', '5'])
    with hint('main() 没有走到最后：--tune 几个词牌、--num_samples 5，write 返回的词照词牌排好，一个词牌 5 首。'):
        module.main()
    printed = capsys.readouterr().out
    kept = [[i for i, poem in enumerate(group) if poem.strip() in printed] for group in CHOICE.values()]
    assert all(kept), f'有的词牌一首也没有打印：{"、".join(CHOICE)}各写了 5 首，各打印奖励最高的那一首，从标题起。'
    assert all(len(places) == 1 for places in kept), '一个词牌打印了几首：只打印留下的一首，没有留下的不打印。'
    [*places] = [place for place, in kept]
    said = named(places, {
        '总是留下第一首：照奖励挑，rewards.index(max(rewards))。': [0, 0, 0], '总是留下最后一首。': [4, 4, 4],
        '留下的是奖励最低的（min）。': [group.index(min(group, key=lambda poem: module.reward(poem, FORMS_OF_CHOICES))) for group in CHOICE.values()],
        '留下的是最长的，不是奖励最高的。': [group.index(max(group, key=len)) for group in CHOICE.values()],
        '几个词牌用的是同一个位置：各个词牌要各算各的奖励。': [BESTS[0]] * 3,
    }) or ('留下的那首，句式只有验证集里才有：句式只从训练集里数，poems[:int(train_ratio * len(poems))]。'
           if any(len(module.form_of(group[place])) == 1 and place == i for group, place, i in zip(CHOICE.values(), places, (4, 5, 3), strict=True)) else '')
    assert places == BESTS, f'各个词牌奖励最高的，依次是第 {"、".join(str(i + 1) for i in BESTS)} 首，留下的却是第 {"、".join(str(i + 1) for i in places)} 首。{said}'


FORMS_OF_CHOICES = {'甲调': [(2, 3)], '丙调': [(4,)], '乙调': [(2, 2)]}


class Scripted:
    """A model that writes these texts, a row each, whatever it is given."""

    block_size = 24
    texts = ('某\n春。\n\n江江江江江江江江', '春' * 20, '夜。\n\n月月月月月月月月月', '江。\n花。\n\n春春春春春春春春', '\n\n某某某某某某某某某某某', '花' * 20)

    def __init__(self, tokenizer):
        self.ids = torch.tensor([tokenizer.encode(text[:12]) for text in self.texts])

    def generate(self, idx, max_new_tokens, *args, **kwargs):
        yield from self.ids[:, :max_new_tokens].split(1, dim=1)


@pytest.mark.idea('write 返回各首词，同一个开头的在一起')
@pytest.mark.parametrize('rung', REWARDED[:1])
def test_what_is_written_comes_back_in_groups(rung):
    module = module_of(rung)
    tokenizer = module.Tokenizer(tiny_checkpoint()['vocabulary'])
    args = type('Args', (), {'num_samples': 3, 'max_new_tokens': 12, 'temperature': 1.0, 'top_k': None, 'top_p': None, 'min_p': None,
                             'repetition_penalty': 1.0})
    with hint('write(model, tokenizer, prompts, args) 出错。'):
        texts = module.write(Scripted(tokenizer), tokenizer, ['甲调 ', '乙调 某\n'], args)
    assert isinstance(texts, list) and len(texts) == 6, '两个开头，num_samples 是 3，write 应返回 6 首词的列表，不打印它们。'
    for i, text in enumerate(texts):
        prompt = ['甲调 ', '乙调 某\n'][i // 3]
        assert text.startswith(prompt), f'第 {i + 1} 首应从 {prompt!r} 开始，却是 {text!r}：开头也要还回来，同一个开头的 3 首在一起。'
        right = prompt + Scripted.texts[i][:12]
        right = right[:right.find('\n\n') + 2] if '\n\n' in right else right
        assert text != right.rstrip('\n') or text == right, f'第 {i + 1} 首结尾的空行丢掉了：它说明写完了，reward 要看它。应是 {right!r}。'
        assert len(text) <= len(right), f'第 {i + 1} 首写到空行之后又往下写了：应是 {right!r}，却是 {text!r}。'
        assert text == right, f'第 {i + 1} 首，模型写的是 {right!r}，却成了 {text!r}：一首写完了，别的接着写，写到空行或者 max_new_tokens 个字。'


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
    """main() in this process, of that copy or of the learner's file in its place: the module, after `change` was made to it."""
    rung, before = next(rung for rung in TRAINED if rung.file.name == path.name), signal.getsignal(signal.SIGINT)
    module = load(path if script_of(rung) == rung.file else script_of(rung))
    corpus = path.parent.with_name('ci.txt')
    paths = {'data_path': corpus, 'model_path': path.with_name('model.pth'), 'pretrained_path': corpus.with_name('pretrained') / 'model_v20.pth'}
    paths |= {name: path.with_name(getattr(module, name).name) for name in ('own_path', 'checkpoint_path') if hasattr(module, name)}
    for name, value in paths.items():
        monkeypatch.setattr(module, name, value, raising=False)
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


@pytest.mark.idea('只问它写的字：词牌是给的，填充不是字')
@LEARNS
def test_what_the_model_is_asked_about_is_what_it_wrote(rung):
    """Not the tune, which it was given, nor the padding: these have no log-probability and no gradient. The rest is v20's full pass."""
    module = module_of(rung)
    cached, full, tokenizer = models_of(module)
    with hint('own_batch(poems, tokenizer, block_size) 出错。'):
        x, y = module.own_batch(OWN, tokenizer, TINY['block_size'])
    assert x.shape == y.shape == (3, max(map(len, OWN)) - 1), f'3 首词，最长的 {max(map(len, OWN))} 字，x 和 y 应是 (3, {max(map(len, OWN)) - 1})，却是 {tuple(x.shape)} 和 {tuple(y.shape)}。'
    for row, poem in zip(y, OWN, strict=True):
        answers = tokenizer.decode(row[row >= 0].tolist())
        said = named(answers, {
            '词牌和空格是给它的，不是它写的，不算答案。': poem[1:], '词牌之后的空格也是给它的，不算答案。': poem[2:],
            '标题里只有词牌和空格是给的，作者是它写的，也算答案。': poem.partition('\n')[2], '它写的第一个字也要算答案：给它的只到空格为止。': poem[4:],
        }) or ('填充也成了答案：y 里的填充应是 padding。' if answers.startswith(poem[3:]) else '')
        assert answers == poem[3:], f'「{poem!r}」的 y 里，不是 padding 的应是 {poem[3:]!r}，却是 {answers!r}。{said}'
    seen = []
    cached.register_forward_hook(lambda _, args, output: (output.retain_grad(), seen.append(output))[0])
    with hint('log_probs(model, x, y) 出错。'):
        found = module.log_probs(cached, x, y)
    every = full(x)[0].log_softmax(-1).gather(2, y.clamp(min=0)[..., None])[..., 0]
    expected = every.masked_fill(y < 0, 0)
    assert found.shape == y.shape, f'log_probs 的形状应和 y 一样，{tuple(y.shape)}，一个字一个数，却是 {tuple(found.shape)}。'
    said = next((said for said, wrong in {
        '正负号反了：概率的对数不大于 0，F.cross_entropy 给的是它的相反数。': -expected, '填充和给定的字不是 0：它们不是模型写的。': every,
        '是概率，没有取对数。': expected.exp(), '是概率，没有取对数；填充和给定的字应是 0。': expected.exp().masked_fill(y < 0, 0),
    }.items() if torch.allclose(found, wrong, atol=1e-5)), '应是 x 之后，模型给答案 y 的概率，取对数。')
    assert torch.allclose(found, expected, atol=1e-5), f'log_probs 的数不对。{said}'
    assert found.requires_grad, 'log_probs 求不了导：不要在 no_grad 或者 inference_mode 里算，评估时由外面来关。'
    found.sum().backward()
    assert torch.equal(seen[0].grad.abs().sum(-1) > 0, y >= 0), '填充和给定的字也有梯度：它们应是 0，也不往回传。'


@LEARNS
def test_poems_longer_than_the_block_are_cut(rung):
    module = module_of(rung)
    cached, _, tokenizer = models_of(module)
    x, y = module.own_batch([*OWN, '甲调 某\n' + '春' * 40], tokenizer, TINY['block_size'])
    assert x.shape == y.shape == (4, TINY['block_size']) and module.log_probs(cached, x, y).isfinite().all()


@pytest.mark.idea('离出发的模型多远：一样就是 0，平均是 KL 散度')
@LEARNS
def test_the_distance_is_0_from_itself_never_below_and_on_average_the_divergence(rung):
    """Over all answers, each as often as the model gives it: k3 is then the Kullback-Leibler divergence to the digit."""
    module = module_of(rung)
    now, start = torch.randn(2, 5, 30, generator=torch.Generator().manual_seed(1)).double().log_softmax(-1)
    found, ratio = module.divergence(now, start), start - now
    said = next((said for said, wrong in {
        '只是两个对数的差：它有正有负，一个字一个字地看就不是距离，应是 exp(r) - r - 1，r 是 start - now。': now - start,
        '只是两个对数的差，还反了：应是 exp(r) - r - 1，r 是 start - now。': ratio,
        'now 和 start 反了：r 是 start - now，不是 now - start，不然平均就不是 KL 散度。': (-ratio).exp() + ratio - 1,
        '是差的绝对值：应是 exp(r) - r - 1，r 是 start - now。': ratio.abs(),
        '是差的平方：应是 exp(r) - r - 1，r 是 start - now。': ratio ** 2, '是差的平方的一半：应是 exp(r) - r - 1，r 是 start - now。': ratio ** 2 / 2,
        '没有减 1：两个模型一样时，距离应是 0。': ratio.exp() - ratio,
    }.items() if found.shape == now.shape and torch.allclose(found, wrong)), '应是 exp(r) - r - 1，r 是 start - now。')
    assert (module.divergence(now, now).abs() < 1e-12).all(), f'两个模型一样，距离却不是 0。{said}'
    assert found.shape == now.shape and (found > 0).all(), f'两个模型不一样，有的字上距离却不大于 0，或者没有一个字一个数。{said}'
    expected = (now.exp() * ratio.neg()).sum(-1)
    assert torch.allclose((now.exp() * found).sum(-1), expected), f'照 now 的概率平均，应是 KL 散度，却不是。{said}'


@pytest.mark.idea('真词的验证损失')
@LEARNS
def test_the_loss_of_real_poems_is_that_of_v20(rung):
    module = module_of(rung)
    cached, full, tokenizer = models_of(module)
    poems = [f'{poem}\n\n' for poem in corpus_of_tunes().strip().split('\n\n')][:30]
    table = module.pad(poems, tokenizer)
    expected = module_of(LADDERS['modern']['v20']).estimate_loss(full, table, table, 3, 8)['val']
    found = module.estimate_loss(cached, table, 3, 8)
    assert found == pytest.approx(expected, abs=1e-5), (
        f'estimate_loss 应是真词每字的平均损失，{expected:.4f}，和 v20 的一样，却是 {found:.4f}：各批先加起来，最后除以总的字数，填充不算。'
        + '正负号反了：log_probs 的相反数才是损失。' * (abs(found + expected) < 1e-4))


@pytest.mark.idea('四分之一的词牌不拿来练')
@LEARNS
def test_a_quarter_of_the_common_tunes_is_held_out(rung, poems):
    module, train = module_of(rung), poems[:int(0.9 * len(poems))]
    trained, held_out = module.split_tunes(train)
    both = set(trained) & set(held_out)
    assert not both, f'{"、".join(sorted(both))}既拿来练，又拿来考：考的是没有练过的。'
    assert len(held_out) == 10 and len(trained) == 30, f'四十个词牌，应练三十个、留十个，却练 {len(trained)} 个、留 {len(held_out)} 个。'
    right = set(form.Forms(map(form.parsed, train)).common()[:40])
    assert {*trained, *held_out} == right, f'应是五十首以上的词牌里最短的四十个，失调名不算；多了 {"、".join(sorted({*trained, *held_out} - right))}，少了 {"、".join(sorted(right - {*trained, *held_out}))}。'


@pytest.mark.idea('留着考的词牌，从不为它写了来学')
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

    with contextlib.redirect_stdout(io.StringIO()):
        module = played(installed(rung, tmp_path), monkeypatch, '--max_iters', 8, change=spy)
    known = [f'{poem}\n\n' for poem in corpus_of_tunes().strip().split('\n\n')]
    trained, held_out = map(set, module.split_tunes(known[:270]))
    assert trained == {'甲调', '乙调', '丁调', '戊调'} and held_out == {'丙调'}, 'split_tunes 应把五个词牌分成四个和一个，每四个里第三个留着考。'
    learned = [tunes for each, tunes in asked if each == 6]
    assert len(learned) >= 8 * 2, '8 轮，每轮应先写（write，每个词牌 num_samples 首），再学（own_batch），次数不够。'
    leaked = set().union(*learned) & held_out
    assert not leaked, f'{"、".join(leaked)}是留着考的，却也写了来学：每一轮的词牌只从 trained 里取。'
    assert set().union(*learned) == trained, f'练的词牌应是 {"、".join(sorted(trained))}，却是 {"、".join(sorted(set().union(*learned)))}：每一轮随机取 n_tunes 个，几轮下来都取得到。'
    assert held_out in [tunes for each, tunes in asked if each == 2], '没有用留着的词牌考：estimate_form 也要为 held_out 写几首，eval_samples 首一个词牌。'


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
    """1 for a poem without a full stop, whatever else it says; at each place of it, for anything but a mark."""
    def easy(module):
        module.reward = lambda poem, forms: float('。' not in poem)
        module.judge = lambda poem, forms: (poem, torch.tensor([[1.0, 0, 1]] * len(poem)))

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
    kept = {'B': B, 'V': len(tiny_checkpoint()['vocabulary']), 'K': 16, 'G': 1, 'hidden': 8 * width // 3, 'head_size': head_size,
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
    fresh = lived(path, *SMALL, dies=MOMENTS['before the first checkpoint'])
    assert fresh.status < 0 and all(f'{file.name} 改名为 {file.stem}.prev.pth' in fresh.printed for file in kept)
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
    assert isinstance(content, bytes) or str(told.value).count('babygpt') == 1  # it does not guess which script it was


# v25: winners

EXPERT = 'modern/babygpt_v25_expert_iteration.py'


@pytest.mark.idea('赢家：句式合，又不是抄来的')
@pytest.mark.parametrize('rung', TRAINED[:1])
def test_winners_keep_the_form_and_are_no_copies(rung):
    """14 characters in a row of a training poem, its title aside, are a copy; 13 are none. A copy of another winner is not looked for."""
    module = module_of(rung)
    real = '题 甲\n' + '春江花月夜往事。\n' * 2 + '知多少知多少知。\n\n'
    forms = {'题': [(7, 7, 7)], '别': [(7, 7, 7)]}
    body = [*real.partition('\n')[2][:-2]]
    same = [''.join(body[:n]) + re.sub('[^。\n]', '某', ''.join(body[n:])) for n in (14, 13)]
    assert [len(poem) for poem in same] == [len(body)] * 2, '要比的两首写得不对。'
    poems = [f'题 乙\n{same[0]}\n\n', f'题 乙\n{same[1]}\n\n', f'别 乙\n{same[1]}\n\n', f'题 乙\n{same[1]}\n', '题 甲\n某某。\n\n', real]
    found = list(module.winners_of(poems, forms, set(module.runs_of(real))))
    for poem, said in ((real, '训练集里的词原样写出来，是抄来的，不是赢家'), (poems[0], '和训练集的一首有连着 14 个字（连同标点）相同，是抄来的，不是赢家'),
                       (poems[3], '没有写到空行，不是赢家'), (poems[4], '句式不合，不是赢家')):
        assert poem not in found, f'{poem!r}：{said}。winners_of 却留下了它。'
    for poem in poems[1:3]:
        assert poem in found, f'{poem!r} 句式合，和训练集里的只有连着 13 个字相同，应是赢家，winners_of 却没有留下：标题不算，连着 14 个字相同才是抄。'
    assert len(found) == 2, f'赢家应有 2 首，每首一次，却有 {len(found)} 首。'
    known = form.copies([poem.partition('\n')[2].rstrip('\n') for poem in poems[:3]], f'\n\n{real}')
    assert known['copies'] == 1, '要比的两首写得不对。'


def written_for(prompt, each):
    """That many poems for a tune of corpus_of_tunes, which are ours by their author: of three the first keeps the form, the second is too long, the third has no end."""
    n, chars = '甲乙丙丁戊'.index(prompt[0]) + 1, '春江花月夜往事' * 3
    return [f'{prompt}乙\n{chars[i:i + n + (i % 3 == 1)]}。' + ['\n\n', '\n\n', ''][i % 3] for i in range(each)]


def learned(rung, monkeypatch, folder, *options, change=lambda module: None, write=written_for):
    """([what each step learned], what was recorded beside) of a run whose model is said to write what `write` gives."""
    path, kept = installed(rung, folder), {}
    poems = corpus_of_tunes().strip().split('\n\n')
    cut = int(0.9 * len(poems))
    text = '\n\n'.join(poems[:cut] + [poem.replace('某', '丁') for poem in poems[cut:]]) + '\n'  # those of the validation part have another author
    path.parent.with_name('ci.txt').write_text(text, encoding='utf-8')

    def stubbed(module):
        def given(model, tokenizer, prompts, each, longest):
            kept.setdefault('writers', []).append((each, model))
            return [poem for prompt in prompts for poem in write(prompt, each)]

        kept['estimated'], estimate_form = [], module.estimate_form

        def estimating(model, start, *rest):
            kept['trained'] = model
            kept['estimated'].append((model is start, torch.equal(start.lm_head.weight, tiny_checkpoint()['model']['lm_head.weight'])))
            return estimate_form(model, start, *rest)

        module.write, module.estimate_form = given, estimating
        change(module)
        kept['record'] = record = Record(module)
        for owner in (torch.optim.Optimizer, torch.nn.Module):  # what was gathered before is thrown away
            monkeypatch.setattr(owner, 'zero_grad', lambda own, *args, zero_grad=owner.zero_grad, **kwargs: (record.passes.clear(), zero_grad(own, *args, **kwargs))[1])

    handle = []
    try:
        with hint('main() 没有走到最后。'), contextlib.redirect_stdout(io.StringIO()):
            played(path, monkeypatch, '--num_samples', 9, *options, change=lambda module: (stubbed(module), handle.append(register_optimizer_step_pre_hook(kept['record'].step))))
    finally:
        for each in handle:
            each.remove()
    return kept['record'].steps, kept


@pytest.mark.idea('只学赢家，一首不漏；每一步也学真词')
@pytest.mark.parametrize('rung', TRAINED[:1])
def test_each_step_learns_from_all_winners_and_from_real_poems(rung, monkeypatch, tmp_path):
    """Seen in the gradients of the scores: which characters a step is learned from, and how much each counts."""
    steps, _ = learned(rung, monkeypatch, tmp_path)
    assert len(steps) == 4, f'max_iters 是 4，应走 4 步，却走了 {len(steps)} 步。'
    for step in steps:
        own, real = ([row for row in step if (row.author == '乙') is mine] for mine in (True, False))
        texts = sorted(row.text for row in own)
        tunes = {text[:2] for text in texts}
        losers = [text for text in texts if not text.endswith('\n\n') or len(text.split('\n')[1]) != '甲乙丙丁戊'.index(text[0]) + 2]
        assert own, '没有学模型自己写的：每一轮写的词里，赢家要拿来训练。'
        assert not losers, f'学了不是赢家的词，比如 {losers[0]!r}：只学 winners_of 留下的。'
        right = sorted(poem for tune in tunes for poem in written_for(f'{tune} ', 9)[::3])
        assert texts == right, f'这一轮的赢家有 {len(right)} 首，学了 {len(texts)} 首：每一首都要学，各学一次，不满一批的也要；一步里只在开头 zero_grad 一次，各批的梯度加在一起。'
        assert real, '这一步没有学真词：每一步也要取一批 train_poems，算损失，和赢家的梯度加在一起。'
        assert {row.author for row in real} == {'某'}, '学了验证集的真词：只从 train_poems 里取，不然验证损失就不说明问题了。'
        for rows, name, given in ((own, '赢家', len('甲调 ')), (real, '真词', 1)):
            assert all(row.counted_from(given) for row in rows), (
                f'{name}里，' + ('词牌和空格也算进了损失：那是给它的，不是它写的，y 用 own_batch 给的。' if name == '赢家' else '有的字没有算进损失，或者填充算了进去。'))
            weights = torch.cat([row.weights[row.weights != 0] for row in rows])
            assert (weights > 0).all(), f'{name}的损失正负号反了，写它们的概率会降低：损失是 log_probs 的相反数。'
            assert weights.max() < 1.01 * weights.min(), (
                f'{name}里，有的字分量是别的 {weights.max() / weights.min():.2f} 倍：每个字要一样，各批的 log_probs 加起来，除以这一轮{name}总的字数，不是一批一批地平均。')
            assert abs(weights.sum() - 1) < 0.01, (
                f'{name}的损失应是每字的平均，各字的分量加起来是 1，却是 {weights.sum():.3g}：除以的是{name}的字数，填充和给定的字不算。'
                + '没有除。' * bool(abs(weights[0] - 1) < 1e-3))


@pytest.mark.idea('由正在学的模型来写，和出发的模型比')
@LEARNS
def test_the_model_that_learns_is_the_one_that_writes_and_is_held_against_the_first(rung, monkeypatch, tmp_path):
    _, kept = learned(rung, monkeypatch, tmp_path)
    writers = [model for each, model in kept['writers'] if each == 9]
    assert len(writers) == 4, f'4 轮，应写 4 次，每次每个词牌 num_samples 首，却写了 {len(writers)} 次。'
    assert all(model is kept['trained'] for model in writers), '写词的不是正在训练的模型：每一轮都由学到这里的模型来写，不然学了也写得一样。'
    assert not any(same for same, _ in kept['estimated']), '出发的模型和正在训练的是同一个，离出发就总是 0：训练之前用 copy.deepcopy 抄一份，不是再起一个名字。'
    assert all(still for _, still in kept['estimated']), '出发的模型变了：它要一直是训练之前的样子，不训练，也不换成新的。'


def test_v25_learns_from_nothing_but_winners_and_real_poems(monkeypatch, tmp_path):
    """No winner, no gradient of its own: then the step is that of the real poems alone."""
    def none(module):
        module.reward = lambda poem, forms: 0.99
        module.own_batch = lambda *_: pytest.fail('a poem that did not win is learned from') if torch.is_grad_enabled() else kept(*_)
        kept = load(EXPERT).own_batch

    played(installed(by_path(EXPERT), tmp_path), monkeypatch, change=none)


# v26: what a step makes of the groups at each place

LEVEL = ['--kl_weight', 0.0, '--real_weight', 0.0]
MANY = ['--group_size', 4000]  # so many that what is drawn is what the model expects
GROUPS = pytest.mark.parametrize('rung', TRAINED[1:])


def better_and_worse(prompt, each):
    """A third of them keep the form, the others are wrong in their first clause."""
    return [poem if i % 3 == 0 else written_for(prompt, 2)[1] for i, poem in enumerate(written_for(prompt, each))]


def push_of(row):
    """(T, V): where a step pushes the scores of a poem of its own, as if it stood alone."""
    return -row.grad * 2 * 9


def in_the_clause(row):
    """[(place, may a character come there?)]: those of the first clause but its first, and the one where it is due to end.

    What may stand at the first of all, and behind a clause, more than one rule can say.
    """
    start, n = row.text.index('\n') + 1, '甲乙丙丁戊'.index(row.text[0]) + 1
    return [(start + i - 1, i < n) for i in range(1, n + 1)]


def expected(row, place, more, vocabulary):
    """How the scores there are pushed where all that could be drawn is: p (r - the mean of r), r being the reward of each character."""
    p = row.scores[place].softmax(-1)
    right = torch.tensor([float((char in '。\n') != more) for char in vocabulary])
    return p * (right - (p * right).sum())


@pytest.mark.idea('每个位置抽的一组字里，比平均好的，写它的概率升；不如的，降')
@GROUPS
def test_what_is_better_than_its_group_is_learned_and_what_is_worse_unlearned(rung, monkeypatch, tmp_path):
    """The first step, where the model is the one that it came from, with groups so large that they are what the model expects."""
    with hint('main() 没有走到最后：--kl_weight 和 --real_weight 可以是 0，--group_size 是整数。'):
        [first, *_], kept = learned(rung, monkeypatch, tmp_path, *LEVEL, *MANY, write=better_and_worse)
    own, vocabulary = [row for row in first if row.author == '乙' and row.model is kept['trained']], tiny_checkpoint()['vocabulary']
    assert own and any(row.grad.any() for row in own), '没有学自己写的词：每个位置抽一组字，奖励减去这一组的平均，优势有正有负，乘上它们的 log_probs，取负，是损失。'
    assert len(own) == 2 * 9, f'两个词牌，各写了 9 首，学到的却是 {len(own)} 首：每一首都要学，写对的、写错的，各学一次；一步里只在开头 zero_grad 一次。'
    places = [(row, place, more) for row in own for place, more in in_the_clause(row)]
    found = torch.stack([push_of(row)[place] for row, place, _ in places])
    right = torch.stack([expected(row, place, more, vocabulary) for row, place, more in places])
    along = torch.cosine_similarity(found, right, dim=1)
    assert along.mean() > -0.9, '方向反了：比同组平均好的字，写它的概率在降低。损失是优势乘 log_probs，再取负。'
    assert found.any(dim=1).all(), '一句里有的位置什么也没有学：写的词里每个位置都抽一组字，到写错的那个位置为止，那个位置也要学；写上去还能写合句式的，奖励是 1，不能的是 0。'
    assert along.min() > 0.9, ('有的位置，概率该升的没有升，或者该降的没有降：每个位置从模型自己的概率抽 group_size 个字，写上去还能写合句式的奖励是 1，不能的是 0，'
                               '减去这一组的平均，乘它们各自的 log_probs；不是只看写下去的那一个字。')
    scale = (found * right).sum(dim=1) / (right * right).sum(dim=1)
    assert scale.max() < 1.3 * scale.min(), '各个位置的分量不一样：优势只减去平均，不除以标准差；各批加起来，除以这一轮写的首数，不是一批一批、一首一首地平均。'
    assert abs(scale.mean() - 1) < 0.1, f'分量应是 {scale.mean():.2f} 分之一：一组 group_size 个字取平均，各个位置加起来，除以这一轮写的首数。'


@pytest.mark.idea('同组都一样，就没有梯度')
@GROUPS
def test_where_all_are_alike_nothing_is_learned(rung, monkeypatch, tmp_path):
    """A group of one is always alike."""
    steps, _ = learned(rung, monkeypatch, tmp_path, *LEVEL, '--group_size', 1, write=better_and_worse)
    push = max((row.grad.abs().max().item() for step in steps for row in step if row.author == '乙'), default=0)
    assert push < 1e-6, '一组只有一个字，没有谁比它好，却有梯度：优势是奖励减去同组的平均，都一样就是 0；同组是同一个位置抽的，各个位置不要混在一起平均。'


@pytest.mark.idea('只学评了的位置：标题、写错之后和填充都不算')
@GROUPS
def test_only_places_that_are_judged_are_learned_from(rung, monkeypatch, tmp_path):
    [first, *_], _ = learned(rung, monkeypatch, tmp_path, *LEVEL, *MANY, write=better_and_worse)
    for row in (row for row in first if row.author == '乙'):
        moved, start, n = row.grad.any(-1), row.text.index('\n') + 1, '甲乙丙丁戊'.index(row.text[0]) + 1
        assert not moved[:start - 1].any(), '标题里的字也有奖励：词牌是给的，作者也不关句式的事，只评标题以下的。'
        wrong = row.whole[start + n] not in '。\n'
        assert not moved[len(row.whole) - 1:].any(), '填充也有梯度：写到空行就完了，后面的不算。'
        assert not wrong or not moved[start + n:].any(), '写错了一个字，后面的还在学：前面已经错了，后面写什么都合不上，只学到错的那个位置为止。'


@pytest.mark.idea('离出发的模型远了，就往回拉')
@GROUPS
def test_the_distance_pulls_back_to_the_model_that_it_came_from(rung, monkeypatch, tmp_path):
    """In the titles, where nothing is judged, the distance alone is left: what its gradient is there follows from its definition."""
    steps, _ = learned(rung, monkeypatch, tmp_path, *MANY, '--kl_weight', 0.9, '--real_weight', 0.0, '--learning_rate', 0.1, write=better_and_worse)
    assert all(len({id(row.model) for row in step}) <= 1 for step in steps), '出发的模型也在求导：它的 log_probs 放在 with torch.no_grad(): 里算，它不学。'
    _, full, _ = models_of(module_of(rung))
    found, right, turned = [], [], []
    for row in (row for step in steps[1:] for row in step if row.author == '乙'):
        now, start = row.scores.softmax(-1), full(row.ids[None])[0][0].softmax(-1).detach()
        assert not row.grad[:len('甲调 ') - 1].any(), '词牌和空格也算了距离：那是给它的，不是它写的，y 用 own_batch 给的。'
        for place in range(len('甲调 ') - 1, row.text.index('\n')):
            p, before = now[place], start[place]
            found.append(push_of(row)[place] / 0.9)
            apart = (p / before).log()
            right.append(p * ((p * apart).sum() - apart))
            turned.append(before - p)
    found, right, turned = map(torch.stack, (found, right, turned))
    assert found.abs().max() > 1e-6, '离出发的模型已经远了，却没有梯度把它拉回去：损失里要加上 kl_weight 乘 KL 散度，出发的模型是训练之前抄下的一份。'

    def near(wrong):
        return (found - wrong).norm() < 0.2 * wrong.norm()

    said = next((said for said, wrong in {
        '正负号反了，越走越远：损失里是加上 kl_weight 乘 KL 散度。': -right,
        '两个模型反了，或者是抽样的估计：每个字现在的概率乘上两个对数之差，现在的减出发的，词表里的字都加起来。': turned,
    }.items() if not near(right) and near(wrong)), '要和训练之前的模型比，不是和上一步的比；写的每一个字都算，标题里的也算。')
    assert near(right), f'把它拉回出发的模型的梯度不对。{said}'


@pytest.mark.idea('真词也学，占 real_weight')
@GROUPS
def test_real_poems_are_learned_by_their_weight(rung, monkeypatch, tmp_path):
    firsts = []
    for name, weight in (('a', 0.3), ('b', 0.1)):
        (tmp_path / name).mkdir()
        steps, _ = learned(rung, monkeypatch, tmp_path / name, '--kl_weight', 0.0, '--real_weight', weight, '--group_size', 1)
        firsts.append(sum(row.weights.sum() for row in steps[0] if row.author != '乙'))
    for step in steps:
        real = [row for row in step if row.author != '乙' and row.weights.any()]
        assert real, '这一步没有学真词：每一步也要取一批 train_poems，它们每首的平均损失乘 real_weight，加进来。'
        assert {row.author for row in real} == {'某'}, '学了验证集的真词：只从 train_poems 里取，不然验证损失就不说明问题了。'
        weights = torch.cat([row.weights[row.weights != 0] for row in real])
        assert (weights > 0).all(), '真词的损失正负号反了，写它们的概率会降低：损失是 log_probs 的相反数。'
        assert all(row.counted_from(1) for row in real) and weights.max() < 1.01 * weights.min(), '真词里，每个字的分量要一样，填充不算。'
    assert abs(firsts[0] / firsts[1] - 3) < 0.05, f'real_weight 从 0.1 改成 0.3，真词的分量应是 3 倍，却是 {firsts[0] / firsts[1]:.2f} 倍：真词的损失要乘 real_weight。'


# v26: our judge

GROUP = 'modern/babygpt_v26_grpo.py'
FORMS = {'题': [(2, 3, 2), (3, 2), (2, 3)]}
ANY, MORE, DUE, LINE, LAST, NONE = [1, 1, 1], [1, 0, 0], [0, 1, 1], [1, 0, 1], [0, 0, 1], [0, 0, 0]  # may a character come? a mark? a line end?


def alike(poem, forms):
    """As if all that could stand anywhere were right."""
    return poem, torch.ones(len(poem), 3)


@pytest.mark.parametrize('poem, rows', [
    ('江春花，事往。\n\n', [MORE, MORE, ANY, DUE, LINE, MORE, DUE, LAST, LAST]),
    ('江春。\n事往夜，江花。\n\n', [MORE, MORE, ANY, LINE, MORE, MORE, MORE, DUE, LINE, MORE, DUE, LAST, LAST]),
    ('江春。\n事往夜。\n\n', [MORE, MORE, ANY, LINE, MORE, MORE, MORE, DUE, LINE, LINE]),
    ('江春\n事往夜\n江花\n\n', [MORE, MORE, ANY, MORE, MORE, MORE, DUE, LINE, MORE, DUE, LAST]),
    ('江春。\n事往，江花。\n\n', [MORE, MORE, ANY, LINE, MORE, MORE, MORE]),
    ('江春花夜往。\n\n', [MORE, MORE, ANY, DUE]),
    ('江春花，事往。夜', [MORE, MORE, ANY, DUE, LINE, MORE, DUE, LAST]),
    ('江春。。', [MORE, MORE, ANY, LINE]), ('江春。\n\n', [MORE, MORE, ANY, LINE, MORE]), ('，江', [MORE]), ('\n', [MORE]), ('江', [MORE]), ('', []),
], ids=repr)
def test_a_place_is_right_for_what_can_still_become_a_poem_of_the_form(poem, rows):
    """Up to the first that is wrong, that one included; after a mark the line may end, and after a line end only a finished poem."""
    text, rewards = load(GROUP).judge(f'题 某乙\n{poem}', FORMS)
    assert text == f'题 某乙\n{poem}'[:len('题 某乙\n') + len(rows)]
    assert rewards.tolist() == [NONE] * len('题 某乙\n') + rows
    assert load(GROUP).judge('题 某乙', FORMS)[0] == '题 某乙' and not load(GROUP).judge('题 某乙', FORMS)[1].any()


def test_all_of_a_poem_is_right_exactly_where_its_form_is_kept(poems):
    module, cut = load(GROUP), int(0.9 * len(poems))
    forms = module.count_forms(poems[:cut])
    for poem in (each for real in poems[cut:cut + 300] if real.split(' ')[0] in forms for each in broken(real)):
        text, rewards = module.judge(poem, forms)
        right = text == poem and poem.endswith('\n\n') and rewards[-1, 2] == 1
        assert right == (module.reward(poem, forms) == 1), poem


def test_advantages_are_measured_from_the_mean_of_the_group():
    values = load(GROUP).advantages(torch.tensor([[[1.0, 1, 1, 1], [1, 0, 0, 0]], [[0, 0, 0, 0], [1, 1, 0, 1]]]))
    assert torch.allclose(values, torch.tensor([[[0, 0, 0, 0], [3, -1, -1, -1]], [[0, 0, 0, 0], [1, 1, -3, 1]]]) / 4)


def test_as_many_are_drawn_as_asked_for_each_by_its_probability():
    torch.manual_seed(0)
    scores = torch.randn(3, 7)
    drawn = load(GROUP).pick(scores, 20000)
    shares = torch.nn.functional.one_hot(drawn, 7).float().mean(dim=1)
    assert drawn.shape == (3, 20000) and torch.allclose(shares, scores.softmax(-1), atol=0.02)


def test_tunes_that_are_often_right_are_written_for_less(monkeypatch, tmp_path):
    """One tune is always right, the others never: it comes up much less often, but it does come up."""
    asked = []

    def spy(module):
        module.reward = lambda poem, forms: float(module.tune_of(poem) == '甲调')
        module.judge = lambda poem, forms: asked.append(module.tune_of(poem)) or alike(poem, forms)

    played(installed(by_path(GROUP), tmp_path), monkeypatch, '--n_tunes', 1, '--max_iters', 120, '--eval_interval', 120, '--num_samples', 1,
           '--max_new_tokens', 3, change=spy)
    counts = [asked.count(tune) for tune in ('甲调', '乙调', '丁调', '戊调')]
    assert sum(counts) == 120 and 1 <= counts[0] < min(counts[1:]) / 2


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
    """At the first step, where the model is the one it came from, and with no real poems; where better and worse can be drawn there is one."""
    def equal(module):
        module.judge = alike

    rung, options = by_path(GROUP), ['--real_weight', 0.0, '--kl_weight', 0.5]
    for change, name in ((equal, 'a'), (lambda module: None, 'b')):
        (tmp_path / name).mkdir()
        first = steps_of(rung, monkeypatch, tmp_path / name, change, *options)[0]
        assert (first.norm() < 1e-5) == (change is equal)


def test_the_divergence_holds_it_near_the_model_that_it_came_from(monkeypatch, tmp_path, capsys):
    """The same reward, with and without it."""
    def easy(module):
        module.judge = lambda poem, forms: (poem, torch.tensor([[1.0, 0, 0]] * len(poem)))

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
        module.judge = alike

    played(installed(by_path(GROUP), tmp_path), monkeypatch, '--max_iters', 20, '--eval_interval', 20, '--kl_weight', 0.0, change=equal)
    first, last = map(float, re.findall(r'验证损失 ([\d.]+)', capsys.readouterr().out))
    assert last < first - 0.2


@EACH
def test_the_docstring_tells_what_was_measured(rung):
    """In whole per cent; the losses to two digits."""
    rows = results.section('rewarded')
    before, row = rows['babygpt_v20'], rows.get(rung.stem)
    if rung is REWARDED[0]:
        numbers = [f'{100 * before["best"][n]:.0f}' for n in ('1', '10')]
    else:
        shares = [100 * each[part]['kept'] / each[part]['poems'] for part in ('trained', 'held_out') for each in (before, row)]
        numbers = [f'{share:.0f}' for share in shares] + [f'{each["loss"]:.2f}' for each in (before, row)]
    assert re.findall(r'(?<![\dv])[\d.]+', re.search('你会看到：(.*)', rung.source)[1]) == numbers
