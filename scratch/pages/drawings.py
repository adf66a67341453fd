"""The drawings of this ladder: graphs of values, shapes and names, and one picture for each idea.

Nothing here knows a measured number: what is drawn comes in as arguments. `say` holds the words of the page's language.
"""

from kit.formats import number
from kit.scripts import load
from kit.svg import Drawing, bars

root = load('pages/drawings.py')  # the model of v6 is v10's

SAY = {
    'zh': {'slope': '损失随 w 的变化，和 w = {} 处的斜率', 'slope at': '导数 {}', 'secant': '差商，h = 1：{}', 'loss': '损失', 'links': '一环一环的导数', 'times': '乘',
           'graph': '算式的图：每个数的值和梯度', 'value': '值', 'gradient': '梯度', 'broadcast': '广播和它的反面', 'bias': 'b，1 行', 'used': '当 3 行用', 'arrives': '收到 3 行梯度', 'added': '加成 1 行',
           'names': '名字就是找到它的路', 'valley': '下山：SGD 走 {} 步，AdamW 也走 {} 步', 'start': '出发', 'lowest': '最低处', 'model': 'v10 的模型，v6 一个字不改地搭出来',
           'small': '交叉熵：v6 的 {} 个运算，v7 的 1 个', 'nodes': '训练一步，图里有多少个运算', 'turns': '四首词轮流写，一次一个字', 'poem': '第 {} 首', 'ends': '写完', 'gone': '人走了', 'time': '时间 →',
           'kept': '一步的图里留着的数，MB'} | {key: root.SAY['zh'][key] for key in root.SAY['zh'] if key != 'loop'},
    'en': {'slope': 'The loss over w, and its slope at w = {}', 'slope at': 'derivative {}', 'secant': 'quotient, h = 1: {}', 'loss': 'loss', 'links': 'Derivatives, link by link', 'times': 'times',
           'graph': 'The graph of an expression: values and gradients', 'value': 'value', 'gradient': 'grad', 'broadcast': 'Broadcasting and its reverse', 'bias': 'b, 1 row', 'used': 'used as 3', 'arrives': '3 rows of gradient', 'added': 'added to 1',
           'names': 'A name is the way to it', 'valley': 'Downhill: {} steps of SGD, {} of AdamW', 'start': 'start', 'lowest': 'lowest', 'model': "v10's model, as v6 builds it",
           'small': 'Cross-entropy: {} operations of v6, 1 of v7', 'nodes': 'Operations in the graph of one step', 'turns': 'Four poems take turns, a character each', 'poem': 'poem {}', 'ends': 'done', 'gone': 'left', 'time': 'time →',
           'kept': 'Numbers that the graph of a step keeps, MB'} | {key: root.SAY['en'][key] for key in root.SAY['en'] if key != 'loop'}}


def flow(number, say, example):
    """What the page of rung `number` draws; `example` is the worked example of the page."""
    drawings = {1: lambda: [slope(say, example), links(say, example)], 2: lambda: [graph(say, example['nodes'])], 3: lambda: [broadcast(say, example)],
                4: lambda: [names(say)], 5: lambda: [valley(say, example['path'])], 7: lambda: [fused(say, example['made'])], 9: lambda: [turns(say)]}
    return drawings[number]() if number in drawings else []


def slope(say, ex):
    """The loss as a curve over w, with its tangent where the example stands, and the line to the point that is 1 further on."""
    w, grad, loss = ex['start'][0], ex['grads'][0], ex['loss']
    d = Drawing(say['slope'].format(f'{w:g}'))
    left, bottom, across, up = 50, 226, 72, 19

    def at(x, y):
        return f'{left + across * x:.1f} {bottom - up * y:.1f}'
    d.add(f'<path d="M{at(0, 0)}L{at(3.8, 0)}M{at(0, -0.4)}L{at(0, 11)}" class="grid"/>')
    d.path('M' + 'L'.join(at(x, y) for x, y in ex['curve'] if x > -0.01), 'curve old', arrow=False)
    d.path(f'M{at(w - 0.45, loss - 0.45 * grad)}L{at(w + 1.0, loss + grad)}', 'curve own', arrow=False)
    d.path(f'M{at(w, loss)}L{at(w + 1, ex["moved"][0])}', 'curve own level', arrow=False)
    for x, y in ((w, loss), (w + 1, ex['moved'][0])):
        d.add(f'<circle cx="{left + across * x:.1f}" cy="{bottom - up * y:.1f}" r="4.5" class="dot own"/>')
    d.text(left + across * (w - 0.2) + 8, bottom - up * (loss - 0.2 * grad) - 2, say['slope at'].format(number(grad)), 'label own', 'start')
    d.text(left + across * (w + 0.75), bottom - up * (loss + 0.5 * ex['quotients'][0]), say['secant'].format(number(ex['quotients'][0])), 'label own', 'start')
    for x in (0, 1, 2, 3):
        d.text(left + across * x, bottom + 20, x, 'axis')
    d.text(left + across * 3.75, bottom + 20, 'w', 'axis')
    for y in (5, 10):
        d.text(left - 8, bottom - up * y + 5, y, 'axis', 'end')
    d.text(left - 8, bottom - up * 11 + 2, say['loss'], 'axis', 'end')
    return d.svg()


