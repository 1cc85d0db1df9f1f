"""Unusual policies, optimisers and arguments: supported, or refused in words."""

from __future__ import annotations

import copy
import errno
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab.probe import updates
from gradlab.storage import journal
from gradlab.storage.journal import Journal
from tests.probe.small_loops import looped, net, probed, vitals


class Mixed(nn.Module):
    """Of two precisions."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(2, 3, dtype=torch.bfloat16)
        self.b = nn.Linear(3, 1, dtype=torch.float64)

    def forward(self, x: torch.Tensor) -> Any:
        return self.b(self.a(x).double())


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.float16, None])
def test_other_precisions_are_read_and_may_be_mixed(kind):
    policy, rows = Mixed() if kind is None else net().to(kind), []
    probe = probed(policy, optimizer := torch.optim.SGD(policy.parameters(), 1e-2), rows)
    looped(policy, optimizer, probe)
    assert vitals(rows)[0]["vitals/looked"] == 100 and not probe.off
    assert 0 < vitals(rows)[0]["vitals/update_ratio"] < 1


def test_parameters_that_join_the_optimiser_later_are_followed():
    policy, rows = net(), []
    optimizer = torch.optim.SGD(policy[2].parameters(), 1e-2)
    policy[0].requires_grad_(False)
    probe = probed(policy, optimizer, rows)
    looped(policy, optimizer, probe)
    policy[0].requires_grad_(True)
    optimizer.add_param_group({"params": policy[0].parameters(), "lr": 1e-3})
    looped(policy, optimizer, probe, 200)
    ratio = [row["vitals/layer_ratio/0.weight"] for row in vitals(rows)]
    assert np.isnan(ratio[0]) and ratio[2] > 0 and not probe.off


def test_an_optimiser_that_was_replaced_is_told(monkeypatch):
    policy, rows = net(), []
    probe = probed(policy, torch.optim.SGD(policy.parameters(), 1e-2), rows)
    with pytest.warns(RuntimeWarning, match="no update end: give it the optimiser") as caught:
        looped(policy, torch.optim.SGD(policy.parameters(), 1e-2), probe, 2 * updates.PATIENCE)
    assert sum("no update end" in str(each.message) for each in caught) == 1


def test_a_probe_is_closed_as_often_as_one_likes(tmp_path):
    policy = net()
    optimizer = torch.optim.SGD(policy.parameters(), 1e-2)
    probe = gradlab.Probe(policy, optimizer, log=tmp_path / "run.h5")
    looped(policy, optimizer, probe)
    probe.close()
    written = (tmp_path / "run.h5").read_bytes()
    probe.close()
    looped(policy, optimizer, probe, 3)
    assert (tmp_path / "run.h5").read_bytes() == written


def test_copies_of_a_probe_do_nothing():
    policy = net()
    probe = gradlab.Probe(policy)
    for found in (copy.deepcopy(probe), pickle.loads(pickle.dumps(probe))):
        with found(0):
            policy(torch.zeros(1, 2)).sum().backward()
        found.close(), found.resume()
        assert found.off and found.spent == 0 and not found.alarms
    assert not probe.off


def test_a_full_disk_costs_the_log_only(monkeypatch, tmp_path):
    policy = net()
    optimizer = torch.optim.SGD(policy.parameters(), 1e-2)
    probe = gradlab.Probe(
        policy, optimizer, log=tmp_path / "run.h5", overhead_budget=1.0, clock=lambda: 0.0
    )
    looped(policy, optimizer, probe)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Journal, "append", full)
    with pytest.warns(RuntimeWarning, match="No space left on device") as caught:
        looped(policy, optimizer, probe, 300)
    assert len(caught) == 1 and probe.off
    assert journal.read(tmp_path / "run.h5").groups["vitals"]["update"].values.tolist() == [100]
