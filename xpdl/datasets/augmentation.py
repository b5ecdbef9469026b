"""Pictures changed at random, so that a network sees each of them anew in every epoch.

The book names this, data augmentation, as a way past its 99.38 % (section 8.1.2). An augmentation
is called as ``augment(x, generator)`` with pictures x (N, C, H, W) of any backend, whose floats
may be of any precision, and a generator of that backend; it returns other pictures of the same
shape, type and backend, and leaves x as it is. Each picture is changed in a way of its own. The
seed of the generator decides how, the same way on every backend and in every precision::

    augment = Compose([Rotate(10), Shift(2), Zoom(0.1)])
    y = augment(x, backend_of(x).generator(seed))

Rotating, shifting, zooming, shearing, cropping and flipping are one thing: a map of the plane that
says where each pixel comes from (`resample`). `Elastic` is a map too, but a bent one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from itertools import groupby
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from xpdl.arguments import LARGEST, flag, number, one_of, plainly, real_array, sizes, whole_number
from xpdl.backends import (
    Array,
    Pair,
    RandomGenerator,
    Shape,
    accumulation_dtype,
    array_module,
    backend_of,
)
from xpdl.errors import ArgumentError, DTypeError, ShapeError, UnknownNameError, shown

Spread: TypeAlias = float | tuple[float, float]
"""From where to where a number is drawn: a pair (low, high), or how far from its usual value."""


class Augmentation:
    """A random change of pictures.

    A kind of your own overrides `change`. All are frozen dataclasses: two of the same settings are
    equal, and the repr of one is how to make it again, by which a checkpoint knows it.
    """

    def __call__(self, x: Array, generator: RandomGenerator) -> Array:
        """Return pictures x (N, C, H, W) changed, each in its own way; x stays as it is.

        Raises
        ------
        ShapeError, DTypeError
            If x holds no pictures, none that are large enough, or no floats.
        """
        if real_array("x", x).dtype.kind != "f":
            raise DTypeError(
                f"x must hold floats, got dtype {x.dtype}; divide the bytes of pixels by 255."
            )
        if not x.ndim:
            raise ShapeError(f"x must be pictures (N, C, H, W), got shape {x.shape}.")
        if isinstance(generator, type | ModuleType) or not hasattr(generator, "random"):
            raise ArgumentError(
                "generator must be one of the backend's, as backend_of(x).generator(seed) makes "
                f"them, got {shown(generator)}."
            )
        self.check(x.shape[1:])
        return self.change(x, generator)

    def check(self, shape: Shape) -> None:
        """See that pictures of `shape`, (C, H, W), can be changed.

        Raises
        ------
        ShapeError
            If they cannot.
        """
        if len(sizes("shape", shape, axes=0)) != 3:
            raise ShapeError(
                f"augmentation wants pictures (C, H, W), got inputs of shape {shape}; use a "
                "network that takes pictures, with the layer Flatten first if need be."
            )

    def change(self, x: Array, generator: RandomGenerator) -> Array:
        """Return x changed; `x` has been checked."""
        raise NotImplementedError

    def _set(self, **settings: Any) -> None:
        """Put settings as they were checked in place of those that were given."""
        for name, value in settings.items():
            object.__setattr__(self, name, value)  # a frozen dataclass allows no other way


@dataclass(frozen=True)
class Compose(Augmentation):
    """One augmentation after another.

    Geometric ones that follow each other with the same `fill` become one map, with an `Elastic`
    that follows them: pictures are interpolated once, which blurs less, and what one moves out of
    the picture the next can bring back.
    """

    steps: Sequence[Augmentation]

    def __post_init__(self) -> None:
        if not isinstance(self.steps, Iterable) or isinstance(self.steps, type):
            raise ArgumentError(f"steps must be a list of augmentations, got {shown(self.steps)}.")
        steps: list[Augmentation] = []
        for step in self.steps:
            if not isinstance(step, Augmentation):
                raise ArgumentError(
                    f"steps must hold augmentations such as Rotate(10), got {shown(step)}."
                )
            steps += step.steps if isinstance(step, Compose) else [step]
        self._set(steps=tuple(steps))

    def check(self, shape: Shape) -> None:
        super().check(shape)
        for step in self.steps:
            step.check(shape)

    def change(self, x: Array, generator: RandomGenerator) -> Array:
        def ground(step: Augmentation) -> float | None:
            return step.fill if isinstance(step, Geometric | Elastic) else None

        for fill, steps in groupby(self.steps, ground):
            if fill is None:
                for step in steps:
                    x = step.change(x, generator)
                continue
            maps: list[Array] = []
            for step in steps:
                if isinstance(step, Geometric):
                    maps.append(step.inverse(x, generator))
                elif isinstance(step, Elastic):
                    x = step.bent(x, _in_turn(x, maps), generator)
                    maps = []
            if maps:
                x = resample(x, _in_turn(x, maps), fill)
        return x


# ---- geometric ---------------------------------------------------------------------------------


class Geometric(Augmentation):
    """A random affine map of the plane; one of your own overrides `inverse`."""

    fill: float
    """What is seen outside of the picture."""

    def change(self, x: Array, generator: RandomGenerator) -> Array:
        return resample(x, self.inverse(x, generator), self.fill)

    def inverse(self, x: Array, generator: RandomGenerator) -> Array:
        """Return from where each new picture takes its pixels, (N, 3, 3), see `resample`."""
        raise NotImplementedError


def resample(x: Array, maps: Array, fill: float = 0.0, bends: Array | None = None) -> Array:
    """Return pictures seen through affine maps.

    (r, s, 1) = A (i - (H-1)/2, j - (W-1)/2, 1) + ((H-1)/2, (W-1)/2, 0) is where pixel (i, j) of
    the new picture comes from: row r and column s, which need not be whole. With i' = floor(r),
    a = r - i', j' = floor(s) and b = s - j', by bilinear interpolation,

    y[i, j] = (1-a) (1-b) x[i', j'] + (1-a) b x[i', j'+1] + a (1-b) x[i'+1, j'] + a b x[i'+1, j'+1]

    with `fill` in place of pixels beyond the edges. Where r and s are whole, y[i, j] is x[r, s] to
    the last bit.

    Parameters
    ----------
    x : array (N, C, H, W)
    maps : array (N, 3, 3)
        One A for each picture, about its centre, in pixels, rows downwards. What it is computed
        in is their type, float32 or float64.
    fill : float
    bends : array (N, 2, H, W), optional
        What is added to i and to j before A, of the type of `maps`: then the map is not affine.
    """
    xp, (n, c, h, w) = array_module(x), x.shape
    A = maps[:, :2, :, None, None]
    i, j = (xp.arange(size, dtype=maps.dtype) - (size - 1) / 2 for size in (h, w))
    i = i[:, None]
    if bends is not None:
        i, j = i + bends[:, 0], j + bends[:, 1]
    # No matrix product: a GPU may round its factors (TF32), and whole numbers must stay whole.
    r, s = (A[:, k, 0] * i + A[:, k, 2] + A[:, k, 1] * j for k in (0, 1))
    (top, a), (left, b) = _split(r + (h - 1) / 2, h), _split(s + (w - 1) / 2, w)
    padded = backend_of(x).pad(x.astype(maps.dtype, copy=False), (1, 1), fill)
    planes = xp.arange(n * c).reshape(n, c, 1, 1) * ((h + 2) * (w + 2))
    corner = planes + ((top + 1) * (w + 2) + left + 1)[:, None]
    a, b = a[:, None], b[:, None]

    def rows(first: int) -> Array:
        """Interpolate along the rows that begin `first` numbers behind the upper one."""
        left, right = (xp.take(padded.reshape(-1)[first + k :], corner) for k in (0, 1))
        return (1 - b) * left + b * right

    y = (1 - a) * rows(0) + a * rows(w + 2)
    return y.astype(x.dtype, copy=False)


def _split(position: Array, size: int) -> tuple[Array, Array]:
    """Return the whole part, from -1 to size - 1, and the rest, from 0 to 1, of positions."""
    xp = array_module(position)
    position = xp.clip(position, -1, size)  # further out there is nothing else to be seen
    whole = xp.minimum(xp.floor(position), size - 1)
    return whole.astype(np.int64), position - whole


def _product(a: Array, b: Array) -> Array:
    """Return the matrix products of a (N, 3, 3) and b, with no factor rounded (see `resample`)."""
    return (a[:, :, :, None] * b[:, None, :, :]).sum(axis=2)


def _in_turn(x: Array, maps: Sequence[Array]) -> Array:
    """Return one map of pictures x for all of `maps`; none of them is the identity.

    y(p) = x(A1 q) at q = A2 p: the first step's map is applied last.
    """
    return reduce(_product, maps) if maps else _maps(x, [(1, 0, 0), (0, 1, 0)])


def _maps(x: Array, rows: Sequence[Sequence[Array | float]]) -> Array:
    """Return the maps of pictures x, (N, 3, 3), of two rows of numbers or arrays (N,)."""
    maps: Array = array_module(x).zeros((len(x), 3, 3), dtype=accumulation_dtype(x.dtype))
    for i, row in enumerate([*rows, (0, 0, 1)]):
        for j, entry in enumerate(row):
            maps[:, i, j] = entry
    return maps


@dataclass(frozen=True)
class Rotate(Geometric):
    """Turn about the centre, counter-clockwise by an angle drawn from `degrees`.

    A = ((cos, sin, 0), (-sin, cos, 0), (0, 0, 1)). 10 means from -10 to 10 degrees.
    """

    degrees: Spread
    fill: float = 0.0

    def __post_init__(self) -> None:
        self._set(degrees=_spread("degrees", self.degrees), fill=_finite("fill", self.fill))

    def inverse(self, x: Array, generator: RandomGenerator) -> Array:
        xp = array_module(x)
        angle = _uniform(x, generator, *map(math.radians, _bounds(self.degrees)))
        cos, sin = xp.cos(angle), xp.sin(angle)
        return _maps(x, [(cos, sin, 0), (-sin, cos, 0)])


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
        pixels, whole = _spread("pixels", self.pixels), flag("whole", self.whole)
        if whole and any(value % 1 for value in _bounds(pixels)):
            raise ArgumentError(
                f"pixels must be whole, got {shown(self.pixels)}; give whole=False for parts of "
                "them."
            )
        self._set(pixels=pixels, whole=whole, fill=_finite("fill", self.fill))

    def inverse(self, x: Array, generator: RandomGenerator) -> Array:
        draw = _whole if self.whole else _uniform
        down, right = (draw(x, generator, *_bounds(self.pixels)) for _ in range(2))
        return _maps(x, [(1, 0, -down), (0, 1, -right)])


@dataclass(frozen=True)
class Zoom(Geometric):
    """Enlarge about the centre, by a factor drawn from `amount`; below 1 it makes smaller.

    A = ((1/factor, 0, 0), (0, 1/factor, 0), (0, 0, 1)). 0.1 means from 0.9 to 1.1.
    """

    amount: Spread
    fill: float = 0.0

    def __post_init__(self) -> None:
        amount = _spread("amount", self.amount, usual=1.0, above=0.0)
        self._set(amount=amount, fill=_finite("fill", self.fill))

    def inverse(self, x: Array, generator: RandomGenerator) -> Array:
        step = 1 / _uniform(x, generator, *_bounds(self.amount, usual=1.0))
        return _maps(x, [(step, 0, 0), (0, step, 0)])


@dataclass(frozen=True)
class Shear(Geometric):
    """Slant as italics are, to the right by an angle drawn from `degrees`; rows stay rows.

    A = ((1, 0, 0), (tan, 1, 0), (0, 0, 1)). 10 means from -10 to 10 degrees.
    """

    degrees: Spread
    fill: float = 0.0

    def __post_init__(self) -> None:
        degrees = _spread("degrees", self.degrees, above=-90.0, below=90.0)
        self._set(degrees=degrees, fill=_finite("fill", self.fill))

    def inverse(self, x: Array, generator: RandomGenerator) -> Array:
        angle = _uniform(x, generator, *map(math.radians, _bounds(self.degrees)))
        return _maps(x, [(1, 0, 0), (array_module(x).tan(angle), 1, 0)])


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
        size = None if self.size is None else _size(self.size)
        pad = whole_number("pad", self.pad, least=0, most=LARGEST)
        self._set(size=size, pad=pad, fill=_finite("fill", self.fill))

    def check(self, shape: Shape) -> None:
        super().check(shape)
        self._window(shape[1:])

    def _window(self, picture: Shape) -> tuple[Shape, Shape]:
        """Return the window's height and width, and in how many pixels of each it can be moved."""
        window = picture if self.size is None else _pair(self.size)
        return window, _room(window, picture, self.pad)

    def inverse(self, x: Array, generator: RandomGenerator) -> Array:
        window, room = self._window(x.shape[2:])
        scales, moves = [], []
        for length, free, whole in zip(window, room, x.shape[2:], strict=True):
            first = _whole(x, generator, -self.pad, free - self.pad)
            scales.append(length / whole)
            moves.append(first + (length - whole) / 2)  # from centre to centre
        return _maps(x, [(scales[0], 0, moves[0]), (0, scales[1], moves[1])])


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
        probability = _probability(self.probability)
        self._set(probability=probability, axis=axis, fill=_finite("fill", self.fill))

    def inverse(self, x: Array, generator: RandomGenerator) -> Array:
        turned = _happens(x, generator, self.probability)
        sign = 1 - 2 * turned.astype(accumulation_dtype(x.dtype))
        down, right = (1, sign) if self.axis == "horizontal" else (sign, 1)
        return _maps(x, [(down, 0, 0), (0, right, 0)])


