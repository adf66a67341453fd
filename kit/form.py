"""Do poems keep the form of their tune? What a reader of ci sees first, and the loss does not show.

A tune fixes how long each clause is. A clause is what stands between 。，、！？；： and line ends, and a poem's form is
the list of its clauses' lengths. A poem keeps the form of its tune if that list occurs at least twice among the poems
of the tune in the training part. A poem that does not come to its end, a blank line, keeps none.
"""

import re
import statistics
from collections import Counter, defaultdict
from functools import cache

TUNES, EACH = 20, 20  # how many of the shortest common tunes a model is asked for, and how many poems of each
LONGEST = 160  # characters that a model may write for one; the real poems of those tunes are about half as long
NO_TUNE = '失调名'  # what a poem is called whose tune is lost


def split(text):
    """[(tune, body)] of the whole poems in a text that may begin or end in the middle of one: those between blank lines."""
    return [parsed(poem) for poem in text.split('\n\n')[1:-1]]


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


def written(model, tokenizer, tunes, each):
    """[text]: `each` poems for each tune, as a model writes them from a blank line, the name of the tune and a space.

    model.generate(idx (B, T), max_new_tokens) returns idx with what it wrote; it draws at temperature 1.0, nothing
    filtered. A few characters are asked for at a time, until every poem has come to its end or to its longest.
    """
    import torch
    device, found = next(model.parameters()).device, []
    for tune in tunes:
        start = tokenizer.encode(f'\n\n{tune} ')
        idx = torch.tensor([start] * each, device=device)  # (each, T)
        texts = ['']
        while idx.size(1) < len(start) + LONGEST and not all('\n\n' in text for text in texts):
            idx = model.generate(idx, 16)
            texts = [tokenizer.decode(row[2:]) for row in idx.tolist()]
        found += texts
    return found


def finished(text):
    """(tune, body) of what was written up to the first blank line; there is no body where it never came to one."""
    poem, end, _ = text.partition('\n\n')
    tune, body = parsed(poem)
    return tune, body if end else ''


def measure(model, tokenizer, training_text, tunes=TUNES, each=EACH, seed=1337):
    """How many poems a model wrote for the shortest common tunes, how many keep their form, and how many end."""
    import torch
    forms = Forms(split(training_text))
    torch.manual_seed(seed)
    model.eval()
    poems = [finished(text) for text in written(model, tokenizer, forms.common()[:tunes], each)]
    return forms.share(poems) | {'ended': sum(bool(body) for _, body in poems)}


@cache
def real(corpus, train_ratio=0.9):
    """The same of the real poems of a file's validation part: of all common tunes, and of those that models are asked for."""
    text = corpus.read_text(encoding='utf-8')
    cut = int(train_ratio * len(text))
    forms, poems = Forms(split(text[:cut])), split(text[cut:])
    return tuple(forms.share([poem for poem in poems if poem[0] in tunes])
                 for tunes in (forms.common(), forms.common()[:TUNES]))
