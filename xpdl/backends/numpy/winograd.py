"""Winograd's minimal filtering F(2, 3) down the rows: 3x3 convolutions of stride 1 by products.

Two rows of results come of four rows d of the image, with four products instead of six:

y = A^T [ (G g) * (B^T d) ]        (Lavin and Gray, arXiv:1509.09308)

for the three rows g of a filter; * is a convolution along the row, summed over channels. That one
needs no windows laid out: three pixels beside each other are 3 C numbers in one piece, so that the
windows which begin at every third pixel of a row are a matrix (S, 3 C) as it stands in memory, and
three such products give a row of results. Rows share the padding between them.

Backward, dx is a convolution of dL/dy with the filters turned round, and what B^T made of dL/dy for
it serves dW too: dg = G^T [ (B^T d) * (A x) ], with pairs of rows x of the image.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np

from xpdl.backends.base.types import Array, Pair, Shape
from xpdl.backends.numpy.blocks import Block, blocks, sum_pixels, sums, tasks
from xpdl.backends.numpy.memory import pool, scratch
from xpdl.backends.numpy.products import rows_at_once
from xpdl.backends.numpy.threads import single_threaded_blas, workers
from xpdl.errors import ArgumentError

BLOCK_BYTES = 2 * 1024 * 1024
"""What the transformed rows of a block and their products take."""

FEWEST = 16
"""Channels, and filters: with less, a product is too small to be worth the transforms."""

MOST = 256 * 256
"""Channels times filters: beyond, the transformed filters no longer stay in a cache."""

HALF = np.float32(0.5)


def wanted() -> bool:
    """Tell whether ``XPDL_CONVOLUTION`` allows it: unset, or ``fastest``; not ``direct``."""
    way = os.environ.get("XPDL_CONVOLUTION") or "fastest"
    if way not in ("fastest", "direct"):
        raise ArgumentError(f"XPDL_CONVOLUTION must be 'fastest' or 'direct', got {way!r}.")
    return way == "fastest"


def described_as(way: str) -> str:
    """Say which convolutions are computed in this `way` of Winograd's, if it is `wanted`."""
    return f"Winograd's {way}; else direct sum" if wanted() else "direct sum (XPDL_CONVOLUTION)"


def described() -> str:
    """Say in a few words which convolutions are computed how."""
    return described_as(
        f"F(2, 3) for 3x3 filters of stride 1, from {FEWEST} channels and filters on"
    )


def chosen(shape: Shape, W: Shape, stride: Pair, pad: Pair) -> bool:
    """Tell whether images of `shape` and filters of the shape W are convolved so, if `wanted`."""
    fn, c, *size = W
    fits = size == [3, 3] and stride == (1, 1) and max(pad) <= 2 and shape[0] > 0
    return fits and min(c, fn) >= FEWEST and c * fn <= MOST and wanted()


class _Rows(NamedTuple):
    """B^T d of a block: rows of pixels, which end with zeros, and the windows along them."""

    shape: Shape
    """How many images, pairs of rows of results, and pixels in a row."""
    values: Array
    """(4, pixels, C), with three pixels to each window and two more."""
    windows: Array
    """(4, 3, windows, 3 C), a view: those that begin at pixel 0, 1 and 2, and every third more."""


def convolution(x: Array, W: Array, b: Array | None, pad: Pair, relu: bool) -> Array:
    """Return what `Backend.convolution` does, for float32, 3x3 filters and stride 1."""
    (n, c, h, w), fn = x.shape, len(W)
    image, filters = x.transpose(0, 2, 3, 1), _transformed_filters(W)
    y = pool.empty((n, h + 2 * pad[0] - 2, w + 2 * pad[1] - 2, fn), x.dtype)
    biases = None if b is None else np.tile(b, y.shape[2])
    least = np.zeros(y.shape[2] * fn, x.dtype) if relu else None

    def work(block: Block) -> None:
        rows = _transformed_rows(image, block, pad, fn)
        _write_results(rows, filters, biases, least, y, block)

    with single_threaded_blas:
        workers.each(_blocks(y.shape, w + pad[1], c), work)
    return y.transpose(0, 3, 1, 2)


