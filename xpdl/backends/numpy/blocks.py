"""A batch of images in blocks that stay in a core's own cache, and what they are summed to.

Blocks and tasks depend on the shapes alone, and sums run over tasks in order: the result is the
same to the last bit whichever thread does what, and however many there are.
"""

from __future__ import annotations

from typing import TypeAlias

from xpdl.backends.base.types import Array

# A sum over tasks needs an array for each; this many bytes of them are no burden.
SUMS_BYTES = 32 * 1024 * 1024

Block: TypeAlias = tuple[slice, slice]
"""Some whole images and all their rows; or one image and some of its rows."""


def blocks(n: int, rows: int, row_bytes: int, block_bytes: int) -> list[Block]:
    """Cut `n` images of so many rows into blocks: some images, or some rows of one."""
    images = block_bytes // (rows * row_bytes)
    if images:
        return [(slice(i, min(i + images, n)), slice(0, rows)) for i in range(0, n, images)]
    step = max(1, block_bytes // row_bytes)
    return [
        (slice(i, i + 1), slice(j, min(j + step, rows)))
        for i in range(n)
        for j in range(0, rows, step)
    ]


def tasks(parts: list[Block], bytes_each: int, whole_images: bool = False) -> list[list[Block]]:
    """Gather blocks into as many tasks as threads need to share them evenly, in order."""
    most = max(2, min(16, SUMS_BYTES // bytes_each))
    if not whole_images:
        bounds = list(range(len(parts)))
    else:
        bounds = [i for i, (_, rows) in enumerate(parts) if rows.start == 0]
    count = min(most, len(bounds)) or 1
    bounds = bounds or [0]  # no images: one task without a block
    starts = [bounds[len(bounds) * i // count] for i in range(count)]
    return [parts[a:b] for a, b in zip(starts, [*starts[1:], len(parts)], strict=True)]


def sums(parts: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Return the sums of the tasks' dW and of their db, added in order."""
    dW, db = parts[0]
    for more_dW, more_db in parts[1:]:
        dW += more_dW
        db += more_db
    return dW, db


def sum_pixels(gradient: Array) -> Array:
    """Return the sum of a gradient (N, OH, OW, FN) over all pixels, (FN,)."""
    n, oh, ow, fn = gradient.shape
    lines = gradient.reshape(n * oh, ow * fn).sum(axis=0)  # long rows first: that is quicker
    return lines.reshape(ow, fn).sum(axis=0)
