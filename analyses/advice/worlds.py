"""Twelve worlds, three stages of a training in each, three seeds: where advice is followed.

    linear        two linear-quadratic worlds, a new one for each seed: A contracts or grows
    smooth        path tracking, pendulum, inverted pendulum (analytic), planar quadrotor
    learned       cart-pole swing-up, with a model fitted to 4,000 rows of the policy and at random
    jumps         the quadrotor with a pillar, a bouncing ball
    contact       Hopper, HalfCheetah, Walker2d: SAC's policies and critics, no model

Policies of all but the last are networks of 2 × 32 units (linear feedback in linear worlds), so
many updates of backpropagation through the simulator old; critics are fitted to them, models are
the tasks' own wrong ones. A recipe and a seed make each of them again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

import gradlab
from analyses.advice.stages import sac_stage, train_stages
from analyses.harness.running import example
from gradlab.data import trajectories
from gradlab.data.trajectories import child, stream
from gradlab.fitting import ModelSettings, collect, fit_critic, fit_model
from gradlab.fitting.collection import exploring
from gradlab.networks import checkpoint
from gradlab.networks.interface import double_copy
from gradlab.networks.mlp import Policy
from gradlab.tasks import Task, with_learned_prior

STAGES = ("early", "middle", "late")
SEEDS = (22, 23, 24)  # of 0 to 20 some cells were looked at before
LONG: dict[str, Any] = {"steps": 600}  # these fall late: criterion.md
UPDATES = (6_250, 12_500, 25_000)  # of SAC, at the three stages
CONTACT = ("Hopper-v5", "HalfCheetah-v5", "Walker2d-v5")
MEMBERS = ModelSettings(members=3, hidden=(64, 64), epochs=60)
Termination = Literal["ignore", "mask"]


@dataclass(frozen=True)
class World:
    """One task in three stages.

    Attributes:
        kind: one of the five above; make: a task from a seed.
        stages: updates of the policy's training; rate: of its Adam.
        hidden: of the policy.
        starts: N of the measurement.
        judges, most: starts of paired returns, at first and at most; steps: of each return.
        batch: samples of one update; samples: behind the directions that hindsight compares.
        rivals: horizons that are followed as long as the recommended one.
        seeds: of the three trainings; none whose cells were looked at before.
    """

    kind: str
    make: Callable[[int], Task]
    stages: tuple[int, ...]
    rate: float = 3e-3
    hidden: tuple[int, ...] = (32, 32)
    starts: int = 128
    judges: int = 512
    most: int = 8192
    steps: int = 200
    batch: int = 256
    samples: int = 1024
    rivals: tuple[int, ...] = (0, 1, 8, 25)
    termination: Termination = "ignore"
    seeds: tuple[int, int, int] = SEEDS


@dataclass(frozen=True)
class Cell:
    """A world at one stage with one seed: what a user would measure."""

    world: World
    name: str
    stage: str
    seed: int
    task: Task
    policy: nn.Module
    critic: nn.Module


def linear_quadratic(low: float, high: float, seed: int) -> Task:
    """A of spectral radius low … high, nearly normal, and a model that is wrong by a tenth."""
    draw = partial(torch.randn, generator=stream(seed, "advice world"), dtype=torch.float64)
    A = torch.linalg.qr(draw(3, 3)).Q * torch.tensor([1.0, 0.8, 0.6], dtype=torch.float64)
    B = draw(3, 2)
    radius = low + (high - low) * torch.rand((), generator=stream(seed, "advice radius")).item()
    A *= radius / torch.linalg.eigvals(A).abs().max()
    wrong = [x + 0.1 * x.norm() / x.numel() ** 0.5 * draw(*x.shape) for x in (A, B)]
    R = 0.3 * torch.eye(2, dtype=torch.float64)
    return gradlab.tasks.linear_quadratic(
        A.tolist(), B.tolist(), R=R.tolist(), prior=(wrong[0].tolist(), wrong[1].tolist())
    )


def quadrotor(collision: bool, seed: int) -> Task:
    """Of `examples/`, the same for every seed."""
    made: Task = example("quadrotor").make_task(collision)
    return made


def bouncing_ball(seed: int) -> Task:
    """A ball is to stay at x = 0, one metre up; its jets lift less than it weighs, so it bounces.

    The model believes that the floor gives back .9 of the speed, where it gives back .7.
    """

    def flight(restitution: float) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        def step(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
            push = 5.0 * action.clamp(-1, 1)
            speed = state[:, 2:] + 0.05 * (push - push.new_tensor([0.0, 9.81]))
            place = state[:, :2] + 0.05 * speed
            below = place[:, 1] < 0
            height = torch.where(below, -restitution * place[:, 1], place[:, 1])
            up = torch.where(below, -restitution * speed[:, 1], speed[:, 1])
            after = torch.stack([place[:, 0], height, speed[:, 0], up], 1)
            cost = state[:, 0].square() + (state[:, 1] - 1).square() + 0.05 * action.square().sum(1)
            return after, -cost - 0.02 * state[:, 2:].square().sum(1)

        return step

    def starts(n: int, generator: torch.Generator) -> Tensor:
        draw = torch.randn(n, 4, generator=generator, dtype=torch.float64)
        return draw.new_tensor([1.0, 1.0, 0.0, 0.0]) + 0.3 * draw

    systems = [gradlab.systems.from_function(flight(e), 4, 2) for e in (0.7, 0.9)]
    return Task("bouncing_ball", systems[0], systems[1], starts, discount=0.97, horizon=25)


def _contact(env_id: str, starts: int = 64) -> World:
    return World(
        "contact", lambda seed: gradlab.tasks.mujoco(env_id), UPDATES, starts=starts, judges=64,
        most=512, batch=64, samples=128, rivals=(0, 1, 4), termination="mask",
        seeds=(10, 11, 12),
    )  # fmt: skip


WORLDS: Mapping[str, World] = {
    "linear-stable": World("linear", partial(linear_quadratic, 0.7, 0.95), (5, 20, 80), 1e-2, ()),
    "linear-growing": World("linear", partial(linear_quadratic, 1.02, 1.1), (10, 30, 90), 1e-2, ()),
    "path-tracking": World(
        "smooth", lambda seed: gradlab.tasks.path_tracking(), (10, 30, 90), rivals=(1, 25)
    ),
    "pendulum": World("smooth", lambda seed: gradlab.tasks.pendulum(1.2, 0.9), (20, 60, 180)),
    "inverted-pendulum": World(
        "smooth",
        lambda seed: gradlab.tasks.inverted_pendulum(engine="analytic"),
        (30, 60, 120),
        **LONG,
    ),
    "quadrotor": World("smooth", partial(quadrotor, False), (30, 45, 120), **LONG),
    "cart-pole": World(
        "learned", lambda seed: gradlab.tasks.cart_pole_swing_up(), (80, 140, 220), steps=100
    ),
    "quadrotor-pillar": World("jumps", partial(quadrotor, True), (30, 45, 120), **LONG),
    "bouncing-ball": World("jumps", bouncing_ball, (5, 20, 60)),
    **{env_id: _contact(env_id) for env_id in CONTACT},
}


def make_cell(
    name: str, stage: str, seed: int, folder: Path, worlds: Mapping[str, World] = WORLDS
) -> Cell:
    """The networks of one cell, taken from the folder where an earlier cell trained them."""
    world = worlds[name]
    task, at = world.make(seed), STAGES.index(stage)
    if world.kind == "contact":
        updates = dict(zip(STAGES, world.stages, strict=True))
        return Cell(world, name, stage, seed, *sac_stage(name, updates, stage, seed, folder))
    files = [folder / f"{name}-{each}-{seed}.safetensors" for each in STAGES]
    policy = policy_at(at, files, world, task, seed)
    if world.kind == "learned":
        task = with_model(task, policy, seed)
    critic = fit_critic(task, policy, seed=child(seed, "advice critic"))
    return Cell(world, name, stage, seed, task, policy, critic)


def policy_at(stage: int, files: list[Path], world: World, task: Task, seed: int) -> nn.Module:
    """The policy of one stage, of a training that is made where a file is missing."""
    if not all(file.exists() for file in files):
        for file, trained in zip(files, train_policy(world, task, seed), strict=True):
            checkpoint.save(trained, file)
    return double_copy("policy", checkpoint.load(files[stage]))


def train_policy(world: World, task: Task, seed: int) -> list[Policy]:
    """Copies at the three stages of Adam along the simulator's own gradient, 40 steps long."""
    updates = dict(zip(STAGES, world.stages, strict=True))
    kept = train_stages(task, updates, seed, world.rate, world.hidden, name="advice")
    return [kept[stage] for stage in STAGES]


def with_model(task: Task, policy: nn.Module, seed: int) -> Task:
    """The task with a model that was fitted to rows of the exploring policy and at random."""
    rows = [
        collect(task, 2000, by, length=50, seed=child(seed, f"advice rows {k}"))
        for k, by in enumerate((exploring(task, policy, [0.3] * task.simulator.action_dim), None))
    ]
    fitted = fit_model(trajectories.joined(rows), replace(MEMBERS, seed=child(seed, "model") >> 1))
    return with_learned_prior(task, fitted.ensemble)
