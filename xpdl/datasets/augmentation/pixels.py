"""Random changes of the pixels' values: brightness, noise, what covers a part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xpdl.arguments import number
from xpdl.backends import Array, Pair, RandomGenerator, Shape, array_module
from xpdl.datasets.augmentation.base import Augmentation
from xpdl.datasets.augmentation.draws import draw_normal, draw_uniform, draw_whole, happens
from xpdl.datasets.augmentation.settings import (
    Spread,
    bounds,
    check_probability,
    check_size,
    check_spread,
    finite,
    free_room,
    pair,
)


@dataclass(frozen=True)
class Brightness(Augmentation):
    """Make brighter or darker: y = factor x, with a factor drawn from `amount`.

    0.2 means from 0.8 to 1.2. Black ground, 0, stays black; nothing is cut off at 1.
    """

    amount: Spread

    def __post_init__(self) -> None:
        self._set(amount=check_spread("amount", self.amount, usual=1.0, above=0.0))

    def change(self, x: Array, generator: RandomGenerator) -> Array:
        factor = draw_uniform(x, generator, *bounds(self.amount, usual=1.0))
        return (x * factor[:, None, None, None]).astype(x.dtype, copy=False)


@dataclass(frozen=True)
class Noise(Augmentation):
    """Add normal numbers z, one for each pixel and channel: y = x + std z.

    Nothing is cut off at 0 or 1.
    """

    std: float

    def __post_init__(self) -> None:
        self._set(std=number("std", self.std))

    def change(self, x: Array, generator: RandomGenerator) -> Array:
        return (x + self.std * draw_normal(x, generator)).astype(x.dtype, copy=False)


@dataclass(frozen=True)
class Erase(Augmentation):
    """Cover a rectangle somewhere in the picture. Zhong et al. 2017 (arXiv:1708.04896).

    All places where it fits are equally likely.

    Parameters
    ----------
    size : int or (int, int)
        Its height and width.
    probability : float
        How likely a picture has one.
    fill : float
        What covers it.
    """

    size: int | Pair
    probability: float = 1.0
    fill: float = 0.0

    def __post_init__(self) -> None:
        probability, fill = check_probability(self.probability), finite("fill", self.fill)
        self._set(size=check_size(self.size), probability=probability, fill=fill)

    def check(self, shape: Shape) -> None:
        super().check(shape)
        free_room(pair(self.size), shape[1:])

    def change(self, x: Array, generator: RandomGenerator) -> Array:
        window = pair(self.size)
        covered = happens(x, generator, self.probability)
        corner = [draw_whole(x, generator, 0, free) for free in free_room(window, x.shape[2:])]
        return _cover(x, covered, corner, window, self.fill)


@dataclass(frozen=True)
class Cutout(Augmentation):
    """Cover a rectangle about any pixel. DeVries and Taylor 2017 (arXiv:1708.04552).

    Unlike `Erase`, it may reach beyond the picture's edges, and so cover less.

    Parameters
    ----------
    size : int or (int, int)
        Its height and width: 16 for CIFAR-10's pictures of 32 x 32.
    probability : float
        How likely a picture has one.
    fill : float
        What covers it.
    """

    size: int | Pair
    probability: float = 1.0
    fill: float = 0.0

    def __post_init__(self) -> None:
        probability, fill = check_probability(self.probability), finite("fill", self.fill)
        self._set(size=check_size(self.size), probability=probability, fill=fill)

    def change(self, x: Array, generator: RandomGenerator) -> Array:
        window = pair(self.size)
        covered = happens(x, generator, self.probability)
        corner = [
            draw_whole(x, generator, 0, length - 1) - part // 2
            for length, part in zip(x.shape[2:], window, strict=True)
        ]
        return _cover(x, covered, corner, window, self.fill)


def _cover(x: Array, which: Array, corner: Sequence[Array], window: Pair, fill: float) -> Array:
    """Return x with `fill` in a window of each picture of `which`, from its upper left corner."""
    xp, covered = array_module(x), which[:, None, None]
    for axis, (first, length) in enumerate(zip(corner, window, strict=True)):
        first = first[:, None, None]
        place = xp.arange(x.shape[2 + axis], dtype=first.dtype)
        place = place[:, None] if axis == 0 else place
        covered = covered & (first <= place) & (place < first + length)
    return xp.where(covered[:, None], fill, x)
