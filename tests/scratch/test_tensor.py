"""Every operation of Tensor: values and gradients are PyTorch's on shapes that Hypothesis draws, and those of differences."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.scratch.models import assert_same_values_and_gradients, exact, slope, training, weigh

RUNGS = training('v3')
EACH = pytest.mark.parametrize('rung', RUNGS)
few = settings(max_examples=15, deadline=None, derandomize=True, database=None)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def numbers(shape, seed, away=0.0):
    """Random numbers of both signs, none nearer to 0 than `away`."""
    x = np.array(np.random.RandomState(seed).randn(*shape))
    return x + np.copysign(away, x)


def check(rung, f, *arrays):
    assert_same_values_and_gradients(exact(rung), f, *arrays)
    if any(array.size for array in arrays):
        assert_the_gradient_is_the_slope(exact(rung), f, *arrays)


def assert_the_gradient_is_the_slope(module, f, *arrays):
    """The second witness: no derivative of anybody's, only differences."""
    tensors = [module.Tensor(array) for array in arrays]
    weigh(f(*tensors)).backward()
    directions = [np.array(np.random.RandomState(2 + i).randn(*array.shape)) for i, array in enumerate(arrays)]
    expected = slope(lambda *moved: weigh(f(*map(module.Tensor, moved))).item(), arrays, directions)
    found = sum((tensor.grad * direction).sum() for tensor, direction in zip(tensors, directions, strict=True))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


ELEMENTWISE = {
    'neg': lambda x: -x, 'exp': lambda x: x.exp(), 'tanh': lambda x: x.tanh(), 'relu': lambda x: x.relu(),
    'erf': lambda x: x.erf(), 'power 0': lambda x: x ** 0, 'power 1': lambda x: x ** 1, 'power 2': lambda x: x ** 2,
    'power 3': lambda x: x ** 3, 'power -1': lambda x: x ** -1, 'power -2': lambda x: x ** -2,
    'log': lambda x: (x ** 2).log(), 'power 0.5': lambda x: (x ** 2) ** 0.5, 'with itself': lambda x: x * x + x / x - x,
    'number + x': lambda x: 2 + x, 'number - x': lambda x: 2 - x, 'number * x': lambda x: 2 * x, 'number / x': lambda x: 2 / x,
    'x + number': lambda x: x + 2, 'x - number': lambda x: x - 2, 'x * number': lambda x: x * 2, 'x / number': lambda x: x / 2,
}
ONLY_SINCE = {'relu': 'v4', 'erf': 'v4'}
BINARY = {'+': lambda a, b: a + b, '-': lambda a, b: a - b, '*': lambda a, b: a * b, '/': lambda a, b: a / b}


@pytest.mark.parametrize('name', ELEMENTWISE)
@EACH
def test_elementwise_operations(rung, name):
    @few
    @given(SHAPES, st.integers(0, 99))
    def holds(shape, seed):
        check(rung, ELEMENTWISE[name], numbers(shape, seed, away=0.1))

    if rung.reached(ONLY_SINCE.get(name, 'v3')):
        holds()


@pytest.mark.parametrize('name', BINARY)
@EACH
def test_broadcasting(rung, name):
    @few
    @given(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, min_side=0, max_side=3), st.integers(0, 99))
    def holds(drawn, seed):
        a, b = drawn.input_shapes
        check(rung, BINARY[name], numbers(a, seed), numbers(b, seed + 100, away=0.2))

    holds()


@EACH
def test_matmul(rung):
    @few
    @given(hnp.mutually_broadcastable_shapes(signature='(m,k),(k,n)->(m,n)', max_dims=2, min_side=0, max_side=3),
           st.integers(0, 99))
    def holds(drawn, seed):
        a, b = drawn.input_shapes
        check(rung, lambda a, b: a @ b, numbers(a, seed), numbers(b, seed + 100))

    holds()


def dims(shape):
    """None, one dimension, or several, counted from either end."""
    one = st.integers(-len(shape), len(shape) - 1)
    several = st.sets(st.integers(0, len(shape) - 1), min_size=1).map(tuple)
    return st.one_of(st.none(), one, several) if shape else st.none()


@pytest.mark.parametrize('name', ['sum', 'mean'])
@EACH
def test_reductions(rung, name):
    @few
    @given(SHAPES.flatmap(lambda shape: st.tuples(st.just(shape), dims(shape))), st.booleans(), st.integers(0, 99))
    def holds(drawn, keepdim, seed):
        shape, dim = drawn
        x = numbers(shape, seed)
        if name == 'sum' or x.size:  # a mean of nothing is not a number
            check(rung, lambda x: getattr(x, name)(dim=dim, keepdim=keepdim), x)

    holds()


