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
from gradlab.verdicts.phrases import row
from gradlab.verdicts.recommendation import Field, Light, Recommendation
from gradlab.wording import gradient, label

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
_FEW = "too few starts rank replacements"


def source(profile: Profile, attribution: Attribution | None, name: str) -> list[Finding]:
    """What to fix first, what made the squared bias at the attributed horizon of least error, and
    what is worse without the others."""
    if attribution is None or all(each.estimator != name for each in attribution.bias):
        return []
    account = _least(profile, attribution, name)
    n, who = attribution.starts, gradient(profile.identities[name])
    if account.lost:
        return [Finding("no_bias", "undecided", who, n=n, at=str(account.horizon), more=-1)]
    at, best, found = f"{who} at h = {account.horizon}", account.replacement, list[Finding]()
    cure = next(iter(account.cures), ())
    if best is not None:
        code, decision = _ADVICE[account.advice]
        # The whole that its share is of has noise of its own.
        wide = not best.fraction_low > 0 or best.fraction_high - best.fraction_low > _WIDE
        unsized = code == "fix" and decision == "pass" and wide
        code = "fix_unsized" if unsized else code
        found.append(row(code, decision, _number(best, n), _to_fix(cure), at))
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


def _least(profile: Profile, attribution: Attribution, name: str) -> Account:
    """Of an estimator's accounts that of least error, of those whose bias is known if any is."""
    mine = [each for each in attribution.bias if each.estimator == name]
    known = [each for each in mine if not each.lost]
    return min(known or mine, key=lambda each: profile.estimate(name, "mse", each.horizon).value)


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


def _to_fix(causes: Sequence[str]) -> str:
    """The parts of a learner that these causes belong to."""
    return " and ".join(dict.fromkeys(_FIXED[cause] for cause in causes))


def _number(part: Part, starts: int) -> Number:
    """The part as a share of the whole."""
    return Number(part.fraction, part.fraction_low, part.fraction_high, starts)


def screen(profile: Profile, attribution: Attribution, rest: Sequence[Finding]) -> Recommendation:
    """What to fix first, of the judged estimator: its first findings."""
    if void := no_gradient(profile.sanity):
        return Recommendation("none", (Field("fix first", void[0].sentence),), None, tuple(rest))
    judged = judged_estimator(profile)
    names = sorted((e.estimator for e in attribution.bias), key=lambda name: name != judged)
    found = source(profile, attribution, names[0]) if names else []
    if not found:
        nothing = Field("why", "without a true gradient no bias can be attributed")
        return Recommendation("none", (Field("fix first", _UNKNOWN), nothing), None, tuple(rest))
    first, account = found[0], _least(profile, attribution, names[0])
    fix = first.subject if account.advice in ("sure", "contested") else _UNKNOWN
    rivals = " or ".join(map(_to_fix, account.cures[1:3]))
    largest = (f"{x.subject}, {x.measured}" for x in found if x.code == "cause")
    fields = (
        Field("fix first", fix),
        Field("why", _FEW if first.code == "cause" else first.sentence),
        Field("not excluded", rivals if account.advice == "contested" else ""),
        Field("largest cause", next(largest, "")),
    )
    light: Light = "act" if account.advice == "sure" else "choose"
    return Recommendation(light, tuple(each for each in fields if each.text), None, tuple(rest))
