"""The arrays of a layer: what it asks for, and what it has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xpdl.backends import Array, Shape
from xpdl.errors import NotReadyError, UnknownParameterError
from xpdl.initializers import Initializer
from xpdl.parameters import write_into


@dataclass(frozen=True)
class ParameterSpec:
    """A parameter that a layer wants: its shape and how it starts."""

    shape: Shape
    initializer: Initializer
    fan_in: int
    fan_out: int
    decay: bool

    def draw(self, rng: np.random.Generator) -> Array:
        """Return its first values, float64, on the host."""
        return self.initializer.draw(self.shape, self.fan_in, self.fan_out, rng)


class Arrays(dict[str, Array]):
    """A layer's arrays by name; asking for one before it exists says how to make it.

    Those that a network holds stay where they are: ``d[name] = values`` copies into them.
    """

    def __init__(self, layer: str) -> None:
        super().__init__()
        self._layer = layer
        self._placed = False
        self._others: dict[str, Array] = {}

    def place(self, name: str, array: Array, held: bool = True, other: Array | None = None) -> None:
        """Let `name` be this array from now on, of a network if `held`.

        With `other`, what is written into it is written there too: a network that computes in
        another type than its parameters' has both.
        """
        super().__setitem__(name, array)
        self._placed = held
        if other is not None:
            self._others[name] = other

    def __setitem__(self, name: str, values: Array | float) -> None:
        if not self._placed:
            super().__setitem__(name, values)  # type: ignore[assignment]
        elif name in self:
            write_into(name, self[name], values)
            if name in self._others:
                write_into(name, self._others[name], values)
        else:
            raise UnknownParameterError("array", name, self)

    def __missing__(self, name: str) -> Array:
        raise NotReadyError(
            f"{self._layer} has no {name} yet: put the layer into a Network, call "
            "build(input_shape, rng), or give it its arrays when it is made."
        )
