"""The worked examples of the pages, computed by the real scripts."""

import inspect
import json
import math
import re
from functools import cache
from textwrap import dedent

import numpy as np
import torch

from kit.files import CORPUS, ROOT, read
from kit.formats import number
from kit.ladders import LADDERS
from kit.origins import factor, linear, power
from kit.scripts import load, module_of

LADDER = LADDERS['scratch']
POEM = '往事知多少。'


def script(name):
    return module_of(LADDER[name])


def edited(name, old, new):
    """The script of a rung with something else in the place of a piece of its code, which must be there."""
    source = LADDER[name].source
    assert old in source, (name, old)
    return load(LADDER[name].path, source.replace(old, new))


def v1():
    """Four points, both ways to a derivative, one step."""
    module, x, w, b = script('v1'), [-1.0, 0.0, 1.0, 2.0], 0.5, 0.0
    points = [(each, 2 * each + 1) for each in x]
    y = [answer for _, answer in points]
    loss, (w_grad, b_grad) = module.get_loss(w, b, points), module.gradient(w, b, points)
    guesses = [module.predict(w, b, each) for each in x]
    errors = [guess - answer for guess, answer in zip(guesses, y, strict=True)]
    error_grads = [2 * error / len(x) for error in errors]
    shares = [grad * each for grad, each in zip(error_grads, x, strict=True)]
    assert abs(sum(shares) - w_grad) < 1e-12 and abs(sum(error_grads) - b_grad) < 1e-12

    def of(w):
        return module.get_loss(w, b, points)
    steps = [1.0, 0.1, 0.01]
    rate = module.learning_rate
    after = [w - rate * w_grad, b - rate * b_grad]
    far, wide = [0.0, 0.0], 0.7
    for _ in range(20):
        slopes = module.gradient(*far, module.examples)
        far = [value - wide * slope for value, slope in zip(far, slopes, strict=True)]
    return {'x': x, 'y': y, 'guesses': guesses, 'errors': errors, 'squares': [error ** 2 for error in errors], 'loss': loss,
            'error_grads': error_grads, 'shares': shares, 'grads': [w_grad, b_grad], 'start': [w, b], 'after': after, 'rate': rate,
            'guesses_made': [f'{w} × {factor(each)} + 0' for each in x],
            'errors_made': [f'{number(a)} − {factor(b)}' for a, b in zip(guesses, y, strict=True)],
            'squares_made': [f'{factor(error)} × {factor(error)}' for error in errors],
            'loss_made': f'({" + ".join(number(error ** 2) for error in errors)}) ÷ {len(x)}',
            'error_grads_made': [f'2 × {factor(error)} ÷ {len(x)}' for error in errors],
            'shares_made': [f'{factor(a)} × {factor(b)}' for a, b in zip(error_grads, x, strict=True)],
            'grads_made': [' + '.join(map(factor, values)) for values in (shares, error_grads)],
            'after_made': [f'{number(value)} − {rate} × {factor(grad)}' for value, grad in zip((w, b), (w_grad, b_grad), strict=True)],
            'loss_after': module.get_loss(*after, points),
            'steps': steps, 'moved': [of(w + h) for h in steps], 'quotients': [(of(w + h) - loss) / h for h in steps],
            'quotients_made': [f'({number(of(w + h), 5)} − {number(loss, 5)}) ÷ {h}' for h in steps],
            'both': [of(w + 1), of(w - 1)], 'central': module.difference(of, w, 1.0), 'central_made': f'({number(of(w + 1), 3)} − {number(of(w - 1), 3)}) ÷ 2',
            'curve': [[w, of(w)] for w in np.linspace(-0.6, 3.6, 43).tolist()], 'tiny': module.difference(of, w, 1e-13),
            'wide': wide, 'far': module.get_loss(*far, module.examples), 'untrained': module.get_loss(0.0, 0.0, module.examples)}


def expression(w, b):
    h = (w * 2 + b).tanh()
    return (h * w - 1) ** 2


EXPRESSION = dedent(inspect.getsource(expression).partition('\n')[2]).replace('return ', 'loss = ').rstrip()
NAMES = {'__mul__': '×', '__add__': '+', 'tanh': 'tanh', '__pow__': '** 2'}


