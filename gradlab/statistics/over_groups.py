"""Means, medians and ratios over groups of starts, many at once, each with its 95% interval.

    root ratio   √(Σ_g X_g / Σ_g Z_g)     jackknife of the logarithm, Student's t
    mean         group means              Student's t
    median       group means              order statistics: no assumption on the tails

A group (starts of one trajectory) is the unit of every interval; all starts count alike. Student's
t instead of the normal, since some questions can afford a dozen groups only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy
from numpy.typing import NDArray

from gradlab.statistics.moments import Array

_LEVEL = 0.95


@dataclass(frozen=True)
class Estimates:
    """K numbers with their intervals and the samples behind them, each [K]; NaN where unknown."""

    value: Array
    se: Array
    low: Array
    high: Array
    n: NDArray[np.int64]
    method: str


def group_sums(values: Array, group: NDArray[np.int64]) -> Array:
    """[G, ...]: the sum over each group of values [N, ...], by label."""
    labels, index = np.unique(group, return_inverse=True)
    sums = np.zeros((len(labels), *values.shape[1:]))
    np.add.at(sums, index, values)
    return sums


def root_ratio(X: Array, Z: Array, n: NDArray[np.int64]) -> Estimates:
    """√(Σ X / Σ Z) for K ratios of sums of squares.

    Args:
        X, Z: [G, K], sums of each group, not negative.
        n: [K], samples behind each ratio.
    """
    G = len(X)
    top, bottom = X.sum(0), Z.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.sqrt(top / bottom)
        left_out = 0.5 * np.log((top - X) / (bottom - Z))
        spread = left_out - left_out.mean(0)
        se = np.sqrt((G - 1) / G * (spread**2).sum(0)) if G > 1 else np.full(len(top), np.nan)
        factor = np.exp(_t(G) * se)
        low, high = value / factor, value * factor
    # An error of exactly zero has no logarithm, and needs none; not even where nothing is of size.
    zero = (top == 0) & (n > 0)
    value, low, high, se = (np.where(zero, 0.0, x) for x in (value, low, high, se))
    return Estimates(value, value * se, low, high, n, "jackknife of the logarithm")


def mean(values: Array) -> Estimates:
    """Mean of [G, K] over groups; NaN entries do not count."""
    finite = np.isfinite(values)
    G = finite.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = np.where(finite, values, 0.0).sum(0) / G
        square = np.where(finite, values - centre, 0.0) ** 2
        se = np.sqrt(square.sum(0) / (G - 1) / G)
        half = np.array([_t(int(g)) for g in G]) * se
    return Estimates(centre, se, centre - half, centre + half, G.astype(np.int64), "Student's t")


def median(values: Array) -> Estimates:
    """Median of [G, K] over groups with the exact interval of order statistics; inf may occur."""
    K = values.shape[1]
    ordered = np.sort(values, axis=0)  # NaN last
    count = (~np.isnan(values)).sum(0)
    centre, low, high = np.full(K, np.nan), np.full(K, np.nan), np.full(K, np.nan)
    for k in range(K):
        g = int(count[k])
        if g == 0:
            continue
        column = ordered[:g, k]
        centre[k] = (column[(g - 1) // 2] + column[g // 2]) / 2
        beyond = int(scipy.stats.binom.ppf((1 - _LEVEL) / 2, g, 0.5))
        low[k] = column[beyond - 1] if beyond else -np.inf
        high[k] = column[g - beyond] if beyond else np.inf
    return Estimates(
        centre, np.full(K, np.nan), low, high, count.astype(np.int64), "order statistics"
    )


@lru_cache(maxsize=256)
def _t(groups: int) -> float:
    """The factor of a two-sided interval; NaN for a single group."""
    return float(scipy.stats.t.ppf((1 + _LEVEL) / 2, groups - 1)) if groups > 1 else float("nan")
