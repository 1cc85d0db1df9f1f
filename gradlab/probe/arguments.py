"""The arguments of a probe, checked once: each refusal names the argument and what to do.

The subject of measurements on a task, and their memory, are light to import beside a loop: what
measures is imported when it is asked.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from gradlab import validation
from gradlab.errors import InputError
from gradlab.networks.interface import check_trainable
from gradlab.networks.mlp import as_critic
from gradlab.probe.isolation import doubled, undisturbed
from gradlab.statistics.moments import Array
from gradlab.validation import shown

if TYPE_CHECKING:
    from gradlab.tasks import Task


def check_policy(policy: object) -> None:
    """Raises InputError for anything whose gradients cannot be read."""
    validation.instance("policy", policy, nn.Module, "a torch.nn.Module")
    assert isinstance(policy, nn.Module)
    parameters = list(policy.parameters())
    if any(isinstance(p, UninitializedParameter) for p in parameters):
        raise InputError("policy has lazy parameters: run one forward pass before the probe begins")
    check_trainable(policy)
    places = {p.device for p in parameters if p.requires_grad}
    if len(places) > 1:
        names = ", ".join(sorted(map(str, places)))
        raise InputError(f"policy is spread over {names}: probe one device's part of it")


def check_optimizer(optimizer: Any, policy: nn.Module) -> None:
    """Raises InputError for an optimiser that cannot be watched or has nothing of the policy."""
    if optimizer is None:
        return
    check_watchable("optimizer", optimizer)
    if isinstance(optimizer, torch.optim.LBFGS):
        raise InputError(
            "optimizer is LBFGS, which takes several gradients per step: leave it out and mark the "
            "closure's backward pass"
        )
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not held:
        raise InputError("optimizer has no parameters: give it the policy's")
    if not any(id(p) in held for p in policy.parameters()):
        raise InputError("optimizer has none of the policy's parameters: give the policy's own")


def check_watchable(argument: str, optimizer: Any) -> None:
    """Raises InputError for an optimiser without step hooks."""
    kind = type(optimizer).__name__
    hooks = ("register_step_pre_hook", "register_step_post_hook", "param_groups")
    if not all(hasattr(optimizer, name) for name in hooks):
        raise InputError(
            f"{argument} is a {kind} without step hooks: give the torch.optim.Optimizer inside it"
        )


def check_question(task: object, critic: object) -> None:
    """Raises InputError for a task or critic of a wrong kind."""
    if task is not None:
        from gradlab.tasks import Task  # with all of its systems: loaded already where one is given

        validation.instance("task", task, Task, "a gradlab.Task or None")
    if critic is None:
        return
    as_critic(critic)
    if task is None:
        raise InputError(
            "critic is given without a task, which it is judged on: give both, or declare the "
            "loop's own by probe.networks(critic=…)"
        )


def check_env(env: object) -> None:
    """Raises InputError for anything but a function that makes an environment."""
    if env is None or (callable(env) and not hasattr(env, "reset")) or isinstance(env, type):
        return
    raise InputError(
        f"env is {shown(env)}, expected a function that makes an environment for the probe alone, "
        f"as lambda: gymnasium.make(…)"
    )


def check_log(log: object) -> None:
    """Raises InputError for anything but a path, a function, several of these or None."""
    for sink in log if isinstance(log, list | tuple) else [log]:
        if isinstance(sink, list | tuple):
            check_log(sink)
        elif not (sink is None or callable(sink) or isinstance(sink, str | Path)):
            expected = "a path, a function, several of these or None"
            raise InputError(f"log is {shown(sink)}, expected {expected}")


def step_of(step: Any) -> int:
    """The loop's count, as a number of Python's.

    Raises:
        InputError: it is none.
    """
    if isinstance(step, float | np.floating) and step.is_integer():
        return int(step)
    try:
        return operator.index(step)
    except TypeError:
        raise InputError(f"step is {step!r}, expected an integer: probe(step)") from None


def scale_of(scaler: Any, optimizer: Any) -> Tensor | None:
    """By what the loss was multiplied; None where nothing is left of it in the gradients.

    A tensor where it is: asking for the number would wait for an accelerator.

    Raises:
        InputError: not a gradient scaler.
    """
    if scaler is None:
        return None
    validation.instance("scaler", scaler, torch.amp.GradScaler, "a torch.amp.GradScaler")
    if not scaler.is_enabled():
        return None
    state = scaler._per_optimizer_states.get(id(optimizer), {})
    divided = getattr(state.get("stage"), "name", "") == "UNSCALED"
    return None if divided else scaler._get_scale_async()


def spectator() -> bool:
    """A process of several that leaves writing to the first one."""
    group = torch.distributed
    return bool(group.is_available() and group.is_initialized() and group.get_rank() != 0)


LONGEST = 10  # horizon of the profile


@dataclass(frozen=True)
class Past:
    """The memory of earlier measurements.

    Attributes:
        reward_max: the largest |reward|.
        scale: [ds, ds + da], σ_j/σ_i of the first path, by which Jacobian errors are scaled ever
            after: a new scale each time would look like a change of the model.
        count: measurements; sound: did the last truth stand?
    """

    reward_max: float = 0.0
    scale: Array | None = None
    count: int = 0
    sound: bool = False

    @property
    def checks(self) -> bool:
        """Will the next truth be compared with finite differences?"""
        number = self.count + 1
        return not self.sound or number & (number - 1) == 0


@dataclass(frozen=True)
class Question:
    """The subject of measurements: a task and, for those of gradients, the critic of its tail."""

    task: Task
    critic: nn.Module | None
    seed: int

    @property
    def horizon(self) -> int:
        return min(self.task.horizon, LONGEST)

    @property
    def nothing(self) -> Past:
        """The memory before the first measurement."""
        return Past()


def check_measurable(question: Question, policy: nn.Module) -> None:
    """Can the policy and the critic be measured on the task?

    Raises:
        InputError: names the network and what does not fit.
    """
    # Here: without a task a probe begins in half the time.
    from gradlab.measurement.arguments import check_networks

    with undisturbed():
        critic = None if question.critic is None else _copy("critic", question.critic)
        check_networks(question.task, _copy("policy", policy), critic)


def _copy(name: str, module: nn.Module) -> nn.Module:
    try:
        return doubled(module)
    except Exception as error:
        raise InputError(
            f"{name} cannot be copied ({type(error).__name__}: {error}), but a task is measured on "
            f"copies: make it deep-copyable, or give no task"
        ) from error
