"""Initial weights: their spread, their fans, and that they are born on the host."""

from __future__ import annotations

import math

import numpy as np
import pytest

import xpdl
from xpdl import initializers
from xpdl.errors import ArgumentError, UnknownNameError
from xpdl.functions import relu
from xpdl.initializers import Constant, He, Normal, Xavier, get_initializer
from xpdl.layers import Affine, Convolution
from xpdl.models import DeepConvNet, MultiLayerNet, TwoLayerNet
from xpdl.network import WEIGHT_STREAM

FAN_IN, FAN_OUT = 50, 200
EXPECTED = {
    "he": math.sqrt(2 / FAN_IN),
    "relu": math.sqrt(2 / FAN_IN),
    "xavier": math.sqrt(1 / FAN_IN),
    "sigmoid": math.sqrt(1 / FAN_IN),
    "he-uniform": math.sqrt(2 / FAN_IN),
    "xavier-uniform": math.sqrt(1 / FAN_IN),
    "glorot": math.sqrt(2 / (FAN_IN + FAN_OUT)),
    "glorot-uniform": math.sqrt(2 / (FAN_IN + FAN_OUT)),
    0.01: 0.01,
    1: 1.0,
}
SHAPE = (400, 500)
COUNT = SHAPE[0] * SHAPE[1]


def fourth_moment(draws):
    return float(((draws / draws.std()) ** 4).mean())


def test_every_name_is_tried():
    assert set(initializers.BY_NAME) == {name for name in EXPECTED if isinstance(name, str)}


@pytest.mark.parametrize("choice", EXPECTED)
def test_spread_of_draws(rng, choice):
    draws = get_initializer(choice).draw(SHAPE, FAN_IN, FAN_OUT, rng)
    assert isinstance(draws, np.ndarray)
    assert draws.dtype == np.float64
    assert draws.shape == SHAPE
    std = EXPECTED[choice]
    # Five standard errors of a mean and of a standard deviation.
    assert abs(draws.mean()) < 5 * std / math.sqrt(COUNT)
    assert draws.std() == pytest.approx(std, rel=5 / math.sqrt(2 * COUNT))


@pytest.mark.parametrize("choice", EXPECTED)
def test_normal_or_uniform(rng, choice):
    draws = get_initializer(choice).draw(SHAPE, FAN_IN, FAN_OUT, rng)
    if str(choice).endswith("uniform"):
        limit = math.sqrt(3) * EXPECTED[choice]
        assert 0.999 * limit < abs(draws).max() <= limit
        assert fourth_moment(draws) == pytest.approx(1.8, rel=0.02)
    else:
        assert abs(draws).max() > 3.5 * EXPECTED[choice]
        assert fourth_moment(draws) == pytest.approx(3, rel=0.05)


def test_uniform_he_and_glorot_have_the_limits_of_their_authors(rng):
    for initializer, limit in (
        (He(uniform=True), math.sqrt(6 / FAN_IN)),
        (Xavier(average=True, uniform=True), math.sqrt(6 / (FAN_IN + FAN_OUT))),
    ):
        draws = initializer.draw(SHAPE, FAN_IN, FAN_OUT, rng)
        assert 0.999 * limit < abs(draws).max() <= limit


def test_constant(rng):
    before = rng.bit_generator.state
    draws = Constant(value=1.5).draw((2, 3), 1, 1, rng)
    np.testing.assert_array_equal(draws, np.full((2, 3), 1.5))
    assert rng.bit_generator.state == before
    np.testing.assert_array_equal(Constant().draw((2,), 1, 1, rng), [0, 0])


def test_zero_deviation(rng):
    np.testing.assert_array_equal(get_initializer(0.0).draw((5,), 1, 1, rng), np.zeros(5))


def test_choices():
    assert get_initializer("HE") == He()
    assert get_initializer("relu") == get_initializer("he")
    assert get_initializer("sigmoid") == get_initializer("xavier")
    assert get_initializer(0.5) == Normal(deviation=0.5)
    mine = Xavier(average=True)
    assert get_initializer(mine) is mine


def test_an_unknown_name_lists_the_choices():
    with pytest.raises(UnknownNameError) as caught:
        get_initializer("hee")
    message = str(caught.value)
    assert "weight initialisation 'hee'" in message
    assert all(name in message for name in initializers.BY_NAME)
    assert "Did you mean 'he'?" in message


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf, -math.inf])
def test_a_bad_deviation_is_refused(bad):
    with pytest.raises(ArgumentError, match=r"^weight_init must be a standard deviation >= 0, got"):
        get_initializer(bad)


