"""The update rules, against their formulas number by number, and what surrounds them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import xpdl
from xpdl import Network, optimizers
from xpdl.errors import ArgumentError, ModelFileError, ShapeError, UnknownNameError, XpdlError
from xpdl.layers import Affine, BatchNormalization, Convolution, ReLU
from xpdl.optimizers import (
    SGD,
    AdaGrad,
    Adam,
    AdamW,
    Momentum,
    Nesterov,
    RMSProp,
    get_optimizer,
    gradient_norm,
)

SHAPES = {"conv1.W": (3, 2, 2, 2), "conv1.b": (3,), "affine1.W": (4, 5), "affine1.b": (5,)}
STEPS = 10

# ---- the formulas, on one Python number --------------------------------------------------------
# Each takes the gradients that one parameter meets, one after the other, and answers with its
# last value. `decay` is lambda.


def sgd(p, gradients, decay, rate):
    for g in gradients:
        p = p - rate * (g + decay * p)
    return p


def momentum(p, gradients, decay, rate, alpha):
    v = 0.0
    for g in gradients:
        v = alpha * v - rate * (g + decay * p)
        p = p + v
    return p


def nesterov(p, gradients, decay, rate, alpha):
    """As Sutskever wrote it: look ahead, take the gradient there, step from where one was."""
    behind, v, ahead = p, 0.0, p
    for g in gradients:
        step = alpha * v - rate * (g + decay * ahead)
        behind, v = behind + step, step
        ahead = behind + alpha * v
    return ahead


def adagrad(p, gradients, decay, rate, epsilon):
    h = 0.0
    for g in gradients:
        g = g + decay * p
        h = h + g**2
        p = p - rate / (math.sqrt(h) + epsilon) * g
    return p


def rmsprop(p, gradients, decay, rate, forget, epsilon):
    h = 0.0
    for g in gradients:
        g = g + decay * p
        h = forget * h + (1 - forget) * g**2
        p = p - rate * g / (math.sqrt(h) + epsilon)
    return p


def adam(p, gradients, decay, rate, beta1, beta2, epsilon, decoupled=0.0):
    """Bias-corrected means as sums over all gradients met, without the recursion."""
    met = []
    for g in gradients:
        met.append(g + decay * p)
        n = len(met)
        m = sum((1 - beta1) * beta1 ** (n - 1 - i) * g for i, g in enumerate(met))
        v = sum((1 - beta2) * beta2 ** (n - 1 - i) * g**2 for i, g in enumerate(met))
        m, v = m / (1 - beta1**n), v / (1 - beta2**n)
        p = p - rate * decoupled * p - rate * m / (math.sqrt(v) + epsilon)
    return p


def adamw(p, gradients, decay, *settings):
    return adam(p, gradients, 0.0, *settings, decoupled=decay)


RULES = {  # name: rule, its settings, formula, the same settings
    "SGD": (SGD, {"learning_rate": 0.1}, sgd, (0.1,)),
    "Momentum": (Momentum, {"learning_rate": 0.1, "momentum": 0.8}, momentum, (0.1, 0.8)),
    "Nesterov": (Nesterov, {"learning_rate": 0.1, "momentum": 0.8}, nesterov, (0.1, 0.8)),
    "AdaGrad": (AdaGrad, {"learning_rate": 0.1, "epsilon": 1e-3}, adagrad, (0.1, 1e-3)),
    "RMSProp": (
        RMSProp,
        {"learning_rate": 0.1, "decay_rate": 0.9, "epsilon": 1e-3},
        rmsprop,
        (0.1, 0.9, 1e-3),
    ),
    "Adam": (
        Adam,
        {"learning_rate": 0.1, "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3},
        adam,
        (0.1, 0.8, 0.95, 1e-3),
    ),
    "AdamW": (
        AdamW,
        {"learning_rate": 0.1, "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3, "weight_decay": 0.0},
        adamw,
        (0.1, 0.8, 0.95, 1e-3),
    ),
}
DEFAULTS = {  # the book's settings where the book has the rule, else those of its authors
    "SGD": (SGD, sgd, (0.01,)),
    "Momentum": (Momentum, momentum, (0.01, 0.9)),
    "Nesterov": (Nesterov, nesterov, (0.01, 0.9)),
    "AdaGrad": (AdaGrad, adagrad, (0.01, 1e-7)),
    "RMSProp": (RMSProp, rmsprop, (0.01, 0.99, 1e-7)),
    "Adam": (Adam, adam, (0.001, 0.9, 0.999, 1e-8)),
    "AdamW": (AdamW, adamw, (0.001, 0.9, 0.999, 1e-8)),
}


def make(name, **options):
    rule, settings, *_ = RULES[name]
    return rule(**{**settings, **options})


def draw(rng, shapes=SHAPES, dtype="float64"):
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def on(backend, arrays):
    return {name: backend.asarray(a.copy()) for name, a in arrays.items()}


def off(backend, arrays):
    return {name: backend.to_numpy(a) for name, a in arrays.items()}


def by_formula(formula, settings, start, steps, decays):
    """Run a formula over each number of each array; `decays` gives lambda by array."""
    end = {}
    for name, array in start.items():
        gradients = np.stack([step[name].ravel() for step in steps])
        end[name] = np.reshape(
            [
                formula(p, column.tolist(), decays[name], *settings)
                for p, column in zip(array.ravel().tolist(), gradients.T, strict=True)
            ],
            array.shape,
        )
    return end


def assert_close(got, expected, rtol=1e-10):
    assert list(got) == list(expected)
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], rtol=rtol, atol=rtol, err_msg=name)


def assert_same(got, expected):
    assert set(got) == set(expected)
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name], err_msg=name)


def network(dtype="float64", units=5, **options):
    layers = [Convolution(3, 2), BatchNormalization(), ReLU(), Affine(units), ReLU(), Affine(4)]
    return Network(layers, (2, 3, 3), dtype=dtype, seed=2, **options)


def fill(backend, grads, rng):
    """Put random numbers into a network's gradients; return them."""
    numbers = draw(rng, {name: g.shape for name, g in grads.items()})
    for name, g in numbers.items():
        grads[name] = backend.asarray(g, dtype=grads[name].dtype)
    return numbers


