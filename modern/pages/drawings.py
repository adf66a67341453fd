"""The drawings of this ladder's model: data flow, the insides of its modules, the training loop, and one picture for each idea.

Nothing here knows a measured number: what is drawn comes in as arguments. `say` holds the words of the page's language.
"""

import math

from kit.formats import number
from kit.svg import Drawing, bars, curves

SAY = {
    'zh': {'trunk': '从编号到得分：整个模型', 'attention': '注意力的内部', 'feed_forward': '前馈网络的内部', 'loop': '训练循环',
           'to loss': '和答案比：损失', 'to text': 'softmax，抽下一个字', 'split': '切成头', 'turn': '旋转',
           'share': '一组 query 头合用一份', 'scores': 'q @ kᵀ，除以维数的平方根', 'mask': '盖住未来', 'concat': '各头并排放回',
           'model': 'model(x, y)', 'gradient': '每个参数的导数', 'clear': '清掉旧导数', 'move': '每个参数挪一小步', 'again': '再来一步',
           'rows': '一批几首，从标题起', 'clip': '太长就缩到 1', 'rate': '这一步走多大', 'same table': '同一个矩阵',
           'batch': '一批三首：x 和答案 y', 'schedule': '学习率随步数的变化', 'step': '步', 'clipped': '一个梯度缩短之前和之后', 'long': '长 ',
           'dials': '旋转的对：每个位置上，各对转过的角度', 'pair': '第 {} 对', 'position': '位置', 'distance': '同样相隔两个位置，夹角相同', 'at': 'q 在 {}，k 在 {}',
           'silu': 'silu 和 ReLU', 'caches': '要缓存的头', 'query heads': 'query 头', 'cached': '缓存里的 key 头和 value 头', 'per poem': '写满一首：{} KiB',
           'ring': '缓存的格子：写满之后，新的盖掉最旧的', 'new at': '写位置 {}', 'left': '左边填充，右边对齐', 'padding': '填充',
           'kept': '训练的一步要存的数', 'per T': '{}，T = {}', 'checkpoint': 'checkpoint.pth 里有什么', 'weights': '参数', 'optimizer': '优化器的数',
           'step number': '第几步', 'random': '随机状态', 'order': '剩下的各批', 'best': '最低的损失', 'run': 'wandb 的编号', 'options': '各个选项', 'text hash': '文本的哈希',
           'goes on': '--resume 从这里接着走', 'processes': '两个进程走同样的一步', 'its share': '第 {} 份', 'process': '第 {} 个进程', 'own gradient': '自己的梯度',
           'put together': 'all_reduce：按字数平均', 'same step': '同样的一步', 'cuts': '同一句，合并得越来越多', 'merges': '{} 次合并：{} 个 token',
           'rewards': '各首的奖励', 'poem number': '第 {} 首', 'a round': '一轮', 'write': '写一组', 'by itself': '现在的模型，几个词牌各写几首', 'winners': '留下赢家',
           'form and copies': '合句式，没有抄', 'judge': '每个位置抽一组字', 'right or wrong': '还合得上是 1，不然是 0', 'advantages': '减去同组的平均', 'better or worse': '优势：比同组好多少',
           'loss of winners': '赢家的损失', 'loss of all': '优势 × 概率的对数', 'mean per character': '每字的平均', 'and the distance': '加上离出发的模型多远', 'real poems': '加上真词的损失', 'hold the rest': '别的不丢',
           'a step': '走一步', 'next round': '下一轮', 'group': '四首，每个字写得对不对'},
    'en': {'trunk': 'From ids to logits: the whole model', 'attention': 'Inside attention',
           'feed_forward': 'Inside the feed-forward network', 'loop': 'The training loop',
           'to loss': 'compare: loss', 'to text': 'softmax, draw the next', 'split': 'split into heads', 'turn': 'rotate',
           'share': 'one for each group', 'scores': 'q @ kᵀ / √ of width', 'mask': 'hide the future', 'concat': 'heads joined again',
           'model': 'model(x, y)', 'gradient': 'find the derivatives', 'clear': 'clear the old ones', 'move': 'move each a small step',
           'again': 'once more', 'rows': 'some poems, from their titles', 'clip': 'longer than 1: shorten', 'rate': 'how big is this step', 'same table': 'one matrix',
           'batch': 'A batch of three poems: x and the answers y', 'schedule': 'The learning rate over the steps', 'step': 'step ',
           'clipped': 'A gradient before and after it is shortened', 'long': 'length ',
           'dials': 'The rotating pairs: how far each has turned at each position', 'pair': 'pair {}', 'position': 'position',
           'distance': 'Two positions apart, the angle between is the same', 'at': 'q at {}, k at {}',
           'silu': 'silu and ReLU', 'caches': 'The heads in the cache', 'query heads': 'query heads', 'cached': 'heads of keys and values in the cache',
           'per poem': 'one full poem: {} KiB', 'ring': 'The columns of the cache: once full, the new covers the oldest',
           'new at': 'position {}', 'left': 'Padded on the left, aligned on the right', 'padding': 'padding',
           'kept': 'What a step of training keeps', 'per T': '{}, T = {}', 'checkpoint': 'What checkpoint.pth holds', 'weights': 'parameters', 'optimizer': "AdamW's averages",
           'step number': 'step', 'random': 'random states', 'order': 'batches to come', 'best': 'lowest loss', 'run': 'wandb run', 'options': 'options', 'text hash': 'hash of the text',
           'goes on': '--resume goes on from here', 'processes': 'Two processes take the same step', 'its share': 'share {}', 'process': 'process {}', 'own gradient': 'its gradient',
           'put together': 'all_reduce: mean over characters', 'same step': 'the same step', 'cuts': 'One line, with more and more merges', 'merges': '{} merges: {} tokens',
           'rewards': 'The rewards of the poems', 'poem number': 'poem {}', 'a round': 'A round', 'write': 'write groups', 'by itself': 'the model as it is now', 'winners': 'keep the winners',
           'form and copies': 'form kept, nothing copied', 'judge': 'a group at every place', 'right or wrong': 'still in form: 1; else 0', 'advantages': 'less the mean of the group', 'better or worse': 'advantage: how much better',
           'loss of winners': 'loss of the winners', 'loss of all': 'advantage × log-probability', 'mean per character': 'mean over characters', 'and the distance': 'and the distance from the start', 'real poems': 'and the loss of real poems', 'hold the rest': 'so that the rest is kept',
           'a step': 'take a step', 'next round': 'next round', 'group': 'Four poems, and whether each character is right'}}


