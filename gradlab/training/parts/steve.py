"""STEVE: targets of every horizon, weighted by how far an ensemble agrees on each of them.

    T_i = r + Σ_{j=1}^{i} γʲ (r̂_j − α log π_j) + γ^{i+1} (Q′_c(ŝ_{i+1}, a_{i+1}) − α log π_{i+1})
    y   = Σ_i w_i mean T_i,   w_i ∝ 1 / (var T_i + ε),   over members m × critics c,  i = 0 … H

ŝ_1 is the replayed next state, from which each member m of the model rolls out the policy by itself
(Buckman et al. 2018, eq. 3 and section 3.2; with a soft value as MAAC's target, section 3). Members
share actions' and transitions' noise, so that they differ by what they have learned alone. At i = 0
no model is used: its spread is the critics'.

MAAC's published code takes the smaller critic of each member, whose T_0 has no spread at all, so
that the one-step target has all the weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gradlab.data.replay import Batch
from gradlab.errors import InputError
from gradlab.training.models.seed_models import ensemble_of
from gradlab.training.parts.context import Context
from gradlab.training.parts.critics import Kind, Q
from gradlab.training.parts.temperature import Automatic

LEAST_VARIANCE = 1e-8  # ε, as in STEVE's published code


@dataclass(frozen=True)
class Steve:
    """Targets of horizons 0 to `horizon`, by the inverse of their variance.

    Attributes:
        horizon: H, model steps of the longest.
        temperature: α.
    """

    horizon: int = 3
    temperature: float | Automatic = 0.03
    kind: ClassVar[Kind] = Q
    critics: ClassVar[int] = 2
    least: ClassVar[bool] = True
    soft: ClassVar[bool] = True
    of_model: ClassVar[bool] = True
    of_members: ClassVar[bool] = True
    of_paths: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.horizon, int) or self.horizon < 1:
            raise InputError(
                f"STEVE has horizon {self.horizon!r}, expected an integer from 1: without model "
                f"steps the target is the soft one (Soft)"
            )

    @property
    def name(self) -> str:
        return f"STEVE, horizons 0 to {self.horizon}"

    def __call__(self, context: Context, batch: Batch) -> Tensor:
        return inverse_variance_mean(self.candidates(context, batch))

    def candidates(self, context: Context, batch: Batch) -> Tensor:
        """T_i of every member and critic, [H + 1, E, M, C, N]."""
        objective, ensemble = context.objective, ensemble_of(context.model)
        members, (seeds, rows) = ensemble.members, batch.reward.shape
        drawn = context.along("expansion actions", self.horizon + 1, rows, context.noise_dim)
        noise = context.along("expansion noise", self.horizon, rows, ensemble.noise_dim - 1)
        assert noise is not None
        state, total = batch.next_state, objective.reward_scale * batch.reward
        alive = 1 - batch.terminated if objective.masked else torch.ones_like(total)
        found = []
        for i in range(self.horizon + 1):
            here = None if drawn is None else repeated(drawn[i], state.shape[1] // rows)
            action, log_prob = context.act(state, here)
            discount = objective.discount ** (i + 1)
            tail = discount * alive[:, None] * context.target_values(state, action, log_prob)
            candidate = total[:, None] + tail  # [E, C, N], then [E, C, M · N]
            found.append(candidate.view(seeds, candidate.shape[1], -1, rows).transpose(1, 2))
            if i == self.horizon:
                break
            if i == 0:
                state, action, total, alive = (
                    repeated(value, members) for value in (state, action, total, alive)
                )
                log_prob = None if log_prob is None else repeated(log_prob, members)
            after, reward, still = ensemble.step_by_member(state, action, noise[i])
            gained = objective.soft(objective.reward_scale * reward, log_prob)
            total = total + discount * alive * gained
            if objective.masked:
                alive = alive * still
            state = after
        return torch.stack([candidate.expand(-1, members, -1, -1) for candidate in found])


def inverse_variance_mean(candidates: Tensor) -> Tensor:
    """y [E, N] of candidates [H + 1, E, M, C, N]; their variance is divided by M · C."""
    spread = candidates.flatten(2, 3)
    weight = 1 / (spread.var(dim=2, correction=0) + LEAST_VARIANCE)
    return (weight * spread.mean(dim=2)).sum(dim=0) / weight.sum(dim=0)


def repeated(rows: Tensor, members: int) -> Tensor:
    """Rows [E, N, …] once for each member, member after member: [E, M · N, …]."""
    return rows.repeat(1, members, *(1 for _ in rows.shape[2:]))
