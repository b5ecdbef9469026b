"""The training loop."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from xpdl.arguments import expect_network, flag, in_our_words, number, whole_number
from xpdl.backends import Array
from xpdl.datasets.batches import check_reached
from xpdl.distributed.ranks import Ranks
from xpdl.network import Network
from xpdl.optimizers import Optimizer
from xpdl.schedules import Schedule, get_schedule
from xpdl.training.averaging import MovingAverage
from xpdl.training.checkpoint import load_checkpoint
from xpdl.training.data import expect_pairs, training_batches
from xpdl.training.divergence import Watch
from xpdl.training.feeding import Augment, Feeding
from xpdl.training.history import Epoch, History
from xpdl.training.patience import Patience
from xpdl.training.progress import Progress, Silence
from xpdl.training.resuming import Resuming
from xpdl.training.step import Step
from xpdl.training.tally import Tally, mean_of_finite
from xpdl.training.testing import judge

Data: TypeAlias = tuple[Any, ...]
Callback: TypeAlias = Callable[["Trainer", Epoch], object]
StepCallback: TypeAlias = Callable[["Trainer"], object]


class Trainer(Resuming):
    """Trains a network on batches of data, epoch by epoch.

    Data, losses and measures are on its device; they are read when the bar refreshes and at the end
    of an epoch.

    Parameters
    ----------
    network : Network
        What to train; changed in place.
    train : (x, t) or (x, t, weights)
        Examples (N, ...) and targets, host arrays or arrays of the network's backend; of several
        inputs or outputs, dictionaries by name. Weights (N,) say what each example counts. Integers
        are what the network's `Normalize` says, or else numbers.
    test : (x, t), optional
        Data on which loss and measure are shown after each epoch; nothing is chosen by it.
    validation : (x, t), optional
        Data by which the best epoch, `patience` and nothing else is chosen.
    optimizer : str or Optimizer
        A name ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "muon"), made
        with its default settings, or an optimizer.
    epochs : int
        How many passes over the data.
    batch_size : int or mapping of int to int
        How many examples a batch, or from which epoch on how many: {0: 100, 3: 400}. The learning
        rate stays what `schedule` makes it.
    accumulate : int
        Over how many batches gradients are added up before an update; see `Step`.
    schedule : str or Schedule, optional
        A factor on the learning rate by position in the training: "constant" (the default),
        "step", "exponential", "cosine", "one-cycle", or one of `xpdl.schedules`.
    callbacks : iterable of callable
        Each is called as ``callback(trainer, epoch)`` after an epoch, with the network as it was
        tested; it may set `stop`, freeze layers, or set the optimizer's learning rate.
    step_callbacks : iterable of callable
        Each is called as ``callback(trainer)`` after a step.
    checkpoint : str or path, optional
        A file that is written after each epoch. If it exists, `fit` goes on from there, and ends
        as it would have without the interruption: on a CPU, bit for bit.
    checkpoint_every : float, optional
        How many seconds may pass within an epoch until it is written again.
    seed : int
        For the order of the examples, the dropout masks and the augmentation.
    progress : bool or Progress
        Whether to show a bar and a line an epoch.
    capture : bool
        Whether a GPU may capture the step and replay it; see `Step`.
    augment : Augmentation or callable, optional
        Changes the pictures of each training batch, as ``augment(x, generator) -> x``, before the
        network sees them, scaled to 0..1 by its `Normalize`; see `xpdl.datasets.augmentation`. The
        generator's numbers depend on `seed` and the epoch alone. A checkpoint knows a function by
        its name, else by its repr.
    average : float, optional
        The decay, such as 0.999, of a `MovingAverage` of the parameters. The averaged ones are
        tested after each epoch and are in the network when `fit` ends, however it ends; the
        training itself, and what `fit` goes on from, is as it would be without.
    average_warm_up : bool
        Whether the average's decay begins small.
    patience : int, optional
        After how many epochs in which validation found nothing better to stop; the network then is
        that of the best epoch.
    on_divergence : {"stop", "skip", "reduce-lr"}
        What to do about a step whose loss or gradients are NaN or infinite. It is never made:
        parameters, statistics and the optimizer stay as they were. Then the training stops with an
        error, after a checkpoint; or goes on with the next batch; or does so at half the rate.
        After 50 such steps in a row it stops in any case. A CPU looks at each step; a GPU is looked
        at when the bar is, twice a second, and at the end of an epoch.
    ranks, whole_statistics, reduce_dtype
        The processes that train together; see `Step`. Rank 0 alone writes.

    Attributes
    ----------
    history : History
        What happened so far.
    stop : bool
        Set to end the training after the current epoch; a later `fit` goes on.
    rate_factor : float
        What "reduce-lr" has made of the learning rate.
    answers : array, or None
        What the network said of each test example, such as its class, (N,), when last tested, on
        the device; None before that, and where nothing was left to train.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError, NonFiniteError
        If an argument does not fit; labels and finiteness are checked here, once.
    """

    @in_our_words(
        expect_pairs,
        mini_batch_size="batch_size",
        optimizer_param="part of the optimizer, such as optimizer=SGD(learning_rate=0.01),",
        evaluate_sample_num_per_epoch="the number of images in test",
        verbose="progress",
        x_test="test=(x_test, t_test)",
        x_train="train=(x_train, t_train)",
    )
    def __init__(
        self,
        network: Network,
        train: Data,
        test: Data | None = None,
        *,
        validation: Data | None = None,
        optimizer: str | Optimizer = "adam",
        epochs: int = 20,
        batch_size: int | Mapping[int, int] = 100,
        accumulate: int = 1,
        schedule: str | Schedule | None = None,
        callbacks: Iterable[Callback] = (),
        step_callbacks: Iterable[StepCallback] = (),
        checkpoint: str | os.PathLike[str] | None = None,
        seed: int = 0,
        progress: bool | Progress = True,
        capture: bool = True,
        augment: Augment | None = None,
        average: float | None = None,
        average_warm_up: bool = True,
        checkpoint_every: float | None = 180.0,
        patience: int | None = None,
        on_divergence: str = "stop",
        ranks: Ranks | None = None,
        whole_statistics: bool = True,
        reduce_dtype: str | None = None,
    ) -> None:
        expect_network("network", network)
        self.network = network
        self.epochs = whole_number("epochs", epochs)
        self.schedule = get_schedule(schedule)
        self.callbacks, self.step_callbacks = list(callbacks), list(step_callbacks)
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.seed = whole_number("seed", seed, least=0)
        self.history, self.stop = History(), False
        self.answers: Array | None = None
        check_reached(batch_size, self.epochs)
        self.batches = training_batches("train", network, train, batch_size, self.seed)
        size = self.batches.size(0)
        self.test, self.validation = (
            None if data is None else training_batches(name, network, data, size, self.seed)
            for name, data in (("test", test), ("validation", validation))
        )
        self.checkpoint_every = math.inf
        if checkpoint_every is not None:
            self.checkpoint_every = number("checkpoint_every", checkpoint_every, above=0)
        self.average: MovingAverage | None = None
        if average is not None:
            decay = number("average", average, below=1)
            self.average = MovingAverage(network, decay, flag("average_warm_up", average_warm_up))
        self.ranks = ranks
        self.check_ranks()
        how: dict[str, Any] = {"accumulate": accumulate, "capture": capture, "ranks": ranks}
        how |= {"whole_statistics": whole_statistics, "reduce_dtype": reduce_dtype}
        self.step = Step(network, optimizer, average=self.average, **how)
        self.feeding = Feeding(self.step, self.batches, augment, self.seed, self.epochs)
        self.watch = Watch(self, on_divergence)
        self.patience = Patience(self, patience)
        self._base_rate = self.optimizer.host_learning_rate()
        usual = Progress() if progress else Silence()
        self.progress = progress if isinstance(progress, Progress) else usual

    # ---- the loop -------------------------------------------------------------------------------

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
        average, self.stop = self.average, False
        self.meet()
        if self.checkpoint is not None and self.first(self.checkpoint.exists):
            self._tally, self.answers = load_checkpoint(self.checkpoint, self), None
        elif average is not None:
            average.hide()
            if not self.history.epochs and self._tally is None:
                average.start()
        try:
            with self.step.clock():
                return self._fit()
        finally:
            if average is not None:
                average.show()
            self.patience.bring_back()

    def _fit(self) -> History:
        self._saved_at = time.perf_counter()
        while len(self.history.epochs) < self.epochs and not self.stop:
            # An overflow shows in the loss or the gradients, where it is looked for; NumPy's own
            # warnings would only come before.
            self._base_rate = self.optimizer.host_learning_rate()
            try:
                with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                    epoch = self._train_epoch(len(self.history.epochs))
            finally:
                self.optimizer.learning_rate = self._base_rate
            try:
                with self.as_tested():
                    self.patience.look(epoch)
                    for callback in self.callbacks:
                        callback(self, epoch)
            finally:
                self._save()
            self._heed_interruption()
        return self.history

    def _train_epoch(self, index: int) -> Epoch:
        tally, finished = self._begin_epoch(index), None
        self.progress.begin(index, self.epochs, tally.steps, self.batches.examples, tally.done)
        try:
            for _ in self.feeding:
                due = self.progress.due()
                if self._looks(tally, due):
                    self.watch.look(tally)
                if due:
                    self._show(tally)
                if self.step_callbacks:
                    self._call_back(index)
                if tally.done < tally.steps and self.step.complete:
                    self._pause(tally)
            finished = self._finish_epoch(index, tally)
        finally:
            self.progress.end(finished)
            if finished is None:
                tally.end_sitting()
        return finished

    def _begin_epoch(self, index: int) -> Tally:
        """Return the tally of an epoch that begins, or of one that goes on from a checkpoint."""
        network, feeding = self.network, self.feeding
        network.parameters.refresh()  # afterwards each update does it
        network.forget()
        tally = self._tally
        if tally is None:
            network.reseed([self.seed, index])
            feeding.reseed(index)
            tally = self._tally = feeding.tally
            tally.begin(self.batches.in_epoch(index))
            tally.skipped = self.watch.read_scale()[0]
        else:
            tally.begin_sitting()
        feeding.begin(index)
        self.set_rates(index)
        return tally

    def set_rates(self, index: int) -> None:
        """Say at which learning rates the steps of epoch `index` are made."""
        steps, base = self.batches.in_epoch(index), self._base_rate * self.rate_factor
        factors = (self.schedule(index + i / steps, self.epochs) for i in range(steps))
        self.feeding.set_rates([base * number("the schedule's factor", f) for f in factors])

    def _call_back(self, index: int) -> None:
        """Call what wants to know of each step; a rate that is set there holds from now on."""
        self.optimizer.learning_rate = self._base_rate
        for callback in self.step_callbacks:
            callback(self)
        if self.optimizer.host_learning_rate() != self._base_rate:
            self._base_rate = self.optimizer.host_learning_rate()
            self.set_rates(index)

    def _finish_epoch(self, index: int, tally: Tally) -> Epoch:
        """Test the network, and add the epoch to the history."""
        self.expect_one_network()
        skipped, factor = self.watch.look(tally)
        losses = tally.read_losses(0, tally.steps)
        if factor is None:
            skipped = float((~np.isfinite(losses)).sum())
        with self.as_tested():
            test, validation = self._judge()
        epoch = Epoch(
            number=index,
            loss=mean_of_finite(losses),
            learning_rate=tally.rate,
            seconds=tally.seconds,
            skipped_steps=round(skipped - tally.skipped),
            loss_scale=factor,
            batch_size=self.batches.size(index),
            **Epoch.found(tally.measures(), test, validation),
        )
        if self.step.loss_scale is not None:
            self.history.add_loss_scales(tally.loss_scales())
        self.history.losses += losses.tolist()
        self.history.epochs.append(epoch)
        self._tally = None
        return epoch

    def _judge(self) -> tuple[dict[str, float] | None, dict[str, float] | None]:
        """Return what is found on test and on validation data."""
        test, self.answers = judge(self.network, self.test, self.ranks)
        return test, judge(self.network, self.validation, self.ranks)[0]

    # ---- what belongs to it ---------------------------------------------------------------------

    @property
    def optimizer(self) -> Optimizer:
        """What updates the parameters."""
        return self.step.optimizer

    @property
    def learning_rate(self) -> float:
        """What the schedule multiplies: the optimizer's rate between two epochs."""
        return self._base_rate if self._tally is not None else self.optimizer.host_learning_rate()

    @property
    def rate_factor(self) -> float:
        """What "reduce-lr" has made of the learning rate."""
        return self.watch.rate_factor

    def as_tested(self) -> AbstractContextManager[None]:
        """Let the network be, within a block, the one that is tested: the averaged, if there is."""
        return nullcontext() if self.average is None else self.average.in_network()

    def _show(self, tally: Tally) -> None:
        """Read from the device what the bar shows."""
        recent = tally.read_losses(max(0, tally.done - 100), tally.done)
        self.progress.show(tally.done, mean_of_finite(recent), tally.measures())
