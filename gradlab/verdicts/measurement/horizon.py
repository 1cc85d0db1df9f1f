"""Form 1: at which horizons may one unroll, where is the error least, what is your setting worth?

The horizon of least error comes with the set of those that may have it (`statistics.selection`),
and with the samples that would make it smaller; both rest on differences on the same starts.
"""

from __future__ import annotations

from math import log

import numpy as np

from gradlab.runs.decision_rules import (
    best_horizons,
    horizons_of,
    judged_horizons,
    least_ratio,
    ratio_to_best,
)
from gradlab.runs.profile import Profile
from gradlab.runs.usable_horizons import COSINE, EXCESS, UsableHorizons, usable_horizons
from gradlab.statistics.comparison import more_samples
from gradlab.statistics.intervals import interval, jackknife_se
from gradlab.statistics.selection import RankSet, separations
from gradlab.verdicts.phrases import (
    SAME,
    capital,
    further,
    inverse,
    ratio_of,
    ratio_span,
    same,
    usable_text,
)
from gradlab.verdicts.sentence import Sentence
from gradlab.wording import (
    cosine,
    gradient,
    horizons,
    percent,
    samples,
    span,
    times,
)

FAR = 2.0  # times more accurate, at least, before another estimator is recommended


def horizon(profile: Profile, name: str) -> list[Sentence]:
    """The usable horizons, the set of the best, and the price of the user's own."""
    usable = usable_horizons(profile, name)
    rule = f"each by its own 95% intervals; {samples(profile.config)}"
    text = usable_text(gradient(profile.identities[name]), usable, rule) + _below(
        profile, name, usable
    )
    if not usable.decided:
        text += f"; {_more_for_horizon(profile, name, usable)} decide"
    text += f"; {_best(profile, name)}.{_yours(profile, name)}{_rival(profile, name)}"
    return [Sentence("horizon", usable.decided, text)]


def _below(profile: Profile, name: str, usable: UsableHorizons) -> str:
    """Why the shortest horizon is not usable, where it is not."""
    if not usable.measured:
        return ""
    shortest = usable.measured[0]
    if any(low == shortest for low, _ in (*usable.usable, *usable.undecided)):
        return ""
    joint = ", not below" if usable.usable or usable.undecided else ""
    return f"{joint}: at h = {shortest} {_obstacle(profile, name, shortest)}"


def paired_horizon(profile: Profile, name: str) -> list[Sentence]:
    """What differences on the same starts still say where the truth is imprecise."""
    n, best = samples(profile.config), _best(profile, name)
    rest = f"{_yours(profile, name)}{_rival(profile, name)}"
    text = f"Of {gradient(profile.identities[name])} {best}, {n}.{rest}"
    return [Sentence("horizon", True, text)]


def _best(profile: Profile, name: str) -> str:
    """Where the error is least, the 95% set, and what would make it smaller."""
    over = judged_horizons(profile, name)
    errors = [profile.estimate(name, "mse", h) for h in over]
    at = over[int(np.argmin([each.value for each in errors]))]
    text = f"the mean squared error is smallest at h = {at}"
    text += ", the data gradient J_0" if at == 0 else ""
    if (ranked := best_horizons(profile, name)) is not None:
        ranks = ranked[1]
        kept = [h for h, here in zip(over, ranks.kept, strict=True) if here]
        text += f" (95% set: {horizons(kept)}{_separation(profile, over, ranks)})"
    return text + _against_zero(profile, name, at)


def _separation(profile: Profile, over: list[int], ranks: RankSet) -> str:
    """The next member that more samples would take out of the set."""
    if ranks.kept.sum() < 2:
        return ""
    partings = separations(ranks, int(profile.config["starts"]))
    if not partings:
        return f"; {further(None)} separate them"
    first = partings[0]
    return f"; {further(first.more)} separate {over[first.member]} from {over[first.contender]}"


