"""Ways to train, by name: which network, which rule, how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """A way to train; each part can be overridden on the command line."""

    about: str
    epochs: int
    optimizer: str = "adam"
    learning_rate: float = 0.001
    schedule: str = "constant"
    batch_size: int = 100
    model: str = "DeepConvNet"
    model_options: Mapping[str, Any] = field(default_factory=dict)


RECIPES: dict[str, Recipe] = {
    "fast": Recipe(
        about="one-cycle learning rate with its peak at 0.004, no dropout on the scores",
        epochs=4,
        learning_rate=0.004,
        schedule="one-cycle",
        model_options={"drop_scores": False},
    ),
    "book": Recipe(
        about="the book's own: Adam 0.001, 20 epochs, dropout on the scores too",
        epochs=20,
    ),
}
