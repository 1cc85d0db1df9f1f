"""An attribution on the terminal: causes down, horizons across."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from gradlab.runs.attribution import CAUSES, SOURCES
from gradlab.wording import percent, two

ROUNDING = 1e-12  # share of the total's upper end that is no share at all
Rows = Sequence[Mapping[str, Any]]


def print_attribution(rows: Rows) -> None:
    """Shares of the squared bias, then of the variance, one table for each estimator."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for account, kind, names, what in (
        ("bias", "shapley", CAUSES, "squared bias, Shapley shares"),
        ("variance", "source", SOURCES, "variance"),
    ):
        chosen = [row for row in rows if row["account"] == account]
        for estimator in dict.fromkeys(row["estimator"] for row in chosen):
            mine = [row for row in chosen if row["estimator"] == estimator]
            console.print(_table(mine, kind, names, f"{estimator}: {what}"))


def _table(rows: Rows, kind: str, names: Mapping[str, str], title: str) -> Table:
    totals = {row["horizon"]: row for row in rows if row["kind"] == "total"}
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("", overflow="fold")
    for horizon in totals:
        table.add_column(f"h = {horizon}", justify="right", overflow="fold")
    table.add_row("total", *(_value(row) for row in totals.values()))
    for name, label in names.items():
        parts = [row for row in rows if (row["kind"], row["cause"]) == (kind, name)]
        table.add_row(label, *(_share(part, totals[part["horizon"]]) for part in parts))
    return table


def _value(row: Mapping[str, Any]) -> str:
    """A number with its interval."""
    value, low, high = (two(row[name]) for name in ("value", "ci_low", "ci_high"))
    return f"{value}\n[{low}, {high}]"


def _share(row: Mapping[str, Any], total: Mapping[str, Any]) -> str:
    """The fraction with its interval, or the value where the total is lost in noise; 0 is exact."""
    if row["value"] == 0 and row["se"] == 0:
        return "0"
    if math.isnan(row["fraction"]):
        rounding = max(map(abs, (row["ci_low"], row["ci_high"]))) < ROUNDING * total["ci_high"]
        return "≈ 0" if rounding else _value(row)
    low, high = (_percent(row[f"fraction_{end}"]) for end in ("low", "high"))
    return f"{_percent(row['fraction'])}\n[{low}, {high}]"


def _percent(share: float) -> str:
    """As in a sentence; what rounding leaves of nothing is nothing."""
    return "0%" if abs(share) < 5e-5 else percent(share)
