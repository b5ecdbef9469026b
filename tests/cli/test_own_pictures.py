"""Pictures of one's own: trained on, measured, gone on with, by the command."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blank_drawings import DRAW, draw_blank
from PIL import Image
from test_ensemble_command import without_times

import xpdl
from xpdl.cli.main import main
from xpdl.datasets import PictureData, StoredPictures, encode_idx
from xpdl.datasets.folder import load as folder_loading
from xpdl.runs import preparation
from xpdl.runs.data import load_pictures, normalizing, usual_recipe
from xpdl.runs.options import make_options
from xpdl.runs.run import Run
from xpdl.storage import load_with_notes

NAMES = ["daisy", "poppy", "rose", "tulip"]
SMALL = [
    "--model", "SimpleConvNet", "--model-options", "filters=4", "filter_size=3", "hidden_size=8",
    'weight_init_std="he"', "--batch-size", "20", "--epochs", "3", "--average", "0",
]  # fmt: skip


def photographs(folder: Path, names: list[str], each: int, seed: int = 0, side: int = 10) -> Path:
    """Make a folder a class of JPEGs; the class of a name has its own colour and place of light."""
    rng = np.random.default_rng(seed)
    for name in names:
        k = NAMES.index(name) if name in NAMES else 0
        (folder / name).mkdir(parents=True)
        for i in range(each):
            pixels = rng.integers(0, 90, (side, side + 2, 3)).astype(np.uint8)
            pixels[: side // 2, :, k % 3] += 90
            pixels[side // 2 :, :, k // 3] += 60
            Image.fromarray(pixels).save(folder / name / f"{i}.jpg", quality=95)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: Any) -> Path:
    """A folder with the folders ``flowers`` and ``cache``, made once."""
    place: Path = tmp_path_factory.mktemp("made")
    photographs(place / "flowers", NAMES, 20)
    return place


@pytest.fixture(autouse=True)
def drawn(made: Path, tmp_path: Path, monkeypatch: Any) -> Iterator[dict[str, Any]]:
    monkeypatch.setenv("XPDL_DATA", str(made / "cache"))
    monkeypatch.setattr(folder_loading, "_cores", lambda: 0)  # so few are decoded here
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        yield draw_blank(patch)


@pytest.fixture
def flowers(made: Path) -> str:
    return str(made / "flowers")


def train(*arguments: str) -> int:
    return main(["train", "--data", *arguments])


def record(folder: str = "run") -> Any:
    return json.loads(Path(folder, "history.json").read_text())


def numbers(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).glob("*.safetensors")}


def refused(capsys: Any, *arguments: str) -> str:
    """Return the one line that a command ends in that does not serve."""
    capsys.readouterr()
    try:
        code = main(list(arguments))
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1, err
    line: str = err
    return line


# ---- a folder


def test_a_folder_is_trained_on_and_measured(flowers: str, capsys: Any, drawn: Any) -> None:
    assert train(flowers, *SMALL, "--batch-size", "4", "--epochs", "6") == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0].startswith("SimpleConvNet on flowers: 6 epochs")
    assert "80 pictures of 4 classes, 10 x 12 pixels, in colour" in lines[1]
    parts = re.match(
        r"pictures: (\d+) to train with, (\d+) for validation, (\d+) to test", lines[2]
    )
    assert parts
    assert sum(map(int, parts.groups())) == 80
    told = record("runs/flowers")
    assert told["options"]["data"] == flowers
    assert told["options"]["validation"] == 0.1
    last = told["epochs"][-1]["validation"]
    assert f"validation accuracy {last['accuracy']:.2%}, loss {last['loss']:.4g}" in out
    for epoch in told["epochs"]:
        assert epoch["validation"].keys() == {"loss", "accuracy"}
        assert epoch["test"] is None
    assert told["test_accuracy"] > 0.9
    network, notes = load_with_notes("runs/flowers")
    assert network.input_shape == (3, 10, 12)
    assert list(network.class_names) == notes["class_names"] == NAMES
    assert notes["pictures"]["shape"] == [3, 10, 12]
    _, notes = load_with_notes("runs/flowers/best.safetensors")
    accuracies = [epoch["validation"]["accuracy"] for epoch in told["epochs"]]
    assert notes["epochs"] == 1 + accuracies.index(max(accuracies))
    assert drawn["confusion_matrix"][2] == tuple(NAMES)

    assert main(["evaluate", "runs/flowers"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"{parts[3]} test pictures, which were set aside"
    assert f"test accuracy {told['test_accuracy']:.2%}" in lines[2]
    assert "finished" in refused(capsys, "train", "--resume", "runs/flowers")
    assert train(flowers, *SMALL[:5], "--batch-size", "0:8,20:80") == 0  # of 30 epochs
    assert len(record("runs/flowers-2")["epochs"]) == 30


def test_the_parts_have_no_picture_in_common(flowers: str) -> None:
    pictures = load_pictures(flowers, validation=0.2)
    parts = [pictures.train, pictures.validation, pictures.test]
    seen = [{x.tobytes() for x in part[0]} for part in parts if part is not None]
    assert [len(part) > 4 for part in seen] == [True] * 3
    assert sum(map(len, seen)) == len(set().union(*seen)) == 80
    fewer = load_pictures(flowers, validation=0)
    assert fewer.test is not None
    assert {x.tobytes() for x in fewer.test[0]} == seen[2]


def test_what_the_pictures_are_is_measured_on_those_to_train_with(flowers: str) -> None:
    pictures = load_pictures(flowers, validation=0.2)
    x = pictures.train[0].astype(np.float64) / 255
    layer = normalizing(flowers, pictures)
    np.testing.assert_allclose(layer.mean, x.mean(axis=(0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(layer.deviation, x.std(axis=(0, 2, 3)), atol=1e-6)
    flat = normalizing(flowers, pictures, flat=True)
    np.testing.assert_allclose((*flat.mean, *flat.deviation), (x.mean(), x.std()), atol=1e-6)
    floats = PictureData((x.astype("f4"), pictures.train[1]), None, pictures.class_names, "")
    np.testing.assert_allclose(normalizing(flowers, floats).mean, layer.mean, atol=1e-6)
    one_shade = PictureData((np.full((2, 1, 3, 3), 7, "u1"), np.arange(2)), None, ("a", "b"), "")
    assert normalizing(flowers, one_shade).deviation == (1.0,)
    assert normalizing("mnist", pictures).mean == (0.0,)


@pytest.mark.parametrize(
    ("shape", "count", "recipe", "model", "epochs", "augment"),
    [
        ((3, 32, 32), 45_000, "photos", None, 7, {"flip": 0.5, "crop": {"pad": 4}}),
        ((3, 48, 64), 1_000, "photos", None, 30, {"flip": 0.5, "crop": {"pad": 6}}),
        ((3, 224, 168), 1_000, "photos", "ResNet", 9, {"flip": 0.5, "crop": {"pad": 21}}),
        ((1, 28, 28), 20_000, "drawings", None, 21, {"crop": {"pad": 3}}),
    ],
)
def test_the_recipe_suits_the_pictures(
    shape: Any, count: int, recipe: str, model: Any, epochs: int, augment: Any
) -> None:
    x = np.broadcast_to(np.uint8(0), (count, *shape))
    pictures = PictureData((x, np.zeros(count, int)), None, ("a", "b"), "")
    name, suited = usual_recipe("somewhere", pictures)
    assert (name, suited.get("model"), suited["epochs"]) == (recipe, model, epochs)
    assert suited["augment"] == augment
    options = make_options(None, pictures=pictures, data="somewhere", seed=0, dtype=None)
    assert options.model == (model or "NormalizedConvNet")
    assert bool(options.model_options) is (model is None)
    assert options.augment == augment
    assert usual_recipe("mnist", pictures) == ("fast", {})


def test_validation_of_mnist_lets_the_test_wait(small_mnist: Path) -> None:
    arguments = ["train", "--model", "TwoLayerNet", "--epochs", "2"]
    assert main([*arguments, "--validation", "0.3", "--out", "run"]) == 0
    assert [epoch["test"] for epoch in record()["epochs"]] == [None, None]
    assert record()["epochs"][0]["validation"]["accuracy"] >= 0
    assert Path("run/best.safetensors").exists()


# ---- filters that are measured


def test_measured_filters_and_an_optimizers_options_go_on_as_they_began(
    flowers: str, capsys: Any, monkeypatch: Any
) -> None:
    recipe = ["--recipe", "cifar", "--model-options", "widths=[4,4]", "--picture-size", "14x16"]
    recipe += ["--optimizer-options", 'rate_factors={"norm": 3}', "--epochs", "2"]
    recipe += ["--batch-size", "20"]
    with monkeypatch.context() as patch:

        def stop(trainer: Any, _: Any) -> None:
            trainer.interrupt()

        patch.setattr(Run, "_keep_best", lambda self, trainer, epoch: stop(trainer, epoch))
        assert train(flowers, *recipe, "--out", "run") == 130
    measured = xpdl.to_numpy(xpdl.load("run").arrays()["conv1.W"])
    assert main(["train", "--resume", "run"]) == 0
    assert train(flowers, *recipe, "--out", "whole") == 0
    name = "model.safetensors"
    assert numbers("run")[name] == numbers("whole")[name]
    np.testing.assert_array_equal(xpdl.to_numpy(xpdl.load("run").arrays()["conv1.W"]), measured)
    chosen = record()["options"]["optimizer_options"]
    assert chosen == {"momentum": 0.6, "rate_factors": {"norm": 3}}
    assert "optimizer options momentum=0.6" in capsys.readouterr().out


# ---- chosen by validation


def test_patience_brings_the_best_epoch_back(flowers: str, capsys: Any, monkeypatch: Any) -> None:
    found = iter([0.5, 0.7, 0.7, 0.6, 0.9])
    judge = lambda trainer: (None, {"loss": 1.0, "accuracy": next(found)})  # noqa: E731
    monkeypatch.setattr(preparation.Trainer, "_judge", judge)
    assert train(flowers, *SMALL, "--epochs", "5", "--patience", "2", "--out", "run") == 0
    told = next(line for line in capsys.readouterr().out.splitlines() if "stopped" in line)
    assert "after 4 of 5 epochs" in told
    assert "since epoch 2" in told
    files = numbers("run")
    (last, notes), (best, _) = (load_with_notes(f"run/{name}") for name in sorted(files)[::-1])
    assert notes["epochs"] == 2
    assert "finished after 4 epochs" in refused(capsys, "train", "--resume", "run")
    for name, a in best.arrays().items():
        np.testing.assert_array_equal(xpdl.to_numpy(a), xpdl.to_numpy(last.arrays()[name]))


def test_a_run_that_patience_ended_goes_no_further(flowers: str, monkeypatch: Any) -> None:
    """Though it was killed after its last checkpoint."""
    monkeypatch.setattr(
        preparation.Trainer, "_judge", lambda trainer: (None, {"accuracy": 0.5, "loss": 1.0})
    )
    arguments = [flowers, *SMALL, "--patience", "1", "--epochs", "5"]
    with monkeypatch.context() as patch:
        patch.setattr(Run, "_leave", lambda run: (_ for _ in ()).throw(KeyboardInterrupt))
        assert train(*arguments, "--out", "run") == 130
    assert record()["finished"] is False
    assert main(["train", "--resume", "run"]) == 0
    assert len(record()["epochs"]) == 2


def test_each_member_keeps_its_best(flowers: str) -> None:
    assert train(flowers, *SMALL, "--members", "2", "--out", "run") == 0
    for i, member in enumerate(record()["members"]):
        accuracies = [epoch["validation"]["accuracy"] for epoch in member["epochs"]]
        losses = [epoch["validation"]["loss"] for epoch in member["epochs"]]
        assert len(losses) == 3
        _, notes = load_with_notes(f"run/best-{i}.safetensors")
        assert notes["epochs"] == 1 + accuracies.index(max(accuracies))
    assert main(["evaluate", "run"]) == 0


def test_class_weights_even_out_the_classes(made: Path, tmp_path: Path) -> None:
    photographs(tmp_path / "few", NAMES[:2], 12)
    for i in range(8):
        (tmp_path / "few" / "daisy" / f"{i}.jpg").unlink()
    assert train("few", *SMALL, "--class-weights", "balanced", "--validation", "0.2") == 0
    counts = np.bincount(load_pictures("few", validation=0.2).train[1])
    network = xpdl.load("runs/few")
    weights = network.loss_layer.class_weights
    np.testing.assert_allclose(weights, counts.sum() / 2 / counts, rtol=1e-6)


# ---- interrupted


def interrupted(monkeypatch: Any, *arguments: str, epochs: int = 1) -> None:
    """Let Ctrl-C come in the epoch after so many."""
    keep = Run._keep_best

    def note(run: Any, trainer: Any, epoch: Any) -> None:
        keep(run, trainer, epoch)
        if epoch.number == epochs - 1:
            trainer.interrupt()

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_keep_best", note)
        assert train(*arguments) == 130


@pytest.mark.parametrize("then", ["in memory", "in a file"])
def test_it_goes_on_as_if_it_had_not_been_interrupted(
    flowers: str, monkeypatch: Any, then: str
) -> None:
    """Whether or not the memory held the pictures then; now it does."""
    assert train(flowers, *SMALL, "--out", "whole") == 0
    with monkeypatch.context() as patch:
        if then == "in a file":
            patch.setattr(folder_loading, "_most_in_memory", lambda: 0)
            assert isinstance(load_pictures(flowers).train[0], StoredPictures)
        interrupted(monkeypatch, flowers, *SMALL, "--out", "run")
    checkpoint = Path("run/checkpoint.safetensors").read_bytes()
    assert load_pictures(flowers).digest.encode() in checkpoint  # which reads no picture
    assert main(["train", "--resume", "run"]) == 0
    assert numbers("run") == numbers("whole")
    assert without_times(record()) == without_times(record("whole"))


def test_pictures_that_moved_are_gone_on_with_and_others_are_not(
    flowers: str, monkeypatch: Any, capsys: Any
) -> None:
    shutil.copytree(flowers, "here")
    photographs(Path("other"), NAMES, 20, seed=5)
    interrupted(monkeypatch, "here", *SMALL, "--out", "run")
    Path("here").rename("there")
    assert "unknown data set" in refused(capsys, "train", "--resume", "run")
    line = refused(capsys, "train", "--resume", "run", "--data", "other")
    assert "of another training" in line
    assert " data (then " in line
    assert main(["train", "--resume", "run", "--data", "there"]) == 0
    assert record()["options"]["data"] == str(Path("there").absolute())
    for name in ("model", "best"):
        assert load_with_notes(f"run/{name}.safetensors")[1]["data"].endswith("there")


# ---- measured on others


@pytest.fixture
def trained(flowers: str) -> str:
    assert train(flowers, *SMALL, "--batch-size", "4", "--epochs", "6", "--out", "run") == 0
    return "run"


def test_classes_are_known_by_their_names(trained: str, capsys: Any) -> None:
    photographs(Path("more"), ["tulip", "poppy"], 6, seed=3, side=20)
    capsys.readouterr()
    assert main(["evaluate", trained, "--data", "more"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "10 x 12 pixels" in lines[0]
    assert lines[1] == "12 pictures, all that there are; none of 'daisy', 'rose'"
    assert "test accuracy 100.00% (0 of 12 wrong)" in lines[2]
    photographs(Path("foreign"), ["poppy", "lily"], 2)
    line = refused(capsys, "evaluate", trained, "--data", "foreign")
    assert "foreign has pictures of 'lily', which the network does not know" in line
    assert "'daisy', 'rose', 'tulip' of its classes are not there" in line


def test_a_copy_of_the_pictures_is_measured_on_what_was_set_aside(
    trained: str, flowers: str, capsys: Any
) -> None:
    shutil.copytree(flowers, "copy")
    capsys.readouterr()
    assert main(["evaluate", trained, "--data", "copy"]) == 0
    told = capsys.readouterr().out
    assert "which were set aside" in told
    assert f"test accuracy {record()['test_accuracy']:.2%}" in told


def test_the_form_that_was_asked_for_is_kept(flowers: str, capsys: Any) -> None:
    form = ["--picture-size", "6x8", "--channels", "1"]
    assert train(flowers, *SMALL, *form, "--out", "run") == 0
    Path("mnist").mkdir()  # which is not what is meant by that name
    capsys.readouterr()
    assert main(["evaluate", "run"]) == 0
    out = capsys.readouterr().out
    assert "6 x 8 pixels, grey: as was asked for" in out
    assert f"test accuracy {record()['test_accuracy']:.2%}" in out


def test_notes_that_are_damaged_are_told(trained: str, capsys: Any) -> None:
    network, notes = load_with_notes(trained)
    right = notes["pictures"]
    for told in (
        *(5, {"shape": "x"}, {"shape": [1], "digest": ""}),
        *({**right, "test": 2}, {**right, "asked": {"workers": 9}}),
    ):
        network.save("bad.safetensors", {**notes, "pictures": told})
        assert "notes on its pictures are damaged" in refused(capsys, "evaluate", "bad.safetensors")


def test_a_learning_rate_is_found_for_them(flowers: str, capsys: Any) -> None:
    form = ["--data", flowers, "--picture-size", "8x10", "--skip-broken", "--channels", "1"]
    assert main(["find-lr", *form, *SMALL[:-4], "--steps", "60"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "80 pictures of 4 classes, 8 x 10 pixels, grey: as was asked for" in lines[0]
    told = f"--data {flowers} --picture-size 8x10 --channels 1 --skip-broken --batch-size 20"
    assert told in lines[-1]


# ---- files of arrays


@pytest.mark.parametrize("kind", ["npz", "idx"])
def test_files_of_arrays(kind: str, capsys: Any) -> None:
    rng = np.random.default_rng(0)
    t = np.arange(60) % 3
    x = (rng.integers(0, 100, (60, 8, 8)) + 70 * t[:, None, None]).astype(np.uint8)
    Path("letters").mkdir()
    if kind == "npz":
        np.savez("letters/mine.npz", x=x, y=t)
        place = "letters/mine.npz"
    else:
        Path("letters/train-images-idx3-ubyte").write_bytes(encode_idx(x))
        Path("letters/train-labels-idx1-ubyte").write_bytes(encode_idx(t.astype(np.uint8)))
        place = "letters/train-images-idx3-ubyte"
    assert train(place, "--model", "TwoLayerNet", "--epochs", "2") == 0
    assert "60 training pictures of 3 classes, 8 x 8 pixels, grey" in capsys.readouterr().out
    run = "runs/mine" if kind == "npz" else "runs/letters"
    assert record(run)["options"]["augment"] == {"crop": {"pad": 1}}
    assert main(["evaluate", run]) == 0
    assert "which were set aside" in capsys.readouterr().out


# ---- what does not serve


def bad_folders() -> None:
    photographs(Path("one"), ["rose"], 2)
    photographs(Path("line"), ["rose", "tu\nlip"], 2)
    photographs(Path("few"), ["rose", "tulip"], 2)
    Path("none").mkdir()
    Path("classes/rose").mkdir(parents=True)
    photographs(Path("broken"), ["rose", "tulip"], 9)
    Path("broken/rose/x.jpg").write_bytes(b"")
    Path("broken/rose/y\nz.jpg").write_bytes(b"no picture")
    Path("broken/rose/notes.txt").write_text("roses")
    np.savez("other.npz", a=np.zeros(3))
    np.savez("lengths.npz", x=np.zeros((5, 4, 4), np.uint8), y=np.zeros(4))
    np.savez("small.npz", x=np.arange(600, dtype=np.uint8).reshape(24, 5, 5), y=np.arange(24) % 2)
    Path("text.npz").write_text("text")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["one"], ["two at least", "'rose'"]),
        (["none"], ["it holds none"]),
        (["classes"], ["it holds none"]),
        (["line"], [r"'tu\nlip'", "rename it"]),
        (["few"], ["--test 0.1 --validation 0.1", "leaves none on one side"]),
        (["broken"], ["2 of 20 files", "1 of them empty", r"'rose/y\nz.jpg'", "--skip-broken"]),
        (["nowhere"], ["'nowhere'", "folder"]),
        (["other.npz"], ["x_train and t_train", "'a'"]),
        (["lengths.npz"], ["one for each of 5 pictures"]),
        (["text.npz"], ["no .npz file"]),
        (["small.npz", "--picture-size", "4"], ["only of a folder"]),
        (["small.npz", "--model", "GoogLeNet"], ["GoogLeNet does not fit", "1 x 5 x 5"]),
        (["small.npz", "--model-options", "output_size=5"], ["does not fit 2 classes"]),
        (["small.npz", "--model-options", "input_shape=[3,5,5]"], ["(3, 5, 5)", "(1, 5, 5)"]),
        (["small.npz", "--validation", "0", "--patience", "1"], ["patience", "--validation 0.1"]),
        (["small.npz", "--class-weights", "even"], ["class_weights", "balanced", "'even'"]),
        (["small.npz", "--validation", "1"], ["--validation", "below 1", "'1'"]),
        (["small.npz", "--test", "0"], ["test", "above 0"]),
        (["broken", "--channels", "2"], ["channels", "got 2"]),
        (["broken", "--picture-size", "4x"], ["--picture-size", "'4x'"]),
        (["broken", "--optimizer", "adm"], ["'adm'", "adam"]),
        (["broken", "--out", "none/../broken"], ["not empty"]),
    ],
)
def test_what_does_not_serve_is_one_line(capsys: Any, arguments: Any, words: Any) -> None:
    bad_folders()
    line = refused(capsys, "train", "--data", *arguments)
    for word in words:
        assert word in line
    assert not Path("runs").exists()


def test_broken_files_are_left_out_and_counted(capsys: Any) -> None:
    bad_folders()
    arguments = [*SMALL, "--validation", "0.3", "--test", "0.3", "--skip-broken"]
    assert train("broken", *arguments) == 0
    out = capsys.readouterr().out
    assert "18 pictures of 2 classes" in out
    assert "1 files that are no pictures are left out: 1 .txt" in out
    assert "2 of 20 files" in out
    assert main(["evaluate", "runs/broken"]) == 0  # it knows that they were left out


# ---- what is drawn


def test_pictures_that_are_misclassified_are_drawn_in_colour(flowers: str, drawn: Any) -> None:
    assert train(flowers, *SMALL, "--epochs", "1", "--learning-rate", "1e-9") == 0
    pictures = load_pictures(flowers)
    assert pictures.test is not None
    x, t = pictures.test
    answers = xpdl.to_numpy(xpdl.load("runs/flowers").predict(xpdl.asarray(x))).argmax(axis=1)
    wrong = answers != t
    assert wrong.any()
    images, labels, guesses, names, title = drawn["misclassified"]
    np.testing.assert_array_equal(images, x[wrong])
    assert (labels, guesses) == (t[wrong].tolist(), answers[wrong].tolist())
    assert title == f"{wrong.sum()} of {len(t)} misclassified: "
    figure = DRAW["misclassified"](images, labels, guesses, names, title)
    shown = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(shown, images[0].transpose(1, 2, 0) / 255)
    assert figure.axes[0].get_title().startswith(names[labels[0]])
