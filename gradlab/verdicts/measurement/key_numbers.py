"""The three numbers of a first screen, under the recommendation: each with how it was measured."""

from __future__ import annotations

from gradlab.statistics.number import Number
from gradlab.verdicts.facts import Cell, Facts
from gradlab.verdicts.gains import change, gain_text, named
from gradlab.verdicts.measurement.mending import mended_gain
from gradlab.verdicts.screen import Fact

NOTABLE = 0.03  # by which a batch must gain less than the mean gradient to be shown


def of_gains(facts: Facts) -> tuple[Fact, ...]:
    """What the recommended step realised, what a batch or the critic gains, what mending adds."""
    if facts.best is None:
        return ()
    cell = facts.best
    second = _one_batch(facts, cell) or _critic_alone(facts)
    numbers = [_realised(facts, cell), second, mended_gain(facts, cell)]
    return tuple(each for each in numbers if each is not None)


def of_what_was_tried(facts: Facts) -> tuple[Fact, ...]:
    """The best gradient that was tried, the critic alone, and what the best one realised."""
    assert facts.best is not None and facts.chosen is not None
    name, at = facts.best
    how = "gain = ⟨g, ∇J⟩/(|g||∇J|), noise-corrected: the best of all own cells"
    best = Fact(
        f"the best tried: {named(facts.identities[name])}, h = {at}", gain_text(facts.chosen), how
    )
    found = [best, _realised(facts, facts.best), _critic_alone(facts)]
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
    if taken is None or cell not in taken.stepped or (found := taken.share(cell)) is None:
        return None
    value, ends = found
    how = (
        f"return before and after one step, {taken.judges} fresh starts, {taken.horizon} steps, "
        f"over that of the true gradient's step of the same length"
    )
    text = gain_text(Number(value, ends.low, ends.high, taken.judges))
    return Fact("realised on fresh starts", text, how)


def _one_batch(facts: Facts, cell: Cell) -> Fact | None:
    gain = facts.batch_gains.get(cell)
    if gain is None or gain.clipped > facts.gains[cell].clipped - NOTABLE:
        return None
    how = f"E cos(mean of {facts.batch} gradients, ∇J), from mean and covariance of the samples"
    return Fact(f"by a single batch of {facts.batch}", gain_text(gain), how)


def _critic_alone(facts: Facts) -> Fact | None:
    data = facts.data_gain
    if data is None or facts.best == facts.data:
        return None
    return Fact(
        "by the critic alone", gain_text(data), "gain = ⟨g, ∇J⟩/(|g||∇J|) of the data gradient"
    )
