"""A training that can be interrupted, and goes on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from xpdl.training.checkpoint import save_checkpoint
from xpdl.training.settings import digest
from xpdl.training.tally import Tally


class Resuming:
    """What a `Trainer` does about interruptions and its checkpoint."""

    checkpoint: Path | None
    batches: Any
    step: Any
    _tally: Tally | None = None  # of an epoch that is not at its end
    _interrupted = False
    _saved_at = 0.0
    _digest: str | None = None
    source: str | None = None
    """What tells the training data from any other, if it need not be read for that."""

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

    def _save(self, tally: Tally | None = None) -> None:
        """Write the checkpoint, if there is one, at the end of an epoch or in it."""
        if self.checkpoint is not None:
            save_checkpoint(self.checkpoint, self, tally)
        self._saved_at = time.perf_counter()

    def save_diverged(self, tally: Tally) -> None:
        """Write the checkpoint of a training that ends here."""
        if self.step.complete:
            self._save(tally)

    def data_digest(self) -> str:
        """Return what the data is known by: its `source`, or its SHA-256 as it lies there."""
        if self.source is not None:
            return self.source
        if self._digest is None:
            self._digest = digest(*self.batches.arrays())
        return self._digest
