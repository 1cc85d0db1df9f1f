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
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from math import inf, isfinite

from gradlab.findings import Finding
from gradlab.runs.jumps import UPDATE
from gradlab.runs.realised import Disagreement
from gradlab.runs.rehearsal import RATE, Peak, Rehearsal
from gradlab.runs.stages import REMEDY
from gradlab.statistics.comparison import decide
from gradlab.verdicts.advice import FEWEST, NEGLIGIBLE, Advice, advise, believed, lowers
from gradlab.verdicts.facts import Cell, Facts
from gradlab.verdicts.measurement.causes import first_to_fix
from gradlab.verdicts.phrases import capital, change, gain_text, named, share, with_sign
from gradlab.verdicts.recommendation import MOST, Field, Follow, Recommendation, worded
from gradlab.wording import (
    duration,
    horizons,
    label,
    rounded_up,
    states_each,
    stepping,
    steps,
    turned,
    updates,
    with_interval,
)

GAINS, STEPS, UPDATES = "gain", "realised_gains", "return_over_updates"  # figures
KEEP = "no update yet"
_DAY = 86400.0  # seconds
_ENOUGH = 0.75  # of what the best brings over its updates: 0.9 of its gain is less over several
_JUDGED = 0.3  # of a measurement, what returns of its judging starts take at most
_NOTABLE = 0.03  # of the possible gain, from which on a difference of two is said
_GAIN = "gain = ⟨g, ∇J⟩/(|g||∇J|), noise-corrected"
_REASONS = {
    "boundary": "episodes end, and pathwise gradients do not see it",
    "law": "gradient and return belong to different problems",
}


def recommendation(facts: Facts, rest: tuple[Finding, ...] = ()) -> Recommendation:
    """What to do, in the words of someone who trains policies."""
    advice = advise(facts)
    if facts.law != "visited" and not facts.gains and facts.errors and not facts.void:
        return _at_given_states(facts, rest)
    contradicted = advice.contradiction is not None and advice.cell is not None
    guessed, facts = facts, believed(facts, contradicted)
    if advice.cell is not None:
        rest = (*_beside(facts, advice, advice.cell), *rest)
        fields = _use(facts, advice, advice.cell)
    elif facts.void:
        fields = (("why", facts.void[0].removesuffix(".")),)
    elif advice.contradiction is not None:
        fields = _contradicted(facts, advice.contradiction)
    elif facts.rehearsal is not None:
        fields = _rehearsed(facts, facts.rehearsal)
    elif facts.best is None and not facts.stepped and not facts.uncertain:
        why = f"no gain can be measured here{f' ({facts.why})' if facts.why else ''}"
        fields = (("why", why), ("known", "variance and agreement of gradients alone"))
    else:
        fields = _not_rehearsed(facts, guessed)
    if advice.cell is None:
        fields = (("use", KEEP), *fields)
    shown = [Field(name, text, _how(facts, advice, name)) for name, text in fields if text]
    room = [each for each in shown if len(shown) <= MOST or each.name != "avoid"]
    follow = None
    if advice.cell is not None:  # the configuration of the measurement is the caller's
        (name, h), told = advice.cell, facts.rehearsal
        rule = ("adam", RATE) if told is None else (told.optimizer, told.rate)
        follow = Follow(facts.identities[name], h, advice.updates, *rule, {})
    return Recommendation(advice.light, tuple(room), _figure(facts), rest, follow=follow)


_Texts = Sequence[tuple[str, str]]


def _figure(facts: Facts) -> str | None:
    """What the fields speak of: gains where they are believed, else returns."""
    if facts.gains and facts.best is not None:
        return GAINS
    if facts.rehearsal is not None:
        return UPDATES
    return STEPS if facts.stepped else None


def _how(facts: Facts, advice: Advice, name: str) -> str:
    """How a field's number was measured."""
    told = facts.rehearsal
    if name == "gain":
        return f"{_GAIN}; {facts.samples:,} starts"
    if name != "tested" or told is None or advice.cell is None:
        return ""
    length = told.again_horizon if told.repeated(advice.cell) else told.horizon
    return (
        f"J(θ_k) − J(θ_0) over {length:,} steps along its own updates, with critic, model and "
        f"visited states frozen, batches of {states_each(told.batch, facts.batch)}, fresh starts, "
        f"paired; the interval covers draws and starts"
    )


