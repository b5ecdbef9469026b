"""What a network ends in: the loss, and its gradient by the scores."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from xpdl import functions
from xpdl.arguments import (
    check_finite,
    number,
    on_host,
    one_number,
    one_of,
    plainly,
    real_array,
    whole_number,
)
from xpdl.backends import Array, Backend, Number, Shape, accumulation_dtype, backend_of
from xpdl.errors import ArgumentError, NotReadyError, ShapeError, shown
from xpdl.layers.base import Kept, expect_floats, named_type
from xpdl.measures import (
    Accuracy,
    LabelScores,
    Measure,
    PixelScores,
    RegressionScores,
    YesNoAccuracy,
    asked_for,
    class_axis,
    rows_of_scores,
    rows_of_targets,
)


class Loss:
    """Base of the losses: a weighted mean, (), in float32 at least, on the device.

    L = sum w l / sum w, over samples or answers l; 0, with a gradient of 0, where all w are 0.

    A subclass names in `options` the arguments that it was made with, so that a file can say how
    to make it again.

    Attributes
    ----------
    classifies : bool
        Whether outputs are scores of classes, the highest of which is the answer.
    measure : Measure
        What the outputs are judged by. `plan` may choose another, by their shape.
    weight : int or array ()
        After `forward`: the sum of weights behind the mean, so that means of parts can be put
        together. An int where nothing is weighted or ignored. A loss of one's own that leaves it
        at 1 has parts that count alike.
    """

    classes: ClassVar[dict[str, type[Loss]]] = {}
    options: ClassVar[tuple[str, ...]] = ()
    classifies: bool = False
    measure: Measure = Measure()
    weight: Number = 1

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        known = Loss.classes.get(cls.__name__)
        if known is not None and known.__module__.startswith("xpdl."):
            raise ArgumentError(f"there is a loss {cls.__name__} in xpdl; choose another name.")
        if not cls.__name__.startswith("_"):
            Loss.classes[cls.__name__] = cls

    def plan(self, output_shape: Shape) -> None:
        """See that the loss fits a network's output, whose shape is without the batch axis.

        Raises
        ------
        ShapeError
            If it does not; the message says which layer or loss would.
        """

    def balance(self, t: Array) -> None:
        """Settle what depends on the targets t of the training set, before it is trained on."""

    def target(self, t: Array, samples: int, output_shape: Shape) -> Array:
        """Return the targets t of `samples` samples in the shape that `forward` wants them in.

        Values are looked at on the host only: a device would have to be waited for.

        Raises
        ------
        ShapeError, DTypeError, ArgumentError, NonFiniteError
            If they do not fit the outputs (samples, *output_shape).
        """
        check_finite("t", real_array("t", t))
        if not t.ndim or len(t) != samples:
            raise ShapeError(f"t must have a target for each of {samples} samples, got {t.shape}.")
        return t

    def forward(self, x: Array, t: Array, weights: Array | None = None) -> Array:
        """Return the mean loss of outputs x (N, ...) for targets t.

        Parameters
        ----------
        weights : array (N,), optional
            How much each sample counts, at least 0; 1 without them.
        """
        raise NotImplementedError

    def backward(self, dout: Number = 1.0) -> Array:
        """Return dL/dx in the shape and type of x; `dout` is the gradient by the loss itself.

        So `dout` = `weight` gives the gradient of the sum, where `forward` gave the mean.
        """
        raise NotImplementedError

    def answers(self, x: Array) -> Array:
        """Return what outputs x say: here, of a regression, x itself."""
        return x

    def config(self) -> dict[str, Any]:
        """Return what it takes to make the loss again, as JSON can hold it.

        Options that are as usual are left out, so that a loss without any is described as ever.
        """
        usual = inspect.signature(type(self)).parameters
        options = {name: getattr(self, name) for name in self.options if name in usual}
        changed = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in options.items()
            if value != usual[name].default
        }
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
    """Softmax and cross entropy together, over the classes of each sample, word or pixel.

    y = softmax(x)     L = -sum_n sum_k t_nk log y_nk / W     dL/dx = (y sum_k t_k - t) / W
    (book, section 5.6.3 and appendix A; `Backend.softmax_with_loss` holds both)

    Scores are (N, K), (N, T, K) or (N, K, H, W); targets class numbers, without the axis of the
    classes, or one-hot in the shape of the scores, which may also be probabilities. W is the number
    of targets, or the sum of their weights: weights are factors on t.

    With label smoothing e, (1 - e) t + e/K takes the place of t, so that no score must grow without
    end (Szegedy et al. 2016, arXiv:1512.00567, section 7).

    Parameters
    ----------
    label_smoothing : float
        The share e of each target that is spread evenly over all classes, at least 0 and below 1.
        It is part of the loss wherever that is asked for, in training or not, as in PyTorch: it
        cannot fall to 0, and compares with none of another e. Accuracy knows nothing of it.
    ignored : int, optional
        A class number, such as 255 or -1, whose targets count neither in the loss nor in what the
        outputs are judged by. It may be one of the classes.
    class_weights : sequence of float or "balanced", optional
        A factor c_k on each class's term; W is the sum of c_k t_k before smoothing. "balanced"
        takes c_k = (all targets) / (K targets of class k), from the training set (King and Zeng
        2001), and keeps the numbers. They are for learning: no measure knows of them.
    """

    classifies = True
    options = ("label_smoothing", "ignored", "class_weights")
    label_smoothing: float = 0.0
    ignored: int | None = None
    class_weights: tuple[float, ...] | str | None = None
    measure: Measure = Accuracy()
    _output_shape: Shape | None = None
    _placed: tuple[Any, Array] | None = None
    y: Any = Kept()
    t: Any = Kept()

    def __init__(
        self,
        label_smoothing: float = 0.0,
        ignored: int | None = None,
        class_weights: Sequence[float] | str | None = None,
    ) -> None:
        self.label_smoothing = number("label_smoothing", label_smoothing, below=1)
        self.ignored = None if ignored is None else whole_number("ignored", ignored, -(2**31))
        self.class_weights = _class_weights(class_weights)
        self.measure = Accuracy(self.ignored)

    def plan(self, output_shape: Shape) -> None:
        if not 1 <= len(output_shape) <= 3:
            raise ShapeError(
                f"the network ends in shape {output_shape}, its loss SoftmaxWithLoss wants scores "
                "(K,), (T, K) or (K, H, W); end with Affine or Flatten."
            )
        self._check_classes((0, *output_shape))
        self._output_shape = output_shape
        self.measure = (PixelScores if len(output_shape) == 3 else Accuracy)(self.ignored)

    def balance(self, t: Array) -> None:
        """Settle "balanced" class weights from targets t; reads a number for each class."""
        if self.class_weights != "balanced":
            return
        if self._output_shape is None:
            raise NotReadyError("balance(t) counts classes: plan(output_shape) must come first.")
        scores_shape = (len(t), *self._output_shape)
        functions.check_targets(t, scores_shape)
        counted = [k for k in range(scores_shape[class_axis(scores_shape)]) if k != self.ignored]
        rows = rows_of_scores(t) if t.shape == scores_shape else None
        item = backend_of(t).item
        counts = {k: item((t == k if rows is None else rows[:, k]).sum()) for k in counted}
        if not all(counts.values()):
            raise ArgumentError(
                f'class_weights="balanced" finds no example of {len(counts)} classes for class '
                f"{min(counts, key=lambda k: counts[k])}; give a number for each class instead."
            )
        even = sum(counts.values()) / len(counts)
        self.class_weights = tuple(
            even / counts[k] if k in counts else 0.0 for k in range(max(counted) + 1)
        )

    def target(self, t: Array, samples: int, output_shape: Shape) -> Array:
        shape = (samples, *output_shape)
        functions.check_targets(real_array("t", t), shape)
        if t.shape == shape and self.ignored is not None:
            raise ShapeError("ignored is a class number: give t as class numbers, not one-hot.")
        if on_host(t) and t.shape == shape:
            check_finite("t", t)
            functions.check_distributions(t, class_axis(shape))
        elif on_host(t):
            functions.check_labels(t, shape[class_axis(shape)], self.ignored)
        return t

    def forward(self, x: Array, t: Array, weights: Array | None = None) -> Array:
        backend = _expect(self, x, t, weights)
        if not 2 <= x.ndim <= 4:
            raise ShapeError(
                f"scores must be (N, K), (N, T, K) or (N, K, H, W), got x of shape {x.shape}."
            )
        self._check_classes(x.shape)
        functions.check_targets(t, x.shape)
        scores, t = rows_of_scores(x), rows_of_targets(t, x)
        (rows, classes), wide = scores.shape, accumulation_dtype(x.dtype)
        self._shape, self._dtype = x.shape, x.dtype
        self.weight, self._scale, self._sure = rows, None, t.ndim == 1
        if weights is not None or self.ignored is not None or self.class_weights is not None:
            t, self.weight = self._weigh(t, weights, len(x), classes, wide)
            self._scale, self._sure = rows / _divisor(backend.xp, self.weight), False
        elif self.label_smoothing:
            t = self._smooth(t, classes, wide)
        self.t = t
        loss, self.y = backend.softmax_with_loss(scores, t)
        return loss if self._scale is None else loss * self._scale

    def _smooth(self, t: Array, classes: int, dtype: Any) -> Array:
        """Return (1 - e) t + e/K, (M, K); NaN for a class number that does not exist, as ever."""
        backend, e = backend_of(t), self.label_smoothing
        smooth = (1 - e) * backend.distribution(t, classes, dtype) + e / classes
        if t.ndim == 1:
            known = (t >= 0) & (t < classes)
            smooth = backend.xp.where(known[:, None], smooth, math.nan)
        return smooth

    def _weigh(
        self, t: Array, weights: Array | None, samples: int, classes: int, dtype: Any
    ) -> tuple[Array, Array]:
        """Return smooth targets times their weights, (M, K), and the sum of the weights, ()."""
        backend = backend_of(t)
        factor = backend.xp.ones((len(t), 1), dtype)
        if weights is not None:
            factor *= backend.xp.repeat(weights.astype(dtype), len(t) // samples)[:, None]
        asked = asked_for(t, self.ignored) if t.ndim == 1 else None
        if asked is not None:
            factor *= asked[:, None]
            t = backend.xp.where(asked, t, 0)
        if self.class_weights is not None:
            factor = factor * self._factors(backend, dtype)
        weight = (factor * backend.distribution(t, classes, dtype)).sum()
        return factor * self._smooth(t, classes, dtype), weight

    def _factors(self, backend: Backend, dtype: Any) -> Array:
        """Return the class weights (K,) on a device, where they are brought once."""
        if isinstance(self.class_weights, str):
            raise NotReadyError(
                'class_weights="balanced" is not settled yet: train, or call balance(t) with the '
                "training targets, once the network is built."
            )
        key = (self.class_weights, backend.name, dtype)
        if self._placed is None or self._placed[0] != key:
            self._placed = key, backend.asarray(self.class_weights, dtype)
        return self._placed[1]

    def backward(self, dout: Number = 1.0) -> Array:
        y, t = self.y, self.t
        _expect_number(dout, y)
        sums = None if self._sure else t.sum(axis=1, dtype=y.dtype)
        dout = dout if self._scale is None else dout * self._scale
        dx = backend_of(y).softmax_with_loss_backward(y, t, dout, self._dtype, sums)
        n, *rest = self._shape
        return (
            dx.reshape(n, *rest[1:], -1).transpose(0, 3, 1, 2)
            if len(rest) == 3
            else (dx.reshape(self._shape))
        )

    def answers(self, x: Array) -> Array:
        """Return the classes of the highest scores: (N,), (N, T) or (N, H, W)."""
        return x.argmax(axis=class_axis(x.shape))

    def _check_classes(self, shape: Shape) -> None:
        classes = shape[class_axis(shape)]
        if classes < 2:
            raise ShapeError(
                f"SoftmaxWithLoss tells classes apart and wants two scores or more, got {classes}: "
                "its loss would be 0 whatever they are. Use SigmoidWithLoss() for a yes or no, "
                "IdentityWithLoss() for a number, or an output for each class."
            )
        if isinstance(self.class_weights, tuple) and len(self.class_weights) != classes:
            raise ShapeError(
                f"class_weights must be {classes} numbers, one for each class, "
                f"got {len(self.class_weights)}."
            )


class _OfEachOutput(Loss):
    """A loss of each output by itself: a subclass gives it, and its slope by the output."""

    slope: Any = Kept()

    def curve(self, x: Array, t: Array) -> tuple[Array, Array]:
        """Return l(x, t) and dl/dx, of the shape of x, for x and t in float32 at least."""
        raise NotImplementedError

    def _weights(self, t: Array, weights: Array | None) -> Array | None:
        """Return what each output counts, in a shape that goes with theirs; None if all count 1."""
        return None if weights is None else weights.reshape(-1, *(1,) * (t.ndim - 1))

    def _count(self, x: Array) -> int:
        """Return the sum of weights where all are 1."""
        return len(x)

    def target(self, t: Array, samples: int, output_shape: Shape) -> Array:
        check_finite("t", real_array("t", t))
        return _like(t, (samples, *output_shape))

    def forward(self, x: Array, t: Array, weights: Array | None = None) -> Array:
        backend = _expect(self, x, t, weights)
        wide, t = accumulation_dtype(x.dtype), _like(t, x.shape)
        losses, slope = self.curve(x.astype(wide, copy=False), t.astype(wide, copy=False))
        self.weight = self._divisor = self._count(x)
        each = self._weights(t, weights)
        if each is not None:
            each = each.astype(wide)
            losses, slope = each * losses, each * slope
            self.weight = each.sum()
            self._divisor = _divisor(backend.xp, self.weight)
        self.slope, self._dtype = slope, x.dtype
        return losses.sum() / self._divisor

    def backward(self, dout: Number = 1.0) -> Array:
        _expect_number(dout, self.slope)
        dx = self.slope * (dout / self._divisor)
        return dx.astype(self._dtype, copy=False)


class SigmoidWithLoss(_OfEachOutput):
    """Sigmoid and cross entropy together, for a yes or no, or for several labels at once.

    y = 1 / (1 + exp(-x))     l = -t log y - (1 - t) log(1 - y)     dl/dx = y - t
    (book, equation 3.6 and section 4.2.2, of two classes)

    L is the mean of l over all outputs, of any shape. It is computed as max(x, 0) - t x +
    log(1 + exp(-|x|)), the same number, which cannot overflow. Targets have the shape of the
    outputs, (N,) for one output, and are 0 or 1, or probabilities between.

    Parameters
    ----------
    ignored : int, optional
        A target, such as -1, that counts neither in the loss nor in what the outputs are judged by.
    """

    options = ("ignored",)
    ignored: int | None = None
    measure: Measure = LabelScores()

    def __init__(self, ignored: int | None = None) -> None:
        self.ignored = None if ignored is None else whole_number("ignored", ignored, -(2**31))
        self.measure = LabelScores(self.ignored)

    def plan(self, output_shape: Shape) -> None:
        self.measure = (YesNoAccuracy if output_shape == (1,) else LabelScores)(self.ignored)

    def target(self, t: Array, samples: int, output_shape: Shape) -> Array:
        t = super().target(t, samples, output_shape)
        if on_host(t):
            asked = asked_for(t, self.ignored)
            wrong = (t < 0) | (t > 1)
            wrong = wrong if asked is None else wrong & asked
            if wrong.any():
                raise ArgumentError(
                    f"t must be 0 or 1, or a probability between, got {t[wrong][0]}; class numbers "
                    "want an output for each class and SoftmaxWithLoss()."
                )
        return t

    def curve(self, x: Array, t: Array) -> tuple[Array, Array]:
        xp = backend_of(x).xp
        losses = xp.maximum(x, 0) - t * x + xp.log1p(xp.exp(-xp.abs(x)))
        return losses, functions.sigmoid(x) - t

    def _weights(self, t: Array, weights: Array | None) -> Array | None:
        each, asked = super()._weights(t, weights), asked_for(t, self.ignored)
        if asked is None and each is not None:
            asked = backend_of(t).xp.ones(t.shape, bool)
        return asked if each is None else each * asked

    def _count(self, x: Array) -> int:
        return x.size

    def answers(self, x: Array) -> Array:
        """Return 1 where an output says yes, y > 1/2, and 0 elsewhere, in the shape of x."""
        return (x > 0).astype("int64")


class IdentityWithLoss(_OfEachOutput):
    """Half the squared error of outputs as they are, of any shape, for regression.

    L = 1/(2N) sum_n sum_k (x_k - t_k)^2        dL/dx = (x - t) / N      (book, equation 4.1)

    Targets have the shape of x, (N,) for one output. The sum is over all numbers of a sample.
    """

    measure: Measure = RegressionScores()

    def curve(self, x: Array, t: Array) -> tuple[Array, Array]:
        difference = x - t
        return 0.5 * (difference * difference), difference


class HuberWithLoss(_OfEachOutput):
    """Half the squared error of small errors, and delta times large ones: for data with outliers.

    l = d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2);   d = x - t
    dl/dx = c = d, cut to -delta .. delta;   so l = c (d - c / 2)     (Huber 1964)

    L = 1/N sum_n sum_k l, as `IdentityWithLoss`, which it is for an infinite delta.

    Parameters
    ----------
    delta : float
        The error, above 0, from which on the loss grows in a straight line.
    """

    options = ("delta",)
    measure: Measure = RegressionScores()

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = number("delta", delta, above=0)

    def curve(self, x: Array, t: Array) -> tuple[Array, Array]:
        d = x - t
        c = d.clip(-self.delta, self.delta)
        return c * (d - 0.5 * c), c


def _class_weights(given: Any) -> tuple[float, ...] | str | None:
    if given is None or isinstance(given, str):
        return None if given is None else one_of("class_weights", given, ("balanced",))
    if not isinstance(given, Sequence) and getattr(given, "ndim", 0) != 1:
        raise ArgumentError(
            f'class_weights must be "balanced" or a number for each class, got {shown(given)}.'
        )
    weights = tuple(number("class_weights", weight) for weight in given)
    if not any(weights):
        raise ArgumentError(f"class_weights must not all be 0, got {shown(given)}.")
    return weights


def check_weights(weights: Array, samples: int) -> None:
    """See that weights are a number for each sample; on the host, finite and at least 0.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError, NonFiniteError
        If they are not.
    """
    if real_array("weights", weights).shape != (samples,):
        raise ShapeError(
            f"weights must be ({samples},), a number a sample, got shape {weights.shape}."
        )
    check_finite("weights", weights)
    if on_host(weights) and (weights < 0).any():
        raise ArgumentError(f"weights must be at least 0, got {weights.min()}.")


def _expect(loss: Loss, x: Array, t: Array, weights: Array | None) -> Backend:
    """Return the backend of a batch, of which type and size are seen to."""
    expect_floats(type(loss).__name__, x)
    if x.ndim < 2 or not math.prod(x.shape[1:]):
        raise ShapeError(f"outputs must be (N, K) or (N, ...), got x of shape {x.shape}.")
    if not len(x):
        raise ArgumentError(f"x is an empty batch, {x.shape}; the mean loss of none is undefined.")
    real_array("t", t)
    if weights is not None and real_array("weights", weights).shape != (len(x),):
        raise ShapeError(f"weights must be ({len(x)},), one a sample, got {weights.shape}.")
    return backend_of(x, t, weights)


def _like(t: Array, shape: Shape) -> Array:
    """Return targets in the shape of the outputs: (N,) as (N, 1) for one output."""
    if t.shape == shape[:1] and shape[1:] == (1,):
        return t.reshape(shape)
    if t.shape != shape:
        also = f", or {shape[:1]}" if shape[1:] == (1,) else ""
        raise ShapeError(f"t must have the shape of the outputs, {shape}{also}; got {t.shape}.")
    return t


def _divisor(xp: Any, weight: Array) -> Array:
    """Return a sum of weights to divide by: 1 for 0, so that nothing counted gives 0."""
    divisor: Array = xp.where(weight > 0, weight, 1)
    return divisor


def _expect_number(dout: Number, kept: Array) -> None:
    """See that dout is a number, or an array () on the backend of what forward kept."""
    backend_of(one_number("dout", dout), kept)
