"""Every primitive of the framework, written once over `xp`: the textbook version.

`Backend` is complete as it stands: on NumPy arrays it is the backend ``generic``, slow and plain,
against which every faster version is tested. A device overrides `xp` and the few methods that a
benchmark shows worth it.

4-D data is (N, C, H, W): batch, channels, height, width; filters are (FN, C, FH, FW). Any memory
order will do. Sums of half-precision numbers are carried in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from xpdl.arguments import whole_number
from xpdl.errors import ArgumentError, BackendMismatchError, DTypeError, ShapeError, shown

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
"""An array of some backend. CuPy's has the same methods, so NumPy's type stands for all."""

Pair: TypeAlias = tuple[int, int]

Pads: TypeAlias = tuple[Pair, Pair]
"""Rows above and below an image, columns left and right of it."""

Shape: TypeAlias = tuple[int, ...]

Number: TypeAlias = float | Array
"""A number of the host, or one that lives on the device as an array ()."""

Step: TypeAlias = Callable[..., Any]
"""A function of arrays that returns an array or a tuple of them."""


PRIMITIVES = (
    "matmul",
    "convolution",
    "convolution_backward",
    "grouped_convolution",
    "grouped_convolution_backward",
    "max_pooling",
    "max_pooling_backward",
    "average_pooling",
    "average_pooling_backward",
    "moments",
    "normalize",
    "normalize_backward",
    "normalize_response",
    "normalize_response_backward",
    "sum",
    "add_bias",
    "relu",
    "relu_backward",
    "relu6",
    "relu6_backward",
    "softmax_with_loss",
    "softmax_with_loss_backward",
    "confusion",
    "dropout",
    "dropout_backward",
    "gather",
    "all_finite",
    "unscale",
    "adjust_loss_scale",
    "update_rule",
)
"""What a backend may override to be fast; the rest of its methods hold and move arrays."""


class RandomGenerator(Protocol):
    """Random numbers born on a device."""

    def random(self, size: Shape, dtype: Any) -> Array:
        """Return numbers uniform in [0, 1)."""


def accumulation_dtype(dtype: Any) -> np.dtype[Any]:
    """Return the type in which numbers of `dtype` are summed: float32 at least.

    Integers are summed in float32 as well, since float64 is slow on most devices.
    """
    dtype = np.dtype(dtype)
    return np.promote_types(dtype, np.float32) if dtype.kind == "f" else np.dtype(np.float32)


def check_generator_state(state: Mapping[str, Any]) -> tuple[int, int | None]:
    """Return (halves, left_over) of what `Backend.generator_state` returned.

    Raises
    ------
    ArgumentError
        If it is none.
    """
    if not isinstance(state, Mapping) or "halves" not in state:
        raise ArgumentError(f"the state of a generator must tell its halves, got {state!r}.")
    halves, left_over = whole_number("halves", state["halves"], least=0), state.get("left_over")
    if left_over is not None:
        whole_number("left_over", left_over, least=0)
    if halves >= 2**62 or (left_over or 0) >= 2**32:
        raise ArgumentError(f"the state of a generator is beyond its range: {state!r}.")
    return halves, left_over


def output_size(size: int, window: int, stride: int, pad: int) -> int:
    """Return how many windows fit along an axis: (size + 2 pad - window) // stride + 1."""
    return (size + 2 * pad - window) // stride + 1


def spread(window: int, dilation: int) -> int:
    """Return over how many pixels a window reaches, its numbers `dilation` apart."""
    return (window - 1) * dilation + 1


