"""Pictures changed at random: against loops in float64, and what a training makes of them."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from promised import assert_as_promised

import xpdl
from xpdl import Network, Trainer, files
from xpdl.backends import Backend, get_backend
from xpdl.datasets import augmentation
from xpdl.datasets.augmentation import (
    Augmentation,
    Brightness,
    ColorJitter,
    Compose,
    Crop,
    Cutout,
    Elastic,
    Erase,
    Flip,
    Mixup,
    Noise,
    OfRows,
    Rotate,
    Shear,
    Shift,
    Zoom,
    make_augmentation,
    resample,
)
from xpdl.errors import ArgumentError, DTypeError, ShapeError, UnknownNameError
from xpdl.layers import (
    Affine,
    BatchNormalization,
    Convolution,
    Dropout,
    MaxPooling,
    Normalize,
    ReLU,
)

Array = np.ndarray[Any, Any]

EVERY = [
    Rotate(25),
    Rotate((-5, 40), fill=0.5),
    Shift(2),
    Shift((0.5, 1.5), whole=False),
    Zoom(0.2),
    Shear(20),
    Crop(pad=2),
    Crop(size=(4, 5), pad=1, fill=-1),
    Flip(),
    Flip(0.25, "vertical"),
    Elastic(1),
    Elastic(0.5, sigma=1.5, fill=2),
    Brightness(0.3),
    Noise(0.2),
    Erase(3),
    Erase((2, 5), probability=0.5, fill=0.25),
    ColorJitter(0.2, contrast=(0.5, 0.9)),
    Cutout(4),
    Cutout((9, 3), probability=0.5, fill=0.25),
    Compose([Rotate(10), Shift(2), Zoom(0.1)]),
    Compose([Crop(pad=1), Noise(0.1), Flip(), Shear(5, fill=1), Erase(2)]),
    Compose([Zoom(0.1), Elastic(0.5), Elastic(0.5), Shift(1)]),
]
TOLERANCE = {"float16": 4e-3, "float32": 2e-5, "float64": 1e-12}
DTYPES = [*TOLERANCE]


def pictures(n: int = 6, shape: Any = (2, 7, 9), dtype: str = "float32", seed: int = 1) -> Array:
    return np.random.default_rng(seed).random((n, *shape)).astype(dtype)


def changed(augment: Any, x: Array, seed: Any = 3, backend: Backend | None = None) -> Array:
    """Return what `augment` makes of the host's x on a backend, on the host."""
    backend = backend or get_backend()
    return backend.to_numpy(augment(backend.asarray(x), backend.generator(seed)))


def seen_through(x: Array, maps: Array, fill: float, bends: Array | None = None) -> Array:
    """Return what `resample` should, in loops and float64."""
    n, c, height, width = x.shape
    bends = np.zeros((n, 2, height, width)) if bends is None else bends
    y = np.empty((n, c, height, width))
    middle = np.array([(height - 1) / 2, (width - 1) / 2])
    for k, channel, i, j in product(*map(range, x.shape)):
        A = maps[k].astype(float)
        place = np.array([i, j]) + bends[k, :, i, j]
        r, s = A[:2, :2] @ (place - middle) + A[:2, 2] + middle
        y[k, channel, i, j] = 0
        for row, column in product(
            (math.floor(r), math.floor(r) + 1), (math.floor(s), math.floor(s) + 1)
        ):
            inside = 0 <= row < height and 0 <= column < width
            pixel = float(x[k, channel, row, column]) if inside else fill
            y[k, channel, i, j] += (1 - abs(r - row)) * (1 - abs(s - column)) * pixel
    return y


def moved(x: Array, down: int, right: int, fill: float = 0.0) -> Array:
    """Return pictures moved by whole pixels, in loops."""
    y = np.full_like(x, fill)
    height, width = x.shape[2:]
    for i, j in product(range(height), range(width)):
        if 0 <= i - down < height and 0 <= j - right < width:
            y[:, :, i, j] = x[:, :, i - down, j - right]
    return y


class Given:
    """A generator that draws what it is given, again and again."""

    def __init__(self, backend: Backend, *numbers: float) -> None:
        self._backend, self._numbers = backend, numbers

    def random(self, size: Any, dtype: Any) -> Any:
        return self._backend.asarray(np.resize(np.array(self._numbers, dtype), size))


# ---- the map of the plane


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fill", [0.0, 0.75])
def test_it_interpolates_as_the_loops_do(
    backend: Backend, rng: Any, dtype: str, fill: float
) -> None:
    x = pictures(5, (2, 6, 5), dtype)
    maps = np.zeros((5, 3, 3))
    maps[:, :2, :2] = np.eye(2) + 0.6 * rng.standard_normal((5, 2, 2))
    maps[:, :2, 2] = 2 * rng.standard_normal((5, 2))
    maps[:, 2, 2] = 1
    maps[4, :2, 2] = -3e9, 3e9  # far out
    wide = np.promote_types(dtype, "float32")
    there = backend.asarray(x.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2)  # in another order
    y = resample(there, backend.asarray(maps.astype(wide)), fill)
    assert y.dtype == dtype
    got, expected = backend.to_numpy(y), seen_through(x, maps.astype(wide), fill)
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE[dtype])
    assert (got[4] == fill).all()
    assert got[:4].std() > 0.1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fill", [0.0, 0.3])
