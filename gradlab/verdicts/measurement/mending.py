"""What to fix first: the costliest of the model's states, its derivatives and the critic.

The simulator takes the place of one after the other, with the same horizon and critic:

    the gradient itself → along its states (mixed) → with its derivatives, too (true dynamics) → 1

so that each cause is measured with those before it replaced. A replacement may lower the gain,
where errors of model and critic cancel: then it is not advised by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from gradlab.runs.identity import same_as
from gradlab.statistics.number import Number
from gradlab.verdicts.facts import Cell, Facts
from gradlab.verdicts.gains import share
from gradlab.verdicts.screen import Fact

CRITIC = "the critic"
STATES = "the model's state predictions"
DERIVATIVES = "the model's derivatives"
WORTH = 0.1  # of the possible gain, from which on fixing something comes first
RANK = 5  # after what to use, what is better and what not to use


class Part(NamedTuple):
    """A sentence of a headline, what stands in its place where there is no room, and its rank."""

    text: str
    short: str
    rank: int


def first_to_fix(facts: Facts, cell: Cell) -> Part:
    """The costliest error of the recommended gradient, and what would be gained without it."""
    causes = losses(facts, cell) if cell in facts.gains else {}
    if not causes:
        return Part("", "", RANK)
    cause = max(causes, key=lambda each: causes[each])
    cells, replaced = _replacements(facts, cell)
    before = replaced[: replaced.index(cause)]
    last = cause == replaced[-1]
    best = facts.gains[cell]
    reached = 1.0 if last else facts.gains[cells[len(before) + 1]].clipped
    if causes[cause] < WORTH or not reached > best.high:
        return Part("", "", RANK)
    if cause == CRITIC:
        return _fix_critic(facts, best, cells[-1]) if before else _plain(f"Fix {cause} first.")
    what = _jointly(before, cause)
    points = f"+{100 * (reached - best.clipped):.0f} points"
    return Part(f"Fix {what} first: {points}.", f"Fix {what} first.", RANK)


def _fix_critic(facts: Facts, best: Number, without_model: Cell) -> Part:
    """Where the critic costs most: what the simulator in the model's place gains with it."""
    left = facts.gains[without_model]
    if left.high < best.low:
        alone = f"Fixing the model alone would lower the gain to {share(left.clipped)}."
        return Part(f"Fix the critic. {alone}", "Fix the critic, not the model alone.", RANK)
    text = f"The critic costs most: with the simulator for the model, {share(left.clipped)}."
    return Part(text, "The critic costs most.", RANK)


def _plain(text: str) -> Part:
    return Part(text, text, RANK)


def _jointly(before: Sequence[str], cause: str) -> str:
    """The model's states and derivatives, where these were measured with those replaced only."""
    return " and ".join((*before, cause.removeprefix("the model's ") if before else cause))


def fixed_gain(facts: Facts, cell: Cell) -> Fact | None:
    """The costliest error of a gradient, as a number."""
    causes = losses(facts, cell)
    if not causes:
        return None
    cause = max(causes, key=lambda each: causes[each])
    cells, replaced = _replacements(facts, cell)
    before = replaced[: replaced.index(cause)]
    how = "gain with the simulator in its place, less the gain without, at the same horizon"
    now, then = facts.gains[cell].clipped, facts.gains[cells[len(before)]].clipped
    if before and then < now:  # points after a loss are no points more than now
        if cause == CRITIC:
            label = f"with the simulator for the model, {cause} as it is"
            return Fact(label, share(then), how)
        more = facts.gains[cells[len(before) + 1]].clipped - now
        return Fact(f"more by fixing {_jointly(before, cause)}", f"{100 * more:.0f} points", how)
    after = f" after {before[0]}" if len(before) == 1 else " after the model" if before else ""
    return Fact(f"more by fixing {cause}{after}", f"{100 * causes[cause]:.0f} points", how)


def losses(facts: Facts, cell: Cell) -> dict[str, float]:
    """What states, derivatives and critic cost a gradient, as shares of the possible gain.

    Each is the loss with those before it replaced; only losses above 1% are here.
    """
    cells, causes = _replacements(facts, cell)
    if not cells or any(each not in facts.gains for each in cells):
        return {}
    reached = [*(min(facts.gains[each].clipped, 1.0) for each in cells), 1.0]
    lost = {c: b - a for c, (a, b) in zip(causes, pairwise(reached), strict=True)}
    return {cause: loss for cause, loss in lost.items() if loss > 0.01}


def _replacements(facts: Facts, cell: Cell) -> tuple[list[Cell], list[str]]:
    """The cells that were measured with more and more of the simulator, and what each lacks.

    None where a replacement was not measured, or where two estimators are the same one.
    """
    name, h = cell
    own = facts.identities[name]
    if own.data or "model" not in own.systems:
        return [cell], [CRITIC]
    along = replace(own, states="simulator", gradient_model=False)
    simulated = replace(along, jacobians="simulator")
    lacking = [(along, STATES)] if own.states != "simulator" else []
    lacking += [(simulated, DERIVATIVES)] if "model" in own.systems[1:] else []
    cells, causes = [cell], []
    for wanted, cause in lacking:
        same = same_as(facts.identities, wanted)
        if len(same) != 1:
            return [], []
        cells.append((same[0], h))
        causes.append(cause)
    return cells, [*causes, CRITIC]
