"""The moving average of a network's parameters: what is tested and kept of a training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from xpdl.arguments import number, whole_number
from xpdl.backends import Array
from xpdl.network import Network


class MovingAverage:
    """An exponential moving average of a network's parameters over the updates of a training.

    a <- a + (1 - d) (p - a)        d = min(decay, (1 + t) / (10 + t))

    after update number t, counted from 0, of the parameters p. (Polyak and Juditsky 1992 average
    all iterates alike; this one forgets, mostly what lies more than 1 / (1 - decay) updates back.)
    The bound on d is its warm-up: a short training must not remember the first random weights.

    Statistics that are saved but not trained, as those of batch normalisation, are averaged by the
    same formula, so that they are of the same iterates; they are not measured anew with a. All of
    it lives on the network's device, in the type of what it averages.

    Parameters
    ----------
    network : Network
        Whose parameters; they are never replaced, only written into, so that a captured step goes
        on finding them.
    decay : float
        How much of the average stays at each update, in [0, 1).
    warm_up : bool
        Whether d begins small; otherwise it is `decay` throughout.
    """

    def __init__(self, network: Network, decay: float, warm_up: bool = True) -> None:
        self.decay = number("decay", decay, below=1)
        self.warm_up = warm_up
        self._network = network
        self._updates = network.backend.xp.zeros((), dtype=network.precision.parameters)
        self._params = network.params.zeros_like()
        self._state = {name: a.copy() for name, a in network.state.items()}
        self._trained: list[Array] | None = None  # while the averages stand in their place

    def settings(self) -> dict[str, Any]:
        """Return what decides how it averages, as JSON can hold it."""
        return {"decay": self.decay, "warm_up": self.warm_up}

    def start(self) -> None:
        """Begin at the network as it is."""
        self._trained = None
        self._updates[...] = 0
        for a, p in self._pairs():
            a[...] = p

    def update(self, go: Array | None = None) -> None:
        """Take in the parameters as an update left them; reads nothing from the device.

        Parameters
        ----------
        go : array, (), bool, optional
            Where it is false the update was skipped, and nothing changes and nothing is counted.
        """
        xp, t = self._network.backend.xp, self._updates
        d = xp.minimum((1 + t) / (10 + t), self.decay) if self.warm_up else self.decay
        for a, p in self._pairs():
            step = p - a
            step *= 1 - d
            a += step if go is None else xp.where(go, step, 0)
        self._updates += 1 if go is None else go

    @contextmanager
    def in_network(self) -> Iterator[None]:
        """Let the network answer with the averages as long as a block runs."""
        self.show()
        try:
            yield
        finally:
            self.hide()

    def show(self) -> None:
        """Put the averages into the network, and keep aside what it had been trained to."""
        if self._trained is None:
            self._trained = [p.copy() for _, p in self._pairs()]
        for a, p in self._pairs():
            p[...] = a

    def hide(self) -> None:
        """Put back into the network what it had been trained to, if `show` took it out."""
        if self._trained is not None:
            for (_, p), trained in zip(self._pairs(), self._trained, strict=True):
                p[...] = trained
            self._trained = None

    def _pairs(self) -> Iterator[tuple[Array, Array]]:
        """Yield each array of averages with what is averaged in it."""
        network = self._network
        yield self._params.buffer, network.params.buffer
        for name, a in self._state.items():
            yield a, network.state[name]

    # ---- to and from a file ---------------------------------------------------------------------

    def arrays(self) -> dict[str, Array]:
        """Return the averages by the names of `Network.arrays`."""
        return {**self._params, **self._state}

    def updates(self) -> int:
        """Return how many updates were averaged; this waits for the device."""
        return round(self._network.backend.item(self._updates))

    def restore(self, arrays: Mapping[str, Array], updates: int) -> None:
        """Go on from what `arrays`, on the host, and `updates` returned; the network is left so.

        Raises
        ------
        ArgumentError, ShapeError, DTypeError
            If they do not fit the network. Nothing is changed then.
        """
        count = whole_number("updates", updates, least=0)
        self._network.load_arrays(arrays)
        self.start()
        self._updates[...] = count
