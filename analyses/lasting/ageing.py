"""Do a gradient's growth and its staleness say how long its quality lasts? And 500 updates?

python -m analyses.lasting.ageing measure              # makes what is missing, then the tables
python -m analyses.lasting.ageing measure --most 1     # one group more; 0: the tables alone

In the groups of `gradlab board`, at the policy that an estimator begins with:

    growth       p of |g_h| ∝ hᵖ, by one batch's gradient at its horizon and at half of it
    staleness    ρ = (g₀ · g₅ / |g₀||g₅|)^⅕ of the mean gradient before and after five rehearsed
                 updates of its own; what gain x brings in K updates is then x (1 − ρᴷ) / (1 − ρ)
    500 updates  of four estimators, the critic fitted again every 25, by the draws of the board

Norms and products are of batches that differ, so that their noise is no bias. Criterion:
reports/lasting/criterion.md.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import gradlab
from analyses.harness.running import Row, commands, grown
from analyses.harness.verdicts import put
from analyses.lasting.__main__ import (
    CHOOSE,
    JUDGE,
    PREDICTORS,
    Cells,
    Predictor,
    best_fixed,
    fixed,
    groups,
    interval,
    regret,
)  # fmt: skip
from gradlab.data.noise import child, stream
from gradlab.gradients.bptt import mean_gradient
from gradlab.gradients.estimator import Estimator
from gradlab.networks.interface import double_copy
from gradlab.networks.mlp import as_critic
from gradlab.tasks import Task
from gradlab.tools.board.compute import BATCH, STARTS, outcomes, sources
from gradlab.tools.board.result import Cell, Group, ReturnChange, load
from gradlab.tools.race.compute import state_file
from gradlab.user_code.loading import load_object

OUTPUT, BOARD = Path("reports/lasting"), Path("reports/board")
SEEDS = (0, 1)
LONGER = ("data", "model_all_16", "mixed_all_16", "simulator_first_16")
UPDATES, TURNS, BATCHES = 500, 5, 8
TASKS = tuple(task for task in (*CHOOSE, *JUDGE) if task != "hopper")  # which has 25 updates
GROWTH = 1.0  # linear: of a sum of h terms of one size


def batches(parts: Any, task: Task, policy: nn.Module, seed: int) -> Tensor | None:
    """Mean gradients of some batches, [batches, P]; None of a loss, which passes no dynamics."""
    if callable(parts):
        return None
    drawn = []
    for k in range(BATCHES):
        own = child(seed, f"ageing {k}")
        starts = task.starts(BATCH, stream(own, "ageing starts")).double()
        drawn.append(
            torch.stack([w * mean_gradient(part, policy, starts, own) for w, part in parts]).sum(0)
        )
    return torch.stack(drawn)


def product(one: Tensor, other: Tensor) -> float:
    """⟨mean of one, mean of the other⟩ by pairs of batches that differ."""
    return float((one.sum(0) @ other.sum(0) - (one * other).sum()) / (BATCHES * (BATCHES - 1)))


def growth(parts: Any, task: Task, policy: nn.Module, seed: int) -> float:
    """p of |g_h| ∝ hᵖ between half the horizon and the whole; 0 without steps of a system."""
    horizon = 0 if callable(parts) else max(part.tail.horizon for _, part in parts)
    if horizon < 2:
        return 0.0
    half = [
        (w, replace(part, tail=replace(part.tail, horizon=part.tail.horizon // 2)))
        for w, part in parts
        if part.tail.horizon > 1
    ]
    long = [(w, part) for w, part in parts if part.tail.horizon > 1]
    drawn = [batches(each, task, policy, seed) for each in (half, long)]
    sizes = [float(each.square().sum(1).mean().sqrt()) for each in drawn if each is not None]
    if not np.isfinite(sizes).all():
        return float("inf")
    return float(np.log(sizes[1] / sizes[0]) / np.log(horizon / (horizon // 2)))


def cosine(before: Tensor, after: Tensor) -> float:
    """Of mean gradients, 0 … 1; 0 where one of them is not shown to have a direction."""
    squares = [product(each, each) for each in (before, after)]
    if not all(np.isfinite(square) and square > 0 for square in squares):
        return 0.0
    return min(max(product(before, after) / float(np.sqrt(np.prod(squares))), 0.0), 1.0)


def group(task_name: str, stage: str, seed: int) -> Row:
    """Growth, staleness and the longer updates of every estimator of one group."""
    begun = time.monotonic()
    file = sources(BOARD)[task_name].file
    update = load_object(f"{file}:UPDATE")
    task, policy, critic = load_object(f"{file}:make")(stage, seed)
    policy, critic = double_copy("policy", policy), double_copy("critic", as_critic(critic))
    made = {each.stem: load_object(f"{each}:make")(task, critic)
            for each in sorted((BOARD / "estimators").glob("*.py"))}  # fmt: skip
    common: dict[str, Any] = {
        "update": update, "starts": STARTS, "batch": BATCH, "termination": "ignore", "drop": False,
    }  # fmt: skip
    cells = []
    for name, candidate in made.items():
        if isinstance(candidate, str):
            continue
        torch.manual_seed(child(seed, f"board {name}") >> 1)
        parts = ((1.0, candidate),) if isinstance(candidate, Estimator) else candidate
        here = batches(parts, task, policy, seed)
        cell: Row = {"estimator": name, "growth": growth(parts, task, policy, seed)}
        if here is not None:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "race.h5"
                race = dict(common, starts=4, length=1, refit_critic=False)
                draws = child(seed, "board, rehearsed")
                gradlab.race(task, policy, critic, {name: candidate}, TURNS, seed=draws,
                             output=path, **race)  # fmt: skip
                state = torch.load(state_file(path), weights_only=True)["branches"][0]
            turned = double_copy("policy", policy)
            turned.load_state_dict(state["policy"])
            after = batches(parts, task, turned, seed)
            assert after is not None
            cell["cosine"] = cosine(here, after)
        if name in LONGER:
            cell["followed"] = outcomes(gradlab.race(
                task, policy, critic, {name: candidate}, UPDATES, refit_critic=True,
                seed=child(seed, "board"), **common,
            ))  # fmt: skip
        cells.append(cell)
    return {
        "task": task_name, "stage": stage, "seed": seed,
        "seconds": round(time.monotonic() - begun), "cells": cells,
    }  # fmt: skip


def by_growth(ages: Mapping[str, Row]) -> Predictor:
    """The largest gain above 0 among estimators whose gradient grows no faster than linearly."""

    def predicted(cells: Cells) -> str | None:
        slow = {name: cell for name, cell in cells.items() if ages[name]["growth"] <= GROWTH}
        return PREDICTORS["gain"](slow)

    return predicted


def by_staleness(ages: Mapping[str, Row], updates: int) -> Predictor:
    """The largest gain above 0, each for as long as its direction lasts."""

    def worth(name: str, cell: Cell) -> float:
        rho = ages[name].get("cosine", 0.0) ** (1 / TURNS)
        lasts = updates if rho == 1 else (1 - rho**updates) / (1 - rho)
        return cell.after(1).value * lasts

    def predicted(cells: Cells) -> str | None:
        there = {name: worth(name, cell) for name, cell in cells.items()}
        there = {name: value for name, value in there.items() if value > 0}
        return max(there, key=lambda name: there[name]) if there else None

    return predicted


def with_longer(cells: Cells, ages: Mapping[str, Row]) -> dict[str, Cell]:
    """The cells of the estimators that were followed longer, with these outcomes."""
    return {
        name: replace(cells[name], followed=tuple(
            ReturnChange(int(k), *map(float, ends)) for k, *ends in ages[name]["followed"]))
        for name in LONGER if name in cells and "followed" in ages[name]
    }  # fmt: skip


def table(
    found: Mapping[Group, Cells], rows: Sequence[Row], fixed_by: Mapping[int, str]
) -> pd.DataFrame:
    """Mean regret of each predictor, and less gain's, on the groups of the rows."""
    ages = {
        Group(row["task"], row["stage"], row["seed"]): {c["estimator"]: c for c in row["cells"]}
        for row in rows
    }
    here = {group: own for group, own in ages.items() if group in found}
    clusters = [(group.task, group.seed) for group in here]
    made = []
    for updates in (25, 100, UPDATES):
        left: dict[str, list[float]] = {}
        for group, own in here.items():
            cells: Cells = found[group]
            if updates == UPDATES:
                cells = with_longer(cells, own)
            own = {name: own.get(name, {"growth": 0.0}) for name in cells}
            ways: dict[str, Predictor | None] = {
                "gain": PREDICTORS["gain"], "growth": by_growth(own),
                "staleness": by_staleness(own, updates),
                **{f"rehearsed {k}": PREDICTORS[f"rehearsed {k}"] for k in (25, 100)
                   if k <= updates},
                "fixed": fixed(fixed_by[updates]), "chance": None,
            }  # fmt: skip
            for name, way in ways.items():
                left.setdefault(name, []).append(regret(cells, updates, way))
        for name, values in left.items():
            own_values = np.array(values)
            mean, low, high = interval(own_values, clusters)
            less = interval(own_values - np.array(left["gain"]), clusters)
            made.append({
                "updates": updates, "predictor": name, "regret": mean, "low": low, "high": high,
                "less gain": less[0], "less low": less[1], "less high": less[2],
                "groups": int(np.isfinite(own_values).sum()),
            })  # fmt: skip
    return pd.DataFrame(made)


