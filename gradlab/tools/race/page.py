"""The recommendation of a race: what to follow, for how long, and what may be as good.

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
from gradlab.verdicts.phrases import with_sign
from gradlab.verdicts.recommendation import Field, Light, Recommendation, worded
from gradlab.wording import listed, stepping, two, updates

_FIGURE = "race"
_NAMED = 2


def advice(race: Race) -> Recommendation:
    """The recommendation, the gain where it is highest, and what one step had promised."""
    results, stopped = race.results, race.config.get("interrupted")
    best = results.best
    light: Light = "none"
    none = f"within {updates(race.updates)} no candidate is shown to raise the return"
    fields = [Field("use", "no update yet"), Field("why", none)]
    if best is not None and not results.hold:
        others = [race.called(name) for name in race.may_be_best() if name != best.cell[0]]
        light = "choose" if others else "act"
        more = " or more" if best.updates == race.updates else ""
        how = f"J(θ_k) − J(θ_0) from the same {results.judges} starts; place and candidate chosen."
        gain, one = best.gain, race.after_one(best.cell[0])
        assumed = " (rate assumed)" if results.assumed else ""
        rule = f" of {stepping(results.optimizer, results.rate)}{assumed}"
        if results.rate != results.rate:  # all candidates bring their own
            rule = ""
        start, length = results.present(gain), updates(best.updates)
        tested = f"{with_sign(*gain.estimate)} return, from {start}, after {length}{rule}"
        promise = "Of one update, by the same starts."
        fields = [
            Field("use", f"{race.called(best.cell[0])}, for {length}{more}"),
            Field("tested", tested, how),
            Field("first update", with_sign(*one.estimate), promise),
        ]
        fields += [Field("not excluded", listed(others, _NAMED))] if others else []
    said = (*(f"{each}." for each in race.outcomes), *(f"{k}: {v}" for k, v in race.notes.items()))
    rest = tuple(worded("race", True, text) for text in said)
    notice = f"Stopped {stopped}: what comes from there on is missing." if stopped else ""
    return Recommendation(light, tuple(fields), _FIGURE, rest, notice)


_CHANGES = "step_changes"


def step_advice(step: Step) -> Recommendation:
    """Green where the return is shown to have risen; one step alone is never red."""
    lights: dict[bool | None, Light] = {True: "act"}
    notes = (worded("step", True, f"{topic}: {text}") for topic, text in step.notes.items())
    how = f"Mean of {step.starts} whole episodes without noise, from the same resets."
    how = how if step.paired else how.replace("from the same", "from other")
    lead = {True: "train on", False: "judge it by more updates", None: "measure more starts"}
    todo = lead[step.helped] if np.ptp(step.returns, axis=0).any() else "check that the two differ"
    fields = (
        Field("step", step.headline, how),
        Field("opposite step", with_sign(*step.opposite.estimate), f"2θ₀ − θ₁. {how}"),
        Field("return before", two(float(step.returns[0].mean())), how),
        Field("normal", step.normal.removeprefix("Normal: ").removesuffix(".")),
        Field("next", todo),
    )
    light = lights.get(step.helped, "choose")
    shown = tuple(each for each in fields if each.text)
    return Recommendation(light, shown, _CHANGES, tuple(notes))


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
    return Page(str(config.get("after", "")), question, facts, step_advice(step), drawn, sections,
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
    return Page(title, question, facts, advice(race), drawn, sections, source)


KIND = Kind(load, page, advice)
