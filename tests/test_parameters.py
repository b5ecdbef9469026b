"""One buffer for all parameters: where each lies, and that views are views."""

from __future__ import annotations

import math

import numpy as np
import pytest

from xpdl import Network
from xpdl.initializers import Constant
from xpdl.layers import Affine, BatchNormalization, Convolution, Dropout, Layer, ReLU
from xpdl.optimizers import SGD, Adam
from xpdl.parameters import ALIGNMENT, ArrayDict, Layout, Parameters
from xpdl.precision import get_precision

SHAPES = {
    "conv1.W": (3, 2, 5, 5),
    "conv1.b": (3,),
    "norm1.gamma": (33,),
    "norm1.beta": (32,),
    "affine1.W": (8, 8),
    "affine1.b": (1,),
    "gate.scale": (),
}
WEIGHTS = frozenset({"conv1.W", "affine1.W"})


def layout():
    return Layout(SHAPES, WEIGHTS)


def array_dict(backend, dtype="float32"):
    return ArrayDict(layout(), backend.xp.zeros(layout().size, dtype=dtype))


def places(offset, shape):
    return range(offset, offset + math.prod(shape))


# ---- layout ------------------------------------------------------------------------------------


def test_each_view_starts_aligned_and_none_overlap():
    plan = layout()
    assert ALIGNMENT == 32
    taken = set()
    for name, shape in SHAPES.items():
        assert plan.offsets[name] % 32 == 0
        own = set(places(plan.offsets[name], shape))
        assert not own & taken
        assert max(own) < plan.size
        taken |= own
    rounded = sum(32 * math.ceil(math.prod(shape) / 32) for shape in SHAPES.values())
    assert plan.size == rounded  # no more room than alignment asks for


def test_weights_lie_before_the_others():
    plan = layout()
    for name in SHAPES:
        assert (plan.offsets[name] < plan.weights_end) == (name in WEIGHTS)
    assert plan.weights_end == 32 * math.ceil(150 / 32) + 64


def test_names_keep_the_network_s_order(backend):
    assert list(layout().shapes) == list(SHAPES)
    arrays = array_dict(backend)
    assert list(arrays) == list(arrays.keys()) == list(SHAPES)
    assert len(arrays) == len(SHAPES)
    assert [a.shape for a in arrays.values()] == list(SHAPES.values())


def test_the_same_names_lie_at_the_same_places():
    assert layout().offsets == layout().offsets
    first, second = Layout(SHAPES, WEIGHTS), Layout(SHAPES, frozenset(sorted(WEIGHTS)[::-1]))
    assert first.offsets == second.offsets


def test_no_weights_or_nothing_else():
    only = Layout({"W": (2, 3)}, frozenset({"W"}))
    assert (only.weights_end, only.size) == (32, 32)
    none = Layout({"b": (2,)}, frozenset())
    assert (none.weights_end, none.size) == (0, 32)


# ---- views -------------------------------------------------------------------------------------


def test_views_and_buffer_are_one_memory(backend):
    arrays = array_dict(backend)
    for i, (_, view) in enumerate(arrays.items(), start=1):
        view[...] = float(i)
    buffer = backend.to_numpy(arrays.buffer)
    expected = np.zeros(arrays.layout.size, dtype=np.float32)
    for i, (name, shape) in enumerate(SHAPES.items(), start=1):
        expected[list(places(arrays.layout.offsets[name], shape))] = i
    np.testing.assert_array_equal(buffer, expected)
    arrays.buffer *= 10
    for i, view in enumerate(arrays.values(), start=1):
        np.testing.assert_array_equal(backend.to_numpy(view), np.full(view.shape, 10.0 * i))


def in_memory(backend, array):
    """Return the numbers of a parameter in the order of its memory: filters' channels are last."""
    host = backend.to_numpy(array)
    return (host.transpose(0, 2, 3, 1) if host.ndim == 4 else host).ravel()


def test_a_view_is_in_reading_order_but_for_filters(backend):
    arrays = array_dict(backend)
    numbers = np.arange(arrays.layout.size, dtype=np.float32)
    arrays.buffer[...] = backend.asarray(numbers)
    start = arrays.layout.offsets["conv1.W"]
    np.testing.assert_array_equal(
        backend.to_numpy(arrays["conv1.W"]),
        np.arange(start, start + 150, dtype=np.float32).reshape(3, 5, 5, 2).transpose(0, 3, 1, 2),
    )
    start = arrays.layout.offsets["affine1.W"]
    np.testing.assert_array_equal(
        backend.to_numpy(arrays["affine1.W"]),
        np.arange(start, start + 64, dtype=np.float32).reshape(8, 8),
    )


