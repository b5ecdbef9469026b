"""Which class a model sees in each example of a data set."""

from __future__ import annotations

from typing import Protocol

from xpdl.backends import Array, backend_of
from xpdl.datasets.batches import Batches


class Predictor(Protocol):
    """What answers with scores or probabilities (N, classes): a network, an ensemble ..."""

    def predict(self, x: Array) -> Array:
        """Return a number for each class and sample of x."""


def classes_seen(model: Predictor, data: Batches) -> Array:
    """Return the class (N,) of the highest score in each example, from the first to the last.

    They stay on the device.
    """
    parts = [model.predict(x).argmax(axis=1) for x, _ in data.in_order()]
    return backend_of(parts[0]).xp.concatenate(parts)


def count_hits(scores: Array, t: Array) -> Array:
    """Return how many rows of scores (N, K) are highest at their target, (), on the device."""
    return backend_of(scores, t).count_hits(scores, t)[0]
