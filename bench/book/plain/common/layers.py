"""Layers as a reader writes them after chapter 7: NumPy alone, float64, im2col."""

import numpy as np

from common.functions import cross_entropy_error, sigmoid, softmax
from common.util import col2im, im2col, windows


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
        self.y, self.t = softmax(x), t
        return cross_entropy_error(self.y, t)

    def backward(self, dout=1):
        t = self.t if self.t.size == self.y.size else np.eye(self.y.shape[1])[np.ravel(self.t)]
        return (self.y - t) * dout / len(self.y)


class Sigmoid:
    def forward(self, x):
        self.y = sigmoid(x)
        return self.y

    def backward(self, dout):
        return dout * (1 - self.y) * self.y


class BatchNormalization:
    """Every number of a sample is a feature; backward goes node by node, as in chapter 5."""

    def __init__(self, gamma, beta, momentum=0.9, running_mean=None, running_var=None):
        self.gamma, self.beta, self.momentum = gamma, beta, momentum
        self.running_mean, self.running_var = running_mean, running_var

    def forward(self, x, train_flg=True):
        self.shape = x.shape
        x = x.reshape(len(x), -1)
        if self.running_mean is None:
            self.running_mean = self.running_var = np.zeros(x.shape[1])
        if not train_flg:
            xn = (x - self.running_mean) / np.sqrt(self.running_var + 1e-6)
            return (self.gamma * xn + self.beta).reshape(self.shape)
        mean, kept = x.mean(axis=0), self.momentum
        self.xc = x - mean
        variance = (self.xc**2).mean(axis=0)
        self.std = np.sqrt(variance + 1e-6)
        self.running_mean = kept * self.running_mean + (1 - kept) * mean
        self.running_var = kept * self.running_var + (1 - kept) * variance
        return (self.gamma * self.xc / self.std + self.beta).reshape(self.shape)

    def backward(self, dout):
        dout = dout.reshape(len(dout), -1)
        self.dbeta = dout.sum(axis=0)
        self.dgamma = (dout * self.xc / self.std).sum(axis=0)
        dxn = self.gamma * dout
        dvariance = -0.5 * (dxn * self.xc).sum(axis=0) / self.std**3
        dxc = dxn / self.std + 2 * self.xc * dvariance / len(dout)
        return (dxc - dxc.mean(axis=0)).reshape(self.shape)


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
