"""The stateless functions, against formulas written out in Python and the book's numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xpdl
from xpdl import functions as F
from xpdl.errors import ArgumentError, BackendMismatchError, DTypeError, ShapeError

DTYPES = ["float16", "float32", "float64"]
ROUNDING = {"float16": 2e-3, "float32": 2e-6, "float64": 1e-14}

# Book, section 4.2: the scores of two answers to a picture of a 2.
BOOK_T = [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
BOOK_Y = [0.1, 0.05, 0.6, 0.0, 0.05, 0.1, 0.0, 0.1, 0.0, 0.0]
BOOK_WRONG = [0.1, 0.05, 0.1, 0.0, 0.05, 0.1, 0.0, 0.6, 0.0, 0.0]

ELEMENTWISE = {
    "identity_function": lambda x: x,
    "step_function": lambda x: 1.0 if x > 0 else 0.0,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "tanh": math.tanh,
    "relu": lambda x: x if x > 0 else 0.0,
}
OF_SCORES = ["softmax", "log_softmax"]


def log_softmax_of(row):
    total = math.fsum(math.exp(v - max(row)) for v in row)
    return [v - max(row) - math.log(total) for v in row]


def spread(rng, shape, dtype):
    return (3 * rng.standard_normal(shape)).astype(dtype)


def im2col_by_hand(x, fh, fw, stride, pad):
    """Book, figure 7-19, with one loop for each thing that it draws."""
    n, c, h, w = x.shape
    rows = []
    for image in range(n):
        for top in range(-pad, h + pad - fh + 1, stride):
            for left in range(-pad, w + pad - fw + 1, stride):
                row = []
                for channel in range(c):
                    for i in range(top, top + fh):
                        for j in range(left, left + fw):
                            inside = 0 <= i < h and 0 <= j < w
                            row.append(x[image, channel, i, j] if inside else 0.0)
                rows.append(row)
    return np.array(rows)


# ---- element by element ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_values_type_and_input(backend, rng, name, dtype):
    x = spread(rng, (5, 7), dtype)
    before = x.copy()
    device = backend.asarray(x)
    y = getattr(F, name)(device)
    assert y.dtype == dtype
    assert y.shape == x.shape
    expected = np.vectorize(ELEMENTWISE[name])(before.astype(np.float64))
    np.testing.assert_allclose(backend.to_numpy(y), expected, rtol=ROUNDING[dtype], atol=1e-7)
    np.testing.assert_array_equal(backend.to_numpy(device), before)


@pytest.mark.parametrize("name", [*ELEMENTWISE, *OF_SCORES])
def test_any_memory_order_gives_the_same(backend, rng, name):
    x = spread(rng, (4, 6), "float32")
    function = getattr(F, name)
    plain = backend.to_numpy(function(backend.asarray(x)))
    turned = backend.to_numpy(function(backend.asarray(x.T.copy()).T))
    sparse = backend.to_numpy(function(backend.asarray(np.repeat(x, 2, axis=0))[::2]))
    np.testing.assert_allclose(turned, plain, rtol=1e-6)
    np.testing.assert_allclose(sparse, plain, rtol=1e-6)


def test_step_is_zero_at_zero(backend):
    y = F.step_function(backend.asarray(np.array([-1.0, 0.0, 2.0], dtype=np.float32)))
    np.testing.assert_array_equal(backend.to_numpy(y), [0, 0, 1])


@pytest.mark.parametrize(
    ("dtype", "far", "small"),
    [("float16", 6e4, -10), ("float32", 3e38, -85), ("float64", 1e308, -700)],
)
def test_sigmoid_at_both_ends(backend, dtype, far, small):
    x = np.array([-far, small, 0, -small, far], dtype=dtype)
    y = backend.to_numpy(F.sigmoid(backend.asarray(x)))
    assert y[0] == 0
    assert y[2] == 0.5
    assert y[3] == y[4] == 1 or dtype == "float16"
    # Small probabilities keep their digits, which 1 - sigmoid(-x) would lose.
    expected = 1 / (1 + math.exp(-small))
    assert y[1] == pytest.approx(expected, rel=2e-3 if dtype == "float16" else 1e-6)


def test_sigmoid_is_symmetric(backend, rng):
    x = spread(rng, 50, "float64")
    y = backend.to_numpy(F.sigmoid(backend.asarray(x)))
    mirrored = backend.to_numpy(F.sigmoid(backend.asarray(-x)))
    np.testing.assert_allclose(y + mirrored, 1, rtol=1e-15)


def test_sigmoid_in_the_book(backend):
    y = F.sigmoid(backend.asarray(np.array([-1.0, 1.0, 2.0])))  # section 3.2.4
    np.testing.assert_allclose(backend.to_numpy(y), [0.26894142, 0.73105858, 0.88079708], atol=5e-9)


# ---- softmax -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 3, 6)])
def test_softmax_and_its_logarithm(backend, rng, shape, dtype):
    x = spread(rng, shape, dtype)
    device = backend.asarray(x.copy())
    y, log_y = F.softmax(device), F.log_softmax(device)
    assert y.dtype == dtype
    assert log_y.dtype == ("float64" if dtype == "float64" else "float32")
    expected = np.array([log_softmax_of(row) for row in x.reshape(-1, 6).tolist()]).reshape(shape)
    wide = "float32" if dtype == "float16" else dtype
    np.testing.assert_allclose(backend.to_numpy(log_y), expected, rtol=5 * ROUNDING[wide])
    np.testing.assert_allclose(backend.to_numpy(y), np.exp(expected), rtol=5 * ROUNDING[dtype])
    np.testing.assert_array_equal(backend.to_numpy(device), x)


def test_softmax_in_the_book(backend):
    y = F.softmax(backend.asarray(np.array([0.3, 2.9, 4.0])))  # section 3.5.1
    np.testing.assert_allclose(backend.to_numpy(y), [0.01821127, 0.24519181, 0.73659691], atol=5e-9)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_of_large_scores(backend, dtype):
    """Section 3.5.2: exp(1010) is infinite, the answer is not."""
    x = np.array([1010, 1000, 990], dtype=dtype)
    y = backend.to_numpy(F.softmax(backend.asarray(x)))
    expected = np.array([9.99954600e-01, 4.53978686e-05, 2.06106005e-09])
    np.testing.assert_allclose(y, expected, rtol=1e-3 if dtype == "float16" else 1e-6, atol=1e-7)
    mirrored = backend.to_numpy(F.softmax(backend.asarray(x - x.dtype.type(2000))))
    np.testing.assert_array_equal(mirrored, y)


@pytest.mark.parametrize(
    ("dtype", "far"), [("float16", 3e4), ("float32", 1e38), ("float64", 1e307)]
)
def test_log_softmax_does_not_overflow(backend, dtype, far):
    x = np.array([[far, -far], [-far, -far], [far, far]], dtype=dtype)
    y = backend.to_numpy(F.log_softmax(backend.asarray(x)))
    gap = float(x[0, 0]) - float(x[0, 1])
    half = -math.log(2)
    np.testing.assert_allclose(y, [[0, -gap], [half, half], [half, half]], rtol=1e-6, atol=1e-6)


# ---- losses ------------------------------------------------------------------------------------


def test_losses_in_the_book(backend):
    t = backend.asarray(np.array(BOOK_T))
    right, wrong = (backend.asarray(np.array(y)) for y in (BOOK_Y, BOOK_WRONG))
    assert backend.item(F.sum_squared_error(right, t)) == pytest.approx(0.0975, abs=1e-12)
    assert backend.item(F.sum_squared_error(wrong, t)) == pytest.approx(0.5975, abs=1e-12)
    assert backend.item(F.cross_entropy_error(right, t)) == pytest.approx(0.510825457099338)
    assert backend.item(F.cross_entropy_error(wrong, t)) == pytest.approx(2.302584092994546)


def test_cross_entropy_of_a_class_number_alone(backend):
    y = backend.asarray(np.array(BOOK_Y))
    for t in (np.array(2), np.array([2])):
        loss = F.cross_entropy_error(y, backend.asarray(t))
        assert loss.shape == ()
        assert round(backend.item(loss), 2) == 0.51


@pytest.mark.parametrize("dtype", DTYPES)
def test_cross_entropy_of_a_batch(backend, rng, dtype):
    y = rng.dirichlet(np.ones(4), size=6).astype(dtype)
    labels = np.array([0, 3, 1, 1, 2, 0])
    hot = np.eye(4)[labels]
    soft = rng.dirichlet(np.ones(4), size=6).astype(dtype)
    rows = y.astype(np.float64).tolist()
    by_label = -sum(math.log(row[k] + 1e-7) for row, k in zip(rows, labels, strict=True)) / 6
    by_share = (
        -sum(
            share * math.log(p + 1e-7)
            for row, shares in zip(rows, soft.tolist(), strict=True)
            for p, share in zip(row, shares, strict=True)
        )
        / 6
    )
    for t, expected in (
        (labels, by_label),
        (labels.astype(np.uint8), by_label),
        (labels[:, None], by_label),
        (hot.astype(dtype), by_label),
        (hot.astype(np.int64), by_label),
        (soft, by_share),
    ):
        loss = F.cross_entropy_error(backend.asarray(y), backend.asarray(t))
        assert loss.shape == ()
        assert loss.dtype == ("float64" if dtype == "float64" else "float32")
        assert backend.item(loss) == pytest.approx(expected, rel=1e-5)


def test_cross_entropy_of_certainty_is_finite(backend):
    y = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    loss = F.cross_entropy_error(backend.asarray(y), backend.asarray(np.array([0, 0])))
    assert backend.item(loss) == pytest.approx(-math.log(1e-7) / 2, rel=1e-5)


def test_log_of_nothing_counts_only_where_the_target_is(backend):
    log_y = backend.asarray(np.array([[0.0, -np.inf], [-1.0, -2.0]], dtype=np.float32))
    for t in (np.array([0, 1]), np.array([[1, 0], [0, 1]], dtype=np.float32)):
        assert backend.item(backend.mean_cross_entropy(log_y, backend.asarray(t))) == 1.0
    lost = backend.mean_cross_entropy(log_y, backend.asarray(np.array([1, 1])))
    assert backend.item(lost) == math.inf


@pytest.mark.parametrize("bad", [-1, -3, 3, 255, 10**9])
def test_a_class_that_is_not_there_gives_nan(backend, bad):
    y = backend.asarray(np.full((4, 3), 1 / 3, dtype=np.float32))
    t = backend.asarray(np.array([0, 1, bad, 2]))
    assert math.isnan(backend.item(backend.mean_cross_entropy(y, t)))
    assert math.isnan(backend.item(F.cross_entropy_error(y, t)))


@pytest.mark.parametrize("length", [1, 3, 5])
def test_cross_entropy_refuses_another_number_of_targets(backend, length):
    y = backend.asarray(np.full((4, 3), 1 / 3, dtype=np.float32))
    with pytest.raises(ShapeError, match=r"^t .*4"):
        F.cross_entropy_error(y, backend.asarray(np.zeros(length, dtype=int)))


def test_cross_entropy_of_one_sample_refuses_two_targets(backend):
    y = backend.asarray(np.array([0.2, 0.3, 0.5], dtype=np.float32))
    with pytest.raises(ShapeError, match=r"^t "):
        F.cross_entropy_error(y, backend.asarray(np.array([0, 1])))


@pytest.mark.parametrize("dtype", DTYPES)
def test_squared_error(backend, rng, dtype):
    y, t = spread(rng, (5, 3), dtype), spread(rng, (5, 3), dtype)
    y[0, 0] = 300  # its square is beyond float16
    pairs = zip(y.ravel().tolist(), t.ravel().tolist(), strict=True)
    expected = 0.5 * math.fsum((a - b) ** 2 for a, b in pairs) / 5
    loss = F.sum_squared_error(backend.asarray(y), backend.asarray(t))
    assert loss.shape == ()
    assert loss.dtype == ("float64" if dtype == "float64" else "float32")
    assert backend.item(loss) == pytest.approx(expected, rel=1e-3 if dtype == "float16" else 1e-5)
    one = F.sum_squared_error(backend.asarray(y[1]), backend.asarray(t[1]))
    pairs = zip(y[1].tolist(), t[1].tolist(), strict=True)
    expected = 0.5 * math.fsum((a - b) ** 2 for a, b in pairs)
    assert backend.item(one) == pytest.approx(expected, rel=5e-3 if dtype == "float16" else 1e-5)


def test_squared_error_of_far_half_precision_numbers(backend):
    """The difference, 120000, is beyond float16; the loss is in float32."""
    y, t = (backend.asarray(np.array([a], dtype=np.float16)) for a in (6e4, -6e4))
    assert backend.item(F.sum_squared_error(y, t)) == pytest.approx(0.5 * 120000.0**2, rel=1e-3)


def test_squared_error_refuses_another_shape(backend):
    y, t = backend.asarray(np.zeros((4, 3))), backend.asarray(np.zeros((4, 1)))
    with pytest.raises(ShapeError, match=r"t must have the shape of y, \(4, 3\); got \(4, 1\)"):
        F.sum_squared_error(y, t)


def test_losses_leave_their_arguments(backend, rng):
    y, soft = (rng.dirichlet(np.ones(4), size=5) for _ in range(2))
    labels = np.array([0, 1, 2, 3, 0])
    for function, t in (
        (F.cross_entropy_error, labels),
        (F.cross_entropy_error, soft),
        (F.sum_squared_error, soft),
    ):
        dy, dt = backend.asarray(y.copy()), backend.asarray(t.copy())
        function(dy, dt)
        np.testing.assert_array_equal(backend.to_numpy(dy), y)
        np.testing.assert_array_equal(backend.to_numpy(dt), t)


def test_arrays_of_two_devices_are_refused():
    with xpdl.use_backend("strict") as strict:
        y = strict.asarray(np.zeros((2, 3), dtype=np.float32))
        with pytest.raises(BackendMismatchError):
            F.cross_entropy_error(y, np.array([0, 1]))


# ---- targets -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*DTYPES, "int64", "bool"])
def test_one_hot(backend, dtype):
    t = backend.asarray(np.array([2, 0, 1], dtype=np.uint8))
    hot = F.one_hot(t, 4, dtype)
    assert hot.dtype == dtype
    np.testing.assert_array_equal(backend.to_numpy(hot), [[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0]])


def test_one_hot_of_no_class_is_empty(backend):
    hot = F.one_hot(backend.asarray(np.array([-1, 4, 3])), 4)
    assert hot.dtype == "float32"
    np.testing.assert_array_equal(backend.to_numpy(hot).sum(axis=1), [0, 0, 1])


def test_targets_as_a_distribution_have_the_type_asked_for(backend):
    for t in (np.array([2, 0]), np.array([[0, 0, 1], [1, 0, 0]])):
        d = backend.distribution(backend.asarray(t), 3, np.float16)
        assert d.dtype == "float16"
        np.testing.assert_array_equal(backend.to_numpy(d), [[0, 0, 1], [1, 0, 0]])


@pytest.mark.parametrize("t", [np.zeros(4, np.uint8), np.zeros(4, np.int64), np.zeros((4, 3))])
def test_check_targets_accepts(backend, t):
    F.check_targets(backend.asarray(t), (4, 3))


@pytest.mark.parametrize("shape", [(), (3,), (5,), (4, 1), (3, 4), (4, 3, 1)])
def test_check_targets_refuses_a_shape(backend, shape):
    t = backend.asarray(np.zeros(shape, dtype=int))
    with pytest.raises(ShapeError) as caught:
        F.check_targets(t, (4, 3))
    message = str(caught.value)
    assert message.startswith("t must be class numbers of shape (4,) or one-hot of shape (4, 3)")
    assert message.endswith(f"got shape {shape}.")


@pytest.mark.parametrize("dtype", ["float32", "float64", "bool"])
def test_check_targets_refuses_a_type(backend, dtype):
    with pytest.raises(DTypeError, match=f"^t must hold integer class numbers, got dtype {dtype}"):
        F.check_targets(backend.asarray(np.zeros(4, dtype=dtype)), (4, 3))


def test_check_labels():
    F.check_labels(np.array([0, 9, 5]), 10)
    F.check_labels(np.array([], dtype=int), 10)
    for bad, first, count in (([1, 10, 2], 10, 1), ([0, -1, 12], -1, 2)):
        expected = rf"^t must hold class numbers 0 to 9, got {first} at index 1 \({count} of 3"
        with pytest.raises(ArgumentError, match=expected):
            F.check_labels(np.array(bad), 10)


# ---- windows -----------------------------------------------------------------------------------


def test_im2col_shapes_in_the_book(backend, rng):
    for n, rows in ((1, 9), (10, 90)):  # section 7.4.3
        x = backend.asarray(rng.random((n, 3, 7, 7), dtype=np.float32))
        assert F.im2col(x, 5, 5, stride=1, pad=0).shape == (rows, 75)


def test_im2col_by_eye(backend):
    x = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    col = F.im2col(backend.asarray(x), 2, 2)
    np.testing.assert_array_equal(
        backend.to_numpy(col), [[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8]]
    )


@given(
    n=st.integers(1, 3),
    c=st.integers(1, 3),
    oh=st.integers(1, 3),
    ow=st.integers(1, 3),
    fh=st.integers(1, 4),
    fw=st.integers(1, 4),
    stride=st.integers(1, 3),
    pad=st.integers(0, 2),
)
def test_im2col_and_col2im(backend, n, c, oh, ow, fh, fw, stride, pad):
    h, w = (oh - 1) * stride + fh - 2 * pad, (ow - 1) * stride + fw - 2 * pad
    if min(h, w) < 1:
        return
    rng = np.random.default_rng([n, c, h, w, fh, fw])
    x = rng.standard_normal((n, c, h, w))
    expected = im2col_by_hand(x, fh, fw, stride, pad)
    device = backend.asarray(x.copy())
    col = F.im2col(device, fh, fw, stride, pad)
    np.testing.assert_array_equal(backend.to_numpy(col), expected)
    np.testing.assert_array_equal(backend.to_numpy(device), x)
    # Its adjoint: each pixel gets the sum of the places that im2col copied it to.
    ids = im2col_by_hand(np.arange(1.0, x.size + 1).reshape(x.shape), fh, fw, stride, pad)
    weights = rng.standard_normal(ids.shape)
    sums = np.bincount(ids.ravel().astype(int), weights.ravel(), minlength=x.size + 1)[1:]
    given_col = backend.asarray(weights.copy())
    image = F.col2im(given_col, x.shape, fh, fw, stride, pad)
    np.testing.assert_allclose(
        backend.to_numpy(image), sums.reshape(x.shape), rtol=1e-12, atol=1e-12
    )
    np.testing.assert_array_equal(backend.to_numpy(given_col), weights)


@pytest.mark.parametrize("dtype", DTYPES)
def test_im2col_keeps_the_type(backend, rng, dtype):
    """The book's own always answers in float64."""
    x = backend.asarray(spread(rng, (2, 2, 4, 4), dtype))
    col = F.im2col(x, 3, 3, pad=1)
    assert col.dtype == dtype
    assert F.col2im(col, x.shape, 3, 3, pad=1).dtype == dtype


