"""The next batch, read by a thread while the last one is learned from."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from concurrent.futures import Future

Part: TypeAlias = Any  # an array of examples' numbers, (size,)


class ReadAhead:
    """Rows of x (N, ...), an array on the host or `StoredPictures`.

    Whoever takes a part that `in_turn` yielded finds it read, and has the one after it read
    meanwhile. Parts may be passed over, or taken out of turn: those are read when they are taken.
    """

    def __init__(self, x: Any) -> None:
        from concurrent.futures import ThreadPoolExecutor  # `import xpdl` shall be quick

        self._x = x
        self._turn: tuple[Part, Part | None] | None = None  # a part, and the next one
        self._ready: tuple[Part, Future[Any]] | None = None
        self._thread = ThreadPoolExecutor(1, "xpdl-read-ahead")  # begins with its first task

    def in_turn(self, parts: Iterator[Part]) -> Iterator[Part]:
        """Yield `parts`, in that order."""
        part: Part | None = None
        for following in chain(parts, [None]):
            if part is not None:
                self._turn = (part, following)
                yield part
            part = following

    def take(self, part: Part) -> Any:
        """Return the rows of a part."""
        ready, self._ready = self._ready, None
        rows = ready[1].result() if ready is not None and ready[0] is part else self._x[part]
        if self._turn is not None and self._turn[0] is part and self._turn[1] is not None:
            following = self._turn[1]
            self._ready = following, self._thread.submit(self._x.__getitem__, following)
        return rows
