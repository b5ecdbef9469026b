"""Pictures of digits, brought to MNIST's form."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import time
import zlib

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageDraw

from xpdl.datasets import prepare_digit, read_mnist
from xpdl.errors import FileAccessError, ImageError


def draw(size: int = 600, box: tuple[float, float, float, float] = (0.2, 0.1, 0.8, 0.9)):
    """Return a dark 9-like figure on white; `box` is (left, top, right, bottom) of 1."""
    image = Image.new("L", (size, size), 255)
    pen = ImageDraw.Draw(image)
    left, top, right, bottom = (side * size for side in box)
    width = max(1, round(0.12 * (right - left)))
    middle = top + 0.55 * (bottom - top)
    pen.ellipse((left, top, right, middle), outline=0, width=width)
    pen.rectangle((right - width, (top + middle) / 2, right, bottom), fill=0)
    return image


def mnist_like() -> np.ndarray:
    """Return a figure in MNIST's own form, uint8 (28, 28), made by another way than ours."""
    small = draw(200, (0.1, 0.0, 0.8, 0.999)).resize((20, 20), Image.Resampling.BOX)
    ink = 255 - np.asarray(small)
    rows, columns = np.nonzero(ink)
    ink = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].astype(float)
    ink = np.rint(ink * 255 / ink.max())
    y, x = (
        round(14 - np.average(np.arange(n), weights=ink.sum(axis)))
        for n, axis in ((ink.shape[0], 1), (ink.shape[1], 0))
    )
    field = np.zeros((28, 28), np.uint8)
    field[y : y + ink.shape[0], x : x + ink.shape[1]] = ink
    return field


REFERENCE = prepare_digit(draw())


def assert_same_digit(got: np.ndarray, tolerance: float = 0.05, shift: int = 0) -> None:
    """Compare with the reference, the centre of mass being rounded up to `shift` pixels off."""
    assert_mnist_form(got)
    steps = range(-shift, shift + 1)
    errors = [np.abs(np.roll(got, (y, x), (0, 1)) - REFERENCE).mean() for y in steps for x in steps]
    assert min(errors) < tolerance


def assert_mnist_form(got: np.ndarray) -> None:
    assert got.shape == (28, 28)
    assert got.dtype == np.float32
    assert got.min() == 0
    assert got.max() == 1
    rows, columns = np.nonzero(got)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
    for axis in (0, 1):
        centre = np.average(np.arange(28), weights=got.sum(axis))
        assert 13.4 < centre < 14.6


def png(path, image):
    image.save(path, "PNG")
    return path


@pytest.mark.parametrize("inverted", [False, True])
def test_a_picture_of_mnist_comes_out_as_it_was(tmp_path, inverted):
    field = mnist_like()
    path = png(tmp_path / "digit.png", Image.fromarray(255 - field if inverted else field))
    np.testing.assert_allclose(prepare_digit(path), field / 255, atol=0.005)
    np.testing.assert_array_equal(prepare_digit(str(path)), prepare_digit(path))


def test_the_reference_is_of_mnists_form_and_upright():
    assert_mnist_form(REFERENCE)
    rows, columns = np.nonzero(REFERENCE > 0.5)
    assert np.ptp(rows) > np.ptp(columns)
    lower = REFERENCE[20:]
    assert lower[:, 14:].sum() > 20 * lower[:, :14].sum()


