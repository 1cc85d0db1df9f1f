"""The fields of a measurement: which gradient, for how long, what not, what to fix first.

use         the gradient of `advice`, and the horizons that bring practically as much
gain        of one small step, as a share of the best one
tested      what its updates by the user's rule added to the return; what was not looked at
avoid       what lowers the return over as many updates, on the same starts
fix first   what stands in the way of every gradient, else the costliest error of this one

use         no update yet, and
why         none of the gradients is shown to raise the return
tested      where the highest led
decide      what it takes to know

What to fix first: the costliest of the model's states, its derivatives and the critic.

The simulator takes the place of one after the other, with the same horizon and critic:

    the gradient itself → along its states (mixed) → with its derivatives, too (true dynamics) → 1

so that each cause is measured with those before it replaced. A replacement may lower the gain,
where errors of model and critic cancel: then it is not advised by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise, takewhile
from math import inf, isfinite

from gradlab.findings import Decision, Finding
from gradlab.runs.identity import Cell, same_as
from gradlab.runs.jumps import UPDATE
from gradlab.runs.realised import Disagreement
from gradlab.runs.rehearsal import RATE, Rehearsal
from gradlab.runs.stages import REMEDY
from gradlab.statistics.comparison import decide
from gradlab.verdicts.advice import FEWEST, NEGLIGIBLE, Advice, advise, believed, lowers
from gradlab.verdicts.facts import Facts
from gradlab.verdicts.phrases import change, gain_text, named, row, with_sign
from gradlab.verdicts.recommendation import MOST, Field, Follow, Recommendation
from gradlab.wording import (
    at_horizon,
    duration,
    horizons,
    rounded_up,
    share,
    states_each,
    stepping,
    steps,
    turned,
    updates,
    with_interval,
)

_CRITIC = "the critic"
_STATES = "the model's state predictions"
_DERIVATIVES = "the model's derivatives"
_WORTH = 0.1  # of the possible gain, from which on fixing something comes first


def first_to_fix(facts: Facts, cell: Cell) -> str:
    """The costliest error of a gradient and what would be gained without it; "" where none costs
    much."""
    causes = losses(facts, cell) if cell in facts.gains else {}
    if not causes:
        return ""
    cause = max(causes, key=lambda each: causes[each])
    cells, replaced = _replacements(facts, cell)
    before = replaced[: replaced.index(cause)]
    best = facts.gains[cell]
    reached = 1.0 if cause == _CRITIC else facts.gains[cells[len(before) + 1]].clipped
    if min(causes[cause], reached - best.clipped) < _WORTH or not reached > best.high:
        return ""
    if cause != _CRITIC:
        # The derivatives were measured with the states replaced only.
        both = " and ".join((*before, cause.removeprefix("the model's ") if before else cause))
        return f"{both}: +{100 * (reached - best.clipped):.0f} points of gain"
    left = facts.gains[cells[-1]]  # with the simulator in the model's place
    helps = left.clipped > best.clipped
    if not before or not (helps or left.high < best.low):
        return _CRITIC
    return f"{_CRITIC}{' and the model' * helps}; an exact model alone gains {share(left.clipped)}"


def losses(facts: Facts, cell: Cell) -> dict[str, float]:
    """What states, derivatives and critic cost a gradient, as shares of the possible gain.

    Each is the loss with those before it replaced; only losses above 1% are here. That of the
    critic is of θ in the first action alone: in all actions the end of a rollout costs, too.
    """
    cells, causes = _replacements(facts, cell)
    if not cells or any(each not in facts.gains for each in cells):
        return {}
    reached = [min(facts.gains[each].clipped, 1.0) for each in cells]
    lost = {c: b - a for c, (a, b) in zip(causes, pairwise(reached), strict=False)}
    name, h = cells[-1]
    first = same_as(facts.identities, replace(facts.identities[name], actions="first"))
    if len(first) == 1 and (first[0], h) in facts.gains:
        lost[_CRITIC] = 1.0 - min(facts.gains[first[0], h].clipped, 1.0)
    return {cause: loss for cause, loss in lost.items() if loss > 0.01}


def _replacements(facts: Facts, cell: Cell) -> tuple[list[Cell], list[str]]:
    """The cells that were measured with more and more of the simulator, and what each lacks.

    None where a replacement was not measured, or where two estimators are the same one.
    """
    name, h = cell
    own = facts.identities[name]
    if own.data or "model" not in own.systems:
        return [cell], [_CRITIC]
    along = replace(own, states="simulator", gradient_model=False)
    simulated = replace(along, jacobians="simulator")
    lacking = [(along, _STATES)] if own.states != "simulator" else []
    lacking += [(simulated, _DERIVATIVES)] if "model" in own.systems[1:] else []
    cells, causes = [cell], []
    for wanted, cause in lacking:
        same = same_as(facts.identities, wanted)
        if len(same) != 1:
            return [], []
        cells.append((same[0], h))
        causes.append(cause)
    return cells, [*causes, _CRITIC]


GAINS, STEPS, UPDATES = "gain", "realised_gains", "return_over_updates"  # figures
KEEP = "no update yet"
_DAY = 86400.0  # seconds
_ENOUGH = 0.75  # of what the best brings over its updates: 0.9 of its gain is less over several
_JUDGED = 0.3  # of a measurement, what returns of its judging starts take at most
_NOTABLE = 0.03  # of the possible gain, from which on a difference of two is said
# What was not decided, or warns (`advice`), but for what rehearsals, jumps and premises say.
_MISSING: Mapping[str, tuple[str, Decision]] = {
    "update": ("no_updates", "skipped"),
    "longer": ("step_lowers", "fail"),
}
_REASONS = {
    "boundary": "episodes end, and pathwise gradients do not see it",
    "law": "gradient and return belong to different problems",
}


def recommendation(facts: Facts, rest: tuple[Finding, ...] = ()) -> Recommendation:
    """What to do, in the words of someone who trains policies."""
    advice = advise(facts)
    cell, contradiction, told = advice.cell, advice.contradiction, facts.rehearsal
    if facts.law != "visited" and not facts.gains and facts.errors and not facts.void:
        return Recommendation("choose", _fields(*_at_given_states(facts)), "mse", rest)
    guessed, facts = facts, believed(facts, contradiction is not None and cell is not None)
    fields: _Texts = {"use": KEEP}
    if cell is not None:
        rest = (*_beside(facts, advice, cell), *rest)
        gain = facts.chosen if cell == facts.best else facts.gains.get(cell)
        fix = facts.void[0].remedy.removesuffix(".") if facts.void else ""
        if not fix and contradiction is not None:
            fix = _contradicted(facts, contradiction)["fix first"]
        fields = {
            "use": _which(facts, advice, cell),
            "gain": "" if gain is None else f"{gain_text(gain)} of the best step",
            "tested": _tested(facts, advice, cell),
            "avoid": _harmful(facts, cell, advice.updates),
            "fix first": fix or _few(facts) or first_to_fix(facts, cell),
        }
    elif facts.void:
        fields["why"] = facts.void[0].said.removesuffix(".")
    elif contradiction is not None:
        fields |= _contradicted(facts, contradiction)
    elif told is not None:
        fields |= _rehearsed(facts, told)
    elif facts.best is None and not facts.stepped and not facts.uncertain:
        fields["why"] = f"no gain can be measured{f' ({facts.why})' if facts.why else ''}"
    else:
        fields |= _not_rehearsed(facts, guessed)
    how = {"gain": f"⟨g, ∇J⟩ / (|g||∇J|), noise-corrected; {facts.samples:,} starts"}
    if told is not None and cell is not None:
        length = told.again_horizon if told.repeated(cell) else told.horizon
        batch = states_each(told.batch, facts.batch)
        how["tested"] = f"J(θ_k) − J(θ_0) over {length:,} steps, batches of {batch}, fresh starts"
    shown = _fields(fields, how)
    room = tuple(each for each in shown if len(shown) <= MOST or each.name != "avoid")
    follow = None
    if cell is not None:  # the configuration of the measurement is the caller's
        rule = ("adam", RATE) if told is None else (told.optimizer, told.rate)
        follow = Follow(facts.identities[cell[0]], cell[1], advice.updates, *rule, {})
    # What the fields speak of: gains where they are believed, else returns.
    figure = UPDATES if told is not None else STEPS if facts.stepped else None
    figure = GAINS if facts.gains and facts.best is not None else figure
    return Recommendation(advice.light, room, figure, rest, follow=follow)


_Texts = dict[str, str]


def _fields(texts: _Texts, how: _Texts) -> tuple[Field, ...]:
    return tuple(Field(name, text, how.get(name, "")) for name, text in texts.items() if text)


def _which(facts: Facts, advice: Advice, cell: Cell) -> str:
    """your model (BPTT), 18–25 steps (best 25)"""
    (name, h), close = cell, _lasting(facts, cell, advice.updates, facts.close(cell))
    if _larger(facts, advice, cell) is not None and facts.best in [(name, each) for each in close]:
        close = []  # they gain more in one step, and no more over several updates
    if not h or len(close) < 2:
        return _where(facts, cell)
    return f"{named(facts.identities[name])}, {horizons(close)} steps (best {h})"


def _lasting(facts: Facts, cell: Cell, made: int | None, close: list[int]) -> list[int]:
    """Those of the horizons around a cell that lie between rehearsed ones, up to the farthest on
    either side before which, itself included, all bring enough in so many updates."""
    told, (name, best) = facts.rehearsal, cell
    if told is None or made is None or cell not in told.cells or best not in close:
        return close

    def good(h: int) -> bool:
        falls = told.lowered_after((name, h)) or inf
        return falls > made and told.as_good((name, h), cell, made, _ENOUGH)

    tried = sorted(h for each, h in told.cells if each == name and h in close)
    at = tried.index(best)
    ends = [best, *takewhile(good, tried[:at][::-1]), *takewhile(good, tried[at + 1 :])]
    return [h for h in close if min(ends) <= h <= max(ends)]


def _tested(facts: Facts, advice: Advice, cell: Cell) -> str:
    """What its updates added to the return; else what one plain step did, which is no update."""
    told = facts.rehearsal
    peak = told.peak_of(cell) if told is not None and cell in told.cells else None
    if told is None or peak is None or advice.updates is None:
        if not facts.stepped or cell not in facts.own_steps.stepped:
            return "by no update"
        return f"{change(facts.own_steps, cell, chosen=True)} return by one plain step, no update"
    again = told.repeated(cell)
    draws = told.again.shape[-1] if again else told.draws
    starts = told.again_judges if again else told.judges // told.draws
    rule = f"{stepping(told.optimizer, told.rate)}{' (rate assumed)' * told.assumed}"
    return (
        f"{with_sign(*peak.gain.estimate)} return after {updates(peak.updates)} of {rule}, "
        f"{draws}{' fresh' * again} draws, {starts:,} starts each"
    )


def _harmful(facts: Facts, cell: Cell | None, made: int | None) -> str:
    """What competes and lowers the return, by as much evidence as raises it: over as many updates
    where these were rehearsed, else by one step; and that the return jumps. The critic alone is no
    rollout."""
    told, (name, h) = facts.rehearsal, cell or ("", 1)
    found = []
    for each in sorted(facts.own, key=lambda own: own != name):
        if (over := facts.lowering(each, made)) and (each, 0) != facts.data:
            whose = "" if each == name else f"{named(facts.identities[each])} "
            found.append(f"{whose}{horizons(over)} step{'s' * (over != [1])}")
    data = facts.data
    if data is not None and data != cell and _lowered(facts, data, made):
        found.append("the critic alone" if h else "the critic at visited states")
    after = "as many updates" if told is not None and made is not None else "one step"
    text = f"{'; '.join(found)}: lower return after {after}" if found else ""
    return "; ".join(filter(None, (text, _jump(facts))))


def _lowered(facts: Facts, data: Cell, made: int | None) -> bool:
    """Is the critic alone shown to lower the return?"""
    told = facts.rehearsal
    if told is not None and made is not None:
        return data in told.cells and told.comparable and told.after(data, made).high < 0
    gain = facts.data_gain
    return bool(facts.harmful(data[0])) if gain is None else gain.high < 0


def _contradicted(facts: Facts, found: Disagreement) -> _Texts:
    """Returns contradict gradients: nothing is recommended from gains before that is fixed."""
    known = facts.identities.get(found.cell[0])
    who = "the true gradient" if known is None else _where(facts, found.cell)
    why = f"one plain step along {who} brought {share(found.realised)} of the possible gain, "
    why += f"promised {share(found.predicted)}"
    return {"why": why, "fix first": f"do not trust these gains: {_REASONS[found.reason]}"}


def _few(facts: Facts) -> str:
    """Where few starts carry the truth, no number of starts is known to do: trim them."""
    if not facts.carried:
        return ""
    return (
        f"trim the start-state distribution (--trim-starts {REMEDY:g}): 1% of the starts carry "
        f"{facts.carried:.0%} of the squared true gradient"
    )


def _jump(facts: Facts) -> str:
    """That backpropagation through the simulator misses how the return jumps."""
    jumps = facts.jumps
    if jumps is None or not jumps.refuted:
        return ""
    promised, brought = (f"{each:+.3g}" for each in (jumps.promised, jumps.brought[UPDATE]))
    text = f"the simulator's gradient: it promises {promised}, steps bring {brought}"
    return text.replace("-", "−")


def _rehearsed(facts: Facts, told: Rehearsal) -> _Texts:
    """No gradient's updates are shown to raise the return: what was tried, what it takes."""
    why = f"none of {len(told.cells)} gradients' updates is shown to raise the return"
    falls = told.best is not None and told.best.gain.high < 0
    if falls:
        rule = stepping(told.optimizer, told.rate)
        why = f"updates by {rule} lower the return along every gradient"
    cell = told.cells[int(told.confirmed[0])] if len(told.confirmed) else None
    led = None if cell is None else told.peak_of(cell)
    tested = ""
    if cell is not None and led is not None:
        gained = with_sign(*led.gain.estimate)
        tested = f"highest {gained} after {updates(led.updates)}: {_where(facts, cell)}"
    judges, what = told.missing(NEGLIGIBLE * abs(told.now)), f"{NEGLIGIBLE:.1%} of the return"
    decided = f"a gain of {what} is excluded: change critic, model or task"
    if judges is None:
        decided = f"no affordable number of judging starts shows {what}"
    elif judges:
        decided = _more(facts, judges - told.judges, told.judges)
    smaller = f"measure again with --lr {0.1 * told.rate:.2g}" * (falls and not told.assumed)
    return {
        "why": why, "tested": tested, "decide": decided, "avoid": _jump(facts),
        "fix first": _few(facts) or smaller,
    }  # fmt: skip


