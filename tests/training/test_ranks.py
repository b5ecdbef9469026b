"""Several ranks train as one process does; here they are threads."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import xpdl
from xpdl.datasets.augmentation import (
    Brightness,
    Compose,
    Crop,
    Cutout,
    Elastic,
    Erase,
    Flip,
    Mixup,
    Noise,
    OfRows,
    Rotate,
    Shift,
)  # fmt: skip
from xpdl.distributed import Share, ThreadRanks, in_threads, sharing
from xpdl.errors import ArgumentError, RanksError
from xpdl.layers import (
    Affine,
    BatchNormalization,
    Convolution,
    Dropout,
    Flatten,
    MaxPooling,
    ReLU,
)  # fmt: skip
from xpdl.losses import IdentityWithLoss, SigmoidWithLoss, SoftmaxWithLoss
from xpdl.network import Network
from xpdl.optimizers import SGD, Adam, Momentum
from xpdl.training import Step, Trainer, gradient_sum

SIZES = (2, 3, 4)
EXAMPLES = 43  # the last batch has 3, one less than 4 ranks want


@pytest.fixture(autouse=True)
def _float64(on_numpy):
    return


def make_network(seed=0, dtype="float64", loss=None):
    layers = [
        # A bias right before a batch norm would have a gradient of nothing but rounding.
        *(Convolution(4, 3, pad=1), ReLU(), BatchNormalization(), MaxPooling(2)),
        *(Flatten(), Affine(12), ReLU(), BatchNormalization(epsilon=1e-3, unbiased=True)),
        *(Dropout(0.3), Affine(3)),
    ]
    return Network(layers, (1, 6, 6), seed=seed, dtype=dtype, loss=loss, weight_decay=1e-3)


def make_data(rng, dtype="float64"):
    return rng.random((EXAMPLES, 1, 6, 6)).astype(dtype), rng.integers(0, 3, EXAMPLES)


def arrays(network):
    return {name: a.copy() for name, a in network.arrays().items()}


def expect_close(found, wanted, tolerance):
    assert found.keys() == wanted.keys()
    for name, a in wanted.items():
        worst = np.abs(found[name] - a).max()
        assert worst <= tolerance * max(np.abs(a).max(), 1e-3), (name, worst)


def train(data, ranks=None, optimizer=None, network=None, epochs=2, **options):
    network = make_network() if network is None else network
    options = {"batch_size": 10, **options}
    trainer = Trainer(
        network, data, data, optimizer=copy.deepcopy(optimizer or Momentum(0.05)), epochs=epochs,
        seed=3, progress=False, ranks=ranks, **options,
    )  # fmt: skip
    history = trainer.fit()
    return trainer, history


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("optimizer", "tolerance"), [(SGD(0.05), 1e-12), (Momentum(0.05), 1e-12), (Adam(), 1e-9)],
    ids=["sgd", "momentum", "adam"],
)  # fmt: skip
def test_ten_steps_are_those_of_one_process(rng, size, optimizer, tolerance):
    data = make_data(rng)
    alone, before = train(data, optimizer=optimizer)
    assert len(before.losses) == 10
    together = in_threads(size, lambda ranks: train(data, ranks, optimizer))
    for trainer, history in together:
        expect_close(arrays(trainer.network), arrays(alone.network), tolerance)
        np.testing.assert_allclose(history.losses, before.losses, rtol=1e-9)
        assert [e.test_accuracy for e in history.epochs] == [e.test_accuracy for e in before.epochs]
        assert [e.train_accuracy for e in history.epochs] == [
            e.train_accuracy for e in before.epochs
        ]
        np.testing.assert_array_equal(trainer.answers, alone.answers)
        np.testing.assert_array_equal(
            trainer.network.params.buffer, together[0][0].network.params.buffer
        )


AUGMENTATIONS = {
    "geometry": Compose([Rotate(20), Shift(1), Elastic(1.0, sigma=2.0), Flip()]),
    "pixels": Compose([Brightness(0.2), Erase(2, probability=0.5), Cutout(2), Crop(pad=1)]),
    "noise": Noise(0.1),
    "mixup": Compose([Shift(1), Mixup(0.4)]),
    "own": lambda x, generator: x + generator.random(x.shape, np.float32) * x.mean(),
}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_pictures_are_changed_as_in_one_process(rng, name):
    data, augment = make_data(rng), AUGMENTATIONS[name]
    alone, _ = train(data, augment=augment)
    for trainer, _ in in_threads(3, lambda ranks: train(data, ranks, augment=augment)):
        expect_close(arrays(trainer.network), arrays(alone.network), 1e-11)


def test_rows_of_pictures_are_changed_alike(rng):
    x, t = make_data(rng)
    augment = OfRows(Rotate(10), (1, 6, 6))

    def flat(ranks=None):
        network = Network([Affine(8), ReLU(), Affine(3)], 36, dtype="float64")
        return train((x.reshape(-1, 36), t), ranks, network=network, augment=augment)[0]

    wanted = arrays(flat().network)
    for trainer in in_threads(2, flat):
        expect_close(arrays(trainer.network), wanted, 1e-12)


LOSSES = {
    "smoothing": (SoftmaxWithLoss(label_smoothing=0.1), lambda t: t),
    "ignored": (SoftmaxWithLoss(ignored=1), lambda t: t),
    "class weights": (SoftmaxWithLoss(class_weights=(1.0, 5.0, 0.2)), lambda t: t),
    "sigmoid": (SigmoidWithLoss(ignored=2), lambda t: t[:, None] * np.ones(3, int)),
    "regression": (IdentityWithLoss(), lambda t: t[:, None] * np.linspace(0, 1, 3)),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"average": 0.9}], ids=str)
def test_each_loss_is_divided_once_over_all(rng, name, options):
    loss, make_targets = LOSSES[name]
    x, t = make_data(rng)
    data = x, make_targets(t)

    def work(ranks=None):
        network = make_network(loss=copy.deepcopy(loss))
        return train(data, ranks, network=network, optimizer=SGD(0.02, clip_norm=0.5), **options)

    alone, before = work()
    for trainer, history in in_threads(3, work):
        expect_close(arrays(trainer.network), arrays(alone.network), 1e-11)
        np.testing.assert_allclose(history.losses, before.losses, rtol=1e-11)


class Cubes(IdentityWithLoss):
    """A loss of somebody's own, a mean over the rows that tells no weight."""

    def forward(self, x, t, weights=None):
        self.d = x - t
        return (np.abs(self.d) ** 3).sum() / len(x)

    def backward(self, dout=1.0):
        return 3 * self.d * np.abs(self.d) * (dout / len(self.d))