KINDS = {
    "light on dark": lambda image: Image.eval(image, lambda v: 255 - v),
    "pale": lambda image: Image.eval(image, lambda v: 140 + v // 4),
    "grey on grey": lambda image: Image.eval(image, lambda v: 160 - v // 4),
    "1": lambda image: image.convert("1"),
    "P": lambda image: image.convert("P"),
    "RGB": lambda image: image.convert("RGB"),
    "CMYK": lambda image: image.convert("CMYK"),
    "YCbCr": lambda image: image.convert("YCbCr"),
    "LA opaque": lambda image: image.convert("LA"),
    "red on yellow": lambda image: Image.composite(
        Image.new("RGB", image.size, "yellow"), Image.new("RGB", image.size, "darkred"), image
    ),
    "16 bits": lambda image: Image.fromarray(np.asarray(image).astype(np.uint16) * 257),
    "32 bits": lambda image: Image.fromarray(np.asarray(image).astype(np.int32) * 1000),
    "float": lambda image: Image.fromarray(np.asarray(image).astype(np.float32) / 1000 - 3),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_gives_the_same_digit(kind):
    assert_same_digit(prepare_digit(KINDS[kind](draw())), 0.01)


@pytest.mark.parametrize("shade", [0, 255, 128])
def test_ink_on_nothing_is_seen_whatever_its_shade(tmp_path, shade):
    mask = Image.eval(draw(), lambda v: 255 - v)
    image = Image.new("RGBA", mask.size, (shade, shade, shade, 0))
    image.putalpha(mask)
    assert_same_digit(prepare_digit(png(tmp_path / "alpha.png", image)), 0.01)


@pytest.mark.parametrize("inverted", [False, True])
def test_paper_with_transparent_corners_stays_paper(inverted):
    paper = draw()
    if inverted:
        paper = Image.eval(paper, lambda v: 255 - v)
    mask = Image.new("L", paper.size, 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, 599, 599), 90, fill=255)
    image = paper.convert("RGBA")
    image.putalpha(mask)
    assert_same_digit(prepare_digit(image), 0.01)


def test_a_palette_with_a_transparent_colour(tmp_path):
    image = draw().convert("P")
    image.save(tmp_path / "p.png", transparency=image.getpixel((0, 0)))
    assert_same_digit(prepare_digit(tmp_path / "p.png"), 0.01)


@pytest.mark.parametrize("size", [40, 100, 333, 3000])
def test_the_size_does_not_matter(size):
    assert_same_digit(prepare_digit(draw(size)), shift=1)


@pytest.mark.parametrize(
    "box", [(0.02, 0.02, 0.17, 0.22), (0.8, 0.75, 0.95, 0.95), (0.3, 0.3, 0.6, 0.7)]
)
def test_the_place_on_the_sheet_does_not_matter(box):
    assert_same_digit(prepare_digit(draw(box=box)))


def test_a_digit_cropped_to_its_edges():
    image = draw()
    box = Image.eval(image, lambda v: 255 - v).getbbox()
    assert_same_digit(prepare_digit(image.crop(box)))


@pytest.mark.parametrize("fault", ["noise", "uneven light", "glare", "jpeg", "all but jpeg"])
def test_a_photographs_faults_are_taken_away(fault):
    rng = np.random.default_rng(1)
    levels = 50 + np.asarray(draw()).astype(float) * 0.6
    if fault in ("uneven light", "all but jpeg"):
        levels *= np.linspace(1, 0.7, 600)
    if fault in ("glare", "all but jpeg"):
        levels[100:130, 30:60] += 40
    if fault in ("noise", "all but jpeg"):
        levels += rng.normal(0, 5, levels.shape)
    image = Image.fromarray(levels.clip(0, 255).astype(np.uint8))
    if fault == "jpeg":
        stream = io.BytesIO()
        image.convert("RGB").save(stream, "JPEG", quality=40)
        image = Image.open(stream)
    assert_same_digit(prepare_digit(image), shift=1)


def test_a_photograph_held_on_its_side_is_turned_by_its_tag(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    draw().transpose(Image.Transpose.ROTATE_90).save(tmp_path / "side.png", exif=exif)
    assert_same_digit(prepare_digit(tmp_path / "side.png"), 0.01)


def test_the_first_frame_of_an_animation(tmp_path):
    draw().save(tmp_path / "a.gif", save_all=True, append_images=[Image.new("L", (600, 600), 90)])
    assert_same_digit(prepare_digit(tmp_path / "a.gif"), 0.01)


@pytest.mark.parametrize("size", [(400, 4), (4, 400), (300, 50)])
def test_a_stroke_keeps_its_shape_and_its_contrast(size):
    image = Image.new("L", (500, 500), 255)
    left, top = 40, 30
    ImageDraw.Draw(image).rectangle((left, top, left + size[0], top + size[1]), fill=0)
    got = prepare_digit(image)
    assert_mnist_form(got)
    rows, columns = np.nonzero(got)
    extent = np.ptp(columns) + 1, np.ptp(rows) + 1
    assert (extent[0] > extent[1]) == (size[0] > size[1])
    assert got.sum() >= 19.99


def test_thin_lines_are_not_left_fainter_than_their_crossing():
    image = Image.new("L", (1500, 1500), 255)
    ImageDraw.Draw(image).line([(300, 300), (1000, 300), (500, 1200)], fill=0, width=6)
    got = prepare_digit(image)
    assert np.median(got[got > 0.1]) > 0.5


def test_faint_ink_on_paper_lit_from_one_side():
    slope = np.linspace(1, 0.5, 600)
    levels = (150 + np.asarray(draw()) * 0.3) * slope
    assert_same_digit(prepare_digit(Image.fromarray(levels.astype(np.uint8))), shift=1)


def test_shaded_ink_on_nothing_is_not_taken_for_paper():
    mask = Image.eval(draw(), lambda v: 255 - v)
    shades = np.broadcast_to(np.linspace(0, 140, 600), (600, 600)).astype(np.uint8)
    image = Image.merge("LA", (Image.fromarray(shades), mask))
    assert_same_digit(prepare_digit(image), 0.06, shift=1)


def test_a_speck_becomes_a_square():
    assert_mnist_form(prepare_digit(Image.fromarray(np.pad([[255]], 3).astype(np.uint8))))


def test_a_digit_may_be_bytes_or_an_open_file(tmp_path):
    path = png(tmp_path / "digit.png", draw())
    content = path.read_bytes()
    with open(path, "rb") as file:
        for given in (content, io.BytesIO(content), file):
            np.testing.assert_array_equal(prepare_digit(given), REFERENCE)


def test_a_given_image_is_left_as_it_was():
    image = draw(2000).convert("RGBA")
    before = image.tobytes()
    prepare_digit(image)
    assert image.size == (2000, 2000)
    assert image.tobytes() == before


# ---- what is no picture of a digit


def transparent() -> Image.Image:
    return Image.new("RGBA", (50, 50), (9, 9, 9, 0))


@pytest.mark.parametrize(
    "image",
    [
        Image.new("L", (50, 50), 255),
        Image.new("L", (50, 50), 0),
        Image.new("RGB", (50, 50), "blue"),
        Image.new("L", (1, 1), 7),
        Image.new("L", (1, 40), 7),
        Image.new("F", (20, 20), 3.5),
        transparent(),
        Image.fromarray(np.pad(np.full((5, 5), 10, np.uint8), 9)),
        Image.fromarray(
            np.random.default_rng(0).normal(200, 3, (300, 300)).clip(0, 255).astype(np.uint8)
        ),
    ],
)
def test_a_blank_sheet_is_said_to_be_one(image):
    with pytest.raises(ImageError, match="the picture is blank"):
        prepare_digit(image)


def test_a_blank_file_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"empty\.png' is blank"):
        prepare_digit(png(tmp_path / "empty.png", Image.new("L", (50, 50), 255)))


def test_a_missing_file_a_folder_and_a_locked_file(tmp_path):
    with pytest.raises(FileAccessError, match=r"gone\.png': No such file"):
        prepare_digit(tmp_path / "gone.png")
    with pytest.raises(FileAccessError, match="directory"):
        prepare_digit(tmp_path)
    locked = png(tmp_path / "locked.png", draw(50))
    locked.chmod(0)
    if not os.access(locked, os.R_OK):
        with pytest.raises(FileAccessError, match="Permission"):
            prepare_digit(locked)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"GIF89a", bytes(5000)])