# ---- bent --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Elastic(Augmentation):
    """Bend, as a hand that writes the same digit again does: each pixel comes from near its place.

    p comes from p + u(p), where both parts of the displacement u are a smoothed noise,

    u = pixels K_H z K_W^T,  K[i, k] = k_ik / sqrt(sum_k k_ik^2),  k_ik = exp(-(i-k)^2 / 2 sigma^2)

    with z (H, W) independent numbers of mean 0 and variance 1. So u has the standard deviation
    `pixels` everywhere, at the edges too. Simard et al. 2003, "Best practices for convolutional
    neural networks applied to visual document analysis": their sigma 4, alpha 34 is `pixels` 1.4.

    Parameters
    ----------
    pixels : float
        How far pixels are moved: the standard deviation, down and to the right.
    sigma : float
        In pixels, at least 0.1: what is nearer than that is moved together.
    fill : float
    """

    pixels: float
    sigma: float = 4.0
    fill: float = 0.0

    def __post_init__(self) -> None:
        pixels = number("pixels", self.pixels, below=LARGEST)
        sigma = number("sigma", self.sigma, least=0.1, below=LARGEST)
        self._set(pixels=pixels, sigma=sigma, fill=_finite("fill", self.fill))

    def change(self, x: Array, generator: RandomGenerator) -> Array:
        return self.bent(x, _in_turn(x, []), generator)

    def bent(self, x: Array, maps: Array, generator: RandomGenerator) -> Array:
        """Return x seen through maps (N, 3, 3), see `resample`, and then bent."""
        return resample(x, maps, self.fill, self.bends(x, generator))

    def bends(self, x: Array, generator: RandomGenerator) -> Array:
        """Return the displacements of pictures x, (N, 2, H, W): downwards and to the right."""
        n, _, h, w = x.shape
        z = (2 * math.sqrt(3)) * (_random(x, generator, (h, n, 2, w)) - 1 / 2)
        u = self._kernel(x, h) @ z.reshape(h, n * 2 * w)
        u = self.pixels * (u.reshape(h * n * 2, w) @ self._kernel(x, w).T)
        return u.reshape(h, n, 2, w).transpose(1, 2, 0, 3)

    def _kernel(self, x: Array, size: int) -> Array:
        """Return K, (size, size)."""
        xp = array_module(x)
        i = xp.arange(size, dtype=accumulation_dtype(x.dtype))
        k = xp.exp(((i[:, None] - i) / self.sigma) ** 2 / -2)
        return k / xp.sqrt((k**2).sum(axis=1, keepdims=True))


