"""From the examples of an epoch to its steps: which, how changed, and where they are noted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any, TypeAlias

from xpdl.backends import Array, RandomGenerator
from xpdl.datasets.augmentation import Augmentation, OfRowsOnly, changes_each_alone
from xpdl.datasets.batches import Batches
from xpdl.distributed.share import Share
from xpdl.errors import ArgumentError
from xpdl.training.step import Step
from xpdl.training.tally import Tally

Augment: TypeAlias = Callable[[Array, RandomGenerator], Array]

# Keeps augmentation apart from other random numbers of the same seed.
AUGMENTATION_STREAM = 4


class Feeding:
    """Makes the steps of each epoch, in the order of its seed, and notes what they come to.

    On a device that captures, a whole step is one replay, from the choice of its examples to the
    notes on it: their order, the learning rates, and how far the epoch is lie there. Augmentation
    is not captured, so that it may be any function.

    Parameters
    ----------
    step : Step
        What is done to a batch.
    batches : Batches
        Of the training data.
    augment : callable or None
        Changes the pictures of each batch, as ``augment(x, generator) -> x``.
    seed : int
        For the augmentation.
    epochs : int
        How many there are to be.
    """

    def __init__(
        self, step: Step, batches: Batches, augment: Augment | None, seed: int, epochs: int
    ) -> None:
        self.step, self.batches, self.seed = step, batches, seed
        self.augment = augment
        most = max(batches.in_epoch(epoch) for epoch in range(epochs))
        self.tally = Tally(step.network, most)
        backend = step.network.backend
        self._generator = backend.generator([AUGMENTATION_STREAM, seed, 0])
        if backend.compiles and batches.resident:
            self._order = backend.xp.zeros(batches.examples, dtype="int64")
            self._rates = backend.xp.zeros(most, dtype=step.network.precision.parameters)

    @property
    def augment(self) -> Augment | None:
        """What changes the pictures of each batch."""
        return self._augment

    @augment.setter
    def augment(self, augment: Augment | None) -> None:
        self._augment = check_augmentation(augment, self.step.network.input_shape)

    @property
    def _captured(self) -> bool:
        """Whether a whole step is captured."""
        whole = self.batches.resident and self.augment is None
        return whole and self.step.capture and self.step.network.backend.compiles

    def begin(self, epoch: int) -> None:
        """Begin an epoch, or go on in it: its order, and the random numbers of its pictures."""
        self._epoch = epoch
        if self._captured:
            self._order[...] = self.batches.order(epoch)

    def reseed(self, epoch: int) -> None:
        """Start the random numbers of the epoch's pictures."""
        self.step.network.backend.reseed(self._generator, [AUGMENTATION_STREAM, self.seed, epoch])

    def set_rates(self, rates: list[float]) -> None:
        """Say at which learning rates the steps of the epoch are made."""
        self._host_rates = rates
        if self._captured:
            backend = self.step.network.backend
            self._rates[: len(rates)] = backend.asarray(rates, self._rates.dtype)

    def __iter__(self) -> Iterator[int]:
        """Make the steps of the epoch that are left, and yield how many examples each had."""
        tally, step = self.tally, self.step
        size = self.batches.size(self._epoch)
        parts: Any = self._sizes(size)
        if not self._captured:
            parts = zip(parts, self.batches.parts(self._epoch, self._rows), strict=True)
        for part in islice(parts, tally.done, None):
            tally.rate = self._host_rates[tally.done]
            count = part if self._captured else part[0]
            first, update = step.turn(count, last=tally.done + 1 == tally.steps)
            with step.network.explaining_memory(count, train=True):
                if self._captured:
                    # Its rate is set on the device; here, for whoever asks.
                    self._whole_step(size, count, first, update)
                else:
                    step.optimizer.learning_rate = tally.rate
                    self._step_on(count, part[1], first, update)
            tally.count()
            yield count

    def _sizes(self, size: int) -> Iterator[int]:
        for start in range(0, self.batches.examples, size):
            yield min(size, self.batches.examples - start)

    def _whole_step(self, size: int, count: int, first: bool, update: bool) -> None:
        key = "whole", size, count, first, update, id(self.tally)
        self.step.compiled(key, self.whole(size, count, first, update))()

    def whole(self, size: int, count: int, first: bool, update: bool) -> Callable[[], None]:
        """Return what makes the next step of the epoch, of `count` examples, on the device alone.

        Parameters
        ----------
        size : int
            Of the batches before it.
        """
        offsets = self.step.network.backend.xp.arange(count)

        def whole() -> None:
            rate: Any = self.step.optimizer.learning_rate  # which is kept on the device
            rate[...] = self._rates[self.tally.at].reshape(())
            part = self._order[self.tally.at * size + offsets]
            self._make(*self._taken(part), first, update)

        return whole

    def _rows(self, count: int) -> slice:
        """Return which examples of a batch are read here: a rank's, if the others do not matter."""
        share = self.step.share_of(count)
        return slice(None) if share is None or self._needs_all() else share.rows

    def _needs_all(self) -> bool:
        """Whether every rank must see the whole batch: `augment` may do with it what it likes."""
        return self.augment is not None and not changes_each_alone(self.augment)

    def _step_on(self, count: int, part: Array, first: bool, update: bool) -> None:
        """Make a step on the examples `part` of `count`, changed by `augment` if there is one."""
        xs, ts, weights = self._taken(part)
        share = self.step.share_of(count)
        if self.augment is not None:
            x, t = self._augmented(self.augment, xs[0], ts[0], share)
            xs, ts = (x, *xs[1:]), (t, *ts[1:])
        if share is not None and self._needs_all():
            xs, ts, weights = share.of_batch(xs, ts, weights)
        made = partial(self._make, first=first, update=update, share=share)
        self.step.compiled(("given", first, update, id(self.tally)), made)(xs, ts, weights)

    def _augmented(
        self, augment: Augment, x: Array, t: Array, share: Share | None
    ) -> tuple[Array, Array]:
        """Return pictures x changed, and their targets, which are shares if pictures are mixed."""
        network = self.step.network
        generator: RandomGenerator = self._generator
        if share is not None and not self._needs_all():
            generator = OfRowsOnly(generator, share.rows, share.total)
        xp = network.backend.xp
        if isinstance(augment, Augmentation) and augment.mixes:
            if t.ndim == 1:
                t = xp.eye(network.output_shape[0], dtype=network.precision.accumulate)[t]
            x, t = augment.with_targets(x, t, generator)
        else:
            x = augment(x, generator)
        # In one memory order, so that a captured step sees what an eager one would.
        return xp.ascontiguousarray(x), t

    def _taken(self, part: Array) -> tuple[tuple[Array, ...], tuple[Array, ...], Array | None]:
        x, t = self.batches.take(part)
        weights = self.batches.weigh(part)
        return _tuple(x), _tuple(t), weights

    def _make(
        self,
        xs: tuple[Array, ...],
        ts: tuple[Array, ...],
        weights: Array | None,
        first: bool,
        update: bool,
        share: Share | None = None,
    ) -> None:
        scale = self.step.loss_scale
        factor = None if scale is None else scale.value.copy()
        self.tally.note(*self.step.make(xs, ts, weights, first, update, share), factor)

    # ---- for a checkpoint -----------------------------------------------------------------------

    def state(self) -> dict[str, int] | None:
        """Return where the random numbers of `augment` are, as JSON can hold it."""
        if self.augment is None:
            return None
        return self.step.network.backend.generator_state(self._generator)

    def set_state(self, epoch: int, state: Mapping[str, int] | None) -> None:
        """Go on, in an epoch, where `state` was."""
        self.reseed(epoch)
        if state is not None:
            self.step.network.backend.set_generator_state(self._generator, state)


def check_augmentation(augment: Augment | None, input_shape: Any) -> Augment | None:
    """Return `augment`, seen to be one that fits pictures of that shape.

    Raises
    ------
    ArgumentError
        If it does not.
    """
    if augment is not None and (isinstance(augment, type) or not callable(augment)):
        raise ArgumentError(
            f"augment must be an augmentation such as Rotate(10), or a function of "
            f"(x, generator), got {augment!r}."
        )
    if isinstance(augment, Augmentation):
        augment.check(input_shape)
    return augment


def _tuple(a: Any) -> tuple[Array, ...]:
    return tuple(a.values()) if isinstance(a, dict) else (a,)
