"""What the steps of an epoch come to."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from xpdl.arguments import number, whole_number
from xpdl.backends import Array
from xpdl.errors import NonFiniteError, ShapeError
from xpdl.network import Network


class Tally:
    """Losses, loss scales and hits of an epoch's steps, on the device until somebody looks.

    Parameters
    ----------
    network : Network
        Whose steps they are.
    steps : int
        How many the epoch has.

    Attributes
    ----------
    losses, scales : array (steps,)
        Of each step; scales in half precision only. A loss that is not finite is that of a step
        that was not made.
    done : int
        How many steps are counted.
    rate : float
        The learning rate of the last step.
    skipped : float
        How many steps half precision had skipped before the epoch.
    """

    def __init__(self, network: Network, steps: int) -> None:
        xp, wide = network.backend.xp, network.precision.accumulate
        self.steps = steps
        self.losses, self.scales = (xp.zeros(steps, dtype=wide) for _ in range(2))
        self.done = 0
        self.rate = self.skipped = 0.0
        self._earlier = 0.0  # seconds in sittings before this one
        self.begin_sitting()
        self._hits = xp.zeros((), dtype="float64")
        self._images = 0
        # Each loss travels to the host once: when somebody looks.
        self._host, self._fetched = np.zeros(steps, dtype=wide), 0
        self._looked = 0  # up to where, for divergence
        self._backend = network.backend
        self._classifies = network.loss_layer.classifies

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

    def count(self, images: int, hits: Array) -> None:
        """Count a step, with a batch of `images` of which `hits`, (), were right."""
        self.done += 1
        self._images += images
        if self._classifies:
            self._hits += hits

    def accuracy(self) -> float | None:
        """Return the share of images that were right so far; None for a regression."""
        return self._backend.item(self._hits) / self._images if self._classifies else None

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

    # ---- to and from a file ---------------------------------------------------------------------

    def arrays(self) -> dict[str, Array]:
        """Return the losses and scales so far, on the host."""
        scales = self._backend.to_numpy(self.scales[: self.done])
        return {"losses": self.read_losses(0, self.done), "scales": scales}

    def counts(self) -> dict[str, Any]:
        """Return the numbers beside them, as JSON can hold them."""
        return {
            "done": self.done,
            "hits": round(self._backend.item(self._hits)),
            "images": self._images,
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
        hits, images = (whole_number(name, counts[name], least=0) for name in ("hits", "images"))
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
        self.done = self._looked = done
        self._hits[...], self._images = hits, images
        self._earlier, self.skipped, self.rate = seconds, skipped, rate
        self.begin_sitting()
        for name, place in places.items():
            place[:done] = self._backend.asarray(found[name])


def mean_of_finite(losses: Array) -> float:
    """Return the mean of the host's losses that are finite; NaN if none is."""
    finite = losses[np.isfinite(losses)]
    return float(finite.mean(dtype=np.float64)) if len(finite) else math.nan
