"""A training that can be interrupted, and goes on."""

from __future__ import annotations

import time

from xpdl.training.checkpoint import save_checkpoint
from xpdl.training.tally import Tally
from xpdl.training.together import Together


class Resuming(Together):
    """What a `Trainer` does about interruptions and its checkpoint."""

    _tally: Tally | None = None  # of an epoch that is not at its end
    interrupted = False  # whether there was an `interrupt` that no `fit` has ended for
    _saved_at = 0.0

    def interrupt(self) -> None:
        """Let `fit` end after the step that it is in, with a checkpoint, by KeyboardInterrupt.

        For another thread, or the handler of a signal; a `fit` that has not begun ends so too.
        """
        self.interrupted = True

    def _pause(self, tally: Tally) -> None:
        """Save between two steps if it is time, and end if somebody wants it."""
        late = time.perf_counter() - self._saved_at > self.checkpoint_every
        if self.any(late or self.interrupted):
            self.watch.look(tally)
            self._save(tally)
            self._heed_interruption()

    def _heed_interruption(self) -> None:
        if self.any(self.interrupted):
            self.interrupted = False
            raise KeyboardInterrupt

    @property
    def steps_of_epoch(self) -> tuple[int, int] | None:
        """How many steps were made in an epoch that is not at its end, and how many it has."""
        return None if self._tally is None else (self._tally.done, self._tally.steps)

    def _save(self, tally: Tally | None = None) -> None:
        """Write the checkpoint, if there is one, at the end of an epoch or in it."""
        if self.checkpoint is not None and self.writes:
            save_checkpoint(self.checkpoint, self, tally)
        self._saved_at = time.perf_counter()

    def save_diverged(self, tally: Tally) -> None:
        """Write the checkpoint of a training that ends here."""
        if self.step.complete:
            self._save(tally)
