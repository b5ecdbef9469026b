"""What the user sees while data are fetched: lines and bars, on the standard error stream."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator


def say(line: str) -> None:
    """Print one line on the standard error stream, if there is one."""
    if sys.stderr is not None:
        print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress_bar(label: str, total: int, unit: str) -> Iterator[Callable[[int], object]]:
    """Give a function to call with each further amount done; it draws only on a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda amount: None
        return
    from tqdm import tqdm

    with tqdm(
        desc=label, total=total, unit=unit, unit_scale=True, leave=False, file=sys.stderr
    ) as bar:
        yield bar.update
