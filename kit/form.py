"""Do poems keep the form of their tune? What a reader of ci sees first, and the loss does not show.

A tune fixes how long each clause is. A clause is what stands between 。，、！？；： and line ends, and a poem's form is
the list of its clauses' lengths. A poem keeps the form of its tune if that list occurs at least twice among the poems
of the tune in the training part. A poem that does not come to its end, a blank line, keeps none.

Beside it stands what else is asked of a model that writes poems: its loss on whole poems, and whether it copies.
"""

import re
import statistics
from collections import Counter, defaultdict
from functools import cache

TUNES, EACH = 20, 20  # how many of the shortest common tunes a model is asked for, and how many poems of each
LONGEST = 160  # characters that a model may write for one; the real poems of those tunes are about half as long
NO_TUNE = '失调名'  # what a poem is called whose tune is lost
COPY = 14  # characters in a row, punctuation and all, that a poem shares with one of the training part if it is a copy


def whole(text):
    """The whole poems in a text that may begin or end in the middle of one: those between blank lines."""
    return text.split('\n\n')[1:-1]


def split(text):
    """[(tune, body)] of the whole poems in a text."""
    return [parsed(poem) for poem in whole(text)]


def parsed(poem):
    """(tune, body) of a poem: its first line is the tune, a space and the author."""
    title, _, body = poem.partition('\n')
    return title.split(' ')[0], body


def form(body):
    """The lengths of its clauses."""
    return tuple(len(clause) for clause in re.split('[。，、！？；：\n]', body) if clause)


class Forms:
    """The forms of the tunes, counted over the poems [(tune, body)] of the training part."""

    def __init__(self, poems):
        self.counts, self.lengths = defaultdict(Counter), defaultdict(list)
        for tune, body in poems:
            self.counts[tune][form(body)] += 1
            self.lengths[tune].append(len(body))

    def keeps(self, tune, body):
        return bool(body) and self.counts[tune][form(body)] >= 2

    def common(self, poems=50):
        """The tunes with that many poems or more, the shortest first."""
        found = [tune for tune, lengths in self.lengths.items() if len(lengths) >= poems and tune != NO_TUNE]
        return sorted(found, key=lambda tune: (statistics.median(self.lengths[tune]), tune))

    def share(self, poems):
        """How many of the poems [(tune, body)] there are, and keep the form of their tune."""
        return {'poems': len(poems), 'kept': sum(self.keeps(*poem) for poem in poems)}


def written(model, tokenizer, tunes, each, before='\n\n'):
    """[text]: `each` poems for each tune, as a model writes them from the name of the tune and a space.

    `before` is what stands before them: a blank line, or nothing where the rows of the training begin with a title.
    model.generate(idx (B, T), max_new_tokens) returns idx with what it wrote; it draws at temperature 1.0, nothing
    filtered. A few characters are asked for at a time, until every poem has come to its end or to its longest.
    """
    import torch
    device, found = next(model.parameters()).device, []
    for tune in tunes:
        start = tokenizer.encode(f'{before}{tune} ')
        idx = torch.tensor([start] * each, device=device)  # (rows, T)
        texts, rows = [''] * each, [*range(each)]  # rows: the poems that have not come to their end
        while rows and idx.size(1) < len(start) + LONGEST:
            idx = model.generate(idx, 16)
            for row, ids in zip(rows, idx.tolist(), strict=True):
                texts[row] = tokenizer.decode(ids[len(before):])
            left = [i for i, row in enumerate(rows) if '\n\n' not in texts[row]]
            rows, idx = [rows[i] for i in left], idx[left]
        found += texts
    return found


def finished(text):
    """(tune, body) of what was written up to the first blank line; there is no body where it never came to one."""
    poem, end, _ = text.partition('\n\n')
    tune, body = parsed(poem)
    return tune, body if end else ''


def copies(bodies, training_text, length=COPY):
    """How many of these poems share `length` characters in a row with a poem of the training part, and their lines.

    {'copies': how many poems do, 'lines': how many lines all of them have, 'copied_lines': how many of those stand whole in a
    poem of the training part}
    """
    poems = [body for _, body in split(training_text)]
    runs = {poem[i:i + length] for poem in poems for i in range(len(poem) - length + 1)}
    known = {line for poem in poems for line in poem.split('\n')}
    lines = [line for body in bodies for line in body.split('\n') if line]
    return {'copies': sum(any(body[i:i + length] in runs for i in range(len(body) - length + 1)) for body in bodies),
            'lines': len(lines), 'copied_lines': sum(line in known for line in lines)}


def measure(model, tokenizer, training_text, tunes=TUNES, each=EACH, seed=1337, before='\n\n'):
    """How many poems a model wrote for the shortest common tunes, how many keep their form, end, and are copies."""
    import torch
    torch.manual_seed(seed)
    model.eval()
    asked = Forms(split(training_text)).common()[:tunes]
    return counted(written(model, tokenizer, asked, each, before), training_text)


def counted(texts, training_text):
    """How many poems were written, how many of them keep their form, end, and are copies; a text goes on as it likes after one."""
    poems, forms = [finished(text) for text in texts], Forms(split(training_text))
    return (forms.share(poems) | {'ended': sum(bool(body) for _, body in poems)}
            | copies([body for _, body in poems], training_text))


def loss(model, tokenizer, text, longest=128, batch_size=32):
    """Nats per character over the whole poems in a text, each from its title to its blank line, as if it stood alone.

    Of a poem, `longest` characters after the first are asked for; model(idx (B, T)) returns (logits (B, T, V), None).
    """
    import torch
    from torch.nn import functional as F
    rows = sorted((tokenizer.encode(f'{poem}\n\n'[:longest + 1]) for poem in whole(text)), key=len)
    device, total, count = next(model.parameters()).device, 0.0, 0
    model.eval()
    with torch.no_grad():
        for i in range(0, len(rows), batch_size):
            batch = rows[i:i + batch_size]
            width = len(batch[-1])
            x = torch.tensor([row + [0] * (width - len(row)) for row in batch], device=device)  # (B, T+1)
            y = torch.tensor([row + [-100] * (width - len(row)) for row in batch], device=device)  # (B, T+1)
            logits = model(x[:, :-1])[0]  # (B, T, V)
            total += F.cross_entropy(logits.flatten(0, 1), y[:, 1:].flatten(), reduction='sum').item()
            count += sum(map(len, batch)) - len(batch)
    return total / count


@cache
def real(corpus, train_ratio=0.9):
    """The same of the real poems of a file's validation part: of all common tunes, and of those that models are asked for."""
    text = corpus.read_text(encoding='utf-8')
    cut = int(train_ratio * len(text))
    forms, poems = Forms(split(text[:cut])), split(text[cut:])
    return tuple(forms.share([poem for poem in poems if poem[0] in tunes])
                 for tunes in (forms.common(), forms.common()[:TUNES]))
