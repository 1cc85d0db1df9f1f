"""Terminal sets that learned models take over, against Gymnasium's own answer at their borders."""

import gymnasium
import numpy as np
import pytest
import torch

from gradlab.tasks.environments import mujoco
from tests.systems.mujoco_states import SYSTEMS, visited

AT_ONCE = ("Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5")  # that answer for a set state


def near(edge, generator, n):
    """On both sides of an edge, on it, and a digit beside it."""
    away = 0.1 * torch.randn(n, generator=generator, dtype=torch.float64)
    beside = [np.nextafter(edge, -np.inf), edge, np.nextafter(edge, np.inf)]
    scale = torch.logspace(0, -12, n, dtype=torch.float64)
    return torch.cat([edge + away * scale, torch.tensor(beside, dtype=torch.float64)])


def at_borders(env_id, per_edge=100):
    """Visited states, one coordinate at a time moved to an edge of the healthy ranges."""
    system, generator, parts = SYSTEMS[env_id], torch.Generator().manual_seed(1), []
    for interval in system.environment.healthy:
        columns = {interval.first, system.state_dim + system.chart.root - 1}
        if interval.last is not None and interval.last - interval.first == 1:
            columns = {interval.first}
        for column in columns:
            for edge in (interval.low, interval.high):
                if np.isfinite(edge):
                    values = near(edge, generator, per_edge)
                    state = visited(env_id, len(values))[0]
                    state[:, column - system.chart.root] = values
                    parts.append(state)
    return torch.cat(parts)


@pytest.mark.parametrize("env_id", AT_ONCE)
def test_a_learned_model_ends_where_gymnasium_does(env_id):
    environment, system, task = gymnasium.make(env_id).unwrapped, SYSTEMS[env_id], mujoco(env_id)
    state = at_borders(env_id)
    environment.reset(seed=0)
    healthy, nq = [], system.chart.nq
    for row in system.chart.physical(state.numpy()):
        # Not `set_state`, whose forward pass takes most of the time and moves nothing.
        environment.data.qpos[:], environment.data.qvel[:] = row[:nq], row[nq:]
        healthy.append(bool(environment.is_healthy))
    alive = task.alive(state)
    assert len(state) > 200 and 0.2 < alive.double().mean() < 0.8
    assert alive.tolist() == healthy


def test_it_never_ends_where_the_task_is_told_so():
    task = mujoco("Hopper-v5", terminate_when_unhealthy=False)
    assert task.alive(at_borders("Hopper-v5", 10)).all()
    assert not task.alive(torch.full((1, 11), torch.nan, dtype=torch.float64)).any()
    cheetah = mujoco("HalfCheetah-v5")
    assert cheetah.alive(visited("HalfCheetah-v5", 20)[0]).all()
    assert not cheetah.alive(torch.full((1, 17), torch.nan, dtype=torch.float64)).any()
