"""The checks of a loop's own parts, in windows between two steps of the actor.

Every tenth update is one to look at, as the budget allows. Steps of all optimisers are seen by
torch's own global hooks, so that a loop hands over nothing; what cannot be found says why. A check
that fails is off with its reason, and all else goes on.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Protocol, final

import numpy as np
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from gradlab.errors import InputError
from gradlab.probe.alarms.evidence import Alarm
from gradlab.probe.budget import GRACE, LEAVES, UNSEEN, Budget
from gradlab.probe.critics import LastPasses, pushed
from gradlab.probe.isolation import warn
from gradlab.probe.parts.advantages import Advantages, Rollout, recorded_ends
from gradlab.probe.parts.formula import OwnFormula
from gradlab.probe.parts.implied import Bootstraps, Implied, ValueTargets
from gradlab.probe.parts.loss_weights import LossWeights
from gradlab.probe.parts.matched import SAME, Matched, matched
from gradlab.probe.parts.moves import (
    ActorStep,
    ActorWindow,
    Cleared,
    MomentSamples,
    NoStep,
    SampledStep,
    Targets,
    TrainedByLoop,
    brought,
)
from gradlab.probe.parts.networks import (
    CRITIC,
    OTHER,
    POLICY,
    Calls,
    Networks,
    Unheld,
    compiled_frames,
    held,
    modules,
)
from gradlab.probe.parts.objectives import ActorObjective
from gradlab.probe.parts.recorder import CheckAnswer, EndsReset, off
from gradlab.probe.parts.rows import (
    ALIASED,
    CALLED,
    EMPTY,
    STORED,
    TRANSFORMED,
    UNENDED,
    UNRECORDED,
    Drawn,
    Rows,
    StoredCopies,
    check_lengths,
    questions,
)
from gradlab.probe.parts.targets import ADDED, Algebra, check_rows, tensors
from gradlab.probe.policy_calls import Hook
from gradlab.probe.row_sinks import AlarmLog

if TYPE_CHECKING:
    from gradlab.probe.parts.recorder import Ring

_EVERY = 10  # updates to one that is looked at
_SHARE, _ENDS = 0.4, 0.1  # of the budget; of it, for rows that end an episode between windows
FIRST, LOAN = 60, 2.4  # looks by which there is an answer: a loan of up to so many whole budgets
_SEARCH = 5  # updates in which all modules are hooked, to find targets
_AGAIN = (0, 100, 1000)  # updates at which they are looked for, while none is found
_LONGEST = 64  # steps of a window
_ROW = 100  # updates between two looks at the answers
_OF_CRITIC = "the critic"
_ROLLOUTS = (
    "hand over the rollout's minibatches, too: env = probe.record(env), then "
    "probe.batch(observation=…, action=…, reward=…, terminated=…) before the loss, and "
    "next_observation=… where the loop has it"
)
_NO_ROWS = (
    "no rows are handed over: probe.batch(observation=…, action=…, reward=…, next_observation=…, "
    "terminated=…, next_value=…, discount=…)"
)


class _Check(Protocol):
    """One question about the loop."""

    name: str

    def answer(self, networks: Networks) -> CheckAnswer:
        """By all looks so far."""


@final
class Parts:
    """Looks at a loop's parts and files the answers of the checks.

    Args:
        optimizers: the policy's and the critic's; without the first nothing is looked at, without
            the second every other one that steps is taken for the loop's.
        now: updates so far, and the step as the loop counts.
        guard: looks at the gradients of an optimiser other than the policy's, before its step.
        fail: is given what a log raised.
    """

    def __init__(
        self,
        policy: nn.Module,
        optimizers: tuple[Any, Any],
        log: AlarmLog,
        budget: Budget,
        now: Callable[[], tuple[int, int]],
        guard: Callable[[Any], None],
        fail: Callable[[Exception], None],
    ) -> None:
        self.policy, self.log, self.budget, self.now = policy, log, budget, now
        self._guard, self._fail = guard, fail
        self.networks = Networks(list(policy.parameters()), *optimizers)
        self.objective = ActorObjective(policy)
        self.algebra, self.advantages, self.drawn = Algebra(), Advantages(), Drawn()
        self.weights, self.implied = LossWeights(), Implied()
        self.ends = EndsReset()
        self.bootstraps, self.copied, self.fitted = Bootstraps(), StoredCopies(), ValueTargets()
        self.trained = TrainedByLoop(policy, optimizers[0])
        mine = {id(p) for p in policy.parameters()}
        stepped = [] if optimizers[0] is None else held(optimizers[0])
        self.cleared = Cleared(POLICY, [p for p in stepped if id(p) in mine])
        self.others_cleared = [Cleared(CRITIC), Cleared(OTHER)]
        self._since: set[Any] = set()  # optimisers that stepped since the actor's last step
        self.formula, self.unheld = OwnFormula(policy), Unheld()
        self.checks: list[_Check] = [
            self.trained, self.formula, NoStep(), Targets(), self.unheld, self.cleared,
            *self.others_cleared, ActorStep(self.objective), self.objective, self.objective.density,
            self.algebra, self.advantages, self.advantages.limits, self.bootstraps, self.fitted,
            self.weights, self.implied, self.ends, self.drawn, self.copied, *questions(None, None),
        ]  # fmt: skip
        self._ring: Ring | None = None
        self._sought = self._matched = 0  # rows of batches
        self._first = True  # no batch of this window was looked up
        self._fitted: tuple[torch.Tensor, ...] = ()  # what a critic was given at rows, in a window
        self.on = False
        self._seconds = {check.name: 0.0 for check in self.checks}
        self._own, self._looks, self._count = 0.0, 0, 0
        self._looked = 0  # update of the newest look
        self._open: list[SampledStep] | None = None  # steps of the window under way
        self._begin: MomentSamples | None = None
        self._before: tuple[Any, MomentSamples] | None = None
        self._searching: tuple[Calls, Any] | None = None
        self._frames = compiled_frames()
        self._states: dict[str, str] = {}
        self._said: set[str] = set()  # checks that were open
        self._failed: dict[str, str] = {}  # reasons, by check
        self._ears: list[tuple[nn.Module, Hook]] = []  # of policy and critics, in windows
        self._heard: list[Any] = []  # handles of these; and of what is heard at every update
        self._followed: list[Any] = []
        self._passes: dict[str, LastPasses] = {}  # of what is trained
        self.hooked: dict[nn.Module, LastPasses] = {}  # by others: a pass is kept once
        self._new, self._handed = True, False  # no batch has been handed over
        self._file, self._next = _ROW, _EVERY
        self._ends_at, self._ends_own = 0, 0.0  # update of the next look at ends alone; seconds

    def attach(self) -> None:
        """Hear of the steps of all optimisers from now on."""
        if self.networks.actor is not None:
            _listen()
            self.on = True
            if self._ring is not None:
                self._ring.on = True
            _LISTENING.add(self)

    def declare(self, critic: object, target: object, period: int | None) -> None:
        """The loop's networks by the user's own words; raises InputError."""
        self.networks.declare(
            self.policy, modules("critic", critic), modules("target", target), period
        )
        self.objective.declared = self.networks.critics
        self._stop_searching()
        self._hear()

    def record(self, env: Any) -> Any:
        """The environment, its steps recorded; raises InputError."""
        from gradlab.probe.parts.recorder import Ring, recorded

        if self._ring is not None:
            raise InputError(
                "env is a second environment to record: its steps would be taken for the loop's. "
                "Leave one of evaluations unrecorded; make several of training one "
                "gymnasium.vector.SyncVectorEnv"
            )
        space = getattr(env, "single_action_space", getattr(env, "action_space", None))
        limits = getattr(space, "low", None), getattr(space, "high", None)
        asked = iter(questions(*limits))
        ring = Ring(self.budget)
        env = recorded(env, ring)
        self._ring = self.ends.ring = self.objective.ring = ring
        self.objective.limits = self.weights.limits = limits
        self.checks = [next(asked) if isinstance(each, Rows) else each for each in self.checks]
        return env

    def batch(self, given: Mapping[str, Any], discount: Any) -> None:
        """One batch, looked at in windows and the first time; raises InputError."""
        if not self.on:
            return
        if not (self._new or self._open is not None):
            due = False
            with _guarded(self):
                due = self._ends_due()
            if due:
                self._look_up_ends(given)
            return
        found = tensors(**{name: each for name, each in given.items() if each is not None})
        if not any(each.numel() for each in found.values()):
            return
        self._new, self._handed = False, True
        one = found.get("next_value")  # as one discount for all rows would have it
        if discount is not None:  # of every row: γᵏ v is γⁿ (γᵏ⁻ⁿ v), γⁿ that of most rows
            rates = tensors(discount=discount)["discount"].double()
            discount = float(rates[rates > 0].median() if (rates > 0).any() else rates.max())
            if rates.numel() > 1 and (value := found.get("next_value")) is not None:
                check_rows(value, discount=rates)
                found["next_value"] = value * (rates / discount).to(value).reshape_as(value)
        if all(name in found for name in ADDED):
            target, rest = found["target"], {name: found[name] for name in ADDED[:3]}
            check_rows(**rest)
            if target.numel() != rest["reward"].numel() ** 2:
                check_rows(rest["reward"], target=target)
            self._ask(self.algebra, self.algebra.take, *rest.values(), target, discount, one)
            self._tell(self.algebra)
        if {"observation", "next_observation"} <= found.keys():
            self.algebra.stored = found["observation"], found["next_observation"]
        if self._ring is not None and "observation" in found:
            check_lengths(found, (*STORED, "next_value"))
            self.weights.handed = found["observation"]
            with _guarded(self):
                first, self._ring.valued = self._first, "next_value" in found
                if first:
                    self._see_copies(found["observation"], found.get("next_observation"))
                rows = self._look_up({k: v for k, v in found.items() if k in STORED})
                critics = self.networks.stepped  # one that rests has an alarm of its own
                if first:  # one batch of a window says as much as all of them
                    self._ask(
                        self.implied, self.implied.take, rows, found, discount, critics,
                        self._count,
                    )  # fmt: skip

    def _look_up(self, given: Mapping[str, Any]) -> Matched:
        """Stored rows beside the recorded ones."""
        assert self._ring is not None
        with self._paying():
            arrays = {name: each.cpu().numpy() for name, each in given.items()}
            rows, sought = matched(self._ring, arrays, self.objective.limits)
        if self._first:
            self._first = False
            self._ask(self.drawn, self.drawn.take, arrays, self._ring)
            self._tell(self.drawn)
        if self._ring.count <= self._ring.size:  # else rows may be older than what is kept
            self._sought, self._matched = self._sought + sought, self._matched + len(rows.begun)
        hidden = 2 * self._matched < self._sought
        for each in self.checks:
            if isinstance(each, Rows):
                each.hidden = hidden
                if len(rows.begun):
                    self._ask(each, each.take, rows)
                self._tell(each)
        return rows

    def _ends_due(self) -> bool:
        """Between windows, where these have become rare: ends are few, and come late."""
        self._ends_at = max(self._ends_at, self._next)  # else a window has them
        if self._ring is None or self._count < self._ends_at:
            return False
        self._ends_at = self._count + _EVERY
        if self._ends_own > _ENDS * self.budget.share * self.budget.elapsed:
            return False
        return any(isinstance(each, Rows) and each.rare for each in self.checks)

    def _look_up_ends(self, given: Mapping[str, Any]) -> None:
        """Rows of a batch that ended an episode, for the checks that have seen too few."""
        found = tensors(**{k: v for k, v in given.items() if k in STORED and v is not None})
        if self._ring is None or "observation" not in found or not found["observation"].numel():
            return
        check_lengths(found, STORED)
        own = self._own
        with _guarded(self):
            with self._paying():
                arrays = {name: each.cpu().numpy() for name, each in found.items()}
                rows, _ = matched(self._ring, arrays, self.objective.limits, some=0)
            for each in self.checks:
                if len(rows.begun) and isinstance(each, Rows) and each.rare:
                    self._ask(each, each.take, rows)
                    self._tell(each)
        self._ends_own += self._own - own

    def _see_copies(
        self, observations: torch.Tensor, following: torch.Tensor | None = None
    ) -> None:
        self._ask(self.copied, self.copied.take, observations, self._ring, following)
        self._tell(self.copied)

    def rollout(self, given: Mapping[str, Any], discount: float, trace: float) -> None:
        """Advantages of one rollout; raises InputError."""
        if not self.on:
            return
        found = tensors(**{name: each for name, each in given.items() if each is not None})
        same = {name: each for name, each in found.items() if name not in ("last_value", "reward")}
        check_rows(found["reward"], **same)
        check_rows(found["reward"][0], last_value=found["last_value"])
        shape = found["reward"].shape
        found = {k: v.reshape(shape if k in same else v.shape) for k, v in found.items()}
        found["last_value"] = found["last_value"].reshape(shape[1:])
        flags = None if self._ring is None else recorded_ends(self._ring, found["ended"])
        if flags is not None and "truncated" in found:
            found["truncated"] = _limits_alone(flags, found["truncated"])
        rollout = Rollout(**found, discount=discount, trace=trace)
        recorded = self._ring is not None and self._ring.limits
        self._ask(self.advantages, self.advantages.take, rollout, recorded, flags is not None)
        self._tell(self.advantages)
        self._tell(self.advantages.limits)
        if self._ring is not None:
            was, weights = self.weights.ready, self.weights
            self._ask(weights, weights.take, rollout, self._ring)
            if weights.ready and not was:
                self._hear()
            if weights.ready:
                ends = self.bootstraps
                self._ask(ends, ends.take, rollout, self._ring, self.networks.critics, self.policy)
                self._tell(ends)

    def finish(self) -> None:
        """No more updates come."""
        self.rest()
        if self._count:
            self.file(ended=True)

    def rest(self) -> None:
        """Look no more and hold no hook of modules."""
        _LISTENING.discard(self)
        self.on, self._open, self.objective.on = False, None, False
        if self._ring is not None:
            self._ring.on = False
        self._stop_searching()
        self._hear([])
        self.networks.rest()
        self.cleared.end()
        for each in self.others_cleared:
            each.end()

    def step(self, optimizer: Any, before: bool) -> None:
        """An optimiser is about to step, or has stepped."""
        if self.on:
            if before and optimizer is not self.networks.actor:
                self._guard(optimizer)
                if self.cleared.pending:
                    self._ask(self.cleared, self.cleared.confirm, optimizer)
            (self._see_before if before else self._see_after)(optimizer)

    def _see_before(self, optimizer: Any) -> None:
        for each in self.others_cleared:
            # Beyond the actor's next step two passes may be the actor's and the critic's.
            if (self._open is not None or each.passes == 1) and each.is_of(optimizer):
                self._ask(each, each.look)
                self._tell(each)
        if self._open is not None:
            if optimizer is self.networks.actor:
                self._ask(self.cleared, self.cleared.look)
                self._tell(self.cleared)
            if self.objective.heard:
                critics = self.networks.stepped
                self._ask(self.implied, self.implied.hear, self.objective.heard, critics)
                self._tell(self.implied)
                self._ask(self.algebra, self.algebra.hear, self.objective.heard)
                self._tell(self.algebra)
            with self._paying():
                self._before = optimizer, self._sampled()
            self._ask(self.formula, self.formula.before, optimizer)

    def mark(self) -> None:
        """A marked pass is about to begin."""
        if self._open is not None:
            critic = self.networks.online.get(CRITIC)
            self._ask(self.cleared, self.cleared.mark, () if critic is None else critic.parameters)

    def _see_after(self, optimizer: Any) -> None:
        if self._open is not None:
            self._ask(self.formula, self.formula.after, optimizer)
            self._tell(self.formula)
            if optimizer is not self.networks.actor and self._of_critic(optimizer):
                self.cleared.part()
                self.objective.part()
        self.networks.meet(optimizer)
        self.trained.see(optimizer)
        if self._open is not None and self._ring is not None and not self._handed:
            self._see_rows(self._ring)
        if self.trained.replaced:
            self._tell(self.trained)
        if self._open is not None and optimizer is self.networks.actor:
            made = self.objective.sent
            if made is not None and self._ring is not None:
                made = made.in_rows(self._ring)
            called = None if made is None else made.states
            due = self.weights.ready and not self._handed
            if due and called is not None and self._ring is not None and self._ring.fits(called):
                self._see_copies(called)
            self._ask(self.weights, self.weights.after, made)
            self._tell(self.weights)
            self._ask(self.fitted, self.fitted.beside, made, self.weights)
            if self._ring is not None:
                self._see_scale(self._ring.width)
            self._ask(self.objective, self.objective.after)
            self._tell(self.objective)
            self.weights.handed = None
        if self._open is not None and self._before is not None:
            with self._paying():
                self._open.append(self._step(optimizer))
                if len(self._open) > _LONGEST:
                    self._open = None
        if self._open is not None and self.weights.ready:
            for name, heard in self._passes.items():
                if name.startswith(_OF_CRITIC):
                    self._ask(self.fitted, self.fitted.take, heard.arrived, self.weights)
            self._tell(self.fitted)
        for each in self._passes.values():
            # A critic that was called before the actor's step may be fitted after it.
            each.release(waiting=optimizer is self.networks.actor)
        if optimizer is self.networks.actor:
            self._over()
            self._since.clear()
        else:
            self._since.add(optimizer)

    def _see_rows(self, ring: Ring) -> None:
        """Rows that a critic was fitted on, where none are handed over: (s, a), or both in one."""
        args, self.objective.fitted = self.objective.fitted, ()
        self._fitted, width = args or self._fitted, ring.width
        if len(args) == 1 and args[0].ndim == 2 and args[0].shape[1] > width:
            args = args[0][:, :-width], args[0][:, -width:]
            if (ring.places(args[0][:8].cpu().numpy()) < 0).all():
                return  # states alone, or what is known of nothing
        if len(args) == 2 and args[1].ndim == 2 and args[1].shape[1] == width:
            self._look_up({"observation": args[0], "action": args[1]})

    def _see_scale(self, width: int) -> None:
        """Whether the actor gives the critic actions beyond ±1, and the replay none."""
        made, fitted = self.objective.made, self.objective.fitted or self._fitted
        self.objective.fitted = self._fitted = ()
        if made is not None and made.values and fitted and width:
            with self._paying():
                (of_actor, of_replay) = (
                    bool((args[-1][..., -width:].abs() > 1 + SAME).any())
                    for args in (made.values[0][1], fitted)
                )
            for each in self.checks:
                if isinstance(each, Rows):
                    each.beyond += of_actor and not of_replay

    def _step(self, optimizer: Any) -> SampledStep:
        assert self._before is not None
        before, self._before = self._before[1], None
        others = {name: x for name, x in self.networks.online.items() if name != POLICY}
        known = [p for each in others.values() for p in each.parameters]
        mine = {id(p) for p in held(optimizer)}
        turn, its = pushed(self.networks.policy), pushed(p for p in known if id(p) in mine)
        return SampledStep(optimizer, before, self._sampled(), turn, its)

    def _over(self) -> None:
        """A step of the actor is over: close a window, and open one where it is due."""
        self._count += 1
        self._search()
        if self._open:
            if not self._open[-1].turn:
                return  # an optimiser that steps policy and critic in turn: the critic's
            self._close(self._open)
        self._open = None
        self._listen_in(False)
        self.implied.begin()
        if self._count >= self._next and self._affordable():
            self._next = self._count + _EVERY
            with self._paying():
                self._looks, self._looked = self._looks + 1, self.now()[0]
                self.networks.refresh()
                self._begin, self._open, self._first = self._sampled(), [], True
                self._listen_in(True)
                self.formula.begin()
            if compiled_frames() == self._frames:
                self._ask(self.cleared, self.cleared.begin)
                self._look_at_others()
        if self._count >= self._file:
            self._file = self._count - self._count % _ROW + _ROW
            self.file()

    def _of_critic(self, optimizer: Any) -> bool:
        known = self.networks.online.get(CRITIC)
        mine = set() if known is None else {*map(id, known.parameters)}
        return any(id(p) in mine for p in held(optimizer))

    def _look_at_others(self) -> None:
        """What was stepped since the actor's last step: a network that adds up passes of several
        updates by intention is none."""
        known = self.networks.online.get(CRITIC)
        of = {*map(id, () if known is None else known.parameters)}
        mine = {*map(id, held(self.networks.actor))}
        stepped = [p for each in self._since for p in held(each) if id(p) not in mine]
        for each, critic in zip(self.others_cleared, (True, False), strict=True):
            own = [p for p in stepped if (id(p) in of) == critic]
            if own:
                self._ask(each, each.begin, own)

    def _close(self, steps: Sequence[SampledStep]) -> None:
        begin, pairs = self._begin, len(self.networks.pairs)
        if begin is None or any(len(each.after.targets) != pairs for each in steps):
            return  # the networks were declared in the middle of it
        with self._paying():
            begin, *ends = brought(
                [begin, *(m for each in steps for m in (each.before, each.after))]
            )
            pairs_of = zip(steps, ends[::2], ends[1::2], strict=True)
            steps = [replace(each, before=one, after=two) for each, one, two in pairs_of]
        window = ActorWindow(self.now()[0], begin, steps)
        self._ask(self.unheld, self.unheld.see, self.networks)
        for check in self.checks:
            if isinstance(check, NoStep | Targets | ActorStep):
                self._ask(check, check.see, window, self.networks)
            self._tell(check)

    def _ask(self, check: _Check, work: Callable[..., None], *given: Any) -> None:
        """Work of one check; where it fails, this check is off and all else goes on."""
        if check.name in self._failed:
            return
        with self._paying(check.name):
            try:
                work(*given)
            except Exception as error:
                self._failed[check.name] = f"it failed ({type(error).__name__}: {error})"
                warn(f"does not check any more whether {check.name}", error)

    def _tell(self, check: _Check) -> None:
        answer = self._answer(check)
        if answer.state == "fault":
            self.log.report(Alarm(answer.kind, answer.message), *self.now())

    def _answer(self, check: _Check) -> CheckAnswer:
        if check.name in self._failed:
            return off(self._failed[check.name])
        answer = check.answer(self.networks)
        unseen = answer.proof in (TRANSFORMED, CALLED)
        if (unseen or answer.proof == UNRECORDED) and self.ends.missed:
            return off(UNENDED)
        if unseen and self.copied.shared:
            return off(ALIASED)
        if unseen and self.drawn.empty:
            return off(EMPTY)
        if check is self.drawn and self.advantages.looks and answer.state == "sound":
            return off("minibatches come back to the rows of their rollout: which is not looked at")
        if answer.state != "off" or self._sought:
            return answer
        if self._new and self.advantages.looks:
            if isinstance(check, Rows | Drawn | StoredCopies):
                return off(_ROLLOUTS)
            if isinstance(check, Implied | Algebra):
                return off("a loop that hands over rollouts has no targets of one step")
        rows = isinstance(check, Rows | Drawn | Implied | StoredCopies)
        return off(_NO_ROWS) if rows and self._ring is not None else answer

    def _sampled(self) -> MomentSamples:
        networks, pairs = self.networks, self.networks.pairs
        return MomentSamples(
            {name: each() for name, each in networks.online.items()},
            [pair.target() for pair in pairs],
            [pair.online() for pair in pairs],
        )

    def _search(self) -> None:
        """Hook all modules for a few updates, as long as no target is found."""
        if self._searching is not None:
            calls, handle = self._searching
            if self._count % _ROW >= _SEARCH:
                handle.remove()
                self._searching = None
                self.networks.find(calls)
                self._hear()
        elif self._count - 1 in _AGAIN and not (self.networks.settled and self._count > 1):
            if compiled_frames() > self._frames or hasattr(self.policy, "_orig_mod"):
                return
            calls = Calls()
            self._searching = calls, register_module_forward_hook(calls.hook)
            weakref.finalize(self, self._searching[1].remove)

    def _hear(self, critics: Sequence[nn.Module] | None = None) -> None:
        """Hook policy and critics, none of them where an empty list is given."""
        for handle in self._followed:
            handle.remove()
        of = self.networks.critics if critics is None else critics
        objective = self.objective
        hear = objective.hear_critic, objective.hear_value, objective.hear_policy
        nested = [part for each in of for part in each.modules() if part is each or part._modules]
        valued = self.networks.valued if critics is None else []
        own = [*self.policy.modules()] if of or (critics is None and self.weights.ready) else []
        self._ears = [
            (part, Hook(what, partial(warn, "hears no more of the actor's objective")))
            for what, parts in zip(hear, (dict.fromkeys(nested), valued, own), strict=True)
            for part in parts
        ]
        targets = [pair.modules[1] for pair in self.networks.pairs if pair.whose == CRITIC]
        self._ears += [
            (each, Hook(self.algebra.hear_target, partial(warn, "hears no more of targets"), False))
            for each in (targets if critics is None else ())
        ]
        self._listen_in(self.objective.on)
        names = {module: name for name, module in self.policy.named_modules()}
        trained = self.networks.trained if critics is None else critics
        self._passes, self._followed = {}, []
        for k, each in enumerate(trained):
            name = names.get(each) or f"network {k}"
            if each not in names and each in self.networks.critics:
                at = self.networks.critics.index(each)
                name = f"{_OF_CRITIC}'s network {at + 1}" if at else _OF_CRITIC
            heard = self._passes[name] = self.hooked.get(each) or LastPasses(self.budget)
            if each not in self.hooked:
                self._followed.append(each.register_forward_hook(heard.hook))

    def _listen_in(self, on: bool) -> None:
        """Hear the actor's objective from now on, or no more: a module with a hook is slower."""
        self.objective.on = on
        for handle in self._heard:
            handle.remove()
        self._heard = [part.register_forward_hook(ear) for part, ear in self._ears if on]

    def lost(self) -> str:
        """Through which module a loss has sent back what is not finite, and in which rows."""
        here = {name: each for name, each in self._passes.items() if each.rows}
        if not here:
            return ""
        name = min(here, key=lambda name: here[name].rows)  # one lost row makes others lost
        return f"{name}: {here[name].lost()}"

    def _stop_searching(self) -> None:
        if self._searching is not None:
            self._searching[1].remove()
            self._searching = None

    def _affordable(self) -> bool:
        if self._looks < GRACE:
            return True
        price = self._own / self._looks
        self.budget.lent = price * max(FIRST - self._looks, 0)
        self.budget.later = self.budget.of_time(price * self.now()[0] / _EVERY)
        allowed = self.budget.share * (self.budget.elapsed + price)
        if self._looks < FIRST:
            return self._own + price <= LOAN * allowed
        left = self.budget.governed + price <= LEAVES * allowed
        return left and self._own + price <= _SHARE * allowed

    @contextmanager
    def _paying(self, name: str = "") -> Iterator[None]:
        """Work inside an update, of one check or of all in equal parts."""
        begun = self.budget.clock()
        yield
        seconds = UNSEEN * (self.budget.clock() - begun)
        self.budget.own += seconds
        self._own += seconds
        of = [name] if name else list(self._seconds)
        for each in of:
            self._seconds[each] += seconds / len(of)

    def file(self, ended: bool = False) -> None:
        """Rows of the checks whose state has changed; all of them at twice as many updates."""
        count, step = self.now()
        hundreds = self._count // _ROW
        everything = ended or hundreds & (hundreds - 1) == 0
        always = self.advantages, self.advantages.limits, self.trained, self.ends
        for number, check in enumerate(self.checks):
            answer = self._answer(check)
            if not everything and self._states.get(check.name) == answer.state:
                continue
            self._states[check.name] = answer.state
            proof = answer.proof
            if answer.state == "open" and check.name not in self._said:
                self._said.add(check.name)
                self.log.say(f"step {step}: not shown that {check.name}: {proof}")
            if answer.state == "fault" and check not in always:
                proof += f"; last look at update {self._looked:,}"
                proof += ", none since" if self._looked <= count - _ROW else ""
            try:
                self.log.sink.write("checks", {
                    "number": number, "update": count, "step": step, "check": check.name,
                    "state": answer.state, "value": answer.value, "threshold": answer.threshold,
                    "proof": proof, "looks": answer.looks,
                    "seconds": self._seconds[check.name],
                })  # fmt: skip
            except Exception as error:  # a log that fails is the whole probe's
                self._fail(error)
                return


