"""The page of a race: where each candidate led, with what, and every number."""

from __future__ import annotations

from functools import partial

from gradlab import figures
from gradlab.reporting import shell
from gradlab.reporting.kinds import Kind
from gradlab.reporting.numbers import folded as table_of
from gradlab.reporting.page import NOWHERE, Page, PageSource, Section, folded, method_of, panel
from gradlab.tools.race.findings import FIGURE, screen
from gradlab.tools.race.result import Race, load

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
    drawn = (panel(FIGURE, _SECTION, caption, partial(figures.return_over_updates, table)),)
    numbers = f"<p>Click a heading to sort.</p>{table_of('Every evaluation', table, _HEADINGS)}"
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
