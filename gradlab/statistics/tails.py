"""Heaviness of tails: above 1.2 a few starts carry much of what was measured.

    index = mean over random directions v of E (v·x)⁴ / (3 (E (v·x)²)²),      x centred

1 for a Gaussian of any dimension and covariance, since all its projections are Gaussian; 2 where
the spread itself varies as a lognormal with σ = 0.4; infinite for Student's t with 4 degrees of
freedom. Unlike the share of the largest sample, or the kurtosis of |x|², it does not take a
gradient of few dimensions for one with heavy tails.

Shape k of the generalised Pareto law of what lies beyond a threshold: how heavy a tail is.

Moments of order 1/k and more are infinite: beyond k = ½ a sample variance has none of its own, so
that no standard error of a mean square can be had from the sample. Gaussian tails have 0, bounded
ones less, Student's t with ν degrees of freedom 1/ν; the p-th power of it has p times its k. It is
the diagnostic of importance sampling (Vehtari, Simpson, Gelman, Yao & Gabry 2024, J. Mach. Learn.
Res. 25), estimated as there (Zhang & Stephens 2009, Technometrics 51): a mean over likelihoods.
"""

from __future__ import annotations

from math import log, sqrt

import numpy as np

from gradlab.statistics.moments import Array, Estimate


def tail_shape(values: Array) -> float:
    """k of the largest 3 √n of n positive values, at most a fifth; NaN where they do not vary."""
    ordered, beyond = np.sort(values), _beyond(len(values))
    return shape(ordered[-beyond:] - ordered[-beyond - 1])


def _beyond(n: int) -> int:
    return min(int(0.2 * n), int(3 * n**0.5))


def no_variance(n: int) -> float:
    """The k of n values from which on they are said to have no variance: ½, or what one sample in
    20 of a fourth power of a Gaussian exceeds, the heaviest square of a return that is quadratic
    in Gaussian starts. Its k of 0 is reached as 0.9 / ln(n/m) with m values in the tail."""
    m = _beyond(n)
    apparent = 0.9 / log(n / m)
    return max(0.5, apparent + 1.645 * (1 + apparent) / sqrt(m))


def shape(excess: Array) -> float:
    """k of excesses over a threshold, in ascending order."""
    excess = excess[excess > 0]
    n = len(excess)
    if n < 5 or excess[0] == excess[-1]:
        return float("nan")
    candidates = 30 + int(n**0.5)
    spread = 1 - np.sqrt(candidates / (np.arange(1, candidates + 1) - 0.5))
    theta = 1 / excess[-1] + spread / (3 * excess[int(n / 4 + 0.5) - 1])
    k = np.log1p(-theta[:, None] * excess).mean(axis=1)
    likelihood = n * (np.log(-theta / k) - k - 1)
    weight = np.exp(likelihood - likelihood.max())
    return float(np.log1p(-(weight @ theta) / weight.sum() * excess).mean())


HEAVY = 1.2
DIRECTIONS = 16


def tail_index(sums: Array, size: Array) -> Estimate:
    """Mean kurtosis of the projections over a Gaussian's; NaN where nothing varies.

    Args:
        sums: [G, D], projections summed over each group.
        size: [G], samples of each group.
    """
    here = size > 0
    plain = sums[here]
    with np.errstate(invalid="ignore", over="ignore"):
        x = plain - size[here, None] * (plain.sum(axis=0) / size.sum())
        varies = (x**2).sum(axis=0) > 1e-20 * (plain**2).sum(axis=0)
    x = x[:, varies] / np.abs(x[:, varies]).max(axis=0, initial=0.0)
    powers = [x**k for k in range(1, 5)]
    value = _kurtosis(np.float64(len(x)), *(p.sum(axis=0) for p in powers))
    left_out = np.full(len(size), value)
    left_out[here] = _kurtosis(np.float64(len(x) - 1), *(p.sum(axis=0) - p for p in powers))
    return Estimate(float(value), left_out)


def heavier(first: Estimate, second: Estimate) -> Estimate:
    """The one with the larger index; a number before none."""
    return second if second.value > first.value or np.isnan(first.value) else first


def _kurtosis(n: np.float64, s1: Array, s2: Array, s3: Array, s4: Array) -> Array:
    """Mean over directions of the kurtosis over 3, from sums of powers [..., D]."""
    with np.errstate(invalid="ignore", divide="ignore"):
        m = s1 / n
        variance = s2 / n - m**2
        fourth = s4 / n - 4 * m * s3 / n + 6 * m**2 * s2 / n - 3 * m**4
        ratio = fourth / (3 * variance**2)
        return np.asarray(ratio.sum(axis=-1) / np.float64(ratio.shape[-1]))
