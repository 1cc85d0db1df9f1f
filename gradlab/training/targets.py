"""What the critic is fitted to, [E, N].

    one step      r + γ Q′(s′, π′(s′) + clipped noise), the smaller of twins      (MPG eq. 11; TD3)
    n steps       Σ_{l<n} γ^l r_l + γⁿ Q′(s_n, π′(s_n)), the policy run from the batch (MPG eq. 11)
    soft          r + γ (min Q′(s′, a′) − α log π(a′|s′)),  a′ ~ π(·|s′)                       (SAC)

Where episodes are masked nothing is valued beyond a terminal state; a truncated episode is valued.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.data.replay import Batch
from gradlab.training.actors import Act, Objective, Value, model_step
from gradlab.training.algorithms import NStep, OneStep
from gradlab.training.models.seed_models import Model


def one_step(
    target: OneStep, batch: Batch, act: Act, value: Value, noise: Tensor | None,
    limit: Tensor | None, objective: Objective,
) -> Tensor:  # fmt: skip
    """`value` is the smaller of the target critics; noise [E, N, da] is standard normal."""
    action = act(batch.next_state)
    if target.smoothing and noise is not None:
        size = torch.ones(()) if limit is None else limit
        shift = (target.smoothing * noise).clamp(-target.limit, target.limit) * size
        action = within(action + shift, limit)
    return _bootstrapped(batch, value(batch.next_state, action), objective)


def soft(
    temperature: float, batch: Batch, action: Tensor, log_prob: Tensor, value: Value,
    objective: Objective,
) -> Tensor:  # fmt: skip
    after = value(batch.next_state, action) - temperature * log_prob
    return _bootstrapped(batch, after, objective)


def n_step(
    target: NStep, batch: Batch, system: Model, act: Act, target_act: Act, value: Value,
    noise: Tensor | None, objective: Objective,
) -> Tensor:  # fmt: skip
    """The batch's own action first, then the current policy; noise [n, E, N, noise_dim] or None."""
    state, action = batch.state, batch.action
    total = torch.zeros_like(batch.reward)
    alive = torch.ones_like(total)
    for t in range(target.steps):
        after, reward, still = model_step(
            system, state, action, None if noise is None else noise[t]
        )
        total = total + objective.discount**t * objective.reward_scale * alive * reward
        if objective.masked:
            alive = alive * still
        state, action = after, act(after)
    tail = objective.discount**target.steps * value(state, target_act(state))
    if target.tail is not None:
        tail = tail.clamp(*target.tail)
    return total + alive * tail


def within(action: Tensor, limit: Tensor | None) -> Tensor:
    """Clipped to the actuator's limits, where it has any."""
    return action if limit is None else torch.maximum(torch.minimum(action, limit), -limit)


def _bootstrapped(batch: Batch, after: Tensor, objective: Objective) -> Tensor:
    going_on = 1 - batch.terminated if objective.masked else 1.0
    return objective.reward_scale * batch.reward + objective.discount * going_on * after