def test_every_rule_is_tried():
    assert (
        set(optimizers.BY_NAME) - {"muon"}  # of matrices, not of numbers: in test_rules
        == {name.lower() for name in RULES}
        == {name.lower() for name in DEFAULTS}
    )


# ---- the rules ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"weight_decay": 0.3}, {"weight_decay": 0.3, "decay_all": True}]
)
@pytest.mark.parametrize("name", RULES)
def test_ten_steps_follow_the_formula(backend, rng, name, options):
    _, _, formula, settings = RULES[name]
    start, steps = draw(rng), [draw(rng) for _ in range(STEPS)]
    params = on(backend, start)
    optimizer = make(name, **options)
    for step in steps:
        optimizer.update(params, on(backend, step))
    decay = options.get("weight_decay", 0.0)
    everywhere = "decay_all" in options
    decays = {key: decay if everywhere or key.endswith(".W") else 0.0 for key in SHAPES}
    assert_close(off(backend, params), by_formula(formula, settings, start, steps, decays))
    assert optimizer.iteration == STEPS


@pytest.mark.parametrize("name", DEFAULTS)
def test_settings_by_default(backend, rng, name):
    rule, formula, settings = DEFAULTS[name]
    start, steps = draw(rng), [draw(rng) for _ in range(STEPS)]
    params = on(backend, start)
    optimizer = rule()
    for step in steps:
        optimizer.update(params, on(backend, step))
    decays = {key: 0.01 if name == "AdamW" and key.endswith(".W") else 0.0 for key in SHAPES}
    assert_close(off(backend, params), by_formula(formula, settings, start, steps, decays))


@pytest.mark.parametrize("rate", [0.1, 0.001])
def test_adam_s_first_step_is_the_rate(backend, rng, rate):
    """Whatever the gradient's size: both means are corrected for their start from zero."""
    start = draw(rng)
    gradient = {key: 10.0 ** rng.integers(-2, 4) * a for key, a in draw(rng).items()}
    params = on(backend, start)
    Adam(rate).update(params, on(backend, gradient))
    expected = {key: start[key] - rate * np.sign(gradient[key]) for key in start}
    assert_close(off(backend, params), expected, rtol=1e-6)


def test_a_changed_rate_holds_from_then_on(backend, rng):
    start, first, second = draw(rng), draw(rng), draw(rng)
    params = on(backend, start)
    optimizer = SGD(0.5)
    optimizer.update(params, on(backend, first))
    optimizer.learning_rate = 0.25
    optimizer.update(params, on(backend, second))
    expected = {key: start[key] - 0.5 * first[key] - 0.25 * second[key] for key in start}
    assert_close(off(backend, params), expected)


