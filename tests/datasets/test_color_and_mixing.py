"""Colours changed, parts cut out and pictures mixed: against formulas in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from xpdl import Network, Trainer
from xpdl.backends import Backend, get_backend
from xpdl.datasets import (
    Batches,
    ColorJitter,
    Compose,
    Cutout,
    Mixup,
    Noise,
    OfRows,
    Shift,
    make_augmentation,
)
from xpdl.errors import ArgumentError, DTypeError, ShapeError
from xpdl.layers import Affine, Flatten
from xpdl.optimizers import SGD

LUMA = np.array([0.299, 0.587, 0.114])


def pictures(n: int = 5, shape: Any = (3, 6, 7), dtype: str = "float32") -> Any:
    return np.random.default_rng(2).random((n, *shape)).astype(dtype)


def changed(augment: Any, x: Any, backend: Backend | None = None, seed: int = 3) -> Any:
    backend = backend or get_backend()
    return backend.to_numpy(augment(backend.asarray(x), backend.generator(seed)))


def grey(x: Any) -> Any:
    return np.einsum("c,nchw->nhw", LUMA, x.astype(float))[:, None]


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"brightness": (0.5, 0.5)}, lambda x: 0.5 * x),
        ({"contrast": (2, 2)}, lambda x: 2 * x - grey(x).mean(axis=(2, 3), keepdims=True)),
        ({"saturation": (0, 0)}, lambda x: np.repeat(grey(x), 3, axis=1)),
        ({"saturation": (1.5, 1.5)}, lambda x: 1.5 * x - 0.5 * grey(x)),
        ({"hue": (120, 120)}, lambda x: x[:, [2, 0, 1]]),
        ({"hue": (-240, -240)}, lambda x: x[:, [2, 0, 1]]),
        ({"hue": (360, 360)}, lambda x: x),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_each_change_of_colour_is_its_formula(backend: Backend, settings: Any, wanted: Any) -> None:
    x = pictures()
    got = changed(ColorJitter(**settings), x, backend)
    np.testing.assert_allclose(got, wanted(x.astype(float)), atol=2e-6)


def test_they_are_applied_in_order(backend: Backend) -> None:
    x = pictures()
    fixed = {"brightness": (0.7, 0.7), "contrast": (1.3, 1.3), "saturation": (0.4, 0.4)}
    together = changed(ColorJitter(**fixed, hue=(50, 50)), x, backend)
    for name, value in (*fixed.items(), ("hue", (50, 50))):
        x = changed(ColorJitter(**{name: value}), x, backend)
    np.testing.assert_allclose(together, x, atol=3e-6)


def test_greys_stay_grey_whatever_the_hue() -> None:
    x = np.repeat(pictures(4, (1, 5, 5)), 3, axis=1)
    np.testing.assert_allclose(changed(ColorJitter(hue=180, saturation=0.9), x), x, atol=1e-6)


def test_every_picture_has_colours_of_its_own() -> None:
    x = np.repeat(pictures(1), 300, axis=0)
    y = changed(ColorJitter(brightness=0.2), x)
    factors = (y / x)[:, 0, 0, 0]
    assert 0.8 <= factors.min() < 0.82
    assert 1.18 < factors.max() <= 1.2 + 1e-6


def test_without_colours_there_is_no_hue() -> None:
    x = pictures(2, (1, 4, 4))
    for settings in ({"hue": 10}, {"saturation": 0.5}):
        with pytest.raises(ShapeError, match=r"red, green and blue, got \(1, 4, 4\)"):
            changed(ColorJitter(**settings), x)
    assert changed(ColorJitter(0.5, 0.5), x).shape == x.shape


def test_a_cutout_is_about_any_pixel(backend: Backend) -> None:
    x = np.ones((4000, 1, 5, 6), "float32")
    hidden = 1 - changed(Cutout((3, 2)), x, backend)[:, 0]
    # Pixel (i, j) is hidden by the windows whose centres are near it, of 5 x 6 equally likely.
    rows = np.array([sum(c - 1 <= i < c + 2 for c in range(5)) for i in range(5)])
    columns = np.array([sum(c - 1 <= j < c + 1 for c in range(6)) for j in range(6)])
    np.testing.assert_allclose(hidden.mean(axis=0), np.outer(rows, columns) / 30, atol=0.03)
    half = changed(Cutout(50, probability=0.5, fill=7), x, backend).reshape(4000, -1)
    assert set(np.unique(half)) == {1.0, 7.0}
    assert 0.46 < (half == 7).all(axis=1).mean() < 0.54


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1, 3, 100])
@pytest.mark.usefixtures("on_numpy")
def test_the_shares_of_a_mixture_are_beta_distributed(alpha: float) -> None:
    backend = get_backend()
    x = backend.asarray(np.zeros((100_000, 1, 1, 1), "float32"))
    x[::2] = 1  # so that each picture's neighbour is the other
    got, _ = Mixup(alpha).with_targets(x, backend.asarray(np.ones((100_000, 1), "float32")),
                                       backend.generator(1))  # fmt: skip
    share = np.where(np.arange(100_000) % 2 == 0, got.ravel(), 1 - got.ravel())
    wanted = np.random.default_rng(0).beta(alpha, alpha, 100_000)
    wanted = np.maximum(wanted, 1 - wanted)
    at = np.linspace(0.01, 0.99, 50)
    np.testing.assert_allclose(np.quantile(share, at), np.quantile(wanted, at), atol=0.01)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_targets_are_mixed_as_the_pictures_are(backend: Backend, dtype: str) -> None:
    x, t = pictures(6, dtype=dtype), np.eye(6, 8, dtype="float32")
    given = backend.asarray(x), backend.asarray(t)
    mixed, shares = map(backend.to_numpy, Mixup(1).with_targets(*given, backend.generator(4)))
    assert (mixed.dtype, shares.dtype) == (x.dtype, t.dtype)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
    assert (shares.argmax(axis=1) == np.arange(6)).all()
    assert len(set(shares.max(axis=1))) == 6
    whole = np.tensordot(shares[:, :6], x.astype(float), 1)
    np.testing.assert_allclose(mixed, whole, atol=2e-3 if dtype == "float16" else 1e-6)
    np.testing.assert_array_equal(backend.to_numpy(given[0]), x)


def test_a_mixture_among_other_changes(backend: Backend) -> None:
    x, t = pictures(4), np.eye(4, dtype="float32")
    chain = Compose([Shift((1, 1)), Mixup(1), Noise(0.1)])
    got = chain.with_targets(backend.asarray(x), backend.asarray(t), backend.generator(5))
    generator = backend.generator(5)
    y = Shift((1, 1))(backend.asarray(x), generator)
    y, shares = Mixup(1).with_targets(y, backend.asarray(t), generator)
    for a, b in zip(got, (Noise(0.1)(y, generator), shares), strict=True):
        np.testing.assert_array_equal(backend.to_numpy(a), backend.to_numpy(b))
    rows = OfRows(chain, x.shape[1:]).with_targets(
        backend.asarray(x.reshape(4, -1)), backend.asarray(t), backend.generator(5)
    )
    for a, b in zip(rows, got, strict=True):
        np.testing.assert_array_equal(backend.to_numpy(a).ravel(), backend.to_numpy(b).ravel())


def test_mixed_targets_are_learned_from(backend: Backend) -> None:
    net = Network([Flatten(), Affine(5)], input_shape=(3, 6, 7), seed=1)
    given = backend.asarray(pictures()), backend.asarray(np.eye(5, dtype="float32"))
    x, t = Mixup(1).with_targets(*given, backend.generator(2))
    scores = backend.to_numpy(net.predict(x)).astype(float)
    log_y = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    wanted = -(backend.to_numpy(t) * log_y).sum(axis=1).mean()
    np.testing.assert_allclose(float(backend.to_numpy(net.loss(x, t))), wanted, rtol=1e-5)


def test_what_mixes_nothing_leaves_the_targets() -> None:
    backend = get_backend()
    labels = backend.asarray(np.arange(5))
    x, t = Noise(0.1).with_targets(backend.asarray(pictures()), labels, backend.generator(0))
    assert t is labels
    assert not Compose([Noise(0.1), Shift(1)]).mixes
    assert OfRows(Compose([Noise(0.1), Mixup()]), (3, 6, 7)).mixes
    assert x.shape == (5, 3, 6, 7)


@pytest.mark.usefixtures("on_numpy")
def test_what_cannot_be_mixed_is_said() -> None:
    backend, x = get_backend(), pictures()
    generator = backend.generator(0)
    with pytest.raises(ArgumentError, match="call with_targets"):
        Compose([Noise(0.1), Mixup()])(x, generator)
    with pytest.raises(DTypeError, match="one-hot"):
        Mixup().with_targets(x, np.arange(5), generator)
    with pytest.raises(ShapeError, match="one length, got 5 and 4"):
        Mixup().with_targets(x, np.eye(4, dtype="float32"), generator)
    for alpha in (0, 101, math.nan, "1"):
        with pytest.raises(ArgumentError, match="alpha"):
            Mixup(alpha)  # type: ignore[arg-type]


def test_all_are_made_by_name() -> None:
    made = make_augmentation({"colorjitter": {"hue": 5}, "cutout": 3, "mixup": 0.5})
    assert made == Compose([ColorJitter(hue=5), Cutout(3), Mixup(0.5)])


def test_a_trainer_mixes_its_batches(backend: Backend) -> None:
    x, labels = pictures(8), np.arange(8) % 5
    net = Network([Flatten(), Affine(5)], input_shape=(3, 6, 7), seed=1)
    seen: list[Any] = []

    class Noting(Noise):
        def change(self, x: Any, generator: Any) -> Any:
            seen.append(backend.to_numpy(x))
            return super().change(x, generator)

    trainer = Trainer(
        net, (x, labels), optimizer=SGD(0.1), epochs=2, batch_size=8, progress=False,
        augment=Compose([Mixup(1), Noting(0.1)]), seed=3,
    )  # fmt: skip
    trainer.fit()
    assert len(seen) == 2
    batches = Batches(x, labels, 8, backend=backend, seed=3)
    for epoch, given in enumerate(seen):
        ((there, _),) = batches.epoch(epoch)
        # Each is a mixture of a picture and the one before it.
        whole = backend.to_numpy(there).reshape(8, -1).astype(float)
        before = np.roll(whole, 1, axis=0)
        share = ((given.reshape(8, -1) - before) * (whole - before)).sum(axis=1)
        share /= ((whole - before) ** 2).sum(axis=1)
        assert (share > 0.5 - 1e-5).all()
        np.testing.assert_allclose(
            share[:, None] * whole + (1 - share[:, None]) * before,
            given.reshape(8, -1), atol=1e-5,
        )  # fmt: skip
        assert len(np.unique(share.round(4))) > 4
    assert trainer.history.losses[1] != trainer.history.losses[0]
