"""Growth of the variance with the horizon.

    log v_n = a + b n   for n ≥ onset            doubling every ln 2 / b steps

The onset is where a continuous line of two pieces fits log v best; the slope's interval comes from
the jackknife over groups at that onset, with the degrees of freedom that its kurtosis leaves
(`intervals.freedom`). A power law log v_n = a + k log n on the same stretch is fitted beside
it; Akaike's criterion, by at least 10, decides between the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log
from typing import Literal

import numpy as np

from gradlab.statistics.intervals import freedom, jackknife_se, student
from gradlab.statistics.moments import Array

FEWEST = 5  # points behind a slope
LENIENCE = 1.1  # the earliest onset wins whose squared error is within 10% of the least
DECISIVE = 10.0  # difference of AIC that tells an exponential from a power law
NEGLIGIBLE = 1e-12  # squared error of an exact line in rounding


@dataclass(frozen=True)
class Growth:
    """Slope of log variance per step from `onset` to `last`, with its 95% interval.

    Attributes:
        power: exponent k of the power law on the stretch.
        evidence: AIC of the power law less that of the exponential; above 0 speaks for the latter.
    """

    onset: int
    last: int
    slope: float
    low: float
    high: float
    power: float
    evidence: float

    @property
    def grows(self) -> bool:
        """The slope's interval is above 0."""
        return self.low > 0

    @property
    def factor(self) -> float:
        """Last over first variance of the fitted stretch."""
        return exp(self.slope * (self.last - self.onset))

    @property
    def law(self) -> Literal["exponential", "power", "either"]:
        """What the growth follows; "either" where the stretch is too short to tell."""
        if abs(self.evidence) < DECISIVE:
            return "either"
        return "exponential" if self.evidence > 0 else "power"


def variance_growth(horizons: Array, variance: Array, left_out: Array) -> Growth | None:
    """Growth of the variance over horizons ≥ 1; None with too few of them or a variance of 0.

    Args:
        horizons: [H], increasing, ≥ 1.
        variance: [H], left_out: [H, G], the variance with each group left out.
    """
    usable = np.isfinite(variance).all() and (variance > 0).all() and (left_out > 0).all()
    if len(horizons) < FEWEST or not usable:
        return None
    y = np.log(variance)
    begin = _onset(horizons, y)
    n, tail = horizons[begin:], y[begin:]
    weights = _slope_weights(n)
    slope = float(weights @ tail)
    slopes = weights @ np.log(left_out[begin:])
    reach = student(freedom(slopes)) * jackknife_se(slopes)
    power = float(_slope_weights(np.log(n)) @ tail)
    return Growth(
        onset=int(n[0]),
        last=int(n[-1]),
        slope=slope,
        low=slope - reach,
        high=slope + reach,
        power=power,
        evidence=len(n) * log(_residual(np.log(n), tail) / _residual(n, tail)),
    )


def _onset(n: Array, y: Array) -> int:
    """First index of the last piece of the continuous two-piece line that fits best."""
    errors = []
    for begin in range(len(n) - FEWEST + 1):
        hinge = np.maximum(n - n[begin], 0.0)
        design = np.stack([np.ones_like(n), n - n[0], hinge], axis=1)
        fitted = design @ np.linalg.lstsq(design, y, rcond=None)[0]
        errors.append(float(((y - fitted) ** 2).sum()))
    least = min(errors)
    return next(k for k, error in enumerate(errors) if error <= LENIENCE * least + NEGLIGIBLE)


def _slope_weights(x: Array) -> Array:
    """w with w · y = least-squares slope of y on x."""
    centred = x - x.mean()
    return np.asarray(centred / (centred @ centred))


def _residual(x: Array, y: Array) -> float:
    centred = y - y.mean()
    slope = float(_slope_weights(x) @ y)
    return float(((centred - slope * (x - x.mean())) ** 2).sum()) + NEGLIGIBLE
