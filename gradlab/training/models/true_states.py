"""The simulator in the place of a model, with its own Jacobians or with the model's.

    TrueSteps     s′, r of the simulator, and its derivatives: autograd's, or certified ones
    TrueStates    s′, r of the simulator, the derivatives of the model's mean at the same (s, a)

A policy loss that is given them follows the gradient that it would follow were the model exact, or
were its states exact: differences between these are what its states and its Jacobians make.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.systems.system import System, Transition
from gradlab.training.models.seed_models import Model, dealing_alone, deals


@dataclass(frozen=True, eq=False)
class TrueSteps:
    """See above.

    Attributes:
        spare: further columns of noise, which it leaves alone: with as many as `TrueStates` has,
            both make the same states.
    """

    simulator: System
    spare: int = 0

    @property
    def noise_dim(self) -> int:
        return self.simulator.noise_dim + self.spare

    def step(self, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Transition:
        noise = None if noise is None else noise[:, : self.simulator.noise_dim]
        if self.simulator.differentiable:
            return self.simulator.step(state, action, noise)
        s, a = state.detach(), action.detach()
        after, slope = self.simulator.step(s, a, noise), self.simulator.linearize(s, a, noise)
        ds, da = state - s, action - a
        moved = torch.einsum("nij,nj->ni", slope.A, ds) + torch.einsum("nij,nj->ni", slope.B, da)
        gained = (slope.r_s * ds).sum(dim=1) + (slope.r_a * da).sum(dim=1)
        return Transition(after.state + moved, after.reward + gained, after.alive)


@dataclass(frozen=True, eq=False)
class TrueStates:
    """See above. The simulator's noise comes first, then what deals the model's members."""

    simulator: System
    model: Model

    @property
    def deals(self) -> int:
        """As of `seed_models.deals`."""
        return deals(self.model)

    @property
    def noise_dim(self) -> int:
        return self.simulator.noise_dim + self.deals

    def step(self, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Transition:
        true = dealing = None
        if noise is not None:
            width = self.simulator.noise_dim
            true, dealing = noise[:, :width], dealing_alone(self.model, noise[:, width:])
        with torch.no_grad():
            after = self.simulator.step(state.detach(), action.detach(), true)
        guess = self.model.step(state, action, dealing)
        return Transition(
            after.state + guess.state - guess.state.detach(),
            after.reward + guess.reward - guess.reward.detach(),
            after.alive,
        )
