"""The page of a run that is one long table: figures as rows of settings, tables by section.

Plot("chain", "Chains", "Beyond 1 a zero is better.", lines, "Error of chains", "relative error",
     one(look, "product", "relative error"), {"along": "steps chained"})
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from gradlab.figures.plots import Series, lines, rows
from gradlab.figures.style import SIZE, Look
from gradlab.reporting.page import (
    Page,
    PageSource,
    Panel,
    Section,
    facts_of,
    folded,
    method_of,
    panel,
)
from gradlab.reporting.shell import tables
from gradlab.runs.long_table import LongTable
from gradlab.verdicts.recommendation import Recommendation

SeriesOf = Callable[[pd.DataFrame], Series]


@dataclass(frozen=True)
class Plot:
    """A figure of a long table, left out where it has no number but 0.

    Attributes:
        name, section, caption: of its panel.
        draw: of `figures.plots`; title, unit, settings: what it takes.
        series: of the whole table.
    """

    name: str
    section: str
    caption: str
    draw: Callable[..., Axes]
    title: str
    unit: str
    series: SeriesOf
    settings: Mapping[str, Any]

    def panel(self, table: pd.DataFrame, high: float = SIZE[1]) -> Panel | None:
        """It, with the rows that it draws."""
        shown = self.series(table)
        drawn = pd.concat([each.assign(line=look.label) for look, each in shown.items()])
        if not drawn["value"].fillna(0).any():
            return None

        def draw(_: pd.DataFrame, ax: Axes) -> Axes:
            settings = {"x": "step"} if self.draw is lines else {}
            settings |= self.settings
            return self.draw(shown, ax=ax, title=self.title, unit=self.unit, **settings)

        return panel(self.name, self.section, self.caption, draw, drawn, high)


def each(
    looks: Mapping[str, Look], section: str, quantity: str = "",
    change: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows,
) -> SeriesOf:  # fmt: skip
    """A line for every block, or for every quantity where none is given. `change`: of its rows."""

    def series(table: pd.DataFrame) -> Series:
        return {
            look: change(
                rows(table, section, quantity, block=name)
                if quantity
                else rows(table, section, name)
            )
            for name, look in looks.items()
        }

    return series


def drawn(plots: Sequence[Plot], table: pd.DataFrame) -> list[Panel]:
    """The panels that have numbers."""
    return [found for plot in plots if (found := plot.panel(table)) is not None]


def long_page(
    run: LongTable, question: str, advice: Recommendation, panels: Sequence[Panel],
    titles: Mapping[str, str], facts: Mapping[str, object], source: PageSource, name: str,
) -> Page:  # fmt: skip
    """Figures, the sections of the table that have `titles`, what was left out, how it was made.

    Args:
        facts: by name; a value of None: as the configuration has it.
        name: its title where no task is known.
    """
    table = run.table()
    sections = (
        *folded("Figures", panels),
        Section("Numbers", body=tables(table[table["section"].isin(titles)], "section", titles)),
        method_of(run.config, run.environment, {"Left out": run.notes}),
    )
    known = {each: value for each, value in facts.items() if value is not None}
    every = facts_of(run, *(each for each in facts if each not in known)) | known
    title = str(run.config.get("task") or name)
    return Page(title, question, every, advice, tuple(panels), sections, source)