def flow(number, say, example):
    """What the page of rung `number` draws of the data's way; `example` is the worked example of the page."""
    if number in (13, 14):
        return [loop(say, number)]
    if number is None:
        return []
    drawings = {15: [trunk, attention, feed_forward], 16: [trunk, attention], 17: [feed_forward], 18: [attention], 19: [attention], 20: [trunk]}
    return [draw(number, say) for draw in drawings[number]]


def architecture(say, page_of):
    """The whole model; each part leads to the page of the rung that brought it, as page_of(its number) says."""
    return [draw(20, say, page_of) for draw in (trunk, attention, feed_forward)]


def came(d, first, *later):
    """The rung that brought a part, or the one that is drawn if it changed it."""
    return d.rung if d.rung in later else first


def trunk(rung, say, link=None):
    """From ids to logits as rung number `rung` computes them."""
    d = Drawing(say['trunk'], None if link else rung, link)
    norm = 'RMSNorm' if rung >= 15 else 'LayerNorm'
    x, stream = 150, '(B, T, n_embd)'
    d.box(x - 60, 4, 120, 30, 'idx', css='data')
    d.text(x + 68, 24, '(B, T)', 'shape', 'start')
    d.arrow(x, 34, x, 54)
    d.box(x - 105, 54, 210, 34, 'token_embedding_table', came(d, 1, 20))
    y = 88
    if rung < 16:
        d.path(f'M{x} {y}V{y + 40}')
        d.plus(x, y + 52, 2, tagged=False)
        d.box(x + 60, y + 18, 126, 46, 'position_', 2, sub='embedding_table')
        d.arrow(x + 60, y + 52, x + 12, y + 52)
        y += 63
    d.text(x + 10, y + 19, stream, 'shape', 'start')
    top, y = y + 30, y + 60
    d.path(f'M{x} {top - 30}V{y}', arrow=False)
    frame = len(d.parts)
    for name, before in (('sa', 'ln1'), ('ffwd', 'ln2')):
        fork = y
        d.arrow(x, fork, x, y + 22)
        d.box(x - 70, y + 22, 140, 30, f'{before}: {norm}', 15 if rung >= 15 else 9)
        y += 52
        d.arrow(x, y, x, y + 14)
        d.box(x - 85, y + 14, 170, 36, 'MultiHeadAttention' if name == 'sa' else 'FeedForward',
              came(d, 4, 16, 18, 19) if name == 'sa' else 17 if rung >= 17 else 5)
        y += 50
        d.arrow(x, y, x, y + 14)
        d.plus(x, y + 25, 7)
        d.path(f'M{x} {fork + 5}H{x - 108}V{y + 25}H{x - 13}')
        y += 36
    d.path(f'M{x} {y}V{y + 12}', arrow=False)
    y += 12
    d.parts.insert(frame, f'<rect x="26" y="{top + 8}" width="288" height="{y - top - 8}" rx="12" class="frame"/>')
    d.text(36, top + 28, 'Block', 'frame', 'start')
    d.text(306, y - 8, '× n_layer', 'frame', 'end')
    d.arrow(x, y, x, y + 30)
    d.text(x + 10, y + 22, stream, 'shape', 'start')
    y += 30
    d.box(x - 70, y, 140, 30, f'ln_f: {norm}', 15 if rung >= 15 else 9)
    d.arrow(x, y + 30, x, y + 52)
    y += 52
    d.box(x - 85, y, 170, 36, 'lm_head: Linear', came(d, 1, 15, 20))
    if rung >= 20:
        css = 'wire new' if d.rung == 20 else 'wire'
        if link:
            d.add(f'<a href="{link(20)}">')
        d.path(f'M{x + 105} 71H330V{y + 18}H{x + 87}', css)
        d.text(324, y + 9, say['same table'], 'new' if d.rung == 20 else 'sub', 'end')
        if link:
            d.tag(317, 71, 20)
            d.add('</a>')
    y += 36
    d.text(x + 10, y + 19, '(B, T, V)', 'shape', 'start')
    d.arrow(x, y, x, y + 30)
    d.box(x - 60, y + 30, 120, 30, 'logits', css='data')
    y += 60
    d.path(f'M{x - 30} {y}L{x - 62} {y + 26}')
    d.path(f'M{x + 30} {y}L{x + 62} {y + 26}')
    d.text(x - 80, y + 42, say['to loss'], 'sub')
    d.text(x + 88, y + 42, say['to text'], 'sub')
    return d.svg()


