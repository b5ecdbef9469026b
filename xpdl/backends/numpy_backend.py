"""NumPy on a CPU, at speed.

4-D data is kept in channels-last memory behind its shape (N, C, H, W): a window's row then lies
in one piece, FW*C numbers long, and a product's result is the next layer's input as it stands.
Convolutions go through blocks of images small enough for a core's own cache, one thread a part of
the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from xpdl.backends.base import Array, Backend, Pair, Shape, output_size
from xpdl.backends.threads import Workers

# A block's windows should stay in a core's second-level cache, with room for the rest.
BLOCK_BYTES = 512 * 1024

_workers = Workers()


class NumpyBackend(Backend):
    """Overrides of the generic primitives that are faster on a CPU."""

    name = "numpy"

    def convolution(self, x: Array, W: Array, b: Array | None, stride: Pair, pad: Pair) -> Array:
        if x.dtype == np.float16:  # emulated: there is no half-precision arithmetic to be fast
            b = None if b is None else _single(b)
            return _half(self.convolution(_single(x), _single(W), b, stride, pad))
        fn, c, fh, fw = W.shape
        image = _channels_last(x, pad)
        n, h, w, _ = image.shape
        oh, ow = output_size(h, fh, stride[0], 0), output_size(w, fw, stride[1], 0)
        windows = _windows(image, (fh, fw), stride, (oh, ow))
        filters = W.transpose(2, 3, 1, 0).reshape(fh * fw * c, fn)
        y = np.empty((n, oh, ow, fn), dtype=np.result_type(x, W))

        def work(start: int, stop: int) -> None:
            for block, rows in _blocks(windows, start, stop):
                out = y[block].reshape(-1, fn)
                np.matmul(rows, filters, out=out)
                if b is not None:
                    out += b

        _workers.over(n, work)
        return y.transpose(0, 3, 1, 2)

    def convolution_backward(
        self, dout: Array, x: Array, W: Array, stride: Pair, pad: Pair, need_dx: bool = True
    ) -> tuple[Array | None, Array, Array]:
        if x.dtype == np.float16:
            dx, dW, db = self.convolution_backward(
                _single(dout), _single(x), _single(W), stride, pad, need_dx
            )
            return None if dx is None else _half(dx), _half(dW), _half(db)
        fits = all(p < f for p, f in zip(pad, W.shape[2:], strict=True))
        if need_dx and stride == (1, 1) and fits:
            return _backward_by_gradient_windows(dout, x, W, pad)
        return _backward_by_image_windows(dout, x, W, stride, pad, need_dx)

    def max_pooling(
        self, x: Array, size: Pair, stride: Pair, pad: Pair, train: bool = False
    ) -> tuple[Array, Any]:
        if size != stride or pad != (0, 0):
            return super().max_pooling(x, size, stride, pad, train)
        parts = _tiles(x, size)
        y = np.maximum(parts[0], parts[1]) if len(parts) > 1 else parts[0].copy()
        for part in parts[2:]:
            np.maximum(y, part, out=y)
        # Both are kept by other layers anyway, so the winners cost no memory.
        return y, (x, y) if train else None

    def max_pooling_backward(
        self, dout: Array, winners: Any, shape: Shape, size: Pair, stride: Pair, pad: Pair
    ) -> Array:
        if not isinstance(winners, tuple):
            return super().max_pooling_backward(dout, winners, shape, size, stride, pad)
        x, y = winners
        whole = all(s % k == 0 for s, k in zip(shape[2:], size, strict=True))
        dx = np.empty_like(x) if whole else np.zeros_like(x)
        free = np.ones(y.shape, dtype=bool)
        for part, target in zip(_tiles(x, size), _tiles(dx, size), strict=True):
            wins = part == y
            wins &= free
            free ^= wins
            np.multiply(dout, wins, out=target)
        if free.any():  # windows in which a NaN won, which equals nothing
            for part, target in zip(_tiles(x, size), _tiles(dx, size), strict=True):
                wins = np.isnan(part) & free
                free ^= wins
                target[wins] = dout[wins]
        return dx


def _single(a: Array) -> Array:
    return a.astype(np.float32)


def _half(a: Array) -> Array:
    return a.astype(np.float16)


def _channels_last(x: Array, pad: Pair) -> Array:
    """Return x (N, C, H, W) padded and contiguous as (N, H + 2 ph, W + 2 pw, C)."""
    last = x.transpose(0, 2, 3, 1)
    if pad == (0, 0):
        return np.ascontiguousarray(last)
    (n, h, w, c), (ph, pw) = last.shape, pad
    padded = np.empty((n, h + 2 * ph, w + 2 * pw, c), dtype=x.dtype)
    padded[:, :ph] = padded[:, ph + h :] = 0
    padded[:, :, :pw] = padded[:, :, pw + w :] = 0
    padded[:, ph : ph + h, pw : pw + w] = last
    return padded


def _windows(image: Array, size: Pair, stride: Pair, counts: Pair) -> Array:
    """Return a view (N, OH, OW, FH, FW*C) of the windows of a contiguous (N, H, W, C) image."""
    n, h, w, c = image.shape
    # Not image.strides: NumPy leaves the stride of an axis of length 1 to chance.
    sc = image.itemsize
    sw, sh, sn = c * sc, w * c * sc, h * w * c * sc
    return np.lib.stride_tricks.as_strided(
        image,
        (n, *counts, size[0], size[1] * c),
        (sn, sh * stride[0], sw * stride[1], sh, sc),
        writeable=False,
    )


def _blocks(windows: Array, start: int, stop: int) -> Iterator[tuple[slice, Array]]:
    """Yield images `start` to `stop` a few at a time: which, and their windows (rows, FH*FW*C).

    The rows of one block overwrite those of the block before.
    """
    _, oh, ow, fh, width = windows.shape
    each = oh * ow * fh * width * windows.itemsize
    step = max(1, BLOCK_BYTES // each)
    buffer = np.empty((min(step, stop - start), *windows.shape[1:]), dtype=windows.dtype)
    for first in range(start, stop, step):
        block = slice(first, min(first + step, stop))
        part = buffer[: block.stop - first]
        part[...] = windows[block]
        yield block, part.reshape(-1, fh * width)


def _backward_by_gradient_windows(
    dout: Array, x: Array, W: Array, pad: Pair
) -> tuple[Array, Array, Array]:
    """Backward at stride 1, from the windows of dout alone.

    dx is dout correlated with the filters turned by half a turn, and dW is the windows of dout
    times the pixels of x that they are centred on; so one im2col serves both, and nothing has to
    be added back.
    """
    fn, c, fh, fw = W.shape
    n, _, h, w = x.shape
    gradient = _channels_last(dout, (fh - 1 - pad[0], fw - 1 - pad[1]))
    windows = _windows(gradient, (fh, fw), (1, 1), (h, w))
    pixels = _channels_last(x, (0, 0))
    turned = W[:, :, ::-1, ::-1].transpose(2, 3, 0, 1).reshape(fh * fw * fn, c)
    dx = np.empty((n, h, w, c), dtype=np.result_type(dout, W))

    def work(start: int, stop: int) -> Array:
        total = np.zeros((fh * fw * fn, c), dtype=dx.dtype)
        for block, rows in _blocks(windows, start, stop):
            np.matmul(rows, turned, out=dx[block].reshape(-1, c))
            total += rows.T @ pixels[block].reshape(-1, c)
        return total

    total = sum(_workers.over(n, work))
    dW = total.reshape(fh, fw, fn, c).transpose(2, 3, 0, 1)[:, :, ::-1, ::-1]
    return dx.transpose(0, 3, 1, 2), dW, _sum_pixels(_channels_last(dout, (0, 0)))


def _backward_by_image_windows(
    dout: Array, x: Array, W: Array, stride: Pair, pad: Pair, need_dx: bool
) -> tuple[Array | None, Array, Array]:
    """Backward at any stride, from the windows of x, adding dx back window by window."""
    fn, c, fh, fw = W.shape
    (n, _, h, w), (ph, pw), (sh, sw) = x.shape, pad, stride
    image = _channels_last(x, pad)
    oh, ow = dout.shape[2:]
    windows = _windows(image, (fh, fw), stride, (oh, ow))
    gradient = _channels_last(dout, (0, 0))
    filters = W.transpose(0, 2, 3, 1).reshape(fn, fh * fw * c)
    dimage = np.zeros(image.shape, dtype=np.result_type(dout, W)) if need_dx else None

    def work(start: int, stop: int) -> Array:
        total = np.zeros((fh * fw * c, fn), dtype=np.result_type(dout, W))
        for block, rows in _blocks(windows, start, stop):
            rows_out = gradient[block].reshape(-1, fn)
            total += rows.T @ rows_out
            if dimage is not None:
                parts = (rows_out @ filters).reshape(-1, oh, ow, fh, fw, c)
                target = dimage[block]
                for i in range(fh):
                    for j in range(fw):
                        target[:, i : i + sh * oh : sh, j : j + sw * ow : sw] += parts[
                            :, :, :, i, j
                        ]
        return total

    total = sum(_workers.over(n, work))
    dW = total.reshape(fh, fw, c, fn).transpose(3, 2, 0, 1)
    if dimage is None:
        return None, dW, _sum_pixels(gradient)
    dx = dimage[:, ph : ph + h, pw : pw + w].transpose(0, 3, 1, 2)
    return dx, dW, _sum_pixels(gradient)


def _sum_pixels(gradient: Array) -> Array:
    """Return the sum of a contiguous gradient (N, OH, OW, FN) over all pixels, (FN,)."""
    rows = gradient.reshape(-1, gradient.shape[3])
    return np.ones(len(rows), dtype=rows.dtype) @ rows


def _tiles(x: Array, size: Pair) -> list[Array]:
    """Return, for each place in a window, the view of x that holds that place of all windows."""
    (fh, fw), (h, w) = size, x.shape[2:]
    oh, ow = h // fh, w // fw
    return [x[:, :, i : fh * oh : fh, j : fw * ow : fw] for i in range(fh) for j in range(fw)]