def _against_zero(profile: Profile, name: str, at: int) -> str:
    """A warning where an error is above that of not moving at all, |truth|²."""
    relative = profile.estimate(name, "relative_mse", at)
    ends = interval("relative_mse", relative)
    if not ends.low > 1:
        return ""
    remedy = "a smaller scale would do better"
    if profile.interval(name, "cosine", at).high < 0:
        remedy = "it points backwards"
    return (
        f", where it is still {times(relative.value)} (CI {span(ends.low, ends.high)}) that of "
        f"a zero gradient ({remedy})"
    )


def _yours(profile: Profile, name: str) -> str:
    """The error of the longest horizon, the user's setting, against the best one's."""
    H, over = max(horizons_of(profile, name)), judged_horizons(profile, name)
    if min(over, key=lambda h: profile.estimate(name, "mse", h).value) == H:
        return ""
    ratio = ratio_to_best(profile, (name, H), name, over)
    if ratio is None:
        return f" The gradient at H = {H} is not finite or not distinguishable from zero."
    if same(ratio):
        return f" H = {H} has the error of the best to within {percent(SAME - 1)}."
    numbers = f"{ratio_of(ratio)} the error of the best (CI {ratio_span(ratio)})"
    if ratio.low > 0:
        return f" H = {H} has {numbers}."
    return f" Undecided whether H = {H} is worse: {numbers}."


def _rival(profile: Profile, name: str) -> str:
    """Another estimator with the same truth that is far more accurate."""
    actions = profile.config.get("actions", {})
    mine = [profile.estimate(name, "mse", h) for h in judged_horizons(profile, name)]
    best = ""
    least = log(FAR)
    for other in profile.estimators:
        alike = actions.get(other, "first") == actions.get(name, "first")
        rival = profile.identities[other]
        if other == name or rival.data or rival.control or not alike:
            continue
        over = [h for h in judged_horizons(profile, other) if h > 0]
        theirs = [profile.estimate(other, "mse", h) for h in over]
        ratio = least_ratio(theirs, mine)
        if ratio is None or not -ratio.high > least:
            continue
        least, turned = -ratio.high, inverse(ratio)
        at = over[int(np.argmin([each.value for each in theirs]))]
        best = (
            f" {capital(gradient(rival))} at h = {at} is {ratio_of(turned)} more accurate than "
            f"that (CI {ratio_span(turned)})."
        )
    return best


def _obstacle(profile: Profile, name: str, at: int) -> str:
    """Which of the two conditions fails at a horizon, with its number."""
    measured = profile.estimate(name, "cosine", at)
    ends = profile.interval(name, "cosine", at)
    if not ends.high >= COSINE:
        shown = cosine(measured.value) if np.isfinite(measured.value) else "unknown"
        return (
            f"its cosine with the truth is {shown} (CI {span(ends.low, ends.high)}, wanted: "
            f"≥ {COSINE})"
        )
    values = [profile.estimate(name, "mse", h).value for h in judged_horizons(profile, name)]
    excess = profile.estimate(name, "mse", at).value / min(values)
    return f"its mean squared error is {times(excess)} the smallest (wanted: ≤ {EXCESS:g}×)"


def _more_for_horizon(profile: Profile, name: str, usable: UsableHorizons) -> str:
    """Samples that would settle the first horizon in doubt, by its direction or by its error."""
    over, starts = judged_horizons(profile, name), int(profile.config["starts"])
    at = usable.undecided[0][0]
    measured = profile.estimate(name, "cosine", at)
    ends = profile.interval(name, "cosine", at)
    ratio = ratio_to_best(profile, (name, at), name, over)
    if ratio is not None and not ends.low < COSINE <= ends.high:
        return further(more_samples(abs(ratio.value - log(EXCESS)), ratio.se, starts))
    se = jackknife_se(measured.left_out)
    return further(more_samples(abs(measured.value - COSINE), se, starts))
