"""The same layers, losses, optimizers and one whole training step, in PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

from xpdl import Network, optimizers, schedules
from xpdl.layers import (
    AdaptiveAveragePooling,
    Affine,
    AveragePooling,
    BatchNormalization,
    Convolution,
    Dropout,
    Flatten,
    GlobalAveragePooling,
    LocalResponseNormalization,
    MaxPooling,
    ReLU,
    ReLU6,
    Residual,
    Sequential,
    Sigmoid,
    Softmax,
    Tanh,
)
from xpdl.losses import HuberWithLoss, IdentityWithLoss, SigmoidWithLoss, SoftmaxWithLoss
from xpdl.models import DeepConvNet
from xpdl.storage import load_torch

torch = pytest.importorskip("torch")
nn, functional = torch.nn, torch.nn.functional


def floats(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def tensor(a, grad=False):
    return torch.tensor(a, requires_grad=grad)


def agree(ours, theirs, tolerance=1e-4, what=""):
    """Both in float32, and nowhere further apart than `tolerance` of the largest number."""
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
    assert ours.shape == theirs.shape, what
    assert ours.dtype == theirs.dtype == np.float32, what
    assert np.isfinite(ours).all(), what
    gap, scale = abs(ours - theirs).max(initial=0), abs(theirs).max(initial=0)
    assert gap <= tolerance * scale, f"{what}: {gap} apart at a scale of {scale}"


# ---- layers ------------------------------------------------------------------------------------

IMAGES = (3, 2, 7, 9)
ROWS = (6, 5)


def affine():
    return Affine(4), nn.Linear(5, 4), ROWS


def affine_of_images():
    return Affine(4), nn.Sequential(nn.Flatten(), nn.Linear(126, 4)), IMAGES


def affine_without_bias():
    return Affine(4, bias=False), nn.Linear(5, 4, bias=False), ROWS


def convolution(size=3, stride=1, pad=0, bias=True, shape=IMAGES):
    def make():
        ours = Convolution(5, size, stride, pad, bias=bias)
        return ours, nn.Conv2d(shape[1], 5, size, stride, pad, bias=bias), shape

    return make


def max_pooling(size, stride=None, pad=0, remainder="error"):
    def make():
        ours = MaxPooling(size, stride, pad, remainder=remainder)
        return ours, nn.MaxPool2d(size, stride, pad), (3, 2, 8, 12)

    return make


def average_pooling(size, stride=None, pad=0, remainder="error"):
    def make():
        ours = AveragePooling(size, stride, pad, remainder=remainder)
        return ours, nn.AvgPool2d(size, stride, pad), (3, 2, 8, 12)

    return make


def grouped(filters, size, groups, channels=4, stride=1, pad=0, dilation=1, remainder="drop"):
    def make():
        ours = Convolution(
            *(filters, size, stride, pad),
            groups=groups, dilation=dilation, remainder=remainder,
        )  # fmt: skip
        theirs = nn.Conv2d(channels, filters, size, stride, pad, dilation, groups)
        return ours, theirs, (3, channels, 9, 11)

    return make


def unevenly_padded(pad, size=3, stride=1, groups=1, dilation=1):
    """Torch has such padding as a layer of its own."""

    def make():
        (above, below), (left, right) = pad
        ours = Convolution(4, size, stride, pad, groups=groups, dilation=dilation, remainder="drop")
        theirs = nn.Sequential(
            nn.ZeroPad2d((left, right, above, below)),
            nn.Conv2d(2, 4, size, stride, 0, dilation, groups),
        )
        return ours, theirs, IMAGES

    return make


def same_convolution(size, groups=1, dilation=1):
    def make():
        ours = Convolution(4, size, pad="same", groups=groups, dilation=dilation)
        return ours, nn.Conv2d(2, 4, size, 1, "same", dilation, groups), IMAGES

    return make


def keeping(kind, twin, size, stride, pad=0, shape=(3, 2, 8, 11), count_pad=True):
    def make():
        more = {} if kind is MaxPooling else {"count_pad": count_pad}
        torchs = {} if kind is MaxPooling else {"count_include_pad": count_pad}
        ours = kind(size, stride, pad, remainder="keep", **more)
        return ours, twin(size, stride, pad, ceil_mode=True, **torchs), shape

    return make


class Around(nn.Module):
    def __init__(self, inside):
        super().__init__()
        self.inside = inside

    def forward(self, x):
        return x + self.inside(x)


LAYERS = {
    "affine": affine,
    "affine of images": affine_of_images,
    "affine without bias": affine_without_bias,
    "conv": convolution(),
    "conv 1x1": convolution(1),
    "conv padded": convolution(3, pad=1),
    "conv padded twice": convolution(3, pad=2),
    "conv padded beyond its size": convolution(2, pad=3),
    "conv strided": convolution(3, stride=2),
    "conv strided and padded": convolution(5, stride=2, pad=2),
    "conv strided past its size": convolution(1, stride=2),
    "conv rectangular": convolution((2, 4), stride=(1, 5)),
    "conv rectangular, padded": convolution((4, 1), stride=(3, 2), pad=(0, 0)),
    "conv rectangular pads": convolution((3, 5), pad=(0, 2)),
    "conv without bias": convolution(3, bias=False),
    "conv of one image": convolution(3, pad=1, shape=(1, 1, 5, 5)),
    "conv of a whole image": convolution((7, 9)),
    "max": max_pooling(2),
    "max rectangular": max_pooling((2, 3)),
    "max overlapping": max_pooling(3, 1),
    "max overlapping, uneven": max_pooling((4, 2), (2, 1)),
    "max padded": max_pooling((4, 2), 2, 1),
    "max padded, overlapping": max_pooling(3, 1, 1),
    "max with gaps": max_pooling((2, 3), (3, 3)),
    "max of what fits": max_pooling(3, remainder="drop"),
    "average": average_pooling(2),
    "average rectangular": average_pooling((4, 3)),
    "average overlapping": average_pooling(3, 1),
    "average padded": average_pooling(2, 2, 1),
    "average padded, overlapping": average_pooling(3, 1, 1),
    "average of what fits": average_pooling(3, remainder="drop"),
    "global average": lambda: (
        GlobalAveragePooling(),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        IMAGES,
    ),
    "conv in groups": grouped(6, 3, 2, pad=1),
    "conv in groups, strided": grouped(8, (3, 2), 4, stride=(2, 3), pad=(2, 0)),
    "conv of two groups of many": grouped(4, 3, 2, channels=6, pad=(0, 1)),
    "depthwise": grouped(4, 3, 4, pad=1),
    "depthwise, strided": grouped(4, 3, 4, stride=2, pad=1),
    "depthwise 5x5": grouped(4, 5, 4, stride=2, pad=2),
    "depthwise beyond the image": grouped(4, 2, 4, pad=3),
    "depthwise, two filters each": grouped(8, 3, 4, pad=1),
    "depthwise, dilated": grouped(4, 3, 4, pad=2, dilation=2),
    "conv dilated": grouped(3, 3, 1, pad=2, dilation=2),
    "conv dilated by three, two": grouped(3, (3, 4), 1, pad=(1, 3), dilation=(3, 2)),
    "conv dilated, strided": grouped(3, 3, 1, stride=(2, 3), pad=1, dilation=(4, 2)),
    "conv dilated, in groups": grouped(6, 2, 2, stride=2, dilation=3),
    "conv same": same_convolution(3),
    "conv same, rectangular": same_convolution((5, 1)),
    "conv same, dilated": same_convolution((2, 3), dilation=(2, 3)),
    "conv same, depthwise": same_convolution((3, 5), groups=2),
    "conv unevenly padded": unevenly_padded(((0, 1), (2, 0))),
    "conv unevenly padded, strided": unevenly_padded(((1, 0), (0, 3)), (3, 4), 2),
    "conv unevenly padded, in groups": unevenly_padded(((0, 2), (1, 0)), groups=2, dilation=2),
    "max of all that is left": keeping(MaxPooling, nn.MaxPool2d, 3, 2),
    "max of all that is left, padded": keeping(MaxPooling, nn.MaxPool2d, 3, 2, 1),
    "max of all that is left, uneven": keeping(MaxPooling, nn.MaxPool2d, (3, 2), (2, 3), (1, 0)),
    "max of all that begins in the image": keeping(MaxPooling, nn.MaxPool2d, 2, 3, 1),
    "max of more than the image": keeping(MaxPooling, nn.MaxPool2d, 5, 4, 0, (3, 2, 4, 7)),
    "max of all, evenly": keeping(MaxPooling, nn.MaxPool2d, 3, 1, 1),
    "average of all that is left": keeping(AveragePooling, nn.AvgPool2d, 3, 2),
    "average of all that is left, padded": keeping(AveragePooling, nn.AvgPool2d, (3, 4), 3, 1),
    "average without padding": keeping(AveragePooling, nn.AvgPool2d, 3, 1, 1, count_pad=False),
    "average without padding, of all that is left": keeping(
        AveragePooling, nn.AvgPool2d, (3, 4), (3, 2), 1, count_pad=False
    ),
    "average of all that begins in the image": keeping(AveragePooling, nn.AvgPool2d, 2, 3, 1),
    "adaptive average": lambda: (
        AdaptiveAveragePooling((3, 4)),
        nn.AdaptiveAvgPool2d((3, 4)),
        IMAGES,
    ),
    "adaptive average of more than the image": lambda: (
        AdaptiveAveragePooling((9, 7)),
        nn.AdaptiveAvgPool2d((9, 7)),
        IMAGES,
    ),
    "local response, averaged": lambda: (
        LocalResponseNormalization(3, 1.5, 0.8, 0.6, averaged=True),
        nn.LocalResponseNorm(3, 0.8, 0.6, 1.5),
        (3, 7, 4, 5),
    ),
    "local response of an even number": lambda: (
        LocalResponseNormalization(4, 2, 0.5, averaged=True),
        nn.LocalResponseNorm(4, 0.5, 0.75, 2),
        (3, 7, 4, 5),
    ),
    "local response of more than there are": lambda: (
        LocalResponseNormalization(9, alpha=0.5 / 9),
        nn.LocalResponseNorm(9, 0.5, k=2),
        IMAGES,
    ),
    "relu6": lambda: (ReLU6(), nn.Sequential(nn.ReLU6()), ROWS),
    "relu": lambda: (ReLU(), nn.ReLU(), ROWS),
    "relu of images": lambda: (ReLU(), nn.ReLU(), IMAGES),
    "sigmoid": lambda: (Sigmoid(), nn.Sigmoid(), ROWS),
    "tanh": lambda: (Tanh(), nn.Tanh(), ROWS),
    "softmax": lambda: (Softmax(), nn.Softmax(dim=-1), ROWS),
    "flatten": lambda: (Flatten(), nn.Flatten(), IMAGES),
    "norm": lambda: (BatchNormalization(), nn.BatchNorm1d(5, eps=1e-6), ROWS),
    "norm of images": lambda: (BatchNormalization(), nn.BatchNorm2d(2, eps=1e-6), IMAGES),
    "block": lambda: (
        Sequential([Convolution(4, 3), Sequential([Tanh(), Affine(3)])]),
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(140, 3)),
        IMAGES,
    ),
    "residual": lambda: (
        Residual([Convolution(2, 3, pad=1), BatchNormalization(), ReLU()]),
        Around(
            nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2, eps=1e-6), nn.ReLU())
        ),
        IMAGES,
    ),
}


def parameter_names(layer):
    return [(leaf, key) for _, leaf in layer.leaves() for key in leaf.specs]


def give_the_same(backend, rng, ours, theirs):
    """Draw new parameters for both; torch keeps Linear's weight as (out, in)."""
    modules = [m for m in theirs.modules() if any(True for _ in m.parameters(recurse=False))]
    twins = [p for m in modules for p in (m.weight, m.bias) if p is not None]
    places = parameter_names(ours)
    assert len(twins) == len(places)
    for (leaf, key), twin in zip(places, twins, strict=True):
        values = 0.5 * floats(rng, *leaf.params[key].shape) + (key == "gamma")
        leaf.params[key][...] = backend.asarray(values, dtype="float32")
        turned = values.T if isinstance(leaf, Affine) and key == "W" else values
        with torch.no_grad():
            twin.copy_(torch.from_numpy(np.ascontiguousarray(turned, dtype=np.float32)))
    return list(zip(places, twins, strict=True))


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_both_ways(backend, rng, name):
    ours, theirs, shape = LAYERS[name]()
    ours.build(shape[1:], rng, "float32")
    twins = give_the_same(backend, rng, ours, theirs)
    theirs.train()
    x = floats(rng, *shape)
    x_torch = tensor(x, grad=True)
    y_torch = theirs(x_torch)
    y = ours.forward(backend.asarray(x), train=True)
    agree(backend.to_numpy(y), y_torch, what="y")
    dout = floats(rng, *y_torch.shape)
    y_torch.backward(tensor(dout))
    dx = ours.backward(backend.asarray(dout))
    agree(backend.to_numpy(dx), x_torch.grad, what="dx")
    for (leaf, key), twin in twins:
        gradient = backend.to_numpy(leaf.grads[key])
        expected = twin.grad.numpy()
        expected = expected.T if isinstance(leaf, Affine) and key == "W" else expected
        if name == "residual" and key == "b":  # the normalisation makes it zero
            assert max(abs(gradient).max(), abs(expected).max()) < 1e-4
        else:
            agree(gradient, expected, what=key)
    theirs.eval()
    again = floats(rng, *shape)
    if "norm" not in name and name != "residual":
        got = backend.to_numpy(ours.forward(backend.asarray(again)))
        agree(got, theirs(tensor(again)), what="y without training")


