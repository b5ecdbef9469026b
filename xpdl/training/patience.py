"""Which epoch was the best on validation data, and when to stop looking for a better one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xpdl.arguments import whole_number
from xpdl.backends import Array
from xpdl.errors import ArgumentError
from xpdl.training.history import Epoch


class Patience:
    """Keeps the best epoch's network, and stops a training that finds no better one.

    The first value of the loss's measure decides, or the loss where it has none.

    Parameters
    ----------
    trainer : Trainer
        Whose epochs; it must have validation data.
    patience : int or None
        How many epochs may pass without a better one; None keeps nothing and never stops.

    Attributes
    ----------
    best : int or None
        The number of the best epoch so far.
    """

    def __init__(self, trainer: Any, patience: int | None) -> None:
        self.patience = None if patience is None else whole_number("patience", patience)
        if self.patience is not None and trainer.validation is None:
            raise ArgumentError(
                "patience wants validation data to choose by: Trainer(..., validation=(x, t))."
            )
        self.best: int | None = None
        self._trainer = trainer
        self._arrays: dict[str, Array] = {}  # of the best epoch, on the host

    def look(self, epoch: Epoch) -> None:
        """Keep the network, as it was tested, if it is the best so far; stop if none was long."""
        if self.patience is None:
            return
        epochs = self._trainer.history.epochs
        if self.best is None or self.better(epoch, epochs[self.best]):
            self.best = epoch.number
            self._arrays = self._trainer.network.host_arrays()
        elif self.ended:
            self._trainer.stop = True

    @property
    def ended(self) -> bool:
        """Whether too many epochs passed without a better one."""
        if self.patience is None or self.best is None:
            return False
        return len(self._trainer.history.epochs) - 1 - self.best >= self.patience

    def better(self, one: Epoch, other: Epoch) -> bool:
        """Tell whether validation found `one` better than `other`."""
        measure = self._trainer.network.loss_layer.measure
        name = next(iter(measure.names), "loss")
        first, second = ((epoch.validation or {}).get(name, 0.0) for epoch in (one, other))
        return first > second if measure.names and measure.highest_is_best else first < second

    def bring_back(self) -> None:
        """Let the network be that of the best epoch."""
        if self._arrays and self._trainer.stop:
            self._trainer.network.load_arrays(self._arrays)

    # ---- to and from a file ---------------------------------------------------------------------

    def arrays(self) -> dict[str, Array]:
        """Return the best epoch's arrays, by the names of `Network.arrays`."""
        return dict(self._arrays)

    def restore(self, best: int | None, arrays: Mapping[str, Array]) -> None:
        """Go on from a file's `best` and `arrays`; no further, if that training had stopped."""
        self.best, self._arrays = best, dict(arrays)
        self._trainer.stop = self.ended