def attention(rung, say, link=None):
    """Inside of the attention module. Its parts carry the rung they came with."""
    d = Drawing(say['attention'], None if link else rung, link)
    grouped = rung >= 18
    part, square = '(B, n_head, T, head_size)', '(B, n_head, T, T)'
    d.box(120, 4, 100, 28, 'x', css='data')
    d.text(228, 23, '(B, T, n_embd)', 'shape', 'start')
    for x, name in ((62, 'query'), (170, 'key'), (278, 'value')):
        d.path(f'M170 32V42H{x}V56' if x != 170 else 'M170 32V56')
        d.box(x - 45, 56, 90, 32, name, 3 if name == 'query' else came(d, 3, 18))
        d.arrow(x, 88, x, 106)
    d.box(17, 106, 306, 30, say['split'], 4)
    y = 136
    if grouped:
        css = 'shape new' if d.rung == 18 else 'shape'
        d.text(62, y + 17, 'n_head', 'shape')
        d.text(224, y + 17, 'n_kv_head', css)
    else:
        d.text(170, y + 17, part, 'shape')
    y += 24
    if rung >= 19:
        for x, name in ((62, 'q_norm'), (170, 'k_norm')):
            d.arrow(x, y - 24 if x == 62 and not grouped else y - 4, x, y + 12)
            d.box(x - 45, y + 12, 90, 30, name, 19)
        y += 42
    if rung >= 16:
        for x in (62, 170):
            d.arrow(x, y - 4 if rung < 19 else y, x, y + 14)
            d.box(x - 45, y + 14, 90, 30, say['turn'], 16)
        y += 44
    value = 160
    if grouped:
        d.arrow(170, y, 170, y + 16)
        d.path(f'M278 {value}V{y + 16}')
        d.box(116, y + 16, 216, 30, say['share'], 18)
        value = y + 46
        d.path(f'M62 {y}V{y + 62}H90V{y + 70}')
        y += 46
    else:
        d.path(f'M62 {y}V{y + 16}H90V{y + 24}')
    d.arrow(170, y, 170, y + 24)
    y += 24
    d.box(30, y, 190, 34, say['scores'], 3)
    y += 34
    d.text(135, y + 17, square, 'shape', 'start')
    d.arrow(125, y, 125, y + 24)
    d.box(30, y + 24, 190, 30, say['mask'], 3)
    d.arrow(125, y + 54, 125, y + 72)
    d.box(30, y + 72, 190, 30, 'softmax', 3)
    d.arrow(125, y + 102, 125, y + 120)
    d.box(60, y + 120, 130, 28, 'dropout', 10)
    y += 148
    d.text(135, y + 17, square, 'shape', 'start')
    d.arrow(125, y, 125, y + 26)
    d.path(f'M278 {value}V{y + 43}H222')
    d.box(30, y + 26, 190, 34, 'weights @ v', 3)
    y += 60
    d.text(135, y + 17, part, 'shape', 'start')
    d.arrow(125, y, 125, y + 26)
    d.box(30, y + 26, 190, 30, say['concat'], 4)
    d.arrow(125, y + 56, 125, y + 74)
    d.box(30, y + 74, 190, 32, 'proj: Linear', came(d, 8, 15))
    d.arrow(125, y + 106, 125, y + 124)
    d.box(60, y + 124, 130, 28, 'dropout', 10)
    y += 152
    d.text(135, y + 17, '(B, T, n_embd)', 'shape', 'start')
    d.arrow(125, y, 125, y + 26)
    d.height = y + 32
    return d.svg()


