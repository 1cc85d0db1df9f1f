"""Systems whose angles are points on a circle."""

import gymnasium
import numpy as np
import pytest
import torch

from gradlab import tasks
from gradlab.errors import InputError
from gradlab.systems.circle import off_circle, on_circle, to_circle
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


def test_the_pendulum_on_the_circle_is_what_gymnasium_shows():
    environment = gymnasium.make("Pendulum-v1")
    observation, _ = environment.reset(seed=3)
    simulator = tasks.pendulum(coordinates="circle").simulator
    state = torch.tensor(observation, dtype=torch.float64)[None]
    for torque in (0.5, -1.5, 2.0, 0.1):
        observation, reward, *_ = environment.step(np.array([torque]))
        after = simulator.step(state, torch.tensor([[torque]], dtype=torch.float64))
        np.testing.assert_allclose(after.state[0].numpy(), observation, atol=1e-5)
        assert float(after.reward) == pytest.approx(float(reward), abs=1e-4)
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


def test_the_cart_pole_swings_as_mujoco_does_and_earns_most_upright():
    task = tasks.cart_pole_swing_up()
    hanging = task.starts(4, torch.Generator().manual_seed(1))
    assert (hanging[:, 1] < -0.9).all()
    action = 0.3 * drawn(4, 1)
    near = torch.tensor([[0.1, 0.05, -0.2, 0.3]], dtype=torch.float64).expand(4, -1)
    ours = task.simulator.step(to_circle(near, [1]), action).state
    theirs = MujocoPendulum("wide", "pre_step").step(near, action).state
    torch.testing.assert_close(ours, to_circle(theirs, [1]), rtol=1e-9, atol=1e-9)
    upright = to_circle(torch.zeros(1, 4, dtype=torch.float64), [1])
    rest = torch.zeros(1, 1, dtype=torch.float64)
    assert float(task.simulator.step(upright, rest).reward) == 0
    assert float(task.simulator.step(hanging[:1], rest).reward) < -1.5


def test_angles_are_coordinates_of_a_differentiable_system():
    with pytest.raises(InputError, match=r"angles are \(2,\), expected coordinates from 0 to 1"):
        on_circle(Pendulum(), [2])
    with pytest.raises(InputError, match="system is not differentiable"):
        on_circle(MujocoPendulum("wide", "pre_step"), [1])
