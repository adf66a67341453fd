"""The n-gram model: it is Kneser-Ney by definition, its probabilities are probabilities, and it is as good as it says."""

import re
import shutil
import signal
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure
from nltk import lm
from nltk.util import everygrams

from kit import results
from kit.files import CORPUS
from kit.ladders import LADDERS
from kit.scripts import load, losses, run, start

RUNG = LADDERS['prelude']['v7']
ORDERS = range(1, 6)
V = 40  # ids 0 to 29 occur in the text that the small models count, 30 to 39 never do
SEEN = 30


@pytest.fixture(scope='module')
def module():
    return load(RUNG.path)


@pytest.fixture(scope='module')
def data():
    """Ids with habits: the next one is mostly near twice the last, some are rare; every one below SEEN occurs."""
    random = np.random.RandomState(0)
    steps = (random.exponential(2, 3000)).astype(int)
    ids = list(range(SEEN))
    for step in steps:
        ids.append((2 * ids[-1] + ids[-2] + step) % SEEN)
    return np.array(ids)


@pytest.fixture(scope='module')
def poems(module):
    """The first poems of ci.txt as ids, and how many different ones there are."""
    text = CORPUS.read_text(encoding='utf-8')[:60_000]
    tokenizer = module.Tokenizer(text)
    return np.array(tokenizer.encode(text)), tokenizer.vocab_size


def contexts(data):
    """Contexts of all kinds: empty, short, long, seen, never seen, with ids that occur nowhere."""
    random = np.random.RandomState(1)
    yield from (data[:0], data[:1], data[:2], data[:50], data[-4:], data)
    for length in (1, 2, 3, 4, 5, 9):
        start = random.randint(len(data) - length)
        yield data[start:start + length]
        yield random.randint(SEEN, size=length)
        yield random.randint(SEEN, V, size=length)
        yield np.append(data[start:start + length], V - 1)
        yield np.append(V - 1, data[start:start + length])


# The definition

def formula(counts):
    """The discounts D1, D2, D3+ of Chen and Goodman (1999), from how many n-grams occur once, twice, ..."""
    n = Counter(counts)
    y = n[1] / (n[1] + 2 * n[2])
    return [c - (c + 1) * y * n[c + 1] / n[c] for c in (1, 2, 3)]


def kneser_ney(text, order, vocab_size, discounts=formula):
    """P(w, h) of interpolated Kneser-Ney straight from Chen and Goodman (1999), slowly: dictionaries and recursion.

    The highest level counts occurrences, c(hw); those below count what the text has before: N1+(. hw), the number of
    distinct v with c(v hw) > 0. At each level P(w|h) = (c - D(c)) / sum of c over w + (D1 N1(h .) + D2 N2(h .) +
    D3+ N3+(h .)) / sum of c * P(w | h without its first), and below the first level lies 1 / vocab_size.
    """
    levels = []
    for k in range(1, order + 1):
        if k == order:
            counts = Counter(tuple(text[i:i + k]) for i in range(len(text) - k + 1))
        else:
            kinds = {tuple(text[i:i + k + 1]) for i in range(len(text) - k)}
            counts = Counter(kind[1:] for kind in kinds)
        amounts = [0, *discounts(counts.values())]
        total, taken = Counter(), Counter()
        for gram, count in counts.items():
            total[gram[:-1]] += count
            taken[gram[:-1]] += amounts[min(count, 3)]
        levels.append((counts, amounts, total, taken))

    def probability(w, h):
        h = tuple(h)[max(0, len(h) - order + 1):]
        lower = probability(w, h[1:]) if h else 1 / vocab_size
        counts, amounts, total, taken = levels[len(h)]
        if not total[h]:
            return lower
        count = counts[(*h, w)]
        return (count - amounts[min(count, 3)]) / total[h] + taken[h] / total[h] * lower

    return probability


@pytest.mark.parametrize('order', ORDERS)
def test_it_is_kneser_ney_after_any_context(module, data, order, monkeypatch):
    monkeypatch.setattr(module, 'discounts', lambda counts: np.array([0, 0.4, 0.9, 1.3]))
    model = module.KneserNey(data, order, V)
    slow = kneser_ney(data.tolist(), order, V, lambda counts: [0.4, 0.9, 1.3])
    for context in contexts(data):
        expected = [slow(w, context.tolist()) for w in range(V)]
        np.testing.assert_allclose(model.probabilities(context), expected, rtol=1e-9)


