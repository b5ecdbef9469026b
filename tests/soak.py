"""A process that goes on training, and whether its memory, files and threads stay as they are.

    python tests/soak.py --seconds 1800 --out soak.csv

trains, saves, loads, predicts, tests and draws again and again, on the backends numpy and numba in
turn, and measures itself after each round. The program ends with 1 if something has grown.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import gc
import itertools
import math
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

WARM_UP = 0.2
"""The share of a run that is not judged, in which pools fill."""

MOST_RISE = 0.01
"""By how much of it memory may rise over the rest of a run, along the line that fits it best."""

LEAST = 10
"""Rounds that are worth a judgement."""

SURE = 3
"""A rise counts that is above the limit by so many standard errors of it: noise is no leak."""

MEMORY, COUNTED = ("resident", "needed"), ("files", "threads")


@dataclass(frozen=True)
class Sample:
    """What a process holds at a moment, as Linux counts it.

    Attributes
    ----------
    seconds : float
        When, since the start.
    resident : int
        Bytes of memory, as they are. It is restless: pools and the C library keep what was freed.
    needed : int
        Bytes without files' pages, such as libraries', when all that is free was given back.
    files, threads : int
        How many are open, and how many there are.
    """

    seconds: float
    resident: int
    needed: int
    files: int
    threads: int


def measure(start: float) -> Sample:
    """Return what this process holds now; it is left as it is."""
    resident, _ = _memory()
    return Sample(
        seconds=time.perf_counter() - start,
        resident=resident,
        needed=_needed(),
        files=len(os.listdir("/proc/self/fd")),
        threads=len(os.listdir("/proc/self/task")),
    )


def _memory() -> tuple[int, int]:
    """Return the bytes that are resident, and those among them that are of no file."""
    _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text().split())
    page = os.sysconf("SC_PAGE_SIZE")
    return page * resident, page * (resident - shared)


def _needed() -> int:
    """Return what memory is left in a child, the same as we are, that gives back all it can."""
    from xpdl.backends import get_backend

    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # rather than to hang
        get_backend("numpy").release()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
        os.write(writing, str(_memory()[1]).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise ChildProcessError("the child that measures memory has not come to its end")
    return int(text)


def judged(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples after the warm-up."""
    end = WARM_UP * samples[-1].seconds
    return [sample for sample in samples if sample.seconds >= end]


def rise(samples: Sequence[Sample], what: str) -> tuple[float, float]:
    """Return by what share of itself memory rose, and the standard error of that.

    Along the line of least squares, y = a + b t; the error is that of b where the distances from
    the line are of one variance and independent.
    """
    t, y = (
        np.array([getattr(sample, name) for sample in samples], np.float64)
        for name in ("seconds", what)
    )
    span = t[-1] - t[0]
    t -= t.mean()
    b = t @ (y - y.mean()) / (t @ t)
    distances = y - y.mean() - b * t
    error = math.sqrt(distances @ distances / (len(t) - 2) / (t @ t))
    first = y.mean() + b * t[0]
    return float(b * span / first), float(error * span / first)


def complaints(samples: Sequence[Sample]) -> list[str]:
    """Return a sentence for all that grew after the warm-up.

    Raises
    ------
    ValueError
        If there are too few samples for a judgement.
    """
    if len(samples) < LEAST:
        raise ValueError(f"{len(samples)} samples are too few; wanted {LEAST} at least")
    rest = judged(samples)
    found = []
    for what in MEMORY:
        share, error = rise(rest, what)
        if share - SURE * error > MOST_RISE:
            found.append(
                f"{what} memory rose by {share:.2%} (standard error {error:.2%}), "
                f"wanted {MOST_RISE:.0%} at most"
            )
    for what in COUNTED:
        early, late = _most(rest, what)
        if late > early:
            found.append(f"there were more {what}: {early} at most at first, then {late}")
    return found


def _most(samples: Sequence[Sample], what: str) -> tuple[int, int]:
    """Return the most of what is counted in the first and in the second half of the samples."""
    counts, half = [getattr(sample, what) for sample in samples], len(samples) // 2
    return max(counts[:half]), max(counts[half:])


