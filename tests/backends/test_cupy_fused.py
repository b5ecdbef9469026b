"""What the fused kernels treat apart, held to the generic primitives in float64.

On a GPU where there is one, and on the CPU through the rehearsal.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
from brute_force import assert_close, sum_dtype

import xpdl
from xpdl import backends
from xpdl.backends import get_backend
from xpdl.backends.cupy import cublas, launching
from xpdl.backends.cupy import fused as cupy_fused
from xpdl.backends.cupy.backend import CupyBackend
from xpdl.errors import BackendError, BackendUnavailableError, ShapeError, UnknownNameError

PLAIN = get_backend("generic")
DTYPES = ["float16", "float32", "float64"]


@pytest.fixture(params=["rehearsed", pytest.param("gpu", marks=pytest.mark.gpu)])
def fused(request):
    backend = (
        request.getfixturevalue("rehearsed")
        if request.param == "rehearsed"
        else get_backend("cupy")
    )
    with xpdl.use_backend(backend):
        yield backend


@pytest.mark.parametrize("channels", [1, 3, 8, 12])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("at_once", [1, 3000, 10**9])
def test_convolution_in_spans_and_in_pieces_of_16_bytes(
    fused, monkeypatch, rng, at_once, dtype, channels
):
    monkeypatch.setattr(launching, "COLUMN_BYTES", at_once)
    x = rng.standard_normal((5, 7, 6, channels)).astype(dtype)
    W = rng.standard_normal((4, channels, 3, 2)).astype(dtype)
    b = rng.standard_normal(4).astype(dtype)
    stride, pad = (2, 1), (1, 1)
    last = fused.asarray(x).transpose(0, 3, 1, 2)
    host = [a.astype(np.float64) for a in (x.transpose(0, 3, 1, 2), W, b)]
    for there in (last, fused.xp.ascontiguousarray(last)):
        for relu in (False, True):
            y = fused.convolution(there, fused.asarray(W), fused.asarray(b), stride, pad, relu)
            expected = PLAIN.convolution(*host, stride, pad, relu)
            assert_close(fused, y, expected, dtype)
        dout = rng.standard_normal(y.shape).astype(dtype)
        found = fused.convolution_backward(
            fused.asarray(dout), there, fused.asarray(W), stride, pad
        )
        wanted = PLAIN.convolution_backward(dout.astype(np.float64), *host[:2], stride, pad)
        for actual, expected, kind in zip(
            found, wanted, (dtype, sum_dtype(dtype), sum_dtype(dtype)), strict=True
        ):
            assert_close(fused, actual, expected, kind)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_begins_between_pieces_goes_number_by_number(fused, rng, dtype):
    """A GPU refuses to read 16 bytes from where 16 bytes may not begin."""

    def channels_last(shift):
        numbers = fused.asarray(np.concatenate([np.zeros(shift), values.ravel()]).astype(dtype))
        return numbers[shift:].reshape(values.shape).transpose(0, 3, 1, 2)

    found = []
    values, weights = rng.standard_normal((3, 4, 6, 8)), rng.standard_normal((5, 8, 3, 3))
    wide, window = sum_dtype(dtype), ((2, 2), (2, 2), (0, 0))
    for shift in (0, 1):
        x = channels_last(shift)
        total, bias = fused.xp.zeros(8, wide), channels_last(shift)[0, :, 0, 0]
        y, winners = fused.max_pooling(x, *window, train=True)
        by_y = fused.xp.empty_like(y)
        by_y[...] = y
        results = [fused.relu(x), fused.relu_backward(x, x), fused.dropout_backward(x, x), y]
        results += [fused.relu_backward(x, x, total), total.copy()]
        results += [fused.max_pooling_backward(by_y, winners, x.shape, *window, y, total), total]
        rows = fused.xp.ascontiguousarray(x.transpose(0, 2, 3, 1)).reshape(-1, 8)
        fused.add_bias(rows, bias, relu=True)
        W = fused.asarray(weights.astype(dtype))
        results += [rows, fused.sum(x.transpose(0, 2, 3, 1).reshape(-1, 8), axis=0)]
        results += [fused.convolution(x, W, None, (1, 1), (1, 1))]
        results += fused.convolution_backward(results[-1], x, W, (1, 1), (1, 1))
        found.append([fused.to_numpy(a) for a in results])
    for whole, shifted in zip(*found, strict=True):
        assert_close(fused, fused.asarray(shifted), whole.astype(np.float64), whole.dtype)
    assert fused.to_numpy(fused._finished).tolist() == [0]


@pytest.mark.parametrize("begin", [0, 1])
@pytest.mark.parametrize("bad", [None, 0, 35, 36])
def test_the_end_of_a_step_in_pieces_and_number_by_number(fused, rng, begin, bad):
    """37 numbers are nine pieces and one more."""
    g = rng.standard_normal(begin + 37).astype(np.float32)
    if bad is not None:
        g[begin + bad] = np.inf
    there, loss = fused.asarray(g)[begin:], fused.asarray(np.array(2.5, np.float32))
    go, marked = fused.all_finite(loss, there)
    assert bool(fused.item(go)) == (bad is None)
    np.testing.assert_equal(fused.item(marked), 2.5 if bad is None else np.nan)
    np.testing.assert_array_equal(fused.to_numpy(there), g[begin:])
    go = fused.unscale(there, fused.asarray(np.array(4, np.float32)))
    assert bool(fused.item(go)) == (bad is None)
    np.testing.assert_array_equal(fused.to_numpy(there), g[begin:] / 4)


@pytest.mark.parametrize("begin", [0, 1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_draws_the_same_however_it_is_read(fused, rng, dtype, begin):
    x = rng.standard_normal(begin + 37).astype(dtype)
    y, mask = fused.dropout(fused.generator(3), fused.asarray(x)[begin:], 0.4, 1.5)
    drawn = np.random.Generator(np.random.Philox(np.random.SeedSequence(3)))
    wanted = ((drawn.random(37, dtype=np.float32) >= 0.4) * 1.5).astype(dtype)
    np.testing.assert_array_equal(fused.to_numpy(mask), wanted)
    np.testing.assert_array_equal(fused.to_numpy(y), x[begin:] * wanted)


@pytest.mark.parametrize("shape", [(1, 1), (127, 3), (129, 40), (1000, 33), (70_000, 2)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_in_parts(fused, rng, dtype, shape):
    x = rng.standard_normal(shape).astype(dtype)
    expected = x.astype(np.float64).sum(axis=0)
    wide = sum_dtype(dtype)
    total = fused.sum(fused.asarray(x), axis=0, dtype=wide)
    assert total.dtype == wide
    error = 1e-5 if wide == "float32" else 1e-12
    np.testing.assert_allclose(fused.to_numpy(total), expected, rtol=error, atol=300 * error)
    assert fused.sum(fused.asarray(x), axis=0).dtype == dtype


@pytest.mark.parametrize("classes", [1, 10, 128, 129, 1000])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("one_hot", [False, True])
def test_softmax_with_loss(fused, rng, one_hot, dtype, classes):
    x = (10 * rng.standard_normal((7, classes))).astype(dtype)
    t = rng.integers(0, classes, 7).astype(np.uint8 if classes == 10 else np.int64)
    if one_hot:
        t = rng.dirichlet(np.ones(classes), 7).astype(sum_dtype(dtype))
    there, targets = fused.asarray(x), fused.asarray(t)
    loss, y = fused.softmax_with_loss(there, targets)
    expected_loss, expected_y = PLAIN.softmax_with_loss(x.astype(np.float64), t)
    assert_close(fused, loss, np.asarray(expected_loss), sum_dtype(dtype))
    assert_close(fused, y, expected_y, sum_dtype(dtype))
    for dout in (1.0, fused.asarray(3.0, y.dtype)):
        dx = fused.softmax_with_loss_backward(y, targets, dout, np.dtype(dtype))
        wanted = PLAIN.softmax_with_loss_backward(
            expected_y, t, 1.0 if isinstance(dout, float) else 3.0, np.float64
        )
        assert_close(fused, dx, wanted, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_backward_of_targets_that_sum_to_more(fused, rng, dtype):
    x, t = rng.standard_normal((7, 5)).astype(dtype), 3 * rng.random((7, 5)).astype("float64")
    wide = sum_dtype(dtype)
    _, y = fused.softmax_with_loss(fused.asarray(x), fused.asarray(t, wide))
    _, expected_y = PLAIN.softmax_with_loss(x.astype("float64"), t)
    sums = t.sum(axis=1)
    there = fused.asarray(t, wide), 2.0, np.dtype(dtype), fused.asarray(sums, wide)
    dx = fused.softmax_with_loss_backward(y, *there)
    wanted = PLAIN.softmax_with_loss_backward(expected_y, t, 2.0, np.dtype("float64"), sums)
    np.testing.assert_allclose(wanted, (expected_y * sums[:, None] - t) * 2 / 7)
    assert_close(fused, dx, wanted, dtype)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_a_number_stays_so(fused, bad):
    """A GPU's max and min would hide it, and a training would go on with rubbish."""
    x = np.array([[1.0, -1.0, bad, 0.0]], np.float32)
    there = fused.asarray(x)
    np.testing.assert_array_equal(fused.to_numpy(fused.relu(there)), np.maximum(x, 0))
    y = there.copy()
    fused.add_bias(y, fused.asarray(np.ones(4, np.float32)), relu=True)
    np.testing.assert_array_equal(fused.to_numpy(y), np.maximum(x + 1, 0))
    loss, _ = fused.softmax_with_loss(there, fused.asarray(np.array([0])))
    assert np.isnan(fused.item(loss))
    pooled, winners = fused.max_pooling(there.reshape(1, 1, 2, 2), (2, 2), (2, 2), (0, 0), True)
    np.testing.assert_array_equal(fused.to_numpy(pooled), np.full((1, 1, 1, 1), bad))
    assert fused.to_numpy(winners).ravel().tolist() == [2]