@pytest.mark.parametrize(
    ("rule", "rate"), [(SGD, 0.95), (Momentum, 0.1), (AdaGrad, 1.5), (Adam, 0.3)]
)
def test_the_book_s_valley(backend, rule, rate):
    """Figures 6-3 to 6-7: 30 steps on x^2/20 + y^2 from (-7, 2), at the book's rates."""
    params = on(backend, {"x": np.array(-7.0), "y": np.array(2.0)})
    optimizer = rule(rate)
    for _ in range(30):
        optimizer.update(params, {"x": params["x"] / 10, "y": 2 * params["y"]})
    x, y = (float(a) for a in off(backend, params).values())
    assert x * x / 20 + y * y < 0.02 * (49 / 20 + 4)


# ---- a dictionary, a network -------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"weight_decay": 0.2}, {"weight_decay": 0.2, "decay_all": True}, {"clip_norm": 1.0}],
)
@pytest.mark.parametrize("name", RULES)
def test_a_dictionary_and_a_network_get_the_same_numbers(backend, rng, name, options):
    net = network()
    plain = on(backend, off(backend, net.params))
    whole, single = make(name, **options), make(name, **options)
    for _ in range(4):
        gradient = fill(backend, net.grads, rng)
        whole.update(net.params, net.grads)
        single.update(plain, on(backend, gradient))
    assert_close(off(backend, net.params), off(backend, plain), rtol=1e-12)


@pytest.mark.parametrize("name", RULES)
def test_a_network_s_parameters_and_a_dictionary_of_gradients(backend, rng, name):
    net, other = network(), network()
    whole, mixed = make(name, weight_decay=0.1), make(name, weight_decay=0.1)
    for _ in range(3):
        gradient = fill(backend, net.grads, rng)
        whole.update(net.params, net.grads)
        mixed.update(other.params, on(backend, gradient))
    assert_close(off(backend, other.params), off(backend, net.params), rtol=1e-12)


@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize("name", RULES)
def test_updates_are_in_place(backend, rng, name, clip_norm):
    params, grads = on(backend, draw(rng)), on(backend, draw(rng))
    held, before, gradient = dict(params), off(backend, params), off(backend, grads)
    optimizer = make(name, weight_decay=0.1, clip_norm=clip_norm)
    optimizer.update(params, grads)
    for key, array in held.items():
        assert params[key] is array
        assert (backend.to_numpy(array) != before[key]).all()
    assert_same(off(backend, grads), gradient)


@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize("name", RULES)
def test_a_network_s_buffer_is_updated_in_place(backend, rng, name, clip_norm):
    net = network()
    gradient = fill(backend, net.grads, rng)
    buffer, views = net.params.buffer, dict(net.params)
    before = off(backend, net.params)
    make(name, weight_decay=0.1, clip_norm=clip_norm).update(net.params, net.grads)
    assert net.params.buffer is buffer
    assert_same(off(backend, net.grads), gradient)
    for key, view in views.items():
        assert net.params[key] is view
        assert (backend.to_numpy(view) != before[key]).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", RULES)
def test_types_stay(backend, rng, name, dtype):
    start, steps = draw(rng, dtype=dtype), [draw(rng, dtype=dtype) for _ in range(3)]
    params = on(backend, start)
    # NumPy numbers, as np.sqrt gives them, would make float64 of everything.
    settings = {key: np.float64(value) for key, value in RULES[name][1].items()}
    optimizer = RULES[name][0](**{**settings, "weight_decay": np.float64(0.01)}, clip_norm=100)
    for step in steps:
        optimizer.update(params, on(backend, step))
    assert {a.dtype.name for a in params.values()} == {dtype}
    for arrays in optimizer.state.values():
        assert {a.dtype.name for a in arrays.values()} == {np.promote_types(dtype, "f4").name}
    decays = {key: 0.01 if key.endswith(".W") else 0.0 for key in SHAPES}
    expected = by_formula(*RULES[name][2:], start, steps, decays)
    rounding = {"float16": 2e-2, "float32": 1e-5, "float64": 1e-12}[dtype]
    assert_close(off(backend, params), expected, rtol=rounding)


class Recorder(SGD):
    """Notes the type of the gradients that a rule is given."""

    seen: frozenset[str] = frozenset()

    def rule(self, W, g, rate):
        self.seen |= {g.dtype.name}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("clip_norm", [0.1, 1e3])