def _not_rehearsed(facts: Facts, guessed: Facts) -> _Texts:
    """Gains and plain steps alone, which show none above 0: the best guess, what would tell."""
    best, chosen, more = facts.best, facts.chosen, ""
    why, tested, fix = "no gradient is shown to raise the return", "", _few(facts)
    if facts.stepped:
        taken = facts.own_steps
        lower = [each for each in taken.stepped if taken.harms(each)]
        top = max(taken.stepped, key=lambda each: taken.change(each).value)
        tested = f"highest {change(taken, top, chosen=True)} by one plain step: "
        tested += _where(facts, top)
        tested += f"; {len(lower)} of {len(taken.stepped)} steps lower it" * bool(lower)
    if chosen is not None and best is not None:
        if chosen.high < 0:
            why = "every gradient lowers the return"
            modelled = any("model" in facts.identities[each].systems for each in facts.own)
            fix = f"the critic{' and the model' * modelled}"
        tested = tested or f"best guess {_where(facts, best)}: {gain_text(chosen)} of the best step"
        more = "" if chosen.low > 0 else _more(facts, decide(chosen, 0.0).more)
    elif facts.uncertain:
        more = _more(facts, facts.wanted)
        more = f"the true gradient is not precise{f': {more}' * bool(more)}"
        if guessed.best is not None:
            tested = tested or f"best guess {_where(facts, guessed.best)}"
    decided = "" if facts.carried else more or "leave out --no-rehearsal"
    return {
        "why": why, "tested": tested, "decide": decided,
        "avoid": _harmful(facts, None, None), "fix first": fix,
    }  # fmt: skip


