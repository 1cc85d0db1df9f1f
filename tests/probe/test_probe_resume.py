"""A probe that goes on in its log, in another process or after another model was loaded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab.errors import InputError
from gradlab.runs.probe import results, schema
from gradlab.runs.probe.columns import ProbeColumn
from gradlab.storage import journal
from tests.probe.small_loops import linear_task


def net(width: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 1))


def probed(policy: nn.Module, log: Any, updates: int, *, first: int = 0, **more: Any) -> Any:
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)
    now = [0.0]
    probe = gradlab.Probe(policy, optimizer, log=log, clock=lambda: now[0], **more)
    for step in range(first, first + updates):
        now[0] += 1.0
        optimizer.zero_grad()
        with probe(step):
            policy(torch.randn(8, 2)).square().sum().backward()
        optimizer.step()
    return probe


@pytest.mark.parametrize("folded", [True, False])
def test_a_probe_goes_on_behind_the_last_row(folded, tmp_path):
    log, policy = tmp_path / "run.h5", net()
    probe = probed(policy, log, 230)
    if folded:
        probe.close()
    else:  # as a killed process leaves it
        probe._updates.file_vitals()
        probe.alarm_log.sink._journal._file.close()
        probe.off = True
    before = results.load(log)
    probed(policy, log, 170, first=230, resume=True, overhead_budget=0.2).close()
    run = results.load(log)
    assert run.vitals["update"].tolist() == [100, 200, 230, 300, 400]
    assert run.vitals["step"].tolist() == [99, 199, 229, 299, 399]
    assert run.budget == 0.2
    assert (run.vitals["elapsed"][:3] == before.vitals["elapsed"]).all()
    assert (np.diff(run.vitals["elapsed"]) > 0).all()
    assert (np.diff(run.vitals["own_seconds"]) >= 0).all()


def test_what_cannot_be_gone_on_in_is_refused_at_once(tmp_path):
    log, foreign = tmp_path / "run.h5", tmp_path / "notes.h5"
    probed(net(), log, 110).close()
    held = log.read_bytes()
    foreign.write_text("no run")
    with pytest.raises(InputError, match="where no run is to go on in: start with resume=False"):
        gradlab.Probe(net(), log=tmp_path / "none.h5", resume=True)
    with pytest.raises(InputError, match="resume=True without a run file"):
        gradlab.Probe(net(), log=print, resume=True)
    with pytest.raises(InputError, match=r"of a policy with tensors 0.weight.* not weight, bias"):
        gradlab.Probe(nn.Linear(2, 1), log=log, resume=True)
    with pytest.raises(InputError, match="of a policy of other sizes"):
        gradlab.Probe(net(8), log=log, resume=True)
    with pytest.raises(InputError, match="of no task, not of"):
        gradlab.Probe(net(), task=linear_task(), log=log, resume=True)
    with pytest.raises(InputError):
        gradlab.Probe(net(), log=foreign, resume=True)
    assert log.read_bytes() == held and not journal.journal_of(log).exists()


def test_a_log_with_the_tables_of_another_version_is_left_alone(monkeypatch, tmp_path):
    log = tmp_path / "run.h5"
    probed(net(), log, 110).close()
    held, known = log.read_bytes(), schema.SUCCESSIVE
    monkeypatch.setattr(schema, "SUCCESSIVE", known | {"novel": ProbeColumn()})
    with pytest.raises(InputError, match="whose tables are another version's"):
        gradlab.Probe(net(), log=log, resume=True)
    assert log.read_bytes() == held
