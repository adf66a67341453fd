"""The drawings of these models: what flows from box to box, and one picture for each idea; and what a run printed, as numbers.

Nothing here knows a measured number: what is drawn comes in as arguments. `say` holds the words of the page's language.
"""

import math
import re

from kit.formats import number
from kit.svg import Drawing

SAY = {
    'zh': {'loop': '训练循环', 'batch': '随机取几个点', 'clear': '清掉旧的导数', 'gradient': '每个参数的导数', 'move': '每个参数挪一小步', 'again': '再来一步',
           'line': '三个点，走一步之前和之后的线', 'before': '之前', 'after': '之后', 'model': '从输入到损失', 'sum': '加权求和，再加一个数', 'logit': '得分',
           'probability': '概率', 'loss': '和答案比：损失', 'sigmoid': '得分变成概率', 'flat': '摊平成一行', 'negative': '负的改成 0', 'classes': '每一类的得分',
           'bend': '两条折线加起来', 'total': '和', 'channel': '添一维：一个通道', 'window': '3 × 3 的窗口', 'pool': '每 2 × 2 留最大的', 'largest': '整幅图留最大的',
           'images': '一笔，和往右移一格的同一笔', 'image': '图', 'found': '窗口找到的', 'pooled': '池化', 'steps': '展开来看：一个字一个字地读', 'start': '全是 0',
           'next': '猜下一个字', 'hot': '独热：这个字是 1，其余是 0', 'column': '取出 W 的一列', 'row': '取出表的一行', 'lookup': '乘独热，和查表',
           'levels': '一阶垫一阶：扣下的份额往下交', 'looks': '看前面 {} 个字', 'nothing': '什么都不看', 'uniform': '均匀分布：每个字一样', 'left': '扣下的份额', 'train': '训练', 'val': '验证', 'printed': '损失随步数的变化'},
    'en': {'loop': 'The training loop', 'batch': 'some points at random', 'clear': 'clear the old derivatives', 'gradient': 'find the derivatives',
           'move': 'move each a small step', 'again': 'once more', 'line': 'Three points, and the line before and after a step', 'before': 'before', 'after': 'after',
           'model': 'From input to loss', 'sum': 'weighted sum, plus a number', 'logit': 'logits', 'probability': 'probabilities', 'loss': 'compare: loss',
           'sigmoid': 'From logit to probability', 'flat': 'one row of points', 'negative': 'negative ones become 0', 'classes': 'a logit for each class',
           'bend': 'Two bent lines, added', 'total': 'sum', 'channel': 'one channel', 'window': 'a window of 3 × 3', 'pool': 'the largest of each 2 × 2',
           'largest': 'the largest anywhere', 'images': 'A stroke, and the same one moved right by one point', 'image': 'image', 'found': 'what the window finds',
           'pooled': 'pooled', 'steps': 'Unrolled: read one character at a time', 'start': 'all 0', 'next': 'guess the next', 'hot': 'one-hot: 1 for this one, 0 elsewhere',
           'column': 'one column of W', 'row': 'one row', 'lookup': 'Times one-hot, and looked up', 'levels': 'Orders on top of each other: what is taken goes down',
           'looks': 'characters back: {}', 'nothing': 'looks at nothing', 'uniform': 'uniform: all alike', 'left': 'what was taken', 'train': 'train', 'val': 'validation', 'printed': 'The losses over the steps'}}


def flow(number, say, example):
    """What the page of rung `number` draws of the data's way; `example` is the worked example of the page."""
    return {1: lambda: [loop(say), line(say, example)], 2: lambda: [chain(2, say), sigmoid(say, example)], 3: lambda: [chain(3, say), bend(say, example)],
            4: lambda: [chain(4, say), strokes(say, example)], 5: lambda: [unrolled(say, '往事知')], 6: lambda: [lookup(say, example)], 7: lambda: [levels(say)]}[number]()


