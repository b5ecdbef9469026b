"""The convolution layer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from xpdl.arguments import LARGEST, flag, whole_number
from xpdl.backends import Array, Backend, Normal, Pads, Pair, Shape, backend_of, spread
from xpdl.errors import ArgumentError, ShapeError
from xpdl.functions import window_counts
from xpdl.initializers import Constant, WeightInit, get_initializer
from xpdl.layers.base import Layer
from xpdl.layers.checks import check_remainder, image_shape, pair
from xpdl.layers.kept import Kept
from xpdl.layers.padding import Padding, equal_part, padding, put_around, sides, take_off


class Convolution(Layer):
    """Filters slid over images (N, C, H, W), giving (N, FN, OH, OW).

    y[n, f, i, j] = b[f] + sum over c, k, l of W[f, c, k, l] x[n, c, i s + k - p, j s + l - p]
    OH = (H + 2 p - FH) / s + 1        (book, sections 7.2 and 7.4; equation 7.1)

    Backward is the same sum read the other way: every product W x that made y sends dL/dy W to x
    and dL/dy x to W. `Backend.convolution` and `Backend.convolution_backward` hold both.

    With `groups`, a filter sees only the C / groups channels of its own group (Krizhevsky et al.
    2012); with as many groups as channels, the convolution is depthwise (Howard et al. 2017,
    arXiv:1704.04861). With `dilation` d, a filter's numbers meet pixels that are d apart,
    x[n, c, i s + k d - p, j s + l d - p], and FH in the size is (FH - 1) d + 1 (Yu and Koltun 2016,
    arXiv:1511.07122). `Backend.grouped_convolution` holds both.

    In a `Sequential`, a ReLU right behind it is computed here, in the same pass, and max pooling
    behind that.

    Parameters
    ----------
    filters : int or array
        How many filters; or the filters W (FN, C / groups, FH, FW) themselves.
    size : int, (int, int) or array
        Height and width of a filter; with W, the biases b (FN,) or None.
    stride : int or (int, int)
        Steps between windows, down and across.
    pad : int, (int, int), ((int, int), (int, int)) or "same"
        Zeros around the image, down and across; or ((above, below), (left, right)); or as many as
        make OH = ceil(H / s), the odd one below and on the right.
    weight_init : str, float or Initializer
        How W starts: ``"he"``, ``"xavier"``, a standard deviation ...; b starts from zero.
    bias : bool
        Whether there is a b.
    remainder : {"error", "drop"}
        What to do where the windows do not fit the padded image evenly.
    groups : int
        In how many groups the channels and the filters are; both must divide by it.
    dilation : int or (int, int)
        How far apart the pixels are that a filter's numbers meet, down and across.
    """

    kind = "conv"
    takes_relu = True
    options = ("filters", "size", "stride", "pad", "bias", "remainder", "groups", "dilation")
    x: Any = Kept()  # with what was put around it, if its sides differ
    y: Any = Kept()
    image: Any = Kept()

    def __init__(
        self,
        filters: int | Array,
        size: int | Sequence[int] | Array | None = None,
        stride: int | Sequence[int] = 1,
        pad: int | str | Sequence[int] | Sequence[Sequence[int]] = 0,
        *,
        weight_init: WeightInit = "he",
        bias: bool = True,
        remainder: str = "error",
        groups: int = 1,
        dilation: int | Sequence[int] = 1,
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
        self.pad = padding("pad", pad)
        self.remainder = check_remainder(remainder)
        self.groups = whole_number("groups", groups, most=LARGEST)
        self.dilation = pair("dilation", dilation, least=1)
        if self.filters % self.groups:
            raise ArgumentError(
                f"groups must divide the filters, got {self.groups} groups and "
                f"{self.filters} filters."
            )
        self._initializer = get_initializer(weight_init)

    def plan(self, input_shape: Shape) -> Shape:
        c, h, w = image_shape("Convolution", input_shape)
        if c % self.groups:
            raise ShapeError(
                f"groups must divide the channels, got {self.groups} groups and {c} channels."
            )
        _, counts = self._geometry((h, w))
        area = self.size[0] * self.size[1]
        self.parameter(
            "W",
            (self.filters, c // self.groups, *self.size),
            self._initializer,
            fan_in=c // self.groups * area,
            fan_out=self.filters // self.groups * area,
            decay=True,
        )
        if self.bias:
            self.parameter("b", (self.filters,), Constant())
        return (self.filters, *counts)

    def expect(self, x: Array) -> None:
        super().expect(x)
        channels = self.params["W"].shape[1] * self.groups
        if x.ndim != 4 or x.shape[1] != channels:
            raise ShapeError(f"Convolution wants x of shape (N, {channels}, H, W), got {x.shape}.")

    def forward(self, x: Array, train: bool = False) -> Array:
        backend, image = backend_of(x, self.params["W"]), x.shape[2:]
        x, W, b, pad = self._ready(backend, x)
        pooling = self.pooled
        if pooling and pooling.is_computed_before():
            counts = self._geometry(image)[1]
            pooling.plan((self.filters, *counts))
            how, window = (self.stride, pad), (pooling.size, pooling.stride)
            y, winners = backend.convolution_pooling(x, W, b, how, window, train)
            if train:
                pooling.keep(backend, (len(x), self.filters, *counts), y, winners)
        elif self._plain():
            y = backend.convolution(x, W, b, self.stride, pad, self.relu)
        else:
            y = backend.grouped_convolution(
                x, W, b, self.stride, pad, self.dilation, self.groups, self.relu
            )
        if train:
            self.x, self.y, self.image = x, y if self.relu else None, image
        return y

    def normalized(self, x: Array, norm: Normal, relu: bool) -> Array:
        """Return factor (y - mean) + shift, with y of `forward`; with `relu`, no less than 0."""
        backend = backend_of(x, self.params["W"])
        x, W, b, pad = self._ready(backend, x)
        how = self.stride, pad, self.dilation, self.groups
        return backend.convolution_normalized(x, W, b, how, norm, relu)

    def _ready(self, backend: Backend, x: Array) -> tuple[Array, Array, Array | None, Pair]:
        """Return x with what is put around it, and W and b, and what is left to pad."""
        W, b = self.params["W"], self.params["b"] if self.bias else None
        pads, _ = self._geometry(x.shape[2:])
        x = put_around(backend, x, pads)
        # A device's kernels know arrays of one type; a network's are so anyway.
        b = None if b is None else b.astype(x.dtype, copy=False)
        return x, W.astype(x.dtype, copy=False), b, equal_part(pads)

    def backward(self, dout: Array) -> Array:
        x, image = self.x, self.image
        backend = backend_of(dout, x)
        dout, W = (a.astype(x.dtype, copy=False) for a in (dout, self.params["W"]))
        pads, _ = self._geometry(image)
        dx = self._gradients(backend, dout, x, W, equal_part(pads))
        # None only where a network does not want it
        return dx if dx is None else take_off(dx, pads, image)  # type: ignore[return-value]

    def _gradients(self, backend: Backend, dout: Array, x: Array, W: Array, pad: Pair) -> Any:
        """Return dL/dx, None where a network does not want it, and fill `grads`."""
        # A pooling that knows of the ReLU has taken its gradient, and summed it for b.
        y = self.y if self.relu and not self.pooled else None
        dW, db = self.gradient_place("W"), None if self.pooled else self.gradient_place("b")
        if self._plain():
            dx, _, _ = backend.convolution_backward(
                *(dout, x, W, self.stride, pad, self.input_gradient, db is not None, y, dW, db)
            )
            return dx
        if y is not None:
            dout = backend.relu_backward(dout, y)
        dx, *found = backend.grouped_convolution_backward(
            dout, x, W, self.stride, pad, self.dilation, self.groups, self.input_gradient
        )
        for place, gradient in zip((dW, db), found, strict=True):
            if place is not None:
                place[...] = gradient
        return dx

    def can_pool(self) -> bool:
        """Tell whether the max pooling that knows of its ReLU is computed here."""
        return self._plain() and self.pooled.pad == (0, 0) and self.pooled.remainder != "keep"

    def _plain(self) -> bool:
        return self.groups == 1 and self.dilation == (1, 1)

    def _geometry(self, image: Sequence[int]) -> tuple[Pads, Pair]:
        return _geometry((*image,), self.pad, self.size, self.stride, self.dilation, self.remainder)


@lru_cache(maxsize=1024)
def _geometry(
    image: Shape, pad: Padding, size: Pair, stride: Pair, dilation: Pair, remainder: str
) -> tuple[Pads, Pair]:
    """Return what lies around an image (H, W), and how many windows there are."""
    pads = sides(pad, image, size, stride, dilation)
    reach = spread(size[0], dilation[0]), spread(size[1], dilation[1])
    return pads, window_counts(image, reach, stride, pads, "drop" if pad == "same" else remainder)
