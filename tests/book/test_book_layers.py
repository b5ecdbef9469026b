"""The layers of the book's scripts: gradients against differences, and types, on every backend."""

from __future__ import annotations

import numpy as np
import pytest

from xpdl.book.arrays import col2im, im2col, smooth_curve
from xpdl.book.functions import cross_entropy_error, sigmoid, softmax
from xpdl.book.gradient import numerical_gradient
from xpdl.book.layers import (
    Affine,
    BatchNormalization,
    Convolution,
    Dropout,
    Pooling,
    Relu,
    Sigmoid,
    SoftmaxWithLoss,
)
from xpdl.book.optimizer import Adam


def layers(rng):
    return {
        "Relu": (Relu(), (4, 3)),
        "Sigmoid": (Sigmoid(), (4, 3)),
        "Affine": (Affine(rng.random((6, 4)), rng.random(4)), (3, 6)),
        "Affine of images": (Affine(rng.random((12, 4)), rng.random(4)), (2, 3, 2, 2)),
        "BatchNormalization": (BatchNormalization(rng.random(3), rng.random(3)), (5, 3)),
        "by number": (BatchNormalization(rng.random(12), rng.random(12)), (5, 3, 2, 2)),
        "by channel": (BatchNormalization(rng.random(3), rng.random(3)), (5, 3, 2, 2)),
        "Convolution": (Convolution(rng.random((2, 3, 3, 3)), rng.random(2)), (2, 3, 5, 4)),
        "strided": (Convolution(rng.random((2, 1, 2, 2)), rng.random(2), 2, 1), (2, 1, 5, 5)),
        "Pooling": (Pooling(2, 2), (2, 3, 5, 4)),
        "padded": (Pooling(3, 2, stride=2, pad=1), (2, 2, 5, 5)),
        "Dropout": (Dropout(0.3), (4, 5)),
    }


@pytest.mark.parametrize("name", layers(np.random.default_rng(0)))
def test_gradients_are_those_of_differences(name, backend, rng):
    layer, shape = layers(rng)[name]
    x = rng.standard_normal(shape)
    y = layer.forward(x)
    weights = rng.standard_normal(y.shape)

    def f(_):
        np.random.seed(3)  # the same mask at each call
        return float((layer.forward(x) * weights).sum())

    f(x)
    before = x.copy(), weights.copy()
    dx = layer.backward(weights)
    assert isinstance(y, np.ndarray)
    assert isinstance(dx, np.ndarray)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(weights, before[1])
    np.testing.assert_allclose(dx, numerical_gradient(f, x), rtol=1e-6, atol=1e-7)
    for parameter in ("W", "b", "gamma", "beta"):
        if hasattr(layer, parameter):
            wanted = numerical_gradient(f, getattr(layer, parameter))
            found = getattr(layer, f"d{parameter}")
            assert found.dtype == np.float64
            np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("shape", [(5, 4), (4,)])
def test_the_gradient_of_the_loss_is_that_of_differences(shape, one_hot, rng):
    x, layer = rng.standard_normal(shape), SoftmaxWithLoss()
    t = rng.integers(0, 4, shape[:-1])
    if one_hot:
        t = np.eye(4)[t]
    layer.forward(x, t)
    dx = layer.backward(3.0)
    wanted = 3 * numerical_gradient(lambda x: layer.forward(x, t), x)
    np.testing.assert_allclose(dx, wanted, atol=3e-5)  # the loss has 1e-7 in its logarithm


def test_a_convolution_stays_in_float32_unless_float64_is_asked_for(backend, rng, monkeypatch):
    x, W = rng.random((2, 3, 6, 6), dtype=np.float32), rng.random((4, 3, 3, 3))
    layer = Convolution(W, np.zeros(4), pad=1)
    y = layer.forward(x)
    dx = layer.backward(np.ones(y.shape))
    assert (y.dtype, dx.dtype, layer.dW.dtype) == (np.float32, np.float32, np.float64)
    assert Convolution(W, 0).forward(x.astype(np.float64)).dtype == np.float64
    assert Convolution(W, 0).forward(x.astype(np.float16)).dtype == np.float32
    assert Convolution(W, 0).forward((255 * x).astype(np.uint8)).dtype == np.float64
    monkeypatch.setenv("XPDL_DTYPE", "float64")
    assert Convolution(W, 0).forward(x).dtype == np.float64


