"""The constants of the papers' bounds, from derivatives along sampled paths.

A supremum is estimated by the largest value that was seen, so every constant is a *lower* estimate
of the true one, and a bound computed from them holds for the sampled paths. Lipschitz constants of
derivatives come from pairs of states that the proofs compare: the simulator's s_t and the model's
ŝ_t on common noise,

    L_∇f ≈ max |M̂(ŝ_t) − M̂(s_t)| / |ŝ_t − s_t|
    M = A + B K,  c = r_s + Kᵀ r_a,  q = Q_s + Kᵀ Q_a          (along the policy)

All norms are spectral (vectors: Euclidean), in the task's own units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradlab.statistics.bounds.improvement import (
    DDPPOConstants,
    MAACConstants,
    MPGConstants,
    linear_growth,
)
from gradlab.statistics.bounds.rp import RPConstants

_Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Derivatives:
    """Of one system, critic and policy at the states of one path of H steps.

    Attributes:
        A [H, N, ds, ds], B [H, N, ds, da], r_s [H, N, ds], r_a [H, N, da].
        K [H + 1, N, da, ds]: of the policy in the state.
        q_s [H + 1, N, ds], q_a [H + 1, N, da]: of the critic, or of the true Q.
    """

    A: _Array
    B: _Array
    r_s: _Array
    r_a: _Array
    K: _Array
    q_s: _Array
    q_a: _Array

    @property
    def M(self) -> _Array:
        """Of one step along the policy, [H, N, ds, ds]."""
        return np.asarray(self.A + self.B @ self.K[:-1])

    @property
    def c(self) -> _Array:
        """Of the reward along the policy, [H, N, ds]."""
        return self.r_s + _pulled(self.K[:-1], self.r_a)

    @property
    def q(self) -> _Array:
        """Of the value along the policy, [H + 1, N, ds]."""
        return self.q_s + _pulled(self.K, self.q_a)

    @property
    def step(self) -> _Array:
        """Of one step in state and action together, [H, N, ds, ds + da]."""
        return np.concatenate([self.A, self.B], axis=3)

    @property
    def reward(self) -> _Array:
        """Of the reward in state and action together, [H, N, ds + da]."""
        return np.concatenate([self.r_s, self.r_a], axis=2)

    @property
    def value(self) -> _Array:
        """Of the critic in state and action together, [H + 1, N, ds + da]."""
        return np.concatenate([self.q_s, self.q_a], axis=2)


@dataclass(frozen=True)
class _Paths:
    """Simulator and model from the same starts on common noise.

    Attributes:
        truth: the simulator on its own states, with the true Q.
        guess: the model and the critic on the simulator's states.
        own: the model and the critic on the model's states.
        drift: |ŝ_t − s_t| for t = 0 … H, [H + 1, N].
        one_step: |f̂(s, a) − f(s, a)| on both paths, any shape.
        policy: largest |∂π/∂θ| of the actions that carry θ.
        policy_change: largest |∂π/∂θ(ŝ) − ∂π/∂θ(s)| / |ŝ − s|; None where it was not needed.
        weight: largest weight of a start.
    """

    truth: _Derivatives
    guess: _Derivatives
    own: _Derivatives
    drift: _Array
    one_step: _Array
    policy: float
    policy_change: float | None = None
    weight: float = 1.0


def _pulled(K: _Array, by_action: _Array) -> _Array:
    """Kᵀ of derivatives in the action, [H, N, ds]."""
    return np.asarray(np.einsum("hnas,hna->hns", K, by_action))


def _largest(x: _Array, matrices: bool = False) -> float:
    """Largest norm of vectors [..., d], or spectral norm of matrices [..., m, n]; 0 of none."""
    if x.size == 0:
        return 0.0
    if matrices and not np.isfinite(x).all():
        return float("inf")
    norms = np.linalg.norm(x, 2, axis=(-2, -1)) if matrices else np.linalg.norm(x, axis=-1)
    return float(norms.max())


def _steepest(change: _Array, drift: _Array, matrices: bool = False) -> float:
    """Largest |change| / drift over the states that drifted at all; 0 where none did."""
    norms = (
        np.linalg.norm(change, 2, axis=(-2, -1)) if matrices else np.linalg.norm(change, axis=-1)
    )
    apart = drift > 1e-9 * max(float(drift.max(initial=0.0)), 1e-300)
    return float((norms[apart] / drift[apart]).max(initial=0.0))


def _mpg_constants(paths: _Paths, gamma: float) -> MPGConstants:
    """Of Theorem 2, for first-action gradients through the model's states."""
    truth, guess, own = paths.truth, paths.guess, paths.own
    drift, h = paths.drift.max(axis=1), len(truth.A)
    before = paths.drift[:-1]
    return MPGConstants(
        gamma=gamma,
        B_theta=paths.policy,
        c_m=linear_growth(drift[1:]) if h else 0.0,
        B_fs=_largest(own.M, True),
        B_ps=_largest(truth.M, True),
        B_fa=_largest(own.B[:1], True),
        B_pa=_largest(truth.B[:1], True),
        B_delta_s=_largest(guess.M - truth.M, True),
        B_delta_a=_largest(guess.B[:1] - truth.B[:1], True),
        B_rs=_largest(truth.c),
        B_Qs=_largest(guess.q),
        B_qs=_largest((guess.q - truth.q)[1:]),
        B_qa=_largest((guess.q_a - truth.q_a)[:1]),
        L_grad_f=_steepest(own.M - guess.M, before, True),
        L_grad_r=_steepest(own.c - guess.c, before),
        L_grad_Q=_steepest(own.q - guess.q, paths.drift),
        B_delta_r=_largest((guess.c - truth.c)[1:]),
        B_delta_ra=_largest((guess.r_a - truth.r_a)[:1]),
    )


