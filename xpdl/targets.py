"""Targets and what they count: their rows, checks at the door, weights of samples and classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from xpdl import functions
from xpdl.arguments import (
    check_finite,
    number,
    on_host,
    one_number,
    one_of,
    real_array,
    whole_number,
)
from xpdl.backends import Array, Backend, Number, Shape, backend_of
from xpdl.errors import ArgumentError, NotReadyError, ShapeError, shown

ClassWeights = tuple[float, ...] | str | None
"""A factor on each class, "balanced" for such as even them out, or None for 1."""

# ---- rows ---------------------------------------------------------------------------------------


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


# ---- checks at the door -------------------------------------------------------------------------


def check_batch(x: Array, t: Array, weights: Array | None) -> Backend:
    """Return the backend of a batch of outputs, targets and weights, if there is something in it.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError
        If there is not; shapes of targets are each loss's own.
    """
    if x.ndim < 2 or not math.prod(x.shape[1:]):
        raise ShapeError(f"outputs must be (N, K) or (N, ...), got x of shape {x.shape}.")
    if not len(x):
        raise ArgumentError(f"x is an empty batch, {x.shape}; the mean loss of none is undefined.")
    if weights is not None and real_array("weights", weights).shape != x.shape[:1]:
        raise ShapeError(
            f"weights must be ({len(x)},), a number for each sample of x, got {weights.shape}."
        )
    return backend_of(x, real_array("t", t), weights)


def check_weights(weights: Array, samples: int) -> None:
    """See that weights are a number for each sample; on the host, finite and at least 0.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError, NonFiniteError
        If they are not.
    """
    if real_array("weights", weights).shape != (samples,):
        raise ShapeError(
            f"weights must be ({samples},), a number a sample, got shape {weights.shape}."
        )
    check_finite("weights", weights)
    if on_host(weights) and (weights < 0).any():
        raise ArgumentError(f"weights must be at least 0, got {weights.min()}.")


def check_classes(shape: Shape, class_weights: ClassWeights) -> None:
    """See that scores, with their batch axis, tell classes apart, as many as have weights.

    Raises
    ------
    ShapeError
        If they do not.
    """
    if not 2 <= len(shape) <= 4:
        raise ShapeError(
            "SoftmaxWithLoss wants scores x (N, K), (N, T, K) or (N, K, H, W), got the shape "
            f"(N, {', '.join(map(str, shape[1:]))}); end with Affine or Flatten."
        )
    classes = shape[class_axis(shape)]
    if classes < 2:
        raise ShapeError(
            f"SoftmaxWithLoss tells classes apart and wants two scores x or more, not {classes}: "
            "its loss of one is 0 whatever it is. Use SigmoidWithLoss() for a yes or no, "
            "IdentityWithLoss() for a number, or an output for each class."
        )
    if isinstance(class_weights, tuple) and len(class_weights) != classes:
        raise ShapeError(
            f"class_weights must be {classes} numbers, one for each class, "
            f"got {len(class_weights)}."
        )


def check_shares(t: Array, ignored: int | None) -> None:
    """See that a host array t holds 0, 1, or probabilities between, or what is ignored.

    Raises
    ------
    ArgumentError
        If it does not; the message gives the first that is none.
    """
    wrong, asked = (t < 0) | (t > 1), asked_for(t, ignored)
    wrong = wrong if asked is None else wrong & asked
    if wrong.any():
        raise ArgumentError(
            f"t must be 0 or 1, or a probability between, got {t[wrong][0]}; class numbers "
            "want an output for each class and SoftmaxWithLoss()."
        )


def number_on(dout: Number, kept: Array) -> Number:
    """Return dout, a number as Python's or an array () on the backend of what forward kept.

    Raises
    ------
    ArgumentError, BackendMismatchError
        If it is neither.
    """
    dout = one_number("dout", dout)
    backend_of(dout, kept)
    return dout


# ---- what targets count -------------------------------------------------------------------------


def ignored_number(ignored: Any) -> int | None:
    """Return the number of what is ignored, if it is an int, or None.

    Raises
    ------
    ArgumentError
        If it is neither.
    """
    return None if ignored is None else whole_number("ignored", ignored, -(2**31), 2**31)


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


def read_class_weights(given: Any) -> ClassWeights:
    """Return class weights as a tuple, "balanced" or None.

    Raises
    ------
    ArgumentError
        If they are no numbers of at least 0, or all 0.
    """
    if given is None or isinstance(given, str):
        return None if given is None else one_of("class_weights", given, ("balanced",))
    if not isinstance(given, Sequence) and getattr(given, "ndim", 0) != 1:
        raise ArgumentError(
            f'class_weights must be "balanced" or a number for each class, got {shown(given)}.'
        )
    weights = tuple(number("class_weights", weight) for weight in given)
    if not any(weights):
        raise ArgumentError(f"class_weights must not all be 0, got {shown(given)}.")
    return weights


def balanced(t: Array, output_shape: Shape, ignored: int | None) -> tuple[float, ...]:
    """Return (all targets) / (K targets of class k) for each class; 0 for one that is ignored.

    Reads a number for each class from the device. King and Zeng 2001.

    Raises
    ------
    ArgumentError
        If a class has no target.
    """
    shape = (len(t), *output_shape)
    functions.check_targets(t, shape)
    rows = rows_of_scores(t) if t.shape == shape else None
    backend = backend_of(t)
    counts = {
        k: backend.item((t == k if rows is None else rows[:, k]).sum())
        for k in range(shape[class_axis(shape)])
        if k != ignored
    }
    if not all(counts.values()):
        lacking = min(counts, key=lambda k: counts[k])
        raise ArgumentError(
            f'class_weights="balanced" finds no target of class {lacking} to balance; give a '
            "number for each class instead."
        )
    even = sum(counts.values()) / len(counts)
    return tuple(even / counts[k] if k in counts else 0.0 for k in range(shape[class_axis(shape)]))


def class_factors(weights: ClassWeights, backend: Backend, dtype: Any) -> Array:
    """Return class weights (K,) on a device.

    Raises
    ------
    NotReadyError
        If they are still to be balanced.
    """
    if not isinstance(weights, tuple):
        raise NotReadyError(
            'class_weights="balanced" is not settled yet: train, or call balance(t) with the '
            "training targets, once the network is built."
        )
    return backend.asarray(weights, dtype)


def divisor(xp: Any, weight: Array) -> Array:
    """Return a sum of weights to divide by: 1 for 0, so that nothing counted gives 0."""
    found: Array = xp.where(weight > 0, weight, 1)
    return found
