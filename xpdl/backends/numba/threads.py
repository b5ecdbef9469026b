"""Threads that share a compiled loop, and do not ask for Python's lock as long as work comes.

A thread of Python that is called asks for that lock to begin and to end, and each time may sleep
and be woken, which takes as long as the work of a layer at small batches. So helpers stay in
compiled code: they look at a board, on which the caller writes where a function and its arguments
are, and go to sleep when nothing has come for a while.

The board is an array of int64. Its numbers, each on a cache line of its own, are

job        another number for each new one
open       the address of the function, or 0 when nobody is to begin any more
block      the address of its arguments
threads    how many may take part; the caller is thread 0
inside     how many helpers are at work
failed     whether one of them could not do its part
taken      1 as long as a caller has the board; another one works alone
give_way   the address of the system's function that lets others have the core

The order in which they are written is what makes it safe. A helper counts itself in, then looks
whether the job is open still; the caller closes it, then waits until nobody is inside. Each of
these is one step for all threads, so either the helper stays out or the caller waits for it.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import FunctionType
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.extending import intrinsic
from numba.core.targetconfig import ConfigStack

from xpdl.backends.base.types import Array
from xpdl.backends.numba.cache import compiled
from xpdl.backends.numpy.threads import Apart

JOB, OPEN, BLOCK, THREADS, INSIDE, FAILED, TAKEN, GIVE_WAY = range(0, 64, 8)

# A helper looks so often for a new job, which takes about 2 ms, before it sleeps; and lets others
# have its core, if any wait for it, so often meanwhile.
LOOKS = 400_000
PATIENCE = 100


@intrinsic
def load(typing, board, place):
    """Return board[place] as all threads see it."""
    signature = types.intp(board, types.intp)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_place(context, builder, signature, arguments), "seq_cst", 8)

    return signature, generate


def _in_one_step(how: str) -> Any:
    @intrinsic
    def change(typing, board, place, number):
        signature = types.intp(board, types.intp, types.intp)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            there = _place(context, builder, signature, arguments)
            return builder.atomic_rmw(how, there, arguments[2], "seq_cst")

        return signature, generate

    return change


# Of (board, place, number). They return what was there; then the number is, or more by it.
exchange = _in_one_step("xchg")
count = _in_one_step("add")


@intrinsic
def give_way(typing, board):
    """Let another thread have this core, if one waits for it."""
    signature = types.none(board)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = builder.load(_place(context, builder, signature, arguments, GIVE_WAY))
        kind = ir.FunctionType(ir.IntType(32), [])
        with cgutils.if_likely(builder, builder.icmp_signed("!=", address, address.type(0))):
            builder.call(builder.inttoptr(address, kind.as_pointer()), [])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def run(typing, function, block, thread):
    """Call the function of a job, with a block of arguments; return 0 if all went well."""
    signature = types.intp(types.intp, types.intp, types.intp)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = _kind(context)
        function = builder.inttoptr(arguments[0], kind.as_pointer())
        slots = [cgutils.alloca_once(builder, kind.args[k].pointee) for k in range(2)]
        block = builder.inttoptr(arguments[1], kind.args[2])
        status = builder.call(function, [*slots, block, arguments[2]])
        return builder.sext(status, ir.IntType(64))

    return signature, generate


def _place(
    context: Any, builder: Any, signature: Any, arguments: Any, place: int | None = None
) -> Any:
    board = context.make_array(signature.args[0])(context, builder, arguments[0])
    offset = arguments[1] if place is None else ir.Constant(ir.IntType(64), place)
    return builder.gep(board.data, [offset])


def _kind(context: Any) -> Any:
    """Return the type of a job's function: as Numba's own are, of an address and a thread."""
    return context.call_conv.get_function_type(types.none, (types.voidptr, types.intp))


def shared(kernel: Callable[..., None]) -> Callable[..., int]:
    """Compile a function so that threads run it side by side, each with a number of its own.

    Parameters
    ----------
    kernel : function
        Takes arguments, and then a tuple of two arrays and the thread's number.

    Returns
    -------
    function
        Takes a board, how many threads may take part, the two arrays, and the arguments. It returns
        0 when all threads are done, or another number if one could not do its part.
    """

    @intrinsic
    def job(typing, bounds, taken, arguments):
        """Return the addresses of a job's function and its arguments, which live in the caller."""
        shares = types.Tuple((bounds, taken, types.intp))
        inner = types.none(*arguments.types, shares)
        signature = types.UniTuple(types.intp, 2)(bounds, taken, arguments)

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            numbers = [*values[:2], *cgutils.unpack_tuple(builder, values[2])]
            kind = ir.LiteralStructType([number.type for number in numbers])
            block = cgutils.alloca_once(builder, kind)
            for k, number in enumerate(numbers):
                builder.store(number, cgutils.gep_inbounds(builder, block, 0, k))

            name = builder.module.get_unique_name(f"xpdl.job.{kernel.__name__}")
            function = ir.Function(builder.module, _kind(context), name)
            function.linkage = "internal"
            body = ir.IRBuilder(function.append_basic_block())
            given = body.bitcast(function.args[2], kind.as_pointer())
            there = [
                body.load(cgutils.gep_inbounds(body, given, 0, k)) for k in range(len(numbers))
            ]
            part = context.make_tuple(body, shares, [*there[:2], function.args[3]])
            flags = ConfigStack().top().copy()  # as this function is compiled
            flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
            there_compiled = context.compile_subroutine(body, kernel, inner, flags=flags)
            context.call_internal(body, there_compiled.fndesc, inner, [*there[2:], part])
            body.ret(ir.Constant(ir.IntType(32), 0))

            addresses = [builder.ptrtoint(a, ir.IntType(64)) for a in (function, block)]
            return context.make_tuple(builder, signature.return_type, addresses)

        return signature, generate

    # Numba keeps what it compiles by a function's name and code, and does not see the kernel's.
    name = f"share_{kernel.__module__.rpartition('.')[2]}_{kernel.__name__}"
    function = FunctionType(_share.__code__, {"do": do, "job": job, "__name__": __name__}, name)
    function.__qualname__ = name
    compiled_for_it: Callable[..., int] = compiled(function)
    return compiled_for_it


