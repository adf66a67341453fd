"""The worked examples: numbers computed by the real classes and functions, with fixed seeds and sizes small enough to print.

Where a reader can follow a number, what is shown is rounded before the next step goes on from it, and the text of how it
was made (`…_made`) is of the numbers as shown. Nothing is trained here.
"""

import contextlib
import math
import re
from functools import cache

import torch
from torch import nn

from kit import results
from kit.experiments import own_constants
from kit.files import CORPUS, read
from kit.formats import number
from kit.ladders import LADDERS
from kit.scripts import build, module_of
from tools import bench

POEM = '春花秋月何时了，往事知多少。\n小楼昨夜又东风，故国不堪回首月明中。\n'  # Li Yu; the example's whole vocabulary
PIECE = '往事知多少'
BEGINNINGS = '虞美人\n往事知多少。\n\n相见欢\n无言独上西楼。\n\n浪淘沙\n帘外雨潺潺，春意阑珊。\n\n'  # three poems cut short
TINY = {'block_size': 8, 'n_embd': 4, 'n_head': 1, 'n_kv_head': 1, 'n_layer': 1, 'dropout': 0.0}
LADDER = LADDERS['modern']
torch.set_num_threads(1)  # the last digits hang on it


def module(name):
    return module_of(LADDER[name])


@cache
def tokenizer(text=POEM):
    return module('v13').Tokenizer(text)


def ids(text):
    return torch.tensor([tokenizer().encode(text)])


def tiny(name, seed, **sizes):
    """A tiny model of that rung, with the random weights of that seed."""
    return build(LADDER[name], seed, **{'vocab_size': tokenizer().vocab_size} | TINY | sizes)


def constants(name, on_cpu=True):
    """The hyperparameters as the script would set them on that device."""
    return own_constants(LADDER[name], on_cpu=on_cpu)


def parameters(name, sizes):
    """How many parameters each part of a model of that rung has; what two parts share counts once."""
    given = {'vocab_size': len(set(corpus()))} | {argument: sizes[argument] for argument in LADDER[name].arguments if argument in sizes}
    with torch.device('meta'):
        model = module(name).BabyGPT(**given)
    counts = {part: 0 for part in ('token_embedding_table', 'position_embedding_table', 'blocks', 'ln_f', 'lm_head')}
    for path, parameter in model.named_parameters():
        counts[path.split('.')[0]] += parameter.numel()
    return counts


def rounded(x, digits=2):
    return torch.round(x * 10 ** digits) / 10 ** digits


@contextlib.contextmanager
def by_hand(name):
    """In that rung's attention, what is turned, the scores and their softmax have two decimals: lists of what was turned, and of (scores, weights)."""
    script, turned, calls = module(name), [], []
    softmax, rotate = script.F.softmax, script.rotate

    def in_steps(x, dim):
        x = rounded(x)
        calls.append((x, rounded(softmax(x, dim))))
        return calls[-1][1]
    script.F.softmax = in_steps
    script.rotate = lambda x, cos, sin: turned.append(rounded(rotate(x, cos, sin))) or turned[-1]
    try:
        yield turned, calls
    finally:
        script.F.softmax, script.rotate = softmax, rotate


@contextlib.contextmanager
def given_to_softmax(name):
    """A list that fills with what softmax is given and returns inside that rung's module."""
    functions, calls = module(name).F, []
    softmax = functions.softmax
    functions.softmax = lambda x, dim: calls.append((x, softmax(x, dim))) or calls[-1][1]
    try:
        yield calls
    finally:
        functions.softmax = softmax


@contextlib.contextmanager
def watching(*modules):
    """A list that fills with (inputs, output) of those modules as they are called."""
    calls = []
    hooks = [each.register_forward_hook(lambda _, args, out: calls.append((args[0], out))) for each in modules]
    yield calls
    for hook in hooks:
        hook.remove()


@cache
def corpus():
    return read(CORPUS)


def factor(value, digits=2):
    """A number inside of a product or sum: a negative one is in parentheses."""
    text = number(value, digits)
    return f'({text})' if text.startswith('−') else text


def products(a, b, digits=2):
    return ' + '.join(f'{factor(x, digits)} × {factor(y, digits)}' for x, y in zip(a, b, strict=True))


