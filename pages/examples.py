"""The worked examples: numbers computed by the real classes, with fixed seeds and sizes small enough to print.

Each function returns what the page of its rung shows, and `python tools/walkthrough.py examples` keeps it in
docs/examples.json. Nothing is trained here but for the single step on v1's page. Where a reader can follow a number,
everything is rounded to the decimals that are shown before the next step goes on from it.
"""

import contextlib
import io
import math
import re
from collections import Counter
from functools import cache
from inspect import signature
from itertools import pairwise
from types import MethodType

import torch

from kit.files import CORPUS, read
from kit.ladders import LADDERS
from kit.scripts import build, load, module_of

POEM = '春花秋月何时了，往事知多少。\n小楼昨夜又东风，故国不堪回首月明中。\n'  # Li Yu; the example's whole vocabulary
PIECE, ANSWER = '往事知多少', '事知多少。'
SEED = 363  # with it, each row of weights of v3 and v4 adds up to 1 as shown, too
TINY = {'block_size': 8, 'n_embd': 4, 'n_head': 2, 'n_layer': 2, 'dropout': 0.0}
SAMPLER = LADDERS['root']['babygpt_sample_with_kvcache']
torch.set_num_threads(1)  # the last digits hang on it


def rung(number):
    return LADDERS['root'][f'v{number}']


def module(number):
    return module_of(rung(number))


@cache
def tokenizer():
    return module(1).Tokenizer(POEM)


def ids(text):
    return torch.tensor([tokenizer().encode(text)])


def tiny(number, seed, **sizes):
    """A tiny model of that rung, with the random weights of that seed."""
    return build(rung(number), seed, **{'vocab_size': tokenizer().vocab_size} | TINY | sizes)


def rounded(x, digits=2):
    return torch.round(x * 10 ** digits) / 10 ** digits


def by_hand(number, seed=SEED, **sizes):
    """A tiny model that goes on from what is shown: its parameters, and what each of its parts returns, have two decimals."""
    model = tiny(number, seed, **sizes)
    for parameter in model.parameters():
        parameter.data = rounded(parameter.data)
    for name, part in model.named_modules():
        if name and not isinstance(part, torch.nn.Dropout):
            part.register_forward_hook(lambda _, args, out: rounded(out))
    return model


def matrix(linear):
    """What a linear layer multiplies a row with: a column for each number that comes out."""
    return linear.weight.T.tolist()


@contextlib.contextmanager
def watching(*modules):
    """A list that fills with (inputs, output) of those modules as they are called."""
    calls = []
    hooks = [each.register_forward_hook(lambda _, args, out: calls.append((args[0], out))) for each in modules]
    yield calls
    for hook in hooks:
        hook.remove()


@contextlib.contextmanager
def watching_softmax(number):
    """What softmax is given and returns inside that rung's module, both rounded to two decimals."""
    functions = module(number).F
    softmax, calls = functions.softmax, []

    def by_hand(x, dim):
        x = rounded(x)
        calls.append((x, rounded(softmax(x, dim))))
        return calls[-1][1]
    functions.softmax = by_hand
    try:
        yield calls
    finally:
        functions.softmax = softmax


@cache
def corpus():
    return read(CORPUS)


@cache
def real_batch():
    """The first 8 pieces of 32 characters of the validation text, as the scripts number them."""
    text = corpus()
    tokens = module(1).Tokenizer(text)
    start = int(0.9 * len(text))
    chunks = torch.tensor(tokens.encode(text[start:start + 8 * 33])).view(8, 33)
    return tokens.vocab_size, chunks[:, :-1], chunks[:, 1:]


def real(number, **sizes):
    """A model of that rung with the sizes of the script itself, and its own seed, untrained."""
    script = module(number)
    own = {name: getattr(script, name) for name in signature(script.BabyGPT).parameters if hasattr(script, name)}
    return build(rung(number), script.seed, **own | {'vocab_size': real_batch()[0]} | sizes)


