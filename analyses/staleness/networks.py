"""Consecutive networks of MPG before each of three stages, and states replayed there, in files.

Every seed at every stage has a place: the policy and the critic of each lag before it, states, and,
once it is judged, what was measured there.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from analyses.mpg_table_1.runs import task_of
from gradlab.data.noise import stream
from gradlab.networks import checkpoint
from gradlab.training.algorithms import ALGORITHMS
from gradlab.training.loop import scheduled, settings_of
from gradlab.training.run import collect, next_batch
from gradlab.training.state import Run, begin

ROW = ALGORITHMS["mpg-v2"]
STAGES = (0.05, 0.25, 1.0)
LAGS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
KINDS = ("policy", "critic")
Networks = tuple[nn.Module, nn.Module]


@dataclass(frozen=True)
class Scale:
    """How much is done."""

    iterations: int = 10_000
    seeds: int = 5
    starts: int = 4096
    lags: tuple[int, ...] = LAGS

    @property
    def stages(self) -> tuple[int, ...]:
        return tuple(round(share * self.iterations) for share in STAGES)


SMALL = Scale(iterations=40, seeds=1, starts=16, lags=(0, 1))


@dataclass(frozen=True)
class Place:
    """A seed at a stage."""

    folder: Path
    task: str
    iteration: int
    seed: int

    @property
    def stage(self) -> Path:
        return self.folder / self.task / f"{self.iteration:06d}"

    def file(self, ending: str) -> Path:
        return self.stage / f"seed{self.seed}-{ending}"

    @property
    def recorded(self) -> bool:
        """States are written after the networks of their seed."""
        return self.file("states.npy").exists()

    def states(self) -> Tensor:
        return torch.from_numpy(np.load(self.file("states.npy")))

    def networks(self, lag: int) -> Networks:
        """Policy and critic as they were `lag` steps of the policy before."""
        policy, critic = (
            checkpoint.load(self.file(f"lag{lag}-{kind}.safetensors")).double() for kind in KINDS
        )
        return policy, critic


def record(task_name: str, scale: Scale, folder: Path, first_seed: int, stages: int) -> None:
    """Fills the places of `scale.seeds` seeds, which are trained together; nothing is done where
    they are all filled.

    Args:
        stages: so many, from the earliest on.
    """
    until = scale.stages[stages - 1]
    last = Place(folder, task_name, until, first_seed + scale.seeds - 1)
    if last.recorded:
        return
    task = task_of(task_name)
    chosen = {"seeds": scale.seeds, "first_seed": first_seed, "iterations": scale.iterations}
    settings = settings_of(ROW, task, None, chosen)
    row = replace(ROW, weights=scheduled(ROW.weights, settings))
    run = begin(row, task, settings)
    past = deque([run.learner.copies()], maxlen=max(scale.lags) + 1)
    while run.iteration < until:
        collect(run)
        run.learner.update(run.iteration, next_batch(run))
        if run.iteration % row.delay == 0:  # the policy has made a step
            past.appendleft(run.learner.copies())
        run.iteration += 1
        if run.iteration in scale.stages:
            _keep(run, past, scale, replace(last, iteration=run.iteration))
            print(f"{task_name}: {run.iteration} iterations recorded", flush=True)


def recorded(folder: Path, task_name: str, iteration: int) -> list[Place]:
    """What is filled of a stage, by seeds."""
    names = Place(folder, task_name, iteration, 0).stage.glob("seed*-states.npy")
    seeds = sorted(int(name.stem.removeprefix("seed").removesuffix("-states")) for name in names)
    return [Place(folder, task_name, iteration, seed) for seed in seeds]


def _keep(run: Run, past: deque, scale: Scale, place: Place) -> None:  # type: ignore[type-arg]
    """Files of each seed: policy and critic of every lag, and states."""
    uniform = torch.rand(scale.starts, generator=stream(0, "stale states"), dtype=torch.float64)
    states = run.replay.sample(uniform.expand(scale.seeds, -1)).state
    for row in range(scale.seeds):
        its = replace(place, seed=run.settings.first_seed + row)
        its.stage.mkdir(parents=True, exist_ok=True)
        for lag in scale.lags:
            policy, critic = past[lag]
            networks = run.learner.policy_of(row, policy), run.learner.critic_of(row, critic)
            for kind, network in zip(KINDS, networks, strict=True):
                assert network is not None
                checkpoint.save(network, its.file(f"lag{lag}-{kind}.safetensors"))
        np.save(its.file("states.npy"), states[row].double().numpy())
