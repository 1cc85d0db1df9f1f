"""Linear-quadratic worlds in which everything but a choice is exact.

    s' = A s + B a + w,   a = W s,   r = −(sᵀQs + aᵀRa),   a wrong model (A', B') and a wrong critic

With P_0 that of the critic and P_m = Q + WᵀRW + γ (A' + B'W)ᵀ P_{m−1} (A' + B'W), the gradient of
the n-step return is

    G_n s sᵀ,     G_n = −2 (R W + γ B'ᵀ P_{n−1} (A' + B'W)),     n ≥ 1

and the truth has A, B and the P of the policy. `choose` sees N visited states; a step is judged by
J(W) = −tr P E s₀s₀ᵀ − γ/(1 − γ) tr P E wwᵀ, in closed form, before and after.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import solve_discrete_are, solve_discrete_lyapunov

from gradlab.measurement.assembly import assembled
from gradlab.runs.profile import Profile
from gradlab.statistics.grams import Kernels
from gradlab.statistics.moments import Array
from tests.planted_moments import explicit_grams, moments

DS, DA, GAMMA, NOISE = 3, 2, 0.95, 0.1
HORIZONS = (1, 2, 3, 5, 8, 12)
VISITS = 8
STABLE = 0.95  # largest closed-loop radius, discounted
Cell = tuple[str, int]


@dataclass(frozen=True)
class World:
    """One system, its wrong model and critic, and a policy that is not the best one."""

    A: Array
    B: Array
    R: Array
    model_A: Array
    model_B: Array
    H: Array  # of the critic: Q = −(s, a)ᵀ H (s, a)
    W: Array

    def closed(self, W: Array) -> Array:
        return np.asarray(self.A + self.B @ W)

    def value(self, W: Array) -> Array:
        """P of the policy; the loop has to be stable when discounted."""
        return np.asarray(
            solve_discrete_lyapunov(GAMMA**0.5 * self.closed(W).T, np.eye(DS) + W.T @ self.R @ W)
        )

    def returns(self, W: Array) -> float:
        P = self.value(W)
        return -float(np.trace(P) * (1 + GAMMA / (1 - GAMMA) * NOISE**2))

    def gradients(self) -> dict[Cell, Array]:
        """G of each gradient, [da, ds]."""
        loop, W = self.model_A + self.model_B @ self.W, self.W
        H_as, H_aa = self.H[DS:, :DS], self.H[DS:, DS:]
        both = np.concatenate([np.eye(DS), W])
        P, found = both.T @ self.H @ both, {("data", 0): -2 * (H_as + H_aa @ W)}
        for n in range(1, max(HORIZONS) + 1):
            if n in HORIZONS:
                found["model", n] = -2 * (self.R @ W + GAMMA * self.model_B.T @ P @ loop)
            P = np.eye(DS) + W.T @ self.R @ W + GAMMA * loop.T @ P @ loop
        return found

    def truth(self) -> Array:
        P, loop = self.value(self.W), self.closed(self.W)
        return np.asarray(-2 * (self.R @ self.W + GAMMA * self.B.T @ P @ loop))

    def visited(self, rng: np.random.Generator, starts: int) -> Array:
        """States of the discounted visitation, `VISITS` per start as `measure` has them: their
        times are spread over the quantiles of a start, [starts · VISITS, ds]."""
        quantile = (np.arange(VISITS) + rng.uniform(size=(starts, 1))) / VISITS
        when = np.floor(np.log1p(-quantile) / np.log(GAMMA)).astype(int)
        s, loop = rng.normal(size=(starts, DS)), self.closed(self.W)
        found = np.zeros((starts, VISITS, DS))
        for t in range(int(when.max()) + 1):
            found[when == t] = np.repeat(s[:, None], VISITS, axis=1)[when == t]
            s = s @ loop.T + NOISE * rng.normal(size=(starts, DS))
        return found.reshape(-1, DS)

    def covariance(self) -> Array:
        """E s sᵀ of the visitation, exactly."""
        added = (1 - GAMMA) * np.eye(DS) + GAMMA * NOISE**2 * np.eye(DS)
        return np.asarray(solve_discrete_lyapunov(GAMMA**0.5 * self.closed(self.W), added))


def world(rng: np.random.Generator) -> World:
    while True:
        A = rng.normal(size=(DS, DS))
        A *= rng.uniform(0.8, 1.1) / np.abs(np.linalg.eigvals(A)).max()
        B, R = rng.normal(size=(DS, DA)), rng.uniform(0.1, 1.0) * np.eye(DA)
        P = solve_discrete_are(GAMMA**0.5 * A, GAMMA**0.5 * B, np.eye(DS), R)
        best = -np.linalg.solve(R + GAMMA * B.T @ P @ B, GAMMA * B.T @ P @ A)
        W = best + rng.uniform(0.1, 0.6) * np.linalg.norm(best) / DS * rng.normal(size=best.shape)
        if GAMMA**0.5 * np.abs(np.linalg.eigvals(A + B @ W)).max() < STABLE:
            break
    wrong, critic = np.exp(rng.uniform(np.log([0.03, 0.05]), np.log([0.5, 1.5])))
    found = World(A, B, R, A, B, np.eye(DS + DA), W)
    P, both = found.value(W), np.concatenate([A, B], axis=1)
    exact = GAMMA * both.T @ P @ both
    exact[:DS, :DS] += np.eye(DS)
    exact[DS:, DS:] += R
    error = rng.normal(size=exact.shape)
    scale = np.sqrt(np.outer(np.diagonal(exact), np.diagonal(exact)))
    return replace(
        found,
        model_A=A + wrong * rng.normal(size=A.shape),
        model_B=B + wrong * rng.normal(size=B.shape),
        H=exact + critic * scale * (error + error.T) / 2,
    )


def measured(
    one: World,
    rng: np.random.Generator,
    starts: int,
    batch: int,
    gradients: Mapping[Cell, Array] | None = None,
) -> Profile:
    """What `measure` would keep of explicit gradients at visited states.

    Args:
        gradients: G of each; None: those of the world.
    """
    s, group = one.visited(rng, starts), np.repeat(np.arange(starts), VISITS)
    samples = {cell: _samples(G, s) for cell, G in (gradients or one.gradients()).items()}
    truth = _samples(one.truth(), s)
    config = {
        "task": "planted", "starts": starts, "batch": batch, "discount": GAMMA, "horizon": 0,
        "truth": "objective", "actions": {},
    }  # fmt: skip
    facts = {
        "kind": "objective", "admissible": True, "status": "converged", "lyapunov": -0.1,
        "reason": "planted",
    }  # fmt: skip
    cells = {cell: moments(G, truth, group) for cell, G in samples.items()}
    found = assembled(cells, max(HORIZONS), batch, config, {}, facts)
    grams = explicit_grams(np.stack([*samples.values(), truth], axis=1), group)
    products = grams.size, grams.own, grams.within, grams.total, grams.fold
    return replace(found, kernels=(Kernels("objective", tuple(samples), True, *products),))


def _samples(G: Array, s: Array) -> Array:
    return np.einsum("ij,nj,nk->nik", G, s, s).reshape(len(s), -1)


def gained(one: World, direction: Array, length: float) -> float:
    """ΔJ of a step; −∞ where the loop is no longer stable."""
    W = one.W + length * direction.reshape(one.W.shape)
    if GAMMA**0.5 * np.abs(np.linalg.eigvals(one.closed(W))).max() >= 1:
        return -np.inf
    return one.returns(W) - one.returns(one.W)


def unit(direction: Array) -> Array:
    size = float(np.linalg.norm(direction))
    return direction / size if size > 0 else direction
