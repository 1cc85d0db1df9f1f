"""The actor's own steps against its objective: the wrong sign is told, a sound loop is not."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from gradlab.probe.parts import objectives
from gradlab.probe.policy_calls import Hook
from tests.probe.actor_critics import Loop, Soft, answers, watched
from tests.probe.small_loops import looped, probed

CHECK = "actor's steps raise their objective"


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Loop, Soft])
@pytest.mark.parametrize("fault", ["", "sign of the actor's loss"])
def test_a_wrong_sign_is_told_in_two_lines(kind, fault):
    loop, rows = kind(fault), []
    probe = watched(loop, log=rows.append)
    loop.run(probe, 290)
    probe.close()
    found = answers(rows)[CHECK]
    assert found["state"] == ("fault" if fault else "sound")
    assert found["value"] <= 0.16 if fault else found["value"] >= 0.6
    told = [each.message for each in probe.alarms if each.kind == objectives.DESCENT]
    assert bool(told) == bool(fault)
    assert all(each.endswith("is the sign of its loss right?") for each in told)


def heard(loop: Soft) -> objectives.ActorObjective:
    check = objectives.ActorObjective(loop.policy)
    loop.policy.register_forward_hook(Hook(check.hear_policy, print))
    for critic in loop.critics:
        critic.register_forward_hook(Hook(check.hear_critic, print))
    check.on = True
    return check


def test_a_rise_is_that_of_the_objective_itself():
    """Against the loop's own formula, at the noise that was drawn and at its own temperature."""
    loop = Soft(rate=0.01)
    check, rows = heard(loop), loop.batch()
    state = torch.get_rng_state()
    loss = loop.actor_loss(rows)
    loss.backward()
    made = check.made
    assert made is not None
    critics = [(copy.deepcopy(module), args) for module, args in made.values]
    old = objectives._action(made, loop.policy)
    assert isinstance(old, objectives.Action)
    *weights, left = objectives._weights(made, old, critics) or (0.0, 0.0, 1.0)
    assert weights == [pytest.approx(-1, rel=1e-3), pytest.approx(loop.ALPHA, rel=1e-3)]
    assert left < 1e-5
    loop.actor_optimizer.step()
    check.on = False
    new = old.again(made.again(objectives.Twin(loop.policy).parts))
    torch.set_rng_state(state)
    fall = float((loss - loop.actor_loss(rows)).detach())
    assert objectives._rise(critics, old, new, loop.ALPHA) == pytest.approx(fall, rel=2e-2)


@pytest.mark.parametrize("looks, fault", [("0" * 14, True), ("0" * 13, False), ("110" * 80, False),
                                          ("0001" * 40, True), ("01" * 200, False)])  # fmt: skip
def test_a_wrong_sign_is_decided_by_the_odds_of_the_newest_looks(looks, fault):
    check = objectives.ActorObjective(nn.Linear(1, 1))
    told = []
    for each in looks:
        check._looks += 1
        check._count(each == "1")
        told.append(check.answer().state == "fault")
    assert any(told) == fault
    # a fall adds log(.84 / .40) = .74, a rise takes log(.60 / .16) = 1.32 away, down to 0
    if fault:
        assert told.index(True) == (13 if "1" not in looks else 38)


def test_noise_is_known_where_most_of_it_is_lost_in_a_flat_tanh():
    """Three in four actions of σ = 12 are at a limit; what is no noise is told from it."""
    torch.manual_seed(0)
    mean, log_std = torch.randn(64, 2), torch.full((64, 2), 2.5)
    squash, drawn = objectives._Squash(torch.ones(2)), torch.randn(64, 2)
    for noise, known in ((drawn, True), (0.2 * drawn, False)):
        action = torch.tanh(mean + log_std.exp() * noise)
        found = objectives._noise(mean, log_std, action, squash)
        assert (found is not None) == known
        if found is not None:
            inner = action.abs() < 0.99
            assert torch.allclose(found[inner], noise[inner], atol=1e-4)


def test_a_wrong_sign_that_is_read_from_the_loss_is_told_at_the_second_fit():
    check = objectives.ActorObjective(nn.Linear(1, 1))
    states = []
    for look in range(8):
        check._looks += 1
        check._count(False, exact=look % objectives.REFIT == 0)
        states.append(check.answer().state)
    assert states == ["waiting"] * 7 + ["fault"]


def test_an_entropy_of_the_wrong_sign_is_no_rise():
    loop = Soft()
    loop.ALPHA = -0.2
    check = heard(loop)
    loop.actor_loss(loop.batch()).backward()
    loop.actor_optimizer.step()
    check.after()
    assert list(check._rises) == [False]


@pytest.mark.parametrize("alpha", [50.0, -50.0])
@pytest.mark.parametrize("corrected", [True, False])
def test_where_the_entropy_outweighs_q_its_sign_and_density_are_told(alpha, corrected):
    loop = Soft("" if corrected else "no correction of the tanh")
    loop.ALPHA = alpha
    check = heard(loop)
    for _ in range(3 * objectives.REFIT):
        loop.actor_loss(loop.batch()).backward()
        loop.actor_optimizer.step()
        check.after()
        loop.actor_optimizer.zero_grad()
    assert not any(check._rises) and bool(check._rises) == (alpha < 0)
    assert alpha < 0 or "outweighs" in check.answer().proof
    assert check.density.answer().state == ("sound" if corrected else "fault")


def test_a_loop_without_a_critic_or_targets_says_what_it_does_not_hand_over():
    policy, rows = nn.Linear(2, 1), []
    optimizer = torch.optim.Adam(policy.parameters())
    probe = probed(policy, optimizer, rows)
    looped(policy, optimizer, probe, 30)
    probe.close()
    for check, words in ((CHECK, "critic=…"), ("targets follow", "critic=…, target=…")):
        found = answers(rows)[check]
        assert found["state"] == "off" and f"probe.networks({words})" in found["proof"]
    assert not policy._forward_hooks


def test_a_check_that_fails_is_off_and_the_others_go_on(monkeypatch):
    def broken(*_: object) -> None:
        raise ValueError("planted")

    monkeypatch.setattr(objectives.ActorObjective, "after", broken)
    loop, rows = Loop(), []
    probe = watched(loop, log=rows.append)
    loop.run(probe, 150)
    probe.close()
    found = answers(rows)
    assert found[CHECK]["state"] == "off" and "ValueError: planted" in found[CHECK]["proof"]
    assert found["targets follow"]["state"] == "sound"


@pytest.mark.parametrize("fault", ["", "no correction of the tanh"])
def test_a_density_without_its_correction_is_told(fault):
    loop, rows = Soft(fault), []
    probe = watched(loop, log=rows.append)
    loop.run(probe, 150)
    probe.close()
    found = answers(rows)["log π is that of the squashed action"]
    assert found["state"] == ("fault" if fault else "sound") and found["value"] == bool(fault)
    told = [each for each in probe.alarms if each.kind == objectives.DENSITY]
    assert bool(told) == bool(fault) and all("log(1 − tanh²)" in each.message for each in told)
