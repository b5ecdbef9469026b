"""What the steps of an epoch come to."""

from __future__ import annotations

import numpy as np

from xpdl.backends import Array
from xpdl.errors import DivergenceError
from xpdl.network import Network


class Tally:
    """Losses, loss scales and hits of an epoch's steps, on the device until somebody looks.

    Parameters
    ----------
    network : Network
        Whose steps they are.
    steps : int
        How many the epoch has.
    before : int
        How many the training had before.

    Attributes
    ----------
    losses, scales : array (steps,)
        Of each step; scales in half precision only.
    """

    def __init__(self, network: Network, steps: int, before: int) -> None:
        xp, wide = network.backend.xp, network.precision.accumulate
        self.steps = steps
        self.losses, self.scales = (xp.zeros(steps, dtype=wide) for _ in range(2))
        self._hits = xp.zeros((), dtype="int64")
        self._images = 0
        self._before = before
        self._backend = network.backend
        self._classifies = network.loss_layer.classifies

    def count(self, images: int, hits: Array) -> None:
        """Add a batch of `images` of which `hits`, (), were right."""
        self._images += images
        if self._classifies:
            self._hits += hits

    def accuracy(self) -> float | None:
        """Return the share of images that were right so far; None for a regression."""
        return self._backend.item(self._hits) / self._images if self._classifies else None

    def read_losses(self, begin: int, end: int) -> Array:
        """Bring the losses of the steps from `begin` to before `end` to the host.

        Raises
        ------
        DivergenceError
            If one is NaN or infinite; the message gives the step, counted over all epochs.
        """
        host = self._backend.to_numpy(self.losses[begin:end])
        bad = (~np.isfinite(host)).nonzero()[0]
        if len(bad):
            raise DivergenceError(
                f"the loss became {host[bad[0]]} at step {self._before + begin + int(bad[0])}; "
                "use a lower learning rate, gradient clipping or another initialisation."
            )
        return host
