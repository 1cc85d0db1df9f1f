"""Gymnasium's Pendulum-v1, from another program: the states, the rewards and the clips."""

import math

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from gradlab.systems import Pendulum
from gradlab.systems.pendulum import STENCIL
from gradlab.tasks import pendulum, task_from_name


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_every_step_is_gymnasiums():
    """1,000 states around the whole circle and beyond, on both sides of every clip."""
    env = gymnasium.make("Pendulum-v1").unwrapped
    env.reset(seed=0)
    draw = np.random.default_rng(0)
    states = draw.uniform([-10, -9], [10, 9], (1000, 2))
    actions = draw.uniform(-3, 3, (1000, 1))
    after, rewards = [], []
    for state, action in zip(states, actions, strict=True):
        env.state = state  # type: ignore[attr-defined]
        rewards.append(env.step(action)[1])
        after.append(env.state)  # type: ignore[attr-defined]
    got = Pendulum().step(torch.from_numpy(states), torch.from_numpy(actions))
    exact = dict(rtol=1e-15, atol=1e-15)
    torch.testing.assert_close(got.state, torch.tensor(np.array(after)), **exact)
    torch.testing.assert_close(got.reward, torch.tensor(np.array(rewards)).double(), **exact)
    assert (got.state[:, 1].abs() == 8).sum() > 20
    assert got.alive.all()


def test_points_on_the_velocity_clip_are_flagged_and_lose_their_derivative():
    system, quiet = Pendulum(), row(0.0)
    near = STENCIL / 2
    for spin, flagged, slope in ((7.9, False, 1.0), (8 - near, True, 1.0), (8.1, True, 0.0)):
        for sign in (1, -1):
            got = system.linearize(row(0.0, sign * spin), quiet)
            assert bool(got.certificate.flags) is flagged
            assert got.A[0, 1, 1] == slope
            assert got.A[0, 0].tolist() == pytest.approx([1 + 0.05 * 0.75 * slope, 0.05 * slope])
            assert got.B.any() == (slope > 0)
    # The clip comes after gravity and motor: it is the new velocity that meets it.
    assert system.linearize(row(math.pi / 2, 7.5), quiet).certificate.flags


def test_the_motor_is_clipped_with_the_inner_derivative_at_its_limit():
    system, state = Pendulum(), row(0.3, 0.1)
    assert torch.equal(system.step(state, row(5.0)).state, system.step(state, row(2.0)).state)
    assert system.step(state, row(5.0)).reward == system.step(state, row(2.0)).reward
    at, beyond = system.linearize(state, row(2.0)), system.linearize(state, row(2.1))
    assert at.B.tolist() == [[[pytest.approx(0.0075)], [pytest.approx(0.15)]]]
    assert not beyond.B.any() and not beyond.r_a.any() and at.r_a.item() == pytest.approx(-0.004)


def test_states_a_turn_apart_have_the_same_reward_and_jacobians():
    system, turn = Pendulum(), row(2 * math.pi, 0.0)
    state, action = row(2.9, -0.7), row(0.4)
    here, there = system.linearize(state, action), system.linearize(state + turn, action)
    for block in ("A", "B", "r_s", "r_a"):
        torch.testing.assert_close(getattr(there, block), getattr(here, block))
    moved = system.step(state + turn, action)
    torch.testing.assert_close(moved.reward, system.step(state, action).reward)
    torch.testing.assert_close(moved.state - turn, system.step(state, action).state)


def test_a_heavier_or_longer_rod_is_the_prior_where_asked_for():
    assert pendulum().prior is None
    assert pendulum(prior_mass=1.5).prior == Pendulum(mass=1.5)
    assert pendulum(prior_length=0.8).prior == Pendulum(length=0.8)
    # Twice the mass: the same fall, half the push.
    pushed = [Pendulum(mass).linearize(row(0.2, 0.1), row(1.0)).B[0, 1, 0] for mass in (1.0, 2.0)]
    assert pushed[0] == pytest.approx(2 * pushed[1])
    again = task_from_name("pendulum", {"prior_mass": 1.5, "prior_length": None})
    assert again.prior == Pendulum(mass=1.5) and again.parameters["prior_mass"] == 1.5


def test_starts_follow_gymnasiums_law():
    starts = pendulum().starts(100_000, torch.Generator().manual_seed(0))
    bound = torch.tensor([math.pi, 1.0], dtype=torch.float64)
    assert (starts.abs() <= bound).all()
    torch.testing.assert_close(starts.std(0), bound / 3**0.5, rtol=0.02, atol=0)
