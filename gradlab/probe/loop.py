"""The events of an update, in their order, and the probe's work at each.

    enter → look → (clipping, by the user) → before_step → after_step: over

Updates 1 to `WHOLE` are looked at, then every K-th. In between, small gradients are tested before
every step of the optimisers that are known, and nothing else. `look` reads the gradient as the
backward pass left it; where the user marks nothing, as the optimiser finds it (column `marked`).
Without an optimiser an update is over when the next begins. Steps that a gradient scaler skips are
no updates.

    successive gradients    33 in a row, from update 1 and every tenth look on
    on the task             at looks 1, 2, 4, 8, …
    an episode              at every second look
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, final
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.data.episodes import Actor, begin, made, play, takes_seed
from gradlab.data.trajectories import child
from gradlab.errors import InputError
from gradlab.findings import Finding
from gradlab.probe.checks import Row, fallen, listed
from gradlab.probe.isolation import copied, undisturbed, warn
from gradlab.probe.log import Log
from gradlab.probe.origin import lost_column, origin
from gradlab.probe.passes import Passes
from gradlab.probe.signals import Burst, Guard, Signals, finite
from gradlab.runs.probe.returns import COLUMNS, EPISODES_APART, TRAINED, WINDOW, Returns
from gradlab.user_code import running

if TYPE_CHECKING:
    from gradlab.probe.arguments import Past, Question

WINDOWS = {"returns": WINDOW, "episodes": TRAINED}
MakeEnv = Callable[[], Any]
WHOLE = 50  # updates that are looked at, one after the other
BURSTS = 10  # looks between two bursts
THROWN = 100  # gradients thrown away without a step, after which something is wrong
_TRIED = 10  # steps of the first try in an environment
_BATCH = 256  # N′ where the loop's own is not seen
_REPLACED = (
    "the policy's parameters are others than when the probe began: make a new probe when layers "
    "are replaced"
)


@final
class Loop:
    """Counts updates, looks at them, and files rows. Its errors are the caller's to catch.

    Args:
        every: K.
        passes: of the policy.
        question: what is measured on a task; episodes: what shows whether the return rises.

    Attributes:
        count: updates so far; step: of the newest, as the loop counts.
        due: whether the update under way is looked at.
        own: seconds that the probe has taken.
        critics: passes of declared ones; losses: calls of the declared ones on the last batch.
        roles: of other optimisers, by their id.
        answers: findings of what is declared, by what they are about.
    """

    def __init__(
        self, policy: nn.Module, optimizer: Any, log: Log, every: int, passes: Passes,
        question: Question | None = None, episodes: Episodes | None = None,
    ) -> None:  # fmt: skip
        self.policy, self.optimizer, self.log, self.every = policy, optimizer, log, every
        self.passes, self.question, self.episodes = passes, question, episodes
        self.count, self.step, self.own = 0, 0, 0.0
        self.critics: dict[str, Passes] = {}
        self.losses: Mapping[str, Callable[[], Any]] = {}
        self.batch: Mapping[str, Any] = {}  # the last one that was handed over
        self.begun: Callable[[], object] = lambda: None  # hears that an update begins
        self.values: Callable[[], object] | None = None  # looks at the critics' values
        self.roles: dict[int, str] = {}
        self.answers: dict[str, Callable[[], tuple[Finding, ...]]] = {}
        self.notes: list[tuple[int, int, Any]] = []  # returns, since the last row
        self.noted = False  # whether the loop hands over returns
        self.returned: dict[str, list[Row]] = {"returns": [], "episodes": []}
        self._signals = Signals(policy.parameters())
        self._guards: WeakKeyDictionary[Any, tuple[list[int], Guard]] = WeakKeyDictionary()
        self._alone = Guard(policy.parameters()) if optimizer is None else None
        self._burst: Burst | None = None
        self._past: Past | None = None
        self._open: Tensor | None = None  # |∂L/∂θ_l| of the update under way
        self._seen = self._scaled = self._marked = False
        self._thrown = 0  # gradients that were thrown away since the last step
        self._batch = _BATCH
        self._filed = 0  # the update of the newest row
        self._begun: float | None = None
        self._paid = False
        self._begin()

    @property
    def elapsed(self) -> float:
        """Seconds since the first update."""
        return 0.0 if self._begun is None else time.perf_counter() - self._begun

    @contextmanager
    def paying(self) -> Iterator[None]:
        """Counts the time that is spent inside, once."""
        if self._paid:
            yield
            return
        self._paid, begun = True, time.perf_counter()
        try:
            yield
        finally:
            self._paid = False
            self.own += time.perf_counter() - begun

    def _begin(self) -> None:
        """The next update begins."""
        number = self.count + 1
        fresh = number == 1 or (self.count and self.count % (BURSTS * self.every) == 0)
        if fresh and self._burst is None:
            live = [p for p in self._signals.parameters if p.requires_grad]
            self._burst = Burst(live) if live else None
        self.due = number <= WHOLE or number % self.every == 0
        self.begun()
        self.passes.counting = self.due

    def enter(self) -> None:
        """A marked pass begins."""
        parameters = self._signals.parameters
        self._thrown += self.optimizer is not None and all(p.grad is None for p in parameters)

    def look(self, step: int, scale: Tensor | None, marked: bool) -> None:
        """The gradient is there, `scale` times too large."""
        with self.paying():
            if self._begun is None:
                self._begun = time.perf_counter()
            # A loop that skips the step of a lost gradient does not end that update.
            skipped = self._open is not None and not self._scaled and not finite(self._open)
            if self._seen and step != self.step and (skipped or self.optimizer is None):
                self.over()
            self.step, self._marked, self._seen = step, marked, True
            self._scaled = scale is not None
            if self._alone is not None and scale is None and self._alone.lost():
                self.due = True
            if self.due:
                self._open = self._signals.gradient(scale)
                # A scaler that searches its scale overflows now and then.
                if scale is None and not finite(self._open):
                    self._lost(self._open)
            if self._burst is not None:
                self._burst.see(scale, self.passes.inputs)
            for passes in (self.passes, *self.critics.values()):
                passes.settle()
            if self._thrown == THROWN:
                self._report(Finding("no optimiser's step", "fail", n=THROWN))

    def before_step(self, optimizer: Any, closure: bool = False) -> None:
        """An optimiser is about to move its parameters, or to ask a closure for the gradient."""
        with self.paying():
            mine = optimizer is self.optimizer
            if not closure:
                self._guard(optimizer, mine)
            if self.due and self.values is not None and self.roles.get(id(optimizer)) == "critic":
                self.values()
            if not mine or not (closure or self._mine()):
                return
            if not self._seen and not closure:
                # A fused optimiser under a scaler divides by itself, and says by what.
                self.look(self.count, getattr(optimizer, "grad_scale", None), marked=False)
            if self.due:
                self._signals.keep()

    def after_step(self, optimizer: Any) -> None:
        """It has moved them, unless the step was one to skip, or another network's turn."""
        with self.paying():
            if optimizer is not self.optimizer:
                if self.roles.get(id(optimizer)) == "critic":
                    for each in self.critics.values():
                        each.release()
                return
            if not self._mine() or _skipped(optimizer):
                self._signals.forget()
                self._open, self._seen = None, False
                return
            if not self._seen:
                self.look(self.count, None, marked=False)
            self.over()

    def _mine(self) -> bool:
        """Has the policy a gradient? An optimiser that steps others in turn leaves it without."""
        return any(p.grad is not None for p in self._signals.parameters)

    def _guard(self, optimizer: Any, mine: bool) -> None:
        """Test small gradients of a step, whatever the schedule."""
        if getattr(optimizer, "found_inf", None) is not None:
            return  # a fused optimiser under a scaler skips such a step by itself
        groups = optimizer.param_groups
        sizes = [len(group["params"]) for group in groups]
        known = self._guards.get(optimizer)
        if known is None or known[0] != sizes:
            known = sizes, Guard(p for group in groups for p in group["params"])
            self._guards[optimizer] = known
        if not known[1].lost():
            return
        own = self._signals.gradient() if mine else None
        if own is not None and not finite(own):
            self.due = True
            if self._open is None or finite(self._open):
                self._open = own
                self._lost(own)
            return
        role = self.roles.get(id(optimizer), "critic")
        self._report(
            Finding("non-finite gradient of another network", "fail", role, n=self.count + 1)
        )
        self._report(origin(None, self.critics, self.losses, self.batch))

    def over(self) -> None:
        """The update is over: count it, and do what its number asks for."""
        if self._open is not None:
            self._signals.add(self._open, self._scaled)
        self._batch = self.passes.batch or self._batch
        for each in (self.passes, *self.critics.values()):
            each.release()
        self._open, self._seen, self._thrown = None, False, 0
        self.count += 1
        if self._burst is not None:
            self._burst.commit()
            if self._burst.done:
                self.file("successive", self._burst.row())
                self._burst = None
        if self.count == WHOLE or self.count % self.every == 0:
            self.file_vitals()
        if self.count % self.every == 0:
            self._at_look(self.count // self.every)
        self._begin()

    def _at_look(self, number: int) -> None:
        """What is dearer than a row."""
        if self.question is not None and number & (number - 1) == 0:
            self._measure(self.question)
        if self.episodes is not None and number % EPISODES_APART == 0:
            self._play(self.episodes)

    def _measure(self, question: Question) -> None:
        """A row of the task; where measuring fails, all else goes on without it."""
        try:
            from gradlab.probe.measured import measured

            past = question.nothing if self._past is None else self._past
            row, self._past = measured(question, self.policy, self._batch, self.count, past)
        except Exception as error:
            self.question = None
            warn("measures no more on the task", error)
            return
        self.file("measured", row)

    def _play(self, episodes: Episodes) -> None:
        try:
            row = episodes.row()
        except Exception as error:
            self.episodes = None
            warn("looks at no more returns", error)
            return
        self._returned("returns", {"update": self.count, "step": self.step, **row})

    def _returned(self, name: str, row: Row) -> None:
        """One more episode, and at the end of a window whether returns have fallen."""
        rows = self.returned[name]
        rows.append(row)
        self.log.file(name, row)
        if len(rows) % WINDOWS[name] == 0:
            columns = {each: np.array([row[each] for row in rows]) for each in COLUMNS}
            found = fallen(Returns.of(columns, WINDOWS[name]), name)
            if found is not None:
                self._report(found)

    def note(self, value: Any, own: bool = True) -> None:
        """A return, or several; a tensor is not waited for until a row is due. Those of the loop's
        own take the place of recorded ones."""
        if own or not self.noted:
            self.noted |= own
            held = value.detach() if isinstance(value, Tensor) else np.asarray(value, dtype=float)
            self.notes.append((self.count, self.step, held))

    def file_vitals(self, ended: bool = False) -> None:
        """The row of the updates that were looked at since the last one, and the newest answers."""
        for each in (self.passes, *self.critics.values()):
            if each.error is not None:
                raise each.error
        held = self._signals.parameters
        if any(a is not b for a, b in zip_longest(self.policy.parameters(), held)):
            raise InputError(_REPLACED)
        for name, answer in self.answers.items():
            self.log.answer(name, answer(), self.count, self.step)
        notes, self.notes = self.notes, []
        for update, step, noted in notes:
            for each in np.ravel(noted.cpu() if isinstance(noted, Tensor) else noted):
                where = {"number": len(self.returned["episodes"]), "update": update, "step": step}
                self._returned("episodes", {**where, "value": float(each)})
        row = self._signals.row() | self.passes.row()
        if not row["looked"] and (not ended or self._filed == self.count):
            return
        self._filed = self.count
        spent = self.own / self.elapsed if self.elapsed > 0 else 0.0
        cost = {"own_seconds": self.own, "elapsed": self.elapsed, "spent": spent}
        self.file("vitals", row | {"marked": int(self._marked)} | cost)
        if row["nonfinite_updates"] and not held[0].is_cpu:  # no update has waited for its numbers
            self._seek_origin()

    def file(self, table: str, row: Mapping[str, Any]) -> dict[str, Any]:
        whole = {"update": self.count, "step": self.step, **row}
        self.log.file(table, whole)
        return whole

    def rest(self) -> None:
        """Look at nothing more and hold nothing."""
        self.due, self._burst, self.losses, self.batch = False, None, {}, {}
        for each in (self.passes, *self.critics.values()):
            each.release()

    def finish(self) -> None:
        """No more updates come."""
        if self._seen:
            self.over()
        if self.count:
            self.file_vitals(ended=True)
        if self.episodes is not None:
            self.episodes.close()

    def _lost(self, norms: Tensor) -> None:
        """A gradient that is not finite."""
        where = listed(~torch.isfinite(norms).numpy(), self.log.names) or "its norm"
        self._report(Finding("non-finite gradient", "fail", value=1, n=1, at=where))
        self._seek_origin()

    def _seek_origin(self) -> None:
        try:
            found = origin(self.passes, self.critics, self.losses, self.batch)
        except Exception:  # a policy that cannot be copied, or not called again
            found = Finding("nan.unseen", "fail")
        self._report(found)

    def report_lost_column(self) -> None:
        """A column of the batch that is not finite."""
        found = lost_column(self.batch)
        if found is not None:
            self._report(found)

    def _report(self, finding: Finding) -> None:
        self.log.report(finding, self.count, self.step)


def _skipped(optimizer: Any) -> bool:
    """A fused optimiser skips by itself, by a tensor that its scaler has left it."""
    overflow = getattr(optimizer, "found_inf", None)
    return isinstance(overflow, Tensor) and overflow.is_cpu and bool(overflow.item())


@final
class Episodes:
    """Whole episodes of the policy as it is, without noise, from fresh resets in an environment of
    the probe's own; random streams are put back, and the policy is copied.

    Args:
        make: makes an environment of the probe's own.

    Raises:
        InputError: it cannot be made or stepped, or the policy cannot act in it.
    """

    def __init__(self, make: MakeEnv, policy: nn.Module, seed: int) -> None:
        self.policy, self.seed, self.count = policy, seed, 0
        with undisturbed():
            self.environment = made(make)
            actor = Actor(copied(policy), self.environment)
            self._seeded = takes_seed(self.environment)
            with running("env"):
                actor.check(begin(self.environment, self._seed))
                play(self.environment, actor, self._seed, _TRIED)

    def row(self) -> dict[str, Any]:
        """One episode; of an environment with several places their mean."""
        with undisturbed():
            actor = Actor(copied(self.policy), self.environment)
            played = play(self.environment, actor, self._seed)
        self.count += 1
        return {
            "value": float(np.mean([episode.total for episode in played])),
            "length": float(np.mean([episode.length for episode in played])),
            "episodes": len(played),
        }

    def close(self) -> None:
        with suppress(Exception), undisturbed():
            self.environment.close()

    @property
    def _seed(self) -> int | None:
        return child(self.seed, f"probe episode {self.count}") % 2**31 if self._seeded else None
