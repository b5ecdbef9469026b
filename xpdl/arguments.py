"""Checks of arguments: each error names the argument, what it got and what it wants."""

from __future__ import annotations

import math
from numbers import Integral, Real

import numpy as np

from xpdl.errors import ArgumentError, NonFiniteError


def whole_number(argument: str, value: object, least: int = 1) -> int:
    """Return `value` as an int of at least `least`; NumPy's integers will do.

    Raises
    ------
    ArgumentError
        If it is none.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ArgumentError(f"{argument} must be an int of at least {least}, got {value!r}.")
    return int(value)


def number(
    argument: str,
    value: object,
    *,
    least: float = 0.0,
    above: float | None = None,
    below: float = math.inf,
) -> float:
    """Return `value` as a float in [least, below), or in (above, below) if `above` is given.

    Raises
    ------
    ArgumentError
        If it is no number, or not in that range.
    """
    wanted = f"of at least {least:g}" if above is None else f"above {above:g}"
    if below < math.inf:
        wanted += f" and below {below:g}"
    if isinstance(value, Real) and not isinstance(value, bool):
        found = float(value)
        if (found >= least if above is None else found > above) and found < below:
            return found
    raise ArgumentError(f"{argument} must be a number {wanted}, got {value!r}.")


def check_finite(argument: str, a: object) -> None:
    """See that the host array a (N, ...) is finite; arrays of a device are taken on trust.

    Raises
    ------
    NonFiniteError
        If it is not; the message gives the first example that holds NaN or infinity.
    """
    if not isinstance(a, np.ndarray) or a.dtype.kind != "f":
        return
    # In parts, so that the check needs no second copy of the data.
    for start in range(0, len(a), 1000):
        part = a[start : start + 1000]
        bad = np.flatnonzero(~np.isfinite(part).reshape(len(part), -1).all(axis=1))
        if len(bad):
            raise NonFiniteError(
                f"{argument} holds NaN or infinity, first in example {start + bad[0]}; "
                "clean it first."
            )
