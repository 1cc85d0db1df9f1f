"""The worlds in which steering is tried: their gradients are those of estimators."""

import pytest
import torch
from torch import nn

from analyses.steering.linear_quadratic import (
    ACTION,
    BATCH,
    GAMMA,
    HORIZONS,
    STATE,
    moved,
    policy_of,
    world_of,
)
from gradlab import Estimator, Tail
from gradlab.data.noise import stream


class Quadratic(nn.Module):
    def __init__(self, matrix):
        super().__init__()
        self.matrix = matrix

    def forward(self, s, a):
        both = torch.cat([s, a], dim=1)
        return -((both @ self.matrix) * both).sum(dim=1)


@pytest.mark.parametrize("horizon", HORIZONS)
def test_a_closed_form_gradient_is_that_of_the_estimator(horizon):
    world = world_of(3)
    critic = world.critic(world.weight, 2)
    assert critic.shape == (STATE + ACTION, STATE + ACTION)
    estimator = Estimator(world.prior, world.prior, "all", Tail(horizon, Quadratic(critic), GAMMA))
    batch = torch.randn(BATCH, STATE, generator=stream(3, "batch", 2007)).double()
    policy = policy_of(world.weight)
    expected = estimator.mean_gradient(policy, batch)
    assert torch.allclose(world.gradient(critic, horizon, 2)(policy, 7), expected)


def test_without_a_critic_a_policy_stays():
    world = world_of(3)
    assert moved(world, world.weight, None, 1, 0, 25) is world.weight
