"""How long ranks wait for gradients: by a clock that only messages and a layer move."""

from __future__ import annotations

import types

import numpy as np
import pytest

from xpdl.distributed import ThreadRanks, in_threads
from xpdl.errors import ArgumentError
from xpdl.layers import Affine, ReLU
from xpdl.network import Network
from xpdl.optimizers import SGD
from xpdl.training import gradient_sum
from xpdl.tuning import messages
from xpdl.tuning.messages import time_messages

BACKWARD = 10_000.0  # seconds of the first layer's backward pass


def make_network(first=Affine):
    layers = [first(5), ReLU(), Affine(4), ReLU(), Affine(3)]
    return Network(layers, 6, seed=0, dtype="float32")


def make_batch(backend, rows=8):
    x = np.random.default_rng(0).random((rows, 6), dtype=np.float32)
    return backend.asarray(x), backend.asarray(np.arange(rows) % 3)


class Sent:
    """A message that is there when the clock says so, or once it is waited for."""

    def __init__(self, clock, due):
        self._clock, self._due = clock, due

    def test(self):
        return self._clock.now >= self._due

    def wait(self):
        self._clock.now = max(self._clock.now, self._due)


class LinkedRanks(ThreadRanks):
    """A rank whose link carries a number a second, pieces of gradients one after the other.

    Beside it is another of which is only told, and which takes a second longer for everything.
    """

    def begin_sum(self, a):
        if a.dtype == np.float64:  # the loss, in no time
            return Sent(self.clock, 0.0)
        self.free = max(self.free, self.clock.now) + a.size
        return Sent(self.clock, self.free)

    def gather(self, value, *, patient=False):
        if value is None:
            return [None]
        return [value, {name: [t + 1 for t in times] for name, times in value.items()}]


def test_what_is_hidden_and_what_is_not(monkeypatch, on_numpy):
    clock = types.SimpleNamespace(now=0.0)
    clock.perf_counter = lambda: clock.now
    monkeypatch.setattr(messages, "time", clock)
    monkeypatch.setattr(gradient_sum, "PIECE", 1)

    class Slow(Affine):
        def backward(self, dout):
            clock.now += BACKWARD
            return super().backward(dout)

    network = make_network(Slow)

    def work(ranks):
        ranks = LinkedRanks(0, ranks._table)
        ranks.clock, ranks.free = clock, 0.0
        x, t = make_batch(network.backend)
        return time_messages(network, x, t, SGD(0.1), ranks, rounds=3)

    (found,) = in_threads(1, work)
    layout, total = network.parameters.layout, network.params.buffer.size
    # While the first layer is in backward, the weights of the others travel.
    hidden = layout.weights_end - layout.offsets["affine2.W"]
    assert 0 < hidden < total
    assert (found.pieces, found.nbytes, found.dtype) == (6, 4 * total, "float32")
    assert found.alone == total
    assert found.hidden == hidden
    assert found.exposed == total - hidden
    assert found.step == BACKWARD + total - hidden + 1
    assert found.late == 0.5
    table = found.table().splitlines()
    assert table[0].startswith("together")
    assert f"{1000 * hidden:.2f} ms behind backward" in table[2]
    assert f"{1000 * (total - hidden):.2f} ms when the last" in table[3]


@pytest.mark.parametrize("reduce_dtype", [None, "float16"])
def test_every_rank_is_told_the_same(backend, reduce_dtype):
    def work(ranks):
        network = make_network()
        x, t = make_batch(network.backend)
        how = {"rounds": 2, "reduce_dtype": reduce_dtype}
        return time_messages(network, x, t, SGD(0.1), ranks, **how)

    first, *others = in_threads(3, work)
    assert others == [first, first]
    size = 4 if reduce_dtype is None else 2
    assert first.nbytes == size * make_network().params.buffer.size
    assert first.dtype == (reduce_dtype or "float32")
    assert first.step > 0
    assert first.exposed >= 0
    assert 0 <= first.hidden <= first.alone


@pytest.mark.parametrize(
    ("rows", "options", "told"),
    [
        (2, {}, "3 processes cannot share a batch of 2"),
        (8, {"rounds": 0}, "rounds"),
        (8, {"reduce_dtype": "float8"}, "reduce_dtype"),
    ],
    ids=["rows", "rounds", "type"],
)
def test_what_cannot_be_timed(backend, rows, options, told):
    network = make_network()
    x, t = make_batch(backend, rows)
    ranks = ThreadRanks(0, types.SimpleNamespace(places=[None] * 3))
    with pytest.raises(ArgumentError, match=told):
        time_messages(network, x, t, SGD(0.1), ranks, **options)
