"""The drawings of this ladder's model: data flow, the insides of its modules, the training loop, the cache.

Nothing here knows a measured number: what is drawn comes in as arguments. `say` holds the words of the page's language.
"""

from kit.svg import Drawing

SAY = {
    'zh': {'trunk': '从编号到得分：整个模型', 'attention': '注意力的内部', 'feed_forward': '前馈网络的内部', 'loop': '训练循环',
           'to loss': '和答案比：损失', 'to text': 'softmax，抽下一个字', 'split': '切成 n_head 个头',
           'scores': 'q · k，除以维数的平方根', 'mask': '盖住未来（掩码）', 'concat': '各头并排放回',
           'clear': '清掉旧的导数', 'gradient': '每个参数的导数', 'move': '每个参数挪一小步', 'again': '再来一步',
           'at times': '每隔 eval_interval 步', 'log': '损失、词', 'keep': '损失新低时', 'positions': '位置', 'write': '写',
           'cache on': '用缓存时，每一步要算的位置', 'cache off': '不用缓存时，每一步要算的位置'},
    'en': {'trunk': 'From ids to logits: the whole model', 'attention': 'Inside attention',
           'feed_forward': 'Inside the feed-forward network', 'loop': 'The training loop',
           'to loss': 'compare: loss', 'to text': 'softmax, draw the next', 'split': 'split into n_head heads',
           'scores': 'q · k / √ of width', 'mask': 'mask the future', 'concat': 'heads joined again',
           'clear': 'clear the old derivatives', 'gradient': 'find the derivatives',
           'move': 'move each a small step', 'again': 'once more', 'at times': 'every eval_interval steps',
           'log': 'loss, poems', 'keep': 'at a new low', 'positions': 'position', 'write': 'write ',
           'cache on': 'Positions computed at each step with a cache',
           'cache off': 'Positions computed at each step without a cache'}}


def flow(number, say, example):
    """What the page of rung `number` draws of the data's way; `example` is the worked example of the page."""
    if number == 12:
        return [loop(say, number)]
    sizes = None
    if number == 11:
        new = example['constants'][1]
        sizes = {'B': new['batch_size'], 'T': new['block_size'], 'C': new['n_embd'], 'L': new['n_layer'],
                 'V': f'{example["vocabulary"]:,}'}
    drawings = [trunk(number, say, sizes=sizes)]
    if number in (3, 4, 8, 10):
        drawings.append(attention(number, say))
    if number in (5, 10):
        drawings.append(feed_forward(number, say))
    if number == 1:
        drawings.append(loop(say, number))
    return drawings


def architecture(say):
    """The whole model; each part leads to the page of the rung that brought it."""
    def link(rung):
        return f'v{rung}.html'
    return [draw(10, say, link) for draw in (trunk, attention, feed_forward)]


