"""Bounds hold where they must: random scalar systems with exact gradients, no violation.

Each printed form that its own proof does not support is shown to be violated.
"""

import math

import numpy as np
import pytest

from gradlab.errors import InputError
from gradlab.statistics.bounds import ddppo, improvement
from gradlab.statistics.bounds import rp as bounds_rp
from gradlab.statistics.bounds.ddppo import DDPPOConstants
from gradlab.statistics.bounds.improvement import MAACConstants, MPGConstants
from gradlab.statistics.bounds.rp import RPConstants

ROUNDING = 1 + 1e-9


def stable_pairs(trials, seed):
    """Rows (A, B, θ, Â, B̂) with |A|, |B|, |θ|, |A + Bθ| < 1, for model and simulator."""
    rng = np.random.default_rng(seed)
    A, B, theta = rng.uniform(-0.98, 0.98, (3, 20 * trials))
    scale = 10.0 ** rng.uniform(-3, -0.5, 20 * trials)
    A_, B_ = A + scale * rng.normal(size=len(A)), B + scale * rng.normal(size=len(A))
    rows = np.stack([A, B, theta, A_, B_], axis=1)
    closed = np.maximum(abs(A + B * theta), abs(A_ + B_ * theta))
    kept = rows[np.maximum(np.abs(rows).max(axis=1), closed) < 1][:trials]
    assert len(kept) == trials
    return kept, rng


# ---- RP


@pytest.mark.parametrize(
    ("gamma", "ratio", "horizon"),
    [
        (0.9, 1, 0.4574),
        (0.9, 100, 6.4627),
        (0.95, 10, 1.6310),
        (0.99, 100, 4.5109),
        (0.99, 1e4, 64.8616),
    ],
)
def test_the_optimal_horizon_is_the_surrogates_brute_force_minimum(gamma, ratio, horizon):
    found = bounds_rp.rp_optimal_horizon(gamma, 0.3, 0.3 * ratio)
    assert found == pytest.approx(horizon, abs=5e-5)
    grid = np.linspace(0, 4 * horizon, 40_001)
    surrogate = lambda h: bounds_rp.rp_surrogate(h, gamma, 1.0, ratio)  # noqa: E731
    best, value = improvement.shortest_minimiser(surrogate, grid)
    assert best == pytest.approx(found, rel=1e-3)
    assert value < 0 == surrogate(0.0)


@pytest.mark.parametrize(("gamma", "ratio"), [(0.9, 100), (0.99, 1e4), (0.95, 0.1)])
@pytest.mark.parametrize("N", [1, 1e3, 1e9])
def test_with_the_variance_the_minimum_lies_between_the_two_closed_forms(gamma, ratio, N):
    ends = (
        bounds_rp.rp_optimal_horizon(gamma, 1.0, ratio),
        bounds_rp.rp_variance_horizon(gamma),
    )
    grid = np.linspace(0, 2 * max(ends), 20_001)
    both = lambda h: bounds_rp.rp_surrogate(h, gamma, 1.0, ratio, N)  # noqa: E731
    best, _ = improvement.shortest_minimiser(both, grid)
    assert min(ends) - grid[1] <= best <= max(ends) + grid[1]


def test_the_bound_itself_is_smallest_at_zero_whatever_the_errors():
    horizons = np.arange(200)
    for ratio in (0.1, 1, 100, 1e4, 1e8):
        c = RPConstants(gamma=0.95, L_f=0.9, L_pi=0.4, N=256)
        square = lambda h, c=c, ratio=ratio: (  # noqa: E731
            bounds_rp.rp_bias(h, c, 1.0, ratio) ** 2 + bounds_rp.rp_variance(h, c)
        )
        assert improvement.shortest_minimiser(square, horizons) == (0, 0)


def rp_trial(row, q, rho, P_, gamma, H):
    """Derivatives in θ of the h-step return with a frozen tail, from s_0 = 1; critics' errors.

    Returns: simulator with its own Q, model with Q̂, the errors ε_v of each h; all [H + 1].
    """
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
    return true, model, abs(Q_s - Q_s_) + abs(Q_a - Q_a_)


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
        true, model, errors = rp_trial(row, q, rho, P_, gamma, 30)
        yield row, gamma, lipschitz(row, q, rho, P_, gamma), true, model, errors


def rp_constants(row, gamma):
    A, B, theta, A_, B_ = row
    return RPConstants(
        gamma=gamma,
        L_f=max(math.hypot(A, B), math.hypot(A_, B_)),
        L_pi=abs(theta),
        closed_loop=max(abs(A + B * theta), abs(A_ + B_ * theta)),
        beta=1.0,
    )


