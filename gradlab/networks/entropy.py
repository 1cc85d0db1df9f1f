"""Entropy as one more action: ã = (a, log π_θ(a|s)) at fixed noise.

    a = π_θ(s, ε),   log π_θ(a|s) = log N(ε; 0, I) − log |∂a/∂ε|

Once ε is drawn, both are functions of θ and s, so K̃ = ∂ã/∂s and J̃ = ∂ã/∂θ hold everything that an
entropy bonus adds, and any gradient of Σ γᵗ (r_t − α log π_t) is a plain one in ã (SAC; MAAC,
section 3; DDPPO, eq. 11). The system that takes ã is `systems.entropy`.
"""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor, nn

from gradlab.errors import InputError
from gradlab.networks.critics import judge
from gradlab.networks.interface import noise_dim
from gradlab.networks.policies import check_stochastic


@final
class WithLogProb(nn.Module):
    """state [N, ds], noise [N, noise_dim] → ã [N, da + 1]; the parameters are the policy's own.

    A policy without `with_log_prob` has its `log_prob` called instead, which runs the
    network twice and so leaves the fast path of per-sample gradients.

    Raises:
        InputError: the policy is deterministic or has no density.
    """

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        check_stochastic(policy)
        self.policy = policy
        self.noise_dim = noise_dim(policy)

    def forward(self, state: Tensor, noise: Tensor) -> Tensor:
        policy: Any = self.policy
        if hasattr(policy, "with_log_prob"):
            action, log_prob = policy.with_log_prob(state, noise)
        else:
            action = policy(state, noise)
            log_prob = policy.log_prob(state, action)
        return torch.cat([action, log_prob[:, None]], dim=1)


@final
class SoftCritic(nn.Module):
    """Q(s, a) − α log π as a critic of (s, ã): the tail of a soft return. V critics need none."""

    def __init__(self, critic: nn.Module, alpha: float) -> None:
        super().__init__()
        self.critic, self.alpha = critic, temperature(alpha)

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        return judge(self.critic, "Q", state, action[:, :-1]) - self.alpha * action[:, -1]


def temperature(alpha: float) -> float:
    """
    Raises:
        InputError: α is no finite number from 0.
    """
    if not isinstance(alpha, int | float) or not 0 <= alpha < math.inf:
        raise InputError(f"alpha is {alpha!r}, expected a number from 0 (reward units per nat)")
    return float(alpha)
