"""Bounds hold on linear systems with their true constants and fail with false ones.

Numbers are worked out by hand from the equations; gradients are exact, of scalar linear-quadratic
systems s' = A s + B a, a = θ s. Each printed form that its proof does not support is violated.
"""

import math
import re
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import erf

from gradlab import theory
from gradlab.errors import InputError

ROUNDING = 1 + 1e-9


def stable_pairs(trials, seed):
    """Rows (A, B, θ, Â, B̂), all of size below 1 with |A + Bθ|, |Â + B̂θ| < 1."""
    rng = np.random.default_rng(seed)
    A, B, theta = rng.uniform(-0.98, 0.98, (3, 20 * trials))
    scale = 10.0 ** rng.uniform(-3, -0.5, 20 * trials)
    A_, B_ = A + scale * rng.normal(size=len(A)), B + scale * rng.normal(size=len(A))
    rows = np.stack([A, B, theta, A_, B_], axis=1)
    closed = np.maximum(abs(A + B * theta), abs(A_ + B_ * theta))
    kept = rows[np.maximum(np.abs(rows).max(axis=1), closed) < 1][:trials]
    assert len(kept) == trials
    return kept, rng


# MPG


def exact_model(**change):
    constants = dict(gamma=0.9, B_theta=2.0, c_m=0.0, B_fs=0.8, B_ps=0.8, B_fa=1.0, B_pa=1.0)
    constants |= dict(B_delta_s=0.0, B_delta_a=0.0, B_rs=1.0, B_Qs=1.0, B_qs=0.0, B_qa=0.0)
    return theory.MPGConstants(**(constants | change))


def mpg_trials(trials, seed, H=12):
    """Constants, and the bias of first-action gradients of every horizon from s_0 = 1."""
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
        # ∇_s Q along π and ∇_a Q at s = 1, of the critic and of Q^π.
        B_qs, B_qa = theory.critic_errors(
            [[-2 * (cost + gamma * P * M**2)]], [[-value]], [[truth]], [[tail[0]]]
        )
        c = theory.MPGConstants(
            gamma=gamma,
            B_theta=1.0,
            c_m=theory.linear_growth(abs(M ** n[1:] - M_ ** n[1:])),
            B_fs=abs(M_),
            B_ps=abs(M),
            B_fa=abs(B_),
            B_pa=abs(B),
            B_delta_s=abs(M - M_),
            B_delta_a=abs(B - B_),
            B_rs=2 * cost,
            B_Qs=value,
            B_qs=B_qs,
            B_qa=B_qa,
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


def test_mpgs_theorem_holds_on_linear_systems_and_fails_with_false_constants():
    violated = printed = 0
    false = dict.fromkeys(("no model error", "no critic error"), 0)
    for c, n, bias in mpg_trials(600, seed=4):
        exact = replace(c, c_m=0.0, B_delta_s=0.0, B_delta_a=0.0)
        violated += bool((bias > ROUNDING * theory.mpg_bias(n, c) + 1e-12).any())
        printed += any(bias[k] > ROUNDING * printed_mpg(c, k) + 1e-12 for k in range(2, len(n)))
        false["no model error"] += bool((bias > 1e-6 + theory.mpg_bias(n, exact)).any())
        blind = replace(c, B_qs=0.0, B_qa=0.0)
        false["no critic error"] += bool((bias > 1e-6 + theory.mpg_bias(n, blind)).any())
    assert violated == 0
    assert printed >= 10
    assert min(false.values()) >= 200


def test_mpgs_numbers_by_hand():
    c = exact_model(
        c_m=0.5, B_delta_s=0.1, B_delta_a=0.2, B_qs=0.3, B_qa=0.7, L_grad_f=0.4, L_grad_r=2.0,
        L_grad_Q=3.0, B_delta_r=0.05, B_delta_ra=0.01,
    )  # fmt: skip
    U_r, U_q = theory.mpg_errors([0, 1, 2], c)
    # k = 1: (2 · .5 + .05) · 1 + .2;  k = 2: Δ = .4 · .5 + .1, chain = .8 · .2 + (1.1 − .8)
    assert U_r == pytest.approx([0.01, 1.25, (2 + 0.05) * 0.8 + 0.46])
    assert U_q == pytest.approx([0.7, 1.5 + 0.2 + 0.3, 3 * 0.8 + 0.46 + 0.8 * 0.3])
    expected = 2 * (0.01 + 0.9 * 1.25 + 0.81 * U_q[2])
    assert float(theory.mpg_bias(2, c)) == pytest.approx(expected)
    assert (theory.mpg_bias(np.arange(30), exact_model()) == 0).all()
    assert theory.linear_growth([0.1, 0.4, 0.3]) == pytest.approx(0.2)
    gaps = theory.critic_errors([[0, 0], [3, 4]], [[0, 0], [0, 0]], [[1], [2]], [[1.5], [2]])
    assert gaps == (5.0, 0.5)
    printed = theory.mpg_order([0, 1, 4], exact_model(c_m=0.1, B_qs=0.3, B_qa=0.5), 2.0, 3.0)
    assert printed == pytest.approx([1.5, 2 * 0.09 + 0.9 * 0.9, 2 * 4 * 0.36**4 + 0.9**4 * 0.9])


def noisy_values(M, B, gamma, e):
    """Changes of ∇_s q along π and of ∇_a q at s = 0 by noise that is always e, and L_∇q, of
    s' = M s under π, action B, reward −s²: q = −Σ γᵗ s_t², s_t = Mᵗ s + e Σ_{j<t} Mʲ."""
    t = np.arange(3000)
    shift = np.concatenate([[0], np.cumsum(M ** t.astype(float))])[:-1]
    in_state = 2 * e * (gamma**t * M ** t.astype(float) * shift).sum()
    slope = 2 / (1 - gamma * M**2)
    return in_state, gamma * B * (slope * e + in_state), slope


@pytest.mark.parametrize(("M", "B", "gamma"), [(0.5, 1.0, 0.9), (0.0, 2.0, 0.9), (0.9, 0.3, 0.98)])
def test_mpgs_lemma_on_noise_is_exact_for_a_constant_push(M, B, gamma):
    in_state, in_action, slope = noisy_values(M, B, gamma, e=0.1)
    c = exact_model(gamma=gamma, B_ps=M, B_pa=B, L_grad_q=slope, noise=0.1)
    c_s, c_a = theory.mpg_noise(c)
    assert (c_s * 0.1, c_a * 0.1) == pytest.approx((in_state, in_action), rel=1e-9)
    assert float(theory.mpg_bias(0, c)) == pytest.approx(c.B_theta * in_action, rel=1e-9)
    # As printed, γ/(1 − γ) L B_ps B_pa, B_ps over products from the second step on.
    if M == 0:
        assert in_action > gamma / (1 - gamma) * slope * M**2 * B


def test_visitation_is_stationary_as_mpgs_first_lemma_says():
    P = np.array([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.0, 0.4, 0.6]])
    begin = np.array([1.0, 0, 0])
    values, vectors = np.linalg.eig(P.T)
    d = vectors[:, np.argmax(values.real)].real
    d /= d.sum()
    assert theory.visitation(P, d, 0.9) == pytest.approx(d)
    assert theory.visitation(P, begin, 1 - 1e-9) == pytest.approx(d, abs=1e-7)
    nu = theory.visitation(P, begin, 0.5)
    assert abs(nu - d).max() > 0.1
    marginals = [begin @ np.linalg.matrix_power(P, t) for t in range(60)]
    assert nu == pytest.approx(sum(0.5 ** (t + 1) * each for t, each in enumerate(marginals)))
    two = np.eye(2)  # two closed classes never forget
    assert theory.visitation(two, [1, 0], 1 - 1e-9) == pytest.approx([1, 0])


