"""RACE: do first-order rows reach a return in less time than SAC?

    claim       gradients through the simulator learn in a fraction of the time of model-free rows
                (SHAC: up to 17 times on its tasks)
    criterion   stated before any run. Processor seconds for one seed until the mean return of 20
                evaluated episodes first reaches GOALS, geometric means of five seeds, Welch's 95%
                interval of the logarithm's difference: shac / Stable-Baselines3's SAC below 1 on
                each of three tasks. A seed that never reaches its goal counts with all the time
                that its run took, which is a bound: where one of shac's never does the interval
                has no upper end, where one of SAC's never does it has no lower end at 0

    python -m analyses.first_order.race [--runs runs/first-order] [--output reports/first-order]

Beside it ahac, sapo, apg and our sac. Five seeds here are one program, whose seconds are divided by
five; Stable-Baselines3's are five runs. Evaluations and measurements are left out, and the 500
steps that SAC collects first. Budgets are those of `first_order.SCALES`. Where a first-order row
loses, the error of its gradient says why: its squared bias, the critic's part of it, its noise and
its cosine, sums over five stages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from scipy import stats

from analyses.first_order import sb3 as first_order_sb3
from analyses.first_order.clock import seconds_at
from analyses.first_order.errors import errors_of
from analyses.first_order.runs import (
    FIRST_ORDER,
    OUTPUT,
    RACED,
    RUNS,
    SEEDS,
    Arm,
    World,
    finished,
    path_of,
)
from analyses.harness.contrast_parts import in_words, met, numbers_of
from analyses.harness.verdicts import Verdict, save
from gradlab.runs.training.results import load

THERE = "sb3-sac"
GOALS: Mapping[World, float] = {"inverted-pendulum": 900.0, "pendulum": -250.0, "hopper": 500.0}


def curves(runs: Path) -> pd.DataFrame:
    """Columns world, row, seed, seconds and return, of the runs that are there."""
    parts = list(_curves(runs))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _curves(runs: Path) -> Iterator[pd.DataFrame]:
    for world in RACED:
        for row in (*FIRST_ORDER, "sac"):
            arm = Arm(row, world)
            if not finished(arm, runs):
                continue
            run, clock = load(path_of(arm, runs)), path_of(arm, runs).with_suffix(".seconds.csv")
            seconds = seconds_at(clock, run.iteration, arm.evaluate_every) / len(run.seeds)
            for k, seed in enumerate(run.seeds):
                yield pd.DataFrame(
                    {"world": world, "row": row, "seed": int(seed), "seconds": seconds,
                     "return": run.returns[:, k]}
                )  # fmt: skip
        for seed in range(SEEDS):
            path = first_order_sb3.path_of(world, seed, runs)
            if path.exists():
                yield pd.read_csv(path).assign(world=world, row=THERE, seed=seed)[
                    ["world", "row", "seed", "seconds", "return"]
                ]


def times(curves: pd.DataFrame) -> pd.DataFrame:
    """Of every run, seconds until the goal, or all of them, and whether it was reached."""
    rows = []
    for (world, row, seed), run in curves.groupby(["world", "row", "seed"], sort=False):
        run = run.sort_values("seconds")
        met = run["seconds"][run["return"] >= GOALS[world]]  # type: ignore[index]
        rows.append({
            "world": world, "row": row, "seed": seed, "reached": len(met) > 0,
            "seconds": float(met.min() if len(met) else run["seconds"].max()),
            "last": float(run["return"].iloc[-1]),
        })  # fmt: skip
    return pd.DataFrame(rows)


def contrast(world: World, row: str, every: pd.DataFrame) -> dict[str, object]:
    """Seconds of a row over those of Stable-Baselines3's SAC."""
    own, there = (
        every[(every["world"] == world) & (every["row"] == name)] for name in (row, THERE)
    )
    # Reached before its first update, a goal has no logarithm.
    one, other = (np.log(np.maximum(part["seconds"], 1e-3)) for part in (own, there))
    interval = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    low = float(np.exp(interval.low)) if there["reached"].all() else 0.0
    high = float(np.exp(interval.high)) if own["reached"].all() else np.inf
    return {
        "label": f"seconds, {row} / {THERE}, {world}", "world": world, "row": row,
        "value": float(np.exp(one.mean() - other.mean())), "low": low, "high": high,
        "least": np.nan, "most": 1.0 if row == "shac" else np.nan,
        "reached": int(own["reached"].sum()), "reached there": int(there["reached"].sum()),
        "return": own["last"].mean(), "return there": there["last"].mean(),
    }  # fmt: skip


def judged(runs: Path) -> Verdict | None:
    """The verdict; None while a run is missing."""
    drawn_from = curves(runs)
    every = times(drawn_from) if len(drawn_from) else drawn_from
    if len(every) < len(RACED) * (len(FIRST_ORDER) + 2) * SEEDS:
        return None
    rows = pd.DataFrame(
        [contrast(world, row, every) for world in RACED for row in (*FIRST_ORDER, "sac")]
    )
    words = [
        f"{in_words(row)}, goal reached by {row['reached']} of {SEEDS} seeds against "
        f"{row['reached there']}{why(Arm(row['row'], row['world']), row, runs)}"
        for row in rows.to_dict("records")
    ]
    return Verdict(
        "RACE", "SHAC, section 5",
        "processor seconds to the goal, shac / Stable-Baselines3's SAC: below 1 on all three tasks",
        met(rows), f"{'; '.join(words)}.",
        numbers_of(rows), rows,
    )  # fmt: skip


def why(arm: Arm, row: Mapping[object, object], runs: Path) -> str:
    """The error of its gradient, where a first-order row is not faster."""
    if arm.row == "sac" or float(row["high"]) < 1:  # type: ignore[arg-type]
        return ""
    if not arm.measured:
        measured = Arm(arm.row, arm.world, 16)
        if not (measured.measured and finished(measured, runs)):
            return " (its gradient was not measured)"
        arm = measured
    errors = errors_of(load(path_of(arm, runs)))
    error, bias, tail, noise, cosine = (
        errors.estimate(name, 0, arm.horizon).value
        for name in ("error", "bias", "bias2_tail", "noise", "cosine")
    )
    if not np.isfinite([error, cosine]).all():
        return " (the error of its gradient is not told from noise)"
    return (
        f" (gradient at h = {arm.horizon}: MSE {error:.2g} of |true gradient|², bias² {bias:.2g}, "
        f"the critic's part {tail:.2g}, noise {noise:.2g}, cosine {cosine:.2f})"
    )


def main(runs: Path = RUNS, output: Path = OUTPUT) -> None:
    output.mkdir(parents=True, exist_ok=True)
    every = curves(runs)
    if len(every):
        times(every).to_csv(output / "race-times.csv", index=False, float_format="%.4g")
    verdict = judged(runs)
    if verdict is not None:
        save(verdict, output, "python -m analyses.first_order.race")


if __name__ == "__main__":
    tyro.cli(main)
