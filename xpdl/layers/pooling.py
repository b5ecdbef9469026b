"""Layers that make images smaller."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from xpdl.arguments import flag, one_of
from xpdl.backends import (
    Array,
    Backend,
    Pads,
    Pair,
    Shape,
    accumulation_dtype,
    array_module,
    backend_of,
)
from xpdl.errors import ArgumentError
from xpdl.functions import window_counts
from xpdl.layers.base import Layer
from xpdl.layers.checks import expect_images, image_shape, pair
from xpdl.layers.kept import Kept
from xpdl.layers.padding import equal_part, kept, put_around, shape_around, take_off


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
    remainder : {"error", "drop", "keep"}
        What to do where the windows do not fit the padded image evenly: refuse; leave the last
        pixels unseen; or let a last window hang over, if it begins in the image or before it, as
        PyTorch does with ``ceil_mode``, and Caffe.
    """

    kind = "pool"
    options: ClassVar[tuple[str, ...]] = ("size", "stride", "pad", "remainder")
    shape: Any = Kept()
    home: Any = Kept()  # the winners of one backend are not another's

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
        self.remainder = one_of("remainder", remainder, ("error", "drop", "keep"))

    def plan(self, input_shape: Shape) -> Shape:
        c, h, w = image_shape(type(self).__name__, input_shape)
        return (c, *self._geometry((h, w))[1])

    def expect(self, x: Array) -> None:
        expect_images(type(self).__name__, x)

    def _geometry(self, image: Sequence[int]) -> tuple[Pads, Pair]:
        """Return what lies around an image (H, W), and how many windows there are."""
        (down, across), (h, w) = self.pad, image
        pads, remainder = ((down, down), (across, across)), self.remainder
        if remainder == "keep" and min(h, w) > 0:
            pads, remainder = kept(pads, (h, w), self.size, self.stride), "drop"
        return pads, window_counts((h, w), self.size, self.stride, pads, remainder)


class MaxPooling(_Pooling):
    """The largest number of each window; its gradient goes to the one that won.

    y = max of the window        dL/dx = dL/dy at the winner, 0 elsewhere   (book, section 7.3)

    Of equals the first, in reading order, wins. Padding never wins.
    """

    __doc__ += (_Pooling.__doc__ or "").partition("\n\n")[2]
    winners: Any = Kept()
    y: Any = Kept()
    product: Layer | None = None  # whose ReLU stands before this one; see `Graph.plan`
    computed_before = False  # by the product, in the pass that it makes anyway

    def forward(self, x: Array, train: bool = False) -> Array:
        if self.is_computed_before():
            return x
        backend, shape = backend_of(x), x.shape
        pads, _ = self._geometry(shape[2:])
        x = put_around(backend, x, pads, -math.inf)
        y, winners = backend.max_pooling(x, self.size, self.stride, equal_part(pads), train)
        if train:
            self.keep(backend, shape, y, winners)
        return y

    def is_computed_before(self) -> bool:
        """Tell whether x is pooled; layers that are used alone are each looked at, and are not."""
        return self.computed_before and self.owned

    def keep(self, backend: Backend, shape: Shape, y: Array, winners: Any) -> None:
        """Keep what `backward` needs: of images of a `shape`, what `max_pooling` gave for them."""
        self.shape, self.home = shape, backend
        self.winners, self.y = winners, None if self.product is None else y

    def backward(self, dout: Array) -> Array:
        backend, image = self.home, self.shape
        pads, _ = self._geometry(image[2:])
        window = self.winners, shape_around(image, pads), self.size, self.stride, equal_part(pads)
        if self.product is None:
            dx = backend.max_pooling_backward(dout, *window)
        else:  # the ReLU's gradient too, and the sum that is the gradient of the product's b
            db = self.product.gradient_place("b")
            dx = backend.max_pooling_backward(dout, *window, self.y, db)
        return take_off(dx, pads, image[2:])


