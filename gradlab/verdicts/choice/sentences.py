"""A choice in a handful of plain sentences; each names its interval and its N."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from math import exp, isfinite, log

from gradlab.choice.values import Best, Cell, Choice, Mixing, Trial, WhatIf
from gradlab.runs.decision_rules import COSINE, EXCESS
from gradlab.statistics.intervals import Interval
from gradlab.statistics.mixing import Weights
from gradlab.verdicts.phrases import SAME, ZERO, capital, further, gain_text, usable_text
from gradlab.verdicts.screen import Sentence
from gradlab.wording import batches, cosine, horizons, span, times

CALLED = {
    "gain": "gain (what one small step adds to the return, in shares of the best one)",
    "mse": "mean squared error",
    "direction": "direction (cosine of one batch)",
}
_CARRIED = "The truth rests on few starts: narrow their law"
_FEW = 2  # pairs of candidates that more starts would tell apart, mentioned


def statements(choice: Choice) -> tuple[Sentence, ...]:
    """Horizon, direction, weights, what if, and what a reader has to know."""
    every = sorted(
        (choice.gain, choice.mse, choice.direction), key=lambda each: each is not choice.best
    )
    n = f"N = {choice.samples}"
    found: list[Sentence] = []
    if (tried := choice.tried) is not None:  # without a truth: what realised gains say
        text = (
            f"Most return gained by a step along {cell_words(tried.cell)}: {tried.value:.2g} (CI "
            f"{span(tried.interval.low, tried.interval.high)}), the best possible is unknown; the "
            f"95% set is {cells_words(tried.kept)}."
        )
        found.append(Sentence("realised", tried.kept == (tried.cell,), text))
    found += [_best(choice, each) for each in every if each is not None]
    if choice.beyond is not None:  # does not compete, and is better
        gain = choice.beyond.gain
        text = (
            f"With the simulator's states {cell_words(choice.beyond.cell)} gains more: "
            f"{cosine(gain.clipped)} (CI {span(gain.low, gain.high)}), {n}; it does not compete."
        )
        found.append(Sentence("beyond", True, text))
    found += _steps(choice) + _criteria(choice)
    if choice.usable is not None:
        usable = choice.usable.horizons
        rule = f"cosine ≥ {COSINE:g} and at most {times(EXCESS)} the least error; {n}"
        text = usable_text(choice.usable.estimator, usable, rule)
        found.append(Sentence("usable", usable.decided, f"{text}."))
    for about, each in (("pair", choice.pair), ("several", choice.several)):
        if each is not None and choice.by == "gain" and each.gain is not None:
            found.append(_weights_by_gain(about, each, each.gain, outside(choice, each)))
        elif each is not None:
            found.append(_weights_by_error(about, each))
    if (alpha := choice.alpha) is not None:
        text = (
            f"α-order weight of {alpha.first} against {alpha.zeroth} at h = {alpha.horizon}, least "
            f"variance: {alpha.alpha:.2g} (CI {span(alpha.interval.low, alpha.interval.high)}, "
            f"{n})."
        )
        found.append(Sentence("α-order", True, text))
    found += _agreement(choice)
    found += [] if choice.what_if is None else _what_if(choice, choice.what_if)
    return (*found, *(Sentence("note", True, each) for each in choice.notes))


def cell_words(cell: Cell) -> str:
    """One estimator at one horizon: `model, h = 5`."""
    name, horizon = cell
    return f"{name}, h = {horizon}"


def cells_words(cells: Iterable[Cell]) -> str:
    """Cells by estimator, runs of horizons joined: `model, h = 3–7, 12`."""
    by_name: defaultdict[str, list[int]] = defaultdict(list)
    for name, horizon in cells:
        by_name[name].append(horizon)
    return "; ".join(f"{name}, h = {horizons(own)}" for name, own in by_name.items())


def _best(choice: Choice, best: Best) -> Sentence:
    value = _error(best.value, best.interval)
    if best.criterion == "gain":
        value = gain_text(best.number(choice.samples))
    elif best.criterion != "mse":
        value = f"{cosine(best.value)} (CI {span(best.interval.low, best.interval.high)})"
    text = (
        f"Best by {CALLED[best.criterion]} at N′ = {choice.batch}: {cell_words(best.cell)}, "
        f"{value}, N = {choice.samples}"
    )
    if best.kept == (best.cell,):
        return Sentence(best.criterion, True, f"{text}; nothing else may be best (95%).")
    text += f"; the 95% set is {cells_words(best.kept)}"
    parts = [
        f"{further(each.more)} separate {cell_words(each.member)} from {cell_words(each.contender)}"
        for each in best.partings[:_FEW]
    ]
    more = f"{capital(further(None))} shrink it"
    if choice.carried:
        more = _CARRIED
    elif parts:
        more = f"Not enough starts to say more: {'; '.join(parts)}"
    return Sentence(best.criterion, False, f"{text}. {more}.")


def _steps(choice: Choice) -> list[Sentence]:
    """Which steps lower the return, and which raise it."""
    if choice.steps is None:
        return []
    how = "realised on fresh starts" if choice.steps.realised else "to first order"
    parts = [
        f"{verb}: {cells_words(cells)}"
        for verb, cells in (("lower it", choice.steps.lowers), ("raise it", choice.steps.raises))
        if cells
    ]
    said = "; ".join(parts) if parts else "none is shown to raise or to lower it"
    text = f"Steps and the return ({how}, N = {choice.samples}, 95% for all together): {said}."
    return [Sentence("steps", bool(parts), text)]


def _criteria(choice: Choice) -> list[Sentence]:
    """Whether plain steps and scale-free optimisers want different things."""
    mse, direction = choice.mse, choice.direction
    if mse is None or direction is None:
        return []
    both = set(mse.kept) & set(direction.kept)
    if mse.cell == direction.cell:
        text = f"Both criteria choose {cell_words(mse.cell)}."
    elif both:
        among = cells_words([cell for cell in mse.candidates if cell in both])
        text = f"The criteria are not shown to differ: {among} may be best by both."
    else:
        text = (
            f"The criteria differ: for plain gradient steps {cell_words(mse.cell)}, for "
            f"optimisers that drop the scale, as Adam, {cell_words(direction.cell)}."
        )
    return [Sentence("criteria", not both or mse.cell == direction.cell, text)]


def outside(choice: Choice, mixing: Mixing) -> str:
    """The best single gradient by a batch's gain, where it is none of those that are mixed."""
    best = choice.direction
    if (
        best is None
        or best.cell in mixing.cells
        or not best.value > mixing.contender("gain").cosine
    ):
        return ""
    return f" Not among them: {cell_words(best.cell)}, which gains {cosine(best.value)} alone."