def test_rules_get_a_clipped_gradient_in_float32_at_least(backend, rng, clip_norm, dtype):
    optimizer = Recorder(clip_norm=clip_norm)
    optimizer.update(on(backend, draw(rng, dtype=dtype)), on(backend, draw(rng, dtype=dtype)))
    assert optimizer.seen == {"float32" if dtype == "float16" else dtype}


def test_a_limit_that_numpy_made_keeps_the_type(backend, rng):
    params = on(backend, draw(rng, dtype="float32"))
    SGD(1.0, clip_norm=np.sqrt(2.0)).update(params, on(backend, draw(rng, dtype="float32")))
    assert {a.dtype.name for a in params.values()} == {"float32"}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_state_is_in_the_type_of_the_parameters(backend, rng, dtype):
    net = network(dtype)
    fill(backend, net.grads, rng)
    optimizer = Adam()
    optimizer.update(net.params, net.grads)
    master = "float64" if dtype == "float64" else "float32"
    for arrays in (net.params, *optimizer.state.values()):
        assert {a.dtype.name for a in arrays.values()} == {master}


@pytest.mark.parametrize("rule", [AdaGrad, RMSProp, Adam, AdamW])
def test_half_precision_parameters_have_memory_that_does_not_vanish(backend, rule):
    """Adam's epsilon, 1e-8, is 0 in float16, and so is the square of a gradient of 1e-4."""
    params = on(backend, {"W": np.ones((2, 2), np.float16)})
    grads = on(backend, {"W": np.array([[0, 1e-4], [-1e-4, 0]], np.float16)})
    optimizer = rule(0.01)
    for _ in range(3):
        optimizer.update(params, grads)
    assert params["W"].dtype == np.float16
    assert {a["W"].dtype.name for a in optimizer.state.values()} == {"float32"}
    W = backend.to_numpy(params["W"]).astype(float)
    assert np.isfinite(W).all()
    assert W[0, 1] < W[0, 0] < W[1, 0]


# ---- weight decay ------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("decay_all", [False, True])
@pytest.mark.parametrize("rule", [SGD, AdamW])
def test_what_decays(backend, rule, decay_all, blocks):
    """With a gradient of zero only decay moves a parameter."""
    net = network()
    for view in net.params.values():
        view[...] = 2.0
    params, grads = net.params, net.grads
    if not blocks:
        params, grads = dict(params), dict(grads)
    rule(0.1, weight_decay=0.5, decay_all=decay_all).update(params, grads)
    for key, array in off(backend, params).items():
        decays = decay_all or key.endswith(".W")
        np.testing.assert_allclose(array, 2 * 0.95 if decays else 2.0, rtol=1e-15, err_msg=key)


def test_decay_is_the_gradient_of_the_book_s_term(backend, rng):
    """A network with lambda in its loss and one with lambda in its optimizer are one."""
    inside, outside = network(weight_decay=0.3), network()
    x = backend.asarray(rng.standard_normal((6, 2, 3, 3)))
    t = backend.asarray(rng.integers(0, 4, 6))
    for net, optimizer in ((inside, Adam(0.01)), (outside, Adam(0.01, weight_decay=0.3))):
        for _ in range(3):
            optimizer.update(net.params, net.gradient(x, t))
    assert_close(off(backend, inside.params), off(backend, outside.params), rtol=1e-9)


# ---- clipping ----------------------------------------------------------------------------------


def whole_norm(arrays):
    return math.sqrt(sum(math.fsum(v * v for v in a.ravel().tolist()) for a in arrays.values()))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("blocks", [True, False])
def test_a_long_gradient_is_cut_to_its_norm(backend, rng, blocks, dtype):
    net = network(dtype)
    gradient = fill(backend, net.grads, rng)
    start = off(backend, net.params)
    grads = net.grads if blocks else dict(net.grads)
    SGD(1.0, clip_norm=0.75).update(net.params if blocks else dict(net.params), grads)
    moved = {key: start[key] - end for key, end in off(backend, net.params).items()}
    # One factor for all arrays: the direction stays.
    factor = 0.75 / whole_norm(gradient)
    assert factor < 0.1
    tolerance = 1e-12 if dtype == "float64" else 1e-6
    assert_close(moved, {key: factor * g for key, g in gradient.items()}, rtol=tolerance)
    assert whole_norm(moved) == pytest.approx(0.75, rel=tolerance)


