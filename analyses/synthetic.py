"""Synthetic gradients with known mean, bias and covariance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradlab.statistics.moments import Moments, PairSums

SCALE = 0.5  # of the logarithm of each sample's size under lognormal tails
TAILS = ("gaussian", "t4.5", "lognormal")


@dataclass(frozen=True)
class Planted:
    """Estimator gradients G and truth T, [N, d], with what is known of their law."""

    G: np.ndarray
    T: np.ndarray
    known: dict[str, float]


def planted(rng, n, *, ratio=1.0, correlation=0.5, size=1.0, tails="gaussian", d=30) -> Planted:
    """bias² = ratio · tr Σ / N; truth of norm about `size` · sqrt(tr Σ); `tails` one of TAILS."""
    scale = np.exp(-np.arange(d) / 6) ** 0.5
    trace = float((scale**2).sum())

    def draw():
        z = rng.normal(size=(n, d)) * scale
        if tails == "t4.5":
            z /= np.sqrt(rng.chisquare(4.5, size=(n, 1)) / 2.5)
        if tails == "lognormal":
            z *= np.exp(SCALE * rng.normal(size=(n, 1)) - SCALE**2)  # E[scale²] = 1
        return z

    shared = draw()
    fixed = np.random.default_rng(7)
    direction = fixed.normal(size=d)
    direction /= np.linalg.norm(direction)
    truth = np.zeros(d)
    truth[:5] = size * np.sqrt(trace / 5)
    bias2 = ratio * trace / n
    mean = truth + np.sqrt(bias2) * direction
    G = mean + correlation * shared + np.sqrt(1 - correlation**2) * draw()
    known = {
        "mean_norm": float(np.linalg.norm(mean)),
        "variance": trace,
        "bias2": float(bias2),
        "mse": float(bias2 + trace / n),
        "relative_mse": float((bias2 + trace / n) / (truth @ truth)),
        "cosine": float(mean @ truth / np.linalg.norm(mean) / np.linalg.norm(truth)),
        "snr": float(mean @ mean / trace),
    }
    return Planted(G, truth + shared, known)


def moments(G, T=None, group=None) -> Moments:
    """Moments of explicit vectors, by definition."""
    group = np.arange(len(G)) if group is None else np.asarray(group)
    labels = np.unique(group)
    size = np.array([(group == label).sum() for label in labels], dtype=float)

    def summed(X):
        return np.stack([X[group == label].sum(axis=0) for label in labels])

    squares = np.array([(G[group == label] ** 2).sum() for label in labels])
    g = summed(G)
    if T is None:
        return Moments(size, squares, pairs(g, g))
    t = summed(T)
    return Moments(size, squares, pairs(g, g), pairs(t, t), pairs(g - t, g - t), pairs(g, t))


def pairs(X, Z) -> PairSums:
    return PairSums((X * Z).sum(axis=1), X @ Z.sum(axis=0), Z @ X.sum(axis=0))
