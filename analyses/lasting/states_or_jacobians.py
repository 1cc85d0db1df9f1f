"""States or Jacobians: which error of a model costs more of what an update brings?

python -m analyses.lasting.states_or_jacobians    # reports/states-or-jacobians/cells → its page

In a group, one policy beside one model, x(s, j) is the change of the return along the gradient with
states s and Jacobians j of the simulator (1) or of the model (0), over the largest |x| of the four:

    states       (x(1, 1) + x(1, 0) − x(0, 1) − x(0, 0)) / 2
    Jacobians    (x(1, 1) + x(0, 1) − x(1, 0) − x(0, 0)) / 2
    interaction  x(1, 1) − x(1, 0) − x(0, 1) + x(0, 0)

A change that is not finite is minus the largest. Criterion: reports/states-or-jacobians/README.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import tyro

from analyses.harness.verdicts import put
from analyses.lasting.__main__ import Cells, groups, interval
from gradlab.tools.board.result import Group, load

FOLDER = Path("reports/states-or-jacobians")
NAMES = {"model": 0, "simulator": 1}
LENGTHS = (1, 25)
EFFECTS = ("states", "Jacobians", "states less Jacobians", "interaction")


def effects(cells: Cells, updates: int, rehearsed: bool) -> dict[str, float]:
    """By name; NaN where a cell is missing or none of the four has a finite change."""
    x = np.full((2, 2), np.nan)
    for s, of_states in NAMES.items():
        for j, of_jacobians in NAMES.items():
            cell = cells.get(f"{s}_states_{j}_jacobians")
            if cell is None:
                return dict.fromkeys(EFFECTS, np.nan)
            x[of_states, of_jacobians] = cell.after(updates, rehearsed).value
    largest = np.abs(x[np.isfinite(x)]).max(initial=0.0)
    if not largest > 0:
        return dict.fromkeys(EFFECTS, np.nan)
    x = np.where(np.isfinite(x), x, -largest) / largest
    states, jacobians = ((x[1] - x[0]).mean(), (x[:, 1] - x[:, 0]).mean())
    both = x[1, 1] - x[1, 0] - x[0, 1] + x[0, 0]
    return dict(zip(EFFECTS, (states, jacobians, states - jacobians, both), strict=True))


def table(found: Mapping[Group, Cells]) -> pd.DataFrame:
    """One row per task, length and kind of change: every effect with its interval over seeds."""
    rows = []
    for task in sorted({group.task for group in found}):
        own = {group: cells for group, cells in found.items() if group.task == task}
        for updates in LENGTHS:
            for rehearsed in (False, True):
                row: dict[str, object] = {"task": task, "updates": updates}
                row |= {"how": "rehearsed" if rehearsed else "followed", "groups": len(own)}
                every = [effects(cells, updates, rehearsed) for cells in own.values()]
                for name in EFFECTS:
                    values = np.array([each[name] for each in every])
                    ends = interval(values, [group.seed for group in own])
                    row |= dict(zip((name, f"{name} low", f"{name} high"), ends, strict=True))
                rows.append(row)
    return pd.DataFrame(rows)


def answer(row: Mapping[str, float]) -> str:
    """By the criterion."""
    low, high = (row[f"states less Jacobians {end}"] for end in ("low", "high"))
    return "states first" if low > 0 else "Jacobians first" if high < 0 else "undecided"


def main(folder: Path = FOLDER) -> None:
    """Write the table into the folder's README.md, and print it."""
    board = load(folder)
    rows = table(groups(board, sorted({cell.task for cell in board.cells})))
    head = "task, model | updates | | groups | " + " | ".join(EFFECTS) + " | answer"
    lines = [f"| {head} |", "|---" * (len(EFFECTS) + 5) + "|"]
    for row in rows.to_dict("records"):
        ends = [
            f"{row[name]:+.2f} [{row[f'{name} low']:+.2f}, {row[f'{name} high']:+.2f}]"
            for name in EFFECTS
        ]
        start = (str(row["task"]).replace("_", ", "), row["updates"], row["how"], row["groups"])
        lines.append(f"| {' | '.join(map(str, start))} | {' | '.join(ends)} | {answer(row)} |")
    text = "\n".join(lines).replace("-0.", "−.").replace("+0.", "+.")
    put(folder / "README.md", "table", text)
    print(text)


if __name__ == "__main__":
    tyro.cli(main)