def test_im2col_refuses(backend):
    x = backend.asarray(np.zeros((1, 1, 7, 6), dtype=np.float32))
    with pytest.raises(ShapeError, match=r"^x must be \(N, C, H, W\), got shape \(7, 6\)"):
        F.im2col(x[0, 0], 3, 3)
    with pytest.raises(ShapeError, match=r"width 6 .* stride 2 gives 2.5 windows"):
        F.im2col(x, 3, 3, stride=2)
    with pytest.raises(ShapeError, match=r"height 9 does not fit an image of height 7"):
        F.im2col(x, 9, 3)


@pytest.mark.parametrize(("option", "value"), [("stride", 0), ("stride", -1), ("pad", -1)])
def test_im2col_refuses_a_bad_option(backend, option, value):
    x = backend.asarray(np.zeros((1, 1, 7, 7), dtype=np.float32))
    with pytest.raises(ArgumentError, match=option):
        F.im2col(x, 3, 3, **{option: value})


@pytest.mark.parametrize("shape", [(9, 76), (10, 75), (75, 9), (9, 3, 25)])
def test_col2im_refuses_other_rows(backend, shape):
    col = backend.asarray(np.zeros(shape, dtype=np.float32))
    with pytest.raises(ShapeError, match=r"^col must be \(9, 75\) for an image of shape \(1, 3, 7"):
        F.col2im(col, (1, 3, 7, 7), 5, 5)


