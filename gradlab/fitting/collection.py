"""Recorded transitions of a task, the data of a model.

    a = clip(π(s, ε) + exploration · η),   η ~ N(0, I)          or, without a policy,
    a ~ U(−limit, limit),  N(0, exploration²) where the task has no limits   (DDPPO's random policy)

The record holds the clipped action, which the simulator applies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from gradlab import validation
from gradlab.data import trajectories
from gradlab.data.noise import child, stream
from gradlab.data.trajectories import Trajectories
from gradlab.errors import InputError
from gradlab.gradients.rollout import rollout
from gradlab.gradients.starts import Starts
from gradlab.networks.interface import act, check_policy, noise_dim
from gradlab.tasks import Task
from gradlab.user_code import differentiating


@final
class Exploring(nn.Module):
    """A policy with added Gaussian noise, clipped to ±limit.

    Args:
        std: [da], action units.
        limit: [da], or None.
    """

    def __init__(
        self, policy: nn.Module, std: Sequence[float], limit: Sequence[float] | None
    ) -> None:
        super().__init__()
        self.policy, self.std, self.limit = policy, tuple(std), limit
        self.inner = noise_dim(policy)
        self.noise_dim = self.inner + len(self.std)

    def forward(self, state: Tensor, noise: Tensor) -> Tensor:
        std = torch.tensor(self.std).to(state)
        action = act(self.policy, state, noise[:, : self.inner]) + std * noise[:, self.inner :]
        if self.limit is None:
            return action
        bound = torch.tensor(tuple(self.limit)).to(state)
        return action.clamp(-bound, bound)


@final
class _Uniform(nn.Module):
    """Actions uniform in ±limit [da], whatever the state: limit · (2 Φ(ε) − 1)."""

    def __init__(self, limit: Sequence[float]) -> None:
        super().__init__()
        self.limit, self.noise_dim = tuple(limit), len(limit)

    def forward(self, state: Tensor, noise: Tensor) -> Tensor:
        return torch.tensor(self.limit).to(state) * torch.erf(noise / math.sqrt(2))


@final
class Still(nn.Module):
    """The action 0 [da] everywhere."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, state: Tensor) -> Tensor:
        return state.new_zeros(len(state), self.width)


def exploring(task: Task, policy: nn.Module, std: Sequence[float] | None = None) -> nn.Module:
    """`policy` with noise added.

    Args:
        std: [da]; None: the task's, else a tenth of its limits, else 0.1.
    """
    width = task.simulator.action_dim
    if std is None:
        tenth = tuple(0.1 * limit for limit in task.action_limit or (1.0,) * width)
        std = task.exploration or tenth
    if len(std) != width or not all(0 <= limit < math.inf for limit in std):
        raise InputError(f"std is {list(std)}, expected {width} numbers from 0")
    return Exploring(policy, std, task.action_limit)


@differentiating
def collect(
    task: Task,
    rows: int,
    policy: nn.Module | None = None,
    *,
    length: int | None = None,
    seed: int = 0,
) -> Trajectories:
    """`rows` transitions of the task's simulator, float64, from its own starts.

    Args:
        policy: float64, for example `exploring(task, policy)`; None: uniform within the
            task's limits, Gaussian where it has none.
        length: steps of a trajectory, which ends earlier in a terminal state; None: twice the
            task's horizon.

    Raises:
        InputError: a count below one, a policy that does not fit the task or leaves the finite
            numbers.
    """
    validation.instance("task", task, Task, "a gradlab.Task")
    validation.whole("rows", rows, 1)
    validation.whole("seed", seed)
    length = max(2 * task.horizon, 1) if length is None else validation.whole("length", length, 1)
    if policy is None:
        width = task.simulator.action_dim
        policy = (
            _Uniform(task.action_limit)
            if task.action_limit is not None
            else Exploring(Still(width), task.exploration or (1.0,) * width, None)
        )
    parts: list[Trajectories] = []
    begun = 0
    while (missing := rows - sum(map(len, parts))) > 0:
        usual = sum(map(len, parts)) / begun if begun else length
        count = math.ceil(missing / usual)
        begin = task.starts(count, stream(seed, "record starts", len(parts)))
        check_policy(policy, begin, task.simulator.action_dim)
        starts = Starts(begin, torch.ones_like(begin[:, 0]), torch.arange(count))
        path = rollout(task.simulator, policy, starts, length, child(seed, f"record {len(parts)}"))
        if not torch.isfinite(path.states).all():
            raise InputError(
                "policy leaves the finite numbers: pass a stabler one, or lower length"
            )
        parts.append(trajectories.from_path(path, task.state_names, task.action_names))
        begun += count
    return trajectories.first(trajectories.joined(parts), rows)