def printed(output):
    """What a run printed, as numbers: losses, and what else its rung ends with."""
    lines = re.findall(r'^第 +(\d+) 步  训练损失 (\S+)  验证损失 (\S+)', output, flags=re.MULTILINE)
    return {'train': [(int(step), float(loss)) for step, loss, _ in lines], 'val': [(int(step), float(loss)) for step, _, loss in lines],
            'right': [float(share) for share in re.findall(r'答对 ([\d.]+)%', output)],
            'gradient': [[int(distance), float(length)] for distance, length in re.findall(r'^往前数第 +(\d+) 个字  (\S+)', output, flags=re.MULTILINE)],
            'near': {char: found.split() for char, found in re.findall(r'^(.)  ((?:. ){7}.)$', output, flags=re.MULTILINE)}}


def loop(say):
    """The training loop."""
    d = Drawing(say['loop'])
    steps = [('get_batch', say['batch']), ('model(x, y)', say['loss']), ('optimizer.zero_grad()', say['clear']), ('loss.backward()', say['gradient']),
             ('optimizer.step()', say['move'])]
    for place, (label, sub) in enumerate(steps):
        y = 6 + 62 * place
        d.box(70, y, 200, 44, label, sub=sub)
        if place < len(steps) - 1:
            d.arrow(170, y + 44, 170, y + 62)
    bottom = 6 + 62 * len(steps) - 40
    d.path(f'M70 {bottom}H36V28H68')
    d.text(26, bottom / 2 + 14, say['again'], 'sub turn')
    d.parts[-1] = d.parts[-1].replace('<text ', f'<text transform="rotate(-90 26 {bottom / 2 + 14:g})" ')
    return d.svg()


def line(say, ex):
    """The points of the example, the line before and after one step, and how far the points are off before it."""
    d = Drawing(say['line'])
    x0, y0, across, up = 130, 210, 62, 33

    def at(x, y):
        return f'{x0 + across * x:.1f} {y0 - up * y:.1f}'
    d.add(f'<path d="M{at(-1.6, 0)}L{at(2.9, 0)}M{at(0, -1.5)}L{at(0, 6)}" class="grid"/>')
    for x, y, guess in zip(ex['x'], ex['y'], ex['prediction'], strict=True):
        d.path(f'M{at(x, y)}L{at(x, guess)}', 'curve old level', arrow=False)
    for (w, b), css, name in ((ex['before'], 'old', say['before']), (ex['after'], 'own', say['after'])):
        d.path(f'M{at(-1.6, b - 1.6 * w)}L{at(2.4, b + 2.4 * w)}', f'curve {css}', arrow=False)
        d.text(x0 + across * 2.4 + 6, y0 - up * (b + 2.4 * w) + 5, name, f'label {css}', 'start')
    for x, y in zip(ex['x'], ex['y'], strict=True):
        d.add(f'<circle cx="{x0 + across * x:.1f}" cy="{y0 - up * y:.1f}" r="5" class="dot own"/>')
    d.height = y0 + 1.5 * up + 10
    return d.svg()


# (label, what it does, shape of what it gives, whether it is new)
CHAINS = {
    2: ('(B, n_in)', [('linear', 'sum', '(B,)', False), ('sigmoid', 'probability', '(B,)', True), ('cross-entropy', 'loss', '', True)]),
    3: ('(B, S, S)', [('flatten', 'flat', '(B, n_in)', True), ('hidden', 'sum', '(B, n_hidden)', True), ('ReLU', 'negative', '(B, n_hidden)', True),
                      ('out', 'classes', '(B, n_classes)', True), ('softmax, cross-entropy', 'loss', '', True)]),
    4: ('(B, S, S)', [('unsqueeze', 'channel', '(B, 1, S, S)', True), ('conv1, ReLU', 'window', '(B, n_channels, S, S)', True), ('max_pool2d', 'pool', '(B, n_channels, H, H)', True),
                      ('conv2, ReLU', 'window', '(B, n_channels, H, H)', True), ('amax', 'largest', '(B, n_channels)', True),
                      ('out', 'classes', '(B, n_classes)', False), ('softmax, cross-entropy', 'loss', '', False)])}


