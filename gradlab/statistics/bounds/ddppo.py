"""DDPPO Theorem 1: three errors of a model bound the bias of the policy gradient (eq. 7, 33, 58).

    ε_M ≤ C6 ε_r^g + C7 ε_f^g + C8 ε_f,    ε_f of predictions, ε_f^g, ε_r^g of derivatives

    C0 = min(D/ε_f, 1/(1 − L_f)),   C3 = L_1/(1 − γ),   C4 = γ L_r L_1²/(1 − γ)²
    C5 = C0 L_1 L_rg/(1 − γ) + γ C0 L_fg L_r L_1²/(1 − γ)²
    C6 = L_π (1 + γ L_f C3)/(1 − γ)
    C7 = L_π (γ L_f C4 + γ L_1 L_r/(1 − γ))/(1 − γ)
    C8 = (L_π C0 L_rg + γ L_π L_f C5 + γ L_1 L_r L_π L_fg C0/(1 − γ))/(1 − γ)
         + L_πg C0 L_r (1 + γ L_1 L_f/(1 − γ))/(1 − γ)

Errata: App. C.1's definitions are not the coefficients of its own (33): C6 has L_f L_π for L_π,
C7 drops L_r, C8 (printed as a second C7) drops L_π from its first term, and C5 drops L_1². The
last line of C8 is absent: ∂π/∂φ is taken on the model's states, and (32) takes it on the true.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gradlab.errors import InputError
from gradlab.statistics.bounds.improvement import (
    Applies,
    check_constants,
    check_discount,
    check_number,
)


@dataclass(frozen=True)
class DDPPOConstants:
    """Along the policy, whose derivative in the state is taken to be at most 1.

    Attributes:
        L_f: derivatives of the transition, in state, in action and along the policy.
        L_1: derivatives of any number of steps along the policy (Assumption 2).
        L_r: derivatives of the reward, in action and along the policy.
        L_pi: |∂π/∂φ|.
        L_fg, L_rg, L_pig: Lipschitz constants of those derivatives in the state.
        D: diameter of the state space; needed where L_f is not below 1.
    """

    gamma: float
    L_f: float
    L_1: float
    L_r: float
    L_pi: float
    L_fg: float = 0.0
    L_rg: float = 0.0
    L_pig: float = 0.0
    D: float | None = None

    def __post_init__(self) -> None:
        check_constants(self)
        check_discount(self.gamma, below_one=True)

    @property
    def applies(self) -> Applies:
        if self.L_f >= 1:
            rest = "so states may drift apart and its constants say nothing about small errors."
            sentence = f"do not hold (measured L_f = {self.L_f:.3g}, not below 1), {rest}"
            return Applies(False, f"Assumptions of DDPPO Thm 1 {sentence}")
        return Applies(True, "Assumptions of DDPPO Thm 1 hold for the measured constants.")


class DDPPOCoefficients(NamedTuple):
    C6: float
    C7: float
    C8: float


def ddppo_coefficients(c: DDPPOConstants, epsilon_f: float = 0.0) -> DDPPOCoefficients:
    """C6, C7, C8 as they follow from (33)."""
    C0, left = _ddppo_drift(c, epsilon_f), 1 - c.gamma
    C3 = c.L_1 / left
    C4 = c.gamma * c.L_r * c.L_1**2 / left**2
    C5 = C0 * c.L_1 * c.L_rg / left + c.gamma * C0 * c.L_fg * c.L_r * c.L_1**2 / left**2
    later = c.gamma * c.L_1 * c.L_r / left
    states = c.L_pi * (C0 * c.L_rg + c.gamma * c.L_f * C5 + later * c.L_fg * C0)
    policy = c.L_pig * C0 * (c.L_r + c.L_f * later)
    return DDPPOCoefficients(
        c.L_pi * (1 + c.gamma * c.L_f * C3) / left,
        c.L_pi * (c.gamma * c.L_f * C4 + later) / left,
        (states + policy) / left,
    )


def ddppo_printed_coefficients(c: DDPPOConstants, epsilon_f: float = 0.0) -> DDPPOCoefficients:
    """C6, C7, C8 as App. C.1 defines them: not a bound, shown to say how far off they are."""
    C0, left = _ddppo_drift(c, epsilon_f), 1 - c.gamma
    C3 = c.L_1 / left
    C4 = c.gamma * c.L_r * c.L_1**2 / left**2
    C5 = C0 * c.L_1 * c.L_rg / left + c.gamma * C0 * c.L_fg * c.L_r / left**2
    later = c.L_1 * c.L_pi * c.gamma / left
    return DDPPOCoefficients(
        c.L_f * c.L_pi * (1 + c.gamma * C3) / left,
        (c.gamma * c.L_f * c.L_pi * C4 + later) / left,
        (C0 * c.L_rg + c.gamma * C5 * c.L_f * c.L_pi + later * c.L_r * c.L_fg * C0) / left,
    )


def ddppo_bias(
    c: DDPPOConstants, epsilon_f: float, epsilon_f_grad: float, epsilon_r_grad: float
) -> float:
    """C6 ε_r^g + C7 ε_f^g + C8 ε_f."""
    check_number("epsilon_f_grad", epsilon_f_grad)
    check_number("epsilon_r_grad", epsilon_r_grad)
    C = ddppo_coefficients(c, epsilon_f)
    return C.C6 * epsilon_r_grad + C.C7 * epsilon_f_grad + C.C8 * epsilon_f


def _ddppo_drift(c: DDPPOConstants, epsilon_f: float) -> float:
    """C0 of Lemma 1, its largest over t."""
    check_number("epsilon_f", epsilon_f)
    if c.L_f >= 1 and c.D is None:
        raise InputError(f"D is None, expected the states' diameter where L_f = {c.L_f:.3g}")
    drift = 1 / (1 - c.L_f) if c.L_f < 1 else np.inf
    if c.D is not None and epsilon_f > 0:
        drift = min(drift, c.D / epsilon_f)
    # Still infinite only where ε_f = 0, which C0 multiplies everywhere.
    return drift if np.isfinite(drift) else 0.0
