"""Clipping: a gradient that is too long is scaled down, for any rule."""

from __future__ import annotations

from xpdl.arguments import arrays_of_floats
from xpdl.backends import Array, accumulation_dtype, backend_of
from xpdl.parameters import ArrayDict, Arrays


def clipped(grads: dict[str, Array], clip_norm: float) -> dict[str, Array]:
    """Return g min(1, clip_norm / |g|), with |g| the norm over all arrays together."""
    xp = backend_of(*grads.values()).xp
    scale = clip_norm / xp.maximum(gradient_norm(grads), clip_norm)
    # `out` keeps the order of memory, on every device.
    return {
        name: xp.multiply(g, scale, out=xp.empty_like(g), casting="same_kind")
        for name, g in grads.items()
    }


def gradient_norm(grads: Arrays) -> Array:
    """Return the Euclidean norm over all arrays but the frozen, (), in float32 at least."""
    if isinstance(grads, ArrayDict):
        parts = [grads.buffer[run] for run in grads.runs().values()]
    else:
        arrays_of_floats("grads", grads)
        parts = list(grads.values())
    xp = backend_of(*parts).xp
    wide = [g.astype(accumulation_dtype(g.dtype), copy=False) for g in parts]
    # In units of the largest, whose square might be infinite.
    largest = xp.zeros((), dtype=wide[0].dtype)  # arrays may be empty
    for g in wide:
        if g.size:
            largest = xp.maximum(largest, xp.abs(g).max())
    unit = largest + (largest == 0)
    squares = [((g / unit) ** 2).sum() for g in wide]
    return unit * xp.sqrt(sum(squares[1:], start=squares[0]))
