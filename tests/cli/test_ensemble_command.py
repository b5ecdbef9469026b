"""`xpdl train` of several networks, and answers over shifts: what it leaves, and how it goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blank_drawings import DRAW, draw_blank
from PIL import Image

import xpdl
from xpdl import Network, plots
from xpdl.backends import Backend
from xpdl.cli.main import main
from xpdl.errors import ArgumentError
from xpdl.runs import preparation
from xpdl.runs.ensemble_run import EnsembleRun, resume_run
from xpdl.runs.options import make_options
from xpdl.runs.run import Run
from xpdl.storage import load_with_notes
from xpdl.tuning import load_ensemble
from xpdl.tuning.ensemble import member_seed

TEST_IMAGES = 60
EPOCHS = 3
TRAIN = [
    "train", "--model", "TwoLayerNet", "--model-options", "input_size=[1,28,28]",
    "hidden_size=16", 'weight_init_std="he"', "--epochs", str(EPOCHS), "--batch-size", "10",
    "--learning-rate", "0.005", "--seed", "4",
]  # fmt: skip


def bars(n: int, seed: int) -> tuple[Any, Any]:
    """Return pictures (N, 1, 28, 28) of bytes with a bar, and the class that is its place."""
    rng = np.random.default_rng(seed)
    t = rng.integers(0, 10, n)
    x = rng.integers(0, 80, (n, 1, 28, 28)).astype("uint8")
    for image, label in zip(x, t, strict=True):
        image[0, 4:24, 4 + 2 * label : 6 + 2 * label] += 110
    return x, t


def load_bars(normalize: bool = True, flatten: bool = True, one_hot_label: bool = False) -> Any:
    shape = (-1, 784) if flatten else (-1, 1, 28, 28)
    return tuple(
        (xpdl.asarray((x / np.float32(255) if normalize else x).reshape(shape)), xpdl.asarray(t))
        for x, t in (bars(120, 0), bars(TEST_IMAGES, 1))
    )


@pytest.fixture(autouse=True)
def drawn(monkeypatch: Any) -> dict[str, Any]:
    return draw_blank(monkeypatch)


@pytest.fixture(autouse=True)
def _small_data(monkeypatch: Any, tmp_path: Path) -> None:
    for name in ("mnist", "fashion-mnist"):
        monkeypatch.setitem(preparation.LOADERS, name, load_bars)
    monkeypatch.chdir(tmp_path)


def names(folder: str) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def record(folder: str) -> Any:
    return json.loads(Path(folder, "history.json").read_text())


def without_times(record: Any) -> Any:
    """Return a record of a run with all but how long it took."""
    if isinstance(record, dict):
        return {name: without_times(part) for name, part in record.items() if name != "seconds"}
    return [without_times(part) for part in record] if isinstance(record, list) else record


def moved(x: Any, down: int, right: int) -> Any:
    """Return pictures moved by so many pixels, 0 where nothing moved to."""
    h, w = x.shape[2:]
    margin = np.pad(x, ((0, 0), (0, 0), (5, 5), (5, 5)))
    return margin[:, :, 5 - down : 5 - down + h, 5 - right : 5 - right + w]


def looks(networks: list[Network], x: Any, shifts: int, mirrored: bool = False) -> Any:
    """Return the mean probabilities (N, 10) over networks and looks, in float64."""
    steps = (-shifts, 0, shifts) if shifts else (0,)
    total: Any = 0
    for network in networks:
        for down in steps:
            for right in steps:
                place = moved(x, down, right)
                for picture in (place, place[..., ::-1]) if mirrored else (place,):
                    seen = xpdl.asarray(np.ascontiguousarray(picture))
                    scores = xpdl.to_numpy(network.predict(seen)).astype("float64")
                    e = np.exp(scores - scores.max(axis=1, keepdims=True))
                    total = total + e / e.sum(axis=1, keepdims=True)
    return total / len(networks) / len(steps) ** 2 / (1 + mirrored)


def pictures() -> tuple[Any, Any]:
    """Return the test pictures, in [0, 1], and their classes, on the host."""
    x, t = bars(TEST_IMAGES, 1)
    return x / np.float32(255), t


def accuracy(probabilities: Any) -> Any:
    return (probabilities.argmax(axis=1) == pictures()[1]).mean()


def cross_entropy(probabilities: Any) -> Any:
    return -np.log(probabilities[np.arange(TEST_IMAGES), pictures()[1]]).mean()


def loss_in(line: str) -> float:
    found = re.search(r"loss ([\d.]+), ", line)
    assert found, line
    return float(found[1])


def shown(line: str) -> tuple[str, int, str]:
    """Return both accuracies of a line, and how many were wrong."""
    found = re.search(
        r"test accuracy ([\d.]+%) \((\d+) of 60 wrong\) over shifts; ([\d.]+%) at one look", line
    )
    assert found, line
    return found[1], int(found[2]), found[3]


def scores(line: str) -> str:
    """Return what a line says of the test images."""
    found = re.search(r"test accuracy .* wrong\)( over shifts; [\d.]+% at one look)?", line)
    assert found, line
    return found[0]


def interrupt_after(monkeypatch: Any, epochs: int) -> None:
    """Let Ctrl-C come after so many epochs, of whichever trainers."""
    done = []

    def note(trainer: Any, epoch: Any) -> None:
        done.append(epoch)
        if len(done) == epochs:
            raise KeyboardInterrupt

    make = preparation.Trainer
    monkeypatch.setattr(preparation, "Trainer", lambda *a, **o: make(*a, **o, callbacks=[note]))


# ---- over shifts


@pytest.mark.parametrize("members", [1, 2])
def test_the_answers_of_a_run_are_those_over_shifts(
    capsys: Any, drawn: dict[str, Any], members: int
) -> None:
    arguments = [*TRAIN, "--shifts", "2", "--members", str(members)]
    assert main([*arguments, "--out", "run"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "shifts 2" in out.splitlines()[1]
    networks = list(load_ensemble("run").members) if members > 1 else [xpdl.load("run")]
    assert len(networks) == members
    x, t = pictures()
    expected, plain = looks(networks, x, 2), looks(networks, x, 0)
    assert (expected.argmax(axis=1) != plain.argmax(axis=1)).any()
    assert accuracy(expected) != accuracy(plain)
    history = record("run")
    assert history["test_accuracy"] == pytest.approx(accuracy(expected))
    assert history["single_look_accuracy"] == pytest.approx(accuracy(plain))
    assert history["options"]["shifts"] == 2
    wrong = round(TEST_IMAGES * (1 - accuracy(expected)))
    told = (f"{accuracy(expected):.2%}", wrong, f"{accuracy(plain):.2%}")
    assert shown(out.splitlines()[-2]) == told

    images, labels, answers, *_ = drawn["misclassified"]
    missed = expected.argmax(axis=1) != t
    np.testing.assert_allclose(images / 255, x[missed][:48], atol=1e-6)
    assert labels == t[missed].tolist()[:48]
    assert answers == expected.argmax(axis=1)[missed].tolist()[:48]
    np.testing.assert_array_equal(drawn["confusion_matrix"][1], expected.argmax(axis=1))
    title = drawn["learning_curves"][3] if members == 1 else drawn["curves"][1]
    assert f"{accuracy(expected):.2%}" in title
    assert "over shifts" in title

    assert main(["evaluate", "run"]) == 0
    line = capsys.readouterr().out
    assert shown(line) == told
    assert line.startswith("TwoLayerNet on" if members == 1 else "2 x TwoLayerNet on")
    assert loss_in(line) == pytest.approx(cross_entropy(expected), abs=1e-4)

    Image.fromarray(bars(1, 5)[0][0, 0]).save("a.png")
    assert main(["predict", "run", "a.png"]) == 0
    digit = xpdl.datasets.prepare_digit("a.png").reshape(1, 1, 28, 28)
    (p,) = looks(networks, digit, 2)
    first = re.search(r"a\.png: (\d) \(([\d.]+)%\), (\d) \(([\d.]+)%\)", capsys.readouterr().out)
    assert first
    order = p.argsort()[::-1]
    assert [int(first[1]), int(first[3])] == order[:2].tolist()
    assert float(first[2]) == pytest.approx(100 * p[order[0]], abs=0.06)
    assert abs(p - looks(networks, digit, 0)[0]).max() > 0.002  # one look would show


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize(("begun", "resumed"), [(2, 0), (0, 2), (1, 2)])
def test_shifts_that_changed_on_the_way_are_those_that_answer(
    capsys: Any, monkeypatch: Any, members: int, begun: int, resumed: int
) -> None:
    """The files of before, the first member's or the best network's, know only the old ones."""
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2 if members == 1 else EPOCHS + 1)
        arguments = ["--members", str(members), "--shifts", str(begun), "--out", "run"]
        assert main([*TRAIN, *arguments]) == 130
    assert main(["train", "--resume", "run", "--shifts", str(resumed)]) == 0
    told = scores(capsys.readouterr().out.splitlines()[-2])
    assert main(["evaluate", "run"]) == 0
    assert scores(capsys.readouterr().out) == told
    assert ("over shifts" in told) is bool(resumed)


@pytest.mark.parametrize(("begun", "resumed"), [(2, 0), (0, 2), (1, 2)])
def test_the_best_network_answers_by_the_shifts_that_the_run_has_now(
    monkeypatch: Any, begun: int, resumed: int
) -> None:
    accuracies = iter([0.9, 0.5, 0.6])
    monkeypatch.setattr(
        preparation.Trainer, "_judge", lambda self: (None, {"accuracy": next(accuracies)})
    )
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        validated = [*TRAIN, "--validation", "0.2"]
        assert main([*validated, "--shifts", str(begun), "--out", "run"]) == 130
    before, notes = load_with_notes("run/best.safetensors")
    assert notes.pop("shifts", 0) == begun
    assert main(["train", "--resume", "run", "--shifts", str(resumed)]) == 0
    after, notes_after = load_with_notes("run/best.safetensors")
    assert notes_after.pop("shifts", 0) == resumed
    assert notes_after == notes
    for name, a in before.arrays().items():
        np.testing.assert_array_equal(xpdl.to_numpy(a), xpdl.to_numpy(after.arrays()[name]))


@pytest.mark.parametrize("members", [1, 2])
def test_mirror_images_are_looked_at_as_long_as_the_run_says_so(capsys: Any, members: int) -> None:
    arguments = [*TRAIN, "--shifts", "1", "--mirrored", "--members", str(members), "--out", "run"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "shifts 1, mirrored" in out.splitlines()[1]
    networks = list(load_ensemble("run").members) if members > 1 else [xpdl.load("run")]
    x, _ = pictures()
    both, mirrored = looks(networks, x, 1, True), looks(networks, x, 0, True)
    assert f"{accuracy(both):.2%}" in out.splitlines()[-2]
    assert "over shifts and mirror images" in out.splitlines()[-2]
    assert record("run")["test_accuracy"] == pytest.approx(accuracy(both))
    Image.fromarray(bars(1, 5)[0][0, 0]).save("a.png")
    digit = xpdl.datasets.prepare_digit("a.png").reshape(1, 1, 28, 28)
    for asked, k, mirror, told in (
        ([], 1, True, "over shifts and mirror images;"),
        (["--shifts", "0"], 0, True, "over mirror images;"),
        (["--no-mirrored"], 1, False, "over shifts;"),
        (["--no-mirrored", "--shifts", "0"], 0, False, "wrong),"),
    ):
        assert main(["evaluate", "run", *asked]) == 0
        line = capsys.readouterr().out
        assert f"{accuracy(looks(networks, x, k, mirror)):.2%}" in line
        assert told in line
        assert main(["predict", "run", "a.png", *asked]) == 0
        most = looks(networks, digit, k, mirror)[0].max()
        assert f"({most:.1%})" in capsys.readouterr().out
    assert abs(both - mirrored).max() > 0.001


@pytest.mark.parametrize("members", [1, 2])
def test_other_shifts_than_it_was_trained_for(capsys: Any, members: int) -> None:
    arguments = [*TRAIN, "--shifts", "1", "--members", str(members)]
    assert main([*arguments, "--out", "run"]) == 0
    networks = list(load_ensemble("run").members) if members > 1 else [xpdl.load("run")]
    x, _ = pictures()
    capsys.readouterr()
    Image.fromarray(bars(1, 5)[0][0, 0]).save("a.png")
    digit = xpdl.datasets.prepare_digit("a.png").reshape(1, 1, 28, 28)
    for shifts in (0, 2):
        assert main(["evaluate", "run", "--shifts", str(shifts)]) == 0
        line = capsys.readouterr().out
        assert f"{accuracy(looks(networks, x, shifts)):.2%}" in line
        assert ("over shifts" in line) is bool(shifts)
        assert main(["predict", "run", "a.png", "--shifts", str(shifts)]) == 0
        most = looks(networks, digit, shifts)[0].max()
        assert f"({most:.1%})" in capsys.readouterr().out
    assert main(["evaluate", "run", "--shifts", "30"]) == 2
    assert "shift must be smaller than the picture" in capsys.readouterr().err


def test_shifts_of_a_file_that_cannot_have_them(capsys: Any) -> None:
    assert main(["train", "--model", "TwoLayerNet", "--epochs", "1", "--out", "run"]) == 0
    network, about = load_with_notes("run")
    assert "shifts" not in about
    assert "single_look_accuracy" not in record("run")
    capsys.readouterr()
    for shifts, word in ((1, "(784,)"), ("1", "shifts"), (-1, "shifts")):
        network.save("other.safetensors", about | {"shifts": shifts})
        Image.fromarray(bars(1, 5)[0][0, 0]).save("a.png")
        for arguments in (["evaluate", "other.safetensors"], ["predict", "run", "a.png"]):
            arguments[1] = "other.safetensors"
            assert main(arguments) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert word in line


# ---- the test images are looked at no more often than they must be


def count_predicted(monkeypatch: Any) -> list[int]:
    counts: list[int] = []
    predict = Network.predict

    def counting(self: Network, x: Any, **options: Any) -> Any:
        counts.append(len(x))
        return predict(self, x, **options)

    monkeypatch.setattr(Network, "predict", counting)
    return counts


@pytest.mark.parametrize("more", [[], ["--average", "0.9"]])
def test_the_last_test_is_what_is_drawn(
    drawn: dict[str, Any], monkeypatch: Any, more: list[str]
) -> None:
    with monkeypatch.context() as patch:
        counts = count_predicted(patch)
        assert main([*TRAIN, *more, "--out", "run"]) == 0
    assert sum(counts) == EPOCHS * TEST_IMAGES
    expected = looks([xpdl.load("run")], pictures()[0], 0)
    np.testing.assert_array_equal(drawn["confusion_matrix"][1], expected.argmax(axis=1))
    assert record("run")["test_accuracy"] == pytest.approx(accuracy(expected))
    assert 0.2 < accuracy(expected) < 1


@pytest.mark.parametrize("more", [[], ["--average", "0.9"]])
def test_a_run_that_was_stopped_before_its_drawing_looks_once_more(
    drawn: dict[str, Any], monkeypatch: Any, more: list[str]
) -> None:
    assert main([*TRAIN, *more, "--out", "whole"]) == 0
    with monkeypatch.context() as patch:
        interrupt_after(patch, EPOCHS)
        assert main([*TRAIN, *more, "--out", "cut"]) == 130
    drawn.clear()
    with monkeypatch.context() as patch:
        counts = count_predicted(patch)
        assert main(["train", "--resume", "cut"]) == 0
    assert sum(counts) == TEST_IMAGES
    expected = looks([xpdl.load("cut")], pictures()[0], 0)
    np.testing.assert_array_equal(drawn["confusion_matrix"][1], expected.argmax(axis=1))
    assert without_times(record("cut")) == without_times(record("whole"))


# ---- members


def test_an_ensemble_is_left_and_answers(capsys: Any, drawn: dict[str, Any]) -> None:
    assert main([*TRAIN, "--members", "3", "--label-smoothing", "0.1", "--out", "run"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert names("run") == {
        "history.json", "ensemble.json", *(f"member-{i}.safetensors" for i in range(3)),
        "curves.png", "misclassified.png", "confusion.png",
    }  # fmt: skip
    ensemble = load_ensemble("run")
    x, _ = pictures()
    expected = looks(list(ensemble.members), x, 0)
    history = record("run")
    assert history["finished"] is True
    assert history["test_accuracy"] == pytest.approx(accuracy(expected))
    assert "single_look_accuracy" not in history
    assert history["options"]["members"] == 3
    assert len(history["members"]) == 3
    each = []
    for i, member in enumerate(history["members"]):
        assert member["seed"] == member_seed(4, i)
        assert len(member["losses"]) == EPOCHS * 12
        assert len(member["epochs"]) == EPOCHS
        each.append(accuracy(looks([ensemble.members[i]], x, 0)))
        assert member["test_accuracy"] == pytest.approx(each[-1])
        assert f"member {i + 1}/3  seed {member_seed(4, i)}\nepoch  1/3 " in out
        assert f"member {i + 1}/3  test accuracy {each[-1]:.2%}\n" in out
    times = [epoch["seconds"] for member in history["members"] for epoch in member["epochs"]]
    assert history["seconds"] == pytest.approx(sum(times))
    assert len(set(each)) > 1
    assert "members 3" in out.splitlines()[1]
    score = f"test accuracy {accuracy(expected):.2%} ("
    assert out.splitlines()[-2].startswith(score)
    assert "over shifts" not in out

    np.testing.assert_array_equal(drawn["confusion_matrix"][1], expected.argmax(axis=1))
    lines, title = drawn["curves"]
    assert f"{accuracy(expected):.2%} together" in title
    assert f"{100 * min(each):.2f} to {100 * max(each):.2f}% alone" in title
    assert list(lines) == ["member 1", "member 2", "member 3", "together"]
    assert [y[-1] for _, y in lines.values()] == pytest.approx(
        [*(100 * a for a in each), 100 * accuracy(expected)]
    )

    assert main(["evaluate", "run"]) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"3 x TwoLayerNet on mnist: {score}")
    assert loss_in(line) == pytest.approx(cross_entropy(expected), abs=1e-4)
    # A member alone is a network as any other.
    assert main(["evaluate", "run/member-1.safetensors"]) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"TwoLayerNet on mnist: test accuracy {each[1]:.2%} (")
    assert "with label smoothing 0.1" in line
    assert main(["train", "--resume", "run"]) == 2
    assert "finished" in capsys.readouterr().err


def test_on_each_device_it_is_left_and_answers(backend: Backend, capsys: Any) -> None:
    arguments = [*TRAIN, "--epochs", "1", "--members", "2", "--shifts", "1"]
    assert main([*arguments, "--out", "run"]) == 0
    trained = shown(capsys.readouterr().out.splitlines()[-2])
    assert main(["evaluate", "run"]) == 0
    assert shown(capsys.readouterr().out) == trained
    assert record("run")["options"]["backend"] == backend.name
    expected = looks(list(load_ensemble("run").members), pictures()[0], 1)
    assert record("run")["test_accuracy"] == pytest.approx(accuracy(expected))


def test_a_member_is_what_a_run_of_its_seed_would_be_and_knows_not_of_others(capsys: Any) -> None:
    for n in (2, 3):
        assert main([*TRAIN, "--members", str(n), "--average", "0.9", "--out", f"of{n}"]) == 0
    for i in range(2):
        member = f"member-{i}.safetensors"
        assert Path("of2", member).read_bytes() == Path("of3", member).read_bytes()
    arguments = [*TRAIN, "--average", "0.9", "--seed", str(member_seed(4, 1)), "--out", "alone"]
    assert main(arguments) == 0
    assert record("alone")["losses"] == record("of2")["members"][1]["losses"]
    alone, member = xpdl.load("alone"), xpdl.load("of2/member-1.safetensors")
    for name, a in member.arrays().items():
        np.testing.assert_array_equal(xpdl.to_numpy(a), xpdl.to_numpy(alone.arrays()[name]))


def test_members_of_fashion_have_its_names(capsys: Any) -> None:
    assert main([*TRAIN, "--data", "fashion-mnist", "--members", "2", "--out", "run"]) == 0
    Image.fromarray(bars(1, 5)[0][0, 0]).save("a.png")
    capsys.readouterr()
    for path in ("run", "run/member-1.safetensors"):
        assert main(["predict", path, "a.png"]) == 0
        out, err = capsys.readouterr()
        assert any(name in out for name in xpdl.datasets.CLASS_NAMES["fashion-mnist"])
        assert "trained on fashion-mnist" in err


def test_an_ensemble_of_one_epoch_in_half_precision(capsys: Any, monkeypatch: Any) -> None:
    """And its pictures, as they are."""
    for name, draw in DRAW.items():
        monkeypatch.setattr(plots, name, draw)
    arguments = ["train", "--model", "TwoLayerNet", "--epochs", "1", "--members", "2"]
    assert main([*arguments, "--dtype", "float16", "--out", "run"]) == 0
    assert "steps skipped" in capsys.readouterr().out
    members = load_ensemble("run").members
    assert {member.precision.name for member in members} == {"float16"}
    assert record("run")["members"][1]["loss_scales"]
    for picture in ("curves.png", "misclassified.png", "confusion.png"):
        assert np.asarray(Image.open(Path("run", picture)).convert("L")).std() > 5


# ---- interrupted


EVERYTHING = [
    "--members", "3", "--shifts", "1", "--average", "0.9", "--augment", "shift=1",
    "--label-smoothing", "0.1",
]  # fmt: skip


def in_training(epochs: int) -> Callable[[Any], None]:
    return lambda monkeypatch: interrupt_after(monkeypatch, epochs)


def in_drawing(monkeypatch: Any) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(plots, "misclassified", stop)


def in_saving(monkeypatch: Any) -> None:
    """Stop as the second member is to be written."""
    save = Network.save

    def stop(self: Network, path: Any, *rest: Any) -> None:
        if Path(path).name == "member-1.safetensors":
            raise KeyboardInterrupt
        save(self, path, *rest)

    monkeypatch.setattr(Network, "save", stop)


INTERRUPTED: dict[str, tuple[Callable[[Any], None], str, set[str], list[int]]] = {
    # How, what is said, which files are there beside the record, and how many epochs it knows of.
    "in the first member": (
        in_training(1), "in member 1 of 3, after 1 of 3 epochs", {"checkpoint-0.safetensors"}, [1],
    ),
    "in the second": (
        in_training(5), "in member 2 of 3, after 2 of 3 epochs",
        {"member-0.safetensors", "checkpoint-1.safetensors"}, [3, 2],
    ),
    "after the last epoch of the second": (
        in_training(6), "in member 2 of 3, after 3 of 3 epochs",
        {"member-0.safetensors", "checkpoint-1.safetensors"}, [3, 3],
    ),
    "as the second is written": (
        in_saving, "in member 2 of 3, after 3 of 3 epochs",
        {"member-0.safetensors", "checkpoint-1.safetensors"}, [3, 3],
    ),
    "as all are drawn": (
        in_drawing, "in member 3 of 3, after 3 of 3 epochs",
        {"ensemble.json", *(f"member-{i}.safetensors" for i in range(3))}, [3, 3, 3],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: Any) -> Path:
    """Return the folder of an ensemble that nothing interrupted."""
    folder: Path = tmp_path_factory.mktemp("uninterrupted") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(preparation.LOADERS, "mnist", load_bars)
        patch.delenv("XPDL_DTYPE", raising=False)
        draw_blank(patch)
        assert main([*TRAIN, *EVERYTHING, "--out", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("case", INTERRUPTED)
def test_interrupted_and_resumed_it_is_the_same(
    capsys: Any, monkeypatch: Any, whole: Path, case: str
) -> None:
    interrupt, words, left, epochs = INTERRUPTED[case]
    with monkeypatch.context() as patch:
        interrupt(patch)
        assert main([*TRAIN, *EVERYTHING, "--out", "cut"]) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert f"interrupted {words};" in line
    assert line.endswith("xpdl train --resume cut")
    assert {name for name in names("cut") if not name.endswith("png")} == {"history.json", *left}
    history = record("cut")
    assert history["finished"] is False
    assert [len(member["epochs"]) for member in history["members"]] == epochs

    assert main(["train", "--resume", "cut"]) == 0
    assert names("cut") == names(str(whole))
    for name in names("cut") - {"history.json"}:
        assert Path("cut", name).read_bytes() == (whole / name).read_bytes(), name
    assert without_times(record("cut")) == without_times(record(str(whole)))


def test_a_second_interruption_loses_nothing(monkeypatch: Any, capsys: Any, whole: Path) -> None:
    """As the members that are trained are read again, and in the first epoch of the next."""
    with monkeypatch.context() as patch:
        interrupt_after(patch, 4)
        assert main([*TRAIN, *EVERYTHING, "--out", "cut"]) == 130
    before = without_times(record("cut"))

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    for name in ("_load_member", "training_settings"):
        with monkeypatch.context() as patch:
            patch.setattr(f"xpdl.tuning.ensemble.{name}", stop)
            assert main(["train", "--resume", "cut"]) == 130
        assert without_times(record("cut")) == before
    assert "in member 1 of 3, after 3 of 3 epochs" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr("xpdl.training.trainer.Trainer._train_epoch", stop)
        assert main(["train", "--resume", "cut"]) == 130
    assert "in member 2 of 3, after 1 of 3 epochs" in capsys.readouterr().err
    assert without_times(record("cut")) == before
    assert main(["train", "--resume", "cut"]) == 0
    assert without_times(record("cut")) == without_times(record(str(whole)))


def test_what_is_not_finished_does_not_answer(capsys: Any, monkeypatch: Any) -> None:
    with monkeypatch.context() as patch:
        interrupt_after(patch, 4)
        assert main([*TRAIN, "--members", "2", "--out", "cut"]) == 130
    capsys.readouterr()
    Image.fromarray(bars(1, 5)[0][0, 0]).save("a.png")
    for arguments in (["evaluate", "cut"], ["predict", "cut", "a.png"]):
        assert main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "not all members" in line
        assert "xpdl train --resume cut" in line
    assert main(["evaluate", "cut/member-0.safetensors"]) == 0


def _change(history: Any, member: int, **changes: Any) -> None:
    history["members"][member] |= changes


ALTERED: dict[str, tuple[Callable[[Any], object], str]] = {
    "no members": (lambda history: history.pop("members"), "damaged.*members"),
    "members that are none": (lambda history: history.update(members=[3]), "damaged"),
    "a number for members": (lambda history: history.update(members=3), "damaged"),
    "a member too few": (lambda history: history["members"].clear(), "member-0.*move"),
    "an epoch too few": (lambda history: history["members"][0]["epochs"].pop(), "member-0.*move"),
    "no epochs": (lambda history: _change(history, 1, epochs=[]), "damaged.*no epochs"),
    "a seed": (lambda history: _change(history, 0, seed=-1), "damaged.*seed"),
    "no accuracy": (
        lambda history: history["members"][0]["epochs"][0].update(test_accuracy=None),
        "damaged.*test_accuracy",
    ),
    "one member": (lambda history: history["options"].update(members=1), "damaged.*members"),
}


@pytest.mark.parametrize("case", ALTERED)
def test_an_altered_record_is_refused(capsys: Any, monkeypatch: Any, case: str) -> None:
    alter, words = ALTERED[case]
    with monkeypatch.context() as patch:
        interrupt_after(patch, 4)
        assert main([*TRAIN, "--members", "2", "--out", "cut"]) == 130
    history = record("cut")
    alter(history)
    Path("cut/history.json").write_text(json.dumps(history))
    before = {name: Path("cut", name).read_bytes() for name in names("cut")}
    capsys.readouterr()
    assert main(["train", "--resume", "cut"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(words, line), line
    assert {name: Path("cut", name).read_bytes() for name in names("cut")} == before


def test_a_member_of_another_training_is_refused(capsys: Any, monkeypatch: Any) -> None:
    with monkeypatch.context() as patch:
        interrupt_after(patch, 4)
        assert main([*TRAIN, "--members", "2", "--out", "cut"]) == 130
    history = record("cut")
    history["options"]["learning_rate"] = 0.01
    Path("cut/history.json").write_text(json.dumps(history))
    capsys.readouterr()
    assert main(["train", "--resume", "cut"]) == 2
    assert "learning_rate (then 0.005, now 0.01)" in capsys.readouterr().err


def test_each_kind_of_run_has_its_number_of_members() -> None:
    options = {"data": "mnist", "seed": 0, "dtype": None, "model": "TwoLayerNet"}
    for kind, members in ((Run, 2), (EnsembleRun, 1)):
        with pytest.raises(ArgumentError, match=f"{kind.__name__} is not for members={members}"):
            kind(make_options("fast", members=members, **options), "run")
    assert not Path("run").exists()
    EnsembleRun(make_options("fast", members=2, **options), "run")
    assert isinstance(resume_run("run"), EnsembleRun)
    with pytest.raises(ArgumentError, match="Run is not for members=2"):
        Run.resume("run")
