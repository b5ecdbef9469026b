"""How the learning rate changes during training, as a factor on the optimizer's own rate.

A schedule is called with the position in the training, in epochs (2.5 is the middle of the third)
and the number of epochs in all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from xpdl.arguments import number
from xpdl.errors import ArgumentError, UnknownNameError, shown

Schedule: TypeAlias = Callable[[float, float], float]


@dataclass(frozen=True)
class Constant:
    """The same rate from first to last, as in the book."""

    def __call__(self, epoch: float, epochs: float) -> float:
        _share(epoch, epochs)
        return 1.0


@dataclass(frozen=True)
class Step:
    """The rate is multiplied by `factor` after every `every` epochs."""

    every: float = 10.0
    factor: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "every", number("every", self.every, above=0))
        object.__setattr__(self, "factor", number("factor", self.factor, above=0))

    def __call__(self, epoch: float, epochs: float) -> float:
        _share(epoch, epochs)
        return _power(self.factor, math.floor(min(float(epoch) / self.every, 1e9)))


@dataclass(frozen=True)
class Exponential:
    """The rate falls evenly on a logarithmic scale, to `final` of itself at the end."""

    final: float = 0.01

    def __post_init__(self) -> None:
        object.__setattr__(self, "final", number("final", self.final, above=0))

    def __call__(self, epoch: float, epochs: float) -> float:
        return _power(self.final, _share(epoch, epochs))


@dataclass(frozen=True)
class Cosine:
    """Half a cosine wave, from 1 to `final`. Loshchilov and Hutter 2017, without restarts."""

    final: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "final", number("final", self.final))

    def __call__(self, epoch: float, epochs: float) -> float:
        return _cosine(1.0, self.final, _share(epoch, epochs))


@dataclass(frozen=True)
class OneCycle:
    """Up from `start` to 1 in the first `warm_up` of the training, then down to `final`.

    Both ways along half a cosine wave. Smith and Topin 2018 (arXiv:1708.07120).
    """

    warm_up: float = 0.25
    start: float = 0.04
    final: float = 0.0

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "warm_up", number("warm_up", self.warm_up, above=0, below=1))
        except ArgumentError as error:
            raise ArgumentError(
                f"warm_up is a share of the training, between 0 and 1; got {shown(self.warm_up)}."
            ) from error
        object.__setattr__(self, "start", number("start", self.start))
        object.__setattr__(self, "final", number("final", self.final))

    def __call__(self, epoch: float, epochs: float) -> float:
        position = _share(epoch, epochs)
        if position < self.warm_up:
            return _cosine(self.start, 1.0, position / self.warm_up)
        return _cosine(1.0, self.final, (position - self.warm_up) / (1 - self.warm_up))


@dataclass(frozen=True)
class WarmUp:
    """Rise evenly from `start` of `schedule` over the first `epochs` epochs, then follow it.

    The schedule begins where the rise ends, and has the rest of the training: all of it is seen.
    Goyal et al. 2017 (arXiv:1706.02677), section 2.2.
    """

    schedule: Schedule = Constant()
    epochs: float = 1.0
    start: float = 0.04

    def __post_init__(self) -> None:
        object.__setattr__(self, "epochs", number("epochs", self.epochs, above=0))
        object.__setattr__(self, "start", number("start", self.start))
        if isinstance(self.schedule, type) or not callable(self.schedule):
            raise ArgumentError(
                f"schedule must be one such as Cosine(), got {shown(self.schedule)}."
            )

    def __call__(self, epoch: float, epochs: float) -> float:
        _share(epoch, epochs)
        if epoch < self.epochs or epochs <= self.epochs:
            rise = self.start + (1 - self.start) * min(1.0, epoch / self.epochs)
            return rise * self.schedule(0, epochs)
        return self.schedule(epoch - self.epochs, epochs - self.epochs)


BY_NAME: dict[str, Callable[[], Schedule]] = {
    "constant": Constant,
    "step": Step,
    "exponential": Exponential,
    "cosine": Cosine,
    "one-cycle": OneCycle,
}


def get_schedule(choice: str | Schedule | None) -> Schedule:
    """Return the schedule of a name, or a schedule itself; None is constant."""
    if choice is None:
        return Constant()
    if isinstance(choice, str):
        if choice not in BY_NAME:
            raise UnknownNameError("schedule", choice, BY_NAME)
        return BY_NAME[choice]()
    if isinstance(choice, type) or not callable(choice):
        raise ArgumentError(
            f"schedule must be a name or callable, got {shown(choice)}"
            f"{' (give an instance)' if isinstance(choice, type) else ''}."
        )
    return choice


def keeps_its_pace(schedule: Schedule) -> bool:
    """Tell whether `schedule` is the same for a training of another length, as far as both go."""
    return isinstance(schedule, Constant | Step)


def with_warm_up(schedule: Schedule, share: float, epochs: float) -> Schedule:
    """Return `schedule` with a rise over the first `share`, above 0 and below 1, of the training.

    `OneCycle` has one of its own, whose length this is then; others become a `WarmUp`.

    Raises
    ------
    ArgumentError
        If `share` is not between 0 and 1.
    """
    share, epochs = number("warm_up", share, above=0, below=1), number("epochs", epochs, above=0)
    schedule = get_schedule(schedule)
    if isinstance(schedule, OneCycle):
        return replace(schedule, warm_up=share)
    return WarmUp(schedule, share * epochs)


def _share(epoch: float, epochs: float) -> float:
    """Return the part of the training that is over."""
    share = number("epoch", epoch) / number("epochs", epochs, above=0)
    return number("epoch / epochs", share)


def _power(base: float, exponent: float) -> float:
    """Return base^exponent; where no float is as large, infinity."""
    try:
        return float(base) ** exponent
    except OverflowError:
        return math.inf


def _cosine(begin: float, end: float, position: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * position)) / 2
