"""How networks of a policy act: deterministically, or by a Gaussian that limits squash.

deterministic   a = π(s);                        explores by a + σ · noise · limit
gaussian        a = limit · tanh(μ + σ · noise), or μ + σ · noise without limits; explores so
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.networks.policies import log_normal, log_tanh_slope, split_normal
from gradlab.training.members import Network
from gradlab.training.parts.context import Act

LOG_STD = (-5.0, 2.0)  # bounds of log σ of the Gaussian policies that are trained

Watch = Callable[[Tensor], None]


@dataclass(frozen=True, eq=False)
class Acting:
    """
    Attributes:
        gaussian: else deterministic.
        exploration: σ of a deterministic policy's noise, in units of the limit.
        limit: largest size of an action, [da], or None.
    """

    gaussian: bool
    exploration: float
    limit: Tensor | None

    def act(self, network: Network, state: Tensor, noise: Tensor | None = None) -> Tensor:
        """Action [E, N, da]; of a Gaussian policy at `noise`, or at its median without."""
        if not self.gaussian:
            return network(state)
        if noise is None:
            return self._squashed(split_normal(network(state), LOG_STD)[0])
        return self.draw(network, state, noise)[0]

    def explore(
        self, network: Network, state: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Action [E, N, da] that is collected; a Gaussian policy explores by itself, at a log
        density [E, N]."""
        if self.gaussian:
            return self.draw(network, state, noise)
        size = 1.0 if self.limit is None else self.limit
        return network(state) + self.exploration * noise * size, None

    def draw(self, network: Network, state: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Action [E, N, da] of a Gaussian, squashed where actions have limits; its log density."""
        mean, log_std = split_normal(network(state), LOG_STD)
        latent = mean + log_std.exp() * noise
        density = log_normal(noise, log_std)
        if self.limit is not None:
            density = density - log_tanh_slope(latent, self.limit)
        return self._squashed(latent), density.sum(dim=2)

    def noise_of(self, network: Network, state: Tensor, action: Tensor) -> Tensor:
        """The noise [E, N, da] at which a Gaussian policy gives an action; one at its limit is
        taken for the nearest within."""
        mean, log_std = split_normal(network(state), LOG_STD)
        if self.limit is not None:
            edge = 1 - torch.finfo(action.dtype).eps
            action = torch.atanh((action / self.limit).clamp(-edge, edge))
        return (action - mean) * (-log_std).exp()

    def bound(self, network: Network, watch: Watch | None = None) -> Act:
        """Actions and log densities of one network: the mean's without noise.

        Args:
            watch: is shown every action.
        """

        def act(state: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor | None]:
            log_prob: Tensor | None = None
            if noise is None:
                action = network(state)
            else:
                action, log_prob = self.draw(network, state, noise)
            if watch is not None:
                watch(action.detach())
            return action, log_prob

        return act

    def _squashed(self, latent: Tensor) -> Tensor:
        return latent if self.limit is None else self.limit * torch.tanh(latent)
