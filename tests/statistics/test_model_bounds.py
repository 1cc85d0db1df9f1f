"""MAAC's, MPG's and DDPPO's bounds on random systems, printed and corrected."""

import math

import numpy as np
import pytest

from gradlab.errors import InputError
from gradlab.statistics.bounds import improvement
from gradlab.statistics.bounds import rp as bounds_rp
from gradlab.statistics.bounds.improvement import DDPPOConstants, MAACConstants, MPGConstants
from tests.statistics.random_systems import ROUNDING, perfect_model, stable_pairs


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


def sensitivities(A, B, theta, states):
    """d s_t/dθ and d a_t/dθ of a = θ s."""
    D = np.zeros(len(states))
    for t in range(len(states) - 1):
        D[t + 1] = A * D[t] + B * (states[t] + theta * D[t])
    return D, states + theta * D


def printed_maac(c, H, epsilon_f, epsilon_Q):
    """Lemma A.1 with the constants as printed."""
    L, K = c.L_f * (1 + c.L_pi), c.gamma * c.K
    geometric = lambda x: sum(x**t for t in range(H))  # noqa: E731
    reward = L / (L - 1) * (geometric(K * L) - geometric(K))
    critic = c.L_Q * (L**H - 1) / (L - 1) * K**H
    return epsilon_f * (reward + critic) + epsilon_Q * K**H


def test_maac_is_never_violated_and_its_printed_constant_is():
    violated = printed = 0
    for c, H, epsilon_f, epsilon_Q, error in maac_trials(4000, seed=3):
        violated += error > ROUNDING * float(improvement.maac_error(H, c, epsilon_f, epsilon_Q))
        printed += error > ROUNDING * printed_maac(c, H, epsilon_f, epsilon_Q)
    assert violated == 0
    assert printed >= 50


def test_maacs_critic_term_needs_the_actions_share():
    """One step from s_0 = 1, K = 1: the error is √2 L_Q ε_f where the paper prints L_Q ε_f."""
    A, B, theta, change = -0.9, 0.3, 1.0, 0.01
    states = np.array([1.0, A + B * theta])
    (_, D), action = sensitivities(A, B, theta, states)
    (_, D_), action_ = sensitivities(A, B + change, theta, states)
    assert max(math.hypot(D, action[1]), math.hypot(D_, action_[1])) < 1
    error = abs((D - D_) + (action - action_)[1]) / math.sqrt(2)
    c = MAACConstants(1.0, L_f=math.hypot(A, 0.31), L_pi=theta, L_r=0.0, L_Q=1.0, K=1.0)
    assert c.L_Q * change < error <= improvement.maac_error(1, c, change, 0.0)


def test_maac_flags_a_critic_term_that_rises():
    slow = MAACConstants(0.9, L_f=0.5, L_pi=0.5, L_r=1.0, L_Q=1.0, K=1.1)
    fast = MAACConstants(0.99, L_f=0.5, L_pi=0.5, L_r=1.0, L_Q=1.0, K=1.1)
    H = np.arange(20)
    assert (np.diff(improvement.maac_c2(H, slow)) < 0).all() and not slow.critic_term_rises
    assert (np.diff(improvement.maac_c2(H, fast)) > 0).all() and fast.critic_term_rises
    holds, sentence = fast.applies
    assert holds and "gamma * K = 1.09 > 1: c2(H) rises with H" in sentence
    assert not MAACConstants(0.9, 1.0, 1.0, 1.0, 1.0, K=0.5).applies.holds


def mpg_trials(trials, seed, H=12):
    """First-action gradients from s_0 = 1 of a scalar linear-quadratic system and model."""
    rows, rng = stable_pairs(trials, seed)
    n = np.arange(H + 1)
    for A, B, theta, A_, B_ in rows:
        q, rho = rng.uniform(0.1, 2, 2)
        gamma = rng.uniform(0.5, 0.99)
        M, M_, cost = A + B * theta, A_ + B_ * theta, q + rho * theta**2
        P = cost / (1 - gamma * M**2)
        P_ = P * np.exp(rng.normal(0, 0.3))
        value = 2 * (cost + gamma * P_ * M**2)
        later = M_ ** (2 * n - 1.0) * B_
        later[0] = 0
        reward = -2 * cost * later
        reward[0] = -2 * rho * theta
        tail = -value * later
        tail[0] = -2 * rho * theta - 2 * gamma * P_ * B * M
        gradient = np.concatenate([[0], np.cumsum(gamma**n * reward)])[:-1] + gamma**n * tail
        truth = -2 * rho * theta - 2 * gamma * P * B * M
        c = MPGConstants(
            gamma=gamma,
            B_theta=1.0,
            c_m=improvement.linear_growth(abs(M ** n[1:] - M_ ** n[1:])),
            B_fs=abs(M_),
            B_ps=abs(M),
            B_fa=abs(B_),
            B_pa=abs(B),
            B_delta_s=abs(M - M_),
            B_delta_a=abs(B - B_),
            B_rs=2 * cost,
            B_Qs=value,
            B_qs=2 * gamma * abs(P_ - P) * M**2,
            B_qa=2 * gamma * abs(P_ - P) * abs(B * M),
            L_grad_r=2 * cost,
            L_grad_Q=value,
        )
        yield c, n, abs(gradient - truth)


