"""Every primitive against loops in float64, on every backend, over shapes, layouts and dtypes."""

from __future__ import annotations

import math

import brute_force
import numpy as np
import pytest
from brute_force import assert_close, cases, placed, sum_dtype
from hypothesis import given
from hypothesis import strategies as st

from xpdl.backends import Backend, accumulation_dtype, output_size

DTYPES = ["float16", "float32", "float64"]


# ---- arrays ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*DTYPES, "int64", "int32", "uint8", "bool"])
def test_arrays_go_there_and_come_back(backend, dtype):
    host = np.array([[0, 1, 1], [1, 0, 1]], dtype)
    there = backend.asarray(host)
    back = backend.to_numpy(there)
    assert backend.owns(there)
    assert type(back) is np.ndarray
    assert there.dtype == back.dtype == dtype
    np.testing.assert_array_equal(back, host)


def test_what_comes_back_is_a_copy(backend):
    there = backend.asarray(np.zeros(3, np.float32))
    backend.to_numpy(there)[:] = 7
    np.testing.assert_array_equal(backend.to_numpy(there), np.zeros(3))


def test_lists_numbers_and_a_dtype_are_taken(backend):
    there = backend.asarray([[1, 2], [3, 4]], np.float16)
    assert there.dtype == np.float16
    np.testing.assert_array_equal(backend.to_numpy(there), [[1, 2], [3, 4]])
    assert backend.asarray(2.5, np.float32).shape == ()
    assert backend.asarray(there, np.float32).dtype == np.float32


def test_one_number_is_read(backend):
    assert backend.item(backend.asarray([[2.5]], np.float32)) == 2.5
    number = backend.item(backend.asarray(3, np.int32))
    assert type(number) is int
    assert number == 3


def test_more_than_one_number_is_no_item(backend):
    with pytest.raises(ValueError, match="size 1"):
        backend.item(backend.asarray([1.0, 2.0], np.float32))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ([[1, 2], [3]], "rectangular"),
        (["a", "b"], "numbers"),
        (np.array([None]), "object"),
        (np.array([1j]), "complex128"),
        (np.array(["2020"], "datetime64[Y]"), "datetime64"),
    ],
)
def test_what_holds_no_numbers_is_refused(backend, bad, said):
    with pytest.raises(ValueError, match=said):
        backend.asarray(bad)


def test_the_device_can_be_waited_for_and_described(backend):
    backend.synchronize()
    text = backend.describe()
    assert text
    assert all(isinstance(part, str) for pair in text.items() for part in pair)


# ---- windows --------------------------------------------------------------------------------


@given(case=cases())
def test_output_size_counts_the_windows(case):
    sizes = [
        output_size(length, size, stride, pad)
        for length, size, stride, pad in zip(case.shape[2:], *case.windows, strict=True)
    ]
    assert tuple(sizes) == case.out


@given(case=cases(), value=st.sampled_from([0.0, 1.5, -math.inf]))
def test_pad(backend, case, value):
    x = case.numbers(*case.shape)
    ph, pw = case.pad
    expected = np.full((case.n, case.c, case.h + 2 * ph, case.w + 2 * pw), value)
    expected[:, :, ph : ph + case.h, pw : pw + case.w] = x
    assert_close(
        backend, backend.pad(placed(backend, x, case.layout), case.pad, value), expected, x.dtype
    )


def test_no_padding_costs_no_copy(backend, rng):
    x = backend.asarray(rng.random((2, 3, 4, 5), np.float32))
    assert backend.pad(x, (0, 0)) is x


@given(case=cases())
def test_windows_and_im2col(backend, case):
    x = case.numbers(*case.shape)
    there = placed(backend, x, case.layout)
    expected = brute_force.im2col(case, x)
    windows = backend.windows(there, *case.windows)
    assert windows.shape == (case.n, case.c, *case.out, *case.size)
    assert_close(
        backend,
        windows,
        expected.reshape(case.n, *case.out, case.c, *case.size).transpose(0, 3, 1, 2, 4, 5),
        x.dtype,
    )
    assert_close(backend, backend.im2col(there, *case.windows), expected, x.dtype)
    np.testing.assert_array_equal(backend.to_numpy(there), x)


