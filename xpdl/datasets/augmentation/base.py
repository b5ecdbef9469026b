"""What every augmentation of pictures is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from xpdl.arguments import real_array, sizes
from xpdl.backends import Array, RandomGenerator, Shape
from xpdl.errors import ArgumentError, DTypeError, ShapeError, shown


class Augmentation:
    """A random change of pictures.

    A kind of your own overrides `change`. All are frozen dataclasses: two of the same settings are
    equal, and the repr of one is how to make it again, by which a checkpoint knows it.
    """

    @property
    def mixes(self) -> bool:
        """Whether targets change too, so that `with_targets` must be called, with one-hot ones."""
        return False

    def __call__(self, x: Array, generator: RandomGenerator) -> Array:
        """Return pictures x (N, C, H, W) changed, each in its own way; x stays as it is.

        Raises
        ------
        ShapeError, DTypeError
            If x holds no pictures, none that are large enough, or no floats.
        """
        self._check_call(x, generator)
        return self.change(x, generator)

    def _check_call(self, x: Array, generator: RandomGenerator) -> None:
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

    def with_targets(self, x: Array, t: Array, generator: RandomGenerator) -> tuple[Array, Array]:
        """Return pictures x changed, and the targets t (N, ...) that they then have.

        Only what mixes pictures changes targets; see `Mixup`.

        Raises
        ------
        ShapeError, DTypeError
            As a call does, and if t does not fit x.
        """
        return self(x, generator), t

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

    @property
    def mixes(self) -> bool:
        return self.augment.mixes

    def with_targets(self, x: Array, t: Array, generator: RandomGenerator) -> tuple[Array, Array]:
        if x.shape[1:] != (math.prod(self.shape),):
            return super().with_targets(x, t, generator)  # which says what is wrong
        pictures, t = self.augment.with_targets(x.reshape(-1, *self.shape), t, generator)
        return pictures.reshape(x.shape), t

    def check(self, shape: Shape) -> None:
        if sizes("shape", shape, axes=0) != (math.prod(self.shape),):
            raise ShapeError(f"rows of pictures {self.shape} were expected, got {shape}.")
        self.augment.check(self.shape)

    def change(self, x: Array, generator: RandomGenerator) -> Array:
        return self.augment.change(x.reshape(-1, *self.shape), generator).reshape(x.shape)
