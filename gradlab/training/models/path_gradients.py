"""Reverse mode along a rollout whose Jacobians are made for many steps at once.

    forward   s_{t+1}, r_t, alive of the system's own step, which autograd does not see
    backward  g_s = A_tᵀ λ + ρ r_s,   g_a = B_tᵀ λ + ρ r_a          λ, ρ: cotangents of s_{t+1}, r_t

A step in closed form is dozens of operations on few numbers, and autograd makes as many again, step
by step. Jacobians of all steps together are the operations of one.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, final, runtime_checkable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gradlab.systems.system import System, Transition
from gradlab.training.models.seed_models import Model

ROWS = 4096  # of states that are linearized at once: more leave the processor's cache
MOST = 1024  # rows of a step, from which on autograd is as fast
_Slopes = tuple[Tensor, Tensor, Tensor, Tensor]  # A, B, r_s, r_a of one step


@runtime_checkable
class _ClosedForm(Protocol):
    """A system whose `linearize` has formulas for its Jacobians, and takes about as long as a step.

    Attributes:
        closed_form: true; without it a system is taken not to have them.
    """

    closed_form: ClassVar[bool]


def followed(model: Model | None, rows: int) -> Model | None:
    """A model along a rollout of so many rows that is differentiated once: by `RolloutSteps` where
    that is faster than autograd."""
    if isinstance(model, _ClosedForm) and model.closed_form and rows <= MOST:
        return RolloutSteps(model)
    return model


@final
class RolloutSteps:
    """Steps of one rollout, in the place of its system's.

    Jacobians are made at the first backward pass that reaches any of the steps, and kept.
    """

    def __init__(self, system: System) -> None:
        self.system = system
        self._at: list[tuple[Tensor, Tensor, Tensor | None]] = []
        self._slopes: list[_Slopes] = []

    @property
    def noise_dim(self) -> int:
        return self.system.noise_dim

    def step(self, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Transition:
        return Transition(*_Step.apply(self, state, action, noise))  # type: ignore[no-untyped-call]

    def append(self, state: Tensor, action: Tensor, noise: Tensor | None) -> int:
        """Remembers where a step is made; its number."""
        self._at.append((state.detach(), action.detach(), noise))
        self._slopes.clear()
        return len(self._at) - 1

    def slopes(self, k: int) -> _Slopes:
        """Of the step of that number."""
        if not self._slopes:
            count = max(1, ROWS // max(len(self._at[0][0]), 1))
            for first in range(0, len(self._at), count):
                self._slopes += self._together(self._at[first : first + count])
        return self._slopes[k]

    def _together(self, steps: list[tuple[Tensor, Tensor, Tensor | None]]) -> list[_Slopes]:
        states, actions, noises = zip(*steps, strict=True)
        noise = None if noises[0] is None else torch.cat(noises)
        found = self.system.linearize(torch.cat(states), torch.cat(actions), noise)
        parts = (torch.split(x, len(states[0])) for x in (found.A, found.B, found.r_s, found.r_a))
        return list(zip(*parts, strict=True))


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, path: RolloutSteps, state: Tensor, action: Tensor, noise: Tensor | None
    ) -> tuple[Tensor, ...]:
        after = path.system.step(state, action, noise)
        ctx.path, ctx.number = path, path.append(state, action, noise)
        ctx.mark_non_differentiable(after.alive)
        return after.state, after.reward, after.alive

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_state: Tensor, by_reward: Tensor, _: Tensor) -> tuple[Any, ...]:
        A, B, r_s, r_a = ctx.path.slopes(ctx.number)
        row, weight = by_state[:, None], by_reward[:, None]
        by_s = torch.baddbmm((weight * r_s)[:, None], row, A)[:, 0]
        by_a = torch.baddbmm((weight * r_a)[:, None], row, B)[:, 0]
        return None, by_s, by_a, None