job: Any = None  # in `_share`, a kernel's own


def _share(board, threads, bounds, taken, *arguments):
    function, block = job(bounds, taken, arguments)
    return do(board, threads, function, block)


@compiled
def do(board, threads, function, block):
    """Do a job, with the helpers that come; return 0 if all went well."""
    if threads == 1 or exchange(board, TAKEN, 1) == 1:
        return run(function, block, 0)
    exchange(board, BLOCK, block)
    exchange(board, THREADS, threads)
    exchange(board, FAILED, 0)
    exchange(board, OPEN, function)
    count(board, JOB, 1)
    failed: int = run(function, block, 0)
    exchange(board, OPEN, 0)
    looks = 0
    while load(board, INSIDE) > 0:
        looks += 1
        if looks % PATIENCE == 0:
            give_way(board)
    failed |= load(board, FAILED)
    exchange(board, TAKEN, 0)
    return failed


@compiled
def serve(board, thread):
    """Take part in jobs until none has come for a while."""
    seen, looks = -1, 0
    while looks < LOOKS:
        new: int = load(board, JOB)
        if new == seen or load(board, OPEN) == 0:
            looks += 1
            if looks % PATIENCE == 0:
                give_way(board)
            continue
        seen, looks = new, 0
        count(board, INSIDE, 1)
        function = load(board, OPEN)
        if function != 0 and thread < load(board, THREADS):
            exchange(board, FAILED, load(board, FAILED) | run(function, load(board, BLOCK), thread))
        count(board, INSIDE, -1)


class Helpers:
    """Threads that serve one board."""

    def __init__(self) -> None:
        self._start()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._start)  # threads do not survive a fork

    def _start(self) -> None:
        self.board = np.zeros(64, np.int64)
        self.board[GIVE_WAY] = _address_to_give_way()
        self._lock = threading.Lock()
        self._wanted = 0  # how often; a helper that was wanted meanwhile does not go to sleep
        self._asleep: list[bool] = []
        self._calls: list[SimpleQueue[None]] = []
        self._apart = Apart()

    def come(self, number: int) -> None:
        """Let so many helpers be awake soon."""
        if len(self._calls) < number:
            self._add(number)
        self._apart.keep()
        self._wanted += 1
        for k in range(number):
            if self._asleep[k]:
                self._asleep[k] = False
                self._calls[k].put(None)

    def _add(self, number: int) -> None:
        with self._lock:
            for k in range(len(self._calls), number):
                self._asleep.append(False)
                self._calls.append(SimpleQueue())
                helper = threading.Thread(
                    target=self._serve, args=(k, self.board), name=f"xpdl-loop-{k + 1}", daemon=True
                )
                helper.start()
                self._apart.add(helper)

    def _serve(self, k: int, board: Array) -> None:
        while True:
            wanted = self._wanted
            serve(board, k + 1)
            self._asleep[k] = True  # before it looks: who calls now sees that, or is seen
            if wanted == self._wanted:
                self._calls[k].get()
            self._asleep[k] = False


def _address_to_give_way() -> int:
    """Return the address of the system's function, or 0 if there is none."""
    if sys.platform == "win32":
        function = ctypes.windll.kernel32.SwitchToThread
    else:
        function = getattr(ctypes.CDLL(None), "sched_yield", None)
    return (ctypes.cast(function, ctypes.c_void_p).value or 0) if function else 0
