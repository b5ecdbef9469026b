"""Compiled loops for the backend ``numba``: convolution, pooling, normalisation and more.

The heart is one small product, `multiply_places`. It reads a matrix that is never laid out,
A[t, k] = x[rows[t] + columns[k]]: with rows the places of windows in an image and columns the
places within a window, A is im2col, and A F a convolution; with the two exchanged, A is im2col
transposed, and A G the gradient of the filters. Its sums stay in the processor's vector registers.

Threads share a batch by calling the same function with the same `shares`; each takes parts of it
until none is left, without Python's lock.
"""

from __future__ import annotations

import numpy as np

from xpdl.backends.numba.sharing import begin, compiled, next_part
from xpdl.backends.numba.vectors import (
    LANES,
    ROWS,
    copy_and_add,
    find_largest,
    give_to_winner,
    multiply_places,
)

# So many rows of filters, two registers wide, stay in a core's first cache; so many numbers of
# images in its second.
PANEL_ROWS = 256
IMAGE_NUMBERS = 128 * 1024

# Filters come from far: so many rows of windows are multiplied with each that comes.
TILE_ROWS = 64


@compiled
def _pad(x, x0, h, w, c, ph, pw, padded):
    """Copy the image (h, w, c) at x0 into `padded`, whose border is zero already."""
    for i in range(h):
        there, here = ((i + ph) * (w + 2 * pw) + pw) * c, x0 + i * w * c
        padded[there : there + w * c] = x[here : here + w * c]


@compiled
def _multiply(two, more, x, x0, rows, columns, f, f0, start, s0, y, y0, targets, least):
    if two and more:
        multiply_places(
            2, 1, x, x0, rows, columns, f, f0, start, s0, y, y0, targets, least
        )  # fmt: skip
    elif two:
        multiply_places(
            2, 0, x, x0, rows, columns, f, f0, start, s0, y, y0, targets, least
        )  # fmt: skip
    elif more:
        multiply_places(
            1, 1, x, x0, rows, columns, f, f0, start, s0, y, y0, targets, least
        )  # fmt: skip
    else:
        multiply_places(
            1, 0, x, x0, rows, columns, f, f0, start, s0, y, y0, targets, least
        )  # fmt: skip


