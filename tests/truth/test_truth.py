"""Oracles against one another, and the rules that say where there is a truth."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from gradlab import systems
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.gradients.starts import Starts, as_starts
from gradlab.gradients.tail import Setting, Tail
from gradlab.tasks import inverted_pendulum
from gradlab.truth import oracles
from gradlab.truth.common_random import common_random_differences, mean_and_error
from gradlab.truth.lqr import lqr_gradient
from gradlab.truth.oracles import reference_gradients
from gradlab.truth.truth import matched_truth
from tests.gradients.worlds import linear, network
from tests.truth.linear_policies import Relinearized, feedback, gaussian_starts


@pytest.mark.parametrize("actions", ["first", "all"])
def test_unrolled_truth_agrees_with_the_lqr_closed_form_within_its_error(actions):
    system, policy, n = linear(), feedback(1.2, 1.4), 512
    starts = gaussian_starts(n, 2)
    truth = matched_truth(Setting(system, policy, starts, 0.95, 10), kinds=("first", "all"))
    assert truth.status == "converged"
    moment = starts.states.T @ starts.states / n  # of these starts: only process noise is left
    exact = lqr_gradient(system, policy.weight.data, moment, 0.95, actions)
    samples = truth.every.gradients
    if actions == "first":
        samples = (truth.first.gradients[:, :, None] * starts.states[:, None]).flatten(1)
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
    unrolled = oracles.unroll_first_action(Setting(system, policy, starts, 0.9), at_most=50)
    jacobian = policy_jacobian(policy, starts.states, starts.states[:, :0])
    first = oracles.gram.mean_gradients(jacobian, unrolled.gradients[-1:])[0]
    every = oracles.unroll_all_actions(Setting(system, policy, starts, 0.9, 50)).mean(dim=0)
    for actions, gradient in (("first", first), ("all", every)):
        found = common_random_differences(Setting(system, policy, starts, 0.9, 50), actions=actions)
        narrow, wide = found.narrow[-1].mean(dim=1), found.wide[-1].mean(dim=1)
        want = found.directions @ gradient
        assert (narrow - want).abs().max() < 1e-5 * want.abs().max()
        truncation = narrow - want, wide - want
        ratio = truncation[1].norm() / truncation[0].norm()
        assert 3.9 < ratio < 4.1, "central differences are second order"


def test_few_starts_are_imprecise_and_the_missing_ones_are_enough():
    system, policy = linear(), feedback(1.2, 1.4)
    few = matched_truth(Setting(system, policy, gaussian_starts(24, 2, mean=0.1), 0.95, 10))
    assert few.status == "imprecise"
    assert few.first.relative_se > 0.25
    assert few.first.missing > 0
    enough = gaussian_starts(24 + few.first.missing, 2, mean=0.1)
    assert matched_truth(Setting(system, policy, enough, 0.95, 10)).status == "converged"


def test_a_truth_counts_its_flagged_jacobians():
    def every_fourth(state, out):
        flags = torch.arange(len(state)) % 4 == 0
        return replace(out, certificate=replace(out.certificate, flags=flags))

    flagged, starts = Relinearized(linear(), every_fourth), gaussian_starts(256, 2)
    truth = matched_truth(Setting(flagged, feedback(1.2, 1.4), starts, 0.95, 10))
    assert truth.flagged == 0.25
    assert truth.reason.endswith("; 25.00% of its Jacobians are flagged")


def test_a_truth_with_all_actions_goes_on_until_the_visitation_is_summed():
    """All of its signal is process noise: the share up to T is 1 − γᵀ, however stable the loop."""
    system, policy, gamma = linear(), feedback(0.4, 0.6), 0.97
    starts = as_starts(torch.zeros(512, 2, dtype=torch.float64), 2)
    truth = matched_truth(Setting(system, policy, starts, gamma, 10), kinds=("all",))
    assert truth.status == "converged"
    none = torch.zeros(2, 2, dtype=torch.float64)
    exact = lqr_gradient(system, policy.weight.data, none, gamma, "all")
    cut = lqr_gradient(system, policy.weight.data, none, gamma, "all", truth.horizon)
    assert (cut - exact).norm() < 0.013 * exact.norm()
    assert (cut - exact).norm() < 2 * truth.remainder
    gap, error = mean_and_error((truth.every.gradients - cut).T, starts.group)
    assert (gap.abs() < 3.5 * error).all()


def test_starts_of_one_group_count_once_in_the_errors():
    """Every value eight times, in one group: the error is that of the values themselves."""
    values = torch.randn(3, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, error = mean_and_error(values, torch.arange(40))
    torch.testing.assert_close(error, values.std(dim=1) / math.sqrt(40))
    group = torch.arange(40).repeat_interleave(8)
    again, same = mean_and_error(values.repeat_interleave(8, dim=1), group)
    torch.testing.assert_close(again, mean)
    torch.testing.assert_close(same, error)


@pytest.mark.slow
def test_mujoco_its_analytic_twin_autodiff_and_differences_have_one_truth():
    from gradlab.fitting.policies import riccati_gain

    mujoco, twin = inverted_pendulum(), inverted_pendulum(engine="analytic")
    gain = riccati_gain(mujoco.prior, torch.zeros(4, dtype=torch.float64), 0.98)
    policy, starts = feedback(*gain[0].tolist()), as_starts(mujoco.starts(16, torch.Generator()), 4)
    truths = [
        matched_truth(Setting(task.simulator, policy, starts, 0.98, 25), kinds=("first", "all"))
        for task in (mujoco, twin)
    ]
    assert truths[0].horizon == truths[1].horizon
    for kind in ("first", "every"):
        chained, closed = (getattr(truth, kind) for truth in truths)
        torch.testing.assert_close(chained.gradients, closed.gradients, rtol=1e-6, atol=1e-8)
        assert chained.discrepancy <= 1.0
        assert chained.distance < 1e-3 * chained.gradients.norm(dim=1).mean()
    few = as_starts(starts.states[:3], 4)
    for actions in ("first", "all"):
        system, tail = twin.simulator, Tail(25, None, 0.98)
        want = reference_gradients(Estimator(system, system, actions, tail), policy, few)
        if actions == "all":
            got = oracles.unroll_all_actions(Setting(mujoco.simulator, policy, few, 0.98, 25))
        else:
            sweep = oracles.unroll_first_action(Setting(mujoco.simulator, policy, few, 0.98))
            got = sweep.gradients[24] * few.states
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_a_constant_weight_scales_the_truth_and_changes_nothing_else(weight):
    system, policy = linear(), feedback(1.2, 1.4)
    plain = gaussian_starts(256, 2)
    heavy = Starts(plain.states, weight * plain.weight, plain.group)
    one, two = (
        matched_truth(Setting(system, policy, each, 0.95, 10), kinds=("first", "all"))
        for each in (plain, heavy)
    )
    assert one.status == two.status == "converged"
    assert two.every.norm == pytest.approx(weight * one.every.norm)
    assert two.first.norm == pytest.approx(weight * one.first.norm)