def graph_of(module, w, b):
    """The nodes of EXPRESSION in the order of backward, and the two leaves that a training loop would move."""
    w, b = module.Value(w), module.Value(b)
    loss = expression(w, b)
    loss.backward()
    return module.topological_order(loss), {'w': w, 'b': b, 'loss': loss}


def nodes_of(module, w, b):
    """[node as plain data]: its name, value, gradient, the places of those that it was made of, and how its numbers are made."""
    order, found = graph_of(module, w, b)
    place = {node: position for position, node in enumerate(order)}
    leaves = {found['w']: 'w', found['b']: 'b'}
    nodes = []
    for node in order:
        operation = node.grad_fn and re.search(r'Value\.(\w+)', node.grad_fn.__qualname__)[1]
        name = NAMES[operation] if operation else leaves.get(node, f'{node.data:g}'.replace('-', '−'))
        nodes.append({'name': name, 'value': float(node.data), 'grad': node.grad, 'parents': [place[each] for each in node.parents], 'leaf': not operation})
    for node, made in zip(order, nodes, strict=True):
        a = [number(each.data, 4) for each in node.parents]
        made['value_made'] = {'×': ' × '.join(map(signed, a)), '+': ' + '.join(map(signed, a)), '** 2': ' × '.join(map(signed, a * 2))}.get(made['name']) if a else None
        made['grad_made'] = ' + '.join(passed(nodes, place[node])) or None
    return nodes


def signed(text):
    return f'({text})' if text.startswith('−') else text


def passed(nodes, place):
    """What each of its users passes on to a node, as arithmetic."""
    found = []
    for user in nodes:
        for position, parent in enumerate(user['parents']):
            if parent != place:
                continue
            grad, value = signed(number(user['grad'], 4)), signed(number(user['value'], 4))
            other = signed(number(nodes[user['parents'][1 - position]]['value'], 4)) if len(user['parents']) > 1 else None
            found.append({'×': f'{grad} × {other}', '+': grad, 'tanh': f'{grad} × (1 − {value} × {value})',
                          '** 2': f'{grad} × 2 × {signed(number(nodes[place]["value"], 4))}'}[user['name']])
    return found


def v2():
    """A graph of ten nodes, one of them used twice; and what becomes of it where gradients are not added."""
    module, at = script('v2'), (0.5, -0.3)
    careless = edited('v2', 'parent.grad += grad', 'parent.grad = grad')
    _, found = graph_of(careless, *at)
    ends = []
    for seed in range(10):
        ends.append(xor(module, seed))
    nodes = nodes_of(module, *at)
    return {'expression': EXPRESSION, 'nodes': nodes, 'rows': [[node['value'], node['grad']] for node in nodes],
            'rows_made': [[node['value_made'], node['grad_made']] for node in nodes], 'careless': found['w'].grad, 'careless_loss': xor(careless, module.seed), 'own_loss': xor(module, module.seed),
            'loss_after': graph_of(module, *[value - 0.1 * leaf.grad for value, leaf in zip(at, leaves_of(module, at), strict=True)])[1]['loss'].data,
            'losses': ends, 'learned': sum(end < 0.01 for end in ends), 'graph': len(module.topological_order(module.get_loss([module.Value(1.0) for _ in range(13)], module.examples)))}


def leaves_of(module, at):
    _, found = graph_of(module, *at)
    return found['w'], found['b']


def xor(module, seed):
    """The loss after the steps of main() with that seed."""
    module.random.seed(seed)
    parameters = [module.Value(module.random.uniform(-1, 1)) for _ in range(13)]
    for _ in range(module.max_iters):
        for p in parameters:
            p.grad = 0.0
        module.get_loss(parameters, module.examples).backward()
        for p in parameters:
            p.data -= module.learning_rate * p.grad
    return module.get_loss(parameters, module.examples).data


