"""What an input means: the scale of its numbers, their mean and deviation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from xpdl.arguments import largest_on_host, number, real_array
from xpdl.backends import Array, Number, Shape, accumulation_dtype, backend_of
from xpdl.errors import ArgumentError, ShapeError, shown
from xpdl.layers.base import Layer

FAR = 30.0
"""So many deviations from the mean, an input is not what the network was trained on."""


class Normalize(Layer):
    """Bring what a network is given to the numbers that it was trained on. It stands first.

    y = (x / divisor - mean) / deviation of integers        y = (x - mean) / deviation of floats
    dL/dx = dL/dy / deviation

    The array's type decides: integers, such as pixels, are divided, and floats are taken to be
    scaled already, so that both give the same answer, bit for bit. It computes in float32 at least.

    Parameters
    ----------
    divisor : float
        What integers are divided by: 255 for pixels of eight bits.
    mean, deviation : float, or sequence of one or C floats
        Of the scaled numbers, one for all or one a channel of (C, H, W).
    """

    kind = "normalize"
    options = ("divisor", "mean", "deviation")
    dtype: Any = None  # that of what it returns; a network sets the type that it computes in
    _told = False

    def __init__(
        self,
        divisor: float = 255.0,
        mean: float | Sequence[float] = 0.0,
        deviation: float | Sequence[float] = 1.0,
    ) -> None:
        self._placed: dict[Any, Array] = {}
        self.divisor = number("divisor", divisor, above=0)
        self.mean = _numbers("mean", mean)
        self.deviation = _numbers("deviation", deviation)
        if min(self.deviation) <= 0:
            raise ArgumentError(f"deviation must be above 0, got {shown(deviation)}.")

    def plan(self, input_shape: Shape) -> Shape:
        channels = input_shape[0] if input_shape else 1
        for name in ("mean", "deviation"):
            count = len(getattr(self, name))
            if count not in (1, channels):
                raise ShapeError(
                    f"{name} is of {count} channels, the input x {shown(input_shape)} has "
                    f"{channels}."
                )
        return input_shape

    def expect(self, x: Array) -> None:
        self.plan(real_array("x", x, "iuf").shape[1:])

    def forward(self, x: Array, train: bool = False) -> Array:
        real_array("x", x, "iuf")
        wide = accumulation_dtype(x.dtype)
        y = x.astype(wide, copy=False)
        if x.dtype.kind != "f":
            y = y / wide.type(self.divisor)
        if any(self.mean):
            y = y - self._along(self.mean, y)
        if set(self.deviation) != {1.0}:
            y = y / self._along(self.deviation, y)
        if not train and x.dtype.kind == "f":
            self._look_at(y)
        return y.astype(self.dtype or wide, copy=False)

    def backward(self, dout: Array) -> Array:
        return (dout / self._along(self.deviation, dout)).astype(dout.dtype, copy=False)

    def _along(self, numbers: tuple[float, ...], x: Array) -> Number:
        """Return the number, or those of the channels of x in its type; on a device, put once."""
        if len(numbers) == 1:
            return numbers[0]
        backend, dtype = backend_of(x), x.dtype.newbyteorder("=")
        key = numbers, backend.array_type, dtype, x.ndim
        if key not in self._placed:
            placed = backend.asarray(list(numbers), dtype)
            self._placed[key] = placed.reshape(-1, *(1,) * (x.ndim - 2))
        return self._placed[key]

    def _look_at(self, y: Array) -> None:
        """Say once, on the host, that floats are far from any that are scaled."""
        largest = 0.0 if self._told else largest_on_host(y)
        if largest > FAR:
            self._told = True
            warnings.warn(
                f"x holds floats {largest:.0f} deviations from the mean that the network was "
                f"trained with: floats are taken to be scaled, integers are divided by "
                f"{self.divisor:g}. Pass the integers themselves, or divide before.",
                stacklevel=2,
            )


def _numbers(argument: str, value: Any) -> tuple[float, ...]:
    """Return a number, or several, as a tuple of floats."""
    value = value.tolist() if hasattr(value, "tolist") else value
    listed = list(value) if isinstance(value, list | tuple) else [value]
    if not listed:
        raise ArgumentError(f"{argument} must be a number or one a channel, got {shown(value)}.")
    return tuple(number(argument, each, above=float("-inf")) for each in listed)
