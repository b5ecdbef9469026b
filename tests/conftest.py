"""What all tests share: the backends, one seed, and a clean choice of backend."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rehearsal
from hypothesis import HealthCheck, settings
from small_digits import load_small

import xpdl
from xpdl import backends
from xpdl.backends import Backend, available_backends
from xpdl.backends.cupy import fused as cupy_fused

settings.register_profile(
    "xpdl",
    deadline=None,
    max_examples=60,
    derandomize=True,
    # The backend fixture only chooses a device; examples may share it.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("xpdl")


STATE = available_backends()
NO_GPU = STATE["cupy"]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, visibly and in one line of the report, what needs a GPU where there is none."""
    if item.get_closest_marker("gpu") and NO_GPU != "ready":
        pytest.skip(f"no GPU: {NO_GPU}")


REHEARSED = "cupy-on-cpu"
BACKENDS = [
    "numpy",
    "numba",
    "strict",
    "generic",
    REHEARSED,
    pytest.param("cupy", marks=pytest.mark.gpu),
]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Each backend in turn, active for the test; the CuPy backend also with its GPU rehearsed."""
    if request.param == "numba" and STATE["numba"] != "ready":
        pytest.skip(STATE["numba"])
    chosen = request.param
    if chosen == REHEARSED:
        chosen = request.getfixturevalue("rehearsed")
    with xpdl.use_backend(chosen) as active:
        yield active


@pytest.fixture
def on_numpy() -> Iterator[None]:
    """NumPy's backend, whatever is chosen: for what is no matter of the backend."""
    with xpdl.use_backend("numpy"):
        yield


@pytest.fixture
def rehearsed(monkeypatch: pytest.MonkeyPatch) -> Backend:
    """The CuPy backend, its CUDA kernels compiled by g++ and run on this CPU; see `rehearsal`."""
    if rehearsal.why_not():
        pytest.skip(f"no rehearsal of the GPU: {rehearsal.why_not()}")
    backend = _rehearsed_backend()
    monkeypatch.setitem(backends._made, "cupy", backend)
    return backend


@cache
def _rehearsed_backend() -> Backend:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cupy", rehearsal.make_cupy())
        patch.setattr(cupy_fused, "load_cublas", lambda cupy: rehearsal.cublas_library())
        return cupy_fused.FusedCupyBackend()


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers on the host, the same in every run."""
    return np.random.default_rng(20160924)


@pytest.fixture(autouse=True)
def _no_float_surprises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's own settings out of the tests, but for the backend under test."""
    monkeypatch.delenv("XPDL_DTYPE", raising=False)


@pytest.fixture
def small_mnist(monkeypatch: Any, tmp_path: Path) -> Path:
    """A folder to work in, where the command finds a small made-up MNIST."""
    from xpdl.runs import preparation

    monkeypatch.setitem(preparation.LOADERS, "mnist", load_small)
    monkeypatch.setitem(preparation.LOADERS, "fashion-mnist", load_small)
    monkeypatch.chdir(tmp_path)
    return tmp_path