def printed_mpg(c, n):
    """The sums of App. A-F with the last line of App. A-E: Δ^{k−1} for (B_ps + Δ)^{k−1} − …"""
    k = np.arange(n + 1.0)
    before = np.maximum(k - 1, 0)
    chain = c.B_fs**before * c.B_delta_a + c.B_pa * np.where(k > 1, c.B_delta_s**before, 0)
    drift = c.c_m * k * c.B_fs**before * c.B_fa
    U_r = np.where(k > 0, c.L_grad_r * drift + c.B_rs * chain, 0)
    U_q = c.L_grad_Q * drift + c.B_Qs * chain + c.B_pa * c.B_ps**before * c.B_qs
    return c.B_theta * ((c.gamma**k * U_r)[:-1].sum() + c.gamma**n * U_q[-1])


def test_mpg_is_never_violated_and_the_closing_step_of_its_proof_is():
    violated = printed = 0
    for c, n, bias in mpg_trials(1000, seed=4):
        violated += bool((bias > ROUNDING * improvement.mpg_bias(n, c) + 1e-12).any())
        printed += any(bias[k] > ROUNDING * printed_mpg(c, k) + 1e-12 for k in range(2, len(n)))
    assert violated == 0
    assert printed >= 10


def test_mpg_without_errors_is_zero_and_at_zero_it_is_the_critics_error():
    n = np.arange(30)
    assert (improvement.mpg_bias(n, perfect_model()) == 0).all()
    only_critic = improvement.mpg_bias(n, perfect_model(B_qs=0.3, B_qa=0.5))
    assert only_critic[0] == pytest.approx(2.0 * 0.5)
    assert only_critic[1:] == pytest.approx(2.0 * 0.9 ** n[1:] * 0.8 ** (n[1:] - 1) * 0.3)
    noisy = perfect_model(noise=0.1, L_grad_q=0.5)
    assert float(improvement.mpg_bias(0, noisy)) == pytest.approx(2.0 * 9 * 0.5 * 0.8 * 0.1)


def test_mpgs_printed_order_and_its_condition():
    c = perfect_model(c_m=0.1, B_qs=0.3, B_qa=0.5)
    shape = improvement.mpg_shape([0, 1, 4], c, C_f=2.0, C_q=3.0)
    assert shape == pytest.approx(
        [1.5, 2 * 0.09 + 0.9 * 0.9, 2 * 4 * 0.36**4 + 0.9**4 * 0.9], rel=1e-12
    )
    assert c.applies.holds
    holds, sentence = perfect_model(L_grad_f=1.5).applies
    assert not holds and "measured L_grad_f = 1.5 > 1" in sentence
    assert improvement.linear_growth([0.1, 0.4, 0.3]) == pytest.approx(0.2)


def ddppo_trials(trials, seed, T=400):
    """Equation (3) over T steps, with errors in prediction, Jacobian and reward gradient."""
    rows, rng = stable_pairs(trials, seed)
    for A, B, theta, A_, B_ in rows:
        q, rho = rng.uniform(0, 2, 2)
        gamma, offset = rng.uniform(0.05, 0.9), rng.choice([0.0, 0.01, 0.1])
        errors = rng.choice([0.0, 0.1, 1.0]) * rng.normal(size=2)
        s, s_ = np.ones(T), np.ones(T)
        for t in range(T - 1):
            s[t + 1] = (A + B * theta) * s[t]
            s_[t + 1] = (A_ + B_ * theta) * s_[t] + offset
        found = []
        for a, b, states, e in ((A, B, s, np.zeros(2)), (A_, B_, s_, errors)):
            in_action = -2 * rho * theta * states + e[1]
            along = -2 * q * states + e[0] + theta * in_action
            value, gradient = 0.0, 0.0
            for t in reversed(range(T)):
                gradient = (in_action[t] + gamma * b * value) * states[t] + gamma * gradient
                value = along[t] + gamma * (a + b * theta) * value
            found.append((gradient, max(abs(in_action).max(), abs(along).max())))
        M, M_ = A + B * theta, A_ + B_ * theta
        c = DDPPOConstants(
            gamma=gamma,
            L_f=float(max(map(abs, (A, B, A_, B_, M, M_)))),
            L_1=1.0,
            L_r=max(found[0][1], found[1][1]),
            L_pi=max(abs(s).max(), abs(s_).max()),
            L_rg=2 * max(q + rho * theta**2, rho * abs(theta)),
            L_pig=1.0,
        )
        epsilon_f = float(abs((M_ - M) * s_ + offset).max())
        jacobian, reward = abs(A - A_) + abs(B - B_), float(abs(errors).sum())
        yield c, epsilon_f, jacobian, reward, abs(found[0][0] - found[1][0])


