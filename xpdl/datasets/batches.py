"""Shuffled mini-batches of data that stays on the device."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, islice
from itertools import count as counting
from typing import Any

import numpy as np

from xpdl.arguments import check_finite, number, real_array, real_dtype, whole_number
from xpdl.backends import Array, Backend, backend_of, get_backend
from xpdl.datasets.reading_ahead import ReadAhead
from xpdl.datasets.stored import StoredPictures
from xpdl.errors import ArgumentError, ShapeError, shown

# Keeps the order of examples apart from other random numbers of the same seed.
ORDER_STREAM = 3


class Batches:
    """The examples of a data set in random order, a batch at a time.

    The data is put on the device once; data from the host that leaves it too little room stays
    there, with a warning, and is put on the device batch by batch. `StoredPictures` stay in their
    file. What comes batch by batch is read by a thread, beside the step that learns from the last.
    Every epoch has its own order, drawn on the host from the seed and the epoch's number, so it is
    the same on every backend. The last batch of an epoch holds what is left over.

    Parameters
    ----------
    x : array (N, ...), StoredPictures, or dict of str to array
        Examples, on the host or on `backend`; of a network of several inputs, by their names.
    t : array (N, ...), or dict of str to array
        Their targets; of several outputs, by their names.
    batch_size : int or mapping of int to int
        How many examples a batch holds; {0: 100, 3: 400} is 100 in the epochs 0, 1 and 2, and 400
        from epoch 3 on.
    backend : Backend
        Where batches are wanted.
    seed : int
        For the order.
    dtype : dtype, optional
        The float type in which a batch of x is wanted; its own by default.
    divisor : float, optional
        What a batch of x is divided by, in float32 at least: 255 for pixels kept as bytes.
    weights : array (N,), optional
        What each example counts.

    Raises
    ------
    ShapeError, ArgumentError, NonFiniteError
        If x and t differ in length, are empty, or (where they come from the host) they hold NaN.
    """

    def __init__(
        self,
        x: Any,
        t: Any,
        batch_size: int | Mapping[int, int],
        *,
        backend: Backend,
        seed: int = 0,
        dtype: Any = None,
        divisor: float | None = None,
        weights: Any = None,
    ) -> None:
        self.divisor = None if divisor is None else number("divisor", divisor, above=0)
        self.dtype = None if dtype is None else real_dtype("dtype", dtype)
        self.seed = whole_number("seed", seed, least=0)
        self._sizes = batch_sizes(batch_size)
        if not isinstance(backend, Backend):
            raise ArgumentError(
                "backend must be a Backend, as get_backend('numpy') gives it, "
                f"got {shown(backend)}."
            )
        xs, ts = _by_name("x", x), _by_name("t", t)
        if weights is not None:
            ts["weights"] = _numbers("weights", weights)
        _check_lengths(xs | {f"t {name}": a for name, a in ts.items()})
        x = next(iter(xs.values()))
        stored = isinstance(x, StoredPictures)
        nbytes = sum(a.nbytes for a in xs.values())
        self.resident = not stored and (backend.owns(x) or backend.has_room_for(nbytes))
        if not self.resident and not stored:
            warnings.warn(
                f"{nbytes / 2**20:,.0f} MB of training data do not fit on the device beside the "
                "network; each batch is copied there when its turn comes, which is slower.",
                stacklevel=2,
            )
        host = get_backend("numpy") if stored else backend_of(x)
        self._home, self._backend = backend if self.resident else host, backend
        put = self._home.asarray
        self._xs = {name: a if stored else put(a) for name, a in xs.items()}
        self._ts = {name: put(a) for name, a in ts.items()}
        self.weights = self._ts.pop("weights", None) if weights is not None else None
        self.examples = len(x)
        self._ahead = None
        if not self.resident:
            self._ahead = {name: ReadAhead(a) for name, a in self._xs.items()}

    @property
    def x(self) -> Any:
        """All examples, where they are kept: an array, or several by name."""
        return _alone(self._xs)

    @property
    def t(self) -> Any:
        """All targets: an array, or several by name."""
        return _alone(self._ts)

    def __len__(self) -> int:
        """Return the number of batches in the first epoch, and in each if all are of one size."""
        return self.in_epoch(0)

    @property
    def batch_size(self) -> int | dict[int, int]:
        """How many examples a batch holds, or from which epoch on how many."""
        return self._sizes[0] if len(self._sizes) == 1 else dict(self._sizes)

    def size(self, number: int) -> int:
        """Return how many examples a batch of epoch `number` holds."""
        whole_number("number", number, least=0)
        return self._sizes[max(first for first in self._sizes if first <= number)]

    def in_epoch(self, number: int) -> int:
        """Return the number of batches in epoch `number`."""
        return -(-self.examples // self.size(number))

    def parts(self, number: int, rows: Callable[[int], slice] | None = None) -> Iterator[Array]:
        """Yield which examples, (size,), each batch of epoch `number` holds, from 0 on.

        They are where the data is, put there at once.

        Parameters
        ----------
        rows : callable, optional
            Says of a batch of so many examples which of them are wanted, as a rank's share.
        """
        parts = _parts(self.order(number), self.size(number))
        if rows is not None:
            parts = (part[rows(len(part))] for part in parts)
        yield from self._in_turn(parts)

    def order(self, number: int) -> Array:
        """Return in which order epoch `number` takes the examples, (N,), where the data is."""
        number = whole_number("number", number, least=0)
        rng = np.random.default_rng([ORDER_STREAM, self.seed, number])
        return self._home.asarray(rng.permutation(self.examples))

    def take(self, part: Array) -> tuple[Any, Any]:
        """Return the batch (x, t) of the examples `part`, (size,), by their numbers.

        Raises
        ------
        DTypeError, ShapeError, ArgumentError
            If `part` is no array of whole numbers, or (on the host) there are none of these.
        """
        with self._explaining(part):
            return (
                _alone({name: self._floats(name, part) for name in self._xs}),
                _alone({name: self._here(t[part]) for name, t in self._ts.items()}),
            )

    def first(self) -> Any:
        """Return the first example, (1, ...), as in a batch; of several inputs, by name."""
        return self.take(self._home.xp.arange(1))[0]

    def arrays(self) -> list[Any]:
        """Return all that is kept, in order: examples, targets, weights."""
        weights = [] if self.weights is None else [self.weights]
        return [*self._xs.values(), *self._ts.values(), *weights]

    def weigh(self, part: Array) -> Array | None:
        """Return what the examples `part` count, (size,); None if all count alike.

        Raises
        ------
        DTypeError, ShapeError, ArgumentError
            As `take`.
        """
        with self._explaining(part):
            return None if self.weights is None else self._here(self.weights[part])

    def epoch(self, number: int) -> Iterator[tuple[Array, Array]]:
        """Yield the batches (x, t) of epoch `number`, counted from 0."""
        return map(self.take, self.parts(number))

    def steps(self, count: int) -> Iterator[tuple[Array, Array]]:
        """Yield `count` batches (x, t), epoch after epoch from 0 on."""
        endless = chain.from_iterable(map(self.epoch, counting()))
        return islice(endless, min(whole_number("count", count, least=0), sys.maxsize))

    def in_order(self, part: slice = slice(None)) -> Iterator[tuple[Array, Array]]:
        """Yield the batches (x, t) of a part, from first to last, in the first size."""
        every = self._home.xp.arange(self.examples)[part]
        yield from map(self.take, self._in_turn(_parts(every, self.size(0))))

    @contextmanager
    def _explaining(self, part: Array) -> Iterator[None]:
        """Within a block: see that `part` is numbers of examples, and say if there are none such.

        Raises
        ------
        DTypeError, ShapeError, ArgumentError
            If it is not.
        """
        if real_array("part", part, "iu").ndim != 1:
            raise ShapeError(f"part must be the numbers of examples, (size,), got {part.shape}.")
        try:
            yield
        except IndexError as error:
            raise ArgumentError(
                f"part must hold numbers of examples below {self.examples}: {error}."
            ) from error

    def _in_turn(self, parts: Iterator[Array]) -> Iterator[Array]:
        for ahead in (self._ahead or {}).values():
            parts = ahead.in_turn(parts)
        return parts

    def _floats(self, name: str, part: Array) -> Array:
        if self._ahead is None:
            return self._backend.gather(self._xs[name], part, self.dtype, self.divisor)
        rows = self._here(self._ahead[name].take(part))  # fewer bytes travel before they are floats
        every = self._backend.xp.arange(len(rows))
        return self._backend.gather(rows, every, self.dtype, self.divisor)

    def _here(self, a: Array) -> Array:
        return a if self.resident else self._backend.asarray(a)


def batch_sizes(batch_size: int | Mapping[int, int]) -> dict[int, int]:
    """Return from which epoch on a batch holds how many examples; an int holds from epoch 0 on.

    Raises
    ------
    ArgumentError
        If it is neither a size nor a mapping of epochs, 0 among them, to sizes.
    """
    if not isinstance(batch_size, Mapping):
        return {0: whole_number("batch_size", batch_size)}
    sizes = {
        whole_number("an epoch in batch_size", first, least=0): whole_number(
            f"batch_size from epoch {first} on", size
        )
        for first, size in batch_size.items()
    }
    if 0 not in sizes:
        raise ArgumentError(
            f"batch_size must say how many from epoch 0 on, as in {{0: 100, 3: 400}}, "
            f"got {dict(batch_size)!r}."
        )
    return dict(sorted(sizes.items()))


def check_reached(batch_size: int | Mapping[int, int], epochs: int) -> None:
    """See that a training of so many epochs comes to all sizes of `batch_size`.

    Raises
    ------
    ArgumentError
        If it does not, or `batch_size` says no sizes; see `batch_sizes`.
    """
    for first, size in batch_sizes(batch_size).items():
        if first >= epochs:
            raise ArgumentError(
                f"batch_size is {size} after {first} epochs, and there are only {epochs}; train "
                "longer, or leave that out."
            )


def _by_name(argument: str, a: Any) -> dict[str, Array]:
    """Return the arrays given, by name; one alone is called after the argument."""
    if not isinstance(a, Mapping):
        return {argument: _numbers(argument, a)}
    if not a:
        raise ArgumentError(f"{argument} is an empty dictionary.")
    return {name: _numbers(f"{name} in {argument}", one) for name, one in a.items()}


def _alone(arrays: Mapping[str, Any]) -> Any:
    return next(iter(arrays.values())) if len(arrays) == 1 else dict(arrays)


def _check_lengths(arrays: Mapping[str, Array]) -> None:
    shapes = {name: a.shape for name, a in arrays.items()}
    if any(not shape for shape in shapes.values()) or len({s[0] for s in shapes.values()}) > 1:
        raise ShapeError(
            f"x and t must be of one length, got shapes {' and '.join(map(str, shapes.values()))}."
        )
    if not next(iter(shapes.values()))[0]:
        raise ArgumentError("x and t are empty; there is nothing to train on.")
    for name, a in arrays.items():
        check_finite(name.removeprefix("t "), a)


def _numbers(argument: str, a: Any) -> Array:
    """Return `a`, an array of real numbers or a list of them, as an array."""
    if isinstance(a, StoredPictures):
        return a  # type: ignore[return-value]
    if not hasattr(a, "dtype"):
        try:
            a = np.asarray(a)
        except ValueError as error:
            raise ShapeError(
                f"{argument} must be an array, or a rectangular list of numbers, got {shown(a)}."
            ) from error
    return real_array(argument, a)


def _parts(indices: Array, size: int) -> Iterator[Array]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]