# MAAC


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
        c = theory.MAACConstants(
            gamma=gamma,
            L_f=max(math.hypot(A, B), math.hypot(A_, B_)),
            L_pi=abs(theta),
            L_r=abs(slope[:H]).max(),
            L_Q=max(np.linalg.norm(Q), np.linalg.norm(Q_)),
            K=max(1.0, (size[1:] ** (1 / np.arange(1, H + 1))).max()),
        )
        yield c, H, math.hypot(A - A_, B - B_), float(np.linalg.norm(Q - Q_)), abs(error)


def printed_maac(c, H, epsilon_f, epsilon_Q):
    """Lemma A.1 with the constants as printed."""
    L, K = c.L_f * (1 + c.L_pi), c.gamma * c.K
    geometric = lambda x: sum(x**t for t in range(H))  # noqa: E731
    reward = L / (L - 1) * (geometric(K * L) - geometric(K))
    critic = c.L_Q * (L**H - 1) / (L - 1) * K**H
    return epsilon_f * (reward + critic) + epsilon_Q * K**H


def test_maacs_lemma_holds_on_linear_systems_and_fails_with_false_constants():
    violated = printed = no_model = no_critic = 0
    for c, H, epsilon_f, epsilon_Q, error in maac_trials(2000, seed=3):
        limit = error / ROUNDING
        violated += limit > theory.maac_error(H, c, epsilon_f, epsilon_Q)
        no_model += limit > theory.maac_error(H, c, 0.0, epsilon_Q)
        no_critic += limit > theory.maac_error(H, c, epsilon_f, 0.0)
        printed += limit > printed_maac(c, H, epsilon_f, epsilon_Q)
    assert violated == 0
    assert min(printed, no_model, no_critic) >= 50


def test_maacs_critic_term_needs_the_actions_share():
    """One step from s_0 = 1, K = 1: the error is √2 L_Q ε_f where the paper prints L_Q ε_f."""
    A, B, theta, change = -0.9, 0.3, 1.0, 0.01
    states = np.array([1.0, A + B * theta])
    (_, D), action = sensitivities(A, B, theta, states)
    (_, D_), action_ = sensitivities(A, B + change, theta, states)
    assert max(math.hypot(D, action[1]), math.hypot(D_, action_[1])) < 1
    error = abs((D - D_) + (action - action_)[1]) / math.sqrt(2)
    c = theory.MAACConstants(1.0, L_f=math.hypot(A, 0.31), L_pi=theta, L_r=0.0, L_Q=1.0, K=1.0)
    assert c.L_Q * change < error <= theory.maac_error(1, c, change, 0.0)


