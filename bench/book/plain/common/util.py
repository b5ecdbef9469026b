"""Windows of images as rows and back, shuffled data and smooth curves: NumPy alone, float64."""

import numpy as np


def windows(length, window, stride, pad):
    return (length + 2 * pad - window) // stride + 1


def im2col(x, fh, fw, stride=1, pad=0):
    n, c, h, w = x.shape
    oh, ow = windows(h, fh, stride, pad), windows(w, fw, stride, pad)
    padded = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    col = np.zeros((n, c, fh, fw, oh, ow))
    for i in range(fh):
        for j in range(fw):
            rows, columns = slice(i, i + stride * oh, stride), slice(j, j + stride * ow, stride)
            col[:, :, i, j] = padded[:, :, rows, columns]
    return col.transpose(0, 4, 5, 1, 2, 3).reshape(n * oh * ow, -1)


def col2im(col, shape, fh, fw, stride=1, pad=0):
    n, c, h, w = shape
    oh, ow = windows(h, fh, stride, pad), windows(w, fw, stride, pad)
    col = col.reshape(n, oh, ow, c, fh, fw).transpose(0, 3, 4, 5, 1, 2)
    image = np.zeros((n, c, h + 2 * pad, w + 2 * pad))
    for i in range(fh):
        for j in range(fw):
            rows, columns = slice(i, i + stride * oh, stride), slice(j, j + stride * ow, stride)
            image[:, :, rows, columns] += col[:, :, i, j]
    return image[:, :, pad : pad + h, pad : pad + w]


def conv_output_size(input_size, filter_size, stride=1, pad=0):
    return (input_size + 2 * pad - filter_size) / stride + 1


def shuffle_dataset(x, t):
    order = np.random.permutation(len(x))
    return x[order], t[order]


def smooth_curve(x):
    """Average over 11 points; beyond its ends the curve is mirrored."""
    weights = np.kaiser(11, 2)
    curve = [*x[5:0:-1], *x, *x[:-6:-1]]
    return np.array([np.dot(weights, curve[i : i + 11]) for i in range(len(x))]) / weights.sum()
