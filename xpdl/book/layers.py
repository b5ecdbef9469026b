"""The book's ``common.layers``: arrays in, arrays out, and gradients in fields.

Each keeps what its backward pass needs at every call of `forward`, as the book's do. Parameters are
the caller's own arrays, so an update in place is seen at the next call.

Types are NumPy's: float32 x and float64 W give float64. Only images (N, C, H, W) that are float32
stay so, in a convolution and in the affine layer that flattens them, unless ``XPDL_DTYPE`` asks for
float64. What is float32 has its gradient in float32, too; parameters have theirs in W's type.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xpdl.backends import Array, Backend, Pair, get_backend, output_size
from xpdl.book.arrays import col2im, im2col
from xpdl.book.functions import (
    cross_entropy_error,
    identity_function,
    one_hot,
    relu,
    relu_grad,
    sigmoid,
    sigmoid_grad,
    softmax,
    softmax_loss,
    step_function,
    sum_squared_error,
)
from xpdl.precision import get_precision

__all__ = [  # with what the book's module hands on, for scripts that import all of it
    "Affine",
    "BatchNormalization",
    "Convolution",
    "Dropout",
    "Pooling",
    "Relu",
    "Sigmoid",
    "SoftmaxWithLoss",
    "col2im",
    "cross_entropy_error",
    "identity_function",
    "im2col",
    "np",
    "relu",
    "relu_grad",
    "sigmoid",
    "sigmoid_grad",
    "softmax",
    "softmax_loss",
    "step_function",
    "sum_squared_error",
]

EPSILON = 1e-6  # the book writes 10e-7


class Relu:
    """y = max(x, 0)        dL/dx = dL/dy where x > 0, 0 elsewhere        (book, eq. 5.7, 5.8)."""

    def __init__(self) -> None:
        self.out: Any = None

    def forward(self, x: Array) -> Array:
        """Return max(x, 0), in the type of x."""
        backend = get_backend()
        self.out = backend.relu(backend.asarray(x))
        return _on_host(backend, self.out)

    def backward(self, dout: Array) -> Array:
        """Return dL/dx, for dout of the shape of x."""
        backend = get_backend()
        _expect_shape("Relu", dout, self.out.shape)
        return _on_host(backend, backend.relu_backward(backend.asarray(dout), self.out))


class Sigmoid:
    """y = 1 / (1 + exp(-x))        dL/dx = dL/dy y (1 - y)        (book, eq. 5.9, 5.12)."""

    def __init__(self) -> None:
        self.out: Any = None

    def forward(self, x: Array) -> Array:
        """Return the sigmoid of x."""
        self.out = sigmoid(x)
        return self.out

    def backward(self, dout: Array) -> Array:
        """Return dL/dx."""
        return dout * (1.0 - self.out) * self.out


class Affine:
    """y = x W + b        dL/dx = dL/dy W^T        dL/dW = x^T dL/dy        dL/db = sum_n dL/dy.

    Book, section 5.6.

    Parameters
    ----------
    W : array, (in, out)
    b : array, (out,)
    """

    def __init__(self, W: Array, b: Array) -> None:
        self.W, self.b = W, b
        self.x: Any = None
        self.original_x_shape: Any = None
        self._dtype: Any = None
        self.dW: Any = None
        self.db: Any = None

    def forward(self, x: Array) -> Array:
        """Return (N, out) for x (N, in), or (N, C, H, W), which is flattened first."""
        self.original_x_shape = x.shape
        images = x.ndim == 4
        self._dtype = dtype = _dtype_of_images(x, self.W) if images else np.result_type(x, self.W)
        self.x = x.reshape(x.shape[0], -1)
        y = _product(self.x, self.W, dtype)
        y += self.b
        return y

    def backward(self, dout: Array) -> Array:
        """Return dL/dx in the shape of x; dL/dW and dL/db are then in `dW` and `db`."""
        dtype = self._dtype
        self.dW = _product(self.x.T, dout, dtype).astype(self.W.dtype, copy=False)
        self.db = np.sum(dout, axis=0).astype(self.W.dtype, copy=False)
        dx = _product(dout, self.W.T, dtype)
        return _no_wider(dx.reshape(self.original_x_shape), self.x)


class SoftmaxWithLoss:
    """L = -1/N sum_n sum_k t_k log y_k, y = softmax(x)        dL/dx = (y - t) / N.

    Book, appendix A. Targets are class numbers (N,) or one-hot (N, K).
    """

    def __init__(self) -> None:
        self.loss: Any = None
        self.y: Any = None
        self.t: Any = None

    def forward(self, x: Array, t: Array) -> Any:
        """Return the loss of scores x (N, K), one number."""
        self.t = t
        self.y = softmax(x)
        self.loss = cross_entropy_error(self.y, self.t)
        return self.loss

    def backward(self, dout: float = 1) -> Array:
        """Return dL/dx times dout."""
        y = np.atleast_2d(self.y)
        return ((y - one_hot(self.t, y)) * dout / len(y)).reshape(self.y.shape)


class Dropout:
    """Drop numbers with probability `dropout_ratio` in training; else keep 1 - ratio of each.

    The mask is drawn from `np.random.rand`. Book, section 6.4.3.
    """

    def __init__(self, dropout_ratio: float = 0.5) -> None:
        self.dropout_ratio = dropout_ratio
        self.mask: Any = None

    def forward(self, x: Array, train_flg: bool = True) -> Array:
        """Return x with numbers dropped, or all of it times 1 - ratio."""
        if not train_flg:
            return x * (1.0 - self.dropout_ratio)
        self.mask = np.random.rand(*x.shape) > self.dropout_ratio
        return x * self.mask

    def backward(self, dout: Array) -> Array:
        """Return dout where x was kept, 0 elsewhere."""
        return dout * self.mask


class BatchNormalization:
    """y = gamma xn + beta, xn = (x - mean) / sqrt(variance + 1e-6), over the batch.

    dL/dx = gamma / sqrt(variance + 1e-6) (dL/dy - mean(dL/dy) - xn mean(dL/dy xn))
    dL/dgamma = sum dL/dy xn        dL/dbeta = sum dL/dy        (Ioffe and Szegedy 2015)

    As in the book, each number of a sample is a feature, of images (N, C, H, W) as well; with a
    gamma of C numbers, a feature is a channel. Statistics are in float64.

    Parameters
    ----------
    gamma, beta : array, (features,)
    momentum : float
        What the running mean and variance keep of themselves at each training batch.
    running_mean, running_var : array, (features,), optional
        What to begin with; zeros by default. They are used where ``train_flg`` is false.
    """

    def __init__(
        self,
        gamma: Array,
        beta: Array,
        momentum: float = 0.9,
        running_mean: Array | None = None,
        running_var: Array | None = None,
    ) -> None:
        self.gamma, self.beta, self.momentum = gamma, beta, momentum
        self.running_mean, self.running_var = running_mean, running_var
        self.input_shape: Any = None
        self.xn: Any = None
        self.std: Any = None
        self.dgamma: Any = None
        self.dbeta: Any = None

    def forward(self, x: Array, train_flg: bool = True) -> Array:
        """Return the normalised x, in its shape."""
        self.input_shape = x.shape
        rows = self._rows(x)
        if self.running_mean is None or self.running_var is None:
            self.running_mean, self.running_var = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
        if train_flg:
            mean = rows.mean(axis=0, dtype=np.float64)
            centred = rows - mean
            variance = np.mean(centred**2, axis=0)
            self.std = np.sqrt(variance + EPSILON)
            self.xn = xn = centred / self.std
            kept = self.momentum
            self.running_mean = kept * self.running_mean + (1 - kept) * mean
            self.running_var = kept * self.running_var + (1 - kept) * variance
        else:
            xn = (rows - self.running_mean) / np.sqrt(self.running_var + EPSILON)
        return _no_wider(self._images(self.gamma * xn + self.beta), x)

    def backward(self, dout: Array) -> Array:
        """Return dL/dx; dL/dgamma and dL/dbeta are then in `dgamma` and `dbeta`."""
        rows = self._rows(dout)
        self.dbeta = rows.sum(axis=0, dtype=np.float64)
        self.dgamma = np.sum(self.xn * rows, axis=0)
        centred = rows - self.dbeta / len(rows) - self.xn * (self.dgamma / len(rows))
        return _no_wider(self._images(self.gamma / self.std * centred), dout)

    def _rows(self, x: Array) -> Array:
        """Return x with a column for each feature."""
        if self._by_channel():
            return x.transpose(0, 2, 3, 1).reshape(-1, x.shape[1])
        return x.reshape(x.shape[0], -1)

    def _images(self, rows: Array) -> Array:
        """Return what `_rows` has made of an array, in that array's shape."""
        if self._by_channel():
            n, c, h, w = self.input_shape
            return rows.reshape(n, h, w, c).transpose(0, 3, 1, 2)
        return rows.reshape(self.input_shape)

    def _by_channel(self) -> bool:
        return len(self.input_shape) == 4 and np.shape(self.gamma) == self.input_shape[1:2]