def test_max_pooling_of_equals_chooses_the_first(backend):
    x = np.zeros((2, 1, 4, 6), dtype=np.float32)
    x[1] = np.arange(24).reshape(1, 4, 6) // 3
    for size, stride, pad in ((2, 2, 0), (3, 1, 1)):
        ours, theirs = MaxPooling(size, stride, pad), nn.MaxPool2d(size, stride, pad)
        x_torch = tensor(x, grad=True)
        y_torch = theirs(x_torch)
        y = ours.forward(backend.asarray(x), train=True)
        agree(backend.to_numpy(y), y_torch)
        dout = np.arange(1, y_torch.numel() + 1, dtype=np.float32).reshape(y_torch.shape)
        y_torch.backward(tensor(dout))
        agree(backend.to_numpy(ours.backward(backend.asarray(dout))), x_torch.grad)


def test_running_variance_without_bias(backend, rng):
    ours = BatchNormalization(epsilon=1e-5, unbiased=True)
    ours.build((4, 3, 2), rng, "float32")
    theirs = nn.BatchNorm2d(4)
    for _ in range(3):
        x = 3 + 2 * floats(rng, 2, 4, 3, 2)
        agree(backend.to_numpy(ours.forward(backend.asarray(x), train=True)), theirs(tensor(x)))
    agree(backend.to_numpy(ours.state["running_mean"]), theirs.running_mean)
    agree(backend.to_numpy(ours.state["running_var"]), theirs.running_var)


