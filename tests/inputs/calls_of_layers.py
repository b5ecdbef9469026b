"""The layers and the losses: how each is made, built, and asked forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from hostile_values import (
    EITHER,
    INF,
    NAN,
    REFUSED,
    SAME,
    Hostile,
    Kind,
    array,
    dtype,
    either,
    flag,
    name,
    number,
    refused,
    rng,
    same,
    shape,
    sides,
    thing,
    truth,
    whole,
)
from verdicts import Call

from xpdl import layers, losses
from xpdl.backends import Backend
from xpdl.layers import (
    AdaptiveAveragePooling,
    Add,
    Affine,
    AveragePooling,
    BatchNormalization,
    Concatenate,
    Convolution,
    Dropout,
    Flatten,
    GlobalAveragePooling,
    Graph,
    Input,
    Layer,
    LocalResponseNormalization,
    MaxPooling,
    Multiply,
    Normalize,
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
)
from xpdl.losses import HuberWithLoss, IdentityWithLoss, Loss, SigmoidWithLoss, SoftmaxWithLoss

IMAGES = np.arange(2 * 3 * 4 * 6, dtype="f4").reshape(2, 3, 4, 6) % 7 / 4 - 0.75
ROWS = np.arange(4 * 5, dtype="f4").reshape(4, 5) % 7 / 4 - 0.75
TARGETS = np.array([0, 4, 2, 1])
ONE_HOT = np.eye(5, dtype="f4")[TARGETS]
SAMPLE_WEIGHTS = array(np.array([1.0, 0.5, 2.0, 0.0]), kinds="fiub", none=True)


NO_SUCH_CLASS = {
    f"t: holding {n}": "the loss of a class that does not exist is NaN"
    for n in (-1, 10**6, 2**62, "2**64 - 1")
}


def seeded() -> np.random.Generator:
    return np.random.default_rng(1)


def use_layer(*inputs: tuple[int, ...]) -> Callable[[Backend, Any], None]:
    """Return what builds a layer, trains it a step and infers, for an input of each shape."""

    def use(backend: Backend, layer: Layer) -> None:
        for input_shape in inputs:
            layer.build(input_shape, seeded())
            x = backend.asarray(np.ones((2, *input_shape)), "float32")
            y = layer.forward(x, train=True)
            layer.backward(backend.xp.ones_like(y))
            layer.forward(x)
            repr(layer), layer.config()

    return use


def trained(make: Callable[[], Layer], x: np.ndarray[Any, Any]) -> Callable[[Backend], Layer]:
    """Return what makes a layer, builds it for x and sends x forward."""

    def subject(backend: Backend) -> Layer:
        layer = make()
        layer.build(x.shape[1:], seeded())
        layer.forward(backend.asarray(x, "float32"), train=True)
        return layer

    return subject


def merges(make: Callable[[], Layer], x: np.ndarray[Any, Any]) -> Iterator[Call]:
    """Yield the calls of a layer of two inputs, of which one is x and the other replaced."""
    title = type(make()).__name__

    def subject(backend: Backend) -> Layer:
        layer, a = make(), backend.asarray(x, "float32")
        layer.forward(a, a, train=True)
        return layer

    yield Call(
        f"{title}.build",
        {"input_shape": shape(x.shape[1:], least=0), "rng": rng(), "dtype": dtype("float32")},
        lambda layer, **given: layer.build(**given),
        lambda backend: make(),
        words={"input_shape": "input_shape|inputs?"},
    )
    yield Call(
        f"{title}.forward",
        {"x1": array(x, elsewhere=REFUSED), "x2": array(x), "train": truth(True)},
        lambda layer, x1, x2, train: layer.forward(x1, x2, train=train),
        subject,
        words={"x1": "x|inputs", "x2": "x|inputs"},
    )
    dout = np.arange(np.concatenate([x, x], 1).size if title == "Concatenate" else x.size)
    y = (len(x), -1, *x.shape[2:])
    yield Call(
        f"{title}.backward",
        {"dout": array(dout.reshape(y) % 5 / 4 - 0.5)},
        lambda layer, dout: layer.backward(dout),
        subject,
    )


def branches() -> Graph:
    """Return a graph of one input and two ways to its output."""
    x = Input((5,))
    return Graph(x, Add()(Affine(3)(x), ReLU()(Affine(3)(x))))


def two_inputs() -> Graph:
    a, b = Input((5,)), Input((5,))
    return Graph([a, b], Add()(a, Tanh()(b)))


def node(_: Backend | None = None) -> Any:
    return Input((5,))


MADE = "what is made of the inputs"


def of_the(inputs: Any) -> Any:
    """Return the output of a graph that begins at `inputs`, where that is a node."""
    x = inputs if isinstance(inputs, Input) else Input((5,))
    return Add()(x, ReLU()(x))


def node_name(value: str) -> Kind:
    """Return the kind of a node's name."""
    wrong = refused(object(), 1.5, True, 3, [1], {"a": 1}, dict, b"a", "", "a.b")
    return Kind(lambda _: value, lambda _: [*wrong, *either(None, "\0", "a" * 10_000)])


