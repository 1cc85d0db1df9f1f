"""One training run: its state, and how it goes from an iteration to the next.

collect → fit the model, where one is learned and due → update; evaluate and record on the way
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import NoReturn, final

import torch
from torch import Tensor

from gradlab.data.replay import Batch, Replay
from gradlab.errors import InputError
from gradlab.progress import Progress
from gradlab.storage.journal import Journal
from gradlab.tasks import Task
from gradlab.training import checkpoints
from gradlab.training.algorithms import Algorithm
from gradlab.training.collection import Environments, Evaluation, evaluate
from gradlab.training.health import Health
from gradlab.training.interruption import between_iterations
from gradlab.training.learner import Learner
from gradlab.training.measured import gradient_errors
from gradlab.training.measured.weights import Measuring
from gradlab.training.models.dynamics import Dynamics
from gradlab.training.probe.probe import Probing
from gradlab.training.recording import Window, evaluation_row, model_row
from gradlab.training.settings import Settings
from gradlab.training.trained import under


@final
class Run:
    """The state of one training run.

    Attributes:
        dynamics: the models that are learned, or None.
        seconds: of training so far; what measuring gradients takes is left out.
    """

    def __init__(self, algorithm: Algorithm, task: Task, settings: Settings) -> None:
        self.algorithm, self.task, self.settings = algorithm, task, settings
        self.learner = Learner(algorithm, task, settings)
        draws = self.learner.draws
        self.environments = Environments(
            task, self.learner.seeds, settings.agents, settings.episode, draws
        )
        self.replay = Replay(
            settings.seeds, algorithm.replay, task.simulator.state_dim, task.simulator.action_dim,
            self.learner.dtype, self.learner.device,
        )  # fmt: skip
        self.dynamics = (
            None
            if algorithm.model is None
            else Dynamics(algorithm.model, task, draws, settings.agents)
        )
        self.measuring = Measuring(self)
        self.window = Window(algorithm)
        self.batch: Batch | None = None
        self.health = Health(self)
        self.iteration = 0
        self.seconds = 0.0
        self._begun = 0.0

    def go(
        self, path: Path, journal: Journal, config: dict[str, object], progress: Progress
    ) -> None:
        """From the present iteration to the last."""
        self._begun = time.monotonic() - self.seconds
        self.health.note_good()
        with between_iterations() as interrupted, closing(Probing(self, journal)) as probing:
            while not self._visit(path, journal, config):
                if interrupted():
                    self._leave(path, config)
                self._collect()
                self._fit(journal)
                probing.before()
                update = self.learner.update(self.iteration, self._batch(self.iteration))
                self.window.add(update)
                self.iteration += 1
                if self.iteration % self.settings.log_every == 0 or self._done:
                    row = self.window.row(self.iteration, time.monotonic() - self._begun)
                    journal.append("updates", row)
                    self.health.report(path, journal, row["value"])
                    progress("training", self.iteration, self.settings.iterations)
                probing.over(update)

    def _visit(self, path: Path, journal: Journal, config: dict[str, object]) -> bool:
        """What is due before an iteration: evaluation, networks to keep, the saved state; done?"""
        k, settings = self.iteration, self.settings
        self.seconds = time.monotonic() - self._begun
        if k % settings.evaluate_every == 0 or self._done:
            journal.append("evaluations", evaluation_row(self, self._evaluation()))
        if k in settings.kept:
            checkpoints.keep(path, self, k)
        if gradient_errors.due(self):
            self._measure(journal)
        if self.measuring.due:
            journal.append("weights", self.measuring.row())
        if k % settings.checkpoint_every == 0 or self._done:
            checkpoints.save(path, self, config)
        return self._done

    def _measure(self, journal: Journal) -> None:
        """The gradients that the policy follows, against the truth."""
        begun = time.monotonic()
        journal.append("gradients", gradient_errors.row(self))
        self._begun += time.monotonic() - begun

    def _leave(self, path: Path, config: dict[str, object]) -> NoReturn:
        checkpoints.save(path, self, config)
        raise KeyboardInterrupt(
            f"the state after {self.iteration} iterations is saved: the same again with "
            f"resume=True goes on from there"
        )

    def state(self) -> dict[str, Tensor]:
        parts = {
            "learner": self.learner.state(),
            "environments": self.environments.saved(),
            "replay": self.replay.state(),
            "dynamics": {} if self.dynamics is None else self.dynamics.state(),
            "run": {
                "iteration": torch.tensor(self.iteration),
                "seconds": torch.tensor(self.seconds, dtype=torch.float64),
                "lost": torch.from_numpy(self.health.lost),
                "excessive": torch.from_numpy(self.health.excessive),
            },
            "weights": self.measuring.state(),
            "window": self.window.state(),
            "batch": {} if self.batch is None else dict(vars(self.batch)),
        }
        return {
            f"{part}/{name}": value
            for part, found in parts.items()
            for name, value in found.items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """
        Raises:
            InputError, KeyError, RuntimeError, ValueError: the state is not one of this run.
        """
        iteration, lost = int(state["run/iteration"]), state["run/lost"].numpy()
        if not 0 <= iteration <= self.settings.iterations or lost.shape != self.health.lost.shape:
            raise InputError(f"saved iteration is {iteration} for {len(lost)} seeds")
        self.learner.load(under(state, "learner/"))
        self.environments.load(under(state, "environments/"))
        self.replay.load(under(state, "replay/"))
        self.window.load(under(state, "window/"))
        self.measuring.load(under(state, "weights/"))
        if self.dynamics is not None:
            self.dynamics.load(under(state, "dynamics/"))
            self.learner.model = self.dynamics.rollout() if self.dynamics.fitted else None
        self.iteration, self.health.lost = iteration, lost.copy()
        self.health.excessive = state["run/excessive"].numpy().copy()
        self.seconds = float(state["run/seconds"])
        self._load_batch(under(state, "batch/"))

    def _load_batch(self, saved: Mapping[str, Tensor]) -> None:
        batch = {name: value.to(self.replay.rows) for name, value in saved.items()}
        size = self.settings.seeds, self.algorithm.batch
        if any(value.shape[:2] != size for value in batch.values()):
            raise InputError(f"saved batch is not {size[0]} × {size[1]}")
        self.batch = Batch(**batch) if batch else None

    @property
    def _done(self) -> bool:
        return self.iteration == self.settings.iterations

    def _collect(self) -> None:
        """Fill replay up to the warm-up, then one step of the environments every `interval`."""
        wanted = max(self.settings.warmup, self.algorithm.batch)
        due = self.iteration % self.settings.interval == 0
        while due or self.replay.added < wanted:
            self.window.ended(self.environments.step(self._explore, self.replay))
            due = False

    def _fit(self, journal: Journal) -> None:
        """The models, where they are due."""
        if self.dynamics is None or self.iteration % self.dynamics.choice.every:
            return
        journal.append("model", model_row(self.iteration, self.dynamics.fit(self.replay)))
        self.learner.model = self.dynamics.rollout()

    def _explore(self, state: Tensor, noise: Tensor) -> Tensor:
        learner = self.learner
        if self.algorithm.policy == "gaussian":
            return learner.act(learner.policy, state, noise)
        size = self.algorithm.exploration
        return learner.policy(state) + size * noise * (
            1.0 if learner.limit is None else learner.limit
        )

    def _batch(self, iteration: int) -> Batch:
        """The batch of this iteration; `reuse` iterations share one."""
        first = iteration - iteration % self.algorithm.reuse
        if self.batch is None or iteration == first:
            uniform = self.learner.draws.uniform("batch", first, (self.algorithm.batch,))
            self.batch = self.replay.sample(uniform)
        return self.batch

    def _evaluation(self) -> Evaluation:
        learner, settings = self.learner, self.settings
        policy = learner.policy.frozen()
        return evaluate(
            self.task, lambda state: learner.act(policy, state), settings.seeds,
            settings.evaluation_starts, settings.episode, settings.at_end,
            lambda state: state.to(learner.device, learner.dtype),
        )  # fmt: skip
