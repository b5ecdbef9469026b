"""The command line, as a stranger uses it, on a small made-up MNIST."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_digits import digits, load_small

import xpdl
from xpdl import Network, Trainer
from xpdl.cli.main import main
from xpdl.datasets.augmentation import Compose, Erase, Rotate, Shift
from xpdl.layers import Affine
from xpdl.losses import IdentityWithLoss
from xpdl.runs import RECIPES, preparation
from xpdl.runs.options import RunOptions, make_options
from xpdl.runs.run import Run
from xpdl.schedules import Cosine, WarmUp

ENVIRONMENT = {"XPDL_BACKEND", "XPDL_DTYPE"}


def test_train_leaves_a_run(small_mnist: Path, capsys: Any) -> None:
    assert main(["train", "--model", "simpleconvnet", "--epochs", "2", "--batch-size", "30"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    folders = list((small_mnist / "runs").iterdir())
    assert len(folders) == 1
    folder = folders[0]
    assert folder.name.startswith("SimpleConvNet-")
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors", "history.json",
        "curves.png", "misclassified.png", "confusion.png",
    }  # fmt: skip
    record = json.loads((folder / "history.json").read_text())
    assert record["finished"] is True
    assert record["options"]["batch_size"] == 30
    assert len(record["losses"]) == 20
    assert len(record["epochs"]) == 2
    last = out.splitlines()[-2:]
    assert f"test accuracy {record['test_accuracy']:.2%}" in last[0]
    assert str(folder.relative_to(small_mnist)) in last[1]
    for picture in ("curves.png", "misclassified.png", "confusion.png"):
        pixels = np.asarray(Image.open(folder / picture).convert("L"))
        assert pixels.shape[0] > 50
        assert pixels.std() > 5  # not blank


def test_evaluate_and_predict_what_train_left(small_mnist: Path, capsys: Any) -> None:
    assert main(["train", "--model", "MultiLayerNet", "--epochs", "6", "--out", "run"]) == 0
    trained = capsys.readouterr().out.splitlines()[-2].split(",")[0]
    assert main(["evaluate", "run"]) == 0
    assert trained in capsys.readouterr().out
    assert main(["evaluate", "run/model.safetensors", "--dtype", "float64"]) == 0
    capsys.readouterr()
    x, _ = digits(3, 5)
    for i, image in enumerate(x):
        Image.fromarray((255 * image[0]).astype("uint8")).save(f"{i}.png")
    assert main(["predict", "run", "0.png", "1.png", "2.png"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == ["0.png", "1.png", "2.png"]
    assert all(line.count("%") == 5 for line in lines)


def test_a_program_that_calls_a_command_keeps_its_backend(small_mnist: Path) -> None:
    before = xpdl.get_backend()
    assert main(["train", "--model", "TwoLayerNet", "--epochs", "1", "--backend", "generic"]) == 0
    assert xpdl.get_backend() is before
    assert main(["train", "--model", "nonsense", "--backend", "generic"]) == 2
    assert xpdl.get_backend() is before


def test_predict_goes_on_after_a_bad_picture(small_mnist: Path, capsys: Any) -> None:
    main(["train", "--model", "TwoLayerNet", "--epochs", "1", "--out", "run"])
    capsys.readouterr()
    Image.fromarray((255 * digits(1, 5)[0][0, 0]).astype("uint8")).save("good.png")
    Path("bad.png").write_bytes(b"no picture")
    assert main(["predict", "run", "bad.png", "missing.png", "good.png"]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("good.png: ")
    assert len(err.splitlines()) == 2
    assert "bad.png" in err
    assert "missing.png" in err


def test_fashion_has_names(small_mnist: Path, capsys: Any) -> None:
    args = ["train", "--data", "fashion-mnist", "--model", "TwoLayerNet", "--epochs", "1"]
    assert main([*args, "--out", "run"]) == 0
    Image.fromarray((255 * digits(1, 5)[0][0, 0]).astype("uint8")).save("a.png")
    capsys.readouterr()
    assert main(["predict", "run", "a.png"]) == 0
    out, err = capsys.readouterr()
    assert any(name in out for name in xpdl.datasets.CLASS_NAMES["fashion-mnist"])
    assert "trained on fashion-mnist" in err


def test_recipes_and_overrides(small_mnist: Path, capsys: Any) -> None:
    args = ["train", "--recipe", "book", "--epochs", "1", "--batch-size", "100", "--seed", "3"]
    assert main([*args, "--out", "run"]) == 0
    options = json.loads(Path("run/history.json").read_text())["options"]
    assert options["model"] == "DeepConvNet"
    assert (options["optimizer"], options["learning_rate"]) == ("adam", 0.001)
    assert (options["epochs"], options["seed"]) == (1, 3)
    assert list(xpdl.load("run").body.layers)[-1] == "dropout2"  # the book's own network


def test_recipes_are_listed_as_data(capsys: Any) -> None:
    assert main(["train", "--list-recipes"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out) == {
        name: json.loads(json.dumps(asdict(recipe))) for name, recipe in RECIPES.items()
    }


ALL = [
    "--model", "SimpleConvNet", "--model-options", "filters=2", "filter_size=3",
    "--batch-size", "0:30,2:100", "--warm-up", "0.5", "--schedule", "cosine",
    "--optimizer", "adamw", "--weight-decay", "0.02", "--label-smoothing", "0.1",
    "--augment", "shift=2", "rotate=[-5,10]", 'erase={"size":3}', "--average", "0.9",
    "--epochs", "3",
]  # fmt: skip


def test_all_that_a_recipe_can_say(small_mnist: Path, capsys: Any, monkeypatch: Any) -> None:
    made: list[Trainer] = []

    def keep(*arguments: Any, **options: Any) -> Trainer:
        made.append(Trainer(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(preparation, "Trainer", keep)
    assert main(["train", *ALL, "--out", "run"]) == 0
    (trainer,) = made
    assert trainer.network.params["conv1.W"].shape == (2, 1, 3, 3)
    assert trainer.batches.batch_size == {0: 30, 2: 100}
    assert trainer.schedule == WarmUp(Cosine(), 1.5)
    assert trainer.optimizer.weight_decay == 0.02
    assert trainer.network.loss_layer.config()["label_smoothing"] == 0.1
    assert trainer.feeding.augment == Compose([Shift(2), Rotate((-5, 10)), Erase(3)])
    assert trainer.average is not None
    assert trainer.average.settings() == {"decay": 0.9, "warm_up": True}
    out = capsys.readouterr().out
    assert "batch 30, 100 from epoch 3 on" in out
    for word in ("warm up 0.5", "weight decay 0.02", "label smoothing 0.1", "average 0.9", "shift"):
        assert word in out.splitlines()[1]
    record = json.loads(Path("run/history.json").read_text())
    assert (
        record["options"]
        | {
            "model_options": {"filters": 2, "filter_size": 3},
            "batch_size": {"0": 30, "2": 100},
            "warm_up": 0.5,
            "weight_decay": 0.02,
            "label_smoothing": 0.1,
            "augment": {"shift": 2, "rotate": [-5, 10], "erase": {"size": 3}},
            "average": 0.9,
        }
        == record["options"]
    )
    assert [epoch["batch_size"] for epoch in record["epochs"]] == [30, 30, 100]
    assert len(record["losses"]) == 10 + 10 + 3
    # The model that is left is the averaged one, which was tested.
    x, t = load_small(flatten=False)[1]
    assert xpdl.load("run").accuracy(x, t) == pytest.approx(record["test_accuracy"])
    assert record["epochs"][-1]["test_accuracy"] == pytest.approx(record["test_accuracy"])


def test_a_run_with_everything_is_interrupted_and_resumed(
    small_mnist: Path, monkeypatch: Any
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "Trainer", _interrupted_after(preparation.Trainer, epochs=1))
        assert main(["train", *ALL, "--out", "cut"]) == 130
    options = json.loads(Path("cut/history.json").read_text())["options"]
    whole = Run(RunOptions.from_record(options), "whole").trainer
    losses = whole.fit().losses
    after_one = xpdl.load("cut").arrays()
    assert main(["train", "--resume", "cut"]) == 0
    record = json.loads(Path("cut/history.json").read_text())
    assert record["losses"] == losses
    assert record["options"] == options
    resumed = xpdl.load("cut").arrays()
    for name, a in whole.network.arrays().items():
        np.testing.assert_array_equal(xpdl.to_numpy(resumed[name]), xpdl.to_numpy(a))
    assert not np.array_equal(
        xpdl.to_numpy(after_one["conv1.W"]), xpdl.to_numpy(resumed["conv1.W"])
    )


def test_a_network_that_takes_no_pictures_is_augmented_too(
    small_mnist: Path, monkeypatch: Any
) -> None:
    recipe = replace(RECIPES["fast"], epochs=1, augment={"shift": 2})
    monkeypatch.setitem(RECIPES, "shifting", recipe)
    losses = []
    for more in ([], ["--recipe", "shifting"], ["--recipe", "shifting", "--augment"]):
        folder = f"run{len(losses)}"
        arguments = ["--model", "TwoLayerNet", "--epochs", "1", "--out", folder]
        with monkeypatch.context() as patch:
            patch.setattr(preparation, "Trainer", _interrupted_after(preparation.Trainer, epochs=1))
            assert main(["train", *arguments, *more]) == 130
        losses.append(json.loads(Path(folder, "history.json").read_text())["losses"])
    plain, shifted, not_shifted = losses
    assert plain == not_shifted != shifted


def test_a_run_from_before_the_new_options_goes_on(
    small_mnist: Path, capsys: Any, monkeypatch: Any
) -> None:
    """A record as it was when recipes said less."""
    arguments = ["train", "--model", "TwoLayerNet", "--epochs", "3", "--batch-size", "100"]
    arguments += ["--average", "0", "--label-smoothing", "0"]
    assert main([*arguments, "--out", "whole"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "Trainer", _interrupted_after(preparation.Trainer, epochs=2))
        assert main([*arguments, "--out", "cut"]) == 130
    record = json.loads(Path("cut/history.json").read_text())
    for name in (
        "warm_up", "weight_decay", "label_smoothing", "augment", "average", "shifts", "mirrored",
        "members",
    ):  # fmt: skip
        del record["options"][name]
    for name in ("checkpoint_every", "on_divergence"):
        del record["options"][name]
    Path("cut/history.json").write_text(json.dumps(record))
    assert main(["train", "--resume", "cut"]) == 0
    whole, resumed = (Path(folder, "model.safetensors").read_bytes() for folder in ("whole", "cut"))
    assert whole == resumed


def test_one_seed_one_curve(small_mnist: Path) -> None:
    losses = []
    for folder in ("a", "b"):
        main(["train", "--model", "SimpleConvNet", "--epochs", "1", "--out", folder])
        losses.append(json.loads(Path(folder, "history.json").read_text())["losses"])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("model", ["TwoLayerNet", "DeepConvNet"])
def test_interrupted_and_resumed(
    small_mnist: Path, capsys: Any, monkeypatch: Any, model: str
) -> None:
    args = ["train", "--model", model, "--epochs", "4", "--batch-size", "50"]
    assert main([*args, "--out", "whole"]) == 0
    monkeypatch.setattr(preparation, "Trainer", _interrupted_after(preparation.Trainer, epochs=2))
    assert main([*args, "--out", "cut"]) == 130
    err = capsys.readouterr().err
    assert "interrupted after 2 of 4 epochs" in err
    assert "xpdl train --resume cut" in err
    assert main(["evaluate", "cut"]) == 0
    monkeypatch.undo()
    monkeypatch.chdir(small_mnist)
    monkeypatch.setitem(preparation.LOADERS, "mnist", load_small)
    assert main(["train", "--resume", "cut"]) == 0
    assert (
        Path("cut/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
    )
    assert not Path("cut/checkpoint.safetensors").exists()
    capsys.readouterr()
    assert main(["train", "--resume", "cut"]) == 2
    assert "finished" in capsys.readouterr().err


RECORDS: dict[str, Any] = {
    "a negative seed": {"seed": -1},
    "a text for a number": {"epochs": "4"},
    "options in a list": {"model_options": [1]},
    "an option twice": {"model_options": {"seed": 3}},
    "an option of no model": {"model_options": {"depth": 3}},
    "a list for a name": {"data": ["mnist"]},
    "another option": {"flavour": "sweet"},
    "an average of all": {"average": 1},
    "smoothing that leaves nothing": {"label_smoothing": 1.0},
    "an unknown augmentation": {"augment": {"twirl": 3}},
    "an augmentation in a list": {"augment": [["shift", 2]]},
    "a batch size for no epoch": {"batch_size": {"last": 100}},
    "no batch size to begin with": {"batch_size": {"2": 100}},
    "a warm-up of all": {"warm_up": 1.0},
    "shifts of no picture": {"shifts": 1},
    "mirror images of no picture": {"mirrored": True},
    "a text for mirrored": {"mirrored": "yes"},
    "members that the record does not tell of": {"members": 2},
    "a text for shifts": {"shifts": "1"},
    "a loss": {"model_options": {"loss": "softmax"}},
}


@pytest.mark.parametrize("case", RECORDS)
def test_an_altered_record_is_refused(small_mnist: Path, capsys: Any, case: str) -> None:
    options = make_options("fast", data="mnist", seed=0, dtype=None, model="TwoLayerNet", epochs=1)
    Run(options, "run")
    record = json.loads(Path("run/history.json").read_text())
    assert record["finished"] is False
    record["options"] |= RECORDS[case]
    Path("run/history.json").write_text(json.dumps(record))
    assert main(["train", "--resume", "run"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_altered_checkpoint_is_refused(small_mnist: Path, capsys: Any) -> None:
    assert main(["train", "--model", "TwoLayerNet", "--epochs", "1", "--out", "run"]) == 0
    record = json.loads(Path("run/history.json").read_text())
    Path("run/history.json").write_text(json.dumps(record | {"finished": False}))
    Path("run/checkpoint.safetensors").write_bytes(Path("run/model.safetensors").read_bytes())
    capsys.readouterr()
    assert main(["train", "--resume", "run"]) == 2
    assert "not a checkpoint" in capsys.readouterr().err


def test_pictures_for_a_network_that_takes_none(small_mnist: Path, capsys: Any) -> None:
    Image.fromarray((255 * digits(1, 5)[0][0, 0]).astype("uint8")).save("a.png")
    Network([Affine(10)], (3, 32, 32)).save("colour")
    Network([Affine(1)], 784, loss=IdentityWithLoss()).save("regression")
    Network([Affine(10)], 12).save("vectors")
    for arguments, word in (
        (["evaluate", "colour"], "(3, 32, 32)"),
        (["evaluate", "regression"], "regression"),
        (["predict", "regression", "a.png"], "regression"),
        (["predict", "vectors", "a.png"], "(12,)"),
    ):
        assert main(arguments) == 2
        err = capsys.readouterr().err
        assert len(err.splitlines()) == 1
        assert word in err
    Network([Affine(10)], 784).save("strange", {"class_names": ["only one"]})
    assert main(["predict", "strange", "a.png"]) == 0
    Network([Affine(10)], 784).save("stranger", {"class_names": 7})
    assert main(["predict", "stranger", "a.png"]) == 2


def _interrupted_after(trainer: Any, epochs: int) -> Any:
    def interrupt(t: Any, epoch: Any) -> None:
        if epoch.number == epochs - 1:
            raise KeyboardInterrupt

    return lambda *args, **options: trainer(*args, **options, callbacks=[interrupt])


BAD_COMMANDS: dict[str, tuple[list[str], list[str]]] = {
    "nothing": ([], ["COMMAND"]),
    "another command": (["trian"], ["trian", "train", "evaluate"]),
    "no epochs": (["train", "--epochs", "0"], ["--epochs", "'0'"]),
    "half an epoch": (["train", "--epochs", "0.5"], ["--epochs", "'0.5'"]),
    "no rate": (["train", "--learning-rate", "-1"], ["--learning-rate", "'-1'"]),
    "NaN": (["train", "--learning-rate", "nan"], ["--learning-rate", "'nan'"]),
    "a seed": (["train", "--seed", "x"], ["--seed", "'x'"]),
    "an option": (["train", "--epoch-count", "3"], ["--epoch-count"]),
    "an option by its initials": (["train", "--lr", "0.1"], ["--lr 0.1", "mean --learning-rate?"]),
    "two options": (["train", "--bs=3", "--wd", "0"], ["mean --batch-size, --weight-decay?"]),
    "an option of evaluate": (["evaluate", "x", "--shfits", "1"], ["mean --shifts?"]),
    "an option of predict": (["predict", "x", "y", "--device", "1"], ["unknown: --device 1"]),
    "an option of profile": (["profile", "--batchsize", "1"], ["mean --batch-size?"]),
    "an option of info": (["info", "--bakend", "numpy"], ["mean --backend?"]),
    "a model": (["train", "--model", "deepconv"], ["deepconv", "DeepConvNet"]),
    "an optimizer": (["train", "--optimizer", "adm"], ["adm", "adam"]),
    "a schedule": (["train", "--schedule", "cosin"], ["cosin", "cosine"]),
    "an average": (["train", "--average", "1"], ["average", "below 1", "1.0"]),
    "no average": (["train", "--average", "x"], ["--average", "'x'"]),
    "smoothing": (["train", "--label-smoothing", "1.5"], ["label_smoothing", "1.5"]),
    "smoothing by NaN": (["train", "--label-smoothing", "nan"], ["label_smoothing", "nan"]),
    "decay": (["train", "--weight-decay", "-1"], ["weight_decay", "-1"]),
    "a warm-up": (["train", "--warm-up", "1"], ["warm_up", "below 1"]),
    "an augmentation": (["train", "--augment", "turn=3"], ["turn", "rotate", "shift"]),
    "no setting": (["train", "--augment", "rotate"], ["--augment", "NAME=VALUE", "'rotate'"]),
    "no number": (["train", "--augment", "rotate=x"], ["--augment", "NAME=VALUE", "'rotate=x'"]),
    "a setting": (["train", "--augment", "flip=2"], ["flip", "probability", "got 2"]),
    "a setting twice": (["train", "--augment", "shift=2", "shift=3"], ["--augment", "shift"]),
    "too large": (["train", "--augment", 'erase={"size":30}'], ["(30, 30)", "(28, 28)"]),
    "a model's option": (
        ["train", "--model-options", "droput_ratio=0"],
        [
            "DeepConvNet",
            "'droput_ratio'",
            "hidden_size=50, output_size=10, dropout_ratio=0.5",
            "mean 'dropout_ratio'?",
        ],
    ),
    "another model's option": (
        ["find-lr", "--model", "SimpleConvNet", "--model-options", "depth=3"],
        ["SimpleConvNet", "'depth'", "filters=30, filter_size=5", "weight_init_std=0.01."],
    ),
    "a name for the model": (["train", "--model-options", 'name="x"'], ["model_options", "name"]),
    "a scale": (["train", "--model-options", "normalize=null"], ["model_options", "normalize"]),
    "a seed for the model": (["train", "--model-options", "seed=3"], ["model_options", "seed"]),
    "a rate among the optimizer's": (
        ["train", "--optimizer-options", "learning_rate=1"],
        ["optimizer_options", "learning_rate"],
    ),
    "another rule's option": (
        ["train", "--optimizer-options", "momentum=0.5"],
        ["Adam", "'momentum'"],
    ),
    "a factor for nothing": (
        ["train", "--optimizer-options", 'rate_factors={"conv9": 2}'],
        ["rate_factors", "conv9"],
    ),
    "sizes": (["train", "--batch-size", "0:5,3"], ["--batch-size", "'0:5,3'"]),
    "a size twice": (["train", "--batch-size", "0:5,0:6"], ["--batch-size", "'0:5,0:6'"]),
    "no first size": (["train", "--batch-size", "1:5"], ["batch_size", "{1: 5}", "epoch 0"]),
    "a size of 0": (["train", "--batch-size", "0:5,1:0"], ["batch_size", "epoch 1", "got 0"]),
    "shifts": (["train", "--shifts", "-1"], ["shifts", "-1"]),
    "half a shift": (["train", "--shifts", "0.5"], ["--shifts", "'0.5'"]),
    "a shift of all": (["train", "--shifts", "28"], ["shift", "28 x 28"]),
    "shifts of no picture": (
        ["train", "--model", "TwoLayerNet", "--shifts", "1"],
        ["shifts must be 0, got 1", "TwoLayerNet", "(784,)", "(C, H, W)"],
    ),
    "mirror images of no picture": (
        ["train", "--model", "TwoLayerNet", "--mirrored"],
        ["mirrored must be False, got True", "TwoLayerNet", "(784,)", "(C, H, W)"],
    ),
    "shifts of no picture, of members": (
        ["train", "--model", "TwoLayerNet", "--shifts", "1", "--members", "2"],
        ["shifts", "(784,)"],
    ),
    "no members": (["train", "--members", "0"], ["--members", "'0'"]),
    "a recipe": (["train", "--recipe", "slow"], ["slow", "fast", "book"]),
    "an empty recipe": (["train", "--recipe", ""], ["recipe", "''"]),
    "empty data": (["train", "--data", ""], ["--data", "name of a file", "''"]),
    "an option that is too deep": (["train", "--augment", "shift=" + "[" * 5000], ["NAME=VALUE"]),
    "data": (["train", "--data", "cifar"], ["cifar", "fashion-mnist"]),
    "a backend": (["train", "--backend", "nonsense"], ["nonsense", "numpy", "cupy", "strict"]),
    "a dtype": (["train", "--dtype", "int8"], ["int8", "float16"]),
    "a run": (["evaluate", "nowhere"], ["nowhere"]),
    "no run to resume": (["train", "--resume", ""], ["--resume", "name of a file", "''"]),
    "no run": (["evaluate", ""], ["RUN", "name of a file", "''"]),
    "no network": (["predict", "", "x.png"], ["RUN", "name of a file", "''"]),
    "no chart": (["profile", "--chart", ""], ["--chart", "name of a file", "''"]),
    "a chart of another format": (["profile", "--chart", "x.foo"], ["--chart", "PNG", "'x.foo'"]),
    "sums of one": (["profile", "--reduce-dtype", "float16"], ["several processes", "mpiexec"]),
    "a chart nowhere": (["profile", "--chart", "nowhere/x.png"], ["cannot write 'nowhere/x.png'"]),
    "a chart that is a folder": (["profile", "--chart", "full.png"], ["'full.png'", "not a file"]),
    "overwrite nothing": (["train", "--overwrite"], ["--overwrite", "--out"]),
    "overwrite on": (["train", "--overwrite", "--resume", "x"], ["--resume", "--overwrite"]),
    "overwrite no run": (["train", "--out", "full", "--overwrite"], ["full", "not empty"]),
    "resume elsewhere": (["train", "--resume", "x", "--out", "y"], ["--resume", "--out"]),
    "resume by a recipe": (["train", "--resume", "x", "--recipe", "book"], ["--recipe"]),
    "never a checkpoint": (["train", "--checkpoint-every", "0"], ["--checkpoint-every", "'0'"]),
    "a way to diverge": (["train", "--on-divergence", "skipp"], ["skipp", "skip", "reduce-lr"]),
    "a run to resume": (["train", "--resume", "nowhere"], ["nowhere"]),
    "a folder that is no run": (["train", "--resume", "full"], ["'full' holds no run", "made"]),
    "no picture": (["predict", "run"], ["IMAGE"]),
    "a foreign file": (["evaluate", "foreign"], ["foreign", "safetensors", "a text"]),
    "a full folder": (["train", "--out", "full"], ["full", "not empty"]),
    "a file for a folder": (["train", "--out", "foreign"], ["foreign"]),
}


@pytest.mark.parametrize("case", BAD_COMMANDS)
def test_bad_commands_are_one_line(small_mnist: Path, capsys: Any, case: str) -> None:
    arguments, words = BAD_COMMANDS[case]
    Path("foreign").write_text("x" * 100)
    Path("full").mkdir()
    Path("full.png").mkdir()
    Path("full/thing").write_text("")
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert len(err.splitlines()) == 1
    for word in words:
        assert word in err
    assert not Path("runs").exists()
    assert {path.name for path in small_mnist.iterdir()} == {"foreign", "full", "full.png"}


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "info"])
def test_help_has_an_example(command: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"example:\n  xpdl {command} " in capsys.readouterr().out


def test_a_read_only_place(small_mnist: Path, capsys: Any, monkeypatch: Any) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert main(["train", "--epochs", "1", "--out", "somewhere"]) == 2
    err = capsys.readouterr().err
    assert "somewhere" in err
    assert "Read-only" in err


def test_info_says_what_is_there_and_why_not(capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("XPDL_THREADS", "2")
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for word in ("numpy", "cupy", "strict", "ready", "threads", "BLAS", "mnist", "float32"):
        assert word in out


def test_info_tells_which_kernels_somebody_asked_for(capsys: Any, monkeypatch: Any) -> None:
    for core in ("", "Haswell"):
        monkeypatch.setenv("OPENBLAS_CORETYPE", core)
        assert main(["info"]) == 0
        assert ("as OPENBLAS_CORETYPE=Haswell asks" in capsys.readouterr().out) == bool(core)


def test_info_without_a_home(capsys: Any, monkeypatch: Any) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("XPDL_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert main(["info"]) == 0
    told = capsys.readouterr().out.count("Set XPDL_DATA to a folder.")
    assert told == len(xpdl.datasets.DATA_SETS)


def command(*arguments: str, **environment: str) -> list[str]:
    return [sys.executable, "-m", "xpdl", *arguments]


def run_command(*arguments: str, cwd: Path, **environment: str) -> Any:
    variables = {k: v for k, v in os.environ.items() if k not in ENVIRONMENT} | environment
    return subprocess.run(
        command(*arguments), cwd=cwd, env=variables, capture_output=True, text=True, timeout=60
    )


def test_the_environment_chooses_the_backend(tmp_path: Path) -> None:
    done = run_command("train", cwd=tmp_path, XPDL_BACKEND="nonsense")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "XPDL_BACKEND" in done.stderr
    assert "numpy, numba, cupy, strict" in done.stderr


@pytest.mark.skipif(xpdl.available_backends()["cupy"] == "ready", reason="this machine has a GPU")
def test_no_gpu_is_one_line_with_what_to_do(tmp_path: Path) -> None:
    done = run_command("train", cwd=tmp_path, XPDL_BACKEND="cupy")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "xpdl[cuda13]" in done.stderr
    assert done.stdout == ""
    assert run_command("info", cwd=tmp_path, XPDL_BACKEND="cupy").returncode == 0


def test_no_data_and_no_network_says_where_to_put_files(tmp_path: Path) -> None:
    done = run_command("train", cwd=tmp_path, XPDL_DATA=str(tmp_path / "data"), XPDL_OFFLINE="1")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert str(tmp_path / "data" / "mnist") in done.stderr
    assert "train-images-idx3-ubyte" in done.stderr


def test_an_altered_data_file_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    (folder / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + bytes(100))
    done = run_command("train", cwd=tmp_path, XPDL_DATA=str(tmp_path / "data"), XPDL_OFFLINE="1")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "train-images-idx3-ubyte" in done.stderr


def test_a_closed_pipe_is_no_crash(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m xpdl train --help | head -n 1; "
                       f"{sys.executable} -m xpdl info | true"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-", "2>&-", ">&- 2>&-"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_goes_nowhere_is_no_crash(tmp_path: Path, redirection: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m xpdl info {redirection}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.returncode == (2 if "full" in redirection else 0)


@pytest.mark.slow
def test_ctrl_c_of_a_real_run_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("train", "--model", "SimpleConvNet", "--epochs", "50", "--out", "run"),
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 240
    while not (tmp_path / "run" / "checkpoint.safetensors").exists():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "xpdl train --resume run" in err
    assert "Traceback" not in err
    assert xpdl.load(tmp_path / "run").name == "SimpleConvNet"
    again = subprocess.Popen(
        command("train", "--resume", "run"),
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert again.stdout is not None
    first = next(line for line in again.stdout if line.startswith("epoch "))
    again.send_signal(signal.SIGINT)
    again.communicate(timeout=60)
    assert not re.match(r"epoch +1/", first)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_one_epoch_of_the_default_reaches_98_percent(tmp_path: Path, dtype: str) -> None:
    """In half precision too; and what was trained in one type answers alike in the other."""
    backend = xpdl.get_backend().name
    if backend == "numpy" and xpdl.backends.available_backends()["numba"] == "ready":
        backend = "numba"  # quicker
    chosen = "--backend", backend, "--dtype"
    done = subprocess.run(
        command("train", "--epochs", "1", "--out", "run", *chosen, dtype),
        cwd=tmp_path, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "history.json").read_text())
    assert record["test_accuracy"] >= 0.98
    if dtype == "float16":
        assert "steps skipped" in done.stdout
        assert record["loss_scales"][0] == [0, 2.0**15]
        assert np.isfinite(record["losses"]).all()
    for other in ("float32", "float16"):
        done = subprocess.run(
            command("evaluate", "run", *chosen, other),
            cwd=tmp_path, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        shown = re.search(r"test accuracy ([\d.]+)%", done.stdout)
        assert shown, done.stderr
        assert abs(float(shown.group(1)) - 100 * record["test_accuracy"]) <= 0.05


def test_profile_shows_every_layer_and_draws_a_chart(small_mnist: Path, capsys: Any) -> None:
    arguments = ["profile", "--model", "simpleconvnet", "--rounds", "1", "--batch-size", "4"]
    assert main([*arguments, "--chart", "layers.png"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0].startswith("SimpleConvNet: one training step, batch 4, ")
    assert [line.split()[0] for line in lines[3:6]] == ["conv1", "relu1", "pool1"]
    assert lines[-1] == "layers.png"
    assert np.asarray(Image.open("layers.png").convert("L")).std() > 5


def test_profile_answers_bad_input_in_one_line(small_mnist: Path, capsys: Any) -> None:
    assert main(["profile", "--model", "LargeNet"]) == 2
    assert capsys.readouterr().err.startswith("xpdl profile: unknown model 'LargeNet'")


@pytest.mark.parametrize("command", ["evaluate", "predict", "find-lr", "profile", "book"])
def test_what_is_done_alone_is_refused_to_several_processes(command, monkeypatch, capsys):
    monkeypatch.setenv("PMI_SIZE", "2")
    given = {"evaluate": ["run"], "predict": ["run", "a.png"], "book": ["a.py"]}
    assert main([command, *given.get(command, [])]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"xpdl {command}: 2 processes were started together")
