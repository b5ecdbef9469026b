"""Weights of classes, as they are given, or such as even the classes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xpdl import functions
from xpdl.arguments import number, one_of
from xpdl.backends import Array, Shape, backend_of
from xpdl.errors import ArgumentError, shown
from xpdl.targets import ClassWeights, class_axis, rows_of_scores


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
