"""The gradient of images of few channels, plane by plane.

In channels-last memory, one or three numbers a pixel are too few for a core to add at a time, and
of a compiled kernel's register most lanes would be idle. Here a line of an image lies in one piece.
"""

from __future__ import annotations

import numpy as np

from xpdl.backends.base.types import Array, Pair, Shape
from xpdl.backends.numpy.memory import pool, scratch
from xpdl.backends.numpy.threads import single_threaded_blas, workers

MOST = 3
"""Up to so many channels this was the quickest way, at all sizes tried, on `numba` as well."""

BLOCK_BYTES = 512 * 1024


def image_gradient(dout: Array, W: Array, shape: Shape, stride: Pair, pad: Pair) -> Array:
    """Return dx of `shape` (N, C, H, W) for dout (N, FN, OH, OW) and filters W (FN, C, FH, FW).

    For each place (k, l) in a window, W[:, :, k, l] dout is a plane of what goes to the pixels
    that are seen there; the planes are added, each shifted to its place.
    """
    (n, c, h, w), (fn, _, fh, fw), (oh, ow) = shape, W.shape, dout.shape[2:]
    (sh, sw), (ph, pw) = stride, pad
    dtype = np.result_type(dout, W)
    gradient = dout.transpose(0, 2, 3, 1)
    filters = np.ascontiguousarray(W.transpose(2, 3, 1, 0).reshape(fh * fw * c, fn), dtype)
    dx = pool.empty((n, h, w, c), dtype)
    count = max(1, BLOCK_BYTES // (fh * fw * c * oh * ow * dtype.itemsize))

    def work(start: int) -> None:
        images = slice(start, min(start + count, n))
        pixels = gradient[images].reshape(-1, fn)
        planes = scratch("planes", (fh * fw * c, len(pixels)), dtype)
        np.matmul(filters, pixels.T, out=planes)
        planes = planes.reshape(fh, fw, c, -1, oh, ow)
        image = scratch("image", (c, planes.shape[3], h + 2 * ph, w + 2 * pw), dtype)
        image[...] = 0
        for k in range(fh):
            for m in range(fw):
                image[:, :, k : k + sh * oh : sh, m : m + sw * ow : sw] += planes[k, m]
        dx[images] = image[:, :, ph : ph + h, pw : pw + w].transpose(1, 2, 3, 0)

    with single_threaded_blas:
        workers.each(range(0, n, count), work)
    return dx.transpose(0, 3, 1, 2)
