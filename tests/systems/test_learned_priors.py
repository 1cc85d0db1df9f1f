"""Learned systems as the prior of a task."""

from dataclasses import replace

import pytest
import torch

import gradlab
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.networks.mlp import Policy, QCritic
from gradlab.systems import LearnedSystem
from gradlab.tasks import TASKS, linear_quadratic, with_learned_prior
from tests.systems.ensembles import model, random


def test_measure_takes_a_learned_prior_and_leaves_the_random_stream_alone():
    task = replace(linear_quadratic(), prior=LearnedSystem(model(2, 1).float()))
    torch.manual_seed(0)
    policy, critic = Policy(2, 1, ()), QCritic(2, 1, (8,))
    with torch.no_grad():
        policy.network[-1].weight.copy_(torch.tensor([[-1.0, -1.5]]))
        policy.network[-1].bias.zero_()
    before = torch.get_rng_state()
    table = gradlab.measure(task, policy, critic, horizon=1, starts=16, rehearse=False).table()
    assert torch.equal(torch.get_rng_state(), before)
    model_rows = table[(table.estimator == "model") & (table.quantity == "variance")]
    assert (model_rows.value > 0).all() and len(model_rows) == 2


@pytest.mark.parametrize(
    "name",
    ["path_tracking", "inverted_pendulum", "pendulum", "Hopper-v5", "Walker2d-v5", "Humanoid-v5"],
)
def test_a_learned_prior_ends_where_the_task_ends(name):
    """On states that its simulator made, some of them terminal."""
    task = TASKS[name]()
    simulator = task.simulator
    made = GaussianEnsemble(simulator.state_dim, simulator.action_dim, 2, (4,))
    prior = with_learned_prior(task, made, elites=(1,)).prior
    assert isinstance(prior, LearnedSystem) and prior.chosen == (1,)
    state, alive = task.starts(64, torch.Generator().manual_seed(0)), []
    for t in range(25):
        push = 0.4 * random(64, simulator.action_dim, seed=t)
        out = simulator.step(state, push.clamp(-0.4, 0.4))
        state = out.state
        want = task.alive(state) if task.alive else torch.ones(64, dtype=torch.bool)
        assert torch.equal(out.alive, want)
        assert (prior.alive is None) == (task.alive is None)
        alive.append(want)
        state = torch.where(want[:, None], state, task.starts(64, torch.Generator().manual_seed(t)))
    assert torch.stack(alive).any()
    assert name == "pendulum" or not torch.stack(alive).all()