def backward(dout: Array, x: Array, W: Array, pad: Pair) -> tuple[Array, Array, Array]:
    """Return dx, dW and db, as `Backend.convolution_backward` does."""
    (n, c, h, w), (_, fn, oh, ow), border = x.shape, dout.shape, (2 - pad[0], 2 - pad[1])
    image, gradient = x.transpose(0, 2, 3, 1), dout.transpose(0, 2, 3, 1)
    filters = _transformed_filters(W[:, :, ::-1, ::-1].transpose(1, 0, 2, 3))
    dx = pool.empty((n, h, w, c), dout.dtype)
    pairs = -(-h // 2)

    def work(task: list[Block]) -> tuple[Array, Array]:
        total, db = np.zeros((4, 3 * fn, c), x.dtype), np.zeros(fn, x.dtype)
        more = np.empty_like(total)
        for images, down in task:
            rows = _transformed_rows(gradient, (images, down), border, c)
            _write_results(rows, filters, None, None, dx, (images, down))
            pixels = _transformed_pairs(image, (images, down), rows)
            for first in range(3):
                windows = rows.windows[:, first].transpose(0, 2, 1)
                np.matmul(windows, pixels[:, first::3], out=more)
                total += more
            share = slice(down.start * oh // pairs, down.stop * oh // pairs)  # of dout, once each
            db += sum_pixels(gradient[images, share])
        return total, db

    with single_threaded_blas:
        shared = tasks(_blocks(dx.shape, ow + border[1], fn), 4 * 12 * fn * c)
        total, db = sums(workers.each(shared, work))
    return dx.transpose(0, 3, 1, 2), _gradient_of_filters(total), db


def _blocks(results: Shape, width: int, c: int) -> list[Block]:
    """Cut the pairs of rows of results (N, OH, OW, FN) into blocks."""
    n, oh, _, fn = results
    return blocks(n, -(-oh // 2), 4 * 4 * width * (c + fn), BLOCK_BYTES)


def _transformed_filters(W: Array) -> Array:
    """Return G g of filters (FN, C, 3, 3), as (4, 3 C, FN)."""
    fn, c = W.shape[:2]
    first, middle, last = np.ascontiguousarray(W.transpose(2, 3, 1, 0))
    ends, middle = HALF * (first + last), HALF * middle
    return np.stack([first, ends + middle, ends - middle, last]).reshape(4, 3 * c, fn)


def _gradient_of_filters(total: Array) -> Array:
    """Return dW (FN, C, 3, 3), which is G^T m turned round, of m (4, 3 FN, C)."""
    first, second, third, last = total
    even, odd = HALF * (second + third), HALF * (second - third)
    turned = np.stack([first + even, odd, even + last])
    turned = turned.reshape(3, 3, -1, total.shape[2])[::-1, ::-1]
    return np.ascontiguousarray(turned.transpose(2, 3, 0, 1))


def _transformed_rows(image: Array, block: Block, pad: Pair, fn: int) -> _Rows:
    """Return B^T d of images (N, H, W, C) for `fn` filters; pair t begins at row 2 t - pad."""
    (images, down), (_, _, w, c) = block, image.shape
    k, count, width = images.stop - images.start, down.stop - down.start, w + pad[1]
    pixels, first = k * count * width, 2 * down.start - pad[0]
    even, odd = (scratch(name, (k, count + 1, width, c), image.dtype) for name in ("even", "odd"))
    _every_other_row(image[images], first, pad[1], even)
    _every_other_row(image[images], first + 1, pad[1], odd)

    chunks, size = _chunks(-(-pixels // 3), 3 * c * fn)
    values = scratch("transformed rows", (4, 3 * chunks * size + 2, c), image.dtype)
    values[:, pixels:] = 0
    lines = values[:, :pixels].reshape(4, k, count, width, c)
    np.subtract(even[:, :-1], even[:, 1:], out=lines[0])
    np.add(odd[:, :-1], even[:, 1:], out=lines[1])
    np.subtract(even[:, 1:], odd[:, :-1], out=lines[2])
    np.subtract(odd[:, 1:], odd[:, :-1], out=lines[3])
    step = image.itemsize
    windows = np.ndarray(
        (4, 3, chunks * size, 3 * c), values.dtype, values, 0,
        (values.strides[0], c * step, 3 * c * step, step),
    )  # fmt: skip
    return _Rows((k, count, width), values, windows)


def _every_other_row(images: Array, first: int, left: int, out: Array) -> None:
    """Copy rows first, first + 2, ... of images (N, H, W, C) to the middle of those of `out`.

    `out` (N, rows, width, C) has `left` zeros before, zeros behind, and where there is no row.
    """
    (_, h, w, _), count = images.shape, out.shape[1]
    above = min(count, max(0, -(first // 2)))
    below = min(count, max(above, -(-(h - first) // 2)))
    out[:, :above] = out[:, below:] = 0
    inside = out[:, above:below]
    inside[:, :, :left] = inside[:, :, left + w :] = 0
    inside[:, :, left : left + w] = images[:, first + 2 * above : first + 2 * below - 1 : 2]


def _transformed_pairs(image: Array, block: Block, rows: _Rows) -> Array:
    """Return A x of pairs of rows of images (N, H, W, C), as (4, pixels, C), like `rows`."""
    (images, down), c, (k, count, width) = block, image.shape[3], rows.shape
    values = scratch("pairs", (4, rows.values.shape[1] - 2, c), image.dtype)
    values[:, k * count * width :] = 0
    even, total, difference, odd = values
    for i, every_other in enumerate((even, odd)):
        lines = every_other[: k * count * width].reshape(k, count, width, c)
        _every_other_row(image[images], 2 * down.start + i, 0, lines)
    np.add(even, odd, out=total)
    np.subtract(even, odd, out=difference)
    return values


def _write_results(
    rows: _Rows, filters: Array, biases: Array | None, least: Array | None, y: Array, block: Block
) -> None:
    """Write A^T m + biases to a block of y (N, OH, OW, FN), for the products m of the rows.

    `biases` and `least`, less than which no result is, are as long as a row of y.
    """
    (images, down), (n, oh, ow, fn), (k, count, width) = block, y.shape, rows.shape
    windows, line = rows.windows.shape[2], filters.shape[1]
    chunks, size = _chunks(windows, line * fn)
    products = scratch("products", (4, 3 * windows, fn), y.dtype)
    np.matmul(
        rows.windows.reshape(4, 3, chunks, size, line),
        filters[:, None, None],
        out=products.reshape(4, chunks, size, 3, fn).transpose(0, 3, 1, 2, 4),
    )
    even, odd, third, last = products
    even += odd
    even += third
    odd -= third
    odd += last
    lines = y.reshape(n, oh, ow * fn)
    for i, sums_of_rows in enumerate((even, odd)):
        target = lines[images, 2 * down.start + i : 2 * down.stop : 2]
        found = sums_of_rows[: k * count * width].reshape(k, count, width * fn)
        found = found[:, : target.shape[1], : ow * fn]
        if biases is not None:
            found += biases
        if least is None:
            target[...] = found
        else:
            np.maximum(found, least, out=target)


def _chunks(windows: int, multiplications: int) -> tuple[int, int]:
    """Return into how many products of how many windows `windows`, or some more, are cut."""
    most = rows_at_once(multiplications)
    chunks = -(-windows // most) if most else 1
    return chunks, -(-windows // chunks)
