"""What the processes do. Whatever they need comes with each call; they keep what is large.

A call can be repeated in another process, with the same answer: draws follow from numbers in it.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gradlab.data.replay import Batch
from gradlab.networks.products import fast_products
from gradlab.training.asynchronous.work import (
    Arrays,
    ComputedGradient,
    GradientRequest,
    arrays,
    tensors,
)
from gradlab.training.collection import Ended
from gradlab.training.recording import evaluation_row
from gradlab.training.state import Run, begin, environments_of, replay_of


def opened(world: bytes) -> Run:
    """A run of its own, whose networks each call replaces."""
    algorithm, task, settings = pickle.loads(world)
    if settings.precision == "float32":
        fast_products(settings.device).__enter__()  # for as long as the process lives
    return begin(algorithm, task, settings)


@final
class _Actor:
    """Steps environments."""

    def __init__(self, run: Run, number: int) -> None:
        self._run = run
        self._environments = environments_of(run.task, run.settings, run.learner, number)
        self._rows = replay_of(run.algorithm, run.learner, run.settings.agents)

    def step(self, policy: Arrays, state: Arrays) -> tuple[NDArray[Any], Ended, Arrays]:
        """One step from where the environments are: rows of replay [E, agents, width], episodes
        that ended, and where the environments are then."""
        learner, environments = self._run.learner, self._environments
        learner.trained_policy.load("policy", tensors(policy))
        environments.load(tensors(state))
        ended = environments.step(learner.explore, self._rows)
        return self._rows.rows.cpu().numpy().copy(), ended, arrays(environments.saved())


@final
class _Buffer:
    """Holds transitions, its share among `count` buffers, and draws batches."""

    def __init__(self, run: Run, count: int) -> None:
        self._replay = replay_of(run.algorithm, run.learner, run.algorithm.replay // count)

    def draw(self, first: int, rows: NDArray[Any], uniform: NDArray[Any]) -> Arrays:
        """Store rows, of which the first is the `first`-th of this buffer; then draw a batch."""
        given = tensors({"rows": rows, "uniform": uniform})
        self._replay.added = first  # a new process begins where the one before it has died
        self._replay.put(given["rows"])
        return arrays(self._replay.sample(given["uniform"]).tensors)


@final
class LearnerProcess:
    """Computes gradients."""

    def __init__(self, run: Run) -> None:
        self._learner = run.learner

    def gradient(self, networks: Arrays, asked: GradientRequest) -> ComputedGradient:
        """Of critics or policy at these networks."""
        begun, learner = time.perf_counter(), self._learner
        cached = {} if asked.targets is None else {"cached_targets": asked.targets}
        learner.load(tensors(networks | cached))
        on_device = {k: x.to(learner.device) for k, x in tensors(asked.batch).items()}
        batch = Batch(**on_device)
        compute = self._critic if asked.role == "critic" else self._policy
        given = compute(asked, batch)
        return replace(given, seconds=time.perf_counter() - begun)

    def _critic(self, asked: GradientRequest, batch: Batch) -> ComputedGradient:
        learner = self._learner
        assert learner.trained_critic is not None
        ((loss, value),) = learner.critic_losses(asked.number, batch)
        return ComputedGradient(
            gradients=_listed(learner.trained_critic.gradients_of(loss.sum())),
            loss=_array(loss.sum(dim=1)),
            value=_array(value.mean(dim=(1, 2))),
            targets=None if learner.targets is None else _array(learner.targets),
        )

    def _policy(self, asked: GradientRequest, batch: Batch) -> ComputedGradient:
        learner = self._learner
        loss, horizon = learner.policy_loss(asked.number, batch, asked.weights, learner.draws)
        gradients = _listed(learner.trained_policy.gradients_of(loss.sum()))
        return ComputedGradient(gradients, _array(loss), horizon=horizon, targets=asked.targets)


def _array(tensor: Tensor) -> NDArray[Any]:
    return np.asarray(tensor.detach().cpu().numpy())


def _listed(gradients: tuple[Tensor, ...]) -> list[NDArray[Any]]:
    return [np.ascontiguousarray(_array(gradient)) for gradient in gradients]


@final
class _Evaluator:
    """Evaluates policies."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def row(self, networks: Arrays, now: dict[str, Any]) -> dict[str, Any]:
        """A row of the table of evaluations; now: iteration, seconds and transitions of the run."""
        run = self._run
        run.learner.load(tensors(networks))
        run.iteration, run.seconds, run.replay.added = now.values()
        return evaluation_row(run)


ROLES: dict[str, Callable[..., Any]] = {
    "actor": _Actor,
    "buffer": _Buffer,
    "learner": LearnerProcess,
    "evaluator": _Evaluator,
}


@final
class Member:
    """A process with everything at hand, until it is given a role."""

    def __init__(self, world: bytes) -> None:
        self._run = opened(world)
        self._object: Any = None

    def become(self, role: str, *arguments: Any) -> None:
        self._object = ROLES[role](self._run, *arguments)

    def do(self, method: str, *arguments: Any) -> Any:
        return getattr(self._object, method)(*arguments)
