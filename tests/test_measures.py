"""The measures against loops: over the whole set, whatever the batches were."""

from __future__ import annotations

import math

import numpy as np
import pytest

from xpdl.measures import (
    Accuracy,
    LabelScores,
    Measure,
    PixelScores,
    RegressionScores,
    YesNoAccuracy,
)

K, IGNORED = 3, 9


def values(backend, measure, x, t, weights=None, sizes=(1, 4, 2)):
    """Return what a measure says of it all, from batches of several sizes."""
    total = measure.zeros(x.shape[1:], backend)
    start = 0
    for size in (*sizes, len(x)):
        part = slice(start, start + size)
        start += size
        if part.start >= len(x):
            break
        given = None if weights is None else backend.asarray(weights[part])
        sums = measure.sums(backend.asarray(x[part]), backend.asarray(t[part]), given)
        assert sums.dtype == total.dtype == np.float64
        assert sums.shape == total.shape
        total += sums
    found = measure.values(backend.to_numpy(total))
    assert tuple(found) == measure.names
    assert all(type(value) is float for value in found.values())
    return found


def last(a):
    return np.moveaxis(a, 1, -1) if a.ndim == 4 else a


def weighed(n, weighted):
    return np.linspace(0, 3, n).astype("float32") if weighted else None


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignored", [None, IGNORED, 1])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("shape", [(9, K), (9, 4, K)])
def test_accuracy(backend, rng, shape, dtype, ignored, weighted):
    x = rng.standard_normal(shape).astype(dtype)
    t = rng.integers(0, K, shape[:-1]).astype("uint8")
    if ignored is not None:
        t.reshape(-1)[1:4] = ignored
    weights = weighed(9, weighted)
    hits = count = 0.0
    for place in np.ndindex(t.shape):
        if t[place] != ignored:
            w = 1.0 if weights is None else float(weights[place[0]])
            hits, count = hits + w * (x[place].argmax() == t[place]), count + w
    found = values(backend, Accuracy(ignored), x, t, weights)
    assert found["accuracy"] == pytest.approx(hits / count, rel=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_one_hot_targets_are_class_numbers(backend, rng, weighted):
    x, t = rng.standard_normal((9, K)).astype("float32"), rng.integers(0, K, 9)
    weights = weighed(9, weighted)
    one_hot = np.eye(K, dtype="float32")[t]
    assert values(backend, Accuracy(), x, t, weights) == values(
        backend, Accuracy(), x, one_hot, weights
    )
    pictures = x.reshape(9, K, 1, 1)
    assert values(backend, PixelScores(), pictures, t.reshape(9, 1, 1), weights) == values(
        backend, PixelScores(), pictures, one_hot.reshape(9, K, 1, 1), weights
    )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignored", [None, -1])
def test_yes_or_no(backend, rng, ignored, weighted):
    x = rng.standard_normal((9, 1)).astype("float32")
    t = rng.integers(0 if ignored is None else -1, 2, (9, 1))
    weights = weighed(9, weighted)
    each = (np.ones(9) if weights is None else weights) * (t[:, 0] != ignored)
    expected = (each * ((x > 0) == (t == 1))[:, 0]).sum() / each.sum()
    found = values(backend, YesNoAccuracy(ignored), x, t, weights)
    assert found["accuracy"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignored", [None, -1])
@pytest.mark.parametrize("shape", [(9, 3), (9, 1, 2, 2)])
def test_labels(backend, rng, shape, ignored, weighted):
    x = rng.standard_normal(shape).astype("float32")
    t = rng.integers(0 if ignored is None else -1, 2, shape)
    if ignored is not None:
        t[3] = ignored  # asks for nothing
    weights = weighed(9, weighted)
    true_yes = false_yes = false_no = exact = samples = 0.0
    for n in range(9):
        w = 1.0 if weights is None else float(weights[n])
        asked = [(a > 0, b == 1) for a, b in zip(x[n].flat, t[n].flat, strict=True) if b != ignored]
        true_yes += w * sum(a and b for a, b in asked)
        false_yes += w * sum(a and not b for a, b in asked)
        false_no += w * sum(b and not a for a, b in asked)
        exact += w * (bool(asked) and all(a == b for a, b in asked))
        samples += w * bool(asked)
    found = values(backend, LabelScores(ignored), x, t, weights)
    assert found["exact match"] == pytest.approx(exact / samples, rel=1e-6)
    f1 = 2 * true_yes / (2 * true_yes + false_yes + false_no)
    assert found["F1"] == pytest.approx(f1, rel=1e-6)


def test_where_there_is_no_label_and_none_is_seen_all_is_right(backend):
    x, t = np.full((2, 3), -1, "float32"), np.zeros((2, 3), int)
    assert values(backend, LabelScores(), x, t) == {"F1": 1.0, "exact match": 1.0}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignored", [None, IGNORED, 1])
def test_pixels(backend, rng, ignored, weighted):
    x = rng.standard_normal((9, K, 2, 3)).astype("float32")
    t = rng.integers(0, K, (9, 2, 3))
    if ignored is not None:
        t[:, 0, :2] = ignored
    weights = weighed(9, weighted)
    each = np.ones((9, 2, 3)) * (1 if weights is None else weights[:, None, None])
    each *= t != ignored
    seen = x.argmax(axis=1)
    shares = []
    for k in range(K):
        either = (each * ((seen == k) | (t == k))).sum()
        if either:
            shares.append((each * ((seen == k) & (t == k))).sum() / either)
    found = values(backend, PixelScores(ignored), x, t, weights)
    assert found["mean IoU"] == pytest.approx(np.mean(shares), rel=1e-6)
    accuracy = (each * (seen == t)).sum() / each.sum()
    assert found["pixel accuracy"] == pytest.approx(accuracy, rel=1e-6)


def test_a_class_that_is_nowhere_is_left_out_of_the_mean(backend):
    x = np.zeros((2, 3, 2, 2), "float32")
    x[:, 1] = 1
    t = np.ones((2, 2, 2), int)
    t[0, 0, 0] = 0
    assert values(backend, PixelScores(), x, t)["mean IoU"] == pytest.approx((0 + 7 / 8) / 2)


@pytest.mark.parametrize(
    "weights", [None, [1.0, 2.0, 0.5, 0.0, 3.0], [True, True, False, True, True]]
)
def test_the_confusion_matrix_has_a_row_for_each_class_of_the_targets(backend, weights):
    x = backend.asarray(np.eye(3)[[0, 1, 1, 2, 0]], "float32")
    t = backend.asarray(np.array([0, 1, 2, 2, 7], "uint8"))  # 7 is none
    found = backend.confusion(x, t, None if weights is None else backend.asarray(np.array(weights)))
    assert found.dtype == np.float64
    w = [1.0] * 5 if weights is None else weights
    expected = [[w[0], 0, 0], [0, w[1], 0], [0, w[2], w[3]]]
    np.testing.assert_array_equal(backend.to_numpy(found), expected)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(9, 1), (9, 3), (9, 2, 2, 2)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_regression(backend, rng, dtype, shape, weighted):
    t = (rng.standard_normal(shape) + 3).astype(dtype)
    x = (t + 0.5 * rng.standard_normal(shape)).astype(dtype)
    weights = weighed(9, weighted)
    each = (np.ones(9) if weights is None else weights).astype("float64")
    each = each.reshape(-1, *(1,) * (len(shape) - 1))
    wide = x.astype("float64"), t.astype("float64")
    errors = (each * (wide[0] - wide[1]) ** 2).sum()
    mean = (each * wide[1]).sum(axis=0) / each.sum()
    found = values(backend, RegressionScores(), x, t, weights)
    rmse = math.sqrt(errors / (each.sum() * math.prod(shape[1:])))
    assert found["RMSE"] == pytest.approx(rmse, rel=1e-6)
    spread = (each * (wide[1] - mean) ** 2).sum()
    assert found["R²"] == pytest.approx(1 - errors / spread, rel=1e-5)


@pytest.mark.parametrize(("mean", "error"), [(1e4, 1e-7), (1e6, 1e-3)])
def test_the_spread_is_that_of_targets_far_from_0(backend, rng, mean, error):
    """In float32 all of it would have cancelled."""
    t = (rng.standard_normal((20_000, 1)) + mean).astype("float32")
    x = t + np.float32(0.25)
    spread = ((t.astype("float64") - t.astype("float64").mean()) ** 2).sum()
    expected = 1 - ((x.astype("float64") - t) ** 2).sum() / spread
    found = values(backend, RegressionScores(), x, t, sizes=(3000,) * 6)
    assert found["R²"] == pytest.approx(expected, abs=error)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e4])
