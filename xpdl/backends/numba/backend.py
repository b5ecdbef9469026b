"""NumPy's arrays, with convolution, pooling, normalisation, ReLU and Adam compiled by Numba.

For float32. What is given in another type, or not in one piece of memory, takes the way of the
backend ``numpy``, as do the primitives that are not overridden here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, TypeAlias

import numpy as np

from xpdl.backends.base import Array, Number, Pair, Shape, output_size, written
from xpdl.backends.numpy.backend import NumpyBackend, by_feature, lies_in_pixels, pixel_lines
from xpdl.backends.numpy.memory import pool
from xpdl.backends.numpy.threads import hold_while_forking, thread_count, workers
from xpdl.errors import BackendUnavailableError

try:
    from numba.core.compiler_lock import global_compiler_lock

    from xpdl.backends.numba import depthwise, response
    from xpdl.backends.numba import kernels as kernels
    from xpdl.backends.numba.vectors import LANES, ROWS
except ImportError as error:
    raise BackendUnavailableError(
        f"the backend 'numba' needs Numba ({error}): pip install 'xpdl[numba]'."
    ) from error

TASKS = 32
"""Into how many parts a batch is cut: the same for any number of threads, so sums are the same."""

SUMS_BYTES = 32 * 1024 * 1024
"""Parts that each need a sum of their own may take so much memory for them, all together."""

ENOUGH = 1_000_000
"""A part is worth a thread's waking if it multiplies so often, or reads so many bytes."""

FEW_BYTES = 128 * 1024
"""Of so little, NumPy is done before the lines are laid out that normalisation wants."""

_PANEL = 2 * LANES

hold_while_forking(global_compiler_lock)

Shares: TypeAlias = tuple[Array, Array, Array, int]
"""A bell, the bounds of the parts, counters, and the thread's number: see `kernels`."""


