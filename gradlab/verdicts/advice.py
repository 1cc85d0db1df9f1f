"""What to do next, decided once: which gradient, for how many updates, or none.

    rehearsed    the gradient that leads highest in both draws of its updates, and that fresh draws
                 confirm (`runs.rehearsal`); the policy is kept where they confirm none. One step,
                 which is no update, neither chooses nor vetoes
    one step     where nothing was rehearsed the gradient of largest gain, or of largest realised
                 change, where that is shown and no step contradicts it

    light   act      updates of the user's rule raised the return, from `FEWEST` judging starts or
                     more, and nothing that was measured contradicts it
            choose   something was not looked at, not decided, or warns
            none     the policy is kept, or a check failed

Where a premise of every gain fails, as with a critic of another reward, returns alone decide; no
gradient is followed whose Jacobians are lost. They alone decide, too, beside a true gradient whose
standard error is above a quarter of it, or carried by few starts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from gradlab.runs.identity import Cell
from gradlab.runs.realised import TRUE_CELL, Disagreement
from gradlab.verdicts.facts import Facts
from gradlab.verdicts.recommendation import Light

_Missing = Literal["", "update", "judges", "farther", "longer", "jumps", "premise"]
FEWEST = 64  # judging starts behind a green light
NEGLIGIBLE = 0.005  # of the return, below which a gain is none


@dataclass(frozen=True)
class Advice:
    """
    Attributes:
        cell: the gradient to follow; None: keep the policy.
        updates: for how many updates of the user's; None: not rehearsed, or open.
        light: see above.
        missing: what was not decided, or warns: no "update" along it was made; few "judges"; what
            lies "farther" along it, where the return falls; that a "longer" step, a plain one, is
            shown to lower it, or that its gain is; what "jumps" do; that a "premise" of every gain
            fails.
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
    if cell is None or (contradiction is not None and updates is None):
        return Advice(None, contradiction=contradiction)
    if contradiction is not None:  # returns of updates stand, whatever gains are of
        return Advice(cell, updates, "none", "premise", contradiction)
    missing = _missing(facts, cell, updates)
    light: Light = "none" if facts.void else "choose" if missing else "act"
    return Advice(cell, updates, light, missing)


def believed(facts: Facts, contradicted: bool = False) -> Facts:
    """Without gains, where a premise of them fails, plain steps contradict them, or the true
    gradient is not precise."""
    if not (facts.void or facts.uncertain or contradicted):
        return facts
    kept = () if facts.void else facts.disagreements
    return replace(facts, gains={}, leading=None, disagreements=kept)


def _chosen(facts: Facts) -> tuple[Cell | None, int | None]:
    rehearsed, steps = facts.rehearsal, facts.realised
    if rehearsed is not None:
        cell = rehearsed.chosen
        return (None, None) if cell is None or facts.lost(cell) else (cell, rehearsed.holds(cell))
    shown = facts.chosen is not None and facts.chosen.low > 0
    if facts.best is not None and shown:
        stepped = steps is not None and facts.best in steps.stepped
        if steps is None or not stepped or steps.helps(facts.best):
            return facts.best, None
    return helping(facts), None


def helping(facts: Facts) -> Cell | None:
    """The gradient along which one plain step raised the return most, where one did."""
    if not facts.stepped:
        return None
    own = facts.own_steps
    cells = [cell for cell in own.stepped if own.helps(cell) and not facts.lost(cell)]
    return max(cells, key=lambda cell: own.change(cell).value, default=None)


def lowers(facts: Facts, cell: Cell) -> bool:
    """Did one plain step along it, as long as an update or longer, lower the return?"""
    taken = facts.realised
    return taken is not None and cell in taken.stepped and taken.harms(cell)


def _missing(facts: Facts, cell: Cell, updates: int | None) -> _Missing:
    if facts.void:
        return "premise"
    rehearsed = facts.rehearsal
    if rehearsed is None or updates is None:
        return "update"
    if rehearsed.judges < FEWEST:
        return "judges"
    gain = facts.gains.get(cell)
    if lowers(facts, cell) or (gain is not None and gain.high < 0):
        return "longer"
    if rehearsed.falls(cell):
        return "farther"
    return "jumps" if facts.jumps is not None and facts.jumps.kind == "open" else ""