def _where(facts: Facts, cell: Cell) -> str:
    """The gradient of a cell, and over how many steps; at h = 0 it is a critic's, but the score."""
    own, h = facts.identities[cell[0]], cell[1]
    if h or (own.jacobians == "none" and not own.data):
        return f"{named(own)}, {steps(h)}"
    return f"{named(own) if own.data else 'the critic at start states'}, h = 0"


def _more(facts: Facts, more: int | None, judges: int = 0) -> str:
    """about 230 more starts (3 min); of returns with so many `judges`: --judges 5500 (3 min);
    nothing where no affordable number is known."""
    if not more or more < 0:
        return ""
    what, too_many = f"about {rounded_up(more):,} more starts", "starts for more than a day"
    seconds = facts.seconds * (1 + more / facts.samples)
    if judges:
        what = f"--judges {rounded_up(judges + more)}"
        too_many = "judging starts for more than a day"
        seconds = facts.seconds * (1 + _JUDGED * more / judges)
    if seconds > _DAY:
        return too_many
    return f"{what} ({duration(seconds)})" if isfinite(seconds) else what


def _beside(facts: Facts, advice: Advice, cell: Cell) -> Iterator[Finding]:
    """What else a reader may ask of the recommended gradient, and what keeps a light from green."""
    told, made, who = facts.rehearsal, advice.updates, _called(facts, cell)
    if advice.missing == "judges" and told is not None:
        yield Finding("few_judges", "undecided", who, told.judges, threshold=FEWEST)
    elif (doubt := _MISSING.get(advice.missing)) is not None:
        yield Finding(*doubt, who)
    if told is not None and made is not None:
        if (falls := told.lowered_after(cell)) is not None:
            yield Finding("updates_fall", "fail", who, value=falls, threshold=made)
        elif told.at_least(cell):
            yield Finding("updates_hold", "pass", who)
    yield from filter(None, (_larger(facts, advice, cell), _critic(facts, cell, made)))
    of_batch, whole = facts.batch_gains.get(cell), facts.gains.get(cell)
    for beyond, gain in facts.beyond(cell).items() if whole and facts.leading else ():
        yield row("gain_beyond", "pass", gain, _called(facts, beyond))
    if of_batch and whole and of_batch.clipped <= whole.clipped - _NOTABLE:
        yield row("batch_gain", "pass", of_batch, at=f"{facts.batch:,}")


