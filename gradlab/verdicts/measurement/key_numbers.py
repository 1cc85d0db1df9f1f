"""The three numbers of a first screen, under the recommendation: each with how it was measured.

What to fix first: the costliest of the model's states, its derivatives and the critic.

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
from gradlab.runs.realised import TRUE_CELL
from gradlab.statistics.comparison import Number
from gradlab.verdicts.facts import Cell, Facts
from gradlab.verdicts.phrases import change, gain_text, named, share, with_sign
from gradlab.verdicts.screen import FACTS, Fact
from gradlab.wording import states_each, stepping, updates

_CRITIC = "the critic"
_STATES = "the model's state predictions"
_DERIVATIVES = "the model's derivatives"
_MORE = "more of the best possible gain by fixing"
_WORTH = 0.1  # of the possible gain, from which on fixing something comes first
_RANK = 5  # after what to use, what is better and what not to use


class HeadlinePart(NamedTuple):
    """A sentence of a headline, what stands in its place where there is no room, and its rank."""

    text: str
    short: str
    rank: int


def first_to_fix(facts: Facts, cell: Cell) -> HeadlinePart:
    """The costliest error of the recommended gradient, and what would be gained without it."""
    causes = losses(facts, cell) if cell in facts.gains else {}
    if not causes:
        return HeadlinePart("", "", _RANK)
    cause = max(causes, key=lambda each: causes[each])
    cells, replaced = _replacements(facts, cell)
    before = replaced[: replaced.index(cause)]
    best = facts.gains[cell]
    reached = 1.0 if cause == _CRITIC else facts.gains[cells[len(before) + 1]].clipped
    worth = min(causes[cause], reached - best.clipped)
    if worth < _WORTH or not reached > best.high:
        return HeadlinePart("", "", _RANK)
    if cause == _CRITIC:
        if not before:
            return HeadlinePart(f"Fix {cause} first.", f"Fix {cause} first.", _RANK)
        left = facts.gains[cells[-1]]  # with the simulator in the model's place
        if left.high < best.low:
            alone = f"Fixing only the model lowers the gain to {share(left.clipped)}."
            short = "Fix the critic, not the model alone."
            return HeadlinePart(f"Fix the critic. {alone}", short, _RANK)
        short = "Fix the critic."
        model = f"Fix the critic and the model: fixing only the model gives {share(left.clipped)}."
        return HeadlinePart(model if left.clipped > best.clipped else short, short, _RANK)
    what = _jointly(before, cause)
    points = f"+{100 * (reached - best.clipped):.0f} points"
    return HeadlinePart(f"Fix {what} first: {points}.", f"Fix {what} first.", _RANK)


def _jointly(before: Sequence[str], cause: str) -> str:
    """The model's states and derivatives, where these were measured with those replaced only."""
    return " and ".join((*before, cause.removeprefix("the model's ") if before else cause))


def _fixed_gain(facts: Facts, cell: Cell) -> Fact | None:
    """The costliest error of a gradient, as a number."""
    causes = losses(facts, cell)
    if not causes:
        return None
    cause = max(causes, key=lambda each: causes[each])
    cells, replaced = _replacements(facts, cell)
    before = replaced[: replaced.index(cause)]
    gain, at = "gain with the simulator in its place", "at the same horizon"
    how = f"{gain}, less the gain without, {at}"
    now, then = facts.gains[cell].clipped, facts.gains[cells[len(before)]].clipped
    # An exact critic gains the rest where only the first action has θ.
    rest = cause != _CRITIC or cell[0] in _first_action(facts, cell[0])
    if not (before or rest):
        return None
    if before and (then < now or not rest):  # points after a loss are no points more than now
        if cause == _CRITIC and then < now:
            return None  # that the simulator gains less beside this critic is nothing to act on
        if cause == _CRITIC:
            label = "with the simulator as the model and this critic"
            return Fact(label, share(then), f"{gain}, {at}")
        more = facts.gains[cells[len(before) + 1]].clipped - now
        if more < _WORTH:
            return None
        return Fact(f"{_MORE} {_jointly(before, cause)}", f"{100 * more:.0f} points", how)
    exact = before[0].replace("the model's", "exact") if len(before) == 1 else "an exact model"
    label = f"{_MORE} {cause}" + (f" beside {exact}" if before else "")
    return Fact(label, f"{100 * causes[cause]:.0f} points", how)


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
    first = _first_action(facts, name)
    if len(first) == 1 and (first[0], h) in facts.gains:
        lost[_CRITIC] = 1.0 - min(facts.gains[first[0], h].clipped, 1.0)
    return {cause: loss for cause, loss in lost.items() if loss > 0.01}


def _first_action(facts: Facts, name: str) -> tuple[str, ...]:
    """The estimators that differ from one in carrying θ in the first action alone, if at all."""
    return same_as(facts.identities, replace(facts.identities[name], actions="first"))


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


NOTABLE = 0.03  # of the possible gain, from which on a difference of two is said


def of_use(facts: Facts, cell: Cell) -> tuple[Fact, ...]:
    """What one plain step realised, where the rehearsed updates led, what fixing adds, or what the
    critic or one batch gains: the first three that are known."""
    found = [_realised(facts, cell), _rehearsed(facts, cell)]
    taken = facts.realised
    if taken is not None and cell in taken.stepped and not taken.helps(cell):
        found.reverse()  # an interval that holds 0 is not printed largest
    if cell in facts.gains:
        found += [_fixed_gain(facts, cell), _one_batch(facts, cell), _critic_alone(facts, cell)]
    return tuple([each for each in found if each is not None][:FACTS])


