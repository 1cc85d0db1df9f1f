"""The first screen of a race: what to follow, for how long, and what may be as good.

That of a step: did it raise the return, and would the opposite one?

The page of a race: where each candidate led, with what, and every number.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gradlab import figures
from gradlab.reporting import shell
from gradlab.reporting.output import Kind
from gradlab.reporting.page import NOWHERE, Page, PageSource, Section, folded, method_of, panel
from gradlab.reporting.shell import folded as table_of
from gradlab.tools.race.result import Race, Step, load
from gradlab.verdicts.screen import Fact, Light, Screen, Sentence
from gradlab.wording import stepping, two, updates

_FIGURE, _RISE = "race", "change of the return after"


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
        rule = f" ({stepping(results.optimizer, results.rate)}{assumed})"
        if results.rate != results.rate:  # all candidates bring their own
            rule = ""
        facts = (
            Fact.ranged(f"{_RISE} {updates(best.updates)}{rule}", gain.estimate, how),
            Fact.ranged(f"{_RISE} the first update", one.estimate, "The promise of one step."),
        )
    said = (*(f"{each}." for each in race.outcomes), *(f"{k}: {v}" for k, v in race.notes.items()))
    rest = tuple(Sentence("race", True, text) for text in said)
    notice = f"Stopped {stopped}: what comes from there on is missing." if stopped else ""
    return Screen(race.recommendation, light, sure, facts, _FIGURE, rest, notice)


_CHANGES = "step_changes"


def step_screen(step: Step) -> Screen:
    """Green where the return is shown to have risen; one step alone is never red."""
    words = {True: "shown (95%)", False: "one step alone is no fault", None: "open"}
    lights: dict[bool | None, Light] = {True: "act"}
    notes = (Sentence("step", True, f"{topic}: {text}") for topic, text in step.notes.items())
    how = f"Mean of {step.starts} whole episodes without noise, from the same resets."
    how = how if step.paired else how.replace("from the same", "from other")
    before = Fact("return before the step", two(float(step.returns[0].mean())), how)
    facts = (
        before,
        Fact.ranged("change by the step", step.after.estimate, how),
        Fact.ranged("change by the opposite step, 2θ₀ − θ₁", step.opposite.estimate, how),
    )
    lead = {True: "Train on", False: "Judge it by more updates", None: "Measure more starts"}
    todo = lead[step.helped] if np.ptp(step.returns, axis=0).any() else "Check that the two differ"
    headline = f"{todo}: {step.headline[0].lower()}{step.headline[1:]} {step.normal}".strip()
    light = lights.get(step.helped, "choose")
    return Screen(headline, light, words[step.helped], facts, _CHANGES, tuple(notes))


def step_page(step: Step, config: Mapping[str, object], environment: Mapping[str, str]) -> Page:
    """What the page of a step shows."""
    table = step.table()
    caption = "Right of 0 a step raises the return; bars: 95%, all looks together."
    drawn = (panel(_CHANGES, _SECTION, caption, figures.step_changes, table),)
    changes = {name: _HEADINGS[name] for name in ("value", "ci_low", "ci_high")}
    headings = {"policy": "policy", "mean": "mean return", **changes, "n": "episodes"}
    numbers = table_of("Every policy", table, headings)
    facts = {"environment": config.get("env"), "starts": step.starts, "updates": step.updates}
    sections = (Section("Numbers", body=numbers), method_of(config, environment))
    question = "Did the last updates raise the return?"
    return Page(str(config.get("after", "")), question, facts, step_screen(step), drawn, sections,
                apart=False)  # fmt: skip


_SECTION = "Where each candidate led"
_HEADINGS = {
    "candidate": "candidate",
    "horizon": "horizon",
    "updates": "updates",
    "value": "change of the return",
    "ci_low": "95 % from",
    "ci_high": "to",
    "may_be_best": "may be best",
    "n": "starts",
    "dropped": "dropped after",
}


def page(race: Race, source: PageSource = NOWHERE, name: str = "") -> Page:
    """What the page of a race shows."""
    caption = "Every branch meets the same starts and noise; the critic is fitted again on the way."
    table = race.table()
    shown = table.assign(candidate=table["candidate"].map(race.called))
    draw = figures.return_over_updates
    drawn = (panel(_FIGURE, _SECTION, caption, draw, table, chosen=race.chosen),)
    numbers = f"<p>Click a heading to sort.</p>{table_of('Every evaluation', shown, _HEADINGS)}"
    sections = (
        *folded(_SECTION, drawn),
        Section("Numbers", body=numbers),
        method_of(race.config, race.environment, {"To know": race.notes}),
    )
    title = str(race.config.get("task") or name)
    question = "Which gradient leads farthest?"
    config = race.config
    facts = {
        "task": config.get("task"),
        "candidates": len(race.names),
        "updates": config.get("updates"),
        "batch": config.get("batch"),
        "starts": config.get("starts"),
        "optimizer": config.get("optimizer"),
        "rate": config.get("rate"),
        "critic fitted every": config.get("refit"),
        "policy": shell.short(config.get("policy_hash")),
        "seed": config.get("seed"),
    }
    return Page(title, question, facts, screen(race), drawn, sections, source)


KIND = Kind(load, page, screen)
