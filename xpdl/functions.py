"""Stateless functions on arrays of any backend, by the book's names."""

from __future__ import annotations

from typing import Any

from xpdl.arguments import LARGEST, real_array, real_dtype, sizes, whole_number
from xpdl.backends import Array, Pads, Pair, accumulation_dtype, array_module, backend_of
from xpdl.errors import ArgumentError, DTypeError, ShapeError


def identity_function(x: Array) -> Array:
    """Return x."""
    return x


def step_function(x: Array) -> Array:
    """Return 1 where x > 0 and 0 elsewhere, in the type of x. Book, equation 3.3."""
    return (real_array("x", x) > 0).astype(x.dtype)


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)), without overflow at either end. Book, equation 3.6.

    For negative x it is computed as exp(x) / (1 + exp(x)), the same number. Integers give float32.
    """
    x = _floats(x)
    xp = array_module(x)
    e = xp.exp(-xp.abs(x))  # never above 1
    return xp.where(x >= 0, 1 / (1 + e), e / (1 + e))


def tanh(x: Array) -> Array:
    """Return the hyperbolic tangent of x. Integers give float32."""
    x = _floats(x)
    return array_module(x).tanh(x)


def relu(x: Array) -> Array:
    """Return max(x, 0), of floats or integers, in the type of x. Book, equation 3.7."""
    x = real_array("x", x, "iuf")
    return backend_of(x).relu(x)


def log_softmax(x: Array) -> Array:
    """Return log softmax(x) along the last axis, in float32 at least.

    log y_k = x_k - m - log sum_i exp(x_i - m), m = max x, which cannot overflow.
    """
    x = real_array("x", x)
    if not x.ndim or not x.shape[-1]:
        raise ShapeError(f"x must be scores (..., K), K of them at least 1, got shape {x.shape}.")
    return backend_of(x).log_softmax(x)


def softmax(x: Array) -> Array:
    """Return exp(x_k) / sum_i exp(x_i) along the last axis, in the type of x. Book, 3.10, 3.11.

    Integers give float32. Computed in float32 at least, with the maximum taken off first so that
    nothing overflows.
    """
    log_y = log_softmax(x)
    y = array_module(x).exp(log_y)
    return y.astype(x.dtype, copy=False) if x.dtype.kind == "f" else y


def sum_squared_error(y: Array, t: Array) -> Array:
    """Return half the sum of (y - t)^2 over a sample, averaged over a batch. Book, equation 4.1.

    Parameters
    ----------
    y, t : array, (K,) or (N, K)
        Output and target of one sample or of N.

    Returns
    -------
    array, ()
        In float32 at least.
    """
    real_array("y", y), real_array("t", t)
    _expect_samples(y)
    if y.shape != t.shape:
        raise ShapeError(f"t must have the shape of y, {y.shape}; got {t.shape}.")
    backend_of(y, t)
    wide = accumulation_dtype(y.dtype)
    difference = y.astype(wide, copy=False) - t.astype(wide, copy=False)
    samples = 1 if y.ndim == 1 else len(y)
    return 0.5 * (difference * difference).sum() / samples


def cross_entropy_error(y: Array, t: Array) -> Array:
    """Return -sum_k t_k log(y_k + 1e-7), averaged over a batch. Book, equations 4.2 and 4.3.

    Parameters
    ----------
    y : array, (K,) or (N, K)
        Probabilities of one sample or of N.
    t : array
        One-hot targets in the shape of y, or integer class numbers, () or (N,); one that does not
        exist makes the loss NaN.

    Returns
    -------
    array, ()
        In float32 at least.
    """
    real_array("y", y), real_array("t", t)
    _expect_samples(y)
    one_hot = t.shape == y.shape
    y = y.astype(accumulation_dtype(y.dtype), copy=False).reshape(-1, y.shape[-1])
    in_columns = t.ndim == 2 and t.shape[1] == 1
    t = t.reshape(y.shape) if one_hot else t.reshape(-1) if t.ndim < 2 or in_columns else t
    check_targets(t, y.shape)
    backend = backend_of(y, t)
    return backend.mean_cross_entropy(backend.xp.log(y + 1e-7), t)


def one_hot(t: Array, classes: int, dtype: Any = "float32") -> Array:
    """Return (N, classes): 1 in the column of the class number t (N,), 0 in the others.

    The row of a number that is no class is 0 everywhere.

    Raises
    ------
    DTypeError, ShapeError, ArgumentError
        If t does not hold integers (N,), or `classes` is no number of classes.
    """
    real_array("t", t, "iu")
    if t.ndim != 1:
        raise ShapeError(f"t must be class numbers (N,), got shape {t.shape}.")
    whole_number("classes", classes, most=LARGEST)
    wanted = real_dtype("dtype", dtype)
    return backend_of(t).distribution(t, classes, wanted)


def check_targets(t: Array, scores_shape: tuple[int, ...]) -> None:
    """See that t is integer class numbers or one-hot, for scores (N, K), (N, T, K), (N, K, H, W).

    Class numbers have no axis of the classes, one-hot targets the shape of the scores. Looks at
    shape and type only, which costs a device nothing; `check_labels` and `check_distributions`
    look at values.

    Raises
    ------
    ShapeError, DTypeError
        If it is neither.
    """
    if t.shape == scores_shape:
        return
    n, *rest = scores_shape
    labels = (n, *(rest[1:] if len(rest) == 3 else rest[:-1]))
    if t.shape != labels:
        raise ShapeError(
            f"t must be class numbers of shape {labels} or one-hot of shape {scores_shape}; "
            f"got shape {t.shape}."
        )
    if t.dtype.kind not in "iu":
        raise DTypeError(f"t must hold integer class numbers, got dtype {t.dtype}.")


def check_labels(t: Array, classes: int, ignored: int | None = None) -> None:
    """See that every class number in the host array t is in 0 .. classes - 1, or `ignored`.

    Raises
    ------
    ArgumentError
        If one is not; the message gives the first and where it is.
    """
    wrong = (t < 0) | (t >= classes)
    if ignored is not None:
        wrong &= t != ignored
    bad = wrong.reshape(-1).nonzero()[0]
    if len(bad):
        first = int(bad[0])
        place = [str(int(axis[0])) for axis in wrong.nonzero()]
        where = place[0] if t.ndim == 1 else f"({', '.join(place)})"
        raise ArgumentError(
            f"t must hold class numbers 0 to {classes - 1}, got {t.reshape(-1)[first]} at index "
            f"{where} ({len(bad)} of {t.size} are out of range)."
        )


def check_distributions(t: Array, axis: int) -> None:
    """See that the host array t holds one-hot targets, or probabilities, along an axis.

    None is below 0, and they sum to 1, to a hundredth, as rounded ones do.

    Raises
    ------
    ArgumentError
        If they are not; the message gives the first example that is none.
    """
    sums = t.sum(axis=axis, dtype=accumulation_dtype(t.dtype))
    wrong = ~((abs(sums - 1) < 0.015) & (t >= 0).all(axis=axis))
    bad = wrong.reshape(len(t), -1).any(axis=1).nonzero()[0]
    if len(bad):
        first = int(bad[0])
        total = sums[first].reshape(-1)[wrong[first].reshape(-1).argmax()]
        what = "holds a number below 0" if (t[first] < 0).any() else f"sums to {total:g}"
        raise ArgumentError(
            f"t must be one-hot or probabilities that sum to 1; example {first} {what} "
            f"({len(bad)} of {len(t)} do not fit). Give class numbers, or divide by the sums; "
            "where several labels may be right at once, SigmoidWithLoss() is the loss."
        )


def im2col(x: Array, filter_h: int, filter_w: int, stride: int = 1, pad: int = 0) -> Array:
    """Lay each window of x (N, C, H, W) out as a row: (N*OH*OW, C*filter_h*filter_w).

    Book, section 7.4.3. See `Backend.im2col`.

    Raises
    ------
    ShapeError
        If x is not 4-D, or the windows do not fit it evenly.
    """
    real_array("x", x)
    if x.ndim != 4:
        raise ShapeError(f"x must be (N, C, H, W), got shape {x.shape}.")
    size, strides, pads = _window(filter_h, filter_w, stride, pad)
    window_counts(x.shape[2:], size, strides, pads)
    return backend_of(x).im2col(x, size, strides, pads)


def col2im(
    col: Array,
    input_shape: tuple[int, int, int, int],
    filter_h: int,
    filter_w: int,
    stride: int = 1,
    pad: int = 0,
) -> Array:
    """Add the rows that `im2col` made back into an image of `input_shape` (N, C, H, W)."""
    real_array("col", col)
    size, strides, pads = _window(filter_h, filter_w, stride, pad)
    shape = sizes("input_shape", input_shape)
    if len(shape) != 4:
        raise ShapeError(f"input_shape must be (N, C, H, W), got {shape}.")
    n, c, *image = shape
    oh, ow = window_counts(tuple(image), size, strides, pads)
    if col.shape != (n * oh * ow, c * filter_h * filter_w):
        raise ShapeError(
            f"col must be ({n * oh * ow}, {c * filter_h * filter_w}) for an image of shape "
            f"{shape}, got {col.shape}."
        )
    return backend_of(col).col2im(col, shape, size, strides, pads)


def _floats(x: Array) -> Array:
    """Return x, or integers as float32."""
    return x if real_array("x", x).dtype.kind == "f" else x.astype(accumulation_dtype(x.dtype))


def _expect_samples(y: Array) -> None:
    if y.ndim not in (1, 2) or not y.size:
        raise ShapeError(f"y must be (K,) or (N, K), and not empty; got shape {y.shape}.")


def _window(filter_h: int, filter_w: int, stride: int, pad: int) -> tuple[Pair, Pair, Pair]:
    """Return a window's size, and its strides and paddings, each down and across."""
    size = (
        whole_number("filter_h", filter_h, most=LARGEST),
        whole_number("filter_w", filter_w, most=LARGEST),
    )
    stride = whole_number("stride", stride, most=LARGEST)
    pad = whole_number("pad", pad, least=0, most=LARGEST)
    return size, (stride, stride), (pad, pad)


