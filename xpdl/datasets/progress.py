"""What the user sees while data are fetched: lines, and bars on a terminal or in a notebook."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from xpdl.notebook import CellBar, in_notebook

_EVERY = 0.2  # seconds between two drawings of a bar in a cell


def say(line: str) -> None:
    """Print one line on the standard error stream, if there is one."""
    if sys.stderr is not None:
        print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress_bar(label: str, total: int, unit: str) -> Iterator[Callable[[int], object]]:
    """Give a function to call with each further amount done; it draws where there is a place."""
    if in_notebook():
        yield from _in_cell(label, total, unit)
        return
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda amount: None
        return
    from tqdm import tqdm

    with tqdm(
        desc=label, total=total, unit=unit, unit_scale=True, leave=False, file=sys.stderr
    ) as bar:
        yield bar.update


def _in_cell(label: str, total: int, unit: str) -> Iterator[Callable[[int], object]]:
    bar, done, due = CellBar(), 0, 0.0

    def advance(amount: int) -> None:
        nonlocal done, due
        done += amount
        if time.perf_counter() >= due:
            due = time.perf_counter() + _EVERY
            bar.show(done / max(total, 1), f"{label}, {done:,} of {total:,} {unit}")

    advance(0)  # here, as another thread may have no cell
    try:
        yield advance
    finally:
        bar.clear()
