"""MAAC at H = 3: entropy inside the sum, several paths per state, every action with θ."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab.data.replay import Batch
from gradlab.gradients.rollout import rollout
from gradlab.gradients.starts import as_starts
from gradlab.networks.mlp import QCritic
from gradlab.systems import from_function
from gradlab.training.algorithms import find, with_horizons
from gradlab.training.learner import Learner
from gradlab.training.members import unstacked
from gradlab.training.parts.context import Context, Objective
from gradlab.training.parts.policy_losses import MixtureLoss, Term
from gradlab.training.parts.targets import Soft
from gradlab.training.settings import Settings
from tests.training.small_runs import flattened

GAMMA, ALPHA = 0.9, 0.2


def push(state, action, noise):
    moved = 0.9 * state + 0.3 * torch.sin(state.roll(1, 1)) + 0.1 * noise
    moved = moved + torch.stack([action[:, 0], action[:, 1], action[:, 0] * state[:, 0]], 1)
    return moved, -(state**2).sum(1) - 0.1 * (action**2).sum(1) + state[:, 0] * action[:, 1]


def ends_far_out(state):
    return state[:, 0].abs() < 1.0


def task(alive=None):
    world = from_function(push, state_dim=3, action_dim=2, noise_dim=3, alive=alive)

    def starts(n, generator):
        return torch.randn(n, 3, generator=generator, dtype=torch.float64)

    return gradlab.Task("push", world, world, starts, GAMMA, 5, action_limit=(2.0, 1.0))


class Least(nn.Module):
    """The smaller of two critics."""

    def __init__(self, critics: list[QCritic]) -> None:
        super().__init__()
        self.critics = nn.ModuleList(critics)

    def forward(self, state, action):
        return torch.minimum(*(critic(state, action) for critic in self.critics))


class Drawn:
    """The noise of given paths, one for each member."""

    def __init__(self, paths) -> None:
        policy = torch.stack([path.policy_noise for path in paths], dim=1)
        model = torch.stack([path.dynamics_noise for path in paths], dim=2)
        self.noise = {"action": policy[0], "later actions": policy[1:].transpose(0, 1)}
        self.noise["model noise"] = model.permute(2, 0, 1, 3)

    def normal(self, name, iteration, shape):
        assert self.noise[name].shape[1:] == shape
        return self.noise[name]


@pytest.mark.parametrize("termination", ["ignore", "mask"])
@pytest.mark.parametrize(("horizon", "samples"), [(3, 1), (3, 4), (1, 2)])
def test_the_gradient_is_that_of_the_estimator_with_entropy(horizon, samples, termination):
    chosen = task(ends_far_out)
    row = replace(
        find("maac-no-steve"), hidden=(8, 8), activation="tanh", batch=16, model=None,
        terms=(Term(horizon, "all"),), target=Soft(ALPHA), loss=MixtureLoss(samples),
    )  # fmt: skip
    settings = Settings(precision="float64", warmup=64, termination=termination, seeds=2)
    learner = Learner(row, chosen, settings)
    state = torch.randn(2, 16, 3, dtype=torch.float64)
    begins = [as_starts(rows.repeat_interleave(samples, dim=0), 3) for rows in state]
    policies = [learner.policy_of(member).double() for member in range(2)]
    paths = [
        rollout(chosen.prior, policy, begin, horizon, seed=7)
        for policy, begin in zip(policies, begins, strict=True)
    ]
    nothing = state.new_zeros(2, 16)
    batch = Batch(state, state[..., :2], nothing, state, nothing)
    gradients = learner.policy_gradients(0, batch, Drawn(paths))
    for member, (policy, begin) in enumerate(zip(policies, begins, strict=True)):
        critics = [
            unstacked(learner.critic, 2 * member + k, learner.critic_module).double()
            for k in range(2)
        ]
        estimator = gradlab.Estimator(
            chosen.prior, chosen.prior, "all", gradlab.Tail(horizon, Least(critics), GAMMA),
            entropy=ALPHA,
        )  # fmt: skip
        wanted = estimator.mean_gradient(policy, begin.states, seed=7, termination=termination)
        torch.testing.assert_close(-flattened(gradients, member), wanted, rtol=1e-9, atol=1e-11)


def test_every_action_of_the_sum_counts_its_entropy():
    # Without rewards and critic what is left is −α Σ_{t ≤ H} γᵗ log π_t of the policy's actions.
    def act(state, noise):
        return noise, noise.sum(dim=2)

    def starts(n, generator):
        return torch.zeros(n, 2)

    def noise_of(state, action):
        return action

    def entropy_alone(state, action, log_prob):
        return -ALPHA * log_prob

    still = from_function(lambda s, a: (s, s.new_zeros(len(s))), state_dim=2, action_dim=2)
    first, later = torch.ones(1, 4, 2).double(), 3 * torch.ones(1, 3, 4, 2).double()

    class Draws:
        def normal(self, name, iteration, shape):
            return {"action": first, "later actions": later}[name]

    context = Context(
        Objective(GAMMA, temperature=ALPHA), act, act, act, noise_of, entropy_alone, entropy_alone,
        starts, still, still, Draws(), 0, noise_dim=2,
    )  # fmt: skip
    state, zeros = torch.zeros(1, 4, 2).double(), torch.zeros(1, 4).double()
    batch = Batch(state, state, zeros, state, zeros)
    loss, horizon = MixtureLoss()(context, batch, [Term(3, "all")], np.ones((1, 1)))
    assert horizon == 3
    densities = [2.0, 6.0, 6.0, 6.0]
    wanted = ALPHA * sum(GAMMA**t * density for t, density in enumerate(densities))
    assert float(loss) == pytest.approx(wanted, rel=1e-12)


def test_other_horizons_keep_the_entropy_and_the_data_alone_need_no_model():
    assert with_horizons(find("maac"), (5,)).terms == (Term(5, "all"),)
    assert with_horizons(find("maac"), (0,)).model == find("maac").model  # its critic's
    alone = replace(find("maac-real-data"), target=Soft())
    assert with_horizons(alone, (0,)).model is None
    assert not with_horizons(alone, (0,)).needs_model
