"""The first screen of a measurement: which gradient, how far, what not, what to mend first.

    use         the own gradient of largest gain, with the horizons that gain nine tenths of it;
                where one that needs the simulator's states is shown to be better, that one, too
    not         its horizons that lower the return, and the critic alone where that does
    mend        the costliest of states, derivatives and critic, with those that were replaced
                before it was measured, and what is gained without them
    light       "act" where no other action may be better, "choose" where one may, "none" where
                there is no truth, no gain is shown, a check contradicts, or nothing can be decided

Everything is decided from `Facts`; a headline has at most 60 words and 8 numbers with its sureness,
and leaves out what has no room there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite

from gradlab.runs.identity import same_as
from gradlab.runs.realised import Disagreement
from gradlab.runs.trimmed_starts import REMEDY
from gradlab.statistics.number import Number, decide
from gradlab.verdicts.facts import Facts
from gradlab.verdicts.gains import (
    LIKELY,
    ahead,
    alone,
    gain_text,
    named,
    share,
    step_along,
    until,
)
from gradlab.verdicts.measurement import key_numbers
from gradlab.verdicts.measurement.by_returns import GAINS, RETURNS, by_returns
from gradlab.verdicts.measurement.mending import Part, first_to_mend
from gradlab.verdicts.screen import NOTHING, NUMBERS, WORDS, Fact, Light, Screen, counted
from gradlab.verdicts.sentence import Sentence
from gradlab.wording import cosine, duration, rounded_up, span, steps, two

AMONG = "Of what a model alone gives"  # where a gradient that needs more is shown to be better
MARGIN = 4  # words of the page before the figure beside headline and sureness
REASONS = {
    "step": "the return bends within the step",
    "jump": "the return jumps within the step",
    "boundary": "episodes end, which no derivative along a path sees",
    "law": "gradients and returns are of different problems",
}


def recommendation(facts: Facts, rest: tuple[Sentence, ...] = ()) -> Screen:
    """What to do, from the gains to first order, or from realised ones where there is no truth."""
    if facts.void:
        return Screen(facts.void[0], "none", NOTHING, (), _figure(facts), rest)
    contradictions = [each for each in facts.disagreements if each.reason != "step"]
    if contradictions:
        return _contradicted(facts, contradictions[0], rest)
    if facts.gains and facts.best is not None:
        return _by_gain(facts, rest)
    if facts.realised is not None and facts.realised.stepped:
        return by_returns(facts, rest)
    if facts.errors and facts.law != "visited":
        return _at_given_states(facts, rest)
    return Screen(_nothing(facts), "none", "no truth", (), None, rest)


def _figure(facts: Facts) -> str | None:
    """What there is to look at."""
    if facts.gains and facts.best is not None:
        return GAINS
    return RETURNS if facts.realised is not None and facts.realised.stepped else None


def _by_gain(facts: Facts, rest: tuple[Sentence, ...]) -> Screen:
    assert facts.chosen is not None
    best = facts.chosen
    if not best.low > 0 and _steps_help(facts):
        return by_returns(facts, rest)
    if not best.low > 0:
        return _not_shown(facts, best, rest)
    sure = _sure(facts)
    headline = _fitted(
        (
            Part(_use(facts, best), _use(facts, best), 0),
            _harmful(facts),
            _critic(facts),
            Part(_beyond(facts), "", 1),
            first_to_mend(facts, best),
        ),
        sure,
    )
    return Screen(headline, _light(facts), sure, key_numbers.of_gains(facts), GAINS, rest)


def _fitted(parts: Sequence[Part], sure: str) -> str:
    """What a first screen has room for: each part by its rank, shortened where it has to be."""
    shown = [""] * len(parts)
    for k in sorted(range(len(parts)), key=lambda k: parts[k].rank):
        for text in (parts[k].text, parts[k].short):
            longer = [*shown[:k], text, *shown[k + 1 :]]
            words, numbers = counted(" ".join([*longer, sure]))
            if (words <= WORDS - MARGIN and numbers <= NUMBERS) or not parts[k].rank:
                shown = longer
                break
    return " ".join(each for each in shown if each)


def _steps_help(facts: Facts) -> bool:
    """Whether steps were shown to help although their gains are lost in an imprecise truth."""
    taken = None if facts.realised is None else facts.realised.of_competing(facts.own)
    if taken is None or facts.truth != "imprecise":
        return False
    return any(taken.helps(cell) for cell in taken.stepped)


def _use(facts: Facts, best: Number) -> str:
    assert facts.best is not None
    over = facts.close()
    gained = gain_text(best)
    most = "up to " if len(over) > 1 and not gained.startswith("over") else ""
    text = (
        f"{step_along(facts.identities[facts.best[0]], over)}: {most}{gained} of the possible gain."
    )
    return text if facts.beyond is None else f"{AMONG}: {text[0].lower()}{text[1:]}"


def _beyond(facts: Facts) -> str:
    """The better gradient that needs the simulator's states."""
    if facts.beyond is None:
        return ""
    name, h = facts.beyond
    gained = share(facts.gains[facts.beyond].clipped)
    return f"With the simulator's states ({name}): {steps(h)}, {gained}."


