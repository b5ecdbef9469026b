"""Compiled loops for the backend ``numba``: pooling, normalisation and what goes by elements.

Threads share a batch by calling the same function with the same `shares`; each takes parts of it
until none is left, without Python's lock.
"""

from __future__ import annotations

import numpy as np

from xpdl.backends.numba.cache import compiled
from xpdl.backends.numba.sharing import add, next_part
from xpdl.backends.numba.threads import shared
from xpdl.backends.numba.vectors import LANES, find_largest, give_to_winner

# Loops run over slices from zero on: Numba then knows that no index counts from the end, and LLVM
# can use vector instructions.


@shared
def max_pool(x, image, size, stride, pad, counts, y, winners, shares):
    """Find the largest number of each window, and its place; of equals the first; NaN wins."""
    (h, w, c), (fh, fw), (sh, sw), (ph, pw), (oh, ow) = image, size, stride, pad, counts
    places = np.array([(u * w + v) * c for u in range(fh) for v in range(fw)])
    registers = _registers(c)
    quick = ph == pw == 0 and c >= LANES and winners.itemsize == 1
    part, first, last = next_part(shares)
    while part >= 0:
        for line in range(first * oh, last * oh):
            i, p = divmod(line, oh)
            for q in range(ow):
                out = (line * ow + q) * c
                if quick:
                    at = ((i * h + p * sh) * w + q * sw) * c
                    for j in registers:
                        find_largest(x, at + j, places, y, out + j, winners, out + j)
                    continue
                largest, winner = y[out : out + c], winners[out : out + c]
                largest[:], winner[:] = -np.inf, 0  # of a window that sees padding alone
                begun = False
                for u in range(max(0, ph - p * sh), min(fh, h + ph - p * sh)):
                    for v in range(max(0, pw - q * sw), min(fw, w + pw - q * sw)):
                        at = ((i * h + p * sh + u - ph) * w + q * sw + v - pw) * c
                        pixel = x[at : at + c]
                        place = winners.dtype.type(u * fw + v)
                        if begun:
                            _take_larger(pixel, place, largest, winner)
                        else:
                            largest[:], winner[:] = pixel, place
                            begun = True
        part, first, last = next_part(shares)


@compiled
def _registers(c):
    """Return where c channels are taken by the register: the last one ends where they do."""
    return np.array([min(j, c - LANES) for j in range(0, c, LANES)])


@compiled
def _take_larger(pixel, place, largest, winner):
    for j in range(len(pixel)):
        new, old = pixel[j], largest[j]
        wins = (new > old) | ((new != new) & (old == old))
        largest[j] = new if wins else old
        winner[j] = place if wins else winner[j]


@shared
def max_pool_backward(gradient, winners, y, image, size, stride, pad, counts, dx, sums, shares):
    """Send each gradient to its window's winner; the rest of dx is zero.

    If there is a y, a gradient counts where that is positive, and sums[part, j] is what counts of a
    channel in the part's images.
    """
    (h, w, c), (fh, fw), (sh, sw), (ph, pw), (oh, ow) = image, size, stride, pad, counts
    places = np.array([(u * w + v) * c for u in range(fh) for v in range(fw)])
    registers = _registers(c)
    side_by_side = sh == fh and sw == fw and ph == pw == 0
    quick = side_by_side and c >= LANES and winners.itemsize == 1
    counted = np.empty(ow * c, np.float32)
    part, first, last = next_part(shares)
    while part >= 0:
        sums[part, :] = 0
        if not (quick and oh * sh == h and ow * sw == w):
            dx[first * h * w * c : last * h * w * c] = 0
        for line in range(first * oh, last * oh):
            i, p = divmod(line, oh)
            here = slice(line * ow * c, (line + 1) * ow * c)
            given = gradient[here]
            if len(y):
                given = counted
                _relu_backward(gradient[here], y[here], given)
                for q in range(ow):
                    add(given[q * c : (q + 1) * c], sums[part])
            for q in range(ow):
                there, out = q * c, (line * ow + q) * c
                if quick:
                    at = ((i * h + p * sh) * w + q * sw) * c
                    for j in registers:
                        give_to_winner(given, there + j, winners, out + j, dx, at + j, places)
                    continue
                for u in range(max(0, ph - p * sh), min(fh, h + ph - p * sh)):
                    for v in range(max(0, pw - q * sw), min(fw, w + pw - q * sw)):
                        at = ((i * h + p * sh + u - ph) * w + q * sw + v - pw) * c
                        place = u * fw + v
                        for j in range(c):
                            if winners[out + j] == place:
                                dx[at + j] += given[there + j]
        part, first, last = next_part(shares)


# A line is a row of whole pixels (C,), as many as `factor` and its like repeat the numbers of the
# features: loops over a line are long enough for vector instructions, however few features there
# are.


@shared
def sum_moments(x, pivot, sums, squares, shares):
    """sums[part, j] = sum over the part's lines of x[j] - pivot[j]; squares the same, squared.

    In float64, about a pivot that is a number of the feature itself: so one pass is enough. What
    cancels in squares - sums^2 / count is at most count times the result.
    """
    width = len(pivot)
    part, first, last = next_part(shares)
    while part >= 0:
        sums[part, :], squares[part, :] = 0, 0
        for line in range(first, last):
            at = line * width
            _add_moments(x[at : at + width], pivot, sums[part], squares[part])
        part, first, last = next_part(shares)


