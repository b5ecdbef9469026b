"""What a network ends in: the loss, and its gradient by the scores."""

from __future__ import annotations

from typing import Any, ClassVar

from xpdl import functions
from xpdl.backends import Array, backend_of
from xpdl.errors import ArgumentError, ShapeError
from xpdl.layers.base import Kept


class Loss:
    """Base of the losses: a mean over the batch, (), in float32 at least, on the device."""

    classes: ClassVar[dict[str, type[Loss]]] = {}
    classifies: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        Loss.classes[cls.__name__] = cls

    def forward(self, x: Array, t: Array) -> Array:
        """Return the mean loss of scores x (N, K) for targets t."""
        raise NotImplementedError

    def backward(self, dout: float | Array = 1.0) -> Array:
        """Return dL/dx (N, K) in the type of x; `dout` is the gradient by the loss itself."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """Return what it takes to make the loss again, as JSON can hold it."""
        return {"type": type(self).__name__}


class SoftmaxWithLoss(Loss):
    """Softmax and cross entropy together.

    y = softmax(x)        L = -1/N sum_n sum_k t_k log y_k        dL/dx = (y - t) / N
    (book, section 5.6.3 and appendix A; `Backend.softmax_with_loss` holds both)

    Targets are class numbers (N,) or one-hot (N, K), which may also be probabilities.
    """

    classifies = True
    y: Any = Kept()
    t: Any = Kept()

    def forward(self, x: Array, t: Array) -> Array:
        if x.ndim != 2:
            raise ShapeError(f"scores must be (N, K), got x of shape {x.shape}.")
        if not len(x):
            raise ArgumentError("the batch is empty; the mean loss of nothing is undefined.")
        functions.check_targets(t, x.shape)
        self.t, self._dtype = t, x.dtype
        loss, self.y = backend_of(x, t).softmax_with_loss(x, t)
        return loss

    def backward(self, dout: float | Array = 1.0) -> Array:
        y = self.y
        return backend_of(y).softmax_with_loss_backward(y, self.t, dout, self._dtype)


class IdentityWithLoss(Loss):
    """Half the squared error of outputs as they are, for regression.

    L = 1/(2N) sum_n sum_k (x_k - t_k)^2        dL/dx = (x - t) / N      (book, equation 4.1)

    Targets have the shape of x, (N, K).
    """

    difference: Any = Kept()

    def forward(self, x: Array, t: Array) -> Array:
        if not len(x):
            raise ArgumentError("the batch is empty; the mean loss of nothing is undefined.")
        loss = functions.sum_squared_error(x, t)
        self.difference, self._dtype = x - t, x.dtype
        return loss

    def backward(self, dout: float | Array = 1.0) -> Array:
        dx = self.difference * (dout / len(self.difference))
        return dx.astype(self._dtype, copy=False)