@pytest.mark.parametrize("bad", [True, None, [0.1], np.zeros(3)])
def test_what_is_no_choice_is_refused(bad):
    with pytest.raises(ArgumentError, match=r"^weight_init must be a name"):
        get_initializer(bad)


# ---- in layers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "std"),
    [("he", math.sqrt(2 / 288)), ("xavier", math.sqrt(1 / 288)), ("glorot", math.sqrt(2 / 1440))],
)
def test_fans_of_a_convolution(backend, rng, choice, std):
    """Each output sees 32 * 3 * 3 numbers; each input feeds 128 * 3 * 3."""
    layer = Convolution(128, 3, weight_init=choice)
    layer.build((32, 5, 5), rng)
    W = backend.to_numpy(layer.params["W"])
    assert W.std() == pytest.approx(std, rel=5 / math.sqrt(2 * W.size))


@pytest.mark.parametrize(
    ("choice", "std"),
    [("he", math.sqrt(2 / 300)), ("xavier", math.sqrt(1 / 300)), ("glorot", math.sqrt(2 / 400))],
)
def test_fans_of_an_affine_layer(backend, rng, choice, std):
    layer = Affine(100, weight_init=choice)
    layer.build((3, 10, 10), rng)
    W = backend.to_numpy(layer.params["W"])
    assert W.std() == pytest.approx(std, rel=5 / math.sqrt(2 * W.size))
    np.testing.assert_array_equal(backend.to_numpy(layer.params["b"]), np.zeros(100))


def test_first_values_are_those_of_the_host_generator(backend):
    """Whatever the device: the formula, with the seed's own numbers in the network's order."""
    network = TwoLayerNet((6,), 5, 4, weight_init_std=0.1, seed=11)
    host = np.random.default_rng([WEIGHT_STREAM, 11])
    for name, shape in (("affine1", (6, 5)), ("affine2", (5, 4))):
        expected = (0.1 * host.standard_normal(shape)).astype(np.float32)
        np.testing.assert_array_equal(backend.to_numpy(network.params[f"{name}.W"]), expected)
        np.testing.assert_array_equal(
            backend.to_numpy(network.params[f"{name}.b"]), np.zeros(shape[1])
        )


def test_same_numbers_on_every_backend(backend):
    here = DeepConvNet((1, 12, 12), 7, 3, seed=4)
    with xpdl.use_backend("generic"):
        plain = DeepConvNet((1, 12, 12), 7, 3, seed=4)
    assert list(here.params) == list(plain.params)
    for name, expected in plain.params.items():
        np.testing.assert_array_equal(backend.to_numpy(here.params[name]), expected, err_msg=name)


def test_seeds_differ(backend):
    first, same, other = (
        backend.to_numpy(TwoLayerNet((6,), 5, 4, seed=seed).params["affine1.W"])
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, same)
    assert (first != other).all()


@pytest.mark.parametrize(
    ("options", "std"),
    [
        ({"weight_init_std": "relu", "activation": "sigmoid"}, math.sqrt(2 / 300)),
        ({"activation": "sigmoid"}, math.sqrt(1 / 300)),
        ({"activation": "tanh"}, math.sqrt(1 / 300)),
        ({}, math.sqrt(2 / 300)),
        ({"weight_init_std": 0.05}, 0.05),
    ],
)
def test_a_network_starts_as_suits_its_activation(backend, options, std):
    network = MultiLayerNet((300,), [200], **options)
    W = backend.to_numpy(network.params["affine1.W"])
    assert W.std() == pytest.approx(std, rel=5 / math.sqrt(2 * W.size))


def test_relu_activations_in_the_book(rng):
    """Figure 6-14: five layers of 100 with std 0.01 fade away, with He they do not."""
    book = [0.0396, 0.00290, 0.000197, 1.32e-5, 9.46e-7]
    small, he = get_initializer(0.01), get_initializer("relu")
    x = y = rng.standard_normal((1000, 100))
    kept = []
    for printed in book:
        x = relu(x @ small.draw((100, 100), 100, 100, rng))
        y = relu(y @ he.draw((100, 100), 100, 100, rng))
        # The book's is one draw of a random number whose logarithm varies by about a tenth.
        assert x.mean() == pytest.approx(printed, rel=0.35)
        kept.append(y.mean())
    assert min(kept) > 0.4