@pytest.mark.parametrize("blocks", [True, False])
def test_a_short_gradient_is_left_alone(backend, rng, blocks):
    ends = []
    for clip_norm in (None, 1e3):
        net = network("float32")
        fill(backend, net.grads, np.random.default_rng(5))
        params, grads = (net.params, net.grads) if blocks else (dict(net.params), dict(net.grads))
        SGD(0.3, clip_norm=clip_norm).update(params, grads)
        ends.append(off(backend, net.params))
    assert_same(*ends)


def test_clipping_comes_before_decay(backend):
    params = on(backend, {"W": np.full((2, 2), 8.0)})
    SGD(1.0, weight_decay=0.5, clip_norm=1.0).update(
        params, on(backend, {"W": np.full((2, 2), 3.0)})
    )
    np.testing.assert_allclose(backend.to_numpy(params["W"]), 8 - 0.5 - 0.5 * 8)


def test_a_gradient_of_zero_can_be_clipped(backend, rng):
    start = draw(rng)
    params = on(backend, start)
    SGD(1.0, clip_norm=1.0).update(params, on(backend, {k: 0 * a for k, a in start.items()}))
    assert_same(off(backend, params), start)


def test_no_limit_is_no_clipping(backend, rng):
    start, gradient = draw(rng), draw(rng)
    params = on(backend, start)
    try:
        optimizer = SGD(1.0, clip_norm=math.inf)
    except ArgumentError:
        return  # to refuse it is as good
    optimizer.update(params, on(backend, gradient))
    assert_close(off(backend, params), {key: start[key] - gradient[key] for key in start})


def test_gradient_norm(backend, rng):
    gradient = draw(rng)
    norm = gradient_norm(on(backend, gradient))
    assert norm.shape == ()
    assert norm.dtype == "float64"
    assert backend.item(norm) == pytest.approx(whole_norm(gradient))
    net = network("float32")
    gradient = fill(backend, net.grads, rng)
    assert gradient_norm(net.grads).dtype == "float32"
    assert backend.item(gradient_norm(net.grads)) == pytest.approx(whole_norm(gradient), rel=1e-6)


def test_gradient_norm_of_half_precision(backend):
    """300^2 is beyond float16, and so is the sum."""
    norm = gradient_norm(on(backend, {"W": np.full((64, 64), 300, dtype=np.float16)}))
    assert norm.dtype == "float32"
    assert backend.item(norm) == pytest.approx(300 * 64)


# ---- going on later ----------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", RULES)
def test_it_goes_on_bit_for_bit(backend, name, dtype, blocks):
    rng = np.random.default_rng(8)
    net, later = network(dtype), network(dtype)
    whole = make(name, weight_decay=0.01)
    end = {}
    for step in range(STEPS):
        fill(backend, net.grads, rng)
        if step == 4:
            saved = whole.state_dict()
            restored = make(name, weight_decay=0.01, learning_rate=7.0)
            restored.load_state_dict(saved)
            for key, view in net.params.items():
                later.params[key] = view
        if step >= 4:
            for key, g in net.grads.items():
                later.grads[key] = g
            params, grads = later.params, later.grads
            if not blocks:
                params, grads = dict(params), dict(grads)
            restored.update(params, grads)
        whole.update(net.params, net.grads)
    end = off(backend, net.params)
    assert_same(off(backend, later.params), end)
    assert restored.iteration == whole.iteration == STEPS
    assert restored.learning_rate == whole.learning_rate


@pytest.mark.parametrize("target", ["numpy", "strict", "generic"])
@pytest.mark.parametrize("name", RULES)
def test_it_goes_on_on_another_backend(backend, rng, name, target):
    start, steps = draw(rng), [draw(rng) for _ in range(6)]
    whole = make(name)
    params = on(backend, start)
    for step in steps[:3]:
        whole.update(params, on(backend, step))
    saved, middle = whole.state_dict(), off(backend, params)
    for step in steps[3:]:
        whole.update(params, on(backend, step))
    with xpdl.use_backend(target) as there:
        moved = make(name)
        moved.load_state_dict(saved)
        elsewhere = on(there, middle)
        for step in steps[3:]:
            moved.update(elsewhere, on(there, step))
        for arrays in moved.state.values():
            assert all(there.owns(a) for a in arrays.values())
        end = off(there, elsewhere)
    if backend.name == "cupy":
        assert_close(end, off(backend, params), rtol=1e-12)
    else:
        assert_same(end, off(backend, params))


