"""The probe of a training run: the quality of every seed's gradients, at a stated cost.

Budget, alarms and columns are those of `gradlab.probe`; every alarm names its seed. The run has the
same bits with it as without; where it fails, it warns once and is off. A seed that is lost is
trained again from the last window, alone, until the operation that was not finite is found.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, final

from torch import Tensor, nn

from gradlab.data.replay import Batch
from gradlab.networks.checkpoint import architecture_of
from gradlab.probe.alarms.catalogue import Alarm
from gradlab.probe.alarms.gradients import ORIGIN
from gradlab.probe.budget import Budget, Clock
from gradlab.probe.isolation import warn
from gradlab.probe.origin import Finder
from gradlab.probe.sampler import Measurements
from gradlab.probe.task_question import Question
from gradlab.runs.training import probe_results
from gradlab.storage.journal import Journal
from gradlab.storage.journal_tables import Table
from gradlab.storage.records import Attribute
from gradlab.tasks import Task
from gradlab.training import seed_rows
from gradlab.training.algorithms import Algorithm
from gradlab.training.learner import Learner, UpdateRecord, alone
from gradlab.training.models.seed_models import Model, of_seed
from gradlab.training.parts.context import MeasuredWeights
from gradlab.training.parts.critics import Q
from gradlab.training.seed_rows import Rows, SeedRows, SeedSignals, SeedStatistics
from gradlab.training.settings import Settings
from gradlab.training.state import Run

_ALONE = " (rows 0 of 1)"  # the axis of seeds, which says nothing of one seed


@dataclass(frozen=True)
class _Made:
    """The inputs of an update."""

    iteration: int
    batch: Batch
    model: Model | None


@final
class _Origins:
    """The state at the end of the last window, and the updates since then."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.remember()

    def remember(self) -> None:
        """A window has ended with every seed as sound as before."""
        self._state = {name: value.clone() for name, value in self.run.learner.state().items()}
        self._since: list[_Made] = []

    def add(self, iteration: int) -> None:
        """An update was made."""
        assert self.run.batch is not None
        self._since.append(_Made(iteration, self.run.batch, self.run.learner.model))

    def of(self, member: int) -> str:
        """In words, where the seed was lost since then; empty where nothing of that is found, such
        as for networks that were not finite before."""
        last = self._lost_in(member)
        if last is None:
            return ""
        single, finder = alone(self.run.learner, member, self._state), Finder()
        for made in self._since[:last]:
            self._update(single, member, made)
        with finder:
            self._update(single, member, self._since[last])
        found = finder.found.replace(_ALONE, "")
        return f"{found}, in update {self._since[last].iteration}" if found else ""

    def _lost_in(self, member: int) -> int | None:
        """The place of the first update that is not finite."""
        single = alone(self.run.learner, member, self._state)
        for k, made in enumerate(self._since):
            update = self._update(single, member, made)
            numbers = (
                update.critic_loss, update.critic_norm, update.policy_loss, update.policy_norm,
            )  # fmt: skip
            if not all(bool(number.isfinite().all()) for number in numbers if number is not None):
                return k
        return None

    def _update(self, single: Learner, member: int, made: _Made) -> UpdateRecord:
        own = {name: v[member : member + 1] for name, v in made.batch.tensors.items()}
        single.model = of_seed(made.model, member, len(self.run.learner.seeds))
        return single.update(made.iteration, Batch(**own))


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
        # The next seed that is not lost.
        lost, seeds = self.run.lost, self.run.settings.seeds
        turns = [(self._turn + k) % seeds for k in range(seeds)]
        seed = next((seed for seed in turns if not lost[seed]), None)
        if seed is None or not self.measurements.due(seed):
            return None
        self._turn = seed + 1
        return seed, self.measurements.row(self.run.algorithm.batch, self.run.iteration, seed)

    def _subject(self, seed: int) -> tuple[Question, nn.Module]:
        run = self.run
        task = run.task
        if run.dynamics is not None and run.dynamics.fitted:
            task = replace(task, prior=run.dynamics.system_of(seed))
        learner = run.learner
        critic = None if unmeasured(run.algorithm) else learner.critic_of(seed)
        return Question(task, critic, learner.seeds[seed]), learner.policy_of(seed)


