"""The worked examples: numbers computed by the real classes and functions, with weights small and round enough to follow.

What is shown is rounded before the next step goes on from it, and the text of how it was made (`…_made`) is of the
numbers as shown. Nothing is trained here.
"""

import math
from functools import cache

import numpy as np
import torch
from torch.nn import functional as F

from kit.files import CORPUS, read
from kit.formats import number
from kit.ladders import LADDERS
from kit.origins import factor, linear, power, products, shares, surprises
from kit.scripts import build, module_of

LADDER, ROOT = LADDERS['prelude'], LADDERS['root']
POEM = '春花秋月何时了，往事知多少。\n小楼昨夜又东风，故国不堪回首月明中。\n'  # Li Yu; the example's whole vocabulary
torch.set_num_threads(1)  # the last digits hang on it


def module(name):
    return module_of(LADDER[name])


@cache
def corpus():
    return read(CORPUS)


@cache
def tokenizer(text=POEM):
    return module('v5').Tokenizer(text)


def rounded(x, digits=2):
    return torch.round(x * 10 ** digits) / 10 ** digits


def set_to(parameter, values):
    parameter.data = torch.tensor(values, dtype=torch.float32).view_as(parameter)


def parameters(name, **sizes):
    """{part: how many parameters it has} of a model of that rung."""
    with torch.device('meta'):
        model = getattr(module(name), LADDER[name].contract['model'])(**sizes)
    return {path: sum(p.numel() for p in model.get_submodule(path).parameters()) for path, _ in LADDER[name].parts}


def v1():
    """Three points, one step."""
    x, y, rate = [-1.0, 0.0, 2.0], [-0.8, 0.7, 5.3], 0.1
    model = module('v1').LinearRegression(1)
    set_to(model.linear.weight, [0.5])
    set_to(model.linear.bias, [0.0])
    points, answers = torch.tensor(x)[:, None], torch.tensor(y)
    prediction, loss = model(points, answers)
    loss.backward()
    error = rounded(prediction.detach() - answers)
    square = rounded(error ** 2)
    slopes = [rounded(each.grad).item() for each in (model.linear.weight, model.linear.bias)]
    w, b = (round(start - rate * slope, 2) for start, slope in zip((0.5, 0.0), slopes, strict=True))
    set_to(model.linear.weight, [w])
    set_to(model.linear.bias, [b])
    after = model(points, answers)[1].item()

    def mean(terms):
        return f'({" + ".join(terms)}) ÷ {len(terms)}'
    return {'x': x, 'y': y, 'prediction': prediction.tolist(), 'error': error, 'square': square, 'loss': loss.item(), 'slopes': slopes, 'rate': rate,
            'before': [0.5, 0.0], 'after': [w, b], 'loss_after': after,
            'prediction_made': [f'0.5 × {factor(each)} + 0' for each in x],
            'error_made': [f'{number(a)} − {factor(b)}' for a, b in zip(prediction.tolist(), y, strict=True)],
            'square_made': [f'{factor(each)} × {factor(each)}' for each in error.tolist()],
            'loss_made': mean([number(each) for each in square.tolist()]),
            'slopes_made': [mean([f'2 × {factor(e)} × {factor(a)}' for e, a in zip(error.tolist(), x, strict=True)]),
                            mean([f'2 × {factor(e)}' for e in error.tolist()])],
            'after_made': [f'{number(start)} − {number(rate, 1)} × {factor(slope)}' for start, slope in zip((0.5, 0.0), slopes, strict=True)],
            'backwards': step_from([0.5, 0.0], slopes, -rate, points, answers), 'too_far': step_from([0.5, 0.0], slopes, 1.0, points, answers)}


def step_from(start, slopes, rate, points, answers):
    """The loss after a step of that rate."""
    model = module('v1').LinearRegression(1)
    for parameter, value, slope in zip(model.parameters(), start, slopes, strict=True):
        set_to(parameter, [value - rate * slope])
    return model(points, answers)[1].item()