def test_maacs_numbers_by_hand():
    c = theory.MAACConstants(1.0, L_f=0.5, L_pi=1.0, L_r=3.0, L_Q=2.0, K=1.0)
    # L = 1, K = 1, γ = 1: S_t = t.
    assert theory.maac_c1([0, 1, 4], c) == pytest.approx([0, 4, 3 * 6 + 4 * 4])
    assert theory.maac_error([0, 2], c, 0.1, 0.7, 0.5) == pytest.approx([0.7, 0.1 * 11 + 0.7 + 1])
    assert (theory.maac_error(np.arange(9), c, 0.0, 0.0) == 0).all()
    rising = replace(c, gamma=0.99, K=1.1)
    assert rising.critic_term_rises and (np.diff(theory.maac_c2(np.arange(9), rising)) > 0).all()
    assert not c.critic_term_rises
    steep = theory.MAACConstants(1.0, 2.0, 1.0, 1.0, 1.0, 2.0)
    assert np.isinf(theory.maac_c1(10_000, steep))
    assert theory.maac_error(10_000, replace(steep, K=1.0), 0.0, 0.3) == pytest.approx(0.3)
    assert theory.maac_distance(0.1, 4.0, [3.0]) == pytest.approx([0.3])
    assert theory.maac_loss(0.9, 2.0, 0.3) == pytest.approx(2 * 2 * 0.3 / 0.01)


def test_maacs_distance_of_gaussian_policies_is_not_violated():
    """a ~ N(θ s, σ²), so that F = s²/σ² and D_TV = erf(|Δθ s| / √8 σ), for every size of a step."""
    violated = false = 0
    for c, H, epsilon_f, epsilon_Q, error in maac_trials(300, seed=8):
        bound = float(theory.maac_error(H, c, epsilon_f, epsilon_Q))
        for alpha, s, sigma in ((0.01, 1.0, 0.5), (0.1, 2.0, 0.3), (1.0, 0.5, 1.0)):
            distance = erf(alpha * error * s / (math.sqrt(8) * sigma))
            fisher = s**2 / sigma**2
            violated += distance > ROUNDING * theory.maac_distance(alpha, fisher, bound)
            # Of a quarter of the Fisher information and the error itself, the distance is beyond.
            false += distance > theory.maac_distance(alpha, fisher / 4, error)
    assert violated == 0 and false >= 300


@pytest.mark.parametrize("p", [1e-4, 1e-2, 0.3])
def test_maacs_loss_needs_the_square_of_the_horizon(p):
    """Reward 1 until a fall, −1 ever after; the policies fall with probability 0 and p a step."""
    gamma = 0.99
    loss = 2 * gamma * p / ((1 - gamma) * (1 - gamma * (1 - p)))
    assert loss <= theory.maac_loss(gamma, 1.0, p)
    assert loss > theory.maac_loss(gamma, 1.0, p) * (1 - gamma) * 0.9  # one power too few: printed
    if p < 1e-2:
        assert loss > 0.98 * theory.maac_loss(gamma, 1.0, p)