@pytest.mark.parametrize("name", RULES)
def test_what_was_saved_is_a_copy_on_the_host(backend, rng, name):
    net = network()
    optimizer = make(name)
    fill(backend, net.grads, rng)
    optimizer.update(net.params, net.grads)
    saved = optimizer.state_dict()
    assert set(saved) == {"rule", "iteration", "learning_rate", "state"}
    assert saved["rule"] == name
    assert saved["iteration"] == 1
    assert json.dumps([saved["rule"], saved["iteration"], saved["learning_rate"]])
    assert set(saved["state"]) == set(type(optimizer).slots)
    before = {}
    for slot, arrays in saved["state"].items():
        assert list(arrays) == list(net.params)
        for key, a in arrays.items():
            assert isinstance(a, np.ndarray)
            assert a.shape == net.params[key].shape
            before[slot, key] = a.copy()
    restored = make(name)
    restored.load_state_dict(saved)
    for each in (optimizer, restored):
        each.update(net.params, net.grads)
    for (slot, key), a in before.items():
        np.testing.assert_array_equal(saved["state"][slot][key], a)


@pytest.mark.parametrize("name", RULES)
def test_saving_twice_without_a_step_between_loses_nothing(backend, rng, name):
    params = on(backend, draw(rng))
    optimizer = make(name)
    optimizer.update(params, on(backend, draw(rng)))
    saved = optimizer.state_dict()
    restored = make(name)
    restored.load_state_dict(saved)
    again = restored.state_dict()
    assert {key: again[key] for key in again if key != "state"} == {
        key: saved[key] for key in saved if key != "state"
    }
    assert set(again["state"]) == set(saved["state"])
    for slot, arrays in saved["state"].items():
        assert_same(again["state"][slot], arrays)


@pytest.mark.parametrize("name", RULES)
def test_a_state_from_before_the_first_step_starts_afresh(backend, rng, name):
    start, gradient = draw(rng), draw(rng)
    used, new = make(name), make(name)
    params = on(backend, start)
    used.update(params, on(backend, draw(rng)))
    used.load_state_dict(new.state_dict())
    assert used.iteration == 0
    ends = []
    for optimizer in (used, new):
        params = on(backend, start)
        optimizer.update(params, on(backend, gradient))
        ends.append(off(backend, params))
    assert_same(*ends)


@pytest.mark.parametrize("name", RULES)
def test_a_loaded_state_replaces_what_was_there(backend, rng, name):
    """A roll back: used further, then set back to what was saved."""
    start, steps = draw(rng), [draw(rng) for _ in range(4)]
    optimizer = make(name)
    params = on(backend, start)
    optimizer.update(params, on(backend, steps[0]))
    saved, middle = optimizer.state_dict(), off(backend, params)
    ends = []
    for _ in range(2):
        optimizer.load_state_dict(saved)
        params = on(backend, middle)
        for step in steps[1:]:
            optimizer.update(params, on(backend, step))
        ends.append(off(backend, params))
        assert optimizer.iteration == 4
    assert_same(*ends)
    assert_close(ends[0], by_formula(*RULES[name][2:], start, steps, dict.fromkeys(SHAPES, 0.0)))


@pytest.mark.parametrize("name", RULES)
def test_the_state_of_another_rule_is_refused(backend, rng, name):
    params = on(backend, draw(rng))
    optimizer = make(name)
    optimizer.update(params, on(backend, draw(rng)))
    before = optimizer.state_dict()
    for other in RULES:
        if other != name:
            with pytest.raises(ModelFileError, match=f"of '{other}', not of '{name}'"):
                optimizer.load_state_dict(make(other, learning_rate=0.7).state_dict())
    after = optimizer.state_dict()
    assert after["iteration"] == before["iteration"] == 1
    assert after["learning_rate"] == before["learning_rate"]
    for slot, arrays in before["state"].items():
        assert_same(after["state"][slot], arrays)


def test_a_state_with_other_slots_is_refused(backend, rng):
    optimizer = Adam()
    optimizer.update(on(backend, draw(rng)), on(backend, draw(rng)))
    saved = optimizer.state_dict()
    lacking = {**saved, "state": {"m": saved["state"]["m"]}}
    with pytest.raises(ModelFileError, match=r"slots \['m'\], Adam wants \['m', 'v'\]"):
        Adam().load_state_dict(lacking)


