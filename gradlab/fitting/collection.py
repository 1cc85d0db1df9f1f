"""Recorded transitions of a task, the data of a model.

    a = clip(π(s, ε) + exploration · η),   η ~ N(0, I)          or, without a policy,
    a ~ U(−limit, limit),  N(0, exploration²) where the task has no limits   (DDPPO's random policy)

The record holds the clipped action, which the simulator applies.

Does a simulator make the transitions of a record that was given? Some rows of it are stepped again.

    d = recorded − simulated    of next states, rewards and terminations, from the recorded (s, a)

A row agrees where |d| is at most 1e-5 of the column's largest value, or three times what rounding s
and a changes, in the record's precision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isnan, nan
from typing import final

import torch
from torch import Tensor, nn

from gradlab import validation
from gradlab.data import trajectories
from gradlab.data.trajectories import ROUNDING, Trajectories, child, stream
from gradlab.errors import InputError
from gradlab.findings import Decision
from gradlab.gradients.rollout import rollout
from gradlab.gradients.setting import Starts
from gradlab.networks.interface import act, check_policy, noise_dim
from gradlab.systems.system import machine_epsilon, step_running
from gradlab.tasks import Task
from gradlab.user_code import differentiating


@final
class _Exploring(nn.Module):
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
    return _Exploring(policy, std, task.action_limit)


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
            else _Exploring(Still(width), task.exploration or (1.0,) * width, None)
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


ROWS = 300
_ROUNDINGS = 3.0
_LEAST = 1e-12  # to which numbers around 1 cancel
_QUANTITIES = ("next states", "rewards", "terminations")


@dataclass(frozen=True)
class Difference:
    """Of one quantity between record and simulator.

    Attributes:
        largest: |d|; rows: in which it exceeds rounding.
    """

    quantity: str
    largest: float
    rows: int

    def __str__(self) -> str:
        number = "" if self.quantity == _QUANTITIES[-1] else f"{self.largest:.2g}"
        if not self.rows:
            return f"{self.quantity} agree" + (f" ({number})" if number else "")
        by = f" by up to {number}" if number else ""
        return f"{self.quantity} differ{by} in {self.rows} rows"


@dataclass(frozen=True)
class Agreement:
    """Of a record with a simulator.

    Attributes:
        rows: stepped, of `total`.
        noise: largest |ξ| that was inferred from the transitions, 0 where the simulator has none,
            NaN where it cannot be inferred, and mean transitions are compared.
    """

    differences: tuple[Difference, ...]
    rows: int
    total: int
    noise: float

    @property
    def decision(self) -> Decision:
        """Do they agree to rounding? Undecided where they differ and noise may be the reason."""
        if not any(each.rows for each in self.differences):
            return "pass"
        return "undecided" if isnan(self.noise) else "fail"

    def __str__(self) -> str:
        noise = f" with the noise that explains them, up to {self.noise:.2g} deviations"
        if isnan(self.noise):
            noise = " without its noise, which cannot be inferred"
        stepped = f"{self.rows} of {self.total:,} recorded rows, stepped by the simulator"
        stepped += noise if self.noise != 0 else ""
        return f"{stepped}: {'; '.join(map(str, self.differences))}."


def agreement(task: Task, record: Trajectories) -> Agreement:
    """The record beside the task's simulator at up to 300 rows, the same ones every time.

    Raises:
        InputError: the simulator refuses the rows.
    """
    system, random = task.simulator, stream(0, "agreement")
    rows = torch.randperm(len(record), generator=random)[:ROWS]
    s, a = record.state[rows].double(), record.action[rows].double()
    after, reward = record.next_state[rows].double(), record.reward[rows, None].double()
    infer = getattr(system, "infer_noise", None) if system.noise_dim else None
    with torch.no_grad():
        noise = None if infer is None else infer(s, a, after)
        simulated = _stepped(task, s, a, noise)
        rounded = _stepped(task, _rounded(s, random), _rounded(a, random), noise)
    recorded = after, reward, record.terminated[rows, None].double()
    found = [
        _difference(quantity, old, new, moved)
        for quantity, old, new, moved in zip(_QUANTITIES, recorded, simulated, rounded, strict=True)
    ]
    unknown = nan if system.noise_dim else 0.0
    largest = unknown if noise is None else float(noise.abs().max())
    return Agreement(tuple(found), len(rows), len(record), largest)


def _stepped(task: Task, s: Tensor, a: Tensor, noise: Tensor | None) -> tuple[Tensor, ...]:
    """Next states [n, ds], rewards and terminations [n, 1]."""
    out = step_running(task.simulator, s, a, noise)
    return out.state, out.reward[:, None], (~out.alive)[:, None].double()


def _rounded(values: Tensor, random: torch.Generator) -> Tensor:
    """Each number one rounding up or down."""
    signs = torch.randint(0, 2, values.shape, generator=random, dtype=values.dtype) * 2 - 1
    return values * (1 + machine_epsilon(values) * signs)


def _difference(
    quantity: str,
    recorded: Tensor,
    simulated: Tensor,
    rounded: Tensor,
) -> Difference:
    d = (recorded - simulated).abs().nan_to_num(inf)
    rounding = (rounded - simulated).abs().nan_to_num(0.0).amax(dim=0)
    allowed = torch.maximum(ROUNDING * recorded.abs().amax(dim=0), _ROUNDINGS * rounding)
    rows = int(((d / allowed.clamp_min(_LEAST)) > 1).any(dim=1).sum())
    return Difference(quantity, float(d.max()), rows)
