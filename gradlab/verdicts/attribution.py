"""What an attribution says: which part made the squared bias, and which to fix first.

The two differ where causes cancel: the advice is the replacement that lowers the squared bias most
while all else stays, not the largest share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gradlab.findings import Finding
from gradlab.findings.checks import no_gradient
from gradlab.runs.attribution import CANCELLING, CAUSES, SOURCES, Account, Attribution, Part
from gradlab.runs.decision_rules import judged_estimator
from gradlab.runs.profile import Profile
from gradlab.verdicts.phrases import ZERO, capital
from gradlab.verdicts.recommendation import Field, Light, Recommendation, worded
from gradlab.wording import gradient, label, percent, two, with_ends, with_interval

_FIXED = {
    "states": "the model's state predictions",
    "A": "the model's derivatives",
    "B": "the model's derivatives",
    "reward": "the reward's gradient",
    "critic_s": "the critic",
    "critic_a": "the critic",
}


def source(profile: Profile, attribution: Attribution | None, name: str) -> list[Finding]:
    """The largest share of the squared bias at the attributed horizon of least error."""
    if attribution is None:
        return []
    accounts = [each for each in attribution.bias if each.estimator == name]
    if not accounts:
        return []
    least = min(accounts, key=lambda each: profile.estimate(name, "mse", each.horizon).value)
    what = f"the squared bias of {gradient(profile.identities[name])} at h = {least.horizon}"
    n = f"N = {attribution.starts:,}"
    if least.advice == "lost":
        whole = least.total
        total = with_interval(whole.value, whole.low, whole.high, more=n)
        text = f"{capital(what)} is {ZERO}, {total}: its cause is undecided."
        return [worded("source", False, text)]
    advice, decided = _advice(least, what)
    return [worded("source", decided, f"{advice}. {_makes(least)} ({n}).")]


def _advice(account: Account, what: str) -> tuple[str, bool]:
    """What to fix first, by what replacing it does while all else stays; whether it is shown."""
    best, advice = account.replacement, account.advice
    if best is None:
        return f"Too few starts to tell what to fix first in {what}", False
    if advice == "none":
        none = f"Fixing any one or two causes does not lower {what}"
        return f"{none}{_raised(account)}", True
    falls = f"with the true {causes_text(best.causes)} {what} falls "
    if advice == "open":
        falls += f"by {_share(best.part)}"
        return f"Undecided what to fix first: {falls}{_raised(account)}", False
    rivals = " or ".join(map(causes_text, best.rivals[:2]))
    more = f", perhaps by more with {rivals}" if rivals else ""
    falls += f"by {_share(best.part)}" if _told_apart(best.part) else f"({_OPEN})"
    return f"Fix {to_fix(best.causes)} first: {falls}{more}{_raised(account)}", True


def _makes(account: Account) -> str:
    """The largest share of the squared bias, or why none is named."""
    if account.cancelling:
        shares = [f"{_share(account.share(c))} for {CAUSES[c]}" for c in account.cancelling]
        return f"Causes cancel: shares of it are {' and '.join(shares)}"
    top = max(account.shapley, key=lambda part: part.fraction)
    rest = [part for part in account.shapley if part is not top]
    second = max(rest, key=lambda part: part.fraction_high)
    if not top.clear or top.fraction_low <= second.fraction_high:
        return (
            f"Whether {CAUSES[top.name]} ({_share(top)}) or {CAUSES[second.name]} "
            f"({_share(second)}) makes more of it is open"
        )
    text = f"{_share(top)} of it comes from {CAUSES[top.name]}"
    mine = [e for e in account.entries if e.cause == top.name and e.part.clear]
    largest = max(mine, key=lambda each: each.part.value, default=None)
    if largest is not None and not largest.part.value < top.value / 2:
        text += f", mostly {largest.output} by {largest.input} ({_share(largest.part)})"
    states = account.share("states")
    if top.name == "states" or states.value == 0 == states.se:
        return text
    return f"{text}; errors of states make {_share(states)}"


def _raised(account: Account) -> str:
    """Causes of the largest share or of the advice whose replacement alone is shown to harm."""
    best = account.replacement
    top = max(account.shapley, key=lambda part: part.value)
    of_interest = {top.name, *(best.causes if best else ()), *account.cancelling}
    raised = [
        f"{CAUSES[part.name]} alone raises it by "
        + with_interval(-part.fraction, -part.fraction_high, -part.fraction_low, write=percent)
        for part in account.first
        if part.name in of_interest and part.high < 0
    ]
    return f"; {' and '.join(raised)}" if raised else ""


def causes_text(causes: Sequence[str]) -> str:
    """∂f/∂s and ∂f/∂a"""
    return " and ".join(CAUSES[cause] for cause in causes)


def to_fix(causes: Sequence[str]) -> str:
    """The parts of a learner that these causes belong to."""
    return " and ".join(dict.fromkeys(_FIXED[cause] for cause in causes))


def _share(part: Part) -> str:
    share, ends = _with_ends(part)
    return f"{share if _width(part) <= _WIDE else 'an unknown share'} (CI {ends})"


def _width(part: Part) -> float:
    return part.fraction_high - part.fraction_low


def _told_apart(part: Part) -> bool:
    """Is its share known, beside its sign? The whole that it is a share of has noise of its own."""
    return part.fraction_low > 0 and _width(part) <= _WIDE


def _with_ends(part: Part) -> tuple[str, str]:
    return with_ends(part.fraction, part.fraction_low, part.fraction_high, percent)


_ABOUT = "source"
_WIDE = 1.0  # from which on an interval of a share says nothing of it
_OPEN = "by how much is open"


def sentences(attribution: Attribution, profile: Profile) -> list[Finding]:
    """What the attribution says, the bias first."""
    names = dict.fromkeys(each.estimator for each in attribution.bias)
    texts = [sentence for name in names for sentence in source(profile, attribution, name)]
    texts += [worded(_ABOUT, True, text) for text in _elsewhere(attribution, profile)]
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
        text = f"Variance of {where}: {shares}{exact} (N = {attribution.starts:,})."
        texts.append(worded(_ABOUT, bool(clear), text))
    for name, why in attribution.skipped.items():  # `variance of model_all`
        of, between, estimator = name.rpartition("variance of ")
        what = f"{of}{between}{label(estimator, profile.identities)}"
        texts.append(worded(_ABOUT, True, f"Not attributed: {what}, since {why}."))
    return texts


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


def screen(profile: Profile, attribution: Attribution, rest: Sequence[Finding]) -> Recommendation:
    """Of the judged estimator, at the attributed horizon of least error whose bias is known."""
    if void := no_gradient(profile.sanity):
        return Recommendation("none", (Field("fix first", void[0].said),), None, tuple(rest))
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


_UNKNOWN = "nothing yet"


def _told(account: Account, starts: int) -> tuple[str, str, Light]:
    """What to fix, why, and the light."""
    advice, best, shown = account.advice, account.replacement, f"{starts:,} starts"
    if advice == "lost":
        return _UNKNOWN, f"the squared bias is {ZERO} ({shown})", "choose"
    if best is None or advice == "open":
        return _UNKNOWN, f"no replacement is shown to lower the squared bias ({shown})", "choose"
    if advice == "none":
        why = f"any one or two causes do not lower the squared bias ({shown})"
        return "more than two causes together", why, "choose"
    value, ends = _with_ends(best.part)
    falls = f"falls by {value} (CI {ends})" if _told_apart(best.part) else f"falls; {_OPEN}"
    why = f"with the true {causes_text(best.causes)} the squared bias {falls}"
    if advice == "contested":
        rivals = " or ".join(map(causes_text, best.rivals[:2]))
        return to_fix(best.causes), f"{why}; not excluded as better: {rivals}", "choose"
    return to_fix(best.causes), why, "act"


def _shares(account: Account, what: str, starts: int) -> tuple[Field, ...]:
    """The whole and its two largest shares."""
    whole, square = account.total, "|E G − E T|², noise-corrected."
    if account.lost:  # the value is noise
        return (Field("squared bias", f"≤ {two(whole.high)} (95%): {what}", square),)
    how = f"Shapley value over all orders of replacing causes by true ones, {starts:,} starts."
    parts = sorted(account.shapley, key=lambda part: -part.value)[:2]
    total = with_interval(whole.value, whole.low, whole.high)
    return (
        Field("squared bias", f"{total}: {what}", square),
        *(Field(f"of it {CAUSES[part.name]}", _share(part), how) for part in parts),
    )
