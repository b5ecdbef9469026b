"""NumPy on a CPU, at speed.

4-D data is kept in channels-last memory behind its shape (N, C, H, W): a window's row then lies
in one piece, FW*C numbers long, and a product's result is the next layer's input as it stands.
What is large enough to be worth it is cut into parts that the threads share.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from xpdl.backends.base import Array, Backend, Pair, Shape, accumulation_dtype, output_size, written
from xpdl.backends.numpy import convolution as numpy_convolution
from xpdl.backends.numpy import few_channels, grouped
from xpdl.backends.numpy.memory import pool
from xpdl.backends.numpy.threads import single_threaded_blas, workers

# Element by element, threads take parts of this size: small enough for a core's own cache.
PART_BYTES = 512 * 1024

# Pixels are taken together to lines of no more numbers: long enough for NumPy's loops to be worth
# their beginning, and what is used for each line again stays in a core's first cache.
LINE = 1024

# Products of fewer multiplications than this are not worth sharing.
SMALL = 250_000


class NumpyBackend(Backend):
    """Overrides of the generic primitives that are faster on a CPU."""

    name = "numpy"

    def release(self) -> None:
        pool.release()

    def convolution(
        self, x: Array, W: Array, b: Array | None, stride: Pair, pad: Pair, relu: bool = False
    ) -> Array:
        if x.dtype == np.float16:  # emulated: there is no half-precision arithmetic to be fast
            b = None if b is None else _single(b)
            return _half(self.convolution(_single(x), _single(W), b, stride, pad, relu))
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
            dout, x, W = (_single(a) for a in (dout, x, W))
            dx, dW, db = self.convolution_backward(
                dout, x, W, stride, pad, need_dx, need_db, None, dW, db
            )
            return None if dx is None else _half(dx), dW, db
        if need_dx and x.shape[1] <= few_channels.MOST:
            _, dW, db = self.convolution_backward(
                dout, x, W, stride, pad, False, need_db, None, dW, db
            )
            return few_channels.image_gradient(dout, W, x.shape, stride, pad), dW, db
        found: tuple[Array | None, Array, Array]
        fits = all(p < f for p, f in zip(pad, W.shape[2:], strict=True))
        if need_dx and stride == (1, 1) and fits:
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
            b = None if b is None else _single(b)
            return _half(self.grouped_convolution(_single(x), _single(W), b, *how, groups, relu))
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
                _single(dout), _single(x), _single(W), *how, groups, need_dx
            )
            return None if dx is None else _half(dx), dW, db
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
        # A part is worth a thread's waking from some ten million multiplications on.
        step = max(-(-len(a) // 16), 10_000_000 // (a.shape[1] * b.shape[1]))

        def work(start: int) -> None:
            np.matmul(a[start : start + step], b, out=product[start : start + step])

        with single_threaded_blas:
            workers.each(range(0, len(a), step), work)
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
            y, winners = self.max_pooling(_single(x), size, stride, pad, train)
            return _half(y), winners
        (n, c, h, w), last = x.shape, _channels_last(x)
        oh, ow = (output_size(*axis) for axis in zip((h, w), size, stride, pad, strict=True))
        y = pool.empty((n, oh, ow, c), x.dtype)

        def work(part: slice) -> None:
            first, *others = _places(_padded(last[part], pad, -math.inf), size, stride, (oh, ow))
            largest = y[part]
            np.copyto(largest, first)
            for place in others:
                np.maximum(largest, place, out=largest)

        workers.each(_parts(n, x.nbytes), work)
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
            dout = _single(dout)
            return _half(self.max_pooling_backward(dout, winners, shape, size, stride, pad))
        (n, c, h, w), (ph, pw) = shape, pad
        x, pooled, dout = (a.transpose(0, 2, 3, 1) for a in (*winners, dout))
        dx = pool.empty((n, h, w, c), dout.dtype)
        side_by_side = size == stride and pad == (0, 0)
        covered = side_by_side and h % size[0] == w % size[1] == 0

        def work(part: slice) -> None:
            largest, gradient = pooled[part], np.ascontiguousarray(dout[part])
            images = _padded(x[part], pad, -math.inf)
            target = dx[part] if side_by_side else np.empty(images.shape, dx.dtype)
            if not covered:
                target[...] = 0
            free = np.ones(largest.shape, dtype=bool)
            seen, given = (_places(a, size, stride, largest.shape[1:3]) for a in (images, target))
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

        workers.each(_parts(n, dx.nbytes), work)
        return dx.transpose(0, 3, 1, 2)

    def average_pooling(self, x: Array, size: Pair, stride: Pair, pad: Pair) -> Array:
        (n, c, h, w), last = x.shape, _channels_last(x)
        oh, ow = (output_size(*axis) for axis in zip((h, w), size, stride, pad, strict=True))
        y, wide = pool.empty((n, oh, ow, c), x.dtype), accumulation_dtype(x.dtype)

        def work(part: slice) -> None:
            first, *others = _places(_padded(last[part], pad, 0), size, stride, (oh, ow))
            total = first.astype(wide)
            for place in others:
                total += place
            np.divide(total, size[0] * size[1], out=y[part], casting="same_kind")

        workers.each(_parts(n, x.nbytes), work)
        return y.transpose(0, 3, 1, 2)

    def average_pooling_backward(
        self, dout: Array, shape: Shape, size: Pair, stride: Pair, pad: Pair
    ) -> Array:
        (n, c, h, w), (ph, pw), last = shape, pad, _channels_last(dout)
        dx, wide = pool.empty((n, h, w, c), dout.dtype), accumulation_dtype(dout.dtype)

        def work(part: slice) -> None:
            share = last[part].astype(wide, copy=False) / (size[0] * size[1])
            target = np.zeros((len(share), h + 2 * ph, w + 2 * pw, c), wide)
            for place in _places(target, size, stride, share.shape[1:3]):
                place += share
            dx[part] = target[:, ph : ph + h, pw : pw + w]

        workers.each(_parts(n, dx.nbytes), work)
        return dx.transpose(0, 3, 1, 2)

    def moments(self, x: Array) -> tuple[Array, Array]:
        if x.nbytes < PART_BYTES or not lies_in_pixels(x):
            return super().moments(x)
        lines, c, wide = pixel_lines(x), x.shape[1], accumulation_dtype(x.dtype)

        def work(part: slice) -> tuple[Array, Array]:
            block = lines[part].astype(wide, copy=False)
            mean = block.mean(axis=0)
            block = block - mean
            rest = block.mean(axis=0, dtype=np.float64)  # what rounding left out of the mean
            block *= block
            return mean + rest, block.mean(axis=0) - rest * rest

        parts = _parts(len(lines), x.nbytes)
        means, variances = (
            np.stack(a).reshape(len(parts), -1, c)
            for a in zip(*workers.each(parts, work), strict=True)
        )
        # The variance of all is the mean of the parts' variances and of what their means differ.
        shares = np.array([part.stop - part.start for part in parts]) / len(lines)
        mean = shares @ means.mean(axis=1)
        variance = shares @ (variances + (means - mean) ** 2).mean(axis=1)
        return mean.astype(wide), variance.astype(wide)

    def normalize(self, x: Array, mean: Array, factor: Array, shift: Array) -> Array:
        if x.nbytes < PART_BYTES or not lies_in_pixels(x):
            return super().normalize(x, mean, factor, shift)
        y = pool.empty_like(x)
        lines, results = pixel_lines(x), pixel_lines(y)
        mean, factor, shift = (np.tile(a, lines.shape[1] // len(a)) for a in (mean, factor, shift))

        def work(part: slice) -> None:
            scaled = lines[part] - mean
            scaled *= factor
            np.add(scaled, shift, out=results[part], casting="same_kind")

        workers.each(_parts(len(lines), x.nbytes), work)
        return y

    def normalize_backward(
        self, dout: Array, x: Array, mean: Array, inverse_std: Array, gamma: Array
    ) -> tuple[Array, Array, Array]:
        if x.nbytes < PART_BYTES or dout.shape != x.shape or not lies_in_pixels(x, dout):
            return super().normalize_backward(dout, x, mean, inverse_std, gamma)
        lines, gradient = pixel_lines(x), pixel_lines(dout)
        c, count = len(mean), x.size // len(mean)
        parts = _parts(len(lines), x.nbytes)
        means, factor = (np.tile(a, lines.shape[1] // c) for a in (mean, inverse_std * gamma))

        def work(part: slice) -> tuple[Array, Array]:
            products = lines[part] - means
            products *= gradient[part]
            return gradient[part].sum(axis=0, dtype=products.dtype), products.sum(axis=0)

        dbeta, dgamma = (
            by_feature(np.stack(a), c) for a in zip(*workers.each(parts, work), strict=True)
        )
        dgamma *= inverse_std
        level, slope = (
            np.tile((a / count).astype(mean.dtype), lines.shape[1] // c)
            for a in (dbeta, dgamma * inverse_std)
        )
        dx = pool.empty_like(dout)
        results = pixel_lines(dx)

        def finish(part: slice) -> None:
            centred = lines[part] - means
            centred *= slope
            centred += level
            np.subtract(gradient[part], centred, out=centred)
            np.multiply(factor, centred, out=results[part], casting="same_kind")

        workers.each(parts, finish)
        return dx, dgamma.astype(mean.dtype), dbeta.astype(mean.dtype)

    def normalize_response(
        self, x: Array, size: int, bias: float, alpha: float, beta: float
    ) -> tuple[Array, Array]:
        plain, wide = super().normalize_response, accumulation_dtype(x.dtype)
        y, s = pool.empty_like(x), pool.empty_like(x, wide)

        def work(part: slice) -> None:
            y[part], s[part] = plain(x[part], size, bias, alpha, beta)

        workers.each(_parts(len(x), x.nbytes), work)
        return y, s

    def normalize_response_backward(
        self, dout: Array, x: Array, s: Array, size: int, alpha: float, beta: float
    ) -> Array:
        plain, dx = super().normalize_response_backward, pool.empty_like(dout)

        def work(part: slice) -> None:
            dx[part] = plain(dout[part], x[part], s[part], size, alpha, beta)

        workers.each(_parts(len(x), x.nbytes), work)
        return dx

    def relu(self, x: Array) -> Array:
        if x.nbytes < PART_BYTES:
            return super().relu(x)
        y = pool.empty_like(x)

        def work(part: slice) -> None:
            np.maximum(x[part], 0, out=y[part])

        workers.each(_parts(len(x), x.nbytes), work)
        return y

    def relu_backward(self, dout: Array, y: Array, total: Array | None = None) -> Array:
        if dout.nbytes < PART_BYTES:
            return super().relu_backward(dout, y, total)
        dx = pool.empty_like(dout)

        def work(part: slice) -> None:
            # Multiplying halves takes longer than changing their type twice.
            wide = dout[part].astype(accumulation_dtype(dout.dtype), copy=False)
            np.multiply(wide, y[part] > 0, out=dx[part], casting="same_kind")

        workers.each(_parts(len(dout), dout.nbytes), work)
        if total is not None:
            self.sum(dx, axis=(0, *range(2, dx.ndim)), out=total)
        return dx


def _channels_last(x: Array) -> Array:
    """Return a view (N, H, W, C) of x (N, C, H, W)."""
    return x.transpose(0, 2, 3, 1)


def lies_in_pixels(*arrays: Array) -> bool:
    """Tell whether arrays, (N, C) or (N, C, H, W), lie in memory pixel (C,) by pixel."""
    return all(_pixels_last(a).flags.c_contiguous for a in arrays)


def pixel_lines(x: Array) -> Array:
    """Return a view of x that `lies_in_pixels`, as lines of whole pixels (C,), of one length."""
    return _pixels_last(x).reshape(-1, _line(x.size, x.shape[1]))


def _pixels_last(x: Array) -> Array:
    return _channels_last(x) if x.ndim == 4 else x


@lru_cache(maxsize=512)
def _line(size: int, c: int) -> int:
    """Return of how many numbers a line is: the most that divide `size`, but one pixel at least."""
    pixels = size // c
    return c * max(k for k in range(1, max(1, LINE // c) + 1) if pixels % k == 0)


def by_feature(sums: Array, c: int) -> Array:
    """Add up what lines of pixels (C,) were summed to, in float64."""
    return sums.reshape(-1, c).sum(axis=0, dtype=np.float64)


def _parts(count: int, size: int) -> list[slice]:
    """Cut range(count), of `size` bytes in all, into parts of about `PART_BYTES`."""
    step = max(1, count * PART_BYTES // max(1, size))
    return [slice(i, min(i + step, count)) for i in range(0, count, step)]


def _padded(last: Array, pad: Pair, value: float) -> Array:
    """Return images (N, H, W, C) within a border of `value`."""
    if pad == (0, 0):
        return last
    (n, h, w, c), (ph, pw) = last.shape, pad
    padded = np.full((n, h + 2 * ph, w + 2 * pw, c), value, last.dtype)
    padded[:, ph : ph + h, pw : pw + w] = last
    return padded


def _places(images: Array, size: Pair, stride: Pair, counts: Shape) -> list[Array]:
    """Return, for each place in a window, the view of images that holds it for all windows."""
    (sh, sw), (oh, ow) = stride, counts
    return [
        images[:, i : i + sh * (oh - 1) + 1 : sh, j : j + sw * (ow - 1) + 1 : sw]
        for i in range(size[0])
        for j in range(size[1])
    ]


def _single(a: Array) -> Array:
    return _converted(a, np.float32)


def _half(a: Array) -> Array:
    return _converted(a, np.float16)


def _converted(a: Array, dtype: Any) -> Array:
    """Return `a` in another float type, in the same memory order."""
    if a.nbytes < PART_BYTES:
        return a.astype(dtype)
    result = pool.empty_like(a, dtype)

    def work(part: slice) -> None:
        np.copyto(result[part], a[part], casting="same_kind")

    workers.each(_parts(len(a), a.nbytes), work)
    return result
