"""The first screen of a measurement: which gradient, for how long, what not, what to fix first.

    use     the gradient of `advice`, the horizons that gain nine tenths of it, its best one's gain
            and updates
    not     its horizons that lower the return, and the critic alone where that does
    fix     the costliest of states, derivatives and critic, and what is gained without that error

That the return jumps comes right after. A headline has at most 60 words and 8 numbers with its
sureness, and leaves out what has no room there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from math import inf, isfinite

from gradlab.runs.identity import same_as
from gradlab.runs.jumps import UPDATE
from gradlab.runs.rehearsal import RATE, Peak, Rehearsal
from gradlab.runs.stages import REMEDY
from gradlab.statistics.comparison import decide
from gradlab.verdicts.advice import FEWEST, NEGLIGIBLE, Advice, advise, believed, lowers
from gradlab.verdicts.facts import Cell, Facts
from gradlab.verdicts.measurement import key_numbers
from gradlab.verdicts.measurement.key_numbers import NOTABLE, HeadlinePart, first_to_fix
from gradlab.verdicts.phrases import alone, change, gain_text, named, share, step_along, with_sign
from gradlab.verdicts.screen import NOTHING, NUMBERS, WORDS, Fact, Screen, Sentence, counted
from gradlab.wording import (
    duration,
    horizons,
    label,
    rounded_up,
    stepping,
    steps,
    turned,
    two,
    updates,
    with_interval,
)

GAINS, RETURNS = "gain", "realised_gains"  # figures
_DAY = 86400.0  # seconds
_ENOUGH = 0.75  # of what the best brings over its updates: 0.9 of its gain is less over several
_JUDGED = 0.3  # of a measurement, what returns of its judging starts take at most
_MARGIN = 4  # words of the page before the figure beside headline and sureness
_MUST = 3  # rank up to which all are said in short before any is said at length
_NO_PART = HeadlinePart("", "", 9)
_NOT_ONE = "Returns decide, not one step's gain."
_REASONS = {
    "boundary": "episodes end, and pathwise gradients do not see it",
    "law": "gradient and return belong to different problems",
}


def recommendation(facts: Facts, rest: tuple[Sentence, ...] = ()) -> Screen:
    """What to do, in the words of someone who trains policies."""
    if facts.void and advise(facts).cell is None:
        return Screen(facts.void[0], "none", NOTHING, (), _figure(facts), rest)
    if facts.law != "visited" and not facts.gains and facts.errors:
        return _at_given_states(facts, rest)
    guessed, advice, facts = facts, advise(facts), believed(facts)
    if advice.contradiction is not None:
        # Returns contradict gradients: nothing is recommended from either before that is fixed.
        found = advice.contradiction
        known = facts.identities.get(found.cell[0])
        who = "the true gradient" if known is None else named(known)
        at = "" if found.cell[1] == 0 else f" at h = {found.cell[1]}"
        text = (
            f"Do not trust these gains yet. One plain step along {who}{at} brought "
            f"{share(found.realised)} of the possible gain; its direction predicts "
            f"{share(found.predicted)}. Likely reason: {_REASONS[found.reason]}."
        )
        if advice.cell is not None:
            facts = replace(facts, void=(text,), premise="Plain steps contradict the gains.")
            facts = believed(facts)
            return _use(facts, advice, advice.cell, rest)
        return Screen(text, "none", "a check failed", key_numbers.of_gains(facts), GAINS, rest)
    if advice.cell is not None:
        return _use(facts, advice, advice.cell, rest)
    if facts.uncertain and guessed.best is not None:
        return _keep(facts, rest, guessed)
    if facts.best is None and not facts.stepped:
        # Neither gains nor steps: what was judged, and how to get an answer.
        why = f" ({facts.why})" if len(facts.why.split()) < 30 and facts.why else ""
        text = (
            f"Keep the current policy: no gain can be measured here{why}. Only variance and "
            f"agreement of the gradients are known."
        )
        if facts.law != "visited":
            text = (
                "Measure more of these states: no gradient is shown to be accurate at them. To "
                "learn whether a step raises the return, leave out --law start."
            )
        return Screen(text, "none", "no truth", (), None, rest)
    return _keep(facts, rest)


def _figure(facts: Facts) -> str | None:
    """What there is to look at."""
    if facts.gains and facts.best is not None and not (facts.uncertain and facts.stepped):
        return GAINS
    return RETURNS if facts.stepped else None


def _use(facts: Facts, advice: Advice, cell: Cell, rest: tuple[Sentence, ...]) -> Screen:
    sure = _sure(facts, advice, cell)
    worth, lasts = _worth(facts, cell), _lasts(facts, advice, cell)
    identity = facts.identities[cell[0]]
    passing, close = _passing(facts, advice), facts.close(cell)
    # Horizons that gain more in one step, and no more over several updates, are not as good.
    close = [] if passing.text and facts.best in [(cell[0], h) for h in close] else close
    close = _lasting(facts, cell, advice.updates, close)
    told = facts.rehearsal
    top = None if told is None else told.best
    several = cell != facts.best and top is not None and top.cell == cell and top.updates > 1
    note = _among(facts, cell, close, several)
    ranged = step_along(identity, cell[1], over=close, note=note)
    ranged, use = (f"{text}: {worth}" for text in (ranged, step_along(identity, cell[1])))
    options = (f"{ranged}{lasts}.", f"{use}{lasts}.", f"{use}.")
    said = next((text for text in options if _has_room(text, sure)), options[-1])
    parts = (
        _premise(facts),
        HeadlinePart(said, f"{use}.", 0),
        _jump(facts),
        passing,
        _harmful(facts, cell, advice.updates, facts.best if passing.text else None),
        _critic(facts, cell, advice.updates),
        HeadlinePart(_beyond(facts, cell), "", 9),
        first_to_fix(facts, cell),
    )
    numbers = key_numbers.of_use(facts, cell)
    if more := _beyond(facts, cell, ends=True):
        rest = (Sentence("beyond", True, f"{more[:-1]}; it does not compete."), *rest)
    return Screen(_fitted(parts, sure), advice.light, sure, numbers, _figure(facts), rest)


def _premise(facts: Facts) -> HeadlinePart:
    """What keeps gains from deciding; in short its remedy, where that is one clause."""
    if not facts.void:
        return _NO_PART
    remedy = facts.premise.rpartition(": ")[2]
    short = "" if ". " in remedy else f"{remedy[:1].upper()}{remedy[1:]} Until then:"
    return HeadlinePart(f"{facts.premise} Until then:", short, 1)


def _lasting(facts: Facts, cell: Cell, updates: int | None, close: list[int]) -> list[int]:
    """Those of the horizons around a cell that lie between rehearsed ones, up to the farthest on
    either side before which, itself included, all bring enough in so many updates."""
    told, (name, best) = facts.rehearsal, cell
    if told is None or updates is None or cell not in told.cells or best not in close:
        return close

    def good(h: int) -> bool:
        falls = told.lowered_after((name, h)) or inf
        return falls > updates and told.as_good((name, h), cell, updates, _ENOUGH)

    tried = sorted(h for each, h in told.cells if each == name and h in close)
    at = tried.index(best)
    ends = [best, *takewhile(good, tried[:at][::-1]), *takewhile(good, tried[at + 1 :])]
    return [h for h in close if min(ends) <= h <= max(ends)]


def _way(facts: Facts, cell: Cell) -> str:
    """The gradient of a cell, and over how many steps."""
    name, h = cell
    return f"{named(facts.identities[name])}{f', {steps(h)},' * (h > 0)}"


def _among(facts: Facts, cell: Cell, close: list[int], several: bool) -> str:
    """What a horizon is among those around it, and on which side others that gain as much in one
    step were too dear to rehearse.

    Args:
        close: horizons between rehearsed ones, of `facts.close`.
        several: is it the best over several updates, and another one in one step?
    """
    told, (name, best) = facts.rehearsal, cell
    notes = [f"best{' over several updates' * several}: {best}"] * (len(close) > 1)
    if told is not None and close:
        good = facts.close(cell)
        beyond = {
            "shorter": [h for h in good if h < close[0]],
            "longer": [h for h in good if h > close[-1]],
        }
        untold = [
            side for side, those in beyond.items()
            if those and not any((name, h) in told.cells for h in those)
        ]  # fmt: skip
        notes += [f"{' or '.join(untold)}: not rehearsed"] * bool(untold)
    return "; ".join(notes)


def _fitted(parts: Sequence[HeadlinePart], sure: str) -> str:
    """What a first screen has room for: rank 0, in short what must be there (`_MUST`), then each
    part by its rank, at length where it can be."""
    shown = ["" if part.rank else part.short for part in parts]
    ranked = sorted(enumerate(parts), key=lambda each: each[1].rank)
    first = [
        (k, part.short if part.rank else part.text) for k, part in ranked if part.rank <= _MUST
    ]
    then = [(k, text) for k, part in ranked for text in (part.short, part.text)]
    for k, text in first + then:
        if _has_room(*shown[:k], text, *shown[k + 1 :], sure):
            shown[k] = text
    return " ".join(each for each in shown if each)


def _has_room(*texts: str) -> bool:
    words, numbers = counted(" ".join(texts))
    return words <= WORDS - _MARGIN and numbers <= NUMBERS


def _gradient(facts: Facts, cell: Cell) -> str:
    return step_along(facts.identities[cell[0]], cell[1])


def _following(facts: Facts, cell: Cell) -> str:
    """The subject of what it does."""
    who = _gradient(facts, cell).replace("Backpropagate", "Backpropagating")
    return _capital(who.removeprefix("Use "))


def _worth(facts: Facts, cell: Cell) -> str:
    """Its gain of one step, else what one update, or the rehearsal, added to the return."""
    gain = facts.chosen if cell == facts.best else facts.gains.get(cell)
    if gain is not None and gain.low > 0:
        return f"{gain_text(gain)} of the best possible gain"
    peak = _peak(facts, cell)
    if peak is None:
        assert facts.realised is not None
        taken = change(facts.realised, cell, chosen=True)
        return f"one plain step changes the return by {taken}"
    verb = "changes" if peak.updates == 1 else "change"
    return f"{updates(peak.updates)} {verb} the return by {with_sign(*peak.gain.estimate)}"


def _peak(facts: Facts, cell: Cell) -> Peak | None:
    """Where its rehearsal led."""
    rehearsed = facts.rehearsal
    if rehearsed is None or cell not in rehearsed.cells:
        return None
    return rehearsed.peak_of(cell)


def _lasts(facts: Facts, advice: Advice, cell: Cell) -> str:
    """For how many updates, where that is known and not said already."""
    rehearsed, gain = facts.rehearsal, facts.gains.get(cell)
    said = (gain is None or not gain.low > 0) and _peak(facts, cell) is not None
    if rehearsed is None or advice.updates is None or said:
        return ""
    # The rate, where nobody gave one and the usual one is too long a step.
    smaller = rehearsed.assumed and rehearsed.rate < RATE
    by = f" ({stepping(rehearsed.optimizer, rehearsed.rate)})" if smaller else ""
    if rehearsed.at_least(cell):
        return f"; lasts at least {advice.updates} updates, until the critic's next fit{by}"
    if advice.updates == 1:
        return f"; stop after one update{by} and measure again"
    return f"; lasts about {advice.updates} updates{by}"


def _passing(facts: Facts, advice: Advice) -> HeadlinePart:
    """Why the gradient of largest gain in one step, to first order, is not the recommended one."""
    best, cell, rehearsed = facts.best, advice.cell, facts.rehearsal
    if best is None or cell is None or cell == best:
        return _NO_PART
    now, most = facts.gains.get(cell), facts.chosen
    little = now is not None and most is not None and most.clipped - now.clipped < NOTABLE
    if most is None or not most.low > 0 or little:
        return _NO_PART
    own, h = facts.identities[best[0]], best[1]
    who, it = f"{_capital(named(own))} gains", "it"
    if best[0] == cell[0] and h:
        who, it = f"{'Longer' if h > cell[1] else 'Shorter'} rollouts gain", "them"
    elif not h and not own.data:
        who = "The critic at start states gains"
    if rehearsed is None or advice.updates is None:
        did = "lowers the return" if lowers(facts, best) else "is not shown to raise the return"
        why = f"one plain step along {it} {did}"
    elif best not in rehearsed.cells:
        why = f"no update along {it} was rehearsed"
    elif rehearsed.after(best, advice.updates).high < 0:
        why = f"updates along {it} lower the return"
    elif rehearsed.repeated(best):
        why = f"updates along {it} are not shown to raise the return"
    elif best in rehearsed.not_excluded():
        why = "over several the two cannot be told apart"
    else:
        why = f"at h = {h} their updates gained less" if it == "them" else "less over several"
    return HeadlinePart(f"{who} more in one step, but {why}.", _NOT_ONE, 3)


def _jump(facts: Facts) -> HeadlinePart:
    """That the return jumps and backpropagation does not see it, where that does harm."""
    jumps = facts.jumps
    if jumps is None or not jumps.refuted:
        return _NO_PART
    how = "The return is rough" if jumps.kind == "rough" else "The return is discontinuous"
    promised, brought = f"{jumps.promised:+.3g}", f"{float(jumps.brought[UPDATE]):+.3g}"
    text = f"{how}: the simulator's gradient predicts {promised}, steps along it bring {brought}."
    short = f"{how}: the simulator's gradient misses it."
    return HeadlinePart(text.replace("-", "−"), short, 1)


def _beyond(facts: Facts, cell: Cell, ends: bool = False) -> str:
    """The gradient that needs the simulator's states and gains more than the recommended one."""
    if cell not in facts.beyond:
        return ""
    name, h = facts.beyond[cell]
    who, gain = label(name, facts.identities), facts.gains[name, h]
    gained = gain_text(gain) if ends else share(gain.clipped)
    return f"With simulator states ({who}), {steps(h)} gain{'s' * (h == 1)} {gained}."


