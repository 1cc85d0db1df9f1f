"""Torch steps and their tasks: a pendulum whose parts a test can exchange, and a network.

The pendulum is `gradlab.systems.Pendulum`, with one function for each of its nonlinearities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gradlab import tasks
from gradlab.systems import VehicleModel, from_function
from gradlab.systems.closed_form import SPEED_LIMIT, TIMESTEP, TORQUE_LIMIT, wrap
from gradlab.tasks import Task

Elementwise = Callable[[Tensor], Tensor]
Step = Callable[..., tuple[Tensor, Tensor]]


def clip_torque(torque: Tensor) -> Tensor:
    return torque.clamp(-TORQUE_LIMIT, TORQUE_LIMIT)


def clip_speed(speed: Tensor) -> Tensor:
    return speed.clamp(-SPEED_LIMIT, SPEED_LIMIT)


def semi_implicit(theta: Tensor, before: Tensor, after: Tensor) -> Tensor:
    return theta + TIMESTEP * after


@dataclass(frozen=True)
class PendulumParts:
    """`advance` sees θ, the speed before and the speed after."""

    gravity: Elementwise = torch.sin
    clip_torque: Elementwise = clip_torque
    clip_speed: Elementwise = clip_speed
    wrap: Elementwise = wrap
    rewarded_speed: Elementwise = torch.clone
    advance: Callable[[Tensor, Tensor, Tensor], Tensor] = semi_implicit

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        theta, spin = state.unbind(1)
        torque = self.clip_torque(action[:, 0])
        faster = self.clip_speed(spin + TIMESTEP * (15 * self.gravity(theta) + 3 * torque))
        cost = (
            self.wrap(theta) ** 2 + 0.1 * self.rewarded_speed(spin) ** 2 + 0.001 * torque.square()
        )
        return torch.stack([self.advance(theta, spin, faster), faster], 1), -cost


def pendulum_task(**parts: Callable[..., Tensor]) -> Task:
    step = PendulumParts(**parts).step
    return replace(tasks.pendulum(), simulator=from_function(step, 2, 1))


def car_task() -> Task:
    """Path tracking on the prior model: one cheap step of six states and two actions."""
    task = tasks.path_tracking()
    return replace(task, simulator=VehicleModel(), prior=None)


def normal_starts(width: int) -> Callable[[int, torch.Generator], Tensor]:
    def starts(n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, width, generator=generator, dtype=torch.float64)

    return starts


def function_task(step: Step, ds: int, da: int, noise_dim: int = 0) -> Task:
    """A torch step with standard normal starts."""
    system = from_function(step, ds, da, noise_dim)
    return Task("function", system, None, normal_starts(ds), 0.98, 20)


def network(ds: int, da: int, width: int = 16, activation: type[nn.Module] = nn.Tanh) -> nn.Module:
    """s, a → Δs with seeded weights; the caller's random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(width + ds)
        layers = nn.Linear(ds + da, width), activation(), nn.Linear(width, ds)
    return nn.Sequential(*layers).double().requires_grad_(False)


def network_step(net: nn.Module) -> Step:
    """s' = s + 0.3 net(s, a), r = −|s|² − 0.1 |a|²."""

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        change = net.to(s.dtype)(torch.cat([s, a], 1))
        return s + 0.3 * change, -s.square().sum(1) - 0.1 * a.square().sum(1)

    return step