def numbers(value: Any) -> Kind:
    """Return the kind of a number, or one a channel."""
    kind = number(0.5)

    def hostile(backend: Backend) -> list[Hostile]:
        listed = [[], (), [None], ["1"], [[1.0]], [NAN], [INF], {1.0}, "12", np.ones((2, 2))]
        single = [h for h in kind.hostile(backend) if h.verdict == REFUSED and not _listed(h.value)]
        alike = same(value, list(value), np.array(value), tuple(map(np.float64, value)))
        return [*single, *refused(*listed), *alike, *either(1e-320, INF, -INF, (1.0, 2.0))]

    return Kind(lambda _: value, hostile)


def _listed(value: Any) -> bool:
    return isinstance(value, list) or getattr(value, "ndim", 0) > 0


def passes(
    title: str, make: Callable[[], Layer], x: np.ndarray[Any, Any], kinds: str = "f"
) -> Iterator[Call]:
    """Yield the calls that all layers have in common; `kinds` are the types that they take."""
    subject = trained(make, x)
    from xpdl.backends import use_backend

    with use_backend("numpy") as numpy:
        layer = subject(numpy)
        y = np.asarray(layer.forward(numpy.asarray(x, "float32")))
        learns = any(leaf.specs for _, leaf in layer.leaves())
    dout = np.arange(y.size).reshape(y.shape) % 5 / 4 - 0.5
    yield Call(
        f"{title}.build",
        {"input_shape": shape(x.shape[1:], least=0), "rng": rng(), "dtype": dtype("float32")},
        lambda layer, **given: layer.build(**given),
        lambda backend: make(),
        words={"input_shape": "input_shape|inputs?"},
        documented={
            f"input_shape: {shape}": "what a plan that failed noted down, the next does anew"
            for shape in ("(5, 1)", "[]", "()")
            if title == "Residual"
        },
    )
    yield Call(
        f"{title}.forward",
        {
            "x": array(x, kinds=kinds, elsewhere=REFUSED if learns else EITHER),
            "train": truth(True),
        },
        lambda layer, x, train: layer.forward(x, train=train),
        subject,
        words={"x": "x|image|width|height|inputs"},
    )
    yield Call(
        f"{title}.backward",
        {"dout": array(dout)},
        lambda layer, dout: (layer.backward(dout), layer.grads),
        subject,
    )


WEIGHT_INIT = name("he", numbers=True)
POOLING = {
    "size": sides(2),
    "stride": sides(2, none=True),
    "pad": sides(1),
    "remainder": name("error"),
}


def given_units(kind: Kind, more: list[Hostile]) -> Kind:
    """Return the kind of a number of units, of which arrays are parameters, with other hosts."""

    def hostile(backend: Backend) -> list[Hostile]:
        return [h for h in kind.hostile(backend) if not isinstance(h.value, np.ndarray)] + more

    return Kind(kind.valid, hostile)