def _harmful(facts: Facts, cell: Cell, made: int | None, told: Cell | None = None) -> HeadlinePart:
    """Horizons that lower the return in one step, or in as many updates as are recommended, of the
    recommended gradient, else of others that compete; else what θ once is worth.

    Args:
        told: of which another sentence speaks.
    """
    name = cell[0]
    harmful = [h for h in facts.lowering(name, made) if (name, h) != told]
    if harmful:
        first = min([h for h in facts.horizons(name) if h], default=harmful[0])
        short = f"{_sides(facts, cell, harmful)} lower the return."
        return HeadlinePart(_until(harmful, first), short, 2)
    own, rehearsed = facts.identities[name], made is not None and facts.rehearsal is not None
    every = own.actions == "all"
    way, what = ("first", "The first action alone") if every else ("all", "BPTT")
    twins = () if own.data else same_as(facts.identities, replace(own, actions=way))
    lowering = [each for each in twins if facts.harmful(each) == facts.horizons(each) != []]
    if twins and len(lowering) == len(twins) and not rehearsed:
        return HeadlinePart(f"{what} lowers the return at every horizon.", "", 4)
    # The critic alone has a sentence of its own where its gain is known, and is no rollout.
    others = [each for each in facts.own if each != name and (each, 0) != facts.data]
    harm = {each: facts.lowering(each, made) for each in others}
    lower = {named(facts.identities[each]): h for each, h in harm.items() if h}
    if lower:
        verb = "lowers" if len(lower) == 1 else "lower"
        said = " and ".join(f"{who} at h = {horizons(those)}" for who, those in lower.items())
        some = f"{_capital(' and '.join(lower))} {verb} the return at some horizons."
        return HeadlinePart(f"{_capital(said)} {verb} the return.", some, 4)
    other = facts.best_of(twins if every else ())
    if other is None or cell not in facts.gains:
        return _NO_PART
    if not facts.gains[other].high < facts.gains[cell].low:
        return _NO_PART
    gained = share(facts.gains[other].clipped)
    return HeadlinePart(f"Differentiating the first action only gains at most {gained}.", "", 4)


