"""Drawings as SVG in the page's colours: boxes and arrows, loss curves, bars. They know no model and no number.

Widths are those of a phone, so that text stays readable there; on a wide screen the drawings stand side by side.
"""

from markupsafe import Markup, escape

WIDTH = 340


class Drawing:
    """Collects SVG elements. What came with rung number `rung` is drawn as new.

    `link(rung)` is the address of a rung's page, or None to draw no links.
    """

    def __init__(self, title, rung=None, link=None, width=WIDTH):
        self.title, self.rung, self.link, self.width = title, rung, link, width
        self.parts, self.height = [], 0

    def add(self, text):
        self.parts.append(text)

    def text(self, x, y, text, css='', anchor='middle'):
        self.add(f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" class="{css}">{escape(text)}</text>')
        self.height = max(self.height, y + 8)

    def path(self, d, css='wire', arrow=True):
        head = ' marker-end="url(#arrow)"' if arrow else ''
        self.add(f'<path d="{d}" class="{css}"{head}/>')

    def arrow(self, x1, y1, x2, y2, css='wire'):
        self.path(f'M{x1:g} {y1:g}L{x2:g} {y2:g}', css)

    def box(self, x, y, w, h, label, since=0, css='', sub=''):
        """A part of the model. New where it came with this rung; a link to the rung that brought it on the overview."""
        css = f'{css or "part"}{" new" if since and since == self.rung else ""}'
        linked = self.link and since
        if linked:
            self.add(f'<a href="{self.link(since)}">')
        self.add(f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="7" class="{css}"/>')
        middle = x + w / 2
        self.text(middle, y + h / 2 + (5 if not sub else -2), label, css)
        if sub:
            self.text(middle, y + h / 2 + 14, sub, 'sub')
        if linked:
            self.tag(x, y, since)
            self.add('</a>')
        self.height = max(self.height, y + h + 4)

    def tag(self, left, y, since):
        width = 30 if since > 9 else 24
        self.add(f'<rect x="{left - 7:g}" y="{y - 8:g}" width="{width}" height="17" rx="8.5" class="tag"/>')
        self.text(left - 7 + width / 2, y + 4.5, f'v{since}', 'tag')

    def plus(self, x, y, since, tagged=True):
        """Where two streams are added."""
        css = 'plus new' if since == self.rung else 'plus'
        linked = self.link and since
        if linked:
            self.add(f'<a href="{self.link(since)}">')
        self.add(f'<circle cx="{x:g}" cy="{y:g}" r="11" class="{css}"/>')
        self.text(x, y + 5.5, '+', css)
        if linked:
            if tagged:
                self.tag(x + 22, y, since)
            self.add('</a>')
        self.height = max(self.height, y + 15)

    def svg(self, css='flow'):
        role = 'group' if self.link else 'img'
        return Markup(f'<svg viewBox="0 0 {self.width:g} {self.height:g}" class="{css}" role="{role}" '
                      f'aria-label="{escape(self.title)}" style="max-width:{self.width * 1.25:g}px">'
                      f'<title>{escape(self.title)}</title>{"".join(self.parts)}</svg>')


def curves(lines, title, axis):
    """Loss over steps. `lines` is [(name, [(step, loss)], css)]; the last is the page's own."""
    width, height, left, top, bottom = 480, 300, 46, 14, 46
    right = 25 + max(sum(9 if letter.isascii() else 14 for letter in name) for name, *_ in lines)  # for the names at the ends of the lines
    steps = [step for _, points, _ in lines for step, _ in points]
    values = [loss for _, points, _ in lines for _, loss in points]
    low, high, last = min(values), max(values), max(steps)
    pad = 0.06 * (high - low)
    low, high = low - pad, high + pad
    d = Drawing(title, width=width)
    d.height = height

    def px(step):
        return left + (width - left - right) * step / last

    def py(loss):
        return top + (height - top - bottom) * (high - loss) / (high - low)

    gap = next(gap for gap in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if (high - low) / gap < 7)
    digits = 3 if gap < 0.01 else 2 if gap < 0.1 else 1 if gap < 5 else 0
    tick = -(-low // gap) * gap + 0  # no negative zero
    while tick < high:
        d.add(f'<path d="M{left} {py(tick):.1f}H{width - right}" class="grid"/>')
        d.text(left - 8, py(tick) + 5, f'{tick:.{digits}f}', 'axis', 'end')
        tick += gap
    gap = next(gap for gap in (1, 2, 5, 10, 20, 50, 500, 1000, 2000, 3000, 5000) if last / gap <= 6)
    for step in range(0, last + 1, gap):
        d.text(px(step), height - 24, f'{step:,}', 'axis')
    d.text(left + (width - left - right) / 2, height - 6, axis, 'axis')
    ends = sorted((py(points[-1][1]), px(points[-1][0]), name, css) for name, points, css in lines)
    for (name, points, css) in lines:
        line = 'L'.join(f'{px(step):.1f} {py(loss):.1f}' for step, loss in points)
        d.path(f'M{line}', f'curve {css}', arrow=False)
        for step, loss in points if 'level' not in css else ():
            d.add(f'<circle cx="{px(step):.1f}" cy="{py(loss):.1f}" r="3.2" class="dot {css}">'
                  f'<title>{escape(name)} {step:,}: {loss:.3f}</title></circle>')
    y = -100
    for number, (end, x, name, css) in enumerate(ends):
        y = max(min(end, height - bottom - 17 * (len(ends) - number)), y + 17)
        d.text(x + 10, y + 5, name, f'label {css}', 'start')
    d.height = height
    return d.svg('chart')


def bars(rows, title):
    """[(name, value, text, css)] as horizontal bars."""
    d = Drawing(title, width=340)
    most = max(value for _, value, *_ in rows)
    for number, (name, value, text, css) in enumerate(rows):
        y = 4 + 44 * number
        d.text(2, y + 12, name, 'axis', 'start')
        d.add(f'<rect x="2" y="{y + 18}" width="{max(2, 250 * value / most):.1f}" height="14" rx="3" class="bar {css}"/>')
        d.text(8 + max(2, 250 * value / most), y + 30, text, 'label', 'start')
    d.height += 2
    return d.svg()
