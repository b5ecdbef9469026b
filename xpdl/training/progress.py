"""What a person sees while a network trains."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from xpdl.notebook import CellBar, in_notebook
from xpdl.training.history import Epoch

LINES_EVERY = 10.0
"""Seconds between two lines of an epoch, where there is no bar."""

_SHORTEST_BAR = 3  # columns


class Progress:
    """A bar during an epoch, and a line on standard output after it.

    The bar shows epoch, loss, accuracy, images per second and the time left for the whole run; on
    a narrow terminal the share that is done, the loss and the time left. It goes to the cell of a
    notebook, or to standard error if that is a terminal. Where there is neither, so that a log
    holds whole lines, one is printed every ten seconds.

    Parameters
    ----------
    every : float
        Seconds between two looks at the loss; each look makes a GPU wait.
    """

    def __init__(self, every: float = 0.5) -> None:
        self.every = every
        on_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._cell = CellBar() if in_notebook() else None
        self.visible = on_terminal and self._cell is None
        self._bar: Any = None
        self._next = self._next_line = 0.0

    def begin(self, epoch: int, epochs: int, steps: int, images: int, done: int = 0) -> None:
        """Start the bar of epoch `epoch` of `epochs`, of which `done` steps were made before."""
        self._epoch, self._epochs, self._steps, self._images = epoch, epochs, steps, images
        self._done = done
        self._start = time.perf_counter()
        self._next, self._next_line = self._start + self.every, self._start + LINES_EVERY
        if self.visible:
            from tqdm import tqdm

            self._bar = tqdm(
                total=steps,
                desc=f"epoch {epoch + 1}/{epochs} ",
                leave=False,
                ncols=_columns(),
                bar_format="{desc}|{bar}| {percentage:3.0f}%{postfix}",
                mininterval=0,
            )

    def due(self) -> bool:
        """Tell whether it is time to look at the training, and to `show` it."""
        return time.perf_counter() >= self._next

    def show(self, step: int, loss: float, measures: Mapping[str, float]) -> None:
        """Show the loss, and the first of the measures, after `step` steps."""
        now = time.perf_counter()
        self._next = now + self.every
        share, made = step / self._steps, (step - self._done) / self._steps
        spent = now - self._start
        left = spent / made * (self._epochs - self._epoch - share)
        parts = [f"loss {loss:.4f}"]
        parts += [told(name, value) for name, value in list(measures.items())[:1]]
        parts += [f"{self._images * made / spent:,.0f} images/s", f"{_clock(left)} left"]
        self._show(step, share, parts, now)

    def _show(self, step: int, share: float, parts: list[str], now: float) -> None:
        epoch = f"epoch {self._epoch + 1}/{self._epochs}"
        if self._cell is not None:
            self._cell.show(share, f"{epoch}, {', '.join(parts)}")
        elif self._bar is not None:
            self._bar.ncols = columns = _columns()
            self._bar.bar_format, text = fitted(f"{epoch} ", parts, columns)
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(step - self._bar.n)
            self._bar.refresh()
        elif now >= self._next_line:
            self._next_line = now + LINES_EVERY
            print("  ".join([epoch, f"{share:.0%}", *parts]), flush=True)

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
        if self._cell is not None:
            self._cell.clear()
        if epoch is None:
            return
        parts = [f"epoch {epoch.number + 1:>2}/{self._epochs}", f"loss {epoch.loss:.4f}"]
        for found in ("train", "validation", "test"):
            values: Mapping[str, float] = getattr(epoch, found) or {}
            first = next((name for name in values if name != "loss"), "loss")
            if values:
                parts.append(f"{found} {told(first, values[first])}")
            if found == "validation" and first != "loss" and "loss" in values:
                parts[-1] += f", {told('loss', values['loss'])}"
        parts += [f"{self._images / epoch.seconds:,.0f} images/s", f"{epoch.seconds:.1f} s"]
        if epoch.skipped_steps:
            plural = "s" if epoch.skipped_steps > 1 else ""
            parts.append(f"{epoch.skipped_steps} step{plural} skipped")
        print("  ".join(parts), flush=True)


class Silence(Progress):
    """Shows nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._cell, self.visible = None, False

    def show(self, step: int, loss: float, measures: Mapping[str, float]) -> None:
        self._next = time.perf_counter() + self.every

    def warn(self, text: str) -> None:
        return

    def end(self, epoch: Epoch | None) -> None:
        return


def fitted(epoch: str, parts: list[str], columns: int) -> tuple[str, str]:
    """Return a bar's format and the text behind it, of as much as there is room for.

    What is left out first is the speed, then the measure, then the bar itself and the epoch; what
    stays is the share that is done, the loss and the time left.
    """
    loss, *between, left = parts
    for some in (between, between[:-1], []):
        text = ", ".join([loss, *some, left])
        if len(epoch) + len("||  100%, ") + _SHORTEST_BAR + len(text) <= columns:
            return "{desc}|{bar}| {percentage:3.0f}%{postfix}", text
    return "{percentage:3.0f}%{postfix}", text


def _columns() -> int:
    """Return how many columns the terminal has, but for one that makes some begin a new line."""
    try:
        return (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1
    except (OSError, ValueError):  # it says that it is a terminal, and is none of the system's
        return 79


def told(name: str, value: float) -> str:
    """Return a value of a measure as people read it: shares in percent, others as they are."""
    return f"{name} {value:.4g}" if name in ("loss", "RMSE", "R²") else f"{name} {value:.2%}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"