def test_a_file_that_is_no_picture_is_named(tmp_path, content):
    path = tmp_path / "foreign.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"foreign\.png"):
        prepare_digit(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF"])
def test_a_cut_or_altered_file_never_ends_in_a_foreign_error(tmp_path, kind):
    stream = io.BytesIO()
    draw(120).save(stream, kind)
    whole = stream.getvalue()
    rng = np.random.default_rng(2)
    path = tmp_path / "spoiled"
    for cut in np.linspace(1, len(whole) - 1, 25).astype(int):
        altered = bytearray(whole)
        altered[rng.integers(0, len(whole))] ^= 1 << int(rng.integers(8))
        for content in (whole[:cut], bytes(altered)):
            path.write_bytes(content)
            try:
                got = prepare_digit(path)
            except ImageError:
                continue
            assert got.shape == (28, 28)


def test_a_truncated_png_is_said_to_be_damaged(tmp_path):
    path = png(tmp_path / "cut.png", draw())
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ImageError, match=r"cut\.png' is damaged or truncated"):
        prepare_digit(path)


@pytest.mark.parametrize("side", [9_000, 12_000, 40_000])
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path, side):
    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b"")
    )
    with pytest.raises(ImageError, match=r"bomb\.png.*Make it smaller"):
        prepare_digit(path)


