"""Realised gains of a whole measurement: of which cells, and when there are none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gradlab import measure, tasks
from gradlab.errors import InputError
from gradlab.gradients.setting import Setting, as_starts
from gradlab.measurement.update import Update
from gradlab.runs.realised import TRUE_CELL
from gradlab.systems import from_function
from gradlab.truth.lqr import ExactCritic
from gradlab.truth.oracles import unroll_all_actions


class NegativeCost(nn.Module):
    def forward(self, state, action):
        return -(state[:, 0] ** 2) - action[:, 0] ** 2


EYE = torch.eye(2, dtype=torch.float64)


def policy_of(*weight: float) -> nn.Linear:
    policy = nn.Linear(2, 1, bias=False).double()
    policy.weight.data = torch.tensor([weight], dtype=torch.float64)
    return policy


def measured(task=None, policy=None, **changed):
    task = tasks.double_integrator() if task is None else task
    policy = policy_of(-2.0, -2.0) if policy is None else policy
    critic = changed.pop("critic", None)
    if critic is None:
        critic = ExactCritic(task.simulator, policy.weight.detach(), task.discount)
    given = {"horizon": 3, "starts": 64, "rehearse": False} | changed
    return measure(task, policy, critic, **given)


@pytest.fixture(scope="module")
def profile():
    return measured()


def test_exact_estimators_gain_what_is_possible_and_first_order_agrees(profile):
    found = profile.realised
    assert found is not None and found.cells[0] == TRUE_CELL and found.best_is_known
    assert found.horizon == profile.truth["horizon"] and found.termination == "ignore"
    assert ("data", 0) in found.cells and found.judges == 64
    assert found.moves == pytest.approx((0.01, 0.04, 0.12)) and found.at == 1
    for cell in found.stepped:
        share, ends = found.share(cell)
        assert share > 0.9 and ends.high > 0.95 and found.helps(cell)
    # The return bends within an update: a report, no contradiction.
    assert {each.reason for each in found.disagreements(profile.table())} <= {"step"}
    assert (found.kept > 0.8).all() and (found.kept <= 1).all()


def test_a_critic_that_points_backwards_is_seen_to_harm():
    class Backwards(nn.Module):
        def __init__(self, critic):
            super().__init__()
            self.critic = critic

        def forward(self, state, action):
            return -self.critic(state, action)

    task, policy = tasks.double_integrator(), policy_of(-2.0, -2.0)
    critic = Backwards(ExactCritic(task.simulator, policy.weight.detach(), task.discount))
    short = Update("sgd", 1e-3)  # along which the return is a line
    profile = measured(critic=critic, judges=32, update=short)
    found = profile.realised
    assert found.judges == 32 and found.harms(("data", 0)) and found.moves[1] < 1e-3
    assert found.share(("data", 0))[0] == pytest.approx(-1, abs=0.05)
    assert found.disagreements(profile.table()) == ()
    asked = profile.config["update"]
    assert (asked["optimizer"], asked["rate"], asked["assumed"]) == ("sgd", 1e-3, False)
    assert asked["move"] == pytest.approx(found.moves[1])


def test_a_rate_that_moves_actions_by_more_than_they_are_is_refused():
    with pytest.raises(InputError, match=r"moves the actions by .* try lr"):
        measured(starts=16, update=Update("adam", 10.0))
    with pytest.raises(InputError, match="update"):
        measured(starts=16, update=1e-3)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_rate_that_is_too_long_by_far_is_refused_before_a_truth_is_made(optimizer, monkeypatch):
    """The double integrator's first actions are −K s: Adam's first step moves them by ±rate·s."""
    made = []
    monkeypatch.setattr(
        "gradlab.measurement.measure.matched_truth", lambda *_, **__: made.append("truth")
    )
    with pytest.raises(InputError, match=r"lr is 50: the first step of .* try lr ") as refused:
        measured(starts=16, update=Update(optimizer, 50.0))
    assert not made
    if optimizer == "adam":
        s = tasks.double_integrator().starts(2000, torch.Generator().manual_seed(5))
        both = [(s @ torch.tensor([a, b]).double()).norm() for a in (1, -1) for b in (1, -1)]
        sizes = [50 * float(each / (s @ torch.tensor([2.0, 2.0]).double()).norm()) for each in both]
        told = float(str(refused.value).split("actions by ")[1].split("%")[0]) / 100
        assert min(sizes) * 0.5 < told < max(sizes) * 2


def test_a_rate_that_is_advised_is_taken():
    with pytest.raises(InputError) as refused:
        measured(starts=16, update=Update("adam", 10.0))
    advised = float(str(refused.value).rsplit("try lr ", 1)[1])
    profile = measured(starts=16, update=Update("adam", advised))
    assert 0.3 < profile.config["update"]["move"] <= 1


def test_between_once_and_twice_the_truth_decides():
    """What few starts say is not the truth's: it may not refuse what that would take."""
    task = tasks.double_integrator()
    starts = as_starts(task.starts(16, torch.Generator().manual_seed(0)), 2)
    setting = Setting(task.simulator, policy_of(-2.0, -2.0), starts, 0.9, 3)
    G = unroll_all_actions(setting).mean(dim=0)
    once = 1e-3 / Update("adam", 1e-3).move(setting, G)
    Update("adam", 1.9 * once).check(setting)
    with pytest.raises(InputError, match="moves the actions by 210%"):
        Update("adam", 2.1 * once).check(setting)
    with pytest.raises(InputError, match="moves the actions by 190%"):
        Update("adam", 1.9 * once).move(setting, G)


