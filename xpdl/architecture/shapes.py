"""What to do about an input of another shape than the network's."""

from __future__ import annotations

import math

from xpdl.backends import Array, Shape


def advice(x: Array, shape: Shape) -> str:
    """Return how x can be brought to (N, *shape), as a sentence; nothing where nobody knows.

    Pictures whose channels stand last must be transposed: the same numbers in another shape would
    be another picture.
    """
    wanted = ", ".join(map(str, shape))
    if len(shape) == 3 and x.ndim == 4 and x.shape[1:] == (*shape[1:], shape[0]):
        return " Its channels stand last: use x.transpose(0, 3, 1, 2)."
    if len(shape) == 3 and x.ndim == 3 and x.shape == (*shape[1:], shape[0]):
        return " It is one picture, its channels last: use x.transpose(2, 0, 1)[None]."
    if x.shape == shape:
        return " It is one sample: use x[None]."
    if len(shape) == 3 and shape[0] == 1 and x.shape[-2:] == shape[1:]:
        if x.ndim == 3:
            return " Its pictures have no axis of channels: use x[:, None]."
        if x.ndim == 2:
            return " It is one picture: use x[None, None]."
    flat = len(shape) == 1 or (x.ndim == 2 and math.prod(x.shape[1:]) == math.prod(shape))
    if flat and x.ndim > 1 and math.prod(x.shape[1:]) == math.prod(shape):
        return f" Use x.reshape(-1, {wanted})."
    return ""