class Convolution:
    """Filters slid over images (N, C, H, W), giving (N, FN, OH, OW), OH = (H + 2 p - FH) // s + 1.

    y[n, f, i, j] = b[f] + sum over c, k, l of W[f, c, k, l] x[n, c, i s + k - p, j s + l - p]

    Book, sections 7.2 and 7.4. Backward, every product W x sends dL/dy W to x and dL/dy x to W.

    Parameters
    ----------
    W : array, (FN, C, FH, FW)
    b : array, (FN,), or a number
    stride, pad : int
    """

    def __init__(self, W: Array, b: Any, stride: int = 1, pad: int = 0) -> None:
        self.W, self.b, self.stride, self.pad = W, b, stride, pad
        self.x: Any = None
        self.dW: Any = None
        self.db: Any = None

    def forward(self, x: Array) -> Array:
        """Return (N, FN, OH, OW) for x (N, C, H, W)."""
        _expect_images("Convolution", x, self.W.shape[2:], self.pad)
        if x.shape[1] != self.W.shape[1]:
            raise ValueError(
                f"Convolution wants images of {self.W.shape[1]} channels, as W {self.W.shape} "
                f"has; got x {x.shape}."
            )
        backend, dtype = get_backend(), _dtype_of_images(x, self.W)
        self.x = backend.asarray(x.astype(dtype, copy=False))
        W = backend.asarray(self.W.astype(dtype))
        b = backend.asarray(np.array(np.broadcast_to(self.b, len(self.W)), dtype))
        return _on_host(backend, backend.convolution(self.x, W, b, *self._steps()))

    def backward(self, dout: Array) -> Array:
        """Return dL/dx; dL/dW and dL/db are then in `dW` and `db`, in the type of W."""
        backend, dtype = get_backend(), self.x.dtype
        filters, (n, _, *image) = self.W.shape, self.x.shape
        counts = _counts(image, filters[2:], self.stride, self.pad)
        _expect_shape("Convolution", dout, (n, filters[0], *counts))
        dx, dW, db = backend.convolution_backward(
            backend.asarray(dout.astype(dtype, copy=False)),
            self.x,
            backend.asarray(self.W.astype(dtype)),
            *self._steps(),
        )
        self.dW = _on_host(backend, dW).astype(self.W.dtype, copy=False)
        self.db = _on_host(backend, db).astype(self.W.dtype, copy=False)
        return _on_host(backend, dx)

    def _steps(self) -> tuple[Pair, Pair]:
        return (self.stride, self.stride), (self.pad, self.pad)


