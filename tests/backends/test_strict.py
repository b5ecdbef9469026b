"""The rehearsed device: it refuses what a GPU would, and otherwise counts as NumPy does."""

from __future__ import annotations

import copy
import math
import operator
import pickle
import random

import numpy as np
import pytest

from xpdl.backends import get_backend
from xpdl.backends.strict.backend import StrictBackend
from xpdl.errors import BackendMismatchError, DeviceRuleError

HOST = {
    "x": np.array([[1.5, -2, 3, 0], [4, 5.25, -6, 7], [8, 9, 10, -11]], np.float32),
    "y": np.array([[2, 1, 0.5, 4], [3, 2, 1, 6], [5, 7, 2, 0.25]], np.float32),
    "d": np.linspace(-1, 1, 12).reshape(3, 4),
    "h": np.arange(12, dtype=np.float16).reshape(3, 4),
    "n": np.array([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]),
    "i": np.array([2, 0]),
    "j": np.array([-1, 1]),
    "m": np.array([[True, False, True, True], [False] * 4, [True] * 4]),
    "r": np.array([True, False, True]),
}


@pytest.fixture
def strict():
    return StrictBackend()


@pytest.fixture
def on_device(strict):
    """The names that the expressions below may use, with their arrays on the device."""
    names = {name: strict.asarray(a) for name, a in HOST.items()}
    return names | {"xp": strict.xp, "np": np, "a": HOST["x"], "math": math, "f4": np.float32}


def assert_same(strict, actual, expected):
    if isinstance(expected, tuple | list):
        assert type(actual) is type(expected)
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert_same(strict, one, other)
    elif isinstance(expected, np.ndarray | np.generic):
        assert strict.owns(actual)
        np.testing.assert_array_equal(strict.to_numpy(actual), np.asarray(expected), strict=True)
    else:
        assert actual == expected


# ---- what is allowed, and counts as NumPy does ----------------------------------------------