def _until(harmful: Sequence[int], first: int) -> str:
    """Up to 5 steps lower the return; 3–5 steps where shorter ones do not."""
    run = [h for k, h in enumerate(harmful) if h == first + k]
    if first == 1 and len(run) == len(harmful) and run[-1] > 1:
        return f"Rollouts of up to {steps(run[-1])} lower the return."
    if list(harmful) == [1]:
        return "Rollouts of 1 step lower the return."
    return f"Rollouts of {horizons(harmful)} steps lower the return."


def _sides(facts: Facts, cell: Cell, harmful: Sequence[int]) -> str:
    """On which side of the best horizons others harm, without a number: few steps where some
    between do not, some of them where some that are fewer do not."""
    name, best = cell
    first = facts.close(cell)[0]
    between = [h for h in facts.horizons(name) if 0 < h < first and h not in harmful]
    fewer = "Shorter"
    if between:
        fewer = "Very short" if between[0] > harmful[0] else "Some shorter"
    shorter, longer = any(h < best for h in harmful), any(h > best for h in harmful)
    if shorter and longer:
        return f"{fewer} or much longer rollouts"
    return f"{fewer} rollouts" if shorter else "Much longer rollouts"


def _critic(facts: Facts, cell: Cell, made: int | None) -> HeadlinePart:
    """What the critic alone is worth, in as many updates as are recommended where these were
    rehearsed, else in one step; where it is not the recommendation itself."""
    gain, told, data = facts.data_gain, facts.rehearsal, facts.data
    if data is None or cell == data:
        return _NO_PART
    who = "The critic alone" if cell[1] else "The critic at visited states"
    harms = HeadlinePart(f"{who} lowers the return.", f"{who} harms.", 6)
    if told is not None and made is not None:
        if data not in told.cells or not told.comparable:
            return _NO_PART
        brought = told.after(data, made)
        if brought.high < 0:
            return harms
        if not brought.low > 0:
            return _NO_PART
        less = not told.as_good(data, cell, made, 1.0)
        peak = told.peak_of(cell)
        # The chosen one's number is of fresh draws, and may be the smaller of the two.
        as_much = peak is not None and brought.value >= peak.gain.value
        if as_much:
            text = f"{who} brings less." if less else f"{who} brings as much."
            return HeadlinePart(text, "", 6)
        return HeadlinePart(f"{who} brings +{two(brought.value)}.", "", 6)
    if gain is None:
        return harms if facts.harmful(data[0]) else _NO_PART
    text = alone(gain, beside=cell[1] == 0)
    short = f"{who} harms." if gain.high < 0 else text
    return HeadlinePart(text, "" if gain.low > 0 else short, 6)


