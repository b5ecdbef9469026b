"""Weights that PyTorch saved: what is in the file comes into the network, or it says why not."""

from __future__ import annotations

import io
import struct
import tracemalloc

import numpy as np
import pytest
import torch_files
from safetensors.numpy import save
from torch_files import legacy, text, zipped

from xpdl import Network
from xpdl.errors import ArgumentError, FileAccessError, ModelFileError
from xpdl.layers import Affine, BatchNormalization, Convolution, ReLU
from xpdl.storage import load_torch

NAMES = {"conv1": "features.0", "norm1": "features.1", "affine1": "classifier"}


def make_network(dtype="float32"):
    layers = [Convolution(2, 3, bias=False), BatchNormalization(), ReLU(), Affine(3)]
    return Network(layers, (1, 4, 4), dtype=dtype)


def make_arrays(dtype="f4"):
    rng = np.random.default_rng(5)
    shapes = {
        "features.0.weight": (2, 1, 3, 3),
        "features.1.weight": (2,),
        "features.1.bias": (2,),
        "features.1.running_mean": (2,),
        "features.1.running_var": (2,),
        "classifier.weight": (3, 8),
        "classifier.bias": (3,),
    }
    arrays = {name: rng.random(shape).astype(dtype) for name, shape in shapes.items()}
    arrays["features.1.num_batches_tracked"] = np.array(7)
    return arrays


@pytest.fixture
def put(tmp_path):
    def put_bytes(content):
        path = tmp_path / "weights.pth"
        path.write_bytes(content)
        return path

    return put_bytes


def expect_loaded(network, arrays, tolerance=0.0):
    held = {name: network.backend.to_numpy(a) for name, a in network.arrays().items()}
    twins = {
        "conv1.W": arrays["features.0.weight"],
        "norm1.gamma": arrays["features.1.weight"],
        "norm1.beta": arrays["features.1.bias"],
        "norm1.running_mean": arrays["features.1.running_mean"],
        "norm1.running_var": arrays["features.1.running_var"],
        "affine1.W": arrays["classifier.weight"].T,
        "affine1.b": arrays["classifier.bias"],
    }
    assert held.keys() == twins.keys()
    for name, expected in twins.items():
        np.testing.assert_allclose(held[name], expected, rtol=tolerance, err_msg=name)


