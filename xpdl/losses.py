"""What a network ends in: the loss, and its gradient by the scores."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any, ClassVar

from xpdl import functions
from xpdl.arguments import number, one_number, plainly, real_array
from xpdl.backends import Array, accumulation_dtype, backend_of
from xpdl.errors import ArgumentError, ShapeError, shown
from xpdl.layers.base import Kept, expect_floats, named_type


class Loss:
    """Base of the losses: a mean over the batch, (), in float32 at least, on the device.

    A subclass names in `options` the arguments that it was made with, so that a file can say how
    to make it again.
    """

    classes: ClassVar[dict[str, type[Loss]]] = {}
    options: ClassVar[tuple[str, ...]] = ()
    classifies: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        known = Loss.classes.get(cls.__name__)
        if known is not None and known.__module__.startswith("xpdl."):
            raise ArgumentError(f"there is a loss {cls.__name__} in xpdl; choose another name.")
        Loss.classes[cls.__name__] = cls

    def forward(self, x: Array, t: Array) -> Array:
        """Return the mean loss of scores x (N, K) for targets t."""
        raise NotImplementedError

    def backward(self, dout: float | Array = 1.0) -> Array:
        """Return dL/dx (N, K) in the type of x; `dout` is the gradient by the loss itself."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """Return what it takes to make the loss again, as JSON can hold it.

        Options that are as usual are left out, so that a loss without any is described as ever.
        """
        usual = inspect.signature(type(self)).parameters
        options = {name: getattr(self, name) for name in self.options if name in usual}
        changed = {name: value for name, value in options.items() if value != usual[name].default}
        return {"type": type(self).__name__} | changed


def loss_from_config(config: Mapping[str, Any]) -> Loss:
    """Make the loss that ``config["type"]`` names, with the options beside it.

    Raises
    ------
    UnknownNameError
        If there is no such loss; one of your own must be imported first.
    ArgumentError
        If the options are not that loss's.
    """
    kind = named_type(config, "loss", Loss.classes)
    try:
        return Loss.classes[kind](**{name: config[name] for name in config if name != "type"})
    except TypeError as error:
        raise ArgumentError(
            f"{kind} cannot be made from {shown(config)}: {plainly(error)}."
        ) from error


class SoftmaxWithLoss(Loss):
    """Softmax and cross entropy together.

    y = softmax(x)        L = -1/N sum_n sum_k t_k log y_k        dL/dx = (y - t) / N
    (book, section 5.6.3 and appendix A; `Backend.softmax_with_loss` holds both)

    Targets are class numbers (N,) or one-hot (N, K), which may also be probabilities. With label
    smoothing e, (1 - e) t + e/K takes the place of t, so that no score must grow without end
    (Szegedy et al. 2016, arXiv:1512.00567, section 7).

    Parameters
    ----------
    label_smoothing : float
        The share e of each target that is spread evenly over all classes, at least 0 and below 1.
        It is part of the loss wherever that is asked for, in training or not, as in PyTorch: it
        cannot fall to 0, and compares with none of another e. Accuracy knows nothing of it.
    """

    classifies = True
    options = ("label_smoothing",)
    label_smoothing = 0.0
    y: Any = Kept()
    t: Any = Kept()

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = number("label_smoothing", label_smoothing, below=1)

    def forward(self, x: Array, t: Array) -> Array:
        expect_floats("SoftmaxWithLoss", x)
        if x.ndim != 2 or not x.shape[1]:
            raise ShapeError(f"scores must be (N, K), got x of shape {x.shape}.")
        _expect_examples(x)
        functions.check_targets(real_array("t", t), x.shape)
        backend = backend_of(x, t)
        if self.label_smoothing:
            t = self._smooth(t, x.shape[1], accumulation_dtype(x.dtype))
        self.t, self._dtype = t, x.dtype
        loss, self.y = backend.softmax_with_loss(x, t)
        return loss

    def _smooth(self, t: Array, classes: int, dtype: Any) -> Array:
        """Return (1 - e) t + e/K, (N, K); NaN for a class number that does not exist, as ever."""
        backend, e = backend_of(t), self.label_smoothing
        smooth = (1 - e) * backend.distribution(t, classes, dtype) + e / classes
        if t.ndim == 1:
            known = (t >= 0) & (t < classes)
            smooth = backend.xp.where(known[:, None], smooth, math.nan)
        return smooth

    def backward(self, dout: float | Array = 1.0) -> Array:
        y = self.y
        _expect_number(dout, y)
        return backend_of(y).softmax_with_loss_backward(y, self.t, dout, self._dtype)


class IdentityWithLoss(Loss):
    """Half the squared error of outputs as they are, for regression.

    L = 1/(2N) sum_n sum_k (x_k - t_k)^2        dL/dx = (x - t) / N      (book, equation 4.1)

    Targets have the shape of x, (N, K).
    """

    difference: Any = Kept()

    def forward(self, x: Array, t: Array) -> Array:
        expect_floats("IdentityWithLoss", x)
        if x.ndim != 2 or not x.shape[1]:
            raise ShapeError(f"outputs must be (N, K), got x of shape {x.shape}.")
        _expect_examples(x)
        loss = functions.sum_squared_error(x, real_array("t", t))
        wide = accumulation_dtype(x.dtype)
        self.difference = x.astype(wide, copy=False) - t.astype(wide, copy=False)
        self._dtype = x.dtype
        return loss

    def backward(self, dout: float | Array = 1.0) -> Array:
        _expect_number(dout, self.difference)
        dx = self.difference * (dout / len(self.difference))
        return dx.astype(self._dtype, copy=False)


def _expect_examples(x: Array) -> None:
    if not len(x):
        raise ArgumentError(f"x is an empty batch, {x.shape}; the mean loss of none is undefined.")


def _expect_number(dout: float | Array, kept: Array) -> None:
    """See that dout is a number, or an array () on the backend of what forward kept."""
    backend_of(one_number("dout", dout), kept)
