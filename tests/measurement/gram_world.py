"""A small world whose gradients are taken together and apart."""

import dataclasses

import torch
from torch import nn

import gradlab
from gradlab.gradients.setting import Setting, Starts
from gradlab.gradients.start_laws import repeated, visits
from gradlab.measurement.inner_products import estimator_moments
from gradlab.measurement.visited import SAMPLES
from gradlab.networks.policies import Gaussian
from gradlab.truth.truth import matched_truth
from tests.gradients.worlds import Critic, nonlinear

N, H, GAMMA = 14, 3, 0.8
ALONE = torch.arange(N).roll(5).flip(0)  # labels in no order
APART = torch.tensor([4, 7, 7, 4, 9, 1, 1, 1, 2, 3, 9, 5, 6, 8])  # in any order, sizes 1 to 3


def at_visits(setting, horizon):
    """Visited states of so many steps, and a path of their own from them."""
    at = visits(dataclasses.replace(setting, horizon=horizon), SAMPLES)
    path = dataclasses.replace(repeated(at.states, 1), weight=at.weight, group=at.group)
    return at, path


class World:
    """A simulator, a wrong model, a stochastic policy and a critic that knows nothing."""

    def __init__(self, group):
        torch.manual_seed(0)
        self.simulator, self.model = nonlinear(), nonlinear(0.7)
        body = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 2))
        self.policy = Gaussian(body, 2).double()
        states = torch.randn(N, 2, generator=torch.Generator().manual_seed(1)).double()
        weight = torch.linspace(0.5, 2.0, N).double()
        self.starts = Starts(states, weight, group)
        self.setting = Setting(self.simulator, self.policy, self.starts, GAMMA, H)
        self.path = dataclasses.replace(repeated(states, 1), weight=weight, group=group)
        tail = gradlab.Tail(H, Critic(4), GAMMA)
        sim, model = self.simulator, self.model
        self.first = {
            "data": gradlab.Estimator(sim, None, "first", dataclasses.replace(tail, horizon=0)),
            "model": gradlab.Estimator(model, model, "first", tail),
            "mixed": gradlab.Estimator(sim, model, "first", tail),
        }
        self.every = {
            "all": gradlab.Estimator(model, model, "all", tail),
            "score": gradlab.Estimator(sim, None, "score", tail),
        }

    def truth(self, kinds):
        found = matched_truth(self.setting, kinds=kinds)
        assert found.admissible
        return found

    def gradients(self, name, horizon, path=None):
        """Per-sample gradients by the estimator's own door."""
        each = (self.first | self.every)[name]
        each = dataclasses.replace(each, tail=dataclasses.replace(each.tail, horizon=horizon))
        if horizon == 0:
            each = dataclasses.replace(each, jacobians=None)
        return each.gradients(self.policy, self.path if path is None else path)

    def measured(self, truth):
        chosen = self.first | self.every
        return estimator_moments(chosen, self.setting, truth)