# ---- of the pixels' values ---------------------------------------------------------------------


@dataclass(frozen=True)
class Brightness(Augmentation):
    """Make brighter or darker: y = factor x, with a factor drawn from `amount`.

    0.2 means from 0.8 to 1.2. Black ground, 0, stays black; nothing is cut off at 1.
    """

    amount: Spread

    def __post_init__(self) -> None:
        self._set(amount=_spread("amount", self.amount, usual=1.0, above=0.0))

    def change(self, x: Array, generator: RandomGenerator) -> Array:
        factor = _uniform(x, generator, *_bounds(self.amount, usual=1.0))
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
        return (x + self.std * _normal(x, generator)).astype(x.dtype, copy=False)


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
        probability, fill = _probability(self.probability), _finite("fill", self.fill)
        self._set(size=_size(self.size), probability=probability, fill=fill)

    def check(self, shape: Shape) -> None:
        super().check(shape)
        _room(_pair(self.size), shape[1:])

    def change(self, x: Array, generator: RandomGenerator) -> Array:
        xp, window, picture = array_module(x), _pair(self.size), x.shape[2:]
        covered = _happens(x, generator, self.probability)[:, None, None]
        for axis, free in enumerate(_room(window, picture)):
            first = _whole(x, generator, 0, free)[:, None, None]
            place = xp.arange(picture[axis], dtype=first.dtype)
            place = place[:, None] if axis == 0 else place
            covered = covered & (first <= place) & (place < first + window[axis])
        return xp.where(covered[:, None], self.fill, x)