@pytest.mark.parametrize("momentum", [0.9, 0.6])
@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 3, 2)])
def test_running_statistics(backend, rng, shape, momentum):
    """Torch's momentum is the new batch's share, and its running variance unbiased."""
    features = shape[1]
    ours = BatchNormalization(momentum, epsilon=1e-3)
    ours.build(shape[1:], rng, "float32")
    kind = nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d
    theirs = kind(features, eps=1e-3, momentum=1 - momentum)
    give_the_same(backend, rng, ours, theirs)
    for _ in range(5):
        x = 3 + 2 * floats(rng, *shape)
        agree(backend.to_numpy(ours.forward(backend.asarray(x), train=True)), theirs(tensor(x)))
    agree(backend.to_numpy(ours.state["running_mean"]), theirs.running_mean)
    count = x.size // features
    start = momentum**5  # what is left of the 1 that both began with
    unbiased = (backend.to_numpy(ours.state["running_var"]) - start) * (count / (count - 1)) + start
    agree(unbiased.astype(np.float32), theirs.running_var)
    with torch.no_grad():
        theirs.running_var.copy_(torch.from_numpy(backend.to_numpy(ours.state["running_var"])))
    theirs.eval()
    x = floats(rng, *shape)
    agree(backend.to_numpy(ours.forward(backend.asarray(x))), theirs(tensor(x)))


