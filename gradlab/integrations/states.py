"""What the hooks of other libraries share: the probe of their parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch
from torch import nn

from gradlab.errors import InputError
from gradlab.probe.log import Logs
from gradlab.probe.passes import Watched
from gradlab.probe.probe import Probe
from gradlab.tasks import Task


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

    def begin(self, parts: LoopParts, discount: float | None) -> None:
        """Watch these parts, or go on with them.

        Args:
            discount: the trainer's, which is also the task's then.

        Raises:
            InputError: they are another model's, or do not suit the task.
        """
        if self.probe is None:
            task, critic = self.task, None if self.task is None else parts.critic
            if task is not None and discount is not None:
                task = replace(task, discount=discount)
            self.probe = probe = Probe(
                parts.policy, parts.optimizer, task, critic, log=self.log,
                watched=parts.watched, critic_alone=parts.critic_alone, steps=self._step,
                **self._given,
            )  # fmt: skip
            if parts.networks:
                probe.networks(**parts.networks)
            probe._checks.losses(parts.losses, parts.about, parts.called)
            self._optimizer = parts.optimizer
        elif self._optimizer is not parts.optimizer:
            raise InputError(
                "callback has watched another model: give this one a new ProbeCallback and log"
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
