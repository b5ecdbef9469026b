"""Numerical gradients, and the check that catches a wrong backward pass."""

from __future__ import annotations

import math

import numpy as np
import pytest

from xpdl import Network
from xpdl.errors import ArgumentError, DTypeError
from xpdl.functions import cross_entropy_error, softmax
from xpdl.gradient import gradient_check, numerical_gradient
from xpdl.layers import (
    Affine,
    AveragePooling,
    BatchNormalization,
    Convolution,
    Dropout,
    Flatten,
    GlobalAveragePooling,
    MaxPooling,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    Softmax,
    Tanh,
)
from xpdl.losses import IdentityWithLoss, SoftmaxWithLoss


def squares(x):
    return (x * x).sum()


# ---- numerical gradient ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("point", "expected"), [((3, 4), (6, 8)), ((0, 2), (0, 4)), ((3, 0), (6, 0))]
)
def test_sum_of_squares_in_the_book(backend, point, expected):
    x = backend.asarray(np.array(point, dtype=np.float64))
    gradient = numerical_gradient(squares, x)
    assert gradient.dtype == "float64"
    np.testing.assert_allclose(backend.to_numpy(gradient), expected, atol=1e-9)


@pytest.mark.parametrize(("point", "expected"), [(5, 0.2), (10, 0.3)])
def test_derivative_in_the_book(backend, point, expected):
    """Section 4.3.2: y = 0.01 x^2 + 0.1 x, of a number without axes."""
    x = backend.asarray(np.array(point, dtype=np.float64))
    slope = numerical_gradient(lambda x: 0.01 * x * x + 0.1 * x, x)
    assert slope.shape == ()
    assert backend.item(slope) == pytest.approx(expected, abs=1e-10)


def test_simple_net_in_the_book(backend):
    """Section 4.4.2: the gradient of a loss by a matrix of weights."""
    W = backend.asarray(
        np.array([[0.47355232, 0.9977393, 0.84668094], [0.85557411, 0.03563661, 0.69422093]])
    )
    x, t = backend.asarray(np.array([[0.6, 0.9]])), backend.asarray(np.array([[0.0, 0, 1]]))

    def loss(W):
        return cross_entropy_error(softmax(x @ W), t)

    assert backend.item(loss(W)) == pytest.approx(0.92806853663411326)
    np.testing.assert_allclose(
        backend.to_numpy(numerical_gradient(loss, W)),
        [[0.21924763, 0.14356247, -0.36281009], [0.32887144, 0.2153437, -0.54421514]],
        atol=2e-7,  # the book's loss had no 1e-7 beside its probabilities yet
    )


@pytest.mark.parametrize(
    ("rate", "end", "tolerance"),
    [(0.1, (-6.11110793e-10, 8.14814391e-10), 1e-4), (1e-10, (-2.99999994, 3.99999992), 1e-8)],
)
def test_gradient_descent_in_the_book(backend, rate, end, tolerance):
    x = backend.asarray(np.array([-3.0, 4.0]))
    for _ in range(100):
        x -= rate * numerical_gradient(squares, x)
    np.testing.assert_allclose(backend.to_numpy(x), end, rtol=tolerance)


def test_gradient_descent_with_too_high_a_rate(backend):
    x = backend.asarray(np.array([-3.0, 4.0]))
    for _ in range(100):
        x -= 10 * numerical_gradient(squares, x)
    assert abs(backend.to_numpy(x)).min() > 1e10


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3), (2, 3, 2), (2, 1, 2, 3), (0, 3)])
def test_any_number_of_axes(backend, rng, shape):
    weights, x = rng.standard_normal(shape), rng.standard_normal(shape)
    w, device = backend.asarray(weights), backend.asarray(x.copy())
    gradient = numerical_gradient(lambda x: (w * x * x * x).sum(), device)
    assert gradient.shape == shape
    np.testing.assert_allclose(backend.to_numpy(gradient), 3 * weights * x * x, atol=1e-7)