BINARY = ["+", "-", "*", "/", "//", "%", "**", "<", "<=", ">", ">=", "==", "!="]
ALLOWED = [
    *[f"x {op} y" for op in BINARY if op != "**"], "y ** x",
    *[f"y {op} 2" for op in BINARY],
    *[f"2.5 {op} y" for op in BINARY],
    *[f"y {op} f4(2)" for op in BINARY],
    *[f"f4(2) {op} y" for op in BINARY],
    *[f"n {op} i[0]" for op in BINARY if op != "/"],
    *[f"n {op} 3" for op in ("&", "|", "^", "<<", ">>")],
    *[f"3 {op} n" for op in ("&", "|", "^", "<<", ">>")],
    "m & ~m", "m | r[:, None]", "-x", "+x", "abs(x)", "~n", "x @ y.T", "d @ d.T", "x @ y[0]",
    "d + 1", "d * np.float64(3)", "h * 2.5", "h + x", "n + x.astype('f8')", "m * x",
    # indexing
    "x[0]", "x[0, 1]", "x[-1, -1]", "x[1:, ::2]", "x[::-1, ::-1]", "x[None]", "x[..., 0]", "x[...]",
    "x[:, None, 1:3]", "x[i]", "x[j]", "x[i, j]", "x[:, i]", "x[i[:, None], i]", "x[m]", "x[r]",
    "x[r, 1:]", "x[[0, 2]]", "x[np.int64(1)]", "x[1, i]", "x[..., i]",
    # methods and attributes
    "x.sum()", "x.sum(axis=0)", "x.sum(axis=(0, 1), keepdims=True)", "x.mean(axis=-1)", "x.max()",
    "x.min(axis=1)", "x.argmax(axis=1)", "x.argmin()", "x.var(axis=0)", "x.std()", "x.prod(axis=0)",
    "x.T", "x.transpose(1, 0)", "x.reshape(4, 3)", "x.reshape((2, -1))", "x.ravel()", "x.flatten()",
    "x.copy()", "x.astype(np.float16)", "x.astype('int32')", "x.astype(np.float64)",
    "x.astype(float)", "x.clip(0, 3)", "x.round()", "x.cumsum(axis=1)", "m.any()", "m.all(axis=1)",
    "x.take(i, axis=0)", "x.repeat(2, axis=1)", "x.squeeze()", "x.swapaxes(0, 1)", "x.dot(y.T)",
    "x.sort()", "x.argsort(axis=1)", "x.nonzero()", "x.trace()", "x.diagonal()", "x.view('i4')",
    "x.shape", "x.ndim", "x.size", "x.dtype", "x.nbytes", "x.itemsize", "x.strides", "len(x)",
    "x.flags.c_contiguous", "h.sum(dtype=np.float32)", "n.mean(dtype=np.float32)",
    "x.mean(dtype=np.float64)", "x.sum(dtype='d')", "d.mean()", "n.sum()", "m.sum()",
    "[row for row in x]", "sum(x)",
    # functions
    "xp.exp(x)", "xp.sqrt(abs(x))", "xp.maximum(x, 0)", "xp.maximum(0, x)", "xp.minimum(x, y)",
    "xp.where(m, x, 0)", "xp.where(m, x, y)", "xp.clip(x, 0, 1)", "xp.isfinite(x)", "xp.sign(x)",
    "xp.concatenate([x, y])", "xp.concatenate((x, y), axis=1)", "xp.stack([x, y], axis=1)",
    "xp.split(x, 2, axis=1)", "xp.take(x, i, axis=0)", "xp.take(x, i)",
    "xp.broadcast_to(x, (2, 3, 4))",
    "xp.take_along_axis(x, n % 4, axis=1)", "xp.matmul(x, y.T)", "xp.dot(x, y.T)",
    "xp.tensordot(x, y, axes=([1], [1]))", "xp.einsum('ij,ij->i', x, y)", "xp.pad(x, 1)",
    "xp.zeros((2, 3), dtype=f4)", "xp.zeros(3, f4)", "xp.ones((2,), dtype='f4')",
    "xp.eye(3, dtype=f4)",
    "xp.full((2, 3), 1.5, dtype=np.float16)", "xp.full((2,), -math.inf, f4)", "xp.arange(5)",
    "xp.arange(1, 7, 2)", "xp.arange(3, dtype=f4)", "xp.linspace(0, 1, 5, dtype=f4)",
    "xp.zeros((2, 2), dtype=np.float64)", "xp.zeros(2, dtype=float)", "xp.zeros_like(x)",
    "xp.ones_like(x)", "xp.full_like(x, 3)", "xp.empty_like(x).shape", "xp.empty((0, 2), f4)",
    "xp.sum(x, axis=0)", "xp.mean(x)", "xp.argmax(x, axis=1)", "xp.expand_dims(x, 0)",
    "xp.flip(x, 1)", "xp.roll(x, 1, axis=0)", "xp.tile(x, 2)", "xp.moveaxis(x, 0, 1)",
    "xp.transpose(x)", "xp.ravel(x)", "xp.linalg.norm(x)", "xp.triu(x)", "xp.asarray(x)",
    "xp.asarray(x, dtype=np.float16)", "xp.asarray(a)", "xp.array(a, dtype=np.float16)",
    "xp.lib.stride_tricks.sliding_window_view(x, (2, 2), axis=(0, 1))", "xp.result_type(x, f4)",
    "xp.lib.stride_tricks.as_strided(x, (2, 2), (4, 4))", "xp.promote_types('f2', 'f4')",
    "xp.log(d + 2)", "xp.multiply(x, m, out=xp.empty_like(x))", "xp.add(x, 1, out=y)",
    "xp.maximum(x, 0, out=xp.empty_like(x.T).T)", "xp.sum(x, axis=0, out=y[0])", "xp.modf(x)",
    "xp.square(x, where=m, out=xp.zeros_like(x))", "xp.pi", "xp.newaxis", "xp.inf",
    "xp.broadcast_shapes((2, 1), (1, 3))", "xp.meshgrid(i, j)", "xp.linalg.eigh(x @ x.T)",
]  # fmt: skip


