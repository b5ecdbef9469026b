"""What is promised of a step that was captured: the numbers of one that runs as it stands.

Bit for bit where one algorithm computes both: on the host, on `strict`, and in rehearsal. On a GPU
cuBLAS may choose another one while a stream captures, whose sums are rounded otherwise. What is
promised there is closeness of the losses, and of all other numbers together: a bias in front of
batch normalisation has a gradient of nothing but rounding, which Adam makes as large as any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from xpdl.backends import Backend

OF_LOSSES = {"float64": 1e-9, "float32": 1e-3, "float16": 3e-2}
OF_ALL = 0.1


def is_gpu(backend: Backend) -> bool:
    """Tell whether a backend computes on a GPU that there is."""
    return backend.name == "cupy" and backend.describe()["device"] != "Rehearsed GPU"


def assert_as_promised(backend: Backend, got: Any, expected: Any, dtype: str = "float32") -> None:
    """Hold what was captured to what ran as it stands.

    Both are mappings of names to arrays, numbers and lists of them; losses are called "losses".
    """
    if not is_gpu(backend):
        np.testing.assert_equal(got, expected)
        return
    if "losses" in expected:
        np.testing.assert_allclose(got["losses"], expected["losses"], rtol=OF_LOSSES[dtype])
    ours, theirs = dict(_leaves(got)), dict(_leaves(expected))
    assert ours.keys() == theirs.keys()
    numbers = []
    for name, leaf in theirs.items():
        if np.asarray(leaf).dtype.kind == "f":
            numbers.append((np.ravel(ours[name]), np.ravel(leaf)))
        else:
            assert np.array_equal(ours[name], leaf), name
    one, other = (np.concatenate(side).astype(np.float64) for side in zip(*numbers, strict=True))
    assert np.linalg.norm(one - other) <= OF_ALL * np.linalg.norm(other)


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}/{key}")
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        for i, inner in enumerate(value):
            yield from _leaves(inner, f"{name}/{i}")
    else:
        yield name, value