def test_whole_moves_are_exact(backend: Backend, dtype: str, fill: float) -> None:
    x = pictures(3, (2, 6, 9), dtype)
    for by in (0, 1, -2, 5, 7, -40):
        y = changed(Shift((by, by), fill=fill), x)
        np.testing.assert_array_equal(y, moved(x, by, by, fill))
    there_and_back = Compose([Shift((3, 3)), Flip(1), Flip(1, "vertical"), Shift((3, 3))])
    np.testing.assert_array_equal(changed(there_and_back, x), x[:, :, ::-1, ::-1])


def test_parts_of_pixels_are_interpolated(backend: Backend) -> None:
    x = pictures()
    y = changed(Shift((0.25, 0.25), whole=False), x)
    expected = sum(
        (0.75, 0.25)[i] * (0.75, 0.25)[j] * moved(x, i, j) for i, j in product((0, 1), (0, 1))
    )
    np.testing.assert_allclose(y, expected, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rotation_is_counter_clockwise_about_the_centre(backend: Backend, dtype: str) -> None:
    tolerance = {"rtol": 0, "atol": TOLERANCE[dtype]}
    square, oblong = pictures(2, (2, 8, 8), dtype), pictures(2, (2, 5, 8), dtype)
    np.testing.assert_allclose(changed(Rotate(0), oblong), oblong, **tolerance)
    for quarters in (1, 2, 3, -1):
        y = changed(Rotate((90 * quarters, 90 * quarters)), square)
        np.testing.assert_allclose(y, np.rot90(square, quarters, (2, 3)), **tolerance)
    y = changed(Rotate((180, 180)), oblong)
    np.testing.assert_allclose(y, oblong[:, :, ::-1, ::-1], **tolerance)


def test_rotation_by_an_angle_is_the_formula(backend: Backend) -> None:
    x, cos, sin = pictures(2), math.cos(math.radians(30)), math.sin(math.radians(30))
    A = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    y = changed(Rotate((30, 30), fill=0.2), x)
    np.testing.assert_allclose(y, seen_through(x, np.stack([A, A]), 0.2), atol=1e-5)


def test_zoom_enlarges_about_the_centre(backend: Backend) -> None:
    x = pictures(2)
    np.testing.assert_array_equal(changed(Zoom(0), x), x)
    for factor in (2.0, 0.5, 1.3):
        A = np.diag([1 / factor, 1 / factor, 1])
        y = changed(Zoom((factor, factor)), x)
        np.testing.assert_allclose(y, seen_through(x, np.stack([A, A]), 0), atol=1e-5)
    spot = np.zeros((1, 1, 12, 12), "float32")
    spot[..., 4:8, 4:8] = 1
    for factor in (0.5, 1.5, 2.0):
        assert changed(Zoom((factor, factor)), spot).sum() == pytest.approx(16 * factor**2)


def test_shear_slants_to_the_right(backend: Backend) -> None:
    line = np.zeros((1, 1, 9, 15), "float32")
    line[..., 7] = 1
    y = changed(Shear((30, 30)), line)[0, 0].astype(float)
    np.testing.assert_allclose(y.sum(axis=1), 1, atol=1e-6)
    place = y @ np.arange(15)  # of the line in each row
    rise = 4 - np.arange(9)
    np.testing.assert_allclose(place, 7 + math.tan(math.radians(30)) * rise, atol=1e-5)


def test_a_crop_of_the_pictures_size_moves_them(backend: Backend) -> None:
    x = pictures(300, (1, 5, 6))
    y = changed(Crop(pad=1, fill=0.5), x)
    moves = list(product((-1, 0, 1), (-1, 0, 1)))
    same = np.stack([(y == moved(x, *move, 0.5)).all(axis=(1, 2, 3)) for move in moves])
    assert (same.sum(axis=0) == 1).all()
    counts = same.sum(axis=1)
    assert counts.sum() == 300
    assert (np.abs(counts - 300 / 9) < 4 * math.sqrt(300 / 9)).all()
    np.testing.assert_array_equal(changed(Crop(), x), x)
    np.testing.assert_array_equal(changed(Crop((5, 6)), x), x)


def test_a_smaller_crop_is_enlarged(backend: Backend) -> None:
    # Interpolation of a ramp is the ramp, wherever no edge is near.
    height, width = 12, 10
    ramp = np.stack(np.broadcast_arrays(np.arange(height)[:, None], np.arange(width)))
    x = np.tile(ramp.astype("float32"), (200, 1, 1, 1))
    y = changed(Crop((6, 5)), x)
    i, j = np.arange(3, height - 3), np.arange(3, width - 3)
    first = y[:, 0, i, 4] - ((i + 0.5) * 6 / height - 0.5)
    left = y[:, 1, 5][:, j] - ((j + 0.5) * 5 / width - 0.5)
    for corner, free in ((first, 6), (left, 5)):
        np.testing.assert_allclose(corner, np.round(corner[:, :1]) + 0 * corner, atol=1e-4)
        assert set(np.round(corner[:, 0]).astype(int)) == set(range(free + 1))


@pytest.mark.parametrize("axis", ["horizontal", "vertical"])
def test_flips(backend: Backend, axis: str) -> None:
    x = pictures(400, (1, 3, 4))
    mirrored = x[..., ::-1] if axis == "horizontal" else x[:, :, ::-1]
    np.testing.assert_array_equal(changed(Flip(0, axis), x), x)
    np.testing.assert_array_equal(changed(Flip(1, axis), x), mirrored)
    y = changed(Flip(0.25, axis), x)
    turned = (y == mirrored).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(y[~turned], x[~turned])
    assert abs(turned.mean() - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 400)


# ---- values


def test_brightness_is_one_factor_a_picture(backend: Backend) -> None:
    x = pictures(200, (2, 3, 3)) + np.float32(0.1)
    factors = changed(Brightness(0.3), x) / x
    each = factors[:, 0, 0, 0]
    np.testing.assert_allclose(factors, factors[:, :1, :1, :1] + 0 * x, rtol=1e-5)
    assert 0.7 - 1e-5 <= each.min() < 0.72
    assert 1.28 < each.max() <= 1.3 + 1e-5
    assert (changed(Brightness((2, 2)), x) == 2 * x).all()


def test_noise_is_normal(backend: Backend) -> None:
    x = pictures(40, (3, 35, 35))
    z = (changed(Noise(0.5), x).astype(float) - x) / 0.5
    n = z.size
    assert abs(z.mean()) < 4 / math.sqrt(n)
    for bound in (-2.5, -1, -0.3, 0, 0.7, 2, 3):
        share = (1 + math.erf(bound / math.sqrt(2))) / 2
        assert abs((z < bound).mean() - share) < 4 * math.sqrt(share * (1 - share) / n)
    flat = z.ravel()  # neither neighbours nor the two of a pair go together
    for apart in (1, n // 2):
        assert abs((flat[apart:] * flat[:-apart]).mean()) < 4 / math.sqrt(n - apart)
    np.testing.assert_array_equal(changed(Noise(0), x), x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_noise_is_finite_whatever_is_drawn(backend: Backend, dtype: str) -> None:
    x = backend.asarray(np.zeros((1, 1, 3, 3), dtype))
    least, most = 0.0, 1 - 2.0**-24
    for numbers in ((least,), (most,), (least, most), (most, least, least)):
        z = backend.to_numpy(Noise(1)(x, Given(backend, *numbers)))
        assert (np.abs(z) < 6).all()
    u, v = 0.75, 0.125  # every u, then every v: five pairs for nine numbers
    z = backend.to_numpy(Noise(1)(x, Given(backend, *[u] * 5, *[v] * 5)))
    radius = math.sqrt(-2 * math.log(0.25))
    np.testing.assert_allclose(z, radius * math.sqrt(0.5), rtol=TOLERANCE[dtype])


def test_erase_covers_a_rectangle(backend: Backend) -> None:
    x = pictures(300, (2, 4, 6))
    covered = changed(Erase((2, 3), probability=0.5, fill=7), x) == 7
    y = changed(Erase((2, 3), probability=0.5, fill=7), x)
    np.testing.assert_array_equal(y[~covered], x[~covered])
    np.testing.assert_array_equal(covered[:, 0], covered[:, 1])
    corners = []
    for mask in covered[:, 0]:
        rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
        if len(rows):
            assert (len(rows), len(columns), mask.sum()) == (2, 3, 6)
            corners.append((int(rows[0]), int(columns[0])))
    assert abs(len(corners) - 150) < 4 * math.sqrt(75)
    assert set(corners) == set(product(range(3), range(4)))
    assert (changed(Erase((4, 6)), x) == 0).all()
    np.testing.assert_array_equal(changed(Erase(2, probability=0), x), x)


# ---- bent


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bends_are_what_the_formula_says(backend: Backend, dtype: str) -> None:
    n, h, w = 4, 6, 9
    x = backend.asarray(np.zeros((n, 1, h, w), dtype))
    bends = Elastic(1.5, sigma=2).bends(x, backend.generator(7))
    assert bends.dtype == dtype
    uniform = backend.to_numpy(backend.generator(7).random((h, n, 2, w), np.float32))
    z = math.sqrt(12) * (uniform.astype(float).transpose(1, 2, 0, 3) - 0.5)
    expected = np.zeros((n, 2, h, w))
    for i, j, k, m in product(range(h), range(w), range(h), range(w)):
        near = math.exp(-((i - k) ** 2 + (j - m) ** 2) / (2 * 2**2))
        rows = sum(math.exp(-((i - a) ** 2) / 2**2) for a in range(h))
        columns = sum(math.exp(-((j - b) ** 2) / 2**2) for b in range(w))
        expected[:, :, i, j] += 1.5 * near / math.sqrt(rows * columns) * z[:, :, k, m]
    np.testing.assert_allclose(backend.to_numpy(bends), expected, atol=10 * TOLERANCE[dtype])


def test_bends_have_their_spread_everywhere_and_are_smooth(backend: Backend) -> None:
    x = backend.asarray(np.zeros((4000, 1, 5, 12), "float32"))
    u = backend.to_numpy(Elastic(1.4, sigma=3).bends(x, backend.generator(4))).astype(float)
    assert np.abs(u.mean(axis=0)).max() < 1.4 * 4.5 / math.sqrt(4000)
    np.testing.assert_allclose(u.std(axis=0), 1.4, rtol=4.5 / math.sqrt(2 * 4000))
    # exp(-d^2 / 4 sigma^2) between places d apart, far from the edges; none between the directions
    for d in (1, 3):
        together = (u[:, 1, 2, 4] * u[:, 1, 2, 4 + d]).mean() / 1.4**2
        assert together == pytest.approx(math.exp(-(d**2) / (4 * 3**2)), abs=0.08)
    assert abs((u[:, 0] * u[:, 1]).mean(axis=0)).max() < 1.4**2 * 4.5 / math.sqrt(4000)
    still = Elastic(0).bends(x, backend.generator(4))
    assert not backend.to_numpy(still).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_bent_pictures_are_what_the_loops_make(backend: Backend, dtype: str) -> None:
    host = pictures(3, (2, 6, 7), dtype)
    x = backend.asarray(host)
    steps = [Rotate(20, fill=0.5), Shift(1, fill=0.5), Elastic(0.8, sigma=2, fill=0.5)]
    generator = backend.generator(9)
    A, B = (backend.to_numpy(step.inverse(x, generator)).astype(float) for step in steps[:2])
    bends = backend.to_numpy(steps[2].bends(x, generator)).astype(float)  # drawn last
    expected = seen_through(host, A @ B, 0.5, bends)
    found = changed(Compose(steps), host, 9).astype(float)
    np.testing.assert_allclose(found, expected, atol=5 * TOLERANCE[dtype])
    alone = seen_through(
        host,
        np.tile(np.eye(3), (3, 1, 1)),
        0.5,
        backend.to_numpy(steps[2].bends(x, backend.generator(9))).astype(float),
    )
    found = changed(steps[2], host, 9).astype(float)
    np.testing.assert_allclose(found, alone, atol=5 * TOLERANCE[dtype])
    np.testing.assert_array_equal(changed(Elastic(0), host), host)


def test_what_follows_a_bend_is_a_map_of_its_own(backend: Backend) -> None:
    host = pictures(3, (1, 6, 7))
    steps = [Rotate(20), Elastic(0.8, sigma=2), Shift((1, 1)), Elastic(0.5)]
    generator = backend.generator(2)
    y = Compose(steps[:2])(backend.asarray(host), generator)
    y = Compose(steps[2:])(y, generator)
    np.testing.assert_array_equal(changed(Compose(steps), host, 2), backend.to_numpy(y))
    # With another ground nothing is joined.
    steps = [Rotate(20), Elastic(0.8, sigma=2, fill=1)]
    generator = backend.generator(2)
    y = steps[1](steps[0](backend.asarray(host), generator), generator)
    np.testing.assert_array_equal(changed(Compose(steps), host, 2), backend.to_numpy(y))


# ---- what is drawn


@pytest.mark.parametrize(
    ("augment", "place", "of_entry", "low", "high"),
    [
        (Rotate(10), (0, 1), lambda a: math.degrees(math.asin(a)), -10, 10),
        (Rotate((5, 40)), (0, 1), lambda a: math.degrees(math.asin(a)), 5, 40),
        (Shift(3, whole=False), (0, 2), lambda a: -a, -3, 3),
        (Shift((1, 4), whole=False), (1, 2), lambda a: -a, 1, 4),
        (Zoom(0.2), (0, 0), lambda a: 1 / a, 0.8, 1.2),
        (Zoom((0.5, 3)), (1, 1), lambda a: 1 / a, 0.5, 3),
        (Shear(15), (1, 0), lambda a: math.degrees(math.atan(a)), -15, 15),
    ],
)
def test_each_picture_has_its_own_number_from_the_range(
    backend: Backend, augment: Any, place: Any, of_entry: Any, low: float, high: float
) -> None:
    x = backend.asarray(np.zeros((500, 1, 2, 2), "float32"))
    maps = backend.to_numpy(augment.inverse(x, backend.generator(8)))
    drawn = (np.array([of_entry(float(a)) for a in maps[:, *place]]) - low) / (high - low)
    assert -1e-5 < drawn.min() < 0.02
    assert 0.98 < drawn.max() < 1 + 1e-5
    assert len(set(drawn)) > 490
    assert abs(drawn.mean() - 1 / 2) < 4 * math.sqrt(1 / 12 / 500)
    assert drawn.std() == pytest.approx(math.sqrt(1 / 12), rel=0.08)
    after = (drawn[1:] - 0.5) * (drawn[:-1] - 0.5)
    assert abs(after.mean()) < 4 / 12 / math.sqrt(499)


def test_whole_moves_are_all_equally_likely_and_independent(backend: Backend) -> None:
    x = backend.asarray(np.zeros((900, 1, 2, 2), "float32"))
    maps = backend.to_numpy(Shift((-1, 4)).inverse(x, backend.generator(2)))
    pairs, counts = np.unique(-maps[:, :2, 2], axis=0, return_counts=True)
    assert pairs.tolist() == [list(pair) for pair in product(range(-1, 5), repeat=2)]
    assert (np.abs(counts - 25) < 4 * 5).all()


def test_the_edges_of_what_may_be_drawn(backend: Backend) -> None:
    x = backend.asarray(np.zeros((2, 1, 2, 2), "float32"))
    ends = Given(backend, 0, 1 - 2.0**-24)
    for pixels in (3, 7, 100, (1000, 1004)):
        moves = -backend.to_numpy(Shift(pixels).inverse(x, ends))[:, 0, 2]
        assert moves.tolist() == list(pixels if isinstance(pixels, tuple) else (-pixels, pixels))
    nothing, all_of_it = Flip(0), Flip(1)
    for kind, sign in ((nothing, 1), (all_of_it, -1)):
        assert (backend.to_numpy(kind.inverse(x, ends))[:, 1, 1] == sign).all()


@pytest.mark.parametrize("augment", EVERY, ids=str)
def test_a_seed_decides(backend: Backend, augment: Augmentation) -> None:
    x = pictures()
    first, again = changed(augment, x, [4, 2]), changed(augment, x, [4, 2])
    np.testing.assert_array_equal(first, again)
    assert (first != changed(augment, x, [4, 3])).any()
    assert (first != x).any()
    with xpdl.use_backend("numpy"):
        np.testing.assert_allclose(first, changed(augment, x, [4, 2]), rtol=0, atol=1e-5)
    b, g = backend.asarray(x), backend.generator([4, 2])
    twice = [backend.to_numpy(augment(b, g)) for _ in range(2)]
    assert (twice[0] != twice[1]).any()


@pytest.mark.parametrize("augment", EVERY, ids=str)
def test_pictures_do_not_go_together(backend: Backend, augment: Augmentation) -> None:
    x = np.tile(pictures(1), (8, 1, 1, 1))
    y = changed(augment, x)
    assert len({picture.tobytes() for picture in y}) >= 2
    # Nor does one depend on what another shows.
    x[1:] = pictures(7)
    np.testing.assert_array_equal(changed(augment, x)[0], y[0])


@pytest.mark.parametrize("augment", EVERY, ids=str)
def test_what_is_given_stays_and_what_comes_is_like_it(
    backend: Backend, augment: Augmentation
) -> None:
    results = {}
    for dtype in DTYPES:
        host = pictures().astype("float16").astype(dtype)
        for last in (False, True):
            there = backend.asarray(host.transpose(0, 2, 3, 1) if last else host)
            x = there.transpose(0, 3, 1, 2) if last else there
            if isinstance(there, np.ndarray):
                there.setflags(write=False)
            y = augment(x, backend.generator(5))
            assert backend.owns(y)
            assert (y.shape, y.dtype) == (x.shape, x.dtype)
            np.testing.assert_array_equal(backend.to_numpy(x), host)
            results[dtype, last] = backend.to_numpy(y)
        np.testing.assert_array_equal(results[dtype, False], results[dtype, True])
        # One seed means the same in every precision.
        np.testing.assert_allclose(results[dtype, False], results["float16", False], atol=4e-3)


def test_one_picture_of_one_pixel_and_none(backend: Backend) -> None:
    for augment in [
        *EVERY[:4],
        Flip(1),
        Brightness(0.1),
        Noise(0.1),
        Erase(1),
        Elastic(1),
        Crop(1, pad=1),
    ]:
        for shape in ((1, 1, 1, 1), (0, 1, 1, 1)):
            y = augment(backend.asarray(np.ones(shape, "float32")), backend.generator(1))
            assert y.shape == shape


# ---- one after another


def test_geometric_steps_are_one_map(backend: Backend) -> None:
    x = pictures(3, (1, 8, 8))
    np.testing.assert_array_equal(
        changed(Compose([Shift((1, 1)), Shift((-3, -3))]), x), moved(x, -2, -2)
    )
    turned = changed(Compose([Rotate((90, 90)), Shift((2, 2))]), x)
    np.testing.assert_allclose(turned, moved(np.rot90(x, 1, (2, 3)), 2, 2), atol=1e-5)
    turned = changed(Compose([Shift((2, 2)), Rotate((90, 90))]), x)
    np.testing.assert_allclose(turned, np.rot90(moved(x, 2, 2), 1, (2, 3)), atol=1e-5)
    # There and back loses nothing, nor what was out of the picture meanwhile.
    back = Compose([Rotate((33, 33)), Zoom((3, 3)), Zoom((1 / 3, 1 / 3)), Rotate((-33, -33))])
    np.testing.assert_allclose(changed(back, x), x, atol=1e-5)
    # With another ground it does.
    apart = Compose([Shift((3, 3), fill=0.5), Shift((-3, -3), fill=1)])
    np.testing.assert_array_equal(changed(apart, x), moved(moved(x, 3, 3, 0.5), -3, -3, 1))


def test_steps_draw_in_their_order(backend: Backend) -> None:
    x, host = backend.asarray(pictures()), pictures()
    steps = [Noise(0.1), Rotate(20), Brightness(0.5), Erase(2, fill=3)]
    generator, y = backend.generator(6), x
    for step in steps:
        y = step(y, generator)
    np.testing.assert_array_equal(changed(Compose(steps), host, 6), backend.to_numpy(y))
    np.testing.assert_array_equal(changed(Compose([]), host), host)


def test_what_is_nested_is_laid_out() -> None:
    nested = Compose([Rotate(1), Compose([Shift(2), Compose([Zoom(0.1)])])])
    assert nested == Compose((Rotate(1), Shift(2), Zoom(0.1)))
    assert nested != Compose([Rotate(1), Zoom(0.1), Shift(2)])


def test_a_kind_of_ones_own(backend: Backend) -> None:
    class Inverted(Augmentation):
        def change(self, x: Any, generator: Any) -> Any:
            return 1 - x

    x = pictures()
    y = changed(Compose([Inverted(), Shift((1, 1))]), x)
    np.testing.assert_array_equal(y, moved(1 - x, 1, 1))


@pytest.mark.parametrize("augment", EVERY, ids=str)
def test_its_repr_makes_it_again(augment: Augmentation) -> None:
    again = eval(repr(augment), vars(augmentation))
    assert again == augment
    assert repr(again) == repr(augment)
    assert hash(again) == hash(augment)
    assert sum(augment == other for other in EVERY) == 1


def test_settings_are_known_by_their_value() -> None:
    assert repr(Rotate(np.float64(10))) == repr(Rotate(10)) == "Rotate(degrees=10.0, fill=0.0)"
    assert Crop([4, 5], np.int64(2)) == Crop((4, 5), 2)  # type: ignore[arg-type]
    assert Zoom([0.5, 2]) == Zoom((0.5, 2))  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        Rotate(10).degrees = 500  # type: ignore[misc]


# ---- mistakes

BAD: list[tuple[Any, Any, str]] = [
    (Rotate, {"degrees": -1}, r"degrees must be a number of at least 0.*or a pair.*got -1"),
    (Rotate, {"degrees": (3, 1)}, r"degrees.*\(3, 1\)"),
    (Rotate, {"degrees": (1, 2, 3)}, r"degrees.*\(1, 2, 3\)"),
    (Rotate, {"degrees": math.nan}, "degrees.*nan"),
    (Rotate, {"degrees": (0, math.inf)}, "degrees.*inf"),
    (Rotate, {"degrees": "10"}, "degrees.*'10'"),
    (Rotate, {"degrees": True}, "degrees.*True"),
    (Rotate, {"degrees": (1, "2")}, r"degrees.*\(1, '2'\)"),
    (Rotate, {"degrees": 10, "fill": math.inf}, "fill must be a finite number, got inf"),
    (Shift, {"pixels": 1.5}, "whole.*1.5.*whole=False"),
    (Shift, {"pixels": (0, 0.5)}, "whole.*0.5"),
    (Zoom, {"amount": 1}, r"amount.*above 0, got 1\."),
    (Zoom, {"amount": (0, 2)}, r"amount.*above 0, got \(0, 2\)"),
    (Brightness, {"amount": (-1, 2)}, r"amount.*above 0, got \(-1, 2\)"),
    (Shear, {"degrees": 90}, "degrees.*above -90, below 90, got 90"),
    (Crop, {"size": 0}, "size.*0"),
    (Crop, {"size": (3, 2.5)}, "size.*2.5"),
    (Crop, {"pad": -1}, "pad.*-1"),
    (Flip, {"axis": "left"}, "axis.*'horizontal' or 'vertical'.*'left'"),
    (Flip, {"probability": 1.5}, "probability.*from 0 to 1.*1.5"),
    (Flip, {"probability": -0.5}, "probability.*-0.5"),
    (Noise, {"std": -0.1}, "std.*-0.1"),
    (Elastic, {"pixels": -1}, "pixels must be a number of at least 0.*-1"),
    (Elastic, {"pixels": math.inf}, "pixels.*inf"),
    (Elastic, {"pixels": 1, "sigma": 0}, "sigma must be a number of at least 0.1.*got 0"),
    (Elastic, {"pixels": 1, "fill": math.nan}, "fill.*nan"),
    (Erase, {"size": (1, 2, 3)}, r"size.*\(1, 2, 3\)"),
    (Erase, {"size": 2, "probability": math.nan}, "probability.*nan"),
    (Compose, {"steps": [Rotate(1), "flip"]}, r"steps.*Rotate\(10\).*'flip'"),
    (Compose, {"steps": [Rotate]}, "steps.*Rotate"),
    (Compose, {"steps": Rotate(1)}, "steps must be a list"),
]


@pytest.mark.parametrize(("kind", "settings", "words"), BAD)
def test_bad_settings(kind: Any, settings: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        kind(**settings)


def test_what_is_no_picture_is_refused(backend: Backend) -> None:
    generator = backend.generator(1)
    for augment in (Rotate(1), Noise(0.1), Compose([Crop()])):
        with pytest.raises(ShapeError, match=r"pictures \(C, H, W\), got inputs of shape \(784,\)"):
            augment(backend.asarray(np.zeros((2, 784), "float32")), generator)
        with pytest.raises(DTypeError, match=r"floats, got dtype uint8; divide"):
            augment(backend.asarray(np.zeros((2, 1, 4, 4), "uint8")), generator)
        with pytest.raises(DTypeError, match="array"):
            augment([[1.0]], generator)  # type: ignore[arg-type]
    x = backend.asarray(pictures(2, (1, 4, 6)))
    for augment, words in (
        (Crop(5), r"size \(5, 5\) is larger than the pictures, \(4, 6\); give"),
        (Crop((6, 9), pad=1), r"size \(6, 9\) is larger.*\(4, 6\), padded by 1"),
        (Erase((2, 7)), r"size \(2, 7\) is larger.*\(4, 6\)"),
        (Compose([Noise(1), Erase(9)]), r"\(9, 9\)"),
    ):
        with pytest.raises(ShapeError, match=words):
            augment(x, generator)


# ---- by name


def test_a_dictionary_names_augmentations_in_their_order() -> None:
    settings = {
        "shift": 2,
        "rotate": [-5, 10],
        "crop": {"pad": 2},
        "erase": {"size": [2, 5], "probability": 0.5},
    }
    expected = Compose([Shift(2), Rotate((-5, 10)), Crop(pad=2), Erase((2, 5), probability=0.5)])
    assert make_augmentation(settings) == expected
    assert make_augmentation(json.loads(json.dumps(settings))) == expected
    assert make_augmentation({}) == Compose([])


def test_every_augmentation_has_a_name() -> None:
    named = set(augmentation.BY_NAME.values())
    kinds = {type(augment) for augment in EVERY} - {Compose}
    assert named == kinds | {Mixup}
    for name, first in {
        "zoom": 0.1,
        "shear": 5,
        "flip": 0.5,
        "brightness": 0.2,
        "noise": 0.1,
        "elastic": 1,
    }.items():
        kind = augmentation.BY_NAME[name]
        assert make_augmentation({name: first}) == Compose([kind(first)])


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"rotat": 3}, UnknownNameError, "augmentation 'rotat'.*Did you mean 'rotate'"),
        ({"rotate": -3}, ArgumentError, "augmentation 'rotate': degrees must be.*-3"),
        ({"rotate": {"angle": 3}}, ArgumentError, "augmentation 'rotate'.*angle"),
        ({"rotate": {}}, ArgumentError, "augmentation 'rotate'.*degrees"),
        ({"flip": None}, ArgumentError, "augmentation 'flip'.*None"),
    ],
)
def test_what_a_dictionary_must_not_name(settings: Any, kind: Any, words: str) -> None:
    with pytest.raises(kind, match=words):
        make_augmentation(settings)