def v3():
    """A linear layer with its bias, and a lookup, forward and backward; the gradient that arrives is given."""
    module = script('v3')
    x, weight, bias = (module.Tensor(value) for value in ([[1.0, 2.0], [0.0, -1.0], [3.0, 0.5]], [[0.5, -1.0], [2.0, 0.0]], [0.1, 0.2]))
    arrives = np.array([[1.0, 0.5], [-2.0, 1.0], [0.5, -1.5]])
    out = x @ weight + bias
    (out * arrives).sum().backward()
    looked = [1, 3, 1]
    rows = np.array([[0.5, 1.0], [-1.0, 2.0], [2.0, 0.5]])

    def lookup(module):
        table = module.Tensor([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6], [0.7, 0.8]])
        (table[np.array(looked)] * rows).sum().backward()
        return table.grad
    once = edited('v3', 'np.add.at(whole, index, grad)', 'whole[index] += grad')
    g, w = arrives.tolist(), weight.data.tolist()
    text = read(CORPUS)
    batch, vocabulary = module.batch_size * module.block_size, len(set(text))
    return {'x': x.data, 'weight': weight.data, 'bias': bias.data, 'out': out.data, 'arrives': arrives,
            'out_made': linear(x.data.tolist(), w, bias.data.tolist()), 'x_grad': x.grad, 'x_made': linear(g, weight.data.T.tolist()),
            'weight_grad': weight.grad, 'weight_made': linear(x.data.T.tolist(), g), 'bias_grad': bias.grad,
            'bias_made': [' + '.join(map(factor, column)) for column in arrives.T.tolist()],
            'looked': looked, 'rows': rows, 'table_grad': lookup(module), 'once': lookup(once),
            'table_made': [[' + '.join(factor(rows[n][j]) for n, i in enumerate(looked) if i == row) for j in range(2)] for row in range(4)],
            'products': batch * vocabulary * module.n_embd, 'ln_vocabulary': math.log(vocabulary)}


def v4():
    """Names, shapes and counts of the parameters; LayerNorm of one row."""
    module = script('v4')
    vocabulary = len(set(read(CORPUS)))
    model = module.BabyGPT(vocabulary, module.n_embd)
    state = model.state_dict()
    row = [1.0, 2.0, 3.0, 6.0]
    norm = module.LayerNorm(4)(module.Tensor([row])).data[0]
    mean, variance = np.mean(row), np.var(row)
    renamed = edited('v4', 'lm_head', 'head').BabyGPT(vocabulary, module.n_embd)
    try:
        renamed.load_state_dict(state)
    except ValueError as error:
        refused = str(error)
    big = script('v6')
    gpt = big.BabyGPT(vocabulary, big.block_size, big.n_embd, big.n_head, big.n_layer, big.dropout)
    counts = [array.size for array in state.values()]
    return {'names': list(state), 'shapes': [list(array.shape) for array in state.values()], 'counts': counts,
            'counts_made': [' × '.join(map(str, array.shape)) if array.ndim > 1 else None for array in state.values()],
            'total': sum(counts), 'total_made': ' + '.join(f'{count:,}' for count in counts),
            'row': row, 'norm': norm, 'mean': mean, 'variance': variance, 'mean_made': f'({" + ".join(map(number, row))}) ÷ {len(row)}',
            'variance_made': '(' + ' + '.join(f'({number(value)} − {number(mean)}) × ({number(value)} − {number(mean)})' for value in row) + f') ÷ {len(row)}',
            'norm_made': [f'({number(value)} − {number(mean)}) ÷ √{number(variance)}' for value in row],
            'refused': refused, 'refused_names': len(refused.split('：')[1].split()),
            'gpt_names': len(gpt.state_dict()), 'gpt_parameters': sum(array.size for array in gpt.state_dict().values()),
            'gpt_first': [name for name in gpt.state_dict() if name.startswith('blocks.0.')]}


