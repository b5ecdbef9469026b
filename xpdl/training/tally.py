"""What the steps of an epoch come to."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from xpdl.arguments import number, whole_number
from xpdl.backends import Array
from xpdl.errors import ArgumentError, NonFiniteError, ShapeError
from xpdl.network import Network


class Tally:
    """Losses, loss scales and what the measure sums, on the device until somebody looks.

    Parameters
    ----------
    network : Network
        Whose steps they are.
    steps : int
        How many an epoch has at most. The arrays stay from epoch to epoch, where a captured step
        finds them.

    Attributes
    ----------
    steps : int
        How many the epoch has.
    losses, scales : array (most steps,)
        Of each step; scales in half precision only. A loss that is not finite is that of a step
        that was not made.
    sums : array (k,)
        What the measure of the loss has summed.
    at : array (1,), int64
        How many steps were noted, on the device.
    done : int
        How many steps are counted, on the host.
    rate : float
        The learning rate of the last step.
    skipped : float
        How many steps half precision had skipped before the epoch.
    """

    def __init__(self, network: Network, steps: int) -> None:
        xp, wide = network.backend.xp, network.precision.accumulate
        self._network, self._backend = network, network.backend
        self.losses, self.scales = (xp.zeros(steps, dtype=wide) for _ in range(2))
        self.sums = network.loss_layer.measure.zeros(
            next(iter(network.output_shapes.values())), network.backend
        )
        self.at = xp.zeros(1, dtype="int64")
        self.begin(steps)

    def begin(self, steps: int) -> None:
        """Begin an epoch of so many steps."""
        self.steps = steps
        for a in (self.losses, self.scales, self.sums, self.at):
            a[...] = 0
        self.done = 0
        self.rate = self.skipped = 0.0
        self._earlier = 0.0  # seconds in sittings before this one
        # Each loss travels to the host once: when somebody looks.
        self._host, self._fetched = np.zeros(steps, dtype=self.losses.dtype), 0
        self._looked = 0  # up to where, for divergence
        self.begin_sitting()

    def begin_sitting(self) -> None:
        """Go on measuring the time."""
        self._start: float | None = time.perf_counter()

    def end_sitting(self) -> None:
        """Stop measuring the time."""
        self._earlier, self._start = self.seconds, None

    @property
    def seconds(self) -> float:
        """How long the epoch has taken so far, in all its sittings."""
        now = 0.0 if self._start is None else time.perf_counter() - self._start
        return self._earlier + now

    def note(self, loss: Array, seen: Array, scale: Array | None) -> None:
        """Note what a step came to: all of it on the device, so that it can be captured."""
        self.losses[self.at] = loss
        if scale is not None:
            self.scales[self.at] = scale
        self.sums += seen
        self.at += 1

    def count(self) -> None:
        """Count a step that was noted."""
        self.done += 1

    def measures(self) -> dict[str, float]:
        """Return what the measure finds in the batches so far, as they were trained on."""
        return self._network.loss_layer.measure.values(self._backend.to_numpy(self.sums))

    def read_losses(self, begin: int, end: int) -> Array:
        """Return the losses of the steps from `begin` to before `end`, on the host."""
        new = slice(self._fetched, self.done)
        if new.start < new.stop:
            self._host[new] = self._backend.to_numpy(self.losses[new])
            self._fetched = self.done
        return self._host[begin:end]

    def new_losses(self) -> Array:
        """Return the losses, on the host, of the steps since this was last asked."""
        begin, self._looked = self._looked, self.done
        return self.read_losses(begin, self.done)

    def loss_scales(self) -> list[float]:
        """Return the factor on the loss of each step so far."""
        scales: list[float] = self._backend.to_numpy(self.scales[: self.done]).tolist()
        return scales

    # ---- to and from a file ---------------------------------------------------------------------

    def arrays(self) -> dict[str, Array]:
        """Return the losses, scales and sums so far, on the host."""
        return {
            "losses": self.read_losses(0, self.done),
            "scales": self._backend.to_numpy(self.scales[: self.done]),
            "sums": self._backend.to_numpy(self.sums),
        }

    def counts(self) -> dict[str, Any]:
        """Return the numbers beside them, as JSON can hold them."""
        return {
            "done": self.done,
            "seconds": self.seconds,
            "skipped": self.skipped,
            "rate": self.rate,
        }

    def restore(self, arrays: Mapping[str, Array], counts: Mapping[str, Any]) -> None:
        """Go on from what `arrays` and `counts` returned.

        Raises
        ------
        ArgumentError, ShapeError, KeyError
            If they are not of an epoch of so many steps.
        """
        done = whole_number("done", counts["done"])
        seconds, skipped, rate = (
            number(name, counts[name]) for name in ("seconds", "skipped", "rate")
        )
        places = {"losses": self.losses, "scales": self.scales}
        found = {}
        for name, place in places.items():
            if arrays[name].shape != (done,) or done > self.steps:
                raise ShapeError(
                    f"{name} must be of {done} steps of {self.steps}, got {arrays[name].shape}."
                )
            with np.errstate(over="ignore", invalid="ignore"):  # a loss may be infinite
                found[name] = arrays[name].astype(place.dtype)
        if not np.isfinite(found["scales"]).all():
            raise NonFiniteError("scales holds NaN or infinity.")
        sums = arrays["sums"]
        if sums.shape != self.sums.shape:
            raise ShapeError(f"sums must be {self.sums.shape}, got {sums.shape}.")
        if not (sums >= 0).all() and self._network.loss_layer.classifies:
            raise ArgumentError("sums holds counts below 0.")
        self.done = self._looked = done
        self.sums[...] = self._backend.asarray(sums)
        self.at[...] = done
        self._earlier, self.skipped, self.rate = seconds, skipped, rate
        self.begin_sitting()
        for name, place in places.items():
            place[:done] = self._backend.asarray(found[name])


def mean_of_finite(losses: Array) -> float:
    """Return the mean of the host's losses that are finite; NaN if none is."""
    finite = losses[np.isfinite(losses)]
    return float(finite.mean(dtype=np.float64)) if len(finite) else math.nan
