"""Every layer against its formula, on every backend, in every dtype and memory order."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import numpy as np
import pytest
from checks import check_layer, distinct
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from xpdl.backends import Backend
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
    layer_from_config,
)
from xpdl.losses import IdentityWithLoss
from xpdl.network import Network

Array = np.ndarray[Any, Any]
seeds = st.integers(0, 2**32 - 1)
small = st.integers(1, 3)


def padded(x: Array, pad: tuple[int, int], value: float) -> Array:
    (ph, pw) = pad
    return np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=value)


def windows_of(x: Array, size: Any, stride: Any) -> Any:
    """Yield (i, j, window) with window (N, C, FH, FW), one at a time."""
    for i in range((x.shape[2] - size[0]) // stride[0] + 1):
        for j in range((x.shape[3] - size[1]) // stride[1] + 1):
            top, left = i * stride[0], j * stride[1]
            yield i, j, x[:, :, top : top + size[0], left : left + size[1]]


def window_formula(reduce: Any, size: Any, stride: Any, pad: Any, value: float) -> Any:
    def formula(x: Array, **params: Array) -> Array:
        x = padded(x, pad, value)
        oh = (x.shape[2] - size[0]) // stride[0] + 1
        ow = (x.shape[3] - size[1]) // stride[1] + 1
        columns = [reduce(window, **params) for _, _, window in windows_of(x, size, stride)]
        return np.stack(columns, axis=-1).reshape(*columns[0].shape, oh, ow)

    return formula


@pytest.mark.parametrize("shape", [(3, 4), (1, 1), (2, 3, 2, 3), (5, 2, 1, 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_affine(backend: Backend, rng: Any, shape: tuple[int, ...], bias: bool) -> None:
    def formula(x: Array, W: Array, b: Array | float = 0.0) -> Array:
        return np.einsum("ni,io->no", x.reshape(len(x), -1), W) + b

    x = rng.standard_normal(shape)
    check_layer(backend, lambda: Affine(3, bias=bias), x, formula, rng=rng)


def correlate(window: Array, W: Array, b: Array | float = 0.0) -> Array:
    """Return what filters W (FN, C, FH, FW) make of one window (N, C, FH, FW)."""
    return np.einsum("nckl,fckl->nf", window, W) + b


@given(
    seed=seeds,
    n=small,
    c=small,
    fn=small,
    image=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    size=st.tuples(small, small),
    stride=st.tuples(small, small),
    pad=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    bias=st.booleans(),
)
def test_convolution(
    backend: Backend, seed: int, n: Any, c: Any, fn: Any, image: Any, size: Any, stride: Any,
    pad: Any, bias: bool,
) -> None:  # fmt: skip
    assume(all(i + 2 * p >= f for i, p, f in zip(image, pad, size, strict=True)))
    rng = np.random.default_rng(seed)

    check_layer(
        backend,
        lambda: Convolution(fn, size, stride, pad, bias=bias, remainder="drop"),
        rng.standard_normal((n, c, *image)),
        window_formula(correlate, size, stride, pad, 0.0),
        rng=rng,
    )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("pad", [0, 1])
@pytest.mark.parametrize("channels", [1, 3])
def test_convolution_of_grey_and_colour_images(
    backend: Backend, rng: Any, channels: int, pad: int, stride: int
) -> None:
    """Axes of length 1 have strides of their own choosing, which once led windows astray."""

    check_layer(
        backend,
        lambda: Convolution(2, 3, stride, pad, remainder="drop"),
        rng.standard_normal((3, channels, 6, 5)),
        window_formula(correlate, (3, 3), (stride, stride), (pad, pad), 0.0),
        rng=rng,
    )


def grouped_formula(groups: int, stride: Any, pads: Any, dilation: Any) -> Any:
    """Return the convolution of groups in loops, with ((above, below), (left, right)) of zeros."""

    def formula(x: Array, W: Array, b: Array | float = 0.0) -> Array:
        x = np.pad(x, ((0, 0), (0, 0), *pads))
        (fn, c, fh, fw), (dh, dw) = W.shape, dilation
        reach = (fh - 1) * dh + 1, (fw - 1) * dw + 1
        oh, ow = ((n - r) // s + 1 for n, r, s in zip(x.shape[2:], reach, stride, strict=True))
        y = np.empty((len(x), fn, oh, ow))
        for f in range(fn):
            first = f // (fn // groups) * c
            for i in range(oh):
                for j in range(ow):
                    top, left = i * stride[0], j * stride[1]
                    window = x[:, first : first + c, top : top + reach[0], left : left + reach[1]]
                    y[:, f, i, j] = (window[:, :, ::dh, ::dw] * W[f]).sum(axis=(1, 2, 3))
        return y + np.reshape(b, (-1, 1, 1))

    return formula


@given(
    seed=seeds,
    n=small,
    groups=small,
    c=st.integers(1, 2),
    fn=st.integers(1, 2),
    image=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    size=st.tuples(small, small),
    stride=st.tuples(small, small),
    pads=st.tuples(*(2 * [st.tuples(st.integers(0, 2), st.integers(0, 2))])),
    dilation=st.tuples(small, small),
    bias=st.booleans(),
)
@settings(max_examples=40)
def test_convolution_in_groups(
    backend: Backend, seed: int, n: Any, groups: Any, c: Any, fn: Any, image: Any, size: Any,
    stride: Any, pads: Any, dilation: Any, bias: bool,
) -> None:  # fmt: skip
    reach = ((f - 1) * d + 1 for f, d in zip(size, dilation, strict=True))
    assume(all(i + sum(p) >= r for i, p, r in zip(image, pads, reach, strict=True)))
    rng = np.random.default_rng(seed)
    check_layer(
        backend,
        lambda: Convolution(
            *(groups * fn, size, stride, pads),
            bias=bias, remainder="drop", groups=groups, dilation=dilation,
        ),
        rng.standard_normal((n, groups * c, *image)),
        grouped_formula(groups, stride, pads, dilation),
        rng=rng,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("size", "stride", "dilation", "pads"),
    [
        ((3, 3), (1, 1), (1, 1), ((1, 1), (1, 1))),
        ((2, 4), (1, 1), (1, 1), ((0, 1), (1, 2))),
        ((3, 5), (2, 2), (1, 1), ((0, 1), (2, 2))),  # 6 rows: 3 windows, 7 columns: 4
        ((3, 3), (2, 3), (1, 2), ((0, 1), (2, 2))),
        ((1, 1), (3, 4), (1, 1), ((0, 0), (0, 0))),
    ],
)
def test_same_padding_gives_a_window_for_each_step(
    backend: Backend, rng: Any, size: Any, stride: Any, dilation: Any, pads: Any
) -> None:
    check_layer(
        backend,
        lambda: Convolution(2, size, stride, "same", dilation=dilation),
        rng.standard_normal((2, 2, 6, 7)),
        grouped_formula(1, stride, pads, dilation),
        rng=rng,
    )
    layer = Convolution(2, size, stride, "same", dilation=dilation)
    counts = [-(-n // s) for n, s in zip((6, 7), stride, strict=True)]
    assert layer.plan((2, 6, 7)) == (2, *counts)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("remainder", ["drop", "keep"])
def test_a_relu_and_a_pooling_behind_convolutions_of_every_kind(
    backend: Backend, rng: Any, groups: int, remainder: str
) -> None:
    """What passes the gradient of a ReLU on to what stands before it comes to the same."""
    layers = [
        Convolution(4, 3, 1, "same", groups=groups, dilation=2),
        ReLU(),
        MaxPooling(2, remainder=remainder),
        Convolution(4, 2, 1, ((0, 1), (1, 0)), groups=groups),
        ReLU(),
        Affine(3),
    ]
    together = Network(layers, (4, 5, 7), dtype="float64", seed=1)
    apart = Network(
        [layer_from_config(layer.config()) for layer in layers], (4, 5, 7), dtype="float64", seed=1
    )
    for layer in apart.leaves().values():
        layer.relu, layer.pooled = False, None
        if isinstance(layer, ReLU | MaxPooling):
            layer.computed_before = False
        if isinstance(layer, MaxPooling):
            layer.product = None
    assert layers[0].relu
    x, t = backend.asarray(rng.standard_normal((3, 4, 5, 7))), backend.asarray(np.array([0, 2, 1]))
    found = [
        {name: backend.to_numpy(g) for name, g in network.gradient(x, t).items()}
        for network in (together, apart)
    ]
    for name, gradient in found[0].items():
        assert gradient.any()
        np.testing.assert_allclose(gradient, found[1][name], rtol=1e-9, atol=1e-12, err_msg=name)


def test_depthwise_convolution_of_many_channels(backend: Backend, rng: Any) -> None:
    """More than a vector of a processor holds, and no multiple of it."""
    for channels, size, stride, dilation in ((37, 3, 1, 1), (16, 3, 2, 1), (21, 2, 1, 2)):
        layer = Convolution(
            channels, size, stride, 1, groups=channels, dilation=dilation, remainder="drop"
        )
        layer.build((channels, 6, 9), rng, "float32")
        formula = grouped_formula(channels, (stride,) * 2, ((1, 1),) * 2, (dilation,) * 2)
        W = backend.to_numpy(layer.params["W"]).astype("float64")
        x = rng.standard_normal((5, channels, 6, 9))
        y = layer.forward(backend.asarray(x, "float32"), train=True)
        dout = rng.standard_normal(y.shape)
        dx = layer.backward(backend.asarray(dout, "float32"))
        np.testing.assert_allclose(backend.to_numpy(y), formula(x, W), rtol=1e-4, atol=1e-5)
        # The layer is linear in x and in W: its gradients are its adjoints.
        u, V = rng.standard_normal(x.shape), rng.standard_normal(W.shape)
        for gradient, other in ((dx, formula(u, W)), (layer.grads["W"], formula(x, V))):
            way = u if gradient is dx else V
            inner = np.vdot(backend.to_numpy(gradient).astype("float64"), way)
            np.testing.assert_allclose(inner, np.vdot(dout, other), rtol=1e-4, atol=1e-4)
        db = backend.to_numpy(layer.grads["b"])
        np.testing.assert_allclose(db, dout.sum(axis=(0, 2, 3)), rtol=1e-4, atol=1e-4)


pooling_cases = {
    "seed": seeds,
    "n": small,
    "c": small,
    "image": st.tuples(st.integers(1, 6), st.integers(1, 6)),
    "size": st.tuples(small, small),
    "stride": st.none() | st.tuples(small, small),
    "pad": st.tuples(st.integers(0, 2), st.integers(0, 2)),
}


def pooling_case(image: Any, size: Any, stride: Any, pad: Any) -> Any:
    assume(all(p < f for p, f in zip(pad, size, strict=True)))
    assume(all(i + 2 * p >= f for i, p, f in zip(image, pad, size, strict=True)))
    return size if stride is None else stride


# Each kind of pooling: the layer, what it makes of a window, and what the padding counts as.
POOLINGS = {
    MaxPooling: (lambda window: window.max(axis=(2, 3)), -np.inf),
    AveragePooling: (lambda window: window.mean(axis=(2, 3)), 0.0),
}


@pytest.mark.parametrize("layer", POOLINGS)
@given(**pooling_cases)
def test_pooling(
    backend: Backend, layer: Any, seed: int, n: Any, c: Any, image: Any, size: Any, stride: Any,
    pad: Any,
) -> None:  # fmt: skip
    reduce, padding = POOLINGS[layer]
    steps = pooling_case(image, size, stride, pad)
    rng = np.random.default_rng(seed)
    check_layer(
        backend,
        lambda: layer(size, stride, pad, remainder="drop"),
        distinct(rng, (n, c, *image)),
        window_formula(reduce, size, steps, pad, padding),
        rng=rng,
    )


def partial_windows(reduce: Any, size: Any, stride: Any, pad: Any, count_pad: bool = True) -> Any:
    """Return pooling whose last windows hang over: `reduce(window, pixels that count)`."""

    def starts(length: int, f: int, s: int, p: int) -> list[int]:
        begins = [b for b in range(-p, length, s) if b == -p or b - s + f < length + p]
        return [b for b in begins if b < length]

    def formula(x: Array) -> Array:
        h, w = x.shape[2:]
        downs, acrosses = (starts(*a) for a in zip((h, w), size, stride, pad, strict=True))
        y = np.empty((*x.shape[:2], len(downs), len(acrosses)))
        for i, top in enumerate(downs):
            for j, left in enumerate(acrosses):
                window = x[:, :, max(top, 0) : top + size[0], max(left, 0) : left + size[1]]
                (ph, pw) = pad if count_pad else (0, 0)
                counted = (min(top + size[0], h + ph) - max(top, -ph)) * (
                    min(left + size[1], w + pw) - max(left, -pw)
                )
                y[:, :, i, j] = reduce(window, counted)
        return y

    return formula


@given(**pooling_cases, count_pad=st.booleans())
@settings(max_examples=40)
def test_pooling_that_keeps_partial_windows(
    backend: Backend, seed: int, n: Any, c: Any, image: Any, size: Any, stride: Any, pad: Any,
    count_pad: bool,
) -> None:  # fmt: skip
    assume(all(p < f for p, f in zip(pad, size, strict=True)))
    steps = size if stride is None else stride
    rng = np.random.default_rng(seed)
    x = distinct(rng, (n, c, *image))
    largest = partial_windows(lambda window, _: window.max(axis=(2, 3)), size, steps, pad)
    check_layer(
        backend, lambda: MaxPooling(size, stride, pad, remainder="keep"), x, largest, rng=rng
    )
    mean = partial_windows(
        lambda window, counted: window.sum(axis=(2, 3)) / counted, size, steps, pad, count_pad
    )
    check_layer(
        backend,
        lambda: AveragePooling(size, stride, pad, remainder="keep", count_pad=count_pad),
        x,
        mean,
        rng=rng,
    )


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 5), (3, 2), (7, 6)])
def test_adaptive_average_pooling(backend: Backend, rng: Any, size: Any) -> None:
    def formula(x: Array) -> Array:
        (oh, ow), (h, w) = size, x.shape[2:]
        y = np.empty((*x.shape[:2], oh, ow))
        for i in range(oh):
            for j in range(ow):
                rows = slice(int(np.floor(i * h / oh)), int(np.ceil((i + 1) * h / oh)))
                columns = slice(int(np.floor(j * w / ow)), int(np.ceil((j + 1) * w / ow)))
                y[:, :, i, j] = x[:, :, rows, columns].mean(axis=(2, 3))
        return y

    x = rng.standard_normal((2, 3, 4, 5))
    check_layer(backend, lambda: AdaptiveAveragePooling(size), x, formula, rng=rng)


@pytest.mark.parametrize("channels", [1, 2, 7])
@pytest.mark.parametrize(("size", "averaged"), [(1, False), (2, True), (5, False), (5, True)])
def test_local_response_normalization(
    backend: Backend, rng: Any, channels: int, size: int, averaged: bool
) -> None:
    def formula(x: Array) -> Array:
        y = np.empty_like(x)
        for c in range(channels):
            beside = x[:, max(0, c - size // 2) : c + (size - 1) // 2 + 1]
            squares = (beside**2).sum(axis=1)
            y[:, c] = x[:, c] / (1.5 + (0.3 / size if averaged else 0.3) * squares) ** 0.75
        return y

    check_layer(
        backend,
        lambda: LocalResponseNormalization(size, 1.5, 0.3, averaged=averaged),
        2 * rng.standard_normal((2, channels, 3, 2)),
        formula,
        rng=rng,
    )


@pytest.mark.parametrize("size", [1, 2, 3])
def test_subsampling(backend: Backend, rng: Any, size: int) -> None:
    def formula(x: Array, a: Array, b: Array) -> Array:
        sums = np.zeros((len(x), len(a), x.shape[2] // size, x.shape[3] // size))
        for i, j, window in windows_of(x, (size, size), (size, size)):
            sums[:, :, i, j] = window.sum(axis=(2, 3))
        return a[:, None, None] * sums + b[:, None, None]

    x = rng.standard_normal((2, 3, 2 * size, size))
    check_layer(backend, lambda: Subsampling(size), x, formula, rng=rng)


def test_partial_convolution(backend: Backend, rng: Any) -> None:
    connections = [[0, 2], [1], [2, 0, 1], [3, 1]]

    def formula(x: Array, W: Array, b: Array) -> Array:
        full, filters = np.zeros((4, 4, 2, 3)), iter(W)
        for f, seen in enumerate(connections):
            for c in seen:
                full[f, c] = next(filters)
        return window_formula(correlate, (2, 3), (1, 1), (0, 0), 0.0)(x, W=full, b=b)

    x = rng.standard_normal((2, 4, 4, 5))
    check_layer(backend, lambda: PartialConvolution(connections, (2, 3)), x, formula, rng=rng)


def test_global_average_pooling(backend: Backend, rng: Any) -> None:
    x = rng.standard_normal((2, 3, 4, 5))
    check_layer(backend, GlobalAveragePooling, x, lambda x: x.mean(axis=(2, 3)), rng=rng)


ELEMENTWISE = {
    ReLU: lambda x: np.where(x > 0, x, 0),
    ReLU6: lambda x: 6 * np.clip(x / 6, 0, 1),
    Sigmoid: lambda x: 1 / (1 + np.exp(-x)),
    ScaledTanh: lambda x: 1.7159 * np.tanh(2 * x / 3),
    Tanh: lambda x: (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x)),
}


@pytest.mark.parametrize(
    ("layer", "shape"), list(product(ELEMENTWISE, [(7,), (3, 4), (2, 3, 4, 5)]))
)
def test_activations(backend: Backend, rng: Any, layer: Any, shape: tuple[int, ...]) -> None:
    check_layer(backend, layer, distinct(rng, shape), ELEMENTWISE[layer], rng=rng)


def test_channels_of_zeros(backend: Backend, rng: Any) -> None:
    def formula(x: Array) -> Array:
        return np.pad(x, ((0, 0), (2, 1), (0, 0), (0, 0)))

    x = rng.standard_normal((2, 3, 4, 5))
    check_layer(backend, lambda: PadChannels(2, 1), x, formula, rng=rng)


def test_relu6_ends_at_six(backend: Backend, rng: Any) -> None:
    x = 100 * distinct(rng, (2, 3, 4, 5))  # a step, 5, is as far from 6 as from 0
    check_layer(backend, ReLU6, x, ELEMENTWISE[ReLU6], rng=rng)


def test_softmax(backend: Backend, rng: Any) -> None:
    def formula(x: Array) -> Array:
        return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)

    check_layer(backend, Softmax, rng.standard_normal((4, 5)), formula, rng=rng)


def test_flatten(backend: Backend, rng: Any) -> None:
    x = rng.standard_normal((2, 3, 4, 5))
    check_layer(backend, Flatten, x, lambda x: np.stack([s.ravel() for s in x]), rng=rng)


@pytest.mark.filterwarnings("ignore:BatchNormalization has one number")
@pytest.mark.parametrize(
    "shape", [(6, 4), (3, 2, 4, 3), (2, 5, 1, 1), (1, 3, 4, 2), (1, 3), (1, 1, 1, 1)]
)
def test_batch_normalization(backend: Backend, rng: Any, shape: tuple[int, ...]) -> None:
    def formula(x: Array, gamma: Array, beta: Array) -> Array:
        y = np.empty_like(x)
        for c in range(x.shape[1]):
            feature = x[:, c]
            deviation = np.sqrt(feature.var() + 1e-6)
            y[:, c] = gamma[c] * (feature - feature.mean()) / deviation + beta[c]
        return y

    x = 3 + 2 * rng.standard_normal(shape)
    check_layer(backend, BatchNormalization, x, formula, rng=rng)


def test_containers_nest(backend: Backend, rng: Any) -> None:
    def make() -> Sequential:
        return Sequential([Tanh(), Residual([Sequential([Tanh()]), Sigmoid()]), Flatten()])

    def formula(x: Array) -> Array:
        h = np.tanh(x)
        return (h + 1 / (1 + np.exp(-np.tanh(h)))).reshape(len(x), -1)

    check_layer(backend, make, rng.standard_normal((2, 3, 2, 2)), formula, rng=rng)


@pytest.mark.parametrize("scale_at", ["inference", "training"])
def test_dropout_forward_and_backward(backend: Backend, rng: Any, scale_at: str) -> None:
    layer = Dropout(0.3, scale_at=scale_at)
    layer.reseed([5])
    x = backend.asarray(1 + rng.random((50, 200)), "float32")
    y, dx = (backend.to_numpy(a) for a in (layer.forward(x, train=True), layer.backward(x)))
    host = backend.to_numpy(x)
    ratio = y / host
    kept = 1.0 if scale_at == "inference" else 1 / 0.7
    assert set(np.unique(ratio.round(5))) == {0.0, np.float32(round(kept, 5))}
    dropped = (ratio == 0).mean()
    assert abs(dropped - 0.3) < 4 * np.sqrt(0.3 * 0.7 / ratio.size)
    np.testing.assert_array_equal(dx, y)  # the same mask, both ways
    assert y.dtype == dx.dtype == np.float32
    inference = backend.to_numpy(layer.forward(x))
    np.testing.assert_allclose(inference, host * (0.7 if scale_at == "inference" else 1), 1e-6)


class Leaky(ReLU):
    def forward(self, x: Any, train: bool = False) -> Any:
        return x * 0.1 + super().forward(x, train)


class Shifted(Affine):
    def forward(self, x: Any, train: bool = False) -> Any:
        return super().forward(x, train) - 1


def test_a_relu_is_computed_with_the_product_before_it(backend: Backend, rng: Any) -> None:
    """And only there: what is derived from either layer may mean something else."""
    x = rng.standard_normal((6, 5))

    def outputs(*layers: Layer) -> Any:
        network = Network(list(layers), (5,), dtype="float64", seed=1)
        device_x = backend.asarray(x)
        whole = backend.to_numpy(network.predict(device_x))
        fused = layers[0].relu
        for layer in layers:
            layer.relu = layer.computed_before = False  # type: ignore[attr-defined]
        np.testing.assert_allclose(whole, backend.to_numpy(network.predict(device_x)), rtol=1e-12)
        return fused

    assert outputs(Affine(4), ReLU(), Affine(3))
    assert not outputs(Affine(4), Leaky(), Affine(3))
    assert not outputs(Shifted(4), ReLU(), Affine(3))
    assert not outputs(Affine(4), Dropout(0.5), ReLU(), Affine(3))


class Halved(MaxPooling):
    def backward(self, dout: Any) -> Any:
        return super().backward(dout) / 2


def test_max_pooling_takes_the_gradient_of_the_relu_before_it(backend: Backend, rng: Any) -> None:
    """And the sum for the product's b; only where all three stand together, as they are."""
    x, t = backend.asarray(rng.standard_normal((4, 2, 6, 6))), backend.asarray(np.arange(4) % 3)

    def gradients(*layers: Layer, frozen: tuple[str, ...] = ()) -> bool:
        network = Network([*layers, Affine(5), ReLU(), Affine(3)], (2, 6, 6), dtype="float64")
        if frozen:
            network.freeze(*frozen)
        whole = {name: backend.to_numpy(g) for name, g in network.gradient(x, t).items()}
        together = layers[0].pooled is not None
        for layer in network.body.layers.values():
            layer.relu = layer.computed_before = False  # type: ignore[attr-defined]
            layer.pooled = layer.product = None  # type: ignore[attr-defined]
        network.grads.buffer[...] = 0 if frozen else 9
        for name, g in network.gradient(x, t).items():
            expected = backend.to_numpy(g)
            np.testing.assert_allclose(whole[name], expected, rtol=1e-11, atol=1e-15, err_msg=name)
        return together

    assert gradients(Convolution(4, 3), ReLU(), MaxPooling(2))
    assert gradients(Convolution(3, 3, pad=1), ReLU(), MaxPooling(3, stride=1, pad=1))
    assert gradients(Convolution(4, 3, bias=False), ReLU(), MaxPooling(2))
    assert gradients(Convolution(4, 3), ReLU(), MaxPooling(2), frozen=("conv1",))
    block = Convolution(4, 3), ReLU(), MaxPooling(2), Convolution(4, 1), ReLU(), MaxPooling(2)
    assert gradients(*block, frozen=("conv2",))
    assert not gradients(Convolution(4, 3), ReLU(), Halved(2))
    assert not gradients(Convolution(4, 3), Leaky(), MaxPooling(2))
    assert not gradients(Convolution(4, 3), MaxPooling(2), ReLU())
    assert not gradients(Convolution(4, 3), ReLU(), Residual([ReLU()]), MaxPooling(2))
    assert not gradients(Convolution(4, 3), ReLU(), AveragePooling(2))