def _harmful(facts: Facts) -> Part:
    """Horizons of the recommended gradient that lower the return; else what θ once is worth."""
    assert facts.best is not None and facts.chosen is not None
    name = facts.best[0]
    harmful = [h for h in facts.harmful(name) if h]
    if harmful:
        text = until(harmful, min(h for h in facts.horizons(name) if h))
        return Part(text, f"{_sides(facts, harmful)} lower the return.", 2)
    own = facts.identities[name]
    twins = same_as(facts.identities, replace(own, actions="first")) if own.actions == "all" else ()
    other = facts.best_of(twins)
    if other is None or not facts.gains[other].high < facts.chosen.low:
        return Part("", "", 2)
    gained = share(facts.gains[other].clipped)
    return Part(f"θ in the first action alone gains {gained} at most.", "", 2)


def _sides(facts: Facts, harmful: Sequence[int]) -> str:
    """On which side of the best horizons others harm, without a number: few steps where some that
    are fewer do not."""
    assert facts.best is not None
    name, best = facts.best
    first = facts.close()[0]
    between = [h for h in facts.horizons(name) if 0 < h < first and h not in harmful]
    fewer = "Few" if between else "Fewer"
    shorter, longer = any(h < best for h in harmful), any(h > best for h in harmful)
    if shorter and longer:
        return f"{fewer} or many more steps"
    return f"{fewer} steps" if shorter else "Many more steps"


def _critic(facts: Facts) -> Part:
    """What the critic alone is worth, where it is not the recommendation itself."""
    alone_at = facts.data_gain
    if alone_at is None or facts.best == facts.data:
        return Part("", "", 4)
    text = alone(alone_at)
    return Part(text, "" if alone_at.low > 0 else text, 4)


def _light(facts: Facts) -> Light:
    if facts.truth == "imprecise" or not facts.sure >= LIKELY:
        return "choose"
    assert facts.best is not None
    others = [cell for cell in facts.kept if cell[0] != facts.best[0]]
    return "choose" if others else "act"


def _sure(facts: Facts) -> str:
    """A word with its number; what is not excluded, and what would decide."""
    assert facts.best is not None
    word = ahead(facts.sure, "here" if facts.beyond is None else "of those")
    others = list(dict.fromkeys(cell[0] for cell in facts.kept if cell[0] != facts.best[0]))
    if not others:
        return word
    which = " and ".join(named(facts.identities[name]) for name in others[:2])
    return f"{word}; not excluded: {which}{_more(facts)}"


def _more(facts: Facts) -> str:
    if facts.carried:
        return "; the truth rests on few starts"
    if facts.more is None:
        return ""
    return f"; {_would_decide(facts.more, 'tell them apart', facts.seconds_for_more)}"


def _would_decide(more: int, what: str, seconds: float) -> str:
    """230 more starts decide its sign (3 min); without the time where nobody knows it."""
    price = f" ({duration(seconds)})" if isfinite(seconds) else ""
    return f"{rounded_up(more)} more starts {what}{price}"


def _not_shown(facts: Facts, best: Number, rest: tuple[Sentence, ...]) -> Screen:
    """No own gradient is shown to raise the return: what is safe meanwhile, and the best guess."""
    assert facts.best is not None
    name, at = facts.best
    which = "no gradient here" if facts.beyond is None else "no gradient of a model alone"
    safe = f"Keep the policy: {which} is shown to raise the return."
    if best.high < 0:
        modelled = any("model" in facts.identities[each].systems for each in facts.own)
        what = "the critic and the model" if modelled else "the critic"
        text = f"{safe} All of them lower it: mend {what} first. {_beyond(facts)}".rstrip()
        return Screen(
            text,
            "none",
            "sure: every interval is below 0",
            key_numbers.of_what_was_tried(facts),
            GAINS,
            rest,
        )
    harmful = [each for each in facts.own if facts.harmful(each)]
    guess = step_along(facts.identities[name], [at], small=True)
    guess = f"Best guess: {guess}, gain {gain_text(best)}."
    lowered = f"{_listed(facts, harmful)} {_lower(harmful)} it." if harmful else ""
    parts = (carried_by_few(facts), safe, lowered, "" if facts.carried else guess, _beyond(facts))
    text = " ".join(each for each in parts if each)
    return Screen(
        text, "none", _undecided(facts, best), key_numbers.of_what_was_tried(facts), GAINS, rest
    )


