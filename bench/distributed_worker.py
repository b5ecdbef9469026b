"""One of the processes that `bench distributed` starts: prints what its steps took, as JSON."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time

import numpy as np

from bench.networks import NETWORKS
from bench.programs import batch
from xpdl.backends import use_backend
from xpdl.distributed import HalfSum, MpiRanks, Ranks, connect
from xpdl.training import Step
from xpdl.training.gradient_sum import GradientSum

PINGS = (1, 1_000, 10_000, 100_000, 1_000_000)  # numbers of float32


def main(
    backend: str, network: str, batch_size: int, steps: int, piece: int, separate: bool
) -> None:
    """Time steps of all ranks together, and what they say to each other.

    `separate` ranks begin each step together, and then tell each other nothing.
    """
    with use_backend(backend) as active:
        ranks = connect(active)
        net = NETWORKS[network]()
        x, t = map(active.asarray, batch(net, batch_size))
        if separate and ranks is not None:
            rows = ranks.rows(batch_size)
            x, t = x[rows], t[rows]
        step = Step(net, "adam", ranks=None if separate else ranks)
        if ranks is not None and piece:
            step.gradient_sum = GradientSum(net, ranks, piece)
        for _ in range(5):
            step(x, t)
        seconds = []
        for _ in range(steps):
            if ranks is not None:
                ranks.barrier()
            start = time.perf_counter()
            step(x, t)
            seconds.append(time.perf_counter() - start)
        if separate and ranks is not None:  # a step of both ends with the later
            seconds = [max(both) for both in zip(*ranks.gather(seconds), strict=True)]
        told = {"seconds": seconds, "size": net.grads.buffer.nbytes, "pings": pings(ranks, steps)}
        if ranks is None or ranks.rank == 0:
            print(json.dumps(told), flush=True)


def pings(ranks: Ranks | None, rounds: int) -> dict[str, dict[int, float]]:
    """Return the median seconds of a sum, by the type it travels in, and its bytes in float32."""
    found: dict[str, dict[int, float]] = {"float32": {}, "float16": {}}
    for size in PINGS if ranks is not None else ():
        a = np.zeros(size, np.float32)
        seconds: dict[str, list[float]] = {"float32": [], "float16": []}
        for _ in range(rounds):
            for dtype, each in seconds.items():
                assert isinstance(ranks, MpiRanks)
                ranks.barrier()
                start = time.perf_counter()
                if dtype == "float32":
                    ranks.sum(a)
                else:
                    HalfSum(ranks, a).wait()
                each.append(time.perf_counter() - start)
        for dtype, each in seconds.items():
            found[dtype][a.nbytes] = statistics.median(each)
    return found


if __name__ == "__main__":
    os.environ.setdefault("XPDL_THREADS", "1")
    rows, steps, piece = map(int, sys.argv[3:6])
    main(sys.argv[1], sys.argv[2], rows, steps, piece, sys.argv[6:] == ["separate"])