def test_elements_are_moved_one_at_a_time_and_put_back(backend, rng):
    x = rng.standard_normal((3, 2))
    device = backend.asarray(x.copy())
    moves = []

    def f(seen):
        assert seen is device
        moves.append(backend.to_numpy(seen) - x)
        return seen.sum()

    numerical_gradient(f, device, h=0.25)
    np.testing.assert_array_equal(backend.to_numpy(device), x)
    assert len(moves) == 2 * x.size
    for i, (above, below) in enumerate(zip(moves[::2], moves[1::2], strict=True)):
        expected = np.zeros(x.size)
        expected[i] = 0.25
        np.testing.assert_allclose(above.ravel(), expected, atol=1e-15)
        np.testing.assert_allclose(below.ravel(), -expected, atol=1e-15)


def test_a_view_is_put_back_exactly(backend):
    base = np.array([[0.1, 1e10, 1e-300], [-0.7, 3.3, -1e10]])
    device = backend.asarray(base.copy())
    gradient = numerical_gradient(lambda x: (2 * x).sum() * 0 + (2 * x[0, 0]), device.T)
    np.testing.assert_array_equal(backend.to_numpy(device), base)
    assert gradient.shape == (3, 2)
    np.testing.assert_allclose(backend.to_numpy(gradient), [[2, 0], [0, 0], [0, 0]], atol=1e-9)


def test_f_may_answer_with_a_plain_number(backend):
    x = backend.asarray(np.array([2.0]))
    gradient = numerical_gradient(lambda x: backend.item(squares(x)), x)
    assert backend.item(gradient) == pytest.approx(4)