def v2():
    points, answers = [[1.0, 1.0], [-1.0, 0.5], [0.5, -1.0]], [1.0, 0.0, 1.0]
    model = module('v2').LogisticRegression(2)
    set_to(model.linear.weight, [0.5, 1.0])
    set_to(model.linear.bias, [-0.5])
    logits, loss = model(torch.tensor(points), torch.tensor(answers))
    logits = rounded(logits.detach())
    p = rounded(torch.sigmoid(logits))
    right = [a if y else round(1 - a, 2) for a, y in zip(p.tolist(), answers, strict=True)]
    costs = rounded(-torch.log(torch.tensor(right)))
    assert abs(costs.mean().item() - loss.item()) < 0.01
    sure = torch.tensor([0.0, 2.0, 4.0, 8.0], requires_grad=True)
    no = torch.zeros(4)
    entropy = F.binary_cross_entropy_with_logits(sure, no, reduction='none')
    squares = torch.sigmoid(sure) ** 2
    slopes = [torch.autograd.grad(each.sum(), sure)[0] for each in (entropy, squares)]
    chances = rounded(torch.sigmoid(sure.detach()), 4)
    return {'x': torch.tensor(points).T, 'y': answers, 'logits': logits, 'p': p, 'right': right, 'costs': costs, 'loss': round(costs.mean().item(), 2),
            'logits_made': linear(points, [[0.5], [1.0]], [-0.5]), 'p_made': [f'1 ÷ (1 + {power(-each)})' for each in logits.tolist()],
            'right_made': [number(a) if y else f'1 − {number(a)}' for a, y in zip(p.tolist(), answers, strict=True)],
            'costs_made': [f'−ln {number(each)}' for each in right],
            'loss_made': f'({" + ".join(number(each) for each in costs.tolist())}) ÷ {len(answers)}',
            'sure': sure.detach(), 'chances': chances, 'entropy': entropy.detach(), 'squares': squares.detach(), 'entropy_slopes': slopes[0], 'squares_slopes': slopes[1]}


@torch.no_grad()
def v3():
    torch.manual_seed(5)
    model = module('v3').MLP(2, 3, 3)
    for parameter in model.parameters():
        parameter.data = rounded(1.5 * parameter.data)
    image = torch.tensor([[[0.8, 0.3]]])
    x = image.flatten()
    before = rounded(model.hidden(x))
    after = F.relu(before)
    logits = rounded(model.out(after))
    powers = round(sum(math.exp(each) for each in logits.tolist()), 2)
    probs = rounded(torch.tensor([math.exp(each) / powers for each in logits.tolist()]), 4)
    answer = torch.tensor([1])
    cost = -math.log(probs[1].item())
    assert abs(model(image, answer)[1].item() - cost) < 0.02 and (before < 0).any() and (before > 0).any()

    bent = module('v3').MLP(1, 2, 1)
    for parameter, values in zip(bent.parameters(), ([1.0, -1.0], [0.0, 0.0], [1.0, 1.0], [0.0]), strict=True):
        set_to(parameter, values)
    xs = [-2.0, -1.0, 0.0, 1.0, 2.0]
    points = torch.tensor(xs)[:, None, None]
    sums = bent.hidden(points[:, 0])
    return {'x': x, 'before': before, 'after': after, 'logits': logits, 'probs': probs, 'cost': cost, 'powers': powers,
            'before_made': linear(x.tolist(), model.hidden.weight.T.tolist(), model.hidden.bias.tolist())[0],
            'logits_made': linear(after.tolist(), model.out.weight.T.tolist(), model.out.bias.tolist())[0],
            'probs_made': shares(logits.tolist(), powers), 'cost_made': surprises([probs[1].item()]),
            'hidden_weight': model.hidden.weight.T, 'hidden_bias': model.hidden.bias, 'out_weight': model.out.weight.T, 'out_bias': model.out.bias,
            'xs': xs, 'hidden': F.relu(sums).T, 'total': bent(points)[0][:, 0], 'straight': bent.out(sums)[:, 0],
            'parts': parameters('v3', n_in=64, n_hidden=256, n_classes=10)}


