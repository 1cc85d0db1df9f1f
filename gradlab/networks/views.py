"""First layers of a policy, as views of the state. Fixed, without parameters, differentiable."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn


@final
class ClippedVelocities(nn.Module):
    """Columns from `first` on clipped to ±limit, as Gymnasium's Hopper and Walker2d show them.

    The clip belongs to the policy: beyond it K = ∂π/∂s has zeros, the system's A has none.
    """

    def __init__(self, first: int, limit: float) -> None:
        super().__init__()
        self.first, self.limit = first, limit

    def forward(self, state: Tensor) -> Tensor:
        positions, velocities = state[:, : self.first], state[:, self.first :]
        return torch.cat([positions, velocities.clamp(-self.limit, self.limit)], dim=1)


@final
class Circle(nn.Module):
    """An angle (the first column) as its cosine and sine, the other columns after them.

    Before the first layer it makes a policy or critic periodic, and shows Pendulum-v1's state
    (θ, θ̇) as Gymnasium does: (cos θ, sin θ, θ̇).
    """

    def forward(self, state: Tensor) -> Tensor:
        angle, others = state[:, :1], state[:, 1:]
        return torch.cat([angle.cos(), angle.sin(), others], dim=1)
