"""Targets of critics along on-policy windows: TD(λ), as of short-horizon actor-critics.

    G_t = r_t − α log π_t + γ ((1 − λ) V′(s_{t+1}) + λ G_{t+1}),     at a path's end λ = 0

(SHAC, Xu et al. 2022, eq. 8; with entropy, SAPO, Xing et al. 2024.) Of Q(s, a): V′ is Q′ − α log π
at an action of the policy there, and G_t + α log π_t the target (ABPT, Li et al. 2025). A path ends
with its window, and where an episode ends within it: a truncated one is valued there, a masked
terminal one is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gradlab.data.replay import Batch
from gradlab.errors import InputError
from gradlab.training.parts.context import Context
from gradlab.training.parts.critics import CriticKind, Q, V
from gradlab.training.parts.temperature import Automatic
from gradlab.training.parts.window_losses import by_path, goes_on, split, tail_action


@dataclass(frozen=True)
class StateLambda:
    """See above; V′ is the smallest of the target critics.

    Attributes:
        trace: λ.
        critics: how many are fitted to it.
        temperature: α, of the entropy inside the return; 0: none.
        stochastic: whether the policy is.
        actions: critics are of Q(s, a).
    """

    trace: float = 0.95
    critics: int = 1
    temperature: float | Automatic = 0.0
    stochastic: bool = True
    actions: bool = False
    least: ClassVar[bool] = True
    of_model: ClassVar[bool] = False
    of_members: ClassVar[bool] = False
    of_paths: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.trace <= 1:
            raise InputError(f"trace is {self.trace!r}, expected a number from 0 to 1")
        if self.critics not in (1, 2):
            raise InputError(f"critics is {self.critics!r}, expected 1 or 2")

    @property
    def kind(self) -> CriticKind:
        """Of the critics that are fitted."""
        return Q if self.actions else V

    @property
    def name(self) -> str:
        of = "Q" if self.actions else "V"
        return f"TD({self.trace:g}) {'twin ' if self.critics == 2 else ''}{of}"

    @property
    def soft(self) -> bool:
        return self.stochastic

    def __call__(self, context: Context, batch: Batch) -> Tensor:
        objective, agents = context.objective, context.agents
        steps = batch.reward.shape[1] // agents
        paths = by_path(batch, steps, agents)
        paid = objective.reward_scale * paths.reward
        earned = paid
        if self.temperature:
            earned = objective.soft(paid, context.frozen(paths.state, paths.policy_noise)[1])
        going_on = 1 - paths.terminated if objective.masked else 1.0
        ahead = tail_action(context, paths.next_state) if self.actions else ()
        value = objective.discount * going_on * context.target_value(paths.next_state, *ahead)
        returns = _traced(
            split(earned, steps), split(value, steps), goes_on(paths, steps), self.trace,
            objective.discount,
        )  # fmt: skip
        own = split(earned - paid, steps) if self.actions else 0.0  # its entropy is added to Q
        return (returns - own).transpose(1, 2).flatten(1)


def _traced(earned: Tensor, value: Tensor, same: Tensor, trace: float, discount: float) -> Tensor:
    """G of every step, from rewards and γ V′ after them and whether a path goes on there; all of
    them [E, paths, steps]."""
    later, returns = torch.zeros_like(value[..., 0]), []
    for t in reversed(range(value.shape[2])):
        mixed = (1 - trace) * value[..., t] + trace * discount * later
        later = earned[..., t] + torch.where(same[..., t], mixed, value[..., t])
        returns.append(later)
    return torch.stack(returns[::-1], dim=2)
