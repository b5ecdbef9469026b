"""Time of one training step: ``python -m bench.step``.

Forward, backward and Adam on DeepConvNet, random images. Where PyTorch is installed and ``--against
torch`` is given, the same network and step in PyTorch are timed in turn with ours (A B A B), so
that both meet the same moods of the machine; the ratio is of medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

import xpdl
from xpdl.models import DeepConvNet
from xpdl.optimizers import Adam

Step = Callable[[], object]


def xpdl_step(batch_size: int, backend: str, dtype: str) -> Step:
    with xpdl.use_backend(backend) as active:
        network, optimizer = DeepConvNet(dtype=dtype), Adam()
        rng = np.random.default_rng(0)
        x = active.asarray(rng.random((batch_size, 1, 28, 28), dtype=np.float32))
        t = active.asarray(rng.integers(0, 10, batch_size))

    def step() -> None:
        with xpdl.use_backend(active):
            network.forward_backward(x, t)
            optimizer.update(network.params, network.grads)
            active.synchronize()

    return step


def torch_step(batch_size: int) -> Step:
    import torch
    from torch import nn

    layers: list[nn.Module] = []
    channels = 1
    for filters, pads in ((16, (1, 1)), (32, (1, 2)), (64, (1, 1))):
        for pad in pads:
            layers += [nn.Conv2d(channels, filters, 3, padding=pad), nn.ReLU()]
            channels = filters
        layers.append(nn.MaxPool2d(2))
    head = [nn.Linear(1024, 50), nn.ReLU(), nn.Dropout(0.5), nn.Linear(50, 10), nn.Dropout(0.5)]
    model = nn.Sequential(*layers, nn.Flatten(), *head)
    optimizer = torch.optim.Adam(model.parameters())
    loss = nn.CrossEntropyLoss()
    x, t = torch.rand(batch_size, 1, 28, 28), torch.randint(0, 10, (batch_size,))

    def step() -> None:
        optimizer.zero_grad()
        loss(model(x), t).backward()
        optimizer.step()

    return step


def interleaved(steps: dict[str, Step], rounds: int, warm_up: int = 5) -> dict[str, list[float]]:
    """Return the seconds of each step, `rounds` times, taken in turn."""
    for step in steps.values():
        for _ in range(warm_up):
            step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.step", description=__doc__)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--backend", default=xpdl.get_backend().name)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--against", nargs="*", choices=["torch", "generic"], default=[])
    options = parser.parse_args()
    ours = f"xpdl {options.backend} {options.dtype}"
    steps = {ours: xpdl_step(options.batch_size, options.backend, options.dtype)}
    if "torch" in options.against:
        steps["PyTorch eager float32"] = torch_step(options.batch_size)
    if "generic" in options.against:
        steps["xpdl generic float32"] = xpdl_step(options.batch_size, "generic", "float32")
    print(f"one training step of DeepConvNet, batch {options.batch_size}, {options.rounds} rounds")
    measured = interleaved(steps, options.rounds)
    own = statistics.median(measured[ours])
    for name, seconds in measured.items():
        low, middle, high = np.percentile(np.array(seconds) * 1000, [10, 50, 90])
        print(f"  {name:<24} {middle:7.1f} ms  (10 % to 90 %: {low:.1f} to {high:.1f})", end="")
        print("" if name == ours else f"  ours takes {own * 1000 / middle:.2f} of it")


if __name__ == "__main__":
    main()
