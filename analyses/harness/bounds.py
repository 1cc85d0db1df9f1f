"""Papers' bounds on the error of a policy gradient, from measured constants.

    MAAC Lemma A.1   c1(H) ε_f + c2(H) ε_Q, errors of derivatives on common states
    DDPPO Theorem 1  C6 ε_r^g + C7 ε_f^g + C8 ε_f, errors of a model's derivatives and predictions
    RP Prop 5.8      bias b(h); Prop 5.10 (C.37): the horizon that balances it with the variance

Where the printed form does not follow from its own proof, the function is the repaired one and its
comment names the erratum. Horizons are integers from 0 and arrays of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import lambertw

Array = NDArray[np.float64]


# MAAC, Lemma A.1, repaired:  |∇J − ∇Ĵ| ≤ c1(H) ε_f + c2(H) ε_Q
#
#   c1(H) = L_r Σ_{t<H} (γK)ᵗ S_t(L) + (1 + L_π) L_Q (γK)^H S_H(L),    c2(H) = (γK)^H
#   S_m(L) = Σ_{j<m} Lʲ,   L = L_f (1 + L_π)
#
# Errata: the printed prefactor L ε_f/(L − 1) of the reward sum should be L_r ε_f/(L − 1) with L on
# its first fraction alone, and its critic term drops the action's share (1 + L_π). As printed the
# bound is violated.


@dataclass(frozen=True)
class MAACConstants:
    """L_f, L_pi, L_r, L_Q bound the derivatives of model, policy, reward and critic.

    K ≥ 1 bounds the sensitivities: |d(s_t, a_t)/dθ| ≤ Kᵗ, simulator and model, so that
    |∂π/∂θ| ≤ 1 (scale θ).
    """

    gamma: float
    L_f: float
    L_pi: float
    L_r: float
    L_Q: float
    K: float

    @property
    def critic_term_rises(self) -> bool:
        """γK > 1: a longer horizon makes the critic's share of the bound larger."""
        return self.gamma * self.K > 1


def maac_c1(H: ArrayLike, c: MAACConstants) -> Array:
    """Coefficient of the model's derivative error ε_f."""
    horizons = np.asarray(H)
    steps = np.arange(int(horizons.max(initial=0)) + 1)
    with np.errstate(over="ignore", invalid="ignore"):
        powers = (c.L_f * (1 + c.L_pi)) ** steps.astype(np.float64)
        S = np.concatenate([[0.0], np.cumsum(powers)])[:-1]
        rates = (c.gamma * c.K) ** steps * S
        reward = np.concatenate([[0.0], np.cumsum(rates)])[:-1]
        c1: Array = c.L_r * reward + (1 + c.L_pi) * c.L_Q * rates
    return np.where(np.isnan(c1), np.inf, c1)[horizons]


def maac_c2(H: ArrayLike, c: MAACConstants) -> Array:
    """Coefficient of the critic's derivative error ε_Q."""
    with np.errstate(over="ignore"):
        return np.asarray((c.gamma * c.K) ** np.asarray(H, dtype=np.float64))


def maac_error(H: ArrayLike, c: MAACConstants, epsilon_f: float, epsilon_Q: float) -> Array:
    """c1(H) ε_f + c2(H) ε_Q."""
    with np.errstate(invalid="ignore"):
        error = maac_c1(H, c) * epsilon_f + maac_c2(H, c) * epsilon_Q
    return np.asarray(np.nan_to_num(error, nan=0.0, posinf=np.inf))


# DDPPO, Theorem 1 (7, 33, 58):  ε_M ≤ C6 ε_r^g + C7 ε_f^g + C8 ε_f
#
#   C0 = min(D/ε_f, 1/(1 − L_f)),   C3 = L_1/(1 − γ),   C4 = γ L_r L_1²/(1 − γ)²
#   C5 = C0 L_1 L_rg/(1 − γ) + γ C0 L_fg L_r L_1²/(1 − γ)²
#   C6 = L_π (1 + γ L_f C3)/(1 − γ)
#   C7 = L_π (γ L_f C4 + γ L_1 L_r/(1 − γ))/(1 − γ)
#   C8 = (L_π C0 L_rg + γ L_π L_f C5 + γ L_1 L_r L_π L_fg C0/(1 − γ))/(1 − γ)
#        + L_πg C0 L_r (1 + γ L_1 L_f/(1 − γ))/(1 − γ)
#
# Errata: App. C.1's definitions are not the coefficients of its own (33): C6 has L_f L_π for L_π,
# C7 drops L_r, C8 (printed as a second C7) drops L_π from its first term, and C5 drops L_1². The
# last line of C8 is absent: ∂π/∂φ is taken on the model's states, and (32) takes it on the true.


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
    D: float = math.inf

    def drift(self, epsilon_f: float) -> float:
        """C0 of Lemma 1, its largest over t; 0 where it is infinite and ε_f, which it multiplies
        everywhere, is 0."""
        drift = 1 / (1 - self.L_f) if self.L_f < 1 else math.inf
        drift = min(drift, self.D / epsilon_f) if epsilon_f > 0 else drift
        assert math.isfinite(drift) or epsilon_f == 0, "D is needed where L_f is not below 1"
        return drift if math.isfinite(drift) else 0.0