@compiled
def _add_moments(x, pivot, sums, squares):
    for j in range(len(x)):
        centred = np.float64(x[j]) - pivot[j]
        sums[j] += centred
        squares[j] += centred * centred


@shared
def normalize(x, mean, factor, shift, y, shares):
    """Compute y = factor (x - mean) + shift, line by line."""
    width = len(mean)
    part, first, last = next_part(shares)
    while part >= 0:
        for line in range(first, last):
            at = line * width
            _normalize(x[at : at + width], mean, factor, shift, y[at : at + width])
        part, first, last = next_part(shares)


@compiled
def _normalize(x, mean, factor, shift, y):
    for j in range(len(x)):
        y[j] = factor[j] * (x[j] - mean[j]) + shift[j]


@shared
def sum_gradients(gradient, x, mean, sums, products, shares):
    """sums[part, j] = sum over the part's lines of gradient[j]; products of it times x - mean."""
    width = len(mean)
    part, first, last = next_part(shares)
    while part >= 0:
        sums[part, :], products[part, :] = 0, 0
        for line in range(first, last):
            at = line * width
            _add_gradients(
                gradient[at : at + width], x[at : at + width], mean, sums[part], products[part]
            )
        part, first, last = next_part(shares)


@compiled
def _add_gradients(gradient, x, mean, sums, products):
    for j in range(len(x)):
        sums[j] += gradient[j]
        products[j] += gradient[j] * (x[j] - mean[j])


@shared
def normalize_backward(gradient, x, mean, factor, level, slope, dx, shares):
    """Compute dx = factor (gradient - level - slope (x - mean)), line by line."""
    width = len(mean)
    part, first, last = next_part(shares)
    while part >= 0:
        for line in range(first, last):
            here = slice(line * width, (line + 1) * width)
            _normalize_backward(gradient[here], x[here], mean, factor, level, slope, dx[here])
        part, first, last = next_part(shares)


@compiled
def _normalize_backward(gradient, x, mean, factor, level, slope, dx):
    for j in range(len(x)):
        dx[j] = factor[j] * (gradient[j] - level[j] - slope[j] * (x[j] - mean[j]))


@shared
def relu(x, y, shares):
    """Compute y = max(x, 0); NaN stays."""
    part, first, last = next_part(shares)
    while part >= 0:
        _relu(x[first:last], y[first:last])
        part, first, last = next_part(shares)


@compiled
def _relu(x, y):
    zero = np.float32(0)
    for i in range(len(x)):
        y[i] = zero if x[i] <= zero else x[i]


@shared
def relu_backward(gradient, y, dx, shares):
    """Compute dx = gradient (1 where y > 0, else 0)."""
    part, first, last = next_part(shares)
    while part >= 0:
        _relu_backward(gradient[first:last], y[first:last], dx[first:last])
        part, first, last = next_part(shares)


@compiled
def _relu_backward(gradient, y, dx):
    nothing, all_of_it = np.float32(0), np.float32(1)
    for i in range(len(y)):
        dx[i] = gradient[i] * (all_of_it if y[i] > nothing else nothing)


@shared
def relu6(x, y, shares):
    """Compute y = min(max(x, 0), 6); NaN stays."""
    part, first, last = next_part(shares)
    while part >= 0:
        _relu6(x[first:last], y[first:last])
        part, first, last = next_part(shares)


@compiled
def _relu6(x, y):
    zero, most = np.float32(0), np.float32(6)
    for i in range(len(x)):
        number = zero if x[i] <= zero else x[i]
        y[i] = most if number > most else number


@shared
def relu6_backward(gradient, y, dx, shares):
    """Compute dx = gradient (1 where 0 < y < 6, else 0)."""
    part, first, last = next_part(shares)
    while part >= 0:
        _relu6_backward(gradient[first:last], y[first:last], dx[first:last])
        part, first, last = next_part(shares)


@compiled
def _relu6_backward(gradient, y, dx):
    nothing, all_of_it, most = np.float32(0), np.float32(1), np.float32(6)
    for i in range(len(y)):
        dx[i] = gradient[i] * (all_of_it if (y[i] > nothing) & (y[i] < most) else nothing)


@shared
def adam(p, g, m, v, numbers, shares):
    """Do Adam in one pass; see `xpdl.optimizers.Adam` for what it computes."""
    part, first, last = next_part(shares)
    while part >= 0:
        _adam(p[first:last], g[first:last], m[first:last], v[first:last], numbers)
        part, first, last = next_part(shares)


@compiled
def _adam(p, g, m, v, numbers):
    rate, keep1, take1, keep2, take2, correction2, epsilon = numbers  # of the type of all here
    for i in range(len(p)):
        m[i] = keep1 * m[i] + take1 * g[i]
        v[i] = keep2 * v[i] + take2 * (g[i] * g[i])
        p[i] -= rate * m[i] / (np.sqrt(v[i]) / correction2 + epsilon)