def test_every_layer_that_takes_a_relu_takes_its_gradient(backend: Backend, rng: Any) -> None:
    # Each that there is, in each way that it computes.
    makers: list[Any] = [
        *(lambda: Affine(4), lambda: Convolution(4, 2)),
        *(lambda: Convolution(4, 2, groups=2), lambda: Convolution(4, 2, groups=4)),
    ]
    takers = {kind for kind in Layer.classes.values() if vars(kind).get("takes_relu")}
    assert takers == {type(make()) for make in makers}
    x, dout = rng.standard_normal((2, 4, 3, 3)), rng.standard_normal((2, 4, 2, 2))
    for make in makers:
        found = []
        for layers in ([make(), ReLU()], [Sequential([make()]), ReLU()]):
            network = Network(layers, (4, 3, 3), dtype="float64", loss=IdentityWithLoss(), seed=3)
            y = network.body.forward(backend.asarray(x), train=True)
            by_output = backend.asarray(dout[:, :, 0, 0] if y.ndim == 2 else dout)
            assert layers[0].relu == (layers[0].kind != "block")
            network.body.backward(by_output)
            found.append(backend.to_numpy(network.grads.buffer).copy())
        np.testing.assert_allclose(*found, rtol=1e-12, atol=1e-14, err_msg=repr(make()))
        assert np.abs(found[0]).max() > 0


