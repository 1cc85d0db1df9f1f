"""A linear system with noise, its policy, critic and starts, for the estimators of the papers."""

import torch

from gradlab.networks.policies import GaussianPolicy
from tests.gradients.worlds import Critic, nonlinear

GAMMA = 0.9
SIM, MODEL = nonlinear(), nonlinear(0.8)


def ingredients(squash=False):
    torch.manual_seed(3)
    policy = GaussianPolicy(2, 2, hidden=(8,), squash=squash).double()
    starts = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return policy, Critic(4), starts


def same(a, b, policy, starts):
    found = (each.gradients(policy, starts, seed=5) for each in (a, b))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)