class Pooling:
    """The largest number of each window of images (N, C, H, W); its gradient goes to it.

    y = max of the window        dL/dx = dL/dy at the winner, 0 elsewhere   (book, section 7.3)

    Of equals the first, in reading order, wins. The padding is zeros, and may win.

    Parameters
    ----------
    pool_h, pool_w : int
        Height and width of the window.
    stride, pad : int
    """

    def __init__(self, pool_h: int, pool_w: int, stride: int = 2, pad: int = 0) -> None:
        self.pool_h, self.pool_w, self.stride, self.pad = pool_h, pool_w, stride, pad
        self.x: Any = None
        self._winners: Any = None

    def forward(self, x: Array) -> Array:
        """Return (N, C, OH, OW) for x (N, C, H, W); integers become float64."""
        size, step = (self.pool_h, self.pool_w), (self.stride, self.stride)
        _expect_images("Pooling", x, size, self.pad)
        backend = get_backend()
        floats = x if x.dtype.kind == "f" else x.astype(np.float64)
        self.x = backend.pad(backend.asarray(floats), (self.pad, self.pad))
        y, self._winners = backend.max_pooling(self.x, size, step, (0, 0), True)
        return _on_host(backend, y)

    def backward(self, dout: Array) -> Array:
        """Return dL/dx, in the type of x."""
        backend, size, p = get_backend(), (self.pool_h, self.pool_w), self.pad
        counts = _counts(self.x.shape[2:], size, self.stride, 0)
        _expect_shape("Pooling", dout, (*self.x.shape[:2], *counts))
        dout = backend.asarray(dout.astype(self.x.dtype, copy=False))
        step = (self.stride, self.stride)
        dx = backend.max_pooling_backward(dout, self._winners, self.x.shape, size, step, (0, 0))
        _, _, h, w = dx.shape
        return _on_host(backend, dx[:, :, p : h - p, p : w - p])


