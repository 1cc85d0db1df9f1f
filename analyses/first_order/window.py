"""SHAC-WINDOW: is the measured window of SHAC better than its default of 32 steps?

    claim       windows of 32 steps (Xu et al. 2022, table 3) are the right ones
    criterion   stated before any run. Final return at the horizon of least error, measured at the
                second of five stages of training (`first_order_errors.chosen`), less that at 32,
                paired over five seeds: an interval above 0 holds "the measured window is better",
                one below 0 refutes it, on either task
    premise     the measured horizon is another than 32

    python -m analyses.first_order.window [--runs runs/first-order] [--output reports/first-order]

Beside it, of every stage: the range of usable horizons and that of least error.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import tyro

from analyses.first_order.errors import table, usable
from analyses.first_order.runs import (
    OUTPUT,
    RUNS,
    STUDIED,
    Arm,
    World,
    finished,
    measured_arm,
    path_of,
    window_arms,
)
from analyses.harness.contrast_parts import in_words, met, numbers_of
from analyses.harness.verdicts import Verdict, save
from gradlab.runs.training.pairs import paired_returns
from gradlab.runs.training.results import Training, load


def judged(runs: Path) -> Verdict | None:
    """The verdict; None while a run is missing."""
    arms = {world: measured_arm(world, runs) for world in STUDIED}
    wanted = [arm for world in STUDIED for arm in (arms[world], *window_arms(world))]
    if not all(arm is not None and finished(arm, runs) for arm in wanted):
        return None
    rows = pd.DataFrame(
        [contrast(world, arm, runs) for world, arm in arms.items() if arm is not None]
    )
    stages = of_stages(runs)
    sentence = "; ".join(
        in_words(row) if np.isfinite(row["least"]) else f"{row['label']}: the default is measured"
        for row in rows.to_dict("records")
    )
    # Least-error horizons stage by stage.
    worded = " ".join(
        f"Horizon of least error on {world}, stage by stage: "
        f"{', '.join('none' if np.isnan(h) else f'{h:.0f}' for h in own['least'])}; usable: "
        f"{', '.join(text or 'none' for text in own['usable'])}."
        for world, own in stages.groupby("world", sort=False)
    )
    return Verdict(
        "SHAC-WINDOW", "SHAC, section 4",
        "final return at the horizon of least error at the second stage − at 32, paired over five "
        "seeds: above 0 on either task; no test where that horizon is 32",
        met(rows),
        f"{sentence}. {worded}", numbers_of(rows), rows,
    )  # fmt: skip


def contrast(world: World, arm: Arm, runs: Path, tested: bool = True) -> dict[str, object]:
    """Final return of an arm less that of the default window; NaN where it is not tested."""
    _, default = window_arms(world)
    label = f"h = {arm.horizon} − h = {default.horizon}, {world}"
    nothing = dict.fromkeys(("value", "low", "high", "least", "most"), np.nan)
    row = {"label": label, "world": world, "horizon": arm.horizon, **nothing}
    if arm == default or not tested:
        return row
    pair = paired_returns(load(path_of(default, runs)), load(path_of(arm, runs)))
    assert pair is not None
    return row | {
        "value": pair.change, "low": pair.low, "high": pair.high, "least": 0.0,
        "seeds": pair.seeds, "default": pair.first, "measured": pair.second,
    }  # fmt: skip


def of_stages(runs: Path) -> pd.DataFrame:
    """Usable range and least-error horizon of every stage of the runs that are there."""
    return _of_deciding(runs, usable)


def errors(runs: Path) -> pd.DataFrame:
    """`first_order_errors.table` of the runs that decide."""
    return _of_deciding(runs, table)


def _of_deciding(runs: Path, made: Callable[[Training], pd.DataFrame]) -> pd.DataFrame:
    """Tables of the runs that decide and are there, one under another."""
    parts = []
    for world in STUDIED:
        decides, _ = window_arms(world)
        if finished(decides, runs):
            parts.append(made(load(path_of(decides, runs))).assign(world=world))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def main(runs: Path = RUNS, output: Path = OUTPUT) -> None:
    output.mkdir(parents=True, exist_ok=True)
    errors(runs).to_csv(output / "window-errors.csv", index=False, float_format="%.4g")
    of_stages(runs).to_csv(output / "window-stages.csv", index=False, float_format="%.4g")
    verdict = judged(runs)
    if verdict is not None:
        save(verdict, output, "python -m analyses.first_order.window")


if __name__ == "__main__":
    tyro.cli(main)