def chain(rung, say):
    """From the input to the loss, box below box, with the shapes between them."""
    shape, parts = CHAINS[rung]
    d, x = Drawing(say['model'], rung), 130
    d.box(x - 40, 4, 80, 28, 'x', css='data')
    y = 32
    for label, does, out, new in parts:
        d.arrow(x, y, x, y + 28)
        d.text(x + 10, y + 18, shape, 'shape', 'start')
        d.box(x - 105, y + 28, 210, 44, label, rung if new else 1, sub=say[does])
        shape, y = out, y + 72
    return d.svg()


def sigmoid(say, ex):
    """The curve, with the logits of the example on it: filled where the answer is yes."""
    d = Drawing(say['sigmoid'])
    x0, y0, across, up = 165, 160, 32, 130
    d.add(f'<path d="M{x0 - 5 * across} {y0}H{x0 + 5 * across}M{x0} {y0 - up - 8}V{y0 + 6}" class="grid"/>')
    xs = [each / 5 for each in range(-25, 26)]
    d.path('M' + 'L'.join(f'{x0 + across * x:.1f} {y0 - up / (1 + math.exp(-x)):.1f}' for x in xs), 'curve own', arrow=False)
    for logit, p in zip(ex['logits'], ex['p'], strict=True):
        x, y = x0 + across * logit, y0 - up * p
        d.path(f'M{x:.1f} {y0}V{y:.1f}', 'curve old level', arrow=False)
        d.add(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" class="dot own"/>')
        d.text(x + (10 if logit > 0 else -8), y + (14 if logit > 0 else -6), number(p), '', 'start' if logit > 0 else 'end')
    for x in (-4, 0, 4):
        d.text(x0 + across * x, y0 + 22, number(x, 0), 'axis')
    d.text(x0 - 8, y0 - up + 5, 1, 'axis', 'end')
    d.text(x0, y0 + 42, say['logit'], 'axis')
    return d.svg()


def bend(say, ex):
    """ReLU of x, ReLU of −x, and their sum."""
    d = Drawing(say['bend'])
    x0, y0, scale = 170, 150, 55
    d.add(f'<path d="M{x0 - 2.4 * scale} {y0}H{x0 + 2.4 * scale}M{x0} 12V{y0 + 6}" class="grid"/>')
    for rows, css in ((ex['hidden'], 'old'), ([ex['total']], 'own')):
        for row in rows:
            d.path('M' + 'L'.join(f'{x0 + scale * x:.1f} {y0 - scale * value + (1.5 if css == "old" else -1.5):.1f}' for x, value in zip(ex['xs'], row, strict=True)),
                   f'curve {css}', arrow=False)
    for x in (-2, 0, 2):
        d.text(x0 + scale * x, y0 + 22, number(x, 0), 'axis')
    d.text(x0 - 1.2 * scale, y0 - 1.75 * scale, say['total'], 'label own')
    d.text(x0 + 1.35 * scale, y0 - 0.75 * scale, 'ReLU(x)', 'label old', 'start')
    d.text(x0 - 1.35 * scale, y0 - 0.75 * scale, 'ReLU(−x)', 'label old', 'end')
    return d.svg()


def strokes(say, ex):
    """Two images, what the window finds in them and what pooling leaves."""
    d, cell = Drawing(say['images']), 20
    for place, each in enumerate(ex['strokes']):
        y = 24 + 122 * place
        for grid, x, name in ((each['image'], 4, say['image']), (each['found'], 126, say['found']), (each['pooled'], 258, say['pooled'])):
            most = max(max(row) for row in grid)
            if not place:
                d.text(x + cell * len(grid) / 2, 14, name, 'axis')
            for i, row in enumerate(grid):
                for j, value in enumerate(row):
                    at = (x + cell * j, y + cell * i)
                    d.add(f'<rect x="{at[0]}" y="{at[1]}" width="{cell}" height="{cell}" class="cell {"held" if value else "empty"}"/>')
                    if value:
                        d.text(at[0] + cell / 2, at[1] + cell / 2 + 5, number(value, 0), 'new' if value == most else '')
        for x in (92, 214):
            d.arrow(x, y + 2 * cell, x + 28, y + 2 * cell)
        d.text(258 + cell, y + 3.4 * cell, f'amax: {number(max(max(row) for row in each["pooled"]), 0)}', 'new')
    d.height = 24 + 122 + 4 * cell + 8
    return d.svg()


def unrolled(say, text):
    """The same cell, once for each character: what it gets and what it hands on."""
    d = Drawing(say['steps'], 5)
    for place, char in enumerate(text):
        x = 82 + 98 * place
        d.box(x - 30, 4, 60, 28, 'lm_head')
        d.arrow(x, 92, x, 34)
        d.text(x + 6, 64, f'h{"₁₂₃"[place]}', 'new', 'start')
        d.box(x - 30, 92, 60, 38, 'cell', 5)
        d.arrow(x, 172, x, 132)
        d.box(x - 22, 172, 44, 30, char, css='data')
        if place:
            d.arrow(x - 68, 111, x - 32, 111, 'wire new')
    d.arrow(18, 111, 50, 111, 'wire new')
    d.text(18, 102, 'h₀', '', 'middle')
    d.text(24, 134, say['start'], 'sub')
    d.text(180, 226, 'h = tanh(W x + U h + b)', '')
    return d.svg()


def lookup(say, ex):
    """One-hot times a matrix takes a column; a table has it as a row."""
    d, cell = Drawing(say['lookup']), 24
    chars, here = ex['shown'], ex['place']
    left = 74
    d.text(left + cell * len(chars) / 2, 14, say['hot'], 'axis')
    for j, char in enumerate(chars):
        css = 'held' if j == here else 'empty'
        d.text(left + cell * (j + 0.5), 36, char)
        d.add(f'<rect x="{left + cell * j}" y="44" width="{cell}" height="{cell}" class="cell {css}"/>')
        d.text(left + cell * (j + 0.5), 61, int(j == here), 'new' if j == here else 'sub')
        for i in range(3):
            d.add(f'<rect x="{left + cell * j}" y="{92 + cell * i}" width="{cell}" height="{cell}" class="cell {css}"/>')
    d.text(left - 12, 61, 'x', '', 'end')
    d.text(left - 12, 92 + 1.5 * cell + 5, 'W', '', 'end')
    d.text(left + cell * len(chars) / 2, 92 + 3 * cell + 20, say['column'], 'axis')
    top = 214
    for i, char in enumerate(chars):
        d.text(left + cell * 1.5, top + cell * (i + 0.7), char)
        for j in range(2):
            d.add(f'<rect x="{left + cell * (j + 2.5)}" y="{top + cell * i}" width="{cell}" height="{cell}" class="cell {"held" if i == here else "empty"}"/>')
    d.arrow(left + cell * 4.6, top + cell * (here + 0.5), left + cell * 5.8, top + cell * (here + 0.5), 'wire new')
    d.text(left + cell * 6, top + cell * (here + 0.5) + 5, say['row'], 'new', 'start')
    d.height = top + cell * len(chars) + 8
    return d.svg()


def levels(say):
    """From order 5 down to the uniform distribution."""
    d, x = Drawing(say['levels'], 7), 150
    for place, order in enumerate((5, 4, 3, 2, 1, 0)):
        y = 6 + 66 * place
        label = f'P{"₀₁₂₃₄₅"[order]}' if order else '1 / V'
        sub = say['looks'].format(order - 1) if order > 1 else say['nothing'] if order else say['uniform']
        d.box(x - 100, y, 200, 44, label, 1 if order in (0, 2) else 7, sub=sub)
        if order:
            d.arrow(x, y + 44, x, y + 66)
            d.text(x + 10, y + 60, say['left'], 'shape', 'start')
    return d.svg()
