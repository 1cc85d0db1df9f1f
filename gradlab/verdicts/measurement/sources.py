"""Form 3: which part made the squared bias, and which to mend first?

The two differ where causes cancel: the advice is the replacement that lowers the squared bias most
while all else stays, not the largest share.

Form 5: which weights, and are they worth it on starts that did not choose them?
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, isfinite, log

from gradlab.choice import Choice, Mixing
from gradlab.runs.attribution import CAUSES, Account, Attribution, Part
from gradlab.runs.profile import Profile
from gradlab.statistics.intervals import Interval
from gradlab.statistics.mixing import Weights
from gradlab.verdicts.choice.sentences import outside
from gradlab.verdicts.phrases import SAME, ZERO
from gradlab.verdicts.screen import Sentence
from gradlab.wording import gradient, percent, span, times, two


def weights(choice: Choice | None) -> list[Sentence]:
    """Measured weights of MPG's pair against the rule's, and against the best scaled one."""
    if choice is None or choice.pair is None:
        return []
    if choice.by == "gain" and choice.pair.gain is not None:
        return [_by_gain(choice.pair, choice.pair.gain, outside(choice, choice.pair))]
    pair, named = choice.pair, _named(choice.pair, choice.pair.mse)
    over_rule, against = _over_rule(pair), pair.contender("mse").against
    finite = [] if over_rule is None else [over_rule]
    if against is not None:  # the best single gradient at its best scale: more than shrinkage?
        ends = span(exp(against.low), exp(against.high))
        words = f"{ends}× (95% CI) that of the best scaled single gradient"
        if against.low > log(SAME):
            words += "; one gradient at a smaller scale does better"
        finite.append((_clear(against), words))
    if not finite:
        return [Sentence("weights", False, f"Undecided: {named}; their error is {ZERO}.")]
    decided = any(each for each, _ in finite)
    text = (
        f"Measured optimal weights: {named}; on {pair.unseen} starts that did not choose them "
        f"their MSE is {' and '.join(words for _, words in finite)}."
    )
    return [_sentence(decided, text)]


def _by_gain(pair: Mixing, shares: Weights, beside: str) -> Sentence:
    """What one batch's step along the pair gains beside the better of the two."""
    named, own = _named(pair, shares), pair.contender("gain")
    single, ahead = pair.contender("best single by gain"), own.ahead
    if ahead is None or not isfinite(ahead.low):
        return Sentence("weights", False, f"Undecided: {named}; their gain is {ZERO}.{beside}")
    text = (
        f"Measured weights by gain: {named}; on {pair.unseen} starts that did not choose them a "
        f"step of one batch gains {own.cosine:.0%} of the best possible, along the better of the "
        f"two {single.cosine:.0%} (difference {ahead.low:+.0%} to {ahead.high:+.0%}).{beside}"
    )
    decided = ahead.low > 0 or ahead.high < 0
    return _sentence(decided, text)


def _sentence(decided: bool, text: str) -> Sentence:
    return Sentence("weights", decided, text if decided else f"Undecided whether they help. {text}")


def _named(pair: Mixing, shares: Weights) -> str:
    """w_0 = 0.31 (CI 0.2–0.4), w_5 = 0.69"""
    return ", ".join(
        f"w_{h} = {two(float(share))} (CI {span(float(low), float(high))})"
        for (_, h), share, low, high in zip(
            pair.cells, shares.share, shares.low, shares.high, strict=True
        )
    )


def _over_rule(pair: Mixing) -> tuple[bool, str] | None:
    """Beyond doubt, and the ratio to the best of the papers' rules on the unseen half."""
    mixture = pair.contender("mse")
    rules = [(each, each.saved) for each in pair.contenders if "rule" in each.name]
    measured = [(each, saved) for each, saved in rules if saved is not None]
    if not measured:
        return None
    rule, saved = min(measured, key=lambda each: each[0].mse)
    numbers = f"{times(mixture.mse / rule.mse)} (CI {span(exp(saved.low), exp(saved.high))})"
    which = f"the {rule.name}" if len(measured) == 1 else f"the best of {len(measured)} rules"
    which += "" if len(measured) == 1 else f" ({rule.name})"
    return _clear(saved), f"{numbers} that of {which}"


def _clear(ratio: Interval) -> bool:
    return ratio.high < -log(SAME) or ratio.low > log(SAME)


_MEND = {
    "states": "the model's rollout",
    "A": "the model's derivatives",
    "B": "the model's derivatives",
    "reward": "the reward's gradient",
    "critic_s": "the critic",
    "critic_a": "the critic",
}


def source(profile: Profile, attribution: Attribution | None, name: str) -> list[Sentence]:
    """The largest share of the squared bias at the attributed horizon of least error."""
    if attribution is None:
        return []
    accounts = [each for each in attribution.bias if each.estimator == name]
    if not accounts:
        return []
    least = min(accounts, key=lambda each: profile.estimate(name, "mse", each.horizon).value)
    what = f"the squared bias of {gradient(profile.identities[name])} at h = {least.horizon}"
    n = f"N = {attribution.starts}"
    if least.advice == "lost":
        total = f"{two(least.total.value)}, CI {_ends(least.total.low, least.total.high)}"
        text = f"Undecided what makes {what}: it is {ZERO} ({total}, {n})."
        return [Sentence("source", False, text)]
    advice, decided = _advice(least, what)
    return [Sentence("source", decided, f"{advice}. {_makes(least)} ({n}).")]


def _advice(account: Account, what: str) -> tuple[str, bool]:
    """What to mend first, by what replacing it does while all else stays; whether it is shown."""
    best, advice = account.replacement, account.advice
    if best is None:
        return f"Undecided what to mend first in {what}: too few starts", False
    if advice == "none":
        none = f"Mend no one or two causes of {what}: no replacement of them lowers it"
        return f"{none}{_raised(account)}", True
    falls = f"with the true {causes_text(best.causes)} {what} falls by {_share(best.part)}"
    if advice == "open":
        return f"Undecided what to mend first: {falls}{_raised(account)}", False
    rivals = " or ".join(map(causes_text, best.rivals[:2]))
    more = f", perhaps by more with {rivals}" if rivals else ""
    return f"Mend {mended(best.causes)} first: {falls}{more}{_raised(account)}", True


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
        f"{CAUSES[part.name]} alone raises it by {_percent(-part.fraction)} (CI "
        f"{_ends(-part.fraction_high, -part.fraction_low, True)})"
        for part in account.first
        if part.name in of_interest and part.high < 0
    ]
    return f"; {' and '.join(raised)}" if raised else ""


def causes_text(causes: Sequence[str]) -> str:
    """∂f/∂s and ∂f/∂a"""
    return " and ".join(CAUSES[cause] for cause in causes)


def mended(causes: Sequence[str]) -> str:
    """The parts of a learner that these causes belong to."""
    return " and ".join(dict.fromkeys(_MEND[cause] for cause in causes))


def _share(part: Part) -> str:
    return f"{_percent(part.fraction)} (CI {_ends(part.fraction_low, part.fraction_high, True)})"


def _ends(low: float, high: float, share: bool = False) -> str:
    shown = [_percent(each) if share else two(each) for each in (low, high)]
    return f"{shown[0]} to {shown[1]}"


def _percent(share: float) -> str:
    return percent(share) if isfinite(share) else ("∞" if share > 0 else "−∞")
