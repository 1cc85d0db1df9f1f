"""The three numbers of a first screen, under the recommendation: each with how it was measured."""

from __future__ import annotations

from gradlab.runs.one_step import TRUE_CELL
from gradlab.statistics.number import Number
from gradlab.verdicts.facts import Cell, Facts
from gradlab.verdicts.gains import change, gain_text, named
from gradlab.verdicts.measurement.mending import fixed_gain
from gradlab.verdicts.screen import FACTS, Fact
from gradlab.wording import span, updates

NOTABLE = 0.03  # by which a batch must gain less than the mean gradient to be shown


def of_use(facts: Facts, cell: Cell) -> tuple[Fact, ...]:
    """What one update realised, where the rehearsed ones led, what fixing adds, or what the critic
    or one batch gains: the first three that are known."""
    found = [_realised(facts, cell), _rehearsed(facts, cell)]
    if cell in facts.gains:
        found += [fixed_gain(facts, cell), _one_batch(facts, cell), _critic_alone(facts, cell)]
    return tuple([each for each in found if each is not None][:FACTS])


def of_gains(facts: Facts) -> tuple[Fact, ...]:
    """The same of the gradient of largest gain."""
    return () if facts.best is None else of_use(facts, facts.best)


def change_text(number: Number) -> str:
    """+0.31 (CI 0.25–0.37), in units of return."""
    return f"{number.value:+.2g} (CI {span(number.low, number.high)})".replace("-", "−")


def _rehearsed(facts: Facts, cell: Cell) -> Fact | None:
    """Where the gradient's own updates led, at the length of the highest return."""
    rehearsed = facts.rehearsal
    if rehearsed is None or cell not in rehearsed.cells:
        return None
    peak = rehearsed.peak_of(cell)
    if peak is None:
        return None
    assumed = ", assumed" if rehearsed.assumed else ""
    label = f"in return after {updates(peak.updates)} ({rehearsed.optimizer} at "
    label += f"{rehearsed.rate:.2g}{assumed})"
    why = "the interval knows that the length was chosen"
    if rehearsed.repeated(cell):
        why = "the second rehearsal, from other states and starts, with other batches"
    how = (
        f"J(θ_k) − J(θ_0) along its own updates with critic, model and visited states frozen, "
        f"batches of {rehearsed.batch}; {rehearsed.judges} starts, {rehearsed.horizon} steps, "
        f"paired; {why}"
    )
    return Fact(label, change_text(peak.gain), how)


def of_what_was_tried(facts: Facts) -> tuple[Fact, ...]:
    """The best gradient that was tried, the critic alone, and what the best one realised."""
    assert facts.best is not None and facts.chosen is not None
    name, at = facts.best
    how = "gain = ⟨g, ∇J⟩/(|g||∇J|), noise-corrected: the best of all own cells"
    best = Fact(
        f"the best tried: {named(facts.identities[name])}, h = {at}", gain_text(facts.chosen), how
    )
    found = [best, _realised(facts, facts.best), _critic_alone(facts, facts.best)]
    return tuple(each for each in found if each is not None)


def of_returns(facts: Facts) -> tuple[Fact, ...]:
    """The three numbers where gains are in units of return."""
    taken = facts.own_steps
    how = f"J(θ + η d/|d|) − J(θ), {taken.judges} fresh starts, {taken.horizon} steps, paired"
    two = sorted(taken.stepped, key=lambda c: -taken.change(c).value)[:2]
    changes = [
        Fact(
            f"{named(facts.identities[cell[0]])}, h = {cell[1]}",
            change(taken, cell, chosen=True),
            how,
        )
        for cell in two
    ]
    if facts.data is not None and facts.data in taken.stepped and facts.data not in two:
        changes.append(Fact("the critic alone", change(taken, facts.data), how))
    return tuple(changes)


def _realised(facts: Facts, cell: Cell) -> Fact | None:
    taken = facts.realised
    if taken is None or cell not in taken.stepped:
        return None
    how = (
        f"return before and after a step that moves actions by {taken.moves[taken.at]:.0%}, "
        f"{taken.judges} fresh starts, {taken.horizon} steps"
    )
    if (found := taken.share(cell)) is None or taken.reference != TRUE_CELL:
        label = f"in return by {one_update(facts)} on fresh starts"
        return Fact(label, change(taken, cell, chosen=True), how)
    value, ends = found
    how += ", over that of the true gradient's step of the same length"
    text = gain_text(Number(value, ends.low, ends.high, taken.judges))
    return Fact(f"realised by {one_update(facts)} on fresh starts", text, how)


def one_update(facts: Facts, length: bool = True) -> str:
    """The update that was taken; where nobody gave its rate it is longer than the rehearsed ones,
    and named by its length, or, where a number has no room, a plain step."""
    taken, rehearsed = facts.realised, facts.rehearsal
    if taken is None or rehearsed is None or not rehearsed.assumed:
        return "one update"
    return f"one step of {taken.moves[taken.at]:.0%}" if length else "one plain step"


def _one_batch(facts: Facts, cell: Cell) -> Fact | None:
    gain = facts.batch_gains.get(cell)
    if gain is None or gain.clipped > facts.gains[cell].clipped - NOTABLE:
        return None
    how = f"E cos(mean of {facts.batch} gradients, ∇J), from mean and covariance of the samples"
    return Fact(f"by a single batch of {facts.batch}", gain_text(gain), how)


def _critic_alone(facts: Facts, cell: Cell) -> Fact | None:
    data = facts.data_gain
    if data is None or cell == facts.data:
        return None
    return Fact(
        "by the critic alone", gain_text(data), "gain = ⟨g, ∇J⟩/(|g||∇J|) of the data gradient"
    )
