"""The papers' bounds on the error of a policy gradient, from measured constants.

    MPG Theorem 2      first-action gradient, model error growing linearly with the horizon
    MAAC Lemma A.1     c1(H) ε_f + c2(H) ε_Q, errors of derivatives on common states

RP's three propositions are in `bounds_rp`, DDPPO's theorem in `bounds_ddppo`. Each paper
has a frozen set of constants that says in a sentence whether its assumptions hold. Where the
printed form does not follow from its own proof, the function is the repaired one and its comment
names the erratum. Constants that a paper leaves open are arguments. Horizons are arrays of
integers from 0; bounds have their shape.

DDPPO Theorem 1: three errors of a model bound the bias of the policy gradient (eq. 7, 33, 58).

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

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradlab.errors import InputError

Array = NDArray[np.float64]


class Applies(NamedTuple):
    """Whether the assumptions hold for the measured constants, and the sentence that says so."""

    holds: bool
    sentence: str


# MPG, Theorem 2 (App. A-E, A-F)
#
#   |∇J_n − ∇J| ≤ B_θ (Σ_{k<n} γᵏ U_r(k) + γⁿ U_q(n))
#   chain(k)    = B_fs^{k−1} B_δa + B_pa ((B_ps + Δ_k)^{k−1} − B_ps^{k−1})
#   Δ_k         = L_∇f c_m (k − 1) + B_δs
#   U_r(k)      = (L_∇r c_m k + B_δr) B_fs^{k−1} B_fa + B_rs chain(k)               U_r(0) = B_δra
#   U_q(k)      = L_∇Q c_m k B_fs^{k−1} B_fa + B_Qs chain(k) + B_pa B_ps^{k−1} (B_qs + c_d E|ε|)
#   U_q(0)      = B_qa + B_pa c_d E|ε|,     c_d = γ/(1 − γ) L_∇q B_ps
#
# Errata: App. A-E closes Σ_{j≥1} C(k−1, j) B_ps^{k−1−j} Δʲ = (B_ps + Δ)^{k−1} − B_ps^{k−1} with
# Δ^{k−1}, which is smaller; it counts one factor B_fs or B_ps for a product of k − 1 steps (here
# they are per step); and its order o((c_m k)ᵏ) needs L_∇f ≤ 1. The paper takes the reward as known:
# B_δr and B_δra, the errors of a model's own reward, are added here.


@dataclass(frozen=True)
class MPGConstants:
    """Suprema over the states in question; along π means the derivative of s ↦ g(s, π(s)).

    Attributes:
        B_theta: |∂π/∂θ|.
        c_m: model's state error over the number of steps (`linear_growth` of measured errors).
        B_fs, B_ps: |∂_s| of one step along π, of model and simulator.
        B_fa, B_pa: |∂_a| of one step, of model and simulator.
        B_delta_s, B_delta_a: |∂| of their difference, along π and in the action.
        B_rs, B_Qs: |∂_s r|, |∂_s Q̂| along π.
        L_grad_f, L_grad_r, L_grad_Q, L_grad_q: Lipschitz constants of the model's, the reward's,
            the critic's and the noisy Q's derivative along π.
        B_qs, B_qa: error of the critic's derivative along π and in the action.
        noise: E|ε| of the observations.
        B_delta_r, B_delta_ra: error of the reward's derivative along π and in the action.
    """

    gamma: float
    B_theta: float
    c_m: float
    B_fs: float
    B_ps: float
    B_fa: float
    B_pa: float
    B_delta_s: float
    B_delta_a: float
    B_rs: float
    B_Qs: float
    B_qs: float
    B_qa: float
    L_grad_f: float = 0.0
    L_grad_r: float = 0.0
    L_grad_Q: float = 0.0
    L_grad_q: float = 0.0
    noise: float = 0.0
    B_delta_r: float = 0.0
    B_delta_ra: float = 0.0

    def __post_init__(self) -> None:
        check_constants(self)
        check_discount(self.gamma, below_one=True)

    @property
    def applies(self) -> Applies:
        if self.L_grad_f > 1:
            return Applies(
                False,
                f"The order printed in MPG Thm 2 does not follow (measured L_grad_f = "
                f"{self.L_grad_f:.3g} > 1), so only its explicit constants are a bound.",
            )
        return Applies(True, "Assumptions of MPG Thm 2 hold for the measured constants.")


def mpg_bias(n: ArrayLike, c: MPGConstants) -> Array:
    """Theorem 2 with explicit constants, in units of the gradient."""
    horizons = check_horizons("n", n)
    steps = np.arange(int(horizons.max(initial=0)) + 1, dtype=np.float64)
    c_d = c.gamma / (1 - c.gamma) * c.L_grad_q * c.B_ps
    before = np.maximum(steps - 1, 0)
    with np.errstate(over="ignore", invalid="ignore"):
        delta = c.L_grad_f * c.c_m * before + c.B_delta_s
        chain = c.B_fs**before * c.B_delta_a
        chain = chain + c.B_pa * ((c.B_ps + delta) ** before - c.B_ps**before)
        drift = c.c_m * steps * c.B_fs**before * c.B_fa
        U_r = c.L_grad_r * drift + c.B_rs * chain + c.B_delta_r * c.B_fs**before * c.B_fa
        critic = c.B_pa * c.B_ps**before * (c.B_qs + c_d * c.noise)
        U_q = c.L_grad_Q * drift + c.B_Qs * chain + critic
        U_r[0], U_q[0] = c.B_delta_ra, c.B_qa + c.B_pa * c_d * c.noise
        reward = np.concatenate([[0.0], np.cumsum(c.gamma**steps * U_r)])[:-1]
        bound: Array = c.B_theta * (reward + c.gamma**steps * U_q)
    return np.where(np.isnan(bound), np.inf, bound)[horizons]


# MPG Theorem 2 as printed: C_f n (γ c_m n)ⁿ + γⁿ C_q (B_qs + E|ε|);  n = 0: C_q (B_qa + E|ε|).
def mpg_shape(n: ArrayLike, c: MPGConstants, C_f: float, C_q: float) -> Array:
    """The printed order of Theorem 2, with the constants it leaves open as arguments."""
    horizons = check_horizons("n", n)
    check_number("C_f", C_f)
    check_number("C_q", C_q)
    with np.errstate(over="ignore"):
        model = C_f * horizons * (c.gamma * c.c_m * horizons) ** horizons
    error = np.where(horizons == 0, c.B_qa, c.B_qs) + c.noise
    return np.asarray(model + c.gamma**horizons * C_q * error, dtype=np.float64)


def linear_growth(errors: ArrayLike) -> float:
    """MPG Condition 1: the smallest c_m with |s_i − ŝ_i| ≤ c_m i, for errors [H] of steps 1 … H."""
    values = np.asarray(errors, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all() or values.min() < 0:
        raise InputError("errors is not a list of finite distances from 0, one per step from 1")
    return float((values / np.arange(1, len(values) + 1)).max())


# MAAC, Lemma A.1, repaired:  |∇J − ∇Ĵ| ≤ c1(H) ε_f + c2(H) ε_Q + Σ_{t<H} (γK)ᵗ ε_r
#
#   c1(H) = L_r Σ_{t<H} (γK)ᵗ S_t(L) + (1 + L_π) L_Q (γK)^H S_H(L),    c2(H) = (γK)^H
#   S_m(L) = Σ_{j<m} Lʲ,   L = L_f (1 + L_π)
#
# Errata: the printed prefactor L ε_f/(L − 1) of the reward sum should be L_r ε_f/(L − 1) with L on
# its first fraction alone, and its critic term drops the action's share (1 + L_π). As printed the
# bound is violated. The paper takes the reward as known: ε_r, the error of a model's own reward's
# derivative, is added here.


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

    def __post_init__(self) -> None:
        check_constants(self)
        check_discount(self.gamma)

    @property
    def critic_term_rises(self) -> bool:
        """γK > 1: a longer horizon makes the critic's share of the bound larger."""
        return self.gamma * self.K > 1

    @property
    def applies(self) -> Applies:
        if self.K < 1:
            sentence = f"(measured K = {self.K:.3g} < 1), so take K = 1."
            return Applies(False, f"Assumptions of MAAC Lemma A.1 do not hold {sentence}")
        if self.critic_term_rises:
            rate = f"gamma * K = {self.gamma * self.K:.3g} > 1"
            return Applies(
                True, f"Assumptions of MAAC Lemma A.1 hold, but {rate}: c2(H) rises with H."
            )
        return Applies(True, "Assumptions of MAAC Lemma A.1 hold, and c2(H) does not rise with H.")


