"""What the hooks of other libraries share: the probe of their parts, states compared, few numbers.

|f(s, a) − s'| ≤ 1% |s' − s| + 10⁻⁵        for the loop's own (s, a, s')
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any, final

import numpy as np
import torch
from torch import nn

from gradlab.errors import InputError
from gradlab.probe.isolation import undisturbed
from gradlab.probe.log import Function, Logs
from gradlab.probe.passes import Watched
from gradlab.probe.probe import Probe
from gradlab.tasks import Task

_HEADLINE = {
    "vitals/grad_norm": "grad_norm",
    "vitals/update_ratio": "update_ratio",
    "vitals/spent": "overhead",
    "successive/signal_share": "signal_share",
    "successive/cosine": "cosine",
    "measured/chosen_horizon": "best_horizon",
    "measured/lyapunov": "lyapunov",
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


_Transition = tuple[Any, Any, Any]


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


@final
class Watcher:
    """A probe beside the trainer of another library, all of whose parts are declared.

    Args:
        log, task: the user's; given: other options of `gradlab.Probe`.
        step: counts as the trainer does.
    """

    def __init__(self, log: Logs, task: Task | None, step: Callable[[], int], **given: Any) -> None:
        self.log, self.task, self._step, self._given = log, task, step, given
        self.probe: Probe | None = None
        self._optimizer: Any = None
        self._compared = task is None

    def begin(self, parts: LoopParts, discount: float | None, *shown: Function) -> None:
        """Watch these parts, or go on with them.

        Args:
            discount: the trainer's, which is also the task's then; shown: further log functions.

        Raises:
            InputError: they are another model's, or do not suit the task.
        """
        if self.probe is None:
            task, critic = self.task, None if self.task is None else parts.critic
            if task is not None and discount is not None:
                task = replace(task, discount=discount)
            self.probe = probe = Probe(
                parts.policy, parts.optimizer, task, critic, log=[self.log, *shown],
                watched=parts.watched, critic_alone=parts.critic_alone, steps=self._step,
                **self._given,
            )  # fmt: skip
            if parts.networks:
                probe.networks(**parts.networks)
            probe._checks.losses(parts.losses, parts.about, parts.called)
            self._optimizer = parts.optimizer
        elif self._optimizer is not parts.optimizer:
            raise InputError(
                "callback has watched another model: give this one a new ProbeCallback, with a log "
                "of its own or resume=True"
            )
        else:
            self.probe.resume()

    def end(self) -> None:
        """No more passes come for now."""
        if self.probe is not None:
            self.probe.close()

    def attempt(self, work: Callable[..., Any], *given: Any) -> None:
        """Work for the probe, which is off where it fails."""
        if self.probe is not None:
            self.probe._attempt(work, *given)

    def compare(self, transition: Callable[[], _Transition | None]) -> None:
        """Warns once, in one line, where the task's simulator goes elsewhere than the environment.

        Args:
            transition: gives (s, a, s') of the loop, [ds], [da], [ds], or None where it has none.

        Nothing that fails in here reaches the loop. A simulator with noise is not judged.
        """
        if self._compared or self.task is None:
            return
        self._compared = True
        try:
            pair = transition()
            noisy = self.task.simulator.noise_dim
            words = "" if pair is None or noisy else _difference(self.task, *pair)
        except Exception as error:
            words = f"a step of the loop could not be compared with the task's simulator ({error})"
        if words:
            with suppress(Warning):  # where warnings are errors, too
                warnings.warn(f"gradlab's probe: {words}", RuntimeWarning, stacklevel=2)


_PART = 0.01  # of the way that the state went
_ROUNDING = 1e-5


def check_widths(
    task: Task, observation: tuple[int, ...] | None, action: tuple[int, ...] | None
) -> None:
    """Raises InputError where observations or actions are not shaped as the task's."""
    simulator = task.simulator
    pairs = (
        ("observations", observation, "states", simulator.state_dim),
        ("actions", action, "actions", simulator.action_dim),
    )
    for ours, shape, theirs, width in pairs:
        if shape is None or tuple(shape) != (width,):
            raise InputError(
                f"{ours} have shape {shape}, but the {theirs} of task {task.name!r} have "
                f"shape ({width},): give a task in the policy's own coordinates, or none"
            )


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
