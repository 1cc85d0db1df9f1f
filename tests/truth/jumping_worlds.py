"""Worlds whose returns are smooth, bend, or jump, with policies that are good but not best."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gradlab import systems
from gradlab.gradients.setting import Setting
from gradlab.gradients.starts import as_starts
from gradlab.networks.policies import Gaussian
from gradlab.systems.system import System

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
        d = (place - torch.tensor([-1.2, 0.25]).to(s)).square().sum(dim=1).sqrt()
        inside = {
            "jump": (d < 0.5).to(s),
            "kink": (0.5 - d).clamp(min=0) * 4,
            "soft": torch.sigmoid((0.5 - d) / 0.1),
        }[edge]
        reward = -0.1 * place.square().sum(dim=1) - 0.01 * a.square().sum(dim=1) - cost * inside
        return torch.cat([place, speed], dim=1), reward

    return systems.from_function(step, 4, 2)


def pd_policy(hidden: int = 0) -> nn.Module:
    """a = −K s, as one layer without a bias, or with a tanh layer before it that adds nothing."""
    layer = nn.Linear(4, 2, bias=True).double()
    layer.weight.data = torch.tensor(
        [[-2.0, 0.0, -1.5, 0.0], [0.0, -2.0, 0.0, -1.5]], dtype=torch.float64
    )
    layer.bias.data.zero_()
    return layer


def plane_starts(n: int, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    place = torch.randn(n, 2, generator=g, dtype=torch.float64) * 0.3 + torch.tensor([-2.5, 0.0])
    return as_starts(torch.cat([place, torch.zeros(n, 2, dtype=torch.float64)], dim=1), 4)


def collision(cost: float = 5.0, edge: str = "jump", n: int = 128, seed: int = 0, std=0.3) -> Setting:
    policy = pd_policy()
    return Setting(
        point_mass(cost, edge), Gaussian(policy, std) if std else policy, plane_starts(n, seed),
        GAMMA, T, seed=seed,
    )  # fmt: skip