@pytest.mark.parametrize("expression", ALLOWED)
def test_what_is_allowed_counts_as_numpy_does(strict, on_device, expression):
    names = {name: a.copy() for name, a in HOST.items()}
    names |= {"xp": np, "np": np, "a": HOST["x"], "math": math, "f4": np.float32}
    assert_same(strict, eval(expression, on_device), eval(expression, names))


STATEMENTS = [
    *[f"x {op}= y" for op in ("+", "-", "*", "/", "//", "%")], "y **= x",
    *[f"x {op}= 2" for op in ("+", "-", "*", "/", "//", "%", "**")],
    *[f"n {op}= 1" for op in ("&", "|", "^", "<<", ">>")],
    "x += d", "h *= np.float64(2)", "h += x", "x *= m",
    "x[...] = 0", "x[0] = y[1]", "x[1:, ::2] = 7", "x[:, 0] = y[:, 1]", "x[None] = y",
    "x[0, 1] = 9",
    "x[i] = y[i]", "x[i, j] = 5", "x[j] = 0", "x[m] = -1", "x[r] = y[r]", "x[..., i] = 0",
    "x[[0, 2]] = 1", "x[0] = [1, 2, 3, 4]", "x[...] = d", "x[0] = np.float32(3)", "x[0] += 1",
    "x[i] += 1", "x[:, 1] *= y[:, 0]", "v = x[1:]; v += 1", "v = x.T; v[0] = 4",
    "v = x.reshape(-1); v[5] = 0", "x.fill(3)", "x.sort(axis=0)", "xp.copyto(x, y)",
    "v = x; v -= 1", "v = x.copy(); v += 1", "v = xp.array(x); v += 1",
]  # fmt: skip


@pytest.mark.parametrize("statement", STATEMENTS)
def test_what_is_written_is_written_as_numpy_does(strict, on_device, statement):
    names = {name: a.copy() for name, a in HOST.items()} | {"xp": np, "np": np}
    exec(statement, names)
    exec(statement, on_device)
    for name in HOST:
        assert_same(strict, on_device[name], names[name])


def test_in_place_keeps_the_array(strict):
    x = before = strict.asarray(HOST["x"])
    x += 1
    assert x is before
    assert strict.xp.add(x, x, out=x) is x


# ---- what is refused ------------------------------------------------------------------------

STALLS = [
    "float(x[0, 0])", "int(n[0, 0])", "bool(m[0, 0])", "complex(x[0, 0])", "math.sqrt(x[0, 1])",
    "x[0, 0].item()", "x.tolist()", "x.tobytes()", "range(n[0, 0])", "x[: n[0, 0]]",
    "1 if x.sum() else 0",
    "not x.any()", "max(x[0], x[1])", "max([row.sum() for row in x])", "f'{x[0, 0]:.3f}'",
    "'%f' % x[0, 0]", "[0, 1, 2][i[0]]", "9.0 in x", "x.sum() > 0 and 1", "[0] * i[0]",
    "round(float(x[0, 0]))", "np.zeros(n[0])", "bytes(i)",
]  # fmt: skip


@pytest.mark.parametrize("expression", STALLS)
def test_reading_a_number_stalls(on_device, expression):
    with pytest.raises(DeviceRuleError, match=r"a GPU would (stop|stall).*backend\.item"):
        eval(expression, on_device)


@pytest.mark.parametrize(
    "expression",
    ["x.reshape(n[0, 1], -1)", "xp.zeros(i, dtype=f4)", "xp.arange(n[0, 0])", "x.repeat(i[0])"],
)
def test_an_array_in_place_of_a_size_is_refused(on_device, expression):
    with pytest.raises(DeviceRuleError, match="GPU"):
        eval(expression, on_device)


