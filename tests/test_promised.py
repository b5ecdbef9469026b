"""That what is promised of a GPU is held, where there is none to hold it on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from promised import assert_as_promised


@pytest.fixture
def gpu() -> Any:
    return SimpleNamespace(name="cupy", describe=lambda: {"device": "NVIDIA H100"})


def left(change: float = 0.0, **more: Any) -> dict[str, Any]:
    w = np.linspace(-1, 1, 50, dtype=np.float32)
    told = {"losses": [2.0, 1.0 + change], "w": w * (1 + 10 * change), "scale": None}
    return {**told, "epochs": [{"number": 0, "loss": 1.5 + change}], "steps": 7} | more


def test_a_gpu_promises_closeness(gpu: Any) -> None:
    assert_as_promised(gpu, left(1e-4), left())
    for other in (left(1e-2), left(w=-left()["w"]), left(steps=8), left(scale=1.0), left(more=1)):
        with pytest.raises(AssertionError):
            assert_as_promised(gpu, other, left())


def test_others_promise_the_same_bits(backend: Any) -> None:
    if backend.name == "cupy" and backend.describe()["device"] != "Rehearsed GPU":
        pytest.skip("a GPU promises closeness")
    assert_as_promised(backend, left(), left())
    with pytest.raises(AssertionError):
        assert_as_promised(backend, left(1e-7), left())
