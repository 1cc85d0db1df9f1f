"""Heaviness of tails: above 1.2 a few starts carry much of what was measured.

    index = mean over random directions v of E (v·x)⁴ / (3 (E (v·x)²)²),      x centred

1 for a Gaussian of any dimension and covariance, since all its projections are Gaussian; 2 where
the spread itself varies as a lognormal with σ = 0.4; infinite for Student's t with 4 degrees of
freedom. Unlike the share of the largest sample, or the kurtosis of |x|², it does not take a
gradient of few dimensions for one with heavy tails.
"""

from __future__ import annotations

import numpy as np

from gradlab.statistics.moments import Array, Estimate

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
