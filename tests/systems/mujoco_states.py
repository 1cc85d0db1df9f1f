"""States that MuJoCo environments visit, and their limits."""

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