def maac_c1(H: ArrayLike, c: MAACConstants) -> Array:
    """Coefficient of the model's derivative error ε_f."""
    horizons = check_horizons("H", H)
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
        return np.asarray((c.gamma * c.K) ** check_horizons("H", H).astype(np.float64))


def maac_error(
    H: ArrayLike, c: MAACConstants, epsilon_f: float, epsilon_Q: float, epsilon_r: float = 0.0
) -> Array:
    """c1(H) ε_f + c2(H) ε_Q + Σ_{t<H} (γK)ᵗ ε_r."""
    errors = dict(epsilon_f=epsilon_f, epsilon_Q=epsilon_Q, epsilon_r=epsilon_r)
    for name, value in errors.items():
        check_number(name, value)
    horizons = check_horizons("H", H)
    with np.errstate(over="ignore", invalid="ignore"):
        rates = (c.gamma * c.K) ** np.arange(int(horizons.max(initial=0)) + 1.0)
        rewards = np.concatenate([[0.0], np.cumsum(rates)])[horizons] * epsilon_r
        error = maac_c1(H, c) * epsilon_f + maac_c2(H, c) * epsilon_Q
    return np.asarray(
        np.nan_to_num(error, nan=0.0, posinf=np.inf) + np.nan_to_num(rewards, nan=0.0)
    )


