"""Central differences: NumPy alone."""

import numpy as np


def numerical_gradient(f, x):
    gradient, flat = np.zeros(x.size), x.reshape(-1)
    assert np.shares_memory(flat, x)
    for i in range(x.size):
        value = flat[i]
        flat[i] = value + 1e-4
        above = f(x)
        flat[i] = value - 1e-4
        gradient[i] = (above - f(x)) / 2e-4
        flat[i] = value
    return gradient.reshape(x.shape)


def numerical_gradient_2d(f, X):
    rows = X.reshape(-1, X.shape[-1])
    return np.array([numerical_gradient(f, row) for row in rows]).reshape(X.shape)
