"""Papers' bounds on random scalar systems: never violated, and as printed they are."""

import math

import numpy as np
import pytest

from analyses.harness import bounds
from analyses.harness.bounds import DDPPOConstants, MAACConstants


def sensitivities(A, B, theta, states):
    """d s_t/dθ and d a_t/dθ of a = θ s."""
    D = np.zeros(len(states))
    for t in range(len(states) - 1):
        D[t + 1] = A * D[t] + B * (states[t] + theta * D[t])
    return D, states + theta * D


def maac_trials(trials, seed):
    """Random scalar systems, model's derivatives too taken on the simulator's states."""
    rng = np.random.default_rng(seed)
    for _ in range(trials):
        A, B, theta = rng.uniform(-1.2, 1.2, 3)
        A_, B_ = np.array([A, B]) + 10 ** rng.uniform(-3, 0) * rng.normal(size=2)
        H, gamma = int(rng.integers(1, 11)), rng.uniform(0.5, 1)
        states = rng.uniform(-1, 1) * (A + B * theta) ** np.arange(H + 1)
        slope = 10 ** rng.uniform(-1, 2) * states
        D, action = sensitivities(A, B, theta, states)
        D_, action_ = sensitivities(A_, B_, theta, states)
        Q = rng.normal(size=2)
        Q_ = Q + 10 ** rng.uniform(-3, 0) * rng.normal(size=2)
        gamma_t = gamma ** np.arange(H)
        error = (gamma_t * slope[:H] * (D - D_)[:H]).sum()
        error += gamma**H * (Q @ [D[H], action[H]] - Q_ @ [D_[H], action_[H]])
        size = np.maximum(np.hypot(D, action), np.hypot(D_, action_))
        c = MAACConstants(
            gamma=gamma,
            L_f=max(math.hypot(A, B), math.hypot(A_, B_)),
            L_pi=abs(theta),
            L_r=abs(slope[:H]).max(),
            L_Q=max(np.linalg.norm(Q), np.linalg.norm(Q_)),
            K=max(1.0, (size[1:] ** (1 / np.arange(1, H + 1))).max()),
        )
        yield c, H, math.hypot(A - A_, B - B_), float(np.linalg.norm(Q - Q_)), abs(error)


def test_maac_is_never_violated():
    for c, H, epsilon_f, epsilon_Q, error in maac_trials(2000, seed=3):
        assert error <= (1 + 1e-9) * float(bounds.maac_error(H, c, epsilon_f, epsilon_Q))


def test_maac_in_closed_form():
    c = MAACConstants(1.0, L_f=0.5, L_pi=1.0, L_r=3.0, L_Q=2.0, K=1.0)
    assert bounds.maac_error(0, c, 1.0, 0.7) == pytest.approx(0.7)
    # L = 1, K = 1, γ = 1: S_t = t.
    assert bounds.maac_c1([0, 1, 4], c) == pytest.approx([0, 4, 3 * 6 + 4 * 4])
    assert np.isinf(bounds.maac_c1(10_000, MAACConstants(1.0, 2.0, 1.0, 1.0, 1.0, 2.0)))


def test_ddppos_printed_constants_are_violated():
    """No model error and a reward gradient wrong by 1 in the action: the bias is L_π/(1 − γ)."""
    c = DDPPOConstants(gamma=0.5, L_f=0.1, L_1=1.0, L_r=2.0, L_pi=3.0)
    bias = 3.0 * 1.0 / (1 - 0.5)
    assert bias <= bounds.ddppo_bias(c, 0.0, 0.0, 1.0)
    assert bias > 4 * bounds.ddppo_printed_coefficients(c).C6
    steep = DDPPOConstants(gamma=0.5, L_f=0.0, L_1=1.0, L_r=100.0, L_pi=1.0)
    repaired, printed = bounds.ddppo_coefficients(steep), bounds.ddppo_printed_coefficients(steep)
    assert pytest.approx([200.0, 2.0]) == [repaired.C7, printed.C7]


@pytest.mark.parametrize(
    ("gamma", "ratio", "horizon"),
    [(0.9, 1, 0.4574), (0.95, 10, 1.6310), (0.99, 100, 4.5109), (0.99, 1e4, 64.8616)],
)
def test_the_optimal_horizon_is_the_surrogates_minimum(gamma, ratio, horizon):
    """g(h) = h⁸/8 − l (ε_v/ε_f)² ∫₀ʰ x⁴ γ^{2x} dx, by brute force."""
    found = bounds.rp_optimal_horizon(gamma, 0.3, 0.3 * ratio)
    assert found == pytest.approx(horizon, abs=5e-5)
    h, rate = np.linspace(0, 4 * horizon, 40_001), -math.log(gamma)
    slope = h**7 - rate * ratio**2 * h**4 * gamma ** (2 * h)
    surrogate = np.cumsum(slope) * h[1]
    assert h[surrogate.argmin()] == pytest.approx(found, rel=1e-3)
