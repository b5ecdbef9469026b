"""Pictures bent at random."""

from __future__ import annotations

import math
from dataclasses import dataclass

from xpdl.arguments import LARGEST, number
from xpdl.backends import Array, RandomGenerator, accumulation_dtype, array_module
from xpdl.datasets.augmentation.base import Augmentation
from xpdl.datasets.augmentation.draws import draw
from xpdl.datasets.augmentation.resampling import in_turn, resample
from xpdl.datasets.augmentation.settings import finite


@dataclass(frozen=True)
class Elastic(Augmentation):
    """Bend, as a hand that writes the same digit again does: each pixel comes from near its place.

    p comes from p + u(p), where both parts of the displacement u are a smoothed noise,

    u = pixels K_H z K_W^T,  K[i, k] = k_ik / sqrt(sum_k k_ik^2),  k_ik = exp(-(i-k)^2 / 2 sigma^2)

    with z (H, W) independent numbers of mean 0 and variance 1. So u has the standard deviation
    `pixels` everywhere, at the edges too. Simard et al. 2003, "Best practices for convolutional
    neural networks applied to visual document analysis": their sigma 4, alpha 34 is `pixels` 1.4.

    Parameters
    ----------
    pixels : float
        How far pixels are moved: the standard deviation, down and to the right.
    sigma : float
        In pixels, at least 0.1: what is nearer than that is moved together.
    fill : float
    """

    pixels: float
    sigma: float = 4.0
    fill: float = 0.0

    def __post_init__(self) -> None:
        pixels = number("pixels", self.pixels, below=LARGEST)
        sigma = number("sigma", self.sigma, least=0.1, below=LARGEST)
        self._set(pixels=pixels, sigma=sigma, fill=finite("fill", self.fill))

    def change(self, x: Array, generator: RandomGenerator) -> Array:
        return self.bent(x, in_turn(x, []), generator)

    def bent(self, x: Array, maps: Array, generator: RandomGenerator) -> Array:
        """Return x seen through maps (N, 3, 3), see `resample`, and then bent."""
        return resample(x, maps, self.fill, self.bends(x, generator))

    def bends(self, x: Array, generator: RandomGenerator) -> Array:
        """Return the displacements of pictures x, (N, 2, H, W): downwards and to the right."""
        n, _, h, w = x.shape
        z = (2 * math.sqrt(3)) * (draw(x, generator, (h, n, 2, w), axis=1) - 1 / 2)
        u = self._kernel(x, h) @ z.reshape(h, n * 2 * w)
        u = self.pixels * (u.reshape(h * n * 2, w) @ self._kernel(x, w).T)
        return u.reshape(h, n, 2, w).transpose(1, 2, 0, 3)

    def _kernel(self, x: Array, size: int) -> Array:
        """Return K, (size, size)."""
        xp = array_module(x)
        i = xp.arange(size, dtype=accumulation_dtype(x.dtype))
        k = xp.exp(((i[:, None] - i) / self.sigma) ** 2 / -2)
        return k / xp.sqrt((k**2).sum(axis=1, keepdims=True))