# ---- by name -----------------------------------------------------------------------------------


BY_NAME: dict[str, Callable[..., Augmentation]] = {
    kind.__name__.lower(): kind
    for kind in (Rotate, Shift, Zoom, Shear, Crop, Flip, Elastic, Brightness, Noise, Erase)
}


def make_augmentation(settings: Mapping[str, Any]) -> Compose:
    """Return the augmentations that a dictionary, such as JSON can hold, names in its order.

    Parameters
    ----------
    settings : mapping of str to number, list or mapping
        ``{"rotate": 10, "erase": {"size": [4, 8], "probability": 0.5}}``: what each is made with
        by name, or, for its first setting alone, just that.

    Raises
    ------
    UnknownNameError
        If there is none of a name.
    ArgumentError
        If a setting is not that augmentation's, or does not serve.
    """
    if not isinstance(settings, Mapping):
        raise ArgumentError(
            f'settings must be a dictionary such as {{"rotate": 10}}, got {shown(settings)}.'
        )
    steps = []
    for name, value in settings.items():
        if not isinstance(name, str) or name not in BY_NAME:
            raise UnknownNameError("augmentation", name, BY_NAME)
        kind = BY_NAME[name]
        try:
            steps.append(kind(**value) if isinstance(value, Mapping) else kind(value))
        except ArgumentError as error:
            raise ArgumentError(f"augmentation {name!r}: {error}") from error
        except TypeError as error:
            raise ArgumentError(f"augmentation {name!r}: {plainly(error)}.") from error
    return Compose(steps)


