"""Every override is held to the base's signature, and NumPy's to the base's numbers."""

from __future__ import annotations

import inspect

import brute_force
import numpy as np
import pytest
from brute_force import Case, assert_close, cases, placed
from hypothesis import given
from hypothesis import strategies as st

from xpdl.backends import Backend, get_backend, numpy_backend
from xpdl.backends.cupy_backend import CupyBackend
from xpdl.backends.numpy_backend import NumpyBackend
from xpdl.backends.strict_backend import StrictBackend

SUBCLASSES = [NumpyBackend, CupyBackend, StrictBackend]
OVERRIDES = [
    pytest.param(kind, name, id=f"{kind.__name__}.{name}")
    for kind in SUBCLASSES
    for name, value in vars(kind).items()
    if inspect.isfunction(value) and hasattr(Backend, name) and not name.startswith("__")
]
HELD_TO_NUMBERS = {
    "convolution",
    "convolution_backward",
    "max_pooling",
    "max_pooling_backward",
}


@pytest.fixture
def fast():
    return get_backend("numpy")


@pytest.fixture
def plain():
    return Backend()


threads = st.sampled_from(["1", "2", "3", "7"])
block_bytes = st.sampled_from([1, 700, numpy_backend.BLOCK_BYTES])


@pytest.fixture
def setting(monkeypatch):
    """Return a function that sets the number of threads and the size of a block."""

    def set_(count, size):
        monkeypatch.setenv("XPDL_THREADS", count)
        monkeypatch.setattr(numpy_backend, "BLOCK_BYTES", size)

    return set_


def test_every_backend_is_looked_at():
    ours = {kind for kind in Backend.__subclasses__() if kind.__module__.startswith("xpdl.")}
    assert ours == set(SUBCLASSES)
    assert {kind.name for kind in SUBCLASSES} == {"numpy", "cupy", "strict"}
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
    names = {name for name, value in vars(NumpyBackend).items() if inspect.isfunction(value)}
    assert names == HELD_TO_NUMBERS


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
    for actual, wanted in zip(results, expected, strict=True):
        if wanted is not None:
            assert_close(fast, actual, wanted.astype(np.float64), case.dtype)


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


@pytest.mark.parametrize("threads", ["1", "2", "3"])
def test_the_same_call_gives_the_same_bits(fast, setting, rng, threads):
    setting(threads, 5000)
    x = rng.standard_normal((11, 3, 9, 9)).astype(np.float32)
    W = rng.standard_normal((5, 3, 3, 3)).astype(np.float32)
    first = None
    for _ in range(5):
        y = fast.convolution(x, W, W[:, 0, 0, 0].copy(), (1, 1), (1, 1))
        results = [y, *fast.convolution_backward(y, x, W, (1, 1), (1, 1))]
        first = first or results
        for once, again in zip(first, results, strict=True):
            np.testing.assert_array_equal(once, again)


@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
def test_blocks_keep_to_their_size(fast, setting, monkeypatch, rng, stride):
    # Windows of more than a block's bytes go through in parts, whatever the batch.
    setting("1", 20_000)
    sizes = []
    blocks = numpy_backend._blocks

    def watched(*arguments):
        for block, rows in blocks(*arguments):
            sizes.append(rows.nbytes)
            yield block, rows

    monkeypatch.setattr(numpy_backend, "_blocks", watched)
    x = rng.random((30, 2, 8, 8), np.float32)  # 64 windows of 72 bytes an image at stride 1
    W = rng.random((3, 2, 3, 3), np.float32)
    y = fast.convolution(x, W, None, stride, (1, 1))
    fast.convolution_backward(y, x, W, stride, (1, 1))
    assert len(sizes) >= 4
    assert max(sizes) <= 20_000


def test_threads_share_the_batch(fast, setting, monkeypatch, rng):
    setting("3", numpy_backend.BLOCK_BYTES)
    parts = []
    blocks = numpy_backend._blocks

    def watched(windows, start, stop):
        parts.append((start, stop))
        return blocks(windows, start, stop)

    monkeypatch.setattr(numpy_backend, "_blocks", watched)
    x, W = rng.random((9, 1, 5, 5), np.float32), rng.random((2, 1, 2, 2), np.float32)
    fast.convolution(x, W, None, (1, 1), (1, 1))
    assert sorted(parts) == [(0, 3), (3, 6), (6, 9)]


def test_half_precision_is_multiplied_in_single(fast, plain, monkeypatch, rng):
    # NumPy has no BLAS for float16: the same product would take 200 times as long.
    seen = set()
    matmul = np.matmul

    def watched(a, b, **options):
        seen.update((a.dtype.name, b.dtype.name))
        return matmul(a, b, **options)

    monkeypatch.setattr(np, "matmul", watched)
    x = rng.standard_normal((2, 3, 5, 5)).astype(np.float16)
    W = rng.standard_normal((2, 3, 3, 3)).astype(np.float16)
    for backend in (fast, plain):
        y = backend.convolution(x, W, None, (1, 1), (1, 1))
        results = [y, *backend.convolution_backward(y, x, W, (1, 1), (1, 1))]
        assert {a.dtype.name for a in results} == {"float16"}
        assert seen == {"float32"}
