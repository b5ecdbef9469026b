"""Float policies and the loss scale."""

from __future__ import annotations

import math

import numpy as np
import pytest

from xpdl import Network
from xpdl.backends import get_backend
from xpdl.errors import DivergenceError, UnknownNameError
from xpdl.layers import Affine
from xpdl.losses import IdentityWithLoss, SoftmaxWithLoss
from xpdl.precision import PRECISIONS, LossScale, Precision, get_precision

EXPECTED = {  # policy: parameters, compute, accumulate, mixed
    "float16": ("float32", "float16", "float32", True),
    "float32": ("float32", "float32", "float32", False),
    "float64": ("float64", "float64", "float64", False),
}


def test_every_policy_is_tried():
    assert set(PRECISIONS) == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_policies(name):
    policy = get_precision(name)
    parameters, compute, accumulate, mixed = EXPECTED[name]
    assert policy.name == name
    assert policy.parameters == np.dtype(parameters)
    assert policy.compute == np.dtype(compute)
    assert policy.accumulate == np.dtype(accumulate)
    assert policy.mixed is mixed


@pytest.mark.parametrize("name", EXPECTED)
def test_a_policy_has_many_names(name):
    policy = get_precision(name)
    for choice in (np.dtype(name), getattr(np, name), policy):
        assert get_precision(choice) is policy


def test_python_s_float_is_float64():
    assert get_precision(float) is PRECISIONS["float64"]


def test_a_policy_of_one_s_own():
    half = np.dtype("float16")
    mine = Precision("mine", half, half, np.dtype("float32"))
    assert get_precision(mine) is mine
    assert not mine.mixed


def test_the_environment_chooses(monkeypatch):
    assert get_precision() is PRECISIONS["float32"]
    for name in EXPECTED:
        monkeypatch.setenv("XPDL_DTYPE", name)
        assert get_precision() is PRECISIONS[name]
        assert get_precision("float32") is PRECISIONS["float32"]
    monkeypatch.setenv("XPDL_DTYPE", "")
    assert get_precision() is PRECISIONS["float32"]


def test_the_environment_reaches_a_network(monkeypatch, backend):
    monkeypatch.setenv("XPDL_DTYPE", "float64")
    assert Network([Affine(2)], (3,)).params["affine1.W"].dtype == "float64"
    assert Network([Affine(2)], (3,), dtype="float32").params["affine1.W"].dtype == "float32"


def test_a_bad_name_in_the_environment_says_so(monkeypatch):
    monkeypatch.setenv("XPDL_DTYPE", "flaot16")
    with pytest.raises(UnknownNameError) as caught:
        get_precision()
    message = str(caught.value)
    assert "XPDL_DTYPE" in message
    assert "'flaot16'" in message
    assert all(name in message for name in EXPECTED)
    assert "Did you mean 'float16'?" in message


@pytest.mark.parametrize("bad", ["int32", "half precision", np.int64, "bfloat16", 7, object()])
def test_a_bad_choice_is_refused(bad):
    with pytest.raises(UnknownNameError, match=r"unknown dtype .*float32, float16, float64"):
        get_precision(bad)


@pytest.mark.parametrize("name", EXPECTED)
def test_types_in_a_network(backend, rng, name):
    network = Network([Affine(4), Affine(3)], (5,), dtype=name)
    parameters, compute, accumulate, _ = EXPECTED[name]
    x = backend.asarray(rng.standard_normal((2, 5)), dtype="float32")
    loss, scores = network.forward_backward(x, backend.asarray(np.array([0, 2])))
    assert loss.dtype == accumulate
    assert scores.dtype == compute
    assert {a.dtype.name for a in network.params.values()} == {parameters}
    assert {a.dtype.name for a in network.grads.values()} == {accumulate}
    assert {a.dtype.name for a in network.parameters.compute.values()} == {compute}


@pytest.mark.parametrize("target", [0, 1])
def test_a_loss_of_scores_at_the_end_of_half_precision(backend, target):
    loss = SoftmaxWithLoss()
    scores = backend.asarray(np.array([[6e4, -6e4]] * 3, np.float16))
    value = loss.forward(scores, backend.asarray(np.full(3, target)))
    assert value.dtype == np.float32
    gap = float(np.float16(6e4)) * 2
    assert backend.item(value) == pytest.approx(gap * target, abs=1e-6)
    dx = loss.backward()
    assert dx.dtype == np.float16
    sign = np.array([[1, -1]] * 3) * target
    np.testing.assert_allclose(backend.to_numpy(dx), sign / 3, rtol=1e-3)


# ---- loss scale --------------------------------------------------------------------------------


def told(backend, finite):
    return backend.xp.full((), finite, dtype=bool)


def test_it_doubles_after_enough_good_steps(backend):
    scale = LossScale(backend, 8.0, patience=3)
    seen = []
    for _ in range(7):
        scale.update(told(backend, True))
        seen.append(scale.read()["value"])
    assert seen == [8, 8, 16, 16, 16, 32, 32]
    assert scale.read()["skipped"] == 0


