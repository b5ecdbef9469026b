"""What layers and losses look at before they take it."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

from xpdl.arguments import expect_array, one_of
from xpdl.backends import Array, Backend, Shape, backend_of
from xpdl.errors import ArgumentError, BackendMismatchError, DTypeError, ShapeError, shown


def pair(argument: str, value: int | Sequence[int], least: int) -> tuple[int, int]:
    """Return `value`, one int or two, as (vertical, horizontal)."""
    both = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(both) != 2 or not all(
        isinstance(v, Integral) and not isinstance(v, bool) and least <= int(v) <= 10**6
        for v in both
    ):
        raise ArgumentError(
            f"{argument} must be an int from {least} to 1,000,000 or two of them, "
            f"got {shown(value)}."
        )
    return int(both[0]), int(both[1])


def expect_floats(layer: str, x: Array, argument: str = "x") -> None:
    """See that x holds floats: integers would be computed in another type on each device."""
    if not hasattr(x, "dtype") or not hasattr(x, "shape"):
        raise DTypeError(
            f"{layer} wants {argument} to be an array of floats, got {shown(x)}; "
            "make one with xpdl.asarray(...)."
        )
    expect_array(argument, x)
    dtype = x.dtype
    if dtype.kind != "f":
        advice = f"; {argument}.astype('float32') will do" if dtype.kind in "biu" else ""
        raise DTypeError(f"{layer} wants {argument} to be an array of floats, got {dtype}{advice}.")


def expect_gradient(layer: str, dout: Array, shape: Shape, home: Backend) -> None:
    """See that dout is floats in the `shape` of the layer's output, on the backend of its input.

    Raises
    ------
    DTypeError, ShapeError, BackendMismatchError
        If it is not.
    """
    expect_floats(layer, dout, "dout")
    if dout.shape != shape:
        raise ShapeError(
            f"{layer} wants dout in the shape of its output, {shape}, got {dout.shape}."
        )
    backend = backend_of(dout)
    if backend.array_type is not home.array_type:
        raise BackendMismatchError(
            f"{layer} wants dout on {home.name!r}, where x was, and got it on {backend.name!r}."
        )


def expect_images(layer: str, x: Array, pixels: bool = False) -> None:
    """See that x holds images (N, C, H, W) of floats; with `pixels`, of one pixel at least."""
    expect_floats(layer, x)
    if x.ndim != 4 or (pixels and not x.shape[2] * x.shape[3]):
        raise ShapeError(f"{layer} wants x (N, C, H, W), got {x.shape}.")


def check_remainder(remainder: str) -> str:
    """Return `remainder` if it is one of the two ways to treat windows that do not fit evenly."""
    return one_of("remainder", remainder, ("error", "drop"))


def image_shape(layer: str, shape: Shape) -> tuple[int, int, int]:
    """Return `shape` as (C, H, W), or say that `layer` wants images."""
    if len(shape) != 3:
        raise ShapeError(f"{layer} wants images (C, H, W), its input has the shape {shape}.")
    return shape[0], shape[1], shape[2]


def expect_result(name: str, layer: Any, y: Any, shape: Shape, x: Array) -> None:
    """See that a layer that is not ours gives what its `plan` promised; it is called `name`.

    Raises
    ------
    ArgumentError, ShapeError, BackendMismatchError
        If it does not.
    """
    kind = type(layer).__name__
    if getattr(getattr(y, "dtype", None), "kind", "") != "f" or not hasattr(y, "shape"):
        raise ArgumentError(f"{name}: {kind}.forward must return floats, got {shown(y)}.")
    backend_of(x, y)
    if y.shape != (len(x), *shape):
        raise ShapeError(
            f"{name}: {kind}.plan promised {shape} for each of {len(x)} samples, and forward "
            f"returned {y.shape}."
        )
    if x.dtype.kind == "f" and y.dtype != x.dtype:
        raise ArgumentError(
            f"{name}: {kind}.forward made {y.dtype} of {x.dtype}; keep the type, as by "
            "y.astype(x.dtype, copy=False)."
        )


def expect_dx(name: str, layer: Any, dx: Any, shape: Shape, dout: Array) -> None:
    """See that a layer that is not ours gives a gradient of its input, samples of `shape`.

    Raises
    ------
    ShapeError, BackendMismatchError
        If it does not.
    """
    if getattr(dx, "shape", None) != (len(dout), *shape):
        raise ShapeError(
            f"{name}: {type(layer).__name__}.backward must return dx of shape "
            f"{(len(dout), *shape)}, got {getattr(dx, 'shape', shown(dx))}."
        )
    backend_of(dx, dout)