class AveragePooling(_Pooling):
    """The mean of each window; its gradient is shared evenly.

    y = sum of the window / n        dL/dx = sum over windows of dL/dy / n

    n = FH FW, the padding counts, as zeros; what hangs over (``remainder="keep"``) does not.
    With ``count_pad=False``, n is how many pixels of the image a window sees.
    """

    __doc__ += (_Pooling.__doc__ or "").partition("\n\n")[2].rstrip()
    __doc__ += """
    count_pad : bool
        Whether the padding counts, as in PyTorch and Caffe by default. TensorFlow's does not.
    """

    options = (*_Pooling.options, "count_pad")

    def __init__(
        self,
        size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        pad: int | Sequence[int] = 0,
        *,
        remainder: str = "error",
        count_pad: bool = True,
    ) -> None:
        super().__init__(size, stride, pad, remainder=remainder)
        self.count_pad = flag("count_pad", count_pad)

    def forward(self, x: Array, train: bool = False) -> Array:
        backend, shape = backend_of(x), x.shape
        pads, _ = self._geometry(shape[2:])
        x = put_around(backend, x, pads)
        if train:
            self.shape = shape
        y = backend.average_pooling(x, self.size, self.stride, equal_part(pads))
        return self._by_count(y, shape, pads)

    def backward(self, dout: Array) -> Array:
        backend, image = backend_of(dout), self.shape
        pads, _ = self._geometry(image[2:])
        dx = backend.average_pooling_backward(
            *(self._by_count(dout, image, pads), shape_around(image, pads)),
            *(self.size, self.stride, equal_part(pads)),
        )
        return take_off(dx, pads, image[2:])

    def _by_count(self, y: Array, shape: Shape, pads: Pads) -> Array:
        """Return y, of which each number is a sum over FH FW, as one over what counts in truth."""
        down, across = self.pad
        as_told = pads == ((down, down), (across, across))
        if as_told and (self.count_pad or self.pad == (0, 0)):
            return y
        xp = backend_of(y).xp
        wide = accumulation_dtype(y.dtype)
        factors = []
        for axis in (0, 1):
            size, length, count = self.size[axis], shape[2 + axis], y.shape[2 + axis]
            edge = self.pad[axis] if self.count_pad else 0
            begin = xp.arange(count) * self.stride[axis] - self.pad[axis]
            seen = xp.minimum(begin + size, length + edge) - xp.maximum(begin, -edge)
            factors.append(size / seen.astype(wide))
        result = xp.empty_like(y)
        factor = factors[0][:, None] * factors[1]
        return xp.multiply(y, factor, out=result, casting="same_kind")


class GlobalAveragePooling(Layer):
    """The mean of each channel: images (N, C, H, W) become (N, C). Lin et al. 2013.

    y = mean over H, W        dL/dx = dL/dy / (H W)
    """

    kind = "pool"
    shape: Any = Kept()

    def plan(self, input_shape: Shape) -> Shape:
        return image_shape("GlobalAveragePooling", input_shape)[:1]

    def expect(self, x: Array) -> None:
        expect_images("GlobalAveragePooling", x, pixels=True)

    def forward(self, x: Array, train: bool = False) -> Array:
        if train:
            self.shape = x.shape
        mean = x.mean(axis=(2, 3), dtype=accumulation_dtype(x.dtype))
        return mean.astype(x.dtype, copy=False)

    def backward(self, dout: Array) -> Array:
        _, _, h, w = self.shape
        share = (dout / (h * w))[:, :, None, None]
        return array_module(dout).broadcast_to(share, self.shape)


class AdaptiveAveragePooling(Layer):
    """Means of as many windows as are asked for, however large the image: (N, C, OH, OW).

    y = mean of the window        dL/dx = sum over windows of dL/dy / (its pixels)

    Window i of OH reaches from floor(i H / OH) to ceil((i + 1) H / OH): windows overlap by a pixel
    where OH does not divide H, and pixels are repeated where OH is larger. As in PyTorch; AlexNet
    and VGG have it there before their first affine layer, so that images need not be of one size.

    Down and across, that is a product with a matrix of shares: y = R x C^T, dL/dx = R^T dL/dy C.

    Parameters
    ----------
    size : int or (int, int)
        OH and OW.
    """

    kind = "pool"
    options = ("size",)
    shape: Any = Kept()

    def __init__(self, size: int | Sequence[int]) -> None:
        super().__init__()
        self.size = pair("size", size, least=1)

    def plan(self, input_shape: Shape) -> Shape:
        return (image_shape("AdaptiveAveragePooling", input_shape)[0], *self.size)

    def expect(self, x: Array) -> None:
        expect_images("AdaptiveAveragePooling", x, pixels=True)

    def forward(self, x: Array, train: bool = False) -> Array:
        if train:
            self.shape = x.shape
        rows, columns = (
            _shares(array_module(x), length, count, x.dtype)
            for length, count in zip(x.shape[2:], self.size, strict=True)
        )
        return self._product(rows, x, columns.T)

    def backward(self, dout: Array) -> Array:
        rows, columns = (
            _shares(array_module(dout), length, count, dout.dtype)
            for length, count in zip(self.shape[2:], self.size, strict=True)
        )
        return self._product(rows.T, dout, columns)

    def _product(self, rows: Array, x: Array, columns: Array) -> Array:
        wide = accumulation_dtype(x.dtype)
        xp = array_module(x)
        y = xp.matmul(xp.matmul(rows, x.astype(wide, copy=False)), columns)
        return y.astype(x.dtype, copy=False)


def _shares(xp: Any, length: int, count: int, dtype: Any) -> Array:
    """Return which share of each window each of `length` pixels has, (count, length)."""
    i, pixels = xp.arange(count), xp.arange(length)
    begin, end = i * length // count, -(-(i + 1) * length // count)
    inside = (begin[:, None] <= pixels) & (pixels < end[:, None])
    wide = accumulation_dtype(dtype)
    return inside.astype(wide) / (end - begin).astype(wide)[:, None]
