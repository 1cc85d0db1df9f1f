"""Empirical bias on returns with and without a jump of known height."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from gradlab import systems
from gradlab.checks.inspection import Inspection
from gradlab.checks.smoothing import PAIRS, both_orders, smoothing
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.setting import Setting
from gradlab.gradients.starts import as_starts
from gradlab.gradients.tail import Tail
from gradlab.runs.check_results import EMPIRICAL

GAMMA, LIMIT = 0.9, 1.0


def world(jump: float = 0.0, horizon: int = 3, noise: float = 0.0, seed: int = 0):
    """s' = 0.9 s + a; reward −s² + ½ sin 3s, and `jump` more where s' is above 0.5."""

    def step(s, a, xi):
        after = 0.9 * s + a[:, :1] + noise * xi
        reward = -(after[:, 0] ** 2) + 0.5 * torch.sin(3 * after[:, 0]) + 0.1 * a[:, 1]
        return after, reward + jump * (after[:, 0] > 0.5)

    simulator = systems.from_function(step, state_dim=1, action_dim=2, noise_dim=1)
    policy = nn.Linear(1, 2, bias=False).double()
    policy.weight.data.fill_(-0.3)
    starts = as_starts(torch.linspace(-1.0, 1.2, 16).double()[:, None], 1)
    estimators = {"sim": Estimator(simulator, simulator, "first", Tail(horizon, None, GAMMA))}
    limit = (LIMIT, LIMIT)
    setting = Setting(simulator, policy, starts, GAMMA, seed=seed)
    return Inspection(estimators, setting, {}, ("a", "b"), limit), simulator


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_a_smooth_return_has_no_empirical_bias(noise):
    found = [smoothing(*world(noise=noise, seed=seed))[0] for seed in range(12)]
    assert all(each.check == EMPIRICAL for each in found)
    assert sum(not each.passed for each in found) <= 1  # 1% each
    assert "do not disagree in any state (16 states, 32 pairs each" in found[0].result


class Dear:
    """The same system, its Jacobians at a price."""

    def __init__(self, system, price):
        self.system, self.linearization_price = system, price

    def __getattr__(self, name):
        return getattr(self.system, name)


@pytest.mark.parametrize(("price", "asked"), [(0.02, "5 states, 8"), (10.0, "2 states, 8")])
def test_fewer_states_are_rolled_out_where_jacobians_are_dear(price, asked):
    inspected, simulator = world()
    (found,) = smoothing(inspected, Dear(simulator, price))
    assert f"({asked} pairs each" in found.result


def test_a_jump_is_seen_in_the_states_near_it_and_asks_for_the_zeroth_order():
    (found,) = smoothing(*world(jump=30.0))
    assert not found.passed
    share = float(found.result.split(" errors in ")[1].split("%")[0]) / 100
    assert 0 < share < 0.5  # the kink is within ± 2 σ of few of them
    alpha = float(found.meaning.split("α = ")[1].split(" ")[0])
    assert alpha < 0.5


def test_the_zeroth_order_sees_the_jump_that_the_first_misses():
    """∂_a E[jump · 1(s' > c)] = jump φ((c − m)/σ) per unit of u, one step."""
    height, sums = 30.0, torch.zeros(16)
    for seed in range(60):
        inspected, _ = world(jump=height, horizon=1, seed=seed)
        orders, sigma = both_orders(replace(inspected.setting, horizon=1), inspected.action_limit)
        sums += (orders.zeroth - orders.first)[:, :, 0].mean(dim=1) / 60
    s = inspected.setting.starts.states[:, 0]
    middle = 0.9 * s - 0.3 * s
    z = (0.5 - middle) / float(sigma[0])
    known = height * torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    assert sums.double().numpy() == pytest.approx(known.numpy(), abs=0.15 * height / 2)
    assert float(known.max()) > 5.0


def test_first_order_gradients_are_those_of_autograd():
    inspected, simulator = world()
    orders, sigma = both_orders(replace(inspected.setting, horizon=3), inspected.action_limit)
    states = inspected.setting.starts.states.repeat_interleave(PAIRS, 0)
    pairs = []
    for sign in (1, -1):
        a = inspected.setting.policy(states).detach() + sign * sigma * orders.draws.reshape(-1, 2)
        a.requires_grad_(True)
        s, action, total = states, a, 0.0
        for t in range(3):
            out = simulator.step(s, action, torch.zeros(len(s), 1).double())
            s, total = out.state, total + GAMMA**t * out.reward
            action = inspected.setting.policy(s)
        pairs.append(torch.autograd.grad(total.sum(), a)[0])
    expected = sigma * (pairs[0] + pairs[1]) / 2
    torch.testing.assert_close(orders.first.reshape(-1, 2), expected)


def test_without_a_horizon_nothing_is_said():
    inspected, simulator = world()
    data = {"data": Estimator(simulator, None, "first", Tail(0, Value(), GAMMA))}
    none = Inspection(data, inspected.setting, {})
    assert smoothing(none, simulator) == []


class Value(nn.Module):
    def forward(self, state, action):
        return -(state**2).sum(1) - (action**2).sum(1)
