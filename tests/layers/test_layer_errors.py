"""What layers say to input that they cannot use: who, what they got, what they want."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from xpdl import asarray
from xpdl.backends import Backend, get_backend
from xpdl.errors import (
    ArgumentError,
    BackendMismatchError,
    DTypeError,
    NotReadyError,
    ShapeError,
    UnknownNameError,
)
from xpdl.layers import (
    AdaptiveAveragePooling,
    Affine,
    AveragePooling,
    BatchNormalization,
    Convolution,
    Dropout,
    Flatten,
    GlobalAveragePooling,
    Layer,
    LocalResponseNormalization,
    MaxPooling,
    PadChannels,
    PartialConvolution,
    ReLU,
    ReLU6,
    Residual,
    ScaledTanh,
    Sequential,
    Sigmoid,
    Softmax,
    Subsampling,
    Tanh,
    door,
    layer_from_config,
)
from xpdl.losses import IdentityWithLoss, SoftmaxWithLoss

zeros = np.zeros

CONSTRUCTION: dict[str, tuple[Callable[[], Any], type[Exception], list[str]]] = {
    "no units": (lambda: Affine(0), ArgumentError, ["units", "0"]),
    "b without W": (lambda: Affine(3, zeros(3)), ArgumentError, ["b", "W"]),
    "1-D W": (lambda: Affine(zeros(3)), ShapeError, ["(in, out)", "(3,)"]),
    "b too short": (lambda: Affine(zeros((2, 3)), zeros(2)), ShapeError, ["(2, 3)", "(2,)"]),
    "integer W": (lambda: Affine(zeros((2, 3), int)), DTypeError, ["W", "int64"]),
    "unknown start": (lambda: Affine(3, weight_init="hee"), UnknownNameError, ["hee", "he"]),
    "negative std": (lambda: Affine(3, weight_init=-1.0), ArgumentError, ["-1.0"]),
    "no filters": (lambda: Convolution(0, 3), ArgumentError, ["filters", "0"]),
    "no size": (lambda: Convolution(4), ArgumentError, ["size"]),
    "size 0": (lambda: Convolution(4, 0), ArgumentError, ["size", "0"]),
    "three sizes": (lambda: Convolution(4, (1, 2, 3)), ArgumentError, ["size", "(1, 2, 3)"]),
    "stride 0": (lambda: Convolution(4, 3, stride=0), ArgumentError, ["stride", "0"]),
    "pad -1": (lambda: Convolution(4, 3, pad=-1), ArgumentError, ["pad", "-1"]),
    "3-D W": (lambda: Convolution(zeros((2, 3, 3))), ShapeError, ["FN", "(2, 3, 3)"]),
    "remainder": (lambda: Convolution(4, 3, remainder="x"), ArgumentError, ["remainder", "x"]),
    "pads": (lambda: Convolution(4, 3, pad=((1, 2), 1, 1)), ArgumentError, ["pad", "above"]),  # type: ignore[arg-type]
    "pads of a text": (lambda: Convolution(4, 3, pad="all"), ArgumentError, ["pad", "same", "all"]),
    "a pad below 0": (lambda: Convolution(4, 3, pad=((0, 1), (-1, 0))), ArgumentError, ["(-1, 0)"]),
    "groups": (lambda: Convolution(4, 3, groups=3), ArgumentError, ["groups", "3", "4 filters"]),
    "no groups": (lambda: Convolution(4, 3, groups=0), ArgumentError, ["groups", "0"]),
    "dilation": (lambda: Convolution(4, 3, dilation=(1, 0)), ArgumentError, ["dilation", "(1, 0)"]),
    "partial windows": (lambda: Convolution(4, 3, remainder="keep"), ArgumentError, ["'keep'"]),
    "channels below 0": (lambda: PadChannels(-1, 0), ArgumentError, ["before", "-1"]),
    "no bias": (lambda: LocalResponseNormalization(bias=0), ArgumentError, ["bias", "0"]),
    "no window": (lambda: Subsampling(0), ArgumentError, ["size", "0"]),
    "no connections": (lambda: PartialConvolution([], 3), ArgumentError, ["connections", "[]"]),
    "a filter that sees nothing": (
        lambda: PartialConvolution([[0], []], 3), ArgumentError, ["channels", "[[0], []]"],
    ),
    "a connection twice": (lambda: PartialConvolution([[1, 1]], 3), ArgumentError, ["once"]),
    "a channel below 0": (lambda: PartialConvolution([[-1]], 3), ArgumentError, ["-1"]),
    "no channels": (lambda: LocalResponseNormalization(0), ArgumentError, ["size", "0"]),
    "adaptive size": (lambda: AdaptiveAveragePooling((2, 0)), ArgumentError, ["size", "(2, 0)"]),
    "pool size": (lambda: MaxPooling(-2), ArgumentError, ["size", "-2"]),
    "pool pad": (lambda: MaxPooling(2, pad=2), ArgumentError, ["pad", "(2, 2)"]),
    "pool remainder": (lambda: AveragePooling(2, remainder=1), ArgumentError, ["remainder"]),  # type: ignore[arg-type]
    "ratio 1": (lambda: Dropout(1.0), ArgumentError, ["ratio", "1.0"]),
    "ratio -0.1": (lambda: Dropout(-0.1), ArgumentError, ["ratio", "-0.1"]),
    "scale_at": (lambda: Dropout(0.5, scale_at="x"), ArgumentError, ["scale_at", "x"]),
    "momentum 1": (lambda: BatchNormalization(momentum=1.0), ArgumentError, ["momentum", "1.0"]),
    "epsilon 0": (lambda: BatchNormalization(epsilon=0), ArgumentError, ["epsilon", "0"]),
    "no layer": (lambda: Sequential([ReLU(), "relu"]), ArgumentError, ["relu"]),  # type: ignore[list-item]
    "a class": (lambda: Sequential([ReLU]), ArgumentError, ["ReLU()"]),  # type: ignore[list-item]
    "a dotted name": (lambda: Sequential({"a.b": ReLU()}), ArgumentError, ["a.b"]),
    "one layer twice": (lambda: Sequential([ReLU()] * 2), ArgumentError, ["twice"]),
    "unknown layer": (lambda: layer_from_config({"type": "Relu"}), UnknownNameError, ["ReLU"]),
    "foreign option": (
        lambda: layer_from_config({"type": "ReLU", "units": 3}), ArgumentError, ["ReLU", "units"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CONSTRUCTION)
def test_construction(case: str) -> None:
    make, kind, words = CONSTRUCTION[case]
    with pytest.raises(kind) as caught:
        make()
    for word in words:
        assert word in str(caught.value)


PLANS: dict[str, tuple[Callable[[], Layer], tuple[int, ...], list[str]]] = {
    "images wanted": (lambda: Convolution(4, 3), (784,), ["Convolution", "(784,)"]),
    "filter too large": (lambda: Convolution(4, 5), (1, 3, 3), ["5", "3", "pad >= 1"]),
    "stride misfit": (lambda: Convolution(4, 3, stride=2), (1, 28, 28), ["13.5", "remainder"]),
    "pooling misfit": (lambda: MaxPooling(2), (1, 7, 8), ["height", "7", "drop"]),
    "pooling of rows": (lambda: MaxPooling(2), (10,), ["MaxPooling", "(10,)"]),
    "global pooling of rows": (GlobalAveragePooling, (10,), ["GlobalAveragePooling", "(10,)"]),
    "channels of rows": (lambda: PadChannels(1, 1), (10,), ["PadChannels", "(10,)"]),
    "adaptive pooling of rows": (lambda: AdaptiveAveragePooling(2), (10,), ["(10,)"]),
    "response of rows": (LocalResponseNormalization, (10,), ["Response", "(10,)"]),
    "subsampling misfit": (lambda: Subsampling(2), (1, 4, 5), ["divide", "2", "4 x 5"]),
    "channels that are not there": (
        lambda: PartialConvolution([[0, 3]], 2), (3, 4, 4), ["0 to 3", "(3, 4, 4)"],
    ),
    "groups of channels": (lambda: Convolution(4, 3, groups=2), (3, 5, 5), ["2 groups", "3 chan"]),
    "dilated beyond the image": (lambda: Convolution(4, 3, dilation=3), (1, 6, 9), ["7", "6"]),
    "uneven misfit": (
        lambda: Convolution(4, 3, 2, ((0, 1), (0, 0))), (1, 7, 9), ["pad 0 and 1", "3.5"],
    ),
    "given W": (lambda: Affine(zeros((4, 2))), (5,), ["(4, 2)", "(5, 2)"]),
    "given filters": (lambda: Convolution(zeros((2, 3, 1, 1))), (4, 5, 5), ["(2, 3, 1, 1)"]),
    "normalising 2-D": (BatchNormalization, (3, 4), ["BatchNormalization", "(3, 4)"]),
    "residual": (lambda: Residual([Affine(3)]), (4,), ["(4,)", "(3,)"]),
    "in a container": (
        lambda: Sequential([ReLU(), Sequential({"inner": Convolution(2, 9)})]), (1, 5, 5),
        ["block1", "inner", "9"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PLANS)
def test_layers_that_do_not_fit_say_so_when_built(case: str, rng: Any) -> None:
    make, shape, words = PLANS[case]
    with pytest.raises(ShapeError) as caught:
        make().build(shape, rng)
    for word in words:
        assert word in str(caught.value)


FORWARD: dict[str, tuple[Callable[[], Layer], tuple[int, ...], tuple[int, ...]]] = {
    "affine": (lambda: Affine(3), (4,), (2, 5)),
    "convolution of rows": (lambda: Convolution(3, 3), (2, 5, 5), (2, 50)),
    "other channels": (lambda: Convolution(3, 3), (2, 5, 5), (2, 3, 5, 5)),
    "smaller image": (lambda: Convolution(3, 3), (2, 5, 5), (2, 2, 7, 2)),
    "max pooling": (lambda: MaxPooling(2), (2, 4, 4), (2, 16)),
    "average pooling": (lambda: AveragePooling(2), (2, 4, 4), (2, 2, 4, 5)),
    "global pooling": (GlobalAveragePooling, (2, 4, 4), (2, 16)),
    "groups": (lambda: Convolution(4, 3, groups=2), (2, 5, 5), (2, 1, 5, 6)),
    "adaptive pooling": (lambda: AdaptiveAveragePooling(2), (2, 4, 4), (2, 16)),
    "response": (LocalResponseNormalization, (2, 4, 4), (2, 16)),
    "channels": (lambda: PadChannels(1, 1), (2, 4, 4), (2, 16)),
    "subsampling": (lambda: Subsampling(2), (2, 4, 4), (2, 2, 4, 5)),
    "partial": (lambda: PartialConvolution([[1]], 2), (2, 4, 4), (2, 1, 4, 4)),
    "normalisation": (BatchNormalization, (4,), (2, 5)),
}


@pytest.mark.parametrize("case", FORWARD)
def test_forward_refuses_another_shape(backend: Backend, case: str, rng: Any) -> None:
    make, shape, other = FORWARD[case]
    layer = make()
    layer.build(shape, rng)
    with pytest.raises(ShapeError, match=str(other[-1])):
        layer.forward(backend.asarray(np.zeros(other), "float32"))


@pytest.mark.parametrize(
    "layer",
    [ReLU, ReLU6, Sigmoid, Tanh, Softmax, Flatten, GlobalAveragePooling, lambda: MaxPooling(2),
     LocalResponseNormalization, lambda: AdaptiveAveragePooling(2), ScaledTanh, Subsampling,
     lambda: PartialConvolution([[0]], 1),
     lambda: AveragePooling(2), lambda: Dropout(0.5), lambda: Affine(np.ones((3, 4))),
     lambda: Convolution(np.ones((1, 1, 1, 1))), BatchNormalization],
)  # fmt: skip
def test_backward_before_forward_says_what_to_do(layer: Callable[[], Layer]) -> None:
    with pytest.raises(NotReadyError, match=r"forward\(x, train=True\)"):
        layer().backward(np.ones((2, 4)))


@pytest.mark.parametrize(
    "layer", [lambda: Affine(3), lambda: Convolution(3, 3), BatchNormalization]
)
def test_forward_before_build_says_what_to_do(layer: Callable[[], Layer]) -> None:
    with pytest.raises(NotReadyError, match="build"):
        layer().forward(np.ones((2, 4, 4, 4)))


@pytest.mark.parametrize(
    "layer", [lambda: Affine(3), lambda: Convolution(3, 1), BatchNormalization]
)
def test_an_array_of_another_backend_is_refused(backend: Backend, layer: Any, rng: Any) -> None:
    made = layer()
    made.build((2, 4, 4), rng)
    other = get_backend("strict" if backend.xp is np else "numpy")
    with pytest.raises(BackendMismatchError):
        made.forward(other.asarray(np.ones((2, 2, 4, 4), "float32")))


LOSSES: dict[str, tuple[Any, Any, Any, type[Exception], list[str]]] = {
    "too few labels": (SoftmaxWithLoss, zeros((3, 4)), zeros(2, int), ShapeError, ["(3,)", "(2,)"]),
    "a column": (SoftmaxWithLoss, zeros((3, 4)), zeros((3, 1), int), ShapeError, ["(3, 1)"]),
    "float labels": (SoftmaxWithLoss, zeros((3, 4)), zeros(3, "f4"), DTypeError, ["float32"]),
    "image scores": (SoftmaxWithLoss, zeros((3, 4, 2, 2)), zeros(3, int), ShapeError, ["3, 2, 2"]),
    "five axes": (SoftmaxWithLoss, zeros((3, 4, 2, 2, 2)), zeros(3, int), ShapeError, ["(N, K)"]),
    "one score": (SoftmaxWithLoss, zeros((3, 1)), zeros(3, int), ShapeError, ["SigmoidWithLoss()"]),
    "no samples": (SoftmaxWithLoss, zeros((0, 4)), zeros(0, int), ArgumentError, ["empty"]),
    "another shape": (IdentityWithLoss, zeros((3, 4)), zeros((3, 5)), ShapeError, ["(3, 5)"]),
    "nothing": (IdentityWithLoss, zeros((0, 4)), zeros((0, 4)), ArgumentError, ["empty"]),
}  # fmt: skip


@pytest.mark.parametrize("case", LOSSES)
def test_losses(backend: Backend, case: str) -> None:
    loss, x, t, kind, words = LOSSES[case]
    with pytest.raises(kind) as caught:
        loss().forward(backend.asarray(x, "float32"), backend.asarray(t))
    for word in words:
        assert word in str(caught.value)


def test_a_layer_of_xpdl_cannot_be_replaced_by_name() -> None:
    with pytest.raises(ArgumentError, match="ReLU"):
        type("ReLU", (Layer,), {})


def test_a_layer_looks_at_what_it_is_given_only_where_it_is_used_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from xpdl import Network

    looked: list[str] = []
    monkeypatch.setattr(ReLU, "expect", lambda layer, x: looked.append("x"))
    monkeypatch.setattr(door, "expect_gradient", lambda *_: looked.append("dout"))
    x = asarray(np.ones((2, 3), "float32"))
    alone = ReLU()
    alone.backward(alone.forward(x, train=True))
    assert looked == ["x", "dout"]
    Network([ReLU(), Affine(2)], 3).gradient(x, asarray([0, 1]))
    assert looked == ["x", "dout"]


def test_a_layer_belongs_to_one_network(rng: Any) -> None:
    from xpdl import Network

    layer = Affine(3)
    Network([layer], (4,))
    with pytest.raises(ArgumentError, match=r"affine1.*already"):
        Network([layer], (4,))
    with pytest.raises(ArgumentError, match="belongs to a network"):
        layer.build((4,), rng)


@pytest.mark.parametrize(
    "layer",
    [lambda: Affine(3), lambda: Convolution(3, 1), lambda: MaxPooling(2), BatchNormalization,
     lambda: AveragePooling(2), GlobalAveragePooling, LocalResponseNormalization,
     lambda: AdaptiveAveragePooling(2), ReLU6, ScaledTanh, Subsampling,
     lambda: PartialConvolution([[0]], 1)],
)  # fmt: skip
def test_integers_are_refused_where_they_would_be_truncated(
    backend: Backend, layer: Any, rng: Any
) -> None:
    made = layer()
    made.build((2, 4, 4), rng)
    with pytest.raises(DTypeError, match=r"floats, got int64.*astype"):
        made.forward(backend.asarray(np.ones((2, 2, 4, 4), "int64")))


def test_softmax_of_integers_is_not_zero(backend: Backend) -> None:
    from xpdl.functions import softmax

    y = softmax(backend.asarray([1010, 1000, 990]))
    assert y.dtype == np.float32
    np.testing.assert_allclose(backend.to_numpy(y), [0.9999546, 4.5398e-5, 2.0611e-9], rtol=1e-4)