def test_dropout_that_scales_in_training(backend, rng):
    x, dout = floats(rng, 40, 30), floats(rng, 40, 30)
    ours, theirs = Dropout(0.3, scale_at="training"), nn.Dropout(0.3)
    theirs.eval()
    agree(backend.to_numpy(ours.forward(backend.asarray(x))), theirs(tensor(x)))
    y = backend.to_numpy(ours.forward(backend.asarray(x), train=True))
    kept = tensor((y != 0).astype(np.float32))
    assert 0.65 < kept.mean() < 0.75
    x_torch = tensor(x, grad=True)
    y_torch = x_torch * kept / 0.7
    y_torch.backward(tensor(dout))
    agree(y, y_torch)
    agree(backend.to_numpy(ours.backward(backend.asarray(dout))), x_torch.grad)


def test_dropout_that_scales_at_inference(backend, rng):
    """The book's: torch has only its means in common with it."""
    x, dout = floats(rng, 40, 30), floats(rng, 40, 30)
    ours, theirs = Dropout(0.3), nn.Dropout(0.3)
    theirs.eval()
    agree(backend.to_numpy(ours.forward(backend.asarray(x))), 0.7 * theirs(tensor(x)))
    y = backend.to_numpy(ours.forward(backend.asarray(x), train=True))
    x_torch = tensor(x, grad=True)
    y_torch = x_torch * tensor((y != 0).astype(np.float32))
    y_torch.backward(tensor(dout))
    agree(y, y_torch)
    agree(backend.to_numpy(ours.backward(backend.asarray(dout))), x_torch.grad)


