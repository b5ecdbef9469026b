"""The CuPy backend where there is no GPU: why not, in a sentence; and its code, over a stand-in."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import xpdl
from xpdl import backends
from xpdl.backends import available_backends, backend_of, get_backend, use_backend
from xpdl.errors import BackendMismatchError, BackendUnavailableError

ROOT = Path(xpdl.__file__).parents[1]


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(backends, "_made", {})
    monkeypatch.setattr(backends, "_main_choice", None)
    monkeypatch.setattr(backends, "_default", None)
    monkeypatch.delenv("XPDL_BACKEND", raising=False)


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Return a function that installs a package `cupy` of a given source."""
    before = {name for name in sys.modules if name.split(".")[0] == "cupy"}
    for name in before:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)

    def install(source):
        (tmp_path / "cupy").mkdir()
        if source is not None:
            (tmp_path / "cupy" / "__init__.py").write_text(source)

    yield install
    for name in [name for name in sys.modules if name.split(".")[0] == "cupy"]:
        del sys.modules[name]


RUNTIME = """
__version__ = "14.2.0"
class runtime:
    @staticmethod
    def getDeviceCount():
        {body}
class cuda:
    runtime = runtime
ndarray = type("ndarray", (), {{}})
"""
CASES = {
    "needs another module": ("import no_such_module_of_cupys", ["installed", "no_such_module"]),
    "a library is missing": (
        "raise ImportError('libcublas.so.13: cannot open shared object file')",
        ["installed", "libcublas.so.13", "reinstall", "pip install"],
    ),
    "CuPy's own banner": (
        "raise ImportError('''\n========\nFailed to import CuPy.\n\nOriginal error:\n"
        "  ImportError: libcuda.so.1\n========\n''')",
        ["installed", "Failed to import CuPy", "libcuda.so.1", "pip install"],
    ),
    "anything at all": (
        "raise ZeroDivisionError('of all things')",
        ["installed", "ZeroDivisionError", "of all things", "pip install"],
    ),
    "no driver": (
        RUNTIME.format(body="raise RuntimeError('cudaErrorInsufficientDriver: too old')"),
        ["14.2.0", "finds no CUDA GPU", "cudaErrorInsufficientDriver", "driver", "pip install"],
    ),
    "no device": (
        RUNTIME.format(body="return 0"),
        ["14.2.0", "finds no CUDA GPU", "CUDA_VISIBLE_DEVICES"],
    ),
    # What `pip uninstall` leaves of a package whose folder held other files.
    "an empty folder": (None, ["installed"]),
}


def check(error, words):
    message = str(error)
    assert message.startswith("CuPy ")
    assert message.endswith(".")
    assert "\n" not in message, "one sentence, on one line"
    for word in words:
        assert word in message


def test_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    words = ["not installed", "pip install 'xpdl[cuda13]'", "xpdl[cuda12]"]
    with pytest.raises(BackendUnavailableError) as caught:
        get_backend("cupy")
    check(caught.value, words)
    check(available_backends()["cupy"], words)


