"""A system around another, of which a study changes one thing; a linear policy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.networks.mlp import Policy
from gradlab.systems.system import Linearization, System, Transition


@dataclass(frozen=True, eq=False)
class Around:
    """Sizes, step, derivatives and noise of the system within."""

    system: System

    @property
    def state_dim(self) -> int:
        return self.system.state_dim

    @property
    def action_dim(self) -> int:
        return self.system.action_dim

    @property
    def noise_dim(self) -> int:
        return self.system.noise_dim

    def step(self, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Transition:
        return self.system.step(state, action, noise)

    def linearize(
        self, state: Tensor, action: Tensor, noise: Tensor | None = None
    ) -> Linearization:
        return self.system.linearize(state, action, noise)

    def sample_noise(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Tensor:
        return self.system.sample_noise(n, generator, dtype)


def linear_policy(weight: Tensor) -> Policy:
    """a = W s, W [da, ds] the one parameter, float64."""
    policy = Policy(weight.shape[1], weight.shape[0], hidden=(), bias=False).double()
    with torch.no_grad():
        next(policy.parameters()).copy_(weight)
    return policy
