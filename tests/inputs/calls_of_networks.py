"""Networks and their verbs, the models, and several that answer together."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import numpy as np
from calls_of_layers import MADE, NO_SUCH_CLASS, ROWS, TARGETS, of_the
from hostile_values import (
    EITHER,
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
    shape,
    sides,
    thing,
    truth,
    whole,
)
from verdicts import Call

from xpdl import models
from xpdl.backends import Backend, get_backend
from xpdl.distributed import Ranks
from xpdl.layers import (
    Add,
    Affine,
    BatchNormalization,
    Convolution,
    Dropout,
    Input,
    Normalize,
    ReLU,
)
from xpdl.losses import IdentityWithLoss, SoftmaxWithLoss
from xpdl.network import Network
from xpdl.training import Step
from xpdl.training.averaging import MovingAverage
from xpdl.tuning import Ensemble, ShiftAverage

PICTURES = np.arange(4 * 1 * 4 * 4, dtype="f4").reshape(4, 1, 4, 4) % 7 / 8


def classifier(_: Backend | None = None, seed: int = 3) -> Network:
    layers = [Convolution(2, 3, pad=1), BatchNormalization(), ReLU(), Dropout(), Affine(5)]
    return Network(layers, (1, 4, 4), seed=seed, weight_decay=0.25)


def regression(_: Backend | None = None) -> Network:
    return Network([Affine(5)], 5, seed=3, loss=IdentityWithLoss())


def half(_: Backend | None = None) -> Network:
    return Network([Affine(5)], 5, seed=3, dtype="float16")


def headless() -> Network:
    return Network([ReLU()], (1, 4, 4), loss=IdentityWithLoss())


def normalize() -> Kind:
    """Return the kind of the first layer of a network that is a graph."""
    return thing(lambda _: Normalize(255), Normalize, Affine(3), none=True)


def single(_: Backend | None = None, seed: int = 3) -> Network:
    return Network([Affine(5)], (1, 4, 4), seed=seed)


def use_network(backend: Backend, network: Network) -> None:
    x = backend.asarray(np.ones((2, *network.input_shape)), "float32")
    t = backend.asarray(np.array([0, 0]))
    network.gradient(x, t)
    assert 0 <= network.accuracy(x, t) <= 1
    network.summary(), network.config(), repr(network)


def written(network: Network, path: Any, **more: Any) -> None:
    """Save into a folder that is there for the time of the call; a text is a file in it."""
    with tempfile.TemporaryDirectory() as folder:
        network.save(os.path.join(folder, path) if isinstance(path, str) else path, **more)


def arrays_with(*b: Any) -> dict[str, Any]:
    """Return the arrays of the classifier, on the host, with `b` in place of the bias if given."""
    network = classifier()
    arrays = {k: network.backend.to_numpy(a) + 0.5 for k, a in network.arrays().items()}
    return arrays | ({"affine1.b": b[0]} if b else {})


def several(_: Backend | None = None) -> Network:
    a, b = Input((5,), "a"), Input((5,), "b")
    ends = {"sum": Add()(a, Affine(5)(b)), "class": Affine(5)(b)}
    losses = {"sum": IdentityWithLoss(), "class": SoftmaxWithLoss()}
    return Network([a, b], ends, loss=losses, seed=3)


def sent_forward(network: Network, x: Any) -> Network:
    network.forward(x, train=True)
    return network


WEIGHTS = array(np.array([1.0, 0.5, 2.0, 0.25]), kinds="biuf", none=True)
LABELS = array(TARGETS, dtype="int64", kinds="iu", lists=SAME)
X = array(PICTURES, kinds="biuf", lists=SAME)
GIVEN = array(PICTURES, kinds="biuf")  # of which a list becomes what NumPy makes of it
BATCH_SIZE = whole(2)
PATH = Kind(
    lambda _: "network.safetensors",
    lambda _: refused(
        *(
            None,
            object(),
            3,
            1.5,
            True,
            [],
            {},
            dict,
            b"",
            NAN,
            "a\0b",
            "no/such/folder.safetensors",
        ),
        *("", "."),
    ),
)
NAMES = [None, object(), 1.5, True, [], {}, dict, "", "text", "\0", b"affine1", np.ones(2), 10**30]


NETWORK_CALLS: list[Call] = [
    Call(
        "Network",
        {
            "layers": thing(
                lambda _: [Affine(5), ReLU()],
                [],
                [None],
                [Affine],
                [ReLU(), "relu"],
                {"a.b": ReLU()},
                {1: ReLU()},
                ReLU(),
                ReLU,
                iter([]),
            ),
            "input_shape": shape((5,)),
            "loss": thing(lambda _: SoftmaxWithLoss(), SoftmaxWithLoss, none=True),
            "seed": whole(3),
            "dtype": dtype("float32"),
            "weight_decay": number(0.25),
            "loss_weights": thing(
                lambda _: {"y": 0.5}, {"z": 1.0}, {"y": "1"}, {"y": NAN}, none=True
            ),
            "normalize": thing(lambda _: Normalize(2.0), Normalize, none=True),
            "class_names": thing(
                lambda _: ["a", "b", "c", "d", "e"], ["a"], "abcde", [1, 2, 3, 4, 5], none=True
            ),
            "name": Kind(
                lambda _: "net",
                lambda _: [
                    *refused(object(), 1.5, True, 3, [1], {"a": 1}, dict, b"a"),
                    *either(None, "", "\0", "a" * 10_000),
                ],
            ),
            "initialize": flag(True),
        },
        lambda _, **given: Network(**given),
        use=use_network,
        words={
            "input_shape": "input_shape|input|x",
            "layers": "layers?",
            "loss_weights": "loss_weights|the weight of y",
        },
        documented={
            "loss_weights: {}": "each counts 1",
            **{
                f"class_names: {names}": "what a plan that failed noted down, the next does anew"
                for names in ("[]", "['a']")
            },
        },
    ),
    Call(
        "Network of nodes",
        {
            "inputs": thing(lambda _: Input((5,)), [], {}, {1: Input((5,))}, [Input((5,)), None]),
            "outputs": thing(lambda _: MADE, [], {}, ReLU(), {1: Input((5,))}),
        },
        lambda _, inputs, outputs: Network(inputs, of_the(inputs) if outputs is MADE else outputs),
        use=use_network,
        words={"inputs": "inputs|input_shape|layers?", "outputs": "outputs?|input_shape"},
    ),
    Call(
        "Network of two outputs.loss",
        {
            "x": thing(lambda b: {"a": b.asarray(ROWS), "b": b.asarray(ROWS)}, ROWS, {"a": ROWS}),
            "t": thing(
                lambda b: {"sum": b.asarray(ROWS), "class": b.asarray(TARGETS)},
                TARGETS,
                {"sum": ROWS},
                {"sum": ROWS, "class": None},
                {"sum": TARGETS, "class": ROWS},
            ),
        },
        lambda network, **given: network.loss(**given),
        several,
    ),
    Call(
        "Network of two outputs.backward",
        {
            "dout": thing(
                lambda b: {"sum": b.asarray(ROWS), "class": b.asarray(ROWS)},
                ROWS,
                {"sum": None},
                {"sum": ROWS, "class": ROWS[:2]},
                {"sum": ROWS, "class": ROWS[:, 1:]},
            ),
        },
        lambda network, dout: (network.backward(dout), network.grads),
        lambda backend: sent_forward(
            several(), {"a": backend.asarray(ROWS), "b": backend.asarray(ROWS)}
        ),
    ),
    Call(
        "Network.predict",
        {"x": X, "batch_size": BATCH_SIZE},
        lambda network, **given: network.predict(**given),
        classifier,
    ),
    Call(
        "Network.predict in half precision",
        {"x": array(ROWS, kinds="biuf", lists=SAME)},
        lambda network, **given: network.predict(**given),
        half,
    ),
    *(
        Call(
            f"Network.{verb}",
            {"x": X, "t": LABELS, **more},
            lambda network, verb=verb, **given: getattr(network, verb)(**given),
            classifier,
            words={"x": "x|t"},
            on_device=NO_SUCH_CLASS,
        )
        for verb, more in (
            ("loss", {"weights": WEIGHTS, "train": truth(True)}),
            ("gradient", {"weights": WEIGHTS}),
            ("accuracy", {"batch_size": BATCH_SIZE}),
            ("measures", {"batch_size": BATCH_SIZE}),
            (
                "forward_backward",
                {"scale": number(2.0), "weights": WEIGHTS, "refresh": truth(True)},
            ),
        )
    ),
    Call(
        "Network.loss one-hot",
        {"x": X, "t": array(np.eye(5)[TARGETS], kinds="biuf", lists=SAME)},
        lambda network, **given: network.loss(**given),
        classifier,
        words={"x": "x|t"},
    ),
    Call(
        "Network.gradient of a regression",
        {
            "x": array(ROWS, kinds="biuf", lists=SAME),
            "t": array(ROWS * 0.5, kinds="biuf", lists=SAME),
        },
        lambda network, **given: network.gradient(**given),
        regression,
        words={"x": "x|t"},
    ),
    Call(
        "Network.batch",
        {"x": GIVEN, "t": array(TARGETS, dtype="int64", kinds="iu"), "weights": WEIGHTS},
        lambda network, **given: network.batch(**given),
        classifier,
        words={"x": "x|t"},
        on_device=NO_SUCH_CLASS,
    ),
    *(
        Call(
            f"Network.{verb}",
            {"x": x, **more},
            lambda network, verb=verb, **given: getattr(network, verb)(**given),
            classifier,
        )
        for verb, x, more in (("inputs", GIVEN, {}), ("forward", X, {"train": truth(True)}))
    ),
    Call(
        "Network.asarray",
        {"a": array(PICTURES, kinds="biuf", numbers=EITHER)},
        lambda network, a: network.asarray("x", a),
        classifier,
        words={"a": "x"},
    ),
    Call(
        "Network.backward",
        {"dout": array(ROWS, kinds="biuf", lists=SAME), "accumulate": truth(True)},
        lambda network, **given: (network.backward(**given), network.grads),
        lambda backend: sent_forward(classifier(), backend.asarray(PICTURES)),
    ),
    Call(
        "Network.upto",
        {"name": Kind(lambda _: "relu1", lambda _: refused(*NAMES))},
        lambda network, name: (
            network.upto(name).predict(PICTURES) if network.backend.xp is np else network.upto(name)
        ),
        classifier,
        words={"name": "layer|names?"},
    ),
    Call(
        "training.Step",
        {
            "network": thing(lambda _: classifier(), Network),
            "optimizer": name("adam"),
            "average": thing(lambda _: None, MovingAverage, none=True),
            "accumulate": whole(2),
            "capture": flag(True),
            "ranks": thing(lambda _: None, Ranks, none=True),
            "whole_statistics": flag(True),
            "reduce_dtype": name("float16", none=True),
        },
        lambda _, **given: Step(**given),
        use=lambda backend, step: step(backend.asarray(PICTURES), backend.asarray(TARGETS)),
    ),
    Call(
        "Step(x, t)",
        {"x": X, "t": LABELS, "weights": WEIGHTS, "last": truth(True)},
        lambda step, **given: step(**given),
        lambda _: Step(classifier(), "sgd", accumulate=2, capture=False),
        words={"x": "x|t"},
        on_device=NO_SUCH_CLASS,
    ),
    Call(
        "Network.activations",
        {"x": X},
        lambda network, **given: network.activations(**given),
        classifier,
    ),
    Call(
        "Network.reseed",
        {
            "seed": whole(
                3,
                more=[
                    *refused(["a"], [1.5], [None], [-1], np.array([1.5])),
                    *either([1, 2], (3,), np.array([4])),
                ],
            )
        },
        lambda network, seed: (
            (network.reseed(seed), network.loss(PICTURES, TARGETS, train=True))
            if network.backend.xp is np
            else network.reseed(seed)
        ),
        classifier,
    ),
    *(
        Call(
            f"Network.{verb}",
            {"name": Kind(lambda _: "affine1", lambda _: refused(*NAMES))},
            lambda network, name, verb=verb: getattr(network, verb)(name),
            classifier,
            words={"name": "layer|names?"},
        )
        for verb in ("freeze", "unfreeze")
    ),
    Call(
        "Network.to",
        {"backend": name("numpy")},
        lambda network, backend: network.to(backend).summary(),
        classifier,
    ),
    Call(
        "Network.astype",
        {"dtype": dtype("float32")},
        lambda network, dtype: network.astype(dtype).summary(),
        classifier,
        words={"dtype": "dtype"},
    ),
    *(
        Call(
            f"Network.{verb}",
            {
                "arrays": Kind(
                    lambda _: arrays_with(),
                    lambda _: [
                        *refused(*NAMES, {"affine1.W": 1}, {3: np.ones(2)}, [np.ones(2)]),
                        *(
                            Hostile(f"b is {h.label}", arrays_with(h.value), h.verdict)
                            for h in array(np.ones(5)).hostile(get_backend("numpy"))
                            if h.verdict == REFUSED
                        ),
                        Hostile("b is None", arrays_with(None)),
                        Hostile("b is of ints", arrays_with(np.ones(5, int))),
                        Hostile("b is longer", arrays_with(np.ones(6))),
                    ],
                )
            },
            lambda network, arrays, verb=verb: getattr(network, verb)(arrays),
            classifier,
            words={"arrays": "arrays|affine1"},
            on_device={"arrays: b is an array of another backend": "host arrays are meant"},
        )
        for verb in ("load_arrays", "check_arrays")
    ),
    Call(
        "Network.params[name] = values",
        {
            "name": Kind(lambda _: "affine1.b", lambda _: refused(*NAMES)),
            "values": array(ROWS[0], kinds="biuf", numbers=EITHER),
        },
        lambda network, name, values: network.params.__setitem__(name, values),
        regression,
        words={"name": "parameter", "values": "affine1.b"},
    ),
    Call(
        "Network.save",
        {
            "path": PATH,
            "about": thing(
                lambda _: {"classes": ["a"]},
                {"a": object()},
                {"a": NAN},
                {"a": np.ones(2)},
                {"a": b""},
                none=True,
            ),
        },
        lambda network, **given: written(network, **given),
        regression,
        words={"path": "path|file|folder|cannot"},
        documented={"about: {}": "nothing to say", "about: {'a': 1}": "what JSON can hold"},
    ),
    Call(
        "Network.summary",
        {"batch_size": whole(3)},
        lambda network, **given: network.summary(**given),
        classifier,
    ),
    Call(
        "Network.bytes_per_sample",
        {"train": truth(True)},
        lambda network, **given: network.bytes_per_sample(**given),
        classifier,
    ),
    *(
        Call(
            f"Network.{name}",
            {
                "states": thing(
                    lambda _: classifier().random_state(), {"dropout1": 3}, {"dropout1": {}}
                )
            },
            lambda network, states, name=name: getattr(network, name)(states),
            classifier,
            words={"states": "states?"},
            documented={
                f"states: {text}": "the generators are made when they are first asked for"
                for text in ("{}", "{'a': 1}", "{'dropout1': 3}", "{'dropout1': {}}")
            },
        )
        for name in ("set_random_state", "check_random_state")
    ),
    Call(
        "Network.from_config",
        {
            "config": thing(
                lambda _: classifier().config(),
                *(
                    {**classifier().config(), key: value}
                    for key, value in (
                        ("body", {}),
                        ("body", 3),
                        ("loss", None),
                        ("input_shape", "x"),
                        ("weight_decay", NAN),
                        ("name", 3),
                    )
                ),
            ),
            "dtype": dtype("float32"),
        },
        lambda _, **given: Network.from_config(**given).summary(),
        words={"config": "config|input_shape|dtype|weight_decay|name"},
    ),
    # ---- models --------------------------------------------------------------------------------
    Call(
        "SimpleConvNet",
        {
            "input_shape": shape((1, 8, 8)),
            "filters": whole(2),
            "filter_size": sides(3),
            "pad": sides(1),
            "stride": sides(1),
            "hidden_size": whole(3),
            "output_size": whole(4),
            "weight_init_std": name("he", numbers=True),
            "seed": whole(3),
        },
        lambda _, **given: models.SimpleConvNet(**given),
        use=use_network,
        words={
            "input_shape": "input_shape|input",
            "filter_size": "size",
            "hidden_size": "hidden_size|units",
            "output_size": "output_size|units",
            "weight_init_std": "weight_init|weight initialisation",
        },
    ),
    Call(
        "DeepConvNet",
        {
            "input_shape": shape((1, 12, 12)),
            "hidden_size": whole(3),
            "output_size": whole(4),
            "dropout_ratio": number(0.5),
            "drop_scores": flag(True),
        },
        lambda _, **given: models.DeepConvNet(**given),
        words={
            "input_shape": "input_shape|input",
            "hidden_size": "hidden_size|units",
            "output_size": "output_size|units",
        },
    ),
    Call(
        "NormalizedConvNet",
        {
            "input_shape": shape((1, 12, 12)),
            "widths": thing(
                lambda _: (2, 2, 2),
                (),
                (1, 2),
                (1, 2, 0),
                (1, 2, "3"),
                "123",
                (1, 2, 2.5),
                [1, 2, -1],
            ),
            "output_size": whole(4),
            "dropout_ratio": number(0.5),
        },
        lambda _, **given: models.NormalizedConvNet(**given),
        words={
            "input_shape": "input_shape|input",
            "widths": "widths|filters",
            "output_size": "output_size|units",
        },
    ),
    *(
        Call(
            kind.__name__,
            {"input_shape": shape(size), "output_size": whole(4), **more},
            lambda _, kind=kind, **given: kind(**given, initialize=False),
            words={
                "input_shape": "input_shape|input|shape",
                "output_size": "output_size|units|filters",
                "hidden_size": "hidden_size|units",
            },
        )
        for kind, size, more in (
            (models.LeNet, (1, 32, 32), {"form": name("1998")}),
            (
                models.AlexNet,
                (3, 67, 67),
                {"form": name("2012"), "hidden_size": whole(8), "dropout_ratio": number(0.5)},
            ),
            (
                models.VGG,
                (3, 32, 32),
                {
                    "depth": whole(11),
                    "normalized": flag(True),
                    "hidden_size": whole(8),
                    "dropout_ratio": number(0.5),
                },
            ),
            (models.ResNet, (3, 32, 32), {"depth": whole(18)}),
            (models.CifarResNet, (3, 8, 8), {"depth": whole(8), "plain": flag(True)}),
            (
                models.WhitenedConvNet,
                (3, 17, 17),
                {"widths": thing(lambda _: (4, 6), 4, "4", (), (0,), none=False)},
            ),
            (
                models.SqueezeNet,
                (3, 32, 32),
                {"dropout_ratio": number(0.5), "normalize": normalize()},
            ),
            (models.MobileNetV2, (3, 32, 32), {"dropout_ratio": number(0.5)}),
            (
                models.GoogLeNet,
                (3, 32, 32),
                {"form": name("torchvision"), "heads": flag(False), "normalize": normalize()},
            ),
        )
    ),
    Call(
        "new_head",
        {
            "network": thing(classifier, Network, headless(), none=False),
            "classes": thing(lambda _: ["cat", "dog"], [1, 2], ["one"], 1, none=False),
            "input_shape": shape((1, 4, 4), none=True),
            "loss": thing(lambda _: SoftmaxWithLoss(), SoftmaxWithLoss, Affine(3), none=True),
            "seed": whole(3),
        },
        lambda _, **given: models.new_head(**given),
        words={"classes": "classes|class_names", "input_shape": "input_shape|input"},
    ),
    Call(
        "head_of",
        {"network": thing(classifier, Network, headless(), none=False)},
        lambda _, **given: models.head_of(**given),
    ),
    Call(
        "MultiLayerNet",
        {
            "input_size": shape((5,)),
            "hidden_size_list": thing(
                lambda _: [3, 4],
                np.array([3]),
                [0],
                [-1],
                ["3"],
                [None],
                [1.5],
                "34",
                [[3]],
                3,
                [True],
            ),
            "output_size": whole(4),
            "activation": name("relu"),
            "weight_init_std": name("he", none=True, numbers=True),
            "weight_decay_lambda": number(0.25),
            "use_batchnorm": flag(True),
            "dropout_ratio": number(0.5),
        },
        lambda _, **given: models.MultiLayerNet(**given),
        use=use_network,
        words={
            "input_size": "input_shape",
            "hidden_size_list": "hidden_size_list|units",
            "output_size": "output_size|units",
            "weight_init_std": "weight_init|weight initialisation",
            "weight_decay_lambda": "weight_decay",
        },
        documented={"hidden_size_list: []": "no hidden layer"},
    ),
    Call(
        "TwoLayerNet",
        {
            "input_size": shape((5,)),
            "hidden_size": whole(3),
            "output_size": whole(4),
            "weight_init_std": name("he", none=True, numbers=True),
        },
        lambda _, **given: models.TwoLayerNet(**given),
        use=use_network,
        words={
            "input_size": "input_shape",
            "hidden_size": "hidden_size|units",
            "output_size": "output_size|units",
            "weight_init_std": "weight_init|weight initialisation",
        },
    ),
    Call(
        "make_model",
        {"name": name("twolayernet"), "input_size": shape((5,))},
        lambda _, **given: models.make_model(**given),
        words={"name": "model", "input_size": "input_shape"},
    ),
    # ---- several that answer together ----------------------------------------------------------
    Call(
        "Ensemble",
        {
            "networks": thing(
                lambda _: [classifier(), classifier(seed=4)],
                [],
                [None],
                [classifier(), "net"],
                [regression()],
                [Network],
                classifier(),
                [classifier(), half()],
                5,
            )
        },
        lambda _, networks: Ensemble(networks),
    ),
    Call(
        "Ensemble.predict",
        {"x": X, "batch_size": BATCH_SIZE},
        lambda ensemble, **given: ensemble.predict(**given),
        lambda _: Ensemble([single(), single(seed=4)]),
    ),
    Call(
        "Ensemble.accuracy",
        {"x": X, "t": LABELS, "batch_size": BATCH_SIZE},
        lambda ensemble, **given: ensemble.accuracy(**given),
        lambda _: Ensemble([single(), single(seed=4)]),
        words={"x": "x|t"},
    ),
    Call(
        "ShiftAverage",
        {
            "model": thing(lambda _: classifier(), Network, regression(), half()),
            "shift": whole(1),
            "fill": number(0.25),
        },
        lambda _, **given: ShiftAverage(**given),
        use=lambda backend, made: made.predict(backend.asarray(PICTURES)),
        words={"model": "model|networks"},
    ),
    Call(
        "ShiftAverage.predict",
        {"x": X, "batch_size": BATCH_SIZE},
        lambda average, **given: average.predict(**given),
        lambda _: ShiftAverage(single()),
    ),
    Call(
        "ShiftAverage.accuracy",
        {"x": X, "t": LABELS, "batch_size": BATCH_SIZE},
        lambda average, **given: average.accuracy(**given),
        lambda _: ShiftAverage(single()),
        words={"x": "x|t"},
    ),
]
