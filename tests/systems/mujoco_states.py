"""States that MuJoCo environments visit, and their limits.

Gymnasium's own steps, one state at a time, and states at which they are smooth.
"""

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from gradlab.systems.mujoco import ENVIRONMENTS, MujocoEnvironment

SYSTEMS = {env_id: MujocoEnvironment(row) for env_id, row in ENVIRONMENTS.items()}
every = pytest.mark.parametrize("env_id", ENVIRONMENTS)


def limits(system: MujocoEnvironment) -> np.ndarray:
    return system.physics.control_range[1]


def visited(env_id: str, n: int, seed: int = 0, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """States that random actions lead to within 40 steps, and more random actions."""
    system, generator = SYSTEMS[env_id], torch.Generator().manual_seed(seed)
    high = torch.from_numpy(limits(system))
    rows = -(-n // 10)
    state, found = system.sample_starts(rows, generator), []

    def act(rows: int) -> Tensor:
        uniform = torch.rand(rows, len(high), generator=generator, dtype=torch.float64)
        return high * (2 * uniform - 1)

    for _ in range(10):
        found.append(state)
        for _ in range(4):
            state = system.step(state, act(rows)).state
    return torch.cat(found)[:n], scale * act(n)


class Gymnasium:
    """One environment, set to any state before a step; `sharp`: its solver goes on to 1e-12."""

    def __init__(self, env_id: str, sharp: bool = True) -> None:
        self.environment = gymnasium.make(env_id).unwrapped
        self.chart = SYSTEMS[env_id].chart
        if sharp:
            self.environment.model.opt.tolerance = 1e-12

    def step(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        """(s', r)."""
        environment, chart = self.environment, self.chart
        x = chart.physical(state[None])[0]
        environment.reset(seed=0)
        environment.set_state(x[: chart.nq], x[chart.nq :])
        reward = environment.step(action)[1]
        after = [environment.data.qpos[chart.root :], environment.data.qvel, [reward]]
        return np.concatenate(after)


def smooth(env_id: str, n: int) -> tuple[Tensor, Tensor]:
    """Visited states without a flag, actions inside their limits."""
    state, action = visited(env_id, 10 * n, scale=0.9)
    state, action = state[n::9], action[n::9]
    free = ~SYSTEMS[env_id].linearize(state, action).certificate.flags
    return state[free][:n], action[free][:n]
