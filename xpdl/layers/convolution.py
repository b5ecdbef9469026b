"""The convolution layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xpdl.arguments import LARGEST, flag, whole_number
from xpdl.backends import Array, Shape, backend_of
from xpdl.errors import ArgumentError, ShapeError
from xpdl.functions import window_counts
from xpdl.initializers import Constant, WeightInit, get_initializer
from xpdl.layers.base import Kept, Layer, check_remainder, expect_floats, image_shape, pair


class Convolution(Layer):
    """Filters slid over images (N, C, H, W), giving (N, FN, OH, OW).

    y[n, f, i, j] = b[f] + sum over c, k, l of W[f, c, k, l] x[n, c, i s + k - p, j s + l - p]
    OH = (H + 2 p - FH) / s + 1        (book, sections 7.2 and 7.4; equation 7.1)

    Backward is the same sum read the other way: every product W x that made y sends dL/dy W to x
    and dL/dy x to W. `Backend.convolution` and `Backend.convolution_backward` hold both.

    In a `Sequential`, a ReLU right behind it is computed here, in the same pass.

    Parameters
    ----------
    filters : int or array
        How many filters; or the filters W (FN, C, FH, FW) themselves.
    size : int, (int, int) or array
        Height and width of a filter; with W, the biases b (FN,) or None.
    stride, pad : int or (int, int)
        Steps between windows, and zeros around the image, down and across.
    weight_init : str, float or Initializer
        How W starts: ``"he"``, ``"xavier"``, a standard deviation ...; b starts from zero.
    bias : bool
        Whether there is a b.
    remainder : {"error", "drop"}
        What to do where the windows do not fit the padded image evenly.
    """

    kind = "conv"
    takes_relu = True
    options = ("filters", "size", "stride", "pad", "bias", "remainder")
    x: Any = Kept()
    y: Any = Kept()
    counts: Any = Kept()

    def __init__(
        self,
        filters: int | Array,
        size: int | Sequence[int] | Array | None = None,
        stride: int | Sequence[int] = 1,
        pad: int | Sequence[int] = 0,
        *,
        weight_init: WeightInit = "he",
        bias: bool = True,
        remainder: str = "error",
    ) -> None:
        super().__init__()
        self.bias = flag("bias", bias)
        W: Any = filters
        if isinstance(W, list) or (hasattr(W, "dtype") and W.shape):
            b: Any = size
            self.given(W=W, b=b)
            if W.ndim != 4 or not (b is None or getattr(b, "shape", None) == W.shape[:1]):
                raise ShapeError(
                    f"W must be (FN, C, FH, FW) and b (FN,), got {W.shape} and "
                    f"{getattr(b, 'shape', b)}."
                )
            filters, size, self.bias = W.shape[0], W.shape[2:], b is not None
        if size is None:
            raise ArgumentError("size is missing: the height and width of a filter, such as 3.")
        self.filters = whole_number("filters", filters, most=LARGEST)
        self.size = pair("size", size, least=1)  # type: ignore[arg-type]
        self.stride = pair("stride", stride, least=1)
        self.pad = pair("pad", pad, least=0)
        self.remainder = check_remainder(remainder)
        self._initializer = get_initializer(weight_init)

    def plan(self, input_shape: Shape) -> Shape:
        c, h, w = image_shape("Convolution", input_shape)
        counts = window_counts((h, w), self.size, self.stride, self.pad, self.remainder)
        area = self.size[0] * self.size[1]
        self.parameter(
            "W",
            (self.filters, c, *self.size),
            self._initializer,
            fan_in=c * area,
            fan_out=self.filters * area,
            decay=True,
        )
        if self.bias:
            self.parameter("b", (self.filters,), Constant())
        return (self.filters, *counts)

    def forward(self, x: Array, train: bool = False) -> Array:
        expect_floats("Convolution", x)
        W, b = self.params["W"], self.params["b"] if self.bias else None
        if x.ndim != 4 or x.shape[1] != W.shape[1]:
            raise ShapeError(
                f"Convolution wants x of shape (N, {W.shape[1]}, H, W), got {x.shape}."
            )
        counts = window_counts(x.shape[2:], self.size, self.stride, self.pad, self.remainder)
        backend = backend_of(x, W)
        # A device's kernels know arrays of one type; a network's are so anyway.
        W = W.astype(x.dtype, copy=False)
        b = None if b is None else b.astype(x.dtype, copy=False)
        y = backend.convolution(x, W, b, self.stride, self.pad, self.relu)
        if train:
            self.x, self.y, self.counts = x, y if self.relu else None, counts
        return y

    def backward(self, dout: Array) -> Array:
        x = self.x
        backend = self.expect_gradient(dout, (len(x), self.filters, *self.counts), x)
        dout, W = (a.astype(x.dtype, copy=False) for a in (dout, self.params["W"]))
        # A pooling that knows of the ReLU has taken its gradient, and summed it for b.
        y = self.y if self.relu and not self.pooled else None
        dW, db = self.gradient_place("W"), None if self.pooled else self.gradient_place("b")
        dx, _, _ = backend.convolution_backward(
            *(dout, x, W, self.stride, self.pad, self.input_gradient, db is not None, y, dW, db)
        )
        return dx  # type: ignore[return-value]  # None only where a network does not want it