# ---- losses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", ["labels", "one-hot", "soft"])
@pytest.mark.parametrize("scale", [1, 100])
def test_softmax_with_loss(backend, rng, targets, scale):
    x, labels = scale * floats(rng, 7, 5), rng.integers(0, 5, 7)
    t = {
        "labels": labels,
        "one-hot": np.eye(5, dtype=np.float32)[labels],
        "soft": rng.dirichlet(np.ones(5), 7).astype(np.float32),
    }[targets]
    x_torch = tensor(x, grad=True)
    expected = functional.cross_entropy(x_torch, tensor(t))
    expected.backward()
    loss = SoftmaxWithLoss()
    agree(backend.to_numpy(loss.forward(backend.asarray(x), backend.asarray(t))), expected)
    agree(backend.to_numpy(loss.backward()), x_torch.grad)
    agree(backend.to_numpy(loss.backward(64.0)), 64 * x_torch.grad)


def test_identity_with_loss(backend, rng):
    """Torch's mean is over all numbers, ours half the sum over each sample."""
    x, t = floats(rng, 7, 5), floats(rng, 7, 5)
    x_torch = tensor(x, grad=True)
    expected = functional.mse_loss(x_torch, tensor(t)) * 5 / 2
    expected.backward()
    loss = IdentityWithLoss()
    agree(backend.to_numpy(loss.forward(backend.asarray(x), backend.asarray(t))), expected)
    agree(backend.to_numpy(loss.backward()), x_torch.grad)


