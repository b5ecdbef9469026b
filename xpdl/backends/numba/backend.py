"""NumPy's arrays, with convolution, pooling, normalisation, ReLU and Adam compiled by Numba.

For float32. What is given in another type, or not in one piece of memory, takes the way of the
backend ``numpy``, as do the primitives that are not overridden here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from xpdl.backends.base.types import (
    Array,
    Geometry,
    Normal,
    Number,
    Pair,
    Pairs,
    Shape,
    output_size,
    written,
)
from xpdl.backends.numba.pixels import by_pixel
from xpdl.backends.numpy import few_channels
from xpdl.backends.numpy.backend import NumpyBackend
from xpdl.backends.numpy.memory import pool
from xpdl.backends.numpy.seen import seen_part
from xpdl.errors import BackendUnavailableError

try:
    from xpdl.backends.numba import depthwise, kernels, matrices, windows, winograd
    from xpdl.backends.numba.elements import NumbaElements, all_single, each_element
    from xpdl.backends.numba.sharing import cut, share
    from xpdl.backends.numba.vectors import LANES
except ImportError as error:
    raise BackendUnavailableError(
        f"the backend 'numba' needs Numba ({error}): pip install 'xpdl[numba]'."
    ) from error


class NumbaBackend(NumbaElements):
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
            ours = {name: ours[name] for name in ours if name.removesuffix("_backward") in widened}
            return plain | ours
        return plain | {"update_rule": ours["update_rule"]}

    def matmul(self, a: Array, b: Array, dtype: Any = None, out: Array | None = None) -> Array:
        if dtype not in (None, np.float32) or not matrices.fit(a, b, out):
            return super().matmul(a, b, dtype, out)
        return matrices.multiply(a, b, out)

    def convolution(
        self, x: Array, W: Array, b: Array | None, stride: Pair, pad: Pair, relu: bool = False
    ) -> Array:
        if not all_single(x, W, b) or seen_part(x.shape[2:], W.shape[2:], stride, pad):
            return super().convolution(x, W, b, stride, pad, relu)
        image = _flat_images(x)
        if winograd.chosen(x.shape, W.shape, stride, pad):
            turned = W.transpose(1, 0, 2, 3)
            return winograd.convolution(image, x.shape, turned, b, pad, relu).transpose(0, 3, 1, 2)
        return windows.convolution(image, x.shape, W, b, stride, pad, relu).transpose(0, 3, 1, 2)

    def convolution_pooling(
        self, x: Array, W: Array, b: Array | None, how: Pairs, window: Pairs, train: bool = False
    ) -> tuple[Array, Any]:
        (stride, pad), (size, step) = how, window
        tiled = winograd.chosen(x.shape, W.shape, stride, pad)
        if not (all_single(x, W, b) and tiled and winograd.pools(x.shape, pad, size, step)):
            return super().convolution_pooling(x, W, b, how, window, train)
        turned = W.transpose(1, 0, 2, 3)
        y, winners = winograd.convolution_pooling(_flat_images(x), x.shape, turned, b, pad)
        return y.transpose(0, 3, 1, 2), winners if train else None

    def convolution_normalized(
        self, x: Array, W: Array, b: Array | None, how: Geometry, norm: Normal, relu: bool = False
    ) -> Array:
        if not all_single(x, W, b, *norm):
            return super().convolution_normalized(x, W, b, how, norm, relu)
        (stride, pad, dilation, groups), (mean, factor, shift) = how, norm
        biases = shift + factor * (-mean if b is None else b - mean)
        plain = groups == 1 and dilation == (1, 1)
        if not plain or seen_part(x.shape[2:], W.shape[2:], stride, pad):
            W = W * factor[:, None, None, None]
            if plain:
                return self.convolution(x, W, biases, stride, pad, relu)
            return self.grouped_convolution(x, W, biases, *how, relu)
        image = _flat_images(x)
        if winograd.chosen(x.shape, W.shape, stride, pad):
            turned = W.transpose(1, 0, 2, 3)
            y = winograd.convolution(image, x.shape, turned, biases, pad, relu, factor)
        else:
            y = windows.convolution(image, x.shape, W, biases, stride, pad, relu, factor)
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
        few = need_dx and x.shape[1] <= few_channels.MOST
        if not all_single(dout, x, W) or few or seen_part(x.shape[2:], W.shape[2:], stride, pad):
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
        if W.shape[:2] == (groups, 1) and all_single(x, W, b):
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
        if W.shape[:2] == (groups, 1) and all_single(dout, x, W):
            return depthwise.backward(dout, x, W, stride, pad, dilation, need_dx)
        return super().grouped_convolution_backward(
            dout, x, W, stride, pad, dilation, groups, need_dx
        )

    def max_pooling(
        self, x: Array, size: Pair, stride: Pair, pad: Pair, train: bool = False
    ) -> tuple[Array, Any]:
        apart = size == stride and pad == (0, 0) and x.shape[1] >= LANES
        if not all_single(x) or not (apart or x.shape[1] % LANES == 0):  # NumPy is quicker
            return super().max_pooling(x, size, stride, pad, train)
        n, c, h, w = x.shape
        oh, ow = (output_size(*axis) for axis in zip((h, w), size, stride, pad, strict=True))
        image = _flat_images(x)
        y = pool.empty((n, oh, ow, c), np.float32)
        winners = pool.empty((y.size,), np.uint8 if size[0] * size[1] <= 256 else np.uint32)
        flat = y.reshape(-1)
        places = ((h, w, c), size, stride, pad, (oh, ow))
        share(cut(n, 4 * h * w * c), kernels.max_pool, image, *places, flat, winners)
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
        (n, c, h, w), counts = shape, dout.shape[2:]
        gradient, of = (
            _flat_images(a.astype(np.float32, copy=False))
            for a in (dout, dout[:0] if y is None else y)
        )
        dx, bounds = pool.empty((n, h, w, c), np.float32), cut(n, 4 * h * w * c)
        flat, sums = dx.reshape(-1), np.empty((len(bounds) - 1, c))
        places = ((h, w, c), size, stride, pad, counts)
        share(bounds, kernels.max_pool_backward, gradient, winners, of, *places, flat, sums)
        if total is not None:
            total[...] = sums.sum(axis=0)
        return dx.transpose(0, 3, 1, 2)

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
    if not each_element(kernels.adam, p, g, m, v, scalars=(scalars,), double=double):
        plain(p, g, m, v, rate, count)


def _flat_images(x: Array) -> Array:
    """Return x (N, C, H, W) as one row in the order N, H, W, C; a copy only if it must be."""
    return by_pixel(x).reshape(-1)


def _in_pixels(dout: Array) -> Array:
    """Return a gradient (N, C, H, W) in memory pixel by pixel, as what it will meet is."""
    return by_pixel(dout).transpose(0, 3, 1, 2)