def measure(most: int | None = None, seeds: tuple[int, ...] = SEEDS, output: Path = OUTPUT) -> None:
    """Make the groups that are missing, at most so many; then the tables."""
    stages = {name: task.stages for name, task in sources(BOARD).items()}
    every = [(task, stage, seed) for seed in seeds for task in TASKS for stage in stages[task]]

    def said(row: Row) -> str:
        return ", ".join(f"{cell['estimator']} {cell['growth']:.1f} {cell.get('cosine', 0):.2f}"
                         for cell in row["cells"] if cell["estimator"] in LONGER)  # fmt: skip

    rows = grown(output / "ageing.jsonl", every, ("task", "stage", "seed"), group, said, most)
    board = load(BOARD)
    chosen = groups(board, CHOOSE)
    best = {updates: best_fixed(chosen.values(), updates) for updates in (25, 100)}
    best[UPDATES] = best[100]
    lines = ["| tasks | updates | predictor | regret [95%] | less gain's [95%] | groups |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for name, tasks in (("to choose on", CHOOSE), ("to judge on", JUDGE)):
        for row in table(groups(board, tasks), rows, best).to_dict("records"):
            ends = [f"{row['regret']:.2f} (one task)", f"{row['less gain']:+.2f} (one task)"]
            if np.isfinite(row["low"]):
                ends = [
                    f"{row['regret']:.2f} [{row['low']:.2f}, {row['high']:.2f}]",
                    f"{row['less gain']:+.2f} [{row['less low']:+.2f}, {row['less high']:+.2f}]",
                ]
            cells = (name, row["updates"], row["predictor"], *ends, row["groups"])
            lines.append(f"| {' | '.join(map(str, cells))} |")
    put(output / "paper.md", "ageing", "\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    commands(measure=measure)