def bigrams():
    char = '江'
    counts = Counter(after for before, after in pairwise(corpus()) if before == char)
    total, size = counts.total(), len(set(corpus()))
    return {'char': char, 'total': total, 'vocab': size, 'kinds': len(counts), 'pairs': len(set(pairwise(corpus()))),
            'ln_vocab': math.log(size), 'cells': size * size,
            'rows': [(after, n, n / total, (n + 1) / (total + size), -math.log((n + 1) / (total + size)))
                     for after, n in counts.most_common(5)],
            'unseen': (1 / (total + size), math.log(total + size))}


@torch.no_grad()
def v1():
    model = by_hand(1, 3)
    x, y = ids(PIECE), ids(ANSWER)
    with watching(model.token_embedding_table) as calls:
        logits = model(x)[0]
    embedding, head, bias = calls[0][1][0], matrix(model.lm_head), model.lm_head.bias
    powers = rounded(logits[0, 0].exp().sum())
    chosen = rounded(logits.softmax(-1)[0][range(5), y[0]], 4)
    surprise = rounded(-chosen.log())
    model = tiny(1, 3)
    loss = model(x, y)[1]
    with torch.enable_grad():
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        model(x, y)[1].backward()
        optimizer.step()
    after, loss_after = model(x, y)
    return {'vocab': tokenizer().vocab_size, 'ids': x[0].tolist(), 'first': PIECE[0], 'answer': ANSWER[0],
            'embedding': embedding, 'head': [[row[i] for i in y[0]] for row in head], 'bias': bias[y[0]], 'logits': logits[0, 0, y[0]], 'powers': powers,
            'probs': rounded(logits[0, 0, y[0]].exp() / powers, 4), 'chosen': chosen, 'surprise': surprise,
            'loss': loss.item(), 'after': loss_after.item(),
            'chosen_after': after.softmax(-1)[0][range(5), y[0]], 'ln_vocab': math.log(tokenizer().vocab_size)}


@torch.no_grad()
def v2():
    text, following = '月明月', ids('明')[0, 0]
    below, model = by_hand(1, 3), by_hand(2, 3)
    x = ids(text)
    tokens, places = model.token_embedding_table(x)[0], model.position_embedding_table.weight[:3].detach()
    return {'text': text, 'tokens': tokens, 'places': places, 'sums': tokens + places,
            'below': below(x)[0].softmax(-1)[0, :, following].tolist(),
            'here': model(x)[0].softmax(-1)[0, :, following].tolist()}


@torch.no_grad()
def v3():
    model = by_hand(3)
    layers = {'query': model.sa.query, 'key': model.sa.key, 'value': model.sa.value}
    with watching_softmax(3) as softmax, watching(model.sa, *layers.values()) as calls:
        logits = model(ids(PIECE))[0]
    (_, q), (_, k), (_, v), (x, out) = calls
    [(scores, weights)] = softmax
    with watching_softmax(3):
        other = model(ids(PIECE[:4] + '风'))[0]
    moved = (logits - other).abs().amax(dim=2)[0]
    return {'x': x[0], 'matrices': {name: matrix(layer) for name, layer in layers.items()}, 'q': q[0], 'k': k[0], 'v': v[0],
            'out': out[0], 'scores': scores[0], 'weights': weights[0], 'dot': q[0, 1] @ k[0, 0],
            'scaled': scores[0, 1, 0], 'root': math.sqrt(q.size(-1)), 'moved': moved}


@torch.no_grad()
def v4():
    model = by_hand(4)
    with watching_softmax(4) as softmax, watching(model.sa.query, model.sa.value, model.sa) as calls:
        model(ids(PIECE))
    [(_, weights)] = softmax
    (_, q), (_, v), (_, out) = calls
    return {'q': q[0, 1], 'heads': q[0, 1].view(2, 2), 'weights': weights[0], 'values': v[0].view(5, 2, 2).transpose(0, 1), 'out': out[0, -1],
            'parameters': [sum(p.numel() for p in tiny(n, SEED).parameters()) for n in (3, 4)]}


