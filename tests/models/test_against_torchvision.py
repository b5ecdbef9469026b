"""The same weights give the same scores and gradients as torchvision's networks.

Scores in float32. Gradients in float64: normalised by batches of few numbers, these networks make
of a rounding in float32 some per cent of the first layers' gradients, in PyTorch as here.
"""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

from xpdl.layers import Dropout
from xpdl.models import VGG, AlexNet, GoogLeNet, MobileNetV2, ResNet, SqueezeNet
from xpdl.storage import load_torch

torch = pytest.importorskip("torch")


def find_twins():
    """Return torchvision's networks, also where its operators were built for another PyTorch.

    They are for boxes, and no network here has one. But it cannot be imported without their names.
    """
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed", allow_module_level=True)
    try:
        import torchvision
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor a, Tensor b, float c) -> Tensor")
        import torchvision
    return torchvision.models


twins = find_twins()

# Ours, theirs, the size of pictures: small, but not so that the last convolutions see one pixel.
NETWORKS = {
    "AlexNet": (lambda **o: AlexNet(form="2014", **o), twins.alexnet, 95),
    "ResNet-18": (lambda **o: ResNet(18, **o), twins.resnet18, 75),
    "ResNet-50": (lambda **o: ResNet(50, **o), twins.resnet50, 64),
    "SqueezeNet": (SqueezeNet, twins.squeezenet1_1, 70),
    "MobileNetV2": (MobileNetV2, twins.mobilenet_v2, 75),
    "GoogLeNet": (
        lambda **o: GoogLeNet(form="torchvision", **o),
        lambda **o: twins.googlenet(init_weights=False, aux_logits=True, **o),
        75,
    ),
}
WHOLE = {
    "ResNet-50 at 224": (lambda **o: ResNet(50, **o), twins.resnet50, 224),
    "VGG16": (lambda **o: VGG(16, **o), twins.vgg16, 224),
    "VGG11, normalized": (lambda **o: VGG(11, normalized=True, **o), twins.vgg11_bn, 64),
}


def agree(ours, theirs, tolerance, what):
    theirs = theirs.detach().numpy()
    gap, scale = np.abs(ours - theirs).max(), np.abs(theirs).max()
    assert ours.dtype == theirs.dtype, what
    # What a normalisation behind makes zero is noise in both.
    assert gap <= tolerance * max(scale, 1e-3), f"{what}: {gap} apart at a scale of {scale}"


def pair(tmp_path, make, twin, size, dtype):
    """Return both networks, with the same weights and without dropout."""
    torch.manual_seed(1)
    theirs = twin(num_classes=7)
    for module in theirs.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    with torch.no_grad():  # statistics of its own
        theirs.train()(torch.randn(4, 3, size, size))
    ours = make(input_shape=(3, size, size), output_size=7, initialize=False, dtype=dtype)
    for layer in ours.leaves().values():
        if isinstance(layer, Dropout):
            layer.ratio = 0.0
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    load_torch(ours, tmp_path / "weights.pth")
    return ours, theirs.to(getattr(torch, dtype))


def compare_scores(tmp_path, make, twin, size):
    ours, theirs = pair(tmp_path, make, twin, size, "float32")
    x = np.random.default_rng(2).standard_normal((2, 3, size, size)).astype(np.float32)
    scores = ours.predict(x)
    scores = scores["y"] if isinstance(scores, dict) else scores
    agree(scores, theirs.eval()(torch.tensor(x)), 1e-4, "scores")


def compare_gradients(tmp_path, make, twin, size):
    ours, theirs = pair(tmp_path, make, twin, size, "float64")
    x, t = np.random.default_rng(2).standard_normal((4, 3, size, size)), np.array([0, 3, 6, 1])
    entropy, target = torch.nn.functional.cross_entropy, torch.tensor(t)
    out = theirs.train()(torch.tensor(x))
    if isinstance(out, tuple):
        loss = entropy(out.logits, target)
        loss = loss + 0.3 * (entropy(out.aux_logits1, target) + entropy(out.aux_logits2, target))
    else:
        loss = entropy(out, target)
    loss.backward()
    several = len(ours.output_shapes) > 1
    ours_loss, _ = ours.forward_backward(x, dict.fromkeys(ours.output_shapes, t) if several else t)
    assert float(ours_loss) == pytest.approx(loss.item(), rel=1e-9)
    parameters = dict(theirs.named_parameters())
    for (name, gradient), (twin_name, parameter) in zip(
        ours.grads.items(), parameters.items(), strict=True
    ):
        expected = parameter.grad.T if parameter.ndim == 2 else parameter.grad
        agree(gradient, expected, 1e-6, f"gradient of {name}, {twin_name}")
    statistics = {n: b for n, b in theirs.named_buffers() if n.endswith(("mean", "var"))}
    for (name, array), (twin_name, buffer) in zip(
        ours.state.items(), statistics.items(), strict=True
    ):
        agree(array, buffer, 1e-6, f"{name}, {twin_name}")


@pytest.mark.parametrize("name", NETWORKS)
def test_scores(tmp_path, name):
    compare_scores(tmp_path, *NETWORKS[name])


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "AlexNet"])
def test_gradients(tmp_path, name):
    compare_gradients(tmp_path, *NETWORKS[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compare", "name"),
    [
        (compare_scores, "ResNet-50 at 224"),
        (compare_gradients, "ResNet-50 at 224"),
        (compare_gradients, "AlexNet"),
        (compare_scores, "VGG16"),
        (compare_gradients, "VGG11, normalized"),
    ],
)
def test_whole_networks(tmp_path, compare, name):
    compare(tmp_path, *(WHOLE | NETWORKS)[name])
