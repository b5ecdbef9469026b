"""What a training is, in words and numbers, so that a file of another one is told apart."""

from __future__ import annotations

import json
from typing import Any

from xpdl.backends import Array, backend_of
from xpdl.datasets.stored import StoredPictures
from xpdl.errors import shown

MOST_DIFFERENCES, LONGEST_NAME = 8, 100  # in one message; a file may hold any


def training_settings(trainer: Any) -> dict[str, Any]:
    """Return all that decides how a training goes, but for the data itself, as JSON gives it back.

    A schedule or an augmentation is known by its name or its repr, its code is not.
    """
    network, batches, optimizer = trainer.network, trainer.batches, trainer.optimizer
    settings = {
        "backend": network.backend.name,
        "architecture": network.config(),
        "epochs": trainer.epochs,
        "batch_size": batches.batch_size,
        "examples": batches.examples,
        "optimizer": optimizer.settings() | {"learning_rate": trainer.learning_rate},
        "schedule": known_as(trainer.schedule),
        "augment": known_as(trainer.feeding.augment),
        "seed": trainer.seed,
    }
    if network.backend.ways():
        settings["environment"] = network.backend.ways()
    if trainer.step.accumulate > 1:
        settings["accumulate"] = trainer.step.accumulate
    if trainer.step.reduce_dtype is not None:
        settings["reduce_dtype"] = trainer.step.reduce_dtype
    if trainer.patience.patience is not None:
        settings["patience"] = trainer.patience.patience
    if trainer.average is not None:
        settings["average"] = trainer.average.settings()
    result: dict[str, Any] = json.loads(json.dumps(settings))  # a tuple is a list there
    return result


def digest(*arrays: Array | StoredPictures) -> str:
    """Return the SHA-256 of the arrays' numbers, types and shapes, in hexadecimal.

    Pictures that stay in a file are not read for that; they have a digest of their own.
    """
    import hashlib  # brings in OpenSSL, which only this needs

    total = hashlib.sha256()
    for a in arrays:
        if isinstance(a, StoredPictures):
            total.update(a.digest().encode())
            continue
        to_numpy = backend_of(a).to_numpy
        total.update(f"{a.dtype} {a.shape}".encode())
        for start in range(0, len(a), 1000):  # in parts, so that it needs no second copy
            total.update(to_numpy(a[start : start + 1000]).tobytes())
    return total.hexdigest()


def differences(then: Any, now: Any) -> list[str]:
    """Return what differs between two nested dictionaries, by dotted names, not too many."""
    before, after = flat(then), flat(now)
    names = [*after, *(name for name in before if name not in after)]
    differ = [name for name in names if before.get(name) != after.get(name)]
    told = [
        f"{name[:LONGEST_NAME]} (then {shown(before.get(name))}, now {shown(after.get(name))})"
        for name in differ[:MOST_DIFFERENCES]
    ]
    more = len(differ) - MOST_DIFFERENCES
    return [*told, f"and {more} more"] if more > 0 else told


def known_as(a: Any) -> str | None:
    """Return how a function, or an object that is called as one, is known in a file.

    None is None.
    """
    return None if a is None else getattr(a, "__qualname__", None) or repr(a)


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Return what nested dictionaries hold, by dotted names."""
    if not isinstance(value, dict):
        return {name: value}
    return {
        full_name: inner
        for key, part in value.items()
        for full_name, inner in flat(part, f"{name}.{key}" if name else key).items()
    }
