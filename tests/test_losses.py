"""The losses against loops in float64: shapes, weights, ignored targets, and what is refused."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest

from xpdl.errors import ArgumentError, DTypeError, NonFiniteError, NotReadyError, ShapeError
from xpdl.loss_checks import check_weights
from xpdl.losses import (
    HuberWithLoss,
    IdentityWithLoss,
    Loss,
    SigmoidWithLoss,
    SoftmaxWithLoss,
    loss_from_config,
)
from xpdl.measures import Measure

K, IGNORED = 4, 255


def slopes(f, x, h=1e-5):
    """Return df/dx by central differences."""
    gradient = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        above, below = x.copy(), x.copy()
        above[i] += h
        below[i] -= h
        gradient[i] = (f(above) - f(below)) / (2 * h)
    return gradient


def check(backend, loss, formula, x, t, weights=None, rtol=1e-12):
    """See that a loss is ``formula(x)``, a sum and its weight, forward and backward; return it."""
    total, weight = formula(x)
    mean = total / weight if weight else 0.0
    there = backend.asarray(x), backend.asarray(t)
    given = None if weights is None else backend.asarray(weights)
    found = loss.forward(*there, given)
    assert found.shape == ()
    assert backend.item(found) == pytest.approx(mean, rel=rtol, abs=1e-12)
    assert host(backend, loss.weight) == pytest.approx(weight, rel=rtol)
    numerical = slopes(lambda x: formula(x)[0], x)
    of_sum = backend.to_numpy(loss.backward(loss.weight))
    np.testing.assert_allclose(of_sum, numerical, rtol=1e-5, atol=1e-7)
    dx = backend.to_numpy(loss.backward())
    np.testing.assert_allclose(dx * weight, of_sum, rtol=1e-10, atol=1e-14)
    for after, before in ((there[0], x), (there[1], t)):
        np.testing.assert_array_equal(backend.to_numpy(after), before, "an argument was changed")
    return found


def host(backend, number):
    return backend.item(number) if backend.owns(number) else number


# ---- softmax ------------------------------------------------------------------------------------

SHAPES = {"rows": (5, K), "words": (3, 2, K), "pixels": (2, K, 2, 3)}
OPTIONS = {
    "plain": {},
    "smooth": {"label_smoothing": 0.2},
    "ignored": {"ignored": IGNORED},
    "a class ignored": {"ignored": 1},
    "class weights": {"class_weights": (0.5, 0.0, 3.0, 1.0)},
    "all": {"label_smoothing": 0.1, "ignored": IGNORED, "class_weights": (0.5, 2.0, 3.0, 1.0)},
}


def last(a):
    """Return the axis of the classes as the last."""
    return np.moveaxis(a, 1, -1) if a.ndim == 4 else a


def cross_entropy(t, weights=None, *, label_smoothing=0.0, ignored=None, class_weights=(1.0,) * K):
    """Return the formula of one target after the other, for `check`."""
    numbers = t.dtype.kind in "iu"

    def formula(x):
        scores, total, weight = last(x), 0.0, 0.0
        for place in np.ndindex(scores.shape[:-1]):
            target = t[place] if numbers else last(t)[place]
            if numbers and target == ignored:
                continue
            one = np.eye(K)[target] if numbers else target
            y = np.exp(scores[place]) / np.exp(scores[place]).sum()
            smooth = (1 - label_smoothing) * one + label_smoothing / K
            counts = (1.0 if weights is None else weights[place[0]]) * np.array(class_weights)
            total -= (counts * smooth * np.log(y)).sum()
            weight += (counts * one).sum()
        return total, weight

    return formula


def labels(rng, shape, ignored=None):
    t = rng.integers(0, K, last(np.empty(shape)).shape[:-1]).astype("uint8")
    if ignored is not None:
        t.reshape(-1)[:2] = ignored
    return t


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_softmax_of_class_numbers(backend, rng, shape, options, weighted):
    given, shape = OPTIONS[options], SHAPES[shape]
    x, t = 2 * rng.standard_normal(shape), labels(rng, shape, given.get("ignored"))
    weights = np.linspace(0, 2, shape[0]) if weighted else None
    loss = SoftmaxWithLoss(**given)
    check(backend, loss, cross_entropy(t, weights, **given), x, t, weights)


@pytest.mark.parametrize("options", ["plain", "smooth", "class weights"])
@pytest.mark.parametrize("shape", SHAPES)
def test_softmax_of_distributions_that_need_not_sum_to_1(backend, rng, shape, options):
    given, shape = OPTIONS[options], SHAPES[shape]
    x, t = rng.standard_normal(shape), 2 * rng.random(shape)
    loss, formula = SoftmaxWithLoss(**given), cross_entropy(t, **given)
    if "class_weights" not in given:  # such sums are of targets that weigh 1 each

        def formula(x, whole=formula):
            return whole(x)[0], x.size / K

    check(backend, loss, formula, x, t)


def test_a_target_of_3_pulls_as_hard_as_three():
    loss = SoftmaxWithLoss()
    loss.forward(np.zeros((1, 2)), np.array([[3.0, 0.0]]))
    np.testing.assert_allclose(loss.backward(), [[-1.5, 1.5]])


@pytest.mark.parametrize("kind", [SoftmaxWithLoss, SigmoidWithLoss])
def test_where_all_is_ignored_nothing_is_learnt(backend, kind):
    loss = kind(ignored=-1)
    x = backend.asarray([[1.0, 2.0]] * 2, "float32")
    t = np.full(2 if kind is SoftmaxWithLoss else (2, 2), -1)
    assert backend.item(loss.forward(x, backend.asarray(t))) == 0.0
    assert host(backend, loss.weight) == 0
    np.testing.assert_array_equal(backend.to_numpy(loss.backward()), np.zeros((2, 2)))


@pytest.mark.parametrize("kind", [SoftmaxWithLoss, SigmoidWithLoss, IdentityWithLoss])
def test_where_no_sample_counts_nothing_is_learnt(backend, kind):
    x = backend.asarray([[1.0, 2.0]] * 2, "float32")
    t = backend.asarray(np.zeros(2, int) if kind is SoftmaxWithLoss else np.zeros((2, 2)), None)
    loss = kind()
    assert backend.item(loss.forward(x, t, backend.asarray([0.0, 0.0], "float32"))) == 0.0
    np.testing.assert_array_equal(backend.to_numpy(loss.backward()), np.zeros((2, 2)))


@pytest.mark.parametrize("options", [{}, {"ignored": 9}, {"class_weights": (1, 2, 3, 4)}])
def test_a_class_that_does_not_exist_gives_nan(backend, options):
    x = backend.asarray(np.ones((2, K)), "float32")
    loss = SoftmaxWithLoss(**options).forward(x, backend.asarray(np.array([0, K])))
    assert math.isnan(backend.item(loss))


def test_plain_scores_go_to_one_primitive_as_they_are(backend, rng):
    """Bit for bit, and with no pass over the targets before it or after."""
    x = backend.asarray(rng.standard_normal((6, K)), "float32")
    t = backend.asarray(rng.integers(0, K, 6))
    loss = SoftmaxWithLoss()
    value = loss.forward(x, t)
    expected, y = backend.softmax_with_loss(x, t)
    assert loss.t is t
    assert loss.weight == 6
    assert backend.item(value) == backend.item(expected)
    dx = backend.softmax_with_loss_backward(y, t, 3.0, np.dtype("float32"))
    np.testing.assert_array_equal(backend.to_numpy(loss.backward(3.0)), backend.to_numpy(dx))


@pytest.mark.parametrize("shape", SHAPES)
def test_softmax_answers_with_classes(backend, rng, shape):
    x = rng.standard_normal(SHAPES[shape])
    found = backend.to_numpy(SoftmaxWithLoss().answers(backend.asarray(x)))
    np.testing.assert_array_equal(found, last(x).argmax(axis=-1))


# ---- class weights ------------------------------------------------------------------------------


@pytest.mark.parametrize("one_hot", [False, True])
def test_balanced_weights_give_all_classes_the_same_say(backend, one_hot):
    t = np.array([0, 0, 0, 0, 0, 1, 2, 2])
    loss = SoftmaxWithLoss(class_weights="balanced")
    loss.plan((3,))
    with pytest.raises(NotReadyError, match=r"balance\(t\)"):
        loss.forward(backend.asarray(np.zeros((8, 3)), "float32"), backend.asarray(t))
    assert loss.config()["class_weights"] == "balanced"
    loss.balance(backend.asarray(np.eye(3, dtype="float32")[t] if one_hot else t))
    assert loss.class_weights == pytest.approx((8 / 15, 8 / 3, 8 / 6))
    said = loss.config()["class_weights"]
    assert loss_from_config(loss.config()).class_weights == tuple(said)
    loss.balance(backend.asarray(np.array([0, 1, 2])))  # settled once
    assert list(loss.class_weights) == said
    loss.forward(backend.asarray(np.zeros((8, 3)), "float32"), backend.asarray(t))
    assert host(backend, loss.weight) == pytest.approx(8)


def test_balanced_weights_leave_out_what_is_ignored(backend):
    loss = SoftmaxWithLoss(ignored=0, class_weights="balanced")
    loss.plan((3, 2, 2))
    loss.balance(backend.asarray(np.array([[[0, 1], [1, 1]], [[2, 0], [0, 0]]])))
    assert loss.class_weights == pytest.approx((0, 4 / 6, 4 / 2))


def test_balanced_weights_need_every_class():
    loss = SoftmaxWithLoss(class_weights="balanced")
    with pytest.raises(NotReadyError, match="plan"):
        loss.balance(np.array([0, 1]))
    loss.plan((3,))
    with pytest.raises(ArgumentError, match=r"no target of class 1 .* number for each class"):
        loss.balance(np.array([0, 2]))


@pytest.mark.parametrize("bad", [[1, -1], [0, 0], "even", 3, {0: 1.0}, [1, "2"], [math.nan]])
def test_what_are_no_class_weights(bad):
    with pytest.raises(ArgumentError, match="class_weights"):
        SoftmaxWithLoss(class_weights=bad)


# ---- of each output -----------------------------------------------------------------------------


def squares(t, weights, x):
    each = np.ones(len(x)) if weights is None else weights
    return sum(w * 0.5 * ((a - b) ** 2).sum() for w, a, b in zip(each, x, t, strict=True)), sum(
        each
    )


def huber(t, weights, x, delta=0.5):
    each = np.ones(len(x)) if weights is None else weights
    total = 0.0
    for place in np.ndindex(x.shape):
        d = abs(x[place] - t[place])
        total += each[place[0]] * (d * d / 2 if d <= delta else delta * (d - delta / 2))
    return total, sum(each)


def yes_or_no(t, weights, x, ignored=None):
    each = np.ones(len(x)) if weights is None else weights
    total = count = 0.0
    for place in np.ndindex(x.shape):
        if t[place] == ignored:
            continue
        y, w = 1 / (1 + math.exp(-x[place])), each[place[0]]
        total -= w * (t[place] * math.log(y) + (1 - t[place]) * math.log(1 - y))
        count += w
    return total, count


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(5, 1), (4, 3), (3, 2, 2, 2)])
@pytest.mark.parametrize(
    ("loss", "formula"),
    [
        (IdentityWithLoss, squares),
        (lambda: HuberWithLoss(0.5), huber),
        (SigmoidWithLoss, yes_or_no),
    ],
)
def test_losses_of_each_output(backend, rng, loss, formula, shape, weighted):
    x, t = rng.standard_normal(shape), rng.random(shape)
    weights = np.linspace(0, 2, shape[0]) if weighted else None
    check(backend, loss(), lambda x: formula(t, weights, x), x, t, weights)


@pytest.mark.parametrize("weighted", [False, True])
def test_labels_that_are_ignored(backend, rng, weighted):
    x, t = rng.standard_normal((4, 3)), rng.integers(-1, 2, (4, 3)).astype("int8")
    weights = np.linspace(0, 2, 4) if weighted else None
    loss = SigmoidWithLoss(ignored=-1)
    check(backend, loss, lambda x: yes_or_no(t, weights, x, -1), x, t, weights)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_yes_or_no_that_is_sure_does_not_overflow(backend, dtype):
    x = np.array([[6e4], [-6e4], [6e4], [-6e4]], dtype)
    loss = SigmoidWithLoss()
    value = loss.forward(backend.asarray(x), backend.asarray(np.array([1, 0, 0, 1])))
    assert backend.item(value) == pytest.approx(float(abs(x[0, 0])) / 2)
    np.testing.assert_array_equal(
        backend.to_numpy(loss.backward(4.0)), np.array([[0], [0], [1], [-1]])
    )


def test_huber_is_half_the_squared_error_for_a_large_delta(rng):
    x, t = rng.standard_normal((2, 4, 3))
    far, square = HuberWithLoss(1e9), IdentityWithLoss()
    assert far.forward(x, t) == square.forward(x, t)
    np.testing.assert_array_equal(far.backward(), square.backward())


def test_sigmoid_answers_yes_or_no_and_a_regression_with_itself(backend):
    x = backend.asarray(np.array([[0.5, -0.5], [0.0, 7.0]]), "float32")
    np.testing.assert_array_equal(backend.to_numpy(SigmoidWithLoss().answers(x)), [[1, 0], [0, 1]])
    assert IdentityWithLoss().answers(x) is x


# ---- every loss ---------------------------------------------------------------------------------

EVERY = {
    "softmax": (SoftmaxWithLoss, (4, 3), lambda rng: rng.integers(0, 3, 4)),
    "softmax, all options": (
        lambda: SoftmaxWithLoss(0.1, ignored=2, class_weights=[1, 2, 3]),
        (2, 3, 2, 2),
        lambda rng: rng.integers(0, 3, (2, 2, 2)),
    ),
    "soft targets": (SoftmaxWithLoss, (4, 3), lambda rng: rng.dirichlet(np.ones(3), 4)),
    "sigmoid": (SigmoidWithLoss, (4, 3), lambda rng: rng.integers(0, 2, (4, 3))),
    "identity": (IdentityWithLoss, (4, 3), lambda rng: rng.standard_normal((4, 3))),
    "Huber": (HuberWithLoss, (4, 3), lambda rng: rng.standard_normal((4, 3))),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("case", EVERY)
def test_types_never_drift(backend, rng, case, dtype, weighted):
    make, shape, targets = EVERY[case]
    loss, wide = make(), "float64" if dtype == "float64" else "float32"
    t = targets(rng)
    t = backend.asarray(t, wide if t.dtype.kind == "f" else None)
    weights = backend.asarray(np.ones(shape[0]), wide) if weighted else None
    x = rng.standard_normal(shape)
    value = loss.forward(backend.asarray(x, dtype), t, weights)
    dx = loss.backward(2.0)
    assert value.dtype == wide
    assert dx.dtype == dtype
    assert dx.shape == shape
    exact = make()
    expected = exact.forward(backend.asarray(x), t.astype("float64") if t.dtype.kind == "f" else t)
    rtol = 5e-3 if dtype == "float16" else 1e-5
    assert backend.item(value) == pytest.approx(backend.item(expected), rel=rtol)
    np.testing.assert_allclose(
        backend.to_numpy(dx), backend.to_numpy(exact.backward(2.0)), rtol=rtol, atol=2e-3 * rtol
    )


@pytest.mark.parametrize("case", EVERY)
def test_parts_put_together_by_their_weights_are_the_whole(backend, rng, case):
    make, shape, targets = EVERY[case]
    x, t = backend.asarray(rng.standard_normal(shape)), backend.asarray(targets(rng))
    weights = backend.asarray(np.arange(1.0, shape[0] + 1))
    total = weight = 0.0
    gradients = []
    for part in (slice(0, 1), slice(1, None)):
        loss = make()
        mean = backend.item(loss.forward(x[part], t[part], weights[part]))
        total, weight = total + mean * backend.item(loss.weight), weight + backend.item(loss.weight)
        gradients.append(backend.to_numpy(loss.backward(loss.weight)))
    whole = make()
    assert total / weight == pytest.approx(backend.item(whole.forward(x, t, weights)), rel=1e-12)
    np.testing.assert_allclose(
        np.concatenate(gradients) / weight, backend.to_numpy(whole.backward()), rtol=1e-12
    )


@pytest.mark.parametrize("case", EVERY)
def test_a_captured_step_computes_it_anew_each_time(backend, rng, case):
    make, shape, targets = EVERY[case]
    loss = make()
    weights = backend.asarray(np.ones(shape[0]), "float32")

    def step(x, t):
        value = loss.forward(x, t, weights)
        return value, loss.backward(loss.weight), loss.measure.sums(x, t, weights)

    captured = backend.compile_step(step)
    for _ in range(4):
        t = targets(rng)
        t = backend.asarray(t, "float32" if t.dtype.kind == "f" else None)
        x = backend.asarray(rng.standard_normal(shape), "float32")
        found = [backend.to_numpy(a) for a in captured(x, t)]
        for one, other in zip(found, step(x, t), strict=True):
            np.testing.assert_array_equal(one, backend.to_numpy(other))


def test_a_loss_of_ones_own_needs_no_more_than_two_passes():
    class Absolute(Loss):
        def forward(self, x, t, weights=None):
            self.sign = np.sign(x - t)
            return abs(x - t).mean()

        def backward(self, dout=1.0):
            return dout * self.sign / self.sign.size

    try:
        loss, x = loss_from_config({"type": "Absolute"}), np.ones((3, 2))
        loss.plan((2,))
        loss.balance(x)
        assert loss.target(x, 3, (2,)) is x
        assert loss.weight == 1
        assert type(loss.measure) is Measure
        with pytest.raises(ShapeError, match="each of 4 samples"):
            loss.target(x, 4, (2,))
    finally:
        del Loss.classes["Absolute"]


# ---- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss",
    [
        SoftmaxWithLoss(0.1, 255, [1, 2.5]),
        SoftmaxWithLoss(class_weights=np.array([1.0, 2.0])),
        SigmoidWithLoss(ignored=-1),
        HuberWithLoss(2.0),
    ],
)
def test_options_come_back_from_a_file(loss):
    config = json.loads(json.dumps(loss.config()))
    again = loss_from_config(config)
    assert again.config() == loss.config()
    assert len(config) == 1 + sum(getattr(loss, name) not in (None, 0.0) for name in loss.options)
    assert getattr(again.measure, "ignored", None) == getattr(loss, "ignored", None)


# ---- at the door --------------------------------------------------------------------------------

PLANS = {
    "one score": (SoftmaxWithLoss(), (1,), ["SigmoidWithLoss", "IdentityWithLoss", "not 1"]),
    "one channel": (SoftmaxWithLoss(), (1, 4, 4), ["two scores x or more"]),
    "no axes": (SoftmaxWithLoss(), (), ["(N, K, H, W)"]),
    "four axes": (SoftmaxWithLoss(), (3, 2, 2, 2), ["(N, 3, 2, 2, 2)", "Affine or Flatten"]),
    "weights of others": (SoftmaxWithLoss(class_weights=[1, 2]), (3,), ["3 numbers", "got 2"]),
}


@pytest.mark.parametrize("case", PLANS)
def test_outputs_that_do_not_fit_are_refused_when_a_network_is_built(case):
    loss, shape, words = PLANS[case]
    with pytest.raises(ShapeError) as caught:
        loss.plan(shape)
    for word in words:
        assert word in str(caught.value)


def test_measures_follow_the_shape_of_the_outputs():
    names = []
    for loss, shape in (
        (SoftmaxWithLoss(), (3,)),
        (SoftmaxWithLoss(), (5, 3)),
        (SoftmaxWithLoss(ignored=7), (3, 2, 2)),
        (SigmoidWithLoss(), (1,)),
        (SigmoidWithLoss(), (3,)),
        (IdentityWithLoss(), (3, 2)),
        (HuberWithLoss(), (1,)),
    ):
        loss.plan(shape)
        names.append(loss.measure.names)
        assert getattr(loss.measure, "ignored", None) == getattr(loss, "ignored", None)
    assert names == [
        *(("accuracy",), ("accuracy",), ("mean IoU", "pixel accuracy"), ("accuracy",)),
        *(("F1", "exact match"), ("RMSE", "R²"), ("RMSE", "R²")),
    ]


TAKEN = [
    (SoftmaxWithLoss(), np.array([0, 2], "uint8"), (3,)),
    (SoftmaxWithLoss(), np.eye(3)[:2], (3,)),
    (SoftmaxWithLoss(), np.array([[1, 0, 0], [0, 0, 1]], bool), (3,)),
    (SoftmaxWithLoss(), np.full((2, 3), 0.33), (3,)),  # rounded
    (SoftmaxWithLoss(ignored=255), np.full((2, 4), 255, "uint8"), (4, 3)),
    (SoftmaxWithLoss(), np.zeros((2, 4, 4), "int32"), (3, 4, 4)),
    (SigmoidWithLoss(), np.array([[0.0, 1.0], [0.5, 1.0]]), (2,)),
    (SigmoidWithLoss(ignored=-1), np.array([[-1, 1], [0, 1]]), (2,)),
    (IdentityWithLoss(), np.zeros((2, 3, 4, 4), "float16"), (3, 4, 4)),
]


@pytest.mark.parametrize("case", range(len(TAKEN)))
def test_targets_that_fit_are_taken_as_they_are(backend, case):
    loss, t, shape = TAKEN[case]
    there = backend.asarray(t)
    assert loss.target(there, 2, shape) is there


@pytest.mark.parametrize("loss", [SigmoidWithLoss(), IdentityWithLoss(), HuberWithLoss()])
def test_one_number_a_sample_will_do_for_one_output(backend, loss):
    t = backend.asarray(np.array([0.0, 1.0, 1.0]), "float32")
    assert loss.target(t, 3, (1,)).shape == (3, 1)
    x = backend.asarray(np.array([[0.5], [2.0], [-1.0]]), "float32")
    value = backend.item(loss.forward(x, t))
    assert value == backend.item(loss.forward(x, t.reshape(3, 1)))


REFUSED = {
    "a class too high": (SoftmaxWithLoss(), np.array([0, 3]), (3,), ArgumentError, "got 3 at ind"),
    "a class below 0": (SoftmaxWithLoss(ignored=9), np.array([-1, 9]), (3,), ArgumentError, "-1"),
    "a pixel too high": (
        *(SoftmaxWithLoss(), np.array([[[0, 1], [9, 0]]] * 2), (3, 2, 2), ArgumentError),
        r"got 9 at index \(0, 1, 0\) \(2 of 8",
    ),
    "sums to 3": (
        *(SoftmaxWithLoss(), np.array([[0, 1.0, 0], [3, 0, 0]]), (3,), ArgumentError),
        "example 1 sums to 3 .*SigmoidWithLoss",
    ),
    "several labels": (SoftmaxWithLoss(), np.ones((2, 3), int), (3,), ArgumentError, "sums to 3"),
    "below 0": (SoftmaxWithLoss(), np.array([[2.0, -1, 0]] * 2), (3,), ArgumentError, "below 0"),
    "NaN": (SoftmaxWithLoss(), np.full((2, 3), np.nan), (3,), NonFiniteError, "NaN"),
    "floats": (SoftmaxWithLoss(), np.zeros(2), (3,), DTypeError, "integer class numbers"),
    "another shape": (SoftmaxWithLoss(), np.zeros((2, 4), int), (3,), ShapeError, r"\(2, 4\)"),
    "a column": (SoftmaxWithLoss(), np.zeros((2, 1), int), (3,), ShapeError, r"\(2, 1\)"),
    "one-hot and ignored": (SoftmaxWithLoss(ignored=1), np.eye(2), (2,), ShapeError, "class numb"),
    "a class number": (SigmoidWithLoss(), np.array([1, 2]), (1,), ArgumentError, "SoftmaxWithLoss"),
    "flat labels": (SigmoidWithLoss(), np.zeros(2), (3,), ShapeError, r"\(2, 3\)"),
    "infinite": (IdentityWithLoss(), np.full((2, 1), np.inf), (1,), NonFiniteError, "infinity"),
    "flat": (IdentityWithLoss(), np.zeros(2), (3,), ShapeError, r"\(2, 3\); got \(2,\)"),
    "too many": (HuberWithLoss(), np.zeros(3), (1,), ShapeError, r"\(2, 1\) or \(2,\); got"),
    "a list": (IdentityWithLoss(), [[1.0]], (1,), DTypeError, "array"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_targets_that_do_not_fit_are_refused(case):
    loss, t, shape, kind, words = REFUSED[case]
    with pytest.raises(kind, match=words):
        loss.target(t, 2, shape)


@pytest.mark.parametrize("loss", [SoftmaxWithLoss, SigmoidWithLoss, IdentityWithLoss])
@pytest.mark.parametrize(
    ("weights", "kind"),
    [(np.ones(3), ShapeError), (np.ones((2, 1)), ShapeError), ([1, 1], DTypeError)],
)
def test_weights_that_do_not_fit(loss, weights, kind):
    t = np.array([0, 1]) if loss is SoftmaxWithLoss else np.zeros((2, 2))
    with pytest.raises(kind, match="weights"):
        loss().forward(np.zeros((2, 2)), t, weights)


def test_a_softmax_loss_of_one_score_is_refused_alone_too():
    with pytest.raises(ShapeError, match="SigmoidWithLoss"):
        SoftmaxWithLoss().forward(np.zeros((2, 1)), np.array([0, 0]))


@pytest.mark.parametrize("delta", [0, -1.0, math.inf, "1"])
def test_what_is_no_delta(delta):
    with pytest.raises(ArgumentError, match="delta"):
        HuberWithLoss(delta)


@pytest.mark.parametrize("kind", [SoftmaxWithLoss, SigmoidWithLoss])
def test_what_is_no_number_to_ignore(kind):
    with pytest.raises(ArgumentError, match="ignored"):
        kind(ignored=1.5)


def test_weights_at_the_door():
    check_weights(np.array([0, 2]), 2)
    for bad, kind, words in (
        ([1.0, -1.0], ArgumentError, "got -1"),
        ([1.0, math.nan], NonFiniteError, "weights"),
        ([1.0], ShapeError, re.escape("(2,)")),
    ):
        with pytest.raises(kind, match=words):
            check_weights(np.array(bad), 2)
