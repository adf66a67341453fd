"""What the usual mistakes with a reward give, and what a run of main learned from which characters."""

from itertools import takewhile

import pytest
import torch


def named(found, mistakes):
    """What to say of {what to say: what the mistake gives}, where one gives what was found."""
    return next((said for said, wrong in mistakes.items() if found == (pytest.approx(wrong) if isinstance(wrong, float) else wrong)), '')


def leading(clauses, form):
    """How many clauses are right before the first that is wrong."""
    return len([*takewhile(lambda pair: pair[0] == pair[1], zip(clauses, form, strict=False))])


def share(clauses, form):
    return 0.5 * leading(clauses, form) / len(form)


def reward_mistakes(form_of):
    """{what to say: the reward of a poem, given the known forms of its tune, that the mistake gives}"""
    def mistake(value, right=lambda poem, known: poem.endswith('\n\n') and form_of(poem) in known, of=max):
        return lambda poem, known: 1.0 if right(poem, known) else float(of(value(form_of(poem), form) for form in known))

    return {
        '没有写到空行的也给了 1：写完了，句式也合，才是 1。': mistake(share, lambda poem, known: form_of(poem) in known),
        '不合的没有折半：最多 0.5，合句式的才是 1。': mistake(lambda clauses, form: leading(clauses, form) / len(form)),
        '不管错在哪里，对了几句都算上了：从头数起，错了一句，后面的就不算。':
            mistake(lambda clauses, form: 0.5 * sum(a == b for a, b in zip(clauses, form, strict=False)) / len(form)),
        '除以的是写了几句：应除以那种句式有几句，不然只写一句就够了。': mistake(lambda clauses, form: 0.5 * leading(clauses, form) / max(len(clauses), 1)),
        '只和第一种句式比：应和每一种比，取最像的。': lambda poem, known: mistake(share)(poem, known[:1]),
        '只和最后一种句式比：应和每一种比，取最像的。': lambda poem, known: mistake(share)(poem, known[-1:]),
        '取了最不像的一种（min）：应取最像的，max。': mistake(share, of=min),
        '各种句式的分加在了一起：应取最像的，max。': mistake(share, of=sum),
        '不合的都是 0：对了几句，要给几分，不然几首都不合时分不出好坏。': mistake(lambda clauses, form: 0.0),
        '不合的都是 0.5：对了几句，给几分。': mistake(lambda clauses, form: 0.5),
    }


class Row:
    """A poem that a step learned from: its text, and how much the log-probability of each of its characters but the first counts.

    `ids` are what the model read, `scores` what it made of them, `grad` the gradient of these.
    """

    def __init__(self, model, text, weights, ids, scores, grad):
        self.model, self.text, self.weights, self.ids, self.scores, self.grad = model, text, weights, ids, scores, grad
        self.author = text.partition('\n')[0].rpartition(' ')[2]

    def counted_from(self, start):
        """Whether it is the characters from there to the end of the text that count, and no padding behind them."""
        counts = torch.zeros(len(self.weights), dtype=torch.bool)
        counts[start - 1:len(self.text) - 1] = True
        return torch.equal(self.weights != 0, counts)


class Record:
    """Put into a module: what each step of its main learned from, by the gradients of the scores.

    With weight w on the log-probability of an answer, that gradient is w times the probabilities, less w at the answer,
    which so is the entry that moves most: whatever the loss is made of, it tells the answer and its weight.
    """

    def __init__(self, module):
        self.steps, self.passes = [], []
        forward, tokenizer_of = module.BabyGPT.forward, module.Tokenizer.__init__

        def remember(tokenizer, *args, **kwargs):
            tokenizer_of(tokenizer, *args, **kwargs)
            self.tokenizer = tokenizer

        def recorded(model, idx, *args, **kwargs):
            scores = forward(model, idx, *args, **kwargs)
            if scores.requires_grad:
                scores.register_hook(lambda grad: self.passes.append((model, idx, scores.detach(), grad)))
            return scores

        module.BabyGPT.forward, module.Tokenizer.__init__ = recorded, remember

    def step(self, *_):
        self.steps.append([row for each in self.passes for row in self.rows_of(*each)])
        self.passes.clear()

    def rows_of(self, model, idx, scores, grad):
        answers = torch.cat([idx[:, 1:], grad[:, -1].abs().argmax(-1, keepdim=True)], dim=1)  # only the last is not in what was read
        log_probs = scores.log_softmax(-1).gather(2, answers[..., None])[..., 0]
        weights = -grad.gather(2, answers[..., None])[..., 0] / -torch.expm1(log_probs)
        weights = weights.masked_fill(~grad.any(-1), 0)
        for row, ids, answer, *rest in zip(weights, idx, answers, scores, grad, strict=True):
            text = self.tokenizer.decode([ids[0].item(), *answer.tolist()])  # padding reads as a line end
            ends = text.find('\n\n') + 2 if '\n\n' in text else len(text)
            found = Row(model, text[:min(ends, max(row.nonzero(), default=ends) + 2)], row, ids, *rest)
            found.whole = text[:ends]  # to the blank line, counted or not
            yield found
