"""Form 5: which weights, and are they worth it on starts that did not choose them?"""

from __future__ import annotations

from math import exp, isfinite, log

from gradlab.choice import Choice, Mixing
from gradlab.statistics.intervals import Interval
from gradlab.statistics.mixing import Weights
from gradlab.verdicts.choice.sentences import outside
from gradlab.verdicts.phrases import SAME, ZERO
from gradlab.verdicts.sentence import Sentence
from gradlab.wording import span, times, two


def weights(choice: Choice | None) -> list[Sentence]:
    """Measured weights of MPG's pair against the rule's, and against the best scaled one."""
    if choice is None or choice.pair is None:
        return []
    if choice.by == "gain" and choice.pair.gain is not None:
        return [_by_gain(choice.pair, choice.pair.gain, outside(choice, choice.pair))]
    pair, named = choice.pair, _named(choice.pair, choice.pair.mse)
    ratios = [_over_rule(pair), _over_single(pair.contender("mse").against)]
    finite = [each for each in ratios if each is not None]
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


def _over_single(against: Interval | None) -> tuple[bool, str] | None:
    """The same against the best single gradient at its best scale: more than shrinkage?"""
    if against is None:
        return None
    ends = span(exp(against.low), exp(against.high))
    words = f"{ends}× (95% CI) that of the best scaled single gradient"
    better = "; one gradient at a smaller scale does better" if against.low > log(SAME) else ""
    return _clear(against), words + better


def _clear(ratio: Interval) -> bool:
    return ratio.high < -log(SAME) or ratio.low > log(SAME)
