"""The training loop."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from xpdl import functions
from xpdl.arguments import flag, number, whole_number
from xpdl.backends import Array, Number, RandomGenerator, backend_of
from xpdl.datasets.augmentation import Augmentation
from xpdl.datasets.batches import Batches, check_reached
from xpdl.errors import ArgumentError, DivergenceError, UnknownNameError
from xpdl.network import Network, count_hits
from xpdl.network.answers import classes_seen
from xpdl.optimizers import Optimizer, get_optimizer
from xpdl.precision import LossScale
from xpdl.schedules import Schedule, get_schedule
from xpdl.training.averaging import MovingAverage
from xpdl.training.checkpoint import load_checkpoint, save_checkpoint
from xpdl.training.divergence import ADVICE, ON_DIVERGENCE, explain
from xpdl.training.history import Epoch, History
from xpdl.training.progress import Progress, Silence
from xpdl.training.settings import digest
from xpdl.training.tally import Tally, mean_of_finite

Data: TypeAlias = tuple[Any, Any]
Callback: TypeAlias = Callable[["Trainer", Epoch], object]
Augment: TypeAlias = Callable[[Array, RandomGenerator], Array]

MOST_BAD_STEPS = LossScale.most_bad_steps
# Keeps augmentation apart from other random numbers of the same seed.
AUGMENTATION_STREAM = 4


class Trainer:
    """Trains a network on batches of data, epoch by epoch.

    The data is put on the network's device once. Losses and accuracies stay there too and are
    read when the progress bar refreshes and at the end of an epoch.

    Parameters
    ----------
    network : Network
        What to train; changed in place.
    train : (x, t)
        Examples (N, ...) and targets, host arrays or arrays of the network's backend.
    test : (x, t), optional
        Data on which accuracy is measured after each epoch; nothing is chosen by it.
    optimizer : str or Optimizer
        A name ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw"), made with its
        default settings, or an optimizer.
    epochs : int
        How many passes over the data.
    batch_size : int or mapping of int to int
        How many examples a step, or from which epoch on how many: {0: 100, 3: 400}. The learning
        rate stays what `schedule` makes it.
    schedule : str or Schedule, optional
        A factor on the optimizer's learning rate, by position in the training: "constant" (the
        default), "step", "exponential", "cosine", "one-cycle", or one of `xpdl.schedules`.
    callbacks : iterable of callable
        Each is called as ``callback(trainer, epoch)`` after an epoch, with the network as it was
        tested; it may set `stop`.
    checkpoint : str or path, optional
        A file that is written after each epoch. If it exists, `fit` goes on from there, and ends
        as it would have without the interruption: on a CPU, bit for bit.
    checkpoint_every : float, optional
        How many seconds may pass within an epoch until it is written again.
    seed : int
        For the order of the examples, the dropout masks and the augmentation.
    progress : bool or Progress
        Whether to show a bar and a line an epoch.
    divisor : float, optional
        What each batch of x is divided by: 255 for pixels that stay bytes on the device.
    capture : bool
        Whether a GPU may capture the step and replay it (`Backend.compile_step`). Then a layer's
        Python runs in the first steps of an epoch only; say False for one that must see each.
    augment : Augmentation or callable, optional
        Changes the pictures of each training batch, as ``augment(x, generator) -> x``, before the
        network sees them; see `xpdl.datasets.augmentation`. The generator's numbers depend on
        `seed` and the epoch alone. A checkpoint knows a function by its name, else by its repr.
    average : float, optional
        The decay, such as 0.999, of a `MovingAverage` of the parameters. The averaged ones are
        tested after each epoch and are in the network when `fit` ends, however it ends; the
        training itself, and what `fit` goes on from, is as it would be without.
    average_warm_up : bool
        Whether the average's decay begins small.
    on_divergence : {"stop", "skip", "reduce-lr"}
        What to do about a step whose loss or gradients are NaN or infinite. It is never made:
        parameters, statistics and the optimizer stay as they were. Then the training stops with an
        error, after a checkpoint; or goes on with the next batch; or does so at half the rate.
        After 50 such steps in a row it stops in any case. A CPU looks at each step; a GPU is looked
        at when the bar is, twice a second, and at the end of an epoch.

    Attributes
    ----------
    history : History
        What happened so far.
    stop : bool
        Set to end the training after the current epoch.
    rate_factor : float
        What "reduce-lr" has made of the learning rate.
    answers : array of int, (N,), or None
        The class seen in each test example when they were last tested, on the device; None before
        that, and where a training was resumed and there is no epoch left.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError, NonFiniteError
        If an argument does not fit; labels and finiteness are checked here, once.
    """

    def __init__(
        self,
        network: Network,
        train: Data,
        test: Data | None = None,
        *,
        optimizer: str | Optimizer = "adam",
        epochs: int = 20,
        batch_size: int | Mapping[int, int] = 100,
        schedule: str | Schedule | None = None,
        callbacks: Iterable[Callback] = (),
        checkpoint: str | os.PathLike[str] | None = None,
        seed: int = 0,
        progress: bool | Progress = True,
        divisor: float | None = None,
        capture: bool = True,
        augment: Augment | None = None,
        average: float | None = None,
        average_warm_up: bool = True,
        checkpoint_every: float | None = 180.0,
        on_divergence: str = "stop",
    ) -> None:
        if not isinstance(network, Network):
            raise ArgumentError(f"network must be a Network, got {network!r}.")
        self.network = network
        self.optimizer = get_optimizer(optimizer)
        self.epochs = whole_number("epochs", epochs)
        self.schedule = get_schedule(schedule)
        self.callbacks = list(callbacks)
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.seed = whole_number("seed", seed, least=0)
        self.history = History()
        self.stop = False
        self.answers: Array | None = None
        self.capture = capture
        self.augment = self._augmentation(augment)
        check_reached(batch_size, self.epochs)
        self.batches = self._batches(train, batch_size, divisor)
        self.test = None
        if test is not None:
            self.test = self._batches(test, self.batches.size(0), divisor)
        self.checkpoint_every = math.inf
        if checkpoint_every is not None:
            self.checkpoint_every = number("checkpoint_every", checkpoint_every, above=0)
        if on_divergence not in ON_DIVERGENCE:
            raise UnknownNameError("on_divergence", on_divergence, ON_DIVERGENCE)
        self.on_divergence = on_divergence
        self.rate_factor = 1.0
        self.loss_scale = LossScale(network.backend) if network.precision.mixed else None
        self.average: MovingAverage | None = None
        if average is not None:
            decay = number("average", average, below=1)
            self.average = MovingAverage(network, decay, flag("average_warm_up", average_warm_up))
        self.learning_rate = self.optimizer.host_learning_rate()
        self._tally: Tally | None = None  # of an epoch that is not at its end
        self._augmentation_generator: RandomGenerator | None = (
            None  # its random numbers for `augment`
        )
        self._bad_steps = 0  # in a row
        self._interrupted = False
        self._saved_at = 0.0
        self._digest: str | None = None
        if isinstance(progress, Progress):
            self.progress = progress
        else:
            self.progress = Progress() if progress else Silence()

    def fit(self) -> History:
        """Train for the epochs that are left, and return what happened.

        Raises
        ------
        DivergenceError
            If the loss or the gradients are NaN or infinite, see `on_divergence`, or the loss scale
            of half precision collapses.
        KeyboardInterrupt
            After `interrupt`.
        """
        average = self.average
        if self.checkpoint is not None and self.checkpoint.exists():
            self._tally, self.answers = load_checkpoint(self.checkpoint, self), None
        elif average is not None:
            average.hide()
            if not self.history.epochs and self._tally is None:
                average.start()
        try:
            with self.clock():
                return self._fit()
        finally:
            self.optimizer.learning_rate = self.learning_rate  # not as the device rounds it
            if average is not None:
                average.show()

    def interrupt(self) -> None:
        """Let `fit` end after the step that it is in, with a checkpoint, by KeyboardInterrupt.

        For another thread, or the handler of a signal; a `fit` that has not begun ends so too.
        """
        self._interrupted = True

    @property
    def interrupted(self) -> bool:
        """Whether there was an `interrupt` that no `fit` has ended for."""
        return self._interrupted

    def _heed_interruption(self) -> None:
        if self._interrupted:
            self._interrupted = False
            raise KeyboardInterrupt

    @property
    def steps_of_epoch(self) -> tuple[int, int] | None:
        """How many steps were made in an epoch that is not at its end, and how many it has."""
        return None if self._tally is None else (self._tally.done, self._tally.steps)

    def clock(self) -> AbstractContextManager[object]:
        """Let the optimizer keep its rate and its count on the device, where a step needs it so."""
        network = self.network
        if self.loss_scale is None and not network.backend.compiles:
            return nullcontext()
        return self.optimizer.time_kept_on(network.backend, network.precision.parameters)

    def _fit(self) -> History:
        self._saved_at = time.perf_counter()
        while len(self.history.epochs) < self.epochs and not self.stop:
            # An overflow shows in the loss or the gradients, where it is looked for; NumPy's own
            # warnings would only come before.
            try:
                with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                    epoch = self._train_epoch(len(self.history.epochs))
            finally:
                self.optimizer.learning_rate = self.learning_rate
            try:
                with self._as_tested():
                    for callback in self.callbacks:
                        callback(self, epoch)
            finally:
                self._save()
            self._heed_interruption()
        return self.history

    def _train_epoch(self, index: int) -> Epoch:
        network, scale = self.network, self.loss_scale
        tally, finished = self._begin_epoch(index), None
        network.parameters.refresh()  # afterwards each update does it
        network.forget()  # what was captured in the epoch before need not stay
        do_step = self._make_step(index)
        steps, at_once = tally.steps, not network.backend.compiles
        self.progress.begin(index, self.epochs, steps, len(self.batches.x), tally.done)
        try:
            for part in islice(self.batches.parts(index), tally.done, None):
                step = tally.done
                tally.rate = self._rate_at(index + step / steps)
                self.optimizer.learning_rate = tally.rate
                if scale is not None:
                    tally.scales[step] = scale.value
                with network.explaining_memory(len(part), train=True):
                    tally.losses[step], hits = do_step(part)
                tally.count(len(part), hits)
                due = self.progress.due()
                if due or at_once:
                    self._look_for_divergence(tally)
                if due:
                    self._show(tally)
                if tally.done < steps and (self._interrupted or self._is_save_due()):
                    self._look_for_divergence(tally)
                    self._save(tally)
                    self._heed_interruption()
            finished = self._finish_epoch(index, tally)
        finally:
            self.progress.end(finished)
            if finished is None:
                tally.end_sitting()
        return finished

    def _begin_epoch(self, index: int) -> Tally:
        """Return the tally of an epoch that begins, or of one that goes on from a checkpoint."""
        network, tally = self.network, self._tally
        if tally is None:
            network.reseed([self.seed, index])
            self.set_augmentation_state(None)
            tally = self._tally = Tally(network, self.batches.in_epoch(index))
            tally.skipped = self._read_scale()[0]
        else:
            tally.begin_sitting()
        return tally

    def _is_save_due(self) -> bool:
        return time.perf_counter() - self._saved_at > self.checkpoint_every

    def _save(self, tally: Tally | None = None) -> None:
        """Write the checkpoint, if there is one, at the end of an epoch or in it."""
        if self.checkpoint is not None:
            self.optimizer.learning_rate = self.learning_rate
            save_checkpoint(self.checkpoint, self, tally)
        self._saved_at = time.perf_counter()

    def _look_for_divergence(self, tally: Tally) -> tuple[float, float | None]:
        """See whether one of the steps since the last look was not made, and do what is to be done.

        Returns what `_read_scale` does.

        Raises
        ------
        DivergenceError
            If that is to stop.
        """
        losses = tally.new_losses()
        first = None
        for step, loss in enumerate(losses.tolist(), tally.done - len(losses)):
            good = math.isfinite(loss)
            self._bad_steps = 0 if good else self._bad_steps + 1
            if not good and first is None:
                first = step
        try:
            scale = self._read_scale()
        except DivergenceError:
            self._save(tally)
            raise
        if first is None:
            return scale
        place = f"at step {len(self.history.losses) + first}"
        if self.on_divergence == "stop" or self._bad_steps >= MOST_BAD_STEPS:
            self._save(tally)
            raise DivergenceError(
                f"the training diverged {place}: {self._explain(first)}. {ADVICE}."
            )
        told = f"the training diverged {place}, which was not made"
        if self.on_divergence == "reduce-lr":
            self.rate_factor /= 2
            told += f"; the learning rate is {self.rate_factor:g} of what it was"
        self.progress.warn(told)
        return scale

    def _explain(self, step: int) -> str:
        """Say in which layer a step of this epoch diverged."""
        parts = self.batches.parts(len(self.history.epochs))
        told = explain(self.network, *self.batches.take(next(islice(parts, step, None))))
        return told if self.augment is None else f"{told} (looked at without augmentation)"

    def _rate_at(self, position: float) -> float:
        """Return the learning rate at a position in the training, in epochs."""
        factor = number("the schedule's factor", self.schedule(position, self.epochs))
        return self.learning_rate * self.rate_factor * factor

    def _show(self, tally: Tally) -> None:
        """Read from the device what the bar shows."""
        recent = tally.read_losses(max(0, tally.done - 100), tally.done)
        self.progress.show(tally.done, mean_of_finite(recent), tally.accuracy())

    def _finish_epoch(self, index: int, tally: Tally) -> Epoch:
        """Test the network, and add the epoch to the history."""
        skipped, factor = self._look_for_divergence(tally)
        losses = tally.read_losses(0, tally.steps)
        if factor is None:
            skipped = float((~np.isfinite(losses)).sum())
        epoch = Epoch(
            number=index,
            loss=mean_of_finite(losses),
            train_accuracy=tally.accuracy(),
            test_accuracy=self._test_accuracy(),
            learning_rate=tally.rate,
            seconds=tally.seconds,
            skipped_steps=round(skipped - tally.skipped),
            loss_scale=factor,
            batch_size=self.batches.size(index),
        )
        if self.loss_scale is not None:
            self.history.add_loss_scales(self.network.backend.to_numpy(tally.scales).tolist())
        self.history.losses += losses.tolist()
        self.history.epochs.append(epoch)
        self._tally = None
        return epoch

    def _read_scale(self) -> tuple[float, float | None]:
        """Return how many steps were skipped so far, and half precision's factor on the loss."""
        if self.loss_scale is None:
            return 0.0, None
        state = self.loss_scale.read()
        return state["skipped"], state["value"]

    def _make_step(self, index: int) -> Callable[[Array], tuple[Array, Array]]:
        """Return what does a step of epoch `index` on the examples `part`, as `_step` does.

        Made anew for each epoch, since the masks' generators are new. Augmentation is not captured,
        so that it may be any function.
        """
        network, augment = self.network, self.augment
        backend, capture = network.backend, self.capture and self.batches.resident
        step: Callable[..., tuple[Array, Array]] = self._step if augment is None else self.learn
        if capture:
            step = backend.compile_step(step, network.forget)
        if augment is None:
            return step
        generator = self._augmentation_generator
        assert generator is not None

        def augmented_step(part: Array) -> tuple[Array, Array]:
            x, t = self.batches.take(part)
            # In one memory order, so that a captured step sees what an eager one would.
            return step(backend.xp.ascontiguousarray(augment(x, generator)), t)

        return augmented_step

    def _step(self, part: Array) -> tuple[Array, Array]:
        """Train on the examples `part`; return the loss and how many were right before, both ().

        Reads nothing from the device, and keeps nothing on the host, so that it can be captured.
        """
        return self.learn(*self.batches.take(part))

    def learn(self, x: Array, t: Array) -> tuple[Array, Array]:
        """Train on a batch (x, t), and return what `_step` does.

        Within `clock`, and after `network.parameters.refresh` if its parameters were changed by
        hand; `fit` does both.
        """
        network, scale = self.network, self.loss_scale
        backend = network.backend
        before = [(a, a.copy()) for a in network.state.values()]
        factor: Number = 1.0 if scale is None else scale.value
        loss, scores = network.forward_backward(x, t, factor, refresh=False)
        hits = count_hits(scores, t) if network.loss_layer.classifies else loss
        go: Array | None
        if scale is not None:
            go = scale.unscale(network.grads.buffer)
        else:
            go = backend.all_finite(loss, network.grads.buffer)
            loss = backend.xp.where(go, loss, math.nan)
        if scale is None and not backend.compiles:  # the host may as well know
            if not backend.item(go):
                for a, kept in before:
                    a[...] = kept
                return loss, hits
            go = None
        self.optimizer.update(network.params, network.grads, go=go)
        if scale is not None and go is not None:
            scale.update(go)
        if self.average is not None:
            self.average.update(go)
        if go is not None:
            for a, kept in before:
                a[...] = backend.xp.where(go, a, kept)
        return loss, hits

    def _as_tested(self) -> AbstractContextManager[None]:
        """Let the network be, within a block, the one that is tested: the averaged, if there is."""
        return nullcontext() if self.average is None else self.average.in_network()

    def _test_accuracy(self) -> float | None:
        if self.test is None or not self.network.loss_layer.classifies:
            return None
        backend = self.network.backend
        with self._as_tested():
            self.answers = classes_seen(self.network, self.test)
        t = backend.asarray(self.test.t)
        classes = t if t.ndim == 1 else t.argmax(axis=1)
        return backend.item((self.answers == classes).sum()) / len(self.test.x)

    def _batches(
        self, data: Data, batch_size: int | Mapping[int, int], divisor: float | None
    ) -> Batches:
        network = self.network
        if not isinstance(data, tuple | list) or len(data) != 2:
            raise ArgumentError(f"data must be a pair (x, t), got {type(data).__name__}.")
        x, t = data
        batches = Batches(
            x,
            t,
            batch_size,
            backend=network.backend,
            seed=self.seed,
            dtype=network.precision.compute,
            divisor=divisor,
        )
        if batches.x.shape[1:] != network.input_shape:
            # One sample is enough for the network to say what it wants instead.
            network.predict(network.backend.asarray(batches.x[:1]))
        if network.loss_layer.classifies:
            functions.check_targets(batches.t, (len(batches.t), *network.output_shape))
            if batches.t.ndim == 1:
                functions.check_labels(
                    backend_of(batches.t).to_numpy(batches.t), network.output_shape[0]
                )
        return batches

    def _augmentation(self, augment: Augment | None) -> Augment | None:
        if augment is not None and (isinstance(augment, type) or not callable(augment)):
            raise ArgumentError(
                f"augment must be an augmentation such as Rotate(10), or a function of "
                f"(x, generator), got {augment!r}."
            )
        if isinstance(augment, Augmentation):
            augment.check(self.network.input_shape)
        return augment

    # ---- for a checkpoint -----------------------------------------------------------------------

    def data_digest(self) -> str:
        """Return the SHA-256 of the training data, as it lies on the device."""
        if self._digest is None:
            self._digest = digest(self.batches.x, self.batches.t)
        return self._digest

    def augmentation_state(self) -> dict[str, int] | None:
        """Return where the random numbers of `augment` are, as JSON can hold it."""
        if self.augment is None or self._augmentation_generator is None:
            return None
        return self.network.backend.generator_state(self._augmentation_generator)

    def set_augmentation_state(self, state: Mapping[str, int] | None) -> None:
        """Go on in an epoch where `augmentation_state` was."""
        backend = self.network.backend
        index = len(self.history.epochs)
        self._augmentation_generator = backend.generator([AUGMENTATION_STREAM, self.seed, index])
        if state is not None:
            backend.set_generator_state(self._augmentation_generator, state)