@pytest.mark.parametrize("shape", [(7, 4), (3, 5, 4), (3, 4, 2, 3)])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 0.0, 1.0)])
def test_softmax_with_ignored_and_weighted_classes(backend, rng, shape, smoothing, weights):
    """Torch has the classes of words along axis 1 too."""
    x, words = floats(rng, *shape), len(shape) == 3
    t = rng.integers(0, 4, shape[:-1] if words or len(shape) == 2 else (3, 2, 3))
    t.reshape(-1)[::3] = 255
    x_torch = tensor(x, grad=True)
    expected = functional.cross_entropy(
        x_torch.movedim(-1, 1) if words else x_torch,
        tensor(t),
        weight=None if weights is None else tensor(np.float32(weights)),
        ignore_index=255,
        label_smoothing=smoothing,
    )
    expected.backward()
    loss = SoftmaxWithLoss(smoothing, ignored=255, class_weights=weights)
    agree(backend.to_numpy(loss.forward(backend.asarray(x), backend.asarray(t))), expected)
    agree(backend.to_numpy(loss.backward()), x_torch.grad)


@pytest.mark.parametrize("shape", [(7, 1), (7, 5), (3, 1, 4, 4)])
def test_losses_of_each_output(backend, rng, shape):
    """Torch's mean is over all numbers; ours of Huber's loss sums those of a sample."""
    x, t = 5 * floats(rng, *shape), rng.random(shape).astype(np.float32)
    for loss, theirs in (
        (SigmoidWithLoss(), functional.binary_cross_entropy_with_logits),
        (
            HuberWithLoss(0.7),
            lambda x, t: functional.huber_loss(x, t, reduction="sum", delta=0.7) / len(x),
        ),
    ):
        x_torch = tensor(x, grad=True)
        expected = theirs(x_torch, tensor(t))
        expected.backward()
        agree(backend.to_numpy(loss.forward(backend.asarray(x), backend.asarray(t))), expected)
        agree(backend.to_numpy(loss.backward()), x_torch.grad)


# ---- optimizers --------------------------------------------------------------------------------

OPTIMIZERS = {
    "SGD": ({"learning_rate": 0.1}, "SGD", {"lr": 0.1}),
    "Momentum": (
        {"learning_rate": 0.1, "momentum": 0.8},
        "SGD",
        {"lr": 0.1, "momentum": 0.8},
    ),
    "Nesterov": (
        {"learning_rate": 0.1, "momentum": 0.8},
        "SGD",
        {"lr": 0.1, "momentum": 0.8, "nesterov": True},
    ),
    "AdaGrad": ({"learning_rate": 0.1}, "Adagrad", {"lr": 0.1, "eps": 1e-7}),
    "RMSProp": (
        {"learning_rate": 0.1, "decay_rate": 0.9},
        "RMSprop",
        {"lr": 0.1, "alpha": 0.9, "eps": 1e-7},
    ),
    "Adam": ({"learning_rate": 0.1}, "Adam", {"lr": 0.1}),
    "AdamW": ({"learning_rate": 0.1, "weight_decay": 0.0}, "AdamW", {"lr": 0.1, "weight_decay": 0}),
}


@pytest.mark.parametrize("weight_decay", [None, 0.2])
@pytest.mark.parametrize("clip_norm", [None, 1.5])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ten_steps(backend, rng, name, weight_decay, clip_norm):
    settings, twin, twin_settings = OPTIMIZERS[name]
    if weight_decay is not None:
        settings = {**settings, "weight_decay": weight_decay, "decay_all": True}
        twin_settings = {**twin_settings, "weight_decay": weight_decay}
    start = {"W": floats(rng, 4, 3), "b": floats(rng, 3)}
    params = {key: backend.asarray(a.copy()) for key, a in start.items()}
    tensors = {key: tensor(a.copy(), grad=True) for key, a in start.items()}
    ours = getattr(optimizers, name)(**settings, clip_norm=clip_norm)
    theirs = getattr(torch.optim, twin)(tensors.values(), **twin_settings)
    for _ in range(10):
        grads = {key: floats(rng, *a.shape) for key, a in start.items()}
        ours.update(params, {key: backend.asarray(g) for key, g in grads.items()})
        for key, g in grads.items():
            tensors[key].grad = tensor(g)
        if clip_norm:
            norm = torch.nn.utils.clip_grad_norm_(tensors.values(), clip_norm)
            assert norm > clip_norm
        theirs.step()
    for key in start:
        moved = backend.to_numpy(params[key]) - start[key]
        agree(moved, tensors[key].detach().numpy() - start[key], what=key)


