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
from gradlab.errors import InputError
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


def test_a_policy_that_changes_its_precision_is_followed():
    policy, rows = net(), []
    probe = probed(policy, optimizer := torch.optim.SGD(policy.parameters(), 0.0), rows)
    looped(policy, optimizer, probe, 50)
    policy.double()
    looped(policy, optimizer, probe, 50)
    assert not probe.off and vitals(rows)[0]["vitals/update_ratio"] == 0.0


def test_of_two_optimisers_the_one_given_counts_updates():
    policy, rows = net(), []
    head = torch.optim.SGD(policy[2].parameters(), 1e-2)
    trunk = torch.optim.SGD(policy[0].parameters(), 1e-2)
    probe = probed(policy, head, rows)
    for step in range(100):
        policy.zero_grad()
        with probe(step):
            policy(torch.randn(8, 2)).sum().backward()
        head.step(), trunk.step()
    row = vitals(rows)[0]
    assert row["update"] == 100 and row["vitals/layer_ratio/0.weight"] == 0.0
    assert row["vitals/layer_ratio/2.weight"] > 0 and row["vitals/layer_norm/0.weight"] > 0


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


def test_layers_that_were_replaced_are_told():
    policy, rows = net(), []
    probe = probed(policy, optimizer := torch.optim.SGD(policy.parameters(), 1e-2), rows)
    policy[0] = nn.Linear(2, 8)
    with pytest.warns(RuntimeWarning, match="make a new probe when layers are replaced"):
        looped(policy, optimizer, probe)
    assert probe.off


def test_a_policy_without_a_forward_pass_is_watched():
    policy = nn.ParameterDict({"gain": nn.Parameter(torch.ones(2))})
    rows: list[dict[str, Any]] = []
    probe = probed(policy, optimizer := torch.optim.SGD(policy.parameters(), 1e-2), rows)
    looped(policy, optimizer, probe, loss=lambda step: (policy["gain"] ** 2).sum())
    assert vitals(rows)[0]["vitals/layer_norm/gain"] > 0 and not probe.off


def test_a_policy_in_data_parallel_is_watched():
    policy, rows = nn.DataParallel(net()), []
    probe = probed(policy, optimizer := torch.optim.SGD(policy.parameters(), 1e-2), rows)
    looped(policy, optimizer, probe)
    assert vitals(rows)[0]["vitals/grad_norm"] > 0 and not probe.off


def test_two_probes_on_one_policy_say_the_same():
    policy, one, other = net(), [], []
    optimizer = torch.optim.SGD(policy.parameters(), 1e-2)
    probes = probed(policy, optimizer, one), probed(policy, optimizer, other)
    for step in range(100):
        optimizer.zero_grad()
        with probes[0](step), probes[1](step):
            policy(torch.randn(8, 2)).sum().backward()
        optimizer.step()
    assert str(one) == str(other) and vitals(one)


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


def test_scalers_that_are_off_or_none_at_all():
    policy, rows = net(), []
    probe = probed(policy, None, rows)
    with probe(0, torch.amp.GradScaler("cpu", enabled=False)):
        policy(torch.zeros(1, 2)).sum().backward()
    assert not probe.off
    wrong: Any = 1024.0
    with pytest.warns(RuntimeWarning, match=r"scaler is a float, expected"), probe(1, wrong):
        pass
    assert probe.off


def test_tracing_records_nothing_of_a_probe():
    policy = net()
    bare = str(torch.jit.trace(policy, torch.zeros(3, 2)).graph)
    probe = gradlab.Probe(policy)
    watched = str(torch.jit.trace(policy, torch.zeros(3, 2)).graph)
    assert watched.count("aten::") == bare.count("aten::")
    assert probe._updates.watch.inputs == ()


def test_a_compiled_loop_is_not_compiled_again_for_a_probe_that_passes_updates_over():
    policy = net()
    probe = gradlab.Probe(policy)
    later = torch.compile(policy, backend="eager")
    torch._dynamo.utils.counters.clear()
    for on in (True, False, True):
        probe._updates.watch.on = on
        later(torch.zeros(3, 2))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 1


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


def test_a_path_that_cannot_be_written_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match="cannot be written"):
        gradlab.Probe(net(), log=tmp_path / "file" / "run.h5")