def v5():
    """Two steps of AdamW for a large gradient and a small one; a valley; scores that overflow."""
    module, rate, betas = script('v5'), 0.1, (0.9, 0.999)
    grads = [[0.5, 0.02], [-0.5, 0.02]]
    p = module.Parameter([1.0, 1.0])
    optimizer = module.AdamW([p], lr=rate, betas=betas, weight_decay=0.0)
    steps, mean, square, before = [], np.zeros(2), np.zeros(2), p.data
    for t, grad in enumerate(grads, start=1):
        p.grad = np.array(grad)
        optimizer.step()
        old_mean, old_square = mean, square
        _, mean, square = optimizer.states[0]
        mean, square = mean.round(8), square.round(8)
        right, right_square = (mean / (1 - betas[0] ** t)).round(4), (square / (1 - betas[1] ** t)).round(4)
        moved = before - p.data
        before = p.data
        divisors = [number(1 - betas[0] ** t, 2), number(1 - betas[1] ** t, 6)]
        steps.append({
            'grad': grad, 'mean': mean, 'square': square, 'right': right, 'right_square': right_square, 'moved': moved, 'sgd': [rate * each for each in grad],
            'mean_made': [f'0.9 × {bracket(number(old, 4))} + 0.1 × {bracket(number(g, 2))}' for old, g in zip(old_mean, grad, strict=True)],
            'square_made': [f'0.999 × {number(old, 8)} + 0.001 × {bracket(number(g, 2))} × {bracket(number(g, 2))}' for old, g in zip(old_square, grad, strict=True)],
            'right_made': [f'{bracket(number(each, 4))} ÷ {divisors[0]}' for each in mean],
            'right_square_made': [f'{number(each, 8)} ÷ {divisors[1]}' for each in square],
            'moved_made': [f'{rate} × {bracket(number(a, 4))} ÷ √{number(b, 4)}' for a, b in zip(right, right_square, strict=True)],
            'sgd_made': [f'{rate} × {bracket(number(g, 2))}' for g in grad]})
    uncorrected = edited('v5', 'mean / (1 - beta1 ** t) / ((square / (1 - beta2 ** t)) ** 0.5 + self.eps)', 'mean / (square ** 0.5 + self.eps)')
    q = uncorrected.Parameter([1.0])
    q.grad = np.array([0.5])
    uncorrected.AdamW([q], lr=rate, weight_decay=0.0).step()
    scores = [1000.0, 998.0, 990.0]
    with np.errstate(over='ignore', invalid='ignore'):
        below = script('v4').softmax(script('v4').Tensor([scores]), -1).data
    loss = module.cross_entropy(module.Tensor([scores]), np.array([1])).item()
    return {'steps': steps, 'rate': rate, 'path': valley(module), 'scores': scores, 'shifted': [each - max(scores) for each in scores],
            'shifted_made': [f'{number(each)} − {number(max(scores))}' for each in scores],
            'overflows': bool(np.isnan(below).any()), 'loss': loss, 'loss_made': f'ln {number(sum(math.exp(each - max(scores)) for each in scores), 4)} − (−2.00)',
            'uncorrected': 1.0 - q.data.item()}


def bracket(text):
    return f'({text})' if text.startswith('−') else text


def valley(module, steps=20):
    """The ways of SGD and of AdamW down a valley that is 25 times as steep across as along."""
    steepness, start, ways = np.array([1.0, 25.0]), np.array([-3.0, 1.0]), {}
    for name, rate in (('sgd', 0.07), ('adamw', 0.3)):
        p = module.Parameter(start)
        optimizer, way = module.AdamW([p], lr=rate, weight_decay=0.0), [start.tolist()]
        for _ in range(steps):
            optimizer.zero_grad()
            (p ** 2 * steepness * 0.5).sum().backward()
            if name == 'sgd':
                p.data = p.data - rate * p.grad
            else:
                optimizer.step()
            way.append(p.data.tolist())
        ways[name] = way
    return ways


@cache
def tiny(text=POEM):
    """v6 and v10 with the same weights on one line of poetry: ours, PyTorch's, and the ids."""
    ours, theirs = script('v6'), module_of(LADDERS['root']['v10'])
    tokenizer = ours.Tokenizer(text)
    sizes = {'vocab_size': tokenizer.vocab_size, 'block_size': 8, 'n_embd': 8, 'n_head': 2, 'n_layer': 2, 'dropout': 0.0}
    torch.manual_seed(1)
    model = theirs.BabyGPT(**sizes)
    copy = ours.BabyGPT(**sizes)
    copy.load_state_dict(model.state_dict())
    return ours, copy, model, np.array([tokenizer.encode(text)]), tokenizer


