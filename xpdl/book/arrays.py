"""The book's ``common.util``: windows of images as rows and back, shuffled data, smooth curves."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpdl.backends import Array, get_backend, output_size

__all__ = ["col2im", "conv_output_size", "im2col", "np", "shuffle_dataset", "smooth_curve"]

SPAN = 11  # points that a smooth curve is averaged over


def smooth_curve(x: Any) -> Array:
    """Return the curve x (N,), averaged over 11 points by a Kaiser window with beta 2; (N,).

    Beyond its ends the curve goes on mirrored.
    """
    weights = np.kaiser(SPAN, 2)
    half = SPAN // 2
    curve = np.asarray(x, dtype=np.float64)
    curve = np.pad(np.pad(curve, (half, 0), "reflect"), (0, half), "symmetric")
    return np.convolve(weights / weights.sum(), curve, mode="valid")


def shuffle_dataset(x: Array, t: Array) -> tuple[Array, Array]:
    """Return x (N, ...) and t (N, ...) in one order drawn from `np.random.permutation`."""
    order = np.random.permutation(len(x))
    return x[order], t[order]


def conv_output_size(input_size: int, filter_size: int, stride: int = 1, pad: int = 0) -> float:
    """Return (input_size + 2 pad - filter_size) / stride + 1. Book, equation 7.1."""
    return (input_size + 2 * pad - filter_size) / stride + 1


def im2col(input_data: Array, filter_h: int, filter_w: int, stride: int = 1, pad: int = 0) -> Array:
    """Lay each window of images (N, C, H, W) out as a row: (N*OH*OW, C*filter_h*filter_w).

    Floats keep their type, and integers become float64. Book, section 7.4.3.
    """
    if input_data.dtype.kind != "f":
        input_data = input_data.astype(np.float64)
    backend = get_backend()
    images = backend.asarray(input_data)
    col = backend.im2col(images, (filter_h, filter_w), (stride, stride), (pad, pad))
    return backend.to_numpy(col)


def col2im(
    col: Array,
    input_shape: tuple[int, int, int, int],
    filter_h: int,
    filter_w: int,
    stride: int = 1,
    pad: int = 0,
) -> Array:
    """Add the rows that `im2col` made back into images of `input_shape` (N, C, H, W)."""
    n, c, h, w = input_shape
    oh, ow = output_size(h, filter_h, stride, pad), output_size(w, filter_w, stride, pad)
    if col.size != n * oh * ow * c * filter_h * filter_w:
        raise ValueError(
            f"col must be {(n * oh * ow, c * filter_h * filter_w)} for images of shape "
            f"{tuple(input_shape)}, got {col.shape}."
        )
    backend = get_backend()
    rows = backend.asarray(col if col.dtype.kind == "f" else col.astype(np.float64))
    size, steps, pads = (filter_h, filter_w), (stride, stride), (pad, pad)
    return backend.to_numpy(backend.col2im(rows, tuple(input_shape), size, steps, pads))
