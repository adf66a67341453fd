"""How the numbers of a table were made, as arithmetic with the numbers that the reader sees beside it."""

import numpy as np

from kit.formats import number


def factor(value):
    """A number inside of a product or sum: a negative one is in parentheses."""
    return f'({number(value)})' if number(value).startswith('−') else number(value)


def power(value):
    return f'e^{factor(value)}'


def each(rows, cell):
    """A table of texts: cell(i, j) for each number."""
    return [[cell(i, j) for j in range(len(row))] for i, row in enumerate(np.atleast_2d(rows).tolist())]


def sums(a, b):
    return each(a, lambda i, j: f'{number(a[i][j])} + {factor(b[i][j])}')


def products(a, b):
    return ' + '.join(f'{factor(x)} × {factor(y)}' for x, y in zip(a, b, strict=True))


def scores(q, k):
    """Of causal attention: nothing is said of what is hidden."""
    return [[f'({products(row, key)}) ÷ √{len(row)}' if j <= i else None for j, key in enumerate(k)]
            for i, row in enumerate(q)]


def softmax(rows):
    """Of scores that are −∞ where they are hidden."""
    def cell(i, j):
        seen = [power(x) for x in rows[i] if x > float('-inf')]
        return f'{power(rows[i][j])} ÷ ({" + ".join(seen)})' if rows[i][j] > float('-inf') else None
    return each(rows, cell)


def weighted(weights, rows):
    """Of one row of weights: what each number of the weighted sum is made of."""
    return [[products(weights, column) for column in np.transpose(rows)]]


def normed(x):
    """Of one row: minus the mean, divided by the standard deviation."""
    return [f'({number(value)} − {factor(np.mean(x))}) ÷ √{number(np.var(x))}' for value in x]
