"""The number of a step: any whole one counts, others are reported and the loop goes on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import gradlab
from tests.probe.small_loops import net, probed


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