@pytest.mark.parametrize("key", ["rule", "iteration", "learning_rate", "state"])
def test_a_state_without_an_entry_is_refused(rng, key):
    optimizer = Adam()
    optimizer.update(draw(rng), draw(rng))
    saved = optimizer.state_dict()
    del saved[key]
    with pytest.raises(ModelFileError):
        Adam().load_state_dict(saved)


@pytest.mark.parametrize("change", ["lacking", "renamed", "reshaped", "more"])
def test_a_state_of_other_parameters_changes_nothing(backend, rng, change):
    shapes = dict(SHAPES)
    if change == "lacking":
        del shapes["affine1.b"]
    elif change == "renamed":
        shapes["affine2.b"] = shapes.pop("affine1.b")
    elif change == "reshaped":
        shapes["affine1.b"] = (6,)
    else:
        shapes["affine2.W"] = (5, 5)
    there = Adam()
    there.update(on(backend, draw(rng, shapes)), on(backend, draw(rng, shapes)))
    here = Adam()
    start = draw(rng)
    params = on(backend, start)

    def go_on():
        here.load_state_dict(there.state_dict())
        here.update(params, on(backend, draw(rng)))

    with pytest.raises(ModelFileError, match=r"affine[12]\.[Wb]"):
        go_on()
    assert_same(off(backend, params), start)
    assert here.iteration <= 1
    assert not here.state


# ---- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in RULES if name != "SGD"])
def test_another_network_s_parameters_are_refused(backend, rng, name):
    optimizer = make(name)
    optimizer.update(on(backend, draw(rng)), on(backend, draw(rng)))
    shapes = {"affine1.W": (4, 5), "affine9.b": (5,)}
    start = draw(rng, shapes)
    params = on(backend, start)
    with pytest.raises(ArgumentError, match=r"affine9\.b.* make a new optimizer"):
        optimizer.update(params, on(backend, draw(rng, shapes)))
    assert_same(off(backend, params), start)
    assert optimizer.iteration == 1


@pytest.mark.parametrize("units", [4, 40])
@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("name", ["Momentum", "Adam"])
def test_a_network_of_the_same_names_and_other_shapes_is_refused(backend, rng, name, blocks, units):
    """4 units fill the same room in a buffer as 5, 40 do not."""
    first, second = network(), network(units=units)
    optimizer = make(name)
    fill(backend, first.grads, rng)
    optimizer.update(first.params, first.grads)
    fill(backend, second.grads, rng)
    memory, start = optimizer.state_dict(), off(backend, second.params)
    params, grads = second.params, second.grads
    if not blocks:
        params, grads = dict(params), dict(grads)
    with pytest.raises(XpdlError, match=r"affine[12]\.[Wb].*make a new optimizer"):
        optimizer.update(params, grads)
    assert_same(off(backend, second.params), start)
    assert optimizer.iteration == 1
    for slot, arrays in memory["state"].items():
        assert_same(off(backend, optimizer.state[slot]), arrays)


def test_sgd_remembers_nothing_and_serves_any_network(backend, rng):
    optimizer = SGD(0.5)
    for shapes in (SHAPES, {"W": (2, 2)}):
        start, gradient = draw(rng, shapes), draw(rng, shapes)
        params = on(backend, start)
        optimizer.update(params, on(backend, gradient))
        expected = {key: start[key] - 0.5 * gradient[key] for key in start}
        assert_close(off(backend, params), expected)
    assert optimizer.state_dict()["state"] == {}


@pytest.mark.parametrize("name", RULES)
def test_misfits_change_nothing(backend, rng, name):
    start, gradient = draw(rng), draw(rng)
    params = on(backend, start)
    optimizer = make(name)
    lacking = {key: g for key, g in gradient.items() if key != "conv1.b"}
    with pytest.raises(ArgumentError, match=r"conv1\.b stands in one only"):
        optimizer.update(params, on(backend, lacking))
    with pytest.raises(ArgumentError, match=r"other\.W stands in one only"):
        optimizer.update(params, on(backend, {**gradient, "other.W": gradient["conv1.b"]}))
    with pytest.raises(ShapeError, match=r"gradient of affine1\.b .*\(5,\).* got \(1,\)"):
        optimizer.update(params, on(backend, {**gradient, "affine1.b": np.ones(1)}))
    with pytest.raises(ArgumentError, match="params is empty"):
        optimizer.update({}, {})
    assert_same(off(backend, params), start)
    assert optimizer.iteration == 0
    assert not optimizer.state


