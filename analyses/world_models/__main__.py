"""WORLD-MODELS: is the advice on imagined gradients and on planning right where it is followed?

    python -m analyses.world_models [--only KIND …] [--tasks TASK …] [--most N] [--judge]

Three small world models (`examples/world_models.py`), two tasks, three checkpoints, two seeds;
criterion in reports/world-models/criterion.md. A cell is one line of cells.jsonl and is not made
again; a training is kept at its three checkpoints.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import tyro

from analyses.advice.run import advice_of, measured, what_happened
from analyses.advice.worlds import Cell, World
from analyses.harness.cells import grown
from analyses.harness.examples import example
from analyses.planning.__main__ import followed, plans
from gradlab.networks.interface import double_copy

KINDS, STAGES, SEEDS = ("tdmpc", "dreamer", "jepa"), ("early", "middle", "late"), (31, 32)
TRANSITIONS = {
    "pendulum": dict(zip(STAGES, (4_800, 9_600, 19_200), strict=True)),
    "cart-pole": dict(zip(STAGES, (4_000, 8_000, 16_000), strict=True)),
}
STEPS = {"pendulum": 200, "cart-pole": 100}  # of a return


def made(name: str, stage: str, seed: int, folder: Path) -> dict[str, Any]:
    """What is advised of one checkpoint, and what happens to who follows it."""
    begun, (kind, task) = time.monotonic(), name.split("-", 1)
    # The file of one checkpoint, of a training that is made where it is missing.
    files = {s: folder / f"{kind}-{task}-{s}-{seed}.pt" for s in STAGES}
    if not files[stage].exists():
        wanted = {count: s for s, count in TRANSITIONS[task].items()}
        training = example("world_models").train
        for count, model in training(kind, task, max(wanted), seed, report=lambda line: None):
            if count in wanted:
                kept = {"kind": kind, "task": task, "model": model.state_dict()}
                torch.save(kept, files[wanted[count]])
    file = files[stage]
    trained = time.monotonic()
    own, *networks = example("world_models").loaded(str(file))
    policy, critic = (double_copy("network", network) for network in networks)
    steps = STEPS[task]
    world = World(
        "latent", lambda seed: own, (0, 0, 0), starts=128, judges=256, most=4096, steps=steps,
        samples=512, rivals=(0, 1, 4, 10),
    )  # fmt: skip
    cell = Cell(world, name, stage, seed, own, policy, critic)
    row: dict[str, Any] = {"world": name, "stage": stage, "seed": seed}
    if kind != "jepa":  # it has no policy: nothing to measure but plans
        profile = measured(cell)
        advice = advice_of(profile)
        asked = time.monotonic()
        row |= {
            "recommended": advice.candidate, "updates": advice.updates,
            "gradient_light": advice.light, "gradient_headline": advice.headline,
            "own": advice.own, "measure_seconds": asked - trained,
        }  # fmt: skip
        row |= what_happened(cell, advice)
    begin = time.monotonic()
    row["plans"] = plans(cell)
    ended = time.monotonic()
    return row | {"train_seconds": trained - begun, "plan_seconds": ended - begin}


def outcome(row: dict[str, Any]) -> dict[str, Any]:
    """Whether each piece of advice was right."""
    found = {name: row[name] for name in ("world", "stage", "seed")}
    if "gradient_light" in row:
        low, high = row["after_update"][1:3] if row["recommended"] else (0.0, 0.0)
        helped = low > 0 if row["recommended"] else not row["helps"]
        light = row["gradient_light"]
        found |= {"light": light, "gradient": str(row["recommended"]), "gradient_right": helped}
        found |= {"green_and_lower": light == "act" and high < 0}
    planned, mine = followed(row["plans"])
    chosen = row["plans"]["chosen"]
    found["plan"] = "none" if chosen is None else f"{chosen[0]} {chosen[1]}"
    if mine is None:
        found["plan_right"] = not (planned.ci_low > 0).any()
        return found
    return found | {"plan_right": bool(mine.gain > 0), "plan_share": mine.gain / planned.gain.max()}


def verdict(rows: list[dict[str, Any]], output: Path) -> str:
    """The criterion's counts; the table beside it."""
    table = pd.DataFrame([outcome(row) for row in rows])
    table.to_csv(output / "cells.csv", index=False, float_format="%.4g")
    gradients = table[table.light.notna()] if "light" in table else table[:0]
    right = gradients.gradient_right.sum() if len(gradients) else 0
    wrong = gradients.green_and_lower.sum() if len(gradients) else 0
    return (
        f"gradients: right in {right} of {len(gradients)}, {wrong} green and lower\n"
        f"plans: right in {table.plan_right.sum()} of {len(table)}"
    )


def main(
    only: tuple[str, ...] = (),
    tasks: tuple[str, ...] = (),
    most: int | None = None,
    judge: bool = False,
    networks: Path = Path("runs/world-models"),
    output: Path = Path("reports/world-models"),
) -> None:
    """
    Args:
        only: kinds of models; tasks: of them; all without any.
        most: new cells, at the most.
        judge: what is there, and run nothing.
        networks: folder of the checkpoints, trained where they are missing.
        output: of cells.jsonl and the table.
    """
    networks.mkdir(parents=True, exist_ok=True)
    wanted = itertools.product(SEEDS, tasks or TRANSITIONS, STAGES, only or KINDS)
    rows = grown(
        output / "cells.jsonl",
        ((f"{kind}-{task}", stage, seed) for seed, task, stage, kind in wanted),
        ("world", "stage", "seed"),
        lambda *cell: made(*cell, networks),
        lambda row: str(outcome(row)),
        0 if judge else most,
    )
    if rows:
        print(verdict(rows, output))


if __name__ == "__main__":
    tyro.cli(main)
