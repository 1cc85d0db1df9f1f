"""DDCG's test, action by action: quadratic returns, jumps, and the mixtures that follow from it."""

import math

import pytest
import torch
from torch import nn

from gradlab import Estimator, Tail, systems
from gradlab.data.noise import child
from gradlab.gradients import weighted_terms
from gradlab.gradients.courses import TermRequest
from gradlab.gradients.nodes import nodes
from gradlab.gradients.starts import as_starts
from gradlab.gradients.weighted_terms import _inverse_variance, _pilot, _tested, fitted
from gradlab.networks.policies import Gaussian
from tests.gradients.noisy import GAMMA, SIM, ingredients
from tests.gradients.worlds import linear

STD = 0.5


def affine(weight, bias=0.0):
    policy = Gaussian(nn.Linear(1, 1).double(), STD)
    policy.policy.weight.data.fill_(weight)
    policy.policy.bias.data.fill_(bias)
    return policy


def paid_by(reward):
    """Rewards of the action and the step; the state counts steps, whatever the action."""

    def step(s, a):
        return s + 1.0, reward(s[:, 0], a[:, 0])

    return systems.from_function(step, state_dim=1, action_dim=1)


def shares(system, policy, horizon, rule, seed=0):
    asked = TermRequest(
        policy, as_starts(torch.zeros(50, 1).double(), 1), (horizon,), seed, "ignore"
    )
    estimator = Estimator(system, system, "ddcg", Tail(horizon, None, 0.9))
    return fitted(estimator, asked, rule).shares[0]


def test_a_pair_explains_a_quadratic_return_to_the_last_digit():
    """f′ − f = ½ (∇ + ∇′)·(ε′ − ε) needs the same noise in all other steps and systems."""
    policy = Gaussian(nn.Linear(2, 1).double(), 0.4)
    starts, system = torch.randn(40, 2).double(), linear()
    asked = TermRequest(policy, as_starts(starts, 2), (2, 3), 5, "ignore")
    estimator = Estimator(system, system, "ddcg", Tail(3, None, 0.9))
    pilot = asked._replace(starts=_pilot(asked.starts, starts), seed=child(5, "pilot"))
    here = nodes(estimator, pilot, None)
    slopes = here.draws.slope * here.draws.std  # of an unsquashed policy: std
    first = here.first[..., :1] * slopes
    for t in range(3):
        left = tuple(n - t for n in here.horizons)
        f, slope, moved = weighted_terms._redrawn(here, pilot, t, left)
        change = f - here.to_go[:, t, : weighted_terms.PAIRS]
        both = slope + first[:, t, : weighted_terms.PAIRS]
        torch.testing.assert_close(0.5 * (both * moved).sum(2), change, rtol=1e-8, atol=1e-10)
        assert moved.abs().min() > 0


def test_smooth_returns_keep_the_weights_of_inverse_variance():
    policy, critic, starts = ingredients(squash=True)
    asked = TermRequest(policy, as_starts(starts, 2), (0, 3), 5, "ignore")
    estimator = Estimator(SIM, SIM, "ddcg", Tail(3, critic, GAMMA))
    plain = fitted(Estimator(SIM, SIM, "ivw", estimator.tail), asked, _inverse_variance)
    assert torch.equal(fitted(estimator, asked, _tested).shares, plain.shares)


@pytest.mark.parametrize("seed", range(3))
def test_the_step_that_jumps_is_left_to_the_score(seed):
    def reward(s, a):
        return torch.where(s == 1, (a > 0.2).double() - 0.1 * a, -(a**2))

    policy = affine(0.0)
    found = shares(paid_by(reward), policy, 3, _tested, seed)[:3, 0, 0]
    assert found[1] == 0
    assert found[0] > 0.5
    assert found[2] > 0.5
    trusting = shares(paid_by(reward), policy, 3, _inverse_variance, seed)[:3, 0, 0]
    assert trusting[1] > 0.99  # a pathwise gradient without variance, and wrong


@pytest.mark.parametrize("terminal", ["jump", "smooth"])
def test_the_mean_of_ddcg_is_right_where_the_pathwise_gradient_is_not(terminal):
    """E 1[a > c] has the gradient φ((c − μ)/σ)/σ in μ, of which the pathwise one sees nothing."""
    edge, slope = 0.2, 0.3

    def reward(s, a):
        return (a > edge).double() - slope * a if terminal == "jump" else torch.tanh(a)

    system, policy = paid_by(reward), affine(0.0, 0.1)
    nodes_, weights = torch.tensor([[-1.0, 1.0]]), None
    if terminal == "jump":
        z = (edge - 0.1) / STD
        want = math.exp(-z * z / 2) / math.sqrt(2 * math.pi) / STD - slope
    else:  # Gauss–Hermite
        import numpy as np

        nodes_, weights = (torch.from_numpy(x) for x in np.polynomial.hermite_e.hermegauss(40))
        want = float((weights / weights.sum() * (1 - torch.tanh(0.1 + STD * nodes_) ** 2)).sum())
    starts = torch.zeros(4000, 1).double()
    error = {}
    for way in ("ddcg", "ivw", "all"):
        estimator = Estimator(system, system, way, Tail(1, None, 0.9))
        G = estimator.gradients(policy, starts, seed=1)[:, 1]
        error[way] = (float(G.mean()) - want, float(G.std()) / len(G) ** 0.5)
    assert abs(error["ddcg"][0]) < 3.5 * error["ddcg"][1]
    if terminal == "jump":
        for way in ("ivw", "all"):
            assert abs(error[way][0]) > 0.5
    else:
        assert error["ddcg"] == error["ivw"]
        assert error["ddcg"][1] < error["all"][1] * 1.05
