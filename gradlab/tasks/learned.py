"""A task whose prior model is learned."""

from __future__ import annotations

from dataclasses import replace

from gradlab import validation
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.systems.learned import LearnedSystem, RewardFunction
from gradlab.tasks.task import Task


def with_learned_prior(
    task: Task,
    ensemble: GaussianEnsemble,
    reward: RewardFunction | None = None,
    elites: tuple[int, ...] | None = None,
) -> Task:
    """The task with `ensemble` for its prior model, which ends where the task does.

    Args:
        reward: (state, action, next_state) -> [N]; None: the ensemble's own head.
        elites: the members that are used; None: all.

    Raises:
        InputError: dimensions other than the simulator's, numbers that are not finite, no reward.
    """
    validation.instance("task", task, Task, "a gradlab.Task")
    return replace(task, prior=LearnedSystem(ensemble, reward, task.alive, elites))
