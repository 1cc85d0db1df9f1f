"""A linear task, its networks, and the findings of its checks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import gradlab
from gradlab.findings import Finding, failed
from gradlab.systems import System
from gradlab.tasks import Task

DISCOUNT = 0.9


class Linear(nn.Module):
    """a = W s."""

    def __init__(self, gain: float = -0.4, actions: int = 1) -> None:
        super().__init__()
        self.layer = nn.Linear(2, actions, bias=False)
        nn.init.constant_(self.layer.weight, gain)

    def forward(self, state: Tensor) -> Tensor:
        return self.layer(state)


class Quadratic(nn.Module):
    """Q(s, a) = −size (|s|² + |a|²)."""

    def __init__(self, size: float = 1.0) -> None:
        super().__init__()
        self.size = nn.Parameter(torch.tensor(size))

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        return -self.size * ((state**2).sum(1) + (action**2).sum(1))


def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    speed = torch.tanh(s[:, 1:] + 0.3 * a[:, :1])
    return torch.cat([s[:, :1] + 0.2 * speed, 0.9 * speed], 1), -(s**2).sum(1) - 0.1 * (a**2).sum(1)


def draws(n: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, 2, generator=generator, dtype=torch.float64)


def task(system: System, **more: object) -> Task:
    return Task("planted", system, None, draws, DISCOUNT, 6, **more)


def results(
    system: System,
    policy: nn.Module | None = None,
    critic: nn.Module | None = None,
    horizon: int = 6,
    termination: str = "ignore",
    **more: object,
) -> tuple[Finding, ...]:
    policy = Linear(actions=system.action_dim) if policy is None else policy
    critic = Quadratic() if critic is None else critic
    made = task(system, **more)
    found = gradlab.measure(
        made, policy, critic, horizon=horizon, starts=64, termination=termination, judges=4,
        rehearse=False,
    )  # fmt: skip
    assert found.sanity is not None
    return found.sanity


def only(found: tuple[Finding, ...] | None, code: str) -> Finding:
    """The one failure of this code, twins with θ in every action apart."""
    (one,) = (e for e in failed(found, code) if "_all" not in f"{e.subject} {e.at}")
    return one
