"""What outputs are judged by: counts and sums over the whole set, and the ratios that they give."""

from __future__ import annotations

import math
from typing import Any

from xpdl.backends import Array, Backend, Shape, accumulation_dtype, backend_of
from xpdl.targets import asked_for, rows_of_scores, rows_of_targets

EXACT = "float64"  # the type of sums: counts are exact in it, up to 9e15


class Measure:
    """Base of the measures: sums that add up over batches and ranks, and what they come to.

    This one sums nothing and has no name: a loss of one's own that is judged by no more than itself
    need not write another.

    Attributes
    ----------
    names : tuple of str
        Of the values; the first decides which epoch is the best, and when patience ends.
    highest_is_best : bool
        Whether the first value should grow.
    """

    names: tuple[str, ...] = ()
    highest_is_best = True

    def sums(self, x: Array, t: Array, weights: Array | None = None) -> Array:
        """Return the sums (k,) of outputs x and targets t, as `Loss.target` returned them.

        On the device, in float64, without waiting for it.

        Parameters
        ----------
        weights : array (N,), optional
            How much each sample counts; 1 without them.
        """
        return self.zeros(x.shape[1:], backend_of(x, t))

    def count(self, output_shape: Shape) -> int:
        """Return how many sums k there are for outputs of that shape, without the batch axis."""
        return 0

    def zeros(self, output_shape: Shape, backend: Backend) -> Array:
        """Return zeros (k,) to add `sums` to, float64, on `backend`."""
        zeros: Array = backend.xp.zeros(self.count(output_shape), dtype=EXACT)
        return zeros

    def values(self, sums: Array) -> dict[str, float]:
        """Return each name's value, from sums (k,) on the host; NaN where nothing was counted."""
        return {}


class Accuracy(Measure):
    """The share of samples, or of words in (N, T, K), whose highest score is their class.

    Parameters
    ----------
    ignored : int, optional
        The class number of what is not counted.
    """

    names = ("accuracy",)

    def __init__(self, ignored: int | None = None) -> None:
        self.ignored = ignored

    def sums(self, x: Array, t: Array, weights: Array | None = None) -> Array:
        t = rows_of_targets(t, x)
        weights = _counted(t, weights, self.ignored)
        return backend_of(x, t).count_hits(rows_of_scores(x), t, weights)

    def count(self, output_shape: Shape) -> int:
        return 2

    def values(self, sums: Array) -> dict[str, float]:
        hits, all_of_them = sums.tolist()
        return {"accuracy": _ratio(hits, all_of_them)}


class YesNoAccuracy(Accuracy):
    """The share of right answers, of scores (N, 1) of which those above 0 say yes."""

    def sums(self, x: Array, t: Array, weights: Array | None = None) -> Array:
        t = t.reshape(-1)
        hits = (x.reshape(-1) > 0) == (t > 0.5)
        weights = _counted(t, weights, self.ignored)
        return _together(x, _sum(hits, weights), len(t) if weights is None else _sum(weights))


class LabelScores(Measure):
    """F1 and exact match of several labels, each a score of which those above 0 say yes.

    F1 = 2 TP / (2 TP + FP + FN), counted over all labels together (micro); of pixels that is the
    Dice coefficient. Exact match is the share of samples whose labels are all right. Without a
    label that is set or answered, F1 is 1: nothing was to be found. Ignored labels count nowhere,
    and a sample that has no others is none.
    """

    names = ("F1", "exact match")

    def __init__(self, ignored: int | None = None) -> None:
        self.ignored = ignored

    def sums(self, x: Array, t: Array, weights: Array | None = None) -> Array:
        x, t = x.reshape(len(x), -1), t.reshape(len(t), -1)
        asked = asked_for(t, self.ignored)
        if asked is None:
            asked = backend_of(x).xp.ones(t.shape, bool)
        said, true = (x > 0) & asked, (t > 0.5) & asked
        some: Any = asked.any(axis=1)
        exact = (said == true).all(axis=1) & some
        each = None if weights is None else weights[:, None]
        return _together(
            x,
            *(_sum(said & true, each), _sum(said, each), _sum(true, each)),
            *(_sum(exact, weights), _sum(some, weights)),
        )

    def count(self, output_shape: Shape) -> int:
        return 5

    def values(self, sums: Array) -> dict[str, float]:
        both, said, true, exact, samples = sums.tolist()
        f1 = _ratio(2 * both, said + true) if said + true else 1.0
        return {"F1": f1 if samples else math.nan, "exact match": _ratio(exact, samples)}


