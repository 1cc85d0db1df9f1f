"""Systems whose angles are points on a circle."""

import gymnasium
import numpy as np
import pytest
import torch

from gradlab import tasks
from gradlab.errors import InputError
from gradlab.systems.function import off_circle, on_circle, to_circle
from gradlab.systems.mujoco_pendulum import MujocoPendulum
from gradlab.systems.pendulum import Pendulum


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_points_on_the_circle_are_angles_within_a_turn():
    state = drawn(50, 3)
    there = to_circle(state, [1])
    torch.testing.assert_close(there[:, 1] ** 2 + there[:, 2] ** 2, torch.ones(50).double())
    back = off_circle(3 * there, [])[:, [0, 3]]
    torch.testing.assert_close(back, 3 * state[:, [0, 2]])
    turns = (off_circle(there, [1]) - state) / (2 * torch.pi)
    torch.testing.assert_close(turns, turns.round(), rtol=0, atol=1e-12)


def test_an_episode_of_the_pendulum_on_the_circle_is_gymnasiums_step_by_step():
    environment, task = gymnasium.make("Pendulum-v1"), tasks.pendulum(coordinates="circle")
    observation, _ = environment.reset(seed=3)
    state = torch.tensor(observation, dtype=torch.float64)[None]
    np.testing.assert_array_equal(environment.action_space.high, task.action_limit)
    torques = 2.5 * np.random.default_rng(0).uniform(-1, 1, 200)  # some beyond the limit
    for t, torque in enumerate(torques):
        observation, reward, terminated, truncated, _ = environment.step(np.array([torque]))
        after = task.simulator.step(state, torch.tensor([[torque]], dtype=torch.float64))
        np.testing.assert_allclose(after.state[0].numpy(), observation, atol=1e-4)
        assert float(after.reward) == pytest.approx(float(reward), abs=1e-3)
        assert not terminated and bool(after.alive) and truncated == (t == 199)
        state = after.state


def test_jacobians_are_differences_and_zero_along_the_radius():
    system = on_circle(Pendulum(), [0])
    state, action = to_circle(drawn(8, 2), [0]), 0.5 * drawn(8, 1)
    found, size = system.linearize(state, action), 1e-6
    for k in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[k] = size
        up, down = (system.step(state + sign * step, action) for sign in (1, -1))
        difference = (up.state - down.state) / (2 * size)
        torch.testing.assert_close(found.A[:, :, k], difference, rtol=1e-6, atol=1e-7)
    radial = torch.einsum("nij,nj->ni", found.A[:, :, :2], state[:, :2])
    torch.testing.assert_close(radial, torch.zeros_like(radial), rtol=0, atol=1e-12)


def test_the_cart_pole_keeps_its_energy_but_for_friction_and_earns_most_upright():
    task = tasks.cart_pole_swing_up()
    state = task.starts(4, torch.Generator().manual_seed(1))
    assert (state[:, 1] < -0.9).all()
    rest = torch.zeros(4, 1, dtype=torch.float64)
    before, moved = energy(state), state
    for _ in range(10):
        moved = task.simulator.step(moved, rest).state
        after = energy(moved)
        assert (after < before).all() and (after > before - 0.02).all()
        before = after
    hung = task.simulator.step(state[:1], rest[:1]).reward
    assert -0.85 < float(hung) < -0.65  # e^{-1.44} - 1 where it hangs at rest
    upright = to_circle(torch.zeros(1, 4, dtype=torch.float64), [1])
    assert float(task.simulator.step(upright, rest[:1]).reward) == 0


def energy(state):
    """Of cart and rod, 0.5 kg each, 0.6 m, in J."""
    _, cos, sin, v, w = state.unbind(dim=1)
    across, up = v + 0.3 * w * cos, -0.3 * w * sin
    kinetic = 0.25 * v**2 + 0.25 * (across**2 + up**2) + 0.5 * (0.5 * 0.36 / 12) * w**2
    return kinetic + 0.5 * 9.82 * 0.3 * cos


def test_angles_are_coordinates_of_a_differentiable_system():
    with pytest.raises(InputError, match=r"angles are \(2,\), expected coordinates from 0 to 1"):
        on_circle(Pendulum(), [2])
    with pytest.raises(InputError, match="system is not differentiable"):
        on_circle(MujocoPendulum("wide", "pre_step"), [1])
