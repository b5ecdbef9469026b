"""Which backend is active, which one an array lives on, and what is said when that goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import xpdl
from xpdl import backends
from xpdl.backends import (
    BACKEND_NAMES,
    Backend,
    array_module,
    available_backends,
    backend_of,
    get_backend,
    use_backend,
)
from xpdl.backends.numpy.backend import NumpyBackend
from xpdl.backends.providers import PRIMITIVES
from xpdl.errors import (
    BackendMismatchError,
    BackendUnavailableError,
    DTypeError,
    UnknownNameError,
)

ROOT = Path(xpdl.__file__).parents[1]


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """As after `import xpdl`: nothing chosen, nothing made, no variable set."""
    monkeypatch.setattr(backends, "_made", {})
    monkeypatch.setattr(backends, "_main_choice", None)
    monkeypatch.setattr(backends, "_default", None)
    monkeypatch.delenv("XPDL_BACKEND", raising=False)
    monkeypatch.setitem(sys.modules, "cupy", None)  # not installed, wherever this runs


def in_thread(function):
    """Return what `function` returns in a thread of its own."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(function()))
    thread.start()
    thread.join(30)
    return answers[0]


def active():
    return get_backend().name


# ---- the variable ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["numpy", "strict", "generic"])
def test_the_variable_chooses(monkeypatch, name):
    monkeypatch.setenv("XPDL_BACKEND", name)
    assert active() == name


@pytest.mark.parametrize("empty", [True, False])
def test_numpy_is_the_default(monkeypatch, empty):
    if empty:
        monkeypatch.setenv("XPDL_BACKEND", "")
    assert active() == "numpy"


def test_the_variable_is_read_at_the_first_question(monkeypatch):
    monkeypatch.setenv("XPDL_BACKEND", "strict")
    assert active() == "strict"
    monkeypatch.setenv("XPDL_BACKEND", "generic")
    assert active() == "strict"


def test_a_choice_goes_before_the_variable_even_a_bad_one(monkeypatch):
    monkeypatch.setenv("XPDL_BACKEND", "nonsense")
    with use_backend("generic"):
        assert active() == "generic"


def test_nonsense_in_the_variable_lists_the_choices(monkeypatch):
    monkeypatch.setenv("XPDL_BACKEND", "nonsense")
    with pytest.raises(UnknownNameError) as caught:
        get_backend()
    for word in ("XPDL_BACKEND", "'nonsense'", *BACKEND_NAMES):
        assert word in str(caught.value)
    monkeypatch.setenv("XPDL_BACKEND", "strict")
    assert active() == "strict"


def test_cupy_in_the_variable_where_there_is_none(monkeypatch):
    monkeypatch.setenv("XPDL_BACKEND", "cupy")
    with pytest.raises(BackendUnavailableError, match="pip install"):
        get_backend()


# ---- use_backend ----------------------------------------------------------------------------


def test_a_call_holds_from_now_on():
    use_backend("generic")
    assert active() == "generic"
    use_backend("strict")
    assert active() == "strict"


def test_a_block_holds_for_the_block():
    use_backend("generic")
    with use_backend("strict") as backend:
        assert backend is get_backend()
        assert active() == "strict"
        with use_backend("numpy"):
            assert active() == "numpy"
        assert active() == "strict"
    assert active() == "generic"


def test_a_block_within_nothing_ends_in_the_default(monkeypatch):
    with use_backend("strict"):
        pass
    monkeypatch.setenv("XPDL_BACKEND", "generic")
    assert active() == "generic"


def test_a_call_within_a_block_ends_with_the_block():
    with use_backend("strict"):
        use_backend("generic")
        assert active() == "generic"
    assert active() == "numpy"


def test_an_exception_ends_a_block_too():
    with pytest.raises(ZeroDivisionError), use_backend("strict"), use_backend("generic"):
        raise ZeroDivisionError
    assert active() == "numpy"


def test_a_choice_can_be_entered_again():
    choice = use_backend("strict")
    for _ in range(2):
        with choice:
            assert active() == "strict"
        assert active() == "numpy"


def test_a_backend_itself_can_be_chosen():
    mine = Backend()
    with use_backend(mine) as chosen:
        assert chosen is mine
        assert get_backend() is mine