ROW = 10  # rows of the run's own record to one of vitals


def tables(algorithm: Algorithm, task: Task, settings: Settings) -> dict[str, Table]:
    """The tables of a probed run beside its own; none where no budget is given."""
    if settings.probe_budget is None:
        return {}
    seeds = range(settings.first_seed, settings.first_seed + settings.seeds)
    given = None if settings.given is None else settings.given.policy
    hidden = algorithm.hidden if given is None else architecture_of(given)["hidden"]
    tensors = 2 * (len(hidden) + 1)
    longest = Question(task, None, 0).horizon
    return probe_results.tables(
        seeds, tensors, task.simulator.action_dim, longest, algorithm.horizons
    )


def attributes(learner: Learner) -> dict[str, Attribute]:
    """Attributes for readers of these tables; none where no budget is given."""
    if learner.settings.probe_budget is None:
        return {}
    return probe_results.attributes(names(learner), unmeasured(learner.algorithm))


def names(learner: Learner) -> list[str]:
    """Of the policy's tensors, in the order of `Network.parameters`: weights, then biases."""
    found = [name for name, _ in learner.policy_module.named_parameters()]
    kinds = ("weight", "bias")
    return [name for kind in kinds for name in found if name.endswith(kind)]


@final
class Probing:
    """The probe of one run; without a budget it does nothing.

    Args:
        clock: seconds, for the budget.
    """

    def __init__(self, run: Run, journal: Journal, clock: Clock = time.perf_counter) -> None:
        self.run, self.off = run, run.settings.probe_budget is None
        self._instruments: _Instruments | None = None
        if run.settings.probe_budget is not None:
            budget = Budget(run.settings.probe_budget, clock)
            self._instruments = self._attempt(_Instruments, run, journal, budget)
            run.learner.watch = None if self.off else self._see

    def before(self) -> None:
        """An update is about to be made."""
        if self._instruments is not None:
            self._attempt(self._instruments.before)

    def over(self, update: UpdateRecord) -> None:
        """It has been made and counted, and its row, where one was due, is written."""
        if self._instruments is not None:
            self._attempt(self._instruments.over, update)

    def close(self) -> None:
        """Write what is open; no more updates come."""
        if self._instruments is not None:
            self._attempt(self._instruments.finish)
        self._let_go()

    def _see(self, action: Tensor) -> None:
        if self._instruments is not None:
            self._attempt(self._instruments.see, action)

    def _attempt(self, work: Callable[..., Any], *given: Any) -> Any:
        """Call a part of the probe; where it fails, warn once and switch the probe off."""
        try:
            return work(*given)
        except Exception as error:  # nothing in here may stop the training
            self._let_go()
            warn("is off", error)
        return None

    def _let_go(self) -> None:
        self.off, self._instruments, self.run.learner.watch = True, None, None


