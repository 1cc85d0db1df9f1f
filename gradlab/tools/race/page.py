"""The pages of a race (where each candidate led) and of a step."""

from __future__ import annotations

from collections.abc import Mapping

from gradlab import figures
from gradlab.reporting.output import Kind
from gradlab.reporting.page import (
    NOWHERE,
    Page,
    PageSource,
    Section,
    facts_of,
    folded,
    method_of,
    panel,
)
from gradlab.reporting.shell import folded as table_of
from gradlab.tools.race.result import CHANGES, FIGURE, Race, Step

_SECTION = "Where each candidate led"
_FACTS = ("updates", "batch", "starts", "optimizer", "rate", "refit")


def step_page(step: Step, config: Mapping[str, object], environment: Mapping[str, str]) -> Page:
    """What the page of a step shows."""
    table = step.table()
    caption = "Right of 0 a step raises the return."
    drawn = (panel(CHANGES, "", caption, figures.step_changes, table),)
    numbers = Section("Numbers", body=table_of("Every policy", table))
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
    shown = table.assign(candidate=table["candidate"].map(race.called)).drop(columns="estimator")
    sections = (
        *folded(_SECTION, drawn),
        Section("Numbers", body=table_of("Every evaluation", shown)),
        method_of(config, race.environment, {"To know": race.notes}),
    )
    facts = facts_of(race, *_FACTS) | {"candidates": len(race.names)}
    title = str(config.get("task") or name)
    return Page(title, "Which gradient leads farthest?", facts, race.recommendation, drawn,
                sections, source)  # fmt: skip


KIND = Kind(page, lambda race: race.recommendation)
