"""MEASURED-WEIGHTS: does MPG learn better when measured errors, not a schedule, weigh its horizons?

    claim       measured MSE-optimal weights, or the horizon of least MSE, in the rule's place give
                a larger return averaged over the run (the area under its curve by its length)
    criterion   arm − rule on the same horizons, paired over seeds, 95% interval above 0 on both
                tasks, and on no task below 0 against the best fixed arm
    stated      before the first run; the best fixed arm is the one with the largest return averaged
                over run and seeds, chosen in hindsight, which favours it

    python -m analyses.measured_weights train --task path_tracking [--arm ARM …]
    python -m analyses.measured_weights table       from the run files to README.md and verdicts

MPG-v2 on path tracking and on the analytic inverted pendulum with the authors' unlimited slider (as
in `reports/mpg-table-1`), gradients clipped at 3 on the pendulum (without it seeds die of a single
gradient), 2×64 networks, 10,000 iterations, six seeds. Horizons are MPG-v2's, "pair" (0, 25), or
those of MPG-general, "four" (0, 5, 10, 25). Arms on either set: the rule, measured weights, the
measured horizon, equal weights; and J_0, J_5, J_10, J_25 alone. Seed k of every arm has the same
draws, starts and first networks. Also told, without a criterion: final return, iterations to MPG's
goals, time, and the share of it that measuring takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from analyses.harness.commands import commands
from analyses.harness.training import trained
from analyses.harness.verdicts import put, save
from analyses.mpg_table_1.runs import task_of
from gradlab.training.algorithms import Algorithm, Term, find, measured
from gradlab.training.checkpoints import resume_file
from gradlab.training.parts.context import FixedWeights

FOLDER = Path("reports/measured-weights")
TASKS = ("path_tracking", "inverted_pendulum")
CLIP: Mapping[str, float | None] = {"path_tracking": None, "inverted_pendulum": 3.0}
SETS: Mapping[str, tuple[int, ...]] = {"pair": (0, 25), "four": (0, 5, 10, 25)}
FIXED: Mapping[str, tuple[int, ...]] = {
    "h0": (0,), "h5": (5,), "h10": (10,), "h25": (25,),
    "equal-pair": SETS["pair"], "equal-four": SETS["four"],
}  # fmt: skip
RULES = tuple(f"rule-{name}" for name in SETS)
MEASURED = tuple(f"{what}-{name}" for what in ("weights", "horizon") for name in SETS)
GAIN = tuple(f"gain-{name}" for name in SETS)
ITERATIONS, SEEDS, HIDDEN = 10_000, 6, (64, 64)


def row_of(arm: str, task: str) -> Algorithm:
    """MPG-v2 with the horizons and weights of an arm."""
    base = replace(find("mpg-v2"), name=arm, clip=CLIP[task], hidden=HIDDEN)
    if arm in FIXED:
        horizons = FIXED[arm]
        share = (1 / len(horizons),) * len(horizons)
        return replace(base, terms=tuple(map(Term, horizons)), weights=FixedWeights(share))
    what, horizons = arm.split("-")
    row = replace(base, terms=tuple(map(Term, SETS[horizons])))
    if what == "gain":
        return measured(row, weights="measured", by="gain")
    return row if what == "rule" else measured(row, **{what: "measured"})


def training(
    task: str, arm: tuple[str, ...] = (*RULES, *FIXED, *MEASURED), iterations: int = ITERATIONS,
    seeds: int = SEEDS, folder: Path = FOLDER / "runs",
) -> None:  # fmt: skip
    """Train arms on one task; what is finished is kept, what was killed goes on."""
    torch.set_num_threads(1)
    for each in arm:
        path = folder / f"{task}-{each}.h5"
        if not path.exists() or resume_file(path).exists():
            trained(
                row_of(each, task), task_of(task), path, seeds=seeds, iterations=iterations,
                evaluate_every=500, measure_every=500, checkpoint_every=1000,
                keep=(0.0, 0.1, 0.25, 0.5, 1.0),
                command=f"python -m analyses.measured_weights train --task {task} --arm {each}",
            )  # fmt: skip


def table(folder: Path = FOLDER / "runs", output: Path = FOLDER) -> None:
    """The tables of README.md, every number behind them, and the verdict, from the runs."""
    from analyses.measured_weights import report as told

    tasks = told.loaded(folder)
    page = output / "README.md"
    for task, runs in tasks.items():
        put(page, task, told.arms(runs))
    verdict = told.judge(tasks)
    save(verdict, output, "python -m analyses.measured_weights table")
    put(page, "verdict", verdict.sentence + "\n")
    put(page, "pairs", told.compared(verdict.table))
    put(page, "errors", told.errors(tasks))
    told.curves(tasks).to_csv(output / "curves.csv", index=False, float_format="%.6g")


def main() -> None:
    commands(train=training, table=table)
