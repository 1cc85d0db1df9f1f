"""Policy gradients of linear-quadratic worlds as products of Gaussians, with every moment known.

    s' = A s + B u + w,   u = −K s,   r = −(|s|² + |u|²),   critic −(sᵀ C s + uᵀ E u + 2 sᵀ F u)

Along a linear path every action gradient is linear in z = (s_0, w_0, w_1, …), so that a sample is
G = (M z) s_0ᵀ with one matrix M per estimator and horizon; its mean needs second and |G|² fourth
moments of z. Independent of gradlab's own sweeps, and thousands of repetitions cost seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

HORIZONS = (5, 25)
Array = np.ndarray


@dataclass(frozen=True)
class World:
    """A task, its prior model, and how many steps the true return sums."""

    name: str
    A: Array
    B: Array
    prior_A: Array
    prior_B: Array
    K: Array
    noise: float
    steps: int = 60
    discount: float = 0.9
    mean: float = 0.6
    spread: float = 0.5  # variance of each start coordinate
    freedom: float = np.inf  # of the starts, which are Student's t of this spread


def scalar(name: str, noise: float, steps: int, prior: float = 0.8) -> World:
    one = np.ones((1, 1))
    return World(name, 0.9 * one, 0.5 * one, prior * one, 0.6 * one, 0.3 * one, noise, steps)


def random_world(d: int, noise: float) -> World:
    """d states, d/2 actions, a stable closed loop and a prior that is about 10% off."""
    rng, da = np.random.default_rng(d), max(1, d // 2)
    A = rng.normal(size=(d, d))
    A *= 0.9 / np.abs(np.linalg.eigvals(A)).max()
    B = 0.5 * rng.normal(size=(d, da))
    prior = A + 0.1 * rng.normal(size=(d, d)) / d**0.5, B + 0.1 * rng.normal(size=(d, da))
    return World(f"lq{d}", A, B, *prior, 0.2 * rng.normal(size=(da, d)), noise)


WORLDS = (
    scalar("lq1", noise=0.01, steps=60),
    scalar("lq1, noisy, 10 steps", noise=0.3, steps=10),
    random_world(2, noise=0.1),
    random_world(4, noise=0.1),
)
UNSTABLE = scalar("growing", noise=0.01, steps=25, prior=1.25)
LENGTHS = tuple(range(1, 26))  # horizons of growth


def action_gradients(w: World, horizons: tuple[int, ...] = HORIZONS) -> dict[str, Array]:
    """M [da, d (1 + steps)] of the data gradient, each estimator and horizon, and the truth."""
    closed, prior = w.A - w.B @ w.K, w.prior_A - w.prior_B @ w.K
    simulated = _swept(w, closed, closed, w.B, w.steps)
    mixed = _swept(w, closed, prior, w.prior_B, max(horizons))
    model = _swept(w, prior, prior, w.prior_B, max(horizons))
    found = {"truth": simulated.returns[w.steps], "data": simulated.with_critic[0]}
    for h in horizons:
        found |= {f"model {h}": model.with_critic[h], f"mixed {h}": mixed.with_critic[h]}
    return found


class _Swept(NamedTuple):
    returns: list[Array]
    with_critic: list[Array]


def _swept(w: World, states: Array, chain: Array, B: Array, steps: int) -> _Swept:
    """Gradients of the n-step return in the first action, without and with the critic."""
    d, K = len(states), w.K
    c = -2 * (np.eye(d) + K.T @ K)
    E, F = 1.5 * np.eye(len(K)), 0.4 * np.ones((d, len(K)))
    Q_a = 2 * E @ K - 2 * F.T
    q = -4 * np.eye(d) + 2 * F @ K - K.T @ Q_a
    s = np.zeros((d, d * (1 + max(w.steps, steps))))
    s[:, :d] = np.eye(d)
    returns, tails, D = [0 * K @ s, 2 * K @ s], [Q_a @ s], B
    for t in range(1, steps + 1):
        s = states @ s
        s[:, d * t : d * (t + 1)] = np.eye(d)
        discount = w.discount**t
        tails.append(returns[t] + discount * D.T @ q @ s)
        returns.append(returns[t] + discount * D.T @ c @ s)
        D = chain @ D
    return _Swept(returns, tails)


def drawn(w: World, M: dict[str, Array], n: int, rng: np.random.Generator) -> dict[str, Array]:
    """One sample of n gradients of each kind, [n, da · d]."""
    width = max(m.shape[1] for m in M.values())
    z = rng.normal(size=(n, width)) * w.noise**0.5
    return products(M, z, starts(w, n, rng))


def starts(w: World, n: int, rng: np.random.Generator) -> Array:
    """[n, d]"""
    x = rng.normal(size=(n, len(w.A)))
    if np.isfinite(w.freedom):
        x *= ((w.freedom - 2) / rng.chisquare(w.freedom, size=(n, 1))) ** 0.5
    return np.asarray(w.mean + x * w.spread**0.5)


def products(M: dict[str, Array], noise: Array, starts: Array) -> dict[str, Array]:
    """Gradients of each kind, [n, da · d], at these starts; their place in the noise is unused."""
    n, d = starts.shape
    z = noise.copy()
    z[:, :d] = starts
    return {
        name: np.einsum("na,nd->nad", z[:, : m.shape[1]] @ m.T, z[:, :d]).reshape(n, -1)
        for name, m in M.items()
    }


def mean_of(w: World, m: Array) -> Array:
    """E G = M E[z s_0ᵀ], [da · d]."""
    d = len(w.A)
    second = w.spread * np.eye(d) + w.mean**2 * np.ones((d, d))
    return np.asarray((m[:, :d] @ second).ravel())


def trace_of(w: World, m: Array) -> float:
    """tr Cov G = E[|F s|² |s|²] + tr Ω E|s|² − |E G|², with M z = F s_0 + noise of covariance Ω.

    For s ~ N(μ, v I):  E[sᵀA s · |s|²] = (d + 2) v² tr A + (d + 4) v μᵀA μ + v |μ|² tr A
    + |μ|² μᵀA μ. Under Student's t with ν degrees of freedom the first term, of fourth moments, is
    (ν − 2)/(ν − 4) times as large, and infinite up to ν = 4.
    """
    d, v = len(w.A), w.spread
    mu = np.full(d, w.mean)
    F, rest = m[:, :d], m[:, d:]
    A, length, size = F.T @ F, mu @ mu, mu @ F.T @ F @ mu
    tails = 1.0 if np.isinf(w.freedom) else (w.freedom - 2) / (w.freedom - 4)
    fourth = tails * (d + 2) * v**2 * np.trace(A) + (d + 4) * v * size + v * length * np.trace(A)
    noise = w.noise * (rest**2).sum() * (d * v + length)
    mean = mean_of(w, m)
    return float(fourth + length * size + noise - mean @ mean)
