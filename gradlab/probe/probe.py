"""`gradlab.Probe`: the quality of a training loop's gradients, measured while it runs.

    probe = gradlab.Probe(policy, optimizer, log="run.h5")
    for step in ...:
        with probe(step): loss.backward()
        optimizer.step()

At every update: norms of gradients before clipping, |Δθ|/|θ|, what is not finite, saturated
actions. Now and then, as the budget allows: products of successive gradients (signal against
noise), with a task and a critic, bias and variance by horizon, and with an environment whether the
last updates raised the return. The loop computes the same bits
as without a probe; a failure in here is reported once and costs the loop nothing more.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import time
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import Tensor, nn

from gradlab import provenance, validation
from gradlab.errors import IMPORTED, Doubtful
from gradlab.networks.mlp import CriticLike, as_critic
from gradlab.probe import arguments
from gradlab.probe.alarms.evidence import Alarm
from gradlab.probe.arguments import Question
from gradlab.probe.budget import EPISODES, LOAN, Budget, Clock
from gradlab.probe.critics import Critic, ModelGradients, parameters_of
from gradlab.probe.isolation import Finder, warn
from gradlab.probe.parts.parts import Parts
from gradlab.probe.policy_calls import ModuleWatch, Watched, watched_in
from gradlab.probe.returns import Looks, MakeEnv, reward_wrappers
from gradlab.probe.row_sinks import (
    AlarmLog,
    FileSink,
    FunctionSink,
    Log,
    NoSink,
    RowSink,
    SeveralSinks,
)
from gradlab.probe.sampler import Measurements
from gradlab.probe.updates import Instruments, Loop, Updates
from gradlab.runs.probe.schema import LAW, attributes

if TYPE_CHECKING:
    from gradlab.tasks import Task

Logs = str | Path | Log | Sequence["Logs"] | None


@final
class Probe:
    """Measures the gradients of a policy in a training loop of your own.

    Args:
        policy: the module whose gradients are measured; frozen parameters are skipped until they
            are thawed.
        optimizer: its updates are measured by its step hooks; None: no update ratios, and all
            passes marked with the same step are one update.
        task: adds bias and variance by horizon, Jacobians and growth, on copies.
        critic: (state, action) → [N], the tail of these gradients on a task; with its optimiser it
            is measured, too, so that the sample of a NaN is named. A module is copied; a function
            is called as it is, and must change nothing. One of states alone belongs to `networks`.
        critic_optimizer: its steps are measured, too: a critic that does not move, whose rate is
            too large, or whose gradient explodes. An optimiser that steps both is given twice.
        log: path of a run file (readable while it is written), a function of one dict of plain
            numbers per row, several of these, or None.
        overhead_budget: share of the time that the probe may take.
        seed: of the probe's own starts and noise.
        clock: seconds, for the budget.
        resume: go on in the run file at `log`, of an earlier probe of this policy and task, with
            its counts, alarms and share of the time.
        watched: the module that the loop calls, where it is not the policy: the module inside of an
            adapter that gives the task's actions, say.
        watched_critic: the same for the critic.
        env: a function that makes an environment as the loop's, with reset and step. Every K-th
            update a whole episode without noise is played in it from a fresh reset, for a quarter
            to three fifths of the budget; K is stated. Windows of 16 episodes show whether the
            return rises.
        critic_alone: the actor ascends the critic alone, as in DDPG, TD3 and SAC, without a step of
            a model: verdict and alarms are about that gradient.

    Several backward passes before an optimiser's step are one update, whose last gradient counts.
    With a gradient scaler, write `probe(step, scaler)`. In a group of processes the first one
    writes; a forked process has no probe, and a copy of this object does nothing.

    Raises:
        InputError: names the argument, what it got and what to do.
    """

    def __init__(
        self,
        policy: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        task: Task | None = None,
        critic: CriticLike | None = None,
        log: Logs = None,
        overhead_budget: float = 0.05,
        seed: int = 0,
        *,
        resume: bool = False,
        critic_optimizer: torch.optim.Optimizer | None = None,
        clock: Clock = time.perf_counter,
        watched: Watched | None = None,
        watched_critic: nn.Module | None = None,
        critic_alone: bool = False,
        env: MakeEnv | None = None,
    ) -> None:
        arguments.check_policy(policy)
        arguments.check_optimizer(optimizer, policy)
        arguments.check_question(task, critic, critic_optimizer)
        arguments.check_critic_optimizer(critic_optimizer, policy)
        arguments.check_switches(resume=resume, critic_alone=critic_alone)
        arguments.check_log(log, resume)
        arguments.check_share(overhead_budget)
        arguments.check_env(env)
        arguments.check_clock(clock)
        part = EPISODES if env is not None else 0.0
        self.policy, self.budget = policy, Budget(float(overhead_budget), clock, part)
        self.off = arguments.spectator()
        if clock is time.perf_counter:  # the first probe of a process pays for the import
            self.budget.own += IMPORTED.pop("gradlab.probe.probe:Probe", 0.0)
        looks: Looks | None = None
        if env is not None and not self.off:
            looks = Looks(env, policy, self.budget, seed)
        with self.budget.paying():  # setting up is the probe's own time, too
            question = None if task is None else _question(task, critic, seed, policy)
            watch = ModuleWatch(watched or watched_in(policy, task), self.budget)
            named = list(policy.named_parameters())
            settings = {"seed": seed, "critic_alone": bool(critic_alone)}
            sink: RowSink = (
                NoSink() if self.off else _sink(log, named, question, watch, settings, resume)
            )
            names = [name for name, _ in named]
            self.alarm_log = AlarmLog(sink, names, critic_alone=bool(critic_alone))
            beside = None
            if critic_optimizer is not None:
                theirs, both = (
                    parameters_of(critic_optimizer, policy),
                    critic_optimizer is optimizer,
                )
                beside = Critic(critic_optimizer, theirs, both, self.budget)
            loop = Loop(policy, [p for _, p in named], optimizer, beside)
            models = ModelGradients(policy, optimizer, task)
            measurements = None
            if question is not None:
                measurements = Measurements(question, policy, self.budget, LOAN)
            if looks is not None:
                looks.count = len(sink.earlier.returns.get("update", ()))
                if looks.doubt:
                    self.alarm_log.say(looks.doubt)
            instruments = Instruments(watch, models, measurements, looks)
            self._updates = Updates(loop, instruments, self.alarm_log, self.budget, sink.earlier)
            optimizers = optimizer, critic_optimizer
            self._parts = Parts(
                policy, optimizers, self.alarm_log, self.budget, self._now, self._guard, self._fail
            )
            self._updates.rows = self._parts.lost
        episodes = float(np.sum(sink.earlier.returns.get("seconds", 0.0)))
        self.budget.go_on(sink.earlier.own, sink.earlier.elapsed, episodes)
        self._optimizer, self._closed, self._looks = optimizer, False, looks
        self._died: BaseException | None = None
        module = critic if isinstance(critic, nn.Module) else None
        self._critics = watched_critic or module, critic_optimizer
        self._handles = [] if self.off else self._attached()
        _ALIVE.add(self)

    def __call__(
        self, step: int, scaler: torch.amp.GradScaler | None = None
    ) -> contextlib.AbstractContextManager[None]:
        """Mark the backward pass of update `step`, an integer.

        Args:
            scaler: the gradient scaler that has multiplied the loss, if there is one.
        """
        if self.off:
            self._let_go()  # here no hook is being called
        return _Marked(self, step, scaler)

    def note(
        self, *, critic_loss: float | Tensor | Any = None,
        episode_return: float | Tensor | Any = None,
    ) -> None:  # fmt: skip
        """Log numbers of the loop at any time; a row has the means since the last one.

        Args:
            critic_loss: of one update, a number or a tensor of one.
            episode_return: of an episode that has ended, or an array of several. Without a note,
                those that Gymnasium's RecordEpisodeStatistics has recorded are read.
        """
        for name, value in (("critic_loss", critic_loss), ("episode_return", episode_return)):
            if value is not None:
                self._attempt(self._updates.note, name, value)

    def networks(self, *, critic: object, target: object = (), period: int | None = None) -> None:
        """Declare what the loop trains beside the policy, where the probe cannot find it.

        Args:
            critic: a module, or several; target: copies of these and of the policy, in any order.
            period: updates between two copies, where a target does not move at every update.

        Raises:
            InputError: no modules, or a target with the shapes of no network.
        """
        if period is not None:
            validation.whole("period", period, 1)
        self._parts.declare(critic, target, period)

    def record(self, env: Any) -> Any:
        """Return the environment with its steps recorded, to check stored rows against them.

        Args:
            env: a gymnasium.Env or gymnasium.vector.VectorEnv, as the loop uses it: outside of what
                transforms observations, actions and rewards.

        Raises:
            InputError: none of these. A warning names wrappers that change the rewards of `env` or
                of the probe's own environment alone.
        """
        if self._looks is not None:
            own, theirs = (reward_wrappers(each) for each in (self._looks.environment, env))
            if own is not None and theirs is not None and own != theirs:
                warnings.warn(
                    f"rewards are changed by {' and '.join(theirs) or 'nothing'} in the recorded "
                    f"environment and by {' and '.join(own) or 'nothing'} in that of env=: returns "
                    f"of the two are not in one unit; give both the same wrappers to compare them",
                    Doubtful, stacklevel=2,
                )  # fmt: skip
        return self._parts.record(env)

    def batch(
        self, *, observation: Any = None, action: Any = None, reward: Any = None,
        next_observation: Any = None, terminated: Any = None, next_value: Any = None,
        target: Any = None, discount: Any = None,
    ) -> None:  # fmt: skip
        """Check one batch of the critic's, or a rollout's minibatch, before the step; what is left
        out is not checked.

        Args:
            observation, action, reward, next_observation, terminated: rows as the replay or
                rollout has them, for `record`.
            next_value, target: v and y = r + γ (1 − d) v of every row, as the loop adds them up,
                with reward and terminated; the entropy belongs to next_value.
            discount: γ that is meant, γⁿ of n-step targets, of all rows or of each; None: only
                γ = 1 is wrong.

        Raises:
            InputError: no tensors, or of other numbers of rows.
        """
        rows = {"observation": observation, "action": action, "reward": reward}
        rows |= {"next_observation": next_observation, "terminated": terminated}
        self._parts.batch(rows | {"next_value": next_value, "target": target}, discount)

    def rollout(
        self, *, reward: Any, value: Any, ended: Any, last_value: Any, advantage: Any,
        discount: float, trace: float, truncated: Any = None, final_value: Any = None,
    ) -> None:  # fmt: skip
        """Check the advantages of one rollout: T steps of one environment, [T], or of N, [T, N].

        Args:
            reward, value: of every step, as paid, and of the state that it begins in.
            ended: whether step t ended an episode (CleanRL's dones are of the step before:
                torch.cat([dones[1:], next_done[None]])); truncated: by its time limit, and not
                terminated in the same step.
            last_value: of the states after the last step, [N].
            advantage: before it is normalised.
            discount, trace: γ and λ.
            final_value: of the last observation of a truncated episode, 0 elsewhere.

        Raises:
            InputError: no tensors, or of other shapes.
        """
        given = {"reward": reward, "value": value, "ended": ended, "advantage": advantage}
        given |= {"last_value": last_value, "truncated": truncated, "final_value": final_value}
        self._parts.rollout(given, discount, trace)

    @property
    def alarms(self) -> list[Alarm]:
        """The alarms that were reported, each with its step; one that lasts comes again."""
        return self.alarm_log.alarms

    @property
    def spent(self) -> float:
        """Share of the time that the probe has taken."""
        return self.budget.spent

    def close(self) -> None:
        """Write what is open, finish the file and let go of policy and optimiser.

        Not to be called from a hook of the optimiser.
        """
        self._attempt(self._updates.finish, sys.exception() or self._died)
        self._attempt(self._parts.finish)
        self._attempt(self.alarm_log.close)
        self._closed = self._closed or not self.off
        self.off = True
        self._let_go()

    def resume(self) -> None:
        """Go on after `close`: the next update, in the same file."""
        if self._closed and not arguments.spectator():
            self.off, self._closed = False, False
            self._handles = self._attached()

    def _attempt(self, work: Callable[..., Any], *given: Any) -> Any:
        """Call a part of the probe; where it fails, warn once and switch the probe off."""
        if self.off:
            return None
        try:
            return work(*given)
        except Exception as error:  # nothing in here may stop the user's training
            self._fail(error)
        return None

    def _fail(self, error: Exception) -> None:
        """Off for good. The hooks stay until the next mark, inert: an optimiser that goes through
        its own just now dies where one of them is gone."""
        self.off = True
        for work in (
            self._parts.rest, lambda: warn("is off", error), self._updates.rest,
            self.alarm_log.close,
        ):  # fmt: skip
            with contextlib.suppress(Exception):
                work()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Unplugged, ()

    def _attached(self) -> list[Any]:
        watch, optimizer = self._updates.watch, self._optimizer
        handles = [watch.watched.module.register_forward_hook(watch.hook)]
        if optimizer is not None:
            handles.append(optimizer.register_step_pre_hook(self._before_step))
            handles.append(optimizer.register_step_post_hook(self._after_step))
        self._parts.attach()
        (module, optimizer), critic = self._critics, self._updates.critic
        if critic is not None and optimizer is not None:
            handles.append(optimizer.register_step_pre_hook(self._before_critic))
            handles.append(optimizer.register_step_post_hook(self._after_critic))
            if isinstance(module, nn.Module):
                handles.append(module.register_forward_hook(critic.passes.hook))
                self._parts.hooked = {module: critic.passes}
        return handles

    def _guard(self, optimizer: Any) -> None:
        self._attempt(self._updates.guard, optimizer)

    def _now(self) -> tuple[int, int]:
        return self._updates.count, self._updates.step

    def _before_critic(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self._attempt(self._updates.before_critic)

    def _after_critic(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self._attempt(self._updates.after_critic)

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        # args[0] is the optimiser itself.
        closure = (len(args) > 1 and args[1] is not None) or kwargs.get("closure") is not None
        self._attempt(self._updates.before_step, optimizer, closure)

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self._attempt(self._updates.after_step, optimizer)

    def _let_go(self) -> None:
        handles, self._handles = self._handles, []
        for let_go in (*(handle.remove for handle in handles), self._parts.rest):
            with contextlib.suppress(Exception):
                let_go()

    def _forked(self) -> None:
        """This is the child of a fork: the file is the parent's."""
        self.off, self._parts.on, self.alarm_log.sink = True, False, NoSink()

    def _enter(self) -> Finder | None:
        self._parts.mark()
        mode = self._updates.enter()
        if mode is not None:
            mode.__enter__()  # type: ignore[no-untyped-call]
        return mode

    def _leave(self, finder: Finder, *error: Any) -> None:
        """Also where the probe went off in between: a mode that stays slows everything down."""
        try:
            finder.__exit__(*error)  # type: ignore[no-untyped-call]
        except Exception as failed:
            self._fail(failed)

    def _look(self, step: Any, scaler: Any, finder: Finder | None) -> None:
        self._parts.trained.marks += 1
        scale = arguments.scale_of(scaler, self._optimizer)
        self._updates.look(arguments.step_of(step), scale, True, finder)


