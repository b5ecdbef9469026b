"""The ranges that a search draws hyperparameters from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xpdl.arguments import number
from xpdl.errors import ArgumentError

_INFINITIES = (math.inf, -math.inf)


class Range:
    """Base of the ranges that a hyperparameter is drawn from."""

    def at(self, share: float) -> Any:
        """Return the value below which the part `share`, in [0, 1), of the range lies."""
        raise NotImplementedError

    def narrowed(self, best: Sequence[Any]) -> Range:
        """Return the part of this range to which the values `best`, two at least, point."""
        raise NotImplementedError

    def __contains__(self, value: object) -> bool:
        raise NotImplementedError

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        raise NotImplementedError


@dataclass(frozen=True)
class Uniform(Range):
    """Numbers from `low` to `high`, each as likely as the other."""

    low: float
    high: float

    def __post_init__(self) -> None:
        # As floats: NumPy's numbers could not be kept as JSON.
        object.__setattr__(self, "low", number("low", self.low, above=self._limit()))
        object.__setattr__(self, "high", number("high", self.high, above=self._limit()))
        if self.low > self.high:
            raise ArgumentError(f"low must be at most high, got {self.low:g} and {self.high:g}.")

    def _limit(self) -> float:
        return -math.inf

    def _place(self, value: float) -> float:
        """Return where a value is on the scale that is drawn from evenly."""
        return value

    def _value(self, place: float) -> float:
        return place

    def at(self, share: float) -> float:
        place = (1 - share) * self._place(self.low) + share * self._place(self.high)
        return min(max(self._value(place), self.low), self.high)  # whatever was rounded

    def narrowed(self, best: Sequence[float]) -> Range:
        """Return the range that k values span, widened on each side by 1/(k - 1) of it.

        For values drawn evenly from an interval that is the unbiased estimate of its ends: their
        own smallest and largest lie inside it. The result is within this range.
        """
        places = [self._place(value) for value in best]
        margin = (max(places) - min(places)) / (len(best) - 1)
        low = self._value(max(self._place(self.low), min(places) - margin))
        high = self._value(min(self._place(self.high), max(places) + margin))
        # A logarithm and back is not exact.
        low, high = min(low, *best), max(high, *best)
        return type(self)(max(low, self.low), min(high, self.high))

    def __contains__(self, value: object) -> bool:
        return isinstance(value, float) and self.low <= value <= self.high

    def as_dict(self) -> dict[str, Any]:
        return {"kind": type(self).__name__, "low": self.low, "high": self.high}

    def __str__(self) -> str:
        return f"{self.low:.3g} to {self.high:.3g}"


class LogUniform(Uniform):
    """Numbers from `low` above 0 to `high`, each power of ten as likely as the other."""

    def _limit(self) -> float:
        return 0.0

    def _place(self, value: float) -> float:
        return math.log(value)

    def _value(self, place: float) -> float:
        return math.exp(place)


@dataclass(frozen=True)
class Choice(Range):
    """One of a few values: numbers, texts, booleans or None."""

    choices: tuple[Any, ...]

    def __init__(self, choices: Iterable[Any]) -> None:
        listed = isinstance(choices, Iterable) and not isinstance(choices, str)
        given = tuple(choices) if listed else ()
        for i, choice in enumerate(given):
            simple = choice is None or isinstance(choice, str | int | float)
            if not simple or choice in given[:i] or choice != choice or choice in _INFINITIES:
                raise ArgumentError(
                    "choices must be different numbers, texts, booleans or None, "
                    f"got {choice!r} in {given!r}; let `make` turn a name into anything else."
                )
        if not given:
            raise ArgumentError(
                f"choices must be a list of one value at least, such as ['he'], got {choices!r}."
            )
        object.__setattr__(self, "choices", given)

    def at(self, share: float) -> Any:
        return self.choices[int(share * len(self.choices))]

    def narrowed(self, best: Sequence[Any]) -> Choice:
        """Return the choices that are among the values `best`."""
        return Choice(choice for choice in self.choices if choice in best)

    def __contains__(self, value: object) -> bool:
        return value in self.choices

    def as_dict(self) -> dict[str, Any]:
        return {"kind": "Choice", "choices": list(self.choices)}

    def __str__(self) -> str:
        return ", ".join(map(written, self.choices))


def checked_ranges(ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Return a copy of `ranges`, if they are names and ranges; else raise `ArgumentError`."""
    if not isinstance(ranges, Mapping) or not ranges:
        raise ArgumentError(f"ranges must map names to ranges, one at least, got {ranges!r}.")
    for name, choices in ranges.items():
        if not isinstance(name, str) or not isinstance(choices, Range):
            raise ArgumentError(
                f"ranges: {name!r} must be the name of a LogUniform, Uniform or Choice, "
                f"got {choices!r}."
            )
    return dict(ranges)


def ranges_as_dict(ranges: Mapping[str, Range]) -> dict[str, Any]:
    """Return ranges by name as JSON can hold them."""
    return {name: choices.as_dict() for name, choices in ranges.items()}


def written(value: object) -> str:
    """Return a drawn value as a line or a table has it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