@final
class _Instruments:
    """The instruments and their times. Their errors are the caller's to catch."""

    def __init__(self, run: Run, journal: Journal, budget: Budget) -> None:
        self.run, self.budget = run, budget
        self.statistics = SeedStatistics(run.learner)
        self.made = seed_rows.GradientCounts(run.algorithm.horizons)
        tensors = names(run.learner)
        self.rows = SeedRows(run, journal, tensors)
        weights = [name for name in tensors if name.endswith("weight")]
        self.signals = SeedSignals(run, weights, budget)
        self.measurements: SeedMeasurements | None = SeedMeasurements(run, budget)
        self.origins, self._lost = _Origins(run), run.lost.copy()
        self._due = False
        self._paths = self._update = 0.0  # seconds: following model paths, an update of the policy

    def before(self) -> None:
        self.budget.begin()
        algorithm, k = self.run.algorithm, self.run.iteration
        if k % algorithm.delay:
            return
        self._due = self.budget.look()
        if self._due:
            begun = self.budget.clock()
            self.statistics.before(k // algorithm.reuse)
            self.budget.pay(begun)

    def see(self, action: Tensor) -> None:
        if self._due:
            begun = self.budget.clock()
            self.statistics.see(action)
            self.budget.pay(begun)

    def over(self, update: UpdateRecord) -> None:
        if update.policy_norm is not None:
            begun = self.budget.clock()
            if self._due:
                self.statistics.after()
            self.made.add(update)
            self._update = update.policy_seconds
            self.budget.pay(begun)
        self._due = False
        settings, k = self.run.settings, self.run.iteration
        # The state that an origin is sought with.
        begun = self.budget.clock()
        self.origins.add(k - 1)
        self.budget.pay(begun)
        if k % self.run.settings.log_every == 0:
            self._find_origins()
            begun = self.budget.clock()
            self.origins.remember()
            self.budget.pay(begun)
        # Also where a state is saved: what is written again after a kill is whole.
        whole = (ROW * settings.log_every, settings.checkpoint_every, settings.iterations)
        if any(k % each == 0 for each in whole):
            self.file_window()
        if k % settings.log_every == 0:
            if (rows := self.signals.rows(self._update)) is not None:
                with self.budget.paying():
                    together = {"seconds": self.signals.seconds}
                    self.rows.file("successive", dict(enumerate(rows)), together)
            self._measured()

    def finish(self) -> None:
        """No more updates come."""
        self._find_origins()  # of the last seed, whose loss has ended the run
        self.file_window(last=True)
        self.rows.log.close()

    def _find_origins(self) -> None:
        """Of the seeds that are lost since the last window."""
        for member in (self.run.lost & ~self._lost).nonzero()[0]:
            with self.budget.paying():
                found = self.origins.of(int(member))
            if found:
                words = f"{found}: fix that operation, or what is fed to it"
                self.rows.report(Alarm(ORIGIN, words), int(member))
        self._lost = self.run.lost.copy()

    def file_window(self, last: bool = False) -> None:
        """The rows of the updates since the last ones; `last`: training stops here."""
        if not self.statistics.looked:
            return
        begun = self.budget.clock()
        together, own = self.statistics.rows()
        self.budget.pay(begun)
        together |= {"own_seconds": self.budget.own, "elapsed": self.budget.elapsed}
        together["spent"] = self.budget.spent
        with self.budget.paying():
            self.rows.file("vitals", dict(enumerate(own)), together)
        self._file_horizons(last)

    def _file_horizons(self, last: bool) -> None:
        run, together = self.run, self.made.row()
        own: Rows = {}
        if not last and seed_rows.can_end(run) and self.budget.allows(self._paths or self._update):
            with self.budget.paying() as seconds:
                own = dict(enumerate(seed_rows.followed(run)))
            self._paths = seconds[0]
            together |= {"starts": run.algorithm.batch, "seconds": self._paths}
        with self.budget.paying():
            self.rows.file("horizons", own, together)
            never = seed_rows.never_made(self.made, run.iteration, run.settings.iterations)
            meant = run.algorithm.adaptive is None and not isinstance(
                run.algorithm.weights, MeasuredWeights
            )
            if never is not None and meant:
                self.rows.report(never)

    def _measured(self) -> None:
        """A row, when one is due; where measuring fails, all else goes on without it."""
        if self.measurements is None:
            return
        try:
            found = self.measurements.row()
        except Exception as error:
            self.measurements = None
            warn("measures no more on the task", error)
            return
        if found is not None:
            seed, row = found
            with self.budget.paying():
                self.rows.file("measured", {seed: row}, {"seconds": row["seconds"]})