def test_a_layer_that_moves_to_another_network_forgets_its_neighbours(rng: Any) -> None:
    layers = [Convolution(4, 3), ReLU(), MaxPooling(2)]
    Sequential(layers).plan((2, 6, 6))
    conv, relu, pool = layers
    assert conv.pooled is pool
    assert pool.computed_before  # type: ignore[attr-defined]
    assert pool.product is conv  # type: ignore[attr-defined]
    Sequential([pool, relu, conv]).plan((2, 8, 8))
    assert conv.pooled is None
    assert not pool.computed_before  # type: ignore[attr-defined]
    assert not relu.computed_before  # type: ignore[attr-defined]
    assert pool.product is None  # type: ignore[attr-defined]


def test_dropout_masks_follow_the_seed(backend: Backend) -> None:
    layer, x = Dropout(0.5), backend.asarray(np.ones((4, 100)), "float32")

    def mask(seed: int) -> Array:
        layer.reseed([seed])
        return backend.to_numpy(layer.forward(x, train=True))

    first, again, other = mask(1), mask(1), mask(2)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (backend.to_numpy(layer.forward(x, train=True)) != other).any()  # each batch its own


def test_dropout_masks_do_not_depend_on_memory_order(backend: Backend, rng: Any) -> None:
    layer = Dropout(0.5)
    x = rng.random((3, 4, 5, 6)) + 1
    last = backend.asarray(np.ascontiguousarray(x.transpose(0, 2, 3, 1))).transpose(0, 3, 1, 2)
    layer.reseed([1])
    y = backend.to_numpy(layer.forward(backend.asarray(x), train=True))
    layer.reseed([1])
    np.testing.assert_array_equal(backend.to_numpy(layer.forward(last, train=True)), y)