@torch.no_grad()
def v5():
    model = by_hand(5)
    first, relu, second = model.ffwd.net
    with watching_softmax(5), watching(first, relu, second) as calls:
        model(ids(PIECE))
    (x, wide), (_, open_), (_, out) = ((before[0, -1], after[0, -1]) for before, after in calls)
    kept = [place for place, value in enumerate(open_.tolist()) if value]
    halves = {'first': first.weight.T.unflatten(1, (2, 8)).transpose(0, 1), 'first_bias': first.bias.view(2, 8), 'wide': wide.view(2, 8)}
    return {'x': x, **halves, 'zeros': len(wide) - len(kept),
            'kept': kept, 'open': open_[kept], 'second': [matrix(second)[place] for place in kept],
            'second_bias': second.bias, 'out': out}


@torch.no_grad()
def depth(number):
    """How far positions differ in each number of the stream, before the blocks and after each, untrained."""
    model = real(number)
    with watching(*model.blocks) as calls:
        logits = model(real_batch()[1])[0]
    streams = [calls[0][0], *(out for _, out in calls)]
    return {'deviations': [x.flatten(0, 1).std(dim=0).mean().item() for x in streams],
            'logits': logits.flatten(0, 1).std(dim=0).mean().item()}


def gradient_ratio(number, layers=16, forward=None):
    """Root mean square of the gradient in the first block over that in the last, untrained; `forward`: another block's."""
    model = real(number, n_layer=layers)
    for block in model.blocks if forward else []:
        block.forward = MethodType(forward, block)
    model(*real_batch()[1:])[1].backward()
    first, last = (torch.cat([p.grad.flatten() for p in model.blocks[i].parameters()]).square().mean().sqrt()
                   for i in (0, -1))
    return (first / last).item()


def v6():
    return depth(6)


@torch.no_grad()
def v7():
    model = by_hand(7)
    block = model.blocks[0]
    with watching_softmax(7), watching(block, block.sa) as calls:
        model(ids(PIECE))
    (x, added), (start, _) = calls[0], calls[1]
    assert torch.equal(x, start)
    assert torch.equal(added[0, -1], v4()['out'])  # the page says so
    with torch.enable_grad():
        ratios = {f'v{number}': gradient_ratio(number) for number in (6, 7)}
    return {'x': x[0, -1], 'added': added[0, -1], 'sum': (x + added)[0, -1], 'below': depth(6), 'here': depth(7),
            'ratios': ratios}


@torch.no_grad()
def v8():
    below, here = tiny(7, 1), tiny(8, 1)
    moved = {}
    x = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(1))
    for number, model in ((7, below), (8, here)):
        sa = model.blocks[0].sa
        before = sa(x)
        sa.value.weight[:2] += 1  # what the first head fetches
        moved[f'v{number}'] = (sa(x) - before)[0, -1]
    return {'moved': moved, 'extra': sum(p.numel() for p in here.blocks[0].sa.proj.parameters())}


@torch.no_grad()
def v9():
    def norm(scale):
        model = by_hand(9)
        model.token_embedding_table.weight.mul_(scale)
        model.position_embedding_table.weight.mul_(scale)
        with watching(model.blocks[0].ln1) as calls:
            model(ids(PIECE))
        (x, out), = calls
        return x[0, -1], out[0, -1]
    small, big = norm(1), norm(100)
    return {'x': small[0], 'out': small[1], 'mean': small[0].mean(), 'variance': small[0].var(unbiased=False),
            'big_x': big[0], 'big_out': big[1]}


