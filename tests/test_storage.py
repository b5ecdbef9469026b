"""Networks to and from files."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import xpdl
from xpdl import Network
from xpdl.backends import Backend
from xpdl.errors import FileAccessError, ModelFileError
from xpdl.layers import (
    Affine,
    AveragePooling,
    BatchNormalization,
    Convolution,
    Dropout,
    GlobalAveragePooling,
    ReLU,
    Residual,
    Sequential,
    Tanh,
)
from xpdl.losses import IdentityWithLoss
from xpdl.models import MODELS, make_model
from xpdl.storage import load_with_notes


def everything() -> Network:
    layers = {
        "first": Convolution(4, (3, 2), (2, 1), (1, 0), bias=False, remainder="drop"),
        "inner": Residual([BatchNormalization(momentum=0.7), Sequential([ReLU(), Tanh()])]),
        "pool": AveragePooling(2, 1),
        "mean": GlobalAveragePooling(),
        "drop": Dropout(0.25, scale_at="training"),
        "scores": Affine(3),
    }
    return Network(layers, (2, 7, 6), weight_decay=0.01, name="Everything")


def test_round_trip_needs_nothing_but_the_file(backend: Backend, tmp_path: Path, rng: Any) -> None:
    network = everything()
    x = backend.asarray(rng.standard_normal((5, 2, 7, 6)), "float32")
    network.gradient(x, backend.asarray([0, 1, 2, 1, 0]))  # running statistics move
    network.save(tmp_path / "model.safetensors", {"data": "mine"})
    again, about = load_with_notes(tmp_path / "model.safetensors")
    assert about == {"data": "mine"}
    assert again.config() == network.config()
    np.testing.assert_array_equal(
        backend.to_numpy(again.predict(x)), backend.to_numpy(network.predict(x))
    )
    for name, array in network.arrays().items():
        np.testing.assert_array_equal(
            backend.to_numpy(again.arrays()[name]), backend.to_numpy(array)
        )


@pytest.mark.parametrize("name", MODELS)
def test_models_round_trip(name: str, tmp_path: Path) -> None:
    network = make_model(name)
    network.save(tmp_path / "m")
    assert repr(xpdl.load(tmp_path / "m")) == repr(network)


def test_a_file_moves_between_backends(tmp_path: Path, rng: Any) -> None:
    with xpdl.use_backend("strict"):
        network = everything()
        network.save(tmp_path / "m")
    x = rng.standard_normal((2, 2, 7, 6)).astype("float32")
    with xpdl.use_backend("numpy"):
        scores = xpdl.load(tmp_path / "m").predict(x)
    with xpdl.use_backend("strict") as strict:
        np.testing.assert_allclose(
            scores, strict.to_numpy(network.predict(strict.asarray(x))), rtol=1e-5, atol=1e-6
        )


def test_half_precision_keeps_the_master_parameters(tmp_path: Path) -> None:
    network = Network([Affine(3)], (4,), dtype="float16")
    network.save(tmp_path / "m")
    again = xpdl.load(tmp_path / "m")
    assert again.precision.name == "float16"
    assert again.params["affine1.W"].dtype == np.float32
    np.testing.assert_array_equal(
        xpdl.to_numpy(again.params["affine1.W"]), xpdl.to_numpy(network.params["affine1.W"])
    )
    assert xpdl.load(tmp_path / "m", dtype="float64").precision.name == "float64"


def test_the_loss_is_kept(tmp_path: Path) -> None:
    Network([Affine(3)], (4,), loss=IdentityWithLoss()).save(tmp_path / "m")
    assert isinstance(xpdl.load(tmp_path / "m").loss_layer, IdentityWithLoss)


def test_a_folder_is_a_run(tmp_path: Path) -> None:
    network = everything()
    network.save(tmp_path / "model.safetensors")
    assert xpdl.load(tmp_path).name == "Everything"


def altered(path: Path, **changes: Any) -> None:
    """Write a small network's file with some of its metadata or arrays changed."""
    network = Network([Affine(3)], (4,))
    architecture = network.config() | changes.pop("architecture", {})
    description = {"format": "xpdl-network-1", "architecture": architecture, "about": {}}
    description |= changes.pop("description", {})
    text = changes.pop("text", None) or json.dumps(description)
    arrays = {name: xpdl.to_numpy(a) for name, a in network.arrays().items()}
    arrays |= changes.pop("arrays", {})
    save_file({k: v for k, v in arrays.items() if v is not None}, path, {"xpdl": text})


