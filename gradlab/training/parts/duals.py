"""Dual variables of a policy's constraints: a temperature holds entropy, a horizon stiffness.

Temperature α of a soft return: a number, or one that holds the policy's entropy at a target.

    log α ← log α − Adam(−mean (log π(a|s) + H̄)),   a ~ π(·|s), s of the batch

(Haarnoja et al. 2018, "Soft actor-critic algorithms and applications", eq. 18, in log α.)

Horizon of on-policy paths that follows the simulator's stiffness (AHAC, Georgiev et al. 2024).

    c   = mean ‖∂s′/∂s‖₂ over the window
    φ  ← φ + ρ (c / C − 1),    H ← clip(H − ρ H φ, shortest, longest)

φ is the dual variable of the constraint ‖∂s′/∂s‖ ≤ C, one for all H steps, as in the published
code, whose step it has at ρ² = its rate² · C. Where steps are stiffer than C, as in contact, paths
become shorter, and where they are smoother, longer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, final

import torch
from torch import Tensor

from gradlab.options import COUNT, Within, check
from gradlab.training.members import under


@dataclass(frozen=True)
class Automatic:
    """α of each seed by itself, after every update of its policy.

    Attributes:
        entropy: H̄ in nats, of actions in units of their limits; None: −da.
        first: α before the first update, in scaled rewards per nat; rate: Adam's.
    """

    entropy: float | None = None
    first: Annotated[float, Within(above=0)] = 1.0
    rate: Annotated[float, Within(above=0)] = 3e-4

    def __post_init__(self) -> None:
        check(self, "temperature's {}".format)


@final
class Temperature:
    """State: log α of every seed and its optimiser.

    Attributes:
        value: α [E, 1], changed in place, so that an objective that holds it is always up to date.

    Args:
        limit: largest |action|, [da], or None.
    """

    def __init__(
        self, choice: Automatic, seeds: int, action_dim: int, limit: Tensor | None,
        dtype: torch.dtype, device: torch.device,
    ) -> None:  # fmt: skip
        self.entropy = -float(action_dim) if choice.entropy is None else choice.entropy
        if limit is not None:  # densities are of actions in their own units
            self.entropy += float(limit.log().sum())
        log = torch.full((seeds, 1), math.log(choice.first), dtype=dtype, device=device)
        self.log = log.requires_grad_()
        self.value = log.detach().exp()
        self.adam = torch.optim.Adam([self.log], lr=choice.rate)

    def step(self, log_prob: Tensor) -> None:
        """One step from log π [E, N] of the policy's own actions."""
        self.log.grad = -(log_prob + self.entropy).mean(dim=1, keepdim=True)
        self.adam.step()
        self._follow()

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, for `load`."""
        memory = self.adam.state.get(self.log, {})
        return {"log": self.log.detach()} | {f"adam.{name}": x for name, x in memory.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            self.log.copy_(state["log"])
        memory = under(state, "adam.")
        if memory:
            step = memory.pop("step").clone()  # which torch counts on the CPU
            means = {name: x.clone().to(self.log) for name, x in memory.items()}
            self.adam.state[self.log] = {"step": step} | means
        self._follow()

    @torch.no_grad()
    def _follow(self) -> None:
        self.value.copy_(self.log.exp())


@dataclass(frozen=True)
class Stiffness:
    """The horizon of each seed by itself, after every update of its policy.

    Attributes:
        threshold: C, largest singular value of ∂s′/∂s that is no contact.
        shortest: horizon at first, and the smallest one; the longest is the row's.
        rate: ρ.
    """

    threshold: Annotated[float, Within(above=0)] = 10.0
    shortest: COUNT = 8
    rate: Annotated[float, Within(above=0)] = 0.01

    def __post_init__(self) -> None:
        check(self, "stiffness's {}".format)

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