def test_assigning_copies_into_the_view(backend, rng):
    arrays = array_dict(backend)
    view = arrays["affine1.W"]
    values = rng.standard_normal((8, 8)).astype(np.float32)
    given = backend.asarray(values.copy())
    arrays["affine1.W"] = given
    given *= 0
    assert arrays["affine1.W"] is view
    np.testing.assert_array_equal(backend.to_numpy(view), values)
    with pytest.raises(KeyError):
        arrays["affine2.W"] = given
    with pytest.raises(KeyError):
        arrays["affine2.W"]
    with pytest.raises(ValueError):
        arrays["affine1.W"] = backend.asarray(np.zeros((8, 7), dtype=np.float32))
    assert "affine1.W" in arrays
    assert "affine2.W" not in arrays


def test_it_shows_names_and_shapes(backend):
    shown = repr(array_dict(backend))
    assert "conv1.W: (3, 2, 5, 5)" in shown
    assert all(name in shown for name in SHAPES)


# ---- runs --------------------------------------------------------------------------------------


def test_blocks_part_weights_from_the_others(backend):
    arrays = array_dict(backend)
    runs = arrays.runs()
    assert set(runs) == {"conv1.W", "conv1.b"}  # each is called as the first in it
    arrays.buffer[runs["conv1.W"]] = 1.0
    arrays.buffer[runs["conv1.b"]] = 2.0
    for name, view in arrays.items():
        expected = np.full(SHAPES[name], 1.0 if name in WEIGHTS else 2.0)
        np.testing.assert_array_equal(backend.to_numpy(view), expected)
    assert (backend.to_numpy(arrays.buffer) > 0).all()  # between them they hold all of it


def test_an_empty_block_is_left_out(backend):
    for shapes, weights, block in (
        ({"W": (2, 2)}, {"W"}, "W"),
        ({"b": (2,)}, set(), "b"),
    ):
        plan = Layout(shapes, frozenset(weights))
        arrays = ArrayDict(plan, backend.xp.zeros(plan.size, dtype="float32"))
        assert list(arrays.runs()) == [block]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_zeros_like(backend, dtype):
    arrays = array_dict(backend, dtype)
    arrays.buffer[...] = 5.0
    zeros = arrays.zeros_like()
    assert isinstance(zeros, ArrayDict)
    assert list(zeros) == list(arrays)
    assert zeros.runs() == arrays.runs()
    assert zeros.buffer.dtype == dtype
    assert zeros.layout.offsets == arrays.layout.offsets
    assert not backend.to_numpy(zeros.buffer).any()
    zeros["conv1.b"] = 7.0
    assert (backend.to_numpy(arrays.buffer) == 5).all()


# ---- the buffers of a network ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layers_use_the_values_themselves(backend, dtype):
    buffers = Parameters(layout(), backend, get_precision(dtype))
    assert buffers.compute is buffers.values
    assert buffers.values.buffer.dtype == buffers.gradients.buffer.dtype == dtype
    buffers.values.buffer[...] = 3.0
    buffers.refresh()
    assert (backend.to_numpy(buffers.values.buffer) == 3).all()
    assert not backend.to_numpy(buffers.gradients.buffer).any()


def test_half_precision_has_a_copy_that_is_refreshed(backend, rng):
    buffers = Parameters(layout(), backend, get_precision("float16"))
    assert buffers.values.buffer.dtype == buffers.gradients.buffer.dtype == "float32"
    assert buffers.compute.buffer.dtype == "float16"
    buffer, view = buffers.compute.buffer, buffers.compute["conv1.W"]
    values = rng.standard_normal((3, 2, 5, 5)).astype(np.float32)
    buffers.values["conv1.W"] = backend.asarray(values.copy())
    assert not backend.to_numpy(view).any()
    buffers.refresh()
    assert buffers.compute.buffer is buffer
    assert buffers.compute["conv1.W"] is view
    np.testing.assert_array_equal(backend.to_numpy(view), values.astype(np.float16))
    np.testing.assert_array_equal(backend.to_numpy(buffers.values["conv1.W"]), values)