@compiled
def _together(count, size, rows):
    """Return how many images are multiplied together: of small ones, to make so many rows."""
    return max(1, min(rows // count, IMAGE_NUMBERS // size))


@compiled
def _repeated(places, step, times, whole):
    """Return places `times` times, `step` apart, and the last again up to a multiple of `whole`."""
    count = times * len(places)
    repeated = np.empty(-(-count // whole) * whole, np.intp)
    for i in range(times):
        repeated[i * len(places) : (i + 1) * len(places)] = places + i * step
    repeated[count:] = repeated[count - 1]
    return repeated


@compiled
def multiply_windows(
    x, image, pad, rows, columns, filters, biases, fn, relu, y, y_size, targets, shares, which
):
    """y[i, targets[r] + f] = biases[f] + sum over k of x[i, rows[r] + columns[k]] filters[k, f].

    For all images i, of the shape `image`, (H, W, C); rows and columns point into the padded one.
    With `relu`, and no less than 0. Filters are as `panels` lays them; there are as many biases as
    numbers in all panels' rows.
    """
    begin(shares)
    (h, w, c), (ph, pw) = image, pad
    size, k = (h + 2 * ph) * (w + 2 * pw) * c, len(columns)
    together = _together(len(rows), size, TILE_ROWS)
    padded = np.zeros(together * size, np.float32)
    least, bottom = np.float32(0 if relu else -np.inf), np.float32(-np.inf)
    all_rows = _repeated(rows, size, together, ROWS)
    all_targets, ready = _repeated(targets, y_size, together, ROWS), together
    edge = np.empty(len(all_rows) * 2 * LANES if fn % LANES else 1, np.float32)
    step = max(1, -(-k // max(1, -(-k // PANEL_ROWS))))
    part, first, last = next_part(shares, which)
    while part >= 0:
        for i in range(first, last, together):
            many = min(together, last - i)
            if many != ready:
                all_rows = _repeated(rows, size, many, ROWS)
                all_targets = _repeated(targets, y_size, many, ROWS)
                ready = many
            source, x0 = x, i * size
            if ph + pw > 0:
                for j in range(many):
                    _pad(x, (i + j) * h * w * c, h, w, c, ph, pw, padded[j * size :])
                source, x0 = padded, 0
            for f in range(0, fn, 2 * LANES):
                two = fn - f > LANES
                width = 2 * LANES if two else LANES
                out, y0, lines = y, i * y_size + f, all_targets
                if f + width > fn:  # a panel beyond the last filter is copied in part
                    out, y0, lines = edge, 0, np.arange(len(all_rows)) * width
                for k0 in range(0, max(k, 1), step):
                    _multiply(
                        two, k0 > 0, source, x0, all_rows, columns[k0 : k0 + step],
                        filters, f * k + k0 * width, biases, f, out, y0, lines,
                        least if k0 + step >= k else bottom,
                    )  # fmt: skip
                if f + width > fn:
                    _copy_edge(edge, width, fn - f, y, i * y_size + f, all_targets)
        part, first, last = next_part(shares, which)


@compiled
def _copy_edge(edge, width, count, y, y0, targets):
    """Copy the first numbers of each of `width` to their places."""
    for r in range(len(targets)):
        there = edge[r * width : r * width + count]
        here = y[y0 + targets[r] : y0 + targets[r] + count]
        for j in range(count):
            here[j] = there[j]


@compiled
def sum_windows(x, image, pad, rows, columns, gradient, fn, dW, db, targets, shares, which):
    """dW[part, targets[k] + f] = sum over i, r of x[i, rows[r] + columns[k]] gradient[i, r, f].

    The images i are those of the part; db[part, f] is the sum of gradient[i, r, f]. There is a
    multiple of ROWS columns, and dW's lines are a multiple of LANES long.
    """
    begin(shares)
    (h, w, c), (ph, pw) = image, pad
    size, line = (h + 2 * ph) * (w + 2 * pw) * c, -(-fn // LANES) * LANES
    together = _together(len(rows), size, PANEL_ROWS)
    padded = np.zeros(together * size, np.float32)
    all_rows = _repeated(rows, size, together, 1)
    g = np.zeros(len(all_rows) * 2 * LANES, np.float32)
    nothing, bottom = np.zeros(2 * LANES, np.float32), np.float32(-np.inf)
    part, first, last = next_part(shares, which)
    while part >= 0:
        part_dW, part_db = dW[part], db[part]
        part_dW[:], part_db[:] = 0, 0
        for i in range(first, last, together):
            many = min(together, last - i)
            count = many * len(rows)
            step = -(-count // -(-count // PANEL_ROWS))
            source, x0 = x, i * size
            if ph + pw > 0:
                for j in range(many):
                    _pad(x, (i + j) * h * w * c, h, w, c, ph, pw, padded[j * size :])
                source, x0 = padded, 0
            for f in range(0, line, 2 * LANES):
                two = line - f > LANES
                width = 2 * LANES if two else LANES
                g0 = i * len(rows) * fn + f
                _gather_panel(gradient, g0, fn, count, g, fn - f, part_db, f)
                for r in range(0, count, step):
                    _multiply(
                        two, True, source, x0, columns, all_rows[r : min(r + step, count)],
                        g, r * width, nothing, 0, part_dW, f, targets, bottom,
                    )  # fmt: skip
        part, first, last = next_part(shares, which)


@compiled
def _gather_panel(gradient, g0, step, count, g, width, db, f):
    """Lay one panel's numbers of all pixels out in g, and add them to db, from f on."""
    if width >= 2 * LANES:
        copy_and_add(2, gradient, g0, step, count, g, 0, db, f)
    elif width == LANES:
        copy_and_add(1, gradient, g0, step, count, g, 0, db, f)
    else:
        line = LANES if width < LANES else 2 * LANES
        for r in range(count):
            for j in range(width):
                number = gradient[g0 + r * step + j]
                g[r * line + j] = number
                db[f + j] += number


@compiled
def max_pool(x, image, size, stride, pad, counts, y, winners, shares, which):
    """Find the largest number of each window, and its place; of equals the first; NaN wins."""
    begin(shares)
    (h, w, c), (fh, fw), (sh, sw), (ph, pw), (oh, ow) = image, size, stride, pad, counts
    places = np.array([(u * w + v) * c for u in range(fh) for v in range(fw)])
    quick = ph == pw == 0 and c % LANES == 0 and winners.itemsize == 1
    part, first, last = next_part(shares, which)
    while part >= 0:
        for line in range(first * oh, last * oh):
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
        part, first, last = next_part(shares, which)


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
    begin(shares)
    (h, w, c), (fh, fw), (sh, sw), (ph, pw), (oh, ow) = image, size, stride, pad, counts
    places = np.array([(u * w + v) * c for u in range(fh) for v in range(fw)])
    side_by_side = sh == fh and sw == fw and ph == pw == 0
    quick = side_by_side and c % LANES == 0 and winners.itemsize == 1
    part, first, last = next_part(shares, which)
    while part >= 0:
        if not (quick and oh * sh == h and ow * sw == w):
            dx[first * h * w * c : last * h * w * c] = 0
        for line in range(first * oh, last * oh):
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
        part, first, last = next_part(shares, which)


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
    begin(shares)
    width = len(pivot)
    part, first, last = next_part(shares, which)
    while part >= 0:
        sums[part, :], squares[part, :] = 0, 0
        for line in range(first, last):
            at = line * width
            _add_moments(x[at : at + width], pivot, sums[part], squares[part])
        part, first, last = next_part(shares, which)


@compiled
def _add_moments(x, pivot, sums, squares):
    for j in range(len(x)):
        centred = np.float64(x[j]) - pivot[j]
        sums[j] += centred
        squares[j] += centred * centred


@compiled
def normalize(x, mean, factor, shift, y, shares, which):
    """Compute y = factor (x - mean) + shift, line by line."""
    begin(shares)
    width = len(mean)
    part, first, last = next_part(shares, which)
    while part >= 0:
        for line in range(first, last):
            at = line * width
            _normalize(x[at : at + width], mean, factor, shift, y[at : at + width])
        part, first, last = next_part(shares, which)


@compiled
def _normalize(x, mean, factor, shift, y):
    for j in range(len(x)):
        y[j] = factor[j] * (x[j] - mean[j]) + shift[j]


@compiled
def sum_gradients(gradient, x, mean, sums, products, shares, which):
    """sums[part, j] = sum over the part's lines of gradient[j]; products of it times x - mean."""
    begin(shares)
    width = len(mean)
    part, first, last = next_part(shares, which)
    while part >= 0:
        sums[part, :], products[part, :] = 0, 0
        for line in range(first, last):
            at = line * width
            _add_gradients(
                gradient[at : at + width], x[at : at + width], mean, sums[part], products[part]
            )
        part, first, last = next_part(shares, which)


@compiled
def _add_gradients(gradient, x, mean, sums, products):
    for j in range(len(x)):
        sums[j] += gradient[j]
        products[j] += gradient[j] * (x[j] - mean[j])


@compiled
def normalize_backward(gradient, x, mean, factor, level, slope, dx, shares, which):
    """Compute dx = factor (gradient - level - slope (x - mean)), line by line."""
    begin(shares)
    width = len(mean)
    part, first, last = next_part(shares, which)
    while part >= 0:
        for line in range(first, last):
            here = slice(line * width, (line + 1) * width)
            _normalize_backward(gradient[here], x[here], mean, factor, level, slope, dx[here])
        part, first, last = next_part(shares, which)


@compiled
def _normalize_backward(gradient, x, mean, factor, level, slope, dx):
    for j in range(len(x)):
        dx[j] = factor[j] * (gradient[j] - level[j] - slope[j] * (x[j] - mean[j]))


@compiled
def relu(x, y, shares, which):
    """Compute y = max(x, 0); NaN stays."""
    begin(shares)
    part, first, last = next_part(shares, which)
    while part >= 0:
        _relu(x[first:last], y[first:last])
        part, first, last = next_part(shares, which)


@compiled
def _relu(x, y):
    zero = np.float32(0)
    for i in range(len(x)):
        y[i] = zero if x[i] <= zero else x[i]


@compiled
def relu_backward(gradient, y, dx, shares, which):
    """Compute dx = gradient (1 where y > 0, else 0)."""
    begin(shares)
    part, first, last = next_part(shares, which)
    while part >= 0:
        _relu_backward(gradient[first:last], y[first:last], dx[first:last])
        part, first, last = next_part(shares, which)


@compiled
def _relu_backward(gradient, y, dx):
    nothing, all_of_it = np.float32(0), np.float32(1)
    for i in range(len(y)):
        dx[i] = gradient[i] * (all_of_it if y[i] > nothing else nothing)


@compiled
def adam(p, g, m, v, numbers, shares, which):
    """Do Adam in one pass; see `Backend.adam` for what it computes."""
    begin(shares)
    part, first, last = next_part(shares, which)
    while part >= 0:
        _adam(p[first:last], g[first:last], m[first:last], v[first:last], numbers)
        part, first, last = next_part(shares, which)


@compiled
def _adam(p, g, m, v, numbers):
    rate, keep1, take1, keep2, take2, correction2, epsilon = numbers  # of float32, as all here
    for i in range(len(p)):
        m[i] = keep1 * m[i] + take1 * g[i]
        v[i] = keep2 * v[i] + take2 * (g[i] * g[i])
        p[i] -= rate * m[i] / (np.sqrt(v[i]) / correction2 + epsilon)
