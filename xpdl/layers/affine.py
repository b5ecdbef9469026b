"""The fully connected layer."""

from __future__ import annotations

import math
from typing import Any

from xpdl.arguments import LARGEST, flag, whole_number
from xpdl.backends import Array, Shape, backend_of
from xpdl.errors import ArgumentError, ShapeError
from xpdl.initializers import Constant, WeightInit, get_initializer
from xpdl.layers.base import Layer
from xpdl.layers.kept import Kept


class Affine(Layer):
    """Affine transformation of each sample; images (C, H, W) are flattened first.

    y = x W + b        dL/dx = dL/dy W^T        dL/dW = x^T dL/dy        dL/db = sum_n dL/dy
    (book, section 5.6)

    In a `Sequential`, a ReLU right behind it is computed here, in the same pass.

    Parameters
    ----------
    units : int or array
        How many outputs; or the weights W (in, out) themselves.
    b : array, (out,), optional
        With W, the biases.
    weight_init : str, float or Initializer
        How W starts: ``"he"``, ``"xavier"``, a standard deviation ...; b starts from zero.
    bias : bool
        Whether there is a b.
    """

    kind = "affine"
    takes_relu = True
    options = ("units", "bias")
    x: Any = Kept()
    y: Any = Kept()
    shape: Any = Kept()

    def __init__(
        self,
        units: int | Array,
        b: Array | None = None,
        *,
        weight_init: WeightInit = "he",
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.bias = flag("bias", bias)
        W: Any = units
        if isinstance(W, list) or (hasattr(W, "dtype") and W.shape):
            self.given(W=W, b=b)
            if W.ndim != 2 or (b is not None and b.shape != W.shape[1:]):
                raise ShapeError(
                    f"W must be (in, out) and b (out,), got {W.shape} and "
                    f"{None if b is None else b.shape}."
                )
            units, self.bias = W.shape[1], b is not None
        elif b is not None:
            raise ArgumentError(
                "b was given without W; write Affine(W, b), or Affine(units) alone: how many "
                "inputs there are, the layer finds out when it is built."
            )
        self.units = whole_number("units", units, most=LARGEST)
        self._initializer = get_initializer(weight_init)

    def plan(self, input_shape: Shape) -> Shape:
        n_in = math.prod(input_shape)
        self.parameter(
            "W",
            (n_in, self.units),
            self._initializer,
            fan_in=n_in,
            fan_out=self.units,
            decay=True,
        )
        if self.bias:
            self.parameter("b", (self.units,), Constant())
        return (self.units,)

    def expect(self, x: Array) -> None:
        super().expect(x)
        wanted = len(self.params["W"])
        if not x.ndim or math.prod(x.shape[1:]) != wanted:
            raise ShapeError(f"Affine wants {wanted} numbers a sample, got x of shape {x.shape}.")

    def forward(self, x: Array, train: bool = False) -> Array:
        W = self.params["W"]
        backend, flat = backend_of(x, W), x.reshape(len(x), len(W))
        y = backend.matmul(flat, W)
        backend.add_bias(y, self.params["b"] if self.bias else None, self.relu)
        if train:
            self.x, self.y, self.shape = flat, y if self.relu else None, x.shape
        return y

    def backward(self, dout: Array) -> Array:
        W, x = self.params["W"], self.x
        backend = backend_of(dout, W)
        dW, db = self.gradient_place("W"), self.gradient_place("b")
        if self.relu:
            dout = backend.relu_backward(dout, self.y, db)  # which sums in the same pass
        elif db is not None:
            backend.sum(dout, axis=0, out=db)
        if dW is not None:
            backend.matmul(x.T, dout, out=dW)
        if not self.input_gradient:
            return None  # type: ignore[return-value]  # only where a network does not want it
        return backend.matmul(dout, W.T).reshape(self.shape)
