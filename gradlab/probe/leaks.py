"""Does the policy's update reach the prior model?

The model's parameters are those of the modules that the task's prior holds as attributes (a
`LearnedSystem` its ensemble); a function's closure cannot be looked into. A model that is trained
by its own loss in its own optimiser is nobody's business here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, final

from torch import nn

from gradlab.tasks import Task

DEPTH = 3  # systems inside systems


@final
class ModelGradients:
    """Counts the marked backward passes that leave gradients where the policy's optimiser steps."""

    def __init__(self, policy: nn.Module, optimizer: Any, task: Task | None) -> None:
        model = [] if task is None or task.prior is None else [*_parameters(task.prior, DEPTH)]
        own = {p.untyped_storage().data_ptr() for p in policy.parameters()}
        shared = {id(p) for p in model if p.untyped_storage().data_ptr() in own}
        groups = [] if optimizer is None else optimizer.param_groups
        stepped = {id(p) for group in groups for p in group["params"]}
        self.shared = len(shared)
        self.watched = [p for p in model if id(p) in stepped and id(p) not in shared]
        self.count = 0
        self._before: list[tuple[int, int]] = []

    def before(self) -> None:
        if self.watched:
            self._before = self._state()

    def after(self) -> None:
        if self.watched and self._state() != self._before:
            self.count += 1

    def row(self) -> dict[str, int]:
        found = {"model_gradients": self.count, "model_shared": self.shared}
        self.count = 0
        return found

    def _state(self) -> list[tuple[int, int]]:
        """Which tensor each gradient is and how often it was written to."""
        return [(0, 0) if p.grad is None else (id(p.grad), p.grad._version) for p in self.watched]


def _parameters(holder: object, depth: int) -> Iterator[nn.Parameter]:
    if isinstance(holder, nn.Module):
        yield from holder.parameters()
        return
    if depth:
        for value in vars(holder).values() if hasattr(holder, "__dict__") else ():
            yield from _parameters(value, depth - 1)
