"""Every override is held to the base's signature, and NumPy's to the base's numbers."""

from __future__ import annotations

import inspect
import sys

import brute_force
import numpy as np
import pytest
from brute_force import Case, assert_close, cases, placed, sum_dtype
from hypothesis import given
from hypothesis import strategies as st

from xpdl.backends import Backend, available_backends, get_backend, use_backend
from xpdl.backends.cupy.backend import CapturingCupyBackend, CupyBackend
from xpdl.backends.cupy.elements import FusedElements
from xpdl.backends.cupy.fused import FusedCupyBackend
from xpdl.backends.cupy.launching import LaunchingCupyBackend
from xpdl.backends.numpy import convolution as numpy_convolution
from xpdl.backends.numpy import elements as numpy_elements
from xpdl.backends.numpy.backend import NumpyBackend
from xpdl.backends.numpy.elements import NumpyElements
from xpdl.backends.numpy.memory import pool
from xpdl.backends.numpy.seen import seen_part
from xpdl.backends.strict.backend import StrictBackend
from xpdl.models import DeepConvNet, NormalizedConvNet
from xpdl.optimizers import BY_NAME, Adam, get_optimizer

NUMBA = available_backends()["numba"]
SUBCLASSES = [
    *(NumpyElements, NumpyBackend, CupyBackend, CapturingCupyBackend, LaunchingCupyBackend),
    *(FusedElements, FusedCupyBackend, StrictBackend),
]
if NUMBA == "ready":
    SUBCLASSES += type(get_backend("numba")).__mro__[:2]
OVERRIDES = [
    pytest.param(kind, name, id=f"{kind.__name__}.{name}")
    for kind in SUBCLASSES
    for name, value in vars(kind).items()
    if inspect.isfunction(value) and hasattr(Backend, name) and not name.startswith("__")
]
HELD_TO_NUMBERS = {
    "matmul",
    "convolution",
    "convolution_pooling",
    "convolution_normalized",
    "convolution_backward",
    "grouped_convolution",
    "grouped_convolution_backward",
    "max_pooling",
    "max_pooling_backward",
    "average_pooling",
    "average_pooling_backward",
    "normalize_response",
    "normalize_response_backward",
    "relu",
    "relu_backward",
    "relu6",
    "relu6_backward",
    "update_rule",
    *("moments", "normalize", "normalize_backward"),  # test_normalizing holds them
    "confusion",  # test_measures holds it
    "describe",  # words, not numbers; test_selection reads them
    "ways",  # words too; a checkpoint tells them apart
    "release",  # memory, not numbers; below
}


@pytest.fixture(params=["numpy", "numba"])
def fast(request):
    return request_backend(request.param)


def request_backend(name):
    if name == "numba" and NUMBA != "ready":
        pytest.skip(NUMBA)
    return get_backend(name)


@pytest.fixture
def plain():
    return Backend()


threads = st.sampled_from(["1", "2", "3", "7"])
block_bytes = st.sampled_from([1, 700, numpy_convolution.BLOCK_BYTES])


@pytest.fixture
def setting(monkeypatch):
    """Return a function that sets the number of threads and the size of a block."""

    def set_(count, size):
        monkeypatch.setenv("XPDL_THREADS", count)
        monkeypatch.setattr(numpy_convolution, "BLOCK_BYTES", size)

    return set_


def test_every_backend_is_looked_at():
    ours = {kind for kind in Backend.__subclasses__() if kind.__module__.startswith("xpdl.")}
    assert ours <= set(SUBCLASSES)
    assert {kind.name for kind in SUBCLASSES} >= {"numpy", "cupy", "strict"}
    assert len(OVERRIDES) >= 12