def _product(a: Array, b: Array, dtype: Any) -> Array:
    """Return the matrix product of two host arrays, computed in `dtype` on the active backend."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ValueError(f"Affine cannot multiply {a.shape} by {b.shape}: the middle must agree.")
    backend = get_backend()
    a, b = (backend.asarray(part.astype(dtype, copy=False)) for part in (a, b))
    return _on_host(backend, backend.matmul(a, b))


def _on_host(backend: Backend, a: Any) -> Array:
    return a if isinstance(a, np.ndarray) else backend.to_numpy(a)


def _dtype_of_images(x: Array, W: Array) -> np.dtype[Any]:
    if x.dtype.kind != "f" or get_precision().compute == np.float64:
        return np.result_type(x, W, np.float64)
    return np.result_type(x, np.float32)


def _no_wider(result: Array, like: Array) -> Array:
    """Return what was computed from float32 as float32; else as it is."""
    return result.astype(np.float32) if like.dtype == np.float32 else result


def _counts(image: Any, size: Any, stride: int, pad: int) -> Pair:
    oh, ow = (output_size(n, window, stride, pad) for n, window in zip(image, size, strict=True))
    return oh, ow


def _expect_images(layer: str, x: Array, size: Any, pad: int) -> None:
    """See that x is images in which a window fits."""
    if x.ndim != 4:
        raise ValueError(f"{layer} wants images (N, C, H, W), got x {x.shape}.")
    if any(n + 2 * pad < window for n, window in zip(x.shape[2:], size, strict=True)):
        raise ValueError(
            f"{layer}: a window of {size[0]} x {size[1]} does not fit images of "
            f"{x.shape[2]} x {x.shape[3]} with pad {pad}."
        )


def _expect_shape(layer: str, dout: Array, shape: tuple[int, ...]) -> None:
    """See that a gradient has the shape of what it is the gradient of."""
    if dout.shape != tuple(shape):
        raise ValueError(
            f"{layer}: dout must have the shape of the output, {tuple(shape)}; got {dout.shape}."
        )
