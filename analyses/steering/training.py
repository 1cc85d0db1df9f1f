"""Steering of MPG-v2 on path tracking and the analytic inverted pendulum, beside fixed horizons.

    python -m analyses.steering tasks      one line of tasks.jsonl for every arm and seed

As in `analyses.measured_weights` (2×64 networks, gradients clipped at 3 on the pendulum), shorter,
with seeds of its own. Seconds are those of the processor: the machine is not idle.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from analyses.measured_weights import row_of
from analyses.mpg_table_1 import task_of
from gradlab.runs.training.results import load
from gradlab.storage.journal import read
from gradlab.training.loop import train
from gradlab.training.measured.steering import HORIZONS, LEFT, LENGTHS, STARTS
from gradlab.truth.oracles import effective_horizon

TASKS = ("path_tracking", "inverted_pendulum")
FIXED = ("h0", "h5", "h25")
STEERED = ("accept", "rehearse")
ARMS = ("rule", *FIXED, *STEERED)
ITERATIONS, SEEDS, FIRST, EVERY = 1500, 4, 100, 100
JUDGED = {"rehearse": 1 + len(HORIZONS) * len(LENGTHS), "accept": 2}  # policies of a decision


def run_arm(name: str, arm: str, folder: Path) -> list[dict[str, Any]]:
    """Train one arm on one task; a row of each seed."""
    task, path = task_of(name), folder / f"{name}-{arm}.h5"
    spent = {0: 0.0}
    begun = time.process_time()

    def note_time(stage: str, done: int, asked: int) -> None:
        spent[done] = time.process_time() - begun

    row = row_of(arm if arm in FIXED else "rule-pair", name)
    train(
        row, task, path, overwrite=True, steer=arm if arm in STEERED else None,  # type: ignore[arg-type]
        seeds=SEEDS, first_seed=FIRST, iterations=ITERATIONS, evaluate_every=EVERY,
        products="batched", progress=note_time,
    )  # fmt: skip
    run, groups = load(path), read(path).groups
    transitions = np.asarray(groups["evaluations"]["transitions"].values)
    held, judged = np.zeros((0, SEEDS)), np.zeros(len(run.iteration))
    if arm in STEERED:
        held = np.asarray(groups["steering"]["held"].values)
        at = np.asarray(groups["steering"]["iteration"].values)
        steps = min(effective_horizon(task.discount, LEFT), run.config["settings"]["episode"])
        each = JUDGED[arm] * STARTS * steps
        judged = each * (at[None, :] < run.iteration[:, None]).sum(axis=1)
    seconds = np.interp(run.iteration, list(spent), list(spent.values()))
    return [
        {
            "task": name, "arm": arm, "seed": int(seed), "iterations": run.iteration.tolist(),
            "returns": np.round(run.returns[:, i], 3).tolist(),
            "seconds": np.round(seconds, 1).tolist(),
            "transitions": transitions.astype(int).tolist(),
            "judged": judged.astype(int).tolist(),
            "held": round(float(held[:, i].mean()), 4) if len(held) else None,
        }
        for i, seed in enumerate(run.seeds)
    ]  # fmt: skip