@torch.no_grad()
def v10():
    model = by_hand(10, 427, dropout=0.25).train()
    sa = model.blocks[0].sa
    with watching_softmax(10) as softmax, watching(sa.dropout) as calls:
        model(ids(PIECE))
    before, (given, after) = softmax[0][1][0, 0], calls[0]
    scale = (after / given)[after > 0].mean().item()
    torch.manual_seed(18)
    kept = torch.rand(before.shape) >= 0.25  # not those that nn.Dropout kept: its draws differ between processors
    after, cut = rounded(before * kept / 0.75), (before > 0) & ~kept
    return {'before': before, 'after': after, 'cut': cut.tolist(), 'dropped': cut.sum().item(), 'scale': scale,
            'sums': after.sum(-1), 'rate': module(10).dropout}


def constants(number, on_cpu=True):
    """The hyperparameters as the script would set them on that device."""
    found = re.findall(r'^(\w+) = (.+?)  # ', rung(number).source, flags=re.MULTILINE)
    return {name: eval(value, {'on_cpu': on_cpu}) for name, value in found if name.islower() and name not in (
        'data_path', 'model_path', 'prompts')}


def parameters(number, on_cpu=True):
    """How many parameters each part of the model has."""
    sizes = constants(number, on_cpu)
    cls = module(number).BabyGPT
    with torch.device('meta'):
        model = cls(real_batch()[0], *(sizes[name] for name in list(signature(cls).parameters)[1:]))
    parts = Counter()
    for name, weight in model.named_parameters():
        part = 'blocks' if name.startswith('blocks') else name.split('.')[0]
        parts[part] += weight.numel()
    return parts


def v11():
    train = int(0.9 * len(corpus()))
    columns = [(10, True), (11, True), (11, False)]
    rows = [constants(number, cpu) for number, cpu in columns]
    return {'vocabulary': real_batch()[0], 'constants': rows, 'parameters': [parameters(number, cpu) for number, cpu in columns],
            'epochs': [row['batch_size'] * row['block_size'] * row['max_iters'] / train for row in rows]}


def v12():
    model = tiny(12, 1)
    return {'state': [(name, tuple(value.shape)) for name, value in model.state_dict().items()],
            'hyper_params': re.findall(r"'(\w+)': \w+[,}]", re.search(
                r'hyper_params = \{.*?\}', rung(12).source, re.DOTALL)[0])}


@torch.no_grad()
def kvcache(prompt=2, new='水连海平月'):
    """How many positions each way computes to write the same characters, counted by hooks on the real models."""
    slow = tiny(12, 1)
    fast = build(SAMPLER, **{'vocab_size': tokenizer().vocab_size} | TINY)
    fast.load_state_dict(slow.state_dict())
    counts, text = {}, ids(PIECE[:prompt])
    for name, model in (('v12', slow), ('cache', fast)):
        with watching(model.token_embedding_table) as calls:
            torch.manual_seed(7)
            written = list(model.generate(text, len(new))) if name == 'cache' else model.generate(text, len(new))
        counts[name] = [x.size(1) for x, _ in calls]
        counts[f'{name} text'] = (torch.cat(written, dim=1) if name == 'cache' else written[:, prompt:])[0].tolist()
    same = counts.pop('cache text')
    assert counts.pop('v12 text') == same
    full = slow(ids(PIECE))[0]
    cache = fast.empty_cache(1)
    pieces = [fast(ids(PIECE)[:, position:position + 1], cache, position) for position in range(5)]
    assert torch.allclose(torch.cat(pieces, dim=1), full, atol=1e-5)
    start = tokenizer().encode(PIECE)[0]
    return {'counts': counts, 'sums': {name: sum(values) for name, values in counts.items()}, 'prompt': PIECE[:prompt],
            'written': tokenizer().decode(same).replace('\n', '⏎'), 'start': start,
            'shape': tuple(cache[0][0].shape), 'held': len(pieces)}


