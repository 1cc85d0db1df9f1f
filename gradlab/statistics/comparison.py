"""Two estimates on the same starts: which is larger, by how much, and how many more would decide.

Estimates that share starts and noise (common random numbers) have left-out values of the same
groups; the jackknife of their difference, or of the logarithm of their ratio, keeps what they have
in common out of its error. Where the interval does not decide, its error falls as 1/√N, so that

    N + M = N ((z_{97.5%} + z_power) se / gap)²

samples decide with the stated power, were the gap what it is estimated to be. Near no bias, where
the error of a squared bias falls as 1/N, M is larger than it need be.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import numpy as np
import scipy

from gradlab.errors import InputError
from gradlab.statistics.intervals import Interval, Z, jackknife_se, skewness_corrected
from gradlab.statistics.moments import Estimate, combine

POWER = 0.8
UNAFFORDABLE = 1_000_000


def difference(first: Estimate, second: Estimate) -> Interval:
    """Interval of first − second, for any quantity (squared biases, errors, variances, cosines).

    Raises:
        InputError: they were not measured on the same groups.
    """
    _check(first, second)
    gap = combine(lambda a, b: a - b, first, second)
    return _interval(gap, "paired jackknife with skewness")


def log_ratio(first: Estimate, second: Estimate) -> Interval | None:
    """Interval of log(first / second); None where one of them is not known to be above 0.

    Raises:
        InputError: they were not measured on the same groups.
    """
    _check(first, second)
    if not all(
        estimate.value > 0 and (estimate.left_out > 0).all() for estimate in (first, second)
    ):
        return None
    ratio = combine(lambda a, b: np.log(a) - np.log(b), first, second)
    return _interval(ratio, "paired jackknife with skewness, of the logarithm")


def ratio_interval(first: Estimate, second: Estimate) -> Interval:
    """Interval of first / second where the second's sign is known; the first may have either.

    Raises:
        InputError: they were not measured on the same groups.
    """
    _check(first, second)
    ratio = combine(lambda a, b: a / b, first, second)
    return _interval(ratio, "paired jackknife with skewness, of the ratio")


def on_joint_groups(first: Estimate, second: Estimate) -> tuple[Estimate, Estimate]:
    """Estimates from starts of their own, as if on all groups of both.

    Leaving out a group of one leaves the other as it is, so that their errors add.
    """
    g, h = len(first.left_out), len(second.left_out)
    one = np.concatenate([first.left_out, np.full(h, first.value)])
    other = np.concatenate([np.full(g, second.value), second.left_out])
    return replace(first, left_out=one), replace(second, left_out=other)


def more_samples(gap: float, se: float, samples: int, power: float = POWER) -> int | None:
    """M: further samples with which 0 is left out of the interval of a quantity with this gap to 0.

    Args:
        gap: the estimate's distance from what it is compared with; se: its standard error.
        power: share of repetitions that shall decide, above 1/2.

    Returns:
        0 where the present ones should do; None where no affordable number would.
    """
    if not (np.isfinite(gap) and np.isfinite(se)) or gap == 0:
        return None
    reach = Z + float(scipy.stats.norm.ppf(power))
    missing = samples * ((reach * se / gap) ** 2 - 1)
    return max(0, ceil(missing)) if missing <= UNAFFORDABLE else None


def _interval(estimate: Estimate, method: str) -> Interval:
    low, high = skewness_corrected(estimate)
    return Interval(low, high, jackknife_se(estimate.left_out), method)


def _check(first: Estimate, second: Estimate) -> None:
    if len(first.left_out) != len(second.left_out):
        raise InputError(
            f"first has {len(first.left_out)} groups and second {len(second.left_out)}: "
            f"compare estimates from the same starts"
        )
