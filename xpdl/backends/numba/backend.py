"""NumPy's arrays, with convolution, pooling, normalisation, ReLU and Adam compiled by Numba.

For float32. What is given in another type, or not in one piece of memory, takes the way of the
backend ``numpy``, as do the primitives that are not overridden here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from xpdl.backends.base.types import Array, Number, Pair, Shape, output_size, written
from xpdl.backends.numba.pixels import by_pixel
from xpdl.backends.numpy import few_channels
from xpdl.backends.numpy.backend import NumpyBackend
from xpdl.backends.numpy.elements import by_feature, lies_in_pixels, pixel_lines
from xpdl.backends.numpy.memory import pool
from xpdl.backends.numpy.seen import seen_part
from xpdl.errors import BackendUnavailableError

try:
    from xpdl.backends.numba import depthwise, kernels, response, windows, winograd
    from xpdl.backends.numba.sharing import Shares, cut, share
    from xpdl.backends.numba.vectors import LANES
except ImportError as error:
    raise BackendUnavailableError(
        f"the backend 'numba' needs Numba ({error}): pip install 'xpdl[numba]'."
    ) from error

FEW_BYTES = 128 * 1024
"""Of so little, NumPy is done before the lines are laid out that normalisation wants."""


class NumbaBackend(NumpyBackend):
    """Overrides of NumPy's primitives with compiled loops."""

    name = "numba"

    def describe(self) -> dict[str, str]:
        import numba

        return super().describe() | {
            "Numba": numba.__version__,
            "vector width": f"{LANES} float32",
            "convolution": winograd.described(),
        }

    @classmethod
    def providers(cls, dtype: Any = "float32") -> dict[str, str]:
        # Half precision is computed in single, whose convolution and max pooling are ours; the rest
        # is NumPy's.
        ours = super().providers(dtype)
        if np.dtype(dtype) == np.float32:
            return ours
        plain = NumpyBackend.providers(dtype)
        if np.dtype(dtype) == np.float16:
            widened = ("convolution", "grouped_convolution", "max_pooling")
            return plain | {name: ours[name] for name in ours if name.startswith(widened)}
        return plain | {"update_rule": ours["update_rule"]}

    def convolution(
        self, x: Array, W: Array, b: Array | None, stride: Pair, pad: Pair, relu: bool = False
    ) -> Array:
        if not _all_single(x, W, b) or seen_part(x.shape[2:], W.shape[2:], stride, pad):
            return super().convolution(x, W, b, stride, pad, relu)
        image = _flat_images(x)
        if winograd.chosen(x.shape, W.shape, stride, pad):
            turned = W.transpose(1, 0, 2, 3)
            return winograd.convolution(image, x.shape, turned, b, pad, relu).transpose(0, 3, 1, 2)
        return windows.convolution(image, x.shape, W, b, stride, pad, relu).transpose(0, 3, 1, 2)

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
        few = need_dx and x.shape[1] <= few_channels.MOST
        if not _all_single(dout, x, W) or few or seen_part(x.shape[2:], W.shape[2:], stride, pad):
            return super().convolution_backward(
                dout, x, W, stride, pad, need_dx, need_db, y, dW, db
            )
        if y is not None:
            dout = self.relu_backward(_in_pixels(dout), y)
        image, gradient, counts = _flat_images(x), _flat_images(dout), dout.shape[2:]
        if winograd.chosen(x.shape, W.shape, stride, pad):
            dx = None
            if need_dx:
                turned, border = W[:, :, ::-1, ::-1], (2 - pad[0], 2 - pad[1])
                dx = winograd.convolution(gradient, dout.shape, turned, None, border, False)
            sums, bias_sums = winograd.filters_gradient(
                image, x.shape, gradient, counts, len(W), pad
            )
        else:
            dx, sums, bias_sums = windows.backward(
                gradient, image, x.shape, W, counts, stride, pad, need_dx
            )
        return (
            None if dx is None else dx.transpose(0, 3, 1, 2),
            written(sums, dW),
            written(bias_sums, db) if need_db else None,
        )

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
        if W.shape[:2] == (groups, 1) and _all_single(x, W, b):
            return depthwise.convolution(x, W, b, stride, pad, dilation, relu)
        return super().grouped_convolution(x, W, b, stride, pad, dilation, groups, relu)

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
        if W.shape[:2] == (groups, 1) and _all_single(dout, x, W):
            return depthwise.backward(dout, x, W, stride, pad, dilation, need_dx)
        return super().grouped_convolution_backward(
            dout, x, W, stride, pad, dilation, groups, need_dx
        )

    def max_pooling(
        self, x: Array, size: Pair, stride: Pair, pad: Pair, train: bool = False
    ) -> tuple[Array, Any]:
        apart = size == stride and pad == (0, 0) and x.shape[1] >= LANES
        if not _all_single(x) or not (apart or x.shape[1] % LANES == 0):  # NumPy is quicker
            return super().max_pooling(x, size, stride, pad, train)
        n, c, h, w = x.shape
        oh, ow = (output_size(*axis) for axis in zip((h, w), size, stride, pad, strict=True))
        image = _flat_images(x)
        y = pool.empty((n, oh, ow, c), np.float32)
        winners = pool.empty((y.size,), np.uint8 if size[0] * size[1] <= 256 else np.uint32)
        flat = y.reshape(-1)

        def work(shares: Shares) -> None:
            kernels.max_pool(
                *(image, (h, w, c), size, stride, pad, (oh, ow), flat, winners, shares, 0)
            )

        share(cut(n, 4 * h * w * c), work)
        return y.transpose(0, 3, 1, 2), winners if train else None

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
        if dout.dtype == np.float16 or not isinstance(winners, np.ndarray):
            return super().max_pooling_backward(dout, winners, shape, size, stride, pad, y, total)
        if y is not None:
            dout = self.relu_backward(_in_pixels(dout), y, total)
        (n, c, h, w), counts = shape, dout.shape[2:]
        gradient = _flat_images(dout.astype(np.float32, copy=False))
        dx = pool.empty((n, h, w, c), np.float32)
        flat = dx.reshape(-1)

        def work(shares: Shares) -> None:
            kernels.max_pool_backward(
                *(gradient, winners, (h, w, c), size, stride, pad, counts, flat, shares, 0)
            )

        share(cut(n, 4 * h * w * c), work)
        return dx.transpose(0, 3, 1, 2)

    def moments(self, x: Array) -> tuple[Array, Array]:
        if not _in_lines(x):
            return super().moments(x)
        (flat, width), c = _flat_lines(x), x.shape[1]
        pivot = np.tile(flat[:c].astype(np.float64), width // c)
        bounds = cut(len(flat) // width, 8 * width)  # as many bytes as it makes of them
        sums, squares = np.empty((2, len(bounds) - 1, width))

        def work(shares: Shares) -> None:
            kernels.sum_moments(flat, pivot, sums, squares, shares, 0)

        share(bounds, work)
        mean, square = (by_feature(a, c) / (len(flat) // c) for a in (sums, squares))
        variance = np.maximum(square - mean * mean, 0)
        return (pivot[:c] + mean).astype(np.float32), variance.astype(np.float32)

    def normalize(self, x: Array, mean: Array, factor: Array, shift: Array) -> Array:
        if not (_in_lines(x) and _all_single(mean, factor, shift)):
            return super().normalize(x, mean, factor, shift)
        y = pool.empty_like(x)
        (flat, width), (flat_y, _) = _flat_lines(x), _flat_lines(y)
        mean, factor, shift = (np.tile(a, width // len(a)) for a in (mean, factor, shift))

        def work(shares: Shares) -> None:
            kernels.normalize(flat, mean, factor, shift, flat_y, shares, 0)

        share(cut(len(flat) // width, 2 * 4 * width), work)
        return y

    def normalize_backward(
        self, dout: Array, x: Array, mean: Array, inverse_std: Array, gamma: Array
    ) -> tuple[Array, Array, Array]:
        if not (_in_lines(x, dout) and _all_single(mean, inverse_std, gamma)):
            return super().normalize_backward(dout, x, mean, inverse_std, gamma)
        (flat, width), (gradient, _), c = _flat_lines(x), _flat_lines(dout), len(mean)
        means, factors = (np.tile(a, width // c) for a in (mean, inverse_std * gamma))
        bounds = cut(len(flat) // width, 2 * 4 * width)
        sums, products = np.empty((2, len(bounds) - 1, width))

        def work(shares: Shares) -> None:
            kernels.sum_gradients(gradient, flat, means, sums, products, shares, 0)

        share(bounds, work)
        dbeta, dgamma = by_feature(sums, c), by_feature(products, c) * inverse_std
        level, slope = (
            np.tile((a / (len(flat) // c)).astype(np.float32), width // c)
            for a in (dbeta, dgamma * inverse_std)
        )
        dx = pool.empty_like(dout)
        flat_dx, _ = _flat_lines(dx)

        def finish(shares: Shares) -> None:
            kernels.normalize_backward(
                *(gradient, flat, means, factors, level, slope, flat_dx, shares, 0)
            )

        share(bounds, finish)
        return dx, dgamma.astype(np.float32), dbeta.astype(np.float32)

    def normalize_response(
        self, x: Array, size: int, bias: float, alpha: float, beta: float
    ) -> tuple[Array, Array]:
        if not (_all_single(x) and lies_in_pixels(x)):
            return super().normalize_response(x, size, bias, alpha, beta)
        return response.normalize(x, size, bias, alpha, beta)

    def normalize_response_backward(
        self, dout: Array, x: Array, s: Array, size: int, alpha: float, beta: float
    ) -> Array:
        if not (_all_single(dout, x, s) and lies_in_pixels(dout, x, s)):
            return super().normalize_response_backward(dout, x, s, size, alpha, beta)
        return response.backward(dout, x, s, size, alpha, beta)

    def relu(self, x: Array) -> Array:
        y = pool.empty_like(x)
        return y if _each_element(kernels.relu, x, y) else super().relu(x)

    def relu_backward(self, dout: Array, y: Array, total: Array | None = None) -> Array:
        dx = pool.empty_like(dout)
        if not _each_element(kernels.relu_backward, dout, y, dx):
            return super().relu_backward(dout, y, total)
        if total is not None:
            self.sum(dx, axis=(0, *range(2, dx.ndim)), out=total)
        return dx

    def relu6(self, x: Array) -> Array:
        y = pool.empty_like(x)
        return y if _each_element(kernels.relu6, x, y) else super().relu6(x)

    def relu6_backward(self, dout: Array, y: Array) -> Array:
        dx = pool.empty_like(dout)
        if _each_element(kernels.relu6_backward, dout, y, dx):
            return dx
        return super().relu6_backward(dout, y)

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
        if name == "adam":
            name, rule = "", partial(_adam, rule, options)  # without a name, it is not cut in parts
        super().update_rule(name, rule, options, arrays, numbers, go, copy)


def _adam(
    plain: Callable[..., None],
    options: Mapping[str, Any],
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    rate: Number,
    count: Number,
) -> None:
    """Do Adam in one pass, or else the plain way; see there for what it computes."""
    beta1, beta2 = options["beta1"], options["beta2"]
    correction1, correction2 = 1 - beta1**count, (1 - beta2**count) ** 0.5
    numbers = (rate / correction1, beta1, 1 - beta1, beta2, 1 - beta2, correction2)
    scalars = np.array((*numbers, options["epsilon"]), p.dtype)
    double = p.dtype == np.float64
    if not _each_element(kernels.adam, p, g, m, v, scalars=(scalars,), double=double):
        plain(p, g, m, v, rate, count)


def _all_single(*arrays: Array | None) -> bool:
    return all(a is None or a.dtype == np.float32 for a in arrays)


def _flat_images(x: Array) -> Array:
    """Return x (N, C, H, W) as one row in the order N, H, W, C; a copy only if it must be."""
    return by_pixel(x).reshape(-1)


def _in_pixels(dout: Array) -> Array:
    """Return a gradient (N, C, H, W) in memory pixel by pixel, as what it will meet is."""
    return by_pixel(dout).transpose(0, 3, 1, 2)


def _in_lines(*arrays: Array) -> bool:
    """Tell whether arrays are to be normalised here: alike, single, large, and pixel by pixel."""
    alike = len({a.shape for a in arrays}) == 1 and _all_single(*arrays)
    return alike and arrays[0].nbytes >= FEW_BYTES and lies_in_pixels(*arrays)


def _flat_lines(x: Array) -> tuple[Array, int]:
    """Return x as `pixel_lines` does, but in one row, and how long a line is."""
    lines = pixel_lines(x)
    return (lines if lines.flags.writeable else lines.copy()).reshape(-1), lines.shape[1]


def _each_element(
    kernel: Callable[..., None],
    *arrays: Array,
    scalars: tuple[Array, ...] = (),
    double: bool = False,
) -> bool:
    """Run an element-wise kernel over the arrays' memory.

    False if their memory does not agree, or their type is not single, or `double`, precision.
    """
    if any(a.dtype != (np.float64 if double else np.float32) for a in arrays):
        return False
    if arrays[0].ndim == 4:
        arrays = tuple(a.transpose(0, 2, 3, 1) for a in arrays)
    if len({a.shape for a in arrays}) > 1 or not all(a.flags.c_contiguous for a in arrays):
        return False
    flat = [a.reshape(-1) for a in arrays]
    share(
        cut(len(flat[0]), arrays[0].itemsize * len(flat)),
        lambda shares: kernel(*flat, *scalars, shares, 0),
    )
    return True
