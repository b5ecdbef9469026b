"""CuPy with kernels of our own: the provider ``fused``.

4-D data is kept in channels-last memory behind its shape (N, C, H, W): a convolution is im2col and
one matrix product, whose result is the next layer's input as it stands. The kernels are in
``kernels.cu``, one for each primitive that is overridden here; products are cuBLAS's.

One seed should give one run on one GPU, bit for bit: no kernel adds in an order that chance
decides.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import numpy as np

from xpdl.backends.base.types import Array, Pair, Shape, accumulation_dtype, output_size, written
from xpdl.backends.cupy.cublas import Products, load_cublas
from xpdl.backends.cupy.elements import FusedElements
from xpdl.backends.cupy.launching import (
    MOST_AT_ONCE,
    NOWHERE,
    PIECE,
    REALS,
    in_pieces,
    spans_of,
    threads_for,
)
from xpdl.errors import BackendError, BackendUnavailableError, ShapeError


class FusedCupyBackend(FusedElements):
    """Overrides of the generic primitives with kernels that do more in one pass.

    What is given in an integer type, and update rules in half precision, take the generic way.
    """

    provider = "fused"

    def __init__(self) -> None:
        super().__init__()
        tf32 = os.environ.get("XPDL_TF32", "0") not in ("", "0")
        library = load_cublas(self.xp)
        try:
            self._products = Products(self.xp, library, tf32)
        except (BackendError, MemoryError) as error:
            raise BackendUnavailableError(
                f"the GPU is there, but cuBLAS does not start on it ({error}); its memory may be "
                "in use by another program."
            ) from error
        # Counts the blocks that are done, up to their last, which sets it back to 0. As with the
        # workspace of products, kernels of two streams must not run at the same time.
        self._finished = self.xp.zeros(1, np.uint32)
        self._kernels: dict[tuple[str, str], Any] = {}
        self._modules: dict[str, Any] = {}

    def describe(self) -> dict[str, str]:
        return super().describe() | {
            "products": "TF32 (XPDL_TF32)" if self._products.tf32 else "float32 (see XPDL_TF32)",
            "repeatable": "one seed should give one run, bit for bit, on one GPU (docs/gpu.md)",
        }

    def ways(self) -> dict[str, str]:
        return super().ways() | {"XPDL_TF32": str(int(self._products.tf32))}

    # ---- products and sums --------------------------------------------------------------

    def matmul(self, a: Array, b: Array, dtype: Any = None, out: Array | None = None) -> Array:
        if a.ndim == b.ndim == 3 and len(a) == len(b) and out is None:  # of groups, one by one
            return self.xp.stack([self.matmul(a[g], b[g], dtype) for g in range(len(a))])
        if not (a.ndim == b.ndim == 2 and a.dtype == b.dtype and a.dtype.name in REALS):
            return super().matmul(a, b, dtype, out)
        if a.shape[1] != b.shape[0]:
            raise ShapeError(f"matmul wants (m, k) and (k, n), got {a.shape} and {b.shape}.")
        shape, wide = (a.shape[0], b.shape[1]), accumulation_dtype(a.dtype)
        if out is not None and out.dtype == wide and out.flags.c_contiguous:
            if out.shape != shape:
                raise ShapeError(f"matmul gives {shape}, out is {out.shape}.")
            self._products.multiply(a, b, out)
            return out
        wanted = dtype if out is None else out.dtype
        product: Array = self.xp.empty(shape, wide if wanted == wide else a.dtype)
        self._products.multiply(a, b, product)
        if out is not None:
            return written(product, out)
        return product if dtype is None else product.astype(dtype, copy=False)

    def sum(
        self,
        x: Array,
        axis: int | tuple[int, ...] | None = None,
        dtype: Any = None,
        out: Array | None = None,
    ) -> Array:
        if not (x.ndim == 2 and axis == 0 and x.dtype.name in REALS and 0 < x.size < MOST_AT_ONCE):
            return super().sum(x, axis, dtype, out)
        x, shape = self.xp.ascontiguousarray(x), (x.shape[0], x.shape[1])
        total: Array = self.xp.empty(shape[1], accumulation_dtype(x.dtype)) if out is None else out
        pieces = in_pieces(x, rows=True)
        self.launch_by_columns("sum_rows", (x,), shape, pieces, total, *map(np.int32, shape))
        return total if out is not None else total.astype(dtype or x.dtype, copy=False)

    # ---- convolution --------------------------------------------------------------------

    def convolution(
        self, x: Array, W: Array, b: Array | None, stride: Pair, pad: Pair, relu: bool = False
    ) -> Array:
        (n, c, h, w), (fn, _, fh, fw) = x.shape, W.shape
        oh, ow = output_size(h, fh, stride[0], pad[0]), output_size(w, fw, stride[1], pad[1])
        filters = self._rows_of_filters(W)
        y: Array = self.xp.empty((n, oh, ow, fn), x.dtype)
        width = fh * fw * c
        for images in spans_of(n, oh * ow * width, x.itemsize):
            col = self._im2col(x[images], (oh, ow), (fh, fw), stride, pad)
            self._products.multiply(col, filters.T, y[images].reshape(-1, fn))
        self.add_bias(y.reshape(-1, fn), b, relu)
        return y.transpose(0, 3, 1, 2)

    def convolution_backward(
        self,
        dout: Array,
        x: Array,
        W: Array,
        stride: Pair,
        pad: Pair,
        need_dx: bool = True,
        need_db: bool = True,
        y: Array | None = None,
        dW: Array | None = None,
        db: Array | None = None,
    ) -> tuple[Array | None, Array, Array | None]:
        (n, c, h, w), (fn, _, fh, fw), (oh, ow) = x.shape, W.shape, dout.shape[2:]
        wide, width = accumulation_dtype(x.dtype), fh * fw * c
        if need_db and db is None:
            db = self.xp.empty(fn, wide)
        if y is not None:
            dout = self.relu_backward(dout, y, db if need_db else None)
        gradient = self.xp.ascontiguousarray(dout.transpose(0, 2, 3, 1))
        if need_db and y is None:
            self.sum(gradient.reshape(-1, fn), axis=0, out=db)
        last = None if dW is None else dW.transpose(0, 2, 3, 1)
        if last is None or last.dtype != wide or not last.flags.c_contiguous:
            last = self.xp.empty((fn, fh, fw, c), wide)
        filter_rows = last.reshape(fn, width)
        if not n:
            filter_rows[...] = 0
        dx: Array = self.xp.empty((n, h, w, c) if need_dx else (0,), x.dtype)
        filters = self._rows_of_filters(W) if need_dx else W
        geometry = geometry_of(c, h, w, oh, ow, (fh, fw), stride, pad)
        for images in spans_of(n, max(oh * ow * width, h * w * c), x.itemsize):
            col = self._im2col(x[images], (oh, ow), (fh, fw), stride, pad)
            part = gradient[images].reshape(-1, fn)
            self._products.multiply(part.T, col, filter_rows, accumulate=images.start > 0)
            if need_dx:
                self._products.multiply(part, filters, col)  # its windows are done with
                self._col2im(col, dx[images], geometry)
        found = last.transpose(0, 3, 1, 2)
        if dW is None or not begin_together(dW, found):
            dW = written(found, dW)
        return dx.transpose(0, 3, 1, 2) if need_dx else None, dW, db if need_db else None

    def _col2im(self, col: Array, pixels: Array, geometry: tuple[np.int32, ...]) -> None:
        """Add windows, (N*OH*OW, FH*FW*C), to the pixels (N, H, W, C) that they saw."""
        pieces = in_pieces(col, pixels) and in_pieces(pixels, rows=True)
        numbers = np.bool_(pieces), np.int32(len(pixels)), *geometry
        threads = threads_for(pixels, pieces)
        self.launch_over("col2im", pixels.dtype.name, threads, col, pixels, *numbers)

    def _rows_of_filters(self, W: Array) -> Array:
        """Return W (FN, C, FH, FW) as rows (FN, FH*FW*C), in the order of a window's numbers."""
        return self.xp.ascontiguousarray(W.transpose(0, 2, 3, 1)).reshape(len(W), -1)

    def _im2col(self, x: Array, counts: Pair, size: Pair, stride: Pair, pad: Pair) -> Array:
        """Return the windows of x, (N*OH*OW, FH*FW*C)."""
        (n, c, h, w), (oh, ow), (fh, fw) = x.shape, counts, size
        col: Array = self.xp.empty((n * oh * ow, fh * fw * c), x.dtype)
        if in_pieces(x.transpose(0, 2, 3, 1), rows=True):
            per_piece = PIECE // x.itemsize
            geometry = geometry_of(c // per_piece, h, w, oh, ow, size, stride, pad)
            count = col.size // per_piece
            self.launch_over("im2col_pieces", x.dtype.name, count, x, col, np.int32(n), *geometry)
        else:
            geometry = geometry_of(c, h, w, oh, ow, size, stride, pad)
            where = (*geometry, *strides_of(x))
            self.launch_over("im2col", x.dtype.name, col.size, x, col, np.int32(n), *where)
        return col

    # ---- pooling ------------------------------------------------------------------------

    def max_pooling(
        self, x: Array, size: Pair, stride: Pair, pad: Pair, train: bool = False
    ) -> tuple[Array, Any]:
        if size[0] * size[1] > 2**16:  # more places than a winner can name
            return super().max_pooling(x, size, stride, pad, train)
        n, c, h, w = x.shape
        oh, ow = (output_size(*axis) for axis in zip((h, w), size, stride, pad, strict=True))
        y: Array = self.xp.empty((n, oh, ow, c), x.dtype)
        winners: Array | None = self.xp.empty((n, oh, ow, c), np.uint16) if train else None
        geometry = geometry_of(c, h, w, oh, ow, size, stride, pad)
        pieces = in_pieces(x.transpose(0, 2, 3, 1), rows=True)
        for images in spans_of(n, oh * ow * c):
            part, out = x[images], y[images]
            won = NOWHERE if winners is None else winners[images]
            numbers = np.bool_(pieces), np.int32(len(part)), *geometry, *strides_of(x)
            threads = threads_for(out, pieces)
            self.launch_over("max_pooling", x.dtype.name, threads, part, out, won, *numbers)
        return y.transpose(0, 3, 1, 2), winners

    def max_pooling_backward(
        self,
        dout: Array,
        winners: Any,
        shape: Shape,
        size: Pair,
        stride: Pair,
        pad: Pair,
        y: Array | None = None,
        total: Array | None = None,
    ) -> Array:
        (n, c, h, w), (oh, ow) = shape, dout.shape[2:]
        last = [a.transpose(0, 2, 3, 1) for a in (dout, y) if a is not None]
        fits = y is None or (y.dtype == dout.dtype and last[1].flags.c_contiguous)
        if winners.dtype != np.uint16 or not fits:
            return super().max_pooling_backward(dout, winners, shape, size, stride, pad, y, total)
        dx: Array = self.xp.empty((n, h, w, c), dout.dtype)
        geometry = geometry_of(c, h, w, oh, ow, size, stride, pad)
        pieces = in_pieces(*last, dx, rows=True)
        spans = list(spans_of(n, h * w * c))
        at_once = len(spans) == 1 and y is not None
        for images in spans:
            part, pooled = dx[images], NOWHERE if y is None else last[1][images]
            self.launch_by_columns(
                "max_pooling_backward",
                (dout[images], winners[images], pooled, part),
                (part.size // c, c),
                pieces,
                total if at_once else None,
                *(np.int32(len(part)), *geometry, *strides_of(dout)),
            )
        if total is not None and y is not None and not at_once:
            self.sum(dx.reshape(-1, c), axis=0, out=total)
        return dx.transpose(0, 3, 1, 2)


@lru_cache(maxsize=512)
def geometry_of(
    c: int, h: int, w: int, oh: int, ow: int, size: Pair, stride: Pair, pad: Pair
) -> tuple[np.int32, ...]:
    """Return what a kernel over windows wants to know, as it wants it."""
    return tuple(np.int32(number) for number in (c, h, w, oh, ow, *size, *stride, *pad))


def strides_of(x: Array) -> tuple[np.int64, ...]:
    """Return the strides of x, counted in elements."""
    return tuple(np.int64(stride // x.itemsize) for stride in x.strides)


def begin_together(a: Any, b: Any) -> bool:
    """Tell whether two arrays begin at the same place in memory."""
    return a.data.ptr == b.data.ptr
