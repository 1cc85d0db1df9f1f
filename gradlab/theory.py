"""Bounds in words: does a theorem apply, how loose is it, and where does it put its smallest value?

The measured bias comes with its interval; a bound is compared with both of its ends, so that
"violated" is only said of what cannot be noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradlab.findings import Bound
from gradlab.profile import Profile

Span = tuple[float, float, float]


@dataclass(frozen=True)
class Promise:
    """One bound beside the measurement, as text.

    Attributes:
        ratio: bound over |bias| where |bias| is smallest, with that of its interval's ends; None
            where there is no number.
        looseness: the same in words; least: where the bound is smallest; why: in
            short.
    """

    theorem: str
    estimator: str
    applies: bool
    ratio: Span | None
    looseness: str
    least: str
    why: str


def promises(profile: Profile) -> tuple[Promise, ...]:
    """Every bound of a profile, in its order."""
    bounds = () if profile.theory is None else profile.theory.bounds
    return tuple(_promise(profile, each) for each in bounds)


def theory_sentence(profile: Profile, estimator: str) -> str:
    """Which theorems apply to an estimator and how far they are from its measured bias."""
    found = [each for each in promises(profile) if each.estimator == estimator]
    n = f"N = {profile.config['starts']}"
    parts = [
        f"{each.theorem} applies and {each.looseness}"
        for each in found
        if each.applies and each.ratio is not None
    ]
    parts += [f"{each.theorem} does not apply ({each.why})" for each in found if not each.applies]
    return f"Theory ({n}): {'; '.join(parts)}." if parts else ""


def _promise(profile: Profile, bound: Bound) -> Promise:
    at, bias = _least_bias(profile, bound)
    ratio: Span | None = None
    looseness = "no bias to compare with"
    if at is not None and np.isfinite(bound.values[at]):
        value = float(bound.values[at])
        ratio = _over(value, bias)
        looseness = _looseness(value, bias, at)
    elif at is not None:
        looseness = "gives no number"
    least = "–"
    if bound.best >= 0:
        least = f"{_number(float(bound.values[bound.best]))} at h = {bound.best}"
    return Promise(
        bound.theorem, bound.estimator, bound.applies, ratio, looseness, least, bound.sentence
    )


def _least_bias(profile: Profile, bound: Bound) -> tuple[int | None, Span]:
    """Where |bias| is smallest among the horizons the bound speaks of, with its interval."""
    nothing = np.nan, np.nan, np.nan
    if bound.estimator not in profile.estimators or "bias2" not in profile.quantities:
        return None, nothing
    e, q = profile.estimators.index(bound.estimator), profile.quantities.index("bias2")
    value, low, high = (
        np.sqrt(np.maximum(profile.columns[name][e, q], 0.0))
        for name in ("value", "ci_low", "ci_high")
    )
    known = np.isfinite(value) & np.isfinite(bound.values)
    if not known.any():
        return (int(np.nanargmin(value)), nothing) if np.isfinite(value).any() else (None, nothing)
    at = int(np.where(known, value, np.inf).argmin())
    return at, (float(value[at]), float(low[at]), float(high[at]))


def _over(value: float, bias: Span) -> Span:
    return tuple(value / each if each > 0 else np.inf for each in bias)  # type: ignore[return-value]


def _looseness(value: float, bias: Span, at: int) -> str:
    size, low, high = bias
    where = f"at h = {at} (bound {_number(value)}, bias {_number(size)}, CI {_ci(low, high)})"
    if value < low:
        return f"is violated {where}: its constants are lower estimates"
    if high <= 0:
        return f"cannot be compared {where}"
    if size <= 0 or low <= 0:
        return f"is at least {_number(value / high)} times the bias {where}"
    return f"is {_number(value / size)} times the bias {where}"


def _ci(low: float, high: float) -> str:
    return f"{_number(low)}–{_number(high)}"


def _number(value: float) -> str:
    """Two significant digits, without an exponent where that is short."""
    return f"{float(f'{value:.2g}'):g}" if abs(value) < 1e5 else f"{value:.1e}"
