"""What happened during a training."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Epoch:
    """One pass over the training data.

    `loss` and `train_accuracy` are means over the epoch's batches, as they were trained on (with
    dropout); `test_accuracy` is over the whole test set, after the epoch, with the averaged
    parameters if there are; None without a test set.
    `skipped_steps` of its steps were not made, since their loss or gradients were not finite; in
    half precision, `loss_scale` is the factor at its end. `batch_size` is how many examples a step
    had; None in a history from before it was kept.
    """

    number: int
    loss: float
    train_accuracy: float | None
    test_accuracy: float | None
    learning_rate: float
    seconds: float
    skipped_steps: int = 0
    loss_scale: float | None = None
    batch_size: int | None = None


@dataclass
class History:
    """The losses of a training, step by step, and its epochs.

    The loss of a step that was not made, since it diverged, is not finite.

    In half precision, `loss_scales` has a pair (step, factor) for the first step and for each at
    which the factor was another than before; steps count from 0 over all epochs.
    """

    losses: list[float] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)
    loss_scales: list[tuple[int, float]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it: a loss that is not finite is None."""
        told = asdict(self)
        told["losses"] = [_told(loss) for loss in self.losses]
        for epoch in told["epochs"]:
            epoch["loss"] = _told(epoch["loss"])
        return told

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> History:
        """Return the history that `as_dict` made `value` of."""
        return cls(
            [_heard(loss) for loss in value["losses"]],
            [Epoch(**epoch | {"loss": _heard(epoch["loss"])}) for epoch in value["epochs"]],
            [(int(step), float(scale)) for step, scale in value.get("loss_scales", [])],
        )

    def add_loss_scales(self, scales: Iterable[float]) -> None:
        """Note the factors of the steps that follow those in `losses`."""
        for step, scale in enumerate(scales, len(self.losses)):
            if not self.loss_scales or self.loss_scales[-1][1] != scale:
                self.loss_scales.append((step, float(scale)))


def _told(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None  # JSON has no NaN


def _heard(loss: float | None) -> float:
    return math.nan if loss is None else float(loss)
