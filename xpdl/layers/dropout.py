"""Dropout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xpdl.arguments import number, one_of
from xpdl.backends import Array, Backend, backend_of
from xpdl.layers.base import Layer
from xpdl.layers.kept import Kept


class Dropout(Layer):
    """Silence a random share of the numbers during training. Srivastava et al. 2014; book, 6.4.3.

    scale_at="inference", the book's way:
        training y = x m, dL/dx = dL/dy m; inference y = x (1 - ratio)
    scale_at="training", today's usual way:
        training y = x m / (1 - ratio), dL/dx = dL/dy m / (1 - ratio); inference y = x
    with m = 0 with probability `ratio`, else 1. Both have the same mean.

    Parameters
    ----------
    ratio : float
        The share to silence, at least 0 and below 1.
    scale_at : {"inference", "training"}
        When to make up for the missing numbers.
    """

    kind = "dropout"
    options = ("ratio", "scale_at")
    mask: Any = Kept()

    def __init__(self, ratio: float = 0.5, *, scale_at: str = "inference") -> None:
        super().__init__()
        self.ratio = number("ratio", ratio, below=1)
        self.scale_at = one_of("scale_at", scale_at, ("inference", "training"))
        self.reseed([0])

    def reseed(self, seed: Sequence[int]) -> None:
        """Start the masks from `seed`, on whatever device the next batch is.

        A generator stays the same object, where a captured step looks for it.
        """
        self._seed = list(seed)
        self._generators: dict[type, tuple[Backend, Any]] = vars(self).get("_generators", {})
        for backend, generator in self._generators.values():
            backend.reseed(generator, self._seed)

    def __copy__(self) -> Dropout:
        """Return a copy with random numbers of its own."""
        twin = Dropout.__new__(type(self))
        vars(twin).update(vars(self))
        twin._generators = {}
        return twin

    def _generator(self, backend: Backend) -> Any:
        """Return the numbers for arrays of the backend; those that share arrays share them."""
        if backend.array_type not in self._generators:
            self._generators[backend.array_type] = backend, backend.generator(self._seed)
        return self._generators[backend.array_type][1]

    def random_state(self, backend: Backend) -> Any:
        return backend.generator_state(self._generator(backend))

    def set_random_state(self, backend: Backend, state: Any) -> None:
        backend.set_generator_state(self._generator(backend), state)

    def forward(self, x: Array, train: bool = False) -> Array:
        keep = 1 - self.ratio
        if not train:
            return x * keep if self.scale_at == "inference" else x
        backend, scale = backend_of(x), 1 / keep if self.scale_at == "training" else 1.0
        generator, share = self._generator(backend), self.share
        if share is None:
            y, self.mask = backend.dropout(generator, x, self.ratio, scale)
            return y
        numbers = x.size // len(x)  # of a row; those of other rows are drawn by other ranks
        backend.skip(generator, share.start * numbers)
        y, self.mask = backend.dropout(generator, x, self.ratio, scale)
        backend.skip(generator, (share.total - share.stop) * numbers)
        return y

    def backward(self, dout: Array) -> Array:
        return backend_of(dout, self.mask).dropout_backward(dout, self.mask)
