"""Byte-level BPE: what it learns, that every text comes back, and that the ids are those of the tokenizers library."""

import random
import re
from collections import Counter
from itertools import pairwise

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from kit.scripts import install, load, losses
from tests.modern.forked import lived
from tests.modern.models import LADDER, POEMS
from tests.modern.test_bad_input import options_of
from tests.root.test_bad_input import POSIX

PATH = 'modern/babygpt_bpe.py'
bpe = load(PATH)
STRANGE = ('😀😀👨\u200d👩\u200d👧 مرحبا بالعالم، नमस्ते 한국어 e\u0301 ｆｕｌｌ aaaaa aaa a\t\x00\r\n\u2028x\x85y\x1cz ²½  end '
           '\ufeff\U0010ffff \ue000春\u3000江。。。！')
TEXTS = {'ci': ''.join(POEMS), 'strange': ''.join(POEMS[:9]) + STRANGE * 20, 'runs': 'aaaaaaaaa aaa aa aaaaa\nababababa aba\n' * 9}


def learned(text, n_merges=150):
    return bpe.Tokenizer(bpe.train_merges(text, n_merges))


def letters():
    """The letter that GPT-2 writes for each byte (Radford and others 2019, encoder.py)."""
    own = [*range(ord('!'), ord('~') + 1), *range(ord('¡'), ord('¬') + 1), *range(ord('®'), ord('ÿ') + 1)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in own else chr(next(others)) for byte in range(256)]


def theirs(tokenizer):
    """The tokenizers library with the same merges and the same chunks."""
    names = [''.join(letters()[byte] for byte in token) for token in tokenizer.tokens]
    found = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, [(names[a], names[b]) for a, b in tokenizer.merges]))
    found.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(bpe.chunk_pattern), 'isolated'),
                                                   pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    found.decoder = decoders.ByteLevel()
    return found


def mixed(text):
    """Texts of the characters of that one, and of strange ones, as they fall."""
    draw, chars = random.Random(0), sorted({*text, *STRANGE})
    return [text, STRANGE, *(''.join(draw.choices(chars, k=draw.randint(0, 40))) for _ in range(100))]


@pytest.mark.parametrize('text', TEXTS)
def test_ids_are_those_of_tokenizers_with_the_same_merges(text):
    tokenizer = learned(TEXTS[text])
    other = theirs(tokenizer)
    assert len({*tokenizer.tokens}) == tokenizer.vocab_size == 256 + len(tokenizer.merges)
    for said in mixed(TEXTS[text]):
        assert tokenizer.encode(said) == other.encode(said).ids, said


@pytest.mark.parametrize('text', TEXTS)
def test_any_text_comes_back(text):
    tokenizer = learned(TEXTS[text])
    for said in mixed(TEXTS[text]):
        ids = tokenizer.encode(said)
        assert tokenizer.decode(ids) == said
        assert sum(tokenizer.lengths()[i].item() for i in ids) == len(said)


@pytest.mark.parametrize('text', TEXTS)
def test_each_merge_takes_the_commonest_pair(text):
    """Counted anew after each merge, chunk by chunk; of equally common ones the first in order."""
    chunks = [[*chunk.encode()] for chunk in re.findall(bpe.chunk_pattern, TEXTS[text])]
    merges = bpe.train_merges(TEXTS[text], 60)
    for new, pair in enumerate(merges, 256):
        counts = Counter(each for chunk in chunks for each in pairwise(chunk))
        assert pair == min(counts, key=lambda each: (-counts[each], each))
        for chunk in chunks:
            for i in range(len(chunk) - 1):
                if tuple(chunk[i:i + 2]) == pair:
                    chunk[i:i + 2] = [new]
    counts = Counter(each for chunk in chunks for each in pairwise(chunk))
    assert len(merges) == 60 or max(counts.values(), default=1) == 1  # what stands in one place only is not merged


def test_a_broken_character_is_shown_not_raised():
    tokenizer = learned(TEXTS['ci'], 0)
    assert tokenizer.decode(tokenizer.encode('春')[:2]) == '�'


def test_the_loss_is_told_for_each_character():
    """A model for which all tokens are alike: ln V for each token, over the characters of the tokens."""
    tokenizer = learned(TEXTS['ci'])
    rows = [tokenizer.encode(poem) for poem in POEMS]
    table, lengths = bpe.pad(rows), tokenizer.lengths()

    class Even(torch.nn.Module):
        def forward(self, x, y):
            return None, torch.tensor(tokenizer.vocab_size).log()

    said = bpe.estimate_loss(Even(), table[:30], table[30:], 100, 7, lengths)['val']
    n_tokens = sum(len(row) - 1 for row in rows[30:])
    n_chars = sum(len(tokenizer.decode(row[1:])) for row in rows[30:])
    assert n_tokens < 0.8 * n_chars
    assert said == pytest.approx(n_tokens / n_chars * torch.tensor(tokenizer.vocab_size).log().item(), rel=1e-4)


@POSIX
def test_it_trains_on_any_language_writes_and_goes_on(tmp_path):
    path = install(PATH, tmp_path, corpus='\n\n'.join(f'# مرحبا {i}\nhello 😀 world {i * 7}, नमस्ते' for i in range(40)))
    options = [*options_of(LADDER['v23']), '--n_merges', 60, '--prompts', '新']
    first = lived(path, *options)
    assert first.status == 0 and [step for step, *_ in losses(first.printed)] == [0, 4, 8], first.printed
    assert 'hello' in first.printed.splitlines()[0] and '316 个 token' in first.printed and '\n新' in first.printed
    again = lived(path, '--resume', '--max_iters', 12)
    assert again.status == 0 and [step for step, *_ in losses(again.printed)] == [12], again.printed
    refused = lived(path, '--resume', '--n_merges', 61)
    assert refused.status and '--n_merges 61' in refused.printed


@POSIX
def test_a_text_that_is_no_utf_8_is_refused(tmp_path):
    path = install(PATH, tmp_path, corpus='')
    (tmp_path / 'ci.txt').write_bytes(''.join(POEMS).encode()[:-1] + b'\xff\n')
    told = lived(path)
    assert told.status == 1 and 'ci.txt 不是 UTF-8' in told.printed and len(told.printed.splitlines()) == 1
