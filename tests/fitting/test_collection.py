"""Transitions that gradlab records itself."""

import pytest
import torch

from gradlab.errors import InputError
from gradlab.fitting.collection import collect, exploring
from gradlab.networks.mlp import Policy
from gradlab.tasks import inverted_pendulum, linear_quadratic, pendulum


def same(one, other):
    return torch.equal(one.next_state, other.next_state) and torch.equal(one.action, other.action)


def test_rows_are_the_simulators_own_transitions():
    task = pendulum()
    record = collect(task, 130, length=40)
    assert len(record) == 130 and len(torch.unique(record.trajectory)) == 4
    again = task.simulator.step(record.state, record.action)
    assert torch.equal(again.state, record.next_state)
    assert torch.equal(again.reward, record.reward)


def test_random_actions_fill_the_limits_evenly_and_a_seed_repeats_them():
    action = collect(pendulum(), 4000).action
    assert action.abs().max() <= 2
    assert abs(float(action.std()) - 2 / 3**0.5) < 0.03
    task = pendulum()
    assert same(collect(task, 50, seed=3), collect(task, 50, seed=3))
    assert not same(collect(task, 50, seed=3), collect(task, 50, seed=4))


def test_trajectories_end_where_the_task_does_and_share_no_start_or_noise():
    task = inverted_pendulum(engine="analytic", slider="wide")
    record = collect(task, 300)
    assert record.terminated.any()
    assert torch.equal(record.terminated, record.next_state[:, 1].abs() > 0.2)
    record = collect(inverted_pendulum(engine="analytic", slider="wide"), 500, length=20)
    first = record.step == 0
    count = int(first.sum())
    assert count > 20
    for values in (record.state[first], record.action[first]):
        assert len(torch.unique(values, dim=0)) == count


def test_explored_actions_are_recorded_as_applied():
    task = pendulum()
    policy = exploring(task, Policy(2, 1, hidden=()).double(), std=(5.0,))
    assert collect(task, 200, policy).action.abs().max() == 2


def test_what_cannot_be_recorded_is_refused():
    task = linear_quadratic([[9.0]], [[1.0]], [[1.0]], [[1.0]])
    with pytest.raises(InputError, match="leaves the finite numbers"):
        collect(task, 500, length=400)
    with pytest.raises(InputError, match="expected an integer ≥ 1"):
        collect(task, 0)
    with pytest.raises(InputError, match="std is"):
        exploring(task, Policy(1, 1), std=(1.0, 2.0))
