"""The random search of hyperparameters."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpdl import Network, Trainer
from xpdl.backends import Backend
from xpdl.datasets import split_validation
from xpdl.distributed import in_threads
from xpdl.errors import (
    ArgumentError,
    BackendMismatchError,
    FileAccessError,
    ModelFileError,
    ShapeError,
)
from xpdl.layers import Affine, BatchNormalization, Dropout, ReLU
from xpdl.losses import IdentityWithLoss
from xpdl.optimizers import SGD, Momentum
from xpdl.tuning import (
    Choice,
    LogUniform,
    MedianRule,
    RandomSearch,
    Range,
    SearchResult,
    Trial,
    Uniform,
)

RANGES = {
    "rate": LogUniform(1e-5, 1.0),
    "momentum": Uniform(0.1, 0.9),
    "size": Choice([4, 12]),
}


def blobs(n: int = 60, seed: int = 0) -> tuple[Any, Any]:
    """Return points (N, 2) around three corners, and which corner each is near."""
    rng = np.random.default_rng(seed)
    t = rng.permutation(np.arange(n) % 3)
    corners = np.array([[0.0, 2.0], [2.0, -1.0], [-2.0, -1.0]])
    return (corners[t] + 0.7 * rng.standard_normal((n, 2))).astype("float32"), t


def make(values: dict[str, Any], train: Any, validation: Any, seed: int, **more: Any) -> Trainer:
    layers = [Affine(values["size"]), BatchNormalization(), ReLU(), Dropout(0.1), Affine(3)]
    options = {"epochs": 3, "batch_size": 12, "seed": seed} | more
    optimizer = Momentum(values["rate"], values["momentum"])
    return Trainer(
        Network(layers, (2,), seed=seed), train, validation, optimizer=optimizer, **options
    )


def search(ranges: Any = RANGES, maker: Any = make, **options: Any) -> RandomSearch:
    usual = {"data": blobs(), "trials": 6, "stopping": MedianRule(trials=2), "progress": False}
    return RandomSearch(ranges, maker, **usual | options)


def timeless(result: SearchResult) -> dict[str, Any]:
    """Return all of a result but what no two runs share."""
    value = result.as_dict()
    for trial in value["trials"]:
        del trial["seconds"]
    return value


def in_order(result: SearchResult) -> list[Trial]:
    return sorted(result.trials, key=lambda trial: trial.number)


# ---- ranges


def test_each_power_of_ten_is_as_likely() -> None:
    """The part of log-uniform numbers below c is log(c / low) / log(high / low)."""
    wide = LogUniform(1e-6, 1e-2)
    for c in (1e-6, 3e-6, 1e-4, 2e-3):
        assert wide.at(math.log(c / 1e-6) / math.log(1e4)) == pytest.approx(c, rel=1e-12)
    assert LogUniform(2, 8).at(0.5) == pytest.approx(4)


def test_uniform_and_choice() -> None:
    assert [Uniform(-1, 3).at(share) for share in (0.0, 0.25, 0.5)] == [-1, 0, 1]
    three = Choice(["a", None, 2])
    assert [three.at(share) for share in (0.0, 0.33, 0.34, 0.66, 0.67, 0.999)] == [
        "a", "a", None, None, 2, 2,
    ]  # fmt: skip


numbers = st.floats(1e-300, 1e300)


@given(numbers, numbers, st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=6))
def test_nothing_leaves_its_range(a: float, b: float, shares: list[float]) -> None:
    for kind in (Uniform, LogUniform):
        wide = kind(min(a, b), max(a, b))
        drawn = [wide.at(share) for share in shares]
        assert all(value in wide for value in drawn)
        narrow = wide.narrowed(drawn)
        assert isinstance(narrow, kind)
        assert type(narrow) is kind
        assert all(value in narrow for value in drawn)
        assert narrow.low in wide
        assert narrow.high in wide


def test_narrowing_widens_what_the_best_span() -> None:
    """k values span (k - 1)/(k + 1) of where they come from, in the mean over many draws."""
    assert Uniform(0, 10).narrowed([4.0, 5.0, 6.0]) == Uniform(3, 7)
    assert Uniform(3.5, 10).narrowed([4.0, 5.0, 6.0]) == Uniform(3.5, 7)
    log = LogUniform(1e-8, 1e-4).narrowed([1e-6, 1e-7, 1e-6])
    assert isinstance(log, LogUniform)
    assert log.low == pytest.approx(10**-7.5)
    assert log.high == pytest.approx(10**-5.5)
    assert Choice([1, 2, 3]).narrowed([3, 1, 3]) == Choice([1, 3])
    rng = np.random.default_rng(0)
    wide = Uniform(-100, 100)
    ends = [wide.narrowed(rng.uniform(2, 5, 5).tolist()) for _ in range(4000)]
    assert np.mean([r.low for r in ends if isinstance(r, Uniform)]) == pytest.approx(2, abs=0.05)
    assert np.mean([r.high for r in ends if isinstance(r, Uniform)]) == pytest.approx(5, abs=0.05)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: LogUniform(0, 1), r"low must be a number above 0, got 0"),
        (lambda: LogUniform(1, math.inf), r"high must be a number.*inf"),
        (lambda: Uniform(math.nan, 1), r"low.*nan"),
        (lambda: Uniform(2, 1), r"low must be at most high, got 2 and 1"),
        (lambda: Uniform("a", 1), r"low.*'a'"),  # type: ignore[arg-type]
        (lambda: Choice([]), r"at least"),
        (lambda: Choice(5), r"list of one value.*5"),  # type: ignore[arg-type]
        (lambda: Choice("abc"), r"list of one value.*abc"),
        (lambda: Choice([1, 2, 1]), r"different.*got 1 in"),
        (lambda: Choice([(1, 2)]), r"\(1, 2\).*let `make`"),
        (lambda: Choice([1.0, math.nan]), "nan"),
        (lambda: MedianRule(epochs=0), "epochs.*0"),
        (lambda: MedianRule(trials=0), "trials.*0"),
    ],
)
def test_bad_ranges(wrong: Callable[[], object], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        wrong()


# ---- the median rule


def test_median_rule() -> None:
    earlier = [[0.2, 0.5, 0.9], [0.4, 0.6], [0.3]]
    rule = MedianRule(epochs=1, trials=2)
    assert not rule.stops([0.3], earlier)  # the median itself goes on
    assert rule.stops([0.299], earlier)
    assert rule.stops([0.9, 0.54], earlier)  # of two, the middle between them
    assert not rule.stops([0.9, 0.55], earlier)
    assert not rule.stops([0.9, 0.9, 0.1], earlier)  # only one was there
    assert MedianRule(trials=1).stops([0.9, 0.9, 0.1], earlier)
    assert not MedianRule(epochs=2, trials=1).stops([0.0], earlier)
    assert MedianRule(epochs=2, trials=1).stops([0.0, 0.0], earlier)


def test_trials_are_stopped_by_the_rule_and_only_so() -> None:
    rule = MedianRule(epochs=1, trials=2)
    trials = in_order(search(trials=14, stopping=rule).run())
    outcomes = set()
    for trial in trials:
        earlier = [other.accuracies for other in trials[: trial.number]]
        behind = [rule.stops(trial.accuracies[:e], earlier) for e in (1, 2)]
        expected = behind.index(True) + 1 if True in behind else 3
        assert len(trial.accuracies) == expected
        assert trial.outcome == ("finished" if expected == 3 else "stopped early")
        outcomes.add(trial.outcome)
    assert len(outcomes) == 2
    whole = in_order(search(trials=14, stopping=None).run())
    assert {trial.outcome for trial in whole} == {"finished"}
    # What a trial comes to does not depend on whether others, or it, were stopped.
    for stopped, finished in zip(trials, whole, strict=True):
        assert stopped.values == finished.values
        assert stopped.accuracies == finished.accuracies[: len(stopped.accuracies)]


# ---- what is tried


def test_values_and_seeds_are_of_seed_round_and_place() -> None:
    result = search(trials=3, rounds=2, seed=7).run()
    for trial in result.trials:
        assert trial.number == 3 * trial.round + trial.number % 3
        rng = np.random.default_rng([5, 7, trial.round, trial.number % 3])
        assert trial.seed == rng.integers(2**31)
        ranges = result.searched[trial.round]
        for name in ("momentum", "rate", "size"):
            assert trial.values[name] == ranges[name].at(float(rng.random()))
    again = search(dict(reversed(RANGES.items())), trials=3, rounds=2, seed=7).run()
    assert [t.accuracies for t in again.trials] == [t.accuracies for t in result.trials]
    other = search(trials=3, seed=8).run()
    assert other.trials[0].values != result.trials[0].values


def test_a_round_searches_where_the_best_so_far_were() -> None:
    result = search(trials=5, rounds=3, keep=3).run()
    assert result.searched[0] == RANGES
    for round in (1, 2, 3):
        before = [trial for trial in in_order(result) if trial.round < round]
        best = sorted(before, key=lambda trial: (-trial.accuracy, trial.number))[:3]
        ranges = (*result.searched, result.ranges)[round]
        for name, wide in RANGES.items():
            assert ranges[name] == wide.narrowed([trial.values[name] for trial in best])
    assert all(
        value in result.searched[trial.round][name]
        for trial in result.trials
        for name, value in trial.values.items()
    )
    assert result.ranges != RANGES


def test_validation_is_set_aside_and_accuracy_is_measured_on_it(backend: Backend) -> None:
    x, t = blobs(40)
    made: list[tuple[Any, ...]] = []

    def keeping(values: Any, train: Any, validation: Any, seed: int) -> Trainer:
        trainer = make(values, train, validation, seed, epochs=2)
        made.append((seed, train, validation, trainer))
        values.clear()  # the search keeps its own
        return trainer

    result = search(
        maker=keeping, data=(backend.asarray(x), backend.asarray(t)), validation=0.25, trials=3
    ).run()
    (x_train, _), (x_validation, t_validation) = split_validation(x, t, 0.25, 0)
    assert len(made) == 3
    for trial, (seed, train, validation, trainer) in zip(in_order(result), made, strict=True):
        assert trial.seed == seed
        np.testing.assert_array_equal(backend.to_numpy(train[0]), x_train)
        np.testing.assert_array_equal(backend.to_numpy(validation[0]), x_validation)
        np.testing.assert_array_equal(backend.to_numpy(validation[1]), t_validation)
        assert trial.values.keys() == RANGES.keys()
        assert trial.accuracies[-1] == trial.accuracy == trainer.network.accuracy(*validation)
        epochs = trainer.history.epochs
        assert trial.train_accuracies == tuple(epoch.train_accuracy for epoch in epochs)
        assert trial.seconds > 0
    assert len(x_train) == 30


def test_validation_data_of_ones_own() -> None:
    seen: list[Any] = []

    def looking(values: Any, train: Any, validation: Any, seed: int) -> Trainer:
        seen[:] = [train, validation]
        return make(values, train, validation, seed, epochs=1)

    train, validation = blobs(), blobs(21, seed=1)
    search(maker=looking, data=train, validation=validation, trials=1).run()
    assert seen[0][0] is train[0]
    assert seen[1][1] is validation[1]
    count = search(maker=looking, data=[train[0].tolist(), train[1].tolist()], validation=7)
    assert [len(count.train[0]), len(count.validation[0])] == [53, 7]


def test_it_finds_what_works(backend: Backend) -> None:
    result = search(
        {"rate": LogUniform(1e-7, 0.3), "momentum": Choice([0.9]), "size": Choice([8])},
        validation=blobs(60, seed=1),
        trials=6,
        rounds=2,
        keep=2,
        seed=1,
    ).run()
    best = result.best(1)[0]
    assert best.accuracy > 0.85
    assert best.values["rate"] > 1e-3
    low = result.ranges["rate"]
    assert isinstance(low, LogUniform)
    assert low.low > 1e-5


def test_what_diverges_is_noted_and_comes_last() -> None:
    ranges = RANGES | {"rate": Choice([0.05, 1e30])}
    result = search(ranges, trials=8, rounds=2, keep=4).run()
    outcomes = [trial.outcome for trial in result.trials]
    count = outcomes.count("diverged")
    assert 0 < count < 16
    assert outcomes[-count:] == ["diverged"] * count
    for trial in result.trials:
        assert (trial.values["rate"] == 1e30) == (trial.outcome == "diverged")
        assert ("lower learning rate" in trial.note) == (trial.outcome == "diverged")
    assert result.trials[-1].accuracy == 0
    assert result.ranges["rate"] == Choice([0.05])
    table = result.table(16).splitlines()
    assert sum("diverged" in line for line in table) == count


def test_a_trial_that_diverges_late_keeps_its_epochs() -> None:
    def late(values: Any, train: Any, validation: Any, seed: int) -> Trainer:
        def explode(trainer: Trainer, epoch: Any) -> None:
            trainer.network.params["affine1.W"][...] *= math.inf

        return make(values, train, validation, seed, callbacks=[explode])

    result = search(maker=late, trials=2, stopping=None).run()
    assert [(len(t.accuracies), t.outcome) for t in result.trials] == [(1, "diverged")] * 2
    assert result.trials[0].accuracy >= result.trials[1].accuracy > 0
    assert result.ranges == RANGES  # nobody says where to look


# ---- the file


class Stop(Exception):
    pass


def test_resumed_is_uninterrupted(backend: Backend, tmp_path: Path) -> None:
    options: dict[str, Any] = {"trials": 3, "rounds": 2, "keep": 2, "seed": 3}
    whole = search(**options).run()
    path = tmp_path / "search.json"
    trained: list[int] = []

    def failing(values: Any, train: Any, validation: Any, seed: int) -> Trainer:
        def note(trainer: Trainer, epoch: Any) -> None:
            if epoch.number == 1 and len(trained) in (1, 4):
                trained.append(-1)
                raise Stop  # in the middle of a trial
            if epoch.number == 0:
                trained.append(seed)

        return make(values, train, validation, seed, callbacks=[note])

    for _ in range(10):
        try:
            resumed = search(maker=failing, path=path, **options).run()
            break
        except Stop:
            pass
    assert trained.count(-1) == 2
    assert [trained.count(t.seed) for t in in_order(resumed)] == [2, 2, 1, 1, 1, 1]
    assert timeless(resumed) == timeless(whole)
    again = search(maker=failing, path=path, **options).run()
    assert len(trained) == 10
    assert again.as_dict() == resumed.as_dict()
    assert again.searched == whole.searched


def test_another_round_may_follow(tmp_path: Path) -> None:
    path = tmp_path / "search.json"
    search(trials=3, path=path).run()
    longer = search(trials=3, rounds=2, path=path).run()
    assert timeless(longer) == timeless(search(trials=3, rounds=2).run())
    with pytest.raises(ArgumentError, match=r"holds 6 trials, more than the 3.*rounds=2"):
        search(trials=3, path=path).run()


def two_epochs(*arguments: Any) -> Trainer:
    return make(*arguments, epochs=2)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"seed": 1}, r"seed \(then 0, now 1\)"),
        ({"trials": 3}, r"trials \(then 2, now 3\)"),
        ({"keep": 3}, r"keep \(then 5, now 3\)"),
        ({"stopping": None}, r"stopping"),
        ({"stopping": MedianRule(2, 2)}, r"stopping.epochs \(then 1, now 2\)"),
        ({"ranges": RANGES | {"rate": LogUniform(1e-4, 1.0)}}, r"ranges.rate.low \(then 1e-05"),
        ({"ranges": RANGES | {"more": Uniform(0, 1)}}, r"ranges.more.kind \(then None"),
        ({"data": blobs(seed=9)}, r"data.sha256"),
        ({"validation": 9}, r"data.validation \(then 12, now 9\)"),
        ({"maker": two_epochs}, r"first_training.epochs \(then 3, now 2\)"),
    ],
)
def test_a_file_of_another_search_is_refused(tmp_path: Path, other: Any, words: str) -> None:
    path = tmp_path / "search.json"
    search(trials=2, path=path).run()
    before = path.read_bytes()
    with pytest.raises(ArgumentError, match=rf"another search: .*{words}"):
        search(path=path, **{"trials": 2} | other).run()
    assert path.read_bytes() == before
    fewer = {name: RANGES[name] for name in ("rate", "size")}
    with pytest.raises(ArgumentError, match=r"ranges.momentum.kind \(then 'Uniform', now None\)"):
        search(
            fewer, lambda values, *rest: make(values | {"momentum": 0.5}, *rest), trials=2,
            path=path,
        ).run()  # fmt: skip


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: [],
        lambda content: content | {"format": "another"},
        lambda content: content | {"settings": None},
        lambda content: content | {"trials": [{}]},
        lambda content: content | {"trials": 3},
        lambda content: content | {"trials": content["trials"][::-1]},
        *(
            lambda content, change=change: (
                content | {"trials": [content["trials"][0] | change, *content["trials"][1:]]}
            )
            for change in (
                {"seed": 1},
                {"round": 1},
                {"values": {"rate": 0.1}},
                {"values": {"rate": 2.0, "momentum": 0.5, "size": 4}},
                {"values": {"rate": "0.1", "momentum": 0.5, "size": 4}},
                {"accuracies": [0.5, 0.5, 1.5]},
                {"accuracies": ["a", "b", "c"]},
                {"accuracies": [0.5]},
                {"accuracies": [], "train_accuracies": []},
                {"outcome": "won"},
                {"note": 1},
                {"seconds": "long"},
                {"more": 1},
            )
        ),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "search.json"
    search(trials=2, path=path).run()
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(ModelFileError, match=r"search\.json"):
        search(trials=2, path=path).run()


def test_a_place_that_cannot_be_written_shows_before_any_trial(tmp_path: Path) -> None:
    def never(trainer: Trainer, epoch: Any) -> None:
        raise AssertionError

    with pytest.raises(FileAccessError, match="nowhere"):
        search(
            maker=lambda *a: make(*a, callbacks=[never]), path=tmp_path / "nowhere" / "a.json"
        ).run()


# ---- mistakes


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"ranges": {}}, ArgumentError, "ranges.*one at least"),
        ({"ranges": [LogUniform(1, 2)]}, ArgumentError, "ranges must map"),
        ({"ranges": {"rate": (1, 2)}}, ArgumentError, r"'rate'.*LogUniform.*\(1, 2\)"),
        ({"ranges": {3: Uniform(1, 2)}}, ArgumentError, "3 must be the name"),
        ({"maker": "make"}, ArgumentError, "make must be a function"),
        ({"trials": 0}, ArgumentError, "trials.*0"),
        ({"rounds": 1.5}, ArgumentError, "rounds.*1.5"),
        ({"keep": 1}, ArgumentError, "keep.*2.*1"),
        ({"stopping": True}, ArgumentError, "stopping.*MedianRule.*True"),
        ({"seed": -1}, ArgumentError, "seed.*-1"),
        ({"data": np.zeros((3, 2))}, ArgumentError, "data must be a pair"),
        ({"data": (np.zeros((3, 2)), np.zeros(4))}, ShapeError, "one label per example"),
        ({"validation": 1.0}, ArgumentError, "validation must be a float.*1.0"),
        ({"validation": (1, 2, 3)}, ArgumentError, "validation must be a pair"),
    ],
)
def test_bad_arguments(options: Any, kind: Any, words: str) -> None:
    with pytest.raises(kind, match=words):
        search(**options)


def test_arrays_of_two_backends() -> None:
    from xpdl import get_backend

    x, t = blobs()
    with pytest.raises(BackendMismatchError, match=r"numpy.*strict|strict.*numpy"):
        search(data=(get_backend("strict").asarray(x), t))


def regression(values: Any, train: Any, validation: Any, seed: int) -> Trainer:
    x = train[0]
    network = Network([Affine(2)], (2,), loss=IdentityWithLoss())
    return Trainer(network, (x, x), (validation[0], validation[0]))


def trained(*arguments: Any) -> Trainer:
    trainer = make(*arguments, epochs=1, progress=False)
    trainer.fit()
    return trainer


def stopped(*arguments: Any) -> Trainer:
    trainer = make(*arguments, epochs=1, progress=False)
    trainer.stop = True
    return trainer


RULE = SGD(0.01)


@cache
def shared() -> Network:
    return Network([Affine(3)], (2,))


@pytest.mark.parametrize(
    ("maker", "words"),
    [
        (lambda *a: None, "must return a Trainer, got None"),
        (regression, "regression"),
        (lambda values, train, validation, seed: make(values, train, None, seed), "validation"),
        (lambda values, train, validation, seed: make(values, train, train, seed), "validation"),
        (lambda *a: make(*a, checkpoint="a"), "no checkpoint"),
        (trained, "each time"),
        (stopped, "or not begin"),
        (lambda v, *a: Trainer(shared(), *a[:2], optimizer=SGD(0.1), epochs=1), "new network"),
        (lambda v, *a: Trainer(Network([Affine(3)], (2,)), *a[:2], optimizer=RULE), "each time"),
    ],
)
def test_bad_makers(maker: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        search(maker=maker, trials=2).run()


# ---- what is shown


def test_a_line_a_trial(capsys: Any, tmp_path: Path) -> None:
    ranges = RANGES | {"rate": Choice([0.05, 1e30])}
    path = tmp_path / "search.json"
    result = search(ranges, trials=12, progress=True, path=path).run()
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err == ""
    assert len(lines) == 12
    for i, (line, trial) in enumerate(zip(lines, in_order(result), strict=True)):
        assert line.startswith(f"trial {i + 1:>2}/12  validation accuracy {trial.accuracy:.2%}  ")
        for word in ("rate 0.05", "rate 1e+30"):
            assert (word in line) == (word == f"rate {trial.values['rate']:.3g}")
        assert f"size {trial.values['size']}" in line
        assert ("diverged after 0 epochs" in line) == (trial.outcome == "diverged")
        assert ("stopped early after" in line) == (trial.outcome == "stopped early")
        assert line.endswith(" s")
    assert {trial.outcome for trial in result.trials} == {"finished", "stopped early", "diverged"}
    search(ranges, trials=12, progress=True, path=path).run()
    assert capsys.readouterr().out.splitlines() == ["going on after 12 of 12 trials"]
    search(trials=1).run()
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal(monkeypatch: Any, capsys: Any) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    search(trials=2, progress=True).run()
    assert "epoch 3/3" in terminal.getvalue()
    assert len(capsys.readouterr().out.splitlines()) == 2  # no line for an epoch
    before = terminal.getvalue()
    search(trials=2).run()
    assert terminal.getvalue() == before


def trial(number: int, accuracies: tuple[float, ...], outcome: str = "finished") -> Trial:
    values = {"rate": 0.00123456, "name": "adam"}
    return Trial(number, 0, 0, values, accuracies, accuracies, outcome, "", 1.0)


def test_table_and_best() -> None:
    ranges: dict[str, Range] = {"rate": LogUniform(1e-4, 1e-2), "name": Choice(["adam"])}
    trials = (trial(11, (0.5, 0.9)), trial(0, (0.25,), "stopped early"), trial(2, (), "diverged"))
    result = SearchResult(trials, (ranges,), ranges)
    assert result.best(2) == trials[:2]
    assert [trial.accuracy for trial in result.best()] == [0.9, 0.25, 0]
    assert result.table().splitlines() == [
        "   accuracy     rate  name  epochs  round  trial",
        "1    90.00%  0.00123  adam       2      1     12",
        "2    25.00%  0.00123  adam       1      1      1  stopped early",
        "3     0.00%  0.00123  adam       0      1      3  diverged",
    ]
    assert len(result.table(1).splitlines()) == 2
    kept = json.loads(json.dumps(result.as_dict()))
    assert kept["ranges"]["rate"] == {"kind": "LogUniform", "low": 1e-4, "high": 1e-2}
    assert kept["searched"] == [kept["ranges"]]
    assert kept["trials"][0]["accuracies"] == [0.5, 0.9]
    assert kept["trials"][1].keys() == asdict(trials[1]).keys()
    with pytest.raises(ArgumentError, match="count"):
        result.best(0)


def test_the_chart_has_the_curves_of_the_best_of_a_round() -> None:
    ranges: dict[str, Range] = {"rate": LogUniform(1e-4, 1e-2), "name": Choice(["adam"])}
    trials = (trial(1, (0.5, 0.9)), replace(trial(0, (0.25, 0.5)), round=1), trial(2, (0.1,)))
    result = SearchResult(trials, (ranges, ranges), ranges)
    assert result.best(5, round=0) == (trials[0], trials[2])
    drawn = [axes for axes in result.chart(5, round=0).axes if axes.lines]
    curves = [axes.lines[0].get_ydata() for axes in drawn]
    np.testing.assert_allclose(curves[0], [0.5, 0.9])
    np.testing.assert_allclose(curves[1], [0.1])
    assert drawn[0].get_title() == "best 1: 90%\nrate 0.00123\nname adam"
    assert sum(bool(axes.lines) for axes in result.chart(2).axes) == 2


def test_a_rule_keeps_numbers_that_a_file_takes(tmp_path: Path) -> None:
    rule = MedianRule(epochs=np.int64(1), trials=np.int64(2))  # type: ignore[arg-type]
    found = search(trials=3, stopping=rule, path=tmp_path / "s.json").run()
    again = search(trials=3, stopping=MedianRule(1, 2), path=tmp_path / "s.json").run()
    assert timeless(found) == timeless(again)


def test_texts_are_no_choices() -> None:
    with pytest.raises(ArgumentError, match=r"must be a list .* such as \['he'\], got 'ab'"):
        Choice("ab")


# ---- several ranks


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_find_what_one_process_finds(size: int, tmp_path: Path, on_numpy: None) -> None:
    options: dict[str, Any] = {"trials": 7, "rounds": 2, "stopping": MedianRule(epochs=1, trials=2)}
    alone = search(**options).run()
    assert {trial.outcome for trial in alone.trials} == {"finished", "stopped early"}

    def work(ranks: Any) -> SearchResult:
        path = tmp_path / "search.json"
        return search(path=path, ranks=ranks, **options).run()

    for found in in_threads(size, work):
        assert timeless(found) == timeless(alone)
    # One process goes on from what several left, and finds nothing left to do.
    assert timeless(search(path=tmp_path / "search.json", **options).run()) == timeless(alone)


def test_a_trial_that_diverges_on_a_rank_is_stopped_where_it_would_have_been(
    on_numpy: None,
) -> None:
    def late(values: Any, train: Any, validation: Any, seed: int) -> Trainer:
        def explode(trainer: Trainer, epoch: Any) -> None:
            if epoch.number == 1 and values["size"] == 12:
                trainer.network.params["affine1.W"][...] *= math.inf

        return make(values, train, validation, seed, callbacks=[explode])

    options: dict[str, Any] = {"trials": 12, "stopping": MedianRule(epochs=1, trials=2)}
    alone = search(maker=late, **options).run()
    assert len({trial.outcome for trial in alone.trials}) == 3
    for found in in_threads(3, lambda ranks: search(maker=late, ranks=ranks, **options).run()):
        assert timeless(found) == timeless(alone)