def test_ddppo_is_never_violated_by_any_mixture_of_its_errors():
    for c, epsilon_f, jacobian, reward, bias in ddppo_trials(300, seed=5):
        assert c.applies.holds
        assert bias <= ROUNDING * improvement.ddppo_bias(c, epsilon_f, jacobian, reward)


def test_ddppos_printed_constants_are_violated():
    """No model error and a reward gradient wrong by 1 in the action: the bias is L_π/(1 − γ)."""
    c = DDPPOConstants(gamma=0.5, L_f=0.1, L_1=1.0, L_r=2.0, L_pi=3.0)
    bias = 3.0 * 1.0 / (1 - 0.5)
    assert bias <= improvement.ddppo_bias(c, 0.0, 0.0, 1.0)
    assert bias > 4 * improvement.ddppo_printed_coefficients(c).C6
    # A Jacobian wrong by 1 in the action: the bias scales with the reward's slope, printed C7
    # does not (its other term vanishes with L_f).
    steep = DDPPOConstants(gamma=0.5, L_f=0.0, L_1=1.0, L_r=100.0, L_pi=1.0)
    repaired = improvement.ddppo_coefficients(steep)
    printed = improvement.ddppo_printed_coefficients(steep)
    assert pytest.approx([200.0, 2.0]) == [repaired.C7, printed.C7]


def test_ddppo_without_errors_is_zero_and_a_bounded_state_space_caps_the_drift():
    c = DDPPOConstants(gamma=0.9, L_f=0.99, L_1=1.0, L_r=1.0, L_pi=1.0, L_rg=1.0, D=2.0)
    assert improvement.ddppo_bias(c, 0.0, 0.0, 0.0) == 0
    small, large = (improvement.ddppo_bias(c, e, 0.0, 0.0) for e in (1e-3, 10.0))
    assert small == pytest.approx(improvement.ddppo_coefficients(c).C8 * 1e-3)
    assert improvement.ddppo_bias(c, 20.0, 0.0, 0.0) == pytest.approx(large)
    unstable = DDPPOConstants(gamma=0.9, L_f=1.3, L_1=1.0, L_r=1.0, L_pi=1.0)
    assert "measured L_f = 1.3, not below 1" in unstable.applies.sentence
    with pytest.raises(InputError, match=r"D is None.*L_f = 1.3"):
        improvement.ddppo_coefficients(unstable, 0.1)


def test_limits():
    assert bounds_rp.rp_optimal_horizon(0.9, 1.0, 0.0) == 0
    assert bounds_rp.rp_optimal_horizon(0.9, 0.0, 1.0) == math.inf
    rate = 1e-6  # h* → l^{1/3} (ε_v/ε_f)^{2/3} as γ → 1
    near_one = bounds_rp.rp_optimal_horizon(math.exp(-rate), 1.0, 8.0)
    assert near_one == pytest.approx(4 * rate ** (1 / 3), rel=1e-3)
    c = MAACConstants(1.0, L_f=0.5, L_pi=1.0, L_r=3.0, L_Q=2.0, K=1.0)
    assert improvement.maac_error(0, c, 1.0, 0.7) == pytest.approx(0.7)
    # L = 1, K = 1, γ = 1: S_t = t.
    assert improvement.maac_c1([0, 1, 4], c) == pytest.approx([0, 4, 3 * 6 + 4 * 4])
    assert (improvement.maac_error(np.arange(9), c, 0.0, 0.0) == 0).all()
    assert np.isinf(improvement.maac_c1(10_000, MAACConstants(1.0, 2.0, 1.0, 1.0, 1.0, 2.0)))