@pytest.mark.parametrize("augment", EVERY, ids=repr)
def test_rows_are_changed_as_pictures_are(backend: Backend, augment: Augmentation) -> None:
    x = backend.asarray(pictures())
    rows = x.reshape(len(x), -1)
    expected = backend.to_numpy(augment(x, backend.generator(3))).reshape(len(x), -1)
    found = OfRows(augment, (2, 7, 9))(rows, backend.generator(3))
    np.testing.assert_array_equal(backend.to_numpy(found), expected)


def test_rows_of_another_length_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"rows of pictures \(1, 2, 3\).*\(7,\)"):
        OfRows(Rotate(3), (1, 2, 3)).check((7,))
    with pytest.raises(ShapeError, match="size"):
        OfRows(Erase(5), (1, 2, 3)).check((6,))


# ---- in a training

AUGMENT = Compose([Rotate(10), Shift(1), Zoom(0.1), Noise(0.05), Erase(2, probability=0.5)])


def examples(n: int = 44, seed: int = 1) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    t = rng.integers(0, 3, n)
    x = rng.random((n, 1, 6, 6)) * 0.3 + (np.arange(6) // 2 == t[:, None])[:, None, None, :]
    return x.astype("float32"), t


def network(dtype: Any = None, **options: Any) -> Network:
    layers = [Convolution(3, 3, pad=1), ReLU(), MaxPooling(2), Dropout(0.2), Affine(3)]
    return Network(layers, (1, 6, 6), dtype=dtype, **options)


def trainer(dtype: Any = None, **options: Any) -> Trainer:
    options = {"epochs": 3, "batch_size": 8, "progress": False, "augment": AUGMENT} | options
    return Trainer(network(dtype), examples(), examples(20, 2), **options)


def arrays(t: Trainer) -> dict[str, Array]:
    return {name: xpdl.to_numpy(a) for name, a in t.network.arrays().items()}


def assert_same_training(one: Trainer, other: Trainer) -> None:
    np.testing.assert_equal(*(what_is_left(t) for t in (one, other)))


def what_is_left(t: Trainer) -> dict[str, Any]:
    return {"losses": t.history.losses, **arrays(t)}


def fitted(**options: Any) -> Trainer:
    t = trainer(**options)
    t.fit()
    return t


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_augmented_training_is_one_of_its_seed(backend: Backend, dtype: str) -> None:
    first = fitted(dtype=dtype, seed=4)
    assert_same_training(first, fitted(dtype=dtype, seed=4))
    assert first.history.losses != fitted(dtype=dtype, seed=5).history.losses
    assert first.history.losses != fitted(dtype=dtype, seed=4, augment=None).history.losses


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_it_is_the_same_captured_and_as_it_stands(
    backend: Backend, monkeypatch: Any, dtype: str
) -> None:
    captured: list[None] = []
    if backend.compiles:
        capture = type(backend).capture  # type: ignore[attr-defined]
        monkeypatch.setattr(
            type(backend), "capture", lambda *args: captured.append(None) or capture(*args)
        )
    replayed = fitted(dtype=dtype)
    # Once a training: the step on a whole batch, and on what is left over.
    assert len(captured) == (2 if backend.compiles else 0)
    both = replayed, fitted(dtype=dtype, capture=False)
    assert_as_promised(backend, *map(what_is_left, both), dtype)
    assert len(captured) == (2 if backend.compiles else 0)


def test_pictures_in_another_memory_order_are_captured_too(backend: Backend) -> None:
    # What is captured reads a copy of the batch; sums round as the memory's order has it.
    def turned(x: Any, generator: Any) -> Any:
        return Noise(0.1)(x, generator).transpose(0, 1, 3, 2)

    def trained(capture: bool) -> Trainer:
        first = Network([BatchNormalization(), Affine(3)], (1, 6, 6))
        t = Trainer(
            *(first, examples(400)), epochs=2, progress=False, augment=turned, capture=capture
        )
        t.fit()
        return t

    assert_as_promised(backend, *(what_is_left(trained(capture)) for capture in (True, False)))


def test_data_that_stays_on_the_host_is_augmented_too(monkeypatch: Any) -> None:
    with xpdl.use_backend("strict") as strict:
        resident = fitted()
        monkeypatch.setattr(type(strict), "has_room_for", lambda self, size: False)
        with pytest.warns(UserWarning, match="do not fit on the device"):
            assert_same_training(resident, fitted())


def test_an_augmented_training_goes_on_as_if_never_interrupted(
    backend: Backend, tmp_path: Path
) -> None:
    def interrupt(t: Trainer, epoch: Any) -> None:
        if epoch.number == 1:
            raise KeyboardInterrupt

    path = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        trainer(checkpoint=path, epochs=4, callbacks=[interrupt]).fit()
    assert_same_training(fitted(checkpoint=path, epochs=4), fitted(epochs=4))


def test_each_epoch_draws_numbers_of_its_own(backend: Backend) -> None:
    drawn: list[list[float]] = []

    def noting(x: Any, generator: Any) -> Any:
        drawn.append(backend.to_numpy(generator.random((3,), np.float32)).tolist())
        return x

    fitted(augment=noting, seed=7, capture=False)
    per_epoch = -(-44 // 8)
    expected = []
    for epoch in range(3):
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([4, 7, epoch])))
        expected += [rng.random(3, np.float32).tolist() for _ in range(per_epoch)]
    assert drawn == expected
    assert len({tuple(numbers) for numbers in drawn}) == 3 * per_epoch


