"""How the time and memory of a step grow with batch, image, channels, depth and threads."""

from __future__ import annotations

import math
import os
import statistics
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bench.measure import Run, in_turns
from bench.programs import xpdl_step
from xpdl.backends.numpy.memory import pool
from xpdl.layers import Affine, Convolution, GlobalAveragePooling, Layer, MaxPooling, ReLU
from xpdl.models import DeepConvNet
from xpdl.network import Network


def _pooled(size: int, filters: int, depth: int) -> Callable[..., Network]:
    """Return a network of `depth` equal 3x3 convolutions on size x size pictures."""

    def factory(**options: Any) -> Network:
        layers: list[Layer] = []
        for _ in range(depth):
            layers += [Convolution(filters, 3, pad=1), ReLU()]
        layers += [MaxPooling(2), GlobalAveragePooling(), Affine(10)]
        return Network(layers, (filters, size, size), **options)

    return factory


# Each curve: what grows, with the values and the network and batch size for each. The work of all
# grows linearly with what the curve's `work` says.
CURVES: dict[str, dict[str, Any]] = {
    "batch size": {
        "values": [10, 30, 100, 300, 1000],
        "case": lambda v: (DeepConvNet, v),
        "work": lambda v: v,
    },
    "image size": {
        "values": [28, 56, 112, 224],
        "case": lambda v: (_pooled(v, 16, 2), 8),
        "work": lambda v: v * v,
    },
    "channels": {
        "values": [8, 16, 32, 64, 128],
        "case": lambda v: (_pooled(28, v, 2), 16),
        "work": lambda v: v * v,
    },
    "depth": {
        "values": [2, 4, 8, 16, 32],
        "case": lambda v: (_pooled(28, 16, v), 16),
        "work": lambda v: v,
    },
}


def exponent(work: Sequence[float], cost: Sequence[float]) -> float:
    """Return a of the fit cost ~ work^a, by least squares of the logarithms."""
    slope, _ = np.polyfit(np.log(work), np.log(cost), 1)
    return round(float(slope), 3)


def measure(backend: str, dtype: str, rounds: int) -> dict[str, Any]:
    """Return every curve: time and memory at each value, and the exponents against the work.

    The memory is that of all arrays, parameters and data among them, at the most.
    """
    results: dict[str, Any] = {}
    for name, curve in CURVES.items():
        steps: dict[str, Run] = {}
        memory = []
        for value in curve["values"]:
            factory, batch_size = curve["case"](value)
            tracemalloc.start()
            try:
                pool.release()  # what is used again would not be counted
                steps[str(value)] = step = xpdl_step(factory, batch_size, backend, dtype)
                step()
                step()
                memory.append(tracemalloc.get_traced_memory()[1])
            finally:
                tracemalloc.stop()
        seconds = in_turns(steps, rounds, repeats=1, warm_up=1)
        medians = [statistics.median(s) for s in seconds.values()]
        work = [curve["work"](value) for value in curve["values"]]
        upper = len(work) // 2  # the smallest are ruled by what each call costs
        results[name] = {
            "values": curve["values"],
            "step_ms": [round(1000 * median, 3) for median in medians],
            "arrays_mib": [round(size / 2**20, 2) for size in memory],
            "time_exponent": exponent(work, medians),
            "time_exponent_of_the_larger": exponent(work[upper - 1 :], medians[upper - 1 :]),
            "memory_exponent": exponent(work, memory),
        }
    return results


def measure_threads(backend: str, dtype: str, rounds: int) -> dict[str, Any]:
    """Return the step of DeepConvNet, batch 100, on one thread and on more."""
    counts = [1]
    while 2 * counts[-1] <= (os.cpu_count() or 1):
        counts.append(2 * counts[-1])
    steps = {str(n): _with_threads(n, xpdl_step(DeepConvNet, 100, backend, dtype)) for n in counts}
    seconds = in_turns(steps, rounds, repeats=1)
    medians = [statistics.median(s) for s in seconds.values()]
    return {
        "values": counts,
        "step_ms": [round(1000 * median, 3) for median in medians],
        "time_exponent": exponent(counts, medians) if len(counts) > 1 else math.nan,
    }


def _with_threads(count: int, step: Run) -> Run:
    def run() -> None:
        before = os.environ.get("XPDL_THREADS")
        os.environ["XPDL_THREADS"] = str(count)
        try:
            step()
        finally:
            if before is None:
                del os.environ["XPDL_THREADS"]
            else:
                os.environ["XPDL_THREADS"] = before

    return run
