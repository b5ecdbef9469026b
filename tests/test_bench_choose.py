"""The choice of a recipe: what is measured on what, what is kept, and that recipes were chosen."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

import xpdl
from xpdl.runs import RECIPES, preparation
from xpdl.tuning.ensemble import member_seed

ROOT = Path(xpdl.__file__).parents[1]
sys.path.append(str(ROOT))  # the bench is not part of what is installed

from bench import __main__ as command  # noqa: E402
from bench import choose as choosing  # noqa: E402

TINY = {
    "model": "TwoLayerNet",
    "epochs": 2,
    "batch_size": 10,
    "optimizer": "adam",
    "learning_rate": 0.01,
    "schedule": "constant",
}


@pytest.fixture
def small(monkeypatch):
    """Return what was trained and set aside: 60 images, of which every one says its number."""
    rng = np.random.default_rng(0)
    x, t = rng.integers(0, 256, (60, 784), dtype=np.uint8), rng.integers(0, 10, 60)
    x[:, 0] = np.arange(60)
    test = np.full((10, 784), 255, np.uint8), np.zeros(10, np.int64)

    def load(normalize, flatten):
        assert not normalize
        shape = (-1, 784) if flatten else (-1, 1, 28, 28)
        return tuple((xpdl.asarray(x.reshape(shape)), xpdl.asarray(t)) for x, t in ((x, t), test))

    monkeypatch.setitem(preparation.LOADERS, "mnist", load)
    candidates = {"slow": TINY, "quick": TINY | {"learning_rate": 0.1, "batch_size": {0: 5, 1: 10}}}
    monkeypatch.setitem(choosing.CANDIDATES, "fast", candidates)
    return x


def choose(out, *more):
    arguments = ["choose", "fast", "--workers", "1", "--backend", "numpy", "--out", str(out)]
    assert command.main([*arguments, *more]) == 0
    return json.loads((out / "choice-fast.json").read_text())["candidates"]


def test_a_log_grows_and_is_not_measured_again(small, tmp_path, capsys, monkeypatch):
    log = choose(tmp_path, "--seeds", "0", "--only", "slow")
    assert set(log) == {"slow"}
    assert set(log["slow"]["runs"]) == {"0"}
    before = log["slow"]["runs"]["0"]
    trained = []
    train = choosing.train_candidate

    def noted(chosen, seed, backend):
        trained.append((chosen["learning_rate"], seed))
        return train(chosen, seed, backend)

    monkeypatch.setattr(choosing, "train_candidate", noted)
    log = choose(tmp_path, "--seeds", "0", "1")
    assert trained == [(0.1, 0), (0.01, 1), (0.1, 1)]
    assert log["slow"]["runs"]["0"] == before
    trained.clear()
    choose(tmp_path, "--seeds", "0", "1")
    assert trained == []
    lines = capsys.readouterr().out.splitlines()[-2:]
    means = [float(line.split("%")[0].split()[-1]) for line in lines]
    assert means == sorted(means, reverse=True)


def test_other_options_of_a_name_are_measured_anew(small, tmp_path, monkeypatch):
    choose(tmp_path, "--seeds", "0", "1", "--only", "slow")
    monkeypatch.setitem(choosing.CANDIDATES["fast"], "slow", TINY | {"epochs": 1})
    log = choose(tmp_path, "--seeds", "0", "--only", "slow")
    assert set(log["slow"]["runs"]) == {"0"}
    assert log["slow"]["options"]["epochs"] == 1


def test_what_is_set_aside_is_not_trained_on(small, monkeypatch):
    seen = {}
    make_trainer = choosing.make_trainer

    def noted(options, network, train, **more):
        seen["trained"] = set(train[0][:, 0].tolist())
        assert more == {"progress": False}  # no test data
        network.accuracy = lambda x, t: seen.update(
            measured=set((255 * x[:, 0]).round().astype(int).tolist())
        )
        return make_trainer(options, network, train, **more)

    monkeypatch.setattr(choosing, "make_trainer", noted)
    choosing.train_candidate(TINY, 0, "numpy")
    assert len(seen["trained"]) == 50
    assert seen["trained"] | seen["measured"] == set(range(60))
    assert not seen["trained"] & seen["measured"]


def test_members_answer_alone_and_together(small, monkeypatch):
    seeds, made = [], choosing.make_trainer

    def noted(options, network, train, **more):
        seeds.append(options.seed)
        return made(options, network, train, **more)

    monkeypatch.setattr(choosing, "make_trainer", noted)
    chosen = TINY | {"members": 3, "epochs": 1}
    result = choosing.train_candidate(chosen, 4, "numpy")
    assert seeds == [member_seed(4, i) for i in range(3)]
    assert result["together"][0] == result["alone"][0]
    assert result["together"][2] == result["accuracy"]
    assert len(result["together"]) == len(result["alone"]) == 3
    assert "together over shifts" not in result  # they take no pictures, and none are changed
    # Each member is as one network trained from its seed.
    alone = choosing.train_candidate(TINY | {"epochs": 1}, seeds[1], "numpy")
    assert alone.keys() == {"accuracy", "seconds", "backend", "processor", "threads"}
    assert alone["backend"] == "numpy"
    assert alone["accuracy"] == result["alone"][1]


def test_members_over_shifts(small):
    chosen = TINY | {
        "model_options": {"input_size": [1, 28, 28]}, "augment": {"shift": 1},
        "members": 2, "epochs": 1,
    }  # fmt: skip
    result = choosing.train_candidate(chosen, 4, "numpy")
    assert result["together over shifts"][1] == result["over shifts"]
    assert len(result["together over shifts"]) == 2


def test_a_name_that_is_no_candidate_is_refused(small, tmp_path, capsys):
    arguments = ["choose", "fast", "--only", "slow", "quik", "--out", str(tmp_path)]
    assert command.main(arguments) == 2
    assert capsys.readouterr().err == (
        "python -m bench choose: unknown candidate 'quik'; the choices are slow, quick. "
        "Did you mean 'quick'?\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["fast", "best", "ensemble"])
def test_the_recipe_is_one_that_was_measured(name):
    log = json.loads((ROOT / f"bench/results/choice-{name}.json").read_text())["candidates"]
    recipe = json.loads(json.dumps(asdict(RECIPES[name])))
    for other in ("about", "class_weights", "patience", "pretrained", "mirrored"):
        del recipe[other]
    shifts, members = recipe.pop("shifts"), recipe.pop("members")
    plain = {"model_options": {}, "optimizer_options": {}, "warm_up": 0.0, "weight_decay": None}
    plain |= {"clip_norm": None, "label_smoothing": 0.0, "augment": {}, "average": 0.0}
    (runs,) = [
        list(candidate["runs"].values())
        for candidate in log.values()
        if plain | {k: v for k, v in candidate["options"].items() if k != "members"} == recipe
    ]
    # As many members as do best together, and more than one look where that was seen to pay.
    together = [
        sum(column) for column in zip(*(run.get("together", [0]) for run in runs), strict=True)
    ]
    assert together[members - 1] == max(together)
    gain = sum(run["over shifts"] - run["accuracy"] for run in runs if "over shifts" in run)
    assert shifts == (1 if gain > 0 else 0)
