"""What an asynchronous run has begun, as data that is saved with it.

A learner's work is a batch that it uses `reuse` times: for each use a gradient of the critics, and
every `delay` uses one of the policy. The n-th batch has the random numbers of the updates
n · reuse, n · reuse + 1, …, whichever process computes with it and whenever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from gradlab.training.algorithm import Algorithm
from gradlab.training.asynchronous.choice import ROLES, Role
from gradlab.training.asynchronous.messages import Arrays, arrays, tensors
from gradlab.training.asynchronous.window import Window
from gradlab.training.collection import Environments
from gradlab.training.trained import under


@dataclass(frozen=True, eq=False)
class Job:
    """A gradient to be computed.

    Attributes:
        number: of the update whose random numbers it takes.
        batch: columns of its transitions, and "cached_targets" once they are computed.
    """

    role: Role
    number: int
    batch: Arrays

    @property
    def columns(self) -> Arrays:
        """Of the transitions alone."""
        return {name: x for name, x in self.batch.items() if name != "cached_targets"}


def first_of(row: Algorithm, number: int, batch: Arrays) -> Job:
    """The first gradient of a use of a batch."""
    return Job("critic" if row.critics else "policy", number, batch)


def ends_use(row: Algorithm, job: Job) -> bool:
    """Whether no further gradient belongs to this use of the batch."""
    return job.role == "policy" or job.number % row.delay > 0


def following(row: Algorithm, job: Job) -> Job | None:
    """The next gradient from the same batch; None after its last use."""
    if not ends_use(row, job):
        return replace(job, role="policy")
    number = job.number + 1
    return first_of(row, number, job.batch) if number % row.reuse else None


@dataclass(eq=False)
class Work:
    """Between two saved states nothing of it is lost: what is under way can be begun again.

    Attributes:
        environments: of every actor.
        jobs: of every learner, what it computes next; without one it begins a new batch.
        critics: of every learner, numbers of the critics' step (`CRITIC`) whose use has not ended.
        batches: how many were begun.
        window: of gradients since the last row of the record.
    """

    environments: list[Environments]
    window: Window
    jobs: dict[int, Job] = field(default_factory=dict)
    critics: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    batches: int = 0

    def state(self) -> dict[str, Tensor]:
        """For `load`; the first actor's environments are saved as those of any run."""
        state = {"batches": torch.tensor(self.batches)}
        for k, environments in enumerate(self.environments[1:], 1):
            state |= _named(f"actor.{k}", environments.saved())
        for k, job in self.jobs.items():
            state[f"job.{k}"] = torch.tensor([ROLES.index(job.role), job.number])
            state |= _named(f"batch.{k}", tensors(job.batch))
        for k, numbers in self.critics.items():
            state |= _named(f"critic.{k}", numbers)
        return state | _named("window", self.window.state())

    def load(self, state: Mapping[str, Tensor]) -> None:
        """
        Raises:
            InputError, KeyError: the state is of another run.
        """
        self.batches = int(state["batches"])
        for k, environments in enumerate(self.environments[1:], 1):
            environments.load(under(state, f"actor.{k}."))
        self.jobs = {int(k): _job(state, k) for k in under(state, "job.")}
        begun = sorted({name.split(".")[0] for name in under(state, "critic.")})
        self.critics = {int(k): under(state, f"critic.{k}.") for k in begun}
        self.window.load(under(state, "window."))


def _job(state: Mapping[str, Tensor], learner: str) -> Job:
    role, number = state[f"job.{learner}"].tolist()
    return Job(ROLES[role], number, arrays(under(state, f"batch.{learner}.")))


def _named(owner: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{owner}.{name}": value for name, value in state.items()}