def of_gains(facts: Facts) -> tuple[Fact, ...]:
    """The same of the gradient of largest gain."""
    return () if facts.best is None else of_use(facts, facts.best)


def _rehearsed(facts: Facts, cell: Cell) -> Fact | None:
    """Where the gradient's own updates led, at the length of the highest return."""
    rehearsed = facts.rehearsal
    if rehearsed is None or cell not in rehearsed.cells:
        return None
    peak = rehearsed.peak_of(cell)
    if peak is None:
        return None
    assumed = ", assumed" if rehearsed.assumed else ""
    before = rehearsed.present(peak.gain)
    steps = rehearsed.again_horizon if rehearsed.repeated(cell) else rehearsed.horizon
    label = f"change of the return over {steps:,} steps ({before} before) after "
    label += f"{updates(peak.updates)} ({stepping(rehearsed.optimizer, rehearsed.rate)}{assumed})"
    why = "the interval knows that the length was chosen"
    if rehearsed.repeated(cell):
        why = f"{rehearsed.again.shape[-1]} fresh draws of states and batches: the interval covers "
        why += "draws and starts"
    how = (
        f"J(θ_k) − J(θ_0) along its own updates with critic, model and visited states frozen, "
        f"means over batches of {states_each(rehearsed.batch, facts.batch)}"
        f"{', ε 1e-8' * (rehearsed.optimizer == 'adam')}; {peak.gain.n:,} starts, "
        f"{steps} steps, paired; {why}"
    )
    return Fact(label, with_sign(*peak.gain.estimate), how)


def of_what_was_tried(facts: Facts) -> tuple[Fact, ...]:
    """The best gradient that was tried, the critic alone, and what the best one realised."""
    assert facts.best is not None and facts.chosen is not None
    name, at = facts.best
    how = "gain = ⟨g, ∇J⟩/(|g||∇J|), noise-corrected: the best of all own cells"
    label = f"gain of the best guess: {named(facts.identities[name])}, h = {at}"
    best = Fact(label, gain_text(facts.chosen), how)
    found = [best, _realised(facts, facts.best), _critic_alone(facts, facts.best)]
    return tuple(each for each in found if each is not None)


def of_returns(facts: Facts) -> tuple[Fact, ...]:
    """The three numbers where gains are in units of return."""
    taken, what = facts.own_steps, f"change of the return by {plain_step(facts)}"
    how = f"J(θ + η d/|d|) − J(θ), {taken.judges:,} fresh starts, {taken.horizon} steps, paired"
    two = sorted(taken.stepped, key=lambda c: -taken.change(c).value)[:2]
    changes = [
        Fact(
            f"{what}: {named(facts.identities[cell[0]])}, h = {cell[1]}",
            change(taken, cell, chosen=True),
            how,
        )
        for cell in two
    ]
    if facts.data is not None and facts.data in taken.stepped and facts.data not in two:
        changes.append(Fact(f"{what}: the critic alone", change(taken, facts.data), how))
    return tuple(changes)


def _realised(facts: Facts, cell: Cell) -> Fact | None:
    taken = facts.realised
    if taken is None or cell not in taken.stepped:
        return None
    how = (
        f"return before and after a step that moves the first actions by "
        f"{taken.moves[taken.at]:.0%}, {taken.judges:,} fresh starts, {taken.horizon} steps"
    )
    if (found := taken.share(cell)) is None or taken.reference != TRUE_CELL:
        label = f"change of the return by {plain_step(facts)} on fresh starts"
        return Fact(label, change(taken, cell, chosen=True), how)
    value, ends = found
    how += ", over that of the true gradient's step of the same length"
    text = gain_text(Number(value, ends.low, ends.high, taken.judges))
    return Fact(f"of the possible gain realised by {plain_step(facts)}", text, how)


def plain_step(facts: Facts) -> str:
    """The step that was taken, which is no update: Adam's, as long, goes another way."""
    taken, rehearsed = facts.realised, facts.rehearsal
    if taken is None or rehearsed is None:
        return "one plain step"
    return f"one step that moves the first actions by {taken.moves[taken.at]:.0%}"


def _one_batch(facts: Facts, cell: Cell) -> Fact | None:
    gain = facts.batch_gains.get(cell)
    if gain is None or gain.clipped > facts.gains[cell].clipped - NOTABLE:
        return None
    how = f"E cos(mean of {facts.batch} gradients, ∇J), from mean and covariance of the samples"
    return Fact(f"gain of one batch of {facts.batch} samples", gain_text(gain), how)


def _critic_alone(facts: Facts, cell: Cell) -> Fact | None:
    data, told = facts.data_gain, facts.rehearsal
    if data is None or cell == facts.data or (told is not None and facts.data in told.cells):
        return None  # its updates say more than one step's gain
    label = "gain of the critic alone" + ("" if cell[1] else " at visited states")
    return Fact(label, gain_text(data), "gain = ⟨g, ∇J⟩/(|g||∇J|) of the data gradient")
