"""Work shared among threads: each part done once, and BLAS as it was found."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl
from hypothesis import given
from hypothesis import strategies as st

import xpdl
from xpdl.backends import get_backend
from xpdl.backends.numpy import backend as numpy_backend
from xpdl.backends.numpy import convolution as numpy_convolution
from xpdl.backends.numpy.threads import SingleThreadedBlas, Workers, thread_count
from xpdl.errors import ArgumentError

ROOT = Path(xpdl.__file__).parents[1]


def blas_threads():
    """Return the number of threads of every BLAS that is loaded."""
    return [
        library["num_threads"]
        for library in threadpoolctl.threadpool_info()
        if library["user_api"] == "blas"
    ]


def release_control():
    """Let any thread set BLAS's threads: threadpoolctl 3.8 leaves that to the first that did."""
    clear = getattr(threadpoolctl.OpenBLASController, "clear_controlling_thread", None)
    if clear:
        clear(force=True)


@pytest.fixture
def two_blas_threads():
    """Start from a BLAS of two threads, so that one and the number before can be told apart."""
    release_control()
    limits = threadpoolctl.threadpool_limits(2, user_api="blas")
    release_control()
    if set(blas_threads()) != {2}:
        pytest.skip("no BLAS here whose threads can be counted")
    yield
    release_control()
    limits.restore_original_limits()
    release_control()


@pytest.fixture
def workers():
    return Workers()


# ---- the number of threads ------------------------------------------------------------------


@pytest.mark.parametrize(("text", "count"), [("1", 1), ("2", 2), ("16", 16), ("007", 7)])
def test_xpdl_threads_is_obeyed(monkeypatch, text, count):
    monkeypatch.setenv("XPDL_THREADS", text)
    assert thread_count() == count


@pytest.mark.parametrize("text", ["0", "-1", "+2", "two", "1.5", "1e3", " ", "2 ", "²", "1_0"])
def test_a_bad_number_of_threads_is_named(monkeypatch, workers, text):
    monkeypatch.setenv("XPDL_THREADS", text)
    with pytest.raises(ArgumentError, match=r"XPDL_THREADS.*at least 1") as caught:
        workers.each(range(4), lambda task: None)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", [None, ""])
def test_else_the_cores_we_may_use(monkeypatch, text):
    if text is None:
        monkeypatch.delenv("XPDL_THREADS", raising=False)
    else:
        monkeypatch.setenv("XPDL_THREADS", text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 4, 7}, raising=False)
    assert thread_count() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert thread_count() == 5
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert thread_count() == 1


# ---- the tasks ------------------------------------------------------------------------------


SHARED = Workers()


@given(count=st.integers(0, 40), threads=st.integers(1, 9))
def test_each_task_is_done_once_and_results_come_in_order(count, threads):
    done = []

    def work(task):
        done.append(task)
        return 10 * task

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XPDL_THREADS", str(threads))
        results = SHARED.each(range(count), work)
    assert sorted(done) == list(range(count))
    assert results == [10 * task for task in range(count)]


def test_results_come_in_order_though_the_first_is_last_to_finish(monkeypatch, workers):
    monkeypatch.setenv("XPDL_THREADS", "3")
    later = threading.Event()

    def work(task):
        if task == "a":
            assert later.wait(10)
        elif task == "c":
            later.set()
        return task

    assert workers.each("abc", work) == ["a", "b", "c"]


@pytest.mark.parametrize("before", [None, "2"])
def test_as_many_threads_as_asked_for_run_side_by_side(monkeypatch, workers, before):
    if before:  # the number is read at each call
        monkeypatch.setenv("XPDL_THREADS", before)
        workers.each(range(8), lambda task: None)
    monkeypatch.setenv("XPDL_THREADS", "4")
    together = threading.Barrier(4)
    assert sorted(workers.each(range(4), lambda task: together.wait(3))) == [0, 1, 2, 3]


def test_a_thread_that_is_held_up_holds_nobody_up(monkeypatch, workers):
    monkeypatch.setenv("XPDL_THREADS", "2")
    others = threading.Semaphore(0)
    who = {}

    def work(task):
        who[task] = threading.get_ident()
        if task == 0:
            for _ in range(5):
                assert others.acquire(timeout=10)
        else:
            others.release()

    workers.each(range(6), work)
    assert {who[task] for task in range(1, 6)} == {who[1]}
    assert who[0] != who[1]


