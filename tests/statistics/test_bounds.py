"""Bounds hold where they must: random scalar systems with exact gradients, no violation.

Each printed form that its own proof does not support is shown to be violated.
"""

import math

import numpy as np
import pytest

from gradlab.errors import InputError
from gradlab.statistics.bounds import improvement
from gradlab.statistics.bounds import rp as bounds_rp
from gradlab.statistics.bounds.improvement import MAACConstants
from gradlab.statistics.bounds.rp import RPConstants
from tests.statistics.random_systems import ROUNDING, perfect_model, stable_pairs


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
    ends = (bounds_rp.rp_optimal_horizon(gamma, 1.0, ratio), bounds_rp.rp_variance_horizon(gamma))
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
