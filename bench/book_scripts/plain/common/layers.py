"""Layers as a reader writes them after chapter 7: NumPy alone, float64, im2col."""

import numpy as np


def windows(length, window, stride, pad):
    return (length + 2 * pad - window) // stride + 1


def im2col(x, fh, fw, stride, pad):
    n, c, h, w = x.shape
    oh, ow = windows(h, fh, stride, pad), windows(w, fw, stride, pad)
    padded = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    col = np.zeros((n, c, fh, fw, oh, ow))
    for i in range(fh):
        for j in range(fw):
            rows, columns = slice(i, i + stride * oh, stride), slice(j, j + stride * ow, stride)
            col[:, :, i, j] = padded[:, :, rows, columns]
    return col.transpose(0, 4, 5, 1, 2, 3).reshape(n * oh * ow, -1)


def col2im(col, shape, fh, fw, stride, pad):
    n, c, h, w = shape
    oh, ow = windows(h, fh, stride, pad), windows(w, fw, stride, pad)
    col = col.reshape(n, oh, ow, c, fh, fw).transpose(0, 3, 4, 5, 1, 2)
    image = np.zeros((n, c, h + 2 * pad, w + 2 * pad))
    for i in range(fh):
        for j in range(fw):
            rows, columns = slice(i, i + stride * oh, stride), slice(j, j + stride * ow, stride)
            image[:, :, rows, columns] += col[:, :, i, j]
    return image[:, :, pad : pad + h, pad : pad + w]


class Relu:
    def forward(self, x):
        self.dead = x <= 0
        out = x.copy()
        out[self.dead] = 0
        return out

    def backward(self, dout):
        dout[self.dead] = 0
        return dout


class Affine:
    def __init__(self, W, b):
        self.W, self.b = W, b

    def forward(self, x):
        self.shape = x.shape
        self.x = x.reshape(len(x), -1)
        return np.dot(self.x, self.W) + self.b

    def backward(self, dout):
        self.dW = np.dot(self.x.T, dout)
        self.db = dout.sum(axis=0)
        return np.dot(dout, self.W.T).reshape(self.shape)


class Dropout:
    def __init__(self, dropout_ratio=0.5):
        self.dropout_ratio = dropout_ratio

    def forward(self, x, train_flg=True):
        if not train_flg:
            return x * (1 - self.dropout_ratio)
        self.mask = np.random.rand(*x.shape) > self.dropout_ratio
        return x * self.mask

    def backward(self, dout):
        return dout * self.mask


class SoftmaxWithLoss:
    def forward(self, x, t):
        e = np.exp(x - x.max(axis=1, keepdims=True))
        self.y, self.t = e / e.sum(axis=1, keepdims=True), t
        return -np.log(self.y[np.arange(len(t)), t] + 1e-7).mean()

    def backward(self, dout=1):
        dx = self.y.copy()
        dx[np.arange(len(dx)), self.t] -= 1
        return dx / len(dx)


class Convolution:
    def __init__(self, W, b, stride=1, pad=0):
        self.W, self.b, self.stride, self.pad = W, b, stride, pad

    def forward(self, x):
        fn, _, fh, fw = self.W.shape
        n, _, h, w = self.shape = x.shape
        self.col = im2col(x, fh, fw, self.stride, self.pad)
        out = np.dot(self.col, self.W.reshape(fn, -1).T) + self.b
        oh, ow = windows(h, fh, self.stride, self.pad), windows(w, fw, self.stride, self.pad)
        return out.reshape(n, oh, ow, fn).transpose(0, 3, 1, 2)

    def backward(self, dout):
        fn, _, fh, fw = self.W.shape
        rows = dout.transpose(0, 2, 3, 1).reshape(-1, fn)
        self.db = rows.sum(axis=0)
        self.dW = np.dot(self.col.T, rows).T.reshape(self.W.shape)
        col = np.dot(rows, self.W.reshape(fn, -1))
        return col2im(col, self.shape, fh, fw, self.stride, self.pad)


class Pooling:
    def __init__(self, pool_h, pool_w, stride=2, pad=0):
        self.pool_h, self.pool_w, self.stride, self.pad = pool_h, pool_w, stride, pad

    def forward(self, x):
        n, c, h, w = self.shape = x.shape
        col = im2col(x, self.pool_h, self.pool_w, self.stride, self.pad)
        col = col.reshape(-1, self.pool_h * self.pool_w)
        self.winners = col.argmax(axis=1)
        oh, ow = (windows(a, b, self.stride, self.pad)
                  for a, b in ((h, self.pool_h), (w, self.pool_w)))  # fmt: skip
        return col.max(axis=1).reshape(n, oh, ow, c).transpose(0, 3, 1, 2)

    def backward(self, dout):
        rows = dout.transpose(0, 2, 3, 1).reshape(-1)
        col = np.zeros((rows.size, self.pool_h * self.pool_w))
        col[np.arange(rows.size), self.winners] = rows
        return col2im(col, self.shape, self.pool_h, self.pool_w, self.stride, self.pad)
