"""What NumPy does number by number, in parts that stay in a core's cache, on threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from xpdl.backends.base import Backend
from xpdl.backends.base.types import Array, Number, Pair, Shape, accumulation_dtype
from xpdl.backends.numpy.memory import pool
from xpdl.backends.numpy.threads import workers

# Element by element, threads take parts of this size: small enough for a core's own cache.
PART_BYTES = 512 * 1024

# An optimizer's rule keeps some arrays for itself beside those that it changes.
RULE_BYTES = 256 * 1024

# Pixels are taken together to lines of no more numbers: long enough for NumPy's loops to be worth
# their beginning, and what is used for each line again stays in a core's first cache.
LINE = 1024


class NumpyElements(Backend):
    """Normalisation, activations and updates."""

    name = "numpy"

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

        parts = parts_of(len(lines), x.nbytes)
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

        workers.each(parts_of(len(lines), x.nbytes), work)
        return y

    def normalize_backward(
        self, dout: Array, x: Array, mean: Array, inverse_std: Array, gamma: Array
    ) -> tuple[Array, Array, Array]:
        if x.nbytes < PART_BYTES or dout.shape != x.shape or not lies_in_pixels(x, dout):
            return super().normalize_backward(dout, x, mean, inverse_std, gamma)
        lines, gradient = pixel_lines(x), pixel_lines(dout)
        c, count = len(mean), x.size // len(mean)
        parts = parts_of(len(lines), x.nbytes)
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

        workers.each(parts_of(len(x), x.nbytes), work)
        return y, s

    def normalize_response_backward(
        self, dout: Array, x: Array, s: Array, size: int, alpha: float, beta: float
    ) -> Array:
        plain, dx = super().normalize_response_backward, pool.empty_like(dout)

        def work(part: slice) -> None:
            dx[part] = plain(dout[part], x[part], s[part], size, alpha, beta)

        workers.each(parts_of(len(x), x.nbytes), work)
        return dx

    def relu(self, x: Array) -> Array:
        if x.nbytes < PART_BYTES:
            return super().relu(x)
        y, zeros = pool.empty_like(x), np.zeros_like(x[:1])  # NumPy is slow with a single zero

        def work(part: slice) -> None:
            np.maximum(x[part], zeros, out=y[part])

        workers.each(parts_of(len(x), x.nbytes), work)
        return y

    def relu_backward(self, dout: Array, y: Array, total: Array | None = None) -> Array:
        if dout.nbytes < PART_BYTES:
            return super().relu_backward(dout, y, total)
        dx = pool.empty_like(dout)

        def work(part: slice) -> None:
            # Multiplying halves takes longer than changing their type twice.
            wide = dout[part].astype(accumulation_dtype(dout.dtype), copy=False)
            np.multiply(wide, y[part] > 0, out=dx[part], casting="same_kind")

        workers.each(parts_of(len(dout), dout.nbytes), work)
        if total is not None:
            self.sum(dx, axis=(0, *range(2, dx.ndim)), out=total)
        return dx

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
        plain, places = super().update_rule, [*arrays, *([] if copy is None else [copy])]
        in_pieces = all(a.flags.c_contiguous for a in places)
        if not name or not in_pieces or arrays[0].nbytes <= RULE_BYTES:
            return plain(name, rule, options, arrays, numbers, go, copy)
        flat = [a.reshape(-1) for a in places]
        size, step = flat[0].size, RULE_BYTES // arrays[0].itemsize

        def work(start: int) -> None:
            parts = [a[start : start + step] for a in flat]
            plain(name, rule, options, parts[: len(arrays)], numbers, go, *parts[len(arrays) :])

        workers.each(range(0, size, step), work)
        return None


def channels_last(x: Array) -> Array:
    """Return a view (N, H, W, C) of x (N, C, H, W)."""
    return x.transpose(0, 2, 3, 1)


def lies_in_pixels(*arrays: Array) -> bool:
    """Tell whether arrays, (N, C) or (N, C, H, W), lie in memory pixel (C,) by pixel."""
    return all(pixels_last(a).flags.c_contiguous for a in arrays)


def pixel_lines(x: Array) -> Array:
    """Return a view of x that `lies_in_pixels`, as lines of whole pixels (C,), of one length."""
    return pixels_last(x).reshape(-1, line_of(x.size, x.shape[1]))


def pixels_last(x: Array) -> Array:
    """Return images (N, C, H, W) as a view (N, H, W, C); rows (N, C) as they are."""
    return channels_last(x) if x.ndim == 4 else x


@lru_cache(maxsize=512)
def line_of(size: int, c: int) -> int:
    """Return of how many numbers a line is: the most that divide `size`, but one pixel at least."""
    pixels = size // c
    return c * max(k for k in range(1, max(1, LINE // c) + 1) if pixels % k == 0)


def by_feature(sums: Array, c: int) -> Array:
    """Add up what lines of pixels (C,) were summed to, in float64."""
    return sums.reshape(-1, c).sum(axis=0, dtype=np.float64)


def parts_of(count: int, size: int) -> list[slice]:
    """Cut range(count), of `size` bytes in all, into parts of about `PART_BYTES`."""
    step = max(1, count * PART_BYTES // max(1, size))
    return [slice(i, min(i + step, count)) for i in range(0, count, step)]


def padded(last: Array, pad: Pair, value: float) -> Array:
    """Return images (N, H, W, C) within a border of `value`."""
    if pad == (0, 0):
        return last
    (n, h, w, c), (ph, pw) = last.shape, pad
    padded = np.full((n, h + 2 * ph, w + 2 * pw, c), value, last.dtype)
    padded[:, ph : ph + h, pw : pw + w] = last
    return padded


def places(images: Array, size: Pair, stride: Pair, counts: Shape) -> list[Array]:
    """Return, for each place in a window, the view of images that holds it for all windows."""
    (sh, sw), (oh, ow) = stride, counts
    return [
        images[:, i : i + sh * (oh - 1) + 1 : sh, j : j + sw * (ow - 1) + 1 : sw]
        for i in range(size[0])
        for j in range(size[1])
    ]


def single(a: Array) -> Array:
    """Return a in float32."""
    return converted(a, np.float32)


def half(a: Array) -> Array:
    """Return a in float16."""
    return converted(a, np.float16)


def converted(a: Array, dtype: Any) -> Array:
    """Return `a` in another float type, in the same memory order."""
    if a.nbytes < PART_BYTES:
        return a.astype(dtype)
    result = pool.empty_like(a, dtype)

    def work(part: slice) -> None:
        np.copyto(result[part], a[part], casting="same_kind")

    workers.each(parts_of(len(a), a.nbytes), work)
    return result
