"""The part ``kernels``: where the time of a replayed step goes, kernel by kernel.

What ran on the GPU, and when, is told by CUPTI, which PyTorch's profiler asks: of its own kernels
and of ours alike.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.gpu.session import LeftOut, Notes, Session, forget_frames, one_line
from bench.gpu.step import Program, ours, theirs
from bench.graph_nodes import count_nodes, nodes_in_words
from bench.measure import Run
from bench.programs import whole_step
from xpdl.models import DeepConvNet

# What a trace calls that which runs on the device.
KERNEL, MOVES = "kernel", ("gpu_memcpy", "gpu_memset")


def kernels(session: Session, notes: Notes) -> None:
    """Take a replayed step apart: ours, and PyTorch's as one graph."""
    notes.results |= {"graphs": _counted(session), "profiles": [], "failed": {}}
    notes.keep()
    if session.torch != "cuda":
        raise LeftOut(f"no profiler, since kernels are told by PyTorch's: {session.about_torch}")
    for name, precision, batch_size, program in _programs(session):
        where = {"program": name, "precision": precision, "batch": batch_size}
        try:
            with program.make(batch_size) as step:
                program.warm_up(step)
                trace = _trace(program, step, session.sizes.profiled)
            notes.results["profiles"].append(where | by_kernel(trace, session.sizes.profiled))
        except LeftOut:
            raise
        except Exception as error:
            text = f"{name} in {precision}, batch {batch_size}"
            notes.results["failed"][text] = one_line(error)
            if program.ours:
                notes.add_problem(text, error)
            forget_frames(error)
        session.free()
        notes.keep()


def _counted(session: Session) -> list[dict[str, Any]]:
    """Return what a captured step of ours is made of, and print it in a line each."""
    found = []
    for precision in ("float32", "float16"):
        batch_size = session.sizes.batch_sizes[0]
        with whole_step(DeepConvNet, batch_size, session.backend, precision) as step:
            nodes = count_nodes(session.backend, step)
        print(f"a captured step, {precision}, batch {batch_size}: {nodes_in_words(nodes)}")
        found.append({"precision": precision, "batch": batch_size} | dict(nodes))
    return found


def _programs(session: Session) -> Iterator[tuple[str, str, int, Program]]:
    for batch_size in session.sizes.batch_sizes:
        for precision in ("float32", "float16"):
            yield "xpdl captured", precision, batch_size, ours(session, precision)
            graph = theirs(session, precision, one_graph=True)
            yield "PyTorch, one graph", precision, batch_size, graph
    for precision in ("float32", "float16"):
        graph = theirs(session, precision, compiled=True, one_graph=True)
        yield "PyTorch compiled, one graph", precision, session.sizes.batch_sizes[0], graph


def _trace(program: Program, step: Run, steps: int) -> list[dict[str, Any]]:
    """Return what happened in some steps, as events of the format of Chrome's traces."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        for count in (1, steps):  # the first only starts CUPTI
            with (
                program.around(),
                torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as told,
            ):
                for _ in range(count):
                    step()
                program.synchronize()
        told.export_chrome_trace(str(path))
        events: list[dict[str, Any]] = json.loads(path.read_text())["traceEvents"]
        return events


def by_kernel(events: Iterable[Mapping[str, Any]], steps: int) -> dict[str, Any]:
    """Return what a step does on the device, the longest first; times in microseconds.

    Raises
    ------
    LeftOut
        If no event is of a kernel.
    """
    done = [event for event in events if event.get("cat") in (KERNEL, *MOVES)]
    if not any(event["cat"] == KERNEL for event in done):
        raise LeftOut("PyTorch's profiler told of no kernel; CUPTI may not be permitted here")
    times: dict[str, list[float]] = defaultdict(list)
    for event in done:
        times[event["name"]].append(event["dur"])
    total = sum(map(sum, times.values()))
    begin, end = min(e["ts"] for e in done), max(e["ts"] + e["dur"] for e in done)
    return {
        "steps": steps,
        "kernels_a_step": sum(event["cat"] == KERNEL for event in done) / steps,
        "moves_a_step": sum(event["cat"] in MOVES for event in done) / steps,
        "busy_us": round(total / steps, 3),
        "span_us": round((end - begin) / steps, 3),
        "kernels": [
            {"name": name, "calls": len(each) / steps, "us": round(sum(each) / steps, 3)}
            for name, each in sorted(times.items(), key=lambda item: -sum(item[1]))
        ],
    }
