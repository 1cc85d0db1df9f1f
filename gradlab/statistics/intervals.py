"""95% intervals from leave-one-group-out values.

    se² = (G − 1)/G Σ_g (θ_(−g) − θ̄)²                      the jackknife over groups

Each quantity has the scale on which its jackknife covers best (`tests/statistics` measures it):
    bias2      normal, clipped at 0           variance  bootstrap-t over jackknife pseudo-values
    mse, relative_mse, snr  normal in the logarithm   mean_norm  normal in the square, clipped at 0
    cosine     normal in atanh while the interval stays inside (−1, 1), else on the raw scale
Never the percentile bootstrap with duplicates: it covers a squared bias in 38 cases of 100.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gradlab.statistics.moments import Array, Estimate

Z = 1.959963984540054
REPLICATES = 1999


@dataclass(frozen=True)
class Interval:
    low: float
    high: float
    se: float
    method: str


def jackknife_se(left_out: Array) -> float:
    """Standard error from values with each group left out, [G]."""
    g = len(left_out)
    return float(np.sqrt((g - 1) / g * ((left_out - left_out.mean()) ** 2).sum()))


def pseudo_values(estimate: Estimate) -> Array:
    """θ + (G − 1)(θ̄ − θ_(−g)): behave like G independent draws whose mean is the estimate."""
    g = len(estimate.left_out)
    centred = estimate.left_out.mean() - estimate.left_out
    return np.asarray(estimate.value + (g - 1) * centred, dtype=np.float64)


def interval(quantity: str, estimate: Estimate) -> Interval:
    """The 95% interval of one quantity."""
    if not np.isfinite(estimate.value) or not np.isfinite(estimate.left_out).all():
        low, high = (-1.0, 1.0) if quantity == "cosine" else (np.nan, np.nan)
        return Interval(low, high, np.nan, "undefined: lost in noise")
    se = jackknife_se(estimate.left_out)
    if quantity == "bias2":
        low, high = _normal(estimate.value, se)
        return Interval(max(low, 0.0), max(high, 0.0), se, "U-statistic, jackknife")
    if quantity == "variance":
        return _bootstrap_t(estimate, se)
    if quantity == "mean_norm":
        return _norm_interval(estimate, se)
    if quantity in ("mse", "relative_mse", "snr"):
        return _log_interval(estimate, se)
    if quantity == "cosine":
        return _cosine_interval(estimate, se)
    raise ValueError(f"no interval is known for {quantity!r}")


def _normal(value: float, se: float) -> tuple[float, float]:
    return value - Z * se, value + Z * se


def _norm_interval(estimate: Estimate, se: float) -> Interval:
    square = Estimate(estimate.value**2, estimate.left_out**2)
    low, high = _normal(square.value, jackknife_se(square.left_out))
    return Interval(max(low, 0.0) ** 0.5, max(high, 0.0) ** 0.5, se, "jackknife of the square")


def _log_interval(estimate: Estimate, se: float) -> Interval:
    if estimate.value <= 0 or (estimate.left_out <= 0).any():
        low, high = _normal(estimate.value, se)
        return Interval(max(low, 0.0), max(high, 0.0), se, "jackknife")
    spread = Z * jackknife_se(np.log(estimate.left_out))
    low, high = estimate.value * np.exp(-spread), estimate.value * np.exp(spread)
    return Interval(float(low), float(high), se, "jackknife of the logarithm")


def _cosine_interval(estimate: Estimate, se: float) -> Interval:
    low, high = _normal(estimate.value, se)
    if max(abs(low), abs(high)) < 1.0:
        spread = Z * se / (1 - estimate.value**2)
        centre = np.arctanh(estimate.value)
        low, high = np.tanh(centre - spread), np.tanh(centre + spread)
        return Interval(float(low), float(high), se, "jackknife of atanh")
    return Interval(max(low, -1.0), min(high, 1.0), se, "jackknife")


def _bootstrap_t(estimate: Estimate, se: float) -> Interval:
    values = pseudo_values(estimate)
    if se <= 1e-12 * abs(estimate.value):
        return Interval(estimate.value, estimate.value, se, "bootstrap-t")
    counts = bootstrap_counts(len(values))
    with np.errstate(over="ignore", invalid="ignore"):
        mean = counts @ values / len(values)
        spread = np.maximum(counts @ values**2 / len(values) - mean**2, 0.0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        t = (mean - values.mean()) / np.sqrt(spread / len(values))
    t = t[np.isfinite(t)]
    if len(t) < REPLICATES // 2:
        return Interval(np.nan, np.nan, se, "undefined: overflows")
    lower, upper = np.quantile(t, [0.975, 0.025])
    low, high = estimate.value - lower * se, estimate.value - upper * se
    return Interval(max(float(low), 0.0), float(high), se, "bootstrap-t")


@lru_cache(maxsize=4)
def bootstrap_counts(groups: int, replicates: int = REPLICATES) -> NDArray[np.float64]:
    """How often each group is drawn, [replicates, groups]; the same draws for every quantity."""
    generator = np.random.default_rng([20_240_501, groups])
    even = np.full(groups, 1.0 / groups)
    return generator.multinomial(groups, even, size=replicates).astype(np.float64)