@pytest.mark.slow
def test_a_seed_repeats_every_gain_bit_for_bit(profile):
    again = measured().realised
    assert np.array_equal(again.gain, profile.realised.gain, equal_nan=True)
    assert not np.array_equal(measured(seed=1).realised.gain[0], again.gain[0])


def test_given_starts_and_matched_truths_have_no_realised_gains():
    states = tasks.double_integrator().starts(16, torch.Generator().manual_seed(0))
    assert measured(starts=states).realised is None
    assert measured(starts=states, truth="objective").realised is None
    assert measured(starts=16, law="start").realised is None


def test_without_a_truth_gains_are_compared_in_units_of_the_return():
    """An unstable loop: its gradient grows faster than the discount."""
    task = tasks.linear_quadratic(
        1.3 * EYE, EYE[:, :1], EYE, EYE[:1, :1], 0.01 * EYE, torch.zeros(2), EYE, 0.9
    )
    policy = policy_of(-0.1, 0.0)
    critic = nn.Linear(3, 1).double()

    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = critic

        def forward(self, state, action):
            return self.net(torch.cat([state, action], dim=1))[:, 0]

    profile = measured(task, policy, critic=Critic(), starts=32)
    found = profile.realised
    assert not profile.truth["admissible"] and found is not None
    assert TRUE_CELL not in found.cells and not found.best_is_known
    assert found.horizon in (44, 22)  # γᵀ is 1%, or 10% where the budget is small
    assert found.disagreements(profile.table()) == () and found.best() in found.not_excluded()


def test_too_few_judges_are_refused():
    for judges in (3, 2.5):
        with pytest.raises(InputError, match="judges"):
            measured(judges=judges)


def test_of_a_cut_truth_the_norm_is_that_of_all_starts_as_the_direction_is():
    """The truth's own norm is that of the half of them which did not choose the cut."""
    drawn = []

    def starts(n, generator):
        drawn.append(1 + 0.15 * torch.randn(n, 2, generator=generator, dtype=torch.float64))
        return drawn[-1]

    def step(state, action):  # each start grows at a rate of its own
        x, z = state[:, :1], state[:, 1:]
        return torch.cat([1.1 * z * x + 0.5 * action, z], 1), -(x**2 + action**2)[:, 0]

    task = tasks.Task("growing", from_function(step, 2, 1), None, starts, 0.9, 3)
    found = measured(
        task, policy_of(-0.2, 0.0), critic=NegativeCost(), horizon=2, strata=False, judges=8
    )
    assert found.truth["status"] == "cut"
    x, z = next(each for each in drawn if len(each) == 64).T  # the judging ones come later
    w = torch.tensor([[-0.2], [0.0]]).double().repeat(1, 64).requires_grad_()
    returns = 0.0
    for t in range(found.truth["horizon"]):
        a = w[0] * x + w[1] * z
        returns = returns - 0.9**t * (x**2 + a**2).sum()
        x = 1.1 * z * x + 0.5 * a
    (g,) = torch.autograd.grad(returns, w)
    mean, variance = g.mean(dim=1).square().sum(), g.var(dim=1).sum() / 64
    norm = float((mean - variance).sqrt())
    assert found.realised.norm == pytest.approx(norm, rel=1e-3)
    assert found.realised.kept[0] == pytest.approx(norm / float(mean.sqrt()), rel=1e-3)
    assert found.truth["norm"] != pytest.approx(norm, rel=1e-2)
