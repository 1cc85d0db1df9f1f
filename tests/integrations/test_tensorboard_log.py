"""TensorBoard gets the rows that a function gets, and the loop does not notice."""

from math import isfinite
from typing import Any

import torch
from torch import nn

import gradlab
from gradlab.integrations.tensorboard import log_to
from gradlab.probe.alarms.evidence import Alarm
from gradlab.probe.row_sinks import AlarmLog, FunctionSink
from tests.integrations.bits import integrator_task, often, seeded, streams, trained


def writer_to(folder):
    from torch.utils.tensorboard import SummaryWriter  # takes a second

    return SummaryWriter(folder)


def events_in(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, state, action):
        return self.layer(torch.cat([state, action], 1))[:, 0]


def climbed(logs, updates, **given):
    """A plain loop, and all that it leaves; without logs there is no probe."""
    seeded()
    policy = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1), nn.Tanh())
    critic = Critic()
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    task = integrator_task()
    probe = None
    if logs:
        probe = gradlab.Probe(policy, optimizer, task, critic, log=list(logs), **given)
    for step in range(updates):
        state = torch.randn(16, 2)
        optimizer.zero_grad()
        loss = -critic(state, policy(state)).mean()
        if probe is None:
            loss.backward()
        else:
            with probe(10 * step):
                loss.backward()
        optimizer.step()
    if probe is not None:
        assert not probe.off
        probe.close()
    return {
        "modules": trained(policy, critic),
        "optimizer": optimizer.state_dict(),
        "streams": streams(),
    }


def test_names_are_what_tensorboard_takes_steps_never_fall_and_nan_is_left_out(
    tmp_path, monkeypatch
):
    rows: list[dict[str, Any]] = []
    with writer_to(tmp_path) as writer:
        climbed((log_to(writer), rows.append), 120, **often(monkeypatch, 50))
    events = events_in(tmp_path)
    tags = events.Tags()["scalars"]
    given = {
        f"gradlab/{name}" for row in rows if "alarms/alarm" not in row
        for name, value in row.items()
        if name not in ("step", "update") and not isinstance(value, str) and isfinite(value)
    }  # fmt: skip
    assert set(tags) == given  # TensorBoard would have put _ for what it does not take
    assert any(not isfinite(v) for row in rows for v in row.values() if isinstance(v, float))
    assert all(isfinite(each.value) for tag in tags for each in events.Scalars(tag))
    steps = [row["step"] for row in rows]
    assert steps == sorted(steps)


class Remembering:
    """A writer that only remembers."""

    def __init__(self):
        self.said: list[tuple[Any, ...]] = []

    def add_scalar(self, *given):
        self.said.append(given)

    def add_text(self, *given):
        self.said.append(given)


def test_alarms_are_text():
    writer = Remembering()
    log = AlarmLog(FunctionSink(log_to(writer, "mine"), ()), ())
    log.report(Alarm("dead path", "look for a detach"), 3, 40)
    assert writer.said == [("mine/alarms/dead path", "look for a detach", 40)]
