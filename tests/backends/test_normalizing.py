"""Batch normalisation's primitives against their formulas in float64, on every backend.

The faster ones are for large arrays: `all_large` makes small ones count as large, so that every
shape takes that way. Small ones else go the way of the backend ``generic``.
"""

from __future__ import annotations

import brute_force
import numpy as np
import pytest
from brute_force import assert_close, sum_dtype

from xpdl.backends import available_backends, get_backend
from xpdl.backends.numpy import elements as numpy_elements

SHAPES = [
    (6, 4),
    (1, 5),  # one row
    (33, 17),
    (3, 1500),  # a pixel longer than a line
    (5, 1),
    (4, 2, 4, 3),
    (1, 3, 5, 4),  # one image
    (1, 1, 1, 1),  # one number
    (7, 5, 1, 1),
    (3, 1, 6, 5),
    (13, 3, 7, 11),
    (9, 16, 7, 7),
]
LAYOUTS = ["c", "channels_last", "strided", "read_only"]


@pytest.fixture(params=["numpy", "numba"])
def fast(request):
    state = available_backends()[request.param]
    if state != "ready":
        pytest.skip(state)
    return get_backend(request.param)


@pytest.fixture
def all_large(monkeypatch):
    """Send every array the way of large ones, in as many parts as there can be."""
    monkeypatch.setattr(numpy_elements, "PART_BYTES", 1)
    if available_backends()["numba"] == "ready":
        from xpdl.backends.numba import elements, sharing

        monkeypatch.setattr(elements, "FEW_BYTES", 0)
        monkeypatch.setattr(sharing, "ENOUGH", 1)


def laid_out(backend, a, layout):
    if a.ndim == 4:
        return brute_force.placed(backend, a, layout)
    images = brute_force.placed(backend, a[:, :, None, None], layout)
    return images[:, :, 0, 0]


def rows(a):
    """Return the numbers of each feature of a host array, (C, M), in float64."""
    return np.moveaxis(a, 1, 0).reshape(a.shape[1], -1).astype(np.float64)


def like(values, a):
    """Put `rows` back into the shape of a."""
    n, c, *image = a.shape
    return np.moveaxis(values.reshape(c, n, *image), 0, 1)


def along(features, a):
    return features.reshape(-1, *(1,) * (a.ndim - 2)).astype(np.float64)


@pytest.mark.usefixtures("all_large")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_primitives_are_their_formulas(backend, rng, shape, layout, dtype):
    wide, c = sum_dtype(dtype), shape[1]
    x, dout = ((2 + 3 * rng.standard_normal(shape)).astype(dtype) for _ in range(2))
    gamma, shift = (rng.standard_normal(c).astype(dtype) for _ in range(2))
    factor = rng.standard_normal(c).astype(wide)
    there, dout_there = (laid_out(backend, a, layout) for a in (x, dout))

    mean, variance = backend.moments(there)
    assert_close(backend, mean, rows(x).mean(axis=1), wide)
    assert_close(backend, variance, rows(x).var(axis=1), wide)

    on_device = [backend.asarray(a) for a in (factor, shift)]
    y = backend.normalize(there, mean, *on_device)
    host_mean = backend.to_numpy(mean)
    expected = along(factor, x) * (x.astype(np.float64) - along(host_mean, x)) + along(shift, x)
    assert_close(backend, y, expected, dtype)

    inverse_std = (1 / np.sqrt(rows(x).var(axis=1) + 0.5)).astype(wide)
    dx, dgamma, dbeta = backend.normalize_backward(
        dout_there, there, mean, backend.asarray(inverse_std), backend.asarray(gamma)
    )
    g, istd, m = rows(dout), inverse_std.astype(np.float64)[:, None], rows(x).shape[1]
    xn = istd * (rows(x) - rows(x).mean(axis=1, keepdims=True))
    assert_close(backend, dgamma, (g * xn).sum(axis=1), wide)
    assert_close(backend, dbeta, g.sum(axis=1), wide)
    # Row by row of dy/dx: 1 where it is its own, less 1/M through the mean, less xn xn'/M through
    # the deviation.
    slopes = np.eye(m) - 1 / m - xn[:, :, None] * xn[:, None, :] / m
    expected = gamma.astype(np.float64)[:, None] * istd * np.einsum("cij,cj->ci", slopes, g)
    assert_close(backend, dx, like(expected, x), dtype)

    for array, before in ((there, x), (dout_there, dout)):
        np.testing.assert_array_equal(backend.to_numpy(array), before)


@pytest.mark.usefixtures("all_large")
@pytest.mark.parametrize("layout", ["c", "channels_last"])
def test_results_lie_in_memory_as_what_they_were_made_of(backend, rng, layout):
    x = laid_out(backend, rng.random((3, 4, 5, 2), np.float32), layout)
    dout = laid_out(backend, rng.random((3, 4, 5, 2), np.float32), layout)
    mean, variance = backend.moments(x)
    y = backend.normalize(x, mean, variance, mean)
    dx, *_ = backend.normalize_backward(dout, x, mean, variance, mean)
    assert y.strides == dx.strides == x.strides


