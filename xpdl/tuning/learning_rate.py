"""Which learning rates serve, found by one short training in which the rate rises. Smith 2017."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING

import numpy as np

from xpdl.arguments import expect_network, number, whole_number
from xpdl.errors import DivergenceError
from xpdl.network import Network
from xpdl.optimizers import Optimizer, get_optimizer
from xpdl.plots import rate_curve
from xpdl.training import Trainer
from xpdl.training.feeding import AUGMENTATION_STREAM, Augment
from xpdl.training.trainer import Data

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The loss has diverged when its running mean is so many times the lowest that it was.
DIVERGED = 4.0
# It falls if it does so by this share of what it was; less may be chance.
NOTICEABLE = 0.05
# Losses stay on the device for so many steps; a GPU stops whenever they are read.
READ_EVERY = 10
ROWS = 15  # of a table, about


@dataclass(frozen=True)
class RateSweep:
    """The loss of a training by its learning rate, which rose with every step.

    Attributes
    ----------
    title : str
        What was trained.
    rates, losses : tuple of float
        Of each step, up to the one at which the loss diverged: the rate, and the loss before it
        was used.
    smoothed : tuple of float
        For each step the median of the losses around it, of a twentieth of the sweep, and of these
        the mean: neither a single spike nor the divergence at the end reaches far.
    diverged : bool
        Whether the sweep ended before its time, because the loss did.
    """

    title: str
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    diverged: bool

    @property
    def suggestion(self) -> float | None:
        """The rate at which the loss falls most steeply; None if it falls by less than 5 %.

        That is where the smoothed loss has its steepest slope over the logarithm of the rate, on
        the way to its lowest point. It serves as it is; the peak of a schedule may lie above it,
        but below `lowest`, where training begins to be unstable.
        """
        way = self.smoothed[: self._lowest + 1]
        if way[0] - way[-1] <= NOTICEABLE * abs(way[0]):
            return None
        slopes = np.gradient(way)  # rates are evenly spaced on a log scale
        return self.rates[int(slopes.argmin())]

    @property
    def lowest(self) -> float:
        """The rate at which the smoothed loss is lowest."""
        return self.rates[self._lowest]

    @property
    def _lowest(self) -> int:
        return int(np.argmin(self.smoothed))

    def chart(self) -> Figure:
        """Return the loss by the rate as a picture; see `xpdl.plots.rate_curve`."""
        return rate_curve(self.rates, self.losses, self.smoothed, self.suggestion, self.title)

    def table(self) -> str:
        """Return the sweep as text: some of its steps, with what is to be seen in them."""
        notes = {self.lowest: "lowest"}
        if self.suggestion is not None:
            notes[self.suggestion] = "steepest"
        every = math.ceil(len(self.rates) / ROWS)
        lines = [f"{'rate':>9} {'loss':>9} {'smoothed':>9}"]
        for i, row in enumerate(zip(self.rates, self.losses, self.smoothed, strict=True)):
            note = notes.get(row[0], "")
            if note or i % every == 0 or i == len(self.rates) - 1:
                rate, loss, smooth = row
                lines.append(f"{rate:9.2e} {loss:9.4f} {smooth:9.4f}  {note}".rstrip())
        return "\n".join(lines)


def find_learning_rate(
    network: Network,
    train: Data,
    *,
    optimizer: str | Optimizer = "adam",
    batch_size: int = 100,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 200,
    seed: int = 0,
    augment: Augment | None = None,
) -> RateSweep:
    """Train while the learning rate rises from `low` to `high`, and see where the loss falls.

    rate_i = low (high / low)^(i / (steps - 1)), i = 0, 1 ... steps - 1

    It ends before that where the loss diverges: when the mean of the last losses, a twentieth of
    `steps`, is 4 times the lowest that it was, or a loss is not finite. (Smith 2017,
    arXiv:1506.01186, section 3.3, where the rate rises linearly.)

    What learns is a copy: network and optimizer are left as they are. What they have learnt before
    counts, and so does what is frozen.

    Parameters
    ----------
    network, train, optimizer, batch_size, seed, augment
        As of `Trainer`; the optimizer's own learning rate does not count.
    low, high : float
        The first rate and the last.
    steps : int
        How many, 10 at least.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError, NonFiniteError
        If an argument does not fit.
    DivergenceError
        If the loss is not finite from the first.

    Examples
    --------
    >>> import xpdl
    >>> from xpdl.training import find_learning_rate
    >>> network = xpdl.models.TwoLayerNet(2, 8, 2, weight_init_std="he")
    >>> x, t = [[0.0, 1.0], [1.0, 0.0]] * 50, [0, 1] * 50
    >>> sweep = find_learning_rate(network, (x, t), optimizer="sgd", batch_size=20)
    >>> 0.01 < sweep.suggestion < sweep.lowest
    True
    """
    expect_network("network", network)
    low = number("low", low, above=0)
    high = number("high", high, above=low)
    steps = whole_number("steps", steps, least=10)
    rule = _copy(get_optimizer(optimizer))
    trainer = Trainer(
        copy.deepcopy(network),
        train,
        optimizer=rule,
        batch_size=whole_number("batch_size", batch_size),
        seed=seed,
        augment=augment,
        progress=False,
    )
    rates = [low * (high / low) ** (i / (steps - 1)) for i in range(steps)]
    window = max(3, steps // 20)
    losses: list[float] = []
    for part in _losses(trainer, rates):
        losses += part
        kept, diverged = _until_divergence(losses, window)
        if diverged:
            break
    if not kept:
        raise DivergenceError(
            f"the loss is {losses[0]} before anything is trained; look at the data and at the "
            "first values of the weights."
        )
    return RateSweep(
        f"{network.name}, {type(rule).__name__}: loss by learning rate",
        tuple(rates[:kept]),
        tuple(losses[:kept]),
        tuple(_around(_around(losses[:kept], window // 2, median), window // 2, fmean)),
        diverged,
    )


def _copy(optimizer: Optimizer) -> Optimizer:
    """Return an optimizer of the same settings and memory, with arrays of its own."""
    other = copy.copy(optimizer)
    other.load_state_dict(optimizer.state_dict())
    return other


def _losses(trainer: Trainer, rates: Sequence[float]) -> Iterator[list[float]]:
    """Train a step at each rate, and yield the losses, some at a time."""
    network, rule = trainer.network, trainer.optimizer
    backend, batches, augment = network.backend, trainer.batches, trainer.feeding.augment
    generator = backend.generator([AUGMENTATION_STREAM, trainer.seed, 0])

    network.reseed([trainer.seed, 0])
    network.parameters.refresh()
    losses = backend.xp.zeros(len(rates), dtype=network.precision.accumulate)
    read = 0
    with trainer.step.clock(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for i, (x, t) in enumerate(batches.steps(len(rates))):
            rule.learning_rate = rates[i]
            if augment is not None:
                x = backend.xp.ascontiguousarray(augment(x, generator))
            losses[i], _ = trainer.step(x, t)
            if i + 1 - read == READ_EVERY or i + 1 == len(rates):
                yield backend.to_numpy(losses[read : i + 1]).tolist()
                read = i + 1


def _until_divergence(losses: Sequence[float], window: int) -> tuple[int, bool]:
    """Return how many losses there are up to divergence, and whether it came to that."""
    best = math.inf
    for i, loss in enumerate(losses):
        if not math.isfinite(loss):
            return i, True
        mean = fmean(losses[max(0, i + 1 - window) : i + 1])
        best = min(best, mean)
        if mean > DIVERGED * best:
            return i + 1, True
    return len(losses), False


def _around(
    values: Sequence[float], reach: int, middle: Callable[[Sequence[float]], float]
) -> list[float]:
    """Return the middle of each value and of those up to `reach` before and behind it."""
    return [middle(values[max(0, i - reach) : i + reach + 1]) for i in range(len(values))]
