"""The state of one training run: data and no loop, and means over the updates since the last row.

Numbers stay on the device until a window ends; an open window is part of the saved state, so that
a row does not depend on where a run was stopped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab.data.replay import Batch, Replay
from gradlab.tasks import Task
from gradlab.training.algorithm import Algorithm
from gradlab.training.collection import Branches, Ended, Environments
from gradlab.training.dynamics import Dynamics
from gradlab.training.learner import Learner, UpdateRecord
from gradlab.training.parts.context import Draws, Floats, Stores
from gradlab.training.settings import Settings

if TYPE_CHECKING:
    from gradlab.training.asynchronous.work import Work


_CRITIC = ("value", "critic_loss", "critic_norm")  # in the order in which an update makes them
_POLICY = ("policy_loss", "policy_norm")


@final
class _Window:
    """Means over the updates since the last row.

    Attributes:
        divergences: of the last row, for each seed that was not finite in it, how that began.
    """

    def __init__(self, algorithm: Algorithm) -> None:
        self.clip = math.inf if algorithm.clip is None else algorithm.clip
        self.divergences: dict[int, str] = {}
        self._empty()

    def add(self, update: UpdateRecord) -> None:
        self.critic.append(torch.stack([getattr(update, name) for name in _CRITIC]))
        self.critic_seconds += update.critic_seconds
        if update.policy_norm is not None and update.policy_loss is not None:
            self.policy.append(torch.stack([update.policy_loss, update.policy_norm]))
            self.at.append(len(self.critic) - 1)
            self.horizon += update.horizon
            self.policy_seconds += update.policy_seconds
        self.weights, self.temperature = update.weights, update.temperature
        self.adapted = update.adapted

    def ended(self, ended: Ended) -> None:
        self.terminated += ended.terminated
        self.truncated += ended.truncated
        self.broken += ended.broken

    def row(self, iteration: int, seconds: float) -> dict[str, Any]:
        """The row of the window that ends at `iteration`; begins the next."""
        critic = _stacked(self.critic).double().cpu()
        row: dict[str, Any] = {"iteration": iteration, "seconds": seconds}
        row |= {name: critic[:, k].mean(dim=0).numpy() for k, name in enumerate(_CRITIC)}
        row["critic_seconds"] = self.critic_seconds / len(critic)
        lost = (~torch.isfinite(critic).all(dim=1)).sum(dim=0)
        policy = None
        if self.policy:
            policy = _stacked(self.policy).double().cpu()
            row |= {name: policy[:, k].mean(dim=0).numpy() for k, name in enumerate(_POLICY)}
            row["clipped"] = (policy[:, 1] > self.clip).double().mean(dim=0).numpy()
            row["realised_horizon"] = self.horizon / len(self.policy)
            row["policy_seconds"] = self.policy_seconds / len(self.policy)
            lost = lost + (~torch.isfinite(policy).all(dim=1)).sum(dim=0)
        row |= {
            "nonfinite": lost.numpy(),
            "weight": self.weights,
            "terminated": self.terminated,
            "truncated": self.truncated,
            "broken": self.broken,
        }
        if self.temperature is not None:
            row["temperature"] = self.temperature.double().cpu().numpy()
        if self.adapted is not None:
            row["adapted_horizon"] = self.adapted.cpu().numpy()
        first = iteration - len(critic)
        self.divergences = {
            int(member): _story(critic[..., member], policy, self.at, int(member), first)
            for member in lost.nonzero().flatten()
        }
        self._empty()
        return row

    def state(self) -> dict[str, Tensor]:
        """The open window, for `load`."""
        counts = [self.horizon, self.terminated, self.truncated, self.broken]
        taken = [self.critic_seconds, self.policy_seconds]
        tensors = {
            "counts": torch.tensor(counts),
            "at": torch.tensor(self.at, dtype=torch.long),
            "taken": torch.tensor(taken, dtype=torch.float64),
        }
        for name in ("critic", "policy"):
            if getattr(self, name):
                tensors[name] = _stacked(getattr(self, name))
        return tensors

    def load(self, state: Mapping[str, Tensor]) -> None:
        self._empty()
        self.horizon, self.terminated, self.truncated, self.broken = state["counts"].tolist()
        self.critic_seconds, self.policy_seconds = state["taken"].tolist()
        self.at += state["at"].tolist()
        self.critic += state.get("critic", ())
        self.policy += state.get("policy", ())

    def _empty(self) -> None:
        self.critic: list[Tensor] = []
        self.policy: list[Tensor] = []
        self.at: list[int] = []  # of every policy update, its place among the critic's
        self.horizon = self.terminated = self.truncated = self.broken = 0
        self.critic_seconds = self.policy_seconds = 0.0


def _stacked(values: list[Tensor]) -> Tensor:
    """On the device of the last one: those that a resumed run brought along are on the CPU."""
    return torch.stack([value.to(values[-1].device) for value in values])


def _story(critic: Tensor, policy: Tensor | None, at: list[int], member: int, begin: int) -> str:
    """What left the finite numbers first, when, and the last statistics before it."""
    every = list(range(len(critic)))
    series = {name: (every, critic[:, k]) for k, name in enumerate(_CRITIC)}
    if policy is not None:
        series |= {name: (at, policy[:, k, member]) for k, name in enumerate(_POLICY)}
    gone = {
        name: int((~values.isfinite()).nonzero()[0])
        for name, (_, values) in series.items()
        if not values.isfinite().all()
    }
    order = list(series)
    first = min(gone, key=lambda name: series[name][0][gone[name]])
    update = series[first][0][gone[first]]
    before = []
    for name, (places, values) in series.items():
        until = update + (order.index(name) < order.index(first))
        earlier = [float(v) for k, v in zip(places, values, strict=True) if k < until]
        if earlier:
            largest = max(earlier, key=abs)
            before.append(f"{_words(name)} {earlier[-1]:.3g} (largest {largest:.3g})")
    statistics = f"; just before: {', '.join(before)}" if before else ""
    return f"{_words(first)} was not finite in update {begin + update}{statistics}"


def _words(name: str) -> str:
    return name.replace("_", " ").replace("norm", "gradient norm")


@dataclass(eq=False)
class _Weighing:
    """Measurements of the mixture's weights so far.

    Attributes:
        at: iteration of the last one; before: weights of the seeds in force until then.
        seconds: that all of them took.
    """

    at: int
    before: Floats
    seconds: float = 0.0


@dataclass(eq=False)
class Run:
    """The state of one training run.

    Attributes:
        dynamics: the models that are learned, or None; branches: the second replay, which the
            model fills, or None.
        window: statistics of the updates since the last row of the record.
        lost: [E], seeds that left the finite numbers; excessive: [E], seeds whose critic exceeds
            what rewards can sum to.
        batch: of the last update; work: what other processes have begun, where there are any.
        iteration: updates so far; kept: of the state that is saved.
        seconds: of training so far; what measuring gradients takes is left out.
        begun: reading of the monotonic clock from which `seconds` counts.
    """

    algorithm: Algorithm
    task: Task
    settings: Settings
    learner: Learner
    environments: Environments
    replay: Replay
    dynamics: Dynamics | None
    branches: Branches | None
    window: _Window
    weighing: _Weighing
    lost: NDArray[np.bool_]
    excessive: NDArray[np.bool_]
    batch: Batch | None = None
    work: Work | None = None
    iteration: int = 0
    kept: int | None = None
    seconds: float = 0.0
    begun: float = 0.0

    def drawn(self, draws: Draws, iteration: int) -> Batch:
        """The batch of an iteration."""
        second = None if self.branches is None else self.branches.replay
        stores = Stores(self.replay, second, draws, self.algorithm.batch)
        return self.algorithm.source(stores, iteration)

    @property
    def done(self) -> bool:
        return self.iteration == self.settings.iterations


def replay_of(algorithm: Algorithm, learner: Learner, capacity: int) -> Replay:
    """An empty one, with the columns that the algorithm needs."""
    simulator = learner.task.simulator
    return Replay(
        len(learner.seeds), capacity, simulator.state_dim, simulator.action_dim,
        learner.dtype, learner.device, densities=algorithm.densities,
        noises=learner.noises if algorithm.loss.noises else (0, 0),
    )  # fmt: skip


def environments_of(
    task: Task, settings: Settings, learner: Learner, actor: int = 0
) -> Environments:
    """Those of one actor: the first has the random numbers of a run without actors."""
    draws = learner.draws
    if actor:
        draws = Draws(learner.seeds, learner.dtype, learner.device, f"training actor {actor}")
    return Environments(task, learner.seeds, settings.agents, settings.episode, draws)


def begin(algorithm: Algorithm, task: Task, settings: Settings) -> Run:
    """A run before its first iteration."""
    learner = Learner(algorithm, task, settings)
    draws, replay = learner.draws, replay_of(algorithm, learner, algorithm.replay)
    model, branching = algorithm.model, algorithm.source.branching
    return Run(
        algorithm, task, settings, learner,
        environments=environments_of(task, settings, learner),
        replay=replay,
        dynamics=None if model is None else Dynamics(model, task, draws, settings.agents),
        branches=None if branching is None else Branches(branching, replay, draws),
        window=_Window(algorithm),
        weighing=_Weighing(0, learner.in_force.copy()),
        lost=np.zeros(settings.seeds, dtype=bool),
        excessive=np.zeros(settings.seeds, dtype=bool),
    )  # fmt: skip
