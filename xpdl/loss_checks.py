"""What a loss looks at: targets when data is handed over, batches where it is used alone."""

from __future__ import annotations

import math
from typing import Any

from xpdl import functions
from xpdl.arguments import check_finite, on_host, one_number, real_array, whole_number
from xpdl.backends import Array, Number, Shape, backend_of
from xpdl.errors import ArgumentError, NotReadyError, ShapeError
from xpdl.layers.checks import expect_floats
from xpdl.targets import ClassWeights, asked_for, class_axis


def ignored_number(ignored: Any) -> int | None:
    """Return the number of what is ignored, if it is an int, or None.

    Raises
    ------
    ArgumentError
        If it is neither.
    """
    return None if ignored is None else whole_number("ignored", ignored, -(2**31), 2**31)


def check_batch(loss: Any, x: Array, t: Array, weights: Array | None) -> None:
    """See that there is something in a batch of outputs, targets and weights, on one backend.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError
        If there is not; shapes of targets are each loss's own.
    """
    expect_floats(type(loss).__name__, x)
    if x.ndim < 2 or not math.prod(x.shape[1:]):
        raise ShapeError(f"outputs must be (N, K) or (N, ...), got x of shape {x.shape}.")
    if not len(x):
        raise ArgumentError(f"x is an empty batch, {x.shape}; the mean loss of none is undefined.")
    if weights is not None and real_array("weights", weights).shape != x.shape[:1]:
        raise ShapeError(
            f"weights must be ({len(x)},), a number for each sample of x, got {weights.shape}."
        )
    backend_of(x, real_array("t", t), weights)


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


def settled(class_weights: ClassWeights) -> tuple[float, ...]:
    """Return class weights, seen to be numbers.

    Raises
    ------
    NotReadyError
        If they are still to be balanced.
    """
    if not isinstance(class_weights, tuple):
        raise NotReadyError(
            'class_weights="balanced" is not settled yet: train, or call balance(t) with the '
            "training targets, once the network is built."
        )
    return class_weights


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


def class_targets(t: Array, shape: Shape, ignored: int | None) -> Array:
    """Return targets t of scores of a shape, seen to be class numbers or distributions.

    Values are looked at on the host only.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError, NonFiniteError
        If they are neither.
    """
    check_class_targets(real_array("t", t), shape, ignored)
    if on_host(t) and t.shape == shape:
        check_finite("t", t)
        functions.check_distributions(t, class_axis(shape))
    elif on_host(t):
        functions.check_labels(t, shape[class_axis(shape)], ignored)
    return t


def check_class_targets(t: Array, shape: Shape, ignored: int | None) -> None:
    """See that targets t are of the shape and type that scores of a shape want."""
    functions.check_targets(t, shape)
    if t.shape == shape and ignored is not None:
        raise ShapeError("ignored is a class number: give t as class numbers, not one-hot.")
