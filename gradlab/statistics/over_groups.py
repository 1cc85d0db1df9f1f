"""Means, medians and ratios over groups of starts, many at once, each with its 95% interval.

    root ratio   √(Σ_g X_g / Σ_g Z_g)     jackknife of the logarithm, Student's t
    mean         group means              Student's t
    median       group means              order statistics: no assumption on the tails

A group (starts of one trajectory) is the unit of every interval; all starts count alike. Student's
t instead of the normal, since some questions can afford a dozen groups only.

Several seeds together have their median, and the order statistics around it:

    P(x_(r) ≤ median ≤ x_(K+1−r)) = 1 − 2 P(Bin(K, ½) < r)

holds for any law of the seeds, with diverged ones in it as well, which neither a bootstrap over
five seeds nor Student's quantile does: five Gaussian seeds are covered in 90 of 100 cases by the
one, and 67 where one seed in five is lost. The innermost pair with at least 95% is taken; fewer
than six seeds have none, and their range is what there is: 94% for five, 88, 75 and 50% for fewer.

A seed that is lost (NaN) counts, as the worst there is: a median over the survivors would be of
the runs that went well.

Means over few groups, and ratios of two of them, alone or several together:

    mean    on each side the wider end of Student's interval and of Hall's (`intervals`): of 16
            skewed groups the one misses in 7 to 11 cases of 100, the other in 6 to 9, both in 6
    gap     of two separate samples: Welch's
    ratio   all ρ with |ā − ρ b̄| ≤ t se(a − ρ b)       (Fieller 1954, J. R. Stat. Soc. B 16)

The latter's linear combination has less skewness than either mean: Student's quantile covers from
16 groups on. Of `among` intervals that hold together each is at 1 − 5%/among (Bonferroni).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import scipy
from numpy.typing import NDArray

from gradlab.statistics.comparison import Number
from gradlab.statistics.intervals import (
    LEVEL,
    Interval,
    jackknife_se,
    pseudo_values,
    skewness_corrected,
    student,
)
from gradlab.statistics.moments import Array, Estimate

_LEVEL = 0.95
_Floats = NDArray[np.float64]
_Worst = Literal["low", "high"]


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


@dataclass(frozen=True)
class _Aggregate:
    """Median, interval and lost seeds, each [...] without the seeds' axis.

    Attributes:
        value, low, high: NaN where they fall on a lost seed; the interval of one seed is NaN.
        lost: seeds without a value.
        level: probability that the interval holds the median of all seeds.
    """

    value: _Floats
    low: _Floats
    high: _Floats
    lost: NDArray[np.int64]
    level: float


def aggregate(values: _Floats, worst: _Worst = "low") -> _Aggregate:
    """Median over seeds (last axis) with the order statistics around it.

    Args:
        worst: the side on which a lost seed counts: "low" for returns, "high" for errors and norms.
    """
    seeds = values.shape[-1]
    missing = ~np.isfinite(values)
    ordered = np.sort(np.where(missing, -np.inf if worst == "low" else np.inf, values), axis=-1)
    middle = ordered[..., [(seeds - 1) // 2, seeds // 2]].mean(axis=-1)
    rank, level = innermost(seeds)
    low, high = ordered[..., rank - 1], ordered[..., seeds - rank]
    if seeds < 2:
        low = high = np.full(middle.shape, np.nan)
    value, low, high = (np.where(np.isfinite(x), x, np.nan) for x in (middle, low, high))
    return _Aggregate(value, low, high, missing.sum(axis=-1), level)


def innermost(seeds: int) -> tuple[int, float]:
    """Rank r of the innermost order statistics around the median with 95%, and what they have.

    The range, r = 1, where not even that has 95%.
    """
    rank = 1
    while 2 * (rank + 1) <= seeds and _level(seeds, rank + 1) >= _LEVEL:
        rank += 1
    return rank, _level(seeds, rank)


def _level(seeds: int, rank: int) -> float:
    return 1 - 2 * float(scipy.special.bdtr(rank - 1, seeds, 0.5))


def level_of(among: int) -> float:
    """Of each end of one of `among` 95% intervals that hold together."""
    return 1 - (1 - LEVEL) / max(among, 1)


def mean_interval(mean: Estimate, among: int = 1) -> Interval:
    """Of a mean over groups."""
    return mean_interval_at(mean, level_of(among))


def mean_interval_at(mean: Estimate, level: float) -> Interval:
    """Of a mean over groups, each end at this level."""
    se = jackknife_se(mean.left_out)
    half = student(len(mean.left_out) - 1, level) * se
    low, high = skewness_corrected(mean, level)
    ends = min(low, mean.value - half), max(high, mean.value + half)
    return Interval(*ends, se, "wider end of Student's and the skewness-corrected jackknife")


def ratio_of_means(above: Estimate, below: Estimate, among: int = 1) -> Interval | None:
    """Of above / below on the same groups; None where the sign of the latter is not known."""
    groups = len(below.left_out)
    z2 = student(groups - 1, level_of(among)) ** 2
    psi = np.stack([pseudo_values(above), pseudo_values(below)])
    (aa, ab), (_, bb) = np.cov(psi) / groups
    a, b = above.value, below.value
    square, linear, rest = b**2 - z2 * bb, a * b - z2 * ab, a**2 - z2 * aa
    if not square > 0:
        return None
    root = np.sqrt(max(linear**2 - square * rest, 0.0))
    ratio = a / b
    se = float(np.sqrt(max(aa - 2 * ratio * ab + ratio**2 * bb, 0.0)) / abs(b))
    return Interval(
        float((linear - root) / square), float((linear + root) / square), se, "Fieller, Student"
    )


def student_mean(values: Array, level: float = LEVEL) -> Number:
    """The mean of two values or more, each end of Student's interval at this level."""
    value, se = float(values.mean()), float(values.std(ddof=1)) / len(values) ** 0.5
    half = student(len(values) - 1, level) * se
    return Number(value, value - half, value + half, len(values), se)


def difference_of_means(above: Array, below: Array, level: float = LEVEL) -> Number:
    """mean(above) − mean(below) of separate samples, each end at this level (Welch 1947,
    Biometrika 34); NaN where one has fewer than two."""
    sizes = len(above), len(below)
    if min(sizes) < 2:
        return Number(np.nan, np.nan, np.nan, min(sizes))
    value = float(above.mean() - below.mean())
    a, b = (float(each.var(ddof=1)) / len(each) for each in (above, below))
    se = float(np.sqrt(a + b))
    if not se > 0:
        return Number(value, value, value, min(sizes), se)
    freedom = (a + b) ** 2 / (a**2 / (sizes[0] - 1) + b**2 / (sizes[1] - 1))
    half = student(freedom, level) * se
    return Number(value, value - half, value + half, min(sizes), se)