def feed_forward(rung, say, link=None):
    d = Drawing(say['feed_forward'], None if link else rung, link)
    d.box(120, 4, 100, 28, 'x', css='data')
    d.text(228, 23, '(B, T, n_embd)', 'shape', 'start')
    if rung < 17:
        d.arrow(170, 32, 170, 52)
        d.box(75, 52, 190, 32, 'Linear', came(d, 5, 15))
        d.arrow(170, 84, 170, 108)
        d.text(180, 100, '(B, T, 4 × n_embd)', 'shape', 'start')
        d.box(75, 108, 190, 32, 'ReLU', 5)
        d.arrow(170, 140, 170, 164)
        d.box(75, 164, 190, 32, 'Linear', came(d, 5, 15))
        y = 196
    else:
        for x, name in ((92, 'gate: Linear'), (248, 'up: Linear')):
            d.path(f'M170 32V42H{x}V56')
            d.box(x - 62, 56, 124, 32, name, 17)
        d.arrow(92, 88, 92, 106)
        d.box(30, 106, 124, 30, 'silu', 17)
        d.path('M92 136V170H156', 'wire new' if d.rung == 17 else 'wire')
        d.path('M248 88V170H184')
        d.text(242, 150, '(B, T, hidden)', 'shape', 'end')
        css = 'plus new' if d.rung == 17 else 'plus'
        d.add(f'<circle cx="170" cy="170" r="11" class="{css}"/>')
        d.text(170, 175.5, '×', css)
        d.arrow(170, 182, 170, 204)
        d.box(75, 204, 190, 32, 'down: Linear', 17)
        y = 236
    d.arrow(170, y, 170, y + 20)
    d.box(105, y + 20, 130, 28, 'dropout', 10)
    y += 48
    d.arrow(170, y, 170, y + 26)
    d.text(180, y + 18, '(B, T, n_embd)', 'shape', 'start')
    d.height = y + 32
    return d.svg()