def test_arrays_of_two_backends_are_refused(rng):
    gradient = draw(rng)
    with xpdl.use_backend("strict") as strict:
        params = on(strict, draw(rng))
        with pytest.raises(xpdl.errors.BackendMismatchError):
            Adam().update(params, gradient)


# ---- names and settings ------------------------------------------------------------------------


@pytest.mark.parametrize("name", RULES)
def test_optimizers_by_name(name):
    rule = RULES[name][0]
    for spelling in (name, name.lower(), name.upper()):
        assert type(get_optimizer(spelling)) is rule
    made = get_optimizer(name, learning_rate=0.5, weight_decay=0.25, clip_norm=2, decay_all=True)
    assert made.learning_rate == 0.5
    assert made.weight_decay == 0.25
    assert made.clip_norm == 2
    assert made.decay_all is True


def test_an_optimizer_is_its_own_choice():
    mine = Adam()
    assert get_optimizer(mine) is mine
    with pytest.raises(ArgumentError, match=r"^learning_rate: give these to Adam"):
        get_optimizer(mine, learning_rate=0.1)


def test_an_unknown_name_lists_the_choices():
    with pytest.raises(UnknownNameError) as caught:
        get_optimizer("admw")
    message = str(caught.value)
    assert message.startswith("unknown optimizer 'admw'")
    assert all(name in message for name in optimizers.BY_NAME)
    assert "Did you mean 'adamw'?" in message


@pytest.mark.parametrize("bad", [None, 3, SGD, ["adam"]])
def test_what_is_no_optimizer_is_refused(bad):
    with pytest.raises(UnknownNameError, match="unknown optimizer"):
        get_optimizer(bad)


@pytest.mark.parametrize(("name", "option"), [("sgd", "momentum"), ("adam", "speed")])
def test_an_unknown_option_is_refused(name, option):
    with pytest.raises(ArgumentError, match=option):
        get_optimizer(name, **{option: 0.9})


NUMBERS = [
    *((rule, "learning_rate") for rule, *_ in RULES.values()),
    *((rule, "weight_decay") for rule, *_ in RULES.values()),
    *((rule, "epsilon") for rule in (AdaGrad, RMSProp, Adam, AdamW)),
]
FRACTIONS = [
    (Momentum, "momentum"),
    (Nesterov, "momentum"),
    (RMSProp, "decay_rate"),
    (Adam, "beta1"),
    (Adam, "beta2"),
    (AdamW, "beta1"),
    (AdamW, "beta2"),
]


@pytest.mark.parametrize("bad", [-1e-9, math.nan, math.inf, "0.1", None])
@pytest.mark.parametrize(("rule", "argument"), NUMBERS + FRACTIONS)
def test_bad_numbers_are_refused(rule, argument, bad):
    with pytest.raises(
        ArgumentError, match=f"^{argument} must be a number (of at least|above) 0.*, got"
    ):
        rule(**{argument: bad})


@pytest.mark.parametrize("bad", [1, 1.0, 2.5])
@pytest.mark.parametrize(("rule", "argument"), FRACTIONS)
def test_bad_fractions_are_refused(rule, argument, bad):
    with pytest.raises(
        ArgumentError, match=f"^{argument} must be a number of at least 0 and below 1, got"
    ):
        rule(**{argument: bad})


@pytest.mark.parametrize("bad", [0, -1.0, math.nan, "1"])
def test_a_bad_clip_norm_is_refused(bad):
    with pytest.raises(ArgumentError, match=r"^clip_norm must be"):
        SGD(clip_norm=bad)


@pytest.mark.parametrize("size", [2e19, 2e38, 1e-30])
def test_gradients_are_clipped_whose_squares_are_no_floats(backend, size):
    grads = {"W": backend.asarray([[3 / 4 * size, size]], dtype="float32")}
    assert backend.item(gradient_norm(grads)) == pytest.approx(1.25 * size, rel=1e-6)
    params = {"W": backend.asarray([[0.0, 0.0]], dtype="float32")}
    SGD(1.0, clip_norm=1.25).update(params, grads)
    factor = -min(1.0, size)
    np.testing.assert_allclose(backend.to_numpy(params["W"]), [[0.75 * factor, factor]], rtol=1e-5)
