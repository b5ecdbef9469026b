"""Convolution: a filter slid over a picture, and the same as one product of two matrices.

Book, sections 7.2 to 7.4; figures 7-3 to 7-7, 7-14 and 7-17 to 7-19; equation 7.1.
"""

import xpdl
from xpdl import plots
from xpdl.cli.experiment import Experiment, run
from xpdl.errors import ShapeError
from xpdl.functions import im2col, window_counts
from xpdl.layers import Convolution, MaxPooling

INPUT = [[1.0, 2, 3, 0], [0, 1, 2, 3], [3, 0, 1, 2], [2, 3, 0, 1]]
FILTER = [[2.0, 0, 1], [0, 1, 2], [1, 0, 2]]
BIAS = 3.0
POOLED = [[1.0, 2, 1, 0], [0, 1, 2, 3], [3, 0, 1, 2], [2, 4, 0, 1]]


def slide(x, w):
    """Return the sum of the products of w (FH, FW) with each window of x (H, W)."""
    xp = xpdl.array_module(x, w)
    (height, width), (fh, fw) = x.shape, w.shape
    rows = range(height - fh + 1)
    columns = range(width - fw + 1)
    sums = [[(x[i : i + fh, j : j + fw] * w).sum() for j in columns] for i in rows]
    return xp.stack([xp.stack(row) for row in sums])


def multiply(x, W, b, stride=1, pad=0):
    """Return the same for pictures x (N, C, H, W) and filters W (FN, C, FH, FW), biases b (FN,).

    Each window is a row of one matrix, each filter a column of the other.
    """
    (n, _, height, width), (fn, _, fh, fw) = x.shape, W.shape
    oh, ow = window_counts((height, width), (fh, fw), (stride, stride), (pad, pad))
    rows = im2col(x, fh, fw, stride, pad)
    y = rows @ W.reshape(fn, -1).T + b
    return y.reshape(n, oh, ow, fn).transpose(0, 3, 1, 2)


def main(experiment: Experiment) -> None:
    record = experiment.record
    x, w = xpdl.asarray(INPUT), xpdl.asarray(FILTER)
    record("filter over the input", slide(x, w), "g", book="((15, 16), (6, 15))")
    images, W, b = x[None, None], w[None, None], xpdl.asarray([BIAS])
    record("with bias 3", multiply(images, W, b)[0, 0], "g", book="((18, 19), (9, 18))")
    padded = Convolution(W, None, pad=1).forward(images)
    record("by the layer, with padding 1", padded[0, 0], "g")
    pooled = MaxPooling(2).forward(xpdl.asarray([[POOLED]]))
    record("largest of each 2x2", pooled[0, 0], "g", book="((2, 3), (4, 2))")

    sizes = [
        window_counts(*case)
        for case in (
            ((4, 4), (3, 3), (1, 1), (1, 1)),  # the input, the filter, the stride, the padding
            ((7, 7), (3, 3), (2, 2), (0, 0)),
            ((28, 31), (5, 5), (3, 3), (2, 2)),
        )
    ]
    record("output sizes by equation 7.1", sizes, "d", book="((4, 4), (3, 3), (10, 11))")
    seven = xpdl.asarray([[[[0.0] * 7] * 7]])
    try:
        Convolution(W, b, stride=3).forward(seven)
    except ShapeError as error:
        record("a size that does not divide", str(error))
    dropping = Convolution(W, b, stride=3, remainder="drop")
    record("and with remainder='drop'", dropping.forward(seven).shape[2:], "d")

    (_, _), (digits, _) = xpdl.datasets.load_mnist(flatten=False)
    xp = xpdl.array_module(digits)
    shapes = [im2col(xp.zeros((n, 3, 7, 7), "float32"), 5, 5).shape for n in (1, 10)]
    record("im2col of 1 and of 10 pictures", shapes, "d", book="((9, 75), (90, 75))")

    # A picture of 14x14, its 4x4 windows of 5x5, three pixels apart, and these as rows.
    small = MaxPooling(2).forward(digits[:1])
    rows = im2col(small, 5, 5, stride=3)
    tiles = xp.pad(rows.reshape(4, 4, 5, 5), ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=0.3)
    apart = tiles.transpose(0, 2, 1, 3).reshape(28, 28)
    names = ["a picture", "its windows (they overlap)", "the windows as rows: (16, 25)"]
    experiment.save(plots.picture_grid([small[0, 0], apart, rows], names, columns=3, size=2.4))


if __name__ == "__main__":
    run(main)
