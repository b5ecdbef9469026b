"""Layers that make images smaller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xpdl.backends import Array, Shape, accumulation_dtype, backend_of
from xpdl.errors import ArgumentError, ShapeError
from xpdl.functions import window_counts
from xpdl.layers.base import Kept, Layer, check_remainder, expect_floats, image_shape, pair


class _Pooling(Layer):
    """A window slid over each channel of images (N, C, H, W), giving (N, C, OH, OW).

    Parameters
    ----------
    size : int or (int, int)
        Height and width of the window.
    stride : int or (int, int), optional
        Steps between windows, down and across; the window's own size by default.
    pad : int or (int, int)
        Rows and columns added around the image.
    remainder : {"error", "drop"}
        What to do where the windows do not fit the padded image evenly.
    """

    kind = "pool"
    options = ("size", "stride", "pad", "remainder")
    shape: Any = Kept()
    output_shape: Any = Kept()
    home: Any = Kept()

    def __init__(
        self,
        size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        pad: int | Sequence[int] = 0,
        *,
        remainder: str = "error",
    ) -> None:
        super().__init__()
        self.size = pair("size", size, least=1)
        self.stride = self.size if stride is None else pair("stride", stride, least=1)
        self.pad = pair("pad", pad, least=0)
        if self.pad[0] >= self.size[0] or self.pad[1] >= self.size[1]:
            raise ArgumentError(
                f"pad must be smaller than the window {self.size}, got {self.pad}: "
                "a window that sees padding alone has nothing to pool."
            )
        self.remainder = check_remainder(remainder)

    def plan(self, input_shape: Shape) -> Shape:
        c, h, w = image_shape(type(self).__name__, input_shape)
        return (c, *window_counts((h, w), self.size, self.stride, self.pad, self.remainder))

    def _pooled_shape(self, x: Array) -> Shape:
        """Return the shape of the output for x, once x is seen to fit."""
        expect_floats(type(self).__name__, x)
        if x.ndim != 4:
            raise ShapeError(f"{type(self).__name__} wants x (N, C, H, W), got {x.shape}.")
        counts = window_counts(x.shape[2:], self.size, self.stride, self.pad, self.remainder)
        return (*x.shape[:2], *counts)


class MaxPooling(_Pooling):
    """The largest number of each window; its gradient goes to the one that won.

    y = max of the window        dL/dx = dL/dy at the winner, 0 elsewhere   (book, section 7.3)

    Of equals the first, in reading order, wins. Padding never wins.
    """

    __doc__ += (_Pooling.__doc__ or "").partition("\n\n")[2]
    winners: Any = Kept()
    y: Any = Kept()
    product: Layer | None = None  # whose ReLU stands before this one; see `Sequential.plan`

    def forward(self, x: Array, train: bool = False) -> Array:
        output_shape = self._pooled_shape(x)
        backend = backend_of(x)
        y, winners = backend.max_pooling(x, self.size, self.stride, self.pad, train)
        if train:
            self.shape, self.output_shape, self.home = x.shape, output_shape, backend
            self.winners, self.y = winners, None if self.product is None else y
        return y

    def backward(self, dout: Array) -> Array:
        backend = self.expect_gradient(dout, self.output_shape, home=self.home)
        window = self.winners, self.shape, self.size, self.stride, self.pad
        if self.product is None:
            return backend.max_pooling_backward(dout, *window)
        # The ReLU's gradient too, and the sum that is the gradient of the product's b.
        return backend.max_pooling_backward(dout, *window, self.y, self.product.gradient_place("b"))


class AveragePooling(_Pooling):
    """The mean of each window; its gradient is shared evenly.

    y = mean of the window        dL/dx = dL/dy / (FH FW), summed over windows

    The padding counts, as zeros.
    """

    __doc__ += (_Pooling.__doc__ or "").partition("\n\n")[2]

    def forward(self, x: Array, train: bool = False) -> Array:
        output_shape, backend = self._pooled_shape(x), backend_of(x)
        if train:
            self.shape, self.output_shape, self.home = x.shape, output_shape, backend
        return backend.average_pooling(x, self.size, self.stride, self.pad)

    def backward(self, dout: Array) -> Array:
        backend = self.expect_gradient(dout, self.output_shape, home=self.home)
        return backend.average_pooling_backward(dout, self.shape, self.size, self.stride, self.pad)


class GlobalAveragePooling(Layer):
    """The mean of each channel: images (N, C, H, W) become (N, C). Lin et al. 2013.

    y = mean over H, W        dL/dx = dL/dy / (H W)
    """

    kind = "pool"
    shape: Any = Kept()
    home: Any = Kept()

    def plan(self, input_shape: Shape) -> Shape:
        return image_shape("GlobalAveragePooling", input_shape)[:1]

    def forward(self, x: Array, train: bool = False) -> Array:
        expect_floats("GlobalAveragePooling", x)
        if x.ndim != 4 or not x.shape[2] * x.shape[3]:
            raise ShapeError(f"GlobalAveragePooling wants x (N, C, H, W), got {x.shape}.")
        backend = backend_of(x)
        if train:
            self.shape, self.home = x.shape, backend
        mean = x.mean(axis=(2, 3), dtype=accumulation_dtype(x.dtype))
        return mean.astype(x.dtype, copy=False)

    def backward(self, dout: Array) -> Array:
        n, c, h, w = self.shape
        backend = self.expect_gradient(dout, (n, c), home=self.home)
        share = (dout / (h * w))[:, :, None, None]
        return backend.xp.broadcast_to(share, self.shape)