@torch.no_grad()
def v4():
    """One window that looks for an upright stroke; the second convolution lets through what the first found."""
    model = module('v4').CNN(1, 2)
    window = [[-1.0, 2.0, -1.0]] * 3
    set_to(model.conv1.weight, window)
    set_to(model.conv2.weight, [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    for bias in (model.conv1.bias, model.conv2.bias):
        bias.zero_()
    image = torch.zeros(4, 4)
    image[:3, 1] = 1
    strokes, logits = [], []
    for x in (image, F.pad(image, (1, 0))[:, :4]):
        found = model.conv1(x[None, None])
        positive = F.relu(found)
        strokes.append({'image': x, 'sums': found[0, 0], 'found': positive[0, 0], 'pooled': F.max_pool2d(positive, 2)[0, 0]})
        logits.append(model(x[None])[0])
    edged = F.pad(image, (1, 1, 1, 1)).tolist()
    made = [[' + '.join(f'{factor(window[i][j])} × {number(edged[row + i][column + j], 0)}' for i in range(3) for j in range(3))
             for column in range(4)] for row in range(4)]
    return {'window': window, 'strokes': strokes, 'same': torch.equal(*logits), 'changed': int((strokes[0]['image'] != strokes[1]['image']).sum()),
            'made': made,
            'parts': parameters('v4', n_channels=12, n_classes=10), 'below': sum(parameters('v3', n_in=64, n_hidden=256, n_classes=10).values())}


@torch.no_grad()
def v5():
    text = '往事知'
    size = tokenizer().vocab_size
    model = build(LADDER['v5'], 1, vocab_size=size, n_hidden=3)
    for parameter in model.parameters():
        parameter.data = rounded(3 * parameter.data)
    cell, h, steps = model.cell, torch.zeros(3), []
    for char in text:
        column = rounded(cell.input(F.one_hot(torch.tensor(tokenizer().ids[char]), size).float()))
        turned = rounded(cell.hidden(h))
        new = rounded(torch.tanh(column + turned))
        steps.append({'input': column, 'hidden': turned, 'h': new, 'hidden_made': linear(h.tolist(), cell.hidden.weight.T.tolist())[0],
                      'h_made': [f'tanh({number(a)} + {factor(b)})' for a, b in zip(column.tolist(), turned.tolist(), strict=True)]})
        h = new
    read = model.read(F.one_hot(torch.tensor([tokenizer().encode(text)]), size).float())[0, -1]
    assert (read - h).abs().max() < 0.02

    def after(history, model):
        return model(torch.tensor([tokenizer().encode(history)]))[0][0, -1].softmax(dim=-1)
    pairs = ['春月', '秋月']
    states = [model.read(F.one_hot(torch.tensor([tokenizer().encode(each)]), size).float())[0, -1] for each in pairs]
    below = build(ROOT['v1'], 1, vocab_size=size, n_embd=3)
    gru = module('v5').GRUCell(2, 3)
    gru.input.bias[3:6] = 30.0  # z is 1 now
    start, kept = torch.tensor([[0.5, -0.3, 0.9]]), torch.tensor([[0.5, -0.3, 0.9]])
    for x in torch.randn(32, 1, 2):
        kept = gru(gru.input(x), kept)
    return {'known': poems_of(['忆乡子', '长桃舞'], ['仲殊']), 'text': list(text), 'steps': steps, 'turn': cell.hidden.weight.T, 'pairs': pairs, 'states': states,
            'apart': (after(pairs[0], model) - after(pairs[1], model)).abs().max().item(),
            'apart_below': (after(pairs[0], below) - after(pairs[1], below)).abs().max().item(),
            'kept': (kept - start).abs().max().item(), 'vocabulary': size,
            'parts': parameters('v5', vocab_size=len(set(corpus())), n_hidden=64)}


@torch.no_grad()
def v6():
    size, char = tokenizer().vocab_size, '知'
    here = tokenizer().ids[char]
    model = build(LADDER['v6'], 3, vocab_size=size, n_embd=2, n_hidden=3)
    model.token_embedding_table.weight.copy_(rounded(torch.randn(size, 2)))
    for parameter in model.cell.parameters():
        parameter.data = rounded(2 * parameter.data)
    below = build(LADDER['v5'], 3, vocab_size=size, n_hidden=3)
    below.cell.input.weight.copy_(model.cell.input.weight @ model.token_embedding_table.weight.T)
    below.cell.input.bias.copy_(model.cell.input.bias)
    below.cell.hidden.weight.copy_(model.cell.hidden.weight)
    below.lm_head.load_state_dict(model.lm_head.state_dict())
    idx = torch.tensor([tokenizer().encode('往事知多少。')])
    row = model.token_embedding_table.weight[here]
    weight, bias = model.cell.input.weight, model.cell.input.bias
    chars, vectors = ['春', '秋', '酒'], torch.tensor([[0.6, 0.8], [1.6, 1.2], [-0.96, 0.28]])
    lengths = [round(math.sqrt(sum(each ** 2 for each in vector)), 2) for vector in vectors.tolist()]
    cosines = [round(sum(a * b for a, b in zip(vectors[0].tolist(), vector, strict=True)) / (lengths[0] * length), 2)
               for vector, length in zip(vectors.tolist(), lengths, strict=True)]
    nearest = module('v6').neighbours(vectors, 0, 2)
    vocabulary = len(set(corpus()))
    shown = list('往事知多少。')
    return {'known': poems_of(['鹊桥仙', '虞美人'], ['李清夫', '好离止']), 'char': char, 'shown': shown, 'place': shown.index(char), 'row': row, 'rows': [model.token_embedding_table.weight[tokenizer().ids[each]] for each in shown],
            'weight': weight.T, 'bias': bias, 'given': weight @ row + bias, 'given_made': linear(row.tolist(), weight.T.tolist(), bias.tolist())[0],
            'hot_column': weight @ row, 'apart': (model(idx)[0] - below(idx)[0]).abs().max().item(), 'vocabulary': vocabulary,
            'products': [vocabulary * 64, 64 * 64], 'chars': chars, 'vectors': vectors, 'lengths': lengths, 'cosines': cosines,
            'lengths_made': [f'√{number(sum(each ** 2 for each in vector), 4)}' for vector in vectors.tolist()],
            'cosines_made': [f'({products(vectors[0].tolist(), vector)}) ÷ ({number(lengths[0])} × {number(length)})'
                             for vector, length in zip(vectors.tolist(), lengths, strict=True)],
            'nearest': [chars[i] for i in nearest], 'parts': [parameters('v5', vocab_size=vocabulary, n_hidden=64),
                                                             parameters('v6', vocab_size=vocabulary, n_embd=64, n_hidden=64)]}


def poems_of(tunes, authors):
    """{word: how many poems of the corpus have it for a tune, or for an author}"""
    heads = [line.split(' ') for line in corpus().split('\n') if ' ' in line]
    return {word: sum(head[place] == word for head in heads) for place, words in enumerate((tunes, authors)) for word in words}


def v7():
    """After one character: what counting with Kneser-Ney smoothing gives the next."""
    script, char = module('v7'), '江'
    tokens = script.Tokenizer(corpus())
    data = np.array(tokens.encode(corpus()))
    train, val = np.split(data, [int(0.9 * len(data))])
    size = tokens.vocab_size
    lower, level = script.KneserNey(train, 2, size).levels
    context = tokens.ids[char]
    grams, counts = np.unique(script.pack(train, 2, size), return_counts=True)
    taken = script.discounts(counts)
    total = int(counts[grams // size == context].sum())
    left = round(float(level.left[np.searchsorted(level.contexts, context)]), 4)
    ids = sorted(range(size), key=lambda i: -count_of(context * size + i, grams, counts))[:4] + [tokens.ids[each] for each in '鸪美']
    below = lower.mix(np.arange(size), np.full(size, 1 / size))
    found = {name: [] for name in ('char', 'count', 'taken', 'below', 'p', 'p_made', 'add_one')}
    for i in ids:
        count, share = count_of(context * size + i, grams, counts), round(float(below[i]), 5)
        off = round(float(taken[min(count, 3)]), 3)
        p = (count - off) / total + left * share
        assert abs(p - level.mix(np.array([context * size + i]), below[[i]])[0]) < 1e-4
        made = f'({count} − {number(off, 3)}) ÷ {total} + {number(left, 4)} × {number(share, 5)}'
        for name, value in zip(found, (tokens.chars[i], float(count), off, share, p, made, (count + 1) / (total + size)), strict=True):
            found[name].append(value)
    common, never = ({name: values[part] for name, values in found.items()} for part in (slice(4), slice(4, None)))
    assert never['count'] == [0, 0]
    kinds = [{'char': each, 'times': int(np.count_nonzero(train == tokens.ids[each])), 'kinds': int(np.count_nonzero(grams % size == tokens.ids[each])),
              'share': float(np.count_nonzero(train == tokens.ids[each]) / len(train)), 'below': float(below[tokens.ids[each]])} for each in '鸪美']
    contexts = np.unique(script.pack(train, 4, size))
    unseen = 1 - np.isin(script.pack(val, 4, size), contexts).mean()
    return {'char': char, 'total': total, 'left': left, 'taken': [float(each) for each in taken[1:]], 'common': common, 'never': never, 'kinds': kinds, 'unseen': float(unseen),
            'seen_once': float((counts == 1).mean()), 'pairs': len(grams), 'cells': size ** 2,
            'copied': {phrase: corpus()[:len(train)].count(phrase) for phrase in ('浮家泛宅', '流落天涯', '长生久视')}}


def count_of(gram, grams, counts):
    place = int(np.searchsorted(grams, gram))
    return int(counts[place]) if place < len(grams) and grams[place] == gram else 0


def shared():
    """What any page may use."""
    size = len(set(corpus()))
    return {'vocabulary': size, 'ln_vocabulary': math.log(size)}


EXAMPLES = {'shared': shared, 'v1': v1, 'v2': v2, 'v3': v3, 'v4': v4, 'v5': v5, 'v6': v6, 'v7': v7}
