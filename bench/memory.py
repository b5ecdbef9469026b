"""The peak memory of a training run, each program in a process of its own."""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

EXAMPLES = 20_000


def measure(program: str, batch_size: int, steps: int) -> dict[str, Any]:
    """Run `program` in a new process and return its figures, in MiB."""
    command = [sys.executable, "-m", "bench.memory", program, str(batch_size), str(steps)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def peak_mib() -> float:
    """Return the most memory that this process has held so far, in MiB."""
    with contextlib.suppress(OSError):  # not Linux
        # Not getrusage there: it counts what the process was before it became this program.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _main(program: str, batch_size: int, steps: int) -> None:
    """Train DeepConvNet on data like MNIST and print what it took."""
    rng = np.random.default_rng(0)
    x = rng.random((EXAMPLES, 1, 28, 28), dtype=np.float32)
    t = rng.integers(0, 10, EXAMPLES)
    data = (x.nbytes + t.nbytes) / 2**20
    before = peak_mib()
    run = _train_torch if program.startswith("PyTorch") else _train_xpdl
    run(program, x, t, batch_size, steps)
    peak = peak_mib()
    figures = {
        "peak_mib": round(peak, 1),
        "over_data_mib": round(peak - data, 1),
        "over_start_mib": round(peak - before, 1),
    }
    print(json.dumps(figures))


def _train_xpdl(program: str, x: Any, t: Any, batch_size: int, steps: int) -> None:
    import xpdl

    xpdl.use_backend(program.removeprefix("xpdl "))
    count = batch_size * steps
    network = xpdl.models.DeepConvNet()
    xpdl.Trainer(
        network, (x[:count], t[:count]), epochs=1, batch_size=batch_size, progress=False
    ).fit()


def _train_torch(program: str, x: Any, t: Any, batch_size: int, steps: int) -> None:
    import torch

    from bench.networks import torch_twin
    from xpdl.models import DeepConvNet

    model = torch_twin(DeepConvNet())
    if "channels_last" in program:
        model = model.to(memory_format=torch.channels_last)
    optimizer, loss = torch.optim.Adam(model.parameters()), torch.nn.CrossEntropyLoss()
    x, t = torch.from_numpy(x), torch.from_numpy(t)
    for step in range(steps):
        rows = slice(step * batch_size, (step + 1) * batch_size)
        optimizer.zero_grad()
        loss(model(x[rows]), t[rows]).backward()
        optimizer.step()


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
