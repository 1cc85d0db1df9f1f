"""Arguments of `measure_logs`, checked before the work begins.

Records by name: a file of gradlab's own, numpy arrays, or a Minari dataset.

NAME.npz    state [M, ds], action [M, da], reward [M], next_state [M, ds], terminated [M], and
            episode [M], integers: the rows of one episode together and in order
"""

from __future__ import annotations

import copy
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from gradlab.data import minari_datasets, trajectories
from gradlab.data.trajectories import Trajectories
from gradlab.errors import InputError
from gradlab.gradients.other_critics import Critics, listed
from gradlab.networks.interface import (
    check_critic,
    check_policy,
    check_trainable,
    double_copy,
    noise_dim,
)
from gradlab.networks.policies import Gaussian
from gradlab.systems.system import System
from gradlab.tools.logs.windows import bounds

_NUMBERS = ("state", "action", "reward", "next_state")
COLUMNS = (*_NUMBERS, "terminated", "episode")


def read(name: str | Path) -> Trajectories:
    """The record of that name, float64.

    Raises:
        InputError: there is none, it is damaged, or its arrays do not fit together.
    """
    if str(name).endswith(".npz"):
        return _arrays(Path(name))
    if minari_datasets.is_dataset(name):
        return minari_datasets.read(name)
    return trajectories.load(name)


def _arrays(path: Path) -> Trajectories:
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    try:
        # No pickles: an array of objects is refused by numpy itself.
        with np.load(path, allow_pickle=False) as file:
            missing = [column for column in COLUMNS if column not in file]
            columns = {column: file[column] for column in COLUMNS if column in file}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no readable .npz of plain arrays ({error})") from error
    if missing:
        raise InputError(f"{path} has no {', '.join(missing)}: expected {', '.join(COLUMNS)}")
    try:
        numbers = {name: torch.as_tensor(columns[name].astype(np.float64)) for name in _NUMBERS}
        return trajectories.from_rows(
            numbers["state"],
            numbers["action"],
            numbers["reward"],
            numbers["next_state"],
            terminated=torch.as_tensor(columns["terminated"].astype(bool)),
            episode=torch.as_tensor(columns["episode"]),
        )
    except (InputError, TypeError, ValueError) as error:
        raise InputError(f"{path}: {error}") from error


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
        """
        Raises:
            InputError: names the argument, what it got and what is expected.
        """
        horizon, reach = self.horizon, self.reach
        if not 0.0 < self.discount <= 1.0:
            raise InputError(f"discount is {self.discount!r}, expected a number in (0, 1]")
        for name, value in (("horizon", horizon), ("reach", horizon if reach is None else reach)):
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name} is {value!r}, expected an integer ≥ 1")
        if reach is not None and reach < horizon:
            raise InputError(f"reach is {reach}, expected at least the horizon, {horizon}")


def checked(
    data: Trajectories,
    policy: nn.Module,
    model: System | None,
    critic: Critics,
    span: Span,
    noise_std: float | Sequence[float] | None,
    seed: int,
) -> Arguments:
    """The arguments of `measure_logs`, checked.

    Raises:
        InputError: names the argument, what it got and what to do.
    """
    _check_data(data)
    span.check()
    state, width = data.state.double(), data.action.shape[1]
    _check_model(model, data)
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
    """
    Raises:
        InputError: a critic is given too, or a count that is no positive integer.
    """
    _check_data(data)
    if not isinstance(count, int) or count < 1:
        raise InputError(f"fit_critics is {count!r}, expected an integer ≥ 0")
    if critic is not None:
        raise InputError("fit_critics is given, and a critic too: keep one of them")


def _check_data(data: Trajectories) -> None:
    if not isinstance(data, Trajectories):
        raise InputError(
            f"data is a {type(data).__name__}, expected Trajectories: see gradlab.data.trajectories"
            f".load, gradlab.data.trajectories.from_rows"
        )


def _check_model(model: System | None, data: Trajectories) -> None:
    if model is None:
        return
    if not isinstance(model, System):
        raise InputError(
            f"model is a {type(model).__name__}, expected a System: "
            f"gradlab.systems.from_function(step, state_dim, action_dim) makes one"
        )
    for name, width in (("state", data.state.shape[1]), ("action", data.action.shape[1])):
        got = getattr(model, f"{name}_dim")
        if got != width:
            raise InputError(f"model has {name}s of width {got}, but the data's have {width}")


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
