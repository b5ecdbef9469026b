"""A network and its verbs: predict, loss, gradient, accuracy; forward and backward."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xpdl.architecture import Looking, Moving, described, losses_of
from xpdl.arguments import in_our_words, one_number, whole_number
from xpdl.backends import Array, Number, backend_of
from xpdl.distributed.share import Share
from xpdl.errors import ArgumentError, shown
from xpdl.layers import Layer, Node, Normalize
from xpdl.losses import Loss
from xpdl.network.checking import Arrays, Checking
from xpdl.parameters import ArrayDict


class Network(Checking, Moving, Looking):
    """Layers from an input shape to scores, and a loss at their end.

    It is a chain, ``Network(layers, input_shape)``, or a graph, ``Network(inputs, outputs)``, of
    nodes that layers were called on. With several inputs or outputs, x, t and what `predict`
    returns are dictionaries by their names, and the first output decides accuracy.

    Parameters
    ----------
    layers : iterable of Layer, or mapping of str to Layer; or Input, or several by name
        A chain from first to last (see `Sequential` for names); or where a graph begins.
    input_shape : int or tuple of int; or Node, or mapping of str to Node
        The shape of one sample, such as 784 or (1, 28, 28), from which all other shapes follow; or
        where a graph ends.
    loss : Loss, or mapping of str to Loss, optional
        `SoftmaxWithLoss` by default, for each output.
    loss_weights : mapping of str to float, optional
        What the loss of an output counts in the sum of all, 1 by default.
    seed : int
        For the first values of the weights, drawn on the host, and for dropout masks.
    dtype : str, dtype or Precision, optional
        The float policy; ``XPDL_DTYPE``, else float32.
    weight_decay : float
        Lambda of a term lambda/2 sum W^2 in the loss (book, section 6.4.2). Use this or the
        optimizer's `weight_decay`, not both.
    name : str, optional
        What the network is called in files and tables; the class's name by default.
    initialize : bool
        Whether to draw first values; zeros otherwise.
    normalize : Normalize, optional
        The first layer of a chain: what the numbers of an input mean.
    class_names : sequence of str, optional
        What the classes are called; they are kept in the network's file.

    Raises
    ------
    ShapeError
        If a layer does not fit what comes before it; the message names the layer.
    """

    @in_our_words(
        input_dim="input_shape",
        conv_param="filters, filter_size, pad and stride, each an option",
        use_dropout="dropout_ratio, with 0 for none",
        dropout_ration="dropout_ratio",
    )
    def __init__(
        self,
        layers: Layer | Iterable[Layer] | Mapping[str, Layer] | Node | Mapping[str, Node],
        input_shape: int | Sequence[int] | Node | Mapping[str, Any] | None = None,
        *,
        loss: Loss | Mapping[str, Loss] | None = None,
        loss_weights: Mapping[str, float] | None = None,
        normalize: Normalize | None = None,
        **options: Any,
    ) -> None:
        body, shapes = described(layers, input_shape, normalize)
        losses, weights = losses_of(body.outputs, loss, loss_weights)
        self._build(body, shapes, losses=losses, loss_weights=weights, **options)

    # ---- the book's verbs -----------------------------------------------------------------------

    def predict(self, x: Any, *, batch_size: int = 100) -> Any:
        """Return scores (N, classes) for x (N, *input_shape), in parts of `batch_size`.

        Raises
        ------
        ShapeError, ArgumentError, NonFiniteError
            If x has another shape, is empty, or (seen on the host only) holds NaN or infinity.
        BackendMismatchError
            If x lives on another backend than the network.
        """
        return self._by_name(self._scores(self.inputs(x), batch_size))

    def loss(self, x: Any, t: Any, weights: Array | None = None, *, train: bool = False) -> Array:
        """Return the mean loss over x, (), in float32 at least, on the device.

        It is the loss that is trained on, with its label smoothing and the weights' decay, whether
        or not `train`.

        Parameters
        ----------
        x : array, (N, *input_shape)
        t : array
            What the loss wants: class numbers (N,) or one-hot (N, classes); for a regression,
            (N, *output_shape).
        weights : array, (N,), optional
            What each sample counts.
        train : bool
            Whether dropout drops and batch normalisation uses the batch's own statistics.
        """
        xs, ts, weights = self.batch(x, t, weights)
        ys = self._forward(xs, train=True) if train else self._scores(xs, 100)
        return self.decayed(self.mean_loss(ys, ts, weights))

    def gradient(self, x: Any, t: Any, weights: Array | None = None) -> ArrayDict:
        """Return {name: gradient of the training loss}, arrays of their own, by backpropagation."""
        self.forward_backward(x, t, weights=weights)
        return self.grads.copy()

    def accuracy(self, x: Any, t: Any, *, batch_size: int = 100) -> float:
        """Return the share of samples whose highest score is their class, over all of x.

        Reads from the device once, at the end. See `measures` for what other losses count.

        Raises
        ------
        ArgumentError
            If the first output tells no classes apart, or as `predict`.
        """
        if not self.loss_layer.classifies:
            raise ArgumentError(
                f"{self.name} does not tell classes apart: it is a regression; measures(x, t) "
                f"gives {' and '.join(self.loss_layer.measure.names)}."
            )
        return self.measures(x, t, batch_size=batch_size)[self.loss_layer.measure.names[0]]

    def measures(self, x: Any, t: Any, *, batch_size: int = 100) -> dict[str, float]:
        """Return what the first output's loss is judged by, over all of x, by name."""
        (xs, ts, _), measure = self.batch(x, t), self.loss_layer.measure
        ys = self._scores(xs, batch_size)
        return measure.values(self.backend.to_numpy(measure.sums(ys[0], ts[0])))

    def activations(self, x: Any) -> dict[str, Array]:
        """Return what each layer makes of x (N, *input_shape), by the layer's name, in order.

        As at inference, all of x at once.
        """
        xs = self.inputs(x)
        self.parameters.refresh()
        return self.body.activations(*map(self._cast, self.body.inputs, xs))

    # ---- for networks that work together --------------------------------------------------------

    def forward(self, x: Any, *, train: bool = False) -> Any:
        """Return the scores for x, all at once; with `train`, keep what `backward` needs."""
        return self._by_name(self._forward(self.inputs(x), train))

    def backward(self, dout: Any, *, accumulate: bool = False) -> Any:
        """Return dL/dx for dout = dL/d scores, and fill `grads`, after ``forward(x, train=True)``.

        Parameters
        ----------
        dout : array, in the shape of the scores
            Of several outputs a dictionary, in which one that counts nothing may be left out.
        accumulate : bool
            Whether the gradients are added to what is in `grads`, as those of a discriminator's two
            batches are.
        """
        names = list(self.output_shapes)
        if len(names) == 1 and not isinstance(dout, Mapping):
            dout = {names[0]: dout}
        if not isinstance(dout, Mapping) or not dout or not dout.keys() <= set(names):
            raise ArgumentError(f"dout must be of {', '.join(names)}, got {shown(dout)}.")
        douts = {name: self._gradient(name, array) for name, array in dout.items()}
        if not self._input_gradient:
            self._arrange(input_gradient=True)
        dx = self._backward(*(douts.get(name) for name in names), accumulate=accumulate)
        return dx if not isinstance(dx, tuple) else dict(zip(self.body.inputs, dx, strict=True))

    def forward_backward(
        self,
        x: Any,
        t: Any,
        scale: Number = 1.0,
        *,
        weights: Array | None = None,
        refresh: bool = True,
    ) -> tuple[Array, Any]:
        """Fill `grads`, and return the training loss, (), and the scores (N, classes) behind it.

        Parameters
        ----------
        scale : float or array ()
            A factor on the gradients, for half precision; the loss returned is without it.
        weights : array, (N,), optional
            What each sample counts.
        refresh : bool
            Whether the copy of the parameters in the compute type may be out of date. An
            optimizer's update keeps it; a caller who has changed `params` by hand must leave this.
        """
        xs, ts, weights = self.batch(x, t, weights)
        scale = one_number("scale", scale)
        backend_of(scale, self.params.buffer)
        with self.explaining_memory(len(xs[0]), train=True):
            loss, ys = self.propagate(xs, ts, weights, scale, refresh=refresh)
        self.decay_gradients(scale)
        return self.decayed(loss), self._by_name(ys)

    # ---- for a training step, which has looked at its batches before ----------------------------

    def propagate(
        self,
        xs: Arrays,
        ts: Arrays,
        weights: Array | None = None,
        scale: Number = 1.0,
        *,
        share: Share | None = None,
        samples: int | None = None,
        refresh: bool = False,
        accumulate: bool = False,
    ) -> tuple[Array, Arrays]:
        """Fill `grads` with ``scale`` dL/dp, without decay; return L and the scores.

        Nothing is looked at: `batch` does that once.

        Parameters
        ----------
        share : Share, optional
            Which rows of a batch these are: L and `grads` are then its part of the whole batch's,
            and add up over all ranks.
        samples : int, optional
            With it, the gradients are of the sum of losses divided by `samples`, so that those of
            several batches add up; see `loss_weight`.
        accumulate : bool
            Whether they are added to what is in `grads`.
        """
        if self._input_gradient:
            self._arrange()
        self.forget()  # the step before need not be in memory beside this one
        ys = self._forward(xs, train=True, refresh=refresh)
        losses = self._each_loss(ys, ts, weights)
        factors: list[Number] = list(self.loss_weights.values())
        if share is not None:
            factors = share.factors(self.losses.values(), factors, self.backend)
        loss = _weighted(losses, factors)
        if samples is not None:
            total = len(xs[0]) if share is None else share.total
            scale = scale * (self.loss_weight(total) / samples)
        douts = [
            one.backward(_times(c, scale))
            for one, c in zip(self.losses.values(), factors, strict=True)
        ]
        self._backward(*douts, accumulate=accumulate)
        return loss, ys

    def loss_weight(self, samples: int) -> Number:
        """Return what the last batch, of so many samples, counts beside others.

        The sum of the loss's weights; of several outputs, whose weights may differ, the samples.
        """
        return self.loss_layer.weight if len(self.losses) == 1 else samples

    def decay_gradients(self, scale: Number = 1.0) -> None:
        """Add the gradient of the weights' decay, times `scale`, to `grads`."""
        if self.weight_decay:
            for name, run in self.params.runs().items():
                if name in self.params.decayed:
                    W = self.params.buffer[run]
                    self.grads.buffer[run] += (scale * self.weight_decay) * W

    # ---- the parts of the verbs -----------------------------------------------------------------

    def _forward(self, xs: Arrays, train: bool, refresh: bool = True) -> Arrays:
        if refresh:
            self.parameters.refresh()
        if train:
            self._samples = len(xs[0])
        ys = self.body.forward(*map(self._cast, self.body.inputs, xs), train=train)
        return ys if isinstance(ys, tuple) else (ys,)

    def _backward(self, *douts: Array | None, accumulate: bool = False) -> Any:
        before = self.grads.buffer.copy() if accumulate else None
        dx = self.body.backward(*douts)
        if before is not None:
            self.grads.buffer += before
        return dx

    def _cast(self, name: str, x: Array) -> Array:
        """Return x in the type that layers compute in; `Normalize` does it by itself."""
        return x if name in self._normalize else x.astype(self.precision.compute, copy=False)

    def _scores(self, xs: Arrays, batch_size: int) -> Arrays:
        batch_size, n = whole_number("batch_size", batch_size), len(xs[0])
        with self.explaining_memory(min(batch_size, n), train=False):
            parts = [
                self._forward(tuple(x[i : i + batch_size] for x in xs), train=False)
                for i in range(0, n, batch_size)
            ]
        if len(parts) == 1:
            return parts[0]
        return tuple(self.backend.xp.concatenate(ys) for ys in zip(*parts, strict=True))

    def mean_loss(self, ys: Arrays, ts: Arrays, weights: Array | None) -> Array:
        """Return sum over the outputs of their weight times their mean loss, ()."""
        return _weighted(self._each_loss(ys, ts, weights), self.loss_weights.values())

    def _each_loss(self, ys: Arrays, ts: Arrays, weights: Array | None) -> list[Array]:
        """Return the mean loss of each output, ()."""
        given = zip(self.losses.values(), ys, ts, strict=True)
        return [loss.forward(y, t, weights) for loss, y, t in given]

    def decayed(self, loss: Array) -> Array:
        """Return the loss with the term of the weights' decay."""
        weights = self.params.weights
        if self.weight_decay and weights.size:
            loss = loss + 0.5 * self.weight_decay * (weights * weights).sum()
        return loss

    def _by_name(self, ys: Arrays) -> Any:
        return ys[0] if len(ys) == 1 else dict(zip(self.output_shapes, ys, strict=True))


def _times(factor: Number, a: Any) -> Any:
    return a if isinstance(factor, float) and factor == 1.0 else factor * a


def _weighted(losses: Iterable[Array], factors: Iterable[Number]) -> Array:
    """Return the sum of losses, each times its factor."""
    first, *rest = [_times(c, loss) for loss, c in zip(losses, factors, strict=True)]
    return sum(rest, start=first)


Moving.plain = Network