class Backend:
    """Arrays and primitives of one device; this class itself serves NumPy, plainly."""

    name = "generic"
    provider = "generic"  # by what name `providers` calls the code of this class
    compiles = False  # whether `compile_step` does anything
    xp: Any = np
    array_type: type = np.ndarray

    # ---- arrays -------------------------------------------------------------------------

    def owns(self, a: object) -> bool:
        """Tell whether `a` is an array of this backend."""
        return isinstance(a, self.array_type)

    def asarray(self, a: Any, dtype: Any = None) -> Array:
        """Return `a` (a host array, a list, a number, or an array already here) on this device.

        Raises
        ------
        BackendMismatchError
            If `a` lives on another device; bring it to the host first, with `to_numpy`.
        DTypeError
            If `a` does not hold numbers.
        """
        if not self.owns(a) or isinstance(a, np.ndarray):
            a = host_array(a)
        array: Array = self.xp.asarray(a, dtype=dtype)
        return array

    def to_numpy(self, a: Any) -> Array:
        """Return a host copy of `a`. On a GPU this waits for all work that `a` depends on."""
        return np.array(a)

    def item(self, a: Any) -> float:
        """Return the one number in `a` as a Python number. On a GPU this waits for it."""
        return self.to_numpy(a).item()

    def has_room_for(self, size: int) -> bool:
        """Tell whether `size` bytes of data can stay here and leave room to compute with."""
        return True

    def free_memory(self) -> int | None:
        """Return how many bytes new arrays can have, or None where the system does not say."""
        try:
            for line in Path("/proc/meminfo").read_text().splitlines():
                if line.startswith("MemAvailable:"):
                    return 1024 * int(line.split()[1])
        except OSError:
            pass  # another system than Linux
        return None

    def release(self) -> None:
        """Give memory that no array holds back to the device or the system."""

    def synchronize(self) -> None:
        """Wait until all work given to the device is done; a CPU has none outstanding."""

    def generator(self, seed: int | Sequence[int]) -> RandomGenerator:
        """Return a generator of random numbers on this device, started from `seed`.

        All devices draw the same numbers, those of NumPy's Philox generator (Salmon et al. 2011),
        of which each can be computed by itself.
        """
        return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))

    def reseed(self, generator: RandomGenerator, seed: int | Sequence[int]) -> None:
        """Start a generator of this backend anew from `seed`, in its place."""
        bits = self.generator(seed).bit_generator  # type: ignore[attr-defined]
        generator.bit_generator.state = bits.state  # type: ignore[attr-defined]

    def generator_state(self, generator: RandomGenerator) -> dict[str, int]:
        """Return where a generator of this backend is, as JSON can hold it.

        On a GPU this waits for the device. See `set_generator_state`.
        """
        state = generator.bit_generator.state  # type: ignore[attr-defined]
        blocks = sum(int(part) << 64 * i for i, part in enumerate(state["state"]["counter"]))
        drawn = 2 * (4 * (blocks - 1) + state["buffer_pos"])  # a block is four words of 64 bits
        if not state["has_uint32"]:
            return {"halves": drawn}
        return {"halves": drawn - 1, "left_over": state["uinteger"]}

    def set_generator_state(self, generator: RandomGenerator, state: Mapping[str, int]) -> None:
        """Let a generator of the same seed go on where `generator_state` found another to be.

        Parameters
        ----------
        state : mapping
            ``halves``: how many halves of 64-bit words were drawn; ``left_over``: the half that
            the next float32 will use, where a float64 has been drawn in between.

        Raises
        ------
        ArgumentError
            If that is no such state.
        """
        halves, left_over = check_generator_state(state)
        bits = generator.bit_generator  # type: ignore[attr-defined]
        words = halves // 2 if left_over is None else (halves + 1) // 2
        now = bits.state
        now["state"]["counter"][:] = [words // 4, 0, 0, 0]
        bits.state = {**now, "buffer_pos": 4, "has_uint32": 0}
        generator.random((words % 4,), np.dtype(np.float64))
        if left_over is not None:
            bits.state = {**bits.state, "has_uint32": 1, "uinteger": left_over}
        elif halves % 2:
            generator.random((1,), np.dtype(np.float32))

    def compile_step(self, step: Step, prepare: Callable[[], object] | None = None) -> Step:
        """Return a function that does what `step` does, with less work for the host.

        On a CPU that is `step` itself. On a GPU it is captured and replayed, see `CapturedStep`;
        `prepare` is called before, and may free memory.
        """
        return step

    def describe(self) -> dict[str, str]:
        """Return what a person wants to know of this device, as label -> text."""
        return {"NumPy": np.__version__}

    @classmethod
    def providers(cls, dtype: Any = "float32") -> dict[str, str]:
        """Return each primitive's name with the name of the backend whose code computes it.

        For arrays of `dtype`. On the backend ``numba``, convolution is "numba" for float32 and
        "numpy" for float64; a primitive that no backend overrides is "generic".
        """
        return {
            primitive: next(
                vars(kind).get("provider") or vars(kind)["name"]
                for kind in cls.__mro__
                if primitive in vars(kind)
            )
            for primitive in PRIMITIVES
        }

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

    # ---- windows ------------------------------------------------------------------------

    def pad(self, x: Array, pad: Pair, value: float = 0.0) -> Array:
        """Surround the last two axes of x (N, C, H, W) with `pad` rows and columns of `value`."""
        (ph, pw), (n, c, h, w) = pad, x.shape
        if ph == pw == 0:
            return x
        padded: Array = self.xp.full((n, c, h + 2 * ph, w + 2 * pw), value, dtype=x.dtype)
        padded[:, :, ph : ph + h, pw : pw + w] = x
        return padded

    def surround(self, x: Array, pads: Pads, value: float = 0.0) -> Array:
        """Put rows (above, below) and columns (left, right) of `value` around x (N, C, H, W).

        The result is in channels-last memory.
        """
        ((above, below), (left, right)), (n, c, h, w) = pads, x.shape
        wide: Array = self.xp.full(
            (n, above + h + below, left + w + right, c), value, dtype=x.dtype
        )
        wide = wide.transpose(0, 3, 1, 2)
        wide[:, :, above : above + h, left : left + w] = x
        return wide

    def windows(
        self,
        x: Array,
        size: Pair,
        stride: Pair,
        pad: Pair,
        value: float = 0.0,
        dilation: Pair = (1, 1),
    ) -> Array:
        """Return all windows of x (N, C, H, W), as a view (N, C, OH, OW, FH, FW).

        The numbers of a window are `dilation` rows and columns apart.
        """
        x = self.pad(x, pad, value)
        (n, c, h, w), (down, right), (dh, dw) = x.shape, stride, dilation
        counts = (
            output_size(h, spread(size[0], dh), down, 0),
            output_size(w, spread(size[1], dw), right, 0),
        )
        sn, sc, sh, sw = x.strides
        # Not sliding_window_view: CuPy's makes a GPU wait, twice a call.
        return self.xp.lib.stride_tricks.as_strided(
            x, (n, c, *counts, *size), (sn, sc, sh * down, sw * right, sh * dh, sw * dw)
        )

    def im2col(
        self, x: Array, size: Pair, stride: Pair, pad: Pair, dilation: Pair = (1, 1)
    ) -> Array:
        """Lay each window of x (N, C, H, W) out as a row: (N*OH*OW, C*FH*FW). Book, section 7.4.3.

        A window is a filter's field of view, so a convolution becomes one matrix product.
        """
        windows = self.windows(x, size, stride, pad, dilation=dilation)
        n, c, oh, ow, fh, fw = windows.shape
        return windows.transpose(0, 2, 3, 1, 4, 5).reshape(n * oh * ow, c * fh * fw)

    def col2im(
        self,
        col: Array,
        shape: Shape,
        size: Pair,
        stride: Pair,
        pad: Pair,
        dilation: Pair = (1, 1),
    ) -> Array:
        """Add the rows of `col` back to where `im2col` took them from: its adjoint.

        `shape` is that of the image, (N, C, H, W). A pixel seen by several windows gets the sum,
        which is taken in float32 at least.
        """
        (n, c, h, w), (fh, fw), (sh, sw), (ph, pw), (dh, dw) = shape, size, stride, pad, dilation
        oh = output_size(h, spread(fh, dh), sh, ph)
        ow = output_size(w, spread(fw, dw), sw, pw)
        parts = col.reshape(n, oh, ow, c, fh, fw).transpose(0, 3, 4, 5, 1, 2)
        wide = accumulation_dtype(col.dtype)
        image: Array = self.xp.zeros((n, c, h + 2 * ph, w + 2 * pw), dtype=wide)
        for i in range(fh):
            for j in range(fw):
                down = slice(i * dh, i * dh + sh * oh, sh)
                across = slice(j * dw, j * dw + sw * ow, sw)
                image[:, :, down, across] += parts[:, :, i, j]
        return image[:, :, ph : ph + h, pw : pw + w].astype(col.dtype, copy=False)

    # ---- convolution --------------------------------------------------------------------

    def convolution(
        self, x: Array, W: Array, b: Array | None, stride: Pair, pad: Pair, relu: bool = False
    ) -> Array:
        """Cross-correlate x (N, C, H, W) with filters W (FN, C, FH, FW), add b (FN,).

        y[n, f, i, j] = b[f] + sum over c, k, l of W[f, c, k, l] x[n, c, i*s + k - p, j*s + l - p]
        and, with `relu`, max(y, 0). Returns (N, FN, OH, OW).
        """
        (n, _, h, w), (fn, _, fh, fw) = x.shape, W.shape
        oh = output_size(h, fh, stride[0], pad[0])
        ow = output_size(w, fw, stride[1], pad[1])
        col = self.im2col(x, (fh, fw), stride, pad)
        y = self.matmul(col, W.reshape(fn, -1).T)
        self.add_bias(y, b, relu)
        return y.reshape(n, oh, ow, fn).transpose(0, 3, 1, 2)

    def convolution_backward(
        self,
        dout: Array,
        x: Array,
        W: Array,
        stride: Pair,
        pad: Pair,
        need_dx: bool = True,
        need_db: bool = True,
        y: Array | None = None,
        dW: Array | None = None,
        db: Array | None = None,
    ) -> tuple[Array | None, Array, Array | None]:
        """Return dx (N, C, H, W), dW (FN, C, FH, FW) and db (FN,) for dout (N, FN, OH, OW).

        `dx` is None where `need_dx` is false, as for a network's first layer, and `db` where
        `need_db` is. dW and db are in float32 at least, since they are sums over all windows.
        Arrays `dW` and `db`, if given, are written into, and returned.

        With y, what `convolution` gave with `relu`, dout is the gradient by that: it counts where
        y is positive.
        """
        if y is not None:
            dout = self.relu_backward(dout, y)
        fn, _, fh, fw = W.shape
        wide = accumulation_dtype(dout.dtype)
        rows = dout.transpose(0, 2, 3, 1).reshape(-1, fn)
        total = written(self.sum(rows, axis=0, dtype=wide), db) if need_db else None
        col = self.im2col(x, (fh, fw), stride, pad)
        dW = written(self.matmul(col.T, rows, dtype=wide).T.reshape(W.shape), dW)
        if not need_dx:
            return None, dW, total
        dcol = self.matmul(rows, W.reshape(fn, -1))
        return self.col2im(dcol, x.shape, (fh, fw), stride, pad), dW, total

    def grouped_convolution(
        self,
        x: Array,
        W: Array,
        b: Array | None,
        stride: Pair,
        pad: Pair,
        dilation: Pair,
        groups: int,
        relu: bool = False,
    ) -> Array:
        """Convolve each group of channels with filters of its own, whose numbers lie apart.

        x (N, C, H, W) has its channels in `groups` groups, and W (FN, C/groups, FH, FW) its
        filters; filter f sees group g = f // (FN/groups) alone, in steps of d, the dilation:
        y[n, f, i, j] = b[f] + sum over c, k, l of
        W[f, c, k, l] x[n, g C/groups + c, i*s + k*d - p, j*s + l*d - p]
        and, with `relu`, max(y, 0). Returns (N, FN, OH, OW).
        """
        (n, _, h, w), (fn, _, fh, fw) = x.shape, W.shape
        oh = output_size(h, spread(fh, dilation[0]), stride[0], pad[0])
        ow = output_size(w, spread(fw, dilation[1]), stride[1], pad[1])
        col = by_group(self.im2col(x, (fh, fw), stride, pad, dilation), groups)
        filters = W.reshape(groups, fn // groups, -1)
        y = self.matmul(col, filters.transpose(0, 2, 1)).transpose(1, 0, 2).reshape(-1, fn)
        self.add_bias(y, b, relu)
        return y.reshape(n, oh, ow, fn).transpose(0, 3, 1, 2)

    def grouped_convolution_backward(
        self,
        dout: Array,
        x: Array,
        W: Array,
        stride: Pair,
        pad: Pair,
        dilation: Pair,
        groups: int,
        need_dx: bool = True,
    ) -> tuple[Array | None, Array, Array]:
        """Return dx (N, C, H, W), dW (FN, C/groups, FH, FW) and db (FN,), as without groups."""
        fn, _, fh, fw = W.shape
        wide = accumulation_dtype(dout.dtype)
        rows = dout.transpose(0, 2, 3, 1).reshape(-1, fn)
        db = self.sum(rows, axis=0, dtype=wide)
        col = by_group(self.im2col(x, (fh, fw), stride, pad, dilation), groups)
        parts = by_group(rows, groups)
        dW = self.matmul(col.transpose(0, 2, 1), parts, dtype=wide)
        dW = dW.transpose(0, 2, 1).reshape(W.shape)
        if not need_dx:
            return None, dW, db
        dcol = self.matmul(parts, W.reshape(groups, fn // groups, -1))
        dcol = dcol.transpose(1, 0, 2).reshape(len(rows), -1)
        return self.col2im(dcol, x.shape, (fh, fw), stride, pad, dilation), dW, db

    # ---- pooling ------------------------------------------------------------------------

    def max_pooling(
        self, x: Array, size: Pair, stride: Pair, pad: Pair, train: bool = False
    ) -> tuple[Array, Any]:
        """Return the largest number of each window, (N, C, OH, OW), and who won.

        The padding counts as minus infinity. The second value is what `max_pooling_backward`
        wants to know of the winners; it is None unless `train`. Of equals the first wins; NaN
        wins over all.
        """
        windows = self.windows(x, size, stride, pad, -math.inf)
        windows = windows.reshape(*windows.shape[:4], size[0] * size[1])
        y = windows.max(axis=-1)
        return y, windows.argmax(axis=-1) if train else None

    def max_pooling_backward(
        self,
        dout: Array,
        winners: Any,
        shape: Shape,
        size: Pair,
        stride: Pair,
        pad: Pair,
        y: Array | None = None,
        total: Array | None = None,
    ) -> Array:
        """Send dout (N, C, OH, OW) to the winner of each window: dx of `shape` (N, C, H, W).

        Where x was the output of a ReLU, and y is what `max_pooling` gave for it, dx is the
        gradient by the input of the ReLU: dout counts where y, and so the winner, is positive. Then
        `total` (C,), if given, receives the sum of dx over all but the channels, which is the
        gradient of a bias that was added before the ReLU.
        """
        if y is not None:
            dout = self.relu_backward(dout, y, total)  # each window has one winner
        offsets = self.xp.arange(size[0] * size[1])
        parts = dout[..., None] * (winners[..., None] == offsets)
        col = parts.transpose(0, 2, 3, 1, 4).reshape(-1, shape[1] * size[0] * size[1])
        return self.col2im(col, shape, size, stride, pad)

    def average_pooling(self, x: Array, size: Pair, stride: Pair, pad: Pair) -> Array:
        """Return the mean of each window, (N, C, OH, OW); the padding counts as zeros."""
        windows = self.windows(x, size, stride, pad)
        mean: Array = windows.mean(axis=(4, 5), dtype=accumulation_dtype(x.dtype))
        return mean.astype(x.dtype, copy=False)

    def average_pooling_backward(
        self, dout: Array, shape: Shape, size: Pair, stride: Pair, pad: Pair
    ) -> Array:
        """Share dout (N, C, OH, OW) evenly among its window: dx of `shape` (N, C, H, W)."""
        area = size[0] * size[1]
        n, c, oh, ow = dout.shape
        wide = accumulation_dtype(dout.dtype)
        share = dout.transpose(0, 2, 3, 1)[..., None].astype(wide, copy=False) / area
        col = self.xp.broadcast_to(share, (n, oh, ow, c, area)).reshape(n * oh * ow, c * area)
        return self.col2im(col, shape, size, stride, pad).astype(dout.dtype, copy=False)

    # ---- normalisation ------------------------------------------------------------------
    # A feature is a column of x (N, C) or a channel of x (N, C, H, W): M numbers each, over all
    # other axes. What there is one of for each feature is (C,), in float32 at least.

    def moments(self, x: Array) -> tuple[Array, Array]:
        """Return mean = sum x / M and variance = sum (x - mean)^2 / M of each feature of x."""
        axes = _others(x)
        wide = x.astype(accumulation_dtype(x.dtype), copy=False)
        mean = wide.mean(axis=axes)
        centred = wide - _along(mean, x)
        return mean, (centred * centred).mean(axis=axes)

    def normalize(self, x: Array, mean: Array, factor: Array, shift: Array) -> Array:
        """Return factor (x - mean) + shift, in the type and memory order of x."""
        wide = x.astype(accumulation_dtype(x.dtype), copy=False)
        scaled = _along(factor, x) * (wide - _along(mean, x))
        y = self.xp.empty_like(x)
        return self.xp.add(scaled, _along(shift, x), out=y, casting="same_kind")

    def normalize_backward(
        self, dout: Array, x: Array, mean: Array, inverse_std: Array, gamma: Array
    ) -> tuple[Array, Array, Array]:
        """Return dx, dgamma and dbeta of y = gamma xn + beta, with xn = inverse_std (x - mean).

        dx = gamma inverse_std (dout - dbeta / M - xn dgamma / M), since mean and inverse_std are
        those of x itself; dgamma = sum dout xn; dbeta = sum dout. dx is in the type and memory
        order of dout. Ioffe and Szegedy 2015.
        """
        axes, count = _others(x), x.size // x.shape[1]
        wide, wide_x = (a.astype(accumulation_dtype(x.dtype), copy=False) for a in (dout, x))
        xn = _along(inverse_std, x) * (wide_x - _along(mean, x))
        dgamma, dbeta = (wide * xn).sum(axis=axes), wide.sum(axis=axes)
        centred = wide - _along(dbeta / count, x) - xn * _along(dgamma / count, x)
        factor, dx = _along(inverse_std * gamma, x), self.xp.empty_like(dout)
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
            self.sum(dx, axis=_others(dx), out=total)
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

    def dropout_mask(self, generator: RandomGenerator, like: Array, ratio: float) -> Array:
        """Return zeros, with probability `ratio`, and ones, in the shape and order of `like`.

        The numbers are drawn in float32, in the logical order of the axes.
        """
        mask: Array = self.xp.empty_like(like)
        mask[...] = generator.random(like.shape, dtype=np.float32) >= ratio
        return mask

    def dropout(
        self, generator: RandomGenerator, x: Array, ratio: float, scale: float
    ) -> tuple[Array, Array]:
        """Return x times a mask, and the mask: 0 with probability `ratio`, else `scale`.

        Both are in the memory order of x.
        """
        mask = self.dropout_mask(generator, x, ratio)
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

    # ---- update rules -------------------------------------------------------------------

    def update_rule(
        self,
        name: str,
        rule: Callable[..., None],
        options: Mapping[str, Any],
        arrays: Sequence[Array],
        numbers: Sequence[Number],
        go: Array | None = None,
        copy: Array | None = None,
    ) -> None:
        """Update parameters in place by a rule of `xpdl.optimizers`, where its formula stands.

        A device may do a rule that it knows by `name` in one pass of its own.

        Parameters
        ----------
        name : str
            Such as "adam"; empty for a rule that no device knows.
        rule : callable
            The rule's arithmetic: takes the arrays, then the numbers.
        options : dict
            What it was made with, such as beta1.
        arrays : sequence of array, of one shape
            The parameters, their gradient, and the rule's memory; all but the gradient change.
        numbers : sequence of number
            The learning rate, and for some rules how many updates were made with this one. Each
            may be an array (), of the type of the parameters, that lives on the device.
        go : array, (), bool, optional
            On the device: where it is false nothing changes. The host need not know.
        copy : array, optional
            Receives the parameters as they are afterwards, in its own type.
        """
        p, _, *memory = arrays
        before = [] if go is None else [a.copy() for a in (p, *memory)]
        rule(*arrays, *numbers)
        if go is not None:
            for a, kept in zip((p, *memory), before, strict=True):
                a[...] = self.xp.where(go, a, kept)
        if copy is not None:
            copy[...] = p.astype(copy.dtype)


def written(value: Array, place: Array | None) -> Array:
    """Return `place` with `value` written into it; without a place, the value itself."""
    if place is None:
        return value
    place[...] = value
    return place


def _others(x: Array) -> tuple[int, ...]:
    """Return all axes but that of the features."""
    return (0, *range(2, x.ndim))


def _along(features: Array, x: Array) -> Array:
    """Shape `features` (C,) so that it lies along axis 1 of x."""
    return features.reshape(-1, *(1,) * (x.ndim - 2))


def by_group(rows: Array, groups: int) -> Array:
    """Return a view (groups, R, K/groups) of rows (R, K)."""
    return rows.reshape(len(rows), groups, rows.shape[1] // groups).transpose(1, 0, 2)


def host_array(a: Any) -> Array:
    """Return `a` as a NumPy array, if it is on the host and holds numbers."""
    if isinstance(a, np.ndarray):
        array: Array = a
    elif hasattr(a, "__cuda_array_interface__") or hasattr(a, "__xpdl_device__"):
        raise BackendMismatchError(
            f"an array of type {type(a).__module__}.{type(a).__name__} lives on another device; "
            "bring it to the host with xpdl.to_numpy(a) first."
        )
    else:
        try:
            array = np.asarray(a)
        except ValueError as error:
            raise ShapeError(f"an array must be rectangular, got {shown(a)}.") from error
    if array.dtype.kind not in "biuf":
        raise DTypeError(
            f"an array must hold numbers, got dtype {array.dtype}; "
            "give integers, floats or booleans."
        )
    return array