@pytest.mark.parametrize("bad", ["nonsense", "", "NUMPY", None, 3, ["numpy"]])
def test_an_unknown_name_leaves_the_choice(bad):
    use_backend("generic")
    with pytest.raises(
        UnknownNameError, match=r"unknown backend .*numpy, numba, cupy, strict, generic"
    ):
        use_backend(bad)
    assert active() == "generic"


def test_a_near_miss_is_guessed():
    for given_, meant in (("nunpy", "numpy"), ("CUPY", "cupy")):
        with pytest.raises(UnknownNameError, match=f"Did you mean '{meant}'"):
            use_backend(given_)
    with pytest.raises(UnknownNameError) as caught:
        use_backend("xxxxxxxx")
    assert "mean" not in str(caught.value)


def test_an_unavailable_backend_leaves_the_choice():
    use_backend("generic")
    for _ in range(2):
        with pytest.raises(BackendUnavailableError):
            use_backend("cupy")
        with pytest.raises(BackendUnavailableError), use_backend("cupy"):
            pass
        assert active() == "generic"


def test_a_backend_can_be_had_without_being_chosen():
    assert get_backend("strict").name == "strict"
    assert active() == "numpy"
    with pytest.raises(UnknownNameError):
        get_backend("nonsense")


def test_there_is_one_backend_of_a_name():
    for name in ("numpy", "strict", "generic"):
        assert get_backend(name) is get_backend(name)
        with use_backend(name) as chosen:
            assert chosen is get_backend(name) is get_backend()


# ---- what there is --------------------------------------------------------------------------


def test_available_backends_says_why_not():
    states = available_backends()
    assert tuple(states) == BACKEND_NAMES
    ready = {name for name, state in states.items() if state == "ready"}
    assert ready - {"numba"} == {"numpy", "strict", "generic"}
    assert "numba" in ready or "pip install 'xpdl[numba]'" in states["numba"]
    assert "not installed" in states["cupy"]


def test_asking_what_there_is_chooses_nothing(monkeypatch):
    monkeypatch.setenv("XPDL_BACKEND", "nonsense")
    available_backends()
    monkeypatch.setenv("XPDL_BACKEND", "strict")
    assert active() == "strict"


# ---- arrays decide --------------------------------------------------------------------------


def test_an_array_knows_its_backend_whatever_is_active():
    host = np.zeros(3, np.float32)
    there = get_backend("strict").asarray(host)
    for name in ("numpy", "strict", "generic"):
        with use_backend(name):
            assert backend_of(there).name == "strict"
            # The plain backend claims NumPy's arrays where it was asked for.
            assert backend_of(host).name == ("generic" if name == "generic" else "numpy")


@pytest.mark.parametrize("active_name", ["numpy", "strict", "generic"])
@pytest.mark.parametrize("swap", [False, True])
def test_two_backends_in_one_call_are_named_with_the_fix(active_name, swap):
    host = np.zeros((4, 5), np.float32)
    there = get_backend("strict").asarray(host)
    pair = (there, host) if swap else (host, there)
    with use_backend(active_name), pytest.raises(BackendMismatchError) as caught:
        backend_of(None, pair[0], pair[0], pair[1])
    message = str(caught.value)
    of_host = "generic" if active_name == "generic" else "numpy"
    for word in (f"'{of_host}'", "'strict'", "(4, 5)", "xpdl.asarray", "xpdl.to_numpy"):
        assert word in message
    assert "network.to(" in message


@pytest.mark.parametrize("function", [backend_of, array_module])
def test_what_is_no_array_is_named(function):
    with pytest.raises(DTypeError, match=r"got float, list, NoneType; .*xpdl\.asarray"):
        function(2.5, [1, 2], None)
    with pytest.raises(DTypeError, match="got float32;"):
        function(np.float32(1))
    with pytest.raises(DTypeError, match="got nothing;"):
        function()


def test_the_short_names():
    with use_backend("strict"):
        x = xpdl.asarray([1, 2], np.float32)
        assert backend_of(x).name == "strict"
    np.testing.assert_array_equal(xpdl.to_numpy(x), np.array([1, 2], np.float32), strict=True)
    with pytest.raises(BackendMismatchError, match=r"xpdl\.to_numpy"):
        xpdl.asarray(x)