BECOMES_HOST = [
    "np.asarray(x)", "np.array(x)", "np.array([x, x])", "np.float32(x[0, 0])", "a[i]", "list(a[i])",
    "np.full(2, x[0, 0])", "np.random.default_rng(0).permutation(x)", "xp.float32(x[0, 0])",
    "np.vectorize(float)(x)",
]  # fmt: skip


@pytest.mark.parametrize("expression", BECOMES_HOST)
def test_turning_into_a_numpy_array_is_refused(on_device, expression):
    with pytest.raises(DeviceRuleError, match=r"CuPy raises TypeError.*xpdl\.to_numpy"):
        eval(expression, on_device)


def test_writing_into_a_numpy_array_is_refused(on_device):
    with pytest.raises(DeviceRuleError, match=r"xpdl\.to_numpy"):
        exec("b = a.copy(); b[...] = x", on_device)


MIXED = [
    *[f"x {op} a" for op in [*BINARY, "@"]], *[f"a {op} x" for op in [*BINARY, "@"]],
    "x + np.ones(4, f4)", "x + np.array(1, f4)", "xp.add(x, a)", "xp.maximum(a, x)", "xp.sum(a)",
    "xp.concatenate([x, a])", "xp.stack([a, x])", "xp.where(m, x, a)", "xp.dot(x, a.T)",
    "x.dot(a.T)",
    "xp.add(x, 1, out=a.copy())", "x[np.array([0, 1])]", "x[np.array([0, 1]), :]",
    "xp.ones_like(a)",
    "np.add(a, 1, out=x)", "xp.take(x, np.array([0]))", "a.sum(where=m)",
    "x.sum(out=np.zeros((), f4))",
    "xp.concatenate([[x, a], [x]])",
]  # fmt: skip


@pytest.mark.parametrize("expression", MIXED)
def test_a_numpy_array_in_an_operation_is_refused(on_device, expression):
    with pytest.raises(
        BackendMismatchError, match=r"CuPy (raises TypeError|would copy).*xpdl\.asarray"
    ):
        eval(expression, on_device)


@pytest.mark.parametrize(
    "statement", ["x += a", "a += x", "x[...] = a", "x[0] = a[0]", "x[np.array([0])] = 1"]
)
def test_a_numpy_array_written_in_place_is_refused(on_device, statement):
    with pytest.raises(BackendMismatchError, match=r"xpdl\.asarray"):
        exec(statement, on_device)


NUMPY_FUNCTIONS = {
    "np.exp(x)": "exp", "np.maximum(x, 0)": "maximum", "np.sum(x)": "sum", "np.mean(x)": "mean",
    "np.concatenate([x, x])": "concatenate", "np.where(m, x, 0)": "where", "np.shape(x)": "shape",
    "np.linalg.norm(x)": "norm", "np.zeros_like(x)": "zeros_like", "np.add.reduce(x)": "add",
    "np.add.at(x, 0, 1)": "add", "np.copyto(a, x)": "copyto", "np.add(1, 2, out=x)": "add",
    "np.dot(a, x.T)": "dot", "np.isfinite(x)": "isfinite",
}  # fmt: skip


@pytest.mark.parametrize("expression", NUMPY_FUNCTIONS)
def test_a_numpy_function_is_refused(on_device, expression):
    name = NUMPY_FUNCTIONS[expression]
    with pytest.raises(DeviceRuleError, match=rf"numpy\.{name} .*array_module.*xp\.{name}"):
        eval(expression, on_device)


