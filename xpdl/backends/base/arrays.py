"""Arrays of a device: where they are, how they get there, and random numbers born there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xpdl.backends.base.types import (
    Array,
    RandomGenerator,
    Step,
    check_generator_state,
    host_array,
)


class Arrays:
    """What holds and moves arrays; this class serves NumPy's."""

    xp: Any = np
    array_type: type = np.ndarray

    def owns(self, a: object) -> bool:
        """Tell whether `a` is an array of this backend."""
        return isinstance(a, self.array_type)

    def asarray(self, a: Any, dtype: Any = None) -> Array:
        """Return `a` (a host array, a list, a number, or an array already here) on this device.

        Raises
        ------
        BackendMismatchError
            If `a` lives on another device; bring it to the host first, with `to_numpy`.
        DTypeError
            If `a` does not hold numbers.
        """
        if not self.owns(a) or isinstance(a, np.ndarray):
            a = host_array(a)
        array: Array = self.xp.asarray(a, dtype=dtype)
        return array

    def to_numpy(self, a: Any) -> Array:
        """Return a host copy of `a`. On a GPU this waits for all work that `a` depends on."""
        return np.array(a)

    def item(self, a: Any) -> float:
        """Return the one number in `a` as a Python number. On a GPU this waits for it."""
        return self.to_numpy(a).item()

    def has_room_for(self, size: int) -> bool:
        """Tell whether `size` bytes of data can stay here and leave room to compute with."""
        return True

    def free_memory(self) -> int | None:
        """Return how many bytes new arrays can have, or None where the system does not say."""
        try:
            for line in Path("/proc/meminfo").read_text().splitlines():
                if line.startswith("MemAvailable:"):
                    return 1024 * int(line.split()[1])
        except OSError:
            pass  # another system than Linux
        return None

    def release(self) -> None:
        """Give memory that no array holds back to the device or the system."""

    def synchronize(self) -> None:
        """Wait until all work given to the device is done; a CPU has none outstanding."""

    def generator(self, seed: int | Sequence[int]) -> RandomGenerator:
        """Return a generator of random numbers on this device, started from `seed`.

        All devices draw the same numbers, those of NumPy's Philox generator (Salmon et al. 2011),
        of which each can be computed by itself.
        """
        return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))

    def reseed(self, generator: RandomGenerator, seed: int | Sequence[int]) -> None:
        """Start a generator of this backend anew from `seed`, in its place."""
        bits = self.generator(seed).bit_generator  # type: ignore[attr-defined]
        generator.bit_generator.state = bits.state  # type: ignore[attr-defined]

    def generator_state(self, generator: RandomGenerator) -> dict[str, int]:
        """Return where a generator of this backend is, as JSON can hold it.

        On a GPU this waits for the device. See `set_generator_state`.
        """
        state = generator.bit_generator.state  # type: ignore[attr-defined]
        blocks = sum(int(part) << 64 * i for i, part in enumerate(state["state"]["counter"]))
        drawn = 2 * (4 * (blocks - 1) + state["buffer_pos"])  # a block is four words of 64 bits
        if not state["has_uint32"]:
            return {"halves": drawn}
        return {"halves": drawn - 1, "left_over": state["uinteger"]}

    def set_generator_state(self, generator: RandomGenerator, state: Mapping[str, int]) -> None:
        """Let a generator of the same seed go on where `generator_state` found another to be.

        Parameters
        ----------
        state : mapping
            ``halves``: how many halves of 64-bit words were drawn; ``left_over``: the half that
            the next float32 will use, where a float64 has been drawn in between.

        Raises
        ------
        ArgumentError
            If that is no such state.
        """
        halves, left_over = check_generator_state(state)
        bits = generator.bit_generator  # type: ignore[attr-defined]
        words = halves // 2 if left_over is None else (halves + 1) // 2
        now = bits.state
        now["state"]["counter"][:] = [words // 4, 0, 0, 0]
        bits.state = {**now, "buffer_pos": 4, "has_uint32": 0}
        generator.random((words % 4,), np.dtype(np.float64))
        if left_over is not None:
            bits.state = {**bits.state, "has_uint32": 1, "uinteger": left_over}
        elif halves % 2:
            generator.random((1,), np.dtype(np.float32))

    def skip(self, generator: RandomGenerator, numbers: int) -> None:
        """Let a generator of this backend go on as if it had drawn so many of float32."""
        state = self.generator_state(generator)
        if "left_over" in state:  # the next number is a half that was kept aside
            generator.random((numbers,), np.dtype(np.float32))
        elif numbers:
            self.set_generator_state(generator, {"halves": state["halves"] + numbers})

    def compile_step(self, step: Step, prepare: Callable[[], object] | None = None) -> Step:
        """Return a function that does what `step` does, with less work for the host.

        On a CPU that is `step` itself. On a GPU it is captured and replayed, see `CapturedStep`;
        `prepare` is called before, and may free memory.
        """
        return step

    def describe(self) -> dict[str, str]:
        """Return what a person wants to know of this device, as label -> text."""
        return {"NumPy": np.__version__}

    def ways(self) -> dict[str, str]:
        """Return the variables of the environment that change the last digits, and their values."""
        return {}
