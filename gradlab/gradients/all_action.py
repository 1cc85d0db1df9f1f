"""Costates of every horizon: how the n-step return changes with each action on the way.

    λⁿ_n = Q_a(s_n),               pⁿ_n = q_n
    λⁿ_t = r_a + γ B_tᵀ pⁿ_{t+1},  pⁿ_t = c_t + γ M_tᵀ pⁿ_{t+1}     (t < n)
    full_n = Σ_{t=0}^{n} γᵗ J_θπ(s_t)ᵀ λⁿ_t                         (MPG eq. 5, with its tail term)

Horizons are a leading axis, so one backward sweep serves all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.gradients.first_action import closed_loop_reward_gradient
from gradlab.gradients.rollout import LinearizedPath, TailGradient


def discounted_costates(
    linear: LinearizedPath,
    tail: TailGradient,
    discount: float,
    horizons: tuple[int, ...],
    terminal_action: str = "attached",
) -> Tensor:
    """γᵗ λⁿ_t for n in `horizons`, t = 0 … H: [len(horizons), H + 1, N, da], 0 for t > n."""
    path = linear.path
    h, (n, ds), da = path.horizon, path.states.shape[1:], path.actions.shape[2]
    q = tail.q_s + torch.einsum("hnas,hna->hns", linear.K, tail.q_a)
    c = closed_loop_reward_gradient(linear)
    new = path.states.new_zeros
    costates, p = new(len(horizons), h + 1, n, da), new(len(horizons), n, ds)
    attached = 1.0 if terminal_action == "attached" else 0.0
    for t in reversed(range(h + 1)):
        ends = [k for k, horizon in enumerate(horizons) if horizon == t]
        inside = [k for k, horizon in enumerate(horizons) if horizon > t]
        if inside:
            ahead = discount * p[inside]
            back = torch.einsum("nsa,kns->kna", linear.B[t], ahead)
            costates[inside, t] = linear.r_a[t] + back
            closed = linear.A[t] + linear.B[t] @ linear.K[t]
            p[inside] = c[t] + torch.einsum("nij,kni->knj", closed, ahead)
        if ends:
            costates[ends, t] = attached * tail.q_a[t]
            p[ends] = q[t]
    gamma = discount ** torch.arange(h + 1, dtype=p.dtype, device=p.device)
    return costates * gamma[:, None, None]
