"""The random numbers of a network's layers, and where in them it is."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from xpdl.architecture.base import Architecture
from xpdl.arguments import whole_number
from xpdl.errors import ArgumentError, shown
from xpdl.layers import Normalize

# Keep the random numbers of one seed apart: first values of weights, and dropout masks.
WEIGHT_STREAM, MASK_STREAM = 1, 2


class RandomNumbers(Architecture):
    """A network whose layers may draw random numbers."""

    def reseed(self, seed: int | Sequence[int]) -> None:
        """Start the random numbers of all layers (dropout masks) from `seed`."""
        given = seed if isinstance(seed, Sequence) and seed else (seed,)
        seeds = [whole_number("seed", number, least=0) for number in given]
        drawing = [leaf for leaf in self._leaves.values() if not isinstance(leaf, Normalize)]
        for i, leaf in enumerate(drawing):
            leaf.reseed([MASK_STREAM, *seeds, i])

    def random_state(self) -> dict[str, Any]:
        """Return where the random numbers of each layer that has some are, as JSON can hold it."""
        states = {name: leaf.random_state(self.backend) for name, leaf in self._leaves.items()}
        return {name: state for name, state in states.items() if state is not None}

    def set_random_state(self, states: Mapping[str, Any]) -> None:
        """Go on, with the seed of then, where `random_state` found the random numbers to be.

        Raises
        ------
        ArgumentError
            If the states are not those of the network's layers.
        """
        self.check_random_state(states)
        for name, state in states.items():
            self._leaves[name].set_random_state(self.backend, state)

    def check_random_state(self, states: Mapping[str, Any]) -> None:
        """See that `set_random_state` will take `states`, and change nothing.

        Raises
        ------
        ArgumentError
            If it will not.
        """
        if not isinstance(states, Mapping) or states.keys() != self.random_state().keys():
            raise ArgumentError(f"the random states are not those of {self.name}: {shown(states)}.")
        for name, state in states.items():
            twin = copy.copy(self._leaves[name])
            twin.reseed([0])  # so that it has random numbers of its own
            twin.set_random_state(self.backend, state)
