"""Records of a pushed cart, whose gradients are closed forms, and the policies that made them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gradlab import systems, tasks
from gradlab.data.record_files import COLUMNS
from gradlab.data.trajectories import Trajectories, stream
from gradlab.gradients.rollout import record
from gradlab.networks.mlp import Policy
from gradlab.networks.policies import Gaussian
from gradlab.systems.system import System
from gradlab.tasks import Task
from tests.linear_quadratic import lqr_gradient

WEIGHT, STD = (-1.0, -1.2), 0.3


def task(push: float = 1.0) -> Task:
    """The double integrator; its prior pushes by `push` of what the simulator does."""
    return tasks.double_integrator(prior_push=push)


def linear() -> Policy:
    policy = Policy(2, 1, (), bias=False).double()
    with torch.no_grad():
        policy.network[0].weight.copy_(torch.tensor([WEIGHT], dtype=torch.float64))
    return policy


def noisy(std: float = STD) -> Gaussian:
    return Gaussian(linear(), std)


def recorded(
    count: int = 200, steps: int = 12, seed: int = 0, policy: nn.Module | None = None
) -> Trajectories:
    world = task()
    starts = world.starts(count, stream(seed, "test starts"))
    return record(world.simulator, noisy() if policy is None else policy, starts, steps, seed)


def true_gradient(horizon: int) -> Tensor:
    """∇ E Σ_{t<n} γᵗ r of the noisy policy in W, [2]; starts are standard normal."""
    one = torch.eye(2, dtype=torch.float64)
    noise = torch.full((1, 1), STD**2, dtype=torch.float64)
    weight = torch.tensor([WEIGHT], dtype=torch.float64)
    world = task()
    return lqr_gradient(world.simulator, weight, one, world.discount, "all", horizon, noise)


def falling() -> System:
    """One coordinate, moved by the action; alive below 1; the reward is the state."""

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        return s + a, s[:, 0]

    return systems.from_function(step, 1, 1, alive=lambda s: s[:, 0] < 1)


def fallen(count: int = 40, steps: int = 6, seed: int = 0) -> tuple[Trajectories, Gaussian]:
    """Trajectories of a noisy drift, of which some fall early."""
    body = nn.Linear(1, 1).double()
    nn.init.constant_(body.weight, -0.2)
    nn.init.constant_(body.bias, 0.2)
    policy = Gaussian(body, 0.3)
    starts = torch.rand(count, 1, generator=stream(seed, "fall"), dtype=torch.float64) * 0.8
    return record(falling(), policy, starts, steps, seed), policy


def arrays(path: Path, **changed: np.ndarray) -> Path:
    """Columns of a small record."""
    data = recorded(60, 12)
    columns = {name: getattr(data, name).numpy() for name in COLUMNS if name != "episode"}
    np.savez(path, **columns | {"episode": data.trajectory.numpy()} | changed)
    return path
