"""What improves the policy: the mixture of n-step model returns whose gradient MPG follows.

    X_n(s) = Σ_{t<n} γᵗ r_t + γⁿ Q(s_n, a_n)          loss = −Σ_n w_n mean X_n        (MPG eq. 8, 9)

"first": a_0 alone carries θ, later actions come from a frozen copy with their state path kept, so
that ∇X_n is the unified gradient of eq. 6. "all": every action carries θ (eq. 5). All horizons
share one rollout; a seed without weight on the longer ones rests at its first states while others
go on, so that steps it does not ask for cannot harm it. `Estimator.mean_gradient` gives the same
gradients, one seed at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab.training.algorithms import Term
from gradlab.training.models.seed_models import Model
from gradlab.training.weights import Floats

Act = Callable[[Tensor], Tensor]  # state [E, N, ds] → action [E, N, da]
Value = Callable[[Tensor, Tensor], Tensor]  # state, action → [E, N]


@dataclass(frozen=True)
class Objective:
    """What a return means: γ, the factor on every reward, and whether it ends with the episode."""

    discount: float
    reward_scale: float = 1.0
    masked: bool = False


def mixture_loss(
    terms: Sequence[Term],
    weights: Sequence[float] | Floats,
    act: Act,
    later: Act,
    value: Value,
    model: Model | None,
    state: Tensor,
    noise: Tensor | None,
    objective: Objective,
) -> Tensor:
    """−Σ_n w_n mean_N X_n, [E].

    Args:
        act, later: the live policy, and its frozen copy (for terms of the first action).
        weights: of the terms, [terms], or of each seed, [E, terms].
        state: [E, N, ds]; noise: of the model, [H, E, N, noise_dim] or None.
    """
    total = state.new_zeros(state.shape[0])
    shares = np.broadcast_to(np.asarray(weights), (len(total), len(terms))).T
    for actions in dict.fromkeys(term.actions for term in terms):
        chosen = {
            term.horizon: weight
            for term, weight in zip(terms, shares, strict=True)
            if term.actions == actions
        }
        then = later if actions == "first" else act
        total = total - _weighted_return(chosen, act, then, value, model, state, noise, objective)
    return total


def _weighted_return(
    chosen: dict[int, Floats],
    act: Act,
    then: Act,
    value: Value,
    model: Model | None,
    state: Tensor,
    noise: Tensor | None,
    objective: Objective,
) -> Tensor:
    """Σ_n w_n mean X_n [E] of the horizons n → w_n [E] in `chosen`, along one rollout."""
    last, discount = max(chosen), objective.discount
    total = state.new_zeros(state.shape[0])
    rewards = state.new_zeros(state.shape[:2])
    alive = torch.ones_like(rewards)
    action = act(state)
    home, asked = (state, action.detach()), _longest(chosen)
    for t in range(last + 1):
        if t in chosen:
            tail = rewards + discount**t * alive * value(state, action)
            total = total + state.new_tensor(chosen[t]) * tail.mean(dim=1)
        if t == last:
            break
        assert model is not None
        over = asked <= t
        state, action = _at_rest(over, home, state, action)
        state, reward, still = model_step(model, state, action, None if noise is None else noise[t])
        rewards = rewards + discount**t * objective.reward_scale * alive * reward
        if objective.masked:
            alive = alive * still
        state, action = _at_rest(over, home, state, then(state))
    return total


def _at_rest(
    over: NDArray[np.bool_], home: tuple[Tensor, Tensor], state: Tensor, action: Tensor
) -> tuple[Tensor, Tensor]:
    """State and action, those of seeds that ask for no further step at home."""
    if not over.any():
        return state, action
    resting = torch.from_numpy(over).to(state.device)[:, None, None]
    return torch.where(resting, home[0], state), torch.where(resting, home[1], action)


def _longest(chosen: dict[int, Floats]) -> Floats:
    """The longest horizon to which each seed gives a weight, [E]."""
    return np.asarray(np.max([n * (weight > 0) for n, weight in chosen.items()], axis=0))


def model_step(
    model: Model, state: Tensor, action: Tensor, noise: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of every member: next state [E, N, ds], reward [E, N], alive [E, N] as 0 or 1."""
    shape = state.shape[:2]
    after = model.step(
        state.flatten(0, 1), action.flatten(0, 1), None if noise is None else noise.flatten(0, 1)
    )
    return (
        after.state.view(state.shape),
        after.reward.view(shape),
        after.alive.view(shape).to(after.reward),
    )
