"""A path made in pieces is the path made at once: same noise, same ends, same Jacobians."""

from dataclasses import fields

import pytest
import torch
from torch import nn

from gradlab.gradients.starts import as_starts
from gradlab.gradients.tail import Setting
from gradlab.networks.policies import Gaussian
from gradlab.tasks import inverted_pendulum
from gradlab.truth.oracles import (
    all_action_gradients,
    all_action_remainder,
    joined,
    piece,
    shortened,
    unroll_all_actions,
)
from tests.gradients.worlds import nonlinear

GAMMA = 0.9


def world(termination):
    torch.manual_seed(0)
    if termination == "mask":
        task = inverted_pendulum(engine="analytic")
        policy = nn.Linear(4, 1).double()
        policy.weight.data *= 5.0
        return task.simulator, policy, as_starts(task.starts(9, torch.Generator()), 4)
    body = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 2))
    return nonlinear(), Gaussian(body, 2).double(), as_starts(torch.randn(9, 2).double(), 2)


@pytest.mark.parametrize("termination", ["ignore", "mask"])
def test_pieces_make_the_whole_path(termination):
    system, policy, starts = world(termination)
    whole = piece(Setting(system, policy, starts, GAMMA, termination=termination, seed=3), 40)
    if termination == "mask":
        ended = ~whole.path.alive
        assert ended[10].any() and not ended[10].all(), "the test needs ends in both pieces"
    begin = piece(Setting(system, policy, starts, GAMMA, termination=termination, seed=3), 10)
    rest = piece(
        Setting(system, policy, starts, GAMMA, termination=termination, seed=3),
        30,
        first=10,
        before=begin.path,
    )
    both = joined([begin, rest])
    assert_same(both, whole)
    assert_same(shortened(both, 10), begin)


def assert_same(found, want):
    for one, other in ((found, want), (found.path, want.path)):
        for field in fields(one):
            if field.name != "path":
                a, b = getattr(one, field.name), getattr(other, field.name)
                torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_gradients_do_not_depend_on_how_many_starts_are_held(monkeypatch):
    system, policy, starts = world("ignore")
    linear = piece(Setting(system, policy, starts, GAMMA), 30)
    G = all_action_gradients(linear, policy, 20, GAMMA)
    torch.testing.assert_close(G, unroll_all_actions(Setting(system, policy, starts, GAMMA, 20)))
    mean = all_action_gradients(linear, policy, 15, GAMMA).mean(dim=0)
    left = float((G.mean(dim=0) - mean).norm()) * GAMMA**5 / (1 - GAMMA**5)
    monkeypatch.setattr("gradlab.truth.oracles.ROWS", 80)  # four starts at a time
    again, remainder = all_action_remainder(linear, policy, 20, GAMMA)
    torch.testing.assert_close(again, G, rtol=1e-12, atol=1e-12)
    assert remainder == pytest.approx(left, rel=1e-10)
