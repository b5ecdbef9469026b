"""Convolutions of any size and stride on the backend ``numba``, as the direct sum.

The heart is one small product, `multiply_places`. It reads a matrix that is never laid out,
A[t, k] = x[rows[t] + columns[k]]: with rows the places of windows in an image and columns the
places within a window, A is im2col, and A F a convolution; with the two exchanged, A is im2col
transposed, and A G the gradient of the filters. Its sums stay in the processor's vector registers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from xpdl.backends.base.types import Array, Pair, Shape, output_size
from xpdl.backends.numba.cache import compiled
from xpdl.backends.numba.products import copy_and_add, multiply_places
from xpdl.backends.numba.sharing import SUMS_BYTES, Shares, begin, cut, next_part, share
from xpdl.backends.numba.vectors import LANES, ROWS
from xpdl.backends.numpy.memory import pool

# So many rows of filters, two registers wide, stay in a core's first cache; so many numbers of
# images in its second.
PANEL_ROWS = 256
IMAGE_NUMBERS = 128 * 1024

# Filters come from far: so many rows of windows are multiplied with each that comes.
TILE_ROWS = 64

_PANEL = 2 * LANES


def convolution(
    image: Array, shape: Shape, W: Array, b: Array | None, stride: Pair, pad: Pair, relu: bool
) -> Array:
    """Return y (N, OH, OW, FN) of flat images of a shape (N, C, H, W), and W (FN, C, FH, FW)."""
    (n, c, h, w), (fn, _, fh, fw) = shape, W.shape
    oh, ow = output_size(h, fh, stride[0], pad[0]), output_size(w, fw, stride[1], pad[1])
    rows, columns = _places(h, w, c, (fh, fw), stride, pad)
    targets = _lines(oh * ow, fn)
    filters = _panels(W.transpose(1, 0, 2, 3))
    biases = np.zeros(-(-fn // _PANEL) * _PANEL, np.float32)
    if b is not None:
        biases[:fn] = b
    y = pool.empty((n, oh, ow, fn), np.float32)
    flat = y.reshape(-1)

    def work(shares: Shares) -> None:
        multiply_windows(
            *(image, (h, w, c), pad, rows, columns, filters, biases, fn, relu),
            *(flat, oh * ow * fn, targets, shares, 0),
        )

    share(cut(n, len(rows) * len(columns) * fn), work)
    return y


def backward(
    gradient: Array,
    image: Array,
    shape: Shape,
    W: Array,
    counts: Pair,
    stride: Pair,
    pad: Pair,
    need_dx: bool,
) -> tuple[Array | None, Array, Array]:
    """Return dx (N, H, W, C), dW and db, of flat images and the flat gradient of results."""
    (n, c, h, w), (fn, _, fh, fw), (oh, ow) = shape, W.shape, counts
    rows, columns = _places(h, w, c, (fh, fw), stride, pad)
    width, line = fh * fw * c, -(-fn // LANES) * LANES
    columns = _whole_tiles(columns)
    targets = _lines(len(columns), line)
    border, phases = _phases((h, w), (oh, ow), c, fn, (fh, fw), stride, pad)
    filters = [_panels(W[:, :, down, across]) for *_, down, across in phases] if need_dx else []
    dx = pool.empty((n, h, w, c) if need_dx else (0,), np.float32)
    flat, no_biases = dx.reshape(-1), np.zeros(-(-c // _PANEL) * _PANEL, np.float32)
    size = len(columns) * line
    most = max(2, min(16, SUMS_BYTES // (4 * size)))
    bounds = cut(n, len(rows) * width * fn, most)
    filter_sums = pool.empty((len(bounds) - 1, size), np.float32)
    bias_sums = np.empty((len(bounds) - 1, fn), np.float32)

    def work(shares: Shares) -> None:
        for k, packed in enumerate(filters):
            there, taps, pixels, *_ = phases[k]
            multiply_windows(
                *(gradient, (oh, ow, fn), border, there, taps, packed, no_biases, c, False),
                *(flat, h * w * c, pixels, shares, k + 1),
            )
        sum_windows(
            *(image, (h, w, c), pad, rows, columns, gradient, fn),
            *(filter_sums, bias_sums, targets, shares, 0),
        )

    share(bounds, work, 1 + len(filters))
    sums = filter_sums.sum(axis=0).reshape(len(columns), line)[:width, :fn]
    dW = sums.reshape(fh, fw, c, fn).transpose(3, 2, 0, 1)
    return dx if need_dx else None, dW, bias_sums.sum(axis=0)


def _panels(filters: Array) -> Array:
    """Return filters (C, FN, FH, FW), in any memory, as `panels` lays them out."""
    c, fn, fh, fw = filters.shape
    packed = np.empty(fh * fw * c * -(-fn // LANES) * LANES, np.float32)
    panels(filters, packed)
    return packed


@lru_cache(maxsize=512)
def _lines(count: int, width: int) -> Array:
    """Return where each of `count` lines begins."""
    return np.arange(count) * width


def _whole_tiles(places: Array) -> Array:
    """Return places with the last repeated, up to a multiple of a tile's rows."""
    return np.concatenate([places, np.repeat(places[-1:], -len(places) % ROWS)])


