"""The first screen of a race: what to follow, for how long, and what may be as good.

That of a step: did it raise the return, and would the opposite one?
"""

from __future__ import annotations

from gradlab.statistics.number import Number
from gradlab.tools.race.result import Race, Step
from gradlab.verdicts.screen import Fact, Light, Screen, Sentence
from gradlab.wording import span, two, updates

FIGURE = "race"


def screen(race: Race) -> Screen:
    """The recommendation, the gain where it is highest, and what one step had promised."""
    results, stopped = race.results, race.config.get("interrupted")
    best = results.best
    light: Light = "none"
    sure = "no branch is shown to be above the start"
    facts: tuple[Fact, ...] = ()
    if best is not None and not results.hold:
        others = len(race.may_be_best()) - 1
        light = "choose" if others else "act"
        count = "1 other is" if others == 1 else f"{others} others are"
        sure = f"{count} not excluded" if others else "shown (95%)"
        how = f"J(θ_k) − J(θ_0) from the same {results.judges} starts; place and candidate chosen."
        gain, one = best.gain, race.after_one(best.cell[0])
        assumed = ", assumed" if results.assumed else ""
        rule = f" ({results.optimizer} at {results.rate:.2g}{assumed})"
        if results.rate != results.rate:  # all candidates bring their own
            rule = ""
        facts = (
            _fact(f"after {updates(best.updates)}{rule}", gain, how),
            _fact("after its first update", one, "What one step had promised."),
        )
    rest = tuple(Sentence("race", True, f"{topic}: {text}") for topic, text in race.notes.items())
    notice = f"Stopped {stopped}: what comes from there on is missing." if stopped else ""
    return Screen(race.recommendation, light, sure, facts, FIGURE, rest, notice)


def _fact(label: str, change: Number, how: str) -> Fact:
    return Fact(f"{label}, {span(change.low, change.high)}", two(change.value), how)


_LABELS = ("before", "after the step", "after the opposite step, 2θ₀ − θ₁")


def step_screen(step: Step) -> Screen:
    """Green where the return is shown to have risen; one step alone is never red."""
    words = {True: "shown (95%)", False: "one step alone is no fault", None: "open"}
    lights: dict[bool | None, Light] = {True: "act"}
    notes = (Sentence("step", True, f"{topic}: {text}") for topic, text in step.notes.items())
    means = step.returns.mean(axis=1)
    how = f"Mean return of {step.starts} whole episodes without noise."
    facts = tuple(
        Fact(f"return {label}", f"{mean:.4g}".replace("-", "−"), how)
        for label, mean in zip(_LABELS, means, strict=True)
    )
    headline = f"{step.headline} {step.normal}".strip()
    light = lights.get(step.helped, "choose")
    return Screen(headline, light, words[step.helped], facts, rest=tuple(notes))