def test_it_halves_and_skips_a_bad_step(backend):
    scale = LossScale(backend, 8.0, patience=3)
    for finite in (True, True, False, True, True):
        scale.update(told(backend, finite))
    assert scale.read()["value"] == 4  # the two good steps before count no more
    scale.update(told(backend, True))
    assert scale.read()["value"] == 8
    scale.update(told(backend, False))
    scale.update(told(backend, False))
    assert scale.read() == {"value": 2, "good_steps": 0, "bad_steps": 2, "skipped": 3}


def test_it_has_a_ceiling(backend):
    scale = LossScale(backend, patience=1)
    assert scale.read()["value"] == 2**15
    for _ in range(100):
        scale.update(told(backend, True))
    assert scale.read()["value"] == 2**24


def test_its_patience_by_default():
    scale = LossScale(get_backend("numpy"))
    for _ in range(999):
        scale.update(np.True_)
    assert scale.read()["value"] == 2**15
    scale.update(np.True_)
    assert scale.read()["value"] == 2**16


def test_it_gives_up_after_fifty_bad_steps_in_a_row(backend):
    scale = LossScale(backend)
    for _ in range(49):
        scale.update(told(backend, False))
    assert 0 < scale.read()["value"] < 1  # a floor of 1 could skip every step for ever
    scale.update(told(backend, False))
    with pytest.raises(DivergenceError, match=r"50 steps in a row.*learning rate.*float32"):
        scale.read()


def test_a_good_step_starts_the_count_again(backend):
    scale = LossScale(backend)
    for _ in range(3):
        for _ in range(49):
            scale.update(told(backend, False))
        scale.update(told(backend, True))
    assert scale.read()["skipped"] == 147


def test_it_goes_on_from_what_was_read(backend):
    scale, other = LossScale(backend, 8.0), LossScale(backend)
    for finite in (True, False, True):
        scale.update(told(backend, finite))
    other.restore(scale.read())
    assert other.read() == scale.read()


@pytest.mark.parametrize("bad", [None, np.nan, np.inf, -np.inf])
def test_unscaling_sees_what_is_not_finite(backend, bad):
    g = np.arange(1000, dtype=np.float32)
    if bad is not None:
        g[777] = bad
    there, scale = backend.asarray(g.copy()), LossScale(backend, 8.0)
    go = scale.unscale(there)
    assert go.shape == ()
    assert go.dtype == bool
    assert backend.item(go) is (bad is None)
    np.testing.assert_array_equal(backend.to_numpy(there), g / 8)


@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_a_scale_multiplies_the_gradients_and_not_the_loss(backend, rng, scale):
    network = Network([Affine(3)], (5,), weight_decay=0.1, seed=3)
    x = backend.asarray(rng.standard_normal((4, 5)), dtype="float32")
    t = backend.asarray(np.array([0, 1, 2, 0]))
    loss, _ = network.forward_backward(x, t)
    plain = {name: backend.to_numpy(g) for name, g in network.grads.items()}
    scaled, _ = network.forward_backward(x, t, scale)
    assert backend.item(scaled) == backend.item(loss)
    for name, g in network.grads.items():
        np.testing.assert_allclose(backend.to_numpy(g), scale * plain[name], rtol=1e-5)


def test_a_scale_saves_small_half_precision_gradients(backend):
    """The loss's gradient by a score is about 2e-8 here, for which float16 has no number."""
    small = math.exp(-17)  # softmax of (17, 0), at its second place
    x = backend.asarray(np.ones((2, 5), dtype=np.float32))
    t = backend.asarray(np.zeros(2, dtype=np.int64))
    network = Network([Affine(2, weight_init=0.0)], (5,), dtype="float16")
    network.params["affine1.b"][...] = backend.asarray([17.0, 0.0], "float32")
    network.forward_backward(x, t)
    lost = backend.to_numpy(network.grads["affine1.W"])[:, 1]
    network.forward_backward(x, t, 2.0**15)
    kept = backend.to_numpy(network.grads["affine1.W"])[:, 1] / 2**15
    np.testing.assert_array_equal(lost, 0)
    np.testing.assert_allclose(kept, small, rtol=0.05)


def test_gradients_of_parameters_are_summed_beyond_what_half_precision_holds(backend):
    x = backend.asarray(np.full((4096, 1), 8.0, dtype=np.float16))
    layer = Affine(1, weight_init=0.0)
    network = Network([layer], (1,), dtype="float16", loss=IdentityWithLoss())
    layer.forward(x, train=True)
    layer.backward(backend.asarray(np.full((4096, 1), 4.0, dtype=np.float16)))
    assert backend.item(network.grads["affine1.W"]) == 4096 * 32  # 131,072
    assert backend.item(network.grads["affine1.b"]) == 4096 * 4
