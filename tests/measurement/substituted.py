"""Problems with substitutions, their starts, and linear ones with a planted error."""

import torch
from torch import nn

from gradlab.gradients.starts import Starts, as_starts
from gradlab.measurement.substitution import CAUSES
from gradlab.statistics.shapley import fraction
from gradlab.systems.linear import LinearQuadratic
from gradlab.truth.lqr import ExactCritic
from tests.gradients.worlds import matrix

GAMMA, STEPS, HORIZONS = 0.9, 12, (0, 1, 4)


def starting(n, scale, groups=None):
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(n, len(scale), generator=generator, dtype=torch.float64) * scale
    begin = as_starts(states, len(scale))
    group = begin.group if groups is None else torch.arange(n) % groups
    weight = 0.5 + torch.rand(n, generator=generator, dtype=torch.float64)
    return Starts(states, weight, group)


def cart(mass, A=((1.0, 0.1), (0.0, 1.0)), friction=0.5):
    """A cart of this mass with friction, pushed for 0.1 s."""
    A, one = matrix(*A), torch.eye(2, dtype=torch.float64)
    A[1, 1] -= 0.1 * friction / mass
    return LinearQuadratic(A, matrix((0.0,), (0.1 / mass,)), one, 0.1 * one[:1, :1], 0.0 * one)


def wrong_mass():
    return cart(1.0), cart(1.4)


def linear_problem(systems):
    simulator, model = systems
    policy = nn.Linear(simulator.state_dim, simulator.action_dim, bias=False).double()
    torch.manual_seed(1)
    policy.weight.data = -torch.rand_like(policy.weight) - 0.5
    return simulator, model, policy, ExactCritic(simulator, policy.weight, GAMMA)


def fractions(found):
    shares = (fraction(each, found.total).value for each in found.shapley)
    return dict(zip(CAUSES, shares, strict=True))
