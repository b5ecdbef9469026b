"""Targets and what they count: their rows, and the weights of samples and classes."""

from __future__ import annotations

from typing import Any

from xpdl.backends import Array, Shape, backend_of
from xpdl.errors import ShapeError

ClassWeights = tuple[float, ...] | str | None
"""A factor on each class, "balanced" for such as even them out, or None for 1."""


def class_axis(shape: Shape) -> int:
    """Return along which axis of scores, (N, K), (N, T, K) or (N, K, H, W), the classes lie."""
    return 2 if len(shape) == 3 else 1


def rows_of_scores(x: Array) -> Array:
    """Return scores (N, K), (N, T, K) or (N, K, H, W) as rows (M, K), one for each answer."""
    if x.ndim == 2:
        return x
    return (x.transpose(0, 2, 3, 1) if x.ndim == 4 else x).reshape(-1, x.shape[class_axis(x.shape)])


def scores_of_rows(rows: Array, shape: Shape) -> Array:
    """Return rows (M, K) as scores of a shape, the other way round."""
    if len(shape) < 4:
        return rows.reshape(shape)
    n, k, h, w = shape
    return rows.reshape(n, h, w, k).transpose(0, 3, 1, 2)


def rows_of_targets(t: Array, x: Array) -> Array:
    """Return targets of scores x as class numbers (M,) or distributions (M, K)."""
    return rows_of_scores(t) if t.ndim == x.ndim else t if t.ndim == 1 else t.reshape(-1)


def like_outputs(t: Array, shape: Shape) -> Array:
    """Return targets in the shape of the outputs: for one output, (N,) as (N, 1).

    Raises
    ------
    ShapeError
        If they have another shape.
    """
    if t.shape == shape[:1] and shape[1:] == (1,):
        return t.reshape(shape)
    if t.shape != shape:
        also = f" or {shape[:1]}" if shape[1:] == (1,) else ""
        raise ShapeError(f"t must have the shape of the outputs, {shape}{also}; got {t.shape}.")
    return t


def asked_for(t: Array, ignored: int | None) -> Array | None:
    """Return where targets are not `ignored`, bool; None where none can be, in their type."""
    if ignored is None:
        return None
    if t.dtype.kind in "iu":
        limits = backend_of(t).xp.iinfo(t.dtype)
        if not limits.min <= ignored <= limits.max:
            return None
    asked: Array = t != ignored
    return asked


def divisor(xp: Any, weight: Array) -> Array:
    """Return a sum of weights to divide by: 1 for 0, so that nothing counted gives 0."""
    found: Array = xp.where(weight > 0, weight, 1)
    return found
