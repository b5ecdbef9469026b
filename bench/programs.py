"""One training step, or the prediction of many images: ours, and our peers'."""

from __future__ import annotations

import importlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import xpdl
from bench.measure import Run
from bench.networks import torch_twin
from xpdl.backends import Backend
from xpdl.errors import FileAccessError
from xpdl.layers import Normalize
from xpdl.network import Network
from xpdl.optimizers import Adam

BATCHES = 10

Factory = Callable[..., Network]


def batch(network: Network, count: int) -> tuple[Any, Any]:
    """Return `count` random examples and labels for a network, on the host."""
    rng = np.random.default_rng(0)
    x = rng.random((count, *network.input_shape), dtype=np.float32)
    return x, rng.integers(0, network.output_shape[0], count)


def xpdl_step(factory: Factory, batch_size: int, backend: str, dtype: str = "float32") -> Run:
    with xpdl.use_backend(backend) as active:
        network, optimizer = factory(dtype=dtype), Adam()
        x, t = map(active.asarray, batch(network, batch_size))

    def step() -> None:
        with xpdl.use_backend(active):
            network.forward_backward(x, t)
            optimizer.update(network.params, network.grads)
            active.synchronize()

    return step


@contextmanager
def trainer_step(
    factory: Factory, batch_size: int, backend: Backend, dtype: str, captured: bool
) -> Iterator[Run]:
    """Give what `xpdl.Trainer` does with a batch, from gathering it to the update, all on a device.

    Captured and replayed as the Trainer does it, or as it stands. The device is not waited for.
    """
    with xpdl.use_backend(backend):
        network = factory(dtype=dtype, normalize=Normalize(255))
        x, t = batch(network, batch_size)
        x = (255 * x).astype(np.uint8)
        trainer = xpdl.Trainer(
            network, (np.tile(x, (BATCHES, 1, 1, 1)), np.tile(t, BATCHES)), batch_size=batch_size,
            capture=captured, progress=False,
        )  # fmt: skip
        network.parameters.refresh()
    steps = _endless(trainer)
    with trainer.step.clock():
        yield lambda: next(steps)


@contextmanager
def whole_step(factory: Factory, batch_size: int, backend: Backend, dtype: str) -> Iterator[Run]:
    """Give what `xpdl.Trainer` lets a device capture, as it stands: at most `BATCHES` times."""
    with xpdl.use_backend(backend):
        network = factory(dtype=dtype, normalize=Normalize(255))
        x, t = batch(network, batch_size)
        data = np.tile((255 * x).astype(np.uint8), (BATCHES, 1, 1, 1)), np.tile(t, BATCHES)
        trainer = xpdl.Trainer(network, data, batch_size=batch_size, progress=False)
        network.parameters.refresh()
        feeding = trainer.feeding
        feeding.begin(0)
        feeding.set_rates([trainer.learning_rate] * BATCHES)
    with trainer.step.clock():
        yield feeding.whole(batch_size, batch_size, first=True, update=True)


def _endless(trainer: xpdl.Trainer) -> Iterator[int]:
    """Make a step at each turn, epoch after epoch."""
    feeding = trainer.feeding
    while True:
        feeding.tally.begin(BATCHES)
        feeding.begin(0)
        feeding.set_rates([trainer.learning_rate] * BATCHES)
        yield from feeding


def xpdl_inference(
    factory: Factory, count: int, batch_size: int, backend: str, dtype: str = "float32"
) -> Run:
    with xpdl.use_backend(backend) as active:
        network = factory(dtype=dtype)
        x = active.asarray(batch(network, count)[0])

    def predict() -> None:
        with xpdl.use_backend(active):
            network.predict(x, batch_size=batch_size)
            active.synchronize()

    return predict


def torch_step(factory: Factory, batch_size: int, channels_last: bool = False) -> Run:
    """Return a step of PyTorch on the CPU."""
    import torch

    network = factory()
    model = torch_twin(network)
    x, t = map(torch.from_numpy, batch(network, batch_size))
    if channels_last:
        model, x = _channels_last(model, x)
    optimizer, criterion = torch.optim.Adam(model.parameters()), torch.nn.CrossEntropyLoss()

    def step() -> None:
        optimizer.zero_grad()
        criterion(model(x), t).backward()
        optimizer.step()

    return step


def torch_inference(
    factory: Factory, count: int, batch_size: int, channels_last: bool = False
) -> Run:
    import torch

    network = factory()
    model = torch_twin(network).eval()
    x = torch.from_numpy(batch(network, count)[0])
    if channels_last:
        model, x = _channels_last(model, x)

    def predict() -> None:
        with torch.no_grad():
            torch.cat([model(part) for part in x.split(batch_size)])

    return predict


def _channels_last(model: Any, x: Any) -> tuple[Any, Any]:
    import torch

    kind = torch.channels_last
    return model.to(memory_format=kind), x.to(memory_format=kind)


def book_step(folder: Path, batch_size: int) -> Run:
    """Return a step of the book's published code, from a copy of it: gradient, then Adam."""
    for name in ("common", "ch08"):
        if not (folder / name).is_dir():
            raise FileAccessError(
                f"--book-path {str(folder)!r} has no folder {name!r}; give the folder of the "
                "book's code, which holds ch08 and common."
            )
    sys.path[:0] = [str(folder), str(folder / "ch08")]
    network = importlib.import_module("deep_convnet").DeepConvNet()
    optimizer = importlib.import_module("common.optimizer").Adam()
    rng = np.random.default_rng(0)
    x = rng.random((batch_size, 1, 28, 28), dtype=np.float32)
    t = rng.integers(0, 10, batch_size)

    def step() -> None:
        optimizer.update(network.params, network.gradient(x, t))

    return step


def torch_layers(factory: Factory, batch_size: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Return PyTorch's median milliseconds for each layer alone, forward and backward."""
    import torch

    network = factory()
    model, x = torch_twin(network), torch.from_numpy(batch(network, batch_size)[0])
    if len(network.input_shape) == 3:
        model, x = _channels_last(model, x)
    modules = [m for m in model if not isinstance(m, torch.nn.Flatten)]
    times: dict[str, tuple[list[float], list[float]]] = {
        name: ([], []) for name in network.body.layers
    }
    for _ in range(rounds + 2):
        y = x
        for i, (name, module) in enumerate(zip(times, modules, strict=True)):
            y = y.detach()
            if isinstance(module, torch.nn.Linear):
                y = y.flatten(1)
            y.requires_grad_(i > 0)
            start = time.perf_counter()
            result = module(y)
            middle = time.perf_counter()
            if result.requires_grad:
                given = torch.ones_like(result)
                begin = time.perf_counter()
                result.backward(given)
                times[name][1].append(time.perf_counter() - begin)
            times[name][0].append(middle - start)
            y = result
    return {
        name: tuple(1000 * statistics.median(values[2:]) if values else 0.0 for values in pair)  # type: ignore[misc]
        for name, pair in times.items()
    }
