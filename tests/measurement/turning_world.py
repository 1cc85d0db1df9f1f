"""A linear-quadratic task that turns its states, with a prior that pushes 40° aside."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.tasks import Task, linear_quadratic
from gradlab.truth.lqr import ExactCritic

GAMMA, WEIGHT, CRITIC, ANGLE = 0.9, -0.1, -0.35, 0.7


def turning() -> Task:
    two = torch.eye(2, dtype=torch.float64)
    return linear_quadratic(
        A=0.9 * _turned(0.3), B=0.5 * two, Q=two, R=0.1 * two, noise_covariance=0.1 * two,
        start_mean=torch.tensor([0.6, -0.3], dtype=torch.float64), start_covariance=0.5 * two,
        discount=GAMMA, prior=(0.8 * _turned(0.2), 0.5 * _turned(ANGLE)),
    )  # fmt: skip


def networks(task: Task) -> tuple[nn.Linear, ExactCritic]:
    """A linear policy, and the exact critic of another one."""
    policy, two = nn.Linear(2, 2, bias=False).double(), torch.eye(2, dtype=torch.float64)
    policy.weight.data = WEIGHT * two
    return policy, ExactCritic(task.simulator, CRITIC * two, GAMMA)


def _turned(angle: float) -> Tensor:
    cos, sin = np.cos(angle), np.sin(angle)
    return torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