@EACH
def test_reshape_and_transpose(rung):
    @few
    @given(st.permutations([1, 2, 3, 0]) | st.permutations([1, 2, 3, 4]), st.data())
    def holds(shape, data):
        after = data.draw(st.permutations(shape))
        dim0, dim1 = data.draw(st.tuples(st.integers(-4, 3), st.integers(-4, 3)))
        check(rung, lambda x: x.reshape(*after).transpose(dim0, dim1), numbers(shape, 0))
        check(rung, lambda x: x.transpose(dim0, dim1).reshape(*after), numbers(shape, 0))

    holds()
    check(rung, lambda x: x.reshape(6).reshape(-1, 2).reshape(1, 6), numbers((2, 3), 0))
    check(rung, lambda x: x.reshape(1, 1).reshape(()), numbers((), 0))


@EACH
def test_indexing(rung):
    """Slices, numbers, new dimensions; arrays of numbers, in which one may come more than once; and masks."""
    @few
    @given(hnp.array_shapes(min_dims=1, max_dims=3, max_side=4).flatmap(
        lambda shape: st.tuples(st.just(shape), hnp.basic_indices(shape, allow_newaxis=True))))
    def basic(drawn):
        shape, index = drawn
        steps = index if isinstance(index, tuple) else (index,)
        if all(not isinstance(step, slice) or (step.step or 1) > 0 for step in steps):  # torch has no steps backwards
            check(rung, lambda x: x[index], numbers(shape, 0))

    @few
    @given(hnp.arrays(np.int64, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4), elements=st.integers(-3, 2)))
    def integers(index):
        check(rung, lambda x: x[index], numbers((3, 2), 0))
        check(rung, lambda x: x[:, index], numbers((2, 3), 0))
        check(rung, lambda x: x[index, index], numbers((3, 3), 0))

    basic()
    integers()
    mask = np.array([[True, False, True], [False, False, True]])
    check(rung, lambda x: x[torch.tensor(mask) if isinstance(x, torch.Tensor) else mask], numbers((2, 3), 0))


# Graphs

STEPS = {
    'add': lambda a, b: a + b, 'subtract': lambda a, b: a - b, 'multiply': lambda a, b: a * b.tanh(),
    'divide': lambda a, b: a / (b * b + 1), 'matmul': lambda a, b: a @ b.transpose(0, 1) * 0.3, 'number': lambda a, b: 1 - a / 2,
    'exp': lambda a, b: (a.tanh() + b.tanh()).exp(), 'log': lambda a, b: (a * a + 1).log() * b.tanh(), 'same': lambda a, b: a * a.tanh(),
    'sum': lambda a, b: a.sum() * 0.1 + b, 'mean': lambda a, b: a.mean(-1, keepdim=True) + b, 'power': lambda a, b: (a * a + 1) ** -0.5 * b,
    'transpose': lambda a, b: a.transpose(0, 1) + b, 'reshape': lambda a, b: a.reshape(9).reshape(3, 3) + b,
    'index': lambda a, b: a[[2, 0, 2]] - b[:, [1, 1, 2]],
}


@EACH
def test_random_graphs(rung):
    """Any operation on anything made before, over and over: every leaf gets PyTorch's gradient."""
    arrays = [numbers(shape, i) for i, shape in enumerate([(3, 3), (3,), (1, 3), (3, 1), ()])]

    @settings(few, max_examples=30)
    @given(st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=25))
    def holds(steps):
        def run(*leaves):
            made = [leaf + 0 * leaves[0] for leaf in leaves]  # all are (3, 3)
            for name, i, j in steps:
                made.append(STEPS[name](made[i % len(made)], made[-1 - j % min(len(made), 4)]))
            return sum(out.mean() for out in made)

        assert_same_values_and_gradients(exact(rung), run, *arrays, rtol=1e-7)

    holds()


@EACH
def test_chains_longer_than_the_stack_is_deep(rung):
    x = exact(rung).Tensor(1.0)
    out = x
    for _ in range(2000):
        out = out * 1.001
    out.backward()
    np.testing.assert_allclose(x.grad, 1.001 ** 2000, rtol=1e-9)


# What may not go wrong silently

@EACH
def test_a_tensor_used_several_times_gets_all_of_its_gradient(rung):
    check(rung, lambda x: x * x + x.tanh() * x[:1] + x, numbers((3,), 0))
    check(rung, lambda a, b: (a * b + b) * (a * b), numbers((2, 3), 0), numbers((3,), 1))


