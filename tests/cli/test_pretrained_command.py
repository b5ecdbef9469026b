"""A network that others trained learns one's own pictures, by the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_ensemble_command import draw_blank
from test_own_pictures import NAMES, interrupted, numbers, photographs, record, refused

from xpdl.backends import get_backend
from xpdl.cli.main import main
from xpdl.datasets.folder import load as folder_loading
from xpdl.layers import Affine, BatchNormalization, Convolution, GlobalAveragePooling, Normalize
from xpdl.network import Network
from xpdl.runs import preparation
from xpdl.storage import load_with_notes

OPTIONS = ["--pretrained", "resnet18", "--batch-size", "20", "--average", "0", "--augment"]


def stand_in(name: str, **options: Any) -> Network:
    """Return what stands in for a network that others trained."""
    assert name == "resnet18"
    layers = [Convolution(6, 3), BatchNormalization(), GlobalAveragePooling(), Affine(9)]
    return Network(layers, (3, 30, 30), normalize=Normalize(255, 0.4, 0.2), seed=5, **options)


@pytest.fixture(autouse=True)
def flowers(tmp_path: Path, monkeypatch: Any) -> Any:
    monkeypatch.setenv("XPDL_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(folder_loading, "_cores", lambda: 0)
    monkeypatch.setattr(preparation, "pretrained", stand_in)
    monkeypatch.chdir(tmp_path)
    photographs(tmp_path / "flowers", NAMES, 12)
    with monkeypatch.context() as patch:
        draw_blank(patch)
        yield


def train(*arguments: str) -> int:
    return main(["train", "--data", "flowers", *OPTIONS, *arguments])


def test_first_the_head_learns_and_then_all(capsys: Any) -> None:
    assert train("--epochs", "1", "--out", "head") == 0
    out = capsys.readouterr().out
    assert out.startswith("resnet18 on flowers: 1 epoch")
    assert "a new head, which learns alone for the first 1; then all does" in out
    before = stand_in("resnet18").host_arrays()
    network, _ = load_with_notes("head")
    assert network.class_names == tuple(NAMES)
    assert network.input_shape == (3, 10, 12)
    assert network.normalize is not None
    assert network.normalize.mean == (0.4,)
    after = network.host_arrays()
    assert {key for key in after if not np.array_equal(after[key], before[key])} == {
        "affine1.W", "affine1.b",
    }  # fmt: skip

    assert train("--epochs", "5", "--out", "all") == 0
    after = load_with_notes("all")[0].host_arrays()
    assert not {key for key in after if np.array_equal(after[key], before[key])}
    assert record("all")["options"]["pretrained"] == "resnet18"
    assert main(["evaluate", "all"]) == 0
    assert main(["predict", "all", "flowers/rose/0.jpg"]) == 0


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_it_goes_on_as_if_it_had_not_been_interrupted(monkeypatch: Any, epochs: int) -> None:
    """While the head learns alone, when all begins to, and after that."""
    arguments = ("flowers", *OPTIONS, "--epochs", "8")
    assert train("--epochs", "8", "--out", "whole") == 0
    interrupted(monkeypatch, *arguments, "--out", "run", epochs=epochs)
    assert main(["train", "--resume", "run"]) == 0
    assert numbers("run") == numbers("whole")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--pretrained", "resnet19"], "Did you mean 'resnet18'?"),
        (["--model", "VGG"], "leave model out"),
        (["--model-options", "depth=18"], "leave model_options out"),
        (["--channels", "1"], "--channels 3"),
        (["--data", "mnist"], "sees pictures in colour"),
        (["--picture-size", "2x2"], "does not take pictures of 2 x 2"),
    ],
)
def test_what_does_not_serve_is_said_in_a_line(
    arguments: list[str], told: str, small_mnist: Path, capsys: Any
) -> None:
    assert told in refused(capsys, "train", "--data", "flowers", *OPTIONS[:2], *arguments)


def test_the_rate_before_the_head(monkeypatch: Any) -> None:
    options = preparation.RunOptions(
        model="resnet18", pretrained="resnet18", data="flowers", seed=0, epochs=8, batch_size=4,
        optimizer="sgd", learning_rate=0.1, schedule="constant", backend=get_backend().name,
        dtype="float32",
    )  # fmt: skip
    network = stand_in("resnet18")
    optimizer = preparation.make_optimizer(options, network)
    assert optimizer.rate_factors == {"": 0.1, "affine1": 1.0}
    assert preparation.epochs_of_the_head(options) == 2
