"""Primitives that go over all numbers: products, sums, normalisation, activations, the loss."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpdl.backends.base.arrays import Arrays
from xpdl.backends.base.types import Array, Number, accumulation_dtype, along, others, written
from xpdl.backends.generators import RandomGenerator


class Elements(Arrays):
    """Products, sums, and what is done element by element."""

    # ---- products -----------------------------------------------------------------------

    def matmul(self, a: Array, b: Array, dtype: Any = None, out: Array | None = None) -> Array:
        """Matrix product, in the type of the two together or in `dtype`, or written into `out`.

        Half precision is multiplied and summed in float32, and rounded once, at the end.
        """
        if out is not None:
            return written(self.matmul(a, b, out.dtype), out)
        if a.dtype == np.float16:
            product: Array = self.xp.matmul(a.astype(np.float32), b.astype(np.float32))
            return product.astype(dtype or np.float16, copy=False)
        product = self.xp.matmul(a, b)
        return product if dtype is None else product.astype(dtype, copy=False)

    # ---- normalisation ------------------------------------------------------------------
    # A feature is a column of x (N, C) or a channel of x (N, C, H, W): M numbers each, over all
    # other axes. What there is one of for each feature is (C,), in float32 at least.

    def moments(self, x: Array) -> tuple[Array, Array]:
        """Return mean = sum x / M and variance = sum (x - mean)^2 / M of each feature of x."""
        axes = others(x)
        wide = x.astype(accumulation_dtype(x.dtype), copy=False)
        mean = wide.mean(axis=axes)
        centred = wide - along(mean, x)
        return mean, (centred * centred).mean(axis=axes)

    def normalize(self, x: Array, mean: Array, factor: Array, shift: Array) -> Array:
        """Return factor (x - mean) + shift, in the type and memory order of x."""
        wide = x.astype(accumulation_dtype(x.dtype), copy=False)
        scaled = along(factor, x) * (wide - along(mean, x))
        y = self.xp.empty_like(x)
        return self.xp.add(scaled, along(shift, x), out=y, casting="same_kind")

    def normalize_backward(
        self, dout: Array, x: Array, mean: Array, inverse_std: Array, gamma: Array
    ) -> tuple[Array, Array, Array]:
        """Return dx, dgamma and dbeta of y = gamma xn + beta, with xn = inverse_std (x - mean).

        dx = gamma inverse_std (dout - dbeta / M - xn dgamma / M), since mean and inverse_std are
        those of x itself; dgamma = sum dout xn; dbeta = sum dout. dx is in the type and memory
        order of dout. Ioffe and Szegedy 2015.
        """
        axes, count = others(x), x.size // x.shape[1]
        wide, wide_x = (a.astype(accumulation_dtype(x.dtype), copy=False) for a in (dout, x))
        xn = along(inverse_std, x) * (wide_x - along(mean, x))
        dgamma, dbeta = (wide * xn).sum(axis=axes), wide.sum(axis=axes)
        centred = wide - along(dbeta / count, x) - xn * along(dgamma / count, x)
        factor, dx = along(inverse_std * gamma, x), self.xp.empty_like(dout)
        return self.xp.multiply(factor, centred, out=dx, casting="same_kind"), dgamma, dbeta

    def normalize_response(
        self, x: Array, size: int, bias: float, alpha: float, beta: float
    ) -> tuple[Array, Array]:
        """Divide each number of x (N, C, H, W) by what the channels beside it answer there.

        s[c] = bias + alpha sum of x[j]^2 over the `size` channels j from c - size // 2 on, those
        of them that exist; y = x / s^beta. Returns y, in the type of x, and s, in float32 at
        least, for `normalize_response_backward`. Krizhevsky et al. 2012, section 3.3.
        """
        wide = x.astype(accumulation_dtype(x.dtype), copy=False)
        s = bias + alpha * self._sum_beside(wide * wide, size // 2, (size - 1) // 2)
        return (wide * s**-beta).astype(x.dtype, copy=False), s

    def normalize_response_backward(
        self, dout: Array, x: Array, s: Array, size: int, alpha: float, beta: float
    ) -> Array:
        """Return dx of `normalize_response`.

        dx[j] = dout[j] / s[j]^beta - 2 alpha beta x[j] sum of dout[c] x[c] / s[c]^(beta + 1) over
        the channels c that j is beside.
        """
        wide, wide_x = (a.astype(s.dtype, copy=False) for a in (dout, x))
        scaled = wide * s**-beta
        shares = self._sum_beside(scaled * wide_x / s, (size - 1) // 2, size // 2)
        dx = scaled - (2 * alpha * beta) * wide_x * shares
        return dx.astype(dout.dtype, copy=False)

    def _sum_beside(self, x: Array, before: int, after: int) -> Array:
        """Return the sums of x (N, C, H, W) over the channels from c - before to c + after."""
        channels, total = x.shape[1], self.xp.empty_like(x)
        total[...] = x
        for step in range(1, min(max(before, after), channels - 1) + 1):
            if step <= before:
                total[:, step:] += x[:, : channels - step]
            if step <= after:
                total[:, : channels - step] += x[:, step:]
        return total

    # ---- element by element -------------------------------------------------------------

    def sum(
        self,
        x: Array,
        axis: int | tuple[int, ...] | None = None,
        dtype: Any = None,
        out: Array | None = None,
    ) -> Array:
        """Sum along `axis`, carried in float32 at least.

        Given in the type of x or in `dtype`, or written into `out`.
        """
        total: Array = x.sum(axis=axis, dtype=accumulation_dtype(x.dtype))
        if out is not None:
            return written(total, out)
        return total.astype(dtype or x.dtype, copy=False)

    def add_bias(self, y: Array, b: Array | None, relu: bool = False) -> None:
        """Add b (K,) to each row of y (N, K), in place, and with `relu` take max(y, 0)."""
        if b is not None:
            y += b
        if relu:
            self.xp.maximum(y, 0, out=y)

    def relu(self, x: Array) -> Array:
        """Return max(x, 0), in the memory order of x."""
        return self.xp.maximum(x, 0, out=self.xp.empty_like(x))

    def relu_backward(self, dout: Array, y: Array, total: Array | None = None) -> Array:
        """Return dout where y, the output of `relu`, is positive, and 0 elsewhere.

        With `total` (C,), the sum of that over all axes but the second is written there: the
        gradient of a bias that was added before the ReLU.
        """
        dx: Array = self.xp.multiply(dout, y > 0, out=self.xp.empty_like(dout))
        if total is not None:
            self.sum(dx, axis=others(dx), out=total)
        return dx

    def relu6(self, x: Array) -> Array:
        """Return min(max(x, 0), 6), in the memory order of x."""
        y = self.xp.maximum(x, 0, out=self.xp.empty_like(x))
        return self.xp.minimum(y, 6, out=y)

    def relu6_backward(self, dout: Array, y: Array) -> Array:
        """Return dout where y, the output of `relu6`, is between 0 and 6, and 0 elsewhere."""
        return self.xp.multiply(dout, (y > 0) & (y < 6), out=self.xp.empty_like(dout))

    def log_softmax(self, x: Array) -> Array:
        """Return log softmax(x) along the last axis, in float32 at least.

        log y_k = x_k - m - log sum_i exp(x_i - m), m = max x, which cannot overflow.
        """
        z = x.astype(accumulation_dtype(x.dtype), copy=False)
        z = z - z.max(axis=-1, keepdims=True)
        return z - self.xp.log(self.xp.exp(z).sum(axis=-1, keepdims=True))

    def distribution(self, t: Array, classes: int, dtype: Any) -> Array:
        """Return targets, class numbers (N,) or one-hot (N, K), as (N, K) in `dtype`."""
        hits = t[:, None] == self.xp.arange(classes) if t.ndim == 1 else t
        return hits.astype(dtype, copy=False)

    def mean_cross_entropy(self, log_y: Array, t: Array) -> Array:
        """Return -sum_k t_k log y_k, averaged over the batch, from log y (N, K).

        A class number that does not exist gives NaN, on every device, rather than another
        class's number.
        """
        n, classes = log_y.shape
        targets = self.distribution(t, classes, log_y.dtype)
        losses = -(targets * self.xp.where(targets != 0, log_y, 0)).sum(axis=1)
        if t.ndim == 1:
            known = (t >= 0) & (t < classes)
            losses = self.xp.where(known, losses, math.nan)
        return losses.sum() / n

    def softmax_with_loss(self, x: Array, t: Array) -> tuple[Array, Array]:
        """Return the mean cross entropy of scores x (N, K), (), and y = softmax(x), (N, K).

        L = -1/N sum_n sum_k t_k log y_k, for targets t, class numbers (N,) or distributions
        (N, K). Both in float32 at least. Book, appendix A.
        """
        log_y = self.log_softmax(x)
        return self.mean_cross_entropy(log_y, t), self.xp.exp(log_y)

    def softmax_with_loss_backward(
        self, y: Array, t: Array, dout: Number, dtype: Any, sums: Array | None = None
    ) -> Array:
        """Return dL/dx = (y sum_k t_k - t) dout / N, (N, K), in `dtype`.

        dout is a number, or () as y is; `sums`, (N,) as y is, holds sum_k t_k, 1 without it.
        """
        n, classes = y.shape
        whole = y if sums is None else y * sums[:, None]
        dx = (whole - self.distribution(t, classes, y.dtype)) * (dout / n)
        return dx.astype(dtype, copy=False)

    def count_hits(self, scores: Array, t: Array, weights: Array | None = None) -> Array:
        """Return how many rows of scores (N, K) are highest at their target, and of how many: (2,).

        In float64. Targets are class numbers (N,) or distributions (N, K); with weights (N,),
        numbers or bools, both are sums of weights. Of equals the first is the highest, and NaN is
        above all.
        """
        hits = scores.argmax(axis=1) == (t if t.ndim == 1 else t.argmax(axis=1))
        sums: Array = self.xp.empty(2, np.float64)
        if weights is None:
            sums[0], sums[1] = hits.sum(), len(scores)
        else:
            sums[0] = (weights * hits).sum(dtype=np.float64)
            sums[1] = weights.sum(dtype=np.float64)
        return sums

    def confusion(self, scores: Array, t: Array, weights: Array | None = None) -> Array:
        """Return how many rows of scores (N, K) of each class are highest at each: (K, K), float64.

        Rows are the classes of the targets, as in `count_hits`; columns those of the scores. Exact
        for counts below 2^24. A class number that does not exist is counted nowhere.
        """
        classes = scores.shape[1]
        true = self.distribution(t if t.ndim == 1 else t.argmax(axis=1), classes, np.float32)
        said = self.distribution(scores.argmax(axis=1), classes, np.float32)
        if weights is not None:
            true = true * weights.astype(np.float32)[:, None]
        return self.matmul(true.T, said).astype(np.float64)

    def dropout(
        self, generator: RandomGenerator, x: Array, ratio: float, scale: float
    ) -> tuple[Array, Array]:
        """Return x times a mask, and the mask: 0 with probability `ratio`, else `scale`.

        Both are in the memory order of x. The numbers are drawn in float32, in the logical order of
        the axes.
        """
        mask: Array = self.xp.empty_like(x)
        mask[...] = generator.random(x.shape, dtype=np.float32) >= ratio
        if scale != 1:
            mask *= scale
        return self.xp.multiply(x, mask, out=self.xp.empty_like(x)), mask

    def dropout_backward(self, dout: Array, mask: Array) -> Array:
        """Return dout times the mask, in the memory order of dout."""
        return self.xp.multiply(dout, mask, out=self.xp.empty_like(dout))

    # ---- batches ------------------------------------------------------------------------

    def gather(
        self, x: Array, indices: Array, dtype: Any = None, divisor: float | None = None
    ) -> Array:
        """Return the rows x[indices]; with `divisor`, divided by it in float32 at least.

        In `dtype`, or, without one, in the type of x, or of what the division gives. So pixels stay
        bytes on the device, and are floats only in the batch. An index below 0 counts from the end.
        One out of range is an IndexError on the host; a GPU, which would have to be waited for,
        gives NaN there, or, in plain array code, some other row.
        """
        rows = x[indices]
        if divisor is not None:
            wide = accumulation_dtype(dtype or x.dtype)
            rows = rows.astype(wide, copy=False) / wide.type(divisor)
        return rows.astype(dtype or rows.dtype, copy=False)

    # ---- what a step came to ------------------------------------------------------------

    def all_finite(self, loss: Array, g: Array) -> tuple[Array, Array]:
        """Return whether the loss, (), and all gradients g, (size,), are finite, () bool.

        And the loss, or NaN where they are not all finite: the mark of a step that is not made.
        """
        go = self.xp.isfinite(g).all() & self.xp.isfinite(loss)
        return go, self.xp.where(go, loss, math.nan)

    # ---- half precision -----------------------------------------------------------------

    def unscale(self, g: Array, scale: Array) -> Array:
        """Divide gradients g by `scale`, (), in place; return whether all are finite, () bool."""
        g *= 1 / scale
        return self.xp.isfinite(g).all()

    def adjust_loss_scale(
        self, state: Array, go: Array, patience: int, growth: float, largest: float
    ) -> None:
        """Adapt a loss scale to whether a step was finite (`go`, () bool), on the device.

        state (4,): the scale, good steps since it last changed, bad steps in a row, bad steps in
        all. A bad step divides the scale by `growth`; `patience` good ones multiply it, up to
        `largest`. Micikevicius et al. 2018 (arXiv:1710.03740).
        """
        xp = self.xp
        scale, good, bad, skipped = (state[i : i + 1] for i in range(4))
        good[...] = xp.where(go, good + 1, 0)
        bad[...] = xp.where(go, 0, bad + 1)
        skipped[...] = xp.where(go, skipped, skipped + 1)
        grows = good >= patience
        higher = xp.where(grows, xp.minimum(scale * growth, largest), scale)
        scale[...] = xp.where(go, higher, scale / growth)
        good[...] = xp.where(grows, 0, good)
