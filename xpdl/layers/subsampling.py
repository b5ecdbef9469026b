"""Subsampling, as it was before pooling: sums with a coefficient that is learned."""

from __future__ import annotations

from typing import Any

from xpdl.arguments import whole_number
from xpdl.backends import Array, Shape, accumulation_dtype, array_module
from xpdl.errors import ShapeError
from xpdl.initializers import Constant
from xpdl.layers.base import Layer
from xpdl.layers.checks import image_shape
from xpdl.layers.kept import Kept


class Subsampling(Layer):
    """Sums of windows that do not overlap, times a coefficient of the channel, plus a bias.

    s[c, i, j] = sum over k, l < size of x[c, i size + k, j size + l]        y[c] = a[c] s[c] + b[c]
    dL/dx = a dL/dy, spread over the window        dL/da = sum dL/dy s        dL/db = sum dL/dy
    (LeCun et al. 1998, section II.B: S2 and S4)

    Parameters
    ----------
    size : int
        Of a window, down and across; it must divide the image.
    """

    kind = "subsampling"
    options = ("size",)
    shape: Any = Kept()
    sums: Any = Kept()

    def __init__(self, size: int = 2) -> None:
        super().__init__()
        self.size = whole_number("size", size)

    def plan(self, input_shape: Shape) -> Shape:
        c, h, w = image_shape("Subsampling", input_shape)
        if h % self.size or w % self.size:
            raise ShapeError(
                f"size must divide the image, got windows of {self.size} and {h} x {w} pixels."
            )
        self.parameter("a", (c,), Constant(value=1 / self.size**2), decay=True)
        self.parameter("b", (c,), Constant())
        return (c, h // self.size, w // self.size)

    def expect(self, x: Array) -> None:
        super().expect(x)
        channels = len(self.params["a"])
        if x.ndim != 4 or x.shape[1] != channels or any(n % self.size for n in x.shape[2:]):
            raise ShapeError(
                f"Subsampling wants x (N, {channels}, H, W), with H and W multiples of "
                f"{self.size}, got {x.shape}."
            )

    def forward(self, x: Array, train: bool = False) -> Array:
        a, b = self.params["a"], self.params["b"]
        sums = sum(self._parts(x.astype(accumulation_dtype(x.dtype), copy=False)))
        if train:
            self.shape, self.sums = x.shape, sums
        y = _along_channels(a) * sums + _along_channels(b)
        return y.astype(x.dtype, copy=False)

    def backward(self, dout: Array) -> Array:
        wide = accumulation_dtype(dout.dtype)
        self.set_gradient("a", (dout * self.sums).sum(axis=(0, 2, 3), dtype=wide))
        self.set_gradient("b", dout.sum(axis=(0, 2, 3), dtype=wide))
        dx = array_module(dout).empty(self.shape, dout.dtype)
        share = (_along_channels(self.params["a"]) * dout).astype(dout.dtype, copy=False)
        for part in self._parts(dx):
            part[...] = share
        return dx

    def _parts(self, x: Array) -> list[Array]:
        """Return views of x (N, C, H, W): of each window the first number, the second ..."""
        steps = range(self.size)
        return [x[:, :, i :: self.size, j :: self.size] for i in steps for j in steps]


def _along_channels(numbers: Array) -> Array:
    return numbers[:, None, None]
