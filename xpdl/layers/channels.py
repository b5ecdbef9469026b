"""A layer that adds channels."""

from __future__ import annotations

from typing import Any

from xpdl.arguments import LARGEST, whole_number
from xpdl.backends import Array, Shape, backend_of
from xpdl.errors import ShapeError
from xpdl.layers.base import Kept, Layer, expect_floats, image_shape


class PadChannels(Layer):
    """Channels of zeros around those of images: (N, C, H, W) becomes (N, before + C + after, H, W).

    dL/dx = dL/dy of the C channels in the middle

    The way around a block that widens, without parameters (He et al. 2015, section 4.2, option A).

    Parameters
    ----------
    before, after : int
        How many channels.
    """

    kind = "widen"
    options = ("before", "after")
    shape: Any = Kept()
    home: Any = Kept()

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.before = whole_number("before", before, least=0, most=LARGEST)
        self.after = whole_number("after", after, least=0, most=LARGEST)

    def plan(self, input_shape: Shape) -> Shape:
        c, h, w = image_shape("PadChannels", input_shape)
        return (self.before + c + self.after, h, w)

    def forward(self, x: Array, train: bool = False) -> Array:
        expect_floats("PadChannels", x)
        if x.ndim != 4:
            raise ShapeError(f"PadChannels wants x (N, C, H, W), got {x.shape}.")
        backend, (n, c, h, w) = backend_of(x), x.shape
        if train:
            self.shape, self.home = x.shape, backend
        y = backend.xp.zeros((n, h, w, self.before + c + self.after), dtype=x.dtype)
        y[..., self.before : self.before + c] = x.transpose(0, 2, 3, 1)
        return y.transpose(0, 3, 1, 2)

    def backward(self, dout: Array) -> Array:
        n, c, h, w = self.shape
        self.expect_gradient(dout, (n, self.before + c + self.after, h, w), home=self.home)
        return dout[:, self.before : self.before + c]
