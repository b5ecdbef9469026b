"""What a person sees while a network trains."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from xpdl.training.history import Epoch


class Progress:
    """A bar on the terminal during an epoch, and a line on standard output after it.

    The bar shows epoch, loss, accuracy, images per second and the time left for the whole run. It
    goes to standard error, and only if that is a terminal, so that a log holds whole lines.

    Parameters
    ----------
    every : float
        Seconds between two looks at the loss; each look makes a GPU wait.
    """

    def __init__(self, every: float = 0.5) -> None:
        self.every = every
        self.visible = sys.stderr is not None and sys.stderr.isatty()
        self._bar: Any = None
        self._next = 0.0

    def begin(self, epoch: int, epochs: int, steps: int, images: int, done: int = 0) -> None:
        """Start the bar of epoch `epoch` of `epochs`, of which `done` steps were made before."""
        self._epoch, self._epochs, self._steps, self._images = epoch, epochs, steps, images
        self._done = done
        self._start = time.perf_counter()
        self._next = self._start + self.every
        if self.visible:
            from tqdm import tqdm

            self._bar = tqdm(
                total=steps,
                desc=f"epoch {epoch + 1}/{epochs}",
                leave=False,
                dynamic_ncols=True,
                bar_format="{desc} |{bar}| {percentage:3.0f}%{postfix}",
                mininterval=0,
            )

    def due(self) -> bool:
        """Tell whether it is time to look at the training, and to `show` it if there is a bar."""
        return time.perf_counter() >= self._next

    def show(self, step: int, loss: float, measures: Mapping[str, float]) -> None:
        """Show the loss, and the first of the measures, after `step` steps."""
        now = time.perf_counter()
        self._next = now + self.every
        if self._bar is None:
            return
        share, made = step / self._steps, (step - self._done) / self._steps
        spent = now - self._start
        left = spent / made * (self._epochs - self._epoch - share)
        parts = [f"loss {loss:.4f}"]
        parts += [told(name, value) for name, value in list(measures.items())[:1]]
        parts += [f"{self._images * made / spent:,.0f} images/s", f"{_clock(left)} left"]
        self._bar.set_postfix_str(", ".join(parts), refresh=False)
        self._bar.update(step - self._bar.n)
        self._bar.refresh()

    def warn(self, text: str) -> None:
        """Say on standard error that something was not as it should be."""
        if self._bar is not None:
            self._bar.clear()
        print(text, file=sys.stderr, flush=True)

    def end(self, epoch: Epoch | None) -> None:
        """Take the bar away, and print a line on the epoch if it was finished."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if epoch is None:
            return
        parts = [f"epoch {epoch.number + 1:>2}/{self._epochs}", f"loss {epoch.loss:.4f}"]
        for found in ("train", "validation", "test"):
            values: Mapping[str, float] = getattr(epoch, found) or {}
            first = next((name for name in values if name != "loss"), "loss")
            if values:
                parts.append(f"{found} {told(first, values[first])}")
        parts += [f"{self._images / epoch.seconds:,.0f} images/s", f"{epoch.seconds:.1f} s"]
        if epoch.skipped_steps:
            plural = "s" if epoch.skipped_steps > 1 else ""
            parts.append(f"{epoch.skipped_steps} step{plural} skipped")
        print("  ".join(parts), flush=True)


class Silence(Progress):
    """Shows nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.visible = False

    def warn(self, text: str) -> None:
        return

    def end(self, epoch: Epoch | None) -> None:
        return


def told(name: str, value: float) -> str:
    """Return a value of a measure as people read it: shares in percent, others as they are."""
    return f"{name} {value:.4g}" if name in ("loss", "RMSE", "R²") else f"{name} {value:.2%}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"
