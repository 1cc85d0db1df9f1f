"""The first screen of an attribution: what to mend first, and the share that it makes."""

from __future__ import annotations

from collections.abc import Sequence

from gradlab.runs.attribution import CAUSES, Account, Attribution, Part
from gradlab.runs.check_results import no_gradient
from gradlab.runs.decision_rules import judged_estimator
from gradlab.runs.profile import Profile
from gradlab.verdicts.measurement.sources import causes_text, mended
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
    whose = gradient(profile.identities[least.estimator])
    text, light, sure = _told(least, whose, attribution.starts)
    return Screen(text, light, sure, _facts(least, attribution.starts), None, tuple(rest))


def _told(account: Account, whose: str, starts: int) -> tuple[str, Light, str]:
    what = f"the squared bias of {whose} at h = {account.horizon}"
    advice, best, shown = account.advice, account.replacement, f"{starts} starts"
    if advice == "lost":
        text = f"Mend nothing yet: {what} is not distinguishable from zero."
        return text, "choose", f"not shown ({shown})"
    if best is None or advice == "open":
        text = f"Mend nothing yet: no replacement is shown to lower {what}."
        return text, "choose", f"not shown ({shown})"
    if advice == "none":
        text = f"Mend no one or two causes of {what}: none of these replacements lowers it."
        return text, "choose", f"shown ({shown})"
    part = best.part
    text = (
        f"Mend {mended(best.causes)} first: with the true {causes_text(best.causes)} {what} falls "
        f"by {percent(part.fraction)}."
    )
    if advice == "contested":
        rivals = " or ".join(map(causes_text, best.rivals[:2]))
        return text, "choose", f"shown ({_ends(part)}); not excluded as better: {rivals}"
    return text, "act", f"sure ({_ends(part)})"


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
