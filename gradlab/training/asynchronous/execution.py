"""A run whose work is done by actors and learners.

This process is the optimiser. It keeps every transition and draws the batches. Steps of the actors
are stored in the order in which they were begun, gradients wait in a queue and are applied.

Processes are actors of Ray, which starts a dead one again and repeats its calls. They take no share
of a processor in Ray's accounts: each finds a place, whatever there is.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, final

import cloudpickle
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab.data.replay import Batch
from gradlab.errors import Failure, InputError, in_short, one_line
from gradlab.machine import cluster
from gradlab.storage.journal import Journal
from gradlab.training.asynchronous.processes import ActorProcess, LearnerProcess, Process
from gradlab.training.asynchronous.work import (
    Arrays,
    ComputedGradient,
    Job,
    LagWindow,
    Work,
    arrays,
    ends_use,
    first_of,
    following,
    networks_of,
    policy_of,
    tensors,
)
from gradlab.training.collection import Ended
from gradlab.training.learner import UpdateRecord, common
from gradlab.training.run import HERE, Execution
from gradlab.training.settings import ROLES
from gradlab.training.state import Run, environments_of

_ATTEMPTS = 5  # processes that may die of one call, one after another


@final
class Members:
    """All processes of a run.

    Args:
        ray: the module, connected; world: of `execution.packed`.
    """

    def __init__(self, ray: Any, world: bytes) -> None:
        self.ray, self._world = ray, world
        self._actors: list[Any] = []

    def start(self, name: str, kind: type[Process], *arguments: Any) -> _Member:
        """Start a process; name: for messages, such as "learner 2"."""
        actor = self.ray.remote(kind).options(
            num_cpus=0, scheduling_strategy="SPREAD",
            max_restarts=-1, max_task_retries=_ATTEMPTS - 1,
        )  # fmt: skip
        self._actors.append(actor.remote(self._world, *arguments))
        return _Member(self.ray, name, self._actors[-1])

    def ended(self, calls: Sequence[_PendingCall], wait: bool) -> list[_PendingCall]:
        """Those that have an answer, or an error; wait: until there is one."""
        listed = [call.reference for call in calls]
        if wait:
            self.ray.wait(listed)
        ended, _ = self.ray.wait(listed, num_returns=len(listed), timeout=0)
        return [call for call in calls if call.reference in ended]

    def end(self) -> None:
        """End all processes at once: none of them has anything to save."""
        for actor in self._actors:
            self.ray.kill(actor)


@final
class _Member:
    """A process, whichever has its place."""

    def __init__(self, ray: Any, name: str, actor: Any) -> None:
        self.ray, self.name, self._actor = ray, name, actor

    def call(self, method: str, *arguments: Any) -> _PendingCall:
        """Call a method; returns at once, and calls are served in order."""
        return _PendingCall(self, method, self._actor.answer.remote(method, *arguments))


@final
class _PendingCall:
    """A call that may wait, be served or be over."""

    def __init__(self, member: _Member, method: str, reference: Any) -> None:
        self._member, self._method, self.reference = member, method, reference

    def result(self) -> Any:
        """The answer, waited for.

        Raises:
            InputError: the method raised one.
            Failure: it raised something else, or killed every process.
        """
        ray, name = self._member.ray, self._member.name
        try:
            return ray.get(self.reference)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, InputError):
                raise InputError(error.cause) from None
            said = f"{type(error.cause).__name__}: {in_short(error.cause)}"
            raise Failure(f"{self._method} failed in {name} with {said}") from None
        except ray.exceptions.RayActorError as death:
            raise Failure(
                f"{name} died {_ATTEMPTS} times of one call ({in_short(death)}); the last saved "
                f"state is kept: go on with resume=True"
            ) from None


@final
class _Actors:
    """The processes that step environments, in turn."""

    def __init__(self, members: Members, work: Work) -> None:
        self._work = work
        self._actors = [
            members.start(f"actor {k}", ActorProcess, k) for k in range(len(work.environments))
        ]
        self._under_way: deque[tuple[int, _PendingCall]] = deque()

    def step(self, run: Run) -> Ended:
        """The next step into replay, waited for."""
        policy, environments = policy_of(run.learner), self._work.environments
        while len(self._under_way) < len(self._actors):
            taken = sum(each.steps for each in environments) + len(self._under_way)
            actor = taken % len(self._actors)
            state = arrays(environments[actor].saved())
            self._under_way.append((actor, self._actors[actor].call("step", policy, state)))
        actor, call = self._under_way.popleft()
        rows, ended, state = call.result()
        run.replay.put(tensors({"rows": rows})["rows"])
        environments[actor].load(tensors(state))
        self._work.window.step(actor)
        return ended  # type: ignore[no-any-return]

    def recall(self) -> None:
        """Steps under way are begun again later."""
        self._under_way.clear()


_OWN = "gradlab_own_"  # modules of a user's files, which other processes cannot import
_CRITIC = ("critic_loss", "value", "critic_norm")


@dataclass(frozen=True, eq=False)
class _Begun:
    """A gradient that a learner computes or has computed.

    Attributes:
        version: steps that its network had made when it was begun.
        answer: once it is computed.
    """

    learner: int
    job: Job
    version: int
    call: _PendingCall
    answer: ComputedGradient | None = None


@final
class Optimiser:
    """The networks of a run follow gradients of its learners."""

    def __init__(self, members: Members, run: Run, work: Work) -> None:
        assert run.settings.asynchronous is not None
        self._members, self._work = members, work
        self._choice, self._row = run.settings.asynchronous, run.algorithm
        self._learners = [
            members.start(f"learner {k}", LearnerProcess) for k in range(self._choice.learners)
        ]
        self._under_way: list[_Begun] = []  # in the order in which they were begun
        self._queue: deque[_Begun] = deque()
        self._versions = dict.fromkeys(ROLES, 0)  # steps so far
        self._networks: Arrays | None = None  # as they are now

    def update(self, run: Run) -> UpdateRecord:
        """Apply gradients until an update is complete: the critics' and, every `delay` uses of a
        batch, the policy's after it."""
        while True:
            if self._choice.deterministic:
                self._receive_in_order(run)
            else:
                self._receive_as_they_come(run)
            update = self._apply(run, self._queue.popleft())
            if update is not None:
                return update

    def recall(self) -> None:
        """Gradients that are not applied are computed again later, at the networks of then."""
        for begun in reversed([*self._queue, *self._under_way]):
            self._work.jobs[begun.learner] = begun.job
        self._queue.clear()
        self._under_way.clear()

    def _receive_in_order(self, run: Run) -> None:
        """Until one gradient more has arrived than may wait, each after those begun before it."""
        self._begin(run)
        while len(self._queue) <= self._choice.queue:
            self._arrived(self._under_way[0])
            self._begin(run)

    def _receive_as_they_come(self, run: Run) -> None:
        """Those that have arrived, or the next."""
        self._begin(run)
        calls = [begun.call for begun in self._under_way]
        ended = self._members.ended(calls, wait=not self._queue)
        for begun in [each for each in self._under_way if each.call in ended]:
            self._arrived(begun)
        self._begin(run)

    def _arrived(self, begun: _Begun) -> None:
        """It waits from now on; its learner has the next gradient of its batch to compute."""
        answer: ComputedGradient = begun.call.result()
        self._under_way.remove(begun)
        self._queue.append(replace(begun, answer=answer))
        batch = begun.job.batch
        if answer.targets is not None:
            batch = batch | {"cached_targets": answer.targets}
        job = following(self._row, replace(begun.job, batch=batch))
        if job is None:
            del self._work.jobs[begun.learner]
        else:
            self._work.jobs[begun.learner] = job

    def _begin(self, run: Run) -> None:
        """Give work to every learner whose gradient has been applied or has room in the queue."""
        waiting = list(self._queue)[self._choice.queue :]
        busy = {begun.learner for begun in (*self._under_way, *waiting)}
        for learner in range(len(self._learners)):
            if learner not in busy:
                self._under_way.append(self._begun(run, learner))

    def _begun(self, run: Run, learner: int) -> _Begun:
        if learner not in self._work.jobs:
            number = self._work.batches * run.algorithm.reuse
            self._work.batches += 1
            batch = arrays(run.drawn(run.learner.draws, number).tensors)
            self._work.jobs[learner] = first_of(run.algorithm, number, batch)
        self._networks = self._networks or networks_of(run.learner)
        job, weights = self._work.jobs[learner], run.learner.weights(run.iteration)
        call = self._learners[learner].call("gradient", self._networks, job, weights)
        return _Begun(learner, job, self._versions[job.role], call)

    def _apply(self, run: Run, begun: _Begun) -> UpdateRecord | None:
        """One step of the critics or the policy; the update, if it is complete."""
        job, answer, learner = begun.job, begun.answer, run.learner
        assert answer is not None
        lag = self._versions[job.role] - begun.version
        self._work.window.gradient(job.role, lag, begun.learner, answer.seconds)
        self._versions[job.role] += 1
        self._networks = None
        learner.set_rates(run.iteration)
        policy = None
        if job.role == "critic":
            self._work.critics[begun.learner] = self._critic_step(run, answer)
        else:
            policy = self._policy_step(run, job, answer)
        if not ends_use(self._row, job):
            return None
        learner.move_targets(run.iteration, policy is not None)
        return self._ended(run, self._work.critics.pop(begun.learner, None), policy, answer)

    def _critic_step(self, run: Run, answer: ComputedGradient) -> dict[str, Tensor]:
        trained = run.learner.trained_critic
        assert trained is not None and answer.value is not None
        norm = trained.follow(_on(run, answer.gradients), run.algorithm.critics)
        loss, value = _on(run, [answer.loss, answer.value])
        seconds = torch.tensor(answer.seconds, dtype=torch.float64)
        return dict(zip((*_CRITIC, "seconds"), (loss, value, norm, seconds), strict=True))

    def _policy_step(self, run: Run, job: Job, answer: ComputedGradient) -> Tensor:
        """The norm of the policy's gradient, [E]."""
        norm = run.learner.trained_policy.follow(_on(run, answer.gradients))
        batch = {name: x.to(run.learner.device) for name, x in tensors(job.columns).items()}
        run.learner.update_temperature(job.number, Batch(**batch))
        return norm

    def _ended(
        self,
        run: Run,
        critic: dict[str, Tensor] | None,
        policy: Tensor | None,
        answer: ComputedGradient,
    ) -> UpdateRecord:
        learner, acted = run.learner, policy is not None
        zeros = torch.zeros(len(learner.seeds), device=learner.device, dtype=learner.dtype)
        loss, value, critic_norm = (
            zeros if critic is None else critic[name].to(zeros) for name in _CRITIC
        )
        return UpdateRecord(
            loss, value, critic_norm, policy, _on(run, [answer.loss])[0] if acted else None,
            common(learner.weights(run.iteration)), answer.horizon,
            0.0 if critic is None else float(critic["seconds"]), answer.seconds if acted else 0.0,
            None if learner.tuned is None else learner.tuned.value[:, 0].clone(),
        )  # fmt: skip


