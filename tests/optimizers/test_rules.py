"""A device's rules beside the generic ones; Muon; rates of one's own; help and errors."""

from __future__ import annotations

import copy
import inspect
import math

import numpy as np
import pytest

from xpdl import Network
from xpdl.backends import Backend
from xpdl.errors import ArgumentError, UnknownNameError
from xpdl.layers import Affine, BatchNormalization, Convolution, ReLU
from xpdl.optimizers import BY_NAME, SGD, Adam, AdamW, Muon, get_optimizer
from xpdl.training.step import Step

# ---- a device's own ------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize(("go", "begin"), [(None, 0), (True, 1), (False, 0)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", BY_NAME)
def test_a_device_s_rule_does_what_the_generic_one_does(
    backend, rng, name, dtype, go, begin, copied
):
    """Also where they begin in the middle of other numbers, which a GPU reads one by one."""
    optimizer = get_optimizer(name, learning_rate=0.1)
    shape = (30, 41)
    arrays = [rng.standard_normal(shape) for _ in range(2)]
    arrays += [rng.random(shape) for _ in optimizer.slots]
    there = [backend.asarray(np.pad(a.ravel(), (begin, 0)), dtype) for a in arrays]
    there = [a[begin:].reshape(shape) for a in there]
    half = backend.asarray(np.zeros(shape), "float16") if copied else None
    numbers = (0.1, 3.0) if optimizer.counts_updates else (0.1,)
    aside = (None if go is None else backend.asarray(np.array(go)), half)
    known = optimizer.device_rule, optimizer.rule, optimizer.settings()
    assert backend.update_rule(*known, there, numbers, *aside) is None
    expected = [a.copy() for a in arrays]
    if go is not False:
        Backend().update_rule(*known, expected, numbers)
    tolerance = 2e-6 if dtype == "float32" else 1e-13
    for got, wanted in zip(there, expected, strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(backend.to_numpy(got), wanted, rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(backend.to_numpy(there[1]), arrays[1].astype(dtype))
    if copied:
        np.testing.assert_array_equal(
            backend.to_numpy(half), backend.to_numpy(there[0]).astype("float16")
        )


class Backwards(Adam):
    """Adam's options, and arithmetic of its own."""

    def rule(self, W, g, m, v, rate, count):
        W += rate * g


def test_a_rule_of_ones_own_is_not_taken_for_its_base(backend):
    """A device that knows Adam does not know it."""
    params = {"W": backend.asarray(np.zeros((3, 3)), "float32")}
    Backwards(0.5).update(params, {"W": backend.asarray(np.ones((3, 3)), "float32")})
    np.testing.assert_array_equal(backend.to_numpy(params["W"]), 0.5)
    assert (Adam.device_rule, AdamW.device_rule, Backwards.device_rule) == ("adam", "adam", "")


# ---- Muon ----------------------------------------------------------------------------------------


def by_singular_values(u, iterations):
    """Return what the iteration makes of u: it leaves all of an SVD but the singular values."""
    U, s, Vt = np.linalg.svd(u, full_matrices=False)
    s = s / (np.sqrt((s**2).sum()) + 1e-7)
    for _ in range(iterations):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return U @ np.diag(s) @ Vt


def muon(W, gradients, rate, momentum, decay, iterations):
    v = np.zeros_like(W)
    for g in gradients:
        v = momentum * v + (1 - momentum) * g
        u = momentum * v + (1 - momentum) * g
        if W.ndim > 1:
            matrix = u.T if W.ndim == 2 else u.reshape(len(u), -1)  # (outputs, inputs)
            step = by_singular_values(matrix, iterations)
            step *= math.sqrt(max(1, matrix.shape[0] / matrix.shape[1]))
            u = step.T if W.ndim == 2 else step.reshape(W.shape)
        W = W - rate * decay * W - rate * u if W.ndim > 1 else W - rate * u
    return W


SHAPES = {"c.W": (8, 2, 3, 3), "d.W": (30, 2, 2, 2), "a.W": (5, 12), "b.W": (12, 5), "b.b": (5,)}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("iterations", [1, 5])
def test_muon_is_as_published(backend, rng, dtype, iterations):
    params = {name: backend.asarray(rng.standard_normal(s), dtype) for name, s in SHAPES.items()}
    start = {name: backend.to_numpy(a).astype("float64") for name, a in params.items()}
    steps = [{name: rng.standard_normal(s) for name, s in SHAPES.items()} for _ in range(4)]
    optimizer = Muon(0.1, momentum=0.9, iterations=iterations, weight_decay=0.2)
    for step in steps:
        optimizer.update(params, {name: backend.asarray(g, dtype) for name, g in step.items()})
    for name, a in params.items():
        gradients = [step[name] for step in steps]
        expected = muon(start[name], gradients, 0.1, 0.9, 0.2, iterations)
        tolerance = 1e-10 if dtype == "float64" else 1e-4
        np.testing.assert_allclose(
            backend.to_numpy(a), expected, rtol=tolerance, atol=tolerance, err_msg=name
        )
        assert a.dtype == dtype


def test_muon_takes_a_network_s_parameters_one_by_one(backend, rng):
    """Frozen or not, in half precision or not: and a plain dictionary gets the same."""
    layers = [Convolution(4, 3), BatchNormalization(), ReLU(), Affine(6), ReLU(), Affine(3)]
    network = Network(layers, (2, 5, 5), dtype="float64")
    network.freeze("affine1")
    start = {name: a.copy() for name, a in network.params.items()}
    plain = {name: a.copy() for name, a in start.items() if not name.startswith("affine1")}
    whole, alone = Muon(0.05), Muon(0.05)
    for _ in range(3):
        for name, g in network.grads.items():
            network.grads[name] = backend.asarray(rng.standard_normal(g.shape))
        whole.update(network.params, network.grads)
        alone.update(plain, {name: network.grads[name] for name in plain})
    for name, a in network.params.items():
        expected = plain.get(name, start[name])
        np.testing.assert_allclose(
            backend.to_numpy(a), backend.to_numpy(expected), rtol=1e-10, atol=1e-12
        )


def test_muon_of_a_gradient_of_zero_stays(backend):
    params = {"W": backend.asarray(np.ones((3, 4)), "float32")}
    Muon().update(params, {"W": backend.asarray(np.zeros((3, 4)), "float32")})
    np.testing.assert_array_equal(backend.to_numpy(params["W"]), 1)


# ---- rates of one's own --------------------------------------------------------------------------


def net(dtype="float64"):
    layers = {"first": Affine(40), "curve": ReLU(), "second": Affine(6), "last": Affine(3)}
    return Network(layers, (4,), dtype=dtype)


def fill(backend, grads, rng):
    for name, g in grads.items():
        grads[name] = backend.asarray(rng.standard_normal(g.shape), g.dtype)


FACTORS = {"first.": 0.25, "second.b": 0.5, "last": 0.0}


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("name", BY_NAME)
def test_a_factor_on_the_rate(backend, rng, name, blocks):
    """Each parameter goes as under an optimizer of its own, whose rate is so much smaller."""
    network, options = net(), {"weight_decay": 0.1}
    optimizer = get_optimizer(name, learning_rate=0.1, rate_factors=FACTORS, **options)
    rates = {"first.W": 0.025, "first.b": 0.025, "second.b": 0.05, "last.W": 0.0, "last.b": 0.0}
    alone = {key: get_optimizer(name, learning_rate=rates.get(key, 0.1), **options)
             for key in network.params}  # fmt: skip
    own = {key: {key: a.copy()} for key, a in network.params.items()}
    for _ in range(3):
        fill(backend, network.grads, rng)
        for key, one in alone.items():
            one.update(own[key], {key: network.grads[key]})
        params, grads = network.params, network.grads
        optimizer.update(*((params, grads) if blocks else (dict(params), dict(grads))))
    for key, a in network.params.items():
        wanted = backend.to_numpy(own[key][key])
        np.testing.assert_allclose(backend.to_numpy(a), wanted, rtol=1e-10, atol=1e-12)


def test_factors_cut_blocks_no_finer_than_they_must():
    params = net().params
    assert list(params.runs()) == ["first.W", "first.b"]  # the weights, the others
    factors = {name: 0.1 for name in params if name.startswith("first")}
    assert list(params.runs(factors.get)) == ["first.W", "second.W", "first.b", "second.b"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_factor_holds_in_a_captured_step(backend, rng, dtype):
    network = net(dtype)
    x = backend.asarray(rng.standard_normal((8, 4)), "float32")
    t = backend.asarray(rng.integers(0, 3, 8))
    step = Step(network, SGD(0.5, rate_factors={"first": 0.0}))
    before = {name: backend.to_numpy(a) for name, a in network.params.items()}
    for rate in [0.5] * 6 + [0.0]:
        step.optimizer.learning_rate = rate
        step(x, t)
    for name, a in network.params.items():
        assert (backend.to_numpy(a) == before[name]).all() == name.startswith("first"), name
    step.optimizer.rate_factors = {"": 0.0}  # from now on nothing learns
    before = {name: backend.to_numpy(a) for name, a in network.params.items()}
    step.optimizer.learning_rate = 0.5
    step(x, t)
    for name, a in network.params.items():
        np.testing.assert_array_equal(backend.to_numpy(a), before[name])


def test_a_name_is_a_layer_s_before_it_is_the_beginning_of_others(backend):
    """conv1 is not conv10; conv is both."""
    names = ["conv1.W", "conv10.W", "conv10.b"]
    for factors, expected in (
        ({"conv1": 0.0}, [1, 0, 0]),
        ({"conv": 0.0}, [1, 1, 1]),
        ({"conv": 0.0, "conv10.b": 1.0}, [1, 1, 0]),
    ):
        params = {name: backend.asarray(np.ones(2)) for name in names}
        grads = {name: backend.asarray(np.ones(2)) for name in names}
        SGD(1.0, rate_factors=factors).update(params, grads)
        assert [backend.to_numpy(params[name])[0] for name in names] == expected


def test_factors_are_settings_where_there_are_any():
    assert SGD(rate_factors={"first": 0.5}).settings()["rate_factors"] == {"first": 0.5}
    for nothing in (None, {}):
        settings = SGD(rate_factors=nothing).settings()
        assert settings == SGD().settings()
        assert "rate_factors" not in settings


def test_factors_that_fit_nothing_are_refused():
    network = net()
    with pytest.raises(UnknownNameError, match=r"rate_factors 'frist'.*first\.W"):
        SGD(rate_factors={"frist": 0.1}).update(network.params, network.grads)
    for bad in ([0.1], {"first": -1}, {"first": "x"}, {"first": math.nan}, {1: 0.1}, "first"):
        with pytest.raises(ArgumentError, match=r"^rate_factors"):
            SGD(rate_factors=bad)


# ---- what help and errors say --------------------------------------------------------------------


@pytest.mark.parametrize("name", BY_NAME)
def test_help_shows_the_formula_and_the_parameters(name):
    rule = BY_NAME[name]
    text = inspect.getdoc(rule)
    assert "<-" in text
    assert "Parameters\n----------" in text
    described = text.split("----------")[1]
    for option in (*inspect.signature(rule).parameters, "decay_all", "clip_norm", "rate_factors"):
        assert option in described, option


def test_an_option_that_does_not_exist():
    with pytest.raises(ArgumentError) as caught:
        Adam(lr=0.1)
    assert str(caught.value) == (
        "Adam has no option 'lr'; did you mean learning_rate? Its options are learning_rate, "
        "beta1, beta2, epsilon, weight_decay, decay_all, clip_norm, rate_factors."
    )
    for name, wrong, meant in (
        ("sgd", "lr", "learning_rate"),
        ("adamw", "weight_deacy", "weight_decay"),
        ("adam", "eps", "epsilon"),
    ):
        with pytest.raises(ArgumentError, match=f"did you mean {meant}"):
            get_optimizer(name, **{wrong: 0.1})
    with pytest.raises(ArgumentError, match=r"SGD has no option 'momentum'\. Its options are"):
        SGD(momentum=0.9)


# ---- time ----------------------------------------------------------------------------------------


def test_a_loaded_rate_holds_on_a_device_too(backend):
    """The first step after load_state_dict is made at the rate that was saved."""
    there, here = SGD(0.25), SGD(7.0)
    here.load_state_dict(there.state_dict())
    assert here.host_learning_rate() == 0.25
    params = {"W": backend.asarray(np.zeros(2), "float32")}
    with here.time_kept_on(backend, np.dtype("float32")):
        here.update(params, {"W": backend.asarray(np.ones(2), "float32")})
    np.testing.assert_array_equal(backend.to_numpy(params["W"]), -0.25)


def test_a_copy_has_a_time_of_its_own(backend):
    optimizer = SGD(0.25)
    params, grads = ({"W": backend.asarray(np.ones(2), "float32")} for _ in range(2))
    optimizer.keep_time_on(backend, np.dtype("float32"))
    optimizer.update(params, grads)
    other = copy.copy(optimizer)
    other.load_state_dict(optimizer.state_dict())
    with other.time_kept_on(backend, np.dtype("float32")):
        other.learning_rate = 0.5
        other.update(params, grads)
    assert other.iteration == 2
    optimizer.keep_time_on_host()
    assert optimizer.iteration == 1
    assert optimizer.learning_rate == 0.25
