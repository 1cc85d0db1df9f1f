"""Linear-quadratic tasks: explicit matrices, the double integrator and its gains."""

import pytest
import torch

from gradlab.fitting.policies import riccati_gain
from gradlab.tasks import double_integrator, linear_quadratic
from gradlab.truth.lqr import lqr_gradient
from tests.tasks.drawing import draw


def test_linear_starts_have_the_mean_and_covariance_asked_for():
    covariance = [[2.0, 0.6], [0.6, 0.5]]
    task = linear_quadratic(start_mean=[1.0, -2.0], start_covariance=covariance)
    starts = draw(task, 200_000)
    torch.testing.assert_close(
        starts.mean(0), torch.tensor([1.0, -2.0]).double(), atol=0.02, rtol=0
    )
    torch.testing.assert_close(starts.T.cov(), torch.tensor(covariance).double(), atol=0.03, rtol=0)


def test_explicit_matrices_have_a_perfect_prior_and_the_example_a_wrong_one():
    one = torch.eye(1)
    task = linear_quadratic(A=0.9 * one, B=0.5 * one)
    state = torch.ones(1, 1, dtype=torch.float64)
    assert torch.equal(
        task.prior.linearize(state, state).A, task.simulator.linearize(state, state).A
    )
    own = linear_quadratic(A=[[0.9]], B=[[0.5]], prior=([[0.8]], [[0.4]])).prior
    assert own is not None and own.linearize(state, state).B.item() == 0.4
    example = linear_quadratic()
    state = torch.ones(1, 2, dtype=torch.float64)
    wrong = example.prior.step(state, state[:, :1]).state
    assert not torch.equal(wrong, example.simulator.step(state, state[:, :1]).state)


@pytest.mark.parametrize("settings", [{}, {"dt": 0.02, "action_weight": 1.0, "discount": 0.99}])
def test_the_riccati_gain_of_the_double_integrator_is_stable_and_stationary(settings):
    task = double_integrator(**settings)
    system = task.simulator
    gain = riccati_gain(system, torch.zeros(2, dtype=torch.float64), task.discount)
    assert torch.linalg.eigvals(system.A - system.B @ gain).abs().max() < 1
    moment = torch.tensor([[1.0, 0.3], [0.3, 2.0]], dtype=torch.float64)
    for actions in ("first", "all"):
        best = lqr_gradient(system, -gain, moment, task.discount, actions)
        off = lqr_gradient(system, -0.9 * gain, moment, task.discount, actions)
        assert best.norm() < 1e-7 * off.norm()


def test_the_double_integrators_documented_gain_is_its_riccati_gain():
    task = double_integrator()
    gain = riccati_gain(task.simulator, torch.zeros(2, dtype=torch.float64), task.discount)
    documented = ", ".join(f"{k:.4f}" for k in gain.flatten().tolist())
    assert f"K = [{documented}]" in (double_integrator.__doc__ or "")


def test_the_double_integrator_is_pushed_exactly_and_its_prior_can_be_wrong():
    """Constant acceleration for 1 s from rest: half a metre, whatever the step."""
    for dt in (0.1, 0.5):
        system = double_integrator(dt=dt).simulator
        state = torch.zeros(1, 2, dtype=torch.float64)
        push = torch.ones(1, 1, dtype=torch.float64)
        for _ in range(round(1 / dt)):
            state = system.step(state, push).state
        torch.testing.assert_close(state, torch.tensor([[0.5, 1.0]], dtype=torch.float64))
    prior = double_integrator(prior_push=0.8, prior_friction=0.05).prior
    moved = prior.step(torch.tensor([[0.0, 1.0]], dtype=torch.float64), push).state
    torch.testing.assert_close(moved, torch.tensor([[0.104, 1.03]], dtype=torch.float64))