FLOAT64 = [
    "x * np.float64(2)", "np.float64(2) * x", "x / np.sqrt(2.0)", "x + d", "d - x", "n / 2",
    "n * 0.5",
    "m * 1.0", "n.mean()", "m.mean()", "n.std()", "xp.zeros((2, 3))", "xp.zeros(3)",
    "xp.ones((2,))",
    "xp.empty(3)", "xp.full((2,), 1.5)", "xp.arange(0.0, 1.0, 0.1)", "xp.linspace(0, 1, 5)",
    "xp.eye(3)", "xp.where(m, 1.0, 0.0)", "xp.sqrt(2.0)", "xp.exp(n)", "xp.concatenate([x, d])",
    "x @ d.T", "xp.add(x, d)", "xp.modf(n)", "xp.sqrt(n)", "xp.einsum('ij,ij->i', x, d)",
    "xp.divide(x, d, casting='same_kind')",
]  # fmt: skip


@pytest.mark.parametrize("expression", FLOAT64)
def test_float64_that_nobody_asked_for_is_refused(on_device, expression):
    with pytest.raises(DeviceRuleError, match=r"gave float64 from .* on a GPU .*dtype="):
        eval(expression, on_device)


BEYOND = [
    "x[i + 1]", "x[i - 4]", "x[:, i + 2]", "x[i, i + 2]", "x[[0, 3]]", "xp.take(x, i + 1, axis=0)",
    "x.take(i + 1, axis=0)", "xp.take(x, n)", "xp.take_along_axis(x, n, axis=1)",
]  # fmt: skip


@pytest.mark.parametrize("expression", BEYOND)
def test_an_index_beyond_the_bounds_is_refused(on_device, expression):
    with pytest.raises(DeviceRuleError, match=r"beyond the bounds.*CuPy would silently wrap"):
        eval(expression, on_device)


def test_writing_beyond_the_bounds_is_refused(on_device):
    for statement in ("x[i + 1] = 0", "x[i - 4] = 0", "x[[5]] = 1", "x[i + 1] += 1"):
        with pytest.raises(DeviceRuleError, match="beyond the bounds"):
            exec(statement, on_device)
    np.testing.assert_array_equal(on_device["x"]._host, HOST["x"])


@pytest.mark.parametrize(
    "statement",
    [
        "x[i * 0] = 1", "x[[1, 1]] = 1", "x[[0, -3]] = y[:2]", "x[i * 0, j * 0] = 1",
        "x[:, [2, 2]] = 0", "x[i * 0] += 1", "x[..., [0, 0]] = 1", "xp.put(x, i * 0, 1.0)",
    ],
)  # fmt: skip
def test_writing_one_place_twice_is_refused(on_device, statement):
    with pytest.raises(DeviceRuleError, match=r"more than once.*undefined on a GPU"):
        exec(statement, on_device)
    np.testing.assert_array_equal(on_device["x"]._host, HOST["x"])


LISTS = [
    "xp.prod((2, 3))", "xp.max([1, 2])", "xp.sum([1.5, 2])", "xp.add(x, [1, 2, 3, 4])",
    "xp.maximum(n, (0, 1, 2, 3))", "xp.where(m, n, [1, 2, 3, 4])",
    "xp.concatenate([n, [[1, 2, 3, 4]]])",
    "xp.dot(n, [1, 2, 3, 4])", "operator.iadd(n, [1, 2, 3, 4])",
]  # fmt: skip


@pytest.mark.parametrize("expression", LISTS)
def test_a_list_in_place_of_an_array_is_refused(on_device, expression):
    # CuPy: "Unsupported type <class 'list'>".
    with pytest.raises((DeviceRuleError, TypeError), match=r"CuPy takes only|unsupported operand"):
        eval(expression, {**on_device, "operator": operator})


@pytest.mark.parametrize("expression", ["x + [1, 2, 3, 4]", "[1, 2, 3, 4] + x", "(1, 2) @ x"])
def test_a_list_beside_an_operator_is_refused(on_device, expression):
    with pytest.raises(TypeError, match=r"unsupported operand|can only concatenate"):
        eval(expression, on_device)


