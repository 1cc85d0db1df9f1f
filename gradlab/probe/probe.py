"""`gradlab.Probe`: the quality of a training loop's gradients, measured while it runs.

    probe = gradlab.Probe(policy, optimizer, log="run.h5")
    for step in ...:
        with probe(step): loss.backward()
        optimizer.step()

At updates 1 to 50 and every 50th after: norms of gradients before clipping, |Δθ|/|θ|, saturated
actions, signal against noise; with a task and a critic bias and variance by horizon, and with an
environment whether the last updates raised the return. Before every step: is a gradient lost, and
which operation and sample lost it. The loop computes the same bits as without a probe; a failure in
here is reported once and costs the loop nothing more.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn

from gradlab import provenance, validation
from gradlab.errors import IMPORTED
from gradlab.networks.mlp import CriticLike, as_critic
from gradlab.probe import arguments
from gradlab.probe.arguments import Question
from gradlab.probe.declared import LoopChecks, Networks
from gradlab.probe.isolation import warn
from gradlab.probe.log import Log, Logs
from gradlab.probe.loop import Episodes, Loop, MakeEnv
from gradlab.probe.passes import Passes, Watched, watched_in
from gradlab.runs.probe.results import Reported
from gradlab.runs.probe.schema import attributes

if TYPE_CHECKING:
    from gradlab.tasks import Task


Loss = Callable[..., Any] | None


@final
class Probe:
    """Measures the gradients of a policy in a training loop of your own.

    Args:
        policy: the module whose gradients are measured; frozen parameters are skipped until they
            are thawed.
        optimizer: its updates are measured by its step hooks; None: no update ratios, and all
            passes marked with the same step are one update.
        task: adds bias and variance by horizon, Jacobians and growth, on copies, at looks 1, 2, 4,
            8, …
        critic: (state, action) → [N], the tail of these gradients on a task. A module is copied; a
            function is called as it is, and must change nothing.
        env: a function that makes an environment as the loop's, with reset and step. At every
            second look a whole episode without noise is played in it from a fresh reset; windows
            of 16 episodes show whether the return rises.
        log: path of a run file (readable while it is written), a function of one dict of plain
            numbers per row, several of these, or None.
        every: updates between two looks, after the first 50, which are all looked at.
        seed: of the probe's own starts and noise.
        critic_alone: the actor ascends the critic alone, as in DDPG, TD3 and SAC, without a step of
            a model: recommendation and checks are about that gradient.
        watched: the module that the loop calls, where it is not the policy: the module inside of an
            adapter that gives the task's actions, say.
        steps: the count of a trainer that clips by itself: every backward pass through the watched
            module is marked with it.

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
        env: MakeEnv | None = None,
        log: Logs = None,
        every: int = 50,
        seed: int = 0,
        *,
        critic_alone: bool = False,
        watched: Watched | None = None,
        steps: Callable[[], int] | None = None,
    ) -> None:
        arguments.check_policy(policy)
        arguments.check_optimizer(optimizer, policy)
        arguments.check_question(task, critic)
        validation.whole("every", every, 1)
        validation.flag("critic_alone", critic_alone)
        arguments.check_log(log)
        arguments.check_env(env)
        self.policy, self.off = policy, arguments.spectator()
        question = None
        if task is not None:
            question = Question(task, None if critic is None else as_critic(critic), seed)
            arguments.check_measurable(question, policy)
        passes = Passes(watched or watched_in(policy, task))
        if steps is not None:
            passes.over = lambda: self._attempt(lambda: self._look(steps()))
        names = [name for name, _ in policy.named_parameters()]
        config = {"seed": seed, "every": every, "critic_alone": critic_alone}
        head = attributes(
            names, "" if task is None else task.name, config, provenance.environment()
        )
        width = task.simulator.action_dim if task is not None else None
        horizon = None if question is None else question.horizon
        shape = len(names), horizon, lambda: passes.actions if width is None else width
        where = None if self.off else log
        self._log = Log(where, head, names, shape, critic_alone=critic_alone)
        episodes = None if env is None or self.off else Episodes(env, policy, seed)
        self._loop = Loop(policy, optimizer, self._log, every, passes, question, episodes)
        self._checks = LoopChecks(policy, optimizer, self._loop)
        self._loop.own += IMPORTED.pop("gradlab.probe.probe:Probe", 0.0)  # the first one pays
        self._optimizer, self._closed = optimizer, False
        self._handles: list[Any] = []
        if not self.off:
            self._attach()
        _ALIVE.add(self)

    @contextlib.contextmanager
    def __call__(self, step: int, scaler: torch.amp.GradScaler | None = None) -> Iterator[None]:
        """Mark the backward pass of update `step`, an integer; an exception in it passes through.

        Args:
            scaler: the gradient scaler that has multiplied the loss, if there is one.
        """
        if self.off:
            self._let_go()  # here no hook is being called
        self._attempt(self._loop.enter)
        self._attempt(self._checks.mark, "actor")
        try:
            yield
        finally:
            self._attempt(self._checks.mark, "")
        self._attempt(self._look, step, scaler)

    def note(self, *, episode_return: float | Tensor | Any) -> None:
        """Hand over the return of an episode that has ended, or of several in an array."""
        self._attempt(self._loop.note, episode_return)

    def networks(
        self, *, critic: Networks = None, target: Networks = None, target_actor: Networks = None,
        model: Networks = None, temperature: Networks = None,
        optimizers: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Declare what the loop trains beside the policy: who moves them, and whom they follow.

        Args:
            critic: a module, or several; target, target_actor: copies of these and of the policy,
                in the same order. temperature: the tensor log α.
            optimizers: of these, by role, as {"critic": critic_optimizer}, one or several. The
                policy's is known.

        Raises:
            InputError: no modules, or a target without a network of its shapes.
        """
        given = {"critic": critic, "target": target, "target_actor": target_actor}
        given |= {"model": model, "temperature": temperature}
        for optimizer in self._checks.networks(given, optimizers):
            if not self.off:
                self._follow(optimizer)

    def losses(
        self, *, critic: Loss = None, actor: Loss = None, policy: Loss = None, fit: Loss = None,
        gae: Loss = None, **declared: Any,
    ) -> None:  # fmt: skip
        """Declare the loop's losses: each is asked its laws on batches that `look` is given.

        Args:
            critic, actor, policy, fit: loss(batch) → a scalar or a dict of terms, by their kind.
            gae: gae(reward, value, ended, last_value, final_value) → advantages.
            declared: discount, temperature, draw, … as of `gradlab.audit`; networks are known.

        Raises:
            InputError: no function, or a name that `gradlab.audit` has not.
        """
        given = {"critic": critic, "actor": actor, "policy": policy, "fit": fit, "gae": gae}
        self._checks.losses(given, declared)

    def record(self, env: Any, *, steps: int = 1, discount: float | None = None) -> Any:
        """Return the environment with its steps recorded, to check stored rows against them.

        Args:
            env: of training, as the loop uses it, outside of what transforms observations,
                actions and rewards: gymnasium's, a vector of them, or a batched one of tensors.
            steps: that a stored row adds up; discount: γ, also for the bound of values.

        Raises:
            InputError: none of these, or a second environment.
        """
        return self._checks.record(env, steps, discount)

    def look(self, batch: Any) -> None:
        """Hand over a batch as the losses take it, before they do.

        Args:
            batch: a mapping of tensors [B, …]: observation, action, reward, next_observation,
                terminated, and what else the losses need; value, next_value, target for bounds.
        """
        self._attempt(self._checks.look, batch)

    @property
    def alarms(self) -> list[Reported]:
        """What has failed so far, in the order in which it was first seen."""
        return self._log.failed

    @property
    def spent(self) -> float:
        """Share of the time that the probe has taken."""
        return self._loop.own / self._loop.elapsed if self._loop.elapsed > 0 else 0.0

    def close(self) -> None:
        """Write what is open, finish the file, print the cost, and let go of policy and optimiser.

        Not to be called from a hook of the optimiser.
        """
        self._attempt(self._tell_cost)
        self._attempt(self._loop.finish)
        self._attempt(self._log.close)
        self._closed = self._closed or not self.off
        self.off = True
        self._let_go()

    def _tell_cost(self) -> None:
        if self._loop.count:
            cost = f"{self._loop.own:.2g} s, {self.spent:.1%} of the time"
            self._log.say(f"{cost}; a look every {self._loop.every} updates")

    def resume(self) -> None:
        """Go on after `close`: the next update, in the same file."""
        if self._closed and not arguments.spectator():
            self.off, self._closed = False, False
            self._attach()

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
        warn("is off", error)
        for work in (self._loop.rest, self._log.close):
            with contextlib.suppress(Exception):
                work()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Unplugged, ()

    def _attach(self) -> None:
        """Hear of passes and steps from now on."""
        passes = self._loop.passes
        self._handles.append(passes.watched.module.register_forward_hook(passes))
        for optimizer in [self._optimizer, *self._checks.others]:
            if optimizer is not None:
                self._follow(optimizer)
        self._checks.attach()

    def _follow(self, optimizer: torch.optim.Optimizer) -> None:
        self._handles.append(optimizer.register_step_pre_hook(self._before_step))
        self._handles.append(optimizer.register_step_post_hook(self._after_step))

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        # args[0] is the optimiser itself.
        closure = (len(args) > 1 and args[1] is not None) or kwargs.get("closure") is not None
        self._attempt(self._loop.before_step, optimizer, closure)

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self._attempt(self._loop.after_step, optimizer)

    def _let_go(self) -> None:
        handles, self._handles = self._handles, []
        for let_go in (*(handle.remove for handle in handles), self._checks.rest):
            with contextlib.suppress(Exception):
                let_go()

    def _forked(self) -> None:
        """This is the child of a fork: the file is the parent's."""
        self.off, self._log.files = True, []

    def _look(self, step: Any, scaler: Any = None) -> None:
        """A backward pass is over."""
        scale = arguments.scale_of(scaler, self._optimizer)
        self._loop.look(arguments.step_of(step), scale, True)


@final
class _Unplugged:
    """A probe's copy or pickle, of an agent that holds one: calls are allowed and do nothing."""

    off, spent, alarms = True, 0.0, ()

    def __call__(
        self, step: int, scaler: torch.amp.GradScaler | None = None
    ) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def note(self, *_: object, **__: object) -> None:
        pass

    networks = losses = look = close = resume = note

    def record(self, env: Any, **_: object) -> Any:
        return env


_ALIVE: weakref.WeakSet[Probe] = weakref.WeakSet()


def _close_all() -> None:
    for probe in list(_ALIVE):
        probe.close()


def _forked() -> None:
    for probe in list(_ALIVE):
        probe._forked()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_forked)
