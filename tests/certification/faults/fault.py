"""A planted fault: a sound torch system with one mistake in its derivative or its behaviour.

A faulty derivative leaves the forward step as it was: its value is detached, and another
expression carries the derivative (`with_derivative_of`), or `linearize` is bent (`Relinearized`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.systems import Linearization, System, Transition
from gradlab.tasks import Task

WRONG = ("wrong", "dead")


@dataclass(frozen=True)
class Fault:
    """
    Attributes:
        blocks: every block whose derivative is broken, as measured by differences; () where the
            behaviour is broken instead.
        kinds: of findings, any of which names the fault.
        task: a new faulty system at each call, since some remember their calls.
    """

    name: str
    blocks: tuple[str, ...]
    kinds: tuple[str, ...]
    task: Callable[[], Task]


def with_derivative_of(value: Tensor, carrier: Tensor) -> Tensor:
    """`value`, differentiated as if it were `carrier`."""
    return carrier + (value - carrier).detach()


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(x, change):  # type: ignore[no-untyped-def]
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
        ctx.change = inputs[1]

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        return ctx.change(gradient), None


def with_backward(x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """`x`, whose gradient passes through `change` on the way back."""
    return _Backward.apply(x, change)


Bend = Callable[[System, Tensor, Tensor], Linearization]


@dataclass(frozen=True)
class Relinearized:
    """`system` with another linearize; its step, and automatic differentiation of it, are sound."""

    system: System
    bend: Bend

    @property
    def state_dim(self) -> int:
        return self.system.state_dim

    @property
    def action_dim(self) -> int:
        return self.system.action_dim

    @property
    def noise_dim(self) -> int:
        return self.system.noise_dim

    @property
    def differentiable(self) -> bool:
        return self.system.differentiable

    def step(self, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Transition:
        return self.system.step(state, action, noise)

    def linearize(
        self, state: Tensor, action: Tensor, noise: Tensor | None = None
    ) -> Linearization:
        return self.bend(self.system, state, action)

    def sample_noise(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Tensor:
        return self.system.sample_noise(n, generator, dtype)