@pytest.mark.usefixtures("all_large")
def test_a_gradient_of_another_memory_order_than_the_image(backend, rng):
    x, dout = (rng.standard_normal((5, 4, 3, 6)) for _ in range(2))
    factor = backend.asarray(rng.random(4))
    results = []
    for layouts in (("c", "c"), ("channels_last", "c"), ("c", "channels_last")):
        there, dout_there = (
            laid_out(backend, a, layout) for a, layout in zip((x, dout), layouts, strict=True)
        )
        mean, _ = backend.moments(there)
        results.append(backend.normalize_backward(dout_there, there, mean, factor, factor))
        for once, again in zip(results[0], results[-1], strict=True):
            np.testing.assert_allclose(
                *(backend.to_numpy(a) for a in (once, again)), rtol=1e-10, atol=1e-12
            )


# The generic mean is as exact as sums in float32 are, which is too little here.
@pytest.mark.parametrize("spread", [1.0, 0.01])
@pytest.mark.parametrize("first", [1000.0, 0.0])
def test_the_variance_far_from_zero(fast, rng, spread, first):
    # The naive mean(x^2) - mean(x)^2 in float32 would be off by 0.1 and more.
    x = (1000 + spread * rng.standard_normal((60, 14, 14, 16))).astype(np.float32)
    x[0, 0, 0] = first  # a pixel that is nothing like the others, in front
    images = x.transpose(0, 3, 1, 2)
    assert images.nbytes > numpy_elements.PART_BYTES
    mean, variance = fast.moments(images)
    np.testing.assert_allclose(mean, rows(images).mean(axis=1), rtol=2e-7)
    np.testing.assert_allclose(variance, rows(images).var(axis=1), rtol=2e-6)


def test_a_constant_has_no_variance(fast):
    mean, variance = fast.moments(np.full((7840, 32), 0.1, np.float32))
    np.testing.assert_allclose(mean, 0.1, rtol=1e-7)
    assert (variance >= 0).all()
    assert variance.max() < 1e-16


@pytest.mark.usefixtures("all_large")
@pytest.mark.parametrize("shape", [(37, 16, 14, 14), (5000, 30)])
def test_the_same_bits_on_any_number_of_threads(fast, monkeypatch, rng, shape):
    monkeypatch.setattr(numpy_elements, "PART_BYTES", 20_000)
    x, dout = (
        laid_out(fast, rng.standard_normal(shape).astype(np.float32), "channels_last")
        for _ in range(2)
    )
    first = None
    for threads in "11237":
        monkeypatch.setenv("XPDL_THREADS", threads)
        mean, variance = fast.moments(x)
        y = fast.normalize(x, mean, variance, mean)
        results = [mean, variance, y, *fast.normalize_backward(dout, x, mean, variance, mean)]
        first = first or results
        for once, again in zip(first, results, strict=True):
            np.testing.assert_array_equal(once, again)


@pytest.mark.usefixtures("all_large")
def test_not_a_number_stays_with_its_feature(backend, rng):
    x = rng.standard_normal((6, 5, 4, 3)).astype(np.float32)
    x[2, 1, 3, 0] = np.nan
    there = laid_out(backend, x, "channels_last")
    moments = backend.moments(there)
    for values in moments:
        np.testing.assert_array_equal(np.isnan(backend.to_numpy(values)), np.arange(5) == 1)


@pytest.mark.usefixtures("all_large")
@pytest.mark.parametrize("shape", [(2, 4, 5, 5), (3, 4, 5, 4), (3, 4)])
def test_a_gradient_that_does_not_fit_is_refused(fast, rng, shape):
    # A compiled loop would read beyond its end.
    x, dout = (laid_out(fast, rng.random(s), "channels_last") for s in ((3, 4, 5, 5), shape))
    x, dout = x.astype(np.float32), dout.astype(np.float32)
    mean, variance = fast.moments(x)
    with pytest.raises(ValueError, match=r"broadcast|shape"):
        fast.normalize_backward(dout, x, mean, variance, mean)


@pytest.mark.parametrize("shape", [(32, 16, 20, 20), (1000, 200)])
def test_what_is_large_and_of_float32_takes_the_quick_way(fast, monkeypatch, rng, shape):

    def refuse(*arguments):
        raise AssertionError("the slow way")

    room = type(fast).__module__.rpartition(".")[0]
    for kind in (kind for kind in type(fast).__mro__ if not kind.__module__.startswith(room)):
        for primitive in {"moments", "normalize", "normalize_backward"} & vars(kind).keys():
            monkeypatch.setattr(kind, primitive, refuse)
    x = laid_out(fast, rng.random(shape, np.float32), "channels_last")
    mean, variance = fast.moments(x)
    fast.normalize(x, mean, variance, mean)
    fast.normalize_backward(x, x, mean, variance, mean)
    with pytest.raises(AssertionError, match="the slow way"):
        fast.moments(x[:1])  # little is quickest done plainly
