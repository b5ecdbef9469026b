"""A step of training: from a batch to better parameters, a line for each of its parts."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from operator import is_not
from typing import Any

from xpdl.arguments import expect_network, flag, whole_number
from xpdl.backends import Array, Number
from xpdl.distributed.ranks import Ranks
from xpdl.distributed.share import Share
from xpdl.errors import ArgumentError, shown
from xpdl.network import Network
from xpdl.optimizers import Optimizer, get_optimizer
from xpdl.precision import LossScale
from xpdl.targets import divisor
from xpdl.training.averaging import MovingAverage
from xpdl.training.gradient_sum import GradientSum, check_reduce_dtype, summing

Arrays = tuple[Array, ...]


class Step:
    """Forward, loss, backward, finite?, update, average: one step, as one object.

    It stays on the device and reads nothing from it, so that a GPU may capture and replay it. A
    step whose loss or gradients are not finite is not made, and its loss is NaN.

    Parameters
    ----------
    network : Network
        What to train; changed in place.
    optimizer : str or Optimizer
        A name such as "adam", made with its default settings, or an optimizer.
    average : MovingAverage, optional
        What follows the parameters; see there.
    accumulate : int
        Over how many batches gradients are added up before an update. That is one step on a batch
        of all of them, but for batch normalisation, and for several outputs of which some are
        weighted or ignored: there each batch counts by its samples.
    capture : bool
        Whether a GPU may capture the step. Then a layer's Python runs in the first steps only.
        A step of several ranks is not captured.
    ranks : Ranks, optional
        The processes that train together, each of which makes the step with its own rows of the
        batch, and with the same result.
    whole_statistics : bool
        Whether batch normalisation is then over the whole batch, not over each rank's rows.
    reduce_dtype : {None, "float16"}
        In what type gradients then travel: their own, or half of float32's bytes, of 11 bits.

    Examples
    --------
    >>> step = Step(network, "adam")
    >>> loss, seen = step(x, t)  # of this batch; seen is what the loss's measure sums
    """

    def __init__(
        self,
        network: Network,
        optimizer: str | Optimizer = "adam",
        *,
        average: MovingAverage | None = None,
        accumulate: int = 1,
        capture: bool = True,
        ranks: Ranks | None = None,
        whole_statistics: bool = True,
        reduce_dtype: str | None = None,
    ) -> None:
        expect_network("network", network)
        if average is not None and not isinstance(average, MovingAverage):
            raise ArgumentError(f"average must be a MovingAverage, got {shown(average)}.")
        self.network = network
        self.optimizer = get_optimizer(optimizer)
        self.average = average
        self.accumulate = whole_number("accumulate", accumulate)
        self.reduce_dtype = check_reduce_dtype(reduce_dtype, network.precision)
        self.gradient_sum = GradientSum.over(ranks, network, whole_statistics, self.reduce_dtype)
        self.capture = flag("capture", capture) and ranks is None
        self.loss_scale = LossScale(network.backend) if network.precision.mixed else None
        xp, wide = network.backend.xp, network.precision.accumulate
        self._before = [(a, a.copy()) for a in network.state.values()]
        # Of the batches whose gradients wait in the buffer: their losses' weights, and losses.
        self._weight, self._loss = (xp.zeros((), dtype=wide) for _ in range(2))
        self._batches = 0
        self._samples = 1  # in the first of them
        self._captured: dict[Hashable, Callable[..., Any]] = {}
        # What that depends on: options, and the places of parameters and memory.
        self._settings: Hashable = None
        self._places: list[Any] = []

    @property
    def on_device(self) -> bool:
        """Whether the host never learns whether a step was made; see `Optimizer.keep_time_on`."""
        return self.loss_scale is not None or self.network.backend.compiles

    def clock(self) -> AbstractContextManager[object]:
        """Let the optimizer keep its rate and count where the step needs them, within a block."""
        if not self.on_device:
            return nullcontext()
        return self.optimizer.time_kept_on(self.network.backend, self.network.precision.parameters)

    def __call__(
        self, x: Any, t: Any, weights: Array | None = None, *, last: bool = False
    ) -> tuple[Array, Array]:
        """Train on a batch; return its mean loss, (), and the sums (k,) of the loss's measure.

        Parameters
        ----------
        x, t : array, or dict of str to array
            The batch and its targets; of several inputs or outputs, by their names. On every rank
            the whole batch, of which it takes its rows.
        weights : array, (N,), optional
            What each sample counts.
        last : bool
            Whether to update now, though fewer than `accumulate` batches have come.
        """
        network = self.network
        xs, ts, weights = network.batch(x, t, weights)
        if self.on_device:
            self.optimizer.keep_time_on(network.backend, network.precision.parameters)
        network.parameters.refresh()
        first, update = self.turn(len(xs[0]), last)
        share = self.share_of(len(xs[0]))
        if share is not None:
            xs, ts, weights = share.of_batch(xs, ts, weights)
        how = partial(self.make, first=first, update=update, share=share)
        made = self.compiled((first, update), how)
        with network.explaining_memory(len(xs[0]), train=True):
            loss, seen = made(xs, ts, weights)
        return loss.copy(), seen.copy()  # a captured step writes over its own

    def share_of(self, samples: int) -> Share | None:
        """Return which rows of a batch of so many are this rank's; None without ranks."""
        return None if self.gradient_sum is None else self.gradient_sum.share_of(samples)

    def turn(self, samples: int, last: bool = False) -> tuple[bool, bool]:
        """Return whether the next batch is the first of its update, and whether it updates."""
        first = self._batches == 0
        if first:
            self._samples = samples
        update = last or self._batches + 1 == self.accumulate
        self._batches = 0 if update else self._batches + 1
        return first, update

    @property
    def complete(self) -> bool:
        """Whether no gradients wait for further batches."""
        return self._batches == 0

    def make(
        self,
        xs: Arrays,
        ts: Arrays,
        weights: Array | None = None,
        first: bool = True,
        update: bool = True,
        share: Share | None = None,
    ) -> tuple[Array, Array]:
        """Do what a call does, as it stands, for a batch that is seen to fit; see `turn`.

        With a `share`, the arrays hold its rows of the batch alone.
        """
        network, scale = self.network, self.loss_scale
        factor: Number = 1.0 if scale is None else scale.value
        if first:
            self._keep_statistics()
        samples = self._samples if self.accumulate > 1 else None
        known: dict[str, Any] = {"samples": samples, "accumulate": not first, "share": share}
        with summing(self.gradient_sum, share, first and update):
            loss, ys = network.propagate(xs, ts, weights, factor, **known)
        seen = network.loss_layer.measure.sums(ys[0], ts[0], weights)
        if share is not None:
            loss, seen = share.sums(loss, seen if share.counts else 0 * seen)
            share.agree_on(network.state.values())
        loss = network.decayed(loss)
        if self.accumulate > 1:
            total = len(xs[0]) if share is None else share.total
            if first:
                self._weight[...] = self._loss[...] = 0
            self._weight += network.loss_weight(total)
            self._loss += loss
            if not update:
                return loss, seen
        if self.gradient_sum is not None:
            self.gradient_sum.finish()
        if self.accumulate > 1:
            network.grads.buffer *= self._samples / divisor(network.backend.xp, self._weight)
        network.decay_gradients(factor)
        go: Array | None
        go, loss = self._look_at(loss)
        if go is not None and not self.on_device:  # the host may as well know
            if not network.backend.item(go):
                self._restore_statistics()
                return loss, seen
            go = None
        self.optimizer.update(network.params, network.grads, go=go)
        if scale is not None and go is not None:
            scale.update(go)
        if self.average is not None:
            self.average.update(go)
        if go is not None:
            self._restore_statistics(go)
        return loss, seen

    # ---- the parts of a step ------------------------------------------------------------------

    def _keep_statistics(self) -> None:
        for a, kept in self._before:
            kept[...] = a

    def _restore_statistics(self, go: Array | None = None) -> None:
        """Set statistics back to what they were; on the device, where `go` is false."""
        where = self.network.backend.xp.where
        for a, kept in self._before:
            a[...] = kept if go is None else where(go, a, kept)

    def _look_at(self, loss: Array) -> tuple[Array, Array]:
        """Return whether the losses and gradients are finite, and the loss, NaN if they are not.

        In half precision a step that overflows is no divergence: its scale was too large.
        """
        network, scale = self.network, self.loss_scale
        if self.accumulate > 1:
            loss = loss + 0 * self._loss  # NaN if one of them is
        if scale is None:
            return network.backend.all_finite(loss, network.grads.buffer)
        return scale.unscale(network.grads.buffer) & network.backend.xp.isfinite(loss), loss

    # ---- captured -----------------------------------------------------------------------------

    def compiled(self, key: Hashable, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function`, or what replays it on a device; `key` says what it depends on.

        It is captured anew when something is frozen, an option of a layer, the loss or the
        optimizer has changed, or arrays have others in their place.
        """
        backend = self.network.backend
        if not (backend.compiles and self.capture):
            return function
        settings = self.network.settings(), *self.optimizer.settings().items()
        places = [self.network.parameters, *self.optimizer.state.values()]
        moved = len(places) != len(self._places) or any(map(is_not, places, self._places))
        if settings != self._settings or moved:
            self._captured.clear()
            self._settings, self._places = settings, places
        if key not in self._captured:
            self._captured[key] = backend.compile_step(function, self.network.forget)
        return self._captured[key]