@dataclass(frozen=True)
class _CommonStates:
    """MAAC's constants with the errors of the derivatives that they multiply."""

    constants: MAACConstants
    epsilon_f: float
    epsilon_Q: float
    epsilon_r: float


def _maac_constants(paths: _Paths, gamma: float, actions: str) -> _CommonStates:
    """Of Lemma A.1, for the model's derivatives on the simulator's states, per unit of |∂π/∂θ|."""
    truth, guess = paths.truth, paths.guess
    rates = [_growth_rate(paths, actions) for paths in (truth, guess)]
    constants = MAACConstants(
        gamma=gamma,
        L_f=_largest(guess.step, True),
        L_pi=_largest(guess.K, True),
        L_r=_largest(truth.c),
        L_Q=_largest(guess.value),
        K=max(1.0, *rates),
    )
    return _CommonStates(
        constants,
        _largest(guess.step - truth.step, True),
        _largest(guess.value - truth.value),
        _largest(guess.reward - truth.reward),
    )


def _growth_rate(d: _Derivatives, actions: str) -> float:
    """Smallest K with |d(s_t, a_t)/dθ| ≤ Kᵗ |∂π/∂θ| for t ≥ 1 along the paths.

    For "first", products of Jacobians; for "all", the sum of their norms over the actions that
    came before, an upper estimate.
    """
    rates, (h, n) = [0.0], d.A.shape[:2]
    if actions == "first" and h:
        D = d.B[0]
        for t in range(1, h + 1):
            pair = np.concatenate([D, d.K[t] @ D], axis=1)
            rates.append(_largest(pair, True) ** (1 / t))
            D = d.M[t] @ D if t < h else D
        return max(rates)
    closed, push, gain = (np.linalg.norm(x, 2, axis=(2, 3)).reshape(-1, n) for x in (d.M, d.B, d.K))
    state = np.zeros(n)
    for t in range(1, h + 1):
        state = closed[t - 1] * state + push[t - 1]
        pair = np.hypot(state, gain[t] * state + 1.0)
        rates.append(float(pair.max()) ** (1 / t))
    return max(rates)


@dataclass(frozen=True)
class _Prediction:
    """RP's constants with the errors of its propositions and the constants its O(·) hides."""

    constants: RPConstants
    epsilon_f: float
    epsilon_v: float
    C_f: float
    C_v: float


def _rp_constants(paths: _Paths, gamma: float) -> _Prediction:
    """Of Proposition 5.8; C_f = L_θ (6 L_r + 3 L_Q) and C_v = 2 L_θ suffice on linear models."""
    truth, guess, own = paths.truth, paths.guess, paths.own
    before, both = paths.drift[:-1], (truth, own)
    L_r = max(_largest(truth.reward), _steepest(own.reward - guess.reward, before))
    L_Q = max(_largest(guess.value), _steepest(own.value - guess.value, paths.drift))
    constants = RPConstants(
        gamma=gamma,
        L_f=max(_largest(side.step, True) for side in both),
        L_pi=max(_largest(side.K, True) for side in both),
        closed_loop=max(_largest(side.M, True) for side in both),
        beta=1.0,
    )
    split = _largest(guess.A - truth.A, True) + _largest(guess.B - truth.B, True)
    critic = _largest(guess.q_s - truth.q_s) + _largest(guess.q_a - truth.q_a)
    return _Prediction(
        constants, split, critic, paths.policy * (6 * L_r + 3 * L_Q), 2 * paths.policy
    )


@dataclass(frozen=True)
class _ThreeErrors:
    """DDPPO's constants with the three errors that they multiply; L_K is |∂π/∂s|."""

    constants: DDPPOConstants
    L_K: float
    epsilon_f: float
    epsilon_f_grad: float
    epsilon_r_grad: float


def _ddppo_constants(paths: _Paths, gamma: float) -> _ThreeErrors:
    """Of Theorem 1."""
    truth, guess, own = paths.truth, paths.guess, paths.own
    before, both = paths.drift[:-1], (truth, own)
    steps = [x for side in both for x in (side.A, side.B, side.M)]
    rewards = [x for side in both for x in (side.r_a, side.c)]
    constants = DDPPOConstants(
        gamma=gamma,
        L_f=max(_largest(x, True) for x in steps),
        L_1=max(_chain(side.M) for side in both),
        L_r=max(_largest(x) for x in rewards),
        L_pi=paths.policy,
        L_fg=max(
            _steepest(x - y, before, True)
            for x, y in ((own.A, guess.A), (own.B, guess.B), (own.M, guess.M))
        ),
        L_rg=max(_steepest(own.r_a - guess.r_a, before), _steepest(own.c - guess.c, before)),
        L_pig=paths.policy_change or 0.0,
    )
    f_grad = [(guess.A, truth.A), (guess.B, truth.B), (guess.M, truth.M)]
    return _ThreeErrors(
        constants,
        max(_largest(side.K, True) for side in both),
        float(paths.one_step.max(initial=0.0)),
        max(_largest(x - y, True) for x, y in f_grad),
        max(_largest(guess.r_a - truth.r_a), _largest(guess.c - truth.c)),
    )


def _chain(M: _Array) -> float:
    """Largest |∂s_{t+k}/∂s_t| along the policy over all t, k of the paths; 1 at k = 0."""
    worst, product = 1.0, M
    for k in range(1, len(M) + 1):
        worst = max(worst, _largest(product, True))
        product = M[k:] @ product[: len(M) - k]
    return worst
