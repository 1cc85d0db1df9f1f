"""Tables of the pages from committed files of reports/."""

import csv
import json
from pathlib import Path
from statistics import mean

REPORTS = Path(__file__).parent.parent.parent / "reports"
# Title, estimator and horizon of the gradients that *Which gradient?* compares.
COMPARED = (
    ("the critic alone", "data", 0),
    ("model, 1 step, θ in the first action", "model", 1),
    ("model, 2 steps, θ in the first action", "model", 2),
    ("simulator's states, model's Jacobians, 1 step, first action", "mixed", 1),
    ("the same, 25 steps", "mixed", 25),
    ("simulator, 1 step, first action", "true_dynamics", 1),
    ("simulator, 25 steps, first action", "true_dynamics", 25),
    ("model, 1 step, θ in all actions", "model_all", 1),
    ("model, 10 steps, θ in all actions", "model_all", 10),
    ("model, 25 steps, θ in all actions", "model_all", 25),
)
FAMILIES = {
    "planted": "samples with planted moments, Gaussian to lognormal tails",
    "lq": "linear-quadratic worlds, measured end to end",
    "growth": "growth of the variance over the horizon",
    "starts": "start laws from Gaussian to Student's t with 4.5 degrees of freedom",
}
JUDGED = {
    "chosen": "the error of a cell that was chosen for being the best",
    "seeds": "medians over five seeds (93.75% nominal)",
}


def write(folder: Path) -> None:
    """Writes the tables that pages include."""
    (folder / "laws.txt").write_text(laws())
    (folder / "coverage.txt").write_text(coverage())
    (folder / "verdict.txt").write_text(coverage_verdict())


def rows_of(name: str) -> list[dict[str, str]]:
    """The rows of a table in reports/."""
    with (REPORTS / name).open() as file:
        return list(csv.DictReader(file))


def laws() -> str:
    """The same gradients judged at the start states and by the return, on path tracking."""
    columns = [
        _cells("path-tracking/numbers-start.csv", "cosine"),
        _cells("path-tracking/numbers.csv", "gain"),
    ]
    lines = [
        [title, *(column.get((estimator, horizon), "") for column in columns)]
        for title, estimator, horizon in COMPARED
    ]
    return table(["gradient", "cosine with the truth at the starts", "gain"], lines)


def _cells(name: str, quantity: str) -> dict[tuple[str, int], str]:
    shown = _cosine if quantity == "cosine" else _percent
    return {
        (row["estimator"], int(row["horizon"])): shown(row)
        for row in rows_of(name)
        if row["quantity"] == quantity
    }


def _cosine(row: dict[str, str]) -> str:
    value, low, high = (f"{float(row[k]):.2f}" for k in ("value", "ci_low", "ci_high"))
    return f"{value}\N{NO-BREAK SPACE}[{low},\N{NO-BREAK SPACE}{high}]".replace("-", "−")


def _percent(row: dict[str, str]) -> str:
    value, low, high = (f"{100 * float(row[k]):.0f}" for k in ("value", "ci_low", "ci_high"))
    return f"{value}%\N{NO-BREAK SPACE}[{low},\N{NO-BREAK SPACE}{high}]".replace("-", "−")


def coverage() -> str:
    """Mean and least coverage of cells that are not flagged, by family."""
    kept = [row for row in rows_of("coverage/coverage.csv") if float(row["flagged"] or 0) < 0.5]
    lines = []
    for family, title in FAMILIES.items():
        cells = [row for row in kept if row["family"] == family]
        values = [float(row["coverage"]) for row in cells]
        lines.append([title, str(len(cells)), f"{mean(values):.3f}", f"{min(values):.3f}"])
    verdict = json.loads((REPORTS / "coverage/verdict.json").read_text())
    for name, title in JUDGED.items():
        part = verdict[name]
        lines.append([title, str(part["cells"]), f"{part['mean']:.3f}", f"{part['least']:.3f}"])
    return table(["where the truth is known", "cells", "coverage, mean", "least"], lines)


def coverage_verdict() -> str:
    """The sentence on all cells."""
    cells = json.loads((REPORTS / "coverage/verdict.json").read_text())["cells"]
    return (
        f"Over {cells['judged']:,} cells that are not flagged, nominal 95% intervals hold the "
        f"known value in {100 * cells['mean']:.1f}% of the repetitions on average; the least cell "
        f"with 200 repetitions or more has {100 * cells['least']:.1f}%.\n"
    )


def table(titles: list[str], lines: list[list[str]]) -> str:
    """Markdown of a table."""
    rule = ["---"] * len(titles)
    return "".join(f"| {' | '.join(line)} |\n" for line in [titles, rule, *lines])
