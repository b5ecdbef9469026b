"""Primitives of images: windows laid out, convolution and pooling. Book, chapter 7."""

from __future__ import annotations

import math
from typing import Any

from xpdl.backends.base.elements import Elements
from xpdl.backends.base.types import (
    Array,
    Geometry,
    Normal,
    Pads,
    Pair,
    Pairs,
    Shape,
    accumulation_dtype,
    by_group,
    counts_of,
    written,
)


class Windows(Elements):
    """Windows slid over images (N, C, H, W), with filters (FN, C, FH, FW)."""

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
        (n, c), (down, right), (dh, dw) = x.shape[:2], stride, dilation
        counts = counts_of(x.shape[2:], size, stride, (0, 0), dilation)
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
        oh, ow = counts_of((h, w), size, stride, pad, dilation)
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
        return Windows.grouped_convolution(self, x, W, b, stride, pad, (1, 1), 1, relu)

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
        how = stride, pad, (1, 1), 1, need_dx
        dx, *found = Windows.grouped_convolution_backward(self, dout, x, W, *how)
        return dx, written(found[0], dW), written(found[1], db) if need_db else None

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
        """Convolve each group of channels with filters of its own, whose numbers may lie apart.

        x (N, C, H, W) has its channels in `groups` groups, and W (FN, C/groups, FH, FW) its
        filters; filter f sees group g = f // (FN/groups) alone, in steps of d, the dilation:
        y[n, f, i, j] = b[f] + sum over c, k, l of
        W[f, c, k, l] x[n, g C/groups + c, i*s + k*d - p, j*s + l*d - p]
        and, with `relu`, max(y, 0). Returns (N, FN, OH, OW).
        """
        (n, _, h, w), (fn, _, fh, fw) = x.shape, W.shape
        oh, ow = counts_of((h, w), (fh, fw), stride, pad, dilation)
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
        col, parts = self.im2col(x, (fh, fw), stride, pad, dilation), by_group(rows, groups)
        dW = self.matmul(by_group(col, groups).transpose(0, 2, 1), parts, dtype=wide)
        dW = dW.transpose(0, 2, 1).reshape(W.shape)
        if not need_dx:
            return None, dW, db
        dcol = self.matmul(parts, W.reshape(groups, fn // groups, -1))
        dcol = dcol.transpose(1, 0, 2).reshape(col.shape)
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

    def convolution_pooling(
        self, x: Array, W: Array, b: Array | None, how: Pairs, window: Pairs, train: bool = False
    ) -> tuple[Array, Any]:
        """Return what `max_pooling`, without padding, makes of a `convolution` with ReLU."""
        return self.max_pooling(self.convolution(x, W, b, *how, True), *window, (0, 0), train)

    def convolution_normalized(
        self, x: Array, W: Array, b: Array | None, how: Geometry, norm: Normal, relu: bool = False
    ) -> Array:
        """Return what `normalize`, and with `relu` ReLU, makes of a convolution."""
        if how[2:] == ((1, 1), 1):
            y = self.normalize(self.convolution(x, W, b, *how[:2]), *norm)
        else:
            y = self.normalize(self.grouped_convolution(x, W, b, *how), *norm)
        return self.relu(y) if relu else y

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
