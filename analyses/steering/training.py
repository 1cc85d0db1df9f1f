"""Steering of MPG-v2 beside fixed horizons, on tasks with a prior and with learned models.

    python -m analyses.steering tasks      one line of tasks.jsonl for every arm and seed

With the prior, path tracking and the analytic inverted pendulum (2×64 networks, gradients clipped
at 3 on the pendulum), with seeds of its own. With a model learned from replay by squared error (of
which `analyses.model_based` has the sizes): the cart-pole swing-up, Gymnasium's pendulum and
Hopper-v5, which have no prior. Seconds are those of the processor: the machine is not idle.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from analyses.mpg_table_1.runs import task_of
from gradlab import tasks
from gradlab.runs.training.results import load
from gradlab.storage.journal import read
from gradlab.tasks import Task
from gradlab.training.algorithms import Algorithm, Term, find
from gradlab.training.loop import train
from gradlab.training.measured.steering import HORIZONS, LEFT, LENGTHS, STARTS
from gradlab.training.models.model_choice import LOSSES, LearnedModel
from gradlab.training.parts.context import FixedWeights
from gradlab.truth.oracles import effective_horizon

FIXED = ("h0", "h5", "h25")
STEERED = ("accept", "rehearse")
ARMS = ("rule", *FIXED, *STEERED)
JUDGED = {"rehearse": 1 + len(HORIZONS) * len(LENGTHS), "accept": 2}  # policies of a decision
CLIP: Mapping[str, float | None] = {"path_tracking": None, "inverted_pendulum": 3.0}
MODEL = LearnedModel(loss=LOSSES["mse"], every=500, first_steps=1000, steps=250, batch=128)


@dataclass(frozen=True)
class World:
    """A task, the row of MPG-v2 with an arm's horizons, and how long it is trained."""

    task: Callable[[], Task]
    row: Callable[[str], Algorithm]
    seeds: int
    first: int
    iterations: int
    every: int  # iterations between two evaluations
    settings: Mapping[str, Any] = field(default_factory=dict)


def row_of(arm: str, task: str) -> Algorithm:
    """MPG-v2 with one horizon, or its own two under the rule."""
    horizons = (int(arm[1:]),) if arm in FIXED else (0, 25)
    row = replace(find("mpg-v2"), name=arm, clip=CLIP[task], hidden=(64, 64))
    row = replace(row, terms=tuple(map(Term, horizons)))
    return replace(row, weights=FixedWeights((1.0,))) if arm in FIXED else row


def learned(arm: str) -> Algorithm:
    """Through a model that is fitted again after 500 transitions; small and fast."""
    return replace(
        row_of(arm, "inverted_pendulum"), model=None if arm == "h0" else MODEL, updates=1,
        batch=128, policy_rate=(1e-3, 1e-3), value_rate=(1e-3, 1e-3),
    )  # fmt: skip


def with_prior(name: str) -> World:
    return World(partial(task_of, name), partial(row_of, task=name), 4, 100, 1500, 100)


def with_model(task: Callable[[], Task], iterations: int, episode: int, scale: float) -> World:
    settings = {"warmup": 500, "episode": episode, "reward_scale": scale, "ramp": iterations,
                "evaluation_starts": 20, "gradient_every": 0, "keep": ()}  # fmt: skip
    return World(task, learned, 6, 200, iterations, iterations // 10, settings)


WORLDS = {
    "path_tracking": with_prior("path_tracking"),
    "inverted_pendulum": with_prior("inverted_pendulum"),
    "cart_pole_swing_up": with_model(tasks.cart_pole_swing_up, 2000, 50, 1.0),
    "pendulum": with_model(
        partial(tasks.pendulum, coordinates="circle", discount=0.95), 2000, 200, 0.1
    ),
    "Hopper-v5": with_model(partial(tasks.mujoco, "Hopper-v5"), 800, 1000, 1.0),
}
LEARNED = ("cart_pole_swing_up", "pendulum", "Hopper-v5")


def run_arm(name: str, arm: str, folder: Path) -> list[dict[str, Any]]:
    """Train one arm on one task; a row of each seed."""
    world, path = WORLDS[name], folder / f"{name}-{arm}.h5"
    task, spent = world.task(), {0: 0.0}
    begun = time.process_time()

    def note_time(stage: str, done: int, asked: int) -> None:
        spent[done] = time.process_time() - begun

    train(
        world.row(arm), task, path, overwrite=True,
        steer=arm if arm in STEERED else None,  # type: ignore[arg-type]
        seeds=world.seeds, first_seed=world.first, iterations=world.iterations,
        evaluate_every=world.every, progress=note_time, **world.settings,
    )  # fmt: skip
    run, groups = load(path), read(path).groups
    transitions = np.asarray(groups["evaluations"]["transitions"].values)
    held, judged = np.zeros((0, world.seeds)), np.zeros(len(run.iteration))
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