def test_batch_normalization_at_inference_uses_running_statistics(
    backend: Backend, rng: Any
) -> None:
    layer = BatchNormalization(momentum=0.8)
    layer.build((3, 4, 4), rng, dtype="float64")
    mean, variance = np.zeros(3), np.ones(3)
    for _ in range(4):
        x = 5 + 3 * rng.standard_normal((6, 3, 4, 4))
        layer.forward(backend.asarray(x), train=True)
        mean = 0.8 * mean + 0.2 * x.mean(axis=(0, 2, 3))
        variance = 0.8 * variance + 0.2 * x.var(axis=(0, 2, 3))
    before = {name: backend.to_numpy(array) for name, array in layer.state.items()}
    np.testing.assert_allclose(before["running_mean"], mean)
    np.testing.assert_allclose(before["running_var"], variance)
    y = backend.to_numpy(layer.forward(backend.asarray(x)))
    expected = (x - mean[:, None, None]) / np.sqrt(variance + 1e-6)[:, None, None]
    np.testing.assert_allclose(y, expected)
    for name, array in before.items():
        np.testing.assert_array_equal(backend.to_numpy(layer.state[name]), array)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1)])
def test_batch_normalization_of_a_large_batch(
    backend: Backend, rng: Any, order: Any, frozen: bool
) -> None:
    """What is large takes a quicker way on some backends, if its memory lies as a net's does."""
    layer = BatchNormalization(momentum=0.9)
    layer.build((12, 14, 14), rng, dtype="float32")
    # dout about 0: a plain sum of so many rows is good to 1e-5, and dgamma is as sensitive to the
    # mean of x as the sum of dout is large.
    x, dout = ((mean + rng.standard_normal((60, 12, 14, 14))).astype("float32") for mean in (2, 0))
    gamma, beta, mean, variance = rng.random((4, 12, 1, 1)).astype("float32") + 0.5
    for arrays, name, value in (
        (layer.params, "gamma", gamma),
        (layer.params, "beta", beta),
        (layer.state, "running_mean", mean),
        (layer.state, "running_var", variance),
    ):
        arrays[name][...] = backend.asarray(value[:, 0, 0])
    layer.frozen = frozen
    there, dout_there = (
        backend.asarray(np.ascontiguousarray(a.transpose(order))).transpose(*np.argsort(order))
        for a in (x, dout)
    )
    y = layer.forward(there, train=True)
    dx = layer.backward(dout_there)

    wide, g, axes = x.astype("float64"), dout.astype("float64"), (0, 2, 3)
    now = {"running_mean": mean, "running_var": variance}
    if not frozen:
        mean, variance = wide.mean(axis=axes), wide.var(axis=axes)
        mean, variance = mean.reshape(12, 1, 1), variance.reshape(12, 1, 1)
        now["running_mean"] = 0.9 * now["running_mean"] + 0.1 * mean
        now["running_var"] = 0.9 * now["running_var"] + 0.1 * variance
    xn = (wide - mean) / np.sqrt(variance + 1e-6)
    expected_dx = g
    if not frozen:
        expected_dx = g - g.mean(axes, keepdims=True) - xn * (g * xn).mean(axes, keepdims=True)
    expected_dx = gamma / np.sqrt(variance + 1e-6) * expected_dx
    expected = {"y": gamma * xn + beta, "dx": expected_dx} | now
    if not frozen:
        expected |= {"gamma": (g * xn).sum(axes), "beta": g.sum(axes)}
    else:
        assert not layer.grads
    for name, actual in {"y": y, "dx": dx, **layer.state, **layer.grads}.items():
        host = backend.to_numpy(actual)
        assert host.dtype == "float32", name
        wanted = expected[name].reshape(host.shape)
        tolerance = 1e-5 * np.abs(wanted).max()
        np.testing.assert_allclose(host, wanted, rtol=1e-5, atol=tolerance, err_msg=name)


