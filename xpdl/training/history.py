"""What happened during a training."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Epoch:
    """One pass over the training data.

    `loss` and `train_accuracy` are means over the epoch's batches, as they were trained on (with
    dropout); `test_accuracy` is over the whole test set, after the epoch; None without one.
    """

    number: int
    loss: float
    train_accuracy: float | None
    test_accuracy: float | None
    learning_rate: float
    seconds: float


@dataclass
class History:
    """The losses of a training, step by step, and its epochs."""

    losses: list[float] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> History:
        """Return the history that `as_dict` made `value` of."""
        return cls(list(value["losses"]), [Epoch(**epoch) for epoch in value["epochs"]])