def test_other_layers_keep_images_float32_and_else_have_numpys_types(backend, rng):
    x = rng.random((2, 3, 4, 4), dtype=np.float32)
    for layer in (Relu(), Pooling(2, 2)):
        y = layer.forward(x)
        assert y.dtype == layer.backward(np.ones(y.shape, np.float32)).dtype == np.float32
    affine = Affine(rng.random((48, 5)), np.zeros(5))
    for flat, given in ((x, np.float32), (x.reshape(2, 48), np.float64)):
        y = affine.forward(flat)
        assert y.dtype == given
        assert affine.backward(y).dtype == np.float32
        assert affine.dW.dtype == affine.db.dtype == np.float64
    norm = BatchNormalization(np.ones(3), np.zeros(3))
    assert norm.forward(x).dtype == norm.backward(x).dtype == np.float32


def test_what_a_layer_gives_is_not_changed_by_later_calls(backend, rng):
    x = rng.random((2, 1, 6, 6), dtype=np.float32)
    for layer in (Convolution(rng.random((2, 1, 3, 3)), 0), Relu(), Pooling(2, 2)):
        y = layer.forward(x)
        kept = y.copy()
        layer.forward(2 * x)
        np.testing.assert_array_equal(y, kept)


def test_parameters_are_the_callers_arrays(backend, rng):
    W, b = rng.random((2, 1, 3, 3)), np.zeros(2)
    layer, x = Convolution(W, b), rng.random((1, 1, 3, 3))
    before = layer.forward(x)
    W *= 2
    b += 1
    np.testing.assert_allclose(layer.forward(x), 2 * before + 1)


def test_running_statistics_can_be_given():
    layer = BatchNormalization(np.ones(1), np.zeros(1), 0.9, np.array([3.0]), np.array([4.0]))
    x = np.array([[5.0], [1.0]])
    np.testing.assert_allclose(layer.forward(x, train_flg=False), [[1], [-1]], rtol=1e-6)
    layer.forward(x)
    np.testing.assert_allclose([layer.running_mean, layer.running_var], [[3.0], [4.0]])


def test_functions_do_not_overflow_and_take_numbers():
    np.testing.assert_allclose(softmax(np.array([1010, 1000, 990])).sum(), 1)
    assert sigmoid(-1000) == 0
    assert sigmoid(1000) == 1
    assert sigmoid(np.float32(0)).dtype == np.float32
    np.testing.assert_allclose(softmax(np.array([3, 0], np.uint8))[0], 1 / (1 + np.exp(-3)))
    assert cross_entropy_error(np.array([0.1, 0.6, 0.3]), 1) == pytest.approx(0.51, abs=0.01)


def test_integers_are_warned_of_where_a_difference_is_taken():
    with pytest.warns(UserWarning, match=r"write np.array\(\[3.0, 4.0\]\)"):
        numerical_gradient(lambda x: (x**2).sum(), np.array([3, 4]))


def test_a_difference_puts_x_back_when_f_fails():
    x = np.array([1.0, 2.0])
    with pytest.raises(ZeroDivisionError):
        numerical_gradient(lambda x: 1 / 0, x)
    assert x.tolist() == [1, 2]


def test_rows_of_windows_keep_their_type_and_must_fit(backend, rng):
    x = rng.random((2, 3, 5, 5), dtype=np.float32)
    col = im2col(x, 3, 3, 2, 1)
    assert col.dtype == col2im(col, x.shape, 3, 3, 2, 1).dtype == np.float32
    assert im2col(np.ones((1, 1, 3, 3), int), 2, 2).dtype == np.float64
    with pytest.raises(ValueError, match="col must be"):
        col2im(col, x.shape, 2, 2)


@pytest.mark.parametrize("length", [1, 3, 12])
def test_a_smooth_curve_is_as_long_as_the_curve(length):
    assert smooth_curve([2.0] * length) == pytest.approx([2.0] * length)


def test_a_rate_may_be_changed_between_steps():
    optimizer, params = Adam(lr=1.0), {"W": np.ones(2)}
    optimizer.update(params, {"W": np.ones(2)})
    optimizer.lr = 0.0
    before = params["W"].copy()
    optimizer.update(params, {"W": np.ones(2)})
    np.testing.assert_array_equal(params["W"], before)
