"""Growth of the variance with the horizon.

    log v_n = a + b n   for n ≥ onset            doubling every ln 2 / b steps

The onset is where a continuous line of two pieces fits log v best; the slope's interval comes from
the jackknife over groups at that onset, with the degrees of freedom that its kurtosis leaves
(`intervals.freedom`). A power law log v_n = a + k log n on the same stretch is fitted beside
it; Akaike's criterion, by at least 10, decides between the two.

The law of a model's multi-step error: linear, a power, or exponential.

    E_i = sqrt(mean_starts |s_{t+i} − ŝ_{t+i}|²),   i = 1 … H
    power        log E_i = a + k log i        linear growth (MPG, Condition 1) is k = 1
    exponential  log E_i = a + b i            doubling every ln 2 / b steps

Both are least-squares lines. Akaike's criterion, by at least 10, decides which one it is. An
exponential overtakes every line through the origin after 1/b steps: with fewer steps in view it is
no evidence against a line. Intervals resample starts, all steps of one together.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log
from typing import Literal

import numpy as np

from gradlab.errors import InputError
from gradlab.statistics.intervals import bootstrap_counts, freedom, jackknife_se, student
from gradlab.statistics.moments import Array

FEWEST = 5  # points behind a slope
_LENIENCE = 1.1  # the earliest onset wins whose squared error is within 10% of the least
DECISIVE = 10.0  # difference of AIC that tells an exponential from a power law
_NEGLIGIBLE = 1e-12  # squared error of an exact line in rounding


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
    return next(k for k, error in enumerate(errors) if error <= _LENIENCE * least + _NEGLIGIBLE)


def _slope_weights(x: Array) -> Array:
    """w with w · y = least-squares slope of y on x."""
    centred = x - x.mean()
    return np.asarray(centred / (centred @ centred))


def _residual(x: Array, y: Array) -> float:
    centred = y - y.mean()
    slope = float(_slope_weights(x) @ y)
    return float(((centred - slope * (x - x.mean())) ** 2).sum()) + _NEGLIGIBLE


_LINEAR = (0.8, 1.2)  # exponents that are called linear
_FIT = 0.95  # least R² of a power law that is called linear
_Law = Literal["linear", "slower", "faster", "exponential", "undecided"]


@dataclass(frozen=True)
class _Fitted:
    """A number with its 95% bootstrap interval over starts."""

    value: float
    low: float
    high: float

    def inside(self, low: float, high: float) -> bool:
        return low <= self.low and self.high <= high


@dataclass(frozen=True)
class ErrorGrowth:
    """Both fits of one error curve.

    Attributes:
        errors: E_i of steps 1 … H, [H].
        exponent: k; rate: b per step.
        power_fit: R² of the power law on the logarithmic scale.
        evidence: AIC of the power law less that of the exponential; above 0 speaks for the latter.
    """

    errors: Array
    exponent: _Fitted
    rate: _Fitted
    power_fit: float
    evidence: _Fitted

    @property
    def law(self) -> _Law:
        """ "exponential" first: its power law may look steep, or linear over a few steps."""
        overtakes = self.rate.low * len(self.errors) > 1
        if self.evidence.low >= DECISIVE and overtakes:
            return "exponential"
        if self.exponent.inside(*_LINEAR) and self.power_fit >= _FIT:
            return "linear"
        if self.exponent.high < _LINEAR[0]:
            return "slower"
        return "faster" if self.exponent.low > _LINEAR[1] else "undecided"


def error_growth(distances: Array) -> ErrorGrowth | None:
    """The growth of |s_{t+i} − ŝ_{t+i}|; None for a model without error at some step.

    Args:
        distances: [N, H], one row per start, steps 1 … H; independent rows.

    Raises:
        InputError: too few rows or steps, or a distance that is negative or not finite.
    """
    values = np.asarray(distances, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] < 2 or values.shape[1] < FEWEST:
        raise InputError(
            f"distances have shape {values.shape}, expected [starts ≥ 2, steps ≥ {FEWEST}]"
        )
    if not np.isfinite(values).all() or values.min() < 0:
        raise InputError("distances are not all finite numbers from 0: shorten the horizon")
    squares, n = values**2, len(values)
    counts = np.concatenate([np.ones((1, n)), bootstrap_counts(n)])
    curves = np.sqrt(counts @ squares / n)
    if (curves == 0).any():
        return None
    steps, logs = np.arange(1.0, values.shape[1] + 1), np.log(curves)
    k, power_residual = _lines(np.log(steps), logs)
    b, exponential_residual = _lines(steps, logs)
    evidence = len(steps) * np.log(power_residual / exponential_residual)
    spread = ((logs[0] - logs[0].mean()) ** 2).sum() + _NEGLIGIBLE
    return ErrorGrowth(
        errors=curves[0],
        exponent=_fitted(k),
        rate=_fitted(b),
        power_fit=float(1 - power_residual[0] / spread),
        evidence=_fitted(evidence),
    )


def _lines(x: Array, y: Array) -> tuple[Array, Array]:
    """Slope and squared error of the line through each row of y [R, H]."""
    centred, heights = x - x.mean(), y - y.mean(axis=1, keepdims=True)
    slope = heights @ centred / (centred @ centred)
    residual = ((heights - slope[:, None] * centred) ** 2).sum(axis=1)
    return slope, residual + _NEGLIGIBLE


def _fitted(draws: Array) -> _Fitted:
    """The first draw with the percentiles of the others."""
    low, high = np.quantile(draws[1:], [0.025, 0.975])
    return _Fitted(float(draws[0]), float(low), float(high))
