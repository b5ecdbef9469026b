"""Initial values of weights, drawn on the host so that every device starts from the same numbers.

A normal or uniform distribution of zero mean whose standard deviation keeps the spread of the
activations from layer to layer (book, section 6.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, TypeAlias

import numpy as np

from xpdl.arguments import flag, number, random_numbers, sizes, whole_number
from xpdl.errors import ArgumentError, UnknownNameError, shown


@dataclass(frozen=True)
class Initializer:
    """A distribution of weights: normal, or uniform with the same standard deviation."""

    uniform: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "uniform", flag("uniform", self.uniform))

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
        shape, rng = _drawn(shape, rng)
        std = self.std(fan_in, fan_out)
        if self.uniform:
            limit = math.sqrt(3) * std  # of a uniform distribution with this deviation
            return rng.uniform(-limit, limit, shape)
        return std * rng.standard_normal(shape)


@dataclass(frozen=True)
class Normal(Initializer):
    """A given standard deviation, 0.01 in the book's first networks."""

    deviation: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "deviation", number("deviation", self.deviation))

    def std(self, fan_in: int, fan_out: int) -> float:
        _fans(fan_in, fan_out)
        return self.deviation


@dataclass(frozen=True)
class Xavier(Initializer):
    """sqrt(1 / fan_in), for sigmoid and tanh. Glorot and Bengio 2010, as the book simplifies it.

    With ``average=True``, the authors' own sqrt(2 / (fan_in + fan_out)).
    """

    average: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "average", flag("average", self.average))

    def std(self, fan_in: int, fan_out: int) -> float:
        _fans(fan_in, fan_out)
        return math.sqrt(2 / (fan_in + fan_out) if self.average else 1 / fan_in)


@dataclass(frozen=True)
class He(Initializer):
    """sqrt(2 / fan_in), for ReLU. He et al. 2015."""

    def std(self, fan_in: int, fan_out: int) -> float:
        _fans(fan_in, fan_out)
        return math.sqrt(2 / fan_in)


@dataclass(frozen=True)
class Constant(Initializer):
    """One value everywhere, for biases and the parameters of normalisation."""

    value: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "value", number("value", self.value, above=-math.inf))

    def draw(
        self, shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator
    ) -> np.ndarray[Any, np.dtype[np.float64]]:
        _fans(fan_in, fan_out)
        shape, _ = _drawn(shape, rng)
        return np.full(shape, self.value, np.float64)


def _fans(fan_in: int, fan_out: int) -> None:
    whole_number("fan_in", fan_in), whole_number("fan_out", fan_out)


def _drawn(
    shape: tuple[int, ...], rng: np.random.Generator
) -> tuple[tuple[int, ...], np.random.Generator]:
    """Return the shape of what is drawn, and what draws it, once they are seen to be such."""
    return sizes("shape", shape), random_numbers("rng", rng)


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
            "weight_init must be a name, a standard deviation or an Initializer, "
            f"got {shown(choice)}."
        )
    try:
        return Normal(deviation=number("weight_init", choice))
    except ArgumentError as error:
        raise ArgumentError(
            f"weight_init must be a standard deviation >= 0, got {shown(choice)}."
        ) from error