def _sure(facts: Facts, advice: Advice, cell: Cell) -> str:
    """What was tried, or what is open, and what would tell."""
    told, made = facts.rehearsal, advice.updates
    if advice.missing == "update" or told is None or made is None:
        if facts.stepped and cell in facts.own_steps.stepped:
            return "one plain step raised the return; no update along it was made"
        return "untested: no update along it was made"
    many = f"{updates(made)} raise{'s' * (made == 1)} the return"
    if advice.missing == "premise":
        return "a check failed, so only measured returns count"
    if advice.missing == "judges":
        return f"{many}, from {told.judges} judging starts (--judges {FEWEST} or more)"
    if advice.missing == "jumps":
        assert facts.jumps is not None
        if facts.jumps.first_lost is not None:
            return "undecided: some returns overflow within one update"
        return f"undecided: the discontinuities may do harm{_more(facts, facts.jumps.missing)}"
    if advice.missing == "longer":
        step = "a plain step that moves the actions farther lowers it"
        return f"{many}; {step if lowers(facts, cell) else 'one small step lowers it'}"
    if advice.missing == "farther":
        fewest = told.lowered_after(cell)
        assert fewest is not None
        if fewest < made:
            return f"undecided: {updates(fewest)} along it lower the return, {made} raise it"
        return "tested at this length only: more updates along it lower the return"
    return f"tested: {many} in fresh draws of batches"


