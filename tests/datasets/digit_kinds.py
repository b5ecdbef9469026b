"""Digits of MNIST drawn into pictures of many kinds, as users bring them."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Array = np.ndarray[Any, Any]
Draw = Callable[[Array, np.random.Generator], Image.Image]

KINDS: dict[str, Draw] = {}
"""By name, what draws a digit, uint8 (28, 28) of white ink, into a picture."""


def kind(draw: Draw) -> Draw:
    KINDS[draw.__name__.replace("_", " ")] = draw
    return draw


def coverage(digit: Array, rng: Any, shape: Any = (300, 360), side: int = 180) -> Array:
    """Return how much of each pixel is ink, 0 to 1, with a large digit somewhere."""
    large = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    ink = np.clip((np.asarray(large) / 255 - 0.5) * 3 + 0.5, 0, 1)
    field = np.zeros(shape)
    top, left = (int(rng.integers(0, room - side + 1)) for room in shape)
    field[top : top + side, left : left + side] = ink
    return field


def grey(paper: Any, ink: Any, cover: Array) -> Image.Image:
    """Return ink of a shade on paper of a shade."""
    return to_image(paper * (1 - cover) + ink * cover)


def to_image(levels: Array) -> Image.Image:
    return Image.fromarray(np.rint(np.clip(levels, 0, 255)).astype(np.uint8))


def colors(paper: Any, ink: Any, cover: Array) -> Image.Image:
    return to_image(np.array(paper) * (1 - cover[..., None]) + np.array(ink) * cover[..., None])


def ruled(shape: Any, rng: Any, every: int, wide: int, tilt: float = 0.0, both: bool = False):
    """Return where lines are, 1 or 0."""
    rows, columns = np.indices(shape)
    first = rng.integers(every)
    lines = (rows + tilt * columns + first) % every < wide
    if both:
        lines |= (columns - tilt * rows + first) % every < wide
    return lines.astype(float)


@kind
def plain(digit: Array, rng: Any) -> Image.Image:
    return grey(240, 30, coverage(digit, rng))


@kind
def pale_lines(digit: Array, rng: Any) -> Image.Image:
    cover = coverage(digit, rng)
    paper = 245 - 60 * ruled(cover.shape, rng, 30, 2)
    return grey(paper, 40, cover)


@kind
def dark_lines(digit: Array, rng: Any) -> Image.Image:
    cover = coverage(digit, rng)
    paper = 245 - 200 * ruled(cover.shape, rng, 36, 2)
    return grey(paper, 40, cover)


@kind
def tilted_lines(digit: Array, rng: Any) -> Image.Image:
    cover = coverage(digit, rng)
    paper = 245 - 120 * ruled(cover.shape, rng, 34, 2, tilt=float(rng.uniform(-0.05, 0.05)))
    return grey(paper, 40, cover)


@kind
def blue_lines(digit: Array, rng: Any) -> Image.Image:
    cover = coverage(digit, rng)
    lines = ruled(cover.shape, rng, 32, 3)[..., None]
    paper = np.array([250, 250, 245]) * (1 - lines) + np.array([120, 150, 230]) * lines
    return colors(paper, (30, 30, 60), cover)


@kind
def pale_squares(digit: Array, rng: Any) -> Image.Image:
    cover = coverage(digit, rng)
    paper = 245 - 70 * ruled(cover.shape, rng, 24, 1, both=True)
    return grey(paper, 40, cover)


@kind
def dark_squares(digit: Array, rng: Any) -> Image.Image:
    cover = coverage(digit, rng)
    paper = 245 - 180 * ruled(cover.shape, rng, 40, 2, both=True)
    return grey(paper, 40, cover)


@kind
def tilted_squares(digit: Array, rng: Any) -> Image.Image:
    cover = coverage(digit, rng)
    tilt = float(rng.uniform(-0.04, 0.04))
    return grey(245 - 120 * ruled(cover.shape, rng, 34, 2, tilt, both=True), 40, cover)


@kind
def dark_edge_of_a_scan(digit: Array, rng: Any) -> Image.Image:
    levels = np.asarray(grey(235, 50, coverage(digit, rng)))
    sides = rng.permutation([0, 0, 12, 25]).reshape(2, 2)
    return Image.fromarray(np.pad(levels, sides, constant_values=10))


@kind
def slanted_dark_edge(digit: Array, rng: Any) -> Image.Image:
    cover = np.pad(coverage(digit, rng), 30)
    levels = np.asarray(grey(235, 50, cover)).astype(float)
    rows, columns = np.indices(levels.shape)
    levels[columns < 24 - 0.06 * rows] = 12
    return to_image(levels)


@kind
def frame(digit: Array, rng: Any) -> Image.Image:
    image = grey(240, 40, np.pad(coverage(digit, rng), 30))
    width, height = image.size
    ImageDraw.Draw(image).rectangle((10, 10, width - 11, height - 11), outline=20, width=5)
    return image


@kind
def frame_at_the_border(digit: Array, rng: Any) -> Image.Image:
    image = grey(240, 40, np.pad(coverage(digit, rng), 20))
    width, height = image.size
    ImageDraw.Draw(image).rectangle((0, 0, width - 1, height - 1), outline=0, width=8)
    return image


@kind
def light_frame(digit: Array, rng: Any) -> Image.Image:
    levels = np.asarray(grey(170, 60, coverage(digit, rng)))
    return Image.fromarray(np.pad(levels, 20, constant_values=255))


@kind
def dust(digit: Array, rng: Any) -> Image.Image:
    image = grey(240, 60, coverage(digit, rng))
    pen = ImageDraw.Draw(image)
    for x, y, r in zip(
        rng.integers(0, image.width, 60), rng.integers(0, image.height, 60),
        rng.uniform(0.5, 3, 60), strict=True,
    ):  # fmt: skip
        pen.ellipse((x - r, y - r, x + r, y + r), fill=int(rng.integers(0, 120)))
    return image


@kind
def salt_and_pepper(digit: Array, rng: Any) -> Image.Image:
    levels = np.asarray(grey(235, 50, coverage(digit, rng))).copy()
    hit = rng.random(levels.shape)
    levels[hit < 0.004], levels[hit > 0.996] = 0, 255
    return Image.fromarray(levels)


@kind
def one_bit_of_grey_paper(digit: Array, rng: Any) -> Image.Image:
    return grey(185, 30, coverage(digit, rng)).convert("1")


@kind
def one_bit_of_light_paper(digit: Array, rng: Any) -> Image.Image:
    return grey(225, 60, coverage(digit, rng)).convert("1")


@kind
def one_bit_threshold(digit: Array, rng: Any) -> Image.Image:
    return grey(240, 20, coverage(digit, rng)).convert("1", dither=Image.Dither.NONE)


@kind
def red_on_green(digit: Array, rng: Any) -> Image.Image:
    return colors((40, 140, 40), (220, 45, 55), coverage(digit, rng))


@kind
def blue_on_yellow(digit: Array, rng: Any) -> Image.Image:
    return colors((230, 220, 90), (60, 70, 200), coverage(digit, rng))


@kind
def contrast_of_30(digit: Array, rng: Any) -> Image.Image:
    return grey(150, 120, coverage(digit, rng))


@kind
def contrast_of_30_with_noise(digit: Array, rng: Any) -> Image.Image:
    levels = np.asarray(grey(200, 170, coverage(digit, rng))).astype(float)
    return to_image(levels + rng.normal(0, 3, levels.shape))


@kind
def light_on_dark(digit: Array, rng: Any) -> Image.Image:
    return grey(30, 220, coverage(digit, rng))


@kind
def noise(digit: Array, rng: Any) -> Image.Image:
    levels = np.asarray(grey(200, 60, coverage(digit, rng))).astype(float)
    return to_image(levels + rng.normal(0, 12, levels.shape))


# ---- kinds beyond those that were asked for


@kind
def photograph(digit: Array, rng: Any) -> Image.Image:
    cover = coverage(digit, rng, (600, 800), 320)
    rows, columns = np.indices(cover.shape)
    light = 1 - 0.35 * columns / 800 - 0.15 * rows / 600
    rgb = (
        np.array([225, 215, 195]) * (1 - cover[..., None])
        + np.array([40, 45, 80]) * cover[..., None]
    )
    rgb = rgb * light[..., None] + rng.normal(0, 5, rgb.shape)
    image = to_image(rgb).filter(ImageFilter.GaussianBlur(1.5))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=60)
    return Image.open(stream)


@kind
def dark_corners(digit: Array, rng: Any) -> Image.Image:
    cover = coverage(digit, rng)
    rows, columns = (np.linspace(-1, 1, n) for n in cover.shape)
    light = 1 - 0.3 * (rows[:, None] ** 2 + columns**2) / 2
    return to_image(np.asarray(grey(230, 50, cover)) * light)


@kind
def shadow_over_half(digit: Array, rng: Any) -> Image.Image:
    cover = coverage(digit, rng)
    edge = 1 / (1 + np.exp((np.arange(cover.shape[1]) - 200) / 25))
    return to_image(np.asarray(grey(230, 40, cover)) * (0.75 + 0.25 * edge))


@kind
def lines_with_a_margin(digit: Array, rng: Any) -> Image.Image:
    cover = coverage(digit, rng)
    lines = ruled(cover.shape, rng, 34, 2)
    rgb = np.full((*cover.shape, 3), 245.0)
    rgb[lines > 0] = (150, 180, 230)
    rgb[:, 22:25] = (230, 90, 90)
    return colors(rgb, (30, 30, 40), cover)


@kind
def underlined(digit: Array, rng: Any) -> Image.Image:
    image = grey(240, 40, np.pad(coverage(digit, rng), ((0, 40), (0, 0))))
    pen = ImageDraw.Draw(image)
    pen.line((40, image.height - 20, image.width - 50, image.height - 22), fill=40, width=4)
    return image


@kind
def paper_on_a_dark_table(digit: Array, rng: Any) -> Image.Image:
    levels = np.asarray(grey(225, 50, coverage(digit, rng)))
    return Image.fromarray(np.pad(levels, ((60, 50), (70, 40)), constant_values=70))


@kind
def note_on_a_large_table(digit: Array, rng: Any) -> Image.Image:
    levels = np.asarray(grey(225, 50, coverage(digit, rng, (240, 240))))
    return Image.fromarray(np.pad(levels, ((160, 150), (170, 140)), constant_values=70))


@kind
def tilted_paper_on_a_table(digit: Array, rng: Any) -> Image.Image:
    levels = np.asarray(grey(225, 50, np.pad(coverage(digit, rng), 30)))
    wide = Image.fromarray(np.pad(levels, 90, constant_values=70))
    return wide.rotate(float(rng.uniform(-4, 4)), Image.Resampling.BILINEAR, fillcolor=70)


@kind
def back_shines_through(digit: Array, rng: Any) -> Image.Image:
    cover = coverage(digit, rng)
    back = coverage(np.ascontiguousarray(digit[:, ::-1]), rng)
    return grey(240 - 25 * back, 40, cover)


@kind
def holes_of_a_punch(digit: Array, rng: Any) -> Image.Image:
    image = grey(240, 40, np.pad(coverage(digit, rng), ((0, 0), (40, 0))))
    pen = ImageDraw.Draw(image)
    for y in (60, 240):
        pen.ellipse((8, y - 12, 32, y + 12), fill=30)
    return image


@kind
def thin_pen(digit: Array, rng: Any) -> Image.Image:
    cover = coverage(digit, rng)
    image = Image.fromarray((255 * cover).astype(np.uint8)).filter(ImageFilter.MinFilter(5))
    return grey(240, 40, np.asarray(image) / 255)


@kind
def pencil(digit: Array, rng: Any) -> Image.Image:
    cover = coverage(digit, rng)
    grain = np.clip(rng.normal(0.75, 0.3, cover.shape), 0, 1)
    return to_image(np.asarray(grey(235, 110, cover * grain)) + rng.normal(0, 3, cover.shape))


@kind
def small_on_a_large_sheet(digit: Array, rng: Any) -> Image.Image:
    return grey(240, 40, coverage(digit, rng, (900, 1200), 90))


@kind
def cut_to_its_edges(digit: Array, rng: Any) -> Image.Image:
    cover = coverage(digit, rng)
    rows, columns = (np.flatnonzero(cover.max(axis=axis) > 0.1) for axis in (1, 0))
    return grey(240, 40, cover[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


@kind
def as_mnist_itself(digit: Array, rng: Any) -> Image.Image:
    return Image.fromarray(255 - digit)


@kind
def blurred(digit: Array, rng: Any) -> Image.Image:
    return grey(230, 50, coverage(digit, rng)).filter(ImageFilter.GaussianBlur(6))


@kind
def squares_with_heavy_fifths(digit: Array, rng: Any) -> Image.Image:
    cover = coverage(digit, rng)
    paper = 245 - 40 * ruled(cover.shape, rng, 12, 1, both=True)
    return grey(paper - 80 * ruled(cover.shape, rng, 60, 2, both=True), 40, cover)


@kind
def dotted_lines(digit: Array, rng: Any) -> Image.Image:
    cover = coverage(digit, rng)
    lines = ruled(cover.shape, rng, 32, 2)
    lines[:, np.arange(cover.shape[1]) % 10 < 5] = 0
    return grey(245 - 150 * lines, 40, cover)


@kind
def cell_of_a_table(digit: Array, rng: Any) -> Image.Image:
    image = grey(240, 40, np.pad(coverage(digit, rng), 40))
    pen, (width, height) = ImageDraw.Draw(image), image.size
    for x in (15, width - 16):
        pen.line((x, 0, x, height), fill=20, width=4)
    for y in (12, height - 14):
        pen.line((0, y, width, y), fill=20, width=4)
    return image


@kind
def circled(digit: Array, rng: Any) -> Image.Image:
    cover = np.pad(coverage(digit, rng), 50)
    rows, columns = (np.flatnonzero(cover.max(axis=axis) > 0.1) for axis in (1, 0))
    image = grey(240, 40, cover)
    box = (columns[0] - 40, rows[0] - 40, columns[-1] + 40, rows[-1] + 40)
    ImageDraw.Draw(image).ellipse(box, outline=40, width=6)
    return image


@kind
def chalk_on_a_board(digit: Array, rng: Any) -> Image.Image:
    cover = coverage(digit, rng)
    grain = np.clip(rng.normal(0.8, 0.25, cover.shape), 0, 1)
    spots = to_image(rng.uniform(0, 255, (15, 18)))
    spots = np.asarray(spots.resize(cover.shape[::-1], Image.Resampling.BICUBIC)).astype(float)
    board = 50 + 0.15 * (spots - 128)
    return to_image(np.asarray(grey(board, 210, cover * grain)) + rng.normal(0, 6, cover.shape))


@kind
def a_thumb_on_the_paper(digit: Array, rng: Any) -> Image.Image:
    cover = np.pad(coverage(digit, rng), ((0, 60), (0, 0)))
    image = colors((235, 230, 220), (30, 30, 60), cover)
    box = (20, image.height - 45, 140, image.height + 80)
    ImageDraw.Draw(image).ellipse(box, fill=(200, 140, 115))
    return image


@kind
def ordered_dither(digit: Array, rng: Any) -> Image.Image:
    levels = np.asarray(grey(185, 30, coverage(digit, rng))) / 255
    bayer = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) / 16
    rows, columns = np.indices(levels.shape) % 4
    return to_image(255 * (levels > bayer[rows, columns])).convert("1")


@kind
def dithered_to_few_colors(digit: Array, rng: Any) -> Image.Image:
    return colors((190, 170, 140), (40, 40, 120), coverage(digit, rng)).convert("P")


@kind
def dithered_and_saved_as_jpeg(digit: Array, rng: Any) -> Image.Image:
    stream = io.BytesIO()
    one_bit_of_grey_paper(digit, rng).convert("L").save(stream, "JPEG", quality=90)
    return Image.open(stream)


@kind
def much_noise(digit: Array, rng: Any) -> Image.Image:
    levels = np.asarray(grey(200, 60, coverage(digit, rng))).astype(float)
    return to_image(levels + rng.normal(0, 25, levels.shape))


@kind
def glare_on_a_whiteboard(digit: Array, rng: Any) -> Image.Image:
    cover = coverage(digit, rng)
    rows, columns = np.indices(cover.shape)
    glare = 60 * np.exp(-((rows - 60) ** 2 + (columns - 280) ** 2) / (2 * 50**2))
    return to_image(np.asarray(grey(190, 60, cover)) + glare)
