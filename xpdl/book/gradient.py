"""The book's ``common.gradient``: derivatives by central differences."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from xpdl.backends import Array

__all__ = ["np", "numerical_gradient", "numerical_gradient_2d"]

H = 1e-4


def numerical_gradient(f: Callable[[Array], Any], x: Array) -> Array:
    """Return df/dx of an array of any shape, element by element. Book, section 4.4.

    df/dx_i = (f(x + h e_i) - f(x - h e_i)) / (2 h), h = 1e-4

    The elements of x itself are changed one at a time and put back, so f may look at x, or at the
    parameters of a network that x is one of.
    """
    if x.dtype.kind != "f":
        warnings.warn(
            f"x holds {x.dtype}, which cannot hold x + {H}, so this is no gradient: write "
            "np.array([3.0, 4.0]), not np.array([3, 4]).",
            stacklevel=2,
        )
    grad = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        value = x[index].copy()
        try:
            x[index] = float(value) + H
            above = f(x)
            x[index] = float(value) - H
            below = f(x)
        finally:
            x[index] = value
        grad[index] = (above - below) / (2 * H)
    return grad


def numerical_gradient_2d(f: Callable[[Array], Any], X: Array) -> Array:
    """Return the gradient of f at each row of X (N, K), or at the one point X (K,)."""
    if X.ndim == 1:
        return numerical_gradient(f, X)
    return np.array([numerical_gradient(f, x) for x in X]).astype(X.dtype).reshape(X.shape)
