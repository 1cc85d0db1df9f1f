"""A measured number with its interval, and what it decides.

decided above   the whole 95% interval lies above the threshold
decided below   the whole interval lies below it
undecided       the threshold lies in between: M more samples would decide, were the number what
                it is estimated to be (`comparison.more_samples`, by its standard error, or where
                only the interval is known by the end that faces the threshold)
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, nan
from typing import Literal

from gradlab.statistics.comparison import POWER, more_samples
from gradlab.statistics.intervals import Z

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
