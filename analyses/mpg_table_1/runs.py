"""MPG's Table I at the scale that fits: final return, and iterations to each goal.

    python -m analyses.mpg_table_1 train --algorithm mpg-v2 --task path_tracking [--iterations N]
    python -m analyses.mpg_table_1 table        from the run files to tables, pages and verdicts

Every algorithm of MPG's Table I on its two tasks, several seeds side by side in one program. Goals
are reached when the mean return over the fixed evaluation starts first passes them; the paper's
numbers stand beside ours: each seed, the median, and the mean with its interval over seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch

from analyses.harness.running import commands, trained
from analyses.harness.student import half_width
from analyses.harness.verdicts import put, save
from analyses.mpg_table_1.claims import CLAIMS
from gradlab import tasks
from gradlab.reporting.output import compare
from gradlab.runs.training.results import GOALS, Training, first_reached, load
from gradlab.tasks import Task
from gradlab.tools.papers.figures import reached
from gradlab.tools.papers.published import ITEMS
from gradlab.training.algorithms import find

ROWS = ("mpg-v1", "mpg-v2", "n-step-dpg", "n-step-adp", "td3", "sac")
FOLDER = Path("reports/mpg-table-1")
FOLDERS = {
    "path_tracking": FOLDER,
    "inverted_pendulum": Path("reports/inverted-pendulum-training"),
}
RUNS = FOLDER / "full"
Engine = Literal["analytic", "mujoco"]


# As printed: final return ± 95% interval, and iterations to the goals (−: never).
PAPER = {
    (part.task, row): cells
    for part in ITEMS["mpg"]["table-1"].parts
    for row, cells in part.printed.items()
}


def task_of(name: str, engine: Engine = "analytic") -> Task:
    """The papers' tasks; the pendulum without a slider stop, as in the authors' own XML."""
    if name == "path_tracking":
        return tasks.path_tracking()
    return tasks.inverted_pendulum(engine=engine, slider="wide")


def training(
    algorithm: str, task: str, iterations: int = 20_000, seeds: int = 5, evaluate_every: int = 500,
    clip: float | None = None, threads: int = 1, folder: Path = FOLDER / "runs",
    engine: Engine = "analytic",
) -> None:  # fmt: skip
    """Train one algorithm on one task; goes on where a run was stopped.

    Args:
        clip: largest norm of a gradient, as in the published code (3); the paper names none.
        engine: of the pendulum.
    """
    torch.set_num_threads(threads)
    row, clipped = find(algorithm), ""
    if clip is not None:
        row = replace(row, name=f"{row.name}, clip {clip:g}", clip=clip)
        clipped = f" --clip {clip:g}"
    path = folder / f"{row.name.replace(', clip ', '-clip')}-{task}.h5"
    trained(
        row, task_of(task, engine), path, seeds=seeds, iterations=iterations,
        evaluate_every=evaluate_every,
        command=f"python -m analyses.mpg_table_1 train --algorithm {algorithm} "
        f"--task {task} --iterations {iterations} --seeds {seeds}{clipped}"
        + (f" --engine {engine}" if engine != "analytic" else ""),
    )  # fmt: skip


def table(folder: Path = RUNS, output: Path = FOLDER.parent) -> None:
    """Put the runs of a folder beside the paper's numbers: a folder per task with table.csv,
    table.md, the page of all runs, and the verdict on the claim where every row is there."""
    for task in FOLDERS:
        files = sorted(folder.glob(f"*-{task}.h5"))
        runs = {path: load(path) for path in files}
        if not runs:
            continue
        place = output / FOLDERS[task].name
        place.mkdir(parents=True, exist_ok=True)
        rows = pd.concat([seeds(run) for run in runs.values()], ignore_index=True)
        rows.to_csv(place / "table.csv", index=False, float_format="%.6g")
        text = page(task, list(runs.values()))
        (place / "table.md").write_text(text)
        put(place / "README.md", "table", text)
        print(text)
        if len(runs) > 1:
            compare(list(runs), place / "report.html")
        named = {run.name: run for run in runs.values()}
        if set(ROWS) <= set(named):
            save(CLAIMS[task](named), place, "python -m analyses.mpg_table_1 table")


def seeds(run: Training) -> pd.DataFrame:
    """One row per seed: final return, its standard error, and the first iteration at each goal."""
    columns = {
        "task": run.task,
        "algorithm": run.name,
        "seed": run.seeds,
        "iterations": int(run.iteration[-1]),
        "wall_seconds": float(run.seconds[-1]),
        "return": run.returns[-1],
        "standard_error": run.errors[-1],
        "ends_per_episode": run.ends[-1],
    }
    goals = {f"to {goal:g}": first_reached(run, goal) for goal in GOALS[run.task]}
    return pd.DataFrame(columns | goals)


def page(task: str, runs: Sequence[Training]) -> str:
    """Ours beside the paper's, as a Markdown table; every goal as ours / the paper's."""
    goals = GOALS[task]
    heads = ["algorithm", "every seed", "median", "mean", "paper", "iterations, wall time"]
    heads += [f"to {goal:g}: ours / paper" for goal in goals]
    lines = [" | ".join(heads), " | ".join(["---"] * len(heads))]
    for name in ROWS:
        for run in sorted((r for r in runs if r.name.startswith(name)), key=lambda r: r.name):
            printed, *theirs = PAPER[task, name]
            last = run.returns[-1]
            cells = [
                run.name,
                ", ".join(f"{value:.3g}" for value in np.sort(last)[::-1]),
                f"{np.median(last):.3g}",
                f"{last.mean():.3g} ± {half_width(last):.2g}",
                printed,
                f"{int(run.iteration[-1])}, {run.seconds[-1] / 60:.0f} min",
            ]
            pairs = zip(goals, theirs, strict=True)
            cells += [f"{reached(run, goal)} / {paper}" for goal, paper in pairs]
            lines.append(" | ".join(cells))
    return "\n".join(lines) + "\n"


def main() -> None:
    commands(train=training, table=table)
