"""The state of one training run, which its parts read and change: data and no loop.

What a run consists of stands here, so that evaluation, recording, checkpoints, measurements and
the probe need to know this file alone; `training.run` calls them in turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gradlab.data.replay import Batch, Replay
from gradlab.tasks import Task
from gradlab.training.algorithms import Algorithm
from gradlab.training.collection import Environments
from gradlab.training.draws import Draws
from gradlab.training.learner import Learner
from gradlab.training.measured import steering
from gradlab.training.measured.steering import Steering
from gradlab.training.members import Network
from gradlab.training.models.branches import Branches
from gradlab.training.models.dynamics import Dynamics
from gradlab.training.parts.sources import Stores
from gradlab.training.parts.weights import Floats
from gradlab.training.settings import Settings
from gradlab.training.window import Window

if TYPE_CHECKING:
    from gradlab.training.asynchronous.work import Work


@dataclass(frozen=True, eq=False)
class Good:
    """Policy and critic of every seed after an iteration in which all were finite."""

    iteration: int
    policy: Network
    critic: Network | None


@dataclass(eq=False)
class Weighing:
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
        good: the last networks that were finite.
        batch: of the last update; work: what other processes have begun, where there are any.
        iteration: updates so far.
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
    window: Window
    weighing: Weighing
    steering: Steering
    lost: NDArray[np.bool_]
    excessive: NDArray[np.bool_]
    good: Good
    batch: Batch | None = None
    work: Work | None = None
    iteration: int = 0
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
        window=Window(algorithm),
        weighing=Weighing(0, learner.in_force.copy()),
        steering=steering.begun(learner),
        lost=np.zeros(settings.seeds, dtype=bool),
        excessive=np.zeros(settings.seeds, dtype=bool),
        good=Good(0, *learner.copies()),
    )  # fmt: skip
