"""A run whose work is done by actors, buffers, learners and an evaluator.

This process is the optimiser. It keeps every transition, so that a buffer that dies is filled
again. Steps of the actors are stored in the order in which they were begun, gradients wait in a
queue and are applied.
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

from gradlab.data.replay import Batch, Replay
from gradlab.errors import InputError, one_line
from gradlab.storage.journal import Journal
from gradlab.training.asynchronous.supervision import Note, PendingCall, Supervised, Supervisor
from gradlab.training.asynchronous.work import (
    Arrays,
    ComputedGradient,
    GradientRequest,
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
from gradlab.workers import pool_of


@final
class _Actors:
    """The processes that step environments, in turn."""

    def __init__(self, supervisor: Supervisor, work: Work) -> None:
        self._work = work
        self._actors = [
            Supervised(supervisor, f"actor {k}", "actor", (k,))
            for k in range(len(work.environments))
        ]
        self._under_way: deque[tuple[int, PendingCall]] = deque()

    def step(self, run: Run) -> Ended:
        """The next step into replay, waited for."""
        policy = policy_of(run.learner)
        while len(self._under_way) < len(self._actors):
            self._begin(policy)
        actor, call = self._under_way.popleft()
        rows, ended, state = call.result()
        run.replay.put(tensors({"rows": rows})["rows"])
        self._work.environments[actor].load(tensors(state))
        self._work.window.step(actor)
        return ended  # type: ignore[no-any-return]

    def recall(self) -> None:
        """Steps under way are begun again later."""
        for _, call in self._under_way:
            call.drop()
        self._under_way.clear()

    def _begin(self, policy: Arrays) -> None:
        taken = sum(each.steps for each in self._work.environments) + len(self._under_way)
        actor = taken % len(self._actors)
        state = arrays(self._work.environments[actor].saved())
        call = self._actors[actor].call("step", lambda: (policy, state))
        self._under_way.append((actor, call))


@final
class _Buffers:
    """The processes that draw batches, in turn; with a queue, one of each is drawn ahead."""

    def __init__(self, supervisor: Supervisor, run: Run) -> None:
        choice = run.settings.asynchronous
        assert choice is not None and run.work is not None
        self._work, self._ahead = run.work, choice.buffers if choice.queue else 0
        turn = choice.actors * run.settings.agents
        self._buffers = [
            _Buffer(supervisor, k, choice.buffers, turn) for k in range(choice.buffers)
        ]
        self._drawn: deque[PendingCall] = deque()

    def next(self, run: Run) -> tuple[int, Arrays]:
        """The number of the next batch, and its columns."""
        while len(self._drawn) <= self._ahead:
            self._begin(run, self._work.batches + len(self._drawn))
        batch: Arrays = self._drawn.popleft().result()
        self._work.batches += 1
        return self._work.batches - 1, batch

    def recall(self) -> None:
        """Batches that no learner has are drawn again later."""
        for call in self._drawn:
            call.drop()
        self._drawn.clear()

    def _begin(self, run: Run, number: int) -> None:
        row = run.algorithm
        uniform = run.learner.draws.uniform("batch", number * row.reuse, (row.batch,))
        buffer = self._buffers[number % len(self._buffers)]
        self._drawn.append(buffer.draw(run.replay, uniform.numpy()))


@final
class _Buffer:
    """One buffer, which is sent what it lacks with each draw.

    Args:
        turn: transitions that go to one buffer before the next has its turn.
    """

    def __init__(self, supervisor: Supervisor, number: int, count: int, turn: int) -> None:
        self._number, self._count, self._turn = number, count, turn
        self._newest = -1  # number of the last transition that it has
        self._process = Supervised(supervisor, f"buffer {number}", "buffer", (count,), self._lost)

    def draw(self, replay: Replay, uniform: NDArray[Any]) -> PendingCall:
        until = replay.added  # what is stored later is no part of this batch
        return self._process.call("draw", lambda: (*self._lacking(replay, until), uniform))

    def _lacking(self, replay: Replay, until: int) -> tuple[int, NDArray[Any]]:
        """The place of the first row that it lacks, and the rows [E, n, width]."""
        oldest = max(replay.added - len(replay), self._newest + 1)
        numbers = np.arange(oldest, until)
        mine = numbers[numbers // self._turn % self._count == self._number]
        first = self._places(mine)[0] if len(mine) else self._places(self._newest) + 1
        self._newest = int(mine[-1]) if len(mine) else self._newest
        at = torch.from_numpy(mine % replay.rows.shape[1]).to(replay.rows.device)
        return int(first), replay.rows[:, at].cpu().numpy()

    def _places(self, numbers: Any) -> Any:
        """Of transitions that are this buffer's, among those that are."""
        return numbers // (self._turn * self._count) * self._turn + numbers % self._turn

    def _lost(self) -> None:
        self._newest = -1


_OWN = "gradlab_own_"  # modules of a user's files, which other processes cannot import
_CRITIC = ("critic_loss", "value", "critic_norm")


@dataclass(frozen=True, eq=False)
class _Begun:
    """A gradient that a learner computes or has computed.

    Attributes:
        version: steps that its network had made when it was begun.
    """

    learner: int
    job: Job
    version: int
    call: PendingCall


