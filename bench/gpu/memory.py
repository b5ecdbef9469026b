"""The part ``memory``: how much of the device a program takes at the most."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from bench.gpu.peers import WARM_UP as WARM_UP_OF_PEERS
from bench.gpu.session import Notes, Session
from bench.gpu.step import Program, ours, theirs
from xpdl.backends.cupy.capture import WARM_UP

MIB = 2**20


def memory(session: Session, notes: Notes) -> None:
    """See how much of the device a program takes at the most, over what is taken before it."""
    notes.results |= {"peer": session.about_torch, "rows": []}
    for batch_size in session.sizes.batch_sizes:
        for name, measure in _programs(session).items():
            session.free()
            try:
                row = {"program": name, "batch": batch_size} | measure(batch_size)
                notes.results["rows"].append(row)
            except Exception as error:
                notes.add_problem(f"{name}, batch {batch_size}", error)
            notes.keep()


def _programs(session: Session) -> dict[str, Callable[[int], dict[str, float]]]:
    programs: dict[str, Callable[[int], dict[str, float]]] = {}
    for precision in ("float32", "float16"):
        for captured in (True, False):
            name = f"xpdl {precision} {'captured' if captured else 'eager'}"
            programs[name] = partial(_our_peak, session, ours(session, precision, captured))
        if session.torch == "cuda":
            for name, graph in (("PyTorch", False), ("PyTorch, one graph,", True)):
                peer = theirs(session, precision, one_graph=graph)
                programs[f"{name} {precision}"] = partial(_their_peak, peer)
    return programs


def _our_peak(session: Session, program: Program, batch_size: int) -> dict[str, float]:
    """Return what all memory pools hold at the most, in MiB, seen after each step."""
    with _pools(session.backend.xp) as pools:
        before = peak = sum(pool.total_bytes() for pool in pools)
        with program.make(batch_size) as step:
            for _ in range(WARM_UP + 3):
                program.run(step, 1)
                peak = max(peak, sum(pool.total_bytes() for pool in pools))
    return _peak(before, peak)


@contextmanager
def _pools(cupy: Any) -> Iterator[list[Any]]:
    """Give the pools that memory comes from: a captured step has one of its own."""
    pools, kind = [cupy.get_default_memory_pool()], cupy.cuda.MemoryPool

    def make(*arguments: Any) -> Any:
        pools.append(kind(*arguments))
        return pools[-1]

    cupy.cuda.MemoryPool = make
    try:
        yield pools
    finally:
        cupy.cuda.MemoryPool = kind


def _their_peak(program: Program, batch_size: int) -> dict[str, float]:
    import torch

    before = torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    with program.make(batch_size) as step:
        for _ in range(WARM_UP_OF_PEERS):
            program.run(step, 1)
    return _peak(before, torch.cuda.max_memory_reserved())


def _peak(before: int, peak: int) -> dict[str, float]:
    return {"peak_mib": round(peak / MIB, 1), "over_start_mib": round((peak - before) / MIB, 1)}
