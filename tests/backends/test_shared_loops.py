"""Compiled loops that threads share: each part once, whoever comes, and nobody left behind."""

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

numba = pytest.importorskip("numba")

from numba.core.caching import NullCache  # noqa: E402

from xpdl.backends.numba.sharing import cut, helpers, next_part, share  # noqa: E402
from xpdl.backends.numba.threads import count, exchange, load, shared  # noqa: E402

ROOT = Path(xpdl.__file__).parents[1]
LONG = 20_000_000_000  # looks: many seconds


def loop(kernel):
    """Do as `shared`, but keep nothing of a test's in the user's cache."""
    function = shared(kernel)
    function._cache = NullCache()
    return function


@loop
def mark(times, who, shares):
    """Count how often each item is done, and note by which thread."""
    part, first, last = next_part(shares)
    while part >= 0:
        for i in range(first, last):
            times[i] += 1
            who[i] = shares[2]
        part, first, last = next_part(shares)


@loop
def meet(places, threads, shares):
    """Count each thread once; none goes on before all are there, or a long time has passed."""
    count(places, 0, 1)
    looks = 0
    while load(places, 0) < threads and looks < LONG:
        looks += 1
    exchange(places, 8 + shares[2], 1 if looks < LONG else 2)


@loop
def fill(rooms_seen, room, shares):
    """Write a thread's number all over its room, wait for the others, and look what is there."""
    own = room[shares[2]]
    own[:] = shares[2]
    count(rooms_seen, 0, 1)
    looks = 0
    while load(rooms_seen, 0) < len(room) and looks < LONG:
        looks += 1
    exchange(rooms_seen, 8 + shares[2], 1 if (own == shares[2]).all() else 2)


@loop
def fail(places, size, shares):
    """Ask for more memory than there is, in the thread that places[1] says."""
    count(places, 0, 1)
    looks = 0
    while load(places, 0) < 2 and looks < LONG:
        looks += 1
    if shares[2] == places[1]:
        places[2] = len(np.empty(size, np.float64))


def parts(number):
    return np.arange(number + 1)


@pytest.fixture(scope="module", autouse=True)
def _all_compiled():
    """While a loop compiles, a helper that was called may have gone to sleep again."""
    places = np.zeros(16, np.int64)
    share(parts(1), mark, np.zeros(1, np.int64), np.zeros(1, np.int64))
    share(parts(1), meet, places, 1)
    share(parts(1), fill, places, room=1)
    share(parts(1), fail, np.array([1, 1, 0]), 1)


@pytest.mark.parametrize("threads", ["1", "2", "3"])
@pytest.mark.parametrize("number", [1, 2, 3, 31, 32])
def test_each_part_is_done_once(monkeypatch, threads, number):
    monkeypatch.setenv("XPDL_THREADS", threads)
    times, who = np.zeros(1000, np.int64), np.full(1000, -1)
    share(np.arange(number + 1) * 1000 // number, mark, times, who)
    assert (times == 1).all()
    assert set(who) <= set(range(int(threads)))


def test_no_parts_are_no_work(monkeypatch):
    monkeypatch.setenv("XPDL_THREADS", "2")
    share(cut(0, 1), mark, np.zeros(0, np.int64), np.zeros(0, np.int64))


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_run_side_by_side_and_are_woken(monkeypatch, threads):
    monkeypatch.setenv("XPDL_THREADS", str(threads))
    for pause in (0, 0.1):  # after which all helpers sleep
        time.sleep(pause)
        places = np.zeros(16, np.int64)
        share(parts(threads), meet, places, threads)
        assert places[8 : 8 + threads].tolist() == [1] * threads


def test_fewer_threads_than_there_were_leave_the_others_out(monkeypatch):
    monkeypatch.setenv("XPDL_THREADS", "3")
    share(parts(3), meet, np.zeros(16, np.int64), 3)
    monkeypatch.setenv("XPDL_THREADS", "2")
    for _ in range(200):
        places = np.zeros(16, np.int64)
        share(parts(3), meet, places, 2)
        assert places[:11].tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0]


def test_each_thread_has_room_of_its_own(monkeypatch):
    monkeypatch.setenv("XPDL_THREADS", "3")
    for size in (5, 100_000):
        seen = np.zeros(16, np.int64)
        share(parts(3), fill, seen, room=size)
        assert seen[8:11].tolist() == [1, 1, 1]


@pytest.mark.parametrize("thread", [0, 1])
def test_no_memory_is_said_and_the_next_loop_runs(monkeypatch, thread):
    monkeypatch.setenv("XPDL_THREADS", "2")
    with pytest.raises(MemoryError, match="found no memory"):
        share(parts(2), fail, np.array([0, thread, 0]), 2**60)
    places = np.zeros(16, np.int64)
    share(parts(2), meet, places, 2)
    assert places[8:10].tolist() == [1, 1]


def test_a_second_caller_works_alone_meanwhile(monkeypatch):
    monkeypatch.setenv("XPDL_THREADS", "2")
    places, times, who = np.zeros(16, np.int64), np.zeros(100, np.int64), np.full(100, -1)
    other = threading.Thread(target=share, args=(parts(2), meet, places, 3))
    other.start()
    while load_from(places) < 2:  # both threads wait for a third
        time.sleep(0.001)
    share(np.arange(11) * 10, mark, times, who)
    assert (times == 1).all()
    assert (who == 0).all()
    share(parts(1), meet, places, 3)
    other.join()
    assert places[8:10].tolist() == [1, 1]


def load_from(places):
    return int(places[0])


def test_many_callers_at_once(monkeypatch):
    monkeypatch.setenv("XPDL_THREADS", "3")
    wrong = []

    def call():
        for k in range(300):
            times, who = np.zeros(64, np.int64), np.zeros(64, np.int64)
            share(np.arange(k % 32 + 2) * 64 // (k % 32 + 1), mark, times, who)
            if (times != 1).any():
                wrong.append(k)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []
    assert helpers.board[:56:8].tolist()[4] == 0  # nobody is inside


FORKING = """
import os, numpy as np
from tests.backends.test_shared_loops import meet, parts, share
share(parts(1), meet, np.zeros(16, np.int64), 1)
for _ in range(3):
    places = np.zeros(16, np.int64)
    share(parts(2), meet, places, 2)
    child = os.fork()
    if child == 0:
        places[:] = 0
        share(parts(2), meet, places, 2)
        os._exit(0 if places[8:10].tolist() == [1, 1] else 1)
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_has_helpers_of_its_own():
    environment = os.environ | {"XPDL_THREADS": "2"}
    subprocess.run([sys.executable, "-c", FORKING], cwd=ROOT, env=environment, check=True)