@pytest.mark.parametrize("expression", ["xp.allclose(x, x)", "xp.array_equal(x, y)"])
def test_an_answer_stays_on_the_device(strict, on_device, expression):
    # CuPy answers with an array, so `if xp.allclose(...)` stalls there.
    answer = eval(expression, on_device)
    assert strict.owns(answer)
    with pytest.raises(DeviceRuleError, match="a GPU would stop"):
        bool(answer)


@pytest.mark.parametrize(
    "expression", ["xp.array2string(x)", "xp.array_repr(x)", "xp.array_str(x)"]
)
def test_printing_the_numbers_reads_them_all(on_device, expression):
    with pytest.raises((DeviceRuleError, AttributeError)):
        eval(expression, on_device)


def test_saving_reads_them_all(on_device, tmp_path):
    # `cupy.save` copies the array to the host.
    with pytest.raises((DeviceRuleError, AttributeError)):
        on_device["xp"].save(tmp_path / "x.npy", on_device["x"])


def test_hidden_random_state_is_refused(on_device):
    with pytest.raises(DeviceRuleError, match=r"backend\.generator"):
        _ = on_device["xp"].random


# ---- mistakes that are the same on every device ----------------------------------------------


@pytest.mark.parametrize(
    ("expression", "error"),
    [
        ("x[3]", IndexError), ("x[0, 0, 0]", IndexError), ("x[:, -5]", IndexError),
        ("x.reshape(5, 5)", ValueError), ("x + y[:, :3]", ValueError), ("x @ y", ValueError),
        ("x.sum(axis=2)", np.exceptions.AxisError), ("xp.sum(x, axis=-3)", np.exceptions.AxisError),
        ("xp.concatenate([x, y], axis=2)", np.exceptions.AxisError), ("x[d]", IndexError),
        ("x[r[:2]]", IndexError), ("x[i, i, i]", IndexError), ("xp.no_such_thing", AttributeError),
        ("x.no_such_thing", AttributeError), ("hash(x)", TypeError), ("len(x.sum())", TypeError),
    ],
)  # fmt: skip
def test_an_ordinary_mistake_is_no_device_rule(on_device, expression, error):
    with pytest.raises(error) as caught:
        eval(expression, on_device)
    assert not isinstance(caught.value, DeviceRuleError), "CuPy raises the ordinary error here"


def test_int_arrays_take_no_fractions_in_place(on_device):
    with pytest.raises(TypeError, match="same_kind"):
        exec("n += 0.5", on_device)


# ---- memory order ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expression",
    [
        "x.T + 1", "1 - x.T", "x.T * y.T", "x.T > 0", "-x.T", "+x.T", "abs(x.T)", "~n.T",
        "x.T ** 2",
        "xp.exp(x.T)", "xp.maximum(x.T, 0)", "xp.where(m.T, x.T, 0)", "xp.clip(x.T, 0, 1)",
        "x.T.clip(0, 1)", "x.T.round()", "xp.sign(x.T)", "xp.isfinite(x.T)", "xp.nan_to_num(x.T)",
    ],
)  # fmt: skip
def test_element_by_element_results_are_in_c_order(strict, on_device, expression):
    # `cupy/_core/_kernel.pyx` allocates so, whatever the order of the inputs.
    result = eval(expression, on_device)
    assert result.flags.c_contiguous
    names = HOST | {"xp": np}
    np.testing.assert_array_equal(strict.to_numpy(result), eval(expression, names))


@pytest.mark.parametrize(
    "expression", ["xp.empty_like(x.T)", "xp.zeros_like(x.T)", "x.T.astype('f2')", "xp.copy(x.T)"]
)
def test_what_keeps_the_order_keeps_it(on_device, expression):
    assert eval(expression, on_device).flags.f_contiguous


def test_out_keeps_the_order_of_out(on_device):
    x, xp = on_device["x"], on_device["xp"]
    assert xp.maximum(x.T, 0, out=xp.empty_like(x.T)).flags.f_contiguous
    view = x.T
    view += 1
    assert view.flags.f_contiguous