def links(say, ex):
    """From w to the loss and back, for the last of the points: what each link multiplies by."""
    d = Drawing(say['links'])
    x, guess, error, square = (ex[name][-1] for name in ('x', 'guesses', 'errors', 'squares'))
    boxes = [('w', ex['start'][0]), ('w x + b', guess), ('error', error), ('error²', square)]
    steps = [f'x = {number(x)}', '1', f'2 × error = {number(2 * error)}']
    for place, (name, value) in enumerate(boxes):
        y = 6 + 70 * place
        d.box(40, y, 120, 40, name, sub=number(value))  # the way there on the left, the way back on the right
        if place < 3:
            d.arrow(84, y + 40, 84, y + 70)
            d.path(f'M116 {y + 70}V{y + 40}', 'wire new')
            d.text(128, y + 60, f'× {steps[place]}', 'shape new', 'start')
    d.text(100, 6 + 70 * 3 + 62, f'{number(2 * error)} × 1 × {number(x)} = {number(2 * error * x)}', 'label own')
    return d.svg()


def graph(say, nodes):
    """The nodes of the example's expression, from the leaves down to the loss; the gradient of each beside its value."""
    d, width, height = Drawing(say['graph'], 2), 116, 46
    spot, order = {}, {node['name'] + str(place): place for place, node in enumerate(nodes)}
    assert len(order) == 10
    trunk = []
    place = 0
    while not nodes[place]['leaf']:  # the way from the loss up along the first parents
        trunk.append(place)
        place = nodes[place]['parents'][0]
    x, gap = 150, 74
    for step, place in enumerate(reversed(trunk)):
        spot[place] = (x, 100 + gap * step)
    spot[place_of(nodes, 'w')] = (66, 6)
    spot[place_of(nodes, '2')] = (234, 6)
    for place in trunk:
        for parent in nodes[place]['parents'][1:]:
            if parent not in spot:
                spot[parent] = (x + 132, spot[place][1] - gap + 22)
    for place, node in enumerate(nodes):
        for parent in node['parents']:
            (x1, y1), (x2, y2) = spot[parent], spot[place]
            if parent == place_of(nodes, 'w') and y2 > 200:  # the second use, around the trunk
                d.path(f'M{x1 - 40} {y1 + height}V{y2 + height / 2}H{x2 - width / 2}', 'wire new')
            elif x1 == x2 or y1 < 50:
                d.arrow(x1, y1 + height, x2 + (x1 - x2) * 0.22, y2)
            else:
                d.path(f'M{x1} {y1 + height}V{y2 + height / 2}H{x2 + width / 2}')
    for place, (x, y) in spot.items():
        node = nodes[place]
        wide = width if node in [nodes[each] for each in trunk] or y < 50 else 108
        d.box(x - wide / 2, y, wide, height, '', css='data' if node['leaf'] else 'part')
        d.parts.pop()  # no label in the middle: two lines stand there
        d.text(x - wide / 2 + 9, y + 28, node['name'], 'label', 'start')
        d.text(x + wide / 2 - 7, y + 18, number(node['value'], 4), 'shape', 'end')
        d.text(x + wide / 2 - 7, y + 37, number(node['grad'], 4), 'shape new', 'end')
    return d.svg()


def place_of(nodes, name):
    return next(place for place, node in enumerate(nodes) if node['name'] == name and node['leaf'])


def grid(d, x, y, rows, columns, css='cell held', cell=24):
    for i in range(rows):
        for j in range(columns):
            d.add(f'<rect x="{x + cell * j + 1:g}" y="{y + cell * i + 1:g}" width="{cell - 2}" height="{cell - 2}" rx="4" class="{css}"/>')
    d.height = max(d.height, y + cell * rows + 4)


def broadcast(say, ex):
    """A bias of one row is used by three; three rows of gradient come back, and are added up to one."""
    d = Drawing(say['broadcast'], 3)
    rows, columns = len(ex['x']), len(ex['bias'])
    d.text(60, 16, say['bias'], 'axis')
    grid(d, 36, 26, 1, columns, 'cell done')
    d.arrow(96, 38, 196, 38)
    d.text(146, 30, say['used'], 'sub')
    grid(d, 206, 14, rows, columns, 'cell held')
    d.text(230, 118, say['arrives'], 'axis')
    grid(d, 206, 128, rows, columns, 'cell held')
    d.path('M230 90V104', 'wire')
    d.path('M196 164H96', 'wire new')
    d.text(146, 156, say['added'], 'sub')
    grid(d, 36, 152, 1, columns, 'cell done')
    d.text(60, 196, 'b.grad', 'shape new')
    d.height = 206
    return d.svg()


