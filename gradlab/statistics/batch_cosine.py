"""The cosine that one batch of gradients can be expected to have with the truth.

ĝ, the mean of N′ gradients, is μ plus noise of covariance Σ/N′. Along the truth t it is a ~
N(μ·t/|t|, tᵀΣt/|t|²N′); across it, its square is taken to be what is expected of it,

    rest = |μ|² − (μ·t)²/|t|² + (tr Σ − tᵀΣt/|t|²)/N′,        E cos = E[a / √(a² + rest)]

which is exact for one parameter and Gaussian noise and neglects, for more, the fluctuation of the
length across: of relative size √(2/effective rank). With 1/√x = 2/√π ∫_0^∞ exp(−s² x) ds and σ² the
variance of a, the expectation is one smooth integral,

    E cos = √(2/π) m/σ ∫_0^1 exp(−w² m²/2σ² − rest w²/(2σ² (1 − w²))) dw.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
NODES, WEIGHTS = np.polynomial.legendre.leggauss(24)
REACH = 8.0  # standard deviations of a Gaussian beyond which nothing is left


def batch_cosine(
    cross: Array, truth2: Array, along: Array, norm2: Array, trace: Array, batch: int
) -> Array:
    """E cos from μ·t, |t|², tᵀΣt/|t|², |μ|² and tr Σ, of any one shape; NaN where |t|² ≤ 0."""
    mean = cross / np.sqrt(truth2)
    along = np.clip(along, 0.0, np.maximum(trace, 0.0))
    across = np.maximum(norm2 - mean**2, 0.0) + np.maximum(trace - along, 0.0) / batch
    spread = np.maximum(along / batch, 1e-12 * mean**2)
    return expected_cosine(mean, spread, across)


def expected_cosine(mean: Array, spread: Array, rest: Array) -> Array:
    """E[a / √(a² + rest)] for a ~ N(mean, spread), spread > 0."""
    sigma = np.sqrt(spread)
    m, b = mean / sigma, rest / spread
    end = np.minimum(1.0, REACH / np.sqrt(m**2 + b + 1e-300))
    w = 0.5 * end[..., None] * (1 + NODES)
    exponent = (w * m[..., None]) ** 2 + b[..., None] * w**2 / (1 - w**2)
    integral = 0.5 * end * (np.exp(-exponent / 2) @ WEIGHTS)
    return np.asarray(np.sqrt(2 / np.pi) * m * integral)