def test_only_batches_of_training_data_are_augmented(backend: Backend) -> None:
    shown: list[Array] = []

    def blackened(x: Any, generator: Any) -> Any:
        shown.append(backend.to_numpy(x))
        x *= 0  # it may: the batch is a copy
        return x

    t = fitted(augment=blackened, epochs=2)
    for epoch in range(2):
        seen = np.concatenate(shown[6 * epoch : 6 * epoch + 6])
        assert sorted(map(bytes, seen)) == sorted(map(bytes, examples()[0]))
    assert len(shown) == 12
    np.testing.assert_array_equal(backend.to_numpy(t.batches.x), examples()[0])
    # Of black pictures only, all scores are the bias; of test pictures they would not be.
    host_x, host_t = examples(20, 2)
    x, labels = backend.asarray(host_x), backend.asarray(host_t)
    assert t.test is not None
    np.testing.assert_array_equal(backend.to_numpy(t.test.x), host_x)
    assert t.history.epochs[-1].test_accuracy == t.network.accuracy(x, labels)
    scores = backend.to_numpy(t.network.predict(x))
    assert scores.std(axis=0).min() > 0


def test_bytes_are_floats_before_they_are_augmented(backend: Backend) -> None:
    x, t = examples()
    pixels = np.round(x * 190).astype("uint8")

    def noting(batch: Any, generator: Any) -> Any:
        assert batch.dtype == np.float32
        assert 0.9 < batch.max() <= 1
        return AUGMENT(batch, generator)

    with xpdl.use_backend("numpy"):
        one = Trainer(
            network(normalize=Normalize(255)), (pixels, t), augment=noting, epochs=1, progress=False
        )
        other = Trainer(
            network(),
            (pixels.astype("float32") / np.float32(255), t),
            augment=AUGMENT,
            epochs=1,
            progress=False,
        )
        assert one.fit().losses == other.fit().losses


