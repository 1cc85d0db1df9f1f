"""The subject of measurements on a task, and their memory; light to import beside a loop."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from gradlab.errors import InputError
from gradlab.measurement.arguments import check_networks
from gradlab.probe.isolation import doubled, undisturbed
from gradlab.statistics.moments import Array
from gradlab.tasks import Task

LONGEST = 10  # horizon of the profile


@dataclass(frozen=True)
class Past:
    """The memory of earlier measurements.

    Attributes:
        reward_max: the largest |reward|.
        scale: [ds, ds + da], σ_j/σ_i of the first path, by which Jacobian errors are scaled ever
            after: a new scale each time would look like a change of the model.
        count: measurements; sound: did the last truth stand?
    """

    reward_max: float = 0.0
    scale: Array | None = None
    count: int = 0
    sound: bool = False

    @property
    def checks(self) -> bool:
        """Will the next truth be compared with finite differences?"""
        number = self.count + 1
        return not self.sound or number & (number - 1) == 0


@dataclass(frozen=True)
class Question:
    """The subject of measurements: a task and, for those of gradients, the critic of its tail."""

    task: Task
    critic: nn.Module | None
    seed: int

    @property
    def horizon(self) -> int:
        return min(self.task.horizon, LONGEST)

    @property
    def nothing(self) -> Past:
        """The memory before the first measurement."""
        return Past()


def check(question: Question, policy: nn.Module) -> None:
    """Can the policy and the critic be measured on the task?

    Raises:
        InputError: names the network and what does not fit.
    """
    with undisturbed():
        critic = None if question.critic is None else _copy("critic", question.critic)
        check_networks(question.task, _copy("policy", policy), critic)


def _copy(name: str, module: nn.Module) -> nn.Module:
    try:
        return doubled(module)
    except Exception as error:
        raise InputError(
            f"{name} cannot be copied ({type(error).__name__}: {error}), but a task is measured on "
            f"copies: make it deep-copyable, or give no task"
        ) from error
