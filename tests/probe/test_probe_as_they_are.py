"""Loops as people write them: one optimiser in turn, an actor made anew, a step that rests."""

from __future__ import annotations

import copy
from contextlib import nullcontext as _quiet

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab.probe.alarms.evidence import REPLACED
from gradlab.reporting.probe_page import panels
from gradlab.runs.probe.results import load
from gradlab.runs.probe.tables import curves
from tests.probe.actor_critics import InTurn, Loop, actor, answers, watched
from tests.probe.small_loops import looped, probed

IN_TURN = {
    "": set(),
    "actor at rest": {"actor does not move"},
    "critic at rest": {"critic does not move"},
    "critic moves along": {"actor's steps move the critic"},
    "detached actor": {"dead path", "dead inputs"},
}


@pytest.mark.parametrize("marked, none", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("fault", IN_TURN)
def test_a_step_of_one_of_two_is_no_update_of_the_other(fault, marked, none):
    loop, rows = InTurn(fault, marked, none), []
    probe = watched(loop, log=rows.append, critic_optimizer=loop.critic_optimizer)
    loop.run(probe, 210)
    probe.close()
    assert {alarm.kind for alarm in probe.alarms} == IN_TURN[fault]
    if fault != "detached actor":
        assert probe._updates.count == 210
        row = next(row for row in rows if "vitals/critic_steps" in row)
        assert row["vitals/zero/2.weight"] == 0 and row["vitals/critic_norm"] > 0


SWAPPED = {
    "optimiser": "another optimiser that holds the policy",
    "actor": "the optimiser of another policy of the same shapes",
    "actor of the same values": "the optimiser of another policy of the same shapes",
    "layers": "the policy's layers were replaced",
    "": "",
}


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("what", SWAPPED)
def test_a_swap_is_named_within_50_updates(what, marked):
    loop = Loop()
    probe = watched(loop)
    loop.run(probe if marked else None, 70)
    if what.startswith("actor"):
        loop.policy = copy.deepcopy(loop.policy) if "values" in what else actor()
    elif what == "layers":
        loop.policy[2] = nn.Linear(16, 1)
    if what:
        loop.actor_optimizer = torch.optim.Adam(loop.policy.parameters(), 1e-3)
    loop.run(probe if marked else None, 50)
    assert [alarm.kind for alarm in probe.alarms] == ([REPLACED] if what else [])
    assert all(alarm.message.startswith(SWAPPED[what]) for alarm in probe.alarms)


def test_agents_that_are_trained_one_after_the_other_are_no_swap():
    probes, names = [], []
    for _ in range(2):
        policy, rows = actor(), []
        optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
        probes.append(gradlab.Probe(policy, optimizer, log=rows.append))
        names.append(rows)
        with pytest.warns(RuntimeWarning, match="close this one") if len(names) > 1 else _quiet():
            for _ in range(60):
                optimizer.zero_grad()
                policy(torch.randn(8, 2)).mean().backward()
                optimizer.step()
    for probe, rows in zip(probes, names, strict=True):
        probe.close()
        assert not probe.alarms
        found = answers(rows)["the probe's policy is the one that is trained"]
        assert found["state"] == "sound"


def test_rows_of_one_step_stand_apart_in_their_order(tmp_path):
    """As in PPO: all updates of a rollout are at its last step."""
    policy, path = actor(), tmp_path / "run.h5"
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    probe = gradlab.Probe(policy, optimizer, log=path, overhead_budget=1.0, clock=lambda: 0.0)
    for update in range(600):
        optimizer.zero_grad()
        with probe(2048 * (1 + update // 300)):
            policy(torch.randn(8, 2)).mean().backward()
        optimizer.step()
    probe.close()
    run = load(path)
    table = curves({"": run})
    norms = table[table["quantity"] == "grad_norm"]["step"]
    assert norms.to_numpy() == pytest.approx(2048 * np.arange(1, 7) / 3)
    assert panels(run)


# What a tanh lets through, and which tensors an update reaches.


def rows(net: nn.Module, held: list[nn.Parameter], states: torch.Tensor) -> list[dict[str, object]]:
    """Vitals of two windows."""
    optimizer = torch.optim.SGD(held, 0.0)
    probe = probed(net, optimizer)
    looped(net, optimizer, probe, 200, lambda step: net(states).sum())
    assert not probe.off
    return [dict(row) for row in probe.alarm_log.rows[0]["vitals"]]


@pytest.mark.parametrize("size", [0.1, 2.0, 30.0])
def test_attenuation_is_the_mean_derivative_of_the_tanh(size):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 2), nn.Tanh()).double()
    states = size * torch.randn(16, 3, dtype=torch.float64)
    latent = net[0](states).detach().requires_grad_()
    (slope,) = torch.autograd.grad(torch.tanh(latent).sum(), latent)
    first, _ = rows(net, [*net.parameters()], states)
    np.testing.assert_allclose(first["attenuation"], slope.mean(0).numpy(), rtol=1e-9, atol=1e-12)


def test_what_an_update_reaches_is_said_once():
    net, other = nn.Linear(3, 1), nn.Linear(2, 1)
    net.bias.requires_grad_(False)
    held = [net.weight, *other.parameters()]
    first, second = rows(net, held, torch.randn(4, 3))
    assert str(first["reaches"]).startswith(
        "updates move 1 of 2 tensors of the policy and 2 others; no task"
    )
    assert second["reaches"] == ""
