"""Planted gradients whose best mixtures are known."""

from itertools import combinations

import numpy as np

D = 30
SCALE = np.exp(-np.arange(D) / 6) ** 0.5
TRACE = (SCALE**2).sum()


class Planted:
    """K estimators of known E and F at batch N′ = `times` · n: random biases, common noise.

    Noise of estimator k is z_k times exp(`spread` · normal), correlated between estimators.
    """

    def __init__(self, rng, K, n, *, ratio=1.0, correlation=0.5, spread=0.5, times=1):
        self.batch = times * n
        aside = rng.normal(size=(K, D))
        aside /= np.linalg.norm(aside, axis=1, keepdims=True)
        self.bias = aside * np.sqrt(ratio * rng.exponential(size=(K, 1)) * TRACE / n)
        size = np.exp(spread * rng.normal(size=K))
        self.truth = rng.normal(size=D)
        self.truth *= np.sqrt(TRACE) / np.linalg.norm(self.truth)
        mixed = correlation * np.outer(size, size) + (1 - correlation) * np.diag(size**2)
        self.E = self.bias @ self.bias.T + TRACE * mixed / self.batch
        beta = self.bias @ self.truth
        self.F = np.block([[self.E, beta[:, None]], [beta, self.truth @ self.truth]])
        self.covariance = mixed
        z = np.sqrt(correlation) * rng.normal(size=(n, 1, D))
        z = z + np.sqrt(1 - correlation) * rng.normal(size=(n, K, D))
        truth = np.broadcast_to(self.truth, (n, 1, D))
        self.X = np.concatenate([truth + self.bias + size[:, None] * z * SCALE, truth], axis=1)


def by_enumeration(E):
    """argmin wᵀE w on the simplex, stationary points of every face compared."""
    found = []
    for r in range(1, len(E) + 1):
        for face in map(list, combinations(range(len(E)), r)):
            w = np.zeros(len(E))
            w[face] = np.linalg.solve(E[np.ix_(face, face)], np.ones(r))
            w /= w.sum()
            if (w >= 0).all():
                found.append((float(w @ E @ w), w))
    return min(found, key=lambda each: each[0])[1]
