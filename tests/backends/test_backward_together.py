"""What a backward pass does in one pass over memory, held to its parts in float64."""

from __future__ import annotations

import brute_force
import numpy as np
import pytest
from brute_force import assert_close, cases, placed, sum_dtype
from hypothesis import given
from hypothesis import strategies as st

from xpdl.backends import get_backend

PLAIN = get_backend("generic")
DTYPES = ["float16", "float32", "float64"]
LAYOUTS = st.sampled_from(brute_force.LAYOUTS)


def place(backend, shape, dtype, channels_last=False):
    """Return room for a gradient, within a larger buffer, filled with what must not stay."""
    buffer = backend.asarray(np.full(64 + int(np.prod(shape)), 7, dtype))[32:-32]
    if channels_last:
        n, c, h, w = shape
        return buffer.reshape(n, h, w, c).transpose(0, 3, 1, 2)
    return buffer.reshape(shape)


@given(case=cases(), layout=LAYOUTS)
def test_the_gradient_of_relu_and_its_sum(backend, case, layout):
    dout, y = case.numbers(*case.shape), case.numbers(*case.shape, salt=1)
    y = np.maximum(y, 0)
    total = place(backend, (case.c,), sum_dtype(case.dtype))
    there = placed(backend, dout, layout), placed(backend, y, case.layout)
    dx = backend.relu_backward(*there, total)
    expected = dout.astype(np.float64) * (y > 0)
    np.testing.assert_array_equal(backend.to_numpy(dx), expected.astype(case.dtype))
    assert_close(backend, total, expected.sum(axis=(0, 2, 3)), sum_dtype(case.dtype))


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (300, 12), (40, 1100), (2, 2100)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_of_relu_and_its_sum_in_rows(backend, rng, dtype, shape):
    dout, y = rng.standard_normal((2, *shape)).astype(dtype)
    total = place(backend, shape[1:], sum_dtype(dtype))
    dx = backend.relu_backward(backend.asarray(dout), backend.asarray(y), total)
    expected = dout.astype(np.float64) * (y > 0)
    np.testing.assert_array_equal(backend.to_numpy(dx), expected.astype(dtype))
    assert_close(backend, total, expected.sum(axis=0), sum_dtype(dtype))


def pooled(backend, case, layout):
    """Pool a ReLU's output there; return the gradient by what the ReLU got, two ways."""
    x = np.maximum(case.numbers(*case.shape, whole=True), 0)
    dout = case.numbers(case.n, case.c, *case.out, salt=1)
    y, winners = backend.max_pooling(placed(backend, x, case.layout), *case.windows, train=True)
    total = place(backend, (case.c,), sum_dtype(case.dtype))
    given = placed(backend, dout, layout), winners, case.shape, *case.windows
    found = backend.max_pooling_backward(*given, y, total), total
    _, dx = brute_force.max_pooling(case, x, dout)
    expected = np.where(x > 0, dx, 0)
    return found, (expected, expected.sum(axis=(0, 2, 3)))


@given(case=cases(), layout=LAYOUTS)
def test_the_gradients_of_pooling_and_relu_and_the_sum(backend, case, layout):
    (dx, total), (expected, summed) = pooled(backend, case, layout)
    assert_close(backend, dx, expected, case.dtype)
    # Half precision may round what overlapping windows add up before it is summed.
    assert_close(backend, total, summed, sum_dtype(case.dtype), like=case.dtype)


@pytest.mark.parametrize("channels", [2, 4, 8, 24])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradients_of_pooling_and_relu_of_many_channels(backend, dtype, channels):
    case = brute_force.Case(
        *(5, channels, 7, 6, (2, 2), (2, 2), (0, 0), 1, "channels_last", dtype, 3)
    )
    for layout in ("channels_last", "c"):
        (dx, total), (expected, summed) = pooled(backend, case, layout)
        assert_close(backend, dx, expected, dtype)
        assert_close(backend, total, summed, sum_dtype(dtype))


@given(case=cases(), layout=LAYOUTS, channels_last=st.booleans(), relu=st.booleans())
def test_the_gradients_of_a_convolution_go_where_they_belong(
    backend, case, layout, channels_last, relu
):
    x, W, y, dout = (
        case.numbers(*shape, salt=salt)
        for salt, shape in enumerate(
            [
                case.shape,
                (case.filters, case.c, *case.size),
                *[(case.n, case.filters, *case.out)] * 2,
            ]
        )
    )
    wide = sum_dtype(case.dtype)
    dW, db = place(backend, W.shape, wide, channels_last), place(backend, (case.filters,), wide)
    there = placed(backend, dout, layout), placed(backend, x, case.layout), backend.asarray(W)
    y_there = placed(backend, y, case.layout) if relu else None
    given = *there, case.stride, case.pad
    dx, *found = backend.convolution_backward(*given, y=y_there, dW=dW, db=db)
    assert found[0] is dW
    assert found[1] is db
    gradient = np.where(y > 0, dout, 0) if relu else dout
    expected = brute_force.convolution_backward(case, gradient, x, W)
    for actual, wanted, dtype in zip((dx, dW, db), expected, (case.dtype, wide, wide), strict=True):
        assert_close(backend, actual, wanted, dtype)
    db[...] = 7
    _, again, none = backend.convolution_backward(*given, need_db=False, y=y_there)
    assert none is None
    assert_close(backend, again, expected[1], wide)
    np.testing.assert_array_equal(backend.to_numpy(db), 7)
    np.testing.assert_array_equal(backend.to_numpy(there[0]), dout)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("target", DTYPES)
def test_products_and_sums_go_where_they_belong(backend, rng, target, dtype):
    a, b = rng.standard_normal((30, 12)).astype(dtype), rng.standard_normal((12, 16)).astype(dtype)
    there = backend.asarray(a), backend.asarray(b)
    product, total = place(backend, (30, 16), target), place(backend, (12,), target)
    turned = place(backend, (16, 30), target).T  # not in C order
    assert backend.matmul(*there, out=product) is product
    assert backend.matmul(*there, out=turned) is turned
    assert backend.sum(there[0], axis=0, out=total) is total
    coarser = dtype if np.finfo(dtype).eps > np.finfo(target).eps else target
    exact = a.astype(np.float64) @ b.astype(np.float64)
    assert_close(backend, product, exact, target, like=coarser)
    assert_close(backend, turned, exact, target, like=coarser)
    assert_close(backend, total, a.astype(np.float64).sum(axis=0), target, like=coarser)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [1, 3, 40])
@pytest.mark.parametrize("samples", [1, 300])
def test_hits_are_counted(backend, rng, samples, classes, dtype):
    scores = rng.integers(-2, 3, (samples, classes)).astype(dtype)  # many are equal
    scores[rng.random(scores.shape) < 0.05] = np.nan
    t = rng.integers(0, classes, samples)
    one_hot = rng.dirichlet(np.ones(classes), samples).astype(sum_dtype(dtype))
    right = scores.argmax(axis=1)
    for targets, classes_meant in ((t, t), (t.astype(np.uint8), t), (one_hot, one_hot.argmax(1))):
        hits = backend.count_hits(backend.asarray(scores), backend.asarray(targets))
        assert hits.dtype == np.float64
        expected = [(right == classes_meant).sum(), samples]
        np.testing.assert_array_equal(backend.to_numpy(hits), expected)
