"""What happened during a training."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

from xpdl.arguments import number, whole_number

_ROWS = 10  # of the epochs, that are shown


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


@dataclass(repr=False)
class History:
    """The losses of a training, step by step, and its epochs; it is shown as a table of these.

    The loss of a step that was not made, since it diverged, is not finite.

    In half precision, `loss_scales` has a pair (step, factor) for the first step and for each at
    which the factor was another than before; steps count from 0 over all epochs.
    """

    losses: list[float] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)
    loss_scales: list[tuple[int, float]] = field(default_factory=list)

    def __repr__(self) -> str:
        rows = self._rows()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.rjust(n) for cell, n in zip(row, widths, strict=True)) for row in rows
        ]
        return "\n".join([f"History of {self._title()}", *lines])

    def _repr_html_(self) -> str:
        """Return the table as a notebook shows it."""
        head, *rows = (
            "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row)
            for row, tag in zip(self._rows(), ["th", *["td"] * (_ROWS + 1)], strict=False)
        )
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return f"<table><caption>{self._title()}</caption><tr>{head}</tr>{body}</table>"

    def _title(self) -> str:
        steps, epochs = len(self.losses), len(self.epochs)
        return f"{steps:,} step{'s' * (steps != 1)}, {epochs} epoch{'s' * (epochs != 1)}"

    def _rows(self) -> list[list[str]]:
        """Return a table's cells: a heading, the first epochs and the last."""
        found = {
            f"{part} {name}": (part, name)
            for epoch in self.epochs
            for part in ("train", "validation", "test")
            for name in getattr(epoch, part) or {}
            if name != "loss" or part != "train"
        }
        epochs: list[Epoch | None] = list(self.epochs)
        if len(epochs) > _ROWS:
            epochs = [*epochs[: _ROWS // 2], None, *epochs[-_ROWS // 2 :]]
        rows = [["epoch", "loss", *found, "seconds"]]
        for epoch in epochs:
            if epoch is None:
                rows.append(["..."] * len(rows[0]))
                continue
            values = [(getattr(epoch, part) or {}).get(name) for part, name in found.values()]
            cells = [
                "" if value is None else f"{value:.4g}" if name != "accuracy" else f"{value:.2%}"
                for value, (_, name) in zip(values, found.values(), strict=True)
            ]
            rows.append(
                [f"{epoch.number + 1}", f"{epoch.loss:.4f}", *cells, f"{epoch.seconds:.1f}"]
            )
        return rows

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
