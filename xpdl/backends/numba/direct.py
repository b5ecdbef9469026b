"""Compiled loops over windows, for `windows`, which says what they compute."""

from __future__ import annotations

import numpy as np

from xpdl.backends.numba.cache import compiled
from xpdl.backends.numba.products import copy_and_add, multiply_places
from xpdl.backends.numba.sharing import add, next_part
from xpdl.backends.numba.threads import shared
from xpdl.backends.numba.vectors import LANES, ROWS

# So many rows of filters, two registers wide, stay in a core's first cache; so many numbers of
# images in its second.
PANEL_ROWS = 256
IMAGE_NUMBERS = 128 * 1024

# Filters come from far: so many rows of windows are multiplied with each that comes.
TILE_ROWS = 64

# Filters lie far from one another, at powers of two often: lines of so many have room in the few
# places that the first cache has for them.
FEW = 4


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


@shared
def multiply_windows(
    x, image, pad, rows, columns, filters, biases, fn, relu, y, y_size, targets, shares
):
    """y[i, targets[r] + f] = biases[f] + sum over k of x[i, rows[r] + columns[k]] filters[k, f].

    For all images i, of the shape `image`, (H, W, C); rows and columns point into the padded one.
    With `relu`, and no less than 0. Filters are as `panels` lays them; there are as many biases as
    numbers in all panels' rows.
    """
    (h, w, c), (ph, pw) = image, pad
    size, k = (h + 2 * ph) * (w + 2 * pw) * c, len(columns)
    together = _together(len(rows), size, TILE_ROWS)
    padded = np.zeros(together * size, np.float32)
    least, bottom = np.float32(0 if relu else -np.inf), np.float32(-np.inf)
    all_rows = _repeated(rows, size, together, ROWS)
    all_targets, ready = _repeated(targets, y_size, together, ROWS), together
    edge = np.empty(len(all_rows) * 2 * LANES if fn % LANES else 1, np.float32)
    step = max(1, -(-k // max(1, -(-k // PANEL_ROWS))))
    part, first, last = next_part(shares)
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
        part, first, last = next_part(shares)


@compiled
def _copy_edge(edge, width, count, y, y0, targets):
    """Copy the first numbers of each of `width` to their places."""
    for r in range(len(targets)):
        there = edge[r * width : r * width + count]
        here = y[y0 + targets[r] : y0 + targets[r] + count]
        for j in range(count):
            here[j] = there[j]


@shared
def sum_windows(
    x, image, pad, rows, columns, gradient, fn, sums, db, targets, images, splits, shares
):
    """sums[k, targets[m] + f] = sum over i, r of x[i, rows[r] + columns[m]] gradient[i, r, f].

    The images i are those of the k-th of len(sums) equal shares; db[k, f] is the sum of
    gradient[i, r, f]. There is a multiple of ROWS columns, and the sums' lines are a multiple of
    LANES long. The filters are in `splits` ranges.
    """
    (h, w, c), (ph, pw) = image, pad
    size, line = (h + 2 * ph) * (w + 2 * pw) * c, -(-fn // LANES) * LANES
    panels = -(-fn // (2 * LANES))
    together = _together(len(rows), size, PANEL_ROWS)
    padded = np.zeros(together * size, np.float32)
    all_rows = _repeated(rows, size, together, 1)
    g = np.zeros(len(all_rows) * 2 * LANES, np.float32)
    nothing, bottom = np.zeros(2 * LANES, np.float32), np.float32(-np.inf)
    part, first, last = next_part(shares)
    while part >= 0:
        for unit in range(first, last):
            k, split = divmod(unit, splits)
            first_image, end = k * images // len(sums), (k + 1) * images // len(sums)
            total, begun = sums[k], split * panels // splits * 2 * LANES
            ended = min((split + 1) * panels // splits * 2 * LANES, line)
            db[k, begun : min(ended, fn)] = 0
            for i in range(first_image, end, together):
                many = min(together, end - i)
                count = many * len(rows)
                step = -(-count // -(-count // PANEL_ROWS))
                source, x0 = x, i * size
                if ph + pw > 0:
                    for j in range(many):
                        _pad(x, (i + j) * h * w * c, h, w, c, ph, pw, padded[j * size :])
                    source, x0 = padded, 0
                for f in range(begun, ended, 2 * LANES):
                    two = line - f > LANES
                    width = 2 * LANES if two else LANES
                    g0 = i * len(rows) * fn + f
                    _gather_panel(gradient, g0, fn, count, g, fn - f, db[k], f)
                    for r in range(0, count, step):
                        _multiply(
                            two, i > first_image or r > 0, source, x0,
                            columns, all_rows[r : min(r + step, count)],
                            g, r * width, nothing, 0, total, f, targets, bottom,
                        )  # fmt: skip
        part, first, last = next_part(shares)


@shared
def add_parts(sums, line, dW, shares):
    """DW = the sum of all parts' sums, in lines of filters; the first part's are overwritten."""
    fn, c, fh, fw = dW.shape
    part, first, last = next_part(shares)
    while part >= 0:
        for panel in range(first, last):
            f = panel * 2 * LANES
            many = min(2 * LANES, fn - f)
            for more in range(1, len(sums)):
                for i in range(fh * fw * c):
                    here = slice(i * line + f, i * line + f + many)
                    add(sums[more][here], sums[0][here])
            for j0 in range(0, many, FEW):
                for u in range(fh):
                    for v in range(fw):
                        total = sums[0][(u * fw + v) * c * line + f :]
                        for i in range(c):
                            for j in range(j0, min(j0 + FEW, many)):
                                dW[f + j, i, u, v] = total[i * line + j]
        part, first, last = next_part(shares)


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


@shared
def panels(filters, factors, packed, shares):
    """Lay factors (FN,) times filters (C, FN, FH, FW) out for `multiply_windows`.

    As rows (FH*FW*C) of FN numbers, two registers' width at a time, all rows. What is missing in
    the last such panel, of one register or two, is filled with zeros.
    """
    c, fn, fh, fw = filters.shape
    part, first, last = next_part(shares)
    while part >= 0:
        for f in range(first * 2 * LANES, min(last * 2 * LANES, fn), 2 * LANES):
            width = 2 * LANES if fn - f > LANES else LANES
            for j0 in range(0, width, FEW):
                for u in range(fh):
                    for v in range(fw):
                        at = f * fh * fw * c + (u * fw + v) * c * width
                        for i in range(c):
                            for j in range(j0, j0 + FEW):
                                number = np.float32(0)
                                if f + j < fn:
                                    number = factors[f + j] * filters[i, f + j, u, v]
                                packed[at + i * width + j] = number
        part, first, last = next_part(shares)