@lru_cache(maxsize=512)
def _places(h: int, w: int, c: int, size: Pair, stride: Pair, pad: Pair) -> tuple[Array, Array]:
    """Return where windows begin in a padded image (H, W, C), and where their numbers lie."""
    oh, ow = (output_size(*axis) for axis in zip((h, w), size, stride, pad, strict=True))
    wide = w + 2 * pad[1]
    down, right = np.arange(oh) * stride[0], np.arange(ow) * stride[1]
    rows = (down[:, None] * wide + right) * c
    places = (np.arange(size[0])[:, None] * wide + np.arange(size[1])) * c
    return rows.reshape(-1), (places[..., None] + np.arange(c)).reshape(-1)


@lru_cache(maxsize=512)
def _phases(
    image: Pair, counts: Pair, c: int, fn: int, size: Pair, stride: Pair, pad: Pair
) -> tuple[Pair, list[tuple[Array, Array, Array, slice, slice]]]:
    """Return how to gather dx (H, W, C) from the gradient (OH, OW, FN), without adding back.

    A pixel y was seen by window i through tap u where y + pad = i stride + u. So pixels with equal
    (y + pad) mod stride, a phase, share their taps, and their windows are i0, i0 - 1, ...

    Returns
    -------
    border : (int, int)
        Zeros that the gradient wants around it.
    phases : list of (rows, columns, targets, taps down, taps across)
        The first three for `multiply_windows`; the last two say which filters' numbers.
    """
    axes = []
    for extent, out, f, s, p in zip(image, counts, size, stride, pad, strict=True):
        axis = []
        for phase in range(min(s, extent)):
            pixels = np.array([y for y in range(extent) if (y + p) % s == (phase + p) % s])
            axis.append((pixels, (pixels + p) // s, slice((phase + p) % s, f, s)))
        before = max(len(range(f)[taps]) - 1 - int(windows[0]) for _, windows, taps in axis)
        after = max(int(windows[-1]) - (out - 1) for _, windows, _ in axis)
        axes.append((axis, max(0, before, after)))
    (vertical, top), (horizontal, left) = axes
    wide = counts[1] + 2 * left
    phases: list[tuple[Any, Any, Any, slice, slice]] = []
    for ys, i, u in vertical:
        for xs, j, v in horizontal:
            rows = ((i[:, None] + top) * wide + j + left) * fn
            steps = (np.arange(len(range(f)[taps])) for f, taps in zip(size, (u, v), strict=True))
            back = -(next(steps)[:, None] * wide + next(steps)) * fn
            columns = back[..., None] + np.arange(fn)
            targets = (ys[:, None] * image[1] + xs) * c
            phases.append((rows.reshape(-1), columns.reshape(-1), targets.reshape(-1), u, v))
    return (top, left), phases


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