FORMS = {
    "zip": zipped,
    "zip, another folder": lambda arrays: zipped(arrays, folder="resnet18"),
    "zip without byteorder": lambda arrays: zipped(arrays, byteorder=None),
    "zip, big-endian": lambda arrays: zipped(arrays, byteorder="big"),
    "legacy": legacy,
    "legacy, big-endian": lambda arrays: legacy(arrays, little=False),
    "a training's": lambda arrays: zipped(
        arrays,
        pickled=b"}"
        + torch_files.items(
            [
                ("epoch", b"K\3"),
                ("rates", b"](G?\xb9\x99\x99\x99\x99\x99\x9aNe"),
                ("state_dict", torch_files.state_dict(arrays)),
            ]
        ),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_are_read(backend, put, form):
    arrays, network = make_arrays(), make_network()
    load_torch(network, put(FORMS[form](arrays)))
    expect_loaded(network, arrays)


@pytest.mark.parametrize("dtype", ["f2", "f8"])
def test_numbers_of_another_width(put, dtype):
    arrays, network = make_arrays(dtype), make_network()
    load_torch(network, put(zipped(arrays)), NAMES)
    expect_loaded(network, arrays, 1e-6)


def test_bfloat16(put):
    arrays = make_arrays()
    cut = {n: (a.view("u4") >> 16 << 16).view("f4") if a.shape else a for n, a in arrays.items()}
    halves = {n: (a.view("u4") >> 16).astype("u2").view("f2") for n, a in arrays.items() if a.shape}
    lies = {name: {"storage": "BFloat16Storage"} for name in halves}
    network = make_network()
    load_torch(network, put(zipped(halves, lies=lies)))
    expect_loaded(network, cut)


def test_safetensors_want_names(put):
    arrays, network = make_arrays(), make_network()
    path = put(save(arrays))
    with pytest.raises(ArgumentError, match=r"names must say.*classifier"):
        load_torch(network, path)
    load_torch(network, path, NAMES)
    expect_loaded(network, arrays)


def test_an_array_turned_in_memory(put):
    arrays, network = make_arrays(), make_network()
    turned = {**arrays, "classifier.weight": np.ascontiguousarray(arrays["classifier.weight"].T)}
    lies = {"classifier.weight": {"shape": (3, 8), "strides": (1, 3)}}
    load_torch(network, put(zipped(turned, lies=lies)))
    expect_loaded(network, arrays)


def test_two_arrays_of_one_storage(put):
    arrays, network = make_arrays(), make_network()
    both = np.concatenate([arrays["features.1.weight"], arrays["features.1.bias"]])
    there = {**arrays, "features.1.weight": both}
    keys = {name: str(i) for i, name in enumerate(there)} | {"features.1.bias": "1"}
    lies = {
        "features.1.weight": {"shape": (2,), "count": 4},
        "features.1.bias": {"offset": 2, "count": 4},
    }
    load_torch(network, put(zipped(there, lies=lies, keys=keys)))
    expect_loaded(network, arrays)


def test_what_is_not_wanted_can_be_left(put):
    arrays, network = make_arrays(), make_network()
    more = {**arrays, "aux.fc.weight": np.ones((2, 2), "f4"), "aux.fc.bias": np.ones(2, "f4")}
    path = put(zipped(more))
    with pytest.raises(ModelFileError, match=r"4 layers .*aux.fc.* has 3"):
        load_torch(network, path)
    with pytest.raises(ModelFileError, match=r"'aux.fc.weight' is not wanted; 'aux.fc.bias'"):
        load_torch(network, path, NAMES)
    load_torch(network, path, leave=["aux."])
    expect_loaded(network, arrays)


def without(arrays, name):
    return {n: a for n, a in arrays.items() if n != name}


MISFITS = {
    "a missing array": (
        lambda a: without(a, "features.1.running_var"), "running_var is missing, wanted (2,)",
    ),
    "another shape": (
        lambda a: {**a, "classifier.weight": np.ones((8, 3), "f4")}, "wanted (3, 8) for affine1.W",
    ),
    "whole numbers": (
        lambda a: {**a, "classifier.bias": np.ones(3, "i8")}, "is of int64, wanted floats",
    ),
    "NaN": (lambda a: {**a, "classifier.bias": np.full(3, np.nan, "f4")}, "holds NaN"),
    "numbers beyond float32": (
        lambda a: {**a, "classifier.bias": np.full(3, 1e300)}, "beyond float32",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISFITS)
@pytest.mark.parametrize("form", [zipped, legacy, save])
def test_what_does_not_fit_leaves_the_network_alone(put, case, form):
    change, said = MISFITS[case]
    network = make_network()
    before = network.params.buffer.copy()
    with pytest.raises(ModelFileError) as caught:
        load_torch(network, put(form(change(make_arrays()))), NAMES)
    assert said in str(caught.value)
    np.testing.assert_array_equal(network.params.buffer, before)


ARGUMENTS = {
    "no network": ({"network": 3}, ["network", "3"]),
    "another text": ({"names": "by name"}, ["names", "in order"]),
    "an unknown layer": ({"names": NAMES | {"conv2": "x"}}, ["conv2"]),
    "a layer without a name": ({"names": without(NAMES, "norm1")}, ["norm1"]),
    "a text to leave": ({"leave": "fc"}, ["leave", "fc"]),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments_that_are_wrong(put, case):
    given, words = ARGUMENTS[case]
    with pytest.raises(ArgumentError) as caught:
        load_torch(**{"network": make_network(), "path": put(zipped(make_arrays())), **given})
    for word in words:
        assert word in str(caught.value)


def test_a_file_that_is_not_there():
    with pytest.raises(FileAccessError, match=r"nowhere\.pth"):
        load_torch(make_network(), "nowhere.pth")


# ---- files that lie ----------------------------------------------------------------------------

ARRAYS = make_arrays()
FIRST = "features.0.weight"
EVIL = b"cos\nsystem\n" + text("true") + b"\x85R"


def lying(**lies):
    return zipped(ARRAYS, lies={FIRST: lies})


def large_number(content, place, value):
    """Return a zip file whose end says another number."""
    end = content.rfind(b"PK\5\6")
    return content[: end + place] + value + content[end + place + len(value) :]


LIES = {
    "a call": (zipped(ARRAYS, pickled=EVIL), "asks for 'os.system'"),
    "a call in a legacy file": (legacy(ARRAYS, pickled=EVIL), "asks for 'os.system'"),
    "a whole network": (
        zipped(ARRAYS, pickled=b"ctorch.nn.modules.container\nSequential\n)\x81"), "asks for",
    ),
    "another rebuild": (lying(rebuild="_rebuild_sparse_tensor"), "asks for"),
    "an unknown storage": (lying(storage="ComplexFloatStorage"), "asks for"),
    "a list": (zipped(ARRAYS, pickled=b"]"), "holds a list"),
    "a text for an array": (
        zipped(ARRAYS, pickled=b"}" + text(FIRST) + text("no") + b"s"), "is a str, not an array",
    ),
    "beyond its storage": (lying(offset=1), "beyond its storage"),
    "strides beyond its storage": (lying(strides=(9, 9, 3, 2)), "beyond its storage"),
    "a negative stride": (lying(strides=(9, 9, -3, 1)), "whole numbers from 0 up"),
    "too few strides": (lying(strides=(9, 9, 3)), "whole numbers from 0 up"),
    "a larger storage": (lying(count=1000), "not as long as its storage"),
    "compressed": (zipped(ARRAYS, method=8), "compressed"),
    "another byte order": (zipped(ARRAYS, byteorder="middle"), "byte order"),
    "a storage that is missing": (
        zipped(ARRAYS, keys={n: "99" if n == FIRST else "1" for n in ARRAYS}), "",
    ),
    "no end": (zipped(ARRAYS)[:-30], "end is missing"),
    "many members": (large_number(zipped(ARRAYS), 10, b"\xfe\xff"), "damaged"),
    "a list of members beyond the end": (
        large_number(zipped(ARRAYS), 16, struct.pack("<I", 2**31)), "not within it",
    ),
    "a large list elsewhere": (large_number(zipped(ARRAYS), 16, b"\xff" * 4), "does not say"),
    "a legacy file cut short": (legacy(ARRAYS)[:-2], "not within the file"),
    "a legacy storage of another length": (
        legacy(ARRAYS).replace(struct.pack("<q", 18), struct.pack("<q", 17), 1), "as long as it",
    ),
    "a dict of dicts": (zipped(ARRAYS, pickled=b"}" * 90 + b"." ), "more than"),
}  # fmt: skip


@pytest.mark.parametrize("case", LIES)
def test_a_file_that_lies_is_refused(put, case):
    content, said = LIES[case]
    network = make_network()
    before = network.params.buffer.copy()
    with pytest.raises(ModelFileError, match=r"refused|damaged|not fit") as caught:
        load_torch(network, put(content), NAMES)
    assert said in str(caught.value)
    np.testing.assert_array_equal(network.params.buffer, before)


def test_an_array_scattered_over_much_is_not_read(put):
    """Of two numbers, eight megabytes apart, all between would have to be in memory."""
    bias = np.zeros(2**21, "f4")
    arrays = {**ARRAYS, "features.1.bias": bias}
    lies = {"features.1.bias": {"shape": (2,), "strides": (2**21 - 1,)}}
    with pytest.raises(ModelFileError, match="scattered"):
        load_torch(make_network(), put(zipped(arrays, lies=lies)), NAMES)


def test_the_memory_is_that_of_the_largest_array(put):
    """Not that of the file: what is not wanted stays on the disk."""
    arrays = {**ARRAYS, "unused": np.zeros(2**22, "f4")}
    path, network = put(zipped(arrays)), make_network()
    tracemalloc.start()
    load_torch(network, path, NAMES, leave=["unused"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_the_files_made_here_are_pytorchs():
    torch = pytest.importorskip("torch")
    array = np.arange(6, dtype="f4").reshape(2, 3)
    for content in (zipped({"a": array}), legacy({"a": array})):
        held = torch.load(io.BytesIO(content), weights_only=True)
        np.testing.assert_array_equal(held["a"].numpy(), array)
