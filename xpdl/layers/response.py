"""Local response normalisation."""

from __future__ import annotations

from typing import Any

from xpdl.arguments import flag, number, whole_number
from xpdl.backends import Array, Shape, backend_of
from xpdl.layers.base import Layer
from xpdl.layers.checks import expect_images, image_shape
from xpdl.layers.kept import Kept

MOST_CHANNELS = 10**6


class LocalResponseNormalization(Layer):
    """Divide each number of an image by what the channels beside it answer at the same place.

    s[c] = bias + alpha sum of x[j]^2        y[c] = x[c] / s[c]^beta
    dL/dx[j] = dL/dy[j] / s[j]^beta - 2 alpha beta x[j] sum of dL/dy[c] x[c] / s[c]^(beta + 1)

    The first sum is over the `size` channels around c, as many of them as exist; the second over
    the channels c that have j among theirs. (Krizhevsky, Sutskever and Hinton 2012, section 3.3;
    AlexNet, and GoogLeNet as its paper has it.)

    Parameters
    ----------
    size : int
        Of how many channels; of an even number, one more lies before c than after it.
    bias, alpha, beta : float
        As in the formula; 2, 1e-4 and 0.75 in the paper, where the bias is called k.
    averaged : bool
        Whether alpha stands before the mean of the squares, alpha / size before their sum: so it
        is in PyTorch and Caffe, whose bias is 1 by default.
    """

    kind = "response"
    options = ("size", "bias", "alpha", "beta", "averaged")
    x: Any = Kept()
    s: Any = Kept()

    def __init__(
        self,
        size: int = 5,
        bias: float = 2.0,
        alpha: float = 1e-4,
        beta: float = 0.75,
        *,
        averaged: bool = False,
    ) -> None:
        super().__init__()
        self.size = whole_number("size", size, most=MOST_CHANNELS)
        self.bias = number("bias", bias, above=0)
        self.alpha = number("alpha", alpha)
        self.beta = number("beta", beta)
        self.averaged = flag("averaged", averaged)

    def plan(self, input_shape: Shape) -> Shape:
        return image_shape("LocalResponseNormalization", input_shape)

    def expect(self, x: Array) -> None:
        expect_images("LocalResponseNormalization", x)

    def forward(self, x: Array, train: bool = False) -> Array:
        y, s = backend_of(x).normalize_response(x, self.size, self.bias, self._alpha(), self.beta)
        if train:
            self.x, self.s = x, s
        return y

    def backward(self, dout: Array) -> Array:
        return backend_of(dout).normalize_response_backward(
            dout, self.x, self.s, self.size, self._alpha(), self.beta
        )

    def _alpha(self) -> float:
        return self.alpha / self.size if self.averaged else self.alpha