def test_batch_normalization_of_half_precision_does_not_overflow(backend: Backend) -> None:
    # The variance of N(100, 60) has squares beyond 65504 in its sum.
    x = 100 + 60 * np.random.default_rng(0).standard_normal((64, 2, 8, 8))
    layer = BatchNormalization()
    layer.build((2, 8, 8), np.random.default_rng(0), dtype="float16")
    y = backend.to_numpy(layer.forward(backend.asarray(x, "float16"), train=True))
    assert abs(y.astype("float64").std() - 1) < 0.01
    assert layer.state["running_var"].dtype == np.float32


def test_max_pooling_gives_ties_to_the_first(backend: Backend) -> None:
    layer = MaxPooling(2)
    x = backend.asarray(np.ones((1, 1, 2, 4)), "float32")
    layer.forward(x, train=True)
    dx = layer.backward(backend.asarray([[[[3.0, 5.0]]]], "float32"))
    np.testing.assert_array_equal(backend.to_numpy(dx)[0, 0], [[3, 0, 5, 0], [0, 0, 0, 0]])


def test_a_forward_pass_without_train_does_not_disturb_one_with(backend: Backend, rng: Any) -> None:
    layers = Sequential([Convolution(2, 3, pad=1), ReLU(), MaxPooling(2), Affine(3), Tanh()])
    layers.build((2, 4, 4), np.random.default_rng(1), dtype="float64")
    x, other = (backend.asarray(rng.standard_normal((3, 2, 4, 4))) for _ in range(2))
    dout = backend.asarray(rng.standard_normal((3, 3)))
    layers.forward(x, train=True)
    expected = backend.to_numpy(layers.backward(dout))
    layers.forward(x, train=True)
    layers.forward(other)
    np.testing.assert_array_equal(backend.to_numpy(layers.backward(dout)), expected)


