"""What a network ends in: the loss, and its gradient by the scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from xpdl import functions, loss_checks, measures, targets
from xpdl.arguments import check_finite, number, on_host, real_array
from xpdl.backends import Array, Backend, Number, Shape, accumulation_dtype, backend_of
from xpdl.class_weights import balanced, read_class_weights
from xpdl.configs import Configurable, made_from
from xpdl.errors import NotReadyError, ShapeError
from xpdl.layers.kept import Kept
from xpdl.measures import Measure


class Loss(Configurable):
    """Base of the losses: a weighted mean, (), in float32 at least, on the device.

    L = sum w l / sum w, over samples or answers l; 0, with a gradient of 0, where all w are 0.

    A subclass names in `options` the arguments that it is made with, which a file tells.

    Attributes
    ----------
    classifies : bool
        Whether outputs are scores of classes, the highest of which is the answer.
    measure : Measure
        What the outputs are judged by. `plan` may choose another, by their shape.
    weight : int or array ()
        After `forward`: the sum of weights behind the mean; an int where nothing is weighted or
        ignored. Parts of a batch count alike for a loss of one's own that leaves it at 1.
    """

    family = "loss"
    classes: ClassVar[dict[str, type]] = {}
    classifies: bool = False
    measure: Measure = Measure()
    weight: Number = 1
    owned = False  # whether a network, which looks at what it is given itself, has this loss

    def plan(self, output_shape: Shape) -> None:
        """See that the loss fits a network's output of that shape, which has no batch axis.

        Raises
        ------
        ShapeError
            If it does not.
        """

    def balance(self, t: Array) -> None:
        """Settle what depends on the targets t of the training set, before it is trained on."""

    def target(self, t: Array, samples: int, output_shape: Shape) -> Array:
        """Return the targets t of `samples` samples in the shape that `forward` wants them in.

        Values are looked at on the host only: nothing waits for a device.

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
        """Return the mean loss of outputs x (N, ...) for targets t and weights of at least 0."""
        raise NotImplementedError

    def backward(self, dout: Number = 1.0) -> Array:
        """Return dL/dx in the type of x, for dL by the loss itself; of the sum for dout=weight."""
        raise NotImplementedError

    def answers(self, x: Array) -> Array:
        """Return what outputs x say: here, of a regression, x itself."""
        return x

    def config(self) -> dict[str, Any]:
        """Return what it takes to make the loss again, as JSON can hold it.

        Options that are as usual are left out, so that a loss without any is described as ever.
        """
        changed = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in self.changed_options().items()
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
    return made_from(config, Loss)


