"""Realised gains where episodes end, rollouts are lost, and entropy is part of the return."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gradlab import systems
from gradlab.data.noise import child
from gradlab.gradients.estimator import augmenting
from gradlab.gradients.starts import as_starts
from gradlab.gradients.tail import Setting
from gradlab.measurement.realised_gains import STREAM, Direction, realise
from gradlab.networks.policies import Gaussian, WithLogProb
from gradlab.truth.oracles import perturbed
from tests.gradients.worlds import network, nonlinear
from tests.measurement.stepped import GAMMA, starts_of


def test_a_rollout_that_leaves_the_numbers_loses_its_cell_only():
    def step(s, a):
        over = torch.where(a[:, :1] > 0.0, torch.inf, 0.0)
        return s + over, -(a**2).sum(dim=1)

    policy = nn.Linear(1, 1).double()
    nn.init.zeros_(policy.weight)
    nn.init.zeros_(policy.bias)
    up = torch.tensor([0.0, 1.0], dtype=torch.float64)
    judging = as_starts(torch.ones(8, 1).double(), 1)
    setting = Setting(systems.from_function(step, 1, 1), policy, judging, GAMMA, 5)
    found = realise(setting, {("up", 1): Direction(up), ("down", 1): Direction(-up)}, 0.04)
    assert found.status == ("lost", "stepped")
    assert np.isnan(found.gain[0]).all() and np.isfinite(found.gain[1]).all()
    assert found.best() == ("down", 1) and found.harms(("down", 1))


def test_under_mask_nothing_counts_past_an_end_and_nothing_is_simulated_there():
    calls = []

    def step(s, a):
        calls.append(len(s))
        return s + 1.0 + a, s[:, 0] + a[:, 0]

    simulator = systems.from_function(step, 1, 1, alive=lambda s: s[:, 0] < 3.0)
    policy = nn.Linear(1, 1).double()
    nn.init.zeros_(policy.weight)
    nn.init.zeros_(policy.bias)
    states = torch.tensor([[0.5], [1.5], [-4.0]], dtype=torch.float64)
    direction = {("bias", 1): Direction(torch.tensor([0.0, 1.0], dtype=torch.float64))}

    def returns(a: float, masked: bool) -> list[float]:
        found = []
        for s in states[:, 0].tolist():
            total, alive = 0.0, True
            for t in range(5):
                total += GAMMA**t * (s + a) if alive or not masked else 0.0
                s += 1.0 + a
                alive = alive and s < 3.0
            found.append(total)
        return found

    for mode in ("ignore", "mask"):
        calls.clear()
        setting = Setting(simulator, policy, as_starts(states, 1), GAMMA, 5, termination=mode)
        found = realise(setting, direction, 0.04)
        for k, eta in enumerate(found.lengths):
            before, after = (np.array(returns(a, mode == "mask")) for a in (0.0, eta))
            assert found.gain[0, k] == pytest.approx(after - before, abs=1e-12)
        assert found.ended == pytest.approx(2 / 3)
        assert found.steps == sum(calls) and (mode == "mask") == (found.steps < 60)


def test_with_entropy_the_soft_return_is_what_rises():
    torch.manual_seed(0)
    alpha, simulator = 0.2, nonlinear()
    inner = Gaussian(network((2, 8, 2), nn.Tanh), std=0.3)
    policy, judging, n = WithLogProb(inner), starts_of(9, 8), 8
    P = sum(p.numel() for p in policy.parameters())
    d = torch.randn(P, dtype=torch.float64)
    setting = Setting(augmenting(alpha)(simulator), policy, judging, GAMMA, 6, seed=2)
    found = realise(setting, {("d", 1): Direction(d)}, 0.04)

    def soft_return(inner) -> torch.Tensor:
        state, total, own = judging.states, torch.zeros(n, dtype=torch.float64), child(2, STREAM)
        for t in range(6):
            action = inner(state, judging.policy_noise(policy, own, t))
            xi = judging.dynamics_noise(simulator, own, t)
            out = simulator.step(state, action, xi)
            total += GAMMA**t * (out.reward - alpha * inner.log_prob(state, action))
            state = out.state
        return total.detach()

    moved = perturbed(policy, found.lengths[0] * d / d.norm())
    expected = soft_return(moved.policy) - soft_return(inner)
    assert found.gain[0, 0] == pytest.approx(expected.numpy(), abs=1e-10)