@final
class Optimiser:
    """The networks of a run follow gradients of its learners."""

    def __init__(self, supervisor: Supervisor, run: Run, work: Work, buffers: _Buffers) -> None:
        assert run.settings.asynchronous is not None
        self._supervisor, self._work, self._buffers = supervisor, work, buffers
        self._choice, self._row = run.settings.asynchronous, run.algorithm
        self._learners = [
            Supervised(supervisor, f"learner {k}", "learner", ())
            for k in range(self._choice.learners)
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
            begun.call.drop()
        self._queue.clear()
        self._under_way.clear()

    def networks(self, run: Run) -> Arrays:
        """As they are now, the same object as long as they are."""
        if self._networks is None:
            self._networks = networks_of(run.learner)
        return self._networks

    def _receive_in_order(self, run: Run) -> None:
        """Until one gradient more has arrived than may wait, each after those begun before it."""
        self._begin(run)
        while len(self._queue) <= self._choice.queue:
            self._under_way[0].call.result()
            self._arrived(self._under_way[0])
            self._begin(run)

    def _receive_as_they_come(self, run: Run) -> None:
        """Those that have arrived, or the next."""
        self._begin(run)
        by_call = {id(begun.call): begun for begun in self._under_way}
        calls = [begun.call for begun in self._under_way]
        for call in self._supervisor.ended(calls, 0.0 if self._queue else None):
            self._arrived(by_call[id(call)])
        self._begin(run)

    def _arrived(self, begun: _Begun) -> None:
        """It waits from now on; its learner has the next gradient of its batch to compute."""
        self._under_way.remove(begun)
        self._queue.append(begun)
        answer: ComputedGradient = begun.call.value
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
            number, batch = self._buffers.next(run)
            self._work.jobs[learner] = first_of(run.algorithm, number * run.algorithm.reuse, batch)
        job, networks = self._work.jobs[learner], self.networks(run)
        targets, weights = job.batch.get("cached_targets"), run.learner.weights(run.iteration)
        asked = GradientRequest(job.role, job.number, job.columns, targets, weights)
        call = self._learners[learner].call("gradient", lambda: (networks, asked))
        return _Begun(learner, job, self._versions[job.role], call)

    def _apply(self, run: Run, begun: _Begun) -> UpdateRecord | None:
        """One step of the critics or the policy; the update, if it is complete."""
        job, answer, learner = begun.job, begun.call.value, run.learner
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
def execution(run: Run, ray: str | None, note: Note) -> Iterator[Execution]:
    """Where the work of the run is done: here, or in processes that end with the context.

    Args:
        ray: "local", or HOST:PORT of a cluster; None: processes of this machine.
        note: is given a line where processes are crowded, or one has died.
    """
    choice = run.settings.asynchronous
    if choice is None:
        yield HERE
        return
    world = packed(run)
    with pool_of(ray, choice.processes) as pool:  # with the spare one
        crowded = choice.crowded(pool.cores)
        if crowded:
            note(crowded)
        supervisor = Supervisor(pool, world, note)
        try:
            yield _Distributed(run, supervisor)
        finally:
            supervisor.end()


def packed(run: Run) -> bytes:
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


@dataclass(frozen=True, eq=False)
class _Evaluation:
    """One that the evaluator makes; iteration: of its policies."""

    iteration: int
    call: PendingCall


@final
class _Distributed:
    """Actors, buffers, learners and an evaluator; this process is the optimiser."""

    def __init__(self, run: Run, supervisor: Supervisor) -> None:
        assert run.work is not None
        self._supervisor, self._work = supervisor, run.work
        self._actors = _Actors(supervisor, run.work)
        self._buffers = _Buffers(supervisor, run)
        self._optimiser = Optimiser(supervisor, run, run.work, self._buffers)
        self._evaluator = Supervised(supervisor, "evaluator", "evaluator", ())
        supervisor.have_spare()
        self._evaluation: _Evaluation | None = None

    def step(self, run: Run) -> Ended:
        return self._actors.step(run)

    def update(self, run: Run) -> UpdateRecord:
        return self._optimiser.update(run)

    def evaluate(self, run: Run, journal: Journal) -> None:
        """One evaluation is under way at a time."""
        self._store_evaluation(journal)
        networks = self._optimiser.networks(run)
        now = {
            "iteration": run.iteration,
            "seconds": run.seconds,
            "transitions": run.replay.added,
        }
        call = self._evaluator.call("row", lambda: (networks, now))
        self._evaluation = _Evaluation(run.iteration, call)

    def record(self, run: Run, journal: Journal) -> None:
        journal.append(
            _TABLE, self._work.window.row(run.iteration, run.seconds, self._supervisor.replaced)
        )
        if self._evaluation is not None and self._supervisor.ended([self._evaluation.call], 0.0):
            self._store_evaluation(journal)

    def settle(self, run: Run, journal: Journal) -> None:
        """Whoever goes on from this state evaluates its policies again, but no earlier ones; and
        what is under way begins again, also in the run that goes on now."""
        under_way = self._evaluation
        if under_way is not None and (under_way.iteration < run.iteration or run.done):
            self._store_evaluation(journal)
        self._optimiser.recall()
        self._buffers.recall()
        self._actors.recall()

    def _store_evaluation(self, journal: Journal) -> None:
        if self._evaluation is not None:
            journal.append("evaluations", self._evaluation.call.result())
            self._evaluation = None
