"""What to do next, decided once: which gradient, for how many updates, or none.

    rehearsed   the candidate and length of the highest return, where both rehearsals show it and
                no plain step along it lowers the return (followed, two of four such recommendations
                failed: reports/advice)
    hold        where updates were rehearsed and none is shown twice to raise the return: one step
                predicts too little of an update (reports/advice: 13 of 19 such updates raised it)
    one step    where nothing was rehearsed the gradient of largest gain, or of largest realised
                change, where that is shown and no step contradicts it

    light   act      steps of the update's length were taken, and raised the return: both
                     rehearsals, and the plain step; none that was rehearsed lowers it
            choose   nothing contradicts, and something was not looked at or not decided
            none     the policy is kept, or a check failed

Where a premise of every gain fails, as with a critic of another reward, returns alone decide; no
gradient is followed whose Jacobians are lost. They alone decide, too, beside a true gradient whose
standard error is above a quarter of it, or carried by few starts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from gradlab.runs.realised import TRUE_CELL, Disagreement
from gradlab.statistics.number import Number
from gradlab.verdicts.facts import Cell, Facts
from gradlab.verdicts.screen import Light

_Missing = Literal["", "step", "returns", "again", "farther", "jumps", "premise"]


@dataclass(frozen=True)
class Advice:
    """
    Attributes:
        cell: the gradient to follow; None: keep the policy.
        updates: for how many updates of the user's; None: not rehearsed, or open.
        light: see above.
        missing: what was not decided: whether a "step" of the update's length raises the return
            (never tried), what its "returns" say, whether its updates do so "again", what lies
            "farther" along it, where the return falls, what "jumps" do; that a "premise" of every
            gain fails.
        contradiction: what the returns contradict.
    """

    cell: Cell | None
    updates: int | None = None
    light: Light = "none"
    missing: _Missing = ""
    contradiction: Disagreement | None = None


def advise(facts: Facts) -> Advice:
    facts = believed(facts)
    cell, updates = _chosen(facts)
    # Gradient and returns are of different problems: that an update bends, or jumps, is said by
    # the returns that were taken.
    contradiction = next(
        (
            each
            for each in facts.disagreements
            if each.reason in ("law", "boundary") and each.cell in (cell, TRUE_CELL)
        ),
        None,
    )
    if cell is None or contradiction is not None:
        return Advice(None, contradiction=contradiction)
    missing = _missing(facts, cell, updates)
    light: Light = "none" if facts.void else "choose" if missing else "act"
    return Advice(cell, updates, light, missing)


def believed(facts: Facts) -> Facts:
    """Without gains, where a premise of them fails or the true gradient is not precise."""
    if not facts.void and not facts.uncertain:
        return facts
    nothing: dict[Cell, Number] = {}
    facts = replace(
        facts, gains=nothing, batch_gains=nothing, best=None, chosen=None, beyond={}
    )  # fmt: skip
    if not facts.void:
        return facts
    return replace(facts, disagreements=())


def _chosen(facts: Facts) -> tuple[Cell | None, int | None]:
    rehearsed, steps = facts.rehearsal, facts.realised
    cell = None if rehearsed is None else rehearsed.chosen
    if cell is not None and not facts.lost(cell) and not lowers_at_once(facts, cell):
        updates = _holds(facts, cell)
        if updates is not None:
            return cell, updates
    peak = None if rehearsed is None else rehearsed.best
    if peak is not None and peak.gain.high < 0:  # the best of all that was rehearsed falls
        return None, None
    shown = facts.chosen is not None and facts.chosen.low > 0
    if facts.best is not None and shown and not lowers(facts, facts.best):
        updates = _holds(facts, facts.best)
        if updates is not None or (rehearsed is None and not in_vain(facts, facts.best)):
            return facts.best, updates
    if steps is None or not steps.stepped:
        return None, None
    best = helping(facts)
    updates = None if best is None else _holds(facts, best)
    return (best, updates) if updates is not None or rehearsed is None else (None, None)


def helping(facts: Facts) -> Cell | None:
    """The gradient along which one plain step raised the return most, where one did."""
    if facts.realised is None or not facts.realised.stepped:
        return None
    own = facts.own_steps
    cells = [cell for cell in own.stepped if own.helps(cell) and not lowers(facts, cell)]
    cells = [cell for cell in cells if not facts.lost(cell)]
    return max(cells, key=lambda cell: own.change(cell).value, default=None)


def _holds(facts: Facts, cell: Cell) -> int | None:
    """For how many updates, of a gradient that was chosen for other reasons than its rehearsal."""
    rehearsed = facts.rehearsal
    return None if rehearsed is None or cell not in rehearsed.cells else rehearsed.holds(cell)


def lowers(facts: Facts, cell: Cell) -> bool:
    """Was the update seen to lower the return, at once or within a rehearsal?"""
    return lowers_at_once(facts, cell) or _falls(facts, cell)


def lowers_at_once(facts: Facts, cell: Cell) -> bool:
    taken, rehearsed = facts.realised, facts.rehearsal
    if taken is not None and cell in taken.stepped and taken.harms(cell):
        return True
    return rehearsed is not None and rehearsed.repeated(cell) and rehearsed.plain_step.high < 0


def in_vain(facts: Facts, cell: Cell) -> bool:
    """Were steps of the update's length taken, and none is shown to raise the return?"""
    taken, rehearsed = facts.realised, facts.rehearsal
    stepped = taken is not None and cell in taken.stepped
    repeated = rehearsed is not None and rehearsed.repeated(cell)
    if not stepped and not repeated:
        return False
    raised = stepped and taken is not None and taken.helps(cell)
    return not raised and not (repeated and rehearsed is not None and rehearsed.plain_step.low > 0)


def _falls(facts: Facts, cell: Cell) -> bool:
    rehearsed = facts.rehearsal
    if rehearsed is None or cell not in rehearsed.cells:
        return False
    peak = rehearsed.peak_of(cell)
    return peak is not None and peak.gain.high < 0


def _missing(facts: Facts, cell: Cell, updates: int | None) -> _Missing:
    if facts.void:
        return "premise"
    taken, rehearsed, lasting = facts.realised, facts.rehearsal, updates is not None
    tried = taken is not None and cell in taken.stepped
    if taken is not None and tried and not taken.helps(cell) and not lasting:
        return "returns"
    if not tried and not lasting:
        return "step"
    if rehearsed is not None and not rehearsed.repeated(cell):
        return "again"
    fewest = None if rehearsed is None else rehearsed.lowered_after(cell)
    if fewest is not None and updates is not None and fewest < updates:
        return "farther"
    if rehearsed is not None and not rehearsed.plain_step.low > 0:
        return "returns"
    if fewest is not None:
        return "farther"  # a cliff that few starts reach within the plain step
    return "jumps" if facts.jumps is not None and facts.jumps.kind == "open" else ""
