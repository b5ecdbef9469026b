"""Local response normalisation for the backend ``numba``, a pixel at a time."""

from __future__ import annotations

import numpy as np

from xpdl.backends.base.types import Array
from xpdl.backends.numba.cache import compiled
from xpdl.backends.numba.pixels import by_pixel
from xpdl.backends.numba.sharing import cut, next_part, share
from xpdl.backends.numba.threads import shared
from xpdl.backends.numpy.memory import pool

COST = 10
"""A number takes as long as so many multiplications."""


def normalize(x: Array, size: int, bias: float, alpha: float, beta: float) -> tuple[Array, Array]:
    """Return what `Backend.normalize_response` does, for float32 that lies pixel by pixel."""
    y, s = pool.empty_like(x), pool.empty_like(x)
    flat, flat_y, flat_s = (_lines(a) for a in (x, y, s))
    numbers = np.array([bias, alpha, beta], np.float32)
    share(_parts(flat), _normalize, flat, size, numbers, flat_y, flat_s)
    return y, s


def backward(dout: Array, x: Array, s: Array, size: int, alpha: float, beta: float) -> Array:
    """Return what `Backend.normalize_response_backward` does."""
    dx = pool.empty_like(dout)
    gradient, flat, flat_s, flat_dx = (_lines(a) for a in (dout, x, s, dx))
    numbers = np.array([0, alpha, beta], np.float32)
    share(_parts(flat), _backward, gradient, flat, flat_s, size, numbers, flat_dx)
    return dx


def _lines(a: Array) -> Array:
    """Return a view (pixels, C) of an array (N, C, H, W) that lies pixel by pixel."""
    return by_pixel(a).reshape(-1, a.shape[1])


def _parts(lines: Array) -> Array:
    return cut(len(lines), COST * lines.shape[1])


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


@shared
def _normalize(x, size, numbers, y, s, shares):
    c = x.shape[1]
    bias, alpha, beta = numbers
    squares, total, powers = np.empty(c, x.dtype), np.empty(c, x.dtype), np.empty(c, x.dtype)
    part, first, last = next_part(shares)
    while part >= 0:
        for k in range(first, last):
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
        part, first, last = next_part(shares)


@shared
def _backward(gradient, x, s, size, numbers, dx, shares):
    c = x.shape[1]
    _, alpha, beta = numbers
    scaled, ratios, total = np.empty(c, x.dtype), np.empty(c, x.dtype), np.empty(c, x.dtype)
    factor = np.float32(2) * alpha * beta
    part, first, last = next_part(shares)
    while part >= 0:
        for k in range(first, last):
            pixel, around, given, out = x[k], s[k], gradient[k], dx[k]
            _powers(around, beta, scaled)
            for f in range(c):
                scaled[f] *= given[f]
                ratios[f] = scaled[f] * pixel[f] / around[f]
                total[f] = 0
            _add_beside(ratios, (size - 1) // 2, size // 2, total)
            for f in range(c):
                out[f] = scaled[f] - factor * pixel[f] * total[f]
        part, first, last = next_part(shares)