def test_rp_bias_is_not_violated_from_one_step_on_and_is_at_zero():
    """C_f = L_θ(6 L_r + 3 L_Q) and C_v = 2 L_θ suffice for linear models with |A + Bθ| ≤ 1."""
    h, checked, broken_at_zero = np.arange(31), 0, 0
    for row, gamma, (L_r, L_Q), true, model, errors in rp_trials(3000, seed=1):
        c = rp_constants(row, gamma)
        if not c.applies.holds:
            continue
        checked += 1
        model_error = abs(row[0] - row[3]) + abs(row[1] - row[4])
        C_f = 6 * L_r + 3 * L_Q
        bound = np.array(
            [float(bounds_rp.rp_bias(k, c, model_error, errors[k], C_f, 2.0)) for k in (1, 2, 5)]
        )
        bias = abs(true - model)
        assert (bias[[1, 2, 5]] <= ROUNDING * bound).all()
        whole = bounds_rp.rp_bias(h, c, model_error, errors.max(), C_f, 2.0)
        assert (bias[1:] <= ROUNDING * whole[1:]).all()
        broken_at_zero += bias[0] > whole[0]
    assert checked >= 1000
    assert broken_at_zero == checked


def test_rp_variance_is_not_violated_from_one_step_on_and_is_at_zero():
    """Starts U(−1, 1): a sample's gradient is s_0² times the unit start's; Var s_0² = 4/45."""
    h, checked = np.arange(31), 0
    for row, gamma, (L_r, L_Q), _, model, _ in rp_trials(1000, seed=2):
        c = rp_constants(row, gamma)
        if not c.applies.holds:
            continue
        checked += 1
        variance = 4 / 45 * model**2
        bound = bounds_rp.rp_variance(h, c, C_r=2 * L_r**2, C_q=18 * L_Q**2)
        assert (variance[1:] <= ROUNDING * bound[1:]).all()
        assert variance[0] > bound[0] == 0
    assert checked >= 300


def test_lipschitz_constants_below_one_do_not_stop_the_state_path_from_growing():
    """L_f = 0.98 and L_π = 0.99 with a closed loop of 1.37: no constant makes (5.3) a bound."""
    row = (0.69, 0.69, 0.99, 0.68, 0.69)
    c = RPConstants(gamma=0.95, L_f=math.hypot(0.69, 0.69), L_pi=0.99)
    assert max(c.L_f, c.L_pi) < 1 and c.growth == pytest.approx(0.69 * 1.99, rel=1e-3)
    assert not c.applies.holds and "may grow by 1.37 per step" in c.applies.sentence
    reward = []
    for a, b in (row[:2], row[3:]):
        M, i = a + b * row[2], np.arange(121)
        s = M**i
        ds = i * M ** np.maximum(i - 1, 0) * b
        terms = -2 * s * ds - 2 * row[2] * s * (s + row[2] * ds)
        reward.append(np.concatenate([[0], np.cumsum(0.95**i * terms)])[:-1])
    ratio = abs(reward[0] - reward[1])[1:] / bounds_rp.rp_bias(np.arange(1, 121), c, 0.01, 0.0)
    assert ratio[119] > 1e6 * ratio[59] > 1e9 * ratio[19]


def test_rp_says_whether_its_assumptions_hold():
    assert RPConstants(0.9, L_f=0.9, L_pi=0.3).applies.holds
    holds, sentence = RPConstants(0.9, L_f=1.3, L_pi=0.3).applies
    assert not holds
    assert "RP Prop 5.10 do not hold (measured L_f = 1.3, not below 1), so" in sentence


def test_spectra_above_one_make_rp_grow_exponentially():
    c = RPConstants(1.0, L_f=1.2, L_pi=1.1)
    h = np.array([10, 11])
    bias = bounds_rp.rp_bias(h, c, 1.0, 0.0)
    assert bias[1] / bias[0] == pytest.approx((11 / 10) ** 4 * 1.2**3 * 1.1**2)
    variance = bounds_rp.rp_variance(h, c, 1.0, 0.0)
    assert variance[1] / variance[0] == pytest.approx((11 / 10) ** 8 * 1.2**6 * 1.1**4)


# ---- MAAC


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


# ---- MPG


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


def perfect_model(**change):
    constants = dict(gamma=0.9, B_theta=2.0, c_m=0.0, B_fs=0.8, B_ps=0.8, B_fa=1.0, B_pa=1.0)
    constants |= dict(B_delta_s=0.0, B_delta_a=0.0, B_rs=1.0, B_Qs=1.0, B_qs=0.0, B_qa=0.0)
    return MPGConstants(**(constants | change))


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


