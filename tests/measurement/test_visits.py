"""Visited states follow the discounted visitation from their starts."""

import dataclasses

import numpy as np
import pytest
import torch

import gradlab
from gradlab import systems
from gradlab.gradients.setting import Setting, as_starts
from gradlab.gradients.start_laws import repeated, visits
from gradlab.truth.common_random import mean_and_error
from gradlab.truth.lqr import ExactCritic, lqr_gradient
from tests.measurement.planar import ONE, planar
from tests.measurement.turned import GAMMA, discounted, feedback, moments


def test_visits_from_the_starts_are_the_discounted_visitation():
    task, weight, moment = planar()
    n, T = 4000, 12
    starts = as_starts(task.starts(n, torch.Generator().manual_seed(2)), 2)
    found = visits(Setting(task.simulator, feedback(weight), starts, GAMMA, T, seed=3), 4)
    want = torch.einsum("t,tij->ij", discounted(T), moments(task.simulator, weight, moment, T))
    s = found.states
    products = found.weight[:, None] * (s[:, :, None] * s[:, None, :]).flatten(1)
    gap, error = mean_and_error((products - want.flatten()).T, found.group)
    assert (gap.abs() < 4 * error + 1e-12).all()
    assert (error < 0.05 * want.norm()).all()
    assert torch.equal(found.group, starts.group.repeat_interleave(4))


def counter(end=np.inf):
    return systems.from_function(
        lambda s, a: (s + 1, 0 * s[:, 0]), 1, 1, alive=lambda s: s[:, 0] < end
    )


@pytest.mark.parametrize("samples", [1, 5])
def test_the_times_of_visits_follow_the_truncated_discount(samples):
    zero = as_starts(torch.zeros(20_000, 1, dtype=torch.float64), 1)
    found = visits(Setting(counter(), feedback(ONE), zero, GAMMA, 6), samples)
    share = torch.bincount(found.states[:, 0].long(), minlength=6).double() / (20_000 * samples)
    torch.testing.assert_close(share, discounted(6) / discounted(6).sum(), atol=0.015, rtol=0)
    assert torch.allclose(found.weight, discounted(6).sum())
    half = visits(Setting(counter(3.0), feedback(ONE), zero, GAMMA, 6, "mask"), samples)
    assert bool((half.weight[half.states[:, 0] >= 3] == 0).all())
    assert float(half.weight.mean()) == pytest.approx(float(discounted(3).sum()), rel=0.02)


def test_from_visited_starts_matched_and_objective_differ_by_the_sum_of_discounts():
    """And the identity behind it: ∇_W E_ζ[V] = E_ν[J_θᵀQ_a] / (1 − γ)."""
    task, weight, moment = planar()
    visited = torch.einsum(
        "t,tij->ij", discounted(600), moments(task.simulator, weight, moment, 600)
    )
    nu = (1 - GAMMA) * visited
    first = lqr_gradient(task.simulator, weight, nu, GAMMA, "first") / (1 - GAMMA)
    torch.testing.assert_close(first, lqr_gradient(task.simulator, weight, moment, GAMMA, "all"))

    policy, critic = feedback(weight), ExactCritic(task.simulator, weight, GAMMA)
    begin = as_starts(task.starts(64, torch.Generator().manual_seed(0)), 2)
    objective = gradlab.measure(
        task, policy, critic, horizon=2, starts=begin.states, truth="objective"
    )
    T = int(objective.truth["horizon"])
    at = visits(Setting(task.simulator, policy, begin, GAMMA, T), 8)
    path = dataclasses.replace(repeated(at.states, 1), group=at.group)
    matched = gradlab.measure(task, policy, critic, horizon=2, starts=path)
    factor = float(at.weight[0])
    assert "gain" in set(objective.table().quantity)
    assert "gain" not in set(matched.table().quantity), "it says nothing about the return"
    for name in ("data", "model", "mixed", "true_dynamics"):
        for quantity, power in (("mean_norm", 1), ("variance", 2)):
            ours, theirs = (each.estimate(name, quantity, 0).value for each in (objective, matched))
            assert ours == pytest.approx(factor**power * theirs, rel=1e-9)
