"""Normalisation and activations on the backend ``numba``: loops over lines, or over all numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from xpdl.backends.base.types import Array
from xpdl.backends.numba import kernels, response
from xpdl.backends.numba.sharing import cut, share
from xpdl.backends.numpy.backend import NumpyBackend
from xpdl.backends.numpy.elements import by_feature, lies_in_pixels, pixel_lines
from xpdl.backends.numpy.memory import pool

FEW_BYTES = 128 * 1024
"""Of so little, NumPy is done before the lines are laid out that normalisation wants."""


class NumbaElements(NumpyBackend):
    """Normalisation and activations."""

    name = "numba"

    def moments(self, x: Array) -> tuple[Array, Array]:
        if not _in_lines(x):
            return super().moments(x)
        (flat, width), c = _flat_lines(x), x.shape[1]
        pivot = np.tile(flat[:c].astype(np.float64), width // c)
        bounds = cut(len(flat) // width, 8 * width)  # as many bytes as it makes of them
        sums, squares = np.empty((2, len(bounds) - 1, width))
        share(bounds, kernels.sum_moments, flat, pivot, sums, squares)
        mean, square = (by_feature(a, c) / (len(flat) // c) for a in (sums, squares))
        variance = np.maximum(square - mean * mean, 0)
        return (pivot[:c] + mean).astype(np.float32), variance.astype(np.float32)

    def normalize(self, x: Array, mean: Array, factor: Array, shift: Array) -> Array:
        if not (_in_lines(x) and all_single(mean, factor, shift)):
            return super().normalize(x, mean, factor, shift)
        y = pool.empty_like(x)
        (flat, width), (flat_y, _) = _flat_lines(x), _flat_lines(y)
        mean, factor, shift = (np.tile(a, width // len(a)) for a in (mean, factor, shift))
        bounds = cut(len(flat) // width, 2 * 4 * width)
        share(bounds, kernels.normalize, flat, mean, factor, shift, flat_y)
        return y

    def normalize_backward(
        self, dout: Array, x: Array, mean: Array, inverse_std: Array, gamma: Array
    ) -> tuple[Array, Array, Array]:
        if not (_in_lines(x, dout) and all_single(mean, inverse_std, gamma)):
            return super().normalize_backward(dout, x, mean, inverse_std, gamma)
        (flat, width), (gradient, _), c = _flat_lines(x), _flat_lines(dout), len(mean)
        means, factors = (np.tile(a, width // c) for a in (mean, inverse_std * gamma))
        bounds = cut(len(flat) // width, 2 * 4 * width)
        sums, products = np.empty((2, len(bounds) - 1, width))
        share(bounds, kernels.sum_gradients, gradient, flat, means, sums, products)
        dbeta, dgamma = by_feature(sums, c), by_feature(products, c) * inverse_std
        level, slope = (
            np.tile((a / (len(flat) // c)).astype(np.float32), width // c)
            for a in (dbeta, dgamma * inverse_std)
        )
        dx = pool.empty_like(dout)
        flat_dx, _ = _flat_lines(dx)
        numbers = (gradient, flat, means, factors, level, slope, flat_dx)
        share(bounds, kernels.normalize_backward, *numbers)
        return dx, dgamma.astype(np.float32), dbeta.astype(np.float32)

    def normalize_response(
        self, x: Array, size: int, bias: float, alpha: float, beta: float
    ) -> tuple[Array, Array]:
        if not (all_single(x) and lies_in_pixels(x)):
            return super().normalize_response(x, size, bias, alpha, beta)
        return response.normalize(x, size, bias, alpha, beta)

    def normalize_response_backward(
        self, dout: Array, x: Array, s: Array, size: int, alpha: float, beta: float
    ) -> Array:
        if not (all_single(dout, x, s) and lies_in_pixels(dout, x, s)):
            return super().normalize_response_backward(dout, x, s, size, alpha, beta)
        return response.backward(dout, x, s, size, alpha, beta)

    def relu(self, x: Array) -> Array:
        y = pool.empty_like(x)
        return y if each_element(kernels.relu, x, y) else super().relu(x)

    def relu_backward(self, dout: Array, y: Array, total: Array | None = None) -> Array:
        dx = pool.empty_like(dout)
        if not each_element(kernels.relu_backward, dout, y, dx):
            return super().relu_backward(dout, y, total)
        if total is not None:
            self.sum(dx, axis=(0, *range(2, dx.ndim)), out=total)
        return dx

    def relu6(self, x: Array) -> Array:
        y = pool.empty_like(x)
        return y if each_element(kernels.relu6, x, y) else super().relu6(x)

    def relu6_backward(self, dout: Array, y: Array) -> Array:
        dx = pool.empty_like(dout)
        if each_element(kernels.relu6_backward, dout, y, dx):
            return dx
        return super().relu6_backward(dout, y)


def all_single(*arrays: Array | None) -> bool:
    """Tell whether arrays, those that there are, are of single precision."""
    return all(a is None or a.dtype == np.float32 for a in arrays)


def _in_lines(*arrays: Array) -> bool:
    """Tell whether arrays are to be normalised here: alike, single, large, and pixel by pixel."""
    alike = len({a.shape for a in arrays}) == 1 and all_single(*arrays)
    return alike and arrays[0].nbytes >= FEW_BYTES and lies_in_pixels(*arrays)


def _flat_lines(x: Array) -> tuple[Array, int]:
    """Return x as `pixel_lines` does, but in one row, and how long a line is."""
    lines = pixel_lines(x)
    return (lines if lines.flags.writeable else lines.copy()).reshape(-1), lines.shape[1]


def each_element(
    kernel: Callable[..., int],
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
    share(cut(len(flat[0]), arrays[0].itemsize * len(flat)), kernel, *flat, *scalars)
    return True
