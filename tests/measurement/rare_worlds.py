"""Worlds where few starts carry the variance.

far      a linear-quadratic task; 2% of its starts are six times farther
pole     a damped pole with saturated torque, of which 1 start in 150 falls
other    the former task from Gaussian, uniform, bimodal starts, or Student's t with 5 degrees
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gradlab.systems import from_function
from gradlab.tasks import Task
from tests.measurement.turning_world import networks, turning

H = 2
FAR, FARTHER = 0.02, 6.0
SLOW, DT, TORQUE, WIDE = 4.0, 0.1, 3.0, 0.285


@dataclass(frozen=True, eq=False)
class World:
    """A task with its networks."""

    task: Task
    policy: nn.Module
    critic: object


def far() -> World:
    task = turning()
    policy, critic = networks(task)
    centre, spread = torch.tensor([0.6, -0.3], dtype=torch.float64), 0.5**0.5

    def near(n: int, generator: torch.Generator) -> Tensor:
        return spread * torch.randn(n, 2, generator=generator, dtype=torch.float64)

    def starts(n: int, generator: torch.Generator) -> Tensor:
        x = near(n, generator)
        rare = torch.rand(n, 1, generator=generator, dtype=torch.float64) < FAR
        return centre + torch.where(rare, FARTHER * x, x)

    return World(replace(task, starts=starts), policy, critic)


def pole() -> World:
    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        torque = TORQUE * torch.tanh(a[..., 0] / TORQUE)
        speed = s[..., 1] * (1 - DT) + DT * (SLOW * torch.sin(s[..., 0]) + torque)
        reward = torch.cos(s[..., 0]) - 1 - 0.01 * torque**2
        return torch.stack([s[..., 0] + DT * speed, speed], dim=-1), reward

    def linear(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        speed = s[..., 1] + DT * (3.0 * s[..., 0] + a[..., 0])
        reward = -0.5 * s[..., 0] ** 2 - 0.01 * a[..., 0] ** 2
        return torch.stack([s[..., 0] + DT * s[..., 1], speed], dim=-1), reward

    def critic(s: Tensor, a: Tensor) -> Tensor:
        own = 3 * s[:, 0] ** 2 + s[:, 1] ** 2 + 0.3 * a[:, 0] ** 2
        return -own - 0.2 * s[:, 0] * a[:, 0]

    def starts(n: int, generator: torch.Generator) -> Tensor:
        return WIDE * torch.randn(n, 2, generator=generator, dtype=torch.float64)

    simulator = from_function(step, 2, 1, alive=lambda s: s[..., 0].abs() < 1.5)
    policy = nn.Linear(2, 1, bias=False).double()
    policy.weight.data = torch.tensor([[-8.0, -3.0]], dtype=torch.float64)
    task = Task("pole", simulator, from_function(linear, 2, 1), starts, 0.9, H)
    return World(task, policy, critic)


def other(law: str) -> World:
    world = far()

    def starts(n: int, generator: torch.Generator) -> Tensor:
        x = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        side = (torch.rand(n, 1, generator=generator, dtype=torch.float64) < 0.5).double() * 2 - 1
        chi2 = torch.randn(n, 5, generator=generator, dtype=torch.float64).square().sum(dim=1)
        laws = {
            "gaussian": 0.5**0.5 * x,
            "uniform": 1.5**0.5 * (2 * torch.special.ndtr(x) - 1),
            "bimodal": side * torch.tensor([0.9, 0.4], dtype=torch.float64) + 0.2 * x,
            "t5": 0.5**0.5 * x * (3 / chi2[:, None]) ** 0.5,
        }
        return torch.tensor([0.6, -0.3], dtype=torch.float64) + laws[law]

    return replace(world, task=replace(world.task, starts=starts))