# ---- DDPPO


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
        assert bias <= ROUNDING * ddppo.ddppo_bias(c, epsilon_f, jacobian, reward)


def test_ddppos_printed_constants_are_violated():
    """No model error and a reward gradient wrong by 1 in the action: the bias is L_π/(1 − γ)."""
    c = DDPPOConstants(gamma=0.5, L_f=0.1, L_1=1.0, L_r=2.0, L_pi=3.0)
    bias = 3.0 * 1.0 / (1 - 0.5)
    assert bias <= ddppo.ddppo_bias(c, 0.0, 0.0, 1.0)
    assert bias > 4 * ddppo.ddppo_printed_coefficients(c).C6
    # A Jacobian wrong by 1 in the action: the bias scales with the reward's slope, printed C7
    # does not (its other term vanishes with L_f).
    steep = DDPPOConstants(gamma=0.5, L_f=0.0, L_1=1.0, L_r=100.0, L_pi=1.0)
    repaired = ddppo.ddppo_coefficients(steep)
    printed = ddppo.ddppo_printed_coefficients(steep)
    assert pytest.approx([200.0, 2.0]) == [repaired.C7, printed.C7]


def test_ddppo_without_errors_is_zero_and_a_bounded_state_space_caps_the_drift():
    c = DDPPOConstants(gamma=0.9, L_f=0.99, L_1=1.0, L_r=1.0, L_pi=1.0, L_rg=1.0, D=2.0)
    assert ddppo.ddppo_bias(c, 0.0, 0.0, 0.0) == 0
    small, large = (ddppo.ddppo_bias(c, e, 0.0, 0.0) for e in (1e-3, 10.0))
    assert small == pytest.approx(ddppo.ddppo_coefficients(c).C8 * 1e-3)
    assert ddppo.ddppo_bias(c, 20.0, 0.0, 0.0) == pytest.approx(large)
    unstable = DDPPOConstants(gamma=0.9, L_f=1.3, L_1=1.0, L_r=1.0, L_pi=1.0)
    assert "measured L_f = 1.3, not below 1" in unstable.applies.sentence
    with pytest.raises(InputError, match=r"D is None.*L_f = 1.3"):
        ddppo.ddppo_coefficients(unstable, 0.1)


# ---- limits and input


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


def rp(**change):
    return RPConstants(**(dict(gamma=0.9, L_f=0.5, L_pi=0.5) | change))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rp(L_f=-1.0), "L_f is -1.0, expected a finite number from 0"),
        (lambda: rp(L_pi=float("nan")), "L_pi is nan"),
        (lambda: rp(gamma=1.5), "gamma is 1.5, expected a number above 0 and at most 1"),
        (lambda: rp(N=0), "N is 0"),
        (lambda: rp(beta=2.0), "beta is 2.0"),
        (lambda: perfect_model(gamma=1.0), "gamma is 1.0, expected a number above 0 and below 1"),
        (lambda: perfect_model(c_m=math.inf), "c_m is inf"),
        (lambda: perfect_model(c_m="much"), "c_m is 'much'"),
        (lambda: improvement.mpg_bias([0.5], perfect_model()), r"n is \[0.5\], expected integers"),
        (lambda: bounds_rp.rp_bias(-1, rp(), 1.0, 1.0), "h is -1"),
        (lambda: bounds_rp.rp_bias(1, rp(), -1.0, 1.0), "epsilon_f is -1.0"),
        (lambda: bounds_rp.rp_optimal_horizon(1.0, 1.0, 1.0), "gamma is 1.0"),
        (lambda: bounds_rp.rp_surrogate(-0.5, 0.9, 1.0, 1.0), "h has entries"),
        (lambda: bounds_rp.rp_surrogate(0.5, 0.9, 1.0, 1.0, N=0), "N is 0"),
        (lambda: improvement.linear_growth([]), "errors is not a list"),
        (lambda: improvement.shortest_minimiser(np.sqrt, [[1.0]]), "horizons has shape"),
        (
            lambda: improvement.shortest_minimiser(lambda h: h * np.nan, [1, 2]),
            "bound gives no number",
        ),
        (
            lambda: improvement.maac_error(1, MAACConstants(1, 1, 1, 1, 1, 1), 1, -2),
            "epsilon_Q is -2",
        ),
    ],
)
def test_bad_input_names_the_argument(call, message):
    with pytest.raises(InputError, match=message):
        call()
