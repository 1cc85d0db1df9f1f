"""Target networks and how they follow the trained ones: values with one method.

    Polyak    θ′ ← θ′ + τ (θ − θ′)    after every update of the policy      (DDPG, TD3, SAC, MPG)
    Copied    θ′ ← θ                  after every k updates of the critic   (DQN, SVG)

Targets are computed before an update, so that a network that is copied after each one is none of
its own: `Copied(1)` is training without target networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from gradlab.errors import InputError
from gradlab.training.members import Network


class TargetNetwork(Protocol):
    """What a row's `target_policy` and `target_critic` are."""

    def __call__(self, target: Network, live: Network, iteration: int, acted: bool) -> None:
        """Move `target` in place after an update; `acted`: the policy was updated, too."""
        ...


@dataclass(frozen=True)
class Polyak:
    """A moving average over updates of the policy, by the share `tau`."""

    tau: float

    @torch.no_grad()
    def __call__(self, target: Network, live: Network, iteration: int, acted: bool) -> None:
        if acted:
            torch._foreach_lerp_(target.parameters, live.parameters, self.tau)


@dataclass(frozen=True)
class Copied:
    """The network as it was at the last multiple of `every` updates of the critic."""

    every: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.every, int) or self.every < 1:
            raise InputError(f"every is {self.every!r}, expected an integer from 1")

    @torch.no_grad()
    def __call__(self, target: Network, live: Network, iteration: int, acted: bool) -> None:
        if (iteration + 1) % self.every == 0:
            torch._foreach_copy_(target.parameters, live.parameters)