def test_it_learns_from_augmented_pictures(backend: Backend) -> None:
    light = Compose([Shift(1), Noise(0.05)])
    t = fitted(augment=light, epochs=12, optimizer=xpdl.optimizers.Adam(0.03))
    accuracy = t.history.epochs[-1].test_accuracy
    assert accuracy is not None
    assert accuracy > 0.6  # a third by chance


def test_a_checkpoint_tells_augmentations_apart(tmp_path: Path) -> None:
    def plain(x: Any, generator: Any) -> Any:
        return x

    for name, then, now, words in (
        ("other", Rotate(10), Rotate(20), r"augment \(then 'Rotate\(degrees=10.0.*now.*20.0"),
        ("none now", Rotate(10), None, r"augment \(then 'Rotate.*now None\)"),
        ("none then", None, Rotate(10), r"augment \(then None, now 'Rotate"),
        ("a function", plain, Rotate(10), r"augment \(then '.*plain', now 'Rotate"),
    ):
        path = tmp_path / name
        fitted(checkpoint=path, augment=then, epochs=1)
        with pytest.raises(ArgumentError, match=words):
            trainer(checkpoint=path, augment=now, epochs=1).fit()
        again = trainer(checkpoint=path, augment=then, epochs=1)
        assert len(again.fit().losses) == 6