def _more(facts: Facts, more: int | None, judges: int = 0) -> str:
    """(about 230 more starts needed, 3 min), of returns with so many `judges` (--judges 5500
    needed, 3 min); nothing where no affordable number is known."""
    if not more or more < 0:
        return ""
    what, too_many = f"about {rounded_up(more):,} more starts", "starts for more than a day"
    seconds = facts.seconds * (1 + more / facts.samples)
    if judges:
        what = f"--judges {rounded_up(judges + more)}"
        too_many = "more than a day of judging starts"
        seconds = facts.seconds * (1 + _JUDGED * more / judges)
    if seconds > _DAY:
        return f" (needs {too_many})"
    price = f", {duration(seconds)}" if isfinite(seconds) else ""
    return f" ({what} needed{price})"


def _keep(facts: Facts, rest: tuple[Sentence, ...], guessed: Facts | None = None) -> Screen:
    """No gradient is shown to raise the return: what is safe meanwhile, and the best guess;
    `guessed` has that beside a true gradient that is not precise."""
    if facts.rehearsal is not None:
        return _keep_rehearsed(facts, facts.rehearsal, rest)
    figure = _figure(facts)
    which = "no model-based gradient" if facts.best in facts.beyond else "no gradient"
    safe = f"Keep the current policy: {which} is shown to raise the return."
    smaller = _smaller(facts)
    if smaller:
        text = f"Take smaller steps: {smaller}"
        sure = "tested: a smaller step raised the return on fresh starts, the longer one did not"
        return Screen(text, "none", sure, key_numbers.of_returns(facts), figure, rest)
    tried = facts.own_steps.stepped if facts.stepped else ()
    fallen = bool(tried) and all(map(facts.own_steps.harms, tried))
    # Beside returns that were measured no guess is worth its room.
    if guessed is not None and not fallen:
        return _guess(guessed, safe, rest)
    if facts.best is None or facts.chosen is None:
        taken = facts.own_steps
        lower = [each for each in taken.stepped if taken.harms(each)]
        how = f"{len(lower)} of {len(taken.stepped)} tested gradients lower it." if lower else ""
        if len(lower) == 1 < len(taken.stepped):
            how = f"One plain step along {_way(facts, lower[0])} lowers it."
        sure = f"undecided with {taken.judges:,} starts"
        if len(lower) == len(taken.stepped):
            sure = "tested: plain steps lowered the return on fresh starts"
        kept = (HeadlinePart(safe, safe, 0), HeadlinePart(how, "", 3), _jump(facts))
        text = _fitted(kept, sure)
        return Screen(text, "none", sure, key_numbers.of_returns(facts), figure, rest)
    numbers = key_numbers.of_what_was_tried(facts)
    if facts.chosen.high < 0:
        modelled = any("model" in facts.identities[each].systems for each in facts.own)
        what = "the critic and the model" if modelled else "the critic"
        text = (
            f"{safe} All of them lower it. Fix {what} first. {_beyond(facts, facts.best)}".rstrip()
        )
        sure = "sure: every interval is below 0"
        return Screen(text, "none", sure, numbers, figure, rest)
    if facts.chosen.low > 0:  # in one small step, and not by a longer one
        best = facts.best
        gains = f"{_following(facts, best)} gains {gain_text(facts.chosen)} in one small step"
        did = "lowers the return" if lowers(facts, best) else "is not shown to raise the return"
        text = f"{safe} {gains}, but one plain step {did}."
        sure = "no update was rehearsed: leave out --no-rehearsal"
        return Screen(text, "none", sure, numbers, figure, rest)
    return _guess(facts, safe, rest)