def test_one_thread_is_the_callers_own(monkeypatch, workers):
    monkeypatch.setenv("XPDL_THREADS", "1")
    assert set(workers.each(range(8), lambda task: threading.get_ident())) == {
        threading.get_ident()
    }
    monkeypatch.setenv("XPDL_THREADS", "4")
    assert workers.each([0], lambda task: threading.get_ident()) == [threading.get_ident()]


def test_work_within_work_stays_on_its_thread(monkeypatch, workers):
    # Two calls that wait for each other's threads would wait for ever.
    monkeypatch.setenv("XPDL_THREADS", "2")

    def outer(task):
        inner = workers.each(range(3), lambda task: threading.get_ident())
        return set(inner) == {threading.get_ident()}

    assert workers.each(range(4), outer) == [True] * 4


def test_an_error_in_a_task_reaches_the_caller(monkeypatch, workers):
    monkeypatch.setenv("XPDL_THREADS", "4")

    def work(task):
        if task >= 4:
            raise ZeroDivisionError(f"task {task}")
        return task

    with pytest.raises(ZeroDivisionError, match="task 4"):
        workers.each(range(5), work)
    assert workers.each(range(4), work) == [0, 1, 2, 3]


def test_after_an_error_no_task_is_begun(monkeypatch, workers):
    monkeypatch.setenv("XPDL_THREADS", "2")
    begun = []

    def work(task):
        begun.append(task)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        workers.each(range(100), work)
    assert len(begun) <= 2


def test_no_task_runs_on_after_an_error(monkeypatch, workers):
    # The caller's arrays may be reused as soon as the call has returned.
    monkeypatch.setenv("XPDL_THREADS", "2")
    finished = threading.Event()
    second_runs = threading.Event()

    def work(task):
        if task == 0:
            assert second_runs.wait(10)
            raise ZeroDivisionError
        second_runs.set()
        time.sleep(0.2)
        finished.set()

    with pytest.raises(ZeroDivisionError):
        workers.each(range(2), work)
    assert finished.is_set()


def test_results_are_not_kept_by_a_thread_that_has_gone_to_sleep(monkeypatch, workers):
    monkeypatch.setenv("XPDL_THREADS", "2")
    together = threading.Barrier(2)

    class Result:
        pass

    def work(task):
        together.wait(10)
        return Result()

    kept = [weakref.ref(result) for result in workers.each(range(2), work)]
    deadline = time.monotonic() + 10
    while any(reference() for reference in kept) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(reference() for reference in kept)


# ---- BLAS -----------------------------------------------------------------------------------


def test_blas_is_restored_after_an_error(two_blas_threads):
    single = SingleThreadedBlas()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), single:
            raise ZeroDivisionError
        assert set(blas_threads()) == {2}


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("call", ["convolution", "matmul"])
def test_products_run_on_single_threaded_blas(monkeypatch, rng, two_blas_threads, threads, call):
    # A BLAS thread that has had work spins, and takes a core from ours.
    monkeypatch.setenv("XPDL_THREADS", threads)
    for module in (numpy_backend, numpy_convolution):  # one that knows every BLAS loaded by now
        monkeypatch.setattr(module, "single_threaded_blas", SingleThreadedBlas())
    seen, matmul = [], np.matmul

    def watched(a, b, out=None):
        seen.extend(blas_threads())
        return matmul(a, b, out=out)

    monkeypatch.setattr(np, "matmul", watched)
    backend = get_backend("numpy")
    if call == "matmul":
        backend.matmul(rng.random((500, 100)), rng.random((100, 50)))
    else:
        x, W = rng.random((4, 3, 8, 8)), rng.random((2, 3, 3, 3))
        backend.convolution_backward(x[:, :2, 1:-1, 1:-1], x, W, (1, 1), (0, 0))
    assert set(seen) == {1}
    assert set(blas_threads()) == {2}


