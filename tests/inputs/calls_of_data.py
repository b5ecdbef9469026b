"""Data sets, batches, augmentation and pictures; and where arrays are born."""

from __future__ import annotations

import atexit
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from calls_of_layers import IMAGES, ROWS, TARGETS
from hostile_values import (
    EITHER,
    INF,
    NAN,
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
    whole,
)
from PIL import Image
from verdicts import Call

import xpdl
from xpdl import datasets
from xpdl.backends import Backend, get_backend
from xpdl.datasets import mnist
from xpdl.precision import get_precision

BYTES = np.arange(3 * 28 * 28, dtype=np.uint8).reshape(3, 28, 28)
MNIST = "mnist"
NO_SHARE = [object(), "text", NAN, INF, -1, 0.0, 1.0, [], {}, dict, True, 1j]
NO_NAME = [None, object(), 1.5, True, [], {}, dict, "", "text", "\0", b"mnist", np.ones(2), 10**30]


@cache
def files() -> Path:
    """Return a folder of small data sets, for as long as the tests run."""
    home = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, home)
    labels = np.arange(8, dtype=np.uint8) % 2
    x = np.random.default_rng(1).integers(0, 256, (8, 3, 3)).astype(np.uint8)
    np.savez(home / "a.npz", x=x, t=labels)
    (home / "idx").mkdir()
    (home / "idx" / "train-images-idx3-ubyte").write_bytes(datasets.encode_idx(x))
    (home / "idx" / "train-labels-idx1-ubyte").write_bytes(datasets.encode_idx(labels))
    (home / "pixels").write_bytes(bytes(range(60)))
    for k, picture in enumerate(x):
        path = home / "folder" / "ab"[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    return home


def path_to(name: str) -> Kind:
    return Kind(lambda _: str(files() / name), lambda _: refused(*NO_NAME))


def in_memory() -> Kind:
    plain = flag(True)
    return Kind(
        plain.valid,
        lambda backend: [each for each in plain.hostile(backend) if each.value is not None],
    )


def quietly(load: Any, **given: Any) -> Any:
    with (
        patch.dict(os.environ, XPDL_DATA=str(files() / "cache")),
        redirect_stderr(io.StringIO()),
    ):
        return np.asarray(load(**given).train[0])


@contextmanager
def small_mnist() -> Iterator[None]:
    """Put three pictures in place of the data set, which is not to be read for each case."""
    labels = np.array([1, 2, 3], np.uint8)
    arrays = datasets.MnistArrays(BYTES, labels, BYTES, labels)
    with patch.object(mnist, "read_mnist", lambda name: arrays):
        yield


def loaded(load: Any, **given: Any) -> Any:
    with small_mnist():
        return load(**given)


def spread(value: float, *, whole: bool = False) -> Kind:
    """Return the kind of a number, or a pair (low, high), from which something is drawn."""
    plain = number(value)
    pairs = refused((1, 2, 3), (NAN, 1), (1, 0), ("a", "b"), (None, 1), (True, 2), [INF, INF], ())

    def hostile(backend: Backend) -> list[Hostile]:
        return [*plain.hostile(backend), *pairs, *either((0.5, 1.5), [1, 2], (0, 0))]

    return Kind(plain.valid, hostile)


def use_augmentation(backend: Backend, augment: datasets.Augmentation) -> None:
    x = backend.asarray(IMAGES, "float32")
    y = augment(x, backend.generator(3))
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    repr(augment)


FILL = number(0.25)
# A side, or height and width, stay as they were given, to be shown so.
AS_GIVEN = {
    f"size: {kind}": "the same, shown in another way"
    for kind in ("tuple (2, 2)", "list [2, np.uint8(2)]", "tuple (3, 3)", "list [3, np.uint8(3)]")
}
DRAWN = {"x: an array of another backend": "the numbers are drawn before it shows where they are"}
AUGMENTATIONS: dict[str, dict[str, Kind]] = {
    "Rotate": {"degrees": spread(8.0), "fill": FILL},
    "Shift": {"pixels": spread(2.0), "whole": flag(True), "fill": FILL},
    "Zoom": {"amount": spread(0.25), "fill": FILL},
    "Shear": {"degrees": spread(8.0), "fill": FILL},
    "Crop": {"size": sides(3, none=True), "pad": whole(1), "fill": FILL},
    "Flip": {"probability": number(0.5), "axis": name("vertical"), "fill": FILL},
    "Elastic": {"pixels": number(0.5), "sigma": number(0.5), "fill": FILL},
    "Brightness": {"amount": spread(0.25)},
    "Noise": {"std": number(0.5)},
    "Erase": {"size": sides(2), "probability": number(0.5), "fill": FILL},
    "Cutout": {"size": sides(2), "probability": number(0.5), "fill": FILL},
}


def batches(backend: Backend) -> datasets.Batches:
    weights = np.ones(len(ROWS), "f4")
    return datasets.Batches(ROWS.copy(), TARGETS.copy(), 3, backend=backend, weights=weights)


DATA_CALLS: list[Call] = [
    *(
        Call(
            load.__name__,
            {"normalize": flag(True), "flatten": flag(False), "one_hot_label": flag(True)},
            lambda _, load=load, **given: loaded(load, **given),
        )
        for load in (datasets.load_mnist, datasets.load_fashion_mnist)
    ),
    Call(
        "read_mnist",
        {"name": Kind(lambda _: MNIST, lambda _: refused(*NO_NAME))},
        lambda _, name: None if name is MNIST else datasets.read_mnist(name, offline=True),
        words={"name": "data set"},
    ),
    *(
        Call(
            function.__name__,
            {"name": Kind(lambda _: "mnist", lambda _: refused(*NO_NAME))},
            lambda _, name, function=function: function(name),
            words={"name": "data set"},
        )
        for function in (datasets.data_folder, datasets.folder_status)
    ),
    *(
        Call(
            load.__name__,
            {
                argument: Kind(
                    lambda _, path=path: str(files() / path), lambda _: refused(*NO_NAME)
                ),
                "split": Kind(lambda _: 0.5, lambda _: refused(*NO_SHARE)),
                "seed": whole(3),
                "quiet": flag(False),
                **more,
            },
            lambda _, load=load, **given: quietly(load, **given),
            words={argument: f"{argument}|data set|read|folder|IDX", "split": "share"},
        )
        for load, argument, path, more in (
            (datasets.load_npz, "path", "a.npz", {}),
            (datasets.load_idx, "path", "idx", {}),
            (datasets.load, "source", "a.npz", {}),
            (
                datasets.load_folder,
                "path",
                "folder",
                {
                    "size": sides(3, none=True),
                    "channels": whole(1, none=True),
                    "skip_broken": flag(True),
                    "in_memory": in_memory(),
                    "workers": whole(0, none=True),
                },
            ),
        )
    ),
    Call("read_cifar10", {}, lambda _: datasets.read_cifar10),
    Call(
        "StoredPictures",
        {
            "path": path_to("pixels"),
            "rows": array(np.array([0, 1]), dtype="int64", kinds="iu"),
            "shape": shape((1, 2, 3)),
        },
        lambda _, **given: np.asarray(datasets.StoredPictures(**given)),
        words={"path": "path|read"},
    ),
    Call(
        "split_validation",
        {
            "x": array(ROWS, kinds="biuf"),
            "t": array(TARGETS, dtype="int64", kinds="biuf"),
            "fraction_or_count": Kind(
                lambda _: 0.5,
                lambda _: [
                    *refused(None, "text", object(), [], {}, True, 1j, NAN, INF, -1, 0, 0.0, 1.0),
                    *refused(10**30, -0.5, [0.5], np.array([1, 2]), 4, dict),
                    *either(1, 0.25, np.int64(2), np.float32(0.5), np.array(2)),
                ],
            ),
            "seed": whole(3),
        },
        lambda _, **given: datasets.split_validation(**given),
        words={"x": "x|t", "t": "x|t"},
    ),
    Call(
        "decode_idx",
        {
            "content": Kind(
                lambda _: datasets.encode_idx(BYTES),
                lambda _: [
                    *refused(b"", b"\0\0\x08\x03", b"text", b"\0\0\x0d\x03" + b"\0" * 12),
                    *refused(b"\0\0\x08\x03" + b"\xff" * 12, None, "text", 3, [], {}, np.ones(3)),
                    *either(bytearray(datasets.encode_idx(BYTES))),
                ],
            ),
            "name": Kind(lambda _: "images", lambda _: either("", "\0", None, 3)),
            "dimensions": whole(3),
        },
        lambda _, **given: datasets.decode_idx(**given),
        words={"content": "images", "dimensions": "dimension.s.|dimensions"},
    ),
    Call(
        "encode_idx",
        {"array": array(BYTES[:, 0, 0], kinds="u", dtype="uint8")},
        lambda _, array: datasets.encode_idx(array),
    ),
    Call(
        "prepare_picture",
        {
            "picture": Kind(
                lambda _: Image.fromarray(BYTES[0]),
                lambda _: [
                    *refused(None, object(), 3, 1.5, True, [], {}, dict, BYTES, b"", NAN),
                    *refused("", "no such file", ".", "a\0b", b"text", "a" * 200),
                    *refused(Image.new("L", (0, 0)), Image, io.StringIO("text")),
                    *either(BYTES[0], BYTES[0] / 255),
                ],
            ),
            "shape": shape((1, 5, 4)),
        },
        lambda _, **given: datasets.prepare_picture(**given),
        words={"shape": "shape|size|channels"},
    ),
    Call(
        "prepare_digit",
        {
            "picture": Kind(
                lambda _: Image.fromarray(BYTES[0]),
                lambda _: [
                    *refused(None, object(), 3, 1.5, True, [], {}, dict, BYTES, b"", NAN),
                    *refused("", "no such file", ".", "a\0b", b"text", "a" * 200),
                    *refused(Image.new("L", (28, 28)), Image.new("L", (0, 0)), Image),
                    *either(
                        *(Image.fromarray(BYTES[0]).convert(m) for m in ("RGB", "1", "F", "P")),
                        *(BYTES[0], BYTES[0] / 255),
                    ),
                ],
            )
        },
        lambda _, picture: datasets.prepare_digit(picture),
        words={"picture": "picture"},
    ),
    # ---- batches -------------------------------------------------------------------------------
    Call(
        "Batches",
        {
            "x": array(ROWS, kinds="biuf"),
            "t": array(TARGETS, dtype="int64", kinds="biuf", lists=SAME),
            "batch_size": whole(
                3,
                more=[
                    *refused(
                        {1: 3}, {0: 0}, {0: "3"}, {"0": 3}, {0: 3, -1: 2}, {0: 1.5}, {0: True}
                    ),
                    *either({0: 2, 1: 3}),
                ],
            ),
            "backend": thing(lambda backend: backend, "numpy", Backend),
            "seed": whole(3),
            "dtype": Kind(
                lambda _: "float32",
                lambda _: [
                    *refused(object(), "text", {}, 1.5, "complex64", "U3", object, [1], ""),
                    *either(None, "float16", "float64", np.float32, "int8"),
                ],
            ),
            "divisor": number(2.0, none=True),
            "weights": array(ROWS[:, 0], kinds="biuf", none=True),
        },
        lambda _, **given: datasets.Batches(**given),
        use=lambda _, made: ([*made.epoch(0)], [*made.in_order()], len(made), made.batch_size),
        words={"x": "x|t", "t": "t|x", "weights": "weights|x"},
        on_device={
            f"{argument}: an array of another backend": "host arrays are put on the device"
            for argument in ("x", "t", "weights")
        },
    ),
    *(
        Call(
            f"Batches.{verb}",
            {"number": whole(1)},
            lambda made, number, verb=verb: consumed(getattr(made, verb)(number)),
            batches,
        )
        for verb in ("size", "in_epoch", "parts", "epoch", "order")
    ),
    Call(
        "Batches.steps",
        {"count": whole(2)},
        lambda made, count: next(made.steps(count), None),
        batches,
    ),
    *(
        Call(
            f"Batches.{verb}",
            {"part": array(np.array([0, 2]), dtype="int64", kinds="iu")},
            lambda made, part, verb=verb: getattr(made, verb)(part),
            batches,
        )
        for verb in ("take", "weigh")
    ),
    Call("Batches.in_order", {}, lambda made: [*made.in_order()], batches),
    # ---- augmentation --------------------------------------------------------------------------
    *(
        Call(
            kind,
            arguments,
            lambda _, kind=kind, **given: getattr(datasets, kind)(**given),
            use=use_augmentation,
            documented=AS_GIVEN,
        )
        for kind, arguments in AUGMENTATIONS.items()
    ),
    Call(
        "ColorJitter",
        {
            "brightness": spread(0.25),
            "contrast": spread(0.25),
            "saturation": spread(0.25),
            "hue": spread(8.0),
        },
        lambda _, **given: datasets.ColorJitter(**given),
        use=lambda backend, made: made(
            backend.asarray(np.ones((2, 3, 4, 4)), "float32"), backend.generator(3)
        ),
    ),
    Call(
        "Mixup",
        {"alpha": number(0.5)},
        lambda _, **given: datasets.Mixup(**given),
        use=lambda backend, made: made.with_targets(
            backend.asarray(IMAGES, "float32"),
            backend.asarray(np.eye(len(IMAGES), 4), "float32"),
            backend.generator(3),
        ),
    ),
    Call(
        "Compose",
        {
            "steps": thing(
                lambda _: [datasets.Rotate(8), datasets.Noise(0.5)],
                [None],
                [datasets.Rotate],
                datasets.Rotate,
                ["rotate"],
                5,
                datasets.Rotate(8),
            )
        },
        lambda _, steps: datasets.Compose(steps),
        use=use_augmentation,
        documented={"steps: []": "nothing to do", "steps: {}": "nothing to do"},
    ),
    Call(
        "OfRows",
        {
            "augment": thing(lambda _: datasets.Rotate(8), datasets.Rotate, lambda x, g: x),
            "shape": shape((1, 2, 3)),
        },
        lambda _, **given: datasets.OfRows(**given),
        use=lambda backend, made: made(
            backend.asarray(np.ones((2, 6)), "float32"), backend.generator(3)
        ),
    ),
    Call(
        "OfRows(x, generator)",
        {"x": array(ROWS[:, :4], elsewhere=EITHER), "generator": thing(lambda b: b.generator(3))},
        lambda made, **given: made(**given),
        lambda _: datasets.OfRows(datasets.Noise(0.5), (1, 2, 2)),
        words={"x": "x|rows|inputs|shape"},
        documented=DRAWN,
    ),
    *(
        Call(
            f"{made!r}(x, generator)",
            {
                "x": array(IMAGES, elsewhere=EITHER),
                "generator": thing(lambda b: b.generator(3), np.random, None),
            },
            lambda made, **given: made(**given),
            lambda _, made=made: made,
            words={"x": "x|pictures|inputs|shape"},
            documented=DRAWN,
        )
        for made in (
            datasets.Rotate(8.0),
            datasets.Crop(3, pad=1),
            datasets.Erase(2),
            datasets.Noise(0.5),
            datasets.Brightness(0.25),
            datasets.Compose([datasets.Flip(), datasets.Noise(0.5)]),
        )
    ),
    Call(
        "Augmentation.check",
        {"shape": shape((3, 4, 6))},
        lambda made, shape: made.check(shape),
        lambda _: datasets.Crop(3),
        words={"shape": "shape|size|pictures"},
    ),
    Call(
        "make_augmentation",
        {
            "settings": thing(
                lambda _: {"rotate": 8, "erase": {"size": [1, 2], "probability": 0.5}},
                {"rot": 1},
                {"rotate": "8"},
                {"rotate": None},
                {"rotate": {}},
                {"rotate": {"degree": 1}},
                {"rotate": {1: 1}},
                {None: 1},
                {1: 2},
                ["rotate"],
            )
        },
        lambda _, settings: datasets.make_augmentation(settings),
        use=use_augmentation,
        words={"settings": "settings|augmentation"},
        documented={"settings: {}": "nothing to do"},
    ),
    # ---- where arrays are born -----------------------------------------------------------------
    Call(
        "asarray",
        {
            "a": array(ROWS, kinds="biuf", lists=SAME, numbers=EITHER),
            "dtype": Kind(
                lambda _: "float32",
                lambda _: [*refused(object(), "text", "U3", object, [1]), *either(None, "int8")],
            ),
        },
        lambda _, **given: xpdl.asarray(**given),
        words={"a": "array|device"},
    ),
    Call(
        "to_numpy",
        {
            "a": Kind(
                lambda backend: backend.asarray(ROWS),
                lambda backend: [
                    *refused(None, object(), "text", 1.5, True, [], [1.0], {}, dict),
                    *either(np.float32(2), np.ones(()), get_backend("strict").asarray(1)),
                ],
            )
        },
        lambda _, a: xpdl.to_numpy(a),
        words={"a": "array"},
    ),
    Call(
        "get_precision",
        {"choice": dtype("float32")},
        lambda _, choice: get_precision(choice),
        words={"choice": "dtype"},
    ),
    Call(
        "get_backend",
        {"name": name("numpy", none=True)},
        lambda _, name: get_backend(name),
        words={"name": "backend"},
    ),
]


def consumed(result: Any) -> Any:
    """Return all of an iterator, or a number as it is."""
    return list(result) if hasattr(result, "__next__") else result