@torch.no_grad()
def v13():
    script, sizes = module('v13'), constants('v13')
    toy = script.split_poems(BEGINNINGS, sizes['block_size'])
    tokens = script.Tokenizer(BEGINNINGS)
    poems = script.pad(toy, tokens)
    x, y = script.get_batch(poems, torch.arange(len(toy)))
    model = build(LADDER['v13'], 1, **TINY | {'vocab_size': tokens.vocab_size, 'block_size': 16})
    answers = (y != script.padding).sum(dim=1).tolist()
    sums = [rounded(n * model(x[i:i + 1, :n], y[i:i + 1, :n])[1]).item() for i, n in enumerate(answers)]
    loss = model(x, y)[1]
    other = x.where(y != script.padding, torch.full_like(x, 5))  # other characters where x is padded
    mean = round(sum(sums) / sum(answers), 2)
    assert abs(loss.item() - mean) < 0.006

    poems = script.split_poems(corpus(), sizes['block_size'])
    lengths = [len(poem) for poem in poems]
    train = script.pad([poem[:sizes['block_size'] + 1] for poem in poems], tokenizer(corpus()))[:int(sizes['train_ratio'] * len(poems))]
    sorted_batches = script.make_batches(train, sizes['batch_size'], torch.Generator().manual_seed(0))
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    row, seen, total = own_constants(LADDERS['root']['v12'], on_cpu=True)['block_size'], 0, sum(lengths)
    for length in lengths:  # of a row cut at random, at a random place in it: is the title of its poem in sight?
        seen += sum(1 - place / row for place in range(min(length, row)))
    return {'rows': [''.join(tokens.chars[i] if i >= 0 else ' ' for i in line) for line in script.pad(toy, tokens).tolist()],
            'lengths': [len(poem) for poem in toy], 'shape': list(x.shape), 'cells': x.numel(), 'answers': answers,
            'padded': x.numel() - sum(answers), 'sums': sums, 'loss': mean, 'padding': script.padding,
            'loss_made': f'({" + ".join(number(each) for each in sums)}) ÷ ({" + ".join(map(str, answers))})',
            'same': torch.equal(model(other, y)[1], loss), 'poems': len(poems), 'train': len(train),
            'cut': sum(length > sizes['block_size'] + 1 for length in lengths), 'block_size': sizes['block_size'], 'batch_size': sizes['batch_size'],
            'alike': padded_share(train, sorted_batches), 'mixed': padded_share(train, order.split(sizes['batch_size'])),
            'cut_at_64': sum(length > 65 for length in lengths), 'below_row': row, 'in_sight': seen / total}


def padded_share(poems, batches):
    """What share of the answers in these batches are padding."""
    script, padding, every = module('v13'), 0, 0
    for rows in batches:
        _, y = script.get_batch(poems, rows)
        padding, every = padding + (y == script.padding).sum().item(), every + y.numel()
    return padding / every