class SoftmaxWithLoss(Loss):
    """Softmax and cross entropy together, over the classes of each sample, word or pixel.

    y = softmax(x)     L = -sum_n sum_k t_nk log y_nk / W     dL/dx = (y sum_k t_k - t) / W
    (book, section 5.6.3 and appendix A; `Backend.softmax_with_loss` holds both)

    Scores are (N, K), (N, T, K) or (N, K, H, W); targets class numbers, without the axis of the
    classes, or one-hot in the shape of the scores, which may also be probabilities. Weights are
    factors on t, and W is their sum, or the number of targets. With label smoothing e, (1 - e) t +
    e/K takes the place of t, so that no score must grow without end (Szegedy et al. 2016,
    arXiv:1512.00567, section 7).

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
    label_smoothing, ignored = 0.0, None  # type: float, int | None
    class_weights: targets.ClassWeights = None
    measure: Measure = measures.Accuracy()
    _output_shape: Shape | None = None
    _scale: Array | None = None
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
        self.ignored = loss_checks.ignored_number(ignored)
        self.class_weights = read_class_weights(class_weights)
        self.measure = measures.Accuracy(self.ignored)

    def plan(self, output_shape: Shape) -> None:
        loss_checks.check_classes((0, *output_shape), self.class_weights)
        self._output_shape = output_shape
        self.measure = (measures.PixelScores if len(output_shape) == 3 else measures.Accuracy)(
            self.ignored
        )

    def balance(self, t: Array) -> None:
        """Settle "balanced" class weights from targets t; reads a number for each class."""
        if self._output_shape is None:
            raise NotReadyError("balance(t) counts classes: plan(output_shape) must come first.")
        if self.class_weights == "balanced":
            self.class_weights = balanced(t, self._output_shape, self.ignored)

    def target(self, t: Array, samples: int, output_shape: Shape) -> Array:
        return loss_checks.class_targets(t, (samples, *output_shape), self.ignored)

    def forward(self, x: Array, t: Array, weights: Array | None = None) -> Array:
        if not self.owned:
            loss_checks.check_batch(self, x, t, weights)
            loss_checks.check_classes(x.shape, self.class_weights)
            loss_checks.check_class_targets(t, x.shape, self.ignored)
        backend = backend_of(x)
        scores, t = targets.rows_of_scores(x), targets.rows_of_targets(t, x)
        self._shape, self._dtype = x.shape, x.dtype
        self.weight, self._scale, self._sum_to_1 = len(t), None, t.ndim == 1
        if weights is not None or self.ignored is not None or self.class_weights is not None:
            t, weight = self._weigh(x, t, weights)
            self.weight, self._scale = weight, len(t) / targets.divisor(backend.xp, weight)
            self._sum_to_1 = False
        elif self.label_smoothing:
            t = self._smooth(t, scores.shape[1], accumulation_dtype(x.dtype))
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

    def _weigh(self, x: Array, t: Array, weights: Array | None) -> tuple[Array, Array]:
        """Return smooth targets times their weights, (M, K), and the sum of the weights, ()."""
        backend, wide = backend_of(x), accumulation_dtype(x.dtype)
        classes = x.shape[targets.class_axis(x.shape)]
        factor = backend.xp.ones((len(t), 1), wide)
        if weights is not None:
            factor *= backend.xp.repeat(weights.astype(wide), len(t) // len(x))[:, None]
        asked = targets.asked_for(t, self.ignored) if t.ndim == 1 else None
        if asked is not None:
            factor *= asked[:, None]
            t = backend.xp.where(asked, t, 0)
        if self.class_weights is not None:
            factor = factor * self._class_factors(backend, wide)
        weight = (factor * backend.distribution(t, classes, wide)).sum()
        return factor * self._smooth(t, classes, wide), weight

    def _class_factors(self, backend: Backend, dtype: Any) -> Array:
        """Return the class weights (K,) on a device; a captured step has no host to bring them."""
        weights = loss_checks.settled(self.class_weights)
        key = (weights, backend.name, dtype)
        if self._placed is None or self._placed[0] != key:
            self._placed = key, backend.asarray(weights, dtype)
        return self._placed[1]

    def backward(self, dout: Number = 1.0) -> Array:
        y, t = self.y, self.t
        dout = loss_checks.number_on(dout, y)
        dout = dout if self._scale is None else dout * self._scale
        sums = None if self._sum_to_1 else t.sum(axis=1, dtype=y.dtype)
        dx = backend_of(y).softmax_with_loss_backward(y, t, dout, self._dtype, sums)
        return targets.scores_of_rows(dx, self._shape)

    def answers(self, x: Array) -> Array:
        """Return the classes of the highest scores: (N,), (N, T) or (N, H, W)."""
        return x.argmax(axis=targets.class_axis(x.shape))


class _OfEachOutput(Loss):
    """A loss of each output by itself: a subclass gives it, and its slope by the output."""

    slope: Any = Kept()
    _divisor: Number

    def curve(self, x: Array, t: Array) -> tuple[Array, Array]:
        """Return l(x, t) and dl/dx, of the shape of x, for x and t in float32 at least."""
        raise NotImplementedError

    def _weights(self, t: Array, weights: Array | None) -> Array | None:
        """Return what each output counts, in a shape that goes with t's; None if all count 1."""
        return None if weights is None else weights.reshape(-1, *(1,) * (t.ndim - 1))

    def _count(self, x: Array) -> int:
        """Return the sum of weights where all are 1."""
        return len(x)

    def target(self, t: Array, samples: int, output_shape: Shape) -> Array:
        check_finite("t", real_array("t", t))
        return targets.like_outputs(t, (samples, *output_shape))

    def forward(self, x: Array, t: Array, weights: Array | None = None) -> Array:
        if not self.owned:
            loss_checks.check_batch(self, x, t, weights)
        wide, t = accumulation_dtype(x.dtype), targets.like_outputs(t, x.shape)
        losses, slope = self.curve(x.astype(wide, copy=False), t.astype(wide, copy=False))
        self.weight = self._divisor = self._count(x)
        each = self._weights(t, weights)
        if each is not None:
            each = each.astype(wide)
            losses, slope = each * losses, each * slope
            self.weight = weight = each.sum()
            self._divisor = targets.divisor(backend_of(x).xp, weight)
        self.slope, self._dtype = slope, x.dtype
        return losses.sum() / self._divisor

    def backward(self, dout: Number = 1.0) -> Array:
        dout = loss_checks.number_on(dout, self.slope)
        dx = self.slope * (dout / self._divisor)
        return dx.astype(self._dtype, copy=False)


