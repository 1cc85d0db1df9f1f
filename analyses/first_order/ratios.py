"""Ratios of two errors on the same starts, several at once: intervals by Bonferroni.

log(first / second) ± z se,   se of the jackknife over starts, z at 1 − 0.05 / 2·looks
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from gradlab.statistics.intervals import jackknife_se
from gradlab.statistics.moments import Estimate

LEVEL = 0.05  # of all looks together


def total(parts: Sequence[Estimate]) -> Estimate:
    """Sum of estimates from samples of their own; NaN of none."""
    value = float(sum(part.value for part in parts)) if parts else np.nan
    left_out = [value - part.value + part.left_out for part in parts]
    return Estimate(value, np.concatenate(left_out) if parts else np.array([np.nan]))


def ratio_of(first: Estimate, second: Estimate, looks: int) -> dict[str, float]:
    """value, low and high of first / second; without ends where one is not known to be above 0."""
    value = first.value / second.value
    positive = all(one.value > 0 and bool((one.left_out > 0).all()) for one in (first, second))
    if not positive:
        return {"value": value, "low": np.nan, "high": np.nan}
    se = jackknife_se(np.log(first.left_out) - np.log(second.left_out))
    reach = float(stats.norm.ppf(1 - LEVEL / (2 * looks))) * se
    return {"value": value, "low": value * np.exp(-reach), "high": value * np.exp(reach)}