def test_nested_limits_are_lifted_by_the_last(two_blas_threads):
    single = SingleThreadedBlas()
    with single:
        with single:
            assert set(blas_threads()) == {1}
        assert set(blas_threads()) == {1}
    assert set(blas_threads()) == {2}


def test_overlapping_callers_restore_blas_once(two_blas_threads):
    # The first to come is the first to go, while the other is still at work.
    single = SingleThreadedBlas()
    steps = {name: threading.Event() for name in ("first in", "second in", "first out", "end")}
    seen = []

    def first():
        with single:
            steps["first in"].set()
            assert steps["second in"].wait(10)
        steps["first out"].set()
        assert steps["end"].wait(10)  # it lives on, as a thread that trains does

    def second():
        assert steps["first in"].wait(10)
        with single:
            steps["second in"].set()
            assert steps["first out"].wait(10)
            seen.append(blas_threads())
        seen.append(blas_threads())
        steps["end"].set()

    callers = [threading.Thread(target=target) for target in (first, second)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(20)
    assert [set(threads) for threads in seen] == [{1}, {2}]


def test_many_callers_at_once(monkeypatch, workers, two_blas_threads):
    monkeypatch.setenv("XPDL_THREADS", "2")
    single, wrong = SingleThreadedBlas(), []

    def call():
        for _ in range(20):
            with single:
                results = workers.each(range(10), lambda task: (task, set(blas_threads())))
            if results != [(task, {1}) for task in range(10)]:
                wrong.append(results)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert not wrong
    assert set(blas_threads()) == {2}


# ---- fork -----------------------------------------------------------------------------------

FORK = """
import os, signal, sys, threading
import numpy as np
from xpdl.backends import get_backend
from xpdl.backends.numpy.threads import workers

backend = get_backend("numpy")
x = np.random.default_rng(0).random((6, 2, 5, 5), np.float32)
W = np.ones((3, 2, 3, 3), np.float32)
before = backend.convolution(x, W, None, (1, 1), (1, 1))
together = threading.Barrier(3)
workers.each(range(3), lambda task: together.wait(10))  # all threads are there
child = os.fork()
if child == 0:
    signal.alarm(20)  # a pool whose threads are gone would wait for ever
    after = backend.convolution(x, W, None, (1, 1), (1, 1))
    os._exit(0 if (before == after).all() else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_can_compute():
    environment = os.environ | {"XPDL_THREADS": "3", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", FORK], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


# ---- helpers keep off the caller's core -----------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no such call")
def test_a_helper_may_run_on_all_cores_but_the_callers(monkeypatch):
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("one core")
    monkeypatch.setenv("XPDL_THREADS", "2")
    here = {"core": min(cores)}
    workers = Workers()
    workers._apart._current_core = lambda: here["core"]
    together = threading.Barrier(2)

    def helper_may_use(task):
        together.wait(10)
        return os.sched_getaffinity(0) if threading.current_thread().name == "xpdl-1" else None

    for core in (min(cores), max(cores), min(cores)):
        here["core"] = core
        seen = [s for s in workers.each(range(2), helper_may_use) if s is not None]
        assert seen == [cores - {core}]
    assert os.sched_getaffinity(0) == cores


def test_where_cores_cannot_be_chosen_work_goes_on(monkeypatch):
    monkeypatch.setenv("XPDL_THREADS", "2")
    workers = Workers()
    workers._apart._current_core = None
    assert workers.each(range(4), lambda task: task) == [0, 1, 2, 3]

    def forbidden(*arguments):
        raise PermissionError

    if hasattr(os, "sched_setaffinity"):
        monkeypatch.setattr(os, "sched_setaffinity", forbidden)
        assert Workers().each(range(4), lambda task: task) == [0, 1, 2, 3]


def test_helpers_warn_as_their_caller_does(monkeypatch, workers):
    monkeypatch.setenv("XPDL_THREADS", "3")
    begun = threading.Barrier(3)

    def overflow(task):
        begun.wait(10)  # one task a thread
        return np.full(4, 1e30, np.float32).astype(np.float16)

    with np.errstate(all="ignore"):
        workers.each(range(3), overflow)
    with np.errstate(all="raise"), pytest.raises(FloatingPointError):
        workers.each(range(3), overflow)
