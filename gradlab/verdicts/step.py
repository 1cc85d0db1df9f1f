"""The first screen of a step: did it raise the return, and would the opposite one?"""

from __future__ import annotations

from gradlab.runs.step import Step
from gradlab.verdicts.screen import Fact, Light, Screen, Sentence

_LABELS = ("before", "after the step", "after the opposite step, 2θ₀ − θ₁")


def screen(step: Step) -> Screen:
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
