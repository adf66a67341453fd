"""Form as a reward: what a poem is worth, the best of several, and what a model learns from its own poems."""

import re

import pytest
import torch

from kit import form
from kit.files import CORPUS, ROOT, read
from kit.ladders import LADDERS
from kit.scripts import install, load, module_of, run
from kit.shapes import Tracer
from tests.modern.test_sample_command import assert_clear, checkpoint

REWARDED = [rung for rung in LADDERS['modern'].rungs if re.search(r'_v2[4-6]_', rung.path)]
EACH = pytest.mark.parametrize('rung', REWARDED, ids=lambda rung: rung.stem)
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
