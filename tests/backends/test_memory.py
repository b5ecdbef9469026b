"""Memory is used again when nobody holds it any more, and only then."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from xpdl.backends import get_backend
from xpdl.backends.numpy import memory
from xpdl.backends.numpy.memory import Pool, Scratch

MB = 2**20
SHAPE = (100, 400)  # 160 kB of float32


def address(a):
    return a.ctypes.data


# ---- results --------------------------------------------------------------------------------


def test_an_array_that_lives_keeps_its_memory():
    pool = Pool()
    kept = [pool.empty(SHAPE, np.float32) for _ in range(4)]
    for i, a in enumerate(kept):
        a[...] = i
    assert [set(a.ravel()) for a in kept] == [{0}, {1}, {2}, {3}]


def test_memory_is_used_again_when_its_array_is_gone():
    pool = Pool()
    a = pool.empty(SHAPE, np.float32)
    place = address(a)
    del a
    assert address(pool.empty(SHAPE, np.float32)) == place
    assert address(pool.empty((400, 100), np.int32)) == place  # the size is what counts


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a.T,
        lambda a: a[3:4],
        lambda a: a.reshape(-1)[5:].reshape(-1, 5).T,
        lambda a: a.view(np.int32),
        lambda a: memoryview(a),
        lambda a: a.flat,
        lambda a: np.lib.stride_tricks.as_strided(a, (2, 2), (4, 4)),
        lambda a: np.ndarray((3,), np.float32, a),
    ],
)
def test_a_view_keeps_the_memory_too(view):
    pool = Pool()
    a = pool.empty(SHAPE, np.float32)
    place, part = address(a), view(a)
    del a
    gc.collect()
    assert address(pool.empty(SHAPE, np.float32)) != place
    del part
    assert address(pool.empty(SHAPE, np.float32)) == place


def test_results_begin_at_a_cache_line_and_are_writable():
    pool = Pool()
    for dtype in (np.uint8, np.float32, np.float64):
        a = pool.empty((200_000,), dtype)
        assert address(a) % 64 == 0
        assert a.flags.writeable
        assert a.flags.c_contiguous
        assert a.dtype == dtype


def test_small_arrays_are_not_kept():
    pool = Pool()
    assert pool.empty((3, 4), np.float32).shape == (3, 4)
    assert pool.empty((0, 4), np.float32).shape == (0, 4)
    assert not pool._pieces


def test_what_is_not_asked_for_is_given_back(monkeypatch):
    monkeypatch.setattr(memory, "PATIENCE", 5)
    pool = Pool()
    held = pool.empty((50_000,), np.float32)
    pool.empty((60_000,), np.float32)
    for i in range(8):
        pool.empty((70_000 + i,), np.float32)
    sizes = set(pool._pieces)
    assert 4 * 50_000 in sizes  # somebody has it still
    assert 4 * 60_000 not in sizes
    del held
    for i in range(8):
        pool.empty((80_000 + i,), np.float32)
    assert 4 * 50_000 not in pool._pieces


def test_all_that_is_free_can_be_given_back():
    pool = Pool()
    held = pool.empty((50_000,), np.float32)
    pool.empty((60_000,), np.float32)
    pool.release()
    assert set(pool._pieces) == {4 * 50_000}
    held[...] = 1
    assert address(pool.empty((50_000,), np.float32)) != address(held)


def resident():
    """Return how many bytes of memory this process has, as Linux counts."""
    return os.sysconf("SC_PAGE_SIZE") * int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells what we hold")
def test_what_is_given_back_goes_to_the_system_though_small_things_lie_between():
    np.ones(24 * MB, np.uint8)  # from now on glibc takes even large arrays from among small ones
    pool, small = Pool(), []
    before = resident()
    held = []
    for i in range(48):
        held.append(pool.empty((MB + i,), np.uint8))
        held[-1][...] = 1
        small.append(np.ones(8000))
    full = resident()
    del held
    pool.release()
    assert full - before > 40 * MB
    assert resident() - before < 10 * MB
    assert len(small) == 48


def test_memory_that_there_is_not_is_asked_for_in_numpys_words():
    with pytest.raises(MemoryError, match=r"[Uu]nable to allocate 4\.00 PiB"):
        Pool().empty((2**52,), np.uint8)


@pytest.mark.parametrize("lacks", [["MAP_PRIVATE", "MAP_ANONYMOUS"], ["MADV_HUGEPAGE"]])
def test_a_system_that_lacks_something_gives_memory_too(monkeypatch, lacks):
    for name in lacks:
        monkeypatch.delattr(memory.mmap, name, raising=False)
    a = Pool().empty((5 * MB,), np.uint8)
    a[...] = 1
    assert a.all()


@pytest.mark.skipif(not hasattr(memory.mmap, "MADV_HUGEPAGE"), reason="no large pages here")
def test_a_system_that_refuses_large_pages_gives_small_ones(monkeypatch):
    monkeypatch.setattr(memory.mmap, "MADV_HUGEPAGE", 12345)  # no such advice
    a = Pool().empty((5 * MB,), np.uint8)
    a[...] = 1
    assert a.all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # this child computes nothing
def test_a_child_has_memory_of_its_own():
    a = Pool().empty((MB,), np.uint8)
    a[...] = 1
    child = os.fork()
    if child == 0:
        a[...] = 2
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert (a == 1).all()


def test_threads_never_share_a_piece():
    pool, wrong = Pool(), []

    def work(number):
        for _ in range(300):
            a = pool.empty(SHAPE, np.float32)
            a[...] = number
            if not (a == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


@pytest.mark.parametrize("order", ["c", "channels_last", "strided"])
def test_empty_like_keeps_the_order(order):
    a = np.zeros((10, 16, 30, 20), np.float32)
    if order == "channels_last":
        a = np.zeros((10, 30, 20, 16), np.float32).transpose(0, 3, 1, 2)
    elif order == "strided":
        a = a.transpose(3, 2, 1, 0)
    like = Pool().empty_like(a)
    assert like.shape == a.shape
    assert like.dtype == a.dtype
    assert like.strides == np.empty_like(a).strides


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_a_result_is_not_overwritten_by_the_next(name, rng):
    from xpdl.backends import available_backends

    if available_backends()[name] != "ready":
        pytest.skip(available_backends()[name])
    backend = get_backend(name)
    x = rng.standard_normal((16, 16, 28, 28)).astype(np.float32)
    W = rng.standard_normal((16, 16, 3, 3)).astype(np.float32)
    results, copies = [], []
    for k in range(4):
        y = backend.convolution(k * x, W, None, (1, 1), (1, 1))
        dx, _, _ = backend.convolution_backward(y, x, W, (1, 1), (1, 1))
        pooled, _ = backend.max_pooling(y, (2, 2), (2, 2), (0, 0))
        new = [y, dx, pooled, backend.relu(y), backend.relu_backward(dx, x)]
        results += new
        copies += [a.copy() for a in new]
    for result, copy in zip(results, copies, strict=True):
        np.testing.assert_array_equal(result, copy)


# ---- scratch --------------------------------------------------------------------------------


def test_scratch_is_kept_and_grows():
    scratch = Scratch()
    small = scratch("a", (3, 4), np.dtype("float32"))
    assert small.shape == (3, 4)
    assert small.dtype == "float32"
    assert np.shares_memory(small, scratch("a", (2, 3), np.dtype("float64")))
    assert not np.shares_memory(small, scratch("b", (3, 4), np.dtype("float32")))
    large = scratch("a", (1000, 4), np.dtype("float32"))
    assert np.shares_memory(large, scratch("a", (3, 4), np.dtype("float32")))


def test_each_thread_has_its_own_scratch():
    scratch = Scratch()
    mine = scratch("a", (8,), np.dtype("float32"))
    theirs = []
    thread = threading.Thread(target=lambda: theirs.append(scratch("a", (8,), np.dtype("float32"))))
    thread.start()
    thread.join(10)
    assert not np.shares_memory(mine, theirs[0])


def test_much_scratch_is_not_kept(monkeypatch):
    monkeypatch.setattr(memory, "MOST_KEPT", 100)
    scratch = Scratch()
    once = scratch("a", (101,), np.dtype("uint8"))
    assert not np.shares_memory(once, scratch("a", (101,), np.dtype("uint8")))
