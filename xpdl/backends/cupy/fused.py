"""CuPy with kernels of our own: the provider ``fused``.

4-D data is kept in channels-last memory behind its shape (N, C, H, W): a convolution is im2col and
one matrix product, whose result is the next layer's input as it stands. The kernels are in
``kernels.cu``, one for each primitive that is overridden here; products are cuBLAS's.

One seed should give one run on one GPU, bit for bit: no kernel adds in an order that chance
decides.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np

from xpdl.backends.base import (
    Array,
    Number,
    Pair,
    RandomGenerator,
    Shape,
    accumulation_dtype,
    check_generator_state,
    output_size,
    written,
)
from xpdl.backends.cupy.backend import CapturingCupyBackend
from xpdl.backends.cupy.cublas import Products, load_cublas
from xpdl.errors import BackendError, BackendUnavailableError, ShapeError

# The windows of so many images are laid out at once, in bytes: they should still be in the GPU's
# second cache (40 MB and more since Ampere) when the product reads them.
COLUMN_BYTES = 32 * 1024 * 1024

# Kernels that take an index apart count in 32 bits.
MOST_AT_ONCE = 2**30

THREADS = 256
# Enough blocks to fill any GPU several times over; a thread then does several numbers.
MOST_BLOCKS = 16 * 1024

# A piece of 16 bytes is the most that a thread reads at once.
PIECE = 16

# So many blocks add up their rows apart; the last to finish adds what they have.
MOST_PARTS = 256

# Of a batch of so many scores one block counts the hits.
MOST_SCORES = 2**20

REALS = {"float16": "__half", "float32": "float", "float64": "double"}
"""The types for which the kernels are compiled, and their names in CUDA."""

_NOWHERE = np.uint64(0)  # a null pointer


def kernel_source() -> str:
    """Return the CUDA source of the kernels."""
    return files("xpdl.backends.cupy").joinpath("kernels.cu").read_text(encoding="utf-8")


def kernel_options(dtype: Any) -> tuple[str, ...]:
    """Return the compiler's options for arrays of `dtype`."""
    return ("-std=c++17", f"-DREAL={REALS[np.dtype(dtype).name]}")


class PhiloxGenerator:
    """NumPy's generator ``Generator(Philox(SeedSequence(seed)))``, number for number, on a GPU.

    Its key, and how many numbers were drawn, are on the device, so that a captured step draws new
    ones each time that it is replayed, and from another seed once there is one.
    """

    def __init__(self, backend: FusedCupyBackend, seed: int | Sequence[int]) -> None:
        self._backend = backend
        self.key = backend.xp.empty(2, np.uint64)
        self.position = backend.xp.empty(1, np.int64)
        self.reseed(seed)

    def reseed(self, seed: int | Sequence[int]) -> None:
        """Begin anew."""
        state = np.random.SeedSequence(seed).generate_state(2, np.uint64)
        self.key[...] = self._backend.asarray(state)
        self.position[...] = 0

    def random(self, size: Shape, dtype: Any) -> Array:
        """Return numbers uniform in [0, 1), float32 or float64."""
        dtype = np.dtype(dtype)
        numbers: Array = self._backend.xp.empty(size, dtype)
        double = dtype == np.float64
        kernel = "uniform_doubles" if double else "uniform_floats"
        self._backend.run(kernel, "float32", numbers.size, numbers, self.position, self.key)
        self.advance(numbers.size * (2 if double else 1), double)
        return numbers

    def advance(self, halves: int, whole_words: bool = False) -> None:
        """Count `halves` of 64-bit words as drawn."""
        self._backend.launch(
            *("advance", "float32", (1,), (1,)),
            *(self.position, np.int64(halves), np.bool_(whole_words)),
        )


