"""Label smoothing: targets mixed with the even distribution, in the loss and in files."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from checks import central_differences
from promised import assert_as_promised
from safetensors.numpy import save_file

import xpdl
from xpdl import Network, Trainer
from xpdl.errors import ArgumentError, ModelFileError, UnknownNameError
from xpdl.layers import Affine, ReLU
from xpdl.losses import IdentityWithLoss, Loss, SoftmaxWithLoss, loss_from_config

CLASSES = 5


def targets(kind, rng, n=6):
    """Return targets as a loss takes them, and as probabilities (n, CLASSES)."""
    t = rng.integers(0, CLASSES, n)
    one_hot = np.eye(CLASSES)[t]
    soft = rng.dirichlet(np.ones(CLASSES), size=n)
    return {
        "numbers": (t, one_hot),
        "bytes": (t.astype("uint8"), one_hot),
        "one-hot": (one_hot.astype("float32"), one_hot),
        "one-hot of ints": (one_hot.astype("int64"), one_hot),
        "probabilities": (soft, soft),
    }[kind]


def cross_entropy(x, probabilities):
    """Return the book's loss in float64: nothing of smoothing is known here."""
    e = np.exp(x)
    return -(probabilities * np.log(e / e.sum(axis=1, keepdims=True))).sum(axis=1).mean()


