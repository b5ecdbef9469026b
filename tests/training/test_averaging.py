"""The moving average of parameters: its formula, and its part in a training and its checkpoints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from promised import assert_as_promised

import xpdl
from xpdl import Network, Trainer, files
from xpdl.backends import Backend, get_backend
from xpdl.errors import ArgumentError, ModelFileError
from xpdl.layers import Affine, BatchNormalization, Convolution, Dropout, MaxPooling, ReLU
from xpdl.optimizers import SGD, Adam
from xpdl.training.averaging import MovingAverage
from xpdl.training.history import Epoch
from xpdl.training.settings import differences, training_settings

HostArrays = dict[str, np.ndarray[Any, Any]]


def points(n: int = 60, seed: int = 0) -> tuple[Any, Any]:
    """Return points (N, 2), and which third of the plane each is in."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 2)).astype("float32")
    return x, (np.arctan2(x[:, 0], x[:, 1]) // (2 * np.pi / 3) + 2).astype(int).clip(0, 2)


def net(**options: Any) -> Network:
    return Network(
        [Affine(8), BatchNormalization(), ReLU(), Dropout(0.1), Affine(3)], (2,), **options
    )


def trainer(**options: Any) -> Trainer:
    defaults = {"epochs": 3, "batch_size": 20, "progress": False, "optimizer": Adam(0.02)}
    options = {**defaults, "average": 0.9, **options}
    return Trainer(options.pop("network", None) or net(), points(), points(30, 1), **options)


def on_host(arrays: Any, backend: Backend) -> HostArrays:
    return {name: backend.to_numpy(a).copy() for name, a in arrays.items()}


def assert_same(a: HostArrays, b: HostArrays) -> None:
    assert a.keys() == b.keys()
    for name, array in a.items():
        np.testing.assert_array_equal(array, b[name], err_msg=name)


def put(network: Network, arrays: HostArrays) -> None:
    for name, a in network.arrays().items():
        a[...] = network.backend.asarray(arrays[name], dtype=a.dtype)


def walk(network: Network, steps: int, seed: int = 3) -> list[HostArrays]:
    """Return arrays that the network's could be after each of `steps` updates: above 0."""
    rng = np.random.default_rng(seed)
    return [
        {name: rng.random(a.shape, dtype="float32") for name, a in network.arrays().items()}
        for _ in range(steps)
    ]


def weighted(start: HostArrays, walked: list[HostArrays], decays: list[float]) -> HostArrays:
    """Return sum_i w_i p_i in float64, where w_i = (1 - d_i) prod_{j > i} d_j, and p_0 begins."""
    weights = [np.prod(decays)]
    weights += [(1 - d) * np.prod(decays[i + 1 :]) for i, d in enumerate(decays)]
    np.testing.assert_allclose(sum(weights), 1)
    return {
        name: sum(
            w * p[name].astype("float64") for w, p in zip(weights, [start, *walked], strict=True)
        )
        for name in start
    }


def warming(decay: float, steps: int) -> list[float]:
    return [min(decay, (1 + t) / (10 + t)) for t in range(steps)]


# ---- the formula


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(("decay", "warm_up"), [(0.6, False), (0.6, True), (0.0, True)])
def test_it_is_the_weighted_sum(backend: Backend, dtype: str, decay: float, warm_up: bool) -> None:
    network = net(dtype=dtype)
    start, walked = on_host(network.arrays(), backend), walk(network, 20)
    average = MovingAverage(network, decay, warm_up)
    average.start()
    for arrays in walked:
        put(network, arrays)
        average.update()
    decays = warming(decay, 20) if warm_up else [decay] * 20
    assert not warm_up or not decay or decays[0] < decay == decays[-1]
    expected, found = weighted(start, walked, decays), average.arrays()
    assert found.keys() == network.arrays().keys()
    for name, a in found.items():
        assert a.dtype == network.arrays()[name].dtype
        np.testing.assert_allclose(
            backend.to_numpy(a), expected[name], rtol=2e-5, atol=2e-6, err_msg=name
        )
    assert average.updates() == 20
    assert_same(on_host(network.arrays(), backend), walked[-1])


def test_a_skipped_update_changes_and_counts_nothing(backend: Backend) -> None:
    network = net()
    average = MovingAverage(network, 0.9)
    average.start()
    go, skip = (backend.asarray(np.array(value)) for value in (True, False))
    put(network, walk(network, 1)[0])
    average.update(go)
    before = on_host(average.arrays(), backend)
    put(network, {name: np.full_like(a, np.nan) for name, a in before.items()})
    average.update(skip)
    assert average.updates() == 1
    assert_same(on_host(average.arrays(), backend), before)
    put(network, walk(network, 1, seed=4)[0])
    average.update(go)
    assert average.updates() == 2
    assert not np.array_equal(backend.to_numpy(average.arrays()["affine1.W"]), before["affine1.W"])


def test_shown_and_hidden_again(backend: Backend) -> None:
    network = net()
    average = MovingAverage(network, 0.5)
    average.start()
    first = walk(network, 1)[0]
    put(network, first)
    average.update()
    averaged = on_host(average.arrays(), backend)
    x = backend.asarray(points(5)[0])
    trained = backend.to_numpy(network.predict(x))
    with average.in_network():
        assert_same(on_host(network.arrays(), backend), averaged)
        assert not np.array_equal(backend.to_numpy(network.predict(x)), trained)
        average.show()  # once more is no more
        assert_same(on_host(network.arrays(), backend), averaged)
    assert_same(on_host(network.arrays(), backend), first)
    np.testing.assert_array_equal(backend.to_numpy(network.predict(x)), trained)
    put(network, averaged)
    average.hide()  # nothing is shown
    assert_same(on_host(network.arrays(), backend), averaged)


@pytest.mark.parametrize("bad", [1, 1.0, -0.1, float("nan"), True, "0.9"])
def test_bad_decays(bad: Any) -> None:
    with pytest.raises(ArgumentError, match="average must be a number of at least 0 and below 1"):
        trainer(average=bad)
    with pytest.raises(ArgumentError, match="decay must be a number of at least 0 and below 1"):
        MovingAverage(net(), bad)


# ---- in a training


class Recording(SGD):
    """SGD that keeps the parameters after each update, on the host."""

    def __init__(self, network: Network) -> None:
        super().__init__(0.3)
        self.network, self.seen = network, list[HostArrays]()

    def settings(self) -> dict[str, Any]:
        return {"rule": "Recording"}

    def update(self, params: Any, grads: Any, **more: Any) -> None:
        super().update(params, grads, **more)
        # Batch normalisation has written its statistics in the forward pass before.
        self.seen.append(on_host(self.network.arrays(), self.network.backend))


@pytest.mark.parametrize("warm_up", [True, False])
def test_a_training_averages_what_its_updates_leave(backend: Backend, warm_up: bool) -> None:
    network = net()
    start, rule = on_host(network.arrays(), backend), Recording(network)
    t = trainer(
        network=network, optimizer=rule, average=0.8, average_warm_up=warm_up, capture=False
    )
    t.fit()
    assert len(rule.seen) == 9
    decays = warming(0.8, 9) if warm_up else [0.8] * 9
    expected = weighted(start, rule.seen, decays)
    for name, a in network.arrays().items():
        np.testing.assert_allclose(
            backend.to_numpy(a), expected[name], rtol=2e-5, atol=2e-6, err_msg=name
        )


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_captured_is_as_it_stands(backend: Backend, dtype: str) -> None:
    both = [
        trainer(network=net(dtype=dtype), capture=capture, batch_size=7)
        for capture in (True, False)
    ]
    for t in both:
        t.fit()
    assert_as_promised(backend, *(on_host(t.network.arrays(), backend) for t in both), dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_training_itself_is_as_without(backend: Backend, dtype: str) -> None:
    averaging, plain = (trainer(network=net(dtype=dtype), average=a) for a in (0.9, None))
    with_average, without = averaging.fit(), plain.fit()
    assert with_average.losses == without.losses
    assert [e.train_accuracy for e in with_average.epochs] == [
        e.train_accuracy for e in without.epochs
    ]
    averaged = on_host(averaging.network.arrays(), backend)
    assert not np.array_equal(
        averaged["affine2.W"], backend.to_numpy(plain.network.params["affine2.W"])
    )
    assert averaging.average is not None
    averaging.average.hide()
    assert_same(
        on_host(averaging.network.arrays(), backend), on_host(plain.network.arrays(), backend)
    )


def test_the_averaged_network_is_tested_and_seen_by_callbacks(backend: Backend) -> None:
    x, labels = (backend.asarray(a) for a in points(30, 1))
    seen: list[tuple[float, HostArrays]] = []

    def look(t: Trainer, epoch: Epoch) -> None:
        seen.append((t.network.accuracy(x, labels), on_host(t.network.arrays(), backend)))

    # So slow an average that the last epochs' network is far from it.
    t = trainer(optimizer=SGD(0.5), average=0.99, average_warm_up=False, callbacks=[look])
    history = t.fit()
    assert [accuracy for accuracy, _ in seen] == [e.test_accuracy for e in history.epochs]
    assert_same(on_host(t.network.arrays(), backend), seen[-1][1])
    assert t.network.accuracy(x, labels) == history.epochs[-1].test_accuracy
    assert t.average is not None
    t.average.hide()
    assert t.network.accuracy(x, labels) != history.epochs[-1].test_accuracy


def test_an_average_reads_nothing_from_the_device() -> None:
    with xpdl.use_backend("strict") as strict:
        moved = []
        for average in (None, 0.9):
            t = trainer(average=average, batch_size=2)
            t.progress.every = 1e9  # nobody looks
            before = replace(strict.transfers)
            t.fit()
            moved.append(
                (
                    strict.transfers.to_host - before.to_host,
                    strict.transfers.to_device - before.to_device,
                )
            )
        assert moved[0] == moved[1]


def test_steps_skipped_for_half_precision_do_not_count(backend: Backend) -> None:
    def scaled(t: Trainer, value: float) -> Trainer:
        assert t.step.loss_scale is not None
        t.step.loss_scale.restore({"value": value, "good_steps": 0, "bad_steps": 0, "skipped": 0})
        return t

    t = scaled(trainer(network=net(dtype="float16"), epochs=1), 2.0**60)
    before = on_host(t.network.params, backend)
    history = t.fit()
    assert history.epochs[0].skipped_steps == 3
    assert t.average is not None
    assert t.average.updates() == 0
    assert_same(on_host(t.network.params, backend), before)
    t = scaled(trainer(network=net(dtype="float16"), epochs=2), 2.0**60)
    t.callbacks.append(lambda t, epoch: scaled(t, 2.0**10) if epoch.number == 0 else None)
    t.fit()
    assert t.average is not None
    assert t.average.updates() == 3


def test_fit_goes_on_with_what_was_trained(backend: Backend) -> None:
    whole = trainer(epochs=4)
    expected = whole.fit()
    t = trainer(epochs=4, callbacks=[lambda t, epoch: setattr(t, "stop", epoch.number == 1)])
    t.fit()
    t.stop = False
    assert t.fit().losses == expected.losses
    assert_same(on_host(t.network.arrays(), backend), on_host(whole.network.arrays(), backend))


def test_what_is_trained_begins_with_fit(backend: Backend) -> None:
    """Weights that are put into the network after the Trainer is made are averaged, too."""
    t = trainer(average=0.5, optimizer=SGD(0.0))
    start = walk(t.network, 1)[0]
    put(t.network, start)
    t.fit()
    for name, a in t.network.params.items():
        np.testing.assert_array_equal(backend.to_numpy(a), start[name])


def test_interrupted_in_its_first_epoch_it_goes_on_with_the_averages_that_were(
    backend: Backend,
) -> None:
    whole = trainer(average=0.9)
    whole.fit()
    t = trainer(average=0.9)
    take, steps = t.batches.take, []

    def interrupting(part: Any) -> Any:
        steps.append(part)
        if len(steps) == 2:
            t.interrupt()
        return take(part)

    t.batches.take = interrupting  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        t.fit()
    assert t.steps_of_epoch is not None  # of the first epoch
    assert not t.history.epochs
    t.fit()
    assert_as_promised(backend, *(on_host(one.network.arrays(), backend) for one in (t, whole)))


def test_an_interrupted_network_is_averaged(backend: Backend) -> None:
    class Interrupted(Recording):
        def update(self, params: Any, grads: Any, **more: Any) -> None:
            if len(self.seen) == 4:
                raise KeyboardInterrupt
            super().update(params, grads, **more)

    network = net()
    start, rule = on_host(network.arrays(), backend), Interrupted(network)
    with pytest.raises(KeyboardInterrupt):
        trainer(network=network, optimizer=rule, average=0.8, capture=False).fit()
    expected = weighted(start, rule.seen, warming(0.8, 4))
    for name, a in network.arrays().items():
        np.testing.assert_allclose(backend.to_numpy(a), expected[name], rtol=2e-5, atol=2e-6)


# ---- checkpoints


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_going_on_is_as_if_never_interrupted(backend: Backend, tmp_path: Path, dtype: str) -> None:
    x = np.random.default_rng(0).random((20, 1, 6, 6)).astype("float32")
    t = np.arange(20) % 3

    def make(**more: Any) -> Trainer:
        layers = [Convolution(2, 3, pad=1), BatchNormalization(), MaxPooling(2), Affine(3)]
        network = Network(layers, (1, 6, 6), dtype=dtype)
        return Trainer(
            network, (x, t), (x, t), epochs=4, batch_size=8, progress=False, average=0.9, **more
        )

    whole = make()
    expected = whole.fit()

    def interrupt(t: Trainer, epoch: Epoch) -> None:
        if epoch.number == 1:
            raise KeyboardInterrupt

    path = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        make(checkpoint=path, callbacks=[interrupt]).fit()
    again = make(checkpoint=path)
    history = again.fit()
    assert history.losses == expected.losses
    assert [e.test_accuracy for e in history.epochs] == [e.test_accuracy for e in expected.epochs]
    assert_same(on_host(again.network.arrays(), backend), on_host(whole.network.arrays(), backend))
    for t_ in (whole, again):
        assert t_.average is not None
        t_.average.hide()
    assert_same(on_host(again.network.arrays(), backend), on_host(whole.network.arrays(), backend))


def test_a_checkpoint_holds_both(backend: Backend, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    t = trainer(checkpoint=path)
    t.fit()
    averaged = on_host(t.network.arrays(), backend)
    assert t.average is not None
    t.average.hide()
    trained = on_host(t.network.arrays(), backend)
    tensors, about = files.read_tensors(path)
    for room, arrays in (("network", trained), ("average", averaged)):
        assert_same({f"{room}/{name}": a for name, a in arrays.items()}, {
            key: a for key, a in tensors.items() if key.startswith(f"{room}/")
        })  # fmt: skip
    assert about["averaged_updates"] == 9
    assert about["settings"]["average"] == {"decay": 0.9, "warm_up": True}


def test_a_finished_checkpoint_gives_the_averaged_network(tmp_path: Path) -> None:
    backend, path = get_backend(), tmp_path / "checkpoint"
    first, again = (trainer(checkpoint=path) for _ in range(2))
    first.fit()
    again.fit()
    assert_same(on_host(again.network.arrays(), backend), on_host(first.network.arrays(), backend))


def test_a_checkpoint_without_an_average_says_nothing_of_it(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    trainer(checkpoint=path, average=None).fit()
    tensors, about = files.read_tensors(path)
    assert {key.partition("/")[0] for key in tensors} == {"network", "optimizer", "history"}
    assert "average" not in json.dumps(about)
    trainer(checkpoint=path, average=None).fit()


def test_a_checkpoint_of_another_average_is_refused(tmp_path: Path) -> None:
    with_average, without = tmp_path / "with", tmp_path / "without"
    trainer(checkpoint=with_average).fit()
    trainer(checkpoint=without, average=None).fit()
    for path, average, words in (
        (with_average, 0.8, r"average.decay \(then 0.9, now 0.8\)"),
        (with_average, None, r"average.decay \(then 0.9, now None\)"),
        (without, 0.9, r"average.decay \(then None, now 0.9\)"),
    ):
        with pytest.raises(ArgumentError, match=words):
            trainer(checkpoint=path, average=average).fit()
    with pytest.raises(ArgumentError, match=r"average.warm_up \(then True, now False\)"):
        trainer(checkpoint=with_average, average_warm_up=False).fit()


@pytest.mark.parametrize("damage", ["no averages", "a shape", "no count", "a count"])
def test_a_damaged_average_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "checkpoint"
    trainer(checkpoint=path).fit()
    tensors, about = files.read_tensors(path)
    if damage == "no averages":
        tensors = {key: a for key, a in tensors.items() if not key.startswith("average/")}
    elif damage == "a shape":
        tensors["average/affine1.W"] = tensors["average/affine1.W"][:, :2].copy()
    elif damage == "no count":
        del about["averaged_updates"]
    else:
        about["averaged_updates"] = -1
    files.write_tensors(path, tensors, about)
    with pytest.raises(ModelFileError, match="is damaged"):
        trainer(checkpoint=path).fit()


def test_searches_and_ensembles_tell_averages_apart() -> None:
    plain, averaging = (training_settings(trainer(average=a)) for a in (None, 0.9))
    assert "average" not in plain
    assert differences(plain, averaging) == [
        "average.decay (then None, now 0.9)",
        "average.warm_up (then None, now True)",
    ]