class FusedCupyBackend(CapturingCupyBackend):
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

    # ---- launching ----------------------------------------------------------------------

    def launch(self, name: str, real: str, grid: Shape, block: Shape, *arguments: Any) -> None:
        """Launch a kernel compiled for the float type `real`."""
        kernel = self._kernels.get((name, real))
        if kernel is None:
            if real not in self._modules:
                self._modules[real] = self.xp.RawModule(
                    code=kernel_source(), options=kernel_options(real)
                )
            kernel = self._kernels[name, real] = self._modules[real].get_function(name)
        kernel(grid, block, arguments)

    def run(self, name: str, real: str, count: int, *arguments: Any) -> None:
        """Launch a kernel for `count` numbers, which is its last argument."""
        self._launch_over(name, real, count, *arguments, np.int64(count))

    def _launch_over(self, name: str, real: str, count: int, *arguments: Any) -> None:
        if count:
            blocks = min(-(-count // THREADS), MOST_BLOCKS)
            self.launch(name, real, (blocks,), (THREADS,), *arguments)

    def _launch_elementwise(self, name: str, *arrays: Array) -> None:
        """Launch a kernel over arrays that are alike, in pieces where all begin at one."""
        first, pieces = arrays[0], _in_pieces(*arrays)
        numbers = np.bool_(pieces), np.int64(first.size)
        self._launch_over(name, first.dtype.name, _threads(first, pieces), *arrays, *numbers)

    def _launch_by_columns(
        self,
        name: str,
        arrays: tuple[Any, ...],
        shape: Pair,
        pieces: bool,
        total: Array | None,
        *numbers: Any,
    ) -> None:
        """Launch a kernel that makes rows, `shape` (rows, columns), of the type of the first array.

        With `total` (columns,), it writes the sum of each column there.
        """
        (rows, columns), first = shape, arrays[0]
        lanes = columns * first.itemsize // PIECE if pieces else columns
        width = min(lanes, THREADS)
        height, across = THREADS // width, -(-lanes // width)
        most = (MOST_BLOCKS if total is None else MOST_PARTS) // across
        blocks = max(1, min(most, -(-rows // (4 * height))))
        sums, parts = total, None
        if total is not None:
            wide = accumulation_dtype(first.dtype)
            parts = self.xp.empty((blocks, columns), wide)
            if total.dtype != wide or not total.flags.c_contiguous:
                sums = self.xp.empty(columns, wide)
        self.launch(
            *(name, first.dtype.name, (across, blocks), (width, height), *arrays),
            *(_NOWHERE if a is None else a for a in (parts, sums)),
            *(self._finished, np.bool_(pieces), *numbers),
        )
        if total is not None and sums is not None and sums is not total:
            total[...] = sums

    def _launch_together(self, name: str, count: int, *arrays: Array) -> None:
        """Launch a kernel over float32 numbers whose last block says how all of them are."""
        blocks = max(1, min(-(-count // (4 * THREADS)), MOST_PARTS))
        parts = self.xp.empty(blocks, np.bool_)
        numbers = parts, self._finished, np.int64(count)
        self.launch(name, "float32", (blocks,), (THREADS,), *arrays, *numbers)

    def generator(self, seed: int | Sequence[int]) -> RandomGenerator:
        return PhiloxGenerator(self, seed)

    def reseed(self, generator: RandomGenerator, seed: int | Sequence[int]) -> None:
        generator.reseed(seed)  # type: ignore[attr-defined]

    def generator_state(self, generator: RandomGenerator) -> dict[str, int]:
        return {"halves": int(self.item(generator.position))}  # type: ignore[attr-defined]

    def set_generator_state(self, generator: RandomGenerator, state: Mapping[str, int]) -> None:
        generator.position[...] = check_generator_state(state)[0]  # type: ignore[attr-defined]

    # ---- products and sums --------------------------------------------------------------

    def matmul(self, a: Array, b: Array, dtype: Any = None, out: Array | None = None) -> Array:
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
        pieces = _in_pieces(x, rows=True)
        self._launch_by_columns("sum_rows", (x,), shape, pieces, total, *map(np.int32, shape))
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
        for images in _spans(n, oh * ow * width, x.itemsize):
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
        geometry = _geometry(c, h, w, oh, ow, (fh, fw), stride, pad)
        for images in _spans(n, max(oh * ow * width, h * w * c), x.itemsize):
            col = self._im2col(x[images], (oh, ow), (fh, fw), stride, pad)
            part = gradient[images].reshape(-1, fn)
            self._products.multiply(part.T, col, filter_rows, accumulate=images.start > 0)
            if need_dx:
                self._products.multiply(part, filters, col)  # its windows are done with
                self._col2im(col, dx[images], geometry)
        found = last.transpose(0, 3, 1, 2)
        if dW is None or not _begin_together(dW, found):
            dW = written(found, dW)
        return dx.transpose(0, 3, 1, 2) if need_dx else None, dW, db if need_db else None

    def _col2im(self, col: Array, pixels: Array, geometry: tuple[np.int32, ...]) -> None:
        """Add windows, (N*OH*OW, FH*FW*C), to the pixels (N, H, W, C) that they saw."""
        pieces = _in_pieces(col, pixels) and _in_pieces(pixels, rows=True)
        numbers = np.bool_(pieces), np.int32(len(pixels)), *geometry
        threads = _threads(pixels, pieces)
        self._launch_over("col2im", pixels.dtype.name, threads, col, pixels, *numbers)

    def _rows_of_filters(self, W: Array) -> Array:
        """Return W (FN, C, FH, FW) as rows (FN, FH*FW*C), in the order of a window's numbers."""
        return self.xp.ascontiguousarray(W.transpose(0, 2, 3, 1)).reshape(len(W), -1)

    def _im2col(self, x: Array, counts: Pair, size: Pair, stride: Pair, pad: Pair) -> Array:
        """Return the windows of x, (N*OH*OW, FH*FW*C)."""
        (n, c, h, w), (oh, ow), (fh, fw) = x.shape, counts, size
        col: Array = self.xp.empty((n * oh * ow, fh * fw * c), x.dtype)
        if _in_pieces(x.transpose(0, 2, 3, 1), rows=True):
            per_piece = PIECE // x.itemsize
            geometry = _geometry(c // per_piece, h, w, oh, ow, size, stride, pad)
            count = col.size // per_piece
            self._launch_over("im2col_pieces", x.dtype.name, count, x, col, np.int32(n), *geometry)
        else:
            geometry = _geometry(c, h, w, oh, ow, size, stride, pad)
            where = (*geometry, *_strides(x))
            self._launch_over("im2col", x.dtype.name, col.size, x, col, np.int32(n), *where)
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
        geometry = _geometry(c, h, w, oh, ow, size, stride, pad)
        pieces = _in_pieces(x.transpose(0, 2, 3, 1), rows=True)
        for images in _spans(n, oh * ow * c):
            part, out = x[images], y[images]
            won = _NOWHERE if winners is None else winners[images]
            numbers = np.bool_(pieces), np.int32(len(part)), *geometry, *_strides(x)
            threads = _threads(out, pieces)
            self._launch_over("max_pooling", x.dtype.name, threads, part, out, won, *numbers)
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
        geometry = _geometry(c, h, w, oh, ow, size, stride, pad)
        pieces = _in_pieces(*last, dx, rows=True)
        spans = list(_spans(n, h * w * c))
        at_once = len(spans) == 1 and y is not None
        for images in spans:
            part, pooled = dx[images], _NOWHERE if y is None else last[1][images]
            self._launch_by_columns(
                "max_pooling_backward",
                (dout[images], winners[images], pooled, part),
                (part.size // c, c),
                pieces,
                total if at_once else None,
                *(np.int32(len(part)), *geometry, *_strides(dout)),
            )
        if total is not None and y is not None and not at_once:
            self.sum(dx.reshape(-1, c), axis=0, out=total)
        return dx.transpose(0, 3, 1, 2)

    # ---- element by element -------------------------------------------------------------

    def add_bias(self, y: Array, b: Array | None, relu: bool = False) -> None:
        if b is None and not relu:
            return
        if not (y.flags.c_contiguous and y.dtype.name in REALS and (b is None or _fits(b, y))):
            super().add_bias(y, b, relu)
            return
        columns = y.shape[1]
        pieces = _in_pieces(y, rows=True) and (b is None or _in_pieces(b))
        for rows in _spans(len(y), columns):
            part, biases = y[rows], _NOWHERE if b is None else b
            numbers = np.bool_(relu), np.bool_(pieces), np.int32(part.size), np.int32(columns)
            threads = _threads(part, pieces)
            self._launch_over("add_bias", y.dtype.name, threads, part, biases, *numbers)

    def relu(self, x: Array) -> Array:
        y: Array = self.xp.empty_like(x)
        if not _alike(x, y):
            return super().relu(x)
        self._launch_elementwise("relu", x, y)
        return y

    def relu_backward(self, dout: Array, y: Array, total: Array | None = None) -> Array:
        dx: Array = self.xp.empty_like(dout)
        if not _alike(dout, y, dx):
            return super().relu_backward(dout, y, total)
        if total is None:
            self._launch_elementwise("relu_backward", dout, y, dx)
            return dx
        rows = dx.transpose(0, 2, 3, 1) if dx.ndim == 4 else dx
        if not (dx.ndim in (2, 4) and rows.flags.c_contiguous and 0 < dx.size < MOST_AT_ONCE):
            return super().relu_backward(dout, y, total)
        shape = rows.size // rows.shape[-1], rows.shape[-1]
        self._launch_by_columns(
            "relu_backward_and_sum",
            (dout, y, dx),
            shape,
            _in_pieces(dout, y) and _in_pieces(rows, rows=True),
            total,
            *map(np.int32, shape),
        )
        return dx

    def dropout(
        self, generator: RandomGenerator, x: Array, ratio: float, scale: float
    ) -> tuple[Array, Array]:
        # Numbers are drawn in the order of the axes, so memory must be in that order too.
        if not (isinstance(generator, PhiloxGenerator) and x.flags.c_contiguous):
            return super().dropout(generator, x, ratio, scale)
        y, mask = self.xp.empty_like(x), self.xp.empty_like(x)
        self.run(
            *("dropout", x.dtype.name, x.size, x, y, mask, generator.position, self._finished),
            *(generator.key, np.float32(ratio), np.float32(scale)),
        )
        return y, mask

    def dropout_backward(self, dout: Array, mask: Array) -> Array:
        dx: Array = self.xp.empty_like(dout)
        if not _alike(dout, mask, dx):
            return super().dropout_backward(dout, mask)
        self._launch_elementwise("dropout_backward", dout, mask, dx)
        return dx

    def gather(
        self, x: Array, indices: Array, dtype: Any = None, divisor: float | None = None
    ) -> Array:
        target = np.dtype(dtype or x.dtype)
        kernel = {"uint8": "gather_bytes", "float32": "gather_floats"}.get(x.dtype.name)
        if kernel is None or target.name not in REALS or not x.flags.c_contiguous:
            return super().gather(x, indices, dtype, divisor)
        rows: Array = self.xp.empty((len(indices), *x.shape[1:]), target)
        width = math.prod(x.shape[1:])
        wide = accumulation_dtype(target).type(1 if divisor is None else divisor)
        indices = self.xp.ascontiguousarray(indices.astype(np.int64, copy=False))
        for part in _spans(len(indices), width):
            out = rows[part]
            self._launch_over(
                *(kernel, target.name, out.size, x, indices[part], out),
                *(np.int32(out.size), np.int32(width), np.int64(len(x)), wide),
            )
        return rows

    # ---- the loss -----------------------------------------------------------------------

    def softmax_with_loss(self, x: Array, t: Array) -> tuple[Array, Array]:
        if not x.size or x.dtype.name not in REALS:
            return super().softmax_with_loss(x, t)
        (n, classes), wide, real = x.shape, accumulation_dtype(x.dtype), x.dtype.name
        y, losses = self.xp.empty((n, classes), wide), self.xp.empty(n, wide)
        loss: Array = self.xp.empty((), wide)
        x = self.xp.ascontiguousarray(x)
        threads = 32 if classes <= 128 else 256
        self.launch(
            *("softmax_with_loss", real, (n,), (threads,)),
            *(x, *self._targets(t, wide), y, losses, np.int32(classes)),
        )
        self.launch("mean_of", real, (1,), (256,), losses, loss, np.int32(n))
        return loss, y

    def softmax_with_loss_backward(
        self, y: Array, t: Array, dout: Number, dtype: Any, sums: Array | None = None
    ) -> Array:
        if not 0 < y.size < MOST_AT_ONCE or not y.flags.c_contiguous:
            return super().softmax_with_loss_backward(y, t, dout, dtype, sums)
        (n, classes), real = y.shape, np.dtype(dtype).name
        dx: Array = self.xp.empty((n, classes), dtype)
        self._launch_over(
            *("softmax_with_loss_backward", real, y.size, y, *self._targets(t, y.dtype)),
            _NOWHERE if sums is None else self.xp.ascontiguousarray(sums),
            *(*self._number(dout, y.dtype), dx, np.int32(n), np.int32(classes)),
        )
        return dx

    def _targets(self, t: Array, wide: Any) -> tuple[Any, Any]:
        """Return where class numbers lie and where a distribution; one of them is nowhere."""
        if t.ndim == 1:
            return self.xp.ascontiguousarray(t.astype(np.int64, copy=False)), _NOWHERE
        return _NOWHERE, self.xp.ascontiguousarray(t.astype(wide, copy=False))

    def _number(self, value: Number, dtype: Any) -> tuple[Any, Any]:
        """Return where a number lies on the device, if it does, and what it is, if we know."""
        if self.owns(value):
            return value.astype(dtype, copy=False), np.dtype(dtype).type(0)  # type: ignore[union-attr]
        return _NOWHERE, np.dtype(dtype).type(value)

    # ---- what a step came to ------------------------------------------------------------

    def count_hits(self, scores: Array, t: Array, weights: Array | None = None) -> Array:
        fits = scores.ndim == 2 and 0 < scores.size <= MOST_SCORES and scores.dtype.name in REALS
        if not fits or weights is not None:
            return super().count_hits(scores, t, weights)
        sums: Array = self.xp.empty(2, np.float64)
        targets = self._targets(t, accumulation_dtype(scores.dtype))
        self.launch(
            *("count_hits", scores.dtype.name, (1,), (THREADS,)),
            *(self.xp.ascontiguousarray(scores), *targets, sums, *map(np.int32, scores.shape)),
        )
        return sums

    def all_finite(self, loss: Array, g: Array) -> tuple[Array, Array]:
        if not (g.flags.c_contiguous and g.dtype == loss.dtype == np.float32):
            return super().all_finite(loss, g)
        go, marked = self.xp.empty((), np.bool_), self.xp.empty((), np.float32)
        self._launch_together("all_finite", g.size, loss, g, go, marked)
        return go, marked

    # ---- half precision -----------------------------------------------------------------

    def unscale(self, g: Array, scale: Array) -> Array:
        if not (g.flags.c_contiguous and g.dtype == scale.dtype == np.float32):
            return super().unscale(g, scale)
        go: Array = self.xp.empty((), np.bool_)
        self._launch_together("unscale", g.size, g, scale, go)
        return go

    def adjust_loss_scale(
        self, state: Array, go: Array, patience: int, growth: float, largest: float
    ) -> None:
        numbers = map(np.float32, (patience, growth, largest))
        self.launch("adjust_loss_scale", "float32", (1,), (1,), state, go, *numbers)

    # ---- update rules -------------------------------------------------------------------

    def update_rule(
        self,
        name: str,
        rule: Callable[..., None],
        options: Mapping[str, Any],
        arrays: Sequence[Array],
        numbers: Sequence[Number],
        go: Array | None = None,
        copy: Array | None = None,
    ) -> None:
        p, dtype = arrays[0], arrays[0].dtype
        scalars = _scalars(name, options)
        fits = dtype.name in ("float32", "float64") and _alike(*arrays)
        if copy is not None:
            fits = fits and copy.dtype == np.float16 and copy.flags.c_contiguous
        if scalars is None or not fits:
            super().update_rule(name, rule, options, arrays, numbers, go, copy)
            return
        rate, *count = (self._number(number, dtype) for number in numbers)
        self.run(
            *(name, dtype.name, p.size, *arrays, *map(dtype.type, scalars), *sum(count, ())),
            *(_NOWHERE if go is None else go, _NOWHERE if copy is None else copy, *rate),
        )


def _scalars(name: str, of: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Return what the kernel of an update rule takes of its options; None if there is none."""
    match name:
        case "sgd":
            return ()
        case "momentum" | "nesterov":
            return (of["momentum"],)
        case "adagrad":
            return (of["epsilon"],)
        case "rmsprop":
            return of["decay_rate"], 1 - of["decay_rate"], of["epsilon"]
        case "adam":
            betas = of["beta1"], of["beta2"]
            kept = (number for beta in betas for number in (beta, 1 - beta))
            logarithms = (math.log(beta) if beta else -math.inf for beta in betas)
            return *kept, *logarithms, of["epsilon"]
    return None


def _spans(images: int, numbers: int, itemsize: int | None = None) -> Iterator[slice]:
    """Cut `images`, each of so many numbers, into spans that a kernel can count.

    With `itemsize`, into spans of at most `COLUMN_BYTES` too, or one image.
    """
    if numbers > MOST_AT_ONCE:
        raise ShapeError(
            f"one image wants {numbers:,} numbers at once, a kernel takes {MOST_AT_ONCE:,}; "
            "use smaller images or windows, or XPDL_PROVIDER=generic."
        )
    most = MOST_AT_ONCE if itemsize is None else min(MOST_AT_ONCE, COLUMN_BYTES // itemsize)
    step = max(1, most // max(1, numbers))
    for start in range(0, images, step):
        yield slice(start, min(start + step, images))


@lru_cache(maxsize=512)
def _geometry(
    c: int, h: int, w: int, oh: int, ow: int, size: Pair, stride: Pair, pad: Pair
) -> tuple[np.int32, ...]:
    """Return what a kernel over windows wants to know, as it wants it."""
    return tuple(np.int32(number) for number in (c, h, w, oh, ow, *size, *stride, *pad))


def _strides(x: Array) -> tuple[np.int64, ...]:
    """Return the strides of x, counted in elements."""
    return tuple(np.int64(stride // x.itemsize) for stride in x.strides)


def _in_pieces(*arrays: Any, rows: bool = False) -> bool:
    """Tell whether arrays begin where a piece may; and whether their `rows` are of whole pieces.

    Rows are those of the last axis, of an array without gaps.
    """
    if any(a.data.ptr % PIECE for a in arrays):
        return False
    return not rows or all(
        a.flags.c_contiguous and a.shape[-1] * a.itemsize % PIECE == 0 for a in arrays
    )


def _begin_together(a: Any, b: Any) -> bool:
    """Tell whether two arrays begin at the same place in memory."""
    return a.data.ptr == b.data.ptr


def _threads(a: Array, pieces: bool) -> int:
    """Return how many threads do an array, of which each does a piece or a number at a time."""
    return -(-a.size * a.itemsize // PIECE) if pieces else a.size


def _fits(b: Array, y: Array) -> bool:
    """Tell whether biases b can be added to the rows of y as they lie."""
    return b.dtype == y.dtype and b.flags.c_contiguous


def _alike(*arrays: Array) -> bool:
    """Tell whether arrays are of one float type and lie in memory in one way, without gaps."""
    first = arrays[0]
    if first.dtype.name not in REALS:
        return False
    if any(a.dtype != first.dtype or a.shape != first.shape for a in arrays):
        return False
    if all(a.flags.c_contiguous for a in arrays):
        return True
    return first.ndim == 4 and all(a.transpose(0, 2, 3, 1).flags.c_contiguous for a in arrays)