@EACH
def test_gradients_are_added_until_they_are_taken_away(rung):
    x = exact(rung).Tensor([1.0, 2.0])
    (x * x).sum().backward()
    (x * 3).sum().backward()
    np.testing.assert_allclose(x.grad, [2 + 3, 4 + 3])
    x.grad = None
    (x * 3).sum().backward()
    np.testing.assert_allclose(x.grad, [3, 3])


@EACH
def test_a_graph_is_used_twice(rung):
    """backward() twice from one loss, and two losses that share a part: PyTorch's gradient, or an error that says so."""
    module = exact(rung)
    for again in (lambda shared, loss: loss, lambda shared, loss: (shared * 5).sum()):
        x = module.Tensor([1.0, 2.0])
        shared = (x * x).tanh()
        loss = (shared * shared).sum()
        other = again(shared, loss)
        y = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
        shared = (y * y).tanh()
        expected = (shared * shared).sum()
        second = again(shared, expected)
        loss.backward()
        expected.backward(retain_graph=True)
        second.backward()
        try:
            other.backward()
        except RuntimeError as error:
            assert rung.reached('v7') and '图' in str(error)
        else:
            np.testing.assert_allclose(x.grad, y.grad)


@EACH
def test_backward_starts_from_one_number(rung):
    module = exact(rung)
    x = module.Tensor(numbers((2, 3), 0))
    for out in (x * 2, x[:0], x[0]):
        with pytest.raises(RuntimeError, match='形状'):
            out.backward()
    x.sum(dim=(0, 1), keepdim=True).backward()  # one number, whatever its shape
    np.testing.assert_array_equal(x.grad, np.ones((2, 3)))


@EACH
def test_saved_values_cannot_be_changed_in_place(rung):
    """Whatever is tried between forward and backward: an error at once, or the gradient of what was computed."""
    module = exact(rung)

    def outside(array, x, out):
        array *= 2

    def replaced(array, x, out):
        x.data = x.data * 2

    def in_place(array, x, out):
        x.data *= 2

    def an_entry(array, x, out):
        x.data[0] = 5.0

    def of_the_result(array, x, out):
        out.data += 1

    def operator(array, x, out):
        x += 1

    for change in (outside, replaced, in_place, an_entry, of_the_result, operator):
        for assigned in (False, True):
            array = np.array([1.0, 2.0])
            x = module.Tensor(array)
            if assigned:  # as an optimiser does
                x.data = x.data * 1.0
            out = (x * x).exp()
            try:
                change(array, x, out)
            except ValueError as error:
                assert 'read-only' in str(error) and change in (in_place, an_entry, of_the_result)
            out.sum().backward()
            np.testing.assert_allclose(x.grad, [2 * np.exp(1), 4 * np.exp(4)])


@EACH
def test_gradients_share_no_memory(rung):
    """What is done to one gradient, such as clipping, is not done to another."""
    a, b = (exact(rung).Tensor(numbers((2, 3), i)) for i in range(2))
    (a + b + a.reshape(3, 2).reshape(2, 3)).sum().backward()
    a.grad *= 7
    np.testing.assert_array_equal(b.grad, np.ones((2, 3)))
    np.testing.assert_array_equal(a.grad, np.full((2, 3), 14))


@EACH
def test_arrays_may_stand_on_either_side(rung):
    array = numbers((2, 3), 0)
    for f in (lambda a, x: a + x, lambda a, x: a * x, lambda a, x: a - x, lambda a, x: a / x):
        for out in (f(array, exact(rung).Tensor(array)), f(exact(rung).Tensor(array), array)):
            assert isinstance(out, exact(rung).Tensor)
            np.testing.assert_allclose(out.data, f(array, array))


@EACH
def test_vectors_are_no_matrices(rung):
    x = exact(rung).Tensor([1.0, 2.0])
    for f in (lambda: x @ x, lambda: x.reshape(1, 2) @ x, lambda: x @ x.reshape(2, 1)):
        with pytest.raises(ValueError, match='两维'):
            f()


@EACH
def test_no_grad_keeps_no_graph(rung):
    module = exact(rung)
    x = module.Tensor([1.0, 2.0])
    with module.no_grad():
        inside = x * x
        with module.no_grad():
            x.exp()
        still = x * x
    outside = x * x
    assert not inside.parents and not still.parents and outside.parents
    with pytest.raises(RuntimeError), module.no_grad():
        x.backward()
    assert (x * x).parents
    assert not module.no_grad()(lambda: x * x)().parents
    (x * inside).sum().backward()  # what was made there is a number like any other
    np.testing.assert_allclose(x.grad, [1, 4])
