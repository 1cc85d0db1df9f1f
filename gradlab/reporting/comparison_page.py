"""The page of two measurements side by side: verdict, what changed by how much, every number."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from gradlab import validation
from gradlab.errors import InputError
from gradlab.figures import drawing, style
from gradlab.figures.plots import lines
from gradlab.reporting import shell
from gradlab.reporting.page import Page, Panel, Section, panel, side_by_side
from gradlab.reporting.shell import tables
from gradlab.runs.comparison import Comparison, compared
from gradlab.runs.profile import load
from gradlab.verdicts.comparison import screen

_DRAWN = "Figures"
_RATIO = ("ratio", "ratio_low", "ratio_high")
_DIFFERENCE = ("difference", "ci_low", "ci_high")
_NAMES = {
    "mse": "mean squared error",
    "bias2": "squared bias",
    "variance": "variance",
    "cosine": "cosine with the truth",
}


def _panels(comparison: Comparison) -> list[Panel]:
    """Errors first, then bias, variance and direction."""
    table, names = comparison.table(), comparison.names
    return [
        panel(f"{quantity}-ratio" if draw is ratio and quantity == "mse" else quantity, _DRAWN,
              "Where the band is off the line, the change is more than chance.", draw, table,
              quantity=quantity, names=names)
        for quantity, draw in (
            ("mse", ratio), ("mse", difference), ("bias2", difference), ("variance", ratio),
            ("cosine", difference),
        )
        if (table["quantity"] == quantity).any()
    ]  # fmt: skip


def of_files(paths: Sequence[str | Path]) -> tuple[Page, pd.DataFrame]:
    """The page of two measurements, and the table behind it."""
    if len(paths) != 2:
        raise InputError(f"compare got {len(paths)} measurements, expected two")
    stems = [Path(path).stem for path in paths]  # without folders where these are distinct
    A, B = stems if stems[0] != stems[1] else map(str, paths)
    pair = compared(load(paths[0]), load(paths[1]), (A, B))
    table, drawn, one = pair.table(), tuple(_panels(pair)), pair.first.config
    measured = dict(zip(pair.names, (one, pair.second.config), strict=True))
    sections = (
        Section(_DRAWN),
        Section("Every number", body=f"<p>First: {escape(A)}, second: {escape(B)}.</p>"
                f"{tables(table)}"),
        side_by_side("How both were measured", measured),
    )  # fmt: skip
    facts = {
        "task": one.get("task"),
        "policy": shell.short(one.get("policy_hash")),
        "gradients": " and ".join(dict.fromkeys(str(x.get("starts")) for x in measured.values())),
        "paired": "no" if pair.unpaired else "yes",
    }
    title, question = f"{A} and {B}", "What did the change do?"
    return Page(title, question, facts, screen(pair), drawn, sections), table


def ratio(
    table: pd.DataFrame, ax: Axes | None = None, *, quantity: str = "mse", names: tuple[str, str]
) -> Axes:
    """B over A of every estimator, with its band; 1 is no change."""
    return _compared(
        table, ax, quantity, names, "over", "ratio", columns=_RATIO, log=True,
        thresholds={"no change": 1.0}, empty="not known to be above 0 in both",
    )  # fmt: skip


def difference(
    table: pd.DataFrame, ax: Axes | None = None, *, quantity: str = "bias2", names: tuple[str, str]
) -> Axes:
    """B less A of every estimator, with its band; 0 is no change."""
    unit = "difference" + " [(return / parameter)²]" * (quantity != "cosine")
    sizes = table[table["quantity"] == quantity]["difference"].abs().to_numpy(float)
    return _compared(
        table, ax, quantity, names, "less", unit, columns=_DIFFERENCE, level=0,
        then=partial(drawing.bent, sizes=sizes), empty="not measured in both",
    )  # fmt: skip


def _compared(
    table: pd.DataFrame, ax: Axes | None, quantity: str, names: tuple[str, str], joined: str,
    unit: str, **more: Any,
) -> Axes:  # fmt: skip
    validation.word("quantity", quantity, _NAMES)
    A, B = (style.plain(each) for each in names)
    title = f"{_NAMES[quantity].capitalize()}: {B} {joined} {A}"
    notes = [f"above: {B} is larger; band: 95%"]
    return lines(table, ax, title, unit, quantity=quantity, notes=notes, **more)
