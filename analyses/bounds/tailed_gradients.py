"""Gradients of h model steps and a quadratic critic, in exact expectation, many models at once.

    s' = A s + B u + w,  u = W s,  r = −(sᵀQs + uᵀRu),   Q̂(s, u) = −xᵀ C x,  x = (s, u)

States follow one system (closed loop F, second moments Σ_t), derivatives come from another (Â, B̂,
closed loop F̂). With N_h = [I W]ᵀ… the critic's curvature along the policy,

    N_t = Q + WᵀRW + γ F̂ᵀ N_{t+1} F
    ∇_W = −2 Σ_{t<h} γᵗ (RW + γ B̂ᵀ N_{t+1} F) Σ_t − 2 γʰ (C_us + C_uu W) Σ_h

which is gradlab's estimator with θ in all actions (MPG eq. 5, MAAC eq. 2, RP-PGM eq. 4.2); the two
are tested to agree. Both systems the same: derivatives on predictions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradlab.systems.linear import LinearQuadratic


@dataclass(frozen=True, eq=False)
class Dynamics:
    """A [..., ds, ds] and B [..., ds, da]."""

    A: Tensor
    B: Tensor

    def closed_loop(self, weight: Tensor) -> Tensor:
        return self.A + self.B @ weight


@dataclass(frozen=True, eq=False)
class Setting:
    """What all compared gradients share: policy W, costs, second moment of starts, noise, γ."""

    weight: Tensor
    Q: Tensor
    R: Tensor
    moment: Tensor
    noise: Tensor
    discount: float


def tailed_gradient(
    setting: Setting, states: Dynamics, jacobians: Dynamics, critic: Tensor, horizon: int
) -> Tensor:
    """Ascent gradient in W, [..., da, ds].

    Args:
        critic: C [..., ds + da, ds + da], symmetric.
    """
    W, gamma, ds = setting.weight, setting.discount, setting.Q.shape[-1]
    F, F_hat = states.closed_loop(W), jacobians.closed_loop(W)
    moments = [setting.moment]
    for _ in range(horizon):
        moments.append(F @ moments[-1] @ F.mT + setting.noise)
    in_action = critic[..., ds:, :ds] + critic[..., ds:, ds:] @ W
    N = critic[..., :ds, :ds] + critic[..., :ds, ds:] @ W + W.mT @ in_action
    total = gamma**horizon * in_action @ moments[horizon]
    cost = setting.Q + W.mT @ setting.R @ W
    for t in reversed(range(horizon)):
        later = gamma * N @ F
        total = total + gamma**t * (setting.R @ W + jacobians.B.mT @ later) @ moments[t]
        N = cost + F_hat.mT @ later
    return -2 * total


def exact_critic(system: LinearQuadratic, cost_to_go: Tensor, discount: float) -> Tensor:
    """C of Q^π, its constant aside: diag(Q, R) + γ [A B]ᵀ P [A B]."""
    step = torch.cat([system.A, system.B], dim=1)
    return torch.block_diag(system.Q, system.R) + discount * step.T @ cost_to_go @ step


class QuadraticCritic(nn.Module):
    """−xᵀ C x, [N, ds], [N, da] → [N]."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = matrix

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        x = torch.cat([state, action], dim=1)
        return -((x @ self.matrix) * x).sum(dim=1)
