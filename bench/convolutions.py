"""Single convolutions, forward and backward, by shape: ours beside PyTorch's."""

from __future__ import annotations

import importlib
import math
import os
import statistics
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

import xpdl
from bench.measure import Run, in_turns


class Shape(NamedTuple):
    """A convolution of images (batch, channels, pixels, pixels); all filters are square."""

    batch: int
    channels: int
    pixels: int
    filters: int
    size: int
    stride: int
    pad: int

    def __str__(self) -> str:
        return ", ".join(map(str, self))

    @property
    def first(self) -> bool:
        """Whether it stands first in its network, where nobody asks for dx."""
        return self.channels <= 3

    @property
    def operations(self) -> int:
        """Additions and multiplications of a direct sum, forward and backward."""
        out = (self.pixels + 2 * self.pad - self.size) // self.stride + 1
        once = 2 * self.batch * out**2 * self.filters * self.channels * self.size**2
        return once * (2 if self.first else 3)


SHAPES = tuple(
    Shape(*numbers)
    for numbers in (
        (100, 16, 28, 16, 3, 1, 1),
        (100, 16, 14, 32, 3, 1, 1),
        (100, 32, 14, 32, 3, 1, 2),
        (100, 32, 8, 64, 3, 1, 1),
        (100, 64, 8, 64, 3, 1, 1),
        (64, 3, 32, 64, 3, 1, 1),
        (64, 64, 32, 64, 3, 1, 1),
        (64, 64, 32, 128, 3, 2, 1),
        (64, 128, 16, 128, 3, 1, 1),
        (64, 256, 8, 256, 3, 1, 1),
        (64, 512, 4, 512, 3, 1, 1),
        (8, 3, 224, 64, 7, 2, 3),
        (8, 64, 56, 64, 3, 1, 1),
        (8, 256, 14, 256, 3, 1, 1),
        (8, 512, 7, 512, 3, 1, 1),
        (8, 64, 56, 256, 1, 1, 0),
        (8, 1024, 14, 256, 1, 1, 0),
        (2, 64, 224, 64, 3, 1, 1),
    )
)
"""DeepConvNet's, those of networks for CIFAR-10, and those of ResNet and VGG at 224 pixels."""


def _arrays(shape: Shape) -> tuple[Any, Any, Any, Any]:
    """Return x, W, b and dL/dy, on the host."""
    rng = np.random.default_rng(0)
    out = (shape.pixels + 2 * shape.pad - shape.size) // shape.stride + 1
    sizes = (
        (shape.batch, shape.channels, shape.pixels, shape.pixels),
        (shape.filters, shape.channels, shape.size, shape.size),
        (shape.filters,),
        (shape.batch, shape.filters, out, out),
    )
    x, W, b, dout = (rng.standard_normal(size, np.float32) for size in sizes)
    return x, W, b, dout


def _channels_last(a: Any) -> Any:
    return np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def ours(shape: Shape, backend: str) -> Run:
    """Return the passes of a convolution on a backend."""
    active = xpdl.get_backend(backend)
    x, W, b, dout = _arrays(shape)
    x, dout = map(active.asarray, (_channels_last(x), _channels_last(dout)))
    W, b = map(active.asarray, (W, b))
    stride, pad = (shape.stride,) * 2, (shape.pad,) * 2

    def both() -> None:
        active.convolution(x, W, b, stride, pad)
        active.convolution_backward(dout, x, W, stride, pad, not shape.first)
        active.synchronize()

    return both


def torchs(shape: Shape, one_thread: bool) -> Run:
    """Return the same passes of PyTorch, channels last."""
    import torch

    if one_thread:
        torch.set_num_threads(1)
    kind = torch.channels_last
    arrays = [torch.from_numpy(np.ascontiguousarray(a)) for a in _arrays(shape)]
    x, W, dout = (arrays[i].contiguous(memory_format=kind) for i in (0, 1, 3))
    b, numbers = arrays[2], ((shape.stride,) * 2, (shape.pad,) * 2, (1, 1))

    def both() -> None:
        torch.convolution(x, W, b, *numbers, False, (0, 0), 1)
        torch.ops.aten.convolution_backward(
            dout, x, W, [shape.filters], *numbers, False, (0, 0), 1, (not shape.first, True, True)
        )

    return both


def measure(
    backend: str,
    against_torch: bool,
    rounds: int,
    one_thread: bool = False,
    shapes: Iterable[Shape] = SHAPES,
) -> list[dict[str, Any]]:
    """Return a row for each shape: milliseconds forward and backward, and ours over PyTorch's.

    With `one_thread`, they are those that one core spent on it, which others who use the machine
    change least.
    """
    clock = time.process_time if one_thread else time.perf_counter
    if one_thread:
        os.environ["XPDL_THREADS"] = "1"
    rows = []
    for shape in shapes:
        programs = {"ours": ours(shape, backend)}
        if against_torch:
            programs["torch"] = torchs(shape, one_thread)
        seconds = in_turns(programs, rounds, repeats=3, warm_up=2, clock=clock)
        median = {name: statistics.median(values) for name, values in seconds.items()}
        row: dict[str, Any] = {"shape": shape._asdict(), "by": way(shape, backend)}
        row |= {f"{name}_ms": round(1000 * s, 2) for name, s in median.items()}
        row["gflops"] = round(shape.operations / median["ours"] / 1e9, 1)
        if against_torch:
            row["ratio"] = round(median["ours"] / median["torch"], 3)
            least = {name: min(values) for name, values in seconds.items()}
            row["ratio_of_least"] = round(least["ours"] / least["torch"], 3)
        rows.append(row)
    return rows


def way(shape: Shape, backend: str) -> str:
    """Return how a backend computes a convolution."""
    if backend not in ("numpy", "numba"):
        return backend
    winograd = importlib.import_module(f"xpdl.backends.{backend}.winograd")
    images = (shape.batch, shape.channels, shape.pixels, shape.pixels)
    filters = (shape.filters, shape.channels, shape.size, shape.size)
    chosen = winograd.chosen(images, filters, (shape.stride,) * 2, (shape.pad,) * 2)
    return "Winograd" if chosen else "direct sum"


def line(row: dict[str, Any]) -> str:
    """Return a row as it is printed."""
    shape = Shape(**row["shape"])
    text = f"  {shape!s:<28} {row['ours_ms']:8.2f} ms  {row['gflops']:6.0f} GFLOP/s"
    if "torch_ms" in row:
        text += f"  PyTorch {row['torch_ms']:8.2f} ms  ours takes {row['ratio']:.2f} of it"
    return f"{text}  {row['by']}"


def mean_ratio(rows: list[dict[str, Any]]) -> float:
    """Return the geometric mean of the rows' ratios."""
    return math.exp(statistics.fmean(math.log(row["ratio"]) for row in rows))
