"""The update rules: the formula of each, and its arithmetic.

A rule changes the parameters W, (any shape), and its memory of them in place, along the gradient
g = dL/dW. A backend may do it in one pass of its own: see `Backend.update_rule`.
"""

from __future__ import annotations

from typing import Any

from xpdl.arguments import number, whole_number
from xpdl.backends import Array, Number, array_module, backend_of
from xpdl.optimizers.base import Optimizer
from xpdl.optimizers.clipping import gradient_norm


class SGD(Optimizer):
    """Stochastic gradient descent. Book, equation 6.2.

    W <- W - rate g

    Parameters
    ----------
    learning_rate : float
        How far to go, per unit of gradient.
    **options
        Those of every rule: `weight_decay` (0), `decay_all` (False), `clip_norm` (None) and
        `rate_factors` (None); see `Optimizer`.
    """

    def __init__(self, learning_rate: float = 0.01, **options: Any) -> None:
        super().__init__(learning_rate, **options)

    def rule(self, W: Array, g: Array, rate: Number) -> None:
        W -= rate * g


class Momentum(Optimizer):
    """A ball rolling down. Book, equations 6.3 and 6.4.

    v <- momentum v - rate g
    W <- W + v

    Parameters
    ----------
    learning_rate : float
        How far to go, per unit of gradient.
    momentum : float
        What is left of the velocity v after a step, from 0 to below 1.
    **options
        Those of every rule: `weight_decay` (0), `decay_all` (False), `clip_norm` (None) and
        `rate_factors` (None); see `Optimizer`.
    """

    slots = ("v",)

    def __init__(self, learning_rate: float = 0.01, momentum: float = 0.9, **options: Any) -> None:
        super().__init__(learning_rate, **options)
        self.momentum = number("momentum", momentum, below=1)

    def rule(self, W: Array, g: Array, v: Array, rate: Number) -> None:
        v *= self.momentum
        v -= rate * g
        W += v


class Nesterov(Momentum):
    """Momentum whose gradient is that of one step ahead.

    v <- momentum v - rate g
    W <- W + momentum v - rate g

    Sutskever et al. 2013 in the form of Bengio et al. 2012 (arXiv:1212.0901), which keeps the
    parameters at the point where the gradient is taken.

    Parameters
    ----------
    learning_rate, momentum : float
        As for `Momentum`.
    **options
        Those of every rule: `weight_decay` (0), `decay_all` (False), `clip_norm` (None) and
        `rate_factors` (None); see `Optimizer`.
    """

    def rule(self, W: Array, g: Array, v: Array, rate: Number) -> None:
        v *= self.momentum
        v -= rate * g
        W += self.momentum * v - rate * g


class AdaGrad(Optimizer):
    """Each parameter's rate falls with the gradients it has seen. Book, equations 6.5 and 6.6.

    h <- h + g*g
    W <- W - rate g / (sqrt(h) + epsilon)                                 (Duchi et al. 2011)

    Parameters
    ----------
    learning_rate : float
        How far to go in the first step.
    epsilon : float
        What keeps the divisor above 0.
    **options
        Those of every rule: `weight_decay` (0), `decay_all` (False), `clip_norm` (None) and
        `rate_factors` (None); see `Optimizer`.
    """

    slots = ("h",)

    def __init__(self, learning_rate: float = 0.01, epsilon: float = 1e-7, **options: Any) -> None:
        super().__init__(learning_rate, **options)
        self.epsilon = number("epsilon", epsilon, above=0)

    def rule(self, W: Array, g: Array, h: Array, rate: Number) -> None:
        h += g * g
        W -= rate * g / (array_module(h).sqrt(h) + self.epsilon)


class RMSProp(Optimizer):
    """AdaGrad that forgets. Hinton 2012.

    h <- decay_rate h + (1 - decay_rate) g*g
    W <- W - rate g / (sqrt(h) + epsilon)

    Parameters
    ----------
    learning_rate : float
        How far to go where the gradient is as large as it was.
    decay_rate : float
        What is left of h after a step, from 0 to below 1.
    epsilon : float
        What keeps the divisor above 0.
    **options
        Those of every rule: `weight_decay` (0), `decay_all` (False), `clip_norm` (None) and
        `rate_factors` (None); see `Optimizer`.
    """

    slots = ("h",)

    def __init__(
        self,
        learning_rate: float = 0.01,
        decay_rate: float = 0.99,
        epsilon: float = 1e-7,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate, **options)
        self.decay_rate = number("decay_rate", decay_rate, below=1)
        self.epsilon = number("epsilon", epsilon, above=0)

    def rule(self, W: Array, g: Array, h: Array, rate: Number) -> None:
        h *= self.decay_rate
        h += (1 - self.decay_rate) * (g * g)
        W -= rate * g / (array_module(h).sqrt(h) + self.epsilon)


