"""What a run, or an evaluation, came to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """What a run, or an evaluation, came to.

    With `shifts` or `mirrored` in the options, `accuracy` and `wrong` are of the average over all
    looks, and `single_look_accuracy` is without; else that is None.
    """

    folder: Path
    accuracy: float
    wrong: int
    images: int
    seconds: float
    single_look_accuracy: float | None = None
