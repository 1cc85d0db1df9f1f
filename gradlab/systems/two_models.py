"""States of one model, Jacobians of another, as one System (DDPPO section 4.2, appendix B.1.2).

    s', r = prediction(s, a, ξ),      A, B, r_s, r_a = ∂ gradient(s, a)

The gradient model is differentiated at its mean, whatever noise the prediction model drew: that
noise is another model's. Through `step`, automatic differentiation gives the same Jacobians.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gradlab.errors import InputError
from gradlab.systems.system import Linearization, System, Transition, check_step

Inference = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class TwoModels:
    """See above.

    Attributes:
        prediction: whose states, rewards, noise and termination.
        gradient: whose Jacobians; torch can differentiate it.
    """

    differentiable: ClassVar[bool] = True

    prediction: System
    gradient: System

    def __post_init__(self) -> None:
        for name in ("state_dim", "action_dim"):
            ours, theirs = getattr(self.prediction, name), getattr(self.gradient, name)
            if ours != theirs:
                raise InputError(f"gradient has {name} {theirs}, prediction has {ours}")
        if not self.gradient.differentiable:
            raise InputError("gradient is not differentiable: give a model that torch can follow")

    @property
    def state_dim(self) -> int:
        return self.prediction.state_dim

    @property
    def action_dim(self) -> int:
        return self.prediction.action_dim

    @property
    def noise_dim(self) -> int:
        return self.prediction.noise_dim

    @property
    def member_column(self) -> int | None:
        """Where the prediction's noise chooses an ensemble member, as in `LearnedSystem`."""
        column: int | None = getattr(self.prediction, "member_column", None)
        return column

    @property
    def infer_noise(self) -> Inference:
        """The prediction's; AttributeError where it has none. No Jacobian here depends on it."""
        infer: Inference = self.prediction.infer_noise  # type: ignore[attr-defined]
        return infer

    def step(self, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Transition:
        check_step(self, state, action, noise)
        with torch.no_grad():
            predicted = self.prediction.step(state.detach(), action.detach(), noise)
        if not torch.is_grad_enabled():
            return predicted
        slope = self.gradient.step(state, action)
        return Transition(
            predicted.state + (slope.state - slope.state.detach()),
            predicted.reward + (slope.reward - slope.reward.detach()),
            predicted.alive,
        )

    def linearize(
        self, state: Tensor, action: Tensor, noise: Tensor | None = None
    ) -> Linearization:
        check_step(self, state, action, noise)
        return self.gradient.linearize(state, action)

    def sample_noise(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Tensor:
        return self.prediction.sample_noise(n, generator, dtype)
