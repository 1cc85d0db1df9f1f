"""Shape k of the generalised Pareto law of what lies beyond a threshold: how heavy a tail is.

Moments of order 1/k and more are infinite: beyond k = ½ a sample variance has none of its own, so
that no standard error of a mean square can be had from the sample. Gaussian tails have 0, bounded
ones less, Student's t with ν degrees of freedom 1/ν; the p-th power of it has p times its k. It is
the diagnostic of importance sampling (Vehtari, Simpson, Gelman, Yao & Gabry 2024, J. Mach. Learn.
Res. 25), estimated as there (Zhang & Stephens 2009, Technometrics 51): a mean over likelihoods.
"""

from __future__ import annotations

import numpy as np

from gradlab.statistics.moments import Array


def tail_shape(values: Array) -> float:
    """k of the largest 3 √n of n positive values, at most a fifth; NaN where they do not vary."""
    ordered = np.sort(values)
    beyond = min(int(0.2 * len(ordered)), int(3 * len(ordered) ** 0.5))
    return shape(ordered[-beyond:] - ordered[-beyond - 1])


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