def loop(say, rung):
    """The training loop, its parts with the rung they came with."""
    d = Drawing(say['loop'], rung)
    steps = [('get_batch', say['rows'], 13), (say['model'], 'logits, loss', 1), ('optimizer.zero_grad()', say['clear'], 1), ('loss.backward()', say['gradient'], 1),
             *[('clip_grad_norm_', say['clip'], 14), ('get_lr', say['rate'], 14)][:2 * (rung >= 14)], ('optimizer.step()', say['move'], 1)]
    for place, (label, sub, since) in enumerate(steps):
        y = 6 + 62 * place
        d.box(56, y, 200, 44, label, since, sub=sub)
        if place < len(steps) - 1:
            d.arrow(156, y + 44, 156, y + 62)
    bottom = 6 + 62 * len(steps) - 40
    d.path(f'M56 {bottom}H24V28H54')
    d.text(18, bottom / 2 + 14, say['again'], 'sub turn')
    d.parts[-1] = d.parts[-1].replace('<text ', f'<text transform="rotate(-90 18 {bottom / 2 + 14:g})" ')
    d.height += 4
    return d.svg()


def batch(say, rows):
    """A batch of poems as a table of cells: x above, the answers y below; padding is empty."""
    cell, left = 19, 34
    width = len(rows[0]) - 1
    d = Drawing(say['batch'], width=left + cell * width + 2)
    for name, top, shift in (('x', 4, 0), ('y', 4 + cell * (len(rows) + 1), 1)):
        d.text(left - 12, top + cell * len(rows) / 2 + 5, name, 'label', 'end')
        for i, row in enumerate(rows):
            length = len(row.rstrip(' '))
            for j in range(width):
                char, y = row[j + shift], top + cell * i
                inside = j + shift < length
                css = ('cell held' if shift else 'part') if inside else 'cell empty'
                d.add(f'<rect x="{left + cell * j + 1:g}" y="{y + 1:g}" width="{cell - 2}" height="{cell - 2}" rx="3" class="{css}"/>')
                if inside:
                    d.text(left + cell * (j + 0.5), y + 14, char.replace('\n', '⏎'))
    d.height = 8 + cell * (2 * len(rows) + 1)
    return d.svg('cells')


