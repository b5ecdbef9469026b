"""Recipes: what one may say, and that it says it as data."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from xpdl.errors import ArgumentError, UnknownNameError
from xpdl.models import make_model
from xpdl.optimizers import get_optimizer
from xpdl.runs.options import RunOptions, make_options
from xpdl.runs.recipes import RECIPES, Recipe
from xpdl.schedules import get_schedule

PLAIN = Recipe(
    about="for tests",
    model="SimpleConvNet",
    epochs=2,
    batch_size=50,
    optimizer="adamw",
    learning_rate=0.01,
    schedule="cosine",
)
FULL: dict[str, Any] = {
    "model_options": {"filters": 4},
    "optimizer_options": {"beta1": 0.8, "rate_factors": {"affine2": 2.0}},
    "batch_size": {0: 50, 1: 100},
    "warm_up": 0.25,
    "weight_decay": 0.0,
    "label_smoothing": 0.1,
    "augment": {"shift": 2, "rotate": [-5, 10], "erase": {"size": 6, "probability": 0.5}},
    "average": 0.99,
    "shifts": 1,
    "mirrored": True,
    "members": 3,
}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_made(name: str) -> None:
    recipe = RECIPES[name]
    make_model(recipe.model, **recipe.model_options)
    get_optimizer(recipe.optimizer, learning_rate=recipe.learning_rate, **recipe.optimizer_options)
    get_schedule(recipe.schedule)
    assert recipe.about
    options = make_options(name, data="mnist", seed=3, dtype=None)
    shared = asdict(recipe)
    del shared["about"]
    assert asdict(options) == {
        **shared, "data": "mnist", "seed": 3, "backend": options.backend, "dtype": "float32",
        "checkpoint_every": 180.0, "on_divergence": "stop", "reduce_dtype": None,
        "picture_size": None, "channels": None, "skip_broken": False, "test": 0.1,
        "validation": 0.0,
    }  # fmt: skip


def test_the_book_is_the_books_own() -> None:
    book = RECIPES["book"]
    assert (book.epochs, book.batch_size, book.optimizer, book.learning_rate, book.schedule) == (
        20, 100, "adam", 0.001, "constant",
    )  # fmt: skip
    assert book.model == "DeepConvNet"
    assert not book.model_options
    for name in ("augment", "average", "label_smoothing", "weight_decay", "warm_up"):
        assert not getattr(book, name)
    assert (book.shifts, book.mirrored, book.members) == (0, False, 1)


def test_a_run_keeps_all_and_reads_it_again(monkeypatch: Any) -> None:
    monkeypatch.setitem(RECIPES, "full", replace(PLAIN, **FULL))
    options = make_options("full", data="mnist", seed=1, dtype="float16")
    for name, value in FULL.items():
        assert getattr(options, name) == value
    record = json.loads(json.dumps(asdict(options)))
    assert RunOptions.from_record(record) == options


def test_options_of_before_have_none_of_the_new_parts() -> None:
    old = {
        "data": "mnist", "model": "DeepConvNet", "model_options": {"drop_scores": False},
        "optimizer": "adam", "learning_rate": 0.004, "schedule": "one-cycle", "epochs": 4,
        "batch_size": 100, "seed": 0, "backend": "numpy", "dtype": "float32",
        "checkpoint_every": 180.0, "on_divergence": "stop",
    }  # fmt: skip
    options = RunOptions.from_record(old)
    assert {name: getattr(options, name) for name in old} == old
    assert (options.augment, options.average, options.label_smoothing) == ({}, 0, 0)
    assert (options.warm_up, options.weight_decay) == (0, None)
    assert (options.shifts, options.members) == (0, 1)
    for name in ("batch_size", "optimizer", "epochs"):
        with pytest.raises((KeyError, TypeError), match=name):
            RunOptions.from_record({key: old[key] for key in old if key != name})


def test_what_is_given_takes_the_place_of_the_recipes(monkeypatch: Any) -> None:
    monkeypatch.setitem(RECIPES, "full", replace(PLAIN, **FULL))

    def made(**given: Any) -> RunOptions:
        return make_options("full", data="mnist", seed=0, dtype=None, **given)

    assert made(average=0.0, augment={}, batch_size=7).average == 0
    assert made(average=0.0, augment={}, batch_size=7).augment == {}
    assert made(batch_size=7).batch_size == 7
    assert made(average=None).average == 0.99
    # Options of the model are added; those of another model are not the recipe's.
    assert made(model_options={"pad": 1}).model_options == {"filters": 4, "pad": 1}
    assert made(model="twolayernet").model_options == {}
    other = made(model="twolayernet", model_options={"hidden_size": 9})
    assert (other.model, other.model_options) == ("TwoLayerNet", {"hidden_size": 9})
    assert RECIPES["full"].model_options == {"filters": 4}
    # The rate is for the recipe's optimizer.
    monkeypatch.setitem(
        RECIPES, "full", replace(PLAIN, **FULL, optimizer="adam", learning_rate=0.4)
    )
    assert made(optimizer="Adam").learning_rate == 0.4
    assert made(optimizer="sgd").learning_rate == 0.01
    assert made(optimizer="sgd", learning_rate=0.3).learning_rate == 0.3
    # So are its other options, and factors are for the names of the recipe's model.
    assert made().optimizer_options == {"beta1": 0.8, "rate_factors": {"affine2": 2.0}}
    more = made(optimizer_options={"beta2": 0.9}).optimizer_options
    assert more == {"beta1": 0.8, "beta2": 0.9, "rate_factors": {"affine2": 2.0}}
    assert made(optimizer="sgd").optimizer_options == {}
    assert made(optimizer="muon", optimizer_options={"momentum": 0.5}).optimizer_options == {
        "momentum": 0.5
    }
    assert made(model="twolayernet").optimizer_options == {"beta1": 0.8}
    assert "rate_factors" in RECIPES["full"].optimizer_options
    with pytest.raises(UnknownNameError, match="optimizer 'adm'"):
        made(optimizer="adm")


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "average": ({"average": 1.0}, ArgumentError, "average.*below 1.*1.0"),
    "label smoothing": ({"label_smoothing": -0.1}, ArgumentError, "label_smoothing.*-0.1"),
    "warm-up": ({"warm_up": 2}, ArgumentError, "warm_up.*below 1.*2"),
    "weight decay": ({"weight_decay": -1}, ArgumentError, "weight_decay.*-1"),
    "a rate elsewhere": (
        {"optimizer_options": {"weight_decay": 0.1}},
        ArgumentError,
        "optimizer_options: weight_de",
    ),
    "optimizer no dict": ({"optimizer_options": [1]}, ArgumentError, "optimizer_options must be a"),
    "no dict": ({"augment": ["shift"]}, ArgumentError, r"augment must be a dict.*\['shift'\]"),
    "an augmentation": ({"augment": {"twirl": 1}}, UnknownNameError, "twirl.*rotate"),
    "a setting": ({"augment": {"shift": 0.5}}, ArgumentError, "shift.*whole"),
    "sizes": ({"batch_size": {2: 4}}, ArgumentError, "batch_size.*epoch 0"),
    "sizes too late": ({"batch_size": {0: 4, 2: 9}}, ArgumentError, "batch_size is 9 after 2 .*2;"),
    "no length": ({"clip_norm": 0}, ArgumentError, "clip_norm must be a number above 0, got 0"),
    "the loss": ({"model_options": {"loss": 1}}, ArgumentError, "model_options.*loss"),
    "a text": ({"schedule": 3}, ArgumentError, "schedule must be a str, got 3"),
    "shifts": ({"shifts": -1}, ArgumentError, "shifts must be an int of at least 0, got -1"),
    "half a shift": ({"shifts": 0.5}, ArgumentError, "shifts.*0.5"),
    "a shift or none": ({"shifts": True}, ArgumentError, "shifts.*True"),
    "mirrored": ({"mirrored": "yes"}, ArgumentError, "mirrored must be.*'yes'"),
    "no members": ({"members": 0}, ArgumentError, "members must be an int of at least 1, got 0"),
    "members": ({"members": "3"}, ArgumentError, "members.*'3'"),
    "epochs": ({"epochs": "4"}, ArgumentError, "epochs.*'4'"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_a_recipe_must_not_say(case: str) -> None:
    changed, kind, words = BAD[case]
    with pytest.raises(kind, match=words):
        replace(PLAIN, **changed)