def _on(run: Run, values: Sequence[NDArray[Any]]) -> tuple[Tensor, ...]:
    """On the device of the networks."""
    return tuple(torch.from_numpy(np.require(x, None, "W")).to(run.learner.device) for x in values)


_TABLE = "asynchrony"


def prepare(run: Run) -> None:
    """What a run in several processes has beside the others, before its state is loaded."""
    choice = run.settings.asynchronous
    if choice is None:
        return
    others = range(1, choice.actors)
    more = [environments_of(run.task, run.settings, run.learner, actor) for actor in others]
    run.work = Work([run.environments, *more], LagWindow(choice))


@contextmanager
def execution(run: Run, ray: str | None) -> Iterator[Execution]:
    """Where the work of the run is done: here, or in processes that end with the context.

    Args:
        ray: HOST:PORT of a cluster; None or "local": one of this machine.
    """
    if run.settings.asynchronous is None:
        yield HERE
        return
    world = _packed(run)
    with cluster(ray or "local") as connected:
        members = Members(connected, world)
        try:
            yield _Distributed(run, members)
        finally:
            members.end()


def _packed(run: Run) -> bytes:
    """Algorithm, task and settings, with functions of a user's file or script."""
    own = [module for name, module in sys.modules.items() if name.startswith(_OWN)]
    for module in own:
        cloudpickle.register_pickle_by_value(module)
    try:
        return bytes(cloudpickle.dumps((run.algorithm, run.task, run.settings)))
    except Exception as error:
        raise InputError(
            f"task {run.task.name!r} cannot be sent to other processes ({one_line(error)}): make "
            f"it of plain values, arrays and functions, or leave learners and actors out"
        ) from error
    finally:
        for module in own:
            cloudpickle.unregister_pickle_by_value(module)


@final
class _Distributed:
    """Actors and learners; this process is the optimiser, and evaluates."""

    def __init__(self, run: Run, members: Members) -> None:
        assert run.work is not None
        self._work = run.work
        self._actors = _Actors(members, run.work)
        self._optimiser = Optimiser(members, run, run.work)
        self.step, self.update = self._actors.step, self._optimiser.update

    def record(self, run: Run, journal: Journal) -> None:
        journal.append(_TABLE, self._work.window.row(run.iteration, run.seconds))

    def settle(self) -> None:
        """What is under way begins again, also in the run that goes on now."""
        self._optimiser.recall()
        self._actors.recall()
