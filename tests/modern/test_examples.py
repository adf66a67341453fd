"""What modern/pages/examples.py says of a poem that a run wrote: whether it keeps the form, and which clause is wrong."""

import pytest

from kit.files import ROOT
from kit.ladders import LADDERS
from kit.scripts import load, module_of

examples = load(ROOT / 'modern/pages/examples.py')
FORMS = {'归字谣': [(1, 7, 3, 5), (1, 7)]}
RIGHT = '归字谣 蔡伸\n天。\n休使圆蟾照客眠。\n人何在，桂影自婵娟。'


@pytest.mark.parametrize(('poem', 'wrong', 'rest'), [
    (RIGHT, '', ''),
    (RIGHT.replace('客眠', '客'), '休使圆蟾照客', '。\n人何在，桂影自婵娟。'),
    (RIGHT.replace('何在', '今何在'), '人今何在', '，桂影自婵娟。'),
    (f'{RIGHT}\n又一年。', '又一年', '。'),
    (RIGHT.partition('，')[0] + '。', '人何在', '。'),  # ends too early: its last clause
], ids=['right', 'too short', 'too long', 'one too many', 'ends too early'])
def test_the_clause_that_is_marked_is_the_one_that_is_wrong(poem, wrong, rest):
    told = examples.told(module_of(LADDERS['modern']['babygpt_v26_grpo']), FORMS, 7, poem)
    assert told['ended'] and told['kept'] == (poem == RIGHT) and told['step'] == 7
    assert ''.join(told['parts']) == poem and told['parts'][1:] == [wrong, rest]


def test_a_poem_that_never_ends_keeps_no_form_and_is_marked_where_it_goes_on():
    script = module_of(LADDERS['modern']['babygpt_v26_grpo'])
    poem = RIGHT + '\n' + '休' * (script.max_new_tokens - len(RIGHT) + 3)  # as many as it may write, behind 归字谣 and a space
    told = examples.told(script, FORMS, 0, poem)
    assert not told['ended'] and not told['kept'] and told['parts'] == [RIGHT + '\n', poem[len(RIGHT) + 1:], '']