class NumbaBackend(NumpyBackend):
    """Overrides of NumPy's primitives with compiled loops."""

    name = "numba"

    def describe(self) -> dict[str, str]:
        import numba

        return super().describe() | {
            "Numba": numba.__version__,
            "vector width": f"{LANES} float32",
        }

    @classmethod
    def providers(cls, dtype: Any = "float32") -> dict[str, str]:
        # Half precision is computed in single, whose convolution and max pooling are ours; the rest
        # is NumPy's.
        ours = super().providers(dtype)
        if np.dtype(dtype) == np.float32:
            return ours
        plain = NumpyBackend.providers(dtype)
        if np.dtype(dtype) == np.float16:
            widened = ("convolution", "grouped_convolution", "max_pooling")
            return plain | {name: ours[name] for name in ours if name.startswith(widened)}
        return plain

    def convolution(
        self, x: Array, W: Array, b: Array | None, stride: Pair, pad: Pair, relu: bool = False
    ) -> Array:
        if not _all_single(x, W, b):
            return super().convolution(x, W, b, stride, pad, relu)
        (n, c, h, w), (fn, _, fh, fw) = x.shape, W.shape
        oh, ow = output_size(h, fh, stride[0], pad[0]), output_size(w, fw, stride[1], pad[1])
        image = _flat_images(x)
        rows, columns = _places(h, w, c, (fh, fw), stride, pad)
        targets = _lines(oh * ow, fn)
        filters = _panels(W.transpose(1, 0, 2, 3))
        biases = np.zeros(-(-fn // _PANEL) * _PANEL, np.float32)
        if b is not None:
            biases[:fn] = b
        y = pool.empty((n, oh, ow, fn), np.float32)
        flat = y.reshape(-1)

        def work(shares: Shares) -> None:
            kernels.multiply_windows(
                *(image, (h, w, c), pad, rows, columns, filters, biases, fn, relu),
                *(flat, oh * ow * fn, targets, shares, 0),
            )

        _share(_bounds(n, len(rows) * len(columns) * fn), work)
        return y.transpose(0, 3, 1, 2)

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
        if not _all_single(dout, x, W):
            return super().convolution_backward(
                dout, x, W, stride, pad, need_dx, need_db, y, dW, db
            )
        if y is not None:
            dout = self.relu_backward(dout, y)
        (n, c, h, w), (fn, _, fh, fw), (oh, ow) = x.shape, W.shape, dout.shape[2:]
        image, gradient = _flat_images(x), _flat_images(dout)
        rows, columns = _places(h, w, c, (fh, fw), stride, pad)
        width, line = fh * fw * c, -(-fn // LANES) * LANES
        columns = _whole_tiles(columns)
        targets = _lines(len(columns), line)
        border, phases = _phases((h, w), (oh, ow), c, fn, (fh, fw), stride, pad)
        filters = [_panels(W[:, :, down, across]) for *_, down, across in phases] if need_dx else []
        dx = pool.empty((n, h, w, c) if need_dx else (0,), np.float32)
        flat, no_biases = dx.reshape(-1), np.zeros(-(-c // _PANEL) * _PANEL, np.float32)
        size = len(columns) * line
        most = max(2, min(16, SUMS_BYTES // (4 * size)))
        bounds = _bounds(n, len(rows) * width * fn, most)
        filter_sums = pool.empty((len(bounds) - 1, size), np.float32)
        bias_sums = np.empty((len(bounds) - 1, fn), np.float32)

        def work(shares: Shares) -> None:
            for k, packed in enumerate(filters):
                there, taps, pixels, *_ = phases[k]
                kernels.multiply_windows(
                    *(gradient, (oh, ow, fn), border, there, taps, packed, no_biases, c, False),
                    *(flat, h * w * c, pixels, shares, k + 1),
                )
            kernels.sum_windows(
                *(image, (h, w, c), pad, rows, columns, gradient, fn),
                *(filter_sums, bias_sums, targets, shares, 0),
            )

        _share(bounds, work, 1 + len(filters))
        sums = filter_sums.sum(axis=0).reshape(len(columns), line)[:width, :fn]
        return (
            dx.transpose(0, 3, 1, 2) if need_dx else None,
            written(sums.reshape(fh, fw, c, fn).transpose(3, 2, 0, 1), dW),
            written(bias_sums.sum(axis=0), db) if need_db else None,
        )

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
        if W.shape[:2] == (groups, 1) and _all_single(x, W, b):
            return depthwise.convolution(x, W, b, stride, pad, dilation, relu)
        return super().grouped_convolution(x, W, b, stride, pad, dilation, groups, relu)

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
        if W.shape[:2] == (groups, 1) and _all_single(dout, x, W):
            return depthwise.backward(dout, x, W, stride, pad, dilation, need_dx)
        return super().grouped_convolution_backward(
            dout, x, W, stride, pad, dilation, groups, need_dx
        )

    def max_pooling(
        self, x: Array, size: Pair, stride: Pair, pad: Pair, train: bool = False
    ) -> tuple[Array, Any]:
        if not _all_single(x):
            return super().max_pooling(x, size, stride, pad, train)
        n, c, h, w = x.shape
        oh, ow = (output_size(*axis) for axis in zip((h, w), size, stride, pad, strict=True))
        image = _flat_images(x)
        y = pool.empty((n, oh, ow, c), np.float32)
        winners = pool.empty((y.size,), np.uint8 if size[0] * size[1] <= 256 else np.uint32)
        flat = y.reshape(-1)

        def work(shares: Shares) -> None:
            kernels.max_pool(
                *(image, (h, w, c), size, stride, pad, (oh, ow), flat, winners, shares, 0)
            )

        _share(_bounds(n, 4 * h * w * c), work)
        return y.transpose(0, 3, 1, 2), winners if train else None

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
        if dout.dtype == np.float16 or not isinstance(winners, np.ndarray):
            return super().max_pooling_backward(dout, winners, shape, size, stride, pad, y, total)
        if y is not None:
            dout = self.relu_backward(dout, y, total)
        (n, c, h, w), counts = shape, dout.shape[2:]
        gradient = _flat_images(dout.astype(np.float32, copy=False))
        dx = pool.empty((n, h, w, c), np.float32)
        flat = dx.reshape(-1)

        def work(shares: Shares) -> None:
            kernels.max_pool_backward(
                *(gradient, winners, (h, w, c), size, stride, pad, counts, flat, shares, 0)
            )

        _share(_bounds(n, 4 * h * w * c), work)
        return dx.transpose(0, 3, 1, 2)

    def moments(self, x: Array) -> tuple[Array, Array]:
        if not _in_lines(x):
            return super().moments(x)
        (flat, width), c = _flat_lines(x), x.shape[1]
        pivot = np.tile(flat[:c].astype(np.float64), width // c)
        bounds = _bounds(len(flat) // width, 8 * width)  # as many bytes as it makes of them
        sums, squares = np.empty((2, len(bounds) - 1, width))

        def work(shares: Shares) -> None:
            kernels.sum_moments(flat, pivot, sums, squares, shares, 0)

        _share(bounds, work)
        mean, square = (by_feature(a, c) / (len(flat) // c) for a in (sums, squares))
        variance = np.maximum(square - mean * mean, 0)
        return (pivot[:c] + mean).astype(np.float32), variance.astype(np.float32)

    def normalize(self, x: Array, mean: Array, factor: Array, shift: Array) -> Array:
        if not (_in_lines(x) and _all_single(mean, factor, shift)):
            return super().normalize(x, mean, factor, shift)
        y = pool.empty_like(x)
        (flat, width), (flat_y, _) = _flat_lines(x), _flat_lines(y)
        mean, factor, shift = (np.tile(a, width // len(a)) for a in (mean, factor, shift))

        def work(shares: Shares) -> None:
            kernels.normalize(flat, mean, factor, shift, flat_y, shares, 0)

        _share(_bounds(len(flat) // width, 2 * 4 * width), work)
        return y

    def normalize_backward(
        self, dout: Array, x: Array, mean: Array, inverse_std: Array, gamma: Array
    ) -> tuple[Array, Array, Array]:
        if not (_in_lines(x, dout) and _all_single(mean, inverse_std, gamma)):
            return super().normalize_backward(dout, x, mean, inverse_std, gamma)
        (flat, width), (gradient, _), c = _flat_lines(x), _flat_lines(dout), len(mean)
        means, factors = (np.tile(a, width // c) for a in (mean, inverse_std * gamma))
        bounds = _bounds(len(flat) // width, 2 * 4 * width)
        sums, products = np.empty((2, len(bounds) - 1, width))

        def work(shares: Shares) -> None:
            kernels.sum_gradients(gradient, flat, means, sums, products, shares, 0)

        _share(bounds, work)
        dbeta, dgamma = by_feature(sums, c), by_feature(products, c) * inverse_std
        level, slope = (
            np.tile((a / (len(flat) // c)).astype(np.float32), width // c)
            for a in (dbeta, dgamma * inverse_std)
        )
        dx = pool.empty_like(dout)
        flat_dx, _ = _flat_lines(dx)

        def finish(shares: Shares) -> None:
            kernels.normalize_backward(
                *(gradient, flat, means, factors, level, slope, flat_dx, shares, 0)
            )

        _share(bounds, finish)
        return dx, dgamma.astype(np.float32), dbeta.astype(np.float32)

    def normalize_response(
        self, x: Array, size: int, bias: float, alpha: float, beta: float
    ) -> tuple[Array, Array]:
        if not (_all_single(x) and lies_in_pixels(x)):
            return super().normalize_response(x, size, bias, alpha, beta)
        return response.normalize(x, size, bias, alpha, beta)

    def normalize_response_backward(
        self, dout: Array, x: Array, s: Array, size: int, alpha: float, beta: float
    ) -> Array:
        if not (_all_single(dout, x, s) and lies_in_pixels(dout, x, s)):
            return super().normalize_response_backward(dout, x, s, size, alpha, beta)
        return response.backward(dout, x, s, size, alpha, beta)

    def relu(self, x: Array) -> Array:
        y = pool.empty_like(x)
        return y if _each_element(kernels.relu, x, y) else super().relu(x)

    def relu_backward(self, dout: Array, y: Array, total: Array | None = None) -> Array:
        dx = pool.empty_like(dout)
        if not _each_element(kernels.relu_backward, dout, y, dx):
            return super().relu_backward(dout, y, total)
        if total is not None:
            self.sum(dx, axis=(0, *range(2, dx.ndim)), out=total)
        return dx

    def relu6(self, x: Array) -> Array:
        y = pool.empty_like(x)
        return y if _each_element(kernels.relu6, x, y) else super().relu6(x)

    def relu6_backward(self, dout: Array, y: Array) -> Array:
        dx = pool.empty_like(dout)
        if _each_element(kernels.relu6_backward, dout, y, dx):
            return dx
        return super().relu6_backward(dout, y)

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
        if name == "adam":
            rule = partial(_adam, rule, options)
        super().update_rule(name, rule, options, arrays, numbers, go, copy)


def _adam(
    plain: Callable[..., None],
    options: Mapping[str, Any],
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    rate: Number,
    count: Number,
) -> None:
    """Do Adam in one pass, or else the plain way; see there for what it computes."""
    beta1, beta2 = options["beta1"], options["beta2"]
    correction1, correction2 = 1 - beta1**count, (1 - beta2**count) ** 0.5
    numbers = (rate / correction1, beta1, 1 - beta1, beta2, 1 - beta2, correction2)
    scalars = np.array((*numbers, options["epsilon"]), np.float32)
    if not _each_element(kernels.adam, p, g, m, v, scalars=(scalars,)):
        plain(p, g, m, v, rate, count)


def _all_single(*arrays: Array | None) -> bool:
    return all(a is None or a.dtype == np.float32 for a in arrays)


def _bounds(count: int, cost: int, most: int = TASKS) -> Array:
    """Cut range(count), each of so many multiplications or bytes, into parts of equal size."""
    parts = max(1, min(count, most, TASKS, count * cost // ENOUGH))
    return np.arange(parts + 1) * count // parts


def _share(bounds: Array, work: Callable[[Shares], None], counters: int = 1) -> None:
    """Let threads call ``work(shares)`` side by side, which does all parts that are left."""
    taken = np.zeros(3 * counters, np.int64)
    threads = min(thread_count(), len(bounds) - 1)
    shares = [(workers.bell, bounds, taken, thread) for thread in range(threads)]
    workers.each(shares, work, kernels.watch)


def _flat_images(x: Array) -> Array:
    """Return x (N, C, H, W) as one row in the order N, H, W, C; a copy only if it must be."""
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    # A read-only array is another type to Numba, and would be compiled for once more.
    return (last if last.flags.writeable else last.copy()).reshape(-1)


def _in_lines(*arrays: Array) -> bool:
    """Tell whether arrays are to be normalised here: alike, single, large, and pixel by pixel."""
    alike = len({a.shape for a in arrays}) == 1 and _all_single(*arrays)
    return alike and arrays[0].nbytes >= FEW_BYTES and lies_in_pixels(*arrays)


def _flat_lines(x: Array) -> tuple[Array, int]:
    """Return x as `pixel_lines` does, but in one row, and how long a line is."""
    lines = pixel_lines(x)
    return (lines if lines.flags.writeable else lines.copy()).reshape(-1), lines.shape[1]


def _each_element(
    kernel: Callable[..., None], *arrays: Array, scalars: tuple[Array, ...] = ()
) -> bool:
    """Run an element-wise kernel over the arrays' memory; False if their memory does not agree."""
    if not _all_single(*arrays):
        return False
    if arrays[0].ndim == 4:
        arrays = tuple(a.transpose(0, 2, 3, 1) for a in arrays)
    if len({a.shape for a in arrays}) > 1 or not all(a.flags.c_contiguous for a in arrays):
        return False
    flat = [a.reshape(-1) for a in arrays]
    _share(
        _bounds(len(flat[0]), 4 * len(flat)),
        lambda shares: kernel(*flat, *scalars, shares, 0),
    )
    return True


def _panels(filters: Array) -> Array:
    """Return filters (C, FN, FH, FW), in any memory, as `kernels.panels` lays them out."""
    c, fn, fh, fw = filters.shape
    packed = np.empty(fh * fw * c * -(-fn // LANES) * LANES, np.float32)
    kernels.panels(filters, packed)
    return packed


@lru_cache(maxsize=512)
def _lines(count: int, width: int) -> Array:
    """Return where each of `count` lines begins."""
    return np.arange(count) * width


def _whole_tiles(places: Array) -> Array:
    """Return places with the first repeated at the end, up to a multiple of a tile's rows."""
    return np.concatenate([places, np.full(-len(places) % ROWS, places[0])])


@lru_cache(maxsize=512)
def _places(h: int, w: int, c: int, size: Pair, stride: Pair, pad: Pair) -> tuple[Array, Array]:
    """Return where windows begin in a padded image (H, W, C), and where their numbers lie."""
    oh, ow = (output_size(*axis) for axis in zip((h, w), size, stride, pad, strict=True))
    wide = w + 2 * pad[1]
    down, right = np.arange(oh) * stride[0], np.arange(ow) * stride[1]
    rows = (down[:, None] * wide + right) * c
    places = (np.arange(size[0])[:, None] * wide + np.arange(size[1])) * c
    return rows.reshape(-1), (places[..., None] + np.arange(c)).reshape(-1)


@lru_cache(maxsize=512)
def _phases(
    image: Pair, counts: Pair, c: int, fn: int, size: Pair, stride: Pair, pad: Pair
) -> tuple[Pair, list[tuple[Array, Array, Array, slice, slice]]]:
    """Return how to gather dx (H, W, C) from the gradient (OH, OW, FN), without adding back.

    A pixel y was seen by window i through tap u where y + pad = i stride + u. So pixels with equal
    (y + pad) mod stride, a phase, share their taps, and their windows are i0, i0 - 1, ...

    Returns
    -------
    border : (int, int)
        Zeros that the gradient wants around it.
    phases : list of (rows, columns, targets, taps down, taps across)
        The first three for `multiply_windows`; the last two say which filters' numbers.
    """
    axes = []
    for extent, out, f, s, p in zip(image, counts, size, stride, pad, strict=True):
        axis = []
        for phase in range(min(s, extent)):
            pixels = np.array([y for y in range(extent) if (y + p) % s == (phase + p) % s])
            axis.append((pixels, (pixels + p) // s, slice((phase + p) % s, f, s)))
        before = max(len(range(f)[taps]) - 1 - int(windows[0]) for _, windows, taps in axis)
        after = max(int(windows[-1]) - (out - 1) for _, windows, _ in axis)
        axes.append((axis, max(0, before, after)))
    (vertical, top), (horizontal, left) = axes
    wide = counts[1] + 2 * left
    phases: list[tuple[Any, Any, Any, slice, slice]] = []
    for ys, i, u in vertical:
        for xs, j, v in horizontal:
            rows = ((i[:, None] + top) * wide + j + left) * fn
            steps = (np.arange(len(range(f)[taps])) for f, taps in zip(size, (u, v), strict=True))
            back = -(next(steps)[:, None] * wide + next(steps)) * fn
            columns = back[..., None] + np.arange(fn)
            targets = (ys[:, None] * image[1] + xs) * c
            phases.append((rows.reshape(-1), columns.reshape(-1), targets.reshape(-1), u, v))
    return (top, left), phases
