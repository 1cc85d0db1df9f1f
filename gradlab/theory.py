"""The papers' bounds on policy gradients, and RP-PGM's optimal horizon, from measured constants.

    MPG      Conditions 1, 2; Lemmas 1–3; Theorem 2   |∇J_n − ∇J| ≤ B_θ (Σ_{k<n} γᵏ U_r + γⁿ U_q)
    MAAC     Lemmas A.1, A.2; Theorem A.1             |∇J − ∇Ĵ| ≤ c1(H) ε_f + c2(H) ε_Q
    DDPPO    C3–C8; Theorems 1, 2                     ε_M ≤ C6 ε_r^g + C7 ε_f^g + C8 ε_f
    RP-PGM   (4.7), (4.8), (5.2); Propositions 5.2, 5.4, 5.8, 5.10, h* by W; Corollary 5.12

A function is the bound that its proof gives. Where the print is another one, "Erratum" says how it
differs; what a paper hides in O(·) or "const" is an argument. Constants are suprema over the states
in question, of norms |·|_2 unless said; one that a theorem does not allow is refused with the
condition that fails. Gradients are ascent gradients of Σ γᵗ r, unscaled (RP-PGM: times 1 − γ where
its critic is). Lengths of states and actions are in the units of the task, errors of derivatives in
those of the derivative; horizons are integers from 0, one or an array, and bounds have their shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammainc, lambertw

from gradlab import validation
from gradlab.errors import InputError

Array = NDArray[np.float64]


def _unmet(conditions: Mapping[str, tuple[float, bool]]) -> tuple[str, ...]:
    """Of condition → (what was got, does it hold): those that do not, with what was got."""
    return tuple(
        f"{condition} (got {value:.4g})"
        for condition, (value, holds) in conditions.items()
        if not holds
    )


def _require(theorem: str, conditions: Mapping[str, tuple[float, bool]]) -> None:
    if unmet := _unmet(conditions):
        raise InputError(f"{theorem} does not apply, it needs {' and '.join(unmet)}")


def _check(constants: object, *optional: str) -> None:
    """Every field of a dataclass is a finite number from 0; `optional` ones may be None."""
    for name, value in vars(constants).items():
        if value is not None or name not in optional:
            validation.number(name, value, least=0)


def _horizons(name: str, value: ArrayLike) -> tuple[NDArray[np.int64], Array]:
    """The horizons, and every step 0 … of the longest."""
    n = np.asarray(value)
    if not np.issubdtype(n.dtype, np.integer) or n.min(initial=0) < 0:
        raise validation.expected(name, value, "an integer from 0, or an array of them")
    return n.astype(np.int64), np.arange(int(n.max(initial=0)) + 1, dtype=np.float64)


def _numbers(name: str, value: ArrayLike, dimensions: str) -> Array:
    """A finite array with as many dimensions as `dimensions` names, none of them empty."""
    found = np.asarray(value, dtype=np.float64)
    if found.ndim != len(dimensions.split(", ")) or not found.size or not np.isfinite(found).all():
        raise validation.expected(name, found, f"finite numbers [{dimensions}]")
    return found


def _gap(name: str, true: ArrayLike, guess: ArrayLike, dimensions: str) -> Array:
    """guess − true, of one shape."""
    one, other = _numbers(name, true, dimensions), _numbers(f"{name}_hat", guess, dimensions)
    if one.shape != other.shape:
        raise validation.expected(f"{name}_hat", other, f"the shape of {name}, {one.shape}")
    return other - one


def _before(terms: Array) -> Array:
    """Σ_{t<n} of terms t = 0, 1, …, at every n."""
    return np.concatenate([[0.0], np.cumsum(terms)])[:-1]


def _finite_or_infinite(bound: Array) -> Array:
    """0 · ∞ and ∞ − ∞ of an overflow bound nothing."""
    return np.where(np.isnan(bound), np.inf, bound)


# MPG


def visitation(transitions: ArrayLike, start: ArrayLike, gamma: float) -> Array:
    """ρ^π = (1 − γ) Σ_t γᵗ P(s_t) of a finite chain under its policy (RP-PGM's ν).

    MPG Lemma 1: ρ^π is the stationary d^π where the start is d^π, or as γ → 1. Erratum: the second
    holds where the chain forgets its start; with two closed classes it does not.

    Args:
        transitions: [S, S], rows sum to 1; start: [S], sums to 1; gamma: 0 ≤ γ < 1.
    """
    validation.number("gamma", gamma, least=0, below=1)
    P, begin = _numbers("transitions", transitions, "S, S"), _numbers("start", start, "S")
    if P.shape != (len(begin), len(begin)):
        raise validation.expected("transitions", P, f"one row for each of {len(begin)} states")
    for name, rows in (("transitions", P), ("start", begin[None])):
        if rows.min() < 0 or abs(rows.sum(axis=1) - 1).max() > 1e-9:
            raise validation.expected(name, rows, "probabilities from 0 that sum to 1")
    return np.asarray((1 - gamma) * np.linalg.solve(np.eye(len(P)) - gamma * P.T, begin))


def linear_growth(errors: ArrayLike) -> float:
    """MPG Condition 1: the smallest c_m with sup |s_{t+i} − ŝ_{t+i}| ≤ c_m i, in state units.

    Args:
        errors: [H], the largest distance of the model's states after 1 … H steps.
    """
    distances = _numbers("errors", errors, "H")
    if distances.min() < 0:
        raise validation.expected("errors", distances, "distances from 0")
    return float((distances / np.arange(1, len(distances) + 1)).max())


def critic_errors(
    q_s: ArrayLike, q_s_hat: ArrayLike, q_a: ArrayLike, q_a_hat: ArrayLike
) -> tuple[float, float]:
    """MPG Condition 2: B_qs and B_qa, the largest errors of ∇_s Q(s, π(s)) and of ∇_a Q(s, a).

    Args:
        q_s, q_s_hat: [N, ds], along π, of the noisy Q-value and of the critic; q_a, q_a_hat:
            [N, da], in the action alone.
    """
    gaps = _gap("q_s", q_s, q_s_hat, "N, ds"), _gap("q_a", q_a, q_a_hat, "N, da")
    B_qs, B_qa = (float(np.linalg.norm(gap, axis=1).max()) for gap in gaps)
    return B_qs, B_qa


@dataclass(frozen=True)
class MPGConstants:
    """Regular conditions of MPG, App. A-C; "along π" is the derivative of s ↦ g(s, π(s)).

    Attributes:
        gamma: γ < 1.
        B_theta: |∂π/∂θ|.
        c_m: of Condition 1 (`linear_growth`).
        B_fs, B_ps: |∂_s| of one step along π, of model and simulator. Erratum: the print takes
            one such factor for a product of k − 1 steps.
        B_fa, B_pa: |∂_a| of one step.
        B_delta_s, B_delta_a: |∂| of the difference of both, along π and in the action.
        B_rs, B_Qs: |∂_s r|, |∂_s Q_w| along π.
        B_qs, B_qa: of Condition 2 (`critic_errors`).
        L_grad_f, L_grad_r, L_grad_Q, L_grad_q: Lipschitz constants of the derivative along π of the
            model, the reward, the critic and the noisy q.
        noise: E|ε| of the observed states.
        B_delta_r, B_delta_ra: error of a model's own reward's derivative, along π and in the
            action; the paper takes the reward as known.
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
        _check(self)
        validation.number("gamma", self.gamma, above=0, below=1)


def mpg_noise(c: MPGConstants) -> tuple[float, float]:
    """MPG Lemma 2: c_s, c_a with |∇q − ∇qᵒ| ≤ c E|ε|, along π and in the action.

        c_s = L Σ_j γ^{j+1} B_ps^{j+1} = L γ B_ps / (1 − γ B_ps),    c_a = L B_pa γ / (1 − γ B_ps)

    Erratum: (13), (14) print γ/(1 − γ) L B_ps and that times B_pa, B_ps a supremum over products
    from the second step on: noise of the first step, which reaches c_a through no product, is lost.

    Raises:
        InputError: there is noise, and γ B_ps is not below 1.
    """
    if c.noise == 0 or c.L_grad_q == 0:
        return 0.0, 0.0
    _require("MPG Lemma 2", {"gamma * B_ps < 1": (c.gamma * c.B_ps, c.gamma * c.B_ps < 1)})
    c_s = c.L_grad_q * c.gamma * c.B_ps / (1 - c.gamma * c.B_ps)
    return c_s, c.L_grad_q * c.B_pa * c.gamma / (1 - c.gamma * c.B_ps)


def mpg_errors(k: ArrayLike, c: MPGConstants) -> tuple[Array, Array]:
    """MPG Lemma 3: U_r(k), U_q(k), errors of the k-th reward's and critic's ∇_{a_t}.

        Δ_k      = L_∇f c_m (k − 1) + B_δs
        chain(k) = B_fs^{k−1} B_δa + B_pa ((B_ps + Δ_k)^{k−1} − B_ps^{k−1})
        U_r(k)   = (L_∇r c_m k + B_δr) B_fs^{k−1} B_fa + B_rs chain(k),      U_r(0) = B_δra
        U_q(k)   = L_∇Q c_m k B_fs^{k−1} B_fa + B_Qs chain(k) + B_pa B_ps^{k−1} (B_qs + c_s E|ε|)
        U_q(0)   = B_qa + c_a E|ε|

    Erratum: App. A-E closes Σ_{j≥1} C(k−1, j) B_ps^{k−1−j} Δʲ with Δ^{k−1} in the place of
    (B_ps + Δ)^{k−1} − B_ps^{k−1}, which is larger.
    """
    horizons, steps = _horizons("k", k)
    c_s, c_a = mpg_noise(c)
    before = np.maximum(steps - 1, 0)
    with np.errstate(over="ignore", invalid="ignore"):
        delta = c.L_grad_f * c.c_m * before + c.B_delta_s
        chain = c.B_fs**before * c.B_delta_a
        chain = chain + c.B_pa * ((c.B_ps + delta) ** before - c.B_ps**before)
        model = c.B_fs**before * c.B_fa
        U_r = (c.L_grad_r * c.c_m * steps + c.B_delta_r) * model + c.B_rs * chain
        U_q = c.L_grad_Q * c.c_m * steps * model + c.B_Qs * chain
        U_q = U_q + c.B_pa * c.B_ps**before * (c.B_qs + c_s * c.noise)
    U_r[0], U_q[0] = c.B_delta_ra, c.B_qa + c_a * c.noise
    return _finite_or_infinite(U_r)[horizons], _finite_or_infinite(U_q)[horizons]


def mpg_bias(n: ArrayLike, c: MPGConstants) -> Array:
    """MPG Theorem 2 with its constants: |∇J_n − ∇J| ≤ B_θ (Σ_{k<n} γᵏ U_r(k) + γⁿ U_q(n))."""
    horizons, steps = _horizons("n", n)
    U_r, U_q = mpg_errors(steps.astype(np.int64), c)
    with np.errstate(over="ignore", invalid="ignore"):
        discount = c.gamma**steps
        bound = c.B_theta * (_before(discount * U_r) + discount * U_q)
    return _finite_or_infinite(bound)[horizons]


def mpg_order(n: ArrayLike, c: MPGConstants, C_f: float, C_q: float) -> Array:
    """MPG Theorem 2 as printed: C_f n (γ c_m n)ⁿ + γⁿ C_q (B_qs + E|ε|); at 0: C_q (B_qa + E|ε|).

    Args:
        C_f, C_q: the constants that it leaves open.

    Raises:
        InputError: L_∇f > 1, with which powers of Δ are no o((c_m k)ᵏ).
    """
    _require("MPG Theorem 2's order", {"L_grad_f <= 1": (c.L_grad_f, c.L_grad_f <= 1)})
    horizons, _ = _horizons("n", n)
    validation.number("C_f", C_f, least=0)
    validation.number("C_q", C_q, least=0)
    with np.errstate(over="ignore"):
        model = C_f * horizons * (c.gamma * c.c_m * horizons) ** horizons
    error = np.where(horizons == 0, c.B_qa, c.B_qs) + c.noise
    return np.asarray(model + c.gamma**horizons * C_q * error, dtype=np.float64)


# MAAC


@dataclass(frozen=True)
class MAACConstants:
    """Of MAAC Lemma A.1.

    Attributes:
        gamma: γ ≤ 1.
        L_f, L_pi, L_r, L_Q: |∂| of model and simulator, of policy, reward and critic in (s, a).
        K: K ≥ 1 with |d(s_t, a_t)/dθ| ≤ Kᵗ, simulator and model: θ scaled so that |∂π/∂θ| ≤ 1.
    """

    gamma: float
    L_f: float
    L_pi: float
    L_r: float
    L_Q: float
    K: float

    def __post_init__(self) -> None:
        _check(self)
        validation.number("gamma", self.gamma, above=0, most=1)
        _require("MAAC Lemma A.1", {"K >= 1": (self.K, self.K >= 1)})

    @property
    def critic_term_rises(self) -> bool:
        """γK > 1: a longer horizon makes the critic's share of the bound larger."""
        return self.gamma * self.K > 1


def maac_c1(H: ArrayLike, c: MAACConstants) -> Array:
    """MAAC Lemma A.1, coefficient of the model's derivative error ε_f.

        c1(H) = L_r Σ_{t<H} (γK)ᵗ S_t(L) + (1 + L_π) L_Q (γK)^H S_H(L)
        S_m(L) = Σ_{j<m} Lʲ,    L = L_f (1 + L_π)

    Errata: the print has L ε_f/(L − 1) in front of the whole reward sum, for L_r ε_f/(L − 1) with L
    on its first fraction alone; its critic's term drops the action's share 1 + L_π; M sums rewards
    to H, the objective to H − 1. As printed the bound is violated.
    """
    horizons, steps = _horizons("H", H)
    with np.errstate(over="ignore", invalid="ignore"):
        S = _before((c.L_f * (1 + c.L_pi)) ** steps)
        rates = (c.gamma * c.K) ** steps * S
        c1 = c.L_r * _before(rates) + (1 + c.L_pi) * c.L_Q * rates
    return _finite_or_infinite(c1)[horizons]


def maac_c2(H: ArrayLike, c: MAACConstants) -> Array:
    """MAAC Lemma A.1, coefficient (γK)^H of the critic's derivative error ε_Q."""
    horizons, steps = _horizons("H", H)
    with np.errstate(over="ignore"):
        return np.asarray((c.gamma * c.K) ** steps)[horizons]


def maac_error(
    H: ArrayLike, c: MAACConstants, epsilon_f: float, epsilon_Q: float, epsilon_r: float = 0.0
) -> Array:
    """MAAC Lemma A.1: |∇J_H − ∇Ĵ_H| ≤ c1(H) ε_f + c2(H) ε_Q + Σ_{t<H} (γK)ᵗ ε_r.

    Errors of derivatives on common states; on the model's own the lemma does not hold. It speaks of
    the H-step objective, which is ∇J where Q is exact.

    Args:
        epsilon_f, epsilon_Q: of model and critic in (s, a); epsilon_r: of a model's own reward,
            which the paper takes as known.
    """
    errors = {"epsilon_f": epsilon_f, "epsilon_Q": epsilon_Q, "epsilon_r": epsilon_r}
    for name, value in errors.items():
        validation.number(name, value, least=0)
    horizons, steps = _horizons("H", H)
    with np.errstate(over="ignore"):
        rewards = _before((c.gamma * c.K) ** steps)[horizons]
    parts = zip(errors.values(), (maac_c1(H, c), maac_c2(H, c), rewards), strict=True)
    # An error of 0 adds nothing, whatever overflows in front of it.
    return np.asarray(
        sum(error * factor for error, factor in parts if error) + np.zeros(np.shape(H))
    )


def maac_distance(alpha: float, fisher: float, error: ArrayLike) -> Array:
    """MAAC Lemma A.2: max_s D_TV(π_θ, π_θ̂) ≤ α c3 (c1 ε_f + c2 ε_Q),  c3 = √λ_max(F) / 2.

    θ and θ̂ are one step along the exact and along the approximate gradient. By Pinsker, with
    KL ≈ ½ Δθᵀ F Δθ of small steps (exact for Gaussians of fixed width and a mean linear in θ), so
    that the paper's c̃ is λ_max(F)/2.

    Args:
        alpha: the rate α; fisher: λ_max(F), the largest eigenvalue of the policy's Fisher
            information over the states, per unit θ²: |∂π/∂θ|²/σ² of a Gaussian of width σ.
        error: of the gradient, as of `maac_error`.
    """
    validation.number("alpha", alpha, least=0)
    validation.number("fisher", fisher, least=0)
    return np.asarray(alpha * math.sqrt(fisher) / 2 * np.asarray(error, dtype=np.float64))


def maac_loss(gamma: float, r_max: float, distance: ArrayLike) -> Array:
    """MAAC Theorem A.1: J(θ̂) ≥ J(θ) − 2 r_max D / (1 − γ)², D of `maac_distance`; the loss.

    Erratum: the print has α twice (once in the distance) and one power of 1/(1 − γ) too few: what
    the policy changes at one step stays changed for 1/(1 − γ) steps.

    Args:
        r_max: largest |r|.
    """
    validation.number("gamma", gamma, least=0, below=1)
    validation.number("r_max", r_max, least=0)
    return np.asarray(2 * r_max / (1 - gamma) ** 2 * np.asarray(distance, dtype=np.float64))


# DDPPO


@dataclass(frozen=True)
class DDPPOConstants:
    """Of DDPPO Theorem 1, along a policy whose derivative in the state is at most 1.

    Attributes:
        gamma: γ < 1.
        L_f: |∂| of the transition in state, in action and along the policy.
        L_1: |∂s_t/∂s_0| of any number of steps along the policy (Assumption 2).
        L_r: |∂r| in action and along the policy.
        L_pi: |∂π/∂φ| (16).
        L_fg, L_rg, L_pig: Lipschitz constants of those derivatives in the state.
        D: diameter of the states (14); needed where L_f is not below 1.
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
        _check(self, "D")
        validation.number("gamma", self.gamma, above=0, below=1)

    @property
    def L_R(self) -> float:
        """DDPPO Lemma 8 (79): the largest |∇R| of a path, in gradient units."""
        later = self.gamma * self.L_1 * self.L_f / (1 - self.gamma)
        return self.L_r * self.L_pi * (1 + later) / (1 - self.gamma)


class DDPPOCoefficients(NamedTuple):
    """C0 of Lemma 1, C3–C5 of Lemma 4, C6–C8 of Theorem 1."""

    C0: float
    C3: float
    C4: float
    C5: float
    C6: float
    C7: float
    C8: float


def ddppo_coefficients(c: DDPPOConstants, epsilon_f: float = 0.0) -> DDPPOCoefficients:
    """DDPPO's C0–C8 as they follow from (33).

        C0 = min(D/ε_f, 1/(1 − L_f))                  |s̃_t − s_t| ≤ C0 ε_f at any t
        C3 = L_1/(1 − γ)        C4 = γ L_r L_1²/(1 − γ)²
        C5 = C0 L_1 L_rg/(1 − γ) + γ C0 L_fg L_r L_1²/(1 − γ)²
        C6 = L_π (1 + γ L_f C3)/(1 − γ)
        C7 = L_π (γ L_f C4 + γ L_1 L_r/(1 − γ))/(1 − γ)
        C8 = L_π (C0 L_rg + γ L_f C5 + γ L_1 L_r L_fg C0/(1 − γ))/(1 − γ)
             + L_πg C0 (L_r + γ L_1 L_r L_f/(1 − γ))/(1 − γ)

    Errata: (58) drops L_1² from C5. App. C.1's definitions are not (33)'s coefficients: C6 has
    L_f L_π for L_π, C7 drops L_r, C8 (printed as a second C7) drops L_π from its first term. The
    last line of C8 is absent: ∂π/∂φ is on the model's states, (32) takes it on the true ones.

    Raises:
        InputError: L_f is not below 1, and there is no D.
    """
    validation.number("epsilon_f", epsilon_f, least=0)
    bounded = c.L_f < 1 or c.D is not None
    _require("DDPPO Lemma 1", {"L_f < 1, or the states' diameter D": (c.L_f, bounded)})
    drifts = [1 / (1 - c.L_f)] if c.L_f < 1 else []
    drifts += [c.D / epsilon_f] if c.D is not None and epsilon_f > 0 else []
    C0 = min(drifts, default=0.0)  # none only where ε_f = 0, which C0 multiplies everywhere
    left = 1 - c.gamma
    C3 = c.L_1 / left
    C4 = c.gamma * c.L_r * c.L_1**2 / left**2
    C5 = C0 * c.L_1 * c.L_rg / left + c.gamma * C0 * c.L_fg * c.L_r * c.L_1**2 / left**2
    later = c.gamma * c.L_1 * c.L_r / left
    states = c.L_pi * (C0 * c.L_rg + c.gamma * c.L_f * C5 + later * c.L_fg * C0)
    policy = c.L_pig * C0 * (c.L_r + c.L_f * later)
    C6 = c.L_pi * (1 + c.gamma * c.L_f * C3) / left
    C7 = c.L_pi * (c.gamma * c.L_f * C4 + later) / left
    return DDPPOCoefficients(C0, C3, C4, C5, C6, C7, (states + policy) / left)


def ddppo_bias(
    c: DDPPOConstants, epsilon_f: float, epsilon_f_grad: float, epsilon_r_grad: float
) -> float:
    """DDPPO Theorem 1 (7): ε_M ≤ C6 ε_r^g + C7 ε_f^g + C8 ε_f.

    Args:
        epsilon_f: of predicted states, in their units; epsilon_f_grad, epsilon_r_grad: of the
            derivatives of transition and reward.
    """
    validation.number("epsilon_f_grad", epsilon_f_grad, least=0)
    validation.number("epsilon_r_grad", epsilon_r_grad, least=0)
    C = ddppo_coefficients(c, epsilon_f)
    return C.C6 * epsilon_r_grad + C.C7 * epsilon_f_grad + C.C8 * epsilon_f


@dataclass(frozen=True)
class AscentConstants:
    """Of DDPPO Theorem 2.

    Attributes:
        U_J: largest |J|, at most r_max/(1 − γ) (Lemma 6).
        L_J: largest |∇J|; L_Jg: Lipschitz constant of ∇J and of a sample's gradient in φ (Lemma 7).
        L_R: largest gradient of one sample, the model's too (`DDPPOConstants.L_R`).
        m, rho: d_TV(P(s_{t+τ} | s_t), μ) ≤ m ρ^τ, 0 ≤ ρ < 1 (6); m = 0 for independent samples.
    """

    U_J: float
    L_J: float
    L_Jg: float
    L_R: float
    m: float = 0.0
    rho: float = 0.0

    def __post_init__(self) -> None:
        _check(self)
        _require("DDPPO Theorem 2", {"rho < 1 (Assumption 5)": (self.rho, self.rho < 1)})


def ddppo_convergence(
    alpha: ArrayLike, c: AscentConstants, epsilon_M: float, tau: int = 0
) -> float:
    """DDPPO Theorem 2 (8), repaired: min_t E|∇J(φ_t)|² ≤ 2 (2U_J + B2)/Σα + ε_M².

        B2 = Σ_{t≤τ} α_t L_J (L_J + L_R) + ½ L_Jg L_R² Σ α_t²
             + Σ_{t>τ} α_t (L_Jg L_R (L_R + 3 L_J) Σ_{t−τ≤k<t} α_k + 2 L_J L_R m ρ^τ)

    Errata: (72) bounds an inner product by one of its factors, so that the term 2 L_J m ρ^τ of (8)
    has the wrong power of the reward's unit and is violated by slow chains of large rewards; (8),
    (39) and (47) differ in the powers of L_J and L_Jg; (64) forgets that ∇J and the inner product
    move with φ. (37) takes ε_M as the error of a gradient's mean given φ_t.

    Args:
        alpha: [T], the rates α_1 … α_T; tau: steps after which data count as fresh, below T.
        epsilon_M: bias of the gradient, of `ddppo_bias`.

    Returns:
        In squared gradient units.
    """
    rates = _numbers("alpha", alpha, "T")
    if rates.min() < 0 or not rates.sum() > 0:
        raise validation.expected("alpha", rates, "rates from 0, not all of them 0")
    validation.number("epsilon_M", epsilon_M, least=0)
    lag = validation.whole("tau", tau)
    _require("DDPPO Theorem 2", {"tau < T": (lag, lag < len(rates))})
    sums = np.concatenate([[0.0], np.cumsum(rates)])
    later, moved = rates[lag:], (sums[lag:] - sums[: len(sums) - lag])[:-1]
    B2 = sums[lag] * c.L_J * (c.L_J + c.L_R) + c.L_Jg * c.L_R**2 / 2 * float(rates @ rates)
    B2 += c.L_Jg * c.L_R * (c.L_R + 3 * c.L_J) * float(later @ moved)
    B2 += 2 * c.L_J * c.L_R * c.m * c.rho**lag * float(later.sum())
    return float(2 * (2 * c.U_J + B2) / sums[-1] + epsilon_M**2)


# RP-PGM


def rp_model_error(A: ArrayLike, A_hat: ArrayLike, B: ArrayLike, B_hat: ArrayLike) -> float:
    """RP-PGM (4.7): ε_f = max_i E[|∂s_i/∂s_{i−1} − ^| + |∂s_i/∂a_{i−1} − ^|], spectral norms.

    Erratum: the print has the laws of DP and DR the wrong way round; a model of RP-DP is looked at
    on its own states, one of RP-DR on those of the simulator.

    Args:
        A, A_hat: [h, N, ds, ds], of simulator and model at steps 1 … h; B, B_hat: [h, N, ds, da].
    """
    gaps = _gap("A", A, A_hat, "h, N, ds, ds"), _gap("B", B, B_hat, "h, N, ds, da")
    by_step = [np.linalg.norm(gap, 2, axis=(2, 3)).mean(axis=1) for gap in gaps]
    return float((by_step[0] + by_step[1]).max())


def rp_critic_error(
    q_s: ArrayLike, q_s_hat: ArrayLike, q_a: ArrayLike, q_a_hat: ArrayLike
) -> float:
    """RP-PGM (4.8): ε_v = E[|∂Q/∂s − ^| + |∂Q/∂a − ^|] at step h.

    Args:
        q_s, q_s_hat: [N, ds], of Q^π and of the critic, the action held; q_a, q_a_hat: [N, da].
    """
    gaps = _gap("q_s", q_s, q_s_hat, "N, ds"), _gap("q_a", q_a, q_a_hat, "N, da")
    return float(sum(np.linalg.norm(gap, axis=1).mean() for gap in gaps))


def rp_kappa(start: ArrayLike, visited: ArrayLike) -> float:
    """RP-PGM (5.2), Assumption 5.7: κ = E_ν[(dζ/dν)²]^½; 1 ≤ κ ≤ (1 − γ)^−½, since ν ≥ (1 − γ) ζ.

    Args:
        start, visited: [S], ζ and ν of the same states or cells (`visitation`).

    Raises:
        InputError: ν is 0 where ζ is not.
    """
    zeta, nu = _numbers("start", start, "S"), _numbers("visited", visited, "S")
    for name, each in (("start", zeta), ("visited", nu)):
        if each.shape != zeta.shape or each.min() < 0 or abs(each.sum() - 1) > 1e-9:
            raise validation.expected(name, each, f"{len(zeta)} probabilities that sum to 1")
    lost = float(zeta[nu == 0].sum())
    _require("RP-PGM Assumption 5.7", {"visited > 0 wherever start is": (lost, lost == 0)})
    seen = nu > 0
    return float(np.sqrt((zeta[seen] ** 2 / nu[seen]).sum()))


@dataclass(frozen=True)
class RPConstants:
    """What RP-PGM's propositions share.

    Attributes:
        gamma: γ ≤ 1.
        L_f, L_pi: Lipschitz constants of model and policy in all their arguments together.
        closed_loop: largest |∂s_{i+1}/∂s_i| along the policy where it was measured, of simulator
            and model; None: at most L_f √(1 + L_π²).
        kappa: of `rp_kappa`; beta: share of visited states among the starts; N: samples.
    """

    gamma: float
    L_f: float
    L_pi: float
    closed_loop: float | None = None
    kappa: float = 1.0
    beta: float = 0.0
    N: int = 1

    def __post_init__(self) -> None:
        _check(self, "closed_loop")
        validation.number("gamma", self.gamma, above=0, most=1)
        validation.number("beta", self.beta, least=0, most=1)
        validation.whole("N", self.N, 1)

    @property
    def growth(self) -> float:
        """Largest factor a step by which a derivative of the state grows."""
        if self.closed_loop is not None:
            return self.closed_loop
        return self.L_f * math.sqrt(1 + self.L_pi**2)

    @property
    def unmet(self) -> tuple[str, ...]:
        """Conditions of Proposition 5.10 that do not hold; () where it applies.

        Erratum: the paper asks for L_f, L_π < 1 alone. (C.9) drops the path through the state, by
        which derivatives grow in a closed loop above 1 all the same.
        """
        return _unmet(
            {
                "L_f < 1": (self.L_f, self.L_f < 1),
                "L_pi < 1": (self.L_pi, self.L_pi < 1),
                "growth <= 1": (self.growth, self.growth <= 1),
            }
        )

    def sizes(self, proposition: str, h: ArrayLike) -> tuple[Array, float, float]:
        """h, L̃_f and L̃_π, where growth ≤ L̃_f L̃_π, as (C.10) and (C.12) have it."""
        steps = _horizons("h", h)[0].astype(np.float64)
        L_f, L_pi = max(self.L_f, 1.0), max(self.L_pi, 1.0)
        below = self.growth <= L_f * L_pi * (1 + 1e-12)
        _require(proposition, {f"growth <= {L_f * L_pi:.4g}": (self.growth, below)})
        return steps, L_f, L_pi


def rp_variance(h: ArrayLike, c: RPConstants, C_r: float, C_q: float) -> Array:
    """RP-PGM Proposition 5.4, (5.1): trace of the covariance of a gradient over N samples.

        v ≤ (C_r h⁸ + C_q γ^{2h} h⁶) L̃_f^{6h} L̃_π^{4h} / N,        L̃ = max(L, 1)

    Erratum: it is 0 at h = 0, where no gradient's variance is: read it from h = 1 on.

    Args:
        C_r, C_q: hidden by O(·); 2 (L_θ L_r)² and 18 (L_θ L_Q)² suffice for linear models and
            quadratic rewards and critics on |s|, |a| ≤ 1.

    Raises:
        InputError: the closed loop grows faster than L̃_f L̃_π a step.
    """
    validation.number("C_r", C_r, least=0)
    validation.number("C_q", C_q, least=0)
    steps, L_f, L_pi = c.sizes("RP-PGM Proposition 5.4", h)
    with np.errstate(over="ignore", invalid="ignore"):
        size = C_r * steps**8 + C_q * c.gamma ** (2 * steps) * steps**6
        return _finite_or_infinite(size * (L_f**6 * L_pi**4) ** steps / c.N)


def rp_bias(
    h: ArrayLike, c: RPConstants, epsilon_f: float, epsilon_v: float, C_f: float, C_v: float
) -> Array:
    """RP-PGM Proposition 5.8, (5.3), of the gradient at starts of the visited law.

        b ≤ κ′ (κ C_f h⁴ L̃_f^{3h} L̃_π^{2h} ε_f + C_v h² γʰ L̃_f^{2h} L̃_π^h ε_v),  κ′ = β + κ (1 − β)

    Errata: 0 at h = 0 whatever the critic: read it from h = 1 on. (C.19), (C.22), (C.24) keep terms
    2 L_f, 2 L_θ, 2 L_r without ε_f: (5.3) follows only on common noise and where derivatives
    differ by O(ε_f), as on linear models. It is no bound of ∇J from starts of ζ alone.

    Args:
        epsilon_f, epsilon_v: of `rp_model_error`, `rp_critic_error`.
        C_f, C_v: hidden by O(·); L_θ (6 L_r + 3 L_Q) and 2 L_θ suffice where `rp_variance`'s do.

    Raises:
        InputError: the closed loop grows faster than L̃_f L̃_π a step.
    """
    given = {"epsilon_f": epsilon_f, "epsilon_v": epsilon_v, "C_f": C_f, "C_v": C_v}
    for name, value in given.items():
        validation.number(name, value, least=0)
    steps, L_f, L_pi = c.sizes("RP-PGM Proposition 5.8", h)
    kappa = c.beta + c.kappa * (1 - c.beta)
    with np.errstate(over="ignore", invalid="ignore"):
        model = C_f * c.kappa * steps**4 * (L_f**3 * L_pi**2) ** steps * epsilon_f
        critic = C_v * steps**2 * (c.gamma * L_f**2 * L_pi) ** steps * epsilon_v
        return _finite_or_infinite(kappa * (model + critic))


def _rate(gamma: float) -> float:
    """log 1/γ."""
    return -math.log(validation.number("gamma", gamma, above=0, below=1))


def rp_horizon(gamma: float, epsilon_f: float, epsilon_v: float) -> float:
    """RP-PGM Proposition 5.10, (C.37): the optimal number of model steps, a real number.

        h³ ε_f² = γ^{2h} l ε_v²  (C.31),    l = log 1/γ
        h* = 3/(2l) · W₀(⅔ l^{4/3} (ε_v/ε_f)^{2/3})

    It applies where `RPConstants.unmet` is empty. It is the minimum of a surrogate (`rp_surrogate`)
    and not of the bounds: those are 0, their least value, at h = 0, and from their derivative the
    proof drops the term 4h³γ^{2h} ε_v² and the constants 8 and 2.

    Errata: the Proposition drops the prefactor 3/(2l); (C.39) has 5/2, 2/5 and 6/5 where (C.37) has
    3/2, 2/3 and 4/3.

    Args:
        gamma: 0 < γ < 1; epsilon_f, epsilon_v: of `rp_model_error`, `rp_critic_error`.

    Raises:
        InputError: (C.31) has no root, or every h is one.
    """
    rate = _rate(gamma)
    validation.number("epsilon_f", epsilon_f, least=0)
    validation.number("epsilon_v", epsilon_v, least=0)
    if epsilon_f == 0:
        kind = "every h is a root" if epsilon_v == 0 else "no root, a longer horizon is better"
        raise InputError(
            f"epsilon_f is 0, so RP-PGM (C.31) has {kind}: give a model's error above 0"
        )
    # The ratio's root first, which neither over- nor underflows.
    root = math.exp((math.log(epsilon_v) - math.log(epsilon_f)) / 3) if epsilon_v else 0.0
    argument = 2 / 3 * rate ** (4 / 3) * root**2
    return float(3 / (2 * rate) * lambertw(argument).real)


def rp_variance_horizon(gamma: float) -> float:
    """RP-PGM (C.38): W₀(2 l²)/(2l), where the variance's surrogate is least, of any N.

    With both, the surrogate's minimum lies between this and `rp_horizon`. Erratum: the Proposition
    divides it by N and adds it to h*, without its prefactor.
    """
    rate = _rate(gamma)
    return float(lambertw(2 * rate**2).real / (2 * rate))


def rp_surrogate(
    h: ArrayLike, gamma: float, epsilon_f: float, epsilon_v: float, N: float = math.inf
) -> Array:
    """What RP-PGM Proposition 5.10 minimises: the integral over h of (C.30), for real h from 0.

        g(h) = h⁸ ε_f²/8 − l ε_v² ∫₀ʰ x⁴ γ^{2x} dx  +  (h⁸/8 − l ∫₀ʰ x⁶ γ^{2x} dx)/N
        ∫₀ʰ xᵏ e^{−2lx} dx = k! P(k + 1, 2lh)/(2l)^{k+1},    P the regularised incomplete gamma

    Args:
        N: samples; infinite: without the variance.
    """
    rate, steps = _rate(gamma), np.asarray(h, dtype=np.float64)
    if not (np.isfinite(steps).all() and steps.min(initial=0) >= 0):
        raise validation.expected("h", steps, "finite numbers from 0")
    if not N > 0:
        raise validation.expected("N", N, "a number of samples above 0")

    def moment(k: int) -> Array:
        scaled = gammainc(k + 1, 2 * rate * steps) / (2 * rate) ** (k + 1)
        return np.asarray(math.factorial(k) * scaled)

    bias = steps**8 * epsilon_f**2 / 8 - rate * epsilon_v**2 * moment(4)
    return np.asarray(bias + (steps**8 / 8 - rate * moment(6)) / N)


def shortest_minimiser(bound: Callable[[Array], Array], horizons: ArrayLike) -> tuple[float, float]:
    """Brute force: the shortest horizon of a grid at which a bound is smallest, and its value.

    Args:
        bound: any bound of this module, of an array of horizons; horizons: [K].
    """
    grid = np.sort(np.asarray(horizons))
    values = np.asarray(bound(grid)) if grid.ndim == 1 and len(grid) else np.array(np.nan)
    if values.shape != grid.shape or np.isnan(values).any():
        raise validation.expected("horizons", grid, "a row of horizons at which bound is a number")
    best = int(values.argmin())
    return float(grid[best]), float(values[best])


def rp_convergence(
    b: ArrayLike, v: ArrayLike, eta: float, L: float, delta: float, gain: float
) -> float:
    """RP-PGM Proposition 5.2: the bound of min_t E|∇J(θ_t)|², in squared gradient units.

        4/T Σ_{t<T} (c (2δ b_t + η v_t/2) + b_t² + v_t) + 4c/T gain,     c = 1/(η − L η²)

    Erratum: the sums over t telescope to J(θ_T) − J(θ_0); the print has θ_1.

    Args:
        b, v: [T], bias and variance of the gradient at every iteration.
        eta: the rate; L: Lipschitz constant of ∇J (Assumption 5.1); delta: |θ| ≤ δ throughout.
        gain: E[J(θ_T) − J(θ_0)].

    Raises:
        InputError: η is not below 1/L, where c is not positive.
    """
    bias, variance = _numbers("b", b, "T"), _numbers("v", v, "T")
    if bias.shape != variance.shape or min(bias.min(), variance.min()) < 0:
        raise validation.expected("v", variance, f"numbers from 0, as many as b has, {len(bias)}")
    validation.number("eta", eta, above=0)
    validation.number("L", L, least=0)
    validation.number("delta", delta, least=0)
    validation.number("gain", gain)
    _require("RP-PGM Proposition 5.2", {"eta * L < 1": (eta * L, eta * L < 1)})
    c = 1 / (eta - L * eta**2)
    terms = c * (2 * delta * bias + eta / 2 * variance) + bias**2 + variance
    return float(4 * terms.mean() + 4 * c / len(bias) * gain)


def rp_rate(b: ArrayLike, L: float, delta: float, V: float, gain: float) -> float:
    """RP-PGM Corollary 5.12, its O(1/√T) written out: min_t E|∇J|² with η = 1/√T and N ∝ √T.

        16 δ ε(T)/√T + 4 ε²(T)/T + 8 (V + gain)/√T,        ε(T) = Σ_{t<T} b_t

    Vacuous for a bias that stays: 16 δ b √T grows without end.

    Args:
        b: [T], bias of every iteration; V: v_t ≤ V/√T; gain: at least E[J(θ_T) − J(θ_0)], from 0.

    Raises:
        InputError: T < 4L².
    """
    bias = _numbers("b", b, "T")
    if bias.min() < 0:
        raise validation.expected("b", bias, "numbers from 0")
    for name, value in {"L": L, "delta": delta, "V": V, "gain": gain}.items():
        validation.number(name, value, least=0)
    T = len(bias)
    _require("RP-PGM Corollary 5.12", {f"T >= 4 L² = {4 * L**2:.4g}": (T, T >= 4 * L**2)})
    total = float(bias.sum())
    return (16 * delta * total + 8 * (V + gain)) / math.sqrt(T) + 4 * total**2 / T
