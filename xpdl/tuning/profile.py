"""Where the time of a training step goes: layer by layer, forward and backward."""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xpdl.arguments import whole_number
from xpdl.backends import Array, Backend, Shape
from xpdl.layers import Affine, Convolution, Layer, ReLU
from xpdl.network import Network
from xpdl.optimizers import Optimizer
from xpdl.plots import layer_times

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class LayerTime:
    """What one layer, or another part of the step, takes.

    Attributes
    ----------
    name, kind : str
        Such as ``"conv1"`` and ``"Convolution"``.
    forward, backward : float
        Seconds, medians over the rounds.
    share : float
        Of the whole step, in [0, 1].
    forward_flops, backward_flops : int
        Floating-point operations of its products, two a multiplication with its addition; 0 for a
        layer without products.
    forward_bytes, backward_bytes : int
        The least that must be moved: what it reads, and what it writes, once each.
    """

    name: str
    kind: str
    forward: float
    backward: float
    share: float
    forward_flops: int
    backward_flops: int
    forward_bytes: int
    backward_bytes: int

    @property
    def gflops(self) -> tuple[float, float]:
        """Floating-point operations a second, forward and backward, in 10^9."""
        return _rate(self.forward_flops, self.forward), _rate(self.backward_flops, self.backward)

    @property
    def gigabytes(self) -> tuple[float, float]:
        """Bytes a second, forward and backward, in 10^9."""
        return _rate(self.forward_bytes, self.forward), _rate(self.backward_bytes, self.backward)


@dataclass(frozen=True)
class Profile:
    """The parts of a training step, in order, and what the device can do at most.

    Attributes
    ----------
    parts : tuple of LayerTime
        The layers, the loss, the update and, last, all else.
    step : float
        Seconds of a whole step, the median over the rounds.
    peak_gflops, peak_gigabytes : float
        Measured on this device: a large matrix product, and a copy of a large array (what is read
        plus what is written; on a CPU by one thread), per second, in 10^9.
    """

    network: str
    backend: str
    dtype: str
    batch_size: int
    rounds: int
    parts: tuple[LayerTime, ...]
    step: float
    peak_gflops: float
    peak_gigabytes: float

    @property
    def title(self) -> str:
        """What was measured, in a line."""
        return (
            f"{self.network}: one training step, batch {self.batch_size}, {self.dtype} on "
            f"{self.backend}"
        )

    def chart(self) -> Figure:
        """Return the profile as a chart; see `xpdl.plots.layer_times`."""
        return layer_times(
            [part.name for part in self.parts],
            [part.forward for part in self.parts],
            [part.backward for part in self.parts],
            self.title,
        )

    def table(self) -> str:
        """Return the profile as text, a line a part."""
        head = (
            f"{'':<12} {'forward':>9} {'backward':>9} {'share':>6} "
            f"{'GFLOP/s':>15} {'GB/s':>13}\n{'':<12} {'ms':>9} {'ms':>9} {'%':>6} "
            f"{'fwd':>7} {'bwd':>7} {'fwd':>6} {'bwd':>6}\n"
        )
        lines = []
        for part in self.parts:
            rates = [f"{rate:7.1f}" if rate else f"{'':7}" for rate in part.gflops]
            bytes_ = [f"{rate:6.1f}" if rate else f"{'':6}" for rate in part.gigabytes]
            times = [f"{1000 * t:9.2f}" if t else f"{'':9}" for t in (part.forward, part.backward)]
            line = f"{part.name:<12} {' '.join(times)} {100 * part.share:6.1f} "
            lines.append((line + " ".join(rates) + " " + " ".join(bytes_)).rstrip())
        total = (
            f"{'step':<12} {1000 * self.step:9.2f} ms; at most {self.peak_gflops:.0f} GFLOP/s "
            f"(matrix product), {self.peak_gigabytes:.1f} GB/s (copying"
            f"{')' if self.backend == 'cupy' else ', one thread)'}"
        )
        return head + "\n".join([*lines, total])


