"""Compiled loops for the backend ``numba``: convolution, pooling, normalisation and more.

The heart is one small product, `multiply_tile`. It reads a matrix that is never laid out,
A[t, k] = x[rows[t] + columns[k]]: with rows the places of windows in an image and columns the
places within a window, A is im2col, and A F a convolution; with the two exchanged, A is im2col
transposed, and A G the gradient of the filters. Its sums stay in the processor's vector registers.

Threads share a batch by calling the same function with the same `shares`; each takes parts of it
until none is left, without Python's lock.
"""

from __future__ import annotations

import numpy as np

from xpdl.backends.numba.cache import compiled
from xpdl.backends.numba.vectors import (
    LANES,
    ROWS,
    find_largest,
    give_to_winner,
    look,
    multiply_tile,
    ring,
    take,
)

# A thread looks so often for new work, for some milliseconds, before it goes to sleep.
LOOKS = 100_000

# Loops run over slices from zero on: Numba then knows that no index counts from the end, and LLVM
# can use vector instructions.


@compiled
def watch(numbers, old):
    """Return when numbers[0] is not `old` any more, or after `LOOKS` looks."""
    for _ in range(LOOKS):
        if look(numbers) != old:
            break


@compiled
def _begin(shares):
    """Ring the bell: Python's lock is free now, and another thread can come."""
    bell, _, _, _ = shares
    ring(bell)


@compiled
def _next(shares, which):
    """Return a part that no thread has taken yet, its beginning and its end; or -1, 0, 0.

    `shares` is a bell, the bounds of the parts, a place in which to count, and the thread's number.
    Even threads take parts from the first on, odd ones from the last back, until they meet: so
    most of the images stay with one thread from layer to layer, and in its core's own cache.
    """
    _, bounds, counters, thread = shares
    count, end = len(bounds) - 1, thread % 2
    if take(counters, 3 * which) >= count:  # of all; there is a counter for each end, too
        return -1, 0, 0
    taken = take(counters, 3 * which + 1 + end)
    part = count - 1 - taken if end else taken
    return part, bounds[part], bounds[part + 1]


@compiled
def _pad(x, x0, h, w, c, ph, pw, padded):
    """Copy the image (h, w, c) at x0 into `padded`, whose border is zero already."""
    for i in range(h):
        there, here = ((i + ph) * (w + 2 * pw) + pw) * c, x0 + i * w * c
        padded[there : there + w * c] = x[here : here + w * c]


@compiled
def _tile(two, x, x0, rows, r, columns, f, f0, f_step, start, s0, s_step, y, y0, targets, t):
    if two:
        multiply_tile(
            2, x, x0, rows, r, columns, f, f0, f_step, start, s0, s_step, y, y0, targets, t
        )
    else:
        multiply_tile(
            1, x, x0, rows, r, columns, f, f0, f_step, start, s0, s_step, y, y0, targets, t
        )


@compiled
def multiply_windows(
    x, image, pad, rows, columns, filters, biases, fn, relu, y, y_size, targets, shares, which
):
    """y[i, targets[r] + f] = biases[f] + sum over k of x[i, rows[r] + columns[k]] filters[k, f].

    For all images i, of the shape `image`, (H, W, C); rows and columns point into the padded one.
    With `relu`, and no less than 0. Filters are as `panels` lays them; there are as many biases as
    numbers in all panels' rows.
    """
    _begin(shares)
    (h, w, c), (ph, pw) = image, pad
    padded = np.zeros((h + 2 * ph) * (w + 2 * pw) * c, np.float32)
    edge, edge_rows = np.empty(ROWS * 2 * LANES, np.float32), np.empty(ROWS, np.intp)
    edge_targets = np.arange(ROWS) * 2 * LANES
    k = len(columns)
    part, begin, end = _next(shares, which)
    while part >= 0:
        for i in range(begin, end):
            source, x0 = x, i * h * w * c
            if ph + pw > 0:
                _pad(x, x0, h, w, c, ph, pw, padded)
                source, x0 = padded, 0
            for f in range(0, fn, 2 * LANES):
                two = fn - f > LANES
                width = 2 * LANES if two else LANES
                for r in range(0, len(rows), ROWS):
                    if r + ROWS <= len(rows) and f + width <= fn:
                        y0 = i * y_size + f
                        _tile(
                            *(two, source, x0, rows, r, columns, filters, f * k, width),
                            *(biases, f, 0, y, y0, targets, r),
                        )
                        continue
                    # At the edge, a tile is computed whole and copied in part.
                    for t in range(ROWS):
                        edge_rows[t] = rows[min(r + t, len(rows) - 1)]
                    _tile(
                        *(two, source, x0, edge_rows, 0, columns, filters, f * k, width),
                        *(biases, f, 0, edge, 0, edge_targets, 0),
                    )
                    for t in range(min(ROWS, len(rows) - r)):
                        y0 = i * y_size + targets[r + t] + f
                        for j in range(min(width, fn - f)):
                            y[y0 + j] = edge[edge_targets[t] + j]
            if relu:  # an image's results are still in the core's own cache
                _relu(y[i * y_size : (i + 1) * y_size], y[i * y_size : (i + 1) * y_size])
        part, begin, end = _next(shares, which)


