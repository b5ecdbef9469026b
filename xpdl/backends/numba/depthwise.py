"""Depthwise convolution for the backend ``numba``: each channel with a filter of its own.

There is no product of matrices in it. As many channels as a register holds are taken together, out
of the image into a small one with its padding, in which windows are places, as in `kernels`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from xpdl.backends.base.types import Array, Pair, output_size, spread
from xpdl.backends.numba.cache import compiled
from xpdl.backends.numba.pixels import by_pixel
from xpdl.backends.numba.sharing import cut, next_part, share
from xpdl.backends.numba.threads import shared
from xpdl.backends.numba.vectors import LANES, ROWS, TAPS, sum_places, weigh_places
from xpdl.backends.numpy.memory import pool

STRIP_BYTES = 256 * 1024
"""Of an image, so much is taken at once."""


def convolution(
    x: Array, W: Array, b: Array | None, stride: Pair, pad: Pair, dilation: Pair, relu: bool
) -> Array:
    """Return what `Backend.grouped_convolution` does for as many groups as channels; float32."""
    (n, c, h, w), size = x.shape, (W.shape[2], W.shape[3])
    reach = (spread(f, d) for f, d in zip(size, dilation, strict=True))
    oh, ow = (output_size(*axis) for axis in zip((h, w), reach, stride, pad, strict=True))
    y = pool.empty((n, oh, ow, c), np.float32)
    room = h + 2 * pad[0], w + 2 * pad[1]
    _filter(by_pixel(x), pad, (1, 1), room, W, b, stride, dilation, relu, y)
    return y.transpose(0, 3, 1, 2)


def backward(
    dout: Array, x: Array, W: Array, stride: Pair, pad: Pair, dilation: Pair, need_dx: bool
) -> tuple[Array | None, Array, Array]:
    """Return what `Backend.grouped_convolution_backward` does for as many groups as channels."""
    (n, c, h, w), (fh, fw) = x.shape, W.shape[2:]
    gradient = by_pixel(dout)
    dW, db = _sums(by_pixel(x), gradient, W, stride, pad, dilation)
    if not need_dx:
        return None, dW, db
    # A pixel gathers from the windows that saw it, `stride` apart: filters turned by half a turn.
    dx = pool.empty((n, h, w, c), np.float32)
    reach = spread(fh, dilation[0]), spread(fw, dilation[1])
    border = reach[0] - 1 - pad[0], reach[1] - 1 - pad[1]
    room = h + reach[0] - 1, w + reach[1] - 1
    turned = W[:, :, ::-1, ::-1]
    _filter(gradient, border, stride, room, turned, None, (1, 1), dilation, False, dx)
    return dx.transpose(0, 3, 1, 2), dW, db


def _filter(
    images: Array,
    border: Pair,
    apart: Pair,
    room: Pair,
    W: Array,
    b: Array | None,
    stride: Pair,
    dilation: Pair,
    relu: bool,
    y: Array,
) -> None:
    """Slide filters over images (N, H, W, C) that are put into a `room`; see `_put`."""
    (n, oh, ow, c), size = y.shape, (W.shape[2], W.shape[3])
    lines, strips = _strips(oh, room[1] * _whole(c), size[0], stride[0], dilation[0])
    rows, places, targets = _places((lines, ow), room[1], size, stride, dilation, c)
    biases = _blocks(np.zeros((c, 1), np.float32) if b is None else b.reshape(c, 1))
    filters, flat, flat_y = _blocks(W.reshape(c, -1)), images.reshape(-1), y.reshape(-1)
    down = stride[0], (lines - 1) * stride[0] + spread(size[0], dilation[0])
    share(
        cut(n * strips, lines * ow * c * size[0] * size[1]),
        _slide,
        *(flat, images.shape[1:3], c, border, apart, room, down, strips, filters, biases, relu),
        *(rows, places, targets, (lines, ow), oh, flat_y),
    )


def _sums(
    images: Array, gradient: Array, W: Array, stride: Pair, pad: Pair, dilation: Pair
) -> tuple[Array, Array]:
    """Return dW and db."""
    (n, h, w, c), (_, oh, ow, _), (fh, fw) = images.shape, gradient.shape, W.shape[2:]
    room = h + 2 * pad[0], w + 2 * pad[1]
    lines, strips = _strips(oh, room[1] * _whole(c), fh, stride[0], dilation[0])
    rows, places, _ = _places((lines, ow), room[1], (fh, fw), stride, dilation, c)
    blocks, taps = -(-c // LANES), -(-fh * fw // TAPS)
    places = np.append(places, np.zeros(taps * TAPS - len(places), np.intp))
    bounds = cut(n * strips, lines * ow * c * fh * fw)
    sums = np.zeros((len(bounds) - 1, blocks * taps * (TAPS + 1) * LANES), np.float32)
    flat, flat_gradient = images.reshape(-1), gradient.reshape(-1)
    down = stride[0], (lines - 1) * stride[0] + spread(fh, dilation[0])
    where = (flat, (h, w), c, pad, room, down, strips, rows, places)
    share(bounds, _sum_products, *where, flat_gradient, (lines, ow), oh, sums)
    total = sums.sum(axis=0).reshape(blocks, taps, TAPS + 1, LANES).transpose(0, 3, 1, 2)
    dW = total[..., :TAPS].reshape(blocks * LANES, taps * TAPS)[:c, : fh * fw]
    return dW.reshape(W.shape), total[:, :, 0, TAPS].reshape(-1)[:c]


def _whole(c: int) -> int:
    """Return of how many channels whole registers are."""
    return -(-c // LANES) * LANES


def _blocks(a: Array) -> Array:
    """Return what there is of each channel, (C, K), as (blocks, K LANES), a register at a time."""
    c, k = a.shape
    blocks = np.zeros((_whole(c) // LANES, LANES, k), np.float32)
    blocks.reshape(-1, k)[:c] = a
    return np.ascontiguousarray(blocks.transpose(0, 2, 1)).reshape(len(blocks), -1)


def _strips(count: int, line: int, size: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return how many rows of windows a strip of an image has, and how many strips there are.

    A line of the image has so many numbers; a strip should stay in a core's own cache.
    """
    most = (STRIP_BYTES // (4 * line) - spread(size, dilation)) // stride + 1
    strips = -(-count // max(1, most))
    lines = -(-count // strips)
    return lines, -(-count // lines)


@lru_cache(maxsize=512)
def _places(
    counts: Pair, width: int, size: Pair, stride: Pair, dilation: Pair, c: int
) -> tuple[Array, Array, Array]:
    """Return where windows begin in a room of some width, where their numbers lie, and results.

    The windows are whole tiles of `ROWS`: the last one is there several times.
    """
    down, across = np.arange(counts[0]) * stride[0], np.arange(counts[1]) * stride[1]
    rows = (down[:, None] * width + across).reshape(-1) * _whole(c)
    places = np.arange(size[0])[:, None] * (dilation[0] * width) + np.arange(size[1]) * dilation[1]
    targets = np.arange(len(rows)) * c
    more = (0, -len(rows) % ROWS)
    places = places.reshape(-1) * _whole(c)
    return np.pad(rows, more, "edge"), places, np.pad(targets, more, "edge")


@compiled
def _put(x, x0, shape, c, border, apart, room, first, count, there):
    """Put an image (H, W, C) into a room, pixel i at border + i apart; here, `count` rows of it.

    What lies between and around the pixels is zero: between columns it stays so.
    """
    (h, w), (top, left), (down, across), (_, columns) = shape, border, apart, room
    line = len(there) // count
    pixel = line // columns
    begin = max(0, -(left // across))
    end = min(w, (columns - 1 - left) // across + 1)
    for r in range(count):
        row = there[r * line : (r + 1) * line]
        i, between = divmod(first + r - top, down)
        if between != 0 or i < 0 or i >= h:
            row[:] = 0
            continue
        source = x0 + i * w * c
        if across == 1 and pixel == c:
            at = (left + begin) * c
            row[at : at + (end - begin) * c] = x[source + begin * c : source + end * c]
            continue
        for j in range(begin, end):
            at = (left + j * across) * pixel
            row[at : at + c] = x[source + j * c : source + (j + 1) * c]


@shared
def _slide(
    x, shape, c, border, apart, room, down, strips, filters, biases, relu,
    rows, places, targets, counts, oh, y, shares,
):  # fmt: skip
    """Compute y of some strips."""
    (step, height), (lines, ow) = down, counts
    blocks, count = len(filters), lines * ow
    there = np.zeros(height * room[1] * blocks * LANES, np.float32)
    edge = np.empty(len(targets) * LANES if c % LANES else 1, np.float32)
    edge_targets = targets // c * LANES
    part, first, last = next_part(shares)
    while part >= 0:
        for item in range(first, last):
            image, strip = divmod(item, strips)
            begin = min(strip * lines, oh - lines)  # the last strip begins within the one before
            x0, y0 = image * shape[0] * shape[1] * c, (image * oh + begin) * ow * c
            _put(x, x0, shape, c, border, apart, room, begin * step, height, there)
            for block in range(blocks):
                at = block * LANES
                pixels, taps, bias = there[at:], filters[block], biases[block]
                if at + LANES <= c:
                    for r in range(0, count, ROWS):
                        weigh_places(pixels, rows, r, places, taps, bias, 0, y, y0 + at, targets)
                else:
                    for r in range(0, count, ROWS):
                        weigh_places(pixels, rows, r, places, taps, bias, 0, edge, 0, edge_targets)
            if c % LANES:
                at = c // LANES * LANES
                for r in range(count):
                    for f in range(c % LANES):
                        y[y0 + r * c + at + f] = edge[r * LANES + f]
            if relu:
                _rectify(y[y0 : y0 + count * c])
        part, first, last = next_part(shares)


@compiled
def _rectify(y):
    for f in range(len(y)):
        y[f] = max(y[f], np.float32(0))


@shared
def _sum_products(
    x, shape, c, pad, room, down, strips, rows, places, gradient, counts, oh, sums, shares
):
    """Add up, for each part of the strips, what a filter's numbers met times the gradient there."""
    (step, height), (lines, ow) = down, counts
    blocks, taps = -(-c // LANES), len(places) // TAPS
    there = np.zeros(height * room[1] * blocks * LANES, np.float32)
    edge = np.zeros(lines * ow * LANES if c % LANES else 1, np.float32)
    part, first, last = next_part(shares)
    while part >= 0:
        total = sums[part]
        for item in range(first, last):
            image, strip = divmod(item, strips)
            begin = strip * lines
            count = min(lines, oh - begin) * ow
            x0, g0 = image * shape[0] * shape[1] * c, (image * oh + begin) * ow * c
            _put(x, x0, shape, c, pad, (1, 1), room, begin * step, height, there)
            for block in range(blocks):
                at = block * LANES
                if at + LANES > c:
                    for r in range(count):
                        for f in range(c - at):
                            edge[r * LANES + f] = gradient[g0 + r * c + at + f]
                for k in range(taps):
                    s0 = (block * taps + k) * (TAPS + 1) * LANES
                    if at + LANES <= c:
                        sum_places(
                            there[at:],
                            rows,
                            places,
                            k * TAPS,
                            gradient,
                            g0 + at,
                            c,
                            count,
                            total,
                            s0,
                        )
                    else:
                        sum_places(
                            there[at:], rows, places, k * TAPS, edge, 0, LANES, count, total, s0
                        )
        part, first, last = next_part(shares)
