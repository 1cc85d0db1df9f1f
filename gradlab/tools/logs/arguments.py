"""Arguments of `measure_logs`: networks, and windows of T recorded steps.

A window of a trajectory that terminates goes on in the terminal state, dead, so that it holds the
whole return and survivors are not preferred; one that is truncated early is left out.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gradlab import validation
from gradlab.data.trajectories import Path as RecordedPath
from gradlab.data.trajectories import Trajectories
from gradlab.errors import InputError
from gradlab.gradients.estimator import Critics, listed
from gradlab.gradients.setting import group_count
from gradlab.networks.interface import (
    check_critic,
    check_policy,
    check_trainable,
    double_copy,
    noise_dim,
)
from gradlab.networks.policies import Gaussian
from gradlab.systems.system import System, check_system

FEWEST = 4  # trajectories that a jackknife needs


@dataclass(frozen=True)
class Windows:
    """N windows; one trajectory is one group.

    Attributes:
        path: float64, noise of width 0, `alive` False after a terminal state. Where no action was
            recorded (dead, or the last), it is NaN.
        trajectories: that gave a window; left_out: that were too short for any.
        ended: share of windows that end in a terminal state.
    """

    path: RecordedPath
    trajectories: int
    left_out: int
    ended: float


def windows(record: Trajectories, steps: int, every: int | None = None) -> Windows:
    """Windows of `steps` transitions. `every`: a window begins every so many steps of a trajectory;
    None: at its first alone."""
    validation.whole("steps", steps, 1)
    validation.whole("every", 1 if every is None else every, 1)
    first, end = bounds(record)
    row = torch.arange(len(record))
    offset = row - first
    wanted = offset == 0 if every is None else offset % every == 0
    whole = record.terminated[end] | (row + steps - 1 <= end)
    begin = row[wanted & whole]
    state, action = record.state.double(), record.action.double()
    after, last, n = record.next_state.double(), end[begin], len(begin)
    rows = begin + torch.arange(steps + 1)[:, None]
    inside = rows <= last
    rows = rows.clamp_max(len(record) - 1)
    states = torch.where(inside[..., None], state[rows], after[last])
    actions = torch.where(inside[..., None], action[rows], torch.nan)
    rewards = torch.where(inside[:-1], record.reward.double()[rows[:-1]], 0.0)
    path = RecordedPath(
        states=states,
        actions=actions,
        rewards=rewards,
        policy_noise=states.new_empty(steps + 1, n, 0),
        dynamics_noise=states.new_empty(steps, n, 0),
        alive=inside | ~record.terminated[last],
        weight=states.new_ones(n),
        group=record.trajectory[begin],
    )
    kept = group_count(path.group) if len(begin) else 0
    trajectories = int(torch.unique(record.trajectory).numel())
    if kept < FEWEST:
        raise InputError(
            f"data has {trajectories:,} trajectories, of which {kept:,} have {steps:,} steps or "
            f"end in a terminal state: expected at least {FEWEST}; lower the horizon or record more"
        )
    return Windows(path, kept, trajectories - kept, float((~path.alive[-1]).double().mean()))


def bounds(record: Trajectories) -> tuple[Tensor, Tensor]:
    """First and last row of each row's trajectory, [M] each."""
    _, counts = torch.unique_consecutive(record.trajectory, return_counts=True)
    last = counts.cumsum(0) - 1
    return (last - counts + 1).repeat_interleave(counts), last.repeat_interleave(counts)


_RECORD = "Trajectories: see gradlab.data.record_files.read and trajectories.from_rows"
_GRID = 12  # horizons at most
_LEFT = 0.01  # γᵀ at which the whole return ends
_EQUAL = 1e-6  # by which actions of a deterministic policy may differ from recorded ones


@dataclass(frozen=True, eq=False)
class Arguments:
    """What is judged: float64 copies of the networks, and the record in float64.

    Attributes:
        policy: with its noise; deterministic where the record has none.
        critics: none, one or several.
        horizons: of the model's gradient, increasing.
        reach: T, steps of the whole return.
        every: steps between windows, None: one per trajectory.
    """

    data: Trajectories
    policy: nn.Module
    model: System | None
    critics: tuple[nn.Module, ...]
    discount: float
    horizons: tuple[int, ...]
    reach: int
    every: int | None
    seed: int

    @property
    def stochastic(self) -> bool:
        return noise_dim(self.policy) > 0


