"""Student's 95% interval of a mean over seeds, trials or models."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


def half_width(values: ArrayLike, level: float = 0.95) -> NDArray[np.float64]:
    """Half of the interval of the mean along the last axis; NaN for a single value."""
    samples = np.asarray(values, dtype=np.float64)
    n = samples.shape[-1]
    if n < 2:
        return np.full(samples.shape[:-1], np.nan)
    quantile = stats.t.ppf((1 + level) / 2, n - 1)
    return np.asarray(quantile * samples.std(axis=-1, ddof=1) / n**0.5)


def geometric_mean(ratios: ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """Of positive numbers: the mean and the ends of its interval."""
    logs = np.log(np.asarray(ratios, dtype=np.float64))
    half = float(half_width(logs, level))
    value, low, high = np.exp(logs.mean() + np.array([0.0, -half, half]))
    return float(value), float(low), float(high)