@pytest.mark.parametrize(("source", "words"), CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("how", ["get", "use", "variable", "available"])
def test_why_it_cannot_be_used(monkeypatch, installed, source, words, how):
    installed(source)
    if how == "available":
        check(available_backends()["cupy"], words)
        return
    monkeypatch.setenv("XPDL_BACKEND", "cupy")
    with pytest.raises(BackendUnavailableError) as caught:
        {
            "get": lambda: get_backend("cupy"),
            "use": lambda: use_backend("cupy"),
            "variable": get_backend,
        }[how]()
    check(caught.value, words)


def test_ctrl_c_during_the_import_is_not_swallowed(installed):
    installed("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        get_backend("cupy")


def test_the_class_is_there_without_cupy():
    code = (
        "import sys; sys.modules['cupy'] = None\n"
        "from xpdl.backends.cupy.backend import CupyBackend\n"
        "print(CupyBackend.name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "cupy\n", done.stderr


class OnAGpu:
    """As much of a GPU array as can be seen without one."""

    __cuda_array_interface__ = None
    shape = (2,)


def test_a_gpu_array_is_told_from_a_host_array(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    for name in ("numpy", "generic", "strict"):
        with pytest.raises(BackendMismatchError, match=r"another device.*xpdl\.to_numpy"):
            get_backend(name).asarray(OnAGpu())
    with pytest.raises(BackendUnavailableError, match="CuPy is not installed"):
        backend_of(OnAGpu())


# ---- the backend's own code, over NumPy by the name of CuPy -----------------------------------


class Stream:
    waited = 0

    def synchronize(self):
        Stream.waited += 1


class Runtime:
    @staticmethod
    def getDeviceCount():
        return 1

    @staticmethod
    def getDeviceProperties(device):
        return {"name": f"Imagined GPU {device}".encode()}

    @staticmethod
    def memGetInfo():
        return 3 * 2**30, 80 * 2**30

    @staticmethod
    def runtimeGetVersion():
        return 13020


@pytest.fixture
def imagined(monkeypatch):
    """The CuPy backend, over a module that has CuPy's names and NumPy's arrays."""
    module = types.ModuleType("cupy")
    module.__dict__.update({k: v for k, v in vars(np).items() if not k.startswith("__")})
    module.__version__ = "14.2.0"
    module.asnumpy = lambda a: np.array(a)
    module.cuda = types.SimpleNamespace(
        runtime=Runtime,
        get_current_stream=Stream,
        Device=lambda: types.SimpleNamespace(id=5),
    )
    seeds = []

    def default_rng(seed):
        # CuPy's generators take one integer that fits 64 bits, and no sequence.
        assert type(seed) is int
        assert 0 <= seed < 2**64
        seeds.append(seed)
        return np.random.default_rng(seed)

    module.random = types.SimpleNamespace(default_rng=default_rng)
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setenv("XPDL_PROVIDER", "generic")  # the other wants a compiler: see `rehearsal`
    backend = get_backend("cupy")
    backend.seeds = seeds
    return backend


def test_a_working_cupy_is_ready(imagined):
    assert available_backends()["cupy"] == "ready"
    assert imagined.xp.__name__ == "cupy"
    with use_backend("cupy") as chosen:
        assert chosen is imagined is get_backend()


def test_numbers_come_to_the_host_by_asnumpy(imagined, monkeypatch):
    came = []
    monkeypatch.setattr(imagined.xp, "asnumpy", lambda a: came.append(a) or np.array(a))
    x = np.arange(3)
    assert imagined.to_numpy(x) is not x
    assert imagined.item(x[:1]) == 0
    assert len(came) == 2


def test_waiting_means_the_current_stream(imagined):
    before = Stream.waited
    imagined.synchronize()
    assert Stream.waited == before + 1


def test_seeds_are_one_integer_and_tell_apart(imagined):
    for seed in (0, 1, 2**70, [0], [1, 2], [2, 1], (1, 2, 3)):
        imagined.generator(seed)
    imagined.generator([1, 2])
    assert imagined.seeds[-1] == imagined.seeds[4]
    # NumPy takes [n] for n.
    assert len(set(imagined.seeds[:-1])) == 6


def test_half_precision_products_are_left_to_the_device(imagined, monkeypatch):
    seen = []

    def matmul(a, b):
        seen.append((a.dtype, b.dtype))
        return np.matmul(a, b)

    monkeypatch.setattr(imagined.xp, "matmul", matmul)
    ones = np.ones((2, 2), np.float16)
    assert imagined.matmul(ones, ones).dtype == np.float16
    assert seen == [(np.float16, np.float16)]


def test_the_device_describes_itself(imagined):
    text = imagined.describe()
    assert text["CuPy"] == "14.2.0"
    assert text["device"] == "Imagined GPU 5"
    assert text["device memory"] == "3.0 GiB free of 80.0 GiB"
    assert "13020" in text["CUDA"]
