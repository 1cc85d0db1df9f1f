"""EARLY-LATE-ARMS: whose is the crossing of MPG's biases: its prior's, its reward's, or training's?

    claim       early in training J_25 has less bias than J_0, late more, and MPG's rule changes
                hands at the right moment
    paper       MPG, section III-B, IV-A, Table VI
    criterion   replayed states, |bias(25)|/|bias(0)|, Student's 95% interval of its mean logarithm
                over the seeds. "Early, then late" in an arm: below 1 at iteration 1,000, above 1 at
                7,500. "Late" is a property of the offset, or of the factor, if the arm without it
                lies below 1 at 7,500. "The right moment": in every arm each seed crosses 1 once
                and for good, and the interval of the mean crossing holds T/2 = 4,500

    python -m analyses.horizons.early_late_arms train --arm published --first 10    two seeds
    python -m analyses.horizons.early_late_arms measure --arm published --first 10  checkpoints
    python -m analyses.horizons.early_late_arms_report                     the verdict

MPG-v2 on path tracking, T = 9,000, learning rates annealed over 20,000 iterations as in
EARLY-LATE, ended at 7,500, where the rule has given J_0 0.99 of the weight; networks of 2×64
instead of Table VI's 2×256, which take a quarter of the time. Four seeds that no earlier analysis
has used, 128 of each one's replayed states. The arms differ in one thing each:

    published   the prior adds 0.5 m to y in every step, rewards are multiplied by 0.01 in training
    no offset   the prior adds zero-mean noise alone
    factor 1    rewards as they are

Each arm's rule drives its policy, so that an arm has policies of its own. What the offset does to
the gradient alone is seen where an arm's policies and critics are measured through the prior that
it was not trained with.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

from analyses.harness.commands import commands
from analyses.harness.paired_trials import Row, kept
from analyses.horizons.checkpoint_errors import errors
from analyses.horizons.checkpoint_samples import (
    RAMPS,
    Place,
    Samples,
    measured,
    policy_at,
    through,
)
from gradlab import tasks
from gradlab.cli.terminal.progress_bars import bars
from gradlab.systems.vehicle import VehicleModel
from gradlab.training.algorithms import find
from gradlab.training.checkpoints import resume_file
from gradlab.training.loop import train

FOLDER = Path("reports/horizon-claims")
RUNS = Path("runs/early-late-arms")
TASK = "path_tracking"
Trained = Literal["published", "no offset", "factor 1"]
SCALES: Mapping[Trained, float] = {"published": 0.01, "no offset": 0.01, "factor 1": 1.0}
PRIORS = {"published": VehicleModel(), "no offset": VehicleModel(bias=0.0)}
SEEDS = range(10, 14)
TOGETHER = 2  # seeds of one run
ANNEALED, LAST = 20_000, 7500  # iterations
CHECKPOINTS = (1000, LAST, 4000, 3000, 5000, 2000, 6000)  # in the order of measuring
STARTS = 128
MOMENT = RAMPS[TASK] // 2
ROW = replace(find("mpg-v2"), hidden=(64, 64))


def run_of(folder: Path, arm: str, first: int) -> Path:
    """The folder of one run and of its checkpoints."""
    return folder / arm / f"from{first}"


def prior_of(arm: str) -> str:
    """The prior that an arm is trained with."""
    return "no offset" if arm == "no offset" else "published"


def training(arm: Trained, first: int, until: int = LAST, folder: Path = RUNS) -> None:
    """Train two seeds of an arm up to `until` of 20,000 iterations; goes on where it stopped."""
    task = replace(tasks.path_tracking(), prior=PRIORS[prior_of(arm)])
    path = run_of(folder, arm, first) / f"mpg-v2-{TASK}.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    resume = resume_file(path).exists()
    with bars() as shown, suppress(KeyboardInterrupt):

        def ending(stage: str, done: int, total: int) -> None:
            shown(stage, done, total)
            if done == until:
                # As Ctrl-C does: checkpoint and state are saved, and the run stays open.
                signal.raise_signal(signal.SIGINT)

        train(
            ROW, task, path, resume=resume, progress=ending, seeds=TOGETHER, first_seed=first,
            iterations=ANNEALED, reward_scale=SCALES[arm], evaluate_every=2500,
            checkpoint_every=500, keep=tuple(k / ANNEALED for k in CHECKPOINTS),
            command=f"python -m analyses.horizons.early_late_arms train --arm '{arm}' "
            f"--first {first}",
        )  # fmt: skip


def measure(arm: Trained, first: int, folder: Path = RUNS, output: Path = FOLDER) -> None:
    """Measure the checkpoints that are there, through both priors; what is measured is kept."""
    checkpoints = run_of(folder, arm, first)

    def place_of(iteration: int, seed: int) -> Place:
        return Place(TASK, iteration, seed, "visited")

    def one(cell: Row) -> list[Row]:
        """Ratio and gap of squared biases, J_n over J_0, at one checkpoint."""
        samples = measured(place_of(int(cell["iteration"]), int(cell["seed"])), STARTS, checkpoints)
        return [
            {"prior": name, "steps": int(str(samples.about["steps"]))} | row
            for name, prior in PRIORS.items()
            for row in ratios(through(samples, prior, checkpoints), checkpoints)
        ]

    cells: list[Row] = [
        {"arm": arm, "iteration": iteration, "seed": seed}
        for iteration in CHECKPOINTS
        for seed in range(first, first + TOGETHER)
        if place_of(iteration, seed).file("critic", checkpoints).exists()
    ]
    kept(output / f"early-late-arms-{arm.replace(' ', '-')}-{first}.csv", cells, one)


def ratios(samples: Samples, checkpoints: Path) -> list[Row]:
    """One row per horizon of the model and quantity, bias_ratio and bias_gap."""
    found = errors(samples, policy_at(samples.place, checkpoints))
    shown = found[
        (found["estimator"] == "model") & (found["law"] == samples.place.law)
        & found["quantity"].isin(["bias_ratio", "bias_gap"])
    ]  # fmt: skip
    columns = ["horizon", "quantity", "value", "ci_low", "ci_high"]
    return [{str(k): x for k, x in row.items()} for row in shown[columns].to_dict("records")]


if __name__ == "__main__":
    commands(train=training, measure=measure)