def unseen():
    """The share of pairs and of triples of the validation text that the training text does not have."""
    start = int(0.9 * len(corpus()))
    train, val = corpus()[:start], corpus()[start:]
    shares = {}
    for n in (2, 3):
        seen = {train[i:i + n] for i in range(len(train) - n + 1)}
        found = [val[i:i + n] not in seen for i in range(len(val) - n + 1)]
        shares[str(n)] = sum(found) / len(found)
    return {'unseen_share': shares}


def five_minutes():
    """The losses that pytorch_5min.py prints with each of the edits that its page asks for."""
    script, losses = LADDERS['root']['pytorch_5min'], {}
    for name, edit in (('kept', 'without zero_grad'), ('line', 'a parabola'), ('bent', 'a parabola, with ReLU')):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            load(script.path, script.edited(edit))
        losses[name] = [float(loss) for loss in re.findall('损失 ([0-9.]+)', printed.getvalue())]
    return losses


@torch.no_grad()
def bent():
    """How far the middle of two outputs of attention misses the middle of their logits, at most: v5 with ReLU and without."""
    model, missed = real(5), {}
    with watching(model.sa) as calls:
        model(real_batch()[1])
    a, b = calls[0][1][:2]
    for name, ffwd in (('with', model.ffwd), ('without', model.ffwd.net[::2])):
        ends, middle = (model.lm_head(ffwd(x)) for x in (torch.stack([a, b]), (a + b) / 2))
        missed[name] = (ends.mean(0) - middle).abs().max().item()
    return {'missed': missed}


def waking():
    """The gradients (root mean square) in v8's first attention before any step, where the projection starts at zero."""
    module = load(rung(8).path, rung(8).edited('projection from zero'))
    torch.manual_seed(module.seed)
    model = module.BabyGPT(real_batch()[0], *(getattr(module, name) for name in list(signature(module.BabyGPT).parameters)[1:]))
    model(*real_batch()[1:])[1].backward()
    sa = model.blocks[0].sa
    return {'waking': {name: getattr(sa, name).weight.grad.square().mean().sqrt().item() for name in ('proj', 'query', 'key', 'value')}}


def halved():
    """The gradient ratio of v7 where x is halved before each sum."""
    block = load(rung(7).path, rung(7).edited('half')).Block
    return {'halved': gradient_ratio(7, forward=block.forward)}


@torch.no_grad()
def from_zero(pieces=8):
    """The loss of the pretrained model on pieces of the validation text, character by character, and where every
    character stands at position 0."""
    losses = {}
    for name, source in (('right', SAMPLER.source), ('zero', SAMPLER.edited('positions from 0'))):
        sampler = load(SAMPLER.path, source)
        sampler.model_path = sampler.pretrained_path
        model, tokens = sampler.load_model()
        start, size = int(0.9 * len(corpus())), model.block_size
        text = torch.tensor(tokens.encode(corpus()[start:start + pieces * (size + 1)])).view(pieces, size + 1)
        cache, total = model.empty_cache(pieces), 0
        for at in range(size):
            logits = model(text[:, at:at + 1], cache, at)[:, 0]
            total += torch.nn.functional.cross_entropy(logits, text[:, at + 1]).item() / size
        losses[name] = total
    large = constants(11, on_cpu=False)
    return {'positions': losses, 'cache_megabytes': large['n_layer'] * 2 * large['block_size'] * large['n_embd'] * 4 / 1e6}


def shared():
    """What any page may use."""
    size = len(set(corpus()))
    return {'ids': list(PIECE), 'answers': list(ANSWER), 'vocabulary': size, 'ln_vocabulary': math.log(size)}


EXAMPLES = {'shared': shared, 'bigrams': lambda: bigrams() | unseen(), 'pytorch': five_minutes, 'v1': v1, 'v2': v2, 'v3': v3, 'v4': v4, 'v5': lambda: v5() | bent(), 'v6': v6, 'v7': lambda: v7() | halved(), 'v8': lambda: v8() | waking(),
            'v9': v9, 'v10': v10, 'v11': v11, 'v12': v12, 'kvcache': lambda: kvcache() | from_zero()}