@final
class _Marked:
    """One marked backward pass; an exception in it is the user's and passes through."""

    def __init__(self, probe: Probe, step: int, scaler: Any) -> None:
        self.probe, self.step, self.scaler = probe, step, scaler
        self.finder: Finder | None = None

    def __enter__(self) -> None:
        self.finder = self.probe._attempt(self.probe._enter)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.finder is not None:
            self.probe._leave(self.finder, kind, error, trace)
        if kind is None:
            self.probe._attempt(self.probe._look, self.step, self.scaler, self.finder)


@final
class _Unplugged:
    """A probe's copy or pickle, of an agent that holds one: calls are allowed and do nothing."""

    off, spent, alarms = True, 0.0, ()

    def __call__(
        self, step: int, scaler: torch.amp.GradScaler | None = None
    ) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def note(self, **_: object) -> None:
        pass

    networks = batch = rollout = note

    def record(self, env: Any) -> Any:
        return env

    def close(self) -> None:
        pass

    def resume(self) -> None:
        pass


def _question(task: Task, critic: CriticLike | None, seed: int, policy: nn.Module) -> Question:
    question = Question(task, None if critic is None else as_critic(critic), seed)
    arguments.check_measurable(question, policy)
    return question


def _sink(
    log: Logs,
    named: Sequence[tuple[str, nn.Parameter]],
    question: Question | None,
    watch: ModuleWatch,
    settings: Mapping[str, Any],
    resume: bool,
) -> RowSink:
    names = [name for name, _ in named]
    if log is None:
        return NoSink()
    if isinstance(log, list | tuple):
        return SeveralSinks([_sink(each, named, question, watch, settings, resume) for each in log])
    assert callable(log) or isinstance(log, str | Path)  # the door has seen to it
    if callable(log):
        return FunctionSink(log, names)
    config = {**settings, "overhead_budget": watch.budget.share, "parameters": list(names)}
    config |= {"law": LAW, "shapes": [list(p.shape) for _, p in named]}
    task = "" if question is None else question.task.name
    horizon = None if question is None else question.horizon

    def actions() -> int:
        return watch.actions if question is None else question.task.simulator.action_dim

    head = attributes(names, task, config, provenance.environment())
    return FileSink(log, head, len(names), horizon, actions, resume)


_ALIVE: weakref.WeakSet[Probe] = weakref.WeakSet()


def _close_all() -> None:
    died = getattr(sys, "last_value", None)  # what has ended the program, if it was an error
    for probe in list(_ALIVE):
        probe._died = died
        probe.close()


def _forked() -> None:
    for probe in list(_ALIVE):
        probe._forked()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_forked)
