"""Horizon of on-policy paths that follows the simulator's stiffness (AHAC, Georgiev et al. 2024).

    c   = mean ‖∂s′/∂s‖₂ over the window
    φ  ← φ + ρ (c / C − 1),    H ← clip(H − ρ H φ, shortest, longest)

φ is the dual variable of the constraint ‖∂s′/∂s‖ ≤ C, one for all H steps, as in the published
code, whose step it has at ρ² = its rate² · C. Where steps are stiffer than C, as in contact, paths
become shorter, and where they are smoother, longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from gradlab import validation


@dataclass(frozen=True)
class Stiffness:
    """The horizon of each seed by itself, after every update of its policy.

    Attributes:
        threshold: C, largest singular value of ∂s′/∂s that is no contact.
        shortest: horizon at first, and the smallest one; the longest is the row's.
        rate: ρ.
    """

    threshold: float = 10.0
    shortest: int = 8
    rate: float = 0.01

    def __post_init__(self) -> None:
        for name in ("threshold", "rate"):
            validation.number(f"stiffness's {name}", getattr(self, name), above=0)
        validation.whole("stiffness's shortest", self.shortest, 1)

    @property
    def name(self) -> str:
        """What `gradlab list algorithms` adds to the gradient."""
        return f"cut to ≥ {self.shortest} steps where ‖∂s′/∂s‖ > {self.threshold:g}"


@final
class AdaptiveHorizon:
    """State: H of every seed and its dual variable.

    Attributes:
        value: H [E], not rounded; dual: φ [E].

    Args:
        longest: the row's horizon.
    """

    def __init__(self, choice: Stiffness, longest: int, seeds: int, device: torch.device) -> None:
        self.choice, self.longest = choice, longest
        self.shortest = min(choice.shortest, longest)
        self.value = torch.full((seeds,), float(self.shortest), dtype=torch.float64, device=device)
        self.dual = torch.zeros_like(self.value)

    @property
    def steps(self) -> Tensor:
        """Steps of a path, [E]."""
        return self.value.round().long()

    @torch.no_grad()
    def step(self, slopes: Tensor) -> None:
        """One step from ∂(s′, r)/∂(s, a) [E, N, ds + 1, ds + da] of a window; a seed whose slopes
        are not finite rests."""
        width = slopes.shape[2] - 1
        finite = slopes.isfinite().flatten(1).all(dim=1)
        sound = torch.where(finite[:, None, None, None], slopes, 0.0)[:, :, :width, :width]
        stiffness = torch.linalg.matrix_norm(sound.double(), 2).mean(dim=1)
        rate = self.choice.rate
        dual = self.dual + rate * (stiffness / self.choice.threshold - 1)
        moved = (self.value - rate * self.value * dual).clamp(self.shortest, self.longest)
        self.dual = torch.where(finite, dual, self.dual)
        self.value = torch.where(finite, moved, self.value)

    def state(self) -> dict[str, Tensor]:
        """For `load`."""
        return {"value": self.value, "dual": self.dual}

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.value = self.value.copy_(state["value"]).clone()
        self.dual = self.dual.copy_(state["dual"]).clone()
