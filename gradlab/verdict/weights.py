"""Form 5: which weights, and are they worth it on starts that did not choose them?"""

from __future__ import annotations

from math import exp, log

from gradlab.choice import Choice, Contender, Mixing
from gradlab.statistics.intervals import Interval
from gradlab.verdict.phrases import SAME
from gradlab.verdict.sentence import Sentence
from gradlab.wording import span, times, two

OWN = ("best single", "best scaled single", "mse", "direction")


def weights(choice: Choice | None) -> list[Sentence]:
    """Measured weights of MPG's pair against the rule's, and against the best scaled one."""
    if choice is None or choice.pair is None:
        return []
    pair = choice.pair
    own = pair.contender("mse")
    told = [_named(pair), f"weights chosen on one half, judged on {pair.unseen} unseen samples"]
    rules = [each for each in pair.contenders if each.name not in OWN]
    against = [_over_rule(own, each) for each in rules]
    verdicts = [each for each in against if each is not None]
    single = own.against
    if single is None and not verdicts:
        return [Sentence("weights", False, f"Undecided: {told[0]}; their error is lost in noise.")]
    text = f"Measured optimal weights: {told[0]} ({told[1]})"
    if verdicts:
        text += f"; their MSE is {', '.join(words for _, words in verdicts)}"
    decided = any(each for each, _ in verdicts)
    if single is not None:
        helps, words = _over_single(single)
        text, decided = f"{text}; {words}", decided or helps
    if not decided:
        text = f"Undecided whether weights help. {text}"
    return [Sentence("weights", decided, f"{text}.")]


def _named(pair: Mixing) -> str:
    """w_0 = 0.31 (CI 0.2–0.4), w_5 = 0.69"""
    found = pair.mse
    return ", ".join(
        f"w_{h} = {two(float(share))} (CI {span(float(low), float(high))})"
        for (_, h), share, low, high in zip(
            pair.cells, found.share, found.low, found.high, strict=True
        )
    )


def _over_rule(own: Contender, rule: Contender) -> tuple[bool, str] | None:
    """The ratio of errors on the unseen half, and whether it is beyond doubt."""
    if rule.saved is None or not rule.mse > 0:
        return None
    numbers = f"{times(own.mse / rule.mse)} (CI {span(exp(rule.saved.low), exp(rule.saved.high))})"
    apart = rule.saved.high < -log(SAME) or rule.saved.low > log(SAME)
    return apart, f"{numbers} that of the {rule.name}"


def _over_single(against: Interval) -> tuple[bool, str]:
    ends = span(exp(against.low), exp(against.high))
    words = f"it is {ends} times (95% CI) that of the best scaled single gradient"
    return against.high < -log(SAME) or against.low > log(SAME), words