def _use(facts: Facts, advice: Advice, cell: Cell) -> _Texts:
    gain = facts.chosen if cell == facts.best else facts.gains.get(cell)
    return (
        ("use", _which(facts, advice, cell)),
        ("gain", "" if gain is None else f"{gain_text(gain)} of the best step"),
        ("tested", _tested(facts, advice, cell)),
        ("avoid", _harmful(facts, cell, advice.updates)),
        ("fix first", _premise(facts, advice) or _few(facts) or first_to_fix(facts, cell)),
    )


def _which(facts: Facts, advice: Advice, cell: Cell) -> str:
    """your model (BPTT), 18–25 steps (best 25)"""
    own, h = facts.identities[cell[0]], cell[1]
    if not h:
        return _where(facts, cell)
    close = _lasting(facts, cell, advice.updates, facts.close(cell))
    if _passing(facts, advice, cell) and facts.best in [(cell[0], each) for each in close]:
        close = []  # they gain more in one step, and no more over several updates
    length = f"{horizons(close)} steps (best {h})" if len(close) > 1 else steps(h)
    return f"{named(own)}, {length}"


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
    told, peak = facts.rehearsal, _peak(facts, cell)
    if told is None or peak is None or advice.updates is None:
        untried = "no update along it was made: leave out --no-rehearsal"
        if not facts.stepped or cell not in facts.own_steps.stepped:
            return untried
        return f"{change(facts.own_steps, cell, chosen=True)} return by one plain step; {untried}"
    again = told.repeated(cell)
    draws = told.again.shape[-1] if again else told.draws
    starts = told.again_judges if again else told.judges // told.draws
    rule = f"{stepping(told.optimizer, told.rate)}{' (rate assumed)' * told.assumed}"
    return (
        f"{with_sign(*peak.gain.estimate)} return after {updates(peak.updates)} of {rule}, "
        f"{draws}{' fresh' * again} draws, {starts:,} starts each{_open(facts, advice, cell)}"
    )


def _open(facts: Facts, advice: Advice, cell: Cell) -> str:
    """What keeps the light from green, and how long the gradient lasts."""
    told, made = facts.rehearsal, advice.updates
    assert told is not None and made is not None
    if advice.missing == "judges":
        return f"; green from {FEWEST} judging starts on: --judges {FEWEST}"
    if advice.missing == "jumps":
        assert facts.jumps is not None
        if facts.jumps.first_lost is not None:
            return "; undecided: some returns overflow within one update"
        more = _more(facts, facts.jumps.missing)
        return f"; undecided whether discontinuities do harm{f': {more}' * bool(more)}"
    if advice.missing == "longer":
        plain = "a plain step that moves the actions farther lowers it"
        return f"; {plain if lowers(facts, cell) else 'one small step lowers it'}"
    if advice.missing == "farther":
        fewest = told.lowered_after(cell)
        assert fewest is not None
        fewer = f"; undecided: {updates(fewest)} along it lower the return"
        return fewer if fewest < made else "; more updates lower it"
    return "; holds until the critic's next fit" if told.at_least(cell) else ""


def _peak(facts: Facts, cell: Cell) -> Peak | None:
    """Where its rehearsal led."""
    told = facts.rehearsal
    return told.peak_of(cell) if told is not None and cell in told.cells else None


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


def _premise(facts: Facts, advice: Advice) -> str:
    """What keeps gains from deciding, where returns still do."""
    if facts.void:
        return facts.premise.removesuffix(".")
    found = advice.contradiction
    return "" if found is None else dict(_contradicted(facts, found))["fix first"]


def _contradicted(facts: Facts, found: Disagreement) -> _Texts:
    """Returns contradict gradients: nothing is recommended from gains before that is fixed."""
    known = facts.identities.get(found.cell[0])
    who = "the true gradient" if known is None else named(known)
    at = "" if found.cell[1] == 0 else f" at h = {found.cell[1]}"
    why = (
        f"one plain step along {who}{at} brought {share(found.realised)} of the possible gain, its "
        f"direction predicts {share(found.predicted)}"
    )
    return (("why", why), ("fix first", f"do not trust these gains: {_REASONS[found.reason]}"))


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
    how = "rough" if jumps.kind == "rough" else "discontinuous"
    brought = float(jumps.brought[UPDATE])
    text = f"the simulator's gradient: the return is {how}, it predicts {jumps.promised:+.3g}, "
    return f"{text}steps along it bring {brought:+.3g}".replace("-", "−")