# ---- threads --------------------------------------------------------------------------------


def test_a_thread_follows_the_main_thread():
    assert in_thread(active) == "numpy"
    with use_backend("strict"):
        assert in_thread(active) == "strict"
    assert in_thread(active) == "numpy"


def test_a_thread_follows_the_variable_where_nobody_chose(monkeypatch):
    monkeypatch.setenv("XPDL_BACKEND", "generic")
    assert in_thread(active) == "generic"


def test_a_running_thread_follows_a_later_choice():
    asked, chosen, seen = threading.Event(), threading.Event(), []

    def follow():
        seen.append(active())
        asked.set()
        assert chosen.wait(10)
        seen.append(active())

    thread = threading.Thread(target=follow)
    thread.start()
    assert asked.wait(10)
    use_backend("strict")
    chosen.set()
    thread.join(10)
    assert seen == ["numpy", "strict"]


def test_a_threads_own_choice_is_its_own():
    def choose():
        seen = []
        with use_backend("generic"):
            seen.append(active())
            with use_backend("numpy"):
                seen.append(active())
            seen.append(active())
        seen.append(active())
        use_backend("generic")
        return [*seen, active()]

    with use_backend("strict"):
        assert in_thread(choose) == ["generic", "numpy", "generic", "strict", "generic"]
        assert active() == "strict"
        assert in_thread(active) == "strict"


def test_many_threads_asking_first_get_one_backend(monkeypatch):
    made = []

    def slow(self):
        made.append(self)
        time.sleep(0.05)

    monkeypatch.setattr(NumpyBackend, "__init__", slow, raising=False)
    start, answers = threading.Barrier(16), []

    def ask():
        start.wait(10)
        answers.append(get_backend())

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(answers) == 16
    assert len(set(map(id, answers))) == len(made) == 1


# ---- CuPy is left alone ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "numpy", "strict", "generic"])
def test_cupy_is_not_imported_unless_asked_for(tmp_path, name):
    (tmp_path / "cupy.py").write_text("raise SystemExit('cupy was imported')")
    code = (
        "import sys, numpy as np, xpdl\n"
        "x = xpdl.asarray(np.ones((1, 1, 4, 4), np.float32))\n"
        "backend = xpdl.backend_of(x, None, 3)\n"
        "backend.relu(backend.max_pooling(x, (2, 2), (2, 2), (0, 0))[0])\n"
        "print(backend.name, 'cupy' in sys.modules)\n"
        "xpdl.use_backend('cupy')\n"
    )
    environment = os.environ | {
        "XPDL_BACKEND": name,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == f"{name or 'numpy'} False\n", done.stderr
    assert "cupy was imported" in done.stderr  # now it was asked for


# ---- who computes what ----------------------------------------------------------------------


def test_what_is_compiled_is_compiled_for_float32():
    if available_backends()["numba"] != "ready":
        pytest.skip(available_backends()["numba"])
    numba = get_backend("numba")
    assert numba.providers("float32")["convolution"] == "numba"
    assert numba.providers("float64")["convolution"] == "numpy"
    assert numba.providers("float16")["convolution"] == "numba"  # computed in float32
    for primitive in ("max_pooling", "moments", "normalize", "normalize_backward"):
        assert numba.providers("float32")[primitive] == "numba"
        widened = primitive == "max_pooling"  # by NumPy's, which then asks for float32's
        assert numba.providers("float16")[primitive] == ("numba" if widened else "numpy")


def test_every_override_is_a_primitive_or_about_arrays():
    arrays = {"asarray", "to_numpy", "item", "owns", "has_room_for", "synchronize", "generator"}
    arrays |= {"free_memory", "release", "compile_step", "compiles", "capture", "provider"}
    for name in BACKEND_NAMES:
        if available_backends()[name] == "ready":
            kind = type(get_backend(name))
            public = {key for key in vars(kind) if not key.startswith("_")}
            if kind is not Backend:
                about = {"name", "xp", "array_type", "describe", "ways", "providers", "transfers"}
                assert public <= arrays | about | set(PRIMITIVES)
