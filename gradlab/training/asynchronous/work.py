"""What an asynchronous run has begun, as data that is saved with it; the age of its gradients.

lag = t − v       steps of the network between θ_v, at which a gradient was computed, and θ_t

A learner's work is a batch that it uses `reuse` times. The n-th batch has the random numbers of the
updates n · reuse, n · reuse + 1, …, whichever process computes with it. Processes exchange arrays
by name: tensors are slow to pickle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab.storage.journal_tables import Column, Table
from gradlab.training.algorithm import Algorithm
from gradlab.training.collection import Environments
from gradlab.training.learner import Learner
from gradlab.training.members import under
from gradlab.training.settings import ROLES, Asynchronous, Role

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class ComputedGradient:
    """A gradient.

    Attributes:
        gradients: of every parameter, as `Trained.raw.parameters`.
        loss: [E]; value: mean of the critics, [E], of a critic's gradient.
        horizon: of the longest rollout; targets: of the critics at the batch; seconds: it took.
    """

    gradients: list[NDArray[Any]]
    loss: NDArray[Any]
    value: NDArray[Any] | None = None
    horizon: int = 0
    targets: NDArray[Any] | None = None
    seconds: float = 0.0


def arrays(tensors: Mapping[str, Tensor]) -> Arrays:
    """In memory of their own, as they are now."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors.items()}


def tensors(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """Of the same numbers; what a cluster has in common memory cannot be written, and is copied."""
    return {name: torch.from_numpy(np.require(x, None, "W")) for name, x in arrays.items()}


def networks_of(learner: Learner) -> Arrays:
    """Networks, targets and temperature, without the optimisers' memory."""
    state = learner.state().items()
    return arrays({k: x for k, x in state if "_adam." not in k and k != "cached_targets"})


def policy_of(learner: Learner) -> Arrays:
    """What an actor needs."""
    state = learner.trained_policy.state("policy").items()
    return arrays({name: x for name, x in state if "_adam." not in name})


def _bins(choice: Asynchronous) -> int:
    """Lags that are counted apart; the last of them counts longer ones, too. In order of arrival a
    gradient can be overtaken, so that none is the longest."""
    return 2 * (choice.learners + choice.queue) + 1


def table(choice: Asynchronous) -> Table:
    """Rows of windows, numbered as those of the updates."""
    columns = {
        f"{role}_lag": Column(("lag",), "gradients", description=f"Gradients of the {role} by lag.")
        for role in ROLES
    } | {
        "mean_lag": Column(unit="steps", description="Mean lag of the policy's gradients."),
        "largest_lag": Column(unit="steps", description="Largest lag of the policy's gradients."),
        "learner_gradients": Column(
            ("learner",), "gradients", description="Gradients of each learner."
        ),
        "learner_seconds": Column(
            ("learner",), "s", description="Time that each learner computed."
        ),
        "actor_steps": Column(
            ("actor",), "steps", description="Steps of each actor's environments."
        ),
        "seconds": Column(unit="s", description="Time since the run began."),
    }
    scales = {"lag": _bins(choice), "learner": choice.learners, "actor": choice.actors}
    return Table("iteration", columns, {name: range(size) for name, size in scales.items()})


@final
class LagWindow:
    """Counts since the last row."""

    def __init__(self, choice: Asynchronous) -> None:
        self._choice = choice
        self._lags: dict[str, Counter[int]] = {}
        self._empty()

    def gradient(self, role: str, lag: int, learner: int, seconds: float) -> None:
        """A gradient was applied."""
        self._lags[role][lag] += 1
        self._gradients[learner] += 1
        self._seconds[learner] += seconds

    def step(self, actor: int) -> None:
        """An actor's environments took a step."""
        self._steps[actor] += 1

    def row(self, iteration: int, seconds: float) -> dict[str, Any]:
        """The row of the window that ends at `iteration`; begins the next."""
        policy = np.array(sorted(self._lags["policy"].elements()), dtype=np.float64)
        row = {f"{role}_lag": self._counted(role) for role in ROLES} | {
            "iteration": iteration,
            "learner_gradients": self._gradients,
            "learner_seconds": self._seconds,
            "actor_steps": self._steps,
            "seconds": seconds,
        }
        if len(policy):
            row |= {"mean_lag": policy.mean(), "largest_lag": policy[-1]}
        self._empty()
        return row

    def state(self) -> dict[str, Tensor]:
        """The open window, for `load`."""
        state = {
            f"{role}_lag": torch.tensor(sorted(lags.elements()), dtype=torch.long)
            for role, lags in self._lags.items()
        }
        counts = {"gradients": self._gradients, "seconds": self._seconds, "steps": self._steps}
        return state | {name: torch.from_numpy(x.copy()) for name, x in counts.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        self._lags = {role: Counter(state[f"{role}_lag"].tolist()) for role in ROLES}
        self._gradients, self._seconds, self._steps = (
            state[name].numpy().copy() for name in ("gradients", "seconds", "steps")
        )

    def _counted(self, role: str) -> Any:
        """How many gradients had each lag, [bins]."""
        lags = np.array(list(self._lags[role].elements()), dtype=np.int64)
        return np.bincount(np.minimum(lags, _bins(self._choice) - 1), minlength=_bins(self._choice))

    def _empty(self) -> None:
        self._lags = {role: Counter() for role in ROLES}
        self._gradients = np.zeros(self._choice.learners)
        self._seconds = np.zeros(self._choice.learners)
        self._steps = np.zeros(self._choice.actors)


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
    window: LagWindow
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
        self.batches = int(state["batches"])
        for k, environments in enumerate(self.environments[1:], 1):
            environments.load(under(state, f"actor.{k}."))
        self.jobs = {}
        for learner in under(state, "job."):
            role, number = state[f"job.{learner}"].tolist()
            self.jobs[int(learner)] = Job(
                ROLES[role], number, arrays(under(state, f"batch.{learner}."))
            )
        begun = sorted({name.split(".")[0] for name in under(state, "critic.")})
        self.critics = {int(k): under(state, f"critic.{k}.") for k in begun}
        self.window.load(under(state, "window."))


def _named(owner: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{owner}.{name}": value for name, value in state.items()}
