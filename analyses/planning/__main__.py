"""PLANNING: does what `gradlab plan` recommends hold from fresh starts?

    python -m analyses.planning [--most N] [--judge]

Eight worlds of `analyses.advice.worlds`, two stages, two seeds; criterion in
reports/planning/criterion.md. A cell is one line of cells.jsonl and is not made again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro

from analyses.advice.worlds import Cell, make_cell
from analyses.harness.cells import grown
from gradlab import compare_planners
from gradlab.data.noise import child
from gradlab.tools.planning.result import NONE, STEP

WORLDS = (
    "linear-stable", "linear-growing", "pendulum", "inverted-pendulum", "quadrotor", "cart-pole",
    "quadrotor-pillar", "bouncing-ball",
)  # fmt: skip
STAGES, SEEDS, HORIZONS = ("early", "late"), (22, 23), (1, 5, 15)
ADVISED, FOLLOWED = 32, 64  # starts


def plans(cell: Cell) -> dict[str, Any]:
    """What is advised from some starts, and what all planners gain from others."""
    given, seed = (cell.task, cell.policy, cell.critic), cell.seed
    advised, again = (
        compare_planners(
            *given, horizons=HORIZONS, starts=starts, seed=child(seed, f"plans {what}")
        )
        for what, starts in (("advised", ADVISED), ("followed", FOLLOWED))
    )
    best = advised.best
    chosen = None if best is None else [best.planner, int(best.horizon)]
    return {
        "world": cell.name, "stage": cell.stage, "seed": seed, "chosen": chosen,
        "light": advised.screen().light, "headline": advised.recommendation,
        "advised": advised.frame.to_dict("records"), "followed": again.frame.to_dict("records"),
    }  # fmt: skip


def followed(row: dict[str, Any]) -> tuple[pd.DataFrame, pd.Series | None]:
    """Planners from fresh starts, and the recommended one among them."""
    table = pd.DataFrame(row["followed"])
    planned = table[~table.planner.isin([NONE, STEP])]
    if row["chosen"] is None:
        return planned, None
    name, horizon = row["chosen"]
    return planned, planned[(planned.planner == name) & (planned.horizon == horizon)].iloc[0]


def outcome(row: dict[str, Any]) -> dict[str, Any]:
    """The gain of what was advised, and of the best in hindsight, from fresh starts."""
    planned, mine = followed(row)
    best = planned.iloc[int(np.nanargmax(planned.gain))]
    shown = bool((planned.ci_low > 0).any())
    found = {name: row[name] for name in ("world", "stage", "seed", "light", "headline")}
    found |= {"best": f"{best.planner} {best.horizon}", "best_gain": best.gain, "any_shown": shown}
    if mine is not None:
        found |= {"chosen": f"{mine.planner} {mine.horizon}", "gain": mine.gain}
        found |= {"ci_low": mine.ci_low, "ci_high": mine.ci_high}
        found |= {"share": mine.gain / max(best.gain, 1e-300)}
    return found


def verdict(rows: list[dict[str, Any]], output: Path) -> str:
    """The criterion's counts; the table beside it."""
    table = pd.DataFrame([outcome(row) for row in rows])
    table.to_csv(output / "cells.csv", index=False, float_format="%.6g")
    told = table[table.gain.notna()] if "gain" in table else table[:0]
    kept = table[~table.index.isin(told.index)]
    along = pd.concat([pd.DataFrame(row["followed"]) for row in rows])
    along = along[along.planner == STEP]
    steps = (
        f"{h} steps: {(rows.ci_low > 0).sum()} up, {(rows.ci_high < 0).sum()} down of {len(rows)}"
        for h, rows in along.groupby("horizon")
    )
    above, shown, below = (told.gain > 0).sum(), (told.ci_low > 0).sum(), (told.ci_high < 0).sum()
    lines = [
        f"(a) of {len(told)} green recommendations {above} raise the return of fresh starts, "
        f"{shown} shown, {below} shown to lower it",
        f"(b) share of the best planner's gain: median {told.share.median():.2f}, "
        f"{(told.share >= 0.8).sum()} of {len(told)} at .8 or more",
        f"(c) where planning is advised against ({len(kept)}), {kept.any_shown.sum()} have a "
        f"planner that is shown to gain",
        f"(d) one step along the gradient of the score: {', '.join(steps)}",
    ]
    return "\n".join(lines)


def main(
    most: int | None = None,
    judge: bool = False,
    networks: Path = Path("runs/advice"),
    output: Path = Path("reports/planning"),
) -> None:
    """
    Args:
        most: new cells, at the most.
        judge: what is there, and run nothing.
        networks: folder of the policies, trained where they are missing.
        output: of cells.jsonl and the table.
    """
    networks.mkdir(parents=True, exist_ok=True)
    rows = grown(
        output / "cells.jsonl",
        ((world, stage, seed) for seed in SEEDS for stage in STAGES for world in WORLDS),
        ("world", "stage", "seed"),
        lambda *cell: plans(make_cell(*cell, networks)),
        lambda row: f"{row['light']} {row['headline']}",
        0 if judge else most,
    )
    if rows:
        print(verdict(rows, output))


if __name__ == "__main__":
    tyro.cli(main)
