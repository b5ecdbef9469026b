"""Convolution on a CPU, at speed: im2col in blocks that stay in a core's own cache.

4-D data is kept in channels-last memory behind its shape (N, C, H, W): a window's row then lies in
one piece, FW*C numbers long, and a product's result is the next layer's input as it stands. The
windows of a block are laid out, multiplied and forgotten; they never travel to main memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xpdl.backends.base.types import Array, Pair, output_size
from xpdl.backends.numpy.blocks import Block, blocks, sum_pixels, sums, tasks
from xpdl.backends.numpy.memory import pool, scratch
from xpdl.backends.numpy.products import multiply_rows
from xpdl.backends.numpy.threads import single_threaded_blas, workers

# A block's windows: few enough to stay in a core's caches, many enough that its products take
# long beside the Python between them, during which no other thread's Python runs.
BLOCK_BYTES = 2 * 1024 * 1024

# Of a window's row, at least this many numbers should lie in one piece to be copied as a row.
SHORTEST_ROW = 12


class Columns:
    """The windows of x (N, C, H, W), one a row, (rows, FH*FW*C), a block at a time."""

    def __init__(self, x: Array, size: Pair, stride: Pair, pad: Pair) -> None:
        self.image = x.transpose(0, 2, 3, 1)
        self.size, self.stride, self.pad = size, stride, pad
        self.n, self.h, self.w, self.c = self.image.shape
        self.oh = output_size(self.h, size[0], stride[0], pad[0])
        self.ow = output_size(self.w, size[1], stride[1], pad[1])
        self.width = size[0] * size[1] * self.c
        self.as_it_stands = pad == (0, 0) and self.image.flags.c_contiguous

    def blocks(self) -> list[Block]:
        """Return all windows in blocks of `BLOCK_BYTES`."""
        return blocks(self.n, self.oh, self.ow * self.width * self.image.itemsize, BLOCK_BYTES)

    def rows(self, block: Block) -> Array:
        """Return the windows of a block as a matrix; this thread's next one overwrites it."""
        windows = self._windows(block)
        k, rows, ow, fh, fw, c = windows.shape
        if (fh, fw) == (1, 1) and windows.flags.c_contiguous:
            return windows.reshape(-1, c)
        if fw * c >= SHORTEST_ROW:
            matrix = scratch("columns", (k * rows * ow, self.width), windows.dtype)
            np.copyto(matrix.reshape(windows.shape), windows)
            return matrix
        # Few channels: copy along the image instead, a place in the window at a time.
        turned = scratch("columns", (self.width, k * rows * ow), windows.dtype)
        np.copyto(turned.reshape(fh, fw, c, k, rows, ow), windows.transpose(3, 4, 5, 0, 1, 2))
        return turned.T

    def _windows(self, block: Block) -> Array:
        """Return a view (images, rows, OW, FH, FW, C) of a block's windows."""
        images, rows = block
        (fh, fw), (sh, sw) = self.size, self.stride
        first = rows.start * sh  # of the padded image's rows, those that the windows see
        last = (rows.stop - 1) * sh + fh
        if self.as_it_stands:
            memory, height, width = self.image, self.h, self.w
            start = images.start * height + first
        else:
            memory = self._padded(images, first, last)
            height, width = memory.shape[1:3]
            start = 0
        step = memory.itemsize  # not memory.strides: NumPy leaves an axis of length 1 to chance
        right = self.c * step
        down = width * right
        return np.ndarray(
            (images.stop - images.start, rows.stop - rows.start, self.ow, fh, fw, self.c),
            memory.dtype,
            memory,
            start * down,
            (height * down, sh * down, sw * right, down, right, step),
        )

    def _padded(self, images: slice, first: int, last: int) -> Array:
        """Return rows `first` to `last` of the padded images, contiguous, channels last."""
        (ph, pw), h, w = self.pad, self.h, self.w
        shape = (images.stop - images.start, last - first, w + 2 * pw, self.c)
        padded = scratch("image", shape, self.image.dtype)
        height = last - first  # of which rows `top` to `bottom` are the image's own
        top = min(max(0, ph - first), height)
        bottom = min(max(top, ph + h - first), height)
        padded[:, :top] = padded[:, bottom:] = 0
        padded[:, top:bottom, :pw] = padded[:, top:bottom, pw + w :] = 0
        padded[:, top:bottom, pw : pw + w] = self.image[
            images, first + top - ph : first + bottom - ph
        ]
        return padded


