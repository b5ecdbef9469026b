"""Random changes of colours, as of other light and another camera."""

from __future__ import annotations

import math
from dataclasses import dataclass

from xpdl.backends import Array, RandomGenerator, Shape, accumulation_dtype, array_module
from xpdl.datasets.augmentation.base import Augmentation
from xpdl.datasets.augmentation.draws import draw_uniform
from xpdl.datasets.augmentation.settings import Spread, bounds, check_spread
from xpdl.errors import ShapeError

LUMA = (0.299, 0.587, 0.114)
"""How bright red, green and blue are, in parts of white (ITU-R BT.601)."""


@dataclass(frozen=True)
class ColorJitter(Augmentation):
    """Change brightness b, contrast c, saturation s and hue h, in this order.

    With grey(x) = 0.299 red + 0.587 green + 0.114 blue and m the mean of grey(x) over the picture,

    x <- b x,   x <- c x + (1-c) b m,   x <- s x + (1-s) grey(x),   x <- R x

    where R turns colours by h about the axis of greys, (1, 1, 1) / sqrt(3), by Rodrigues' formula
    R = cos h I + (1 - cos h)/3 J + sin h/sqrt(3) K, with J all ones and
    K = ((0, -1, 1), (1, 0, -1), (-1, 1, 0)).

    Nothing is cut off at 0 or 1. Pictures that have not three channels have neither saturation nor
    hue, and grey is the mean of their channels.

    Parameters
    ----------
    brightness, contrast, saturation : float or (float, float)
        0.2 means from 0.8 to 1.2.
    hue : float or (float, float)
        In degrees: 10 means from -10 to 10, and 120 makes red of blue, green of red.
    """

    brightness: Spread = 0.0
    contrast: Spread = 0.0
    saturation: Spread = 0.0
    hue: Spread = 0.0

    def __post_init__(self) -> None:
        factors = {
            name: check_spread(name, getattr(self, name), usual=1.0, above=-1e-9)
            for name in ("brightness", "contrast", "saturation")
        }
        self._set(**factors, hue=check_spread("hue", self.hue))

    @property
    def _colourful(self) -> bool:
        return bounds(self.saturation, usual=1.0) != (1, 1) or bounds(self.hue) != (0, 0)

    def check(self, shape: Shape) -> None:
        super().check(shape)
        if self._colourful and shape[0] != 3:
            raise ShapeError(
                f"saturation and hue are of pictures in red, green and blue, got {shape}; "
                "leave them 0."
            )

    def change(self, x: Array, generator: RandomGenerator) -> Array:
        xp, channels = array_module(x), x.shape[1]
        b, c, s = (
            draw_uniform(x, generator, *bounds(spread, usual=1.0))
            for spread in (self.brightness, self.contrast, self.saturation)
        )
        h = draw_uniform(x, generator, *map(math.radians, bounds(self.hue)))
        # In one memory order, so that a mean is the same to the bit in all of them.
        z = xp.ascontiguousarray(x).astype(accumulation_dtype(x.dtype), copy=False)
        luma = LUMA if channels == 3 else (1 / channels,) * channels
        grey = sum(part * z[:, k] for k, part in enumerate(luma))
        level = (1 - c) * b * grey.mean(axis=(1, 2))
        z = (c * b)[:, None, None, None] * z
        if self._colourful:
            z = _turn(_column(s) * z + _column((1 - s) * c * b) * grey[:, None], h)
        return (z + _column(level)).astype(x.dtype, copy=False)


def _column(a: Array) -> Array:
    return a[:, None, None, None]


def _turn(z: Array, h: Array) -> Array:
    """Return the colours z (N, 3, H, W) turned about the axis of greys by angles h (N,)."""
    xp = array_module(z)
    cos, sin = _column(xp.cos(h)), _column(xp.sin(h)) / math.sqrt(3)
    red, green, blue = z[:, 0], z[:, 1], z[:, 2]
    across = xp.stack([blue - green, red - blue, green - red], axis=1)
    return cos * z + (1 - cos) / 3 * z.sum(axis=1, keepdims=True) + sin * across
