"""Which float type holds the parameters, which computes, and which sums."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpdl.errors import DivergenceError, UnknownNameError


@dataclass(frozen=True)
class Precision:
    """A float policy.

    Parameters
    ----------
    name : str
        The policy's name, that of its compute type.
    parameters : dtype
        Of the parameters that the optimizer updates, and of its state.
    compute : dtype
        Of activations and of the copy of the parameters that layers use.
    accumulate : dtype
        Of gradients of parameters, of sums, statistics and losses.
    """

    name: str
    parameters: np.dtype[Any]
    compute: np.dtype[Any]
    accumulate: np.dtype[Any]

    @property
    def mixed(self) -> bool:
        """Whether layers use a copy of the parameters in another type than the optimizer's."""
        return self.parameters != self.compute


def _policy(name: str, parameters: str, accumulate: str) -> Precision:
    return Precision(name, np.dtype(parameters), np.dtype(name), np.dtype(accumulate))


PRECISIONS = {
    "float32": _policy("float32", "float32", "float32"),
    "float16": _policy("float16", "float32", "float32"),
    "float64": _policy("float64", "float64", "float64"),
}


def get_precision(choice: Any = None) -> Precision:
    """Return the policy for a name, a dtype, a `Precision`, or None for ``XPDL_DTYPE``.

    Raises
    ------
    UnknownNameError
        If there is no such policy; the default of ``XPDL_DTYPE`` is ``float32``.
    """
    if isinstance(choice, Precision):
        return choice
    kind = "dtype"
    if choice is None:
        choice, kind = os.environ.get("XPDL_DTYPE") or "float32", "dtype in XPDL_DTYPE,"
    try:
        name = choice if isinstance(choice, str) else np.dtype(choice).name
    except TypeError:
        name = repr(choice)
    if name not in PRECISIONS:
        raise UnknownNameError(kind, name, PRECISIONS)
    return PRECISIONS[name]


class LossScale:
    """A factor on the loss that keeps small half-precision gradients from vanishing.

    It doubles after `patience` good steps and halves after one whose gradients are not finite,
    which is skipped. Micikevicius et al. 2018 (arXiv:1710.03740).

    Parameters
    ----------
    value : float
        The factor to begin with.
    patience : int
        How many good steps in a row before it doubles.
    """

    def __init__(self, value: float = 2.0**15, patience: int = 1000) -> None:
        self.value = value
        self.patience = patience
        self.good_steps = 0
        self.bad_steps = 0
        self.skipped = 0

    def update(self, finite: bool) -> None:
        """Adapt to whether a step's gradients were finite.

        Raises
        ------
        DivergenceError
            If 50 steps in a row were not: no factor will help then.
        """
        if finite:
            self.bad_steps = 0
            self.good_steps += 1
            if self.good_steps >= self.patience:
                self.value, self.good_steps = min(self.value * 2, 2.0**24), 0
            return
        self.good_steps = 0
        self.bad_steps += 1
        self.skipped += 1
        self.value /= 2
        if self.bad_steps >= 50:
            raise DivergenceError(
                "the gradients were not finite for 50 steps in a row, whatever the loss scale; "
                "train with a lower learning rate or in float32."
            )
