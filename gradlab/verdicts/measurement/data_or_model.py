"""Form 4: is the data's gradient or the model's the more accurate one?"""

from __future__ import annotations

from gradlab.runs.decision_rules import judged_horizons, ratio_to_best
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