def test_residual_does_not_corrupt_the_way_around(backend: Backend, rng: Any) -> None:
    # A layer that wrote into dout would change what the way around adds.
    layer = Residual([Affine(4), Affine(4)])
    layer.build((4,), rng, dtype="float64")
    x = backend.asarray(rng.standard_normal((3, 4)))
    dout = rng.standard_normal((3, 4))
    layer.forward(x, train=True)
    dx = backend.to_numpy(layer.backward(backend.asarray(dout)))
    first, second = (backend.to_numpy(leaf.params["W"]) for _, leaf in list(layer.leaves())[:2])
    np.testing.assert_allclose(dx, dout + dout @ second.T @ first.T)


NEW_OPTIONS = [
    (Convolution(4, 3, 2, "same"), "Convolution(4, size=3, stride=2, pad='same')"),
    (Convolution(4, 3, pad=((0, 1), (0, 1))), "Convolution(4, size=3, pad=((0, 1), (0, 1)))"),
    (Convolution(4, 3, pad=((1, 1), (0, 0))), "Convolution(4, size=3, pad=(1, 0))"),
    (Convolution(4, 3, groups=2, dilation=2), "Convolution(4, size=3, groups=2, dilation=2)"),
    (MaxPooling(3, 2, remainder="keep"), "MaxPooling(3, stride=2, remainder='keep')"),
    (AveragePooling(2, count_pad=False), "AveragePooling(2, stride=2, count_pad=False)"),
    (BatchNormalization(unbiased=True), "BatchNormalization(unbiased=True)"),
    (AdaptiveAveragePooling((6, 6)), "AdaptiveAveragePooling(6)"),
    (Subsampling(3), "Subsampling(size=3)"),
    (PartialConvolution([[0, 1], [1]], 5), "PartialConvolution(((0, 1), (1,)), 5)"),
    (
        LocalResponseNormalization(averaged=True, bias=1),
        "LocalResponseNormalization(bias=1.0, averaged=True)",
    ),
]


@pytest.mark.parametrize(("layer", "text"), NEW_OPTIONS, ids=[text for _, text in NEW_OPTIONS])
def test_options_go_through_a_file(layer: Layer, text: str) -> None:
    again = layer_from_config(json.loads(json.dumps(layer.config())))
    assert again.config() == layer.config()
    assert repr(again) == repr(layer) == text


@pytest.mark.parametrize(
    "config",
    [
        {"type": "Convolution", "filters": 4, "size": [3, 3], "stride": [1, 1], "pad": [1, 1],
         "bias": True, "remainder": "error"},
        {"type": "AveragePooling", "size": [2, 2], "stride": [2, 2], "pad": [0, 0],
         "remainder": "error"},
        {"type": "BatchNormalization", "momentum": 0.9, "epsilon": 1e-6},
    ],
)  # fmt: skip
def test_files_from_before_these_options_mean_what_they_meant(config: dict[str, Any]) -> None:
    made = layer_from_config(config).config()
    new = {"groups": 1, "dilation": (1, 1), "count_pad": True, "unbiased": False}
    for name, value in made.items():
        expected = config[name] if name in config else new[name]
        assert value == (tuple(expected) if isinstance(expected, list) else expected)