@pytest.mark.parametrize('order', ORDERS)
def test_it_is_kneser_ney_on_poems_with_the_discounts_of_the_formula(module, poems, order):
    """Counted in one part, judged in all, so that what has been seen and what has not both occur."""
    ids, size = poems
    train = ids[:50_000]
    slow = kneser_ney(train.tolist(), order, size)
    places = [*range(10), *range(40_000, len(ids), 25)]
    expected = [-np.log(slow(ids[i], ids[max(0, i - 9):i].tolist())) for i in places]
    np.testing.assert_allclose(module.KneserNey(train, order, size).losses(ids)[places], expected, rtol=1e-9)


@pytest.mark.parametrize('order', [2, 3, 4])
def test_it_is_nltk_where_nltk_is_the_formula(module, data, order, monkeypatch):
    """NLTK's KneserNeyInterpolated, an implementation that is not ours, where the two definitions agree.

    NLTK takes one discount for all levels, none at the first, and has no uniform floor: with one discount and a
    vocabulary that occurs in full, what the first level gives to the floor comes back to the same characters, so these
    differences cancel. NLTK counts the followers of a context with the beginning of the text and its continuations
    without: a text that ends as it begins has nothing that is only at the beginning. Order 1 divides by zero there.
    """
    monkeypatch.setattr(module, 'discounts', lambda counts: np.array([0, 0.6, 0.6, 0.6]))
    text = np.concatenate([data[:600], data[:5]])
    model = module.KneserNey(text, order, SEEN)
    theirs = lm.models.KneserNeyInterpolated(order, discount=0.6)
    theirs.fit([list(everygrams(map(str, text), max_len=order))], vocabulary_text=map(str, text))
    random = np.random.RandomState(0)
    unseen = list(random.randint(SEEN, size=(5, order - 1)))
    for context in [text[:0], text[:1], *(text[i:i + order - 1] for i in (0, 7, 300)), *unseen]:
        expected = [theirs.score(str(w), tuple(map(str, context))) for w in range(SEEN)]
        np.testing.assert_allclose(model.probabilities(context), expected, rtol=1e-9)


# Probabilities

@pytest.mark.parametrize('order', ORDERS)
def test_every_distribution_sums_to_one_and_leaves_nothing_out(module, data, order):
    model = module.KneserNey(data, order, V)
    for context in contexts(data):
        probs = model.probabilities(context)
        assert probs.shape == (V,) and probs.min() > 0
        assert probs.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize('ids', [[3] * 9, [3, 4] * 20, list(range(9)), [0, 1, 2] * 7 + [5, 5], [1, 2, 3, 4, 5],
                                 [0, 1, 2, 3, 4, 5, 5, 6, 6, 6] + [7, 8, 9] * 4],
                         ids=['one character', 'nothing once', 'all once', 'no count of two', 'as short as can be',
                              'four times is commoner than three'])
@pytest.mark.parametrize('order', ORDERS)
def test_texts_without_counts_of_counts_have_distributions_too(module, ids, order):
    """Where the estimate of the discounts divides by zero or falls below it, something is still taken and given."""
    model = module.KneserNey(np.array(ids), order, 11)
    for context in [[], [0], [3], [4, 3], [3, 3, 3, 3], [1, 2, 3, 4], [9, 10]]:
        probs = model.probabilities(np.array(context, dtype=int))
        assert probs.min() > 0 and probs.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize('order', [4, 5])
def test_a_vocabulary_too_large_for_64_bits_changes_nothing_but_the_floor(module, data, order):
    size = 70_000  # its 4th power is beyond 64 bits
    few, many = (module.KneserNey(data, order, n) for n in (SEEN, size))
    for context in [data[:0], data[:2], data[5:12], data[-3:]]:
        probs = many.probabilities(context)
        assert probs.min() > 0 and probs.sum() == pytest.approx(1, abs=1e-9)
        np.testing.assert_allclose(probs[:SEEN], few.probabilities(context), atol=0.01)
        assert abs(probs[:SEEN] - few.probabilities(context)).max() > 0