@pytest.mark.parametrize("source", ["uint8", "float32", "float64", "int64"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("divisor", "width"), [(None, 5), (255, 5), (255, 16)])
def test_gather(backend, rng, divisor, width, dtype, source):
    x = rng.integers(0, 256, (20, 3, width)).astype(source)
    part = rng.permutation(20)[:7]
    rows = backend.gather(backend.asarray(x), backend.asarray(part), np.dtype(dtype), divisor)
    assert rows.dtype == dtype
    wide = np.dtype(sum_dtype(dtype)).type
    expected = x[part].astype(wide) / wide(divisor or 1)
    np.testing.assert_array_equal(backend.to_numpy(rows), expected.astype(dtype))


@pytest.mark.parametrize("source", ["uint8", "float32"])
def test_gather_reads_nothing_beyond_the_rows(fused, source):
    x, part = np.arange(12).reshape(4, 3).astype(source), np.array([3, -1, -4, 4, -5, 2**62])
    rows = fused.to_numpy(fused.gather(fused.asarray(x), fused.asarray(part), np.float32, 2))
    np.testing.assert_array_equal(rows[:3], x[[3, 3, 0]] / 2)
    assert np.isnan(rows[3:]).all()


@pytest.mark.parametrize("tf32", [False, True])
def test_products_of_any_layout(fused, rng, tf32):
    products = cublas.Products(fused.xp, fused._products._library, tf32)
    a, b = rng.standard_normal((2, 9, 9)).astype(np.float32)
    for left, right in (
        (np.s_[:4, :5], np.s_[:5, :6]),
        (np.s_[1:5, 2:7], np.s_[3:8, :]),
        (np.s_[:1, :5], np.s_[:5, :1]),
        (np.s_[:5, :1], np.s_[:1, :5]),
        (np.s_[::2, :4], np.s_[1:5, ::3]),
    ):
        for turn_a in (False, True):
            for turn_b in (False, True):
                m, n = a[left], b[right]
                there_m, there_n = fused.asarray(a)[left], fused.asarray(b)[right]
                if turn_a:
                    there_m = fused.xp.ascontiguousarray(there_m.T).T
                if turn_b:
                    there_n = fused.xp.ascontiguousarray(there_n.T).T
                out = fused.xp.ones((m.shape[0], n.shape[1]), np.float32)
                products.multiply(there_m, there_n, out, accumulate=True)
                error = 5e-3 if tf32 else 1e-5
                np.testing.assert_allclose(fused.to_numpy(out), 1 + m @ n, rtol=error, atol=error)


def test_products_of_nothing(fused):
    empty = fused.xp.zeros((3, 0), np.float32)
    np.testing.assert_array_equal(fused.to_numpy(fused.matmul(empty, empty.T)), np.zeros((3, 3)))
    assert fused.matmul(empty.T, empty).shape == (0, 0)


def test_a_product_that_does_not_fit_is_refused(rehearsed):
    ones = rehearsed.xp.ones((2, 3), np.float32)
    with pytest.raises(ShapeError, match=r"\(2, 3\) and \(2, 3\)"):
        rehearsed.matmul(ones, ones)


def test_an_image_beyond_what_a_kernel_counts_is_refused():
    with pytest.raises(ShapeError, match="XPDL_PROVIDER=generic"):
        list(launching.spans_of(1, 2**30 + 1))
    assert list(launching.spans_of(5, 2**29)) == [slice(0, 2), slice(2, 4), slice(4, 5)]


def test_a_failing_library_is_named(rehearsed, monkeypatch):
    class Failing:
        class Call:
            def __call__(self, *_):
                return 13

        cublasGemmEx = cublasCreate_v2 = Call()

    with pytest.raises(BackendError, match=r"cublasCreate failed with cuBLAS's status 13"):
        cublas.Products(rehearsed.xp, Failing())


def test_a_missing_library_says_how_to_get_it(rehearsed, monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(cublas.ctypes, "CDLL", missing)
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    with pytest.raises(BackendUnavailableError, match=r"cuBLAS of CUDA 13.*pip install"):
        cublas.load_cublas(rehearsed.xp)


def test_the_provider_is_chosen_by_name(rehearsed, monkeypatch):
    monkeypatch.setattr(backends, "_made", {})
    monkeypatch.setitem(sys.modules, "cupy", rehearsed.xp)
    monkeypatch.setattr(cupy_fused, "load_cublas", lambda cupy: rehearsed._products._library)
    monkeypatch.setenv("XPDL_PROVIDER", "generic")
    generic = get_backend("cupy")
    assert type(generic) is CupyBackend
    assert not generic.compiles
    assert set(generic.providers().values()) == {"generic", "cupy"}
    monkeypatch.setattr(backends, "_made", {})
    monkeypatch.setenv("XPDL_PROVIDER", "fused")
    assert set(get_backend("cupy").providers().values()) == {"generic", "fused"}
    monkeypatch.setattr(backends, "_made", {})
    monkeypatch.setenv("XPDL_PROVIDER", "fussed")
    with pytest.raises(UnknownNameError, match=r"XPDL_PROVIDER.*Did you mean 'fused'"):
        get_backend("cupy")
    assert "XPDL_PROVIDER" in backends.available_backends()["cupy"]


def test_what_still_takes_the_generic_way(rehearsed):
    """Average pooling, normalisations, groups, ReLU6 and counts of pixels; `xpdl info` says so.

    And a convolution with its pooling, or normalised, which are calls of what is there.
    """
    providers = rehearsed.providers()
    generic = {name for name, provider in providers.items() if provider == "generic"}
    both_ways = {
        "normalize",
        "average_pooling",
        "grouped_convolution",
        "normalize_response",
        "relu6",
    }
    wanted = {name + way for name in both_ways for way in ("", "_backward")}
    assert generic == wanted | {
        "moments",
        "confusion",
        "convolution_pooling",
        "convolution_normalized",
    }