def test_the_books_shapes_of_im2col(backend, rng):
    # Book, section 7.4.3.
    for batch, rows in ((1, 9), (10, 90)):
        x = backend.asarray(rng.random((batch, 3, 7, 7), np.float32))
        col = backend.im2col(x, (5, 5), (1, 1), (0, 0))
        assert col.shape == (rows, 75)
        assert col.dtype == np.float32


@given(case=cases(dtypes=["float64"]))
def test_col2im_is_the_adjoint_of_im2col(backend, case):
    x = case.numbers(*case.shape)
    col = case.numbers(case.n * math.prod(case.out), case.c * math.prod(case.size), salt=1)
    there = backend.asarray(col)
    image = backend.to_numpy(backend.col2im(there, case.shape, *case.windows))
    assert image.shape == case.shape
    np.testing.assert_allclose(
        np.vdot(image, x), np.vdot(col, brute_force.im2col(case, x)), rtol=1e-10, atol=1e-10
    )
    np.testing.assert_array_equal(backend.to_numpy(there), col)


@given(case=cases())
def test_col2im_of_ones_counts_the_windows_over_each_pixel(backend, case):
    counts = np.zeros(case.shape)
    for _, inside in brute_force.pixels(case):
        for _, _, row, column in inside:
            counts[:, :, row, column] += 1
    ones = np.ones((case.n * math.prod(case.out), case.c * math.prod(case.size)), case.dtype)
    image = backend.col2im(backend.asarray(ones), case.shape, *case.windows)
    assert image.dtype == case.dtype
    np.testing.assert_array_equal(backend.to_numpy(image), counts)


# ---- convolution ----------------------------------------------------------------------------


def _convolution(case):
    x = case.numbers(*case.shape)
    W = case.numbers(case.filters, case.c, *case.size, salt=1)
    b = case.numbers(case.filters, salt=2)
    dout = case.numbers(case.n, case.filters, *case.out, salt=3)
    return x, W, b, dout


@given(case=cases(), with_bias=st.booleans())
def test_convolution(backend, case, with_bias):
    x, W, b, _ = _convolution(case)
    if not with_bias:
        b = None
    there = [placed(backend, x, case.layout), backend.asarray(W)]
    bias = None if b is None else backend.asarray(b)
    y = backend.convolution(*there, bias, case.stride, case.pad)
    assert_close(backend, y, brute_force.convolution(case, x, W, b), case.dtype)
    for host, array in zip((x, W), there, strict=True):
        np.testing.assert_array_equal(backend.to_numpy(array), host)
    if b is not None:
        np.testing.assert_array_equal(backend.to_numpy(bias), b)


@given(case=cases(), window=st.tuples(st.integers(1, 3), st.integers(1, 3)))
def test_convolution_with_its_pooling(backend, case, window):
    x, W, b, _ = _convolution(case)
    size = tuple(min(pair) for pair in zip(window, case.out, strict=True))
    there = placed(backend, x, case.layout), backend.asarray(W), backend.asarray(b)
    y, winners = backend.convolution_pooling(*there, (case.stride, case.pad), (size, window))
    assert winners is None
    outputs = np.maximum(brute_force.convolution(case, x, W, b), 0)
    expected, _ = Backend().max_pooling(outputs, size, window, (0, 0))
    assert_close(backend, y, expected, case.dtype)


