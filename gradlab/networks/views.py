"""First layers: what a policy sees of the state. Fixed, without parameters, differentiable."""

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
