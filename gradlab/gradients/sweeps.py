"""One sweep along a path for every horizon: of sensitivities forwards, or of costates backwards.

θ in the first action, later actions from π_old (MPG eq. 6):

    D_1 = B_0,  D_{t+1} = M_t D_t,  M = A + B K
    g_0 = Q_a(s_0)
    g_n = r_a(0) + Σ_{t=1}^{n−1} γᵗ D_tᵀ c_t + γⁿ D_nᵀ q_n,   c = r_s + Kᵀ r_a,  q = Q_s + Kᵀ Q_a

The sweep is da columns wide, so a whole profile costs about one rollout instead of H of them.
θ in every action (MPG eq. 5, with its tail term), horizons as a leading axis:

    λⁿ_n = Q_a(s_n),               pⁿ_n = q_n
    λⁿ_t = r_a + γ B_tᵀ pⁿ_{t+1},  pⁿ_t = c_t + γ M_tᵀ pⁿ_{t+1}     (t < n)
    full_n = Σ_{t=0}^{n} γᵗ J_θπ(s_t)ᵀ λⁿ_t
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.gradients.rollout import LinearizedPath, TailGradient


def sensitivities(linear: LinearizedPath, before: Tensor | None = None) -> Tensor:
    """D_1 … D_H = ∂s_t/∂a_0, [H, N, ds, da].

    Args:
        before: D at the first state of the path, where the path continues an earlier one.
    """
    K = linear.K
    D = linear.B[0] if before is None else (linear.A[0] + linear.B[0] @ K[0]) @ before
    swept = [D]
    for t in range(1, linear.path.horizon):
        D = linear.A[t] @ D + linear.B[t] @ (K[t] @ D)
        swept.append(D)
    return torch.stack(swept)


def closed_loop_reward_gradient(linear: LinearizedPath) -> Tensor:
    """c_t = r_s + Kᵀ r_a for t = 0 … H − 1, [H, N, ds]."""
    h = linear.path.horizon
    return linear.r_s + torch.einsum("hnas,hna->hns", linear.K[:h], linear.r_a)


def action_gradients(linear: LinearizedPath, tail: TailGradient, discount: float) -> Tensor:
    """g_n for n = 0 … H, [H + 1, N, da], in reward units per action unit."""
    q, q_a = tail.q_s + torch.einsum("hnas,hna->hns", linear.K, tail.q_a), tail.q_a[:1]
    h = linear.path.horizon
    if h == 0:
        return q_a
    D = sensitivities(linear)
    weight = (discount ** torch.arange(h + 1, dtype=D.dtype, device=D.device))[:, None, None]
    c = closed_loop_reward_gradient(linear)
    later = weight[1:h] * torch.einsum("hnsa,hns->hna", D[: h - 1], c[1:])
    returns = torch.cat([linear.r_a[:1], later]).cumsum(dim=0)
    tails = weight[1:] * torch.einsum("hnsa,hns->hna", D, q[1:])
    return torch.cat([q_a, returns + tails])


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
