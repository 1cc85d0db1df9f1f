"""Gymnasium's own steps, one state at a time, and states at which they are smooth."""

import gymnasium
import numpy as np
from torch import Tensor

from tests.systems.mujoco_states import SYSTEMS, visited


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
