"""The counts of updates of parameters that are frozen, or were for a while."""

from __future__ import annotations

from collections.abc import Mapping

from xpdl.backends import Number, backend_of
from xpdl.optimizers.clock import whole


class OwnCounts:
    """How many updates a parameter has had, where that is not the optimizer's `iteration`.

    Adam divides by 1 - beta^n at a parameter's n-th update; by the n of all, the first steps of
    one that wakes late would be too long. While it is frozen its own count stands still, and
    afterwards it is behind by what it missed. So nothing is counted a second time, and a step on
    a device does no work for it: the two numbers change places when a layer is frozen or wakes.

    Attributes
    ----------
    apart : dict of str to number
        Of a frozen parameter, how many updates it has had; of one that was, how many it missed.
    frozen : set of str
        What was frozen at the last update.
    """

    def __init__(self, had: Mapping[str, int] | None = None) -> None:
        self.apart: dict[str, Number] = {name: int(n) for name, n in (had or {}).items()}
        self.frozen = frozenset(self.apart)  # the next update sees what is frozen still

    def follow(self, iteration: Number, frozen: frozenset[str]) -> None:
        """Know what is frozen at the update after so many."""
        for name in frozen ^ self.frozen:
            number = self.apart[name] = _since(iteration, self.apart.get(name, 0))
            if name not in frozen and isinstance(number, int) and not number:
                del self.apart[name]  # it has missed none
        self.frozen = frozen

    @property
    def differ(self) -> bool:
        """Whether what learns is of several ages."""
        return bool(self.apart.keys() - self.frozen)

    def of(self, name: str, iteration: Number) -> Number:
        """Return how many updates a parameter that learns has had of so many."""
        return _since(iteration, self.apart[name]) if name in self.apart else iteration

    def on_host(self, iteration: int) -> dict[str, int]:
        """Return each count that is not `iteration`; this waits for the device."""
        counts = {
            name: whole(count) if name in self.frozen else iteration - whole(count)
            for name, count in self.apart.items()
        }
        return {name: count for name, count in counts.items() if count != iteration}

    def keep_on_host(self) -> None:
        """Bring the counts back to the host; this waits for the device."""
        self.apart = {name: whole(count) for name, count in self.apart.items()}


def _since(now: Number, before: Number) -> Number:
    """Return how many updates were made after the first so many."""
    # NumPy makes a number of its own of the difference of two arrays ().
    return now - before if isinstance(now, int) else backend_of(now).asarray(now - before)
