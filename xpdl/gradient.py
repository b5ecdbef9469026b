"""Numerical gradients, and the check of computed gradients against them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

from xpdl.arguments import check_writable, expect_network, number, real_array, whole_number
from xpdl.backends import Array, array_module, backend_of
from xpdl.errors import ArgumentError, DTypeError, shown


def numerical_gradient(f: Callable[[Array], Any], x: Array, h: float = 1e-4) -> Array:
    """Return df/dx by central differences, element by element. Book, section 4.4.

    df/dx_i = (f(x + h e_i) - f(x - h e_i)) / (2 h), with an error of order h^2.

    Parameters
    ----------
    f : callable
        Takes x and returns one number. It may look at x itself, whose elements are changed one
        at a time and put back.
    x : array, any shape, float64, writable

    Returns
    -------
    array, the shape of x, float64

    Raises
    ------
    DTypeError
        If x is not float64: in float32 the difference would be lost in rounding, and an integer
        cannot be moved by h.
    """
    if not callable(f):
        raise ArgumentError(f"f must be a function of x, got {shown(f)}.")
    if real_array("x", x).dtype != "float64":
        raise DTypeError(f"x must be float64 for a numerical gradient, got {x.dtype}.")
    check_writable("x", x)
    h = number("h", h, above=0)
    xp = array_module(x)
    gradient = xp.zeros(x.shape, dtype=x.dtype)
    for index in _indices(x.shape):
        value = x[index].copy()
        try:
            x[index] = value + h
            above = _one_number(f(x))
            x[index] = value - h
            below = _one_number(f(x))
        finally:
            x[index] = value
        gradient[index] = (above - below) / (2 * h)
    return gradient


def _one_number(value: Any) -> Any:
    """Return what f returned, if it is one real number, of the host or a device."""
    of_device = hasattr(value, "dtype") and value.dtype.kind in "biuf" and value.shape == ()
    if not of_device and not isinstance(value, Real):
        raise ArgumentError(f"f must return one number, and returned {shown(value)}.")
    return value


def _indices(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    indices: list[tuple[int, ...]] = [()]
    for length in shape:
        indices = [(*index, i) for index in indices for i in range(length)]
    return indices


def gradient_check(
    network: Any, x: Array, t: Array, h: float = 1e-4, seed: int = 0
) -> Mapping[str, float]:
    """Return, for each parameter, how far backpropagation is from the numerical gradient.

    A frozen parameter has no gradient, and is left out.

    The loss is taken as in training, with the same dropout masks at each evaluation.

    Parameters
    ----------
    network : Network
        In float64 (``dtype="float64"``). Its parameters and running statistics are left as they
        were; its dropout masks go on from `seed`.
    x, t : array
        A small batch and its targets.

    Returns
    -------
    dict of str to float
        The mean absolute difference by name; 1e-7 or less is a pass (book, section 5.7.4).
    """
    expect_network("network", network)
    h, seed = number("h", h, above=0), whole_number("seed", seed, least=0)
    for name, parameter in network.params.items():
        if parameter.dtype != "float64":
            raise DTypeError(
                f"gradient_check wants a network in float64 (dtype='float64'), {name} is "
                f"{parameter.dtype}."
            )
    saved = {name: array.copy() for name, array in network.state.items()}

    def loss(_: Array) -> Any:
        network.reseed(seed)
        return network.loss(x, t, train=True)

    difference = {}
    try:
        network.reseed(seed)
        network.gradient(x, t)
        computed = {
            name: gradient.copy()
            for name, gradient in network.grads.items()
            if name not in network.grads.frozen
        }
        for name, gradient in computed.items():
            gap = abs(numerical_gradient(loss, network.params[name], h) - gradient)
            difference[name] = backend_of(gap).item(gap.mean())
    finally:
        for name, array in saved.items():
            network.state[name][...] = array
    return difference