def test_col2im_refuses_a_misfit(backend):
    col = backend.asarray(np.zeros((4, 9), dtype=np.float32))
    with pytest.raises(ShapeError, match="not whole"):
        F.col2im(col, (1, 1, 6, 6), 3, 3, stride=2)


@pytest.mark.parametrize(
    ("image", "size", "stride", "pad", "expected"),
    [  # section 7.2.4
        ((4, 4), (3, 3), (1, 1), (1, 1), (4, 4)),
        ((7, 7), (3, 3), (2, 2), (0, 0), (3, 3)),
        ((28, 31), (5, 5), (2, 3), (2, 3), None),
        ((28, 31), (4, 5), (2, 4), (2, 3), (15, 9)),
        ((3, 3), (3, 3), (9, 9), (0, 0), (1, 1)),
    ],
)
def test_window_counts(image, size, stride, pad, expected):
    if expected is None:
        with pytest.raises(ShapeError):
            F.window_counts(image, size, stride, pad)
    else:
        assert F.window_counts(image, size, stride, pad) == expected


@pytest.mark.parametrize("length", range(3, 12))
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_dropped_remainders_count_whole_windows(length, stride):
    starts = [i for i in range(length) if i % stride == 0 and i + 3 <= length]
    counts = F.window_counts((length, 3), (3, 3), (stride, 1), (0, 0), remainder="drop")
    assert counts == (len(starts), 1)


def test_window_counts_says_what_would_fit():
    with pytest.raises(ShapeError, match=r"pad >= 2\.$"):
        F.window_counts((4, 9), (7, 3), (1, 1), (0, 0))
    F.window_counts((4, 9), (7, 3), (1, 1), (2, 0))
    with pytest.raises(ShapeError, match=r"^height 28 with pad 2, window 5 and stride 2 .*14.5"):
        F.window_counts((28, 28), (5, 5), (2, 2), (2, 2))
    with pytest.raises(ShapeError, match=r"leave the last 2 of the width unseen"):
        F.window_counts((3, 8), (3, 3), (3, 3), (0, 0))
