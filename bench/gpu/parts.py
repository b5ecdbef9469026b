"""The parts of ``python -m bench gpu``, in order of worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.gpu.kernels import kernels
from bench.gpu.memory import memory
from bench.gpu.parity import parity
from bench.gpu.session import Notes, Session
from bench.gpu.step import step
from bench.gpu.suite import suite
from bench.gpu.training import training


@dataclass(frozen=True)
class Part:
    """What is done, and its share of the time."""

    do: Callable[[Session, Notes], None]
    share: float
    alone: bool = False  # whether what it leaves behind would be measured by the next


PARTS = {
    "parity": Part(parity, 0.12),
    "step": Part(step, 0.38),
    "kernels": Part(kernels, 0.10, alone=True),  # a profiler slows launches down for good
    "training": Part(training, 0.17),
    "memory": Part(memory, 0.05),
    "suite": Part(suite, 0.18),
}