@pytest.mark.parametrize('order', ORDERS)
def test_a_loss_is_minus_the_log_of_its_probability(module, data, order):
    model = module.KneserNey(data, order, V)
    text = np.concatenate([data[100:140], [V - 1, V - 2], data[:20], [3]])
    expected = [-np.log(model.probabilities(text[:i])[text[i]]) for i in range(len(text))]
    losses = model.losses(text)
    assert losses.shape == (len(text),)
    np.testing.assert_allclose(losses, expected, rtol=1e-12)
    np.testing.assert_allclose(model.losses(text[:2]), expected[:2], rtol=1e-12)  # a text shorter than the order


# What the levels mean

def test_order_one_is_how_often_each_character_occurs(module, data):
    model = module.KneserNey(data, 1, V)
    shares = np.bincount(data, minlength=V) / len(data)
    probs = model.probabilities(data[:9])
    assert abs(probs - shares).max() < 3 / len(data)  # at most 3 of its occurrences are taken from a character
    assert (probs[SEEN:] == probs[-1]).all() and probs[-1] < shares[shares > 0].min()
    for context in contexts(data):
        assert (model.probabilities(context) == probs).all()


@pytest.mark.parametrize('order', ORDERS)
def test_it_looks_at_the_last_characters_and_at_no_other(module, data, order):
    """Changing one character of the context changes the answer if it is among the last `order - 1`, and only then."""
    model = module.KneserNey(data, order, V)
    context = data[1000:1007]
    probs = model.probabilities(context)
    for back in range(1, 8):
        other = context.copy()
        other[-back] = V - 1
        assert (model.probabilities(other) != probs).any() == (back < order)


def test_it_reads_forwards(module):
    """After 1 comes 2, after 2 comes 3: never the other way about."""
    model = module.KneserNey(np.array([1, 2, 3, 4, 5] * 20), 3, 8)
    assert model.probabilities(np.array([1, 2])).argmax() == 3
    assert model.probabilities(np.array([2, 1])).argmax() == 2
    assert model.probabilities(np.array([4, 3, 2, 1, 5])).argmax() == 1


def test_lower_orders_count_kinds_of_neighbours_not_occurrences(module):
    """2 occurs most often but only after 1; 3 is rare but comes after many: where the context is new, 3 is likelier."""
    text = [1, 2] * 50
    for before in range(4, 14):
        text += [before, 3]
    text = np.array(text)
    assert module.KneserNey(text, 1, 20).probabilities(text[:0])[[2, 3]].argmax() == 0
    assert module.KneserNey(text, 2, 20).probabilities(np.array([15]))[[2, 3]].argmax() == 1


def test_the_highest_order_counts_occurrences(module):
    """After 1 comes 2 nine times and 3 once: what comes often is likelier, though each is one kind."""
    text = np.array([1, 2] * 9 + [1, 3] + [4, 2, 5, 3])
    probs = module.KneserNey(text, 2, 6).probabilities(np.array([1]))
    assert probs[2] > 3 * probs[3]


def test_discounts_come_from_the_counts_and_never_take_all(module, poems):
    ids, size = poems
    for k in ORDERS:
        amounts = []
        for text in (ids, ids[:30_000]):
            _, counts = np.unique(module.pack(text, k, size), return_counts=True)
            amounts.append(module.discounts(counts)[1:])
            assert (amounts[-1] > 0).all() and (amounts[-1] < [1, 2, 3]).all()
        assert (amounts[0] != amounts[1]).all()


# Writing

def test_it_writes_by_its_own_probabilities(module, data):
    """How often each character is written, first and second, against its probability: chi-squared per degree is near 1."""
    np.random.seed(0)
    model, context, rows = module.KneserNey(data, 3, V), data[200:203], 4000
    written = model.generate(np.tile(context, (rows, 1)), 2)
    assert written.shape == (rows, 5) and (written[:, :3] == context).all()

    first = model.probabilities(context)
    assert chi_squared(written[:, 3], first) < 2.2
    most = first.argmax()
    second = model.probabilities(np.append(context, most))
    assert chi_squared(written[written[:, 3] == most, 4], second) < 2.2
    assert chi_squared(written[:, 3], second) > 100  # the test can tell them apart


def chi_squared(drawn, probs):
    """Pearson's statistic per degree of freedom, over the characters that are expected at least five times."""
    expected = probs * len(drawn)
    often = expected >= 5
    seen = np.bincount(drawn, minlength=len(probs))
    expected, seen = ([*values[often], values[~often].sum()] for values in (expected, seen))
    return sum((a - b) ** 2 / b for a, b in zip(seen, expected, strict=True)) / (len(seen) - 1)


