"""Batch normalisation."""

from __future__ import annotations

import warnings
from typing import Any

from xpdl.arguments import flag, number
from xpdl.backends import Array, Backend, Normal, Shape, backend_of
from xpdl.errors import ArgumentError, ShapeError
from xpdl.initializers import Constant
from xpdl.layers.base import Layer
from xpdl.layers.kept import Kept


class BatchNormalization(Layer):
    """Bring each feature to zero mean and unit variance over the batch, then scale and shift it.

    xn = (x - mean) / sqrt(variance + epsilon)        y = gamma xn + beta
    dL/dx = gamma / sqrt(variance + epsilon) (dL/dy - mean(dL/dy) - xn mean(dL/dy xn))
    dL/dgamma = sum dL/dy xn        dL/dbeta = sum dL/dy
    (Ioffe and Szegedy 2015; book, section 6.3)

    A feature is a column of (N, D), or a channel of (N, C, H, W): statistics are over all other
    axes, in float32 at least. Inference uses the running statistics, in which each batch of
    training counts 1 - momentum, unless it has a single number of a feature. A frozen layer
    (`Network.freeze`) uses them in training, too, and leaves them as they are:
    dL/dx = gamma / sqrt(variance + epsilon) dL/dy.

    Parameters
    ----------
    momentum : float
        How much of the running statistics stays at each batch; PyTorch's momentum is how much
        does not, 1 - momentum.
    epsilon : float
        Added to the variance; 1e-6 as in the book. It is 1e-5 in PyTorch.
    unbiased : bool
        Whether the running variance is of M - 1 numbers where a batch has M of a feature, the
        estimate without bias, as in PyTorch. What training divides by is of M, always.
    """

    kind = "norm"
    options = ("momentum", "epsilon", "unbiased")
    x: Any = Kept()
    mean: Any = Kept()
    inverse_std: Any = Kept()
    batch_counted: Any = Kept()  # whether the statistics were the batch's own

    _told = False

    def __init__(
        self, momentum: float = 0.9, epsilon: float = 1e-6, *, unbiased: bool = False
    ) -> None:
        super().__init__()
        self.unbiased = flag("unbiased", unbiased)
        self.momentum = number("momentum", momentum, below=1)
        self.epsilon = number("epsilon", epsilon, above=0)

    def plan(self, input_shape: Shape) -> Shape:
        if len(input_shape) not in (1, 3):
            raise ShapeError(
                f"BatchNormalization wants inputs (D,) or (C, H, W), got {input_shape}."
            )
        features = input_shape[:1]
        self.parameter("gamma", features, Constant(value=1.0))
        self.parameter("beta", features, Constant())
        self.statistic("running_mean", features, 0.0)
        self.statistic("running_var", features, 1.0)
        return input_shape

    def expect(self, x: Array) -> None:
        super().expect(x)
        features = self.params["gamma"].shape
        if x.ndim not in (2, 4) or x.shape[1:2] != features:
            raise ShapeError(
                f"BatchNormalization wants (N, {features[0]}) or (N, {features[0]}, H, W), "
                f"got x of shape {x.shape}."
            )
        if not x.size:
            raise ArgumentError(
                f"BatchNormalization wants numbers to count, x is empty: {x.shape}."
            )

    def forward(self, x: Array, train: bool = False) -> Array:
        gamma, beta = self.params["gamma"], self.params["beta"]
        backend = backend_of(x, gamma)
        batch_counts = train and not self.frozen
        if batch_counts:
            mean, variance, count = self._moments(backend, x)
        else:
            mean, variance = self.state["running_mean"], self.state["running_var"]
        inverse_std = 1 / backend.xp.sqrt(variance + self.epsilon)
        if train:
            self.inverse_std, self.batch_counted = inverse_std, batch_counts
        y = backend.normalize(x, mean, inverse_std * gamma, beta)
        if batch_counts:
            self.x, self.mean = x, mean
            if count > 1:  # one number has no variance
                self._remember(
                    mean, variance * (count / (count - 1)) if self.unbiased else variance
                )
            elif not self._told:
                self._told = True
                warnings.warn(
                    "BatchNormalization has one number of each feature in this batch, and makes 0 "
                    "of it, whatever it is: train on larger batches.",
                    stacklevel=2,
                )
        return y

    def as_it_is(self) -> Normal:
        """Return what inference does, y = factor (x - mean) + shift: mean, factor and shift."""
        mean, variance = self.state["running_mean"], self.state["running_var"]
        gamma, beta = self.params["gamma"], self.params["beta"]
        return mean, 1 / backend_of(gamma).xp.sqrt(variance + self.epsilon) * gamma, beta

    def backward(self, dout: Array) -> Array:
        inverse_std, gamma = self.inverse_std, self.params["gamma"]
        backend = backend_of(dout, gamma)
        if not self.batch_counted:
            xp, factor = backend.xp, inverse_std * gamma
            factor = factor.reshape(-1, *(1,) * (dout.ndim - 2))
            return xp.multiply(factor, dout, out=xp.empty_like(dout), casting="same_kind")
        dx, dgamma, dbeta = backend.normalize_backward(dout, self.x, self.mean, inverse_std, gamma)
        self.set_gradient("gamma", dgamma)
        self.set_gradient("beta", dbeta)
        if self.share is not None and self.share.whole_statistics:
            beyond = self._beyond_the_share(backend, dgamma, dbeta)
            dx = dx + beyond if self.share.counts else 0 * dx  # a row that counts nothing
        return dx

    def _moments(self, backend: Backend, x: Array) -> tuple[Array, Array, int]:
        """Return mean, variance, and of how many numbers of a feature they are."""
        mean, variance = backend.moments(x)
        count, share = x.size // x.shape[1], self.share
        if share is None or not share.whole_statistics:
            return mean, variance, count
        mean, variance = share.moments(mean, variance, count)
        return mean, variance, count // len(x) * share.total

    def _beyond_the_share(self, backend: Backend, dgamma: Array, dbeta: Array) -> Array:
        """Return what dx lacks where the means of dL/dy, and of dL/dy xn, are of all ranks' rows.

        gamma / sqrt(variance + epsilon) (m - M + xn (g - G)), with m and g the means that were
        taken of this rank's rows, and M and G those of the whole batch.
        """
        share, x = self.share, self.x
        assert share is not None
        here = x.size // len(dbeta)
        whole = here // len(x) * share.total
        all_dgamma, all_dbeta = share.sums(dgamma, dbeta)
        factor = self.inverse_std * self.params["gamma"]
        shift = factor * (dbeta / here - all_dbeta / whole)
        slope = factor * self.inverse_std * (dgamma / here - all_dgamma / whole)
        return backend.normalize(x, self.mean, slope, shift)

    def _remember(self, mean: Array, variance: Array) -> None:
        for name, batch in (("running_mean", mean), ("running_var", variance)):
            running = self.state[name]
            running *= self.momentum
            running += (1 - self.momentum) * batch
