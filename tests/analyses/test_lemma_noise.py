import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from analyses.harness.verdicts import save
from analyses.lemmas import lemma_noise
from analyses.lemmas.noisy_values import Cubic, Pendulum, lqr_response
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.tail import Tail
from gradlab.networks.mlp import Policy

pytestmark = pytest.mark.slow  # what a finished study computes anew


@pytest.fixture(scope="module")
def verdict():
    return lemma_noise.measure(small=True)


def test_the_criterion_is_met_and_saved(verdict, tmp_path):
    assert verdict.holds
    assert verdict.numbers["violations"] == 0
    save(verdict, tmp_path, "python -m analyses.lemmas.lemma_noise")
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".csv"}


def test_the_printed_constant_fails_for_a_deadbeat_policy_only(verdict):
    broken = verdict.table[verdict.table["change"] > verdict.table["printed"]]
    assert set(broken["world"]) == {"deadbeat"}
    assert set(broken["gradient"]) == {"a"}


def test_a_smaller_constant_or_another_slope_is_rejected(verdict):
    table = verdict.table
    assert not lemma_noise.judge(table.assign(bound=0.5 * table["change"]), 0.0).holds
    first_order = table.assign(change=table["noise_size"] * 1e-9)
    assert not lemma_noise.judge(first_order, 0.0).holds
    assert not lemma_noise.judge(table, 1e-3).holds


def test_the_cubic_value_obeys_its_own_bellman_equation():
    """V(s) − V(0) = r(s, π(s)) + γ E V(s' + ε) − (the same at 0), by direct evaluation."""
    world, mean, spread = Cubic(), 0.2, 0.3
    c1, c2, c3 = world.value(mean, spread)

    def V(s):
        return c1 * s + c2 * s**2 + c3 * s**3

    def backed_up(s):
        after = [world.closed * s + mean + sign * spread for sign in (1, -1)]
        cost = (world.q + world.rho * world.theta**2) * s**2
        return world.kappa * s**3 - cost + world.gamma * np.mean([V(x) for x in after], axis=0)

    s = np.linspace(-2, 2, 9)
    np.testing.assert_allclose(V(s), backed_up(s) - backed_up(0.0), rtol=1e-12, atol=1e-12)


def test_the_cubic_action_gradient_is_its_difference_quotient():
    world, s, u = Cubic(), np.array([0.3]), np.array([-0.4])
    c1, c2, c3 = world.value(0.1, 0.2)

    def q(action):
        after = world.a * s + world.b * action
        points = [after + 0.1 + sign * 0.2 for sign in (1, -1)]
        value = np.mean([c1 * x + c2 * x**2 + c3 * x**3 for x in points], axis=0)
        return -world.rho * action**2 + world.gamma * value

    slope = (q(u + 1e-5) - q(u - 1e-5)) / 2e-5
    np.testing.assert_allclose(world.action_gradient(s, u, 0.1, 0.2), slope, rtol=1e-9)


def test_the_pendulum_s_gradient_is_gradlab_s():
    """∂_a q is the gradient in the bias of a linear policy's first action."""
    world = Pendulum(starts=4, pairs=2, steps=30)
    policy = Policy(4, 1, hidden=()).double()
    weight, bias = policy.parameters()
    with torch.no_grad():
        weight.copy_(-world.gain)
        nn.init.zeros_(bias)
    simulator = world.task.simulator
    tail = Tail(30, None, world.task.discount)
    found = Estimator(simulator, simulator, "first", tail).gradients(policy, world.begin)
    by_s, by_a = world.gradients(world.begin, torch.zeros(30, 1, 4).double())
    torch.testing.assert_close(by_a[:, 0], found[:, -1])
    assert by_s.shape == (4, 4)


def test_antithetic_noise_leaves_no_first_order_change():
    calm = dataclasses.replace(lemma_noise.worlds(small=True)[2].value)
    one, two = (calm.responses("zero-mean", size).change_a for size in (2e-4, 4e-4))
    assert two / one == pytest.approx(4.0, rel=1e-3)


def test_a_quadratic_value_does_not_notice_zero_mean_noise():
    assert lqr_response() < 1e-14
