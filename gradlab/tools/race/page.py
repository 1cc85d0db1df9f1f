"""The pages of a race (where each candidate led) and of a step."""

from __future__ import annotations

from collections.abc import Mapping

from gradlab import figures
from gradlab.reporting import shell
from gradlab.reporting.output import Kind
from gradlab.reporting.page import NOWHERE, Page, PageSource, Section, folded, method_of, panel
from gradlab.reporting.shell import folded as table_of
from gradlab.tools.race.result import CHANGES, FIGURE, Race, Step

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
_FACTS = ("task", "updates", "batch", "starts", "optimizer", "rate", "refit", "seed")


def step_page(step: Step, config: Mapping[str, object], environment: Mapping[str, str]) -> Page:
    """What the page of a step shows."""
    table = step.table()
    caption = "Right of 0 a step raises the return."
    drawn = (panel(CHANGES, "", caption, figures.step_changes, table),)
    changes = {name: _HEADINGS[name] for name in ("value", "ci_low", "ci_high")}
    headings = {"policy": "policy", "mean": "mean return", **changes, "n": "episodes"}
    numbers = Section("Numbers", body=table_of("Every policy", table, headings))
    facts = {"environment": config.get("env"), "starts": step.starts, "updates": step.updates}
    return Page(
        str(config.get("after", "")), "Did the last updates raise the return?", facts,
        step.recommendation, drawn, (numbers, method_of(config, environment)), apart=False,
    )  # fmt: skip


def page(race: Race, source: PageSource = NOWHERE, name: str = "") -> Page:
    """What the page of a race shows."""
    table, config = race.table(), race.config
    draw = figures.return_over_updates
    drawn = (panel(FIGURE, _SECTION, "", draw, table, chosen=race.chosen),)
    shown = table.assign(candidate=table["candidate"].map(race.called))
    sections = (
        *folded(_SECTION, drawn),
        Section("Numbers", body=table_of("Every evaluation", shown, _HEADINGS)),
        method_of(config, race.environment, {"To know": race.notes}),
    )
    facts = {each: config.get(each) for each in _FACTS}
    facts |= {"candidates": len(race.names), "policy": shell.short(config.get("policy_hash"))}
    title = str(config.get("task") or name)
    return Page(title, "Which gradient leads farthest?", facts, race.recommendation, drawn,
                sections, source)  # fmt: skip


KIND = Kind(page, lambda race: race.recommendation)
