"""Local response normalisation for the backend ``numba``, a pixel at a time."""

from __future__ import annotations

import numpy as np

from xpdl.backends.base.types import Array
from xpdl.backends.numba.cache import compiled
from xpdl.backends.numba.pixels import by_pixel
from xpdl.backends.numpy.memory import pool
from xpdl.backends.numpy.threads import workers

PART = 50_000
"""A part is worth a thread's waking if it has so many numbers."""


def normalize(x: Array, size: int, bias: float, alpha: float, beta: float) -> tuple[Array, Array]:
    """Return what `Backend.normalize_response` does, for float32 that lies pixel by pixel."""
    y, s = pool.empty_like(x), pool.empty_like(x)
    flat, flat_y, flat_s = (_lines(a) for a in (x, y, s))
    numbers = np.array([bias, alpha, beta], np.float32)
    workers.each(
        _parts(flat),
        lambda part: _normalize(flat[part], size, numbers, flat_y[part], flat_s[part]),
    )
    return y, s


def backward(dout: Array, x: Array, s: Array, size: int, alpha: float, beta: float) -> Array:
    """Return what `Backend.normalize_response_backward` does."""
    dx = pool.empty_like(dout)
    gradient, flat, flat_s, flat_dx = (_lines(a) for a in (dout, x, s, dx))
    numbers = np.array([0, alpha, beta], np.float32)
    workers.each(
        _parts(flat),
        lambda part: _backward(
            gradient[part], flat[part], flat_s[part], size, numbers, flat_dx[part]
        ),
    )
    return dx


def _lines(a: Array) -> Array:
    """Return a view (pixels, C) of an array (N, C, H, W) that lies pixel by pixel."""
    return by_pixel(a).reshape(-1, a.shape[1])


def _parts(lines: Array) -> list[slice]:
    step = max(1, PART // lines.shape[1])
    return [slice(i, i + step) for i in range(0, len(lines), step)]


@compiled
def _add_beside(x, before, after, total):
    """Add to each number of `total` those of x from `before` places before it to `after` after."""
    c = len(total)
    for step in range(-min(before, c - 1), min(after, c - 1) + 1):
        if step < 0:
            here, there = total[-step:], x[: c + step]
        else:
            here, there = total[: c - step], x[step:]
        for f in range(len(here)):
            here[f] += there[f]


@compiled
def _powers(s, beta, y):
    """Y = s^-beta; roots are quicker than a power."""
    if beta == np.float32(0.75):
        for f in range(len(y)):
            root = np.sqrt(s[f])
            y[f] = np.float32(1) / (root * np.sqrt(root))
    else:
        for f in range(len(y)):
            y[f] = s[f] ** -beta


@compiled
def _normalize(x, size, numbers, y, s):
    c = x.shape[1]
    bias, alpha, beta = numbers
    squares, total, powers = np.empty(c, x.dtype), np.empty(c, x.dtype), np.empty(c, x.dtype)
    for k in range(len(x)):
        pixel, out, around = x[k], y[k], s[k]
        for f in range(c):
            squares[f] = pixel[f] * pixel[f]
            total[f] = 0
        _add_beside(squares, size // 2, (size - 1) // 2, total)
        for f in range(c):
            around[f] = bias + alpha * total[f]
        _powers(around, beta, powers)
        for f in range(c):
            out[f] = pixel[f] * powers[f]


@compiled
def _backward(gradient, x, s, size, numbers, dx):
    c = x.shape[1]
    _, alpha, beta = numbers
    scaled, shares, total = np.empty(c, x.dtype), np.empty(c, x.dtype), np.empty(c, x.dtype)
    factor = np.float32(2) * alpha * beta
    for k in range(len(x)):
        pixel, around, given, out = x[k], s[k], gradient[k], dx[k]
        _powers(around, beta, scaled)
        for f in range(c):
            scaled[f] *= given[f]
            shares[f] = scaled[f] * pixel[f] / around[f]
            total[f] = 0
        _add_beside(shares, (size - 1) // 2, size // 2, total)
        for f in range(c):
            out[f] = scaled[f] - factor * pixel[f] * total[f]