def _rehearsed(facts: Facts, told: Rehearsal) -> _Texts:
    """No gradient's updates are shown to raise the return: what was tried, what it takes."""
    rule = stepping(told.optimizer, told.rate)
    why = f"none of {len(told.cells)} gradients' updates is shown to raise the return"
    falls = told.best is not None and told.best.gain.high < 0
    if falls:
        why = f"updates by {rule} lower the return along every gradient"
    led = ""
    if len(told.confirmed):
        cell = told.cells[int(told.confirmed[0])]
        peak = told.peak_of(cell)
        if peak is not None:
            gained = with_sign(*peak.gain.estimate)
            led = f"highest {gained} after {updates(peak.updates)}: {_where(facts, cell)}"
    judges, what = told.missing(NEGLIGIBLE * abs(told.now)), f"{NEGLIGIBLE:.1%} of the return"
    decided = f"a gain of {what} is excluded: another critic, model or task is needed"
    if judges is None:
        decided = f"no affordable number of judging starts shows {what}"
    elif judges:
        decided = _more(facts, judges - told.judges, told.judges)
    smaller = f"measure again with --lr {0.1 * told.rate:.2g}" * (falls and not told.assumed)
    return (
        ("why", why), ("tested", led), ("decide", decided),
        ("avoid", _jump(facts)), ("fix first", _few(facts) or smaller),
    )  # fmt: skip


def _not_rehearsed(facts: Facts, guessed: Facts) -> _Texts:
    """Gains and plain steps alone, which show none above 0: the best guess, what would tell."""
    taken = facts.own_steps if facts.stepped else None
    why = "no gradient is shown to raise the return"
    tested, fix, best, chosen = "", _few(facts), facts.best, facts.chosen
    if taken is not None:
        lower = [each for each in taken.stepped if taken.harms(each)]
        top = max(taken.stepped, key=lambda each: taken.change(each).value)
        tested = f"highest {change(taken, top, chosen=True)} by one plain step: "
        tested += _where(facts, top)
        tested += f"; {len(lower)} of {len(taken.stepped)} steps lower it" * bool(lower)
    decided = "leave out --no-rehearsal: updates tell more than steps"
    if chosen is not None and best is not None:
        led = "best guess"
        if chosen.high < 0:
            why, led = "every gradient lowers the return", "least harmful"
            modelled = any("model" in facts.identities[each].systems for each in facts.own)
            fix = f"the critic{' and the model' * modelled}"
        tested = tested or f"{led} {_where(facts, best)}: {gain_text(chosen)} of the best step"
        more = _more(facts, decide(chosen, 0.0).more)
        decided = decided if chosen.low > 0 or not more else more
    elif facts.uncertain:
        more = _more(facts, facts.wanted)
        decided = f"the true gradient is not precise{f': {more}' * bool(more)}"
        if guessed.best is not None and not tested:
            tested = f"best guess {_where(facts, guessed.best)}"
    if facts.carried:
        decided = ""
    return (
        ("why", why), ("tested", _smaller(facts) or tested), ("decide", decided),
        ("avoid", _harmful(facts, None, None)), ("fix first", fix),
    )  # fmt: skip


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
    moves = f"first actions by {taken.moves[0]:.0%}, not {taken.moves[taken.at]:.0%}"
    return f"{change(taken, best, 0)} return by a smaller step ({moves}): {_where(facts, best)}"


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


def _beside(facts: Facts, advice: Advice, cell: Cell) -> list[Finding]:
    """What else a reader may ask of the recommended gradient."""
    texts = {
        "farther": _passing(facts, advice, cell),
        "beyond": _beyond(facts, cell),
        "critic": _critic(facts, cell, advice.updates),
        "batch": _one_batch(facts, cell),
    }
    return [worded(about, True, text) for about, text in texts.items() if text]