def _keep_rehearsed(facts: Facts, told: Rehearsal, rest: tuple[Sentence, ...]) -> Screen:
    """No gradient's updates are shown to raise the return: what was tried, and what it takes to
    decide."""
    rule = stepping(told.optimizer, told.rate)
    falls = told.best is not None and told.best.gain.high < 0
    none = f"none of {len(told.cells)} gradients' updates is shown to raise the return"
    if falls:
        none = f"updates by {rule} lower the return along every gradient"
    lower = "" if told.assumed else f", or measure again with --lr {0.1 * told.rate:.2g}"
    safe = f"Keep the current policy{lower if falls else ''}: {none}."
    led = ""
    if len(told.confirmed):
        cell = told.cells[int(told.confirmed[0])]
        peak = told.peak_of(cell)
        if peak is not None:
            change = with_sign(*peak.gain.estimate)
            led = f"Highest: {_way(facts, cell)} {change} after {updates(peak.updates)}."
    judges = told.missing(NEGLIGIBLE * abs(told.now))
    what = f"{NEGLIGIBLE:.1%} of the return"
    sure = f"tested: no gradient is shown to raise the return by {what}"
    if judges is None:
        sure = f"undecided: no affordable number of judging starts shows {what}"
    elif judges:
        sure = f"undecided{_more(facts, judges - told.judges, told.judges)}"
    parts = (
        HeadlinePart(_few(facts), _few(facts), 2),
        HeadlinePart(safe, safe, 0),
        _jump(facts),
        HeadlinePart(led, "", 3),
    )
    numbers = key_numbers.of_returns(facts) if facts.stepped else ()
    return Screen(_fitted(parts, sure), "none", sure, numbers, _figure(facts), rest)


