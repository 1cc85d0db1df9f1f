"""Who moved what: planted faults are named by their cause, sound loops beside them are not."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules import module

import gradlab
from gradlab.probe.alarms.evidence import CAUSES
from gradlab.probe.parts.moves import Cleared
from tests.probe.actor_critics import Loop, answers, watched

PLANTED = {
    "frozen targets": ("targets do not move", "critic's targets have not moved for 25"),
    "frozen target of the policy": ("targets do not move", "policy's targets have not moved"),
    "swapped tau": ("targets follow too fast", "targets take 0.98 of the network"),
    "copied at every step": ("targets follow too fast", "or is the copy made at every step"),
    "critic in the actor's optimiser": ("actor's steps move the critic", "hold the critic's"),
    "gradients add up": ("gradients are not cleared", "is zero_grad() called"),
    "outside of steps": ("network moves without a step", "the policy changes between"),
    "target into network": ("network moves without a step", "target exchanged"),
}


def causes(probe: gradlab.Probe) -> set[str]:
    return {alarm.kind for alarm in probe.alarms} & set(CAUSES)


@pytest.mark.parametrize("fault", PLANTED)
def test_two_lines_name_the_cause(fault):
    loop = Loop(fault)
    probe = watched(loop)
    loop.run(probe, 300)
    kind, words = PLANTED[fault]
    found = [alarm for alarm in probe.alarms if alarm.kind in CAUSES]
    found.sort(key=lambda alarm: CAUSES.index(alarm.kind))
    assert found and found[0].kind == kind
    assert {alarm.kind for alarm in found[1:]} <= {kind, "targets do not move"}
    assert words in found[0].message and found[0].message.endswith("?")


def test_a_sound_loop_has_a_proof_of_each_part():
    loop, rows = Loop(), []
    probe = watched(loop, log=rows.append)
    loop.run(probe, 300)
    probe.close()
    assert not causes(probe)
    found = answers(rows)
    follow = found["targets follow"]
    # exact: the network rests while its target moves
    assert follow["state"] == "sound" and follow["value"] == pytest.approx(0.02, rel=1e-4)
    for name in (
        "actor's step moves the policy alone", "networks move by steps alone",
        "gradients are cleared between steps",
    ):  # fmt: skip
        assert found[name]["state"] == "sound" and found[name]["value"] == 0


def test_what_is_sent_in_parts_and_clipped_is_cleared_all_the_same():
    policy = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(policy.parameters(), 0.1)
    check = Cleared(policy, optimizer)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):  # ten windows, then one in ten
        check.begin()
        optimizer.zero_grad()
        for _ in range(3):
            policy(torch.randn(5, 3, generator=generator)).square().sum().backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
        check.look()
        optimizer.step()
    found = check.answer()
    assert (found.state, found.value, found.looks) == ("sound", 0.0, 11)
    assert not policy.weight._backward_hooks and not policy.bias._backward_hooks


@pytest.mark.parametrize(("cleared", "state"), [(False, "fault"), (True, "sound")])
def test_saturated_actions_send_gradients_of_0_and_what_was_left_is_seen(cleared, state):
    policy = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh())
    optimizer = torch.optim.SGD(policy.parameters(), 0.0)
    policy(torch.ones(5, 3)).sum().backward()
    check = Cleared(policy, optimizer)
    for _ in range(12):
        policy[0].weight.grad = torch.ones(2, 3)
        check.begin()
        if cleared:
            optimizer.zero_grad()
        policy(torch.full((5, 3), 1e6)).sum().backward()  # 1 − tanh² is 0
        check.look()
    assert check.answer().state == state


@pytest.mark.slow
def test_targets_that_are_copied_now_and_then_are_declared():
    for period, quiet in ((None, False), (400, True)):
        loop = Loop("frozen targets")
        probe = watched(loop)
        probe.networks(
            critic=loop.critics, target=[*loop.targets, loop.target_policy], period=period
        )
        loop.run(probe, 300)
        assert (not causes(probe)) == quiet


@pytest.mark.slow
def test_copies_that_act_or_are_referred_to_are_no_targets():
    loop = Loop()
    reference = copy.deepcopy(loop.policy)

    def refer(rows: dict[str, torch.Tensor], *_: torch.Tensor) -> None:
        with torch.no_grad():
            reference(rows["state"])

    probe = watched(loop)
    loop.run(probe, 300, refer)
    assert not causes(probe)


@pytest.mark.parametrize("shared", ["one optimiser", "encoder"])
def test_shared_networks_are_no_leak(shared):
    torch.manual_seed(0)
    trunk, head, critic = nn.Linear(2, 8), nn.Linear(8, 1), nn.Linear(8, 1)
    first = [*trunk.parameters(), *head.parameters()]
    first += [*critic.parameters()] if shared == "one optimiser" else []
    policy = nn.Sequential(trunk, nn.Tanh(), head) if shared == "one optimiser" else head
    optimizer = torch.optim.Adam(first, 1e-3)
    other = torch.optim.Adam([*trunk.parameters(), *critic.parameters()], 1e-3)
    probe = gradlab.Probe(policy, optimizer, overhead_budget=1.0, clock=lambda: 0.0)
    for step in range(300):
        hidden = torch.tanh(trunk(torch.randn(8, 2)))
        loss = (head(hidden) ** 2).mean()
        if shared == "one optimiser":
            loss = loss + (critic(hidden) ** 2).mean()
        else:
            other.zero_grad()
            (critic(torch.tanh(trunk(torch.randn(8, 2)))) ** 2).mean().backward()
            other.step()
            hidden = torch.tanh(trunk(torch.randn(8, 2)))
            loss = (head(hidden) ** 2).mean()
        optimizer.zero_grad()
        with probe(step):
            loss.backward()
        optimizer.step()
    assert not causes(probe)


@pytest.mark.slow
def test_one_optimiser_that_steps_in_turn_and_moves_the_critic_is_told():
    for frozen in (False, True):
        torch.manual_seed(0)
        loop = Loop()
        both = torch.optim.Adam([*loop.policy.parameters(), *loop.critics.parameters()], 1e-3)
        loop.actor_optimizer = loop.critic_optimizer = both
        probe = watched(loop)
        for step in range(300):
            rows = loop.batch()
            loop.fit_critic(rows, loop.target_values(rows)[0])
            loop.critics.requires_grad_(not frozen)
            both.zero_grad()
            with probe(step):
                loop.actor_loss(rows).backward()
            both.step()
            loop.critics.requires_grad_(True)
            loop.follow()
        assert causes(probe) == (set() if frozen else {"actor's steps move the critic"})


def test_a_loop_computes_the_same_bits_and_is_free_afterwards():
    left = []
    for probed in (False, True):
        loop = Loop()
        random.seed(0), np.random.seed(0)
        probe = watched(loop) if probed else None
        loop.run(probe, 120)
        if probe is not None:
            probe.close()
        left.append([*loop.state(), torch.get_rng_state()])
        assert str(np.random.get_state()) and random.random() == 0.8444218515250481
    assert all(torch.equal(a, b) for a, b in zip(*left, strict=True))
    assert not module._global_forward_hooks
