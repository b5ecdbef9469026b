"""A model of a training step on n ranks, and a simulation of its messages that checks it.

t(n) = c(rows) + s sigma(n) + max(m(n, last piece), m(n, gradients) - h c(rows)) + k m(n, 0)

c(rows) = fixed + each * rows is what a rank computes. Of it, a share h is backward, beside which
gradients travel. The slowest of n ranks, whose times spread by s, comes sigma(n) deviations late
(Blom's estimate of a maximum of normal numbers). k messages of a few numbers, those of batch
normalisation, hide behind nothing. A sum of `size` bytes takes, whichever is less,

ring    2 (n-1) latency + 2 (n-1)/n size / bandwidth       (Patarasuk and Yuan 2009)
tree    2 log2(n) (latency + size / bandwidth)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

PIECE = 2**20  # bytes, as in xpdl.training.gradient_sum


@dataclass(frozen=True)
class Link:
    """What connects ranks: seconds until a message arrives, and bytes a second."""

    name: str
    latency: float
    bandwidth: float


@dataclass(frozen=True)
class Work:
    """What a step is, on one rank.

    Parameters
    ----------
    fixed, each : float
        Seconds of a step, whatever its rows, and of each row.
    size : int
        Bytes of gradients.
    messages : int
        How many small messages nothing hides.
    """

    name: str
    fixed: float
    each: float
    size: int
    messages: int = 0
    hidden: float = 2 / 3  # of the computing is backward: two products for each one of forward
    spread: float = 0.02

    def compute(self, rows: float) -> float:
        """Return the seconds that a rank computes."""
        return self.fixed + self.each * rows


def ring(n: int, size: float, link: Link) -> float:
    """Return the seconds of a sum around a ring."""
    return 2 * (n - 1) * link.latency + 2 * (n - 1) / n * size / link.bandwidth


def tree(n: int, size: float, link: Link) -> float:
    """Return the seconds of a sum by halving and doubling."""
    return 2 * math.log2(n) * (link.latency + size / link.bandwidth)


def message(n: int, size: float, link: Link) -> float:
    """Return the seconds of a sum over n ranks, by whichever way is quicker."""
    return min(ring(n, size, link), tree(n, size, link)) if n > 1 else 0.0


def lateness(n: int) -> float:
    """Return by how many deviations the latest of n comes late."""
    return NormalDist().inv_cdf((n - 0.375) / (n + 0.25)) if n > 1 else 0.0


def step_time(work: Work, rows: float, n: int, link: Link) -> float:
    """Return the seconds of a step of n ranks of `rows` each."""
    c = work.compute(rows)
    exposed = max(
        message(n, min(PIECE, work.size), link), message(n, work.size, link) - work.hidden * c
    )
    small = work.messages * message(n, 0, link)
    return c * (1 + work.spread * lateness(n)) + exposed + small


def speed_up(work: Work, rows: float, n: int, link: Link, *, strong: bool) -> float:
    """Return how many times as many examples a second n ranks train on as one.

    With `strong`, `rows` are dealt out to all ranks; without, each has as many.
    """
    alone = step_time(work, rows, 1, link)
    if strong:
        return alone / step_time(work, rows / n, n, link)
    return n * alone / step_time(work, rows, n, link)


# ---- the simulation ------------------------------------------------------------------------------


def simulate(
    work: Work, rows: float, n: int, link: Link, way: str, rng: np.random.Generator
) -> float:
    """Return the seconds of a step, message by message: each rank waits for who sends to it.

    No rank knows the formula: each computes for a time of its own, and sends on what it has.
    """
    c = work.compute(rows)
    ready = c * (1 + work.spread * rng.standard_normal(n))
    begun = ready - work.hidden * c  # from then on gradients travel
    arrived = {"ring": _ring, "tree": _tree}[way](begun, work.size, link)
    last = {"ring": _ring, "tree": _tree}[way](ready, min(PIECE, work.size), link)
    return float(np.maximum(arrived, last).max())


Times = npt.NDArray[np.float64]


def _ring(start: Times, size: float, link: Link) -> Times:
    n, now = len(start), start.copy()
    for _ in range(2 * (n - 1)):
        now = np.maximum(now, np.roll(now, 1)) + link.latency + size / n / link.bandwidth
    return now


def _tree(start: Times, size: float, link: Link) -> Times:
    now, ranks = start.copy(), np.arange(len(start))
    distances = [2**i for i in range(int(math.log2(len(start))))]
    for distance in [*distances, *reversed(distances)]:
        now = np.maximum(now, now[ranks ^ distance]) + link.latency + size / link.bandwidth
    return now


def check(work: Work, rows: float, link: Link, seed: int = 0) -> list[dict[str, Any]]:
    """Return, for some numbers of ranks, how far the formula is from the simulation."""
    rng, found = np.random.default_rng(seed), []
    bare = replace(work, messages=0)
    for n in (2, 8, 64, 256):
        for way, formula in (("ring", ring), ("tree", tree)):
            seen = np.mean([simulate(bare, rows, n, link, way, rng) for _ in range(8)])
            c = bare.compute(rows)
            told = c * (1 + bare.spread * lateness(n)) + max(
                formula(n, min(PIECE, bare.size), link),
                formula(n, bare.size, link) - bare.hidden * c,
            )
            found.append({"ranks": n, "way": way, "formula": told, "simulated": float(seen)})
    return found


# ---- what is drawn -------------------------------------------------------------------------------

# 25 Gbit/s, of which TCP or RoCE leaves about four fifths; and a switched NVLink of the fourth
# generation as far as it reached, were there one of 1,000 GPUs.
ETHERNET = Link("Ethernet, 25 Gbit/s", 30e-6, 2.5e9)
NVLINK = Link("NVLink", 5e-6, 150e9)

# Images a second that one Tesla P100 of a DGX-1 trained on, in float32, by the images of a batch:
# TensorFlow's benchmarks of May 2017, "Training synthetic data" and "Other results", in its
# repository as tensorflow/docs_src/performance/benchmarks.md at commit 5984ffef. Horovod's figures
# are of GPUs of the same generation.
P100 = {"ResNet-50": {32: 195.0, 64: 219.0}, "VGG16": {32: 144.0, 64: 154.0}}


def measured_work(
    name: str, rates: Mapping[int, float], parameters: int, messages: int = 0
) -> Work:
    """Return what a step is whose images a second are known at two batch sizes."""
    (few, slow), (many, fast) = sorted(rates.items())
    each = (many / fast - few / slow) / (many - few)
    return Work(name, few / slow - few * each, each, 4 * parameters, messages)


# DeepConvNet's step is an estimate for an H100 at batch 100; it was not measured.
PLANNED = {
    "DeepConvNet": (Work("DeepConvNet", 0.4e-3, 2e-6, 4 * 123_552), 100),
    "ResNet-50": (measured_work("ResNet-50", P100["ResNet-50"], 25_557_032, messages=106), 64),
    "VGG16": (measured_work("VGG16", P100["VGG16"], 138_357_544), 64),
}
# ranks, speed-up: section 8.3.3 of the book; Sergeev and Del Balso 2018, arXiv:1802.05799.
POINTS = {
    "the book, TensorFlow": (100, 56.0),
    "Horovod, Inception V3": (512, 0.90 * 512),
    "Horovod, VGG-16": (512, 0.68 * 512),
}
RANKS = (1, 2, 4, 8, 16, 32, 64, 100, 128, 256, 512, 1000)


def plan() -> dict[str, Any]:
    """Return the speed-up of each network over each link, weak and strong, up to 1,000 ranks."""
    return {
        f"{name}, {link.name}, {kind}": [
            round(speed_up(work, rows * (64 if strong else 1), n, link, strong=strong), 2)
            for n in RANKS
        ]
        for name, (work, rows) in PLANNED.items()
        for link in (ETHERNET, NVLINK)
        for kind, strong in (("weak", False), ("strong", True))
    }
