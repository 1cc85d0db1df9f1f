"""The quadrotor of `examples/`: its physics, its pillar, and a prior that is wrong."""

import pytest
import torch

from tests.integrations.bits import example

quadrotor = example("quadrotor")


def stepped(system, state, action):
    one = [torch.tensor([x], dtype=torch.float64) for x in (state, action)]
    out = system.step(*one)
    return out.state[0], float(out.reward)


def test_it_hovers_falls_and_turns():
    simulator, dt = quadrotor.make_task().simulator, quadrotor.DT
    home = [0.0] * 6
    state, reward = stepped(simulator, home, [0.0, 0.0])
    assert state.abs().max() < 1e-12 and reward == 0
    state, _ = stepped(simulator, home, [-1.0, -1.0])  # rotors off
    assert float(state[4]) == pytest.approx(-9.81 * dt)
    state, _ = stepped(simulator, home, [-0.1, 0.1])  # torque = arm · difference of thrusts
    torque = 0.2 * 0.2 * quadrotor.MASS * 9.81 / 2
    assert float(state[5]) == pytest.approx(torque / quadrotor.INERTIA * dt)
    assert float(state[4]) == pytest.approx(0, abs=1e-12)


def test_near_the_pillar_it_pays_and_no_derivative_sees_it():
    with_pillar = quadrotor.make_task_with_collision().simulator
    without = quadrotor.make_task().simulator
    inside, outside = [-1.0, 0.3, 0, 0, 0, 0], [-1.0, 0.6, 0, 0, 0, 0]
    for state, price in ((inside, 5.0), (outside, 0.0)):
        costs = [stepped(one, state, [0.0, 0.0])[1] for one in (without, with_pillar)]
        assert costs[0] - costs[1] == pytest.approx(price)
        row = torch.tensor([state], dtype=torch.float64)
        slopes = [one.linearize(row, row.new_zeros(1, 2)).r_s for one in (without, with_pillar)]
        torch.testing.assert_close(*slopes)


def test_the_prior_answers_less_to_the_rotors():
    task = quadrotor.make_task()
    rows = torch.zeros(1, 6, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)
    true, believed = (system.linearize(*rows).B[0] for system in (task.simulator, task.prior))
    torch.testing.assert_close(believed[4] * 1.25, true[4])
    torch.testing.assert_close(believed[5] * 1.3, true[5])