@given(case=cases(), with_bias=st.booleans(), relu=st.booleans())
def test_convolution_normalized(backend, case, with_bias, relu):
    x, W, b, _ = _convolution(case)
    wide = brute_force.sum_dtype(case.dtype)
    rng = np.random.default_rng(case.seed)
    mean, factor, shift = rng.standard_normal((3, case.filters)).astype(wide)
    there = placed(backend, x, case.layout), backend.asarray(W)
    bias = backend.asarray(b) if with_bias else None
    how = case.stride, case.pad, (1, 1), 1
    norm = tuple(map(backend.asarray, (mean, factor, shift)))
    y = backend.convolution_normalized(*there, bias, how, norm, relu)
    outputs = brute_force.convolution(case, x, W, b if with_bias else 0 * b)
    mean, factor, shift = (a.astype(np.float64)[:, None, None] for a in (mean, factor, shift))
    expected = factor * (outputs - mean) + shift
    assert_close(backend, y, np.maximum(expected, 0) if relu else expected, case.dtype)


@given(case=cases(), need_dx=st.booleans(), layout=st.sampled_from(brute_force.LAYOUTS))
def test_convolution_backward(backend, case, need_dx, layout):
    x, W, _, dout = _convolution(case)
    host = dout, x, W
    there = [
        placed(backend, dout, layout),
        placed(backend, x, case.layout),
        backend.asarray(W),
    ]
    dx, dW, db = backend.convolution_backward(*there, case.stride, case.pad, need_dx)
    expected = brute_force.convolution_backward(case, *host)
    assert (dx is not None) == need_dx
    if need_dx:
        assert_close(backend, dx, expected[0], case.dtype)
    assert_close(backend, dW, expected[1], sum_dtype(case.dtype))
    assert_close(backend, db, expected[2], sum_dtype(case.dtype))
    for before, array in zip(host, there, strict=True):
        np.testing.assert_array_equal(backend.to_numpy(array), before)


@given(case=cases())
def test_filters_may_lie_in_memory_as_they_like(backend, case):
    x, W, b, dout = _convolution(case)
    there = placed(backend, W, case.layout)
    y = backend.convolution(backend.asarray(x), there, backend.asarray(b), case.stride, case.pad)
    assert_close(backend, y, brute_force.convolution(case, x, W, b), case.dtype)
    dx, dW, _ = backend.convolution_backward(
        backend.asarray(dout), backend.asarray(x), there, case.stride, case.pad
    )
    expected = brute_force.convolution_backward(case, dout, x, W)
    assert_close(backend, dx, expected[0], case.dtype)
    assert_close(backend, dW, expected[1], sum_dtype(case.dtype))


def test_an_empty_batch_has_an_empty_answer(backend):
    x = backend.asarray(np.zeros((0, 3, 5, 5), np.float32))
    W = backend.asarray(np.ones((2, 3, 3, 3), np.float32))
    y = backend.convolution(x, W, backend.asarray(np.ones(2, np.float32)), (1, 1), (1, 1))
    assert y.shape == (0, 2, 5, 5)
    dx, dW, db = backend.convolution_backward(y, x, W, (1, 1), (1, 1))
    assert dx.shape == x.shape
    np.testing.assert_array_equal(backend.to_numpy(dW), np.zeros(W.shape))
    np.testing.assert_array_equal(backend.to_numpy(db), np.zeros(2))


# ---- pooling --------------------------------------------------------------------------------


@given(case=cases(), whole=st.booleans(), layout=st.sampled_from(brute_force.LAYOUTS))
def test_max_pooling(backend, case, whole, layout):
    x = case.numbers(*case.shape, whole=whole)
    dout = case.numbers(case.n, case.c, *case.out, salt=1)
    y_expected, dx_expected = brute_force.max_pooling(case, x, dout)
    there, dout_there = placed(backend, x, case.layout), placed(backend, dout, layout)
    y, winners = backend.max_pooling(there, *case.windows, train=True)
    dx = backend.max_pooling_backward(dout_there, winners, case.shape, *case.windows)
    assert y.dtype == case.dtype
    np.testing.assert_array_equal(backend.to_numpy(y), y_expected)
    assert_close(backend, dx, dx_expected, case.dtype)
    np.testing.assert_array_equal(backend.to_numpy(there), x)
    np.testing.assert_array_equal(backend.to_numpy(dout_there), dout)
    y_alone, nobody = backend.max_pooling(there, *case.windows)
    assert nobody is None
    np.testing.assert_array_equal(backend.to_numpy(y_alone), y_expected)


