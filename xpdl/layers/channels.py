"""A layer that adds channels."""

from __future__ import annotations

from typing import Any

from xpdl.arguments import LARGEST, whole_number
from xpdl.backends import Array, Shape, array_module
from xpdl.layers.base import Layer
from xpdl.layers.checks import expect_images, image_shape
from xpdl.layers.kept import Kept


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
    channels: Any = Kept()

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.before = whole_number("before", before, least=0, most=LARGEST)
        self.after = whole_number("after", after, least=0, most=LARGEST)

    def plan(self, input_shape: Shape) -> Shape:
        c, h, w = image_shape("PadChannels", input_shape)
        return (self.before + c + self.after, h, w)

    def expect(self, x: Array) -> None:
        expect_images("PadChannels", x)

    def forward(self, x: Array, train: bool = False) -> Array:
        n, c, h, w = x.shape
        if train:
            self.channels = c
        y = array_module(x).zeros((n, h, w, self.before + c + self.after), dtype=x.dtype)
        y[..., self.before : self.before + c] = x.transpose(0, 2, 3, 1)
        return y.transpose(0, 3, 1, 2)

    def backward(self, dout: Array) -> Array:
        return dout[:, self.before : self.before + self.channels]
