"""What the processes do. Whatever they need comes with each call; they keep what is large.

A call can be repeated in another process, with the same answer: draws follow from numbers in it.
"""

from __future__ import annotations

import pickle
import time
from dataclasses import replace
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gradlab.data.replay import Batch
from gradlab.networks.layers import fast_products
from gradlab.training.asynchronous.work import Arrays, ComputedGradient, Job, arrays, tensors
from gradlab.training.collection import Ended
from gradlab.training.parts.context import Floats
from gradlab.training.state import Run, begin, environments_of, replay_of


def opened(world: bytes) -> Run:
    """A run of its own, whose networks each call replaces."""
    algorithm, task, settings = pickle.loads(world)
    if settings.precision == "float32":
        fast_products(settings.device).__enter__()  # for as long as the process lives
    return begin(algorithm, task, settings)


class Process:
    """One of them, with a run of its own."""

    def __init__(self, world: bytes) -> None:
        self.run = opened(world)

    def answer(self, method: str, *arguments: Any) -> Any:
        """Call a method."""
        return getattr(self, method)(*arguments)


@final
class ActorProcess(Process):
    """Steps environments."""

    def __init__(self, world: bytes, number: int) -> None:
        super().__init__(world)
        run = self.run
        self._environments = environments_of(run.task, run.settings, run.learner, number)
        self._rows = replay_of(run.algorithm, run.learner, run.settings.agents)

    def step(self, policy: Arrays, state: Arrays) -> tuple[NDArray[Any], Ended, Arrays]:
        """One step from where the environments are: rows of replay [E, agents, width], episodes
        that ended, and where the environments are then."""
        learner, environments = self.run.learner, self._environments
        learner.trained_policy.load("policy", tensors(policy))
        environments.load(tensors(state))
        ended = environments.step(learner.explore, self._rows)
        return self._rows.rows.cpu().numpy().copy(), ended, arrays(environments.saved())


@final
class LearnerProcess(Process):
    """Computes gradients."""

    def gradient(self, networks: Arrays, job: Job, weights: Floats) -> ComputedGradient:
        """Of critics or policy at these networks; weights: of the mixture, [E, terms]."""
        begun, learner = time.perf_counter(), self.run.learner
        cached = {name: x for name, x in job.batch.items() if name not in job.columns}
        learner.load(tensors(networks | cached))
        batch = Batch(**{k: x.to(learner.device) for k, x in tensors(job.columns).items()})
        if job.role == "critic":
            given = self._critic(job, batch)
        else:
            loss, horizon = learner.policy_loss(job.number, batch, weights, learner.draws)
            gradients = _listed(learner.trained_policy.gradients_of(loss.sum()))
            given = ComputedGradient(gradients, _array(loss), horizon=horizon)
        return replace(given, seconds=time.perf_counter() - begun)

    def _critic(self, job: Job, batch: Batch) -> ComputedGradient:
        learner = self.run.learner
        assert learner.trained_critic is not None
        ((loss, value),) = learner.critic_losses(job.number, batch)
        return ComputedGradient(
            gradients=_listed(learner.trained_critic.gradients_of(loss.sum())),
            loss=_array(loss.sum(dim=1)),
            value=_array(value.mean(dim=(1, 2))),
            targets=None if learner.targets is None else _array(learner.targets),
        )


def _array(tensor: Tensor) -> NDArray[Any]:
    return np.asarray(tensor.detach().cpu().numpy())


def _listed(gradients: tuple[Tensor, ...]) -> list[NDArray[Any]]:
    return [np.ascontiguousarray(_array(gradient)) for gradient in gradients]
