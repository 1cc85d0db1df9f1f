"""Temperature α of a soft return: a number, or one that holds the policy's entropy at a target.

    log α ← log α − Adam(−mean (log π(a|s) + H̄)),   a ~ π(·|s), s of the batch

(Haarnoja et al. 2018, "Soft actor-critic algorithms and applications", eq. 18, in log α.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from gradlab import validation
from gradlab.training.trained import restored, under


@dataclass(frozen=True)
class Automatic:
    """α of each seed by itself, after every update of its policy.

    Attributes:
        entropy: H̄ in nats, of actions in units of their limits; None: −da.
        first: α before the first update, in scaled rewards per nat; rate: Adam's.
    """

    entropy: float | None = None
    first: float = 1.0
    rate: float = 3e-4

    def __post_init__(self) -> None:
        if self.entropy is not None:
            validation.number("entropy", self.entropy)
        for name in ("first", "rate"):
            validation.number(f"temperature's {name}", getattr(self, name), above=0)


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
            self.adam.state[self.log] = restored(memory, self.log)
        self._follow()

    @torch.no_grad()
    def _follow(self) -> None:
        self.value.copy_(self.log.exp())
