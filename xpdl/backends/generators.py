"""Random numbers born on a device: the same on all, and where in them a generator is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from xpdl.arguments import whole_number
from xpdl.errors import ArgumentError


class RandomGenerator(Protocol):
    """Random numbers born on a device."""

    def random(self, size: tuple[int, ...], dtype: Any) -> Any:
        """Return numbers uniform in [0, 1)."""


class Generators:
    """A backend's generators of random numbers; this class serves NumPy's."""

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


def check_generator_state(state: Mapping[str, Any]) -> tuple[int, int | None]:
    """Return (halves, left_over) of what `Backend.generator_state` returned.

    Raises
    ------
    ArgumentError
        If it is none.
    """
    if not isinstance(state, Mapping) or "halves" not in state:
        raise ArgumentError(f"the state of a generator must tell its halves, got {state!r}.")
    halves, left_over = whole_number("halves", state["halves"], least=0), state.get("left_over")
    if left_over is not None:
        whole_number("left_over", left_over, least=0)
    if halves >= 2**62 or (left_over or 0) >= 2**32:
        raise ArgumentError(f"the state of a generator is beyond its range: {state!r}.")
    return halves, left_over