def test_one_seed_one_poem(module):
    text = CORPUS.read_text(encoding='utf-8')[:20_000]
    tokenizer = module.Tokenizer(text)
    model = module.KneserNey(np.array(tokenizer.encode(text)), 5, tokenizer.vocab_size)
    poems = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        poems.append(module.write(model, tokenizer, '春江', 30))
    assert poems[0] == poems[1] != poems[2]
    assert all(poem.startswith('春江') and len(poem) == 32 and set(poem) <= set(text) for poem in poems)


# The script

def copied(folder):
    """The script, in the folder below the one where it looks for the corpus."""
    (folder / 'prelude').mkdir()
    return shutil.copy(RUNG.file, folder / 'prelude')


@pytest.fixture(scope='module')
def output():
    """What the script prints on ci.txt."""
    result = run(RUNG.file)
    assert result.returncode == 0 and not result.stderr, result.stderr
    return result.stdout


LINE = re.compile(r'^第 (\d+) 阶  训练损失 (\S+)  验证损失 (\S+)  见过 +([\d,]+) 种  用时 +[\d.]+ 秒$', flags=re.MULTILINE)


def add_one_bigram_loss(ids, cut, size):
    """Loss of ids[cut:] under the pairs that are counted in ids[:cut], with one added to each."""
    pairs = ids[:-1] * size + ids[1:]
    counts = np.bincount(pairs[:cut - 1], minlength=size ** 2)
    totals = np.bincount(ids[:cut - 1], minlength=size)
    return np.log((totals[ids[cut - 1:-1]] + size) / (counts[pairs[cut - 1:]] + 1)).mean()


def test_each_order_is_better_and_counting_has_not_been_better(output, module):
    lines = LINE.findall(output)
    assert [int(order) for order, *_ in lines] == list(ORDERS)
    train, val = ([float(line[column]) for line in lines] for column in (1, 2))
    assert val[:4] == sorted(val[:4], reverse=True) and val[4] < val[3] + 0.02
    assert val[0] - val[1] > 1 and val[1] - val[2] > 0.2
    assert all(a < b for a, b in zip(train, val, strict=True)) and train == sorted(train, reverse=True)

    text = CORPUS.read_text(encoding='utf-8')
    tokenizer = module.Tokenizer(text)
    ids, cut = np.array(tokenizer.encode(text)), int(0.9 * len(text))
    assert val[1] < add_one_bigram_loss(ids, cut, tokenizer.vocab_size) - 0.5  # the same counts, shared with more sense
    assert lines[0][3] == f'{len(set(text[:cut])):,}'
    assert lines[1][3] == f'{len(set(pairwise(text[:cut]))):,}'


def test_the_validation_part_is_judged_with_the_text_before_it(module, tmp_path):
    """The whole last tenth, each character once, the first of them after the end of the training part."""
    text = CORPUS.read_text(encoding='utf-8')[:20_000]
    (tmp_path / 'ci.txt').write_text(text, encoding='utf-8')
    printed = LINE.findall(run(copied(tmp_path)).stdout)
    tokenizer = module.Tokenizer(text)
    ids = np.array(tokenizer.encode(text))
    for order, train, val, _ in printed:
        model = module.KneserNey(ids[:18_000], int(order), tokenizer.vocab_size)
        assert float(val) == pytest.approx(model.losses(ids[17_990:])[10:].mean(), abs=6e-5)
        assert float(train) == pytest.approx(model.losses(ids[:18_000]).mean(), abs=6e-5)
    assert len(printed) == 5


def test_it_writes_both_poems(output):
    text = CORPUS.read_text(encoding='utf-8')
    start = output.index('\n春江') + 1
    first, second = output[start:start + 102], output[start + 102:]
    assert second.startswith('\n\n往事') and len(second) == 105 and second.endswith('\n')
    assert first.startswith('春江') and set(first + second) <= set(text)


def test_the_results_are_what_it_prints(output):
    """So are the tables of the README, which are made from the results."""
    [kept] = [run for key, run in results.load()['runs'].items() if key.startswith(RUNG.path)]
    assert [tuple(point) for point in kept['curve']] == losses(output)


def test_the_docstring_has_the_numbers_that_it_prints(output, module):
    train, val = ([f'{float(line[column]):.2f}' for line in LINE.findall(output)] for column in (1, 2))
    assert '、'.join(val) in module.__doc__ and train[-1] in module.__doc__


