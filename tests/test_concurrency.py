"""Threads and processes side by side: each gives, to the last bit, what it gives alone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import workloads

import xpdl
from xpdl.backends import available_backends
from xpdl.tuning import Ensemble, ShiftAverage

STATE = available_backends()

ROOT = Path(xpdl.__file__).parents[1]
LIMIT = 100  # seconds, after which what has not ended hangs

needs_numba = pytest.mark.skipif(STATE["numba"] != "ready", reason="no Numba")
NUMBA = pytest.param("numba", marks=needs_numba)
BACKENDS = ["numpy", NUMBA, "generic", "strict"]


@pytest.fixture(params=[None, 1e-6], ids=["as usual", "switching"])
def switching(request: pytest.FixtureRequest) -> Iterator[None]:
    """Python's threads as they take turns, and taking turns at every chance."""
    before = sys.getswitchinterval()
    if request.param:
        sys.setswitchinterval(request.param)
    yield
    sys.setswitchinterval(before)


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """Return what functions return that begin at the same time, each in a thread of its own."""
    start = threading.Barrier(len(works))
    results: list[Any] = [None] * len(works)
    errors: list[BaseException] = []

    def run(i: int) -> None:
        try:
            start.wait(LIMIT)
            results[i] = works[i]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert not any(thread.is_alive() for thread in threads), "threads wait for each other"
    if errors:
        raise errors[0]
    return results


@cache
def trained_alone(backend: str, seed: int) -> dict[str, bytes]:
    return workloads.trained_content(backend, seed)


@cache
def trained(backend: str, seed: int, dtype: str = "float32") -> xpdl.Network:
    return workloads.train(backend, seed, dtype=dtype)


# ---- trainings ------------------------------------------------------------------------------


def test_seeds_and_backends_can_be_told_apart():
    # Else the tests below could not fail.
    assert trained_alone("numpy", 1) != trained_alone("numpy", 2)
    assert trained_alone("numpy", 1) != trained_alone("generic", 1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_trainings_give_what_each_gives_alone(backend, switching):
    wanted = [trained_alone(backend, seed) for seed in (1, 2)]
    got = at_once(*(lambda seed=seed: workloads.trained_content(backend, seed) for seed in (1, 2)))
    assert got == wanted


@needs_numba
def test_two_trainings_on_two_backends(switching):
    # The backends `generic` and `strict` are left out. They let BLAS share its products among
    # threads, how many of which there are `numpy` decides for all while it computes; and how a
    # product is shared shows in the last bits.
    backends = ("numpy", "numba")
    wanted = [trained_alone(backend, 1) for backend in backends]
    got = at_once(*(lambda name=name: workloads.trained_content(name, 1) for name in backends))
    assert got == wanted


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_network_trains_while_another_predicts(backend, switching):
    wanted, network = trained_alone(backend, 1), trained(backend, 2)
    answers, over = workloads.scores(network), threading.Event()

    def train():
        try:
            return workloads.trained_content(backend, 1)
        finally:
            over.set()

    def predict():
        said = {workloads.scores(network)}
        while not over.is_set():
            said.add(workloads.scores(network))
        return said

    assert at_once(train, predict) == [wanted, {answers}]


# ---- predictions ----------------------------------------------------------------------------


def answering(kind: str, backend: str) -> Any:
    """Return something with a `predict`; batch normalisation and dropout are in each of them."""
    if kind == "a network":
        return trained(backend, 1)
    if kind == "a network in half precision":
        return trained(backend, 1, "float16")
    if kind == "an average over shifts":
        return ShiftAverage(trained(backend, 1))
    return Ensemble([trained(backend, 2), trained(backend, 1, "float16")])


@pytest.mark.parametrize(
    "kind",
    ["a network", "a network in half precision", "an average over shifts", "an ensemble"],
)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("switching", [1e-6], indirect=True, ids=["switching"])
def test_eight_threads_predict_as_one(backend, kind, switching, monkeypatch):
    monkeypatch.setenv("XPDL_THREADS", "3")
    # Where there are threads, enough for each of them.
    count, batch, times = (50, 40, 2) if backend in ("numpy", "numba") else (10, 3, 1)
    with xpdl.use_backend(backend) as active:
        model, x = answering(kind, backend), active.asarray(workloads.pictures(count)[0])

        def predict(k: int) -> bytes:  # each thread has pictures and batches of its own
            return active.to_numpy(model.predict(x[k:], batch_size=batch + k)).tobytes()

        wanted = [predict(k) for k in range(8)]
        assert len(set(wanted)) == 8
        got = at_once(*(lambda k=k: [predict(k) for _ in range(times)] for k in range(8)))
    assert got == [[answer] * times for answer in wanted]


# ---- processes ------------------------------------------------------------------------------


def play(situation: str, backend: str, children: int, timeout: float = LIMIT) -> None:
    """Play one of the situations of `workloads`, in a process without pytest's threads."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "XPDL_THREADS": "3",  # helpers there are, on one core too
        # Where there are threads Python 3.12 warns of a fork; whether it is right is tested here.
        "PYTHONWARNINGS": "ignore::DeprecationWarning",
    }
    command = [sys.executable, workloads.__file__, situation, backend, str(children)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stderr


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.mark.parametrize(
    ("method", "backend"),
    [
        pytest.param("fork", "numpy", marks=forks),
        pytest.param("fork", "numba", marks=[forks, needs_numba]),
        ("spawn", "numpy"),
        pytest.param("spawn", "numba", marks=[needs_numba, pytest.mark.slow]),
    ],
)
def test_workers_after_a_training_give_what_the_parent_gives(method, backend):
    play(method, backend, 2)


@forks
@pytest.mark.parametrize("backend", ["numpy", NUMBA])
def test_a_child_forked_while_threads_compute_can_compute(backend):
    # Not on `generic`, whose products are shared among the threads of BLAS: OpenBLAS forgets in a
    # child that they are gone.
    play("busy", backend, 4)


@forks
@pytest.mark.parametrize("backend", ["numpy", NUMBA])
def test_a_fork_waits_for_whoever_has_a_lock(backend):
    play("locked", backend, 2)


@forks
def test_in_a_child_nobody_else_limits_blas():
    play("limited", "numpy", 2)


@forks
def test_a_child_follows_the_choice_of_the_thread_that_forked_it():
    # That thread is the child's main thread, whose choice others follow, and can change.
    play("choosing", "numpy", 2)


@forks
@pytest.mark.slow
@pytest.mark.parametrize("backend", ["numpy", NUMBA])
def test_none_of_many_children_forked_while_threads_compute_hangs(backend):
    play("busy", backend, 150, timeout=600)


@forks
@pytest.mark.parametrize("backend", ["numpy", NUMBA])
def test_a_killed_child_does_the_parent_no_harm(backend):
    play("killed", backend, 1)
