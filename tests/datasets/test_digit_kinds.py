"""A digit on pictures of many kinds is the digit that it is on a plain one."""

from __future__ import annotations

import numpy as np
import pytest
from digit_kinds import KINDS, coverage, grey, ruled
from PIL import Image, ImageDraw

import xpdl
from xpdl import Trainer
from xpdl.datasets import prepare_digit, read_mnist
from xpdl.errors import ImageError
from xpdl.layers import Normalize
from xpdl.models import make_model


def figure(number: int) -> np.ndarray:
    """Return a digit-like figure in MNIST's form, uint8 (28, 28)."""
    image = Image.new("L", (280, 280), 0)
    pen = ImageDraw.Draw(image)
    if number == 9:
        pen.ellipse((80, 40, 190, 150), outline=255, width=26)
        pen.line((180, 100, 160, 235), fill=255, width=26)
    elif number == 2:
        pen.arc((80, 40, 190, 150), 180, 60, fill=255, width=26)
        pen.line([(180, 120), (85, 230), (200, 230)], fill=255, width=26)
    else:
        pen.line((150, 45, 130, 235), fill=255, width=28)
    return np.asarray(image.resize((28, 28), Image.Resampling.BOX))


@pytest.mark.parametrize("name", KINDS)
def test_a_figure_is_the_same_on_every_kind_of_picture(name: str) -> None:
    for number in (1, 2, 9):
        rng = np.random.default_rng(number)
        wanted = prepare_digit(KINDS["plain"](figure(number), rng))
        got = prepare_digit(KINDS[name](figure(number), rng))
        steps = (-1, 0, 1)
        moved = [np.roll(got, (y, x), (0, 1)) for y in steps for x in steps]
        assert min(np.abs(a - wanted).mean() for a in moved) < 0.08, number


def two(digits: tuple[int, int], axis: int) -> Image.Image:
    rng = np.random.default_rng(0)
    covers = [coverage(figure(number), rng, (200, 200), 180) for number in digits]
    return grey(240, 40, np.concatenate(covers, axis=axis))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("digits", [(1, 2), (9, 2), (9, 9), (2, 1)])
def test_several_digits_are_said_to_be_several(digits: tuple[int, int], axis: int) -> None:
    with pytest.raises(ImageError, match="holds several digits"):
        prepare_digit(two(digits, axis))


def test_pictures_without_a_digit_are_said_to_be_blank() -> None:
    rng, empty = np.random.default_rng(0), np.zeros((300, 360))
    frame = grey(240, 0, empty)
    ImageDraw.Draw(frame).rectangle((0, 0, 359, 299), outline=0, width=9)
    blank = [
        grey(245 - 60 * ruled(empty.shape, rng, 30, 2), 0, empty),
        grey(245 - 150 * ruled(empty.shape, rng, 30, 2, 0.02, both=True), 0, empty),
        Image.fromarray(np.pad(np.full((300, 360), 235, np.uint8), (0, 14), constant_values=5)),
        frame,
        KINDS["dust"](np.zeros((28, 28), np.uint8), rng),
        KINDS["salt and pepper"](np.zeros((28, 28), np.uint8), rng),
        KINDS["paper on a dark table"](np.zeros((28, 28), np.uint8), rng),
        KINDS["one bit of grey paper"](np.zeros((28, 28), np.uint8), rng),
        KINDS["much noise"](np.zeros((28, 28), np.uint8), rng),
    ]
    for image in blank:
        with pytest.raises(ImageError, match="is blank"):
            prepare_digit(image)


@pytest.mark.slow
def test_digits_are_recognised_on_every_kind_of_picture() -> None:
    """Of 60 test digits drawn into each kind, at least 55 are right."""
    data = read_mnist()
    with xpdl.use_backend("numba"):
        net = make_model("DeepConvNet", seed=0, drop_scores=False, normalize=Normalize(255))
        Trainer(
            net, (data.x_train[:, None], data.t_train), epochs=2, batch_size=50,
            schedule="one-cycle", progress=False,
        ).fit()  # fmt: skip
        right = {}
        for name, draw in KINDS.items():
            rng = np.random.default_rng(5)
            right[name] = 0
            for digit, label in zip(data.x_test[:60], data.t_test[:60], strict=True):
                try:
                    x = prepare_digit(draw(digit, rng))[None, None]
                except ImageError:
                    continue
                right[name] += int(net.predict(xpdl.asarray(x)).argmax()) == label
    assert right["plain"] >= 59
    short = {name: int(n) for name, n in right.items() if n < 55}
    assert short == {}
