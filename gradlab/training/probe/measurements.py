"""Measurements of one seed at a time while it trains, in turn, as the budget allows.

The instrument is that of a user's loop (`gradlab.probe.sampler`), on the policy, the critic and the
model of the seed as they are: the task's prior, or the ensemble that the seed has learned last.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, final

from torch import nn

from gradlab.probe.budget import Budget
from gradlab.probe.sampler import Measurements
from gradlab.probe.task_question import Question
from gradlab.training.algorithms import Algorithm
from gradlab.training.parts.critics import Q
from gradlab.training.state import Run


def unmeasured(algorithm: Algorithm) -> str:
    """Why the gradients by horizon of the table "measured" stay empty; "" where they do not.

    The instrument ends in values of actions: without them it measures the task and the model.
    """
    why = ""
    if algorithm.critics == 0:
        why = f"{algorithm.name} has no critic"
    elif algorithm.target.kind != Q:
        why = f"the critic of {algorithm.name} is {algorithm.target.kind.name}"
    return f"{why}, and gradients of its horizons end in Q(s, a)" if why else ""


@final
class SeedMeasurements:
    """Measures the seeds in turn; lost ones are passed over."""

    def __init__(self, run: Run, budget: Budget) -> None:
        self.run, self._turn = run, 0
        self.measurements = Measurements(self._subject, budget)

    def row(self) -> tuple[int, dict[str, Any]] | None:
        """A seed's place and its row, where there is time for one."""
        seed = self._next()
        if seed is None or not self.measurements.due(seed):
            return None
        self._turn = seed + 1
        return seed, self.measurements.row(self.run.algorithm.batch, self.run.iteration, seed)

    def _next(self) -> int | None:
        """The next seed that is not lost."""
        lost, seeds = self.run.lost, self.run.settings.seeds
        turns = [(self._turn + k) % seeds for k in range(seeds)]
        return next((seed for seed in turns if not lost[seed]), None)

    def _subject(self, seed: int) -> tuple[Question, nn.Module]:
        run = self.run
        task = run.task
        if run.dynamics is not None and run.dynamics.fitted:
            task = replace(task, prior=run.dynamics.system_of(seed))
        learner = run.learner
        critic = None if unmeasured(run.algorithm) else learner.critic_of(seed)
        return Question(task, critic, learner.seeds[seed]), learner.policy_of(seed)