class PixelScores(Measure):
    """Mean IoU and pixel accuracy of scores (N, K, H, W), from one confusion matrix.

    IoU of a class = TP / (TP + FP + FN) over the whole set; its mean is over the classes that
    were there or were answered.

    Parameters
    ----------
    ignored : int, optional
        The class number of pixels that are not counted.
    """

    names = ("mean IoU", "pixel accuracy")

    def __init__(self, ignored: int | None = None) -> None:
        self.ignored = ignored

    def sums(self, x: Array, t: Array, weights: Array | None = None) -> Array:
        scores, t = rows_of_scores(x), rows_of_targets(t, x)
        weights = _counted(t, weights, self.ignored)
        return backend_of(x, t).confusion(scores, t, weights).reshape(-1)

    def count(self, output_shape: Shape) -> int:
        return output_shape[0] ** 2

    def values(self, sums: Array) -> dict[str, float]:
        matrix = sums.reshape(math.isqrt(len(sums)), -1)
        right = matrix.diagonal()
        either = matrix.sum(axis=0) + matrix.sum(axis=1) - right
        there = either > 0
        shares = right[there] / either[there]
        return {
            "mean IoU": float(shares.mean()) if len(shares) else math.nan,
            "pixel accuracy": _ratio(float(right.sum()), float(sums.sum())),
        }


class RegressionScores(Measure):
    """The root of the mean squared error, and the share R² of the targets' spread explained.

    RMSE = sqrt(mean (x - t)^2)        R² = 1 - sum (x - t)^2 / sum (t - mean t)^2

    The mean of t is each output's own. Because sums must add up, the spread is sum t^2 - (sum t)^2
    / n, which cancels where the mean is large beside the deviation. The squares are therefore taken
    and added in float64: with a mean of 10^4 deviations about 8 digits of the spread are left. It
    is NaN where the targets do not spread, to that precision.
    """

    names = ("RMSE", "R²")
    highest_is_best = False

    def sums(self, x: Array, t: Array, weights: Array | None = None) -> Array:
        wide = accumulation_dtype(x.dtype)
        difference = (x.astype(wide, copy=False) - t.astype(wide, copy=False)).reshape(len(x), -1)
        difference, t = difference.astype(EXACT), t.astype(EXACT).reshape(len(x), -1)
        each = None if weights is None else weights.astype(EXACT)[:, None]
        total = t if each is None else each * t
        return _together(
            x,
            len(x) if weights is None else _sum(weights),
            *(_sum(difference * difference, each), (total * t).sum()),
            total.sum(axis=0),
        )

    def count(self, output_shape: Shape) -> int:
        return 3 + math.prod(output_shape)

    def values(self, sums: Array) -> dict[str, float]:
        n, errors, squares = sums[:3].tolist()
        totals = sums[3:]
        spread = squares - _ratio(float((totals * totals).sum()), n)
        r2 = 1 - errors / spread if spread > 1e-14 * squares else math.nan
        return {"RMSE": math.sqrt(_ratio(errors, n * len(totals))), "R²": r2}


def _counted(t: Array, weights: Array | None, ignored: int | None) -> Array | None:
    """Return how much each target (M,) counts, of samples' weights (N,); None if all count 1."""
    if weights is not None:
        weights = backend_of(t).xp.repeat(weights, len(t) // len(weights))
    asked = None if t.ndim > 1 else asked_for(t, ignored)
    if asked is None:
        return weights
    return asked if weights is None else weights * asked


def _sum(a: Array, weights: Array | None = None) -> Array:
    """Return the sum of a, or of weights * a, (), in float64."""
    return (a if weights is None else weights * a).sum(dtype=EXACT)


def _together(like: Array, *parts: Any) -> Array:
    """Return numbers of the host, arrays () and at last perhaps one (n,) as one array, float64."""
    shape = getattr(parts[-1], "shape", ())
    last = math.prod(shape)
    sums: Array = backend_of(like).xp.empty(len(parts) - 1 + last, dtype=EXACT)
    for place, part in enumerate(parts[:-1]):
        sums[place] = part
    sums[len(parts) - 1 :] = parts[-1]
    return sums


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
