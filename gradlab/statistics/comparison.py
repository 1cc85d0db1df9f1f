"""Two estimates on the same starts: which is larger, by how much, and how many more would decide.

Estimates that share starts and noise (common random numbers) have left-out values of the same
groups; the jackknife of their difference, or of the logarithm of their ratio, keeps what they have
in common out of its error. Where the interval does not decide, its error falls as 1/√N, so that

    N + M = N ((z_{97.5%} + z_power) se / gap)²

samples decide with the stated power, were the gap what it is estimated to be. Near no bias, where
the error of a squared bias falls as 1/N, M is larger than it need be.

A measured number with its interval, and what it decides.

decided above   the whole 95% interval lies above the threshold
decided below   the whole interval lies below it
undecided       the threshold lies in between: M more samples would decide, were the number what
                it is estimated to be (`comparison.more_samples`, by its standard error, or where
                only the interval is known by the end that faces the threshold)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, isfinite, nan
from typing import Literal

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


_DECADE = 10.0


@dataclass(frozen=True)
class Number:
    """A value, the ends of its 95% interval, the samples behind it and its standard error.

    Attributes:
        value: NaN where it is lost; noise-corrected values may lie beyond the ends.
        low, high: of the interval; n: samples; se: NaN where only the interval is known.
    """

    value: float
    low: float
    high: float
    n: int
    se: float = nan

    @property
    def spans_decades(self) -> bool:
        """Lost, without an end, or with ends more than tenfold apart: "unknown", not a result.

        An interval that holds 0 has no ratio of its ends; it is a bound from above, or undecided.
        """
        if not all(map(isfinite, self.estimate)):
            return True
        near, far = sorted((abs(self.low), abs(self.high)))
        return self.low * self.high > 0 and far > _DECADE * near

    @property
    def estimate(self) -> tuple[float, float, float]:
        """The value and its two ends."""
        return self.value, self.low, self.high

    @property
    def negative(self) -> Number:
        return Number(-self.value, -self.high, -self.low, self.n, self.se)

    @property
    def clipped(self) -> float:
        """The value, moved into its interval."""
        return min(max(self.value, self.low), self.high)


@dataclass(frozen=True)
class Decision:
    """What a number decides about a threshold.

    Attributes:
        kind: where the number is known to lie.
        guess: where its value lies; "unknown" where it is lost or on the threshold.
        more: samples to add that would decide, 0 where decided; None where no affordable number
            would, or it cannot be estimated.
    """

    kind: Literal["above", "below", "undecided"]
    guess: Literal["above", "below", "unknown"]
    more: int | None

    @property
    def decided(self) -> bool:
        return self.kind != "undecided"


def decide(number: Number, threshold: float, power: float = POWER) -> Decision:
    """Whether the number lies above or below the threshold.

    Args:
        power: share of repetitions that shall decide with the samples that are asked for.
    """
    if number.low > threshold:
        return Decision("above", "above", 0)
    if number.high < threshold:
        return Decision("below", "below", 0)
    value = number.clipped
    if not isfinite(value) or value == threshold:
        return Decision("undecided", "unknown", None)
    above = value > threshold
    half = value - number.low if above else number.high - value
    se = number.se if isfinite(number.se) else half / Z
    more = more_samples(abs(value - threshold), se, number.n, power)
    return Decision("undecided", "above" if above else "below", more)
