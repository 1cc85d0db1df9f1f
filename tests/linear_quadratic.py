"""Linear-quadratic systems under linear policies: every return, value and gradient in closed form.

    s' = A s + B a + w,   a = −K s + e,   w ~ N(0, W),  e ~ N(0, S),   r = −(sᵀQs + aᵀRa)

With F = A − BK and P_0 = 0, k steps to go cost

    P_k = Q + KᵀRK + γ FᵀP_{k−1}F,      M_k = R K − γ BᵀP_{k−1}F
    Q_a(s, a) = 2 M_k s at the policy's mean action, with k steps to go      (its sign: ascent in W)
    ∇_W first = 2 M_T E_d[s sᵀ],        ∇_W all = Σ_{t<T} γᵗ 2 M_{T−t} Σ_t,
    Σ_0 = E_d[s sᵀ],  Σ_{t+1} = F Σ_t Fᵀ + W + B S Bᵀ

for the policy a = W s, so W = −K. T → ∞ solves the Lyapunov equations instead (Σ = Σ_t γᵗ Σ_t is
not normalised by 1 − γ). The law d of the starts enters by its second moment alone. Nothing is
sampled: the standard error is 0, the error that of rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gradlab.errors import InputError
from gradlab.gradients.ways import WAYS
from gradlab.systems.closed_form import LinearQuadratic

_KINDS = ("first", "all")
_DOUBLINGS = 64  # F^(2^64): any stable F has long vanished


def second_moment(mean: Tensor, covariance: Tensor) -> Tensor:
    """E[s sᵀ] [ds, ds] of a start law with this mean [ds] and covariance [ds, ds].

    Of given starts [N, ds] it is `starts.T @ starts / N`, and of each of them alone
    `starts[:, :, None] * starts[:, None, :]`, [N, ds, ds].
    """
    return covariance + mean[:, None] * mean[None, :]


def lqr_gradient(
    system: LinearQuadratic,
    weight: Tensor,
    second_moment: Tensor,
    discount: float,
    actions: str,
    horizon: int | None = None,
    action_covariance: Tensor | None = None,
) -> Tensor:
    """Gradient in W of the return of a = W s (+ noise), flattened.

    Args:
        weight: W [da, ds].
        second_moment: E_d[s sᵀ] of the starts, [ds, ds] (mean included); or one for each start,
            [N, ds, ds].
        actions: "first": E_d[J_θᵀ ∂_a Q], or "all": ∇_θ E_d[V].
        horizon: T ≥ 1 rewards are summed; None for all.
        action_covariance: S [da, da] of Gaussian noise on the actions.

    Returns:
        [da · ds], or [N, da · ds].

    Raises:
        InputError: no such kind or horizon, or the horizon is infinite where √γ(A + BW) is not
            stable, so that no gradient exists.
    """
    if actions not in _KINDS:
        raise InputError(f"actions is {actions!r}, expected one of {_KINDS}")
    K, F, noise = _closed_loop(system, weight, action_covariance)
    P, S = costs_to_go(system, weight, discount, horizon), second_moment.double()
    M = system.R.double() @ K - discount * system.B.double().T @ P[:-1] @ F  # M_1 … M_T
    if not WAYS[actions].all_actions:
        return (2 * M[-1] @ S).flatten(-2)
    if horizon is None:
        visits = _lyapunov(discount**0.5 * F, S + discount / (1 - discount) * noise)
        return (2 * M[-1] @ visits).flatten(-2)
    total = torch.zeros_like(M[-1] @ S)
    for t in range(horizon):
        total = total + 2 * discount**t * M[horizon - 1 - t] @ S
        S = F @ S @ F.T + noise
    return total.flatten(-2)


def costs_to_go(
    system: LinearQuadratic, weight: Tensor, discount: float, horizon: int | None = None
) -> Tensor:
    """P_0 … P_T, [T + 1, ds, ds]; without a horizon the fixed point, twice: P_{k−1} and P_k.

    Raises:
        InputError: the horizon is below 1, or infinite where √γ(A + BW) is not stable.
    """
    K, F, _ = _closed_loop(system, weight, None)
    cost = system.Q.double() + K.T @ system.R.double() @ K
    if horizon is None:
        radius = float(torch.linalg.eigvals(discount**0.5 * F).abs().max())
        if radius >= 1:
            raise InputError(
                f"√γ(A + BW) is unstable, its spectral radius is {radius:.4g}: no gradient exists "
                f"without a horizon; give one, or a stabilising weight"
            )
        P = _lyapunov(discount**0.5 * F.T, cost)
        return torch.stack([P, P])
    if not isinstance(horizon, int) or horizon < 1:
        raise InputError(f"horizon is {horizon!r}, expected an integer ≥ 1, or None for no end")
    costs = [torch.zeros_like(cost)]
    for _ in range(horizon):
        costs.append(cost + discount * F.T @ costs[-1] @ F)
    return torch.stack(costs)


def _closed_loop(
    system: LinearQuadratic, weight: Tensor, action_covariance: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """K, F = A − BK and the covariance of what reaches the next state as noise."""
    A, B, K = system.A.double(), system.B.double(), -weight.detach().double()
    if K.shape != B.T.shape:
        raise InputError(f"weight has shape {tuple(K.shape)}, expected {list(B.T.shape)}")
    noise = system.noise_covariance.double()
    if action_covariance is not None:
        noise = noise + B @ action_covariance.double() @ B.T
    return K, A - B @ K, noise


def _lyapunov(F: Tensor, S: Tensor) -> Tensor:
    """Σ_k F^k S F^kᵀ by doubling (Smith 1968): X ← X + F X Fᵀ, F ← F²; S […, ds, ds]."""
    X = S
    for _ in range(_DOUBLINGS):
        X, F = X + F @ X @ F.T, F @ F
        if not F.any():
            break
    return X


def lqr_return(
    system: LinearQuadratic,
    weight: Tensor,
    second_moment: Tensor,
    discount: float,
    horizon: int | None = None,
    action_covariance: Tensor | None = None,
) -> Tensor:
    """E_d[V^π] = −⟨P_T, E_d[s sᵀ]⟩ less the cost of noise; arguments as in `lqr_gradient`.

    Returns:
        scalar, or [N] for one second moment per start.
    """
    R, S = system.R.double(), action_covariance
    _, _, noise = _closed_loop(system, weight, S)
    P = costs_to_go(system, weight, discount, horizon)
    drawn = 0.0 if S is None else float((R * S.double()).sum())  # at every step, in any state
    ahead = discount * (P[:-1] * noise).sum(dim=(1, 2)) + drawn
    if horizon is None:
        constant = float(ahead[0]) / (1 - discount)
    else:
        constant = 0.0
        for cost in ahead.tolist():  # c_k = c + γ⟨P_{k−1}, noise⟩ + γ c_{k−1}
            constant = cost + discount * constant
    return -(P[-1] * second_moment.double()).sum(dim=(-2, -1)) - constant


class ExactCritic(nn.Module):
    """Q^π(s, a) of a = W s without end, up to its constant: r(s, a) − γ (As + Ba)ᵀP(As + Ba)."""

    def __init__(self, system: LinearQuadratic, weight: Tensor, discount: float) -> None:
        super().__init__()
        self.system, self.discount = system, discount
        self.register_buffer("P", costs_to_go(system, weight.detach(), discount)[-1])

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        out, P = self.system.step(state, action), self.get_buffer("P").to(state)
        return out.reward - self.discount * ((out.state @ P) * out.state).sum(dim=1)