def names(say):
    """The parts of the model as a tree; the way to one parameter is marked."""
    d = Drawing(say['names'], 4)
    d.box(110, 4, 120, 34, 'BabyGPT')
    d.box(4, 84, 184, 34, 'token_embedding_table')
    d.box(226, 84, 100, 34, 'lm_head', 4)
    d.path('M150 38V60H96V84')
    d.path('M190 38V60H276V84', 'wire new')
    for x, name, parent, new in ((56, 'weight', 96, False), (196, 'weight', 256, True), (282, 'bias', 300, False)):
        d.path(f'M{parent} 118V140H{x + 26}V162', 'wire new' if new else 'wire')
        d.box(x - 12, 162, 76, 30, name, 4 if new else 0, css='data')
    d.text(150, 222, 'token_embedding_table.weight', 'shape', 'middle')
    d.text(150, 242, 'lm_head.weight', 'shape new', 'middle')
    d.text(150, 262, 'lm_head.bias', 'shape', 'middle')
    return d.svg()


def valley(say, path):
    """The ways down a valley that is steep across and shallow along, from one start."""
    steps = len(path['sgd']) - 1
    d = Drawing(say['valley'].format(steps, steps))
    x0, y0, across, up = 236, 110, 66, 66

    def at(point):
        return f'{x0 + across * point[0]:.1f} {y0 - up * point[1]:.1f}'
    for size in (1, 2, 3):
        d.path(f'M{x0} {y0 - up * size / 5:.1f}A{across * size} {up * size / 5:.1f} 0 0 0 {x0} {y0 + up * size / 5:.1f}', 'curve old level', arrow=False)
    for name, css in (('sgd', 'old'), ('adamw', 'own')):
        d.path('M' + 'L'.join(map(at, path[name])), f'curve {css}', arrow=False)
        for point in path[name]:
            x, y = at(point).split()
            d.add(f'<circle cx="{x}" cy="{y}" r="2.6" class="dot {css}"/>')
    d.add(f'<path d="M{x0 - 5} {y0}H{x0 + 5}M{x0} {y0 - 5}V{y0 + 5}" class="grid"/>')
    d.text(x0 - across * 3 + 10, y0 - up - 4, say['start'], 'axis', 'start')
    d.text(x0, y0 + 62, say['lowest'], 'axis')
    d.text(x0 - across * 2.5, y0 + 66, 'SGD', 'label old')
    d.text(x0 - across * 1.75, y0 - 58, 'AdamW', 'label own')
    d.height = 196
    return d.svg()


def fused(say, made):
    """The operations of cross-entropy, one below the other, beside the one that took their place."""
    d = Drawing(say['small'].format(len(made['v6'])), 7)
    d.text(80, 16, 'v6', 'label old')
    d.text(252, 16, 'v7', 'label own')
    gap, count = 38, len(made['v6'])
    for place, name in enumerate(made['v6']):
        y = 26 + gap * place
        d.box(20, y, 120, 26, name)
        if place:
            d.arrow(80, y - 12, 80, y)
    d.box(186, 26, 132, 26 + gap * (count - 1), 'cross_entropy', 7)
    return d.svg()


def counts(say, graphs):
    """How many operations the graph of one step has."""
    return bars([(name, graphs[name]['made'], str(graphs[name]['made']), 'own' if name == 'v7' else 'old') for name in ('v6', 'v7')], say['nodes'])


def kept(say, graphs):
    """How many megabytes of numbers the graph of one step keeps."""
    return bars([(name, graphs[name]['megabytes'], f'{graphs[name]["megabytes"]:g}', 'own' if name == 'v7' else 'old') for name in ('v6', 'v7')], say['kept'])


def architecture(say, page_of):
    """v10's model, each part a link to the page of the rung of the root that brought it."""
    return [draw(10, say, page_of) for draw in (root.trunk, root.attention, root.feed_forward)]


def turns(say):
    """Four poems share one lock: a filled cell is a character written, in the order of time; one ends and one is left."""
    d = Drawing(say['turns'])
    order, left, cell = [0, 1, 2, 3, 0, 1, 2, 3, 0, 2, 3, 0, 2, 0, 2], 66, 17
    for poem in range(4):
        y = 10 + 34 * poem
        d.text(left - 8, y + 14, say['poem'].format(poem + 1), 'axis', 'end')
        for moment, who in enumerate(order):
            css = 'cell done' if who == poem else 'cell empty'
            d.add(f'<rect x="{left + cell * moment + 1:g}" y="{y + 1}" width="{cell - 2}" height="{cell - 2}" rx="3" class="{css}"/>')
    d.text(left + cell * 6 + 4, 10 + 34 + 30, say['ends'], 'sub', 'start')
    d.text(left + cell * 11 + 4, 10 + 34 * 3 + 30, say['gone'], 'sub', 'start')
    d.text(left, 10 + 34 * 4 + 18, say['time'], 'axis', 'start')
    d.height = 10 + 34 * 4 + 24
    return d.svg()


def pytorch(name, settings):
    """The run of PyTorch that stands beside a rung: the same model, optimiser and seed."""
    if name in ('v3', 'v4'):
        return settings('pytorch')['v1', 'SGD'].runs[0]
    return settings('root/ladder')[{'v5': 'v1', 'v6': 'v10', 'v7': 'v10'}[name], 'base'].runs[0]


def validation(run):
    """[(step, loss)] of a run, without the untrained start."""
    return [(step, loss) for step, _, loss in run['curve']][1:]