def trunk(rung, say, link=None, sizes=None):
    """From ids to logits as rung number `rung` computes them. `sizes` puts numbers for the letters of the shapes."""
    d = Drawing(say['trunk'], None if link else rung, link)
    size = {'B': 'B', 'T': 'T', 'C': 'n_embd', 'V': 'V', 'L': 'n_layer'} | (sizes or {})
    stream = f'({size["B"]}, {size["T"]}, {size["C"]})'
    shapes = 'shape new' if sizes else 'shape'
    x = 150

    def shape(y, text, offset=10):
        d.text(x + offset, y, text, shapes, 'start')

    d.box(x - 60, 4, 120, 30, 'idx', css='data')
    d.text(x + 68, 24, f'({size["B"]}, {size["T"]})', shapes, 'start')
    d.arrow(x, 34, x, 54)
    d.box(x - 105, 54, 210, 34, 'token_embedding_table', 1)
    y = 88
    if rung >= 2:
        d.path(f'M{x} {y}V{y + 40}')
        d.plus(x, y + 52, 2, tagged=False)  # its table has a tag
        d.box(x + 60, y + 18, 126, 46, 'position_', 2, sub='embedding_table')
        d.arrow(x + 60, y + 52, x + 12, y + 52)
        y += 63
    shape(y + 19, stream)
    d.arrow(x, y, x, y + 30)
    y += 30
    if rung >= 6:
        top, y = y, y + 30
        d.path(f'M{x} {top}V{y}', arrow=False)
        frame = len(d.parts)
        for name, norm, since in (('sa', 'ln1', 4), ('ffwd', 'ln2', 5)):
            fork = y
            y += 12
            d.path(f'M{x} {fork}V{y}', arrow=False)
            if rung >= 9:
                d.arrow(x, y, x, y + 10)
                d.box(x - 70, y + 10, 140, 30, f'{norm}: LayerNorm', 9)
                y += 40
            d.arrow(x, y, x, y + 14)
            label = {'sa': 'MultiHeadAttention', 'ffwd': 'FeedForward'}[name]
            d.box(x - 85, y + 14, 170, 36, label, since)
            y += 50
            if rung >= 7:
                d.arrow(x, y, x, y + 14)
                d.plus(x, y + 25, 7)
                css = 'wire new' if d.rung == 7 else 'wire'
                d.path(f'M{x} {fork + 5}H{x - 108}V{y + 25}H{x - 13}', css)
                y += 36
        room = 26 if rung == 6 else 12  # for the number of layers
        d.path(f'M{x} {y}V{y + room}', arrow=False)
        y += room
        css = 'frame new' if d.rung == 6 else 'frame'
        d.parts.insert(frame, f'<rect x="26" y="{top + 8}" width="288" height="{y - top - 8}" rx="12" class="{css}"/>')
        if link:
            d.add(f'<a href="{link(6)}">')
        d.text(36, top + 28, 'Block', css, 'start')
        d.text(306, y - 8, f'× {size["L"]}', f'{css}{" shape new" if sizes else ""}', 'end')
        if link:
            d.tag(90, top + 24, 6)
            d.add('</a>')
        d.arrow(x, y, x, y + 30)
        shape(y + 22, stream)
        y += 30
    elif rung >= 3:
        d.box(x - 85, y, 170, 36, 'SelfAttention' if rung == 3 else 'MultiHeadAttention', min(rung, 4))
        y += 36
        shape(y + 19, stream)
        d.arrow(x, y, x, y + 30)
        y += 30
        if rung >= 5:
            d.box(x - 85, y, 170, 36, 'FeedForward', 5)
            y += 36
            shape(y + 19, stream)
            d.arrow(x, y, x, y + 30)
            y += 30
    if rung >= 9:
        d.box(x - 70, y, 140, 30, 'ln_f: LayerNorm', 9)
        d.arrow(x, y + 30, x, y + 52)
        y += 52
    d.box(x - 85, y, 170, 36, 'lm_head: Linear', 1)
    y += 36
    shape(y + 19, f'({size["B"]}, {size["T"]}, {size["V"]})')
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
    heads = rung >= 4
    stream = '(B, T, n_embd)'
    part = '(B, n_head, T, head_size)' if heads else stream
    square = '(B, n_head, T, T)' if heads else '(B, T, T)'
    d.box(120, 4, 100, 28, 'x', css='data')
    d.text(228, 23, stream, 'shape', 'start')
    for x, name in ((62, 'query'), (170, 'key'), (278, 'value')):
        d.path(f'M170 32V42H{x}V56' if x != 170 else 'M170 32V56')
        d.box(x - 45, 56, 90, 32, name, 3)
    y = 88
    if heads:
        for x in (62, 170, 278):
            d.arrow(x, y, x, y + 18)
        d.box(17, y + 18, 306, 30, say['split'], 4)
        y += 48
    d.text(170, y + 19, part, 'shape')
    d.path(f'M62 {y}V{y + 28}H100V{y + 40}')
    d.arrow(170, y + 24, 170, y + 40)
    value = y
    y += 40
    d.box(30, y, 190, 34, say['scores'], 3)
    y += 34
    d.text(135, y + 17, square, 'shape', 'start')
    d.arrow(125, y, 125, y + 24)
    d.box(30, y + 24, 190, 30, say['mask'], 3)
    d.arrow(125, y + 54, 125, y + 72)
    d.box(30, y + 72, 190, 30, 'softmax', 3)
    y += 102
    if rung >= 10:
        d.arrow(125, y, 125, y + 18)
        d.box(60, y + 18, 130, 28, 'dropout', 10)
        y += 46
    d.text(135, y + 17, square, 'shape', 'start')
    d.arrow(125, y, 125, y + 26)
    d.path(f'M278 {value}V{y + 43}H222')
    d.box(30, y + 26, 190, 34, 'weights @ v', 3)
    y += 60
    if heads:
        d.text(135, y + 17, part, 'shape', 'start')
        d.arrow(125, y, 125, y + 26)
        d.box(30, y + 26, 190, 30, say['concat'], 4)
        y += 56
    d.text(135, y + 17, stream, 'shape', 'start')
    if rung >= 8:
        d.arrow(125, y, 125, y + 26)
        d.box(30, y + 26, 190, 32, 'proj: Linear', 8)
        y += 58
        if rung >= 10:
            d.arrow(125, y, 125, y + 18)
            d.box(60, y + 18, 130, 28, 'dropout', 10)
            y += 46
        d.text(135, y + 17, stream, 'shape', 'start')
    d.arrow(125, y, 125, y + 26)
    d.height = y + 32
    return d.svg()


