"""A choice's tables on a terminal: contenders on unseen starts, and what if."""

from __future__ import annotations

from math import isfinite
from typing import Any

from gradlab.wording import span

Rows = list[dict[str, Any]]


def print_choice(document: dict[str, Any]) -> None:
    """What was judged on starts that did not choose it, and other settings."""
    for name in ("pair", "several"):
        rows = document.get(f"contenders of {name}")
        if rows:
            print(f"weights of {name}, judged on unseen starts:")
            _print(["chosen by", "MSE", "95% CI", "cosine", "95% CI"], list(map(_contender, rows)))
    trials = document.get("what if")
    if trials:
        print("what if:")
        head = ["change", "best", "may be best", "MSE", "95% CI", "cosine", "95% CI"]
        _print(head, list(map(_trial, trials)))


def _contender(row: dict[str, Any]) -> list[str]:
    return [row["chooser"], *_numbers(row)]


def _trial(row: dict[str, Any]) -> list[str]:
    kept = str(row["kept"]) if row["kept"] else "–"
    return [row["change"], f"{row['estimator']}, h = {row['horizon']}", kept, *_numbers(row)]


def _numbers(row: dict[str, Any]) -> list[str]:
    found = []
    for name in ("mse", "cosine"):
        at_most = name == "mse" and row[name] <= 0  # a noise-corrected error that is not above 0
        shown = f"≤ {row['mse_high']:.3g}" if at_most else _number(row[name])
        found += [shown, span(row[f"{name}_low"], row[f"{name}_high"])]
    return found


def _number(value: float) -> str:
    return f"{value:.3g}" if isfinite(value) else "–"


def _print(head: list[str], rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in [head, *rows]:
        cells = [f"{text:<{width}}" for text, width in zip(row, widths, strict=True)]
        print("  " + "  ".join(cells).rstrip())
