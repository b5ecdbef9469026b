"""Winograd's minimal filtering F(2x2, 3x3): 3x3 convolutions of stride 1 with 2.25 times less.

An image is cut into tiles of 4x4 pixels that overlap by two, each with 2x2 results:

Y = A^T [ sum over channels of (G g G^T) * (B^T d B) ] A        (Lavin and Gray, arXiv:1509.09308)

for a tile d and a filter g; * is element by element, so over all tiles and filters it is 16 matrix
products. Backward for filters is the same read backwards, dg = G^T [sum over tiles of (B^T d B) *
(A dY A^T)] G; dL/dx is a convolution of dL/dy with the filters turned round.

A block of tiles is transformed, multiplied and transformed back while it stays in a core's cache;
`tiles` has the loops.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from xpdl.backends.base.types import Array, Pair, Shape
from xpdl.backends.numba import tiles
from xpdl.backends.numba.sharing import SUMS_BYTES, cut, share
from xpdl.backends.numba.tiles import GROUP, apart, steps, whole
from xpdl.backends.numba.vectors import LANES, ROWS
from xpdl.backends.numpy.memory import pool
from xpdl.backends.numpy.winograd import described_as, wanted

BLOCK_BYTES = 768 * 1024
"""What a block's tiles take, of a core's second cache, and the gradients of their results."""

FEWEST_TILES, MOST_TILES = 128, 256
"""So many in a block: filters are read from far for each block, and sums written."""

PARTS = 8
"""There are to be so many blocks, so that all threads have work; else they are cut by filters."""


def described() -> str:
    """Say in a few words which convolutions are computed how."""
    return described_as(
        f"F(2x2, 3x3) for 3x3 filters of stride 1, channels and filters in {LANES}s"
    )


def chosen(shape: Shape, W: Shape, stride: Pair, pad: Pair) -> bool:
    """Tell whether images of `shape` and filters of the shape W are convolved so, if `wanted`."""
    fn, c, *size = W
    fits = size == [3, 3] and stride == (1, 1) and c % LANES == 0 and fn % LANES == 0
    return fits and shape[0] > 0 and max(pad) <= 2 and wanted()


def convolution(
    image: Array,
    shape: Shape,
    W: Array,
    b: Array | None,
    pad: Pair,
    relu: bool,
    factors: Array | None = None,
) -> Array:
    """Return y (N, OH, OW, FN) of flat images, whose shape is (N, C, H, W), and W (C, FN, 3, 3).

    The filters are multiplied by `factors` (FN,), if these are given.
    """
    n, (oh, ow), fn = shape[0], _counts(shape, pad), W.shape[1]
    y = pool.empty((n, oh, ow, fn), np.float32)
    _convolve(image, shape, W, b, pad, relu, y, np.empty(0, np.uint8), factors)
    return y


def pools(shape: Shape, pad: Pair, size: Pair, step: Pair) -> bool:
    """Tell whether the windows of a pooling are the tiles of results."""
    return size == step == (2, 2) and not any(count % 2 for count in _counts(shape, pad))


def convolution_pooling(
    image: Array, shape: Shape, W: Array, b: Array | None, pad: Pair
) -> tuple[Array, Array]:
    """Return the largest of each 2x2 results, and 0; and which it is, (N, OH / 2, OW / 2, FN)."""
    n, (oh, ow), fn = shape[0], _counts(shape, pad), W.shape[1]
    y = pool.empty((n, oh // 2, ow // 2, fn), np.float32)
    winners = pool.empty((y.size,), np.uint8)
    _convolve(image, shape, W, b, pad, True, y, winners)
    return y, winners


def _counts(shape: Shape, pad: Pair) -> Pair:
    return shape[2] + 2 * pad[0] - 2, shape[3] + 2 * pad[1] - 2


def _convolve(
    image: Array,
    shape: Shape,
    W: Array,
    b: Array | None,
    pad: Pair,
    relu: bool,
    y: Array,
    winners: Array,
    factors: Array | None = None,
) -> None:
    c, fn = W.shape[:2]
    grid = _grid(shape, _counts(shape, pad), fn, pad)
    u = _transformed_filters(W, np.ones(fn, np.float32) if factors is None else factors)
    splits = _splits(grid.blocks, fn)
    flat, biases = y.reshape(-1), np.zeros(fn, np.float32) if b is None else b
    least = np.float32(0 if relu else -np.inf)
    share(
        cut(grid.blocks * splits, grid.block * 16 * c * fn // splits),
        tiles.convolve_tiles,
        *(image, *grid.images, u, biases, least, flat, *grid.results, winners),
        *(grid.count, grid.block, splits),
        tiles=_room(c, grid.block),
        products=_room(2 * LANES, GROUP),
    )


def filters_gradient(
    image: Array, shape: Shape, gradient: Array, counts: Pair, fn: int, pad: Pair
) -> tuple[Array, Array]:
    """Return dW (FN, C, 3, 3) and db (FN,), of flat images and the flat gradient of results."""
    c = shape[1]
    grid = _grid(shape, counts, fn, pad)
    size = 16 * apart(whole(c) * fn)
    parts = max(1, min(grid.blocks, 16, SUMS_BYTES // (4 * size)))
    splits = _splits(parts, fn)
    sums, db = pool.empty((parts, size), np.float32), np.empty((parts, fn), np.float32)
    dW = pool.empty((fn, c, 3, 3), np.float32)
    widest = -(-fn // (2 * LANES * splits)) * 2 * LANES
    share(
        cut(parts * splits, grid.count * 16 * c * fn // (parts * splits)),
        tiles.sum_tiles,
        *(image, *grid.images, gradient, *grid.results),
        *(sums, db, grid.count, grid.block, splits),
        tiles=_room(c, grid.block),
        products=_room(widest, grid.block),
    )
    bounds = cut(-(-fn // (2 * LANES)), parts * 4 * 16 * c * 2 * LANES)
    share(bounds, tiles.gradient_of_filters, sums, dW)
    return dW, db.sum(axis=0)


class _Grid:
    """The tiles of images (N, C, H, W), in blocks; and where those of images and results lie.

    `images` and `results` are the sizes of one image and one pixel in numbers, and the places of
    all tiles' pixels, down and across.
    """

    def __init__(self, shape: Shape, counts: Pair, fn: int, pad: Pair) -> None:
        (n, c, h, w), (oh, ow) = shape, counts
        down, across = _places(h, oh, 4, pad[0], w * c), _places(w, ow, 4, pad[1], c)
        self.images = (h * w * c, c), down, across
        self.results = (
            *((oh * ow * fn, fn), _places(oh, oh, 2, 0, ow * fn), _places(ow, ow, 2, 0, fn)),
        )
        self.count = n * -(-oh // 2) * -(-ow // 2)
        fit = BLOCK_BYTES // (16 * 4 * (c + fn))
        most = min(max(fit, FEWEST_TILES), MOST_TILES, self.count)
        blocks = -(-self.count // most)
        if 16 * 4 * c * fn <= BLOCK_BYTES:  # filters are at hand: rather a block for each thread
            blocks = max(blocks, min(PARTS, self.count // GROUP))
        self.block = -(-self.count // (blocks * GROUP)) * GROUP
        self.blocks = -(-self.count // self.block)


_grid = lru_cache(maxsize=512)(_Grid)


def _splits(count: int, fn: int) -> int:
    """Return into how many ranges filters are cut, where there are few parts without."""
    return max(1, min(PARTS // count, fn // (4 * LANES)))


def _transformed_filters(W: Array, factors: Array) -> Array:
    """Return G g G^T of filters (C, FN, 3, 3), times factors, as `tiles` lays it out."""
    c, fn = W.shape[:2]
    u = pool.empty((16 * apart(c * fn),), np.float32)
    bounds = cut(-(-fn // (2 * LANES)), 4 * 25 * c * 2 * LANES)
    share(bounds, tiles.transform_filters, W, factors, u)
    return u


@lru_cache(maxsize=512)
def _room(c: int, count: int) -> int:
    """Return how many numbers so many tiles take, read a tile of products beyond the last."""
    return 16 * steps(c, count)[1] + ROWS


@lru_cache(maxsize=512)
def _places(extent: int, out: int, size: int, pad: int, step: int) -> Array:
    """Return where each tile's `size` pixels of one axis lie, `step` apart; two results a tile."""
    pixels = 2 * np.arange(-(-out // 2))[:, None] + np.arange(size) - pad
    return np.where((pixels >= 0) & (pixels < extent), pixels * step, tiles.OUTSIDE).reshape(-1)