def carried_by_few(facts: Facts) -> str:
    """Where few starts carry the truth, no number of starts is known to do: their law is mended."""
    if not facts.carried:
        return ""
    return (
        f"Narrow the law of the starts (--trim-starts {REMEDY:g}): 1% of them carry "
        f"{facts.carried:.0%} of the true gradient's square."
    )


def _undecided(facts: Facts, best: Number) -> str:
    """Why no gain is shown, or how many more starts would show the sign of the best guess."""
    if facts.carried:
        return "no gain is known: the truth rests on few starts"
    decision = decide(best, 0.0)
    if not decision.more:
        return "open"
    seconds = facts.seconds * (1 + decision.more / facts.samples)
    return _would_decide(decision.more, "decide its sign", seconds)


def _lower(names: list[str]) -> str:
    return "lower" if len(names) > 1 else "lowers"


def _listed(facts: Facts, names: list[str]) -> str:
    text = " and ".join(named(facts.identities[name]) for name in names[:2])
    return text[0].upper() + text[1:]


def _contradicted(facts: Facts, disagreement: Disagreement, rest: tuple[Sentence, ...]) -> Screen:
    """Returns contradict gradients: nothing is recommended from either before that is mended."""
    who = (
        "the true gradient"
        if disagreement.cell[0] not in facts.own
        else named(facts.identities[disagreement.cell[0]])
    )
    at = "" if disagreement.cell[1] == 0 else f" at h = {disagreement.cell[1]}"
    text = (
        f"Believe no gain here yet: a step along {who}{at} realised {share(disagreement.realised)} "
        f"of the possible gain where its direction promised {share(disagreement.predicted)}. "
        f"Likely reason: {REASONS[disagreement.reason]}."
    )
    return Screen(text, "none", "a check failed", key_numbers.of_gains(facts), GAINS, rest)


def _at_given_states(facts: Facts, rest: tuple[Sentence, ...]) -> Screen:
    """Under matched truths: which gradient is nearest to its own, and that this is no gain."""
    cells = [cell for cell in facts.errors if cell[0] in facts.own]
    name, h = cell = min(cells, key=lambda each: facts.errors[each].value)
    own = facts.identities[name]
    where = "" if own.data else f" after {steps(h)}"
    text = f"At these states {named(own)}{where} is nearest to the true gradient there."
    if not facts.errors[cell].high < 1:
        text = "At these states no gradient is shown to be better than not moving at all."
    how = "E|mean of N′ gradients − truth|² over |truth|², 1 being no gradient at all"
    numbers = [Fact("error", _level(facts.errors[cell]), how)]
    if cell in facts.cosines:
        numbers.append(Fact("cosine", _direction(facts.cosines[cell]), "⟨g, truth⟩/(|g||truth|)"))
    text += " Whether a step raises the return was not measured: leave the start law out for that."
    return Screen(text, "choose", "about these states only", tuple(numbers), "mse", rest)


def _level(number: Number) -> str:
    if number.spans_decades:
        return f"unknown ({number.n} starts)"
    return f"{two(number.value)} (CI {span(number.low, number.high)})"


def _direction(number: Number) -> str:
    return f"{cosine(number.clipped)} (CI {cosine(number.low)} to {cosine(number.high)})"


def _nothing(facts: Facts) -> str:
    """Neither gains nor steps: what was judged, and how to get an answer."""
    if facts.law != "visited":
        return (
            "Nothing is shown at these states: more of them are needed. Whether a step raises the "
            "return was not measured: leave the start law out for that."
        )
    why = f" ({facts.why})" if len(facts.why.split()) < 30 and facts.why else ""
    return (
        f"Keep the policy: no gain can be measured here{why}. Variance, growth and agreement of "
        f"the gradients follow."
    )
