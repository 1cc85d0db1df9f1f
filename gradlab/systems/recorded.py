"""Recorded trajectories in the place of a simulator: they have states, but no step.

An estimator whose `states` is `Recorded` reads the path that it is given, with the policy's and
the model's noise inferred from each transition (RP-DR, SVG).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from gradlab.errors import InputError
from gradlab.systems.system import Linearization, Transition


@dataclass(frozen=True)
class Recorded:
    """Dimensions of the recorded states and actions; neither steps nor linearizes."""

    state_dim: int
    action_dim: int
    noise_dim: int = 0
    differentiable: bool = False

    def step(self, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Transition:
        self._refuse()

    def linearize(
        self, state: Tensor, action: Tensor, noise: Tensor | None = None
    ) -> Linearization:
        self._refuse()

    def sample_noise(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Tensor:
        return torch.zeros(n, 0, dtype=dtype)

    def _refuse(self) -> NoReturn:
        raise InputError(
            "states are recorded, which cannot be stepped: use a simulator or a model for this"
        )
