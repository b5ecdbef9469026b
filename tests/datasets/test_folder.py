"""A folder of pictures, a folder for each class, as a data set."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from xpdl.datasets import load_folder, prepare_picture
from xpdl.datasets.folder import archive, workers
from xpdl.datasets.folder.decoding import Form, decode
from xpdl.errors import ArgumentError, DataError, FileAccessError, ImageError


@pytest.fixture(autouse=True)
def data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XPDL_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


def picture(seed: int, size: tuple[int, int] = (8, 6), mode: str = "RGB") -> Image.Image:
    """Return noise of a height and a width."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def save(image: Image.Image, path: Path, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    """Twenty roses and ten tulips, each another."""
    for k in range(30):
        kind = "tulip" if k >= 20 else "rose"
        save(picture(k), tmp_path / "flowers" / kind / f"{k}.png")
    return tmp_path / "flowers"


def load(path: Path, **options: Any) -> Any:
    return load_folder(path, **{"workers": 0, "split": None} | options)


def pixels_of(image: Image.Image, form: Form, path: Path, **options: Any) -> np.ndarray:
    content = decode(str(save(image, path, **options)), form)
    return np.frombuffer(content, np.uint8).reshape(form.channels, form.height, form.width)


# ---- as a data set


def test_pictures_come_in_the_order_of_their_names(flowers: Path) -> None:
    data = load(flowers)
    x, t = data.train
    assert (x.shape, x.dtype) == ((30, 3, 8, 6), np.uint8)
    assert (t.shape, t.dtype) == ((30,), np.int64)
    assert data.class_names == ("rose", "tulip")
    assert data.shape == (3, 8, 6)
    names = [*sorted(f"{k}.png" for k in range(20)), *sorted(f"{k}.png" for k in range(20, 30))]
    for row, name in enumerate(names):
        wanted = np.asarray(picture(int(name[:-4]))).transpose(2, 0, 1)
        np.testing.assert_array_equal(x[row], wanted)
    np.testing.assert_array_equal(t, [0] * 20 + [1] * 10)
    assert data.test is data.validation is None
    assert data.notes == ("30 pictures of 2 classes, 8 x 6 pixels, in colour: the size of all",)


def test_the_second_time_nothing_is_decoded(
    flowers: Path, data_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(flowers)
    kept = {path.name: path.read_bytes() for path in (data_home / "folders").iterdir()}
    assert len(kept) == 2
    monkeypatch.setattr(archive, "share_out", None)
    again = load(flowers)
    np.testing.assert_array_equal(again.train[0], first.train[0])
    assert again.digest == first.digest
    assert again.notes == first.notes


def test_what_changes_is_decoded_anew(flowers: Path) -> None:
    first = load(flowers)
    save(picture(99), flowers / "rose" / "0.png")
    os.utime(flowers / "rose" / "0.png", ns=(1, 1))
    second = load(flowers)
    assert second.digest != first.digest
    assert (second.train[0][0] != first.train[0][0]).any()
    # The same pictures have the same digest, whatever the times of their files.
    os.utime(flowers / "rose" / "0.png", ns=(2, 2))
    assert load(flowers).digest == second.digest
    assert load(flowers, size=4).digest != second.digest


@pytest.mark.parametrize("harm", ["cut", "altered", "gone"])
def test_a_damaged_archive_is_made_anew(flowers: Path, data_home: Path, harm: str) -> None:
    wanted = load(flowers).train[0]
    for path in (data_home / "folders").iterdir():
        if harm == "cut":
            path.write_bytes(path.read_bytes()[:-1])
        elif harm == "gone" and path.suffix == ".pixels":
            path.unlink()
        elif harm == "altered" and path.suffix == ".safetensors":
            path.write_bytes(b"\xff" * 100)
    np.testing.assert_array_equal(load(flowers).train[0], wanted)


def test_worker_processes_read_the_same(
    flowers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = load(flowers)
    monkeypatch.setenv("XPDL_DATA", str(tmp_path / "other"))
    monkeypatch.setattr(workers, "FEWEST", 1)
    got = load(flowers, workers=2)
    np.testing.assert_array_equal(got.train[0], wanted.train[0])
    assert got.digest == wanted.digest


def test_a_users_script_needs_no_guard(flowers: Path, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "from xpdl.datasets.folder import load_folder, workers\n"
        "print('begun')\n"
        "workers.FEWEST = 1\n"
        f"print(load_folder({str(flowers)!r}, workers=2).train[0].shape[1:])\n"
    )
    # Nor is a module of the current folder taken for another.
    (tmp_path / "json.py").write_text("raise SystemExit('this is not the json you want')")
    environment = os.environ | {"PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.stdout == "begun\n(3, 8, 6)\n", done.stderr


def test_a_worker_that_is_brought_down_is_replaced(
    flowers: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fatal = tmp_path / "site" / "xpdl_fatal.py"
    fatal.parent.mkdir()
    fatal.write_text(
        "import os\n"
        "from xpdl.datasets.folder import decoding, worker\n"
        "def look(path):\n"
        "    if os.path.basename(path) in ('7.png', '8.png', '25.png'): os._exit(11)\n"
        "    return decoding.look(path)\n"
        "worker.look = look\n"
        "worker.main()\n"
    )
    start = subprocess.Popen

    def started(command: list[str], **options: Any) -> Any:
        return start([sys.executable, str(fatal)], **options)

    monkeypatch.setattr(workers, "FEWEST", 1)
    monkeypatch.setattr(workers.subprocess, "Popen", started)
    with pytest.raises(ImageError, match=r"3 of 30 files.*7.png' \(its decoder ended with code 11"):
        load(flowers, workers=2)
    assert len(load(flowers, workers=2, skip_broken=True).train[0]) == 27


def test_workers_that_cannot_start_are_said_to(
    flowers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "FEWEST", 1)
    monkeypatch.setattr(workers, "_PROGRAM", "no.such.module")
    with pytest.raises(DataError, match=r"cannot be started.*no.*Give workers=0"):
        load(flowers, workers=2)


def test_a_full_disk_is_said(flowers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = archive.shutil.disk_usage("/")._replace(free=100)
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(FileAccessError, match=r"has room for 0\. Set XPDL_DATA"):
        load(flowers)


def test_pictures_that_do_not_fit_into_memory_stay_in_their_file(flowers: Path) -> None:
    whole, stored = load(flowers, split=0.3), load(flowers, split=0.3, in_memory=False)
    for (x, t), (there, labels) in zip(
        (whole.train, whole.test), (stored.train, stored.test), strict=True
    ):
        assert not isinstance(there, np.ndarray)
        assert (there.shape, there.dtype, there.ndim) == (x.shape, x.dtype, x.ndim)
        assert there.nbytes == x.nbytes
        np.testing.assert_array_equal(np.asarray(there), x)
        np.testing.assert_array_equal(there[[2, 0, 2]], x[[2, 0, 2]])
        np.testing.assert_array_equal(there[1:3], x[1:3])
        np.testing.assert_array_equal(labels, t)


# ---- its parts


@pytest.mark.parametrize(("folder", "part"), [("test", "test"), ("Val", "test")])
def test_parts_have_folders_of_their_own(flowers: Path, folder: str, part: str) -> None:
    whole = flowers.rename(flowers.parent / "train")
    home = flowers.parent / "garden"
    home.mkdir()
    whole.rename(home / "train")
    save(picture(50), home / folder / "tulip" / "a.png")
    data = load_folder(home, workers=0)
    assert len(data.train[0]) == 30
    assert data.validation is None
    x, t = getattr(data, part)
    np.testing.assert_array_equal(x[0], np.asarray(picture(50)).transpose(2, 0, 1))
    np.testing.assert_array_equal(t, [1])
    if folder == "Val":
        save(picture(51), home / "test" / "rose" / "a.png")
        assert len(load(home).validation[0]) == 1


def test_the_split_is_by_what_the_pictures_hold(tmp_path: Path) -> None:
    for k in range(60):
        for name in (f"{k}.png", f"copy-of-{59 - k}.png"):
            source = k if name[0] != "c" else 59 - k
            save(picture(source, (4, 4)), tmp_path / "a" / "xy"[source % 2] / name)
            # The same under other names, in another order.
            save(picture(source, (4, 4)), tmp_path / "b" / "xy"[source % 2] / f"z{97 - k}{name}")
    parts = [
        {x.tobytes() for x in part[0]}
        for folder in "ab"
        for data in [load(tmp_path / folder, split=0.25)]
        for part in (data.train, data.test)
    ]
    assert parts[0] == parts[2]
    assert parts[1] == parts[3]
    assert not parts[0] & parts[1]  # copies are on one side
    assert 8 <= len(parts[1]) <= 22  # of 60, of which 15 were wanted
    other = load(tmp_path / "a", split=0.25, seed=1)
    assert {x.tobytes() for x in other.test[0]} != parts[1]
    assert any("60 pictures are copies of others" in note for note in other.notes)
    validated = other.with_validation(0.2)
    seen = [{x.tobytes() for x in part[0]} for part in (validated.train, validated.validation)]
    assert not seen[0] & seen[1]
    assert len(validated.train[0]) + len(validated.validation[0]) == len(other.train[0])


def test_copies_in_several_classes_or_parts_are_told(flowers: Path) -> None:
    save(picture(3), flowers / "tulip" / "rose.png")
    assert load(flowers).notes[1] == (
        "1 pictures are copies of others; 1 pictures stand in several classes"
    )


# ---- what lies there beside


def test_what_is_no_picture_is_left_out_and_counted(flowers: Path) -> None:
    (flowers / "README.md").write_text("flowers")
    (flowers / "rose" / "notes.txt").write_text("roses")
    (flowers / "rose" / "LICENSE").write_text("free")
    (flowers / "rose" / "phone.heic").write_bytes(b"heic")
    (flowers / ".git").mkdir()
    (flowers / "rose" / ".DS_Store").write_bytes(b"")
    (flowers / "daisy").mkdir()
    save(picture(60), flowers / "rose" / "deep" / "er" / "60.JPEG")
    os.rename(save(picture(61), flowers / "rose" / "a.png"), flowers / "rose" / "named")
    data = load(flowers)
    assert len(data.train[0]) == 32
    assert data.class_names == ("rose", "tulip")
    told = "\n".join(data.notes)
    assert (
        "3 files that are no pictures are left out: 1 beside the classes' folders, 1 .txt" in told
    )
    assert "1 files without an ending that are no pictures are left out" in told
    assert "1 folders without a picture are left out: 'daisy'" in told
    assert load(flowers).notes == data.notes


def test_links_out_of_the_folder_are_left_out(flowers: Path, tmp_path: Path) -> None:
    outside = save(picture(70), tmp_path / "secret" / "70.png")
    (flowers / "rose" / "out.png").symlink_to(outside)
    (flowers / "rose" / "nowhere.png").symlink_to(tmp_path / "nothing.png")
    (flowers / "rose" / "loop").symlink_to(flowers, target_is_directory=True)
    (flowers / "other").symlink_to(outside.parent, target_is_directory=True)
    (flowers / "tulip" / "inside.png").symlink_to(flowers / "rose" / "0.png")
    os.mkfifo(flowers / "rose" / "pipe.png")
    data = load(flowers)
    assert len(data.train[0]) == 31
    assert any(note.startswith("4 links") for note in data.notes)
    assert any("1 devices or pipes" in note for note in data.notes)


def test_what_cannot_be_read_stops_it_or_is_left_out(flowers: Path) -> None:
    (flowers / "rose" / "a\nb.png").write_bytes(b"")
    whole = (flowers / "rose" / "0.png").read_bytes()
    (flowers / "rose" / "cut.png").write_bytes(whole[:-40])
    (flowers / "tulip" / "text.jpg").write_text("not a picture")
    with pytest.raises(ImageError) as error:
        load(flowers)
    assert "\n" not in str(error.value)
    assert "2 of 33 files" in str(error.value)
    assert r"'rose/a\nb.png' (it is empty)" in str(error.value)
    assert "--skip-broken" in str(error.value)
    data = load(flowers, skip_broken=True)
    assert len(data.train[0]) == 30
    assert "3 of 33 files" in data.notes[-1]
    assert data.notes[-1].endswith("; they are left out")
    assert "--skip-broken" not in data.notes[-1]
    assert "cut.png' (it is damaged or truncated" in data.notes[-1]
    with pytest.raises(ImageError, match="3 of 33"):  # those decoded since are known
        load(flowers)


def test_a_folder_that_is_no_data_set_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(FileAccessError, match=r"cannot read the folder .*gone': No such file"):
        load(tmp_path / "gone")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileAccessError, match="Not a directory"):
        load(tmp_path / "file")
    home = tmp_path / "home"
    home.mkdir()
    with pytest.raises(DataError, match=r"a folder of pictures for each class.*it holds none"):
        load(home)
    save(picture(1), home / "1.png")
    with pytest.raises(DataError, match="it holds none"):
        load(home)
    save(picture(1), home / "rose" / "1.png")
    with pytest.raises(DataError, match="one class, 'rose'"):
        load(home)
    save(picture(1), home / "train" / "rose" / "1.png")
    with pytest.raises(DataError, match=r"has folders of parts, train, and others, 'rose'"):
        load(home)
    parts = tmp_path / "parts"
    for name in ("train/rose", "train/tulip", "test/daisy"):
        save(picture(1), parts / name / "1.png")
    with pytest.raises(DataError, match="'daisy' to test with, and none to train with"):
        load(parts)
    save(picture(1), parts / "Training" / "rose" / "1.png")
    with pytest.raises(DataError, match="both the train part"):
        load(parts)


def test_a_folder_that_cannot_be_read_is_named(
    flowers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = os.scandir

    def refused(path: Any) -> Any:
        if str(path).endswith("tulip"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(FileAccessError, match=r"tulip': Permission denied"):
        load(flowers)


def test_arguments_that_do_not_fit(flowers: Path) -> None:
    for options, told in [
        ({"size": 0}, "size"),
        ({"size": (1, 2, 3)}, "size must be an int or"),
        ({"size": 5000}, "up to 4,096"),
        ({"channels": 2}, r"1 \(grey\) or 3"),
        ({"split": 1.0}, "share must be a number between 0 and 1"),
        ({"split": 0.001}, "leaves none on one side"),
        ({"seed": -1, "split": 0.5}, "seed"),
        ({"workers": -1}, "workers"),
        ({"skip_broken": "yes"}, "skip_broken"),
        ({"in_memory": "yes"}, "in_memory"),
    ]:
        with pytest.raises(ArgumentError, match=told):
            load(flowers, **options)
    with pytest.raises(ArgumentError, match="path must be"):
        load_folder(3)  # type: ignore[arg-type]


# ---- one form for all


@pytest.mark.parametrize(
    ("sizes", "form", "why"),
    [
        ([(30, 20)] * 4, (30, 20), "the size of all"),
        ([(30, 20)] * 3 + [(9, 9)], (30, 20), "the size of 3 of 4"),
        ([(600, 450)] * 4, (224, 168), "all are 600 x 450, which is made smaller"),
        ([(30, 20), (40, 50), (60, 60), (90, 70)], (50, 50), "they have 4 sizes"),
        ([(300, 400), (500, 400)], (224, 224), "they have 2 sizes"),
    ],
)
def test_the_size_is_what_most_have(
    tmp_path: Path, sizes: list[tuple[int, int]], form: tuple[int, int], why: str
) -> None:
    for k, size in enumerate(sizes):
        save(picture(k, size), tmp_path / "d" / "ab"[k % 2] / f"{k}.png")
    data = load(tmp_path / "d")
    assert data.shape == (3, *form)
    assert f"{form[0]} x {form[1]} pixels, in colour: {why}" in data.notes[0]
    assert load(tmp_path / "d", size=(7, 5), channels=1).shape == (1, 7, 5)


def test_grey_pictures_stay_grey(tmp_path: Path) -> None:
    for k in range(6):
        mode = "RGB" if k == 5 else ("L", "1", "LA", "P", "I;16")[k]
        image = picture(k, mode="L")
        if mode == "I;16":
            image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
        else:
            image = image.convert(mode)
        save(image, tmp_path / "d" / "ab"[k % 2] / f"{k}.png")
    data = load(tmp_path / "d")
    assert data.shape == (1, 8, 6)
    assert "grey: the size of all; 1 of 6 have colours" in data.notes[0]


COLOR = Form(8, 6, 3)


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tiff", ".webp", ".ppm", ".tga", ".jp2"])
def test_formats_without_loss_give_the_same_pixels(tmp_path: Path, ending: str) -> None:
    options = {".webp": {"lossless": True}, ".jp2": {"irreversible": False}}.get(ending, {})
    got = pixels_of(picture(1), COLOR, tmp_path / f"a{ending}", **options)
    np.testing.assert_array_equal(got, np.asarray(picture(1)).transpose(2, 0, 1))


def test_a_picture_is_turned_as_its_exif_data_say(tmp_path: Path) -> None:
    for orientation, turned in [(6, Image.Transpose.ROTATE_90), (3, Image.Transpose.ROTATE_180)]:
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = picture(2).transpose(turned)
        got = pixels_of(stored, COLOR, tmp_path / "a.png", exif=exif)
        np.testing.assert_array_equal(got, np.asarray(picture(2)).transpose(2, 0, 1))
    for k in range(2):
        exif[0x0112] = 6
        save(picture(k, (300, 100)).rotate(90, expand=True), tmp_path / f"d/{k}/a.jpg", exif=exif)
    assert load(tmp_path / "d").shape == (3, 224, 75)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_deep_greys_are_of_as_many_bits_as_they_hold(tmp_path: Path, bits: int) -> None:
    levels = np.linspace(0, 2**bits - 1, 48).reshape(8, 6)
    got = pixels_of(Image.fromarray(levels.astype(np.uint16)), Form(8, 6, 1), tmp_path / "a.png")
    np.testing.assert_allclose(got[0], levels * (255 / (2**bits - 1)), atol=1)


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    image = picture(3).convert("RGBA")
    alpha = np.zeros((8, 6), np.uint8)
    alpha[:4] = 255
    image.putalpha(Image.fromarray(alpha))
    got = pixels_of(image, COLOR, tmp_path / "a.png")
    np.testing.assert_array_equal(got[:, :4], np.asarray(picture(3)).transpose(2, 0, 1)[:, :4])
    assert (got[:, 4:] == 255).all()
    palette = picture(4).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    first = np.asarray(palette) == 0
    got = pixels_of(palette, COLOR, tmp_path / "p.png", transparency=0)
    assert (got[:, first] == 255).all()
    np.testing.assert_array_equal(
        got[:, ~first], np.asarray(palette.convert("RGB")).transpose(2, 0, 1)[:, ~first]
    )


def test_ink_of_four_colours(tmp_path: Path) -> None:
    image = Image.new("RGB", (6, 8), (200, 30, 90)).convert("CMYK")
    got = pixels_of(image, COLOR, tmp_path / "a.jpg", quality=100)
    np.testing.assert_allclose(got[:, 4, 3], (200, 30, 90), atol=4)


def test_the_middle_is_cut_out_and_made_smaller(tmp_path: Path) -> None:
    levels = np.zeros((40, 100), np.uint8)
    levels[:, 30:70] = 200
    got = pixels_of(Image.fromarray(levels), Form(8, 8, 1), tmp_path / "a.png")
    assert (got == 200).all()
    smooth = np.add.outer(np.arange(400), np.arange(400)) * (255 / 798)
    image = Image.fromarray(smooth.astype(np.uint8))
    for name in ("a.png", "a.jpg"):
        got = pixels_of(image, Form(20, 20, 1), tmp_path / name)
        wanted = smooth.reshape(20, 20, 20, 20).mean(axis=(1, 3))
        np.testing.assert_allclose(got[0, 1:-1, 1:-1], wanted[1:-1, 1:-1], atol=2)


# ---- pictures of strangers


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "TGA", "PPM", "ICO"])
def test_a_mutated_picture_is_read_or_broken(tmp_path: Path, kind: str) -> None:
    path = save(picture(1, (32, 32)), tmp_path / f"a.{kind.lower()}", format=kind)
    whole, rng = path.read_bytes(), np.random.default_rng(3)
    for _ in range(60):
        altered = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        for place in rng.integers(0, len(altered), 3):
            altered[place] = rng.integers(256)
        path.write_bytes(altered)
        try:
            content = decode(str(path), COLOR)
        except ImageError as error:
            assert "\n" not in str(error).strip()  # noqa: PT017
        else:
            assert len(content) == COLOR.size


def test_a_bomb_is_not_decoded(tmp_path: Path) -> None:
    path = save(picture(1, (8, 8)), tmp_path / "bomb.png")
    content = bytearray(path.read_bytes())
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)
    with pytest.raises(ImageError, match="pixels"):
        decode(str(path), COLOR)


def test_thousands_of_empty_files_are_one_line(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / "d" / label).mkdir(parents=True)
        for k in range(1000):
            (tmp_path / "d" / label / f"{k}.jpg").touch()
    with pytest.raises(ImageError, match=r"2,000 of 2,000 files.*2,000 of them empty") as error:
        load(tmp_path / "d")
    assert len(str(error.value)) < 600
    with pytest.raises(DataError, match="it holds none"):
        load(tmp_path / "d", skip_broken=True)


# ---- one picture


def test_one_picture_is_brought_to_the_form_of_a_data_set(flowers: Path) -> None:
    data = load(flowers, size=5)
    path = flowers / "rose" / "0.png"
    content = path.read_bytes()
    with open(path, "rb") as file:
        given = (path, str(path), content, bytearray(content), io.BytesIO(content), file)
        for picture_given in (*given, Image.open(path), picture(0)):
            got = prepare_picture(picture_given, data.shape)
            np.testing.assert_array_equal(got, data.train[0][0])
            assert got.dtype == np.uint8
    assert prepare_picture(path, (1, 30, 2)).shape == (1, 30, 2)


def test_what_is_not_one_picture_is_said(flowers: Path, tmp_path: Path) -> None:
    path = flowers / "rose" / "0.png"
    for given, shape, kind, told in [
        (3, (3, 8, 8), ArgumentError, "picture must be a path, bytes"),
        (io.StringIO("text"), (3, 8, 8), ArgumentError, "picture must be a path, bytes"),
        (path, (2, 8, 8), ArgumentError, r"1 \(grey\) or 3"),
        (path, (8, 8), ArgumentError, r"shape must be \(C, H, W\)"),
        (path, (3, 8, 10**6), ArgumentError, "up to 4,096"),
        (tmp_path / "gone.png", (3, 8, 8), FileAccessError, "No such file"),
        (b"not a picture", (3, 8, 8), ImageError, "the picture is not a picture"),
        (path.read_bytes()[:-40], (3, 8, 8), ImageError, "the picture is damaged or truncated"),
    ]:
        with pytest.raises(kind, match=told):
            prepare_picture(given, shape)  # type: ignore[arg-type]
