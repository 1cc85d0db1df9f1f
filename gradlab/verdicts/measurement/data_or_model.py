"""Form 4: is the data's gradient or the model's the more accurate one, now and through training?"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from gradlab.runs.decision_rules import LogRatio, judged_estimator, judged_horizons, ratio_to_best
from gradlab.runs.identity import data_of
from gradlab.runs.profile import Profile
from gradlab.statistics.intervals import interval
from gradlab.verdicts.phrases import (
    SAME,
    ZERO,
    capital,
    inverse,
    missing,
    ratio_of,
    ratio_span,
    same,
)
from gradlab.verdicts.sentence import Sentence
from gradlab.wording import gradient, percent, samples

ABOUT = "data or model"
DATA = "the data gradient"


def data_against(profile: Profile, name: str) -> list[Sentence]:
    """The data gradient against the best horizon of another estimator."""
    data = data_of(profile.identities)
    if data is None or profile.identities[name].data:
        return []
    over = [h for h in judged_horizons(profile, name) if h > 0]
    n, who = samples(profile.config), gradient(profile.identities[name])
    ratio = ratio_to_best(profile, (data, 0), name, over)
    if ratio is None:
        text = f"Undecided: the errors of {who} and of the data gradient are {ZERO} ({n})."
        return [Sentence(ABOUT, False, text)]
    best = min(over, key=lambda h: profile.estimate(name, "mse", h).value)
    at = f"at its best horizon h = {best}"
    numbers = f"mean squared error, CI {ratio_span(ratio)}, {n}"
    if same(ratio):
        text = f"The data gradient and {who} {at} have the same error to within"
        return [Sentence(ABOUT, True, f"{text} {percent(SAME - 1)} ({n}).")]
    decision = ratio.against(int(profile.config["starts"]))
    if decision.kind == "above":
        text = f"{capital(who)} {at} is {ratio_of(ratio)} more accurate than the data gradient"
        return [Sentence(ABOUT, True, f"{text} ({numbers}).{_poor_critic(profile, data)}")]
    if decision.kind == "below":
        turned = inverse(ratio)
        text = (
            f"The data gradient is {ratio_of(turned)} more accurate than {who} {at} (mean "
            f"squared error, CI {ratio_span(turned)}, {n})."
        )
        return [Sentence(ABOUT, True, text)]
    text = (
        f"Undecided whether the data gradient or {who} {at} is more accurate: the ratio of their "
        f"mean squared errors is {ratio_of(ratio)[:-1]} (CI {ratio_span(ratio)}, {n}); "
        f"{missing(decision)} separate them."
    )
    return [Sentence(ABOUT, False, text)]


def _poor_critic(profile: Profile, data: str) -> str:
    """A warning where J_0 itself is worse than none: the comparison then speaks of the critic."""
    ends = interval("relative_mse", profile.estimate(data, "relative_mse", 0))
    if not ends.low > 1:
        return ""
    return " The data gradient is worse than a zero gradient here, so this says more of the critic."


def through_training(
    profiles: Mapping[int, Profile], data_weight: Mapping[int, float] | None = None
) -> Sentence:
    """Where the order of data and model reverses in training, and what a rule makes of it.

    Args:
        profiles: iteration → measurement of that checkpoint's policy and critic.
        data_weight: iteration → weight that a rule gives to the data gradient.
    """
    ratios = {
        k: ratio for k in sorted(profiles) if (ratio := data_over_model(profiles[k])) is not None
    }
    decided = {k: 1 if r.low > 0 else -1 for k, r in ratios.items() if r.low > 0 or r.high < 0}
    if not decided:
        tried = f"{len(profiles)} checkpoints, {_counts(profiles)}"
        text = f"Undecided at every checkpoint whether data or model is more accurate ({tried})."
        return Sentence(ABOUT, False, text)
    at = next(iter(decided))
    parts = [_standing(at, ratios[at], profiles[at])]
    change = crossing(decided)
    if change is None:
        who = _model(profiles[at]) if decided[at] > 0 else DATA
        parts.append(f"{who} stays ahead up to iteration {max(decided)}")
    else:
        parts.append(f"the order reversed between iterations {change[0]} and {change[1]}")
        back = crossing({k: v for k, v in decided.items() if k >= change[1]})
        parts += [] if back is None else [f"and back between {back[0]} and {back[1]}"]
    rule = "" if data_weight is None else _rule(data_weight, change, decided)
    return Sentence(ABOUT, True, f"{'; '.join(parts)}.{rule}")


def data_over_model(profile: Profile) -> LogRatio | None:
    """log of the data's error over that of the judged estimator's J_H, the two that rules weigh."""
    name, data = judged_estimator(profile), data_of(profile.identities)
    if name is None or data is None or not profile.truth["admissible"]:
        return None
    over = [h for h in judged_horizons(profile, name) if h > 0]
    ratio = ratio_to_best(profile, (data, 0), name, over[-1:])
    return ratio if ratio is not None and np.isfinite([ratio.low, ratio.high]).all() else None


def _standing(at: int, ratio: LogRatio, profile: Profile) -> str:
    who, other, shown = _model(profile), DATA, ratio
    if ratio.value < 0:
        who, other, shown = other, who, inverse(ratio)
    return (
        f"At iteration {at} {who} is {ratio_of(shown)} more accurate than {other} (CI "
        f"{ratio_span(shown)}, {samples(profile.config)})"
    )


def _model(profile: Profile) -> str:
    """J_H of the judged estimator, in words."""
    name = judged_estimator(profile)
    assert name is not None
    return f"{gradient(profile.identities[name])} at h = {judged_horizons(profile, name)[-1]}"


def crossing(decided: Mapping[int, int]) -> tuple[int, int] | None:
    """The first two neighbouring decided checkpoints of opposite order."""
    return next(((a, b) for a, b in pairwise(decided) if decided[a] != decided[b]), None)


def _rule(
    weight: Mapping[int, float], change: tuple[int, int] | None, decided: Mapping[int, int]
) -> str:
    """When a rule changes sides, beside when it should."""
    at = sorted(weight)
    begins = weight[at[0]] > 0.5
    switch = next((k for k in at if (weight[k] > 0.5) != begins), None)
    first = decided[next(iter(decided))]
    if begins == (first > 0):
        who = "data" if begins else "model"
        return f" The rule schedule begins with the {who} gradient, the less accurate one here."
    if switch is None:
        kept = " The rule schedule does not switch"
        return f"{kept}." if change is None else f"{kept}: too late."
    text = f" The rule schedule switches at {switch}"
    if change is None:
        return f"{text}: without a reason in these measurements."
    if switch < change[0]:
        return f"{text}: too early by {change[0] - switch}–{change[1] - switch}."
    if switch > change[1]:
        return f"{text}: too late by {switch - change[1]}–{switch - change[0]}."
    return f"{text}, as measured."


def _counts(profiles: Mapping[int, Profile]) -> str:
    counts = sorted({int(each.config["starts"]) for each in profiles.values()})
    return f"N = {counts[0]}" if len(counts) == 1 else f"N = {counts[0]}–{counts[-1]}"
