"""What a part of ``python -m bench gpu`` is given, and what it hands back as it goes."""

from __future__ import annotations

import gc
import math
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from xpdl.backends import Backend
from xpdl.errors import XpdlError
from xpdl.runs.recipes import RECIPES

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    batch_sizes: tuple[int, ...] = (100, 1000)
    rounds: int = 12  # turns of each program
    run_seconds: float = 0.2  # the least that a timed run lasts
    profiled: int = 20  # steps that a profiler sees
    parity_batch: int = 20
    parity_seeds: int = 5
    seeds: int = 3
    epochs: int = RECIPES["book"].epochs
    processes: int = 12  # of the tests, at the most
    test_seconds: float = 60.0  # the most that one test may take


FULL = Sizes()
QUICK = Sizes((20, 100), 2, 0.02, profiled=5, parity_seeds=1, seeds=1, epochs=1)


class OutOfTime(BaseException):
    """A part's time is over.

    No `Exception`, so that nobody who goes on after a failure goes on after this.
    """


class LeftOut(Exception):
    """A part cannot be done here; the message says what is missing."""


@dataclass
class Notes:
    """What a part has found so far."""

    results: dict[str, Any]
    hand_over: Callable[[Notes], None]
    ends_at: float = math.inf  # on the clock `time.monotonic`
    problems: list[str] = field(default_factory=list)  # each a failure

    def left(self) -> float:
        """Return the seconds that are left of the part's time."""
        return self.ends_at - time.monotonic()

    def keep(self) -> None:
        """Hand over all that is known by now; raise `OutOfTime` if the part's time is over."""
        self.hand_over(self)
        if self.left() <= 0:
            raise OutOfTime

    def add_problem(self, where: str, error: Exception) -> None:
        """Note that something failed, and let go of what it held."""
        self.problems.append(f"{where}: {one_line(error)}")
        forget_frames(error)


@dataclass
class Session:
    """The GPU, and who computes on it."""

    backend: Backend
    sizes: Sizes
    torch: str | None  # the device on which PyTorch computes; None without PyTorch
    about_torch: str

    @cached_property
    def tf32(self) -> Backend:
        """The same backend with products of float32 whose factors are rounded to 10 bits."""
        from xpdl.backends.cupy.fused import FusedCupyBackend

        before = os.environ.pop("XPDL_TF32", None)
        os.environ["XPDL_TF32"] = "1"
        try:
            return FusedCupyBackend()
        finally:
            del os.environ["XPDL_TF32"]
            if before is not None:
                os.environ["XPDL_TF32"] = before

    @cached_property
    def generic(self) -> Backend:
        """CuPy with the textbook's primitives."""
        from xpdl.backends.cupy.backend import CupyBackend

        return CupyBackend()

    def synchronize_torch(self) -> None:
        """Wait for PyTorch's work."""
        if self.torch == "cuda":
            sys.modules["torch"].cuda.synchronize()

    def free(self) -> None:
        """Give back what nobody uses any more: the next program is not to suffer from the last."""
        gc.collect()
        self.backend.xp.get_default_memory_pool().free_all_blocks()
        if "torch._dynamo" in sys.modules:  # something was compiled
            sys.modules["torch"].compiler.reset()
        if self.torch == "cuda":
            sys.modules["torch"].cuda.empty_cache()


def one_line(error: BaseException) -> str:
    """Return what an error says in one line, and its kind if it is none of ours."""
    text = " ".join(str(error).split())
    if isinstance(error, XpdlError | LeftOut):
        return text
    if len(text) > 600:
        text = text[:600] + " ..."
    return f"{type(error).__name__}: {text}"


def forget_frames(error: BaseException) -> None:
    """Let go of the arrays that an error's frames hold; after a lack of memory they are wanted."""
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen.__traceback__, seen = None, seen.__cause__ or seen.__context__
