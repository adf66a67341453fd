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


def linear(rows, matrix, bias=None):
    """Of rows multiplied with a matrix: each has a number for each column, and a bias may be added."""
    added = [''] * len(matrix[0]) if bias is None else [f' + {factor(value)}' for value in bias]
    return [[products(row, column) + more for column, more in zip(np.transpose(matrix), added, strict=True)]
            for row in np.atleast_2d(rows)]


def shares(values, total):
    """Of the first of softmax's two steps taken as done: e to each score, by the sum of them all."""
    return [f'{power(value)} ÷ {number(total)}' for value in values]


def surprises(probabilities):
    return [f'−ln {number(p, 4)}' for p in probabilities]


def divided(rows, by):
    """Nothing is said of what is 0."""
    return each(rows, lambda i, j: rows[i][j] and f'{number(rows[i][j])} ÷ {by}')


def normed(x):
    """Of one row: minus the mean, divided by the standard deviation."""
    return [f'({number(value)} − {factor(np.mean(x))}) ÷ √{number(np.var(x))}' for value in x]