def profile_step(
    network: Network, x: Array, t: Array, optimizer: Optimizer, *, rounds: int = 30
) -> Profile:
    """Train on one batch, `rounds` times over, and say where the time goes.

    The device is waited for after each layer, so that each is charged with its own work; the sum
    is therefore more than a step takes on a GPU. The network and the optimizer are changed, as by
    any training.

    Parameters
    ----------
    x, t : array
        One batch, on the network's device.
    rounds : int
        How many steps; two more come before and are not counted.
    """
    rounds = whole_number("rounds", rounds)
    backend = network.backend
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    leaves = network.leaves()
    sizes: dict[str, tuple[Shape, Shape, Shape]] = {}
    steps = []
    with _timed(leaves, network.loss_layer, backend, seconds, sizes):
        for _ in range(rounds + 2):
            start = time.perf_counter()
            network.forward_backward(x, t)
            update = time.perf_counter()
            optimizer.update(network.params, network.grads)
            backend.synchronize()
            end = time.perf_counter()
            seconds["update", "backward"].append(end - update)
            steps.append(end - start)
    step = statistics.median(steps[2:])
    medians = {key: statistics.median(values[2:]) for key, values in seconds.items()}
    parts = []
    for name in [*leaves, "loss", "update"]:
        forward, backward = (medians.get((name, way), 0.0) for way in ("forward", "backward"))
        layer = leaves.get(name)
        itemsize = network.precision.compute.itemsize
        counts = _counts(layer, *sizes[name], itemsize) if layer else (0, 0, 0, 0)
        kind = type(layer or (network.loss_layer if name == "loss" else optimizer)).__name__
        parts.append(LayerTime(name, kind, forward, backward, (forward + backward) / step, *counts))
    rest = step - sum(part.forward + part.backward for part in parts)
    parts.append(LayerTime("all else", "", max(0.0, rest), 0.0, max(0.0, rest) / step, 0, 0, 0, 0))
    flops, bytes_ = _peaks(backend, network.precision.compute)
    return Profile(
        network.name,
        backend.name,
        network.precision.name,
        len(x),
        rounds,
        tuple(parts),
        step,
        # A busy machine may be slower now than it was in the steps.
        max(flops, *(rate for part in parts for rate in part.gflops)),
        max(bytes_, *(rate for part in parts for rate in part.gigabytes)),
    )


@contextmanager
def _timed(
    leaves: dict[str, Layer],
    loss: Any,
    backend: Backend,
    seconds: dict[tuple[str, str], list[float]],
    sizes: dict[str, tuple[Shape, Shape, Shape]],
) -> Iterator[None]:
    """Time each layer's `forward` and `backward` as long as the block runs."""

    def watch(name: str, way: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(a: Any, *more: Any, **options: Any) -> Any:
            backend.synchronize()
            start = time.perf_counter()
            result = call(a, *more, **options)
            backend.synchronize()
            seconds[name, way].append(time.perf_counter() - start)
            if way == "forward":
                sizes[name] = a.shape, result.shape, result.shape
            elif name in leaves:  # a pooling computed with a convolution meets the images only here
                taken, given, _ = sizes[name]
                sizes[name] = getattr(result, "shape", taken), given, a.shape
            return result

        return timed

    watched = [*leaves.items(), ("loss", loss)]
    for name, layer in watched:
        for way in ("forward", "backward"):
            vars(layer)[way] = watch(name, way, getattr(layer, way))
    try:
        yield
    finally:
        for _, layer in watched:
            del vars(layer)["forward"], vars(layer)["backward"]


def _counts(
    layer: Layer, taken: Shape, given: Shape, results: Shape, itemsize: int
) -> tuple[int, int, int, int]:
    """Return FLOPs and bytes, forward and backward, for a batch."""
    parameters = sum(array.size for array in layer.params.values())
    forward = 0
    if isinstance(layer, Convolution | Affine):
        window = math.prod(layer.params["W"].shape[1:]) if isinstance(layer, Convolution) else 0
        outputs = math.prod(results)
        forward = 2 * outputs * (window or layer.params["W"].shape[0])
    backward = forward * (int(layer.input_gradient) + (not layer.frozen))
    moved = itemsize * (math.prod(taken) + math.prod(given) + parameters)
    # Backward reads the gradient and what forward kept, and writes the gradient of the input.
    gradient = itemsize * (math.prod(taken) if layer.input_gradient else 0)
    back = itemsize * (math.prod(taken) + math.prod(results) + 2 * parameters) + gradient
    if layer.relu and not layer.pooled:  # whose gradient is taken here, from the outputs
        back += itemsize * math.prod(given)
    if getattr(layer, "computed_before", False):  # it hands on what it is given
        moved = 0
        back = 0 if isinstance(layer, ReLU) else back
    return forward, backward, moved, back


def _peaks(backend: Backend, dtype: Any) -> tuple[float, float]:
    """Return what the device does at most: 10^9 operations and 10^9 bytes a second."""
    xp, n = backend.xp, 2048
    wide = np.float32 if np.dtype(dtype) == np.float16 and xp is np else dtype
    a, b = (backend.asarray(np.ones((n, n)), dtype=wide) for _ in range(2))
    large = backend.asarray(np.zeros(2**26, np.uint8))
    target = xp.empty_like(large)

    def copy() -> None:
        target[...] = large

    product = _best_of(lambda: backend.matmul(a, b), backend)
    return 2 * n**3 / product / 1e9, 2 * large.nbytes / _best_of(copy, backend) / 1e9


def _best_of(call: Callable[[], Any], backend: Backend, times: int = 7) -> float:
    best = math.inf
    for _ in range(times):
        backend.synchronize()
        start = time.perf_counter()
        call()
        backend.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def _rate(count: int, seconds: float) -> float:
    return count / seconds / 1e9 if seconds else 0.0
