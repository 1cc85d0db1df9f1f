"""Without a truth, or where its noise hides every gain: what steps really did to the return."""

from __future__ import annotations

from gradlab.verdicts.facts import Facts
from gradlab.verdicts.gains import change, named, range_text, step_along
from gradlab.verdicts.measurement import key_numbers
from gradlab.verdicts.screen import Screen
from gradlab.verdicts.sentence import Sentence

GAINS, RETURNS = "gain", "realised_gains"  # figures


def by_returns(facts: Facts, rest: tuple[Sentence, ...]) -> Screen:
    """Without a truth: what steps really did to the return."""
    taken = facts.own_steps
    best, tried = taken.best(), len(taken.stepped)
    helping = [cell for cell in taken.stepped if taken.helps(cell)]
    end = "The best possible is unknown: no true gradient here."
    if facts.gains:
        end = "Its share of the best possible is lost in the noise of the truth."
    figure = GAINS if facts.gains else RETURNS
    if best is None or not helping:
        harming = [cell for cell in taken.stepped if taken.harms(cell)]
        how = f", {len(harming)} lower it" if harming else ""
        text = (
            f"Keep the policy: no gradient tried here is shown to raise the return ({tried} tried"
            f"{how}). Mend the critic first, or measure more starts. {end}"
        )
        return Screen(
            text, "none", f"{taken.judges} starts", key_numbers.of_returns(facts), figure, rest
        )
    chosen = best if best in helping else max(helping, key=lambda c: taken.change(c).value)
    parts = [
        f"{step_along(facts.identities[chosen[0]], [chosen[1]])}: one step raises the return by "
        f"{change(taken, chosen, chosen=True)}.",
        _harming(facts),
        end,
    ]
    others = [cell for cell in taken.not_excluded() if cell != chosen]
    sure = f"shown on {taken.judges} starts, {tried} tried"
    if others:
        which = " and ".join(named(facts.identities[c[0]]) for c in others[:2])
        sure += f"; not excluded as best: {which}"
    return Screen(
        " ".join(filter(None, parts)), "none", sure, key_numbers.of_returns(facts), figure, rest
    )


def _harming(facts: Facts) -> str:
    taken = facts.own_steps
    harming = [cell for cell in taken.stepped if taken.harms(cell)]
    if not harming:
        return ""
    if facts.data in harming:
        return "The critic alone lowers it: mend it."
    name = harming[0][0]
    over = range_text([h for each, h in harming if each == name])
    return f"{over} through {named(facts.identities[name])} lower it."