def v6():
    """The scores behind 「往事知多」, the loss, and a gradient, by both."""
    _, copy, model, ids, tokenizer = tiny()
    x, y = ids[:, :-1], ids[:, 1:]
    logits, loss = copy(x, y)
    expected, expected_loss = model(torch.tensor(x), torch.tensor(y))
    loss.backward()
    expected_loss.backward()
    apart = max(float(np.abs(p.grad - q.grad.numpy()).max()) for p, q in zip(copy.parameters(), model.parameters(), strict=True))
    assert np.abs(logits.data - expected.detach().numpy()).max() < 1e-5
    careless = edited('v6', '(0.0 if self.grad is None else self.grad) + unbroadcast', '0.0 + unbroadcast')
    wrong = careless.BabyGPT(len(tokenizer.chars), 8, 8, 2, 2, 0.0)
    wrong.load_state_dict(copy.state_dict())
    wrong(x, y)[1].backward()
    right = [name for (name, p), q in zip(wrong.named_parameters(), copy.parameters(), strict=True) if np.allclose(p.grad, q.grad)]
    return {'chars': tokenizer.chars, 'text': POEM[:-1], 'ours': logits.data[0, -1], 'theirs': expected[0, -1].detach(), 'loss': loss.item(), 'loss_theirs': expected_loss.item(),
            'below': apart < 1e-5, 'total': v4()['gpt_parameters'], 'careless': len(right), 'parameters': len(list(copy.parameters())), 'grads': copy.blocks[0].sa.query.weight.grad[0], 'grads_theirs': model.blocks[0].sa.query.weight.grad[0]}


def operations(module, root):
    """The operations of a graph in the order in which they were made."""
    return [re.search(r'(\w+)\.<locals>', node.grad_fn.__qualname__)[1].strip('_') for node in module.topological_order(root)[::-1] if node.grad_fn]


def v7():
    """Cross-entropy of one row: the operations that v6 makes of it, and the one of v7."""
    scores, answer = [[2.0, 1.0, -1.0]], 1
    found = {}
    for name in ('v6', 'v7'):
        module = script(name)
        logits = module.Parameter(scores)
        loss = module.cross_entropy(logits, np.array([answer]))
        made = operations(module, loss)
        loss.backward()
        found[name] = {'made': made, 'loss': loss.item(), 'grad': logits.grad[0].astype(float)}
    module = script('v7')
    logits = module.Parameter(scores)
    loss = module.cross_entropy(logits, np.array([answer]))
    loss.backward()
    try:
        loss.backward()
    except RuntimeError as error:
        refused = str(error)
    powers = [round(math.exp(score), 4) for score in scores[0]]
    total = round(sum(powers), 4)
    probs = [round(each / total, 4) for each in powers]
    grads = [round(p - (i == answer), 4) for i, p in enumerate(probs)]
    assert np.abs(np.array(grads) - found['v7']['grad']).max() < 1e-4
    return {'scores': scores[0], 'powers': powers, 'total': total, 'probs': probs, 'grads': grads, 'loss': found['v7']['loss'],
            'powers_made': [power(score) for score in scores[0]], 'total_made': ' + '.join(number(each, 4) for each in powers),
            'probs_made': [f'{number(each, 4)} ÷ {number(total, 4)}' for each in powers],
            'grads_made': [f'{number(p, 4)} − {int(i == answer)}' for i, p in enumerate(probs)],
            'loss_made': f'−ln {number(probs[answer], 4)}', 'made': {name: each['made'] for name, each in found.items()},
            'same': bool(np.abs(found['v6']['grad'] - found['v7']['grad']).max() < 1e-6), 'refused': refused}


@cache
def pretrained():
    return script('v8').load_model(ROOT / 'pretrained' / 'model.safetensors')


def counted(prompt, new):
    """How many positions v8 computes at each step, and how many are in sight: what v7 would compute."""
    module, (model, tokenizer) = script('v8'), pretrained()
    computed, seen = [], []

    class Counting(module.BabyGPT):
        def forward(self, idx, cache, start):
            computed.append(idx.shape[1])
            seen.append(start + idx.shape[1])
            return super().forward(idx, cache, start)
    again = Counting.__new__(Counting)
    again.__dict__.update(model.__dict__)
    np.random.seed(5)
    written = tokenizer.decode([int(ids[0]) for ids in again.generate(np.array([tokenizer.encode(prompt)]), new)])
    return computed, seen, written


