"""A run whose work is done by several processes (`training.run.Execution`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

from gradlab.storage.journal import Journal
from gradlab.training.asynchronous.choice import Asynchronous
from gradlab.training.asynchronous.experience import Actors, Buffers
from gradlab.training.asynchronous.gradients import Optimiser
from gradlab.training.asynchronous.messages import packed
from gradlab.training.asynchronous.supervision import Note, PendingCall, Supervised, Supervisor
from gradlab.training.asynchronous.window import Window
from gradlab.training.asynchronous.work import Work
from gradlab.training.collection import Ended
from gradlab.training.run import HERE, Execution
from gradlab.training.state import Run, environments_of
from gradlab.training.update import Update
from gradlab.workers import Pool
from gradlab.workers.local import LocalPool

TABLE = "asynchrony"


def prepare(run: Run) -> None:
    """What a run in several processes has beside the others, before its state is loaded."""
    choice = run.settings.asynchronous
    if choice is None:
        return
    others = range(1, choice.actors)
    more = [environments_of(run.task, run.settings, run.learner, actor) for actor in others]
    run.work = Work([run.environments, *more], Window(choice))


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
    with pool_of(choice, ray) as pool:
        crowded = choice.crowded(pool.cores)
        if crowded:
            note(crowded)
        supervisor = Supervisor(pool, world, note)
        try:
            yield Distributed(run, supervisor)
        finally:
            supervisor.end()


def pool_of(choice: Asynchronous, ray: str | None) -> Pool:
    """
    Raises:
        InputError: Ray is not installed, or there is no such cluster.
    """
    if ray is None:
        return LocalPool()
    from gradlab.workers.cluster import ClusterPool

    return ClusterPool(ray, workers=choice.processes)  # with the spare one


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One that the evaluator makes; iteration: of its policies."""

    iteration: int
    call: PendingCall


@final
class Distributed:
    """Actors, buffers, learners and an evaluator; this process is the optimiser."""

    def __init__(self, run: Run, supervisor: Supervisor) -> None:
        assert run.work is not None
        self._supervisor, self._work = supervisor, run.work
        self._actors = Actors(supervisor, run.work)
        self._buffers = Buffers(supervisor, run)
        self._optimiser = Optimiser(supervisor, run, run.work, self._buffers)
        self._evaluator = Supervised(supervisor, "evaluator", "evaluator", ())
        supervisor.have_spare()
        self._evaluation: Evaluation | None = None

    def step(self, run: Run) -> Ended:
        return self._actors.step(run)

    def update(self, run: Run) -> Update:
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
        self._evaluation = Evaluation(run.iteration, call)

    def record(self, run: Run, journal: Journal) -> None:
        journal.append(
            TABLE, self._work.window.row(run.iteration, run.seconds, self._supervisor.replaced)
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
