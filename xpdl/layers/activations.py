"""Activations: functions of each number, and softmax."""

from __future__ import annotations

from typing import Any

from xpdl import functions
from xpdl.backends import Array, accumulation_dtype, array_module, backend_of
from xpdl.errors import ShapeError
from xpdl.layers.base import Layer
from xpdl.layers.kept import Kept

HEIGHT, SLOPE = 1.7159, 2 / 3  # of LeNet-5's tanh


class ReLU(Layer):
    """Rectified linear unit, element by element, on an array of any shape.

    y = max(x, 0)        dL/dx = dL/dy where x > 0, else 0        (book, 3.7, 5.7, 5.8)
    """

    kind = "relu"
    y: Any = Kept()
    computed_before = False  # by the layer before it, both ways, in the passes that it makes anyway

    def forward(self, x: Array, train: bool = False) -> Array:
        y = x if self.computed_before else functions.relu(x)
        if train:
            self.y = y
        return y

    def backward(self, dout: Array) -> Array:
        return dout if self.computed_before else backend_of(dout).relu_backward(dout, self.y)


class ReLU6(Layer):
    """Rectified linear unit that ends at 6, element by element, on an array of any shape.

    y = min(max(x, 0), 6)        dL/dx = dL/dy where 0 < x < 6, else 0        (Krizhevsky 2010)

    Its numbers keep their precision in few bits; MobileNetV2 (Sandler et al. 2018) is made of it.
    """

    kind = "relu"
    y: Any = Kept()

    def forward(self, x: Array, train: bool = False) -> Array:
        y = backend_of(x).relu6(x)
        if train:
            self.y = y
        return y

    def backward(self, dout: Array) -> Array:
        return backend_of(dout).relu6_backward(dout, self.y)


class Sigmoid(Layer):
    """Logistic activation, element by element, on an array of any shape.

    y = 1 / (1 + exp(-x))        dL/dx = dL/dy y (1 - y)        (book, 5.9, 5.12)
    """

    kind = "sigmoid"
    y: Any = Kept()

    def forward(self, x: Array, train: bool = False) -> Array:
        y = functions.sigmoid(x)
        if train:
            self.y = y
        return y

    def backward(self, dout: Array) -> Array:
        return dout * self.y * (1 - self.y)


class Tanh(Layer):
    """Hyperbolic tangent, element by element, on an array of any shape.

    y = tanh x        dL/dx = dL/dy (1 - y^2)
    """

    kind = "tanh"
    y: Any = Kept()

    def forward(self, x: Array, train: bool = False) -> Array:
        y = functions.tanh(x)
        if train:
            self.y = y
        return y

    def backward(self, dout: Array) -> Array:
        return dout * (1 - self.y * self.y)


class ScaledTanh(Layer):
    """Hyperbolic tangent that is steep where it matters: f(1) = 1, f(-1) = -1.

    y = A tanh(2 x / 3), A = 1.7159        dL/dx = dL/dy 2 / 3 (A - y^2 / A)
    (LeCun et al. 1998, equation 6 and appendix A; LeNet-5)
    """

    kind = "tanh"
    y: Any = Kept()

    def forward(self, x: Array, train: bool = False) -> Array:
        y = HEIGHT * functions.tanh(array_module(x).asarray(SLOPE * x))
        if train:
            self.y = y
        return y

    def backward(self, dout: Array) -> Array:
        return dout * (SLOPE * (HEIGHT - self.y * self.y / HEIGHT))


class Softmax(Layer):
    """Scores to probabilities, along the last axis.

    y_k = exp(x_k) / sum_i exp(x_i)        dL/dx = y (dL/dy - sum_i dL/dy_i y_i)   (book, 3.10)

    A network that ends in `SoftmaxWithLoss` needs none.
    """

    kind = "softmax"
    y: Any = Kept()

    def expect(self, x: Array) -> None:
        super().expect(x)
        if not x.ndim or not x.shape[-1]:
            raise ShapeError(f"Softmax wants x (..., K) of one score at least, got {x.shape}.")

    def forward(self, x: Array, train: bool = False) -> Array:
        y = functions.softmax(x)
        if train:
            self.y = y
        return y

    def backward(self, dout: Array) -> Array:
        wide = accumulation_dtype(dout.dtype)
        inner = (dout * self.y).sum(axis=-1, keepdims=True, dtype=wide)
        return (self.y * (dout - inner)).astype(dout.dtype, copy=False)