def v8(prompt='春江', new=5, shown=6):
    """What is computed at each step, and what top-k and top-p leave of the scores behind 「春江」."""
    module, (model, tokenizer) = script('v8'), pretrained()
    computed, seen, written = counted(prompt, new)
    logits = model(np.array([tokenizer.encode(prompt)]), model.empty_cache(1), 0)[:, -1]
    probs = module.softmax(logits, dim=-1)[0]
    best = (-probs).argsort()[:shown]
    shares = [round(float(each), 4) for each in probs[best]]
    so_far = [round(sum(shares[:n + 1]), 4) for n in range(shown)]
    cooler = module.softmax(logits / 0.8, dim=-1)[0][best]
    left = module.keep_top_p(logits, 0.95)
    full = len(list(model.generate(np.array([tokenizer.encode(prompt)]), 1)))
    assert full == 1
    heads, size = model.cache_shape[0], model.cache_shape[2]
    return {'prompt': prompt, 'written': written, 'computed': computed, 'seen': seen, 'sums': [sum(computed), sum(seen)],
            'chars': [tokenizer.chars[i] for i in best], 'logits': logits[0, best], 'shares': shares, 'so_far': so_far, 'cooler': cooler,
            'so_far_made': [' + '.join(number(each, 4) for each in shares[:n + 1]) for n in range(shown)],
            'kept_p': int(np.isfinite(left).sum()), 'kept_half': int(np.isfinite(module.keep_top_p(logits, 0.5)).sum()), 'vocabulary': tokenizer.vocab_size,
            'kept_cool': int(np.isfinite(module.keep_top_p(logits / 0.8, 0.95)).sum()),
            'layers': len(model.blocks), 'heads': heads, 'size': size, 'block_size': model.block_size,
            'cache_kib': len(model.blocks) * 2 * heads * model.block_size * size * 4 / 1024}


def v9():
    """What the service answers to what is wrong."""
    from fastapi.testclient import TestClient
    module, (model, tokenizer) = script('v9'), script('v9').load_model(ROOT / 'pretrained' / 'model.safetensors')
    client = TestClient(module.make_app(model, tokenizer, module.max_poems, module.max_body))
    bodies = ['{"prompt": "春江", "temperature": 0}', '{"prompt": "春江 spring"}', '{"prompt": "春江", "seeds": 1}', '{"prompt": ']
    asked = []
    for body in bodies:
        answer = client.post('/generate', content=body.encode(), headers={'Content-Type': 'application/json'})
        asked.append({'body': body, 'status': answer.status_code, **answer.json()['detail']})
    large = client.post('/generate', content=b' ' * (module.max_body + 1), headers={'Content-Type': 'application/json'})
    asked.append({'body': f'{module.max_body + 1:,} bytes', 'status': large.status_code, **large.json()['detail']})
    whole = client.post('/generate', json={'prompt': '春江', 'seed': 1, 'max_new_tokens': 20}).json()['poems'][0]
    with client.stream('GET', '/stream', params={'prompt': '春江', 'seed': 1, 'max_new_tokens': 20}) as answer:
        events = ''.join(answer.iter_text()).split('\n\n')
    streamed = ''.join(json.loads(event[6:]) for event in events if event.startswith('data: '))
    return {'asked': asked, 'events': events[:3] + events[-2:-1], 'same': whole == ('春江' + streamed).strip('\n'), 'max_poems': module.max_poems,
            'max_length': module.max_length, 'max_body': module.max_body}


def shared():
    """What any page may use."""
    size = len(set(read(CORPUS)))
    lines = {str(rung): len(rung.source.splitlines()) for rung in LADDER.numbered}
    return {'vocabulary': size, 'ln_vocabulary': math.log(size), 'lines': lines}


EXAMPLES = {'shared': shared, 'v1': v1, 'v2': v2, 'v3': v3, 'v4': v4, 'v5': v5, 'v6': v6, 'v7': v7, 'v8': v8, 'v9': v9}