def v14():
    script, sizes = module('v14'), constants('v14')
    peak, warmup, last = sizes['learning_rate'], sizes['warmup_iters'], sizes['max_iters']

    def rate(step):
        return script.get_lr(step, peak, warmup, last)
    steps = [0, warmup // 2 - 1, warmup - 1, (last + warmup) // 2, last - 1]
    made = [f'{number(1000 * peak, 0)} × {step + 1} ÷ {warmup}' if step < warmup else
            f'{number(1000 * peak, 0)} × ({number(last, 0)} − {number(step, 0)}) ÷ ({number(last, 0)} − {warmup})' for step in steps]
    w, b = (nn.Parameter(torch.zeros(())) for _ in range(2))
    loss = sum((w * x + b - y) ** 2 for x, y in ((0, 1), (1, 3))) / 2
    loss.backward()
    before = [w.grad.item(), b.grad.item()]
    length = nn.utils.clip_grad_norm_([w, b], 1.0).item()
    after = [round(each.grad.item(), 2) for each in (w, b)]
    return {'peak': peak, 'warmup': warmup, 'last': last, 'steps': steps, 'rates': [1000 * rate(step) for step in steps], 'rates_made': made,
            'curve': [[step, rate(step)] for step in (0, warmup - 1, last)], 'loss': loss.item(), 'before': before,
            'length': length, 'after': after, 'after_made': [f'{number(each)} ÷ {number(length)}' for each in before],
            'tenth': clipped(before, 0.1), 'real': real_gradient(), 'unwarmed': 1000 * script.get_lr(0, peak, 1, last)}


def clipped(gradient, longest):
    each = nn.Parameter(torch.zeros(len(gradient)))
    each.grad = torch.tensor(gradient)
    nn.utils.clip_grad_norm_([each], longest)
    return rounded(each.grad)


def real_gradient():
    """How long the gradient of a model of v14's own size is before its first step, and how long after it was clipped."""
    script, sizes = module('v14'), constants('v14')
    poems = script.split_poems(corpus(), sizes['block_size'])[:8]
    tokens = tokenizer(corpus())
    table = script.pad([poem[:sizes['block_size'] + 1] for poem in poems], tokens)
    model = build(LADDER['v14'], sizes['seed'], **{name: sizes[name] for name in LADDER['v14'].arguments if name in sizes} | {'vocab_size': tokens.vocab_size})
    model(*script.get_batch(table, torch.arange(8)))[1].backward()
    before = nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()
    return [before, torch.stack([p.grad.norm() for p in model.parameters()]).norm().item()]


@torch.no_grad()
def v15():
    model = tiny('v14', 1)
    with watching(model.blocks[0]) as calls:
        model(ids(PIECE))
    x = rounded(calls[0][0][0, -1])
    rms, layer = module('v15').RMSNorm(4), nn.LayerNorm(4)
    rows = {}
    for name, row in {'x': x, 'scaled': 100 * x, 'moved': x + 5}.items():
        square, variance = rounded(row.square().mean(), 4).item(), rounded(row.var(unbiased=False), 4).item()
        mean = rounded(row.mean(), 4).item()
        rows[name] = {'x': row, 'rms': rms(row[None])[0], 'layer': layer(row[None])[0], 'square': square, 'mean': mean,
                      'rms_made': [f'{number(each)} ÷ √{number(square, 4)}' for each in row.tolist()],
                      'layer_made': [f'({number(each)} − {factor(mean, 4)}) ÷ √{number(variance, 4)}' for each in row.tolist()]}
    nothing = torch.zeros(1, 4)
    without = module('v15').RMSNorm(4)
    without.eps = 0.0
    centred = rms((x - x.mean())[None])[0]
    return rows | {'parameters': [sum(parameters(name, constants('v15')).values()) for name in ('v14', 'v15')],
                   'of_nothing': rms(nothing).abs().max().item(), 'without_eps': str(without(nothing)[0, 0].item()),
                   'centred': (centred - rows['x']['layer']).abs().max().item()}


@torch.no_grad()
def v16():
    script, width = module('v16'), 4
    cos, sin = (rounded(each, 4) for each in script.rotary(10, width))
    model = tiny('v16', SEEDS['v16'])
    with watching(model.blocks[0].sa.query, model.blocks[0].sa.key) as calls:
        model(ids('月月月月月'))
    q, k = (rounded(out[0, 0]) for _, out in calls)

    def turn(x, t):
        """x at position t, and how each number was made."""
        made = []
        for i in range(width):
            a, b = (x[i], x[i + 2]) if i < 2 else (x[i], x[i - 2])
            sign = '−' if i < 2 else '+'
            made.append(f'{factor(a.item())} × {factor(cos[t, i % 2].item(), 4)} {sign} {factor(b.item())} × {factor(sin[t, i % 2].item(), 4)}')
        return rounded(script.rotate(x[None], cos[t], sin[t])[0], 4), made
    turned, dots = [], []
    for t, s in ((2, 0), (5, 3), (9, 7)):
        (a, a_made), (b, b_made) = turn(q, t), turn(k, s)
        turned.append({'q': a, 'q_made': a_made, 'k': b, 'k_made': b_made, 'places': [t, s]})
        dots.append({'value': (a @ b).item(), 'made': products(a.tolist(), b.tolist(), 4)})

    def scores(name, seed=SEEDS['v16']):
        """Of five times the same character: what the attention of that rung's model gives to softmax."""
        model = tiny(name, seed)
        with given_to_softmax(name) as calls:
            model.blocks[0].sa(model.blocks[0].ln1(model.token_embedding_table(ids('月月月月月')) + places(model)))
        return calls[0][0][0, 0]

    def along(rows):
        """By how much neighbours on a diagonal differ at most."""
        return max(abs(rows[i, j] - rows[i - 1, j - 1]).item() for i in range(1, 5) for j in range(1, i + 1))

    def places(model):
        table = getattr(model, 'position_embedding_table', None)
        return table(torch.arange(5)) if table else 0
    only_q = [(rounded(script.rotate(q[None], cos[t], sin[t])[0], 4) @ k).item() for t in (2, 5, 9)]
    sizes = constants('v16')
    head_size = sizes['n_embd'] // sizes['n_head']
    all_cos, all_sin = script.rotary(sizes['block_size'], head_size)
    angles = torch.atan2(all_sin, all_cos)
    pairs = [0, head_size // 8, head_size // 4]
    return {'q': q, 'k': k, 'shown': SHOWN, 'cos': cos[SHOWN].T, 'sin': sin[SHOWN].T, 'turned': turned, 'dots': dots, 'below': scores('v15'), 'here': scores('v16'),
            'along': {name: along(scores(name)) for name in ('v15', 'v16')},
            'head_size': head_size, 'pairs': pairs, 'angles': [[angles[t, pair].item() for t in range(7)] for pair in pairs],
            'speeds': [angles[1, pair].item() for pair in pairs], 'slowest': angles[1, -1].item(), 'only_q': only_q,
            'slowest_of_100': math.atan2(*(each[1, -1].item() for each in reversed(script.rotary(2, head_size, base=100.0)))),
            'table': parameters('v15', sizes)['position_embedding_table'],
            'flat': [math.atan2(q[2].item(), q[0].item()), math.atan2(k[2].item(), k[0].item())]}


@torch.no_grad()
def v17():
    model = tiny('v17', SEEDS['v17'])
    ffwd = model.blocks[0].ffwd
    with watching(ffwd) as calls:
        model(ids(PIECE))
    for parameter in ffwd.parameters():
        parameter.data = rounded(parameter.data)
    x = rounded(calls[0][0][0, -1])
    gate, up = rounded(ffwd.gate(x)), rounded(ffwd.up(x))
    opened = rounded(torch.nn.functional.silu(gate))
    passed = rounded(opened * up)
    out = rounded(ffwd.down(passed))
    assert (out - ffwd(x[None, None])[0, 0]).abs().max() < 0.03
    xs = [each / 4 for each in range(-20, 21)]
    matrix = ffwd.down.weight.T
    sigmoid = ffwd.down(torch.sigmoid(ffwd.gate(x)) * ffwd.up(x))
    shut = tiny('v17', SEEDS['v17']).blocks[0].ffwd
    shut.gate.weight.zero_()
    return {'x': x, 'gates': [[a, b, c, d] for a, b, c, d in zip(gate.tolist(), opened.tolist(), up.tolist(), passed.tolist(), strict=True)],
            'gates_made': [[products(x.tolist(), ffwd.gate.weight[i].tolist()), f'{number(a)} ÷ (1 + e^{factor(-a)})',
                            products(x.tolist(), ffwd.up.weight[i].tolist()), f'{factor(b)} × {factor(c)}']
                           for i, (a, b, c) in enumerate(zip(gate.tolist(), opened.tolist(), up.tolist(), strict=True))],
            'down': matrix, 'out': out, 'out_made': [[products(passed.tolist(), column) for column in matrix.T.tolist()]],
            'sigmoid': sigmoid, 'shut': shut(x[None, None]).abs().max().item(),
            'curve': [[each, torch.nn.functional.silu(torch.tensor(each)).item()] for each in xs],
            'lowest': min(torch.nn.functional.silu(torch.tensor(each)).item() for each in xs),
            'n_embd': constants('v17')['n_embd'],
            'hidden': [4 * constants('v17')['n_embd'], ffwd_width(constants('v17')['n_embd'])],
            'counts': [count_ffwd(name) for name in ('v16', 'v17')]}


def ffwd_width(n_embd):
    with torch.device('meta'):
        return module('v17').FeedForward(n_embd, 0.0).gate.out_features


def count_ffwd(name):
    with torch.device('meta'):
        return sum(p.numel() for p in module(name).FeedForward(constants(name)['n_embd'], 0.0).parameters())


@torch.no_grad()
def v18():
    sizes = {'n_embd': 8, 'n_head': 4}
    model = tiny('v18', SEEDS['v18'], **sizes, n_kv_head=2)
    sa = model.blocks[0].sa
    with by_hand('v18') as (turned, calls):
        model(ids(PIECE))
    q, k = turned
    scores = calls[0][0][0, :, -1]  # (heads, T)
    made = [[f'({products(q[0, head, -1].tolist(), k[0, head // 2, s].tolist())}) ÷ √2' for s in range(5)] for head in range(4)]
    below, same = tiny('v17', 1, **sizes), tiny('v18', 1, **sizes, n_kv_head=4)
    same.load_state_dict(below.state_dict())
    rows = []
    for on_cpu in (True, False):
        found = constants('v18', on_cpu)
        heads, width = [found['n_head'], found['n_kv_head']], found['n_embd'] // found['n_head']
        rows.append({'layers': found['n_layer'], 'length': found['block_size'], 'heads': heads, 'width': width,
                     'kib': [cache_bytes(name, found) / 1024 for name in ('v17', 'v18')],
                     'kib_of_1': cache_bytes('v18', found | {'n_kv_head': 1}) / 1024})
    return {'q': q[0, :, -1], 'k': k[0], 'scores': scores, 'scores_made': made, 'rows': rows,
            'weights': calls[0][1][0, :, -1], 'weights_made': [softmax_made(row) for row in scores.tolist()],
            'same': torch.equal(below(ids(PIECE))[0], same(ids(PIECE))[0]), 'key': list(sa.key.weight.shape), 'query': list(sa.query.weight.shape),
            'counts': [sum(parameters(name, constants('v18')).values()) for name in ('v17', 'v18')],
            'count_of_1': sum(parameters('v18', constants('v18') | {'n_kv_head': 1}).values())}


def softmax_made(row):
    return [f'e^{factor(each)} ÷ ({" + ".join(f"e^{factor(other)}" for other in row)})' for each in row]


def cache_bytes(name, sizes):
    """What the keys and values of one poem of block_size characters take, as the model makes them."""
    with torch.device('meta'):
        model = module(name).BabyGPT(29, **{argument: sizes[argument] for argument in LADDER[name].arguments if argument in sizes})
    return sum((block.sa.key.out_features + block.sa.value.out_features) * sizes['block_size'] * 4 for block in model.blocks)


@torch.no_grad()
def v19():
    found = {}
    for name in ('v18', 'v19'):
        found[name] = []
        for scale in (1, 10, 100):
            model = tiny(name, SEEDS['v19'])
            for layer in (model.blocks[0].sa.query, model.blocks[0].sa.key):
                layer.weight.mul_(scale)
            with given_to_softmax(name) as calls:
                model(ids(PIECE))
            found[name].append({'scores': calls[0][0][0, 0, -1], 'weights': calls[0][1][0, 0, -1]})
    sizes, script = constants('v19'), module('v19')
    wide, model = tiny('v19', SEEDS['v19']), tiny('v19', SEEDS['v19'])
    wide.blocks[0].sa.q_norm.weight.fill_(3.0)
    with given_to_softmax('v19') as calls:
        wide(ids(PIECE))
    threefold = (calls[0][0][0, 0, -1] / found['v19'][0]['scores']).mean().item()
    x, turn, norm = torch.randn(1, 1, 5, 4), script.rotary(5, 4), script.RMSNorm(4)
    swapped = (norm(script.rotate(x, *turn)) - script.rotate(norm(x), *turn)).abs().max().item()
    with watching(model.blocks[0].sa.q_norm) as calls:
        model(ids(PIECE))
    before, after = (rounded(each[0, 0, -1], 4) for each in calls[0])
    square = rounded(before.square().mean(), 4).item()
    return found | {'bound': math.sqrt(TINY['n_embd']), 'real_width': sizes['n_embd'] // sizes['n_head'],
                    'real_bound': math.sqrt(sizes['n_embd'] // sizes['n_head']), 'q': before, 'normed': rounded(after),
                    'threefold': threefold, 'swapped': swapped,
                    'square': square, 'normed_made': [f'{number(each, 4)} ÷ √{number(square, 4)}' for each in before.tolist()],
                    'extra': sum(parameters('v19', sizes).values()) - sum(parameters('v18', sizes).values())}


def v20():
    text, answer = ids(PIECE), ids('事知多少。')
    below, model = tiny('v19', SEEDS['v20']), tiny('v20', SEEDS['v20'])
    below.load_state_dict(model.state_dict())  # the same numbers, in two matrices
    for each in (below, model):
        each(text, answer)[1].backward()
    row = ids('知')[0, 0]
    read, write = (rounded(each.weight.grad[row], 4) for each in (below.token_embedding_table, below.lm_head))
    both = rounded(read + write, 4)
    assert (both - model.lm_head.weight.grad[row]).abs().max() < 2e-4
    sizes = [constants('v19'), constants('v20'), constants('v20', on_cpu=False)]
    return {'row': model.lm_head.weight[row].detach(), 'read': read, 'write': write, 'both': both,
            'both_made': [f'{number(a, 4)} + {factor(b, 4)}' for a, b in zip(read.tolist(), write.tolist(), strict=True)],
            'counts': [[parameters(name, size) for name in ('v19', 'v20')] for size in sizes],
            'layers': [size['n_layer'] for size in sizes], 'n_embd': [size['n_embd'] for size in sizes],
            'narrow': [sum(parameters(name, sizes[0] | {'n_embd': 64}).values()) for name in ('v19', 'v20')], 'untrained': untrained_loss(), 'steps': [constants(name)['max_iters'] for name in ('v19', 'v20')]}


@torch.no_grad()
def untrained_loss():
    """Of the first eight poems, in the size of the script: as it is, and with the table that nn.Embedding would make."""
    script, sizes = module('v20'), constants('v20')
    tokens = tokenizer(corpus())
    table = script.pad([poem[:sizes['block_size'] + 1] for poem in script.split_poems(corpus(), sizes['block_size'])[:8]], tokens)
    model = build(LADDER['v20'], sizes['seed'], **{name: sizes[name] for name in LADDER['v20'].arguments if name in sizes} | {'vocab_size': tokens.vocab_size})
    batch = script.get_batch(table, torch.arange(8))
    own = model(*batch)[1].item()
    model.lm_head.weight.copy_(nn.Embedding(tokens.vocab_size, sizes['n_embd']).weight)
    return [own, model(*batch)[1].item()]


@torch.no_grad()
def sample():
    script, width = module('babygpt_sample'), 8
    sizes = {'vocab_size': tokenizer().vocab_size} | TINY
    del sizes['dropout']
    slow = tiny('v20', 1, block_size=8)
    fast = build(LADDER['babygpt_sample'], 1, **sizes)
    fast.load_state_dict(slow.state_dict())
    text = ids('往事知多少。小楼')
    cache, nobody = fast.empty_cache(1), torch.zeros(1, 8, dtype=torch.bool)
    pieces = [fast(text[:, t:t + 1], cache, t, nobody) for t in range(8)]
    apart = (torch.cat(pieces, dim=1) - slow(text)[0]).abs().max().item()
    rings = []
    for position in (5, 8, 10):
        held = [None] * width
        for each in range(position + 1):
            held[each % width] = each
        rings.append({'position': position, 'held': held})
    logits = torch.tensor([[2.7, 2.0, 1.0, 0.6, -0.7]])
    seen = torch.tensor([[True, False, False, False, False]])
    kept = {'none': logits, 'top_k': script.keep_top_k(logits, 3), 'top_p': script.keep_top_p(logits, 0.7),
            'min_p': script.keep_min_p(logits, 0.1), 'penalty': script.penalize_repetition(logits, seen, 2.0)}
    first = rounded(logits.softmax(-1))
    probs, made = {}, {}
    for name, each in kept.items():
        left = each[0] > float('-inf')
        if name in ('none', 'penalty'):
            probs[name], made[name] = each.softmax(-1)[0], softmax_made(each[0].tolist())
        else:
            total = ' + '.join(number(p) for p, there in zip(first[0].tolist(), left.tolist(), strict=True) if there)
            probs[name] = rounded(first[0] * left / (first[0] * left).sum())
            made[name] = [f'{number(p)} ÷ ({total})' if there else None for p, there in zip(first[0].tolist(), left.tolist(), strict=True)]
            assert (probs[name] - each.softmax(-1)[0]).abs().max() < 0.01
    prompts = ['浣溪沙 ', '水调歌头 ']
    longest = max(map(len, prompts))
    big = constants('v20')
    return {'shape': list(cache[0][0].shape), 'apart': apart, 'rings': rings, 'logits': logits[0], 'probs': probs, 'made': made,
            'prompts': prompts, 'left': [longest - len(each) for each in prompts],
            'cooler': (logits / 0.5).softmax(-1)[0], 'kib_of_256': cache_bytes('v20', big | {'block_size': 256}) / 1024,
            'block_size': big['block_size'], 'kib': cache_bytes('v20', big) / 1024, 'layers': big['n_layer'],
            'heads': big['n_kv_head'], 'width': big['n_embd'] // big['n_head']}


def export():
    """A tiny v20 under the names of Qwen3: every tensor, the settings, the tokens, and what transformers computes with them."""
    from transformers import Qwen3Config, Qwen3ForCausalLM
    script, sizes = module('export_hf'), {'n_embd': 8, 'n_head': 4, 'n_kv_head': 2}
    ours = tiny('v20', 1, **sizes)
    weights, vocabulary = ours.state_dict(), ''.join(tokenizer().chars)
    renamed, hyper_params = script.rename(weights), TINY | sizes
    config = script.make_config(hyper_params, weights, len(vocabulary))
    theirs = Qwen3ForCausalLM(Qwen3Config(**config)).eval()
    missing = theirs.load_state_dict(renamed, strict=False)
    theirs.tie_weights()
    theirs_by_tensor = {tensor.data_ptr(): name for name, tensor in renamed.items()}
    tokens = script.make_tokenizer(vocabulary)
    asked = {'n_embd': 'hidden_size', 'n_layer': 'num_hidden_layers', 'n_head': 'num_attention_heads',
             'n_kv_head': 'num_key_value_heads', 'block_size': 'max_position_embeddings'}
    return {'names': [[name, theirs_by_tensor[tensor.data_ptr()], list(tensor.shape)] for name, tensor in weights.items()],
            'tensors': len(renamed), 'config': [[name, key, config[key]] for name, key in asked.items()],
            'own': [[key, config[key]] for key in ('intermediate_size', 'hidden_act', 'rms_norm_eps', 'rope_theta', 'tie_word_embeddings')],
            'missing': [*missing.missing_keys, *missing.unexpected_keys],
            'text': PIECE, 'tokens': tokens.encode(PIECE).ids, 'ours': tokenizer().encode(PIECE),
            'apart': (ours.eval()(ids(PIECE))[0] - theirs(ids(PIECE)).logits).abs().max().item()}


def v21():
    """What a step keeps at several lengths, v20 and v21 of the default size; the same attention; numbers in bfloat16."""
    sizes = {'batch_size': 1} | {name: constants('v20')[name] for name in ('n_embd', 'n_head', 'n_kv_head', 'n_layer', 'dropout')}
    lengths = [128, 256, 512, 1024]
    kept = [[bench.needed(LADDER[name], sizes | {'block_size': length})['activations'] / 1e6 for length in lengths]
            for name in ('v20', 'v21')]
    old, new = tiny('v20', 1), tiny('v21', 1)
    new.load_state_dict(old.state_dict())
    numbers = torch.tensor([1 / 3, 1.004, 300.7, 1e30])
    return {'lengths': lengths, 'kept': kept, 'layers': sizes['n_layer'], 'n_embd': sizes['n_embd'],
            'scores': 4 * sizes['n_head'] * lengths[-1] ** 2 / 1e6, 'apart': (old(ids(PIECE))[0] - new(ids(PIECE))[0]).abs().max().item(),
            'numbers': numbers, 'rounded': numbers.bfloat16().float(),
            'added': [(torch.tensor(1.0, dtype=torch.bfloat16) + torch.tensor(2.0 ** -n, dtype=torch.bfloat16)).item() for n in (7, 9)],
            'presets': [[name, dict(zip(module('v21').preset_columns, values, strict=True))] for name, values in module('v21').presets.items()]}


def v22():
    """The losses of eight tiny steps, never killed; and killed after four and begun again, with all that was kept or without some."""
    x, y = ids(POEM[:8]), ids(POEM[1:9])

    def run(first, last, kept=None, without=()):
        model = tiny('v22', 3, dropout=0.2).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
        torch.manual_seed(0)
        if kept:
            model.load_state_dict(kept['model'])
            if 'optimizer' not in without:
                optimizer.load_state_dict(kept['optimizer'])
            if 'random' not in without:
                torch.set_rng_state(kept['random'])
        losses = []
        for _ in range(first, last):
            _, loss = model(x, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses, {'model': model.state_dict(), 'optimizer': optimizer.state_dict(), 'random': torch.get_rng_state()}
    whole, (_, kept) = run(0, 8)[0], run(0, 4)
    return {'steps': [str(step) for step in range(4, 8)], 'whole': whole[4:], 'resumed': run(4, 8, kept)[0],
            'without': {name: run(4, 8, kept, [name])[0] for name in ('optimizer', 'random')}}


def v23():
    """A batch of three poems among two processes: characters, loss, share; the mean of means, and over the characters."""
    script, padding = module('v23'), module('v23').padding
    poems = script.split_poems(BEGINNINGS, 16)
    words = script.Tokenizer(BEGINNINGS)
    table = script.pad(poems, words)
    model = build(LADDER['v23'], 2, **TINY | {'vocab_size': words.vocab_size, 'block_size': 16, 'n_head': 1})
    rows = torch.arange(len(poems))

    def seen(mine):
        x, y = script.get_batch(table, mine)
        return (y != padding).sum().item(), model(x, y)[1].item()
    whole, shares = seen(rows), [seen(rows[rank::2]) for rank in range(2)]
    return {'poems': [[poems[i].split('\n')[0] for i in rows[rank::2]] for rank in range(2)], 'shares': shares, 'whole': whole,
            'plain': sum(loss for _, loss in shares) / 2,
            'weighted': sum(loss * n * 2 / whole[0] for n, loss in shares) / 2}


def bpe():
    """The first merges of a short text, one by one; a line cut with more and more merges; how the vocabulary grows."""
    script = module('babygpt_bpe')
    short = '东风，东方，东风'
    first = script.train_merges(short, 7)
    small = script.Tokenizer(first)
    steps = [[list(pair), 256 + i, small.tokens[256 + i].hex(' '), small.decode([256 + i])] for i, pair in enumerate(first)]
    text, line, counts = corpus()[:120_000], '小楼昨夜又东风', [0, 500, 1500, 3000]
    merges = script.train_merges(text, counts[-1])
    cuts = []
    for n in counts:
        tokens = script.Tokenizer(merges[:n])
        cuts.append([[tokens.decode([i]), len(tokens.tokens[i])] for i in tokens.encode(line)])
    return {'short': short, 'bytes': [[char, char.encode().hex(' ')] for char in '东风方，'], 'steps': steps,
            'ids': [script.Tokenizer(first[:n]).encode(short) for n in (0, 7)], 'line': line, 'counts': counts, 'cuts': cuts,
            'emoji': [len(script.Tokenizer(merges).encode('🌸')), script.Tokenizer(merges).decode(script.Tokenizer(merges).encode('🌸'))]}


REAL = '归字谣 蔡伸\n天。\n休使圆蟾照客眠。\n人何在，桂影自婵娟。\n\n'  # Cai Shen; of the shortest tune with a known form
GROUP = [REAL, REAL.replace('客眠', '客'), REAL.replace('何在', '今何在'), REAL.rstrip('\n') + '\n又一年。\n\n']  # three made from it, each wrong
OWN = '归字谣 蔡伸\n归。\n夜雨声中第几回。\n江南岸，花落又花开。\n\n'  # made up; keeps the form


@cache
def known_forms(name):
    """The forms that the script knows, counted as its main does; and the poems that it counts."""
    script = module(name)
    poems = script.read_poems()
    poems = poems[:int(script.train_ratio * len(poems))]
    return script.count_forms(poems), poems


def v24():
    """A group of four poems: the form, the reward of each, which one is kept. Chances that one of n keeps the form."""
    script, (forms, _) = module('babygpt_v24_best_of_n'), known_forms('babygpt_v24_best_of_n')
    rewards = [script.reward(poem, forms) for poem in GROUP]
    return {'poems': [poem.strip() for poem in GROUP], 'forms': [list(form) for form in forms[script.tune_of(REAL)]],
            'own': [list(script.form_of(poem)) for poem in GROUP], 'rewards': rewards, 'best': rewards.index(max(rewards)), 'unended': script.reward(REAL.rstrip('\n'), forms),
            'default': known_default('babygpt_v24_best_of_n', 'num_samples')}


def known_default(name, option):
    """The default of an option as parse_args of the script gives it."""
    return int(re.search(rf"'--{option}', type=int, default=(\d+)", LADDER[name].source)[1])


def v25():
    """Winners of a group: one wrong, one copied, one that stays; what of it is an answer; how far two models are apart at a character."""
    script, (forms, known) = module('babygpt_v25_expert_iteration'), known_forms('babygpt_v25_expert_iteration')
    poems = [GROUP[1], REAL, OWN]
    known_runs = {run for poem in known for run in script.runs_of(poem)}
    winners = script.winners_of(poems, forms, known_runs)
    words = script.Tokenizer(OWN)
    x, y = script.own_batch([OWN], words, 64)
    shown = len(script.tune_of(OWN)) + 7
    chars = [[None if i == script.padding else words.decode([i]) for i in row[0, :shown].tolist()] for row in (x, y)]
    before, now = torch.tensor([0.2, 0.2, 0.2, 0.2]), torch.tensor([0.1, 0.2, 0.4, 0.8])
    return {'poems': [poem.strip() for poem in poems], 'rewards': [script.reward(poem, forms) for poem in poems],
            'copied': [not known_runs.isdisjoint(script.runs_of(poem)) for poem in poems], 'kept': [poem in winners for poem in poems],
            'x': chars[0], 'y': chars[1], 'given': y[0].tolist().count(script.padding), 'before': before, 'now': now,
            'apart': script.divergence(now.log(), before.log())}


def v26():
    """A group of four poems, the characters of each judged; a group drawn at the first wrong place of one; the poems of the measured run, judged."""
    script, (forms, _) = module('babygpt_v26_grpo'), known_forms('babygpt_v26_grpo')
    title = len(GROUP[0].partition('\n')[0]) + 1
    judged = [script.judge(poem, forms) for poem in GROUP]
    right = [[1.0 if rewards[i, script.kind_of(text[i])] else -1.0 for i in range(title, len(text))] for text, rewards in judged]
    whole = torch.tensor([script.reward(poem, forms) for poem in GROUP])
    run = results.load().get('rewarded', {}).get('babygpt_v26_grpo', {})
    model, tokenizer, _ = script.load_model(script.pretrained_path)
    text, rewards = judged[3]
    torch.manual_seed(script.seed)
    with torch.no_grad():
        drawn = script.pick(script.scores_of(model, torch.tensor([tokenizer.encode(text[:-1])]))[:, -1], script.group_size)[0].tolist()
    group = [tokenizer.decode([i]) for i in drawn]
    worth = rewards[-1][[script.kind_of(char) for char in group]]
    return {'poems': [poem.strip() for poem in GROUP], 'chars': [poem[title:] for poem in GROUP], 'values': padded(right),
            'text': text, 'kinds': rewards[-1], 'group': group, 'rewards': worth, 'advantages': script.advantages(worth), 'whole': whole,
            'compared': script.advantages(whole), 'three_wrong': script.advantages(torch.tensor([1.0, 0.0, 0.0, 0.0]))[:2],
            'told': [told(script, forms, *poem) for poem in run.get('poems', [])]}


def padded(rows):
    """The rows, with nothing (None) behind the shorter ones."""
    longest = max(map(len, rows))
    return [row + [None] * (longest - len(row)) for row in rows]


def told(script, forms, step, poem):
    """A poem as the run printed it, judged: whether it ends and keeps the form; the clause that is wrong, and what stands around it."""
    given = len(script.tune_of(poem)) + 1
    ended = len(poem) + 2 - given <= script.max_new_tokens
    text = poem + '\n\n' * ended
    judged, rewards = script.judge(text, forms)
    start = end = len(poem)
    if not rewards[-1, script.kind_of(judged[-1])]:
        *_, (start, end) = (each.span() for each in re.finditer('[^。，、！？；：\n]+', poem) if each.start() < len(judged))
    return {'step': step, 'poem': poem, 'ended': ended, 'kept': script.reward(text, forms) == 1, 'parts': [poem[:start], poem[start:end], poem[end:]]}


def shared():
    """What any page may use."""
    size = len(set(corpus()))
    return {'ids': list(PIECE), 'vocabulary': size, 'ln_vocabulary': math.log(size)}


SHOWN = [0, 1, 2, 3, 5]  # positions for which v16's page has room
SEEDS = {'v16': 5, 'v17': 1, 'v18': 26, 'v19': 1, 'v20': 1}
EXAMPLES = {'shared': shared, 'v13': v13, 'v14': v14, 'v15': v15, 'v16': v16, 'v17': v17, 'v18': v18, 'v19': v19, 'v20': v20,
            'v21': v21, 'v22': v22, 'v23': v23, 'bpe': bpe, 'sample': sample, 'v24': v24, 'v25': v25, 'v26': v26, 'export': export}
