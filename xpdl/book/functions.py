"""The book's ``common.functions``: stateless, of numbers, lists or NumPy arrays.

As NumPy has it, float32 gives float32, and Python's numbers and integers give float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xpdl.backends import Array

__all__ = [  # `np` as well: scripts that import all of this module count on it
    "cross_entropy_error",
    "identity_function",
    "np",
    "relu",
    "relu_grad",
    "sigmoid",
    "sigmoid_grad",
    "softmax",
    "softmax_loss",
    "step_function",
    "sum_squared_error",
]


def identity_function(x: Any) -> Any:
    """Return x."""
    return x


def step_function(x: Any) -> Array:
    """Return 1 where x > 0 and 0 elsewhere, as integers. Book, equation 3.3."""
    return np.array(np.asarray(x) > 0, dtype=int)


def sigmoid(x: Any) -> Any:
    """Return 1 / (1 + exp(-x)), without overflow at either end. Book, equation 3.6.

    For negative x it is computed as exp(x) / (1 + exp(x)), the same number.
    """
    x = _floats(x)
    e = np.exp(-np.abs(x))  # never above 1
    return np.where(x >= 0, 1, e)[()] / (1 + e)


def sigmoid_grad(x: Any) -> Any:
    """Return the derivative of the sigmoid at x: y (1 - y), y = sigmoid(x)."""
    y = sigmoid(x)
    return (1.0 - y) * y


def relu(x: Any) -> Any:
    """Return max(0, x). Book, equation 3.7."""
    return np.maximum(0, x)


def relu_grad(x: Array) -> Array:
    """Return the derivative of ReLU at x: 1 where x >= 0, as the book has it, 0 elsewhere."""
    grad = np.zeros_like(x)
    grad[x >= 0] = 1
    return grad


def softmax(x: Any) -> Any:
    """Return exp(x_k) / sum_i exp(x_i) along the last axis. Book, equations 3.10 and 3.11."""
    x = _floats(x)
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def sum_squared_error(y: Any, t: Any) -> Any:
    """Return half the sum of (y - t)^2 over all elements. Book, equation 4.1."""
    return 0.5 * np.sum((np.asarray(y) - t) ** 2)


def cross_entropy_error(y: Array, t: Any) -> Any:
    """Return -sum_k t_k log(y_k + 1e-7), averaged over a batch. Book, equations 4.2 and 4.3.

    Parameters
    ----------
    y : array, (K,) or (N, K)
        Probabilities of one sample or of N.
    t : array or int
        One-hot targets of as many numbers as y, or class numbers.
    """
    y = np.atleast_2d(y)
    return -np.sum(one_hot(t, y) * np.log(y + 1e-7)) / len(y)


def one_hot(t: Any, y: Array) -> Array:
    """Return targets for y (N, K) as rows of zeros with a one: those of N class numbers, or t."""
    t = np.asarray(t)
    if t.size == y.size:
        return t.reshape(y.shape)
    rows = np.zeros_like(y)
    rows[np.arange(len(y)), t.reshape(-1)] = 1
    return rows


def softmax_loss(X: Any, t: Any) -> Any:
    """Return the cross entropy of softmax(X), averaged over a batch."""
    return cross_entropy_error(softmax(X), t)


def _floats(x: Any) -> Array:
    """Return x, a number, a list or an array, as floats: of float64 unless it has some already."""
    x = np.asarray(x)
    return x if x.dtype.kind == "f" else x.astype(np.float64)