# ---- the rest -------------------------------------------------------------------------------


def test_transfers_are_counted(strict):
    def counts():
        return strict.transfers.to_device, strict.transfers.to_host

    assert counts() == (0, 0)
    x = strict.asarray(HOST["x"])
    assert counts() == (1, 0)
    strict.asarray(x)
    strict.asarray(x, np.float16)
    y = strict.relu(x * 2 + strict.xp.zeros((4,), np.float32))[1:]
    strict.dropout(strict.generator(0), y, 0.5, 1)
    assert counts() == (1, 0)
    strict.to_numpy(x)
    strict.item(x.sum())
    assert counts() == (1, 2)
    strict.xp.asarray([1, 2])
    assert counts() == (2, 2)


def test_what_goes_to_the_device_is_a_copy(strict):
    host = np.zeros(3, np.float32)
    x = strict.asarray(host)
    host[:] = 5
    np.testing.assert_array_equal(strict.to_numpy(x), np.zeros(3))


def test_deep_copies_are_apart(strict):
    x = strict.asarray(HOST["x"])
    for twin in (copy.deepcopy(x), copy.copy(x), copy.deepcopy({"W": x})["W"]):
        twin += 1
        np.testing.assert_array_equal(strict.to_numpy(x), HOST["x"])
        np.testing.assert_array_equal(strict.to_numpy(twin), HOST["x"] + 1)


def test_pickling_keeps_the_numbers(strict):
    x = strict.asarray(HOST["x"])
    back = pickle.loads(pickle.dumps(x))
    np.testing.assert_array_equal(strict.to_numpy(back), HOST["x"], strict=True)


def test_printing_shows_no_numbers(strict):
    x = strict.asarray(HOST["x"])
    assert repr(x) == str(x) == f"{x}" == "DeviceArray(shape=(3, 4), dtype=float32)"
    assert strict.transfers.to_host == 0


def test_it_is_told_from_a_numpy_array(strict):
    x = strict.asarray(HOST["x"])
    assert isinstance(x, strict.xp.ndarray)
    assert not isinstance(x, np.ndarray)
    assert not hasattr(x, "__array_interface__")
    with pytest.raises(TypeError):
        memoryview(x)
    with pytest.raises(TypeError):
        operator.index(1.5)


def test_a_generator_draws_what_numpy_draws(strict):
    numbers = strict.generator(5).random((3, 4), dtype=np.float32)
    expected = get_backend("numpy").generator(5).random((3, 4), dtype=np.float32)
    assert_same(strict, numbers, expected)


@pytest.mark.parametrize("seed", range(3))
def test_random_chains_of_operations_count_as_numpy_does(strict, seed):
    source = random.Random(seed)
    steps = [
        lambda a, b, xp: a + b, lambda a, b, xp: a * 0.5, lambda a, b, xp: xp.maximum(a, b),
        lambda a, b, xp: a[::-1], lambda a, b, xp: a - a.mean(axis=0), lambda a, b, xp: -a,
        lambda a, b, xp: xp.where(a > b, a, 1), lambda a, b, xp: (a.T @ b).T[:4, :4],
        lambda a, b, xp: xp.tanh(a), lambda a, b, xp: a / (1 + abs(b)),
        lambda a, b, xp: a.reshape(2, 8).reshape(4, 4), lambda a, b, xp: a.T,
    ]  # fmt: skip
    rng = np.random.default_rng(seed)
    host = [rng.standard_normal((4, 4)).astype(np.float32) for _ in range(2)]
    there = [strict.asarray(a) for a in host]
    for step in source.choices(steps, k=60):
        host = [step(*host, np), host[0]]
        there = [step(*there, strict.xp), there[0]]
        # Sums may run in another order where the memory does.
        np.testing.assert_allclose(strict.to_numpy(there[0]), host[0], rtol=1e-3, atol=1e-4)
        assert there[0].dtype == np.float32
