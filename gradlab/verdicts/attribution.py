"""What an attribution says: which part made the squared bias, and which to fix first.

The two differ where causes cancel: the advice is the replacement that lowers the squared bias most
while all else stays, not the largest share.
"""

from __future__ import annotations

from collections.abc import Sequence

from gradlab.findings import Decision, Finding
from gradlab.findings.checks import no_gradient
from gradlab.runs.attribution import CAUSES, SOURCES, Account, Attribution, Part
from gradlab.runs.decision_rules import judged_estimator
from gradlab.runs.profile import Profile
from gradlab.statistics.comparison import Number
from gradlab.verdicts.phrases import ZERO, row
from gradlab.verdicts.recommendation import Field, Light, Recommendation
from gradlab.wording import gradient, label, percent, two, with_ends, with_interval

_FIXED = {
    "states": "the model's state predictions",
    "A": "the model's derivatives",
    "B": "the model's derivatives",
    "reward": "the reward's gradient",
    "critic_s": "the critic",
    "critic_a": "the critic",
}
_ADVICE: dict[str, tuple[str, Decision]] = {
    "sure": ("fix", "pass"),
    "contested": ("fix", "pass"),
    "open": ("fix", "undecided"),
    "none": ("fix_nothing", "fail"),
}
_WIDE = 1.0  # from which on an interval of a share says nothing of it
_UNKNOWN = "nothing yet"


def source(profile: Profile, attribution: Attribution | None, name: str) -> list[Finding]:
    """What to fix first, what made the squared bias at the attributed horizon of least error, and
    what is worse without the others."""
    accounts = [e for e in attribution.bias if e.estimator == name] if attribution else []
    if attribution is None or not accounts:
        return []
    account = min(accounts, key=lambda each: profile.estimate(name, "mse", each.horizon).value)
    n, who = attribution.starts, gradient(profile.identities[name])
    if account.lost:
        return [Finding("no_bias", "undecided", who, n=n, at=str(account.horizon), more=-1)]
    at, best, found = f"{who} at h = {account.horizon}", account.replacement, list[Finding]()
    cure = next(iter(account.cures), ())
    if best is not None:
        code, decision = _ADVICE[account.advice]
        unsized = code == "fix" and decision == "pass" and not _told_apart(best)
        code = "fix_unsized" if unsized else code
        found.append(row(code, decision, _number(best, n), to_fix(cure), at))
    top = max(account.rows("shapley"), key=lambda part: part.fraction)
    highs = (part.fraction_high for part in account.rows("shapley") if part is not top)
    clear: Decision = "pass" if top.clear and top.fraction_low > max(highs) else "undecided"
    found.append(row("cause", clear, _number(top, n), CAUSES[top.name], at))
    mine = [e for e in account.rows("entry") if e.name == top.name and e.clear]
    entry = max(mine, key=lambda each: each.value, default=None)
    if clear == "pass" and entry is not None and not entry.value < top.value / 2:
        whose = f"{CAUSES[top.name]} of {entry.place.output} by {entry.place.input}"
        found.append(row("cause", "pass", _number(entry, n), whose, at))
    # Causes of the largest share or of the advice whose replacement alone is shown to harm.
    interest = {top.name, *cure, *account.cancelling}
    harms = (e for e in account.rows("first") if e.name in interest and e.high < 0)
    found += [row("fix_harms", "fail", _number(e, n).negative, CAUSES[e.name], at) for e in harms]
    return found


def sentences(attribution: Attribution, profile: Profile) -> list[Finding]:
    """What the attribution says, the bias first."""
    names, n = dict.fromkeys(each.estimator for each in attribution.bias), attribution.starts
    found = [each for name in names for each in source(profile, attribution, name)]
    for name in names:
        who, mine = (
            gradient(profile.identities[name]),
            [e for e in attribution.bias if e.estimator == name],
        )
        cancel = ", ".join(str(each.horizon) for each in mine if each.cancelling)
        if cancel:
            found.append(Finding("causes_cancel", "fail", who, n=n, at=cancel))
    quantity = "mse" if profile.truth["admissible"] else "variance"
    for name in dict.fromkeys(each.estimator for each in attribution.variance):
        spreads = [each for each in attribution.variance if each.estimator == name]
        each = min(spreads, key=lambda e: profile.estimate(name, quantity, e.horizon).value)
        at = f"{gradient(profile.identities[name])} at h = {each.horizon}"
        clear = (part for part in each.rows("source") if part.clear)
        found += [row("variance_cause", "pass", _number(e, n), SOURCES[e.name], at) for e in clear]
    for name, why in attribution.skipped.items():  # `variance of model_all`
        of, between, estimator = name.rpartition("variance of ")
        what = f"{of}{between}{label(estimator, profile.identities)}"
        found.append(Finding("no_causes", "skipped", what, at=why))
    return found