# ---- schedules ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "steps"),
    [
        (schedules.Step(3, 0.5), lambda o, lr: lr.StepLR(o, 3, 0.5), 20),
        (schedules.Exponential(0.01), lambda o, lr: lr.ExponentialLR(o, 0.01 ** (1 / 20)), 20),
        (schedules.Cosine(0.1), lambda o, lr: lr.CosineAnnealingLR(o, 20, 0.1), 20),
        (
            # Torch counts 41 points, of which the last is the end; its peak is the eleventh.
            schedules.OneCycle(0.25, 0.04, 0.004),
            lambda o, lr: lr.OneCycleLR(
                o,
                1.0,
                total_steps=41,
                pct_start=11 / 41,
                div_factor=25,
                final_div_factor=10,
                cycle_momentum=False,
            ),
            40,
        ),
    ],
    ids=["step", "exponential", "cosine", "one-cycle"],
)
def test_a_schedule(ours, theirs, steps):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    twin = theirs(optimizer, torch.optim.lr_scheduler)
    for step in range(steps + 1):
        assert ours(step, steps) == pytest.approx(twin.get_last_lr()[0], abs=1e-7)
        if step < steps:
            optimizer.step()
            twin.step()


# ---- whole networks ----------------------------------------------------------------------------


def torch_deep_conv_net():
    """Figure 8-1, as the book's table gives it."""
    layers, channels = [], 1
    for filters, pads in ((16, (1, 1)), (32, (1, 2)), (64, (1, 1))):
        for pad in pads:
            layers += [nn.Conv2d(channels, filters, 3, padding=pad), nn.ReLU()]
            channels = filters
        layers.append(nn.MaxPool2d(2))
    layers += [nn.Flatten(), nn.Linear(1024, 50), nn.ReLU(), nn.Linear(50, 10)]
    return nn.Sequential(*layers)


def copy_parameters(backend, network, module):
    """Give the torch module the network's parameters; return {name: (parameter, turned)}."""
    twins = dict(zip(network.params, module.parameters(), strict=True))
    for name, twin in twins.items():
        values = backend.to_numpy(network.params[name])
        with torch.no_grad():
            twin.copy_(torch.from_numpy(values.T if values.ndim == 2 else values))
    return twins


def as_ours(a):
    a = a.detach().numpy()
    return a.T if a.ndim == 2 else a


def train_both(backend, network, module, ours, theirs, x, t, steps=3):
    """Train both on one batch; compare loss and every gradient at each step, parameters after."""
    twins = copy_parameters(backend, network, module)
    start = {name: as_ours(p).copy() for name, p in twins.items()}
    dx, dt = backend.asarray(x), backend.asarray(t)
    for step in range(steps):
        theirs.zero_grad()
        scores = module(tensor(x))
        expected = functional.cross_entropy(scores, tensor(t))
        expected.backward()
        loss, got = network.forward_backward(dx, dt)
        agree(backend.to_numpy(loss), expected, what=f"loss {step}")
        agree(backend.to_numpy(got), scores, what=f"scores {step}")
        for name, twin in twins.items():
            gradient = backend.to_numpy(network.grads[name])
            agree(gradient, as_ours(twin.grad), what=f"gradient of {name} at step {step}")
        ours.update(network.params, network.grads)
        theirs.step()
    for name, twin in twins.items():
        agree(backend.to_numpy(network.params[name]), as_ours(twin), what=name)
        moved = backend.to_numpy(network.params[name]) - start[name]
        assert abs(moved).max() > 1e-4, name
    agree(backend.to_numpy(network.predict(dx)), module(tensor(x)), what="scores after")


