"""Oracles against one another, and the rules that say where there is a truth."""

import math

import pytest
import torch
from torch import nn
from worlds import linear, matrix, network

from gradlab import systems
from gradlab.gradients import oracles
from gradlab.gradients.common_random import common_random_differences
from gradlab.gradients.lqr import lqr_gradient
from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.gradients.starts import Starts, as_starts
from gradlab.gradients.truth import matched_truth
from gradlab.systems.linear import LinearQuadratic
from gradlab.tasks import inverted_pendulum


def feedback(*gain):
    policy = nn.Linear(len(gain), 1, bias=False).double()
    policy.weight.data = -matrix(gain)
    return policy


def gaussian_starts(n, ds, mean=0.5):
    generator = torch.Generator().manual_seed(5)
    return as_starts(mean + torch.randn(n, ds, generator=generator, dtype=torch.float64), ds)


@pytest.mark.parametrize("actions", ["first", "all"])
def test_unrolled_truth_agrees_with_the_lqr_closed_form_within_its_error(actions):
    system, policy, n = linear(), feedback(1.2, 1.4), 512
    starts = gaussian_starts(n, 2)
    truth = matched_truth(system, policy, starts, 0.95, 10, kinds=("first", "all"))
    assert truth.status == "converged"
    moment = starts.states.T @ starts.states / n  # of these starts: only process noise is left
    exact = lqr_gradient(system, policy.weight.data, moment, 0.95, actions)
    if actions == "first":
        assert truth.first is not None
        samples = truth.first.gradients[:, :, None] * starts.states[:, None]
        samples = samples.flatten(1)
    else:
        samples = truth.every.gradients
    error = samples.std(dim=0) / math.sqrt(n)
    assert ((samples.mean(dim=0) - exact).abs() < 3.5 * error).all()
    assert truth.first.relative_se < 0.25
    assert truth.lyapunov < -math.log(0.95)


def test_differences_agree_with_both_kinds_of_gradients_on_a_nonlinear_system():
    def step(s, a):
        following = torch.cat([s[:, :1] + 0.1 * s[:, 1:], 0.8 * s[:, 1:] + 0.2 * torch.sin(a)], 1)
        return following, -(s**2).sum(1) - 0.1 * a[:, 0] ** 2

    torch.manual_seed(0)
    system = systems.from_function(step, 2, 1)
    policy, starts = network((2, 6, 1), nn.Tanh), gaussian_starts(32, 2)
    unrolled = oracles.unroll_first_action(system, policy, starts, 0.9, at_most=50)
    jacobian = policy_jacobian(policy, starts.states, starts.states[:, :0])
    first = oracles.gram.mean_gradients(jacobian, unrolled.gradients[-1:])[0]
    every = oracles.unroll_all_actions(system, policy, starts, 50, 0.9).mean(dim=0)
    for actions, gradient in (("first", first), ("all", every)):
        found = common_random_differences(system, policy, starts, 50, 0.9, actions=actions)
        narrow, wide = found.narrow[-1].mean(dim=1), found.wide[-1].mean(dim=1)
        want = found.directions @ gradient
        assert (narrow - want).abs().max() < 1e-5 * want.abs().max()
        truncation = narrow - want, wide - want
        ratio = truncation[1].norm() / truncation[0].norm()
        assert 3.9 < ratio < 4.1, "central differences are second order"


def test_an_unstable_loop_has_no_truth_or_a_cut_one():
    one = torch.eye(1, dtype=torch.float64)
    system = LinearQuadratic(1.3 * one, 0.5 * one, one, one, 0.0 * one)
    starts = gaussian_starts(64, 1)
    cut = matched_truth(system, feedback(0.2), starts, 0.9, 10)
    assert cut.status == "cut"
    assert cut.horizon <= oracles.effective_horizon(0.9)
    assert f"T = {cut.horizon}" in cut.reason
    none = matched_truth(system, feedback(0.2), starts, 0.9, 100)
    assert none.status == "none"
    assert none.first is None
    assert "no truth here: λ = 0.182" in none.reason  # ln(1.3 − 0.5·0.2)


def test_chaos_is_cut_where_differences_leave_the_chain_or_refused():
    def step(s, a):
        return 3.9 * s * (1 - s) + 1e-3 * a, -(s[:, 0] ** 2)

    system = systems.from_function(step, 1, 1)
    starts = as_starts(torch.rand(64, 1, generator=torch.Generator().manual_seed(0)).double(), 1)
    truth = matched_truth(system, feedback(0.1), starts, 0.98, 25)
    assert truth.status in ("none", "cut")
    assert truth.lyapunov > 0.3


def test_few_starts_are_imprecise_and_the_missing_ones_are_enough():
    system, policy = linear(), feedback(1.2, 1.4)
    few = matched_truth(system, policy, gaussian_starts(24, 2, mean=0.1), 0.95, 10)
    assert few.status == "imprecise"
    assert few.first.relative_se > 0.25
    assert few.first.missing > 0
    enough = gaussian_starts(
        24 + 2 * few.first.missing, 2, mean=0.1
    )  # twice: the count is an estimate
    assert matched_truth(system, policy, enough, 0.95, 10).status == "converged"


def test_a_wrong_jacobian_is_caught_by_the_differences():
    class Wrong:
        """A simulator whose B is 5% off."""

        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def linearize(self, state, action, noise=None):
            out = self.inner.linearize(state, action, noise)
            return type(out)(out.A, 1.05 * out.B, out.r_s, out.r_a, out.certificate)

    starts = gaussian_starts(256, 2)
    truth = matched_truth(Wrong(linear()), feedback(1.2, 1.4), starts, 0.95, 10)
    assert truth.status == "none"
    assert "differs from finite differences" in truth.reason


def test_boundary_terms_of_termination_are_seen():
    """Rewards stop at |x| ≥ 1: the unrolled gradient misses the flux through that boundary."""

    def step(s, a):
        return 0.9 * s + 0.5 * a, 1.0 + 0.0 * s[:, 0]

    system = systems.from_function(step, 1, 1, alive=lambda s: s[:, 0].abs() < 1)
    starts = as_starts(torch.linspace(-1.4, 1.4, 257).double()[:, None], 1)
    masked = matched_truth(system, feedback(0.1), starts, 0.9, 5, termination="mask")
    assert masked.status == "none" or masked.first.norm == 0.0


def test_mujoco_and_its_analytic_twin_have_the_same_truth():
    from gradlab.fitting.policies import riccati_gain

    mujoco, twin = inverted_pendulum(), inverted_pendulum(engine="analytic")
    gain = riccati_gain(mujoco.prior, torch.zeros(4, dtype=torch.float64), 0.98)
    policy, states = feedback(*gain[0].tolist()), mujoco.starts(16, torch.Generator())
    truths = [
        matched_truth(task.simulator, policy, as_starts(states, 4), 0.98, 25)
        for task in (mujoco, twin)
    ]
    assert truths[0].horizon == truths[1].horizon
    torch.testing.assert_close(
        truths[0].first.gradients, truths[1].first.gradients, rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_a_constant_weight_scales_the_truth_and_changes_nothing_else(weight):
    system, policy = linear(), feedback(1.2, 1.4)
    plain = gaussian_starts(256, 2)
    heavy = Starts(plain.states, weight * plain.weight, plain.group)
    one, two = (
        matched_truth(system, policy, each, 0.95, 10, kinds=("first", "all"))
        for each in (plain, heavy)
    )
    assert one.status == two.status == "converged"
    assert two.every.norm == pytest.approx(weight * one.every.norm)
    assert two.first.norm == pytest.approx(weight * one.first.norm)