def _weights_by_gain(about: str, mixing: Mixing, weights: Weights, beside: str) -> Sentence:
    """What a batch's step along the mixture gains beside that of the best single estimator."""
    own, single = mixing.contender("gain"), mixing.contender("best single by gain")
    text = f"Weights of {cells_words(mixing.cells)}, by gain: {_shares(mixing, weights)}"
    ends = own.cosine_interval
    if isfinite(ends.high) and ends.high < 0:
        text = f"No mixture of {cells_words(mixing.cells)} raises the return; least harm: "
        text += _shares(mixing, weights)
    judged = _judged(about, mixing)
    if own.ahead is None or not isfinite(own.ahead.low):
        return Sentence(about, False, f"{text}. {judged} their gain is {ZERO}.{beside}")
    text += (
        f". {judged} a step of one batch gains {cosine(own.cosine)} of the best possible, along "
        f"the best single estimator {cosine(single.cosine)}, difference CI "
        f"{own.ahead.low:+.2g} to {own.ahead.high:+.2g}.{beside}"
    )
    return Sentence(about, own.ahead.low > 0 or own.ahead.high < 0, text)


def _judged(about: str, mixing: Mixing) -> str:
    """Which starts judge; the second sentence of a page does not repeat the first."""
    starts = f"{mixing.unseen} starts that did not choose them"
    return f"On the {starts}" if about == "pair" else f"On the same {starts}"