class _Coefficients(NamedTuple):
    C6: float
    C7: float
    C8: float


def ddppo_coefficients(c: DDPPOConstants, epsilon_f: float = 0.0) -> _Coefficients:
    """C6, C7, C8 as they follow from (33)."""
    C0, left = c.drift(epsilon_f), 1 - c.gamma
    C3 = c.L_1 / left
    C4 = c.gamma * c.L_r * c.L_1**2 / left**2
    C5 = C0 * c.L_1 * c.L_rg / left + c.gamma * C0 * c.L_fg * c.L_r * c.L_1**2 / left**2
    later = c.gamma * c.L_1 * c.L_r / left
    states = c.L_pi * (C0 * c.L_rg + c.gamma * c.L_f * C5 + later * c.L_fg * C0)
    policy = c.L_pig * C0 * (c.L_r + c.L_f * later)
    return _Coefficients(
        c.L_pi * (1 + c.gamma * c.L_f * C3) / left,
        c.L_pi * (c.gamma * c.L_f * C4 + later) / left,
        (states + policy) / left,
    )


def ddppo_printed_coefficients(c: DDPPOConstants, epsilon_f: float = 0.0) -> _Coefficients:
    """C6, C7, C8 as App. C.1 defines them: not a bound, shown to say how far off they are."""
    C0, left = c.drift(epsilon_f), 1 - c.gamma
    C3 = c.L_1 / left
    C4 = c.gamma * c.L_r * c.L_1**2 / left**2
    C5 = C0 * c.L_1 * c.L_rg / left + c.gamma * C0 * c.L_fg * c.L_r / left**2
    later = c.L_1 * c.L_pi * c.gamma / left
    return _Coefficients(
        c.L_f * c.L_pi * (1 + c.gamma * C3) / left,
        (c.gamma * c.L_f * c.L_pi * C4 + later) / left,
        (C0 * c.L_rg + c.gamma * C5 * c.L_f * c.L_pi + later * c.L_r * c.L_fg * C0) / left,
    )


def ddppo_bias(
    c: DDPPOConstants, epsilon_f: float, epsilon_f_grad: float, epsilon_r_grad: float
) -> float:
    """C6 ε_r^g + C7 ε_f^g + C8 ε_f."""
    C = ddppo_coefficients(c, epsilon_f)
    return C.C6 * epsilon_r_grad + C.C7 * epsilon_f_grad + C.C8 * epsilon_f


# RP, (5.3):  b(h) ≤ C_f h⁴ L̃_f^{3h} L̃_π^{2h} ε_f + C_v h² γʰ L̃_f^{2h} L̃_π^h ε_v,   L̃ = max(L, 1)
#
# 0 at h = 0 whatever the critic, where no gradient is exact: read it from h = 1 on. (C.9) drops the
# path through the state: a bound only where the closed loop does not grow. Erratum: the proof's
# (C.19), (C.22) and (C.24) keep terms 2L_f, 2L_θ, 2L_r without a factor ε_f; (5.3) follows only on
# common noise and where derivatives differ by O(ε_f), as on linear models.
def rp_bias(
    h: ArrayLike, gamma: float, L_f: float, L_pi: float,
    epsilon_f: float, epsilon_v: float, C_f: float, C_v: float,
) -> Array:  # fmt: skip
    """From the errors (4.7), (4.8) of the model's and critic's derivatives; κ = 1."""
    steps, L_f, L_pi = np.asarray(h, dtype=np.float64), max(L_f, 1.0), max(L_pi, 1.0)
    with np.errstate(over="ignore", invalid="ignore"):
        model = C_f * steps**4 * L_f ** (3 * steps) * L_pi ** (2 * steps) * epsilon_f
        critic = C_v * steps**2 * (gamma * L_f**2 * L_pi) ** steps * epsilon_v
        return np.asarray(model + critic, dtype=np.float64)


# RP, (C.37), with l = log 1/γ:   h* = 3/(2l) · W₀(⅔ l^{4/3} (ε_v/ε_f)^{2/3})
#
# Errata: the Proposition drops the prefactor 3/(2l); (C.39) has 5/2, 2/5 and 6/5 where (C.37) has
# 3/2, 2/3 and 4/3.
def rp_optimal_horizon(gamma: float, epsilon_f: float, epsilon_v: float) -> float:
    """h*, of a surrogate: the bounds themselves are smallest at h = 0, whatever the errors."""
    rate = -math.log(gamma)
    argument = 2 / 3 * rate ** (4 / 3) * (epsilon_v / epsilon_f) ** (2 / 3)
    return float(3 / (2 * rate) * lambertw(argument).real)
