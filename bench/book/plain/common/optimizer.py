"""The rules of chapter 6: NumPy alone, one number at a time in thought."""

import numpy as np


class Rule:
    def __init__(self, **options):
        self.options, self.kept, self.iter = options, {}, 0

    def update(self, params, grads):
        self.iter += 1
        for name in params:
            kept = self.kept.setdefault(name, {})
            params[name] -= self.step(np.asarray(grads[name]), kept, **self.options)


class SGD(Rule):
    def step(self, g, kept, lr=0.01):
        return lr * g


class Momentum(Rule):
    def step(self, g, kept, lr=0.01, momentum=0.9):
        kept["v"] = momentum * kept.get("v", 0) + lr * g
        return kept["v"]


class Nesterov(Rule):
    def step(self, g, kept, lr=0.01, momentum=0.9):
        kept["v"] = momentum * kept.get("v", 0) + lr * g
        return momentum * kept["v"] + lr * g


class AdaGrad(Rule):
    def step(self, g, kept, lr=0.01):
        kept["h"] = kept.get("h", 0) + g**2
        return lr * g / (np.sqrt(kept["h"]) + 1e-7)


class RMSprop(Rule):
    def step(self, g, kept, lr=0.01, decay_rate=0.99):
        kept["h"] = decay_rate * kept.get("h", 0) + (1 - decay_rate) * g**2
        return lr * g / (np.sqrt(kept["h"]) + 1e-7)


class Adam(Rule):
    def step(self, g, kept, lr=0.001, beta1=0.9, beta2=0.999):
        rate = lr * np.sqrt(1 - beta2**self.iter) / (1 - beta1**self.iter)
        m, v = kept.setdefault("m", np.zeros_like(g)), kept.setdefault("v", np.zeros_like(g))
        m += (1 - beta1) * (g - m)
        v += (1 - beta2) * (g**2 - v)
        return rate * m / (np.sqrt(v) + 1e-7)