def window_counts(
    image: tuple[int, ...], size: Pair, stride: Pair, pad: Pair | Pads, remainder: str = "error"
) -> Pair:
    """Return how many windows of `size` fit down and across an image (H, W). Book, equation 7.1.

    OH = (H + 2 P - FH) / S + 1

    Parameters
    ----------
    pad : (int, int) or ((int, int), (int, int))
        Rows and columns on each side; or ((above, below), (left, right)).
    remainder : {"error", "drop"}
        What to do where the division leaves a remainder: refuse, or leave the last rows and
        columns unseen.

    Raises
    ------
    ShapeError
        If not even one window fits, or there is a remainder and it is an error.
    """
    edges = [edge if isinstance(edge, tuple) else (edge, edge) for edge in pad]
    if min(stride) < 1 or min(map(min, edges)) < 0:
        raise ArgumentError(
            f"stride must be at least 1 and pad at least 0, got {stride} and {pad}."
        )
    counts = []
    for axis, length, window, step, (before, after) in zip(
        ("height", "width"), image, size, stride, edges, strict=True
    ):
        edge = before if before == after else f"{before} and {after}"
        if length < 1:
            raise ShapeError(f"images must have pixels, got an image of {axis} {length}.")
        room = length + before + after - window
        if room < 0:
            raise ShapeError(
                f"a window of {axis} {window} does not fit an image of {axis} {length} padded by "
                f"{edge}; use a smaller window or pad >= {-(-(window - length) // 2)}."
            )
        if room % step and remainder == "error":
            raise ShapeError(
                f"{axis} {length} with pad {edge}, window {window} and stride {step} gives "
                f"{room / step + 1:g} windows, which is not whole; change one of them, or pass "
                f"remainder='drop' to leave the last {room % step} of the {axis} unseen."
            )
        counts.append(room // step + 1)
    return counts[0], counts[1]