def causes_text(causes: Sequence[str]) -> str:
    """∂f/∂s and ∂f/∂a"""
    return " and ".join(CAUSES[cause] for cause in causes)


def to_fix(causes: Sequence[str]) -> str:
    """The parts of a learner that these causes belong to."""
    return " and ".join(dict.fromkeys(_FIXED[cause] for cause in causes))


def _number(part: Part, starts: int) -> Number:
    """The part as a share of the whole."""
    return Number(part.fraction, part.fraction_low, part.fraction_high, starts)


def _told_apart(part: Part) -> bool:
    """Is its share known, beside its sign? The whole that it is a share of has noise of its own."""
    return part.fraction_low > 0 and part.fraction_high - part.fraction_low <= _WIDE


def screen(profile: Profile, attribution: Attribution, rest: Sequence[Finding]) -> Recommendation:
    """Of the judged estimator, at the attributed horizon of least error whose bias is known."""
    if void := no_gradient(profile.sanity):
        return Recommendation("none", (Field("fix first", void[0].sentence),), None, tuple(rest))
    name = judged_estimator(profile)
    every = attribution.bias
    accounts = [each for each in every if each.estimator == name] or list(every)
    if not accounts:
        nothing = Field("why", "without a true gradient no bias can be attributed")
        fields = (Field("fix first", _UNKNOWN), nothing)
        return Recommendation("none", fields, None, tuple(rest))
    judged = [each for each in accounts if not each.lost] or accounts
    least = min(
        judged, key=lambda each: profile.estimate(each.estimator, "mse", each.horizon).value
    )
    fix, why, light = _told(least, attribution.starts)
    what = f"{gradient(profile.identities[least.estimator])}, h = {least.horizon}"
    told = Field("fix first", fix), Field("why", why)
    shares = _shares(least, what, attribution.starts)
    return Recommendation(light, (*told, *shares), None, tuple(rest))


def _told(account: Account, starts: int) -> tuple[str, str, Light]:
    """What to fix, why, and the light."""
    advice, best, shown = account.advice, account.replacement, f"({starts:,} starts)"
    if advice == "lost":
        return _UNKNOWN, f"the squared bias is {ZERO} {shown}", "choose"
    if best is None or advice == "open":
        return _UNKNOWN, f"no replacement is shown to lower the squared bias {shown}", "choose"
    if advice == "none":
        why = f"one or two causes do not lower the squared bias {shown}"
        return "more than two causes together", why, "choose"
    value, ends = with_ends(*_number(best, starts).estimate, percent)
    falls = "falls, by how much is open"
    if _told_apart(best):
        falls = f"falls by {value} (CI {ends})"
    cure, *others = account.cures
    why = f"with the true {causes_text(cure)} the squared bias {falls}"
    if advice == "contested":
        rivals = " or ".join(map(causes_text, others[:2]))
        return to_fix(cure), f"{why}; not excluded as better: {rivals}", "choose"
    return to_fix(cure), why, "act"


def _shares(account: Account, what: str, starts: int) -> tuple[Field, ...]:
    """The whole and its two largest shares."""
    whole, square = account.total, "|E G − E T|², noise-corrected."
    if account.lost:  # the value is noise
        return (Field("squared bias", f"≤ {two(whole.high)} (95%): {what}", square),)
    how = f"Shapley value over all orders of replacing causes, {starts:,} starts"
    fields = [
        Field(
            "squared bias", f"{with_interval(whole.value, whole.low, whole.high)}: {what}", square
        )
    ]
    for part in sorted(account.rows("shapley"), key=lambda part: -part.value)[:2]:
        share, ends = with_ends(*_number(part, starts).estimate, percent)
        known = part.fraction_high - part.fraction_low <= _WIDE
        text = f"{share if known else 'an unknown share'} (CI {ends})"
        fields.append(Field(f"of it {CAUSES[part.name]}", text, how))
    return tuple(fields)