@dataclass(frozen=True)
class OfRows(Augmentation):
    """An augmentation of pictures that are laid out as rows of numbers, (N, C*H*W).

    So a network that takes no pictures can be trained on changed ones too.
    """

    augment: Augmentation
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        if not isinstance(self.augment, Augmentation):
            raise ArgumentError(
                f"augment must be an augmentation such as Rotate(10), got {shown(self.augment)}."
            )
        shape = sizes("shape", self.shape)
        self.augment.check(shape)
        self._set(shape=shape)

    def check(self, shape: Shape) -> None:
        if sizes("shape", shape, axes=0) != (math.prod(self.shape),):
            raise ShapeError(f"rows of pictures {self.shape} were expected, got {shape}.")
        self.augment.check(self.shape)

    def change(self, x: Array, generator: RandomGenerator) -> Array:
        return self.augment.change(x.reshape(-1, *self.shape), generator).reshape(x.shape)


# ---- random numbers ----------------------------------------------------------------------------


def _random(x: Array, generator: RandomGenerator, shape: Shape) -> Array:
    """Return numbers uniform in [0, 1), as wide as what x is computed in.

    Drawn in float32 whatever x is, so that one seed changes pictures of all precisions alike.
    """
    drawn = generator.random(shape, np.float32)
    return drawn.astype(accumulation_dtype(x.dtype), copy=False)


