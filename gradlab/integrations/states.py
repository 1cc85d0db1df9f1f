"""What the hooks of other libraries share: backward passes marked, states compared, few numbers.

    forward pass → a hook on its output's gradient → the engine's callback when all gradients are in
    |f(s, a) − s'| ≤ 1% |s' − s| + 10⁻⁵        for the loop's own (s, a, s')

Trainers clip gradients before the optimiser steps, so that a step hook comes too late.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradlab.errors import InputError
from gradlab.probe.isolation import undisturbed, warn
from gradlab.probe.log import Logs
from gradlab.probe.passes import Watched, inert, passing
from gradlab.probe.probe import Probe
from gradlab.tasks import Task


def after_backward(module: nn.Module, callback: Callable[[], None]) -> RemovableHandle:
    """Calls `callback` after every backward pass through the module's output, until it fails."""
    return module.register_forward_hook(_Passes(callback))


@final
class _Passes:
    """The forward hook. Copies and pickles of the module get an inert one."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback, self.off = callback, False

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.off or torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return
        self._attempt(self._listen, output)

    def __deepcopy__(self, memo: object) -> Any:
        return inert

    def __reduce__(self) -> tuple[Any, ...]:
        return copy.copy, (inert,)

    def _listen(self, output: Any) -> None:
        answer = output[0] if isinstance(output, tuple) and output else output
        if isinstance(answer, Tensor) and answer.requires_grad and not passing(answer):
            answer.register_hook(self._begun)  # type: ignore[no-untyped-call]

    def _begun(self, gradient: Tensor) -> None:
        engine: Any = torch.autograd.Variable._execution_engine
        self._attempt(engine.queue_callback, self._over)

    def _over(self) -> None:
        self._attempt(self.callback)

    def _attempt(self, work: Callable[..., Any], *given: Any) -> None:
        try:
            work(*given)
        except Exception as error:  # in the middle of the user's passes
            if not self.off:
                warn("marks no more backward passes", error)
            self.off = True


_HEADLINE = {
    "vitals/grad_norm": "grad_norm",
    "vitals/update_ratio": "update_ratio",
    "vitals/spent": "overhead",
    "successive/signal_share": "signal_share",
    "successive/cosine": "cosine",
    "measured/chosen_horizon": "best_horizon",
    "measured/lyapunov_horizon": "lyapunov_steps",
    "measured/value": "critic_value",
}
_SATURATION = "vitals/saturation/"


def headline(row: Mapping[str, Any]) -> dict[str, float]:
    """Finite numbers by short name, of a row as a log function gets it."""
    metrics = {short: float(row[name]) for name, short in _HEADLINE.items() if name in row}
    saturated = [float(value) for name, value in row.items() if name.startswith(_SATURATION)]
    if saturated:
        metrics["saturation"] = max(saturated)
    return {f"gradlab/{name}": value for name, value in metrics.items() if isfinite(value)}


@dataclass(frozen=True)
class LoopParts:
    """
    Attributes:
        policy: its parameters are θ; state → action in the environment's units.
        optimizer: what steps θ.
        critic: (state, action) → [N]; None where there is none, or it values states alone.
        watched: what the trainer calls.
        networks: as of `Probe.networks`; losses, about, called: as of `LoopChecks.losses`.
        critic_alone: the actor ascends Q(s, π(s)) and no step of a model.
    """

    policy: nn.Module
    optimizer: torch.optim.Optimizer
    critic: nn.Module | None
    watched: Watched
    networks: Mapping[str, Any] = field(default_factory=dict)
    losses: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    called: Mapping[str, Any] = field(default_factory=dict)
    critic_alone: bool = False


def probe_of(parts: LoopParts, task: Task | None, log: Logs, given: Mapping[str, Any]) -> Probe:
    """The probe of these parts, all declared; `given`: the user's options."""
    probe = Probe(
        parts.policy, parts.optimizer, task, None if task is None else parts.critic, log=log,
        watched=parts.watched, critic_alone=parts.critic_alone, **given,
    )  # fmt: skip
    if parts.networks:
        probe.networks(**parts.networks)
    probe._checks.losses(parts.losses, parts.about, parts.called)
    return probe


_PART = 0.01  # of the way that the state went
_ROUNDING = 1e-5
_Transition = tuple[Any, Any, Any]


def check_widths(task: Task, observation: tuple[int, ...], action: tuple[int, ...]) -> None:
    """Raises InputError where observations or actions are not shaped as the task's."""
    simulator = task.simulator
    pairs = (
        ("observations", observation, "states", simulator.state_dim),
        ("actions", action, "actions", simulator.action_dim),
    )
    for ours, shape, theirs, width in pairs:
        if tuple(shape) != (width,):
            raise InputError(
                f"{ours} have shape {tuple(shape)}, but the {theirs} of task {task.name!r} have "
                f"shape ({width},): give a task in the policy's own coordinates, or none"
            )


def compare(task: Task, transition: Callable[[], _Transition | None]) -> None:
    """Warns in one line where the task's simulator goes elsewhere than the loop's environment.

    Args:
        transition: gives (s, a, s') of the loop, [ds], [da], [ds], or None where it has none.

    Nothing that fails in here reaches the loop. A simulator with noise is not judged.
    """
    try:
        pair = transition()
        words = "" if pair is None or task.simulator.noise_dim else _difference(task, *pair)
    except Exception as error:
        words = f"a step of the loop could not be compared with the task's simulator ({error})"
    if words:
        with suppress(Warning):  # where warnings are errors, too
            warnings.warn(f"gradlab's probe: {words}", RuntimeWarning, stacklevel=2)


def _difference(task: Task, state: Any, action: Any, after: Any) -> str:
    given = (np.asarray(each, dtype=np.float64) for each in (state, action, after))
    s, a, s_ = (each.reshape(1, -1) for each in given)
    with undisturbed(), torch.no_grad():
        predicted = task.simulator.step(torch.from_numpy(s), torch.from_numpy(a)).state.numpy()
    error, way = float(np.linalg.norm(predicted - s_)), float(np.linalg.norm(s_ - s))
    if error <= _PART * way + _ROUNDING:
        return ""
    return (
        f"task {task.name!r} is not the loop's environment: from its observation and action the "
        f"simulator ends {error:.2g} away, in a step of {way:.2g}; what is measured on the task is "
        f"of another system"
    )