class Adam(Optimizer):
    """Momentum and RMSProp together, corrected for their start from zero.

    m <- beta1 m + (1 - beta1) g            m' = m / (1 - beta1^n)
    v <- beta2 v + (1 - beta2) g*g          v' = v / (1 - beta2^n)
    W <- W - rate m' / (sqrt(v') + epsilon)

    at the n-th update. Kingma and Ba 2015, algorithm 1 (arXiv:1412.6980).

    Parameters
    ----------
    learning_rate : float
        How far to go in the first step, and about the most afterwards.
    beta1, beta2 : float
        What is left of the means m and v after a step, from 0 to below 1.
    epsilon : float
        What keeps the divisor above 0.
    **options
        Those of every rule: `weight_decay` (0), `decay_all` (False), `clip_norm` (None) and
        `rate_factors` (None); see `Optimizer`.
    """

    slots = ("m", "v")
    counts_updates = True

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate, **options)
        self.beta1 = number("beta1", beta1, below=1)
        self.beta2 = number("beta2", beta2, below=1)
        self.epsilon = number("epsilon", epsilon, above=0)

    def rule(self, W: Array, g: Array, m: Array, v: Array, rate: Number, count: Number) -> None:
        m *= self.beta1
        m += (1 - self.beta1) * g
        v *= self.beta2
        v += (1 - self.beta2) * (g * g)
        correction1 = 1 - self.beta1**count
        correction2 = (1 - self.beta2**count) ** 0.5
        W -= (rate / correction1) * m / (array_module(v).sqrt(v) / correction2 + self.epsilon)


class AdamW(Adam):
    """Adam with decoupled decay: W <- W - rate weight_decay W before Adam's own step.

    Loshchilov and Hutter 2019 (arXiv:1711.05101).

    Parameters
    ----------
    learning_rate, beta1, beta2, epsilon : float
        As for `Adam`.
    weight_decay : float
        What each weight loses, per unit of learning rate.
    **options
        Those of every rule: `decay_all` (False), `clip_norm` (None) and `rate_factors` (None); see
        `Optimizer`.
    """

    decoupled_decay = True

    def __init__(
        self, learning_rate: float = 0.001, *, weight_decay: float = 0.01, **options: Any
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)


class Muon(Optimizer):
    """Momentum whose steps go as far in every direction of a weight matrix.

    v <- momentum v + (1 - momentum) g
    u = momentum v + (1 - momentum) g                   one step ahead, as Nesterov
    W <- W - rate sqrt(max(1, outputs / inputs)) U V^T  of a weight, where u = U S V^T
    W <- W - rate u                                     of biases and the like

    A filter W (FN, C, FH, FW) is a matrix (FN, C FH FW). U V^T, as near as five steps of
    `orthogonalized` come. Decay is decoupled. Jordan et al. 2024 ("Muon: An optimizer for hidden
    layers in neural networks"), who leave the first and the last layer to other rules;
    `rate_factors` gives them, and biases, rates of their own.

    Parameters
    ----------
    learning_rate : float
        How far to go, along each direction of a weight matrix.
    momentum : float
        What is left of the mean v after a step, from 0 to below 1.
    iterations : int
        Of the method of Newton and Schulz, 100 at most.
    **options
        Those of every rule: `weight_decay` (0), `decay_all` (False), `clip_norm` (None) and
        `rate_factors` (None); see `Optimizer`.
    """

    slots = ("v",)
    whole_parameters = True
    decoupled_decay = True

    def __init__(
        self,
        learning_rate: float = 0.02,
        momentum: float = 0.95,
        iterations: int = 5,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate, **options)
        self.momentum = number("momentum", momentum, below=1)
        self.iterations = whole_number("iterations", iterations, most=100)

    def rule(self, W: Array, g: Array, v: Array, rate: Number) -> None:
        v *= self.momentum
        v += (1 - self.momentum) * g
        u = self.momentum * v + (1 - self.momentum) * g
        if W.ndim > 1:
            matrix = u.reshape(len(u), -1)
            outputs, inputs = matrix.shape if W.ndim > 2 else matrix.shape[::-1]  # as layers have W
            length = max(1.0, outputs / max(1, inputs)) ** 0.5
            u = length * orthogonalized(matrix, self.iterations).reshape(W.shape)
        W -= rate * u


def orthogonalized(M: Array, iterations: int) -> Array:
    """Return about U V^T of M = U S V^T, (m, n): the singular values become about 1.

    X <- a X + (b A + c A A) X with A = X X^T, from X = M / |M|: each singular value s becomes
    a s + b s^3 + c s^5, which takes all but the smallest between 0.7 and 1.2 in five iterations.
    """
    matmul, (a, b, c) = backend_of(M).matmul, (3.4445, -4.7750, 2.0315)
    X = M.T if M.shape[0] > M.shape[1] else M  # then X X^T is the small product
    X = X / (gradient_norm({"M": X}) + 1e-7)
    for _ in range(iterations):
        A = matmul(X, X.T)
        X = a * X + matmul(b * A + c * matmul(A, A), X)
    return X.T if M.shape[0] > M.shape[1] else X
