"""What holds for every layer: a test gives the layer, an input and the formula, no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xpdl.backends import Backend
from xpdl.layers import Layer

Array = np.ndarray[Any, Any]
Formula = Callable[..., Array]


def distinct(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return numbers that differ by 0.05 at least and are not near 0, so no step ends a kink."""
    size = int(np.prod(shape))
    values = (np.arange(size) - size // 2 + 0.5) * 0.05
    return rng.permutation(values).reshape(shape)


def check_layer(
    backend: Backend,
    make: Callable[[], Layer],
    x: Array,
    formula: Formula,
    *,
    rng: np.random.Generator,
) -> None:
    """See that a layer is its formula, forward and backward, and a good neighbour.

    `formula(x, **params)` gives the output in float64 for host arrays.
    """
    _check_values(backend, make, x, formula, rng)
    _check_dtypes(backend, make, x, rng)
    _check_memory_orders(backend, make, x, rng)


def build(make: Callable[[], Layer], x: Array, dtype: str) -> Layer:
    layer = make()
    layer.build(x.shape[1:], np.random.default_rng(7), dtype=dtype)
    for name, array in layer.params.items():  # biases of zero would hide their absence
        array += (0.1 * (1 + np.arange(len(name)).sum())) if array.ndim == 1 else 0.0
    return layer


def run(backend: Backend, layer: Layer, x: Array) -> Array:
    return backend.to_numpy(layer.forward(backend.asarray(x), train=True))


def _check_values(
    backend: Backend, make: Callable[[], Layer], x: Array, formula: Formula, rng: Any
) -> None:
    layer = build(make, x, "float64")
    params = {name: backend.to_numpy(array) for name, array in layer.params.items()}
    device_x = backend.asarray(x.copy())
    y = layer.forward(device_x, train=True)
    expected = formula(x, **params)
    assert y.shape == expected.shape
    np.testing.assert_allclose(backend.to_numpy(y), expected, rtol=1e-10, atol=1e-10)
    weights = rng.standard_normal(y.shape)
    dout = backend.asarray(weights.copy())
    dx = layer.backward(dout)
    np.testing.assert_array_equal(backend.to_numpy(device_x), x, "forward or backward changed x")
    np.testing.assert_array_equal(backend.to_numpy(dout), weights, "backward changed dout")
    computed = {"x": dx, **layer.grads}
    assert set(layer.grads) == set(params)
    for name, gradient in computed.items():
        start = x if name == "x" else params[name]

        def loss(value: Array, name: str = name) -> float:
            values = {**params, "x": x, name: value}
            return float((formula(values.pop("x"), **values) * weights).sum())

        numerical = central_differences(loss, start)
        assert_close_gradients(backend.to_numpy(gradient), numerical, name)


def _check_dtypes(backend: Backend, make: Callable[[], Layer], x: Array, rng: Any) -> None:
    exact = build(make, x, "float64")
    y64 = run(backend, exact, x)
    dout = rng.standard_normal(y64.shape)
    dx64 = backend.to_numpy(exact.backward(backend.asarray(dout)))
    for dtype, tolerance in (("float32", 2e-5), ("float16", 3e-2)):
        layer = build(make, x, dtype)
        y = layer.forward(backend.asarray(x, dtype), train=True)
        dx = layer.backward(backend.asarray(dout, dtype))
        assert y.dtype == dtype
        assert dx.dtype == dtype
        for small, large in ((y, y64), (dx, dx64)):
            scale = max(1.0, float(np.abs(large).max(initial=0)))
            gap = np.abs(backend.to_numpy(small).astype("float64") - large).max(initial=0)
            assert gap <= tolerance * scale


def _check_memory_orders(backend: Backend, make: Callable[[], Layer], x: Array, rng: Any) -> None:
    layer = build(make, x, "float64")
    expected = run(backend, layer, x)
    dout = rng.standard_normal(expected.shape)
    expected_dx = backend.to_numpy(layer.backward(backend.asarray(dout)))
    for order in (_channels_last, _every_other, _read_only):
        y = layer.forward(order(backend, x), train=True)
        dx = layer.backward(order(backend, dout))
        np.testing.assert_allclose(backend.to_numpy(y), expected, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(backend.to_numpy(dx), expected_dx, rtol=1e-10, atol=1e-12)


def _channels_last(backend: Backend, a: Array) -> Any:
    """Lay the axes out in another order in memory, behind the same shape."""
    last = (0, *range(2, a.ndim), 1) if a.ndim > 1 else (0,)
    return backend.asarray(np.ascontiguousarray(a.transpose(last))).transpose(
        *np.argsort(last).tolist()
    )


def _every_other(backend: Backend, a: Array) -> Any:
    """Return a view that skips every other element of its buffer."""
    wide = np.full((*a.shape[:-1], 2 * a.shape[-1]), 9e9)
    wide[..., ::2] = a
    return backend.asarray(wide)[..., ::2]


def _read_only(backend: Backend, a: Array) -> Any:
    array = backend.asarray(a.copy())
    if isinstance(array, np.ndarray):
        array.flags.writeable = False
    return array


def central_differences(f: Callable[[Array], float], x: Array, h: float = 1e-5) -> Array:
    gradient = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        above, below = x.copy(), x.copy()
        above[i] += h
        below[i] -= h
        gradient[i] = (f(above) - f(below)) / (2 * h)
    return gradient


def assert_close_gradients(computed: Array, numerical: Array, name: str) -> None:
    assert computed.shape == numerical.shape, name
    scale = max(np.abs(numerical).max(initial=0), np.abs(computed).max(initial=0), 1e-3)
    error = np.abs(computed - numerical).max(initial=0) / scale
    assert error < 1e-6, f"gradient of {name}: relative error {error:.2e}"