@pytest.mark.parametrize(
    "kind", ["numbers", "bytes", "one-hot", "one-hot of ints", "probabilities"]
)
@pytest.mark.parametrize("e", [0.1, 0.75])
def test_a_share_of_each_target_is_spread_over_all_classes(backend, rng, kind, e):
    given, probabilities = targets(kind, rng)
    x = 2 * rng.standard_normal((6, CLASSES))
    smooth = (1 - e) * probabilities + e / CLASSES

    def loss(x):
        return cross_entropy(x, smooth)

    layer = SoftmaxWithLoss(label_smoothing=e)
    t = backend.asarray(given.copy())
    value = layer.forward(backend.asarray(x), t)
    assert value.shape == ()
    assert backend.item(value) == pytest.approx(loss(x), rel=1e-6)
    dx = backend.to_numpy(layer.backward())
    np.testing.assert_allclose(dx, central_differences(loss, x), rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(backend.to_numpy(t), given, "the targets were changed")


def test_it_is_what_pytorch_computes(rng):
    torch = pytest.importorskip("torch")
    x, t = rng.standard_normal((8, CLASSES)), rng.integers(0, CLASSES, 8)
    theirs = torch.tensor(x, requires_grad=True)
    expected = torch.nn.CrossEntropyLoss(label_smoothing=0.2)(theirs, torch.tensor(t))
    expected.backward()
    with xpdl.use_backend("numpy"):
        layer = SoftmaxWithLoss(label_smoothing=0.2)
        assert layer.forward(x, t) == pytest.approx(expected.item(), rel=1e-12)
        np.testing.assert_allclose(layer.backward(), theirs.grad.numpy(), rtol=1e-10)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_types(backend, rng, dtype):
    wide = "float64" if dtype == "float64" else "float32"
    layer = SoftmaxWithLoss(label_smoothing=0.1)
    x = backend.asarray(rng.standard_normal((4, CLASSES)), dtype)
    loss = layer.forward(x, backend.asarray(np.array([0, 1, 2, 3])))
    assert loss.dtype == wide
    assert layer.backward(64.0).dtype == dtype
    assert layer.t.dtype == wide


@pytest.mark.parametrize("t", [[0, 1, -1], [0, CLASSES, 1]])
def test_a_class_that_does_not_exist_is_not_smoothed_away(backend, t):
    x = backend.asarray(np.ones((3, CLASSES)), "float32")
    for e in (0.0, 0.1):
        loss = SoftmaxWithLoss(label_smoothing=e).forward(x, backend.asarray(np.array(t)))
        assert math.isnan(backend.item(loss))


def test_without_it_nothing_changes(backend, rng):
    """The targets go to the backend as they came, and the result is that of the loss alone."""
    x = backend.asarray(rng.standard_normal((6, CLASSES)), "float32")
    t = backend.asarray(rng.integers(0, CLASSES, 6))
    loss, y = backend.softmax_with_loss(x, t)
    for layer in (SoftmaxWithLoss(), SoftmaxWithLoss(label_smoothing=0.0)):
        assert backend.item(layer.forward(x, t)) == backend.item(loss)
        assert layer.t is t
        np.testing.assert_array_equal(backend.to_numpy(layer.y), backend.to_numpy(y))
        assert layer.config() == {"type": "SoftmaxWithLoss"}


@pytest.mark.parametrize("e", [-0.1, 1.0, math.nan, math.inf, "0.1", None, True, [0.1]])
def test_what_is_no_share_is_refused(e):
    with pytest.raises(ArgumentError, match=r"label_smoothing must be a number .* below 1, got"):
        SoftmaxWithLoss(label_smoothing=e)


# ---- in a network ------------------------------------------------------------------------------


def net(e=0.1, **options):
    layers = [Affine(8), ReLU(), Affine(CLASSES)]
    return Network(layers, (3,), loss=SoftmaxWithLoss(label_smoothing=e), **options)


def test_a_networks_loss_has_it_in_training_and_out_of_it(backend, rng):
    x = backend.asarray(rng.standard_normal((6, 3)), "float32")
    t = rng.integers(0, CLASSES, 6)
    network = net(0.3)
    scores = backend.to_numpy(network.predict(x)).astype("float64")
    expected = cross_entropy(scores, 0.7 * np.eye(CLASSES)[t] + 0.3 / CLASSES)
    device_t = backend.asarray(t)
    for loss in (
        network.loss(x, device_t),
        network.loss(x, device_t, train=True),
        network.forward_backward(x, device_t)[0],
    ):
        assert backend.item(loss) == pytest.approx(expected, rel=1e-5)
    plain = net(0.0)
    assert network.accuracy(x, device_t) == plain.accuracy(x, device_t)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_captured_training_is_an_eager_one(backend, rng, dtype):
    x, t = rng.standard_normal((60, 3)).astype("float32"), rng.integers(0, CLASSES, 60)
    left = []
    for capture in (True, False):
        network = net(dtype=dtype)
        Trainer(network, (x, t), epochs=2, batch_size=10, progress=False, capture=capture).fit()
        left.append({name: backend.to_numpy(a) for name, a in network.params.items()})
    assert_as_promised(backend, *left, dtype)
    assert (left[0]["affine1.W"] != backend.to_numpy(net(dtype=dtype).params["affine1.W"])).any()


# ---- in files ----------------------------------------------------------------------------------


def test_it_is_kept_in_a_file(tmp_path):
    net(0.25).save(tmp_path / "m")
    loss = xpdl.load(tmp_path / "m").loss_layer
    assert isinstance(loss, SoftmaxWithLoss)
    assert loss.label_smoothing == 0.25
    assert net(0.25).astype("float64").loss_layer.label_smoothing == 0.25


def test_a_file_without_smoothing_is_as_it_ever_was(tmp_path):
    """Old files load, and old programs could read new ones."""
    network = net(0.0)
    assert network.config()["loss"] == {"type": "SoftmaxWithLoss"}  # all that an old file says
    network.save(tmp_path / "m")
    assert xpdl.load(tmp_path / "m").loss_layer.label_smoothing == 0.0


BAD = {
    "too much": ({"label_smoothing": 1.5}, "label_smoothing must be a number"),
    "a text": ({"label_smoothing": "0.1"}, "label_smoothing must be a number"),
    "true": ({"label_smoothing": True}, "label_smoothing must be a number"),
    "a list": ({"label_smoothing": [0.1]}, "label_smoothing must be a number"),
    "another option": ({"temperature": 2.0}, "temperature"),
    "an option of another loss": (
        {"type": "IdentityWithLoss", "label_smoothing": 0.1},
        "smoothing",
    ),
    "another loss": ({"type": "Evil"}, "unknown loss 'Evil'.*SoftmaxWithLoss"),
    "no loss at all": (None, "does not describe a network"),
    "a loss that is a list": ({"type": ["SoftmaxWithLoss"]}, "does not describe a network"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_values_in_a_file_are_refused(tmp_path, case):
    changes, words = BAD[case]
    path = tmp_path / "m.safetensors"
    net().save(path)
    _rewrite(path, changes)
    with pytest.raises(ModelFileError, match=words) as caught:
        xpdl.load(path)
    assert "m.safetensors" in str(caught.value)


def _rewrite(path, changes):
    """Change what a network's file says of its loss."""
    network = xpdl.load(path)
    config = network.config()
    config["loss"] = None if changes is None else config["loss"] | changes
    arrays = {name: xpdl.to_numpy(a) for name, a in network.arrays().items()}
    description = {"format": "xpdl-network-1", "architecture": config, "about": {}}
    save_file(arrays, path, {"xpdl": json.dumps(description)})


def test_losses_are_made_by_name():
    assert isinstance(loss_from_config({"type": "IdentityWithLoss"}), IdentityWithLoss)
    with pytest.raises(UnknownNameError, match="SoftmaxWithLoss"):
        loss_from_config({"type": "SoftmaxWithLos"})
    with pytest.raises(ArgumentError, match="IdentityWithLoss cannot be made from"):
        loss_from_config({"type": "IdentityWithLoss", "e": 1})


def test_a_loss_of_ones_own_keeps_its_options_or_has_none():
    class Weighted(SoftmaxWithLoss):
        options = ("weight",)

        def __init__(self, weight=1.0):
            super().__init__()
            self.weight = weight

    class Plain(SoftmaxWithLoss):
        def __init__(self):  # as could be written before there were options
            pass

    try:
        assert Weighted(2.0).config() == {"type": "Weighted", "weight": 2.0}
        assert loss_from_config(Weighted(2.0).config()).weight == 2.0
        assert Weighted().config() == {"type": "Weighted"}
        assert Plain().config() == {"type": "Plain"}
        x = np.ones((2, 3), "float32")
        with xpdl.use_backend("numpy"):
            assert Plain().forward(x, np.array([0, 1])) == pytest.approx(math.log(3), rel=1e-6)
    finally:
        del Loss.classes["Weighted"], Loss.classes["Plain"]
