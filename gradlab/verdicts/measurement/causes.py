"""What to fix first: the costliest of the model's states, its derivatives and the critic.

The simulator takes the place of one after the other, with the same horizon and critic:

    the gradient itself → along its states (mixed) → with its derivatives, too (true dynamics) → 1

so that each cause is measured with those before it replaced. A replacement may lower the gain,
where errors of model and critic cancel: then it is not advised by itself.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from gradlab.runs.identity import same_as
from gradlab.verdicts.facts import Cell, Facts
from gradlab.wording import share

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
