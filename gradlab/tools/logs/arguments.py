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
from torch import nn

from gradlab import validation
from gradlab.data.trajectories import Path as RecordedPath
from gradlab.data.trajectories import Trajectories, bounds, check_widths, segments
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
    _, last = bounds(record)
    first, counts = torch.unique_consecutive(record.trajectory, return_counts=True)
    kept = int(((counts >= steps) | record.terminated[torch.unique(last)]).sum())
    if kept < FEWEST:
        raise InputError(
            f"data has {len(first):,} trajectories, of which {kept:,} have {steps:,} steps or end "
            f"in a terminal state: expected at least {FEWEST}; lower the horizon or record more"
        )
    path = segments(record, steps, len(record) if every is None else every, ended=True).double()
    ended = float((~path.alive[-1]).double().mean())
    return Windows(path, group_count(path.group), len(first) - kept, ended)


_RECORD = "Trajectories: see gradlab.data.record_files.read and trajectories.from_rows"
_GRID = 12  # horizons at most
_LEFT = 0.01  # γᵀ at which the whole return ends
_EQUAL = 1e-6  # by which actions of a deterministic policy may differ from recorded ones


@dataclass(frozen=True, eq=False)
class Arguments:
    """What is judged: float64 copies of the networks, and the record.

    Attributes:
        policy: with its noise; deterministic where the record has none.
        critics: none, one or several.
        horizons: of the model's gradient, increasing.
        reach: T, steps of the whole return.
    """

    data: Trajectories
    policy: nn.Module
    model: System | None
    critics: tuple[nn.Module, ...]
    discount: float
    horizons: tuple[int, ...]
    reach: int
    seed: int

    @property
    def stochastic(self) -> bool:
        return noise_dim(self.policy) > 0


def checked(
    data: Trajectories, policy: nn.Module, model: System | None, critic: Critics, discount: float,
    horizon: int, reach: int | None, every: int | None,
    noise_std: float | Sequence[float] | None, seed: int,
) -> Arguments:  # fmt: skip
    """The arguments of `measure_logs`, checked."""
    validation.instance("data", data, Trajectories, _RECORD)
    validation.number("discount", discount, above=0, most=1)
    validation.whole("horizon", horizon, 1)
    if reach is not None and validation.whole("reach", reach, 1) < horizon:
        raise InputError(f"reach is {reach}, expected at least the horizon, {horizon}")
    state, width = data.state.double(), data.action.shape[1]
    if model is not None:
        check_system("model", model)
        check_widths(data, model.state_dim, model.action_dim)
    policy, critics = double_copy("policy", policy), listed(copy.deepcopy(critic))
    check_policy(policy, state[:2], width)
    check_trainable(policy)
    for network in critics:
        check_critic(network.double(), "Q", state[:2], width)
    # Horizons closer together where they are short.
    first = 0 if critics else 1
    horizons = set(range(first, horizon + 1))
    if horizon - first >= _GRID:
        spread = np.geomspace(1, horizon, _GRID - 1).round().astype(int).tolist()
        horizons = {first, horizon, *range(1, 5), *spread}
    if reach is None:
        reach = horizon if every is not None else _reach(data, horizon, discount)
    policy = _with_noise(policy, noise_std, data)
    return Arguments(data, policy, model, critics, discount, tuple(sorted(horizons)), reach, seed)


def _with_noise(
    policy: nn.Module, noise_std: float | Sequence[float] | None, data: Trajectories
) -> nn.Module:
    """The policy that took the actions: stochastic, or deterministic where it took just those."""
    if noise_dim(policy):
        if noise_std is not None:
            raise InputError("noise_std is given, but the policy is stochastic already: leave it")
        return policy
    actions = data.action.shape[1]
    if noise_std is not None:  # one number for all actions, or one for each
        given = list(noise_std) if isinstance(noise_std, Sequence) else [noise_std]
        if len(given) not in (1, actions):
            raise InputError(
                f"noise_std has {len(given)} numbers for {actions} actions: give one for all, or "
                f"one for each"
            )
        return Gaussian(policy, given * actions if len(given) == 1 else given)
    with torch.no_grad():
        gap = data.action.double() - policy(data.state.double())
    if gap.abs().max() > _EQUAL * data.action.abs().max().clamp_min(1.0):
        spread = ", ".join(f"{float(spread):.3g}" for spread in gap.square().mean(dim=0).sqrt())
        raise InputError(
            f"the policy is deterministic, but the recorded actions lie about ({spread}) from "
            f"its own: give noise_std, the noise that was added to them"
        )
    return policy


def _reach(data: Trajectories, horizon: int, discount: float) -> int:
    """As long as every trajectory allows that has `horizon` steps and does not terminate."""
    first, last = bounds(data)
    begin = torch.unique(first)
    lengths = last[begin] - begin + 1
    stopped = lengths[~data.terminated[last[begin]] & (lengths >= horizon)]
    longest = int(stopped.min() if len(stopped) else lengths.max())
    enough = math.ceil(math.log(_LEFT) / math.log(discount)) if discount < 1 else longest
    return max(horizon, min(longest, enough))
