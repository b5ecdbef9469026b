"""`import xpdl` is light: no optional library, no network, and not twice the time of NumPy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import xpdl

ROOT = Path(xpdl.__file__).parents[1]
HEAVY = {
    "PIL", "concurrent.futures", "cupy", "http", "http.client", "matplotlib", "mpi4py",
    "multiprocessing", "pandas", "pytest", "safetensors", "scipy", "socket", "ssl", "threadpoolctl",
    "torch", "tqdm", "urllib.request",
}  # fmt: skip


def run(code, **variables):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("XPDL_", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def modules(package):
    return set(run(f"import {package}, sys; print(*sys.modules)").split())


def test_nothing_heavy_is_loaded():
    everything = "import sys, xpdl; [getattr(xpdl, name) for name in xpdl.__all__]"
    loaded = set(run(f"{everything}; print(*sys.modules)").split())
    assert "xpdl.training.trainer" in loaded  # the whole package was imported
    assert sorted((loaded - modules("numpy")) & HEAVY) == []


def test_nothing_heavy_is_loaded_by_computing_on_numpy():
    code = (
        "import numpy as np, sys, xpdl\n"
        "x = xpdl.asarray(np.ones((2, 1, 6, 6), np.float32))\n"
        "xpdl.backend_of(x).max_pooling(x, (2, 2), (2, 2), (0, 0))\n"
        "print(*{'cupy', 'matplotlib', 'PIL', 'safetensors', 'tqdm', 'torch'} & set(sys.modules))"
    )
    assert run(code).split() == []


@pytest.mark.parametrize("name", ["nonsense", "cupy", "strict"])
def test_importing_asks_for_no_backend(name):
    # A wrong setting is reported by what needs a backend, not by the import.
    assert run("import xpdl; print(xpdl.__version__)", XPDL_BACKEND=name).strip()


def test_importing_prints_warns_and_writes_nothing(tmp_path):
    code = (
        f"import os; os.chdir({str(tmp_path)!r}); import warnings; warnings.simplefilter('error')"
    )
    assert run(f"{code}; import xpdl") == ""
    assert list(tmp_path.iterdir()) == []


def test_every_public_name_is_there():
    for name in xpdl.__all__:
        assert getattr(xpdl, name) is not None
    assert xpdl.__all__ == sorted(xpdl.__all__)


def test_importing_takes_less_than_twice_the_time_of_numpy():
    def seconds(package):
        return float(
            run(f"import time; t = time.perf_counter(); import {package}; "
                "print(time.perf_counter() - t)")
        )  # fmt: skip

    seconds("xpdl")  # writes the compiled files
    # The machine's other work only ever adds time, so the least of several is what it takes; taken
    # in turn, both see the same machine.
    numpy_takes, xpdl_takes = [], []
    for _ in range(40):
        numpy_takes.append(seconds("numpy"))
        xpdl_takes.append(seconds("xpdl"))
        if len(numpy_takes) >= 5 and min(xpdl_takes) < 2 * min(numpy_takes):
            break
    assert min(xpdl_takes) < 2 * min(numpy_takes)
