"""What tests of Winograd's way share: 3x3 convolutions of stride 1, forward and backward."""

from __future__ import annotations

import numpy as np

from xpdl.backends import Backend

ONE = (1, 1)
SHAPES = [
    (8, 16, (28, 28), 16, (1, 1)),
    (4, 64, (14, 14), 64, (1, 1)),
    (3, 256, (7, 7), 128, (1, 1)),
    (9, 64, (30, 31), 160, (2, 0)),  # several blocks and parts or tasks, of different sizes
]


def arrays(n, c, size, fn, pad, seed=0):
    """Return x, W, b and dL/dy, of single precision; images lie channels last."""
    rng = np.random.default_rng(seed)
    counts = [extent + 2 * p - 2 for extent, p in zip(size, pad, strict=True)]
    x, dout = (
        rng.standard_normal((n, *hw, k), np.float32).transpose(0, 3, 1, 2)
        for hw, k in ((size, c), (counts, fn))
    )
    return x, rng.standard_normal((fn, c, 3, 3), np.float32), rng.random(fn, np.float32), dout


def passes(backend, x, W, b, dout, pad):
    """Return y, dx, dW and db."""
    y = backend.convolution(x, W, b, ONE, pad)
    return y, *backend.convolution_backward(dout, x, W, ONE, pad)


def exact(*given):
    """Return the same from the textbook's sums, in float64."""
    *singles, pad = given
    return passes(Backend(), *(a.astype(np.float64) for a in singles), pad)


def error_is_at_most_four_times_the_direct_sums(backend, shape, monkeypatch):
    """Assert it, of convolutions by `backend` of `arrays` of a shape."""
    singles, pad = arrays(*shape), shape[-1]
    right = exact(*singles, pad)
    ours = passes(backend, *singles, pad)
    monkeypatch.setenv("XPDL_CONVOLUTION", "direct")
    direct = passes(backend, *singles, pad)
    for a, b, c in zip(ours[:3], direct[:3], right[:3], strict=True):
        assert not np.array_equal(a, b)  # it is another way
        np.testing.assert_allclose(b, c, rtol=1e-4, atol=1e-5 * np.abs(c).max())
        assert np.abs(a - c).max() <= 4 * np.abs(b - c).max()
        assert np.std(a - c) <= 4 * np.std(b - c)