DAMAGED: dict[str, tuple[dict[str, Any], str]] = {
    "another format": ({"description": {"format": "pt"}}, "format is 'pt'"),
    "no JSON": ({"text": "{"}, "is damaged"),
    "a list": ({"text": "[]"}, "is damaged"),
    "no body": ({"architecture": {"body": None}}, "does not describe"),
    "unknown layer": (
        {"architecture": {"body": {"type": "Sequential", "layers": {"a": {"type": "Evil"}}}}},
        "unknown layer 'Evil'",
    ),
    "wrong option": (
        {"architecture": {"body": {"type": "Affine", "depth": 3}}}, "depth",
    ),
    "another shape": ({"arrays": {"affine1.W": np.zeros((3, 4), "f4")}}, r"\(4, 3\)"),
    "a missing array": ({"arrays": {"affine1.b": None}}, "want 15 parameters"),
    "an extra array": ({"arrays": {"more": np.zeros(3, "f4")}}, "more"),
    "integers": ({"arrays": {"affine1.b": np.zeros(3, "i4")}}, "affine1.b.*int32"),
    "NaN": ({"arrays": {"affine1.b": np.full(3, np.nan, "f4")}}, "affine1.b.*NaN"),
    "an enormous layer": (
        {"architecture": {"body": {"type": "Sequential", "layers": {
            "a": {"type": "Affine", "units": 10**9, "bias": True}}}}}, "5,000,000,000 parameters",
    ),
    "a layer beyond all": (
        {"architecture": {"body": {"type": "Sequential", "layers": {
            "a": {"type": "Affine", "units": 10**12, "bias": True}}}}}, "000,000,000",
    ),
    "an enormous input": ({"architecture": {"input_shape": [10**15]}}, "input_shape"),
    "a negative input": ({"architecture": {"input_shape": [-4]}}, "input_shape|parameters"),
    "unknown loss": ({"architecture": {"loss": {"type": "Evil"}}}, "Evil"),
    "unknown dtype": ({"architecture": {"dtype": "int8"}}, "int8"),
    "strange decay": ({"architecture": {"weight_decay": "x"}}, "does not describe"),
    "numbers beyond the type": ({"arrays": {"affine1.b": np.full(3, 1e300)}}, "affine1.b.*beyond"),
    "an infinite input": (
        {"architecture": {"input_shape": [float("inf")], "body": {"type": "Sequential", "layers": {
            "a": {"type": "Flatten"}}}}}, "Infinity|input_shape",
    ),
    "an input of 10^400 and no parameters": (
        {"architecture": {"input_shape": [10**400], "weight_decay": 10**400,
                          "body": {"type": "Sequential", "layers": {"a": {"type": "ReLU"}}}},
         "arrays": {"affine1.W": None, "affine1.b": None}}, "does not describe",
    ),
    "an input of parts": ({"architecture": {"input_shape": [4.5]}}, "input_shape"),
    "notes that are a list": ({"description": {"about": [["data", "mnist"]]}}, "notes"),
    "a decay of 10^400": ({"architecture": {"weight_decay": 10**400}}, "does not describe"),
    "an array by another name": (
        {"arrays": {"affine1.b": None, "b": np.zeros(3, "f4")}}, "affine1.b.*missing.*'b'",
    ),
    "deep nesting": ({"text": "[" * 100000}, "is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_foreign_and_damaged_files(case: str, tmp_path: Path) -> None:
    changes, words = DAMAGED[case]
    altered(tmp_path / "m.safetensors", **copy.deepcopy(changes))
    with pytest.raises(ModelFileError, match=words) as caught:
        xpdl.load(tmp_path / "m.safetensors")
    assert "m.safetensors" in str(caught.value)


def test_numbers_are_not_read_if_they_are_of_no_use(tmp_path: Path) -> None:
    path = tmp_path / "m"
    altered(path, arrays={"more": np.zeros(1, "f4")})
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    start, end = header["more"]["data_offsets"]
    assert 8 + size + end == len(content)  # it is the last
    header["more"] |= {"shape": [2**31], "data_offsets": [start, start + 2**33]}
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + start + 2**33)  # 8 GB of noughts, which take no room
    with pytest.raises(ModelFileError, match="'more' is not wanted"):
        xpdl.load(path)


def test_a_message_is_short_whatever_the_file_says(tmp_path: Path) -> None:
    body = {"type": "Sequential", "layers": {"a": {"type": "a" * 100_000}}}
    altered(tmp_path / "m", architecture={"body": body})
    with pytest.raises(ModelFileError) as caught:
        xpdl.load(tmp_path / "m")
    assert len(str(caught.value)) < 1000


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileAccessError, match="nothing-here"):
        xpdl.load(tmp_path / "nothing-here")
    (tmp_path / "text").write_text("I am a model, believe me, I am one")
    with pytest.raises(ModelFileError, match="not a safetensors"):
        xpdl.load(tmp_path / "text")


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "m"
    Network([Affine(3)], (4,), seed=1).save(path)
    before = path.read_bytes()

    def full_disk(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(FileAccessError, match="No space left"):
        Network([Affine(3)], (4,), seed=2).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_layer_of_ones_own_is_loaded_by_name(tmp_path: Path, backend: Backend) -> None:
    from xpdl.layers import Layer

    class Double(Layer):
        """Twice its input."""

        def forward(self, x: Any, train: bool = False) -> Any:
            return 2 * x

    network = Network([Double(), Affine(3)], (4,))
    network.save(tmp_path / "m")
    x = backend.asarray(np.ones((1, 4)), "float32")
    np.testing.assert_array_equal(
        backend.to_numpy(xpdl.load(tmp_path / "m").predict(x)), backend.to_numpy(network.predict(x))
    )
    del Layer.classes["Double"]
    with pytest.raises(ModelFileError, match="Double"):
        xpdl.load(tmp_path / "m")