def _weights_by_error(about: str, mixing: Mixing) -> Sentence:
    own, weights = mixing.contender("mse"), mixing.direction
    by_direction = "none: no mixture points along the truth"
    if weights.share.any():
        ends = span(weights.scale_low, weights.scale_high)
        by_direction = f"{_shares(mixing, weights)}, scale {weights.scale:.2g} (CI {ends})"
    text = (
        f"Weights of {cells_words(mixing.cells)}: by mean squared error "
        f"{_shares(mixing, mixing.mse)}; by direction {by_direction}"
    )
    judged = _judged(about, mixing)
    against = own.against
    if against is None:
        return Sentence(about, False, f"{text}. {judged} their error is {ZERO}.")
    ratio = own.mse / mixing.contender("best scaled single").mse
    verdict = (
        f"{judged} their error is {times(ratio)} (CI {_exp(against)}) that of the best scaled "
        f"single estimator"
    )
    if isfinite(own.gap.low):
        verdict += f", their cosine {own.gap.low:+.2g} to {own.gap.high:+.2g} apart"
    rules = _rules(mixing)
    decided = against.high < -log(SAME) or against.low > log(SAME)
    return Sentence(about, decided, f"{text}. {verdict}{', ' + rules if rules else ''}.")


def _shares(mixing: Mixing, weights: Weights) -> str:
    """The shares that matter, with their intervals."""
    shown = [
        f"{share:.2g} (CI {span(low, high)}) {cell_words(cell)}"
        for cell, share, low, high in zip(
            mixing.cells, weights.share, weights.low, weights.high, strict=True
        )
        if share >= 0.05 or len(mixing.cells) == 2
    ]
    rest = sum(share for share in weights.share if share < 0.05) if len(mixing.cells) > 2 else 0
    return ", ".join(shown) + (f", {rest:.2g} others" if rest >= 0.005 else "")


def _rules(mixing: Mixing) -> str:
    """How the measured weights compare with the best rule at any of the times shown."""
    rules = [each for each in mixing.contenders if "rule" in each.name and each.saved is not None]
    if not rules:
        return ""
    best = min(rules, key=lambda each: each.mse)
    if best.saved is None:
        return ""
    ratio, few = mixing.contender("mse").mse / best.mse, len(rules) == 1
    which = f"the {best.name}" if few else f"the best rule ({best.name})"
    return f"and {times(ratio)} (CI {_exp(best.saved)}) that of {which}"


def _exp(logarithm: Interval) -> str:
    return span(exp(logarithm.low), exp(logarithm.high))


def _agreement(choice: Choice) -> list[Sentence]:
    """Only without a truth: who points where the others do."""
    parts = [
        f"{cell_words(each.first)} and {cell_words(each.second)}: {each.cosine:.2g} "
        f"(CI {span(each.interval.low, each.interval.high)})"
        for each in choice.agreement
    ]
    if not parts:
        return []
    text = f"Cosines between estimators (N = {choice.samples}): {'; '.join(parts)}."
    return [Sentence("agreement", True, text)]


def _what_if(choice: Choice, what: WhatIf) -> list[Sentence]:
    first, last = what.batches[0], what.batches[-1]
    text = f"What if: {_trial(first)}; {_trial(last)}"
    counted = f"mean squared errors, N = {choice.samples}, to first order"
    said = [Sentence("what if", True, f"{text} ({counted}).")]
    needed = what.needed
    if needed is None:
        return said
    ends = span(needed.cosine.low, needed.cosine.high)
    goal = f"A cosine of one batch ≥ .9 with {cell_words(what.cell)}"
    if needed.batch is not None:
        size = f"{batches(needed.batch.low)}–{batches(needed.batch.high)}"
        text = f"{goal} needs N′ ≈ {batches(needed.size)} (CI {size}, N = {choice.samples})."
        return [*said, Sentence("samples", True, text)]
    cap = f"bias alone caps it at {cosine(needed.value)} (CI {ends}, N = {choice.samples})"
    if needed.cosine.high < 0.9:
        return [*said, Sentence("samples", True, f"{goal}: no N′ reaches it, {cap}.")]
    return [*said, Sentence("samples", False, f"{goal}: undecided whether any N′ does; {cap}.")]


def _trial(each: Trial) -> str:
    error = _error(each.mse, each.mse_interval)
    return f"{each.change}: {cell_words(each.best)}, error {error}"


def _error(value: float, error: Interval) -> str:
    """A noise-corrected error; one that is not above 0 is known from above only."""
    if value > 0:
        return f"{value:.2g} (CI {span(error.low, error.high)})"
    return f"at most {error.high:.2g} (upper end of its CI)"
