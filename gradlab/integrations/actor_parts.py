"""The parts of another library's trainer that an integration hands to the probe."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from gradlab.probe.policy_calls import Watched


@dataclass(frozen=True)
class Parts:
    """
    Attributes:
        policy: its parameters are θ; state → action in the environment's units.
        optimizer: what steps θ.
        critic: (state, action) → [N]; None where there is none, or it values states alone.
        watched: what the trainer calls.
        critic_optimizer: what steps the critic, possibly θ too; None where nothing does.
        watched_critic: the module that the trainer calls for its critic's loss, if there is one.
        critic_alone: the actor ascends Q(s, π(s)) and no step of a model.
    """

    policy: nn.Module
    optimizer: torch.optim.Optimizer
    critic: nn.Module | None
    watched: Watched
    critic_optimizer: torch.optim.Optimizer | None = None
    watched_critic: nn.Module | None = None
    critic_alone: bool = False