class SigmoidWithLoss(_OfEachOutput):
    """Sigmoid and cross entropy together, for a yes or no, or for several labels at once.

    y = 1 / (1 + exp(-x))     l = -t log y - (1 - t) log(1 - y)     dl/dx = y - t
    (book, equation 3.6 and section 4.2.2, of two classes)

    L is the mean of l over all outputs, of any shape. It is computed as max(x, 0) - t x +
    log(1 + exp(-|x|)), which cannot overflow. Targets, 0, 1 or probabilities between, have the
    shape of the outputs, (N,) for one.

    Parameters
    ----------
    ignored : int, optional
        A target, such as -1, that counts neither in the loss nor in what the outputs are judged by.
    """

    options = ("ignored",)
    ignored: int | None = None
    measure: Measure = measures.LabelScores()

    def __init__(self, ignored: int | None = None) -> None:
        self.ignored = loss_checks.ignored_number(ignored)
        self.measure = measures.LabelScores(self.ignored)

    def plan(self, output_shape: Shape) -> None:
        self.measure = (measures.YesNoAccuracy if output_shape == (1,) else measures.LabelScores)(
            self.ignored
        )

    def target(self, t: Array, samples: int, output_shape: Shape) -> Array:
        t = super().target(t, samples, output_shape)
        if on_host(t):
            loss_checks.check_shares(t, self.ignored)
        return t

    def curve(self, x: Array, t: Array) -> tuple[Array, Array]:
        xp = backend_of(x).xp
        losses = xp.maximum(x, 0) - t * x + xp.log1p(xp.exp(-xp.abs(x)))
        return losses, functions.sigmoid(x) - t

    def _weights(self, t: Array, weights: Array | None) -> Array | None:
        each, asked = super()._weights(t, weights), targets.asked_for(t, self.ignored)
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

    measure: Measure = measures.RegressionScores()

    def curve(self, x: Array, t: Array) -> tuple[Array, Array]:
        difference = x - t
        return 0.5 * (difference * difference), difference


class HuberWithLoss(_OfEachOutput):
    """Half the square of small errors, and delta times large ones: for data with outliers.

    l = d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2);   d = x - t
    dl/dx = c = d, cut to -delta .. delta;   so l = c (d - c / 2)     (Huber 1964)

    L = 1/N sum_n sum_k l, as in `IdentityWithLoss`.

    Parameters
    ----------
    delta : float
        The error, above 0, from which on the loss grows in a straight line.
    """

    options = ("delta",)
    measure: Measure = measures.RegressionScores()

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = number("delta", delta, above=0)

    def curve(self, x: Array, t: Array) -> tuple[Array, Array]:
        d = x - t
        c = d.clip(-self.delta, self.delta)
        return c * (d - 0.5 * c), c
