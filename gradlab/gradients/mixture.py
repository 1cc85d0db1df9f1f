"""A weighted sum of estimators as one estimator.

    ∇J = Σ_k w_k ∇J_k          (MPG eq. 8 with {0, H}; App. C-A with any set of horizons holding 0)

All parts see the same starts and noise streams.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradlab.data.path import Path
from gradlab.errors import InputError
from gradlab.gradients.estimator import Estimator
from gradlab.user_code.grad_mode import differentiating


@dataclass(frozen=True)
class Mixture:
    """Pairs (weight, estimator); weights are used as they are, not normalised."""

    parts: tuple[tuple[float, Estimator], ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise InputError("parts is empty: a mixture needs at least one (weight, estimator)")
        for weight, _ in self.parts:
            if not math.isfinite(weight):
                raise InputError(f"a weight is {weight}, expected a finite number")

    @differentiating
    def gradients(
        self, policy: nn.Module, starts: Tensor | Path, seed: int = 0, termination: str = "ignore"
    ) -> Tensor:
        """Per-sample ascent gradients, [N, P]."""
        counted = self._counted()
        parts = [w * e.gradients(policy, starts, seed, termination) for w, e in counted]
        return torch.stack(parts).sum(dim=0)

    @differentiating
    def mean_gradient(
        self, policy: nn.Module, starts: Tensor | Path, seed: int = 0, termination: str = "ignore"
    ) -> Tensor:
        """Mean ascent gradient over the starts, [P]."""
        counted = self._counted()
        parts = [w * e.mean_gradient(policy, starts, seed, termination) for w, e in counted]
        return torch.stack(parts).sum(dim=0)

    def _counted(self) -> tuple[tuple[float, Estimator], ...]:
        """Parts of weight 0 are not even rolled out; one of them gives the zeros where all are."""
        return tuple(part for part in self.parts if part[0]) or self.parts[:1]
