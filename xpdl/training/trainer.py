"""The training loop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from xpdl import functions
from xpdl.arguments import number, whole_number
from xpdl.backends import Array, Number, RandomGenerator, backend_of
from xpdl.datasets.augmentation import Augmentation
from xpdl.datasets.batches import Batches
from xpdl.errors import ArgumentError
from xpdl.network import Network, count_hits
from xpdl.optimizers import Optimizer, get_optimizer
from xpdl.precision import LossScale
from xpdl.schedules import Schedule, get_schedule
from xpdl.training.answers import classes_seen
from xpdl.training.averaging import MovingAverage
from xpdl.training.checkpoint import load_checkpoint, save_checkpoint
from xpdl.training.history import Epoch, History
from xpdl.training.progress import Progress, Silence
from xpdl.training.settings import known_as
from xpdl.training.tally import Tally

Data: TypeAlias = tuple[Any, Any]
Callback: TypeAlias = Callable[["Trainer", Epoch], object]
Augment: TypeAlias = Callable[[Array, RandomGenerator], Array]

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
        as it would have without the interruption.
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

    Attributes
    ----------
    history : History
        What happened so far.
    stop : bool
        Set to end the training after the current epoch.
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
        self.batches = self._batches(train, batch_size, divisor)
        self.test = None
        if test is not None:
            self.test = self._batches(test, self.batches.size(0), divisor)
        self.loss_scale = LossScale(network.backend) if network.precision.mixed else None
        self.average: MovingAverage | None = None
        if average is not None:
            decay = number("average", average, below=1)
            self.average = MovingAverage(network, decay, average_warm_up)
        self.learning_rate = self.optimizer.host_learning_rate()
        if isinstance(progress, Progress):
            self.progress = progress
        else:
            self.progress = Progress() if progress else Silence()

    def fit(self) -> History:
        """Train for the epochs that are left, and return what happened.

        Raises
        ------
        DivergenceError
            If the loss is NaN or infinite, or the loss scale of half precision collapses.
        """
        average = self.average
        if self.checkpoint is not None and self.checkpoint.exists():
            self._resume()
        elif average is not None:
            average.hide()
            if not self.history.epochs:
                average.start()
        try:
            with self.clock():
                return self._fit()
        finally:
            self.optimizer.learning_rate = self.learning_rate  # not as the device rounds it
            if average is not None:
                average.show()

    def clock(self) -> AbstractContextManager[object]:
        """Let the optimizer keep its rate and its count on the device, where a step needs it so."""
        network = self.network
        if self.loss_scale is None and not network.backend.compiles:
            return nullcontext()
        return self.optimizer.time_kept_on(network.backend, network.precision.parameters)

    def _fit(self) -> History:
        while len(self.history.epochs) < self.epochs and not self.stop:
            # An overflow shows in the loss or the gradients, where it is looked for; NumPy's own
            # warnings would only come before.
            try:
                with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                    epoch = self._train_epoch(len(self.history.epochs))
            finally:
                self.optimizer.learning_rate = self.learning_rate
            if self.checkpoint is not None:
                save_checkpoint(
                    self.checkpoint,
                    self.network,
                    self.optimizer,
                    self._notes(progress=True),
                    self.average,
                )
            with self._as_tested():
                for callback in self.callbacks:
                    callback(self, epoch)
        return self.history

    def _train_epoch(self, index: int) -> Epoch:
        network, scale = self.network, self.loss_scale
        steps = self.batches.in_epoch(index)
        tally = Tally(network, steps, before=len(self.history.losses))
        start, finished = time.perf_counter(), None
        skipped = self._read_scale()[0]
        network.reseed([self.seed, index])
        network.parameters.refresh()  # afterwards each update does it
        network.forget()  # what was captured in the epoch before need not stay
        do_step = self._make_step(index)
        self.progress.begin(index, self.epochs, steps, len(self.batches.x))
        try:
            for step, part in enumerate(self.batches.parts(index)):
                rate = self._rate_at(index + step / steps)
                self.optimizer.learning_rate = rate
                if scale is not None:
                    tally.scales[step] = scale.value
                with network.explaining_memory(len(part), train=True):
                    tally.losses[step], hits = do_step(part)
                tally.count(len(part), hits)
                if self.progress.due():
                    self._show(tally, step)
            finished = self._finish_epoch(index, tally, rate, skipped, start)
        finally:
            self.progress.end(finished)
        return finished

    def _rate_at(self, position: float) -> float:
        """Return the learning rate at a position in the training, in epochs."""
        factor = number("the schedule's factor", self.schedule(position, self.epochs))
        return self.learning_rate * factor

    def _show(self, tally: Tally, step: int) -> None:
        """Read from the device what the bar shows, and see that the training has not collapsed."""
        recent = tally.read_losses(max(0, step - 99), step + 1)
        accuracy = tally.accuracy()
        self._read_scale()
        self.progress.show(step + 1, float(recent.mean()), accuracy)

    def _finish_epoch(
        self, index: int, tally: Tally, rate: float, skipped: float, start: float
    ) -> Epoch:
        """Test the network, and add the epoch to the history.

        `rate` is the last learning rate, `skipped` how many steps of the whole training were
        skipped before this epoch, and `start` when it began.
        """
        skipped_now, factor = self._read_scale()
        losses = tally.read_losses(0, tally.steps)
        epoch = Epoch(
            number=index,
            loss=float(losses.mean(dtype=np.float64)),
            train_accuracy=tally.accuracy(),
            test_accuracy=self._test_accuracy(),
            learning_rate=rate,
            seconds=time.perf_counter() - start,
            skipped_steps=round(skipped_now - skipped),
            loss_scale=factor,
            batch_size=self.batches.size(index),
        )
        if self.loss_scale is not None:
            self.history.add_loss_scales(self.network.backend.to_numpy(tally.scales).tolist())
        self.history.losses += losses.tolist()
        self.history.epochs.append(epoch)
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
        generator = backend.generator([AUGMENTATION_STREAM, self.seed, index])

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
        """Train on a batch (x, t), and return what `_step` does."""
        network, scale = self.network, self.loss_scale
        factor: Number = 1.0 if scale is None else scale.value
        loss, scores = network.forward_backward(x, t, factor, refresh=False)
        go = None
        if scale is None:
            self.optimizer.update(network.params, network.grads)
        else:
            go = scale.unscale(network.grads.buffer)
            self.optimizer.update(network.params, network.grads, go=go)
            scale.update(go)
        if self.average is not None:
            self.average.update(go)
        return loss, count_hits(scores, t) if network.loss_layer.classifies else loss

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

    def _notes(self, progress: bool) -> dict[str, Any]:
        """Return what a checkpoint says beside the arrays; without `progress`, what must agree."""
        notes = {
            "architecture": self.network.config(),
            "epochs": self.epochs,
            "batch_size": self.batches.batch_size,
            "examples": len(self.batches.x),
            "seed": self.seed,
            "optimizer": self.optimizer.settings(),
            "base_learning_rate": self.learning_rate,
            "schedule": known_as(self.schedule),
        }
        # A checkpoint of a training without them says nothing of them.
        for name, value in (
            ("augment", known_as(self.augment)),
            ("average", None if self.average is None else self.average.settings()),
            ("divisor", self.batches.divisor),
        ):
            if value is not None or not progress:
                notes[name] = value
        if progress:
            scale = self.loss_scale
            notes["loss_scale"] = None if scale is None else scale.read()
            notes["history"] = self.history.as_dict()
        return notes

    def _resume(self) -> None:
        assert self.checkpoint is not None
        notes = load_checkpoint(
            self.checkpoint,
            self.network,
            self.optimizer,
            self._notes(progress=False),
            self.average,
        )
        self.history = notes["history"]
        self.answers = None
        if self.loss_scale is not None:
            self.loss_scale.restore(notes["loss_scale"])
