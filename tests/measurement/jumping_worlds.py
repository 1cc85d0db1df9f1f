"""Worlds whose returns are smooth, bend, or jump, with policies that are good but not best."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gradlab import systems
from gradlab.gradients.setting import Setting, as_starts
from gradlab.networks.policies import Gaussian
from gradlab.systems.system import System
from gradlab.tasks import Task

GAMMA, T = 0.98, 40


def point_mass(cost: float = 5.0, edge: str = "jump") -> System:
    """A mass in the plane that is drawn to the origin, past a disc of radius .5 beside its way.

    Args:
        cost: of a step inside the disc; edge: "jump", "kink" or "soft", of the same width.
    """

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        place, speed = s[:, :2], s[:, 2:]
        speed = 0.9 * speed + 0.1 * a
        place = place + 0.1 * speed
        d = (place - torch.tensor([-1.2, 0.2]).to(s)).square().sum(dim=1).sqrt()
        inside = {
            "jump": (d < 0.5).to(s),
            "kink": (0.5 - d).clamp(min=0) * 4,
            "soft": torch.sigmoid((0.5 - d) / 0.1),
        }[edge]
        reward = -0.1 * place.square().sum(dim=1) - 0.01 * a.square().sum(dim=1) - cost * inside
        return torch.cat([place, speed], dim=1), reward

    return systems.from_function(step, 4, 2)


def pd_policy(past: float = 0.6) -> nn.Linear:
    """a = −K s, drawn to the origin along x, and by `past` along y: weakly, past the disc."""
    layer = nn.Linear(4, 2, bias=True).double()
    layer.weight.data = torch.tensor(
        [[-2.0, 0.0, -1.5, 0.0], [0.0, -past, 0.0, -0.8]], dtype=torch.float64
    )
    layer.bias.data.zero_()
    return layer


def plane_states(n: int, generator: torch.Generator) -> Tensor:
    """At rest left of the disc, somewhat above its middle."""
    place = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    place = place * torch.tensor([0.3, 0.2]) + torch.tensor([-2.5, 1.0])
    return torch.cat([place, torch.zeros(n, 2, dtype=torch.float64)], dim=1)


def collision(
    cost: float = 5.0, edge: str = "jump", n: int = 128, seed: int = 0, std: float = 0.3
) -> Setting:
    """A pull to the origin whose slope along y leads into the disc."""
    policy = pd_policy()
    starts = as_starts(plane_states(n, torch.Generator().manual_seed(seed)), 4)
    return Setting(
        point_mass(cost, edge), Gaussian(policy, std) if std else policy, starts, GAMMA, T,
        seed=seed,
    )  # fmt: skip


def falling_pole(n: int = 128, seed: int = 0) -> Setting:
    """A pole that a weak policy lets fall, which ends its episode: every step before pays 1."""

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        speed = s[:, 1:] + 0.05 * (9.0 * torch.sin(s[:, :1]) + a)
        return torch.cat([s[:, :1] + 0.05 * speed, speed], dim=1), 1 - 0.01 * a.square().sum(dim=1)

    policy = nn.Linear(2, 1).double()
    policy.weight.data = torch.tensor([[-7.5, -1.5]], dtype=torch.float64)
    policy.bias.data.zero_()
    world = systems.from_function(step, 2, 1, alive=lambda s: s[:, 0].abs() < 0.4)
    g = torch.Generator().manual_seed(seed)
    starts = as_starts(0.3 * torch.rand(n, 2, generator=g, dtype=torch.float64) - 0.15, 2)
    return Setting(world, policy, starts, GAMMA, T, termination="mask", seed=seed)


def task(cost: float = 5.0, edge: str = "jump") -> Task:
    return Task("plane", point_mass(cost, edge), None, plane_states, GAMMA, 2)


def soft_critic(state: Tensor, action: Tensor) -> Tensor:
    """Q of the world with a soft edge under the mean policy: no jump, the same disc."""
    world, policy, total = point_mass(5.0, "soft"), pd_policy().requires_grad_(False), 0.0
    for t in range(25):
        out = world.step(state, action)
        total, state = total + GAMMA**t * out.reward, out.state
        action = policy(state)
    return total


def barrier(rooms: Tensor) -> Setting:
    """A place that a constant push brings up to a wall in 10 steps, `rooms` [N] short of it: every
    step pays log(wall − place), a number before the wall alone."""

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        place = s + 0.1 * a
        return place, (1.0 - place[:, 0]).log()

    policy = nn.Linear(1, 1).double()
    policy.weight.data.zero_()
    policy.bias.data.fill_(0.5)
    states = (0.5 - rooms)[:, None].double()
    return Setting(systems.from_function(step, 1, 1), policy, as_starts(states, 1), GAMMA, 10)
