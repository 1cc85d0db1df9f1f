"""RP Propositions 5.4, 5.8 and 5.10: variance, bias and the horizon that balances them.

    v(h) ≤ (C_r h⁸ L̃_f^{6h} L̃_π^{4h} + C_q γ^{2h} h⁶ L̃_f^{6h} L̃_π^{4h}) / N                (5.1)
    b(h) ≤ κ′ (κ C_f h⁴ L̃_f^{3h} L̃_π^{2h} ε_f + C_v h² γʰ L̃_f^{2h} L̃_π^h ε_v)               (5.3)
    L̃ = max(L, 1),   κ′ = β + κ (1 − β),   C_r, C_q, C_f, C_v hidden by the papers' O(·)

Both are 0 at h = 0 whatever the critic, where no gradient is exact: read them from h = 1 on. And
(C.9) drops the path through the state (∂s_i/∂s_{i−1}): with L_f, L_π < 1 a sensitivity may still
grow by up to L_f √(1 + L_π²) per step, and where the closed loop does, no C makes them bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammainc, lambertw

from gradlab.errors import InputError
from gradlab.statistics.bounds.improvement import (
    Applies,
    Array,
    check_constants,
    check_discount,
    check_horizons,
    check_number,
)


@dataclass(frozen=True)
class RPConstants:
    """What the three propositions share.

    Attributes:
        L_f, L_pi: Lipschitz constants of model and policy in their arguments together.
        closed_loop: largest |d s'/d s| along the policy where it was measured; None: at most
            L_f √(1 + L_pi²).
        kappa: of Assumption 5.7, of the starts against the visited states.
        beta: share of visited states among the starts.
        N: samples in a gradient.
    """

    gamma: float
    L_f: float
    L_pi: float
    closed_loop: float | None = None
    kappa: float = 1.0
    beta: float = 0.0
    N: int = 1

    def __post_init__(self) -> None:
        check_constants(self)
        check_discount(self.gamma)
        if self.beta > 1:
            raise InputError(f"beta is {self.beta!r}, expected a share from 0 to 1")
        if self.N < 1:
            raise InputError(f"N is {self.N!r}, expected at least one sample")

    @property
    def growth(self) -> float:
        """Largest factor per step by which a derivative of the state can grow."""
        if self.closed_loop is not None:
            return self.closed_loop
        return self.L_f * math.sqrt(1 + self.L_pi**2)

    @property
    def applies(self) -> Applies:
        """Of Proposition 5.10; 5.4 and 5.8 need only the second half, growth of at most 1."""
        large = {"L_f": self.L_f, "L_pi": self.L_pi}
        large = {name: value for name, value in large.items() if value >= 1}
        if large:
            got = " and ".join(f"{name} = {value:.3g}" for name, value in large.items())
            rest = "so variance and bias may grow exponentially and h* is no optimum."
            return Applies(
                False,
                f"Assumptions of RP Prop 5.10 do not hold (measured {got}, not below 1), {rest}",
            )
        if self.growth > 1:
            got = f"may grow by {self.growth:.3g} per step"
            rest = "so the propositions may fail although L_f and L_pi are below 1."
            return Applies(False, f"The state path that RP (C.9) drops {got}, {rest}")
        return Applies(True, "Assumptions of RP Prop 5.10 hold for the measured constants.")


def rp_variance(h: ArrayLike, c: RPConstants, C_r: float = 1.0, C_q: float = 1.0) -> Array:
    """Proposition 5.4, (5.1): trace of the covariance of a gradient over N samples."""
    steps = check_horizons("h", h).astype(np.float64)
    check_number("C_r", C_r)
    check_number("C_q", C_q)
    L_f, L_pi = max(c.L_f, 1.0), max(c.L_pi, 1.0)
    with np.errstate(over="ignore", invalid="ignore"):
        size = C_r * steps**8 + C_q * c.gamma ** (2 * steps) * steps**6
        return np.asarray(size * L_f ** (6 * steps) * L_pi ** (4 * steps) / c.N)


def rp_bias(
    h: ArrayLike,
    c: RPConstants,
    epsilon_f: float,
    epsilon_v: float,
    C_f: float = 1.0,
    C_v: float = 1.0,
) -> Array:
    """Proposition 5.8, (5.3), from the errors (4.7), (4.8) of the model's and critic's derivatives.

    Erratum: the proof's (C.19), (C.22) and (C.24) keep terms 2L_f, 2L_θ, 2L_r without a factor ε_f.
    (5.3) follows only on common noise and where derivatives differ by O(ε_f), as on linear models.
    """
    steps = check_horizons("h", h).astype(np.float64)
    for name, value in dict(epsilon_f=epsilon_f, epsilon_v=epsilon_v, C_f=C_f, C_v=C_v).items():
        check_number(name, value)
    L_f, L_pi = max(c.L_f, 1.0), max(c.L_pi, 1.0)
    kappa = c.beta + c.kappa * (1 - c.beta)
    with np.errstate(over="ignore", invalid="ignore"):
        model = C_f * c.kappa * steps**4 * L_f ** (3 * steps) * L_pi ** (2 * steps) * epsilon_f
        critic = C_v * steps**2 * (c.gamma * L_f**2 * L_pi) ** steps * epsilon_v
        return np.asarray(kappa * (model + critic), dtype=np.float64)


# RP Proposition 5.10, (C.37), with l = log 1/γ:
#
#   h* = 3/(2l) · W₀(⅔ l^{4/3} (ε_v/ε_f)^{2/3})
#
# Errata: the Proposition drops the prefactor 3/(2l); (C.39) has 5/2, 2/5 and 6/5 where (C.37) has
# 3/2, 2/3 and 4/3.
def rp_optimal_horizon(gamma: float, epsilon_f: float, epsilon_v: float) -> float:
    """h* of (C.37): the minimum of a surrogate (`rp_surrogate`), not of the bounds.

    From the derivative of b² the proof drops the term 4h³γ^{2h} ε_v² and the constants 8 and 2.
    The bounds themselves are 0 at h = 0, their smallest value whatever the errors.

    Returns:
        A real number of steps; infinite for a perfect model, unless the critic is perfect too.
    """
    rate = _rate(gamma)
    check_number("epsilon_f", epsilon_f)
    check_number("epsilon_v", epsilon_v)
    if epsilon_v == 0:
        return 0.0
    if epsilon_f == 0:
        return math.inf
    argument = 2 / 3 * rate ** (4 / 3) * (epsilon_v / epsilon_f) ** (2 / 3)
    return float(3 / (2 * rate) * lambertw(argument).real)


# (C.38):  h = W₀(2 l²)/(2l), where the derivative (C.30) of the variance's surrogate is 0.
def rp_variance_horizon(gamma: float) -> float:
    """The variance's own h; with both, the surrogate's minimum lies between this and h*."""
    rate = _rate(gamma)
    return float(lambertw(2 * rate**2).real / (2 * rate))


# Surrogate: the integral over h of (C.30),
#
#   g(h) = h⁸ ε_f²/8 − l ε_v² ∫₀ʰ x⁴ γ^{2x} dx  +  (h⁸/8 − l ∫₀ʰ x⁶ γ^{2x} dx)/N
#   ∫₀ʰ xᵏ e^{−2lx} dx = k! P(k + 1, 2lh)/(2l)^{k+1},    P the regularised incomplete gamma
def rp_surrogate(
    h: ArrayLike, gamma: float, epsilon_f: float, epsilon_v: float, N: float = math.inf
) -> Array:
    """What Proposition 5.10 minimises, for real h from 0; N = ∞ leaves the variance out."""
    rate, steps = _rate(gamma), np.asarray(h, dtype=np.float64)
    check_number("epsilon_f", epsilon_f)
    check_number("epsilon_v", epsilon_v)
    if not N > 0:
        raise InputError(f"N is {N!r}, expected a number of samples above 0")
    if not (np.isfinite(steps).all() and steps.min(initial=0) >= 0):
        raise InputError("h has entries that are not finite numbers from 0")

    def moment(k: int) -> Array:
        scaled = gammainc(k + 1, 2 * rate * steps) / (2 * rate) ** (k + 1)
        return np.asarray(math.factorial(k) * scaled, dtype=np.float64)

    bias = steps**8 * epsilon_f**2 / 8 - rate * epsilon_v**2 * moment(4)
    return np.asarray(bias + (steps**8 / 8 - rate * moment(6)) / N, dtype=np.float64)


def _rate(gamma: float) -> float:
    check_discount(gamma, below_one=True)
    return -math.log(gamma)
