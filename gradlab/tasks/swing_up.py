"""Gymnasium's Pendulum-v1: a swing-up, optionally with a prior model of another rod."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gradlab.systems.pendulum import SPEED_LIMIT, TORQUE_LIMIT, Pendulum
from gradlab.tasks.mpg import DISCOUNT, EXPLORATION, HORIZON
from gradlab.tasks.task import Task


def pendulum(
    prior_mass: float | None = None,
    prior_length: float | None = None,
    discount: float = DISCOUNT,
) -> Task:
    """Gymnasium's Pendulum-v1 in its inner state (θ not wrapped, θ̇), without time limit.

    Args:
        prior_mass, prior_length: of the prior model's rod, kg and m (true: 1 and 1). Without
            either the task has no prior; with one, the other is the true one.
        discount: γ in (0, 1).
    """
    wrong = prior_mass is not None or prior_length is not None
    prior = Pendulum(
        mass=1.0 if prior_mass is None else prior_mass,
        length=1.0 if prior_length is None else prior_length,
    )
    return Task(
        name="pendulum",
        simulator=Pendulum(),
        prior=prior if wrong else None,
        starts=_hanging_anywhere,
        discount=discount,
        horizon=HORIZON,
        state_names=("θ [rad]", "θ̇ [rad/s]"),
        action_names=("torque [N m]",),
        observation_scale=(1 / math.pi, 1 / SPEED_LIMIT),
        exploration=(EXPLORATION * TORQUE_LIMIT,),
        action_limit=(TORQUE_LIMIT,),
        parameters={
            "prior_mass": prior_mass,
            "prior_length": prior_length,
            "discount": discount,
        },
    )


def _hanging_anywhere(n: int, generator: torch.Generator) -> Tensor:
    """θ ~ U(−π, π), θ̇ ~ U(−1, 1)."""
    unit = 2 * torch.rand(n, 2, generator=generator, dtype=torch.float64) - 1
    return unit * torch.tensor([math.pi, 1.0], dtype=torch.float64)
