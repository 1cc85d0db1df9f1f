"""Growth, lost Jacobians, float32 and mixtures in a measurement, against closed forms.

A probe that goes on in its log, and one in the child of a fork.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradlab
from gradlab.probe.arguments import Past, Question
from gradlab.probe.checks import Evidence, examine
from gradlab.probe.measured import measured
from gradlab.storage import journal
from gradlab.tasks import Task
from tests.probe.small_loops import EYE, linear_task, looped, net

STILL = Past(count=4, sound=True)  # the next truth is not checked


def task(A: Tensor, discount: float = 0.8) -> Task:
    ones = torch.ones(2, dtype=torch.float64)
    return replace(linear_task(A=A, start_mean=ones, discount=discount), horizon=6)


def policy() -> nn.Module:
    found = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    nn.init.zeros_(found.weight)
    return found


class Square(nn.Module):
    def forward(self, s: Tensor, a: Tensor) -> Tensor:
        return -(s**2).sum(1) - (a**2).sum(1)


@pytest.mark.parametrize("factor", [1.2, 0.9])
def test_a_chain_of_multiples_of_one_matrix_grows_as_its_powers(factor):
    A = torch.diag(torch.tensor([factor, 0.5 * factor], dtype=torch.float64))
    row, _ = measured(Question(task(A), None, 0), policy(), 256, 1, Past())
    steps = np.arange(26)
    np.testing.assert_allclose(row["chain_norm"], steps * np.log10(factor), atol=1e-9)
    grows = factor > 1
    tenfold = 1 / np.log10(factor) if grows else np.inf
    beyond = np.ceil(np.log10(float(np.finfo(np.float32).max)) * tenfold) if grows else np.inf
    assert row["float32_step"] == beyond


def test_a_loop_that_outgrows_its_discount_is_told_with_its_tenfold_steps():
    for factor, loud in ((1.3, True), (1.2, False)):  # ln 1/γ = ln 1.25
        A = torch.diag(torch.tensor([factor, 0.5], dtype=torch.float64))
        row, _ = measured(Question(task(A), None, 0), policy(), 256, 1, Past())
        look = Evidence([row | {"step": 1}], 1)
        told = examine("measured", look)
        assert [x.code for x in told] == ["diverging sensitivities"] * loud
        assert all(f"every {1 / np.log10(1.3):.2g} steps" in x.said for x in told)


@pytest.mark.parametrize(("factor", "grown"), [(0.9, 0.8), (1.05, 0.8 * 1.05**2), (1.2, np.inf)])
def test_what_rewards_allow_grows_with_the_square_of_the_loop(factor, grown):
    A = torch.diag(torch.tensor([factor, 0.5], dtype=torch.float64))
    row, _ = measured(Question(task(A), None, 0), policy(), 256, 1, Past())
    allowed = row["reward_max"] / (1 - grown) if grown < 1 else np.inf
    assert row["return_bound"] == pytest.approx(allowed, rel=1e-6)


def holed(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    inside = (state[:, :1] - 0.5) * (state[:, :1] > 0.5)  # the derivative of √0, times 0, is NaN
    after = 0.5 * state + torch.cat([action + 0.0 * torch.sqrt(inside), 0 * action], 1)
    return after, -(state**2).sum(1)


def test_lost_jacobians_are_counted_and_the_first_is_named():
    world = task(0.5 * EYE)
    prior = gradlab.systems.from_function(holed, state_dim=2, action_dim=1)
    row, _ = measured(Question(replace(world, prior=prior), None, 0), policy(), 256, 1, Past())
    lost, states = row["jacobian_nonfinite"], row["jacobian_states"]
    assert 0 < lost < states == 64 * 25
    assert row["starts_lost"] == 64  # every path ends near 0
    assert "first at step 0 of start" in row["nonfinite_where"]
    look = Evidence([row | {"step": 1}], 1)
    told = {x.code: x.said for x in examine("measured", look)}
    assert "masking them would drop" in told["non-finite Jacobian"]


def test_the_truth_is_checked_in_measurements_1_2_4_8():
    question = Question(task(0.9 * EYE), Square(), 0)
    row, _ = measured(question, policy(), 256, 3, STILL)
    assert row["truth_checked"] == 0


def test_a_truth_that_does_not_stand_is_checked_again():
    diverging = Question(task(1.5 * EYE), Square(), 0)
    row, past = measured(diverging, policy(), 256, 1, STILL)
    assert row["truth_checked"] == 1 and not past.sound and past.checks


# The child of a fork has no probe.


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_child_of_a_fork_leaves_the_file_and_the_policy_alone(tmp_path):
    policy = net()
    optimizer = torch.optim.SGD(policy.parameters(), 1e-2)
    probe = gradlab.Probe(policy, optimizer, log=tmp_path / "run.h5")
    looped(policy, optimizer, probe)
    before = sorted(tmp_path.iterdir())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
        child = os.fork()
    if child == 0:
        left = 1
        try:
            off = probe.off
            looped(policy, optimizer, probe)
            hooks = policy._forward_hooks, optimizer._optimizer_step_pre_hooks
            free = off and not any(hooks)
            probe.close()
            left = 0 if free else 2
        finally:
            os._exit(left)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert sorted(tmp_path.iterdir()) == before
    looped(policy, optimizer, probe)
    assert not probe.off
    probe.close()
    run = journal.read(tmp_path / "run.h5")
    assert run.groups["vitals"]["update"].values.tolist() == [50, 100, 150, 200]
