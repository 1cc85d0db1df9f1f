"""MAAC at H = 3: entropy inside the sum, several paths per state, every action with θ."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import gradlab
from gradlab.data.replay import Batch
from gradlab.systems import from_function
from gradlab.training.algorithms import find
from gradlab.training.parts.context import Context, Objective
from gradlab.training.parts.policy_losses import MixtureLoss, Term
from gradlab.training.parts.targets import Soft
from tests.training.estimated import assert_estimated

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


@pytest.mark.parametrize("termination", ["ignore", "mask"])
@pytest.mark.parametrize(("horizon", "samples"), [(3, 1), (3, 4), (1, 2)])
def test_the_gradient_is_that_of_the_estimator_with_entropy(horizon, samples, termination):
    row = replace(
        find("maac-no-steve"), hidden=(8, 8), activation="tanh", batch=16, model=None,
        terms=(Term(horizon, "all"),), target=Soft(ALPHA), loss=MixtureLoss(samples),
    )  # fmt: skip
    world = task(ends_far_out)
    assert_estimated(row, world, alpha=ALPHA, samples=samples, termination=termination)


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