def report(samples: Sequence[Sample]) -> str:
    """Return the figures of a run in a few lines."""
    rest = judged(samples)
    first, last = rest[0], rest[-1]
    lines = [
        f"{len(samples)} rounds in {last.seconds:.0f} s; judged from {first.seconds:.0f} s on, "
        f"{len(rest)} rounds",
        *(
            f"{what} memory {getattr(first, what) / 1e6:.2f} MB -> "
            f"{getattr(last, what) / 1e6:.2f} MB, along a line {rise(rest, what)[0]:+.3%} "
            f"(standard error {rise(rest, what)[1]:.3%})"
            for what in MEMORY
        ),
        *(
            f"{what} {getattr(first, what)} -> {getattr(last, what)}, in the first half at most "
            f"{_most(rest, what)[0]}, in the second {_most(rest, what)[1]}"
            for what in COUNTED
        ),
    ]
    return "\n".join(lines)


def soak(
    rounds: Iterator[Callable[[], object]], seconds: float, out: Path | None = None
) -> list[Sample]:
    """Do round after round for so long, and return what was held after each; also to a CSV file.

    There are two rounds before, in which modules are loaded and code is compiled, and `LEAST` in
    any case, be the machine as slow as it may.
    """
    samples: list[Sample] = []
    for _ in range(2):
        next(rounds)()
    start = time.perf_counter()
    while len(samples) < LEAST or samples[-1].seconds < seconds:
        next(rounds)()
        gc.collect()  # what Python frees when it thinks fit is no growth
        samples.append(measure(start))
        if out is not None:
            with out.open("w" if len(samples) == 1 else "a", newline="") as stream:
                writer = csv.writer(stream)
                if len(samples) == 1:
                    writer.writerow(field.name for field in fields(Sample))
                writer.writerow(astuple(samples[-1]))
    return samples


# ---- a round ------------------------------------------------------------------------------------


def trainings(folder: Path) -> Iterator[Callable[[], object]]:
    """Yield rounds on the backends in turn, each with a network and data of its own."""
    for number in itertools.count():
        backend = ("numpy", "numba")[number % 2]
        yield lambda backend=backend, number=number: train(backend, number, folder)


def train(backend: str, seed: int, folder: Path) -> None:
    """Do with a network all that a user does: train, stop, go on, save, load, predict, draw."""
    import xpdl
    from xpdl.datasets.augmentation import Compose, Erase, Noise, Rotate, Shift
    from xpdl.models import NormalizedConvNet
    from xpdl.plots import confusion_matrix, learning_curves
    from xpdl.training import Trainer
    from xpdl.tuning import Ensemble, ShiftAverage

    rng = np.random.default_rng(seed)
    x, t = rng.random((150, 1, 28, 28), np.float32), rng.integers(0, 10, 150)
    checkpoint = folder / "checkpoint.safetensors"
    checkpoint.unlink(missing_ok=True)

    def trainer(network: xpdl.Network, *callbacks: Callable[..., object]) -> Trainer:
        return Trainer(
            network,
            (x[:100], t[:100]),
            (x[100:], t[100:]),
            optimizer="adam",
            epochs=3,
            batch_size=50,
            schedule="cosine",
            callbacks=callbacks,
            checkpoint=checkpoint,
            seed=seed,
            progress=False,
            augment=Compose([Rotate(10), Shift(2), Erase(6), Noise(0.1)]),
            average=0.9,
        )

    def stop_early(trainer: Trainer, epoch: object) -> None:
        trainer.stop = len(trainer.history.epochs) == 2

    def network() -> NormalizedConvNet:
        return NormalizedConvNet(widths=(8, 16, 16), dropout_ratio=0.5, seed=seed)

    with xpdl.use_backend(backend):
        trainer(network(), stop_early).fit()
        trained = network()
        resumed = trainer(trained)
        history = resumed.fit()
        trained.save(folder / "network.safetensors")
        loaded = xpdl.load(folder / "network.safetensors")
        scores = loaded.predict(x[: (1, 17, 60)[seed % 3]])
        if not (scores == trained.predict(x[: len(scores)])).all():
            raise AssertionError("a network answers otherwise when it has been saved and loaded")
        loaded.accuracy(x, t)
        answers = ShiftAverage(Ensemble([trained, network()])).predict(x[:10]).argmax(axis=1)
        if seed % 4 < 2:
            figure = confusion_matrix(t[:10], answers)
        else:
            figure = learning_curves(
                history.losses,
                [epoch.train_accuracy for epoch in history.epochs],
                [epoch.test_accuracy for epoch in history.epochs],
            )
        figure.savefig(folder / "figure.png")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak; see the module's own text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--out", type=Path, help="a CSV file for all samples")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        samples = soak(trainings(Path(folder)), given.seconds, given.out)
    print(report(samples))
    print("threads:", ", ".join(sorted(thread.name for thread in threading.enumerate())))
    found = complaints(samples)
    print("\n".join(found) or "nothing has grown")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
