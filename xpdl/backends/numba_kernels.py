"""Compiled loops for the backend ``numba``: convolution, pooling, ReLU and Adam, in float32.

The heart is one small product, `multiply_tile`. It reads a matrix that is never laid out,
A[t, k] = x[rows[t] + columns[k]]: with rows the places of windows in an image and columns the
places within a window, A is im2col, and A F a convolution; with the two exchanged, A is im2col
transposed, and A G the gradient of the filters. Its sums stay in the processor's vector registers.

Every function here works on its part of a batch alone, without Python's lock; the threads are the
caller's affair.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from xpdl.backends.vectors import LANES, ROWS, find_largest, give_to_winner, multiply_tile

# Loops run over slices from zero on: Numba then knows that no index counts from the end, and LLVM
# can use vector instructions.
compiled = njit(nogil=True, cache=True, error_model="numpy")


@compiled
def _pad(x, x0, h, w, c, ph, pw, padded):
    """Copy the image (h, w, c) at x0 into `padded`, whose border is zero already."""
    for i in range(h):
        there, here = ((i + ph) * (w + 2 * pw) + pw) * c, x0 + i * w * c
        padded[there : there + w * c] = x[here : here + w * c]


@compiled
def multiply_windows(
    x, h, w, c, ph, pw, rows, columns, filters, biases, fn, y, y_size, targets, begin, end
):
    """y[i, targets[r] + f] = biases[f] + sum over k of x[i, rows[r] + columns[k]] filters[k, f].

    For the images i from `begin` to `end`; rows and columns point into the padded image. Filters
    are as `panels` lays them; there are as many biases as numbers in all the panels' rows.
    """
    padded = np.zeros((h + 2 * ph) * (w + 2 * pw) * c, np.float32)
    part, part_rows = np.empty(ROWS * 2 * LANES, np.float32), np.empty(ROWS, np.intp)
    part_targets = np.arange(ROWS) * 2 * LANES
    k = len(columns)
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
                    if two:
                        multiply_tile(
                            2,
                            source,
                            x0,
                            rows,
                            r,
                            columns,
                            filters,
                            f * k,
                            width,
                            biases,
                            f,
                            0,
                            y,
                            y0,
                            targets,
                            r,
                        )
                    else:
                        multiply_tile(
                            1,
                            source,
                            x0,
                            rows,
                            r,
                            columns,
                            filters,
                            f * k,
                            width,
                            biases,
                            f,
                            0,
                            y,
                            y0,
                            targets,
                            r,
                        )
                    continue
                # At the edge, a tile is computed whole and copied in part.
                for t in range(ROWS):
                    part_rows[t] = rows[min(r + t, len(rows) - 1)]
                if two:
                    multiply_tile(
                        2,
                        source,
                        x0,
                        part_rows,
                        0,
                        columns,
                        filters,
                        f * k,
                        width,
                        biases,
                        f,
                        0,
                        part,
                        0,
                        part_targets,
                        0,
                    )
                else:
                    multiply_tile(
                        1,
                        source,
                        x0,
                        part_rows,
                        0,
                        columns,
                        filters,
                        f * k,
                        width,
                        biases,
                        f,
                        0,
                        part,
                        0,
                        part_targets,
                        0,
                    )
                for t in range(min(ROWS, len(rows) - r)):
                    y0 = i * y_size + targets[r + t] + f
                    for j in range(min(width, fn - f)):
                        y[y0 + j] = part[part_targets[t] + j]


@compiled
def sum_windows(x, h, w, c, ph, pw, rows, columns, gradient, fn, dW, targets, db, begin, end):
    """dW[targets[k] + f] += sum over i, r of x[i, rows[r] + columns[k]] gradient[i, r, f]; also db.

    For the images i from `begin` to `end`. There is a multiple of ROWS columns, and dW's lines are
    a multiple of LANES long.
    """
    padded = np.zeros((h + 2 * ph) * (w + 2 * pw) * c, np.float32)
    size, line = len(rows) * fn, -(-fn // LANES) * LANES
    whole = np.zeros(len(rows) * line if line > fn else 1, np.float32)
    total = np.empty(fn, np.float32)
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
                if line - f > LANES:
                    multiply_tile(
                        2,
                        source,
                        x0,
                        columns,
                        k,
                        rows,
                        g,
                        g0 + f,
                        line,
                        dW,
                        targets[k] + f,
                        line,
                        dW,
                        f,
                        targets,
                        k,
                    )
                else:
                    multiply_tile(
                        1,
                        source,
                        x0,
                        columns,
                        k,
                        rows,
                        g,
                        g0 + f,
                        line,
                        dW,
                        targets[k] + f,
                        line,
                        dW,
                        f,
                        targets,
                        k,
                    )
        total[:] = 0
        for r in range(len(rows)):
            at = i * size + r * fn
            _add(gradient[at : at + fn], total)
        _add(total, db)


@compiled
def _add(numbers, total):
    for j in range(len(total)):
        total[j] += numbers[j]


@compiled
def max_pool(x, h, w, c, size, stride, pad, oh, ow, y, winners, begin, end):
    """Find the largest number of each window, and its place; of equals the first; NaN wins."""
    (fh, fw), (sh, sw), (ph, pw) = size, stride, pad
    places = np.array([(u * w + v) * c for u in range(fh) for v in range(fw)])
    quick = ph == pw == 0 and c % LANES == 0 and winners.itemsize == 1
    for i in range(begin, end):
        for p in range(oh):
            for q in range(ow):
                out = ((i * oh + p) * ow + q) * c
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


@compiled
def _take_larger(pixel, place, largest, winner):
    for j in range(len(pixel)):
        new, old = pixel[j], largest[j]
        wins = (new > old) | ((new != new) & (old == old))
        largest[j] = new if wins else old
        winner[j] = place if wins else winner[j]


@compiled
def max_pool_backward(gradient, winners, h, w, c, size, stride, pad, oh, ow, dx, begin, end):
    """Send each gradient to its window's winner; the rest of dx is zero."""
    (fh, fw), (sh, sw), (ph, pw) = size, stride, pad
    places = np.array([(u * w + v) * c for u in range(fh) for v in range(fw)])
    side_by_side = sh == fh and sw == fw and ph == pw == 0
    quick = side_by_side and c % LANES == 0 and winners.itemsize == 1
    if not (quick and oh * sh == h and ow * sw == w):
        dx[begin * h * w * c : end * h * w * c] = 0
    for i in range(begin, end):
        for p in range(oh):
            for q in range(ow):
                out = ((i * oh + p) * ow + q) * c
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


@compiled
def relu(x, y):
    """Compute y = max(x, 0); NaN stays."""
    zero = np.float32(0)
    for i in range(len(x)):
        y[i] = zero if x[i] <= zero else x[i]


@compiled
def relu_backward(gradient, y, dx):
    """Compute dx = gradient (1 where y > 0, else 0)."""
    nothing, all_of_it = np.float32(0), np.float32(1)
    for i in range(len(y)):
        dx[i] = gradient[i] * (all_of_it if y[i] > nothing else nothing)


@compiled
def adam(p, g, m, v, rate, keep1, take1, keep2, take2, correction2, epsilon):
    """Do Adam in one pass; see `Backend.adam`. The scalars are float32."""
    for i in range(len(p)):
        m[i] = keep1 * m[i] + take1 * g[i]
        v[i] = keep2 * v[i] + take2 * (g[i] * g[i])
        p[i] -= rate * m[i] / (np.sqrt(v[i]) / correction2 + epsilon)
