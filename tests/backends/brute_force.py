"""What the primitives mean, in loops and float64; and the shapes that they are tried on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

LAYOUTS = ("c", "channels_last", "strided", "reversed", "read_only")
RELATIVE_ERROR = {"float16": 1e-2, "float32": 1e-5, "float64": 1e-12}


@dataclass(frozen=True)
class Case:
    """One geometry of windows over an image, with the seed and the layout of its numbers."""

    n: int
    c: int
    h: int
    w: int
    size: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]
    filters: int
    layout: str
    dtype: str
    seed: int

    @property
    def shape(self):
        return self.n, self.c, self.h, self.w

    @property
    def out(self):
        return tuple(
            len(range(0, length + 2 * pad - size + 1, stride))
            for length, size, stride, pad in zip(
                self.shape[2:], self.size, self.stride, self.pad, strict=True
            )
        )

    @property
    def windows(self):
        return self.size, self.stride, self.pad

    def numbers(self, *shape, salt=0, whole=False):
        """Seeded numbers in the case's dtype; small whole ones, with many ties, if asked."""
        rng = np.random.default_rng([self.seed, salt])
        if whole:
            return rng.integers(-2, 2, shape).astype(self.dtype)
        return rng.standard_normal(shape).astype(self.dtype)


@st.composite
def cases(draw, dtypes=("float32", "float64", "float16"), batches=(1, 3)):
    size = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    pad = draw(st.just((0, 0)) | st.tuples(st.integers(0, 4), st.integers(0, 4)))
    h, w = (
        draw(st.integers(max(1, k - 2 * p), max(1, k - 2 * p) + 5))
        for k, p in zip(size, pad, strict=True)
    )
    return Case(
        n=draw(st.integers(*batches)),
        c=draw(st.integers(1, 3)),
        h=h,
        w=w,
        size=size,
        stride=draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        pad=pad,
        filters=draw(st.integers(1, 3)),
        layout=draw(st.sampled_from(LAYOUTS)),
        dtype=draw(st.sampled_from(dtypes)),
        seed=draw(st.integers(0, 2**16)),
    )


def placed(backend, a, layout):
    """Return the numbers of the host array `a` (4-D) on a backend, laid out in memory as named."""
    if layout == "channels_last":
        last = np.ascontiguousarray(a.transpose(0, 2, 3, 1))
        return backend.asarray(last).transpose(0, 3, 1, 2)
    if layout == "strided":
        n, c, h, w = a.shape
        wide = np.full((n, 2 * c, 2 * h, 3 * w), np.nan, a.dtype)
        wide[:, ::2, ::2, 1::3] = a
        return backend.asarray(wide)[:, ::2, ::2, 1::3]
    if layout == "reversed":
        return backend.asarray(np.ascontiguousarray(a[:, :, ::-1, ::-1]))[:, :, ::-1, ::-1]
    placed = backend.asarray(a.copy())
    if layout == "read_only" and backend.name != "cupy":
        placed.flags.writeable = False
    return placed


def assert_close(backend, actual, expected, dtype, like=None):
    """Hold an array of a backend to float64 numbers: shape, dtype, values (as exact as `like`)."""
    host = backend.to_numpy(actual)
    assert host.dtype == dtype
    assert host.shape == expected.shape
    tolerance = RELATIVE_ERROR[str(np.dtype(like or dtype))]
    finite = np.abs(expected[np.isfinite(expected)])
    scale = max(1.0, float(finite.max(initial=0)))
    np.testing.assert_allclose(
        host.astype(np.float64), expected, rtol=tolerance, atol=tolerance * scale
    )


def sum_dtype(dtype):
    """Return the type in which gradients of parameters come: sums are in float32 at least."""
    return "float32" if dtype == "float16" else dtype


def pixels(case):
    """Yield ((i, j), [(k, l, row, column), ...]): each window, and the pixels of x under it."""
    (fh, fw), (sh, sw), (ph, pw) = case.windows
    for i in range(case.out[0]):
        for j in range(case.out[1]):
            inside = []
            for k in range(fh):
                for m in range(fw):
                    row, column = i * sh + k - ph, j * sw + m - pw
                    if 0 <= row < case.h and 0 <= column < case.w:
                        inside.append((k, m, row, column))
            yield (i, j), inside


def im2col(case, x):
    n, c, (fh, fw), (oh, ow) = case.n, case.c, case.size, case.out
    col = np.zeros((n, oh, ow, c, fh, fw))
    for (i, j), inside in pixels(case):
        for k, m, row, column in inside:
            col[:, i, j, :, k, m] = x[:, :, row, column]
    return col.reshape(n * oh * ow, c * fh * fw)


def convolution(case, x, W, b):
    x, W = x.astype(np.float64), W.astype(np.float64)
    y = np.zeros((case.n, case.filters, *case.out))
    for (i, j), inside in pixels(case):
        for k, m, row, column in inside:
            for c in range(case.c):
                y[:, :, i, j] += np.outer(x[:, c, row, column], W[:, c, k, m])
    return y if b is None else y + b.astype(np.float64)[:, None, None]


def convolution_backward(case, dout, x, W):
    dout, x, W = (a.astype(np.float64) for a in (dout, x, W))
    dx, dW = np.zeros(x.shape), np.zeros(W.shape)
    for (i, j), inside in pixels(case):
        for k, m, row, column in inside:
            for n in range(case.n):
                for f in range(case.filters):
                    dx[n, :, row, column] += dout[n, f, i, j] * W[f, :, k, m]
                    dW[f, :, k, m] += dout[n, f, i, j] * x[n, :, row, column]
    return dx, dW, dout.sum(axis=(0, 2, 3))


def max_pooling(case, x, dout):
    """Return y, and dx for `dout`: the first of the largest wins."""
    y, dx = np.full((case.n, case.c, *case.out), -math.inf), np.zeros(x.shape)
    for (i, j), inside in pixels(case):
        for n in range(case.n):
            for c in range(case.c):
                best = None
                for _, _, row, column in inside:
                    value = float(x[n, c, row, column])
                    if best is None or value > y[n, c, i, j]:
                        best, y[n, c, i, j] = (row, column), value
                if best is not None:
                    dx[n, c, best[0], best[1]] += float(dout[n, c, i, j])
    return y, dx


def average_pooling(case, x, dout):
    """Return y, and dx for `dout`: the padding counts as zeros."""
    y, dx = np.zeros((case.n, case.c, *case.out)), np.zeros(x.shape)
    area = case.size[0] * case.size[1]
    for (i, j), inside in pixels(case):
        for _, _, row, column in inside:
            y[:, :, i, j] += x[:, :, row, column].astype(np.float64) / area
            dx[:, :, row, column] += dout[:, :, i, j].astype(np.float64) / area
    return y, dx
