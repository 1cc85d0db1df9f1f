"""Ends of b² = |E Y|², the square of a mean that is all but normal.

With v the variance of Ȳ along itself, and τ = |Ȳ|² − U that in all directions, as if Ȳ varied as
much in each of τ/v dimensions,

    |Ȳ|²/v  ~  χ²(τ/v, b²/v)        noncentral, b²/v by which |Ȳ|²/v has the level of either end

which holds down to b = 0, where the jackknife of U, a degenerate U-statistic, has twice its
variance, and no scale makes U symmetric. There the upper end cannot miss: 97.5% is
covered. v is estimated with the products of each Y_g with itself, Ȳ · Ĉov(Ȳ) Ȳ / |Ȳ|², and without
them, se(U)²/4|Ȳ|²; they differ where Y is skewed, and the upper end takes the larger one. A sample
whose |Ȳ|² is smaller than a mean of 0 would have it does not show that b is 0: the upper end is at
least that at the 16% quantile (power-constrained: Cowan, Cranmer, Gross & Vitells 2011).
"""

from __future__ import annotations

import numpy as np
import scipy

from gradlab.statistics.moments import SampleMean

NORMAL_FROM, NORMAL_BEYOND = 1e4, 5.0  # χ² and quantiles from which its root is as good
UNUSUAL = 0.16  # share of samples in which |Ȳ|² is taken for larger than it is


def noncentral_ends(
    value: float, mean: SampleMean | None, se: float, quantiles: tuple[float, float]
) -> tuple[float, float] | None:
    """Both ends of b²; None where the mean is not known (files do not hold it) or has no error.

    Args:
        value: U; se: its jackknife's; quantiles: of the studentised estimate, below and above.
    """
    if mean is None:
        return None
    whole = mean.square - value
    numbers = whole, se, mean.square, mean.variance_along
    if not (np.isfinite(numbers).all() and min(numbers) > 0):
        return None
    below, above = quantiles
    # No direction varies more than all of them do.
    v = min(mean.variance_along, whole)
    larger = min(max(mean.variance_along, se**2 / (4 * mean.square)), whole)
    low = v * noncentrality(mean.square / v, whole / v, above)
    dimensions = whole / larger
    least = 2 * float(scipy.special.gammaincinv(dimensions / 2, UNUSUAL))
    return low, larger * noncentrality(max(mean.square / larger, least), dimensions, below)


def noncentrality(x: float, dimensions: float, quantile: float) -> float:
    """λ for which χ²(dimensions, λ) ≤ x as often as a normal number is below its quantile.

    0 where it is less often so for every λ.
    """
    if x < NORMAL_FROM and abs(quantile) < NORMAL_BEYOND:
        level = float(scipy.special.ndtr(quantile))
        if not scipy.special.gammainc(dimensions / 2, x / 2) > level:
            return 0.0
        return float(scipy.special.chndtrinc(x, dimensions, level))
    # √(χ² − (d − 1)/2) is all but normal: mean √(λ + (d − 1)/2), variance 1.
    half = (dimensions - 1) / 2
    root = max(x - half, 0.0) ** 0.5 - quantile
    return float(root**2 - half) if root > half**0.5 else 0.0