@dataclass(frozen=True)
class Span:
    """For how many steps rewards are summed, and from where on: arguments as they were given."""

    discount: float
    horizon: int
    reach: int | None
    every: int | None

    def check(self) -> None:
        validation.number("discount", self.discount, above=0, most=1)
        validation.whole("horizon", self.horizon, 1)
        if self.reach is not None and validation.whole("reach", self.reach, 1) < self.horizon:
            raise InputError(
                f"reach is {self.reach}, expected at least the horizon, {self.horizon}"
            )


def checked(
    data: Trajectories,
    policy: nn.Module,
    model: System | None,
    critic: Critics,
    span: Span,
    noise_std: float | Sequence[float] | None,
    seed: int,
) -> Arguments:
    """The arguments of `measure_logs`, checked."""
    validation.instance("data", data, Trajectories, _RECORD)
    span.check()
    state, width = data.state.double(), data.action.shape[1]
    if model is not None:
        check_system("model", model)
        for name, wide in (("state", state.shape[1]), ("action", width)):
            got = getattr(model, f"{name}_dim")
            if got != wide:
                raise InputError(f"model has {name}s of width {got}, but the data's have {wide}")
    policy_copy, critics = double_copy("policy", policy), listed(copy.deepcopy(critic))
    check_policy(policy_copy, state[:2], width)
    check_trainable(policy_copy)
    for network in critics:
        check_critic(network.double(), "Q", state[:2], width)
    return Arguments(
        data=data,
        policy=_with_noise(policy_copy, noise_std, data),
        model=model,
        critics=critics,
        discount=span.discount,
        horizons=_grid(0 if critics else 1, span.horizon),
        reach=_reach(data, span) if span.reach is None else span.reach,
        every=span.every,
        seed=seed,
    )


def check_fitting(data: Trajectories, critic: Critics, count: int) -> None:
    validation.instance("data", data, Trajectories, _RECORD)
    validation.whole("fit_critics", count)
    if critic is not None:
        raise InputError("fit_critics is given, and a critic too: keep one of them")


def _with_noise(
    policy: nn.Module, noise_std: float | Sequence[float] | None, data: Trajectories
) -> nn.Module:
    """The policy that took the actions: stochastic, or deterministic where it took just those."""
    if noise_dim(policy):
        if noise_std is not None:
            raise InputError("noise_std is given, but the policy is stochastic already: leave it")
        return policy
    if noise_std is not None:
        return Gaussian(policy, of_each_action(noise_std, data.action.shape[1]))
    with torch.no_grad():
        gap = data.action.double() - policy(data.state.double())
    if gap.abs().max() > _EQUAL * data.action.abs().max().clamp_min(1.0):
        spread = ", ".join(f"{float(spread):.3g}" for spread in gap.square().mean(dim=0).sqrt())
        raise InputError(
            f"the policy is deterministic, but the recorded actions lie about ({spread}) from "
            f"its own: give noise_std, the noise that was added to them"
        )
    return policy


def of_each_action(noise_std: float | Sequence[float], actions: int) -> list[float]:
    """One number for all actions, or one for each."""
    given = list(noise_std) if isinstance(noise_std, Sequence) else [noise_std]
    if len(given) not in (1, actions):
        raise InputError(
            f"noise_std has {len(given)} numbers for {actions} actions: give one for all, or one "
            f"for each"
        )
    return given * actions if len(given) == 1 else given


def _grid(first: int, last: int) -> tuple[int, ...]:
    """Horizons from `first` to `last`, closer together where they are short."""
    if last - first < _GRID:
        return tuple(range(first, last + 1))
    spread = np.geomspace(1, last, _GRID - 1).round().astype(int).tolist()
    dense = {k + 1 for k in range(4)}
    return tuple(sorted({first, last, *dense, *spread}))


def _reach(data: Trajectories, span: Span) -> int:
    """As long as every trajectory allows that has `horizon` steps and does not terminate."""
    horizon, discount = span.horizon, span.discount
    if span.every is not None:
        return horizon
    first, last = bounds(data)
    begin = torch.unique(first)
    lengths = last[begin] - begin + 1
    stopped = lengths[~data.terminated[last[begin]] & (lengths >= horizon)]
    longest = int(stopped.min() if len(stopped) else lengths.max())
    enough = math.ceil(math.log(_LEFT) / math.log(discount)) if discount < 1 else longest
    return max(horizon, min(longest, enough))