@pytest.mark.parametrize("weighted", [False, True])
def test_several_outputs(rng, weighted):
    x, t = make_data(rng)
    targets = {"class": t, "level": x.mean(axis=(1, 2, 3))[:, None]}
    each = (rng.random(EXAMPLES),) if weighted else ()

    def work(ranks=None):
        node = xpdl.Input((1, 6, 6))
        h = BatchNormalization()(ReLU()(Affine(6)(Flatten()(node))))
        level = IdentityWithLoss() if weighted else Cubes()
        network = Network(
            node, {"class": Affine(3)(h), "level": Affine(1)(h)}, dtype="float64",
            loss={"class": SoftmaxWithLoss(ignored=0), "level": level},
            loss_weights={"class": 1.0, "level": 0.5},
        )  # fmt: skip
        return train((x, targets, *each), ranks, network=network)[0]

    wanted = arrays(work().network)
    for trainer in in_threads(3, work):
        expect_close(arrays(trainer.network), wanted, 1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_first_gradients_in_single_precision(rng, size):
    x, t = make_data(rng, "float32")

    def work(ranks=None):
        network = make_network(dtype="float32")
        Step(network, SGD(0.0), ranks=ranks)(x, t)
        return network.grads.copy()

    wanted = work()
    for grads in in_threads(size, work):
        expect_close(dict(grads), dict(wanted), 1e-5)


def layers_with(norm):
    """Return layers with a batch normalisation before or after an activation, or without."""
    before, after = ([BatchNormalization()] if norm == place else [] for place in NORMS[1:])
    head = [Flatten(), Affine(12), ReLU(), Affine(3)]
    return [Convolution(4, 3, pad=1), *before, ReLU(), *after, MaxPooling(2), *head]


NORMS = ("none", "before", "after")


@pytest.mark.parametrize("optimizer", [Momentum(0.05), Adam()], ids=["momentum", "adam"])
@pytest.mark.parametrize("norm", NORMS)
def test_single_precision_drifts_no_further_than_by_the_order_of_rows(rng, norm, optimizer):
    """After twelve steps, beside one process whose batches' rows are in another order."""
    x, t = make_data(rng, "float32")
    batches = [rng.permutation(EXAMPLES)[:20] for _ in range(12)]

    def work(ranks=None, order=None, dtype="float32"):
        network = Network(layers_with(norm), (1, 6, 6), seed=0, dtype=dtype)
        step = Step(network, copy.deepcopy(optimizer), ranks=ranks)
        generator = np.random.default_rng(order)
        for rows in batches:
            rows = rows if order is None else generator.permutation(rows)
            step(x[rows].astype(dtype), t[rows])
        return network.params.buffer

    def distances(wanted, found):
        return [np.linalg.norm(a - wanted) / np.linalg.norm(wanted) for a in found]

    one, exact = work(), work(dtype="float64")
    permuted = [work(order=order) for order in range(16)]
    several = [in_threads(size, work)[0] for size in (2, 3, 4, 5, 6)]
    # By chance, the median of five is the larger in less than one of 100 cases.
    assert np.median(distances(exact, several)) <= max(distances(exact, permuted))
    if norm != "after":  # of ReLU's outputs one process has an error that no order changes
        assert np.median(distances(one, several)) <= max(distances(one, permuted))


@pytest.mark.parametrize("reduce_dtype", [None, "float16"])
def test_half_precision_decides_its_scale_once(rng, reduce_dtype):
    x, t = make_data(rng, "float32")
    x[3] = 1e4  # whose gradients overflow, on one rank alone

    def work(ranks=None):
        network = make_network(dtype="float16")
        step = Step(network, SGD(0.01), ranks=ranks, reduce_dtype=reduce_dtype)
        step.loss_scale.restore({**step.loss_scale.state(), "value": 2.0**24})
        with np.errstate(all="ignore"), step.clock():
            for _ in range(4):
                step(x, t)
        return step.loss_scale.state(), network.params.buffer.copy()

    alone, _ = work()
    found = in_threads(3, work)
    assert alone["skipped"] > 0
    for state, params in found:
        assert state == found[0][0]
        np.testing.assert_array_equal(params, found[0][1])
    assert found[0][0]["skipped"] > 0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("piece", [500, 2**20])
@pytest.mark.parametrize("options", [{}, {"accumulate": 2}], ids=str)
def test_gradients_that_travel_in_half_precision(rng, size, piece, options, monkeypatch):
    monkeypatch.setattr(gradient_sum, "PIECE", piece)
    x, t = make_data(rng, "float32")

    def work(ranks=None, reduce_dtype="float16"):
        network = make_network(dtype="float32")
        step = Step(network, SGD(0.0), ranks=ranks, reduce_dtype=reduce_dtype, **options)
        for rows in (slice(0, 30), slice(30, None)):
            step(x[rows], t[rows])
        return network.grads.copy(), network.grads.buffer.copy()

    exact, _ = in_threads(size, lambda ranks: work(ranks, None))[0]
    found = in_threads(size, work)
    again = in_threads(size, work)
    for (grads, buffer), (_, repeated) in zip(found, again, strict=True):
        np.testing.assert_array_equal(buffer, found[0][1])
        np.testing.assert_array_equal(buffer, repeated)
        expect_close(dict(grads), dict(exact), size * 2.0**-10)
        assert any((grads[name] != a).any() for name, a in exact.items())


def test_gradients_in_half_precision_end_in_one_network(rng):
    data = make_data(rng, "float32")

    def work(ranks=None):
        network = make_network(dtype="float32")
        return train(data, ranks, network=network, optimizer=Adam(), reduce_dtype="float16")

    together = in_threads(3, work)
    alone, before = work()
    first = together[0][0].network.params.buffer
    for trainer, history in together:
        np.testing.assert_array_equal(trainer.network.params.buffer, first)
        np.testing.assert_allclose(history.losses, before.losses, rtol=0.05)
    assert (first != alone.network.params.buffer).any()


@pytest.mark.parametrize(
    ("given", "dtype", "told"),
    [
        ("float16", "float64", "rounds gradients to 11 bits, and this network's are float64"),
        ("bfloat16", "float32", 'reduce_dtype must be "float16", or None'),
        (16, "float32", 'reduce_dtype must be "float16", or None'),
    ],
)
def test_gradients_that_cannot_travel_so(rng, given, dtype, told):
    data = make_data(rng, "float32")
    for ranks in (None, ThreadRanks(0, _table(2))):
        with pytest.raises(ArgumentError, match=told):
            Step(make_network(dtype=dtype), ranks=ranks, reduce_dtype=given)
        with pytest.raises(ArgumentError, match=told):
            train(data, ranks, network=make_network(dtype=dtype), reduce_dtype=given)


def _table(size):
    return in_threads(size, lambda ranks: ranks._table)[0]


def test_statistics_of_each_ranks_rows_are_said_to_be_so(rng):
    data = make_data(rng)

    def work(ranks):
        trainer, _ = train(data, ranks, whole_statistics=False, batch_size=22)
        return arrays(trainer.network)

    first, second = in_threads(2, work)
    whole = arrays(train(data, batch_size=22)[0].network)
    for name, a in first.items():
        np.testing.assert_array_equal(a, second[name])
    assert any(np.abs(first[name] - whole[name]).max() > 1e-6 for name in whole)


def test_a_batch_normalised_far_from_zero_does_not_cancel(rng):
    x = rng.standard_normal((12, 2)) + 1e7
    layer_of = [BatchNormalization() for _ in range(4)]
    for layer in layer_of:
        layer.build((2,), np.random.default_rng(0), "float64")
    wanted = layer_of[0].forward(x, train=True)

    def work(ranks):
        layer, share = layer_of[1 + ranks.rank], Share.of(ranks, len(x))
        with sharing([layer], share):
            return layer.forward(x[share.rows], train=True)

    found = np.concatenate(in_threads(3, work))
    np.testing.assert_allclose(found, wanted, atol=1e-8)


@pytest.mark.parametrize("sizes", [(2, 2), (2, 3), (1, 3), (3, 1)], ids=str)
def test_an_interrupted_training_goes_on_with_any_number(rng, tmp_path, sizes):
    data, place = make_data(rng), tmp_path / "checkpoint.safetensors"

    def work(ranks, **options):
        network = make_network()
        trainer = Trainer(
            network, data, data, optimizer=Momentum(0.05), epochs=2, batch_size=10, seed=3,
            progress=False, ranks=ranks, checkpoint=place, **options,
        )  # fmt: skip
        return trainer

    def first_part(ranks):
        count = [0]

        def interrupt(trainer):
            count[0] += 1
            last = ranks is None or ranks.rank == ranks.size - 1
            if last and count[0] == 7:  # one rank's signal is enough
                trainer.interrupt()

        with pytest.raises(KeyboardInterrupt):
            work(ranks, step_callbacks=[interrupt]).fit()

    def second_part(ranks):
        trainer = work(ranks)
        trainer.fit()
        return arrays(trainer.network), trainer.history.losses

    def run(size, part):
        return [part(None)] if size == 1 else in_threads(size, part)

    run(sizes[0], first_part)
    resumed = run(sizes[1], second_part)[0]
    place.unlink()
    straight = run(sizes[1], second_part)[0]
    expect_close(resumed[0], straight[0], 0 if sizes[0] == sizes[1] else 1e-11)
    np.testing.assert_allclose(resumed[1], straight[1], rtol=0 if sizes[0] == sizes[1] else 1e-10)


def test_divergence_ends_all_ranks(rng):
    x, t = make_data(rng)

    def work(ranks):
        with pytest.raises(xpdl.errors.DivergenceError) as caught:
            train((x, t), ranks, optimizer=SGD(1e200), epochs=9)
        return str(caught.value)

    first, second = in_threads(2, work)
    assert first == second
    assert "diverged at step" in first


def test_more_ranks_than_rows(rng):
    with pytest.raises(ArgumentError, match="11 processes cannot share batches of 10"):
        in_threads(11, lambda ranks: train(make_data(rng), ranks))


@pytest.mark.parametrize(
    ("differs", "told"),
    [
        ({"seed": 4}, "rank 1 has another seed than rank 0: 4, not 3"),
        ({"reduce_dtype": "float16"}, "rank 1 has another reduce_dtype than rank 0: 'float16'"),
        ({"optimizer": SGD(0.1)}, "rank 1 has another optimizer.rule than rank 0"),
        ({"data": True}, "rank 1 has another data than rank 0"),
    ],
    ids=["seed", "reduce_dtype", "optimizer", "data"],
)
def test_a_rank_of_another_training_is_refused(rng, differs, told):
    x, t = make_data(rng, "float32")

    def work(ranks):
        mine = {"seed": 3, "optimizer": Momentum(0.05), "data": False}
        if ranks.rank == 1:
            mine |= differs
        data = (x + 1 if mine.pop("data") else x, t)
        network = make_network(dtype="float32")
        Trainer(network, data, batch_size=5, progress=False, ranks=ranks, **mine).fit()

    with pytest.raises(ArgumentError, match=told):
        in_threads(2, work)


def test_a_rank_begins_as_rank_0_does(rng):
    data = make_data(rng)

    def work(ranks):
        network = make_network(seed=ranks.rank)  # first values of its own
        return arrays(train(data, ranks, network=network)[0].network)

    expect_close(in_threads(2, work)[1], arrays(train(data)[0].network), 1e-12)


def test_a_rank_that_computes_otherwise_is_found(rng):
    data = make_data(rng)

    def work(ranks):
        def spoil(trainer):
            if ranks.rank == 1:
                trainer.network.params["affine1.b"] += 1e-9

        train(data, ranks, step_callbacks=[spoil])

    with pytest.raises(RanksError, match="parameters of rank 1 are not those of rank 0"):
        in_threads(2, work)


# ---- in pieces, while earlier layers are in backward -----------------------------------------


@pytest.mark.parametrize("piece", [1, 500, 2**20])
def test_pieces_cover_the_buffer_from_the_last_layer_on(piece):
    network = make_network()
    pieces, layers = gradient_sum._cut(network, piece)
    size, end = network.grads.buffer.size, network.parameters.layout.weights_end
    for begin, stop in ((0, end), (end, size)):
        part = [p for p in pieces if begin <= p.start < stop]
        assert part[0].stop == stop
        assert [p.start for p in part[:-1]] == [p.stop for p in part[1:]]
        assert part[-1].start == begin
    assert set().union(*layers) == {"conv1", "norm1", "affine1", "norm2", "affine2"}
    if piece == 1:
        assert layers[0] == {"affine2"}  # whose gradient is the first to be final


class Recorder(ThreadRanks):
    """Notes when a sum begins."""

    def begin_sum(self, a):
        self.events.append(("send", a.size))
        return super().begin_sum(a)


def test_a_piece_is_sent_while_earlier_layers_are_in_backward(rng):
    x, t = make_data(rng)

    def work(ranks):
        ranks = Recorder(ranks.rank, ranks._table)
        ranks.events = []
        network = make_network()
        step = Step(network, SGD(0.1), ranks=ranks)
        step.gradient_sum = gradient_sum.GradientSum(network, ranks, 1)
        first = network.leaves()["conv1"]
        before = first.backward
        first.backward = lambda dout: (ranks.events.append(("conv1", 0)), before(dout))[1]
        step(x, t)
        return ranks.events, network.params.buffer.copy()

    (events, params), (others, _) = in_threads(2, work)
    assert events == others  # all in one order
    at = events.index(("conv1", 0))
    last, hidden = make_network().params["affine2.W"].size, [size for _, size in events[:at]]
    assert hidden[0] >= last  # the last layer's piece goes first
    wanted = make_network()
    Step(wanted, SGD(0.1))(x, t)
    np.testing.assert_allclose(params, wanted.params.buffer, atol=1e-12)


def test_a_layer_that_has_no_backward_pass_does_not_hold_up_the_rest(rng):
    data = make_data(rng)

    def work(ranks=None):
        network = make_network()
        network.freeze("conv1", "norm1")
        return arrays(train(data, ranks, network=network)[0].network)

    wanted = work()
    for found in in_threads(2, work):
        expect_close(found, wanted, 1e-12)


class Late:
    """A sum that is made when it is waited for, as MPI may make it; nobody may touch it before."""

    def __init__(self, ranks, a):
        self._ranks, self._a, self._given = ranks, a, a.copy()

    def test(self):
        return False

    def wait(self):
        np.testing.assert_array_equal(self._a, self._given)
        ThreadRanks.begin_sum(self._ranks, self._a)


class LateRanks(ThreadRanks):
    """Ranks whose sums are still to come, so that what is touched before the end shows."""

    def begin_sum(self, a):
        return Late(self, a)


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}], ids=str)  # the last alone
def test_nothing_touches_gradients_that_are_under_way(rng, options):
    data = make_data(rng)
    wanted = arrays(train(data, **options)[0].network)
    found = in_threads(2, lambda r: train(data, LateRanks(r.rank, r._table), **options)[0])
    for trainer in found:
        expect_close(arrays(trainer.network), wanted, 1e-11)


def test_a_loss_with_decay_is_judged_on_every_backend(backend, rng):
    x, t = make_data(rng, "float32")
    network = make_network(dtype="float32")
    trainer = Trainer(network, (x, t), (x, t), epochs=1, batch_size=20, progress=False)
    epoch = trainer.fit().epochs[0]
    loss = network.backend.item(network.loss(*map(network.backend.asarray, (x, t))))
    assert epoch.test["loss"] == pytest.approx(loss, rel=1e-5)


def test_the_time_that_is_waited_is_told(rng):
    data = make_data(rng)

    def work(ranks):
        return train(data, ranks)[0].step.gradient_sum

    for sums in in_threads(2, work):
        assert 0 < sums.waited < sums.seconds
