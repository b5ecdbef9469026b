"""Ten steps of graphs, and a game of two networks, as PyTorch makes them."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import xpdl  # noqa: E402
from xpdl import Input, Network, Step  # noqa: E402
from xpdl.backends import Backend  # noqa: E402
from xpdl.layers import (  # noqa: E402
    Affine,
    Concatenate,
    Convolution,
    MaxPooling,
    Multiply,
    ReLU,
    Tanh,
)
from xpdl.losses import HuberWithLoss, SigmoidWithLoss, SoftmaxWithLoss  # noqa: E402
from xpdl.models import MobileNetV2, ResNet, SqueezeNet  # noqa: E402
from xpdl.optimizers import Adam, Momentum  # noqa: E402
from xpdl.storage import load_torch  # noqa: E402

sys.path.append(str(Path(xpdl.__file__).parents[1]))  # the bench is not part of what is installed

from bench.networks import torch_twin  # noqa: E402


def tensor(a: Any) -> Any:
    return torch.tensor(np.asarray(a))


def give(module: Any, network: Network, name: str) -> Any:
    """Return a module of PyTorch with the parameters of the layer `name`."""
    W, b = (np.array(network.backend.to_numpy(network.params[f"{name}.{k}"])) for k in "Wb")
    module = module.double()
    with torch.no_grad():
        module.weight.copy_(tensor(W.T if W.ndim == 2 else W))
        module.bias.copy_(tensor(b))
    return module


def assert_same(module: Any, network: Network, name: str) -> None:
    theirs = module.weight.detach().numpy()
    ours = network.backend.to_numpy(network.params[f"{name}.W"])
    np.testing.assert_allclose(ours, theirs.T if ours.ndim == 2 else theirs, rtol=1e-8, atol=1e-10)


def test_an_inception_block(backend: Backend, rng: Any) -> None:
    x = Input((3, 6, 6))
    stem = ReLU()(Convolution(4, 3, pad=1)(x))
    branches = [
        ReLU()(Convolution(2, 1)(stem)),
        ReLU()(Convolution(3, 3, pad=1)(ReLU()(Convolution(2, 1)(stem)))),
        ReLU()(Convolution(2, 1)(MaxPooling(3, 1, 1)(stem))),
    ]
    network = Network(x, Affine(5)(Concatenate()(*branches)), dtype="float64")
    sizes = {"conv1": (3, 4, 3), "conv2": (4, 2, 1), "conv3": (4, 2, 1), "conv4": (2, 3, 3),
             "conv5": (4, 2, 1)}  # fmt: skip
    m = {
        name: give(nn.Conv2d(i, o, k, padding=k // 2), network, name)
        for name, (i, o, k) in sizes.items()
    }
    m["affine1"] = give(nn.Linear(7 * 36, 5), network, "affine1")
    parameters = [p for module in m.values() for p in module.parameters()]
    rule, step = torch.optim.SGD(parameters, 0.05, momentum=0.9), Step(network, Momentum(0.05, 0.9))
    for _ in range(10):
        pictures, t = rng.standard_normal((8, 3, 6, 6)), rng.integers(0, 5, 8)
        s = torch.relu(m["conv1"](tensor(pictures)))
        parts = [
            torch.relu(m["conv2"](s)),
            torch.relu(m["conv4"](torch.relu(m["conv3"](s)))),
            torch.relu(m["conv5"](nn.functional.max_pool2d(s, 3, 1, 1))),
        ]
        scores = m["affine1"](torch.cat(parts, 1).flatten(1))
        rule.zero_grad()
        loss = nn.functional.cross_entropy(scores, tensor(t))
        loss.backward()
        rule.step()
        ours, _ = step(backend.asarray(pictures), backend.asarray(t))
        assert backend.item(ours) == pytest.approx(loss.item(), rel=1e-9)
    for name, module in m.items():
        assert_same(module, network, name)


def test_a_u_of_skips(backend: Backend, rng: Any) -> None:
    """A class for each pixel: what was seen early is laid beside what was seen deep."""
    x = Input((2, 8, 8))
    a = Tanh()(Convolution(3, 3, pad=1)(x))
    b = Tanh()(Convolution(4, 3, pad=2, dilation=2)(a))
    c = Tanh()(Convolution(3, 3, pad=1)(Concatenate()(b, a)))
    network = Network(
        x,
        Convolution(3, 1)(Concatenate()(c, x)),
        loss=SoftmaxWithLoss(ignored=255),
        dtype="float64",
    )
    m = {
        "conv1": nn.Conv2d(2, 3, 3, padding=1), "conv2": nn.Conv2d(3, 4, 3, padding=2, dilation=2),
        "conv3": nn.Conv2d(7, 3, 3, padding=1), "conv4": nn.Conv2d(5, 3, 1),
    }  # fmt: skip
    m = {name: give(module, network, name) for name, module in m.items()}
    parameters = [p for module in m.values() for p in module.parameters()]
    rule, step = torch.optim.Adam(parameters, 0.01, eps=1e-8), Step(network, Adam(0.01))
    for _ in range(10):
        pictures, t = rng.standard_normal((4, 2, 8, 8)), rng.integers(0, 3, (4, 8, 8))
        t[:, :2] = 255
        first = torch.tanh(m["conv1"](tensor(pictures)))
        second = torch.tanh(m["conv2"](first))
        third = torch.tanh(m["conv3"](torch.cat([second, first], 1)))
        scores = m["conv4"](torch.cat([third, tensor(pictures)], 1))
        rule.zero_grad()
        loss = nn.functional.cross_entropy(scores, tensor(t), ignore_index=255)
        loss.backward()
        rule.step()
        ours, _ = step(backend.asarray(pictures), backend.asarray(t))
        assert backend.item(ours) == pytest.approx(loss.item(), rel=1e-8)
    for name, module in m.items():
        assert_same(module, network, name)


def test_two_inputs_and_two_losses(backend: Backend, rng: Any) -> None:
    a, b = Input((3,)), Input((5,))
    both = Multiply()(Tanh()(Affine(4)(a)), Tanh()(Affine(4)(b)))
    network = Network(
        {"a": a, "b": b}, {"class": Affine(3)(both), "size": Affine(2)(both)}, dtype="float64",
        loss={"class": SoftmaxWithLoss(), "size": HuberWithLoss()}, loss_weights={"size": 0.3},
    )  # fmt: skip
    sizes = {"affine1": (3, 4), "affine2": (5, 4), "affine3": (4, 3), "affine4": (4, 2)}
    m = {name: give(nn.Linear(*size), network, name) for name, size in sizes.items()}
    parameters = [p for module in m.values() for p in module.parameters()]
    rule, step = torch.optim.SGD(parameters, 0.1, momentum=0.9), Step(network, Momentum(0.1, 0.9))
    for _ in range(10):
        x = {"a": rng.standard_normal((6, 3)), "b": rng.standard_normal((6, 5))}
        t = {"class": rng.integers(0, 3, 6), "size": rng.standard_normal((6, 2))}
        left, right = m["affine1"](tensor(x["a"])), m["affine2"](tensor(x["b"]))
        meet = torch.tanh(left) * torch.tanh(right)
        rule.zero_grad()
        loss = nn.functional.cross_entropy(m["affine3"](meet), tensor(t["class"]))
        errors = nn.functional.huber_loss(m["affine4"](meet), tensor(t["size"]), reduction="sum")
        (loss + 0.3 * errors / 6).backward()
        rule.step()
        step(*({name: backend.asarray(v) for name, v in d.items()} for d in (x, t)))
    for name, module in m.items():
        assert_same(module, network, name)


def test_a_generator_and_a_discriminator(backend: Backend, rng: Any) -> None:
    """Both steps of a GAN, by hand: two batches for one, the way through it for the other."""
    g = Network([Affine(6), Tanh(), Affine(3)], 2, loss=HuberWithLoss(), dtype="float64")
    d = Network([Affine(5), Tanh(), Affine(1)], 3, loss=SigmoidWithLoss(), dtype="float64", seed=1)
    names = ("affine1", "affine2")
    tg = [give(nn.Linear(*s), g, n) for n, s in zip(names, ((2, 6), (6, 3)), strict=True)]
    td = [give(nn.Linear(*s), d, n) for n, s in zip(names, ((3, 5), (5, 1)), strict=True)]
    ours = Adam(0.01), Adam(0.02)
    theirs = [torch.optim.Adam([p for m in ms for p in m.parameters()], rate)
              for ms, rate in ((tg, 0.01), (td, 0.02))]  # fmt: skip

    def chain(modules: Any, x: Any) -> Any:
        return modules[1](torch.tanh(modules[0](x)))

    loss = nn.BCEWithLogitsLoss()
    yes, no = (backend.asarray(np.full((4, 1), v)) for v in (1.0, 0.0))
    for _ in range(5):
        z, real = rng.standard_normal((4, 2)), rng.standard_normal((4, 3))
        fake = g.forward(backend.asarray(z), train=True)
        for x, t, more in ((backend.asarray(real), yes, False), (fake, no, True)):
            d.loss_layer.forward(d.forward(x, train=True), t)
            d.backward(d.loss_layer.backward(), accumulate=more)
        ours[1].update(d.params, d.grads)
        d.loss_layer.forward(d.forward(fake, train=True), yes)
        g.backward(d.backward(d.loss_layer.backward()))
        ours[0].update(g.params, g.grads)
        made = chain(tg, tensor(z))
        theirs[1].zero_grad()
        ones = torch.ones(4, 1, dtype=torch.float64)
        (loss(chain(td, tensor(real)), ones) + loss(chain(td, made.detach()), 0 * ones)).backward()
        theirs[1].step()
        theirs[0].zero_grad()
        loss(chain(td, made), ones).backward()
        theirs[0].step()
    for modules, network in ((tg, g), (td, d)):
        for module, name in zip(modules, names, strict=True):
            assert_same(module, network, name)


@pytest.mark.parametrize("make", [SqueezeNet, MobileNetV2, partial(ResNet, 18)])
def test_a_twin_of_a_graph_computes_the_same(tmp_path: Path, make: Any) -> None:
    network = make(input_shape=(3, 40, 40), output_size=5)
    torch.manual_seed(0)
    twin = torch_twin(network).eval()
    torch.save(twin.state_dict(), tmp_path / "twin.pth")
    load_torch(network, tmp_path / "twin.pth")
    x = np.random.default_rng(1).random((2, 3, 40, 40), np.float32)
    scores = network.backend.to_numpy(network.predict(network.backend.asarray(x)))
    with torch.no_grad():
        np.testing.assert_allclose(scores, twin(torch.tensor(x)), rtol=1e-3, atol=1e-4)