def feed_forward(rung, say, link=None):
    d = Drawing(say['feed_forward'], None if link else rung, link)
    d.box(120, 4, 100, 28, 'x', css='data')
    d.text(228, 23, '(B, T, n_embd)', 'shape', 'start')
    d.arrow(170, 32, 170, 52)
    d.box(75, 52, 190, 32, 'Linear', 5)
    d.arrow(170, 84, 170, 108)
    d.text(180, 100, '(B, T, 4 × n_embd)', 'shape', 'start')
    d.box(75, 108, 190, 32, 'ReLU', 5)
    d.arrow(170, 140, 170, 164)
    d.box(75, 164, 190, 32, 'Linear', 5)
    y = 196
    if rung >= 10:
        d.arrow(170, y, 170, y + 20)
        d.box(105, y + 20, 130, 28, 'dropout', 10)
        y += 48
    d.arrow(170, y, 170, y + 26)
    d.text(180, y + 18, '(B, T, n_embd)', 'shape', 'start')
    d.height = y + 32
    return d.svg()


def loop(say, rung):
    """The loop of training as the script has it; on v12 with what is recorded and kept. Rung 0 is pytorch_5min.py."""
    d = Drawing(say['loop'], rung)
    steps = [('get_batch', '(B, T)'), ('model(x, y)', 'logits, loss')] if rung else [('model(x)', 'prediction'), ('F.mse_loss', 'loss')]
    steps += [('optimizer.zero_grad()', say['clear']), ('loss.backward()', say['gradient']), ('optimizer.step()', say['move'])]
    if rung == 12:
        steps.insert(0, ('estimate_loss', say['at times']))
        d.box(250, 6, 88, 44, 'run.log', 12, sub=say['log'])
        d.box(250, 62, 88, 44, 'model.pth', 12, sub=say['keep'])
        d.arrow(230, 28, 250, 28)
        d.path('M239 28V84H250')
    for number, (label, sub) in enumerate(steps):
        y = 6 + 66 * number
        d.box(56, y, 174, 44, label, css='part new' if rung == 1 and number else 'part', sub=sub)
        if number:
            d.arrow(143, y - 22, 143, y)
    d.path(f'M56 {y + 22}H22V28H54')
    middle = (y + 50) / 2
    d.text(16, middle, say['again'], 'sub turn')
    d.parts[-1] = d.parts[-1].replace('<text ', f'<text transform="rotate(-90 16 {middle:g})" ')
    d.height += 4
    return d.svg()


def cache_steps(say, cached, prompt, new):
    """What one position costs at each step: computed (dark), taken from the cache (pale), not there yet."""
    size, cell, left, top = prompt + len(new) - 1, 26, 62, 40
    d = Drawing(say['cache on'] if cached else say['cache off'], width=left + cell * size + 6)
    d.text(left + cell * size / 2, 14, say['positions'], 'axis')
    for position in range(size):
        d.text(left + cell * (position + 0.5), 32, position, 'axis')
    for step in range(len(new)):
        length = prompt + step
        y = top + cell * step
        d.text(left - 8, y + 18, f'{say["write"]}{new[step]}', 'axis', 'end')
        for position in range(size):
            if position >= length:
                css = 'cell empty'
            elif cached and step and position < length - 1:
                css = 'cell held'
            else:
                css = 'cell done'
            d.add(f'<rect x="{left + cell * position + 1.5:g}" y="{y + 1.5:g}" width="{cell - 3}" height="{cell - 3}" '
                  f'rx="4" class="{css}"/>')
    d.height = top + cell * len(new) + 4
    return d.svg()
