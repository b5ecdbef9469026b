"""Gradients summed over all ranks, in pieces, while earlier layers are still in backward."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Self

import numpy as np

from xpdl.arguments import flag
from xpdl.distributed.half import HalfSum
from xpdl.distributed.ranks import Pending, Ranks
from xpdl.distributed.share import Share, sharing
from xpdl.errors import ArgumentError, shown
from xpdl.network import Network
from xpdl.precision import Precision

# Bytes of a piece. Larger ones begin late, and each message takes time of its own:
# `python -m bench distributed --pieces` measures it.
PIECE = 2**20


class GradientSum:
    """Sums the gradients of a network over all ranks.

    The buffer is cut into pieces, from the last layer to the first; a piece is sent as soon as
    each layer in it has had its backward pass, and always behind the one before it, so that all
    ranks send in one order (Li et al. 2020, arXiv:2006.15704). What does not decay, biases and the
    like, lies together at the buffer's end, and goes last.

    Parameters
    ----------
    network : Network
    ranks : Ranks
    piece : int
        How many bytes a piece has at least, but for the last.
    whole_statistics : bool
        Whether batch normalisation is over the whole batch, not over each rank's rows.
    reduce_dtype : {None, "float16"}
        In what gradients travel: their own type, or `HalfSum`'s messages.

    Attributes
    ----------
    dtype : str
        In what gradients travel.
    waited : float
        Seconds that the host has waited for sums, the loss's too, that backward did not hide.
    seconds : float
        From the first sum to the last, in which that was.
    """

    waited = seconds = 0.0
    _through = 0.0
    _first: float | None = None

    def __init__(
        self,
        network: Network,
        ranks: Ranks,
        piece: int = PIECE,
        whole_statistics: bool = True,
        reduce_dtype: str | None = None,
    ) -> None:
        self._network, self._ranks = network, ranks
        self._whole_statistics = whole_statistics
        self.dtype = reduce_dtype or network.grads.buffer.dtype.name
        self._halves = reduce_dtype is not None
        self.pieces, self._layers = _cut(network, piece)
        self._begin()

    @classmethod
    def over(
        cls,
        ranks: Ranks | None,
        network: Network,
        whole_statistics: bool,
        reduce_dtype: str | None = None,
    ) -> Self | None:
        """Return the sum over ranks, if there are any.

        Raises
        ------
        ArgumentError
            If `ranks` are none, or `whole_statistics` is no bool.
        """
        flag("whole_statistics", whole_statistics)
        if ranks is None:
            return None
        if not isinstance(ranks, Ranks):
            raise ArgumentError(f"ranks must be Ranks, as connect() finds, got {shown(ranks)}.")
        return cls(network, ranks, PIECE, whole_statistics, reduce_dtype)

    @property
    def nbytes(self) -> int:
        """How many bytes of gradients travel."""
        return self._network.grads.buffer.size * np.dtype(self.dtype).itemsize

    def share_of(self, samples: int) -> Share:
        """Return which rows of a batch of so many are this rank's."""
        return Share.of(self._ranks, samples, self._whole_statistics)

    def sharing(self, share: Share | None) -> AbstractContextManager[None]:
        """Let layers know, within a block, which rows of the batch they see."""
        return sharing(self._network.leaves().values(), share)

    def _begin(self) -> None:
        self._lacking = [set(layers) for layers in self._layers]
        self._under_way: list[Any] = []  # of Pending

    @contextmanager
    def as_they_come(self) -> Iterator[None]:
        """Within a block that makes a backward pass, send each piece when it is final."""
        leaves = self._network.leaves()
        self._begin()
        for name, layer in leaves.items():
            if layer.specs:
                vars(layer)["backward"] = self._watched(name, layer.backward)
        try:
            yield
        finally:
            for layer in leaves.values():
                vars(layer).pop("backward", None)

    def _watched(self, name: str, backward: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*douts: Any) -> Any:
            dx = backward(*douts)
            for lacking in self._lacking:
                lacking.discard(name)
            self._send_final()
            return dx

        return watched

    def _send_final(self) -> None:
        """Send the pieces that are final and next, and help those along that are under way."""
        while self._lacking[len(self._under_way) :] and not self._lacking[len(self._under_way)]:
            self._send()
        for message in self._under_way:
            message.test()

    def _send(self) -> None:
        piece = self._network.grads.buffer[self.pieces[len(self._under_way)]]
        message: Pending
        if self._halves:
            message = HalfSum(self._ranks, piece, *self._under_way[-1:])
        else:
            message = self._ranks.begin_sum(piece)
        self._under_way.append(message)

    def through_backward(self) -> None:
        """Note that from now on it is waited for sums."""
        self._through = time.perf_counter()

    def finish(self) -> None:
        """Send what was not sent, and return when all sums are there."""
        while len(self._under_way) < len(self.pieces):
            self._send()
        for message in self._under_way:
            message.wait()
        self._begin()
        end = time.perf_counter()
        if self._first is None:  # which may have waited for what others compiled
            self._first = end
            return
        self.waited += end - self._through
        self.seconds = end - self._first


def check_reduce_dtype(reduce_dtype: Any, precision: Precision) -> str | None:
    """Return in what type gradients are to travel, if they can.

    Raises
    ------
    ArgumentError
        If it is none, or would lose what float64 is for.
    """
    if reduce_dtype is None:
        return None
    if not isinstance(reduce_dtype, str) or reduce_dtype != "float16":
        raise ArgumentError(
            'reduce_dtype must be "float16", or None for the gradients\' own type, got '
            f"{shown(reduce_dtype)}."
        )
    if precision.accumulate != "float32":
        raise ArgumentError(
            f'reduce_dtype="float16" rounds gradients to 11 bits, and this network\'s are '
            f"{precision.accumulate}, of 53: leave it out, or take dtype float32 or float16."
        )
    return str(reduce_dtype)


@contextmanager
def summing(gradients: GradientSum | None, share: Share | None, whole: bool) -> Iterator[None]:
    """Within a block, let layers know their share, and gradients be sent as they come, if `whole`.

    Without ranks, nothing.
    """
    if gradients is None:
        yield
        return
    come = gradients.as_they_come() if whole else nullcontext()
    with gradients.sharing(share), come:
        yield
    gradients.through_backward()


def _cut(network: Network, size: int) -> tuple[list[slice], list[set[str]]]:
    """Return the pieces of the buffer, in the order of the backward pass, and each one's layers."""
    layout, itemsize = network.parameters.layout, network.grads.buffer.dtype.itemsize
    starts = sorted((start, name.rpartition(".")[0]) for name, start in layout.offsets.items())
    pieces, layers = [], []
    for begin, end in ((0, layout.weights_end), (layout.weights_end, layout.size)):
        stop, within = end, set[str]()
        for start, layer in reversed([(s, name) for s, name in starts if begin <= s < end]):
            within.add(layer)
            if (stop - start) * itemsize >= size or start == begin:
                pieces.append(slice(start, stop))
                layers.append(within)
                stop, within = start, set()
    return pieces, layers