def convolution(x: Array, W: Array, b: Array | None, stride: Pair, pad: Pair, relu: bool) -> Array:
    """Return what `Backend.convolution` does, for float32 or float64."""
    fn, c, fh, fw = W.shape
    columns = Columns(x, (fh, fw), stride, pad)
    filters = W.transpose(2, 3, 1, 0).reshape(fh * fw * c, fn)
    y = pool.empty((columns.n, columns.oh, columns.ow, fn), np.result_type(x, W))
    # Adding whole rows of pixels is quicker, and so is a maximum with an array.
    biases = None if b is None else np.tile(b, columns.ow)
    least = np.zeros(columns.ow * fn, y.dtype)

    def work(task: Sequence[Block]) -> None:
        for block in task:
            out = y[block]
            multiply_rows(columns.rows(block), filters, out.reshape(-1, fn))
            lines = out.reshape(-1, columns.ow * fn)
            if biases is not None:
                lines += biases
            if relu:
                np.maximum(lines, least, out=lines)

    with single_threaded_blas:
        workers.each([[block] for block in columns.blocks()], work)
    return y.transpose(0, 3, 1, 2)


def backward_by_gradient_windows(
    dout: Array, x: Array, W: Array, pad: Pair
) -> tuple[Array, Array, Array]:
    """Backward at stride 1, from the windows of dout alone.

    dx is dout correlated with the filters turned by half a turn, and dW is the windows of dout
    times the pixels of x that they are centred on; so one im2col serves both, and nothing has to
    be added back.
    """
    fn, c, fh, fw = W.shape
    columns = Columns(dout, (fh, fw), (1, 1), (fh - 1 - pad[0], fw - 1 - pad[1]))
    turned = W[:, :, ::-1, ::-1].transpose(2, 3, 0, 1).reshape(fh * fw * fn, c)
    dtype = np.result_type(dout, W)
    pixels, gradient = x.transpose(0, 2, 3, 1), dout.transpose(0, 2, 3, 1)
    dx = pool.empty(pixels.shape, dtype)
    h, oh = x.shape[2], dout.shape[2]

    def work(task: Sequence[Block]) -> tuple[Array, Array]:
        dW, db = np.zeros((fh * fw * fn, c), dtype), np.zeros(fn, dtype)
        for images, rows in task:
            windows = columns.rows((images, rows))
            multiply_rows(windows, turned, dx[images, rows].reshape(-1, c))
            dW += windows.T @ pixels[images, rows].reshape(-1, c)
            share = slice(rows.start * oh // h, rows.stop * oh // h)  # of dout's rows, each once
            db += sum_pixels(gradient[images, share])
        return dW, db

    with single_threaded_blas:
        dW, db = sums(workers.each(tasks(columns.blocks(), dx.itemsize * turned.size), work))
    dW = dW.reshape(fh, fw, fn, c).transpose(2, 3, 0, 1)[:, :, ::-1, ::-1]
    return dx.transpose(0, 3, 1, 2), dW, db


def backward_by_image_windows(
    dout: Array, x: Array, W: Array, stride: Pair, pad: Pair, need_dx: bool
) -> tuple[Array | None, Array, Array]:
    """Backward at any stride, from the windows of x, adding dx back window by window."""
    fn, c, fh, fw = W.shape
    (n, _, h, w), (ph, pw), (sh, sw) = x.shape, pad, stride
    columns = Columns(x, (fh, fw), stride, pad)
    ow = columns.ow
    dtype = np.result_type(dout, W)
    gradient = dout.transpose(0, 2, 3, 1)
    filters = W.transpose(0, 2, 3, 1).reshape(fn, fh * fw * c)
    dimage = pool.empty((n, h + 2 * ph, w + 2 * pw, c), dtype) if need_dx else None

    def work(task: Sequence[Block]) -> tuple[Array, Array]:
        dW, db = np.zeros((fh * fw * c, fn), dtype), np.zeros(fn, dtype)
        for images, rows in task:
            pixels = gradient[images, rows].reshape(-1, fn)
            dW += columns.rows((images, rows)).T @ pixels
            db += sum_pixels(gradient[images, rows])
            if dimage is None:
                continue
            if rows.start == 0:
                dimage[images] = 0
            parts = scratch("columns", (len(pixels), fh * fw * c), dtype)
            multiply_rows(pixels, filters, parts)
            parts = parts.reshape(-1, rows.stop - rows.start, ow, fh, fw, c)
            target = dimage[images, rows.start * sh :]
            for i in range(fh):
                for j in range(fw):
                    down = slice(i, i + sh * parts.shape[1], sh)
                    target[:, down, j : j + sw * ow : sw] += parts[:, :, :, i, j]
        return dW, db

    # Neighbouring windows add to the same pixels, so an image belongs to one task.
    shared = tasks(columns.blocks(), dtype.itemsize * filters.size, whole_images=need_dx)
    with single_threaded_blas:
        dW, db = sums(workers.each(shared, work))
    dW = dW.reshape(fh, fw, c, fn).transpose(3, 2, 0, 1)
    if dimage is None:
        return None, dW, db
    return dimage[:, ph : ph + h, pw : pw + w].transpose(0, 3, 1, 2), dW, db
