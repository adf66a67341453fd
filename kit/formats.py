"""Numbers as pages print them: alone, in powers of ten, and as a table of a matrix."""

import numpy as np
from markupsafe import Markup, escape


def number(value, digits=2):
    """The number with a real minus sign, and no negative zero."""
    text = f'{float(value):,.{digits}f}'
    return text.replace('-', '' if not float(text.replace(',', '')) else '−')


def power(value):
    """A very small or large number in powers of ten."""
    mantissa, exponent = f'{float(value):.1e}'.split('e')
    return Markup(f'{mantissa} × 10<sup>{number(int(exponent), 0)}</sup>')


def table(rows, left=None, top=None, digits=2, heat=False, hidden=False, strike=None, why=None):
    """A matrix as a table, labelled with characters.

    `digits` may differ from row to row, `heat` shades by size, `hidden` blanks the upper right, `strike` says which numbers to cross out,
    `why` how each number was made (kit/origins.py): a page shows it for the number that one points at.
    """
    html = ''
    if top is not None:
        corner = '<td></td>' if left is not None else ''
        html += '<thead><tr>' + corner + ''.join(f'<th scope="col">{escape(label)}</th>' for label in top) + '</tr></thead>'
    html += '<tbody>'
    for i, row in enumerate(np.atleast_2d(rows).tolist()):
        html += '<tr>' + (f'<th scope="row">{escape(left[i])}</th>' if left is not None else '')
        for j, value in enumerate(row):
            css = ''
            if value == float('-inf') or (hidden and j > i):
                css, text = 'off', '−∞' if value == float('-inf') else '0'
            else:
                text = number(value, digits if isinstance(digits, int) else digits[i])
                if heat:
                    css = f'h{min(9, round(10 * abs(value)))}'
                if strike is not None and strike[i][j]:
                    css = 'cut'
            made = why is not None and why[i] is not None and why[i][j]
            html += '<td' + (f' class="{css}"' if css else '') + (f' title="{made} ≈ {text}"' if made else '') + f'>{text}</td>'
        html += '</tr>'
    return Markup(f'<div class="scroll"><table class="matrix">{html}</tbody></table></div>')


def times(values):
    """What stands before a row of a matrix whose numbers are multiplied with a number."""
    return [f'{number(value)} ×' for value in values]


def crop(rows, size):
    """The upper left corner of a square matrix."""
    return [row[:size] for row in rows[:size]]
