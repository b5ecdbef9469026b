"""`xpdl find-lr`, as a stranger uses it, and the loss that `xpdl evaluate` tells."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import xpdl
from xpdl import Network
from xpdl.cli import choices, find_lr, train
from xpdl.cli.main import main
from xpdl.layers import Affine
from xpdl.losses import SoftmaxWithLoss
from xpdl.runs import RECIPES, preparation


def bars(n, seed):
    """Return images (N, 1, 28, 28) of bytes, a bar in each, and the class that is its place."""
    rng = np.random.default_rng(seed)
    t = rng.integers(0, 10, n)
    x = rng.integers(0, 30, (n, 1, 28, 28)).astype("uint8")
    for image, label in zip(x, t, strict=True):
        image[0, 4:24, 4 + 2 * label : 6 + 2 * label] = 255
    return x, t


def load_bars(normalize=True, flatten=True, one_hot_label=False):
    shape = (-1, 784) if flatten else (-1, 1, 28, 28)
    return tuple(
        (xpdl.asarray((x / np.float32(255) if normalize else x).reshape(shape)), xpdl.asarray(t))
        for x, t in (bars(200, 0), bars(50, 1))
    )


@pytest.fixture(autouse=True)
def _small_data(monkeypatch, tmp_path):
    for name in ("mnist", "fashion-mnist"):
        monkeypatch.setitem(preparation.LOADERS, name, load_bars)
    monkeypatch.chdir(tmp_path)


SMALL = ["find-lr", "--model", "TwoLayerNet", "--batch-size", "20", "--steps", "60"]


def test_it_prints_a_table_and_a_suggestion_and_draws_a_chart(capsys):
    assert main([*SMALL, "--optimizer", "sgd", "--chart", "rates.png"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0] == (
        "TwoLayerNet on mnist: sgd from 1e-06 to 10, at most 60 steps, batch 20, seed 0, float32 "
        f"on {xpdl.get_backend().name}"
    )
    assert lines[1].split() == ["rate", "loss", "smoothed"]
    assert float(lines[2].split()[0]) == 1e-6
    suggestion = float(re.search(r"^suggestion: (\S+), where", out, re.M).group(1))
    assert 1e-3 < suggestion < 10
    assert any(line.endswith("steepest") for line in lines[2:20])
    assert "rates.png" in lines
    assert np.asarray(Image.open("rates.png").convert("L")).std() > 5
    assert {path.name for path in Path().iterdir()} == {"rates.png"}  # and no run


def test_what_it_says_to_do_can_be_done(capsys):
    """The command it prints is one, trains what was looked at, and learns."""
    arguments = ["--optimizer", "adamw", "--seed", "3", "--data", "fashion-mnist"]
    assert main([*SMALL, *arguments, "--dtype", "float64"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("Use it with: xpdl train ")
    command = shlex.split(line.removeprefix("Use it with: xpdl "))
    for words in (arguments, ["--model", "TwoLayerNet"], ["--dtype", "float64"]):
        assert " ".join(words[:2]) in line
    assert main([*command, "--epochs", "15", "--out", "run"]) == 0
    accuracy = re.search(r"test accuracy ([\d.]+)%", capsys.readouterr().out)
    assert float(accuracy.group(1)) > 80


def test_it_looks_at_what_the_recipe_trains(monkeypatch, capsys):
    asked = {}

    def find(network, train, **options):
        asked.update(network=network, train=train, **options)
        return find_learning_rate(network, train, **options)

    find_learning_rate = find_lr.find_learning_rate
    monkeypatch.setattr(find_lr, "find_learning_rate", find)
    recipe = replace(
        RECIPES["fast"], model="SimpleConvNet", model_options={"filters": 2},
        optimizer="adamw", weight_decay=0.3, label_smoothing=0.2, augment={"shift": 2},
        batch_size={0: 40, 1: 80},
    )  # fmt: skip
    monkeypatch.setitem(RECIPES, "mine", recipe)
    chosen = ["--recipe", "mine", "--steps", "12", "--low", "1e-5", "--high", "0.5", "--seed", "4"]
    main(["find-lr", *chosen])  # whether or not so few steps suggest anything
    network = asked["network"]
    assert network.params["conv1.W"].shape[0] == 2
    assert network.loss_layer.label_smoothing == 0.2
    assert asked["optimizer"].weight_decay == 0.3
    assert type(asked["optimizer"]).__name__ == "AdamW"
    assert (asked["batch_size"], network.normalize.divisor) == (40, 255)
    assert (asked["low"], asked["high"], asked["steps"]) == (1e-5, 0.5, 12)
    assert asked["seed"] == 4
    assert "shift" in repr(asked["augment"]).lower()
    assert asked["train"][0].dtype == np.uint8
    main(["find-lr", "--recipe", "mine", "--model", "TwoLayerNet", "--steps", "12"])
    assert asked["network"].name == "TwoLayerNet"
    assert asked["network"].input_shape == (784,)


def test_what_is_given_takes_the_place_of_the_recipes_and_is_told_again(monkeypatch, capsys):
    made, make = [], choices.options_and_pictures

    def noted(*arguments, **given):
        chosen, pictures = make(*arguments, **given)
        made.append(chosen)
        return chosen, pictures

    for command in (find_lr, train):
        monkeypatch.setattr(command, "options_and_pictures", noted)
    chosen = [
        "--model", "TwoLayerNet", "--model-options", 'weight_init_std="he"', "hidden_size=20",
        "--weight-decay", "0.01", "--clip-norm", "4.5", "--label-smoothing", "0.2",
        "--augment", "shift=1", "--batch-size", "20",
    ]  # fmt: skip
    assert main(["find-lr", *chosen, "--steps", "60"]) == 0
    assert made[0].model_options == {"weight_init_std": "he", "hidden_size": 20}
    assert (made[0].weight_decay, made[0].clip_norm, made[0].label_smoothing) == (0.01, 4.5, 0.2)
    assert made[0].augment == {"shift": 1}
    line = capsys.readouterr().out.splitlines()[-1]
    assert main([*shlex.split(line.removeprefix("Use it with: xpdl ")), "--epochs", "1"]) == 0
    rate = float(line.split()[-1])
    assert made[1] == replace(made[0], learning_rate=rate, epochs=1)
    assert "clip norm 4.5" in capsys.readouterr().out


def test_without_any_augmentation_the_recipes_is_left_out(monkeypatch, capsys):
    monkeypatch.setitem(RECIPES, "mine", replace(RECIPES["fast"], augment={"shift": 2}))
    assert main([*SMALL, "--recipe", "mine", "--augment"]) == 0
    assert " --augment --" in capsys.readouterr().out.splitlines()[-1]


def test_a_chart_that_cannot_be_written_costs_no_suggestion(monkeypatch, capsys):
    """If it could be at first."""

    def find(*arguments, **options):
        Path("charts").rmdir()
        return find_learning_rate(*arguments, **options)

    find_learning_rate = find_lr.find_learning_rate
    monkeypatch.setattr(find_lr, "find_learning_rate", find)
    Path("charts").mkdir()
    assert main([*SMALL, "--optimizer", "sgd", "--chart", "charts/rates.png"]) == 2
    out, err = capsys.readouterr()
    assert "suggestion: " in out
    assert "charts/rates.png" in err


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_on_each_device(backend, dtype, capsys):
    arguments = [*SMALL, "--optimizer", "sgd", "--dtype", dtype]
    assert main(arguments) == 0
    assert f"{dtype} on {backend.name}" in capsys.readouterr().out


def test_where_the_loss_does_not_fall_it_says_so_and_exits_with_2(capsys):
    assert main([*SMALL, "--low", "1e-9", "--high", "1e-8"]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("xpdl find-lr: no suggestion: the loss hardly falls")
    assert "--high" in err
    assert len(err.splitlines()) == 1
    assert "suggestion" not in out


BAD = {
    "a model": (["--model", "LargeNet"], ["LargeNet", "DeepConvNet"]),
    "an optimizer": (["--optimizer", "adm"], ["adm", "adam"]),
    "data": (["--data", "cifar"], ["cifar", "fashion-mnist"]),
    "a recipe": (["--recipe", "slow"], ["slow", "fast"]),
    "a batch size": (["--batch-size", "0"], ["--batch-size", "'0'"]),
    "no rate": (["--low", "0"], ["--low", "'0'"]),
    "a text": (["--high", "much"], ["--high", "'much'"]),
    "upside down": (["--low", "1", "--high", "0.1"], ["high must be a number above 1, got 0.1"]),
    "few steps": (["--steps", "3"], ["steps must be an int of at least 10, got 3"]),
    "a seed": (["--seed", "-1"], ["--seed"]),
    "a device": (["--backend", "nonsense"], ["nonsense", "numpy"]),
    "a dtype": (["--dtype", "int8"], ["int8", "float16"]),
    "an option of train": (["--epochs", "3"], ["--epochs"]),
    "a place": (["--chart", "nowhere/rates.png"], ["--chart", "cannot write 'nowhere/rates.png'"]),
    "a place of the system": (
        ["--chart", "/proc/x.png"],
        ["--chart", "cannot write '/proc/x.png'"],
    ),
    "another format": (["--chart", "x.foo"], ["--chart", "PNG", "'x.foo'"]),
    "no place": (["--chart", ""], ["--chart", "name of a file", "''"]),
    "an option's initials": (["--lr", "3"], ["--lr"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_answered_in_one_line(capsys, case):
    arguments, words = BAD[case]
    try:
        code = main([*SMALL, *arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    assert code == 2
    assert "suggestion" not in out
    assert ("--chart" not in arguments) or out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("xpdl find-lr: ")
    for word in words:
        assert word in err


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["find-lr", "--help"])
    assert stop.value.code == 0
    assert "example:\n  xpdl find-lr " in capsys.readouterr().out


def test_evaluate_says_that_its_loss_is_smoothed(capsys):
    for e, told in ((0.0, ""), (0.2, " (with label smoothing 0.2)")):
        Network([Affine(10)], (784,), loss=SoftmaxWithLoss(label_smoothing=e)).save("m")
        assert main(["evaluate", "m"]) == 0
        network = xpdl.load("m")
        x, t = load_bars()[1]
        loss = network.backend.item(network.loss(x, t))
        assert f", loss {loss:.4f}{told}, " in capsys.readouterr().out
