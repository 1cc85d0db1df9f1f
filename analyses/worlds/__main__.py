"""WORLDS: is a recommended gradient's sign right in simulators as people write them?

    python -m analyses.worlds [--only WORLD …] [--most N] [--judge]

Eight simulators (`environments.py`; VMAS, JAX and Brax come with `pip install vmas brax`), five
checkpoints each; criterion in reports/worlds/criterion.md. A cell is one line of cells.jsonl and
is not made again; policies are trained where they are missing.
"""

from __future__ import annotations

import functools
import itertools
import time
from pathlib import Path
from typing import Any

import pandas as pd
import tyro

from analyses.advice.run import advice_of, measured, what_happened
from analyses.advice.worlds import Cell, World, policy_at
from analyses.harness.cells import grown
from analyses.worlds.environments import TASKS
from gradlab.data.noise import child
from gradlab.fitting import fit_critic
from gradlab.tasks import Task

SEED, UPDATES = 51, (5, 15, 30, 60, 120)
task_of = functools.cache(lambda name: TASKS[name]())


def world_of(name: str) -> World:
    """Fewer and shorter returns where a step of Brax is slow."""
    slow = name.startswith("walker")
    return World(
        "environment", lambda seed: task_of(name), UPDATES, starts=64 if slow else 128,
        judges=64 if slow else 256, most=1024 if slow else 4096, steps=100 if slow else 200,
        batch=64 if slow else 256, samples=128 if slow else 1024, rivals=(),
        termination="mask" if name == "walker-hopper" else "ignore",
    )  # fmt: skip


def made(name: str, updates: int, folder: Path) -> dict[str, Any]:
    """What is advised of one checkpoint, and what happens to who follows it."""
    begun, world = time.monotonic(), world_of(name)
    task: Task = task_of(name)
    files = [folder / f"{name}-{each}.safetensors" for each in UPDATES]
    policy = policy_at(UPDATES.index(updates), files, world, task, SEED)
    seed = child(SEED, f"worlds critic {updates}")
    critic = fit_critic(task, policy, termination=world.termination, seed=seed)
    cell = Cell(world, name, str(updates), SEED, task, policy, critic)
    trained_at = time.monotonic()
    advice = advice_of(measured(cell))
    asked = time.monotonic()
    row: dict[str, Any] = {
        "world": name, "updates_before": updates, "recommended": advice.candidate,
        "updates": advice.updates, "light": advice.light, "headline": advice.headline,
        "own": advice.own, "measure_seconds": asked - trained_at,
    }  # fmt: skip
    row |= what_happened(cell, advice)
    return row | {"make_seconds": trained_at - begun, "follow_seconds": time.monotonic() - asked}


def outcome(row: dict[str, Any]) -> dict[str, Any]:
    """Whether the advice was right; NaN where no gradient is recommended."""
    kept = row["recommended"] is None
    found = {name: row[name] for name in ("world", "updates_before", "light", "updates")}
    found["gradient"] = "keep the policy" if kept else "{} {}".format(*row["recommended"])
    if kept:
        return found | {"right": not row["helps"]}
    ends = [row[key][:3] for key in ("after_update", "after_1", "after_k")]
    raised, lowered = [low > 0 for _, low, _ in ends], [high < 0 for _, _, high in ends]
    names = ("first_update", "plain_step", "all_updates")
    return found | dict(zip(names, raised, strict=True)) | {
        "right": raised[0], "green_and_wrong": row["light"] == "act" and any(lowered)
    }  # fmt: skip


def verdict(rows: list[dict[str, Any]], output: Path) -> str:
    """The criterion's counts; the table beside it."""
    table = pd.DataFrame([outcome(row) for row in rows])
    table.to_csv(output / "cells.csv", index=False, float_format="%.4g")
    named = table[table.gradient != "keep the policy"]
    kept = table[table.gradient == "keep the policy"]
    return (
        f"recommended: first update raised the return in {int(named.right.sum())} of {len(named)}, "
        f"{int(named.green_and_wrong.sum())} of {int((named.light == 'act').sum())} greens wrong\n"
        f"kept: right in {int(kept.right.sum())} of {len(kept)}"
    )


def main(
    only: tuple[str, ...] = (),
    most: int | None = None,
    judge: bool = False,
    networks: Path = Path("runs/worlds"),
    output: Path = Path("reports/worlds"),
) -> None:
    """
    Args:
        only: worlds; all without any.
        most: new cells, at the most.
        judge: what is there, and run nothing.
        networks: folder of the checkpoints, trained where they are missing.
        output: of cells.jsonl and the table.
    """
    networks.mkdir(parents=True, exist_ok=True)
    rows = grown(
        output / "cells.jsonl",
        itertools.product(only or tuple(TASKS), UPDATES),
        ("world", "updates_before"),
        lambda name, updates: made(name, updates, networks),
        lambda row: str(outcome(row)),
        0 if judge else most,
    )
    if rows:
        print(verdict(rows, output))


if __name__ == "__main__":
    tyro.cli(main)
