"""The events of an update, in their order, and the probe's work at each.

    enter → look → (clipping, by the user) → before_step → after_step: over

`look` reads the gradient as the backward pass left it; where the user marks nothing, as the
optimiser finds it (column `marked`). Without an optimiser an update is over when the next begins.
Steps that a gradient scaler skips are no updates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from math import inf, isfinite
from numbers import Real
from typing import Any, final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from gradlab.errors import InputError
from gradlab.probe.alarms.catalogue import (
    LOST_CRITIC,
    NONFINITE,
    ORIGIN,
    STRETCH,
    GradientGrowth,
    lost_now,
    spoilt,
)
from gradlab.probe.alarms.evidence import BELOW, Alarm
from gradlab.probe.budget import Budget, overdrawn, span
from gradlab.probe.critics import Critic, ModelGradients, Turns, rate_of
from gradlab.probe.isolation import Finder, replayed, say, warn
from gradlab.probe.policy_calls import ModuleWatch
from gradlab.probe.returns import (
    LOSS,
    RETURN,
    WINDOWS,
    Looks,
    Notes,
    Recorders,
    ReturnWindows,
    is_finite,
)
from gradlab.probe.row_sinks import AlarmLog, Earlier
from gradlab.probe.sampler import Bursts, Measurements
from gradlab.probe.update_statistics import (
    Latch,
    Numbers,
    UpdateStatistics,
    finite,
    lost,
    shows_loss,
)

ROW = 100  # updates between two rows
_LEAST = 10  # measured updates in a row, where others are skipped: a row costs more than these
_BATCH = 256  # N′ where the loop's own is not seen
STRIDE = 4  # updates to one whose step and actions are measured, which cost most
_PULSE = 4  # skipped updates to one whose gradient's size is taken: each costs 40 µs
_UNSEEN = (
    "which sample is not known: hand over the critic's module, with probe.networks(critic=…) where "
    "it takes states alone"
)
_WATCHED = 3  # marked passes whose operations are watched after a gradient was lost
_WATCHES = 30  # such passes in a run: each takes several times as long
_POLL = 10  # updates between two looks at recorded episodes
_SEARCHES = (1, 100, 1000)  # updates after which recorders are sought, until there are any
PATIENCE = 1000  # marked passes without the end of an update, after which something is wrong

# Of the largest rate of a group: what ends within a rollout, as schedules of Stable-Baselines3 do,
# passes its end by less.
_BEYOND = 0.05
THROWN = 100  # gradients thrown away without a step, after which an alarm is raised

LOST_LOSS = "non-finite loss"
_OPERATION = "first non-finite operation"
_ENDLESS = (
    f"has seen {PATIENCE} marked passes and no update end: give it the optimiser that steps now "
    f"(a new probe, where it was replaced), or count steps up where it has none; a scaler that "
    f"skips every step looks the same"
)
_REPLACED = (
    "the policy's parameters are others than when the probe began: make a new probe when layers "
    "are replaced"
)


@dataclass(frozen=True)
class Loop:
    """What a user's loop trains.

    Attributes:
        parameters: of the policy, those that are frozen included.
        optimizer: None: the end of an update is known by the next one's step.
        critic: beside the policy, by its optimiser.
    """

    policy: nn.Module
    parameters: Sequence[nn.Parameter]
    optimizer: Any
    critic: Critic | None


@dataclass(frozen=True)
class Instruments:
    """What sees more of an update than gradients and steps; no task, no measurements; no
    environment, no looks at the return."""

    watch: ModuleWatch
    models: ModelGradients
    measurements: Measurements | None
    looks: Looks | None = None


@final
class Updates:
    """Counts updates, measures them, and files rows. Its errors are the caller's to catch.

    Args:
        earlier: of the log, before this probe.
    """

    def __init__(
        self, loop: Loop, instruments: Instruments, log: AlarmLog, budget: Budget,
        earlier: Earlier | None = None,
    ) -> None:  # fmt: skip
        held = Earlier() if earlier is None else earlier
        count = held.updates
        self.policy, self.log, self.budget = loop.policy, log, budget
        self.watch, self.models = instruments.watch, instruments.models
        self.measurements = instruments.measurements
        self.optimizer, self.stepped = loop.optimizer, loop.optimizer is not None
        self.critic = loop.critic
        self._turns = Turns(loop.parameters, loop.optimizer)
        self.count, self.step = count, 0
        self.notes, self.noted = Notes(), False
        self.looks = instruments.looks
        environment = None if self.looks is None else self.looks.environment
        self._recorders = Recorders(environment)
        self._returns = {
            name: ReturnWindows(name, window, held) for name, window in WINDOWS.items()
        }
        self._searches = [count + k for k in _SEARCHES]  # updates after which recorders are sought
        self._filed: dict[str, Any] = {}  # the last row of vitals
        self._statistics = UpdateStatistics(loop.parameters)
        self._bursts = Bursts(loop.parameters, log.names, budget, self.measurements is not None)
        self._open: Numbers | None = None  # |∂L/∂θ_l| of the update under way
        self._seen = False  # whether its gradient is there
        self._scaled = False  # whether a scaler had multiplied it
        self._waiting = 0  # marked passes since an update ended
        self._thrown = 0  # of these: that began without a gradient
        self._growth = GradientGrowth("exploding gradient")
        self._due = budget.look()  # whether it is measured or skipped
        self._marked = False
        self._batch = _BATCH
        self._watching = self._watches = 0
        self.rows: Callable[[], str] = str  # where a loss was lost, in words; "" where not known
        # By optimiser: how many tensors its groups have, and the small ones of them.
        self._guarded: WeakKeyDictionary[Any, tuple[list[int], list[Tensor]]] = WeakKeyDictionary()
        # By optimiser: the largest rate of each group, and since which step one is below 0.
        self._rates: WeakKeyDictionary[Any, dict[int, float]] = WeakKeyDictionary()
        self._below: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        self._small = shows_loss(loop.parameters)
        self._told = 0  # updates between two episodes when it was said when windows are full
        self._promised = 0.0  # seconds of the loop at which the first measurement was said to come
        self._lost_at, self._origin = -1, ""  # the first update that was lost
        self._latches = {NONFINITE: Latch(), LOST_CRITIC: Latch()}  # of accelerators
        self._looks, self._rest = 0, 0  # looks; updates to pass over
        self._row = _next_row(count)

    def enter(self) -> Finder | None:
        """A marked pass begins; its operations are watched where a gradient was lost before."""
        self.models.before()
        self._thrown += self.stepped and all(p.grad is None for p in self._statistics.parameters)
        if not self._watching or self._watches >= _WATCHES:
            return None
        self._watching, self._watches = self._watching - 1, self._watches + 1
        return Finder()

    def look(
        self, step: int, scale: Tensor | None, marked: bool, finder: Finder | None = None
    ) -> None:
        """The gradient is there, `scale` times too large."""
        begun = self.budget.begin()
        # A loop that skips the step of a lost gradient does not end that update.
        skipped = self._open is not None and not self._scaled and not finite(self._open)
        if self._seen and step != self.step and (skipped or not self.stepped):
            self.over()
            begun = self.budget.clock()
        if self._rest and not self._alert(scale):
            self.step, self._seen = step, True
            self._pay(begun)
            return
        self.step, self._marked, self._seen, self._scaled = step, marked, True, scale is not None
        # Of a skipped update one tensor is tested for numbers that are not finite.
        size = self._pulse() if scale is None else 0.0
        if self._due or not isfinite(size):
            self._open = self._statistics.gradient(scale)
            # A scaler that searches its scale overflows now and then.
            if scale is None and not finite(self._open):
                self._lost(self._open)
        if self.critic is not None and self.critic.shared and self._turns.mine():
            self._look_at(self.critic)
        if marked:
            self.models.after()
            if finder is not None and finder.found:
                self._report(_OPERATION, f"{finder.found}, in the pass that was marked")
            self._waiting += 1
            if self._thrown == THROWN:
                still = Alarm.of("actor does not move", "no optimiser's step", n=THROWN)
                self.log.report(still, self.count, self.step)
            if self._waiting == PATIENCE:
                say(_ENDLESS)
        self.budget.pay(begun)
        self._bursts.see(scale, self.watch.inputs)

    def guard(self, optimizer: Any) -> None:
        """Test small gradients of an optimiser that is about to step, whatever the budget."""
        critic, mine = self.critic, optimizer is self.optimizer
        begun = self.budget.clock()
        groups, known = optimizer.param_groups, self._guarded.get(optimizer)
        sizes = [len(group["params"]) for group in groups]
        if known is None or known[0] != sizes:
            held = shows_loss([p for group in groups for p in group["params"]])
            known = self._guarded[optimizer] = sizes, held
        small, gone = known[1], False
        # A fused optimiser under a scaler skips such a step by itself.
        if small and getattr(optimizer, "found_inf", None) is None:
            if not small[0].is_cpu:
                self._latches[NONFINITE if mine else LOST_CRITIC].see(small, self.count)
            elif critic is None or mine or optimizer is not critic.optimizer:
                gone = lost(small)  # the critic's is looked at beside its own steps
        self._see_rates(optimizer)
        self.budget.guard(begun)
        if gone:
            self._spoilt(optimizer)

    def _see_rates(self, optimizer: Any) -> None:
        """Report a rate that a schedule has led below 0. One that never was above is meant, and a
        tensor, for which an accelerator would be waited for, is read in updates to look at."""
        highest, looked = self._rates.setdefault(optimizer, {}), self._due and not self._rest
        for k, group in enumerate(optimizer.param_groups):
            held = group.get("lr")
            if not (isinstance(held, Real) or (looked and isinstance(held, Tensor))):
                continue
            rate = float(held)
            if rate >= 0:
                highest[k] = max(rate, highest.get(k, 0.0))
                continue
            since = self._below.setdefault(optimizer, self.step)
            if rate < -_BEYOND * (highest.get(k) or inf):
                critics = self.critic is not None and optimizer is self.critic.optimizer
                whose = "the critic's" if critics else "another network's"
                whose = "the policy's" if optimizer is self.optimizer else whose
                below = Alarm.of(BELOW, subject=whose, value=rate, n=since)
                self.log.report(below, self.count, self.step)

    def _spoilt(self, optimizer: Any) -> None:
        """The gradient of this step is lost, of the policy or of another network."""
        mine = optimizer is self.optimizer
        sizes = self._statistics.gradient() if mine else []
        if mine and self._rest:  # this update is looked at instead
            self._rest, self._due, self._seen = 0, True, True
        if mine and self._open is None:
            self._open = sizes
        if not finite(sizes):
            self._lost(sizes)
        elif self.log.due(LOST_CRITIC, self.count):
            self._origin = self.rows() or "which sample is not known"
            self._report(LOST_CRITIC, self._origin)

    def _unlatch(self) -> None:
        """Report the gradients that an accelerator has noted, for which it is waited."""
        begun = self.budget.clock()
        found = {kind: latch.take() + 1 for kind, latch in self._latches.items()}
        self.budget.guard(begun)
        for kind, update in found.items():
            if not update:
                continue
            if kind == NONFINITE and self._lost_at < 0:
                self._lost_at = update
            whose = "the policy's" if kind == NONFINITE else "another"
            message = (
                f"a gradient of {whose} optimiser was not finite in update {update}: stop, and "
                f"look at its rewards and targets, and for a root, norm or power at 0 in its loss"
            )
            self.log.report(Alarm(kind, message), self.count, self.step)

    def before_step(self, optimizer: Any, closure: bool = False) -> None:
        """The optimiser is about to move θ, or to ask a closure for the gradient first."""
        if not closure:
            self.guard(optimizer)
        mine = closure or self._turns.now()
        if self._rest or not mine:
            return
        begun = self.budget.begin()
        if self._due and self._looks % STRIDE == 0:
            self._statistics.before_step()
        self.budget.pay(begun)
        if not self._seen and not closure:
            # A fused optimiser under a scaler divides by itself, and says by what.
            self.look(self.count, getattr(optimizer, "grad_scale", None), marked=False)

    def after_step(self, optimizer: Any) -> None:
        """The optimiser has moved θ, unless its step was one to skip, or another network's."""
        if not self._turns.over() or _skipped(optimizer):
            self._statistics.forget_step()
            self._open, self._seen = None, False
            return
        if not self._seen and not self._rest:
            self.look(self.count, None, marked=False)
        self.over()

    def before_critic(self) -> None:
        """The critic's optimiser is about to move φ."""
        critic = self.critic
        if critic is None:
            return
        begun = self.budget.begin()
        if not critic.shared or not self._turns.known:
            self._look_at(critic)
        critic.before_step()
        self._pay(begun)

    def after_critic(self) -> None:
        """It has moved φ."""
        if self.critic is not None:
            begun = self.budget.clock()
            self.critic.after_step()
            self._pay(begun)

    def _pay(self, since: float) -> None:
        """While looks rest, what is done at every update is no price of a look: it would leave no
        time for one where a critic steps several times in an update."""
        (self.budget.guard if self._rest else self.budget.pay)(since)

    def _look_at(self, critic: Critic) -> None:
        if not critic.turns.mine() or critic.see(self._due and not self._rest):
            return
        if self.log.due(LOST_CRITIC, self.count):
            self._report(LOST_CRITIC, critic.passes.lost() or self.rows() or _UNSEEN)

    def _alert(self, scale: Tensor | None) -> bool:
        """Whether the gradient was lost while updates are skipped; this one is measured then."""
        if scale is not None:
            return False
        size = 0.0 if self._rest % _PULSE else self._pulse()
        if isfinite(size) and (self.stepped or not lost(self._small)):
            return False
        self._rest, self._due = 0, True
        return True

    def _pulse(self) -> float:
        size = self._statistics.pulse()
        self._growth.add(size)
        return size

    def over(self) -> None:
        """The update is over: count it, and ask for more if there is time."""
        if self._rest:
            self._seen, self._waiting, self._thrown = False, 0, 0
            self.count, self._rest = self.count + 1, self._rest - 1
            if not self._rest:
                self._due = self.watch.hook.on = self.budget.look()
        else:
            self._count()
            self._sampled("successive", self._bursts.commit())
            if self.measurements is not None:
                self._sampled("measured", self._measurement(self.measurements))
        if self.count % STRETCH == 0:
            self._unlatch()
            for each in (self._growth, None if self.critic is None else self.critic.growth):
                alarm = None if each is None else each.stretch()
                if alarm is not None:
                    self.log.report(alarm, self.count, self.step)
        if self.count % _POLL == 0 or self._seeks():
            self._record()
        if self.looks is not None and self.looks.due(self.count):
            self._look_at_return(self.looks)

    def _seeks(self) -> bool:
        """Is it time to look for recorders? The first time whatever the budget: a loop that is
        above it for good would have no returns."""
        due = bool(self._searches) and self.count >= self._searches[0]
        if not due or self._recorders.found:
            return False
        return not self._sought or self.budget.allows(self._recorders.price)

    @property
    def _sought(self) -> bool:
        return len(self._searches) < len(_SEARCHES)

    def _record(self) -> None:
        """Training episodes that the loop's own wrappers have recorded, where none is noted."""
        if self.noted:
            return
        with self.budget.paying():
            if self._seeks():
                self._searches.pop(0)
                self._recorders.search()
            for value in self._recorders.take():
                self.notes.take(RETURN, value, self.count, self.step)

    def note(self, name: str, value: Any) -> None:
        """A number of the loop's own; one that hands over its returns is not searched for them."""
        self.noted = self.noted or name == RETURN
        if name == LOSS and not is_finite(value):
            self._report(LOST_LOSS, "the critic's loss that was noted is not finite")
        self.notes.take(name, value, self.count, self.step)

    def _look_at_return(self, looks: Looks) -> None:
        """A whole episode; where that fails, all else goes on without it."""
        try:
            row = looks.row(self.count)
        except Exception as error:
            self.looks = None
            warn("looks at no more returns", error)
            return
        with self.budget.paying():
            self._followed("returns", self._file("returns", row))

    def _followed(self, name: str, row: dict[str, Any]) -> None:
        alarm = self._returns[name].add(row)
        if alarm is not None:
            self.log.report(alarm, self.count, self.step)

    def _count(self) -> None:
        begun = self.budget.clock()
        if self._open is not None:
            self._statistics.after_step()
            self._statistics.add(self._open, self._scaled)
            self._looks += 1
        self._open, self._seen, self._waiting, self._thrown = None, False, 0, 0
        self._batch = self.watch.batch or self._batch
        self.watch.release()
        self.count += 1
        self.budget.pay(begun)
        if self.count >= self._row and self._statistics.looked >= _LEAST:
            self._row = _next_row(self.count)
            with self.budget.paying(row=bool(self._filed)):  # the first row opens the log
                self.file_vitals()
        self._due = self.watch.hook.on = self.budget.look()
        self.watch.counting = self._looks % STRIDE == 0
        if not (self._due or self._bursts.open or self._watching):
            # Updates until there is time to look again, which are counted and nothing else.
            elapsed = self.budget.elapsed
            updates = self.budget.wait * self.count / elapsed if elapsed > 0 else 0.0
            self._rest = min(max(int(updates), 0), ROW)

    def file_vitals(self, ended: bool = False) -> None:
        """The window's row; `ended`: no more updates come."""
        if self.watch.error is not None:
            raise self.watch.error
        held = self._statistics.parameters
        if any(a is not b for a, b in zip_longest(self.policy.parameters(), held)):
            raise InputError(_REPLACED)
        row = self._statistics.row() | self.watch.row() | self.models.row()
        if not row["looked"]:
            if ended:
                self._file_episodes(self.notes.row()[1])
            if ended and self._filed:  # by its number it takes the place of the last one
                self.log.sink.amend("vitals", self._filed | {"due": self._waits(ended)})
            return
        row["learning_rate"] = rate_of(self.optimizer, held)
        row |= {} if self.critic is None else self.critic.row()
        means, episodes = self.notes.row()
        self._file_episodes(episodes)  # before it is said when there are enough
        spent = {
            "marked": int(self._marked),
            "own_seconds": self.budget.own,
            "elapsed": self.budget.elapsed,
            "spent": self.budget.spent,
            "due": self._waits(ended),
        }
        self._filed = self._file("vitals", row | means | spent)

    def _file_episodes(self, episodes: list[dict[str, Any]]) -> None:
        for each in episodes:
            number = {"number": self._returns["episodes"].count}
            self.log.file("episodes", number | each)
            self._followed("episodes", each)

    def rest(self) -> None:
        """Measure no more and hold nothing."""
        self.watch.hook.on = False
        self.watch.release()

    def finish(self, error: BaseException | None = None) -> None:
        """No more updates come, since the loop has raised `error`, if any."""
        if self._seen:
            self._count()
        self._unlatch()
        self._last_look(error)
        self._record()
        self.file_vitals(ended=True)
        if self.looks is not None:
            self.looks.close()

    def _last_look(self, error: BaseException | None) -> None:
        """At what the loop leaves behind: its parameters, and the last gradient."""
        parameters, lost = self._statistics.parameters, ""
        held = [*map(torch.Tensor.detach, parameters)]
        bad = [not bool(torch.isfinite(p).all()) for p in held]
        if any(bad):
            nan = any(bool(torch.isnan(p).any()) for p in held)
            lost = f"parameters are {'NaN' if nan else 'infinite'}"
        elif not self._scaled and self.count:
            gradients = [p.grad for p in parameters]
            bad = [g is not None and not bool(torch.isfinite(g).all()) for g in gradients]
            lost = "the last gradient is not finite" if any(bad) else ""
        if lost:
            since = self._lost_at if any(bad) else -1
            alarm = spoilt(lost, bad, self.log.names, self.count, since, self._origin, error)
            self.log.report(alarm, self.count, self.step)

    def _waits(self, ended: bool) -> str:
        """The measurements that are due, or were not reached, in words."""
        wanted = [self._bursts.next(), self.measurements and self.measurements.next()]
        waiting = [each for each in wanted if each is not None]
        words = [each.missed(self.budget) if ended else str(each) for each in waiting]
        if self.measurements is not None:
            if not ended:
                self._promise(self.measurements)
            elif words[-1]:
                self.log.say(words[-1])
        looks = self._episodes_due(ended)
        apart = 1 if self.looks is None else self.looks.count and self.looks.apart
        longer = "first answer" in looks and apart > 2 * self._told
        if not ended and apart and longer:  # once, and where it takes longer: a row says it anew
            self._told = apart
            self.log.say("; ".join(filter(None, (looks, overdrawn(self.budget)))))
        doubt = "" if self.looks is None else self.looks.doubt
        return "; ".join(filter(None, (overdrawn(self.budget), looks, doubt, *words)))

    def _episodes_due(self, ended: bool) -> str:
        """When the first two windows of returns are full, in words. Beside an environment of the
        probe's the loop's own episodes answer until its windows are."""
        if self.looks is None:
            return self._trained_due(ended)
        looks = self.looks.waits(self.count, ended)
        if ended or "first answer" not in looks:
            return looks
        theirs = self._trained_due(ended).removeprefix("returns: first answer")
        if not theirs:
            theirs = " until then" if self._returns["episodes"].count else ""
        return f"{looks}; training episodes answer{theirs}" if theirs else looks

    def _trained_due(self, ended: bool) -> str:
        """The same of the loop's own episodes alone."""
        own = self._returns["episodes"]
        paced = own.count - own.before
        lacking = max(2 * own.window - paced, 0)
        if not own.count and self._recorders.known and not self.noted:
            if self._recorders.found:
                return f"returns: first answer after {lacking} training episodes, none has ended"
            if self.measurements is None and self.looks is None:
                return "returns: no RecordEpisodeStatistics was found"
        if not own.count or not lacking:
            return ""
        if ended:
            had = f"{2 * own.window - lacking} of {2 * own.window} training episodes"
            return f"returns: no answer, {had}, {lacking} more would do"
        if not paced:
            return f"returns: first answer after {lacking} more training episodes"
        left = span(lacking * self.budget.elapsed / paced)
        return f"returns: first answer in about {left}, {lacking} more training episodes"

    def _promise(self, measurements: Measurements) -> None:
        """Say when the first measurement comes, and again where that takes twice as long."""
        due = measurements.next()
        at = self.budget.elapsed + due.wait
        if due.first and measurements.tried and at > 2 * self._promised:
            self._promised = at
            self.log.say(str(due))

    def _measurement(self, measurements: Measurements) -> dict[str, Any] | None:
        """A row, when one is due; where measuring fails, all else goes on without it."""
        try:
            due = measurements.due()
            if not due:
                if not self._promised:
                    self._promise(measurements)
                return None
            return measurements.row(self._batch, self.count)
        except Exception as error:
            self.measurements = None
            warn("measures no more on the task", error)
        return None

    def _sampled(self, table: str, row: dict[str, Any] | None) -> None:
        if row is not None:
            with self.budget.paying():
                self._file(table, row)

    def _file(self, table: str, row: dict[str, Any]) -> dict[str, Any]:
        whole = {"update": self.count, "step": self.step} | row
        self.log.file(table, whole)
        return whole

    def _lost(self, sizes: Numbers) -> None:
        """A gradient that is not finite; on an accelerator it is tested once per row only."""
        self._watching = _WATCHED
        if self._lost_at < 0:
            self._lost_at = self.count + 1
        self.log.report(lost_now(sizes, self.log.names), self.count, self.step)
        if not self.log.due(ORIGIN, self.count):
            return
        try:
            watch = self.watch
            words = self.rows() or replayed(watch.watched.module, watch.inputs, watch.arrived)
        except Exception as error:  # a policy that cannot be copied, or not called again
            words = f"the policy's passes could not be made again ({type(error).__name__}: {error})"
        self._origin = self._origin or words
        self._report(ORIGIN, words)

    def _report(self, kind: str, words: str) -> None:
        todo = "" if ": look " in words else ": fix that operation, or leave the sample out"
        message = f"{words}{todo}"
        self.log.report(Alarm(kind, message), self.count, self.step)


def _next_row(count: int) -> int:
    return count - count % ROW + ROW


def _skipped(optimizer: Any) -> bool:
    """A fused optimiser skips by itself, by a tensor that its scaler has left it."""
    overflow = getattr(optimizer, "found_inf", None)
    return isinstance(overflow, Tensor) and overflow.is_cpu and bool(overflow.item())
