"""Probabilities averaged over shifted pictures."""

from __future__ import annotations

import math

import numpy as np
import pytest

import xpdl
from xpdl import Network
from xpdl.errors import ArgumentError, BackendMismatchError, NonFiniteError, ShapeError
from xpdl.layers import Affine, BatchNormalization, Convolution, ReLU
from xpdl.losses import IdentityWithLoss
from xpdl.tuning import Ensemble, ShiftAverage


def net(seed=0, shape=(2, 6, 5), **options):
    layers = [Convolution(3, 3), BatchNormalization(), ReLU(), Affine(4)]
    network = Network(layers, shape, seed=seed, **options)
    network.params["affine1.W"][...] *= 3  # far from even
    return network


def pictures(backend, n=11, dtype="float32"):
    rng = np.random.default_rng(1)
    return backend.asarray(rng.standard_normal((n, 2, 6, 5)), dtype)


def shifted(x, down, right, fill=0.0):
    """Move each pixel by itself."""
    y = np.full_like(x, fill)
    h, w = x.shape[2:]
    for i in range(h):
        for j in range(w):
            if 0 <= i + down < h and 0 <= j + right < w:
                y[:, :, i + down, j + right] = x[:, :, i, j]
    return y


def probabilities(scores):
    e = np.exp(scores.astype("float64") - scores.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def expected(backend, members, x, k, fill=0.0):
    host = backend.to_numpy(x)
    each = [
        probabilities(backend.to_numpy(member.predict(backend.asarray(shifted(host, i, j, fill)))))
        for member in members
        for i in (-k, 0, k)
        for j in (-k, 0, k)
    ]
    assert np.ptp([p[0, 0] for p in each]) > 1e-3  # they do differ
    return np.mean(each, axis=0)


@pytest.mark.parametrize(("k", "fill"), [(1, 0.0), (2, 0.0), (4, -1.5)])
def test_it_is_the_mean_over_nine_places(backend, k, fill):
    network, x = net(), pictures(backend)
    before = backend.to_numpy(x)
    average = ShiftAverage(network, k, fill=fill)
    y = average.predict(x, batch_size=4)
    assert backend.owns(y)
    assert y.shape == (11, 4)
    np.testing.assert_allclose(
        backend.to_numpy(y), expected(backend, [network], x, k, fill), rtol=0, atol=2e-6
    )
    np.testing.assert_array_equal(backend.to_numpy(x), before)
    assert len(set(average.shifts)) == 9
    assert average.shifts[0] == (0, 0)


@pytest.mark.parametrize("k", [0, 1])
def test_mirrored_it_is_the_mean_over_mirror_images_too(backend, k):
    network, x = net(), pictures(backend)
    average = ShiftAverage(network, k, fill=-0.5, mirrored=True)
    host = backend.to_numpy(x)
    looks = [
        probabilities(backend.to_numpy(network.predict(backend.asarray(look))))
        for i in {0, k, -k}
        for j in {0, k, -k}
        for look in (shifted(host, i, j, -0.5), shifted(host, i, j, -0.5)[..., ::-1].copy())
    ]
    assert len(looks) == (18 if k else 2)
    np.testing.assert_allclose(
        backend.to_numpy(average.predict(x)), np.mean(looks, axis=0), rtol=0, atol=2e-6
    )
    mirror = backend.to_numpy(average.predict(backend.asarray(host[..., ::-1].copy())))
    np.testing.assert_allclose(mirror, backend.to_numpy(average.predict(x)), rtol=0, atol=2e-6)
    assert repr(average).endswith(f", shift={k}, fill=-0.5, mirrored=True)")


@pytest.mark.parametrize(
    ("dtypes", "wide", "tolerance"),
    [
        (["float32"] * 3, "float32", 2e-6),
        (["float16"] * 2, "float32", 2e-6),
        (["float16", "float64"], "float64", 1e-12),
    ],
)
def test_of_an_ensemble_it_is_the_mean_over_members_too(backend, dtypes, wide, tolerance):
    members, x = [net(i, dtype=dtype) for i, dtype in enumerate(dtypes)], pictures(backend)
    y = ShiftAverage(Ensemble(members)).predict(x)
    assert y.dtype == wide
    np.testing.assert_allclose(
        backend.to_numpy(y), expected(backend, members, x, 1), rtol=0, atol=tolerance
    )


def test_batches_change_nothing_and_are_no_larger_than_asked(backend, monkeypatch):
    network, x = net(dtype="float64"), pictures(backend, 23, "float64")
    average = ShiftAverage(network)
    whole = backend.to_numpy(average.predict(x, batch_size=23))
    sizes = []
    predict = Network.predict
    monkeypatch.setattr(
        Network, "predict", lambda self, x, **o: sizes.append(len(x)) or predict(self, x, **o)
    )
    np.testing.assert_allclose(
        backend.to_numpy(average.predict(x, batch_size=10)), whole, rtol=1e-12
    )
    assert sizes == [10] * 9 + [10] * 9 + [3] * 9


def test_bytes_are_pictures_as_they_are_to_a_network(backend):
    network = net()
    host = np.random.default_rng(2).integers(0, 256, (5, 2, 6, 5)).astype("uint8")
    y = ShiftAverage(network).predict(backend.asarray(host))
    x = backend.asarray(host.astype("float32"))
    np.testing.assert_allclose(
        backend.to_numpy(y), backend.to_numpy(ShiftAverage(network).predict(x)), atol=1e-6
    )


def test_nothing_is_read_on_the_way():
    with xpdl.use_backend("strict") as strict:
        average, x = ShiftAverage(net()), pictures(strict, 30)
        before = strict.transfers.to_host
        average.predict(x, batch_size=10)
        assert strict.transfers.to_host == before


def test_accuracy_is_the_share_of_most_probable_classes(backend):
    network, x = net(), pictures(backend, 40)
    t = np.random.default_rng(3).integers(0, 4, 40)
    average = ShiftAverage(network)
    best = expected(backend, [network], x, 1).argmax(axis=1)
    share = (best == t).mean()
    assert 0 < share < 1
    assert (best != backend.to_numpy(network.predict(x)).argmax(axis=1)).any()
    assert average.accuracy(x, backend.asarray(t), batch_size=7) == share
    assert average.accuracy(x, backend.asarray(np.eye(4, dtype="f4")[t])) == share
    assert average.accuracy(backend.to_numpy(x).tolist(), t.tolist()) == share


def test_a_picture_at_the_edge_is_seen_where_it_was_learnt(backend):
    """A network that answers only to a bright pixel in the middle: its neighbours count a ninth."""
    network = Network([Affine(2)], (1, 3, 3))
    network.params["affine1.W"] = 0.0
    network.params["affine1.W"][4, 1] = 2.0
    x = np.zeros((3, 1, 3, 3), "float32")
    x[0, 0, 1, 1] = x[1, 0, 0, 2] = 1  # the third is dark
    y = backend.to_numpy(ShiftAverage(network).predict(backend.asarray(x)))
    lit = 1 / (1 + math.exp(-2))
    ninth = (lit + 8 * 0.5) / 9
    np.testing.assert_allclose(y[:, 1], [ninth, ninth, 0.5], rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "words"),
    [
        (("network",), {}, ArgumentError, "model must be a Network or an Ensemble, got 'network'"),
        ((lambda: [net()],), {}, ArgumentError, "model must be"),
        ((net, 0), {}, ArgumentError, "shift must be an int of at least 1, got 0"),
        ((net, 1.0), {}, ArgumentError, r"shift must be an int of at least 1, got 1\.0"),
        ((net, -1), {"mirrored": True}, ArgumentError, "shift must be an int of at least 0"),
        ((net,), {"mirrored": "yes"}, ArgumentError, "mirrored must be True or False, got 'yes'"),
        ((net, 5), {}, ShapeError, "shift must be smaller than the picture, 6 x 5, got 5"),
        ((net,), {"fill": math.nan}, ArgumentError, "fill must be a finite number"),
        ((net,), {"fill": -math.inf}, ArgumentError, "fill must be a finite number"),
        ((lambda: Network([Affine(3)], (784,)),), {}, ShapeError, r"\(784,\); only pictures"),
        (
            (lambda: Network([Affine(3)], (1, 4, 4), loss=IdentityWithLoss()),), {},
            ArgumentError, "regression",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_averaged(arguments, options, kind, words):
    model, *rest = arguments
    with pytest.raises(kind, match=words):
        ShiftAverage(model() if callable(model) else model, *rest, **options)


@pytest.mark.parametrize(
    ("x", "kind", "words"),
    [
        (np.zeros((3, 2, 5, 6), "f4"), ShapeError, r"x must be \(N, 2, 6, 5\)"),
        (np.zeros((2, 6, 5), "f4"), ShapeError, "x must be"),
        (np.zeros((0, 2, 6, 5), "f4"), ArgumentError, "x is empty"),
        (np.full((1, 2, 6, 5), np.nan), NonFiniteError, "NaN"),
    ],
)
def test_bad_pictures(x, kind, words):
    with xpdl.use_backend("numpy"):
        average = ShiftAverage(net())
        with pytest.raises(kind, match=words):
            average.predict(x)
        with pytest.raises(ArgumentError, match="batch_size"):
            average.predict(np.zeros((1, 2, 6, 5), "f4"), batch_size=0)


def test_arrays_of_another_device_are_refused():
    with xpdl.use_backend("strict") as strict:
        x = pictures(strict)
    with xpdl.use_backend("numpy"):
        average = ShiftAverage(net())
        with pytest.raises(BackendMismatchError):
            average.predict(x)
        with pytest.raises(BackendMismatchError):
            average.accuracy(xpdl.to_numpy(x), strict.asarray(np.zeros(11, int)))
        with pytest.raises(ArgumentError, match="class numbers 0 to 3"):
            average.accuracy(xpdl.to_numpy(x), np.full(11, 4))


def test_its_repr_says_what_it_is():
    assert repr(ShiftAverage(net(), 2)) == f"ShiftAverage({net()!r}, shift=2, fill=0)"
