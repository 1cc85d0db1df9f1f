"""Leaks: policy updates that reach the prior model.

The model's parameters are those of the modules that the task's prior holds as attributes (a
`LearnedSystem` its ensemble); a function's closure cannot be looked into. A model that is trained
by its own loss in its own optimiser is no leak.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, final

from torch import nn

if TYPE_CHECKING:
    from gradlab.tasks import Task

_DEPTH = 3  # systems inside systems
# States, Jacobians and tail of what is measured on a task.
_MODELLED = (
    "model = states and Jacobians of the prior, mixed = the simulator's states, its Jacobians"
)
_SIMULATED = "true_dynamics = both the simulator's, data = the critic alone; tail: the critic"


@final
class ModelGradients:
    """Counts the marked backward passes that leave gradients where the policy's optimiser steps."""

    def __init__(self, policy: nn.Module, optimizer: Any, task: Task | None) -> None:
        model = [] if task is None or task.prior is None else [*_parameters(task.prior, _DEPTH)]
        storages = {p.untyped_storage().data_ptr() for p in policy.parameters()}
        shared = {id(p) for p in model if p.untyped_storage().data_ptr() in storages}
        groups = [] if optimizer is None else optimizer.param_groups
        stepped = {id(p) for group in groups for p in group["params"]}
        self.shared = len(shared)
        self.watched = [p for p in model if id(p) in stepped and id(p) not in shared]
        self.reaches = _path(policy, stepped, self.shared, len(self.watched), task)
        self.count = 0
        self._before: list[tuple[int, int]] = []

    def before(self) -> None:
        if self.watched:
            self._before = self._state()

    def after(self) -> None:
        if self.watched and self._state() != self._before:
            self.count += 1

    def row(self) -> dict[str, Any]:
        """Counts since the last row, and once the computational path in words."""
        counts = {"model_gradients": self.count, "model_shared": self.shared}
        words, self.count, self.reaches = self.reaches, 0, ""
        return counts | {"reaches": words}

    def _state(self) -> list[tuple[int, int]]:
        """Which tensor each gradient is and how often it was written to."""
        return [(0, 0) if p.grad is None else (id(p.grad), p.grad._version) for p in self.watched]


def _path(policy: nn.Module, stepped: set[int], shared: int, model: int, task: Task | None) -> str:
    """The tensors that updates move, and which states, Jacobians, actions and tail are measured."""
    trained = [p for p in policy.parameters() if p.requires_grad]
    moved = len(trained) if not stepped else sum(id(p) in stepped for p in trained)
    others = len(stepped - {id(p) for p in trained})
    text = f"updates move {moved} of {len([*policy.parameters()])} tensors of the policy"
    text += f" and {others} others" if others else ""
    if task is None:
        return f"{text}; no task, so nothing is known of a model"
    if task.prior is None:
        return f"{text}; the task has no model; measured: θ in the first action, {_SIMULATED}"
    apart = "apart" if not shared + model else f"{shared} tensors shared, {model} stepped with θ"
    return (
        f"{text}; prior model: {apart}; measured: θ in the first action, {_MODELLED}, {_SIMULATED}"
    )


def _parameters(holder: object, depth: int) -> Iterator[nn.Parameter]:
    if isinstance(holder, nn.Module):
        yield from holder.parameters()
        return
    if depth:
        for value in vars(holder).values() if hasattr(holder, "__dict__") else ():
            yield from _parameters(value, depth - 1)