def test_a_checkpoint_without_augmentation_says_nothing_of_it(tmp_path: Path) -> None:
    told = {}
    for name, augment in (("without", None), ("with", AUGMENT)):
        fitted(checkpoint=tmp_path / name, augment=augment, epochs=1)
        told[name] = files.read_tensors(tmp_path / name)[1]["settings"]["augment"]
    assert told["without"] is None
    assert eval(told["with"], vars(augmentation)) == AUGMENT


def test_a_flat_network_is_refused_with_a_word() -> None:
    flat = Network([Affine(3)], (36,))
    x, t = examples()
    data = (x.reshape(-1, 36), t)
    with pytest.raises(ArgumentError, match=r"augmentation wants pictures \(C, H, W\).*\(36,\)"):
        Trainer(flat, data, augment=AUGMENT, progress=False)

    def noisy(batch: Any, generator: Any) -> Any:  # a function may do what it likes
        return batch + generator.random(batch.shape, np.float32)

    assert Trainer(flat, data, augment=noisy, epochs=1, progress=False).fit().losses


@pytest.mark.parametrize(
    ("augment", "words"),
    [
        (Rotate, r"augment must be an augmentation such as Rotate\(10\).*class"),
        ("rotate", "augment must be.*'rotate'"),
        (Crop(9), r"\(9, 9\) is larger than the pictures, \(6, 6\)"),
    ],
)
def test_a_trainer_refuses_what_does_not_fit(augment: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        trainer(augment=augment)
