"""The first screen of an attribution: what to mend first, and the share that it makes."""

from __future__ import annotations

from collections.abc import Sequence

from gradlab.runs.attribution import CAUSES, Account, Attribution, Part
from gradlab.runs.check_results import no_gradient
from gradlab.runs.decision_rules import judged_estimator
from gradlab.runs.profile import Profile
from gradlab.verdicts.measurement.sources import MEND
from gradlab.verdicts.screen import NOTHING, Fact, Light, Screen
from gradlab.verdicts.sentence import Sentence
from gradlab.wording import gradient, percent, two


def screen(profile: Profile, attribution: Attribution, rest: Sequence[Sentence]) -> Screen:
    """Of the judged estimator, at the attributed horizon of least error whose bias is known."""
    if void := no_gradient(profile.sanity):
        return Screen(void[0].sentence, "none", NOTHING, (), None, tuple(rest))
    name = judged_estimator(profile)
    every = attribution.bias
    accounts = [each for each in every if each.estimator == name] or list(every)
    if not accounts:
        text = "Mend nothing on this run's word: without a truth no bias can be attributed."
        return Screen(text, "none", "no truth", (), None, tuple(rest))
    judged = [each for each in accounts if not each.lost] or accounts
    least = min(
        judged, key=lambda each: profile.estimate(each.estimator, "mse", each.horizon).value
    )
    text, light, sure = _told(least, attribution.starts)
    return Screen(text, light, sure, _facts(least, attribution.starts), None, tuple(rest))


def _told(account: Account, starts: int) -> tuple[str, Light, str]:
    what = f"the squared bias of {gradient(account.estimator)} at h = {account.horizon}"
    if account.lost:
        text = f"Mend nothing yet: {what} is not distinguishable from zero."
        return text, "choose", f"not shown ({starts} starts)"
    if account.cancelling:
        names = " and ".join(CAUSES[cause] for cause in account.cancelling[:2])
        return f"Mend no cause alone: {names} cancel in {what}.", "choose", "shown to cancel"
    top, second = sorted(account.shapley, key=lambda part: -part.value)[:2]
    if top.clear and top.low > second.high:
        text = f"Mend {MEND[top.name]} first: {CAUSES[top.name]} makes most of {what}."
        return text, "act", f"sure ({_ends(top)} of it)"
    text = f"Mend {CAUSES[top.name]} or {CAUSES[second.name]} first: which makes more is open."
    return text, "choose", f"not shown ({starts} starts)"


def _facts(account: Account, starts: int) -> tuple[Fact, ...]:
    """The two largest shares and the whole."""
    how = f"Shapley value over all orders of replacing causes by true ones, {starts} starts."
    parts = sorted(account.shapley, key=lambda part: -part.value)[:2]
    total = Fact(
        f"squared bias, {two(account.total.low)} to {two(account.total.high)}",
        two(account.total.value), "|E G − E T|², noise-corrected.",
    )  # fmt: skip
    if account.lost:
        return (total,)
    shares = [Fact(f"of it {CAUSES[p.name]}, {_ends(p)}", percent(p.fraction), how) for p in parts]
    return (*shares, total)


def _ends(part: Part) -> str:
    return f"{percent(part.fraction_low)} to {percent(part.fraction_high)}"