@pytest.mark.parametrize(("kind", "name"), OVERRIDES)
def test_an_override_has_the_signature_of_the_base(kind, name):
    def parameters(function):
        return [
            (p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()
        ]

    assert parameters(getattr(kind, name)) == parameters(getattr(Backend, name))


def test_every_override_is_held_to_numbers():
    # An override that is added gets its test here.
    names = {
        name
        for kind in SUBCLASSES
        if issubclass(kind, NumpyElements)
        for name, value in vars(kind).items()
        if inspect.isfunction(value)
    }
    assert names <= HELD_TO_NUMBERS
    assert names | {"describe", "ways"} == HELD_TO_NUMBERS


@given(case=cases(batches=(1, 9)), threads=threads, block=block_bytes, with_bias=st.booleans())
def test_convolution(fast, plain, setting, case, threads, block, with_bias):
    setting(threads, block)
    x = placed(fast, case.numbers(*case.shape), case.layout)
    W = case.numbers(case.filters, case.c, *case.size, salt=1)
    b = case.numbers(case.filters, salt=2) if with_bias else None
    y = fast.convolution(x, W, b, case.stride, case.pad)
    assert_close(
        fast, y, plain.convolution(x, W, b, case.stride, case.pad).astype(np.float64), case.dtype
    )


@given(case=cases(batches=(1, 9)), threads=threads, block=block_bytes)
def test_convolution_with_what_follows(fast, plain, setting, case, threads, block):
    setting(threads, block)
    x = placed(fast, case.numbers(*case.shape), case.layout)
    W = case.numbers(case.filters, case.c, *case.size, salt=1)
    b = case.numbers(case.filters, salt=2)
    norm = tuple(case.numbers(3, case.filters, salt=3).astype(sum_dtype(case.dtype)))
    window = tuple(min(2, count) for count in case.out)
    given = x, W, b, (case.stride, case.pad), (window, window)
    y, _ = fast.convolution_pooling(*given)
    expected, _ = plain.convolution_pooling(*given)
    assert_close(fast, y, expected.astype(np.float64), case.dtype)
    given = x, W, b, (case.stride, case.pad, (1, 1), 1), norm, True
    y, expected = (backend.convolution_normalized(*given) for backend in (fast, plain))
    assert_close(fast, y, expected.astype(np.float64), case.dtype)


@given(
    case=cases(batches=(1, 9)),
    threads=threads,
    block=block_bytes,
    step=st.sampled_from([(1, 1), None]),
    need_dx=st.booleans(),
)
def test_convolution_backward(fast, plain, setting, case, threads, block, step, need_dx):
    setting(threads, block)
    if step:  # stride 1 takes a way of its own
        case = Case(**{**vars(case), "stride": step})
    x = placed(fast, case.numbers(*case.shape), case.layout)
    W = case.numbers(case.filters, case.c, *case.size, salt=1)
    dout = placed(fast, case.numbers(case.n, case.filters, *case.out, salt=2), case.layout)
    results = fast.convolution_backward(dout, x, W, case.stride, case.pad, need_dx)
    expected = plain.convolution_backward(dout, x, W, case.stride, case.pad, need_dx)
    assert (results[0] is None) == (not need_dx)
    dtypes = case.dtype, sum_dtype(case.dtype), sum_dtype(case.dtype)
    for actual, wanted, dtype in zip(results, expected, dtypes, strict=True):
        if wanted is not None:
            assert_close(fast, actual, wanted.astype(np.float64), dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    ("image", "size", "stride", "pad", "sees"),
    [
        ((1, 1), (3, 3), (1, 1), (1, 1), (1, 1)),
        ((2, 2), (3, 3), (2, 2), (1, 1), (2, 2)),
        ((2, 2), (5, 5), (1, 1), (2, 2), (3, 3)),
        ((2, 1), (3, 3), (1, 1), (1, 1), (3, 1)),
        ((1, 7), (3, 3), (2, 2), (1, 1), (1, 3)),
        ((2, 2), (3, 3), (1, 1), (1, 1), None),
        ((1, 1), (2, 2), (1, 1), (3, 3), None),  # windows beyond the image on all sides
        ((1, 1), (3, 3), (5, 5), (3, 3), None),  # no pixel is seen
    ],
)
def test_filters_that_reach_beyond_a_small_image(
    fast, plain, rng, image, size, stride, pad, sees, dtype
):
    seen = seen_part(image, size, stride, pad)
    assert (None if seen is None else np.empty((1, 1, *size))[seen.part].shape[2:]) == sees
    x = rng.standard_normal((5, 16, *image)).astype(dtype)
    W = rng.standard_normal((32, 16, *size)).astype(dtype)
    b = rng.standard_normal(32).astype(dtype)
    y = fast.convolution(x, W, b, stride, pad, True)
    exact = [a.astype(np.float64) for a in (x, W, b)]
    expected = plain.convolution(*exact, stride, pad, True)
    assert_close(fast, y, expected, dtype)
    dout = rng.standard_normal(y.shape).astype(dtype)
    dW, db = (np.full_like(a, np.nan, dtype=sum_dtype(dtype)) for a in (W, b))
    dx, *found = fast.convolution_backward(dout, x, W, stride, pad, True, True, y, dW, db)
    assert found[0] is dW
    assert found[1] is db
    wide = dout.astype(np.float64), *exact[:2], stride, pad, True, True, y.astype(np.float64)
    wanted = plain.convolution_backward(*wide)
    for actual, expected in zip((dx, dW, db), wanted, strict=True):
        assert_close(fast, actual, expected, actual.dtype)


@given(
    case=cases(batches=(1, 9), dtypes=("float32", "float64")),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    groups=st.integers(1, 3),
    channels=st.sampled_from([1, 1, 2, 17, 32]),
    threads=threads,
    relu=st.booleans(),
    need_dx=st.booleans(),
)
def test_grouped_convolution(
    fast, plain, setting, case, dilation, groups, channels, threads, relu, need_dx
):
    """With one channel and one filter a group, it is depthwise."""
    setting(threads, numpy_convolution.BLOCK_BYTES)
    if channels == 17:  # many groups of one, not a multiple of what a register holds
        groups, channels = 17, 1
    elif channels == 32:
        groups, channels = 32, 1
    filters = groups * min(case.filters, 2)
    reach = [(f - 1) * d + 1 for f, d in zip(case.size, dilation, strict=True)]
    image = (max(n, r) for n, r in zip((case.h, case.w), reach, strict=True))
    x = placed(fast, case.numbers(case.n, groups * channels, *image), case.layout)
    W = case.numbers(filters, channels, *case.size, salt=1)
    b = case.numbers(filters, salt=2)
    how = case.stride, case.pad, dilation, groups
    wide = [a.astype(np.float64) for a in (x, W, b)]
    y = fast.grouped_convolution(x, W, b, *how, relu)
    assert_close(fast, y, plain.grouped_convolution(*wide, *how, relu), case.dtype)
    dout = placed(fast, case.numbers(*y.shape, salt=3), case.layout)
    results = fast.grouped_convolution_backward(dout, x, W, *how, need_dx)
    expected = plain.grouped_convolution_backward(dout.astype(np.float64), *wide[:2], *how, need_dx)
    assert (results[0] is None) == (not need_dx)
    for actual, wanted in zip(results, expected, strict=True):
        if wanted is not None:
            assert_close(fast, actual, wanted, case.dtype)


@pytest.mark.parametrize("size", [(3, 3), (5, 4)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
@pytest.mark.parametrize("c", [16, 40])
def test_depthwise_convolution_in_strips(fast, plain, monkeypatch, rng, size, stride, c):
    """Of large images, a few rows at a time; the last strip is shorter than the others."""
    if fast.name == "numba":
        monkeypatch.setattr(
            sys.modules["xpdl.backends.numba.depthwise"], "STRIP_BYTES", 4 * c * 23 * 9
        )
    x = rng.standard_normal((3, c, 21, 19)).astype(np.float32)
    W = rng.standard_normal((c, 1, *size)).astype(np.float32)
    wide, how = [a.astype(np.float64) for a in (x, W)], (stride, (1, 2), (1, 1), c)
    y = fast.grouped_convolution(x, W, None, *how)
    assert_close(fast, y, plain.grouped_convolution(*wide, None, *how), "float32")
    dout = rng.standard_normal(y.shape).astype(np.float32)
    first = None
    for threads in "12":
        monkeypatch.setenv("XPDL_THREADS", threads)
        results = fast.grouped_convolution_backward(dout, x, W, *how)
        first = first or results
        for once, again in zip(first, results, strict=True):
            np.testing.assert_array_equal(once, again)
    expected = plain.grouped_convolution_backward(dout.astype(np.float64), *wide, *how)
    for actual, wanted in zip(results, expected, strict=True):
        assert_close(fast, actual, wanted, "float32")


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("filters", [1, 2])
@pytest.mark.parametrize("pad", [(0, 0), (1, 1), (2, 2), (3, 3), (0, 2), (2, 0)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 1)])
@pytest.mark.parametrize("order", ["c", "channels_last"])
def test_one_channel_and_one_filter(fast, channels, filters, pad, stride, order):
    # An axis of length 1 has whatever stride it likes, and the array still counts as contiguous:
    # views built from strides must not believe it. MNIST has one channel.
    case = Case(3, channels, 6, 5, (3, 3), stride, pad, filters, order, "float64", 1)
    x = case.numbers(*case.shape)
    W = case.numbers(filters, channels, 3, 3, salt=1)
    dout = case.numbers(3, filters, *case.out, salt=2)
    there, dout_there = placed(fast, x, order), placed(fast, dout, order)
    y = fast.convolution(there, W, None, stride, pad)
    assert_close(fast, y, brute_force.convolution(case, x, W, None), "float64")
    dx_expected, dW_expected, db_expected = brute_force.convolution_backward(case, dout, x, W)
    for need_dx in (True, False):
        dx, dW, db = fast.convolution_backward(dout_there, there, W, stride, pad, need_dx)
        assert_close(fast, dW, dW_expected, "float64")
        assert_close(fast, db, db_expected, "float64")
        if need_dx:
            assert_close(fast, dx, dx_expected, "float64")


@given(
    case=cases(batches=(1, 5)),
    tiles=st.booleans(),
    ties=st.booleans(),
    more=st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
def test_max_pooling(fast, plain, case, tiles, ties, more):
    if tiles:  # windows side by side, with what is left over at the edges
        fields = vars(case) | {"stride": case.size, "pad": (0, 0)}
        fields |= {"h": 2 * case.size[0] + more[0], "w": case.size[1] + more[1]}
        case = Case(**fields)
    x = placed(fast, case.numbers(*case.shape, whole=ties), case.layout)
    dout = placed(fast, case.numbers(case.n, case.c, *case.out, salt=1), case.layout)
    y, winners = fast.max_pooling(x, *case.windows, train=True)
    y_plain, winners_plain = plain.max_pooling(x, *case.windows, train=True)
    np.testing.assert_array_equal(y, y_plain, strict=True)
    dx = fast.max_pooling_backward(dout, winners, case.shape, *case.windows)
    dx_plain = plain.max_pooling_backward(dout, winners_plain, case.shape, *case.windows)
    assert_close(fast, dx, dx_plain.astype(np.float64), case.dtype)
    assert fast.max_pooling(x, *case.windows)[1] is None


def test_nought_and_minus_nought_tie(fast, plain):
    x = np.array([[-0.0, 0.0], [0.0, -0.0]], np.float32).reshape(1, 1, 2, 2)
    dout = np.ones((1, 1, 1, 1), np.float32)
    for backend in (fast, plain):
        _, winners = backend.max_pooling(x, (2, 2), (2, 2), (0, 0), train=True)
        dx = backend.max_pooling_backward(dout, winners, x.shape, (2, 2), (2, 2), (0, 0))
        np.testing.assert_array_equal(dx, [[[[1, 0], [0, 0]]]])


def test_the_gradient_goes_to_a_nan_that_won(fast, plain):
    # `max_pooling` promises that NaN wins over all; who won gets the gradient.
    x = np.array([[1, 2, 3, 4], [np.nan, 6, 7, 8]], np.float32).reshape(1, 1, 2, 4)
    dout = np.array([5, 6], np.float32).reshape(1, 1, 1, 2)
    for backend in (plain, fast):
        _, winners = backend.max_pooling(x, (2, 2), (2, 2), (0, 0), train=True)
        dx = backend.max_pooling_backward(dout, winners, x.shape, (2, 2), (2, 2), (0, 0))
        np.testing.assert_array_equal(dx, [[[[0, 0, 0, 0], [5, 0, 0, 6]]]], backend.name)


def test_a_pooled_result_owns_its_memory(fast, rng):
    for size in ((1, 1), (2, 2)):
        x = rng.random((2, 3, 4, 4), np.float32)
        y, _ = fast.max_pooling(x, size, size, (0, 0))
        assert not np.shares_memory(x, y)


def test_results_lie_channels_last(fast, rng):
    x = rng.random((2, 3, 6, 6), np.float32)
    W = rng.random((4, 3, 3, 3), np.float32)
    y = fast.convolution(x, W, None, (1, 1), (1, 1))
    dx, _, _ = fast.convolution_backward(y, x, W, (1, 1), (1, 1))
    pooled, _ = fast.max_pooling(y, (2, 2), (2, 2), (0, 0))
    for result in (y, dx, pooled):
        assert result.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
def test_the_same_call_gives_the_same_bits_on_any_number_of_threads(fast, setting, rng, stride):
    x = rng.standard_normal((11, 3, 9, 9)).astype(np.float32)
    W = rng.standard_normal((5, 3, 3, 3)).astype(np.float32)
    first = None
    for threads in "11223":
        setting(threads, 5000)
        y = fast.convolution(x, W, W[:, 0, 0, 0].copy(), stride, (1, 1))
        results = [y, *fast.convolution_backward(y, x, W, stride, (1, 1))]
        first = first or results
        for once, again in zip(first, results, strict=True):
            np.testing.assert_array_equal(once, again)


@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
@pytest.mark.parametrize("most", [20_000, 1500])  # some images; some rows of one
def test_blocks_keep_to_their_size(setting, monkeypatch, rng, stride, most):
    # Windows of more than a block's bytes go through in parts, whatever the batch.
    setting("1", most)
    sizes = []
    rows = numpy_convolution.Columns.rows

    def watched(self, block):
        windows = rows(self, block)
        sizes.append(windows.nbytes)
        return windows

    monkeypatch.setattr(numpy_convolution.Columns, "rows", watched)
    x = rng.random((30, 2, 8, 8), np.float32)  # 64 windows of 72 bytes an image at stride 1
    W = rng.random((3, 2, 3, 3), np.float32)
    numpy = get_backend("numpy")
    y = numpy.convolution(x, W, None, stride, (1, 1))
    numpy.convolution_backward(y, x, W, stride, (1, 1))
    assert len(sizes) >= 4
    assert max(sizes) <= most


def test_half_precision_is_multiplied_in_single(plain, monkeypatch, rng):
    # NumPy has no BLAS for float16: the same product would take 200 times as long.
    seen = set()
    matmul = np.matmul

    def watched(a, b, **options):
        seen.update((a.dtype.name, b.dtype.name))
        return matmul(a, b, **options)

    monkeypatch.setattr(np, "matmul", watched)
    x = rng.standard_normal((2, 3, 5, 5)).astype(np.float16)
    W = rng.standard_normal((2, 3, 3, 3)).astype(np.float16)
    for backend in (get_backend("numpy"), plain):
        y = backend.convolution(x, W, None, (1, 1), (1, 1))
        results = [y, *backend.convolution_backward(y, x, W, (1, 1), (1, 1))]
        assert [a.dtype.name for a in results] == ["float16", "float16", "float32", "float32"]
        assert seen == {"float32"}


def test_memory_that_no_array_holds_is_given_back(fast):
    a = pool.empty((10**6,), np.float32)
    kept = sum(piece.nbytes for pieces in pool._pieces.values() for piece in pieces)
    del a
    fast.release()
    left = sum(piece.nbytes for pieces in pool._pieces.values() for piece in pieces)
    assert left <= kept - 4 * 10**6


# ---- sizes that the compiled loops treat apart ----------------------------------------------


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize(("stride", "pad"), [((1, 1), (1, 1)), ((2, 1), (0, 2)), ((3, 3), (1, 0))])
@pytest.mark.parametrize(
    ("c", "filters"), [(1, 16), (16, 16), (16, 32), (3, 17), (32, 48), (8, 30), (17, 64)]
)
def test_channels_by_the_register(fast, plain, setting, rng, threads, stride, pad, c, filters):
    setting(threads, numpy_convolution.BLOCK_BYTES)
    x = rng.standard_normal((5, c, 9, 7)).astype(np.float32)
    W = rng.standard_normal((filters, c, 3, 3)).astype(np.float32)
    b = rng.standard_normal(filters).astype(np.float32)
    wide = [a.astype(np.float64) for a in (x, W, b)]
    y, exact = fast.convolution(x, W, b, stride, pad), plain.convolution(*wide, stride, pad)
    assert_close(fast, y, exact, "float32")
    dout = rng.standard_normal(y.shape).astype(np.float32)
    results = fast.convolution_backward(dout, x, W, stride, pad)
    expected = plain.convolution_backward(dout.astype(np.float64), *wide[:2], stride, pad)
    for actual, wanted in zip(results, expected, strict=True):
        assert_close(fast, actual, wanted, "float32")


@pytest.mark.parametrize("c", [1, 16, 30, 32, 33])
@pytest.mark.parametrize(
    ("size", "stride", "pad"),
    [
        ((2, 2), (2, 2), (0, 0)),
        ((3, 3), (2, 2), (0, 0)),
        ((3, 3), (2, 2), (1, 1)),
        ((2, 2), (3, 3), (0, 0)),
        ((16, 17), (1, 1), (0, 0)),  # more places than a byte can count
    ],
)
@pytest.mark.parametrize("nan", [False, True])
def test_pooling_by_the_register(fast, plain, rng, c, size, stride, pad, nan):
    x = rng.integers(-3, 3, (2, c, 17, 19)).astype(np.float32)  # many are equal
    if nan:
        x[rng.random(x.shape) < 0.05] = np.nan
    y, winners = fast.max_pooling(x, size, stride, pad, train=True)
    y_plain, winners_plain = plain.max_pooling(x, size, stride, pad, train=True)
    np.testing.assert_array_equal(y, y_plain, strict=True)
    dout = rng.standard_normal(y.shape).astype(np.float32)
    dx = fast.max_pooling_backward(dout, winners, x.shape, size, stride, pad)
    dx_plain = plain.max_pooling_backward(dout, winners_plain, x.shape, size, stride, pad)
    assert_close(fast, dx, dx_plain.astype(np.float64), "float32")


@given(case=cases(batches=(1, 9)), threads=threads)
def test_average_pooling(fast, plain, setting, case, threads):
    setting(threads, numpy_convolution.BLOCK_BYTES)
    x = placed(fast, case.numbers(*case.shape), case.layout)
    y = fast.average_pooling(x, *case.windows)
    expected = plain.average_pooling(x.astype(np.float64), *case.windows)
    assert_close(fast, y, expected, case.dtype)
    dout = placed(fast, case.numbers(*y.shape, salt=1), case.layout)
    dx = fast.average_pooling_backward(dout, case.shape, *case.windows)
    wide = plain.average_pooling_backward(dout.astype(np.float64), case.shape, *case.windows)
    assert_close(fast, dx, wide, case.dtype)


# ---- element by element, and products -------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (7,), (300_000,), (30, 16, 28, 28), (4, 5), (0, 3)])
@pytest.mark.parametrize("order", ["c", "channels_last", "strided"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("kind", ["relu", "relu6"])
def test_relu(fast, plain, rng, shape, order, dtype, kind):
    def numbers():
        a = 4 * rng.standard_normal((2, *shape)).astype(dtype)
        a[a > 8] = np.nan
        a[(a > 5.5) & (a < 6.5)] = 6
        a[(a > -0.1) & (a < 0.1)] = 0
        if order == "strided":
            return np.stack([a[0], a[1]], axis=-1)[..., 0]
        return placed(fast, a[0], order) if len(shape) == 4 else a[0]

    x, dout = numbers(), numbers()
    y = getattr(fast, kind)(x)
    np.testing.assert_array_equal(y, getattr(plain, kind)(x), strict=True)
    back = f"{kind}_backward"
    dx = getattr(fast, back)(dout, y)
    np.testing.assert_array_equal(dx, getattr(plain, back)(dout, y), strict=True)
    assert not np.shares_memory(x, y)
    assert not np.shares_memory(dout, dx)


@pytest.mark.parametrize("order", ["c", "channels_last", "strided", "read_only"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("beta", [0.75, 0.5])
@pytest.mark.parametrize(("channels", "size"), [(1, 5), (3, 9), (96, 5), (17, 4), (2, 1)])
def test_response_normalization(fast, plain, rng, order, dtype, beta, channels, size):
    x = (3 * rng.standard_normal((4, channels, 5, 6))).astype(dtype)
    dout = rng.standard_normal(x.shape).astype(dtype)
    there, dout_there = placed(fast, x, order), placed(fast, dout, order)
    y, s = fast.normalize_response(there, size, 1.5, 0.2, beta)
    exact_y, exact_s = plain.normalize_response(x.astype(np.float64), size, 1.5, 0.2, beta)
    assert_close(fast, y, exact_y, dtype)
    assert_close(fast, s, exact_s, sum_dtype(dtype))
    dx = fast.normalize_response_backward(dout_there, there, s, size, 0.2, beta)
    wide = dout.astype(np.float64), x.astype(np.float64)
    exact = plain.normalize_response_backward(*wide, exact_s, size, 0.2, beta)
    assert_close(fast, dx, exact, dtype)


@pytest.mark.parametrize("size", [1, 1000, 300_000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("step", [1, 2])
def test_adam(fast, plain, rng, size, dtype, step):
    start = [rng.standard_normal(step * size).astype(dtype)[::step] for _ in range(3)]
    start.append(np.abs(start[0]) + 0.1)
    ours, theirs = [a.copy()[::1] for a in start], [a.astype(np.float64) for a in start]
    if step > 1:  # in the middle of other numbers, which must stay
        ours = [np.repeat(a, step)[::step] for a in start]
    gradient, adam = ours[1].copy(), Adam()
    for iteration in (1, 2, 1000):
        for backend, arrays in ((fast, ours), (plain, theirs)):
            known = "adam", adam.rule, adam.settings()
            backend.update_rule(*known, arrays, (0.01, iteration))
    for actual, expected in zip(ours, theirs, strict=True):
        assert actual.dtype == dtype
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(ours[1], gradient)
    if step > 1:
        np.testing.assert_array_equal(ours[0].base[1::step], start[0])


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("go", [None, True, False])
def test_a_rule_in_parts_is_the_rule(fast, monkeypatch, rng, name, go):
    optimizer = get_optimizer(name)
    known = optimizer.device_rule, optimizer.rule, optimizer.settings()
    numbers = (0.1, 3.0) if optimizer.counts_updates else (0.1,)
    start = [rng.random((50, 41)) for _ in range(2 + len(optimizer.slots))]
    found = []
    for size in (1000, 10**6):
        monkeypatch.setattr(numpy_elements, "RULE_BYTES", size)
        arrays, half = [a.copy() for a in start], np.zeros((50, 41), np.float16)
        fast.update_rule(*known, arrays, numbers, None if go is None else np.array(go), half)
        found.append([*arrays, half])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.array_equal(found[0][0], start[0]) == (go is False)


def test_adam_of_float64_is_compiled(monkeypatch, rng):
    numba = request_backend("numba")
    monkeypatch.setattr(Adam, "rule", None)  # not to be called
    arrays = [rng.random((30, 41)) for _ in range(4)]
    numba.update_rule("adam", Adam().rule, Adam().settings(), arrays, (0.1, 3.0))
    assert numba.providers("float64")["update_rule"] == "numba"


@pytest.mark.parametrize("shape", [(3, 4, 5), (700, 100, 50), (1, 20_000, 700), (500, 300, 200)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("turned", [False, True])
def test_matmul(fast, setting, rng, shape, dtype, turned):
    m, k, n = shape
    a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    if turned:
        a, b = np.ascontiguousarray(a.T).T, np.ascontiguousarray(b.T).T
    first = None
    for threads in "122":
        setting(threads, 5000)
        product = fast.matmul(a, b)
        first = product if first is None else first
        np.testing.assert_array_equal(first, product)
    assert first.dtype == dtype
    np.testing.assert_allclose(first, exact, rtol=1e-4, atol=1e-3)


# ---- the quick way is taken -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["numpy", "numba"])
@pytest.mark.parametrize("kind", [DeepConvNet, NormalizedConvNet])
def test_a_step_of_float32_takes_the_quick_way_all_along(monkeypatch, rng, name, kind):
    # A fall-back would give the right numbers, late, and nobody would know.
    fast = request_backend(name)
    slower = [kind for kind in type(fast).__mro__[1:] if issubclass(kind, Backend)]
    overrides = {name for name, value in vars(type(fast)).items() if inspect.isfunction(value)}
    overrides -= {
        "describe",
        "ways",
        "matmul",
        "relu",
        "relu_backward",
    }  # small ones go the plain way
    if "update_rule" in overrides:  # which asks NumPy's for what stands around a rule
        overrides -= {"update_rule"}
        monkeypatch.setattr(Adam, "rule", lambda *arrays: refuse())

    def refuse(*arguments, **options):
        raise AssertionError("the slow way")

    monkeypatch.setattr(numpy_elements, "PART_BYTES", 50_000)  # eight images are little else
    network = kind()
    network.to(fast)
    for kind in slower:
        for override in overrides & vars(kind).keys():
            monkeypatch.setattr(kind, override, refuse)
    x, t = rng.random((8, 1, 28, 28), np.float32), rng.integers(0, 10, 8)
    with use_backend(fast):
        network.forward_backward(x, t)
        Adam().update(network.params, network.grads)


@pytest.mark.parametrize("name", ["numpy", "numba"])
@pytest.mark.parametrize("kind", [DeepConvNet, NormalizedConvNet])
def test_training_gives_the_same_bits_on_any_number_of_threads(monkeypatch, rng, name, kind):
    fast = request_backend(name)
    x, t = rng.random((40, 1, 28, 28), np.float32), rng.integers(0, 10, 40)
    options = {"widths": (16, 20, 24)} if kind is NormalizedConvNet else {}
    ends = []
    for threads in "123":
        monkeypatch.setenv("XPDL_THREADS", threads)
        with use_backend(fast):
            network, optimizer = kind(seed=3, **options), Adam()
            for _ in range(2):
                network.forward_backward(x, t)
                optimizer.update(network.params, network.grads)
        ends.append(network.params.buffer.copy())
    np.testing.assert_array_equal(ends[0], ends[1])
    np.testing.assert_array_equal(ends[0], ends[2])
