"""What happened during a training."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from xpdl.arguments import number, whole_number


@dataclass
class Epoch:
    """One pass over the training data.

    `loss` is the mean over the epoch's batches, as they were trained on (with dropout); `train` is
    what the loss's measure finds in them, by name: {"accuracy": 0.98}. `test` and `validation` hold
    the same, and the "loss", of the whole of these sets, after the epoch, with the averaged
    parameters if there are; None without such a set. `train_accuracy` and `test_accuracy` are the
    accuracies among them, None where classes are not told apart.
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
    train: dict[str, float] | None = None
    test: dict[str, float] | None = None
    validation: dict[str, float] | None = None

    @staticmethod
    def found(
        train: dict[str, float],
        test: dict[str, float] | None,
        validation: dict[str, float] | None,
    ) -> dict[str, Any]:
        """Return the fields of what was found on each set."""
        return {
            "train": train,
            "test": test,
            "validation": validation,
            "train_accuracy": train.get("accuracy"),
            "test_accuracy": None if test is None else test.get("accuracy"),
        }


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
            for name in ("train", "test", "validation"):
                if epoch[name] is not None:
                    epoch[name] = {key: _told(value) for key, value in epoch[name].items()}
        return told

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> History:
        """Return the history that `as_dict` made `value` of.

        Raises
        ------
        ArgumentError, KeyError, TypeError, ValueError
            If it is not that.
        """
        return cls(
            [_heard("losses", loss) for loss in value["losses"]],
            [_heard_epoch(epoch) for epoch in value["epochs"]],
            [
                (whole_number("a step in loss_scales", step, least=0), number("loss_scales", scale))
                for step, scale in value.get("loss_scales", [])
            ],
        )

    def add_loss_scales(self, scales: Iterable[float]) -> None:
        """Note the factors of the steps that follow those in `losses`."""
        for step, scale in enumerate(scales, len(self.losses)):
            if not self.loss_scales or self.loss_scales[-1][1] != scale:
                self.loss_scales.append((step, float(scale)))


def _heard_epoch(epoch: dict[str, Any]) -> Epoch:
    """Return an epoch from a file; one from before what was found had names has accuracies."""
    heard: dict[str, Any] = {
        "loss": _heard("loss", epoch["loss"]),
        "number": whole_number("number", epoch["number"], least=0),
        "learning_rate": number("learning_rate", epoch["learning_rate"]),
        "seconds": number("seconds", epoch["seconds"]),
        "skipped_steps": whole_number("skipped_steps", epoch.get("skipped_steps", 0), least=0),
    }
    if epoch.get("batch_size") is not None:
        heard["batch_size"] = whole_number("batch_size", epoch["batch_size"])
    for name in ("loss_scale", "train_accuracy", "test_accuracy"):
        if epoch.get(name) is not None:
            heard[name] = number(name, epoch[name])
    found = {
        name: None if told is None else {key: _heard(key, value) for key, value in told.items()}
        for name in ("train", "test", "validation")
        for told in [epoch.get(name)]
    }
    for name in ("train", "test"):
        accuracy = epoch.get(f"{name}_accuracy")
        if found[name] is None and accuracy is not None:
            found[name] = {"accuracy": accuracy}
    return Epoch(**epoch | heard | found)


def _told(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None  # JSON has no NaN


def _heard(name: str, value: object) -> float:
    """Return a number from a file, which may be any, or None for one that is not finite."""
    if value is None:
        return math.nan
    return value if isinstance(value, float) else number(name, value, above=-math.inf)
