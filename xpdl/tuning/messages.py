"""What several ranks say to each other in a training step, and how much of it backward hides."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from xpdl.arguments import whole_number
from xpdl.backends import Array
from xpdl.distributed.ranks import Ranks
from xpdl.errors import ArgumentError
from xpdl.network import Network
from xpdl.optimizers import Optimizer
from xpdl.training.gradient_sum import GradientSum
from xpdl.training.step import Step


@dataclass(frozen=True)
class MessageTimes:
    """The sums of gradients in a step of several ranks; seconds are medians over the rounds.

    Attributes
    ----------
    ranks, rows : int
        How many ranks share a batch of so many rows.
    pieces, nbytes : int
        In how many messages gradients travel, and how many bytes they are.
    dtype : str
        As what they travel.
    step : float
        A whole step, from where all begin to where the last ends.
    alone : float
        The same sums with nothing beside them.
    exposed : float
        For how long the rank that came last to the end of backward waited for sums, the loss's too.
    late : float
        For how much longer the others waited, on average: for that rank.
    """

    ranks: int
    rows: int
    pieces: int
    nbytes: int
    dtype: str
    step: float
    alone: float
    exposed: float
    late: float

    @property
    def hidden(self) -> float:
        """What of the sums went on beside backward."""
        return max(0.0, self.alone - self.exposed)

    def table(self) -> str:
        """Return the times as text, a line each."""
        pieces = "piece" if self.pieces == 1 else "pieces"
        told = (
            f"{self.nbytes / 1e6:.2f} MB of gradients as {self.dtype}, in {self.pieces} {pieces}, "
            "with nothing beside them"
        )
        lines = {
            "together": (self.step, f"a step of {self.rows} rows on {self.ranks} processes"),
            "messages": (self.alone, told),
            "  hidden": (self.hidden, "behind backward"),
            "  not hidden": (self.exposed, "when the last process was through backward"),
            "waiting": (self.late, "for that process, the others on average"),
        }
        return "\n".join(
            f"{name:<12} {1000 * t:9.2f} ms {what}" for name, (t, what) in lines.items()
        )


def time_messages(
    network: Network,
    x: Array,
    t: Array,
    optimizer: Optimizer,
    ranks: Ranks,
    *,
    rounds: int = 30,
    reduce_dtype: str | None = None,
) -> MessageTimes:
    """Train on one batch with all ranks, `rounds` times over, and say what they waited for.

    All ranks call it alike. After each step the same sums are made again, with nothing beside
    them. The device is waited for before and after sums. Messages of batch normalisation are in
    the step, not among the sums. The network and the optimizer are changed, as by any training.

    Parameters
    ----------
    x, t : array
        The whole batch, on the network's device.
    rounds : int
        How many steps; two more come before and are not counted.
    reduce_dtype : {None, "float16"}
        As what gradients travel; see `Step`.

    Raises
    ------
    ArgumentError
        If there are more ranks than rows, or gradients cannot travel so.
    """
    rounds = whole_number("rounds", rounds)
    if ranks.size > len(x):
        raise ArgumentError(f"{ranks.size} processes cannot share a batch of {len(x)}.")
    step = Step(network, optimizer, capture=False, ranks=ranks, reduce_dtype=reduce_dtype)
    sums = step.gradient_sum
    assert sums is not None
    times: dict[str, list[float]] = {"step": [], "alone": [], "waited": []}
    synchronize = network.backend.synchronize
    with _timed(network, sums, times["waited"]) as finish:
        for _ in range(rounds + 2):
            ranks.barrier()
            synchronize()
            start = time.perf_counter()
            step(x, t)
            synchronize()
            times["step"].append(time.perf_counter() - start)
            ranks.barrier()
            start = time.perf_counter()
            finish()
            synchronize()
            times["alone"].append(time.perf_counter() - start)
    told = ranks.gather(times)

    def median(name: str, of: Callable[[Sequence[float]], float]) -> float:
        """Return the median, over the rounds, of what a round is by the times of all ranks."""
        rounds = zip(*(one[name][2:] for one in told), strict=True)
        return statistics.median(of(times) for times in rounds)

    return MessageTimes(
        ranks=ranks.size,
        rows=len(x),
        pieces=len(sums.pieces),
        nbytes=sums.nbytes,
        dtype=sums.dtype,
        step=median("step", max),
        alone=median("alone", min),
        exposed=median("waited", min),
        late=median("waited", lambda times: statistics.mean(times) - min(times)),
    )


@contextmanager
def _timed(
    network: Network, sums: GradientSum, waited: list[float]
) -> Iterator[Callable[[], None]]:
    """Note the time from the end of each backward pass until all sums are there.

    It gives what makes the sums, and notes nothing.
    """
    propagate, finish, synchronize = network.propagate, sums.finish, network.backend.synchronize
    through = 0.0

    def to_the_end_of_backward(*arrays: Any, **how: Any) -> Any:
        nonlocal through
        result = propagate(*arrays, **how)
        synchronize()
        through = time.perf_counter()
        return result

    def until_all_are_there() -> None:
        finish()
        synchronize()
        waited.append(time.perf_counter() - through)

    vars(network)["propagate"], vars(sums)["finish"] = to_the_end_of_backward, until_all_are_there
    try:
        yield finish
    finally:
        del vars(network)["propagate"], vars(sums)["finish"]