def _called(facts: Facts, cell: Cell) -> str:
    return at_horizon(*cell, facts.identities)


def _larger(facts: Facts, advice: Advice, cell: Cell) -> Finding | None:
    """The gradient of largest gain in one step, to first order, where it is not the recommended
    one, and whether returns say why."""
    best, told, most = facts.best, facts.rehearsal, facts.chosen
    if best is None or most is None or cell == best or not most.low > 0:
        return None
    now = facts.gains.get(cell)
    if now is not None and most.clipped - now.clipped < _NOTABLE:
        return None
    if told is None or advice.updates is None:
        decision: Decision = "fail" if lowers(facts, best) else "undecided"
    elif best not in told.cells:
        decision = "skipped"
    elif told.after(best, advice.updates).high < 0:
        decision = "fail"
    else:
        undecided = told.repeated(best) or best in told.not_excluded()
        decision = "undecided" if undecided else "pass"
    return row("larger_gain", decision, most, _called(facts, best))


def _critic(facts: Facts, cell: Cell, made: int | None) -> Finding | None:
    """What the critic alone is worth, in as many updates as are recommended where these were
    rehearsed, else in one step; where it is not the recommendation itself."""
    gain, told, data = facts.data_gain, facts.rehearsal, facts.data
    if data is None or cell == data:
        return None
    who = "the critic alone" if cell[1] else "the critic at visited states"
    if told is None or made is None:
        return None if gain is None else row("critic_gain", "pass", gain, who)
    if data not in told.cells or not told.comparable:
        return None
    return row("updates_of", "pass", told.after(data, made), who, updates(made))


def _at_given_states(facts: Facts) -> tuple[_Texts, _Texts]:
    """Under matched truths: which gradient is nearest to its own, and that this is no gain; and how
    that was measured."""
    own = (each for each in facts.errors if each[0] in facts.own)
    cell = min(own, key=lambda each: facts.errors[each].value)
    error, angle = facts.errors[cell], facts.cosines.get(cell)
    few = f"unknown ({error.n:,} starts)"
    return {
        "use": KEEP,
        "most accurate": _where(facts, cell) if error.high < 1 else "",
        "why": "" if error.high < 1 else "no gradient is shown to be better than a zero gradient",
        "error": few if error.spans_decades else with_interval(*error.estimate),
        "cosine": "" if angle is None else turned(angle.clipped, angle.low, angle.high),
        "decide": "leave out --law start",
    }, {
        "error": "E|mean of N′ gradients − truth|² over |truth|²",
        "cosine": "⟨g, truth⟩/(|g||truth|)",
    }