def shortest_minimiser(bound: Callable[[Array], Array], horizons: ArrayLike) -> tuple[float, float]:
    """Brute force: where any bound is smallest on a grid of horizons, and its value there.

    Returns:
        The shortest of the minimisers, and the minimum.
    """
    grid = np.sort(np.asarray(horizons))
    if grid.ndim != 1 or not len(grid):
        raise InputError(f"horizons has shape {grid.shape}, expected at least one, in a row")
    values = np.asarray(bound(grid), dtype=np.float64)
    if values.shape != grid.shape or np.isnan(values).any():
        raise InputError("bound gives no number at some horizon")
    best = int(values.argmin())
    return float(grid[best]), float(values[best])


def check_constants(constants: object) -> None:
    """Every field of a dataclass is a finite number from 0, or None where it is not needed."""
    assert is_dataclass(constants)
    for field in fields(constants):
        value = getattr(constants, field.name)
        if value is not None:
            check_number(field.name, value)


def check_number(name: str, value: float) -> None:
    if not isinstance(value, int | float | np.number) or not np.isfinite(value) or value < 0:
        raise InputError(f"{name} is {value!r}, expected a finite number from 0")


def check_discount(gamma: float, below_one: bool = False) -> None:
    if not 0 < gamma <= 1 or (below_one and gamma == 1):
        end = "below" if below_one else "at most"
        raise InputError(f"gamma is {gamma!r}, expected a number above 0 and {end} 1")


def check_horizons(name: str, horizons: ArrayLike) -> NDArray[np.int64]:
    values = np.asarray(horizons)
    if not np.issubdtype(values.dtype, np.integer) or values.min(initial=0) < 0:
        raise InputError(f"{name} is {horizons!r}, expected integers from 0")
    return values.astype(np.int64)


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


class _DDPPOCoefficients(NamedTuple):
    C6: float
    C7: float
    C8: float


def ddppo_coefficients(c: DDPPOConstants, epsilon_f: float = 0.0) -> _DDPPOCoefficients:
    """C6, C7, C8 as they follow from (33)."""
    C0, left = _ddppo_drift(c, epsilon_f), 1 - c.gamma
    C3 = c.L_1 / left
    C4 = c.gamma * c.L_r * c.L_1**2 / left**2
    C5 = C0 * c.L_1 * c.L_rg / left + c.gamma * C0 * c.L_fg * c.L_r * c.L_1**2 / left**2
    later = c.gamma * c.L_1 * c.L_r / left
    states = c.L_pi * (C0 * c.L_rg + c.gamma * c.L_f * C5 + later * c.L_fg * C0)
    policy = c.L_pig * C0 * (c.L_r + c.L_f * later)
    return _DDPPOCoefficients(
        c.L_pi * (1 + c.gamma * c.L_f * C3) / left,
        c.L_pi * (c.gamma * c.L_f * C4 + later) / left,
        (states + policy) / left,
    )


def ddppo_printed_coefficients(c: DDPPOConstants, epsilon_f: float = 0.0) -> _DDPPOCoefficients:
    """C6, C7, C8 as App. C.1 defines them: not a bound, shown to say how far off they are."""
    C0, left = _ddppo_drift(c, epsilon_f), 1 - c.gamma
    C3 = c.L_1 / left
    C4 = c.gamma * c.L_r * c.L_1**2 / left**2
    C5 = C0 * c.L_1 * c.L_rg / left + c.gamma * C0 * c.L_fg * c.L_r / left**2
    later = c.L_1 * c.L_pi * c.gamma / left
    return _DDPPOCoefficients(
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