@pytest.mark.parametrize("size", [(2, 2), (3, 2), (1, 1)])
@pytest.mark.parametrize("edge", [0, 1])
def test_tiles_of_max_pooling(backend, rng, size, edge):
    # Windows side by side are what networks use, and what random geometries seldom are.
    shape = (3, 2, 3 * size[0] + edge, 2 * size[1] + edge)
    case = brute_force.Case(*shape, size, size, (0, 0), 1, "c", "float32", 5)
    for x in (case.numbers(*shape), case.numbers(*shape, whole=True)):
        dout = case.numbers(3, 2, *case.out, salt=1)
        y_expected, dx_expected = brute_force.max_pooling(case, x, dout)
        y, winners = backend.max_pooling(backend.asarray(x), *case.windows, train=True)
        dx = backend.max_pooling_backward(backend.asarray(dout), winners, shape, *case.windows)
        np.testing.assert_array_equal(backend.to_numpy(y), y_expected)
        np.testing.assert_array_equal(backend.to_numpy(dx), dx_expected)


@pytest.mark.parametrize("stride", [(2, 2), (1, 1)])
def test_nan_wins_over_all(backend, stride):
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    x[0, 0, 0, 1] = np.nan
    y, _ = backend.max_pooling(backend.asarray(x), (2, 2), stride, (0, 0))
    nan = np.isnan(backend.to_numpy(y))[0, 0]
    columns = [0] if stride == (2, 2) else [0, 1]
    assert nan[0, columns].all()
    assert nan.sum() == len(columns)


@given(case=cases(), layout=st.sampled_from(brute_force.LAYOUTS))
def test_average_pooling(backend, case, layout):
    x = case.numbers(*case.shape)
    dout = case.numbers(case.n, case.c, *case.out, salt=1)
    y_expected, dx_expected = brute_force.average_pooling(case, x, dout)
    there, dout_there = placed(backend, x, case.layout), placed(backend, dout, layout)
    y = backend.average_pooling(there, *case.windows)
    dx = backend.average_pooling_backward(dout_there, case.shape, *case.windows)
    assert_close(backend, y, y_expected, case.dtype)
    assert_close(backend, dx, dx_expected, case.dtype)
    np.testing.assert_array_equal(backend.to_numpy(there), x)
    np.testing.assert_array_equal(backend.to_numpy(dout_there), dout)


# ---- sums and products ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [None, 0, 1, (0, 2), (0, 1, 2)])
def test_sum(backend, rng, dtype, axis):
    x = rng.standard_normal((3, 4, 5)).astype(dtype)
    total = backend.sum(backend.asarray(x), axis=axis)
    assert_close(backend, total, np.asarray(x.astype(np.float64).sum(axis=axis)), dtype)


def test_half_precision_is_summed_in_single(backend):
    ones = backend.asarray(np.ones((4096, 2), np.float16))
    np.testing.assert_array_equal(backend.to_numpy(backend.sum(ones, axis=0)), [4096, 4096])
    product = backend.matmul(ones.T, ones)
    assert product.dtype == np.float16
    np.testing.assert_array_equal(backend.to_numpy(product), np.full((2, 2), 4096))
    # 50 * 50 * 100 is beyond the largest half-precision number.
    x = backend.asarray(np.full((1, 1, 50, 50), 100, np.float16))
    y = backend.average_pooling(x, (50, 50), (1, 1), (0, 0))
    assert y.dtype == np.float16
    assert backend.item(y) == 100


@pytest.mark.parametrize(
    ("dtype", "wanted"),
    [("float16", "float32"), ("float32", "float32"), ("float64", "float64")],
)
def test_accumulation_dtype(dtype, wanted):
    assert accumulation_dtype(dtype) == wanted


