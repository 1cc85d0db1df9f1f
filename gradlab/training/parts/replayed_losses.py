"""Policy losses along collected transitions: real states, noise inferred, a model's Jacobians.

    a_t = π_θ(s_t, ε̂_t),   s_{t+1} = f(s_t, a_t) + ξ̂_t,   r_t = r(s_t, a_t) + its own rest

At θ of the collection these are the actions, states and rewards that were stored, and their
derivatives are those of the policy and of the model's mean (RP-DR; SVG, Heess et al. 2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from gradlab.data.replay import Batch
from gradlab.training.models.seed_models import slope_along
from gradlab.training.parts.context import Context
from gradlab.training.parts.policy_losses import Term
from gradlab.training.parts.weights import Floats


@dataclass(frozen=True)
class ReplayedStep:
    """One replayed transition, its noise inferred, along the model's Jacobians (SVG(1), RP-DR):

        loss = −mean w (r + γ V(s′)),   a = π_θ(s, ε̂),  s′ = f(s, a) + ξ̂,  w = min(c, π/μ)

    Attributes:
        most: c, the largest importance weight.
    """

    most: float = 10.0
    name: ClassVar[str] = "replayed, noise inferred"
    horizon: ClassVar[int | None] = 1
    densities: ClassVar[bool] = True
    paths: ClassVar[bool] = False

    def __call__(
        self, context: Context, batch: Batch, terms: Sequence[Term], weights: Floats
    ) -> tuple[Tensor, int]:
        objective, model = context.objective, context.model
        assert model is not None
        drawn, _ = context.act(batch.state, context.noise_of(batch.state, batch.action))
        action = batch.action + drawn - drawn.detach()
        noise = context.along("model noise", 1, action.shape[1], model.noise_dim)
        after, reward = slope_along(model, batch, action, None if noise is None else noise[0])
        going_on = 1 - batch.terminated if objective.masked else 1.0
        total = objective.reward_scale * reward
        total = total + objective.discount * going_on * context.value(after)
        with torch.no_grad():
            importance = context.importance(batch, self.most)
        return -torch.from_numpy(weights[:, 0]).to(total) * (importance * total).mean(dim=1), 1


@dataclass(frozen=True)
class ReplayedPath:
    """On-policy paths, their noise inferred, along the model's Jacobians (SVG(∞)):

        loss = −mean Σ_{t<n} γᵗ r_t,   a_t = π_θ(s_t, ε̂_t),  s_{t+1} = f(s_t, a_t) + ξ̂_t

    Where an episode ends, the rest of the window is another path, at γ⁰ again.
    """

    name: ClassVar[str] = "replayed paths, noise inferred"
    horizon: ClassVar[int | None] = None
    densities: ClassVar[bool] = False
    paths: ClassVar[bool] = True

    def __call__(
        self, context: Context, batch: Batch, terms: Sequence[Term], weights: Floats
    ) -> tuple[Tensor, int]:
        objective, model, steps = context.objective, context.model, terms[0].horizon
        assert model is not None
        windows = [_step_of(batch, t, steps) for t in range(steps)]
        count = windows[0].state.shape[1]
        noise = context.along("model noise", steps, count, model.noise_dim)
        state, discount = windows[0].state, torch.ones_like(windows[0].reward)
        total = torch.zeros_like(discount)
        for t, here in enumerate(windows):
            drawn, _ = context.act(state, context.noise_of(here.state, here.action))
            action = here.action + drawn - drawn.detach()
            dealt = None if noise is None else noise[t]
            after, reward = slope_along(model, replace(here, state=state), action, dealt)
            total = total + discount * objective.reward_scale * reward
            if t + 1 < steps:
                following = windows[t + 1].state
                same = (here.next_state == following).all(dim=2) & (here.terminated < 0.5)
                state = torch.where(same[..., None], after, following)
                discount = torch.where(same, objective.discount * discount, 1.0)
        return -torch.from_numpy(weights[:, 0]).to(total) * total.mean(dim=1), steps


def _step_of(batch: Batch, step: int, steps: int) -> Batch:
    """One step of every environment, of a batch that has them step after step."""
    return Batch(**{name: value.chunk(steps, dim=1)[step] for name, value in batch.tensors.items()})
