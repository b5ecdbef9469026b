"""Initial values of weights, drawn on the host so that every device starts from the same numbers.

A normal or uniform distribution of zero mean whose standard deviation keeps the spread of the
activations from layer to layer (book, section 6.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeAlias

import numpy as np

from xpdl.errors import ArgumentError, UnknownNameError


@dataclass(frozen=True)
class Initializer:
    """A distribution of weights: normal, or uniform with the same standard deviation."""

    uniform: bool = False

    def std(self, fan_in: int, fan_out: int) -> float:
        """Return the standard deviation for a layer of `fan_in` inputs and `fan_out` outputs."""
        raise NotImplementedError

    def draw(
        self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator
    ) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return `shape` numbers, float64, on the host.

        Parameters
        ----------
        fan_in, fan_out : int
            How many inputs one output sees, and how many outputs one input feeds.
        """
        std = self.std(fan_in, fan_out)
        if self.uniform:
            limit = math.sqrt(3) * std  # of a uniform distribution with this deviation
            return rng.uniform(-limit, limit, shape)
        return std * rng.standard_normal(shape)


@dataclass(frozen=True)
class Normal(Initializer):
    """A given standard deviation, 0.01 in the book's first networks."""

    deviation: float = 0.01

    def std(self, fan_in: int, fan_out: int) -> float:
        return self.deviation


@dataclass(frozen=True)
class Xavier(Initializer):
    """sqrt(1 / fan_in), for sigmoid and tanh. Glorot and Bengio 2010, as the book simplifies it.

    With ``average=True``, the authors' own sqrt(2 / (fan_in + fan_out)).
    """

    average: bool = False

    def std(self, fan_in: int, fan_out: int) -> float:
        return math.sqrt(2 / (fan_in + fan_out) if self.average else 1 / fan_in)


@dataclass(frozen=True)
class He(Initializer):
    """sqrt(2 / fan_in), for ReLU. He et al. 2015."""

    def std(self, fan_in: int, fan_out: int) -> float:
        return math.sqrt(2 / fan_in)


@dataclass(frozen=True)
class Constant(Initializer):
    """One value everywhere, for biases and the parameters of normalisation."""

    value: float = 0.0

    def draw(
        self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator
    ) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.full(shape, self.value)


WeightInit: TypeAlias = str | float | Initializer

BY_NAME: dict[str, Initializer] = {
    "he": He(),
    "relu": He(),
    "xavier": Xavier(),
    "sigmoid": Xavier(),
    "he-uniform": He(uniform=True),
    "xavier-uniform": Xavier(uniform=True),
    "glorot": Xavier(average=True),
    "glorot-uniform": Xavier(average=True, uniform=True),
}


def get_initializer(choice: WeightInit) -> Initializer:
    """Return the initializer for a name (``"he"``, or the book's ``"relu"``), a standard deviation
    or an initializer.

    Raises
    ------
    UnknownNameError
        If there is none of that name.
    ArgumentError
        If a standard deviation is negative or not finite.
    """  # noqa: D205
    if isinstance(choice, Initializer):
        return choice
    if isinstance(choice, str):
        if choice.lower() not in BY_NAME:
            raise UnknownNameError("weight initialisation", choice, BY_NAME)
        return BY_NAME[choice.lower()]
    if isinstance(choice, bool) or not isinstance(choice, Real):
        raise ArgumentError(
            f"weight_init must be a name, a standard deviation or an Initializer, got {choice!r}."
        )
    if not (math.isfinite(choice) and choice >= 0):
        raise ArgumentError(f"weight_init must be a standard deviation >= 0, got {choice!r}.")
    return Normal(deviation=float(choice))
