"""What modern/pages/inside.py tells of the tokens is so of the text, for our merges and for SentencePiece's."""

from kit.files import CORPUS, ROOT, read
from kit.scripts import load

inside = load(ROOT / 'modern/pages/inside.py')
TRAINING, VALIDATION = read(CORPUS)[:40_000], read(CORPUS)[40_000:44_000]


def test_both_ways_are_told_of_the_same_text_with_as_many_tokens():
    found = inside.tokens(TRAINING, VALIDATION, n_merges=2500, shown=20)
    assert set(found) == {'babygpt_bpe', 'SentencePiece'}
    for row in found.values():
        assert row['vocabulary'] == 2756 and 20 == len(set(row['most'])) < row['words'] < 2500
        assert all(len(word) > 1 and word in TRAINING for word in row['most'])
        assert TRAINING.count(row['most'][0]) > TRAINING.count(row['most'][-1])
    assert {'东风', '何处'} & set(found['babygpt_bpe']['most']) & set(found['SentencePiece']['most'])


def test_tokens_per_character_count_the_validation_part():
    """No merge: three bytes for a Chinese character, one for a space or a line end; a word that is always there: one token."""
    text = VALIDATION[:1000]
    found = inside.tokens(TRAINING, text, n_merges=2500)['babygpt_bpe']['per_character']
    assert 0.5 < found < len(text.encode()) / len(text)
    word = '浣溪沙'
    assert inside.tokens(TRAINING, word, n_merges=2500)['babygpt_bpe']['per_character'] == round(1 / 3, 4)


def test_sentencepiece_changes_no_character():
    encode, texts, _ = inside.sentencepiece(TRAINING, 2756)
    text = TRAINING[:2000]
    assert ''.join(texts[i] for i in encode(text)).replace('�', '') == ''.join(c for c in text if c in texts) != ''