@pytest.mark.parametrize("dtype", DTYPES)
def test_matmul(backend, rng, dtype):
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in ((4, 7), (3, 7)))
    product = backend.matmul(backend.asarray(a), backend.asarray(b).T)
    expected = [[sum(float(p) * float(q) for p, q in zip(r, s, strict=True)) for s in b] for r in a]
    assert_close(backend, product, np.array(expected), dtype)


# ---- element by element ---------------------------------------------------------------------


@given(case=cases())
def test_relu(backend, case):
    x = case.numbers(*case.shape)
    dout = case.numbers(*case.shape, salt=1)
    x.flat[0] = 0
    there, dout_there = placed(backend, x, case.layout), placed(backend, dout, case.layout)
    y = backend.relu(there)
    dx = backend.relu_backward(dout_there, y)
    positive = [float(a) if a > 0 else 0.0 for a in x.flat]
    passed = [float(d) if a > 0 else 0.0 for a, d in zip(x.flat, dout.flat, strict=True)]
    for result, expected in ((y, positive), (dx, passed)):
        assert result.dtype == case.dtype
        np.testing.assert_array_equal(
            backend.to_numpy(result), np.reshape(expected, case.shape).astype(case.dtype)
        )
    np.testing.assert_array_equal(backend.to_numpy(there), x)
    np.testing.assert_array_equal(backend.to_numpy(dout_there), dout)


def test_relu_and_dropout_keep_channels_last(backend, rng):
    x = rng.standard_normal((2, 3, 4, 5)).astype(np.float32)
    there = placed(backend, x, "channels_last")
    y = backend.relu(there)
    mask = backend.dropout(backend.generator(1), there, 0.5, 1)[1]
    for result in (y, backend.relu_backward(there, y), mask):
        assert result.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_mask(backend, dtype):
    like = backend.asarray(np.full((40, 50), 9, dtype))
    for ratio in (0.0, 0.3, 0.9):
        mask = backend.dropout(backend.generator(7), like, ratio, 1)[1]
        assert mask.dtype == dtype
        host = backend.to_numpy(mask)
        assert host.shape == (40, 50)
        assert set(np.unique(host)) <= {0, 1}
        # Five standard deviations of a mean over 2000 draws.
        assert abs(host.mean(dtype=np.float64) - (1 - ratio)) <= 5 * math.sqrt(
            ratio * (1 - ratio) / 2000
        )
    np.testing.assert_array_equal(backend.to_numpy(like), np.full((40, 50), 9))


def test_a_mask_depends_on_the_seed_alone(backend, rng):
    x = rng.standard_normal((3, 4, 5, 6)).astype(np.float32)

    def mask(seed, layout):
        like = placed(backend, x, layout)
        return backend.to_numpy(backend.dropout(backend.generator(seed), like, 0.5, 1)[1])

    np.testing.assert_array_equal(mask([1, 2], "c"), mask([1, 2], "channels_last"))
    assert (mask([1, 2], "c") != mask([1, 3], "c")).any()
    philox = np.random.Generator(np.random.Philox(np.random.SeedSequence([1, 2])))
    expected = philox.random(x.shape, dtype=np.float32) >= 0.5
    np.testing.assert_array_equal(mask([1, 2], "c"), expected)


def test_a_generator_goes_on(backend):
    like = backend.asarray(np.zeros((10, 10), np.float32))
    generator = backend.generator(3)
    first, second = (backend.dropout(generator, like, 0.5, 1)[1] for _ in range(2))
    assert (backend.to_numpy(first) != backend.to_numpy(second)).any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_random_numbers_are_uniform_in_0_to_1(backend, dtype):
    numbers = backend.generator(11).random((200, 50), dtype=np.dtype(dtype))
    assert backend.owns(numbers)
    host = backend.to_numpy(numbers)
    assert host.dtype == dtype
    assert host.min() >= 0
    assert host.max() < 1
    counts = np.histogram(host, 10, (0, 1))[0]
    assert (abs(counts - 1000) < 5 * 30).all()  # the standard deviation of a count is 30