def chunk_of(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def blank_png(width: int, height: int, *more: bytes) -> bytes:
    header = chunk_of(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more)


def test_a_picture_of_a_million_pieces_is_given_up(tmp_path):
    path = tmp_path / "pieces.png"
    path.write_bytes(blank_png(9, 9, chunk_of(b"teXt") * 1_000_000))
    start = time.thread_time()
    with pytest.raises(ImageError, match="more than 50,000 pieces"):
        prepare_digit(path)
    assert time.thread_time() - start < 1


def test_a_jpeg_of_a_thousand_scans_is_refused(tmp_path):
    stream = io.BytesIO()
    draw().convert("RGB").save(stream, "JPEG", progressive=True)
    content = stream.getvalue()
    last = content.rindex(b"\xff\xda")
    path = tmp_path / "scans.jpg"
    path.write_bytes(content[:last] + content[last:-2] * 1000 + content[last:])
    with pytest.raises(ImageError, match="more than 40 scans"):
        prepare_digit(path)
    path.write_bytes(content)
    assert_same_digit(prepare_digit(path), 0.02)


@pytest.mark.parametrize(
    "content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", b"%PDF-1.4\n"]
)
def test_a_program_is_no_picture(tmp_path, monkeypatch, content):
    def started(*args: object, **options: object) -> None:
        raise AssertionError("another program was started")

    monkeypatch.setattr(subprocess, "Popen", started)
    monkeypatch.setattr(EpsImagePlugin, "has_ghostscript", lambda: True)
    path = tmp_path / "digit.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match="not a picture of a known format"):
        prepare_digit(path)


@pytest.mark.parametrize("place", ["pipe", "device", "large"])
def test_what_has_no_end_is_no_picture(tmp_path, place):
    path = tmp_path / "digit.png"
    if place == "pipe":
        os.mkfifo(path)
    elif place == "device":
        path.symlink_to("/dev/zero")
    else:
        with open(path, "wb") as file:
            file.truncate(10**11)
    with pytest.raises(FileAccessError, match=r"larger than 64 MB|device or a pipe"):
        prepare_digit(path)


def test_the_largest_pictures(tmp_path):
    path = tmp_path / "large"
    for size, most in (((4500, 4500), "16,000,000"), ((7100, 7100), "50,000,000")):
        kind = "PNG" if most.startswith("16") else "JPEG"
        Image.new("L", size, 255).save(path, kind)
        with pytest.raises(ImageError, match=f"pixels, more than {most}"):
            prepare_digit(path)
    draw(5000).save(path, "JPEG")  # smaller at once, as it is decoded
    assert_same_digit(prepare_digit(path), shift=1)


@pytest.mark.parametrize("side", [100, 200, 400])
def test_specks_far_from_a_small_digit_do_not_count(side):
    clean = np.full((side, side), 255, np.uint8)
    clean[40:58, 40:46] = 0
    specked = clean.copy()
    specked[-10, -10] = 250
    rng = np.random.default_rng(0)
    noisy = np.clip(clean + rng.normal(0, 3, clean.shape), 0, 255).astype(np.uint8)
    want = prepare_digit(Image.fromarray(clean))
    assert (want > 0.3).any(axis=1).sum() == 20
    np.testing.assert_allclose(prepare_digit(Image.fromarray(specked)), want, atol=0.02)
    # Noise may widen the box of 18 x 6 pixels by two on each side, and by no more.
    rows, columns = np.nonzero(prepare_digit(Image.fromarray(noisy)) > 0.3)
    assert 16 <= np.ptp(rows) + 1 <= 20
    assert 5 <= np.ptp(columns) + 1 <= 7


def test_an_array_of_int32_may_hold_eight_bits():
    assert_same_digit(prepare_digit(Image.fromarray(np.asarray(draw()).astype(np.int32))), 0.01)


def test_a_deep_grey_may_be_transparent(tmp_path):
    ink = np.asarray(draw()) < 128
    deep = Image.fromarray(np.where(ink, 50000, 51000).astype(np.uint16))
    deep.info["transparency"] = 51000
    assert_same_digit(prepare_digit(deep))


@pytest.mark.parametrize("levels", [np.uint16, np.int32, np.float32])
def test_a_deep_picture_of_another_range_is_the_same_digit(levels):
    image = np.asarray(draw()).astype(np.float64)
    if levels == np.int32:
        image = image * 1e6 - 2e9
    elif levels == np.float32:
        image = image * 1e36 - 1e38
    else:
        image = image * 257
    assert_same_digit(prepare_digit(Image.fromarray(image.astype(levels))), 0.01)


def test_a_pixel_that_is_no_number_is_refused():
    image = Image.fromarray(np.full((30, 30), np.nan, np.float32))
    with pytest.raises(ImageError, match="finite"):
        prepare_digit(image)


@pytest.mark.slow
def test_real_digits_come_out_as_they_were():
    digits = read_mnist().x_test[:1000]
    errors = np.array(
        [
            np.abs(prepare_digit(Image.fromarray(255 - digit)) - digit / 255).mean()
            for digit in digits
        ]
    )
    assert errors.mean() < 0.001
    assert (errors < 0.003).mean() > 0.99