def test_the_picture_shows_the_losses_that_are_printed(module, tmp_path, monkeypatch, capsys):
    figures, saved = [], tmp_path / 'orders.png'
    monkeypatch.setattr('matplotlib.figure.Figure', lambda: figures.append(Figure()) or figures[-1])
    (tmp_path / 'ci.txt').write_text(CORPUS.read_text(encoding='utf-8')[:20_000], encoding='utf-8')
    monkeypatch.setattr(module, 'data_path', tmp_path / 'ci.txt')
    monkeypatch.setattr('sys.argv', [RUNG.path, '--plot', str(saved)])
    module.main()
    printed = LINE.findall(capsys.readouterr().out)
    [axes] = figures[0].axes
    for line, column, name in zip(axes.lines, (1, 2), ('train', 'validation'), strict=True):
        assert list(line.get_xdata()) == list(ORDERS) and line.get_label() == name
        assert list(line.get_ydata()) == pytest.approx([float(each[column]) for each in printed], abs=6e-5)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ['train', 'validation']
    assert list(axes.get_xticks()) == list(ORDERS) and axes.get_xlabel() == 'order' and 'nats' in axes.get_ylabel()
    assert saved.read_bytes().startswith(b'\x89PNG') and len({float(each[1]) for each in printed}) == 5


def test_without_a_picture_matplotlib_is_not_imported(tmp_path):
    (tmp_path / 'ci.txt').write_text('春江往事。' * 9, encoding='utf-8')
    script = copied(tmp_path)
    (tmp_path / 'prelude' / 'matplotlib.py').write_text('raise ImportError("imported")', encoding='utf-8')
    assert run(script).returncode == 0
    assert 'imported' in run(script, '--plot', tmp_path / 'a.png').stderr  # the one that it would be


@pytest.mark.parametrize('options, named', [
    (['--no_such_option'], '--no_such_option'), (['--plot'], '--plot'), (['--plot', 'no/such/folder/a.png'], 'no/such/folder')])
def test_wrong_options_are_refused_before_counting(options, named):
    result = run(RUNG.file, *options)
    assert named in refused(result) and not result.stdout


def test_matplotlib_is_named_where_it_is_missing(module, monkeypatch, capsys):
    monkeypatch.setattr(module, 'find_spec', lambda name: None)
    monkeypatch.setattr('sys.argv', [RUNG.path, '--plot', 'a.png'])
    with pytest.raises(SystemExit):
        module.parse_args()
    assert 'pip install -r prelude/requirements.txt' in capsys.readouterr().err


def refused(result):
    """What it says of a mistake: one line or two, and no more."""
    assert result.returncode not in (0, None) and 'Traceback' not in result.stderr
    assert len(result.stderr.splitlines()) <= 2
    return result.stderr


FAULTS = {'missing': None, 'empty': b'', 'not UTF-8': ('春江往事。' * 99).encode('gbk'), 'a folder': 'folder',
          'too short': '春江往事。'.encode() * 8}


@pytest.mark.parametrize('fault', FAULTS)
def test_a_corpus_that_cannot_be_used_is_explained(fault, tmp_path):
    corpus = tmp_path / 'ci.txt'
    if fault == 'a folder':
        corpus.mkdir()
    elif FAULTS[fault] is not None:
        corpus.write_bytes(FAULTS[fault])
    result = run(copied(tmp_path))
    assert result.returncode not in (0, None) and not result.stdout
    [line] = result.stderr.splitlines()
    assert str(corpus) in line and re.search('[\u4e00-\u9fff]', line)


def test_the_shortest_corpus_that_is_long_enough_works(tmp_path):
    (tmp_path / 'ci.txt').write_text('春江往事。' * 8 + '\n', encoding='utf-8')
    result = run(copied(tmp_path))
    assert result.returncode == 0 and not result.stderr, result.stderr
    assert len(LINE.findall(result.stdout)) == 5


@pytest.mark.skipif(not hasattr(signal, 'SIGKILL'), reason='needs the signals of POSIX')
def test_ctrl_c_stops_it_in_one_line():
    process = start(RUNG.file)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode not in (0, None) and said.strip() == '已中断。'


def test_importing_needs_no_corpus_and_counts_nothing(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(np, 'unique', lambda *args, **kwargs: pytest.fail('counted'))
    load(shutil.copy(RUNG.file, tmp_path))
    assert capfd.readouterr() == ('', '')