def network(dtype):
    layers = [Convolution(3, 3), BatchNormalization(), ReLU(), Dropout(0.1), Affine(4)]
    return Network(layers, (2, 5, 5), dtype=dtype)


def test_a_network_s_names_and_shapes(backend):
    net = network("float32")
    expected = {
        "conv1.W": (3, 2, 3, 3),
        "conv1.b": (3,),
        "norm1.gamma": (3,),
        "norm1.beta": (3,),
        "affine1.W": (27, 4),
        "affine1.b": (4,),
    }
    for arrays in (net.params, net.grads):
        assert {name: a.shape for name, a in arrays.items()} == expected
        assert list(arrays) == list(expected)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_layers_hold_views_of_the_buffers(backend, dtype):
    net = network(dtype)
    for name, leaf in net.body.leaves():
        for key, view in leaf.params.items():
            assert view is net.parameters.compute[f"{name}.{key}"]
            assert leaf.grads[key] is net.grads[f"{name}.{key}"]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_an_update_reaches_the_layers(backend, rng, dtype):
    """No copy stands between the buffer that learns and the numbers that layers multiply by."""
    net = network(dtype)
    x = backend.asarray(
        rng.standard_normal((2, 2, 5, 5)), dtype="float32" if dtype != "float64" else None
    )
    for arrays in (net.grads,):
        arrays.buffer[...] = 0.0
    net.params["affine1.W"] = 0.0
    net.grads["affine1.b"] = backend.asarray(np.array([1, 2, 3, 4]), dtype=net.grads.buffer.dtype)
    SGD(0.5).update(net.params, net.grads)
    expected = [[-0.5, -1.0, -1.5, -2.0]] * 2
    np.testing.assert_array_equal(backend.to_numpy(net.predict(x)), expected)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_backward_fills_the_gradient_buffer(backend, rng, dtype):
    net = network(dtype)
    x = backend.asarray(
        rng.standard_normal((4, 2, 5, 5)), dtype="float32" if dtype != "float64" else None
    )
    grads = net.gradient(x, backend.asarray(np.array([0, 1, 2, 3])))
    assert grads is not net.grads
    buffer = backend.to_numpy(net.grads.buffer)
    np.testing.assert_array_equal(backend.to_numpy(grads.buffer), buffer)
    for name, shape in grads.layout.shapes.items():
        own = buffer[list(places(grads.layout.offsets[name], shape))]
        np.testing.assert_array_equal(own, in_memory(backend, grads[name]))
        assert own.any() or name == "conv1.b"  # which the normalisation takes out again


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_room_between_parameters_stays_zero(backend, rng, dtype):
    """It is updated with the rest, and counts in norms and decay."""
    net = network(dtype)
    x = backend.asarray(rng.standard_normal((4, 2, 5, 5)), dtype="float32")
    t = backend.asarray(np.array([0, 1, 2, 3]))
    optimizer = Adam(weight_decay=0.1, decay_all=True, clip_norm=1.0)
    for _ in range(3):
        optimizer.update(net.params, net.gradient(x, t))
    used = np.zeros(net.params.layout.size, dtype=bool)
    for name, shape in net.params.layout.shapes.items():
        used[list(places(net.params.layout.offsets[name], shape))] = True
    assert 0 < used.sum() < used.size
    for arrays in (net.params, net.grads, *optimizer.state.values()):
        assert not backend.to_numpy(arrays.buffer)[~used].any()


class Table(Layer):
    """Adds a matrix that is no weight, and a vector that is one."""

    kind = "table"

    def plan(self, input_shape):
        self.parameter("offset", (1, *input_shape), Constant(value=1.0))
        self.parameter("scale", input_shape, Constant(value=1.0), decay=True)
        return input_shape

    def forward(self, x, train=False):
        return self.params["scale"] * x + self.params["offset"]

    def backward(self, dout):
        return dout


@pytest.mark.parametrize("blocked", [True, False])
def test_a_layer_says_what_decays_and_not_the_number_of_axes(backend, blocked):
    net = Network([Table(), Affine(2)], (3,))
    grads = net.grads if blocked else dict(net.grads)
    SGD(0.1, weight_decay=0.5).update(net.params, grads)
    np.testing.assert_array_equal(backend.to_numpy(net.params["table1.offset"]), [[1, 1, 1]])
    np.testing.assert_allclose(backend.to_numpy(net.params["table1.scale"]), [0.95] * 3, rtol=1e-6)