LAYER_CALLS: list[Call] = [
    Call(
        "Affine",
        {
            "units": given_units(
                whole(3), refused(np.ones(3, int), np.ones((2, 3), int), np.array(["a"]))
            ),
            "b": Kind(lambda _: None, lambda _: refused(1.0, "text", True, [1.0], np.ones(3))),
            "weight_init": WEIGHT_INIT,
            "bias": flag(True),
        },
        lambda _, **given: Affine(**given),
        use=use_layer((6,)),
        words={"units": "units|W", "weight_init": "weight_init|weight initialisation"},
    ),
    Call(
        "Affine(W, b)",
        {"W": array(ROWS), "b": array(ROWS[0], none=True)},
        lambda _, W, b: Affine(W, b),
        use=use_layer((4,)),
        words={"W": "W|units"},
    ),
    Call(
        "Convolution",
        {
            "filters": given_units(whole(3), refused(np.ones(3, int), np.ones((2, 3, 1, 1), int))),
            "size": sides(3),
            "stride": sides(1),
            "pad": sides(1),
            "weight_init": WEIGHT_INIT,
            "bias": flag(True),
            "remainder": name("error"),
            "groups": whole(1),
            "dilation": sides(1),
        },
        lambda _, **given: Convolution(**given),
        use=use_layer((2, 4, 6)),
        words={"filters": "filters|W", "weight_init": "weight_init|weight initialisation"},
    ),
    Call(
        "Convolution(W, b)",
        {"W": array(IMAGES[:, :, :3, :3]), "b": array(ROWS[0, :2], none=True)},
        lambda _, W, b: Convolution(W, b),
        use=use_layer((3, 4, 6)),
        words={"W": "W|filters|size"},
    ),
    Call("MaxPooling", POOLING, lambda _, **g: MaxPooling(**g), use=use_layer((2, 4, 6))),
    Call(
        "AveragePooling",
        {**POOLING, "count_pad": flag(False)},
        lambda _, **given: AveragePooling(**given),
        use=use_layer((2, 4, 6)),
    ),
    Call(
        "AdaptiveAveragePooling",
        {"size": sides(2)},
        lambda _, size: AdaptiveAveragePooling(size),
        use=use_layer((2, 4, 6)),
    ),
    Call(
        "Subsampling",
        {"size": whole(2)},
        lambda _, size: Subsampling(size),
        use=use_layer((2, 4, 6)),
    ),
    Call(
        "PadChannels",
        {"before": whole(1), "after": whole(2)},
        lambda _, **given: PadChannels(**given),
        use=use_layer((2, 4, 6)),
    ),
    Call(
        "LocalResponseNormalization",
        {
            "size": whole(3),
            "bias": number(2.0),
            "alpha": number(0.25),
            "beta": number(0.75),
            "averaged": flag(True),
        },
        lambda _, **given: LocalResponseNormalization(**given),
        use=use_layer((2, 4, 6)),
    ),
    Call(
        "BatchNormalization",
        {"momentum": number(0.5), "epsilon": number(0.25), "unbiased": flag(True)},
        lambda _, **given: BatchNormalization(**given),
        use=use_layer((5,)),
    ),
    Call(
        "Dropout",
        {"ratio": number(0.5), "scale_at": name("training")},
        lambda _, **given: Dropout(**given),
        use=use_layer((5,)),
    ),
    *(
        Call(
            kind.__name__,
            {
                "layers": thing(
                    lambda _: [ReLU(), Tanh()],
                    ReLU,
                    [ReLU],
                    [None],
                    [ReLU(), "relu"],
                    {"a": None},
                    {"a.b": ReLU()},
                    {"": ReLU()},
                    {1: ReLU()},
                    {None: ReLU()},
                    iter([]),
                    5,
                    ReLU(),
                    [[ReLU()]],
                ),
                **more,
            },
            lambda _, kind=kind, **given: kind(**given),
            use=use_layer((5,)),
        )
        for kind, more in (
            (Sequential, {}),
            (
                Residual,
                {"shortcut": thing(lambda _: Affine(5), ReLU, [ReLU()], Input((5,)), none=True)},
            ),
        )
    ),
    Call("Add", {}, lambda _: Add()),
    Call("Multiply", {}, lambda _: Multiply()),
    Call("Concatenate", {"axis": whole(1)}, lambda _, axis: Concatenate(axis)),
    Call(
        "Normalize",
        {
            "divisor": number(2.0),
            "mean": numbers((0.5, 0.25, 1.0)),
            "deviation": numbers((0.5, 0.25, 2.0)),
        },
        lambda _, **given: Normalize(**given),
        use=use_layer((3, 4, 6)),
    ),
    Call(
        "Input",
        {"shape": shape((3, 4, 6)), "name": node_name("picture")},
        lambda _, **given: Input(**given),
        use=lambda _, made: (ReLU()(made), repr(made)),
    ),
    Call(
        "Graph",
        {
            "inputs": thing(node, [], {}, {1: Input((5,))}, [None], ReLU()(Input((5,)))),
            "outputs": thing(lambda _: MADE, [], {1: Input((5,))}, ReLU(), Input((5,))),
        },
        lambda _, inputs, outputs: Graph(inputs, of_the(inputs) if outputs is MADE else outputs),
        use=use_layer((5,)),
        words={"outputs": "outputs?"},
    ),
    Call(
        "Layer of nodes",
        {
            "x1": thing(node, Input, ReLU(), Input((6,))),
            "x2": thing(node, Input, ReLU(), Input((6,))),
            "name": node_name("sum"),
        },
        lambda layer, x1, x2, name: layer(x1, x2, name=name),
        lambda _: Add(),
        words={"x1": "Add|sum", "x2": "Add|sum"},
    ),
    *merges(Add, ROWS),
    *merges(Multiply, ROWS),
    *merges(Concatenate, IMAGES),
    *passes("Normalize", lambda: Normalize(2.0, (0.5, 0.25, 1.0), (0.5, 0.25, 2.0)), IMAGES, "iuf"),
    *passes("Graph", branches, ROWS),
    Call(
        "Graph of two inputs.forward",
        {"x1": array(ROWS), "x2": array(ROWS), "train": truth(True)},
        lambda layer, x1, x2, train: layer.forward(x1, x2, train=train),
        lambda _: two_inputs(),
        words={"x1": "x|inputs", "x2": "x|inputs"},
    ),
    *passes("Affine", lambda: Affine(3), ROWS),
    *passes("Affine of images", lambda: Affine(3), IMAGES),
    *passes("Convolution", lambda: Convolution(2, 3, pad=1), IMAGES),
    *passes("Convolution with stride", lambda: Convolution(2, 2, stride=2), IMAGES),
    *passes("MaxPooling", lambda: MaxPooling(2), IMAGES),
    *passes("MaxPooling overlapping", lambda: MaxPooling(2, 1, pad=1), IMAGES),
    *passes("AveragePooling", lambda: AveragePooling(2), IMAGES),
    *passes("GlobalAveragePooling", GlobalAveragePooling, IMAGES),
    *passes("BatchNormalization", BatchNormalization, ROWS),
    *passes("BatchNormalization of images", BatchNormalization, IMAGES),
    *passes("Dropout", lambda: Dropout(0.5), ROWS),
    *passes("AdaptiveAveragePooling", lambda: AdaptiveAveragePooling(3), IMAGES),
    *passes("PadChannels", lambda: PadChannels(1, 2), IMAGES),
    *passes("LocalResponseNormalization", LocalResponseNormalization, IMAGES),
    *passes("Subsampling", Subsampling, IMAGES),
    *passes("PartialConvolution", lambda: PartialConvolution([[0, 1], [1]], 2), IMAGES),
    *passes("ReLU", ReLU, ROWS),
    *passes("ReLU6", ReLU6, IMAGES),
    *passes("Sigmoid", Sigmoid, IMAGES),
    *passes("Tanh", Tanh, ROWS),
    *passes("ScaledTanh", ScaledTanh, ROWS),
    *passes("Softmax", Softmax, ROWS),
    *passes("Flatten", Flatten, IMAGES),
    *passes("Sequential", lambda: Sequential([Affine(4), ReLU(), Affine(2)]), ROWS),
    *passes("Residual", lambda: Residual([Affine(5), ReLU()]), ROWS),
    Call(
        "layer_from_config",
        {
            "config": thing(
                lambda _: {"type": "Affine", "units": 3},
                {"type": "Rel"},
                {"type": None},
                {"type": []},
                {"type": "ReLU", "units": 1},
                {"type": "Affine"},
                {"type": "Affine", "units": "3"},
                {"type": "Affine", "units": None},
                {"type": "Affine", "units": 3, 1: 2},
                {"type": "Sequential"},
                {"type": "Sequential", "layers": []},
                {"type": "Sequential", "layers": {"a": 3}},
                {"type": "Layer"},
                ["type"],
            )
        },
        lambda _, config: layers.layer_from_config(config),
        use=use_layer((5,)),
        words={"config": "config|layer|made from|units|layers"},
    ),
    Call(
        "forget",
        {
            "owner": Kind(
                lambda backend: trained(ReLU, ROWS)(backend),
                lambda _: either(None, object(), "text", 1, {}, np.ones(2)),
            )
        },
        lambda _, owner: layers.forget(owner),
    ),
    # ---- losses --------------------------------------------------------------------------------
    Call(
        "SoftmaxWithLoss",
        {
            "label_smoothing": number(0.25),
            "ignored": whole(3, none=True),
            "class_weights": thing(lambda _: [1.0, 2.0, 0.5, 1.0, 3.0], -1, [-1.0], none=True),
        },
        lambda _, **given: SoftmaxWithLoss(**given),
        use=lambda backend, loss: (
            loss.forward(backend.asarray(ROWS), backend.asarray(TARGETS)),
            loss.backward(),
        ),
    ),
    Call("IdentityWithLoss", {}, lambda _: IdentityWithLoss()),
    Call(
        "HuberWithLoss",
        {"delta": number(0.5)},
        lambda _, **given: HuberWithLoss(**given),
        use=lambda backend, loss: _use_of_rows(backend, loss),
    ),
    Call(
        "SigmoidWithLoss",
        {"ignored": whole(0, none=True)},
        lambda _, **given: SigmoidWithLoss(**given),
        use=lambda backend, loss: _use_of_rows(backend, loss),
    ),
    *(
        Call(
            f"SoftmaxWithLoss{title}.forward",
            {"x": array(ROWS), "t": target, "weights": SAMPLE_WEIGHTS},
            lambda loss, x, t, weights: (loss.forward(x, t, weights), loss.backward()),
            lambda _, smoothing=smoothing: SoftmaxWithLoss(smoothing),
            words={"x": "x|t"},
            documented=NO_SUCH_CLASS | {"x: one column less": "the last class is none then"},
        )
        for title, smoothing, target in (
            ("", 0.0, array(TARGETS, dtype="int64", kinds="iu")),
            (" one-hot", 0.0, array(ONE_HOT, kinds="fiub")),
            (" smoothed", 0.25, array(TARGETS, dtype="int64", kinds="iu")),
        )
    ),
    *(
        Call(
            f"{kind.__name__}.forward",
            {"x": array(ROWS), "t": array(ONE_HOT, kinds="fiub"), "weights": weights},
            lambda loss, x, t, weights: (loss.forward(x, t, weights), loss.backward()),
            lambda _, kind=kind: kind(),
            words={"x": "x|t|weights"},
        )
        for kind, weights in (
            (kind, SAMPLE_WEIGHTS) for kind in (IdentityWithLoss, SigmoidWithLoss)
        )
    ),
    *(
        Call(
            f"{kind.__name__}.backward",
            {
                "dout": Kind(
                    lambda _: 2.0,
                    lambda backend: [
                        *refused(None, "text", object(), [], {}, 1j, np.array(["a"])),
                        *either(0, -1, 10**30, True),
                        *same(2.0, np.float64(2), np.float32(2), np.int8(2)),
                        Hostile("an array ()", backend.asarray(2.0, "float32"), SAME, 2.0),
                        Hostile("an array (3,)", backend.asarray(np.ones(3)), REFUSED),
                    ],
                )
            },
            lambda loss, dout: loss.backward(dout),
            lambda backend, kind=kind, t=t: _after_forward(backend, kind(), t),
        )
        for kind, t in ((SoftmaxWithLoss, TARGETS), (IdentityWithLoss, ONE_HOT))
    ),
    Call(
        "loss_from_config",
        {
            "config": thing(
                lambda _: {"type": "SoftmaxWithLoss"},
                {"type": "Softmax"},
                {"type": None},
                {"type": []},
                {"type": "IdentityWithLoss", "label_smoothing": 0.1},
                {"type": "SoftmaxWithLoss", "label_smoothing": "0.1"},
                {"type": "SoftmaxWithLoss", 1: 2},
                {"type": "Loss"},
            )
        },
        lambda _, config: losses.loss_from_config(config),
        words={"config": "config|loss|made from|label_smoothing"},
    ),
]


def _after_forward(backend: Backend, loss: Loss, t: Any) -> Loss:
    loss.forward(backend.asarray(ROWS), backend.asarray(t))
    return loss


def _use_of_rows(backend: Backend, loss: Loss) -> None:
    _after_forward(backend, loss, ONE_HOT).backward()