def _passing(facts: Facts, advice: Advice, cell: Cell) -> str:
    """Why the gradient of largest gain in one step, to first order, is not the recommended one."""
    best, told, most = facts.best, facts.rehearsal, facts.chosen
    if best is None or most is None or cell == best or not most.low > 0:
        return ""
    now = facts.gains.get(cell)
    if now is not None and most.clipped - now.clipped < _NOTABLE:
        return ""
    if told is None or advice.updates is None:
        did = "lowers the return" if lowers(facts, best) else "is not shown to raise the return"
        why = f"one plain step along it {did}"
    elif best not in told.cells:
        why = "no update along it was rehearsed"
    elif told.after(best, advice.updates).high < 0:
        why = "updates along it lower the return"
    elif told.repeated(best):
        why = "updates along it are not shown to raise the return"
    elif best in told.not_excluded():
        why = "over several updates the two cannot be told apart"
    else:
        why = "it brings less over several updates"
    who = capital(label(best[0], facts.identities))
    return f"{who} at h = {best[1]} gains more in one step ({gain_text(most)}), but {why}."


def _beyond(facts: Facts, cell: Cell) -> str:
    """The gradient that needs the simulator's states and gains more than the recommended one."""
    if cell not in facts.beyond:
        return ""
    name, h = facts.beyond[cell]
    who, gained = label(name, facts.identities), gain_text(facts.gains[name, h])
    gains = f"{steps(h)} gain{'s' * (h == 1)} {gained}"
    return f"With simulator states ({who}), {gains}; it does not compete."


def _critic(facts: Facts, cell: Cell, made: int | None) -> str:
    """What the critic alone is worth, in as many updates as are recommended where these were
    rehearsed, else in one step; where it is not the recommendation itself."""
    gain, told, data = facts.data_gain, facts.rehearsal, facts.data
    if data is None or cell == data:
        return ""
    who = "The critic alone" if cell[1] else "The critic at visited states"
    if told is None or made is None:
        if gain is None:
            return ""
        return f"{who} gains {gain_text(gain)} of the best step."
    if data not in told.cells or not told.comparable:
        return ""
    brought, peak = told.after(data, made), told.peak_of(cell)
    text = f"{who} changes the return by {with_sign(*brought.estimate)} after {updates(made)}"
    # The chosen one's number is of fresh draws, and may be the smaller of the two.
    if brought.low > 0 and peak is not None and brought.value >= peak.gain.value:
        less = not told.as_good(data, cell, made, 1.0)
        text += f", {'less' if less else 'as much'} on the same starts"
    return f"{text}."


def _one_batch(facts: Facts, cell: Cell) -> str:
    """What the noise of one batch leaves of its gain, where that is less."""
    gain, whole = facts.batch_gains.get(cell), facts.gains.get(cell)
    if gain is None or whole is None or gain.clipped > whole.clipped - _NOTABLE:
        return ""
    return f"One batch of {facts.batch:,} samples gains {gain_text(gain)} of the best step."


def _at_given_states(facts: Facts, rest: tuple[Finding, ...]) -> Recommendation:
    """Under matched truths: which gradient is nearest to its own, and that this is no gain."""
    cell = min(
        (each for each in facts.errors if each[0] in facts.own),
        key=lambda each: facts.errors[each].value,
    )
    error = facts.errors[cell]
    nearest = "most accurate", f"{_where(facts, cell)}, at these states"
    if not error.high < 1:
        nearest = "why", "no gradient is shown to be better than a zero gradient at these states"
    level = with_interval(*error.estimate)
    if error.spans_decades:
        level = f"unknown ({error.n:,} starts)"
    found = [
        Field("use", KEEP),
        Field(*nearest),
        Field("error", level, "E|mean of N′ gradients − truth|² over |truth|², 1: no gradient"),
    ]
    if cell in facts.cosines:
        angle = facts.cosines[cell]
        text = turned(angle.clipped, angle.low, angle.high)
        found.append(Field("cosine", text, "⟨g, truth⟩/(|g||truth|)"))
    found.append(Field("decide", "leave out --law start: whether a step raises the return"))
    return Recommendation("choose", tuple(found), "mse", rest)
