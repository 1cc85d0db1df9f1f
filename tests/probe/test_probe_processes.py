"""The child of a fork has no probe."""

from __future__ import annotations

import os
import warnings
from typing import Any

import pytest
import torch

import gradlab
from gradlab.storage import journal
from tests.probe.small_loops import looped, net

FREE: dict[str, Any] = {"overhead_budget": 1.0, "clock": lambda: 0.0}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_child_of_a_fork_leaves_the_file_and_the_policy_alone(tmp_path):
    policy = net()
    optimizer = torch.optim.SGD(policy.parameters(), 1e-2)
    probe = gradlab.Probe(policy, optimizer, log=tmp_path / "run.h5", **FREE)
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
    assert run.groups["vitals"]["update"].values.tolist() == [100, 200]
