"""The number of a step: any whole one counts, others are reported and the loop goes on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import gradlab
from gradlab.probe import updates
from tests.probe.small_loops import net, probed, vitals


@pytest.mark.parametrize("step", [7, 7.0, True, np.int64(7), np.float32(7), torch.tensor(7)])
def test_every_whole_number_is_a_step(step):
    policy, rows = net(), []
    probe = probed(policy, None, rows)
    with probe(step):
        policy(torch.zeros(1, 2)).sum().backward()
    assert type(probe._updates.step) is int and not probe.off


@pytest.mark.parametrize("step", [7.5, float("nan"), float("inf"), "7", None, torch.zeros(2)])
def test_what_is_no_step_is_told_and_the_loop_goes_on(step):
    policy = net()
    probe = gradlab.Probe(policy)
    with pytest.warns(RuntimeWarning, match="expected an integer") as caught:
        for _ in range(3):
            with probe(step):
                policy(torch.zeros(1, 2)).sum().backward()
    assert len(caught) == 1 and probe.off


def test_steps_may_fall_and_repeat():
    policy, rows = net(), []
    probe = probed(policy, optimizer := torch.optim.SGD(policy.parameters(), 1e-2), rows)
    for step in [5, 5, 3, -1] * 25:
        optimizer.zero_grad()
        with probe(step):
            policy(torch.randn(8, 2)).sum().backward()
        optimizer.step()
    assert vitals(rows)[0]["update"] == 100 and vitals(rows)[0]["step"] == -1


def test_a_step_that_never_changes_is_told_where_nothing_else_ends_an_update():
    policy = net()
    probe = gradlab.Probe(policy, clock=lambda: 0.0)
    with pytest.warns(RuntimeWarning, match="count steps up") as caught:
        for _ in range(updates.PATIENCE + 5):
            with probe(0):
                pass
    assert len(caught) == 1 and not probe.off
