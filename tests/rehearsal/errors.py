"""What goes wrong in a rehearsal, and would go wrong on a GPU."""

from __future__ import annotations


class RehearsalError(AssertionError):
    """Code that a GPU would refuse, or run into undefined behaviour with."""


class CompileError(RehearsalError):
    """A source or an option that does not compile."""


class LaunchError(RehearsalError):
    """A kernel launched with something it cannot take."""


class CUDARuntimeError(RuntimeError):
    """What CuPy raises where the CUDA runtime reports an error."""


class OutOfMemoryError(MemoryError):
    """What CuPy raises where the device has no more memory."""

    def __init__(self, size: int, total: int) -> None:
        super().__init__(
            f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes)."
        )