def test_central_differences_err_by_h_squared(backend):
    """f = x^3 at 1: the error is h^2 to the last digit, where a one-sided one has 3 h."""
    x = backend.asarray(np.array([1.0]))
    for h in (0.1, 0.01):
        gradient = numerical_gradient(lambda x: (x * x * x).sum(), x, h=h)
        assert backend.item(gradient) - 3 == pytest.approx(h * h, rel=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32", "int64", "bool"])
def test_other_types_are_refused(backend, dtype):
    x = backend.asarray(np.ones(2, dtype=dtype))
    with pytest.raises(
        DTypeError, match=f"^x must be float64 for a numerical gradient, got {dtype}"
    ):
        numerical_gradient(squares, x)


@pytest.mark.parametrize("h", [0, -1e-4, math.nan, math.inf])
def test_a_bad_step_is_refused(backend, h):
    x = backend.asarray(np.array([1.0]))
    with pytest.raises(ArgumentError, match=r"^h must be a number above 0"):
        numerical_gradient(squares, x, h=h)


# ---- gradient check ----------------------------------------------------------------------------

IMAGE = (2, 6, 6)


def convolutional():
    return [Convolution(3, 3, pad=1), ReLU(), MaxPooling(2), Affine(4)]


NETWORKS = {
    "affine": lambda: ([Affine(4, weight_init=0.5), Sigmoid(), Affine(3)], (5,), {}),
    "convolution": lambda: (convolutional(), IMAGE, {}),
    "strided": lambda: (
        [Convolution(3, (3, 2), stride=(1, 2), pad=(1, 0)), Tanh(), AveragePooling(3), Affine(3)],
        IMAGE,
        {},
    ),
    "batch norm, rows": lambda: (
        [Affine(4), BatchNormalization(), ReLU(), Affine(3)],
        (5,),
        {},
    ),
    "batch norm, images": lambda: (
        [Convolution(3, 3), BatchNormalization(), Tanh(), GlobalAveragePooling(), Affine(3)],
        IMAGE,
        {},
    ),
    "dropout": lambda: (
        [Affine(6), Dropout(0.4), Sigmoid(), Dropout(0.3, scale_at="training"), Affine(3)],
        (5,),
        {},
    ),
    "weight decay": lambda: (convolutional(), IMAGE, {"weight_decay": 0.3}),
    "nested": lambda: (
        [
            Sequential([Convolution(3, 3, pad=1), Sequential([ReLU(), AveragePooling(2)])]),
            Flatten(),
            Affine(4),
            Softmax(),
            Affine(3),
        ],
        IMAGE,
        {},
    ),
    "residual": lambda: (
        [
            Residual([Convolution(2, 3, pad=1), BatchNormalization(), Tanh()]),
            Residual([Residual([Convolution(2, 1), Tanh()]), Dropout(0.2)]),
            GlobalAveragePooling(),
            Affine(3),
        ],
        IMAGE,
        {},
    ),
    "regression": lambda: (
        [Affine(4), Tanh(), Affine(3)],
        (5,),
        {"loss": IdentityWithLoss(), "weight_decay": 0.1},
    ),
}


def problem(backend, rng, build, batch=4):
    layers, shape, options = build()
    network = Network(layers, shape, dtype="float64", seed=1, **options)
    x = backend.asarray(rng.standard_normal((batch, *shape)))
    if "loss" in options and not network.loss_layer.classifies:
        t = backend.asarray(rng.standard_normal((batch, *network.output_shape)))
    else:
        t = backend.asarray(rng.integers(0, network.output_shape[0], batch))
    return network, x, t


@pytest.mark.parametrize("name", NETWORKS)
def test_a_right_network_passes(backend, rng, name):
    network, x, t = problem(backend, rng, NETWORKS[name])
    difference = gradient_check(network, x, t)
    assert list(difference) == list(network.params)
    assert all(isinstance(d, float) for d in difference.values())
    assert max(difference.values()) < 1e-7
    # That says something only if there are gradients; a bias before a normalisation has none.
    for key, gradient in network.grads.items():
        if not key.endswith(".b"):
            assert abs(backend.to_numpy(gradient)).max() > 1e-4, key


def test_one_hot_targets_pass(backend, rng):
    network, x, _ = problem(backend, rng, NETWORKS["affine"])
    t = backend.asarray(rng.dirichlet(np.ones(3), size=4))
    assert max(gradient_check(network, x, t).values()) < 1e-7


class DoubledWeights(Affine):
    """dL/dW is twice too large."""

    def backward(self, dout):
        dx = super().backward(dout)
        self.grads["W"] *= 2
        return dx


class ForgottenBias(Affine):
    """dL/db is not summed over the batch, but averaged."""

    def backward(self, dout):
        dx = super().backward(dout)
        self.grads["b"] /= len(dout)
        return dx


class OpenReLU(ReLU):
    """Lets the gradient of negative numbers through."""

    def backward(self, dout):
        return dout


class ShallowNormalization(BatchNormalization):
    """Takes mean and deviation for constants."""

    def backward(self, dout):
        super().backward(dout)
        shape = (-1, *(1,) * (dout.ndim - 2))
        return dout * (self.params["gamma"] * self.inverse_std).reshape(shape)


class ShiftedConvolution(Convolution):
    """dL/dW is turned upside down."""

    def backward(self, dout):
        dx = super().backward(dout)
        self.grads["W"][...] = self.grads["W"][:, :, ::-1].copy()
        return dx


class LostWay(Sequential):
    """Adds its input, and forgets that on the way back."""

    def forward(self, x, train=False):
        return x + super().forward(x, train)


class SummedLoss(SoftmaxWithLoss):
    """Its gradient is of the sum, its value the mean."""

    def backward(self, dout=1.0):
        return len(self.y) * super().backward(dout)


WRONG = {
    "weights": (lambda: ([Affine(4), Tanh(), DoubledWeights(3)], (5,), {}), ["affine2.W"]),
    "bias": (lambda: ([ForgottenBias(4), Tanh(), Affine(3)], (5,), {}), ["affine1.b"]),
    "relu": (
        lambda: ([Affine(4), OpenReLU(), Affine(3)], (5,), {}),
        ["affine1.W", "affine1.b"],
    ),
    "normalization": (
        lambda: ([Affine(4), ShallowNormalization(), Tanh(), Affine(3)], (5,), {}),
        ["affine1.W", "affine1.b"],
    ),
    "convolution": (
        lambda: ([ShiftedConvolution(3, 3), Tanh(), Affine(3)], IMAGE, {}),
        ["conv1.W"],
    ),
    "residual": (
        lambda: ([Affine(4), LostWay([Affine(4), Tanh()]), Affine(3)], (5,), {}),
        ["affine1.W", "affine1.b"],
    ),
    "loss": (
        lambda: ([Affine(4), Tanh(), Affine(3)], (5,), {"loss": SummedLoss()}),
        ["affine1.W", "affine1.b", "affine2.W", "affine2.b"],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_backward_is_found_and_named(backend, rng, name):
    build, culprits = WRONG[name]
    network, x, t = problem(backend, rng, build)
    difference = gradient_check(network, x, t)
    assert [name for name, d in difference.items() if d > 1e-4] == culprits
    assert all(d < 1e-7 for name, d in difference.items() if name not in culprits)


def test_forgotten_weight_decay_is_found(backend, rng):
    network, x, t = problem(backend, rng, NETWORKS["affine"])
    network.decayed, plain = (
        lambda loss: plain(loss) + 0.1 * (network.params["affine1.W"] ** 2).sum(),
        network.decayed,
    )
    difference = gradient_check(network, x, t)
    assert difference["affine1.W"] > 1e-2
    assert difference["affine2.W"] < 1e-7


@pytest.mark.parametrize("name", ["batch norm, rows", "residual"])
def test_parameters_state_and_data_stay(backend, rng, name):
    network, x, t = problem(backend, rng, NETWORKS[name])
    network.gradient(x, t)  # running statistics that are not the first ones
    arrays = {**network.params, **network.state, "x": x, "t": t}
    before = {key: backend.to_numpy(array) for key, array in arrays.items()}
    layer_state = [leaf.state for _, leaf in network.body.leaves()]
    gradient_check(network, x, t)
    for key, array in arrays.items():
        np.testing.assert_array_equal(backend.to_numpy(array), before[key], err_msg=key)
    for key, array in network.state.items():
        assert array is arrays[key]
        assert any(array is own for state in layer_state for own in state.values())


def test_gradients_are_left_as_computed(backend, rng):
    network, x, t = problem(backend, rng, NETWORKS["convolution"])
    gradient_check(network, x, t)
    left = {name: backend.to_numpy(gradient) for name, gradient in network.grads.items()}
    for name, gradient in network.gradient(x, t).items():
        np.testing.assert_array_equal(backend.to_numpy(gradient), left[name])


def test_any_seed_holds_the_masks_still(backend, rng):
    network, x, t = problem(backend, rng, NETWORKS["dropout"])
    first = gradient_check(network, x, t, seed=0)
    masks_0 = backend.to_numpy(network.grads["affine1.W"])
    second = gradient_check(network, x, t, seed=5)
    masks_5 = backend.to_numpy(network.grads["affine1.W"])
    assert max(*first.values(), *second.values()) < 1e-7
    assert (masks_0 != masks_5).any()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_network_in_less_than_float64_is_refused_untouched(backend, rng, dtype):
    network = Network([Affine(4), BatchNormalization(), Affine(3)], (5,), dtype=dtype)
    before = {name: backend.to_numpy(a) for name, a in network.state.items()}
    x = backend.asarray(rng.standard_normal((4, 5)), dtype="float32")
    t = backend.asarray(np.array([0, 1, 2, 0]))
    with pytest.raises(DTypeError, match="float64"):
        gradient_check(network, x, t)
    for name, array in network.state.items():
        np.testing.assert_array_equal(backend.to_numpy(array), before[name], err_msg=name)