def schedule(say, ex):
    """The rate over the steps: its first, highest and last value."""
    d = Drawing(say['schedule'], width=340)
    left, right, top, bottom = 12, 326, 34, 150
    points = [(left + (right - left) * step / ex['last'], bottom - (bottom - top) * rate / ex['peak'], step, rate) for step, rate in ex['curve']]
    d.add(f'<path d="M{left} {bottom}H{right}" class="grid"/>')
    d.path('M' + 'L'.join(f'{x:.1f} {y:.1f}' for x, y, *_ in points), 'curve own', arrow=False)
    for place, (x, y, step, rate) in enumerate(points):
        d.add(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="dot own"/>')
        d.text((x + 14, x + 10, right)[place], (y - 8, y - 6, y - 14)[place], f'{rate:.5f}'.rstrip('0').rstrip('.'), 'label own', ('start', 'start', 'end')[place])
        d.text((left, left + 44, right)[place], bottom + 20, f'{step:,}', 'axis', ('start', 'middle', 'end')[place])
    d.text(170, bottom + 20, say['step'].strip(), 'axis')
    d.height = bottom + 28
    return d.svg()


def clipped(say, ex):
    """A gradient of two numbers, and the same one when it is no longer than 1."""
    d = Drawing(say['clipped'], width=340)
    scale, x0, y0 = 46, 274, 50
    d.add(f'<path d="M120 {y0}H334M{x0} 4V254" class="grid"/>')
    d.add(f'<circle cx="{x0}" cy="{y0}" r="{scale}" fill="none" class="grid"/>')
    (a, b), (c, e) = ex['before'], ex['after']
    d.arrow(x0, y0, x0 + scale * a, y0 - scale * b)
    d.arrow(x0, y0, x0 + scale * c, y0 - scale * e, 'wire new')
    for (u, v), length, x, css in (((a, b), ex['length'], x0 + scale * a - 14, 'sub'), ((c, e), 1, x0 - scale - 10, 'new')):
        d.text(x, y0 - scale * v + 2, f'({number(u)}, {number(v)})', css, 'end')
        d.text(x, y0 - scale * v + 20, f'{say["long"]}{number(length)}', css, 'end')
    d.height = 268
    return d.svg()


def hand(d, x, y, r, angle, new=True):
    tip = x + r * math.cos(angle), y - r * math.sin(angle)
    d.path(f'M{x:g} {y:g}L{tip[0]:.1f} {tip[1]:.1f}', 'wire new' if new else 'wire', arrow=False)
    d.add(f'<circle cx="{tip[0]:.1f}" cy="{tip[1]:.1f}" r="3.2" class="dot {"own" if new else "old"}"/>')


def dials(say, ex):
    """Each pair is a hand: a column for each position, a row for some of the pairs, fast ones above."""
    left, step, r = 82, 42, 17
    d = Drawing(say['dials'], width=left + step * len(ex['angles'][0]))
    d.text(left - 14, 14, say['position'], 'axis', 'end')
    for t in range(len(ex['angles'][0])):
        d.text(left + step * (t + 0.5) - 8, 14, t, 'axis')
    for row, (pair, angles, speed) in enumerate(zip(ex['pairs'], ex['angles'], ex['speeds'], strict=True)):
        y = 44 + 50 * row
        d.text(2, y - 1, say['pair'].format(pair), 'axis', 'start')
        d.text(2, y + 15, f'{speed:.4g}', 'shape', 'start')
        for t, angle in enumerate(angles):
            x = left + step * (t + 0.5) - 8
            d.add(f'<circle cx="{x:g}" cy="{y}" r="{r}" class="plus"/>')
            hand(d, x, y, r, angle)
        d.height = y + r + 6
    return d.svg()


def distance(say, ex):
    """The fast pair of a query and of a key, both turned: at three places, the same distance apart."""
    d = Drawing(say['distance'], width=340)
    r, y = 44, 54
    (q, k) = ex['flat']
    for place, each in enumerate(ex['turned']):
        x, (t, s) = 58 + 112 * place, each['places']
        d.add(f'<circle cx="{x}" cy="{y}" r="{r}" class="plus"/>')
        a, b = q + t, k + s
        turn = (a - b) % (2 * math.pi)
        sweep = (turn, b) if turn <= math.pi else (2 * math.pi - turn, a)
        dots = [(x + 16 * math.cos(sweep[1] + sweep[0] * i / 16), y - 16 * math.sin(sweep[1] + sweep[0] * i / 16)) for i in range(17)]
        d.path('M' + 'L'.join(f'{u:.1f} {v:.1f}' for u, v in dots), arrow=False)
        hand(d, x, y, r, b, new=False)
        hand(d, x, y, r, a)
        for name, angle, css in (('q', a, 'new'), ('k', b, 'sub')):
            d.text(x + (r + 11) * math.cos(angle), y - (r + 11) * math.sin(angle) + 5, name, css)
        d.text(x, y + r + 30, say['at'].format(t, s), 'axis')
    return d.svg()


def silu(say, ex):
    """silu beside ReLU, from −5 to 5."""
    d = Drawing(say['silu'], width=340)
    x0, y0, scale = 170, 150, 27
    d.add(f'<path d="M{x0 - 5 * scale} {y0}H{x0 + 5 * scale}M{x0} 8V{y0 + 22}" class="grid"/>')
    d.path(f'M{x0 - 5 * scale} {y0}H{x0}L{x0 + 5 * scale} {y0 - 5 * scale}', 'curve old', arrow=False)
    d.path('M' + 'L'.join(f'{x0 + scale * x:.1f} {y0 - scale * y:.1f}' for x, y in ex['curve']), 'curve own', arrow=False)
    for x in (-5, 5):
        d.text(x0 + scale * x, y0 + 20, number(x, 0), 'axis')
    d.text(x0 + 8, y0 + 20, 0, 'axis', 'start')
    d.text(x0 - 8, y0 - 5 * scale + 5, 5, 'axis', 'end')
    d.text(x0 - 60, y0 + 26, 'silu', 'label own')
    d.text(x0 + 3 * scale - 12, y0 - 3 * scale - 8, 'ReLU', 'label old', 'end')
    d.height = y0 + 34
    return d.svg()


def caches(say, heads, kept, kib, most, new):
    """Which head of keys and values serves which query heads, and what a full poem takes in the cache; `most` is the longest bar."""
    d = Drawing(say['caches'], width=340)
    gap, group = 330 / heads, heads // kept
    css = 'part new' if new else 'part'
    d.text(5, 14, say['query heads'], 'axis', 'start')
    for h in range(heads):
        x = 5 + gap * (h + 0.5)
        d.add(f'<rect x="{x - 20:g}" y="24" width="40" height="28" rx="6" class="part"/>')
        d.text(x, 43, f'q{h}')
        target = 5 + gap * (h // group + 0.5) * group
        d.path(f'M{x:g} 52L{target:g} 92', 'wire new' if new else 'wire', arrow=False)
    for h in range(kept):
        x = 5 + gap * (h + 0.5) * group
        d.add(f'<rect x="{x - 26:g}" y="92" width="52" height="28" rx="6" class="{css}"/>')
        d.text(x, 111, f'k{h} v{h}', css)
    d.text(5, 144, say['cached'], 'axis', 'start')
    d.add(f'<rect x="5" y="156" width="{330 * kib / most:.1f}" height="16" rx="3" class="bar {"own" if new else ""}"/>')
    d.text(5, 192, say['per poem'].format(number(kib, 0)), 'label own' if new else 'label', 'start')
    return d.svg()


def rings(say, ex):
    """The columns of a cache as a ring, at some positions: what each holds; the newest is marked."""
    d = Drawing(say['ring'], width=340)
    for place, ring in enumerate(ex['rings']):
        x, y, r = 57 + 113 * place, 62, 40
        size = len(ring['held'])
        for column, held in enumerate(ring['held']):
            angle = math.pi / 2 - 2 * math.pi * column / size
            cx, cy = x + r * math.cos(angle), y - r * math.sin(angle)
            css = 'cell done' if held == ring['position'] else 'cell empty' if held is None else 'cell held'
            d.add(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="13.5" class="{css}"/>')
            if held is not None:
                d.text(cx, cy + 5, held, 'tag' if held == ring['position'] else '')
        d.text(x, y + r + 36, say['new at'].format(ring['position']), 'axis')
    return d.svg()


def padded(say, ex):
    """Prompts of different lengths, padded on the left; whose cells nobody looks at."""
    cell, left = 34, 8
    width = max(map(len, ex['prompts']))
    d = Drawing(say['left'], width=340)
    for i, (prompt, empty) in enumerate(zip(ex['prompts'], ex['left'], strict=True)):
        y = 6 + (cell + 6) * i
        for j, char in enumerate(' ' * empty + prompt.replace(' ', '␣') + ' '):
            css = 'cell empty' if j < empty else 'part' if j < width else 'cell done'
            d.add(f'<rect x="{left + cell * j + 1:g}" y="{y}" width="{cell - 2}" height="{cell - 2}" rx="4" class="{css}"/>')
            d.text(left + cell * (j + 0.5), y + 21, char)
    for j in range(width + 1):
        d.text(left + cell * (j + 0.5), 18 + (cell + 6) * len(ex['prompts']), j, 'axis')
    return d.svg()


def kept(say, ex):
    """What a step of v20 and of v21 keeps for the way back, in MB, as bars for each length."""
    rows = [(say['per T'].format(name, length), value, f'{number(value, 0)} MB', css)
            for length, *values in zip(ex['lengths'], *ex['kept'], strict=True)
            for name, value, css in zip(('v20', 'v21'), values, ('', 'own'), strict=True)]
    return bars(rows, say['kept'])


def checkpoint(say):
    """What is in the file, and where training goes on with it."""
    d = Drawing(say['checkpoint'], 22, width=340)
    d.box(4, 8, 332, 214, '', css='frame')
    d.text(14, 28, 'checkpoint.pth', 'frame', 'start')
    for place, name in enumerate(('weights', 'options', 'optimizer', 'step number', 'random', 'order', 'best', 'run', 'text hash')):
        d.box(14 + 158 * (place % 2), 38 + 36 * (place // 2), 154, 30, say[name], 12 if place < 1 else 22)
    d.arrow(170, 222, 170, 244)
    d.text(170, 262, say['goes on'], 'label')
    return d.svg()


def processes(say):
    """A batch in two shares, two models, one gradient, the same step."""
    d = Drawing(say['processes'], 23, width=340)
    d.box(60, 4, 220, 30, say['rows'], 13)
    for rank, x in enumerate((84, 256)):
        d.path(f'M170 34L{x} 60')
        d.box(x - 70, 60, 140, 42, say['its share'].format(rank), 23, sub=say['process'].format(rank))
        d.arrow(x, 102, x, 122)
        d.box(x - 70, 122, 140, 30, say['model'], 1)
        d.arrow(x, 152, x, 172)
        d.box(x - 70, 172, 140, 30, say['own gradient'], 1)
        d.path(f'M{x} 202V222')
        d.arrow(x, 258, x, 278)
        d.box(x - 70, 278, 140, 42, 'optimizer.step()', 1, sub=say['same step'])
    d.box(30, 222, 280, 36, say['put together'], 23)
    return d.svg()


def cuts(say, ex):
    """One line cut into tokens, more merges from row to row; a token is as wide as its bytes, and a piece of a character has no letter."""
    d = Drawing(say['cuts'], width=340)
    wide = 336 / sum(size for _, size in ex['cuts'][0])
    for place, (count, tokens) in enumerate(zip(ex['counts'], ex['cuts'], strict=True)):
        x, y = 2, 22 + 62 * place
        d.text(2, y - 6, say['merges'].format(count, len(tokens)), 'axis', 'start')
        for text, size in tokens:
            whole = '�' not in text
            css = 'part' if whole else 'cell empty'
            d.add(f'<rect x="{x + 1:.1f}" y="{y}" width="{wide * size - 2:.1f}" height="28" rx="4" class="{css}"/>')
            if whole:
                d.text(x + wide * size / 2, y + 19, text)
            x += wide * size
        d.height = y + 34
    return d.svg()


def best(say, ex):
    """The reward of each poem of a group; the one that is kept is marked."""
    rows = [(say['poem number'].format(place + 1), value, number(value, 3), 'own' if place == ex['best'] else '') for place, value in enumerate(ex['rewards'])]
    return bars(rows, say['rewards'])


def rounds(say, rung):
    """A round of v25 or of v26: what is written, what is learned from, one step, and again."""
    d = Drawing(say['a round'], rung)
    learned = [('winners', 'form and copies'), ('loss of winners', 'mean per character')] if rung == 25 else [
        ('judge', 'right or wrong'), ('advantages', 'better or worse'), ('loss of all', 'and the distance')]
    parts = [('write', 'by itself', 25), *[(*words, rung) for words in learned], ('real poems', 'hold the rest', 25), ('a step', 'optimizer.step()', 1)]
    for place, (label, sub, since) in enumerate(parts):
        y = 6 + 62 * place
        d.box(56, y, 240, 44, say[label], since, sub=say.get(sub, sub))
        if place < len(parts) - 1:
            d.arrow(176, y + 44, 176, y + 62)
    bottom = 6 + 62 * len(parts) - 40
    d.path(f'M56 {bottom}H24V28H54')
    d.text(18, bottom / 2 + 14, say['next round'], 'sub turn')
    d.parts[-1] = d.parts[-1].replace('<text ', f'<text transform="rotate(-90 18 {bottom / 2 + 14:g})" ')
    d.height += 4
    return d.svg()


def group(say, ex, row=15):
    """The characters below the title of some poems, `row` in a row: right, wrong, not judged."""
    cell, left = 21, 26
    d = Drawing(say['group'], width=left + cell * row + 4)
    for place, (chars, values) in enumerate(zip(ex['chars'], ex['values'], strict=True)):
        top = 4 + 58 * place
        d.text(left - 10, top + 17, place + 1, 'axis', 'end')
        for i, char in enumerate(chars):
            judged = i < len(values) and values[i] > -math.inf
            css = ('cell held' if values[i] > 0 else 'cell done') if judged else 'cell empty'
            x, y = left + cell * (i % row), top + 24 * (i // row)
            d.add(f'<rect x="{x + 1}" y="{y}" width="{cell - 2}" height="22" rx="4" class="{css}"/>')
            d.text(x + cell / 2, y + 16, '↵' if char == '\n' else char, 'tag' if css == 'cell done' else '' if judged else 'axis')
    return d.svg()


def course(told, title, axis, columns, scale=1):
    """Curves of what a run told of its rounds: columns is [(what the line is called, its place in a row of the curve, css)]."""
    return curves([(word, [(row[0], scale * row[column]) for row in told], css) for word, column, css in columns], title, axis)
