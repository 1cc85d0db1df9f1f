"""U-SHAPE, run small: exact gradients by another road, and verdicts that could have been others."""

import numpy as np
import pytest
import torch

from analyses.bounds import fitted_double_integrator, u_shape
from analyses.bounds.tailed_gradients import (
    Dynamics,
    QuadraticCritic,
    exact_critic,
    tailed_gradient,
)
from analyses.harness import verdicts
from analyses.harness.criteria import read_verdicts
from analyses.identities.quadratic_design import SEED, Designed, design
from gradlab.data.noise import stream
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.tail import Tail
from gradlab.networks.mlp import Policy
from gradlab.systems.linear import LinearQuadratic
from gradlab.truth.lqr import ExactCritic, costs_to_go


@pytest.fixture(scope="module")
def small():
    return u_shape.measure(small=True)


@pytest.mark.parametrize("horizon", [0, 1, 7])
@pytest.mark.parametrize("states", ["simulator", "model"])
def test_expected_gradients_are_those_of_gradlabs_estimator(horizon, states):
    setting, system, _ = fitted_double_integrator.make_setting(0.4)
    A, B, C = fitted_double_integrator.fit(system, setting, 0.1, 60, seed=3)
    model = LinearQuadratic(A, B, system.Q, system.R, system.noise_covariance)
    moved = system if states == "simulator" else model
    starts, noise = design(torch.zeros(2, dtype=torch.float64), setting.moment, horizon)
    policy = Policy(2, 1, hidden=(), bias=False).double()
    with torch.no_grad():
        next(policy.parameters()).copy_(setting.weight)
    tail = Tail(horizon, QuadraticCritic(C), setting.discount)
    estimator = Estimator(Designed(moved, noise), Designed(model, noise), "all", tail)
    found = estimator.mean_gradient(policy, starts, SEED)
    expected = tailed_gradient(setting, Dynamics(moved.A, moved.B), Dynamics(A, B), C, horizon)
    torch.testing.assert_close(found, expected.flatten(), rtol=1e-10, atol=1e-12)


def test_the_exact_critics_matrix_is_gradlabs_exact_critic():
    setting, system, _ = fitted_double_integrator.make_setting(0.4)
    P = costs_to_go(system, setting.weight, setting.discount)[-1]
    drawn = torch.randn(5, 3, generator=stream(0, "u-shape test"), dtype=torch.float64)
    state, action = drawn[:, :2], drawn[:, 2:]
    ours = QuadraticCritic(exact_critic(system, P, setting.discount))(state, action)
    theirs = ExactCritic(system, setting.weight, setting.discount)(state, action)
    torch.testing.assert_close(ours, theirs)


def test_model_and_critic_are_exact_on_exact_data():
    setting, system, _ = fitted_double_integrator.make_setting(0.6)
    still = LinearQuadratic(system.A, system.B, system.Q, system.R, 0 * system.noise_covariance)
    A, B, C = fitted_double_integrator.fit(still, setting, 0.0, 50, seed=0)
    P = costs_to_go(system, setting.weight, setting.discount)[-1]
    torch.testing.assert_close(torch.cat([A, B], 1), torch.cat([system.A, system.B], 1))
    torch.testing.assert_close(C, exact_critic(system, P, setting.discount), rtol=1e-8, atol=1e-8)


def test_a_long_horizon_of_the_true_dynamics_reaches_the_truth_and_a_short_one_does_not(small):
    rows = small.table[small.table["arm"] == u_shape.ARMS[2]]
    error = rows.set_index(["gain", "horizon"])["error"]
    assert error[0.6, 80] < 1e-4 < 0.3 < error[0.6, 1]


def test_least_squares_models_show_no_u_where_their_closed_loops_are_stable(small):
    assert not small.holds
    assert small.numbers["cells_unstable"] == 0
    assert small.numbers["cells_learned_met"] == 0
    assert small.numbers["injected_seen_gain0.1"] == 1


def planted(learned):
    """Rows of one cell with given curves of the learned arm, 20 equal seeds."""
    rows = u_shape.errors(0.6, 0.01, 100)
    curve = dict(zip(u_shape.HORIZONS, learned, strict=True))
    at = rows["arm"] == u_shape.ARMS[1]
    rows.loc[at, "error"] = rows.loc[at, "horizon"].map(curve)
    return rows


@pytest.mark.parametrize(
    ("curve", "holds"),
    [
        ((9, 8, 7, 5, 3, 4, 6, 9, 12, 19), True),
        ((9, 8, 7, 5, 3, 3, 3, 3.2, 3.3, 3.3), False),
        ((9, 8, 7, 6, 5, 4, 3, 2, 1.5, 1), False),
        ((1, 2, 3, 4, 5, 6, 7, 8, 9, 10), False),
    ],
)
def test_only_a_fall_and_a_rise_are_called_a_u(curve, holds):
    assert u_shape.judge(planted(curve)).holds == holds


def test_the_verdict_is_saved(small, tmp_path):
    verdicts.save(small, tmp_path, "python -m analyses.bounds.u_shape")
    made = read_verdicts(tmp_path)["u-shape"]
    assert np.isfinite(list(made["numbers"].values())).all()
    assert "nan" not in made["sentence"]
