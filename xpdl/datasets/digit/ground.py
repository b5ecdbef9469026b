"""How far each pixel is from the shade of the ground."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]

_HALF_LEVEL = 1 / 510
_FITTING_ROUNDS = 12
_SAMPLED_SIDE = 48
_BORDER = 0.05  # of the height and the width
_BORDER_WEIGHT = 0.5  # of the border together, where all that is within is 1


def departures(levels: Field) -> Field:
    """Return how far pixels of levels (H, W, 3) are from the ground, (H, W), signed.

    They are measured along the direction in which colours depart the most: the principal one of
    their differences from the ground. So red ink is seen on green of the same brightness; of a grey
    picture they are the differences of its shades.
    """
    away = levels - _ground(levels)
    flat = away.reshape(-1, 3)
    direction = np.linalg.eigh(flat.T.astype(np.float64) @ flat)[1][:, -1]
    direction /= np.sqrt(3) * np.copysign(1, direction.sum())
    departed: Field = (flat @ direction.astype(np.float32)).reshape(levels.shape[:2])
    return departed


def _ground(levels: Field) -> Field:
    """Return the colour of the ground everywhere: a plane through most of the pixels.

    A plane and not one level, because light falls unevenly on paper. It is the plane of least
    absolute departure, found by weighted least squares, so that ink counts little. The border
    counts more than its area: a bold digit that fills the picture leaves the ground there; a frame
    or a dark edge leaves it inside.
    """
    height, width = levels.shape[:2]
    rows, columns = (np.linspace(0, n - 1, min(n, _SAMPLED_SIDE)).round().astype(int)
                     for n in (height, width))  # fmt: skip
    down, right = np.meshgrid(_positions(height)[rows], _positions(width)[columns], indexing="ij")
    basis = np.stack((np.ones_like(down), down, right), axis=-1).reshape(-1, 3)
    on_border = (np.maximum(abs(down), abs(right)) > 1 - 2 * _BORDER).reshape(-1)
    share = np.where(
        on_border, _BORDER_WEIGHT / max(on_border.sum(), 1), 1 / max((~on_border).sum(), 1)
    )
    shades = levels[rows][:, columns].reshape(-1, 3).astype(np.float64)
    planes = np.stack([_fit_plane(basis, shades[:, k], share) for k in range(3)], axis=1)
    whole = np.stack(
        np.broadcast_arrays(1.0, _positions(height)[:, None], _positions(width)), axis=-1
    )
    ground: Field = (whole @ planes).astype(np.float32)
    return ground


def _positions(size: int) -> npt.NDArray[np.float64]:
    return np.linspace(-1, 1, size) if size > 1 else np.zeros(1)


def _fit_plane(
    basis: npt.NDArray[Any], shades: npt.NDArray[Any], share: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    order = np.argsort(shades)
    total = np.cumsum(share[order])
    plane = np.array([shades[order][np.searchsorted(total, total[-1] / 2)], 0, 0])
    for _ in range(_FITTING_ROUNDS):
        weights = share / np.maximum(np.abs(shades - basis @ plane), _HALF_LEVEL)
        root = np.sqrt(weights)
        plane = np.linalg.lstsq(basis * root[:, np.newaxis], shades * root, rcond=None)[0]
    return plane
