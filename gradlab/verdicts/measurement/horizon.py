"""Form 1: how far may one unroll, where is the error least, and what is your setting worth?

The horizon of least error comes with the set of those that may have it (`statistics.selection`),
and with the samples that would make it smaller; both rest on differences on the same starts.
"""

from __future__ import annotations

from math import log

import numpy as np

from gradlab.runs.decision_rules import (
    COSINE,
    EXCESS,
    UsableHorizon,
    best_horizons,
    horizons_of,
    judged_horizons,
    least_ratio,
    longest_pass,
    ratio_to_best,
    usable_horizon,
)
from gradlab.runs.profile import Profile
from gradlab.statistics.comparison import more_samples
from gradlab.statistics.intervals import interval, jackknife_se
from gradlab.statistics.selection import RankSet, separations
from gradlab.verdicts.phrases import SAME, capital, further, inverse, ratio_of, ratio_span, same
from gradlab.verdicts.sentence import Sentence
from gradlab.wording import (
    cosine,
    gradient,
    horizons,
    percent,
    samples,
    span,
    steps,
    times,
)

FAR = 2.0  # times more accurate, at least, before another estimator is recommended


def horizon(profile: Profile, name: str) -> list[Sentence]:
    """The usable horizon, the set of the best, and the price of the user's own."""
    usable, n = usable_horizon(profile, name), samples(profile.config)
    who, best = gradient(name), _best(profile, name)
    rest = f"{best}.{_yours(profile, name)}{_rival(profile, name)}"
    if usable.high == 0:
        why, alone = _obstacle(profile, name, 1), longest_pass(profile, name)
        text = f"No horizon of {who} is usable ({n}): at h = 1 {why}; {rest}"
        if len(alone) > 1:
            text += f" Without the shorter ones h = {alone[0]}–{alone[-1]} would be."
        return [Sentence("horizon", True, text)]
    if usable.low == 0:
        enough = _more_for_horizon(profile, name, usable)
        text = (
            f"Undecided whether {who} has a usable horizon: none or up to {steps(usable.high)} "
            f"(95% CI, {n}); {enough} decide; {rest}"
        )
        return [Sentence("horizon", False, text)]
    text = (
        f"Usable horizon of {who} ≈ {steps(usable.value)} (95% CI {usable.low}–{usable.high}, "
        f"{n}); {rest}"
    )
    return [Sentence("horizon", True, text)]


def paired_horizon(profile: Profile, name: str) -> list[Sentence]:
    """What differences on the same starts still say where the truth is imprecise."""
    n, best = samples(profile.config), _best(profile, name)
    rest = f"{_yours(profile, name)}{_rival(profile, name)}"
    text = f"Of {gradient(name)} {best}, {n}.{rest}"
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
        if other in (name, "data", "true_dynamics") or not alike:
            continue
        over = [h for h in judged_horizons(profile, other) if h > 0]
        theirs = [profile.estimate(other, "mse", h) for h in over]
        ratio = least_ratio(theirs, mine)
        if ratio is None or not -ratio.high > least:
            continue
        least, turned = -ratio.high, inverse(ratio)
        at = over[int(np.argmin([each.value for each in theirs]))]
        best = (
            f" {capital(gradient(other))} at h = {at} is {ratio_of(turned)} more accurate than "
            f"that (CI {ratio_span(turned)})."
        )
    return best


def _obstacle(profile: Profile, name: str, at: int) -> str:
    """Which of the two conditions fails at a horizon, with its number."""
    measured = profile.estimate(name, "cosine", at)
    ends = profile.interval(name, "cosine", at)
    if not ends.low >= COSINE:
        shown = cosine(measured.value) if np.isfinite(measured.value) else "unknown"
        return (
            f"its cosine with the truth is {shown} (CI {span(ends.low, ends.high)}, wanted: "
            f"lower end ≥ {COSINE})"
        )
    values = [profile.estimate(name, "mse", h).value for h in judged_horizons(profile, name)]
    excess = profile.estimate(name, "mse", at).value / min(values)
    return f"its mean squared error is {times(excess)} the smallest (wanted: ≤ {EXCESS:g}×)"


def _more_for_horizon(profile: Profile, name: str, usable: UsableHorizon) -> str:
    """Samples that would settle the first horizon in doubt, by its direction or by its error."""
    over, starts = judged_horizons(profile, name), int(profile.config["starts"])
    at = min(usable.value + 1, max(over))
    measured = profile.estimate(name, "cosine", at)
    ends, ratio = (
        profile.interval(name, "cosine", at),
        ratio_to_best(profile, (name, at), name, over),
    )
    if ratio is not None and not ends.low < COSINE <= ends.high:
        return further(more_samples(abs(ratio.value - log(EXCESS)), ratio.se, starts))
    se = jackknife_se(measured.left_out)
    return further(more_samples(abs(measured.value - COSINE), se, starts))
