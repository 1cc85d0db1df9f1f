"""States of one model with Jacobians of another: what each part gives, in every instrument."""

from dataclasses import replace

import pytest
import torch

import gradlab
from gradlab import Estimator, Tail
from gradlab.errors import InputError
from gradlab.gradients.starts import as_starts
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.networks.mlp import Policy, QCritic
from gradlab.systems import LearnedSystem, MujocoPendulum, System
from gradlab.systems.learned import TwoModels
from gradlab.tasks import linear_quadratic, pendulum
from gradlab.truth.reference import reference_gradients
from tests.systems.ensembles import random


def model(seed: int) -> LearnedSystem:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LearnedSystem(GaussianEnsemble(2, 1, 3, (8, 8)).double())


PREDICTION, GRADIENT = model(1), model(2)
BOTH = TwoModels(PREDICTION, GRADIENT)
STATE, ACTION = random(20, 2), random(20, 1, seed=1)
NOISE = BOTH.sample_noise(20, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("noise", [None, NOISE])
def test_states_are_of_the_one_and_jacobians_of_the_other(noise):
    stepped, alone = BOTH.step(STATE, ACTION, noise), PREDICTION.step(STATE, ACTION, noise)
    torch.testing.assert_close(stepped.state, alone.state, rtol=0, atol=1e-15)
    torch.testing.assert_close(stepped.reward, alone.reward, rtol=0, atol=1e-15)
    found, wanted = BOTH.linearize(STATE, ACTION, noise), GRADIENT.linearize(STATE, ACTION)
    for block in ("A", "B", "r_s", "r_a"):
        assert torch.equal(getattr(found, block), getattr(wanted, block))


def test_states_end_where_the_prediction_model_says():
    ends = LearnedSystem(PREDICTION.ensemble, alive=lambda state: state[:, 0] > 0)
    never = LearnedSystem(GRADIENT.ensemble, alive=lambda state: state[:, 0] < torch.inf)
    found = TwoModels(ends, never).step(STATE, ACTION, NOISE)
    assert torch.equal(found.alive, found.state[:, 0] > 0) and not found.alive.all()


def test_autodiff_through_a_step_gives_the_gradient_models_jacobians():
    leaves = [STATE.clone().requires_grad_(), ACTION.clone().requires_grad_()]
    out = BOTH.step(*leaves, NOISE)
    wanted = BOTH.linearize(STATE, ACTION, NOISE)
    for k in range(2):
        by_state, by_action = torch.autograd.grad(out.state[:, k].sum(), leaves, retain_graph=True)
        torch.testing.assert_close(by_state, wanted.A[:, k])
        torch.testing.assert_close(by_action, wanted.B[:, k])
    by_state, by_action = torch.autograd.grad(out.reward.sum(), leaves)
    torch.testing.assert_close(by_state, wanted.r_s)
    torch.testing.assert_close(by_action, wanted.r_a)


def test_one_system_is_the_estimator_with_its_two_parts():
    torch.manual_seed(0)
    policy, critic = Policy(2, 1, (6,)).double(), QCritic(2, 1, (6,)).double()
    tail = Tail(3, critic, 0.95)
    whole = Estimator(BOTH, BOTH, "all", tail)
    found = whole.gradients(policy, STATE)
    wanted = reference_gradients(whole, policy, as_starts(STATE, 2))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-10)
    # By hand, without BOTH's own splice: the gradient model has no noise to infer.
    mean = replace(whole, states=PREDICTION, jacobians=TwoModels(GRADIENT, GRADIENT))
    torch.testing.assert_close(found, mean.gradients(policy, STATE))
    plain = Estimator(PREDICTION, PREDICTION, "all", tail).gradients(policy, STATE)
    assert not torch.allclose(found, plain)


@pytest.mark.slow
def test_measurements_take_it_for_a_prior():
    torch.manual_seed(0)
    policy, critic = Policy(2, 1, (6,)).double(), QCritic(2, 1, (6,)).double()
    task = replace(pendulum(), prior=BOTH)
    table = gradlab.measure(task, policy, critic, horizon=2, starts=32, batch=8).table()
    assert {"model", "mixed"} <= set(table.estimator)
    assert isinstance(BOTH, System) and BOTH.member_column == 3


def test_models_that_do_not_fit_are_refused():
    other = linear_quadratic([[0.9]], [[1.0]], [[1.0]], [[1.0]]).simulator
    with pytest.raises(InputError, match="gradient has state_dim 1, prediction has 2"):
        TwoModels(PREDICTION, other)
    with pytest.raises(InputError, match="not differentiable"):
        TwoModels(MujocoPendulum("stock"), MujocoPendulum("stock"))
