"""The part ``step``: a training step of DeepConvNet, ours beside PyTorch's."""

from __future__ import annotations

import gc
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import xpdl
from bench.gpu.peers import torch_settings, torch_step
from bench.gpu.session import Notes, Session, forget_frames, one_line
from bench.measure import Run, compare, summary
from bench.programs import trainer_step
from xpdl.backends import Backend
from xpdl.backends.cupy.capture import WARM_UP
from xpdl.models import DeepConvNet

# What ours may take at most of a peer's median, in float32.
AIMS = {"PyTorch": 1.0, "PyTorch compiled, one graph": 1.5}
PRECISIONS = ("float32", "float16", "TF32")


@dataclass(frozen=True)
class Program:
    """What is timed: how it is made for a batch size, and what must hold while it runs."""

    make: Callable[[int], AbstractContextManager[Run]]
    around: Callable[[], AbstractContextManager[Any]]
    synchronize: Run
    ours: bool = True

    def warm_up(self, step: Run) -> None:
        """Do the first steps, in which a step is captured or compiled."""
        with self.around(), warnings.catch_warnings():
            # A step that runs as it stands must not be called captured.
            warnings.filterwarnings("error", ".*cannot be captured")
            for _ in range(WARM_UP + 2):
                step()
            self.synchronize()

    def run(self, step: Run, count: int) -> float:
        """Do `count` steps; return the seconds that one took."""
        with self.around():
            start = time.perf_counter()
            for _ in range(count):
                step()
            self.synchronize()
            return (time.perf_counter() - start) / count


def step(session: Session, notes: Notes) -> None:
    """Time a training step: what matters most of all precisions first, then what compiles long.

    Programs that are compared take turns, with `xpdl captured` among them each time.
    """
    groups = list(_groups(session))
    notes.results |= {"peer": session.about_torch, "aims": AIMS, "timings": []}
    for done, (precision, batch_size, programs) in enumerate(groups):
        timing = {"precision": precision, "batch": batch_size, "results": {}, "failed": {}}
        notes.results["timings"].append(timing)
        _time(session, notes, timing, programs, notes.left() / (len(groups) - done))
        session.free()


def _groups(session: Session) -> Iterator[tuple[str, int, dict[str, Program]]]:
    for choose in (_first, _compiled, _generic):
        for precision in PRECISIONS:
            programs = choose(session, precision)
            if programs is not None:
                programs = {"xpdl captured": ours(session, precision)} | programs
                for batch_size in session.sizes.batch_sizes:
                    yield precision, batch_size, programs


def _first(session: Session, precision: str) -> dict[str, Program]:
    programs = {}
    if precision != "TF32":
        programs["xpdl eager"] = ours(session, precision, captured=False)
    if session.torch is not None:
        programs["PyTorch"] = theirs(session, precision)
    if session.torch == "cuda":
        programs["PyTorch, one graph"] = theirs(session, precision, one_graph=True)
    return programs


def _compiled(session: Session, precision: str) -> dict[str, Program] | None:
    if session.torch != "cuda":
        return None
    compiled = theirs(session, precision, compiled=True, one_graph=True)
    return {"PyTorch compiled, one graph": compiled}


def _generic(session: Session, precision: str) -> dict[str, Program] | None:
    if precision != "float32":
        return None
    return {"xpdl generic": _ours(session.generic, "float32", False)}


def ours(session: Session, precision: str, captured: bool = True) -> Program:
    """Return our step in a precision."""
    backend = session.tf32 if precision == "TF32" else session.backend
    return _ours(backend, "float16" if precision == "float16" else "float32", captured)


def _ours(backend: Backend, dtype: str, captured: bool) -> Program:
    return Program(
        lambda batch_size: trainer_step(DeepConvNet, batch_size, backend, dtype, captured),
        lambda: xpdl.use_backend(backend),
        backend.synchronize,
    )


def theirs(session: Session, precision: str, **options: Any) -> Program:
    """Return PyTorch's step in a precision; `options` are of `torch_step`."""
    assert session.torch is not None
    options |= {"device": session.torch, "half": precision == "float16"}
    settings = partial(torch_settings, precision != "float32")

    @contextmanager
    def made(batch_size: int) -> Iterator[Run]:
        with settings():  # what is captured keeps how its products are computed
            run = torch_step(DeepConvNet, batch_size, **options)
        yield run

    return Program(made, settings, session.synchronize_torch, ours=False)


def _time(
    session: Session,
    notes: Notes,
    timing: dict[str, Any],
    programs: dict[str, Program],
    seconds: float,
) -> None:
    """Time programs in turns, within `seconds` where that can be."""
    ends_at = time.monotonic() + seconds
    with ExitStack() as stack:
        runs: dict[str, Callable[[], float]] = {}
        for name, program in programs.items():
            try:
                one = stack.enter_context(program.make(timing["batch"]))
                program.warm_up(one)
                count = _steps_of_a_run(program, one, session.sizes.run_seconds)
                runs[name] = partial(program.run, one, count)
            except Exception as error:
                timing["failed"][name] = one_line(error)
                if program.ours:
                    where = f"{name} in {timing['precision']}, batch {timing['batch']}"
                    notes.add_problem(where, error)
                forget_frames(error)
            notes.keep()
        for measured in _in_turns(runs, session.sizes.rounds, ends_at):
            timing["results"] = _rows(measured)
            notes.keep()
        runs.clear()


def _in_turns(
    runs: dict[str, Callable[[], float]], rounds: int, ends_at: float
) -> Iterator[dict[str, list[float]]]:
    """Give the seconds of a step so far, after each round; two rounds at least."""
    measured: dict[str, list[float]] = {name: [] for name in runs}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for done in range(rounds if runs else 0):
            if done >= 2 and time.monotonic() > ends_at:
                return
            for name, run in runs.items():
                measured[name].append(run())
            gc.collect()
            yield measured
    finally:
        if collecting:
            gc.enable()


def _rows(measured: dict[str, list[float]]) -> dict[str, Any]:
    if "xpdl captured" in measured:
        return compare(measured, "xpdl captured")
    return {name: summary(seconds) for name, seconds in measured.items()}


def _steps_of_a_run(program: Program, step: Run, least: float) -> int:
    """Return how many steps take `least` seconds and a little more."""
    count = 1
    while (seconds := count * program.run(step, count)) < least / 2:
        count *= 2
    return math.ceil(1.1 * count * least / seconds)
