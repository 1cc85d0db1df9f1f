"""Bounds beside what was measured: whether a theorem applies, how loose it is, where it is least.

The measured bias or variance comes with its interval; a bound is compared with both of its ends,
so that "violated" is only said of what cannot be noise. Where there are no bounds at all, the
reason is said instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradlab.runs.bounds import Bound
from gradlab.runs.profile import Profile

Span = tuple[float, float, float]


@dataclass(frozen=True)
class BoundComparison:
    """One bound beside the measurement, as text.

    Attributes:
        quantity: what is bounded, "bias" or "variance".
        ratio: bound over |bias| (or variance) where that is smallest, with that of its interval's
            ends; None where there is no number.
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
    quantity: str = "bias"


def compared_bounds(profile: Profile) -> tuple[BoundComparison, ...]:
    """Every bound of a profile, in its order."""
    bounds = () if profile.theory is None else profile.theory.bounds
    return tuple(_compared(profile, each) for each in bounds)


def bounds_sentence(profile: Profile, estimator: str) -> str:
    """Which theorems apply to an estimator and how far they are from what was measured."""
    mine = [each for each in compared_bounds(profile) if each.estimator == estimator]
    n = f"N = {profile.config['starts']}"
    parts = [
        f"{each.theorem} applies and {each.looseness}"
        for each in mine
        if each.applies and each.ratio is not None
    ]
    parts += [f"{each.theorem} does not apply ({each.why})" for each in mine if not each.applies]
    return f"Theory ({n}): {'; '.join(parts)}." if parts else ""


def absence(profile: Profile) -> str:
    """Why a profile has no bounds, in one sentence; empty where it has some."""
    if profile.theory is not None and profile.theory.bounds:
        return ""
    config = profile.config
    if "truth" not in config or "termination" not in config:
        return "Not recorded: this file has no bounds and does not say how it was measured."
    none = "No theorem is compared with these numbers"
    if config["truth"] == "objective":
        reason = (
            "the bounds are for true gradients from the same starts, and truth='objective' "
            "measures every estimator against the gradient of the whole objective"
        )
    elif not profile.truth.get("admissible", True):
        reason = "no truth is admissible here, so there is no true Q to take constants from"
    elif config["termination"] != "ignore":
        reason = (
            f"the papers' rollouts have no end, and termination={config['termination']!r} "
            "drops what comes after one"
        )
    elif config.get("horizon") == 0:
        reason = "H = 0 unrolls no model"
    else:
        reason = (
            "no estimator both is differentiated through a model other than the simulator (on its "
            "own states or the simulator's) and ends in a critic Q(s, a)"
        )
    return f"{none}: {reason}."


def _compared(profile: Profile, bound: Bound) -> BoundComparison:
    at, size = _least_measured(profile, bound)
    ratio: Span | None = None
    looseness = f"no {bound.quantity} to compare with"
    if at is not None and np.isfinite(bound.values[at]):
        value = float(bound.values[at])
        ratio = _over(value, size)
        looseness = _looseness(bound.quantity, value, size, at)
    elif at is not None:
        looseness = "gives no number"
    least = "–"
    if bound.best >= 0:
        least = f"{_number(float(bound.values[bound.best]))} at h = {bound.best}"
    elif bound.quantity == "variance" and np.isfinite(bound.values).any():
        least = "0 at h = 0, where it is no bound"
    return BoundComparison(
        bound.theorem, bound.estimator, bound.applies, ratio, looseness, least, bound.sentence,
        bound.quantity,
    )  # fmt: skip


def _least_measured(profile: Profile, bound: Bound) -> tuple[int | None, Span]:
    """Where |bias| or variance is smallest among the bound's horizons, with its interval."""
    nothing, quantity = (np.nan, np.nan, np.nan), "variance"
    if bound.quantity == "bias":
        quantity = "bias2"
    if bound.estimator not in profile.estimators or quantity not in profile.quantities:
        return None, nothing
    e, q = profile.estimators.index(bound.estimator), profile.quantities.index(quantity)
    value, low, high = (
        np.maximum(profile.columns[name][e, q], 0.0) for name in ("value", "ci_low", "ci_high")
    )
    if quantity == "bias2":
        value, low, high = np.sqrt(value), np.sqrt(low), np.sqrt(high)
    finite = np.isfinite(value) & np.isfinite(bound.values)
    if not finite.any():
        return (int(np.nanargmin(value)), nothing) if np.isfinite(value).any() else (None, nothing)
    at = int(np.where(finite, value, np.inf).argmin())
    return at, (float(value[at]), float(low[at]), float(high[at]))


def _over(value: float, measured: Span) -> Span:
    return tuple(value / each if each > 0 else np.inf for each in measured)  # type: ignore[return-value]


def _looseness(what: str, value: float, measured: Span, at: int) -> str:
    size, low, high = measured
    where = f"at h = {at} (bound {_number(value)}, {what} {_number(size)}, CI {_ci(low, high)})"
    if value < low:
        return f"is violated {where}: its constants are lower estimates"
    if high <= 0:
        return f"cannot be compared {where}"
    if size <= 0 or low <= 0:
        return f"is at least {_number(value / high)} times the {what} {where}"
    return f"is {_number(value / size)} times the {what} {where}"


def _ci(low: float, high: float) -> str:
    return f"{_number(low)}–{_number(high)}"


def _number(value: float) -> str:
    """Two significant digits, without an exponent where that is short."""
    return f"{float(f'{value:.2g}'):g}" if abs(value) < 1e5 else f"{value:.1e}"
