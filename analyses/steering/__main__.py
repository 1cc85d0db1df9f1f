"""STEERING: does it pay to choose what is followed, and for how long, by returns?

    python -m analyses.steering worlds | tasks | table

Criterion: reports/steering/criterion.md. What is in worlds.jsonl and tasks.jsonl is not run again.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from analyses.harness.running import append, lines_of
from analyses.steering import linear_quadratic as lq
from analyses.steering import report, training

Row = dict[str, Any]
FOLDER = Path("reports/steering")


def run_worlds(path: Path, many: int = lq.WORLDS) -> None:
    """What is missing of every family and arm."""
    done = {(row["family"], row["arm"], row["seed"]) for row in lines_of(path)}
    for family in lq.FAMILIES:
        worlds = lq.worlds_of(family, many)
        for name, arm in lq.arms_of(family).items():
            if all((family, name, world.seed) in done for world in worlds.each):
                continue
            begun, fits = time.process_time(), lq.fits_of(arm)
            shares, held = lq.run_arm(worlds, arm, fits)
            shares = shares.clip(lq.FLOOR, 1.0)
            bought = min(lq.BUDGET // arm.price, fits)
            for i, world in enumerate(worlds.each):
                if (family, name, world.seed) in done:
                    continue
                row = {
                    "family": family, "seed": world.seed, "arm": name,
                    "share": [round(float(shares[fit - 1, i]), 4) for fit in lq.SHOWN],
                    "equal_steps": round(float(shares[bought - 1, i]), 4) if bought else 0.0,
                    "held": round(float(held[i]), 4),
                }  # fmt: skip
                append(path, row)
            took = time.process_time() - begun
            print(f"{family}: {name}: {shares[lq.FITS - 1].mean():.2f} ({took:.0f} s)", flush=True)


def main(
    what: tyro.conf.Positional[Literal["worlds", "tasks", "table"]],
    output: Path = FOLDER,
    folder: Path = Path("runs/steering"),
) -> None:
    """
    Args:
        output: of the lines, the figure and the page.
        folder: of training's runs.
    """
    torch.set_num_threads(1)
    worlds, tasks = output / "worlds.jsonl", output / "tasks.jsonl"
    if what == "worlds":
        run_worlds(worlds)
    elif what == "tasks":
        # What is missing of every task and arm.
        folder.mkdir(parents=True, exist_ok=True)
        done = {(row["task"], row["arm"]) for row in lines_of(tasks)}
        for task in training.WORLDS:
            for arm in training.ARMS:
                if (task, arm) in done:
                    continue
                rows = training.run_arm(task, arm, folder)
                for row in rows:
                    append(tasks, row)
                last = ", ".join(f"{row['returns'][-1]:.1f}" for row in rows)
                print(f"{task}: {arm}: {last} ({rows[0]['seconds'][-1]:.0f} s)", flush=True)
    else:
        report.write_page(lines_of(worlds), lines_of(tasks), output)


if __name__ == "__main__":
    tyro.cli(main)
