"""Which float type holds the parameters, which computes, and which sums."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpdl.backends import Array, Backend
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
        named = isinstance(choice, str | type | np.dtype)  # but not what NumPy makes a type of
        raise UnknownNameError(kind, name if named else choice, PRECISIONS)
    return PRECISIONS[name]


class LossScale:
    """A factor on the loss that keeps small half-precision gradients from vanishing.

    It doubles after `patience` good steps and halves after one whose gradients are not finite,
    which is skipped. It lives on the device with the gradients, so that no step waits for the
    host. Micikevicius et al. 2018 (arXiv:1710.03740); see `Backend.adjust_loss_scale`.

    Parameters
    ----------
    backend : Backend
        Where the gradients are.
    value : float
        The factor to begin with.
    patience : int
        How many good steps in a row before it doubles.
    """

    growth, largest = 2.0, 2.0**24
    _names = ("value", "good_steps", "bad_steps", "skipped")
    most_bad_steps = 50  # in a row: no factor will help then

    def __init__(self, backend: Backend, value: float = 2.0**15, patience: int = 1000) -> None:
        self.patience = patience
        self._backend = backend
        self._state = backend.asarray([value, 0.0, 0.0, 0.0], "float32")

    @property
    def value(self) -> Array:
        """The factor, (), on the device."""
        return self._state[0]

    def unscale(self, gradients: Array) -> Array:
        """Take the factor out of `gradients`, in place; return whether they are finite, () bool."""
        return self._backend.unscale(gradients, self.value)

    def update(self, go: Array) -> None:
        """Adapt to whether a step's gradients were finite."""
        self._backend.adjust_loss_scale(self._state, go, self.patience, self.growth, self.largest)

    def state(self) -> dict[str, float]:
        """Return the factor and its counters, from the device."""
        numbers = self._backend.to_numpy(self._state).tolist()
        return dict(zip(self._names, numbers, strict=True))

    def read(self) -> dict[str, float]:
        """Return what `state` does, if the training goes on.

        Raises
        ------
        DivergenceError
            If too many steps in a row were skipped.
        """
        state = self.state()
        if state["bad_steps"] >= self.most_bad_steps:
            raise DivergenceError(
                f"the gradients were not finite for {state['bad_steps']:.0f} steps in a row, "
                f"whatever the loss scale (now {state['value']:g}), so no step was made; "
                "train with a lower learning rate, gradient clipping or in float32."
            )
        return state

    def restore(self, state: Mapping[str, float]) -> None:
        """Go on from what `read` returned."""
        numbers = [float(state[name]) for name in self._names]
        self._state[...] = self._backend.asarray(numbers, "float32")