def _guess(facts: Facts, safe: str, rest: tuple[Sentence, ...]) -> Screen:
    """Nothing is shown: the best guess, and how many starts would tell. What lowers the return, or
    gains more, is not said beside a true gradient that is not precise."""
    assert facts.best is not None and facts.chosen is not None
    name, at = facts.best
    guess = step_along(facts.identities[name], at, small=True)
    gain = "" if facts.uncertain else f", gain {gain_text(facts.chosen)}"
    harmful = [each for each in facts.own if facts.harmful(each) and not facts.uncertain]
    lowering = " and ".join(named(facts.identities[each]) for each in harmful[:2])
    verb = "lower" if len(harmful) > 1 else "lowers"
    lowered = f"{_capital(lowering)} {verb} it." if harmful else ""
    said = f"Best guess: {guess}{gain}."
    parts = (
        HeadlinePart(_few(facts), _few(facts), 2),
        HeadlinePart(safe, safe, 0),
        _jump(facts),
        HeadlinePart(lowered, "", 4),
        HeadlinePart("" if facts.carried else said, "", 3),
        HeadlinePart("" if facts.uncertain else _beyond(facts, facts.best), "", 5),
    )
    sure = "undecided: the best guess may raise or lower it"
    sure += _more(facts, decide(facts.chosen, 0.0).more)
    numbers: tuple[Fact, ...] = ()
    if facts.uncertain:
        sure = f"undecided: the true gradient is not precise{_more(facts, facts.wanted)}"
        numbers = key_numbers.of_returns(facts) if facts.stepped else ()
    else:
        numbers = key_numbers.of_what_was_tried(facts)
    if facts.carried:
        sure = "undecided: the true gradient rests on few starts"
    return Screen(_fitted(parts, sure), "none", sure, numbers, _figure(facts), rest)


def _smaller(facts: Facts) -> str:
    """The gradient that raises the return by a part of the plain step, where the whole lowers it;
    "" where there is none."""
    taken = facts.realised
    if taken is None or not taken.at:
        return ""
    own = facts.own_steps
    if any(own.helps(cell) for cell in own.stepped) or not any(map(own.harms, own.stepped)):
        return ""
    tried = [cell for cell in own.stepped if own.taken(cell, 0)]
    raised = [cell for cell in tried if own.ends(cell, 0, len(tried)).low > 0]
    if not raised:
        return ""
    best = max(raised, key=lambda cell: own.change(cell, 0).value)
    part = f"one that moves the first actions by {taken.moves[0]:.0%}"
    return (
        f"none that moves the first actions by {taken.moves[taken.at]:.0%} is shown to raise the "
        f"return. {_gradient(facts, best)}: {part} raises it by {change(taken, best, 0)}."
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _few(facts: Facts) -> str:
    """Where few starts carry the truth, no number of starts is known to do: trim them."""
    if not facts.carried:
        return ""
    return (
        f"Trim the start-state distribution (--trim-starts {REMEDY:g}): 1% of the starts carry "
        f"{facts.carried:.0%} of the squared true gradient."
    )


def _at_given_states(facts: Facts, rest: tuple[Sentence, ...]) -> Screen:
    """Under matched truths: which gradient is nearest to its own, and that this is no gain."""
    cells = [cell for cell in facts.errors if cell[0] in facts.own]
    name, h = cell = min(cells, key=lambda each: facts.errors[each].value)
    own = facts.identities[name]
    where = "" if own.data else f", {steps(h)}"
    found = f"the most accurate gradient at these states is {named(own)}{where}"
    if not facts.errors[cell].high < 1:
        found = "no gradient is shown to be better than a zero gradient at these states"
    how = "E|mean of N′ gradients − truth|² over |truth|², 1 being no gradient at all"
    error = facts.errors[cell]
    level = with_interval(*error.estimate)
    if error.spans_decades:
        level = f"unknown ({error.n:,} starts)"
    numbers = [Fact("error", level, how)]
    if cell in facts.cosines:
        angle = facts.cosines[cell]
        level = turned(angle.clipped, angle.low, angle.high)
        numbers.append(Fact("cosine", level, "⟨g, truth⟩/(|g||truth|)"))
    text = f"Leave out --law start to learn whether a step raises the return: {found}."
    return Screen(text, "choose", "about these states only", tuple(numbers), "mse", rest)
