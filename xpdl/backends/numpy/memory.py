"""Memory that is used again: for results, and for what a thread needs while it computes.

A fresh piece costs a page fault every 4 kB at its first touch, and the system an interruption of
all cores when it is given back; a training step asks for the same sizes again and again.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import sys
import threading
from typing import Any

import numpy as np

from xpdl.backends.base.types import Array, Shape
from xpdl.backends.numpy.threads import hold_while_forking

# Smaller pieces come from the C library, which is quick with them.
SMALLEST = 128 * 1024

# A piece that has not been asked for during so many requests is given back.
PATIENCE = 200

# What a thread keeps for its next task is no larger than this, in bytes.
MOST_KEPT = 16 * 1024 * 1024

# For so much, large pages are asked for, as NumPy does.
HUGE = 4 * 1024 * 1024

_LINE = 64  # bytes of a line in the processor's caches


def _fresh(size: int) -> Array:
    """Return so many bytes that the system gives, and gets back, by themselves.

    The C library would take them, after a while, from where small things lie that live longer; in
    a process of many sizes and days, what is free between those grows, and cannot be given back.
    """
    private = getattr(mmap, "MAP_PRIVATE", 0) | getattr(mmap, "MAP_ANONYMOUS", 0)
    if not private:  # another system
        return np.empty(size, np.uint8)
    try:
        memory = mmap.mmap(-1, size, flags=private)
    except OSError:
        return np.empty(size, np.uint8)  # which says how much was wanted, if there is none
    if size >= HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a system without: then they are small
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)


class Pool:
    """Arrays for results, in memory that no array holds any more.

    As long as an array or a view of it lives, its memory is referred to; when the pool's own
    reference is the last, the memory is free. Pieces are found by their exact size.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: dict[int, list[Array]] = {}
        self._asked: dict[int, int] = {}  # by size, when last
        self._requests = 0
        hold_while_forking(self._lock)

    def empty(self, shape: Shape, dtype: Any) -> Array:
        """Return an array in C order, whatever it may hold; it begins where a cache line does."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        if size < SMALLEST:
            return np.empty(shape, dtype)
        with self._lock:
            self._requests += 1
            self._asked[size] = self._requests
            pieces = self._pieces.setdefault(size, [])
            for piece in pieces:
                if sys.getrefcount(piece) == _UNUSED:
                    break
            else:
                self._give_back(PATIENCE)
                piece = _fresh(size + _LINE)
                pieces.append(piece)
            return np.ndarray(shape, dtype, piece, -piece.ctypes.data % _LINE)

    def empty_like(self, a: Array, dtype: Any = None) -> Array:
        """Return an array of the shape, type (or `dtype`) and order of `a`, whatever it holds."""
        dtype = a.dtype if dtype is None else dtype
        if a.flags.c_contiguous:
            return self.empty(a.shape, dtype)
        if a.ndim == 4:  # channels last, perhaps
            n, c, h, w = a.shape
            last = a.transpose(0, 2, 3, 1)
            if last.flags.c_contiguous:
                return self.empty((n, h, w, c), dtype).transpose(0, 3, 1, 2)
        return np.empty_like(a, dtype)

    def release(self) -> None:
        """Give back all memory that no array holds."""
        with self._lock:
            self._give_back(0)

    def _give_back(self, patience: int) -> None:
        """Let go of what has not been asked for during so many requests."""
        for size in [s for s, at in self._asked.items() if self._requests - at >= patience]:
            pieces = self._pieces[size]
            pieces[:] = [piece for piece in pieces if sys.getrefcount(piece) != _UNUSED]
            if not pieces:
                del self._pieces[size], self._asked[size]


class Scratch(threading.local):
    """Arrays that a thread keeps from task to task, by name."""

    def __init__(self) -> None:
        self._kept: dict[str, Array] = {}

    def __call__(self, name: str, shape: Shape, dtype: np.dtype[Any]) -> Array:
        """Return this thread's array `name`, in C order, whatever it may hold."""
        size = math.prod(shape) * dtype.itemsize
        memory = self._kept.get(name)
        if memory is None or memory.nbytes < size:
            memory = np.empty(size, np.uint8)
            if size <= MOST_KEPT:
                self._kept[name] = memory
        return np.ndarray(shape, dtype, memory)


def _references_of_an_unused_piece() -> int:
    """Return what `sys.getrefcount` says of a list's item that a loop is at, and nobody holds."""
    for piece in [np.empty(1, np.uint8)]:
        return sys.getrefcount(piece)
    raise AssertionError


_UNUSED = _references_of_an_unused_piece()

pool = Pool()
scratch = Scratch()
