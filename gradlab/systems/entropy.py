"""A system whose last action is log π, with the entropy bonus in its reward.

    s' = f(s, a, ξ),   r̃ = r(s, a) − α log π,   B̃ = [B, 0],   r̃_ã = (r_a, −α)

It takes the actions of `networks.policies.WithLogProb`; its return is the soft return of
maximum-entropy methods, so that every estimator and every oracle of plain returns applies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradlab.networks.policies import temperature
from gradlab.systems.system import Linearization, System, Transition, check_step, inner

_Inference = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Entropic:
    """The system above; alpha in reward units per nat.

    States and Jacobians from one system must share one `Entropic`: two wrappers of it count as
    two systems, and noise that cannot be inferred is then left out.
    """

    system: System
    alpha: float

    state_dim = inner("state_dim")
    noise_dim = inner("noise_dim")
    differentiable = inner("differentiable")
    member_column = inner("member_column")
    linearization_price = inner("linearization_price")
    sample_noise = inner("sample_noise")

    def __post_init__(self) -> None:
        temperature(self.alpha)

    @property
    def action_dim(self) -> int:
        return self.system.action_dim + 1

    @property
    def infer_noise(self) -> _Inference:
        """(state, ã, next_state) → [N, noise_dim]; AttributeError where the system has none."""
        infer: _Inference = self.system.infer_noise  # type: ignore[attr-defined]
        return lambda state, action, next_state: infer(state, action[:, :-1], next_state)

    def step(self, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Transition:
        check_step(self, state, action, noise)
        plain = self.system.step(state, action[:, :-1], noise)
        return replace(plain, reward=plain.reward - self.alpha * action[:, -1])

    def linearize(
        self, state: Tensor, action: Tensor, noise: Tensor | None = None
    ) -> Linearization:
        check_step(self, state, action, noise)
        plain = self.system.linearize(state, action[:, :-1], noise)
        price = torch.full_like(plain.r_a[:, :1], -self.alpha)
        return replace(
            plain,
            B=torch.nn.functional.pad(plain.B, (0, 1)),
            r_a=torch.cat([plain.r_a, price], dim=1),
        )
