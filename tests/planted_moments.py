"""Synthetic gradients with known mean, bias and covariance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradlab.statistics.grams import Grams, sign_agreements
from gradlab.statistics.moments import Estimate, Moments, PairSums
from gradlab.statistics.tails import DIRECTIONS, heavier, tail_index

SCALE = 0.5  # of the logarithm of each sample's size under lognormal tails
TAILS = ("gaussian", "t4.5", "lognormal")
DRAWS = 100_000  # behind a known batch cosine


@dataclass(frozen=True)
class Planted:
    """Estimator gradients G and truth T, [N, d], with what is known of their law.

    Attributes:
        mean, truth: expectations of G and T, [d]; scale: standard deviations of G, [d].
    """

    G: np.ndarray
    T: np.ndarray
    known: dict[str, float]
    mean: np.ndarray
    truth: np.ndarray
    scale: np.ndarray


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
    return Planted(G, truth + shared, known, mean, truth, scale)


def drawn_batch_cosine(mean, truth, root, batch: int) -> float:
    """Expected cosine by drawing means of `batch` gradients, which are all but normal.

    Args:
        root: [d, k], covariance of one gradient = root rootᵀ.
    """
    z = np.random.default_rng(8).normal(size=(DRAWS, root.shape[1]))
    draws = mean + np.concatenate([z, -z]) @ root.T / batch**0.5
    return float((draws @ truth / np.linalg.norm(draws, axis=1) / np.linalg.norm(truth)).mean())


def moments(G, T=None, group=None) -> Moments:
    """Moments of explicit vectors, by definition."""
    group = np.arange(len(G)) if group is None else np.asarray(group)
    labels = np.unique(group)
    size = np.array([(group == label).sum() for label in labels], dtype=float)

    def summed(X):
        if len(labels) == len(X):
            return X[np.argsort(group)]
        return np.stack([X[group == label].sum(axis=0) for label in labels])

    squares = summed((G**2).sum(axis=1, keepdims=True))[:, 0]
    g = summed(G)
    if T is None:
        return Moments(size, squares, pairs(g, g), tails=tails_of(g, size))
    t = summed(T)
    return Moments(
        size,
        squares,
        pairs(g, g),
        pairs(t, t),
        pairs(g - t, g - t),
        pairs(g, t),
        signs=sign_agreements(g[None], t, size)[0],
        tails=heavier(tails_of(g, size), tails_of(g - t, size)),
    )


def tails_of(sums, size) -> Estimate:
    """Tail index of group sums [G, d]."""
    directions = np.random.default_rng(9).normal(size=(sums.shape[1], DIRECTIONS))
    return tail_index(sums @ directions, size)


def pairs(X, Z) -> PairSums:
    return PairSums((X * Z).sum(axis=1), X @ Z.sum(axis=0), Z @ X.sum(axis=0))


def explicit_grams(gradients: np.ndarray, group: np.ndarray | None = None, folds: int = 2) -> Grams:
    """Grams of explicit gradients [N, K + 1, P], the truth's last; groups take folds in turn."""
    n = len(gradients)
    labels, index = np.unique(np.arange(n) if group is None else group, return_inverse=True)
    X = np.zeros((len(labels), *gradients.shape[1:]))
    np.add.at(X, index, gradients)
    within = np.zeros((len(labels), gradients.shape[1], gradients.shape[1]))
    np.add.at(within, index, gradients @ gradients.swapaxes(1, 2))
    fold = np.arange(len(labels)) % folds
    S = np.stack([X[fold == f].sum(axis=0) for f in range(folds)])
    total = np.stack([X @ s.T for s in S])
    size = np.bincount(index).astype(np.float64)
    return Grams(size, X @ X.swapaxes(1, 2), within, total, fold)
