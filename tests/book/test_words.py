"""A call in the book's words says what to write instead."""

from __future__ import annotations

import copy
import inspect
import pickle

import numpy as np
import pytest

import xpdl
from xpdl import Trainer
from xpdl.errors import ArgumentError, UnknownParameterError
from xpdl.models import MultiLayerNet, SimpleConvNet, TwoLayerNet, make_model
from xpdl.optimizers import BY_NAME, get_optimizer

X, T = np.zeros((4, 784), np.float32), np.zeros(4, np.int64)
PARAM = {"filter_num": 30, "filter_size": 5, "pad": 0, "stride": 1}


@pytest.mark.parametrize("kind", BY_NAME.values())
def test_an_optimizer_has_a_learning_rate(kind):
    with pytest.raises(ArgumentError, match=rf"{kind.__name__} has no option 'lr'.*learning_rate"):
        kind(lr=0.1)


def test_the_same_by_name():
    with pytest.raises(ArgumentError, match="learning_rate"):
        get_optimizer("sgd", lr=0.1)
    with pytest.raises(ArgumentError, match="input_shape"):
        make_model("SimpleConvNet", input_dim=(1, 28, 28))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: SimpleConvNet(input_dim=(1, 28, 28)), "input_shape"),
        (lambda: SimpleConvNet(conv_param=PARAM), "filters, filter_size, pad and stride"),
        (lambda: MultiLayerNet(784, [5], 10, use_dropout=True), "dropout_ratio"),
        (lambda: MultiLayerNet(784, [5], 10, dropout_ration=0.2), "dropout_ratio"),
        (lambda: Trainer(TwoLayerNet(), X, T), "Trainer(net, (x_train, t_train)"),
        (lambda: Trainer(TwoLayerNet(), X, T, X, T), "Trainer(net, (x_train, t_train)"),
        (lambda: Trainer(TwoLayerNet(), X, T, X, T, epochs=2), "Trainer(net, (x_train, t_train)"),
        (lambda: Trainer(TwoLayerNet(), (X, T), mini_batch_size=2), "batch_size"),
        (lambda: Trainer(TwoLayerNet(), (X, T), optimizer_param={"lr": 1}), "learning_rate"),
        (lambda: Trainer(TwoLayerNet(), (X, T), verbose=False), "progress"),
    ],
)
def test_networks_and_the_trainer(make, says):
    with pytest.raises(ArgumentError) as raised:
        make()
    assert says in str(raised.value)


def test_layers_of_a_network():
    net = TwoLayerNet()
    with pytest.raises(AttributeError, match=r"net.body.layers\['affine1'\]"):
        net.layers["Affine1"]
    assert not hasattr(net, "layers")
    assert copy.deepcopy(net).params.keys() == pickle.loads(pickle.dumps(net)).params.keys()


@pytest.mark.parametrize(
    ("word", "ours"),
    [("W1", "affine1.W"), ("b2", "affine2.b"), ("gamma1", "norm1.gamma"), ("W2", "affine2.W")],
)
@pytest.mark.usefixtures("on_numpy")
def test_parameters_by_the_books_names(word, ours):
    net = MultiLayerNet(4, [3], 2, use_batchnorm=True)
    assert ours in net.params
    for params in (net.params, net.gradient(X[:, :4], T)):
        with pytest.raises(UnknownParameterError, match=f"The book's '{word}' is '{ours}' here"):
            params[word]
    with pytest.raises(UnknownParameterError) as raised:
        net.params["W9"]
    assert "book" not in str(raised.value)


def test_signatures_are_as_they_were():
    assert "lr" not in inspect.signature(xpdl.optimizers.SGD).parameters
    assert list(inspect.signature(Trainer).parameters)[:3] == ["network", "train", "test"]
