"""What stands for the process of ``bench.gpu.worker``, and the program that starts it.

``worker rehearsed`` measures a rehearsed GPU, little of each; ``worker PART=DEED ...`` does parts
that only seem to measure. ``program KIND... -- ARGUMENTS`` is ``python -m bench ARGUMENTS`` with
such a worker.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from bench.gpu import command, parity, record, step, training, worker  # noqa: E402
from bench.gpu.session import Session, Sizes  # noqa: E402
from xpdl.backends.cupy import fused  # noqa: E402
from xpdl.errors import BackendUnavailableError  # noqa: E402
from xpdl.layers import Affine, Convolution, Dropout, MaxPooling, ReLU  # noqa: E402
from xpdl.network import Network  # noqa: E402

DEVICE = {
    "device": "Seeming GPU", "driver": "1", "CUDA runtime": "13.2", "CuPy": "14.2.0",
    "pytorch": "no PyTorch",
}  # fmt: skip


def small(**options):
    """What DeepConvNet is made of, but less of it."""
    layers = [
        *(Convolution(4, 3, pad=1), ReLU(), MaxPooling(2), Affine(8), ReLU(), Dropout(0.5)),
        *(Affine(10), Dropout(0.5)),
    ]
    return Network(layers, (1, 28, 28), name="DeepConvNet", **options)


def digits(n):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, 1, 28, 28), dtype=np.uint8), rng.integers(0, 10, n)


def make_small(replace):
    """Let all parts measure little; ``replace(module, name, value)`` is like `setattr`."""
    for module in (parity, step, training):
        replace(module, "DeepConvNet", small)
    replace(training, "load_mnist", lambda **options: (digits(100), digits(20)))


# ---- parts that only seem to measure -------------------------------------------------------------


def seem(deed):
    """Return a part that measures one number, and then does `deed`."""

    def part(session, notes):
        notes.results["measured"] = 1
        notes.keep()
        if deed == "fails":
            raise ValueError("no such\nthing")
        if deed == "finds":
            notes.problems.append("7 is too far off")
        if deed == "hangs":
            time.sleep(600)
        if deed == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        while deed == "goes on":
            time.sleep(0.01)
            notes.results["measured"] += 1
            notes.keep()

    return part


def main(arguments):
    if arguments[0] == "program":
        end = arguments.index("--")
        command.WORKER = [sys.executable, __file__, "worker", *arguments[1:end]]
        from bench.__main__ import main as bench

        sys.exit(bench(arguments[end + 1 :]))
    if arguments[1] == "rehearsed":
        import rehearsal

        sys.modules["cupy"] = rehearsal.make_cupy()
        for module in (fused, record):
            module.load_cublas = lambda cupy: rehearsal.cublas_library()
        make_small(setattr)
        worker.main(start=rehearsed_session)
    else:
        deeds = dict(pair.split("=") for pair in arguments[1:])
        worker.main(
            {name: seem(deed) for name, deed in deeds.items()},
            lambda sizes: seeming_session(deeds.get("start", "")),
        )


def seeming_session(deed):
    if deed == "dies":
        sys.exit("libcuda.so: not what was expected")
    if deed == "hangs":
        time.sleep(600)
    if deed == "fails":
        raise BackendUnavailableError("there is no GPU.")
    return None, DEVICE


def rehearsed_session(sizes: Sizes):
    sizes = replace(sizes, batch_sizes=(3, 4), parity_batch=2)
    session = Session(fused.FusedCupyBackend(), sizes, None, "PyTorch is not measured: a test")
    return session, record.about_device(session)


if __name__ == "__main__":
    main(sys.argv[1:])
