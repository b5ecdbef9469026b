"""Kernels that go over all numbers: activations, the loss, what a step came to, update rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from xpdl.backends.base.types import Array, Number, accumulation_dtype
from xpdl.backends.cupy.launching import (
    MOST_AT_ONCE,
    MOST_SCORES,
    NOWHERE,
    PIECE,
    REALS,
    THREADS,
    LaunchingCupyBackend,
    PhiloxGenerator,
    are_alike,
    fits_rows,
    in_pieces,
    scalars_of,
    spans_of,
    threads_for,
)
from xpdl.backends.generators import RandomGenerator


class FusedElements(LaunchingCupyBackend):
    """What is done number by number, in one pass each."""

    provider = "fused"

    # ---- element by element -------------------------------------------------------------

    def add_bias(self, y: Array, b: Array | None, relu: bool = False) -> None:
        if b is None and not relu:
            return
        if not (y.flags.c_contiguous and y.dtype.name in REALS and (b is None or fits_rows(b, y))):
            super().add_bias(y, b, relu)
            return
        columns = y.shape[1]
        pieces = in_pieces(y, rows=True) and (b is None or in_pieces(b))
        for rows in spans_of(len(y), columns):
            part, biases = y[rows], NOWHERE if b is None else b
            numbers = np.bool_(relu), np.bool_(pieces), np.int32(part.size), np.int32(columns)
            threads = threads_for(part, pieces)
            self.launch_over("add_bias", y.dtype.name, threads, part, biases, *numbers)

    def relu(self, x: Array) -> Array:
        y: Array = self.xp.empty_like(x)
        if not are_alike(x, y):
            return super().relu(x)
        self.launch_elementwise("relu", x, y)
        return y

    def relu_backward(self, dout: Array, y: Array, total: Array | None = None) -> Array:
        dx: Array = self.xp.empty_like(dout)
        if not are_alike(dout, y, dx):
            return super().relu_backward(dout, y, total)
        if total is None:
            self.launch_elementwise("relu_backward", dout, y, dx)
            return dx
        rows = dx.transpose(0, 2, 3, 1) if dx.ndim == 4 else dx
        if not (dx.ndim in (2, 4) and rows.flags.c_contiguous and 0 < dx.size < MOST_AT_ONCE):
            return super().relu_backward(dout, y, total)
        shape = rows.size // rows.shape[-1], rows.shape[-1]
        self.launch_by_columns(
            "relu_backward_and_sum",
            (dout, y, dx),
            shape,
            in_pieces(dout, y) and in_pieces(rows, rows=True),
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
        self.run_in_pieces(
            *("dropout", x, in_pieces(x, y, mask), x, y, mask, generator.position),
            *(self._finished, generator.key, np.float32(ratio), np.float32(scale)),
        )
        return y, mask

    def dropout_backward(self, dout: Array, mask: Array) -> Array:
        dx: Array = self.xp.empty_like(dout)
        if not are_alike(dout, mask, dx):
            return super().dropout_backward(dout, mask)
        self.launch_elementwise("dropout_backward", dout, mask, dx)
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
        per_piece = PIECE // max(x.itemsize, target.itemsize)
        pieces = in_pieces(x, rows) and width % per_piece == 0
        for part in spans_of(len(indices), width):
            out = rows[part]
            numbers = np.bool_(pieces), np.int32(width), np.int64(len(x)), wide
            threads = out.size // per_piece if pieces else out.size
            arguments = x, indices[part], out, *numbers, np.int64(out.size)
            self.launch_over(kernel, target.name, threads, *arguments)
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
        self.launch_over(
            *("softmax_with_loss_backward", real, y.size, y, *self._targets(t, y.dtype)),
            NOWHERE if sums is None else self.xp.ascontiguousarray(sums),
            *(*self._number(dout, y.dtype), dx, np.int32(n), np.int32(classes)),
        )
        return dx

    def _targets(self, t: Array, wide: Any) -> tuple[Any, Any]:
        """Return where class numbers lie and where a distribution; one of them is nowhere."""
        if t.ndim == 1:
            return self.xp.ascontiguousarray(t.astype(np.int64, copy=False)), NOWHERE
        return NOWHERE, self.xp.ascontiguousarray(t.astype(wide, copy=False))

    def _number(self, value: Number, dtype: Any) -> tuple[Any, Any]:
        """Return where a number lies on the device, if it does, and what it is, if we know."""
        if self.owns(value):
            return value.astype(dtype, copy=False), np.dtype(dtype).type(0)  # type: ignore[union-attr]
        return NOWHERE, np.dtype(dtype).type(value)

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
        self.launch_together("all_finite", g, loss, g, go, marked)
        return go, marked

    # ---- half precision -----------------------------------------------------------------

    def unscale(self, g: Array, scale: Array) -> Array:
        if not (g.flags.c_contiguous and g.dtype == scale.dtype == np.float32):
            return super().unscale(g, scale)
        go: Array = self.xp.empty((), np.bool_)
        self.launch_together("unscale", g, g, scale, go)
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
        scalars = scalars_of(name, options)
        fits = dtype.name in ("float32", "float64") and are_alike(*arrays)
        if copy is not None:
            fits = fits and copy.dtype == np.float16 and copy.flags.c_contiguous
        if scalars is None or not fits:
            super().update_rule(name, rule, options, arrays, numbers, go, copy)
            return
        rate, *count = (self._number(number, dtype) for number in numbers)
        copies = () if copy is None else (copy,)
        pieces = in_pieces(*arrays, *copies)
        aside = (NOWHERE if a is None else a for a in (go, copy))
        scalars = (*map(dtype.type, scalars), *sum(count, ()))
        self.run_in_pieces(name, p, pieces, *arrays, *scalars, *aside, *rate)
