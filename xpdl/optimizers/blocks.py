"""What an update asks of parameters that are parts of one large array."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping
from typing import TypeAlias

from xpdl.backends import Array

Arrays: TypeAlias = Mapping[str, Array]
"""Arrays by the names of parameters, such as ``conv1.W``."""


class Blocks(Mapping[str, Array]):
    """A dictionary of arrays that lie in one buffer, as a network's parameters do.

    One update over a long run of the buffer does the work of many small ones.

    Attributes
    ----------
    buffer : array, (size,)
        Holds all of them.
    decayed : set of str
        The names of the weights, as opposed to biases and parameters of normalisation.
    in_compute_type : Blocks, optional
        The same arrays in the type that layers compute in, which an update writes in its pass.
    """

    buffer: Array
    decayed: frozenset[str]
    in_compute_type: Blocks | None = None

    @property
    @abstractmethod
    def frozen(self) -> frozenset[str]:
        """The names of the arrays that no update changes."""

    @abstractmethod
    def runs(self, key: Callable[[str], Hashable] | None = None) -> dict[str, slice]:
        """Return where in the buffer all lie but the frozen, in as few runs as can be.

        A run holds weights or others, all of one `key` (a function of the name), and is called as
        the first parameter in it.
        """

    @abstractmethod
    def zeros_like(self) -> Blocks:
        """Return zeros laid out in the same way."""