@pytest.mark.parametrize("way", ["direct", "fastest"])
def test_steps_of_deep_conv_net(backend, rng, monkeypatch, way):
    """Adam's first step is about g / |g|, which makes much of the last bits of a small gradient.

    So Adam is held to the direct sum of convolutions, and the fastest way to a rule that keeps the
    size of what it is given.
    """
    if way == "fastest" and backend.name not in ("numpy", "numba"):
        pytest.skip("all others have the direct sum alone")
    monkeypatch.setenv("XPDL_CONVOLUTION", way)
    network, module = DeepConvNet(dropout_ratio=0.0, seed=1), torch_deep_conv_net()
    x, t = rng.random((8, 1, 28, 28), dtype=np.float32), rng.integers(0, 10, 8)
    if way == "direct":
        rules = optimizers.Adam(0.001), torch.optim.Adam(module.parameters(), 0.001)
    else:
        rules = optimizers.Momentum(0.02), torch.optim.SGD(module.parameters(), 0.02, momentum=0.9)
    train_both(backend, network, module, *rules, x, t)


def save_safetensors(state, path):
    pytest.importorskip("safetensors.torch").save_file(state, path)


SAVED = {
    "zip": torch.save,
    "legacy": lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
    "pickle protocol 4": lambda state, path: torch.save(state, path, pickle_protocol=4),
    "safetensors": save_safetensors,
    "of a training": lambda state, path: torch.save(
        {"epoch": 3, "rates": [0.1, {"decay": None}], "state_dict": state}, path
    ),
    "as parameters": lambda state, path: torch.save(
        {name: nn.Parameter(a, requires_grad=a.is_floating_point()) for name, a in state.items()},
        path,
    ),
    "in channels-last memory": lambda state, path: torch.save(
        {
            name: a.to(memory_format=torch.channels_last) if a.ndim == 4 else a
            for name, a in state.items()
        },
        path,
    ),
}


@pytest.mark.parametrize("form", SAVED)
def test_weights_that_torch_saved(backend, rng, tmp_path, form):
    module = nn.Sequential(
        nn.Conv2d(2, 6, 3, groups=2, bias=False), nn.BatchNorm2d(6), nn.ReLU6(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(54, 5),
    )  # fmt: skip
    module(tensor(3 + floats(rng, 8, 2, 8, 8)))
    module.eval()
    layers = [
        Convolution(6, 3, groups=2, bias=False), BatchNormalization(epsilon=1e-5, unbiased=True),
        ReLU6(), AveragePooling(2), Affine(5),
    ]  # fmt: skip
    network, path = Network(layers, (2, 8, 8)), tmp_path / "weights"
    SAVED[form](module.state_dict(), path)
    names = {"conv1": "0", "norm1": "1", "affine1": "5"}
    load_torch(network, path, names if form == "safetensors" else "in order")
    x = 3 + floats(rng, 4, 2, 8, 8)
    agree(backend.to_numpy(network.predict(backend.asarray(x))), module(tensor(x)))


def test_steps_of_a_normalised_network_with_decay(backend, rng):
    layers = [
        Convolution(6, 3, pad=1, bias=False),
        BatchNormalization(),
        ReLU(),
        AveragePooling(2),
        Convolution(8, 3, bias=False),
        BatchNormalization(),
        Tanh(),
        GlobalAveragePooling(),
        Affine(5),
    ]
    network = Network(layers, (2, 8, 8), seed=1)
    module = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6, eps=1e-6),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 8, 3, bias=False),
        nn.BatchNorm2d(8, eps=1e-6),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    x, t = floats(rng, 8, 2, 8, 8), rng.integers(0, 5, 8)
    ours = optimizers.Nesterov(0.05, weight_decay=0.1)
    groups = [
        {"params": [p for p in module.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in module.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    theirs = torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True)
    module.train()
    with pytest.MonkeyPatch.context() as patch:
        # Compare scores after training with the batch's own statistics, as torch is left to.
        patch.setattr(
            network, "predict", lambda x: network.forward_backward(x, backend.asarray(t))[1]
        )
        train_both(backend, network, module, ours, theirs, x, t)
