"""The learning rate and the count of updates, on the host or on a device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from xpdl.arguments import number
from xpdl.backends import Array, Backend, Number, backend_of


class Clock:
    """What an optimizer knows of time.

    Attributes
    ----------
    iteration : int
        How many updates were made; within `time_kept_on`, an array () that counts on the device.
    """

    iteration: Number = 0
    _device_rate: Array | None = None  # while it is kept there
    _places: tuple[Array, Array] | None = None  # of rate and count, on a device

    @property
    def learning_rate(self) -> Number:
        """How far to go, per unit of gradient; within `time_kept_on`, an array ()."""
        return self._host_rate if self._device_rate is None else self._device_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._host_rate = number("learning_rate", value)
        if self._device_rate is not None:  # in its place, where a captured step looks for it
            self._device_rate[...] = self._host_rate

    def host_learning_rate(self) -> float:
        """Return the learning rate as it was last set, wherever it is kept."""
        return self._host_rate

    def keep_time_on(self, backend: Backend, dtype: Any) -> None:
        """Keep the learning rate and the count of updates on the device from now on.

        So a step can be left out (`go` of `update`), or captured and replayed, without the host's
        having to know.
        """
        if self._device_rate is not None:
            return
        places = self._places  # always the same two, where a captured step looks for them
        if places is None or not backend.owns(places[0]) or places[0].dtype != dtype:
            places = self._places = backend.asarray(0.0, dtype), backend.asarray(0.0, dtype)
        rate, iteration = places
        rate[...], iteration[...] = self._host_rate, float(whole(self.iteration))
        self._device_rate, self.iteration = rate, iteration

    def keep_time_on_host(self) -> None:
        """Bring them back to the host; this waits for the device."""
        self._device_rate, self.iteration = None, whole(self.iteration)

    @contextmanager
    def time_kept_on(self, backend: Backend, dtype: Any) -> Iterator[None]:
        """Keep the learning rate and the count of updates on the device as long as a block runs."""
        self.keep_time_on(backend, dtype)
        try:
            yield
        finally:
            self.keep_time_on_host()

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_places": None}  # a copy has a time of its own


def whole(count: Number) -> int:
    """Return a count that may be on a device; then this waits for it."""
    return count if isinstance(count, int) else round(backend_of(count).item(count))
