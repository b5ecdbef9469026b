"""Random affine maps of the plane: turned, moved, enlarged, slanted, cropped, mirrored."""

from __future__ import annotations

import math
from dataclasses import dataclass

from xpdl.arguments import LARGEST, flag, one_of, whole_number
from xpdl.backends import Array, Pair, RandomGenerator, Shape, accumulation_dtype, array_module
from xpdl.datasets.augmentation.base import Augmentation
from xpdl.datasets.augmentation.draws import draw_uniform, draw_whole, happens
from xpdl.datasets.augmentation.resampling import make_maps, resample
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
from xpdl.errors import ArgumentError, shown


class Geometric(Augmentation):
    """A random affine map of the plane; one of your own overrides `inverse`."""

    fill: float
    """What is seen outside of the picture."""

    def change(self, x: Array, generator: RandomGenerator) -> Array:
        return resample(x, self.inverse(x, generator), self.fill)

    def inverse(self, x: Array, generator: RandomGenerator) -> Array:
        """Return from where each new picture takes its pixels, (N, 3, 3), see `resample`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Rotate(Geometric):
    """Turn about the centre, counter-clockwise by an angle drawn from `degrees`.

    A = ((cos, sin, 0), (-sin, cos, 0), (0, 0, 1)). 10 means from -10 to 10 degrees.
    """

    degrees: Spread
    fill: float = 0.0

    def __post_init__(self) -> None:
        self._set(degrees=check_spread("degrees", self.degrees), fill=finite("fill", self.fill))

    def inverse(self, x: Array, generator: RandomGenerator) -> Array:
        xp = array_module(x)
        angle = draw_uniform(x, generator, *map(math.radians, bounds(self.degrees)))
        cos, sin = xp.cos(angle), xp.sin(angle)
        return make_maps(x, [(cos, sin, 0), (-sin, cos, 0)])


@dataclass(frozen=True)
class Shift(Geometric):
    """Move down and to the right, by distances drawn one by one from `pixels`.

    A = ((1, 0, -down), (0, 1, -right), (0, 0, 1)). 2 means from -2 to 2: whole numbers, which blur
    nothing, or any if `whole` is false.
    """

    pixels: Spread
    whole: bool = True
    fill: float = 0.0

    def __post_init__(self) -> None:
        pixels, whole = check_spread("pixels", self.pixels), flag("whole", self.whole)
        if whole and any(value % 1 for value in bounds(pixels)):
            raise ArgumentError(
                f"pixels must be whole, got {shown(self.pixels)}; give whole=False for parts of "
                "them."
            )
        self._set(pixels=pixels, whole=whole, fill=finite("fill", self.fill))

    def inverse(self, x: Array, generator: RandomGenerator) -> Array:
        sample = draw_whole if self.whole else draw_uniform
        down, right = (sample(x, generator, *bounds(self.pixels)) for _ in range(2))
        return make_maps(x, [(1, 0, -down), (0, 1, -right)])


@dataclass(frozen=True)
class Zoom(Geometric):
    """Enlarge about the centre, by a factor drawn from `amount`; below 1 it makes smaller.

    A = ((1/factor, 0, 0), (0, 1/factor, 0), (0, 0, 1)). 0.1 means from 0.9 to 1.1.
    """

    amount: Spread
    fill: float = 0.0

    def __post_init__(self) -> None:
        amount = check_spread("amount", self.amount, usual=1.0, above=0.0)
        self._set(amount=amount, fill=finite("fill", self.fill))

    def inverse(self, x: Array, generator: RandomGenerator) -> Array:
        step = 1 / draw_uniform(x, generator, *bounds(self.amount, usual=1.0))
        return make_maps(x, [(step, 0, 0), (0, step, 0)])


@dataclass(frozen=True)
class Shear(Geometric):
    """Slant as italics are, to the right by an angle drawn from `degrees`; rows stay rows.

    A = ((1, 0, 0), (tan, 1, 0), (0, 0, 1)). 10 means from -10 to 10 degrees.
    """

    degrees: Spread
    fill: float = 0.0

    def __post_init__(self) -> None:
        degrees = check_spread("degrees", self.degrees, above=-90.0, below=90.0)
        self._set(degrees=degrees, fill=finite("fill", self.fill))

    def inverse(self, x: Array, generator: RandomGenerator) -> Array:
        angle = draw_uniform(x, generator, *map(math.radians, bounds(self.degrees)))
        return make_maps(x, [(1, 0, 0), (array_module(x).tan(angle), 1, 0)])


@dataclass(frozen=True)
class Crop(Geometric):
    """Cut a window out of the picture padded by `pad`, and make it as large as the picture was.

    A = ((h/H, 0, down), (0, w/W, right), (0, 0, 1)) for a window (h, w) of a picture (H, W), whose
    upper left corner is any pixel where the window fits, all equally likely.

    Parameters
    ----------
    size : int or (int, int), optional
        Height and width of the window. As large as the picture by default: then it is only moved,
        by at most `pad` pixels, as is usual for CIFAR-10 (He et al. 2015, arXiv:1512.03385).
    pad : int
        How many pixels of `fill` to add on each side first.
    fill : float
    """

    size: int | Pair | None = None
    pad: int = 0
    fill: float = 0.0

    def __post_init__(self) -> None:
        size = None if self.size is None else check_size(self.size)
        pad = whole_number("pad", self.pad, least=0, most=LARGEST)
        self._set(size=size, pad=pad, fill=finite("fill", self.fill))

    def check(self, shape: Shape) -> None:
        super().check(shape)
        self._window(shape[1:])

    def _window(self, picture: Shape) -> tuple[Shape, Shape]:
        """Return the window's height and width, and in how many pixels of each it can be moved."""
        window = picture if self.size is None else pair(self.size)
        return window, free_room(window, picture, self.pad)

    def inverse(self, x: Array, generator: RandomGenerator) -> Array:
        window, room = self._window(x.shape[2:])
        scales, moves = [], []
        for length, free, whole in zip(window, room, x.shape[2:], strict=True):
            first = draw_whole(x, generator, -self.pad, free - self.pad)
            scales.append(length / whole)
            moves.append(first + (length - whole) / 2)  # from centre to centre
        return make_maps(x, [(scales[0], 0, moves[0]), (0, scales[1], moves[1])])


@dataclass(frozen=True)
class Flip(Geometric):
    """Mirror, with a probability: left and right if `axis` is "horizontal", else up and down.

    A = ((1, 0, 0), (0, -1, 0), (0, 0, 1)), or the identity. Not for digits: a mirrored 2 is none.
    Nothing outside of the picture is seen; `fill` only says with which others this is one map.
    """

    probability: float = 0.5
    axis: str = "horizontal"
    fill: float = 0.0

    def __post_init__(self) -> None:
        axis = one_of("axis", self.axis, ("horizontal", "vertical"))
        probability = check_probability(self.probability)
        self._set(probability=probability, axis=axis, fill=finite("fill", self.fill))

    def inverse(self, x: Array, generator: RandomGenerator) -> Array:
        turned = happens(x, generator, self.probability)
        sign = 1 - 2 * turned.astype(accumulation_dtype(x.dtype))
        down, right = (1, sign) if self.axis == "horizontal" else (sign, 1)
        return make_maps(x, [(down, 0, 0), (0, right, 0)])
