"""Checks derived from the numbers of a saved profile, without new computation.

signs   whether the recommended gradient moves more than half of the parameters the right way, by
        the lower end of the interval; without one the longest h up to which every horizon does
norm    steps per factor of ten of a sample's gradient, and where it would leave float32
"""

from __future__ import annotations

from math import log, sqrt

from gradlab.runs.check_results import CheckResult
from gradlab.runs.decision_rules import growth_of, horizons_of, judged_estimator
from gradlab.runs.profile import Profile
from gradlab.statistics.intervals import interval
from gradlab.wording import gradient, percent, samples, span, two

_Cell = tuple[str, int]
_CHANCE = 0.5
_FLOAT32 = 3.4e38
_WHY = {
    "step": "the return bends within the step: no error of the gradients",
    "jump": "the return jumps within the step, which derivatives along a path do not see",
    "boundary": "episodes end, which derivatives along a path do not see",
    "law": "gradients and returns are of different problems: look at law and truth first",
}


def derived_checks(profile: Profile, best: _Cell | None = None) -> tuple[CheckResult, ...]:
    """Results about the judged estimator; none without one.

    Args:
        best: the gradient and horizon that are recommended; None: none is.
    """
    name = judged_estimator(profile)
    if name is None:
        return ()
    signs = _signs(profile, name) if best is None else _signs_at(profile, best)
    results = _steps(profile), signs, _norm(profile, name)
    return tuple(each for each in results if each is not None)


def _steps(profile: Profile) -> CheckResult | None:
    """Whether realised gains are those to first order, within their intervals."""
    taken = getattr(profile, "realised", None)
    if taken is None or not taken.best_is_known:
        return None
    check, n = "realised gains against first order", f"{taken.judges} fresh starts"
    apart = taken.disagreements(profile.table(), profile.jumps)
    if not apart:
        shown = f"agree at {len(taken.stepped)} gradients ({n})"
        return CheckResult(check, shown, "a step does what its direction promises", True)
    worst = max(apart, key=lambda each: abs(each.realised - each.predicted))
    result = (
        f"differ at {len(apart)} of {len(taken.stepped)}: {worst.cell[0]} at h = {worst.cell[1]} "
        f"realised {percent(worst.realised)}, expected {percent(worst.predicted)} ({n})"
    )
    bent = all(each.reason == "step" for each in apart)
    return CheckResult(check, result, _WHY[worst.reason], bent)


def _signs_at(profile: Profile, best: _Cell) -> CheckResult | None:
    """Of the recommended step: what shorter or longer ones do is no reason to doubt it."""
    name, h = best
    if "sign_agreement" not in profile.quantities or not profile.truth["admissible"]:
        return None
    e, q = profile.estimators.index(name), profile.quantities.index("sign_agreement")
    at = e, q, profile.horizons.index(h)
    if not profile.count[at]:
        return None
    value, low, high = (float(profile.columns[c][at]) for c in ("value", "ci_low", "ci_high"))
    ends = f"CI {percent(low)} to {percent(high)}, {samples(profile.config)}"
    check = f"signs of {gradient(profile.identities[name])} at the recommended h = {h}"
    result = f"{percent(value)} of the parameters move the right way ({ends})"
    if low > _CHANCE:
        return CheckResult(check, result, "more than half of them do", True)
    return CheckResult(check, result, "half of them or more may move the wrong way", False)


def _signs(profile: Profile, name: str) -> CheckResult | None:
    over = [h for h in horizons_of(profile, name) if h > 0]
    if "sign_agreement" not in profile.quantities or not over or not profile.truth["admissible"]:
        return None
    e, q = profile.estimators.index(name), profile.quantities.index("sign_agreement")
    if not profile.count[e, q].any():
        return None
    low = {h: profile.columns["ci_low"][e, q, profile.horizons.index(h)] for h in over}
    reliable = 0
    for h in over:
        if not low[h] > _CHANCE:
            break
        reliable = h
    n, check = samples(profile.config), f"signs of {gradient(profile.identities[name])}"
    if reliable == over[-1]:
        result = f"reliable up to h = {reliable}, all that was measured ({n})"
        return CheckResult(
            check, result, "more than half of the parameters move the right way", True
        )
    result = f"reliable up to h = {reliable} ({n})" if reliable else f"reliable at no h ({n})"
    lost = next(h for h in over if h > reliable)
    meaning = f"at h = {lost} half of the parameters or more may move the wrong way"
    return CheckResult(check, result, meaning, False)


def _norm(profile: Profile, name: str) -> CheckResult | None:
    growth = growth_of(profile, name)
    if growth is None:
        return None
    check = f"norm of one sample of {gradient(profile.identities[name])}"
    per_ten = [2 * log(10) / each for each in (growth.high, growth.low, growth.slope) if each > 0]
    stretch = f"h = {growth.onset} to {growth.last}, {samples(profile.config)}"
    if not growth.grows or growth.law == "power" or len(per_ten) < 3:
        return CheckResult(check, f"does not multiply steadily ({stretch})", "no explosion", True)
    low, high, middle = per_ten
    variance = profile.estimate(name, "variance", growth.last).value
    mean = interval("mean_norm", profile.estimate(name, "mean_norm", growth.last)).high
    last = sqrt(max(variance, 1e-300) + (mean**2 if mean == mean else 0.0))
    beyond = growth.last + (log(_FLOAT32) - log(last)) / (growth.slope / 2)
    result = f"multiplies by 10 every {two(middle)} steps (CI {span(low, high)}, {stretch})"
    meaning = f"at this rate it leaves the range of float32 at about step {two(beyond)}"
    # A tenth of a decade per step is where a default horizon of 25 spans more than two of them.
    return CheckResult(check, result, meaning, middle > 10)
