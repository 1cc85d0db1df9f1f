"""MAGE: critics fitted to the derivatives of their targets in the action, through the model.

    loss = mean h(‖∇_a δ(s, a)‖) + λ mean h(|δ(s, a)|),    a = π(s)
    δ(s, a) = y(s, a, r̂, ŝ′) − Q(s, a),                    r̂, ŝ′ = f(s, a, ξ)

D'Oro & Jaśkowski 2020, section 4 and algorithm 1: a policy follows ∇_a Q, and its error is bounded
by that of ∇_a δ. The target y is differentiated through r̂, ŝ′ and the target policy's action there;
∇_a Q in the critic's parameters, by double backpropagation. Replay gives the states alone. The
paper has h(x) = x; its published code, which DDPPO compares with, Huber's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from gradlab.data.replay import Batch
from gradlab.errors import InputError
from gradlab.training.models.seed_models import model_step
from gradlab.training.parts.context import Context
from gradlab.training.parts.critics import Every
from gradlab.training.parts.targets import Target


@dataclass(frozen=True)
class ActionGradient:
    """See above.

    Attributes:
        target: what gives y, the target of the row.
        weight: λ; 0.2 in the paper's experiments, and 1 / 5 in its code.
        threshold: below it h(x) is x² / 2 threshold, above it x − threshold / 2; 0: h(x) = x.
    """

    target: Target
    weight: float = 0.2
    threshold: float = 0.0
    name: ClassVar[str] = "action gradient of the TD error"
    densities: ClassVar[bool] = False
    of_model: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("weight", "threshold"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise InputError(f"MAGE has {name} {value!r}, expected a number from 0")

    def __call__(
        self, context: Context, batch: Batch, critics: Every, target: Tensor
    ) -> tuple[Tensor, Tensor]:
        model, (_, rows) = context.model, batch.reward.shape
        assert model is not None
        drawn = context.along("penalty actions", 1, rows, context.noise_dim)
        noise = context.along("penalty model noise", 1, rows, model.noise_dim)
        action, _ = context.frozen(batch.state, None if drawn is None else drawn[0])
        action = action.detach().requires_grad_()
        after, reward, alive = model_step(
            model, batch.state, action, None if noise is None else noise[0]
        )
        wanted = self.target(context, Batch(batch.state, action, reward, after, 1 - alive))
        (slope,) = torch.autograd.grad(wanted.sum(), action)
        value = critics(batch.state, action)
        slopes = [
            torch.autograd.grad(of_one.sum(), action, create_graph=True)[0]
            for of_one in value.unbind(dim=1)
        ]
        unlike = (slope[:, None] - torch.stack(slopes, dim=1)).norm(dim=3)
        error = wanted.detach()[:, None] - value
        return self._mean(unlike) + self.weight * self._mean(error), value

    def _mean(self, error: Tensor) -> Tensor:
        """h over the rows, [E, C]."""
        zero = torch.zeros_like(error)
        return smooth_l1_loss(error, zero, reduction="none", beta=self.threshold).mean(dim=2)
