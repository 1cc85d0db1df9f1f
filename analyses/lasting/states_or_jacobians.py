"""States or Jacobians: which error of a model costs more of what an update brings?

python -m analyses.lasting.states_or_jacobians            # cells → the page of the folder
python -m analyses.lasting.states_or_jacobians --train    # 200 updates of five seeds, then the same

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

import gradlab
from analyses.harness.running import Row, grown, lines_of
from analyses.harness.verdicts import put
from analyses.lasting.__main__ import Cells, groups, interval
from gradlab.data.noise import child
from gradlab.tools.board.compute import BATCH, estimators, outcomes
from gradlab.tools.board.result import Cell, Group, ReturnChange, load
from gradlab.user_code.loading import load_object

FOLDER = Path("reports/states-or-jacobians")
NAMES = {"model": 0, "simulator": 1}
LENGTHS = (1, 25)
TRAINED, UPDATES, TRAINED_SEEDS = "pendulum_small", 200, range(5)  # from the early stage on
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


def trained(seed: int, name: str, folder: Path) -> Row:
    """The change of the return along one estimator, the critic fitted again every 25 updates."""
    file = folder / f"tasks/{TRAINED}.py"
    task, policy, critic = load_object(f"{file}:make")("early", seed)
    candidate = load_object(f"{estimators(folder)[name]}:make")(task, critic)
    found = gradlab.race(
        task, policy, critic, {name: candidate}, UPDATES, update=load_object(f"{file}:UPDATE"),
        batch=BATCH, starts=load_object(f"{file}:STARTS"), drop=False, seed=child(seed, "board"),
        termination=load_object(f"{file}:TERMINATION"),
    )  # fmt: skip
    return {"seed": seed, "estimator": name, "followed": outcomes(found)}


def over_training(rows: list[Row]) -> str:
    """Effects of the four trainings after every quarter of the updates, mean over seeds."""
    cells: dict[int, dict[str, Cell]] = {}
    for row in rows:
        followed = tuple(ReturnChange(int(k), *ends) for k, *ends in row["followed"])
        cell = Cell(TRAINED, "early", row["seed"], row["estimator"], followed)
        cells.setdefault(row["seed"], {})[row["estimator"]] = cell
    names = sorted({row["estimator"] for row in rows})
    lines = [f"| updates | {' | '.join(EFFECTS)} | {' | '.join(names).replace('_', ' ')} |",
             "|---" * (1 + len(EFFECTS) + len(names)) + "|"]  # fmt: skip
    for updates in range(UPDATES // 4, UPDATES + 1, UPDATES // 4):
        every = [effects(each, updates, rehearsed=False) for each in cells.values()]
        ends = [interval(np.array([each[name] for each in every]), list(cells)) for name in EFFECTS]
        changes = [
            ", ".join(
                f"{each[n].after(updates).value:+.0f}" for each in cells.values() if n in each
            )
            for n in names
        ]
        said = [f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]" for mean, low, high in ends]
        lines.append(f"| {updates} | {' | '.join([*said, *changes])} |")
    return "\n".join(lines)


def main(folder: Path = FOLDER, train: bool = False) -> None:
    """Write the tables into the folder's README.md, and print them."""
    kept = folder / "trained.jsonl"
    if train:
        cells = [(s, name, folder) for s in TRAINED_SEEDS for name in estimators(folder)]
        grown(kept, cells, ("seed", "estimator"), trained, lambda row: str(row["followed"][-1]))
    if rows := lines_of(kept):
        put(folder / "README.md", "trained", text := over_training(rows))
        print(text)
    board = load(folder)
    if not board.cells:
        return
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
    text = "\n".join(lines).replace("-0.", "−.").replace("+0.", "+.").replace("[-", "[−")
    put(folder / "README.md", "table", text)
    print(text)


if __name__ == "__main__":
    tyro.cli(main)
