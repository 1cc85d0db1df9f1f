"""Returns and values of linear-quadratic systems in closed form."""

from __future__ import annotations

from torch import Tensor, nn

from gradlab.systems.closed_form import LinearQuadratic
from gradlab.truth.lqr import _closed_loop, costs_to_go


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