# One pair of hooks for the process, never taken away: an optimiser that goes through its hooks just
# now, in another thread or while garbage is collected, would die of it. Unheard they cost 0.2 µs.
_LISTENING: weakref.WeakSet[Parts] = weakref.WeakSet()


@cache
def _listen() -> None:
    register_optimizer_step_pre_hook(lambda optimizer, *_: _announce(optimizer, True))
    register_optimizer_step_post_hook(lambda optimizer, *_: _announce(optimizer, False))


def _announce(optimizer: Any, before: bool) -> None:
    if not torch.compiler.is_compiling():
        for each in list(_LISTENING):
            with _guarded(each):
                each.step(optimizer, before)


@contextmanager
def _guarded(parts: Parts) -> Iterator[None]:
    """Nothing in here may stop the user's training."""
    try:
        yield
    except Exception as error:
        _stop_listening(parts, error)


def _stop_listening(parts: Parts, error: Exception) -> None:
    _LISTENING.discard(parts)
    with suppress(Exception):
        parts.rest()
    warn("checks the loop's parts no more", error)


def _limits_alone(flags: np.ndarray[Any, Any], truncated: torch.Tensor) -> torch.Tensor:
    """Where a time limit ended an episode that did not terminate in the same step, as environments
    report it: nothing follows a terminal state."""
    alone = torch.from_numpy(~flags[:, 0]).reshape(truncated.shape)
    return truncated * alone.to(truncated)
