"""Tables of a command's document on the terminal: checks, attribution, choice.

selftest      one row per check            attribute     causes down, horizons across
choose        candidates on unseen starts, and what-if settings
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gradlab.wording import percent, span, two

if TYPE_CHECKING:
    from rich.table import Table

ROUNDING = 1e-12  # a share of the total's upper end that rounding explains
Rows = Sequence[Mapping[str, Any]]


def print_tables(document: Mapping[str, Any]) -> None:
    """Every table that the document has."""
    checks, shares = document.get("checks"), document.get("ledger")
    if isinstance(checks, list):
        print_checks(checks)
    if isinstance(shares, list):
        print_attribution(shares)
    if "what if" in document:
        print_choice(document)


def print_checks(checks: list[dict[str, Any]]) -> None:
    width = max(len(check["name"]) for check in checks)
    print(f"{'':4}  {'':{width}}  {'known':>11} {'measured':>11}  {'interval':25} mistake gives")
    for check in checks:
        mark = "ok" if check["passed"] else "FAIL"
        interval = f"[{check['low']:.4g}, {check['high']:.4g}]"
        mistake = "" if check["mistake"] is None else f"{check['mistake']:.4g}"
        numbers = f"{check['known']:11.4g} {check['measured']:11.4g}  {interval:25} {mistake}"
        print(f"{mark:4}  {check['name']:{width}}  {numbers}")
    failed = sum(not check["passed"] for check in checks)
    print(f"{len(checks) - failed} passed, {failed} failed")


def print_attribution(rows: Rows) -> None:
    """Shares of the squared bias, then of the variance, one table for each estimator."""
    from rich.console import Console

    from gradlab.runs.attribution import CAUSES, SOURCES

    console = Console(soft_wrap=True, highlight=False, markup=False)
    for account, kind, names, what in (
        ("bias", "shapley", CAUSES, "squared bias, Shapley shares"),
        ("variance", "source", SOURCES, "variance"),
    ):
        chosen = [row for row in rows if row["account"] == account]
        for estimator in dict.fromkeys(row["estimator"] for row in chosen):
            rows_of_it = [row for row in chosen if row["estimator"] == estimator]
            console.print(_shares(rows_of_it, kind, names, f"{estimator}: {what}"))


def _shares(rows: Rows, kind: str, names: Mapping[str, str], title: str) -> Table:
    from rich.table import Table

    totals = {row["horizon"]: row for row in rows if row["kind"] == "total"}
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("", overflow="fold")
    for horizon in totals:
        table.add_column(f"h = {horizon}", justify="right", overflow="fold")
    table.add_row("total", *(_with_interval(row) for row in totals.values()))
    for name, label in names.items():
        parts = [row for row in rows if (row["kind"], row["cause"]) == (kind, name)]
        table.add_row(label, *(_share(part, totals[part["horizon"]]) for part in parts))
    return table


def _with_interval(row: Mapping[str, Any]) -> str:
    """A number with its interval."""
    value, low, high = (two(row[name]) for name in ("value", "ci_low", "ci_high"))
    return f"{value}\n[{low}, {high}]"


def _share(row: Mapping[str, Any], total: Mapping[str, Any]) -> str:
    """The fraction with its interval, or the value where the total is not distinguishable from 0;
    0 is exact."""
    if row["value"] == 0 and row["se"] == 0:
        return "0"
    if math.isnan(row["fraction"]):
        rounding = max(map(abs, (row["ci_low"], row["ci_high"]))) < ROUNDING * total["ci_high"]
        return "≈ 0" if rounding else _with_interval(row)
    low, high = (_percent(row[f"fraction_{end}"]) for end in ("low", "high"))
    return f"{_percent(row['fraction'])}\n[{low}, {high}]"


def _percent(share: float) -> str:
    """Per cent as in a sentence; a share of rounding size is 0."""
    return "0%" if abs(share) < 5e-5 else percent(share)


def print_choice(document: Mapping[str, Any]) -> None:
    """Candidates evaluated on starts that did not choose them, then the what-if settings."""
    for name in ("pair", "several"):
        rows = document.get(f"contenders of {name}")
        if rows:
            print(f"weights of {name}, judged on unseen starts:")
            _aligned(
                ["chosen by", "MSE", "95% CI", "cosine", "95% CI"], list(map(_contender, rows))
            )
    trials = document.get("what if")
    if trials:
        print("what if:")
        head = ["change", "best", "may be best", "MSE", "95% CI", "cosine", "95% CI"]
        _aligned(head, list(map(_trial, trials)))


def _contender(row: dict[str, Any]) -> list[str]:
    return [row["chooser"], *_error_and_cosine(row)]


def _trial(row: dict[str, Any]) -> list[str]:
    kept = str(row["kept"]) if row["kept"] else "–"
    return [
        row["change"],
        f"{row['estimator']}, h = {row['horizon']}",
        kept,
        *_error_and_cosine(row),
    ]


def _error_and_cosine(row: dict[str, Any]) -> list[str]:
    texts = []
    for name in ("mse", "cosine"):
        at_most = name == "mse" and row[name] <= 0  # a noise-corrected error that is not above 0
        shown = f"≤ {row['mse_high']:.3g}" if at_most else _digits(row[name])
        texts += [shown, span(row[f"{name}_low"], row[f"{name}_high"])]
    return texts


def _digits(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "–"


def _aligned(head: list[str], rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in [head, *rows]:
        cells = [f"{text:<{width}}" for text, width in zip(row, widths, strict=True)]
        print("  " + "  ".join(cells).rstrip())
