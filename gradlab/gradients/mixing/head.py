"""The Gaussian head of a policy, z = (μ, log σ), where both orders of a gradient meet.

    u = μ + σ ε,  a = squash(u)
    first order     ∂R/∂z = λ_u (1, σ ε),  λ_u = (∂a/∂u) ∂R/∂a       through the action
    zeroth order    R ∂ log π/∂z = R (ε/σ, ε² − 1)                   through its density

Both estimate ∂E[R]/∂z of one action, entry by entry, and reach θ by one Jacobian J = ∂z/∂θ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradlab.data.path import Path
from gradlab.errors import InputError
from gradlab.networks.policies import check_stochastic


class Head(nn.Module):
    """state [N, ds] → z [N, 2 da]; the parameters are the policy's own."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, state: Tensor) -> Tensor:
        policy: Any = self.policy
        return torch.cat(policy.normal(state), dim=1)


@dataclass(frozen=True)
class Draws:
    """What turns gradients in actions and returns into signals at z; [..., da] each.

    Attributes:
        noise: ε; std: σ; slope: ∂a/∂u.
    """

    noise: Tensor
    std: Tensor
    slope: Tensor

    def __getitem__(self, at: int) -> Draws:
        return Draws(self.noise[at], self.std[at], self.slope[at])

    def at(self, counted: Tensor) -> Draws:
        """Without effect where [..., N] is not counted."""
        here = counted[..., None]
        std, slope = torch.where(here, self.std, 1.0), torch.where(here, self.slope, 0.0)
        return Draws(self.noise, std, slope)

    def first(self, action_gradient: Tensor) -> Tensor:
        """∂R/∂z [..., 2 da] of ∂R/∂a."""
        latent = self.slope * action_gradient
        return torch.cat([latent, latent * self.std * self.noise], dim=-1)

    def zeroth(self, returns: Tensor) -> Tensor:
        """R ∂ log π/∂z [..., 2 da] of R [...]."""
        score = torch.cat([self.noise / self.std, self.noise**2 - 1], dim=-1)
        return returns[..., None] * score

    def in_noise(self, action_gradient: Tensor) -> Tensor:
        """∂R/∂ε of ∂R/∂a."""
        return self.slope * self.std * action_gradient


def check_head(policy: nn.Module) -> None:
    """
    Raises:
        InputError: the policy is deterministic, or no Gaussian whose head can be read.
    """
    check_stochastic(policy)
    if not (hasattr(policy, "normal") and hasattr(policy, "slope")):
        raise InputError(
            f"{type(policy).__name__} shows no Gaussian head: mixed gradients need its methods "
            f"normal(state) -> (mean, log_std) and slope(latent) -> da/du, each [N, da]"
        )


@torch.no_grad()
def draws_along(policy: nn.Module, path: Path) -> Draws:
    """Noise, spread and slope of every action of a path, [H + 1, N, da] each."""
    shown: Any = policy
    mean, log_std = shown.normal(path.states.flatten(0, 1))
    std = log_std.exp()
    slope = shown.slope(mean + std * path.policy_noise.flatten(0, 1))
    shape = path.policy_noise.shape
    return Draws(path.policy_noise, std.reshape(shape), slope.reshape(shape))