def _uniform(x: Array, generator: RandomGenerator, low: float, high: float) -> Array:
    """Return a number from low to high for each picture, (N,)."""
    return low + (high - low) * _random(x, generator, (len(x),))


def _whole(x: Array, generator: RandomGenerator, low: float, high: float) -> Array:
    """Return one of the whole numbers from low to high for each picture, (N,), as floats."""
    # u <= 1 - 2^-24, so that u times a number rounds to less than it.
    return low + array_module(x).floor((high - low + 1) * _random(x, generator, (len(x),)))


def _happens(x: Array, generator: RandomGenerator, probability: float) -> Array:
    """Return True with a probability, for each picture, (N,)."""
    return _random(x, generator, (len(x),)) < probability


def _normal(x: Array, generator: RandomGenerator) -> Array:
    """Return normal numbers of mean 0 and variance 1, in the shape of x, by two of uniform u, v.

    sqrt(-2 log(1-u)) cos(2 pi v), sqrt(-2 log(1-u)) sin(2 pi v)

    Box and Muller 1958; 1 - u since u may be 0, but never 1. In float32 at least.
    """
    xp = array_module(x)
    uniform = _random(x, generator, (2, -(-x.size // 2)))
    radius, angle = xp.sqrt(-2 * xp.log(1 - uniform[0])), 2 * math.pi * uniform[1]
    pairs = xp.concatenate([radius * xp.cos(angle), radius * xp.sin(angle)])
    return pairs[: x.size].reshape(x.shape)


# ---- settings ----------------------------------------------------------------------------------


def _spread(
    argument: str,
    value: Any,
    *,
    usual: float = 0.0,
    above: float = -math.inf,
    below: float = math.inf,
) -> Spread:
    """Return a spread as a float or a pair of them, all of it between `above` and `below`."""
    pair = isinstance(value, tuple | list)
    values = []
    with suppress(ArgumentError):  # told below, with all that is wanted
        values = [_finite(argument, part) for part in (value if pair else [value])]
    if len(values) == (len(value) if pair else 1) == (2 if pair else 1):
        spread = (values[0], values[1]) if pair else values[0]
        low, high = _bounds(spread, usual)
        if above < low <= high < below:  # which infinity and NaN are not
            return spread
    limits = "".join(
        f", {side} {limit:g}"
        for side, limit in (("above", above), ("below", below))
        if math.isfinite(limit)
    )
    raise ArgumentError(
        f"{argument} must be a number of at least 0 (drawn are numbers up to so far from "
        f"{usual:g}) or a pair (low, high){limits}, got {shown(value)}."
    )


def _bounds(spread: Spread, usual: float = 0.0) -> tuple[float, float]:
    """Return the least and the greatest number that may be drawn."""
    return spread if isinstance(spread, tuple) else (usual - spread, usual + spread)


def _finite(argument: str, value: Any) -> float:
    return number(argument, value, above=-math.inf)


def _probability(value: Any) -> float:
    probability = number("probability", value)
    if probability > 1:
        raise ArgumentError(f"probability must be a number from 0 to 1, got {shown(value)}.")
    return probability


def _size(value: Any) -> int | Pair:
    """Return a side of a square, or height and width, as they were given."""
    if isinstance(value, tuple | list) and len(value) == 2:
        high, wide = (whole_number("size", side, most=LARGEST) for side in value)
        return high, wide
    return whole_number("size", value, most=LARGEST)


def _pair(size: int | Pair) -> Pair:
    return size if isinstance(size, tuple) else (size, size)


def _room(window: Shape, picture: Shape, pad: int = 0) -> Shape:
    """Return by how many pixels a window can be moved in a picture that is padded, each way."""
    room = tuple(whole + 2 * pad - part for part, whole in zip(window, picture, strict=True))
    if min(room) < 0:
        raise ShapeError(
            f"size {window} is larger than the pictures, {picture}"
            f"{f', padded by {pad}' if pad else ''}; give a smaller one."
        )
    return room
