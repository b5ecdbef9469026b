"""Out of memory: what was asked for, what is free, and a batch that fits."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import rehearsal

import xpdl
from xpdl import Trainer, backends
from xpdl.backends.cupy import fused as cupy_fused
from xpdl.errors import DeviceMemoryError
from xpdl.layers import Normalize
from xpdl.models import DeepConvNet

MEGABYTE = 2**20


@pytest.fixture
def small_device(monkeypatch: Any) -> Iterator[Any]:
    """The CuPy backend on a rehearsed GPU of 100 MB, of which cuBLAS takes 32."""
    if rehearsal.why_not():
        pytest.skip(f"no rehearsal of the GPU: {rehearsal.why_not()}")
    module = rehearsal.make_cupy(100 * MEGABYTE)
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(cupy_fused, "load_cublas", lambda cupy: rehearsal.cublas_library())
    backend = cupy_fused.FusedCupyBackend()
    monkeypatch.setitem(backends._made, "cupy", backend)
    with xpdl.use_backend(backend):
        yield backend
    rehearsal.make_cupy()  # memory without end, for the tests that follow


def images(n: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (n, 1, 28, 28), dtype=np.uint8), rng.integers(0, 10, n)


def suggestion(error: BaseException) -> int:
    found = re.search(r"A batch of ([\d,]+) should fit", str(error))
    assert found, str(error)
    return int(found.group(1).replace(",", ""))


def train(batch_size: int, dtype: str = "float32", **options: Any) -> Trainer:
    trainer = Trainer(
        DeepConvNet(dtype=dtype, normalize=Normalize(255)),
        images(4 * batch_size),
        batch_size=batch_size,
        progress=False,
        **{"epochs": 1} | options,
    )
    trainer.fit()
    return trainer


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_batch_that_is_said_to_fit_does(small_device: Any, dtype: str) -> None:

    with pytest.raises(DeviceMemoryError) as caught:
        train(1000, dtype)
    message = str(caught.value)
    assert message.count("\n") == 0
    assert re.search(r"DeepConvNet ran out of memory on cupy with a batch of 1,000", message)
    assert re.search(r"[\d,]+ bytes were asked for, [\d.]+ MB are free without it", message)
    fits = suggestion(caught.value)
    caught.value.__traceback__ = caught.value.__cause__ = None
    train(fits, dtype)
    with pytest.raises(DeviceMemoryError):
        train(3 * fits, dtype)  # nor is it far too small


def test_a_step_too_large_to_capture_still_trains(small_device: Any, monkeypatch: Any) -> None:
    capture = small_device.capture

    def capture_more(step: Any, *arrays: Any) -> Any:
        def larger(*parts: Any) -> Any:
            kept = [small_device.xp.zeros(MEGABYTE, np.uint8) for _ in range(40)]
            return step(*parts), kept

        return capture(larger, *arrays)

    monkeypatch.setattr(small_device, "capture", capture_more)
    with pytest.warns(UserWarning, match=r"cannot be captured.*memory.*as it stands"):
        trainer = train(60, epochs=2)
    assert trainer.optimizer.iteration == 8
    assert np.isfinite(trainer.history.losses).all()


def test_captured_steps_give_their_memory_back(small_device: Any) -> None:
    """Each epoch has a captured step of its own; CuPy's pools do not free what they hold."""
    free: list[int] = []
    train(4, epochs=5, callbacks=[lambda *_: free.append(small_device.free_memory())])
    assert len(set(free[1:])) == 1, free


def test_prediction_says_so_too(small_device: Any) -> None:
    network = DeepConvNet()
    x = small_device.asarray(np.zeros((2000, 1, 28, 28), np.float32))
    with pytest.raises(DeviceMemoryError, match="batch of 2,000") as caught:
        network.predict(x, batch_size=2000)
    fits = suggestion(caught.value)
    caught.value.__traceback__ = caught.value.__cause__ = None
    assert network.predict(x, batch_size=fits).shape == (2000, 10)


def test_a_network_that_never_fits_is_told_so(small_device: Any) -> None:
    x = small_device.asarray(np.zeros((1, 1, 2000, 2000), np.float32))
    layers = [xpdl.layers.Convolution(8, 3), xpdl.layers.GlobalAveragePooling()]
    with pytest.raises(DeviceMemoryError, match="Not even a batch of 1"):
        xpdl.Network(layers, (1, 2000, 2000)).predict(x)


def test_numpys_own_lack_of_memory_reads_alike(monkeypatch: Any) -> None:
    with xpdl.use_backend("numpy") as numpy:
        network = DeepConvNet()

        def full(*_: Any, **__: Any) -> None:
            raise MemoryError("Unable to allocate 7.45 GiB for an array with shape (1000,)")

        monkeypatch.setattr(type(numpy), "convolution", full)
        with pytest.raises(DeviceMemoryError, match=r"7\.45 GiB were asked for"):
            network.predict(np.zeros((5, 1, 28, 28), np.float32))
        assert isinstance(DeviceMemoryError(), MemoryError)
