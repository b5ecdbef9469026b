"""Convolution of groups and with dilation on a CPU, made of what there is without them.

A filter that meets pixels d apart sees only every d-th row and column: of these, taken as an image
of their own, it is an ordinary filter. So a dilated convolution is an ordinary one for each phase,
and one of groups is one for each group.

Where each channel is a group, products of matrices do not pay: there the image is shifted, weighed
and added, a number of the filters at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

import numpy as np

from xpdl.backends.base import Backend
from xpdl.backends.base.types import Array, Pair, Shape, output_size, spread
from xpdl.backends.numpy.elements import parts_of
from xpdl.backends.numpy.memory import pool
from xpdl.backends.numpy.threads import workers


def convolution(
    backend: Backend,
    x: Array,
    W: Array,
    b: Array | None,
    stride: Pair,
    pad: Pair,
    dilation: Pair,
    groups: int,
    relu: bool,
) -> Array:
    """Return what `Backend.grouped_convolution` does, by ``backend.convolution``."""
    fn, n, counts = len(W), len(x), _counts(x.shape, W.shape, stride, pad, dilation)
    x, pad = _padded(backend, x, pad, dilation)
    y = pool.empty((n, *counts, fn), x.dtype).transpose(0, 3, 1, 2)
    for channels, filters in _groups(x.shape[1], fn, groups):
        bias = None if b is None else b[filters]
        for seen, made, step in _phases(counts, stride, dilation):
            part = x[:, channels, *seen]
            y[:, filters, *made] = backend.convolution(part, W[filters], bias, step, pad, relu)
    return y


def backward(
    backend: Backend,
    dout: Array,
    x: Array,
    W: Array,
    stride: Pair,
    pad: Pair,
    dilation: Pair,
    groups: int,
    need_dx: bool,
) -> tuple[Array | None, Array, Array]:
    """Return what `Backend.grouped_convolution_backward` does, by that without groups."""
    (n, c, h, w), fn, (top, left) = x.shape, len(W), pad
    x, pad = _padded(backend, x, pad, dilation)
    dW, db = np.zeros(W.shape, x.dtype), np.zeros(fn, x.dtype)
    dx = np.zeros((n, *x.shape[2:], c) if need_dx else (0, 0, 0, 0), x.dtype).transpose(0, 3, 1, 2)
    for channels, filters in _groups(c, fn, groups):
        for seen, made, step in _phases(dout.shape[2:], stride, dilation):
            part, gradient = x[:, channels, *seen], dout[:, filters, *made]
            dpart, more_W, more_b = backend.convolution_backward(
                gradient, part, W[filters], step, pad, need_dx
            )
            dW[filters] += more_W
            db[filters] += more_b
            if need_dx:
                dx[:, channels, *seen] = dpart
    if not need_dx:
        return None, dW, db
    if x.shape[2:] != (h, w):
        dx = dx[:, :, top : top + h, left : left + w]
    return dx, dW, db


def depthwise(
    x: Array, W: Array, b: Array | None, stride: Pair, pad: Pair, dilation: Pair, relu: bool
) -> Array:
    """Return what `Backend.grouped_convolution` does for as many groups as channels."""
    (n, c), taps = x.shape[:2], W[:, 0].transpose(1, 2, 0)
    oh, ow = _counts(x.shape, W.shape, stride, pad, dilation)
    y, images = pool.empty((n, oh, ow, c), x.dtype), x.transpose(0, 2, 3, 1)

    def work(part: slice) -> None:
        total, weighed = y[part], np.empty((part.stop - part.start, oh, ow, c), x.dtype)
        total[...] = 0 if b is None else b
        padded = _within(images[part], pad)
        for (u, v), place in _places(taps.shape, (oh, ow), stride, dilation):
            total += np.multiply(padded[:, *place], taps[u, v], out=weighed)
        if relu:
            np.maximum(total, 0, out=total)

    workers.each(parts_of(n, y.nbytes), work)
    return y.transpose(0, 3, 1, 2)


def depthwise_backward(
    dout: Array, x: Array, W: Array, stride: Pair, pad: Pair, dilation: Pair, need_dx: bool
) -> tuple[Array | None, Array, Array]:
    """Return what `Backend.grouped_convolution_backward` does for as many groups as channels."""
    (n, c, h, w), (ph, pw), taps = x.shape, pad, W[:, 0].transpose(1, 2, 0)
    images, gradient = x.transpose(0, 2, 3, 1), dout.transpose(0, 2, 3, 1)
    dx = pool.empty((n, h, w, c) if need_dx else (0,), x.dtype)

    def work(part: slice) -> tuple[Array, Array]:
        given, padded, dW = (
            gradient[part],
            _within(images[part], pad),
            np.empty(taps.shape, x.dtype),
        )
        target = np.zeros(padded.shape, x.dtype) if need_dx else None
        for (u, v), place in _places(taps.shape, dout.shape[2:], stride, dilation):
            dW[u, v] = np.einsum("nijc,nijc->c", padded[:, *place], given)
            if target is not None:
                target[:, *place] += given * taps[u, v]
        if target is not None:
            dx[part] = target[:, ph : ph + h, pw : pw + w]
        return dW, given.sum(axis=(0, 1, 2))

    parts = workers.each(parts_of(n, dout.nbytes), work)
    dW, db = (np.sum([part[k] for part in parts], axis=0) for k in (0, 1))
    dW = dW.transpose(2, 0, 1).reshape(W.shape)
    return dx.transpose(0, 3, 1, 2) if need_dx else None, dW, db


def _counts(shape: Shape, filters: Shape, stride: Pair, pad: Pair, dilation: Pair) -> Pair:
    oh, ow = (
        output_size(length, spread(f, d), s, p)
        for length, f, d, s, p in zip(shape[2:], filters[2:], dilation, stride, pad, strict=True)
    )
    return oh, ow


def _padded(backend: Backend, x: Array, pad: Pair, dilation: Pair) -> tuple[Array, Pair]:
    """Return images and the padding that is left to add: none, if they are taken apart."""
    if dilation == (1, 1) or pad == (0, 0):
        return x, pad
    (ph, pw) = pad
    return backend.surround(x, ((ph, ph), (pw, pw))), (0, 0)


def _groups(c: int, fn: int, groups: int) -> Iterator[tuple[slice, slice]]:
    """Yield each group's channels and filters."""
    for g in range(groups):
        yield (
            slice(g * c // groups, (g + 1) * c // groups),
            slice(g * fn // groups, (g + 1) * fn // groups),
        )


def _phases(
    counts: Shape, stride: Pair, dilation: Pair
) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice], Pair]]:
    """Yield which pixels windows see, which windows these are, and how many pixels apart then.

    Window i begins at i s and sees i s, i s + d ...; window i + d / gcd(s, d) sees of the same.
    """
    steps = [math.gcd(s, d) for s, d in zip(stride, dilation, strict=True)]
    down, across = (d // g for d, g in zip(dilation, steps, strict=True))
    for i, j in product(range(min(down, counts[0])), range(min(across, counts[1]))):
        yield (
            (slice(i * stride[0], None, dilation[0]), slice(j * stride[1], None, dilation[1])),
            (slice(i, None, down), slice(j, None, across)),
            (stride[0] // steps[0], stride[1] // steps[1]),
        )


def _places(
    size: Shape, counts: Shape, stride: Pair, dilation: Pair
) -> Iterator[tuple[Pair, tuple[slice, slice]]]:
    """Yield each place (u, v) in a window, and the pixels that all windows have there."""
    for u, v in product(range(size[0]), range(size[1])):
        top, left = u * dilation[0], v * dilation[1]
        yield (
            (u, v),
            (
                slice(top, top + stride[0] * (counts[0] - 1) + 1, stride[0]),
                slice(left, left + stride[1] * (counts[1] - 1) + 1, stride[1]),
            ),
        )


def _within(images: Array, pad: Pair) -> Array:
    """Return images (N, H, W, C) within a border of zeros."""
    (ph, pw) = pad
    return np.pad(images, ((0, 0), (ph, ph), (pw, pw), (0, 0))) if ph + pw else images