# DDPPO


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
        c = theory.DDPPOConstants(
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
        yield c, (epsilon_f, jacobian, reward), abs(found[0][0] - found[1][0]), found[1][0]


def test_ddppos_first_theorem_holds_on_linear_systems_and_fails_with_false_errors():
    false = np.zeros(3)
    for c, errors, bias, gradient in ddppo_trials(300, seed=5):
        assert bias <= ROUNDING * theory.ddppo_bias(c, *errors)
        assert abs(gradient) <= ROUNDING * c.L_R
        for k in range(3):  # one of the three alone, where the others were made, too
            alone = [error * (j == k) for j, error in enumerate(errors)]
            false[k] += bias > 1e-9 + theory.ddppo_bias(c, *alone)
    assert (false >= 10).all()


def test_ddppos_numbers_by_hand_and_its_printed_constants_are_violated():
    c = theory.DDPPOConstants(
        gamma=0.5, L_f=0.5, L_1=3.0, L_r=2.0, L_pi=0.5, L_fg=0.25, L_rg=0.1, L_pig=0.2
    )
    C = theory.ddppo_coefficients(c)
    assert C[:4] == pytest.approx([2, 6, 0.5 * 2 * 9 / 0.25, 2 * 3 * 0.1 / 0.5 + 18.0])
    assert pytest.approx(0.5 * (1 + 0.25 * 6) / 0.5) == C.C6
    later = 0.5 * 3 * 2 / 0.5
    assert pytest.approx(0.5 * (0.25 * 36 + later) / 0.5) == C.C7
    states = 0.5 * (2 * 0.1 + 0.25 * 19.2 + later * 0.25 * 2)
    assert pytest.approx((states + 0.2 * 2 * (2 + 0.5 * later)) / 0.5) == C.C8
    assert pytest.approx(2 * 0.5 * (1 + 0.5 * 3 * 0.5 / 0.5) / 0.5) == c.L_R
    # No model error and a reward gradient wrong by 1 in the action: the bias is L_π/(1 − γ), and
    # the printed C6 = L_π L_f (1 + γ C3)/(1 − γ) is below it where L_f is small.
    c = theory.DDPPOConstants(gamma=0.5, L_f=0.1, L_1=1.0, L_r=2.0, L_pi=3.0)
    bias = 3.0 / (1 - 0.5)
    assert 3.0 * 0.1 * (1 + 0.5 * 2) / 0.5 < bias <= theory.ddppo_bias(c, 0.0, 0.0, 1.0)
    # A Jacobian wrong by 1 in the action: the bias scales with the reward's slope, printed C7 not.
    steep = theory.DDPPOConstants(gamma=0.5, L_f=0.0, L_1=1.0, L_r=100.0, L_pi=1.0)
    assert pytest.approx(200.0) == theory.ddppo_coefficients(steep).C7


def test_ddppos_states_of_finite_diameter_cap_the_drift():
    c = theory.DDPPOConstants(gamma=0.9, L_f=0.99, L_1=1.0, L_r=1.0, L_pi=1.0, L_rg=1.0, D=2.0)
    assert theory.ddppo_bias(c, 0.0, 0.0, 0.0) == 0
    assert pytest.approx(100) == theory.ddppo_coefficients(c, 1e-3).C0
    assert pytest.approx(0.2) == theory.ddppo_coefficients(c, 10.0).C0
    unstable = replace(c, L_f=1.3)
    assert pytest.approx(20) == theory.ddppo_coefficients(unstable, 0.1).C0
    with pytest.raises(InputError, match=r"Lemma 1 .* needs L_f < 1, or .* D \(got 1.3\)"):
        theory.ddppo_coefficients(replace(unstable, D=None), 0.1)


def returns(theta, A=0.7, B=0.5, gamma=0.6, q=0.3, rho=0.2):
    """J of s_0 = 1 and its derivative."""
    M, cost = A + B * theta, q + rho * theta**2
    left = 1 - gamma * M**2
    return -cost / left, -(2 * rho * theta * left + cost * 2 * gamma * M * B) / left**2


THETAS = np.linspace(-1.5, 0.5, 4001)


def measured_smoothness():
    """L_J and L_∇J over the policies that are visited."""
    slope = returns(THETAS)[1]
    return abs(slope).max(), abs(np.gradient(slope, THETAS)).max() * 1.001


def ascend(rates, push, theta=0.3):
    """θ_t and ∇J(θ_t) of ascent along a gradient that is off by `push`."""
    thetas, slopes = [theta], []
    for rate in rates:
        slopes.append(returns(thetas[-1])[1])
        thetas.append(thetas[-1] + rate * (slopes[-1] + push))
    assert THETAS[0] <= min(thetas) and max(thetas) <= THETAS[-1]
    return np.array(thetas), np.array(slopes)


def test_ddppos_second_theorem_holds_in_biased_ascent_and_fails_without_the_bias():
    L_J, L_Jg = measured_smoothness()
    rates, push = np.full(20_000, 0.005), 0.4
    slopes = ascend(rates, push)[1]
    c = theory.AscentConstants(
        U_J=abs(returns(THETAS)[0]).max(), L_J=L_J, L_Jg=L_Jg, L_R=L_J + push
    )
    least = (slopes**2).min()
    assert least <= theory.ddppo_convergence(rates, c, push)
    assert least > theory.ddppo_convergence(rates, c, 0.0)


def test_ddppos_second_theorem_by_hand_and_its_printed_noise_is_violated():
    c = theory.AscentConstants(U_J=1.0, L_J=2.0, L_Jg=0.5, L_R=3.0, m=0.5, rho=0.1)
    # α = (.2, .1, .1), τ = 1: moves before steps 2, 3 are .2, .1.
    B2 = 0.2 * 2 * 5 + 0.5 * 9 / 2 * 0.06 + 0.5 * 3 * 9 * (0.1 * 0.2 + 0.1 * 0.1)
    B2 += 2 * 2 * 3 * 0.5 * 0.1 * 0.2
    found = theory.ddppo_convergence([0.2, 0.1, 0.1], c, 0.7, tau=1)
    assert found == pytest.approx(2 * (2 + B2) / 0.4 + 0.49)
    # Two states ξ of a chain that hardly ever moves, R = −k/2 (φ ∓ a)²: φ rests at a, where
    # |∇J| = k a = L_J. (8) allows 2 L_J m ρ^τ beside what vanishes with the rates.
    k, a, rates = 0.1, 100.0, np.full(100_000, 0.01)
    slow = theory.AscentConstants(2 * k * a**2, k * a, k, 2 * k * a, m=0.5, rho=1 - 1e-9)
    vanishing = theory.ddppo_convergence(rates, replace(slow, m=0.0), 0.0)
    assert vanishing + 2 * slow.L_J * slow.m < slow.L_J**2
    assert theory.ddppo_convergence(rates, slow, 0.0) >= slow.L_J**2


# RP-PGM


def rp_trial(row, q, rho, P_, gamma, H):
    """Derivatives in θ of the h-step return with a frozen tail, from s_0 = 1, of simulator with its
    own Q and of the model with Q̂; the errors ε_v of each h; all [H + 1]."""
    A, B, theta, A_, B_ = row
    P = (q + rho * theta**2) / (1 - gamma * (A + B * theta) ** 2)
    out = []
    for a, b, p in ((A, B, P), (A_, B_, P_ * P)):
        M, i = a + b * theta, np.arange(H + 1)
        s = M**i
        ds = i * M ** np.maximum(i - 1, 0) * b
        act, dact = theta * s, s + theta * ds
        reward = -2 * q * s * ds - 2 * rho * act * dact
        Q_s = -2 * q * s - 2 * gamma * p * a * M * s
        Q_a = -2 * rho * act - 2 * gamma * p * b * M * s
        before = np.concatenate([[0], np.cumsum(gamma**i * reward)])[:-1]
        out.append((before + gamma**i * (Q_s * ds + Q_a * dact), Q_s, Q_a))
    (true, Q_s, Q_a), (model, Q_s_, Q_a_) = out
    errors = [
        theory.rp_critic_error([[Q_s[h]]], [[Q_s_[h]]], [[Q_a[h]]], [[Q_a_[h]]])
        for h in range(H + 1)
    ]
    return true, model, np.array(errors)


def lipschitz(row, q, rho, P_, gamma):
    """L_r and the largest L_Q over |s|, |a| ≤ 1."""
    A, B, theta, A_, B_ = row
    P = (q + rho * theta**2) / (1 - gamma * (A + B * theta) ** 2)
    sizes = []
    for a, b, p in ((A, B, P), (A_, B_, P_ * P)):
        step = np.outer([a, b], [a, b])
        sizes.append(2 * np.sqrt(2) * np.linalg.norm(np.diag([q, rho]) + gamma * p * step, 2))
    return 2 * math.hypot(q, rho), max(sizes)


def rp_trials(trials, seed):
    rows, rng = stable_pairs(trials, seed)
    for row in rows:
        q, rho = rng.uniform(0.1, 2, 2)
        P_, gamma = np.exp(rng.normal(0, 0.3)), rng.uniform(0.5, 0.995)
        A, B, theta, A_, B_ = row
        c = theory.RPConstants(
            gamma=gamma,
            L_f=max(math.hypot(A, B), math.hypot(A_, B_)),
            L_pi=abs(theta),
            closed_loop=max(abs(A + B * theta), abs(A_ + B_ * theta)),
            beta=1.0,
        )
        A, B, A_, B_ = (np.array([[[[x]]]]) for x in (A, B, A_, B_))
        epsilon_f = theory.rp_model_error(A, A_, B, B_)
        yield c, epsilon_f, lipschitz(row, q, rho, P_, gamma), *rp_trial(row, q, rho, P_, gamma, 30)


def test_rps_bias_holds_on_linear_systems_from_one_step_on_and_fails_with_false_errors():
    h = [1, 2, 5, 12, 30]
    trials = no_model = no_critic = broken_at_zero = 0
    for c, epsilon_f, (L_r, L_Q), true, model, errors in rp_trials(500, seed=1):
        trials += 1
        C_f, bias = 6 * L_r + 3 * L_Q, abs(true - model)
        for k in h:
            assert bias[k] <= ROUNDING * theory.rp_bias(k, c, epsilon_f, errors[k], C_f, 2.0)
        broken_at_zero += bias[0] > theory.rp_bias(0, c, epsilon_f, errors[0], C_f, 2.0)
        no_model += bias[1] > 1e-9 + theory.rp_bias(1, c, 0.0, errors[1], C_f, 2.0)
        no_critic += bias[1] > 1e-9 + theory.rp_bias(1, c, epsilon_f, 0.0, C_f, 2.0)
    assert broken_at_zero == trials == 500
    assert min(no_model, no_critic) >= 10


def test_rps_variance_holds_on_linear_systems_from_one_step_on_and_fails_with_too_many_samples():
    """Starts U(−1, 1): a sample's gradient is s_0² times the unit start's; Var s_0² = 4/45."""
    h, false = np.arange(31), 0
    for c, _, (L_r, L_Q), _, model, _ in rp_trials(200, seed=2):
        variance = 4 / 45 * model**2
        bound = theory.rp_variance(h, c, C_r=2 * L_r**2, C_q=18 * L_Q**2)
        assert (variance[1:] <= ROUNDING * bound[1:]).all()
        assert variance[0] > bound[0] == 0
        many = theory.rp_variance(1, replace(c, N=100_000), C_r=2 * L_r**2, C_q=18 * L_Q**2)
        false += variance[1] > many
    assert false >= 100


def test_rps_propositions_by_hand_and_their_exponential_growth():
    c = theory.RPConstants(0.5, L_f=2.0, L_pi=0.1, closed_loop=1.5, kappa=3.0, beta=0.5, N=4)
    # L̃_f = 2, L̃_π = 1, κ′ = 2.
    assert theory.rp_bias(2, c, 0.1, 0.2, 1.0, 3.0) == pytest.approx(
        2 * (3 * 16 * 64 * 0.1 + 3 * 4 * 0.25 * 16 * 0.2)
    )
    expected = (256 + 5 * 64 / 16) * 2**12 / 4
    assert theory.rp_variance(2, c, 1.0, 5.0) == pytest.approx(expected)
    assert theory.RPConstants(0.9, L_f=0.6, L_pi=0.75).growth == pytest.approx(0.75)
    steep = theory.RPConstants(1.0, L_f=1.2, L_pi=1.1, closed_loop=1.3)
    bias = theory.rp_bias([10, 11], steep, 1.0, 0.0, 1.0, 1.0)
    assert bias[1] / bias[0] == pytest.approx(1.1**4 * 1.2**3 * 1.1**2)


def test_lipschitz_constants_below_one_do_not_stop_the_state_path_from_growing():
    """L_f = .98 and L_π = .99 with a closed loop of 1.37: no constant makes (5.3) a bound."""
    row = (0.69, 0.69, 0.99, 0.68, 0.69)
    c = theory.RPConstants(gamma=0.95, L_f=math.hypot(0.69, 0.69), L_pi=0.99)
    assert c.unmet == ("growth <= 1 (got 1.373)",)
    with pytest.raises(InputError, match=r"Proposition 5.8 .* needs growth <= 1 \(got 1.373\)"):
        theory.rp_bias(1, c, 0.01, 0.0, 1.0, 1.0)
    gradients = []
    for a, b in (row[:2], row[3:]):
        M, i = a + b * row[2], np.arange(121)
        s = M**i
        ds = i * M ** np.maximum(i - 1, 0) * b
        terms = -2 * s * ds - 2 * row[2] * s * (s + row[2] * ds)
        gradients.append(np.concatenate([[0], np.cumsum(0.95**i * terms)])[:-1])
    as_printed = replace(c, closed_loop=1.0)  # what (C.9) leaves
    bound = theory.rp_bias(np.arange(1, 121), as_printed, 0.01, 0.0, 1.0, 1.0)
    ratio = abs(gradients[0] - gradients[1])[1:] / bound
    assert ratio[119] > 1e6 * ratio[59] > 1e9 * ratio[19]


def test_rps_conditions_are_named_where_they_fail():
    assert theory.RPConstants(0.9, L_f=0.9, L_pi=0.3).unmet == ()
    assert theory.RPConstants(0.9, L_f=1.3, L_pi=2.0, closed_loop=0.5).unmet == (
        "L_f < 1 (got 1.3)",
        "L_pi < 1 (got 2)",
    )


def test_rps_errors_and_kappa_by_hand():
    A = np.zeros((2, 2, 2, 2))
    A_hat = A.copy()
    A_hat[1, 0] = np.diag([3.0, 4.0])  # spectral norm 4, Frobenius 5
    B, B_hat = np.zeros((2, 2, 2, 1)), np.zeros((2, 2, 2, 1))
    B_hat[1, 1] = [[3], [4]]
    assert theory.rp_model_error(A, A_hat, B, B_hat) == pytest.approx((4 + 5) / 2)
    q = [[0.0, 0.0], [0.0, 0.0]]
    assert theory.rp_critic_error(q, [[3, 4], [0, 1]], [[1], [1]], [[1], [2]]) == pytest.approx(3.5)
    assert theory.rp_kappa([0.5, 0.5], [0.5, 0.5]) == pytest.approx(1)
    assert theory.rp_kappa([1, 0, 0], [0.25, 0.75, 0]) == pytest.approx(2)


def test_kappa_of_a_linear_system_is_that_of_its_gaussians_and_below_its_limit():
    """s' = M s from N(0, 1), γ → ν a mixture of N(0, M^{2t}): by cells, and by the integral."""
    M, gamma, edges = 0.8, 0.9, np.linspace(-6, 6, 2402)
    density = lambda s, width: np.exp(-(s**2) / (2 * width**2)) / (width * math.sqrt(2 * math.pi))  # noqa: E731
    mix = lambda s: (1 - gamma) * sum(gamma**t * density(s, M**t) for t in range(100))  # noqa: E731
    middle = (edges[1:] + edges[:-1]) / 2
    start, cells = density(middle, 1.0), density(middle, 1.0) * 0
    for t in range(100):  # narrow ones by their distribution function, not by the middle
        steps = 0.5 * (1 + erf(edges / (M**t * math.sqrt(2))))
        cells += (1 - gamma) * gamma**t * np.diff(steps)
    start, cells = start / start.sum(), cells / cells.sum()
    whole = 2 * quad(lambda s: density(s, 1.0) ** 2 / mix(s), 1e-9, 6, limit=400)[0]
    kappa = theory.rp_kappa(start, cells)
    assert kappa == pytest.approx(math.sqrt(whole), rel=2e-3)
    assert 1 < kappa < (1 - gamma) ** -0.5
    # A start that is never seen again has the largest one.
    once = np.array([[0.0, 1.0], [0.0, 1.0]])
    limit = theory.rp_kappa([1, 0], theory.visitation(once, [1, 0], gamma))
    assert limit == pytest.approx((1 - gamma) ** -0.5)


@pytest.mark.parametrize(
    ("gamma", "ratio", "horizon"),
    [
        (0.9, 1, 0.4574),
        (0.9, 100, 6.4627),
        (0.95, 10, 1.6310),
        (0.99, 0.1, 0.0465),
        (0.99, 100, 4.5109),
        (0.99, 1e4, 64.8616),
    ],
)
def test_rps_optimal_horizon_is_the_root_and_the_surrogates_brute_force_minimum(
    gamma, ratio, horizon
):
    found = theory.rp_horizon(gamma, 0.3, 0.3 * ratio)
    assert found == pytest.approx(horizon, abs=5e-5)
    rate = math.log(1 / gamma)
    root = brentq(lambda h: h**3 - gamma ** (2 * h) * rate * ratio**2, 0, 1000, xtol=1e-12)
    assert found == pytest.approx(root, rel=1e-9)
    grid = np.linspace(0, 4 * horizon, 40_001)
    surrogate = lambda h: theory.rp_surrogate(h, gamma, 1.0, ratio)  # noqa: E731
    best, value = theory.shortest_minimiser(surrogate, grid)
    assert best == pytest.approx(found, rel=1e-3)
    assert value < 0 == surrogate(0.0)


def test_the_surrogate_is_the_integral_of_its_equation():
    gamma, rate, h = 0.93, math.log(1 / 0.93), 7.3

    def slope(x):
        bias = x**7 * 0.04 - rate * x**4 * gamma ** (2 * x) * 1.7**2
        return bias + (x**7 - rate * x**6 * gamma ** (2 * x)) / 12

    assert theory.rp_surrogate(h, gamma, 0.2, 1.7, 12) == pytest.approx(quad(slope, 0, h)[0])


def test_rps_optimal_horizon_at_its_limits():
    assert theory.rp_horizon(0.9, 1.0, 0.0) == 0
    rate = 1e-6  # h* → l^{1/3} (ε_v/ε_f)^{2/3} as γ → 1
    near_one = theory.rp_horizon(math.exp(-rate), 1.0, 8.0)
    assert near_one == pytest.approx(4 * rate ** (1 / 3), rel=1e-3)
    assert theory.rp_horizon(0.9, 1e-300, 1e-300) == pytest.approx(theory.rp_horizon(0.9, 1, 1))


@pytest.mark.parametrize(("gamma", "ratio"), [(0.9, 100), (0.99, 1e4), (0.95, 0.1)])
@pytest.mark.parametrize("N", [1, 1e3, 1e9])
def test_with_the_variance_the_minimum_lies_between_the_two_closed_forms(gamma, ratio, N):
    ends = (theory.rp_horizon(gamma, 1.0, ratio), theory.rp_variance_horizon(gamma))
    grid = np.linspace(0, 2 * max(ends), 20_001)
    both = lambda h: theory.rp_surrogate(h, gamma, 1.0, ratio, N)  # noqa: E731
    best, _ = theory.shortest_minimiser(both, grid)
    assert min(ends) - grid[1] <= best <= max(ends) + grid[1]


def test_the_bound_itself_is_smallest_at_zero_whatever_the_errors():
    horizons = np.arange(200)
    c = theory.RPConstants(gamma=0.95, L_f=0.9, L_pi=0.4, N=256)
    for ratio in (0.1, 1, 100, 1e4, 1e8):
        square = lambda h, ratio=ratio: (  # noqa: E731
            theory.rp_bias(h, c, 1.0, ratio, 1.0, 1.0) ** 2 + theory.rp_variance(h, c, 1.0, 1.0)
        )
        assert theory.shortest_minimiser(square, horizons) == (0, 0)


def test_rps_convergence_holds_in_biased_ascent_and_fails_without_the_bias():
    L = measured_smoothness()[1]
    T, push = 40_000, 0.2
    eta = T**-0.5
    thetas, slopes = ascend(np.full(T, eta), push)
    gain, delta = returns(thetas[-1])[0] - returns(thetas[0])[0], abs(thetas).max()
    b, none = np.full(T, push), np.zeros(T)
    least = (slopes**2).min()
    bound = theory.rp_convergence(b, none, eta, L, delta, gain)
    assert least <= bound
    assert least > theory.rp_convergence(none, none, eta, L, delta, gain)
    # η = 1/√T: the corollary is never below the proposition that it follows from.
    rise = max(gain, 0.0)
    rate = theory.rp_rate(b, L, delta, 0.0, rise)
    assert theory.rp_convergence(b, none, eta, L, delta, rise) <= rate


def test_rps_convergence_by_hand_and_its_corollary_is_vacuous_for_a_bias_that_stays():
    # c = 1/(.1 − 2 · .01) = 12.5
    found = theory.rp_convergence([0.1, 0.3], [0.0, 0.4], eta=0.1, L=2.0, delta=0.5, gain=0.7)
    terms = 12.5 * (0.4 + 0.05 * 0.4) + 0.01 + 0.09 + 0.4
    assert found == pytest.approx(4 / 2 * terms + 4 * 12.5 / 2 * 0.7)
    rate = theory.rp_rate(np.full(4, 0.1), L=1.0, delta=0.5, V=0.2, gain=0.3)
    assert rate == pytest.approx(16 * 0.5 * 0.4 / 2 + 4 * 0.16 / 4 + 8 * 0.5 / 2)
    short, long = (theory.rp_rate(np.full(T, 0.1), 1.0, 0.5, 0.2, 0.3) for T in (10**4, 10**6))
    assert long > 9 * short


CALLS = {
    "L_f is -1.0": lambda: theory.RPConstants(0.9, -1.0, 0.5),
    "L_pi is nan": lambda: theory.RPConstants(0.9, 0.5, math.nan),
    "gamma is 1.5": lambda: theory.RPConstants(1.5, 0.5, 0.5),
    "N is 0": lambda: theory.RPConstants(0.9, 0.5, 0.5, N=0),
    "beta is 2.0": lambda: theory.RPConstants(0.9, 0.5, 0.5, beta=2.0),
    r"gamma is 1.0, expected a number in \(0, 1\)": lambda: exact_model(gamma=1.0),
    "c_m is inf": lambda: exact_model(c_m=math.inf),
    "c_m is 'much'": lambda: exact_model(c_m="much"),
    r"MPG Lemma 2 .* needs gamma \* B_ps < 1 \(got 1.08\)": lambda: theory.mpg_bias(
        3, exact_model(B_ps=1.2, noise=0.1, L_grad_q=1.0)
    ),
    r"Theorem 2's order .* needs L_grad_f <= 1 \(got 1.5\)": lambda: theory.mpg_order(
        3, exact_model(L_grad_f=1.5), 1.0, 1.0
    ),
    "n is a list, expected an integer": lambda: theory.mpg_bias([0.5], exact_model()),
    "errors is": lambda: theory.linear_growth([]),
    "errors is a ndarray of shape": lambda: theory.linear_growth([0.1, -0.2]),
    "q_a_hat is .* shape of q_a": lambda: theory.critic_errors([[1]], [[1]], [[1]], [[1, 2]]),
    "start is .* sum to 1": lambda: theory.visitation([[1.0]], [0.5], 0.9),
    r"MAAC Lemma A.1 .* needs K >= 1 \(got 0.5\)": lambda: theory.MAACConstants(
        1.0, 1.0, 1.0, 1.0, 1.0, K=0.5
    ),
    "epsilon_Q is -2": lambda: theory.maac_error(
        1, theory.MAACConstants(1.0, 1.0, 1.0, 1.0, 1.0, 1.0), 1.0, -2.0
    ),
    r"DDPPO Theorem 2 .* needs tau < T \(got 2\)": lambda: theory.ddppo_convergence(
        [0.1, 0.1], theory.AscentConstants(1.0, 1.0, 1.0, 1.0), 0.0, tau=2
    ),
    r"needs rho < 1 \(Assumption 5\) \(got 1\)": lambda: theory.AscentConstants(
        1.0, 1.0, 1.0, 1.0, 1.0, rho=1.0
    ),
    "alpha is": lambda: theory.ddppo_convergence(
        [0.0, 0.0], theory.AscentConstants(1.0, 1.0, 1.0, 1.0), 0.0
    ),
    r"Assumption 5.7 .* needs visited > 0 wherever start is \(got 0.4\)": lambda: theory.rp_kappa(
        [0.6, 0.4], [1.0, 0.0]
    ),
    "h is -1": lambda: theory.rp_bias(-1, theory.RPConstants(0.9, 0.5, 0.5), 1, 1, 1, 1),
    "epsilon_f is -1.0": lambda: theory.rp_bias(
        1, theory.RPConstants(0.9, 0.5, 0.5), -1.0, 1, 1, 1
    ),
    "epsilon_f is 0, .* no root, a longer horizon": lambda: theory.rp_horizon(0.9, 0.0, 1.0),
    "epsilon_f is 0, .* every h is a root": lambda: theory.rp_horizon(0.9, 0.0, 0.0),
    "gamma is 1.0": lambda: theory.rp_horizon(1.0, 1.0, 1.0),
    "h is .* from 0": lambda: theory.rp_surrogate(-0.5, 0.9, 1.0, 1.0),
    "N is 0, expected a number of samples": lambda: theory.rp_surrogate(0.5, 0.9, 1.0, 1.0, N=0),
    "horizons is": lambda: theory.shortest_minimiser(np.sqrt, [[1.0]]),
    "horizons is .* bound is a number": lambda: theory.shortest_minimiser(
        lambda h: h * np.nan, [1, 2]
    ),
    r"Proposition 5.2 .* needs eta \* L < 1 \(got 2\)": lambda: theory.rp_convergence(
        [0.1], [0.1], eta=1.0, L=2.0, delta=1.0, gain=0.0
    ),
    r"Corollary 5.12 .* needs T >= 4 L² = 36 \(got 4\)": lambda: theory.rp_rate(
        np.zeros(4), L=3.0, delta=1.0, V=0.0, gain=0.0
    ),
}


@pytest.mark.parametrize("message", CALLS)
def test_bad_input_names_the_argument_or_the_condition_that_fails(message):
    with pytest.raises(InputError, match=message):
        CALLS[message]()


def test_the_pages_table_names_functions_and_tests_that_exist():
    page = (Path(__file__).parents[1] / "docs/papers.md").read_text()
    section = page.split("## The papers' bounds")[1].split("\n## ")[0]
    rows = [
        line.split(" | ") for line in section.splitlines() if re.match(r"\| (MPG|MAAC|D|R)", line)
    ]
    tests = [name.removeprefix("test_") for name in globals() if name.startswith("test_")]
    named = set()
    for row in rows:
        for name in re.findall(r"`(.+?)`", row[2]):
            assert attrgetter(name)(theory)
            named.add(name)
        for name in re.findall(r"`(.+?)`", row[4]):
            assert any(test.startswith(name) for test in tests), name
    public = {n for n, f in vars(theory).items() if getattr(f, "__module__", "") == theory.__name__}
    functions = {n for n in public if not n.startswith("_") and n[0].islower()}
    assert functions - named == {"shortest_minimiser"}
