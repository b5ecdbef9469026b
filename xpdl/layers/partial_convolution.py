"""A convolution whose filters see some of the channels each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xpdl.arguments import whole_number
from xpdl.backends import Array, Shape, backend_of
from xpdl.errors import ArgumentError, ShapeError, shown
from xpdl.initializers import Constant, WeightInit, get_initializer
from xpdl.layers.base import Layer
from xpdl.layers.checks import expect_images, image_shape, pair
from xpdl.layers.kept import Kept


class PartialConvolution(Layer):
    """Filters that see the channels of a table, slid over images (N, C, H, W).

    y[n, f, i, j] = b[f] + sum over c in connections[f], k, l of W[f c, k, l] x[n, c, i + k, j + l]

    W holds a filter (FH, FW) for each connection, those of f = 0 first: LeNet-5's third layer has
    60 of them, 1,500 weights, in place of 16 times 6. Fewer weights were to be learned, and maps
    that see other things were to learn other things. (LeCun et al. 1998, table I)

    Parameters
    ----------
    connections : sequence of sequences of int
        Of each filter, the channels that it sees.
    size : int or (int, int)
        Height and width of a filter.
    weight_init : str, float or Initializer
        How W starts; b starts from zero.
    """

    kind = "conv"
    options = ("connections", "size")
    x: Any = Kept()
    W: Any = Kept()

    def __init__(
        self,
        connections: Sequence[Sequence[int]],
        size: int | Sequence[int],
        *,
        weight_init: WeightInit = "xavier",
    ) -> None:
        super().__init__()
        self.connections = _table(connections)
        self.size = pair("size", size, least=1)
        self._initializer = get_initializer(weight_init)
        self._placed: dict[Any, Array] = {}

    def plan(self, input_shape: Shape) -> Shape:
        c, h, w = image_shape("PartialConvolution", input_shape)
        self._expect_image((c, h, w))
        fh, fw = self.size
        count, filters = sum(map(len, self.connections)), len(self.connections)
        self.parameter(
            "W",
            (count, fh, fw),
            self._initializer,
            fan_in=max(1, round(count / filters)) * fh * fw,
            fan_out=max(1, round(count / c)) * fh * fw,
            decay=True,
        )
        self.parameter("b", (filters,), Constant())
        return (filters, h - fh + 1, w - fw + 1)

    def expect(self, x: Array) -> None:
        expect_images("PartialConvolution", x)
        self._expect_image(x.shape[1:])

    def forward(self, x: Array, train: bool = False) -> Array:
        W, b = self.params["W"].astype(x.dtype, copy=False), self.params["b"]
        backend = backend_of(x, W)
        full = backend.xp.zeros((len(self.connections) * x.shape[1], *self.size), x.dtype)
        full[self._places(x)] = W
        full = full.reshape(len(self.connections), x.shape[1], *self.size)
        b = b.astype(x.dtype, copy=False)
        if train:
            self.x, self.W = x, full
        return backend.convolution(x, full, b, (1, 1), (0, 0), False)

    def backward(self, dout: Array) -> Array:
        x, W = self.x, self.W
        backend = backend_of(dout, x)
        dx, dW, db = backend.convolution_backward(
            dout.astype(x.dtype, copy=False), x, W, (1, 1), (0, 0), self.input_gradient, True
        )
        self.set_gradient("W", dW.reshape(-1, *self.size)[self._places(x)])
        self.set_gradient("b", db)  # type: ignore[arg-type]  # which was asked for
        return dx  # type: ignore[return-value]  # None only where a network does not want it

    def _expect_image(self, image: Shape) -> None:
        last, (fh, fw) = max(map(max, self.connections)), self.size
        if last >= image[0] or fh > image[1] or fw > image[2]:
            raise ShapeError(
                f"PartialConvolution sees the channels 0 to {last}, by {fh} x {fw} pixels; its "
                f"inputs are {image}."
            )

    def _places(self, x: Array) -> Array:
        """Return where the filters of W stand among all (FN C, FH, FW); on a device, put once."""
        backend, channels = backend_of(x), x.shape[1]
        key = backend.array_type, channels
        if key not in self._placed:
            places = [f * channels + c for f, seen in enumerate(self.connections) for c in seen]
            self._placed[key] = backend.asarray(places, "int64")
        return self._placed[key]


def _table(connections: Any) -> tuple[tuple[int, ...], ...]:
    """Return a table of connections, seen to be one."""
    rows = list(connections) if isinstance(connections, list | tuple) else []
    if not rows or not all(isinstance(row, list | tuple) and row for row in rows):
        raise ArgumentError(
            "connections must be a list of the channels that each filter sees, "
            f"[[0, 1], [1, 2]], got {shown(connections)}."
        )
    table = tuple(
        tuple(whole_number("a channel in connections", c, least=0, most=2**16) for c in row)
        for row in rows
    )
    if any(len(set(row)) < len(row) for row in table):
        raise ArgumentError(f"connections must name a channel once each, got {shown(connections)}.")
    return table