def test_targets_that_do_not_spread_have_no_share_of_it(backend, value):
    t = np.full((30, 2), value, "float32")
    found = values(backend, RegressionScores(), t + np.float32(1), t)
    assert found["RMSE"] == pytest.approx(1, rel=1e-3)
    assert math.isnan(found["R²"])


def test_counts_are_exact_beyond_what_float32_counts(backend):
    """Ten million images of ten thousand pixels would be 10^11."""
    total = Accuracy().zeros((2,), backend)
    total += 1e11
    total += Accuracy().sums(backend.asarray([[1.0, 0.0]], "float32"), backend.asarray([0]))
    np.testing.assert_array_equal(backend.to_numpy(total), [1e11 + 1, 1e11 + 1])


@pytest.mark.parametrize(
    "measure", [Accuracy(), YesNoAccuracy(), LabelScores(), PixelScores(), RegressionScores()]
)
def test_of_nothing_there_is_nothing_to_say(backend, measure):
    found = measure.values(backend.to_numpy(measure.zeros((2, 2, 2), backend)))
    assert tuple(found) == measure.names
    assert all(map(math.isnan, found.values()))


def test_which_end_is_the_best():
    assert not RegressionScores().highest_is_best
    for kind in (Accuracy, YesNoAccuracy, LabelScores, PixelScores):
        assert kind().highest_is_best


def test_a_loss_of_ones_own_may_have_nothing_to_measure(backend, rng):
    x = rng.standard_normal((4, 2))
    assert values(backend, Measure(), x, x) == {}