@compiled
def sum_windows(x, image, pad, rows, columns, gradient, fn, dW, db, targets, shares, which):
    """dW[part, targets[k] + f] = sum over i, r of x[i, rows[r] + columns[k]] gradient[i, r, f].

    The images i are those of the part; db[part, f] is the sum of gradient[i, r, f]. There is a
    multiple of ROWS columns, and dW's lines are a multiple of LANES long.
    """
    _begin(shares)
    (h, w, c), (ph, pw) = image, pad
    padded = np.zeros((h + 2 * ph) * (w + 2 * pw) * c, np.float32)
    size, line = len(rows) * fn, -(-fn // LANES) * LANES
    whole = np.zeros(len(rows) * line if line > fn else 1, np.float32)
    total = np.empty(fn, np.float32)
    part, begin, end = _next(shares, which)
    while part >= 0:
        part_dW, part_db = dW[part], db[part]
        part_dW[:], part_db[:] = 0, 0
        for i in range(begin, end):
            source, x0 = x, i * h * w * c
            if ph + pw > 0:
                _pad(x, x0, h, w, c, ph, pw, padded)
                source, x0 = padded, 0
            g, g0 = gradient, i * size
            if line > fn:
                for r in range(len(rows)):
                    at = g0 + r * fn
                    whole[r * line : r * line + fn] = gradient[at : at + fn]
                g, g0 = whole, 0
            for f in range(0, line, 2 * LANES):
                for k in range(0, len(columns), ROWS):
                    _tile(
                        *(line - f > LANES, source, x0, columns, k, rows, g, g0 + f, line),
                        *(part_dW, targets[k] + f, line, part_dW, f, targets, k),
                    )
            total[:] = 0
            for r in range(len(rows)):
                at = i * size + r * fn
                _add(gradient[at : at + fn], total)
            _add(total, part_db)
        part, begin, end = _next(shares, which)


@compiled
def _add(numbers, total):
    for j in range(len(total)):
        total[j] += numbers[j]


@compiled
def max_pool(x, image, size, stride, pad, counts, y, winners, shares, which):
    """Find the largest number of each window, and its place; of equals the first; NaN wins."""
    _begin(shares)
    (h, w, c), (fh, fw), (sh, sw), (ph, pw), (oh, ow) = image, size, stride, pad, counts
    places = np.array([(u * w + v) * c for u in range(fh) for v in range(fw)])
    quick = ph == pw == 0 and c % LANES == 0 and winners.itemsize == 1
    part, begin, end = _next(shares, which)
    while part >= 0:
        for line in range(begin * oh, end * oh):
            i, p = divmod(line, oh)
            for q in range(ow):
                out = (line * ow + q) * c
                if quick:
                    at = ((i * h + p * sh) * w + q * sw) * c
                    for j in range(0, c, LANES):
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
        part, begin, end = _next(shares, which)


@compiled
def _take_larger(pixel, place, largest, winner):
    for j in range(len(pixel)):
        new, old = pixel[j], largest[j]
        wins = (new > old) | ((new != new) & (old == old))
        largest[j] = new if wins else old
        winner[j] = place if wins else winner[j]


@compiled
def max_pool_backward(gradient, winners, image, size, stride, pad, counts, dx, shares, which):
    """Send each gradient to its window's winner; the rest of dx is zero."""
    _begin(shares)
    (h, w, c), (fh, fw), (sh, sw), (ph, pw), (oh, ow) = image, size, stride, pad, counts
    places = np.array([(u * w + v) * c for u in range(fh) for v in range(fw)])
    side_by_side = sh == fh and sw == fw and ph == pw == 0
    quick = side_by_side and c % LANES == 0 and winners.itemsize == 1
    part, begin, end = _next(shares, which)
    while part >= 0:
        if not (quick and oh * sh == h and ow * sw == w):
            dx[begin * h * w * c : end * h * w * c] = 0
        for line in range(begin * oh, end * oh):
            i, p = divmod(line, oh)
            for q in range(ow):
                out = (line * ow + q) * c
                if quick:
                    at = ((i * h + p * sh) * w + q * sw) * c
                    for j in range(0, c, LANES):
                        give_to_winner(gradient, out + j, winners, out + j, dx, at + j, places)
                    continue
                for u in range(max(0, ph - p * sh), min(fh, h + ph - p * sh)):
                    for v in range(max(0, pw - q * sw), min(fw, w + pw - q * sw)):
                        at = ((i * h + p * sh + u - ph) * w + q * sw + v - pw) * c
                        place = u * fw + v
                        for j in range(c):
                            if winners[out + j] == place:
                                dx[at + j] += gradient[out + j]
        part, begin, end = _next(shares, which)


@compiled
def panels(filters, packed):
    """Lay filters (C, FN, FH, FW) out for `multiply_windows`, as rows (FH*FW*C) of FN numbers.

    Two registers' width at a time, all rows. What is missing in the last such panel, of one
    register or two, is filled with zeros.
    """
    c, fn, fh, fw = filters.shape
    at = 0
    for f in range(0, fn, 2 * LANES):
        width = 2 * LANES if fn - f > LANES else LANES
        for u in range(fh):
            for v in range(fw):
                for i in range(c):
                    for j in range(width):
                        packed[at + j] = filters[i, f + j, u, v] if f + j < fn else np.float32(0)
                    at += width


# A line is a row of whole pixels (C,), as many as `factor` and its like repeat the numbers of the
# features: loops over a line are long enough for vector instructions, however few features there
# are.


@compiled
def sum_moments(x, pivot, sums, squares, shares, which):
    """sums[part, j] = sum over the part's lines of x[j] - pivot[j]; squares the same, squared.

    In float64, about a pivot that is a number of the feature itself: so one pass is enough. What
    cancels in squares - sums^2 / count is at most count times the result.
    """
    _begin(shares)
    width = len(pivot)
    part, begin, end = _next(shares, which)
    while part >= 0:
        sums[part, :], squares[part, :] = 0, 0
        for line in range(begin, end):
            at = line * width
            _add_moments(x[at : at + width], pivot, sums[part], squares[part])
        part, begin, end = _next(shares, which)


@compiled
def _add_moments(x, pivot, sums, squares):
    for j in range(len(x)):
        centred = np.float64(x[j]) - pivot[j]
        sums[j] += centred
        squares[j] += centred * centred


@compiled
def normalize(x, mean, factor, shift, y, shares, which):
    """Compute y = factor (x - mean) + shift, line by line."""
    _begin(shares)
    width = len(mean)
    part, begin, end = _next(shares, which)
    while part >= 0:
        for line in range(begin, end):
            at = line * width
            _normalize(x[at : at + width], mean, factor, shift, y[at : at + width])
        part, begin, end = _next(shares, which)


@compiled
def _normalize(x, mean, factor, shift, y):
    for j in range(len(x)):
        y[j] = factor[j] * (x[j] - mean[j]) + shift[j]


@compiled
def sum_gradients(gradient, x, mean, sums, products, shares, which):
    """sums[part, j] = sum over the part's lines of gradient[j]; products of it times x - mean."""
    _begin(shares)
    width = len(mean)
    part, begin, end = _next(shares, which)
    while part >= 0:
        sums[part, :], products[part, :] = 0, 0
        for line in range(begin, end):
            at = line * width
            _add_gradients(
                gradient[at : at + width], x[at : at + width], mean, sums[part], products[part]
            )
        part, begin, end = _next(shares, which)


@compiled
def _add_gradients(gradient, x, mean, sums, products):
    for j in range(len(x)):
        sums[j] += gradient[j]
        products[j] += gradient[j] * (x[j] - mean[j])


@compiled
def normalize_backward(gradient, x, mean, factor, level, slope, dx, shares, which):
    """Compute dx = factor (gradient - level - slope (x - mean)), line by line."""
    _begin(shares)
    width = len(mean)
    part, begin, end = _next(shares, which)
    while part >= 0:
        for line in range(begin, end):
            here = slice(line * width, (line + 1) * width)
            _normalize_backward(gradient[here], x[here], mean, factor, level, slope, dx[here])
        part, begin, end = _next(shares, which)


@compiled
def _normalize_backward(gradient, x, mean, factor, level, slope, dx):
    for j in range(len(x)):
        dx[j] = factor[j] * (gradient[j] - level[j] - slope[j] * (x[j] - mean[j]))


@compiled
def relu(x, y, shares, which):
    """Compute y = max(x, 0); NaN stays."""
    _begin(shares)
    part, begin, end = _next(shares, which)
    while part >= 0:
        _relu(x[begin:end], y[begin:end])
        part, begin, end = _next(shares, which)


@compiled
def _relu(x, y):
    zero = np.float32(0)
    for i in range(len(x)):
        y[i] = zero if x[i] <= zero else x[i]


@compiled
def relu_backward(gradient, y, dx, shares, which):
    """Compute dx = gradient (1 where y > 0, else 0)."""
    _begin(shares)
    part, begin, end = _next(shares, which)
    while part >= 0:
        _relu_backward(gradient[begin:end], y[begin:end], dx[begin:end])
        part, begin, end = _next(shares, which)


@compiled
def _relu_backward(gradient, y, dx):
    nothing, all_of_it = np.float32(0), np.float32(1)
    for i in range(len(y)):
        dx[i] = gradient[i] * (all_of_it if y[i] > nothing else nothing)


@compiled
def relu6(x, y, shares, which):
    """Compute y = min(max(x, 0), 6); NaN stays."""
    _begin(shares)
    part, begin, end = _next(shares, which)
    while part >= 0:
        _relu6(x[begin:end], y[begin:end])
        part, begin, end = _next(shares, which)


@compiled
def _relu6(x, y):
    zero, most = np.float32(0), np.float32(6)
    for i in range(len(x)):
        number = zero if x[i] <= zero else x[i]
        y[i] = most if number > most else number


@compiled
def relu6_backward(gradient, y, dx, shares, which):
    """Compute dx = gradient (1 where 0 < y < 6, else 0)."""
    _begin(shares)
    part, begin, end = _next(shares, which)
    while part >= 0:
        _relu6_backward(gradient[begin:end], y[begin:end], dx[begin:end])
        part, begin, end = _next(shares, which)


@compiled
def _relu6_backward(gradient, y, dx):
    nothing, all_of_it, most = np.float32(0), np.float32(1), np.float32(6)
    for i in range(len(y)):
        dx[i] = gradient[i] * (all_of_it if (y[i] > nothing) & (y[i] < most) else nothing)


@compiled
def adam(p, g, m, v, numbers, shares, which):
    """Do Adam in one pass; see `xpdl.optimizers.Adam` for what it computes."""
    _begin(shares)
    part, begin, end = _next(shares, which)
    while part >= 0:
        _adam(p[begin:end], g[begin:end], m[begin:end], v[begin:end], numbers)
        part, begin, end = _next(shares, which)


@compiled
def _adam(p, g, m, v, numbers):
    rate, keep1, take1, keep2, take2, correction2, epsilon = numbers  # of float32, as all here
    for i in range(len(p)):
        m[i] = keep1 * m[i] + take1 * g[i]
        v[i] = keep2 * v[i] + take2 * (g[i] * g[i])
        p[i] -= rate * m[i] / (np.sqrt(v[i]) / correction2 + epsilon)
