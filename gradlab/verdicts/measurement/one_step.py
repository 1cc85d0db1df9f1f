"""Form 11: does the error matter? What one step along the gradient does to the return."""

from __future__ import annotations

from gradlab.runs.one_step import LINEAR, TRUTH, OneStepImprovement, interval_of
from gradlab.runs.profile import Profile
from gradlab.statistics.moments import Estimate
from gradlab.verdicts.phrases import capital
from gradlab.verdicts.sentence import Sentence
from gradlab.wording import gradient, percent, span, two


def learning(profile: Profile, name: str) -> list[Sentence]:
    """The judged gradient's step at its least error, and at the user's horizon."""
    steps = profile.consequence
    if steps is None:
        return []
    mine = [cell for cell in steps.cells if cell[0] == name]
    if not mine:
        return []
    first = mine[0]
    change = steps.change(first)
    ends = interval_of(change)
    whose = gradient(profile.identities[name])
    step = f"one step of length {two(steps.step)} along {whose} at h = {first[1]}"
    what = f"the return by {change.value:+.2g} (CI {span(ends.low, ends.high)})"
    judges = (
        f"{steps.starts} starts that made no gradient, {steps.horizon} steps each; the step moves "
        f"actions by about {percent(steps.moves)} along the truth{_bent(steps)}"
    )
    rest = f"{_share(steps, first)}{_others(steps, mine[1:])} ({judges})."
    if ends.low <= 0 <= ends.high:
        text = f"Undecided whether {step} raises the return: it changes {what}{rest}"
        return [Sentence("learning", False, text)]
    return [Sentence("learning", True, f"{capital(step)} changes {what}{rest}")]


def _share(steps: OneStepImprovement, cell: tuple[str, int]) -> str:
    share = steps.share(cell)
    if share is None:
        true = steps.change((TRUTH, 0))
        return f"; the true gradient's own gain is in doubt, {_changed(true)}"
    value, ends = share
    return f", {percent(value)} (CI {_shares(ends.low, ends.high)}) of the true gradient's gain"


def _others(steps: OneStepImprovement, cells: list[tuple[str, int]]) -> str:
    shares = [
        f"at h = {cell[1]} {percent(share[0])} (CI {_shares(share[1].low, share[1].high)})"
        for cell in cells
        if (share := steps.share(cell)) is not None
    ]
    return f"; {', '.join(shares)}" if shares else ""


def _changed(change: Estimate) -> str:
    ends = interval_of(change)
    return f"{change.value:+.2g} (CI {span(ends.low, ends.high)})"


def _shares(low: float, high: float) -> str:
    return f"{percent(low)} to {percent(high)}"


def _bent(steps: OneStepImprovement) -> str:
    """A warning where even the smallest step tried leaves the straight line."""
    if steps.curvature <= LINEAR:
        return ""
    return f"; curvature is {percent(steps.curvature)} of the slope even there"
