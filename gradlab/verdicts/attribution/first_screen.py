"""The first screen of an attribution: what to mend first, and the share that it makes.

An attribution in sentences: the attributed horizon of smallest error of each estimator, and
what a table of numbers does not show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gradlab.runs.attribution import CANCELLING, CAUSES, SOURCES, Account, Attribution, Part
from gradlab.runs.check_results import no_gradient
from gradlab.runs.decision_rules import judged_estimator
from gradlab.runs.profile import Profile
from gradlab.verdicts.measurement.sources import causes_text, mended, source
from gradlab.verdicts.phrases import ZERO
from gradlab.verdicts.screen import NOTHING, Fact, Light, Screen, Sentence
from gradlab.wording import gradient, percent, two

_ABOUT = "source"


def sentences(attribution: Attribution, profile: Profile) -> list[Sentence]:
    """What the attribution says, the bias first."""
    names = dict.fromkeys(each.estimator for each in attribution.bias)
    texts = [sentence for name in names for sentence in source(profile, attribution, name)]
    texts += [Sentence(_ABOUT, True, text) for text in _elsewhere(attribution, profile)]
    quantity = "mse" if profile.truth["admissible"] else "variance"
    for name in dict.fromkeys(each.estimator for each in attribution.variance):
        mine = [each for each in attribution.variance if each.estimator == name]
        values = [profile.estimate(name, quantity, each.horizon).value for each in mine]
        each = mine[values.index(min(values))]
        where = f"{gradient(profile.identities[each.estimator])} at h = {each.horizon}"
        clear = [f"{_fraction(p)} from {SOURCES[p.name]}" for p in each.sources if p.clear]
        still = [SOURCES[p.name] for p in each.sources if p.value == 0 and p.se == 0]
        exact = f"; exactly nothing from {', '.join(still)}" if still else ""
        shares = ", ".join(clear) or "no share is clear of 0"
        text = f"Variance of {where}: {shares}{exact} (N = {attribution.starts})."
        texts.append(Sentence(_ABOUT, bool(clear), text))
    return texts + [
        Sentence(_ABOUT, True, f"Not attributed: {name}, since {why}.")
        for name, why in attribution.skipped.items()
    ]


def _elsewhere(attribution: Attribution, profile: Profile) -> Iterator[str]:
    """Horizons at which shares say little."""
    for name in dict.fromkeys(each.estimator for each in attribution.bias):
        mine = [each for each in attribution.bias if each.estimator == name]
        whose = gradient(profile.identities[name])
        lost = ", ".join(str(each.horizon) for each in mine if each.lost)
        if lost:
            yield f"The squared bias of {whose} is {ZERO} at h = {lost}."
        cancelling = ", ".join(str(each.horizon) for each in mine if each.cancelling)
        if cancelling:
            yield (
                f"Causes cancel in {whose} at h = {cancelling}: a share is more than "
                f"{CANCELLING:g}× the squared bias, and others undo it."
            )


def _fraction(part: Part) -> str:
    low, high, share = map(percent, (part.fraction_low, part.fraction_high, part.fraction))
    return share if low == high else f"{share} (CI {low} to {high})"


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
