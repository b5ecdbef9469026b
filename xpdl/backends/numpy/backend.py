"""NumPy on a CPU, at speed.

4-D data is kept in channels-last memory behind its shape (N, C, H, W): a window's row then lies
in one piece, FW*C numbers long, and a product's result is the next layer's input as it stands.
What is large enough to be worth it is cut into parts that the threads share.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpdl.backends.base.types import Array, Pair, Shape, accumulation_dtype, output_size, written
from xpdl.backends.numpy import convolution as numpy_convolution
from xpdl.backends.numpy import few_channels, grouped, winograd
from xpdl.backends.numpy.elements import (
    NumpyElements,
    channels_last,
    half,
    padded,
    parts_of,
    places,
    single,
)
from xpdl.backends.numpy.memory import pool
from xpdl.backends.numpy.seen import seen_part
from xpdl.backends.numpy.threads import single_threaded_blas, workers

# Products of fewer multiplications than this are not worth sharing.
SMALL = 250_000


class NumpyBackend(NumpyElements):
    """Overrides of the generic primitives that are faster on a CPU."""

    name = "numpy"

    def release(self) -> None:
        pool.release()

    def describe(self) -> dict[str, str]:
        return super().describe() | {"convolution": winograd.described()}

    def ways(self) -> dict[str, str]:
        return super().ways() | {"XPDL_CONVOLUTION": "fastest" if winograd.wanted() else "direct"}

    def convolution(
        self, x: Array, W: Array, b: Array | None, stride: Pair, pad: Pair, relu: bool = False
    ) -> Array:
        if x.dtype == np.float16:  # emulated: there is no half-precision arithmetic to be fast
            b = None if b is None else single(b)
            return half(self.convolution(single(x), single(W), b, stride, pad, relu))
        seen = seen_part(x.shape[2:], W.shape[2:], stride, pad)
        if seen is not None:
            return self.convolution(x, W[seen.part], b, stride, seen.pad, relu)
        if _all_single(x, W, b) and winograd.chosen(x.shape, W.shape, stride, pad):
            return winograd.convolution(x, W, b, pad, relu)
        return numpy_convolution.convolution(x, W, b, stride, pad, relu)

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
        if y is not None:
            dout = self.relu_backward(dout, y)
        if x.dtype == np.float16:
            dout, x, W = (single(a) for a in (dout, x, W))
            dx, dW, db = self.convolution_backward(
                dout, x, W, stride, pad, need_dx, need_db, None, dW, db
            )
            return None if dx is None else half(dx), dW, db
        seen = seen_part(x.shape[2:], W.shape[2:], stride, pad)
        if seen is not None:
            dx, part, db = self.convolution_backward(
                dout, x, W[seen.part], stride, seen.pad, need_dx, need_db, None, None, db
            )
            return dx, seen.put_back(part, W.shape[2:], dW), db
        if need_dx and x.shape[1] <= few_channels.MOST:
            _, dW, db = self.convolution_backward(
                dout, x, W, stride, pad, False, need_db, None, dW, db
            )
            return few_channels.image_gradient(dout, W, x.shape, stride, pad), dW, db
        found: tuple[Array | None, Array, Array]
        fits = all(p < f for p, f in zip(pad, W.shape[2:], strict=True))
        single_type = _all_single(dout, x, W)
        if need_dx and single_type and winograd.chosen(x.shape, W.shape, stride, pad):
            found = winograd.backward(dout, x, W, pad)
        elif need_dx and stride == (1, 1) and fits:
            found = numpy_convolution.backward_by_gradient_windows(dout, x, W, pad)
        else:
            found = numpy_convolution.backward_by_image_windows(dout, x, W, stride, pad, need_dx)
        return found[0], written(found[1], dW), written(found[2], db) if need_db else None

    def grouped_convolution(
        self,
        x: Array,
        W: Array,
        b: Array | None,
        stride: Pair,
        pad: Pair,
        dilation: Pair,
        groups: int,
        relu: bool = False,
    ) -> Array:
        how = stride, pad, dilation
        if x.dtype == np.float16:
            b = None if b is None else single(b)
            return half(self.grouped_convolution(single(x), single(W), b, *how, groups, relu))
        if W.shape[1] > 1:
            return grouped.convolution(self, x, W, b, *how, groups, relu)
        if len(W) > groups:  # several filters a channel: each with a copy of it
            x = x.repeat(len(W) // groups, axis=1)
            return self.grouped_convolution(x, W, b, *how, len(W), relu)
        return grouped.depthwise(x, W, b, *how, relu)

    def grouped_convolution_backward(
        self,
        dout: Array,
        x: Array,
        W: Array,
        stride: Pair,
        pad: Pair,
        dilation: Pair,
        groups: int,
        need_dx: bool = True,
    ) -> tuple[Array | None, Array, Array]:
        how = stride, pad, dilation
        if x.dtype == np.float16:
            dx, dW, db = self.grouped_convolution_backward(
                single(dout), single(x), single(W), *how, groups, need_dx
            )
            return None if dx is None else half(dx), dW, db
        if W.shape[1] > 1:
            return grouped.backward(self, dout, x, W, *how, groups, need_dx)
        if len(W) > groups:
            (n, c, h, w), copies = x.shape, len(W) // groups
            dx, dW, db = self.grouped_convolution_backward(
                dout, x.repeat(copies, axis=1), W, *how, len(W), need_dx
            )
            return None if dx is None else dx.reshape(n, c, copies, h, w).sum(axis=2), dW, db
        return grouped.depthwise_backward(dout, x, W, *how, need_dx)

    def matmul(self, a: Array, b: Array, dtype: Any = None, out: Array | None = None) -> Array:
        few = a.ndim != 2 or b.ndim != 2 or a.size * b.shape[1] < SMALL
        if out is not None or a.dtype == np.float16 or few:
            return super().matmul(a, b, dtype, out)
        product = pool.empty((len(a), b.shape[1]), np.result_type(a, b))
        # Each part reads all of the factor that is not cut, so that is the one that is less.
        longest = max(product.shape)
        # A part is worth a thread's waking from some ten million multiplications on, and BLAS is
        # slow with less than 64 rows or columns.
        step = max(-(-longest // 16), 64, 10_000_000 // (a.size * b.shape[1] // longest))

        def work(start: int) -> None:
            part = slice(start, start + step)
            if longest == len(a):
                np.matmul(a[part], b, out=product[part])
            else:
                np.matmul(a, b[:, part], out=product[:, part])

        with single_threaded_blas:
            workers.each(range(0, longest, step), work)
        return product if dtype is None else product.astype(dtype, copy=False)

    def confusion(self, scores: Array, t: Array, weights: Array | None = None) -> Array:
        true = t.astype(np.int64) if t.ndim == 1 else t.argmax(axis=1)
        classes = scores.shape[1]
        known = (true >= 0) & (true < classes)
        places = (true * classes + scores.argmax(axis=1))[known]
        counts = np.bincount(places, None if weights is None else weights[known], classes**2)
        return counts.reshape(classes, classes).astype(np.float64)

    def max_pooling(
        self, x: Array, size: Pair, stride: Pair, pad: Pair, train: bool = False
    ) -> tuple[Array, Any]:
        if x.dtype == np.float16:  # changing the type twice is quicker than comparing halves
            y, winners = self.max_pooling(single(x), size, stride, pad, train)
            return half(y), winners
        (n, c, h, w), last = x.shape, channels_last(x)
        oh, ow = (output_size(*axis) for axis in zip((h, w), size, stride, pad, strict=True))
        y = pool.empty((n, oh, ow, c), x.dtype)

        def work(part: slice) -> None:
            first, *others = places(padded(last[part], pad, -math.inf), size, stride, (oh, ow))
            largest = y[part]
            np.copyto(largest, first)
            for place in others:
                np.maximum(largest, place, out=largest)

        workers.each(parts_of(n, x.nbytes), work)
        y = y.transpose(0, 3, 1, 2)
        # Other layers keep both anyway, so the winners cost no memory.
        return y, (x, y) if train else None

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
        if y is not None:
            dout = self.relu_backward(dout, y, total)
        if dout.dtype == np.float16:
            dout = single(dout)
            return half(self.max_pooling_backward(dout, winners, shape, size, stride, pad))
        (n, c, h, w), (ph, pw) = shape, pad
        x, pooled, dout = (a.transpose(0, 2, 3, 1) for a in (*winners, dout))
        dx = pool.empty((n, h, w, c), dout.dtype)
        side_by_side = size == stride and pad == (0, 0)
        covered = side_by_side and h % size[0] == w % size[1] == 0

        def work(part: slice) -> None:
            largest, gradient = pooled[part], np.ascontiguousarray(dout[part])
            images = padded(x[part], pad, -math.inf)
            target = dx[part] if side_by_side else np.empty(images.shape, dx.dtype)
            if not covered:
                target[...] = 0
            free = np.ones(largest.shape, dtype=bool)
            seen, given = (places(a, size, stride, largest.shape[1:3]) for a in (images, target))
            for place, dplace in zip(seen, given, strict=True):
                wins = place == largest
                wins &= free
                free ^= wins
                if side_by_side:
                    np.multiply(gradient, wins, out=dplace)
                else:
                    dplace += gradient * wins
            if free.any():  # windows in which a NaN won, which equals nothing
                for place, dplace in zip(seen, given, strict=True):
                    wins = np.isnan(place) & free
                    free ^= wins
                    dplace[wins] += gradient[wins]
            if not side_by_side:
                dx[part] = target[:, ph : ph + h, pw : pw + w]

        workers.each(parts_of(n, dx.nbytes), work)
        return dx.transpose(0, 3, 1, 2)

    def average_pooling(self, x: Array, size: Pair, stride: Pair, pad: Pair) -> Array:
        (n, c, h, w), last = x.shape, channels_last(x)
        oh, ow = (output_size(*axis) for axis in zip((h, w), size, stride, pad, strict=True))
        y, wide = pool.empty((n, oh, ow, c), x.dtype), accumulation_dtype(x.dtype)

        def work(part: slice) -> None:
            first, *others = places(padded(last[part], pad, 0), size, stride, (oh, ow))
            total = first.astype(wide)
            for place in others:
                total += place
            np.divide(total, size[0] * size[1], out=y[part], casting="same_kind")

        workers.each(parts_of(n, x.nbytes), work)
        return y.transpose(0, 3, 1, 2)

    def average_pooling_backward(
        self, dout: Array, shape: Shape, size: Pair, stride: Pair, pad: Pair
    ) -> Array:
        (n, c, h, w), (ph, pw), last = shape, pad, channels_last(dout)
        dx, wide = pool.empty((n, h, w, c), dout.dtype), accumulation_dtype(dout.dtype)

        def work(part: slice) -> None:
            share = last[part].astype(wide, copy=False) / (size[0] * size[1])
            target = np.zeros((len(share), h + 2 * ph, w + 2 * pw, c), wide)
            for place in places(target, size, stride, share.shape[1:3]):
                place += share
            dx[part] = target[:, ph : ph + h, pw : pw + w]

        workers.each(parts_of(n, dx.nbytes), work)
        return dx.transpose(0, 3, 1, 2)


def _all_single(*arrays: Array | None) -> bool:
    return all(a is None or a.dtype == np.float32 for a in arrays)
