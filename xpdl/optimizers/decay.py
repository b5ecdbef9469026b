"""Weight decay: two ways to pull weights to zero, for any rule."""

from __future__ import annotations

from xpdl.backends import Array, Number, backend_of


def coupled(W: Array, g: Array, decay: float) -> Array:
    """Return dL/dW + decay W: the gradient with that of a term decay/2 W^2 in the loss.

    L2 regularisation (book, section 6.4.2).
    """
    xp = backend_of(W, g).xp
    return xp.add(g, decay * W, out=xp.empty_like(g))


def decoupled(W: Array, rate: Number, decay: float, go: Array | None) -> None:
    """W <- W - rate decay W beside the rule's own step, in place, where `go` is not false.

    So what a rule does to gradients is not done to the decay. Loshchilov and Hutter 2019
    (arXiv:1711.05101).
    """
    kept = 1 - rate * decay
    W *= kept if go is None else backend_of(W, go).xp.where(go, kept, 1)
