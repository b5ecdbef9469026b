"""The ranks of a training, and the verbs by which they speak."""

from __future__ import annotations

from _thread import interrupt_main
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar

from xpdl.backends import Array
from xpdl.errors import ArgumentError, RanksError, XpdlError

Result = TypeVar("Result")


class Pending(Protocol):
    """A message that is under way."""

    def test(self) -> bool:
        """Help the message along; tell whether it is done."""

    def wait(self) -> None:
        """Return when the message is done, and its array may be used again."""


class Arriving(Protocol):
    """A message that is under way, and brings an array."""

    def test(self) -> bool:
        """Help the message along; tell whether it is done."""

    def wait(self) -> Array:
        """Return what came, when it is there."""


class Ranks:
    """The processes that train together, as one of them sees them.

    Every rank must call the same verbs in the same order, with arrays of the same shape and type.

    Attributes
    ----------
    rank : int
        Which one this is, from 0 on. Rank 0 writes and prints.
    size : int
        How many there are.
    stacks_apart : bool
        Whether what `begin_stack` sends travels by a way of its own, so that it need only keep its
        order among stacks, not among other messages.
    """

    rank: int
    size: int
    stacks_apart = True

    # ---- values of the host, of any kind --------------------------------------------------------

    def broadcast(self, value: Any = None, *, patient: bool = False) -> Any:
        """Return, on every rank, the `value` that rank 0 gave.

        Parameters
        ----------
        value : object
            Of rank 0; what other ranks give is not looked at.
        patient : bool
            Whether rank 0 may take any time until it speaks, `working_alone`.

        Raises
        ------
        RanksError
            If a rank does not take part in time.
        """
        raise NotImplementedError

    def gather(self, value: Any, *, patient: bool = False) -> list[Any]:
        """Return, on every rank, the value of each rank, in order.

        Parameters
        ----------
        value : object
        patient : bool
            Whether others may take any time until they speak, `working_alone`.

        Raises
        ------
        RanksError
            If a rank does not take part in time.
        """
        raise NotImplementedError

    def barrier(self) -> None:
        """Return when all ranks have come here; see `gather`."""
        self.gather(None)

    def working_alone(
        self, interrupt: Callable[[], object] = interrupt_main
    ) -> AbstractContextManager[None]:
        """Within a block in which this rank says nothing, show the others that it is there.

        The block may take any time. If another rank is found to be gone, `interrupt` is called, in
        a thread, and the KeyboardInterrupt that it ends the block with becomes a RanksError.

        Raises
        ------
        RanksError
            If a rank gives no sign of life any more.
        """
        return nullcontext()

    # ---- arrays, where they live ----------------------------------------------------------------

    def begin_sum(self, a: Array) -> Pending:
        """Begin to put the sum over all ranks into `a`, contiguous floats, the same on all.

        The array must not be touched until the answer's `wait` returns.
        """
        raise NotImplementedError

    def begin_exchange(self, a: Array) -> Arriving:
        """Begin to send row i of `a`, (size, m), to rank i; what comes, (size, m), is in order.

        The array must live, and not be touched, until the answer's `wait` returns.
        """
        raise NotImplementedError

    def begin_stack(self, a: Array) -> Arriving:
        """Begin to bring the array of every rank, (size, *shape), in order.

        The array must live, and not be touched, until the answer's `wait` returns.
        """
        raise NotImplementedError

    def stack(self, a: Array) -> Array:
        """Return the array of every rank, (size, *shape), in order."""
        raise NotImplementedError

    def sum(self, a: Array) -> None:
        """Put the sum over all ranks into `a`, contiguous floats, the same on all.

        Raises
        ------
        RanksError
            If a rank does not take part in time.
        """
        self.begin_sum(a).wait()

    # ---- made of these --------------------------------------------------------------------------

    def any(self, flag: bool) -> bool:
        """Tell, on every rank, whether one of them says so."""
        return any(self.gather(bool(flag)))

    def first(self, function: Callable[[], Result]) -> Result:
        """Return what `function` returns on rank 0, which alone calls it.

        Raises
        ------
        XpdlError
            On every rank, the error that it raises there.
        """
        told: tuple[Any, Any] = (None, None)
        failed: XpdlError | None = None
        if self.rank == 0:
            with self.working_alone():
                try:
                    told = None, function()
                except XpdlError as error:
                    told, failed = (type(error), str(error)), error
        kind, value = self.broadcast(told, patient=True)
        if failed is not None:
            raise failed
        if kind is not None:
            raise kind.__new__(kind, value)  # as it was, whatever it was made of
        return value

    def expect_same(self, told: dict[str, Any]) -> None:
        """See that all ranks tell the same of each thing.

        Raises
        ------
        ArgumentError
            On every rank, if they do not; it names the first that differs, and in what.
        """
        first, *rest = self.gather(told)
        for rank, one in enumerate(rest, 1):
            for name in {**first, **one}:
                if first.get(name) != one.get(name):
                    raise ArgumentError(
                        f"rank {rank} has another {name} than rank 0: {one.get(name)!r}, not "
                        f"{first.get(name)!r}. Start all ranks with the same."
                    )

    def rows(self, total: int) -> slice:
        """Return which of `total` rows are this rank's; ranks differ by one row at most."""
        return rows_of_rank(self.rank, self.size, total)

    def settle(self) -> None:
        """Wait less from now on: a step was made, so nothing is compiled any more."""

    @property
    def speaks(self) -> bool:
        """Whether this rank says what one alone knows, or, of those that miss another, the first.

        A rank that waits in vain finds out who else does.
        """
        return True

    def leave(self, message: str) -> bool:
        """Tell the others that this rank ends with an error; return whether they do so, too.

        Where they do not, they wait for what never comes, and must be ended.
        """
        return True

    def abort(self, code: int) -> None:
        """End all ranks at once."""
        raise RanksError(f"rank {self.rank} has ended all with code {code}.")

    def __copy__(self) -> Ranks:
        return self

    def __deepcopy__(self, memo: Any) -> Ranks:
        return self


def rows_of_rank(rank: int, size: int, total: int) -> slice:
    """Return which of `total` rows belong to one of `size` ranks: one after the other, evenly."""
    return slice(rank * total // size, (rank + 1) * total // size)
