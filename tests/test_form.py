"""Form: clauses, what a tune's poems have in common, and what becomes of a poem that breaks it."""

from itertools import pairwise

import pytest
import torch

from kit.files import CORPUS, read
from kit.form import Forms, copies, finished, form, loss, measure, parsed, real, split, whole, written

TUNE = '如梦令'
REAL = '昨夜雨疏风骤。\n浓睡不消残酒。\n试问卷帘人，却道海棠依旧。\n知否。\n知否。\n应是绿肥红瘦。'  # Li Qingzhao
TEXT = f'tail of one\n\n{TUNE} 甲\n{REAL}\n\n{TUNE} 乙\n{REAL}\n\n{TUNE} 丙\n一二三。\n\n点绛唇 丁\n一二三。\n\nhead of one'


def test_the_form_is_the_lengths_of_the_clauses():
    assert form(REAL) == (6, 6, 5, 6, 2, 2, 6)
    assert form('一二，三！四五六？七；八：九、十\n') == (2, 1, 3, 1, 1, 1, 1)
    assert form('') == ()


def test_only_whole_poems_are_read():
    assert split(TEXT) == [(TUNE, REAL), (TUNE, REAL), (TUNE, '一二三。'), ('点绛唇', '一二三。')]
    assert parsed('浣溪沙 苏轼\n一二。') == ('浣溪沙', '一二。')
    assert parsed('浣溪沙') == ('浣溪沙', '')


def test_a_form_that_occurs_twice_is_kept_and_one_clause_off_is_not():
    forms = Forms(split(TEXT))
    assert forms.keeps(TUNE, REAL)
    assert forms.keeps(TUNE, REAL.replace('绿肥红瘦', '红肥绿瘦'))  # other words, same lengths
    for broken in (REAL.replace('骤', ''), REAL.replace('知否。\n', '', 1), REAL + '\n又一句。', REAL.replace('，', '')):
        assert not forms.keeps(TUNE, broken)
    assert not forms.keeps(TUNE, '一二三。')  # occurs once
    assert not forms.keeps('点绛唇', REAL)  # another tune's form
    assert not forms.keeps('无此调', REAL) and not forms.keeps(TUNE, '')
    assert forms.share([(TUNE, REAL), (TUNE, '一二三。')]) == {'poems': 2, 'kept': 1}


def test_the_shortest_common_tunes_come_first_and_a_lost_tune_is_none():
    forms = Forms([('长', '一二三四。')] * 3 + [('短', '一。')] * 3 + [('少', '')] * 2 + [('失调名', '')] * 9)
    assert forms.common(poems=3) == ['短', '长']


def test_a_poem_ends_at_the_blank_line_or_has_no_body():
    assert finished(f'{TUNE} 甲\n{REAL}\n\n点绛唇 乙\n一') == (TUNE, REAL)
    assert finished(f'{TUNE} 甲\n{REAL}\n') == (TUNE, '')


def test_real_poems_keep_their_form_and_shuffled_tunes_do_not():
    every, short = real(CORPUS)
    assert every['kept'] / every['poems'] > 0.9 and short['kept'] / short['poems'] > 0.9
    assert 0 < short['poems'] < every['poems']
    text = read(CORPUS)
    cut = int(0.9 * len(text))
    forms, poems = Forms(split(text[:cut])), split(text[cut:])
    others = [(tune, body) for (tune, _), (_, body) in pairwise(poems) if tune in forms.common()]
    assert forms.share(others)['kept'] < 0.1 * len(others)


class Reciter(torch.nn.Module):
    """Writes the same text from where it stands, for every row but the first, which never ends."""

    def __init__(self, tokenizer, text, before='\n\n'):
        super().__init__()
        self.tokenizer, self.text, self.weight = tokenizer, text, torch.nn.Parameter(torch.zeros(1))
        self.start, self.asked = tokenizer.encode(f'{before}{TUNE} '), 0

    def generate(self, idx, max_new_tokens):
        assert all(row[:len(self.start)] == self.start for row in idx.tolist())
        self.asked += len(idx)
        for _ in range(max_new_tokens):
            place = idx.size(1) - len(self.start)
            column = torch.full((len(idx), 1), self.tokenizer.encode('一')[0])
            column[1:] = self.tokenizer.encode(self.text[place % len(self.text)])[0]
            idx = torch.cat([idx, column], dim=1)
        return idx


class Letters:
    def __init__(self, text):
        self.chars = sorted(set(text))

    def encode(self, text):
        return [self.chars.index(char) for char in text]

    def decode(self, ids):
        return ''.join(self.chars[i] for i in ids)


def test_what_a_model_writes_is_counted():
    tokenizer = Letters(TEXT + REAL)
    model = Reciter(tokenizer, f'甲\n{REAL}\n\n点绛唇 丁\n')
    texts = written(model, tokenizer, [TUNE], 3)
    assert [finished(text) for text in texts] == [(TUNE, ''), (TUNE, REAL), (TUNE, REAL)]
    training = '\n\n'.join(['', *[f'{TUNE} 甲\n{REAL}'] * 50, ''])
    found = measure(model, tokenizer, training, each=4)
    assert (found['poems'], found['kept'], found['ended'], found['copies']) == (4, 3, 3, 3)
    model.text = f'甲\n{REAL.replace("骤", "")}\n\n'
    found = measure(model, tokenizer, training, each=4)
    assert (found['poems'], found['kept'], found['ended']) == (4, 0, 3)


def test_rows_that_begin_with_a_title_are_asked_from_the_title_and_no_longer_than_they_need():
    tokenizer = Letters(TEXT + REAL)
    model = Reciter(tokenizer, f'甲\n{REAL}\n\n', before='')
    assert [finished(text) for text in written(model, tokenizer, [TUNE], 3, before='')][1:] == [(TUNE, REAL)] * 2
    assert model.asked == 3 * -(-len(model.text) // 16) + (160 // 16 - -(-len(model.text) // 16))  # two end early


def test_copies_share_a_long_run_with_a_training_poem():
    training = f'\n\n{TUNE} 甲\n{REAL}\n\n'
    half = REAL[:13] + '别' + REAL[14:27] + '的'  # two runs of 13
    assert copies([REAL, REAL[:14], half, ''], training) == {'copies': 2, 'lines': 6 + 2 + 3, 'copied_lines': 6 + 1 + 1}


def test_the_loss_is_per_character_of_whole_poems_from_their_titles():
    """A model whose logits are drawn once for each place: the sum by hand, over poems of several lengths."""
    tokenizer = Letters(TEXT)
    table = torch.randn(400, len(tokenizer.chars), generator=torch.Generator().manual_seed(1))

    class Fixed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, idx):
            return table[:idx.size(1)].expand(len(idx), -1, -1), None

    for longest in (20, 128):
        terms = [-table[i].log_softmax(-1)[tokenizer.encode(char)[0]].item()
                 for poem in whole(TEXT) for i, char in enumerate(f'{poem}\n\n'[1:longest + 1])]
        assert loss(Fixed(), tokenizer, TEXT, longest, batch_size=3) == pytest.approx(sum(terms) / len(terms), rel=1e-5)
