"""What pictures show: files, folders, arrays, bytes and images, in the order asked."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import xpdl
from xpdl import Network, functions
from xpdl.cli.main import main
from xpdl.datasets import StoredPictures, load_folder, prepare_digit, prepare_picture
from xpdl.errors import ArgumentError, DataError, FileAccessError, ImageError, ShapeError
from xpdl.layers import Affine, Normalize
from xpdl.losses import IdentityWithLoss
from xpdl.runs.classify import classify
from xpdl.tuning import Ensemble, ShiftAverage

pytestmark = pytest.mark.usefixtures("on_numpy")

NAMES = ["rose", "tulip", "daisy", "poppy", "lily", "iris"]


@pytest.fixture
def net() -> Network:
    """A network whose answers differ from picture to picture."""
    normalize = Normalize(255, mean=(0.5, 0.4, 0.3), deviation=(0.2, 0.2, 0.3))
    layers = [normalize, Affine(6)]
    return Network(layers, (3, 8, 10), class_names=NAMES, seed=3)


def photo(seed: int, size: tuple[int, int] = (30, 24)) -> Image.Image:
    """Return noise of a height and a width, in colour."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (*size, 3)).astype(np.uint8))


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return files of five photos, of sizes and formats of their own; the last is turned."""
    monkeypatch.chdir(tmp_path)
    names = ["b.png", "a.bmp", "in/d.png", "in/deeper/c.tif", "e.jpg"]
    for i, name in enumerate(names):
        Path(name).parent.mkdir(exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = 6
        photo(i, (20 + i, 16)).save(name, **({"exif": exif} if name == "e.jpg" else {}))
    return names


def expected(net: Network, pictures: list[Any]) -> np.ndarray:
    """Return the probabilities for pictures that are prepared one by one."""
    x = np.stack([prepare_picture(picture, net.input_shape) for picture in pictures])
    return functions.softmax(net.predict(x))


def probabilities(answers: Iterator[Any]) -> np.ndarray:
    return np.stack([answer.probabilities for answer in answers])


def test_answers_come_in_the_order_asked(net: Network, photos: list[str]) -> None:
    answers = list(classify(net, photos, batch_size=2))
    assert [answer.picture for answer in answers] == photos
    wanted = expected(net, photos)
    np.testing.assert_allclose(probabilities(iter(answers)), wanted, rtol=1e-6)
    order = wanted[0].argsort()[::-1]
    assert [name for name, _ in answers[0].top()] == [NAMES[i] for i in order[:5]]
    assert [p for _, p in answers[0].top(2)] == pytest.approx(wanted[0][order[:2]].tolist())
    assert str(answers[0]).startswith(f"b.png: {NAMES[order[0]]} ({wanted[0][order[0]]:.1%}), ")


def test_a_folder_is_walked_by_names(
    net: Network, photos: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("in/notes.txt").write_text("no picture")
    Path("in/LICENSE").write_text("no picture, without an ending")
    Path("in/.hidden.png").write_bytes(b"")
    answers = list(classify(net, ["b.png", Path("in")]))
    assert [answer.picture for answer in answers] == ["b.png", "in/d.png", "in/deeper/c.tif"]
    assert "1 .txt" in capsys.readouterr().err


def test_pictures_of_every_kind(net: Network, photos: list[str]) -> None:
    image = photo(0, (20, 16))
    pixels = np.asarray(image)
    content = Path("b.png").read_bytes()
    kinds = [
        image, pixels, pixels / np.float32(255), pixels.astype(int), content, bytearray(content),
        io.BytesIO(content), Path("b.png"), xpdl.asarray(pixels.astype(np.float32) / 255),
    ]  # fmt: skip
    wanted = np.repeat(expected(net, [image]), len(kinds), axis=0)
    np.testing.assert_allclose(probabilities(classify(net, iter(kinds))), wanted, rtol=1e-5)
    for kind in kinds[:6]:
        (answer,) = classify(net, kind)  # alone, and not in a list
        np.testing.assert_allclose(answer.probabilities, wanted[0], rtol=1e-5)
        assert answer.picture == "picture 1"
    with open("b.png", "rb") as stream:
        assert [answer.picture for answer in classify(net, stream)] == ["b.png"]
    grey = np.full((9, 9), True)
    np.testing.assert_allclose(
        probabilities(classify(net, [grey, np.full((9, 9, 1), 65535, np.uint16)])),
        np.repeat(expected(net, [Image.new("RGB", (9, 9), "white")]), 2, axis=0),
        rtol=1e-5,
    )


def test_samples_go_in_as_they_are(net: Network, rng: np.random.Generator, tmp_path: Path) -> None:
    x = rng.integers(0, 256, (5, 3, 8, 10)).astype(np.uint8)
    wanted = functions.softmax(net.predict(x))
    (tmp_path / "x").write_bytes(x.tobytes())
    stored = StoredPictures(tmp_path / "x", np.arange(5), (3, 8, 10))
    for samples in (x, stored, list(x), [x[:2], x[2] / np.float32(255), stored[3:]]):
        got = probabilities(classify(net, samples, batch_size=2))
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-7)
    larger = rng.integers(0, 256, (2, 3, 16, 20)).astype(np.uint8)
    got = probabilities(classify(net, larger))
    np.testing.assert_allclose(got, expected(net, list(larger.transpose(0, 2, 3, 1))), rtol=1e-5)
    with pytest.raises(ShapeError, match=r"got \(5, 8, 10, 3\).*transpose\(0, 3, 1, 2\)"):
        list(classify(net, x.transpose(0, 2, 3, 1)))


def test_without_a_normalize_pixels_are_from_0_to_1() -> None:
    net = Network([Affine(6)], (3, 8, 10), seed=3)
    pixels = prepare_picture(photo(1), (3, 8, 10))
    (answer,) = classify(net, photo(1))
    wanted = functions.softmax(net.predict(pixels[None] / np.float32(255)))[0]
    np.testing.assert_allclose(answer.probabilities, wanted, rtol=1e-5)
    assert answer.class_names == ("0", "1", "2", "3", "4", "5")


def test_few_pictures_are_held_at_once(net: Network) -> None:
    asked: list[int] = []

    def many() -> Iterator[Image.Image]:
        for i in range(10):
            asked.append(i)
            yield photo(i)

    answers = classify(net, many(), batch_size=3)
    assert asked == []
    next(answers)
    assert len(asked) <= 4
    assert len(list(answers)) == 9


def test_several_networks_answer_together(net: Network, photos: list[str]) -> None:
    other = Network([Normalize(255), Affine(6)], (3, 8, 10), class_names=NAMES, seed=4)
    together = Ensemble([net, other])
    x = np.stack([prepare_picture(picture, net.input_shape) for picture in photos])
    for model in (together, ShiftAverage(together, 1)):
        np.testing.assert_allclose(
            probabilities(classify(model, photos)), model.predict(x), rtol=1e-5
        )
    np.testing.assert_allclose(
        probabilities(classify(net, photos, shifts=1)), ShiftAverage(net, 1).predict(x), rtol=1e-5
    )


DIGITS = [str(i) for i in range(10)]
# Of a file: what it keeps of its data, the names in the network; and whether it is of digits.
MARKS: dict[str, tuple[dict[str, Any], list[str] | None, bool]] = {
    "a run on MNIST": ({"data": "mnist", "class_names": DIGITS}, None, True),
    "one whose network has the names": ({"data": "mnist"}, DIGITS, True),
    "a file without a mark": ({}, None, True),
    "clothes": ({"data": "fashion-mnist", "class_names": ["coat"] * 10}, None, False),
    "a folder": ({"data": "flowers/", "class_names": DIGITS}, DIGITS, False),
    "names of other things": ({}, list("abcdefghij"), False),
    "such names beside the network": ({"class_names": list("abcdefghij")}, None, False),
}


@pytest.mark.parametrize("case", MARKS)
def test_what_is_brought_to_the_form_of_digits(case: str, tmp_path: Path) -> None:
    about, names, of_digits = MARKS[case]
    path = tmp_path / "net.safetensors"
    image = Image.new("L", (60, 60), 230)
    image.paste(20, (30, 10, 36, 50))
    for shape in ((784,), (1, 28, 28)):
        for normalize in ([], [Normalize(255)], [Normalize(127.5)]):
            Network([*normalize, Affine(10)], shape, class_names=names).save(path, about)
            network = xpdl.load(path)
            scale = np.float32(2 if normalize and normalize[0].divisor == 127.5 else 1)
            x = [prepare_picture(image, (1, 28, 28)) / np.float32(255), prepare_digit(image)]
            wanted = [
                functions.softmax(network.predict(scale * one.reshape(1, *shape)))[0] for one in x
            ]
            (answer,) = classify(path, image)
            np.testing.assert_allclose(answer.probabilities, wanted[of_digits], rtol=2e-5)
            (other,) = classify(path, image, digits=not of_digits)
            np.testing.assert_allclose(other.probabilities, wanted[not of_digits], rtol=2e-5)


def test_a_network_gets_a_folders_pictures_as_they_were_learned(
    net: Network, photos: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XPDL_DATA", str(tmp_path / "cache"))
    for i in range(6):
        path = Path("flowers", "one" if i < 3 else "two", f"{i}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(i, (40, 30 + i)).save(path)
    data = load_folder("flowers", size=(8, 10), split=None)
    got = probabilities(classify(net, "flowers"))
    np.testing.assert_array_equal(got, probabilities(classify(net, data.train[0])))


def test_what_cannot_be_read(net: Network, photos: list[str]) -> None:
    Path("bad.png").write_bytes(b"no picture")
    Path("empty").mkdir()
    for given, error, words in (
        (["b.png", "bad.png"], ImageError, "'bad.png'"),
        (["missing.png"], FileAccessError, "'missing.png'"),
        ("empty", DataError, "'empty' holds no pictures"),
        ([b"nothing"], ImageError, "not a picture"),
        ([b""], ImageError, "the picture is empty"),
    ):
        with pytest.raises(error, match=words):
            list(classify(net, given))
    told: dict[str, Exception] = {}
    given = ["bad.png", "a.bmp", "empty", b"nothing", "missing.png", "b.png"]
    answers = list(classify(net, given, on_error=told.__setitem__))
    assert [answer.picture for answer in answers] == ["a.bmp", "b.png"]
    assert list(told) == ["bad.png", "empty", "picture 3", "missing.png"]


def test_calls_that_do_not_fit(net: Network) -> None:
    with pytest.raises(ArgumentError, match="pictures must be"):
        classify(net, 7)
    with pytest.raises(ArgumentError, match="picture must be a path"):
        list(classify(net, [7]))
    with pytest.raises(ArgumentError, match="batch_size"):
        classify(net, [], batch_size=0)
    with pytest.raises(ArgumentError, match="MNIST's are"):
        classify(net, [], digits=True)
    with pytest.raises(ArgumentError, match=r"shape \(4,\)"):
        list(classify(Network([Affine(2)], 4), photo(0)))
    with pytest.raises(ArgumentError, match="regression"):
        classify(Network([Affine(1)], (3, 8, 8), loss=IdentityWithLoss()), photo(0))
    for array, words in (
        (np.full((5, 5), np.nan), "NaN"),
        (np.full((5, 5), 2.0), "floats from 0 to 1"),
        (np.full((5, 5), -1), "whole numbers from 0 to 255"),
        (np.zeros((3, 5, 5), np.uint8), r"transpose\(1, 2, 0\)|got \(3, 5, 5\)"),
        (np.zeros((5, 5), complex), "complex"),
    ):
        with pytest.raises(ArgumentError, match=words):
            list(classify(net, [array]))
    digits = Network([Affine(10)], (1, 28, 28))
    for shape, words in (((500, 28, 28), r"x\[:, None\]"), ((5, 5, 1, 28), "got")):
        with pytest.raises(ShapeError, match=words):
            list(classify(digits, np.zeros(shape, np.float32)))


# ---- the command --------------------------------------------------------------------------------


def test_the_command_says_names(net: Network, photos: list[str], capsys: Any) -> None:
    net.save("net.safetensors")
    answers = [str(answer) for answer in classify(net, [*photos[:2], "in"])]
    assert main(["predict", "net.safetensors", *photos[:2], "in"]) == 0
    out, err = capsys.readouterr()
    assert (out.splitlines(), err) == (answers, "")
    assert out.splitlines()[0].count("%") == 5


def test_the_command_writes_tables(net: Network, photos: list[str], capsys: Any) -> None:
    net.save("net.safetensors")
    strange = 'a "strange", name.png'
    Path("b.png").rename(strange)
    top = [answer.top() for answer in classify(net, [strange, "a.bmp"])]
    assert main(["predict", "net.safetensors", strange, "a.bmp", "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert [one["picture"] for one in read] == [strange, "a.bmp"]
    for one, wanted in zip(read, top, strict=True):
        assert [each["class"] for each in one["top"]] == [name for name, _ in wanted]
        assert [each["probability"] for each in one["top"]] == pytest.approx(
            [p for _, p in wanted], abs=1e-6
        )
    assert main(["predict", "net.safetensors", strange, "a.bmp", "--csv"]) == 0
    header, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
    assert header[:3] == ["picture", "class 1", "probability 1"]
    assert len(header) == 11
    assert [row[0] for row in rows] == [strange, "a.bmp"]
    assert [row[1] for row in rows] == [wanted[0][0] for wanted in top]
    Path("bad.png").write_bytes(b"no picture")
    assert main(["predict", "net.safetensors", "bad.png", "--json"]) == 2
    assert json.loads(capsys.readouterr().out) == []


def test_the_command_reads_a_pipe(
    net: Network, photos: list[str], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    net.save("net.safetensors")
    pipe = io.BytesIO(Path("b.png").read_bytes())
    pipe.name = "<stdin>"  # type: ignore[attr-defined]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=pipe))
    assert main(["predict", "net.safetensors", "a.bmp", "-"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    (wanted,) = classify(net, "b.png")
    assert first.startswith("a.bmp: ")
    assert second == str(wanted).replace("b.png", "-")


def test_the_command_goes_on_after_what_cannot_be_read(
    net: Network, photos: list[str], capsys: Any
) -> None:
    net.save("net.safetensors")
    Path("bad.png").write_bytes(b"no picture")
    given = ["predict", "net.safetensors", "bad.png", "missing.png", "b.png"]
    for code, more in ((2, []), (0, ["--skip-broken"])):
        assert main([*given, *more]) == code
        out, err = capsys.readouterr()
        assert out.startswith("b.png: ")
        assert len(out.splitlines()) == 1
        assert ["bad.png" in err.splitlines()[0], "missing.png" in err.splitlines()[1]] == [
            True
        ] * 2


def test_a_name_cannot_feign_a_line(net: Network, photos: list[str], capsys: Any) -> None:
    net.save("net.safetensors")
    name = "a\nb.png: rose (100.0%)"
    Path("b.png").rename(name)
    assert main(["predict", "net.safetensors", name]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
